//! A client says who it is: AUTH, and HELLO with AUTH.

use super::client::Client;
use crate::auth::{Auth, DEFAULT_USER, WRONG_PASSWORD};
use crate::limiter::Limiter;
use crate::resp::request::{self, Args};
use crate::worker::Worker;
use bytes::BytesMut;

/// The arguments of AUTH: a password, and a user before it if one was named.
pub type Credentials = Vec<Vec<u8>>;

const UNKNOWN_LOGIN: &str = "UNAVAILABLE Redis cannot be reached, and it has not let this login in before";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. \
                           Are you sure your configuration is correct?";

/// User and password of credentials.
pub fn user_and_password(credentials: &Credentials) -> (&[u8], &[u8]) {
    match credentials.as_slice() {
        [user, password] => (user, password),
        [password] => (DEFAULT_USER, password),
        _ => (DEFAULT_USER, b""),
    }
}

/// What a command says of who its client is, if it does.
pub fn credentials(args: &Args<'_>) -> Option<Credentials> {
    let owned = |words: &mut dyn Iterator<Item = &[u8]>| words.map(<[u8]>::to_vec).collect::<Vec<_>>();
    if args.name().eq_ignore_ascii_case(b"auth") {
        return matches!(args.len(), 2 | 3).then(|| owned(&mut args.from(1)));
    }
    if !args.name().eq_ignore_ascii_case(b"hello") {
        return None;
    }
    let mut options = args.from(2);
    options.find(|option| option.eq_ignore_ascii_case(b"auth"))?;
    Some(owned(&mut options.take(2))).filter(|credentials| credentials.len() == 2)
}

/// HELLO without what it says of who its client is, which is not for Redis to know.
pub fn without_credentials(args: &Args<'_>) -> BytesMut {
    let mut kept: Vec<&[u8]> = args.from(0).collect();
    if let Some(at) = kept.iter().skip(2).position(|option| option.eq_ignore_ascii_case(b"auth")) {
        kept.drain(at + 2..kept.len().min(at + 5));
    }
    let mut raw = BytesMut::new();
    request::write(&mut raw, &kept);
    raw
}

/// Lets a client in that Redis is not asked about.
///
/// # Errors
/// It may not come in; the text is the reply.
pub fn log_in(worker: &Worker, client: &mut Client, credentials: Credentials) -> Result<(), &'static str> {
    let shared = &worker.shared;
    let (user, password) = user_and_password(&credentials);
    match (&shared.auth, &*shared.limiter) {
        (Auth::None(_), Limiter::Embedded(_)) if credentials.len() == 1 => return Err(NO_PASSWORD),
        // It is Redis's business, and Redis is away: there it is said again once there is a connection.
        (Auth::None(_), Limiter::Redis(_)) => client.auth = Some(credentials),
        (Auth::Redis(remembered), _) => {
            client.permissions = Some(remembered.check(user, password).ok_or(UNKNOWN_LOGIN)?);
            client.auth = Some(credentials);
        }
        (auth, _) => client.permissions = Some(auth.check(user, password).ok_or(WRONG_PASSWORD)?),
    }
    Ok(())
}
