//! Redis's commands that are answered without a Redis: one table for which there are, how many words each takes, and
//! what their HELP says. What is not in it is refused in Redis's words.

use crate::command::docs::fits_arity;
use crate::resp::reply;
use crate::resp::request::Args;
use bytes::BytesMut;

/// Most bytes of a name, and of all arguments together, that an error repeats, as in Redis.
const MAX_REPEATED_BYTES: usize = 128;

/// A command, or a subcommand of one.
pub struct Known {
    /// In lower case.
    pub name: &'static str,
    /// The subcommand, empty where there is none.
    pub sub: &'static str,
    /// Number of words with the name; negative: at least so many.
    arity: i64,
    /// Its arguments, for HELP.
    usage: &'static str,
    /// What it does, for HELP.
    summary: &'static str,
}

const fn plain(name: &'static str, arity: i64) -> Known {
    Known { name, sub: "", arity, usage: "", summary: "" }
}

const fn sub(name: &'static str, sub: &'static str, arity: i64, usage: &'static str, summary: &'static str) -> Known {
    Known { name, sub, arity, usage, summary }
}

const fn help_of(name: &'static str) -> Known {
    sub(name, "help", 2, "", "This text.")
}

/// All of them, the subcommands of one side by side.
const KNOWN: [Known; 68] = [
    plain("ping", -1),
    plain("echo", 2),
    plain("hello", -1),
    plain("auth", -2),
    plain("select", 2),
    plain("reset", 1),
    plain("quit", -1),
    plain("multi", 1),
    plain("exec", 1),
    plain("discard", 1),
    plain("info", -1),
    plain("time", 1),
    plain("role", 1),
    plain("dbsize", 1),
    plain("keys", 2),
    plain("scan", -2),
    plain("type", 2),
    plain("readonly", 1),
    plain("readwrite", 1),
    sub("client", "getname", 2, "", "The name that this connection gave itself."),
    sub("client", "getredir", 2, "", "-1: nothing is tracked here."),
    sub("client", "id", 2, "", "The number of this connection."),
    sub("client", "info", 2, "", "This connection, as CLIENT LIST shows it."),
    sub("client", "list", -2, "[TYPE normal|...] [ID id ...]", "Connections, a line each."),
    sub("client", "no-evict", 3, "ON|OFF", "Taken, and nothing comes of it: nobody is evicted here."),
    sub("client", "no-touch", 3, "ON|OFF", "Taken, and nothing comes of it: nothing ages here."),
    sub("client", "setinfo", 4, "LIB-NAME|LIB-VER text", "Says which library connects."),
    sub("client", "setname", 3, "name", "Gives this connection a name."),
    help_of("client"),
    plain("command", -1),
    sub("command", "count", 2, "", "How many commands there are of Tollgate's own."),
    sub("command", "docs", -2, "[name ...]", "What they do."),
    sub("command", "getkeys", -3, "request", "The keys of a request of one of them."),
    sub("command", "getkeysandflags", -3, "request", "The keys, and what is done to them."),
    sub("command", "info", -2, "[name ...]", "What Redis's COMMAND says of each command."),
    sub("command", "list", -2, "[FILTERBY ACLCAT|PATTERN|MODULE text]", "Their names."),
    help_of("command"),
    sub("config", "get", -3, "pattern ...", "Settings that have a counterpart in Redis."),
    sub("config", "set", -4, "name value ...", "Refused: settings are made at the start."),
    help_of("config"),
    sub("slowlog", "get", -2, "[count]", "Nothing: no log of slow commands is kept."),
    sub("slowlog", "len", 2, "", "0."),
    sub("slowlog", "reset", 2, "", "Taken, and nothing comes of it."),
    help_of("slowlog"),
    sub("latency", "histogram", -2, "[name ...]", "Nothing: commands are not timed."),
    sub("latency", "history", 3, "event", "Nothing: no events are kept."),
    sub("latency", "latest", 2, "", "Nothing: no events are kept."),
    sub("latency", "reset", -2, "[event ...]", "0."),
    help_of("latency"),
    sub("memory", "stats", 2, "", "What memory this process takes."),
    sub("memory", "usage", -3, "key [SAMPLES count]", "Null: there are no keys of this name."),
    help_of("memory"),
    sub("module", "list", 2, "", "Nothing: there are no modules."),
    help_of("module"),
    sub("acl", "whoami", 2, "", "The user of this connection."),
    help_of("acl"),
    sub("object", "encoding", 3, "key", "Null: there are no keys of this name."),
    sub("object", "freq", 3, "key", "Null."),
    sub("object", "idletime", 3, "key", "Null."),
    sub("object", "refcount", 3, "key", "Null."),
    help_of("object"),
    sub("cluster", "info", 2, "", "Refused, as by a Redis that is no cluster."),
    sub("cluster", "links", 2, "", "Refused."),
    sub("cluster", "myid", 2, "", "Refused."),
    sub("cluster", "nodes", 2, "", "Refused."),
    sub("cluster", "shards", 2, "", "Refused."),
    sub("cluster", "slots", 2, "", "Refused."),
    help_of("cluster"),
];

/// The command that is asked for.
///
/// # Errors
/// There is none, or it takes another number of words; the text is the reply.
pub fn find(args: &Args<'_>) -> Result<&'static Known, Vec<u8>> {
    let named = || KNOWN.iter().filter(|known| known.name.as_bytes().eq_ignore_ascii_case(args.name()));
    let Some(first) = named().next() else { return Err(unknown_command(args)) };
    let is_container = named().any(|known| !known.sub.is_empty());
    let known = match args.get(1).filter(|_| is_container) {
        Some(sub) => {
            let found = named().find(|known| !known.sub.is_empty() && known.sub.as_bytes().eq_ignore_ascii_case(sub));
            found.ok_or_else(|| unknown_subcommand(first.name, sub))?
        }
        None => match named().find(|known| known.sub.is_empty()) {
            Some(known) => known,
            None => return Err(wrong_arity(first.name, "")),
        },
    };
    if fits_arity(known.arity, args.len()) { Ok(known) } else { Err(wrong_arity(known.name, known.sub)) }
}

/// The reply to a command's HELP.
pub fn help(name: &str, out: &mut BytesMut) {
    let subs = || KNOWN.iter().filter(|known| known.name == name && !known.sub.is_empty());
    reply::array(out, 1 + 2 * subs().count());
    let title = format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", name.to_uppercase());
    reply::status(out, &title);
    for known in subs() {
        reply::status(out, format!("{} {}", known.sub.to_uppercase(), known.usage).trim_end());
        reply::status(out, &format!("    {}", known.summary));
    }
}

fn wrong_arity(name: &str, sub: &str) -> Vec<u8> {
    let bar = if sub.is_empty() { "" } else { "|" };
    // In Redis, too, an EXEC that is refused says what becomes of the transaction, even where there is none.
    let code = if name == "exec" { "EXECABORT Transaction discarded because of:" } else { "ERR" };
    format!("{code} wrong number of arguments for '{name}{bar}{sub}' command").into_bytes()
}

fn unknown_subcommand(name: &str, sub: &[u8]) -> Vec<u8> {
    let name = name.to_uppercase();
    [b"ERR unknown subcommand '", repeated(sub, MAX_REPEATED_BYTES), b"'. Try ", name.as_bytes(), b" HELP."].concat()
}

fn unknown_command(args: &Args<'_>) -> Vec<u8> {
    let name = repeated(args.name(), MAX_REPEATED_BYTES);
    let mut beginning = Vec::new();
    for word in args.from(1) {
        if beginning.len() >= MAX_REPEATED_BYTES {
            break;
        }
        let word = repeated(word, MAX_REPEATED_BYTES - beginning.len());
        beginning.extend([b"'", word, b"' "].concat());
    }
    [b"ERR unknown command '", name, b"', with args beginning with: ", &beginning].concat()
}

/// What an error repeats of a word: Redis writes it as C writes a string, which ends where a zero is.
fn repeated(word: &[u8], max: usize) -> &[u8] {
    let end = word.iter().take(max).take_while(|byte| **byte != 0).count();
    word.get(..end).unwrap_or_default()
}
