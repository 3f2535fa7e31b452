//! What comes back for a command that is forwarded: how many replies, and what they change.

pub mod ids;
pub mod merge;

use super::client::Client;
use super::hello::{Hello, Login};
use super::redis_commands::{Does, Keys, RedisCommand, Subscribed, is_too_short_to_matter};
use crate::command::OwnCommand;
use crate::resp::parse_int;
use crate::resp::request::Args;
use ids::Ids;
use merge::Merge;

/// Which of a client's connections to Redis. It has one, so that this takes neither room nor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(());

impl ConnectionId {
    /// The one.
    pub const ONLY: Self = Self(());
}

/// What is due from Redis for a forwarded command, or for several in a row.
#[derive(Debug)]
pub enum Expect {
    /// So many replies, passed on as they come.
    Replies(u64),
    /// One, which, unless it is an error, means that the client has changed so.
    Change(Box<Change>),
    /// One, when Redis has something to give: the command waits for that by nature.
    Blocking,
    /// One: `+OK` begins a transaction.
    Multi,
    /// One, likewise, which the client was given already.
    HeldMulti,
    /// One: the transaction is over.
    EndMulti,
    /// One, an error, in whose place the client is told that this command of Tollgate's cannot run inside MULTI.
    RefusedInMulti(&'static OwnCommand),
    /// One, to which Tollgate adds its own.
    Merge(Merge),
    /// One to a command that names clients, or is answered by what names them, by their ids.
    Ids(Ids),
    /// A confirmation for each channel or pattern named, or one reply for all, when they are not subscribed to.
    Confirmations(u64),
    /// A confirmation for each that is subscribed to, at least one.
    ConfirmationsOfAll(Subscribed),
    /// No reply: the rest of a message of which the beginning was passed on while nothing was due.
    Rest,
}

impl Expect {
    /// Whether what comes back decides how the commands behind are to be taken.
    pub fn is_barrier(&self) -> bool {
        let changes_nothing = matches!(self, Self::Replies(_) | Self::Blocking | Self::Merge(_) | Self::Ids(_));
        !changes_nothing && !matches!(self, Self::RefusedInMulti(_) | Self::Rest)
    }

    /// Whether it comes from a subscription, also while CLIENT REPLY is off.
    pub fn is_confirmation(&self) -> bool {
        matches!(self, Self::Confirmations(_) | Self::ConfirmationsOfAll(_))
    }
}

/// A change to what a client has said of itself.
#[derive(Debug)]
pub enum Change {
    /// HELLO.
    Hello(Hello),
    /// AUTH.
    Auth(Login),
    /// SELECT.
    Database(u32),
    /// CLIENT SETNAME.
    Name(Vec<u8>),
    /// RESET.
    Reset,
}

impl Change {
    /// Who it says the client is, if it does.
    pub fn login(&self) -> Option<&Login> {
        match self {
            Self::Auth(login) | Self::Hello(Hello { login: Some(login), .. }) => Some(login),
            _ => None,
        }
    }

    /// Applies it.
    pub fn apply(self, client: &mut Client) {
        match self {
            Self::Hello(hello) => client.said_hello(hello),
            Self::Auth(login) => client.login = Some(login),
            Self::Database(number) => client.database = Some(number),
            Self::Name(name) => client.name = name,
            Self::Reset => client.reset(),
        }
    }
}

/// What a command does to its connection, beyond asking for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// CLIENT REPLY ON, OFF or SKIP.
    ReplyOn,
    /// No replies from here on.
    ReplyOff,
    /// None to the next command.
    ReplySkip,
    /// WATCH: what is watched is lost with the connection.
    Watch,
    /// EXEC, DISCARD, UNWATCH.
    Unwatch,
    /// RESET, which also turns replies on.
    Reset,
    /// MONITOR.
    Monitor,
    /// Something that cannot be set up again on another connection, or that another server may lack: CLIENT TRACKING
    /// and its like, scripts and functions. A client that runs a script by its hash believes that its server has it.
    Pin,
    /// SYNC or PSYNC: what comes back is no RESP any more.
    Replicate,
}

impl Effect {
    /// Whether it is one of CLIENT REPLY.
    pub fn is_on_replies(self) -> bool {
        matches!(self, Self::ReplyOn | Self::ReplyOff | Self::ReplySkip)
    }
}

/// Whether a command is one of the many that have a reply each and do nothing else that matters here.
pub fn is_plain(args: &Args<'_>) -> bool {
    let name = args.name();
    // Apart from the rest, so that for GET and SET nothing is called.
    if is_too_short_to_matter(name.len()) { !name.is_empty() } else { is_plain_by_table(name, args) }
}

fn is_plain_by_table(name: &[u8], args: &Args<'_>) -> bool {
    let command = RedisCommand::of(name);
    match command.does {
        Does::Nothing => OwnCommand::of(name).is_none(),
        Does::Quit | Does::Http => false,
        _ => matches!(
            Route::of(command, args, args.len()),
            Route { expect: Expect::Replies(_), effect: None, exclusive: false }
        ),
    }
}

/// Whether a plain command and Tollgate's own cannot tell which of them came first: it is done at once, and names keys
/// of which none begins with `prefix`, as all of Tollgate's do.
pub fn is_independent(args: &Args<'_>, prefix: &str) -> bool {
    let keys = match RedisCommand::of(args.name()).keys {
        Keys::Unknown => return false,
        Keys::First => 1,
        Keys::All => args.len() - 1,
    };
    args.len() > 1 && args.from(1).take(keys).all(|key| !key.starts_with(prefix.as_bytes()))
}

/// How a command is forwarded.
#[derive(Debug)]
pub struct Route {
    /// What comes back for it.
    pub expect: Expect,
    /// What else it does.
    pub effect: Option<Effect>,
    /// It is sent with nothing pending, and nothing is sent behind it until its reply has come: some versions of Redis
    /// let a failing AUTH go without a reply when others are pending.
    pub exclusive: bool,
}

impl Route {
    const fn replies(count: u64) -> Self {
        Self { expect: Expect::Replies(count), effect: None, exclusive: false }
    }

    /// The route of a command. `count` is how many arguments it has, of which the last may not have come yet.
    pub fn of(command: &RedisCommand, args: &Args<'_>, count: usize) -> Self {
        if !command.takes(count) {
            return Self::replies(1);
        }
        let (expect, effect) = match command.does {
            Does::Nothing | Does::Quit | Does::Http => (Expect::Replies(1), None),
            Does::LogIn => return Login::of_auth(args).map_or(Self::replies(1), Self::of_auth),
            Does::Hello => return Self::of_hello(args),
            Does::Client => return Self::of_client(args, count),
            Does::Select => {
                let database = args.get(1).and_then(parse_int).and_then(|number| u32::try_from(number).ok());
                let change = database.map(|number| Expect::Change(Box::new(Change::Database(number))));
                (change.unwrap_or(Expect::Replies(1)), None)
            }
            Does::Reset => (Expect::Change(Box::new(Change::Reset)), Some(Effect::Reset)),
            Does::Multi => (Expect::Multi, None),
            Does::Exec | Does::Discard => (Expect::EndMulti, Some(Effect::Unwatch)),
            Does::Watch => (Expect::Replies(1), Some(Effect::Watch)),
            Does::Unwatch => (Expect::Replies(1), Some(Effect::Unwatch)),
            Does::Unsubscribe(kind) if count == 1 => (Expect::ConfirmationsOfAll(kind), None),
            Does::Subscribe | Does::Unsubscribe(_) => (Expect::Confirmations(count as u64 - 1), None),
            Does::Monitor => (Expect::Replies(1), Some(Effect::Monitor)),
            Does::Replicate => (Expect::Replies(1), Some(Effect::Replicate)),
            Does::Pin => (Expect::Replies(1), Some(Effect::Pin)),
            Does::Block => (Expect::Blocking, None),
            // Its options stand before the streams' names, one of which may be `block`.
            Does::BlockIfAsked => {
                let mut options = args.from(1).take_while(|word| !word.eq_ignore_ascii_case(b"streams"));
                let is_asked = options.any(|word| word.eq_ignore_ascii_case(b"block"));
                (if is_asked { Expect::Blocking } else { Expect::Replies(1) }, None)
            }
            Does::Describe => (Merge::of(args, count).map_or(Expect::Replies(1), Expect::Merge), None),
        };
        Self { expect, effect, exclusive: false }
    }

    fn of_auth(login: Login) -> Self {
        Self { expect: Expect::Change(Box::new(Change::Auth(login))), effect: None, exclusive: true }
    }

    fn of_hello(args: &Args<'_>) -> Self {
        // What is no HELLO is Redis's to refuse.
        let Ok(hello) = Hello::parse(args) else {
            return Self::replies(1);
        };
        let exclusive = hello.login.is_some();
        Self { expect: Expect::Change(Box::new(Change::Hello(hello))), effect: None, exclusive }
    }

    fn of_client(args: &Args<'_>, count: usize) -> Self {
        let sub = args.get(1).unwrap_or_default().to_ascii_lowercase();
        let value = args.get(2).unwrap_or_default().to_ascii_lowercase();
        // Of a request that has not come whole, nothing more is read: it is passed on as it comes.
        let ids = Ids::of(&sub, args).filter(|_| args.len() == count);
        let mut expect = ids.map_or(Expect::Replies(1), Expect::Ids);
        let effect = match (sub.as_slice(), value.as_slice(), count) {
            (b"reply", b"on", 3) => Some(Effect::ReplyOn),
            (b"reply", b"off", 3) => Some(Effect::ReplyOff),
            (b"reply", b"skip", 3) => Some(Effect::ReplySkip),
            (b"tracking" | b"caching" | b"no-evict" | b"no-touch", ..) => Some(Effect::Pin),
            (b"setname", _, 3) => {
                let name = args.get(2).unwrap_or_default().to_vec();
                expect = Expect::Change(Box::new(Change::Name(name)));
                None
            }
            _ => None,
        };
        Self { expect, effect, exclusive: false }
    }
}

/// Whether a command says who its client is.
pub fn says_login(args: &Args<'_>) -> bool {
    Login::of_auth(args).is_some()
        || (args.name().eq_ignore_ascii_case(b"hello") && Hello::parse(args).is_ok_and(|hello| hello.login.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::{Limits, Parser};

    fn is_plain_line(line: &str) -> bool {
        let mut parser = Parser::default();
        parser.parse(line.as_bytes(), Limits::of_bulk(100)).unwrap();
        is_plain(&parser.args(line.as_bytes()))
    }

    #[test]
    fn a_command_is_plain_unless_it_changes_something() {
        for line in [
            "GET a",
            "set a 1",
            "LPUSH a 1",
            "XREAD STREAMS block 0",
            "GEORADIUS_RO x",
            "RESTORE-ASKING x",
            "RL.WHAT",
            "EXEC 1",
        ] {
            assert!(is_plain_line(&format!("{line}\r\n")), "{line}");
        }
        for line in [
            "",
            "multi",
            "EXEC",
            "Discard",
            "reset",
            "hello",
            "AUTH a",
            "post /",
            "Host: a",
            "select 1",
            "client reply off",
            "CLIENT setname a",
            "client list",
            "CLIENT KILL ID 1",
            "CLIENT unblock 1",
            "client tracking on",
            "SUBSCRIBE a",
            "psubscribe a",
            "ssubscribe a",
            "unsubscribe",
            "punsubscribe a",
            "sunsubscribe",
            "info",
            "COMMAND",
            "watch a",
            "unwatch",
            "monitor",
            "EVALSHA x 0",
            "script load x",
            "fcall f 0",
            "blpop a 0",
            "BRPOPLPUSH a b 0",
            "XREADGROUP GROUP g c BLOCK 0 STREAMS a >",
            "wait 1 0",
            "sync",
            "PSYNC ? -1",
            "quit",
            "rl.check a",
            "RL.HELP",
        ] {
            assert!(!is_plain_line(&format!("{line}\r\n")), "{line}");
        }
    }
}
