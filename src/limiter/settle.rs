//! How a job ends: with Redis's answer, with its error, or too late for some of those who wait.

use super::job::{Job, Waiter, Work};
use super::mailbox::{Answer, Refusal};
use super::pipeline::Pipeline;
use crate::clock::now_us;
use crate::limit::{Ask, LimitState, decide};
use crate::store::batch::Batch;
use crate::store::connection::{Error, Reply};
use crate::store::redis::{LimitReport, Report, entry_id};
use tracing::warn;

impl Pipeline<'_> {
    /// Report those who are due by `until_us` in Redis's place. Whether there was any.
    pub(super) fn expire(&self, job: &mut Job, until_us: u64, now_us: u64) -> bool {
        let Job { work, waiters, .. } = job;
        let first = waiters.expired;
        while let Some(waiter) = waiters.list.get_mut(waiters.expired).filter(|waiter| waiter.due_us <= until_us) {
            let answer = match work {
                Work::Ask { verb, batch, .. } => match batch.items().get(waiter.item) {
                    Some(item) => self.remote.fall_back(*verb, &batch.ask_of(item), now_us),
                    None => Answer::Refused(self.remote.refusal()),
                },
                _ => Answer::Refused(self.remote.refusal()),
            };
            waiter.admitted_here = answer.is_admission() && work.counts();
            self.batcher.stats.by_fallback.add(1);
            self.deliver(work, waiter, answer);
            waiters.expired += 1;
        }
        waiters.expired > first
    }

    pub(super) fn deliver(&self, work: &Work, waiter: &Waiter, answer: Answer) {
        if work.counts() {
            self.batcher.count(&answer);
        }
        self.batcher.waiting.set(self.batcher.waiting.get() - 1);
        waiter.mailbox.deliver(waiter.ticket, answer);
    }

    /// A job is over for all who waited, without an answer. What the fallback admitted meanwhile is owed to Redis,
    /// which, if it was `sent`, may have counted it already.
    pub(super) fn abandon(&self, job: &Job, sent: bool, now_us: u64) {
        let ledger = &self.remote.ledger;
        if let Work::Record { records, at_leisure, .. } = &job.work {
            ledger.not_written(records, self.writer(*at_leisure));
        }
        let Work::Ask { batch, id, .. } = &job.work else { return };
        for (index, item) in batch.items().iter().enumerate() {
            let (ask, admitted) = (batch.ask_of(item), job.admitted_here(index));
            if admitted > 0 && sent {
                ledger.admitted_of_asked(&ask, &entry_id(id, index), item.count, admitted, now_us);
            } else if admitted > 0 {
                ledger.admitted(&ask, admitted, now_us);
            }
        }
    }

    /// Redis has answered.
    pub(super) fn settle(&mut self, job: Job, reply: Reply) {
        let (remote, stats) = (self.remote, &self.batcher.stats);
        let now_us = now_us();
        match (&job.work, reply) {
            (Work::Ask { batch, .. }, reply) => match Report::read(reply, batch.states()) {
                Ok(report) => {
                    remote.note_clock(report.redis_now_us, job.sent_us);
                    self.settle_items(batch, &job, &report, now_us);
                }
                Err(error) => return self.on_refused(job, &error),
            },
            (Work::Reset(_), Reply::Integers(numbers)) => {
                self.missed = 0;
                return self.advance_reset(job, &numbers, now_us);
            }
            (Work::Register { counters, .. }, Reply::Integers(numbers)) => {
                if self.remote.on_registered(counters, &numbers, job.sent_us).is_err() {
                    return self.on_refused(job, &Error::Unexpected);
                }
            }
            (Work::Reset(_) | Work::Register { .. }, _) => return self.on_refused(job, &Error::Unexpected),
            (Work::Record { records, .. }, _) => {
                stats.written_back.add(records.len() as u64);
                remote.ledger.written(records);
                remote.on_written();
            }
        }
        self.missed = 0;
        let took_us = now_us.saturating_sub(job.sent_us);
        self.limit.on_answer(took_us, job.ahead, now_us);
        if matches!(job.work, Work::Record { at_leisure: true, .. }) {
            self.on_written_at_leisure();
        }
        // An answer too late for anybody is no success: a Redis that is always too slow must open the breaker.
        if job.waiters.expired == 0 {
            remote.breaker.success();
        }
        stats.store_latency.record(took_us);
        if let Work::Ask { mut batch, .. } = job.work {
            batch.clear();
            self.batcher.spare.set(Some(batch));
        }
    }

    /// Hands out the verdicts, and keeps of the report what will save asking or inform the fallback.
    fn settle_items(&mut self, batch: &Batch, job: &Job, report: &Report, now_us: u64) {
        let Report { redis_now_us, limits: reports } = report;
        // As the checks are decided one after another, in the order of the limits of all items.
        let mut states: Vec<LimitState> = reports.iter().map(LimitReport::state).collect();
        let mut granted_late = vec![0u32; if job.waiters.expired > 0 { batch.items().len() } else { 0 }];
        for (index, waiter) in job.waiters.list.iter().enumerate() {
            let Some(item) = batch.items().get(waiter.item) else { continue };
            let places = item.places();
            let (Some(reports), Some(states)) = (reports.get(places.clone()), states.get_mut(places)) else {
                continue;
            };
            let answer = decide_next(&batch.ask_of(item), reports, states, job.work.counts());
            if index >= job.waiters.expired {
                self.batcher.stats.by_store.add(1);
                self.deliver(&job.work, waiter, answer);
            } else if let Some(granted) = granted_late.get_mut(waiter.item) {
                *granted += u32::from(answer.is_admission());
            }
        }
        for (index, item) in batch.items().iter().enumerate() {
            let places = item.places();
            let (Some(reports), Some(states)) = (reports.get(places.clone()), states.get(places)) else { continue };
            if reports.contains(&LimitReport::WrongType) {
                continue;
            }
            let ask = batch.ask_of(item);
            let is_counted =
                job.work.counts() && states.iter().zip(reports).any(|(after, before)| after.used > before.state().used);
            // Of a batch that ran before, it is not known when the logs were looked at.
            if is_counted && !item.lasts && !job.resent {
                self.lifetimes.seen(&ask, *redis_now_us);
            }
            self.remote.learn(&ask, states, reports, job.sent_us, now_us);
            if let Some(granted) = granted_late.get(index)
                && job.work.counts()
            {
                // Of those whom the fallback answered first, Redis may have admitted fewer.
                let uncounted = job.admitted_here(index).saturating_sub(*granted);
                if uncounted > 0 {
                    self.remote.ledger.admitted(&ask, uncounted, now_us);
                }
            }
        }
    }

    /// The connection broke before Redis answered.
    pub(super) fn on_lost(&mut self, mut job: Job, error: &Error) {
        if let Work::Register { .. } = job.work {
            // The next connection begins with none registered.
            return;
        }
        let (now_us, remote) = (now_us(), self.remote);
        let was_up = remote.breaker.is_closed();
        if !job.resent && was_up && job.waiters.next_due_us().is_some() {
            // Redis may have closed an idle connection: that is no reason to answer less than exactly. The entries keep
            // their ids, so what ran before the connection broke is not counted again.
            job.resent = true;
            let mut queue = self.batcher.queue.borrow_mut();
            let place = queue.partition_point(|queued| queued.number < job.number);
            queue.insert(place, job);
            return;
        }
        // A deadline that was missed has been counted as a failure; the connection may have been given up for just that.
        // Nobody misses what is written at leisure.
        let is_counted = job.waiters.next_due_us().is_none();
        self.give_up(job, now_us);
        // Else it is known to be down, and why.
        if was_up && !is_counted {
            remote.on_failed(remote.breaker.failure(now_us), error);
        }
    }

    /// Redis answered with an error.
    pub(super) fn on_refused(&mut self, job: Job, error: &Error) {
        if let Work::Record { records, .. } = &job.work
            && error.has_code("ERR")
        {
            // By no state of its own but because of what they are: offered again they would keep it away for ever.
            warn!(%error, records = records.len(), "what the fallback admitted cannot be written to redis");
            return self.remote.ledger.written(records);
        }
        if error.has_code("WRONGTYPE") {
            return self.on_no_registry(&job);
        }
        let now_us = now_us();
        self.give_up(job, now_us);
        // One refusal is enough. A Redis out of memory takes some checks and refuses others, and its answers to those do
        // not know of what the fallback admits in place of these.
        let is_news = self.remote.breaker.lost(now_us);
        self.remote.on_failed(is_news, error);
        if is_news {
            self.disconnect(error);
        }
    }

    fn give_up(&self, mut job: Job, now_us: u64) {
        self.expire(&mut job, u64::MAX, now_us);
        self.abandon(&job, true, now_us);
    }
}

/// Decides the next check of an item by where its limits stand, and counts it there if it `counts`.
fn decide_next(ask: &Ask<'_>, reports: &[LimitReport], states: &mut [LimitState], counts: bool) -> Answer {
    if reports.contains(&LimitReport::WrongType) {
        return Answer::Refused(Refusal::WrongType);
    }
    let verdict = decide(ask.limits, states, ask.cost);
    if verdict.allowed && counts {
        for (state, limit) in states.iter_mut().zip(ask.limits) {
            limit.count(state, ask.cost);
        }
    }
    Answer::Verdict(verdict)
}
