//! The text of INFO, in Redis's form: what a client library looks for at its start, and Tollgate's own section.

pub mod process;

use crate::clock::now_us;
use crate::run_id::run_id;
use crate::stats::sum;
use crate::top::Which;
use crate::worker::Shared;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

/// The commit that this was built from, where the build was told it or could ask git.
pub const COMMIT: Option<&str> = option_env!("TOLLGATE_COMMIT");

/// What is said of Redis's version while it is not known: the oldest that is served well.
const OLDEST_REDIS: &str = "6.2.0";

/// The version to show as Redis's.
pub fn redis_version(shared: &Shared) -> String {
    shared.backend.redis_version().unwrap_or_else(|| OLDEST_REDIS.to_owned())
}

/// How Redis is run, in its own word. Before a cluster Tollgate takes part in what a cluster's clients do: to them it is
/// the one node.
pub fn redis_mode(shared: &Shared) -> &'static str {
    if shared.backend.is_cluster() { "cluster" } else { "standalone" }
}

type Section = fn(&Shared, &mut String);

/// The sections named, or all.
pub fn render<'a>(shared: &Shared, names: impl Iterator<Item = &'a [u8]>) -> String {
    let names: Vec<String> = names.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
    let all = names.is_empty() || names.iter().any(|name| matches!(name.as_str(), "all" | "default" | "everything"));
    let sections: [(&str, Section); 11] = [
        ("Server", server),
        ("Clients", clients),
        ("Memory", memory),
        ("Persistence", persistence),
        ("Stats", stats),
        ("Replication", replication),
        ("CPU", cpu),
        ("Modules", |_, _| {}),
        ("Cluster", cluster),
        ("Keyspace", keyspace),
        ("Tollgate", tollgate),
    ];
    let mut text = String::new();
    for (title, write) in sections {
        if all || names.contains(&title.to_ascii_lowercase()) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            field(&mut text, "# ", title, "");
            write(shared, &mut text);
        }
    }
    text
}

fn field(text: &mut String, name: &str, separator: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{name}{separator}{value}\r\n");
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    field(text, name, ":", value);
}

fn server(shared: &Shared, text: &mut String) {
    line(text, "redis_version", redis_version(shared));
    line(text, "redis_mode", redis_mode(shared));
    line(text, "os", std::env::consts::OS);
    line(text, "arch_bits", usize::BITS);
    line(text, "process_id", std::process::id());
    if is_embedded(shared) {
        line(text, "run_id", run_id());
    }
    let uptime_s = shared.started.elapsed().as_secs();
    line(text, "uptime_in_seconds", uptime_s);
    line(text, "uptime_in_days", uptime_s / (24 * 60 * 60));
}

fn clients(shared: &Shared, text: &mut String) {
    line(text, "connected_clients", shared.clients.load(Relaxed));
    line(text, "maxclients", shared.config.server.max_clients);
    if !shared.backend.forwards() {
        line(text, "blocked_clients", 0);
        line(text, "tracking_clients", 0);
    }
}

/// What this process takes of the system: it keeps no count of what it has allocated.
fn memory(shared: &Shared, text: &mut String) {
    if let Some(usage) = process::usage() {
        for (name, bytes) in [
            ("used_memory", usage.resident_bytes),
            ("used_memory_rss", usage.resident_bytes),
            ("used_memory_peak", usage.peak_bytes),
        ] {
            line(text, name, bytes);
            line(text, &format!("{name}_human"), human(bytes));
        }
    }
    if is_embedded(shared) {
        line(text, "maxmemory", 0);
        line(text, "maxmemory_human", human(0));
        line(text, "maxmemory_policy", "noeviction");
    }
}

fn persistence(shared: &Shared, text: &mut String) {
    line(text, "loading", 0);
    if is_embedded(shared) {
        for name in ["rdb_bgsave_in_progress", "aof_enabled", "aof_rewrite_in_progress"] {
            line(text, name, 0);
        }
    }
}

fn stats(shared: &Shared, text: &mut String) {
    line(text, "total_connections_received", sum(&shared.stats, |stats| &stats.connections));
    line(text, "total_commands_processed", sum(&shared.stats, |stats| &stats.commands));
    line(text, "rejected_connections", shared.rejected.load(Relaxed));
    line(text, "total_net_input_bytes", sum(&shared.stats, |stats| &stats.bytes_in));
    line(text, "total_net_output_bytes", sum(&shared.stats, |stats| &stats.bytes_out));
    if is_embedded(shared) {
        for name in ["evicted_keys", "pubsub_channels", "pubsub_patterns"] {
            line(text, name, 0);
        }
    }
}

fn replication(shared: &Shared, text: &mut String) {
    line(text, "role", "master");
    if is_embedded(shared) {
        line(text, "connected_slaves", 0);
        line(text, "master_repl_offset", 0);
    }
}

fn cpu(_: &Shared, text: &mut String) {
    if let Some(usage) = process::usage() {
        line(text, "used_cpu_sys", format_args!("{:.6}", usage.system.as_secs_f64()));
        line(text, "used_cpu_user", format_args!("{:.6}", usage.user.as_secs_f64()));
    }
}

fn cluster(shared: &Shared, text: &mut String) {
    line(text, "cluster_enabled", u8::from(shared.backend.is_cluster()));
}

/// As Redis would count the logs. Each has a time to live.
fn keyspace(shared: &Shared, text: &mut String) {
    let keys = shared.backend.keys_here();
    if keys > 0 {
        line(text, "db0", format_args!("keys={keys},expires={keys}"));
    }
}

fn is_embedded(shared: &Shared) -> bool {
    shared.backend.is_embedded()
}

/// Bytes as people read them, and as Redis writes them.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["K", "M", "G", "T"];
    let mut shown = format!("{bytes}B");
    let mut value = bytes as f64;
    for unit in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        shown = format!("{value:.2}{unit}");
    }
    shown
}

fn tollgate(shared: &Shared, text: &mut String) {
    figures(shared, &mut |name, value| line(text, name, value));
}

/// Passes what there is to be told of this Tollgate to `line`, a name and a value each. Redis has none of the names, for
/// what reads INFO takes all of it for one map.
pub fn figures(shared: &Shared, line: &mut dyn FnMut(&str, &dyn Display)) {
    let server = &shared.config.server;
    line("tollgate_version", &env!("CARGO_PKG_VERSION"));
    line("tollgate_commit", &COMMIT.unwrap_or_default());
    line("tollgate_run_id", &run_id());
    line("phase", &shared.phase.now());
    line("uptime_seconds", &shared.started.elapsed().as_secs());
    line("workers", &server.workers);
    line("clients", &shared.clients.load(Relaxed));
    line("clients_max", &server.max_clients);
    line("clients_rejected", &shared.rejected.load(Relaxed));
    line("log_lines_dropped", &crate::log::dropped_lines());
    policies(shared, line);
    shared.backend.describe(line);
    let workers: Vec<_> = shared.stats.iter().map(|stats| stats.all()).collect();
    for (index, (name, _)) in workers.first().into_iter().flatten().enumerate() {
        let sum: u64 = workers.iter().filter_map(|counts| counts.get(index)).map(|(_, count)| count).sum();
        line(name, &sum);
    }
    for (period, hour) in [("minute", false), ("hour", true)] {
        for (answer, allowed) in [("allowed", true), ("denied", false)] {
            let workers = shared.stats.iter().map(|stats| &stats.top);
            let listed = shared.top.read(workers, Which { allowed, hour }, now_us());
            line(&format!("checks_{answer}_last_{period}"), &listed.total);
        }
    }
}

/// What there is to be told of policies.
fn policies(shared: &Shared, line: &mut dyn FnMut(&str, &dyn Display)) {
    let (policies, known) = (shared.policies.get(), shared.keeper.known());
    let switch = policies.switch(now_us());
    line("policies", &policies.len());
    line("policy_overrides", &policies.overrides());
    line("policies_kept_in", &if is_embedded(shared) { "memory" } else { "redis" });
    line("policies_version", &known.version);
    line("policies_read_ms", &known.read_unix_ms());
    line("policies_unreadable", &known.unreadable);
    line("policies_problem", &known.problem);
    line("policies_mode", &switch.map_or("default", |switch| switch.mode.as_str()));
    let until = switch.and_then(|switch| switch.until);
    line("policies_mode_until_ms", &until.map_or(-1, |until| i64::try_from(until.unix_ms).unwrap_or(i64::MAX)));
    line("config_reload_failures", &shared.policy_file.failures());
}
