//! How a worker asks Redis: whatever its clients ask while a batch is under way, or in one turn of the event loop,
//! goes out together as the next batch.
//!
//! ```text
//! check ──► queue: [ batch ][ reset ][ batch ] ──► under way (at most MAX_UNDER_WAY) ──► mailboxes
//!              └──────────── deadline passed ──────────────┴──► fallback ──────────────────┘
//! ```
//! Jobs leave in the order in which they were asked, all on one connection, so a client's pipelined questions are
//! answered as if they had been asked one by one.

use super::mailbox::{Answer, Mailbox, Refusal};
use super::{Kind, Limiter, Remote};
use crate::clock::now_us;
use crate::quota::{Check, Decision, WindowState, decide};
use crate::stats::Stats;
use crate::store::batch::Batch;
use crate::store::embedded::Embedded;
use crate::store::redis::{Connection, WindowAnswer};
use redis::RedisError;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{info, warn};

/// Most windows in one batch: it bounds the time that one script holds Redis up, to well below a millisecond.
const MAX_WINDOWS_PER_BATCH: usize = 64;
/// Most batches under way at once: while Redis runs one, the next is already on its way.
const MAX_UNDER_WAY: usize = 2;
/// Most questions that wait in one worker. Beyond it Redis is too slow by far, and the fallback answers at once.
const MAX_WAITING: usize = 100_000;

/// One worker's way to the limiter.
pub struct Batcher {
    limiter: Arc<Limiter>,
    stats: Arc<Stats>,
    queue: RefCell<VecDeque<Job>>,
    jobs: Cell<u64>,
    /// Questions in the queue and under way.
    waiting: Cell<usize>,
    under_way: Cell<usize>,
    link: RefCell<Option<Connection>>,
    connecting: Cell<bool>,
    wake: Notify,
}

/// Who asked, and by when the answer is due.
#[derive(Debug)]
struct Waiter {
    mailbox: Rc<Mailbox>,
    ticket: u64,
    due_us: u64,
    /// Which item of the batch the question is part of.
    item: usize,
}

/// Those who wait for one job, in the order in which they asked, so the first is due first.
#[derive(Debug, Default)]
struct Waiters {
    list: Vec<Waiter>,
    /// How many of them the fallback has answered already.
    expired: usize,
}

impl Waiters {
    fn next_due_us(&self) -> Option<u64> {
        self.list.get(self.expired).map(|waiter| waiter.due_us)
    }
}

#[derive(Debug)]
struct Job {
    work: Work,
    waiters: Waiters,
    /// Place in the order of jobs.
    number: u64,
    /// It was sent before, on a connection that broke.
    resent: bool,
}

#[derive(Debug)]
enum Work {
    Ask { kind: Kind, batch: Batch, id: String },
    Reset { keys: Vec<Vec<u8>> },
}

/// What Redis answered to a [`Work`].
enum Reply {
    Windows(Vec<WindowAnswer>),
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
            link: RefCell::default(),
            connecting: Cell::new(false),
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
                job.waiters.list.push(Waiter { mailbox: mailbox.clone(), ticket, due_us, item: 0 });
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
            return Some(remote.fall_back(kind, check, now_us));
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
            queue.push_back(self.new_job(Work::Ask { kind, batch: Batch::default(), id }));
        }
        if let Some(Job { work: Work::Ask { batch, .. }, waiters, .. }) = queue.back_mut() {
            let item = batch.add(check);
            waiters.list.push(Waiter { mailbox: mailbox.clone(), ticket, due_us: now_us + remote.timeout_us, item });
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

    fn count(&self, answer: &Answer) {
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
            job.waiters.next_due_us().is_some()
        });
        if timed_out && up {
            self.on_timeout(remote, now_us);
        }
    }

    /// Answers those who are due by `until_us` in Redis's place. Whether there was any.
    fn expire(&self, remote: &Remote, work: &Work, waiters: &mut Waiters, until_us: u64, now_us: u64) -> bool {
        let first = waiters.expired;
        while let Some(waiter) = waiters.list.get(waiters.expired).filter(|waiter| waiter.due_us <= until_us) {
            let answer = match work {
                Work::Reset { .. } => Answer::Refused(Refusal::Unavailable),
                Work::Ask { kind, batch, .. } => match batch.items().get(waiter.item) {
                    Some(item) => remote.fall_back(*kind, &batch.check_of(item), now_us),
                    None => Answer::Refused(Refusal::Unavailable),
                },
            };
            self.stats.by_fallback.add(1);
            self.deliver(work, waiter, answer);
            waiters.expired += 1;
        }
        waiters.expired > first
    }

    fn deliver(&self, work: &Work, waiter: &Waiter, answer: Answer) {
        if matches!(work, Work::Ask { kind: Kind::Check, .. }) {
            self.count(&answer);
        }
        self.waiting.set(self.waiting.get() - 1);
        waiter.mailbox.deliver(waiter.ticket, answer);
    }

    fn on_timeout(&self, remote: &Remote, now_us: u64) {
        self.stats.timeouts.add(1);
        if remote.breaker.failure(now_us) {
            warn!(timeout_us = remote.timeout_us, "redis does not answer in time: the fallback answers");
            self.disconnect();
        }
    }

    fn disconnect(&self) {
        if let Some(link) = self.link.take() {
            link.lost.cancel();
        }
    }

    fn keep_connected(self: &Rc<Self>, remote: &Remote, now_us: u64) {
        let mut link = self.link.borrow_mut();
        if link.as_ref().is_some_and(|link| link.lost.is_cancelled()) {
            *link = None;
        }
        let wanted = link.is_none() && !self.connecting.get();
        if wanted && (remote.breaker.is_closed() || remote.breaker.probe_due(now_us)) {
            self.connecting.set(true);
            tokio::task::spawn_local(self.clone().connect());
        }
    }

    async fn connect(self: Rc<Self>) {
        let Limiter::Redis(remote) = &*self.limiter else { return };
        let attempt = async {
            let mut link = Connection::open(&remote.dialer, remote.connect_timeout).await?;
            // A script is what has to work: a Redis that is loading or busy, or asks for a password, says so here.
            remote.store.check(&mut link, &Batch::default(), "").await?;
            if let Ok(version) = link.version().await {
                remote.set_redis_version(version);
            }
            Ok::<_, RedisError>(link)
        };
        let outcome = match tokio::time::timeout(remote.connect_timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RedisError::from((redis::ErrorKind::Io, "no answer"))),
        };
        match outcome {
            Ok(link) => {
                if remote.breaker.success() {
                    info!(redis = ?remote.dialer, "redis answers again");
                }
                let lost = link.lost.clone();
                *self.link.borrow_mut() = Some(link);
                let batcher = self.clone();
                tokio::task::spawn_local(async move {
                    lost.cancelled().await;
                    batcher.wake.notify_one();
                });
            }
            Err(error) => {
                if remote.breaker.lost(now_us()) {
                    warn!(redis = ?remote.dialer, %error, "redis cannot be reached: the fallback answers");
                }
            }
        }
        self.connecting.set(false);
        self.wake.notify_one();
    }

    fn send_queued(self: &Rc<Self>, now_us: u64) {
        let Some(link) = self.link.borrow().clone() else { return };
        while self.under_way.get() < MAX_UNDER_WAY {
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
        match (outcome, &job.work) {
            (Ok(Reply::Windows(answers)), Work::Ask { kind, batch, .. }) => {
                remote.breaker.success();
                self.settle(remote, *kind, batch, &job, answers, sent_us);
            }
            (Ok(Reply::Reset(count)), Work::Reset { keys }) => {
                remote.breaker.success();
                for key in keys {
                    remote.forget(key, now_us());
                }
                for waiter in job.waiters.list.iter().skip(job.waiters.expired) {
                    self.deliver(&job.work, waiter, Answer::Reset(count));
                }
            }
            (Ok(_), _) => debug_assert!(false, "a reply to another question"),
            (Err(error), _) => self.on_error(remote, &link, job, &error),
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

    /// Hands out Redis's answers, and keeps of them what will save asking or inform the fallback.
    fn settle(&self, remote: &Remote, kind: Kind, batch: &Batch, job: &Job, answers: Vec<WindowAnswer>, sent_us: u64) {
        let now_us = now_us();
        let mut items: Vec<ItemOutcome> = unpack(batch, &answers).map(ItemOutcome::of).collect();
        for (index, waiter) in job.waiters.list.iter().enumerate() {
            let Some((item, outcome)) = batch.items().get(waiter.item).zip(items.get_mut(waiter.item)) else {
                continue;
            };
            let check = batch.check_of(item);
            let answer = match outcome {
                ItemOutcome::WrongType => Answer::Refused(Refusal::WrongType),
                ItemOutcome::States(states) => {
                    let decision = decide(check.quotas, states, check.cost);
                    if decision.allowed && kind == Kind::Check {
                        for (state, quota) in states.iter_mut().zip(check.quotas) {
                            state.count(check.cost, quota.window);
                        }
                    }
                    Answer::Decision(decision)
                }
            };
            if index >= job.waiters.expired {
                self.stats.by_store.add(1);
                self.deliver(&job.work, waiter, answer);
            }
        }
        for ((item, outcome), answers) in batch.items().iter().zip(&items).zip(unpack(batch, &answers)) {
            if let ItemOutcome::States(states) = outcome {
                remote.learn(&batch.check_of(item), states, answers, sent_us, now_us);
            }
        }
    }

    fn on_error(&self, remote: &Remote, link: &Connection, mut job: Job, error: &RedisError) {
        let now_us = now_us();
        let broken = error.is_unrecoverable_error() || link.lost.is_cancelled();
        if broken {
            link.lost.cancel();
            if !job.resent && remote.breaker.is_closed() {
                // Redis may have closed an idle connection: that is no reason to answer less than exactly. The
                // entries keep their ids, so what ran before the connection broke is not counted again.
                job.resent = true;
                let mut queue = self.queue.borrow_mut();
                let place = queue.partition_point(|queued| queued.number < job.number);
                queue.insert(place, job);
                return;
            }
        }
        self.expire(remote, &job.work, &mut job.waiters, u64::MAX, now_us);
        if remote.breaker.failure(now_us) {
            warn!(%error, "redis refuses to work: the fallback answers");
            link.lost.cancel();
        }
    }
}

/// Where the windows of one item stand.
enum ItemOutcome {
    States(Vec<WindowState>),
    WrongType,
}

impl ItemOutcome {
    fn of(answers: &[WindowAnswer]) -> Self {
        let states = answers.iter().map(|answer| match answer {
            WindowAnswer::State { state, .. } => Some(*state),
            WindowAnswer::WrongType => None,
        });
        states.collect::<Option<_>>().map_or(Self::WrongType, Self::States)
    }
}

/// The script's answers, item by item.
fn unpack<'a>(batch: &'a Batch, answers: &'a [WindowAnswer]) -> impl Iterator<Item = &'a [WindowAnswer]> {
    batch.items().iter().scan(0, |start, item| {
        let end = *start + batch.check_of(item).quotas.len();
        answers.get(std::mem::replace(start, end)..end)
    })
}

fn ask_embedded(embedded: &Embedded, kind: Kind, check: &Check, now_us: u64) -> Answer {
    match kind {
        Kind::Check => embedded.check(check, now_us).map_or(Answer::Refused(Refusal::Full), Answer::Decision),
        Kind::Peek => Answer::Decision(embedded.peek(check, now_us)),
    }
}
