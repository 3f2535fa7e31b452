//! One fault after another, at random, on the same servers, under mixed load: each round keeps what `faults` promises,
//! and no round leaves anything behind.
//!
//! `tests/soak/run` does this for ten minutes.

use crate::common::{Proxy, RawClient, RedisServer, Reply, Tollgate, Weather, encode};
use crate::faults::load::{StopOnDrop, in_round};
use crate::faults::{Promise, RATIO, assert_nothing_is_missing, tollgate_before};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, thread};

const FAULT: Duration = Duration::from_millis(500);
/// Rounds until all that is made once, or grows to what it needs, is there.
const WARM_UP: usize = 3;
const MIB: u64 = 1024 * 1024;
/// Connections that may happen to be there, on their way up or down, when files are counted.
const FEW_FILES: usize = 20;

fn duration() -> Duration {
    let seconds = env::var("TOLLGATE_SOAK_SECONDS").map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// Everything but checks: other commands before, between and behind Tollgate's own. With Redis away they fail, which
/// is an answer too.
fn mix(tollgate: &Tollgate, stopped: &AtomicBool) {
    let mut round = 0_u32;
    while !stopped.load(Relaxed) {
        // An own connection each time, closed when Redis closes its own.
        let mut client = tollgate.client();
        for _ in 0..50 {
            round += 1;
            let number = round.to_string();
            let requests: [&[&str]; 5] = [
                &["SET", "soak", &number],
                &["RL.CHECK", &format!("once{number}"), "5", "1s", "COST", "2"],
                &["GET", "soak"],
                &["RL.PEEK", "once1", "5", "1s"],
                &["RL.RESET", "once1"],
            ];
            client.send(&requests.iter().flat_map(|request| encode(request)).collect::<Vec<u8>>());
            if !requests.iter().all(|request| answers_fit(&mut client, request)) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether there was an answer, which must be one to this request.
fn answers_fit(client: &mut RawClient, request: &[&str]) -> bool {
    let Ok(reply) = client.try_read() else { return false };
    match (request[0], &reply) {
        (_, Reply::Error(text)) => {
            assert!(["UNAVAILABLE", "LOADING", "ERR"].iter().any(|code| text.starts_with(code)), "{text}")
        }
        ("SET", reply) => assert_eq!(*reply, Reply::Status("OK".into())),
        ("GET", reply) => assert!(matches!(reply, Reply::Bulk(_) | Reply::Nil), "{reply:?}"),
        ("RL.RESET", reply) => assert!((0..=1).contains(&reply.integer())),
        (_, reply) => assert_eq!(reply.decision().limit, 5),
    }
    true
}

/// Breaks something for a while.
fn break_something(choice: u64, redis: &RedisServer, proxy: &Proxy) {
    let weather = |weather| {
        proxy.set_weather(weather);
        thread::sleep(FAULT);
        proxy.set_weather(Weather::Fair);
    };
    match choice % 8 {
        0 => thread::sleep(FAULT),
        1 => weather(Weather::BlackHole),
        2 => weather(Weather::Slow(Duration::from_millis(40))),
        3 => proxy.forget(),
        4 => proxy.cut(),
        5 => drop(redis.command("SCRIPT FLUSH")),
        6 => drop(redis.command("CLIENT KILL TYPE normal SKIPME yes")),
        _ => {
            redis.stop();
            thread::sleep(FAULT);
            redis.cont();
        }
    }
}

#[test]
fn faults_in_any_order_leave_nothing_behind() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let tollgates = [tollgate_before(redis.addr()), tollgate_before(proxy.addr())];
    let addrs = tollgates.each_ref().map(Tollgate::addr);
    let (stopped, random) = (AtomicBool::new(false), RandomState::new());
    let end = Instant::now() + duration();
    let (mut rounds, mut warm) = (0, None);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stopped);
        for tollgate in &tollgates {
            scope.spawn(|| mix(tollgate, &stopped));
        }
        while rounds <= WARM_UP || Instant::now() < end {
            let choice = random.hash_one(rounds);
            eprintln!("round {rounds}, fault {}", choice % 8);
            let seen = in_round(rounds, &addrs, false, || break_something(choice, &redis, &proxy));
            // Both may be cut off at once, and each may then use what the other has left.
            let promise = Promise { fault: "any", over_admission: 4.0 * RATIO, may_degrade: true };
            promise.check(&seen);
            addrs.iter().for_each(|addr| seen.assert_fallback_within_bound(*addr));
            assert_nothing_is_missing(&redis, &seen);
            let used = tollgates.each_ref().map(|tollgate| (tollgate.open_files(), tollgate.resident_bytes()));
            eprintln!("files and bytes {used:?}");

            rounds += 1;
            if rounds == WARM_UP {
                warm = Some(used);
            }
            for (warm, now) in warm.iter().flatten().zip(used) {
                assert!(now.0 <= warm.0 + FEW_FILES, "{} files, {} at first", now.0, warm.0);
                assert!(now.1 <= 2 * warm.1 + 20 * MIB, "{} bytes, {} at first", now.1, warm.1);
            }
        }
    });
}
