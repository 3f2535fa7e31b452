//! FULL: what the map says that RL.CHECK and RL.PEEK answer in place of six integers, wherever the answer comes from.
//! That its figures are exact at any time tests/it/model.rs holds.

use crate::common::{
    Builder, Decision, PATIENCE, RawClient, RedisServer, Reply, Tollgate, info, on_each_store, wait_until,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::thread;
use std::time::{Duration, Instant};

const FIELDS: [&str; 11] = [
    "allowed",
    "reason",
    "policy",
    "limit",
    "window_ms",
    "remaining",
    "retry_after_ms",
    "next_ms",
    "reset_after_ms",
    "degraded",
    "limits",
];
const LIMIT_FIELDS: [&str; 6] = ["limit", "window_ms", "remaining", "retry_after_ms", "next_ms", "reset_after_ms"];

/// Names and values, as either protocol has them.
fn map(resp3: bool, pairs: impl IntoIterator<Item = (&'static str, Reply)>) -> Reply {
    let pairs = pairs.into_iter().map(|(name, value)| (Reply::bulk(name), value));
    if resp3 {
        Reply::Map(pairs.collect())
    } else {
        Reply::Array(pairs.flat_map(|(name, value)| [name, value]).collect())
    }
}

/// The figures of a limit, in the order of [`LIMIT_FIELDS`].
fn limit_map(resp3: bool, figures: [i64; 6]) -> Reply {
    map(resp3, LIMIT_FIELDS.into_iter().zip(figures.map(Reply::Integer)))
}

fn numbers(reply: &Reply, names: &[&str]) -> Vec<i64> {
    names.iter().map(|name| reply.field(name).integer()).collect()
}

/// The figures of each limit, in the order of [`LIMIT_FIELDS`].
fn limits(reply: &Reply) -> Vec<Vec<i64>> {
    reply.field("limits").items().iter().map(|limit| numbers(limit, &LIMIT_FIELDS)).collect()
}

/// What the six integers would say. Fails where the first fields are those of no limit, or stand in no order.
#[track_caller]
fn decision(reply: &Reply) -> Decision {
    let names: Vec<_> = match reply {
        Reply::Map(pairs) => pairs.iter().map(|(name, _)| name.text()).collect(),
        flat => flat.items().iter().step_by(2).map(Reply::text).collect(),
    };
    assert_eq!(names, FIELDS);
    let binding = numbers(reply, &LIMIT_FIELDS);
    assert!(limits(reply).contains(&binding), "{reply:?}");
    let integers = ["allowed", "limit", "remaining", "retry_after_ms", "reset_after_ms", "degraded"];
    Reply::Array(integers.map(|name| reply.field(name).clone()).to_vec()).decision()
}

#[test]
fn the_reply_is_a_map_in_either_protocol() {
    on_each_store(|client| {
        for resp3 in [false, true] {
            if resp3 {
                client.line("HELLO 3");
            }
            let expected = |remaining| {
                let (first, second) = ([10, 60_000, remaining, 0, 60_000, 60_000], [50, 1_000, 48, 0, 1_000, 1_000]);
                let head = [
                    ("allowed", Reply::Integer(1)),
                    ("reason", Reply::bulk("ok")),
                    ("policy", Reply::bulk("")),
                    ("limit", Reply::Integer(10)),
                    ("window_ms", Reply::Integer(60_000)),
                    ("remaining", Reply::Integer(remaining)),
                    ("retry_after_ms", Reply::Integer(0)),
                    ("next_ms", Reply::Integer(60_000)),
                    ("reset_after_ms", Reply::Integer(60_000)),
                    ("degraded", Reply::Integer(0)),
                    ("limits", Reply::Array([second, first].map(|figures| limit_map(resp3, figures)).to_vec())),
                ];
                map(resp3, head)
            };
            client.line("RL.RESET k");
            assert_eq!(client.line("RL.PEEK k 50 1s 10 60 FULL COST 2"), expected(8));
            assert_eq!(client.line("rl.check k 50 1s 10 60 cost 2 full"), expected(8));
        }
    });
}

#[test]
fn a_denial_says_of_each_limit_when_it_would_have_room() {
    on_each_store(|client| {
        client.line("RL.CHECK k 5 1h 9 2h 2 1m COST 2");
        for line in ["RL.CHECK k 5 1h 9 2h 2 1m FULL", "RL.PEEK k 5 1h 9 2h 2 1m FULL"] {
            let denied = client.line(line);
            assert_eq!(denied.field("reason").text(), "limit");
            let told = decision(&denied);
            assert_eq!((told.allowed, told.limit, told.remaining), (false, 2, 0));
            let windows_ms = [3_600_000, 7_200_000, 60_000];
            for (figures, window_ms) in limits(&denied).iter().zip(windows_ms) {
                let [_, window, _, retry_after_ms, next_ms, reset_after_ms] = figures[..] else {
                    panic!("{figures:?}")
                };
                assert_eq!(window, window_ms);
                let is_left = |ms: i64| (window_ms - 5_000..=window_ms).contains(&ms);
                assert!(is_left(next_ms) && next_ms == reset_after_ms, "{figures:?}");
                // Only the last denies. It counts for none of them.
                assert!(
                    if window_ms == 60_000 { retry_after_ms == next_ms } else { retry_after_ms == 0 },
                    "{figures:?}"
                );
            }
            let remaining: Vec<_> = limits(&denied).iter().map(|figures| figures[2]).collect();
            assert_eq!(remaining, [3, 7, 0]);
        }
    });
}

/// Nothing is asked to find it out.
#[test]
fn a_cost_that_never_fits_is_told_so_of_each_limit() {
    on_each_store(|client| {
        let denied = client.line("RL.CHECK k 100 1s 5 60 4 1h COST 6 FULL");
        assert_eq!(denied.field("reason").text(), "cost");
        assert_eq!(decision(&denied), Decision::never(5));
        let never = |limit, window_ms, retry| vec![limit, window_ms, 0, retry, 0, 0];
        assert_eq!(limits(&denied), [never(100, 1_000, 0), never(5, 60_000, -1), never(4, 3_600_000, -1)]);
    });
}

#[test]
fn checks_that_are_joined_have_their_own_figures() {
    on_each_store(|client| {
        // Some ask in full and some do not: they are decided in order all the same.
        client.send(b"RL.CHECK k 4 1h FULL\r\nRL.CHECK k 4 1h FULL\r\nRL.CHECK k 4 1h\r\nRL.CHECK k 4 1h FULL\r\n");
        client.send(&b"RL.CHECK k 4 1h FULL\r\n".repeat(2));
        let replies: Vec<_> = (0..6).map(|_| client.read()).collect();
        let remaining = |reply: &Reply| {
            if reply.items().len() == 6 { reply.decision().remaining } else { decision(reply).remaining }
        };
        assert_eq!(replies.iter().map(remaining).collect::<Vec<_>>(), [3, 2, 1, 0, 0, 0]);
        for reply in [&replies[0], &replies[1], &replies[3], &replies[4], &replies[5]] {
            let next_ms = reply.field("next_ms").integer();
            assert!((3_595_000..=3_600_000).contains(&next_ms), "{reply:?}");
        }
        assert!(!decision(&replies[4]).allowed && !decision(&replies[5]).allowed);
        assert_eq!(replies[5].field("retry_after_ms"), replies[5].field("next_ms"));
    });
}

#[test]
fn more_is_free_once_the_time_has_passed_that_it_says() {
    on_each_store(|client| {
        client.line("RL.CHECK k 5 300ms");
        thread::sleep(Duration::from_millis(150));
        let told = client.line("RL.CHECK k 5 300ms FULL");
        let (remaining, next_ms) = (decision(&told).remaining, told.field("next_ms").integer());
        // On a busy machine the first may have expired before the second came.
        assert!(remaining == 4 || next_ms <= 150, "{told:?}");
        thread::sleep(Duration::from_millis(next_ms.unsigned_abs()));
        let then = client.line("RL.PEEK k 5 300ms FULL");
        assert!(decision(&then).remaining >= remaining, "{told:?}, then {then:?}, whose own request it counts");
    });
}

/// A test of what is said, not of when: windows are so long that nothing expires, and no period ends but once in weeks.
#[test]
fn the_first_fields_say_what_six_integers_would() {
    let redis = RedisServer::start();
    let tollgates = [Tollgate::embedded(), Tollgate::before(&redis)];
    let mut clients: Vec<RawClient> =
        tollgates.iter().flat_map(|tollgate| [tollgate.client(), tollgate.client()]).collect();
    clients.iter_mut().step_by(2).for_each(|client| _ = client.line("HELLO 3"));
    let windows = proptest::sample::subsequence(vec!["36d", "52d", "366d"], 1..=3).prop_shuffle();
    let by = proptest::sample::select(vec!["", "BY log", "BY gcra", "BY gcra BURST 1", "BY fixed", "7 year"]);
    let question = (0..3, windows, 1..9, by, 1..3, 0..4);
    let mut runner = TestRunner::new(Config { cases: 20, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0);
    let clients = std::cell::RefCell::new(clients);
    let outcome = runner.run(&proptest::collection::vec(question, 1..30), |questions| {
        case.set(case.get() + 1);
        let mut clients = clients.borrow_mut();
        for (key, windows, limit, by, cost, what) in questions {
            let named: Vec<_> =
                windows.iter().zip(limit..).map(|(window, limit)| format!("{limit} {window}")).collect();
            let arguments = format!("{}:{key} {} {by} COST {cost}", case.get(), named.join(" "));
            let verb = if what == 0 { "RL.PEEK" } else { "RL.CHECK" };
            // The store of each pair's first client is asked; the second says what six integers would say before.
            let mut seen = Vec::new();
            for pair in clients.chunks_exact_mut(2) {
                let before = pair[1].decide(&format!("RL.PEEK {arguments}"));
                let told = decision(&pair[0].line(&format!("{verb} {arguments} FULL")));
                let timeless = |told: Decision| Decision {
                    retry_after_ms: told.retry_after_ms.signum(),
                    reset_after_ms: 0,
                    ..told
                };
                prop_assert_eq!(timeless(told), timeless(before), "{}", arguments);
                prop_assert!((told.reset_after_ms - before.reset_after_ms).abs() < 5_000);
                prop_assert!((told.retry_after_ms - before.retry_after_ms).abs() < 5_000);
                seen.push(timeless(told));
            }
            prop_assert_eq!(seen[0], seen[1]);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn it_is_answered_in_transactions_and_to_inline_commands() {
    on_each_store(|client| {
        client.line("MULTI");
        assert_eq!(client.line("RL.CHECK k 5 60 FULL"), Reply::Status("QUEUED".into()));
        assert_eq!(client.line("RL.CHECK k 5 60"), Reply::Status("QUEUED".into()));
        let replies = client.line("EXEC");
        assert_eq!(decision(&replies.items()[0]), Decision::allowed(5, 4, 60_000));
        assert_eq!(replies.items()[1].decision().remaining, 3);
        client.send(b"RL.PEEK k 5 60 full\r\n");
        assert_eq!(decision(&client.read()).remaining, 2);
        assert_eq!(
            client.line("RL.CHECK k 5 60 FULL FULL").text(),
            "ERR unknown option 'FULL' for 'rl.check': RL.CHECK key limit window [limit window ...]|policy [BY log|gcra [BURST n]|fixed] [PREFETCH n|time] [COST n] [FULL]"
        );
    });
}

/// How often scripts have been run.
fn runs(control: &mut RawClient) -> i64 {
    let stats = control.line("INFO commandstats").text();
    let calls = |name| stats.lines().find_map(|line| line.strip_prefix(name)?.split(',').next()?.parse::<i64>().ok());
    calls("cmdstat_evalsha:calls=").unwrap_or(0) + calls("cmdstat_eval:calls=").unwrap_or(0)
}

/// A middleware asks in full for each request: under attack none that is denied may cost Redis a run.
#[test]
fn a_denial_that_is_known_costs_redis_nothing() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_DENY_CACHE__MAX_MS", "600000").start();
    let (mut client, mut control) = (tollgate.client(), redis.client());
    let by_cache = || info(&tollgate, "answers_by_deny_cache").parse::<i64>().unwrap();
    for line in [
        "k 2 1h 7 2h",
        "costly 5 1h COST 3",
        "bucket 2 2h BY gcra",
        "costlier 5 2h 90 1d BY gcra COST 3",
        "clock 2 366d BY fixed",
        "quota 2 year+02:00 7 2h",
    ] {
        let ask = format!("RL.CHECK {line} FULL");
        // Denials are kept once it is known that resets are heard of.
        wait_until(PATIENCE, || {
            let before = by_cache();
            client.line(&format!("RL.CHECK {line}"));
            by_cache() > before
        });
        // That was a denial without figures: the first that asks for them has Redis asked.
        let first = client.line(&ask);
        let (runs_before, cached_before) = (runs(&mut control), by_cache());
        for _ in 0..100 {
            let told = client.line(&ask);
            assert_eq!(told.field("reason").text(), "limit");
            let (now, before) = (decision(&told), decision(&first));
            assert_eq!((now.allowed, now.limit, now.remaining), (false, before.limit, before.remaining));
            for (figures, before) in limits(&told).iter().zip(limits(&first)) {
                assert_eq!(figures[..3], before[..3]);
                let passed = |at: usize| before[at] - figures[at];
                assert!((3..6).all(|at| (0..10_000).contains(&passed(at))), "{figures:?} after {before:?}");
            }
        }
        assert_eq!(by_cache() - cached_before, 100, "{line}");
        assert_eq!(runs(&mut control), runs_before, "{line}");
        // The plain form is served by what was kept for the full one.
        client.line(&format!("RL.CHECK {line}"));
        assert_eq!(by_cache() - cached_before, 101);
        client.line(&format!("RL.RESET {}", line.split(' ').next().unwrap()));
        assert!(decision(&client.line(&ask)).allowed);
    }
}

/// What is told of a limit that has room changes while the request is denied by another.
#[test]
fn a_denial_is_not_told_from_memory_once_its_figures_have_changed() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_DENY_CACHE__MAX_MS", "600000").start();
    let mut client = tollgate.client();
    let start = Instant::now();
    client.line("RL.CHECK k 1 1h 9 500ms");
    let remaining = |told: &Reply| limits(told)[1][2];
    let mut told = client.line("RL.CHECK k 1 1h 9 500ms FULL");
    while remaining(&told) == 8 {
        assert!(start.elapsed() < PATIENCE && !decision(&told).allowed, "{told:?}");
        told = client.line("RL.CHECK k 1 1h 9 500ms FULL");
    }
    assert!(start.elapsed() >= Duration::from_millis(500));
    assert_eq!(limits(&told)[1], [9, 500, 9, 0, 0, 0]);
}

#[test]
fn the_fallback_tells_what_its_buckets_have() {
    let mut redis = RedisServer::start();
    for (mode, first, second) in [
        ("local", [10, 60_000, 4, 0, 12_000, 12_000], [10, 60_000, 0, 0, 12_000, 60_000]),
        ("open", [10, 60_000, 9, 0, 60_000, 60_000], [10, 60_000, 6, 0, 60_000, 60_000]),
        ("closed", [10, 60_000, 0, 60_000, 60_000, 60_000], [10, 60_000, 0, 60_000, 60_000, 60_000]),
    ] {
        redis.kill();
        let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_FALLBACK__MODE", mode).expect_log("redis");
        let tollgate = builder.start();
        let mut client = tollgate.client();
        assert_eq!(limits(&client.line("RL.PEEK k 10 60 FULL")), [first], "{mode}");
        let told = client.line("RL.CHECK k 10 60 FULL");
        assert_eq!((limits(&told), decision(&told).degraded), (vec![first.to_vec()], true), "{mode}");
        let told = client.line("RL.CHECK k 10 60 COST 4 FULL");
        // A bucket refills meanwhile.
        for (figure, expected) in limits(&told)[0].iter().zip(second) {
            assert!((expected - 5_000..=expected).contains(figure), "{mode}: {told:?}");
        }
        assert!(decision(&told).degraded);
        let never = client.line("RL.CHECK k 10 60 COST 11 FULL");
        assert_eq!(decision(&never), Decision::never(10));
        redis.start_again();
    }
}

const POLICIES: &str = r#"
[policies]
plain = "1 1h 9 2h"
[policies.tried]
limits = "1 1h 9 2h"
mode = "shadow"
[policies.lifted]
limits = "1 1h 9 2h"
mode = "off"
[policies.closed]
limits = "1 1h 9 2h"
mode = "block"
"#;

#[test]
fn of_a_policy_it_tells_the_name_and_what_became_of_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    std::fs::write(&file, POLICIES).unwrap();
    let redis = RedisServer::start();
    let config = |builder: Builder| builder.arg("--config").arg(file.to_str().unwrap()).start();
    for tollgate in [config(Tollgate::builder().redis(&redis)), config(Tollgate::builder().arg("--embedded"))] {
        let mut client = tollgate.client();
        for (policy, first, second) in [
            ("plain", (1, "ok", 0), (0, "limit", 1)),
            ("tried", (1, "ok", 0), (1, "shadow_denied", 1)),
            ("lifted", (1, "off", 0), (1, "off", 0)),
            ("closed", (0, "blocked", -1), (0, "blocked", -1)),
        ] {
            for (allowed, reason, would_wait) in [first, second] {
                let told = client.line(&format!("RL.CHECK k {policy} FULL"));
                let said = (told.field("allowed").integer(), told.field("reason").text(), told.field("policy").text());
                assert_eq!(said, (allowed, reason.to_owned(), policy.to_owned()));
                // As the six integers have it; and what would have been, of each limit.
                let wait = if reason == "shadow_denied" { 0 } else { would_wait };
                assert_eq!(told.field("retry_after_ms").integer().signum(), wait, "{told:?}");
                assert_eq!(limits(&told)[0][3].signum(), would_wait, "{told:?}");
                assert_eq!(numbers(&told, &["window_ms", "degraded"]), [3_600_000, 0]);
                assert_eq!(limits(&told).len(), 2);
            }
            let [told, short] = ["FULL", ""].map(|form| client.line(&format!("RL.PEEK k {policy} {form}")));
            let integers = ["allowed", "limit", "remaining", "degraded"];
            let short: Vec<_> = [0, 1, 2, 5].map(|place| short.items()[place].integer()).to_vec();
            assert_eq!(numbers(&told, &integers), short, "{policy}");
        }
    }
}
