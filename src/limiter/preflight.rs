//! Tries all that Tollgate will need of Redis, for an operator to see before anything relies on it.

use super::backend::Backend;
use super::diagnosis::{Kind, Problem};
use super::node::Node;
use super::nodes::Nodes;
use super::redis::Redis;
use super::{discovery, probe, resets};
use crate::config::Config;
use crate::limit::{Ask, Counter, Limit, Window};
use crate::store::batch::Batch;
use crate::store::connection::{Connection, Error};
use crate::store::inspect::Glance;
use crate::store::ledger::{Id, Record};
use crate::store::redis::Names;
use crate::store::reset::Piece;
use crate::store::script::Run;
use std::fmt::Write;
use tokio::time::timeout;

/// What was tried of the Redis of this configuration, a line each, and whether it can be used. Writes no key.
///
/// # Errors
/// Certificates for Redis that cannot be used.
pub async fn report(config: &Config) -> Result<(String, bool), String> {
    let backend = Backend::new(config, &[])?;
    let Some(redis) = backend.redis() else {
        return Ok(("connect: nothing to connect to, the log is embedded\n".to_owned(), true));
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut told = |step: &str, shown: &str| {
        let _ = writeln!(text, "{step}: {shown}");
    };
    let outcome = run_all(redis, &mut told).await;
    let nodes = redis.directory.nodes();
    let known = nodes.all().iter().map(|node| node.health.known());
    let mut warnings: Vec<_> = known.flat_map(|known| known.warnings.into_iter().chain(known.deafness)).collect();
    warnings.dedup();
    for Problem { what, advice, .. } in warnings {
        let _ = writeln!(text, "warning: {what}\n  advice: {advice}");
    }
    if let Err(Problem { what, advice, error, .. }) = &outcome {
        let _ = writeln!(text, "failed: {what}");
        for (name, value) in [("advice", advice), ("error", error)] {
            if !value.is_empty() {
                let _ = writeln!(text, "  {name}: {value}");
            }
        }
    }
    Ok((text, outcome.is_ok()))
}

/// Tries all nodes, which may have to be found first.
async fn run_all(redis: &Redis, told: probe::Told<'_>) -> Result<(), Problem> {
    let is_placeholder = |nodes: &Nodes| nodes.all().iter().any(|node| node.is_placeholder);
    if !is_placeholder(&redis.directory.nodes()) {
        match run_nodes(redis, told).await {
            Err(problem) if problem.kind == Kind::Elsewhere => told("topology", &problem.what),
            outcome => return outcome,
        }
    }
    discovery::find(redis).await?;
    told("topology", &redis.directory.nodes().kind.to_string());
    run_nodes(redis, told).await
}

async fn run_nodes(redis: &Redis, told: probe::Told<'_>) -> Result<(), Problem> {
    for node in redis.directory.nodes().all() {
        run(redis, node, told).await?;
    }
    Ok(())
}

async fn run(redis: &Redis, node: &Node, told: probe::Told<'_>) -> Result<(), Problem> {
    let diagnose = |error: Error| node.health.diagnose(&error);
    let mut link = Connection::dial(&node.dialer, node.connect_timeout).await.map_err(diagnose)?;
    let peer = link.peer_addr().map_or_else(|| node.dialer.host().to_owned(), |peer| peer.to_string());
    told("connect", &peer);
    let looked = timeout(node.connect_timeout, probe::examine(redis, node, &mut link, told)).await;
    looked.unwrap_or_else(|_| Err(diagnose(Error::late())))?;
    let (key, limits) = (probe::key_of(redis, node), [Limit::log(1, Window::MIN)]);
    let mut batch = Batch::default();
    batch.add(&Ask { key: &key, limits: &limits, cost: 2 });
    for (name, script) in scripts(redis, &batch, &key, limits.map(|limit| limit.counter())) {
        match probe::run(&mut link, script, node.connect_timeout).await {
            Err(error) if !probe::is_redirect(&error) => return Err(diagnose(error)),
            _ => told("script", name),
        }
    }
    match resets::subscribe(redis, node, &mut link).await {
        Ok(()) => told("subscribe", &redis.store.reset_channel().escape_ascii().to_string()),
        Err(error) => match resets::deafness(node, &error) {
            Some(deafness) => node.health.set_deafness(Some(deafness)),
            None => return Err(diagnose(error)),
        },
    }
    Ok(())
}

/// Each script, run on a log such that it writes nothing: a check of more than fits, a reset and a record of what is not
/// there or has expired long since. With a log, as there are services that run no script without keys.
fn scripts<'a>(redis: &'a Redis, batch: &Batch, key: &[u8], counters: [Counter; 1]) -> [(&'static str, Run<'a>); 6] {
    let store = &redis.store;
    let piece = Piece { keys: &[key.to_vec()], counters: &counters, completes_its_keys: false };
    let [counter] = counters;
    let record = Record { key: key.into(), counter, max: 1, time_us: 0, id: Id::New(0), cost: 1, admitted: 1 };
    let glance = Glance { key, counters: &counters, most_entries: 0, entries_left: 0 };
    [
        ("check", store.check(batch, "", false, Names::Declared)),
        ("peek", store.peek(batch, Names::Declared)),
        ("reset", store.reset(&piece, Names::Declared)),
        ("inspect", store.inspect(&glance)),
        ("windows", store.register(&[], 0)),
        ("record", store.record(&[record], 0, Names::Declared)),
    ]
}
