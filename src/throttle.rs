//! GCRA as redis-cell's `CL.THROTTLE` computes it, integer by integer: its roundings, its wrapping sums and its other
//! oddities are what its clients have come to know, and what a state that is taken over was made by.
//!
//! The state of a key is one time, the TAT: when all that was admitted will have drained, at one unit an interval.
//!
//! ```text
//!            now                 TAT          now + tolerance
//! time -------|-------------------|------------------|------->    tolerance = interval * (max_burst + 1)
//!             '------ ahead ------'---- free --------'            a request of n moves TAT by interval * n, if it fits
//! ```
//!
//! Times are nanoseconds, and a TAT is told by how far it is ahead of now: negative if it is past. Nothing here reads a
//! clock or knows a store.

/// What is asked: the numbers behind the key, as far as they matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// `max_burst + 1`: what can pass at once.
    pub limit: i64,
    /// In what time one unit drains. Never 0; negative if one of `count` and `period` is.
    pub interval_ns: i64,
    /// How far TAT may be ahead.
    pub tolerance_ns: i64,
    /// By how much the request moves it. Negative: a refund.
    pub increment_ns: i64,
    /// Whether a denial is only told of, and lets pass.
    pub is_shadow: bool,
}

/// What is answered: five integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request is denied, and so not counted.
    pub is_limited: bool,
    /// Whether it may go ahead all the same.
    pub is_shadow: bool,
    /// `max_burst + 1`.
    pub limit: i64,
    /// What could still pass at once.
    pub remaining: i64,
    /// Until the request could pass, in seconds; -1 if it is allowed, or never could.
    pub retry_after_s: i64,
    /// Until TAT, in seconds.
    pub reset_after_s: i64,
}

/// How long the state lives that an admission leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// So many milliseconds: through the millisecond in which that is over.
    Ms(u64),
    /// For good: a refund has moved TAT to a millisecond before now.
    Endless,
    /// The same of one that has moved it further back, which is answered by an error all the same.
    Refused,
}

impl Question {
    /// What these numbers ask; any that there are. `None` if nothing would ever drain, or all at once: redis-cell's "zero
    /// rates".
    pub fn new(max_burst: i64, count: i64, period_s: i64, quantity: i64) -> Option<Self> {
        let interval_ns = interval_ns(count, period_s).filter(|interval_ns| *interval_ns != 0)?;
        let limit = max_burst.wrapping_add(1);
        Some(Self {
            limit,
            interval_ns,
            tolerance_ns: interval_ns.wrapping_mul(limit),
            increment_ns: interval_ns.wrapping_mul(quantity),
            is_shadow: false,
        })
    }

    /// Whether it was made of these numbers without a sum that wrapped.
    pub fn is_in_range(&self, max_burst: i64, quantity: i64) -> bool {
        let limit = max_burst.checked_add(1);
        let tolerance_ns = limit.and_then(|limit| self.interval_ns.checked_mul(limit));
        tolerance_ns.is_some() && self.interval_ns.checked_mul(quantity).is_some() && self.interval_ns < i64::MAX
    }

    /// What the request weighs.
    pub fn quantity(&self) -> i64 {
        self.increment_ns.checked_div(self.interval_ns).unwrap_or(i64::MAX)
    }

    /// How far ahead TAT is after the request, if that is allowed, where it was `ahead_ns` ahead before.
    pub fn admit(&self, ahead_ns: i128) -> Option<i128> {
        let moved_ns = ahead_ns.max(0) + i128::from(self.increment_ns);
        (moved_ns <= self.tolerance_ns.into()).then_some(moved_ns)
    }

    /// The answer, where TAT was `ahead_ns` ahead before; and how far ahead it is afterwards.
    pub fn decide(&self, ahead_ns: i128) -> (Decision, i128) {
        let admitted = self.admit(ahead_ns);
        let after_ns = admitted.unwrap_or(ahead_ns);
        let retry_after_s = match admitted {
            None if self.increment_ns <= self.tolerance_ns => {
                let moved_ns = ahead_ns.max(0) + i128::from(self.increment_ns);
                whole_seconds(moved_ns - i128::from(self.tolerance_ns))
            }
            _ => -1,
        };
        let decision = Decision {
            is_limited: admitted.is_none(),
            is_shadow: admitted.is_none() && self.is_shadow,
            limit: self.limit,
            remaining: self.remaining(after_ns),
            retry_after_s,
            reset_after_s: whole_seconds(after_ns),
        };
        (decision, after_ns)
    }

    /// The answer where nothing is limited.
    pub fn open(&self) -> Decision {
        let Self { limit, .. } = *self;
        Decision { is_limited: false, is_shadow: false, limit, remaining: limit, retry_after_s: -1, reset_after_s: 0 }
    }

    /// The answer where nothing passes, for so many seconds, or -1.
    pub fn blocked(&self, retry_after_s: i64) -> Decision {
        Decision { is_limited: true, remaining: 0, retry_after_s, ..self.open() }
    }

    /// By microseconds, as which an interval below one is none, and a part of one is lost; a quotient that is no i64
    /// becomes the nearest that is.
    fn remaining(&self, ahead_ns: i128) -> i64 {
        let free_ns = i128::from(self.tolerance_ns) - ahead_ns;
        if free_ns <= -i128::from(self.interval_ns) {
            return 0;
        }
        ((free_ns / 1000) as f64 / (self.interval_ns / 1000) as f64) as i64
    }
}

impl Life {
    /// That of a state which is so far ahead.
    pub fn of(ahead_ns: i128) -> Self {
        match ahead_ns / 1_000_000 {
            -1 => Self::Endless,
            ..-1 => Self::Refused,
            ms => u64::try_from(ms).map_or(Self::Endless, Self::Ms),
        }
    }
}

/// In floating point, truncated; what is beyond an i64 becomes the nearest one. `None` if there is no rate.
fn interval_ns(count: i64, period_s: i64) -> Option<i64> {
    let period_ns = i128::from(period_s) * 1_000_000_000;
    (count != 0).then_some((period_ns as f64 / count as f64) as i64)
}

/// Rounded up, but that less than a millisecond is nothing. In floating point, which rounds up what is almost a second
/// more where the seconds are many.
fn whole_seconds(ns: i128) -> i64 {
    const SECOND_NS: i128 = 1_000_000_000;
    let rest_ns = ns % SECOND_NS;
    let seconds = ((ns / SECOND_NS) as f64 + rest_ns as f64 / SECOND_NS as f64) as i64;
    seconds.saturating_add((rest_ns / 1_000_000 > 0).into())
}
