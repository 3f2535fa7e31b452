//! Steady traffic while something breaks, and what its clients saw.
//!
//! A client knows when it was admitted within its own round trip only: after it sent and before it received. So the
//! k-th admission was made after the k-th smallest time of sending and before the k-th smallest time of receipt, and
//! what is counted here as admitted within a window certainly was.

use crate::common::load::longest_stall;
use crate::common::{Decision, PATIENCE, RawClient, wait_until};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// `fallback.ratio`, at its default.
const RATIO: f64 = 0.5;
/// What Redis itself said is at most so old when a fault begins: `deny_cache.max_ms`, at its default, and a client's
/// pause on a busy machine.
const OLDEST_NEWS: Duration = Duration::from_millis(1000 + 100);
/// Traffic before the fault, and exact answers behind it, for so long.
const SETTLED: Duration = Duration::from_millis(400);
/// A client's pause between an answer and its next request.
const PAUSE: Duration = Duration::from_millis(3);

/// A key and its limit. A window of an hour stands beside it, whose log in Redis is the whole history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub name: &'static str,
    pub round: usize,
    pub limit: usize,
    pub window: Duration,
}

/// The keys of a round of faults, asked for far more often than their limits allow. One is full again within any
/// fault; what the other one has used stays used throughout, so that it shows any budget that a fault gives away. Hence
/// other keys for each round: once entries expire, an answer that is too late for its client may have told Tollgate of
/// room that no client heard of.
pub const fn traffic(round: usize) -> [Traffic; 2] {
    [
        Traffic { name: "fast", round, limit: 100, window: Duration::from_millis(500) },
        Traffic { name: "slow", round, limit: 200, window: Duration::from_secs(20) },
    ]
}

impl Traffic {
    pub fn key(self) -> String {
        format!("{}{}", self.name, self.round)
    }
}

/// One answer.
#[derive(Debug, Clone, Copy)]
struct Sample {
    traffic: Traffic,
    tollgate: SocketAddr,
    sent: Instant,
    received: Instant,
    decision: Decision,
}

/// What the clients saw.
#[derive(Debug)]
pub struct Observed {
    pub traffic: [Traffic; 2],
    /// In the order of receipt.
    samples: Vec<Sample>,
    /// When the fault was over.
    lifted: Instant,
    /// How much later than it asked for a thread was woken at worst: what the machine, not Tollgate, kept waiting.
    pub stall: Duration,
}

/// Traffic to all of `tollgates` before, during and after `fault`, until all answers are exact again. Unless
/// `may_break`, a connection that breaks fails the test.
pub fn under_load(tollgates: &[SocketAddr], may_break: bool, fault: impl FnOnce()) -> Observed {
    in_round(0, tollgates, may_break, fault)
}

/// [`under_load`], where it is not the only time on these servers.
pub fn in_round(round: usize, tollgates: &[SocketAddr], may_break: bool, fault: impl FnOnce()) -> Observed {
    let traffic = traffic(round);
    let stopped = AtomicBool::new(false);
    let last_degraded = Mutex::new(Instant::now());
    thread::scope(|scope| {
        let _stop_on_panic = StopOnDrop(&stopped);
        let ask = |tollgate: SocketAddr, traffic: Traffic| {
            let (stopped, last_degraded) = (&stopped, &last_degraded);
            move || ask_until(stopped, last_degraded, tollgate, traffic, may_break)
        };
        let both_twice = traffic.iter().chain(&traffic);
        let pairs = tollgates.iter().flat_map(|tollgate| both_twice.clone().map(|traffic| (*tollgate, *traffic)));
        let clients: Vec<_> = pairs.map(|(tollgate, traffic)| scope.spawn(ask(tollgate, traffic))).collect();
        let stall = scope.spawn(|| longest_stall(&stopped));
        let settle = || {
            let since = Instant::now();
            wait_until(PATIENCE, || last_degraded.lock().unwrap().max(since).elapsed() > SETTLED);
        };
        settle();
        fault();
        let lifted = Instant::now();
        settle();
        stopped.store(true, Relaxed);
        let mut samples: Vec<Sample> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        samples.sort_by_key(|sample| sample.received);
        Observed { traffic, samples, lifted, stall: stall.join().unwrap() }
    })
}

/// Ends the threads of a scope, also when the test fails: the scope waits for them.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn ask_until(
    stopped: &AtomicBool,
    last_degraded: &Mutex<Instant>,
    tollgate: SocketAddr,
    traffic: Traffic,
    may_break: bool,
) -> Vec<Sample> {
    let (key, limit, window_ms) = (traffic.key(), traffic.limit, traffic.window.as_millis());
    let request = format!("RL.CHECK {key} {limit} {window_ms}ms 1000000 1h\r\n");
    let mut client = RawClient::connect(tollgate);
    let mut samples = Vec::new();
    while !stopped.load(Relaxed) {
        let sent = Instant::now();
        match client.try_send(request.as_bytes()).and_then(|()| client.try_read()) {
            Ok(reply) => {
                let (decision, received) = (reply.decision(), Instant::now());
                if decision.degraded {
                    let mut last = last_degraded.lock().unwrap();
                    *last = received.max(*last);
                }
                samples.push(Sample { traffic, tollgate, sent, received, decision });
            }
            Err(error) => {
                assert!(may_break, "a client lost its connection: {error}");
                *last_degraded.lock().unwrap() = Instant::now();
                client = RawClient::try_connect(tollgate).unwrap_or(client);
            }
        }
        thread::sleep(PAUSE);
    }
    samples
}

impl Observed {
    pub fn longest_wait(&self) -> Duration {
        self.samples.iter().map(|sample| sample.received - sample.sent).max().unwrap()
    }

    pub fn degraded(&self) -> usize {
        self.samples.iter().filter(|sample| sample.decision.degraded).count()
    }

    /// From the end of the fault to the last answer that was not exact.
    pub fn recovery(&self) -> Duration {
        let last = self.samples.iter().rfind(|sample| sample.decision.degraded);
        last.map_or(Duration::ZERO, |last| last.received.saturating_duration_since(self.lifted))
    }

    /// How many requests for a key were admitted, by whomever.
    pub fn admitted(&self, traffic: Traffic) -> usize {
        self.admissions(traffic).count()
    }

    /// By how much of a limit the most that was admitted within one of its windows exceeds it, and where.
    pub fn over_admission(&self) -> (f64, &'static str) {
        let over = |traffic: &Traffic| {
            let most = self.most_within_window(*traffic);
            (most.saturating_sub(traffic.limit) as f64 / traffic.limit as f64, traffic.name)
        };
        self.traffic.iter().map(over).max_by(|one, other| one.0.total_cmp(&other.0)).unwrap()
    }

    fn most_within_window(&self, traffic: Traffic) -> usize {
        let mut sent: Vec<Instant> = self.admissions(traffic).map(|sample| sample.sent).collect();
        sent.sort();
        let received: Vec<Instant> = self.admissions(traffic).map(|sample| sample.received).collect();
        let mut end = 0;
        let within = |(begin, first): (usize, &Instant)| {
            while end < received.len() && received[end] - *first < traffic.window {
                end += 1;
            }
            end - begin.min(end)
        };
        sent.iter().enumerate().map(within).max().unwrap_or(0)
    }

    fn admissions(&self, traffic: Traffic) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.traffic == traffic && sample.decision.allowed)
    }

    /// Fails when a Tollgate's fallback admitted more than what was left when the outage began, at most its share of
    /// the limit, and that share for each window since.
    #[track_caller]
    pub fn assert_fallback_within_bound(&self, tollgate: SocketAddr) {
        for traffic in self.traffic {
            let asked = |sample: &&Sample| sample.traffic == traffic && sample.tollgate == tollgate;
            let samples: Vec<&Sample> = self.samples.iter().filter(asked).collect();
            let Some(first) = samples.iter().position(|sample| sample.decision.degraded) else { continue };
            // Which exact answer was the last one only Tollgate knows: any that was given shortly before.
            let recent = samples[..first].iter().rev().take(10);
            let share = traffic.limit as f64 * RATIO;
            // Nothing is known of a key that Redis was never asked about: it begins with its share.
            let left = recent.map(|sample| sample.decision.remaining as f64).reduce(f64::max).unwrap_or(share);
            let since = samples[first].sent - OLDEST_NEWS;
            let degraded = samples[first..].iter().filter(|sample| sample.decision.degraded && sample.decision.allowed);
            for (index, sample) in degraded.enumerate() {
                let windows = (sample.received - since).as_secs_f64() / traffic.window.as_secs_f64();
                let bound = left.min(share) + share * windows;
                assert!(
                    (index + 1) as f64 <= bound,
                    "{traffic:?}: {} admitted, of {bound:.2}; {:?} after the outage, stall {:?}",
                    index + 1,
                    sample.received - samples[first].sent,
                    self.stall
                );
            }
        }
    }
}
