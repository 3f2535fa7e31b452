//! `RL.STATS`: the figures of this Tollgate.

use super::docs::Docs;
use super::{CommandError, Keys, OwnCommand, Request};

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.stats",
    arity: 1,
    flags: &["loading", "stale", "no_multi"],
    categories: &["@slow", "@dangerous"],
    keys: Keys::NONE,
    is_for_rl_only: true,
    tells_of_all_keys: true,
    parse: |args, _| if args.len() == 1 { Ok(Request::Stats) } else { Err(CommandError::Arity(&COMMAND)) },
    docs: Docs {
        usage: "",
        summary: "The figures of this Tollgate: a map of what INFO tollgate shows.",
        help: &[],
        complexity: "O(W), W being the workers",
        arguments: &[],
    },
};
