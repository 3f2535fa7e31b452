//! One node of Redis, as all workers see it: the way to it, how it does, and what is known of what it holds. Nothing here
//! knows of others.

use super::breaker::Breaker;
use super::health::{Health, Subject};
use super::replay::Replay;
use crate::config::Config;
use crate::dial::Dialer;
use crate::limit::FallbackMode;
use crate::stats::Stats;
use crate::store::ledger::Ledger;
use ahash::RandomState;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Fewest unwritten records that a node of many may have.
const MIN_RECORDS: usize = 1_000;

/// What is the same for all nodes.
#[derive(Clone)]
pub struct Settings {
    /// Longest time that connecting to one may take, until it has answered.
    pub connect_timeout: Duration,
    /// Longest time that a check waits for an answer.
    pub timeout_us: u64,
    /// What is answered in a node's place.
    pub mode: FallbackMode,
    max_failures: u32,
    min_probe_us: u64,
    max_probe_us: u64,
    prefix: String,
    max_records: usize,
    replay: Duration,
    stats: Vec<Arc<Stats>>,
}

impl Settings {
    /// As configured. Nodes count what they do in `stats`, one for each worker.
    pub fn new(config: &Config, stats: &[Arc<Stats>]) -> Self {
        Self {
            connect_timeout: config.redis.connect_timeout,
            timeout_us: micros(config.redis.timeout),
            mode: config.fallback.mode,
            max_failures: config.breaker.failures,
            min_probe_us: micros(config.breaker.probe_min),
            max_probe_us: micros(config.breaker.probe_max),
            prefix: config.redis.prefix.clone(),
            max_records: config.fallback.max_keys,
            replay: config.redis.replay,
            stats: stats.to_vec(),
        }
    }
}

/// A node.
pub struct Node {
    /// The way to it.
    pub dialer: Arc<Dialer>,
    /// What it is called within its cluster; empty where that is not known.
    pub id: String,
    /// Longest time that connecting to it may take, until it has answered.
    pub connect_timeout: Duration,
    /// How it does.
    pub health: Health,
    /// What the fallback admitted and the node does not know of yet.
    pub ledger: Ledger,
    /// What it has admitted lately, should it be lost before its replicas know.
    pub replay: Replay,
    /// Stands for the nodes that are yet to be found, and is not dialled.
    pub is_placeholder: bool,
    /// It says ASK only if all of a question's keys are to be asked for elsewhere.
    asks_for_all: AtomicBool,
    /// Which run of the server was seen last.
    run_id: Mutex<String>,
    /// It runs no script that does not declare its keys.
    declares_keys: AtomicBool,
    /// Whether resets on other proxies are heard of. Only then are denials kept.
    reset_feed_live: AtomicBool,
    /// Its clock less this process's, as last seen.
    clock_offset_us: AtomicI64,
    /// How long it last took to answer what nothing was in front of; 0 until it has.
    round_trip_us: AtomicU64,
}

impl Node {
    /// What is configured: a node, or, as a placeholder, where the nodes are to be asked for. It is not replaced by another
    /// as long as nobody says that there is another.
    pub fn configured(dialer: Arc<Dialer>, is_placeholder: bool, settings: &Settings) -> Self {
        Self { is_placeholder, replay: Replay::off(), ..Self::new(dialer, String::new(), 1, settings) }
    }

    /// A node that was not asked yet, one of `of`.
    pub fn new(dialer: Arc<Dialer>, id: String, of: usize, settings: &Settings) -> Self {
        let Settings { max_failures, min_probe_us, max_probe_us, timeout_us, .. } = *settings;
        let seed = RandomState::new().hash_one(0);
        let subject = Subject {
            dialer: dialer.clone(),
            prefix: settings.prefix.clone(),
            mode: settings.mode,
            stats: settings.stats.clone(),
        };
        let max_records = (settings.max_records / of.max(1)).max(MIN_RECORDS.min(settings.max_records));
        Self {
            dialer,
            id,
            connect_timeout: settings.connect_timeout,
            health: Health::new(Breaker::new(max_failures, min_probe_us, max_probe_us, seed), timeout_us, subject),
            ledger: Ledger::new(max_records),
            replay: Replay::new(settings.replay, of),
            is_placeholder: false,
            asks_for_all: AtomicBool::new(false),
            run_id: Mutex::default(),
            declares_keys: AtomicBool::new(false),
            reset_feed_live: AtomicBool::new(false),
            clock_offset_us: AtomicI64::new(0),
            round_trip_us: AtomicU64::new(0),
        }
    }

    /// The server says which run of it this is. One that was started anew may have lost what it had admitted last.
    pub(super) fn is_run(&self, run_id: &str) {
        let before =
            std::mem::replace(&mut *self.run_id.lock().unwrap_or_else(PoisonError::into_inner), run_id.to_owned());
        if !before.is_empty() && before != run_id {
            self.replay.hand_over(|_| Some(&self.ledger));
        }
    }

    /// Whether ASK means that it has none of a question's keys. Before Redis 7.0 it may have some.
    pub(super) fn asks_for_all(&self) -> bool {
        self.asks_for_all.load(Relaxed)
    }

    /// It says that it has this version.
    pub(super) fn has_version(&self, version: Option<&str>) {
        let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        self.asks_for_all.store(major.is_some_and(|major| major >= 7), Relaxed);
        self.health.has_version(version.map(str::to_owned));
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

    /// How long it last took to answer what nothing was in front of, in microseconds, if that is known.
    pub fn round_trip_us(&self) -> Option<u64> {
        Some(self.round_trip_us.load(Relaxed)).filter(|us| *us > 0)
    }

    pub(super) fn note_round_trip(&self, us: u64) {
        self.round_trip_us.store(us, Relaxed);
    }

    /// When a connection is given up that has not answered what nobody waits for.
    pub(super) fn patience_ends_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(micros(self.connect_timeout))
    }

    /// Whether resets on other proxies are heard of.
    pub(super) fn reset_feed_live(&self) -> bool {
        self.reset_feed_live.load(Relaxed)
    }

    pub(super) fn set_reset_feed_live(&self, reset_feed_live: bool) {
        self.reset_feed_live.store(reset_feed_live, Relaxed);
    }

    /// Whether each script that it runs has to declare its keys, which are of one slot then.
    pub(super) fn declares_keys(&self) -> bool {
        self.declares_keys.load(Relaxed)
    }

    pub(super) fn set_declares_keys(&self, declares_keys: bool) {
        self.declares_keys.store(declares_keys, Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
