//! Shares: what is admitted without asking Redis is never more than Redis has granted, and what is not used is given back.

use crate::common::load::StopOnDrop;
use crate::common::{
    Cluster, PATIENCE, Proxy, RawClient, RedisServer, Scripts, Tollgate, Weather, info, key_in, wait_until,
};
use crate::exactness::{Admission, assert_nearly_all, assert_within_limit, hammer};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tollgate::limit::{Ask, Limit, Verb, Window, decide};
use tollgate::store::batch::Batch;
use tollgate::store::connection::Reply;
use tollgate::store::redis::{LimitReport, Rest, share_id};

const HOUR_LOG: &str = "rl:{k}:3600000";

fn number(tollgate: &Tollgate, name: &str) -> i64 {
    info(tollgate, name).parse().unwrap()
}

fn counted(redis: &RedisServer, log: &str) -> i64 {
    redis.entries(log).iter().map(|(_, weight)| weight).sum()
}

fn addrs<const N: usize>(tollgates: &[Tollgate; N]) -> [SocketAddr; N] {
    tollgates.each_ref().map(Tollgate::addr)
}

fn cost_of(admitted: &[Admission]) -> i64 {
    admitted.iter().map(|admission| admission.cost).sum()
}

/// Has a share of the key be held by a worker: the same request, sent so often at a time that it is worth one.
fn hold_share(client: &mut RawClient, request: &str, tollgate: &Tollgate) {
    let before = number(tollgate, "answers_by_share");
    wait_until(PATIENCE, || {
        client.send(format!("{request}\r\n").repeat(50).as_bytes());
        (0..50).for_each(|_| drop(client.read()));
        number(tollgate, "answers_by_share") > before
    });
}

/// Many clients of three Tollgates, whose every worker has shares of its own.
#[test]
fn no_window_holds_more_than_its_limit_and_nearly_all_of_it() {
    const WINDOW: Duration = Duration::from_millis(400);
    const DURATION: Duration = Duration::from_millis(1900);
    let redis = RedisServer::start();
    let tollgates = [(); 3].map(|()| Tollgate::builder().redis(&redis).arg("--workers=1").start());
    let admitted = hammer(&addrs(&tollgates), &[("RL.CHECK k 400 400ms PREFETCH 20ms", 1)], DURATION);
    assert_within_limit(&admitted, 400, 1, WINDOW);
    // What a share admits counts for up to 20 ms longer than it would; so a little less than all.
    assert_nearly_all(&admitted, 400 * 94 / 100, WINDOW, DURATION);
    assert!(tollgates.iter().all(|tollgate| number(tollgate, "answers_by_share") > 0));
}

/// Costs, and several windows: the long one is the whole history.
#[test]
fn what_was_admitted_is_what_redis_counts_in_the_end() {
    let redis = RedisServer::start();
    let tollgates = [(); 2].map(|()| Tollgate::before(&redis));
    let requests = [
        ("RL.CHECK k 900 300ms 1000000 1h PREFETCH 10ms", 1),
        ("RL.CHECK k 900 300ms 1000000 1h PREFETCH 10ms COST 3", 3),
        ("RL.CHECK k 900 300ms 1000000 1h PREFETCH 40", 1),
        ("RL.CHECK k 900 300ms 1000000 1h", 1),
    ];
    let admitted = hammer(&addrs(&tollgates), &requests, Duration::from_millis(1500));
    assert!(tollgates.iter().all(|tollgate| number(tollgate, "share_units_given_back") > 0));
    wait_until(PATIENCE, || counted(&redis, HOUR_LOG) == cost_of(&admitted));
    // What was given back can be admitted anew.
    wait_until(PATIENCE, || tollgates[0].client().decide("RL.PEEK k 900 300ms").remaining == 899);
}

#[test]
fn a_share_tells_what_is_left_as_redis_would() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).arg("--workers=1").start();
    let mut client = tollgate.client();
    let request = "RL.CHECK k 100000 1h PREFETCH 1000ms";
    for admitted in 1..=2000 {
        let decision = client.decide(request);
        assert_eq!((decision.limit, decision.degraded), (100_000, false));
        assert!(decision.allowed && decision.remaining <= 100_000 - admitted, "{decision:?} after {admitted}");
        if admitted % 100 == 0 {
            let peeked = client.decide("RL.PEEK k 100000 1h PREFETCH 1000ms");
            assert_eq!(peeked.remaining, decision.remaining - 1, "a peek tells what would be, and takes nothing");
        }
        assert!((3_598_000..=3_601_000).contains(&decision.reset_after_ms), "{decision:?}");
    }
    assert!(number(&tollgate, "answers_by_share") > 1000);
    wait_until(PATIENCE, || client.decide("RL.PEEK k 100000 1h").remaining == 100_000 - 2001);
    // In full is told what Redis says.
    let told = client.line("RL.CHECK k 100000 1h PREFETCH 1000ms FULL");
    assert_eq!(told.field("remaining").integer(), 100_000 - 2001);
}

/// With so little free that a quarter of it is not worth a share, each check is asked for.
#[test]
fn of_little_no_share_is_asked_for() {
    let redis = RedisServer::start();
    let tollgates = [(); 2].map(|()| Tollgate::before(&redis));
    let admitted = hammer(&addrs(&tollgates), &[("RL.CHECK k 15 1h PREFETCH 20ms", 1)], Duration::from_millis(300));
    assert_eq!(admitted.len(), 15);
    assert!(tollgates.iter().all(|tollgate| number(tollgate, "shares_granted") == 0));
}

/// To the last one: shares become smaller the less is free, and what is given back is admitted.
#[test]
fn all_of_a_limit_is_admitted_in_the_end() {
    let redis = RedisServer::start();
    let tollgates = [(); 3].map(|()| Tollgate::before(&redis));
    let addrs = addrs(&tollgates);
    let request = [("RL.CHECK k 3000 1h PREFETCH 20ms", 1)];
    let (mut admitted, started) = (0, Instant::now());
    while admitted < 3000 && started.elapsed() < PATIENCE {
        admitted += hammer(&addrs, &request, Duration::from_millis(200)).len();
    }
    assert_eq!(admitted, 3000);
    assert!(!tollgates[0].client().decide("RL.CHECK k 3000 1h").allowed);
    assert!(tollgates.iter().all(|tollgate| number(tollgate, "answers_by_share") > 0));
}

#[test]
fn a_reset_ends_shares_everywhere() {
    let redis = RedisServer::start();
    let tollgates = [(); 2].map(|()| Tollgate::builder().redis(&redis).arg("--workers=1").start());
    let mut clients = tollgates.each_ref().map(Tollgate::client);
    let request = "RL.CHECK k 1000000 1h PREFETCH 1000ms";
    for (client, tollgate) in clients.iter_mut().zip(&tollgates) {
        hold_share(client, request, tollgate);
    }
    let [resetting, other] = &mut clients;
    assert_eq!(resetting.line("RL.RESET k").integer(), 1);
    let by_share = number(&tollgates[0], "answers_by_share");
    assert_eq!(resetting.decide(request).remaining, 999_999, "it has no share of before");
    assert_eq!(number(&tollgates[0], "answers_by_share"), by_share);
    // The other hears of it. Nothing is counted that it would have given back.
    wait_until(PATIENCE, || other.decide("RL.PEEK k 1000000 1h PREFETCH 1000ms").remaining >= 999_998);
    assert!(counted(&redis, HOUR_LOG) <= 2);
}

/// Of a Tollgate that is told to stop nothing stays counted that was not admitted.
#[test]
fn a_tollgate_that_stops_gives_back_what_it_holds() {
    let redis = RedisServer::start();
    let mut tollgate = Tollgate::builder().redis(&redis).arg("--workers=1").start();
    let mut client = tollgate.client();
    let mut admitted = 0;
    wait_until(PATIENCE, || {
        client.send("RL.CHECK k 1000000 1h PREFETCH 1000ms\r\n".repeat(51).as_bytes());
        admitted += (0..51).filter(|_| client.read().decision().allowed).count() as i64;
        counted(&redis, HOUR_LOG) > admitted
    });
    tollgate.signal("-TERM");
    assert!(tollgate.wait_for_exit().success());
    assert_eq!(counted(&redis, HOUR_LOG), admitted);
}

/// Of a Tollgate that is killed, what its shares had left stays counted, and nothing else is lost.
#[test]
fn a_killed_tollgate_takes_no_more_with_it_than_its_shares() {
    const LIMIT: usize = 4000;
    let redis = RedisServer::start();
    let mut tollgates: Vec<_> = (0..3).map(|_| Tollgate::before(&redis)).collect();
    let addrs: Vec<_> = tollgates.iter().map(Tollgate::addr).collect();
    let request = "RL.CHECK k 4000 500ms 1000000 1h PREFETCH 50ms";
    let admitted = while_hammered(&addrs, request, |admitted| {
        let killed = &mut tollgates[2];
        wait_until(PATIENCE, || number(killed, "answers_by_share") > 500);
        killed.signal("-KILL");
        killed.wait_for_exit();
        let so_far = admitted.lock().unwrap().len();
        wait_until(PATIENCE, || admitted.lock().unwrap().len() > so_far + 2 * LIMIT);
    });
    assert_within_limit(&admitted, LIMIT, 1, Duration::from_millis(500));
    // A quarter of what is free is the most that any of its two workers had, twice.
    let most_lost = i64::try_from(LIMIT).unwrap();
    wait_until(PATIENCE, || counted(&redis, HOUR_LOG) <= cost_of(&admitted) + most_lost);
    assert!(counted(&redis, HOUR_LOG) >= cost_of(&admitted));
}

/// Asks from many connections at once until `act` is done. What was admitted by exact answers.
fn while_hammered(addrs: &[SocketAddr], request: &str, act: impl FnOnce(&Mutex<Vec<Admission>>)) -> Vec<Admission> {
    let (stopped, admitted) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let _stop_on_panic = StopOnDrop(&stopped);
        for addr in addrs.iter().cycle().take(24) {
            let (stopped, admitted) = (&stopped, &admitted);
            scope.spawn(move || {
                let mut client = RawClient::connect(*addr);
                while !stopped.load(Relaxed) {
                    let sent = Instant::now();
                    let Ok(()) = client.try_send(format!("{request}\r\n").as_bytes()) else { return };
                    let Ok(reply) = client.try_read() else { return };
                    let decision = reply.decision();
                    if decision.allowed && !decision.degraded {
                        admitted.lock().unwrap().push(Admission { sent, received: Instant::now(), cost: 1 });
                    }
                }
            });
        }
        act(&admitted);
        stopped.store(true, Relaxed);
    });
    admitted.into_inner().unwrap()
}

/// Connections that break, a Redis that hangs, scripts that it forgets.
#[test]
fn no_fault_has_a_window_hold_more_than_its_limit() {
    const LIMIT: usize = 500;
    let redis = RedisServer::start();
    let proxies = [(); 2].map(|()| Proxy::before(redis.addr()));
    let tollgates = proxies.each_ref().map(|proxy| {
        let builder = Tollgate::builder().arg("--redis").arg(&proxy.addr().to_string()).arg("--workers=1");
        builder.env("TOLLGATE_REDIS__TIMEOUT_MS", "300").expect_log("redis").start()
    });
    let admitted = while_hammered(&addrs(&tollgates), "RL.CHECK k 500 400ms PREFETCH 20ms", |admitted| {
        let go_on = || {
            let so_far = admitted.lock().unwrap().len();
            wait_until(PATIENCE, || admitted.lock().unwrap().len() > so_far + LIMIT);
        };
        go_on();
        for proxy in proxies.iter().cycle().take(4) {
            proxy.cut();
            go_on();
            proxy.set_weather(Weather::NoReplies);
            wait_until(PATIENCE, || tollgates.iter().any(|tollgate| info(tollgate, "breaker_state") != "closed"));
            proxy.cut();
            proxy.set_weather(Weather::Fair);
            go_on();
        }
        redis.command("SCRIPT FLUSH");
        go_on();
        redis.stop();
        wait_until(PATIENCE, || tollgates.iter().all(|tollgate| info(tollgate, "breaker_state") != "closed"));
        redis.cont();
        go_on();
    });
    assert_within_limit(&admitted, LIMIT, 1, Duration::from_millis(400));
    assert!(tollgates.iter().all(|tollgate| number(tollgate, "answers_by_share") > 0));
}

/// An answer that never comes may have granted a share, which nobody knows of.
#[test]
fn what_a_lost_answer_granted_is_given_back() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let tollgate = Tollgate::builder()
        .env("TOLLGATE_REDIS__TIMEOUT_MS", "300")
        .arg("--redis")
        .arg(&proxy.addr().to_string())
        .arg("--workers=1")
        .expect_log("redis")
        .start();
    let mut client = tollgate.client();
    let request = "RL.CHECK k 1000000 1h PREFETCH 5ms";
    hold_share(&mut client, request, &tollgate);
    let mut admitted = 0;
    let mut ask = |client: &mut RawClient| {
        client.send(format!("{request}\r\n").repeat(50).as_bytes());
        let decisions: Vec<_> = (0..50).map(|_| client.read().decision()).collect();
        admitted += decisions.iter().filter(|decision| decision.allowed).count();
        decisions.iter().filter(|decision| decision.degraded).count()
    };
    client.line("RL.RESET k");
    let shares = |log: &RedisServer| -> i64 {
        log.entries(HOUR_LOG).iter().filter(|(_, weight)| *weight > 3).map(|(_, weight)| weight).sum()
    };
    proxy.set_weather(Weather::NoReplies);
    wait_until(PATIENCE, || ask(&mut client) > 0 || shares(&redis) > 50);
    proxy.cut();
    proxy.set_weather(Weather::Fair);
    wait_until(PATIENCE, || ask(&mut client) == 0);
    wait_until(PATIENCE, || {
        info(&tollgate, "fallback_unwritten") == "0" && counted(&redis, HOUR_LOG) == admitted as i64
    });
}

/// Redis is gone in the middle: what it has granted is spent to its end, and nothing that it has not.
#[test]
fn without_redis_no_more_is_spent_than_was_granted() {
    let mut redis = RedisServer::start();
    let tollgate = Tollgate::builder()
        .redis(&redis)
        .arg("--workers=1")
        .env("TOLLGATE_FALLBACK__MODE", "closed")
        .expect_log("redis")
        .start();
    let mut client = tollgate.client();
    let request = "RL.CHECK k 1000000 1h PREFETCH 500ms";
    hold_share(&mut client, request, &tollgate);
    let granted = counted(&redis, HOUR_LOG);
    redis.kill();
    let spent = number(&tollgate, "answers_by_share") + number(&tollgate, "answers_by_store");
    let started = Instant::now();
    let mut exact = 0;
    wait_until(PATIENCE, || {
        let decision = client.decide(request);
        assert!(decision.degraded != decision.allowed, "{decision:?}");
        exact += i64::from(decision.allowed);
        decision.degraded && started.elapsed() > Duration::from_millis(500)
    });
    assert!(exact <= granted - spent + 50, "{exact} of {granted} less {spent}");
    assert!(!client.decide(request).allowed);
}

/// Policies of a file: their overrides are prefetched too, unless they are no logs.
#[test]
fn policies_are_prefetched_as_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.toml");
    let text = "[policies]\nshort = \"100000 1h PREFETCH 500ms\"\n[policies.long]\nlimits = \"100000 1h\"\nprefetch = \
                \"500ms\"\n[policies.long.overrides]\nother = \"200000 1h\"\nrate = \"200000 1h BY gcra\"\n";
    std::fs::write(&path, text).unwrap();
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).arg("--config").arg(path.to_str().unwrap()).start();
    let mut client = tollgate.client();
    for (key, policy) in [("k", "short"), ("k", "long"), ("other", "long")] {
        hold_share(&mut client, &format!("RL.CHECK {key} {policy}"), &tollgate);
    }
    let by_share = number(&tollgate, "answers_by_share");
    client.send("RL.CHECK rate long\r\n".repeat(200).as_bytes());
    let allowed = (0..200).filter(|_| client.read().decision().allowed).count();
    assert_eq!((allowed, number(&tollgate, "answers_by_share")), (200, by_share));
    assert_eq!(client.line("RL.POLICY GET long").field("limits").text(), "100000 1h PREFETCH 500ms");
    client.line("RL.POLICY SET live 100000 1h PREFETCH 1000");
    hold_share(&mut client, "RL.CHECK k live", &tollgate);
}

/// In both forms in which a cluster's scripts are told of their logs, and while a slot moves.
#[test]
fn shares_of_a_cluster_go_where_their_keys_are() {
    let cluster = Cluster::of_three();
    let tollgates = ["false", "true"].map(|declares| {
        let builder = Tollgate::builder().env("TOLLGATE_REDIS__DECLARE_KEYS", declares);
        builder.arg("--redis").arg(&cluster.url()).expect_log("redis").start()
    });
    let slot = 100;
    let key = key_in(slot);
    let from = cluster.node_of(&key);
    let to = (from + 1) % 3;
    let log = format!("rl:{{{key}}}:3600000");
    let request = format!("RL.CHECK {key} 1000000 1h PREFETCH 20ms");
    let addrs = addrs(&tollgates);
    let mut admitted = 0;
    thread::scope(|scope| {
        let asking = scope.spawn(|| hammer(&addrs, &[(&request, 1)], Duration::from_millis(2500)));
        wait_until(PATIENCE, || tollgates.iter().all(|tollgate| number(tollgate, "answers_by_share") > 100));
        let slot_move = cluster.begin_move(slot, to);
        cluster.move_keys(slot_move, &[&log]);
        cluster.end_move(slot_move);
        admitted = cost_of(&asking.join().unwrap());
    });
    wait_until(PATIENCE, || counted(cluster.server(to), &log) == admitted);
    assert!(tollgates.iter().all(|tollgate| number(tollgate, "share_units_given_back") > 0));
}

const KEY: &[u8] = b"k";
const LIFE_US: u64 = 10_000;

/// Asks for a share of so many units of a limit of 100 in 100 ms, which is granted or not.
fn ask_share(scripts: &mut Scripts, units: u32, id: &str) -> bool {
    let limits = [Limit::log(100, Window::from_ms(100).unwrap())];
    let ask = Ask { key: KEY, limits: &limits, cost: units };
    let mut batch = Batch::default();
    batch.add_share(&ask, LIFE_US);
    let report = scripts.answers(&batch, id, false);
    let states: Vec<_> = report.limits.iter().map(LimitReport::state).collect();
    decide(&limits, &states, units).allowed
}

fn remaining(scripts: &mut Scripts) -> u32 {
    let limits = [Limit::log(100, Window::from_ms(100).unwrap())];
    let peeked = scripts.decide_one(Verb::Peek, &Ask { key: KEY, limits: &limits, cost: 1 });
    peeked.remaining + u32::from(peeked.allowed)
}

#[test]
fn a_share_counts_from_when_it_is_granted_until_one_window_after_it_is_over() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let start_us = Scripts::start_us();
    scripts.set_time(start_us);
    assert!(ask_share(&mut scripts, 60, "a"));
    assert!(!ask_share(&mut scripts, 41, "b"));
    assert_eq!(remaining(&mut scripts), 40);
    scripts.set_time(start_us + LIFE_US + 100_000 - 1);
    assert_eq!(remaining(&mut scripts), 40);
    scripts.set_time(start_us + LIFE_US + 100_000);
    assert_eq!(remaining(&mut scripts), 100);
}

#[test]
fn what_is_given_back_is_free_at_once_and_once() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let start_us = Scripts::start_us();
    scripts.set_time(start_us);
    assert!(ask_share(&mut scripts, 60, "a") && ask_share(&mut scripts, 30, "b"));
    let limits = [Limit::log(100, Window::from_ms(100).unwrap())];
    let rest = |id: &str, granted, used| Rest {
        key: KEY.into(),
        limits: limits.into(),
        id: share_id(id, 0),
        granted,
        used,
        tries: 1,
    };
    for (rests, changed, left) in [
        (vec![rest("a", 60, 20)], vec![1], 50),
        (vec![rest("a", 60, 20)], vec![0], 50),
        (vec![rest("a", 60, 0), rest("b", 30, 1)], vec![0, 1], 79),
        (vec![rest("a", 20, 1)], vec![1], 98),
        (vec![rest("a", 1, 0), rest("none", 5, 0)], vec![1, 0], 99),
    ] {
        let names = scripts.names;
        let reply = scripts.run(|store| store.give_back(&rests, names));
        assert_eq!((reply, remaining(&mut scripts)), (Reply::Integers(changed), left), "{rests:?}");
    }
    let entries = redis.entries("m:{k}:100");
    assert_eq!(entries.len(), 1);
    assert_eq!(redis.command("ZSCORE m:{k}:100 t"), crate::common::Reply::Nil);
    assert!(redis.command("PTTL m:{k}:100").integer() > 0);
}

/// A step back of the clock frees nothing, neither while a share may be in use yet nor before a window has passed since.
#[test]
fn a_clock_that_steps_back_frees_no_share_early() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let start_us = Scripts::start_us() + 10_000_000;
    scripts.set_time(start_us);
    assert!(ask_share(&mut scripts, 100, "a"));
    let stepped_us = start_us - 5_000_000;
    scripts.set_time(stepped_us);
    let limits = [Limit::log(100, Window::from_ms(100).unwrap())];
    let ask = Ask { key: KEY, limits: &limits, cost: 1 };
    let denied = scripts.decide_one(Verb::Check, &ask);
    assert!(!denied.allowed);
    // It may be used for an eighth of the window yet, and counts for one after that.
    for (after_us, allowed) in [(100_000, false), (112_499, false), (112_500, true)] {
        scripts.set_time(stepped_us + after_us);
        assert_eq!(scripts.decide_one(Verb::Peek, &ask).allowed, allowed, "{after_us}");
    }
}

/// What is known of an admission or a share: its units were admitted no earlier and no later than that.
type Admitted = (u64, u64, u64);

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    SetBack(u64),
    Check(u32),
    Share(u32),
    /// Of the share before so many: which part of it was used, in eighths.
    GiveBack(usize, u32),
}

/// Whatever is asked when, and however often the clock of Redis steps back: a share may be used until it is over, or until it
/// is given back, and no interval of a window's length holds more than the limit.
#[test]
fn whenever_shares_are_used_no_interval_holds_more_than_the_limit() {
    const WINDOW_US: u64 = 100_000;
    let redis = RedisServer::start();
    let scripts = RefCell::new(Scripts::on(&redis));
    let limits = [Limit::log(100, Window::from_ms(100).unwrap())];
    let step = prop_oneof![
        4 => (0..40_000u64).prop_map(Step::Wait),
        1 => (0..250_000u64).prop_map(Step::SetBack),
        4 => (1..9u32).prop_map(Step::Check),
        4 => (1..50u32).prop_map(Step::Share),
        3 => (0..4usize, 0..8u32).prop_map(|(of, used)| Step::GiveBack(of, used)),
    ];
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&proptest::collection::vec(step, 1..60), |steps| {
        let mut scripts = scripts.borrow_mut();
        scripts.control.line("FLUSHALL");
        let (mut now_us, mut clock_us) = (1_000_000, Scripts::start_us() + 20_000_000);
        let (mut admitted, mut shares) = (Vec::<Admitted>::new(), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            scripts.set_time(clock_us);
            match *step {
                Step::Wait(us) => (now_us, clock_us) = (now_us + us, clock_us + us),
                Step::SetBack(us) => clock_us -= us,
                Step::Check(cost) => {
                    if scripts.decide_one(Verb::Check, &Ask { key: KEY, limits: &limits, cost }).allowed {
                        admitted.push((now_us, now_us, cost.into()));
                    }
                }
                Step::Share(units) => {
                    if ask_share(&mut scripts, units, &number.to_string()) {
                        shares.push((admitted.len(), number.to_string(), units));
                        admitted.push((now_us, now_us + LIFE_US - 1, units.into()));
                    }
                }
                Step::GiveBack(of, eighths) => {
                    let place = shares.len().checked_sub(of + 1);
                    let Some((index, id, granted)) = place.map(|place| shares.remove(place)) else { continue };
                    let used = granted * eighths / 8;
                    let id = share_id(&id, 0);
                    let rest = Rest { key: KEY.into(), limits: limits.into(), id, granted, used, tries: 1 };
                    let names = scripts.names;
                    scripts.run(|store| store.give_back(&[rest], names));
                    admitted[index] = (admitted[index].0, admitted[index].1.min(now_us), used.into());
                }
            }
        }
        for (_, begin_us, _) in &admitted {
            let is_within = |(from_us, to_us, _): &&Admitted| *from_us < begin_us + WINDOW_US && to_us >= begin_us;
            let sum: u64 = admitted.iter().filter(is_within).map(|(_, _, units)| units).sum();
            prop_assert!(sum <= 100, "{sum} from {begin_us} on: {admitted:?}");
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The answer was lost, and the batch runs again: it is one share, of which all is known.
#[test]
fn a_share_that_is_asked_for_again_is_granted_once() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    scripts.set_time(Scripts::start_us());
    let limits = [Limit::log(100, Window::from_ms(100).unwrap())];
    let ask = Ask { key: KEY, limits: &limits, cost: 60 };
    let mut batch = Batch::default();
    batch.add_share(&ask, LIFE_US);
    for resent in [false, true, true] {
        let report = scripts.answers(&batch, "a", resent);
        let states: Vec<_> = report.limits.iter().map(LimitReport::state).collect();
        assert!(decide(&limits, &states, 60).allowed, "{states:?}");
        assert_eq!(remaining(&mut scripts), 40);
    }
}
