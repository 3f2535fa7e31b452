//! What a worker has yet to send to one node, in the order in which it was asked: jobs, of which those that ask are
//! joined to batches for as long as they wait.
//!
//! ```text
//! ask ──► [ batch ][ reset ][ batch ] ──► in flight (`pipeline.rs`) ──► mailboxes
//!             └──────────── deadline passed ──────────────┴──► fallback ──────────────────┘
//! ```

use super::job::{Job, Waiter, Work};
use super::mailbox::Answer;
use super::node::Node;
use super::throttle;
use crate::limit::{Ask, Counter, Form, Verb};
use crate::stats::{Source, Stats};
use crate::store::batch::{Batch, load_of};
use crate::store::redis::{RedisStore, Rest};
use crate::store::throttle::ThrottleBatch;
use crate::throttle::Question;
use crate::topology::slot::Slot;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Most load of one batch: it bounds the time that one script holds Redis up, to about a millisecond at worst.
const MAX_LOAD_PER_BATCH: usize = 64;
/// Most questions in one batch: it bounds what a script has to look for that runs again.
const MAX_CHECKS_PER_BATCH: usize = 1024;
/// Most shares of which something waits to be given back, and most that one run gives back. What finds no room counts until
/// its window has passed.
const MAX_RESTS: usize = 10_000;
const MAX_RESTS_PER_RUN: usize = 16;
/// Most questions that wait in one queue. Beyond it Redis is too slow by far, and the fallback answers at once.
const MAX_WAITING: usize = 100_000;

/// One worker's queue before one node.
pub struct Queue {
    /// Who is asked.
    pub node: Arc<Node>,
    /// The worker's counters.
    pub(super) stats: Arc<Stats>,
    jobs: RefCell<VecDeque<Job>>,
    /// How many jobs there were so far.
    numbers: Cell<u64>,
    /// Questions here and in flight.
    waiting: Cell<usize>,
    /// The memory of a batch that is done, for the next one.
    spare: Cell<Option<Batch>>,
    wake: Notify,
    /// The node is none any more.
    is_closed: Cell<bool>,
    /// What is known of how long logs live holds no longer.
    has_stale_ttls: Cell<bool>,
    /// Counters that others of this worker's ask to have registered.
    unregistered: RefCell<Vec<Counter>>,
    /// What is to be given back of shares, and in which slot.
    rests: RefCell<VecDeque<(Option<Slot>, Rest)>>,
    /// Each job that gives something back holds it.
    giving_back: Rc<()>,
}

impl Queue {
    pub(super) fn new(node: Arc<Node>, stats: Arc<Stats>) -> Self {
        Self {
            node,
            stats,
            jobs: RefCell::default(),
            numbers: Cell::new(0),
            waiting: Cell::new(0),
            spare: Cell::new(None),
            wake: Notify::new(),
            is_closed: Cell::new(false),
            has_stale_ttls: Cell::new(false),
            unregistered: RefCell::default(),
            rests: RefCell::default(),
            giving_back: Rc::default(),
        }
    }

    /// Whether one more question may wait, for a node that answers.
    pub(super) fn takes_more(&self) -> bool {
        self.node.health.is_up() && self.waiting.get() < MAX_WAITING
    }

    /// Adds a question to the batch at the end, or to a new one. In a cluster the logs are of this slot.
    pub(super) fn ask(&self, store: &RedisStore, verb: Verb, ask: &Ask<'_>, slot: Option<Slot>, waiter: Waiter) {
        let is_full = waiter.form == Form::Full;
        self.add(store, verb, ask, slot, waiter, |batch| {
            let item = batch.add(ask);
            if is_full {
                batch.ask_in_full(item);
            }
            item
        });
    }

    /// The same of the question for a share that lives so long, in microseconds.
    pub(super) fn ask_share(
        &self,
        store: &RedisStore,
        ask: &Ask<'_>,
        life_us: u64,
        slot: Option<Slot>,
        waiter: Waiter,
    ) {
        self.add(store, Verb::Check, ask, slot, waiter, |batch| batch.add_share(ask, life_us));
    }

    fn add(
        &self,
        store: &RedisStore,
        verb: Verb,
        ask: &Ask<'_>,
        slot: Option<Slot>,
        waiter: Waiter,
        add: impl FnOnce(&mut Batch) -> usize,
    ) {
        let slot = slot.filter(|_| self.node.declares_keys());
        let mut jobs = self.jobs.borrow_mut();
        let has_room = |job: &Job| match &job.work {
            Work::Ask { verb: other, batch, .. } => {
                *other == verb
                    && !job.resent
                    && job.slot == slot
                    && batch.load() + load_of(ask) <= MAX_LOAD_PER_BATCH
                    && job.waiters.list.len() < MAX_CHECKS_PER_BATCH
            }
            _ => false,
        };
        if !jobs.back().is_some_and(has_room) {
            let id = store.next_batch_id();
            let batch = self.spare.take().unwrap_or_default();
            jobs.push_back(Job { slot, ..self.new_job(Work::Ask { verb, batch, id }) });
        }
        if let Some(Job { work: Work::Ask { batch, .. }, waiters, .. }) = jobs.back_mut() {
            let item = add(batch);
            waiters.list.push(Waiter { item, ..waiter });
        }
        self.on_asked();
    }

    /// Adds a throttle of the key of this name to the batch at the end, or to a new one.
    pub(super) fn throttle(&self, name: &[u8], question: Question, slot: Option<Slot>, waiter: Waiter) {
        let slot = slot.filter(|_| self.node.declares_keys());
        let mut jobs = self.jobs.borrow_mut();
        let has_room = |job: &Job| {
            matches!(&job.work, Work::Throttle(batch) if batch.len() < MAX_LOAD_PER_BATCH)
                && !job.resent
                && job.slot == slot
                && job.waiters.list.len() < MAX_CHECKS_PER_BATCH
        };
        if !jobs.back().is_some_and(has_room) {
            jobs.push_back(Job { slot, ..self.new_job(Work::Throttle(ThrottleBatch::default())) });
        }
        if let Some(Job { work: Work::Throttle(batch), waiters, .. }) = jobs.back_mut() {
            let item = batch.add(name, question);
            waiters.list.push(Waiter { item, ..waiter });
        }
        self.on_asked();
    }

    /// Adds a reset, or a look at a key. In a cluster the logs are of this slot.
    pub(super) fn push(&self, work: Work, slot: Option<Slot>, waiter: Waiter) {
        let mut job = Job { slot, ..self.new_job(work) };
        job.waiters.list.push(waiter);
        self.jobs.borrow_mut().push_back(job);
        self.on_asked();
    }

    fn on_asked(&self) {
        self.waiting.set(self.waiting.get() + 1);
        // The pipeline is woken behind every session that is ready in this turn, so that their checks are all in.
        self.wake.notify_one();
    }

    /// Returns once something was asked since the last time.
    pub(super) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// A job, which is not in the queue.
    pub(super) fn new_job(&self, work: Work) -> Job {
        self.numbers.set(self.numbers.get() + 1);
        Job::new(work, self.numbers.get())
    }

    /// The next job, if it `may_leave`.
    pub(super) fn next_if(&self, may_leave: impl FnOnce(&Job) -> bool) -> Option<Job> {
        let mut jobs = self.jobs.borrow_mut();
        may_leave(jobs.front()?).then(|| jobs.pop_front())?
    }

    /// When the first is due who waits here.
    pub(super) fn next_due_us(&self) -> Option<u64> {
        self.jobs.borrow().front().and_then(Job::next_due_us)
    }

    /// Drops the jobs of which `keep` does not say that they are to stay.
    pub(super) fn retain(&self, keep: impl FnMut(&mut Job) -> bool) {
        let mut jobs = self.jobs.take();
        jobs.retain_mut(keep);
        self.jobs.replace(jobs);
    }

    /// Has a job that was sent in vain wait anew, where it stood.
    pub(super) fn put_back(&self, job: Job) {
        let mut jobs = self.jobs.borrow_mut();
        let place = jobs.partition_point(|queued| queued.number <= job.number);
        jobs.insert(place, job);
    }

    /// Has the rest of a job wait behind all that was asked meanwhile, or, if that `is_short`, for nothing.
    pub(super) fn put_rest(&self, job: Job, is_short: bool) {
        let Job { work, waiters, number, slot, .. } = job;
        let rest = Job { waiters, slot, ..self.new_job(work) };
        let mut jobs = self.jobs.borrow_mut();
        match is_short {
            true => jobs.push_front(Job { number, ..rest }),
            false => jobs.push_back(rest),
        }
    }

    /// Has a job that the queue `from` had wait here, in front of all others.
    pub(super) fn adopt(&self, job: Job, from: &Self) {
        let unanswered = job.waiters.unanswered();
        from.waiting.set(from.waiting.get() - unanswered);
        self.waiting.set(self.waiting.get() + unanswered);
        self.put_back(Job { number: 0, ..job });
        self.wake();
    }

    /// Gives up a job that the queue had. Returns who still waits for it.
    pub(super) fn let_go(&self, Job { waiters, .. }: Job) -> impl Iterator<Item = Waiter> {
        self.waiting.set(self.waiting.get() - waiters.unanswered());
        waiters.list.into_iter().skip(waiters.expired)
    }

    /// Looks at what is to be done.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// The node is none any more: what waits is to be asked of others.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.wake();
    }

    /// Whether it is.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Has what is known of how long logs live be forgotten.
    pub(super) fn forget_ttls(&self) {
        self.has_stale_ttls.set(true);
    }

    /// Whether it is to be.
    pub(super) fn take_stale_ttls(&self) -> bool {
        self.has_stale_ttls.take()
    }

    /// Takes all that waits.
    pub(super) fn take_all(&self) -> Vec<Job> {
        self.jobs.take().into()
    }

    /// Has the node, which keeps the registry, register counters.
    pub(super) fn register(&self, counters: Vec<Counter>) {
        let mut unregistered = self.unregistered.borrow_mut();
        counters.into_iter().for_each(|counter| {
            if !unregistered.contains(&counter) {
                unregistered.push(counter);
            }
        });
        self.wake();
    }

    /// Takes the counters that are to be registered.
    pub(super) fn take_unregistered(&self) -> Vec<Counter> {
        self.unregistered.take()
    }

    /// Has what is left of a share be given back. In a cluster its logs are of this slot.
    pub(super) fn give_back(&self, rest: Rest, slot: Option<Slot>) {
        let slot = slot.filter(|_| self.node.declares_keys());
        let mut rests = self.rests.borrow_mut();
        if rests.len() < MAX_RESTS {
            rests.push_back((slot, rest));
        }
        self.wake();
    }

    /// Whether something is, or will be.
    pub(super) fn is_giving_back(&self) -> bool {
        Rc::strong_count(&self.giving_back) > 1 || !self.rests.borrow().is_empty()
    }

    /// A job that gives back some of what is to be, all of one slot where that matters.
    pub(super) fn next_give_back(&self, now_us: u64) -> Option<Job> {
        let mut rests = self.rests.borrow_mut();
        let slot = rests.front().map(|(slot, _)| *slot)?;
        let alike = rests.iter().take(MAX_RESTS_PER_RUN).take_while(|(other, _)| *other == slot).count();
        let rests = rests.drain(..alike).map(|(_, rest)| rest).collect();
        let (due_us, is_under_way) = (self.node.patience_ends_us(now_us), self.giving_back.clone());
        Some(Job { slot, ..self.new_job(Work::GiveBack { rests, due_us, is_under_way }) })
    }

    /// A share was waited for, and is no longer.
    pub(super) fn on_share_answered(&self) {
        self.waiting.set(self.waiting.get() - 1);
    }

    /// Gives somebody the answer who asked here, from `source`.
    pub(super) fn deliver(&self, work: &Work, waiter: &Waiter, source: Source, answer: Answer, now_us: u64) {
        if let Work::Ask { verb: Verb::Check, batch, .. } = work
            && let Some(item) = batch.items().get(waiter.item)
        {
            answer.count(source, &batch.ask_of(item), &self.stats, now_us);
        }
        if let Work::Throttle(batch) = work
            && let Some((name, question)) = batch.get(waiter.item)
        {
            throttle::count(&question, name, &answer, source, &self.stats, now_us);
        }
        self.waiting.set(self.waiting.get() - 1);
        waiter.deliver(answer);
    }

    /// Gives all who still wait for a job the same answer.
    pub(super) fn deliver_all(&self, Job { work, waiters, .. }: &Job, answer: Answer, now_us: u64) {
        waiters
            .list
            .iter()
            .skip(waiters.expired)
            .for_each(|waiter| self.deliver(work, waiter, Source::Store, answer.clone(), now_us));
    }

    /// A batch is done: its memory serves another.
    pub(super) fn take_spare(&self, mut batch: Batch) {
        batch.clear();
        self.spare.set(Some(batch));
    }
}
