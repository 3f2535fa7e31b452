//! Keeps what clients can cause as often as they like from filling the log: one line a minute, with how often it was.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const INTERVAL_US: u64 = 60_000_000;

/// One kind of line.
#[derive(Debug, Default)]
pub struct LogLimit {
    next_us: AtomicU64,
    count: AtomicU64,
}

impl LogLimit {
    /// It has happened. If a line is due: how often it has happened since the last one, at least 1.
    pub fn due(&self, now_us: u64) -> Option<u64> {
        self.count.fetch_add(1, Relaxed);
        let is_due = |next_us| (now_us >= next_us).then_some(now_us.saturating_add(INTERVAL_US));
        self.next_us.fetch_update(Relaxed, Relaxed, is_due).ok().map(|_| self.count.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_counts_those_that_were_left_out() {
        let limit = LogLimit::default();
        assert_eq!(limit.due(5), Some(1));
        assert_eq!(limit.due(6), None);
        assert_eq!(limit.due(5 + INTERVAL_US - 1), None);
        assert_eq!(limit.due(5 + INTERVAL_US), Some(3));
        assert_eq!(limit.due(5 + INTERVAL_US), None);
    }
}
