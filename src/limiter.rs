//! Who answers a check: the cost itself, the denial cache, the store, or the fallback, asked in this order.
//!
//! The [`Limiter`] is what all workers share; each has a [`Batcher`](batcher::Batcher) of its own, through which it
//! asks. Knows decisions but no protocol.

pub mod batcher;
pub mod breaker;
mod connect;
pub mod deny_cache;
pub mod diagnosis;
mod facts;
pub mod fallback;
pub mod health;
mod in_flight;
mod job;
pub mod mailbox;
mod needs;
mod pipeline;
pub mod preflight;
mod probe;
pub mod resets;
mod settle;
mod write_back;

use crate::config::{Config, FallbackMode};
use crate::dial::Dialer;
use crate::limit::{Ask, Limit, LimitState, decide};
use crate::log_limit::LogLimit;
use crate::stats::Stats;
use crate::store::embedded::Embedded;
use crate::store::ledger::Ledger;
use crate::store::redis::{LimitReport, RedisStore};
use crate::store::registry::Registry;
use ahash::RandomState;
use breaker::Breaker;
use deny_cache::{Denial, DenyCache};
use fallback::Fallback;
use health::Known;

use mailbox::{Answer, Refusal};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The limiter's state that workers share.
pub enum Limiter {
    /// All is counted in this process.
    Embedded(Embedded),
    /// All is counted in Redis, as long as it answers.
    Redis(Box<Remote>),
}

/// Redis as the store, and what stands in for it.
pub struct Remote {
    /// The way to Redis.
    pub dialer: Arc<Dialer>,
    /// Longest time that connecting to it may take, until it has answered.
    pub connect_timeout: Duration,
    /// The scripts.
    pub store: RedisStore,
    /// Which counters are in use.
    pub registry: Registry,
    /// Denials that are certain for a while yet.
    pub deny_cache: DenyCache,
    /// Whether Redis is asked at all.
    pub breaker: Breaker,
    /// Local buckets for when it is not.
    pub fallback: Fallback,
    /// What the fallback admitted and Redis does not know of yet.
    pub ledger: Ledger,
    /// What the fallback does.
    pub mode: FallbackMode,
    /// Longest time that a check waits for Redis.
    pub timeout_us: u64,
    /// Whether resets on other proxies are heard of. Only then are denials kept.
    pub hears_resets: AtomicBool,
    /// Each worker's counters.
    stats: Vec<Arc<Stats>>,
    /// When a deadline last passed that counted as a failure.
    last_timeout_us: AtomicU64,
    known: Mutex<Known>,
    /// Whether a look at Redis has shown that it can be used, and it was not lost since.
    is_up: watch::Sender<bool>,
    /// Connections that were not made for a lack of Tollgate's own.
    own_failures: LogLimit,
    /// Redis was reached when it last failed, and answered with an error.
    refuses: AtomicBool,
    /// Redis's clock less this process's, as last seen.
    clock_offset_us: AtomicI64,
}

impl Limiter {
    /// A limiter as configured, which counts in `stats`, one for each worker. Asks nothing yet.
    ///
    /// # Errors
    /// Certificates for Redis that cannot be used.
    pub fn new(config: &Config, stats: &[Arc<Stats>]) -> Result<Self, String> {
        if config.embedded.enabled {
            return Ok(Self::Embedded(Embedded::new(config.embedded.max_keys, config.embedded.max_entries)));
        }
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let seed = RandomState::new().hash_one(0);
        Ok(Self::Redis(Box::new(Remote {
            dialer: Arc::new(Dialer::new(&config.redis)?),
            connect_timeout: config.redis.connect_timeout,
            store: RedisStore::new(&config.redis.prefix),
            registry: Registry::new(config.limits.windows_in_use),
            deny_cache: DenyCache::new(config.deny_cache.max_keys, config.deny_cache.max_hold.map_or(0, us)),
            breaker: Breaker::new(
                config.breaker.failures,
                us(config.breaker.probe_min),
                us(config.breaker.probe_max),
                seed,
            ),
            fallback: Fallback::new(config.fallback.ratio, config.fallback.max_keys),
            ledger: Ledger::new(config.fallback.max_keys),
            mode: config.fallback.mode,
            timeout_us: us(config.redis.timeout),
            hears_resets: AtomicBool::new(false),
            stats: stats.to_vec(),
            last_timeout_us: AtomicU64::new(0),
            known: Mutex::default(),
            is_up: watch::Sender::new(false),
            own_failures: LogLimit::default(),
            refuses: AtomicBool::new(false),
            clock_offset_us: AtomicI64::new(0),
        })))
    }
}

impl Remote {
    /// The fallback's answer to a check, or to a peek, which takes nothing.
    pub fn fall_back(&self, verb: Verb, ask: &Ask<'_>, now_us: u64) -> Answer {
        Answer::Verdict(match (self.mode, verb) {
            (FallbackMode::Error, _) => return Answer::Refused(Refusal::Unavailable),
            (FallbackMode::Open, _) => fallback::open(ask),
            (FallbackMode::Closed, _) => fallback::closed(ask),
            (FallbackMode::Local, Verb::Check) => self.fallback.check(ask, now_us),
            (FallbackMode::Local, Verb::Peek) => self.fallback.peek(ask, now_us),
        })
    }

    /// Keeps of an exact answer what will save asking or inform the fallback. `states` is how the limits stand after
    /// the item's admissions, `reports` what the script said of them, asked at `sent_us`.
    pub fn learn(&self, ask: &Ask<'_>, states: &[LimitState], reports: &[LimitReport], sent_us: u64, now_us: u64) {
        if self.mode == FallbackMode::Local {
            for (limit, state) in ask.limits.iter().zip(states) {
                self.fallback.learn(ask.key, *limit, limit.remaining(state), now_us);
            }
        }
        let verdict = decide(ask.limits, states, ask.cost);
        let place = usize::from(verdict.binding);
        let binding = states.get(place).zip(reports.get(place)).zip(ask.limits.get(place));
        let Some(((state, LimitReport::State { state: before, covered }), limit)) = binding else { return };
        if state.used > before.used {
            self.deny_cache.admitted(ask.key);
        }
        // Times count from when Redis read its clock, which was not before the batch was sent.
        let denied = !verdict.allowed && state.fits_in_us > 0;
        if denied && self.hears_resets.load(Relaxed) {
            let max_cost = match ask.limits {
                [_] => costliest(limit, state.used, *covered).max(ask.cost),
                // A costlier request may be denied for longer by another of the limits.
                _ => ask.cost,
            };
            let denial = Denial {
                limit: verdict.limit,
                binding: verdict.binding,
                remaining: verdict.remaining,
                until_us: sent_us + state.fits_in_us,
                empty_at_us: sent_us + state.empty_in_us,
                max_cost,
            };
            self.deny_cache.insert(ask, denial, sent_us, now_us);
        }
    }

    /// What is added to a time of this process's clock to have it by Redis's.
    pub fn clock_offset_us(&self) -> i64 {
        self.clock_offset_us.load(Relaxed)
    }

    /// A time of this process's clock, in microseconds, by Redis's.
    pub fn redis_time(&self, time_us: u64) -> i64 {
        self.clock_offset_us().saturating_add_unsigned(time_us)
    }

    /// Redis read its clock after `sent_us`. The time between is taken as none, so that what is written by this
    /// offset is never too old.
    fn note_clock(&self, redis_now_us: i64, sent_us: u64) {
        self.clock_offset_us.store(redis_now_us.saturating_sub_unsigned(sent_us), Relaxed);
    }

    /// When a connection is given up that has not answered what nobody waits for.
    fn connect_due_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(u64::try_from(self.connect_timeout.as_micros()).unwrap_or(u64::MAX))
    }

    /// Forgets what is known here of a key that was reset.
    pub fn forget(&self, key: &[u8], now_us: u64) {
        self.deny_cache.forget(key, now_us);
        self.fallback.forget(key);
        self.ledger.forget(key);
    }
}

/// The costliest request that fits once `covered` of the `used` cost has expired.
fn costliest(limit: &Limit, used: u64, covered: u64) -> u32 {
    u32::try_from((u64::from(limit.capacity()) + covered).saturating_sub(used))
        .unwrap_or(limit.capacity())
        .min(limit.capacity())
}

/// Whether a question counts what it asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It does.
    Check,
    /// It does not.
    Peek,
}
