//! How all that is counted for a key stands: RL.INSPECT, the same before a Redis and embedded.

use crate::common::{Cluster, PATIENCE, RedisServer, Reply, Scripts, Tollgate, encode, on_each_store, wait_until};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tollgate::limit::{Ask, Counter, Limit, Verb, Window};

fn unix_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

/// The numbers of a window's map that are no times.
fn counts(window: &Reply) -> [i64; 3] {
    ["window_ms", "used", "entries"].map(|name| window.field(name).integer())
}

#[test]
fn every_window_in_which_something_counts_is_told_of() {
    on_each_store(|client| {
        for is_resp3 in [false, true] {
            assert_eq!(client.line("RL.INSPECT nobody"), Reply::Array(vec![]));
            client.line("RL.RESET k");
            let before_ms = unix_ms();
            for line in ["RL.CHECK k 10 1h 5 1m", "RL.CHECK k 10 1h COST 3", "RL.CHECK k 10 1h"] {
                assert!(client.decide(line).allowed);
                // So that no two of them are of one moment.
                sleep(Duration::from_millis(2));
            }
            client.decide("RL.PEEK k 10 1d");
            client.decide("RL.CHECK other 10 1d");
            let reply = client.line("RL.INSPECT k");
            let after_ms = unix_ms();
            let [minute, hour] = reply.items() else { panic!("{reply:?}") };
            assert_eq!((counts(minute), counts(hour)), ([60_000, 1, 1], [3_600_000, 5, 3]));
            for window in [minute, hour] {
                assert!(matches!(window, Reply::Map(pairs) if pairs.len() == 9) == is_resp3, "{window:?}");
                assert_eq!(
                    (window.field("policy").text(), window.field("algorithm").text()),
                    (String::new(), "log".to_owned())
                );
                let [oldest_ms, newest_ms, next_ms, free_ms] =
                    ["oldest_ms", "newest_ms", "next_ms", "free_ms"].map(|name| window.field(name).integer());
                assert!(before_ms <= oldest_ms && oldest_ms <= newest_ms && newest_ms <= after_ms, "{window:?}");
                let window_ms = window.field("window_ms").integer();
                let left = |made_ms: i64| made_ms + window_ms - after_ms..=made_ms + window_ms - before_ms + 1;
                assert!(left(oldest_ms).contains(&next_ms) && left(newest_ms).contains(&free_ms), "{window:?}");
            }
            client.cmd(&["HELLO", "3"]);
        }
    });
}

#[test]
fn entries_are_listed_the_newest_first() {
    on_each_store(|client| {
        for cost in [3, 1, 2] {
            assert!(client.decide(&format!("RL.CHECK k 10 1h 20 1d COST {cost}")).allowed);
            sleep(Duration::from_millis(2));
        }
        for (most, weights) in [(1, &[2][..]), (2, &[2, 1]), (3, &[2, 1, 3]), (1000, &[2, 1, 3])] {
            let reply = client.line(&format!("rl.inspect k entries {most}"));
            assert_eq!(reply.items().len(), 2);
            for window in reply.items() {
                let newest: Vec<&[Reply]> = window.field("newest").items().iter().map(Reply::items).collect();
                let listed: Vec<i64> = newest.iter().map(|entry| entry[1].integer()).collect();
                assert_eq!(listed, weights);
                let times: Vec<i64> = newest.iter().map(|entry| entry[0].integer()).collect();
                assert!(times.is_sorted_by(|one, other| one > other), "{times:?}");
                assert_eq!(times[0], window.field("newest_ms").integer());
            }
        }
    });
}

#[test]
fn what_has_expired_is_not_told_of() {
    on_each_store(|client| {
        client.decide("RL.CHECK k 5 20ms 9 1h COST 2");
        sleep(Duration::from_millis(20));
        let reply = client.line("RL.INSPECT k");
        let [hour] = reply.items() else { panic!("{reply:?}") };
        assert_eq!(counts(hour), [3_600_000, 2, 1]);
    });
}

#[test]
fn what_is_wrong_is_named() {
    const USAGE: &str = "RL.INSPECT key [ENTRIES n]";
    let entries = |got| format!("ERR entries must be an integer between 1 and 1000, not '{got}'");
    let arity = format!("ERR wrong number of arguments for 'rl.inspect' command: {USAGE}");
    on_each_store(|client| {
        for (line, text) in [
            ("RL.INSPECT", arity.clone()),
            ("RL.INSPECT k ENTRIES", arity.clone()),
            ("RL.INSPECT k ENTRIES 5 6", arity.clone()),
            ("RL.INSPECT k ENTRIES 0", entries("0")),
            ("RL.INSPECT k ENTRIES 1001", entries("1001")),
            ("RL.INSPECT k 60", format!("ERR unknown option '60' for 'rl.inspect': {USAGE}")),
        ] {
            assert_eq!(client.line(line), error(&text), "{line}");
        }
        assert_eq!(client.cmd(&["RL.INSPECT", ""]), error("ERR key must be 1 to 1024 bytes long, not 0"));
        assert_eq!(client.line("COMMAND GETKEYS rl.inspect k ENTRIES 3"), Reply::Array(vec![Reply::bulk("k")]));
    });
}

/// What was asked before it on a connection is in what it says, and what comes behind waits for it.
#[test]
fn it_stands_in_its_place_in_a_pipeline() {
    on_each_store(|client| {
        let check = encode(&["RL.CHECK", "k", "1000", "1h"]);
        let inspect = encode(&["RL.INSPECT", "k"]);
        client.send(&[check.repeat(3), inspect.clone(), check.repeat(2), inspect].concat());
        let mut used = Vec::new();
        for _ in 0..7 {
            match client.read().items() {
                [Reply::Integer(_), ..] => {}
                windows => used.push(windows[0].field("used").integer()),
            }
        }
        assert_eq!(used, [3, 5]);
    });
}

#[test]
fn windows_that_others_use_are_known_and_names_that_are_taken_do_not_disturb() {
    let redis = RedisServer::start();
    let proxies = [Tollgate::before(&redis), Tollgate::before(&redis)];
    let [mut one, mut other] = proxies.each_ref().map(Tollgate::client);
    for window in 1..=150 {
        one.decide(&format!("RL.CHECK k{} 5 {window}h", window % 2));
    }
    redis.command("SET rl:{k1}:3600000 text");
    let reply = other.line("RL.INSPECT k1 ENTRIES 5");
    let windows_ms: Vec<i64> = reply.items().iter().map(|window| window.field("window_ms").integer()).collect();
    let expected: Vec<i64> = (3..=150).step_by(2).map(|hours| hours * 3_600_000).collect();
    assert_eq!(windows_ms, expected);
    assert_eq!(redis.command("GET rl:{k1}:3600000"), Reply::bulk("text"));
}

#[test]
fn while_redis_is_down_it_says_so() {
    let mut redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis is down").start();
    let mut client = tollgate.client();
    client.decide("RL.CHECK k 5 1h");
    redis.kill();
    let mut reply = Reply::Nil;
    wait_until(PATIENCE, || {
        reply = client.line("RL.INSPECT k");
        matches!(reply, Reply::Error(_))
    });
    assert_eq!(reply, error("UNAVAILABLE Redis cannot be reached"));
}

#[test]
fn a_user_with_a_key_prefix_looks_at_keys_of_its_own() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tollgate.toml");
    // The SHA-256 of `secret`.
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let table = |name| format!("[[auth.users]]\nname = '{name}'\npassword_sha256 = '{hash}'\nkey_prefix = '{name}:'\n");
    fs::write(&file, format!("[auth]\nmode = 'password'\n{}{}", table("a"), table("b"))).unwrap();
    let tollgate = Tollgate::builder().arg("--embedded").arg("--config").arg(file.to_str().unwrap()).start();
    let [mut one, mut other] = ["a", "b"].map(|user| {
        let mut client = tollgate.client();
        assert_eq!(client.line(&format!("AUTH {user} secret")).text(), "OK");
        client
    });
    one.decide("RL.CHECK k 5 1h");
    assert_eq!(one.line("RL.INSPECT k").items().len(), 1);
    assert_eq!(other.line("RL.INSPECT k").items().len(), 0);
}

/// Nothing is forgotten by looking, so what has expired stands there too, of which not all may be read.
#[test]
fn weights_are_right_whatever_has_expired() {
    const LOG: &str = "m:{k}:1000";
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let (start_us, window) = (Scripts::start_us(), Window::from_ms(1000).unwrap());
    let limits = [Limit::log(1_000_000, window)];
    for (expired, live) in [(0, 5), (5, 0), (5, 5), (300, 5), (5, 300), (200, 300), (300, 200)] {
        scripts.control.line("FLUSHALL");
        scripts.set_time(start_us);
        let costs = |count: u32| (0..count).map(|number| 1 + number % 7);
        let checks: Vec<_> = costs(live).map(|cost| Ask { key: b"k", limits: &limits, cost }).collect();
        for checks in checks.chunks(20) {
            scripts.decide(Verb::Check, checks);
        }
        // A check that found them would have had them forgotten.
        for number in 0..expired {
            scripts.control.line(&format!("ZADD {LOG} {} old{number}:2", 1_000_000 - start_us as i64));
            scripts.control.line(&format!("ZINCRBY {LOG} 1 t"));
        }
        let used: u64 = costs(live).map(u64::from).sum();
        let found = scripts.inspect(b"k", 3, vec![Counter::log(window)]);
        let told: Vec<_> = found.iter().map(|found| (found.used, found.entries, found.newest.len())).collect();
        let expected = if live == 0 { vec![] } else { vec![(used, u64::from(live), 3)] };
        assert_eq!(told, expected, "{expired} expired, {live} live");
    }
}

/// Each key is on the node of its slot, and the registry on one of them.
#[test]
fn keys_of_every_node_of_a_cluster_are_looked_at_where_they_are() {
    let cluster = Cluster::start();
    let addr = format!("redis+cluster://{}", cluster.server(0).addr());
    let proxies = [(); 2].map(|()| Tollgate::builder().arg("--redis").arg(&addr).start());
    let [mut one, mut other] = proxies.each_ref().map(Tollgate::client);
    let keys: Vec<String> = (0..30).map(|number| format!("k{number}")).collect();
    // Until a Tollgate knows a key's node, its fallback answers.
    for client in [&mut one, &mut other] {
        keys.iter().for_each(|key| wait_until(PATIENCE, || !client.decide(&format!("RL.PEEK {key} 5 1h")).degraded));
    }
    for (cost, key) in (1..).zip(&keys) {
        let check = one.decide(&format!("RL.CHECK {key} 100 1h 100 {cost}m COST {cost}"));
        assert!(check.allowed && !check.degraded, "{key}: {check:?}");
    }
    for (cost, key) in (1..).zip(&keys) {
        let reply = other.line(&format!("RL.INSPECT {key} ENTRIES 3"));
        let windows: Vec<_> = reply.items().iter().map(counts).collect();
        assert_eq!(windows, [[cost * 60_000, cost, 1], [3_600_000, cost, 1]], "{key}: {reply:?}");
    }
}
