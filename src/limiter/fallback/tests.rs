use super::*;
use crate::limit::{MAX_WINDOW_MS, Reason, RetryAfter, Window};
use proptest::prelude::*;

fn limit_of(max: u32, window_ms: u64) -> Limit {
    Limit::log(max, Window::from_ms(window_ms).unwrap())
}

fn ask<'a>(key: &'a [u8], limits: &'a [Limit], cost: u32) -> Ask<'a> {
    Ask { key, limits, cost }
}

#[test]
fn a_new_bucket_is_full_and_refills_evenly() {
    let fallback = Fallback::new(0.5, 100);
    let limits = [limit_of(10, 1_000)];
    for left in (0..5).rev() {
        let verdict = fallback.check(&ask(b"k", &limits, 1), 0);
        assert!(verdict.allowed && verdict.degraded);
        assert_eq!((verdict.limit, verdict.remaining), (10, left));
        assert_eq!(verdict.reset_after_ms, u64::from(5 - left) * 200);
    }
    let denied = fallback.check(&ask(b"k", &limits, 1), 50_000);
    assert!(!denied.allowed && denied.degraded);
    assert_eq!((denied.limit, denied.remaining, denied.reset_after_ms), (10, 0, 950));
    assert_eq!(denied.retry_after, RetryAfter::Ms(150));
    assert_eq!(fallback.check(&ask(b"k", &limits, 2), 50_000).retry_after, RetryAfter::Ms(350));
    assert!(!fallback.check(&ask(b"k", &limits, 1), 199_999).allowed);
    assert!(fallback.check(&ask(b"k", &limits, 1), 200_000).allowed);
}

#[test]
fn small_limits_keep_one_token_and_large_costs_wait_a_window() {
    let fallback = Fallback::new(0.1, 100);
    let limits = [limit_of(5, 2_000)];
    assert_eq!(fallback.peek(&ask(b"k", &limits, 3), 0).retry_after, RetryAfter::Ms(2_000));
    assert_eq!(fallback.peek(&ask(b"k", &limits, 6), 0).retry_after, RetryAfter::Never);
    assert!(fallback.check(&ask(b"k", &limits, 1), 0).allowed);
    assert_eq!(fallback.check(&ask(b"k", &limits, 1), 0).retry_after, RetryAfter::Ms(2_000));
}

#[test]
fn several_windows_take_all_or_nothing() {
    let fallback = Fallback::new(1.0, 100);
    let (second, minute) = (limit_of(3, 1_000), limit_of(4, 60_000));
    let both = [second, minute];
    assert!(fallback.check(&ask(b"k", &both, 3), 0).allowed);
    let denied = fallback.check(&ask(b"k", &both, 2), 0);
    // The minute has one token and needs 15 s for the other; the second is sooner ready.
    assert_eq!((denied.limit, denied.remaining, denied.retry_after), (4, 1, RetryAfter::Ms(15_000)));
    assert_eq!(fallback.peek(&ask(b"k", &[minute], 1), 0).remaining, 0);
    assert!(!fallback.peek(&ask(b"k", &[second], 1), 0).allowed);
    fallback.forget(b"k");
    assert_eq!(fallback.buckets(), 0);
    assert!(fallback.peek(&ask(b"k", &both, 3), 0).allowed);
}

#[test]
fn the_limit_is_no_part_of_the_state() {
    let fallback = Fallback::new(1.0, 100);
    assert!(fallback.check(&ask(b"k", &[limit_of(100, 1_000)], 10), 0).allowed);
    let lowered = fallback.peek(&ask(b"k", &[limit_of(20, 1_000)], 1), 0);
    assert_eq!((lowered.allowed, lowered.remaining), (true, 19));
    assert_eq!(fallback.peek(&ask(b"k", &[limit_of(100, 1_000)], 1), 0).remaining, 89);
}

#[test]
fn exact_answers_set_what_is_left() {
    let fallback = Fallback::new(0.5, 100);
    let limits = [limit_of(10, 1_000)];
    let remaining = |now_us| fallback.peek(&ask(b"k", &limits, 1), now_us).remaining;
    fallback.learn(b"k", limits[0], 9, 0);
    assert_eq!(fallback.buckets(), 0, "a full bucket need not be kept");
    fallback.learn(b"k", limits[0], 2, 0);
    assert_eq!((fallback.buckets(), remaining(0)), (1, 1));
    fallback.learn(b"k", limits[0], 0, 100);
    assert!(!fallback.check(&ask(b"k", &limits, 1), 100).allowed);
    fallback.learn(b"k", limits[0], 7, 200);
    assert_eq!(remaining(200), 4);
}

#[test]
fn open_admits_and_closed_denies_all() {
    let limits = [limit_of(10, 1_000), limit_of(5, 60_000)];
    let admitted = open(&ask(b"k", &limits, 2));
    assert!(admitted.allowed && admitted.degraded && admitted.retry_after == RetryAfter::Now);
    assert_eq!((admitted.limit, admitted.remaining, admitted.reset_after_ms), (5, 3, 60_000));
    let denied = closed(&ask(b"k", &limits, 2));
    assert!(!denied.allowed && denied.degraded);
    assert_eq!((denied.limit, denied.remaining, denied.reset_after_ms), (5, 0, 60_000));
    assert_eq!(denied.retry_after, RetryAfter::Ms(60_000));
}

#[test]
fn in_full_each_bucket_says_when_it_has_a_token_more() {
    let fallback = Fallback::new(0.5, 100);
    // Tokens come every 200 ms, and every 6 s.
    let limits = [limit_of(10, 1_000), limit_of(20, 60_000)];
    let told = |told: Breakdown| {
        told.limits.iter().map(|of| (of.remaining, of.retry_after, of.next_ms, of.reset_after_ms)).collect::<Vec<_>>()
    };
    let untouched = fallback.peek_in_full(&ask(b"k", &limits, 1), 0);
    assert_eq!(told(untouched), [(4, RetryAfter::Now, 200, 200), (9, RetryAfter::Now, 6_000, 6_000)]);
    let allowed = fallback.check_in_full(&ask(b"k", &limits, 5), 0);
    assert!(allowed.verdict.allowed && allowed.verdict.degraded);
    assert_eq!(told(allowed), [(0, RetryAfter::Now, 200, 1_000), (5, RetryAfter::Now, 6_000, 30_000)]);
    let denied = fallback.check_in_full(&ask(b"k", &limits, 2), 50_000);
    assert!(!denied.verdict.allowed && denied.reason == Reason::Limit);
    assert_eq!(told(denied.clone()), [(0, RetryAfter::Ms(350), 150, 950), (5, RetryAfter::Now, 5_950, 29_950)]);
    assert_eq!(denied.verdict, fallback.peek(&ask(b"k", &limits, 2), 50_000));
    // A full bucket has no more to come.
    let full = fallback.peek_in_full(&ask(b"k", &limits, 6), 60_000_000);
    assert_eq!(told(full), [(5, RetryAfter::Ms(1_000), 0, 0), (10, RetryAfter::Now, 0, 0)]);
}

#[test]
fn no_more_buckets_than_allowed_and_idle_ones_go_first() {
    let fallback = Fallback::new(0.5, 1_000);
    let limits = [limit_of(10, 60_000)];
    for key in 0..1_000_u32 {
        // The first half has had a window to refill, the second has not.
        let now_us = if key < 500 { 0 } else { 60_000_000 };
        fallback.check(&ask(&key.to_be_bytes(), &limits, 5), now_us);
    }
    assert_eq!((fallback.buckets(), fallback.evicted()), (1_000, 0));
    for key in 1_000..1_200_u32 {
        fallback.check(&ask(&key.to_be_bytes(), &limits, 5), 60_000_000);
    }
    // One or two of these keys may share a place with one that was evicted, and be denied.
    assert_eq!(fallback.buckets(), 1_000);
    assert!((190..=200).contains(&fallback.evicted()), "{}", fallback.evicted());
    let forgotten =
        (500..1_200_u32).filter(|key| fallback.peek(&ask(&key.to_be_bytes(), &limits, 1), 60_000_000).allowed).count();
    assert!(forgotten < 60, "{forgotten} drained buckets made way while full ones stayed");
}

/// A full table once forgot a bucket to make room for another, and so gave its key the whole budget again: with more
/// keys than there was room for, nobody was limited.
#[test]
fn a_key_whose_bucket_made_way_gets_no_budget_for_it() {
    let fallback = Fallback::new(0.5, 100);
    let limits = [limit_of(10, 60_000), limit_of(1_000, 3_600_000)];
    let mut admitted = [0_u32; 1_000];
    for round in 0..20 {
        for (key, count) in (0_u32..).zip(&mut admitted) {
            let verdict = fallback.check(&ask(&key.to_be_bytes(), &limits, 1), round);
            *count += u32::from(verdict.allowed);
        }
    }
    assert!(fallback.buckets() <= 200 && fallback.evicted() > 0);
    assert_eq!(admitted.iter().max(), Some(&5), "{admitted:?}");
    // Whatever was evicted, after a window everybody has everything again.
    let verdict = fallback.peek(&ask(b"new", &limits[..1], 1), 60_000_020);
    assert_eq!((verdict.allowed, verdict.remaining), (true, 4));
    // Windows of other lengths lack nothing.
    let other = [limit_of(10, 1_000)];
    assert!((0..1_000_u32).all(|key| fallback.peek(&ask(&key.to_be_bytes(), &other, 5), 20).allowed));
}

#[test]
fn the_windows_of_one_key_are_bounded() {
    let fallback = Fallback::new(0.5, 1_000);
    for window_ms in 1..=100 {
        fallback.check(&ask(b"k", &[limit_of(4, window_ms)], 1), 0);
    }
    assert_eq!(fallback.buckets(), MAX_WINDOWS_PER_KEY);
}

/// A bucket that is never forgotten, charged with what was admitted.
struct Plain {
    capacity: u128,
    window_us: u128,
    /// In tokens times microseconds of window.
    level: u128,
    time_us: u128,
}

impl Plain {
    fn new(limit: u32, ratio: f64, window_us: u64) -> Self {
        let capacity = ((f64::from(limit) * ratio) as u128).max(1);
        Self { capacity, window_us: window_us.into(), level: capacity * u128::from(window_us), time_us: 0 }
    }

    fn refill(&mut self, now_us: u64) {
        let gained = (u128::from(now_us) - self.time_us) * self.capacity;
        self.level = (self.level + gained).min(self.capacity * self.window_us);
        self.time_us = now_us.into();
    }

    /// Whether it had so much.
    fn take(&mut self, cost: u32, now_us: u64) -> bool {
        self.refill(now_us);
        let cost = u128::from(cost) * self.window_us;
        let has = self.level >= cost;
        self.level = self.level.saturating_sub(cost);
        has
    }

    fn learn(&mut self, remaining: u32, now_us: u64) {
        self.refill(now_us);
        self.level = (u128::from(remaining) * self.window_us).min(self.capacity * self.window_us);
    }
}

proptest! {
    /// However few buckets there are room for: whatever is admitted has room in buckets of unbounded memory.
    #[test]
    fn no_number_of_keys_gets_more_than_buckets_of_their_own_would_give(
        max_keys in 1..12usize,
        ratio in 0.1..1.0f64,
        limits in proptest::collection::vec(1..40u32, 3),
        steps in proptest::collection::vec((0..24u8, 1..8usize, 1..6u32, 0..3_000u64, 0..10u8), 1..600),
    ) {
        let windows_ms = [9, 15, 40];
        let limits: Vec<_> = windows_ms.iter().zip(&limits).map(|(ms, limit)| limit_of(*limit, *ms)).collect();
        let fallback = Fallback::new(ratio, max_keys);
        let mut plain = std::collections::HashMap::new();
        let mut now_us = 0;
        for (key, windows, cost, step_us, what) in steps {
            now_us += step_us;
            let asked: Vec<_> =
                limits.iter().enumerate().filter(|(bit, _)| windows >> bit & 1 == 1).map(|(_, limit)| *limit).collect();
            let is_allowed = what > 0 && fallback.check(&ask(&[key], &asked, cost), now_us).allowed;
            for limit in &asked {
                let new = || Plain::new(limit.max, ratio, limit.window.us());
                let plain = plain.entry((key, limit.window)).or_insert_with(new);
                if is_allowed {
                    prop_assert!(plain.take(cost, now_us), "{key} in {:?}", limit.window);
                } else if what == 0 {
                    fallback.learn(&[key], *limit, cost - 1, now_us);
                    plain.learn(cost - 1, now_us);
                }
            }
            prop_assert!(fallback.buckets() <= max_keys);
        }
    }

    #[test]
    fn an_outage_admits_what_was_left_and_the_refill(
        limit in 1..1_000u32,
        ratio in 0.01..1.0f64,
        window_ms in prop_oneof![1..50u64, Just(MAX_WINDOW_MS - 1)],
        remaining in 0..1_000u32,
        requests in proptest::collection::vec((1..20u32, 0..2_000u64, any::<bool>()), 1..300),
    ) {
        let fallback = Fallback::new(ratio, 100);
        let limits = [limit_of(limit, window_ms), limit_of(1_000_000_000, window_ms + 1)];
        let capacity = ((f64::from(limit) * ratio) as u64).max(1);
        fallback.learn(b"k", limits[0], remaining, 0);
        let (mut now_us, mut admitted) = (0, 0);
        for (cost, step_us, peek_first) in requests {
            now_us += step_us;
            let request = ask(b"k", &limits, cost);
            let peeked = peek_first.then(|| fallback.peek(&request, now_us));
            let verdict = fallback.check(&request, now_us);
            prop_assert!(peeked.is_none_or(|peeked| peeked == verdict));
            if verdict.allowed {
                admitted += u64::from(cost);
            }
            let refill = u128::from(capacity) * u128::from(now_us) / u128::from(limits[0].window.us());
            prop_assert!(u128::from(admitted) <= u128::from(capacity.min(remaining.into())) + refill);
        }
    }

    #[test]
    fn a_denial_ends_exactly_when_it_said(
        limits in proptest::collection::vec(1..100u32, 1..4),
        spent in proptest::collection::vec((1..50u32, 0..5_000u64), 0..40),
        cost in 1..100u32,
        samples in proptest::collection::vec(0.0..1.0f64, 20),
    ) {
        let fallback = Fallback::new(0.7, 100);
        let limits: Vec<_> = (7..).zip(&limits).map(|(window_ms, limit)| limit_of(*limit, window_ms)).collect();
        let mut now_us = 0;
        for (cost, step_us) in spent {
            now_us += step_us;
            fallback.check(&ask(b"k", &limits, cost), now_us);
        }
        let request = ask(b"k", &limits, cost);
        let denied = fallback.check(&request, now_us);
        let ever = limits.iter().all(|limit| cost <= ((f64::from(limit.max) * 0.7) as u32).max(1));
        match denied.retry_after {
            RetryAfter::Ms(retry_ms) if ever => {
                for at in samples {
                    let early_us = ((retry_ms - 1) as f64 * 1_000.0 * at) as u64;
                    prop_assert!(!fallback.peek(&request, now_us + early_us).allowed);
                }
                prop_assert!(fallback.peek(&request, now_us + retry_ms * 1_000).allowed);
            }
            RetryAfter::Now => prop_assert!(ever),
            RetryAfter::Ms(_) => prop_assert!(!fallback.peek(&request, u64::MAX).allowed),
            RetryAfter::Never => prop_assert!(limits.iter().any(|limit| cost > limit.max)),
        }
    }
}
