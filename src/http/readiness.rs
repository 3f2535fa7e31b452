//! What `/readyz` says: whether this Tollgate is to be sent clients.

use super::nodes::NodeView;
use crate::config::ReadyWhen;
use crate::phase::Phase;
use hyper::StatusCode;

/// Status and body. `has_looked` is whether a first look at every node has ended: before it nobody knows whether the
/// first answers would be exact.
pub fn readiness(phase: Phase, has_looked: bool, nodes: &[NodeView], ready_when: ReadyWhen) -> (StatusCode, String) {
    let unready = |text: String| (StatusCode::SERVICE_UNAVAILABLE, text);
    match phase {
        Phase::Draining => return unready("draining".to_owned()),
        Phase::Starting => return unready("starting".to_owned()),
        Phase::Serving if !has_looked => return unready("starting: redis has yet to be looked at".to_owned()),
        Phase::Serving => {}
    }
    let Some(down) = nodes.iter().find(|node| !node.is_up) else { return (StatusCode::OK, "ready".to_owned()) };
    let cause = down.known.problem_and_advice().0;
    match ready_when {
        ReadyWhen::Serving => (StatusCode::OK, format!("ready, degraded: {cause}")),
        ReadyWhen::Exact => unready(format!("not ready, degraded: {cause}")),
    }
}
