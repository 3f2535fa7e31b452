//! What the fallback admitted on its way to Redis: in front of questions about the same logs, and else at leisure.
//!
//! Exact answers resume for all keys with the first connection that works. For a key with unwritten records they are
//! exact because of the order on one connection, see [`ledger`](crate::store::ledger):
//!
//! ```text
//!   this worker's connection   [ records of a, b ][ check a, b, c ]      [ records of x, y ][ check d ]
//!                                written first                             at leisure
//! ```
//! What is written at leisure may run late, because Redis had forgotten the script. So what a question needs of it is
//! written in front of the question all the same, and counts once.
//!
//! So the way back takes as long as one probe, however much there is to write, and whatever is asked meanwhile.

use super::job::{Job, Work};
use super::pipeline::Pipeline;
use crate::store::ledger::{Record, Writer};
use crate::store::redis::RedisStore;

/// Most records in one run of the script: it bounds the time that one run holds Redis up, to well below a millisecond.
const MAX_RECORDS: usize = 32;
/// Most runs in flight, on one connection, that no question waits for. How much of its time they take Redis the ledger
/// bounds, by when the next one may be.
const MAX_AT_LEISURE: usize = 32;

impl Pipeline<'_> {
    /// Writes what a question must find in the logs, in front of it.
    pub(super) fn write_owed(&mut self, work: &Work, now_us: u64) {
        let ledger = &self.remote.ledger;
        if ledger.is_empty() {
            return;
        }
        let Work::Ask { batch, .. } = work else { return };
        let mut owed = Vec::new();
        for item in batch.items() {
            ledger.take_of(&batch.ask_of(item), self.writer, now_us, &mut owed);
        }
        while !owed.is_empty() {
            let rest = owed.split_off(owed.len().min(MAX_RECORDS));
            self.send_records(std::mem::replace(&mut owed, rest), false, now_us);
        }
    }

    /// Writes some of what no question has asked for yet.
    pub(super) fn write_at_leisure(&mut self, now_us: u64) {
        while self.next_leisure_us().is_some_and(|due_us| due_us <= now_us) {
            let records = self.remote.ledger.take(MAX_RECORDS, self.leisure_writer, now_us);
            if records.is_empty() {
                return;
            }
            self.send_records(records, true, now_us);
        }
    }

    /// When [`Pipeline::write_at_leisure`] may have something to do.
    pub(super) fn next_leisure_us(&self) -> Option<u64> {
        let next_us = self.remote.ledger.next_take_us().filter(|_| self.link.is_some())?;
        let runs = self.in_flight.iter().filter(|job| matches!(job.work, Work::Record { at_leisure: true, .. }));
        (runs.count() < self.most_at_leisure).then_some(next_us)
    }

    /// A run that no question waited for was answered. More are sent at once until Redis is slow to answer, then fewer.
    pub(super) fn on_written_at_leisure(&mut self) {
        let most = self.most_at_leisure;
        self.most_at_leisure = if self.limit.is_slow() { most.div_ceil(2) } else { (most + 1).min(MAX_AT_LEISURE) };
    }

    /// By this name the ledger knows who writes.
    pub(super) fn writer(&self, at_leisure: bool) -> Writer {
        if at_leisure { self.leisure_writer } else { self.writer }
    }

    /// What was admitted before a reset of its key is dropped with it. Whether some of it is on its way elsewhere, and
    /// might come after the reset.
    pub(super) fn must_wait(&self, work: &Work) -> bool {
        let (ledger, writer) = (&self.remote.ledger, self.writer);
        match work {
            Work::Reset(reset) if !ledger.is_empty() => {
                // All of them, so that none is given out meanwhile.
                reset.keys_left().iter().filter(|key| ledger.begin_reset(key, writer)).count() > 0
            }
            _ => false,
        }
    }

    fn send_records(&mut self, mut records: Vec<Record>, at_leisure: bool, now_us: u64) {
        let rest = records.split_off(RedisStore::records_in_one_run(&records));
        if !rest.is_empty() {
            self.send_records(rest, at_leisure, now_us);
        }
        let patience_us = u64::try_from(self.remote.connect_timeout.as_micros()).unwrap_or(u64::MAX);
        let work = Work::Record { records, at_leisure, due_us: now_us.saturating_add(patience_us) };
        // A script that Redis has forgotten is sent again, and would come behind the question that it is to precede.
        let with_source = !at_leisure;
        self.send_job(Job { with_source, ..self.batcher.new_job(work) }, now_us);
    }
}
