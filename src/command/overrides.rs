//! `RL.OVERRIDE`: for which keys something else holds than a policy's limits.

use super::docs::{Argument, Docs, Kind, QUOTA};
use super::policy::{BY, EX, PolicyRequest, block, milliseconds, policy_name_of, text, token};
use super::{CommandError, Keys, OwnCommand, Request, quoted};
use crate::policy::{MAX_PATTERN_BYTES, OverrideOrder, Rule};
use crate::quotas::numbers::parse_bounded;
use crate::resp::request::Args;

/// Most that one reply lists, and how many where nothing is said.
const MAX_COUNT: u32 = 10_000;
const DEFAULT_COUNT: usize = 100;
/// Longest reason, in bytes.
const MAX_REASON_BYTES: usize = 256;

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.override",
    arity: -3,
    flags: &["loading", "stale", "no_multi"],
    categories: &["@slow", "@dangerous"],
    keys: Keys::NONE,
    is_for_rl_only: false,
    tells_of_all_keys: true,
    parse: |args, _| parse(args).map(Request::Policy),
    docs: Docs {
        usage: "SET policy key limit window [limit window ...] [BY algorithm]|off|block [EX seconds] [REASON text]|GET policy key|DEL \
                policy key|LIST policy [MATCH pattern] [COUNT count]",
        summary: "What holds for a key in place of a policy's limits.",
        help: &[
            "The key is exact, or ends in * and is what keys begin with: the exact one holds before the longest beginning.",
            "off: all pass. block: none do. EX: until so many seconds are over. REASON: why, for whoever reads it.",
            "LIST: 100 of them, or COUNT, in the order of their keys. It takes commands = \"admin\".",
        ],
        complexity: "O(1); LIST: O(N*log(N)), N being the policy's overrides",
        arguments: &[Argument {
            name: "subcommand",
            kind: Kind::OneOf(&[
                block(
                    "set",
                    &[
                        token("set", "SET"),
                        text("policy"),
                        text("key"),
                        Argument {
                            name: "rule",
                            kind: Kind::OneOf(&[QUOTA, token("off", "off"), token("block", "block")]),
                            token: None,
                            flags: &[],
                        },
                        BY,
                        EX,
                        Argument { name: "text", kind: Kind::Text, token: Some("REASON"), flags: &["optional"] },
                    ],
                ),
                block("get", &[token("get", "GET"), text("policy"), text("key")]),
                block("del", &[token("del", "DEL"), text("policy"), text("key")]),
                block(
                    "list",
                    &[
                        token("list", "LIST"),
                        text("policy"),
                        Argument { name: "pattern", kind: Kind::Text, token: Some("MATCH"), flags: &["optional"] },
                        Argument { name: "count", kind: Kind::Integer, token: Some("COUNT"), flags: &["optional"] },
                    ],
                ),
            ]),
            token: None,
            flags: &[],
        }],
    },
};

fn parse<'a>(args: &Args<'a>) -> Result<PolicyRequest<'a>, CommandError> {
    let arity = || CommandError::Arity(&COMMAND);
    let subcommand = args.get(1).ok_or_else(arity)?;
    let name = || policy_name_of(args.get(2).ok_or_else(arity)?);
    let pattern = || pattern_of(args.get(3).ok_or_else(arity)?);
    match (subcommand.to_ascii_lowercase().as_slice(), args.len()) {
        (b"get", 4) => Ok(PolicyRequest::GetOverride(name()?, pattern()?)),
        (b"del", 4) => Ok(PolicyRequest::DeleteOverride(name()?, pattern()?)),
        (b"set", 5..) => Ok(PolicyRequest::SetOverride(name()?, pattern()?, order(args)?)),
        (b"list", 3..) => list(name()?, args),
        (b"get" | b"del" | b"set" | b"list", _) => Err(arity()),
        _ => Err(CommandError::Subcommand(quoted(subcommand))),
    }
}

fn pattern_of(pattern: &[u8]) -> Result<&[u8], CommandError> {
    if (1..=MAX_PATTERN_BYTES).contains(&pattern.len()) { Ok(pattern) } else { Err(CommandError::Key(pattern.len())) }
}

/// The rule, and then EX and REASON in any order, each once.
fn order(args: &Args<'_>) -> Result<OverrideOrder, CommandError> {
    let is_option = |word: &&[u8]| word.eq_ignore_ascii_case(b"ex") || word.eq_ignore_ascii_case(b"reason");
    let words: Vec<_> = args.from(4).take_while(|word| !is_option(word)).collect();
    let rule = Rule::parse(words.iter().copied()).map_err(|error| CommandError::quota(&COMMAND, error))?;
    let (mut for_ms, mut reason) = (None, None);
    let mut rest = args.from(4 + words.len());
    while let Some(word) = rest.next() {
        if word.eq_ignore_ascii_case(b"ex") && for_ms.is_none() {
            for_ms = Some(milliseconds(&COMMAND, rest.next())?);
        } else if word.eq_ignore_ascii_case(b"reason") && reason.is_none() {
            reason = Some(reason_of(rest.next().ok_or(CommandError::Arity(&COMMAND))?)?);
        } else {
            return Err(CommandError::Option(&COMMAND, quoted(word)));
        }
    }
    Ok(OverrideOrder { rule, for_ms, reason: reason.unwrap_or_default() })
}

fn reason_of(text: &[u8]) -> Result<Box<str>, CommandError> {
    let read = str::from_utf8(text).ok().filter(|text| text.len() <= MAX_REASON_BYTES);
    let read = read.filter(|text| !text.contains(char::is_control));
    read.map(Box::from).ok_or_else(|| {
        CommandError::Policy(format!("reason must be at most {MAX_REASON_BYTES} bytes of text on one line"))
    })
}

fn list<'a>(policy: &'a [u8], args: &Args<'a>) -> Result<PolicyRequest<'a>, CommandError> {
    let (mut matching, mut count) = (None, None);
    let mut rest = args.from(3);
    while let Some(word) = rest.next() {
        if word.eq_ignore_ascii_case(b"match") && matching.is_none() {
            matching = Some(rest.next().ok_or(CommandError::Arity(&COMMAND))?);
        } else if word.eq_ignore_ascii_case(b"count") && count.is_none() {
            let text = rest.next().ok_or(CommandError::Arity(&COMMAND))?;
            let wrong = || {
                let rule = format!("count must be an integer between 1 and {MAX_COUNT}, not '{}'", quoted(text));
                CommandError::Policy(rule)
            };
            count = Some(parse_bounded(text, MAX_COUNT).ok_or_else(wrong)? as usize);
        } else {
            return Err(CommandError::Option(&COMMAND, quoted(word)));
        }
    }
    Ok(PolicyRequest::ListOverrides { policy, matching, count: count.unwrap_or(DEFAULT_COUNT) })
}
