//! Lets a worker that has much to do wait until others pause.
//!
//! A thread that is woken may interrupt the one that runs. That is right while there is little to do, as it is answered
//! sooner. With much to do it interrupts those who are about to ask more, Redis or a client on the same machine, at each
//! of their requests, and so finds one where it could have found many. Under Linux's policy SCHED_BATCH (sched(7)) a
//! thread interrupts nobody:
//!
//! ```text
//!   client   ask ────┐ ask ────┐ ask ──────     ask ask ask ─────┐
//!   worker           └ answer  └ answer                          └ answer answer answer
//! ```
//!
//! A thread that uses its core up would be waited for, a few milliseconds each time; hence only with much to do, which
//! nobody has who is made to wait like that, and for many clients, as one that waits for its answer asks nothing else.

use std::cell::Cell;

/// A worker is busy when it turns from one client to another more often than this in a second.
const BUSY_PER_S: u64 = 20_000;
/// This is counted for so long, before the policy is re-evaluated.
const SPAN_US: u64 = 10_000;

/// The policy of one worker's thread.
#[derive(Debug, Default)]
pub struct SchedBatch {
    /// Not where the operator says no, nor where Tollgate was started under another policy: that was chosen.
    may_change: bool,
    is_on: Cell<bool>,
    turns: Cell<u64>,
    last_client: Cell<u64>,
    since_us: Cell<u64>,
}

impl SchedBatch {
    /// Of the thread that this is called on, which is under the default policy unless told otherwise. Nothing changes
    /// unless it `is_wanted`.
    pub fn of_this_thread(is_wanted: bool) -> Self {
        Self { may_change: is_wanted && policy::is_default(), ..Self::default() }
    }

    /// There is something to do for `client` at `now_us`, a time in microseconds.
    pub fn on_event(&self, client: u64, now_us: u64) {
        self.turns.set(self.turns.get() + u64::from(self.last_client.replace(client) != client));
        let span_us = now_us.saturating_sub(self.since_us.get());
        if span_us < SPAN_US {
            return;
        }
        self.since_us.set(now_us);
        let is_busy = self.turns.take() * 1_000_000 > BUSY_PER_S * span_us;
        if self.may_change && self.is_on.replace(is_busy) != is_busy {
            policy::set_batch(is_busy);
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "no library offers these calls of libc, which touch nothing but what they are given here"
)]
mod policy {
    use std::mem::zeroed;

    /// Whether this thread is under SCHED_OTHER.
    pub fn is_default() -> bool {
        let mut policy = 0;
        // SAFETY: `sched_param` is of integers, of which zero is one; the pointers are to what is alive.
        let failed = unsafe { libc::pthread_getschedparam(libc::pthread_self(), &mut policy, &mut zeroed()) };
        failed == 0 && policy == libc::SCHED_OTHER
    }

    /// Puts this thread under SCHED_BATCH, or back. Where that is not allowed, as in a sandbox, nothing changes.
    pub fn set_batch(is_on: bool) {
        let policy = if is_on { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
        // SAFETY: as above.
        unsafe { libc::pthread_setschedparam(libc::pthread_self(), policy, &zeroed()) };
    }
}

#[cfg(not(target_os = "linux"))]
mod policy {
    pub fn is_default() -> bool {
        false
    }

    pub fn set_batch(_is_on: bool) {}
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::fs;

    const START_US: u64 = 3_600_000_000;

    /// The policy as the kernel tells it: field 41 of proc_pid_stat(5), of which 0 is SCHED_OTHER and 3 SCHED_BATCH.
    fn policy_after(sched: &SchedBatch, events: u64, gap_us: u64, clients: u64) -> u32 {
        let start_us = START_US.max(sched.since_us.get());
        (1..=events).for_each(|event| sched.on_event(event % clients, start_us + event * gap_us));
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, behind_name) = stat.rsplit_once(") ").unwrap();
        behind_name.split(' ').nth(41 - 3).unwrap().parse().unwrap()
    }

    #[test]
    fn a_busy_thread_interrupts_nobody() {
        let sched = SchedBatch::of_this_thread(true);
        assert_eq!(policy_after(&sched, 1_000, 60, 50), 0, "16,667 a second");
        assert_eq!(policy_after(&sched, 400, 20, 50), 0, "50,000 a second, for 8 ms");
        assert_eq!(policy_after(&sched, 1_000, 20, 50), 3, "the same, for 20 ms");
        assert_eq!(policy_after(&sched, 1, 20_000, 50), 0, "a pause");
        assert_eq!(policy_after(&sched, 1_000, 20, 1), 0, "one client, however fast it is");
        assert_eq!(policy_after(&sched, 1_000, 20, 50), 3);
    }

    #[test]
    fn a_thread_that_is_not_to_change_its_policy_does_not() {
        let sched = SchedBatch::of_this_thread(false);
        assert_eq!(policy_after(&sched, 1_000, 20, 50), 0);
    }

    #[test]
    fn a_policy_that_somebody_chose_is_left_alone() {
        policy::set_batch(true);
        let sched = SchedBatch::of_this_thread(true);
        assert_eq!(policy_after(&sched, 1_000, 20, 50), 3);
        assert_eq!(policy_after(&sched, 1, 20_000, 50), 3);
    }
}
