//! The sliding-window log: an entry for each request, which counts until its window has passed.
//!
//! ```text
//!            t                         t + window
//! time ------[=========================)------->     an entry made at t counts for t <= now < t + window
//! ```
//!
//! What the other algorithms give too: what a request does to a state, names and lives of the states in Redis, and what
//! is told of a limit there (lua/log.lua reads and writes them), and the log as this process keeps it.

use super::{Counter, Limit, LimitState, Standing, Window};
use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::VecDeque;

/// The part of a window that a log in Redis outlives its newest entry by at least, and at most, as lua/log.lua has it.
const MIN_SPARE_PART: u64 = 8;
const MAX_SPARE_PART: u64 = 4;
/// What lua/items.lua knows a log by.
pub(super) const KIND: u8 = 0;
/// A log this small is never shrunk.
const KEEP_CAPACITY: usize = 16;

/// The state after a request was counted at the same moment.
pub(super) fn count(state: &mut LimitState, cost: u32, window: Window) {
    let oldest_in_us = if state.used == 0 { window.us() } else { state.next_in_us };
    state.next_in_us = oldest_in_us.min(window.us());
    state.used += u64::from(cost);
    // After a step back of the clock an older entry can outlive the one just made.
    state.empty_in_us = state.empty_in_us.max(window.us());
}

/// Appends the limit and its window as lua/log.lua reads them.
pub(super) fn pack(limit: &Limit, out: &mut Vec<u8>) {
    out.extend_from_slice(&limit.max.to_le_bytes());
    // No window is as long as 2^53 ms, so that a double holds it exactly.
    out.extend_from_slice(&(limit.window.ms() as f64).to_le_bytes());
}

/// Appends what the name of a log ends in.
pub(super) fn write_name(window: Window, out: &mut Vec<u8>) {
    out.extend_from_slice(window.ms().to_string().as_bytes());
}

/// The window of the log whose name ends so.
pub(super) fn of_name(name: &str) -> Option<Window> {
    let ms = name.parse().ok().and_then(Window::from_ms)?;
    // One counter has one name: none that begins with a sign or with zeros.
    name.starts_with(|first| matches!(first, '1'..='9')).then_some(ms)
}

/// How much longer than its newest entry counts a log lives at least that was just seen to.
pub(super) const fn spare_us(window: Window) -> u64 {
    window.ms() / MIN_SPARE_PART * 1000
}

/// The longest that a log lives after its newest entry was made.
pub(super) const fn max_life_us(window: Window) -> u64 {
    window.us() + window.us() / MAX_SPARE_PART
}

/// The log of one key and window, in this process, with what most checks need at hand.
pub struct Log {
    window: Window,
    /// Sum of the entries' weights.
    used: u64,
    /// Time of the oldest entry. Kept here because most checks need nothing else of it, and where it stands is memory
    /// that is seldom at hand: reading it there took a fifth of the time of a check.
    oldest_us: u64,
    /// By time, each time once. An entry counts while `now_us < time_us + window`.
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    time_us: u64,
    /// 1 to the highest limit under which it was admitted, which is a `u32`.
    weight: u32,
}

impl Log {
    /// A log of one entry.
    pub(super) fn new(window: Window, cost: u32, now_us: u64) -> Self {
        // Most logs never see a second entry before the first expires.
        let mut entries = VecDeque::with_capacity(1);
        entries.push_back(Entry { time_us: now_us, weight: cost });
        Self { window, used: u64::from(cost), oldest_us: now_us, entries }
    }

    /// Its window.
    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// Entries kept, expired ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the entry stops counting.
    fn expires_us(&self, entry: &Entry) -> u64 {
        entry.time_us.saturating_add(self.window.us())
    }

    /// Whether any entry still counts.
    pub(super) fn is_live(&self, now_us: u64) -> bool {
        self.entries.back().is_some_and(|newest| now_us < self.expires_us(newest))
    }

    /// How many of the oldest entries have expired, and their weight.
    fn expired(&self, now_us: u64) -> (usize, u64) {
        if now_us < self.oldest_us.saturating_add(self.window.us()) {
            return (0, 0);
        }
        if !self.is_live(now_us) {
            return (self.entries.len(), self.used);
        }
        let expired = self.entries.iter().take_while(|entry| self.expires_us(entry) <= now_us);
        expired.fold((0, 0), |(count, weight), entry| (count + 1, weight + u64::from(entry.weight)))
    }

    /// Drops what has expired, at a cost that was paid for when it was counted. Returns how many entries went.
    pub(super) fn prune(&mut self, now_us: u64) -> usize {
        let (count, weight) = self.expired(now_us);
        if count > 0 {
            self.used -= weight;
            self.entries.drain(..count);
            self.oldest_us = self.entries.front().map_or(0, |oldest| oldest.time_us);
            if self.entries.len() < self.entries.capacity() / 4 && self.entries.capacity() > KEEP_CAPACITY {
                self.entries.shrink_to(self.entries.len() * 2);
            }
        }
        count
    }

    /// The state that decides a check under this limit and cost.
    pub(super) fn state(&self, limit: u32, cost: u32, now_us: u64) -> LimitState {
        let (expired, weight) = self.expired(now_us);
        let used = self.used - weight;
        let empty_in_us = self.entries.back().map_or(0, |newest| self.expires_us(newest).saturating_sub(now_us));
        let surplus = (used + u64::from(cost)).saturating_sub(u64::from(limit));
        let fits_in_us = if surplus > 0 { self.frees_in_us(expired, surplus, now_us) } else { 0 };
        LimitState { used, fits_in_us, empty_in_us, ..LimitState::default() }
    }

    /// Until more is free under this limit than now; 0 if nothing counts. More is used than the limit where that was
    /// lowered.
    pub(super) fn next_in_us(&self, limit: u32, now_us: u64) -> u64 {
        let (expired, weight) = self.expired(now_us);
        let surplus = (self.used - weight + 1).saturating_sub(u64::from(limit)).max(1);
        if self.entries.len() > expired { self.frees_in_us(expired, surplus, now_us) } else { 0 }
    }

    /// How it stands; `None` if nothing counts.
    pub(super) fn standing(&self, counter: Counter, most: usize, now_us: u64) -> Option<Standing> {
        let (expired, weight) = self.expired(now_us);
        let (oldest, newest) = (self.entries.get(expired)?, self.entries.back()?);
        let entries = self.entries.len() - expired;
        let listed = self.entries.iter().rev().take(most.min(entries));
        Some(Standing {
            counter,
            now_us,
            used: self.used - weight,
            entries: entries as u64,
            oldest_us: oldest.time_us,
            newest_us: newest.time_us,
            newest: listed.map(|entry| (entry.time_us, entry.weight.into())).collect(),
        })
    }

    /// Until so many of the oldest entries have expired that `surplus` is free; until all have, when that is not
    /// enough. Walks those entries, so a costly request on a log of small entries pays for its cost.
    fn frees_in_us(&self, expired: usize, surplus: u64, now_us: u64) -> u64 {
        let mut freed = 0;
        let last = self.entries.iter().skip(expired).find(|entry| {
            freed += u64::from(entry.weight);
            freed >= surplus
        });
        last.or(self.entries.back()).map_or(0, |entry| self.expires_us(entry).saturating_sub(now_us))
    }

    /// Where the entry of this time is, or where it belongs.
    pub(super) fn find(&self, time_us: u64) -> Result<usize, usize> {
        let newest_us = self.entries.back().map(|newest| newest.time_us);
        match newest_us.cmp(&Some(time_us)) {
            Less => Err(self.entries.len()),
            Equal => Ok(self.entries.len() - 1),
            Greater => self.entries.binary_search_by_key(&time_us, |entry| entry.time_us),
        }
    }

    /// Adds what a check costs, to the entry of this time if there is one.
    pub(super) fn count(&mut self, cost: u32, now_us: u64) {
        self.used += u64::from(cost);
        match self.find(now_us) {
            Ok(at) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    // No weight exceeds the limit under which its last part was admitted.
                    entry.weight = entry.weight.saturating_add(cost);
                }
            }
            Err(at) => {
                self.entries.insert(at, Entry { time_us: now_us, weight: cost });
                if at == 0 {
                    self.oldest_us = now_us;
                }
            }
        }
    }
}
