//! One node of Redis, as all workers see it: the way to it, how it does, and what is known of what it holds.
//!
//! There is one node today. Nothing here knows of others.

use super::health::Health;
use crate::dial::Dialer;
use crate::limit::Counter;
use crate::store::connection::Error;
use crate::store::ledger::Ledger;
use crate::store::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

/// A node.
pub struct Node {
    /// The way to it.
    pub dialer: Arc<Dialer>,
    /// Longest time that connecting to it may take, until it has answered.
    pub connect_timeout: Duration,
    /// How it does.
    pub health: Health,
    /// Which counters are in use there.
    pub registry: Registry,
    /// What the fallback admitted and the node does not know of yet.
    pub ledger: Ledger,
    /// Whether resets on other proxies are heard of. Only then are denials kept.
    reset_feed_live: AtomicBool,
    /// Its clock less this process's, as last seen.
    clock_offset_us: AtomicI64,
}

impl Node {
    /// A node that was not asked yet.
    pub fn new(
        dialer: Arc<Dialer>,
        connect_timeout: Duration,
        health: Health,
        registry: Registry,
        ledger: Ledger,
    ) -> Self {
        let (reset_feed_live, clock_offset_us) = (AtomicBool::new(false), AtomicI64::new(0));
        Self { dialer, connect_timeout, health, registry, ledger, reset_feed_live, clock_offset_us }
    }

    /// What is added to a time of this process's clock to have it by the node's.
    pub(super) fn clock_offset_us(&self) -> i64 {
        self.clock_offset_us.load(Relaxed)
    }

    /// A time of this process's clock, in microseconds, by the node's.
    pub(super) fn time_of(&self, time_us: u64) -> i64 {
        self.clock_offset_us().saturating_add_unsigned(time_us)
    }

    /// The node read its clock after `sent_us`. The time between is taken as none, so that what is written by this
    /// offset is never too old.
    pub(super) fn note_clock(&self, node_now_us: i64, sent_us: u64) {
        self.clock_offset_us.store(node_now_us.saturating_sub_unsigned(sent_us), Relaxed);
    }

    /// When a connection is given up that has not answered what nobody waits for.
    pub(super) fn patience_ends_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(u64::try_from(self.connect_timeout.as_micros()).unwrap_or(u64::MAX))
    }

    /// Whether resets on other proxies are heard of.
    pub(super) fn reset_feed_live(&self) -> bool {
        self.reset_feed_live.load(Relaxed)
    }

    pub(super) fn set_reset_feed_live(&self, reset_feed_live: bool) {
        self.reset_feed_live.store(reset_feed_live, Relaxed);
    }

    /// The node was asked at `sent_us` to register counters, or which are registered, and answered.
    ///
    /// # Errors
    /// It is the answer to something else.
    pub(super) fn registered(&self, counters: &[Counter], numbers: &[i64], sent_us: u64) -> Result<(), Error> {
        match counters {
            [] => self.registry.listed(numbers, sent_us).map(|_| ()),
            _ => self.registry.registered(counters, numbers, sent_us),
        }
    }
}
