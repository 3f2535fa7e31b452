//! Counters, for INFO. Each worker counts for itself, because one counter that threads share costs more than a check.

use crate::top::Top;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
pub struct Histogram([Counter; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Histogram {
    /// Counts a time, in microseconds. As [`Counter::add`], for the owner only.
    pub fn record(&self, us: u64) {
        // The place of the highest bit and the bits behind it. Times below 4 us share a bucket with 4 us.
        let us = us.max(1 << SPLIT_BITS);
        let doubling = us.ilog2() - SPLIT_BITS;
        let index = (doubling << SPLIT_BITS) as usize + (us >> doubling) as usize - (1 << SPLIT_BITS);
        if let Some(bucket) = self.0.get(index.min(BUCKETS - 1)) {
            bucket.add(1);
        }
    }

    /// The time in microseconds that so large a share of the times recorded in all `histograms` does not exceed.
    pub fn quantile<'a>(histograms: impl Iterator<Item = &'a Self> + Clone, share: f64) -> u64 {
        let counts: Vec<u64> = (0..BUCKETS)
            .map(|index| histograms.clone().filter_map(|each| each.0.get(index)).map(Counter::read).sum())
            .collect();
        let rank = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let reached = counts.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        });
        // The end of the bucket.
        reached.map_or(0, |index| {
            let (doubling, part) = (index >> SPLIT_BITS, index & ((1 << SPLIT_BITS) - 1));
            ((part as u64 + 1 + (1 << SPLIT_BITS)) << doubling) - 1
        })
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
    /// Checks that the store decided.
    pub by_store: Counter,
    /// Checks that the denial cache answered.
    pub by_deny_cache: Counter,
    /// Checks that the fallback answered.
    pub by_fallback: Counter,
    /// Checks that were allowed, whoever decided.
    pub allowed: Counter,
    /// Checks that were denied, whoever decided.
    pub denied: Counter,
    /// Those of them that the denial cache answered.
    pub denied_cached: Counter,
    /// Checks that the fallback allowed.
    pub degraded_allowed: Counter,
    /// Checks that the fallback denied.
    pub degraded_denied: Counter,
    /// Checks that were answered by an error: nobody could decide.
    pub refused: Counter,
    /// The keys that were allowed and denied most.
    pub top: Top,
    /// Checks that Redis did not answer within the deadline.
    pub timeouts: Counter,
    /// Batches sent to Redis.
    pub batches: Counter,
    /// Questions that a node of a cluster has passed on to another.
    pub redirects: Counter,
    /// Questions that it had asked again, because their slot was on its way.
    pub try_agains: Counter,
    /// Records of what the fallback admitted that were written to Redis.
    pub written_back: Counter,
    /// Other commands passed through to Redis.
    pub forwarded: Counter,
    /// How long Redis took to answer batches.
    pub store_latency: Histogram,
}

impl Stats {
    /// The counters by name, in the order that INFO shows them.
    pub fn all(&self) -> [(&'static str, &Counter); 18] {
        [
            ("total_connections", &self.connections),
            ("failed_logins", &self.failed_logins),
            ("total_commands", &self.commands),
            ("answers_by_store", &self.by_store),
            ("answers_by_deny_cache", &self.by_deny_cache),
            ("answers_by_fallback", &self.by_fallback),
            ("checks_allowed", &self.allowed),
            ("checks_denied", &self.denied),
            ("checks_denied_cached", &self.denied_cached),
            ("checks_degraded_allowed", &self.degraded_allowed),
            ("checks_degraded_denied", &self.degraded_denied),
            ("checks_refused", &self.refused),
            ("store_timeouts", &self.timeouts),
            ("store_batches", &self.batches),
            ("store_redirects", &self.redirects),
            ("store_try_agains", &self.try_agains),
            ("fallback_written_back", &self.written_back),
            ("commands_forwarded", &self.forwarded),
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
        assert_eq!(Histogram::quantile([&one].into_iter(), 0.5), 0);
        (1..=1000).for_each(|us| if us % 2 == 0 { one.record(us) } else { other.record(us) });
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let ratio = Histogram::quantile([&one, &other].into_iter(), share) as f64 / exact;
            assert!((1.0..1.25).contains(&ratio), "{share}: {ratio}");
        }
        one.record(u64::MAX);
    }
}
