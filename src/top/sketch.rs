//! Who was counted most often, in bounded memory: the space-saving algorithm (Metwally, Agrawal and El Abbadi, 2005), in
//! sets of a few places.
//!
//! ```text
//!   hash of the key ──► one of SETS ──► | c 90 ±0 | a 41 ±0 | ... | x 3 ±2 |     WAYS places
//!                                                                 └─ makes way for y: | y 4 ±3 |
//! ```
//! A key that finds its set full takes the place of the one with the least count there, and that count with it: it may
//! have been counted so often before, unseen. So of a key that is kept, what was counted lies between `count - error` and
//! `count`, and of one that is not, it is no more than the least count of its set. All counts of a set are what was counted
//! in it, so the least of them is no more than a WAYS-th part of that; as the hash spreads the keys, it is about
//! 1 / (SETS x WAYS) of all. One set for all keys would make this certain, and each count a walk through a structure of
//! linked buckets.

use crate::limit::PolicyName;

/// Sets, a power of two, and places in each.
const SETS: usize = 128;
const WAYS: usize = 8;
/// Most bytes of a key that are kept.
pub const MAX_KEPT_BYTES: usize = 128;

/// How often keys were counted.
#[derive(Debug, Default)]
pub struct Sketch {
    /// None until something is counted.
    sets: Vec<[Entry; WAYS]>,
    /// Over all keys, kept or not.
    pub total: u64,
    /// Some of what was counted stands for what was not looked at.
    is_sampled: bool,
}

/// A key, and how often it was counted.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    hash: u64,
    /// The key, or what is kept of it: see [`keep`].
    pub key: Vec<u8>,
    /// The policy that it was asked about by, if by any: the same key by another is another.
    pub policy: Option<PolicyName>,
    /// 0 where there is no key.
    pub count: u64,
    /// By so much the count may be too high.
    pub error: u64,
}

impl Entry {
    fn is_of(&self, hash: u64) -> bool {
        self.hash == hash && self.count > 0
    }
}

impl Sketch {
    /// Counts a key by a policy, which have this hash together, so many times, of which one was seen.
    pub fn add(&mut self, hash: u64, (key, policy): (&[u8], Option<PolicyName>), weight: u64) {
        self.is_sampled |= weight > 1;
        self.total += weight;
        let Some(set) = self.set_of(hash) else { return };
        if let Some(entry) = set.iter_mut().find(|entry| entry.is_of(hash)) {
            entry.count += weight;
        } else if let Some(entry) = set.iter_mut().min_by_key(|entry| entry.count) {
            (entry.hash, entry.error, entry.policy) = (hash, entry.count, policy);
            entry.count += weight;
            keep(&mut entry.key, key, hash);
        }
    }

    fn set_of(&mut self, hash: u64) -> Option<&mut [Entry; WAYS]> {
        self.make_sets();
        self.sets.get_mut(hash as usize % SETS)
    }

    fn make_sets(&mut self) {
        self.sets.resize_with(SETS, Default::default);
    }

    /// Adds what another one has counted, or that share of it (0 to 1).
    pub fn merge(&mut self, other: &Self, share: f64) {
        if share <= 0.0 || other.sets.is_empty() {
            return;
        }
        self.is_sampled |= other.is_sampled;
        self.total += shared(other.total, share);
        self.make_sets();
        for (set, other) in self.sets.iter_mut().zip(&other.sets) {
            merge_set(set, other, |count| shared(count, share));
        }
    }

    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        (self.total, self.is_sampled) = (0, false);
        self.sets.iter_mut().flatten().for_each(|entry| entry.count = 0);
    }

    /// The keys of most counts, at most so many, the highest count first. One of whose count more than half may be error is
    /// left out: it may be anybody.
    pub fn top(self, max: usize) -> Vec<Entry> {
        let is_sampled = self.is_sampled;
        let mut entries: Vec<Entry> = self.sets.into_iter().flatten().collect();
        if is_sampled {
            entries.iter_mut().for_each(|entry| entry.error += sampling_error(entry.count));
        }
        entries.retain(|entry| entry.count > 0 && entry.error <= entry.count / 2);
        entries.sort_unstable_by(|one, other| other.count.cmp(&one.count).then_with(|| one.key.cmp(&other.key)));
        entries.truncate(max);
        entries
    }
}

/// The space-saving summary of both (Agarwal and others, Mergeable summaries, 2012): a key that one of them does not have may
/// have been counted there as often as the least that it has.
fn merge_set(set: &mut [Entry; WAYS], other: &[Entry; WAYS], shared: impl Fn(u64) -> u64) {
    let (least, other_least) = (least_of(set), shared(least_of(other)));
    for entry in set.iter_mut().filter(|entry| entry.count > 0) {
        let counterpart = other.iter().find(|other| other.is_of(entry.hash));
        let (count, error) =
            counterpart.map_or((other_least, other_least), |other| (shared(other.count), shared(other.error)));
        (entry.count, entry.error) = (entry.count + count, entry.error + error);
    }
    for other in other.iter().filter(|entry| entry.count > 0) {
        if set.iter().any(|entry| entry.is_of(other.hash)) {
            continue;
        }
        let count = shared(other.count) + least;
        if let Some(entry) = set.iter_mut().min_by_key(|entry| entry.count).filter(|entry| entry.count < count) {
            (entry.hash, entry.count, entry.error) = (other.hash, count, shared(other.error) + least);
            entry.policy = other.policy;
            entry.key.clone_from(&other.key);
        }
    }
}

fn shared(count: u64, share: f64) -> u64 {
    (count as f64 * share).ceil() as u64
}

fn least_of(set: &[Entry; WAYS]) -> u64 {
    set.iter().map(|entry| entry.count).min().unwrap_or(0)
}

/// Two standard deviations of a count that was made of samples, if [`super::MEAN_GAP`] is 16: the gaps from 1 to 31 that
/// samples stand for are of the mean 16 and have the mean square 336, so a count's variance is 336 / 16 = 21 times it.
fn sampling_error(count: u64) -> u64 {
    (2.0 * (21.0 * count as f64).sqrt()).ceil() as u64
}

/// Puts into `out` what is kept of a key: all of it, or, of a long one, its beginning and its hash, so that no two long
/// keys are taken for one.
fn keep(out: &mut Vec<u8>, key: &[u8], hash: u64) {
    const MARK: &[u8] = b"...";
    const DIGITS: usize = 16;
    out.clear();
    if key.len() <= MAX_KEPT_BYTES {
        return out.extend_from_slice(key);
    }
    out.extend_from_slice(key.get(..MAX_KEPT_BYTES - MARK.len() - DIGITS).unwrap_or(key));
    out.extend_from_slice(MARK);
    out.extend_from_slice(format!("{hash:016x}").as_bytes());
}
