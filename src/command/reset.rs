//! `RL.RESET key [key ...]`: forgets all that was counted for the keys.

use super::docs::{Argument, Docs, Kind};
use super::{CommandError, Keys, OwnCommand, Request, capped, check_key};
use crate::config::Limits;
use crate::resp::request::Args;

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.reset",
    arity: -2,
    flags: &["write"],
    categories: &["@write", "@slow"],
    keys: Keys { first: 1, last: -1, step: 1, flags: &["RM", "delete"] },
    is_for_rl_only: true,
    tells_of_all_keys: false,
    parse,
    docs: Docs {
        usage: "key [key ...]",
        summary: "Forgets all that was counted for the keys, in all windows. Reply: how many had any.",
        help: &[],
        complexity: "O(K*W), K being the keys and W the different windows in use",
        arguments: &[Argument { name: "key", kind: Kind::Key, token: None, flags: &["multiple"] }],
    },
};

/// No key is an error, and so are more than `limits` allow, and one of a wrong length.
fn parse<'a>(args: &Args<'a>, limits: &Limits) -> Result<Request<'a>, CommandError> {
    if args.len() < 2 {
        return Err(CommandError::Arity(&COMMAND));
    }
    capped("number of keys", args.len() as u64 - 1, limits.reset_keys as u64, "limits.max_reset_keys")?;
    args.from(1).map(|key| check_key(key).map(|()| key)).collect::<Result<_, _>>().map(Request::Reset)
}
