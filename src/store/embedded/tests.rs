use super::*;
use crate::limit::{RetryAfter, Window};
use proptest::prelude::*;

fn limit_of(max: u32, window_ms: u64) -> Limit {
    Limit::log(max, Window::from_ms(window_ms).unwrap())
}

fn ask<'a>(key: &'a [u8], limits: &'a [Limit], cost: u32) -> Ask<'a> {
    Ask { key, limits, cost }
}

/// The same log in the plainest words: every admitted request, one by one.
#[derive(Default)]
struct Model {
    entries: Vec<(u8, Window, u64, u32)>,
}

impl Model {
    fn expire(&mut self, now_us: u64, of: impl Fn(u8, Window) -> bool) {
        self.entries.retain(|(key, window, time, _)| !of(*key, *window) || time + window.us() > now_us);
    }

    fn answer(&self, key: u8, limits: &[Limit], cost: u32, now_us: u64) -> Verdict {
        let state = |limit: &Limit| {
            let mut live: Vec<(u64, u64)> = self
                .entries
                .iter()
                .filter(|(of, window, time, _)| *of == key && *window == limit.window && time + window.us() > now_us)
                .map(|(_, window, time, weight)| (time + window.us() - now_us, u64::from(*weight)))
                .collect();
            live.sort_unstable();
            let used: u64 = live.iter().map(|(_, weight)| weight).sum();
            let empty_in_us = live.last().map_or(0, |(expires_in, _)| *expires_in);
            let fits_after = |expires_in: u64| {
                let left: u64 = live.iter().filter(|(at, _)| *at > expires_in).map(|(_, weight)| weight).sum();
                left + u64::from(cost) <= u64::from(limit.max)
            };
            let fits_in_us = live.iter().map(|(at, _)| *at).find(|at| fits_after(*at)).unwrap_or(empty_in_us);
            LimitState { used, fits_in_us, empty_in_us, ..LimitState::default() }
        };
        let states: Vec<_> = limits.iter().map(state).collect();
        decide(limits, &states, cost)
    }

    fn check(&mut self, key: u8, limits: &[Limit], cost: u32, now_us: u64) -> Verdict {
        self.expire(now_us, |of, window| of == key && limits.iter().any(|limit| limit.window == window));
        let verdict = self.answer(key, limits, cost, now_us);
        if verdict.allowed {
            self.entries.extend(limits.iter().map(|limit| (key, limit.window, now_us, cost)));
        }
        verdict
    }

    fn reset(&mut self, key: u8, now_us: u64) -> bool {
        let live = self.entries.iter().any(|(of, window, time, _)| *of == key && time + window.us() > now_us);
        self.entries.retain(|(of, ..)| *of != key);
        live
    }
}

#[derive(Debug, Clone)]
enum Op {
    Check { key: u8, limits: Vec<Limit>, cost: u32 },
    Peek { key: u8, limits: Vec<Limit>, cost: u32 },
    Reset { key: u8 },
    Sweep,
}

fn limits() -> impl Strategy<Value = Vec<Limit>> {
    let windows = proptest::sample::subsequence(vec![1, 2, 5, 9], 1..=3);
    windows.prop_flat_map(|windows| {
        proptest::collection::vec(1..8u32, windows.len()).prop_map(move |limits| {
            limits.iter().zip(&windows).map(|(limit, window_ms)| limit_of(*limit, *window_ms)).collect()
        })
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..3u8, limits(), 1..5u32).prop_map(|(key, limits, cost)| Op::Check { key, limits, cost }),
        4 => (0..3u8, limits(), 1..5u32).prop_map(|(key, limits, cost)| Op::Peek { key, limits, cost }),
        1 => (0..3u8).prop_map(|key| Op::Reset { key }),
        1 => Just(Op::Sweep),
    ]
}

proptest! {
    #[test]
    fn answers_as_the_plain_model_does(steps in proptest::collection::vec((op(), -4_000..6_000i64), 1..200)) {
        let embedded = Embedded::new(4_096, 1_000_000);
        let mut model = Model::default();
        let mut now_us = 1_000_000_000_u64;
        for (op, step_us) in steps {
            now_us = now_us.saturating_add_signed(step_us);
            match op {
                Op::Check { key, limits, cost } => prop_assert_eq!(
                    embedded.check(&ask(&[key], &limits, cost), now_us),
                    Ok(model.check(key, &limits, cost, now_us))
                ),
                Op::Peek { key, limits, cost } => prop_assert_eq!(
                    embedded.peek(&ask(&[key], &limits, cost), now_us),
                    model.answer(key, &limits, cost, now_us)
                ),
                Op::Reset { key } => prop_assert_eq!(embedded.reset(&[key], now_us), model.reset(key, now_us)),
                Op::Sweep => {
                    embedded.sweep(now_us, 4_096);
                    model.expire(now_us, |_, _| true);
                }
            }
        }
        for key in 0..3 {
            embedded.reset(&[key], now_us);
        }
        prop_assert_eq!((embedded.keys(), embedded.entries()), (0, 0));
    }

    #[test]
    fn a_denial_ends_exactly_when_it_said(
        history in proptest::collection::vec((limits(), 1..4u32, 0..900u64), 1..60),
        limits in limits(),
        cost in 1..6u32,
        samples in proptest::collection::vec(0.0..1.0f64, 20),
    ) {
        let embedded = Embedded::new(100, 10_000);
        let mut now_us = 0;
        for (limits, cost, step_us) in history {
            now_us += step_us;
            embedded.check(&ask(b"k", &limits, cost), now_us).unwrap();
        }
        let request = ask(b"k", &limits, cost);
        if let RetryAfter::Ms(retry_ms) = embedded.peek(&request, now_us).retry_after {
            let early = (retry_ms - 1) * 1000;
            for at in samples {
                let sample = now_us + (early as f64 * at) as u64;
                prop_assert!(!embedded.peek(&request, sample).allowed);
            }
            prop_assert!(embedded.peek(&request, now_us + retry_ms * 1000).allowed);
        }
    }

    #[test]
    fn no_interval_holds_more_than_the_limit(
        limit in 1..20u32,
        requests in proptest::collection::vec((1..6u32, 0..700u64), 1..300),
    ) {
        let embedded = Embedded::new(10, 10_000);
        let limits = [limit_of(limit, 3)];
        let (mut now_us, mut admitted) = (0, Vec::new());
        for (cost, step_us) in requests {
            now_us += step_us;
            if embedded.check(&ask(b"k", &limits, cost), now_us).unwrap().allowed {
                admitted.push((now_us, cost));
            }
        }
        for (start, _) in &admitted {
            let within = admitted.iter().filter(|(at, _)| (*start..start + 3_000).contains(at));
            prop_assert!(within.map(|(_, cost)| cost).sum::<u32>() <= limit);
        }
    }
}

#[test]
fn ten_in_a_minute_then_one_a_free_place() {
    let embedded = Embedded::new(10, 100);
    let limits = [limit_of(10, 60_000)];
    for left in (0..10).rev() {
        let verdict = embedded.check(&ask(b"user:42", &limits, 1), (10 - left) * 1_000_000).unwrap();
        assert_eq!((verdict.allowed, u64::from(verdict.remaining)), (true, left));
        assert_eq!(verdict.reset_after_ms, 60_000);
    }
    let denied = embedded.check(&ask(b"user:42", &limits, 1), 10_000_500).unwrap();
    assert_eq!((denied.allowed, denied.remaining, denied.limit), (false, 0, 10));
    assert_eq!(denied.retry_after, RetryAfter::Ms(51_000));
    assert_eq!(denied.reset_after_ms, 60_000);
    assert!(embedded.check(&ask(b"user:42", &limits, 1), 61_000_000).unwrap().allowed);
}

#[test]
fn one_moment_is_one_entry_and_a_cost_above_the_limit_leaves_no_trace() {
    let embedded = Embedded::new(10, 100);
    let limits = [limit_of(1_000_000_000, 1_000)];
    for _ in 0..5 {
        assert!(embedded.check(&ask(b"k", &limits, 200_000_000), 7).unwrap().allowed);
    }
    assert_eq!(embedded.entries(), 1);
    assert!(!embedded.check(&ask(b"k", &limits, 1), 8).unwrap().allowed);
    let never = embedded.check(&ask(b"other", &[limit_of(3, 1_000)], 4), 8).unwrap();
    assert_eq!((never.allowed, never.retry_after), (false, RetryAfter::Never));
    assert_eq!((embedded.keys(), embedded.entries()), (1, 1));
}

#[test]
fn a_full_store_admits_nothing_it_cannot_count() {
    let embedded = Embedded::new(2, 3);
    let second = [limit_of(2, 1_000)];
    let pair = [limit_of(9, 1_000), limit_of(9, 2_000)];
    assert_eq!(embedded.check(&ask(b"a", &second, 1), 0).map(|d| d.allowed), Ok(true));
    assert_eq!(embedded.check(&ask(b"b", &pair, 1), 0), Err(Full::Keys));
    assert_eq!(embedded.check(&ask(b"a", &second, 1), 1).map(|d| d.allowed), Ok(true));
    // A denial needs no room.
    assert_eq!(embedded.check(&ask(b"a", &second, 1), 2).map(|d| d.allowed), Ok(false));
    assert_eq!(embedded.check(&ask(b"a", &pair, 1), 2), Err(Full::Entries));
    assert_eq!((embedded.keys(), embedded.entries()), (1, 2));
    // What has expired makes way.
    assert_eq!(embedded.check(&ask(b"b", &pair, 1), 1_000_001).map(|d| d.allowed), Ok(true));
    assert_eq!((embedded.keys(), embedded.entries()), (2, 2));
}

#[test]
fn the_windows_of_one_key_are_bounded() {
    let embedded = Embedded::new(1_000, 1_000);
    for window_ms in 1..=MAX_WINDOWS_PER_KEY as u64 {
        assert!(embedded.check(&ask(b"k", &[limit_of(1, window_ms * 1_000)], 1), 0).unwrap().allowed);
    }
    let another = [limit_of(1, 500)];
    assert_eq!(embedded.check(&ask(b"k", &another, 1), 0), Err(Full::Windows));
    assert_eq!(embedded.keys(), MAX_WINDOWS_PER_KEY);
    assert!(embedded.check(&ask(b"l", &another, 1), 0).unwrap().allowed);
    assert!(embedded.reset(b"k", 999_999));
    assert!(embedded.check(&ask(b"k", &another, 1), 0).unwrap().allowed);
    assert_eq!(embedded.keys(), 2);
}

#[test]
fn sweeps_leave_nothing_that_expired() {
    let embedded = Embedded::new(10_000, 100_000);
    let limits = [limit_of(5, 1_000)];
    for key in 0..5_000_u32 {
        embedded.check(&ask(&key.to_be_bytes(), &limits, 1), u64::from(key)).unwrap();
    }
    let mut dropped = 0;
    for _ in 0..300 {
        dropped += embedded.sweep(1_000_000 + 2_499, 100);
    }
    assert_eq!((dropped, embedded.keys(), embedded.entries()), (2_500, 2_500, 2_500));
    for _ in 0..300 {
        embedded.sweep(2_000_000, 100);
    }
    assert_eq!((embedded.keys(), embedded.entries()), (0, 0));
    assert!(!embedded.reset(&1_u32.to_be_bytes(), 2_000_000));
}

#[test]
fn threads_together_admit_exactly_the_limit() {
    let embedded = Embedded::new(10, 1_000);
    let limits = [limit_of(500, 60_000), limit_of(700, 120_000)];
    assert!(limits.iter().all(|limit| limit.fits(&LimitState::default(), 1)));
    let admitted: usize = std::thread::scope(|scope| {
        let worker = |_| {
            scope.spawn(|| (0..400).filter(|t| embedded.check(&ask(b"k", &limits, 1), *t).unwrap().allowed).count())
        };
        let workers: Vec<_> = (0..4).map(worker).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(admitted, 500);
}
