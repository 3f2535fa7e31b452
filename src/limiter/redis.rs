//! Redis as the place where limits are counted: its nodes, and what stands in front of them all.

use super::decided::Decided;
use super::deny_cache::{Denial, DenyCache};
use super::fallback::{self, Fallback};
use super::mailbox::{Answer, Refusal};
use super::node::{Node, Settings};
use super::nodes::Directory;
use super::reset_marks::ResetMarks;
use crate::config::{self, Config, RedisMode, Transport};
use crate::dial::Dialer;
use crate::limit::{Ask, FallbackMode, Form, LimitState, Verb, decide};
use crate::stats::{Stats, Times};
use crate::store::batch::Item;
use crate::store::ledger::Ledger;
use crate::store::redis::{LimitReport, RedisStore};
use crate::store::registry::Registry;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// What all workers share.
pub struct Redis {
    /// Where its nodes are.
    pub directory: Directory,
    /// What it is taken for, and where it is, as configured.
    pub configured: config::Redis,
    /// The scripts.
    pub store: RedisStore,
    /// Which counters are in use.
    pub registry: Registry,
    /// Denials that are certain for a while yet.
    pub deny_cache: DenyCache,
    /// Which keys were reset, for shares.
    pub reset_marks: ResetMarks,
    /// Longest time that a check waits for an answer.
    pub timeout_us: u64,
    /// Local buckets for when there is none.
    pub fallback: Fallback,
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
        let settings = Settings::new(config, stats);
        let (mode, timeout_us) = (settings.mode, settings.timeout_us);
        let seed = Arc::new(Dialer::new(&config.redis)?);
        let only_knows = matches!(config.redis.addr.transport, Transport::Sentinel(_) | Transport::Cluster(_))
            || matches!(config.redis.mode, RedisMode::Sentinel | RedisMode::Cluster);
        Ok(Self {
            directory: Directory::new(seed, only_knows, config.redis.is_cluster(), settings),
            configured: config.redis.clone(),
            store: RedisStore::new(&config.redis.prefix),
            registry: Registry::new(config.limits.windows_in_use),
            deny_cache: DenyCache::new(config.deny_cache.max_keys, config.deny_cache.max_hold.map_or(0, us)),
            reset_marks: ResetMarks::default(),
            timeout_us,
            fallback: Fallback::new(config.fallback.ratio, config.fallback.max_keys),
            mode,
            stats: stats.to_vec(),
        })
    }

    /// The node that clients' own connections lead to: the only one, or any of a cluster's.
    pub fn upstream(&self) -> Option<Arc<Node>> {
        self.directory.nodes().all().first().cloned()
    }

    /// The fallback's answer to a check, or to a peek, which takes nothing.
    pub(super) fn fall_back(&self, verb: Verb, ask: &Ask<'_>, form: Form, now_us: u64) -> Answer {
        if form == Form::Full {
            return self.fall_back_in_full(verb, ask, now_us);
        }
        Answer::Verdict(match (self.mode_for(ask), verb) {
            (FallbackMode::Error, _) => return Answer::Refused(Refusal::Unavailable),
            (FallbackMode::Open, _) => fallback::open(ask),
            (FallbackMode::Closed, _) => fallback::closed(ask),
            (FallbackMode::Local, Verb::Check) => self.fallback.check(ask, now_us),
            (FallbackMode::Local, Verb::Peek) => self.fallback.peek(ask, now_us),
        })
    }

    fn fall_back_in_full(&self, verb: Verb, ask: &Ask<'_>, now_us: u64) -> Answer {
        Answer::in_full(match (self.mode_for(ask), verb) {
            (FallbackMode::Error, _) => return Answer::Refused(Refusal::Unavailable),
            (FallbackMode::Open, _) => fallback::open_in_full(ask),
            (FallbackMode::Closed, _) => fallback::closed_in_full(ask),
            (FallbackMode::Local, Verb::Check) => self.fallback.check_in_full(ask, now_us),
            (FallbackMode::Local, Verb::Peek) => self.fallback.peek_in_full(ask, now_us),
        })
    }

    fn mode_for(&self, ask: &Ask<'_>) -> FallbackMode {
        match ask.terms().fallback.unwrap_or(self.mode) {
            // What is only tried out keeps nobody from anything.
            FallbackMode::Error if ask.terms().is_shadow => FallbackMode::Open,
            mode => mode,
        }
    }

    /// Keeps of an exact answer of `node` what will save asking or inform the fallback. `states` is how the limits stand
    /// after the item's admissions, `reports` what the script said of them, `decided` then; which is not known where it
    /// may have decided before, and only repeats what it has said.
    pub(super) fn learn(
        &self,
        node: &Node,
        ask: &Ask<'_>,
        item: &Item,
        (states, reports): (&[LimitState], &[LimitReport]),
        decided: Option<Decided>,
        now_us: u64,
    ) {
        self.inform_fallback(ask, states, now_us);
        let verdict = decide(ask.limits, states, ask.cost);
        let place = usize::from(verdict.binding);
        let binding = states.get(place).zip(reports.get(place)).zip(ask.limits.get(place));
        let Some(((state, LimitReport::State { state: before, covered }), limit)) = binding else { return };
        if state.is_above(before) {
            self.deny_cache.admitted(ask.key);
        }
        let Some(decided) = decided.filter(|_| node.reset_feed_live()) else { return };
        let fits_in_us = limit.fits_in_us(state, ask.cost);
        // Where all were admitted the next would be denied, but Redis has not said so, and only what it says of a denial
        // tells to the millisecond for how long.
        let mut if_all = *before;
        limit.count(&mut if_all, ask.cost.saturating_mul(item.count));
        let denied = !verdict.allowed && fits_in_us > 0 && (state.used, state.part) != (if_all.used, if_all.part);
        if denied {
            let max_cost = match ask.limits {
                [_] => limit.costliest(state, ask.cost, *covered),
                // A costlier request may be denied for longer by another of the limits.
                _ => ask.cost,
            };
            let denial = Denial {
                limit: verdict.limit,
                binding: verdict.binding,
                remaining: verdict.remaining,
                certain_until_us: decided.earliest_us + fits_in_us,
                until_us: decided.latest_us + fits_in_us,
                empty_at_us: decided.latest_us + state.empty_in_us,
                max_cost,
            };
            let told = if item.form == Form::Full { states } else { &[] };
            self.deny_cache.insert_in_full(ask, denial, told, decided, now_us);
        }
    }

    /// Keeps of an exact answer what informs the fallback.
    pub(super) fn inform_fallback(&self, ask: &Ask<'_>, states: &[LimitState], now_us: u64) {
        if self.mode_for(ask) == FallbackMode::Local {
            for (limit, state) in ask.limits.iter().zip(states) {
                self.fallback.learn(ask.key, *limit, limit.remaining(state), now_us);
            }
        }
    }

    /// Forgets what is known here of a key of `node` that was reset.
    pub(super) fn forget(&self, node: &Node, key: &[u8], now_us: u64) {
        self.reset_marks.mark(key);
        self.deny_cache.forget(key, now_us);
        self.fallback.forget(key);
        node.ledger.forget(key);
        node.replay.forget(key);
    }

    /// Any key may have been reset, and nobody here has heard of it.
    pub(super) fn forget_denials(&self, now_us: u64) {
        self.reset_marks.mark_all();
        self.deny_cache.clear(now_us);
    }

    /// Passes what INFO says of it to `line`, a name and a value each.
    pub(super) fn describe(&self, line: &mut dyn FnMut(&str, &dyn Display)) {
        let nodes = self.directory.nodes();
        line("store", &"redis");
        // Of several nodes, the first that is down says what is wrong.
        let worst = nodes.all().iter().find(|node| !node.health.is_up()).or(nodes.all().first());
        if let Some(node) = worst {
            describe_health(node, line);
        }
        let times = Times::of(self.stats.iter().map(|stats| &stats.store_latency));
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            line(&format!("store_latency_us_{name}"), &times.quantile(share).unwrap_or_default());
        }
        line("denials_cached", &self.deny_cache.entries());
        line("fallback_mode", &self.mode);
        line("fallback_buckets", &self.fallback.buckets());
        line("fallback_evicted", &self.fallback.evicted());
        let ledgers = || nodes.all().iter().map(|node| &node.ledger);
        line("fallback_unwritten", &ledgers().map(Ledger::len).sum::<usize>());
        line("fallback_dropped", &ledgers().map(Ledger::dropped).sum::<u64>());
        nodes.describe(line);
    }
}

fn describe_health(node: &Node, line: &mut dyn FnMut(&str, &dyn Display)) {
    let (known, is_up) = (node.health.known(), node.health.is_up());
    let (problem, advice) = known.problem_and_advice();
    line("store_up", &u8::from(is_up));
    line("breaker_state", &node.health.breaker_state());
    line("store_down_seconds", &known.down_since.map_or(0, |since| since.elapsed().as_secs()));
    line("store_last_error", &known.last_error.unwrap_or_default());
    line("store_problem", &problem);
    line("store_advice", &advice);
    line("store_chain", &known.chain.filter(|_| is_up).unwrap_or_default());
}
