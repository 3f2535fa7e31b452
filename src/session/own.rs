//! Tollgate's own commands: asks the limiter, and has its answer take the request's place among the replies.

use super::caller::Caller;
use super::policies::{self, Carried};
use super::slots;
use crate::command::{CheckArgs, OwnRequest, PolicyRequest, Request, docs, quoted};
use crate::info;
use crate::limit::{Ask, PolicyName, Verb};
use crate::limiter::mailbox::Answer;
use crate::resp::reply;
use crate::top::{Entry, Which};

/// One client's.
#[derive(Debug, Default)]
pub struct OwnCommands {
    /// The ticket of the last reset, look at a key or change of policies that was not answered at once.
    long: Option<u64>,
    /// Whether that sets an override: more of them need not wait for each other.
    long_sets_override: bool,
}

impl OwnCommands {
    /// Whether a request is to wait for what [`OwnCommands::await_long`] tells of.
    pub fn must_wait(&self, caller: &Caller, request: &OwnRequest<'_>) -> bool {
        let may_follow = || self.long_sets_override && sets_override(request);
        self.await_long(caller) && !may_follow()
    }

    /// Whether a reset, a look at a key or a change of policies is yet to be answered. A long one goes in pieces, between which requests of
    /// other clients are answered, but none that stand behind it here.
    pub fn await_long(&self, caller: &Caller) -> bool {
        self.long.is_some_and(|ticket| caller.replies.slots.await_answer(ticket))
    }

    /// Carries out one; if `muted`, without a reply.
    pub fn run(&mut self, caller: &mut Caller, request: &OwnRequest<'_>, now_us: u64, muted: bool) {
        self.long_sets_override = sets_override(request);
        match &request.parse(&caller.worker.shared.config.limits) {
            Ok(Request::Check(check)) => ask(caller, Verb::Check, check, now_us, muted),
            Ok(Request::Peek(check)) => ask(caller, Verb::Peek, check, now_us, muted),
            Ok(Request::Reset(keys)) => self.reset(caller, keys, now_us, muted),
            Ok(Request::Inspect { key, entries }) => self.inspect(caller, key, entries.unwrap_or(0), now_us, muted),
            Ok(Request::Policy(asked)) => self.policy(caller, asked, muted),
            _ if muted => {}
            Ok(Request::Top { which, policy, count }) => top(caller, *which, *policy, *count, now_us),
            Ok(Request::Stats) => stats(caller),
            Ok(Request::Help) => docs::help(caller.replies.tail()),
            Err(error) => reply::error(caller.replies.tail(), &error.to_string()),
        }
    }

    fn reset(&mut self, caller: &mut Caller, keys: &[&[u8]], now_us: u64, muted: bool) {
        let prefixed: Vec<_> = keys.iter().filter_map(|key| prefixed(caller, key)).collect();
        let prefixed: Vec<&[u8]> = prefixed.iter().map(Vec::as_slice).collect();
        let keys = if prefixed.is_empty() { keys } else { &prefixed };
        let ticket = caller.replies.slots.next_ticket();
        let answer = caller.worker.limiter.reset(keys, now_us, &caller.mailbox, ticket);
        self.place_long(caller, ticket, answer, muted);
    }

    fn inspect(&mut self, caller: &mut Caller, key: &[u8], most_entries: usize, now_us: u64, muted: bool) {
        let prefixed = prefixed(caller, key);
        let key = prefixed.as_deref().unwrap_or(key);
        let ticket = caller.replies.slots.next_ticket();
        let answer = caller.worker.limiter.inspect(key, most_entries, now_us, &caller.mailbox, ticket);
        self.place_long(caller, ticket, answer, muted);
    }

    fn policy(&mut self, caller: &mut Caller, asked: &PolicyRequest<'_>, muted: bool) {
        let ticket = caller.replies.slots.next_ticket();
        match policies::run(caller, asked, ticket, muted) {
            Carried::Told => {}
            Carried::Known(answer) => self.place_long(caller, ticket, Some(answer), muted),
            Carried::Later => self.place_long(caller, ticket, None, muted),
        }
    }

    fn place_long(&mut self, caller: &mut Caller, ticket: u64, answer: Option<Answer>, muted: bool) {
        if answer.is_none() {
            self.long = Some(ticket);
        }
        place(caller, answer, muted);
    }
}

/// Whether a request is an `RL.OVERRIDE SET`.
fn sets_override(request: &OwnRequest<'_>) -> bool {
    request.command.is_named(b"rl.override")
        && request.args.get(1).is_some_and(|subcommand| subcommand.eq_ignore_ascii_case(b"set"))
}

fn ask(caller: &mut Caller, verb: Verb, parsed: &CheckArgs<'_>, now_us: u64, muted: bool) {
    let ticket = caller.replies.slots.next_ticket();
    let prefixed = prefixed(caller, parsed.key);
    let key = prefixed.as_deref().unwrap_or(parsed.key);
    let policies = caller.worker.policies.get();
    let ruling = match parsed.policy {
        None => policies.rule_plain(&parsed.quotas, now_us),
        Some(name) => policies.rule(name, key, now_us),
    };
    drop(policies);
    let (quotas, answer) = match (&ruling, parsed.policy) {
        (Some(ruling), _) => (&ruling.quotas, ruling.answer),
        (None, None) => (&parsed.quotas, None),
        (None, Some(name)) => return refuse_policy(caller, name, muted),
    };
    let ask = Ask { key, limits: quotas.as_slice(), cost: parsed.cost };
    let limiter = &caller.worker.limiter;
    let answer = match answer {
        Some(verdict) => Some(limiter.answer_by_policy(verb, (&ask, parsed.form), verdict, now_us)),
        None => limiter.ask(verb, (&ask, parsed.form), now_us, &caller.mailbox, ticket),
    };
    place(caller, answer, muted);
}

/// Says that there is no policy of the name.
fn refuse_policy(caller: &mut Caller, name: &[u8], muted: bool) {
    if !muted {
        let name = quoted(name);
        reply::error(caller.replies.tail(), &format!("ERR no such policy '{name}'"));
    }
}

/// The keys of most answers, by this policy if only those are asked for: key, policy, count and error of each.
fn top(caller: &mut Caller, which: Which, policy: Option<&[u8]>, count: usize, now_us: u64) {
    let shared = &caller.worker.shared;
    let listed = shared.top.read(shared.stats.iter().map(|stats| &stats.top), which, now_us);
    let out = caller.replies.tail();
    let name_of = |entry: &Entry| entry.policy.map_or("", PolicyName::as_str).as_bytes();
    let is_asked_for = |entry: &&Entry| policy.is_none_or(|policy| name_of(entry) == policy);
    let entries: Vec<_> = listed.entries.iter().filter(is_asked_for).take(count).collect();
    reply::array(out, entries.len());
    for entry in entries {
        reply::array(out, 4);
        reply::bulk(out, &entry.key);
        reply::bulk(out, name_of(entry));
        reply::integer(out, i64::try_from(entry.count).unwrap_or(i64::MAX));
        reply::integer(out, i64::try_from(entry.error).unwrap_or(i64::MAX));
    }
}

/// What INFO tollgate shows: whole numbers as integers, all else as text.
fn stats(caller: &mut Caller) {
    let mut figures = Vec::new();
    info::figures(&caller.worker.shared, &mut |name, value| figures.push((name.to_owned(), value.to_string())));
    let protocol = caller.client.protocol;
    let out = caller.replies.tail();
    reply::map(out, figures.len(), protocol);
    for (name, value) in figures {
        reply::bulk(out, name.as_bytes());
        match value.parse() {
            Ok(number) => reply::integer(out, number),
            Err(_) => reply::bulk(out, value.as_bytes()),
        }
    }
}

/// The key as the client's user has it, if that is another.
fn prefixed(caller: &Caller, key: &[u8]) -> Option<Vec<u8>> {
    let prefix = &caller.client.permissions.as_ref()?.key_prefix;
    (!prefix.is_empty()).then(|| [prefix.as_bytes(), key].concat())
}

fn place(caller: &mut Caller, answer: Option<Answer>, muted: bool) {
    match answer {
        Some(_) if muted => {}
        Some(answer) => slots::write_answer(caller.replies.tail(), &answer, caller.client.protocol),
        None => caller.replies.slots.push_deciding(muted, caller.client.protocol),
    }
}
