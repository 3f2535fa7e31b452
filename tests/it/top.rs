//! Who is denied and allowed most, and the other figures: RL.TOP, RL.STATS and INFO, and the log of denials.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, on_each_store, wait_until};
use std::fs;
use tempfile::TempDir;

fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

fn row(key: &[u8], count: i64) -> Reply {
    Reply::Array(vec![Reply::Bulk(key.to_vec()), Reply::bulk(""), Reply::Integer(count), Reply::Integer(0)])
}

/// The figure of a field of RL.STATS.
fn figure(client: &mut RawClient, name: &str) -> i64 {
    client.line("RL.STATS").field(name).integer()
}

/// Waits until RL.TOP says this, as an answer is kept for a moment.
#[track_caller]
fn wait_for_top(client: &mut RawClient, line: &str, rows: &[Reply]) {
    let mut got = Reply::Nil;
    let is_there = |got: &Reply| matches!(got, Reply::Array(got) if got == rows);
    let start = std::time::Instant::now();
    while !is_there(&got) && start.elapsed() < PATIENCE {
        got = client.line(line);
    }
    assert!(is_there(&got), "{line}: {got:?}");
}

#[test]
fn who_is_denied_most_is_listed_first() {
    on_each_store(|client| {
        assert_eq!(client.line("RL.TOP"), Reply::Array(vec![]));
        let binary = b"\x00 \xff".as_slice();
        for (key, checks) in [(&b"a"[..], 5), (b"b", 9), (binary, 3), (b"c", 1)] {
            let check = encode(&[b"RL.CHECK", key, b"1", b"1h"]);
            client.send(&check.repeat(checks));
            (0..checks).for_each(|_| _ = client.read().decision());
        }
        // What counts nothing is not counted.
        client.decide("RL.PEEK c 1 1h");
        let denied = [row(b"b", 8), row(b"a", 4), row(binary, 2)];
        wait_for_top(client, "RL.TOP", &denied);
        wait_for_top(client, "rl.top count 2", &denied[..2]);
        wait_for_top(client, "RL.TOP HOUR COUNT 1000", &denied);
        wait_for_top(client, "RL.TOP ALLOWED", &[row(binary, 1), row(b"a", 1), row(b"b", 1), row(b"c", 1)]);
        wait_for_top(client, "RL.TOP HOUR COUNT 1 ALLOWED", &[row(binary, 1)]);
        client.cmd(&["HELLO", "3"]);
        wait_for_top(client, "RL.TOP", &denied);

        wait_until(PATIENCE, || figure(client, "checks_denied_last_minute") == 14);
        wait_until(PATIENCE, || figure(client, "checks_allowed_last_hour") == 4);
        assert_eq!((figure(client, "checks_allowed"), figure(client, "checks_denied")), (4, 14));
    });
}

#[test]
fn what_is_wrong_with_the_options_is_named() {
    const USAGE: &str = "RL.TOP [POLICY name] [COUNT n] [ALLOWED] [HOUR]";
    let count = |got| format!("ERR count must be an integer between 1 and 1000, not '{got}'");
    let option = |got| format!("ERR unknown option '{got}' for 'rl.top': {USAGE}");
    on_each_store(|client| {
        for (line, text) in [
            ("RL.TOP COUNT", format!("ERR wrong number of arguments for 'rl.top' command: {USAGE}")),
            ("RL.TOP COUNT 0", count("0")),
            ("RL.TOP COUNT 1001", count("1001")),
            ("RL.TOP COUNT many", count("many")),
            ("RL.TOP COUNT 5 COUNT 5", option("COUNT")),
            ("RL.TOP HOUR hour", option("hour")),
            ("RL.TOP ALLOWED DENIED", option("DENIED")),
            ("RL.TOP POLICY a POLICY b", option("POLICY")),
            ("RL.STATS all", "ERR wrong number of arguments for 'rl.stats' command: RL.STATS".to_owned()),
        ] {
            assert_eq!(client.line(line), error(&text), "{line}");
        }
    });
}

#[test]
fn a_key_by_a_policy_is_another_than_by_limits_or_by_another_policy() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tollgate.toml");
    fs::write(&file, "[policies]\nstrict = '1 1h'\ntried = '1 1h MODE shadow'\n").unwrap();
    let tollgate = Tollgate::builder().arg("--embedded").arg("--config").arg(file.to_str().unwrap()).start();
    let mut client = tollgate.client();
    for (line, checks) in [("RL.CHECK k strict", 5), ("RL.CHECK k tried", 4), ("RL.CHECK k 1 1h", 3)] {
        (0..checks).for_each(|_| _ = client.decide(line));
    }
    let row = |policy: &str, count: i64| {
        Reply::Array(vec![Reply::bulk("k"), Reply::bulk(policy), Reply::Integer(count), Reply::Integer(0)])
    };
    wait_for_top(&mut client, "RL.TOP", &[row("strict", 4), row("tried", 3), row("", 2)]);
    wait_for_top(&mut client, "RL.TOP POLICY tried COUNT 5", &[row("tried", 3)]);
    assert_eq!(client.cmd(&["RL.TOP", "POLICY", "", "ALLOWED"]), Reply::Array(vec![row("", 1)]));
    wait_for_top(&mut client, "RL.TOP POLICY other", &[]);
    let figures = ["checks_denied", "checks_shadow_denied"].map(|name| figure(&mut client, name));
    assert_eq!(figures, [6, 3]);
}

/// A transaction is answered at once: a thousand of these in one would be more than memory is for.
#[test]
fn they_stand_in_a_pipeline_and_in_no_transaction() {
    on_each_store(|client| {
        client.send(b"RL.TOP COUNT 3\r\nRL.STATS\r\nPING\r\n");
        assert_eq!(client.read(), Reply::Array(vec![]));
        assert_eq!(client.read().field("tollgate_version").text(), env!("CARGO_PKG_VERSION"));
        assert_eq!(client.read().text(), "PONG");
        for line in ["RL.TOP", "rl.stats", "RL.INSPECT k"] {
            let name = line.split(' ').next().unwrap().to_lowercase();
            assert_eq!(client.line("MULTI").text(), "OK");
            assert_eq!(client.line(line), error(&format!("ERR '{name}' cannot run inside MULTI")));
            assert!(client.line("EXEC").text().starts_with("EXECABORT"), "{line}");
        }
    });
}

#[test]
fn the_fallback_s_answers_and_those_from_memory_are_counted_apart() {
    let mut redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis is down").start();
    let mut client = tollgate.client();
    assert!(client.decide("RL.CHECK k 1 1h").allowed);
    wait_until(PATIENCE, || {
        assert!(!client.decide("RL.CHECK k 1 1h").allowed);
        figure(&mut client, "checks_denied_cached") > 0
    });
    redis.kill();
    wait_until(PATIENCE, || client.decide("RL.CHECK other 2 1h").degraded);
    wait_until(PATIENCE, || !client.decide("RL.CHECK other 2 1h").allowed);
    let stats = client.line("RL.STATS");
    assert!(
        stats.field("checks_degraded_allowed").integer() > 0 && stats.field("checks_degraded_denied").integer() > 0
    );
    assert_eq!((stats.field("store").text(), stats.field("store_up").integer()), ("redis".to_owned(), 0));
    wait_until(PATIENCE, || {
        let top = client.line("RL.TOP");
        top.items().iter().any(|row| row.items()[0] == Reply::bulk("other"))
    });
}

/// What is shown is what INFO has, and there it must not take the place of what Redis has.
#[test]
fn the_figures_are_those_of_info_and_none_has_a_name_of_redis_s() {
    on_each_store(|client| {
        let names = |info: &str| -> Vec<String> {
            info.lines().filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
        };
        let of_tollgate = names(&client.line("INFO tollgate").text());
        let stats = client.line("RL.STATS");
        let figures: Vec<String> = stats.items().chunks(2).map(|pair| pair[0].text()).collect();
        assert_eq!(figures, of_tollgate);
        let all = names(&client.line("INFO everything").text());
        for name in &of_tollgate {
            assert_eq!(all.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
        client.cmd(&["HELLO", "3"]);
        assert!(matches!(client.line("RL.STATS"), Reply::Map(pairs) if pairs.len() == figures.len()));
    });
}

#[test]
fn clients_that_are_turned_away_are_counted() {
    let tollgate = Tollgate::builder().arg("--embedded").env("TOLLGATE_SERVER__MAX_CLIENTS", "1").start();
    let mut client = tollgate.client();
    client.line("PING");
    assert_eq!(tollgate.client().read(), error("ERR max number of clients reached"));
    let stats = client.line("RL.STATS");
    let figures = ["clients", "clients_max", "clients_rejected"].map(|name| stats.field(name).integer());
    assert_eq!(figures, [1, 1, 1]);
    assert!(client.line("INFO stats").text().contains("\r\nrejected_connections:1\r\n"));
}

/// Who may see some keys alone may not learn of those of others.
#[test]
fn users_with_a_key_prefix_see_nobody_else_s_keys() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tollgate.toml");
    // The SHA-256 of `secret`.
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let user =
        |name: &str, rest: &str| format!("[[auth.users]]\nname = '{name}'\npassword_sha256 = '{hash}'\n{rest}\n");
    let users = [
        user("shop", "key_prefix = 'shop:'"),
        user("held", "key_prefix = 'held:'\ncommands = 'rl-only'"),
        user("own", "commands = 'rl-only'"),
        user("all", ""),
    ];
    fs::write(&file, format!("[auth]\nmode = 'password'\n{}", users.concat())).unwrap();
    let tollgate = Tollgate::builder().arg("--embedded").arg("--config").arg(file.to_str().unwrap()).start();
    let client = |user: &str| {
        let mut client = tollgate.client();
        assert_eq!(client.line(&format!("AUTH {user} secret")).text(), "OK");
        client
    };
    for line in ["RL.TOP", "rl.stats"] {
        assert_eq!(tollgate.client().line(line), error("NOAUTH Authentication required."));
        for user in ["shop", "held"] {
            let text = "NOPERM this user has a key prefix, and this tells of all keys";
            assert_eq!(client(user).line(line), error(text), "{user}: {line}");
        }
    }
    (0..3).for_each(|_| _ = client("shop").decide("RL.CHECK k 1 1h"));
    for user in ["own", "all"] {
        wait_for_top(&mut client(user), "RL.TOP", &[row(b"shop:k", 2)]);
        assert_eq!(figure(&mut client(user), "checks_denied"), 2);
    }
}

#[test]
fn denials_are_logged_as_far_as_is_asked_for() {
    let tollgate = Tollgate::builder().arg("--embedded").env("TOLLGATE_LOG__DENIALS_PER_S", "2").start();
    let mut client = tollgate.client();
    let lines = || tollgate.log().iter().filter(|line| line.contains("denials: denied")).cloned().collect::<Vec<_>>();
    client.cmd(&["RL.CHECK", "a\n\"b", "5", "1m", "10", "1h", "COST", "6"]);
    wait_until(PATIENCE, || lines().len() == 1);
    let fields =
        "key=a\\n\\\"b limit=5 window_ms=60000 limits=\"5 60000ms 10 3600000ms\" cost=6 source=\"request\" left_out=0";
    assert!(lines()[0].contains(fields), "{:?}", lines());
    for _ in 0..50 {
        client.decide("RL.CHECK k 1 1h COST 2");
    }
    // The next line, in another second, says how many had none.
    wait_until(PATIENCE, || {
        client.decide("RL.CHECK k 1 1h COST 2");
        lines().len() >= 4
    });
    let left_out: u64 =
        lines().iter().map(|line| line.rsplit_once("left_out=").unwrap().1.parse::<u64>().unwrap()).sum();
    assert!(left_out >= 45, "{:?}", lines());

    let tollgate = Tollgate::embedded();
    tollgate.client().decide("RL.CHECK k 1 1h COST 2");
    assert_eq!(tollgate.log().iter().filter(|line| line.contains("denied")).count(), 0);
}
