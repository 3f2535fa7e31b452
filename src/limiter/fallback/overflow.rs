//! What is remembered of buckets that had to make way before they were full again.
//!
//! A bucket that lacks something is full again at a known time if it is left alone. Of all buckets that were evicted,
//! the key's hash and the window's length choose a place, which keeps the latest of these times. A bucket that is
//! missed is taken to be full at the time in its place:
//!
//! ```text
//!   evicted       full again   the latest of its place
//! ----|--------------)----------------)------------------> time
//!      never takes the bucket for fuller than it is
//! ```

use crate::limit::Window;
use std::array;

/// Places for windows of about the same length. Each shard has its own.
const PLACES: usize = 1024;
/// Lengths of windows, by their binary logarithm in milliseconds: what shares a place is at most twice as long.
const CLASSES: usize = 1 + (crate::limit::MAX_WINDOW_MS.ilog2() as usize);

/// The times of one shard's buckets, in microseconds; 0 where no bucket fell. At most 8 KiB for each class in use.
pub(super) struct Overflow([Option<Box<[u64; PLACES]>>; CLASSES]);

impl Default for Overflow {
    fn default() -> Self {
        Self(array::from_fn(|_| None))
    }
}

impl Overflow {
    /// A bucket of a key with this hash is gone that would have been full at `full_at_us`.
    pub(super) fn note(&mut self, hash: u64, window: Window, full_at_us: u64) {
        if let Some(class) = self.0.get_mut(class_of(window)) {
            let places = class.get_or_insert_with(|| Box::new([0; PLACES]));
            if let Some(place) = places.get_mut(place_of(hash)) {
                *place = full_at_us.max(*place);
            }
        }
    }

    /// When a bucket that is not there is full at the latest.
    pub(super) fn full_at_us(&self, hash: u64, window: Window) -> u64 {
        let places = self.0.get(class_of(window)).and_then(Option::as_deref);
        places.and_then(|places| places.get(place_of(hash))).copied().unwrap_or(0)
    }
}

fn class_of(window: Window) -> usize {
    // No window is shorter than a millisecond.
    window.ms().ilog2() as usize
}

fn place_of(hash: u64) -> usize {
    // Other bits than those that choose the shard and the bucket's slot and tag.
    (hash >> 40) as usize % PLACES
}
