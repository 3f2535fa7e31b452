//! What the page asks for once a second. The head of page.js describes it.

use super::history::History;
use super::nodes::{NodeView, mode, nodes};
use super::policies;
use crate::clock::now_us;
use crate::info;
use crate::limit::PolicyName;
use crate::limiter::health::Change;
use crate::shown::Shown;
use crate::stats::{Outcome, Source, Times, sum};
use crate::top::{Entry, Which};
use crate::worker::Shared;
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

/// Most keys of each list: as many as the page shows.
const MAX_KEYS: usize = 100;

/// The state as of now.
pub fn render(shared: &Shared, history: &History) -> Value {
    let nodes = nodes(shared);
    let now = Now::read();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build": info::COMMIT,
        "now_ms": now.ms(),
        "uptime_s": shared.started.elapsed().as_secs(),
        "mode": mode(shared),
        "state": exactness(shared, &nodes, &now),
        "clients": {
            "connected": shared.clients.load(Relaxed),
            "max": shared.config.server.max_clients,
            "rejected": shared.rejected.load(Relaxed),
        },
        "answers": answers(shared),
        "forwarded": sum(&shared.stats, |stats| &stats.forwarded),
        "failed_logins": sum(&shared.stats, |stats| &stats.failed_logins),
        "latency": latency(history),
        "nodes": nodes.iter().map(|node| node_state(shared, node, &now)).collect::<Vec<_>>(),
        "fallback": {
            "mode": shared.config.fallback.mode.to_string(),
            "ratio": shared.config.fallback.ratio,
            "buckets": shared.backend.redis().map_or(0, |redis| redis.fallback.buckets()),
            "unwritten": nodes.iter().map(|node| node.unwritten).sum::<usize>(),
            "dropped": nodes.iter().map(|node| node.dropped).sum::<u64>(),
        },
        "policies": policies::rows(shared),
        "policies_mode": policies::mode_of_all(shared),
        "top": { "denied": top(shared, false), "allowed": top(shared, true) },
        "history": points(history),
    })
}

/// One moment, by both clocks.
struct Now {
    instant: Instant,
    time: SystemTime,
}

impl Now {
    fn read() -> Self {
        Self { instant: Instant::now(), time: SystemTime::now() }
    }

    fn ms(&self) -> u64 {
        unix_ms(self.time)
    }

    /// What the clock that may be set would have said then.
    fn ms_at(&self, then: Instant) -> u64 {
        self.ms().saturating_sub(ms(self.instant.saturating_duration_since(then)))
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms(time: SystemTime) -> u64 {
    ms(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn exactness(shared: &Shared, nodes: &[NodeView], now: &Now) -> Value {
    let down = nodes.iter().filter(|node| !node.is_up);
    let first = down.clone().min_by_key(|node| node.known.down_since);
    let since_ms = match first {
        Some(node) => node.known.down_since.map_or(now.ms(), |since| now.ms_at(since)),
        None => nodes.iter().map(|node| since_ms(shared, node, now)).max().unwrap_or(now.ms_at(shared.started)),
    };
    let (cause, advice) = first.map(|node| node.known.problem_and_advice()).unwrap_or_default();
    json!({ "exact": first.is_none(), "since_ms": since_ms, "cause": said(cause), "advice": said(advice) })
}

/// Since when a node is up, or down.
fn since_ms(shared: &Shared, node: &NodeView, now: &Now) -> u64 {
    match (node.known.down_since, node.known.changes.back()) {
        (Some(since), _) => now.ms_at(since),
        (None, Some(change)) => unix_ms(change.at),
        (None, None) => now.ms_at(shared.started),
    }
}

fn node_state(shared: &Shared, node: &NodeView, now: &Now) -> Value {
    let (problem, advice) = node.known.problem_and_advice();
    let change = |change: &Change| json!({ "at_ms": unix_ms(change.at), "up": change.is_up, "cause": said(change.cause.clone()) });
    json!({
        "addr": node.addr,
        "role": node.role,
        "slots": node.slots,
        "up": node.is_up,
        "since_ms": since_ms(shared, node, now),
        "breaker": node.breaker,
        "round_trip_us": node.round_trip_us,
        "problem": said(problem),
        "advice": said(advice),
        "changes": node.known.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

/// `null` for nothing.
fn said(text: String) -> Value {
    if text.is_empty() { Value::Null } else { Value::String(text) }
}

fn answers(shared: &Shared) -> Value {
    let of = |source, outcome| shared.stats.iter().map(|stats| stats.checks.read(source, outcome)).sum::<u64>();
    let refused: u64 = Source::ALL.into_iter().map(|source| of(source, Outcome::Refused)).sum();
    json!({
        "allowed": of(Source::Store, Outcome::Allowed),
        "allowed_by_share": of(Source::Share, Outcome::Allowed),
        "allowed_by_policy": of(Source::Policy, Outcome::Allowed),
        "shadow_denied": Source::ALL.into_iter().map(|source| of(source, Outcome::ShadowDenied)).sum::<u64>(),
        "denied": of(Source::Store, Outcome::Denied)
            + of(Source::Request, Outcome::Denied)
            + of(Source::Policy, Outcome::Denied),
        "denied_cached": of(Source::DenyCache, Outcome::Denied),
        "degraded_allowed": of(Source::Fallback, Outcome::Allowed),
        "degraded_denied": of(Source::Fallback, Outcome::Denied),
        "refused": refused,
    })
}

fn latency(history: &History) -> Value {
    let quantiles = |times: Times| {
        let p50_us = times.quantile(0.5)?;
        Some(json!({ "p50_us": p50_us, "p99_us": times.quantile(0.99) }))
    };
    let (checks, store) = history.recent().unzip();
    json!({ "check": checks.and_then(quantiles), "store": store.and_then(quantiles) })
}

/// The keys of most answers in the last minute, the most first.
fn top(shared: &Shared, allowed: bool) -> Value {
    let which = Which { allowed, hour: false };
    let listed = shared.top.read(shared.stats.iter().map(|stats| &stats.top), which, now_us());
    let row = |entry: &Entry| json!({ "key": Shown(&entry.key).to_string(), "policy": entry.policy.map(PolicyName::as_str), "count": entry.count, "error": entry.error });
    listed.entries.iter().take(MAX_KEYS).map(row).collect()
}

fn points(history: &History) -> Value {
    let series = |part: fn(&super::history::Point) -> u64| history.points().map(part).collect::<Vec<_>>();
    json!({
        "step_s": super::history::STEP.as_secs(),
        "end_ms": history.end().map_or(0, unix_ms),
        "allowed": series(|point| point.allowed),
        "denied": series(|point| point.denied),
        "degraded": series(|point| point.degraded),
        "p50_us": series(|point| point.p50_us),
        "p99_us": series(|point| point.p99_us),
    })
}
