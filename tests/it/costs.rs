//! What one client may cost the others: a bound on each thing that it can make Tollgate keep or do.

use crate::common::{Builder, PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, wait_until};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;

/// A Tollgate with the users `admin` and `shop`, who may only check; their passwords are their names.
fn with_users(redis: &RedisServer) -> (Builder, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    let sha256 = |text: &str| {
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let user = |name: &str, commands: &str| {
        format!(
            "[[auth.users]]\nname = \"{name}\"\npassword_sha256 = \"{}\"\ncommands = \"{commands}\"\n",
            sha256(name)
        )
    };
    let text = format!("[auth]\nmode = \"password\"\n{}{}", user("admin", "all"), user("shop", "rl-only"));
    fs::write(&file, text).unwrap();
    (Tollgate::builder().redis(redis).arg("--config").arg(file.to_str().unwrap()), folder)
}

/// Sends until nothing more is taken within a moment, and says how many bytes were.
fn send_until_blocked(client: &mut RawClient, request: &[u8], most: usize) -> usize {
    let chunk = request.repeat(64 * 1024 / request.len());
    let mut writer = client.try_clone();
    let sender = thread::spawn(move || {
        let mut sent = 0;
        while sent < most && writer.try_send(&chunk).is_ok() {
            sent += chunk.len();
        }
        sent
    });
    // The sender's patience is what ends it: a socket takes nothing for that long only if nobody reads.
    sender.join().unwrap()
}

/// Replies to what cannot even be refused cheaply: 16 strangers brought 3.6 GB.
#[test]
fn strangers_who_do_not_read_cost_little() {
    let redis = RedisServer::start();
    let (builder, _folder) = with_users(&redis);
    let tollgate = builder.start();
    let before = tollgate.resident_bytes();
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let mut client = tollgate.client();
            client.give_up_after(Duration::from_millis(500));
            thread::spawn(move || {
                send_until_blocked(&mut client, b"x\r\n", 256 * 1024 * 1024);
                client
            })
        })
        .collect();
    let _clients: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    let grown = tollgate.resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes");
    let mut client = tollgate.client();
    assert_eq!(client.line("AUTH shop shop"), Reply::Status("OK".into()));
    assert!(client.decide("RL.CHECK k 10 60").allowed);
}

/// Replies that are made here, between some that Redis owes behind a command that blocks: only the last piece counted.
#[test]
fn replies_behind_a_command_that_blocks_are_counted_whole() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    client.send(&encode(&["BLPOP", "none", "0"]));
    wait_until(PATIENCE, || redis.command("INFO clients").text().contains("blocked_clients:1"));
    let before = tollgate.resident_bytes();
    client.give_up_after(Duration::from_millis(500));
    let request = [encode(&["INFO", "tollgate"]).repeat(20), encode(&["GET", "k"])].concat();
    send_until_blocked(&mut client, &request, 64 * 1024 * 1024);
    let grown = tollgate.resident_bytes().saturating_sub(before);
    assert!(grown < 160 * MIB, "{grown} bytes");
    assert!(tollgate.client().decide("RL.CHECK k 10 60").allowed);
}

/// 62 of 64 checks of a worker's other clients were degraded, and waited a second.
#[test]
fn an_endless_pipeline_keeps_nobody_waiting() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).arg("--workers=1").start();
    let mut greedy = tollgate.client();
    let mut writer = greedy.try_clone();
    let end = Instant::now() + Duration::from_secs(2);
    let sender = thread::spawn(move || {
        let requests = [encode(&["RL.CHECK", "g", "5", "1h"]).repeat(100), encode(&["RL.HELP"])].concat().repeat(20);
        while Instant::now() < end {
            writer.try_send(&requests).unwrap();
        }
        writer.send(&encode(&["ECHO", "end"]));
    });
    let reader = thread::spawn(move || greedy.read_raw_until(b"end").len());
    let mut client = tollgate.client();
    let (mut longest, mut asked) = (Duration::ZERO, 0);
    while Instant::now() < end {
        let sent = Instant::now();
        assert!(!client.decide(&format!("RL.CHECK v{asked} 5 1h")).degraded);
        longest = longest.max(sent.elapsed());
        asked += 1;
    }
    sender.join().unwrap();
    assert!(reader.join().unwrap() > 1_000_000);
    // The machine may be busy with other tests, and this program is not optimised.
    assert!(asked > 20 && longest < Duration::from_millis(600), "{asked} checks, longest {longest:?}");
}

#[test]
fn logins_that_fail_are_slowed_down_and_counted() {
    let redis = RedisServer::start();
    let (builder, _folder) = with_users(&redis);
    let tollgate = builder.expect_log("logins failed").start();
    let mut client = tollgate.client();
    let began = Instant::now();
    client.send(&encode(&["AUTH", "shop", "guess"]).repeat(5));
    for _ in 0..5 {
        assert!(client.read().text().starts_with("WRONGPASS"));
    }
    // The third has the fourth wait for 100 ms, and that the fifth for 200.
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(client.line("AUTH shop shop"), Reply::Status("OK".into()));
    assert!(client.line("INFO tollgate").text().contains("failed_logins:5\r\n"));
    assert_eq!(tollgate.log().iter().filter(|line| line.contains("logins failed")).count(), 1);
}

#[test]
fn who_does_not_log_in_gives_its_place_back() {
    let tollgate = Tollgate::builder()
        .arg("--embedded")
        .env("TOLLGATE_AUTH__MODE", "password")
        .env("TOLLGATE_AUTH__PASSWORD", "secret")
        .env("TOLLGATE_SERVER__LOGIN_TIMEOUT", "1")
        .start();
    let (mut silent, mut chatty, mut known) = (tollgate.client(), tollgate.client(), tollgate.client());
    assert_eq!(known.line("AUTH secret"), Reply::Status("OK".into()));
    let began = Instant::now();
    let chatter = thread::spawn(move || while chatty.try_send(b"PING\r\n").is_ok() && chatty.try_read().is_ok() {});
    assert_eq!(silent.read_to_end(), b"");
    chatter.join().unwrap();
    assert!(began.elapsed() < PATIENCE);
    assert!(known.decide("RL.CHECK k 10 60").allowed);
}

/// What somebody has begun who may does not go on for somebody who may not.
#[test]
fn a_monitor_ends_when_its_client_becomes_another() {
    let redis = RedisServer::start();
    let (builder, _folder) = with_users(&redis);
    let tollgate = builder.start();
    for login in ["AUTH shop shop", "HELLO 2 AUTH shop shop"] {
        for listen in ["MONITOR", "SUBSCRIBE c"] {
            let mut client = tollgate.client();
            client.line("AUTH admin admin");
            client.line(listen);
            // What Tollgate itself says at its start may still be shown before.
            client.send(login.as_bytes());
            client.send(b"\r\nECHO become\r\n");
            client.read_raw_until(b"become");
            redis.command("PUBLISH c secret");
            redis.command("SET secret 1");
            client.send(b"ECHO next\r\n");
            assert_eq!(client.read_raw_until(b"next"), b"$4\r\nnext\r\n", "{listen} {login}");
        }
    }
}

/// A GET that a Redis which hangs does not answer, and a check behind it: they waited for as long as it hung.
#[test]
fn what_stands_behind_a_stalled_command_is_answered() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder()
        .redis(&redis)
        .env("TOLLGATE_UPSTREAM__STALL_MS", "400")
        .env("TOLLGATE_REDIS__TIMEOUT_MS", "50")
        .expect_log("redis")
        .start();
    let (mut client, mut blocked, mut watching) = (tollgate.client(), tollgate.client(), tollgate.client());
    assert_eq!(client.line("GET k"), Reply::Nil);
    assert_eq!(watching.line("WATCH k"), Reply::Status("OK".into()));
    blocked.send(&encode(&["BLPOP", "l", "0"]));
    wait_until(PATIENCE, || redis.command("INFO clients").text().contains("blocked_clients:1"));
    redis.stop();
    let lines = ["GET k", "PING", "RL.CHECK k 10 60"];
    client.send(&lines.map(|line| encode(&line.split(' ').collect::<Vec<_>>())).concat());
    for _ in 0..2 {
        assert!(client.read().text().starts_with("LOADING Redis does not answer"));
    }
    assert!(client.read().decision().degraded);
    watching.send(b"GET k\r\n");
    assert_eq!(watching.read_to_end(), b"", "its state is lost");
    redis.cont();
    redis.command("LPUSH l v");
    assert_eq!(blocked.read(), Reply::Array(vec![Reply::bulk("l"), Reply::bulk("v")]));
    wait_until(PATIENCE, || client.line("GET k") == Reply::Nil);
}
