//! How a worker asks Redis: whatever its clients ask while there is no room on the way, or in one turn of the event loop,
//! goes out together as the next batch.
//!
//! ```text
//! check ──► queue: [ batch ][ reset ][ batch ] ──► in flight (`in_flight.rs`) ──► mailboxes
//!              └──────────── deadline passed ──────────────┴──► fallback ──────────────────┘
//! ```
//! Jobs leave in the order in which they were asked, all on one connection, so a client's pipelined questions are
//! answered as if they had been asked one by one.

use super::job::{Job, Waiter, Waiters, Work};
use super::mailbox::{Answer, Mailbox, Refusal};
use super::pipeline::Pipeline;
use super::{Limiter, Remote, Verb};
use crate::limit::{Ask, Verdict};
use crate::stats::Stats;
use crate::store::batch::{Batch, load_of};
use crate::store::embedded::Embedded;
use crate::store::reset::Reset;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Most load of one batch: it bounds the time that one script holds Redis up, to about a millisecond at worst.
const MAX_LOAD_PER_BATCH: usize = 64;
/// Most questions in one batch: it bounds what a script has to look for that runs again.
const MAX_CHECKS_PER_BATCH: usize = 1024;
/// Most questions that wait in one worker. Beyond it Redis is too slow by far, and the fallback answers at once.
const MAX_WAITING: usize = 100_000;

/// One worker's way to the limiter.
pub struct Batcher {
    pub(super) limiter: Arc<Limiter>,
    pub(super) stats: Arc<Stats>,
    pub(super) queue: RefCell<VecDeque<Job>>,
    jobs: Cell<u64>,
    /// Questions in the queue and in flight.
    pub(super) waiting: Cell<usize>,
    /// The memory of a batch that is done, for the next one.
    pub(super) spare: Cell<Option<Batch>>,
    pub(super) wake: Notify,
}

impl Batcher {
    /// A batcher for the current thread. It asks Redis while [`Batcher::run`] is polled.
    pub fn new(limiter: Arc<Limiter>, stats: Arc<Stats>) -> Self {
        Self {
            limiter,
            stats,
            queue: RefCell::default(),
            jobs: Cell::new(0),
            waiting: Cell::new(0),
            spare: Cell::new(None),
            wake: Notify::new(),
        }
    }

    /// Asks whether `check` may pass. What can be known here is answered at once; else the answer comes into the
    /// mailbox, under `ticket`, within the deadline.
    pub fn ask(&self, verb: Verb, ask: &Ask, now_us: u64, mailbox: &Rc<Mailbox>, ticket: u64) -> Option<Answer> {
        let answer = match ask.never_fits() {
            Some(verdict) => Answer::Verdict(verdict),
            None => match &*self.limiter {
                Limiter::Embedded(embedded) => ask_embedded(embedded, verb, ask, now_us),
                Limiter::Redis(remote) => self.ask_remote(remote, verb, ask, now_us, mailbox, ticket)?,
            },
        };
        if verb == Verb::Check {
            self.count(&answer);
        }
        Some(answer)
    }

    /// Forgets the keys. The answer comes as that of [`Batcher::ask`].
    pub fn reset(&self, keys: &[&[u8]], now_us: u64, mailbox: &Rc<Mailbox>, ticket: u64) -> Option<Answer> {
        match &*self.limiter {
            Limiter::Embedded(embedded) => {
                let had_state = keys.iter().filter(|key| embedded.reset(key, now_us)).count();
                Some(Answer::Reset(had_state as u64))
            }
            Limiter::Redis(remote) if !remote.breaker.is_closed() => Some(Answer::Refused(remote.refusal())),
            Limiter::Redis(remote) => {
                let mut job = self.new_job(Work::Reset(Reset::new(keys.iter().map(|key| key.to_vec()).collect())));
                let due_us = now_us + remote.timeout_us;
                job.waiters.list.push(Waiter {
                    mailbox: mailbox.clone(),
                    ticket,
                    due_us,
                    item: 0,
                    admitted_here: false,
                });
                self.queue.borrow_mut().push_back(job);
                self.on_enqueued();
                None
            }
        }
    }

    fn ask_remote(
        &self,
        remote: &Remote,
        verb: Verb,
        ask: &Ask,
        now_us: u64,
        mailbox: &Rc<Mailbox>,
        ticket: u64,
    ) -> Option<Answer> {
        if verb == Verb::Check && remote.registry.refuses(ask) {
            return Some(Answer::Refused(Refusal::Windows(remote.registry.max())));
        }
        if !remote.breaker.is_closed() || self.waiting.get() >= MAX_WAITING {
            self.stats.by_fallback.add(1);
            let answer = remote.fall_back(verb, ask, now_us);
            if verb == Verb::Check && answer.is_admission() {
                remote.ledger.admitted(ask, 1, now_us);
            }
            return Some(answer);
        }
        if let Some(verdict) = remote.deny_cache.lookup(ask, now_us) {
            self.stats.by_deny_cache.add(1);
            return Some(Answer::Verdict(verdict));
        }
        self.enqueue(remote, verb, ask, now_us, mailbox, ticket);
        None
    }

    fn enqueue(&self, remote: &Remote, verb: Verb, ask: &Ask, now_us: u64, mailbox: &Rc<Mailbox>, ticket: u64) {
        let mut queue = self.queue.borrow_mut();
        let has_room = |job: &Job| match &job.work {
            Work::Ask { verb: other, batch, .. } => {
                *other == verb
                    && !job.resent
                    && batch.load() + load_of(ask) <= MAX_LOAD_PER_BATCH
                    && job.waiters.list.len() < MAX_CHECKS_PER_BATCH
            }
            _ => false,
        };
        if !queue.back().is_some_and(has_room) {
            let id = remote.store.next_batch_id();
            let batch = self.spare.take().unwrap_or_default();
            queue.push_back(self.new_job(Work::Ask { verb, batch, id }));
        }
        if let Some(Job { work: Work::Ask { batch, .. }, waiters, .. }) = queue.back_mut() {
            let item = batch.add(ask);
            let (mailbox, due_us) = (mailbox.clone(), now_us + remote.timeout_us);
            waiters.list.push(Waiter { mailbox, ticket, due_us, item, admitted_here: false });
        }
        self.on_enqueued();
    }

    pub(super) fn new_job(&self, work: Work) -> Job {
        self.jobs.set(self.jobs.get() + 1);
        let (waiters, number) = (Waiters::default(), self.jobs.get());
        Job {
            work,
            waiters,
            number,
            sent_us: 0,
            awaited_since_us: 0,
            is_excused: false,
            ahead: 0,
            with_source: false,
            resent: false,
        }
    }

    /// Has the rest of a job wait behind all that was asked meanwhile, or, if that `is_short`, for nothing.
    pub(super) fn enqueue_rest(&self, job: Job, is_short: bool) {
        let Job { work, waiters, number, .. } = job;
        let rest = Job { waiters, ..self.new_job(work) };
        let mut queue = self.queue.borrow_mut();
        match is_short {
            true => queue.push_front(Job { number, ..rest }),
            false => queue.push_back(rest),
        }
    }

    fn on_enqueued(&self) {
        self.waiting.set(self.waiting.get() + 1);
        // The run loop is woken behind every session that is ready in this turn, so that their checks are all in.
        self.wake.notify_one();
    }

    pub(super) fn count(&self, answer: &Answer) {
        match answer {
            Answer::Verdict(Verdict { allowed: true, .. }) => self.stats.allowed.add(1),
            Answer::Verdict(_) => self.stats.denied.add(1),
            _ => {}
        }
    }

    /// Sends what is asked and keeps a connection to Redis, until dropped. Nothing to do for an embedded limiter.
    pub async fn run(self: Rc<Self>) {
        if let Limiter::Redis(remote) = &*self.limiter {
            Pipeline::new(&self, remote).run().await;
        }
    }
}

fn ask_embedded(embedded: &Embedded, verb: Verb, ask: &Ask, now_us: u64) -> Answer {
    match verb {
        Verb::Check => match embedded.check(ask, now_us) {
            Ok(verdict) => Answer::Verdict(verdict),
            Err(full) => Answer::Refused(Refusal::Full(full)),
        },
        Verb::Peek => Answer::Verdict(embedded.peek(ask, now_us)),
    }
}
