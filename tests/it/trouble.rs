//! What keeps Redis from being used is named for what it is, in the log, in INFO, in answers and by
//! `--check-config --connect`, together with what to do about it.

use crate::common::{
    Certificates, PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, free_port, program, wait_until,
};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

/// What `INFO tollgate` says of this.
#[track_caller]
fn told(client: &mut RawClient, name: &str) -> String {
    let info = client.line("INFO tollgate").text();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {info}")).to_owned()
}

fn lines<'a>(log: &'a [String], text: &str) -> Vec<&'a String> {
    log.iter().filter(|line| line.contains(text)).collect()
}

/// What `--check-config --connect` says.
fn try_connection(redis: &str, settings: &[(&str, &str)]) -> (Output, String) {
    let mut command = program();
    command.args(["--redis", redis, "--check-config", "--connect"]).envs(settings.iter().copied());
    command.env("TOLLGATE_REDIS__TIMEOUT_MS", "10000");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

/// A Tollgate before what is at this address tells of this problem, once, with this advice, and so does a dry run.
#[track_caller]
fn assert_told_with(redis: &str, settings: &[(&str, &str)], what: &str, advice: &str) {
    let builder = Tollgate::builder().arg("--redis").arg(redis).expect_log("redis");
    let builder = builder.env("TOLLGATE_REDIS__CONNECT_TIMEOUT_MS", "300");
    let tollgate = settings.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).start();
    let mut client = tollgate.client();
    wait_until(PATIENCE, || told(&mut client, "store_up") == "0");
    let mut problem = String::new();
    let start = Instant::now();
    while !problem.contains(what) {
        problem = told(&mut client, "store_problem");
        assert!(start.elapsed() < PATIENCE, "{problem}");
    }
    let told_advice = told(&mut client, "store_advice");
    assert!(told_advice.contains(advice), "{told_advice}");
    assert!(client.decide("RL.CHECK k 1000 1h").degraded);
    assert!(client.line("RL.RESET k").text().starts_with("UNAVAILABLE Redis cannot be "));
    wait_until(PATIENCE, || !lines(&tollgate.log(), "the fallback answers").is_empty());
    // It is tried again after 100 ms and 200 ms, which is not told again.
    let until = Instant::now() + Duration::from_millis(400);
    wait_until(PATIENCE, || Instant::now() > until);
    let log = tollgate.log();
    let lines = lines(&log, "the fallback answers");
    assert!(lines.len() == 1 && lines[0].contains(what), "{lines:#?}");

    let (output, said) = try_connection(redis, settings);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("failed: {}", told(&mut client, "store_problem"))), "{said}");
    assert!(said.contains(advice) && !said.contains("s3cret"), "{said}");
    assert!(!log.concat().contains("s3cret"), "{log:#?}");
}

#[track_caller]
fn assert_told(redis: &str, what: &str, advice: &str) {
    assert_told_with(redis, &[], what, advice);
}

/// The line of the README for a Redis with users.
fn acl_line() -> String {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("ACL SETUSER tollgate").unwrap();
    let line = rest.split("```").next().unwrap();
    format!("ACL SETUSER tollgate {}", line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Each of these was "redis is down".
#[test]
fn a_login_that_fails_is_told_for_what_it_is() {
    let redis = RedisServer::start();
    let addr = redis.addr();
    assert_told(
        &format!("redis://:s3cret@{addr}"),
        "a password is set, and Redis has none",
        "take it out of redis.password",
    );
    assert_told(
        &format!("redis://{addr}/99"),
        "Redis has no database of the number in redis.addr",
        "raise `databases`",
    );
    redis.command("CONFIG SET requirepass word");
    assert_told(&addr.to_string(), "Redis asks for a password, and none is set", "set redis.password");
    assert_told(&format!("redis://:s3cret@{addr}"), "Redis does not take the user and password", "correct redis.user");
}

/// A user who may not all that checks need was found out by the first check, and then again and again: `bad argument #1
/// to 'min'`, or nothing but the text of an ACL.
#[test]
fn a_right_that_is_missing_is_told_with_the_line_that_gives_it() {
    let redis = RedisServer::start();
    redis.command(&acl_line());
    let addr = format!("redis://tollgate:secret@{}", redis.addr());
    for (taken, given) in
        [("-zadd", "+zadd"), ("-zcard -time", "+time +zcard"), ("-evalsha", "+evalsha"), ("-eval", "+eval")]
    {
        redis.command(&format!("ACL SETUSER tollgate {taken}"));
        assert_told(&addr, "the user 'tollgate' lacks rights: checks fail", &format!("ACL SETUSER tollgate {given}"));
        redis.command(&format!("ACL SETUSER tollgate {given}"));
    }
    redis.command("ACL SETUSER tollgate resetkeys ~other:*");
    assert_told(&addr, "the user 'tollgate' lacks rights: checks fail", "ACL SETUSER tollgate ~rl:*");
}

/// And it works as soon as that line is run.
#[test]
fn a_right_that_is_taken_while_serving_is_told_and_missed_until_it_is_given_back() {
    let redis = RedisServer::start();
    redis.command(&acl_line());
    let addr = format!("redis://tollgate:secret@{}", redis.addr());
    let tollgate = Tollgate::builder().arg("--redis").arg(&addr).expect_log("redis").start();
    let mut client = tollgate.client();
    assert!(!client.decide("RL.CHECK k 1000 1h").degraded);
    redis.command("ACL SETUSER tollgate -zcard");
    for _ in 0..100 {
        assert!(client.decide("RL.CHECK k 1000 1h").degraded);
    }
    wait_until(PATIENCE, || told(&mut client, "store_advice") == "ACL SETUSER tollgate +zcard");
    redis.command("ACL SETUSER tollgate +zcard");
    wait_until(PATIENCE, || !client.decide("RL.CHECK k 1000 1h").degraded);
    let log = tollgate.log();
    let (down, up) = (lines(&log, "the fallback answers"), lines(&log, "redis answers again"));
    // Redis says only that there is a right that is missing; the next look finds out which.
    assert!((1..=2).contains(&down.len()) && down.last().unwrap().contains("+zcard"), "{log:#?}");
    assert_eq!(up.len(), 1, "{log:#?}");
    // How long, how many answers, and what is to be written of it; and in the end that it is.
    wait_until(PATIENCE, || lines(&tollgate.log(), "admitted is written to redis").len() == 1);
    assert!(["down_ms=", "degraded=", "written_back=", "unwritten="].iter().all(|part| up[0].contains(part)), "{up:?}");
}

/// A Redis that is away and comes back with a user who may not write cannot be used for another reason.
#[test]
fn a_cause_that_turns_out_to_be_another_is_told_too() {
    let mut redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    assert!(!tollgate.client().decide("RL.CHECK k 1000 1h").degraded);
    redis.kill();
    wait_until(PATIENCE, || lines(&tollgate.log(), "the fallback answers").len() == 1);
    redis.start_again_with(&["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-zadd"]);
    wait_until(PATIENCE, || lines(&tollgate.log(), "ACL SETUSER default +zadd").len() == 1);
}

#[test]
fn a_server_of_another_kind_is_told_for_what_it_is() {
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", "1"]);
    assert_told(&replica.addr().to_string(), "it is a replica", "have redis.addr lead to the primary, 127.0.0.1:1");
    let node = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    // It was not told yet which slots it serves.
    assert_told(&node.addr().to_string(), "nobody says where the nodes of", "know each other");
    let full = RedisServer::start_with(&["--maxmemory", "1"]);
    assert_told(&full.addr().to_string(), "Redis is out of memory", "raise maxmemory of Redis");
}

/// Redis says so and closes. What it said was lost behind the `Broken pipe` of what was sent after it.
#[test]
fn a_redis_with_too_many_clients_is_told_for_what_it_is() {
    let redis = RedisServer::start_with(&["--maxclients", "2"]);
    let crowd: Vec<RawClient> = (0..2).map(|_| redis.client()).collect();
    let said = |client: &mut RawClient| client.line("PING") == Reply::Status("PONG".into());
    let mut crowd = crowd;
    assert!(crowd.iter_mut().all(said));
    assert_told(&redis.addr().to_string(), "Redis has as many clients as it takes", "raise maxclients of Redis");
}

/// Somebody who says this to whoever connects, whatever they ask.
fn stranger(says: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(says);
        }
    });
    addr
}

#[test]
fn what_is_no_redis_is_told_for_what_it_is() {
    let web = stranger(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    assert_told(&web.to_string(), "it is a web server", "have redis.addr lead to a Redis");
    let other = stranger(b"SSH-2.0-OpenSSH_9.6\r\n");
    assert_told(&other.to_string(), "it is no Redis", "SSH-2.0-OpenSSH_9.6");
    let tls = stranger(b"\x15\x03\x01\x00\x02\x02\x46");
    assert_told(&tls.to_string(), "it wants TLS", "rediss://");
    let mute = stranger(b"");
    assert_told(&mute.to_string(), "what is there closes the connection without a word", "rediss://");
    let nobody = free_port();
    assert_told(&format!("127.0.0.1:{nobody}"), "nobody listens there", "see whether redis.addr is right");
    assert_told("unix:///no/such/socket", "there is no such socket", "see whether redis.addr is right");
    assert_told("redis.invalid:6379", "the name 'redis.invalid' leads nowhere", "DNS");
}

/// The texts were those of the library: `UnsupportedCertVersion`, `UnknownIssuer`.
#[test]
fn tls_that_fails_is_told_for_what_it_is() {
    let certificates = Certificates::new();
    let path = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let port = free_port();
    let options = format!(
        "--tls-port {port} --tls-ca-cert-file {} --tls-cert-file {} --tls-key-file {}",
        path("ca.crt"),
        path("server.crt"),
        path("server.key")
    );
    let redis = RedisServer::start_with(&options.split(' ').collect::<Vec<_>>());
    let (ca_file, authority) = ("TOLLGATE_REDIS__CA_FILE", path("ca.crt"));
    let trusting = [(ca_file, authority.as_str())];
    let ours = format!("rediss://localhost:{port}");
    assert_told(&ours, "its certificate comes from an authority that is not trusted here", "redis.ca_file");
    assert_told_with(&ours, &trusting, "Redis asks for a certificate", "redis.cert_file and redis.key_file");
    assert_told_with(&format!("rediss://{}", redis.addr()), &trusting, "TLS", "redis:// in place of rediss://");
    assert_told(&format!("127.0.0.1:{port}"), "what is there closes the connection without a word", "rediss://");
}

#[test]
fn all_that_is_needed_can_be_tried() {
    let redis = RedisServer::start();
    redis.command(&acl_line());
    let addr = format!("redis://tollgate:secret@{}", redis.addr());
    let (output, said) = try_connection(&addr, &[]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for line in [
        format!("connect: {}", redis.addr()),
        "login: as 'tollgate'".to_owned(),
        "server: Redis ".to_owned(),
        "commands: 24 that are needed".to_owned(),
        "script: record".to_owned(),
        "subscribe: rl:reset".to_owned(),
    ] {
        assert!(said.contains(&format!("\n{line}")), "no {line} in {said}");
    }
    assert!(!said.contains("warning"), "{said}");
    assert_eq!(redis.keys(), Vec::<Vec<u8>>::new(), "nothing is written");

    let output = program().args(["--embedded", "--check-config", "--connect"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing to connect to"));
    let output = program().args(["--embedded", "--connect"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// With the README's user the subscription was lost every second, as that user may not PING.
#[test]
fn the_user_of_the_readme_lacks_nothing() {
    let redis = RedisServer::start();
    redis.command(&acl_line());
    let addr = format!("redis://tollgate:secret@{}", redis.addr());
    let tollgate = Tollgate::builder().arg("--redis").arg(&addr).start();
    let mut client = tollgate.client();
    assert!(!client.decide("RL.CHECK k 1 1h").degraded);
    // One tells of resets, one of policies.
    let subscriptions = || {
        let list = redis.command("CLIENT LIST").text();
        let lines = list.lines().filter(|line| line.contains(" sub=1 "));
        lines.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect::<BTreeSet<_>>()
    };
    wait_until(PATIENCE, || subscriptions().len() == 2);
    let first = subscriptions();
    let refused = || {
        let stats = redis.command("INFO errorstats").text();
        let count = stats.split("errorstat_NOPERM:count=").nth(1).and_then(|rest| rest.lines().next()).map(str::parse);
        count.and_then(Result::ok).unwrap_or(0)
    };
    let before: u64 = refused();
    // Each was asked for a sign of life, and refused that.
    wait_until(PATIENCE, || told(&mut client, "store_up") != "1" || refused() >= before + 4);
    assert_eq!(subscriptions(), first, "a subscription was lost");
    assert_eq!(told(&mut client, "policies_problem"), "");
    assert_eq!(told(&mut client, "store_problem"), "");
}

#[test]
fn what_works_but_not_for_ever_is_a_warning() {
    let redis = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    redis.command(&acl_line());
    redis.command("ACL SETUSER tollgate -publish -subscribe");
    let addr = format!("redis://tollgate:secret@{}", redis.addr());
    let tollgate = Tollgate::builder().arg("--redis").arg(&addr).expect_log("redis").start();
    let mut client = tollgate.client();
    assert!(!client.decide("RL.CHECK k 1000 1h").degraded);
    wait_until(PATIENCE, || told(&mut client, "store_problem").contains("denials are not cached"));
    let problem = told(&mut client, "store_problem");
    assert!(problem.contains("its maxmemory-policy is allkeys-lru") && problem.contains("RL.RESET fails"), "{problem}");
    let advice = told(&mut client, "store_advice");
    assert!(advice.contains("noeviction") && advice.contains("ACL SETUSER tollgate +publish"), "{advice}");
    wait_until(PATIENCE, || lines(&tollgate.log(), "redis works, but not as it should").len() >= 3);
    // Made anew, the connections show the same, which is no news.
    redis.command("CLIENT KILL TYPE normal");
    wait_until(PATIENCE, || !client.decide("RL.CHECK k 1000 1h").degraded);
    let log = tollgate.log();
    assert_eq!(lines(&log, "redis works, but not as it should").len(), 3, "{log:#?}");
    let (output, said) = try_connection(&addr, &[]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said.matches("warning: ").count(), 3, "{said}");
    client.send(&encode(&["QUIT"]));
}
