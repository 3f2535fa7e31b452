//! How a worker asks Redis: whatever its clients ask while a batch is under way, or in one turn of the event loop,
//! goes out together as the next batch.
//!
//! ```text
//! check ──► queue: [ batch ][ reset ][ batch ] ──► under way (at most MAX_UNDER_WAY) ──► mailboxes
//!              └──────────── deadline passed ──────────────┴──► fallback ──────────────────┘
//! ```
//! Jobs leave in the order in which they were asked, all on one connection, so a client's pipelined questions are
//! answered as if they had been asked one by one.

use super::job::{Job, Script, Waiter, Waiters, Work};
use super::mailbox::{Answer, Mailbox, Refusal};
use super::{Kind, Limiter, Remote};
use crate::clock::now_us;
use crate::quota::{Check, Decision};
use crate::stats::Stats;
use crate::store::batch::Batch;
use crate::store::embedded::Embedded;
use crate::store::redis::{Answers, Connection};
use redis::RedisError;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::Notify;

/// Most windows in one batch: it bounds the time that one script holds Redis up, to well below a millisecond.
const MAX_WINDOWS_PER_BATCH: usize = 64;
/// Most batches under way at once: while Redis runs one, the next is already on its way.
const MAX_UNDER_WAY: usize = 2;
/// Most questions that wait in one worker. Beyond it Redis is too slow by far, and the fallback answers at once.
const MAX_WAITING: usize = 100_000;

/// Deadlines missed in a row after which a connection is made anew.
const MAX_MISSED: u32 = 3;

/// One worker's way to the limiter.
pub struct Batcher {
    pub(super) limiter: Arc<Limiter>,
    pub(super) stats: Arc<Stats>,
    pub(super) queue: RefCell<VecDeque<Job>>,
    jobs: Cell<u64>,
    /// Questions in the queue and under way.
    pub(super) waiting: Cell<usize>,
    under_way: Cell<usize>,
    /// The script that all jobs under way run.
    running: Cell<Option<Script>>,
    /// The memory of a batch that is done, for the next one.
    spare: Cell<Option<Batch>>,
    pub(super) link: RefCell<Option<Connection>>,
    pub(super) connecting: Cell<bool>,
    /// Deadlines missed since this connection last answered.
    pub(super) missed: Cell<u32>,
    /// When records may be offered to Redis again.
    pub(super) next_write_us: Cell<u64>,
    pub(super) wake: Notify,
}

/// What Redis answered to a [`Work`].
pub(super) enum Reply {
    Windows(Answers),
    Reset(u64),
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
            under_way: Cell::new(0),
            running: Cell::new(None),
            spare: Cell::new(None),
            link: RefCell::default(),
            connecting: Cell::new(false),
            missed: Cell::new(0),
            next_write_us: Cell::new(0),
            wake: Notify::new(),
        }
    }

    /// Asks whether `check` may pass. What can be known here is answered at once; else the answer comes into the
    /// mailbox, under `ticket`, within the deadline.
    pub fn ask(&self, kind: Kind, check: &Check, now_us: u64, mailbox: &Rc<Mailbox>, ticket: u64) -> Option<Answer> {
        let answer = match check.never_fits() {
            Some(decision) => Answer::Decision(decision),
            None => match &*self.limiter {
                Limiter::Embedded(embedded) => ask_embedded(embedded, kind, check, now_us),
                Limiter::Redis(remote) => self.ask_remote(remote, kind, check, now_us, mailbox, ticket)?,
            },
        };
        if kind == Kind::Check {
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
            Limiter::Redis(remote) if !remote.breaker.is_closed() => Some(Answer::Refused(Refusal::Unavailable)),
            Limiter::Redis(remote) => {
                let mut job = self.new_job(Work::Reset { keys: keys.iter().map(|key| key.to_vec()).collect() });
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
        kind: Kind,
        check: &Check,
        now_us: u64,
        mailbox: &Rc<Mailbox>,
        ticket: u64,
    ) -> Option<Answer> {
        if !remote.breaker.is_closed() || self.waiting.get() >= MAX_WAITING {
            self.stats.by_fallback.add(1);
            let answer = remote.fall_back(kind, check, now_us);
            if kind == Kind::Check && answer.is_admission() {
                remote.ledger.admitted(check, 1, now_us);
            }
            return Some(answer);
        }
        if let Some(decision) = remote.deny_cache.lookup(check, now_us) {
            self.stats.by_deny_cache.add(1);
            return Some(Answer::Decision(decision));
        }
        self.enqueue(remote, kind, check, now_us, mailbox, ticket);
        None
    }

    fn enqueue(&self, remote: &Remote, kind: Kind, check: &Check, now_us: u64, mailbox: &Rc<Mailbox>, ticket: u64) {
        let mut queue = self.queue.borrow_mut();
        let has_room = |job: &Job| match &job.work {
            Work::Ask { kind: other, batch, .. } => {
                *other == kind && !job.resent && batch.windows() + check.quotas.len() <= MAX_WINDOWS_PER_BATCH
            }
            Work::Reset { .. } => false,
        };
        if !queue.back().is_some_and(has_room) {
            let id = remote.store.next_batch_id();
            let batch = self.spare.take().unwrap_or_default();
            queue.push_back(self.new_job(Work::Ask { kind, batch, id }));
        }
        if let Some(Job { work: Work::Ask { batch, .. }, waiters, .. }) = queue.back_mut() {
            let item = batch.add(check);
            let (mailbox, due_us) = (mailbox.clone(), now_us + remote.timeout_us);
            waiters.list.push(Waiter { mailbox, ticket, due_us, item, admitted_here: false });
        }
        self.on_enqueued();
    }

    fn new_job(&self, work: Work) -> Job {
        self.jobs.set(self.jobs.get() + 1);
        Job { work, waiters: Waiters::default(), number: self.jobs.get(), resent: false }
    }

    fn on_enqueued(&self) {
        self.waiting.set(self.waiting.get() + 1);
        // The run loop is woken behind every session that is ready in this turn, so that their checks are all in.
        self.wake.notify_one();
    }

    pub(super) fn count(&self, answer: &Answer) {
        match answer {
            Answer::Decision(Decision { allowed: true, .. }) => self.stats.allowed.add(1),
            Answer::Decision(_) => self.stats.denied.add(1),
            _ => {}
        }
    }

    /// Sends what is asked and keeps the connection to Redis, until dropped. Nothing to do for an embedded limiter.
    pub async fn run(self: Rc<Self>) {
        let limiter = self.limiter.clone();
        let Limiter::Redis(remote) = &*limiter else { return };
        loop {
            let now = now_us();
            self.expire_queued(remote, now);
            self.keep_connected(remote, now);
            self.send_queued(now);
            self.keep_books(now);
            let due_us = self.queue.borrow().front().and_then(|job| job.waiters.next_due_us());
            let due_us = [due_us, remote.breaker.next_probe_us()];
            let sleep_us = due_us.into_iter().flatten().min().map_or(u64::MAX, |due_us| due_us.saturating_sub(now));
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_micros(sleep_us.min(1_000_000))) => {}
            }
        }
    }

    fn expire_queued(&self, remote: &Remote, now_us: u64) {
        let up = remote.breaker.is_closed();
        let mut timed_out = false;
        self.queue.borrow_mut().retain_mut(|job| {
            let until_us = if up { now_us } else { u64::MAX };
            timed_out |= self.expire(remote, &job.work, &mut job.waiters, until_us, now_us);
            let is_wanted = job.waiters.next_due_us().is_some();
            if !is_wanted {
                self.abandon(remote, job, job.resent, now_us);
            }
            is_wanted
        });
        if timed_out && up {
            self.on_timeout(remote, now_us);
        }
    }

    fn on_timeout(&self, remote: &Remote, now_us: u64) {
        self.stats.timeouts.add(1);
        // All that waits when Redis stalls is due at about the same time, which is one failure and not several.
        let last_us = remote.last_timeout_us.swap(now_us, Relaxed);
        if now_us.saturating_sub(last_us) < remote.timeout_us {
            remote.last_timeout_us.store(last_us, Relaxed);
            return;
        }
        let is_news = remote.breaker.failure(now_us);
        remote.on_down(is_news, &format_args!("no answer within {} ms", remote.timeout_us / 1000), false);
        // The answers that other workers get on their connections keep the breaker closed, and say nothing of this one,
        // which may be half-open: nothing ever comes on it, nor does its end.
        self.missed.set(self.missed.get() + 1);
        if is_news || self.missed.get() >= MAX_MISSED {
            self.missed.set(0);
            self.disconnect();
        }
    }

    fn send_queued(self: &Rc<Self>, now_us: u64) {
        let Some(link) = self.link.borrow().clone() else { return };
        while self.under_way.get() < MAX_UNDER_WAY {
            let Some(next) = self.queue.borrow().front().map(|job| job.work.script()) else { return };
            // A script that Redis has forgotten is sent again, and must not be overtaken by another one meanwhile.
            if self.under_way.get() > 0 && self.running.get() != Some(next) {
                return;
            }
            self.running.set(Some(next));
            let Some(job) = self.queue.borrow_mut().pop_front() else { return };
            self.under_way.set(self.under_way.get() + 1);
            self.stats.batches.add(1);
            tokio::task::spawn_local(self.clone().send(link.clone(), job, now_us));
        }
    }

    async fn send(self: Rc<Self>, mut link: Connection, mut job: Job, sent_us: u64) {
        let Limiter::Redis(remote) = &*self.limiter else { return };
        let outcome = self.exchange(remote, &mut link, &mut job).await;
        self.under_way.set(self.under_way.get() - 1);
        match outcome {
            Ok(reply) => {
                self.settle(remote, &job, reply, sent_us);
                if let Work::Ask { mut batch, .. } = job.work {
                    batch.clear();
                    self.spare.set(Some(batch));
                }
            }
            Err(error) => self.on_error(remote, &link, job, &error),
        }
        self.wake.notify_one();
    }

    /// Asks and awaits the answer. Who is due before it comes is answered by the fallback meanwhile; the answer is
    /// worth having all the same.
    async fn exchange(&self, remote: &Remote, link: &mut Connection, job: &mut Job) -> Result<Reply, RedisError> {
        let lost = link.lost.clone();
        let request = async {
            match &job.work {
                Work::Ask { kind: Kind::Check, batch, id } => {
                    remote.store.check(link, batch, id).await.map(Reply::Windows)
                }
                Work::Ask { kind: Kind::Peek, batch, .. } => remote.store.peek(link, batch).await.map(Reply::Windows),
                Work::Reset { keys } => remote.store.reset(link, keys).await.map(Reply::Reset),
            }
        };
        tokio::pin!(request);
        loop {
            let due_us = job.waiters.next_due_us();
            let wait = Duration::from_micros(due_us.map_or(0, |due_us| due_us.saturating_sub(now_us())));
            tokio::select! {
                biased;
                outcome = &mut request => return outcome,
                () = lost.cancelled() => return Err(RedisError::from((redis::ErrorKind::Io, "the connection is lost"))),
                () = tokio::time::sleep(wait), if due_us.is_some() => {
                    let now_us = now_us();
                    if self.expire(remote, &job.work, &mut job.waiters, now_us, now_us) {
                        self.on_timeout(remote, now_us);
                    }
                }
            }
        }
    }
}

fn ask_embedded(embedded: &Embedded, kind: Kind, check: &Check, now_us: u64) -> Answer {
    match kind {
        Kind::Check => embedded.check(check, now_us).map_or(Answer::Refused(Refusal::Full), Answer::Decision),
        Kind::Peek => Answer::Decision(embedded.peek(check, now_us)),
    }
}
