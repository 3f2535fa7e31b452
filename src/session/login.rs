//! Lets a client in whom Redis is not asked about: users of the configuration, and logins that Redis knew when it was
//! last there.

use super::client::Client;
use super::hello::Login;
use crate::auth::{Auth, WRONG_PASSWORD};
use crate::limiter::Limiter;
use crate::worker::Worker;

const UNKNOWN_LOGIN: &str = "UNAVAILABLE Redis cannot be reached, and it has not let this login in before";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. \
                           Are you sure your configuration is correct?";

/// Lets a client in that Redis is not asked about.
///
/// # Errors
/// It may not come in; the text is the reply.
pub fn log_in(worker: &Worker, client: &mut Client, login: Login) -> Result<(), &'static str> {
    let shared = &worker.shared;
    let check = |down_since| shared.auth.check(login.user(), login.password(), down_since);
    match (&shared.auth, &*shared.limiter) {
        (Auth::None(_), Limiter::Embedded(_)) if login.is_password_alone() => return Err(NO_PASSWORD),
        // It is Redis's business, and Redis is away: there it is said again once there is a connection.
        (Auth::None(_), Limiter::Redis(_)) => client.login = Some(login),
        (Auth::Redis(_), Limiter::Redis(remote)) => {
            client.permissions = Some(check(remote.known().down_since).ok_or(UNKNOWN_LOGIN)?);
            client.login = Some(login);
        }
        _ => client.permissions = Some(check(None).ok_or(WRONG_PASSWORD)?),
    }
    Ok(())
}
