//! What is asked of Redis at once, and who waits for the answer.

use super::Kind;
use super::mailbox::Mailbox;
use crate::store::batch::Batch;
use std::rc::Rc;

/// Who asked, and by when the answer is due.
#[derive(Debug)]
pub struct Waiter {
    /// Where the answer goes.
    pub mailbox: Rc<Mailbox>,
    /// The session's name for the question.
    pub ticket: u64,
    /// When the fallback answers, if Redis has not.
    pub due_us: u64,
    /// Which item of the batch the question is part of.
    pub item: usize,
    /// The fallback has admitted it meanwhile.
    pub admitted_here: bool,
}

/// Those who wait for one job, in the order in which they asked, so the first is due first.
#[derive(Debug, Default)]
pub struct Waiters {
    /// All who asked, answered or not.
    pub list: Vec<Waiter>,
    /// How many of them the fallback has answered already.
    pub expired: usize,
}

impl Waiters {
    /// When the first who still waits is due.
    pub fn next_due_us(&self) -> Option<u64> {
        self.list.get(self.expired).map(|waiter| waiter.due_us)
    }
}

/// The scripts that jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// lua/check.lua
    Check,
    /// lua/peek.lua
    Peek,
    /// lua/reset.lua
    Reset,
}

/// One errand to Redis.
#[derive(Debug)]
pub struct Job {
    /// What is asked.
    pub work: Work,
    /// By whom.
    pub waiters: Waiters,
    /// Place in the order of jobs.
    pub number: u64,
    /// It was sent before, on a connection that broke.
    pub resent: bool,
}

/// What is asked.
#[derive(Debug)]
pub enum Work {
    /// Checks or peeks, never mixed.
    Ask {
        /// Which.
        kind: Kind,
        /// The questions.
        batch: Batch,
        /// Begins the ids of what it counts.
        id: String,
    },
    /// A reset of keys.
    Reset {
        /// The keys.
        keys: Vec<Vec<u8>>,
    },
}

impl Work {
    /// The script that is run for it.
    pub fn script(&self) -> Script {
        match self {
            Self::Ask { kind: Kind::Check, .. } => Script::Check,
            Self::Ask { kind: Kind::Peek, .. } => Script::Peek,
            Self::Reset { .. } => Script::Reset,
        }
    }

    /// Whether what is asked is counted too.
    pub fn counts(&self) -> bool {
        matches!(self, Self::Ask { kind: Kind::Check, .. })
    }
}

impl Job {
    /// How many of an item's waiters the fallback has admitted.
    pub fn admitted_here(&self, item: usize) -> u32 {
        let waiters = self.waiters.list.iter().filter(|waiter| waiter.item == item && waiter.admitted_here);
        // A batch holds far fewer than 2^32.
        waiters.count() as u32
    }
}
