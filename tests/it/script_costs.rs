//! What one run of a script costs Redis, which does nothing else meanwhile: bounded, whatever it is asked and whatever the
//! logs hold.

use crate::common::{RedisServer, Scripts, batch_of};
use std::time::Duration;
use tollgate::limit::{Algorithm, Ask, Counter, Limit, Period, Window};
use tollgate::store::redis::Names;

const HOUR_MS: u64 = 3_600_000;
/// Most time that a run may take by Redis's own account, on a busy machine; a quiet one takes a quarter. Redis is no debug
/// build.
const MOST: Duration = Duration::from_millis(4);
/// The least of so many runs counts: a machine that is busy interrupts some.
const RUNS: usize = 10;

/// What Redis spent on one run of a script.
#[derive(Debug, Clone, Copy)]
struct Cost {
    took: Duration,
    /// Commands that the script ran.
    calls: u64,
}

/// The least cost of `act`, which runs one script.
fn cost_of(scripts: &mut Scripts, mut act: impl FnMut(&mut Scripts)) -> Cost {
    let costs = (0..RUNS).map(|_| {
        scripts.control.line("CONFIG RESETSTAT");
        act(scripts);
        let (mut cost, mut ran) = (Cost { took: Duration::ZERO, calls: 0 }, 0);
        for line in scripts.control.line("INFO commandstats").text().lines() {
            let Some((name, stats)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(':')) else {
                continue;
            };
            let stat =
                |key: &str| stats.split(',').find_map(|stat| stat.strip_prefix(key)).unwrap().parse::<u64>().unwrap();
            match name {
                "eval" | "evalsha" => {
                    ran += stat("calls=");
                    cost.took += Duration::from_micros(stat("usec="));
                }
                "config|resetstat" | "info" => {}
                _ => cost.calls += stat("calls="),
            }
        }
        assert_eq!(ran, 1, "one script is measured");
        cost
    });
    costs.min_by_key(|cost| cost.took).unwrap()
}

#[track_caller]
fn assert_bounded(what: &str, cost: Cost, most_calls: u64) {
    eprintln!("{what}: {cost:?}");
    assert!(cost.calls <= most_calls, "{what}: {cost:?}, of {most_calls} calls");
    assert!(cost.took <= MOST, "{what}: {cost:?}");
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("k{number}")).collect()
}

fn run(scripts: &mut Scripts, checks: &[Ask<'_>]) {
    let (batch, _) = batch_of(checks);
    let id = scripts.store.next_batch_id();
    scripts.answers(&batch, &id, false);
}

/// Logs of 600 entries of these weights each, which expire at one time.
fn fill(scripts: &mut Scripts, keys: &[String], limits: &[Limit], costs: impl Fn(u32) -> u32) {
    scripts.set_time(Scripts::start_us());
    for number in 0..600 {
        let checks: Vec<_> = keys.iter().map(|key| Ask { key: key.as_bytes(), limits, cost: costs(number) }).collect();
        run(scripts, &checks);
    }
}

/// A batch of denials of weighty requests took 53 to 105 ms.
#[test]
fn a_batch_of_denials_is_bounded() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let limits = [Limit::log(200_000, Window::from_ms(HOUR_MS).unwrap())];
    // As many as a batch has room for, by cost.
    for (what, count, weight, asked) in [("light", 64, 0, 200_000), ("heavy", 21, 300, 200_000)] {
        let keys: Vec<_> = keys(count).iter().map(|key| format!("{what}:{key}")).collect();
        fill(&mut scripts, &keys, &limits, |number| 1 + number * 7 % (weight + 1));
        let checks: Vec<_> = keys.iter().map(|key| Ask { key: key.as_bytes(), limits: &limits, cost: asked }).collect();
        let cost = cost_of(&mut scripts, |scripts| run(scripts, &checks));
        assert_bounded(&format!("{count} {what} denials"), cost, 6 * count as u64 + 20);
    }
}

/// A state of one number takes as long as a log of light entries, however much a request weighs. No two items ask the same,
/// so that each is read for itself.
#[test]
fn a_batch_by_any_algorithm_is_bounded() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    scripts.set_time(Scripts::start_us());
    let log = |max| Limit::log(max, Window::from_ms(HOUR_MS).unwrap());
    let gcra = move |max| Limit { algorithm: Algorithm::Gcra { burst: max }, ..log(max) };
    let fixed = move |max, period: &str| Limit { algorithm: Algorithm::Fixed(period.parse().unwrap()), ..log(max) };
    let hour = move |max| Limit { algorithm: Algorithm::Fixed(Period::of_window(log(max).window)), ..log(max) };
    // What is asked of each key, and how many keys: a batch has room for that.
    type Limits = Box<dyn Fn(u32) -> Vec<Limit>>;
    let kinds: [(&str, usize, Limits); 7] = [
        ("log", 64, Box::new(move |max| vec![log(max)])),
        ("gcra", 64, Box::new(move |max| vec![gcra(max)])),
        ("fixed", 64, Box::new(move |max| vec![hour(max)])),
        ("day", 64, Box::new(move |max| vec![fixed(max, "day")])),
        ("month", 64, Box::new(move |max| vec![fixed(max, "month+02:00")])),
        ("log and month", 32, Box::new(move |max| vec![log(max), fixed(max, "month")])),
        (
            "8 periods",
            8,
            Box::new(move |max| {
                ["month", "month+01:00", "month+02:00", "year", "year+01:00", "week", "day", "hour"]
                    .map(|period| fixed(max, period))
                    .to_vec()
            }),
        ),
    ];
    for (what, count, limits_of) in &kinds {
        let keys: Vec<_> = keys(*count).iter().map(|key| format!("{what}:{key}")).collect();
        for (outcome, first_max, cost) in [("light", 900_000_000, 1), ("heavy", 900_000_000, 1_000), ("denied", 1, 1)] {
            let limits: Vec<_> = (first_max..).map(limits_of).take(*count).collect();
            let asks: Vec<_> =
                keys.iter().zip(&limits).map(|(key, limits)| Ask { key: key.as_bytes(), limits, cost }).collect();
            let states = limits.iter().map(Vec::len).sum::<usize>() as u64;
            let cost = cost_of(&mut scripts, |scripts| run(scripts, &asks));
            assert_bounded(&format!("{states} {what}, {outcome}"), cost, 6 * states + 20);
            // In full, and once more because the answer was lost.
            let (mut batch, _) = batch_of(&asks);
            (0..*count).for_each(|item| batch.ask_in_full(item));
            let id = scripts.store.next_batch_id();
            scripts.answers(&batch, &id, false);
            let cost = cost_of(&mut scripts, |scripts| drop(scripts.answers(&batch, &id, true)));
            assert_bounded(&format!("{states} {what}, {outcome}, again"), cost, 8 * states + 20);
        }
    }
}

#[test]
fn a_batch_on_logs_that_have_expired_is_bounded() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let limits = [Limit::log(1_000_000, Window::from_ms(HOUR_MS).unwrap())];
    let keys = keys(64);
    fill(&mut scripts, &keys, &limits, |number| 1 + number % 2);
    // One that counts, so that no log goes as a whole.
    scripts.set_time(Scripts::start_us() + 1_000_000);
    let checks: Vec<_> = keys.iter().map(|key| Ask { key: key.as_bytes(), limits: &limits, cost: 1 }).collect();
    run(&mut scripts, &checks);
    scripts.set_time(Scripts::start_us() + HOUR_MS * 1000);
    let cost = cost_of(&mut scripts, |scripts| run(scripts, &checks));
    assert_bounded("64 checks of logs of which 600 entries have expired", cost, 6 * 64);
}

/// The cost of a reset was that of its keys times the windows in use: 33 s for 596 KB of keys and 400 windows.
#[test]
fn a_piece_of_a_reset_is_bounded() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let limits = [Limit::log(1_000_000, Window::from_ms(HOUR_MS).unwrap())];
    let windows: Vec<_> = (1..=400).map(|second| Counter::log(Window::from_ms(second * 1000).unwrap())).collect();
    let keys = keys(64);
    let mut reset = tollgate::store::reset::Reset::new(keys.iter().map(|key| key.as_bytes().to_vec()).collect());
    reset.set_counters([windows, vec![limits[0].counter()]].concat());
    let cost = cost_of(&mut scripts, |scripts| {
        fill(scripts, &keys[..1], &limits, |_| 1);
        scripts.control.line("CONFIG RESETSTAT");
        scripts.run(|store| store.reset(&reset.piece().unwrap(), Names::Declared));
    });
    assert_bounded("a piece of a reset", cost, 256 + 20);
}

/// All windows of a key at once, each with entries that have expired and are weighty, and as many listed as may be.
#[test]
fn a_glance_at_a_key_is_bounded() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let limits: Vec<_> = (0..64).map(|more| Limit::log(1_000_000, Window::from_ms(HOUR_MS + more).unwrap())).collect();
    let keys = keys(1);
    limits.chunks(8).for_each(|limits| fill(&mut scripts, &keys, limits, |number| 1 + number % 2));
    scripts.set_time(Scripts::start_us() + HOUR_MS * 500);
    limits.chunks(8).for_each(|limits| run(&mut scripts, &[Ask { key: keys[0].as_bytes(), limits, cost: 1 }]));
    scripts.set_time(Scripts::start_us() + HOUR_MS * 1000 + 64_000);
    let mut inspect = tollgate::store::inspect::Inspect::new(keys[0].as_bytes().to_vec(), 1000);
    inspect.set_counters(limits.iter().map(Limit::counter).collect());
    let cost = cost_of(&mut scripts, |scripts| drop(scripts.run(|store| store.inspect(&inspect.glance().unwrap()))));
    assert_bounded("a glance at 64 windows", cost, 7 * 64 + 20);
}

/// Of as many as may be, as many are changed as are together, and read as are together.
#[test]
fn a_change_of_policies_and_a_part_of_them_are_bounded() {
    const MOST_FIELDS: usize = 102_002;
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let fields = |numbers: std::ops::Range<usize>, limit: usize| -> Vec<_> {
        let field = |number| format!("override:api:user:{number:0>100}").into_bytes();
        numbers.map(|number| (field(number), format!("={limit} 1s").into_bytes())).collect()
    };
    for first in (0..100_000).step_by(500) {
        scripts.run(|store| store.change_policies(&fields(first..first + 500, 1), MOST_FIELDS));
    }
    let mut limit = 1;
    let cost = cost_of(&mut scripts, |scripts| {
        limit += 1;
        scripts.run(|store| store.change_policies(&fields(0..256, limit), MOST_FIELDS));
    });
    assert_bounded("a change of 256 overrides", cost, 2 * 256 + 4);
    let cost = cost_of(&mut scripts, |scripts| drop(scripts.run(|store| store.read_policies(b"0", 256))));
    assert_bounded("a part of 100,000 overrides", cost, 2);
}
