//! What `/metrics` tells. Labels are bounded: policies, sources, nodes, results; never keys.

use super::exposition::{Exposition, Format};
use super::history::Totals;
use super::nodes::{NodeView, nodes};
use super::policies;
use crate::clock::now_us;
use crate::descriptors;
use crate::info::{self, process};
use crate::policy::Mode;
use crate::stats::{Counter, Outcome, Source, Stats, sum};
use crate::worker::Shared;
use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

/// The whole text.
pub fn render(shared: &Shared, format: Format) -> String {
    let mut out = Exposition::new(format);
    checks(shared, &mut out);
    policies(shared, &mut out);
    store(shared, &nodes(shared), &mut out);
    fallback(shared, &nodes(shared), &mut out);
    clients(shared, &mut out);
    this_process(shared, &mut out);
    out.finish()
}

/// The label of a source. The store is named by what it is.
fn source_name(source: Source, is_embedded: bool) -> &'static str {
    match source {
        Source::Store if is_embedded => "embedded",
        Source::Store => "redis",
        other => other.name(),
    }
}

fn checks(shared: &Shared, out: &mut Exposition) {
    let is_embedded = shared.backend.is_embedded();
    let by_policy = policies::counts(shared);
    let mut checks = out.counter(
        "tollgate_checks",
        "Checks by policy (none for limits in the command), by what they came to (shadow_denied: denied by what is only \
         tried out, and let pass) and by who answered: redis, embedded, deny_cache (a denial repeated), share (granted ahead), fallback \
         (degraded), request (its cost is above the limit, or it has a window too many), policy (its mode, or an override).",
    );
    // Without a Redis there is none of these.
    let can_be =
        |source: &Source| !is_embedded || !matches!(source, Source::DenyCache | Source::Share | Source::Fallback);
    for (policy, counts) in &by_policy {
        for source in Source::ALL.into_iter().filter(can_be) {
            for outcome in Outcome::ALL {
                let labels: [(&str, &dyn Display); 3] =
                    [("policy", policy), ("result", &outcome.name()), ("source", &source_name(source, is_embedded))];
                checks.sample(&labels, counts.checks.read(source, outcome));
            }
        }
    }
    let mut near = out
        .counter("tollgate_near_limit", "Checks allowed with more than 80 % of the limit used that binds, by policy.");
    for (policy, counts) in &by_policy {
        near.sample(&[("policy", policy)], counts.near_limit.read());
    }
    let totals = Totals::of(&shared.stats);
    out.histogram(
        "tollgate_check_duration_seconds",
        "From reading a check to its answer. Those answered without waiting count as 0.",
        &totals.checks,
    );
    if !is_embedded {
        out.histogram(
            "tollgate_store_duration_seconds",
            "From sending a batch of checks to Redis to its answer.",
            &totals.store,
        );
    }
}

fn policies(shared: &Shared, out: &mut Exposition) {
    let (policies, known) = (shared.policies.get(), shared.keeper.known());
    out.gauge("tollgate_policies", "Policies, of the file and of running Tollgates.").sample(&[], policies.len());
    out.gauge("tollgate_overrides", "Keys, and beginnings of keys, for which something else holds than a policy says.")
        .sample(&[], policies.overrides());
    let mut modes =
        out.gauge("tollgate_policies_mode", "The mode that all policies share, default if none: 1 for that.");
    let mode = policies.switch(now_us()).map_or("default", |switch| switch.mode.as_str());
    for name in Mode::ALL.map(Mode::as_str).into_iter().chain(["default"]) {
        modes.sample(&[("mode", &name)], u8::from(name == mode));
    }
    if !shared.backend.is_embedded() {
        out.gauge("tollgate_policies_loaded_timestamp_seconds", "When all that Redis keeps of policies was last read.")
            .sample(&[], known.read_unix_ms() as f64 / 1e3);
        out.gauge("tollgate_policies_unreadable", "Fields that Redis keeps of policies and that cannot be read.")
            .sample(&[], known.unreadable);
    }
    out.counter("tollgate_config_reload_failures", "Times that the configuration file was read again and not taken.")
        .sample(&[], shared.policy_file.failures());
}

fn store(shared: &Shared, nodes: &[NodeView], out: &mut Exposition) {
    if shared.backend.is_embedded() {
        out.gauge("tollgate_embedded_logs", "Logs held in this process, one a key and window.")
            .sample(&[], shared.backend.keys_here());
        return;
    }
    let mut family = out.gauge("tollgate_node_up", "Whether this node of Redis is asked.");
    for node in nodes {
        family.sample(&[("node", &node.addr), ("role", &node.role)], u8::from(node.is_up));
    }
    let mut family =
        out.gauge("tollgate_breaker_state", "Which state the circuit breaker of a node is in: 1 for that.");
    for node in nodes {
        for state in ["closed", "open", "half-open"] {
            family.sample(&[("node", &node.addr), ("state", &state)], u8::from(node.breaker == state));
        }
    }
    let mut family = out.counter("tollgate_degraded_seconds", "Time in which a node was not asked.");
    for node in nodes {
        family.sample(&[("node", &node.addr)], node.known.down_for().as_secs_f64());
    }
    let mut family = out.gauge("tollgate_node_round_trip_seconds", "Time that a node last took for a single batch.");
    for node in nodes {
        if let Some(us) = node.round_trip_us {
            family.sample(&[("node", &node.addr)], us as f64 / 1e6);
        }
    }
    for (name, help, counter) in [
        (
            "tollgate_store_batches",
            "Batches of checks sent to Redis.",
            (|stats| &stats.batches) as fn(&Stats) -> &Counter,
        ),
        ("tollgate_store_timeouts", "Times that Redis did not answer checks within the deadline.", |stats| {
            &stats.timeouts
        }),
        ("tollgate_store_redirects", "Questions that a node of a cluster passed on to another.", |stats| {
            &stats.redirects
        }),
        ("tollgate_store_try_agains", "Questions whose slot was on its way, asked again.", |stats| &stats.try_agains),
    ] {
        out.counter(name, help).sample(&[], sum(&shared.stats, counter));
    }
}

fn fallback(shared: &Shared, nodes: &[NodeView], out: &mut Exposition) {
    let Some(redis) = shared.backend.redis() else { return };
    out.gauge("tollgate_denials_cached", "Denials held to be repeated without asking Redis.")
        .sample(&[], redis.deny_cache.entries());
    out.gauge("tollgate_fallback_buckets", "Local token buckets.").sample(&[], redis.fallback.buckets());
    out.counter("tollgate_fallback_evictions", "Local token buckets that made room for others.")
        .sample(&[], redis.fallback.evicted());
    out.counter("tollgate_written_back", "Records of what the fallback admitted that were written to Redis.")
        .sample(&[], sum(&shared.stats, |stats| &stats.written_back));
    let mut family = out.gauge("tollgate_unwritten", "Records of what the fallback admitted, yet to be written.");
    for node in nodes {
        family.sample(&[("node", &node.addr)], node.unwritten);
    }
    let mut family = out.counter("tollgate_unwritten_dropped", "Records of what the fallback admitted, never written.");
    for node in nodes {
        family.sample(&[("node", &node.addr)], node.dropped);
    }
}

fn clients(shared: &Shared, out: &mut Exposition) {
    out.gauge("tollgate_connections", "Clients connected now.").sample(&[], shared.clients.load(Relaxed));
    out.gauge("tollgate_connections_max", "Most clients that are let in.")
        .sample(&[], shared.config.server.max_clients);
    out.counter("tollgate_connections_accepted", "Clients that were let in.")
        .sample(&[], sum(&shared.stats, |stats| &stats.connections));
    out.counter("tollgate_connections_rejected", "Clients turned away: too many, or by protected mode.")
        .sample(&[], shared.rejected.load(Relaxed));
    for (name, help, counter) in [
        ("tollgate_failed_logins", "Logins that failed.", (|stats| &stats.failed_logins) as fn(&Stats) -> &Counter),
        ("tollgate_commands", "Commands read, Tollgate's own and others.", |stats| &stats.commands),
        ("tollgate_forwarded_commands", "Other commands passed through to Redis.", |stats| &stats.forwarded),
        ("tollgate_received_bytes", "Bytes read from clients.", |stats| &stats.bytes_in),
        ("tollgate_sent_bytes", "Bytes written to clients.", |stats| &stats.bytes_out),
    ] {
        out.counter(name, help).sample(&[], sum(&shared.stats, counter));
    }
}

fn this_process(shared: &Shared, out: &mut Exposition) {
    out.gauge("tollgate_build_info", "Always 1; the labels tell the build.")
        .sample(&[("version", &env!("CARGO_PKG_VERSION")), ("commit", &info::COMMIT.unwrap_or_default())], 1);
    out.counter("tollgate_log_lines_dropped", "Lines of log that nobody read in time.")
        .sample(&[], crate::log::dropped_lines());
    let started = SystemTime::now() - shared.started.elapsed();
    let start_s = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    out.gauge("process_start_time_seconds", "When it started, in seconds of the Unix epoch.").sample(&[], start_s);
    if let Some(usage) = process::usage() {
        let cpu_s = (usage.user + usage.system).as_secs_f64();
        out.counter("process_cpu_seconds", "Processor time used, of the user and of the system.").sample(&[], cpu_s);
        out.gauge("process_resident_memory_bytes", "Bytes in memory.").sample(&[], usage.resident_bytes);
    }
    if let Some(open) = process::open_files() {
        out.gauge("process_open_fds", "File descriptors in use.").sample(&[], open);
    }
    if let Some(most) = descriptors::most() {
        out.gauge("process_max_fds", "File descriptors that it may have.").sample(&[], most);
    }
}
