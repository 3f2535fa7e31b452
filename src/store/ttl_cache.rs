//! Which logs in Redis are known to live long enough, so that the script need not ask for each entry that it makes.
//!
//! A run that makes an entry sees to it that the log lives longer than the entry counts, by how much its counter says
//! ([`Rule::spare_us`](crate::limit::Rule::spare_us)). For that long, by Redis's own clock, further entries need
//! not look. A log that is deleted meanwhile and begun again is new to the script, which then looks all the same.
//!
//! Each worker keeps what it has learnt in a table of fixed size, where a log takes the place of another whose hash falls
//! there: forgetting costs a look, and no more.

use super::batch::Batch;
use crate::limit::Ask;
use ahash::RandomState;

/// Checks that a worker remembers at most of all nodes, and of each of many at least; 16 bytes each.
const SLOTS: usize = 1 << 16;
const MIN_SLOTS: usize = 1 << 12;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Of the key and windows of a check. Keyed at random, so that no two meet but by a chance of 1 in 2^64.
    hash: u64,
    /// Until when entries may be made, by Redis's clock.
    until_us: i64,
}

/// What one worker knows of the logs' lives.
#[derive(Debug)]
pub struct TtlCache {
    hasher: RandomState,
    slots: Vec<Slot>,
}

impl TtlCache {
    /// Of one of so many nodes.
    pub fn of_one_of(nodes: usize) -> Self {
        let slots = (SLOTS / nodes.max(1)).max(MIN_SLOTS);
        Self { hasher: RandomState::new(), slots: vec![Slot::default(); slots] }
    }

    /// Marks the items of a batch whose logs live long enough for an entry made by `by_us`, Redis's clock.
    pub fn mark(&self, batch: &mut Batch, by_us: i64) {
        batch.mark_fresh_ttls(|ask| self.until_us(ask).filter(|until_us| *until_us >= by_us));
    }

    /// The logs of a check were looked at when an entry was made in each at `now_us`, Redis's clock.
    pub fn seen(&mut self, ask: &Ask<'_>, now_us: i64) {
        let spare_us = ask.limits.iter().filter_map(|limit| limit.counter().rule.spare_us()).min();
        let Some(spare_us) = spare_us else { return };
        let hash = self.hash(ask);
        let until_us = now_us.saturating_add_unsigned(spare_us);
        let place = self.place_of(hash);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Slot { hash, until_us };
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.fill(Slot::default());
    }

    fn until_us(&self, ask: &Ask<'_>) -> Option<i64> {
        let hash = self.hash(ask);
        self.slots.get(self.place_of(hash)).filter(|slot| slot.hash == hash).map(|slot| slot.until_us)
    }

    fn hash(&self, ask: &Ask<'_>) -> u64 {
        self.hasher.hash_one((ask.key, ask.limits))
    }

    fn place_of(&self, hash: u64) -> usize {
        // A remainder of 2^16 at most fits.
        (hash % self.slots.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Limit, Window};

    const NOW_US: i64 = 1_700_000_000_000_000;

    fn limits(windows_ms: &[u64]) -> Vec<Limit> {
        windows_ms.iter().map(|ms| Limit::log(5, Window::from_ms(*ms).unwrap())).collect()
    }

    /// Until when a batch of these checks is marked, and which of them.
    fn mark(cache: &TtlCache, checks: &[Ask<'_>], by_us: i64) -> (i64, Vec<bool>) {
        let mut batch = Batch::default();
        checks.iter().for_each(|ask| {
            batch.add(ask);
        });
        cache.mark(&mut batch, by_us);
        (batch.ttls_fresh_until_us(), batch.items().iter().map(|item| item.has_fresh_ttl).collect())
    }

    #[test]
    fn a_log_that_was_looked_at_lasts_for_an_eighth_of_its_shortest_window() {
        let (both, second) = (limits(&[8_000, 1_000]), limits(&[1_000]));
        let checks = [&both, &second].map(|limits| Ask { key: b"a", limits, cost: 1 });
        let mut cache = TtlCache::of_one_of(1);
        assert_eq!(mark(&cache, &checks, NOW_US), (i64::MAX, vec![false, false]));
        cache.seen(&checks[0], NOW_US);
        let until_us = NOW_US + 125_000;
        assert_eq!(mark(&cache, &checks, until_us), (until_us, vec![true, false]));
        assert_eq!(mark(&cache, &checks, until_us + 1), (i64::MAX, vec![false, false]));
        cache.seen(&checks[1], NOW_US - 1_000);
        assert_eq!(mark(&cache, &checks, NOW_US), (until_us - 1_000, vec![true, true]), "the least counts");
        cache.clear();
        assert_eq!(mark(&cache, &checks, NOW_US), (i64::MAX, vec![false, false]));
    }

    #[test]
    fn the_table_does_not_grow() {
        let limits = limits(&[60_000]);
        let mut cache = TtlCache::of_one_of(1);
        for number in 0..2 * SLOTS {
            cache.seen(&Ask { key: &number.to_le_bytes(), limits: &limits, cost: 1 }, NOW_US);
        }
        assert_eq!(cache.slots.capacity(), SLOTS);
    }
}
