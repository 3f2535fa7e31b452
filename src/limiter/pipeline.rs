//! A worker's jobs on their way to Redis and back: sent on one connection in the order in which they were asked, and
//! answered in that order, a few under way at once.

use super::batcher::Batcher;
use super::diagnosis::{Kind as ProblemKind, Problem};
use super::job::{Job, Work};
use super::{Kind, Remote, connect};
use crate::clock::now_us;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::lifetimes::Lifetimes;
use std::collections::VecDeque;
use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task;
use tokio::time::{Instant, Sleep, sleep};

/// Most jobs under way at once: while Redis runs one, the next is already on its way.
const MAX_UNDER_WAY: usize = 2;
/// Deadlines missed in a row after which a connection is made anew.
const MAX_MISSED: u32 = 3;
/// Most records in one script: it bounds the time that the script holds Redis up.
pub(super) const MAX_RECORDS: usize = 64;
/// Wait before records that Redis did not take are offered again.
const RETRY_US: u64 = 100_000;
/// By then Redis runs what it is sent, as a rule. If it does not, it has to ask itself what it was told to last.
const MAX_STALL_US: i64 = 10_000;
/// Wait before a connection is tried again for which Tollgate had no file descriptor.
const STARVED_US: u64 = 100_000;
/// Longest time without a look at the breaker, which other workers share.
const LONGEST_SLEEP_US: u64 = 1_000_000;

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Connection, Problem>> + 'a>>;

/// One worker's way to Redis.
pub(super) struct Pipeline<'a> {
    pub(super) batcher: &'a Batcher,
    pub(super) remote: &'a Remote,
    link: Option<Connection>,
    connecting: Option<Attempt<'a>>,
    /// In the order in which they were sent.
    under_way: VecDeque<Job>,
    pub(super) lifetimes: Lifetimes,
    /// Deadlines missed since this connection last answered.
    pub(super) missed: u32,
    /// When records may be offered to Redis again.
    pub(super) next_write_us: u64,
    /// Tollgate itself could not make a connection, and tries again then.
    starved_until_us: Option<u64>,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(batcher: &'a Batcher, remote: &'a Remote) -> Self {
        Self {
            batcher,
            remote,
            link: None,
            connecting: None,
            under_way: VecDeque::new(),
            lifetimes: Lifetimes::default(),
            missed: 0,
            next_write_us: 0,
            starved_until_us: None,
        }
    }

    /// Sends what is asked and keeps the connection, until dropped.
    pub(super) async fn run(mut self) {
        let mut alarm = pin!(sleep(Duration::ZERO));
        loop {
            // What has come is in time, even if this thread is late.
            while let Some(outcome) = reply_at_hand(&mut self.link).await {
                self.on_reply(outcome);
            }
            let now_us = now_us();
            self.expire_late(now_us);
            self.keep_connected(now_us);
            self.send(now_us);
            self.set_alarm(alarm.as_mut(), now_us);
            tokio::select! {
                biased;
                outcome = next_reply(&mut self.link) => self.on_reply(outcome),
                outcome = connected(&mut self.connecting) => self.on_connected(outcome),
                () = self.batcher.wake.notified() => {}
                // A thread that was stopped may hear of the time before it hears of what has come meanwhile.
                () = &mut alarm => task::yield_now().await,
            }
        }
    }

    /// Set anew only if it would ring too late: most answers come in time, and their deadlines need no alarm.
    fn set_alarm(&self, alarm: Pin<&mut Sleep>, now_us: u64) {
        let queue = self.batcher.queue.borrow();
        let due_us = self.under_way.iter().chain(queue.front()).filter_map(Job::next_due_us);
        let due_us = due_us.chain(self.starved_until_us.filter(|until_us| *until_us > now_us));
        let due_us = due_us.chain(self.remote.breaker.next_probe_us()).min().unwrap_or(u64::MAX);
        let wait = Duration::from_micros(due_us.saturating_sub(now_us).min(LONGEST_SLEEP_US));
        let deadline = Instant::now() + wait;
        if alarm.is_elapsed() || deadline < alarm.deadline() {
            alarm.reset(deadline);
        }
    }

    /// Answers those for whom Redis is too late.
    fn expire_late(&mut self, now_us: u64) {
        let mut jobs = self.batcher.queue.take();
        let up = self.remote.breaker.is_closed();
        let mut timed_out = false;
        jobs.retain_mut(|job| {
            timed_out |= self.expire(job, if up { now_us } else { u64::MAX }, now_us) && up;
            let is_wanted = job.next_due_us().is_some();
            if !is_wanted {
                self.abandon(job, job.resent, now_us);
            }
            is_wanted
        });
        self.batcher.queue.replace(jobs);
        let mut under_way = std::mem::take(&mut self.under_way);
        for job in &mut under_way {
            timed_out |= self.expire(job, now_us, now_us);
        }
        let stuck = under_way.iter().any(|job| job.is_stuck(now_us));
        self.under_way = under_way;
        if timed_out {
            self.on_timeout(now_us);
        }
        if stuck {
            self.disconnect(&Error::late());
        }
    }

    fn on_timeout(&mut self, now_us: u64) {
        let (remote, timeout_us) = (self.remote, self.remote.timeout_us);
        self.batcher.stats.timeouts.add(1);
        if self.starved_until_us.is_some() {
            // It is not Redis that is late.
            return;
        }
        // All that waits when Redis stalls is due at about the same time, which is one failure and not several.
        let is_another = |last_us| (now_us.saturating_sub(last_us) >= timeout_us).then_some(now_us);
        if remote.last_timeout_us.fetch_update(Relaxed, Relaxed, is_another).is_err() {
            return;
        }
        let is_news = remote.breaker.failure(now_us);
        remote.on_down(is_news, &format_args!("no answer within {} ms", timeout_us / 1000), false);
        // The answers that other workers get on their connections keep the breaker closed, and say nothing of this one,
        // which may be half-open: nothing ever comes on it, nor does its end.
        self.missed += 1;
        if is_news || self.missed >= MAX_MISSED {
            self.missed = 0;
            self.disconnect(&Error::late());
        }
    }

    /// Sees to it that there is a connection, as far as the breaker lets.
    fn keep_connected(&mut self, now_us: u64) {
        let is_open = !self.remote.breaker.is_closed();
        if is_open {
            // Only a probe may close it, and a probe is a connection made anew.
            self.disconnect(&Error::late());
        }
        let is_starved = self.starved_until_us.is_some_and(|until_us| now_us < until_us);
        let is_wanted = self.link.is_none() && self.connecting.is_none() && !is_starved;
        if is_wanted && (!is_open || self.remote.breaker.probe_due(now_us)) {
            self.connecting = Some(Box::pin(connect::open_and_probe(self.batcher, self.remote)));
        }
    }

    fn on_connected(&mut self, outcome: Result<Connection, Problem>) {
        self.connecting = None;
        self.starved_until_us = None;
        match outcome {
            Ok(link) => {
                self.remote.on_up();
                // It may be another Redis.
                self.lifetimes.clear();
                self.link = Some(link);
            }
            Err(problem) if problem.kind == ProblemKind::Own && self.remote.breaker.is_closed() => {
                self.starved_until_us = Some(now_us() + STARVED_US);
                self.remote.on_own_failure(&problem);
            }
            Err(problem) => self.remote.on_problem(self.remote.breaker.lost(now_us()), problem),
        }
    }

    /// Gives the connection up. What was under way on it has failed.
    pub(super) fn disconnect(&mut self, error: &Error) {
        if self.link.take().is_some() {
            for job in std::mem::take(&mut self.under_way) {
                self.on_lost(job, error);
            }
        }
    }

    /// Sends what is asked, as far as there is room on the way.
    fn send(&mut self, now_us: u64) {
        while self.link.is_some() && self.under_way.len() < MAX_UNDER_WAY {
            let Some(mut job) = self.records_due(now_us).or_else(|| self.next_asked()) else { return };
            job.sent_us = now_us;
            self.batcher.stats.batches.add(1);
            self.send_job(job);
        }
    }

    fn send_job(&mut self, mut job: Job) {
        let (Some(link), remote) = (&mut self.link, self.remote) else { return };
        let run = match &mut job.work {
            Work::Ask { kind: Kind::Check, batch, id } => {
                self.lifetimes.mark(batch, remote.redis_time(job.sent_us) + MAX_STALL_US);
                remote.store.check(batch, id)
            }
            Work::Ask { kind: Kind::Peek, batch, .. } => remote.store.peek(batch),
            Work::Reset { keys } => remote.store.reset(keys),
            Work::Record { records, .. } => remote.store.record(records, remote.clock_offset_us()),
        };
        run.write(link.output(), job.with_source);
        self.under_way.push_back(job);
    }

    fn next_asked(&self) -> Option<Job> {
        let mut queue = self.batcher.queue.borrow_mut();
        let next = queue.front()?.work.script();
        // A script that Redis has forgotten is sent again, and must not be overtaken by another one meanwhile.
        let is_other = |job: &Job| job.work.script().is_some_and(|script| Some(script) != next);
        if self.under_way.iter().any(is_other) { None } else { queue.pop_front() }
    }

    /// What single checks that Redis answered too late have left is written while all else goes on.
    fn records_due(&mut self, now_us: u64) -> Option<Job> {
        let ledger = &self.remote.ledger;
        let is_writing = self.under_way.iter().any(|job| matches!(job.work, Work::Record { .. }));
        if ledger.is_empty() || is_writing || now_us < self.next_write_us {
            return None;
        }
        self.next_write_us = now_us + RETRY_US;
        let records = ledger.take(MAX_RECORDS, now_us);
        let due_us = now_us.saturating_add(u64::try_from(self.remote.connect_timeout.as_micros()).unwrap_or(u64::MAX));
        (!records.is_empty()).then(|| self.batcher.new_job(Work::Record { records, due_us }))
    }

    fn on_reply(&mut self, outcome: Result<Reply, Error>) {
        if let Err(error @ Error::Io(_)) = &outcome {
            return self.disconnect(error);
        }
        let Some(mut job) = self.under_way.pop_front() else { return self.disconnect(&Error::Unexpected) };
        match outcome {
            Ok(reply) => self.settle(job, reply),
            Err(error) if error.has_code("NOSCRIPT") && !job.with_source => {
                job.with_source = true;
                self.send_job(job);
            }
            Err(error) => self.on_refused(job, &error),
        }
    }
}

async fn next_reply(link: &mut Option<Connection>) -> Result<Reply, Error> {
    match link {
        Some(link) => link.reply().await,
        None => std::future::pending().await,
    }
}

async fn reply_at_hand(link: &mut Option<Connection>) -> Option<Result<Reply, Error>> {
    tokio::select! {
        biased;
        outcome = next_reply(link) => Some(outcome),
        () = ready(()) => None,
    }
}

async fn connected(attempt: &mut Option<Attempt<'_>>) -> Result<Connection, Problem> {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}
