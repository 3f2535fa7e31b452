//! How a session stands with its client: what becomes of the requests that were read, and whether the client is there.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// How long a client that has closed its side may take for requests that wait for another: what they wait for may be a
/// command that blocks, and takes from Redis what nobody is there to get.
const LINGER: Duration = Duration::from_millis(100);

/// What becomes of the requests that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// They are carried out as they come. What was read and is not, is the beginning of one, which cannot be whole before
    /// so many bytes are there.
    Open {
        /// So many; 0 where that is not known.
        needed: usize,
    },
    /// There was no room, or no time, for more in the last turn.
    Backlog,
    /// The first waits for an earlier one, and those behind it wait too. More is read only to see whether the client is
    /// still there.
    Held,
    /// None is carried out any more: the connection closes once all is answered and written.
    Closed,
}

impl Intake {
    /// Requests are looked at, or looked at again.
    pub fn begin(&mut self) {
        if *self != Self::Closed {
            *self = Self::Open { needed: 0 };
        }
    }

    /// Whether requests are carried out as they come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// The client's side of the connection.
#[derive(Debug)]
pub enum Peer {
    /// It may send more.
    Here,
    /// The client has closed it.
    Gone {
        /// Since there is a connection to Redis on which its requests wait for another.
        linger: Option<Pin<Box<Sleep>>>,
    },
}

impl Peer {
    /// Whether the client may send more.
    pub fn is_here(&self) -> bool {
        matches!(self, Self::Here)
    }

    /// Whether the client has closed its side, and requests that wait for another have been waited for long enough.
    pub fn has_lingered(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Gone { linger } = self else { return false };
        linger.get_or_insert_with(|| Box::pin(sleep(LINGER))).as_mut().poll(cx).is_ready()
    }
}
