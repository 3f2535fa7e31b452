//! The scripts in Redis and the embedded log are two implementations of one thing: whatever is asked of both, in
//! whatever order, at whatever times, they must answer alike. Time is moved by a script that reads it from a key,
//! which the server has no way to use.

use crate::common::RedisServer;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};
use tollgate::config;
use tollgate::dial::Dialer;
use tollgate::quota::{Check, Decision, Quota, Window, WindowState, decide};
use tollgate::store::batch::Batch;
use tollgate::store::connection::{Connection, Reply as ScriptReply};
use tollgate::store::embedded::Embedded;
use tollgate::store::ledger::{Id, Record};
use tollgate::store::redis::{Answers, RedisStore, WindowAnswer};
use tollgate::store::script::Run;

const CLOCK: &str = "local now_us = tonumber(redis.call('GET', 'model:now'))\n";
const KEYS: [&str; 3] = ["a", "}b", "{c"];
const WINDOWS_MS: [u64; 4] = [20, 100, 1_000, 60_000];

#[derive(Debug, Clone)]
struct Question {
    key: usize,
    /// Places in `WINDOWS_MS` and limits; no place twice.
    quotas: Vec<(usize, u32)>,
    cost: u32,
}

#[derive(Debug, Clone)]
enum Step {
    /// All at one moment, in one batch.
    Check(Vec<Question>),
    Peek(Question),
    Reset(usize),
    /// Microseconds, forwards.
    Pass(u64),
    /// Microseconds; as when a replica whose clock is behind takes over.
    Rewind(u64),
}

impl Question {
    fn quotas(&self) -> Vec<Quota> {
        let quota = |(place, limit): &(usize, u32)| Quota {
            limit: *limit,
            window: Window::from_ms(WINDOWS_MS[*place]).unwrap(),
        };
        self.quotas.iter().map(quota).collect()
    }

    fn with<T>(&self, ask: impl FnOnce(&Check<'_>) -> T) -> T {
        ask(&Check { key: KEYS[self.key].as_bytes(), quotas: &self.quotas(), cost: self.cost })
    }
}

fn questions() -> impl Strategy<Value = Question> {
    let places = proptest::sample::subsequence((0..WINDOWS_MS.len()).collect::<Vec<_>>(), 1..=3).prop_shuffle();
    let cost = prop_oneof![4 => Just(1u32), 1 => 2..5u32];
    (0..KEYS.len(), places, proptest::collection::vec(1..12u32, 3), cost).prop_map(|(key, places, limits, cost)| {
        let quotas = places.into_iter().zip(limits).map(|(place, limit)| (place, limit.max(cost))).collect();
        Question { key, quotas, cost }
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
        5 => prop_oneof![0..2_000u64, 0..30_000u64, Just(20_000), 0..300_000u64, 0..90_000_000u64].prop_map(Step::Pass),
        u32::from(backwards) => (1..500_000u64).prop_map(Step::Rewind),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The scripts, on a Redis of the test's own.
struct Scripts {
    store: RedisStore,
    link: Connection,
    runs: u64,
}

impl Scripts {
    async fn ask(&mut self, questions: &[Question], counts: bool) -> Vec<Decision> {
        let mut batch = Batch::default();
        let items: Vec<usize> = questions.iter().map(|question| question.with(|check| batch.add(check))).collect();
        let run = match counts {
            true => self.store.check(&batch, &self.store.next_batch_id()),
            false => self.store.peek(&batch),
        };
        let reply = run_by_source(&mut self.link, &run).await;
        let mut windows = Answers::read(reply, batch.windows()).unwrap().windows.into_iter();
        let mut states: Vec<Vec<WindowState>> = Vec::new();
        for item in batch.items() {
            let count = batch.check_of(item).quotas.len();
            states.push(windows.by_ref().take(count).map(state_of).collect());
        }
        let decide_one = |(question, item): (&Question, &usize)| {
            let (quotas, states) = (question.quotas(), &mut states[*item]);
            let decision = decide(&quotas, states, question.cost);
            if decision.allowed && counts {
                states.iter_mut().zip(&quotas).for_each(|(state, quota)| state.count(question.cost, quota.window));
            }
            decision
        };
        questions.iter().zip(&items).map(decide_one).collect()
    }
}

async fn run_by_source(link: &mut Connection, run: &Run<'_>) -> ScriptReply {
    run.write(link.output(), true);
    link.reply().await.unwrap()
}

fn state_of(answer: WindowAnswer) -> WindowState {
    match answer {
        WindowAnswer::State { state, .. } => state,
        WindowAnswer::WrongType => panic!("nothing but logs was written"),
    }
}

/// What a client is told, as far as it must be exact. After a step back of the clock the scripts may take a window
/// for empty a little early or late: its newest entry is not looked for where that would cost every check a call.
fn told(decision: Decision, stepped_back: bool) -> Decision {
    if stepped_back { Decision { reset_after_ms: 0, ..decision } } else { decision }
}

/// A connection, and what it lives on.
fn connect(redis: &RedisServer) -> (Runtime, Connection) {
    let loaded = config::load(None, [("REDIS_ADDR".into(), redis.addr().to_string().into())], &[]).unwrap();
    let dialer = Dialer::new(&loaded.config.redis).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let link = runtime.block_on(Connection::open(&dialer, Duration::from_secs(10))).unwrap();
    (runtime, link)
}

fn run(backwards: bool) {
    let redis = RedisServer::start();
    let (runtime, link) = connect(&redis);
    // Ahead of the real clock, by which Redis expires keys, throughout.
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    let start_us = u64::try_from(start.as_micros()).unwrap();
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let mut control = redis.client();
    let scripts = std::cell::RefCell::new(Scripts { store: RedisStore::with_clock("m:", CLOCK), link, runs: 0 });
    let control = std::cell::RefCell::new(&mut control);
    let outcome = runner.run(&steps(backwards), |steps| {
        let (mut scripts, mut control) = (scripts.borrow_mut(), control.borrow_mut());
        control.line("FLUSHALL");
        let embedded = Embedded::new(1000, 100_000);
        let (mut now_us, mut stepped_back) = (start_us, false);
        scripts.runs += 1;
        for step in steps {
            control.line(&format!("SET model:now {now_us}"));
            match step {
                Step::Check(questions) => {
                    let told_by_redis = runtime.block_on(scripts.ask(&questions, true));
                    for (question, by_redis) in questions.iter().zip(told_by_redis) {
                        let by_model = question.with(|check| embedded.check(check, now_us)).unwrap();
                        prop_assert_eq!(told(by_redis, stepped_back), told(by_model, stepped_back), "{:?}", question);
                    }
                }
                Step::Peek(question) => {
                    let by_redis = runtime.block_on(scripts.ask(std::slice::from_ref(&question), false))[0];
                    let by_model = question.with(|check| embedded.peek(check, now_us));
                    prop_assert_eq!(told(by_redis, stepped_back), told(by_model, stepped_back), "peek {:?}", question);
                }
                Step::Reset(key) => {
                    let Scripts { store, link, .. } = &mut *scripts;
                    let key = KEYS[key].as_bytes();
                    let by_redis = runtime.block_on(run_by_source(link, &store.reset(&[key.to_vec()])));
                    let by_model = i64::from(embedded.reset(key, now_us));
                    prop_assert_eq!(by_redis, ScriptReply::Integers(vec![by_model]), "reset {:?}", key);
                }
                Step::Pass(us) => now_us += us,
                Step::Rewind(us) => {
                    now_us -= us;
                    stepped_back = true;
                }
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(scripts.borrow().runs >= 200);
}

#[test]
fn the_scripts_answer_as_the_embedded_log_does() {
    run(false);
}

#[test]
fn the_scripts_answer_as_the_embedded_log_does_when_the_clock_steps_back() {
    run(true);
}

/// Ids of what was written back were once those of batches, and one of two entries that met there was not counted.
#[test]
fn what_is_written_back_never_meets_what_was_checked() {
    // So that numbers have one digit and two.
    const COUNT: u64 = 100;
    let redis = RedisServer::start();
    let (runtime, mut link) = connect(&redis);
    let store = RedisStore::new("m:");
    let quotas = [Quota { limit: 1_000_000, window: Window::from_ms(3_600_000).unwrap() }];
    let batch_of = |keys: &[&str]| {
        let mut batch = Batch::default();
        for key in keys {
            batch.add(&Check { key: key.as_bytes(), quotas: &quotas, cost: 1 });
        }
        batch
    };
    // The entries of a batch's first item and of those behind it have ids of two kinds.
    let batches = [batch_of(&["k"]), batch_of(&["other", "k"])];
    for number in 0..COUNT {
        for batch in &batches {
            runtime.block_on(run_by_source(&mut link, &store.check(batch, &store.next_batch_id())));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let record = Record {
            key: b"k"[..].into(),
            window: quotas[0].window,
            time_us: u64::try_from(now.as_micros()).unwrap(),
            id: Id::New(number),
            cost: 1,
            admitted: 1,
        };
        runtime.block_on(run_by_source(&mut link, &store.record(&[record], 0)));
    }
    assert_eq!(redis.command("ZCARD m:{k}:3600000").integer(), 3 * COUNT as i64);
}
