//! The limiter's vocabulary: what is asked (a [`Check`] of some [`Quota`]s), what a log or bucket says
//! ([`WindowState`]), and what is answered (a [`Decision`]).
//!
//! The rule that turns states into a decision stands here once, so that Redis, the embedded log and the fallback
//! cannot disagree about which window binds. This module knows no protocol, no clock and no store.

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Highest limit of a window.
pub const MAX_LIMIT: u32 = 1_000_000_000;
/// Highest cost of one request.
pub const MAX_COST: u32 = 1_000_000;
/// Most windows that one request may name.
pub const MAX_WINDOWS: usize = 8;
/// Longest window: 366 days, in milliseconds.
pub const MAX_WINDOW_MS: u64 = 366 * 24 * 60 * 60 * 1000;

/// A window's length: 1 ms to 366 d.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    ms: u64,
}

impl Window {
    /// The shortest window.
    pub const MIN: Self = Self { ms: 1 };

    /// A window of `ms` milliseconds, or `None` outside 1 to [`MAX_WINDOW_MS`].
    pub const fn from_ms(ms: u64) -> Option<Self> {
        match ms {
            1..=MAX_WINDOW_MS => Some(Self { ms }),
            _ => None,
        }
    }

    /// Its length in milliseconds.
    pub const fn ms(self) -> u64 {
        self.ms
    }

    /// Its length in microseconds. At most 3.2e13, far from overflow.
    pub const fn us(self) -> u64 {
        self.ms * 1000
    }
}

/// At most `limit` (1 to [`MAX_LIMIT`]) may pass in any interval of the window's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Highest total cost within one window.
    pub limit: u32,
    /// The window.
    pub window: Window,
}

/// One question: may a request of this cost pass for this key, under all these quotas at once?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check<'a> {
    /// 1 to [`MAX_KEY_BYTES`] bytes, any bytes.
    pub key: &'a [u8],
    /// 1 to [`MAX_WINDOWS`] quotas, no window twice.
    pub quotas: &'a [Quota],
    /// 1 to [`MAX_COST`].
    pub cost: u32,
}

impl Check<'_> {
    /// The refusal of a cost that no empty window could hold, if this is one. Nothing is asked to find it out, so
    /// nothing is known of what the window holds: remaining and reset are 0.
    pub fn never_fits(&self) -> Option<Decision> {
        let quota = self.quotas.iter().find(|quota| self.cost > quota.limit)?;
        Some(Decision { limit: quota.limit, ..Decision::NOTHING_ASKED })
    }
}

/// What a log knows of one window at one moment, before the request at hand is counted. Times are relative to
/// that moment, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowState {
    /// Cost counted in the window. May exceed the limit, when the limit was lowered.
    pub used: u64,
    /// Until so much has expired that the request at hand fits. Only read when it does not fit now.
    pub fits_in_us: u64,
    /// Until the newest entry expires. 0 when the window is empty.
    pub empty_in_us: u64,
}

impl WindowState {
    /// The state after `cost` was counted at this same moment.
    pub fn count(&mut self, cost: u32, window: Window) {
        self.used += u64::from(cost);
        // After a step back of the clock an older entry can outlive the one just made.
        self.empty_in_us = self.empty_in_us.max(window.us());
    }
}

/// When the same request is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryAfter {
    /// It was allowed.
    Now,
    /// After so many milliseconds, rounded up; at least 1.
    Ms(u64),
    /// Its cost is above the limit.
    Never,
}

/// The answer to a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go ahead.
    pub allowed: bool,
    /// Limit of the binding window: the one that denies for longest or, when allowed, has least remaining. The
    /// first named wins a tie.
    pub limit: u32,
    /// Cost still available in that window after this request.
    pub remaining: u32,
    /// When to try again.
    pub retry_after: RetryAfter,
    /// Until that window is empty, in milliseconds, rounded up.
    pub reset_after_ms: u64,
    /// Whether this is the fallback's answer in place of Redis's.
    pub degraded: bool,
}

impl Decision {
    const NOTHING_ASKED: Self = Self {
        allowed: false,
        limit: 0,
        remaining: 0,
        retry_after: RetryAfter::Never,
        reset_after_ms: 0,
        degraded: false,
    };
}

/// Whether a request of `cost` fits into every window as it stands.
pub fn fits(quotas: &[Quota], states: &[WindowState], cost: u32) -> bool {
    quotas.iter().zip(states).all(|(quota, state)| state.used + u64::from(cost) <= u64::from(quota.limit))
}

/// Decides a request of `cost` by the states of its windows, which stand in the quotas' order. Counts nothing: a
/// store that admits the request counts it itself.
pub fn decide(quotas: &[Quota], states: &[WindowState], cost: u32) -> Decision {
    decide_and_name(quotas, states, cost).0
}

/// As [`decide`], and which window binds, by its place.
pub fn decide_and_name(quotas: &[Quota], states: &[WindowState], cost: u32) -> (Decision, usize) {
    debug_assert_eq!(quotas.len(), states.len());
    let mut windows = quotas.iter().zip(states).map(|(quota, state)| decide_window(*quota, *state, cost)).enumerate();
    // No check is without a window; one that were could only be denied.
    let Some((mut place, mut binding)) = windows.next() else { return (Decision::NOTHING_ASKED, 0) };
    for (index, answer) in windows {
        if binds_more(&answer, &binding) {
            (place, binding) = (index, answer);
        }
    }
    (binding, place)
}

fn decide_window(quota: Quota, mut state: WindowState, cost: u32) -> Decision {
    let fits = fits(&[quota], &[state], cost);
    let retry_after = if fits {
        state.count(cost, quota.window);
        RetryAfter::Now
    } else if cost > quota.limit {
        RetryAfter::Never
    } else {
        RetryAfter::Ms(us_to_ms_ceil(state.fits_in_us).max(1))
    };
    let remaining = u64::from(quota.limit).saturating_sub(state.used);
    Decision {
        allowed: fits,
        limit: quota.limit,
        // `remaining` is at most the limit, which is a u32.
        remaining: u32::try_from(remaining).unwrap_or(quota.limit),
        retry_after,
        reset_after_ms: us_to_ms_ceil(state.empty_in_us),
        degraded: false,
    }
}

fn binds_more(answer: &Decision, so_far: &Decision) -> bool {
    match (answer.allowed, so_far.allowed) {
        (true, true) => answer.remaining < so_far.remaining,
        (false, false) => answer.retry_after > so_far.retry_after,
        (denied_now, _) => !denied_now,
    }
}

/// Microseconds as milliseconds, rounded up: a client that waits so long never comes back too early.
pub fn us_to_ms_ceil(us: u64) -> u64 {
    us.div_ceil(1000)
}
