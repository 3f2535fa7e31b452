//! The nodes of Redis, as metrics, page and probes tell of them.

use crate::limiter::health::Known;
use crate::limiter::nodes::Kind;
use crate::worker::Shared;

/// One node.
pub struct NodeView {
    /// Where it is.
    pub addr: String,
    /// What it is to the others.
    pub role: &'static str,
    /// Of a cluster's: the first few stretches of slots that it serves.
    pub slots: Option<String>,
    /// Whether it is asked.
    pub is_up: bool,
    /// `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// In microseconds, if it has answered anything.
    pub round_trip_us: Option<u64>,
    /// What is known of it.
    pub known: Known,
    /// Whether a first look at it has ended.
    pub was_looked_at: bool,
    /// What was admitted in its place and is not written to it yet.
    pub unwritten: usize,
    /// What of that was dropped.
    pub dropped: u64,
}

/// All that are known of; none with `--embedded`.
pub fn nodes(shared: &Shared) -> Vec<NodeView> {
    let Some(redis) = shared.backend.redis() else { return Vec::new() };
    let nodes = redis.directory.nodes();
    let views = nodes.all().iter().enumerate().map(|(index, node)| NodeView {
        addr: format!("{:?}", node.dialer),
        // No replica is asked.
        role: "primary",
        slots: nodes.slots.is_some().then(|| nodes.stretches_of(index)),
        is_up: node.health.is_up(),
        breaker: node.health.breaker_state(),
        round_trip_us: node.round_trip_us(),
        known: node.health.known(),
        was_looked_at: node.health.was_looked_at(),
        unwritten: node.ledger.len(),
        dropped: node.ledger.dropped(),
    });
    views.collect()
}

/// What they are, as the page knows it.
pub fn mode(shared: &Shared) -> &'static str {
    match shared.backend.redis().map(|redis| redis.directory.nodes().kind) {
        None => "embedded",
        Some(Kind::Single) => "redis",
        Some(Kind::Sentinel) => "sentinel",
        Some(Kind::Cluster) => "cluster",
    }
}
