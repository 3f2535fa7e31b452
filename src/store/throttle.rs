//! Throttles that go to Redis together, in the order they came, and what lua/throttle.lua says of them.
//!
//! Requests that ask the same of one key, one behind another, are one item: its script decides them in one step.

use super::connection::{Error, Reply};
use crate::throttle::Question;
use std::ops::Range;

const SECOND_NS: i128 = 1_000_000_000;

/// Requests that ask the same of one key.
#[derive(Debug, Clone)]
struct Item {
    name: Range<usize>,
    question: Question,
    count: u32,
}

/// A batch under construction or in flight.
#[derive(Debug, Default)]
pub struct ThrottleBatch {
    names: Vec<u8>,
    items: Vec<Item>,
}

/// What the script said of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleReport {
    /// How far TAT was ahead before it, in nanoseconds.
    Ahead(i128),
    /// The key holds something that is no TAT.
    WrongType,
    /// The node does not serve the key.
    Elsewhere,
    /// Tollgate's user may not touch the key.
    Forbidden,
}

impl ThrottleBatch {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.names.clear();
        self.items.clear();
    }

    /// Adds a request and says to which item.
    pub fn add(&mut self, name: &[u8], question: Question) -> usize {
        let last = self.items.len().checked_sub(1);
        if let Some(item) = self.items.last_mut()
            && item.question == question
            // Of requests that move TAT back the last is not answered as the first.
            && question.increment_ns > 0
            && self.names.get(item.name.clone()) == Some(name)
        {
            item.count += 1;
            return last.unwrap_or(0);
        }
        let start = self.names.len();
        self.names.extend_from_slice(name);
        self.items.push(Item { name: start..self.names.len(), question, count: 1 });
        self.items.len() - 1
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The name of an item's key in Redis, and what is asked of it.
    pub fn get(&self, item: usize) -> Option<(&[u8], Question)> {
        let item = self.items.get(item)?;
        Some((self.names.get(item.name.clone())?, item.question))
    }

    /// A batch of this item alone.
    pub fn of_one(&self, item: usize) -> Self {
        let mut batch = Self::default();
        if let Some((name, question)) = self.get(item) {
            batch.add(name, question);
        }
        batch.items.iter_mut().zip(self.items.get(item)).for_each(|(one, item)| one.count = item.count);
        batch
    }

    /// The names of all items' keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().map(|item| self.names.get(item.name.clone()).unwrap_or_default())
    }

    /// What is asked, as the script reads it: each time with the number of items, one behind another, that ask it.
    pub(super) fn questions(&self) -> impl Iterator<Item = (usize, [u8; 36])> {
        let alike = self.items.chunk_by(|one, other| one.question == other.question && one.count == other.count);
        alike.filter_map(|alike| Some((alike.len(), pack(alike.first()?))))
    }

    /// Reads the reply to it: what is said of each item.
    ///
    /// # Errors
    /// It is the reply to something else.
    pub fn read(&self, reply: Reply) -> Result<Vec<ThrottleReport>, Error> {
        let Reply::Integers(numbers) = reply else { return Err(Error::Unexpected) };
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() != self.items.len() {
            return Err(Error::Unexpected);
        }
        pairs.iter().map(read_pair).collect()
    }
}

fn read_pair(pair: &[i64; 2]) -> Result<ThrottleReport, Error> {
    match *pair {
        [-1, -1] => Ok(ThrottleReport::WrongType),
        [-2, -1] => Ok(ThrottleReport::Elsewhere),
        [-3, -1] => Ok(ThrottleReport::Forbidden),
        [s, ns @ 0..1_000_000_000] => Ok(ThrottleReport::Ahead(i128::from(s) * SECOND_NS + i128::from(ns))),
        _ => Err(Error::Unexpected),
    }
}

fn pack(item: &Item) -> [u8; 36] {
    let mut packed = [0; 36];
    let parts = [item.question.increment_ns, item.question.tolerance_ns].map(|ns| {
        let ns = i128::from(ns);
        // Neither comes near what a double does not hold exactly.
        [ns.div_euclid(SECOND_NS) as f64, ns.rem_euclid(SECOND_NS) as f64]
    });
    let bytes = item.count.to_le_bytes().into_iter().chain(parts.into_iter().flatten().flat_map(f64::to_le_bytes));
    packed.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    packed
}
