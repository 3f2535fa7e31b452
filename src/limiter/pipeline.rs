//! A worker's jobs on their way to Redis and back: sent on one connection in the order in which they were asked, and
//! answered in that order, as many in flight as the round trip holds.

use super::batcher::Batcher;
use super::diagnosis::{Kind as ProblemKind, Problem};
use super::in_flight::InFlight;
use super::job::{Job, Work};
use super::{Remote, Verb, connect};
use crate::clock::now_us;
use crate::limit::Counter;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::ledger::Writer;
use crate::store::lifetimes::Lifetimes;
use std::collections::VecDeque;
use std::future::ready;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task;
use tokio::time::{Instant, Sleep, sleep};

/// Deadlines missed in a row after which a connection is made anew.
const MAX_MISSED: u32 = 3;
/// By then Redis runs what it is sent, as a rule. If it does not, it has to ask itself what it was told to last.
const MAX_STALL_US: i64 = 10_000;
/// Wait before a connection is tried again for which Tollgate had no file descriptor.
const STARVED_US: u64 = 100_000;
/// Longest time without a look at the breaker, which other workers share.
const LONGEST_SLEEP_US: u64 = 1_000_000;
/// Time until another look at a job that has to wait for what other workers have in flight.
const HELD_US: u64 = 2_000;

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Connection, Problem>> + 'a>>;

/// One worker's way to Redis.
pub(super) struct Pipeline<'a> {
    pub(super) batcher: &'a Batcher,
    pub(super) remote: &'a Remote,
    pub(super) link: Option<Connection>,
    connecting: Option<Attempt<'a>>,
    /// Since when: microseconds.
    connecting_since_us: u64,
    /// In the order in which they were sent.
    pub(super) in_flight: VecDeque<Job>,
    pub(super) limit: InFlight,
    /// The next job waits for what other workers have in flight.
    is_held: bool,
    /// By these names the ledger knows what is in flight here, in front of questions and at leisure.
    pub(super) writer: Writer,
    pub(super) leisure_writer: Writer,
    /// Runs that may be in flight at leisure.
    pub(super) most_at_leisure: usize,
    pub(super) lifetimes: Lifetimes,
    /// Deadlines missed since this connection last answered.
    pub(super) missed: u32,
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
            connecting_since_us: 0,
            in_flight: VecDeque::new(),
            limit: InFlight::new(remote.timeout_us),
            is_held: false,
            writer: remote.ledger.new_writer(),
            leisure_writer: remote.ledger.new_writer(),
            most_at_leisure: 1,
            lifetimes: Lifetimes::default(),
            missed: 0,
            starved_until_us: None,
        }
    }

    /// Sends what is asked and keeps the connection, until dropped.
    pub(super) async fn run(mut self) {
        let mut alarm = pin!(sleep(Duration::ZERO));
        loop {
            self.take_replies().await;
            if self.next_due_us() <= now_us() {
                // A thread that was stopped, or that a long turn kept, sees what time it is before it hears of what has
                // come meanwhile. What has come is in time, even if this thread is late.
                task::yield_now().await;
                self.take_replies().await;
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
                () = &mut alarm => {}
            }
        }
    }

    async fn take_replies(&mut self) {
        while let Some(outcome) = reply_at_hand(&mut self.link).await {
            self.on_reply(outcome);
        }
    }

    /// When the first is due who waits, or a connection that has not answered.
    fn next_due_us(&self) -> u64 {
        let queue = self.batcher.queue.borrow();
        self.in_flight.iter().chain(queue.front()).filter_map(Job::next_due_us).min().unwrap_or(u64::MAX)
    }

    /// Set anew only if it would ring too late: most answers come in time, and their deadlines need no alarm.
    fn set_alarm(&self, alarm: Pin<&mut Sleep>, now_us: u64) {
        let held_us = self.is_held.then_some(now_us + HELD_US);
        let starved_us = self.starved_until_us.filter(|until_us| *until_us > now_us);
        let others = [self.remote.breaker.next_probe_us(), self.next_leisure_us(), held_us, starved_us];
        let due_us = others.into_iter().flatten().chain([self.next_due_us()]).min().unwrap_or(u64::MAX);
        let wait = Duration::from_micros(due_us.saturating_sub(now_us).min(LONGEST_SLEEP_US));
        let deadline = Instant::now() + wait;
        if alarm.is_elapsed() || deadline < alarm.deadline() {
            alarm.reset(deadline);
        }
    }

    /// Report those for whom Redis is too late.
    fn expire_late(&mut self, now_us: u64) {
        let late_us = now_us.saturating_sub(self.next_due_us());
        let mut jobs = self.batcher.queue.take();
        // While Redis is down, nobody who has yet to be asked about waits for it.
        let until_us = if self.remote.breaker.is_closed() { now_us + self.limit.least_us() } else { u64::MAX };
        let mut timed_out = false;
        jobs.retain_mut(|job| {
            timed_out |= self.expire(job, until_us, now_us);
            let is_wanted = job.next_due_us().is_some();
            if !is_wanted {
                self.abandon(job, job.resent, now_us);
            }
            is_wanted
        });
        self.batcher.queue.replace(jobs);
        let mut in_flight = std::mem::take(&mut self.in_flight);
        for job in &mut in_flight {
            timed_out |= self.expire(job, now_us, now_us);
        }
        let stuck = in_flight.iter().any(|job| job.is_stuck(now_us));
        self.in_flight = in_flight;
        if timed_out && self.remote.breaker.is_closed() {
            self.on_timeout(now_us, late_us);
        }
        if stuck {
            self.disconnect(&Error::late());
        }
    }

    /// Somebody could not be answered in time, which this thread noticed so much later.
    fn on_timeout(&mut self, now_us: u64, late_us: u64) {
        let (remote, timeout_us) = (self.remote, self.remote.timeout_us);
        self.batcher.stats.timeouts.add(1);
        if late_us > timeout_us / 4 {
            self.in_flight.iter_mut().for_each(|job| job.excuse(now_us));
        }
        if self.starved_until_us.is_some() || !self.is_redis_late(now_us) {
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

    /// Whether Redis has had most of a deadline for something and has not answered. What waited here until it was due,
    /// because this thread was stopped or busy, or because more is asked than Redis can answer, says nothing against it.
    fn is_redis_late(&self, now_us: u64) -> bool {
        let since_us = match &self.connecting {
            Some(_) => Some(self.connecting_since_us),
            None => self.in_flight.front().map(|job| job.awaited_since_us),
        };
        since_us.is_some_and(|since_us| since_us + self.remote.timeout_us / 4 * 3 <= now_us)
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
            self.connecting = Some(Box::pin(connect::open_and_probe(self.remote)));
            self.connecting_since_us = now_us;
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
                self.remote.registry.clear();
                self.link = Some(link);
            }
            Err(problem) if problem.kind == ProblemKind::Own && self.remote.breaker.is_closed() => {
                self.starved_until_us = Some(now_us() + STARVED_US);
                self.remote.on_own_failure(&problem);
            }
            Err(problem) => {
                let (breaker, now_us) = (&self.remote.breaker, now_us());
                // What took long this time may be in time the next time, for another worker too.
                let was_slow = now_us.saturating_sub(self.connecting_since_us) >= self.remote.timeout_us;
                let is_news = if was_slow { breaker.failure(now_us) } else { breaker.lost(now_us) };
                self.remote.on_problem(is_news, problem);
            }
        }
    }

    /// Gives the connection up. What was in flight on it has failed.
    pub(super) fn disconnect(&mut self, error: &Error) {
        if self.link.take().is_some() {
            (self.limit, self.most_at_leisure) = (InFlight::new(self.remote.timeout_us), 1);
            for job in std::mem::take(&mut self.in_flight) {
                self.on_lost(job, error);
            }
        }
    }

    /// Sends what is asked, as far as there is room on the way.
    fn send(&mut self, now_us: u64) {
        if self.link.is_some() && self.remote.registry.take_list_due(now_us) {
            self.register(Vec::new(), now_us);
        }
        self.write_at_leisure(now_us);
        self.is_held = false;
        while self.link.is_some() && self.asked_in_flight() < self.limit.limit() {
            let Some(job) = self.next_asked() else { return };
            self.write_owed(&job.work, now_us);
            self.send_job(job, now_us);
        }
    }

    fn asked_in_flight(&self) -> usize {
        self.in_flight.iter().filter(|job| job.work.lane().is_some()).count()
    }

    /// Registers counters, or reads the registry if there are none.
    fn register(&mut self, counters: Vec<Counter>, now_us: u64) {
        let due_us = self.remote.connect_due_us(now_us);
        let mut job = self.batcher.new_job(Work::Register { counters, due_us });
        (job.sent_us, job.ahead) = (now_us, self.in_flight.len());
        self.write(job);
    }

    pub(super) fn send_job(&mut self, mut job: Job, now_us: u64) {
        let mut due = self.remote.registry.due(job.work.counters(), now_us);
        due.retain(|counter| !self.in_flight.iter().any(|job| job.work.registers(*counter)));
        if !due.is_empty() {
            self.register(due, now_us);
        }
        self.batcher.stats.batches.add(1);
        (job.sent_us, job.ahead) = (now_us, self.in_flight.len());
        self.write(job);
    }

    fn write(&mut self, mut job: Job) {
        let (Some(link), remote) = (&mut self.link, self.remote) else { return };
        let run = match &mut job.work {
            Work::Ask { verb: Verb::Check, batch, id } => {
                self.lifetimes.mark(batch, remote.redis_time(job.sent_us) + MAX_STALL_US);
                remote.store.check(batch, id, job.resent)
            }
            Work::Ask { verb: Verb::Peek, batch, .. } => remote.store.peek(batch),
            Work::Reset(reset) => match reset.piece() {
                Some(piece) => remote.store.reset(&piece),
                None => remote.store.register(&[], remote.registry.max()),
            },
            Work::Register { counters, .. } => remote.store.register(counters, remote.registry.max()),
            Work::Record { records, .. } => remote.store.record(records, remote.clock_offset_us()),
        };
        run.write(link.output(), job.with_source);
        // Read anew, because this thread may have been stopped since this turn began.
        (job.awaited_since_us, job.is_excused) = (now_us(), false);
        self.in_flight.push_back(job);
    }

    fn next_asked(&mut self) -> Option<Job> {
        let mut queue = self.batcher.queue.borrow_mut();
        let next = &queue.front()?.work;
        // A script that Redis has forgotten is sent again, and must not be overtaken by another one meanwhile.
        let is_other = |job: &Job| job.work.lane().is_some_and(|lane| Some(lane) != next.lane());
        if self.in_flight.iter().any(is_other) {
            return None;
        }
        self.is_held = self.must_wait(next);
        if self.is_held { None } else { queue.pop_front() }
    }

    fn on_reply(&mut self, outcome: Result<Reply, Error>) {
        if let Err(error @ Error::Io(_)) = &outcome {
            return self.disconnect(error);
        }
        let Some(mut job) = self.in_flight.pop_front() else { return self.disconnect(&Error::Unexpected) };
        match outcome {
            Ok(reply) => self.settle(job, reply),
            Err(error) if error.has_code("NOSCRIPT") && !job.with_source => {
                job.with_source = true;
                self.write(job);
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
