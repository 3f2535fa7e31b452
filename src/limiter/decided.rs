//! When a node decided, by this process's clock: what its answer says of times counts from then, and neither from when it
//! was asked nor from when the answer was here. A batch may wait in Redis, and an answer on its way, for most of a deadline.
//!
//! ```text
//!   sent                  decided                      received
//! ----|---------------[======|======]----------------------|------->
//!                  earliest       latest
//! ```
//! The node's answer says what its own clock read. How far that is ahead of this process's is known within bounds that are
//! as far apart as a round trip took; and of many answers the quickest tell the most. As clocks run at different speeds,
//! what they told is true within wider bounds the older it gets. The idea is that of NTP's clock filter (Mills, 1991).

/// Clocks differ by less than one part in so many while nobody sets them.
const MAX_DRIFT: i64 = 1_000;

/// When a node read its clock: no earlier and no later than that, in microseconds of this process's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// When it was asked.
    pub sent_us: u64,
    /// At least `sent_us`.
    pub earliest_us: u64,
    /// At least `earliest_us`.
    pub latest_us: u64,
}

impl Decided {
    /// At this time exactly, at which it was asked too.
    pub const fn at(us: u64) -> Self {
        Self { sent_us: us, earliest_us: us, latest_us: us }
    }
}

/// How far a node's clock is ahead of this process's, as its answers on one connection tell.
#[derive(Debug, Default)]
pub(super) struct ClockBounds {
    known: Option<Bounds>,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    least_us: i64,
    most_us: i64,
    /// No earlier than this by this process's clock it was so.
    seen_us: u64,
}

impl ClockBounds {
    /// The node read this on its clock, some time between the two times. When that was.
    pub(super) fn decided(&mut self, node_us: i64, sent_us: u64, received_us: u64) -> Decided {
        let own = Bounds {
            least_us: node_us.saturating_sub_unsigned(received_us),
            most_us: node_us.saturating_sub_unsigned(sent_us),
            seen_us: sent_us,
        };
        let both = self.known.map_or(own, |known| known.at(received_us).within(own));
        // If they have nothing in common the clock was set anew since.
        let bounds = if both.least_us <= both.most_us { both } else { own };
        self.known = Some(bounds);
        let time_us = |ahead_us: i64| u64::try_from(node_us.saturating_sub(ahead_us)).unwrap_or(0);
        Decided { sent_us, earliest_us: time_us(bounds.most_us), latest_us: time_us(bounds.least_us) }
    }
}

impl Bounds {
    fn at(self, now_us: u64) -> Self {
        let elapsed_us = i64::try_from(now_us.saturating_sub(self.seen_us)).unwrap_or(i64::MAX);
        let drift_us = elapsed_us / MAX_DRIFT + 1;
        let (least_us, most_us) = (self.least_us.saturating_sub(drift_us), self.most_us.saturating_add(drift_us));
        Self { least_us, most_us, seen_us: now_us }
    }

    fn within(self, other: Self) -> Self {
        let (least_us, most_us) = (self.least_us.max(other.least_us), self.most_us.min(other.most_us));
        Self { least_us, most_us, ..other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slow_answer_is_dated_by_what_a_quick_one_told() {
        let mut clock = ClockBounds::default();
        let ahead_us = 5_000_000;
        let first = clock.decided(ahead_us + 1_000, 900, 1_100);
        assert_eq!(first, Decided { sent_us: 900, earliest_us: 900, latest_us: 1_100 });
        // Decided late, and heard of late.
        for decided_us in [41_000, 2_000] {
            let Decided { earliest_us, latest_us, .. } = clock.decided(ahead_us + decided_us as i64, 2_000, 42_000);
            let bounds = decided_us - 200..=decided_us + 200;
            assert!(bounds.contains(&earliest_us) && bounds.contains(&latest_us), "{earliest_us}, {latest_us}");
            assert!((earliest_us..=latest_us).contains(&decided_us));
        }
    }

    proptest! {
        /// Wherever the node's clock is and however fast it runs, even where it is set anew.
        #[test]
        fn the_decision_was_within_the_bounds(
            ahead_us in -2_000_000_000_000_000..2_000_000_000_000_000i64,
            drift in -0.000_9..0.000_9f64,
            answers in proptest::collection::vec((0..5_000_000u64, 0..60_000u64, 0..60_000u64), 1..30),
            set_by_us in prop_oneof![Just(0i64), -90_000_000..90_000_000i64],
            set_at in 0..30usize,
        ) {
            let mut clock = ClockBounds::default();
            let mut now_us = 3_600_000_000u64;
            for (number, (pause_us, there_us, back_us)) in answers.into_iter().enumerate() {
                let sent_us = now_us + pause_us;
                let (decided_us, received_us) = (sent_us + there_us, sent_us + there_us + back_us);
                now_us = received_us;
                let is_set = number >= set_at && set_by_us != 0;
                let gained_us = (drift * decided_us as f64).floor() as i64;
                let node_us = decided_us as i64 + ahead_us + gained_us + if is_set { set_by_us } else { 0 };
                let Decided { earliest_us, latest_us, .. } = clock.decided(node_us, sent_us, received_us);
                prop_assert!(sent_us <= earliest_us && earliest_us <= latest_us && latest_us <= received_us);
                if !is_set {
                    prop_assert!((earliest_us..=latest_us).contains(&decided_us));
                }
            }
        }
    }
}
