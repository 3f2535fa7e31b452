//! Fixed windows: what is counted counts until the period ends that it was counted in.
//!
//! ```text
//!          period        next period
//! time [==================)[==================)---->     at most the limit between two edges
//! ```
//!
//! If the clock steps back, the later period goes on to be the one that counts, so that nothing is free early; unless it
//! begins further ahead than its length, when what it has counted counts for the current one. lua/counters.lua does the
//! same.

use super::calendar::{Period, Span};
use super::{Counter, Limit, LimitState, Standing};

/// The part of a period that a state in Redis outlives it at most, and the second that its life is rounded up to, as
/// lua/counters.lua has it.
const MAX_SPARE_PART: u64 = 4;
const ROUNDING_US: u64 = 1_000_000;

/// The longest that a state lives after its last request.
pub(super) const fn max_life_us(period: Period) -> u64 {
    // A later period may be the one that counts.
    2 * period.longest().us() + period.longest().us() / MAX_SPARE_PART + ROUNDING_US
}

/// The state of a period that ends so soon.
pub(super) fn state(used: u64, ends_in_us: u64) -> LimitState {
    let empty_in_us = if used > 0 { ends_in_us } else { 0 };
    LimitState { used, fits_in_us: ends_in_us, empty_in_us, ..LimitState::default() }
}

/// The state of the current period.
pub(super) fn state_at(period: Period, used: u64, unix_us: u64) -> LimitState {
    state(used, left_us(period.around(unix_us), unix_us))
}

/// The state after a request was counted at the same moment.
pub(super) fn count(state: &mut LimitState, cost: u32) {
    state.used += u64::from(cost);
    state.empty_in_us = state.fits_in_us;
}

fn left_us(span: Span, unix_us: u64) -> u64 {
    u64::try_from(span.end_us).unwrap_or(0).saturating_sub(unix_us)
}

/// Appends what lua/items.lua is told of the limit.
pub(super) fn pack(limit: &Limit, period: Period, out: &mut Vec<u8>) {
    period.pack(out);
    out.extend_from_slice(&limit.max.to_le_bytes());
}

/// Appends what the name of a state ends in.
pub(super) fn write_name(period: Period, out: &mut Vec<u8>) {
    out.push(b'f');
    period.write_name(out);
}

/// The periods of the state whose name ends so.
pub(super) fn of_name(name: &str) -> Option<Period> {
    name.strip_prefix('f').and_then(Period::of_name)
}

/// A state in this process. Its clock is the calendar's.
pub struct Fixed {
    period: Period,
    /// The period that it counts for.
    span: Span,
    used: u64,
}

impl Fixed {
    /// An empty state.
    pub(super) fn new(period: Period, unix_us: u64) -> Self {
        Self { period, span: period.around(unix_us), used: 0 }
    }

    /// Its periods.
    pub(super) fn period(&self) -> Period {
        self.period
    }

    /// What is counted for which period now.
    fn current(&self, unix_us: u64) -> (Span, u64) {
        let now = self.period.around(unix_us);
        let ahead_us = self.span.start_us.saturating_sub(i64::try_from(unix_us).unwrap_or(i64::MAX));
        if self.span.start_us < now.start_us {
            (now, 0)
        } else if ahead_us > now.end_us - now.start_us {
            (now, self.used)
        } else {
            (self.span, self.used)
        }
    }

    pub(super) fn state(&self, unix_us: u64) -> LimitState {
        let (span, used) = self.current(unix_us);
        state(used, left_us(span, unix_us))
    }

    /// Counts a request.
    pub(super) fn count(&mut self, cost: u32, unix_us: u64) {
        (self.span, self.used) = self.current(unix_us);
        self.used += u64::from(cost);
    }

    /// Has what is counted for a period too far ahead count for the current one.
    pub(super) fn keep_up(&mut self, unix_us: u64) {
        if self.span.start_us > self.period.around(unix_us).start_us {
            (self.span, self.used) = self.current(unix_us);
        }
    }

    /// Whether its period has ended for longer than a clock is taken to step back.
    pub(super) fn is_over(&self, unix_us: u64) -> bool {
        let spare_us = self.period.longest().us() / 8;
        u64::try_from(self.span.end_us).unwrap_or(0).saturating_add(spare_us) <= unix_us
    }

    /// Whether anything still counts.
    pub(super) fn is_live(&self, unix_us: u64) -> bool {
        self.current(unix_us).1 > 0
    }

    /// How it stands; `None` if nothing counts.
    pub(super) fn standing(&self, counter: Counter, unix_us: u64) -> Option<Standing> {
        let (span, used) = self.current(unix_us);
        let ends_us = u64::try_from(span.end_us).ok()?;
        (used > 0).then(|| Standing::of_counter(counter, used, ends_us, unix_us))
    }
}
