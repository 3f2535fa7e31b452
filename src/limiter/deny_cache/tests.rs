use super::*;
use crate::limit::Window;
use proptest::prelude::*;

const HOLD_US: u64 = 1_000_000;

fn limit_of(max: u32, window_ms: u64) -> Limit {
    Limit::log(max, Window::from_ms(window_ms).unwrap())
}

fn denial(until_us: u64, max_cost: u32) -> Denial {
    let (certain_until_us, empty_at_us) = (until_us, until_us + 5_000);
    Denial { binding: 0, limit: 10, remaining: 2, certain_until_us, until_us, empty_at_us, max_cost }
}

#[test]
fn a_denial_counts_down_until_it_ends() {
    let cache = DenyCache::new(100, HOLD_US);
    let ask = Ask { key: b"k", limits: &[limit_of(10, 1_000)], cost: 3 };
    assert_eq!(cache.lookup(&ask, 0), None);
    cache.insert(&ask, denial(10_000, 5), 0, 100);
    let at = |now_us| cache.lookup(&ask, now_us).map(|found| (found.retry_after, found.reset_after_ms));
    assert_eq!(at(100), Some((RetryAfter::Ms(10), 15)));
    assert_eq!(at(2_000), Some((RetryAfter::Ms(8), 13)));
    assert_eq!(at(9_999), Some((RetryAfter::Ms(1), 6)));
    let found = cache.lookup(&ask, 9_999).unwrap();
    assert_eq!((found.allowed, found.limit, found.remaining, found.degraded), (false, 10, 2, false));
    assert_eq!(at(10_000), None);
    assert_eq!(cache.entries(), 0, "what expired goes when it is looked at");
}

#[test]
fn what_is_known_in_full_is_told_until_more_is_free() {
    let cache = DenyCache::new(100, HOLD_US);
    let limits = [limit_of(10, 1_000), limit_of(50, 60_000)];
    let ask = Ask { key: b"k", limits: &limits, cost: 1 };
    let state =
        |used, fits_in_us, empty_in_us, next_in_us| LimitState { used, fits_in_us, empty_in_us, next_in_us, part: 0 };
    let states = [state(10, 90_000, 95_000, 90_000), state(10, 0, 9_000_000, 40_000)];
    let denial = Denial { remaining: 0, ..denial(91_000, 1) };
    cache.insert(&ask, denial, 0, 2_000);
    assert_eq!(cache.lookup_in_full(&ask, 2_000), None, "nobody asked for it");
    cache.insert_in_full(&ask, denial, &states, Decided::at(1_000), 2_000);
    assert_eq!(cache.entries(), 1);
    let told = cache.lookup_in_full(&ask, 21_000).unwrap();
    assert_eq!(Some(told.verdict), cache.lookup(&ask, 21_000));
    let figures = told.limits.iter().map(|of| (of.remaining, of.retry_after, of.next_ms, of.reset_after_ms));
    assert_eq!(figures.collect::<Vec<_>>(), [(0, RetryAfter::Ms(70), 70, 75), (40, RetryAfter::Now, 20, 8_980)]);
    assert!(cache.lookup_in_full(&ask, 40_999).is_some());
    assert_eq!(cache.lookup_in_full(&ask, 41_000), None, "by then the other limit has more free");
    assert!(cache.lookup(&ask, 41_000).is_some(), "which makes no difference to the verdict");
    cache.admitted(b"k");
    assert_eq!(cache.lookup_in_full(&ask, 21_000), None);
}

/// It was decided between 1,000 and 1,400: nobody is kept away once that could be over, nor told to come before it is.
#[test]
fn a_denial_that_is_dated_within_bounds_ends_early_and_is_told_to_end_late() {
    let cache = DenyCache::new(100, HOLD_US);
    let ask = Ask { key: b"k", limits: &[limit_of(10, 1_000)], cost: 1 };
    let decided = Decided { sent_us: 500, earliest_us: 1_000, latest_us: 1_400 };
    let states = [LimitState { used: 10, fits_in_us: 20_000, empty_in_us: 30_000, next_in_us: 20_000, part: 0 }];
    let [certain_until_us, until_us, empty_at_us] = [21_000, 21_400, 31_400];
    let denial = Denial { certain_until_us, until_us, empty_at_us, remaining: 0, ..denial(0, 1) };
    cache.insert_in_full(&ask, denial, &states, decided, 2_000);
    let told = cache.lookup(&ask, 20_390).unwrap();
    assert_eq!((told.retry_after, told.reset_after_ms), (RetryAfter::Ms(2), 12));
    let told = cache.lookup_in_full(&ask, 20_390).unwrap();
    let figures = told.limits.iter().map(|of| (of.retry_after, of.next_ms, of.reset_after_ms));
    assert_eq!(figures.collect::<Vec<_>>(), [(RetryAfter::Ms(2), 2, 12)]);
    assert!(cache.lookup(&ask, 20_999).is_some() && cache.lookup_in_full(&ask, 20_999).is_some());
    assert_eq!((cache.lookup(&ask, 21_000), cache.lookup_in_full(&ask, 21_000)), (None, None));
}

#[test]
fn no_denial_is_held_longer_than_it_may() {
    let cache = DenyCache::new(100, HOLD_US);
    let ask = Ask { key: b"k", limits: &[limit_of(10, 60_000)], cost: 1 };
    cache.insert(&ask, denial(50_000_000, 1), 0, 7);
    assert!(cache.lookup(&ask, 6 + HOLD_US).is_some());
    assert!(cache.lookup(&ask, 7 + HOLD_US).is_none());
}

#[test]
fn answers_its_own_quotas_and_range_of_costs_only() {
    let cache = DenyCache::new(100, HOLD_US);
    let limits = [limit_of(10, 1_000), limit_of(50, 60_000)];
    let ask = Ask { key: b"k", limits: &limits, cost: 3 };
    cache.insert(&ask, denial(10_000, 5), 0, 0);
    let hit = |ask: &Ask<'_>| cache.lookup(ask, 1).is_some();
    let by_cost = [1, 2, 3, 4, 5, 6].map(|cost| hit(&Ask { cost, ..ask }));
    assert_eq!(by_cost, [false, false, true, true, true, false]);
    assert!(!hit(&Ask { limits: &limits[..1], ..ask }));
    assert!(!hit(&Ask { limits: &[limit_of(11, 1_000), limit_of(50, 60_000)], ..ask }));
    assert!(!hit(&Ask { key: b"l", ..ask }));
    // Another cost of the same key stands beside it; the same cost replaces it.
    cache.insert(&Ask { cost: 8, ..ask }, denial(90_000, 9), 0, 0);
    cache.insert(&ask, denial(30_000, 3), 0, 0);
    assert_eq!(cache.entries(), 2);
    let by_cost = [3, 4, 8, 9].map(|cost| hit(&Ask { cost, ..ask }));
    assert_eq!(by_cost, [true, false, true, true]);
}

#[test]
fn a_reset_stops_denials_in_flight() {
    let cache = DenyCache::new(100, HOLD_US);
    let ask = Ask { key: b"k", limits: &[limit_of(10, 1_000)], cost: 1 };
    for forget in [|cache: &DenyCache, at| cache.forget(b"k", at), |cache: &DenyCache, at| cache.clear(at)] {
        let start = if cache.lookup(&ask, 0).is_none() { 100 } else { 500 };
        cache.insert(&ask, denial(90_000, 1), start, start + 10);
        assert!(cache.lookup(&ask, start + 10).is_some());
        forget(&cache, start + 20);
        assert_eq!((cache.lookup(&ask, start + 20), cache.entries()), (None, 0));
        cache.insert(&ask, denial(90_000, 1), start + 20, start + 30);
        assert_eq!(cache.lookup(&ask, start + 30), None, "asked for before the reset");
        cache.insert(&ask, denial(90_000, 1), start + 21, start + 30);
        assert!(cache.lookup(&ask, start + 30).is_some(), "asked for after it");
    }
}

#[test]
fn an_admission_drops_the_denials_of_its_key() {
    let cache = DenyCache::new(4, HOLD_US);
    let ask = Ask { key: b"k", limits: &[limit_of(10, 1_000)], cost: 4 };
    let other = Ask { key: b"l", ..ask };
    cache.insert(&ask, denial(90_000, 4), 0, 0);
    cache.insert(&Ask { cost: 9, ..ask }, denial(95_000, 9), 0, 0);
    cache.insert(&other, denial(90_000, 4), 0, 0);
    cache.admitted(b"k");
    assert_eq!(cache.entries(), 1);
    assert!(cache.lookup(&other, 1).is_some());
    cache.insert(&ask, denial(90_000, 4), 0, 0);
    assert!(cache.lookup(&ask, 1).is_some(), "an admission does not stop what is in flight");
}

#[test]
fn a_full_bucket_gives_up_what_ends_first() {
    let cache = DenyCache::new(4, HOLD_US);
    let limits = [limit_of(10, 1_000)];
    let ask = |key| Ask { key, limits: &limits, cost: 1 };
    let keys: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];
    for (key, until_us) in keys.into_iter().zip([500, 100, 400, 300, 600, 350]) {
        cache.insert(&ask(key), denial(until_us, 1), 0, 10);
    }
    let left = keys.map(|key| cache.lookup(&ask(key), 20).is_some());
    assert_eq!(left, [true, false, true, false, true, true]);
    assert_eq!(cache.entries(), 4);
}

#[test]
fn memory_is_bounded_and_nothing_is_kept_when_off() {
    let limits = [limit_of(10, 1_000)];
    let (small, off, instant) = (DenyCache::new(1_000, HOLD_US), DenyCache::new(0, HOLD_US), DenyCache::new(1_000, 0));
    for key in 0..20_000_u32 {
        let key = key.to_be_bytes();
        let ask = Ask { key: &key, limits: &limits, cost: 1 };
        for cache in [&small, &off, &instant] {
            cache.insert(&ask, denial(90_000, 1), 0, 0);
        }
        assert!(small.lookup(&ask, 1).is_some());
        assert!(off.lookup(&ask, 1).is_none() && instant.lookup(&ask, 1).is_none());
    }
    assert!((900..=1_024).contains(&small.entries()));
    off.forget(b"k", 1);
    off.admitted(b"k");
    off.clear(1);
    assert_eq!(off.entries() + instant.entries(), 0);
}

#[derive(Debug, Clone)]
enum Op {
    Insert { key: u8, cost: u32, costlier: u32, flight_us: u64, lasts_us: u64 },
    Admitted { key: u8 },
    Forget { key: u8 },
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..6u8, 1..6u32, 0..4u32, 0..400u64, 0..3_000u64).prop_map(
            |(key, cost, costlier, flight_us, lasts_us)| Op::Insert { key, cost, costlier, flight_us, lasts_us }
        ),
        1 => (0..6u8).prop_map(|key| Op::Admitted { key }),
        1 => (0..6u8).prop_map(|key| Op::Forget { key }),
        1 => Just(Op::Clear),
    ]
}

proptest! {
    /// Whatever is kept or evicted: an answer is one that was given, for this key and cost, neither expired nor
    /// held too long nor from before the key was forgotten.
    #[test]
    fn never_answers_what_no_longer_holds(
        entries in 1..20usize,
        steps in proptest::collection::vec((op(), 0..500u64), 1..150),
    ) {
        const HOLD_US: u64 = 1_500;
        let cache = DenyCache::new(entries, HOLD_US);
        let limits = [limit_of(10, 1_000)];
        // Key, cost, denial, and when it was stored.
        let mut given: Vec<(u8, u32, Denial, u64)> = Vec::new();
        let mut forgotten_us = [0; 6];
        let mut now_us = 1_000;
        for (op, step_us) in steps {
            now_us += step_us;
            match op {
                Op::Insert { key, cost, costlier, flight_us, lasts_us } => {
                    let (denial, sent_us) = (denial(now_us + lasts_us, cost + costlier), now_us - flight_us);
                    cache.insert(&Ask { key: &[key], limits: &limits, cost }, denial, sent_us, now_us);
                    if sent_us > forgotten_us[usize::from(key)] {
                        given.push((key, cost, denial, now_us));
                    }
                }
                Op::Admitted { key } => {
                    cache.admitted(&[key]);
                    given.retain(|(of, ..)| *of != key);
                }
                Op::Forget { key } => {
                    cache.forget(&[key], now_us);
                    forgotten_us[usize::from(key)] = now_us;
                    given.retain(|(of, ..)| *of != key);
                }
                Op::Clear => {
                    cache.clear(now_us);
                    forgotten_us = [now_us; 6];
                    given.clear();
                }
            }
            for (key, cost) in (0..6).flat_map(|key| (1..10).map(move |cost| (key, cost))) {
                let found = cache.lookup(&Ask { key: &[key], limits: &limits, cost }, now_us);
                let Some(found) = found else { continue };
                let holds = given.iter().any(|(of, denied, denial, stored_us)| {
                    *of == key
                        && (*denied..=denial.max_cost).contains(&cost)
                        && now_us < denial.until_us.min(stored_us + HOLD_US)
                        && found.retry_after == RetryAfter::Ms(us_to_ms_ceil(denial.until_us - now_us))
                });
                prop_assert!(holds);
            }
        }
    }
}
