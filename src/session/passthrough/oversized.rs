//! Requests too long to be kept until they are whole.

use crate::resp::scan::{Malformed, Scanner};

/// Such a request: it is streamed to Redis, or discarded, as it comes.
#[derive(Debug)]
pub struct Oversized {
    scanner: Scanner,
    is_forwarded: bool,
}

impl Oversized {
    /// One of which nothing was taken yet. If it is not forwarded, it was answered already.
    pub fn new(is_forwarded: bool) -> Self {
        Self { scanner: Scanner::default(), is_forwarded }
    }

    /// Whether it is streamed to Redis.
    pub fn is_forwarded(&self) -> bool {
        self.is_forwarded
    }

    /// How many bytes of `data` belong to it, and whether it ends with them.
    ///
    /// # Errors
    /// It is no RESP. Of one that is forwarded Redis says so, and closes.
    pub fn take(&mut self, data: &[u8]) -> Result<(usize, bool), Malformed> {
        match self.scanner.scan(data) {
            Err(_) if self.is_forwarded => Ok((data.len(), false)),
            outcome => outcome,
        }
    }
}
