//! Which of Redis's commands are answered without a Redis, by their table. What is not in it is refused in Redis's words;
//! before a cluster, where it could be run, in words that say so.

use crate::command::docs::fits_arity;
use crate::command::quoted;
use crate::resp::reply;
use crate::resp::request::Args;
use crate::session::redis_commands::{Here, RedisCommand};
use bytes::BytesMut;

/// Most bytes of a name, and of all arguments together, that an error repeats, as in Redis.
const MAX_REPEATED_BYTES: usize = 128;

/// Most bytes of its name that the refusal of a command repeats which a cluster could run.
const MAX_NAME_BYTES: usize = 64;

/// A command, or a subcommand of one.
pub struct Known {
    /// In lower case.
    pub name: &'static str,
    /// The subcommand, empty where there is none.
    pub sub: &'static str,
}

/// The command that is asked for.
///
/// # Errors
/// There is none here, or it takes another number of words; the text is the reply. If this `is_before_cluster`, that says
/// where to send it instead.
pub fn find(args: &Args<'_>, is_before_cluster: bool) -> Result<Known, Vec<u8>> {
    let command = RedisCommand::of(args.name());
    if is_before_cluster && is_for_cluster(command, args) {
        return Err(for_cluster(args.name()));
    }
    let (sub, arity) = match (command.here, args.get(1)) {
        (Here::Never, _) => return Err(unknown_command(args)),
        (Here::Parts(_), Some(sub)) => {
            let found = command.sub(sub).ok_or_else(|| unknown_subcommand(command.name, sub))?;
            (found.name, found.arity)
        }
        (Here::Whole | Here::Parts(_), _) => ("", command.arity),
    };
    match fits_arity(arity, args.len()) {
        true => Ok(Known { name: command.name, sub }),
        false => Err(wrong_arity(command.name, sub)),
    }
}

/// Whether a command is one for a cluster: the cluster may know it, unless its name is like those of Tollgate's own; or it
/// asks for keys, which here are none.
fn is_for_cluster(command: &RedisCommand, args: &Args<'_>) -> bool {
    match (command.name, command.here) {
        (_, Here::Never) => !args.name().get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"rl.")),
        ("keys" | "scan" | "type" | "dbsize" | "object", _) => true,
        ("memory", _) => args.get(1).is_some_and(|sub| sub.eq_ignore_ascii_case(b"usage")),
        _ => false,
    }
}

/// The reply to a command's HELP.
pub fn help(name: &str, out: &mut BytesMut) {
    let Here::Parts(subs) = RedisCommand::of(name.as_bytes()).here else { return };
    reply::array(out, 1 + 2 * subs.len());
    let title = format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", name.to_uppercase());
    reply::status(out, &title);
    for sub in subs {
        reply::status(out, format!("{} {}", sub.name.to_uppercase(), sub.usage).trim_end());
        reply::status(out, &format!("    {}", sub.summary));
    }
}

fn wrong_arity(name: &str, sub: &str) -> Vec<u8> {
    let bar = if sub.is_empty() { "" } else { "|" };
    // In Redis, too, an EXEC that is refused says what becomes of the transaction, even where there is none.
    let code = if name == "exec" { "EXECABORT Transaction discarded because of:" } else { "ERR" };
    format!("{code} wrong number of arguments for '{name}{bar}{sub}' command").into_bytes()
}

fn for_cluster(name: &[u8]) -> Vec<u8> {
    let name = quoted(name.get(..MAX_NAME_BYTES).unwrap_or(name));
    format!("ERR this Tollgate is before a Redis Cluster and runs RL.* only: send '{name}' to the cluster").into_bytes()
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
