//! Counters, for INFO. Each worker counts for itself, because one counter that threads share costs more than a check.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count. Only the thread that owns the counter may: a load and a store, so that no bus is locked.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// The count so far.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One worker's counters, all since its start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub connections: Counter,
    /// Commands read, Tollgate's own and others.
    pub commands: Counter,
    /// Checks that the store decided.
    pub by_store: Counter,
    /// Checks that the denial cache answered.
    pub by_deny_cache: Counter,
    /// Checks that the fallback answered.
    pub by_fallback: Counter,
    /// Checks that were allowed, whoever decided.
    pub allowed: Counter,
    /// Checks that were denied, whoever decided.
    pub denied: Counter,
    /// Checks that Redis did not answer within the deadline.
    pub timeouts: Counter,
    /// Batches sent to Redis.
    pub batches: Counter,
    /// Records of what the fallback admitted that were written to Redis.
    pub written_back: Counter,
    /// Other commands passed through to Redis.
    pub forwarded: Counter,
}

impl Stats {
    /// The counters by name, in the order that INFO shows them.
    pub fn all(&self) -> [(&'static str, &Counter); 11] {
        [
            ("total_connections", &self.connections),
            ("total_commands", &self.commands),
            ("answers_by_store", &self.by_store),
            ("answers_by_deny_cache", &self.by_deny_cache),
            ("answers_by_fallback", &self.by_fallback),
            ("checks_allowed", &self.allowed),
            ("checks_denied", &self.denied),
            ("store_timeouts", &self.timeouts),
            ("store_batches", &self.batches),
            ("fallback_written_back", &self.written_back),
            ("commands_forwarded", &self.forwarded),
        ]
    }
}
