//! Tollgate's own commands, from arguments to checked values. A malformed one is a value too: its error text.

pub mod docs;

use crate::quota::{Check, MAX_COST, MAX_KEY_BYTES, MAX_LIMIT, MAX_WINDOW_MS, MAX_WINDOWS, Quota, Window};
use crate::resp::parse_int;
use crate::resp::request::Args;
use std::fmt;

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
    /// A key of no bytes or of too many.
    Key,
    /// A limit that is not an integer from 1 to [`MAX_LIMIT`].
    Limit,
    /// A window that is none, or is out of range.
    Window(String),
    /// One window twice.
    WindowTwice(String),
    /// More than [`MAX_WINDOWS`].
    TooManyWindows,
    /// A cost that is not an integer from 1 to [`MAX_COST`].
    Cost,
    /// A word where a limit or an option belongs.
    Option(Name, String),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arity(name) => write!(f, "ERR wrong number of arguments for '{}' command", name.lower_case()),
            Self::Key => write!(f, "ERR key must be 1 to {MAX_KEY_BYTES} bytes long"),
            Self::Limit => write!(f, "ERR limit must be an integer between 1 and {MAX_LIMIT}"),
            Self::Window(got) => write!(
                f,
                "ERR window must be an integer number of seconds, or an integer with a unit (ms, s, m, h, d), \
                 between 1ms and 366d, not '{got}'"
            ),
            Self::WindowTwice(got) => write!(f, "ERR window '{got}' is named twice"),
            Self::TooManyWindows => write!(f, "ERR at most {MAX_WINDOWS} windows can be checked together"),
            Self::Cost => write!(f, "ERR cost must be an integer between 1 and {MAX_COST}"),
            Self::Option(name, got) => write!(f, "ERR unknown option '{got}' for '{}'", name.lower_case()),
        }
    }
}

/// The quotas of one request, in place: no command allocates for them.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    items: [Quota; MAX_WINDOWS],
    len: usize,
}

impl Quotas {
    fn new() -> Self {
        // What stands beyond `len` is never read; this is only a valid value.
        Self { items: [Quota { limit: 1, window: Window::MIN }; MAX_WINDOWS], len: 0 }
    }

    fn push(&mut self, quota: Quota) -> Result<(), CommandError> {
        *self.items.get_mut(self.len).ok_or(CommandError::TooManyWindows)? = quota;
        self.len += 1;
        Ok(())
    }

    /// The quotas in the order they were named.
    pub fn as_slice(&self) -> &[Quota] {
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
    /// The first thing that is wrong, from left to right.
    pub fn parse(name: Name, args: &Args<'a>) -> Result<Self, CommandError> {
        let (Some(key), true) = (args.get(1), args.len() >= 4) else { return Err(CommandError::Arity(name)) };
        check_key(key)?;
        let mut quotas = Quotas::new();
        let mut cost = None;
        let mut rest = args.from(2);
        while let Some(word) = rest.next() {
            let value = rest.next();
            if word.eq_ignore_ascii_case(b"cost") && cost.is_none() && quotas.len > 0 {
                cost =
                    Some(parse_bounded(value.ok_or(CommandError::Arity(name))?, MAX_COST).ok_or(CommandError::Cost)?);
                continue;
            }
            if quotas.len > 0 && (cost.is_some() || word.first().is_some_and(u8::is_ascii_alphabetic)) {
                return Err(CommandError::Option(name, quoted(word)));
            }
            let limit = parse_bounded(word, MAX_LIMIT).ok_or(CommandError::Limit)?;
            let text = value.ok_or(CommandError::Arity(name))?;
            let window = parse_window(text).ok_or_else(|| CommandError::Window(quoted(text)))?;
            if quotas.as_slice().iter().any(|quota| quota.window == window) {
                return Err(CommandError::WindowTwice(quoted(text)));
            }
            quotas.push(Quota { limit, window })?;
        }
        Ok(Self { key, quotas, cost: cost.unwrap_or(1) })
    }

    /// What is asked.
    pub fn check(&self) -> Check<'_> {
        Check { key: self.key, quotas: self.quotas.as_slice(), cost: self.cost }
    }
}

/// The keys of RL.RESET.
///
/// # Errors
/// No key, or one of a wrong length.
pub fn parse_reset<'a>(args: &Args<'a>) -> Result<Vec<&'a [u8]>, CommandError> {
    if args.len() < 2 {
        return Err(CommandError::Arity(Name::Reset));
    }
    args.from(1).map(|key| check_key(key).map(|()| key)).collect()
}

fn check_key(key: &[u8]) -> Result<(), CommandError> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) { Ok(()) } else { Err(CommandError::Key) }
}

fn parse_bounded(text: &[u8], max: u32) -> Option<u32> {
    u32::try_from(parse_int(text)?).ok().filter(|value| (1..=max).contains(value))
}

fn parse_window(text: &[u8]) -> Option<Window> {
    const UNITS_MS: [(&[u8], u64); 6] =
        [(b"", 1000), (b"ms", 1), (b"s", 1000), (b"m", 60_000), (b"h", 3_600_000), (b"d", 86_400_000)];
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, unit_ms) = UNITS_MS.iter().find(|(name, _)| *name == unit)?;
    let number = u64::try_from(parse_int(number)?).ok()?;
    // Beyond the longest window the product could overflow, so the number is bounded first.
    Window::from_ms(number.min(MAX_WINDOW_MS + 1).checked_mul(*unit_ms)?)
}

/// A peer's bytes as they stand in an error: at most 128 of them, as in Redis, and nothing unprintable.
pub fn quoted(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..128).unwrap_or(bytes))
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::{Limits, Parser};

    type Parsed = (Vec<u8>, Vec<(u32, u64)>, u32);

    fn parse(line: &str) -> Result<Parsed, String> {
        let line = format!("{line}\r\n");
        let mut parser = Parser::default();
        parser.parse(line.as_bytes(), Limits::of_bulk(1024)).unwrap().unwrap();
        let args = parser.args(line.as_bytes());
        let name = Name::of(args.name()).unwrap();
        let parsed = CheckArgs::parse(name, &args).map_err(|error| error.to_string())?;
        let check = parsed.check();
        let quotas = check.quotas.iter().map(|quota| (quota.limit, quota.window.ms())).collect();
        Ok((check.key.to_vec(), quotas, check.cost))
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
        for (line, error) in [
            ("RL.CHECK k 10", "ERR wrong number of arguments for 'rl.check' command".to_owned()),
            ("RL.PEEK", "ERR wrong number of arguments for 'rl.peek' command".to_owned()),
            ("RL.CHECK k 10 60 5", "ERR wrong number of arguments for 'rl.check' command".to_owned()),
            ("RL.CHECK k 10 60 COST", "ERR wrong number of arguments for 'rl.check' command".to_owned()),
            ("RL.CHECK \"\" 10 60", "ERR key must be 1 to 1024 bytes long".to_owned()),
            ("RL.CHECK k 0 60", "ERR limit must be an integer between 1 and 1000000000".to_owned()),
            ("RL.CHECK k 1000000001 60", "ERR limit must be an integer between 1 and 1000000000".to_owned()),
            ("RL.CHECK k COST 5 60", "ERR limit must be an integer between 1 and 1000000000".to_owned()),
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
            ("RL.CHECK k 10 60 COST 0", "ERR cost must be an integer between 1 and 1000000".to_owned()),
            ("RL.CHECK k 10 60 FOO", "ERR unknown option 'FOO' for 'rl.check'".to_owned()),
            ("RL.CHECK k 10 60 FOO 5", "ERR unknown option 'FOO' for 'rl.check'".to_owned()),
            ("RL.PEEK k 10 60 COST 1 COST 2", "ERR unknown option 'COST' for 'rl.peek'".to_owned()),
        ] {
            assert_eq!(parse(line), Err(error), "{line}");
        }
    }
}
