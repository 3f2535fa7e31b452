use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const START_US: u64 = 10 * HOUR_US;
const DENIED: Which = Which { allowed: false, hour: false };

/// What all workers answer, without what was kept of earlier answers.
fn top(workers: &[Top], which: Which, now_us: u64) -> Vec<Entry> {
    TopOfAll::default().read(workers.iter(), which, now_us).entries.clone()
}

fn workers(count: usize) -> Vec<Top> {
    (0..count).map(|_| Top::default()).collect()
}

fn counts(entries: &[Entry]) -> Vec<(String, u64, u64)> {
    entries.iter().map(|entry| (String::from_utf8_lossy(&entry.key).into_owned(), entry.count, entry.error)).collect()
}

/// Keys by Zipf's law of this exponent: the n-th is as likely as 1 / n^exponent.
struct Zipf {
    sums: Vec<f64>,
    random: u64,
}

impl Zipf {
    fn new(keys: usize, exponent: f64, seed: u64) -> Self {
        let sums = (1..=keys).scan(0.0, |sum, rank| {
            *sum += (rank as f64).powf(-exponent);
            Some(*sum)
        });
        Self { sums: sums.collect(), random: seed }
    }

    fn next(&mut self) -> usize {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let place = (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64 * self.sums.last().unwrap();
        self.sums.partition_point(|sum| *sum < place)
    }
}

/// What was truly counted.
#[derive(Default)]
struct Exact {
    of_key: HashMap<Vec<u8>, u64>,
    all: u64,
}

impl Exact {
    fn add(&mut self, key: &[u8]) {
        *self.of_key.entry(key.to_vec()).or_default() += 1;
        self.all += 1;
    }

    /// The true count of each key that is listed lies within its error of the count, below it `unless_sampled`; and whoever
    /// has more than a 256th of all is listed.
    fn assert_holds(&self, entries: &[Entry], is_sampled: bool) {
        let mut outside = 0;
        for Entry { key, count, error, .. } in entries {
            let exact = self.of_key[key];
            outside += usize::from(exact < count - error || exact > count + error);
            assert!(is_sampled || (count - error..=*count).contains(&exact), "{exact} of {count}, {error}");
        }
        // Two standard deviations hold for 19 of 20.
        assert!(outside * 10 <= entries.len(), "{outside} of {}", entries.len());
        for (key, count) in self.of_key.iter().filter(|(_, count)| **count > self.all / 256) {
            assert!(entries.iter().any(|entry| entry.key == *key), "{count} of {} are not listed", self.all);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the keys are spread over keys and workers.
    #[test]
    fn of_who_is_listed_the_exact_count_lies_within_the_error(
        (keys, exponent, worker_count, seed) in (10_usize..50_000, 0.3..1.6, 1_usize..5, any::<u64>())
    ) {
        let (mut zipf, workers, mut exact) = (Zipf::new(keys, exponent, seed), workers(worker_count), Exact::default());
        for number in 0..40_000_u64 {
            let key = format!("key:{}", zipf.next()).into_bytes();
            exact.add(&key);
            // Slower than samples are taken at.
            let now_us = START_US + number * 100;
            workers[seed.wrapping_add(number) as usize % worker_count].denied.add(&key, None, now_us);
        }
        exact.assert_holds(&top(&workers, DENIED, START_US + 4 * SECOND_US), false);
    }
}

/// At more than a worker looks at.
#[test]
fn a_count_that_is_made_of_samples_says_how_far_off_it_may_be() {
    let (mut zipf, workers, mut exact) = (Zipf::new(10_000, 1.1, 7), workers(2), Exact::default());
    for number in 0..2_000_000_u64 {
        let key = format!("key:{}", zipf.next()).into_bytes();
        exact.add(&key);
        workers[number as usize % 2].denied.add(&key, None, START_US + number);
    }
    let listed = top(&workers, DENIED, START_US + 2 * SECOND_US);
    assert!(listed.len() > 50, "{}", listed.len());
    exact.assert_holds(&listed, true);
    let [first, ..] = &*listed else { panic!("nobody") };
    assert!(first.error > 0 && first.error * 20 < first.count, "{first:?}");
}

/// Clients take turns, and so does what is asked: every sixteenth may be the same client's.
#[test]
fn samples_are_not_taken_in_step_with_who_asks() {
    let worker = workers(1);
    for number in 0..1_000_000_u64 {
        worker[0].denied.add(format!("k{}", number % 16).as_bytes(), None, START_US + number);
    }
    let listed = top(&worker, DENIED, START_US + SECOND_US);
    assert_eq!(listed.len(), 16);
    const EACH: u64 = 1_000_000 / 16;
    // Taken in step, one of them would have all. By chance a count is off by 2 %, and hardly ever by 10.
    assert!(listed.iter().all(|entry| entry.count.abs_diff(EACH) < EACH / 10), "{listed:?}");
}

#[test]
fn the_last_minute_is_what_has_passed_of_this_and_the_rest_of_the_one_before() {
    let worker = workers(1);
    let count = |times: u64, now_us: u64| (0..times).for_each(|_| worker[0].denied.add(b"k", None, now_us));
    let read = |now_us: u64, hour: bool| {
        let listed = TopOfAll::default().read(worker.iter(), Which { allowed: false, hour }, now_us);
        let count = listed.entries.first().map_or(0, |entry| entry.count);
        assert_eq!(listed.total, count);
        count
    };
    count(600, START_US);
    assert_eq!(read(START_US + MINUTE_US - 1, false), 600);
    assert_eq!(read(START_US + MINUTE_US + MINUTE_US / 4, false), 450);
    count(100, START_US + MINUTE_US + MINUTE_US / 2);
    assert_eq!(read(START_US + MINUTE_US + MINUTE_US / 2, false), 400);
    assert_eq!(read(START_US + 2 * MINUTE_US, false), 100);
    assert_eq!(read(START_US + 3 * MINUTE_US, false), 0);
    assert_eq!(read(START_US + 4 * MINUTE_US, true), 700);
    assert_eq!(read(START_US + HOUR_US + HOUR_US / 2, true), 350);
    assert_eq!(read(START_US + 2 * HOUR_US, true), 0);
    // Nothing was counted or read meanwhile.
    count(5, START_US + 9 * HOUR_US);
    assert_eq!((read(START_US + 9 * HOUR_US, false), read(START_US + 9 * HOUR_US, true)), (5, 5));
}

/// Each minute that ends is added to the hour, with what it does not know.
#[test]
fn an_hour_of_many_keys_holds_its_error_too() {
    let (mut zipf, workers, mut exact) = (Zipf::new(20_000, 1.0, 3), workers(2), Exact::default());
    for number in 0..200_000_u64 {
        let key = format!("key:{}", zipf.next()).into_bytes();
        exact.add(&key);
        workers[number as usize % 2].allowed.add(&key, None, START_US + number * (HOUR_US - MINUTE_US) / 200_000);
    }
    exact.assert_holds(&top(&workers, Which { allowed: true, hour: true }, START_US + HOUR_US - 1), false);
    assert_eq!(top(&workers, DENIED, START_US).len(), 0);
}

#[test]
fn nobody_is_listed_where_all_are_alike() {
    let worker = workers(1);
    (0..100_000_u64).for_each(|number| worker[0].denied.add(&number.to_le_bytes(), None, START_US + number * 200));
    assert_eq!(counts(&top(&worker, DENIED, START_US + 20 * SECOND_US)), []);
}

#[test]
fn long_keys_are_cut_and_none_is_taken_for_another() {
    let worker = workers(1);
    let (mut one, mut other) = (vec![b'a'; 1024], vec![b'a'; 1024]);
    (one[1023], other[1023]) = (b'1', b'2');
    for (key, times) in [(&one, 3), (&other, 2), (&vec![b'b'; 128], 1)] {
        (0..times).for_each(|_| worker[0].denied.add(key, None, START_US));
    }
    let listed = top(&worker, DENIED, START_US);
    let [first, second, third] = &*listed else { panic!("{listed:?}") };
    assert_eq!((first.count, second.count, third.count), (3, 2, 1));
    assert_ne!(first.key, second.key);
    assert_eq!((first.key.len(), second.key.len(), third.key.len()), (128, 128, 128));
    assert!(first.key.starts_with(&[b'a'; 109]) && first.key[109..].starts_with(b"..."), "{first:?}");
    assert_eq!(third.key, [b'b'; 128]);
}

#[test]
fn an_answer_is_given_again_for_a_moment() {
    let (worker, all) = (workers(1), TopOfAll::default());
    let read = |now_us| all.read(worker.iter(), DENIED, now_us).entries.len();
    assert_eq!(read(START_US), 0);
    worker[0].denied.add(b"k", None, START_US);
    assert_eq!(read(START_US + GOOD_FOR_US - 1), 0);
    assert_eq!(read(START_US + GOOD_FOR_US), 1);
}
