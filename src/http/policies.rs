//! What was counted of each policy, by all threads.

use crate::clock::now_us;
use crate::policy::Policy;
use crate::stats::{Checks, Outcome, PolicyChecks};
use crate::worker::Shared;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// By the policies' names, and, without a name, of all checks that named none.
pub fn counts(shared: &Shared) -> BTreeMap<&'static str, PolicyChecks> {
    let mut counts = BTreeMap::<_, PolicyChecks>::new();
    // Also of those that nobody has asked about yet: a series that begins with its first count hides that.
    for policy in shared.policies.get().iter() {
        counts.entry(policy.name().as_str()).or_default();
    }
    let (all, named) = (PolicyChecks::default(), PolicyChecks::default());
    for stats in &shared.stats {
        // First those with a policy, so that none is counted in them alone.
        stats.by_policy.read(|policy, of_policy| {
            counts.entry(policy.as_str()).or_default().merge(of_policy);
            named.merge(of_policy);
        });
        all.checks.merge(&stats.checks, &Checks::default());
        all.near_limit.add(stats.near_limit.read());
    }
    let plain = counts.entry("").or_default();
    plain.checks.merge(&all.checks, &named.checks);
    plain.near_limit.add(all.near_limit.read().saturating_sub(named.near_limit.read()));
    counts
}

/// The rows of the page: what each policy says, and what its checks came to. `denied` counts what shadow let pass too.
pub fn rows(shared: &Shared) -> Vec<Value> {
    let (policies, now_us) = (shared.policies.get(), now_us());
    let counts = counts(shared);
    let row = |policy: &Arc<Policy>| {
        let of = |outcome| counts.get(policy.name().as_str()).map_or(0, |counts| counts.checks.all(outcome));
        json!({
            "name": policy.name().as_str(),
            "limits": policy.definition().map(|definition| definition.quotas.to_string()),
            "mode": policies.mode_of(policy, now_us).as_str(),
            "overrides": policy.file().overrides.len() + policy.live().overrides.len(),
            "allowed": of(Outcome::Allowed),
            "denied": of(Outcome::Denied) + of(Outcome::ShadowDenied),
            "near_limit": counts.get(policy.name().as_str()).map_or(0, |counts| counts.near_limit.read()),
        })
    };
    policies.iter().map(row).collect()
}

/// The mode that all policies share, and limits without one: `null` if they do not.
pub fn mode_of_all(shared: &Shared) -> Value {
    let switch = shared.policies.get().switch(now_us());
    switch.map_or(
        Value::Null,
        |switch| json!({ "mode": switch.mode.as_str(), "until_ms": switch.until.map(|until| until.unix_ms) }),
    )
}
