//! Tollgate's own commands: asks the limiter, and has its answer take the request's place among the replies.

use super::caller::Caller;
use super::policies::{self, Carried};
use super::slots;
use crate::command::{CheckArgs, OwnRequest, PolicyRequest, Request, ThrottleArgs, docs, quoted};
use crate::info;
use crate::limit::{Ask, PolicyName, Verb};
use crate::limiter::mailbox::Answer;
use crate::policy::{Mode, Switch, Until};
use crate::resp::reply;
use crate::throttle::{Decision, Question};
use crate::top::{Entry, Which};
use std::borrow::Cow;

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
            Ok(Request::Throttle(throttle)) => run_throttle(caller, throttle, now_us, muted),
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

fn run_throttle(caller: &mut Caller, parsed: &ThrottleArgs<'_>, now_us: u64, muted: bool) {
    let ticket = caller.replies.slots.next_ticket();
    let prefixed = prefixed(caller, parsed.key);
    let key = prefixed.as_deref().unwrap_or(parsed.key);
    let cl_prefix = caller.worker.shared.config.dialects.cl_prefix.as_bytes();
    let name = if cl_prefix.is_empty() { Cow::Borrowed(key) } else { Cow::Owned([cl_prefix, key].concat()) };
    let switch = caller.worker.policies.get().switch(now_us);
    let limiter = &caller.worker.limiter;
    let answer = match rule(parsed.question, switch, now_us) {
        Ok(question) => limiter.throttle(&name, question, now_us, &caller.mailbox, ticket),
        Err(decision) => Some(limiter.throttle_by_policy(&name, &parsed.question, decision, now_us)),
    };
    place(caller, answer, muted);
}

/// What is asked under a mode of all limits.
///
/// # Errors
/// What is answered, and nobody is asked.
fn rule(question: Question, switch: Option<Switch>, now_us: u64) -> Result<Question, Decision> {
    let Some(Switch { mode, until }) = switch else { return Ok(question) };
    match mode {
        Mode::Enforce => Ok(question),
        Mode::Shadow => Ok(Question { is_shadow: true, ..question }),
        Mode::Off => Err(question.open()),
        Mode::Block => {
            let seconds_left = |until: Until| until.us.saturating_sub(now_us).div_ceil(1_000_000).cast_signed();
            Err(question.blocked(until.map_or(-1, seconds_left)))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_of_all_limits_is_one_of_throttles_too() {
        let question = Question::new(4, 1, 1, 1).unwrap();
        let until = Some(Until { unix_ms: 0, us: 2_500_000 });
        let ruled = |mode, until| rule(question, Some(Switch { mode, until }), 1_000_000);
        assert_eq!(rule(question, None, 0), Ok(question));
        assert_eq!(ruled(Mode::Enforce, None), Ok(question));
        let tried_out = ruled(Mode::Shadow, None).unwrap();
        assert!(tried_out.decide(5_000_000_000).0.is_shadow && !tried_out.decide(0).0.is_shadow);
        let open = ruled(Mode::Off, None).unwrap_err();
        assert_eq!((open.is_limited, open.limit, open.remaining, open.retry_after_s), (false, 5, 5, -1));
        assert_eq!(ruled(Mode::Block, None).unwrap_err().retry_after_s, -1);
        let blocked = ruled(Mode::Block, until).unwrap_err();
        assert_eq!((blocked.is_limited, blocked.remaining, blocked.retry_after_s), (true, 0, 2));
    }
}
