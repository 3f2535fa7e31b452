//! Transactions of Tollgate's own commands, which client libraries make of pipelines of their own accord.

use crate::common::{RawClient, RedisServer, Reply, Tollgate, encode, on_each_store};

const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";

fn ok() -> Reply {
    Reply::Status("OK".into())
}

fn queued() -> Reply {
    Reply::Status("QUEUED".into())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.into())
}

fn send_lines(client: &mut RawClient, lines: &[&str]) {
    let requests: Vec<Vec<u8>> = lines.iter().map(|line| encode(&line.split(' ').collect::<Vec<_>>())).collect();
    client.send(&requests.concat());
}

/// redis-py's `pipeline()` sends all of this in one write, a person at redis-cli a line at a time.
#[test]
fn a_transaction_of_own_commands_alone_is_answered_as_redis_would() {
    on_each_store(|client| {
        let lines =
            ["MULTI", "RL.CHECK k 10 1h COST 4", "rl.peek k 10 1h", "RL.CHECK k 10 1h COST 7", "RL.RESET k", "EXEC"];
        for pipelined in [true, false] {
            if pipelined {
                send_lines(client, &lines);
            }
            let mut replies = lines.map(|line| if pipelined { client.read() } else { client.line(line) });
            let results = std::mem::replace(&mut replies[5], Reply::Nil);
            assert_eq!(replies[..5], [ok(), queued(), queued(), queued(), queued()]);
            let [first, peek, denied, reset] = results.items() else { panic!("{results:?}") };
            assert_eq!((first.decision().remaining, peek.decision().remaining), (6, 5));
            assert!(!denied.decision().allowed);
            assert_eq!(*reset, Reply::Integer(1));
        }
        assert_eq!(client.decide("RL.PEEK k 10 1h").remaining, 9, "the last reset took all back");
    });
}

#[test]
fn what_is_wrong_in_it_is_said_at_once_and_nothing_is_counted() {
    on_each_store(|client| {
        for wrong in ["RL.CHECK k 0 60", "RL.CHECK k", "RL.RESET", "RL.HELP x"] {
            assert_eq!(client.line("MULTI"), ok());
            assert_eq!(client.line("RL.CHECK k 10 60"), queued());
            assert!(client.line(wrong).text().starts_with("ERR "), "{wrong}");
            assert_eq!(client.line("RL.CHECK k 10 60"), queued());
            assert_eq!(client.line("EXEC"), error(ABORTED));
        }
        assert_eq!(client.line("MULTI"), ok());
        assert_eq!(client.line("MULTI"), error("ERR MULTI calls can not be nested"));
        assert_eq!(client.line("WATCH k"), error("ERR WATCH inside MULTI is not allowed"));
        assert_eq!(client.line("RL.CHECK k 10 60"), queued());
        assert_eq!(client.line("DISCARD"), ok());
        assert_eq!(client.line("EXEC"), error("ERR EXEC without MULTI"));
        assert_eq!(client.line("DISCARD"), error("ERR DISCARD without MULTI"));
        for empty in [["MULTI", "EXEC"], ["MULTI", "DISCARD"]] {
            assert_eq!(client.line(empty[0]), ok());
            assert_ne!(client.line(empty[1]), Reply::Nil);
        }
        assert_eq!(client.decide("RL.PEEK k 10 60").remaining, 9);
    });
}

#[test]
fn any_other_command_makes_it_a_transaction_of_redis() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    for pipelined in [true, false] {
        // With and without a connection of its own to begin with.
        for first in ["PING", "GET a"] {
            let mut client = tollgate.client();
            client.line(first);
            let lines = ["MULTI", "SET a 1", "GET a", "EXEC", "GET a"];
            if pipelined {
                send_lines(&mut client, &lines);
            }
            let replies = lines.map(|line| if pipelined { client.read() } else { client.line(line) });
            let results = Reply::Array(vec![ok(), Reply::bulk("1")]);
            assert_eq!(replies, [ok(), queued(), queued(), results, Reply::bulk("1")]);
        }
    }
    // What is watched only Redis knows of.
    let mut client = tollgate.client();
    assert_eq!(client.line("WATCH a"), ok());
    assert_eq!(client.line("MULTI"), ok());
    assert!(client.line("RL.CHECK k 10 60").text().starts_with("ERR 'rl.check' cannot run inside MULTI"));
    assert_eq!(client.line("EXEC"), error(ABORTED));
    assert_eq!(client.line("MULTI"), ok());
    assert_eq!(client.line("RL.CHECK k 10 60"), queued(), "EXEC has ended the watch");
    assert!(client.line("GET a").text().starts_with("ERR 'get' cannot run in a transaction of RL commands"));
    assert_eq!(client.line("EXEC"), error(ABORTED));
    // A long request, which is passed on as it comes.
    let long = "x".repeat(300_000);
    assert_eq!(client.line("MULTI"), ok());
    assert_eq!(client.cmd(&["SET", "a", &long]), queued());
    assert_eq!(client.line("EXEC"), Reply::Array(vec![ok()]));
    assert_eq!(client.decide("RL.PEEK k 10 60").remaining, 9);
}

#[test]
fn a_transaction_that_redis_does_not_take_is_no_run_of_single_commands() {
    let redis = RedisServer::start_with(&["--user", "low", "on", ">word", "~*", "+@all", "-multi"]);
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    assert_eq!(client.line("AUTH low word"), ok());
    assert_eq!(client.line("MULTI"), ok());
    assert!(client.line("SET a 1").text().starts_with("NOPERM"));
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn it_is_answered_by_the_fallback_while_redis_is_down() {
    let mut redis = RedisServer::start();
    redis.kill();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    let mut client = tollgate.client();
    send_lines(&mut client, &["MULTI", "RL.CHECK k 10 1h", "RL.RESET k", "EXEC"]);
    assert_eq!([client.read(), client.read(), client.read()], [ok(), queued(), queued()]);
    let results = client.read();
    assert!(results.items()[0].decision().degraded);
    assert_eq!(results.items()[1], error("UNAVAILABLE Redis cannot be reached"));
    assert_eq!(client.line("MULTI"), ok());
    assert!(client.line("SET a 1").text().starts_with("LOADING "));
    assert_eq!(client.line("GET a"), queued());
    assert_eq!(client.line("EXEC"), error(ABORTED));
}
