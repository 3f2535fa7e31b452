//! How one key stands, for the page: asked of the limiter as a worker's clients ask it, by a way to Redis of this thread's
//! own, which begins with the first question.

use crate::clock::now_us;
use crate::limit::{Limit, MAX_LISTED_ENTRIES, PolicyName, Standing};
use crate::limiter::Limiter;
use crate::limiter::mailbox::{Answer, Mailbox, Refusal};
use crate::policy::Policies;
use crate::shown::{self, Shown};
use crate::stats::Stats;
use crate::worker::Shared;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// Longest key, as RL.INSPECT takes it.
const MAX_KEY_BYTES: usize = 1024;
/// How often Redis is asked before it is taken to be away: the first question may have to wait for the connection for
/// longer than for an answer.
const TRIES: usize = 3;

/// This thread's way to the limiter.
#[derive(Default)]
pub struct LookUp(OnceCell<Limiter>);

impl LookUp {
    /// Status and body for the query of a request, `key=<as shown>`.
    pub async fn answer(&self, query: &str, shared: &Shared, stats: &Arc<Stats>) -> (StatusCode, Value) {
        let key = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key");
        let key = key.map(|(_, text)| shown::parse(&text)).unwrap_or_default();
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return error(StatusCode::BAD_REQUEST, &format!("key must have 1 to {MAX_KEY_BYTES} bytes"));
        }
        let limiter = self.0.get_or_init(|| {
            let limiter = Limiter::new(shared.backend.clone(), stats.clone());
            limiter.start();
            limiter
        });
        let mut answer = inspect(limiter, &key).await;
        for _ in 1..TRIES {
            let is_up = shared.backend.upstream().is_some_and(|node| node.health.is_up());
            if !is_up || answer != Answer::Refused(Refusal::Unavailable) {
                break;
            }
            answer = inspect(limiter, &key).await;
        }
        let policies = shared.policies.get();
        match answer {
            Answer::Standings(standings, _)
                if standings.is_empty() && policies.overrides_of(&key, now_us()).is_empty() =>
            {
                error(StatusCode::NOT_FOUND, "nothing is counted for this key")
            }
            Answer::Standings(standings, _) => (StatusCode::OK, body(&key, &standings, &policies)),
            Answer::Refused(refusal @ (Refusal::Unavailable | Refusal::Unusable)) => {
                error(StatusCode::SERVICE_UNAVAILABLE, &refusal.to_string())
            }
            Answer::Refused(refusal) => error(StatusCode::CONFLICT, &refusal.to_string()),
            _ => error(StatusCode::INTERNAL_SERVER_ERROR, "that was not asked"),
        }
    }
}

async fn inspect(limiter: &Limiter, key: &[u8]) -> Answer {
    let mailbox = Rc::<Mailbox>::default();
    if let Some(answer) = limiter.inspect(key, MAX_LISTED_ENTRIES, now_us(), &mailbox, 0) {
        return answer;
    }
    poll_fn(|cx| {
        let mut answer = Poll::Pending;
        mailbox.collect(cx, |(_, delivered)| answer = Poll::Ready(delivered));
        answer
    })
    .await
}

fn error(status: StatusCode, text: &str) -> (StatusCode, Value) {
    (status, json!({ "error": text }))
}

fn body(key: &[u8], standings: &[Standing], policies: &Policies) -> Value {
    let now_us = now_us();
    let limits: Vec<_> = standings.iter().map(|standing| limit(standing, limit_of(standing, key, policies))).collect();
    let overrides = policies.overrides_of(key, now_us).into_iter();
    let overrides: Vec<_> = overrides.map(|(policy, found)| format!("{policy}: {}", found.rule)).collect();
    let overrides = (!overrides.is_empty()).then(|| overrides.join(", "));
    json!({ "key": Shown(key).to_string(), "limits": limits, "override": overrides, "penalty": null, "leases": [] })
}

/// How much may be counted, if a policy says so: of limits that stood in a command nothing is kept.
fn limit_of(standing: &Standing, key: &[u8], policies: &Policies) -> Option<u32> {
    let ruling = policies.rule(standing.counter.policy?.as_str().as_bytes(), key, now_us())?;
    ruling.quotas.as_slice().iter().find(|limit| limit.counter() == standing.counter).map(Limit::capacity)
}

fn limit(standing: &Standing, most: Option<u32>) -> Value {
    let newest: Vec<_> = standing.newest.iter().map(|(made_us, weight)| (made_us / 1000, weight)).collect();
    json!({
        "policy": standing.counter.policy.map(PolicyName::as_str),
        "algorithm": standing.counter.rule.algorithm(),
        "limit": most,
        "window_ms": standing.counter.rule.window().ms(),
        "used": standing.used,
        "oldest_ms": standing.oldest_us / 1000,
        "newest_ms": standing.newest_us / 1000,
        "next_ms": standing.next_ms(),
        "free_ms": standing.free_ms(),
        "entry_count": standing.entries,
        "entries": newest,
    })
}
