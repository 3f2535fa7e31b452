//! What keeps Redis from being used, in plain words, and what to do about it. The errors of sockets, of TLS and of Redis
//! name a symptom; here each is led back to the setting, or the state of Redis, that it comes from.
//!
//! Does no input or output and remembers nothing.

mod tls;

use crate::dial::{Late, LeadsHere};
use crate::store::connection::{Error, NoResp, Wordless};
use std::io;

/// How a problem is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Redis is away, or too slow. It may come back by itself.
    Outage,
    /// Redis is there and refuses for now.
    Refusal,
    /// Redis is there, and will never serve as all is set up.
    Setup,
    /// There is something that is no Redis, or that cannot be spoken to as configured.
    Stranger,
    /// There is this Tollgate itself, or one that has no Redis either.
    Tollgate,
    /// It is Tollgate's own: Redis has nothing to do with it.
    Own,
    /// Another place knows where Redis is.
    Elsewhere,
    /// It works, but less well than it could, or not for ever.
    Warning,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How it is to be taken.
    pub kind: Kind,
    /// What it is, in plain words.
    pub what: String,
    /// What to do about it; empty if there is nothing but to wait.
    pub advice: String,
    /// How whoever noticed says it, word for word; empty if nobody did.
    pub error: String,
}

/// Whom Redis is asked as, and where.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The user that is set, or Redis's `default`.
    pub user: &'a str,
    /// The host of `redis.addr`, or the path of the socket.
    pub host: &'a str,
    /// `redis.prefix`.
    pub prefix: &'a str,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { kind, what: what.into(), advice: advice.into(), error: String::new() }
    }

    /// The same, noticed by what was said so.
    pub fn said(self, error: impl Into<String>) -> Self {
        Self { error: error.into(), ..self }
    }

    /// Whether Redis was reached and said so: a client's own connection may do better.
    pub fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::Refusal | Kind::Setup)
    }

    /// Whether it goes away only when somebody changes something.
    pub fn is_lasting(&self) -> bool {
        matches!(self.kind, Kind::Setup | Kind::Stranger | Kind::Tollgate)
    }
}

/// The problem that an error shows.
pub fn of(error: &Error, about: About<'_>) -> Problem {
    let problem = match error {
        Error::Io(error) => of_io(error, about),
        Error::Refused(text) => of_reply(text, about),
        Error::Unexpected => Problem::new(
            Kind::Stranger,
            "what is there does not answer as Redis does",
            "have redis.addr lead to a Redis, or to a Valkey",
        ),
    };
    problem.said(error.to_string())
}

/// What Redis says, and what is meant. The first row holds of which the text has the words, at the beginning of a word:
/// inside of a script older versions put the error's code behind words of their own.
const REPLIES: [(&str, Kind, &str, &str); 30] = {
    use Kind::{Outage, Refusal, Setup, Stranger};
    [
        (
            "NOAUTH",
            Setup,
            "Redis asks for a password, and none is set",
            "set redis.password or redis.password_file, and redis.user unless it is `default`",
        ),
        ("WRONGPASS", Setup, WRONG_PASSWORD, CORRECT_PASSWORD),
        ("invalid password", Setup, WRONG_PASSWORD, CORRECT_PASSWORD),
        ("without any password configured", Setup, NEEDLESS_PASSWORD, DROP_PASSWORD),
        ("no password is set", Setup, NEEDLESS_PASSWORD, DROP_PASSWORD),
        (
            "max number of clients",
            Outage,
            "Redis has as many clients as it takes",
            "raise maxclients of Redis, or have fewer clients connect",
        ),
        (
            "DENIED",
            Stranger,
            "what is there is in protected mode and lets nobody in from here",
            "have Redis ask for a password (requirepass or ACL SETUSER), which redis.password then holds",
        ),
        ("READONLY", Setup, "it is a replica, which takes no writes", PRIMARY),
        ("MASTERDOWN", Setup, "it is a replica that has lost its primary", PRIMARY),
        ("MOVED ", Setup, CLUSTER, AUTO),
        ("ASK ", Setup, CLUSTER, AUTO),
        ("CROSSSLOT", Setup, CLUSTER, AUTO),
        ("execute a command while the cluster is down", Refusal, CLUSTER_DOWN, FULL_COVERAGE),
        ("CLUSTERDOWN", Refusal, CLUSTER_DOWN, FULL_COVERAGE),
        (
            "SELECT is not allowed in cluster mode",
            Setup,
            "it is a node of a Redis Cluster, which has one database",
            "leave the number behind the / of redis.addr away",
        ),
        (
            "DB index is out of range",
            Setup,
            "Redis has no database of the number in redis.addr",
            "take another number behind the / of redis.addr, or raise `databases` of Redis",
        ),
        ("NOPERM", Setup, NO_RIGHT, GIVE_RIGHT),
        ("The user executing the script can't", Setup, NO_RIGHT, GIVE_RIGHT),
        ("ACL failure in script", Setup, NO_RIGHT, GIVE_RIGHT),
        (
            "this Tollgate is embedded",
            Setup,
            "it is a Tollgate with --embedded, which has no Redis for others",
            "have redis.addr lead to a Redis",
        ),
        (
            "UNAVAILABLE",
            Kind::Tollgate,
            "it is another Tollgate, which has no Redis itself",
            "have redis.addr lead to the Redis, not to a Tollgate",
        ),
        (
            "unknown command",
            Setup,
            "Redis does not know a command that is needed",
            "Redis 6.2 or later is needed, with none of its commands renamed or switched off",
        ),
        (
            "WRONGTYPE",
            Setup,
            "a key of Tollgate's holds something else",
            "set redis.prefix to what no key of others begins with",
        ),
        ("OOM ", Refusal, "Redis is out of memory, and may not make room", "raise maxmemory of Redis, or remove keys"),
        (
            "MISCONF",
            Refusal,
            "Redis takes no writes because it cannot save its data",
            "see Redis's log: its disk may be full, or its folder not writable",
        ),
        (
            "NOREPLICAS",
            Refusal,
            "Redis takes no writes because too few replicas follow it",
            "see min-replicas-to-write of Redis",
        ),
        ("LOADING", Refusal, "Redis is loading its data", ""),
        (
            "BUSY ",
            Refusal,
            "a script or function of somebody's holds Redis up",
            "it ends by itself, or by SCRIPT KILL or FUNCTION KILL",
        ),
        ("TRYAGAIN", Setup, CLUSTER, AUTO),
        ("NOPROTO", Stranger, "what is there speaks another protocol than Redis", "have redis.addr lead to a Redis"),
    ]
};
const WRONG_PASSWORD: &str = "Redis does not take the user and password that are set";
const CORRECT_PASSWORD: &str =
    "correct redis.user and redis.password (or redis.addr, if they stand there), or the user by ACL SETUSER in Redis";
const NEEDLESS_PASSWORD: &str = "a password is set, and Redis has none for its user `default`";
const DROP_PASSWORD: &str = "take it out of redis.password and redis.addr, or set requirepass in Redis";
const PRIMARY: &str = "have redis.addr lead to the primary";
/// What a node of a cluster is.
pub const CLUSTER: &str = "it is a node of a Redis Cluster, and not taken for that";
const CLUSTER_DOWN: &str = "the cluster is down: nobody serves some of its slots";
const FULL_COVERAGE: &str =
    "see CLUSTER INFO; with cluster-require-full-coverage no the other slots are served all the same";
/// What has it be taken for what it is.
pub const AUTO: &str = "set redis.mode to auto, or name it in redis.addr by redis+cluster:// or redis+sentinel://";
const NO_RIGHT: &str = "Redis's user lacks a right that checks need";
const GIVE_RIGHT: &str = "the README has the line for ACL SETUSER with all that is needed";

/// The problem that Redis names with an error.
pub fn of_reply(text: &str, about: About<'_>) -> Problem {
    let begins_word = |at: usize| text.get(..at).is_none_or(|before| !before.ends_with(|c: char| c.is_alphanumeric()));
    let is_said = |words: &str| text.match_indices(words).any(|(at, _)| begins_word(at));
    let problem = match REPLIES.iter().find(|(words, ..)| is_said(words)) {
        Some((_, kind, NO_RIGHT, advice)) => {
            Problem::new(*kind, format!("the user '{}' lacks a right that checks need", about.user), *advice)
        }
        Some((_, kind, what, advice)) => Problem::new(*kind, *what, *advice),
        None => Problem::new(Kind::Refusal, format!("Redis refuses: {text}"), ""),
    };
    problem.said(text)
}

fn of_io(error: &io::Error, about: About<'_>) -> Problem {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    if is_own(error) {
        return Problem::new(
            Kind::Own,
            "Tollgate has no file descriptors left",
            "raise its limit (ulimit -n, LimitNOFILE of systemd), or lower server.max_clients",
        );
    }
    if let Some(error) = inner(error) {
        return tls::of(error, about);
    }
    if let Some(stranger) = inner(error).and_then(of_no_resp) {
        return stranger;
    }
    let outage = |what: String, advice: &str| Problem::new(Kind::Outage, what, advice);
    match (inner(error), error.kind()) {
        (Some(Late::Lookup), _) => outage(format!("nobody says where '{}' is", about.host), "see to DNS"),
        (Some(Late::Connect), _) => outage(
            "nothing answers there".to_owned(),
            "see whether redis.addr is right, Redis runs, and no firewall is between",
        ),
        (Some(Late::Handshake), _) => Problem::new(
            Kind::Stranger,
            "what is there does not begin TLS",
            "a Redis without TLS is reached by redis:// in place of rediss://",
        ),
        (None, NotFound) if error.raw_os_error().is_none() => {
            outage(format!("the name '{}' leads nowhere", about.host), "see whether redis.addr is right, and to DNS")
        }
        (None, NotFound) => {
            outage("there is no such socket".to_owned(), "see whether redis.addr is right and Redis runs")
        }
        (None, ConnectionRefused) => {
            outage("nobody listens there".to_owned(), "see whether redis.addr is right and Redis runs")
        }
        (None, PermissionDenied) => Problem::new(
            Kind::Stranger,
            "Tollgate may not open the socket",
            "see to the rights of the socket: unixsocketperm of Redis",
        ),
        _ if inner::<LeadsHere>(error).is_some() => leads_here(),
        _ if inner::<Wordless>(error).is_some() => outage(
            "what is there closes the connection without a word".to_owned(),
            "a port that wants TLS does so, which is reached by rediss:// in place of redis://; so does a proxy before no Redis",
        ),
        _ => outage(error.to_string(), ""),
    }
}

/// Redis's address is Tollgate's own.
pub fn leads_here() -> Problem {
    Problem::new(
        Kind::Tollgate,
        "redis.addr leads to this Tollgate itself",
        "have it lead to the Redis that is to be behind",
    )
}

/// Whether it is for lack of something that this process, or its machine, has not enough of.
pub fn is_own(error: &io::Error) -> bool {
    let codes = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn inner<E: std::error::Error + 'static>(error: &io::Error) -> Option<&E> {
    error.get_ref()?.downcast_ref()
}

fn of_no_resp(NoResp(said): &NoResp) -> Option<Problem> {
    let (what, advice) = if said.starts_with(b"HTTP/") {
        ("it is a web server", "have redis.addr lead to a Redis".to_owned())
    } else if let [0x14..=0x17, 3, ..] = said.as_slice() {
        ("it wants TLS", "a Redis with TLS is reached by rediss:// in place of redis://".to_owned())
    } else {
        ("it is no Redis", format!("have redis.addr lead to a Redis: what is there says '{}'", said.escape_ascii()))
    };
    Some(Problem::new(Kind::Stranger, what, advice))
}

#[cfg(test)]
mod tests;
