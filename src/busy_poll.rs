//! Keeps a busy worker awake for the moment until its next event.
//!
//! A thread that sleeps is late: it must be woken, and where its core has gone to sleep too, in a virtual machine above
//! all, that takes longer than a check. So a worker whose events follow closely on one another looks for the next one a
//! while before it sleeps, and offers its core to others between two looks.
//!
//! How long it looks adapts as in Linux's halt polling (`halt_poll_ns`, virt/kvm/kvm_main.c): an event that was just
//! missed doubles the time, one that was long in coming ends it. So a worker with few events does not poll.
//!
//! ```text
//!   events    |       |      |                            |
//!   worker    ~~zzzzzz~~~~~~~~~~~~~~~~~~~~~~zzzzzzzzzzzzzz        ~ polls   z sleeps
//! ```
//! It ends, too, when somebody else wants the core, as a thread that is woken is let in before one that waits its turn;
//! and when several events come at once, as there is work enough then, and all that counts is not to waste time.

use crate::clock::now_us;
use std::cell::Cell;
use std::thread;
use tokio::sync::Notify;
use tokio::task;

/// The shortest time that is worth beginning with.
const MIN_WINDOW_US: u64 = 10;
/// Somebody who takes the core for longer has more to do than to answer what this worker waits for.
const CONTENDED_US: u64 = 100;
/// How long a worker then sleeps whenever it can.
const HOLD_OFF_US: u64 = 20_000;

/// One worker's watch for its next event. Times are microseconds.
#[derive(Debug)]
pub struct BusyPoll {
    max_us: u64,
    window_us: Cell<u64>,
    last_event_us: Cell<u64>,
    /// How many events there were since the last look.
    events: Cell<u32>,
    not_before_us: Cell<u64>,
    is_polling: Cell<bool>,
    begin: Notify,
}

impl BusyPoll {
    /// A watch that lasts `max_us` at most after each event; with 0 there is none.
    pub fn new(max_us: u64) -> Self {
        Self {
            max_us,
            window_us: Cell::new(0),
            last_event_us: Cell::new(0),
            events: Cell::new(0),
            not_before_us: Cell::new(0),
            is_polling: Cell::new(false),
            begin: Notify::new(),
        }
    }

    /// Something has happened at `now_us` that the like may soon follow.
    pub fn on_event(&self, now_us: u64) {
        let gap_us = now_us.saturating_sub(self.last_event_us.replace(now_us));
        if self.is_polling.get() {
            self.events.set(self.events.get().saturating_add(1));
            return;
        }
        if now_us < self.not_before_us.get() {
            return;
        }
        let window_us = if gap_us < self.max_us { (self.window_us.get() * 2).max(MIN_WINDOW_US) } else { 0 };
        self.window_us.set(window_us.min(self.max_us));
        if window_us > 0 {
            self.is_polling.set(true);
            self.begin.notify_one();
        }
    }

    /// Polls when it is worth it, until dropped.
    pub async fn run(&self) {
        loop {
            self.begin.notified().await;
            loop {
                let before_us = now_us();
                if !self.goes_on(before_us) {
                    break;
                }
                thread::yield_now();
                self.on_turn_given(before_us, now_us());
                // A runtime that has nothing to do but this task looks for events without waiting for them.
                task::yield_now().await;
            }
        }
    }

    /// Whether to look once more.
    fn goes_on(&self, now_us: u64) -> bool {
        if self.events.take() > 1 {
            self.hold_off(now_us);
        }
        self.is_polling.set(now_us.saturating_sub(self.last_event_us.get()) < self.window_us.get());
        self.is_polling.get()
    }

    /// The core was offered to others and had again.
    fn on_turn_given(&self, before_us: u64, now_us: u64) {
        if now_us.saturating_sub(before_us) > CONTENDED_US {
            self.hold_off(now_us);
        }
    }

    fn hold_off(&self, now_us: u64) {
        self.window_us.set(0);
        self.not_before_us.set(now_us + HOLD_OFF_US);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_US: u64 = 1_000_000;

    /// A watch after events with so much time between them, all of which came in a sleep.
    fn after(gaps_us: &[u64]) -> (BusyPoll, u64) {
        let poll = BusyPoll::new(200);
        let mut now_us = START_US;
        for gap_us in [START_US].iter().chain(gaps_us) {
            poll.goes_on(u64::MAX);
            now_us += gap_us;
            poll.on_event(now_us);
        }
        (poll, now_us)
    }

    #[test]
    fn it_looks_longer_the_oftener_an_event_was_just_missed() {
        for (gaps_us, window_us) in [
            (&[][..], 0),
            (&[150], 10),
            (&[150, 150, 150], 40),
            (&[0; 10], 200),
            (&[200], 0),
            (&[150, 150, 300], 0),
            (&[150, 150, 300, 150], 10),
        ] {
            let (poll, now_us) = after(gaps_us);
            assert_eq!(poll.goes_on(now_us), window_us > 0, "{gaps_us:?}");
            assert!(window_us == 0 || poll.goes_on(now_us + window_us - 1), "{gaps_us:?}");
            assert!(!poll.goes_on(now_us + window_us), "{gaps_us:?}");
        }
    }

    #[test]
    fn an_event_that_is_seen_begins_the_time_anew() {
        let (poll, now_us) = after(&[0; 10]);
        assert!(poll.goes_on(now_us + 199));
        poll.on_event(now_us + 199);
        assert!(poll.goes_on(now_us + 398) && !poll.goes_on(now_us + 399));
    }

    #[test]
    fn it_leaves_the_core_to_who_wants_it() {
        let (poll, now_us) = after(&[0; 10]);
        poll.on_turn_given(now_us, now_us + CONTENDED_US);
        assert!(poll.goes_on(now_us + CONTENDED_US), "a short turn of somebody else's");
        let taken_us = now_us + 2 * CONTENDED_US + 1;
        poll.on_turn_given(now_us + CONTENDED_US, taken_us);
        assert!(!poll.goes_on(taken_us));
        poll.on_event(taken_us + HOLD_OFF_US - 1);
        assert!(!poll.goes_on(taken_us + HOLD_OFF_US - 1), "not so soon");
        poll.on_event(taken_us + HOLD_OFF_US);
        assert!(poll.goes_on(taken_us + HOLD_OFF_US));
    }

    #[test]
    fn it_may_be_off() {
        let poll = BusyPoll::new(0);
        for now_us in START_US..START_US + 10 {
            poll.on_event(now_us);
            assert!(!poll.goes_on(now_us));
        }
    }

    #[test]
    fn it_is_not_for_many_events_at_once() {
        let (poll, now_us) = after(&[0; 10]);
        poll.goes_on(now_us);
        poll.on_event(now_us + 1);
        assert!(poll.goes_on(now_us + 1));
        poll.on_event(now_us + 2);
        poll.on_event(now_us + 2);
        assert!(!poll.goes_on(now_us + 2));
    }
}
