//! Redis away, hanging, restarted, or without its scripts: what clients see, and what they never see.

use crate::common::{Decision, PATIENCE, RawClient, RedisServer, Reply, Tollgate, wait_until};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// `redis.timeout_ms` in these tests.
const TIMEOUT_MS: u64 = 100;
/// Longest that a client may wait: the deadline, and what a busy machine takes to run everybody.
const LONGEST_WAIT: Duration = Duration::from_millis(TIMEOUT_MS + 900);

/// A Tollgate with the deadline of these tests, which may warn about Redis.
fn before(redis: &RedisServer, settings: &[(&str, &str)]) -> Tollgate {
    let builder =
        Tollgate::builder().redis(redis).env("TOLLGATE_REDIS__TIMEOUT_MS", &TIMEOUT_MS.to_string()).expect_log("redis");
    settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start()
}

/// A Redis that is down, at a port where it can be started.
fn redis_that_is_down() -> RedisServer {
    let mut redis = RedisServer::start();
    redis.kill();
    redis
}

/// Decides, and fails when that took too long.
#[track_caller]
fn decide_in_time(client: &mut RawClient, line: &str) -> Decision {
    let sent = Instant::now();
    let decision = client.decide(line);
    assert!(sent.elapsed() < LONGEST_WAIT, "{line} took {:?}", sent.elapsed());
    decision
}

#[track_caller]
fn wait_until_exact(client: &mut RawClient) {
    wait_until(PATIENCE, || !decide_in_time(client, "RL.PEEK probe 5 60").degraded);
}

#[test]
fn it_starts_and_serves_with_redis_down_and_is_exact_once_redis_is_up() {
    let mut redis = redis_that_is_down();
    let tollgate = before(&redis, &[]);
    let mut client = tollgate.client();
    assert_eq!(client.line("PING"), Reply::Status("PONG".into()));
    assert!(matches!(client.line("HELLO 3"), Reply::Map(_)));
    let first = decide_in_time(&mut client, "RL.CHECK k 10 1h");
    assert_eq!((first.allowed, first.limit, first.retry_after_ms, first.degraded), (true, 10, 0, true));
    redis.start_again();
    wait_until_exact(&mut client);
    let exact = decide_in_time(&mut client, "RL.CHECK new 10 1h");
    assert_eq!((exact.allowed, exact.remaining, exact.degraded), (true, 9, false));
}

#[test]
fn a_redis_that_crashes_costs_no_client_its_connection() {
    let mut redis = RedisServer::start();
    let tollgate = before(&redis, &[]);
    let mut clients: Vec<RawClient> = (0..20).map(|_| tollgate.client()).collect();
    for client in &mut clients {
        assert!(!client.decide("RL.CHECK k 1000 1h").degraded);
    }
    redis.kill();
    for client in &mut clients {
        let decision = decide_in_time(client, "RL.CHECK k 1000 1h");
        assert!(decision.allowed && decision.degraded, "{decision:?}");
    }
    redis.start_again();
    for client in &mut clients {
        wait_until_exact(client);
    }
    redis.kill();
    wait_until(PATIENCE, || decide_in_time(&mut clients[0], "RL.CHECK k 1000 1h").degraded);
}

#[test]
fn a_redis_that_hangs_makes_no_client_wait_beyond_the_deadline() {
    let redis = RedisServer::start();
    let tollgate = before(&redis, &[]);
    let mut client = tollgate.client();
    assert!(!client.decide("RL.CHECK k 1000 1h").degraded);
    redis.stop();
    thread::scope(|scope| {
        for index in 0..20 {
            let mut client = tollgate.client();
            scope.spawn(move || {
                for _ in 0..20 {
                    let decision = decide_in_time(&mut client, &format!("RL.CHECK key{index} 1000 1h"));
                    assert!(decision.allowed && decision.degraded, "{decision:?}");
                }
            });
        }
    });
    // By now the breaker is open: nobody waits for the deadline any more, but for the odd probe.
    let start = Instant::now();
    client.send(b"RL.CHECK k 1000 1h\r\n".repeat(1000).as_slice());
    assert!((0..1000).all(|_| client.read().decision().degraded));
    assert!(start.elapsed() < LONGEST_WAIT * 3, "1,000 checks took {:?}", start.elapsed());
    redis.cont();
    wait_until_exact(&mut client);
}

#[test]
fn new_connections_are_served_while_redis_hangs() {
    let redis = RedisServer::start();
    redis.stop();
    let tollgate = before(&redis, &[]);
    for _ in 0..10 {
        let mut client = tollgate.client();
        assert_eq!(client.line("CLIENT SETNAME app"), Reply::Status("OK".into()));
        assert!(decide_in_time(&mut client, "RL.CHECK k 1000 1h").degraded);
    }
    redis.cont();
    wait_until_exact(&mut tollgate.client());
}

#[test]
fn fallback_local_admits_its_share_of_the_limit() {
    let redis = redis_that_is_down();
    for (ratio, share) in [("0.5", 5), ("0.2", 2), ("1", 10), ("0.001", 1)] {
        let tollgate = before(&redis, &[("TOLLGATE_FALLBACK__RATIO", ratio)]);
        let mut client = tollgate.client();
        for remaining in (0..share).rev() {
            let decision = decide_in_time(&mut client, "RL.CHECK k 10 1h");
            assert_eq!((decision.allowed, decision.remaining, decision.degraded), (true, remaining, true), "{ratio}");
        }
        let denied = decide_in_time(&mut client, "RL.CHECK k 10 1h");
        assert_eq!((denied.allowed, denied.remaining, denied.degraded), (false, 0, true));
        assert!((1..=3_600_000).contains(&denied.retry_after_ms), "{denied:?}");
        let peeked = decide_in_time(&mut client, "RL.PEEK other 10 1h");
        assert_eq!((peeked.allowed, peeked.degraded), (true, true));
        let never = decide_in_time(&mut client, "RL.CHECK k 10 1h COST 11");
        assert_eq!((never.allowed, never.remaining, never.retry_after_ms), (false, 0, -1));
    }
}

#[test]
fn the_local_bucket_refills_with_time() {
    let redis = redis_that_is_down();
    let tollgate = before(&redis, &[]);
    let mut client = tollgate.client();
    assert!(decide_in_time(&mut client, "RL.CHECK k 2 300ms").allowed);
    let denied = decide_in_time(&mut client, "RL.CHECK k 2 300ms");
    assert!(!denied.allowed && (1..=300).contains(&denied.retry_after_ms), "{denied:?}");
    thread::sleep(Duration::from_millis(denied.retry_after_ms as u64));
    assert!(decide_in_time(&mut client, "RL.CHECK k 2 300ms").allowed);
}

#[test]
fn fallback_open_admits_and_closed_denies_all() {
    let redis = redis_that_is_down();
    for (mode, allowed) in [("open", true), ("closed", false)] {
        let tollgate = before(&redis, &[("TOLLGATE_FALLBACK__MODE", mode)]);
        let mut client = tollgate.client();
        for line in ["RL.CHECK k 2 60", "RL.CHECK k 2 60", "RL.CHECK k 2 60", "RL.PEEK k 2 60 5 1h COST 2"] {
            let decision = decide_in_time(&mut client, line);
            assert_eq!((decision.allowed, decision.degraded), (allowed, true), "{mode}: {line}");
            assert_eq!(decision.retry_after_ms > 0, !allowed, "{mode}: {line}: {decision:?}");
        }
        assert!(!decide_in_time(&mut client, "RL.CHECK k 2 60 COST 3").allowed, "{mode}: a cost above the limit");
    }
}

#[test]
fn fallback_error_says_so_and_keeps_the_connection() {
    let mut redis = redis_that_is_down();
    let tollgate = before(&redis, &[("TOLLGATE_FALLBACK__MODE", "error")]);
    let mut client = tollgate.client();
    for line in ["RL.CHECK k 2 60", "RL.PEEK k 2 60"] {
        let sent = Instant::now();
        assert_eq!(client.line(line), Reply::Error("UNAVAILABLE Redis cannot be reached".into()));
        assert!(sent.elapsed() < LONGEST_WAIT);
    }
    redis.start_again();
    wait_until(PATIENCE, || matches!(client.line("RL.CHECK k 1000000 60"), Reply::Array(_)));
    assert!(!client.decide("RL.CHECK k 1000000 60").degraded);
}

#[test]
fn a_reset_without_redis_is_an_error_in_time() {
    let redis = redis_that_is_down();
    let tollgate = before(&redis, &[]);
    let mut client = tollgate.client();
    let sent = Instant::now();
    assert_eq!(client.line("RL.RESET k"), Reply::Error("UNAVAILABLE Redis cannot be reached".into()));
    assert!(sent.elapsed() < LONGEST_WAIT, "{:?}", sent.elapsed());
}

#[test]
fn an_outage_is_logged_once_and_so_is_its_end() {
    let mut redis = RedisServer::start();
    let tollgate = before(&redis, &[]);
    let mut client = tollgate.client();
    wait_until_exact(&mut client);
    let at_start = tollgate.log().len();
    redis.kill();
    client.send(b"RL.CHECK k 1000 1h\r\n".repeat(2000).as_slice());
    let degraded = (0..2000).filter(|_| client.read().decision().degraded).count();
    assert!(degraded > 1000, "{degraded}");
    redis.start_again();
    wait_until_exact(&mut client);
    wait_until(PATIENCE, || tollgate.log().len() > at_start + 1);
    let since = &tollgate.log()[at_start..];
    let warnings = since.iter().filter(|line| line.contains("WARN")).count();
    assert!((1..=2).contains(&warnings) && since.len() <= 4, "{since:#?}");
}

#[test]
fn scripts_that_redis_forgets_are_never_missed() {
    let mut redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    thread::scope(|scope| {
        let askers: Vec<_> = (0..4)
            .map(|index| {
                let mut client = tollgate.client();
                scope.spawn(move || {
                    for count in 1..=300 {
                        let line =
                            format!("RL.{} key{index} 1000 1h 2000 1d", if count % 3 == 0 { "PEEK" } else { "CHECK" });
                        assert!(!client.decide(&line).degraded);
                    }
                    assert_eq!(client.decide(&format!("RL.PEEK key{index} 1000 1h")).remaining, 1000 - 200 - 1);
                    assert_eq!(client.line(&format!("RL.RESET key{index}")), Reply::Integer(1));
                })
            })
            .collect();
        let mut admin = redis.client();
        while askers.iter().any(|asker| !asker.is_finished()) {
            assert_eq!(admin.line("SCRIPT FLUSH"), Reply::Status("OK".into()));
        }
    });
    // Each script on its own, the first time after a flush.
    for (line, reply) in [("RL.RESET none", 0), ("RL.RESET none", 0)] {
        redis.command("SCRIPT FLUSH");
        assert_eq!(tollgate.client().line(line), Reply::Integer(reply));
    }
    drop(tollgate);

    let tollgate = before(&redis, &[]);
    let mut client = tollgate.client();
    assert!(!client.decide("RL.CHECK k 5 1h").degraded);
    redis.kill();
    redis.start_again();
    wait_until_exact(&mut client);
    assert!(!client.decide("RL.CHECK k 5 1h").degraded);
}

#[test]
fn a_key_holds_one_sorted_set_for_each_window_with_a_time_to_live() {
    let redis = RedisServer::start();
    for (prefix, settings) in [("rl:", vec![]), ("app1/", vec![("TOLLGATE_REDIS__PREFIX", "app1/")])] {
        redis.command("FLUSHALL");
        let tollgate = before(&redis, &settings);
        let mut client = tollgate.client();
        client.decide("RL.PEEK user:42 5 7ms");
        assert_eq!(redis.keys(), Vec::<Vec<u8>>::new(), "a peek writes nothing");
        client.decide("RL.CHECK user:42 10 60 100 1h COST 3");
        client.decide("RL.CHECK user:42 10 60 100 1h");
        let logs: Vec<String> =
            [60_000, 3_600_000].iter().map(|window| format!("{prefix}{{user:42}}:{window}")).collect();
        let names: Vec<String> = redis.keys().iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        assert!(logs.iter().all(|log| names.contains(log)), "{names:?}");
        for (log, window_ms) in logs.iter().zip([60_000, 3_600_000]) {
            assert_eq!(redis.command(&format!("TYPE {log}")), Reply::Status("zset".into()));
            let ttl_ms = redis.command(&format!("PTTL {log}")).integer();
            assert!((window_ms - 1000..=window_ms * 2).contains(&ttl_ms), "{log} lives {ttl_ms} ms");
        }
        for name in &names {
            assert!(name.starts_with(prefix), "{name}");
            assert!(redis.command(&format!("PTTL {name}")).integer() > 0, "{name} lives for ever");
        }
        // A denied request adds nothing.
        let size = redis.command(&format!("ZCARD {}", logs[0])).integer();
        assert!(!client.decide("RL.CHECK user:42 10 60 COST 7").allowed);
        assert_eq!(redis.command(&format!("ZCARD {}", logs[0])).integer(), size);
        assert_eq!(client.line("RL.RESET user:42"), Reply::Integer(1));
        assert!(logs.iter().all(|log| redis.command(&format!("EXISTS {log}")) == Reply::Integer(0)));
    }
}

#[test]
fn a_log_leaves_nothing_behind_when_its_window_has_passed() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    assert!(tollgate.client().decide("RL.CHECK k 5 50ms").allowed);
    wait_until(PATIENCE, || redis.command("EXISTS rl:{k}:50") == Reply::Integer(0));
}

/// The part of a name that a cluster hashes: what stands between its first `{` and the next `}`, unless that is
/// nothing; else all of it.
fn hashed_part(name: &[u8]) -> &[u8] {
    let Some(open) = name.iter().position(|byte| *byte == b'{') else { return name };
    let inner = &name[open + 1..];
    match inner.iter().position(|byte| *byte == b'}') {
        None | Some(0) => name,
        Some(close) => &inner[..close],
    }
}

#[test]
fn all_windows_of_a_key_share_a_cluster_slot_even_if_it_holds_braces() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    let keys: [&[u8]; 10] = [b"k", b"a{b}c", b"}x", b"{}", b"}", b"{", b"{}}", b"}{", b"a\0}b", b"{user}:1"];
    let mut names_seen = BTreeSet::new();
    for key in keys {
        redis.command("FLUSHALL");
        client.cmd(&[b"RL.CHECK", key, b"5", b"1m", b"5", b"1h", b"5", b"1d"]).decision();
        let logs: Vec<Vec<u8>> =
            redis.keys().into_iter().filter(|name| name.starts_with(b"rl:{") || name.contains(&b'{')).collect();
        assert_eq!(logs.len(), 3, "{logs:?}");
        let slots: BTreeSet<&[u8]> = logs.iter().map(|name| hashed_part(name)).collect();
        assert_eq!(slots.len(), 1, "{key:?} is spread over {slots:?}");
        for log in logs {
            assert!(names_seen.insert(log.clone()), "{key:?} shares {log:?} with another key");
        }
    }
}

/// What `INFO tollgate` says of this.
#[track_caller]
fn told(client: &mut RawClient, name: &str) -> String {
    let info = client.line("INFO tollgate").text();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {info}")).to_owned()
}

#[test]
fn info_tells_how_the_store_stands() {
    let mut redis = RedisServer::start();
    let tollgate = before(&redis, &[]);
    let mut client = tollgate.client();
    assert!(!client.decide("RL.CHECK k 5 1h").degraded);
    for (name, value) in [("store_up", "1"), ("breaker_state", "closed"), ("answers_by_store", "1")] {
        assert_eq!(told(&mut client, name), value, "{name}");
    }
    redis.kill();
    wait_until(PATIENCE, || told(&mut client, "store_up") == "0");
    assert!(client.decide("RL.CHECK k 5 1h").degraded);
    assert!(["open", "half-open"].contains(&&*told(&mut client, "breaker_state")));
    assert_ne!(told(&mut client, "store_last_error"), "");
    assert_eq!(told(&mut client, "answers_by_fallback"), "1");
    redis.start_again();
    wait_until_exact(&mut client);
    for (name, value) in [("store_up", "1"), ("breaker_state", "closed"), ("store_down_seconds", "0")] {
        assert_eq!(told(&mut client, name), value, "{name}");
    }
}

#[test]
fn info_of_tollgate_alone_does_not_wait_for_a_redis_that_hangs() {
    let redis = RedisServer::start();
    let tollgate = before(&redis, &[]);
    let mut client = tollgate.client();
    assert_eq!(client.line("GET k"), Reply::Nil, "its connection to Redis is there");
    redis.stop();
    assert_eq!(told(&mut client, "store_up"), "1", "nobody has asked it anything");
    client.send(b"GET k\r\nINFO tollgate\r\n");
    redis.cont();
    assert_eq!(client.read(), Reply::Nil, "replies keep their order");
    assert!(client.read().text().starts_with("# Tollgate"));
    // Where it would not be answered at once it is Redis's, as any other command.
    assert_eq!(client.line("MULTI"), Reply::Status("OK".into()));
    assert_eq!(client.line("INFO tollgate"), Reply::Status("QUEUED".into()));
    assert_eq!(client.line("EXEC").items().len(), 1);
    client.send(b"CLIENT REPLY SKIP\r\nINFO tollgate\r\nGET k\r\n");
    assert_eq!(client.read(), Reply::Nil);
}

#[test]
fn what_redis_answered_in_time_is_given_out_by_a_tollgate_that_was_late() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let redis = RedisServer::start();
    let deadline_ms = DEADLINE.as_millis().to_string();
    let settings = [("TOLLGATE_REDIS__TIMEOUT_MS", deadline_ms.as_str()), ("TOLLGATE_SERVER__WORKERS", "1")];
    let tollgate = before(&redis, &settings);
    let (mut watcher, mut clients) = (tollgate.client(), [tollgate.client(), tollgate.client()]);
    assert!(!clients[0].decide("RL.CHECK k 10 1h").degraded);
    redis.stop();
    let begin = Instant::now();
    for client in &mut clients {
        let batches = told(&mut watcher, "store_batches");
        client.send(b"RL.CHECK k 10 1h\r\n");
        wait_until(PATIENCE, || told(&mut watcher, "store_batches") != batches);
    }
    tollgate.signal("-STOP");
    redis.cont();
    wait_until(PATIENCE, || redis.command("ZCARD rl:{k}:3600000").integer() == 3);
    assert!(begin.elapsed() < DEADLINE, "it was not in time");
    wait_until(PATIENCE, || begin.elapsed() > 2 * DEADLINE);
    tollgate.signal("-CONT");
    let decisions = clients.each_mut().map(|client| client.read().decision());
    assert_eq!(decisions.map(|decision| (decision.remaining, decision.degraded)), [(8, false), (7, false)]);
}
