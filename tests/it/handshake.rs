//! Who a client is and where: no command of its runs before each step that decides this was answered well.

use crate::common::{PATIENCE, RedisServer, Reply, Tollgate, encode, wait_until};

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

const NO_AUTH: &str = "NOAUTH Authentication required.";

fn ok() -> Reply {
    Reply::Status("OK".into())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.into())
}

/// Kills the client's connection to Redis, so that its next command opens another.
fn cut(redis: &RedisServer, id: i64) {
    assert_eq!(redis.command(&format!("CLIENT KILL ID {id}")), Reply::Integer(1));
}

/// A user whose password was changed went on as the service, whose rights were more.
#[test]
fn a_client_whose_login_is_refused_again_runs_nothing() {
    for revoke in ["ACL SETUSER low resetpass >other", "ACL SETUSER low off", "ACL DELUSER low"] {
        for mode in ["none", "redis"] {
            let redis = RedisServer::start_with(&["--user", "low", "on", ">word", "~*", "&*", "+@all"]);
            let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", mode);
            let tollgate = builder.start();
            let mut client = tollgate.client();
            assert_eq!(client.line("AUTH low word"), ok());
            assert_eq!(client.line("SET k 1"), ok());
            let id = client.line("CLIENT ID").integer();
            redis.command(revoke);
            // Redis itself closes the connections of a user who is deleted.
            redis.command(&format!("CLIENT KILL ID {id}"));
            // In one write: no part of it slips past.
            let lines = ["SET k 2", "INCR k", "SET other 2"];
            client.send(&lines.map(|line| encode(&line.split(' ').collect::<Vec<_>>())).concat());
            if mode == "none" {
                let answer = String::from_utf8(client.read_to_end()).unwrap();
                assert!(answer.is_empty() || answer == format!("-{WRONG_PASSWORD}\r\n"), "{revoke}: {answer}");
            } else {
                assert_eq!(
                    [client.read(), client.read(), client.read()],
                    [const { NO_AUTH }; 3].map(error),
                    "{revoke}"
                );
            }
            assert_eq!(redis.command("GET k"), Reply::bulk("1"), "{revoke} {mode}");
            assert_eq!(redis.command("EXISTS other"), Reply::Integer(0), "{revoke} {mode}");
        }
    }
}

/// Only checks are asked, for which no connection is needed: so none tells that the user is gone.
#[test]
fn a_login_that_no_connection_carries_is_asked_about_anew() {
    let redis = RedisServer::start_with(&["--user", "low", "on", ">word", "~*", "&*", "+@all"]);
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", "redis").start();
    let mut client = tollgate.client();
    assert_eq!(client.line("AUTH low word"), ok());
    assert!(!client.decide("RL.CHECK k 10 60").degraded);
    redis.command("ACL DELUSER low");
    // Two seconds are promised, and the machine may be busy.
    wait_until(PATIENCE, || client.line("RL.CHECK k 1000000 60") == error(NO_AUTH));
    // One whose connection was lost for another reason stays.
    redis.command("ACL SETUSER low on >word ~* &* +@all");
    let mut client = tollgate.client();
    assert_eq!(client.line("AUTH low word"), ok());
    let id = client.line("CLIENT ID").integer();
    cut(&redis, id);
    wait_until(PATIENCE, || redis.command("CLIENT LIST").text().contains("user=low"));
    assert!(!client.decide("RL.CHECK k 10 60").degraded);
    assert_ne!(client.line("CLIENT ID").integer(), id);
}

#[test]
fn a_login_that_was_taken_on_trust_in_an_outage_is_asked_about_when_redis_is_back() {
    let mut redis = RedisServer::start();
    redis.command("ACL SETUSER low on >word ~* &* +@all");
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", "redis").expect_log("redis").start();
    assert_eq!(tollgate.client().line("AUTH low word"), ok());
    redis.kill();
    let mut client = tollgate.client();
    wait_until(PATIENCE, || client.line("AUTH low word") == ok());
    assert!(client.decide("RL.CHECK k 10 60").degraded);
    // Comes back without its users.
    redis.start_again();
    wait_until(PATIENCE, || client.line("RL.CHECK k 1000000 60") == error(NO_AUTH));
}

/// A wrong password in `redis.addr` made everyone Redis's `default`.
#[test]
fn nothing_runs_when_redis_refuses_tollgates_own_login() {
    let redis = RedisServer::start_with(&["--user", "service", "on", ">word", "~*", "&*", "+@all"]);
    let builder = Tollgate::builder().env("REDIS_ADDR", &format!("redis://service:wrong@{}/0", redis.addr()));
    let tollgate = builder.expect_log("redis").start();
    let mut client = tollgate.client();
    client.send(&[encode(&["SET", "k", "1"]), encode(&["GET", "k"])].concat());
    for _ in 0..2 {
        assert!(client.read().text().starts_with("LOADING "));
    }
    assert!(client.decide("RL.CHECK k 10 60").degraded);
    assert_eq!(redis.command("DBSIZE"), Reply::Integer(0));
    wait_until(PATIENCE, || client.line("INFO tollgate").text().contains("WRONGPASS"));
}

/// A database that cannot be selected became database 0.
#[test]
fn nothing_runs_in_another_database_than_the_one_chosen() {
    let mut redis = RedisServer::start();
    let url = format!("redis://{}/99", redis.addr());
    let tollgate = Tollgate::builder().env("REDIS_ADDR", &url).expect_log("redis").start();
    let mut client = tollgate.client();
    assert!(client.line("SET k 1").text().starts_with("LOADING "));
    assert_eq!(redis.command("DBSIZE"), Reply::Integer(0));

    // A client's own choice, made while nobody could say that there is no such database.
    redis.kill();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    let mut client = tollgate.client();
    assert!(client.decide("RL.CHECK k 10 60").degraded);
    assert_eq!(client.line("SELECT 99"), ok());
    redis.start_again();
    let mut answers = Vec::new();
    wait_until(PATIENCE, || {
        answers.push(client.line("SET k 1"));
        !answers[answers.len() - 1].text().starts_with("LOADING ")
    });
    assert_eq!(answers.pop(), Some(error("ERR DB index is out of range")));
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(redis.command("EXISTS k"), Reply::Integer(0));
}

/// The name was taken for an option, and the words behind it for a user and a password.
#[test]
fn a_name_is_no_login() {
    let mut redis = RedisServer::start_with(&["--user", "alice", "on", ">pw", "~*", "&*", "+@all"]);
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", "redis").expect_log("redis").start();
    let mut client = tollgate.client();
    assert!(!matches!(client.line("HELLO 2 SETNAME auth AUTH alice pw"), Reply::Error(_)));
    assert_eq!(client.line("CLIENT GETNAME"), Reply::bulk("auth"));
    assert!(!matches!(client.line("HELLO 3 AUTH alice pw SETNAME auth"), Reply::Error(_)));
    redis.kill();
    let login = |line: &str| tollgate.client().line(line);
    wait_until(PATIENCE, || login("AUTH alice pw") == ok());
    assert!(login("AUTH AUTH alice").text().starts_with("UNAVAILABLE "));
}

#[test]
fn a_password_that_looks_like_an_option_is_shown_as_nobodys_name() {
    let tollgate = Tollgate::builder().arg("--embedded").start();
    let mut client = tollgate.client();
    assert_eq!(client.line("HELLO 3 AUTH setname s3cret"), error(WRONG_PASSWORD));
    assert_eq!(client.line("CLIENT GETNAME"), Reply::Nil);
}

/// What a web page can make a browser send.
#[test]
fn who_speaks_http_is_closed_before_anything_is_run() {
    let redis = RedisServer::start();
    let servers = [
        Tollgate::builder().arg("--embedded").expect_log("possible attack").start(),
        Tollgate::builder().redis(&redis).expect_log("possible attack").start(),
    ];
    for tollgate in &servers {
        let requests: [&[u8]; 5] = [
            b"POST / HTTP/1.1\r\nRL.CHECK k 10 60\r\n\r\n",
            b"post x\r\nRL.CHECK k 10 60\r\n",
            b"*1\r\n$4\r\nPOST\r\nRL.CHECK k 10 60\r\n",
            b"host: 127.0.0.1\r\nRL.CHECK k 10 60\r\n",
            b"*2\r\n$5\r\nHost:\r\n$1\r\na\r\nRL.CHECK k 10 60\r\n",
        ];
        for request in requests {
            let mut client = tollgate.client();
            client.send(request);
            assert_eq!(client.read_to_end(), b"", "{}", request.escape_ascii());
        }
        // Also on a connection that speaks with Redis, and in a request that is too long to be kept.
        let mut client = tollgate.client();
        client.line("GET k");
        client.send(&[&b"*2\r\n$4\r\nPOST\r\n$100000\r\n"[..], &[b'x'; 100_000], b"\r\nRL.CHECK k 10 60\r\n"].concat());
        assert_eq!(client.read_to_end(), b"");
        assert_eq!(tollgate.client().decide("RL.PEEK k 10 60").remaining, 9);
        let lines = || tollgate.log().iter().filter(|line| line.contains("possible attack")).count();
        // The log is written apart from what it tells of.
        wait_until(PATIENCE, || lines() > 0);
        assert_eq!(lines(), 1, "one line a minute");
    }
}
