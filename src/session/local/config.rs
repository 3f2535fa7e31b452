//! CONFIG: those of Redis's settings that have a counterpart here, or a value that can only be one. Agents, GUIs and
//! clients look at them before they start.

use crate::command::quoted;
use crate::glob;
use crate::resp::reply::{self, Protocol};
use crate::resp::request::Args;
use crate::worker::Shared;
use bytes::BytesMut;
use std::time::Duration;

/// Most patterns of one CONFIG GET that are looked at: the longest of these, and no more, take a worker some
/// milliseconds.
const MAX_PATTERNS: usize = 256;

/// Answers a subcommand of CONFIG.
pub fn run(sub: &str, shared: &Shared, protocol: Protocol, args: &Args<'_>, out: &mut BytesMut) {
    let settings = settings(shared);
    if sub == "set" {
        return reply::error(out, &refuse(&settings, args));
    }
    let is_asked = |name: &str| args.from(2).take(MAX_PATTERNS).any(|pattern| glob::matches(pattern, name.as_bytes()));
    let found: Vec<_> = settings.iter().filter(|(name, _)| is_asked(name)).collect();
    reply::map(out, found.len(), protocol);
    for (name, value) in found {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, value.as_bytes());
    }
}

fn settings(shared: &Shared) -> [(&'static str, String); 18] {
    let server = &shared.config.server;
    let seconds = |time: Option<Duration>| time.map_or(0, |time| time.as_secs()).to_string();
    let yes_or_no = |is_so: bool| if is_so { "yes" } else { "no" }.to_owned();
    let [no, none, zero] = ["no", "", "0"].map(str::to_owned);
    [
        ("appendonly", no),
        ("client-query-buffer-limit", server.query_buffer_bytes.to_string()),
        ("cluster-enabled", yes_or_no(shared.backend.is_cluster())),
        ("databases", "1".to_owned()),
        ("io-threads", server.workers.to_string()),
        ("latency-monitor-threshold", zero.clone()),
        ("maxclients", server.max_clients.to_string()),
        // Logs are bounded by their number, and none is thrown away to make room.
        ("maxmemory", zero.clone()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", none.clone()),
        ("proto-max-bulk-len", server.max_bulk_bytes.to_string()),
        ("protected-mode", yes_or_no(server.protected_mode)),
        ("save", none),
        // No log of slow commands is kept.
        ("slowlog-log-slower-than", "-1".to_owned()),
        ("slowlog-max-len", zero),
        ("tcp-backlog", server.backlog.to_string()),
        ("tcp-keepalive", seconds(server.tcp_keepalive)),
        ("timeout", seconds(server.idle_timeout)),
    ]
}

/// Why a CONFIG SET is refused, as Redis refuses to change what is fixed at its start.
fn refuse(settings: &[(&str, String)], args: &Args<'_>) -> String {
    let first = args.get(2).unwrap_or_default();
    let name = quoted(first);
    if !args.len().is_multiple_of(2) {
        "ERR syntax error".to_owned()
    } else if settings.iter().any(|(known, _)| known.as_bytes().eq_ignore_ascii_case(first)) {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config")
    } else {
        format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
    }
}
