//! The last ten minutes, a point a second, which the page draws; and how long checks took in the last ten seconds.

use crate::stats::{Outcome, Source, Stats, Times};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Between two points.
pub const STEP: Duration = Duration::from_secs(1);
/// Most points.
const MAX_POINTS: usize = 600;
/// How many points the latency of now is of.
const RECENT: usize = 10;

/// What has been counted at one moment.
#[derive(Clone)]
pub struct Totals {
    /// Checks that were allowed, and denied, by exact answers.
    pub allowed: u64,
    /// See `allowed`.
    pub denied: u64,
    /// Checks that the fallback answered.
    pub degraded: u64,
    /// How long checks took.
    pub checks: Times,
    /// How long Redis took to answer batches.
    pub store: Times,
}

impl Totals {
    /// Of all threads.
    pub fn of(stats: &[Arc<Stats>]) -> Self {
        let sum = |of: &dyn Fn(&Stats) -> u64| stats.iter().map(|stats| of(stats)).sum::<u64>();
        let outcome = |outcome| sum(&|stats| stats.checks.all(outcome));
        let fallback = |outcome| sum(&|stats| stats.checks.read(Source::Fallback, outcome));
        let all: u64 = Outcome::ALL.into_iter().map(outcome).sum();
        let checks = Times::of(stats.iter().map(|stats| &stats.check_latency));
        let waited = checks.count();
        Self {
            allowed: (outcome(Outcome::Allowed) + outcome(Outcome::ShadowDenied))
                .saturating_sub(fallback(Outcome::Allowed) + fallback(Outcome::ShadowDenied)),
            denied: outcome(Outcome::Denied).saturating_sub(fallback(Outcome::Denied)),
            degraded: Outcome::ALL.into_iter().map(fallback).sum(),
            // The others were answered in the turn in which they were read.
            checks: checks.with_instant(all.saturating_sub(waited)),
            store: Times::of(stats.iter().map(|stats| &stats.store_latency)),
        }
    }
}

/// One second.
#[derive(Clone, Copy)]
pub struct Point {
    /// Exact answers in it.
    pub allowed: u64,
    /// See `allowed`.
    pub denied: u64,
    /// Others.
    pub degraded: u64,
    /// Median of the time that its checks took, in microseconds; 0 if there were none.
    pub p50_us: u64,
    /// What one of a hundred took at least.
    pub p99_us: u64,
}

/// At most [`MAX_POINTS`], the oldest first.
#[derive(Default)]
pub struct History {
    points: VecDeque<Point>,
    /// At the ends of the last seconds, the oldest first: at most one more than [`RECENT`].
    totals: VecDeque<Totals>,
    end: Option<SystemTime>,
}

impl History {
    /// A second has passed.
    pub fn sample(&mut self, stats: &[Arc<Stats>]) {
        let now = Totals::of(stats);
        if let Some(before) = self.totals.back() {
            let checks = now.checks.since(&before.checks);
            let quantile = |share| checks.quantile(share).unwrap_or_default();
            self.points.push_back(Point {
                allowed: now.allowed.saturating_sub(before.allowed),
                denied: now.denied.saturating_sub(before.denied),
                degraded: now.degraded.saturating_sub(before.degraded),
                p50_us: quantile(0.5),
                p99_us: quantile(0.99),
            });
        }
        self.totals.push_back(now);
        if self.points.len() > MAX_POINTS {
            self.points.pop_front();
        }
        if self.totals.len() > RECENT + 1 {
            self.totals.pop_front();
        }
        self.end = Some(SystemTime::now());
    }

    /// The points.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.iter()
    }

    /// When the last of them ended.
    pub fn end(&self) -> Option<SystemTime> {
        self.end
    }

    /// How long checks, and Redis, took in the last [`RECENT`] seconds.
    pub fn recent(&self) -> Option<(Times, Times)> {
        let (first, last) = (self.totals.front()?, self.totals.back()?);
        Some((last.checks.since(&first.checks), last.store.since(&first.store)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_has_what_came_in_its_second_and_ten_minutes_are_kept() {
        let stats = vec![Arc::<Stats>::default(), Arc::default()];
        let mut history = History::default();
        history.sample(&stats);
        assert_eq!(history.points().count(), 0);
        for (source, outcome, times) in [
            (Source::Store, Outcome::Allowed, 5),
            (Source::DenyCache, Outcome::Denied, 3),
            (Source::Fallback, Outcome::Denied, 2),
        ] {
            (0..times).for_each(|_| stats[times % 2].checks.add(source, outcome));
        }
        (0..5).for_each(|_| stats[0].check_latency.record(1000));
        history.sample(&stats);
        let point = *history.points().last().unwrap();
        assert_eq!((point.allowed, point.denied, point.degraded), (5, 3, 2));
        // Half of them waited for a millisecond.
        assert!(point.p50_us < 16 && (1000..1250).contains(&point.p99_us), "{} {}", point.p50_us, point.p99_us);
        assert_eq!(history.recent().unwrap().0.count(), 10);
        (0..700).for_each(|_| history.sample(&stats));
        assert_eq!(history.points().count(), MAX_POINTS);
        assert_eq!(history.points().map(|point| point.allowed).sum::<u64>(), 0);
        assert_eq!(history.recent().unwrap().0.count(), 0);
    }
}
