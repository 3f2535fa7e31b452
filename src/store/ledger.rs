//! What the fallback admitted and Redis does not know of yet: written to its logs when it is back, under its own
//! times, so that an outage leaves no hole in them.
//!
//! Admissions of a key that follow each other closely are kept as one, under the time of the last: it then counts for
//! a little longer than it must, never for less. So a key holds a bounded number of records, whatever its traffic.

use crate::quota::{Check, Window};
use crate::shards::Shards;
use ahash::RandomState;
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Admissions within this part of the shortest window count as made at once.
const PARTS: u64 = 64;
/// Each with a lock of its own. A power of two.
const SHARDS: usize = 16;

/// Something to be counted in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Box<[u8]>,
    /// The windows it counts in.
    pub windows: Box<[Window]>,
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
        id: String,
        /// How many checks there were.
        asked: u32,
    },
}

/// The records of one key and its windows.
#[derive(Debug)]
struct Account {
    hash: u64,
    key: Box<[u8]>,
    windows: Box<[Window]>,
    /// Oldest first.
    admissions: VecDeque<Admission>,
}

/// Admissions that followed each other closely.
#[derive(Debug, Clone, Copy)]
struct Admission {
    first_us: u64,
    last_us: u64,
    id: u64,
    weight: u64,
}

#[derive(Debug, Default)]
struct Shard {
    accounts: HashTable<Account>,
    /// Accounts that are being written.
    closed: Vec<Account>,
    /// Records that cannot be summed up.
    single: Vec<Record>,
}

/// The records, shared by all workers.
#[derive(Debug)]
pub struct Ledger {
    shards: Shards<Shard>,
    hasher: RandomState,
    /// Most keys (with their windows) that are kept in one shard.
    shard_keys: usize,
    records: AtomicUsize,
    next_id: AtomicU64,
    dropped: AtomicU64,
}

impl Ledger {
    /// An empty ledger of at most about `max_keys` keys. What is admitted beyond is not written back.
    pub fn new(max_keys: usize) -> Self {
        Self {
            shards: Shards::new(SHARDS),
            hasher: RandomState::new(),
            shard_keys: max_keys.div_ceil(SHARDS),
            records: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.load(Relaxed)
    }

    /// How many admissions found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// So many such checks were admitted that Redis was not asked about.
    pub fn admitted(&self, check: &Check<'_>, count: u32, now_us: u64) {
        let hash = self.hasher.hash_one(check.key);
        let mut shard = self.shards.of(hash);
        let is_same = |account: &Account| {
            *account.key == *check.key && account.windows.iter().eq(check.quotas.iter().map(|quota| &quota.window))
        };
        let shortest_us = check.quotas.iter().map(|quota| quota.window.us()).min().unwrap_or(0);
        let longest_us = check.quotas.iter().map(|quota| quota.window.us()).max().unwrap_or(0);
        let weight = u64::from(check.cost) * u64::from(count);
        let admission =
            || Admission { first_us: now_us, last_us: now_us, id: self.next_id.fetch_add(1, Relaxed), weight };
        if let Some(account) = shard.accounts.find_mut(hash, is_same) {
            while account.admissions.front().is_some_and(|oldest| oldest.last_us + longest_us <= now_us) {
                account.admissions.pop_front();
                self.records.fetch_sub(1, Relaxed);
            }
            match account.admissions.back_mut() {
                Some(last) if now_us.saturating_sub(last.first_us) < shortest_us / PARTS => {
                    last.last_us = now_us;
                    last.weight += weight;
                    return;
                }
                _ => account.admissions.push_back(admission()),
            }
        } else if shard.accounts.len() < self.shard_keys {
            let account = Account {
                hash,
                key: check.key.into(),
                windows: check.quotas.iter().map(|quota| quota.window).collect(),
                admissions: [admission()].into(),
            };
            shard.accounts.insert_unique(hash, account, |account| account.hash);
        } else {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        self.records.fetch_add(1, Relaxed);
    }

    /// Of `asked` checks that Redis was asked about under `id`, and did not answer, so many were admitted here.
    pub fn admitted_of_asked(&self, check: &Check<'_>, id: String, asked: u32, admitted: u32, now_us: u64) {
        let hash = self.hasher.hash_one(check.key);
        let mut shard = self.shards.of(hash);
        if shard.single.len() >= self.shard_keys {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        shard.single.push(Record {
            key: check.key.into(),
            windows: check.quotas.iter().map(|quota| quota.window).collect(),
            time_us: now_us,
            id: Id::Asked { id, asked },
            cost: u64::from(check.cost),
            admitted,
        });
        self.records.fetch_add(1, Relaxed);
    }

    /// Takes up to `max` records, to be written; those that have expired are dropped.
    pub fn take(&self, max: usize, now_us: u64) -> Vec<Record> {
        let mut taken = Vec::new();
        for mut shard in self.shards.iter() {
            while taken.len() < max {
                let Some(record) = shard.take_one() else { break };
                self.records.fetch_sub(1, Relaxed);
                let longest_us = record.windows.iter().map(|window| window.us()).max().unwrap_or(0);
                if record.time_us + longest_us > now_us {
                    taken.push(record);
                }
            }
        }
        taken
    }

    /// Gives back what could not be written.
    pub fn give_back(&self, records: Vec<Record>) {
        for record in records {
            let hash = self.hasher.hash_one(&*record.key);
            self.shards.of(hash).single.push(record);
            self.records.fetch_add(1, Relaxed);
        }
    }

    /// Drops the records of a key.
    pub fn forget(&self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards.of(hash);
        let before = shard.len();
        shard.single.retain(|record| *record.key != *key);
        shard.accounts.retain(|account| *account.key != *key);
        shard.closed.retain(|account| *account.key != *key);
        self.records.fetch_sub(before - shard.len(), Relaxed);
    }
}

impl Shard {
    fn len(&self) -> usize {
        let accounts = self.accounts.iter().chain(&self.closed);
        self.single.len() + accounts.map(|account| account.admissions.len()).sum::<usize>()
    }

    fn take_one(&mut self) -> Option<Record> {
        if let Some(record) = self.single.pop() {
            return Some(record);
        }
        if self.closed.is_empty() {
            // All at once: a table that empties is slow to search for what is left in it.
            self.closed.extend(self.accounts.drain());
        }
        let account = self.closed.last_mut()?;
        let admission = account.admissions.pop_front();
        let record = admission.map(|admission| Record {
            key: account.key.clone(),
            windows: account.windows.clone(),
            time_us: admission.last_us,
            id: Id::New(admission.id),
            cost: admission.weight,
            admitted: 1,
        });
        if account.admissions.is_empty() {
            self.closed.pop();
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quota;

    fn quotas(windows_ms: &[u64]) -> Vec<Quota> {
        windows_ms.iter().map(|ms| Quota { limit: 10, window: Window::from_ms(*ms).unwrap() }).collect()
    }

    #[test]
    fn what_was_admitted_is_written_once_under_its_time() {
        let ledger = Ledger::new(100);
        let (second, both) = (quotas(&[1000]), quotas(&[1000, 60_000]));
        ledger.admitted(&Check { key: b"a", quotas: &second, cost: 1 }, 1, 5_000_000);
        ledger.admitted(&Check { key: b"a", quotas: &second, cost: 2 }, 1, 5_010_000);
        ledger.admitted(&Check { key: b"a", quotas: &second, cost: 1 }, 1, 5_500_000);
        ledger.admitted(&Check { key: b"a", quotas: &both, cost: 1 }, 1, 5_000_000);
        assert_eq!(ledger.len(), 3, "10 ms are less than a 64th of a second, 500 ms are more");
        let mut taken = ledger.take(10, 5_600_000);
        taken.sort_by_key(|record| (record.windows.len(), record.time_us));
        let summed: Vec<_> = taken.iter().map(|record| (record.time_us, record.cost, record.windows.len())).collect();
        assert_eq!(summed, [(5_010_000, 3, 1), (5_500_000, 1, 1), (5_000_000, 1, 2)]);
        assert!(ledger.is_empty());
        ledger.give_back(taken.clone());
        assert_eq!(ledger.take(10, 6_100_000).len(), 2, "one has expired meanwhile");
    }

    #[test]
    fn a_steady_stream_keeps_few_records_and_a_full_ledger_says_what_it_dropped() {
        let ledger = Ledger::new(SHARDS);
        let quotas = quotas(&[1000]);
        for us in (0..10_000_000).step_by(100) {
            ledger.admitted(&Check { key: b"a", quotas: &quotas, cost: 1 }, 1, us);
        }
        assert!(ledger.len() as u64 <= PARTS + 1, "{}", ledger.len());
        for number in 0..1000 {
            ledger.admitted(&Check { key: format!("k{number}").as_bytes(), quotas: &quotas, cost: 1 }, 1, 10_000_000);
        }
        assert!(ledger.dropped() >= 1000 - SHARDS as u64);
        ledger.forget(b"a");
        assert!(ledger.take(10_000, 10_000_001).iter().all(|record| *record.key != *b"a"));
        assert!(ledger.is_empty());
    }
}
