//! State that threads share in parts, each with a lock of its own, so that they seldom wait for one another.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A power of two of parts, of which a hash chooses one.
#[derive(Debug)]
pub struct Shards<T>(Box<[Shard<T>]>);

/// On a cache line of its own, as neighbours are locked by other threads.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard<T>(Mutex<T>);

impl<T: Default> Shards<T> {
    /// At least `count` empty shards.
    pub fn new(count: usize) -> Self {
        Self((0..count.next_power_of_two()).map(|_| Shard::default()).collect())
    }
}

impl<T> Shards<T> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The shard of whatever has this hash, locked.
    pub fn of(&self, hash: u64) -> MutexGuard<'_, T> {
        // Bits that a hash table uses neither for the slot (the lowest) nor for the tag (the top seven).
        self.at((hash >> 32) as usize)
    }

    /// The shard of this index modulo their number, locked.
    pub fn at(&self, index: usize) -> MutexGuard<'_, T> {
        #[expect(clippy::indexing_slicing, reason = "the length is a power of two: the mask keeps the index below it")]
        lock(&self.0[index & (self.0.len() - 1)])
    }

    /// One after another, locked.
    pub fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.0.iter().map(lock)
    }
}

fn lock<T>(shard: &Shard<T>) -> MutexGuard<'_, T> {
    // What a panic leaves behind is a count that is off at worst.
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}
