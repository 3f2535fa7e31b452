//! The way back: what an answer, an error or the loss of the connection means for the job at the front, for the way and
//! for the node's health.

use super::Pipeline;
use super::redirect::MAX_HOPS;
use crate::clock::now_us;
use crate::limiter::grants;
use crate::limiter::job::{Job, Work};
use crate::limiter::nodes::Kind;
use crate::store::batch::Item;
use crate::store::connection::{Error, Reply};
use crate::store::ledger::{Record, Writer};
use crate::store::redis::{ELSEWHERE, LimitReport, Report, Rest};
use crate::store::throttle::ThrottleReport;
use crate::topology::redirect::Redirect;
use tracing::{info, warn};

impl Pipeline<'_> {
    pub(super) fn on_reply(&mut self, outcome: Result<Reply, Error>) {
        if let Err(error @ Error::Io(_)) = &outcome {
            return self.disconnect(error);
        }
        let Some(mut job) = self.in_flight.pop_front() else { return self.disconnect(&Error::Unexpected) };
        if let Work::Asking = job.work {
            // If it may not be said, the job behind it is told so.
            return;
        }
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
    fn on_answer(&mut self, mut job: Job, reply: Reply) {
        let (node, now_us) = (self.node, now_us());
        match (&job.work, reply) {
            (Work::Ask { batch, .. }, reply) => match Report::read(reply, batch.limits()) {
                Ok(report) => {
                    node.note_clock(report.redis_now_us, job.sent_us);
                    let decided = self.clock.decided(report.redis_now_us, job.sent_us, now_us);
                    let elsewhere = self.elsewhere(&mut job, &report);
                    if let Work::Ask { batch, .. } = &job.work {
                        self.completion().answer(batch, &job, (&report, decided), &mut self.ttl_cache, now_us);
                    }
                    elsewhere.into_iter().for_each(|job| self.queue.put_back(job));
                }
                Err(error) => return self.on_refused(job, &error),
            },
            (Work::Throttle(batch), reply) => match batch.read(reply) {
                Ok(reports) => {
                    let is_elsewhere = |index| reports.get(index) == Some(&ThrottleReport::Elsewhere);
                    let mut elsewhere = job.split_off(is_elsewhere);
                    elsewhere.iter_mut().for_each(|job| self.declare(job));
                    self.completion().answer_throttles(&job, &reports, now_us);
                    elsewhere.into_iter().for_each(|job| self.queue.put_back(job));
                }
                Err(error) => return self.on_refused(job, &error),
            },
            (Work::Reset(_), Reply::Integers(numbers)) if numbers.contains(&ELSEWHERE) => {
                // Its slot was on its way here, and is so no longer.
                return self.pass_on(job);
            }
            (Work::Reset(_) | Work::Inspect(_), reply) => {
                self.missed = 0;
                if let Some(job) = self.completion().advance(job, &reply, now_us) {
                    self.on_refused(job, &Error::Unexpected);
                }
                return;
            }
            (Work::Register { counters, .. }, reply) => {
                let registry = &self.redis.registry;
                let outcome = match reply {
                    Reply::Texts(names) => registry.listed(&names, job.sent_us).map(|_| ()),
                    Reply::Integers(numbers) => registry.registered(counters, &numbers, job.sent_us),
                    _ => Err(Error::Unexpected),
                };
                if outcome.is_err() {
                    return self.on_refused(job, &Error::Unexpected);
                }
                self.routes.wake();
            }
            (Work::Record { records, writer, .. }, Reply::Integers(numbers)) => {
                self.on_recorded(records, *writer, &numbers);
            }
            (Work::GiveBack { rests, .. }, Reply::Integers(numbers)) => self.on_given_back(rests, &numbers),
            (Work::Record { .. } | Work::GiveBack { .. } | Work::Asking, _) => {
                return self.on_refused(job, &Error::Unexpected);
            }
        }
        self.on_done(job, now_us);
    }

    /// Takes away what the node has not decided, because it does not serve all logs of it. Each is asked again with its
    /// logs declared, so that the node says where they are.
    fn elsewhere(&self, job: &mut Job, report: &Report) -> Vec<Job> {
        let Work::Ask { batch, .. } = &job.work else { return Vec::new() };
        if !report.limits.contains(&LimitReport::Elsewhere) {
            return Vec::new();
        }
        let reports_of = |item: &Item| report.limits.get(item.places()).unwrap_or_default();
        let is_elsewhere = |item| reports_of(item).contains(&LimitReport::Elsewhere);
        let elsewhere: Vec<bool> = batch.items().iter().map(is_elsewhere).collect();
        let mut jobs = job.split_off(|index| elsewhere.get(index) == Some(&true));
        jobs.iter_mut().for_each(|job| self.declare(job));
        jobs
    }

    /// Has a job say what slot it is about.
    fn declare(&self, job: &mut Job) {
        job.slot = job.work.slot(&self.redis.store);
    }

    /// The node has said of each record what became of it.
    fn on_recorded(&self, records: &[Record], writer: Writer, numbers: &[i64]) {
        let node = self.node;
        let is_elsewhere = |place: usize| numbers.get(place) == Some(&ELSEWHERE);
        let of = |elsewhere: bool| {
            let places = records.iter().enumerate().filter(move |(place, _)| is_elsewhere(*place) == elsewhere);
            places.map(|(_, record)| record)
        };
        if numbers.contains(&ELSEWHERE) {
            node.ledger.not_written(of(true), writer);
            self.redis.directory.doubt();
        }
        self.queue.stats.written_back.add(of(false).count() as u64);
        node.ledger.written(of(false));
        if node.ledger.is_empty() {
            node.health.all_written();
        }
    }

    /// The node has said of each log of each share what became of it.
    fn on_given_back(&self, rests: &[Rest], numbers: &[i64]) {
        let mut numbers = numbers.iter();
        let is_elsewhere = |rest: &&Rest| {
            let of_rest = numbers.by_ref().take(rest.limits.len());
            of_rest.filter(|number| **number == ELSEWHERE).count() > 0
        };
        let elsewhere: Vec<_> = rests.iter().filter(is_elsewhere).cloned().collect();
        if !elsewhere.is_empty() {
            self.redis.directory.doubt();
            grants::try_again(self.routes, elsewhere);
        }
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
        if job.ahead == 0 {
            self.node.note_round_trip(took_us);
        }
        if let Work::Ask { batch, .. } = job.work {
            self.queue.take_spare(batch);
        }
    }

    /// The connection broke before Redis answered.
    pub(super) fn on_lost(&mut self, mut job: Job, error: &Error) {
        if let Work::Register { .. } | Work::Asking = job.work {
            // The next connection begins with none registered.
            return;
        }
        if let Work::GiveBack { rests, .. } = job.work {
            return grants::try_again(self.routes, rests);
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
            self.redis.directory.doubt();
        }
    }

    /// Redis answered with an error.
    fn on_refused(&mut self, job: Job, error: &Error) {
        let redirect = match error {
            Error::Refused(text) if self.routes.kind() == Kind::Cluster => Redirect::read(text),
            _ => None,
        };
        match redirect {
            Some(redirect) => self.on_redirected(job, redirect, error),
            None => self.on_failed(job, error),
        }
    }

    fn on_failed(&mut self, mut job: Job, error: &Error) {
        let kind = self.routes.kind();
        if kind == Kind::Cluster && job.slot.is_none() && job.work.first_key().is_some() && error.has_code("ERR") {
            // It may be that the node runs no script without keys. If it is for another reason, it says so again.
            info!(redis = ?self.node.dialer, %error, "each run of a script is about one slot from now on");
            self.node.set_declares_keys(true);
            return self.pass_on(job);
        }
        if kind == Kind::Sentinel && error.has_code("READONLY") && job.hops < MAX_HOPS {
            // Another is the primary now, and it takes a moment to learn which.
            job.hops += 1;
            self.redis.directory.doubt();
            return self.ask_later(job);
        }
        if let Work::Record { records, .. } = &job.work
            && error.has_code("ERR")
        {
            // By no state of its own but because of what they are: offered again they would keep it away for ever.
            warn!(%error, records = records.len(), "what the fallback admitted cannot be written to redis");
            return self.node.ledger.written(records);
        }
        let now_us = now_us();
        if matches!(job.work, Work::Throttle(_)) && error.has_code("NOPERM") {
            return self.completion().on_forbidden(&job, now_us);
        }
        if error.has_code("WRONGTYPE") {
            return self.completion().on_no_registry(&job, now_us);
        }
        self.completion().give_up(job, now_us);
        // One refusal is enough. A Redis out of memory takes some checks and refuses others, and its answers to those do
        // not know of what the fallback admits in place of these.
        if self.node.health.lost(error, now_us) {
            self.redis.directory.doubt();
            self.disconnect(error);
        }
        if error.has_code("READONLY") {
            // Its name may lead to another by now.
            self.node.health.hurry();
        }
    }
}
