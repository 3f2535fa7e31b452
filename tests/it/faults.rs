//! Redis, the network and Tollgate itself break in every way known, under load. Of each fault: no client waits longer
//! than the deadline, no more is admitted than is promised, and afterwards all is exact again and nothing is missing
//! in the log.
//!
//! The promise: a Tollgate that is cut off from Redis admits what was left, at most `fallback.ratio x limit`, and
//! `fallback.ratio x limit` more for each window that passes. So within any window clients are admitted
//!
//! - `limit` while Redis can be asked
//! - up to `ratio x limit` more when the only Tollgate is cut off: what was left and what was used make one limit
//! - up to `2 x ratio x limit` more for each Tollgate that is cut off while others go on using what was left
//! - up to `limit` more when Redis loses its data
//!
//! `tests/faults/run` makes a table of these tests, with longer faults.

pub mod load;
mod names;
mod no_fault;
mod way_back;

use crate::common::{
    Builder, Decision, PATIENCE, Proxy, RedisServer, Tollgate, Weather, free_port, is_thorough, wait_until,
};
use load::{Observed, Traffic, under_load};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// `redis.timeout_ms`, at its default.
const TIMEOUT: Duration = Duration::from_millis(50);
/// What a client may wait beyond the deadline on a busy machine, besides its own stalls.
const SLACK: Duration = Duration::from_millis(150);
/// `fallback.ratio`, at its default.
pub const RATIO: f64 = 0.5;
/// `breaker.probe_max_ms` with its jitter, `redis.connect_timeout_ms` and some: the longest way back.
const LONGEST_RECOVERY: Duration = Duration::from_millis(2400 + 1000 + 1000);

/// How long faults last.
fn duration() -> Duration {
    Duration::from_secs(if is_thorough() { 5 } else { 1 })
}

/// A Tollgate with the deadline that it has by default, which may warn about Redis.
pub fn tollgate_before(redis: SocketAddr) -> Tollgate {
    builder_before(&redis.to_string()).start()
}

fn builder_before(redis: &str) -> Builder {
    let builder = Tollgate::builder().arg("--redis").arg(redis).expect_log("redis");
    builder.env("TOLLGATE_REDIS__TIMEOUT_MS", &TIMEOUT.as_millis().to_string())
}

/// What is promised of a fault.
pub struct Promise<'a> {
    pub fault: &'a str,
    /// More than the limit that may be admitted within a window, as a share of it.
    pub over_admission: f64,
    /// Whether any answer may come from the fallback.
    pub may_degrade: bool,
}

impl Promise<'_> {
    /// Fails when it was not kept.
    #[track_caller]
    pub fn check(&self, seen: &Observed) {
        let (over, key) = seen.over_admission();
        self.report(seen, over);
        let longest = TIMEOUT + SLACK + 2 * seen.stall;
        assert!(seen.longest_wait() <= longest, "a client waited {:?} of at most {longest:?}", seen.longest_wait());
        assert!(over <= self.over_admission, "{:.1} % too many of {key}", over * 100.0);
        assert!(seen.recovery() <= LONGEST_RECOVERY, "exact again only after {:?}", seen.recovery());
        assert!(self.may_degrade || seen.degraded() == 0, "{} answers by the fallback", seen.degraded());
    }

    /// Adds a line to the table, where one is made.
    fn report(&self, seen: &Observed, over: f64) {
        let Some(table) = env::var_os("TOLLGATE_FAULTS_TABLE") else { return };
        let line = format!(
            "| {} | {} ms | {:.1} % of {:.0} % | {} ms |\n",
            self.fault,
            seen.longest_wait().as_millis(),
            over * 100.0,
            self.over_admission * 100.0,
            seen.recovery().as_millis(),
        );
        fs::File::options().append(true).create(true).open(table).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// The fault takes Redis away and leaves its data.
#[track_caller]
fn outage(fault: &str, redis: &RedisServer, tollgate: &Tollgate, act: impl FnOnce()) {
    let seen = under_load(&[tollgate.addr()], false, act);
    Promise { fault, over_admission: RATIO, may_degrade: true }.check(&seen);
    assert!(seen.degraded() > 0, "nobody noticed the fault");
    seen.assert_fallback_within_bound(tollgate.addr());
    assert_nothing_is_missing(redis, &seen);
    assert_few_warnings(tollgate);
}

/// The fault takes nothing away that a client notices.
#[track_caller]
fn nuisance(fault: &str, redis: &RedisServer, tollgate: &Tollgate, act: impl FnOnce()) {
    let seen = under_load(&[tollgate.addr()], false, act);
    Promise { fault, over_admission: 0.0, may_degrade: false }.check(&seen);
    assert_nothing_is_missing(redis, &seen);
}

/// Fails when anything that a client was admitted for is not in Redis's log of the last hour.
#[track_caller]
pub fn assert_nothing_is_missing(redis: &RedisServer, seen: &Observed) {
    for traffic in seen.traffic {
        let admitted = seen.admitted(traffic);
        // What was answered too late, or owed by a worker that was not first to reconnect, may be written a moment after.
        wait_until(PATIENCE, || logged(redis, traffic) >= admitted);
    }
}

/// The weight of the log of an hour.
fn logged(redis: &RedisServer, traffic: Traffic) -> usize {
    let entries = redis.entries(&format!("rl:{{{}}}:3600000", traffic.key()));
    entries.iter().map(|(_, weight)| usize::try_from(*weight).unwrap()).sum()
}

/// Fails when changes of state were logged more than once or twice.
#[track_caller]
fn assert_few_warnings(tollgate: &Tollgate) {
    let warnings = tollgate.log().iter().filter(|line| line.contains("WARN")).count();
    assert!((1..=3).contains(&warnings), "{warnings} warnings about one fault");
}

/// Runs commands against Redis again and again, for as long as a fault lasts.
fn pester(redis: &RedisServer, pause: Duration, line: &str) {
    let end = Instant::now() + duration();
    while Instant::now() < end {
        redis.command(line);
        thread::sleep(pause);
    }
}

#[test]
fn killed_and_restarted_empty() {
    let mut redis = RedisServer::start();
    let tollgate = tollgate_before(redis.addr());
    let seen = under_load(&[tollgate.addr()], false, || {
        redis.kill();
        thread::sleep(duration());
        redis.start_again();
    });
    Promise { fault: "redis-server killed, restarted empty", over_admission: RATIO + 1.0, may_degrade: true }
        .check(&seen);
    seen.assert_fallback_within_bound(tollgate.addr());
    assert_few_warnings(&tollgate);
}

#[test]
fn killed_and_restarted_with_its_log() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let tollgate = tollgate_before(redis.addr());
    let seen = under_load(&[tollgate.addr()], false, || {
        redis.kill();
        thread::sleep(duration());
        redis.start_again();
    });
    Promise { fault: "redis-server killed, restarted with AOF", over_admission: RATIO, may_degrade: true }.check(&seen);
    seen.assert_fallback_within_bound(tollgate.addr());
    assert_nothing_is_missing(&redis, &seen);
    assert_few_warnings(&tollgate);
}

#[test]
fn stopped_and_continued() {
    let redis = RedisServer::start();
    let tollgate = tollgate_before(redis.addr());
    outage("redis-server stopped (SIGSTOP)", &redis, &tollgate, || {
        redis.stop();
        thread::sleep(duration());
        redis.cont();
    });
}

#[test]
fn paused() {
    let redis = RedisServer::start();
    let tollgate = tollgate_before(redis.addr());
    outage("CLIENT PAUSE", &redis, &tollgate, || {
        redis.command(&format!("CLIENT PAUSE {} ALL", duration().as_millis()));
        thread::sleep(duration());
    });
}

#[test]
fn asleep() {
    let redis = RedisServer::start_with(&["--enable-debug-command", "yes"]);
    let tollgate = tollgate_before(redis.addr());
    outage("DEBUG SLEEP", &redis, &tollgate, || {
        redis.command(&format!("DEBUG SLEEP {}", duration().as_secs()));
    });
}

#[test]
fn busy_with_a_script_for_ever() {
    let redis = RedisServer::start_with(&["--busy-reply-threshold", "20"]);
    let tollgate = tollgate_before(redis.addr());
    outage("BUSY: a script that does not end", &redis, &tollgate, || {
        let mut client = redis.client();
        client.send(b"EVAL \"while true do end\" 0\r\n");
        thread::sleep(duration());
        redis.command("SCRIPT KILL");
    });
}

#[test]
fn its_scripts_flushed() {
    let redis = RedisServer::start();
    let tollgate = tollgate_before(redis.addr());
    nuisance("SCRIPT FLUSH, again and again", &redis, &tollgate, || {
        pester(&redis, Duration::from_millis(5), "SCRIPT FLUSH");
    });
}

#[test]
fn its_data_flushed() {
    let redis = RedisServer::start();
    let tollgate = tollgate_before(redis.addr());
    let seen = under_load(&[tollgate.addr()], false, || drop(redis.command("FLUSHALL")));
    Promise { fault: "FLUSHALL", over_admission: 1.0, may_degrade: false }.check(&seen);
}

#[test]
fn connections_killed_again_and_again() {
    let redis = RedisServer::start();
    let tollgate = tollgate_before(redis.addr());
    let seen = under_load(&[tollgate.addr()], false, || {
        pester(&redis, Duration::from_millis(10), "CLIENT KILL TYPE normal SKIPME yes");
    });
    Promise { fault: "CLIENT KILL, again and again", over_admission: RATIO, may_degrade: true }.check(&seen);
    assert_nothing_is_missing(&redis, &seen);
}

#[test]
fn out_of_memory() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]);
    let tollgate = tollgate_before(redis.addr());
    outage("maxmemory reached, noeviction", &redis, &tollgate, || {
        redis.command("CONFIG SET maxmemory 1");
        thread::sleep(duration());
        redis.command("CONFIG SET maxmemory 0");
    });
}

/// A probe that wrote nothing found such a Redis well, and the next check found it down: ten times a second.
#[test]
fn out_of_memory_with_nothing_to_write() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]);
    let tollgate = builder_before(&redis.addr().to_string()).env("TOLLGATE_FALLBACK__MODE", "closed").start();
    let mut client = tollgate.client();
    wait_until(PATIENCE, || !client.decide("RL.CHECK k 1000000 1h").degraded);
    redis.command("CONFIG SET maxmemory 1");
    let end = Instant::now() + duration();
    while Instant::now() < end {
        client.decide("RL.CHECK k 1000000 1h");
    }
    redis.command("CONFIG SET maxmemory 0");
    wait_until(PATIENCE, || !client.decide("RL.CHECK k 1000000 1h").degraded);
    assert_few_warnings(&tollgate);
}

#[test]
fn failed_over_behind_the_same_address() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    new.command(&format!("REPLICAOF 127.0.0.1 {}", old.port()));
    wait_until(PATIENCE, || new.command("INFO replication").text().contains("master_link_status:up"));
    let proxy = Proxy::before(old.addr());
    let tollgate = tollgate_before(proxy.addr());
    // The connections that there are still lead to the old one, which refuses writes now.
    let seen = under_load(&[tollgate.addr()], false, || {
        proxy.set_target(new.addr());
        old.command(&format!("REPLICAOF 127.0.0.1 {}", new.port()));
        thread::sleep(duration());
        new.command("REPLICAOF NO ONE");
    });
    // What was not yet replicated is lost: a moment's worth, but it cannot be told from the clients' side.
    Promise { fault: "replica promoted (READONLY)", over_admission: RATIO + 1.0, may_degrade: true }.check(&seen);
    seen.assert_fallback_within_bound(tollgate.addr());
    assert_few_warnings(&tollgate);
    assert!(new.command("EXISTS rl:{fast0}:3600000").integer() == 1);
}

#[test]
fn behind_a_black_hole() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let tollgate = tollgate_before(proxy.addr());
    outage("black hole: nothing arrives", &redis, &tollgate, || {
        proxy.set_weather(Weather::BlackHole);
        thread::sleep(duration());
        proxy.set_weather(Weather::Fair);
    });
}

#[test]
fn behind_a_slow_link() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let tollgate = tollgate_before(proxy.addr());
    outage("slow link: 40 ms each way", &redis, &tollgate, || {
        proxy.set_weather(Weather::Slow(Duration::from_millis(40)));
        thread::sleep(duration());
        proxy.set_weather(Weather::Fair);
    });
}

#[test]
fn behind_half_open_connections() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let tollgate = tollgate_before(proxy.addr());
    outage("half-open connections", &redis, &tollgate, || proxy.forget());
}

/// The answers that one worker got kept the breaker closed while the other one's connection was half-open, and that
/// one went on asking there for ever.
#[test]
fn behind_a_half_open_connection_of_one_of_two_workers() {
    const CHECK: &str = "RL.CHECK k 1000 1h";
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    // A deadline that only what is never answered misses: a warning, such as that the breaker opened, fails the test.
    let builder = Tollgate::builder().env("TOLLGATE_REDIS__TIMEOUT_MS", "500").arg("--workers").arg("2");
    let tollgate = builder.arg("--redis").arg(&proxy.addr().to_string()).start();
    // Each has a worker of its own.
    let mut clients = [tollgate.client(), tollgate.client()];
    let exact = clients.each_mut().map(|client| client.decide(CHECK).degraded);
    assert_eq!(exact, [false, false]);
    proxy.forget_one(redis.first_peer_that_runs_scripts());
    let (mut admitted, mut degraded) = (2, [0, 0]);
    wait_until(PATIENCE, || {
        let decisions = clients.each_mut().map(|client| client.decide(CHECK));
        for (decision, count) in decisions.iter().zip(&mut degraded) {
            admitted += i64::from(decision.allowed);
            *count += u32::from(decision.degraded);
        }
        decisions.iter().all(|decision| !decision.degraded)
    });
    degraded.sort();
    assert_eq!(degraded, [0, 3], "answers by the fallback");
    // As if one more were asked for.
    wait_until(PATIENCE, || clients[0].decide("RL.PEEK k 1000 1h").remaining == 1000 - admitted - 1);
}

#[test]
fn behind_a_link_that_is_cut_again_and_again() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let tollgate = tollgate_before(proxy.addr());
    let seen = under_load(&[tollgate.addr()], false, || {
        let end = Instant::now() + duration();
        while Instant::now() < end {
            proxy.cut();
            thread::sleep(Duration::from_millis(100));
        }
    });
    Promise { fault: "connections cut, ten a second", over_admission: RATIO, may_degrade: true }.check(&seen);
    assert_nothing_is_missing(&redis, &seen);
}

#[test]
fn tollgate_killed_and_restarted() {
    let redis = RedisServer::start();
    let port = free_port().to_string();
    let start = || builder_before(&redis.addr().to_string()).arg("--listen").arg(&format!("127.0.0.1:{port}")).start();
    let mut tollgate = Some(start());
    let addr = tollgate.as_ref().unwrap().addr();
    let seen = under_load(&[addr], true, || {
        for _ in 0..5 {
            drop(tollgate.take());
            thread::sleep(duration() / 10);
            tollgate = Some(start());
            thread::sleep(duration() / 10);
        }
    });
    Promise { fault: "Tollgate killed and restarted, 5 times", over_admission: 0.0, may_degrade: true }.check(&seen);
    assert_nothing_is_missing(&redis, &seen);
}

#[test]
fn one_of_two_tollgates_cut_off() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let (connected, cut_off) = (tollgate_before(redis.addr()), tollgate_before(proxy.addr()));
    let seen = under_load(&[connected.addr(), cut_off.addr()], false, || {
        proxy.set_weather(Weather::BlackHole);
        thread::sleep(duration());
        proxy.set_weather(Weather::Fair);
    });
    Promise { fault: "one of two Tollgates cut off", over_admission: 2.0 * RATIO, may_degrade: true }.check(&seen);
    seen.assert_fallback_within_bound(connected.addr());
    seen.assert_fallback_within_bound(cut_off.addr());
    assert_nothing_is_missing(&redis, &seen);
    assert_few_warnings(&cut_off);
}

/// The budget of a key that nobody had asked for before is the fallback's share, and no more.
#[test]
fn a_key_that_was_left_half_used_keeps_what_was_left() {
    let mut redis = RedisServer::start();
    let tollgate = tollgate_before(redis.addr());
    let mut client = tollgate.client();
    let exact: Decision = client.decide("RL.CHECK k 100 1h COST 80");
    assert_eq!((exact.allowed, exact.remaining, exact.degraded), (true, 20, false));
    redis.kill();
    wait_until(PATIENCE, || client.decide("RL.PEEK k 100 1h").degraded);
    let admitted = (0..100).filter(|_| client.decide("RL.CHECK k 100 1h").allowed).count();
    assert_eq!(admitted, 20);
    let fresh = (0..100).filter(|_| client.decide("RL.CHECK new 100 1h").allowed).count();
    assert_eq!(fresh, 50);
}
