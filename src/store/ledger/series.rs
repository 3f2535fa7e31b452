//! The records of one key and window.
//!
//! Admissions that follow each other closely are one record, under the time of the last: it counts for a little longer
//! than it must, never for less. So a log is owed a bounded number of records, whatever its traffic:
//!
//! ```text
//!   admissions      x xx   x        x  xx x
//!   time ----------[ first step ]--[ next step ]---->
//!   records                 4                 4
//! ```
//!
//! A record that has been sent is not changed any more, because Redis may know it. Where room is needed even so, such a
//! record is merged under a new id and may then count twice: more than it must, never less.

use super::{Id, Record, Writer};
use crate::limit::{Counter, MAX_LIMIT};
use std::collections::VecDeque;
use std::sync::Arc;

/// Admissions within this part of the window count as made at once.
pub(super) const PARTS: u64 = 64;
/// Most records of one key and window: those that an outage leaves, as many that were sent and not acknowledged, and what a
/// node that is lost had admitted of a busy key in the seconds before.
pub(super) const MAX_RECORDS: usize = 32 * PARTS as usize;

/// Admissions that followed each other closely.
#[derive(Debug)]
pub(super) struct Owed {
    first_us: u64,
    pub(super) last_us: u64,
    id: Id,
    /// The lowest limit that it was admitted under.
    max: u32,
    /// Of each.
    cost: u64,
    admitted: u32,
    /// Redis may have it.
    is_sealed: bool,
    /// Who has it in flight.
    writers: Vec<Writer>,
}

/// The records, oldest first. Never empty for long.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) counter: Counter,
    admissions: VecDeque<Owed>,
    /// Until then somebody waits to send all of it.
    pub(super) awaited_until_us: u64,
}

impl Owed {
    pub(super) fn new(id: Id, max: u32, cost: u64, admitted: u32, now_us: u64) -> Self {
        let is_sealed = matches!(id, Id::Asked { .. });
        Self { first_us: now_us, last_us: now_us, id, max, cost, admitted, is_sealed, writers: Vec::new() }
    }

    /// More than the highest limit fills a log no further.
    fn weight(&self) -> u64 {
        self.cost.saturating_mul(self.admitted.into()).min(MAX_LIMIT.into())
    }

    fn absorb(&mut self, later: &Self) {
        (self.cost, self.admitted) = ((self.weight() + later.weight()).min(MAX_LIMIT.into()), 1);
        self.last_us = self.last_us.max(later.last_us);
        self.max = self.max.min(later.max);
    }

    fn lend(&mut self, key: &Arc<[u8]>, counter: Counter, writer: Writer) -> Record {
        self.is_sealed = true;
        self.writers.push(writer);
        let Self { last_us, id, max, cost, admitted, .. } = self;
        Record {
            key: key.clone(),
            counter,
            max: *max,
            time_us: *last_us,
            id: id.clone(),
            cost: *cost,
            admitted: *admitted,
        }
    }
}

impl Series {
    pub(super) fn of(counter: Counter, admission: Owed) -> Self {
        Self { counter, admissions: [admission].into(), awaited_until_us: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.admissions.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.admissions.len() >= MAX_RECORDS
    }

    pub(super) fn push(&mut self, admission: Owed) {
        self.admissions.push_back(admission);
    }

    /// Counts an admission with the one before, if it is close enough.
    pub(super) fn merge(&mut self, admission: &Owed) -> bool {
        let step_us = self.counter.rule.window().us() / PARTS;
        let is_close = |last: &&mut Owed| admission.last_us.saturating_sub(last.first_us) < step_us;
        let is_open = |last: &&mut Owed| !last.is_sealed && !admission.is_sealed;
        let last = self.admissions.back_mut().filter(is_open).filter(is_close);
        last.map(|last| last.absorb(admission)).is_some()
    }

    /// All of them, as if none were in flight.
    pub(super) fn into_admissions(self) -> impl Iterator<Item = Owed> {
        self.admissions.into_iter().map(|admission| Owed { writers: Vec::new(), ..admission })
    }

    /// Drops what counts no longer.
    pub(super) fn expire(&mut self, now_us: u64) {
        let counts_us = self.counter.rule.counts_us();
        self.admissions.retain(|admission| admission.last_us + counts_us > now_us);
    }

    /// Makes room for one more, if there is none.
    pub(super) fn make_room(&mut self, new_id: impl Fn() -> u64) {
        if self.is_full() {
            self.coarsen(new_id);
        }
    }

    /// Makes one record of each two that follow each other and are not in flight.
    pub(super) fn coarsen(&mut self, new_id: impl Fn() -> u64) {
        let mut is_single = false;
        for admission in std::mem::take(&mut self.admissions) {
            match self.admissions.back_mut() {
                Some(last) if is_single && last.writers.is_empty() && admission.writers.is_empty() => {
                    last.absorb(&admission);
                    (last.id, last.is_sealed, is_single) = (Id::New(new_id()), false, false);
                }
                _ => {
                    self.admissions.push_back(admission);
                    is_single = true;
                }
            }
        }
    }

    /// Adds to `out` all that still counts and is not in flight by `writer`.
    pub(super) fn lend(&mut self, key: &Arc<[u8]>, writer: Writer, now_us: u64, out: &mut Vec<Record>) {
        self.expire(now_us);
        let unsent = self.admissions.iter_mut().filter(|admission| !admission.writers.contains(&writer));
        out.extend(unsent.map(|admission| admission.lend(key, self.counter, writer)));
    }

    /// Adds to `out`, up to `max` there, what still counts and nobody has in flight or waits for.
    pub(super) fn lend_idle(
        &mut self,
        key: &Arc<[u8]>,
        writer: Writer,
        now_us: u64,
        max: usize,
        out: &mut Vec<Record>,
    ) {
        self.expire(now_us);
        if now_us < self.awaited_until_us {
            return;
        }
        let idle = self.admissions.iter_mut().filter(|admission| admission.writers.is_empty());
        let room = max.saturating_sub(out.len());
        out.extend(idle.take(room).map(|admission| admission.lend(key, self.counter, writer)));
    }

    /// Whether others than `writer` have some in flight.
    pub(super) fn others_have(&self, writer: Writer) -> bool {
        self.admissions.iter().any(|admission| admission.writers.iter().any(|other| *other != writer))
    }

    /// Drops all but what others than `writer` have in flight.
    pub(super) fn keep_others(&mut self, writer: Writer) {
        self.admissions.retain(|admission| admission.writers.iter().any(|other| *other != writer));
    }

    /// Redis has it.
    pub(super) fn remove(&mut self, id: &Id) {
        self.admissions.retain(|admission| admission.id != *id);
    }

    /// `writer` has it in flight no longer.
    pub(super) fn take_back(&mut self, id: &Id, writer: Writer) {
        let admission = self.admissions.iter_mut().find(|admission| admission.id == *id);
        if let Some(admission) = admission {
            admission.writers.retain(|other| *other != writer);
        }
    }
}
