//! Policies that Redis keeps: told to all Tollgates, read again, lost.

use super::{FREE, SOON, brief, field, info, order};
use crate::common::load::{Question, while_asking};
use crate::common::{Cluster, PATIENCE, Proxy, RedisServer, Reply, Sentinels, Tollgate, Weather, wait_until};
use std::thread;
use std::time::{Duration, Instant};

/// Waits until a Tollgate says this of a policy, for no longer than a change may take.
#[track_caller]
fn wait_for(tollgate: &Tollgate, within: Duration, policy: &str, limits: &str) {
    let mut client = tollgate.client();
    wait_until(within, || {
        let got = client.line(&format!("RL.POLICY GET {policy}"));
        !matches!(got, Reply::Error(_)) && got.field("limits").text() == limits
    });
}

#[test]
fn a_change_holds_on_all_within_a_second_and_each_decision_is_by_one_or_the_other() {
    let redis = RedisServer::start();
    let tollgates: [_; 3] = std::array::from_fn(|_| Tollgate::before(&redis));
    order(&mut tollgates[0].client(), "RL.POLICY SET api 100000 1h");
    for tollgate in &tollgates {
        wait_for(tollgate, SOON, "api", "100000 1h");
    }
    let changed = thread::scope(|scope| {
        let askers: Vec<_> = tollgates
            .iter()
            .map(|tollgate| {
                scope.spawn(|| {
                    let (mut client, mut seen) = (tollgate.client(), Vec::new());
                    // Until a while after nobody may go by the old limit any more.
                    while seen.last().is_none_or(|(_, limit)| *limit == 100_000) || seen.len() < 500 {
                        let limit = client.decide("RL.CHECK k api").limit;
                        seen.push((Instant::now(), limit));
                        assert!(limit == 50 || limit == 100_000, "{limit}");
                    }
                    seen
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        order(&mut tollgates[1].client(), "RL.POLICY SET api 50 1h");
        for asker in askers {
            let seen = asker.join().unwrap();
            let last_old = seen.iter().rev().find(|(_, limit)| *limit == 100_000).map(|(at, _)| *at);
            assert!(last_old.is_none_or(|at| at < begun + SOON));
        }
        begun
    });
    assert!(changed.elapsed() < PATIENCE);
    // The stricter one is exact: nothing was admitted under it beyond what it allows.
    for tollgate in &tollgates {
        assert!(!brief(&mut tollgate.client(), "RL.CHECK k api").0, "far more were admitted before");
        let admitted = (0..60).filter(|_| brief(&mut tollgate.client(), "RL.CHECK fresh api").0).count();
        assert!(admitted <= 50);
    }
    assert_eq!(redis.entries("rl:{fresh}:api:3600000").iter().map(|(_, weight)| weight).sum::<i64>(), 50);
}

#[test]
fn a_denial_that_is_kept_does_not_outlive_the_limit_that_denied() {
    let redis = RedisServer::start();
    let tollgates: [_; 2] = std::array::from_fn(|_| Tollgate::before(&redis));
    order(&mut tollgates[0].client(), "RL.POLICY SET api 1 1h");
    wait_for(&tollgates[1], SOON, "api", "1 1h");
    let mut client = tollgates[1].client();
    client.decide("RL.CHECK k api");
    wait_until(PATIENCE, || {
        assert!(!client.decide("RL.CHECK k api").allowed);
        info(&tollgates[1], "checks_denied_cached") != "0"
    });
    order(&mut tollgates[0].client(), "RL.POLICY SET api 2 1h");
    wait_for(&tollgates[1], SOON, "api", "2 1h");
    assert_eq!(brief(&mut client, "RL.CHECK k api"), (true, 2, 0));
}

#[test]
fn a_tollgate_that_starts_knows_what_was_said_before_it_answers_anybody() {
    let redis = RedisServer::start();
    {
        let tollgate = Tollgate::before(&redis);
        let mut client = tollgate.client();
        order(&mut client, "RL.POLICY SET api 5 1h");
        order(&mut client, "RL.OVERRIDE SET api vip off REASON \"pays\"");
        order(&mut client, "RL.POLICY MODE api shadow EX 1000");
    }
    for _ in 0..3 {
        let tollgate = Tollgate::before(&redis);
        let mut client = tollgate.client();
        assert_eq!(brief(&mut client, "RL.CHECK vip api"), FREE, "the first that it is asked");
        assert_eq!(field(&mut client, "api", "mode"), "shadow");
        assert_eq!(field(&mut client, "api", "source"), "redis");
    }
}

#[test]
fn what_holds_goes_on_to_hold_while_redis_is_down_and_nothing_can_be_changed() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let tollgate = Tollgate::builder()
        .redis(&redis)
        .env("TOLLGATE_REDIS__TIMEOUT_MS", "500")
        .expect_log("redis")
        .expect_log("the mode of all policies")
        .start();
    let mut client = tollgate.client();
    order(&mut client, "RL.POLICY SET api 5 1h");
    redis.kill();
    wait_until(PATIENCE, || client.decide("RL.CHECK k api").degraded);
    assert_eq!(client.decide("RL.CHECK k api").limit, 5);
    let Reply::Error(text) = client.line("RL.POLICY SET api 6 1h") else { panic!("it was kept nowhere") };
    assert!(text.starts_with("UNAVAILABLE Redis cannot be reached"), "{text}");
    assert_eq!(field(&mut client, "api", "limits"), "5 1h");
    redis.start_again();
    wait_until(PATIENCE, || client.line("RL.POLICY MODE * off") == super::ok());
    assert_eq!(brief(&mut client, "RL.CHECK k 1 1h"), FREE);
    // The kill switch holds in an outage as well.
    redis.kill();
    wait_until(PATIENCE, || info(&tollgate, "store_up") == "0");
    assert_eq!((brief(&mut client, "RL.CHECK k 1 1h"), brief(&mut client, "RL.CHECK k api")), (FREE, FREE));
    assert!(!client.decide("RL.CHECK k api").degraded);
}

#[test]
fn who_changes_something_as_redis_is_lost_is_told_that_it_may_hold_or_not() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let tollgate = Tollgate::builder().arg("--redis").arg(&proxy.addr().to_string()).expect_log("redis").start();
    let mut client = tollgate.client();
    order(&mut client, "RL.POLICY SET api 5 1h");
    proxy.set_weather(Weather::NoReplies);
    let Reply::Error(text) = client.line("RL.POLICY SET api 6 1h") else { panic!("nobody can have kept it") };
    assert!(text.starts_with("UNAVAILABLE Redis was lost before it answered"), "{text}");
    assert_eq!(field(&mut client, "api", "limits"), "5 1h");
    proxy.set_weather(Weather::Fair);
    wait_until(PATIENCE, || client.line("RL.POLICY SET api 7 1h") == super::ok());
    assert_eq!(field(&mut client, "api", "limits"), "7 1h");
}

#[test]
fn a_flushed_redis_leaves_the_file_s_in_force_and_the_log_says_so() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("tollgate.toml");
    std::fs::write(&file, "[policies]\nlogin = \"5 1m\"\n").unwrap();
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder()
        .redis(&redis)
        .arg("--config")
        .arg(file.to_str().unwrap())
        .expect_log("redis has lost what was said of policies")
        .start();
    let mut client = tollgate.client();
    order(&mut client, "RL.POLICY SET login 6 1m");
    order(&mut client, "RL.POLICY SET api 7 1m");
    redis.command("SCRIPT FLUSH");
    order(&mut client, "RL.POLICY SET api 8 1m");
    redis.command("FLUSHALL");
    wait_until(PATIENCE, || field(&mut client, "login", "limits") == "5 1m");
    assert_eq!(client.line("RL.POLICY GET api"), super::error("ERR no such policy 'api'"));
    let says = "redis has lost what was said of policies";
    wait_until(PATIENCE, || tollgate.log().iter().any(|line| line.contains(says)));
    // The version begins anew, and is heard of all the same.
    order(&mut client, "RL.POLICY SET api 9 1m");
    assert_eq!(info(&tollgate, "policies_version"), "1");
}

#[test]
fn what_is_over_is_given_up_in_redis_too() {
    let redis = RedisServer::start();
    let tollgates: [_; 2] = std::array::from_fn(|_| Tollgate::before(&redis));
    let mut client = tollgates[0].client();
    order(&mut client, "RL.POLICY SET api 5 1h");
    order(&mut client, "RL.OVERRIDE SET api k off EX 1");
    assert_eq!(redis.command("HLEN rl:policies"), Reply::Integer(3));
    wait_until(PATIENCE, || redis.command("HLEN rl:policies") == Reply::Integer(2));
    assert_eq!(info(&tollgates[0], "policy_overrides"), "0");
}

#[test]
fn of_two_who_change_the_same_one_wins_whole() {
    let redis = RedisServer::start();
    let tollgates: [_; 2] = std::array::from_fn(|_| Tollgate::before(&redis));
    let texts = ["1 1s 2 1m 3 1h", "10 2s 20 2m 30 2h"];
    thread::scope(|scope| {
        for (tollgate, text) in tollgates.iter().zip(texts) {
            scope.spawn(move || {
                let mut client = tollgate.client();
                (0..100).for_each(|_| order(&mut client, &format!("RL.POLICY SET api {text}")));
            });
        }
    });
    let kept = redis.command("HGET rl:policies api").text();
    assert!(texts.contains(&kept.as_str()), "{kept}");
    tollgates.iter().for_each(|tollgate| wait_for(tollgate, SOON, "api", &kept));
}

#[test]
fn what_cannot_be_read_does_not_hold_and_is_told_once() {
    let redis = RedisServer::start();
    let words = ["HSET", "rl:policies", ":version", "3", "api", "5 1h BY magic", "login", "5 1m", "what:x", "y"];
    redis.client().cmd(&words);
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis keeps what cannot be read").start();
    let mut client = tollgate.client();
    assert_eq!(field(&mut client, "login", "limits"), "5 1m");
    assert_eq!(info(&tollgate, "policies_unreadable"), "2");
    assert_eq!(info(&tollgate, "policies_version"), "3");
    assert_eq!(client.line("RL.POLICY GET api"), super::error("ERR no such policy 'api'"));
}

#[test]
fn a_user_without_the_rights_costs_live_policies_alone_and_is_told_which() {
    let redis = RedisServer::start();
    // Of the channel, of what reads, and of what writes.
    for rights in ["&rl:reset +@all", "&rl:* +@all -hget -hscan", "&rl:* +@all -hset"] {
        redis.command(&format!("ACL SETUSER limited reset on >secret ~rl:* resetchannels {rights}"));
        let tollgate = Tollgate::builder()
            .arg("--redis")
            .arg(&format!("redis://limited:secret@{}", redis.addr()))
            .expect_log("policies cannot be changed while it runs")
            .start();
        let mut client = tollgate.client();
        assert!(!client.decide("RL.CHECK k 5 1h").degraded);
        let Reply::Error(text) = client.line("RL.POLICY SET api 5 1h") else { panic!("it may not") };
        assert!(text.starts_with("UNAVAILABLE the user 'limited' lacks rights"), "{rights}: {text}");
        assert!(text.contains("+hset") && text.contains("&rl:policies"), "{text}");
    }
}

#[test]
fn policies_outlive_a_switch_of_sentinels() {
    let mut group = Sentinels::start();
    let start = || Tollgate::builder().arg("--redis").arg(&group.url()).expect_log("redis").start();
    let tollgates = [start(), start()];
    order(&mut tollgates[0].client(), "RL.POLICY SET api 5 1h");
    wait_until(PATIENCE, || {
        (0..3).all(|number| group.server(number).command("HGET rl:policies api").bytes() == b"5 1h")
    });
    group.kill(0);
    group.wait_until_replaced(0);
    let mut client = tollgates[1].client();
    wait_until(PATIENCE, || client.line("RL.POLICY SET api 6 1h") == super::ok());
    tollgates.iter().for_each(|tollgate| wait_for(tollgate, PATIENCE, "api", "6 1h"));
    order(&mut client, "RL.POLICY SET api 7 1h");
    wait_for(&tollgates[0], SOON, "api", "7 1h");
}

#[test]
fn policies_are_kept_in_a_cluster_wherever_their_slot_is() {
    let cluster = Cluster::of_three();
    let start = || Tollgate::builder().arg("--redis").arg(&cluster.url()).expect_log("redis").start();
    let tollgates = [start(), start()];
    order(&mut tollgates[0].client(), "RL.POLICY SET api 5 1h");
    wait_for(&tollgates[1], SOON, "api", "5 1h");
    assert_eq!(brief(&mut tollgates[1].client(), "RL.CHECK k api"), (true, 5, 4));
    let from = cluster.node_of("rl:policies");
    let slot_move =
        cluster.begin_move(usize::from(tollgate::topology::slot::Slot::of(b"rl:policies").number()), (from + 1) % 3);
    cluster.move_keys(slot_move, &["rl:policies"]);
    cluster.end_move(slot_move);
    let mut client = tollgates[0].client();
    wait_until(PATIENCE, || client.line("RL.POLICY SET api 6 1h") == super::ok());
    wait_for(&tollgates[1], PATIENCE, "api", "6 1h");
}

#[test]
fn an_order_under_load_costs_no_check_its_answer() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    let questions = [Question::new("k", &[(100_000, 3600)])];
    let seen = while_asking(&[tollgate.addr()], &questions, |progress| {
        progress.settle();
        (0..50).for_each(|number| order(&mut client, &format!("RL.POLICY SET p{number} 5 1h")));
        progress.settle();
    });
    assert_eq!(seen.all_degraded(), 0);
}
