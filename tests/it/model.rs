//! The scripts in Redis and the embedded log are two implementations of one thing: whatever is asked of both, in
//! whatever order, at whatever times, they must answer alike.

use crate::common::{Cluster, RedisServer, Scripts};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};
use tollgate::limit::{Ask, Breakdown, Counter, Form, Limit, LimitFigures, Standing, Verb, Verdict, Window};
use tollgate::store::embedded::Embedded;
use tollgate::store::ledger::{Id, Record};
use tollgate::store::redis::Names;

const KEYS: [&str; 3] = ["a", "}b", "{c"];
/// The windows that are asked about, in ms.
type Windows = [u64; 4];
const WINDOWS_MS: Windows = [20, 100, 1_000, 60_000];
/// For a clock that steps back by half a second at most: what is dated more than a window ahead the scripts date anew.
const LONG_WINDOWS_MS: Windows = [500, 1_000, 5_000, 60_000];
const MAX_REWIND_US: u64 = 500_000;

#[derive(Debug, Clone)]
struct Question {
    key: usize,
    /// Places among the windows and limits; no place twice.
    limits: Vec<(usize, u32)>,
    cost: u32,
    form: Form,
}

#[derive(Debug, Clone)]
enum Step {
    /// All at one moment, in one batch.
    Check(Vec<Question>),
    Peek(Question),
    Reset(usize),
    /// With so many entries.
    Inspect(usize, usize),
    /// Microseconds, forwards.
    Pass(u64),
    /// Microseconds; as when a replica whose clock is behind takes over.
    Rewind(u64),
}

impl Question {
    fn limits(&self, windows: &Windows) -> Vec<Limit> {
        let limit = |(place, limit): &(usize, u32)| Limit::log(*limit, Window::from_ms(windows[*place]).unwrap());
        self.limits.iter().map(limit).collect()
    }
}

fn questions() -> impl Strategy<Value = Question> {
    let places = proptest::sample::subsequence(vec![0, 1, 2, 3], 1..=3).prop_shuffle();
    let cost = prop_oneof![4 => Just(1u32), 1 => 2..5u32];
    let form = prop_oneof![Just(Form::Short), Just(Form::Full)];
    let all = (0..KEYS.len(), places, proptest::collection::vec(1..12u32, 3), cost, form);
    all.prop_map(|(key, places, limits, cost, form)| {
        let limits = places.into_iter().zip(limits).map(|(place, limit)| (place, limit.max(cost))).collect();
        Question { key, limits, cost, form }
    })
}

fn steps(backwards: bool) -> impl Strategy<Value = Vec<Step>> {
    let batch = prop_oneof![
        proptest::collection::vec(questions(), 1..4),
        // Alike, so that they are joined.
        (questions(), 2..6usize).prop_map(|(question, count)| vec![question; count]),
    ];
    let step = prop_oneof![
        6 => batch.prop_map(Step::Check),
        2 => questions().prop_map(Step::Peek),
        1 => (0..KEYS.len()).prop_map(Step::Reset),
        2 => (0..KEYS.len(), 0..20usize).prop_map(|(key, entries)| Step::Inspect(key, entries)),
        5 => prop_oneof![0..2_000u64, 0..30_000u64, Just(20_000), 0..300_000u64, 0..90_000_000u64].prop_map(Step::Pass),
        u32::from(backwards) => (1..MAX_REWIND_US).prop_map(Step::Rewind),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Of how a window stands what both say: Redis has an entry for each item of a batch, and the model one for each moment.
fn in_common(standing: &Standing) -> (Counter, u64, u64, u64, u64) {
    let Standing { counter, now_us, used, oldest_us, newest_us, .. } = standing;
    (*counter, *now_us, *used, *oldest_us, *newest_us)
}

/// What a client is told, as far as it must be exact. After a step back of the clock the scripts may take a window
/// for empty a little early or late: its newest entry is not looked for where that would cost every check a call.
fn told(decision: Breakdown, form: Form, stepped_back: bool) -> (Verdict, Vec<LimitFigures>) {
    let Breakdown { mut verdict, mut limits, .. } = decision;
    if form == Form::Short {
        limits.clear();
    }
    if stepped_back {
        verdict.reset_after_ms = 0;
        limits.iter_mut().for_each(|figures| figures.reset_after_ms = 0);
    }
    (verdict, limits)
}

/// What is free under a limit at a time.
fn free(embedded: &Embedded, key: &[u8], limit: Limit, at_us: u64) -> u32 {
    let verdict = embedded.peek(&Ask { key, limits: &[limit], cost: 1 }, at_us);
    verdict.remaining + u32::from(verdict.allowed)
}

/// Whether the figures are true of the store, from when they were told on: each limit has as much free as they say, until
/// it has more.
fn come_true(embedded: &Embedded, key: &[u8], told: &Breakdown, now_us: u64) -> bool {
    told.limits.iter().all(|figures| {
        let at =
            |later_ms: u64| free(embedded, key, Limit::log(figures.limit, figures.window), now_us + later_ms * 1000);
        let (now, next_ms) = (at(0), figures.next_ms);
        let comes_true = if next_ms == 0 { now == figures.limit } else { at(next_ms - 1) == now && at(next_ms) > now };
        now == figures.remaining && comes_true
    })
}

fn counter(window_ms: u64) -> Counter {
    Counter::log(Window::from_ms(window_ms).unwrap())
}

fn run(scripts: Scripts, windows: &Windows, backwards: bool) {
    let scripts = RefCell::new(scripts);
    let start_us = Scripts::start_us();
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(backwards), |steps| {
        let mut scripts = scripts.borrow_mut();
        scripts.control.line("FLUSHALL");
        let embedded = Embedded::new(1000, 100_000);
        let (mut now_us, mut latest_us, mut stepped_back) = (start_us, start_us, false);
        for step in steps {
            scripts.set_time(now_us);
            match step {
                Step::Check(questions) => {
                    let limits: Vec<_> = questions.iter().map(|question| question.limits(windows)).collect();
                    let checks: Vec<_> = questions
                        .iter()
                        .zip(&limits)
                        .map(|(question, limits)| {
                            let check = Ask { key: KEYS[question.key].as_bytes(), limits, cost: question.cost };
                            (check, question.form)
                        })
                        .collect();
                    for ((check, form), by_redis) in checks.iter().zip(scripts.decide_in_forms(Verb::Check, &checks)) {
                        let by_model = embedded.check_in_full(check, now_us).unwrap();
                        prop_assert!(
                            stepped_back || come_true(&embedded, check.key, &by_model, now_us),
                            "{:?}",
                            by_model
                        );
                        let [by_redis, by_model] =
                            [by_redis, by_model].map(|told_by| told(told_by, *form, stepped_back));
                        prop_assert_eq!(by_redis, by_model, "{:?}", check);
                    }
                }
                Step::Peek(question) => {
                    let limits = question.limits(windows);
                    let check = Ask { key: KEYS[question.key].as_bytes(), limits: &limits, cost: question.cost };
                    let form = question.form;
                    let by_redis = scripts.decide_in_forms(Verb::Peek, &[(check, form)]).remove(0);
                    let by_model = embedded.peek_in_full(&check, now_us);
                    prop_assert_eq!(by_model.verdict, embedded.peek(&check, now_us));
                    let [by_redis, by_model] = [by_redis, by_model].map(|told_by| told(told_by, form, stepped_back));
                    prop_assert_eq!(by_redis, by_model, "peek {:?}", check);
                }
                Step::Reset(key) => {
                    let key = KEYS[key].as_bytes();
                    let by_redis = scripts.reset(&[key], windows.map(counter).to_vec());
                    let by_model = embedded.reset(key, now_us);
                    prop_assert_eq!(by_redis, u64::from(by_model), "reset {:?}", key);
                }
                // The scripts date anew what is dated ahead.
                Step::Inspect(..) if stepped_back => {}
                Step::Inspect(key, entries) => {
                    let key = KEYS[key].as_bytes();
                    let by_redis = scripts.inspect(key, entries, windows.map(counter).to_vec());
                    let by_model = embedded.inspect(key, entries, now_us);
                    let alike = |standings: &[Standing]| standings.iter().map(in_common).collect::<Vec<_>>();
                    prop_assert_eq!(alike(&by_redis), alike(&by_model), "inspect {:?}", key);
                    let is_listed = |found: &Standing| found.newest.len() as u64 == found.entries.min(entries as u64);
                    prop_assert!(by_redis.iter().chain(&by_model).all(is_listed), "{:?}", by_redis);
                }
                Step::Pass(us) => now_us += us,
                Step::Rewind(us) => {
                    now_us = (now_us - us).max(latest_us - MAX_REWIND_US);
                    stepped_back = true;
                }
            }
            latest_us = latest_us.max(now_us);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn the_scripts_answer_as_the_embedded_log_does() {
    run(Scripts::on(&RedisServer::start()), &WINDOWS_MS, false);
}

#[test]
fn the_scripts_answer_as_the_embedded_log_does_when_the_clock_steps_back() {
    run(Scripts::on(&RedisServer::start()), &LONG_WINDOWS_MS, true);
}

/// The keys of a batch are of several slots, whose logs no script may declare together.
#[test]
fn the_scripts_answer_so_on_a_node_of_a_cluster_too() {
    run(Scripts::on_node(&Cluster::of_one(), 0), &WINDOWS_MS, false);
}

/// Ids of what was written back were once those of batches, and one of two entries that met there was not counted.
#[test]
fn what_is_written_back_never_meets_what_was_checked() {
    // So that numbers have one digit and two.
    const COUNT: u64 = 100;
    let redis = RedisServer::start();
    let mut scripts = Scripts::in_real_time(&redis);
    let limits = [Limit::log(1_000_000, Window::from_ms(3_600_000).unwrap())];
    let check = |key: &'static str| Ask { key: key.as_bytes(), limits: &limits, cost: 1 };
    for number in 0..COUNT {
        // The entries of a batch's first item and of those behind it have ids of two kinds.
        scripts.decide(Verb::Check, &[check("k")]);
        scripts.decide(Verb::Check, &[check("other"), check("k")]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let record = Record {
            key: b"k"[..].into(),
            counter: limits[0].counter(),
            max: limits[0].max,
            time_us: u64::try_from(now.as_micros()).unwrap(),
            id: Id::New(number),
            cost: 1,
            admitted: 1,
        };
        scripts.run(|store| store.record(&[record], 0, Names::Declared));
    }
    assert_eq!(redis.command("ZCARD m:{k}:3600000").integer(), 3 * COUNT as i64);
}
