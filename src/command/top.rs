//! `RL.TOP [POLICY name] [COUNT n] [ALLOWED] [HOUR]`: who is denied most, now.

use super::docs::{Argument, Docs, Kind};
use super::{CommandError, Keys, OwnCommand, Request, quoted};
use crate::quotas::numbers::parse_bounded;
use crate::resp::request::Args;
use crate::top::{MAX_COUNT, Which};

/// How many keys are listed where nothing is said.
const DEFAULT_COUNT: usize = 10;

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.top",
    arity: -1,
    flags: &["loading", "stale", "no_multi"],
    categories: &["@slow", "@dangerous"],
    keys: Keys::NONE,
    is_for_rl_only: true,
    tells_of_all_keys: true,
    parse: |args, _| parse(args),
    docs: Docs {
        usage: "[POLICY name] [COUNT n] [ALLOWED] [HOUR]",
        summary: "The keys that this Tollgate denied most in the last minute.",
        help: &[
            "POLICY: by this one only (\"\": by limits in the command).",
            "COUNT: so many (10). ALLOWED: that were allowed most. HOUR: in the last hour.",
            "Reply: for each key an array of key, policy, count, and by how much that may be off.",
        ],
        complexity: "O(W), W being the workers",
        arguments: &[
            Argument { name: "policy", kind: Kind::Text, token: Some("POLICY"), flags: &["optional"] },
            Argument { name: "count", kind: Kind::Integer, token: Some("COUNT"), flags: &["optional"] },
            Argument { name: "allowed", kind: Kind::PureToken, token: Some("ALLOWED"), flags: &["optional"] },
            Argument { name: "hour", kind: Kind::PureToken, token: Some("HOUR"), flags: &["optional"] },
        ],
    },
};

/// The options in any order, each once.
fn parse<'a>(args: &Args<'a>) -> Result<Request<'a>, CommandError> {
    let (mut which, mut policy, mut count) = (Which::default(), None, None);
    let mut rest = args.from(1);
    while let Some(word) = rest.next() {
        if word.eq_ignore_ascii_case(b"count") && count.is_none() {
            let text = rest.next().ok_or(CommandError::Arity(&COMMAND))?;
            let number = parse_bounded(text, MAX_COUNT as u32).ok_or_else(|| CommandError::Count(quoted(text)))?;
            count = Some(number as usize);
        } else if word.eq_ignore_ascii_case(b"policy") && policy.is_none() {
            policy = Some(rest.next().ok_or(CommandError::Arity(&COMMAND))?);
        } else if word.eq_ignore_ascii_case(b"allowed") && !which.allowed {
            which.allowed = true;
        } else if word.eq_ignore_ascii_case(b"hour") && !which.hour {
            which.hour = true;
        } else {
            return Err(CommandError::Option(&COMMAND, quoted(word)));
        }
    }
    Ok(Request::Top { which, policy, count: count.unwrap_or(DEFAULT_COUNT) })
}
