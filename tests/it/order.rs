//! RL commands take effect where they stand among the other commands of their connection.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, wait_until};

fn send_lines(client: &mut RawClient, lines: &[&str]) {
    let requests: Vec<Vec<u8>> = lines.iter().map(|line| encode(&line.split(' ').collect::<Vec<_>>())).collect();
    client.send(&requests.concat());
}

#[test]
fn a_check_takes_effect_behind_what_stands_before_it_and_before_what_stands_behind() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    client.decide("RL.CHECK k 10 60");
    // The log is deleted a third of a second after all was sent.
    send_lines(&mut client, &["BLPOP none 0.3", "DEL rl:{k}:60000", "RL.PEEK k 10 60"]);
    assert_eq!([client.read(), client.read()], [Reply::Nil, Reply::Integer(1)]);
    assert_eq!(client.read().decision().remaining, 9, "nothing is left of the check before");
    for _ in 0..50 {
        send_lines(&mut client, &["RL.CHECK k 10 60", "DEL rl:{k}:60000", "RL.CHECK k 10 60", "EXISTS rl:{k}:60000"]);
        assert_eq!(client.read().decision().remaining, 9);
        assert_eq!(client.read(), Reply::Integer(1));
        assert_eq!(client.read().decision().remaining, 9);
        assert_eq!(client.read(), Reply::Integer(1));
        send_lines(&mut client, &["RL.RESET k", "EXISTS rl:{k}:60000", "ECHO a"]);
        assert_eq!([client.read(), client.read()], [Reply::Integer(1), Reply::Integer(0)]);
        assert_eq!(client.read(), Reply::bulk("a"));
    }
}

#[test]
fn a_check_behind_a_command_that_blocks_is_not_counted_before() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    send_lines(&mut client, &["BLPOP l 0", "RL.CHECK k 10 60"]);
    let is_blocked = || redis.command("INFO clients").text().contains("blocked_clients:1");
    wait_until(PATIENCE, is_blocked);
    assert_eq!(tollgate.client().decide("RL.PEEK k 10 60").remaining, 9);
    redis.command("LPUSH l v");
    assert_eq!(client.read(), Reply::Array(vec![Reply::bulk("l"), Reply::bulk("v")]));
    assert_eq!(client.read().decision().remaining, 9);
}

/// Where all that a client sends waits for what it sent before, a pipeline of both kinds in turn takes a round trip for
/// each of its commands.
#[test]
fn what_cannot_tell_is_not_waited_for() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    client.decide("RL.CHECK k 100 60");
    assert_eq!(client.line("SET a b"), Reply::Status("OK".into()));
    let batches = || -> usize {
        let info = tollgate.client().line("INFO tollgate").text();
        info.lines().find_map(|line| line.strip_prefix("store_batches:")).unwrap().parse().unwrap()
    };
    let before = batches();
    let pairs = 20;
    send_lines(&mut client, &["GET a", "RL.CHECK k 100 60"].repeat(pairs));
    for remaining in (0..99).rev().take(pairs) {
        assert_eq!(client.read(), Reply::bulk("b"));
        assert_eq!(client.read().decision().remaining, remaining);
    }
    assert!(batches() - before < 10, "{} batches", batches() - before);

    let before = batches();
    send_lines(&mut client, &["EXISTS rl:{k}:60000", "RL.CHECK k 100 60"].repeat(pairs));
    for remaining in (0..99 - i64::try_from(pairs).unwrap()).rev().take(pairs) {
        assert_eq!(client.read(), Reply::Integer(1));
        assert_eq!(client.read().decision().remaining, remaining);
    }
    assert_eq!(batches() - before, pairs, "one after another, where a key of Tollgate's is named");
}
