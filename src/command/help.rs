//! `RL.HELP`: lines about all of Tollgate's own commands.

use super::docs::Docs;
use super::{CommandError, Keys, OwnCommand, Request};

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.help",
    arity: 1,
    flags: &["loading", "stale", "fast"],
    categories: &["@fast"],
    keys: Keys::NONE,
    is_for_rl_only: true,
    tells_of_all_keys: false,
    parse: |args, _| if args.len() == 1 { Ok(Request::Help) } else { Err(CommandError::Arity(&COMMAND)) },
    docs: Docs { usage: "", summary: "This text.", help: &[], complexity: "O(1)", arguments: &[] },
};
