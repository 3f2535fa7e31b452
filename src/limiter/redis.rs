//! Redis as the place where limits are counted: its nodes, and what stands in front of them all.

use super::breaker::Breaker;
use super::deny_cache::{Denial, DenyCache};
use super::fallback::{self, Fallback};
use super::health::{Health, Subject};
use super::mailbox::{Answer, Refusal};
use super::node::Node;
use crate::config::{Config, FallbackMode};
use crate::dial::Dialer;
use crate::limit::{Ask, Limit, LimitState, Verb, decide};
use crate::stats::{Histogram, Stats};
use crate::store::ledger::Ledger;
use crate::store::redis::{LimitReport, RedisStore};
use crate::store::registry::Registry;
use ahash::RandomState;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// What all workers share.
pub struct Redis {
    /// One today.
    node: Arc<Node>,
    /// Whether it is a cluster.
    pub is_cluster: bool,
    /// The scripts.
    pub store: RedisStore,
    /// Denials that are certain for a while yet.
    pub deny_cache: DenyCache,
    /// Longest time that a check waits for an answer.
    pub timeout_us: u64,
    /// Local buckets for when there is none.
    fallback: Fallback,
    mode: FallbackMode,
    stats: Vec<Arc<Stats>>,
}

impl Redis {
    /// Redis as configured. Asks nothing yet.
    ///
    /// # Errors
    /// Certificates for Redis that cannot be used.
    pub fn new(config: &Config, stats: &[Arc<Stats>]) -> Result<Self, String> {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let store = RedisStore::new(&config.redis.prefix);
        let (mode, timeout_us) = (config.fallback.mode, us(config.redis.timeout));
        let (min_us, max_us) = (us(config.breaker.probe_min), us(config.breaker.probe_max));
        let breaker = Breaker::new(config.breaker.failures, min_us, max_us, RandomState::new().hash_one(0));
        let dialer = Arc::new(Dialer::new(&config.redis)?);
        let subject =
            Subject { dialer: dialer.clone(), prefix: config.redis.prefix.clone(), mode, stats: stats.to_vec() };
        let node = Node::new(
            dialer,
            config.redis.connect_timeout,
            Health::new(breaker, timeout_us, subject),
            Registry::new(config.limits.windows_in_use),
            Ledger::new(config.fallback.max_keys),
        );
        Ok(Self {
            node: Arc::new(node),
            is_cluster: config.redis.is_cluster(),
            store,
            deny_cache: DenyCache::new(config.deny_cache.max_keys, config.deny_cache.max_hold.map_or(0, us)),
            timeout_us,
            fallback: Fallback::new(config.fallback.ratio, config.fallback.max_keys),
            mode,
            stats: stats.to_vec(),
        })
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Arc<Node>] {
        std::slice::from_ref(&self.node)
    }

    /// The node that clients' own connections lead to.
    pub fn upstream(&self) -> &Node {
        &self.node
    }

    /// The fallback's answer to a check, or to a peek, which takes nothing.
    pub(super) fn fall_back(&self, verb: Verb, ask: &Ask<'_>, now_us: u64) -> Answer {
        Answer::Verdict(match (self.mode, verb) {
            (FallbackMode::Error, _) => return Answer::Refused(Refusal::Unavailable),
            (FallbackMode::Open, _) => fallback::open(ask),
            (FallbackMode::Closed, _) => fallback::closed(ask),
            (FallbackMode::Local, Verb::Check) => self.fallback.check(ask, now_us),
            (FallbackMode::Local, Verb::Peek) => self.fallback.peek(ask, now_us),
        })
    }

    /// Keeps of an exact answer of `node` what will save asking or inform the fallback. `states` is how the limits stand
    /// after the item's admissions, `reports` what the script said of them, asked at `sent_us`.
    pub(super) fn learn(
        &self,
        node: &Node,
        ask: &Ask<'_>,
        (states, reports): (&[LimitState], &[LimitReport]),
        sent_us: u64,
        now_us: u64,
    ) {
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
        if denied && node.reset_feed_live() {
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

    /// Forgets what is known here of a key of `node` that was reset.
    pub(super) fn forget(&self, node: &Node, key: &[u8], now_us: u64) {
        self.deny_cache.forget(key, now_us);
        self.fallback.forget(key);
        node.ledger.forget(key);
    }

    /// Passes what INFO says of it to `line`, a name and a value each.
    pub(super) fn describe(&self, line: &mut dyn FnMut(&str, &dyn Display)) {
        let (health, ledger) = (&self.node.health, &self.node.ledger);
        let (known, is_up) = (health.known(), health.is_up());
        let (problem, advice) = known.problem_and_advice();
        line("store", &"redis");
        line("store_up", &u8::from(is_up));
        line("breaker_state", &health.breaker_state());
        line("store_down_seconds", &known.down_since.map_or(0, |since| since.elapsed().as_secs()));
        line("store_last_error", &known.last_error.unwrap_or_default());
        line("store_problem", &problem);
        line("store_advice", &advice);
        line("store_chain", &known.chain.filter(|_| is_up).unwrap_or_default());
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            let times = self.stats.iter().map(|stats| &stats.store_latency);
            line(&format!("store_latency_us_{name}"), &Histogram::quantile(times, share));
        }
        line("denials_cached", &self.deny_cache.entries());
        line("fallback_mode", &self.mode);
        line("fallback_buckets", &self.fallback.buckets());
        line("fallback_evicted", &self.fallback.evicted());
        line("fallback_unwritten", &ledger.len());
        line("fallback_dropped", &ledger.dropped());
    }
}

/// The costliest request that fits once `covered` of the `used` cost has expired.
fn costliest(limit: &Limit, used: u64, covered: u64) -> u32 {
    let capacity = limit.capacity();
    u32::try_from((u64::from(capacity) + covered).saturating_sub(used)).unwrap_or(capacity).min(capacity)
}
