//! A look at all that is counted for a key, on its way: which of its logs are to be looked at next, and what was found.

use super::connection::Error;
use crate::limit::{Counter, MAX_LISTED_ENTRIES, Standing};

/// Most logs that one run of the script looks at: it bounds the time that it holds Redis up.
const MAX_LOGS: usize = 64;

/// A look at one key.
#[derive(Debug)]
pub struct Inspect {
    key: Vec<u8>,
    /// Most entries of a log that are listed.
    most_entries: usize,
    /// What is in use, once Redis has said which, in order.
    counters: Option<Vec<Counter>>,
    next_counter: usize,
    found: Vec<Standing>,
}

/// What one run of the script is to look at.
#[derive(Debug)]
pub struct Glance<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Of it the logs of these.
    pub counters: &'a [Counter],
    /// Most entries of a log that are listed.
    pub most_entries: usize,
    /// Most of all logs together.
    pub entries_left: usize,
}

impl Inspect {
    /// A look at this key, with so many entries of each log.
    pub fn new(key: Vec<u8>, most_entries: usize) -> Self {
        Self { key, most_entries, counters: None, next_counter: 0, found: Vec::new() }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Redis has said which counters are in use.
    pub fn set_counters(&mut self, mut counters: Vec<Counter>) {
        counters.sort_unstable();
        self.counters = Some(counters);
    }

    /// What is to be looked at next. `None` as long as it is not known which windows are in use.
    pub fn glance(&self) -> Option<Glance<'_>> {
        let counters = self.counters.as_deref()?.get(self.next_counter..).unwrap_or_default();
        let listed = self.found.iter().map(|standing| standing.newest.len()).sum::<usize>();
        Some(Glance {
            key: &self.key,
            counters: counters.get(..MAX_LOGS).unwrap_or(counters),
            most_entries: self.most_entries,
            entries_left: MAX_LISTED_ENTRIES.saturating_sub(listed),
        })
    }

    /// The script has looked, and said this.
    ///
    /// # Errors
    /// It is the reply to something else.
    pub fn glanced(&mut self, reply: &[i64]) -> Result<(), Error> {
        let Some(Glance { counters, .. }) = self.glance() else { return Err(Error::Unexpected) };
        let (count, found) = (counters.len(), read(counters, reply).ok_or(Error::Unexpected)?);
        self.next_counter += count;
        self.found.extend(found);
        Ok(())
    }

    /// Whether the next piece is the last.
    pub fn ends_with_next_glance(&self) -> bool {
        self.counters.as_ref().is_some_and(|counters| counters.len() - self.next_counter <= MAX_LOGS)
    }

    /// Whether entries are to be told of.
    pub fn lists_entries(&self) -> bool {
        self.most_entries > 0
    }

    /// Whether there is nothing more to look at.
    pub fn is_done(&self) -> bool {
        self.counters.as_ref().is_some_and(|counters| self.next_counter >= counters.len())
    }

    /// What was found, in the counters' order: what is no policy's first, and the shortest window of each first.
    pub fn take_found(&mut self) -> Vec<Standing> {
        std::mem::take(&mut self.found)
    }
}

/// What lua/inspect.lua replies on the logs of these counters.
fn read(counters: &[Counter], reply: &[i64]) -> Option<Vec<Standing>> {
    let mut numbers = reply.iter().map(|number| number.unsigned_abs());
    let now_us = numbers.next()?;
    let mut found = Vec::new();
    while let Some(place) = numbers.next() {
        let counter = *counters.get(usize::try_from(place).ok()?)?;
        let [used, entries, oldest_us, newest_us] =
            [numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?];
        let listed = usize::try_from(numbers.next()?).ok().filter(|listed| *listed <= MAX_LISTED_ENTRIES)?;
        let newest = (0..listed).map(|_| Some((numbers.next()?, numbers.next()?))).collect::<Option<_>>()?;
        found.push(Standing { counter, now_us, used, entries, oldest_us, newest_us, newest });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(count: u64) -> Vec<Counter> {
        (1..=count).rev().map(|number| Counter::of_name(&number.to_string()).unwrap()).collect()
    }

    #[test]
    fn a_key_of_many_windows_is_looked_at_in_pieces_and_so_many_entries_are_listed() {
        let mut inspect = Inspect::new(b"k".to_vec(), 900);
        assert!(inspect.glance().is_none() && !inspect.is_done());
        inspect.set_counters(counters(150));
        let mut sizes = Vec::new();
        while !inspect.is_done() {
            let Glance { counters, entries_left, .. } = inspect.glance().unwrap();
            sizes.push((counters.len(), entries_left));
            let listed = entries_left.min(900) as i64;
            let entries = (0..listed).flat_map(|_| [5, 1]);
            let reply: Vec<i64> = [9, 0, listed, listed, 5, 5, listed].into_iter().chain(entries).collect();
            inspect.glanced(&reply).unwrap();
        }
        assert_eq!(sizes, [(64, 1000), (64, 100), (22, 0)]);
        let found: Vec<_> =
            inspect.take_found().iter().map(|found| (found.counter.rule.window().ms(), found.used)).collect();
        assert_eq!(found, [(1, 900), (65, 100), (129, 0)]);
    }

    #[test]
    fn what_is_no_answer_of_the_script_s_is_refused() {
        let mut inspect = Inspect::new(b"k".to_vec(), 1);
        assert!(inspect.glanced(&[1]).is_err(), "nothing was asked");
        inspect.set_counters(counters(2));
        for reply in
            [&[][..], &[9, 2, 1, 1, 5, 5, 0], &[9, 0, 1], &[9, 0, 1, 1, 5, 5, 1], &[9, 0, 1, 1, 5, 5, i64::MAX]]
        {
            assert!(inspect.glanced(reply).is_err(), "{reply:?}");
        }
        inspect.glanced(&[9]).unwrap();
        assert!(inspect.is_done());
    }
}
