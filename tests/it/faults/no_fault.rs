//! What is no failure of Redis's: that it is far away, and that Tollgate itself is late.

use super::*;
use crate::common::RawClient;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Connections that ask.
const CLIENTS: usize = 4;

/// What steady traffic got for answers.
#[derive(Default)]
struct Seen {
    stopped: AtomicBool,
    asked: AtomicUsize,
    degraded: AtomicUsize,
}

impl Seen {
    /// Asks so many checks at once, again and again, in so many windows each, of keys that are new each time.
    fn ask(&self, tollgate: SocketAddr, name: usize, burst: usize, every: Duration, windows_s: Range<usize>) {
        let windows: String = windows_s.map(|seconds| format!(" 1000 {seconds}h")).collect();
        let mut client = RawClient::connect(tollgate);
        let (mut bursts, start) = (0, Instant::now());
        while !self.stopped.load(Relaxed) {
            let check = |number| format!("RL.CHECK {name}:{bursts}:{number}{windows}\r\n");
            client.send((0..burst).map(check).collect::<String>().as_bytes());
            let degraded = (0..burst).filter(|_| client.read().decision().degraded).count();
            self.asked.fetch_add(burst, Relaxed);
            self.degraded.fetch_add(degraded, Relaxed);
            bursts += 1;
            thread::sleep((start + every * bursts).saturating_duration_since(Instant::now()));
        }
    }

    /// Answers, and those of them that were degraded.
    fn so_far(&self) -> [usize; 2] {
        [self.asked.load(Relaxed), self.degraded.load(Relaxed)]
    }
}

/// Two batches of 64 windows a round trip were all that a worker sent. Beyond that nearly all answers were degraded,
/// with a Redis that was mostly idle.
#[test]
fn a_long_way_is_used_for_as_much_as_redis_can_do() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    proxy.set_weather(Weather::Far(Duration::from_millis(10)));
    // Far longer than a trip, so that a busy machine misses it only for what waits many trips to be sent.
    let builder = builder_before(&proxy.addr().to_string()).env("TOLLGATE_REDIS__TIMEOUT_MS", "500");
    let tollgate = builder.arg("--workers").arg("1").start();
    let mut watcher = tollgate.client();
    wait_until(PATIENCE, || !watcher.decide("RL.PEEK k 10 1h").degraded);
    let seen = Seen::default();
    let [asked, degraded] = thread::scope(|scope| {
        let _stop = load::StopOnDrop(&seen.stopped);
        for name in 0..CLIENTS {
            let (seen, addr) = (&seen, tollgate.addr());
            // 1,200 at once in all, which are 150 batches.
            scope.spawn(move || seen.ask(addr, name, 300, Duration::ZERO, 1..9));
        }
        wait_until(PATIENCE, || seen.asked.load(Relaxed) > 2_000);
        let before = seen.so_far();
        wait_until(PATIENCE, || seen.asked.load(Relaxed) > before[0] + 8_000);
        let after = seen.so_far();
        [after[0] - before[0], after[1] - before[1]]
    });
    assert!(degraded * 2 < asked, "{degraded} of {asked} are degraded");
}

/// All that was due while Tollgate was stopped was taken for late when it went on, which was said to be Redis's fault.
#[test]
fn a_tollgate_that_was_stopped_blames_nobody() {
    const STOPS: usize = 10;
    let redis = RedisServer::start();
    // A warning, such as that the breaker opens, fails the test. It would with the first failure.
    let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_BREAKER__FAILURES", "1");
    let tollgate = builder.env("TOLLGATE_REDIS__TIMEOUT_MS", "100").arg("--workers").arg("2").start();
    let mut watcher = tollgate.client();
    wait_until(PATIENCE, || !watcher.decide("RL.PEEK k 10 1h").degraded);
    let seen = Seen::default();
    thread::scope(|scope| {
        let _stop = load::StopOnDrop(&seen.stopped);
        for name in 0..CLIENTS {
            let (seen, addr) = (&seen, tollgate.addr());
            scope.spawn(move || seen.ask(addr, name, 5, Duration::from_millis(1), 1..2));
        }
        for _ in 0..STOPS {
            let asked = seen.asked.load(Relaxed);
            wait_until(PATIENCE, || seen.asked.load(Relaxed) > asked + 500);
            tollgate.signal("-STOP");
            thread::sleep(Duration::from_millis(300));
            tollgate.signal("-CONT");
        }
    });
    // Only what had been read and not sent when it was stopped was too late.
    let degraded = seen.degraded.load(Relaxed);
    assert!(degraded <= STOPS * CLIENTS * 5, "{degraded} are degraded");
}
