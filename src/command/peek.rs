//! `RL.PEEK key limit window [limit window ...] [BY algorithm] [COST n]`: the reply that RL.CHECK would give now.

use super::check::{ARGUMENTS, COMPLEXITY, CheckArgs, USAGE};
use super::docs::Docs;
use super::{Keys, OwnCommand, Request};

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.peek",
    arity: -4,
    flags: &["readonly", "fast"],
    categories: &["@read", "@fast"],
    keys: Keys { first: 1, last: 1, step: 1, flags: &["RO", "access"] },
    is_for_rl_only: true,
    tells_of_all_keys: false,
    parse: |args, limits| CheckArgs::parse(&COMMAND, args, limits).map(Request::Peek),
    docs: Docs {
        usage: USAGE,
        summary: "The reply that RL.CHECK would give now. Counts nothing.",
        help: &[],
        complexity: COMPLEXITY,
        arguments: ARGUMENTS,
    },
};
