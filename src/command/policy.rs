//! `RL.POLICY`: limits with names, seen and changed while Tollgate runs.

use super::check::PREFETCH;
use super::docs::{Argument, Docs, Kind, QUOTA};
use super::{CommandError, Keys, OwnCommand, Request, quoted};
use crate::limit::policy_name;
use crate::policy::{ALLOWED_MODE, Definition, DefinitionError, Mode, OverrideOrder};
use crate::quotas::numbers::parse_bounded;
use crate::resp::request::Args;

/// Longest time that something may be said for, in seconds.
const MAX_SECONDS: u32 = 1_000_000_000;

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.policy",
    arity: -2,
    flags: &["loading", "stale", "no_multi"],
    categories: &["@slow"],
    keys: Keys::NONE,
    is_for_rl_only: true,
    tells_of_all_keys: false,
    parse: |args, _| parse(args).map(Request::Policy),
    docs: Docs {
        usage: "LIST|GET name|SET name limit window [limit window ...] [BY algorithm] [PREFETCH n|time] [MODE mode] [FALLBACK \
                fallback]|DEL name|MODE name|* mode|default [EX seconds]|LOAD",
        summary: "Limits with names: which there are, and what becomes of them.",
        help: &[
            "LIST, GET: maps of what holds. GET has besides what the header RateLimit-Policy says (policy_header).",
            "SET: limits, in place of what the file says. DEL: takes that back, and all overrides that were set.",
            "MODE: enforce, shadow (only told of), off (all pass) or block (none do), until EX is over; default: its own.",
            "MODE * is for all policies, and for limits without one. LOAD: reads [policies] of the file again.",
            "What is changed holds on all Tollgates that share a Redis. It takes commands = \"admin\".",
        ],
        complexity: "O(N), N being the policies",
        arguments: &[Argument {
            name: "subcommand",
            kind: Kind::OneOf(&[
                token("list", "LIST"),
                block("get", &[token("get", "GET"), NAME]),
                block(
                    "set",
                    &[
                        token("set", "SET"),
                        NAME,
                        QUOTA,
                        BY,
                        PREFETCH,
                        Argument { name: "mode", kind: Kind::Text, token: Some("MODE"), flags: &["optional"] },
                        Argument { name: "fallback", kind: Kind::Text, token: Some("FALLBACK"), flags: &["optional"] },
                    ],
                ),
                block("del", &[token("del", "DEL"), NAME]),
                block("mode", &[token("mode", "MODE"), NAME, text("mode"), EX]),
                token("load", "LOAD"),
            ]),
            token: None,
            flags: &[],
        }],
    },
};

const NAME: Argument = text("name");
pub(super) const EX: Argument =
    Argument { name: "seconds", kind: Kind::Integer, token: Some("EX"), flags: &["optional"] };
pub(super) const BY: Argument =
    Argument { name: "algorithm", kind: Kind::Text, token: Some("BY"), flags: &["optional"] };

pub(super) const fn text(name: &'static str) -> Argument {
    Argument { name, kind: Kind::Text, token: None, flags: &[] }
}

pub(super) const fn token(name: &'static str, token: &'static str) -> Argument {
    Argument { name, kind: Kind::PureToken, token: Some(token), flags: &[] }
}

pub(super) const fn block(name: &'static str, arguments: &'static [Argument]) -> Argument {
    Argument { name, kind: Kind::Block(arguments), token: None, flags: &[] }
}

/// What is asked of policies. Names are such as policies can have, of whatever policies there are.
#[derive(Debug)]
pub enum PolicyRequest<'a> {
    /// What holds for each.
    List,
    /// What holds for one.
    Get(&'a [u8]),
    /// That it be this.
    Set(&'a [u8], Box<Definition>),
    /// That what was said of it be forgotten.
    Delete(&'a [u8]),
    /// That a mode hold for one, or for all, for so many milliseconds or for good; or that none does in place of its own.
    Mode(Option<&'a [u8]>, Option<(Mode, Option<u64>)>),
    /// That the file be read again.
    Load,
    /// What holds for a pattern of keys of a policy.
    GetOverride(&'a [u8], &'a [u8]),
    /// That this hold for them.
    SetOverride(&'a [u8], &'a [u8], OverrideOrder),
    /// That what was said of them be forgotten.
    DeleteOverride(&'a [u8], &'a [u8]),
    /// For which patterns of keys something else holds.
    ListOverrides {
        /// Of this policy.
        policy: &'a [u8],
        /// Those that match this.
        matching: Option<&'a [u8]>,
        /// How many, at most.
        count: usize,
    },
}

impl PolicyRequest<'_> {
    /// Whether it changes what holds.
    pub fn is_change(&self) -> bool {
        match self {
            Self::List | Self::Get(_) | Self::GetOverride(..) | Self::ListOverrides { .. } => false,
            Self::Set(..)
            | Self::Delete(_)
            | Self::Mode(..)
            | Self::Load
            | Self::SetOverride(..)
            | Self::DeleteOverride(..) => true,
        }
    }

    /// Whether it tells of keys, or changes what holds: who may not change policies may not do that.
    pub fn is_for_operators(&self) -> bool {
        !matches!(self, Self::List | Self::Get(_))
    }
}

fn parse<'a>(args: &Args<'a>) -> Result<PolicyRequest<'a>, CommandError> {
    let arity = || CommandError::Arity(&COMMAND);
    let subcommand = args.get(1).ok_or_else(arity)?;
    let name = || policy_name_of(args.get(2).ok_or_else(arity)?);
    match (subcommand.to_ascii_lowercase().as_slice(), args.len()) {
        (b"list", 2) => Ok(PolicyRequest::List),
        (b"load", 2) => Ok(PolicyRequest::Load),
        (b"get", 3) => name().map(PolicyRequest::Get),
        (b"del", 3) => name().map(PolicyRequest::Delete),
        (b"set", 4..) => {
            let definition = Definition::parse(args.from(3)).map_err(|error| definition_error(&COMMAND, &error))?;
            Ok(PolicyRequest::Set(name()?, Box::new(definition)))
        }
        (b"mode", 4..) => {
            let name = if args.get(2) == Some(b"*") { None } else { Some(name()?) };
            let mode = args.get(3).unwrap_or_default();
            let for_ms = match args.get(4) {
                None => None,
                Some(word) if word.eq_ignore_ascii_case(b"ex") => {
                    if args.len() > 6 {
                        return Err(CommandError::Option(&COMMAND, quoted(args.get(6).unwrap_or_default())));
                    }
                    Some(milliseconds(&COMMAND, args.get(5))?)
                }
                Some(word) => return Err(CommandError::Option(&COMMAND, quoted(word))),
            };
            if mode.eq_ignore_ascii_case(b"default") && for_ms.is_none() {
                return Ok(PolicyRequest::Mode(name, None));
            }
            let mode = Mode::of(mode)
                .ok_or_else(|| CommandError::Policy(format!("mode must be {ALLOWED_MODE}, not '{}'", quoted(mode))))?;
            Ok(PolicyRequest::Mode(name, Some((mode, for_ms))))
        }
        (b"list" | b"load" | b"get" | b"del" | b"set" | b"mode", _) => Err(arity()),
        _ => Err(CommandError::Subcommand(quoted(subcommand))),
    }
}

/// A name, if a policy can have it.
pub(super) fn policy_name_of(name: &[u8]) -> Result<&[u8], CommandError> {
    if policy_name::is_valid(name) { Ok(name) } else { Err(CommandError::PolicyName(quoted(name))) }
}

/// The milliseconds that follow EX.
pub(super) fn milliseconds(command: &'static OwnCommand, text: Option<&[u8]>) -> Result<u64, CommandError> {
    let text = text.ok_or(CommandError::Arity(command))?;
    let seconds = parse_bounded(text, MAX_SECONDS).ok_or(CommandError::Expire(command))?;
    Ok(u64::from(seconds) * 1000)
}

fn definition_error(command: &'static OwnCommand, error: &DefinitionError<'_>) -> CommandError {
    match error {
        DefinitionError::Quota(error) => CommandError::quota(command, *error),
        DefinitionError::Mode(_) | DefinitionError::Fallback(_) => CommandError::Policy(error.to_string()),
        DefinitionError::Unknown(word) => CommandError::Option(command, quoted(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::resp::request::{self, Parser};

    /// What is made of a line, in short.
    fn parse(line: &str) -> String {
        let line = format!("{line}\r\n");
        let mut parser = Parser::default();
        parser.parse(line.as_bytes(), request::Limits::of_bulk(4096)).unwrap().unwrap();
        let args = parser.args(line.as_bytes());
        let command = OwnCommand::of(args.name()).unwrap();
        match (command.parse)(&args, &config::Limits::default()) {
            Ok(Request::Policy(request)) => match request {
                PolicyRequest::Set(name, definition) => format!("{} = {definition}", name.escape_ascii()),
                PolicyRequest::Mode(name, mode) => {
                    format!("mode {} {mode:?}", name.map_or("*".to_owned(), |name| name.escape_ascii().to_string()))
                }
                PolicyRequest::SetOverride(name, pattern, OverrideOrder { rule, for_ms, reason }) => {
                    format!("{} {} = {rule} {for_ms:?} {reason}", name.escape_ascii(), pattern.escape_ascii())
                }
                PolicyRequest::ListOverrides { policy, matching, count } => {
                    let matching = matching.map(|matching| matching.escape_ascii().to_string());
                    format!("list {} {matching:?} {count}", policy.escape_ascii())
                }
                other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
            },
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_asked_of_policies_is_read() {
        for (line, read) in [
            ("RL.POLICY LIST", "List"),
            ("rl.policy load", "Load"),
            ("RL.POLICY GET login", "Get"),
            ("RL.POLICY DEL login", "Delete"),
            (
                "RL.POLICY SET login 5 1m 20 1h mode Shadow FALLBACK closed",
                "login = 5 1m 20 1h MODE shadow FALLBACK closed",
            ),
            ("RL.POLICY SET login 5 1m BY gcra BURST 7", "login = 5 1m BY gcra BURST 7"),
            ("RL.POLICY SET login 5 1m PREFETCH 20ms MODE off", "login = 5 1m PREFETCH 20ms MODE off"),
            ("RL.POLICY MODE login off", "mode login Some((Off, None))"),
            ("RL.POLICY MODE * block EX 60", "mode * Some((Block, Some(60000)))"),
            ("RL.POLICY MODE * DEFAULT", "mode * None"),
            ("RL.OVERRIDE SET api user:* 5 1s 6 1m", "api user:* = 5 1s 6 1m None "),
            ("RL.OVERRIDE SET api k off ex 5 reason \"a launch\"", "api k = off Some(5000) a launch"),
            ("RL.OVERRIDE SET api k block REASON x EX 1", "api k = block Some(1000) x"),
            ("RL.OVERRIDE SET api k 5 month BY fixed EX 1", "api k = 5 month BY fixed Some(1000) "),
            ("RL.OVERRIDE GET api k", "GetOverride"),
            ("RL.OVERRIDE DEL api k", "DeleteOverride"),
            ("RL.OVERRIDE LIST api", "list api None 100"),
            ("RL.OVERRIDE LIST api COUNT 5 MATCH u*", "list api Some(\"u*\") 5"),
        ] {
            assert_eq!(parse(line), read, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, error) in [
            ("RL.POLICY", "ERR wrong number of arguments for 'rl.policy' command"),
            ("RL.POLICY LIST x", "ERR wrong number of arguments for 'rl.policy' command"),
            ("RL.POLICY FOO", "ERR unknown subcommand 'FOO'. Try RL.HELP."),
            ("RL.OVERRIDE FOO x", "ERR unknown subcommand 'FOO'. Try RL.HELP."),
            ("RL.POLICY GET 9", "ERR a policy's name must be 1 to 64 of A-Z a-z 0-9 _ . -, begin with a letter"),
            ("RL.POLICY SET cost 5 1m", "ERR a policy's name must be"),
            ("RL.POLICY SET login 5", "ERR wrong number of arguments for 'rl.policy' command"),
            ("RL.POLICY SET login 0 1m", "ERR limit must be an integer between 1 and 1000000000, not '0'"),
            ("RL.POLICY SET login MODE off", "ERR wrong number of arguments for 'rl.policy' command"),
            ("RL.POLICY SET login 5 1m MODE x", "ERR mode must be enforce, shadow, off or block, not 'x'"),
            ("RL.POLICY SET login 5 1m FALLBACK", "ERR fallback must be local, open, closed or error, not ''"),
            ("RL.POLICY SET login 5 1m FOO", "ERR unknown option 'FOO' for 'rl.policy'"),
            ("RL.POLICY SET login 5 1m PREFETCH x", "ERR prefetch must be an integer between 1 and 1000000"),
            ("RL.POLICY SET login 5 1m BY fixed PREFETCH 5", "ERR only logs can be prefetched"),
            ("RL.OVERRIDE SET api k 5 1m PREFETCH 20ms", "ERR an override is prefetched as its policy is"),
            ("RL.POLICY MODE login x", "ERR mode must be enforce, shadow, off or block, not 'x'"),
            ("RL.POLICY MODE login default EX 5", "ERR mode must be enforce, shadow, off or block, not 'default'"),
            ("RL.POLICY MODE login off EX 0", "ERR invalid expire time in 'rl.policy' command"),
            ("RL.POLICY MODE login off EX", "ERR wrong number of arguments for 'rl.policy' command"),
            ("RL.POLICY MODE login off EX 5 6", "ERR unknown option '6' for 'rl.policy'"),
            ("RL.POLICY MODE login off PX 5", "ERR unknown option 'PX' for 'rl.policy'"),
            ("RL.OVERRIDE SET api k", "ERR wrong number of arguments for 'rl.override' command"),
            ("RL.OVERRIDE SET api \"\" off", "ERR key must be 1 to 1024 bytes long, not 0"),
            ("RL.OVERRIDE SET api k maybe", "ERR limit must be an integer between 1 and 1000000000, not 'maybe'"),
            ("RL.OVERRIDE SET api k off 5", "ERR limit must be an integer between 1 and 1000000000, not '5'"),
            ("RL.OVERRIDE SET api k 5 1m EX x", "ERR invalid expire time in 'rl.override' command"),
            ("RL.OVERRIDE SET api k 5 1m EX 5 EX 6", "ERR unknown option 'EX' for 'rl.override'"),
            ("RL.OVERRIDE SET api k 5 1m REASON \"a\\nb\"", "ERR reason must be at most 256 bytes of text on one line"),
            ("RL.OVERRIDE LIST api COUNT 0", "ERR count must be an integer between 1 and"),
        ] {
            let got = parse(line);
            assert!(got.starts_with(error), "{line}: {got}");
        }
    }
}
