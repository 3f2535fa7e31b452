//! Tollgate's own commands, from arguments to checked values. A malformed one is a value too: its error text.

pub mod docs;
mod numbers;

use crate::config::Limits;
use crate::limit::{Ask, Limit, MAX_COST, MAX_KEY_BYTES, MAX_LIMIT, MAX_LIMITS_PER_ASK, Window};
use crate::resp::request::Args;
use numbers::{parse_bounded, parse_window};
use std::fmt;

/// Most bytes of a peer's that an error repeats, as in Redis.
const MAX_QUOTED_BYTES: usize = 128;

/// Which of Tollgate's own commands a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `RL.CHECK`
    Check,
    /// `RL.PEEK`
    Peek,
    /// `RL.RESET`
    Reset,
    /// `RL.HELP`
    Help,
}

impl Name {
    /// The command of this name in any case, or `None` when it is not Tollgate's own.
    pub fn of(name: &[u8]) -> Option<Self> {
        let own = name.get(..3)?.eq_ignore_ascii_case(b"rl.");
        let rest = name.get(3..)?;
        match rest.len() {
            _ if !own => None,
            5 if rest.eq_ignore_ascii_case(b"check") => Some(Self::Check),
            4 if rest.eq_ignore_ascii_case(b"peek") => Some(Self::Peek),
            5 if rest.eq_ignore_ascii_case(b"reset") => Some(Self::Reset),
            4 if rest.eq_ignore_ascii_case(b"help") => Some(Self::Help),
            _ => None,
        }
    }

    /// As Redis writes command names in its errors.
    pub fn lower_case(self) -> &'static str {
        match self {
            Self::Check => "rl.check",
            Self::Peek => "rl.peek",
            Self::Reset => "rl.reset",
            Self::Help => "rl.help",
        }
    }
}

/// Why a command is not understood. Its Display is the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// Too few arguments, or a limit without its window.
    Arity(Name),
    /// A key of so many bytes: none, or too many.
    Key(usize),
    /// A limit that is not an integer from 1 to [`MAX_LIMIT`].
    Limit(String),
    /// A window, and then a limit.
    LimitBehindWindow {
        /// Of which command.
        name: Name,
        /// What stands where the limit belongs.
        window: String,
        /// What stands where the window belongs.
        limit: String,
    },
    /// A window that is none, or is out of range.
    Window(String),
    /// One window twice.
    WindowTwice(String),
    /// More than [`MAX_LIMITS_PER_ASK`].
    TooManyWindows,
    /// A cost that is not an integer from 1 to [`MAX_COST`].
    Cost(String),
    /// A word where a limit or an option belongs.
    Option(Name, String),
    /// More of something than the operator allows.
    Capped {
        /// Of what.
        what: &'static str,
        /// The most that is allowed.
        most: u64,
        /// The setting that says so.
        setting: &'static str,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arity(name) => {
                write!(f, "ERR wrong number of arguments for '{}' command: {}", name.lower_case(), docs::usage(*name))
            }
            Self::Key(length) => write!(f, "ERR key must be 1 to {MAX_KEY_BYTES} bytes long, not {length}"),
            Self::Limit(got) => write!(f, "ERR limit must be an integer between 1 and {MAX_LIMIT}, not '{got}'"),
            Self::LimitBehindWindow { name, window, limit } => {
                let (error, name) = (Self::Limit(window.clone()), name.lower_case().to_uppercase());
                write!(f, "{error}: the limit comes before its window, as in '{name} key {limit} {window}'")
            }
            Self::Window(got) => write!(
                f,
                "ERR window must be an integer number of seconds, or an integer with a unit (ms, s, m, h, d), \
                 between 1ms and 366d, not '{got}'"
            ),
            Self::WindowTwice(got) => write!(f, "ERR window '{got}' is named twice"),
            Self::TooManyWindows => write!(f, "ERR at most {MAX_LIMITS_PER_ASK} windows can be checked together"),
            Self::Cost(got) => write!(f, "ERR cost must be an integer between 1 and {MAX_COST}, not '{got}'"),
            Self::Option(name, got) => {
                write!(f, "ERR unknown option '{got}' for '{}': {}", name.lower_case(), docs::usage(*name))
            }
            Self::Capped { what, most, setting } => write!(f, "ERR {what} must be at most {most} here ({setting})"),
        }
    }
}

fn capped(what: &'static str, got: u64, most: u64, setting: &'static str) -> Result<(), CommandError> {
    if got <= most { Ok(()) } else { Err(CommandError::Capped { what, most, setting }) }
}

/// The quotas of one request, in place: no command allocates for them.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    items: [Limit; MAX_LIMITS_PER_ASK],
    len: usize,
}

impl Quotas {
    fn new() -> Self {
        // What stands beyond `len` is never read; this is only a valid value.
        Self { items: [Limit::log(1, Window::MIN); MAX_LIMITS_PER_ASK], len: 0 }
    }

    fn push(&mut self, quota: Limit) -> Result<(), CommandError> {
        *self.items.get_mut(self.len).ok_or(CommandError::TooManyWindows)? = quota;
        self.len += 1;
        Ok(())
    }

    /// The quotas in the order they were named.
    pub fn as_slice(&self) -> &[Limit] {
        self.items.get(..self.len).unwrap_or_default()
    }
}

/// The arguments of RL.CHECK or RL.PEEK.
#[derive(Debug, Clone, Copy)]
pub struct CheckArgs<'a> {
    key: &'a [u8],
    quotas: Quotas,
    cost: u32,
}

impl<'a> CheckArgs<'a> {
    /// Reads `name key limit window [limit window ...] [COST n]`.
    ///
    /// # Errors
    /// The first thing that is wrong, from left to right; then what is more than `limits` allow.
    pub fn parse(name: Name, args: &Args<'a>, limits: &Limits) -> Result<Self, CommandError> {
        let parsed = Self::read(name, args)?;
        for quota in parsed.quotas.as_slice() {
            capped("limit", quota.max.into(), limits.limit.into(), "limits.max_limit")?;
            capped("window in milliseconds", quota.window.ms(), limits.window_ms, "limits.max_window_ms")?;
        }
        capped("number of windows", parsed.quotas.len as u64, limits.windows as u64, "limits.max_windows")?;
        capped("cost", parsed.cost.into(), limits.cost.into(), "limits.max_cost")?;
        Ok(parsed)
    }

    fn read(name: Name, args: &Args<'a>) -> Result<Self, CommandError> {
        let (Some(key), true) = (args.get(1), args.len() >= 4) else { return Err(CommandError::Arity(name)) };
        check_key(key)?;
        let mut quotas = Quotas::new();
        let mut cost = None;
        let mut rest = args.from(2);
        while let Some(word) = rest.next() {
            let value = rest.next();
            if word.eq_ignore_ascii_case(b"cost") && cost.is_none() && quotas.len > 0 {
                let text = value.ok_or(CommandError::Arity(name))?;
                cost = Some(parse_bounded(text, MAX_COST).ok_or_else(|| CommandError::Cost(quoted(text)))?);
                continue;
            }
            if quotas.len > 0 && (cost.is_some() || word.first().is_some_and(u8::is_ascii_alphabetic)) {
                return Err(CommandError::Option(name, quoted(word)));
            }
            let limit = parse_bounded(word, MAX_LIMIT).ok_or_else(|| no_limit(name, word, value))?;
            let text = value.ok_or(CommandError::Arity(name))?;
            let window = parse_window(text).ok_or_else(|| CommandError::Window(quoted(text)))?;
            if quotas.as_slice().iter().any(|quota| quota.window == window) {
                return Err(CommandError::WindowTwice(quoted(text)));
            }
            quotas.push(Limit::log(limit, window))?;
        }
        Ok(Self { key, quotas, cost: cost.unwrap_or(1) })
    }

    /// What is asked.
    pub fn check(&self) -> Ask<'_> {
        Ask { key: self.key, limits: self.quotas.as_slice(), cost: self.cost }
    }
}

/// The keys of RL.RESET.
///
/// # Errors
/// No key, more than `limits` allow, or one of a wrong length.
pub fn parse_reset<'a>(args: &Args<'a>, limits: &Limits) -> Result<Vec<&'a [u8]>, CommandError> {
    if args.len() < 2 {
        return Err(CommandError::Arity(Name::Reset));
    }
    capped("number of keys", args.len() as u64 - 1, limits.reset_keys as u64, "limits.max_reset_keys")?;
    args.from(1).map(|key| check_key(key).map(|()| key)).collect()
}

fn check_key(key: &[u8]) -> Result<(), CommandError> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) { Ok(()) } else { Err(CommandError::Key(key.len())) }
}

/// What to say of a `word` that is no limit, before a `value` that should be its window.
fn no_limit(name: Name, word: &[u8], value: Option<&[u8]>) -> CommandError {
    match value.filter(|value| parse_window(word).is_some() && parse_bounded(value, MAX_LIMIT).is_some()) {
        Some(value) => CommandError::LimitBehindWindow { name, window: quoted(word), limit: quoted(value) },
        None => CommandError::Limit(quoted(word)),
    }
}

/// A peer's bytes as they stand in an error: at most [`MAX_QUOTED_BYTES`], and nothing unprintable.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::new();
    for letter in String::from_utf8_lossy(bytes.get(..MAX_QUOTED_BYTES).unwrap_or(bytes)).chars() {
        // What is no text grows: each such byte becomes a sign of three.
        if text.len() + letter.len_utf8() > MAX_QUOTED_BYTES {
            break;
        }
        text.push(if letter.is_control() { ' ' } else { letter });
    }
    text
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
        let name = Name::of(args.name()).unwrap();
        let parsed = CheckArgs::read(name, &args).map_err(|error| error.to_string())?;
        let ask = parsed.check();
        let quotas = ask.limits.iter().map(|quota| (quota.max, quota.window.ms())).collect();
        Ok((ask.key.to_vec(), quotas, ask.cost))
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
        ] {
            assert_eq!(parse(line), Ok((b"k".to_vec(), quotas, cost)), "{line}");
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
        let usage = |name: &str| format!("{name} key limit window [limit window ...] [COST n]");
        let arity = |name: &str| {
            format!("ERR wrong number of arguments for '{}' command: {}", name.to_lowercase(), usage(name))
        };
        let option =
            |got, name: &str| format!("ERR unknown option '{got}' for '{}': {}", name.to_lowercase(), usage(name));
        for (line, error) in [
            ("RL.CHECK k 10", arity("RL.CHECK")),
            ("RL.PEEK", arity("RL.PEEK")),
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
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
    }

    #[test]
    fn what_an_error_repeats_is_printable_and_has_an_end() {
        assert_eq!(quoted(b"a\r\nb\0"), "a  b ");
        assert_eq!(quoted(&[b'a'; 129]), "a".repeat(128));
        assert_eq!(quoted(&[0xff; 200]), "\u{fffd}".repeat(42));
        assert_eq!(quoted("ю".repeat(100).as_bytes()), "ю".repeat(64));
    }
}
