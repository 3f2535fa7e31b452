//! `RL.CHECK key limit window [limit window ...] [BY algorithm] [PREFETCH ahead] [COST n] [FULL]`: may this request go
//! ahead? And its arguments, which are also those of RL.PEEK.

use super::docs::{Argument, Docs, KEY, Kind, QUOTA};
use super::{CommandError, Keys, OwnCommand, Request, capped, check_key, quoted};
use crate::config::Limits;
use crate::limit::{Form, MAX_COST, policy_name};
use crate::quotas::numbers::parse_bounded;
use crate::quotas::{QuotaError, Quotas, read_by, read_prefetch};
use crate::resp::request::Args;

pub static COMMAND: OwnCommand = OwnCommand {
    name: "rl.check",
    arity: -3,
    flags: &["write", "fast"],
    categories: &["@write", "@fast"],
    keys: Keys { first: 1, last: 1, step: 1, flags: &["RW", "access", "update"] },
    is_for_rl_only: true,
    tells_of_all_keys: false,
    parse: |args, limits| CheckArgs::parse(&COMMAND, args, limits).map(Request::Check),
    docs: Docs {
        usage: USAGE,
        summary: "May this request go ahead? Counts it if so.",
        help: &[
            "At most <limit> may pass in any <window>: seconds, or a number with ms, s, m, h or d.",
            "hour, day, week, month and year are the calendar's, in UTC, or as in month+02:00.",
            "Several windows are checked together, all or nothing. COST is what the request weighs (1).",
            "With the name of a policy, its limits hold, and are counted apart.",
            "BY gcra or fixed keeps a number in place of each request. BURST is GCRA's capacity (the limit).",
            "PREFETCH: of a key that is asked for often, so many requests, or those of so long (20ms), are asked for ahead.",
            "Reply: allowed, limit, remaining, retry_after_ms, reset_after_ms, degraded.",
            "FULL has it be a map, with the reason, when more is free, and the same for each window.",
        ],
        complexity: COMPLEXITY,
        arguments: ARGUMENTS,
    },
};

pub const USAGE: &str =
    "key limit window [limit window ...]|policy [BY log|gcra [BURST n]|fixed] [PREFETCH n|time] [COST n] [FULL]";
pub const COMPLEXITY: &str = "O(log(N)) for each window, N being the requests counted in it, or O(1) by gcra or fixed";
pub const ARGUMENTS: &[Argument] = &[
    KEY,
    Argument {
        name: "limits",
        kind: Kind::OneOf(&[QUOTA, Argument { name: "policy", kind: Kind::Text, token: None, flags: &[] }]),
        token: None,
        flags: &[],
    },
    Argument {
        name: "algorithm",
        kind: Kind::OneOf(&[
            Argument { name: "log", kind: Kind::PureToken, token: Some("LOG"), flags: &[] },
            Argument {
                name: "gcra",
                kind: Kind::Block(&[
                    Argument { name: "gcra", kind: Kind::PureToken, token: Some("GCRA"), flags: &[] },
                    Argument { name: "burst", kind: Kind::Integer, token: Some("BURST"), flags: &["optional"] },
                ]),
                token: None,
                flags: &[],
            },
            Argument { name: "fixed", kind: Kind::PureToken, token: Some("FIXED"), flags: &[] },
        ]),
        token: Some("BY"),
        flags: &["optional"],
    },
    PREFETCH,
    Argument { name: "cost", kind: Kind::Integer, token: Some("COST"), flags: &["optional"] },
    Argument { name: "full", kind: Kind::PureToken, token: Some("FULL"), flags: &["optional"] },
];

pub(super) const PREFETCH: Argument =
    Argument { name: "ahead", kind: Kind::Text, token: Some("PREFETCH"), flags: &["optional"] };

/// The arguments of RL.CHECK or RL.PEEK.
#[derive(Debug, Clone, Copy)]
pub struct CheckArgs<'a> {
    /// Whether what may pass for it.
    pub key: &'a [u8],
    /// By these limits, or none, and
    pub quotas: Quotas,
    /// those of the policy of this name, if there is one.
    pub policy: Option<&'a [u8]>,
    /// What it costs.
    pub cost: u32,
    /// How much the answer is to say.
    pub form: Form,
}

impl<'a> CheckArgs<'a> {
    /// Reads `name key limit window [limit window ...] [BY algorithm] [PREFETCH ahead] [COST n] [FULL]`, or `name key policy
    /// [COST n] [FULL]`, the options in any order.
    ///
    /// # Errors
    /// The first thing that is wrong, from left to right; then what is more than `limits` allow.
    pub fn parse(command: &'static OwnCommand, args: &Args<'a>, limits: &Limits) -> Result<Self, CommandError> {
        let parsed = Self::read(command, args)?;
        for quota in parsed.quotas.as_slice() {
            capped("limit", quota.max.into(), limits.limit.into(), "limits.max_limit")?;
            capped("burst", quota.capacity().into(), limits.limit.into(), "limits.max_limit")?;
            capped("window in milliseconds", quota.window.ms(), limits.window_ms, "limits.max_window_ms")?;
        }
        capped("number of windows", parsed.quotas.len() as u64, limits.windows as u64, "limits.max_windows")?;
        capped("cost", parsed.cost.into(), limits.cost.into(), "limits.max_cost")?;
        Ok(parsed)
    }

    fn read(command: &'static OwnCommand, args: &Args<'a>) -> Result<Self, CommandError> {
        let (Some(key), Some(first)) = (args.get(1), args.get(2)) else { return Err(CommandError::Arity(command)) };
        check_key(key)?;
        let policy = Some(first).filter(|first| policy_name::is_valid(first));
        let mut quotas = Quotas::default();
        let (mut cost, mut form) = (None, Form::Short);
        let mut words = args.from(if policy.is_some() { 3 } else { 2 }).peekable();
        let of_quotas = |error| CommandError::quota(command, error);
        while let Some(word) = words.next() {
            let has_limits = policy.is_some() || !quotas.is_empty();
            let is_option = |name: &[u8]| has_limits && word.eq_ignore_ascii_case(name);
            let has_options = cost.is_some() || form == Form::Full || quotas.says_by() || quotas.prefetch().is_some();
            let is_word = word.first().is_some_and(u8::is_ascii_alphabetic);
            if is_option(b"full") && form == Form::Short {
                form = Form::Full;
            } else if is_option(b"cost") && cost.is_none() {
                let text = words.next().ok_or(CommandError::Arity(command))?;
                cost = Some(parse_bounded(text, MAX_COST).ok_or_else(|| CommandError::Cost(quoted(text)))?);
            } else if is_option(b"by") && policy.is_none() && !quotas.says_by() {
                read_by(&mut words).and_then(|by| quotas.set_by(by)).map_err(of_quotas)?;
            } else if is_option(b"prefetch") && policy.is_none() && quotas.prefetch().is_none() {
                let text = words.next().ok_or(CommandError::Arity(command))?;
                quotas.set_prefetch(read_prefetch(text).map_err(of_quotas)?);
            } else if let (Some(name), false, false) = (policy, has_options, is_word) {
                // A window follows it, so that it stands where a limit belongs.
                return Err(of_quotas(QuotaError::Limit(name)));
            } else if has_limits && (policy.is_some() || has_options || is_word) {
                return Err(CommandError::Option(command, quoted(word)));
            } else {
                quotas.add(word, words.next()).map_err(of_quotas)?;
            }
        }
        if policy.is_none() {
            quotas.check().map_err(of_quotas)?;
        }
        Ok(Self { key, quotas, policy, cost: cost.unwrap_or(1), form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::{self, Parser};

    type Parsed = (Vec<u8>, Vec<(u32, u64)>, u32);

    fn parse(line: &str) -> Result<Parsed, String> {
        let line = format!("{line}\r\n");
        let mut parser = Parser::default();
        parser.parse(line.as_bytes(), request::Limits::of_bulk(1024)).unwrap().unwrap();
        let args = parser.args(line.as_bytes());
        let command = OwnCommand::of(args.name()).unwrap();
        let parsed = CheckArgs::read(command, &args).map_err(|error| error.to_string())?;
        let quotas = parsed.quotas.as_slice().iter().map(|quota| (quota.max, quota.window.ms())).collect();
        Ok((parsed.key.to_vec(), quotas, parsed.cost))
    }

    #[test]
    fn windows_costs_and_their_units_are_read() {
        for (line, quotas, cost) in [
            ("rl.check k 10 60", vec![(10, 60_000)], 1),
            ("RL.CHECK k 10 1ms cost 5", vec![(10, 1)], 5),
            (
                "Rl.Peek k 10 1s 100 1m 1000 1h COST 1000000",
                vec![(10, 1000), (100, 60_000), (1000, 3_600_000)],
                1_000_000,
            ),
            ("RL.CHECK k 1000000000 366d", vec![(1_000_000_000, 31_622_400_000)], 1),
            ("RL.CHECK k 1 10 COST 2 ", vec![(1, 10_000)], 2),
            ("RL.CHECK k 100.0 60.0 COST 1.0", vec![(100, 60_000)], 1),
            ("RL.CHECK k 1e3 1.0m cost 1e1", vec![(1000, 60_000)], 10),
            ("RL.CHECK k login", vec![], 1),
            ("RL.PEEK k a.b-C_9 COST 7", vec![], 7),
        ] {
            assert_eq!(parse(line), Ok((b"k".to_vec(), quotas, cost)), "{line}");
        }
    }

    #[test]
    fn full_stands_among_the_options_in_any_order() {
        for (line, cost, form) in [
            ("RL.CHECK k 10 60", 1, Form::Short),
            ("RL.CHECK k 10 60 FULL", 1, Form::Full),
            ("RL.CHECK k 10 60 20 1h full COST 5", 5, Form::Full),
            ("rl.peek k login cost 5 Full", 5, Form::Full),
            ("rl.check k login FULL", 1, Form::Full),
        ] {
            let line = format!("{line}\r\n");
            let mut parser = Parser::default();
            parser.parse(line.as_bytes(), request::Limits::of_bulk(1024)).unwrap().unwrap();
            let args = parser.args(line.as_bytes());
            let parsed = CheckArgs::read(&COMMAND, &args).unwrap();
            assert_eq!((parsed.cost, parsed.form), (cost, form), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let window = |got| {
            format!(
                "ERR window must be an integer number of seconds, or an integer with a unit (ms, s, m, h, d), \
                 between 1ms and 366d, not '{got}'"
            )
        };
        let limit = |got| format!("ERR limit must be an integer between 1 and 1000000000, not '{got}'");
        let cost = |got| format!("ERR cost must be an integer between 1 and 1000000, not '{got}'");
        let swapped = |got, right| format!("{}: the limit comes before its window, as in '{right}'", limit(got));
        let usage = |name: &str| format!("{name} {USAGE}");
        let arity = |name: &str| {
            format!("ERR wrong number of arguments for '{}' command: {}", name.to_lowercase(), usage(name))
        };
        let option =
            |got, name: &str| format!("ERR unknown option '{got}' for '{}': {}", name.to_lowercase(), usage(name));
        for (line, error) in [
            ("RL.CHECK k 10", arity("RL.CHECK")),
            ("RL.PEEK", arity("RL.PEEK")),
            ("RL.CHECK k", arity("RL.CHECK")),
            ("RL.CHECK k login COST", arity("RL.CHECK")),
            ("RL.CHECK k login 10 60", limit("login")),
            ("RL.CHECK k many 1h", limit("many")),
            ("RL.CHECK k login COST 5 6", option("6", "RL.CHECK")),
            ("RL.CHECK k login login", option("login", "RL.CHECK")),
            ("RL.CHECK k cost 5", limit("cost")),
            ("RL.CHECK k 10 60 5", arity("RL.CHECK")),
            ("RL.CHECK k 10 60 COST", arity("RL.CHECK")),
            ("RL.CHECK \"\" 10 60", "ERR key must be 1 to 1024 bytes long, not 0".to_owned()),
            ("RL.CHECK k 0 60", limit("0")),
            ("RL.CHECK k 1000000001 60", limit("1000000001")),
            ("RL.CHECK k 10.5 60", limit("10.5")),
            ("RL.CHECK k COST 5 60", limit("COST")),
            ("RL.CHECK k 60s 10", swapped("60s", "RL.CHECK key 10 60s")),
            ("rl.peek k 10 60 1.0m 100.0", swapped("1.0m", "RL.PEEK key 100.0 1.0m")),
            ("RL.CHECK k 60s 1m", limit("60s")),
            ("RL.CHECK k 367d 10", limit("367d")),
            ("RL.CHECK k 10 0", window("0")),
            ("RL.CHECK k 10 367d", window("367d")),
            ("RL.CHECK k 10 99999999999999999999d", window("99999999999999999999d")),
            ("RL.CHECK k 10 9223372036854775807d", window("9223372036854775807d")),
            ("RL.CHECK k 10 1.5s", window("1.5s")),
            ("RL.CHECK k 10 60 20 1m", "ERR window '1m' is named twice".to_owned()),
            (
                "RL.CHECK k 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9",
                "ERR at most 8 windows can be checked together".to_owned(),
            ),
            ("RL.CHECK k 10 60 COST 0", cost("0")),
            ("RL.CHECK k 10 60 COST 1.5", cost("1.5")),
            ("RL.CHECK k 10 60 FOO", option("FOO", "RL.CHECK")),
            ("RL.CHECK k 10 60 FOO 5", option("FOO", "RL.CHECK")),
            ("RL.PEEK k 10 60 COST 1 COST 2", option("COST", "RL.PEEK")),
            ("RL.PEEK k 10 60 FULL COST 1 full", option("full", "RL.PEEK")),
            ("RL.CHECK k 10 60 FULL 20 1m", option("20", "RL.CHECK")),
            ("RL.CHECK k login FULL 20 1m", option("20", "RL.CHECK")),
            ("RL.CHECK k 10 60 FULL COST", arity("RL.CHECK")),
            ("RL.CHECK k 10 60 PREFETCH", arity("RL.CHECK")),
            ("RL.CHECK k 10 60 PREFETCH 5 20 1m", option("20", "RL.CHECK")),
            ("RL.CHECK k login PREFETCH 5", option("PREFETCH", "RL.CHECK")),
            ("RL.CHECK k 10 60 PREFETCH 5 prefetch 6", option("prefetch", "RL.CHECK")),
            (
                "RL.CHECK k 10 60 PREFETCH 20ms BY gcra",
                "ERR only logs can be prefetched, and no window that is fixed, of the calendar, or counted BY gcra"
                    .to_owned(),
            ),
            (
                "RL.CHECK k 10 60 PREFETCH 2s",
                "ERR prefetch must be an integer between 1 and 1000000, or a time between 2ms and 1000ms, not '2s'"
                    .to_owned(),
            ),
            ("RL.CHECK k 10 60 COST FULL", cost("FULL")),
            ("RL.CHECK k 10 FULL", window("FULL")),
            ("RL.CHECK k FULL 10 60", limit("FULL")),
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
    }
}
