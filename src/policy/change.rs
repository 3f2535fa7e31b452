//! What is said to a running Tollgate, and how Redis keeps it: each change is one field of a hash, so that of two who
//! change the same at once one wins whole.
//!
//! | field | value |
//! |---|---|
//! | `login` | what the policy is: `5 1m 20 1h MODE shadow` |
//! | `mode:login`, `mode:*` | the mode in place of its own: `off UNTIL 1795782202121` |
//! | `override:login:user:42` | what holds for a key: `1000 1s UNTIL 1795782202121 REASON a customer's launch` |
//!
//! `UNTIL` is unix time in milliseconds. What cannot be read is left out: a later Tollgate may say more than this one
//! knows.

use super::{Definition, MAX_PATTERN_BYTES, Mode, Override, Rule, Switch, Until};
use crate::limit::PolicyName;

/// One thing that was said.
#[derive(Debug, Clone)]
pub struct Change {
    /// Of what.
    pub target: Target,
    /// What.
    pub entry: Entry,
}

/// What something is said of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Of all policies, and of limits without one.
    All,
    /// Of one policy.
    Policy(PolicyName),
}

/// What is said, or that it holds no longer.
#[derive(Debug, Clone)]
pub enum Entry {
    /// What the policy is.
    Definition(Option<Box<Definition>>),
    /// The mode in place of its own.
    Switch(Option<Switch>),
    /// What holds for a pattern of keys.
    Override(Vec<u8>, Option<Override>),
}

impl Change {
    /// The field that keeps it.
    pub fn field(&self) -> Vec<u8> {
        let name = match self.target {
            Target::All => "*",
            Target::Policy(name) => name.as_str(),
        };
        match &self.entry {
            Entry::Definition(_) => name.into(),
            Entry::Switch(_) => format!("mode:{name}").into(),
            Entry::Override(pattern, _) => [format!("override:{name}:").as_bytes(), pattern].concat(),
        }
    }

    /// Its value; `None` if the field goes.
    pub fn value(&self) -> Option<String> {
        let until = |until: Option<Until>| until.map_or(String::new(), |until| format!(" UNTIL {}", until.unix_ms));
        match &self.entry {
            Entry::Definition(definition) => definition.as_ref().map(|definition| definition.to_string()),
            Entry::Switch(switch) => switch.map(|switch| format!("{}{}", switch.mode, until(switch.until))),
            Entry::Override(_, found) => found.as_ref().map(|found| {
                let reason = if found.reason.is_empty() { String::new() } else { format!(" REASON {}", found.reason) };
                format!("{}{}{reason}", found.rule, until(found.until))
            }),
        }
    }

    /// What a field says, or that it is gone. `at` makes a moment of a unix time in milliseconds. `None` if it cannot be
    /// read.
    pub fn of(field: &[u8], value: Option<&[u8]>, at: impl Fn(u64) -> Until) -> Option<Self> {
        let parts: Vec<_> = field.splitn(3, |byte| *byte == b':').collect();
        let (target, entry) = match parts.as_slice() {
            [name] => {
                let definition = value.map(|value| Definition::parse(words(value)).ok().map(Box::new));
                (Target::of(name)?, Entry::Definition(flip(definition)?))
            }
            [b"mode", name] => {
                let switch = value.map(|value| {
                    let (rest, until) = split_until(value, &at)?;
                    Some(Switch { mode: Mode::of(rest)?, until })
                });
                let target = if *name == b"*" { Target::All } else { Target::of(name)? };
                (target, Entry::Switch(flip(switch)?))
            }
            [b"override", name, pattern] if (1..=MAX_PATTERN_BYTES).contains(&pattern.len()) => {
                let found = value.map(|value| read_override(value, &at));
                (Target::of(name)?, Entry::Override(pattern.to_vec(), flip(found)?))
            }
            _ => return None,
        };
        Some(Self { target, entry })
    }
}

impl Target {
    fn of(name: &[u8]) -> Option<Self> {
        PolicyName::new(str::from_utf8(name).ok()?).map(Self::Policy)
    }
}

/// What is there and cannot be read is nothing; what is not there is `Some(None)`.
fn flip<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
}

fn read_override(value: &[u8], at: &impl Fn(u64) -> Until) -> Option<Override> {
    let (rest, reason) = split_at_word(value, b" REASON ").unwrap_or((value, b""));
    let (rest, until) = split_until(rest, at)?;
    let rule = Rule::parse(words(rest)).ok()?;
    Some(Override { rule, until, reason: str::from_utf8(reason).ok()?.into() })
}

fn split_until<'a>(value: &'a [u8], at: &impl Fn(u64) -> Until) -> Option<(&'a [u8], Option<Until>)> {
    match split_at_word(value, b" UNTIL ") {
        Some((rest, until)) => Some((rest, Some(at(str::from_utf8(until).ok()?.parse().ok()?)))),
        None => Some((value, None)),
    }
}

fn split_at_word<'a>(text: &'a [u8], word: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = text.windows(word.len()).position(|window| window == word)?;
    Some((text.get(..start)?, text.get(start + word.len()..)?))
}
