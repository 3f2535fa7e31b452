//! Lines of log about who is denied, for whoever asks for them: so many a second at most, by all workers together, and how
//! many were left out. Threads share nothing here unless they are asked for.

use crate::limit::{Ask, Verdict};
use crate::shown::Shown;
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use tracing::info;

/// Most lines a second.
static PER_S: AtomicU32 = AtomicU32::new(0);
static LINES: Lines = Lines { written: AtomicU64::new(0), left_out: AtomicU64::new(0) };

/// From now on so many lines a second are written at most.
pub(super) fn allow(per_s: u32) {
    PER_S.store(per_s, Relaxed);
}

/// A check was denied, by `source`. Written if there is a line left in this second.
#[inline]
pub fn note(ask: &Ask<'_>, verdict: &Verdict, source: &'static str, now_us: u64) {
    let per_s = PER_S.load(Relaxed);
    if per_s > 0
        && let Some(left_out) = LINES.take(per_s, now_us)
    {
        write_line(ask, verdict, source, left_out);
    }
}

fn write_line(ask: &Ask<'_>, verdict: &Verdict, source: &'static str, left_out: u64) {
    let mut limits = String::new();
    for limit in ask.limits {
        // Writing to a String cannot fail.
        let _ = write!(limits, "{}{} {}ms", if limits.is_empty() { "" } else { " " }, limit.max, limit.window.ms());
    }
    let window_ms = ask.limits.get(usize::from(verdict.binding)).map(|limit| limit.window.ms());
    let (key, cost, limit) = (Shown(ask.key), ask.cost, verdict.limit);
    info!(%key, limit, window_ms, limits, cost, source, left_out, "denied");
}

/// How many lines there are.
struct Lines {
    /// The second, and in the lower half how many were written in it.
    written: AtomicU64,
    /// Denials since the last line that had none.
    left_out: AtomicU64,
}

impl Lines {
    /// Takes a line of this second. If there is one: how many denials had none since the last.
    fn take(&self, per_s: u32, now_us: u64) -> Option<u64> {
        let second = (now_us / 1_000_000) << 32;
        // A thread that read its clock earlier than another takes a line of the other's second.
        let next = |written: u64| {
            let written = written.max(second);
            // Its lower half.
            ((written as u32) < per_s).then_some(written + 1)
        };
        if self.written.fetch_update(Relaxed, Relaxed, next).is_err() {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_are_written_and_the_next_tells_of_the_others() {
        const SECOND_US: u64 = 1_000_000;
        let lines = Lines { written: AtomicU64::new(0), left_out: AtomicU64::new(0) };
        let start_us = 3600 * SECOND_US;
        let takes = |now_us, count| (0..count).map(|_| lines.take(2, now_us)).collect::<Vec<_>>();
        assert_eq!(takes(start_us, 4), [Some(0), Some(0), None, None]);
        assert_eq!(takes(start_us + SECOND_US - 1, 1), [None]);
        assert_eq!(takes(start_us + SECOND_US, 3), [Some(3), Some(0), None]);
        // A thread that read its clock a moment earlier.
        assert_eq!(takes(start_us + SECOND_US - 1, 1), [None]);
        assert_eq!(takes(start_us + 9 * SECOND_US, 1), [Some(2)]);
    }
}
