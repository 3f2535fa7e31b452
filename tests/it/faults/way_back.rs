//! The way back after an outage, under full load: exact answers resume in a time that depends on what the outage left,
//! not on what is asked meanwhile, and what was admitted without Redis is in its logs.

use super::*;
use crate::common::{RawClient, Reply};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Connections that ask.
const CLIENTS: usize = 4;
/// What each asks at once, and how often: 6,000 checks a second in all, each of a key that was never asked for.
const BURST: usize = 15;
const EVERY: Duration = Duration::from_millis(10);
/// Exact answers for so long are the end of an outage.
const SETTLED: Duration = Duration::from_millis(300);
/// `breaker.probe_max_ms`, so that it says little about how long the way back takes.
const PROBE_MS: u64 = 100;

/// What clients saw who ask for a new key each time.
#[derive(Default)]
struct Seen {
    stopped: AtomicBool,
    asked: AtomicUsize,
    /// Keys that were admitted without Redis.
    admitted: Mutex<Vec<String>>,
    last_degraded: Mutex<Option<Instant>>,
}

impl Seen {
    fn is_exact_for(&self, time: Duration) -> bool {
        self.last_degraded.lock().unwrap().is_none_or(|last| last.elapsed() > time)
    }

    fn ask_for_new_keys(&self, tollgate: SocketAddr, name: usize) {
        let mut client = RawClient::connect(tollgate);
        let (mut number, start) = (0, Instant::now());
        while !self.stopped.load(Relaxed) {
            let keys: Vec<String> = (number..number + BURST).map(|number| format!("new{name}:{number}")).collect();
            number += BURST;
            client.send(keys.iter().map(|key| format!("RL.CHECK {key} 10 1h\r\n")).collect::<String>().as_bytes());
            for key in keys {
                let decision = client.read().decision();
                self.asked.fetch_add(1, Relaxed);
                if decision.degraded {
                    *self.last_degraded.lock().unwrap() = Some(Instant::now());
                    if decision.allowed {
                        self.admitted.lock().unwrap().push(key);
                    }
                }
            }
            let due = start + EVERY * u32::try_from(number / BURST).unwrap();
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// Loses Redis for so long under a load of new keys, on a way of this length, and says how long the way back took.
fn way_back(outage: Duration, round_trip: Duration) -> Duration {
    let mut redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    proxy.set_weather(Weather::Far(round_trip / 2));
    let builder = builder_before(&proxy.addr().to_string()).arg("--workers").arg("2");
    let tollgate = builder.env("TOLLGATE_BREAKER__PROBE_MAX_MS", &PROBE_MS.to_string()).start();
    let seen = Seen::default();
    let took = thread::scope(|scope| {
        let _stop = load::StopOnDrop(&seen.stopped);
        let mut watcher = tollgate.client();
        wait_until(PATIENCE, || !watcher.decide("RL.PEEK k 10 1h").degraded);
        for name in 0..CLIENTS {
            let seen = &seen;
            let addr = tollgate.addr();
            scope.spawn(move || seen.ask_for_new_keys(addr, name));
        }
        wait_until(PATIENCE, || seen.asked.load(Relaxed) > 1000 && seen.is_exact_for(SETTLED));
        redis.kill();
        // What was late before that may have been counted by the Redis that is gone.
        let settled = Duration::from_millis(500);
        thread::sleep(settled);
        seen.admitted.lock().unwrap().clear();
        thread::sleep(outage - settled);
        redis.start_again();
        let back = Instant::now();
        wait_until(PATIENCE, || seen.is_exact_for(SETTLED));
        seen.last_degraded.lock().unwrap().unwrap().saturating_duration_since(back)
    });
    let admitted = seen.admitted.into_inner().unwrap();
    let rate = seen.asked.load(Relaxed);
    eprintln!("{outage:?} at {round_trip:?}: back after {took:?}; {rate} asked, {} without redis", admitted.len());
    // The rest is written in the background.
    let mut client = redis.client();
    let start = Instant::now();
    for key in &admitted {
        let log = format!("EXISTS rl:{{{key}}}:3600000");
        wait_until(PATIENCE + outage, || client.line(&log) == Reply::Integer(1));
    }
    eprintln!("all written after another {:?}", start.elapsed());
    took
}

#[test]
fn takes_no_longer_for_what_is_asked_meanwhile() {
    // A probe, a few round trips, and what a busy machine takes. An outage of a minute leaves twenty times as much.
    const LONGEST: Duration = Duration::from_secs(2);
    for round_trip_us in [100, 5_000, 20_000] {
        let outages: &[u64] = if is_thorough() { &[3, 60] } else { &[3] };
        for outage_s in outages {
            let took = way_back(Duration::from_secs(*outage_s), Duration::from_micros(round_trip_us));
            assert!(took < LONGEST, "{took:?} after {outage_s} s at {round_trip_us} us");
        }
    }
}

/// A Redis that is down, and a Tollgate of two workers that has admitted half of the limit of each of the keys.
fn spent_without_redis(keys: usize, limit: usize) -> (RedisServer, Proxy, Tollgate, RawClient) {
    let mut redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    proxy.set_weather(Weather::Far(Duration::from_millis(2)));
    redis.kill();
    // A deadline that nothing misses, so that nobody is admitted but by Redis once it is back.
    let builder = builder_before(&proxy.addr().to_string()).env("TOLLGATE_REDIS__TIMEOUT_MS", "5000");
    let tollgate =
        builder.arg("--workers").arg("2").env("TOLLGATE_BREAKER__PROBE_MAX_MS", &PROBE_MS.to_string()).start();
    let mut client = tollgate.client();
    wait_until(PATIENCE, || client.decide("RL.PEEK k 10 1h").degraded);
    for key in 0..keys {
        let admitted = client.decide(&format!("RL.CHECK k{key} {limit} 1h COST {}", limit / 2));
        assert!(admitted.allowed && admitted.degraded);
    }
    (redis, proxy, tollgate, client)
}

/// Records that one worker had in flight were written after the reset that another one had sent.
#[test]
fn a_reset_leaves_nothing_of_what_was_admitted_before() {
    const KEYS: usize = 3000;
    let (mut redis, _proxy, tollgate, mut client) = spent_without_redis(KEYS, 4);
    let keys: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
    redis.start_again();
    let reset: Vec<&str> = ["RL.RESET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    wait_until(PATIENCE, || matches!(client.cmd(&reset), Reply::Integer(_)));
    wait_until(PATIENCE, || client.line("INFO tollgate").text().contains("fallback_unwritten:0\r\n"));
    let left: Vec<_> = redis.keys().into_iter().filter(|name| name.starts_with(b"rl:{")).collect();
    assert!(left.is_empty(), "{} logs, such as {}", left.len(), left[0].escape_ascii());
    drop(tollgate);
}

/// Each key's records are written by whichever worker comes first, while both ask: no check may be decided without them,
/// and none of them may count twice.
#[test]
fn what_was_admitted_without_redis_counts_for_every_worker() {
    const KEYS: usize = 3000;
    const LIMIT: usize = 4;
    let (mut redis, _proxy, tollgate, _client) = spent_without_redis(KEYS, LIMIT);
    // Each key as often as it may pass at all, so that whoever is asked first would admit too many.
    let checks = |key| format!("RL.CHECK k{key} {LIMIT} 1h\r\n").repeat(LIMIT);
    let all: String = (0..KEYS).map(checks).collect();
    let ask = |client: &mut RawClient| -> Vec<Decision> {
        client.send(all.as_bytes());
        (0..KEYS * LIMIT).map(|_| client.read().decision()).collect()
    };
    // Each has a worker of its own.
    let clients = [tollgate.client(), tollgate.client()];
    let admitted: Vec<AtomicUsize> = (0..KEYS).map(|_| AtomicUsize::new(LIMIT / 2)).collect();
    let are_exact = AtomicUsize::new(0);
    thread::scope(|scope| {
        for mut client in clients {
            let (ask, admitted, are_exact) = (&ask, &admitted, &are_exact);
            scope.spawn(move || {
                for round in 0.. {
                    let decisions = ask(&mut client);
                    for (decisions, count) in decisions.chunks(LIMIT).zip(admitted) {
                        count.fetch_add(decisions.iter().filter(|decision| decision.allowed).count(), Relaxed);
                    }
                    if decisions.iter().all(|decision| !decision.degraded && !decision.allowed) {
                        are_exact.fetch_add(1, Relaxed);
                    }
                    if are_exact.load(Relaxed) >= 2 || round > 100_000 {
                        break;
                    }
                }
            });
        }
        thread::sleep(Duration::from_millis(PROBE_MS));
        redis.start_again();
    });
    let admitted: Vec<usize> = admitted.into_iter().map(AtomicUsize::into_inner).collect();
    assert!(admitted.iter().all(|count| *count == LIMIT), "{admitted:?}");
    for key in (0..KEYS).step_by(10) {
        let weight: i64 = redis.entries(&format!("rl:{{k{key}}}:3600000")).iter().map(|(_, weight)| weight).sum();
        assert_eq!(weight, LIMIT as i64, "k{key}");
    }
}
