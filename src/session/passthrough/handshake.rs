//! Opens a client's own connection to Redis, and says there what the client has said here before: who it is, which
//! protocol it speaks, which database is its own.
//!
//! A connection is handed over only once each step that decides this has been answered well. So no command of the
//! client's is ever run as somebody else, or in another database, because a step before it was refused.

use crate::dial::Dialer;
use crate::net::Stream;
use crate::resp::reply::Protocol;
use crate::session::client::Client;
use crate::store::connection::{Connection, Error, Reply};
use std::sync::Arc;
use std::time::Duration;

/// Why a client has no connection to Redis.
#[derive(Debug)]
pub enum Failure {
    /// Redis cannot be reached, or refuses what Tollgate says for itself: the login or database of `redis.addr`.
    Redis(Error),
    /// Redis refuses what the client has said, in these words. Nothing may be run for it.
    Client(String),
}

/// A connection on which all steps were said.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: Stream,
    /// Redis's id of it, if that was asked for and told.
    pub redis_id: Option<u64>,
}

/// One command of the handshake.
#[derive(Debug)]
pub struct Step {
    words: Vec<Vec<u8>>,
    says: Says,
}

/// Whose business a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Tollgate's.
    Own,
    /// The client's: it decides who or where the client is.
    Client,
    /// The client's, but nothing depends on it: Redis may refuse it.
    Attribute,
}

/// What a connection for `client` begins with. Tollgate's own login comes first, if that is wanted.
pub fn steps(client: &Client, dialer: &Dialer, own_login: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut say = |says, words: &[&[u8]]| {
        steps.push(Step { words: words.iter().map(|word| word.to_vec()).collect(), says });
    };
    if let Some(own) = dialer.auth().filter(|_| own_login) {
        say(Says::Own, &own);
    }
    if let Some(login) = &client.login {
        say(Says::Client, &login.words());
    }
    if client.protocol == Protocol::Resp3 {
        say(Says::Client, &[b"HELLO", b"3"]);
    }
    match client.database {
        Some(database) => say(Says::Client, &[b"SELECT", database.to_string().as_bytes()]),
        None if dialer.db() != 0 => say(Says::Own, &[b"SELECT", dialer.db().to_string().as_bytes()]),
        None => {}
    }
    if !client.name.is_empty() {
        say(Says::Attribute, &[b"CLIENT", b"SETNAME", &client.name]);
    }
    for (option, value) in [(&b"LIB-NAME"[..], &client.lib_name), (b"LIB-VER", &client.lib_ver)] {
        if !value.is_empty() {
            say(Says::Attribute, &[b"CLIENT", b"SETINFO", option, value]);
        }
    }
    if client.was_told_id {
        // Redis's id, by which others' commands reach the client that was told another.
        say(Says::Attribute, &[b"CLIENT", b"ID"]);
    }
    steps
}

/// Dials Redis and says `steps`, within `timeout` together.
///
/// # Errors
/// Redis cannot be had for this client; see [`Failure`].
pub async fn open(dialer: Arc<Dialer>, steps: Vec<Step>, timeout: Duration) -> Result<Opened, Failure> {
    let attempt = async {
        let mut connection = Connection::new(dialer.dial(timeout).await.map_err(|error| Failure::Redis(error.into()))?);
        let mut steps = steps.as_slice();
        let mut redis_id = None;
        while let Some((first, _)) = steps.split_first() {
            // Some versions of Redis let a failing AUTH go without a reply when others are pending, so it goes alone.
            let alone = usize::from(first.is_login());
            let count = alone.max(steps.iter().take_while(|step| !step.is_login()).count());
            let (together, rest) = steps.split_at_checked(count).unwrap_or((steps, &[]));
            together.iter().for_each(|step| connection.write(&step.words));
            for step in together {
                let outcome = connection.reply().await;
                // Of all steps CLIENT ID alone is answered by a number.
                if let Ok(Reply::Integers(numbers)) = &outcome {
                    redis_id = numbers.first().and_then(|id| u64::try_from(*id).ok());
                }
                step.judge(outcome)?;
            }
            steps = rest;
        }
        Ok(Opened { stream: connection.into_stream(), redis_id })
    };
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| Err(Failure::Redis(Error::late())))
}

impl Step {
    fn is_login(&self) -> bool {
        self.words.first().is_some_and(|name| name == b"AUTH")
    }

    /// What Redis's answer to it means.
    fn judge<T>(&self, outcome: Result<T, Error>) -> Result<(), Failure> {
        match (outcome, self.says) {
            (Ok(_), _) => Ok(()),
            // It is Redis as a whole that does not answer yet, or not any more, and not the client that it refuses.
            (Err(error), _) if error.is_about_redis() => Err(Failure::Redis(error)),
            (Err(Error::Refused(_)), Says::Attribute) => Ok(()),
            (Err(Error::Refused(text)), Says::Client) => Err(Failure::Client(text)),
            (Err(error), _) => Err(Failure::Redis(error)),
        }
    }
}
