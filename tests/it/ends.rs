//! How connections end: the client's, Redis's, and those on which more is sent than is read.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, wait_until};
use std::net::Shutdown;
use std::time::{Duration, Instant};

const MEBIBYTE: u64 = 1024 * 1024;
/// What a command is answered that needs Redis while that is down. Client libraries know the code.
fn is_outage(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with("LOADING "))
}

fn ok() -> Reply {
    Reply::Status("OK".into())
}

fn is_blocked(redis: &RedisServer, count: usize) -> bool {
    redis.command("INFO clients").text().contains(&format!("blocked_clients:{count}\r\n"))
}

#[test]
fn a_client_that_is_gone_pops_nothing() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    for end in [Some(Shutdown::Write), Some(Shutdown::Both), None] {
        let mut client = tollgate.client();
        client.send(&[encode(&["BLPOP", "l", "0"]), encode(&["PING"])].concat());
        wait_until(PATIENCE, || is_blocked(&redis, 1));
        match end {
            Some(end) => client.shutdown(end),
            None => drop(client),
        }
        wait_until(PATIENCE, || is_blocked(&redis, 0));
        assert_eq!(redis.command("RPUSH l x"), Reply::Integer(1));
        assert_eq!(redis.command("DEL l"), Reply::Integer(1), "{end:?}: somebody took it");
    }
}

#[test]
fn what_was_sent_before_the_end_is_carried_out() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    for count in 1..50 {
        let mut client = tollgate.client();
        client.send(&encode(&["INCR", "n"]).repeat(count));
        client.shutdown(Shutdown::Write);
        // Redis itself answers most of the time, and carries out always.
        drop(client.read_to_end());
    }
    wait_until(PATIENCE, || redis.command("GET n") == Reply::bulk(&(1..50).sum::<usize>().to_string()));
}

/// The worker's read buffer used to go with the client whose connection was reset: all others then looked closed.
#[test]
fn clients_that_reset_their_connections_harm_no_other() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut stays = tollgate.client();
    assert_eq!(stays.line("SET k 1"), ok());
    for _ in 0..50 {
        let mut client = tollgate.client();
        client.send(&encode(&["GET", "k"]).repeat(100));
        // Closed with replies unread: a reset.
        client.wait_for_bytes();
        drop(client);
        assert_eq!(stays.line("GET k"), Reply::bulk("1"));
        assert_eq!(tollgate.client().line("GET k"), Reply::bulk("1"));
    }
}

#[test]
fn a_lost_connection_to_redis_ends_those_whose_state_is_lost_with_it() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    for (lines, stays) in [
        (&["GET k"][..], true),
        (&["CLIENT SETNAME n", "SELECT 3"], true),
        (&["MULTI", "EXEC"], true),
        (&["WATCH k", "UNWATCH"], true),
        (&["SUBSCRIBE c", "UNSUBSCRIBE c"], true),
        (&["EVAL return(1) 0"], false),
        (&["SCRIPT LOAD return(1)"], false),
        (&["SCRIPT FLUSH"], false),
        (&["FUNCTION LIST"], false),
        (&["MULTI", "GET k"], false),
        (&["WATCH k"], false),
        (&["SUBSCRIBE c"], false),
        (&["PSUBSCRIBE c"], false),
        (&["SSUBSCRIBE c"], false),
        (&["MONITOR"], false),
        (&["CLIENT TRACKING ON"], false),
    ] {
        let mut client = tollgate.client();
        let id = client.line("CLIENT ID").integer();
        for line in lines {
            assert!(!matches!(client.line(line), Reply::Error(_)), "{line}");
        }
        assert_eq!(redis.command(&format!("CLIENT KILL ID {id}")), Reply::Integer(1));
        if stays {
            wait_until(PATIENCE, || client.line("CLIENT ID").integer() != id);
            assert!(!client.decide("RL.CHECK k 1000 60").degraded, "{lines:?}");
        } else {
            // Lines of MONITOR may still come.
            assert!(!client.read_to_end().starts_with(b"-"), "{lines:?}");
        }
    }
    // What was said of the connection is said again to the next.
    let mut client = tollgate.client();
    for line in ["SELECT 3", "CLIENT SETNAME n", "SET three 3"] {
        assert_eq!(client.line(line), ok());
    }
    let id = client.line("CLIENT ID").integer();
    redis.command(&format!("CLIENT KILL ID {id}"));
    wait_until(PATIENCE, || client.line("CLIENT ID").integer() != id);
    assert_eq!((client.line("GET three"), client.line("CLIENT GETNAME")), (Reply::bulk("3"), Reply::bulk("n")));
}

#[test]
fn a_client_that_awaits_an_answer_is_closed_when_redis_ends() {
    let mut redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    let (mut blocks, mut stays) = (tollgate.client(), tollgate.client());
    assert_eq!(stays.line("SET k 1"), ok());
    blocks.send(&[encode(&["ECHO", "before"]), encode(&["BLPOP", "l", "0"]), encode(&["ECHO", "behind"])].concat());
    wait_until(PATIENCE, || is_blocked(&redis, 1));
    redis.kill();
    assert_eq!(blocks.read_to_end(), b"$6\r\nbefore\r\n");
    wait_until(PATIENCE, || is_outage(&stays.line("GET k")));
    assert!(stays.decide("RL.CHECK k 1000 60").degraded);
    redis.start_again();
    wait_until(PATIENCE, || stays.line("GET k") == Reply::Nil);
}

#[test]
fn shutdown_ends_the_client_and_redis_and_not_tollgate() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    let mut client = tollgate.client();
    client.send(&encode(&["SHUTDOWN", "NOSAVE"]));
    assert_eq!(client.read_to_end(), b"");
    let mut next = tollgate.client();
    assert!(next.decide("RL.CHECK k 10 60").degraded);
    wait_until(PATIENCE, || is_outage(&next.line("GET k")));
}

#[test]
fn with_redis_down_every_client_still_connects() {
    let mut redis = RedisServer::start();
    redis.kill();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    let mut client = tollgate.client();
    assert!(matches!(client.line("HELLO 3"), Reply::Map(_)));
    for line in ["CLIENT SETNAME app", "CLIENT SETINFO LIB-NAME lib", "SELECT 0"] {
        assert_eq!(client.line(line), ok(), "{line}");
    }
    assert!(client.line("INFO").text().contains("loading:0"));
    assert!(matches!(client.line("COMMAND DOCS"), Reply::Map(_)));
    assert!(matches!(client.line("CLIENT ID"), Reply::Integer(_)));
    for _ in 0..3 {
        assert!(is_outage(&client.line("GET k")));
        assert!(client.decide("RL.CHECK k 10 60").degraded);
    }
    let long = "x".repeat(300_000);
    assert!(is_outage(&client.cmd(&["SET", "k", &long])));
    redis.start_again();
    wait_until(PATIENCE, || client.line("SET k 1") == ok());
    assert_eq!(client.line("CLIENT GETNAME"), Reply::bulk("app"));
    assert!(matches!(client.line("CONFIG GET save"), Reply::Map(_)));
}

#[test]
fn a_client_that_does_not_read_slows_no_other_and_costs_little() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut other = tollgate.client();
    assert_eq!(other.cmd(&["SET", "big", &"x".repeat(4_000_000)]), ok());
    let before = tollgate.resident_bytes();
    let mut slow: Vec<RawClient> = (0..4).map(|_| tollgate.client()).collect();
    for client in &mut slow {
        client.send(&encode(&["GET", "big"]).repeat(10));
        client.wait_for_bytes();
    }
    let start = Instant::now();
    for _ in 0..200 {
        assert_eq!(other.line("GET nothing"), Reply::Nil);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let grown = tollgate.resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MEBIBYTE, "4 clients cost {grown} bytes");
    for client in &mut slow {
        for _ in 0..10 {
            assert!(matches!(client.read(), Reply::Bulk(text) if text.len() == 4_000_000));
        }
    }
}

#[test]
fn large_values_pass_in_little_memory() {
    const LENGTH: usize = 200_000_000;
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    assert_eq!(client.line("GET k"), Reply::Nil);
    let before = tollgate.resident_bytes();
    let mut most = 0;
    let chunk = vec![b'\n'; 1_000_000];
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${LENGTH}\r\n").as_bytes());
    for _ in 0..LENGTH / chunk.len() {
        client.send(&chunk);
        most = most.max(tollgate.resident_bytes());
    }
    client.send(b"\r\n");
    assert_eq!(client.read(), ok());
    client.send(&[encode(&["GET", "k"]), encode(&["RL.CHECK", "k", "10", "60"])].concat());
    let mut left = format!("${LENGTH}\r\n").len() + LENGTH + 2;
    while left > 0 {
        left -= client.read_at_most(left);
        most = most.max(tollgate.resident_bytes());
    }
    assert_eq!(client.read().decision().remaining, 9);
    let grown = most.saturating_sub(before);
    assert!(grown < 8 * MEBIBYTE, "it took {grown} bytes");
}

/// Requests that waited for a blocking command used to hide that the client was gone, and the command ate an element.
#[test]
fn a_client_that_leaves_with_requests_behind_a_blocking_one_eats_nothing() {
    for behind in ["AUTH x", "QUIT", "MULTI\r\nRL.CHECK k 1 1m"] {
        let redis = RedisServer::start();
        let tollgate = Tollgate::before(&redis);
        let mut client = tollgate.client();
        client.send(format!("BLPOP list 0\r\n{behind}\r\n").as_bytes());
        wait_until(PATIENCE, || is_blocked(&redis, 1));
        drop(client);
        wait_until(PATIENCE, || is_blocked(&redis, 0));
        redis.command("RPUSH list element");
        assert_eq!(redis.command("LLEN list"), Reply::Integer(1), "{behind}");
    }
}

/// One worker of a queue that waited in BLPOP made each restart of Tollgate last for the whole grace.
#[test]
fn a_stop_answers_what_was_received_and_waits_for_nobody_who_blocks() {
    let redis = RedisServer::start();
    let mut tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_SHUTDOWN__GRACE_MS", "600000").start();
    let mut clients: Vec<RawClient> = (0..5).map(|_| tollgate.client()).collect();
    let [blocked, held, subscribed, monitoring, idle] = &mut clients[..] else { unreachable!() };
    blocked.send(&[encode(&["ECHO", "before"]), encode(&["BLPOP", "l", "0"])].concat());
    held.send(&[encode(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]), encode(&["RL.CHECK", "k", "1", "1h"])].concat());
    subscribed.line("SUBSCRIBE c");
    monitoring.line("MONITOR");
    assert_eq!(idle.line("GET k"), Reply::Nil);
    assert_eq!(blocked.read(), Reply::bulk("before"));
    wait_until(PATIENCE, || is_blocked(&redis, 2));
    let began = Instant::now();
    tollgate.signal("-TERM");
    assert!(tollgate.wait_for_exit().success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for client in [blocked, held, subscribed, idle] {
        assert_eq!(client.read_to_end(), b"");
    }
    assert_eq!(redis.command("EXISTS rl:{k}:3600000"), Reply::Integer(0), "what stood behind was not carried out");
}
