//! A batcher's connection to Redis: opened, probed, given up; and what is owed to Redis, written once it is there.

use super::batcher::Batcher;
use super::{Limiter, Remote, is_answer};
use crate::clock::now_us;
use crate::store::batch::Batch;
use crate::store::redis::Connection;
use redis::RedisError;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::warn;

/// Most records in one script: it bounds the time that the script holds Redis up.
const MAX_RECORDS: usize = 64;
/// Wait before records that Redis did not take are offered again.
const RETRY_US: u64 = 100_000;

impl Batcher {
    /// Sees to it that there is a connection, as far as the breaker lets.
    pub(super) fn keep_connected(self: &Rc<Self>, remote: &Remote, now_us: u64) {
        let is_open = !remote.breaker.is_closed();
        // While the breaker is open only a probe may close it, and a probe is a connection made anew.
        if is_open || self.link.borrow().as_ref().is_some_and(|link| link.lost.is_cancelled()) {
            self.disconnect();
        }
        let is_wanted = self.link.borrow().is_none() && !self.connecting.get();
        if is_wanted && (!is_open || remote.breaker.probe_due(now_us)) {
            self.connecting.set(true);
            tokio::task::spawn_local(self.clone().connect());
        }
    }

    pub(super) fn disconnect(&self) {
        if let Some(link) = self.link.take() {
            link.lost.cancel();
        }
    }

    async fn connect(self: Rc<Self>) {
        let Limiter::Redis(remote) = &*self.limiter else { return };
        match self.open_and_probe(remote).await {
            Ok(link) => {
                remote.on_up();
                let (batcher, lost) = (self.clone(), link.lost.clone());
                *self.link.borrow_mut() = Some(link);
                tokio::task::spawn_local(async move {
                    lost.cancelled().await;
                    batcher.wake.notify_one();
                });
            }
            Err(error) => remote.on_down(remote.breaker.lost(now_us()), &error, is_answer(&error)),
        }
        self.connecting.set(false);
        self.wake.notify_one();
    }

    /// A connection on which the scripts run and to which nothing is owed.
    async fn open_and_probe(&self, remote: &Remote) -> Result<Connection, RedisError> {
        let attempt = async {
            let mut link = Connection::open(&remote.dialer, remote.connect_timeout).await?;
            remote.store.load(&mut link).await;
            // A script is what has to work: a Redis that is loading or busy, or asks for a password, says so here.
            let sent_us = now_us();
            // And in time: a Redis that answers only after the deadline would close the breaker for nothing.
            let nothing = Batch::default();
            let check = remote.store.check(&mut link, &nothing, "");
            let in_time = timeout(Duration::from_micros(remote.timeout_us), check).await;
            let answers = in_time.unwrap_or_else(|_| Err(no_answer()))?;
            remote.note_clock(answers.redis_now_us, sent_us);
            if let Ok(version) = link.version().await {
                remote.lock_known().version = Some(version);
            }
            Ok::<_, RedisError>(link)
        };
        let mut link = timeout(remote.connect_timeout, attempt).await.unwrap_or_else(|_| Err(no_answer()))?;
        self.write_back(remote, &mut link).await?;
        Ok(link)
    }

    /// Writes what single checks that Redis answered too late have left, while all else goes on.
    pub(super) fn keep_books(self: &Rc<Self>, now_us: u64) {
        let Some(mut link) = self.link.borrow().clone() else { return };
        let Limiter::Redis(remote) = &*self.limiter else { return };
        if remote.ledger.is_empty() || now_us < self.next_write_us.get() {
            return;
        }
        self.next_write_us.set(now_us + RETRY_US);
        let batcher = self.clone();
        tokio::task::spawn_local(async move {
            if let Limiter::Redis(remote) = &*batcher.limiter
                && batcher.write_back(remote, &mut link).await.is_ok()
            {
                batcher.next_write_us.set(0);
            }
        });
    }

    async fn write_back(&self, remote: &Remote, link: &mut Connection) -> Result<(), RedisError> {
        loop {
            let records = remote.ledger.take(MAX_RECORDS, now_us());
            if records.is_empty() {
                return Ok(());
            }
            let write = remote.store.record(link, &records, remote.clock_offset_us());
            match timeout(remote.connect_timeout, write).await.unwrap_or_else(|_| Err(no_answer())) {
                Ok(()) => self.stats.written_back.add(records.len() as u64),
                Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError) => {
                    // No state of Redis but the records themselves: offered again they would keep Redis away for ever.
                    warn!(%error, records = records.len(), "what the fallback admitted cannot be written to redis");
                }
                Err(error) => {
                    remote.ledger.give_back(records);
                    return Err(error);
                }
            }
        }
    }
}

fn no_answer() -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "no answer"))
}
