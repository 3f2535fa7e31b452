//! Bounds what replies take that their clients do not read: nothing more is carried out for a client that leaves too
//! much unread, and nothing more is read from it, so that it is the client who waits.
//!
//! A client may send a long pipeline before it reads the first reply, and must not be stopped short of its end. So the
//! bound for one is high, until all together have used up what there is for all; from then on it is low.

use crate::worker::Shared;
use std::sync::atomic::Ordering::Relaxed;

/// Most bytes of replies that one client may leave unread.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The same while all clients together leave more than [`MAX_BYTES_OF_ALL`], and of one that has not logged in.
pub const LOW_BYTES: usize = 64 * 1024;
/// Most bytes that all clients may leave unread before each is held to [`LOW_BYTES`].
const MAX_BYTES_OF_ALL: usize = 256 * 1024 * 1024;
/// Most checks of one client that may wait for the limiter.
pub const MAX_UNDECIDED: usize = 4096;

/// One client's share of what all clients leave unread.
#[derive(Debug, Default)]
pub struct Unread {
    /// As counted in [`Shared::unread`], which threads share: small amounts are left out.
    counted: usize,
}

impl Unread {
    /// So many bytes are unread now.
    pub fn set(&mut self, bytes: usize, shared: &Shared) {
        let bytes = if bytes < LOW_BYTES { 0 } else { bytes };
        if bytes > self.counted {
            shared.unread.fetch_add(bytes - self.counted, Relaxed);
        } else if bytes < self.counted {
            shared.unread.fetch_sub(self.counted - bytes, Relaxed);
        }
        self.counted = bytes;
    }
}

/// Most bytes that one client may leave unread now.
pub fn max_bytes(shared: &Shared, has_logged_in: bool) -> usize {
    let is_tight = shared.unread.load(Relaxed) > MAX_BYTES_OF_ALL;
    if is_tight || !has_logged_in { LOW_BYTES } else { MAX_BYTES }
}
