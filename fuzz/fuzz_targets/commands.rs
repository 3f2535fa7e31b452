//! Tollgate's own commands, and what the embedded log answers to them: decisions must keep what the README promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::command::{CheckArgs, OwnCommand, Request};
use tollgate::config;
use tollgate::limit::gcra::MAX_WINDOWS_TO_EMPTY;
use tollgate::limit::{Algorithm, Ask, RetryAfter, Verdict};
use tollgate::resp::request::{Args, Limits, Parser};
use tollgate::store::embedded::Embedded;

fuzz_target!(|data: &[u8]| {
    let (mut parser, embedded) = (Parser::default(), Embedded::new(100, 1_000));
    let (mut rest, mut now_us) = (data, 1_700_000_000_000_000);
    while let Ok(Some(length)) = parser.parse(rest, Limits::of_bulk(1 << 20)) {
        run(&embedded, &parser.args(rest), now_us);
        rest = &rest[length..];
        // Time passes by what the request's length says.
        now_us += (length as u64).pow(3);
    }
});

fn run(embedded: &Embedded, args: &Args<'_>, now_us: u64) {
    let Some(command) = OwnCommand::of(args.name()) else { return };
    match (command.parse)(args, &config::Limits::default()) {
        Ok(Request::Check(asked)) => ask(embedded, true, &asked, now_us),
        Ok(Request::Peek(asked)) => ask(embedded, false, &asked, now_us),
        Ok(Request::Reset(keys)) => keys.into_iter().for_each(|key| _ = embedded.reset(key, now_us)),
        Ok(Request::Inspect { key, entries }) => {
            let standings = embedded.inspect(key, entries.unwrap_or(0), now_us);
            assert!(standings.iter().all(|standing| standing.used >= standing.entries && standing.free_ms() > 0));
        }
        Ok(Request::Top { count, .. }) => assert!((1..=1000).contains(&count)),
        Ok(Request::Throttle(_) | Request::Policy(_) | Request::Stats | Request::Help) => {}
        Err(error) => assert!(is_one_line(&error.to_string())),
    }
}

fn ask(embedded: &Embedded, counts: bool, asked: &CheckArgs<'_>, now_us: u64) {
    if asked.policy.is_some() {
        return;
    }
    let check = &Ask { key: asked.key, limits: asked.quotas.as_slice(), cost: asked.cost };
    if let Some(decision) = check.never_fits() {
        assert!(!decision.allowed && decision.retry_after == RetryAfter::Never);
        return;
    }
    let peeked = embedded.peek(check, now_us);
    is_sound(check, &peeked);
    if counts && let Ok(decision) = embedded.check(check, now_us) {
        assert_eq!(decision, peeked, "a peek says what a check would");
    }
}

fn is_sound(check: &Ask<'_>, decision: &Verdict) {
    assert!(check.limits.iter().any(|limit| limit.capacity() == decision.limit));
    assert!(decision.remaining <= decision.limit);
    assert_eq!(decision.allowed, decision.retry_after == RetryAfter::Now);
    let longest_ms = check.limits.iter().map(|limit| match limit.algorithm {
        Algorithm::Gcra { .. } => limit.window.ms() * MAX_WINDOWS_TO_EMPTY,
        Algorithm::Log | Algorithm::Fixed(_) => limit.window.ms(),
    });
    let longest_ms = longest_ms.max().unwrap_or(0);
    assert!(decision.reset_after_ms <= longest_ms);
}

fn is_one_line(text: &str) -> bool {
    text.starts_with("ERR ") && !text.contains(['\r', '\n'])
}
