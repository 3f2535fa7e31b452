//! A connection that breaks after Redis has decided and before it could say so: what is sent again meets its own entries,
//! and is answered as it was.

use crate::common::{
    self, PATIENCE, Proxy, RawClient, RedisServer, Reply, Scripts, Tollgate, Weather, batch_of, decisions, info,
    wait_until,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tollgate::limit::{Ask, Limit, Verb, Verdict, Window};

const DAY_MS: i64 = 86_400_000;

/// Sends requests whose answers are lost once Redis has them all: when the log holds so many entries.
fn answers_of_lost(requests: &str, log: &str, entries: i64) -> (Vec<common::Decision>, RedisServer) {
    answers_of_lost_once(requests, |redis| redis.command(&format!("ZCARD {log}")).integer() == entries)
}

/// The same once it is seen in Redis that it has.
fn answers_of_lost_once(
    requests: &str,
    are_there: impl Fn(&RedisServer) -> bool,
) -> (Vec<common::Decision>, RedisServer) {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    // One worker: another one might still be on its way to its first connection, which is then lost too.
    let tollgate = Tollgate::builder().arg("--redis").arg(&proxy.addr().to_string()).arg("--workers=1").start();
    let mut client: RawClient = tollgate.client();
    client.decide("RL.CHECK warm 1000 1d");
    proxy.set_weather(Weather::NoReplies);
    client.send(requests.as_bytes());
    wait_until(PATIENCE, || are_there(&redis));
    proxy.cut();
    proxy.set_weather(Weather::Fair);
    let decisions = requests.lines().map(|_| client.read().decision()).collect();
    (decisions, redis)
}

/// The first check ever, of one a day, was denied for a day.
#[test]
fn the_only_check_of_a_day_is_allowed_though_its_answer_was_lost() {
    let (decisions, redis) = answers_of_lost("RL.CHECK k 1 1d\r\n", "rl:{k}:86400000", 1);
    assert!(decisions[0].allowed && !decisions[0].degraded, "{decisions:?}");
    assert_eq!(decisions[0].remaining, 0);
    assert_eq!(redis.entries("rl:{k}:86400000").len(), 1);
}

/// Ten of ten were counted, and none was told so.
#[test]
fn as_many_are_told_to_be_allowed_as_were_counted_before_the_answer_was_lost() {
    let (decisions, redis) = answers_of_lost(&"RL.CHECK k 10 1d 100 366d\r\n".repeat(15), "rl:{k}:86400000", 2);
    let allowed = decisions.iter().filter(|decision| decision.allowed).count();
    assert_eq!(allowed, 10, "{decisions:?}");
    assert!(decisions[..10].iter().all(|decision| decision.allowed), "in the order in which they were asked");
    assert!(decisions[10..].iter().all(|denied| (1..=DAY_MS).contains(&denied.retry_after_ms)), "{decisions:?}");
    let counted: i64 = redis.entries("rl:{k}:86400000").iter().map(|(_, weight)| weight).sum();
    assert_eq!(counted, 10);
}

/// Whatever they are counted by: ten of ten are told so, and count once.
#[test]
fn as_many_are_told_to_be_allowed_by_gcra_and_in_fixed_windows() {
    // And how much is counted, as one more is told of which there is a hundred.
    for (limits, state, all) in [
        ("10 366d BY gcra", "g31622400000", "100 366d BY gcra"),
        ("10 366d BY fixed", "f31622400000", "100 366d BY fixed"),
        ("10 366d 50 year", "fyear", "100 year"),
        ("50 1d 10 366d BY gcra", "g31622400000", "100 366d BY gcra"),
    ] {
        let requests = format!("RL.CHECK k {limits}\r\n").repeat(15);
        let is_there = |redis: &RedisServer| redis.command(&format!("EXISTS rl:{{k}}:{state}")).integer() == 1;
        let (decisions, redis) = answers_of_lost_once(&requests, is_there);
        let allowed: Vec<bool> = decisions.iter().map(|decision| decision.allowed && !decision.degraded).collect();
        assert_eq!(allowed, [[true; 10].as_slice(), &[false; 5]].concat(), "{limits}: {decisions:?}");
        assert!(decisions[10..].iter().all(|denied| (1..=366 * DAY_MS).contains(&denied.retry_after_ms)));
        let tollgate = Tollgate::before(&redis);
        let left = tollgate.client().decide(&format!("RL.PEEK k {all}")).remaining;
        // Of GCRA's time ten of ten are ten intervals, of which a limit that is ten times as high has a hundred.
        let counted = if all.ends_with("gcra") { 100 } else { 10 };
        assert_eq!(left, (99 - counted).max(0), "{limits}");
        if all.ends_with("gcra") {
            let denied = tollgate.client().decide("RL.PEEK k 10 366d BY gcra");
            assert!(denied.retry_after_ms <= 366 * DAY_MS / 10, "{limits}: {denied:?}");
        }
    }
}

/// Of six one was denied for a second. When the answer was lost all limits were taken to deny it that are no logs: until
/// the end of the year.
#[test]
fn what_one_limit_denied_no_other_is_said_to_deny() {
    for limits in ["5 1s 1000 year", "1000 year 5 1s", "5 1d 1000 366d BY gcra"] {
        let requests = format!("RL.CHECK k {limits}\r\n").repeat(6);
        let is_there = |redis: &RedisServer| !redis.keys().iter().all(|key| !key.starts_with(b"rl:{k}"));
        let (decisions, _redis) = answers_of_lost_once(&requests, is_there);
        let (allowed, denied) = (&decisions[..5], decisions[5]);
        assert!(allowed.iter().all(|decision| decision.allowed && !decision.degraded), "{limits}: {decisions:?}");
        // However long all that took, the sixth may be asked for the first time, or be told what it was told.
        let longest_ms = if limits.contains("1d") { DAY_MS / 5 } else { 1_000 };
        assert!(!denied.allowed && denied.limit == 5, "{limits}: {denied:?}");
        assert!((1..=longest_ms).contains(&denied.retry_after_ms), "{limits}: {denied:?}");
    }
}

/// Requests of several keys, costs and algorithms that go out together, some of them denied.
#[test]
fn each_request_of_a_batch_is_answered_as_it_was_by_each_algorithm() {
    let requests = "RL.CHECK a 10 366d BY gcra COST 7\r\nRL.CHECK a 10 366d BY gcra COST 7\r\nRL.CHECK b 2 366d BY fixed\r\n\
                    RL.CHECK b 2 366d BY fixed\r\nRL.CHECK b 2 366d BY fixed\r\nRL.CHECK c 5 1m 3 year COST 3\r\n\
                    RL.CHECK k 1 1d\r\n";
    let (decisions, _redis) = answers_of_lost(requests, "rl:{k}:86400000", 1);
    let allowed: Vec<bool> = decisions.iter().map(|decision| decision.allowed && !decision.degraded).collect();
    assert_eq!(allowed, [true, false, true, true, false, true, true]);
    let remaining: Vec<i64> = decisions.iter().map(|decision| decision.remaining).collect();
    assert_eq!(remaining, [3, 3, 1, 0, 0, 0, 0]);
}

/// What a batch is told that ran before is what it was told then, and is not what others are told now: what a fixed window
/// had denied in one period was denied until the end of the next.
#[test]
fn a_denial_of_a_batch_that_ran_before_is_not_kept() {
    const LIMITS: [&str; 3] = ["5 1s", "3 1s BY gcra BURST 4", "5 1s BY fixed"];
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let builder = Tollgate::builder().arg("--redis").arg(&proxy.addr().to_string()).arg("--workers=1");
    let tollgate = builder.env("TOLLGATE_DENY_CACHE__MAX_MS", "600000").start();
    // That hears all answers.
    let other = Tollgate::before(&redis);
    let (mut client, mut witness, mut control) = (tollgate.client(), other.client(), redis.client());
    let mut is_kept = || keeps_a_denial(&tollgate);
    for attempt in 0.. {
        assert!(attempt < 20, "denials are never kept for long");
        wait_until(PATIENCE, &mut is_kept);
        let lines = |verb: &str, more: &str| -> Vec<String> {
            let line = |(place, limits)| format!("{verb} k{attempt}.{place} {limits} {more}\r\n");
            LIMITS.iter().enumerate().map(line).collect()
        };
        let mut time_us = || control.line("TIME").items().iter().map(Reply::text).collect::<Vec<_>>();
        // At the beginning of a period.
        wait_until(PATIENCE, || time_us()[1].parse::<u64>().unwrap() < 100_000);
        client.send(lines("RL.CHECK", "COST 3").concat().as_bytes());
        LIMITS.iter().for_each(|limits| assert!(client.read().decision().allowed, "{limits}"));
        thread::sleep(Duration::from_millis(500));
        let runs_before = runs(&mut control);
        proxy.set_weather(Weather::NoReplies);
        client.send(lines("RL.CHECK", "").iter().map(|line| line.repeat(3)).collect::<String>().as_bytes());
        wait_until(PATIENCE, || runs(&mut control) > runs_before);
        // Until there is room again under each of them.
        for line in lines("RL.PEEK", "COST 2") {
            wait_until(PATIENCE, || witness.decide(line.trim_end()).allowed);
        }
        // The way on which resets are heard of stays, or no denial were kept.
        let list = control.line("CLIENT LIST").text();
        let asks = |line: &&str| line.contains(" cmd=evalsha ") && line.contains(" sub=0 ");
        let addr_of = |line: &str| line.split(" addr=").nth(1)?.split(' ').next()?.parse().ok();
        let ways = list.lines().filter(asks).filter_map(addr_of).filter(|addr| proxy.has(*addr));
        ways.for_each(|addr| proxy.cut_one(addr));
        proxy.set_weather(Weather::Fair);
        let allowed = LIMITS.map(|_| [(); 3].map(|()| client.read().decision().allowed));
        for line in lines("RL.CHECK", "") {
            let decision = client.decide(line.trim_end());
            assert!(decision.allowed && !decision.degraded, "{line}: {decision:?}");
        }
        // Where this machine slept for long there were no such denials, or all have been forgotten.
        if allowed == [[true, true, false]; 3] && is_kept() {
            return;
        }
        eprintln!("once more, after {allowed:?}");
    }
}

/// Whether denials are kept, as they are once it hears of resets.
fn keeps_a_denial(tollgate: &Tollgate) -> bool {
    let by_cache = || info(tollgate, "answers_by_deny_cache").parse::<u64>().unwrap();
    let before = by_cache();
    tollgate.client().line("RL.CHECK warm 1 366d");
    by_cache() > before
}

/// How often scripts ran.
fn runs(control: &mut RawClient) -> u64 {
    let stats = control.line("INFO commandstats").text();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// What Redis has granted by the first run is dated by the first run: used from the second on for as long as it lives, it
/// would be used after its entry's date.
#[test]
fn a_share_whose_answer_was_lost_is_over_when_its_entry_says() {
    const CHECK: &str = "RL.CHECK k 1000 1h PREFETCH 1s";
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    // Nothing gives the connection up but that it breaks.
    let builder = Tollgate::builder().env("TOLLGATE_REDIS__TIMEOUT_MS", "30000").arg("--workers=1");
    let builder = builder.env("TOLLGATE_REDIS__CONNECT_TIMEOUT_MS", "30000");
    let tollgate = builder.arg("--redis").arg(&proxy.addr().to_string()).start();
    let mut client: RawClient = tollgate.client();
    client.decide("RL.CHECK other 1000 1h");
    wait_until(PATIENCE, || keeps_a_denial(&tollgate));
    proxy.set_weather(Weather::NoReplies);
    client.send(format!("{CHECK}\r\n").repeat(4).as_bytes());
    let now_us = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let share = || redis.entries("rl:{k}:3600000").into_iter().find(|(time_us, _)| *time_us > now_us());
    wait_until(PATIENCE, || share().is_some());
    let (date_us, granted) = share().unwrap();
    assert_eq!(granted, 4);
    wait_until(PATIENCE, || now_us() > date_us);
    // Of this connection alone: who does not hear of resets uses no shares.
    proxy.cut_one(redis.first_peer_that_runs_scripts());
    proxy.set_weather(Weather::Fair);
    assert!((0..4).all(|_| client.read().decision().allowed));
    assert!(client.decide(CHECK).allowed);
    assert_eq!(info(&tollgate, "answers_by_share"), "0");
}

/// Requests of several keys and costs that go out together, some of them denied.
#[test]
fn each_request_of_a_batch_is_answered_as_it_was() {
    let requests = "RL.CHECK a 10 1d COST 7\r\nRL.CHECK a 10 1d COST 7\r\nRL.CHECK b 2 1h\r\nRL.CHECK b 2 1h\r\n\
                    RL.CHECK b 2 1h\r\nRL.CHECK c 5 1m 3 1h COST 3\r\nRL.CHECK k 1 1d\r\n";
    let (decisions, _redis) = answers_of_lost(requests, "rl:{k}:86400000", 1);
    let allowed: Vec<bool> = decisions.iter().map(|decision| decision.allowed).collect();
    assert_eq!(allowed, [true, false, true, true, false, true, true]);
    let remaining: Vec<i64> = decisions.iter().map(|decision| decision.remaining).collect();
    assert_eq!(remaining, [3, 3, 1, 0, 0, 0, 0]);
}

/// Whatever happens between the two runs of a batch: time passes, others are counted.
#[test]
fn a_batch_that_runs_twice_admits_what_it_admitted_and_counts_it_once() {
    const HISTORY: Limit = Limit::log(1_000_000, Window::from_ms(3_600_000).unwrap());
    let redis = RedisServer::start();
    let scripts = RefCell::new(Scripts::on(&redis));
    let start_us = Scripts::start_us();
    let limits: Vec<[Limit; 3]> = (4..12)
        .map(|limit| {
            let [short, long] = [100, 400].map(|ms| Window::from_ms(ms).unwrap());
            [Limit::log(limit, short), Limit::log(3 * limit, long), HISTORY]
        })
        .collect();
    // Of one of two keys, under some limits, of a cost, so often.
    let request = (0..2usize, 0..limits.len(), prop_oneof![3 => Just(1u32), 1 => 2..4u32], 1..8usize);
    let requests = |most| proptest::collection::vec(request.clone(), 0..most);
    let story = (requests(6), requests(6), requests(3), 0..300_000u64, 0..600_000u64);
    let checks_of = |requests: &[(usize, usize, u32, usize)]| -> Vec<Ask<'_>> {
        let check = |key: usize, place: usize, cost| Ask { key: [&b"a"[..], b"b"][key], limits: &limits[place], cost };
        requests.iter().flat_map(|(key, limits, cost, count)| vec![check(*key, *limits, *cost); *count]).collect()
    };
    let cost_of = |checks: &[Ask<'_>], decisions: &[Verdict]| -> i64 {
        let admitted = checks.iter().zip(decisions).filter(|(_, decision)| decision.allowed);
        admitted.map(|(check, _)| i64::from(check.cost)).sum()
    };
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&story, |(before, batch, between, first_us, then_us)| {
        let mut scripts = scripts.borrow_mut();
        scripts.control.line("FLUSHALL");
        scripts.set_time(start_us);
        let checks = checks_of(&before);
        let mut counted = cost_of(&checks, &scripts.decide(Verb::Check, &checks));
        scripts.set_time(start_us + first_us);
        let checks = checks_of(&batch);
        let (asked, items) = batch_of(&checks);
        let id = scripts.store.next_batch_id();
        let answers = scripts.answers(&asked, &id, false);
        let first = decisions(Verb::Check, &checks, &asked, &items, &answers);
        let others = checks_of(&between);
        counted += cost_of(&others, &scripts.decide(Verb::Check, &others));
        scripts.set_time(start_us + first_us + then_us);
        let answers = scripts.answers(&asked, &id, true);
        let second = decisions(Verb::Check, &checks, &asked, &items, &answers);
        for item in 0..asked.items().len() {
            let of_item = |decisions: &[Verdict]| -> Vec<bool> {
                let of_item = decisions.iter().zip(&items).filter(|(_, of)| **of == item);
                of_item.map(|(decision, _)| decision.allowed).collect()
            };
            let (was, is) = (of_item(&first), of_item(&second));
            // What was denied is decided anew.
            prop_assert!(was == is || !was.contains(&true), "item {item} of {batch:?}: {was:?}, then {is:?}");
        }
        counted += cost_of(&checks, &second);
        let logged: i64 = ["m:{a}:3600000", "m:{b}:3600000"]
            .iter()
            .flat_map(|log| redis.entries(log))
            .map(|(_, weight)| weight)
            .sum();
        prop_assert_eq!(logged, counted);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
