//! The states of throttles in this process: what lua/throttle.lua keeps in Redis, to the same nanosecond, and for as long.
//!
//! Reads no clock; `now_us` is any clock of microseconds that all callers share.

use super::embedded::Full;
use crate::shards::Shards;
use crate::throttle::{Decision, Life, Question};
use ahash::RandomState;
use hashbrown::HashTable;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The store. All methods may be called from any thread.
pub struct Throttles {
    shards: Shards<HashTable<State>>,
    /// Keyed at random: clients choose the names.
    hasher: RandomState,
    max_keys: usize,
    keys: AtomicUsize,
    /// The shard that is swept next, modulo their number.
    sweep_next: AtomicUsize,
}

struct State {
    name: Box<[u8]>,
    /// As redis-cell writes it: what is no u64 comes up at the other end.
    tat_ns: u64,
    /// The last millisecond in which it is there; `None` if it does not end.
    last_ms: Option<u64>,
}

impl State {
    fn is_live(&self, now_us: u64) -> bool {
        self.last_ms.is_none_or(|last_ms| now_us / 1000 <= last_ms)
    }

    fn ahead_ns(&self, now_us: u64) -> i128 {
        i128::from(self.tat_ns) - i128::from(now_us) * 1000
    }
}

impl Throttles {
    /// A store of at most `max_keys` states.
    pub fn new(max_keys: usize) -> Self {
        Self {
            shards: Shards::new((max_keys / 1024).min(1024)),
            hasher: RandomState::new(),
            max_keys,
            keys: AtomicUsize::new(0),
            sweep_next: AtomicUsize::new(0),
        }
    }

    /// Decides a request and counts it if it is allowed. Also says how long the state lives that it leaves.
    ///
    /// # Errors
    /// [`Full`] when it would be allowed but there is no room to count it.
    pub fn decide(&self, name: &[u8], question: &Question, now_us: u64) -> Result<(Decision, Life), Full> {
        let hash = self.hasher.hash_one(name);
        let mut shard = self.shards.of(hash);
        let state = shard.find_mut(hash, |state| *state.name == *name);
        let ahead_ns = state.as_ref().filter(|state| state.is_live(now_us)).map_or(0, |state| state.ahead_ns(now_us));
        let (decision, after_ns) = question.decide(ahead_ns);
        let life = Life::of(after_ns);
        if decision.is_limited {
            return Ok((decision, life));
        }
        let last_ms = match life {
            Life::Ms(ms) => Some((now_us / 1000).saturating_add(ms)),
            Life::Endless | Life::Refused => None,
        };
        // Truncated, as redis-cell does it.
        let tat_ns = (i128::from(now_us) * 1000 + after_ns) as u64;
        if let Some(state) = state {
            (state.tat_ns, state.last_ms) = (tat_ns, last_ms);
            return Ok((decision, life));
        }
        if self.keys.fetch_add(1, Relaxed) >= self.max_keys {
            self.keys.fetch_sub(1, Relaxed);
            return Err(Full::Keys);
        }
        let state = State { name: name.into(), tat_ns, last_ms };
        shard.insert_unique(hash, state, |state| self.hasher.hash_one(&*state.name));
        Ok((decision, life))
    }

    /// Drops what has ended, or says nothing more, in so many shards. Locks one at a time, for tens of microseconds.
    pub fn sweep(&self, now_us: u64, shards: usize) {
        for _ in 0..shards.min(self.shards.count()) {
            let mut shard = self.shards.at(self.sweep_next.fetch_add(1, Relaxed));
            let before = shard.len();
            shard.retain(|state| state.is_live(now_us) && state.ahead_ns(now_us) > 0);
            self.keys.fetch_sub(before - shard.len(), Relaxed);
            if shard.len() < shard.capacity() / 8 {
                let kept = shard.len() * 2;
                shard.shrink_to(kept, |state| self.hasher.hash_one(&*state.name));
            }
        }
    }

    /// How many states are kept, those included that have ended and are not yet swept.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }
}
