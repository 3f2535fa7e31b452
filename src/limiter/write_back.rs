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
//! written in front of the question all the same, and counts once: in a log. What it needs of another state is not sent
//! twice, and is waited for.
//!
//! So the way back takes as long as one probe, however much there is to write, and whatever is asked meanwhile.

use super::in_flight::InFlight;
use super::job::Work;
use super::node::Node;
use crate::store::ledger::{Ledger, Record, Writer};
use crate::store::redis::RedisStore;

/// Most records in one run of the script: it bounds the time that one run holds Redis up, to well below a millisecond.
const MAX_RECORDS: usize = 32;
/// Most runs in flight, on one connection, that no question waits for. How much of its time they take Redis the ledger
/// bounds, by when the next one may be.
const MAX_AT_LEISURE: usize = 32;

/// One connection's part in it: what is to be sent, and when.
pub(super) struct WriteBack {
    /// By these names the ledger knows what is in flight here, in front of questions and at leisure.
    owed_writer: Writer,
    leisure_writer: Writer,
    /// Runs that may be in flight at leisure.
    most_at_leisure: usize,
}

impl WriteBack {
    pub fn new(ledger: &Ledger) -> Self {
        Self { owed_writer: ledger.new_writer(), leisure_writer: ledger.new_writer(), most_at_leisure: 1 }
    }

    /// The connection is another.
    pub fn restart(&mut self) {
        self.most_at_leisure = 1;
    }

    /// What a question must find in the logs, to be sent in front of it.
    pub fn owed(&self, node: &Node, work: &Work, now_us: u64) -> Vec<Work> {
        let mut owed = Vec::new();
        if let Work::Ask { batch, .. } = work
            && !node.ledger.is_empty()
        {
            for item in batch.items() {
                node.ledger.take_of(&batch.ask_of(item), self.owed_writer, now_us, &mut owed);
            }
        }
        // What is owed to a question about one slot is of that slot.
        runs(owed, false, self.owed_writer, node.patience_ends_us(now_us), false)
    }

    /// Some of what no question has asked for yet.
    pub fn at_leisure(&self, node: &Node, now_us: u64) -> Vec<Work> {
        let records = node.ledger.take(MAX_RECORDS, self.leisure_writer, now_us);
        runs(records, true, self.leisure_writer, node.patience_ends_us(now_us), node.declares_keys())
    }

    /// When there may be some, with so many runs in flight at leisure.
    pub fn next_leisure_us(&self, ledger: &Ledger, in_flight: impl FnOnce() -> usize) -> Option<u64> {
        let next_us = ledger.next_take_us()?;
        (in_flight() < self.most_at_leisure).then_some(next_us)
    }

    /// A run that no question waited for was answered. More are sent at once until Redis is slow to answer, then fewer.
    pub fn on_written_at_leisure(&mut self, limit: &InFlight) {
        let most = self.most_at_leisure;
        self.most_at_leisure = if limit.is_slow() { most.div_ceil(2) } else { (most + 1).min(MAX_AT_LEISURE) };
    }

    /// What was admitted before a reset of its key is dropped with it. Whether some of it is on its way elsewhere, and
    /// might come after the reset; or some that a question must find.
    pub fn must_wait(&self, ledger: &Ledger, work: &Work, now_us: u64) -> bool {
        match work {
            Work::Ask { batch, .. } if !ledger.is_empty() => {
                // All of them, so that none is given out meanwhile.
                let is_under_way = |item| ledger.is_under_way(&batch.ask_of(item), self.owed_writer, now_us);
                batch.items().iter().filter(|item| is_under_way(item)).count() > 0
            }
            Work::Reset(reset) if !ledger.is_empty() => {
                // All of them, so that none is given out meanwhile.
                reset.keys_left().iter().filter(|key| ledger.begin_reset(key, self.owed_writer)).count() > 0
            }
            _ => false,
        }
    }
}

/// Records in runs of the script that are short enough, and each about one key, if so asked.
fn runs(mut records: Vec<Record>, at_leisure: bool, writer: Writer, due_us: u64, is_of_one_key: bool) -> Vec<Work> {
    let mut runs = Vec::new();
    while let Some(first) = records.first() {
        let alike = records.iter().take_while(|record| !is_of_one_key || record.key == first.key).count();
        let most = RedisStore::records_in_one_run(&records).min(MAX_RECORDS).min(alike);
        let rest = records.split_off(most);
        let records = std::mem::replace(&mut records, rest);
        runs.push(Work::Record { records, at_leisure, writer, due_us });
    }
    runs
}
