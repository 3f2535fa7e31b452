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
pub mod log;
pub mod policy_name;
mod standing;
mod terms;

pub use self::breakdown::{Breakdown, Form, LimitFigures, Reason, decide_in_full};
use self::log::Log;
pub use self::policy_name::PolicyName;
pub use self::standing::{MAX_LISTED_ENTRIES, Standing};
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
}

/// What requests may cost: at most `max` (1 to [`MAX_LIMIT`]) in each `window`, by an algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// On whose behalf it holds.
    pub terms: Terms,
    /// Highest total cost.
    pub max: u32,
    /// In which time.
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
            Algorithm::Log => self.max,
        }
    }

    /// What it counts in.
    pub const fn counter(&self) -> Counter {
        let rule = match self.algorithm {
            Algorithm::Log => Rule::Log(self.window),
        };
        Counter { policy: self.terms.policy, rule }
    }

    /// Whether a request of this cost fits into the state.
    pub fn fits(&self, state: &LimitState, cost: u32) -> bool {
        state.used + u64::from(cost) <= u64::from(self.capacity())
    }

    /// The cost that the state still has room for.
    pub fn remaining(&self, state: &LimitState) -> u32 {
        // At most the capacity, which is a u32.
        u32::try_from(u64::from(self.capacity()).saturating_sub(state.used)).unwrap_or(self.capacity())
    }

    /// When a request of this cost is worth trying again, if that is only up to this limit.
    pub fn retry_after(&self, state: &LimitState, cost: u32) -> RetryAfter {
        if self.fits(state, cost) {
            RetryAfter::Now
        } else if cost > self.capacity() {
            RetryAfter::Never
        } else {
            RetryAfter::Ms(us_to_ms_ceil(state.fits_in_us).max(1))
        }
    }

    /// Turns a state into what it is after a request was counted at the same moment.
    pub fn count(&self, state: &mut LimitState, cost: u32) {
        match self.algorithm {
            Algorithm::Log => log::count(state, cost, self.window),
        }
    }

    /// Appends what the algorithm's script is told of the limit.
    pub fn pack(&self, out: &mut Vec<u8>) {
        match self.algorithm {
            Algorithm::Log => log::pack(self, out),
        }
    }
}

/// What limits count in. For one key, limits of the same counter share a state, however high each of them is: a limit
/// can be raised or lowered without a loss of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter {
    /// For which policy, if for any.
    pub policy: Option<PolicyName>,
    /// How.
    pub rule: Rule,
}

impl Counter {
    /// The log of a window, for no policy.
    pub const fn log(window: Window) -> Self {
        Self { policy: None, rule: Rule::Log(window) }
    }

    /// The counter whose states' names in Redis end so.
    pub fn of_name(name: &str) -> Option<Self> {
        let (policy, rule) = match name.split_once(':') {
            Some((policy, rule)) => (Some(PolicyName::new(policy)?), rule),
            None => (None, name),
        };
        Some(Self { policy, rule: Rule::of_name(rule)? })
    }

    /// Appends the last part of its states' names in Redis, by which it is registered there too.
    pub fn write_name(self, out: &mut Vec<u8>) {
        if let Some(policy) = self.policy {
            out.extend_from_slice(policy.as_str().as_bytes());
            out.push(b':');
        }
        self.rule.write_name(out);
    }
}

/// How something is counted, but for how much may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// In the log of this window.
    Log(Window),
}

impl Rule {
    /// The time in which what was counted passes.
    pub const fn window(self) -> Window {
        match self {
            Self::Log(window) => window,
        }
    }

    /// The name of its algorithm.
    pub const fn algorithm(self) -> &'static str {
        match self {
            Self::Log(_) => "log",
        }
    }

    /// Appends its own part of a counter's name.
    fn write_name(self, out: &mut Vec<u8>) {
        match self {
            Self::Log(window) => log::write_name(window, out),
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        log::of_name(name).map(Self::Log)
    }

    /// How long a state that was kept alive for one entry certainly outlives it: further entries that are made within
    /// this time need not see to it.
    pub const fn spare_us(self) -> u64 {
        match self {
            Self::Log(window) => log::spare_us(window),
        }
    }

    /// The longest that a state lives after its last entry.
    pub const fn max_life_us(self) -> u64 {
        match self {
            Self::Log(window) => log::max_life_us(window),
        }
    }
}

/// What this process itself keeps of one key and counter, where no Redis does.
pub enum Tally {
    /// The log.
    Log(Log),
}

impl Tally {
    /// A tally that has counted one request.
    pub fn new(rule: Rule, cost: u32, now_us: u64) -> Self {
        match rule {
            Rule::Log(window) => Self::Log(Log::new(window, cost, now_us)),
        }
    }

    /// How it counts.
    pub fn rule(&self) -> Rule {
        match self {
            Self::Log(log) => Rule::Log(log.window()),
        }
    }

    /// How the limit stands for a request of this cost.
    pub fn state(&self, limit: &Limit, cost: u32, now_us: u64) -> LimitState {
        match self {
            Self::Log(log) => log.state(limit.max, cost, now_us),
        }
    }

    /// Until more is free under the limit than now, in microseconds; 0 if nothing is used.
    pub fn next_in_us(&self, limit: &Limit, now_us: u64) -> u64 {
        match self {
            Self::Log(log) => log.next_in_us(limit.max, now_us),
        }
    }

    /// Counts a request.
    pub fn count(&mut self, cost: u32, now_us: u64) {
        match self {
            Self::Log(log) => log.count(cost, now_us),
        }
    }

    /// Drops what counts no longer, and says how many entries that were.
    pub fn prune(&mut self, now_us: u64) -> usize {
        match self {
            Self::Log(log) => log.prune(now_us),
        }
    }

    /// Entries kept, those included that count no longer.
    pub fn len(&self) -> usize {
        match self {
            Self::Log(log) => log.len(),
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a request that is counted now adds an entry.
    pub fn grows(&self, now_us: u64) -> bool {
        match self {
            Self::Log(log) => log.find(now_us).is_err(),
        }
    }

    /// How it stands as this policy's, with at most so many entries; `None` if nothing counts. It has the times of the
    /// clock that tells `now_us`.
    pub fn standing(&self, policy: Option<PolicyName>, most: usize, now_us: u64) -> Option<Standing> {
        let counter = Counter { policy, rule: self.rule() };
        match self {
            Self::Log(log) => log.standing(counter, most, now_us),
        }
    }

    /// Whether anything in it still counts.
    pub fn is_live(&self, now_us: u64) -> bool {
        match self {
            Self::Log(log) => log.is_live(now_us),
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
    /// How much of the capacity is used. May exceed it, when the limit was lowered.
    pub used: u64,
    /// Until so much is free that the request at hand fits. Only read when it does not fit now.
    pub fits_in_us: u64,
    /// Until nothing is used, if nothing more is. 0 when nothing is.
    pub empty_in_us: u64,
    /// Until more is free than now; 0 when nothing is used. Known only to who asks in full.
    pub next_in_us: u64,
}

impl LimitState {
    /// The state some time later, by when nothing more was used nor set free: at most until
    /// [`next_in_us`](Self::next_in_us).
    pub fn later(self, elapsed_us: u64) -> Self {
        let left = |in_us: u64| in_us.saturating_sub(elapsed_us);
        Self {
            fits_in_us: left(self.fits_in_us),
            empty_in_us: left(self.empty_in_us),
            next_in_us: left(self.next_in_us),
            ..self
        }
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
