//! The circuit breaker: whether the store is worth asking.
//!
//! In the terms of Nygard's "Release It!": closed means that traffic flows, open that it does not, half-open that one
//! probe is on its way to find out.
//!
//! ```text
//!            failures in a row,                probe due
//!            or connection lost              (one claims it)
//!   closed --------------------> open <=====================> half-open
//!      ^                               probe failed: wait            |
//!      |                               twice as long                 |
//!      +------------------------- success ---------------------------+
//! ```
//!
//! It does not probe and reads no clock: `now_us` is any clock of microseconds that does not step back. Methods say
//! whether traffic was cut or restored by them, so that the caller logs each change once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The breaker of one store, shared by all workers.
pub struct Breaker {
    /// Failures in a row that open it; at least 1.
    max_failures: u32,
    /// Shortest and longest wait before a probe, before jitter.
    min_us: u64,
    max_us: u64,
    /// Whether `state` is closed: all that a worker needs to read for each check. Written under the lock of `state`.
    closed: AtomicBool,
    /// Failures in a row while closed.
    failures: AtomicU32,
    state: Mutex<State>,
}

struct State {
    circuit: Circuit,
    /// The wait before the next probe, before jitter.
    wait_us: u64,
    /// What the next jitter is drawn from.
    seed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    Open {
        probe_us: u64,
    },
    /// A probe that has not reported by `lost_us` never will, and another may go.
    HalfOpen {
        lost_us: u64,
    },
}

impl Breaker {
    /// A closed breaker that opens after `max_failures` (0 means 1) in a row. Probes wait `min_us`, then twice as
    /// long each time up to `max_us`, each wait drawn anew within 20 % so that proxies do not probe in step; `seed`
    /// makes the draws differ between proxies.
    pub fn new(max_failures: u32, min_us: u64, max_us: u64, seed: u64) -> Self {
        Self {
            max_failures: max_failures.max(1),
            min_us,
            max_us: max_us.max(min_us),
            closed: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            state: Mutex::new(State { circuit: Circuit::Closed, wait_us: min_us, seed }),
        }
    }

    /// Whether traffic flows. One atomic load.
    pub fn is_closed(&self) -> bool {
        // Nothing else is published by it: a worker that reads it late asks once too often, or once too seldom.
        self.closed.load(Ordering::Relaxed)
    }

    /// What it is: `closed`, `open` or `half-open`.
    pub fn name(&self) -> &'static str {
        match self.state().circuit {
            Circuit::Closed => "closed",
            Circuit::Open { .. } => "open",
            Circuit::HalfOpen { .. } => "half-open",
        }
    }

    /// The store answered. True if this restored traffic: the answer was a probe's, or came while one was out.
    pub fn success(&self) -> bool {
        if self.is_closed() {
            // Read first: a store that always shares a line between workers makes them wait for each other.
            if self.failures.load(Ordering::Relaxed) != 0 {
                self.failures.store(0, Ordering::Relaxed);
            }
            return false;
        }
        let mut state = self.state();
        // While open without a probe an answer is one that was given up long ago: alive, but too slow to serve.
        if !matches!(state.circuit, Circuit::HalfOpen { .. }) {
            return false;
        }
        state.circuit = Circuit::Closed;
        self.failures.store(0, Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
        true
    }

    /// Begins open, with a probe due: the store takes the place of one that did not answer.
    pub fn begin_open(&self) {
        self.state().circuit = Circuit::Open { probe_us: 0 };
        self.closed.store(false, Ordering::Relaxed);
    }

    /// Has a probe be due at once, if the store is not asked.
    pub fn hurry(&self) {
        if let Circuit::Open { probe_us } = &mut self.state().circuit {
            *probe_us = 0;
        }
    }

    /// A request or a probe failed or missed its deadline. True if this cut traffic.
    pub fn failure(&self, now_us: u64) -> bool {
        let mut state = self.state();
        if state.circuit == Circuit::Closed {
            let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
            self.failures.store(failures, Ordering::Relaxed);
            if failures < self.max_failures {
                return false;
            }
        }
        self.open(&mut state, now_us)
    }

    /// The connection to the store was lost, which needs no second opinion. True if this cut traffic.
    pub fn lost(&self, now_us: u64) -> bool {
        self.open(&mut self.state(), now_us)
    }

    /// Whether to probe now. One caller only is told so: it owes a [`success`](Self::success) or
    /// [`failure`](Self::failure), and loses its claim after the longest wait.
    pub fn probe_due(&self, now_us: u64) -> bool {
        if self.is_closed() {
            return false;
        }
        let mut state = self.state();
        let due = state.circuit.next_probe_us().is_some_and(|probe_us| now_us >= probe_us);
        if due {
            state.circuit = Circuit::HalfOpen { lost_us: now_us.saturating_add(self.max_us) };
        }
        due
    }

    /// From when on a probe is due, on the callers' clock; `None` while traffic flows.
    pub fn next_probe_us(&self) -> Option<u64> {
        self.state().circuit.next_probe_us()
    }

    fn open(&self, state: &mut State, now_us: u64) -> bool {
        let was_closed = state.circuit == Circuit::Closed;
        state.wait_us = match state.circuit {
            Circuit::Closed => self.min_us,
            Circuit::HalfOpen { .. } => state.wait_us.saturating_mul(2).min(self.max_us),
            // What was in flight fails after the first failures have: no news, and no reason to wait longer.
            Circuit::Open { .. } => return false,
        };
        let wait_us = jitter(state.wait_us, &mut state.seed);
        state.circuit = Circuit::Open { probe_us: now_us.saturating_add(wait_us) };
        self.closed.store(false, Ordering::Relaxed);
        was_closed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Circuit {
    fn next_probe_us(self) -> Option<u64> {
        match self {
            Self::Closed => None,
            Self::Open { probe_us } => Some(probe_us),
            Self::HalfOpen { lost_us } => Some(lost_us),
        }
    }
}

/// `wait_us` times 0.8 to 1.2, by the next number of Steele, Lea and Flood's SplitMix64 generator.
fn jitter(wait_us: u64, seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *seed;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let fifth = wait_us / 5;
    wait_us - fifth + bits % (2 * fifth + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIN_US: u64 = 100_000;
    const MAX_US: u64 = 2_000_000;

    fn breaker(seed: u64) -> Breaker {
        Breaker::new(3, MIN_US, MAX_US, seed)
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let breaker = breaker(1);
        assert!(!breaker.failure(0) && !breaker.failure(1));
        assert!(!breaker.success());
        assert!(!breaker.failure(2) && !breaker.failure(3) && breaker.is_closed());
        assert!(breaker.failure(4), "the third in a row opens, and says so");
        assert!(!breaker.is_closed());
        assert!(!breaker.failure(5) && !breaker.lost(5), "what fails later changes nothing");
    }

    #[test]
    fn a_lost_connection_opens_at_once_and_a_probe_closes() {
        let breaker = breaker(2);
        assert!(breaker.lost(1_000));
        let probe_us = breaker.next_probe_us().unwrap();
        assert!(!breaker.success(), "a late answer does not close it");
        assert!(!breaker.probe_due(probe_us - 1));
        assert!(breaker.probe_due(probe_us));
        assert!(!breaker.probe_due(probe_us + 1), "one probe at a time");
        assert!(!breaker.is_closed());
        assert!(breaker.success() && breaker.is_closed());
        assert!(!breaker.success() && !breaker.probe_due(u64::MAX));
        assert_eq!(breaker.next_probe_us(), None);
        assert!(!breaker.failure(probe_us + 2), "the count starts anew");
    }

    #[test]
    fn a_probe_that_never_reports_is_replaced() {
        let breaker = breaker(3);
        breaker.lost(0);
        let probe_us = breaker.next_probe_us().unwrap();
        assert!(breaker.probe_due(probe_us));
        assert!(!breaker.probe_due(probe_us + MAX_US - 1));
        assert!(breaker.probe_due(probe_us + MAX_US));
    }

    proptest! {
        #[test]
        fn waits_double_up_to_the_longest_within_a_fifth(seed: u64, start_us in 0..u64::MAX / 2) {
            let breaker = breaker(seed);
            let mut now_us = start_us;
            prop_assert!(breaker.lost(now_us));
            for wait_us in [MIN_US, 200_000, 400_000, 800_000, 1_600_000, MAX_US, MAX_US] {
                let probe_us = breaker.next_probe_us().unwrap();
                prop_assert!((wait_us * 4 / 5..=wait_us * 6 / 5).contains(&(probe_us - now_us)));
                prop_assert!(breaker.probe_due(probe_us));
                now_us = probe_us + 17;
                prop_assert!(!breaker.failure(now_us), "traffic was cut before");
            }
        }

        #[test]
        fn changes_are_told_once(events in proptest::collection::vec((0..4u8, 0..300_000u64), 0..300)) {
            let breaker = breaker(9);
            let (mut now_us, mut closed) = (0, true);
            for (event, step_us) in events {
                now_us += step_us;
                let changed = match event {
                    0 => breaker.success(),
                    1 => breaker.failure(now_us),
                    2 => breaker.lost(now_us),
                    _ => breaker.probe_due(now_us) && breaker.success(),
                };
                closed ^= changed;
                prop_assert_eq!(breaker.is_closed(), closed);
                prop_assert_eq!(breaker.next_probe_us().is_none(), closed);
            }
        }
    }
}
