//! A look at what answers at Redis's address: whether it is a Redis, lets us do all that we need, and will go on to. What
//! is not so is named, with what to do about it.
//!
//! Each command that the scripts call is run once, in a form that changes nothing: a script can hide which right it
//! lacks, and a Redis that runs one which only reads may refuse the next, as a replica does, or one that is full.

use super::diagnosis::{Kind, Problem};
use super::node::Node;
use super::redis::Redis;
use super::{facts, needs};
use crate::clock::now_us;
use crate::limit::{Ask, Limit, Window};
use crate::run_id::run_id;
use crate::store::batch::Batch;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::redis::{Names, Report};
use crate::store::script::Run;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Is told of each step that was passed: what it was, and what it showed.
pub(super) type Told<'a> = &'a mut dyn FnMut(&str, &str);

/// Opens a connection. It is one only once a script has run on it.
///
/// # Errors
/// Why there is none that could be used.
pub(super) async fn open(redis: &Redis, node: &Node) -> Result<Connection, Problem> {
    let link = dial(redis, node).await.inspect_err(|problem| node.dialer.bar(problem.kind == Kind::Tollgate))?;
    node.dialer.bar(false);
    Ok(link)
}

async fn dial(redis: &Redis, node: &Node) -> Result<Connection, Problem> {
    let late = |_| Err(node.health.diagnose(&Error::late()));
    let begun = Instant::now();
    let link = Connection::dial(&node.dialer, node.connect_timeout).await;
    let mut link = link.map_err(|error| node.health.diagnose(&error))?;
    let left = node.connect_timeout.saturating_sub(begun.elapsed());
    let outcome = timeout(left, examine(redis, node, &mut link, &mut |_, _| {})).await.unwrap_or_else(late);
    node.dialer.note(link.peer_addr(), outcome.is_ok());
    outcome.map(|()| link)
}

/// Logs in, and looks at what is there; what works, but not as it should, is told in the log.
///
/// # Errors
/// What keeps it from serving as the store.
pub(super) async fn examine(redis: &Redis, node: &Node, link: &mut Connection, told: Told<'_>) -> Result<(), Problem> {
    let chain = log_in(node, link, told).await?;
    let mut warnings: Vec<_> = facts::warning_of(&chain).into_iter().collect();
    warnings.extend(try_commands(redis, node, link, told).await?);
    run_script(redis, node, link).await.map_err(|error| node.health.diagnose(&error))?;
    told("script", "runs in time");
    node.health.looked_at(chain, warnings);
    Ok(())
}

/// Logs in, and asks who is there before anything is asked that a Tollgate would ask of its own Redis in turn: in a ring,
/// that question would go round for ever. Returns the Tollgates on the way, as [`facts::chain`] has them.
async fn log_in(node: &Node, link: &mut Connection, told: Told<'_>) -> Result<String, Problem> {
    let diagnose = |error: Error| node.health.diagnose(&error);
    link.log_in(&node.dialer).await.map_err(diagnose)?;
    let info = match link.call(&["INFO", "tollgate"]).await {
        Err(error) if error.has_code("NOPERM") => String::new(),
        outcome => text_of(outcome.map_err(diagnose)?),
    };
    told("login", &format!("as '{}'", node.dialer.user()));
    facts::chain(&info, run_id())
}

/// Has Redis say what it is, run all commands that are needed, and keep the scripts. Returns what is not as it should be.
async fn try_commands(
    redis: &Redis,
    node: &Node,
    link: &mut Connection,
    told: Told<'_>,
) -> Result<Vec<Problem>, Problem> {
    let diagnose = |error: Error| node.health.diagnose(&error);
    let store = &redis.store;
    link.write(&["INFO"]);
    for script in store.scripts() {
        link.write(&[&b"SCRIPT"[..], b"LOAD", script.source.as_bytes()]);
    }
    needs::commands(&store.unused_key(), &store.reset_channel()).for_each(|words| link.write(&words));
    let info = answer(link).await.map_err(diagnose)?;
    for _ in store.scripts() {
        // Where that is not allowed, each is sent with the first job that needs it.
        let _ = answer(link).await.map_err(diagnose)?;
    }
    let mut outcomes = Vec::new();
    for _ in needs::commands(b"", b"") {
        outcomes.push(answer(link).await.map_err(diagnose)?);
    }
    let mut warnings = match info {
        Ok(info) => {
            let info = text_of(info);
            let field = |name| facts::field(&info, name).unwrap_or("?");
            node.health.has_version(facts::field(&info, "redis_version").map(str::to_owned));
            told("server", &format!("Redis {}, {}, {}", field("redis_version"), field("redis_mode"), field("role")));
            facts::judge(&info)?
        }
        Err(error) if error.has_code("NOPERM") => {
            let loss = "its version, role and memory policy are not known";
            vec![needs::lacks("+info", &error.to_string(), loss, node.health.about())]
        }
        Err(error) => return Err(diagnose(error)),
    };
    warnings.extend(needs::judge(&outcomes, node.health.about())?);
    told("commands", &format!("{} that are needed", outcomes.len()));
    Ok(warnings)
}

/// Runs a script, which is what has to work. And in time: a Redis that answers only after the deadline would close the
/// breaker for nothing.
async fn run_script(redis: &Redis, node: &Node, link: &mut Connection) -> Result<(), Error> {
    let mut batch = Batch::default();
    batch.add(&Ask { key: b"probe", limits: &[Limit::log(1, Window::MIN)], cost: 1 });
    let (within, sent_us) = (Duration::from_micros(redis.timeout_us), now_us());
    let reply = run(link, redis.store.peek(&batch, Names::Declared), within).await?;
    node.note_clock(Report::read(reply, batch.states())?.redis_now_us, sent_us);
    Ok(())
}

/// An answer, of whatever kind.
///
/// # Errors
/// There is none.
async fn answer(link: &mut Connection) -> Result<Result<Reply, Error>, Error> {
    match link.reply().await {
        Err(error @ Error::Io(_)) => Err(error),
        outcome => Ok(outcome),
    }
}

fn text_of(reply: Reply) -> String {
    match reply {
        Reply::Text(text) => String::from_utf8_lossy(&text).into_owned(),
        _ => String::new(),
    }
}

/// Runs a script, which is sent along if Redis has forgotten it.
pub(super) async fn run(link: &mut Connection, run: Run<'_>, within: Duration) -> Result<Reply, Error> {
    let attempt = async {
        run.write(link.output(), false);
        match link.reply().await {
            Err(error) if error.has_code("NOSCRIPT") => {
                run.write(link.output(), true);
                link.reply().await
            }
            outcome => outcome,
        }
    };
    timeout(within, attempt).await.unwrap_or_else(|_| Err(Error::late()))
}
