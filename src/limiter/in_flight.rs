//! How many jobs a worker has in flight at once: as many as the round trip holds.
//!
//! On a short trip two are best: while Redis runs one, the next is on its way, and what is asked meanwhile gathers to a
//! larger batch, which costs Redis less. On a long trip Redis would be idle most of the time. There one more is allowed
//! with each answer, until answers take longer for it: that time jobs spend waiting in Redis, where they would do better
//! to gather here. The idea is that of TCP Vegas (Brakmo and Peterson, 1995).
//!
//! ```text
//!   sent                 answered, nothing before it
//!   [------ trip_us ------)
//!   [-------------------------------------------)- - - - - - - - - - - - ->
//!        answered by then: one more is allowed       later: one less
//! ```
//! A job may take twice the trip, and no longer than the trip and half of what is left until the deadline then. So what
//! is in flight takes Redis less than half of the deadline.

/// With so many in flight Redis is never idle on a short trip.
pub(super) const MIN_IN_FLIGHT: usize = 2;
/// Most jobs in flight: at well below a millisecond each, they take Redis less than the default deadline.
pub(super) const MAX_IN_FLIGHT: usize = 64;
/// A shorter trip is mostly Redis's own time.
const LONG_TRIP_US: u64 = 1_000;
/// A longer trip enters the average with one part in so many. A shorter one is the truth.
const SMOOTHING: u64 = 8;
/// A connection that is busy without end is emptied so often, to see how long the way is by now.
const MEASURE_EVERY_US: u64 = 10_000_000;

/// The limit of one connection.
#[derive(Debug)]
pub(super) struct InFlight {
    limit: usize,
    /// What a job takes that Redis has little to do before; 0 until one was answered.
    trip_us: u64,
    measured_us: u64,
    timeout_us: u64,
    /// Report to come that were sent under a higher limit.
    sent_before: usize,
    is_slow: bool,
}

impl InFlight {
    pub(super) fn new(timeout_us: u64) -> Self {
        Self { limit: MIN_IN_FLIGHT, trip_us: 0, measured_us: 0, timeout_us, sent_before: 0, is_slow: false }
    }

    /// Most jobs that may be in flight.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// What is due sooner is not answered in time any more if it has yet to be sent. At most half of the deadline, so
    /// that something is sent and measured, whatever was measured before.
    pub(super) fn least_us(&self) -> u64 {
        self.trip_us.min(self.timeout_us / 2)
    }

    /// Whether what was answered last had waited in Redis for a quarter of what the deadline leaves.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// A job was answered that was sent with so many `ahead` of it.
    pub(super) fn on_answer(&mut self, took_us: u64, ahead: usize, now_us: u64) {
        self.measure(took_us, ahead, now_us);
        let left_us = self.timeout_us.saturating_sub(self.trip_us);
        self.is_slow = took_us > self.trip_us + left_us / 4;
        if self.sent_before > 0 {
            self.sent_before -= 1;
        } else if took_us > self.trip_us + self.trip_us.min(left_us / 2) || self.trip_us <= LONG_TRIP_US {
            self.shrink_to(self.limit - self.limit.div_ceil(4));
        } else if ahead + 1 >= self.limit {
            self.limit = (self.limit + 1).min(MAX_IN_FLIGHT);
        }
    }

    fn measure(&mut self, took_us: u64, ahead: usize, now_us: u64) {
        let was_idle = ahead < MIN_IN_FLIGHT;
        if self.trip_us == 0 || took_us < self.trip_us {
            self.trip_us = took_us;
        } else if was_idle {
            self.trip_us = (self.trip_us * (SMOOTHING - 1) + took_us) / SMOOTHING;
        }
        if was_idle {
            self.measured_us = now_us;
        } else if now_us.saturating_sub(self.measured_us) > MEASURE_EVERY_US {
            self.measured_us = now_us;
            self.shrink_to(MIN_IN_FLIGHT);
        }
    }

    fn shrink_to(&mut self, limit: usize) {
        self.sent_before = self.limit;
        self.limit = limit.max(MIN_IN_FLIGHT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const TIMEOUT_US: u64 = 50_000;

    /// A Redis that takes `service_us` for each job, at the end of a way, and a worker with more to ask than it can.
    struct World {
        now_us: u64,
        redis_free_us: u64,
        /// When each was sent, how many were ahead of it, and when its answer comes.
        in_flight: VecDeque<(u64, usize, u64)>,
        limit: InFlight,
    }

    impl World {
        fn new() -> Self {
            let (in_flight, limit) = (VecDeque::new(), InFlight::new(TIMEOUT_US));
            Self { now_us: 0, redis_free_us: 0, in_flight, limit }
        }

        /// Lets so much time pass. Returns the answers of its second half, and the longest that one of them took.
        fn run(&mut self, trip_us: u64, service_us: u64, time_us: u64) -> (u64, u64) {
            let (half_us, end_us) = (self.now_us + time_us / 2, self.now_us + time_us);
            let (mut answers, mut longest_us) = (0, 0);
            while self.now_us < end_us {
                while self.in_flight.len() < self.limit.limit() {
                    let arrives_us = self.now_us + trip_us / 2;
                    self.redis_free_us = self.redis_free_us.max(arrives_us) + service_us;
                    let answer_us = self.redis_free_us + trip_us / 2;
                    self.in_flight.push_back((self.now_us, self.in_flight.len(), answer_us));
                }
                let (sent_us, ahead, answer_us) = self.in_flight.pop_front().unwrap();
                self.now_us = self.now_us.max(answer_us);
                self.limit.on_answer(self.now_us - sent_us, ahead, self.now_us);
                if self.now_us > half_us {
                    answers += 1;
                    longest_us = longest_us.max(self.now_us - sent_us);
                }
            }
            (answers, longest_us)
        }
    }

    #[test]
    fn a_long_way_is_filled_and_redis_is_not_flooded() {
        for (trip_us, service_us) in [(2_000, 300), (5_000, 300), (5_000, 2_000), (20_000, 500), (30_000, 1_000)] {
            let (answers, longest_us) = World::new().run(trip_us, service_us, 4_000_000);
            let most = (2_000_000 / service_us).min(2_000_000 * MAX_IN_FLIGHT as u64 / (trip_us + service_us));
            assert!(answers * 10 >= most * 9, "{trip_us}, {service_us}: {answers} of {most}");
            assert!(longest_us < trip_us + TIMEOUT_US / 2, "{trip_us}, {service_us}: {longest_us} us");
        }
    }

    #[test]
    fn on_a_short_way_two_are_in_flight_whatever_redis_takes() {
        for (trip_us, service_us) in [(100, 300), (300, 30), (20, 400)] {
            let mut world = World::new();
            world.run(trip_us, service_us, 1_000_000);
            assert_eq!(world.limit.limit(), MIN_IN_FLIGHT, "{trip_us}, {service_us}");
        }
    }

    #[test]
    fn it_follows_a_way_that_changes() {
        let mut world = World::new();
        for (trip_us, least, most) in [(200, 2, 2), (5_000, 14, 40), (20_000, 50, 64), (200, 2, 2), (5_000, 14, 40)] {
            world.run(trip_us, 300, 12_000_000);
            let limit = world.limit.limit();
            assert!((least..=most).contains(&limit), "{limit} at {trip_us}");
        }
    }

    #[test]
    fn what_cannot_be_answered_in_time_is_at_most_half_of_the_deadline() {
        let mut limit = InFlight::new(TIMEOUT_US);
        assert_eq!(limit.least_us(), 0);
        limit.on_answer(5_000, 0, 1);
        assert_eq!(limit.least_us(), 5_000);
        limit.on_answer(3_000_000, 0, 2);
        assert_eq!((limit.least_us(), limit.is_slow()), (TIMEOUT_US / 2, true));
    }
}
