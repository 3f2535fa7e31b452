//! The fallback: what is answered while the store cannot be asked.
//!
//! Local answers come from token buckets, one a key and window, whatever the algorithm. A bucket holds up to `capacity`
//! tokens, `limit x ratio` rounded down but at least 1, and refills by `rate` a window, which is as much; of GCRA the
//! capacity is `burst x ratio`. A request takes its cost. An exact answer gives its bucket what it said is left
//! ([`learn`](Fallback::learn)). Hence the promise: a key with `remaining` left when the store went away is admitted, by
//! this process, at most
//!
//! ```text
//!     min(remaining, capacity) + rate * elapsed / window
//! ```
//!
//! No bucket is the same as a full one. So memory is bounded by forgetting buckets, and those go first that have had
//! the most time to refill; after a whole window without a request a bucket is full, and nothing is lost with it. Of
//! one that is not, [`overflow`] remembers when it would be, in a place that it shares with others, so that the promise
//! holds for any number of keys. Proof: charge a bucket of unbounded memory with just what is admitted here. For each
//! key and window, what is kept here is never fuller than that bucket:
//!
//! - a bucket is charged and refills as that one does
//! - evicted, it is full again when that one is, at the earliest, and its place says no earlier time
//! - made anew, it lacks what its place says: of the time that is left until then, what would refill
//!
//! So what fits here fits there. The other way round it need not: where more keys than `max_keys` are in use, a key that
//! comes back, or comes for the first time, may find less than it is due, because another of its place has used more.
//! It gets all of it a window after the last bucket of its place was evicted, at the latest.
//!
//! Levels are integers, in tokens times microseconds of window, in which a bucket gains `rate` a microsecond:
//! refills lose nothing to rounding, however often they are counted, and `retry_after` is exact. The limit is not
//! part of the state. `now_us` is any clock of microseconds; where it steps back, nothing refills.

mod overflow;

use std::array;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::limit::{
    Algorithm, Ask, Breakdown, Counter, Limit, LimitState, MAX_LIMITS_PER_ASK, Verdict, Window, decide, decide_in_full,
    us_to_ms_ceil,
};
use crate::shards::Shards;
use overflow::Overflow;

/// Most shards.
const MAX_SHARDS: usize = 64;

/// Most buckets of one key. They share a hash, hence a probe sequence of the table, which must stay short.
const MAX_WINDOWS_PER_KEY: usize = 32;

/// How many buckets are compared to find one to evict, as Redis samples keys for its approximate LRU.
const EVICTION_SAMPLES: usize = 5;

/// The token buckets, shared by all workers.
pub struct Fallback {
    /// All buckets of a key are in one, so that one lock makes a check atomic.
    shards: Shards<Shard>,
    /// Keyed at random: clients choose the keys, and must not be able to choose the collisions.
    hasher: RandomState,
    /// Above 0, at most 1.
    ratio: f64,
    /// Most buckets in a shard; at least 1.
    shard_buckets: usize,
}

#[derive(Default)]
struct Shard {
    buckets: HashTable<Bucket>,
    overflow: Overflow,
    evicted: u64,
}

struct Bucket {
    key: Box<[u8]>,
    counter: Counter,
    /// Tokens at `time_us`, times the window in microseconds. At most 1e9 x 3.2e13, beyond 64 bits. May exceed the
    /// capacity when the limit was lowered since.
    level: u128,
    time_us: u64,
    /// By the limit that it was last asked about with.
    capacity: u32,
    rate: u32,
}

/// What one limit's bucket has now. All levels are in tokens times microseconds of window.
#[derive(Clone, Copy, Default)]
struct Level {
    capacity: u32,
    /// What it gains in a window.
    rate: u32,
    window_us: u64,
    level: u128,
}

/// The levels of a check's limits, in their order, then anything.
type Levels = [Level; MAX_LIMITS_PER_ASK];

/// The verdict on any ask while all are admitted unasked, as if their windows were empty. A cost that exceeds a
/// limit is denied still.
pub fn open(ask: &Ask<'_>) -> Verdict {
    decide_degraded(&states_of(ask, |_| LimitState::default()), ask)
}

/// The same, told in full.
pub fn open_in_full(ask: &Ask<'_>) -> Breakdown {
    decide_degraded_in_full(&states_of(ask, |_| LimitState::default()), ask)
}

/// The verdict on any ask while all are denied: as if their windows had been filled just now, so the longest
/// window binds, and is worth waiting for.
pub fn closed(ask: &Ask<'_>) -> Verdict {
    decide_degraded(&states_of(ask, just_filled), ask)
}

/// The same, told in full.
pub fn closed_in_full(ask: &Ask<'_>) -> Breakdown {
    decide_degraded_in_full(&states_of(ask, just_filled), ask)
}

fn just_filled(limit: &Limit) -> LimitState {
    let window_us = limit.window.us();
    LimitState {
        used: u64::from(limit.capacity()),
        fits_in_us: window_us,
        empty_in_us: window_us,
        next_in_us: window_us,
        ..LimitState::default()
    }
}

impl Fallback {
    /// At most about `max_keys` buckets (pairs of key and window; the bound is kept for each shard), whose capacity
    /// is `ratio` of the limit.
    pub fn new(ratio: f64, max_keys: usize) -> Self {
        let shards = Shards::new((max_keys / 1024).min(MAX_SHARDS));
        let shard_buckets = (max_keys / shards.count()).max(1);
        Self { shards, hasher: RandomState::new(), ratio, shard_buckets }
    }

    /// Decides by the buckets, and takes the cost from each if all have it.
    pub fn check(&self, ask: &Ask<'_>, now_us: u64) -> Verdict {
        self.run(ask, now_us).0
    }

    /// The same, told in full.
    pub fn check_in_full(&self, ask: &Ask<'_>, now_us: u64) -> Breakdown {
        let (verdict, levels) = self.run(ask, now_us);
        break_down(verdict, &levels, ask)
    }

    #[inline]
    fn run(&self, ask: &Ask<'_>, now_us: u64) -> (Verdict, Levels) {
        let hash = self.hasher.hash_one(ask.key);
        let mut shard = self.shards.of(hash);
        let levels = self.levels(&shard, hash, ask, now_us);
        let verdict = decide_by(&levels, ask);
        if verdict.allowed {
            for (limit, level) in ask.limits.iter().zip(levels) {
                self.set(&mut shard, hash, ask.key, limit.counter(), level.less(ask.cost), now_us);
            }
        }
        (verdict, levels)
    }

    /// What [`check`](Self::check) would answer; takes nothing.
    pub fn peek(&self, ask: &Ask<'_>, now_us: u64) -> Verdict {
        decide_by(&self.look(ask, now_us), ask)
    }

    /// The same, told in full.
    pub fn peek_in_full(&self, ask: &Ask<'_>, now_us: u64) -> Breakdown {
        let levels = self.look(ask, now_us);
        break_down(decide_by(&levels, ask), &levels, ask)
    }

    fn look(&self, ask: &Ask<'_>, now_us: u64) -> Levels {
        let hash = self.hasher.hash_one(ask.key);
        let shard = self.shards.of(hash);
        self.levels(&shard, hash, ask, now_us)
    }

    /// An exact answer said that `remaining` is left of `limit` for `key`: so much is what an outage begins with.
    pub fn learn(&self, key: &[u8], limit: Limit, remaining: u32, now_us: u64) {
        let hash = self.hasher.hash_one(key);
        let full = Level::full(limit, self.ratio);
        let mut shard = self.shards.of(hash);
        if remaining < full.capacity {
            self.set(&mut shard, hash, key, limit.counter(), Level { level: full.units(remaining), ..full }, now_us);
        } else if let Some(bucket) = shard.find_mut(hash, key, limit.counter()) {
            bucket.set(full, now_us);
        }
    }

    /// Drops the buckets of `key`: they are full again.
    pub fn forget(&self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards.of(hash);
        while let Ok(found) = shard.buckets.find_entry(hash, |bucket| *bucket.key == *key) {
            found.remove();
        }
    }

    /// How many buckets are kept.
    pub fn buckets(&self) -> usize {
        self.shards.iter().map(|shard| shard.buckets.len()).sum()
    }

    /// How many buckets had to make way for others so far.
    pub fn evicted(&self) -> u64 {
        self.shards.iter().map(|shard| shard.evicted).sum()
    }

    /// The levels of the check's windows, in the limits' order, then anything.
    fn levels(&self, shard: &Shard, hash: u64, ask: &Ask<'_>, now_us: u64) -> Levels {
        let level = |limit: &Limit| {
            let full = Level::full(*limit, self.ratio);
            let same = |bucket: &Bucket| bucket.is_of(ask.key, limit.counter());
            match shard.buckets.find(hash, same) {
                Some(bucket) => full.refill(bucket, now_us),
                None => full.full_at(shard.overflow.full_at_us(hash, limit.window), now_us),
            }
        };
        array::from_fn(|index| ask.limits.get(index).map_or(Level::default(), level))
    }

    /// Sets the level of a bucket, which is made, at the cost of another when there are too many.
    fn set(&self, shard: &mut Shard, hash: u64, key: &[u8], counter: Counter, level: Level, now_us: u64) {
        if let Some(bucket) = shard.find_mut(hash, key, counter) {
            return bucket.set(level, now_us);
        }
        let hash_of = |bucket: &Bucket| self.hasher.hash_one(&*bucket.key);
        if let Some(slot) = shard.slot_to_evict(hash, key, self.shard_buckets, now_us)
            && let Ok(found) = shard.buckets.get_bucket_entry(slot)
        {
            let (bucket, _) = found.remove();
            shard.evicted += 1;
            let full_at_us = bucket.full_at_us();
            if full_at_us > now_us {
                shard.overflow.note(hash_of(&bucket), bucket.counter.rule.window(), full_at_us);
            }
        }
        let Level { level, capacity, rate, .. } = level;
        let bucket = Bucket { key: key.into(), counter, level, time_us: now_us, capacity, rate };
        shard.buckets.insert_unique(hash, bucket, hash_of);
    }
}

impl Shard {
    fn find_mut(&mut self, hash: u64, key: &[u8], counter: Counter) -> Option<&mut Bucket> {
        self.buckets.find_mut(hash, |bucket| bucket.is_of(key, counter))
    }

    /// The slot of the bucket that must go before one more of `key` comes, if one must.
    fn slot_to_evict(&self, hash: u64, key: &[u8], max_buckets: usize, now_us: u64) -> Option<usize> {
        let is_key = |slot: &usize| self.buckets.get_bucket(*slot).is_some_and(|bucket| *bucket.key == *key);
        let of_key = self.buckets.iter_hash_buckets(hash).filter(is_key);
        if of_key.clone().count() >= MAX_WINDOWS_PER_KEY {
            return self.idlest(of_key, now_us);
        }
        if self.buckets.len() < max_buckets {
            return None;
        }
        // The new key's hash says where to look: it is as good as random. The table of a full shard has a bucket in
        // every second to third slot, so this looks at a dozen.
        let slots = self.buckets.num_buckets();
        let start = hash.rotate_left(32) as usize;
        let onward = (0..slots).map(|step| start.wrapping_add(step) % slots);
        let taken = onward.filter(|slot| self.buckets.get_bucket(*slot).is_some());
        self.idlest(taken.take(EVICTION_SAMPLES), now_us)
    }

    /// Of these slots, that of the bucket which has been refilling for the largest part of what fills it.
    fn idlest(&self, slots: impl Iterator<Item = usize>, now_us: u64) -> Option<usize> {
        let idle = |slot: usize| self.buckets.get_bucket(slot).map_or(0.0, |bucket| bucket.idle_part(now_us));
        slots.max_by(|one, other| idle(*one).total_cmp(&idle(*other)))
    }
}

impl Bucket {
    fn is_of(&self, key: &[u8], counter: Counter) -> bool {
        self.counter == counter && *self.key == *key
    }

    fn set(&mut self, level: Level, now_us: u64) {
        (self.level, self.capacity, self.rate) = (level.level, level.capacity, level.rate);
        self.time_us = self.time_us.max(now_us);
    }

    /// When it is full, if it is left alone.
    fn full_at_us(&self) -> u64 {
        let window_us = self.counter.rule.window().us();
        let level = Level { capacity: self.capacity, rate: self.rate, window_us, level: self.level };
        self.time_us.saturating_add(level.full_in_us())
    }

    /// For what part of the time that fills it the bucket has been left alone. From 1 on it is full.
    fn idle_part(&self, now_us: u64) -> f64 {
        let windows = now_us.saturating_sub(self.time_us) as f64 / self.counter.rule.window().us() as f64;
        windows * f64::from(self.rate) / f64::from(self.capacity)
    }
}

impl Level {
    fn full(limit: Limit, ratio: f64) -> Self {
        // A float becomes the nearest integer in range; a limit is at least 1.
        let part = |of: u32| ((f64::from(of) * ratio) as u32).min(of).max(1);
        let (capacity, rate) = (part(limit.capacity()), part(limit.max));
        let window_us = limit.window.us();
        Self { capacity, rate, window_us, level: u128::from(capacity) * u128::from(window_us) }
    }

    /// This full level, lowered to what the bucket has by now.
    fn refill(self, bucket: &Bucket, now_us: u64) -> Self {
        let elapsed_us = now_us.saturating_sub(bucket.time_us);
        let level = bucket.level + u128::from(elapsed_us) * u128::from(self.rate);
        Self { level: level.min(self.level), ..self }
    }

    /// This full level, lowered to that of a bucket which is full at `full_at_us`.
    fn full_at(self, full_at_us: u64, now_us: u64) -> Self {
        let lacking_us = full_at_us.saturating_sub(now_us);
        Self { level: self.level.saturating_sub(u128::from(lacking_us) * u128::from(self.rate)), ..self }
    }

    /// So many tokens, as a level.
    fn units(&self, tokens: u32) -> u128 {
        u128::from(tokens) * u128::from(self.window_us)
    }

    /// Until the bucket has `wanted`, which is at most its capacity.
    fn reaches_in_us(&self, wanted: u128) -> u64 {
        let us = wanted.saturating_sub(self.level).div_ceil(u128::from(self.rate));
        u64::try_from(us).unwrap_or(u64::MAX)
    }

    fn full_in_us(&self) -> u64 {
        self.reaches_in_us(self.units(self.capacity))
    }

    /// Until it has one whole token more than now.
    fn next_in_us(&self) -> u64 {
        self.reaches_in_us(self.units(self.tokens().saturating_add(1).min(self.capacity)))
    }

    /// Whole tokens.
    fn tokens(&self) -> u32 {
        // Never more than the capacity.
        u32::try_from(self.level / u128::from(self.window_us)).unwrap_or(self.capacity)
    }

    fn less(self, tokens: u32) -> Self {
        Self { level: self.level.saturating_sub(self.units(tokens)), ..self }
    }

    /// The bucket as a window in which all but its whole tokens is used.
    fn state(&self, limit: u32, cost: u32) -> LimitState {
        let fits_in_us = if cost > self.capacity {
            // It cannot fit before the store is back. A window is as good a time as any to ask again.
            self.window_us
        } else {
            self.reaches_in_us(self.units(cost))
        };
        let used = u64::from(limit.saturating_sub(self.tokens()));
        let (empty_in_us, next_in_us) = (self.full_in_us(), self.next_in_us());
        LimitState { used, fits_in_us, empty_in_us, next_in_us, ..LimitState::default() }
    }
}

fn decide_by(levels: &Levels, ask: &Ask<'_>) -> Verdict {
    let verdict = decide_degraded(&states_by(levels, ask), ask);
    match levels.get(usize::from(verdict.binding)) {
        // Where a request is counted the rule resets after a window, as a log does; a bucket is full sooner.
        Some(level) if verdict.allowed => {
            Verdict { reset_after_ms: us_to_ms_ceil(level.less(ask.cost).full_in_us()), ..verdict }
        }
        _ => verdict,
    }
}

/// What the buckets, which had these levels before, say in full of a check of this verdict.
fn break_down(verdict: Verdict, levels: &Levels, ask: &Ask<'_>) -> Breakdown {
    let mut breakdown = decide_degraded_in_full(&states_by(levels, ask), ask);
    breakdown.verdict = verdict;
    for (figures, level) in breakdown.limits.iter_mut().zip(levels).filter(|_| verdict.allowed) {
        // As `decide_by` has it.
        let level = level.less(ask.cost);
        figures.next_ms = us_to_ms_ceil(level.next_in_us());
        figures.reset_after_ms = us_to_ms_ceil(level.full_in_us());
    }
    breakdown
}

fn states_by(levels: &Levels, ask: &Ask<'_>) -> States {
    let mut of_limits = levels.iter();
    states_of(ask, |limit| {
        of_limits.next().map_or_else(LimitState::default, |level| level.state(limit.capacity(), ask.cost))
    })
}

/// The states of a check's limits, in their order, then anything.
type States = [LimitState; MAX_LIMITS_PER_ASK];

fn states_of(ask: &Ask<'_>, mut state: impl FnMut(&Limit) -> LimitState) -> States {
    array::from_fn(|index| ask.limits.get(index).map_or_else(LimitState::default, &mut state))
}

/// Decides by the state of each limit.
fn decide_degraded(states: &States, ask: &Ask<'_>) -> Verdict {
    Verdict { degraded: true, ..decide(of_ask(&as_logs(ask), ask), of_ask(states, ask), ask.cost) }
}

fn decide_degraded_in_full(states: &States, ask: &Ask<'_>) -> Breakdown {
    let mut breakdown = decide_in_full(of_ask(&as_logs(ask), ask), of_ask(states, ask), ask.cost);
    breakdown.verdict.degraded = true;
    breakdown
}

/// The limits as if each were counted by a log, whose states are told in cost, as a bucket's are.
fn as_logs(ask: &Ask<'_>) -> [Limit; MAX_LIMITS_PER_ASK] {
    let as_log = |limit: &Limit| Limit { max: limit.capacity(), algorithm: Algorithm::Log, ..*limit };
    array::from_fn(|index| ask.limits.get(index).map_or(Limit::log(1, Window::MIN), as_log))
}

/// What there is for a check's limits, of which it has no more than there is room for.
fn of_ask<'a, T>(list: &'a [T; MAX_LIMITS_PER_ASK], ask: &Ask<'_>) -> &'a [T] {
    list.get(..ask.limits.len()).unwrap_or(list)
}

#[cfg(test)]
mod tests;
