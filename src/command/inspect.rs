//! `RL.INSPECT key [ENTRIES n]`: how all that is counted for a key stands.

use super::docs::{Argument, Docs, KEY, Kind};
use super::{CommandError, Keys, OwnCommand, Request, check_key, quoted};
use crate::limit::MAX_LISTED_ENTRIES;
use crate::quotas::numbers::parse_bounded;
use crate::resp::request::Args;

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.inspect",
    arity: -2,
    flags: &["readonly", "no_multi"],
    categories: &["@read", "@slow"],
    keys: Keys { first: 1, last: 1, step: 1, flags: &["RO", "access"] },
    is_for_rl_only: true,
    tells_of_all_keys: false,
    parse: |args, _| parse(args),
    docs: Docs {
        usage: "key [ENTRIES n]",
        summary: "How all that is counted for the key stands: each window in which something counts.",
        help: &[
            "Reply: for each a map: algorithm, window_ms, used, entries, oldest_ms and newest_ms (unix times), next_ms (until",
            "more is free), free_ms (until all is), and with ENTRIES the newest n entries, each with its time and weight.",
        ],
        complexity: "O(W*log(N)+E), W being the windows in use, N the requests counted in each and E the entries listed",
        arguments: &[
            KEY,
            Argument { name: "entries", kind: Kind::Integer, token: Some("ENTRIES"), flags: &["optional"] },
        ],
    },
};

fn parse<'a>(args: &Args<'a>) -> Result<Request<'a>, CommandError> {
    let key = args.get(1).ok_or(CommandError::Arity(&COMMAND))?;
    check_key(key)?;
    let entries = match (args.get(2), args.get(3)) {
        (None, _) => None,
        (Some(word), _) if !word.eq_ignore_ascii_case(b"entries") => {
            return Err(CommandError::Option(&COMMAND, quoted(word)));
        }
        (Some(_), Some(text)) if args.len() == 4 => {
            let entries = parse_bounded(text, MAX_LISTED_ENTRIES as u32);
            Some(entries.ok_or_else(|| CommandError::Entries(quoted(text)))? as usize)
        }
        _ => return Err(CommandError::Arity(&COMMAND)),
    };
    Ok(Request::Inspect { key, entries })
}
