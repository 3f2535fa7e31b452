//! RL.POLICY and RL.OVERRIDE: tells what holds, and gives orders in the name of whoever may.

use super::caller::Caller;
use crate::auth::{Auth, NO_POLICIES};
use crate::clock::now_us;
use crate::command::{PolicyRequest, quoted};
use crate::glob;
use crate::limit::{Limit, PolicyName};
use crate::limiter::mailbox::Answer;
use crate::limiter::policies::{Operator, Outcome};
use crate::policy::{Order, Override, OverrideOrder, Policies, Policy, Switch, Target, Until};
use crate::resp::reply::{self, Protocol};
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

/// Where policies are kept that were said to an embedded Tollgate, and else.
const IN_MEMORY: &str = "memory";
const IN_REDIS: &str = "redis";
const IN_FILE: &str = "file";

const TOO_MANY_NAMES: &str = "ERR too many names of policies were used since Tollgate started";
const TOO_MANY_ORDERS: &str = "UNAVAILABLE too many changes of policies wait";
const STOPPED: &str = "UNAVAILABLE it may hold or not: RL.POLICY LIST and RL.OVERRIDE GET tell";

/// Carries out what is asked. The answer, or `None` if it comes later under `ticket`, or was written.
pub enum Carried {
    /// The reply was written.
    Told,
    /// The answer.
    Known(Answer),
    /// It comes later.
    Later,
}

/// Carries out one request.
pub fn run(caller: &mut Caller, request: &PolicyRequest<'_>, ticket: u64, muted: bool) -> Carried {
    if request.is_for_operators() && !may_change(caller) {
        return failed(NO_POLICIES);
    }
    match order(request) {
        Err(text) => failed(&text),
        Ok(Some(order)) => give(caller, order, ticket),
        Ok(None) => match request {
            PolicyRequest::Load => load(caller, ticket),
            _ if muted => Carried::Told,
            request => match tell(caller, request) {
                Ok(()) => Carried::Told,
                Err(text) => failed(&text),
            },
        },
    }
}

fn failed(text: &str) -> Carried {
    Carried::Known(Answer::Failed(text.into()))
}

/// Whether the client may change policies.
fn may_change(caller: &Caller) -> bool {
    let shared = &caller.worker.shared;
    let peer = caller.client.peer.parse::<SocketAddr>();
    let is_local =
        matches!(shared.auth, Auth::None(_)) && peer.is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
    let rights = shared.config.policies.rights;
    caller.client.permissions.as_ref().is_some_and(|may| may.may_change_policies(rights, is_local))
}

/// The order that a request gives, if it gives one.
fn order(request: &PolicyRequest<'_>) -> Result<Option<Order>, String> {
    let known = |name: &[u8]| PolicyName::known(name).ok_or_else(|| no_such(name));
    Ok(Some(match request {
        PolicyRequest::Set(name, definition) => {
            let name = str::from_utf8(name).ok().and_then(PolicyName::new).ok_or(TOO_MANY_NAMES)?;
            Order::Define(name, definition.clone())
        }
        PolicyRequest::Delete(name) => Order::Delete(known(name)?),
        PolicyRequest::Mode(None, mode) => Order::Switch(Target::All, *mode),
        PolicyRequest::Mode(Some(name), mode) => Order::Switch(Target::Policy(known(name)?), *mode),
        PolicyRequest::SetOverride(policy, pattern, OverrideOrder { rule, for_ms, reason }) => {
            let order = OverrideOrder { rule: rule.clone(), for_ms: *for_ms, reason: reason.clone() };
            Order::Override(known(policy)?, pattern.to_vec(), order)
        }
        PolicyRequest::DeleteOverride(policy, pattern) => Order::DeleteOverride(known(policy)?, pattern.to_vec()),
        PolicyRequest::List
        | PolicyRequest::Get(_)
        | PolicyRequest::Load
        | PolicyRequest::GetOverride(..)
        | PolicyRequest::ListOverrides { .. } => return Ok(None),
    }))
}

fn no_such(name: &[u8]) -> String {
    format!("ERR no such policy '{}'", quoted(name))
}

fn give(caller: &Caller, order: Order, ticket: u64) -> Carried {
    let by = Operator { user: caller.client.user().into_owned(), peer: caller.client.peer.clone() };
    let Some(outcome) = caller.worker.shared.keeper.order(order, by) else { return failed(TOO_MANY_ORDERS) };
    let mailbox = caller.mailbox.clone();
    tokio::task::spawn_local(async move {
        let answer = match outcome.await {
            Ok(Outcome::Done) => Answer::Done,
            Ok(Outcome::Removed(any)) => Answer::Removed(any),
            Ok(Outcome::Refused(why)) => Answer::Failed(why.into()),
            Err(_) => Answer::Failed(STOPPED.into()),
        };
        mailbox.deliver(ticket, answer);
    });
    Carried::Later
}

/// Has the file read again, by a thread that may wait for it.
fn load(caller: &Caller, ticket: u64) -> Carried {
    let (file, mailbox) = (caller.worker.shared.policy_file.clone(), caller.mailbox.clone());
    tokio::task::spawn_local(async move {
        let outcome = tokio::task::spawn_blocking(move || file.load()).await;
        let answer = match outcome {
            Ok(Ok(())) => Answer::Done,
            Ok(Err(text)) => Answer::Failed(Rc::from(format!("ERR {text}"))),
            Err(_) => Answer::Failed(STOPPED.into()),
        };
        mailbox.deliver(ticket, answer);
    });
    Carried::Later
}

/// Writes what is asked for.
fn tell(caller: &mut Caller, request: &PolicyRequest<'_>) -> Result<(), String> {
    let policies = caller.worker.shared.policies.get();
    let kept = if caller.worker.shared.backend.is_embedded() { IN_MEMORY } else { IN_REDIS };
    let protocol = caller.client.protocol;
    let out = caller.replies.tail();
    let policy_of = |name: &[u8]| policies.get(name).ok_or_else(|| no_such(name));
    match request {
        PolicyRequest::List => {
            reply::array(out, policies.len());
            policies.iter().for_each(|policy| write_policy(out, &policies, policy, kept, false, protocol));
        }
        PolicyRequest::Get(name) => write_policy(out, &policies, policy_of(name)?, kept, true, protocol),
        PolicyRequest::GetOverride(name, pattern) => {
            let policy = policy_of(name)?;
            let live = policy.live().overrides.get(pattern).filter(|found| !Until::is_past(found.until, now_us()));
            match live.map(|found| (found, kept)).or(policy.file().overrides.get(pattern).map(|found| (found, IN_FILE)))
            {
                Some((found, source)) => write_override(out, pattern, found, source, protocol),
                None => reply::null(out, protocol),
            }
        }
        PolicyRequest::ListOverrides { policy, matching, count } => {
            let policy = policy_of(policy)?;
            let found = overrides(policy, *matching, kept);
            reply::array(out, found.len().min(*count));
            for (pattern, (found, source)) in found.iter().take(*count) {
                write_override(out, pattern, found, source, protocol);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The overrides of a policy that match, by pattern, each with who says it: of two of a pattern the one that holds.
fn overrides<'a>(
    policy: &'a Policy,
    matching: Option<&[u8]>,
    kept: &'static str,
) -> BTreeMap<Vec<u8>, (&'a Override, &'static str)> {
    let is_asked = |pattern: &[u8]| matching.is_none_or(|matching| glob::matches(matching, pattern));
    let now_us = now_us();
    let live = policy.live().overrides.iter().filter(|(_, found)| !Until::is_past(found.until, now_us));
    let of = |source| move |(pattern, found)| (pattern, (found, source));
    let file = policy.file().overrides.iter().map(of(IN_FILE));
    file.chain(live.map(of(kept))).filter(|(pattern, _)| is_asked(pattern)).collect()
}

fn write_override(out: &mut BytesMut, pattern: &[u8], found: &Override, source: &str, protocol: Protocol) {
    reply::map(out, 5, protocol);
    field(out, "key", pattern);
    field(out, "rule", found.rule.to_string().as_bytes());
    integer(out, "until_ms", until_ms(found.until));
    field(out, "reason", found.reason.as_bytes());
    field(out, "source", source.as_bytes());
}

fn write_policy(out: &mut BytesMut, policies: &Policies, policy: &Policy, kept: &str, whole: bool, protocol: Protocol) {
    let Some(definition) = policy.definition() else { return };
    let now_us = now_us();
    let switch: Option<Switch> = policies.switch(now_us).or(policy.switch(now_us));
    reply::map(out, if whole { 10 } else { 8 }, protocol);
    field(out, "name", policy.name().as_str().as_bytes());
    field(out, "limits", definition.quotas.to_string().as_bytes());
    field(out, "mode", policies.mode_of(policy, now_us).as_str().as_bytes());
    field(out, "own_mode", definition.mode.as_str().as_bytes());
    integer(out, "until_ms", until_ms(switch.and_then(|switch| switch.until)));
    let fallback = definition.fallback.map(|fallback| fallback.to_string()).unwrap_or_default();
    field(out, "fallback", fallback.as_bytes());
    integer(out, "overrides", count(policy.file().overrides.len() + policy.live().overrides.len()));
    field(out, "source", if policy.live().definition.is_some() { kept } else { IN_FILE }.as_bytes());
    if whole {
        let limits = definition.quotas.as_slice();
        let seconds = |limit: &Limit| limit.window.ms().div_ceil(1000);
        reply::bulk(out, b"quotas");
        reply::array(out, limits.len());
        for limit in limits {
            reply::array(out, 2);
            reply::integer(out, i64::from(limit.max));
            reply::integer(out, i64::try_from(seconds(limit)).unwrap_or(i64::MAX));
        }
        let items: Vec<_> = limits
            .iter()
            .enumerate()
            .map(|(at, limit)| policy_item(policy.name().as_str(), at.saturating_add(1), limit))
            .collect();
        field(out, "policy_header", items.join(", ").as_bytes());
    }
}

/// An item of the header RateLimit-Policy. Each is called otherwise, as the header RateLimit tells them apart by that; and its
/// window is whole seconds, or not said.
fn policy_item(policy: &str, place: usize, limit: &Limit) -> String {
    let window_ms = limit.window.ms();
    let window = if window_ms.is_multiple_of(1000) { format!(";w={}", window_ms / 1000) } else { String::new() };
    format!("\"{policy}-{place}\";q={}{window}", limit.max)
}

/// Unix time in milliseconds; -1 if it never ends.
fn until_ms(until: Option<Until>) -> i64 {
    until.map_or(-1, |until| i64::try_from(until.unix_ms).unwrap_or(i64::MAX))
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    reply::bulk(out, name.as_bytes());
    reply::bulk(out, value);
}

fn integer(out: &mut BytesMut, name: &str, value: i64) {
    reply::bulk(out, name.as_bytes());
    reply::integer(out, value);
}
