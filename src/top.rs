//! Who is asked about most, now: of each worker the keys that were denied or allowed most often in the last minute and in
//! the last hour.
//!
//! ```text
//!   RL.CHECK ──► the worker's own ── minute, and the one before ──┐
//!                       every minute │                            ├──► merged when asked
//!                                    └► hour, and the one before ─┘
//! ```
//! A period that has not ended is made whole by that part of the one before which the last minute, or hour, reaches into,
//! as if all in it had come evenly.
//!
//! Up to [`EXACT_PER_S`] answers a second and worker each is looked at. Beyond, one in [`MEAN_GAP`] is, chosen at random, and
//! stands for those since the last: what a count costs is more than a denial from memory should.
//!
//! Knows no clock: times are microseconds of one that does not step back.

mod sketch;

use crate::limit::PolicyName;
use ahash::RandomState;
use sketch::Sketch;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

pub use sketch::Entry;

/// Most keys that a question is answered with.
pub const MAX_COUNT: usize = 1000;

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;
const HOUR_US: u64 = 60 * MINUTE_US;
/// Answers of one kind that a worker looks at in a second before it takes samples.
const EXACT_PER_S: u32 = 10_000;
/// From one sample to the next, on average. A gap is 1 to twice this less 1.
const MEAN_GAP: u32 = 16;
/// For so long an answer is given again: each sketch of each worker takes a tenth of a millisecond to merge, and they may
/// be asked for without end.
const GOOD_FOR_US: u64 = 100_000;

/// One for the process, so that a key has the same hash in all workers; keyed at random, so that no client can choose
/// where its keys stand, and whose place they take.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// One worker's.
#[derive(Debug, Default)]
pub struct Top {
    /// Who was allowed.
    pub allowed: TopKeys,
    /// Who was denied.
    pub denied: TopKeys,
}

/// The keys of one kind of answer.
#[derive(Debug, Default)]
pub struct TopKeys {
    /// Answers that are passed over before the next is looked at. Written by the worker alone.
    skip: AtomicU32,
    /// Locked by the worker, and by whoever asks.
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    minute: Period,
    hour: Period,
    /// How many answers the next that is looked at stands for.
    weight: u32,
    /// When the second began that is counted in, and how many were looked at in it.
    second_us: u64,
    in_second: u32,
    /// Gaps that were drawn.
    drawn: u64,
}

/// A period, and the one before it.
#[derive(Debug)]
struct Period {
    length_us: u64,
    began_us: u64,
    current: Sketch,
    previous: Sketch,
}

impl TopKeys {
    /// Counts an answer on this key, by this policy if by any. Only the worker whose it is may.
    #[inline]
    pub fn add(&self, key: &[u8], policy: Option<PolicyName>, now_us: u64) {
        match self.skip.load(Relaxed) {
            0 => self.look_at((key, policy), now_us),
            skip => self.skip.store(skip - 1, Relaxed),
        }
    }

    #[inline(never)]
    fn look_at(&self, key: (&[u8], Option<PolicyName>), now_us: u64) {
        let hash = HASHER.hash_one(key);
        let mut counts = self.lock();
        counts.turn(now_us);
        let weight = counts.weight.into();
        counts.minute.current.add(hash, key, weight);
        counts.weight = counts.next_gap(now_us);
        self.skip.store(counts.weight - 1, Relaxed);
    }

    /// Adds what was counted in a period that ends now.
    fn read(&self, is_hour: bool, now_us: u64, into: &mut Sketch) {
        let mut counts = self.lock();
        counts.turn(now_us);
        into.merge(&counts.minute.current, 1.0);
        let period = if is_hour { &counts.hour } else { &counts.minute };
        if is_hour {
            into.merge(&period.current, 1.0);
        }
        into.merge(&period.previous, 1.0 - period.elapsed(now_us));
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // What a panic leaves behind is a count that is off at worst.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Counts {
    fn default() -> Self {
        let (minute, hour) = (Period::new(MINUTE_US), Period::new(HOUR_US));
        Self { minute, hour, weight: 1, second_us: 0, in_second: 0, drawn: 0 }
    }
}

impl Counts {
    /// Begins the periods that have come meanwhile.
    fn turn(&mut self, now_us: u64) {
        if !self.minute.is_over(now_us) {
            return;
        }
        self.hour.current.merge(&self.minute.current, 1.0);
        self.minute.turn(now_us);
        self.hour.turn(now_us);
    }

    /// How many answers the next that is looked at stands for.
    fn next_gap(&mut self, now_us: u64) -> u32 {
        if now_us.saturating_sub(self.second_us) >= SECOND_US {
            (self.second_us, self.in_second) = (now_us, 0);
        }
        self.in_second += 1;
        if self.in_second <= EXACT_PER_S {
            return 1;
        }
        self.drawn += 1;
        1 + (HASHER.hash_one(self.drawn) % u64::from(2 * MEAN_GAP - 1)) as u32
    }
}

impl Period {
    fn new(length_us: u64) -> Self {
        Self { length_us, began_us: 0, current: Sketch::default(), previous: Sketch::default() }
    }

    fn is_over(&self, now_us: u64) -> bool {
        self.periods(now_us) > 0
    }

    /// How many have ended since this one began.
    fn periods(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.began_us) / self.length_us
    }

    /// The part of this one that has passed: 0 to 1.
    fn elapsed(&self, now_us: u64) -> f64 {
        (now_us.saturating_sub(self.began_us) as f64 / self.length_us as f64).min(1.0)
    }

    fn turn(&mut self, now_us: u64) {
        let periods = self.periods(now_us);
        if periods == 0 {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if periods > 1 {
            self.previous.clear();
        }
        self.began_us += periods * self.length_us;
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Which {
    /// Who was allowed, in place of who was denied.
    pub allowed: bool,
    /// Of the last hour, in place of the last minute.
    pub hour: bool,
}

/// Asks all workers, and keeps the answers for a moment.
#[derive(Debug, Default)]
pub struct TopOfAll(Mutex<[Kept; 4]>);

#[derive(Debug, Default)]
struct Kept {
    until_us: u64,
    listed: Arc<Listed>,
}

/// What is answered.
#[derive(Debug, Default)]
pub struct Listed {
    /// The keys of most answers, the most first, at most [`MAX_COUNT`].
    pub entries: Vec<Entry>,
    /// How many answers there were over all keys.
    pub total: u64,
}

impl TopOfAll {
    /// What all these workers have counted.
    pub fn read<'a>(&self, workers: impl Iterator<Item = &'a Top>, which: Which, now_us: u64) -> Arc<Listed> {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = answers.get_mut(usize::from(which.allowed) * 2 + usize::from(which.hour)) else {
            return Arc::default();
        };
        if now_us < kept.until_us {
            return kept.listed.clone();
        }
        let mut all = Sketch::default();
        for worker in workers {
            let keys = if which.allowed { &worker.allowed } else { &worker.denied };
            keys.read(which.hour, now_us, &mut all);
        }
        let total = all.total;
        let listed = Arc::new(Listed { entries: all.top(MAX_COUNT), total });
        *kept = Kept { until_us: now_us + GOOD_FOR_US, listed: listed.clone() };
        listed
    }
}

#[cfg(test)]
mod tests;
