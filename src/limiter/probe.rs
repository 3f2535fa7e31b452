//! A look at what answers at Redis's address: whether it is a Redis, lets us do all that we need, and will go on to. What
//! is not so is named, with what to do about it.
//!
//! Each command that the scripts call is run once, in a form that changes nothing: a script can hide which right it
//! lacks, and a Redis that runs one which only reads may refuse the next, as a replica does, or one that is full.

use super::diagnosis::{Kind, Problem};
use super::node::Node;
use super::redis::Redis;
use super::{facts, needs, nodes};
use crate::clock::now_us;
use crate::config::RedisMode;
use crate::limit::{Ask, Limit, Window};
use crate::run_id::run_id;
use crate::store::batch::Batch;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::redis::{Names, Report};
use crate::store::script::Run;
use crate::topology::redirect::Redirect;
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
    if redis.directory.nodes().kind == nodes::Kind::Cluster {
        node.set_declares_keys(redis.configured.declare_keys || !runs_without_keys(redis, node, link).await?);
    }
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
    let is_cluster = redis.directory.nodes().kind == nodes::Kind::Cluster;
    needs::commands(&store.unused_key(), &store.reset_channel(), is_cluster).for_each(|words| link.write(&words));
    let info = answer(link).await.map_err(diagnose)?;
    for _ in store.scripts() {
        // Where that is not allowed, each is sent with the first job that needs it.
        let _ = answer(link).await.map_err(diagnose)?;
    }
    let mut outcomes = Vec::new();
    for _ in needs::commands(b"", b"", is_cluster) {
        outcomes.push(answer(link).await.map_err(diagnose)?);
    }
    let mut warnings = match info {
        Ok(info) => {
            let info = text_of(info);
            let field = |name| facts::field(&info, name).unwrap_or("?");
            node.has_version(facts::field(&info, "redis_version"));
            told("server", &format!("Redis {}, {}, {}", field("redis_version"), field("redis_mode"), field("role")));
            recognize(redis, &info)?;
            node.is_run(facts::field(&info, "run_id").unwrap_or_default());
            facts::judge(&info, redis.directory.nodes().kind)?
        }
        Err(error) if error.has_code("NOPERM") => {
            let loss = "its version, role and memory policy are not known";
            vec![needs::lacks("+info", &error.to_string(), loss, node.health.about())]
        }
        Err(error) => return Err(diagnose(error)),
    };
    if is_cluster {
        // That the key is another node's was asked after the rights.
        outcomes.iter_mut().filter(|outcome| outcome.as_ref().is_err_and(is_redirect)).for_each(|outcome| {
            *outcome = Ok(Reply::Other);
        });
    }
    warnings.extend(needs::judge(&outcomes, node.health.about())?);
    told("commands", &format!("{} that are needed", outcomes.len()));
    Ok(warnings)
}

/// What the server says that it is may be something else than what it was taken for. Who finds out where the nodes are
/// is told.
fn recognize(redis: &Redis, info: &str) -> Result<(), Problem> {
    let taken_for = redis.directory.nodes().kind;
    let (RedisMode::Auto, Some(kind)) = (redis.configured.mode, facts::kind(info)) else { return Ok(()) };
    if taken_for != nodes::Kind::Single || redis.directory.seed().addr().is_none() {
        return Ok(());
    }
    redis.directory.turns_out(kind);
    Err(Problem::new(Kind::Elsewhere, format!("it is {}, which says where the nodes are", facts::name_of(kind)), ""))
}

/// Whether a node of a cluster runs a script that names a log without declaring it.
async fn runs_without_keys(redis: &Redis, node: &Node, link: &mut Connection) -> Result<bool, Problem> {
    let key = key_of(redis, node);
    let mut batch = Batch::default();
    batch.add(&Ask { key: &key, limits: &[Limit::log(1, Window::MIN)], cost: 1 });
    match run(link, redis.store.peek(&batch, Names::Passed), node.connect_timeout).await {
        Ok(_) => Ok(true),
        Err(error) if error.has_code("ERR") && !is_redirect(&error) => Ok(false),
        Err(error) => Err(node.health.diagnose(&error)),
    }
}

/// A key whose logs the node serves.
pub(super) fn key_of(redis: &Redis, node: &Node) -> Vec<u8> {
    redis.directory.nodes().a_slot_of(node).map_or_else(|| b"probe".to_vec(), |slot| slot.a_tag().to_vec())
}

/// Whether an error says no more than that a slot is elsewhere.
pub(super) fn is_redirect(error: &Error) -> bool {
    let Error::Refused(text) = error else { return false };
    matches!(Redirect::read(text), Some(Redirect::Moved(..) | Redirect::Ask(..) | Redirect::TryAgain))
}

/// Runs a script, which is what has to work. And in time: a Redis that answers only after the deadline would close the
/// breaker for nothing.
async fn run_script(redis: &Redis, node: &Node, link: &mut Connection) -> Result<(), Error> {
    let mut batch = Batch::default();
    let key = key_of(redis, node);
    batch.add(&Ask { key: &key, limits: &[Limit::log(1, Window::MIN)], cost: 1 });
    let (within, sent_us) = (Duration::from_micros(redis.timeout_us), now_us());
    match run(link, redis.store.peek(&batch, Names::Declared), within).await {
        Ok(reply) => node.note_clock(Report::read(reply, batch.limits())?.redis_now_us, sent_us),
        Err(error) if is_redirect(&error) => {}
        Err(error) => return Err(error),
    }
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
