//! Redis's commands as they matter here: one table with all that is known of each. Any that is not in it is forwarded,
//! has one reply, and does nothing else that Tollgate must know of.

mod subcommands;

use crate::resp::request::Args;

use crate::command::docs::fits_arity;
pub use subcommands::Sub;
use subcommands::{ACL, CLIENT, CLUSTER, COMMAND, CONFIG, LATENCY, MEMORY, MODULE, OBJECT, SLOWLOG};

/// One of Redis's commands.
#[derive(Debug)]
pub struct RedisCommand {
    /// In lower case.
    pub name: &'static str,
    /// Number of words with the name; negative: at least so many. With another number it does nothing: it is refused.
    pub arity: i64,
    /// What it does, beyond asking for a reply.
    pub does: Does,
    /// Which of its arguments are keys.
    pub keys: Keys,
    /// Whether a client may say it before it has a connection to Redis of its own, and Tollgate answers. What it has
    /// said of itself is said again to that connection once there is one.
    is_handshake: bool,
    /// Whether Tollgate can answer it without a Redis.
    pub here: Here,
}

/// What a command does to the connection on which it is sent, or to who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Nothing.
    Nothing,
    /// It may say who the client is.
    LogIn,
    /// It may say that, and which protocol the client speaks.
    Hello,
    /// It chooses a database.
    Select,
    /// Its subcommand decides.
    Client,
    /// It takes back all that the client has said and done on its connection.
    Reset,
    /// It ends the connection.
    Quit,
    /// It begins a transaction.
    Multi,
    /// It ends one, which is executed.
    Exec,
    /// It ends one, which is not.
    Discard,
    /// It watches keys, which is lost with the connection.
    Watch,
    /// It watches none any more.
    Unwatch,
    /// It subscribes to each of its arguments.
    Subscribe,
    /// It ends that for each of its arguments, or for all where it has none.
    Unsubscribe(Subscribed),
    /// It has Redis send what other clients ask.
    Monitor,
    /// It makes a replica of the client: what comes back is no RESP any more.
    Replicate,
    /// It sets up, or relies on, what another server may lack. A client that runs a script by its hash believes that
    /// its server has it.
    Pin,
    /// It waits for what others do.
    Block,
    /// It does so with the option BLOCK.
    BlockIfAsked,
    /// It asks what the server is, and Tollgate adds its own part.
    Describe,
    /// It is an HTTP request's: a web page, or a server that is made to send something, posts to this port. Redis closes
    /// such a connection, whatever it was to run.
    Http,
}

/// The three things to subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// SUBSCRIBE.
    Channels,
    /// PSUBSCRIBE.
    Patterns,
    /// SSUBSCRIBE.
    Shards,
}

/// Which arguments of a command are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// It names none, touches others besides, or takes its time; or nobody has looked.
    Unknown,
    /// The first, and it is done at once.
    First,
    /// All, likewise.
    All,
}

/// Whether Tollgate can answer a command without a Redis.
#[derive(Debug, Clone, Copy)]
pub enum Here {
    /// It cannot: there is no such command then.
    Never,
    /// It can.
    Whole,
    /// It can answer these of its subcommands, and the bare name if its arity allows that.
    Parts(&'static [Sub]),
}

/// What rows have that do not say otherwise.
const PLAIN: RedisCommand = RedisCommand {
    name: "",
    arity: -1,
    does: Does::Nothing,
    keys: Keys::Unknown,
    is_handshake: false,
    here: Here::Never,
};

const fn on_key(name: &'static str) -> RedisCommand {
    RedisCommand { name, keys: Keys::First, ..PLAIN }
}

const fn on_keys(name: &'static str) -> RedisCommand {
    RedisCommand { name, keys: Keys::All, ..PLAIN }
}

static TABLE: [RedisCommand; 122] = [
    // What a client says of itself.
    RedisCommand { name: "auth", arity: -2, does: Does::LogIn, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "hello", does: Does::Hello, is_handshake: true, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "select", arity: 2, does: Does::Select, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "client", arity: -2, does: Does::Client, here: Here::Parts(CLIENT), ..PLAIN },
    RedisCommand { name: "reset", arity: 1, does: Does::Reset, is_handshake: true, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "quit", does: Does::Quit, is_handshake: true, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "ping", is_handshake: true, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "echo", arity: 2, is_handshake: true, here: Here::Whole, ..PLAIN },
    // Transactions.
    RedisCommand { name: "multi", arity: 1, does: Does::Multi, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "exec", arity: 1, does: Does::Exec, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "discard", arity: 1, does: Does::Discard, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "watch", does: Does::Watch, ..PLAIN },
    RedisCommand { name: "unwatch", arity: 1, does: Does::Unwatch, ..PLAIN },
    // Subscriptions, and what else sends without being asked.
    RedisCommand { name: "subscribe", arity: -2, does: Does::Subscribe, ..PLAIN },
    RedisCommand { name: "psubscribe", arity: -2, does: Does::Subscribe, ..PLAIN },
    RedisCommand { name: "ssubscribe", arity: -2, does: Does::Subscribe, ..PLAIN },
    RedisCommand { name: "unsubscribe", does: Does::Unsubscribe(Subscribed::Channels), ..PLAIN },
    RedisCommand { name: "punsubscribe", does: Does::Unsubscribe(Subscribed::Patterns), ..PLAIN },
    RedisCommand { name: "sunsubscribe", does: Does::Unsubscribe(Subscribed::Shards), ..PLAIN },
    RedisCommand { name: "monitor", arity: 1, does: Does::Monitor, ..PLAIN },
    RedisCommand { name: "sync", does: Does::Replicate, ..PLAIN },
    RedisCommand { name: "psync", does: Does::Replicate, ..PLAIN },
    // What leaves something behind at one server.
    // A client that had a script run by its text runs it by its hash from then on.
    RedisCommand { name: "eval", does: Does::Pin, ..PLAIN },
    RedisCommand { name: "eval_ro", does: Does::Pin, ..PLAIN },
    RedisCommand { name: "evalsha", does: Does::Pin, ..PLAIN },
    RedisCommand { name: "evalsha_ro", does: Does::Pin, ..PLAIN },
    RedisCommand { name: "script", does: Does::Pin, ..PLAIN },
    RedisCommand { name: "fcall", does: Does::Pin, ..PLAIN },
    RedisCommand { name: "fcall_ro", does: Does::Pin, ..PLAIN },
    RedisCommand { name: "function", does: Does::Pin, ..PLAIN },
    // What may take its time.
    RedisCommand { name: "blpop", does: Does::Block, ..PLAIN },
    RedisCommand { name: "brpop", does: Does::Block, ..PLAIN },
    RedisCommand { name: "blmpop", does: Does::Block, ..PLAIN },
    RedisCommand { name: "blmove", does: Does::Block, ..PLAIN },
    RedisCommand { name: "brpoplpush", does: Does::Block, ..PLAIN },
    RedisCommand { name: "bzpopmin", does: Does::Block, ..PLAIN },
    RedisCommand { name: "bzpopmax", does: Does::Block, ..PLAIN },
    RedisCommand { name: "bzmpop", does: Does::Block, ..PLAIN },
    RedisCommand { name: "wait", does: Does::Block, ..PLAIN },
    RedisCommand { name: "waitaof", does: Does::Block, ..PLAIN },
    RedisCommand { name: "xread", does: Does::BlockIfAsked, ..PLAIN },
    RedisCommand { name: "xreadgroup", does: Does::BlockIfAsked, ..PLAIN },
    // What a server says of itself.
    RedisCommand { name: "info", does: Does::Describe, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "command", does: Does::Describe, here: Here::Parts(COMMAND), ..PLAIN },
    RedisCommand { name: "config", arity: -2, here: Here::Parts(CONFIG), ..PLAIN },
    RedisCommand { name: "slowlog", arity: -2, here: Here::Parts(SLOWLOG), ..PLAIN },
    RedisCommand { name: "latency", arity: -2, here: Here::Parts(LATENCY), ..PLAIN },
    RedisCommand { name: "memory", arity: -2, here: Here::Parts(MEMORY), ..PLAIN },
    RedisCommand { name: "module", arity: -2, here: Here::Parts(MODULE), ..PLAIN },
    RedisCommand { name: "acl", arity: -2, here: Here::Parts(ACL), ..PLAIN },
    RedisCommand { name: "object", arity: -2, here: Here::Parts(OBJECT), ..PLAIN },
    RedisCommand { name: "cluster", arity: -2, here: Here::Parts(CLUSTER), ..PLAIN },
    RedisCommand { name: "time", arity: 1, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "role", arity: 1, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "dbsize", arity: 1, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "readonly", arity: 1, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "readwrite", arity: 1, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "asking", arity: 1, here: Here::Whole, ..PLAIN },
    // Keys.
    RedisCommand { name: "keys", arity: 2, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "scan", arity: -2, here: Here::Whole, ..PLAIN },
    RedisCommand { name: "type", arity: 2, keys: Keys::First, here: Here::Whole, ..PLAIN },
    on_key("append"),
    on_key("decr"),
    on_key("decrby"),
    on_key("expire"),
    on_key("expireat"),
    on_key("get"),
    on_key("getbit"),
    on_key("getdel"),
    on_key("getex"),
    on_key("getrange"),
    on_key("getset"),
    on_key("hdel"),
    on_key("hexists"),
    on_key("hget"),
    on_key("hgetall"),
    on_key("hincrby"),
    on_key("hincrbyfloat"),
    on_key("hlen"),
    on_key("hmget"),
    on_key("hmset"),
    on_key("hset"),
    on_key("hsetnx"),
    on_key("incr"),
    on_key("incrby"),
    on_key("incrbyfloat"),
    on_key("lindex"),
    on_key("llen"),
    on_key("lpop"),
    on_key("lpush"),
    on_key("lrange"),
    on_key("persist"),
    on_key("pexpire"),
    on_key("pexpireat"),
    on_key("psetex"),
    on_key("pttl"),
    on_key("rpop"),
    on_key("rpush"),
    on_key("sadd"),
    on_key("scard"),
    on_key("set"),
    on_key("setbit"),
    on_key("setex"),
    on_key("setnx"),
    on_key("sismember"),
    on_key("smembers"),
    on_key("srem"),
    on_key("strlen"),
    on_key("ttl"),
    on_key("zadd"),
    on_key("zcard"),
    on_key("zincrby"),
    on_key("zrank"),
    on_key("zrem"),
    on_key("zscore"),
    on_keys("del"),
    on_keys("exists"),
    on_keys("mget"),
    on_keys("touch"),
    on_keys("unlink"),
    // What an HTTP request begins with, or has in a line of its own.
    RedisCommand { name: "post", does: Does::Http, ..PLAIN },
    RedisCommand { name: "host:", does: Does::Http, ..PLAIN },
];

/// What stands in no row.
pub static OTHER: RedisCommand = PLAIN;

/// Where in [`TABLE`] the row of a name is: at [`place`] or, where several have that place, right behind.
static INDEX: [u8; 256] = index();
const NO_ROW: u8 = u8::MAX;
const _: () = assert!(TABLE.len() < NO_ROW as usize, "the index has room to spare, so that a search ends");

/// Length of the shortest name of a command that does anything.
const SHORTEST: usize = shortest();

#[expect(clippy::indexing_slicing, reason = "the compiler runs it: an index out of bounds does not compile")]
const fn index() -> [u8; 256] {
    let mut index = [NO_ROW; 256];
    let mut row = 0;
    while row < TABLE.len() {
        let mut at = place(TABLE[row].name.as_bytes());
        while index[at as usize] != NO_ROW {
            at = at.wrapping_add(1);
        }
        index[at as usize] = row as u8;
        row += 1;
    }
    index
}

#[expect(clippy::indexing_slicing, reason = "the compiler runs it: an index out of bounds does not compile")]
const fn shortest() -> usize {
    let (mut shortest, mut row) = (usize::MAX, 0);
    while row < TABLE.len() {
        if !matches!(TABLE[row].does, Does::Nothing) && TABLE[row].name.len() < shortest {
            shortest = TABLE[row].name.len();
        }
        row += 1;
    }
    shortest
}

/// A number that few names share, the same for upper and lower case. Every command that is forwarded passes here; the
/// factors are such that no name has more than two others before it.
const fn place(name: &[u8]) -> u8 {
    let [first, second, .., last] = name else { return 0 };
    let sum = (*first | 0x20).wrapping_add(*second | 0x20).wrapping_mul(9);
    sum.wrapping_add((*last | 0x20).wrapping_mul(13)).wrapping_add(name.len() as u8)
}

/// Whether no command of a name of so many bytes does anything.
pub const fn is_too_short_to_matter(length: usize) -> bool {
    length < SHORTEST
}

impl RedisCommand {
    /// The row of this name, in any case.
    pub fn of(name: &[u8]) -> &'static Self {
        let mut at = place(name);
        while let Some(command) = INDEX.get(usize::from(at)).and_then(|row| TABLE.get(usize::from(*row))) {
            if command.name.as_bytes().eq_ignore_ascii_case(name) {
                return command;
            }
            at = at.wrapping_add(1);
        }
        &OTHER
    }

    /// Whether it may have so many words, the name included.
    pub fn takes(&self, count: usize) -> bool {
        fits_arity(self.arity, count)
    }

    /// Whether a client may say this before it has a connection to Redis. `sub` is its first argument.
    pub fn is_handshake(&self, sub: &[u8]) -> bool {
        self.is_handshake || self.sub(sub).is_some_and(|sub| sub.is_handshake)
    }

    /// Its subcommand of this name, in any case, of those that Tollgate can answer.
    pub fn sub(&self, name: &[u8]) -> Option<&'static Sub> {
        let Here::Parts(subs) = self.here else { return None };
        subs.iter().find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// A request that is none of Tollgate's own.
pub struct RedisRequest<'a> {
    /// What is known of its command.
    pub command: &'static RedisCommand,
    /// Its arguments, as far as they have come.
    pub args: &'a Args<'a>,
    /// How many it has.
    pub count: usize,
    /// As it came. Of one that has not come whole, nothing: it is streamed.
    pub raw: &'a [u8],
}

impl RedisRequest<'_> {
    /// Whether it has come whole.
    pub fn is_whole(&self) -> bool {
        self.args.len() == self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{OwnCommand, own_commands};

    #[test]
    fn each_name_finds_its_own_row() {
        for command in &TABLE {
            assert!(std::ptr::eq(RedisCommand::of(command.name.as_bytes()), command), "{}", command.name);
            let upper = command.name.to_uppercase();
            assert!(std::ptr::eq(RedisCommand::of(upper.as_bytes()), command), "{upper}");
        }
        for other in ["", "x", "gett", "ge", "georadius_ro", "a_name_that_is_longer_than_any"] {
            assert!(std::ptr::eq(RedisCommand::of(other.as_bytes()), &OTHER), "{other}");
        }
    }

    #[test]
    fn no_name_of_tollgates_own_is_taken_for_redis_s() {
        for own in own_commands() {
            assert!(OwnCommand::of(own.name.as_bytes()).is_some(), "{}", own.name);
            assert!(std::ptr::eq(RedisCommand::of(own.name.as_bytes()), &OTHER), "{}", own.name);
            assert!(!is_too_short_to_matter(own.name.len()), "{}", own.name);
        }
    }
}
