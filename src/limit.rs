//! The limiter's vocabulary: what is asked (an [`Ask`] under some [`Limit`]s), what a store says of each limit (a
//! [`LimitState`]), and what is answered (a [`Verdict`], or in full a [`Breakdown`]).
//!
//! How a limit is counted is its [`Algorithm`]'s business, each of which has a module of its own below. Everybody else
//! asks the [`Limit`], or its [`Counter`], which passes the question on: what a request does to a state, how the state
//! is called in Redis, how long it lives there, what is packed into a question, and the [`Tally`] that this process
//! keeps without Redis. The rule that makes a verdict of states stands here once, for all algorithms, so that Redis, the
//! embedded store and the fallback cannot disagree about which limit binds. Nothing here knows a protocol, a clock or a
//! store.

mod breakdown;
mod calendar;
mod counter;
pub mod fixed;
pub mod gcra;
pub mod log;
pub mod policy_name;
mod prefetch;
mod standing;
mod tally;
mod terms;

pub use self::breakdown::{Breakdown, Form, LimitFigures, Reason, decide_in_full};
pub use self::calendar::Period;
pub use self::counter::{Counter, Rule};
pub use self::policy_name::PolicyName;
pub use self::prefetch::{MAX_PREFETCH_MS, MAX_PREFETCH_UNITS, MIN_PREFETCH_MS, Prefetch};
pub use self::standing::{MAX_LISTED_ENTRIES, Standing};
pub use self::tally::{Moment, Tally};
pub use self::terms::{FallbackMode, Terms};
use std::fmt;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Highest limit of a window.
pub const MAX_LIMIT: u32 = 1_000_000_000;
/// Highest cost of one request.
pub const MAX_COST: u32 = 1_000_000;
/// Most limits that one request may name.
pub const MAX_LIMITS_PER_ASK: usize = 8;
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
    /// The longest.
    pub const MAX: Self = Self { ms: MAX_WINDOW_MS };

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

/// As it is written: in the largest unit of which it is a whole number.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS_MS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let (unit_ms, unit) = UNITS_MS.into_iter().find(|(ms, _)| self.ms.is_multiple_of(*ms)).unwrap_or((1, "ms"));
        write!(f, "{}{unit}", self.ms / unit_ms)
    }
}

/// By what rule a limit is counted, with the parameters that only this rule has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The sliding-window log ([`log`]): at most the limit in any interval of the window's length.
    Log,
    /// [`gcra`]: in any time t at most `burst` (1 to [`MAX_LIMIT`]) and what the limit allows in t.
    Gcra {
        /// The capacity.
        burst: u32,
    },
    /// Fixed windows ([`fixed`]): at most the limit in each of these periods.
    Fixed(Period),
}

/// What requests may cost: at most `max` (1 to [`MAX_LIMIT`]) in each `window`, by an algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// On whose behalf it holds.
    pub terms: Terms,
    /// Highest total cost.
    pub max: u32,
    /// In which time. Of a period of the calendar, the longest that one lasts.
    pub window: Window,
    /// What that means, to the microsecond.
    pub algorithm: Algorithm,
}

impl Limit {
    /// A limit of no policy that is counted by the sliding-window log.
    pub const fn log(max: u32, window: Window) -> Self {
        Self { terms: Terms::PLAIN, max, window, algorithm: Algorithm::Log }
    }

    /// The most that a state has room for. A request that costs more is never allowed.
    pub const fn capacity(&self) -> u32 {
        match self.algorithm {
            Algorithm::Log | Algorithm::Fixed(_) => self.max,
            Algorithm::Gcra { burst } => burst,
        }
    }

    /// What a script has to do for a request of this cost, in logs that are asked whether one of cost 1 fits. Where it weighs
    /// more, a log keeps account of weights, which takes longer, most of all where it is denied. A state of one number takes
    /// as long as a log, whatever is asked.
    pub const fn load(&self, cost: u32, form: Form) -> usize {
        match (self.algorithm, form) {
            (Algorithm::Log, Form::Short) if cost == 1 => 1,
            (Algorithm::Log, Form::Short) => 3,
            (Algorithm::Log, Form::Full) => self.load(cost, Form::Short) + 1,
            (Algorithm::Gcra { .. } | Algorithm::Fixed(_), _) => 1,
        }
    }

    /// What it counts in.
    pub const fn counter(&self) -> Counter {
        let rule = match self.algorithm {
            Algorithm::Log => Rule::Log(self.window),
            Algorithm::Gcra { .. } => Rule::Gcra(self.window),
            Algorithm::Fixed(period) => Rule::Fixed(period),
        };
        Counter { policy: self.terms.policy, rule }
    }

    /// Whether a request of this cost fits into the state.
    pub fn fits(&self, state: &LimitState, cost: u32) -> bool {
        match self.algorithm {
            Algorithm::Log | Algorithm::Fixed(_) => state.used + u64::from(cost) <= u64::from(self.max),
            Algorithm::Gcra { burst } => gcra::fits(self, burst, state, cost),
        }
    }

    /// Until a request fits that is not above the capacity, in microseconds. Only asked when it does not fit now.
    pub fn fits_in_us(&self, state: &LimitState, cost: u32) -> u64 {
        match self.algorithm {
            Algorithm::Log | Algorithm::Fixed(_) => state.fits_in_us,
            Algorithm::Gcra { burst } => gcra::fits_in_us(self, burst, state, cost),
        }
    }

    /// The costliest request that fits as soon as one of this cost does, which does not fit now. Of a log, `covered` will
    /// have expired by then.
    pub fn costliest(&self, state: &LimitState, cost: u32, covered: u64) -> u32 {
        match self.algorithm {
            Algorithm::Log => {
                let costliest = (u64::from(self.max) + covered).saturating_sub(state.used);
                u32::try_from(costliest).unwrap_or(self.max).min(self.max).max(cost)
            }
            Algorithm::Gcra { .. } => cost,
            Algorithm::Fixed(_) => self.max,
        }
    }

    /// The cost that the state still has room for.
    pub fn remaining(&self, state: &LimitState) -> u32 {
        match self.algorithm {
            // At most the limit, which is a u32.
            Algorithm::Log | Algorithm::Fixed(_) => {
                u32::try_from(u64::from(self.max).saturating_sub(state.used)).unwrap_or(self.max)
            }
            Algorithm::Gcra { burst } => gcra::remaining(self, burst, state),
        }
    }

    /// Until more is free than the state has now, in microseconds; 0 when nothing is used. Of a log it is only known to who
    /// asks in full.
    pub fn next_in_us(&self, state: &LimitState) -> u64 {
        match self.algorithm {
            Algorithm::Log => state.next_in_us,
            Algorithm::Gcra { burst } => gcra::next_in_us(self, burst, state),
            Algorithm::Fixed(_) => state.empty_in_us,
        }
    }

    /// The state some time later, by when nothing more was used, and of a log nothing set free: at most until
    /// [`Limit::next_in_us`].
    pub fn later(&self, state: &LimitState, elapsed_us: u64) -> LimitState {
        let left = |in_us: u64| in_us.saturating_sub(elapsed_us);
        let later = LimitState {
            fits_in_us: left(state.fits_in_us),
            empty_in_us: left(state.empty_in_us),
            next_in_us: left(state.next_in_us),
            ..*state
        };
        match self.algorithm {
            Algorithm::Log | Algorithm::Fixed(_) => later,
            Algorithm::Gcra { .. } => gcra::later(&later, elapsed_us),
        }
    }

    /// When a request of this cost is worth trying again, if that is only up to this limit.
    pub fn retry_after(&self, state: &LimitState, cost: u32) -> RetryAfter {
        if self.fits(state, cost) {
            RetryAfter::Now
        } else if cost > self.capacity() {
            RetryAfter::Never
        } else {
            RetryAfter::Ms(us_to_ms_ceil(self.fits_in_us(state, cost)).max(1))
        }
    }

    /// Turns a state into what it is after a request was counted at the same moment.
    pub fn count(&self, state: &mut LimitState, cost: u32) {
        match self.algorithm {
            Algorithm::Log => log::count(state, cost, self.window),
            Algorithm::Gcra { .. } => gcra::count(self, state, cost),
            Algorithm::Fixed(_) => fixed::count(state, cost),
        }
    }

    /// The state where nothing is counted.
    pub fn empty(&self, unix_us: u64) -> LimitState {
        self.reported(0, unix_us)
    }

    /// The state of which a script says that so much is used, at a time by Redis's clock.
    pub fn reported(&self, used: u64, unix_us: u64) -> LimitState {
        match self.algorithm {
            Algorithm::Log => LimitState { used, ..LimitState::default() },
            Algorithm::Gcra { .. } => gcra::state(used, 0),
            Algorithm::Fixed(period) => fixed::state_at(period, used, unix_us),
        }
    }

    /// Adds to such a state what the script says more of it; returns what will have expired of a log when a request fits.
    pub fn add_report(&self, state: &mut LimitState, [first, second, third]: [u64; 3]) -> u64 {
        match self.algorithm {
            Algorithm::Log => (state.fits_in_us, state.empty_in_us) = (first, second),
            Algorithm::Gcra { .. } => *state = gcra::state(state.used, u32::try_from(first).unwrap_or(u32::MAX)),
            Algorithm::Fixed(_) => *state = fixed::state(state.used, first),
        }
        third
    }

    /// Appends what the algorithm's script is told of the limit, and of a request of this cost. A script that is told of
    /// others than logs is told of each which it is.
    pub fn pack(&self, cost: u32, is_of_logs: bool, out: &mut Vec<u8>) {
        match self.algorithm {
            Algorithm::Log => {
                if !is_of_logs {
                    out.push(log::KIND);
                }
                log::pack(self, out);
            }
            Algorithm::Gcra { burst } => gcra::pack(self, burst, cost, out),
            Algorithm::Fixed(period) => fixed::pack(self, period, out),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.max)?;
        match self.algorithm {
            Algorithm::Log => write!(f, "{}ms", self.window.ms()),
            Algorithm::Gcra { burst } => write!(f, "{}ms BY gcra BURST {burst}", self.window.ms()),
            Algorithm::Fixed(period) if period.is_of_calendar() => write!(f, "{period}"),
            Algorithm::Fixed(period) => write!(f, "{period} BY fixed"),
        }
    }
}

/// One question: may a request of this cost pass for this key, under all these limits at once?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// 1 to [`MAX_KEY_BYTES`] bytes, any bytes.
    pub key: &'a [u8],
    /// 1 to [`MAX_LIMITS_PER_ASK`] limits of the same terms, no counter twice.
    pub limits: &'a [Limit],
    /// 1 to [`MAX_COST`].
    pub cost: u32,
}

impl Ask<'_> {
    /// The refusal of a cost that no empty state could hold, if this is one. Nothing is asked to find it out, so nothing
    /// is known of what the state holds: remaining and reset are 0.
    pub fn never_fits(&self) -> Option<Verdict> {
        let mut limits = (0..).zip(self.limits);
        let (binding, limit) = limits.find(|(_, limit)| self.cost > limit.capacity())?;
        let is_shadow = limit.terms.is_shadow;
        Some(Verdict { limit: limit.capacity(), binding, is_shadow, ..Verdict::NOTHING_ASKED })
    }

    /// How long a share of these limits lives, in microseconds, if units are asked for ahead and no window is too short.
    pub fn share_life_us(&self) -> Option<u64> {
        let shortest = self.limits.iter().map(|limit| limit.window).min()?;
        self.terms().prefetch?.life_us(shortest)
    }

    /// On whose behalf it is asked.
    pub fn terms(&self) -> Terms {
        self.limits.first().map_or(Terms::PLAIN, |limit| limit.terms)
    }
}

/// Whether a question counts what it asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It does.
    Check,
    /// It does not.
    Peek,
}

/// How one limit stands at one moment for one request, before that is counted. Times are relative to the moment, in
/// microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitState {
    /// How much of the capacity is used, which may exceed it, when the limit was lowered; of GCRA the time until it is
    /// empty, in whole microseconds.
    pub used: u64,
    /// What more of it is, in GCRA's parts; else 0.
    pub part: u32,
    /// Of a log until so much is free that the request at hand fits, if it does not fit now; of a fixed window until its
    /// period ends. [`Limit::fits_in_us`] tells it of any.
    pub fits_in_us: u64,
    /// Until nothing is used, if nothing more is. 0 when nothing is.
    pub empty_in_us: u64,
    /// Until more of a log is free than now; 0 when nothing is used. Known only to who asks in full.
    pub next_in_us: u64,
}

impl LimitState {
    /// Whether more is used than in another state of the same limit.
    pub fn is_above(&self, other: &Self) -> bool {
        (self.used, self.part) > (other.used, other.part)
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

/// The answer to an [`Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the limits allow the request. Then, and only then, it is counted.
    pub allowed: bool,
    /// Whether it may go ahead though they do not, because the policy is only tried out.
    pub is_shadow: bool,
    /// Place, among the limits that were asked about, of the one that binds: it denies for longest or, when all allow,
    /// has least remaining. The first named wins a tie.
    pub binding: u8,
    /// Its capacity.
    pub limit: u32,
    /// Cost still available under it after this request.
    pub remaining: u32,
    /// When to try again.
    pub retry_after: RetryAfter,
    /// Until nothing of it is used, in milliseconds, rounded up.
    pub reset_after_ms: u64,
    /// Whether this is the fallback's answer in place of Redis's.
    pub degraded: bool,
}

impl Verdict {
    /// Whether the request may go ahead: what the client is told.
    pub fn lets_pass(&self) -> bool {
        self.allowed || self.is_shadow
    }

    /// A denial that nobody was asked for.
    pub const NOTHING_ASKED: Self = Self {
        allowed: false,
        is_shadow: false,
        binding: 0,
        limit: 0,
        remaining: 0,
        retry_after: RetryAfter::Never,
        reset_after_ms: 0,
        degraded: false,
    };
}

/// Decides a request of `cost` by the states of its limits, which stand in the limits' order. Counts nothing: a store
/// that admits the request counts it itself.
pub fn decide(limits: &[Limit], states: &[LimitState], cost: u32) -> Verdict {
    debug_assert_eq!(limits.len(), states.len());
    let mut verdicts =
        (0..).zip(limits.iter().zip(states)).map(|(binding, (limit, state))| decide_one(binding, limit, *state, cost));
    // No request is without a limit; one that were could only be denied.
    let Some(first) = verdicts.next() else { return Verdict::NOTHING_ASKED };
    verdicts.fold(first, |so_far, verdict| if binds_more(&verdict, &so_far) { verdict } else { so_far })
}

fn decide_one(binding: u8, limit: &Limit, mut state: LimitState, cost: u32) -> Verdict {
    let retry_after = limit.retry_after(&state, cost);
    let allowed = retry_after == RetryAfter::Now;
    if allowed {
        limit.count(&mut state, cost);
    }
    Verdict {
        allowed,
        is_shadow: !allowed && limit.terms.is_shadow,
        binding,
        limit: limit.capacity(),
        remaining: limit.remaining(&state),
        retry_after,
        reset_after_ms: us_to_ms_ceil(state.empty_in_us),
        degraded: false,
    }
}

fn binds_more(verdict: &Verdict, so_far: &Verdict) -> bool {
    match (verdict.allowed, so_far.allowed) {
        (true, true) => verdict.remaining < so_far.remaining,
        (false, false) => verdict.retry_after > so_far.retry_after,
        (denied_now, _) => !denied_now,
    }
}

/// Microseconds as milliseconds, rounded up: a client that waits so long never comes back too early.
pub fn us_to_ms_ceil(us: u64) -> u64 {
    us.div_ceil(1000)
}
