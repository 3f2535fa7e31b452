//! How what is counted for a key stands, for whoever looks at it.

use super::{Counter, us_to_ms_ceil};

/// Most entries that are listed over all of a key's counters.
pub const MAX_LISTED_ENTRIES: usize = 1000;

/// How one of a key's counters stood at one moment. Times are microseconds, unix times once it leaves the store. What is
/// counted by no log has no entries: its times are both one window before it is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub counter: Counter,
    /// When that was.
    pub now_us: u64,
    /// What counts; of GCRA, whose state knows no limit, for how many milliseconds it does.
    pub used: u64,
    /// In how many entries.
    pub entries: u64,
    /// When the oldest of them was made.
    pub oldest_us: u64,
    /// When the newest was.
    pub newest_us: u64,
    /// The newest of them: when each was made, and its weight; the newest first.
    pub newest: Vec<(u64, u64)>,
}

impl Standing {
    /// Of a counter that keeps no entries.
    pub(super) fn of_counter(counter: Counter, used: u64, empty_at_us: u64, now_us: u64) -> Self {
        let made_us = empty_at_us.saturating_sub(counter.rule.window().us());
        Self { counter, now_us, used, entries: 0, oldest_us: made_us, newest_us: made_us, newest: Vec::new() }
    }

    /// The same by a clock by which it was `now_us` then.
    pub fn at(self, now_us: u64) -> Self {
        let moved = |time_us: u64| now_us.saturating_add(time_us).saturating_sub(self.now_us);
        Self {
            now_us,
            oldest_us: moved(self.oldest_us),
            newest_us: moved(self.newest_us),
            newest: self.newest.iter().map(|(made_us, weight)| (moved(*made_us), *weight)).collect(),
            ..self
        }
    }

    /// Until the oldest entry counts no more, in milliseconds, rounded up.
    pub fn next_ms(&self) -> u64 {
        self.left_ms(self.oldest_us)
    }

    /// Until none does, if no more come.
    pub fn free_ms(&self) -> u64 {
        self.left_ms(self.newest_us)
    }

    /// What was made before a clock stepped back counts for no longer than a window from when it would count for more than
    /// two.
    fn left_ms(&self, made_us: u64) -> u64 {
        let window_us = self.counter.rule.window().us();
        let made_us = made_us.min(self.now_us.saturating_add(self.counter.rule.counts_us()));
        us_to_ms_ceil(made_us.saturating_add(window_us).saturating_sub(self.now_us))
    }
}
