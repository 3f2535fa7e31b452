//! How a job ends for those who wait for it: by Redis's answer, or by the fallback's where that is too late or none.
//!
//! Knows no connection: what an answer or an error says of that is the pipeline's business.

use super::decided::Decided;
use super::grants::Asked;
use super::job::{Job, Waiter, Work};
use super::mailbox::{Answer, Refusal};
use super::node::Node;
use super::queue::Queue;
use super::redis::Redis;
use super::routes::Routes;
use super::throttle;
use crate::limit::{Ask, Form, LimitState, decide, decide_in_full};
use crate::stats::Source;
use crate::store::batch::Batch;
use crate::store::connection::Reply;
use crate::store::redis::{LimitReport, Report, entry_id, share_id};
use crate::store::throttle::ThrottleReport;
use crate::store::ttl_cache::TtlCache;
use std::rc::Rc;
use tracing::warn;

/// What it takes to answer.
#[derive(Clone, Copy)]
pub(super) struct Completion<'a> {
    pub redis: &'a Redis,
    pub node: &'a Node,
    pub queue: &'a Queue,
    pub routes: &'a Rc<Routes>,
}

impl Completion<'_> {
    /// Answers those who are due by `until_us` in Redis's place. Whether there was any.
    pub fn expire(&self, job: &mut Job, until_us: u64, now_us: u64) -> bool {
        let Job { work, waiters, .. } = job;
        let first = waiters.expired;
        while let Some(waiter) = waiters.list.get_mut(waiters.expired).filter(|waiter| waiter.due_us <= until_us) {
            if let Some(asked) = asked_share(work, waiter, 0) {
                asked.not_answered(self.routes, self.redis, now_us);
                self.queue.on_share_answered();
                waiters.expired += 1;
                continue;
            }
            let answer = match work {
                Work::Ask { verb, batch, .. } => match batch.items().get(waiter.item) {
                    Some(item) => self.redis.fall_back(*verb, &batch.ask_of(item), waiter.form, now_us),
                    None => Answer::Refused(self.node.health.refusal()),
                },
                Work::Throttle(batch) => match batch.get(waiter.item) {
                    Some((name, question)) => throttle::fall_back(self.redis, &question, name, now_us),
                    None => Answer::Refused(self.node.health.refusal()),
                },
                _ => Answer::Refused(self.node.health.refusal()),
            };
            waiter.admitted_here = answer.is_admission() && work.counts();
            self.queue.stats.by_fallback.add(1);
            self.record_latency(work, waiter, now_us);
            self.queue.deliver(work, waiter, Source::Fallback, answer, now_us);
            waiters.expired += 1;
        }
        waiters.expired > first
    }

    /// A check has been waited for until now.
    fn record_latency(&self, work: &Work, waiter: &Waiter, now_us: u64) {
        if work.counts() {
            let asked_us = waiter.due_us.saturating_sub(self.redis.timeout_us);
            self.queue.stats.check_latency.record(now_us.saturating_sub(asked_us));
        }
    }

    /// A job is over for all who waited, without an answer. What the fallback admitted meanwhile is owed to Redis,
    /// which, if it was `sent`, may have counted it already.
    pub fn abandon(&self, job: &Job, sent: bool, now_us: u64) {
        let ledger = &self.node.ledger;
        if let Work::Record { records, writer, .. } = &job.work {
            ledger.not_written(records, *writer);
        }
        let Work::Ask { batch, id, .. } = &job.work else { return };
        if sent {
            let shares = job.waiters.list.iter().filter_map(|waiter| asked_share(&job.work, waiter, job.first_sent_us));
            shares.for_each(|asked| asked.abandoned(self.routes));
        }
        for (index, item) in batch.items().iter().enumerate() {
            let (ask, admitted) = (batch.ask_of(item), job.admitted_here(index));
            if admitted > 0 && sent {
                ledger.admitted_of_asked(&ask, &entry_id(id, index), item.count, admitted, now_us);
            } else if admitted > 0 {
                ledger.admitted(&ask, admitted, now_us);
            }
        }
    }

    /// There is no answer to a job that was sent.
    pub fn give_up(&self, mut job: Job, now_us: u64) {
        self.expire(&mut job, u64::MAX, now_us);
        self.abandon(&job, true, now_us);
    }

    /// Hands out the verdicts, and keeps of the report, which was `decided` then, what will save asking or inform the
    /// fallback.
    pub fn answer(
        &self,
        batch: &Batch,
        job: &Job,
        (report, decided): (&Report, Decided),
        ttl_cache: &mut TtlCache,
        now_us: u64,
    ) {
        let Report { redis_now_us, limits: reports } = report;
        // As the checks are decided one after another, in the order of the limits of all items.
        let mut states: Vec<LimitState> = reports.iter().map(LimitReport::state).collect();
        let mut granted_late = vec![0u32; if job.waiters.expired > 0 { batch.items().len() } else { 0 }];
        let is_kept = self.node.replay.is_on() && job.work.counts();
        let mut admitted = vec![0u32; if is_kept { batch.items().len() } else { 0 }];
        for (index, waiter) in job.waiters.list.iter().enumerate() {
            let Some(item) = batch.items().get(waiter.item) else { continue };
            let places = item.places();
            let (Some(reports), Some(states)) = (reports.get(places.clone()), states.get_mut(places)) else {
                continue;
            };
            if let Some(asked) = asked_share(&job.work, waiter, job.first_sent_us) {
                let is_granted =
                    refusal_of(reports).is_none() && asked.answered(self.routes, self.redis, states, now_us);
                if let (true, Some(admitted)) = (is_granted, admitted.get_mut(waiter.item)) {
                    *admitted = 1;
                }
                if index >= job.waiters.expired {
                    self.queue.on_share_answered();
                }
                continue;
            }
            let answer = decide_next(&batch.ask_of(item), waiter.form, reports, states, job.work.counts());
            if let (true, Some(admitted)) = (answer.is_admission(), admitted.get_mut(waiter.item)) {
                *admitted += 1;
            }
            if index >= job.waiters.expired {
                self.queue.stats.by_store.add(1);
                self.record_latency(&job.work, waiter, now_us);
                self.queue.deliver(&job.work, waiter, Source::Store, answer, now_us);
            } else if let Some(granted) = granted_late.get_mut(waiter.item) {
                *granted += u32::from(answer.is_admission());
            }
        }
        if let (true, Work::Ask { id, .. }) = (admitted.iter().any(|admitted| *admitted > 0), &job.work) {
            self.node.replay.admitted(batch, id, &admitted, job.sent_us);
        }
        // Of a batch that ran before, it is not known when the logs were looked at.
        let decided = Some(decided).filter(|_| !job.resent);
        for (index, item) in batch.items().iter().enumerate() {
            let places = item.places();
            let (Some(reports), Some(states)) = (reports.get(places.clone()), states.get(places)) else { continue };
            if refusal_of(reports).is_some() || item.share_us > 0 {
                continue;
            }
            let ask = batch.ask_of(item);
            let is_counted =
                job.work.counts() && states.iter().zip(reports).any(|(after, before)| after.is_above(&before.state()));
            if is_counted && !item.has_fresh_ttl && !job.resent {
                ttl_cache.seen(&ask, *redis_now_us);
            }
            self.redis.learn(self.node, &ask, item, (states, reports), decided, now_us);
            if let Some(granted) = granted_late.get(index)
                && job.work.counts()
            {
                // Of those whom the fallback answered first, Redis may have admitted fewer.
                let uncounted = job.admitted_here(index).saturating_sub(*granted);
                if uncounted > 0 {
                    self.node.ledger.admitted(&ask, uncounted, now_us);
                }
            }
        }
    }

    /// Hands out the answers to throttles.
    pub fn answer_throttles(&self, job: &Job, reports: &[ThrottleReport], now_us: u64) {
        let Work::Throttle(batch) = &job.work else { return };
        let mut reports = reports.to_vec();
        for (index, waiter) in job.waiters.list.iter().enumerate() {
            let Some((report, (_, question))) = reports.get_mut(waiter.item).zip(batch.get(waiter.item)) else {
                continue;
            };
            let answer = throttle::answer_next(&question, report);
            if index >= job.waiters.expired {
                self.queue.stats.by_store.add(1);
                self.record_latency(&job.work, waiter, now_us);
                self.queue.deliver(&job.work, waiter, Source::Store, answer, now_us);
            }
        }
        for (index, report) in reports.iter().enumerate() {
            if let (Some((name, question)), ThrottleReport::Ahead(ahead_ns)) = (batch.get(index), report) {
                throttle::learn(self.redis, &question, name, *ahead_ns, now_us);
            }
        }
    }

    /// A reset, or a look at a key, has got as far as this reply says. What was asked meanwhile passes before the next
    /// piece, unless that is the only one. Gives the job back if this is the reply to something else.
    pub fn advance(&self, mut job: Job, reply: &Reply, now_us: u64) -> Option<Job> {
        let Self { redis, node, queue, .. } = self;
        let is_listed = match &job.work {
            Work::Reset(reset) => reset.piece().is_some(),
            Work::Inspect(inspect) => inspect.glance().is_some(),
            _ => return Some(job),
        };
        // What is in use is asked first, and then of each piece how it stands.
        let numbers = match reply {
            Reply::Integers(numbers) if is_listed => numbers.as_slice(),
            Reply::Texts(_) if !is_listed => &[],
            _ => return Some(job),
        };
        if let Reply::Texts(names) = reply {
            let Ok(listed) = redis.registry.listed(names, now_us) else { return Some(job) };
            let Some(counters) = listed else {
                queue.deliver_all(&job, Answer::Refused(Refusal::Windows(redis.registry.max())), now_us);
                return None;
            };
            match &mut job.work {
                Work::Reset(reset) => reset.set_counters(counters),
                Work::Inspect(inspect) => inspect.set_counters(counters),
                _ => {}
            }
        }
        let answer = match &mut job.work {
            Work::Reset(reset) => {
                if let Some(piece) = reset.piece().filter(|_| is_listed) {
                    piece.keys.iter().for_each(|key| redis.forget(node, key, now_us));
                    reset.piece_done(numbers);
                }
                reset.is_done().then(|| Answer::Reset(reset.had_state()))
            }
            Work::Inspect(inspect) => {
                if is_listed && inspect.glanced(numbers).is_err() {
                    return Some(job);
                }
                inspect.is_done().then(|| Answer::Standings(inspect.take_found().into(), inspect.lists_entries()))
            }
            _ => None,
        };
        if job.waiters.expired == 0 {
            node.health.succeeded();
        }
        if let Some(answer) = answer {
            queue.deliver_all(&job, answer, now_us);
        } else if job.waiters.expired == 0 {
            // Each piece is to be answered in time, however many there are.
            job.waiters.list.iter_mut().for_each(|waiter| waiter.due_us = now_us + redis.timeout_us);
            let is_short = match &job.work {
                Work::Reset(reset) => reset.ends_with_next_piece(),
                Work::Inspect(inspect) => inspect.ends_with_next_glance(),
                _ => false,
            };
            queue.put_rest(job, is_short);
        }
        None
    }

    /// Tollgate's user may not touch a throttle's key. Clients choose those: there is nothing wrong with Redis.
    pub fn on_forbidden(&self, job: &Job, now_us: u64) {
        self.queue.deliver_all(job, Answer::Refused(Refusal::Forbidden), now_us);
    }

    /// What has the registry's name is something else. Checks need no registry.
    pub fn on_no_registry(&self, job: &Job, now_us: u64) {
        if let Work::Register { counters, .. } = &job.work {
            warn!("what has the registry's name in redis is something else: RL.RESET cannot work");
            self.redis.registry.pass_over(counters, job.sent_us);
        }
        self.queue.deliver_all(job, Answer::Refused(Refusal::WrongType), now_us);
    }
}

/// What a waiter has asked for, if it is a share.
fn asked_share<'a>(work: &'a Work, waiter: &Waiter, sent_us: u64) -> Option<Asked<'a>> {
    let (Work::Ask { batch, id, .. }, None) = (work, &waiter.mailbox) else { return None };
    let item = batch.items().get(waiter.item)?;
    let (ask, id) = (batch.ask_of(item), share_id(id, waiter.item));
    Some(Asked { ask, ticket: waiter.ticket, id, life_us: item.share_us, sent_us })
}

/// Decides the next check of an item by where its limits stand, and counts it there if it `counts`.
fn decide_next(ask: &Ask<'_>, form: Form, reports: &[LimitReport], states: &mut [LimitState], counts: bool) -> Answer {
    if let Some(refusal) = refusal_of(reports) {
        return Answer::Refused(refusal);
    }
    let answer = match form {
        Form::Short => Answer::Verdict(decide(ask.limits, states, ask.cost)),
        Form::Full => Answer::in_full(decide_in_full(ask.limits, states, ask.cost)),
    };
    if answer.is_admission() && counts {
        for (state, limit) in states.iter_mut().zip(ask.limits) {
            limit.count(state, ask.cost);
        }
    }
    answer
}

/// Why an item was not decided.
fn refusal_of(reports: &[LimitReport]) -> Option<Refusal> {
    reports.iter().find_map(|report| match report {
        LimitReport::State { .. } => None,
        LimitReport::WrongType => Some(Refusal::WrongType),
        LimitReport::Elsewhere => Some(Refusal::Unavailable),
    })
}
