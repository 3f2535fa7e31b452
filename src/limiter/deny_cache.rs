//! The denial cache: what Redis has denied, it need not be asked again until enough has expired.
//!
//! ```text
//!          stored     min(certain, stored + max_hold)  certain   until
//! time ------[========= answered from here =====)---------|--------|------->
//! ```
//!
//! A denial is certain until enough is free, as entries only join a log, or expire when they were to. As that counts from
//! when Redis decided, which is known within bounds (`decided.rs`), there are two times: `certain`, until when it is
//! denied from here, which is no later than the truth, and `until`, which is what is told, and no earlier than the truth.
//! So nobody is denied for longer than Redis would, and who waits for as long as told is not told to wait again. Only
//! forgetting the key (a reset) ends a denial early, or a share that is given back, which ends the hold of whoever asks for
//! such; hence [`forget`](DenyCache::forget) and [`clear`](DenyCache::clear), and `max_hold`
//! for a key that was deleted without Tollgate's knowledge. What a denial says besides (remaining, reset) goes stale
//! when something cheaper is admitted; hence [`admitted`](DenyCache::admitted). What is told in full says besides when
//! more is free of each limit, and so is answered from here until that changes only.
//!
//! The table is set-associative, as a processor's cache is: the key alone chooses a bucket of four places, so that a
//! key's denials are found or forgotten at the price of one bucket, and memory is bounded without a list of use.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use super::decided::Decided;
use crate::limit::{
    Ask, Breakdown, Limit, LimitState, MAX_LIMITS_PER_ASK, RetryAfter, Verdict, decide_in_full, us_to_ms_ceil,
};

/// Places in a bucket.
const WAYS: usize = 4;

/// Most shards, each with a lock of its own.
const MAX_SHARDS: usize = 64;

/// Most buckets: 2 GiB of places.
const MAX_BUCKETS: usize = 1 << 26;

/// A denial as the store gave it. Times are on the callers' clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// Place of the limit that binds, and its capacity.
    pub binding: u8,
    /// See above.
    pub limit: u32,
    /// Cost still available under it; less than was asked for.
    pub remaining: u32,
    /// Until when it is certain. At most `until_us`.
    pub certain_until_us: u64,
    /// When the same request could be allowed, at the latest.
    pub until_us: u64,
    /// When that window is empty, at the latest.
    pub empty_at_us: u64,
    /// The costliest request that could be allowed at `until_us` too. At least the cost that was denied.
    pub max_cost: u32,
}

/// The cache, shared by all workers.
pub struct DenyCache {
    /// A power of two of them, or none when the cache is off.
    shards: Box<[Shard]>,
    /// Keyed at random: clients choose the keys, and must not be able to choose which one evicts which.
    hasher: RandomState,
    max_hold_us: u64,
}

/// On a cache line of its own, as neighbours are locked by other threads.
#[repr(align(64))]
struct Shard {
    /// Denials in `places`, so that where there are none, nobody locks. Changed under the lock only.
    held: AtomicUsize,
    places: Mutex<Places>,
}

struct Places {
    /// A power of two of them.
    buckets: Box<[Bucket]>,
    /// When a key of this shard was last forgotten. A denial asked for until then may be from before.
    forgotten_us: Option<u64>,
}

type Bucket = [Option<Box<Entry>>; WAYS];

struct Entry {
    key: Box<[u8]>,
    limits: Box<[Limit]>,
    /// The cost that was denied. Costs up to `denial.max_cost` are answered alike.
    cost: u32,
    denial: Denial,
    hold_until_us: u64,
    /// How each limit stands, if that is known: a box, so that it costs little where it is not.
    full: Option<Box<States>>,
}

/// How the limits of a denied check stood, in their order.
struct States {
    list: Box<[LimitState]>,
    /// At the latest.
    at_us: u64,
    /// When the first of them has more free: then what is told would be less than is true.
    until_us: u64,
}

impl DenyCache {
    /// A cache of `max_entries` denials, rounded up to a power of two of buckets, which answers none of them longer
    /// than `max_hold_us`. Off when either is 0.
    pub fn new(max_entries: usize, max_hold_us: u64) -> Self {
        let buckets = max_entries.div_ceil(WAYS).min(MAX_BUCKETS).next_power_of_two();
        let shards = if max_entries == 0 || max_hold_us == 0 { 0 } else { buckets.min(MAX_SHARDS) };
        let shard = |_| Shard {
            held: AtomicUsize::new(0),
            places: Mutex::new(Places {
                buckets: (0..buckets / shards).map(|_| Bucket::default()).collect(),
                forgotten_us: None,
            }),
        };
        Self { shards: (0..shards).map(shard).collect(), hasher: RandomState::new(), max_hold_us }
    }

    /// The answer to `check`, if it is known to be a denial.
    pub fn lookup(&self, ask: &Ask<'_>, now_us: u64) -> Option<Verdict> {
        self.find(ask, now_us, |entry| Some(entry.verdict(now_us)))
    }

    /// The same, told in full, if that is known too.
    pub fn lookup_in_full(&self, ask: &Ask<'_>, now_us: u64) -> Option<Breakdown> {
        self.find(ask, now_us, |entry| entry.breakdown(ask.cost, now_us))
    }

    #[inline]
    fn find<T>(&self, ask: &Ask<'_>, now_us: u64, tell: impl Fn(&Entry) -> Option<T>) -> Option<T> {
        let hash = self.hasher.hash_one(ask.key);
        let shard = self.occupied_shard(hash)?;
        let mut places = shard.lock();
        for way in places.bucket(hash) {
            let Some(entry) = way else { continue };
            if entry.hold_until_us <= now_us {
                *way = None;
                shard.held.fetch_sub(1, Ordering::Relaxed);
            } else if entry.answers(ask)
                && let Some(told) = tell(entry)
            {
                return Some(told);
            }
        }
        None
    }

    /// Remembers that `check`, sent to the store at `sent_us`, was denied. Unless its key, or a key of the same
    /// shard, was forgotten since.
    pub fn insert(&self, ask: &Ask<'_>, denial: Denial, sent_us: u64, now_us: u64) {
        self.insert_in_full(ask, denial, &[], Decided::at(sent_us), now_us);
    }

    /// The same of a check that was answered in full: `states` is how its limits stood when that was decided. There are
    /// none where it was not.
    pub fn insert_in_full(&self, ask: &Ask<'_>, denial: Denial, states: &[LimitState], decided: Decided, now_us: u64) {
        let hash = self.hasher.hash_one(ask.key);
        // Where units are asked for ahead, what denies may be a share, and be given back when it is over.
        let hold_us = self.max_hold_us.min(ask.share_life_us().unwrap_or(u64::MAX));
        let hold_until_us = denial.certain_until_us.min(now_us.saturating_add(hold_us));
        let Some(shard) = self.shard(hash).filter(|_| hold_until_us > now_us) else { return };
        let mut places = shard.lock();
        if places.forgotten_us.is_some_and(|forgotten_us| decided.sent_us <= forgotten_us) {
            return;
        }
        let full = States::new(ask.limits, states, decided).map(Box::new);
        let entry =
            Entry { key: ask.key.into(), limits: ask.limits.into(), cost: ask.cost, denial, hold_until_us, full };
        if places.put(hash, entry) {
            shard.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request of `key` was admitted: what is known of its denials is out of date.
    pub fn admitted(&self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        if let Some(shard) = self.occupied_shard(hash) {
            shard.drop_key(&mut shard.lock(), hash, key);
        }
    }

    /// `key` was reset, as was learnt at `now_us`: its denials no longer hold, nor do those on their way.
    pub fn forget(&self, key: &[u8], now_us: u64) {
        let hash = self.hasher.hash_one(key);
        if let Some(shard) = self.shard(hash) {
            let mut places = shard.lock();
            places.forgotten_us = places.forgotten_us.max(Some(now_us));
            shard.drop_key(&mut places, hash, key);
        }
    }

    /// Any key may have been reset by `now_us`: no denial holds, nor do those on their way.
    pub fn clear(&self, now_us: u64) {
        for shard in &self.shards {
            let mut places = shard.lock();
            places.forgotten_us = places.forgotten_us.max(Some(now_us));
            if shard.held.swap(0, Ordering::Relaxed) > 0 {
                places.buckets.fill_with(Bucket::default);
            }
        }
    }

    /// How many denials are kept, those included that expired and were not looked at since.
    pub fn entries(&self) -> usize {
        self.shards.iter().map(|shard| shard.held.load(Ordering::Relaxed)).sum()
    }

    fn shard(&self, hash: u64) -> Option<&Shard> {
        // Other bits than those that choose the bucket. No shards, no shard.
        self.shards.get((hash >> 32) as usize & self.shards.len().wrapping_sub(1))
    }

    fn occupied_shard(&self, hash: u64) -> Option<&Shard> {
        // A denial that comes in at this very moment could as well have come a moment later.
        self.shard(hash).filter(|shard| shard.held.load(Ordering::Relaxed) > 0)
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_key(&self, places: &mut Places, hash: u64, key: &[u8]) {
        for way in places.bucket(hash) {
            if way.take_if(|entry| *entry.key == *key).is_some() {
                self.held.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Places {
    fn bucket(&mut self, hash: u64) -> &mut Bucket {
        let mask = self.buckets.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "the length is a power of two: the mask keeps the index below it")]
        &mut self.buckets[hash as usize & mask]
    }

    /// Places the entry: over one that it supersedes, else where nothing is, else over the one whose hold ends
    /// soonest, which is an expired one if there is any. Whether there is one more entry than before.
    fn put(&mut self, hash: u64, entry: Entry) -> bool {
        let value = |way: &Option<Box<Entry>>| match way {
            Some(held) if entry.supersedes(held) => (0, 0),
            None => (1, 0),
            Some(held) => (2, held.hold_until_us),
        };
        let Some(way) = self.bucket(hash).iter_mut().min_by_key(|way| value(way)) else { return false };
        way.replace(Box::new(entry)).is_none()
    }
}

impl Entry {
    fn answers(&self, ask: &Ask<'_>) -> bool {
        (self.cost..=self.denial.max_cost).contains(&ask.cost) && *self.key == *ask.key && *self.limits == *ask.limits
    }

    /// Whether this, the later of the two, answers requests that `held` answers.
    fn supersedes(&self, held: &Self) -> bool {
        self.cost <= held.denial.max_cost
            && held.cost <= self.denial.max_cost
            && self.key == held.key
            && self.limits == held.limits
    }

    fn verdict(&self, now_us: u64) -> Verdict {
        let Denial { binding, limit, remaining, until_us, empty_at_us, .. } = self.denial;
        Verdict {
            allowed: false,
            is_shadow: self.limits.first().is_some_and(|limit| limit.terms.is_shadow),
            binding,
            limit,
            remaining,
            // At least 1: an entry is held no longer than `certain_until_us`.
            retry_after: RetryAfter::Ms(us_to_ms_ceil(until_us.saturating_sub(now_us))),
            reset_after_ms: us_to_ms_ceil(empty_at_us.saturating_sub(now_us)),
            degraded: false,
        }
    }

    fn breakdown(&self, cost: u32, now_us: u64) -> Option<Breakdown> {
        let states = self.full.as_ref().filter(|states| now_us < states.until_us)?;
        let elapsed_us = now_us.saturating_sub(states.at_us);
        let mut later = [LimitState::default(); MAX_LIMITS_PER_ASK];
        for ((later, state), limit) in later.iter_mut().zip(&states.list).zip(&self.limits) {
            *later = limit.later(state, elapsed_us);
        }
        Some(decide_in_full(&self.limits, later.get(..states.list.len())?, cost))
    }
}

impl States {
    /// How the limits stood then, if there are any.
    fn new(limits: &[Limit], states: &[LimitState], decided: Decided) -> Option<Self> {
        let Decided { earliest_us, latest_us, .. } = decided;
        let next_in_us = limits.iter().zip(states).map(|(limit, state)| limit.next_in_us(state));
        let next_in_us = next_in_us.filter(|next_in_us| *next_in_us > 0).min()?;
        Some(Self { list: states.into(), at_us: latest_us, until_us: earliest_us.saturating_add(next_in_us) })
    }
}

#[cfg(test)]
mod tests;
