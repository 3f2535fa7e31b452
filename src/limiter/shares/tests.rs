use super::*;
use crate::limit::{Prefetch, Terms, Window};
use crate::limiter::reset_marks::ResetMarks;

const KEY: &[u8] = b"k";
const LIFE_US: u64 = 20_000;

fn limits(max: u32, prefetch: Prefetch) -> Vec<Limit> {
    let terms = Terms { prefetch: Some(prefetch), ..Terms::PLAIN };
    vec![Limit { terms, ..Limit::log(max, Window::from_ms(60_000).unwrap()) }]
}

/// Shares of one key, each of whose checks costs 1.
struct Fixture {
    shares: Shares,
    marks: ResetMarks,
    limits: Vec<Limit>,
}

impl Fixture {
    fn new(max: u32) -> Self {
        Self::of(limits(max, Prefetch::Ms(20)))
    }

    fn of(limits: Vec<Limit>) -> Self {
        Self { shares: Shares::default(), marks: ResetMarks::default(), limits }
    }

    fn take(&mut self, verb: Verb, now_us: u64) -> Option<(Verdict, Option<Wanted>)> {
        let hash = self.marks.hash(KEY);
        self.shares.take(verb, (hash, &Ask { key: KEY, limits: &self.limits, cost: 1 }), self.marks.now(hash), now_us)
    }

    fn missed(&mut self, cost: u32, now_us: u64) -> Option<Wanted> {
        let hash = self.marks.hash(KEY);
        self.shares.missed((hash, &Ask { key: KEY, limits: &self.limits, cost }), self.marks.now(hash), now_us)
    }

    /// The share that is asked for once so many checks have missed.
    fn wanted(&mut self, missed: u32, now_us: u64) -> Wanted {
        (0..missed).find_map(|_| self.missed(1, now_us)).unwrap()
    }

    fn grant(&mut self, wanted: Wanted, remaining: u32, now_us: u64) -> bool {
        let Wanted { ticket, units, life_us } = wanted;
        let grant = Grant { ticket, id: format!("{ticket}~"), units, ends_us: end_us(now_us, life_us) };
        let told = Told { binding: 0, remaining, empty_at_us: now_us + life_us + 60_000_000 };
        self.shares.granted((self.marks.hash(KEY), &self.ask()), grant, told, now_us)
    }

    fn refuse(&mut self, ticket: u64, remaining: Option<u32>, now_us: u64) {
        let told = remaining.map(|remaining| Told { remaining, ..Told::default() });
        self.shares.refused((self.marks.hash(KEY), &self.ask()), ticket, told, now_us);
    }

    fn end(&mut self, ticket: u64) -> Option<Share> {
        let ask = Ask { key: KEY, limits: &self.limits, cost: 1 };
        self.shares.end((self.marks.hash(KEY), &ask), ticket)
    }

    fn ask(&self) -> Ask<'static> {
        Ask { key: KEY, limits: self.limits.clone().leak(), cost: 1 }
    }
}

#[test]
fn a_share_is_asked_for_once_it_is_worth_it_and_no_larger_than_the_demand() {
    let mut fixture = Fixture::new(1000);
    assert!((0..3).all(|at| fixture.missed(1, at).is_none()));
    let wanted = fixture.missed(1, 3).unwrap();
    assert_eq!((wanted.units, wanted.life_us), (4, LIFE_US));
    assert_eq!(fixture.missed(1, 4), None, "one was asked for");
    let mut fixture = Fixture::new(1000);
    assert!((0..50).all(|at| fixture.missed(1, at * LIFE_US / 3).is_none()), "three in a life are too few");
    assert_eq!(fixture.missed(4, 50 * LIFE_US), None, "nor is one that costs four");
}

#[test]
fn a_share_is_at_most_a_quarter_of_what_is_free_and_what_was_asked_for() {
    let mut fixture = Fixture::new(1000);
    fixture.wanted(4, 0);
    (0..96).for_each(|_| assert_eq!(fixture.missed(1, 0), None));
    fixture.refuse(1, Some(60), 0);
    assert_eq!(fixture.missed(1, 1).map(|wanted| wanted.units), Some(14), "of 100 that were asked for");
    fixture.refuse(2, Some(10), 1);
    assert_eq!(fixture.missed(1, 2), None, "too little is free");
    assert_eq!(fixture.missed(1, 1 + LIFE_US).map(|wanted| wanted.units), Some(102), "and may not be any more");
    let mut fixture = Fixture::of(limits(1_000_000, Prefetch::Units(6)));
    let first = fixture.wanted(4, 0);
    assert_eq!(first.life_us, 100_000);
    fixture.grant(first, 999_996, 0);
    let units = (0..4).find_map(|_| fixture.take(Verb::Check, 1).and_then(|(_, wanted)| wanted));
    assert_eq!(units.map(|wanted| wanted.units), Some(6));
}

#[test]
fn what_is_left_of_a_share_is_admitted_until_it_is_over() {
    let mut fixture = Fixture::new(1000);
    let wanted = fixture.wanted(4, 100);
    assert!(fixture.grant(wanted, 990, 100));
    let (peeked, _) = fixture.take(Verb::Peek, 101).unwrap();
    let (first, none) = fixture.take(Verb::Check, 101).unwrap();
    assert_eq!((peeked, none), (first, None));
    assert!(first.allowed && !first.degraded && first.retry_after == RetryAfter::Now);
    assert_eq!((first.limit, first.remaining, first.reset_after_ms), (1000, 993, 60_020));
    assert_eq!(fixture.take(Verb::Check, 102).unwrap().0.remaining, 992);
    let end_us = end_us(100, LIFE_US);
    assert!(end_us < 100 + LIFE_US);
    assert!(fixture.take(Verb::Check, end_us - 1).is_some());
    assert!(fixture.take(Verb::Check, end_us).is_none());
    let share = fixture.end(wanted.ticket).unwrap();
    assert_eq!((share.granted, share.left), (4, 1));
    assert!(fixture.end(wanted.ticket).is_none());
}

#[test]
fn another_is_asked_for_before_a_share_is_used_up() {
    let mut fixture = Fixture::new(100_000);
    let wanted = fixture.wanted(4, 0);
    fixture.grant(wanted, 99_000, 0);
    let larger = (0..4).find_map(|_| fixture.take(Verb::Check, 0).and_then(|(_, wanted)| wanted)).unwrap();
    assert_eq!(larger.units, 8);
    fixture.grant(larger, 98_000, 0);
    let asked: Vec<_> = (0..larger.units).map(|_| fixture.take(Verb::Check, 1).unwrap().1).collect();
    assert_eq!(asked.iter().flatten().count(), 1);
    let next = asked.iter().flatten().next().copied().unwrap();
    assert!(asked.last().is_some_and(Option::is_none) && next.units > larger.units);
    assert!(fixture.take(Verb::Check, 1).is_none());
    fixture.grant(next, 97_000, 1);
    assert!(fixture.take(Verb::Check, 2).is_some());
}

#[test]
fn a_share_of_before_a_reset_admits_nothing() {
    let mut fixture = Fixture::new(1000);
    let wanted = fixture.wanted(4, 0);
    fixture.grant(wanted, 990, 0);
    assert!(fixture.take(Verb::Peek, 0).is_some());
    fixture.marks.mark(KEY);
    assert!(fixture.take(Verb::Check, 0).is_none());
    assert_eq!(fixture.end(wanted.ticket).map(|share| share.left), Some(4));
    // The same of one that was on its way.
    let wanted = fixture.wanted(4, 0);
    fixture.marks.mark_all();
    assert!(fixture.grant(wanted, 990, 0));
    assert!(fixture.take(Verb::Check, 0).is_none());
}

#[test]
fn a_grant_that_nobody_waits_for_is_given_back() {
    let mut fixture = Fixture::new(1000);
    let wanted = fixture.wanted(4, 0);
    fixture.refuse(wanted.ticket, None, 0);
    assert!(!fixture.grant(wanted, 990, 0), "its answer was waited for no longer");
    assert_eq!(fixture.missed(1, LIFE_US - 1), None, "none is asked for so soon");
    let wanted = fixture.wanted(4, LIFE_US);
    let Wanted { ticket, units, .. } = wanted;
    let grant = Grant { ticket, id: String::new(), units, ends_us: LIFE_US };
    assert!(!fixture.shares.granted((fixture.marks.hash(KEY), &fixture.ask()), grant, Told::default(), LIFE_US));
}

#[test]
fn where_the_window_is_short_there_are_no_shares() {
    let terms = Terms { prefetch: Some(Prefetch::Ms(20)), ..Terms::PLAIN };
    let of = |ms| Limit { terms, ..Limit::log(1000, Window::from_ms(ms).unwrap()) };
    let mut fixture = Fixture::of(vec![of(60_000), of(15)]);
    assert!((0..100).all(|_| fixture.missed(1, 0).is_none()));
    let mut fixture = Fixture::of(vec![of(60_000), of(32)]);
    assert_eq!(fixture.wanted(4, 0).life_us, 4000);
}

#[test]
fn accounts_are_bounded_and_those_of_idle_keys_make_way() {
    let (mut shares, marks, limits) = (Shares::default(), ResetMarks::default(), limits(1000, Prefetch::Ms(20)));
    let mut miss = |number: usize, now_us: u64| {
        let key = number.to_string();
        let hash = marks.hash(key.as_bytes());
        (0..4).find_map(|_| {
            shares.missed((hash, &Ask { key: key.as_bytes(), limits: &limits, cost: 1 }), marks.now(hash), now_us)
        })
    };
    let start_us = 10 * SWEEP_EVERY_US;
    assert!((0..MAX_KEYS).all(|number| miss(number, start_us).is_some()));
    assert_eq!(miss(MAX_KEYS, start_us), None);
    assert_eq!(shares.accounts.len(), MAX_KEYS);
    shares.accounts.iter_mut().for_each(|account| account.asked = None);
    let later_us = start_us + SWEEP_EVERY_US + 2 * LIFE_US;
    let key = b"other";
    let hash = marks.hash(key);
    shares.missed((hash, &Ask { key, limits: &limits, cost: 1 }), marks.now(hash), later_us);
    assert_eq!(shares.accounts.len(), 1);
}

#[test]
fn limits_are_raised_again_by_as_much_as_they_are_lowered() {
    let limits = [limits(1000, Prefetch::Ms(20)), limits(40, Prefetch::Ms(20))].concat();
    assert_eq!(lowered(&limits, 10)[1].max, 10, "so that 10 are granted if 40 are free");
    assert_eq!(raised(&lowered(&limits, 10), 10), limits);
}
