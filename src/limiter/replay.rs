//! What a node has admitted lately, in case it is lost before its replicas know of it: then it is written to the node
//! that takes its place, by the ids that it had, so that what a replica knew after all counts once.
//!
//! Kept are the last admissions before the node last answered, however long ago that was: nothing is added while nobody
//! knows where to ask.

use crate::limit::{Ask, Limit};
use crate::store::batch::Batch;
use crate::store::ledger::Ledger;
use crate::store::redis::{entry_id, share_id};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Admissions are forgotten so many parts of the time at once for which they are kept.
const PARTS: u64 = 8;
/// Memory of all nodes', in bytes: some 200,000 admissions a second of short keys, kept for two seconds.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What one node has admitted lately.
pub struct Replay {
    keep_us: u64,
    max_bytes: usize,
    parts: Mutex<VecDeque<Part>>,
}

/// What was admitted within a part of the time.
#[derive(Default)]
struct Part {
    since_us: u64,
    keys: Vec<u8>,
    limits: Vec<Limit>,
    runs: Vec<(String, u64)>,
    admissions: Vec<Admission>,
}

struct Admission {
    key: Range<u32>,
    limits: Range<u32>,
    /// Of what run, and which item of that.
    run: u32,
    item: u32,
    cost: u32,
    asked: u32,
    admitted: u32,
    /// How far ahead a share is dated: microseconds. Else 0.
    ahead_us: u64,
}

impl Replay {
    /// Keeps admissions for so long, or none if that is zero, of one of so many nodes.
    pub fn new(keep: Duration, nodes: usize) -> Self {
        let keep_us = u64::try_from(keep.as_micros()).unwrap_or(u64::MAX);
        Self { keep_us, max_bytes: MAX_BYTES / nodes.max(1), parts: Mutex::default() }
    }

    /// Keeps nothing.
    pub fn off() -> Self {
        Self::new(Duration::ZERO, 1)
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.keep_us > 0
    }

    /// Of the items of a batch that ran under this id, sent at `sent_us`, so many checks were admitted.
    pub fn admitted(&self, batch: &Batch, id: &str, admitted: &[u32], sent_us: u64) {
        let mut parts = self.lock();
        self.forget_old(&mut parts, sent_us);
        let is_open = |part: &mut Part| sent_us.saturating_sub(part.since_us) < self.keep_us / PARTS;
        if !parts.back_mut().is_some_and(is_open) {
            parts.push_back(Part { since_us: sent_us, ..Part::default() });
        }
        if let Some(part) = parts.back_mut() {
            part.add(batch, id, admitted, sent_us);
        }
    }

    /// Passes all that is kept to the ledger of the node that counts for each key now, and forgets it.
    pub fn hand_over<'a>(&self, ledger_of: impl Fn(&[u8]) -> Option<&'a Ledger>) {
        for part in std::mem::take(&mut *self.lock()) {
            for Admission { key, limits, run, item, cost, asked, admitted, ahead_us } in part.admissions {
                let (Some(key), Some(limits)) = (part.keys.get(range(key)), part.limits.get(range(limits))) else {
                    continue;
                };
                let (Some((id, sent_us)), Some(ledger)) = (part.runs.get(run as usize), ledger_of(key)) else {
                    continue;
                };
                let ask = Ask { key, limits, cost };
                let id = if ahead_us > 0 { share_id(id, item as usize) } else { entry_id(id, item as usize) };
                ledger.admitted_of_asked(&ask, &id, asked, admitted, sent_us + ahead_us);
            }
        }
    }

    /// A key was reset: what was admitted before is not to come back.
    pub fn forget(&self, key: &[u8]) {
        for part in self.lock().iter_mut() {
            let Part { keys, admissions, .. } = part;
            admissions.retain(|admission| keys.get(range(admission.key.clone())) != Some(key));
        }
    }

    fn forget_old(&self, parts: &mut VecDeque<Part>, now_us: u64) {
        let bytes = |parts: &VecDeque<Part>| parts.iter().map(Part::bytes).sum::<usize>();
        let is_old = |part: &Part| now_us.saturating_sub(part.since_us) > self.keep_us + self.keep_us / PARTS;
        while parts.front().is_some_and(is_old) || bytes(parts) > self.max_bytes {
            parts.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn add(&mut self, batch: &Batch, id: &str, admitted: &[u32], sent_us: u64) {
        let Self { keys, limits, runs, admissions, .. } = self;
        let run = runs.len() as u32;
        runs.push((id.to_owned(), sent_us));
        for (index, (item, admitted)) in batch.items().iter().zip(admitted).enumerate() {
            if *admitted == 0 {
                continue;
            }
            let ask = batch.ask_of(item);
            let (first_byte, first_limit) = (keys.len() as u32, limits.len() as u32);
            keys.extend_from_slice(ask.key);
            limits.extend_from_slice(ask.limits);
            admissions.push(Admission {
                key: first_byte..keys.len() as u32,
                limits: first_limit..limits.len() as u32,
                run,
                item: index as u32,
                cost: ask.cost,
                asked: item.count,
                admitted: *admitted,
                ahead_us: item.share_us,
            });
        }
    }

    fn bytes(&self) -> usize {
        let runs = self.runs.len() * (size_of::<(String, u64)>() + 16);
        let admissions = self.admissions.len() * size_of::<Admission>();
        self.keys.len() + self.limits.len() * size_of::<Limit>() + runs + admissions
    }
}

/// A place in a part, whose memory is far below 4 GiB.
fn range(range: Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}
