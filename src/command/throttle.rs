//! `CL.THROTTLE key max_burst count period [quantity]`, as redis-cell has it, its errors included; and RL.THROTTLE, which
//! is the same by the name that was proposed for Valkey, with Redis's errors and without numbers that mean nothing.

use super::docs::{Argument, Docs, KEY, Kind};
use super::{CommandError, Keys, OwnCommand, Request, check_key};
use crate::resp::request::Args;
use crate::throttle::Question;

/// Most bytes of a word that an error of redis-cell's repeats here.
const MAX_REPEATED_BYTES: usize = 1024;

pub static CL: OwnCommand = COMMAND;

pub static RL: OwnCommand = OwnCommand {
    name: "rl.throttle",
    parse: |args, _| parse_rl(args),
    docs: Docs { summary: "The same as CL.THROTTLE, with Redis's errors.", ..DOCS },
    ..COMMAND
};

const COMMAND: OwnCommand = OwnCommand {
    name: "cl.throttle",
    arity: -5,
    flags: &["write", "denyoom", "fast"],
    categories: &["@write", "@fast"],
    keys: Keys { first: 1, last: 1, step: 1, flags: &["RW", "access", "update"] },
    is_for_rl_only: false,
    tells_of_all_keys: false,
    parse: |args, _| parse_cl(args),
    docs: DOCS,
};
const DOCS: Docs = Docs {
    usage: USAGE,
    summary: "May this request go ahead? Counts it if so, as the module redis-cell does, in its keys.",
    help: HELP,
    complexity: "O(1)",
    arguments: ARGUMENTS,
};
const USAGE: &str = "key max_burst count period [quantity]";
const HELP: &[&str] = &[
    "<count> pass in <period> seconds, and <max_burst> more at once. A quantity of 0 counts nothing.",
    "Reply: limited (1: denied), limit, remaining, retry_after and reset_after in seconds (-1: none).",
];
const ARGUMENTS: &[Argument] = &[
    KEY,
    Argument { name: "max_burst", kind: Kind::Integer, token: None, flags: &[] },
    Argument { name: "count", kind: Kind::Integer, token: None, flags: &[] },
    Argument { name: "period", kind: Kind::Integer, token: None, flags: &[] },
    Argument { name: "quantity", kind: Kind::Integer, token: None, flags: &["optional"] },
];

/// The arguments of a throttle.
#[derive(Debug, Clone, Copy)]
pub struct ThrottleArgs<'a> {
    /// Whether what may pass for it.
    pub key: &'a [u8],
    /// By which numbers.
    pub question: Question,
}

fn parse_cl<'a>(args: &Args<'a>) -> Result<Request<'a>, CommandError> {
    let (Some(key), 5..=6) = (args.get(1), args.len()) else { return Err(CommandError::CellUsage) };
    let mut numbers = [0, 0, 0, 1];
    for (number, word) in numbers.iter_mut().zip(args.from(2)) {
        *number = integer(word).ok_or_else(|| CommandError::CellInteger(repeated(word)))?;
    }
    let [max_burst, count, period_s, quantity] = numbers;
    let question = Question::new(max_burst, count, period_s, quantity).ok_or(CommandError::CellZeroRate)?;
    check_long_key(key)?;
    Ok(Request::Throttle(ThrottleArgs { key, question }))
}

fn parse_rl<'a>(args: &Args<'a>) -> Result<Request<'a>, CommandError> {
    let (Some(key), 5..=6) = (args.get(1), args.len()) else { return Err(CommandError::Arity(&RL)) };
    check_key(key)?;
    let mut numbers = [0, 0, 0, 1];
    for ((number, word), least) in numbers.iter_mut().zip(args.from(2)).zip([0, 1, 1, 0]) {
        *number = integer(word).filter(|number| *number >= least).ok_or(CommandError::Integer)?;
    }
    let [max_burst, count, period_s, quantity] = numbers;
    let question = Question::new(max_burst, count, period_s, quantity).ok_or(CommandError::ZeroRate)?;
    if !question.is_in_range(max_burst, quantity) {
        return Err(CommandError::Integer);
    }
    Ok(Request::Throttle(ThrottleArgs { key, question }))
}

fn integer(word: &[u8]) -> Option<i64> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// An empty key is one, for redis-cell.
fn check_long_key(key: &[u8]) -> Result<(), CommandError> {
    if key.is_empty() { Ok(()) } else { check_key(key) }
}

/// A word as redis-cell repeats it: it ends where a string of C does.
fn repeated(word: &[u8]) -> String {
    let word = word.get(..MAX_REPEATED_BYTES).unwrap_or(word);
    let shown = word.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(shown).into_owned()
}
