//! What the fallback admitted and Redis does not know of yet: written to its logs when it answers again, each under its
//! own time, so that an outage leaves no hole in them.
//!
//! A record stays here until a run that writes it has been acknowledged: what is sent is a copy. A worker that is about
//! to ask about a key sends all records of the logs that it asks about first, on the same connection, also those that
//! another worker has in flight on another connection, whose runs it need not wait for: a record has an id, and writing
//! it twice counts once. Only what is in flight on the very connection need not be sent again. So, as Redis runs what
//! one connection sends in order, the question is decided after all that was admitted before it, whichever worker
//! admitted it, while questions about other keys wait for nothing.
//!
//! A state that is no log knows the last few ids only. What somebody has in flight for one is sent by nobody else, or it
//! might count as often as there are workers: who asks about it waits until that is known to be written.
//!
//! Memory is bounded by counting more than must be, never less ([`series`]): in a full ledger, admissions that follow
//! each other are merged further. Only what finds no room even so is dropped, and counted.

mod series;

use crate::limit::{Ask, Counter};
use crate::shards::Shards;
use ahash::RandomState;
use hashbrown::HashTable;
use series::{Owed, Series};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Each with a lock of its own. A power of two.
const SHARDS: usize = 16;
/// Most windows of one key, as in the fallback.
const MAX_WINDOWS_PER_KEY: usize = 32;
/// Keys of a full shard that are looked at for something to merge before a record is dropped.
const MERGE_SAMPLES: usize = 8;
/// Places of a shard's table that one search for records looks at.
const SLOTS_PER_SEARCH: usize = 256;
/// Wait between two takes, by whomever. A run of 32 records takes Redis about a quarter of a millisecond, so that writing
/// takes a quarter of its time.
const TAKE_EVERY_US: u64 = 1_000;
/// What somebody waits for is taken by nobody else for so long, unless he still does.
const AWAITED_US: u64 = 10_000;
/// Takes that were missed for so long are made up for.
const MAX_BEHIND_US: u64 = 5_000;

/// Of the next record, whichever node's: a key's records may come to another ledger.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Something to be counted in one of Redis's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Arc<[u8]>,
    /// What it is counted in.
    pub counter: Counter,
    /// The lowest limit that it was admitted under: by it GCRA knows what a request weighs.
    pub max: u32,
    /// When it was admitted, on this process's clock.
    pub time_us: u64,
    /// What it is known by.
    pub id: Id,
    /// What one of the checks weighs.
    pub cost: u64,
    /// How many of them were admitted here.
    pub admitted: u32,
}

/// What a record is known by in Redis. Writing it twice counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// It is new to Redis.
    New(u64),
    /// It belongs to `asked` checks that Redis was asked about under this id, and may have counted.
    Asked {
        /// The entry's id.
        id: Arc<str>,
        /// How many checks there were.
        asked: u32,
    },
}

impl Id {
    /// How many checks Redis was asked about under it.
    pub fn asked(&self) -> u32 {
        match self {
            Self::New(_) => 1,
            Self::Asked { asked, .. } => *asked,
        }
    }
}

/// Whoever writes records. What one of them sends runs in the order in which it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer(u32);

/// The records of one key.
#[derive(Debug)]
struct Account {
    hash: u64,
    key: Arc<[u8]>,
    /// At most [`MAX_WINDOWS_PER_KEY`], none of them empty.
    series: Vec<Series>,
}

#[derive(Debug, Default)]
struct Shard {
    accounts: HashTable<Account>,
    /// In all accounts.
    records: usize,
    /// Where the next search begins.
    next_slot: usize,
}

/// The records, shared by all workers.
#[derive(Debug)]
pub struct Ledger {
    shards: Shards<Shard>,
    hasher: RandomState,
    /// Most records in one shard.
    shard_records: usize,
    /// In all shards.
    records: AtomicUsize,
    /// The next search begins in this shard, modulo their number.
    next_shard: AtomicUsize,
    /// When the next take may be.
    next_take_us: AtomicU64,
    next_writer: AtomicU32,
    dropped: AtomicU64,
}

impl Ledger {
    /// An empty ledger of at most about `max_records` records.
    pub fn new(max_records: usize) -> Self {
        Self {
            shards: Shards::new(SHARDS),
            hasher: RandomState::new(),
            shard_records: max_records.div_ceil(SHARDS),
            records: AtomicUsize::new(0),
            next_shard: AtomicUsize::new(0),
            next_take_us: AtomicU64::new(0),
            next_writer: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Somebody else who writes records.
    pub fn new_writer(&self) -> Writer {
        Writer(self.next_writer.fetch_add(1, Relaxed))
    }

    /// Whether all is written. One atomic load.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many records are unwritten, those in flight included.
    pub fn len(&self) -> usize {
        self.records.load(Relaxed)
    }

    /// How many admissions to a log found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// So many such checks were admitted that Redis was not asked about.
    pub fn admitted(&self, ask: &Ask<'_>, count: u32, now_us: u64) {
        let cost = u64::from(ask.cost) * u64::from(count);
        self.add(ask, |max| Owed::new(Id::New(new_id()), max, cost, 1, now_us));
    }

    /// Of `asked` checks that Redis was asked about under `id`, and did not answer, so many were admitted here.
    pub fn admitted_of_asked(&self, ask: &Ask<'_>, id: &str, asked: u32, admitted: u32, now_us: u64) {
        let id = Id::Asked { id: id.into(), asked };
        self.add(ask, |max| Owed::new(id.clone(), max, u64::from(ask.cost), admitted, now_us));
    }

    /// Adds to `out` what is to be written before `check` is decided, and notes that `writer` has it in flight.
    pub fn take_of(&self, ask: &Ask<'_>, writer: Writer, now_us: u64, out: &mut Vec<Record>) {
        let hash = self.hasher.hash_one(ask.key);
        let is_asked = |counter| ask.limits.iter().any(|limit| limit.counter() == counter);
        self.change(hash, |shard| {
            shard.with_account(hash, ask.key, |account| {
                let asked = account.series.iter_mut().filter(|series| is_asked(series.counter));
                asked.for_each(|series| series.lend(&account.key, writer, now_us, out));
            });
        });
    }

    /// Whether others than `writer` have something in flight that `check` must find, and that may not be sent twice. Then
    /// [`Ledger::take`] leaves the rest of it alone for a while, so that who waits has not to wait for that too.
    pub fn is_under_way(&self, ask: &Ask<'_>, writer: Writer, now_us: u64) -> bool {
        let is_asked = |counter: Counter| {
            !counter.rule.knows_all_ids() && ask.limits.iter().any(|limit| limit.counter() == counter)
        };
        if !ask.limits.iter().any(|limit| is_asked(limit.counter())) {
            return false;
        }
        let hash = self.hasher.hash_one(ask.key);
        let mut is_under_way = false;
        self.change(hash, |shard| {
            shard.with_account(hash, ask.key, |account| {
                for series in account.series.iter_mut().filter(|series| is_asked(series.counter)) {
                    if series.others_have(writer) {
                        series.awaited_until_us = now_us + AWAITED_US;
                        is_under_way = true;
                    }
                }
            });
        });
        is_under_way
    }

    /// Up to `max` records that nobody has in flight, which `writer` has from now on. None if it is too soon after the
    /// last time.
    pub fn take(&self, max: usize, writer: Writer, now_us: u64) -> Vec<Record> {
        let mut taken = Vec::new();
        let after = |due_us: u64| due_us.max(now_us.saturating_sub(MAX_BEHIND_US)) + TAKE_EVERY_US;
        let claim = |due_us| (due_us <= now_us).then(|| after(due_us));
        if self.is_empty() || self.next_take_us.fetch_update(Relaxed, Relaxed, claim).is_err() {
            return taken;
        }
        let first = self.next_shard.fetch_add(1, Relaxed);
        for index in (0..SHARDS).map(|step| first.wrapping_add(step)) {
            self.change_at(index, |shard| shard.take(max, writer, now_us, &mut taken));
            if taken.len() >= max {
                break;
            }
        }
        taken
    }

    /// When something may be taken next; `None` while all is written.
    pub fn next_take_us(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.next_take_us.load(Relaxed))
    }

    /// Drops the records of a key that `writer` is about to reset. Whether others have some of them in flight, which are
    /// kept: the reset has to wait for those, or they might come after it.
    pub fn begin_reset(&self, key: &[u8], writer: Writer) -> bool {
        let hash = self.hasher.hash_one(key);
        let mut is_under_way = false;
        self.change(hash, |shard| {
            shard.with_account(hash, key, |account| {
                account.series.iter_mut().for_each(|series| series.keep_others(writer));
                is_under_way = account.records() > 0;
            });
        });
        is_under_way
    }

    /// Redis has these.
    pub fn written<'a>(&self, records: impl IntoIterator<Item = &'a Record>) {
        for record in records {
            let hash = self.hasher.hash_one(&*record.key);
            self.change(hash, |shard| {
                shard.with_series(hash, record, |series| series.remove(&record.id));
            });
        }
    }

    /// Whether Redis has these is not known. `writer` has them in flight no longer.
    pub fn not_written<'a>(&self, records: impl IntoIterator<Item = &'a Record>, writer: Writer) {
        for record in records {
            let hash = self.hasher.hash_one(&*record.key);
            self.change(hash, |shard| {
                shard.with_series(hash, record, |series| series.take_back(&record.id, writer));
            });
        }
    }

    /// Passes records that are to be written elsewhere to the ledger that `of_key` names, also those in flight: written
    /// twice, they count once.
    pub fn hand_over<'a>(&self, of_key: impl Fn(&[u8]) -> Option<&'a Self>) {
        for index in 0..SHARDS {
            let mut moved = Vec::new();
            self.change_at(index, |shard| {
                let is_elsewhere = |ledger: &Self| !std::ptr::eq(ledger, self);
                moved.extend(shard.accounts.extract_if(|account| of_key(&account.key).is_some_and(is_elsewhere)));
                shard.records -= moved.iter().map(Account::records).sum::<usize>();
            });
            for Account { hash: _, key, series } in moved {
                let Some(ledger) = of_key(&key) else { continue };
                series.into_iter().for_each(|series| ledger.adopt(&key, series));
            }
        }
    }

    fn adopt(&self, key: &[u8], series: Series) {
        let hash = self.hasher.hash_one(key);
        self.change(hash, |shard| {
            let counter = series.counter;
            for admission in series.into_admissions() {
                if !self.add_to(shard, hash, key, counter, admission) {
                    self.dropped.fetch_add(1, Relaxed);
                }
            }
        });
    }

    /// Drops the records of a key.
    pub fn forget(&self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        self.change(hash, |shard| shard.with_account(hash, key, |account| account.series.clear()));
    }

    fn add(&self, ask: &Ask<'_>, admission: impl Fn(u32) -> Owed) {
        let hash = self.hasher.hash_one(ask.key);
        self.change(hash, |shard| {
            for limit in ask.limits {
                if !self.add_to(shard, hash, ask.key, limit.counter(), admission(limit.max)) {
                    self.dropped.fetch_add(1, Relaxed);
                }
            }
        });
    }

    /// Whether there was room.
    fn add_to(&self, shard: &mut Shard, hash: u64, key: &[u8], counter: Counter, admission: Owed) -> bool {
        let now_us = admission.last_us;
        let mut merged = false;
        shard.with_account(hash, key, |account| {
            if let Some(series) = account.series_of(counter) {
                // What it merges with counts still, as it is close by: most admissions need not look at the others.
                merged = series.merge(&admission);
                if !merged {
                    series.expire(now_us);
                    series.make_room(new_id);
                }
            }
        });
        if !merged && shard.records >= self.shard_records {
            self.make_room(shard, hash, key, now_us);
        }
        merged || (shard.records < self.shard_records && shard.push(hash, key, counter, admission))
    }

    /// Merges what can be, of this key first and then of a few others.
    fn make_room(&self, shard: &mut Shard, hash: u64, key: &[u8], now_us: u64) {
        let coarsen = |account: &mut Account| {
            account.series.iter_mut().for_each(|series| {
                series.expire(now_us);
                series.coarsen(new_id);
            });
        };
        shard.with_account(hash, key, coarsen);
        let mut looked_at = 0;
        shard.search(|shard, slot| {
            looked_at += usize::from(shard.with_account_at(slot, coarsen));
            shard.records >= self.shard_records && looked_at < MERGE_SAMPLES
        });
    }

    fn change(&self, hash: u64, act: impl FnOnce(&mut Shard)) {
        // As `Shards::of` chooses one.
        self.change_at((hash >> 32) as usize, act);
    }

    /// Keeps count of all records while one shard changes.
    fn change_at(&self, index: usize, act: impl FnOnce(&mut Shard)) {
        let mut shard = self.shards.at(index);
        let before = shard.records;
        act(&mut shard);
        if shard.accounts.is_empty() {
            // A large table is slow to search for the little that comes into it later.
            shard.accounts = HashTable::new();
        }
        // Wraps around where there are fewer now, and back.
        self.records.fetch_add(shard.records.wrapping_sub(before), Relaxed);
    }
}

fn new_id() -> u64 {
    NEXT_ID.fetch_add(1, Relaxed)
}

impl Shard {
    /// Whether the key may have one more record.
    fn push(&mut self, hash: u64, key: &[u8], counter: Counter, admission: Owed) -> bool {
        let is_key = |account: &Account| *account.key == *key;
        let new = || Account { hash, key: key.into(), series: Vec::new() };
        let account = self.accounts.entry(hash, is_key, |account| account.hash).or_insert_with(new).into_mut();
        let has_room = account.series.len() < MAX_WINDOWS_PER_KEY;
        let is_pushed = match account.series_of(counter) {
            Some(series) if !series.is_full() => {
                series.push(admission);
                true
            }
            None if has_room => {
                account.series.push(Series::of(counter, admission));
                true
            }
            _ => false,
        };
        self.records += usize::from(is_pushed);
        is_pushed
    }

    fn with_series(&mut self, hash: u64, record: &Record, act: impl FnOnce(&mut Series)) {
        self.with_account(hash, &record.key, |account| {
            if let Some(series) = account.series_of(record.counter) {
                act(series);
            }
        });
    }

    fn with_account(&mut self, hash: u64, key: &[u8], act: impl FnOnce(&mut Account)) {
        if let Some(slot) = self.accounts.find_bucket_index(hash, |account| *account.key == *key) {
            self.with_account_at(slot, act);
        }
    }

    /// Changes the account at a place of the table, which is removed if nothing is left of it. Whether there is one.
    fn with_account_at(&mut self, slot: usize, act: impl FnOnce(&mut Account)) -> bool {
        let Ok(mut found) = self.accounts.get_bucket_entry(slot) else { return false };
        let account = found.get_mut();
        let before = account.records();
        act(account);
        account.series.retain(|series| series.len() > 0);
        let after = account.records();
        if after == 0 {
            found.remove();
        }
        self.records = self.records + after - before;
        true
    }

    fn take(&mut self, max: usize, writer: Writer, now_us: u64, out: &mut Vec<Record>) {
        self.search(|shard, slot| {
            shard.with_account_at(slot, |account| {
                let key = &account.key;
                account.series.iter_mut().for_each(|series| series.lend_idle(key, writer, now_us, max, out));
            });
            out.len() < max
        });
    }

    /// Passes places of the table to `act`, beginning where the last search ended, for as long as it says so.
    fn search(&mut self, mut act: impl FnMut(&mut Self, usize) -> bool) {
        let slots = self.accounts.num_buckets();
        for _ in 0..slots.min(SLOTS_PER_SEARCH) {
            let slot = self.next_slot % slots;
            if !act(self, slot) {
                // There may be more in this place.
                return;
            }
            self.next_slot = slot + 1;
        }
    }
}

impl Account {
    fn series_of(&mut self, counter: Counter) -> Option<&mut Series> {
        self.series.iter_mut().find(|series| series.counter == counter)
    }

    fn records(&self) -> usize {
        self.series.iter().map(Series::len).sum()
    }
}

#[cfg(test)]
mod tests;
