//! What the scripts say, and what it costs Redis, whatever the logs hold: thousands of entries that have expired, entries of
//! all weights, times that are still to come, and what somebody else has written there.

use crate::common::{RedisServer, Scripts};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use tollgate::limit::{Ask, Limit, RetryAfter, Verb, Verdict, Window};
use tollgate::store::embedded::Embedded;

const LIMIT: u32 = 100_000;
const WINDOW_MS: u64 = 4_000;
/// Items that fit into one batch.
const BATCH: usize = 64;

fn limits_of(max: u32) -> [Limit; 1] {
    [Limit::log(max, Window::from_ms(WINDOW_MS).unwrap())]
}

fn check(limits: &[Limit], cost: u32) -> Ask<'_> {
    Ask { key: b"k", limits, cost }
}

/// Makes so many entries of the key `k` at this time, of weights that take turns.
fn fill(scripts: &mut Scripts, embedded: &Embedded, count: usize, weights: &[u32], now_us: u64) {
    let limits = limits_of(LIMIT);
    let costs: Vec<u32> = weights.iter().copied().cycle().take(count).collect();
    scripts.set_time(now_us);
    for costs in costs.chunks(BATCH) {
        // Those that are alike would be joined.
        let checks: Vec<_> = costs.iter().map(|cost| check(&limits, *cost)).collect();
        for (check, by_redis) in checks.iter().zip(scripts.decide(Verb::Check, &checks)) {
            let by_model = embedded.check(check, now_us).unwrap();
            assert_eq!(by_redis, by_model, "while the log is filled");
        }
    }
}

/// After 600 checks had expired, as many as the limit, a request was denied again and again by a log that was said to be
/// empty at once.
#[test]
fn what_has_expired_does_not_count_before_it_is_forgotten() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let start_us = Scripts::start_us();
    for weights in [&[1][..], &[2, 1]] {
        scripts.control.line("FLUSHALL");
        let embedded = Embedded::new(10, 100_000);
        for batch in 0..50 {
            fill(&mut scripts, &embedded, 63, weights, start_us + batch);
        }
        let now_us = start_us + WINDOW_MS * 1000 + 49;
        scripts.set_time(now_us);
        for (kind, cost) in [(Verb::Peek, 1), (Verb::Peek, 3150), (Verb::Check, 3150)] {
            let limits = limits_of(3150);
            let by_redis = scripts.decide_one(kind, &check(&limits, cost));
            assert_eq!(by_redis, embedded.peek(&check(&limits, cost), now_us));
            assert!(by_redis.allowed && by_redis.remaining == 3150 - cost);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// So many entries, of weights that take turns.
    Fill(usize, Vec<u32>),
    /// A limit less than what the log holds, more or less, and a cost.
    Ask(Verb, u32, u32),
    Pass(u64),
}

/// Each of them reads two entries, and was taken to have read a hundred: from the fourth on they were told to try again when
/// the older of the two expires.
#[test]
fn many_weighty_denials_of_a_batch_are_told_for_how_long() {
    const APART_US: u64 = 1_000_000;
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let (start_us, limits) = (Scripts::start_us(), limits_of(1_000));
    let keys: Vec<String> = (0..21).map(|number| format!("k{number}")).collect();
    let asks =
        |cost| -> Vec<Ask<'_>> { keys.iter().map(|key| Ask { key: key.as_bytes(), limits: &limits, cost }).collect() };
    for time_us in [start_us, start_us + APART_US] {
        scripts.set_time(time_us);
        assert!(scripts.decide(Verb::Check, &asks(500)).iter().all(|verdict| verdict.allowed));
    }
    // Which takes more than the older one.
    for verdict in scripts.decide(Verb::Check, &asks(600)) {
        assert_eq!((verdict.allowed, verdict.retry_after), (false, RetryAfter::Ms(WINDOW_MS)));
    }
}

/// Checks and peeks of a log that holds thousands of entries say what the embedded log says. What they may read at once is
/// bounded: if that does not suffice, only `retry_after_ms` is less.
#[test]
fn a_log_of_thousands_of_entries_is_answered_as_the_embedded_one_is() {
    let redis = RedisServer::start();
    let scripts = RefCell::new(Scripts::on(&redis));
    let start_us = Scripts::start_us();
    let weights = prop_oneof![Just(vec![1]), Just(vec![1, 2]), Just(vec![3, 1, 1, 7]), Just(vec![5, 6])];
    let ask = (prop_oneof![Just(Verb::Check), Just(Verb::Peek)], 1..6_000u32, prop_oneof![1..10u32, 1..3_000u32]);
    let step = prop_oneof![
        4 => (prop_oneof![0..20usize, 0..250usize], weights).prop_map(|(count, weights)| Step::Fill(count, weights)),
        4 => ask.prop_map(|(kind, limit, cost)| Step::Ask(kind, limit, cost.min(limit))),
        3 => prop_oneof![Just(1), 0..WINDOW_MS * 500, Just(WINDOW_MS * 1000 - 1), Just(WINDOW_MS * 1000)].prop_map(Step::Pass),
    ];
    let steps = proptest::collection::vec(step, 1..25);
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps, |steps| {
        let mut scripts = scripts.borrow_mut();
        scripts.control.line("FLUSHALL");
        let embedded = Embedded::new(10, 100_000);
        // Times and numbers of the entries that were made and not yet forgotten.
        let (mut now_us, mut entries) = (start_us, Vec::new());
        for step in steps {
            match step {
                Step::Fill(count, weights) => {
                    let held: usize = entries.iter().map(|(_, count)| count).sum();
                    // As many as may be read at once, whichever part of them has expired.
                    if held + count < 250 {
                        now_us += 1;
                        fill(&mut scripts, &embedded, count, &weights, now_us);
                        entries.retain(|(time_us, _)| time_us + WINDOW_MS * 1000 > now_us);
                        entries.push((now_us, count));
                    }
                }
                Step::Ask(kind, limit, cost) => {
                    let limits = limits_of(limit);
                    scripts.set_time(now_us);
                    let by_redis = scripts.decide_one(kind, &check(&limits, cost));
                    let by_model = match kind {
                        Verb::Check => embedded.check(&check(&limits, cost), now_us).unwrap(),
                        Verb::Peek => embedded.peek(&check(&limits, cost), now_us),
                    };
                    prop_assert!(by_redis.retry_after <= by_model.retry_after, "{by_redis:?}, not {by_model:?}");
                    let expired: usize = entries
                        .iter()
                        .filter(|(time_us, _)| time_us + WINDOW_MS * 1000 <= now_us)
                        .map(|(_, count)| count)
                        .sum();
                    if expired == 0 {
                        prop_assert_eq!(by_redis, by_model);
                    }
                    prop_assert_eq!(Verdict { retry_after: by_model.retry_after, ..by_redis }, by_model);
                }
                Step::Pass(us) => now_us += us,
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Where more has expired than may be read at once, and much still counts, less may be said to be left than is, and the
/// next runs know better. Never more.
#[test]
fn what_is_too_much_to_be_read_at_once_is_known_after_some_runs() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let (embedded, start_us) = (Embedded::new(10, 100_000), Scripts::start_us());
    fill(&mut scripts, &embedded, 5_000, &[2, 3], start_us);
    fill(&mut scripts, &embedded, 1_500, &[2, 3], start_us + 1_000_000);
    let now_us = start_us + WINDOW_MS * 1000;
    scripts.set_time(now_us);
    let (limits, cost) = (limits_of(3_760), 10);
    let (mut runs, mut last_remaining) = (0, 0);
    loop {
        let by_model = embedded.peek(&check(&limits, cost), now_us);
        let by_redis = scripts.decide_one(Verb::Check, &check(&limits, cost));
        runs += 1;
        if by_redis.allowed {
            assert_eq!(by_redis, by_model);
            assert_eq!(runs, 20, "each run forgets as many as it may read");
            return;
        }
        assert_eq!(by_redis.retry_after, RetryAfter::Ms(1), "another run knows better: {by_redis:?}");
        assert!((last_remaining..=by_model.remaining).contains(&by_redis.remaining), "{by_redis:?}, {by_model:?}");
        last_remaining = by_redis.remaining;
    }
}
