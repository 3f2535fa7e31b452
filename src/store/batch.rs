//! Checks that go to Redis together, in the order they came.
//!
//! A run of identical checks of one key is joined into one item, which the script decides in one step. Only a run:
//! were a later check joined past a different one of the same key, they would be decided out of order.

use crate::limit::{Ask, Form, Limit};
use ahash::RandomState;
use hashbrown::HashTable;
use std::ops::Range;

/// Identical checks of one key that came one after another.
#[derive(Debug)]
pub struct Item {
    key: Range<usize>,
    limits: Range<usize>,
    hash: u64,
    cost: u32,
    /// How many checks are joined; at least 1.
    pub count: u32,
    /// Its logs are known to live long enough.
    pub has_fresh_ttl: bool,
    /// How much is to be said of it: in full if that is asked of one of its checks.
    pub form: Form,
    /// If it asks for a share, how long that lives: microseconds. Else 0.
    pub share_us: u64,
}

impl Item {
    /// The places of its limits among those of the batch.
    pub fn places(&self) -> Range<usize> {
        self.limits.clone()
    }
}

/// A batch under construction or in flight. Keys and limits stand in two buffers, so that a check costs no
/// allocation of its own.
#[derive(Debug, Default)]
pub struct Batch {
    keys: Vec<u8>,
    limits: Vec<Limit>,
    items: Vec<Item>,
    load: usize,
    ttls_fresh_until_us: i64,
    /// The last item of each key, by the key's hash.
    last_of_key: HashTable<usize>,
    hasher: RandomState,
}

impl Batch {
    /// Empties it, keeping its memory and hash key for the next use.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.limits.clear();
        self.items.clear();
        self.load = 0;
        self.ttls_fresh_until_us = 0;
        self.last_of_key.clear();
    }

    /// Adds a check and says to which item.
    pub fn add(&mut self, ask: &Ask) -> usize {
        let hash = self.hasher.hash_one(ask.key);
        let Self { keys, limits, items, last_of_key, .. } = self;
        let same_key = |item: &Item| item.hash == hash && keys.get(item.key.clone()) == Some(ask.key);
        let last = last_of_key.find_mut(hash, |index| items.get(*index).is_some_and(same_key));
        let new_index = items.len();
        match last {
            Some(index) => {
                if let Some(item) = items.get_mut(*index)
                    && item.share_us == 0
                    && item.cost == ask.cost
                    && limits.get(item.limits.clone()) == Some(ask.limits)
                {
                    item.count += 1;
                    return *index;
                }
                *index = new_index;
            }
            None => {
                let hash_of = |index: &usize| items.get(*index).map_or(0, |item| item.hash);
                last_of_key.insert_unique(hash, new_index, hash_of);
            }
        }
        self.push(ask, hash, 0);
        new_index
    }

    /// Adds what asks for a share that lives so long, in microseconds, and says to which item. It is joined with nothing.
    pub fn add_share(&mut self, ask: &Ask, share_us: u64) -> usize {
        let hash = self.hasher.hash_one(ask.key);
        let Self { keys, items, last_of_key, .. } = self;
        let new_index = items.len();
        let same_key = |item: &Item| item.hash == hash && keys.get(item.key.clone()) == Some(ask.key);
        if let Some(last) = last_of_key.find_mut(hash, |index| items.get(*index).is_some_and(same_key)) {
            *last = new_index;
        }
        self.push(ask, hash, share_us);
        new_index
    }

    fn push(&mut self, ask: &Ask, hash: u64, share_us: u64) {
        let Self { keys, limits, items, .. } = self;
        let (key_start, limits_start) = (keys.len(), limits.len());
        keys.extend_from_slice(ask.key);
        limits.extend_from_slice(ask.limits);
        items.push(Item {
            key: key_start..keys.len(),
            limits: limits_start..limits.len(),
            hash,
            cost: ask.cost,
            count: 1,
            has_fresh_ttl: false,
            form: Form::Short,
            share_us,
        });
        self.load += load_of(ask);
    }

    /// Has an item be answered in full, which takes the script a call more for each log.
    pub fn ask_in_full(&mut self, item: usize) {
        if let Some(item) = self.items.get_mut(item).filter(|item| item.form == Form::Short) {
            item.form = Form::Full;
            let limits = self.limits.get(item.limits.clone()).unwrap_or_default();
            let more =
                limits.iter().map(|limit| limit.load(item.cost, Form::Full) - limit.load(item.cost, Form::Short));
            self.load += more.sum::<usize>();
        }
    }

    /// A batch of this item alone.
    pub fn of_one(&self, item: &Item) -> Self {
        let mut batch = Self::default();
        batch.add(&self.ask_of(item));
        let (count, form, share_us) = (item.count, item.form, item.share_us);
        batch.items.iter_mut().for_each(|one| (one.count, one.form, one.share_us) = (count, form, share_us));
        batch
    }

    /// The items in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What an item asks.
    pub fn ask_of<'a>(&'a self, item: &Item) -> Ask<'a> {
        ask_of(&self.keys, &self.limits, item)
    }

    /// Marks the items whose logs are known to live long enough for entries that are made until a time. A share's is made
    /// for later, and looks.
    pub fn mark_fresh_ttls(&mut self, until_us: impl Fn(&Ask<'_>) -> Option<i64>) {
        self.ttls_fresh_until_us = i64::MAX;
        for item in &mut self.items {
            let until_us = until_us(&ask_of(&self.keys, &self.limits, item)).filter(|_| item.share_us == 0);
            item.has_fresh_ttl = until_us.is_some();
            self.ttls_fresh_until_us = self.ttls_fresh_until_us.min(until_us.unwrap_or(i64::MAX));
        }
    }

    /// Until when all the marks hold, by Redis's clock: microseconds.
    pub fn ttls_fresh_until_us(&self) -> i64 {
        self.ttls_fresh_until_us
    }

    /// All items' limits, in order.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// How many limits all items ask about: the script touches so many states.
    pub fn states(&self) -> usize {
        self.limits.len()
    }

    /// What the script has to do for all items: the sum of their [`load_of`].
    pub fn load(&self) -> usize {
        self.load
    }
}

/// What the script has to do for a check.
pub fn load_of(ask: &Ask) -> usize {
    ask.limits.iter().map(|limit| limit.load(ask.cost, Form::Short)).sum()
}

fn ask_of<'a>(keys: &'a [u8], limits: &'a [Limit], item: &Item) -> Ask<'a> {
    Ask {
        key: keys.get(item.key.clone()).unwrap_or_default(),
        limits: limits.get(item.limits.clone()).unwrap_or_default(),
        cost: item.cost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Algorithm, Window};

    /// A request that weighs more is no more work for a state of one number, nor is one that is told in full.
    #[test]
    fn weight_and_figures_are_work_for_logs_alone() {
        let log = Limit::log(5, Window::from_ms(1000).unwrap());
        let gcra = Limit { algorithm: Algorithm::Gcra { burst: 5 }, ..log };
        for (limits, cost, short, full) in
            [(vec![log], 1, 1, 2), (vec![log], 2, 3, 4), (vec![gcra], 2, 1, 1), (vec![gcra, log], 2, 4, 5)]
        {
            let (mut batch, ask) = (Batch::default(), Ask { key: b"k", limits: &limits, cost });
            let item = batch.add(&ask);
            assert_eq!((load_of(&ask), batch.load()), (short, short), "{limits:?}");
            (0..2).for_each(|_| batch.ask_in_full(item));
            assert_eq!(batch.load(), full, "{limits:?}");
        }
    }

    #[test]
    fn only_runs_of_identical_checks_are_joined() {
        let second = [Limit::log(5, Window::from_ms(1000).unwrap())];
        let minute = [Limit::log(5, Window::from_ms(60_000).unwrap())];
        let mut batch = Batch::default();
        let mut add = |key: &str, limits: &[Limit], cost| batch.add(&Ask { key: key.as_bytes(), limits, cost });
        assert_eq!(add("a", &second, 1), 0);
        assert_eq!(add("b", &second, 1), 1);
        assert_eq!(add("a", &second, 1), 0);
        assert_eq!(add("a", &second, 2), 2, "another cost is another item");
        assert_eq!(add("a", &second, 1), 3, "the first run has ended");
        assert_eq!(add("a", &minute, 1), 4, "other windows are another item");
        assert_eq!(add("b", &second, 1), 1);
        assert_eq!(batch.items().iter().map(|item| item.count).collect::<Vec<_>>(), [2, 2, 1, 1, 1]);
        assert_eq!(batch.ask_of(&batch.items()[4]), Ask { key: b"a", limits: &minute, cost: 1 });
        let share = batch.add_share(&Ask { key: b"b", limits: &second, cost: 1 }, 2000);
        let behind = batch.add(&Ask { key: b"b", limits: &second, cost: 1 });
        assert_eq!((share, behind), (5, 6), "a share is joined with nothing");
        assert_eq!(batch.of_one(&batch.items()[5]).items()[0].share_us, 2000);
    }
}
