//! What a client is to read, in the order of its requests.

use super::slots::Slots;
use bytes::BytesMut;

/// A buffer that has grown beyond this is given back once it is empty.
pub const KEPT_BYTES: usize = 16 * 1024;

/// A client's replies.
#[derive(Debug, Default)]
pub struct Replies {
    /// Those that are next in order and ready.
    pub output: BytesMut,
    /// Those that are not ready, and what is behind them.
    pub slots: Slots,
}

impl Replies {
    /// Where the reply to the request at hand is written: to the output if none before it is outstanding.
    pub fn tail(&mut self) -> &mut BytesMut {
        if self.slots.is_empty() { &mut self.output } else { self.slots.ready() }
    }

    /// Moves what is ready and next in order to the output.
    pub fn drain(&mut self) {
        self.slots.drain(&mut self.output);
    }

    /// Whether all is answered and written.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.output.is_empty()
    }

    /// How many bytes of replies wait for the client to read them, or for one before them.
    pub fn unread_bytes(&self) -> usize {
        self.output.len() + self.slots.waiting_bytes()
    }
}
