use super::series::{MAX_RECORDS, PARTS};
use super::*;
use crate::limit::{Algorithm, Limit, MAX_WINDOW_MS, Window};
use proptest::prelude::*;
use std::collections::HashMap;

fn limits(windows_ms: &[u64]) -> Vec<Limit> {
    windows_ms.iter().map(|ms| Limit::log(10, Window::from_ms(*ms).unwrap())).collect()
}

fn ask<'a>(key: &'a [u8], limits: &'a [Limit], cost: u32) -> Ask<'a> {
    Ask { key, limits, cost }
}

/// All that is owed to one key's logs.
fn taken_of(ledger: &Ledger, ask: &Ask<'_>, writer: Writer, now_us: u64) -> Vec<Record> {
    let mut taken = Vec::new();
    ledger.take_of(ask, writer, now_us, &mut taken);
    taken
}

/// All that nobody has in flight, as many searches as it takes.
fn take_all(ledger: &Ledger, writer: Writer, now_us: u64) -> Vec<Record> {
    (0..200).flat_map(|turn| ledger.take(1_000_000, writer, now_us + turn * TAKE_EVERY_US)).collect()
}

#[test]
fn what_was_admitted_is_owed_under_its_time_to_each_of_its_logs() {
    let ledger = Ledger::new(100);
    let writer = ledger.new_writer();
    let (second, both) = (limits(&[1000]), limits(&[1000, 60_000]));
    ledger.admitted(&ask(b"a", &second, 1), 1, 5_000_000);
    ledger.admitted(&ask(b"a", &second, 2), 1, 5_010_000);
    ledger.admitted(&ask(b"a", &both, 1), 1, 5_500_000);
    assert_eq!(ledger.len(), 3, "10 ms are less than a 64th of a second, 500 ms are more");
    let summed = |records: &[Record]| -> Vec<_> {
        records.iter().map(|record| (record.counter.rule.window().ms(), record.time_us, record.cost)).collect()
    };
    assert_eq!(summed(&taken_of(&ledger, &ask(b"a", &both[1..], 1), writer, 5_600_000)), [(60_000, 5_500_000, 1)]);
    let rest = taken_of(&ledger, &ask(b"a", &both, 1), writer, 5_600_000);
    assert_eq!(summed(&rest), [(1000, 5_010_000, 3), (1000, 5_500_000, 1)]);
    assert_eq!(taken_of(&ledger, &ask(b"b", &both, 1), writer, 5_600_000), []);
    ledger.not_written(&rest, writer);
    assert_eq!(summed(&take_all(&ledger, writer, 6_100_000)), [(1000, 5_500_000, 1)], "one has expired meanwhile");
}

/// States that are no logs counted the same records as often as there were workers.
#[test]
fn what_may_not_be_sent_twice_is_waited_for() {
    let ledger = Ledger::new(100);
    let (one, other) = (ledger.new_writer(), ledger.new_writer());
    let log = limits(&[1000]);
    let both = [log[0], Limit { algorithm: Algorithm::Gcra { burst: 10 }, ..log[0] }];
    ledger.admitted(&ask(b"a", &both, 1), 1, 0);
    let is_under_way =
        |limits: &[Limit]| [one, other].map(|writer| ledger.is_under_way(&ask(b"a", limits, 1), writer, 0));
    assert_eq!(is_under_way(&both), [false, false], "nobody has it");
    let taken = taken_of(&ledger, &ask(b"a", &both, 1), one, 0);
    assert_eq!(taken.len(), 2);
    assert_eq!(is_under_way(&both), [false, true]);
    assert_eq!(is_under_way(&log), [false, false], "a log knows its entries");
    assert!(!ledger.is_under_way(&ask(b"b", &both, 1), other, 0));
    ledger.not_written(&taken, one);
    assert_eq!(is_under_way(&both), [false, false], "who had it failed");
    assert_eq!(taken_of(&ledger, &ask(b"a", &both, 1), other, 0), taken);
    assert_eq!(is_under_way(&both), [true, false]);
    ledger.written(&taken);
    assert_eq!(is_under_way(&both), [false, false]);
}

/// What was written at leisure kept who waited waiting, a few records at a time.
#[test]
fn what_somebody_waits_for_is_not_taken_at_leisure() {
    let ledger = Ledger::new(100);
    let (asking, leisure) = (ledger.new_writer(), ledger.new_writer());
    let gcra = [Limit { algorithm: Algorithm::Gcra { burst: 10 }, ..limits(&[1000])[0] }];
    let asked = ask(b"a", &gcra, 1);
    (0..3).for_each(|number| ledger.admitted_of_asked(&asked, &format!("b{number}"), 1, 1, 0));
    // As many searches as there are shards.
    let take = |now_us: u64| (0..16).flat_map(|turn| ledger.take(1, leisure, now_us + turn * TAKE_EVERY_US)).next();
    let first = take(0).unwrap();
    let now_us = 100_000;
    assert!(ledger.is_under_way(&asked, asking, now_us));
    assert_eq!(ledger.take(1, leisure, now_us + AWAITED_US - 1), []);
    ledger.written([&first]);
    assert!(!ledger.is_under_way(&asked, asking, now_us));
    assert_eq!(taken_of(&ledger, &asked, asking, now_us).len(), 2);
    // Nobody came for the rest of another's.
    let other = ask(b"b", &gcra, 1);
    (0..2).for_each(|number| ledger.admitted_of_asked(&other, &format!("c{number}"), 1, 1, now_us));
    assert_eq!(ledger.take(1, leisure, now_us + AWAITED_US).len(), 1);
    assert!(ledger.is_under_way(&other, asking, now_us));
    assert_eq!(ledger.take(1, leisure, now_us + AWAITED_US + 20_000).len(), 1);
}

/// One worker was writing a key's records when another was asked about the key.
#[test]
fn whoever_asks_sends_what_others_have_under_way_too() {
    let ledger = Ledger::new(100);
    let (one, other) = (ledger.new_writer(), ledger.new_writer());
    let second = limits(&[1000]);
    let asked = ask(b"a", &second, 1);
    ledger.admitted(&asked, 1, 0);
    let first = take_all(&ledger, one, 0);
    assert_eq!(first.len(), 1);
    assert_eq!(taken_of(&ledger, &asked, one, 0), [], "ahead on the same connection");
    assert_eq!(taken_of(&ledger, &asked, other, 0), first);
    assert_eq!(take_all(&ledger, other, 0), []);
    // What follows closely on a record that was sent is a record of its own: the other must not change any more.
    ledger.admitted(&asked, 1, 1);
    let second = taken_of(&ledger, &asked, one, 1);
    assert_eq!((second.len(), second[0].time_us), (1, 1));
    assert_ne!(second[0].id, first[0].id);
    ledger.not_written(&first, one);
    assert_eq!(taken_of(&ledger, &asked, one, 1), first, "again, under the same id");
    ledger.written(&first);
    ledger.written(&second);
    assert!(ledger.is_empty());
    ledger.not_written(&first, other);
    assert!(ledger.is_empty());
}

#[test]
fn a_reset_waits_for_what_others_have_under_way_and_drops_the_rest() {
    let ledger = Ledger::new(100);
    let (one, other) = (ledger.new_writer(), ledger.new_writer());
    let limits = limits(&[1000, 60_000]);
    ledger.admitted(&ask(b"a", &limits, 1), 1, 0);
    let taken = taken_of(&ledger, &ask(b"a", &limits[..1], 1), other, 0);
    assert!(ledger.begin_reset(b"a", one) && !ledger.begin_reset(b"b", one));
    assert_eq!(ledger.len(), 1, "that of the minute is gone");
    ledger.written(&taken);
    assert!(!ledger.begin_reset(b"a", one));
    ledger.admitted(&ask(b"a", &limits, 1), 1, 0);
    assert_eq!(taken_of(&ledger, &ask(b"a", &limits, 1), one, 0).len(), 2);
    assert!(!ledger.begin_reset(b"a", one), "ahead on the same connection");
    assert!(ledger.is_empty());
}

/// A key asked for with windows of 1 ms and of 366 days once left 25,000 records a second: the shortest window said
/// how finely they were kept, the longest how long.
#[test]
fn a_log_is_owed_few_records_whatever_its_traffic_and_windows() {
    let ledger = Ledger::new(1_000_000);
    let writer = ledger.new_writer();
    let limits = limits(&[1, 1000, MAX_WINDOW_MS]);
    for us in (0..10_000_000).step_by(100) {
        ledger.admitted(&ask(b"a", &limits, 1), 1, us);
        if us % 50_000 == 0 {
            // Redis is reached and lost, again and again.
            let taken = taken_of(&ledger, &ask(b"a", &limits, 1), writer, us);
            ledger.not_written(&taken, writer);
        }
        assert!(ledger.len() <= 3 * MAX_RECORDS, "{}", ledger.len());
    }
    let taken = taken_of(&ledger, &ask(b"a", &limits, 1), writer, 10_000_000);
    let of_year: u64 = taken
        .iter()
        .filter(|record| record.counter.rule.window().ms() == MAX_WINDOW_MS)
        .map(|record| record.cost)
        .sum();
    assert!(of_year >= 100_000, "{of_year}");
    assert_eq!(ledger.dropped(), 0);
    let steady = Ledger::new(1_000_000);
    (0..1_000_000).step_by(100).for_each(|us| steady.admitted(&ask(b"a", &limits[..2], 1), 1, us));
    assert!(steady.len() as u64 <= 2 * (PARTS + 1), "{}", steady.len());
}

#[test]
fn a_key_has_few_windows_and_the_rest_are_said_to_be_dropped() {
    let ledger = Ledger::new(1_000_000);
    for window_ms in 1_000..2_000 {
        ledger.admitted(&ask(b"a", &limits(&[window_ms]), 1), 1, 0);
    }
    assert_eq!((ledger.len(), ledger.dropped()), (MAX_WINDOWS_PER_KEY, 1_000 - MAX_WINDOWS_PER_KEY as u64));
}

#[test]
fn a_full_ledger_merges_what_it_can_and_says_what_it_dropped() {
    const MAX: usize = 64 * SHARDS;
    let ledger = Ledger::new(MAX);
    let writer = ledger.new_writer();
    let minute = limits(&[60_000]);
    let key = |number: usize| number.to_le_bytes();
    for number in 0..MAX / 4 {
        // Far enough apart to be kept apart.
        (0..8).for_each(|step| ledger.admitted(&ask(&key(number), &minute, 1), 1, step * 2_000_000));
    }
    assert!(ledger.len() <= MAX && ledger.dropped() == 0, "{}, {}", ledger.len(), ledger.dropped());
    let weight: u64 = take_all(&ledger, writer, 16_000_000).iter().map(|record| record.cost).sum();
    assert_eq!(weight, 2 * MAX as u64);
    // Nothing that is in flight may change, so there is no more room.
    let before = ledger.len();
    (0..2 * MAX).for_each(|number| ledger.admitted(&ask(&key(MAX + number), &minute, 1), 1, 16_000_000));
    assert_eq!(ledger.dropped(), (before + 2 * MAX - ledger.len()) as u64);
    assert!(ledger.len() <= MAX && ledger.dropped() >= MAX as u64);
    ledger.forget(&key(0));
    assert_eq!(taken_of(&ledger, &ask(&key(0), &minute, 1), ledger.new_writer(), 16_000_000), []);
}

#[derive(Debug, Clone)]
enum Op {
    Admit {
        key: u8,
        windows: u8,
        cost: u32,
    },
    Asked {
        key: u8,
        windows: u8,
        cost: u32,
    },
    Ask {
        key: u8,
        windows: u8,
        writer: usize,
    },
    Leisure {
        writer: usize,
    },
    /// The oldest run ends: `executed` or not, `acknowledged` or not.
    End {
        writer: usize,
        executed: bool,
        acknowledged: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (key, windows, writer) = (0..5u8, 1..4u8, 0..2usize);
    prop_oneof![
        6 => (key.clone(), windows.clone(), 1..4u32).prop_map(|(key, windows, cost)| Op::Admit { key, windows, cost }),
        1 => (key.clone(), windows.clone(), 1..4u32).prop_map(|(key, windows, cost)| Op::Asked { key, windows, cost }),
        2 => (key, windows, writer.clone()).prop_map(|(key, windows, writer)| Op::Ask { key, windows, writer }),
        2 => writer.clone().prop_map(|writer| Op::Leisure { writer }),
        2 => (writer, any::<bool>(), any::<bool>())
            .prop_map(|(writer, executed, acknowledged)| Op::End { writer, executed, acknowledged }),
    ]
}

/// The logs: what stands under an id, and since when. Written twice, an id counts once.
#[derive(Default)]
struct Logs(HashMap<(u8, u64), HashMap<String, (u64, u64)>>);

impl Logs {
    fn write(&mut self, records: &[Record]) {
        for record in records {
            let log = self.0.entry((record.key[0], record.counter.rule.window().ms())).or_default();
            log.insert(format!("{:?}", record.id), (record.time_us, record.cost * u64::from(record.admitted)));
        }
    }

    /// What counts in a log at this time.
    fn weight(&self, key: u8, window: Window, at_us: u64) -> u64 {
        let entries = self.0.get(&(key, window.ms())).into_iter().flat_map(HashMap::values);
        entries.filter(|(time_us, _)| time_us + window.us() > at_us).map(|(_, weight)| weight).sum()
    }
}

proptest! {
    /// Whatever fails and whoever writes: in the end each log holds what was admitted for at least as long as it
    /// counts; and, where there was room enough, no more than that.
    #[test]
    fn nothing_is_missing_and_nothing_is_counted_twice(
        steps in proptest::collection::vec((op(), 0..40_000u64), 1..200),
        is_small: bool,
    ) {
        let ledger = Ledger::new(if is_small { SHARDS * 4 } else { 100_000 });
        let writers = [ledger.new_writer(), ledger.new_writer()];
        let mut in_flight: [Vec<Vec<Record>>; 2] = Default::default();
        let (mut logs, mut admissions, mut now_us) = (Logs::default(), Vec::new(), 1_000_000);
        let all = limits(&[100, 60_000]);
        let some = |windows: u8| match windows {
            1 => &all[..1],
            2 => &all[1..],
            _ => &all[..],
        };
        for (index, (op, step_us)) in steps.into_iter().enumerate() {
            now_us += step_us;
            match op {
                Op::Admit { key, windows, cost } => {
                    ledger.admitted(&ask(&[key], some(windows), cost), 1, now_us);
                    some(windows).iter().for_each(|limit| admissions.push((key, limit.window, u64::from(cost), now_us)));
                }
                Op::Asked { key, windows, cost } => {
                    ledger.admitted_of_asked(&ask(&[key], some(windows), cost), &index.to_string(), 3, 2, now_us);
                    some(windows).iter().for_each(|limit| admissions.push((key, limit.window, u64::from(2 * cost), now_us)));
                }
                Op::Ask { key, windows, writer } => {
                    let name = [key];
                    let asked = ask(&name, some(windows), 1);
                    let run = taken_of(&ledger, &asked, writers[writer], now_us);
                    in_flight[writer].push(run);
                    // Redis runs what this connection has sent before it decides.
                    let mut seen = Logs(logs.0.clone());
                    in_flight[writer].iter().for_each(|run| seen.write(run));
                    if ledger.dropped() == 0 {
                        for limit in asked.limits {
                            let of_log = admissions.iter().filter(|(of, window, ..)| (*of, *window) == (key, limit.window));
                            let due = of_log.filter(|(.., at_us)| at_us + limit.window.us() > now_us);
                            let due: u64 = due.map(|(.., weight, _)| weight).sum();
                            prop_assert!(seen.weight(key, limit.window, now_us) >= due);
                        }
                    }
                }
                Op::Leisure { writer } => {
                    let run = ledger.take(3, writers[writer], now_us);
                    in_flight[writer].push(run);
                }
                Op::End { writer, executed, acknowledged } if !in_flight[writer].is_empty() => {
                    let run = in_flight[writer].remove(0);
                    if executed || acknowledged {
                        logs.write(&run);
                    }
                    if acknowledged {
                        ledger.written(&run);
                    } else {
                        // The connection is lost: so is what was sent behind it.
                        let behind = std::mem::take(&mut in_flight[writer]);
                        [run].iter().chain(&behind).for_each(|run| ledger.not_written(run, writers[writer]));
                    }
                }
                Op::End { .. } => {}
            }
        }
        for run in in_flight.into_iter().flatten() {
            logs.write(&run);
            ledger.written(&run);
        }
        let rest = take_all(&ledger, writers[0], now_us);
        logs.write(&rest);
        ledger.written(&rest);
        // The searches took a while of the ledger's time, but nothing is left that counts by now.
        prop_assert!(ledger.is_empty());
        for (key, limit) in (0..5).flat_map(|key| all.iter().map(move |limit| (key, limit))) {
            for at_us in (now_us..now_us + 61_000_000).step_by(500_000) {
                let due = admissions.iter().filter(|(of, window, ..)| (*of, *window) == (key, limit.window));
                let due = due.filter(|(.., at)| at + limit.window.us() > at_us).map(|(.., weight, _)| weight).sum::<u64>();
                let weight = logs.weight(key, limit.window, at_us);
                prop_assert!(weight >= due || ledger.dropped() > 0, "{weight} of {due}");
            }
            let total: u64 = admissions.iter().filter(|(of, window, ..)| (*of, *window) == (key, limit.window)).map(|(.., weight, _)| weight).sum();
            let written: u64 = logs.0.get(&(key, limit.window.ms())).into_iter().flat_map(HashMap::values).map(|(_, weight)| weight).sum();
            prop_assert!(written <= total || is_small, "{written} of {total}");
        }
    }
}
