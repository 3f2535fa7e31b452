//! The in-process store: an exact weighted sliding-window log per key and window, shared by all workers.
//!
//! It gives the answers that the scripts in `lua/` give, and is the model that they are tested against. It reads no
//! clock; `now_us` is any clock of microseconds that all callers share.
//!
//! ```text
//!            t                         t + window
//! time ------[=========================)------->     an entry made at t counts for t <= now < t + window
//! ```
//!
//! Callers read the clock before they get a shard's lock, so times can cross by as much as that takes. Exactness
//! as a client sees it survives that: whatever was forgotten before a request is counted had expired at a moment
//! that passed before the request's reply. A clock that steps back frees nothing early, for every entry keeps its
//! own time; entries are kept in order of time, not of arrival.
//!
//! Memory is bounded by a number of logs and one of entries over all logs. When a bound is reached new state is
//! refused ([`Full`]) instead of being admitted without being counted.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use ahash::RandomState;
use hashbrown::HashTable;

use crate::limit::{
    Ask, Breakdown, Counter, Form, Limit, LimitState, MAX_LIMITS_PER_ASK, MAX_LISTED_ENTRIES, Moment, PolicyName,
    Standing, Tally, Verdict, decide, decide_in_full,
};
use crate::shards::Shards;

/// Most windows of one key that are remembered at once. They share a hash, hence a probe sequence of the table: a
/// client that could make it long would slow every other key near it.
pub const MAX_WINDOWS_PER_KEY: usize = 64;

/// How many slots of a table are swept under one lock: a few microseconds.
const SLOTS_PER_LOCK: usize = 128;

/// Most room for entries that a shard takes ahead.
const MAX_TAKE_AHEAD: usize = 64;

/// Why a request could be neither admitted nor denied: there is no room to count it. Nothing was changed. Its Display
/// says which bound was met, and what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many logs (pairs of key and window) are kept as are allowed.
    Keys,
    /// As many entries are kept, over all logs, as are allowed.
    Entries,
    /// This key has [`MAX_WINDOWS_PER_KEY`] windows already.
    Windows,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys => f.write_str(
                "the embedded log is full: raise embedded.max_keys (each key and window counts), or wait until some \
                 windows have passed",
            ),
            Self::Entries => f.write_str(
                "the embedded log is full: raise embedded.max_entries, or wait until some windows have passed",
            ),
            Self::Windows => write!(
                f,
                "a key has at most {MAX_WINDOWS_PER_KEY} windows in the embedded log, and this one has them all: check \
                 fewer different windows, or RL.RESET the key"
            ),
        }
    }
}

impl std::error::Error for Full {}

/// The store. All methods take `&self`, lock one shard for about a microsecond and may be called from any thread.
pub struct Embedded {
    /// All windows of a key live in one, so that one lock makes a check atomic.
    shards: Shards<Shard>,
    /// Keyed at random: clients choose the keys, and must not be able to choose the collisions.
    hasher: RandomState,
    max_keys: usize,
    max_entries: usize,
    /// Logs and entries that all shards hold or have reserved.
    keys: AtomicUsize,
    entries: AtomicUsize,
    /// Room for entries that a shard takes ahead, so that not every check writes a count that all workers share. A
    /// 64th of the store at most, over all shards.
    take_ahead: usize,
    /// The shard that is swept next, modulo their number.
    sweep_next: AtomicUsize,
    /// From the callers' clock to the calendar's.
    to_unix_us: AtomicI64,
}

/// The log of one key and counter, by whatever algorithm.
struct Log {
    key: Box<[u8]>,
    policy: Option<PolicyName>,
    tally: Tally,
}

impl Log {
    fn is_of(&self, key: &[u8], counter: Counter) -> bool {
        self.counter() == counter && *self.key == *key
    }

    fn counter(&self) -> Counter {
        Counter { policy: self.policy, rule: self.tally.rule() }
    }
}

#[derive(Default)]
struct Shard {
    logs: HashTable<Log>,
    /// The slot of the table that is swept next.
    sweep_slot: usize,
    /// Room for entries that is taken from the store's and not used yet.
    spare_entries: usize,
}

/// Where the logs of a check's windows stand in their shard's table, in the limits' order. Good until the table
/// changes.
type Slots = [Option<usize>; MAX_LIMITS_PER_ASK];

/// How a check's limits stand, in their order, then anything.
type States = [LimitState; MAX_LIMITS_PER_ASK];

impl Embedded {
    /// A store of at most `max_keys` logs (pairs of key and window) with `max_entries` entries in all.
    pub fn new(max_keys: usize, max_entries: usize) -> Self {
        // About a thousand keys a shard: growing its table, the longest that a lock is held, takes tens of
        // microseconds.
        let shards = Shards::new((max_keys / 1024).min(1024));
        Self {
            take_ahead: (max_entries / (64 * shards.count())).min(MAX_TAKE_AHEAD),
            shards,
            hasher: RandomState::new(),
            max_keys,
            max_entries,
            keys: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            sweep_next: AtomicUsize::new(0),
            to_unix_us: AtomicI64::new(0),
        }
    }

    /// When it is `now_us` by the callers' clock it is this by the calendar's, until the next call of this. Until the first
    /// they are taken for the same.
    pub fn set_calendar(&self, now_us: u64, unix_us: u64) {
        // Both are far below 2^63.
        self.to_unix_us.store((unix_us as i64).wrapping_sub(now_us as i64), Ordering::Relaxed);
    }

    fn at(&self, now_us: u64) -> Moment {
        Moment { us: now_us, unix_us: now_us.saturating_add_signed(self.to_unix_us.load(Ordering::Relaxed)) }
    }

    /// Decides the request and counts it if it is allowed.
    ///
    /// # Errors
    /// [`Full`] when it would be allowed but there is no room to count it.
    pub fn check(&self, ask: &Ask<'_>, now_us: u64) -> Result<Verdict, Full> {
        self.run(ask, Form::Short, now_us).map(|(verdict, _)| verdict)
    }

    /// The same, told in full.
    ///
    /// # Errors
    /// As those of [`check`](Self::check).
    pub fn check_in_full(&self, ask: &Ask<'_>, now_us: u64) -> Result<Breakdown, Full> {
        self.run(ask, Form::Full, now_us).map(|(_, states)| decide_in_full(ask.limits, of_ask(&states, ask), ask.cost))
    }

    #[inline]
    fn run(&self, ask: &Ask<'_>, form: Form, now_us: u64) -> Result<(Verdict, States), Full> {
        let now = self.at(now_us);
        let hash = self.hasher.hash_one(ask.key);
        let mut shard = self.shards.of(hash);
        let mut slots = shard.find(hash, ask);
        let pruned = shard.prune(&slots, now);
        let states = shard.states(&slots, ask, form, now);
        let verdict = decide(ask.limits, of_ask(&states, ask), ask.cost);
        if !verdict.allowed {
            shard.denied(&slots, ask, now);
            self.release(0, pruned);
            return Ok((verdict, states));
        }
        if self.reserve(&mut shard, hash, ask, &slots, now, pruned).is_err() {
            self.release(0, pruned);
            let max_slots = shard.logs.num_buckets().min(SLOTS_PER_LOCK);
            self.sweep_shard(&mut shard, now, max_slots);
            slots = shard.find(hash, ask);
            self.reserve(&mut shard, hash, ask, &slots, now, 0)?;
        }
        shard.count(hash, ask, &slots, now, &self.hasher);
        Ok((verdict, states))
    }

    /// What [`check`](Self::check) would answer, were there room. Changes nothing.
    pub fn peek(&self, ask: &Ask<'_>, now_us: u64) -> Verdict {
        decide(ask.limits, of_ask(&self.look(ask, Form::Short, now_us), ask), ask.cost)
    }

    /// The same, told in full.
    pub fn peek_in_full(&self, ask: &Ask<'_>, now_us: u64) -> Breakdown {
        decide_in_full(ask.limits, of_ask(&self.look(ask, Form::Full, now_us), ask), ask.cost)
    }

    fn look(&self, ask: &Ask<'_>, form: Form, now_us: u64) -> States {
        let hash = self.hasher.hash_one(ask.key);
        let shard = self.shards.of(hash);
        let slots = shard.find(hash, ask);
        shard.states(&slots, ask, form, self.at(now_us))
    }

    /// How all counters of `key` stand that hold an entry which counts, in their order, with at most so many entries
    /// of each, and [`MAX_LISTED_ENTRIES`] of all.
    pub fn inspect(&self, key: &[u8], most_entries: usize, now_us: u64) -> Vec<Standing> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.of(hash);
        let mut logs: Vec<&Log> = shard.logs.iter_hash(hash).filter(|log| *log.key == *key).collect();
        logs.sort_unstable_by_key(|log| log.counter());
        let mut left = MAX_LISTED_ENTRIES;
        let standings = logs.iter().filter_map(|log| {
            let standing = log.tally.standing(log.policy, most_entries.min(left), self.at(now_us))?;
            left -= standing.newest.len();
            Some(standing)
        });
        standings.collect()
    }

    /// Forgets all windows of `key`. Whether any of them held an entry that still counts.
    pub fn reset(&self, key: &[u8], now_us: u64) -> bool {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards.of(hash);
        let mut was_live = false;
        while let Ok(found) = shard.logs.find_entry(hash, |log| *log.key == *key) {
            let (log, _) = found.remove();
            was_live |= log.tally.is_live(self.at(now_us));
            self.release(1, log.tally.entries());
        }
        was_live
    }

    /// Looks at about `max_slots` table slots, going on where the last call stopped, and drops what has expired
    /// there. Locks one shard at a time, for a few microseconds. Returns how many logs it dropped: while that is a
    /// large part of `max_slots`, another call is worth its time.
    pub fn sweep(&self, now_us: u64, max_slots: usize) -> usize {
        let mut dropped = 0;
        let mut left = max_slots;
        while left > 0 {
            let next = self.sweep_next.load(Ordering::Relaxed);
            let mut shard = self.shards.at(next);
            let to_table_end = shard.logs.num_buckets().saturating_sub(shard.sweep_slot);
            let slots = to_table_end.min(left).min(SLOTS_PER_LOCK);
            dropped += self.sweep_shard(&mut shard, self.at(now_us), slots);
            if shard.sweep_slot == 0 {
                shard.shrink(&self.hasher);
                self.sweep_next.store(next.wrapping_add(1), Ordering::Relaxed);
            }
            // An empty shard has no slots, and is still a step.
            left = left.saturating_sub(slots.max(1));
        }
        dropped
    }

    /// How many logs (pairs of key and window) are kept, those included that expired and are not yet swept.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// How many entries are kept over all logs, those included that expired and are not yet swept.
    pub fn entries(&self) -> usize {
        let spare = self.shards.iter().map(|shard| shard.spare_entries).sum::<usize>();
        self.entries.load(Ordering::Relaxed).saturating_sub(spare)
    }

    /// Takes room for the logs and entries that counting `check` would add, and gives back that of `pruned` entries;
    /// all of it or none. A log that gains as many entries as it loses leaves the counts alone, which are shared by
    /// all workers and dear to write.
    fn reserve(
        &self,
        shard: &mut Shard,
        hash: u64,
        ask: &Ask<'_>,
        slots: &Slots,
        now: Moment,
        pruned: usize,
    ) -> Result<(), Full> {
        let (mut logs, mut entries) = (0, 0);
        for slot in slots.iter().take(ask.limits.len()) {
            match slot.and_then(|slot| shard.logs.get_bucket(slot)) {
                Some(log) => entries += usize::from(log.tally.grows(now)),
                None => (logs, entries) = (logs + 1, entries + 1),
            }
        }
        if logs > 0 && logs + shard.windows_of(hash, ask.key) > MAX_WINDOWS_PER_KEY {
            return Err(Full::Windows);
        }
        take(&self.keys, logs, self.max_keys).ok_or(Full::Keys)?;
        self.take_entries(shard, entries.saturating_sub(pruned)).ok_or_else(|| {
            self.release(logs, 0);
            Full::Entries
        })?;
        self.release(0, pruned.saturating_sub(entries));
        Ok(())
    }

    fn take_entries(&self, shard: &mut Shard, entries: usize) -> Option<()> {
        if shard.spare_entries < entries {
            let lacking = entries - shard.spare_entries;
            let ahead = lacking + self.take_ahead;
            let taken = match take(&self.entries, ahead, self.max_entries) {
                Some(()) => ahead,
                None => take(&self.entries, lacking, self.max_entries).map(|()| lacking)?,
            };
            shard.spare_entries += taken;
        }
        shard.spare_entries -= entries;
        Some(())
    }

    fn release(&self, logs: usize, entries: usize) {
        if logs > 0 {
            self.keys.fetch_sub(logs, Ordering::Relaxed);
        }
        if entries > 0 {
            self.entries.fetch_sub(entries, Ordering::Relaxed);
        }
    }

    fn sweep_shard(&self, shard: &mut Shard, now: Moment, max_slots: usize) -> usize {
        let (logs, entries) = shard.sweep(now, max_slots);
        self.release(logs, entries);
        logs
    }
}

impl Shard {
    fn find(&self, hash: u64, ask: &Ask<'_>) -> Slots {
        let of_limit = |limit: &Limit| self.logs.find_bucket_index(hash, |log| log.is_of(ask.key, limit.counter()));
        array::from_fn(|index| ask.limits.get(index).and_then(of_limit))
    }

    /// Drops what has expired in the logs at `slots`. Returns how many entries went.
    fn prune(&mut self, slots: &Slots, now: Moment) -> usize {
        let mut pruned = 0;
        for slot in slots.iter().flatten() {
            if let Some(log) = self.logs.get_bucket_mut(*slot) {
                pruned += log.tally.prune(now);
            }
        }
        pruned
    }

    fn states(&self, slots: &Slots, ask: &Ask<'_>, form: Form, now: Moment) -> States {
        let mut states = [LimitState::default(); MAX_LIMITS_PER_ASK];
        for ((state, slot), limit) in states.iter_mut().zip(slots).zip(ask.limits) {
            let log = slot.and_then(|slot| self.logs.get_bucket(slot));
            *state = log.map_or_else(|| limit.empty(now.unix_us), |log| log.tally.state(limit, ask.cost, now));
            if let (Some(log), Form::Full) = (log, form) {
                state.next_in_us = log.tally.next_in_us(limit, now);
            }
        }
        states
    }

    /// A request was denied.
    fn denied(&mut self, slots: &Slots, ask: &Ask<'_>, now: Moment) {
        for (slot, limit) in slots.iter().zip(ask.limits) {
            if let Some(log) = slot.and_then(|slot| self.logs.get_bucket_mut(slot)) {
                log.tally.denied(limit, now);
            }
        }
    }

    fn count(&mut self, hash: u64, ask: &Ask<'_>, slots: &Slots, now: Moment, hasher: &RandomState) {
        for (slot, limit) in slots.iter().zip(ask.limits) {
            if let Some(log) = slot.and_then(|slot| self.logs.get_bucket_mut(slot)) {
                log.tally.count(limit, ask.cost, now);
            }
        }
        // Only now, for a table that grows moves the logs to other slots.
        for (limit, _) in ask.limits.iter().zip(slots).filter(|(_, slot)| slot.is_none()) {
            let log = Log { key: ask.key.into(), policy: limit.terms.policy, tally: Tally::new(limit, ask.cost, now) };
            self.logs.insert_unique(hash, log, |log| hasher.hash_one(&*log.key));
        }
    }

    fn windows_of(&self, hash: u64, key: &[u8]) -> usize {
        self.logs.iter_hash(hash).filter(|log| *log.key == *key).count()
    }

    /// Prunes the next `max_slots` slots and drops the logs that this leaves empty. Returns how many logs and how
    /// many entries went. At the table's end the next slot is 0 again.
    fn sweep(&mut self, now: Moment, max_slots: usize) -> (usize, usize) {
        let (mut logs, mut entries) = (0, 0);
        for _ in 0..max_slots {
            if let Ok(mut found) = self.logs.get_bucket_entry(self.sweep_slot) {
                entries += found.get_mut().tally.prune(now);
                if found.get().tally.is_over(now) {
                    let (log, _) = found.remove();
                    (logs, entries) = (logs + 1, entries + log.tally.entries());
                }
            }
            self.sweep_slot += 1;
            if self.sweep_slot >= self.logs.num_buckets() {
                self.sweep_slot = 0;
            }
        }
        (logs, entries)
    }

    /// Gives memory back after a crowd of keys has gone.
    fn shrink(&mut self, hasher: &RandomState) {
        if self.logs.len() < self.logs.capacity() / 8 {
            self.logs.shrink_to(self.logs.len() * 2, |log| hasher.hash_one(&*log.key));
        }
    }
}

/// The states of a check's limits, of which it has no more than there are states.
fn of_ask<'a>(states: &'a States, ask: &Ask<'_>) -> &'a [LimitState] {
    states.get(..ask.limits.len()).unwrap_or(states)
}

/// Adds `more` to a count unless that would lift it above `max`.
fn take(count: &AtomicUsize, more: usize, max: usize) -> Option<()> {
    if more == 0 {
        return Some(());
    }
    let before = count.fetch_add(more, Ordering::Relaxed);
    if before + more <= max {
        return Some(());
    }
    count.fetch_sub(more, Ordering::Relaxed);
    None
}

#[cfg(test)]
mod tests;
