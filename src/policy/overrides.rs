//! For which keys something else holds than a policy's limits: exact keys, and prefixes, which end in `*`.
//!
//! A change copies the part of the table that its pattern is in, and shares the others with what held before: one of a
//! hundred thousand overrides is changed in microseconds, and nobody who reads waits for it. The longest prefix of a key
//! is found by a look for each length that a prefix has, of which there are few.

use super::Until;
use crate::limit::Limit;
use crate::quotas::{By, QuotaError, Quotas};
use ahash::RandomState;
use hashbrown::HashTable;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Longest pattern, in bytes: a key's, and the `*`.
pub const MAX_PATTERN_BYTES: usize = crate::limit::MAX_KEY_BYTES + 1;
/// Parts of a table, a power of two.
const PARTS: usize = 256;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What holds for a key, or for all that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// What.
    pub rule: Rule,
    /// Until when, if not for good.
    pub until: Option<Until>,
    /// Why, in the words of who said so. Empty if he said nothing.
    pub reason: Box<str>,
}

/// What holds in place of a policy's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Other limits, counted as the policy's unless it is said how.
    Limits(Box<[(Limit, Option<By>)]>),
    /// All pass.
    Off,
    /// None pass.
    Block,
}

impl Rule {
    /// The rule of these words: `off`, `block`, or limits.
    ///
    /// # Errors
    /// What is wrong with the limits.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, QuotaError<'a>> {
        let mut words = words.into_iter().peekable();
        let first = *words.peek().ok_or(QuotaError::NoWindow)?;
        let word = |name: &[u8]| first.eq_ignore_ascii_case(name);
        let rule = match (word(b"off"), word(b"block")) {
            (true, _) => Self::Off,
            (_, true) => Self::Block,
            _ => {
                let quotas = Quotas::read(&mut words)?;
                if quotas.prefetch().is_some() {
                    return Err(QuotaError::PrefetchOfOverride);
                }
                return Ok(Self::Limits(quotas.said().collect()));
            }
        };
        match words.nth(1) {
            Some(more) => Err(QuotaError::Limit(more)),
            None => Ok(rule),
        }
    }
}

/// As it is read again.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(limits) => Quotas::of(limits).fmt(f),
            Self::Off => f.write_str("off"),
            Self::Block => f.write_str("block"),
        }
    }
}

/// The overrides of a policy.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    exact: Table,
    prefixes: Table,
    /// How many prefixes there are of each length.
    lengths: BTreeMap<usize, usize>,
}

impl Overrides {
    /// Has an override hold for a pattern, or none.
    pub fn set(&mut self, pattern: &[u8], found: Option<Override>) {
        let Some(prefix) = pattern.strip_suffix(b"*") else {
            self.exact.set(pattern, found);
            return;
        };
        let is_there = found.is_some();
        let was_there = self.prefixes.set(prefix, found);
        if is_there != was_there {
            let count = self.lengths.entry(prefix.len()).or_default();
            *count = if is_there { *count + 1 } else { *count - 1 };
            self.lengths.retain(|_, count| *count > 0);
        }
    }

    /// What holds for a pattern, be it over or not.
    pub fn get(&self, pattern: &[u8]) -> Option<&Override> {
        match pattern.strip_suffix(b"*") {
            Some(prefix) => self.prefixes.get(prefix),
            None => self.exact.get(pattern),
        }
    }

    /// What holds for exactly this key.
    pub fn exact(&self, key: &[u8], now_us: u64) -> Option<&Override> {
        self.exact.get(key).filter(|found| !Until::is_past(found.until, now_us))
    }

    /// What holds for the longest prefix of this key for which anything does, and how long that is.
    pub fn longest_prefix(&self, key: &[u8], now_us: u64) -> Option<(usize, &Override)> {
        self.lengths.range(..=key.len()).rev().find_map(|(length, _)| {
            let found = self.prefixes.get(key.get(..*length)?)?;
            (!Until::is_past(found.until, now_us)).then_some((*length, found))
        })
    }

    /// Those that are over, each with its pattern.
    pub fn ended(&self, now_us: u64) -> impl Iterator<Item = (Vec<u8>, &Override)> {
        let is_past = move |found: &Override| Until::is_past(found.until, now_us);
        let exact = self.exact.iter().filter(move |(_, found)| is_past(found));
        let prefixes = self.prefixes.iter().filter(move |(_, found)| is_past(found));
        let prefixes = prefixes.map(|(prefix, found)| ([prefix, b"*"].concat(), found));
        exact.map(|(key, found)| (key.to_vec(), found)).chain(prefixes)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.exact.len + self.prefixes.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, each with its pattern, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<u8>, &Override)> {
        let exact = self.exact.iter().map(|(key, found)| (key.to_vec(), found));
        exact.chain(self.prefixes.iter().map(|(prefix, found)| ([prefix, b"*"].concat(), found)))
    }
}

#[derive(Debug, Clone, Default)]
struct Table {
    /// None as long as it is empty; then [`PARTS`].
    parts: Box<[Arc<Part>]>,
    len: usize,
}

type Part = HashTable<(Box<[u8]>, Override)>;

impl Table {
    fn get(&self, key: &[u8]) -> Option<&Override> {
        if self.len == 0 {
            return None;
        }
        let hash = HASHER.hash_one(key);
        let found = self.parts.get(part_of(hash))?.find(hash, |(other, _)| **other == *key)?;
        Some(&found.1)
    }

    /// Whether there was one before.
    fn set(&mut self, key: &[u8], found: Option<Override>) -> bool {
        if self.parts.is_empty() {
            self.parts = (0..PARTS).map(|_| Arc::default()).collect();
        }
        let hash = HASHER.hash_one(key);
        let Some(part) = self.parts.get_mut(part_of(hash)) else { return false };
        let part = Arc::make_mut(part);
        let was_there = match part.find_entry(hash, |(other, _)| **other == *key) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        };
        self.len -= usize::from(was_there);
        if let Some(found) = found {
            part.insert_unique(hash, (key.into(), found), |(other, _)| HASHER.hash_one(&**other));
            self.len += 1;
        }
        was_there
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &Override)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(key, found)| (&**key, found))
    }
}

fn part_of(hash: u64) -> usize {
    // Other bits than those that a part's own table uses: the lowest and the top seven.
    (hash >> 32) as usize % PARTS
}
