//! The way back: what an answer, an error or the loss of the connection means for the job at the front, for the way and
//! for the node's health.

use super::Pipeline;
use crate::clock::now_us;
use crate::limiter::job::{Job, Work};
use crate::store::connection::{Error, Reply};
use crate::store::redis::Report;
use tracing::warn;

impl Pipeline<'_> {
    pub(super) fn on_reply(&mut self, outcome: Result<Reply, Error>) {
        if let Err(error @ Error::Io(_)) = &outcome {
            return self.disconnect(error);
        }
        let Some(mut job) = self.in_flight.pop_front() else { return self.disconnect(&Error::Unexpected) };
        match outcome {
            Ok(reply) => self.on_answer(job, reply),
            Err(error) if error.has_code("NOSCRIPT") && !job.with_source => {
                job.with_source = true;
                self.write(job);
            }
            Err(error) => self.on_refused(job, &error),
        }
    }

    /// Redis has answered.
    fn on_answer(&mut self, job: Job, reply: Reply) {
        let (node, now_us) = (self.node, now_us());
        match (&job.work, reply) {
            (Work::Ask { batch, .. }, reply) => match Report::read(reply, batch.states()) {
                Ok(report) => {
                    node.note_clock(report.redis_now_us, job.sent_us);
                    self.completion().answer(batch, &job, &report, &mut self.ttl_cache, now_us);
                }
                Err(error) => return self.on_refused(job, &error),
            },
            (Work::Reset(_), Reply::Integers(numbers)) => {
                self.missed = 0;
                if let Some(job) = self.completion().advance_reset(job, &numbers, now_us) {
                    self.on_refused(job, &Error::Unexpected);
                }
                return;
            }
            (Work::Register { counters, .. }, Reply::Integers(numbers)) => {
                if node.registered(counters, &numbers, job.sent_us).is_err() {
                    return self.on_refused(job, &Error::Unexpected);
                }
            }
            (Work::Reset(_) | Work::Register { .. }, _) => return self.on_refused(job, &Error::Unexpected),
            (Work::Record { records, .. }, _) => {
                self.queue.stats.written_back.add(records.len() as u64);
                node.ledger.written(records);
                if node.ledger.is_empty() {
                    node.health.all_written();
                }
            }
        }
        self.on_done(job, now_us);
    }

    /// A job is done, and its answer is given. What that says of the way and of Redis.
    fn on_done(&mut self, job: Job, now_us: u64) {
        self.missed = 0;
        let took_us = now_us.saturating_sub(job.sent_us);
        self.limit.on_answer(took_us, job.ahead, now_us);
        if job.work.is_at_leisure() {
            self.write_back.on_written_at_leisure(&self.limit);
        }
        // An answer too late for anybody is no success: a Redis that is always too slow must open the breaker.
        if job.waiters.expired == 0 {
            self.node.health.succeeded();
        }
        self.queue.stats.store_latency.record(took_us);
        if let Work::Ask { batch, .. } = job.work {
            self.queue.take_spare(batch);
        }
    }

    /// The connection broke before Redis answered.
    pub(super) fn on_lost(&mut self, mut job: Job, error: &Error) {
        if let Work::Register { .. } = job.work {
            // The next connection begins with none registered.
            return;
        }
        let (now_us, health) = (now_us(), &self.node.health);
        let was_up = health.is_up();
        if !job.resent && was_up && job.waiters.next_due_us().is_some() {
            // Redis may have closed an idle connection: that is no reason to answer less than exactly. The entries keep
            // their ids, so what ran before the connection broke is not counted again.
            job.resent = true;
            return self.queue.put_back(job);
        }
        // A deadline that was missed has been counted as a failure; the connection may have been given up for just that.
        // Nobody misses what is written at leisure.
        let is_counted = job.waiters.next_due_us().is_none();
        self.completion().give_up(job, now_us);
        // Else it is known to be down, and why.
        if was_up && !is_counted {
            health.failed(error, now_us);
        }
    }

    /// Redis answered with an error.
    fn on_refused(&mut self, job: Job, error: &Error) {
        if let Work::Record { records, .. } = &job.work
            && error.has_code("ERR")
        {
            // By no state of its own but because of what they are: offered again they would keep it away for ever.
            warn!(%error, records = records.len(), "what the fallback admitted cannot be written to redis");
            return self.node.ledger.written(records);
        }
        if error.has_code("WRONGTYPE") {
            return self.completion().on_no_registry(&job);
        }
        let now_us = now_us();
        self.completion().give_up(job, now_us);
        // One refusal is enough. A Redis out of memory takes some checks and refuses others, and its answers to those do
        // not know of what the fallback admits in place of these.
        if self.node.health.lost(error, now_us) {
            self.disconnect(error);
        }
    }
}
