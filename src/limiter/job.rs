//! What is asked of Redis at once, and who waits for the answer.

use super::mailbox::{Answer, Mailbox};
use crate::limit::{Counter, Form, Verb};
use crate::store::batch::Batch;
use crate::store::inspect::Inspect;
use crate::store::ledger::{Record, Writer};
use crate::store::redis::{RedisStore, Rest, entry_id};
use crate::store::reset::Reset;
use crate::store::throttle::ThrottleBatch;
use crate::topology::slot::Slot;
use std::rc::Rc;

/// Who asked, and by when the answer is due.
#[derive(Debug)]
pub struct Waiter {
    /// Where the answer goes; `None` for that of a share, which is the worker's own business.
    pub mailbox: Option<Rc<Mailbox>>,
    /// The session's name for the question, or the share's.
    pub ticket: u64,
    /// When the fallback answers, if Redis has not.
    pub due_us: u64,
    /// Which item of the batch the question is part of.
    pub item: usize,
    /// How much the answer is to say.
    pub form: Form,
    /// The fallback has admitted it meanwhile.
    pub admitted_here: bool,
}

impl Waiter {
    /// Who has just asked.
    pub fn new(mailbox: &Rc<Mailbox>, ticket: u64, due_us: u64) -> Self {
        Self { mailbox: Some(mailbox.clone()), ..Self::of_share(ticket, due_us) }
    }

    /// What waits for a share of this name.
    pub fn of_share(ticket: u64, due_us: u64) -> Self {
        Self { mailbox: None, ticket, due_us, item: 0, form: Form::Short, admitted_here: false }
    }

    /// Leaves the answer, if somebody is to have it.
    pub fn deliver(&self, answer: Answer) {
        if let Some(mailbox) = &self.mailbox {
            mailbox.deliver(self.ticket, answer);
        }
    }
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
    /// Takes away those who wait for an item, which is then the only one of theirs.
    fn split_off(&mut self, item: usize) -> Self {
        let answered = self.list.iter().take(self.expired).filter(|waiter| waiter.item == item).count();
        let taken = self.list.extract_if(.., |waiter| waiter.item == item);
        let list = taken.map(|waiter| Waiter { item: 0, ..waiter }).collect();
        self.expired -= answered;
        Self { list, expired: answered }
    }

    /// How many are not answered.
    pub fn unanswered(&self) -> usize {
        self.list.len() - self.expired
    }

    /// When the first who still waits is due.
    pub fn next_due_us(&self) -> Option<u64> {
        self.list.get(self.expired).map(|waiter| waiter.due_us)
    }
}

/// Jobs of one lane run one script. Those of another wait until the lane is empty, so that no script which has to be sent
/// again is overtaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// lua/check.lua
    Check,
    /// lua/peek.lua
    Peek,
    /// lua/reset.lua
    Reset,
    /// lua/inspect.lua
    Inspect,
    /// lua/throttle.lua
    Throttle,
}

/// One request to a node, with who waits for its answer.
#[derive(Debug)]
pub struct Job {
    /// What is asked.
    pub work: Work,
    /// By whom.
    pub waiters: Waiters,
    /// Place in the order of jobs.
    pub number: u64,
    /// When it was sent: microseconds.
    pub sent_us: u64,
    /// When it was sent first. If the node ran it then, what it made is as old as that, however often it is sent again.
    pub first_sent_us: u64,
    /// Since when Redis has had the time to answer it that it is judged by: microseconds.
    pub awaited_since_us: u64,
    /// That time has begun anew, because this thread was late in looking for the answer.
    pub is_excused: bool,
    /// How many jobs were in flight when it was sent.
    pub ahead: usize,
    /// Redis does not know its script, which is sent along.
    pub with_source: bool,
    /// It was sent before, on a connection that broke.
    pub resent: bool,
    /// The one slot that it is about, if it is to say so. `None`: whatever its node serves.
    pub slot: Option<Slot>,
    /// Its slot is on its way to the node, which is told that this is known.
    pub is_asking: bool,
    /// How often nodes have passed it on.
    pub hops: u8,
}

/// What is asked.
#[derive(Debug)]
pub enum Work {
    /// Checks or peeks, never mixed.
    Ask {
        /// Which.
        verb: Verb,
        /// The questions.
        batch: Batch,
        /// Begins the ids of what it counts.
        id: String,
    },
    /// Throttles.
    Throttle(ThrottleBatch),
    /// The next job may go to a slot that is on its way here. Nobody waits for it.
    Asking,
    /// A reset of keys; at each time the next piece of it.
    Reset(Reset),
    /// A look at a key; at each time the next piece of it.
    Inspect(Inspect),
    /// Counters are registered, or the registry is read if there are none. Nobody waits for it.
    Register {
        /// The counters.
        counters: Vec<Counter>,
        /// When a connection that has not answered is given up.
        due_us: u64,
    },
    /// What the fallback admitted is written. Nobody waits for it.
    Record {
        /// What was admitted.
        records: Vec<Record>,
        /// No question is asked behind it that needs it.
        at_leisure: bool,
        /// By this name the ledger knows who writes.
        writer: Writer,
        /// When a connection that has not answered is given up.
        due_us: u64,
    },
    /// What was not used of shares is given back. Nobody waits for it.
    GiveBack {
        /// What.
        rests: Vec<Rest>,
        /// When a connection that has not answered is given up.
        due_us: u64,
        /// Whoever waits for the end of such jobs counts these.
        #[expect(dead_code, reason = "counted by its references")]
        is_under_way: Rc<()>,
    },
}

impl Work {
    /// The lane that it goes in, if somebody waits for it.
    pub fn lane(&self) -> Option<Lane> {
        match self {
            Self::Ask { verb: Verb::Check, .. } => Some(Lane::Check),
            Self::Ask { verb: Verb::Peek, .. } => Some(Lane::Peek),
            Self::Reset(_) => Some(Lane::Reset),
            Self::Inspect(_) => Some(Lane::Inspect),
            Self::Throttle(_) => Some(Lane::Throttle),
            Self::Register { .. } | Self::Record { .. } | Self::GiveBack { .. } | Self::Asking => None,
        }
    }

    /// A key that it is about; all are of one slot where that matters.
    pub fn first_key(&self) -> Option<&[u8]> {
        match self {
            Self::Ask { batch, .. } => batch.items().first().map(|item| batch.ask_of(item).key),
            Self::Throttle(batch) => batch.get(0).map(|(name, _)| name),
            Self::Reset(reset) => reset.keys_left().first().map(Vec::as_slice),
            Self::Inspect(inspect) => Some(inspect.key()),
            Self::Record { records, .. } => records.first().map(|record| &*record.key),
            Self::GiveBack { rests, .. } => rests.first().map(|rest| &*rest.key),
            Self::Register { .. } | Self::Asking => None,
        }
    }

    /// The slot of a cluster that it is about, if it is about some key.
    pub fn slot(&self, store: &RedisStore) -> Option<Slot> {
        let key = self.first_key()?;
        Some(match self {
            // Not counted under a name of Tollgate's.
            Self::Throttle(_) => Slot::of(key),
            _ => store.slot_of(key),
        })
    }

    /// What it may count in.
    pub fn counters(&self) -> impl Iterator<Item = Counter> {
        let (batch, records) = match self {
            Self::Ask { verb: Verb::Check, batch, .. } => (batch.limits(), &[][..]),
            Self::Record { records, .. } => (&[][..], records.as_slice()),
            _ => Default::default(),
        };
        let recorded = records.iter().map(|record| record.counter);
        batch.iter().map(|limit| limit.counter()).chain(recorded)
    }

    /// Whether it registers a counter.
    pub fn registers(&self, counter: Counter) -> bool {
        matches!(self, Self::Register { counters, .. } if counters.contains(&counter))
    }

    /// Whether it writes what no question needs.
    pub fn is_at_leisure(&self) -> bool {
        matches!(self, Self::Record { at_leisure: true, .. })
    }

    /// Whether what is asked is counted too.
    pub fn counts(&self) -> bool {
        matches!(self, Self::Ask { verb: Verb::Check, .. } | Self::Throttle(_))
    }
}

impl Job {
    /// A job that was not sent, and for which nobody waits.
    pub fn new(work: Work, number: u64) -> Self {
        Self {
            work,
            waiters: Waiters::default(),
            number,
            sent_us: 0,
            first_sent_us: 0,
            awaited_since_us: 0,
            is_excused: false,
            ahead: 0,
            with_source: false,
            resent: false,
            slot: None,
            is_asking: false,
            hops: 0,
        }
    }

    /// Takes items away, each with who waits for it, as a job of its own that is known by the same id. The items
    /// themselves stay, as others are known by their numbers.
    pub fn split_off(&mut self, is_split: impl Fn(usize) -> bool) -> Vec<Self> {
        let works: Vec<(usize, Work)> = match &self.work {
            Work::Ask { verb, batch, id } => {
                let items = batch.items().iter().enumerate().filter(|(index, _)| is_split(*index));
                let ask = |(index, item)| Work::Ask { verb: *verb, batch: batch.of_one(item), id: entry_id(id, index) };
                items.map(|(index, item)| (index, ask((index, item)))).collect()
            }
            Work::Throttle(batch) => {
                let items = (0..batch.len()).filter(|index| is_split(*index));
                items.map(|index| (index, Work::Throttle(batch.of_one(index)))).collect()
            }
            _ => Vec::new(),
        };
        let mut parts = Vec::new();
        for (index, work) in works {
            let waiters = self.waiters.split_off(index);
            let (first_sent_us, resent, hops) = (self.first_sent_us, self.resent, self.hops);
            parts.push(Self { waiters, first_sent_us, resent, hops, ..Self::new(work, self.number) });
        }
        parts
    }

    /// When something is to be done about it if there is no answer.
    pub fn next_due_us(&self) -> Option<u64> {
        match self.work {
            Work::Record { due_us, .. } | Work::Register { due_us, .. } | Work::GiveBack { due_us, .. } => Some(due_us),
            _ => self.waiters.next_due_us(),
        }
    }

    /// This thread was late in looking for the answer. Once, or a thread that always is would never notice that none
    /// comes.
    pub fn excuse(&mut self, now_us: u64) {
        if !self.is_excused {
            (self.awaited_since_us, self.is_excused) = (now_us, true);
        }
    }

    /// Nobody waits for it, and it takes too long for a connection that works.
    pub fn is_stuck(&self, now_us: u64) -> bool {
        match self.work {
            Work::Record { due_us, .. } | Work::Register { due_us, .. } | Work::GiveBack { due_us, .. } => {
                due_us <= now_us
            }
            _ => false,
        }
    }

    /// How many of an item's waiters the fallback has admitted.
    pub fn admitted_here(&self, item: usize) -> u32 {
        let waiters = self.waiters.list.iter().filter(|waiter| waiter.item == item && waiter.admitted_here);
        // A batch holds far fewer than 2^32.
        waiters.count() as u32
    }
}
