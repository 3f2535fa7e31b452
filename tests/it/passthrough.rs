//! Every other command passes through with its full meaning, and RL commands stand beside it in order.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, wait_until};
use std::thread;

fn ok() -> Reply {
    Reply::Status("OK".into())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.into())
}

fn bulks(texts: &[&str]) -> Vec<Reply> {
    texts.iter().map(|text| Reply::bulk(text)).collect()
}

/// How many clients Redis has.
fn connections(redis: &RedisServer) -> usize {
    redis.command("CLIENT LIST").text().lines().count()
}

#[test]
fn a_client_that_only_checks_costs_redis_no_connection() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    assert!(!tollgate.client().decide("RL.CHECK k 1000 1h").degraded);
    let before = connections(&redis);
    let mut clients: Vec<RawClient> = (0..50).map(|_| tollgate.client()).collect();
    for client in &mut clients {
        assert!(matches!(client.line("HELLO 3 SETNAME app"), Reply::Map(_)));
        assert_eq!(client.line("CLIENT SETINFO LIB-NAME lib"), ok());
        assert!(!client.decide("RL.CHECK k 1000 1h").degraded);
    }
    // The shared connections are one a worker at most, so none of the fifty has its own.
    assert!(connections(&redis) < before + 25);
    assert_eq!(clients[0].line("GET k"), Reply::Nil);
    assert!(redis.command("CLIENT LIST").text().contains("name=app"));
}

#[test]
fn what_a_client_said_before_holds_at_redis_too() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    assert!(matches!(client.line("HELLO 3 SETNAME one"), Reply::Map(_)));
    assert_eq!(client.line("CLIENT SETNAME two"), ok());
    assert_eq!(client.line("HSET h f v"), Reply::Integer(1));
    assert_eq!(client.line("HGETALL h"), Reply::Map(vec![(Reply::bulk("f"), Reply::bulk("v"))]));
    assert_eq!(client.line("CLIENT GETNAME"), Reply::bulk("two"));
    assert!(matches!(client.line("HELLO 2"), Reply::Array(_)));
    assert_eq!(client.line("HGETALL h"), Reply::Array(bulks(&["f", "v"])));
    assert_eq!(client.line("RESET"), Reply::Status("RESET".into()));
    assert_eq!(client.line("CLIENT GETNAME"), Reply::Nil);
}

#[test]
fn replies_keep_the_order_of_a_mixed_pipeline() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    for round in 0..50 {
        let lines = ["PING", "RL.CHECK k 100000 1h", "SET a 1", "RL.PEEK k 7 1h", "RL.HELP x", "GET a", "ECHO e"];
        let lines = lines.map(|line| encode(&line.split(' ').collect::<Vec<_>>()));
        client.send(&lines.concat());
        assert_eq!(client.read(), Reply::Status("PONG".into()), "{round}");
        assert_eq!(client.read().decision().limit, 100_000);
        assert_eq!(client.read(), ok());
        assert_eq!(client.read().decision().limit, 7);
        assert_eq!(client.read(), error("ERR wrong number of arguments for 'rl.help' command: RL.HELP"));
        assert_eq!(client.read(), Reply::bulk("1"));
        assert_eq!(client.read(), Reply::bulk("e"));
    }
}

#[test]
fn own_commands_are_refused_in_a_transaction_which_then_fails() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    for (line, name) in [
        ("RL.CHECK k 10 60", "rl.check"),
        ("rl.peek k 10 60", "rl.peek"),
        ("RL.RESET k", "rl.reset"),
        ("RL.HELP", "rl.help"),
        ("RL.CHECK", "rl.check"),
    ] {
        assert_eq!(client.line("MULTI"), ok());
        assert_eq!(client.line("SET a 1"), Reply::Status("QUEUED".into()));
        let refusal = format!("ERR '{name}' cannot run inside MULTI with other commands: ");
        assert!(client.line(line).text().starts_with(&refusal), "{line}");
        let aborted = "EXECABORT Transaction discarded because of previous errors.";
        assert_eq!(client.line("EXEC"), error(aborted));
        assert_eq!(client.line("GET a"), Reply::Nil);
        // In one write, so that the check is read before Redis has said a word.
        let lines = ["MULTI", "GET a", "RL.CHECK k 1 1h", "DISCARD"];
        client.send(&lines.map(|line| encode(&line.split(' ').collect::<Vec<_>>())).concat());
        assert_eq!(client.read(), ok());
        assert_eq!(client.read(), Reply::Status("QUEUED".into()));
        assert!(client.read().text().starts_with("ERR 'rl.check' cannot run inside MULTI"));
        assert_eq!(client.read(), ok());
    }
    assert_eq!(client.decide("RL.PEEK k 10 60").remaining, 9, "nothing was counted before");
}

#[test]
fn a_transaction_without_replies_is_marked_all_the_same() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    let lines = ["CLIENT REPLY OFF", "MULTI", "SET a 1", "RL.CHECK k 10 60", "EXEC", "CLIENT REPLY ON"];
    client.send(&lines.map(|line| encode(&line.split(' ').collect::<Vec<_>>())).concat());
    assert_eq!(client.read(), ok());
    assert_eq!(client.line("GET a"), Reply::Nil);
    assert_eq!(client.decide("RL.CHECK k 10 60").remaining, 9);
    // What is done without a reply is done.
    client.send(&encode(&["CLIENT", "REPLY", "SKIP"]));
    client.send(&encode(&["RL.CHECK", "k", "10", "60"]));
    assert_eq!(client.decide("RL.CHECK k 10 60").remaining, 7);
}

#[test]
fn a_subscriber_of_resp2_may_not_check_and_one_of_resp3_may() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    for (subscribe, unsubscribe) in
        [("SUBSCRIBE", "UNSUBSCRIBE"), ("PSUBSCRIBE", "PUNSUBSCRIBE"), ("SSUBSCRIBE", "SUNSUBSCRIBE")]
    {
        client.send(&[encode(&[subscribe, "c"]), encode(&["RL.CHECK", "k", "10", "60"])].concat());
        assert_eq!(client.read().items()[0], Reply::bulk(&subscribe.to_lowercase()));
        let refused = "ERR Can't execute 'rl.check': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                       allowed in this context";
        assert_eq!(client.read(), error(refused));
        client.send(&[encode(&[unsubscribe]), encode(&["RL.PEEK", "k", "10", "60"])].concat());
        assert_eq!(client.read().items()[0], Reply::bulk(&unsubscribe.to_lowercase()));
        assert_eq!(client.read().decision().remaining, 9);
    }
    client.line("HELLO 3");
    let confirmed = [bulks(&["subscribe", "c"]), vec![Reply::Integer(1)]].concat();
    assert_eq!(client.line("SUBSCRIBE c"), Reply::Push(confirmed));
    assert_eq!(client.decide("RL.CHECK k 10 60").remaining, 9);
    redis.command("PUBLISH c text");
    assert_eq!(client.read(), Reply::Push(bulks(&["message", "c", "text"])));
    // An array that looks like a confirmation is the reply of a script all the same.
    client.send(&encode(&["EVAL", "return {'subscribe', 'x', 5}", "0"]));
    assert!(matches!(client.read(), Reply::Array(_)));
    assert_eq!(client.decide("RL.CHECK k 10 60").remaining, 8);
}

/// A reply that was made while the rest of a message had not come yet used to be written into its middle.
#[test]
fn no_reply_comes_within_a_message() {
    const MESSAGES: usize = 40;
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    client.line("HELLO 3");
    client.line("SUBSCRIBE c");
    client.line("RL.CHECK denied 1 1h");
    let mut publisher = redis.client();
    let text = "x".repeat(1_000_000);
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..MESSAGES {
                assert_eq!(publisher.cmd(&["PUBLISH", "c", &text]), Reply::Integer(1));
            }
        });
        let mut messages = 0;
        while messages < MESSAGES {
            client.send(&encode(&["RL.CHECK", "denied", "1", "1h"]));
            while let Reply::Push(message) = client.read() {
                assert_eq!(message[..2], bulks(&["message", "c"]));
                messages += 1;
            }
        }
    });
}

#[test]
fn invalidations_reach_those_who_track() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let invalid = || vec![Reply::bulk("invalidate"), Reply::Array(bulks(&["k"]))];
    let mut client = tollgate.client();
    client.line("HELLO 3");
    assert_eq!(client.line("CLIENT TRACKING ON"), ok());
    assert_eq!(client.line("GET k"), Reply::Nil);
    redis.command("SET k 1");
    assert_eq!(client.read(), Reply::Push(invalid()));
    assert_eq!(client.line("GET k"), Reply::bulk("1"));

    let (mut hears, mut reads) = (tollgate.client(), tollgate.client());
    let id = hears.line("CLIENT ID").integer();
    hears.line("SUBSCRIBE __redis__:invalidate");
    assert_eq!(reads.line(&format!("CLIENT TRACKING ON REDIRECT {id}")), ok());
    assert_eq!(reads.line("GET k"), Reply::bulk("1"));
    redis.command("SET k 2");
    let message = [bulks(&["message", "__redis__:invalidate"]), vec![Reply::Array(bulks(&["k"]))]].concat();
    assert_eq!(hears.read(), Reply::Array(message));
}

#[test]
fn monitor_shows_what_redis_runs() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    assert_eq!(client.line("MONITOR"), ok());
    redis.command("SET seen 1");
    loop {
        // Whatever Tollgate's own connections say is seen too.
        let Reply::Status(line) = client.read() else { panic!("not a line of MONITOR") };
        if line.ends_with(r#""SET" "seen" "1""#) {
            break;
        }
    }
    client.send(&encode(&["RL.PEEK", "k", "10", "60"]));
    loop {
        match client.read() {
            Reply::Status(_) => {}
            reply => break assert_eq!(reply.decision().remaining, 9),
        }
    }
    client.send(&encode(&["QUIT"]));
    assert!(client.read_to_end().ends_with(b"+OK\r\n"));
}

/// The line of MONITOR that came before the reply was taken for a part of it, and the reply passed as Redis gave it.
#[test]
fn a_client_that_monitors_gets_whole_replies() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    assert_eq!(client.line("MONITOR"), ok());
    client.send(&[encode(&["INFO"]), encode(&["ECHO", "behind"])].concat());
    let mut replies = std::iter::from_fn(|| Some(client.read())).filter(|reply| !matches!(reply, Reply::Status(_)));
    assert!(replies.next().unwrap().text().contains("# Tollgate"));
    assert_eq!(replies.next(), Some(Reply::bulk("behind")));
}

#[test]
fn a_check_behind_a_blocking_command_waits_for_it() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    client.send(&[encode(&["BLPOP", "l", "0"]), encode(&["RL.CHECK", "k", "10", "60"]), encode(&["QUIT"])].concat());
    wait_until(PATIENCE, || redis.command("INFO clients").text().contains("blocked_clients:1"));
    assert_eq!(redis.command("RPUSH l x"), Reply::Integer(1));
    assert_eq!(client.read(), Reply::Array(bulks(&["l", "x"])));
    assert_eq!(client.read().decision().remaining, 9);
    assert_eq!(client.read(), ok());
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(tollgate.client().line("WAIT 1 50"), Reply::Integer(0));
}

#[test]
fn a_replication_stream_passes() {
    let redis = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    redis.command("SET k stored");
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    assert_eq!(client.line("GET k"), Reply::bulk("stored"));
    client.send(b"SYNC\r\n");
    let stream = client.read_raw_to(b"stored");
    assert!(stream.starts_with(b"$") || stream.starts_with(b"\n"), "{}", stream.escape_ascii());
    assert!(stream.windows(5).any(|window| window == b"REDIS"));
}

#[test]
fn passwords_are_the_clients_own_or_those_of_the_address() {
    let redis = RedisServer::start();
    for line in ["SET a 1", "ACL SETUSER app on >apples ~* &* +@all", "CONFIG SET requirepass secret"] {
        assert_eq!(redis.command(line), ok());
    }
    let url = format!("redis://:secret@127.0.0.1:{}", redis.port());
    let tollgate = Tollgate::builder().arg("--redis").arg(&url).start();
    let mut client = tollgate.client();
    assert_eq!(client.line("ACL WHOAMI"), Reply::bulk("default"));
    assert!(!client.decide("RL.CHECK k 10 60").degraded);

    let wrong = error("WRONGPASS invalid username-password pair or user is disabled.");
    for first in ["AUTH wrong", "AUTH app wrong", "HELLO 3 AUTH app wrong"] {
        let mut client = tollgate.client();
        assert_eq!(client.line(first), wrong, "{first}");
        assert_eq!(client.line(first), wrong, "{first}");
        assert_eq!(client.line("ACL WHOAMI"), Reply::bulk("default"));
        client.send(&[encode(&["AUTH", "app", "apples"]), encode(&["ACL", "WHOAMI"])].concat());
        assert_eq!((client.read(), client.read()), (ok(), Reply::bulk("app")));
    }
    let mut client = tollgate.client();
    let hello = ["HELLO", "3", "AUTH", "app", "apples", "SETNAME", "n"];
    client.send(&[encode(&hello), encode(&["ACL", "WHOAMI"])].concat());
    assert!(matches!(client.read(), Reply::Map(_)));
    assert_eq!(client.read(), Reply::bulk("app"));
    // Who the client is holds on its next connection to Redis too.
    let id = client.line("CLIENT ID").integer();
    assert_eq!(tollgate.client().line(&format!("CLIENT KILL ID {id}")), Reply::Integer(1));
    wait_until(PATIENCE, || client.line("CLIENT ID").integer() != id);
    assert_eq!((client.line("ACL WHOAMI"), client.line("CLIENT GETNAME")), (Reply::bulk("app"), Reply::bulk("n")));
}
