//! Whether a key may have been reset since something about it was learnt: what one worker holds of it is not looked for by
//! the task that hears of resets, but asks here whether it still holds.

use ahash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Places, a power of two. Keys that share one are taken for reset together, which costs them a question each.
const PLACES: usize = 4096;

/// Shared by all workers.
pub struct ResetMarks {
    hasher: RandomState,
    resets: Box<[AtomicU64]>,
    resets_of_all: AtomicU64,
}

/// The moment at which something was asked. It is past once the key may have been reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u64);

impl Default for ResetMarks {
    fn default() -> Self {
        let resets = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { hasher: RandomState::new(), resets, resets_of_all: AtomicU64::new(0) }
    }
}

impl ResetMarks {
    /// By this a key is known here.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The moment, as far as it concerns a key of this hash.
    pub fn now(&self, hash: u64) -> Moment {
        let resets = self.place(hash).map_or(0, |resets| resets.load(Relaxed));
        // Both only grow: the sum is what it was only if both are.
        Moment(resets + self.resets_of_all.load(Relaxed))
    }

    /// A key was reset.
    pub fn mark(&self, key: &[u8]) {
        if let Some(resets) = self.place(self.hash(key)) {
            resets.fetch_add(1, Relaxed);
        }
    }

    /// Any key may have been.
    pub fn mark_all(&self) {
        self.resets_of_all.fetch_add(1, Relaxed);
    }

    fn place(&self, hash: u64) -> Option<&AtomicU64> {
        // Not the bits that a table takes first.
        self.resets.get((hash >> 20) as usize % PLACES)
    }
}
