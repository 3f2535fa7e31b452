//! A worker's jobs on their way to Redis and back: sent on one connection in the order in which they were asked, and
//! answered in that order, as many in flight as the round trip holds.

mod receive;
mod redirect;
mod send;

use super::completion::Completion;
use super::decided::ClockBounds;
use super::diagnosis::{Kind as ProblemKind, Problem};
use super::discovery;
use super::in_flight::InFlight;
use super::job::Job;
use super::node::Node;
use super::probe;
use super::queue::Queue;
use super::redis::Redis;
use super::routes::Routes;
use super::write_back::WriteBack;
use crate::clock::now_us;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::ttl_cache::TtlCache;
use std::collections::VecDeque;
use std::future::ready;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;
use tokio::task;
use tokio::time::{Instant, Sleep, sleep};

/// Deadlines missed in a row after which a connection is made anew.
const MAX_MISSED: u32 = 3;
/// Wait before a connection is tried again for which Tollgate had no file descriptor.
const STARVED_US: u64 = 100_000;
/// Longest time without a look at the breaker, which other workers share.
const LONGEST_SLEEP_US: u64 = 1_000_000;
/// Time until another look at a job that has to wait for what other workers have in flight.
const HELD_US: u64 = 2_000;

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Connection, Problem>> + 'a>>;

/// Sends what is asked and keeps the connection, until the node is none any more.
pub(super) async fn run(routes: Rc<Routes>, queue: Rc<Queue>) {
    if let Some(redis) = routes.redis() {
        Pipeline::new(redis, &routes, &queue).run().await;
    }
}

/// One worker's way to one node.
struct Pipeline<'a> {
    redis: &'a Redis,
    routes: &'a Rc<Routes>,
    node: &'a Node,
    queue: &'a Rc<Queue>,
    link: Option<Connection>,
    connecting: Option<Attempt<'a>>,
    /// Since when: microseconds.
    connecting_since_us: u64,
    /// In the order in which they were sent.
    in_flight: VecDeque<Job>,
    limit: InFlight,
    /// The next job waits for what other workers have in flight.
    is_held: bool,
    write_back: WriteBack,
    ttl_cache: TtlCache,
    /// How far the node's clock is ahead.
    clock: ClockBounds,
    /// Deadlines missed since this connection last answered.
    missed: u32,
    /// Tollgate itself could not make a connection, and tries again then.
    starved_until_us: Option<u64>,
}

impl<'a> Pipeline<'a> {
    fn new(redis: &'a Redis, routes: &'a Rc<Routes>, queue: &'a Rc<Queue>) -> Self {
        let node = &*queue.node;
        Self {
            redis,
            routes,
            node,
            queue,
            link: None,
            connecting: None,
            connecting_since_us: 0,
            in_flight: VecDeque::new(),
            limit: InFlight::new(redis.timeout_us),
            is_held: false,
            write_back: WriteBack::new(&node.ledger),
            ttl_cache: TtlCache::of_one_of(routes.count()),
            clock: ClockBounds::default(),
            missed: 0,
            starved_until_us: None,
        }
    }

    /// Sends what is asked and keeps the connection, until the node is none any more and what was sent is over.
    async fn run(mut self) {
        let mut alarm = pin!(sleep(Duration::ZERO));
        loop {
            self.take_replies().await;
            if self.queue.take_stale_ttls() {
                self.ttl_cache.clear();
            }
            if self.queue.is_closed() {
                self.queue.take_all().into_iter().for_each(|job| self.pass_on(job));
                // What was admitted in the node's place just now is owed to the one that counts instead.
                discovery::hand_over(self.redis, &self.redis.directory.nodes(), self.node);
                if !self.in_flight.iter().any(|job| job.next_due_us().is_some()) {
                    return self.disconnect(&Error::late());
                }
            }
            if self.next_due_us() <= now_us() {
                // A thread that was stopped, or that a long turn kept, sees what time it is before it hears of what has
                // come meanwhile. What has come is in time, even if this thread is late.
                task::yield_now().await;
                self.take_replies().await;
            }
            let now_us = now_us();
            self.expire_late(now_us);
            if !self.queue.is_closed() {
                self.keep_connected(now_us);
                self.send(now_us);
            }
            self.set_alarm(alarm.as_mut(), now_us);
            tokio::select! {
                biased;
                outcome = next_reply(&mut self.link) => self.on_reply(outcome),
                outcome = connected(&mut self.connecting) => self.on_connected(outcome),
                () = self.queue.asked() => {}
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
        let in_flight = self.in_flight.iter().filter_map(Job::next_due_us);
        in_flight.chain(self.queue.next_due_us()).min().unwrap_or(u64::MAX)
    }

    /// Set anew only if it would ring too late: most answers come in time, and their deadlines need no alarm.
    fn set_alarm(&self, alarm: Pin<&mut Sleep>, now_us: u64) {
        let held_us = self.is_held.then_some(now_us + HELD_US);
        let starved_us = self.starved_until_us.filter(|until_us| *until_us > now_us);
        let probe_us = self.node.health.next_probe_us().filter(|_| !self.node.is_placeholder);
        let others = [probe_us, self.next_leisure_us(), held_us, starved_us];
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
        // While Redis is down, nobody who has yet to be asked about waits for it.
        let until_us = if self.node.health.is_up() { now_us + self.limit.least_us() } else { u64::MAX };
        let mut timed_out = false;
        let completion = self.completion();
        self.queue.retain(|job| {
            timed_out |= completion.expire(job, until_us, now_us);
            let is_wanted = job.next_due_us().is_some();
            if !is_wanted {
                completion.abandon(job, job.resent, now_us);
            }
            is_wanted
        });
        for job in &mut self.in_flight {
            timed_out |= completion.expire(job, now_us, now_us);
        }
        let stuck = self.in_flight.iter().any(|job| job.is_stuck(now_us));
        if timed_out && self.node.health.is_up() {
            self.on_timeout(now_us, late_us);
        }
        if stuck {
            self.disconnect(&Error::late());
        }
    }

    /// Somebody could not be answered in time, which this thread noticed so much later.
    fn on_timeout(&mut self, now_us: u64, late_us: u64) {
        self.queue.stats.timeouts.add(1);
        if late_us > self.redis.timeout_us / 4 {
            self.in_flight.iter_mut().for_each(|job| job.excuse(now_us));
        }
        if self.starved_until_us.is_some() || !self.is_redis_late(now_us) {
            return;
        }
        let Some(is_down) = self.node.health.timed_out(now_us) else { return };
        // The answers that other workers get on their connections keep the breaker closed, and say nothing of this one,
        // which may be half-open: nothing ever comes on it, nor does its end.
        self.missed += 1;
        if is_down || self.missed >= MAX_MISSED {
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
        since_us.is_some_and(|since_us| since_us + self.redis.timeout_us / 4 * 3 <= now_us)
    }

    /// Sees to it that there is a connection, as far as the breaker lets.
    fn keep_connected(&mut self, now_us: u64) {
        let is_down = !self.node.health.is_up();
        if is_down {
            // Only a probe may close it, and a probe is a connection made anew.
            self.disconnect(&Error::late());
        }
        let is_starved = self.starved_until_us.is_some_and(|until_us| now_us < until_us);
        let is_wanted = self.link.is_none() && self.connecting.is_none() && !is_starved && !self.node.is_placeholder;
        if is_wanted && (!is_down || self.node.health.probe_due(now_us)) {
            self.connecting = Some(Box::pin(probe::open(self.redis, self.node)));
            self.connecting_since_us = now_us;
        }
    }

    fn on_connected(&mut self, outcome: Result<Connection, Problem>) {
        self.connecting = None;
        self.starved_until_us = None;
        match outcome {
            Ok(link) => {
                self.node.health.probed(self.node.ledger.len());
                // It may be another Redis.
                self.ttl_cache.clear();
                self.clock = ClockBounds::default();
                if self.other_registry().is_none() {
                    self.redis.registry.begin_anew();
                }
                self.link = Some(link);
            }
            Err(problem) if problem.kind == ProblemKind::Elsewhere => {
                // Somebody is told, and finds out where.
                self.starved_until_us = Some(now_us() + STARVED_US);
            }
            Err(problem) if problem.kind == ProblemKind::Own && self.node.health.is_up() => {
                self.starved_until_us = Some(now_us() + STARVED_US);
                self.node.health.starved(&problem);
            }
            Err(problem) => {
                let now_us = now_us();
                let was_slow = now_us.saturating_sub(self.connecting_since_us) >= self.redis.timeout_us;
                self.node.health.probe_failed(problem, was_slow, now_us);
                self.redis.directory.doubt();
            }
        }
    }

    /// Gives the connection up. What was in flight on it has failed.
    fn disconnect(&mut self, error: &Error) {
        if self.link.take().is_some() {
            self.limit = InFlight::new(self.redis.timeout_us);
            self.write_back.restart();
            for job in std::mem::take(&mut self.in_flight) {
                self.on_lost(job, error);
            }
        }
    }

    /// The queue before the node that keeps the registry, if that is another than this.
    fn other_registry(&self) -> Option<Rc<Queue>> {
        self.routes.registry_queue().filter(|queue| !Rc::ptr_eq(queue, self.queue))
    }

    fn completion(&self) -> Completion<'a> {
        Completion { redis: self.redis, node: self.node, queue: self.queue, routes: self.routes }
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
