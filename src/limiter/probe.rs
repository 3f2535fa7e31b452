//! A look at what answers at Redis's address: whether it is a Redis, lets us do all that we need, and will go on to. What
//! is not so is named, with what to do about it.
//!
//! Each command that the scripts call is run once, in a form that changes nothing: a script can hide which right it
//! lacks, and a Redis that runs one which only reads may refuse the next, as a replica does, or one that is full.

use super::diagnosis::{self, Problem};
use super::{Remote, connect, facts, needs};
use crate::clock::now_us;
use crate::limit::{Ask, Limit, Window};
use crate::run_id::run_id;
use crate::store::batch::Batch;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::redis::Report;
use std::time::Duration;

/// Is told of each step that was passed: what it was, and what it showed.
pub(super) type Told<'a> = &'a mut dyn FnMut(&str, &str);

/// Logs in, and looks at what is there; what works, but not as it should, is told in the log.
///
/// # Errors
/// What keeps it from serving as the store.
pub(super) async fn examine(remote: &Remote, link: &mut Connection, told: Told<'_>) -> Result<(), Problem> {
    let chain = log_in(remote, link, told).await?;
    let mut warnings: Vec<_> = facts::warning_of(&chain).into_iter().collect();
    warnings.extend(try_commands(remote, link, told).await?);
    run_script(remote, link).await.map_err(|error| diagnosis::of(&error, remote.about()))?;
    told("script", "runs in time");
    remote.on_warnings(warnings);
    remote.lock_known().chain = Some(chain);
    Ok(())
}

/// Logs in, and asks who is there before anything is asked that a Tollgate would ask of its own Redis in turn: in a ring,
/// that question would go round for ever. Returns the Tollgates on the way, as [`facts::chain`] has them.
async fn log_in(remote: &Remote, link: &mut Connection, told: Told<'_>) -> Result<String, Problem> {
    let diagnose = |error: Error| diagnosis::of(&error, remote.about());
    link.log_in(&remote.dialer).await.map_err(diagnose)?;
    let info = match link.call(&["INFO", "tollgate"]).await {
        Err(error) if error.has_code("NOPERM") => String::new(),
        outcome => text_of(outcome.map_err(diagnose)?),
    };
    told("login", &format!("as '{}'", remote.dialer.user()));
    facts::chain(&info, run_id())
}

/// Has Redis say what it is, run all commands that are needed, and keep the scripts. Returns what is not as it should be.
async fn try_commands(remote: &Remote, link: &mut Connection, told: Told<'_>) -> Result<Vec<Problem>, Problem> {
    let diagnose = |error: Error| diagnosis::of(&error, remote.about());
    let store = &remote.store;
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
            remote.lock_known().version = facts::field(&info, "redis_version").map(str::to_owned);
            told("server", &format!("Redis {}, {}, {}", field("redis_version"), field("redis_mode"), field("role")));
            facts::judge(&info)?
        }
        Err(error) if error.has_code("NOPERM") => {
            let loss = "its version, role and memory policy are not known";
            vec![needs::lacks("+info", &error.to_string(), loss, remote.about())]
        }
        Err(error) => return Err(diagnose(error)),
    };
    warnings.extend(needs::judge(&outcomes, remote.about())?);
    told("commands", &format!("{} that are needed", outcomes.len()));
    Ok(warnings)
}

/// Runs a script, which is what has to work. And in time: a Redis that answers only after the deadline would close the
/// breaker for nothing.
async fn run_script(remote: &Remote, link: &mut Connection) -> Result<(), Error> {
    let mut batch = Batch::default();
    batch.add(&Ask { key: b"probe", limits: &[Limit::log(1, Window::MIN)], cost: 1 });
    let (timeout, sent_us) = (Duration::from_micros(remote.timeout_us), now_us());
    let reply = connect::run(link, remote.store.peek(&batch), timeout).await?;
    remote.note_clock(Report::read(reply, batch.states())?.redis_now_us, sent_us);
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
