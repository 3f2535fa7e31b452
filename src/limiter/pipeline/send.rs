//! The way to Redis: which job is next, what has to go in front of it, and how it is written.

use super::Pipeline;
use crate::clock::now_us;
use crate::limit::{Counter, Verb};
use crate::limiter::job::{Job, Work};
use crate::limiter::nodes::Kind;
use crate::limiter::queue::Queue;
use crate::limiter::redis::Redis;
use crate::store::redis::Names;

/// By then Redis runs what it is sent, as a rule. If it does not, it has to ask itself what it was told to last.
const MAX_STALL_US: i64 = 10_000;

impl Pipeline<'_> {
    /// Sends what is asked, as far as there is room on the way.
    pub(super) fn send(&mut self, now_us: u64) {
        let registry = self.other_registry();
        if self.link.is_some() && registry.is_none() {
            self.tend_registry(now_us);
        }
        self.write_at_leisure(now_us);
        self.give_back(now_us);
        self.is_held = false;
        while self.link.is_some() && self.asked_in_flight() < self.limit.limit() {
            let Some(job) = self.next_asked(registry.as_deref(), now_us) else { return };
            for work in self.write_back.owed(self.node, &job.work, now_us) {
                // A script that Redis has forgotten is sent again, and would come behind the question that it is to
                // precede.
                let (slot, is_asking) = (job.slot, job.is_asking);
                self.send_job(Job { with_source: true, slot, is_asking, ..self.queue.new_job(work) }, now_us);
            }
            self.send_job(job, now_us);
        }
    }

    /// Writes some of what no question has asked for yet.
    fn write_at_leisure(&mut self, now_us: u64) {
        while self.next_leisure_us().is_some_and(|due_us| due_us <= now_us) {
            let runs = self.write_back.at_leisure(self.node, now_us);
            if runs.is_empty() {
                return;
            }
            for work in runs {
                let slot = work.slot(&self.redis.store).filter(|_| self.node.declares_keys());
                self.send_job(Job { slot, ..self.queue.new_job(work) }, now_us);
            }
        }
    }

    /// Gives back what is left of shares.
    fn give_back(&mut self, now_us: u64) {
        while self.link.is_some()
            && let Some(job) = self.queue.next_give_back(now_us)
        {
            self.send_job(job, now_us);
        }
    }

    /// When that may have something to do.
    pub(super) fn next_leisure_us(&self) -> Option<u64> {
        self.link.as_ref()?;
        let in_flight = || self.in_flight.iter().filter(|job| job.work.is_at_leisure()).count();
        self.write_back.next_leisure_us(&self.node.ledger, in_flight)
    }

    fn asked_in_flight(&self) -> usize {
        self.in_flight.iter().filter(|job| job.work.lane().is_some()).count()
    }

    /// Registers what others of this worker's ask for, and reads the registry when that is due.
    fn tend_registry(&mut self, now_us: u64) {
        if self.redis.registry.take_list_due(now_us) {
            self.register(Vec::new(), now_us);
        }
        let mut due = self.redis.registry.take_forgotten();
        due.extend(self.queue.take_unregistered());
        self.register_new(due, now_us);
    }

    /// Registers counters that are not being registered.
    fn register_new(&mut self, mut counters: Vec<Counter>, now_us: u64) {
        counters.retain(|counter| !self.in_flight.iter().any(|job| job.work.registers(*counter)));
        if !counters.is_empty() {
            self.register(counters, now_us);
        }
    }

    /// Registers counters, or reads the registry if there are none.
    fn register(&mut self, counters: Vec<Counter>, now_us: u64) {
        let due_us = self.node.patience_ends_us(now_us);
        let mut job = self.queue.new_job(Work::Register { counters, due_us });
        (job.sent_us, job.ahead) = (now_us, self.in_flight.len());
        self.write(job);
    }

    fn send_job(&mut self, mut job: Job, now_us: u64) {
        let due = self.redis.registry.due(job.work.counters(), now_us);
        if !due.is_empty() {
            match self.other_registry() {
                Some(queue) => queue.register(due),
                None => self.register_new(due, now_us),
            }
        }
        self.queue.stats.batches.add(1);
        (job.sent_us, job.ahead) = (now_us, self.in_flight.len());
        if !job.resent {
            job.first_sent_us = now_us;
        }
        self.write(job);
    }

    pub(super) fn write(&mut self, mut job: Job) {
        if job.is_asking {
            self.write(self.queue.new_job(Work::Asking));
        }
        let names = match (self.routes.kind(), job.slot) {
            (Kind::Cluster, None) => Names::Passed,
            _ => Names::Declared,
        };
        let Some(link) = &mut self.link else { return };
        let (store, node, max) = (&self.redis.store, self.node, self.redis.registry.max());
        let run = match &mut job.work {
            Work::Asking => {
                link.write(&[b"ASKING"]);
                return self.in_flight.push_back(job);
            }
            Work::Ask { verb: Verb::Check, batch, id } => {
                self.ttl_cache.mark(batch, node.time_of(job.sent_us) + MAX_STALL_US);
                store.check(batch, id, job.resent, names)
            }
            Work::Ask { verb: Verb::Peek, batch, .. } => store.peek(batch, names),
            Work::Reset(reset) => match reset.piece() {
                Some(piece) => store.reset(&piece, names),
                None => store.register(&[], max),
            },
            Work::Inspect(inspect) => match inspect.glance() {
                Some(glance) => store.inspect(&glance),
                None => store.register(&[], max),
            },
            // Told of as arguments, so that one that Tollgate may not touch is the only one to be refused.
            Work::Throttle(batch) => store.throttle(batch, if job.slot.is_some() { names } else { Names::Passed }),
            Work::Register { counters, .. } => store.register(counters, max),
            Work::Record { records, .. } => store.record(records, node.clock_offset_us(), names),
            Work::GiveBack { rests, .. } => store.give_back(rests, names),
        };
        run.write(link.output(), job.with_source);
        // Read anew, because this thread may have been stopped since this turn began.
        (job.awaited_since_us, job.is_excused) = (now_us(), false);
        self.in_flight.push_back(job);
    }

    /// The next job, if it may go, with the registry before `registry` where that is another node's.
    fn next_asked(&mut self, registry: Option<&Queue>, now_us: u64) -> Option<Job> {
        let Self { redis, node, queue, in_flight, is_held, write_back, .. } = self;
        queue.next_if(|next| {
            let is_other = |job: &Job| job.work.lane().is_some_and(|lane| Some(lane) != next.work.lane());
            if in_flight.iter().any(is_other) {
                return false;
            }
            *is_held = write_back.must_wait(&node.ledger, &next.work, now_us)
                || registry.is_some_and(|registry| awaits_registry(redis, registry, next, now_us));
            !*is_held
        })
    }
}

/// Whether a job may make a log that no registry knows of, of which another node keeps one. That is told, and answers
/// soon. It is not waited for while it is down, nor when half of the time has passed that the job has: only a reset needs
/// it.
fn awaits_registry(redis: &Redis, registry: &Queue, job: &Job, now_us: u64) -> bool {
    let unknown = redis.registry.unknown(job.work.counters());
    if unknown.is_empty() {
        return false;
    }
    let is_urgent = job.next_due_us().is_some_and(|due_us| due_us < now_us + redis.timeout_us / 2);
    if is_urgent || !registry.node.health.is_up() {
        redis.registry.forgotten(&unknown);
        return false;
    }
    registry.register(unknown);
    true
}
