//! Counters, for INFO. Each worker counts for itself, because one counter that threads share costs more than a check.

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

/// Buckets for each doubling of a [`Histogram`]: quantiles are right to about a fifth.
const BUCKETS_PER_DOUBLING: u32 = 4;
const DOUBLINGS: u32 = 26;

/// Times, counted in buckets whose width grows with the time: 1 us to over a minute.
#[derive(Debug)]
pub struct Histogram([Counter; (BUCKETS_PER_DOUBLING * DOUBLINGS) as usize]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Histogram {
    /// Counts a time, in microseconds. As [`Counter::add`], for the owner only.
    pub fn record(&self, us: u64) {
        let index = ((us.max(1) as f64).log2() * f64::from(BUCKETS_PER_DOUBLING)) as usize;
        if let Some(bucket) = self.0.get(index.min(self.0.len() - 1)) {
            bucket.add(1);
        }
    }

    /// The time in microseconds that so large a share of the times recorded in all `histograms` does not exceed.
    pub fn quantile<'a>(histograms: impl Iterator<Item = &'a Self> + Clone, share: f64) -> u64 {
        let counts: Vec<u64> = (0..(BUCKETS_PER_DOUBLING * DOUBLINGS) as usize)
            .map(|index| histograms.clone().filter_map(|each| each.0.get(index)).map(Counter::read).sum())
            .collect();
        let rank = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let reached = counts.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        });
        reached.map_or(0, |index| 2f64.powf((index + 1) as f64 / f64::from(BUCKETS_PER_DOUBLING)) as u64)
    }
}

/// One worker's counters, all since its start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: Counter,
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
    /// Checks that Redis did not answer within the deadline.
    pub timeouts: Counter,
    /// Batches sent to Redis.
    pub batches: Counter,
    /// Records of what the fallback admitted that were written to Redis.
    pub written_back: Counter,
    /// Other commands passed through to Redis.
    pub forwarded: Counter,
    /// How long Redis took to answer batches.
    pub store_latency: Histogram,
}

impl Stats {
    /// The counters by name, in the order that INFO shows them.
    pub fn all(&self) -> [(&'static str, &Counter); 11] {
        [
            ("total_connections", &self.connections),
            ("total_commands", &self.commands),
            ("answers_by_store", &self.by_store),
            ("answers_by_deny_cache", &self.by_deny_cache),
            ("answers_by_fallback", &self.by_fallback),
            ("checks_allowed", &self.allowed),
            ("checks_denied", &self.denied),
            ("store_timeouts", &self.timeouts),
            ("store_batches", &self.batches),
            ("fallback_written_back", &self.written_back),
            ("commands_forwarded", &self.forwarded),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_about_a_fifth() {
        let (one, other) = (Histogram::default(), Histogram::default());
        assert_eq!(Histogram::quantile([&one].into_iter(), 0.5), 0);
        (1..=1000).for_each(|us| if us % 2 == 0 { one.record(us) } else { other.record(us) });
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let ratio = Histogram::quantile([&one, &other].into_iter(), share) as f64 / exact;
            assert!((0.99..1.2).contains(&ratio), "{share}: {ratio}");
        }
        one.record(u64::MAX);
    }
}
