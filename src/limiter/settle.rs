//! How a job ends: with Redis's answer, with its error, or too late for some of those who wait.

use super::batcher::{Batcher, Reply};
use super::job::{Job, Waiter, Waiters, Work};
use super::mailbox::{Answer, Refusal};
use super::{Remote, is_answer};
use crate::clock::now_us;
use crate::quota::{Check, WindowState, decide};
use crate::store::batch::Batch;
use crate::store::redis::{Connection, WindowAnswer, entry_id};
use redis::RedisError;

impl Batcher {
    /// Answers those who are due by `until_us` in Redis's place. Whether there was any.
    pub(super) fn expire(
        &self,
        remote: &Remote,
        work: &Work,
        waiters: &mut Waiters,
        until_us: u64,
        now_us: u64,
    ) -> bool {
        let first = waiters.expired;
        while let Some(waiter) = waiters.list.get_mut(waiters.expired).filter(|waiter| waiter.due_us <= until_us) {
            let answer = match work {
                Work::Reset { .. } => Answer::Refused(Refusal::Unavailable),
                Work::Ask { kind, batch, .. } => match batch.items().get(waiter.item) {
                    Some(item) => remote.fall_back(*kind, &batch.check_of(item), now_us),
                    None => Answer::Refused(Refusal::Unavailable),
                },
            };
            waiter.admitted_here = answer.is_admission() && work.counts();
            self.stats.by_fallback.add(1);
            self.deliver(work, waiter, answer);
            waiters.expired += 1;
        }
        waiters.expired > first
    }

    fn deliver(&self, work: &Work, waiter: &Waiter, answer: Answer) {
        if work.counts() {
            self.count(&answer);
        }
        self.waiting.set(self.waiting.get() - 1);
        waiter.mailbox.deliver(waiter.ticket, answer);
    }

    /// A job is over for all who waited, without an answer. What the fallback admitted meanwhile is owed to Redis,
    /// which, if it was `sent`, may have counted it already.
    pub(super) fn abandon(&self, remote: &Remote, job: &Job, sent: bool, now_us: u64) {
        let Work::Ask { batch, id, .. } = &job.work else { return };
        for (index, item) in batch.items().iter().enumerate() {
            let (check, admitted) = (batch.check_of(item), job.admitted_here(index));
            if admitted > 0 && sent {
                remote.ledger.admitted_of_asked(&check, entry_id(id, index), item.count, admitted, now_us);
            } else if admitted > 0 {
                remote.ledger.admitted(&check, admitted, now_us);
            }
        }
    }

    /// Redis has answered.
    pub(super) fn settle(&self, remote: &Remote, job: &Job, reply: Reply, sent_us: u64) {
        self.missed.set(0);
        // An answer too late for anybody is no success: a Redis that is always too slow must open the breaker.
        if job.waiters.expired == 0 {
            remote.breaker.success();
        }
        let now_us = now_us();
        self.stats.store_latency.record(now_us.saturating_sub(sent_us));
        match (reply, &job.work) {
            (Reply::Windows(answers), Work::Ask { batch, .. }) => {
                remote.note_clock(answers.redis_now_us, sent_us);
                self.settle_items(remote, batch, job, &answers.windows, sent_us, now_us);
            }
            (Reply::Reset(count), Work::Reset { keys }) => {
                for key in keys {
                    remote.forget(key, now_us);
                }
                for waiter in job.waiters.list.iter().skip(job.waiters.expired) {
                    self.deliver(&job.work, waiter, Answer::Reset(count));
                }
            }
            _ => debug_assert!(false, "a reply to another question"),
        }
    }

    /// Hands out the decisions, and keeps of the answers what will save asking or inform the fallback.
    fn settle_items(
        &self,
        remote: &Remote,
        batch: &Batch,
        job: &Job,
        answers: &[WindowAnswer],
        sent_us: u64,
        now_us: u64,
    ) {
        // As the checks are decided one after another, in the order of the windows of all items.
        let mut states: Vec<WindowState> = answers.iter().map(WindowAnswer::state).collect();
        let mut granted_late = vec![0u32; if job.waiters.expired > 0 { batch.items().len() } else { 0 }];
        for (index, waiter) in job.waiters.list.iter().enumerate() {
            let Some(item) = batch.items().get(waiter.item) else { continue };
            let windows = item.windows();
            let (Some(answers), Some(states)) = (answers.get(windows.clone()), states.get_mut(windows)) else {
                continue;
            };
            let answer = decide_next(&batch.check_of(item), answers, states, job.work.counts());
            if index >= job.waiters.expired {
                self.stats.by_store.add(1);
                self.deliver(&job.work, waiter, answer);
            } else if let Some(granted) = granted_late.get_mut(waiter.item) {
                *granted += u32::from(answer.is_admission());
            }
        }
        for (index, item) in batch.items().iter().enumerate() {
            let windows = item.windows();
            let (Some(answers), Some(states)) = (answers.get(windows.clone()), states.get(windows)) else { continue };
            if answers.contains(&WindowAnswer::WrongType) {
                continue;
            }
            let check = batch.check_of(item);
            remote.learn(&check, states, answers, sent_us, now_us);
            if let Some(granted) = granted_late.get(index)
                && job.work.counts()
            {
                // Of those whom the fallback answered first, Redis may have admitted fewer.
                let uncounted = job.admitted_here(index).saturating_sub(*granted);
                if uncounted > 0 {
                    remote.ledger.admitted(&check, uncounted, now_us);
                }
            }
        }
    }

    /// Redis has answered with an error, or the connection broke.
    pub(super) fn on_error(&self, remote: &Remote, link: &Connection, mut job: Job, error: &RedisError) {
        let now_us = now_us();
        let broken = error.is_unrecoverable_error() || link.lost.is_cancelled();
        if broken {
            link.lost.cancel();
            if !job.resent && remote.breaker.is_closed() && job.waiters.next_due_us().is_some() {
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
        self.abandon(remote, &job, true, now_us);
        // One refusal is enough. A Redis out of memory takes some checks and refuses others, and its answers to those do
        // not know of what the fallback admits in place of these.
        let is_news = if broken { remote.breaker.failure(now_us) } else { remote.breaker.lost(now_us) };
        remote.on_down(is_news, error, is_answer(error));
        if is_news {
            link.lost.cancel();
        }
    }
}

/// Decides the next check of an item by where its windows stand, and counts it there if it `counts`.
fn decide_next(check: &Check<'_>, answers: &[WindowAnswer], states: &mut [WindowState], counts: bool) -> Answer {
    if answers.contains(&WindowAnswer::WrongType) {
        return Answer::Refused(Refusal::WrongType);
    }
    let decision = decide(check.quotas, states, check.cost);
    if decision.allowed && counts {
        for (state, quota) in states.iter_mut().zip(check.quotas) {
            state.count(check.cost, quota.window);
        }
    }
    Answer::Decision(decision)
}
