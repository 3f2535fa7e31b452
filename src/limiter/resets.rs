//! Resets: how one that was asked for here goes on from piece to piece, and how those on every proxy that shares the
//! Redis are heard of, so that no denial cached here outlives one.

use super::job::{Job, Work};
use super::mailbox::{Answer, Refusal};
use super::pipeline::Pipeline;
use super::{Remote, needs};
use crate::clock::now_us;
use crate::limit::Counter;
use crate::store::connection::{Connection, Error, Reply};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::timeout;
use tracing::{debug, warn};

/// Wait before subscribing again. Meanwhile denials are not cached, which costs speed only.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Silence after which the connection is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(1);

/// Listens for as long as it is polled.
pub async fn listen(remote: &Remote) {
    let mut is_up = remote.is_up.subscribe();
    loop {
        // While Redis is not asked no denial is kept that a reset could end; and what is there may be no Redis.
        let _ = is_up.wait_for(|is_up| *is_up).await;
        if let Err(error) = subscribe(remote).await {
            debug!(%error, "cannot hear of resets");
            let is_right = error.has_code("NOPERM");
            let lacks = || needs::lacks("+subscribe", &error.to_string(), needs::DEAFNESS, remote.about());
            remote.on_deafness(is_right.then(lacks));
        }
        remote.hears_resets.store(false, Relaxed);
        remote.deny_cache.clear(now_us());
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Returns once the subscription is lost.
async fn subscribe(remote: &Remote) -> Result<(), Error> {
    let mut link = Connection::open(&remote.dialer, remote.connect_timeout).await?;
    let channel = remote.store.reset_channel();
    let words = [&b"SUBSCRIBE"[..], &channel];
    let subscribed = timeout(remote.connect_timeout, link.call(&words)).await;
    subscribed.unwrap_or_else(|_| Err(Error::late()))?;
    remote.on_deafness(None);
    remote.hears_resets.store(true, Relaxed);
    let mut is_pinged = false;
    loop {
        match timeout(PING_AFTER, link.reply()).await {
            // That a user may not ask is a sign of life too.
            Ok(Err(Error::Refused(_))) if is_pinged => is_pinged = false,
            Ok(reply) => {
                is_pinged = false;
                if let Reply::Texts(words) = reply?
                    && let [kind, _, key] = words.as_slice()
                    && kind == b"message"
                {
                    remote.forget(key, now_us());
                }
            }
            // A half-open connection never says that it has ended.
            Err(_) if is_pinged => return Err(Error::late()),
            Err(_) => {
                is_pinged = true;
                link.write(&[b"PING"]);
            }
        }
    }
}

impl Pipeline<'_> {
    /// A reset has got as far as this reply says. What was asked meanwhile passes before the next piece, unless that is
    /// the only one.
    pub(super) fn advance_reset(&mut self, mut job: Job, numbers: &[i64], now_us: u64) {
        let remote = self.remote;
        let Work::Reset(reset) = &mut job.work else { return };
        if let Some(piece) = reset.piece() {
            piece.keys.iter().for_each(|key| remote.forget(key, now_us));
            reset.piece_done(numbers);
        } else {
            match remote.registry.listed(numbers, now_us) {
                Ok(Some(counters)) => reset.set_counters(counters),
                Ok(None) => return self.answer_reset(&job, Answer::Refused(Refusal::Windows(remote.registry.max()))),
                Err(error) => return self.on_refused(job, &error),
            }
        }
        if job.waiters.expired == 0 {
            remote.breaker.success();
        }
        if reset.is_done() {
            let answer = Answer::Reset(reset.had_state());
            self.answer_reset(&job, answer);
        } else if job.waiters.expired == 0 {
            // Each piece is to be answered in time, however many there are.
            job.waiters.list.iter_mut().for_each(|waiter| waiter.due_us = now_us + remote.timeout_us);
            let is_short = reset.ends_with_next_piece();
            self.batcher.enqueue_rest(job, is_short);
        }
    }

    fn answer_reset(&self, job: &Job, answer: Answer) {
        for waiter in job.waiters.list.iter().skip(job.waiters.expired) {
            self.deliver(&job.work, waiter, answer);
        }
    }

    /// What has the registry's name is something else. Checks need no registry.
    pub(super) fn on_no_registry(&mut self, job: &Job) {
        if let Work::Register { counters, .. } = &job.work {
            warn!("what has the registry's name in redis is something else: RL.RESET cannot work");
            self.remote.registry.pass_over(counters, job.sent_us);
        }
        self.answer_reset(job, Answer::Refused(Refusal::WrongType));
    }
}

impl Remote {
    /// Redis was asked at `sent_us` to register counters, or which are registered, and answered.
    pub(super) fn on_registered(&self, counters: &[Counter], numbers: &[i64], sent_us: u64) -> Result<(), Error> {
        match counters {
            [] => self.registry.listed(numbers, sent_us).map(|_| ()),
            _ => self.registry.registered(counters, numbers, sent_us),
        }
    }
}
