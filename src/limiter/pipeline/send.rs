//! The way to Redis: which job is next, what has to go in front of it, and how it is written.

use super::Pipeline;
use crate::clock::now_us;
use crate::limit::{Counter, Verb};
use crate::limiter::job::{Job, Work};
use crate::store::redis::Names;

/// By then Redis runs what it is sent, as a rule. If it does not, it has to ask itself what it was told to last.
const MAX_STALL_US: i64 = 10_000;

impl Pipeline<'_> {
    /// Sends what is asked, as far as there is room on the way.
    pub(super) fn send(&mut self, now_us: u64) {
        if self.link.is_some() && self.node.registry.take_list_due(now_us) {
            self.register(Vec::new(), now_us);
        }
        self.write_at_leisure(now_us);
        self.is_held = false;
        while self.link.is_some() && self.asked_in_flight() < self.limit.limit() {
            let Some(job) = self.next_asked() else { return };
            for work in self.write_back.owed(self.node, &job.work, now_us) {
                // A script that Redis has forgotten is sent again, and would come behind the question that it is to
                // precede.
                self.send_job(Job { with_source: true, ..self.queue.new_job(work) }, now_us);
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
            runs.into_iter().for_each(|work| self.send_job(self.queue.new_job(work), now_us));
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

    /// Registers counters, or reads the registry if there are none.
    fn register(&mut self, counters: Vec<Counter>, now_us: u64) {
        let due_us = self.node.patience_ends_us(now_us);
        let mut job = self.queue.new_job(Work::Register { counters, due_us });
        (job.sent_us, job.ahead) = (now_us, self.in_flight.len());
        self.write(job);
    }

    fn send_job(&mut self, mut job: Job, now_us: u64) {
        let mut due = self.node.registry.due(job.work.counters(), now_us);
        due.retain(|counter| !self.in_flight.iter().any(|job| job.work.registers(*counter)));
        if !due.is_empty() {
            self.register(due, now_us);
        }
        self.queue.stats.batches.add(1);
        (job.sent_us, job.ahead) = (now_us, self.in_flight.len());
        self.write(job);
    }

    pub(super) fn write(&mut self, mut job: Job) {
        let Some(link) = &mut self.link else { return };
        let (store, node) = (&self.redis.store, self.node);
        let run = match &mut job.work {
            Work::Ask { verb: Verb::Check, batch, id } => {
                self.ttl_cache.mark(batch, node.time_of(job.sent_us) + MAX_STALL_US);
                store.check(batch, id, job.resent, Names::Declared)
            }
            Work::Ask { verb: Verb::Peek, batch, .. } => store.peek(batch, Names::Declared),
            Work::Reset(reset) => match reset.piece() {
                Some(piece) => store.reset(&piece, Names::Declared),
                None => store.register(&[], node.registry.max()),
            },
            Work::Register { counters, .. } => store.register(counters, node.registry.max()),
            Work::Record { records, .. } => store.record(records, node.clock_offset_us(), Names::Declared),
        };
        run.write(link.output(), job.with_source);
        // Read anew, because this thread may have been stopped since this turn began.
        (job.awaited_since_us, job.is_excused) = (now_us(), false);
        self.in_flight.push_back(job);
    }

    fn next_asked(&mut self) -> Option<Job> {
        let Self { node, queue, in_flight, is_held, write_back, .. } = self;
        queue.next_if(|next| {
            let is_other = |job: &Job| job.work.lane().is_some_and(|lane| Some(lane) != next.lane());
            if in_flight.iter().any(is_other) {
                return false;
            }
            *is_held = write_back.must_wait(&node.ledger, next);
            !*is_held
        })
    }
}
