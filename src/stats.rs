//! Counters, for INFO and metrics. Each worker counts for itself, because one counter that threads share costs more than a check.

use crate::limit::PolicyName;
use crate::top::Top;
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A count that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count. Only the thread that owns the counter may: a load and a store, so that no bus is locked.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// The count so far.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Each doubling of a [`Histogram`]'s times has four buckets, so that quantiles are right to a quarter.
const SPLIT_BITS: u32 = 2;
const BUCKETS: usize = 26 << SPLIT_BITS;

/// Times, counted in buckets whose width grows with the time: 1 us to over a minute.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), sum_us: Counter::default() }
    }
}

impl Histogram {
    /// Counts a time, in microseconds. As [`Counter::add`], for the owner only.
    pub fn record(&self, us: u64) {
        // The place of the highest bit and the bits behind it. Times below 4 us share a bucket with 4 us.
        let place_us = us.max(1 << SPLIT_BITS);
        let doubling = place_us.ilog2() - SPLIT_BITS;
        let index = (doubling << SPLIT_BITS) as usize + (place_us >> doubling) as usize - (1 << SPLIT_BITS);
        if let Some(bucket) = self.buckets.get(index.min(BUCKETS - 1)) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }
}

/// What one or several [`Histogram`]s have counted at one moment.
#[derive(Debug, Clone)]
pub struct Times {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Times {
    /// What all of these have counted so far.
    pub fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut times = Self { counts: [0; BUCKETS], sum_us: 0 };
        for histogram in histograms {
            for (count, bucket) in times.counts.iter_mut().zip(&histogram.buckets) {
                *count += bucket.read();
            }
            times.sum_us = times.sum_us.wrapping_add(histogram.sum_us.read());
        }
        times
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut times = self.clone();
        for (count, before) in times.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        times.sum_us = times.sum_us.wrapping_sub(earlier.sum_us);
        times
    }

    /// The same with so many more that took no time.
    pub fn with_instant(mut self, count: u64) -> Self {
        if let Some(first) = self.counts.first_mut() {
            *first += count;
        }
        self
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// How many were shorter than this: exact for the ends of buckets, which are 4, 5, 6 and 7 times each power of two.
    pub fn below(&self, end_us: u64) -> u64 {
        (0..BUCKETS).take_while(|index| end_of(*index) <= end_us).filter_map(|index| self.counts.get(index)).sum()
    }

    /// The time in microseconds that so large a share of them does not exceed; `None` if there are none.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        });
        reached.map(|index| end_of(index) - 1)
    }
}

/// The first microsecond behind a bucket.
fn end_of(index: usize) -> u64 {
    let (doubling, part) = (index >> SPLIT_BITS, index & ((1 << SPLIT_BITS) - 1));
    (part as u64 + 1 + (1 << SPLIT_BITS)) << doubling
}

/// Who answers a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Where limits are counted: Redis, or this process with `--embedded`.
    Store,
    /// The denial cache.
    DenyCache,
    /// A share that Redis has granted ahead.
    Share,
    /// The fallback.
    Fallback,
    /// Nobody need be asked: its cost is above the limit, or it would be of one window too many.
    Request,
    /// The policy: its mode, or an override, says so whatever is counted.
    Policy,
}

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is allowed.
    Allowed,
    /// It is denied.
    Denied,
    /// It is denied by what is only tried out, and may go ahead.
    ShadowDenied,
    /// There is no answer but an error.
    Refused,
}

impl Source {
    /// All that there are.
    pub const ALL: [Self; 6] = [Self::Store, Self::DenyCache, Self::Share, Self::Fallback, Self::Request, Self::Policy];

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::DenyCache => "deny_cache",
            Self::Share => "share",
            Self::Fallback => "fallback",
            Self::Request => "request",
            Self::Policy => "policy",
        }
    }
}

impl Outcome {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Denied, Self::ShadowDenied, Self::Refused];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::ShadowDenied => "shadow_denied",
            Self::Refused => "refused",
        }
    }
}

/// Checks by what they came to and who answered.
#[derive(Debug, Default)]
pub struct Checks([[Counter; Outcome::ALL.len()]; Source::ALL.len()]);

impl Checks {
    /// Counts a check. As [`Counter::add`], for the owner only.
    pub fn add(&self, source: Source, outcome: Outcome) {
        if let Some(counter) = self.get(source, outcome) {
            counter.add(1);
        }
    }

    /// How many there were so far.
    pub fn read(&self, source: Source, outcome: Outcome) -> u64 {
        self.get(source, outcome).map_or(0, Counter::read)
    }

    /// How many came to this, whoever answered.
    pub fn all(&self, outcome: Outcome) -> u64 {
        Source::ALL.into_iter().map(|source| self.read(source, outcome)).sum()
    }

    /// Adds what `more` has counted and `less` has not. For the owner only.
    pub fn merge(&self, more: &Self, less: &Self) {
        for source in Source::ALL {
            for outcome in Outcome::ALL {
                if let Some(counter) = self.get(source, outcome) {
                    counter.add(more.read(source, outcome).saturating_sub(less.read(source, outcome)));
                }
            }
        }
    }

    fn get(&self, source: Source, outcome: Outcome) -> Option<&Counter> {
        self.0.get(source as usize)?.get(outcome as usize)
    }
}

/// Of the checks by one policy.
#[derive(Debug, Default)]
pub struct PolicyChecks {
    /// By what they came to and who answered.
    pub checks: Checks,
    /// Those that were allowed with more than 80 % of the binding limit used.
    pub near_limit: Counter,
}

impl PolicyChecks {
    /// Adds what another has counted. For the owner only.
    pub fn merge(&self, other: &Self) {
        self.checks.merge(&other.checks, &Checks::default());
        self.near_limit.add(other.near_limit.read());
    }
}

/// Counts for each policy, of which there are a bounded number: a name that is no policy's counts nothing. Locked by the
/// worker, and by whoever asks.
#[derive(Debug, Default)]
pub struct ByPolicy(Mutex<HashMap<PolicyName, PolicyChecks, RandomState>>);

impl ByPolicy {
    /// Counts a check. Only the worker whose it is may.
    pub fn add(&self, policy: PolicyName, source: Source, outcome: Outcome, is_near: bool) {
        let mut policies = self.lock();
        let counts = policies.entry(policy).or_default();
        counts.checks.add(source, outcome);
        if is_near {
            counts.near_limit.add(1);
        }
    }

    /// Passes what was counted of each policy to `each`.
    pub fn read(&self, mut each: impl FnMut(PolicyName, &PolicyChecks)) {
        self.lock().iter().for_each(|(policy, counts)| each(*policy, counts));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PolicyName, PolicyChecks, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's counters, all since its start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: Counter,
    /// Logins that failed.
    pub failed_logins: Counter,
    /// Commands read, Tollgate's own and others.
    pub commands: Counter,
    /// Checks and peeks that the store decided.
    pub by_store: Counter,
    /// Checks and peeks that the denial cache answered.
    pub by_deny_cache: Counter,
    /// Checks and peeks that a share answered.
    pub by_share: Counter,
    /// Checks and peeks that the fallback answered.
    pub by_fallback: Counter,
    /// Checks by what they came to and who answered.
    pub checks: Checks,
    /// Checks that were allowed with more than 80 % of the binding limit used.
    pub near_limit: Counter,
    /// The same of those that name a policy, by policy.
    pub by_policy: ByPolicy,
    /// The keys that were allowed and denied most.
    pub top: Top,
    /// Checks that Redis did not answer within the deadline.
    pub timeouts: Counter,
    /// Batches sent to Redis.
    pub batches: Counter,
    /// Shares that Redis has granted.
    pub shares: Counter,
    /// Units of them that were given back.
    pub units_given_back: Counter,
    /// Questions that a node of a cluster has passed on to another.
    pub redirects: Counter,
    /// Questions that it had asked again, because their slot was on its way.
    pub try_agains: Counter,
    /// Records of what the fallback admitted that were written to Redis.
    pub written_back: Counter,
    /// Other commands passed through to Redis.
    pub forwarded: Counter,
    /// Bytes read from clients.
    pub bytes_in: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// How long it took to answer checks, of those that had to wait for Redis.
    pub check_latency: Histogram,
    /// How long Redis took to answer batches.
    pub store_latency: Histogram,
}

impl Stats {
    /// The counts by name, in the order that INFO shows them.
    pub fn all(&self) -> [(&'static str, u64); 22] {
        let Self { checks, .. } = self;
        [
            ("total_connections", self.connections.read()),
            ("failed_logins", self.failed_logins.read()),
            ("total_commands", self.commands.read()),
            ("answers_by_store", self.by_store.read()),
            ("answers_by_deny_cache", self.by_deny_cache.read()),
            ("answers_by_share", self.by_share.read()),
            ("answers_by_fallback", self.by_fallback.read()),
            ("checks_allowed", checks.all(Outcome::Allowed)),
            ("checks_denied", checks.all(Outcome::Denied)),
            ("checks_shadow_denied", checks.all(Outcome::ShadowDenied)),
            ("checks_denied_cached", checks.read(Source::DenyCache, Outcome::Denied)),
            ("checks_degraded_allowed", checks.read(Source::Fallback, Outcome::Allowed)),
            ("checks_degraded_denied", checks.read(Source::Fallback, Outcome::Denied)),
            ("checks_refused", checks.all(Outcome::Refused)),
            ("store_timeouts", self.timeouts.read()),
            ("store_batches", self.batches.read()),
            ("shares_granted", self.shares.read()),
            ("share_units_given_back", self.units_given_back.read()),
            ("store_redirects", self.redirects.read()),
            ("store_try_agains", self.try_agains.read()),
            ("fallback_written_back", self.written_back.read()),
            ("commands_forwarded", self.forwarded.read()),
        ]
    }
}

/// A counter's sum over all workers.
pub fn sum(workers: &[Arc<Stats>], counter: fn(&Stats) -> &Counter) -> u64 {
    workers.iter().map(|stats| counter(stats).read()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_quarter() {
        let (one, other) = (Histogram::default(), Histogram::default());
        assert_eq!(Times::of([&one].into_iter()).quantile(0.5), None);
        (1..=1000).for_each(|us| if us % 2 == 0 { one.record(us) } else { other.record(us) });
        let times = Times::of([&one, &other].into_iter());
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let ratio = times.quantile(share).unwrap() as f64 / exact;
            assert!((1.0..1.25).contains(&ratio), "{share}: {ratio}");
        }
        assert_eq!((times.count(), times.sum_us()), (1000, 500_500));
        one.record(u64::MAX);
    }

    #[test]
    fn what_is_below_the_end_of_a_bucket_is_counted_exactly() {
        let histogram = Histogram::default();
        (0..100_000).for_each(|us| histogram.record(us));
        let times = Times::of([&histogram].into_iter());
        for end_us in [5, 6, 8, 16, 24, 32, 48, 1024, 1536, 65_536] {
            assert_eq!(times.below(end_us), end_us, "{end_us}");
        }
        assert_eq!(times.since(&times).count(), 0);
        assert_eq!(times.with_instant(7).below(16), 23);
    }
}
