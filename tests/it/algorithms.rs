//! Every algorithm, and items of several: the scripts in Redis, the embedded store and a plain model that shares no code
//! with either must tell the same six integers, and in full the same of each limit, whatever is asked, in whatever order, at
//! whatever times.

mod plain;

use crate::common::{Cluster, RedisServer, Reply as Answer, Scripts, Tollgate, batch_of, decisions, on_each_store};
use plain::{DAY_US, Model, Question, Way, limit_of, policy};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use tollgate::limit::{
    Ask, Breakdown, Counter, Form, Limit, LimitFigures, MAX_WINDOW_MS, RetryAfter, Verb, Verdict, Window,
};
use tollgate::store::connection::Reply;
use tollgate::store::embedded::Embedded;
use tollgate::store::ledger::{Id, Record};
use tollgate::store::redis::{Names, entry_id};

const KEYS: [&str; 2] = ["a", "}b"];
#[derive(Debug, Clone)]
enum Step {
    /// All at one moment, in one batch.
    Check(Vec<Question>),
    Peek(Question),
    Reset(usize),
    Inspect(usize),
    Pass(u64),
    Rewind(u64),
}

/// What is asked in one kind of run.
#[derive(Debug, Clone)]
struct World {
    ways: Vec<Way>,
    limits: Vec<u32>,
    costs: Vec<u32>,
    /// Most items of a batch. What a run may read of logs whose entries weigh more than 1 is bounded.
    most_items: usize,
    /// Times to pass, in microseconds.
    passes: Vec<u64>,
    /// The furthest that the clock steps back.
    rewind_us: u64,
}

fn question(world: &World) -> impl Strategy<Value = Question> + use<> {
    let World { ways, limits, costs, .. } = world.clone();
    let count = ways.len().min(3);
    let ways = proptest::sample::subsequence(ways, 1..=count).prop_shuffle();
    let numbers =
        proptest::collection::vec((proptest::sample::select(limits.clone()), proptest::sample::select(limits)), 3);
    (0..KEYS.len(), ways, numbers, proptest::sample::select(costs), any::<bool>(), any::<bool>())
        .prop_map(|(key, ways, numbers, cost, is_of_policy, is_full)| {
            let limit = |(way, (max, burst)): (Way, (u32, u32))| (way, max.max(cost), burst.max(cost));
            let limits = ways.into_iter().zip(numbers).map(limit).filter(is_allowed).collect();
            Question { key, limits, cost, is_of_policy, is_full }
        })
        .prop_filter("a question has a limit", |question| !question.limits.is_empty())
}

fn is_allowed((way, max, burst): &(Way, u32, u32)) -> bool {
    match way {
        Way::Gcra(ms) => tollgate::limit::gcra::allows_burst(*max, Window::from_ms(*ms).unwrap(), *burst),
        _ => true,
    }
}

fn steps(world: &World) -> impl Strategy<Value = Vec<Step>> + use<> {
    let batch = prop_oneof![
        proptest::collection::vec(question(world), 1..=world.most_items),
        // Alike, so that they are joined.
        (question(world), 2..9usize).prop_map(|(question, count)| vec![question; count]),
    ];
    let pass = proptest::sample::select(world.passes.clone());
    let pass = (pass, 0.0..1.0f64).prop_map(|(most, part)| Step::Pass((most as f64 * part) as u64 + 1));
    let rewind_us = world.rewind_us.max(2);
    let step = prop_oneof![
        6 => batch.prop_map(Step::Check),
        2 => question(world).prop_map(Step::Peek),
        1 => (0..KEYS.len()).prop_map(Step::Reset),
        1 => (0..KEYS.len()).prop_map(Step::Inspect),
        5 => pass,
        u32::from(world.rewind_us > 0) => (1..rewind_us).prop_map(Step::Rewind),
    ];
    proptest::collection::vec(step, 1..50)
}

fn ms_of(retry_after: RetryAfter) -> i64 {
    match retry_after {
        RetryAfter::Now => 0,
        RetryAfter::Ms(ms) => ms as i64,
        RetryAfter::Never => -1,
    }
}

fn integers(verdict: Verdict) -> [i64; 6] {
    let Verdict { allowed, limit, remaining, retry_after, reset_after_ms, degraded, .. } = verdict;
    let reset_after_ms = reset_after_ms as i64;
    [i64::from(allowed), limit.into(), remaining.into(), ms_of(retry_after), reset_after_ms, i64::from(degraded)]
}

/// All that is told in full.
fn answer(breakdown: &Breakdown) -> plain::Answer {
    let figures = |of: &LimitFigures| {
        let LimitFigures { limit, window, remaining, retry_after, next_ms, reset_after_ms } = *of;
        let ms = |number: u64| number as i64;
        [limit.into(), ms(window.ms()), remaining.into(), ms_of(retry_after), ms(next_ms), ms(reset_after_ms)]
    };
    plain::Answer { integers: integers(breakdown.verdict), figures: breakdown.limits.iter().map(figures).collect() }
}

/// What is told in this form.
fn told(breakdown: &Breakdown, form: Form) -> (Verdict, Option<&Breakdown>) {
    (breakdown.verdict, Some(breakdown).filter(|_| form == Form::Full))
}

fn ask_of<'a>(question: &Question, limits: &'a [Limit]) -> (Ask<'a>, Form) {
    let form = if question.is_full { Form::Full } else { Form::Short };
    (Ask { key: KEYS[question.key].as_bytes(), limits, cost: question.cost }, form)
}

fn run(scripts: Scripts, world: &World) {
    let scripts = RefCell::new(scripts);
    let start_us = Scripts::start_us();
    let plain: Vec<Counter> = world.ways.iter().map(|way| limit_of((*way, 1, 1)).counter()).collect();
    let of_policy = plain.iter().map(|counter| Counter { policy: policy().policy, ..*counter });
    let mut counters: Vec<Counter> = plain.iter().copied().chain(of_policy).collect();
    counters.sort();
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(world), |steps| {
        let mut scripts = scripts.borrow_mut();
        scripts.control.line("FLUSHALL");
        let embedded = Embedded::new(1000, 100_000);
        let mut plain = Model::default();
        let (mut now_us, mut latest_us, mut stepped_back) = (start_us, start_us, false);
        for step in steps {
            scripts.set_time(now_us);
            let now = i128::from(now_us);
            match step {
                Step::Check(questions) => {
                    let limits: Vec<Vec<Limit>> = questions.iter().map(Question::limits).collect();
                    let asks: Vec<_> =
                        questions.iter().zip(&limits).map(|(question, limits)| ask_of(question, limits)).collect();
                    let by_redis = scripts.decide_in_forms(Verb::Check, &asks);
                    for (((ask, form), question), by_redis) in asks.iter().zip(&questions).zip(by_redis) {
                        let by_embedded = embedded.check_in_full(ask, now_us).unwrap();
                        prop_assert_eq!(told(&by_redis, *form), told(&by_embedded, *form), "{:?}", ask);
                        if !stepped_back {
                            let expected = plain.decide(question, now, true);
                            prop_assert_eq!(answer(&by_embedded), expected, "{:?}", ask);
                        }
                    }
                }
                Step::Peek(question) => {
                    let limits = question.limits();
                    let (ask, form) = ask_of(&question, &limits);
                    let by_redis = scripts.decide_in_forms(Verb::Peek, &[(ask, form)]).remove(0);
                    let by_embedded = embedded.peek_in_full(&ask, now_us);
                    prop_assert_eq!(told(&by_redis, form), told(&by_embedded, form), "peek {:?}", ask);
                    if !stepped_back {
                        prop_assert_eq!(answer(&by_embedded), plain.decide(&question, now, false), "peek {:?}", ask);
                    }
                }
                Step::Reset(key) => {
                    let by_redis = scripts.reset(&[KEYS[key].as_bytes()], counters.clone());
                    let by_embedded = embedded.reset(KEYS[key].as_bytes(), now_us);
                    prop_assert_eq!(by_redis, u64::from(by_embedded), "reset {:?}", key);
                    plain.reset(key);
                }
                Step::Inspect(key) => {
                    let by_redis = scripts.inspect(KEYS[key].as_bytes(), 0, counters.clone());
                    let by_embedded = embedded.inspect(KEYS[key].as_bytes(), 0, now_us);
                    let of_counters =
                        |standing: &&tollgate::limit::Standing| standing.counter.rule.algorithm() != "log";
                    prop_assert_eq!(
                        by_redis.iter().filter(of_counters).collect::<Vec<_>>(),
                        by_embedded.iter().filter(of_counters).collect::<Vec<_>>()
                    );
                }
                Step::Pass(us) => now_us += us,
                Step::Rewind(us) => {
                    now_us = (now_us - us).max(latest_us - world.rewind_us);
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

/// All of them, with limits that divide no window and such that are changed at every call.
fn all() -> World {
    World {
        ways: vec![
            Way::Log(1_000),
            Way::Gcra(20),
            Way::Gcra(1_000),
            Way::Gcra(60_000),
            Way::Fixed(100),
            Way::Fixed(60_000),
            Way::Calendar("day"),
            Way::Calendar("week+02:00"),
            Way::Calendar("month-05:30"),
            Way::Calendar("year"),
        ],
        limits: (1..12).collect(),
        costs: vec![1, 1, 1, 1, 2, 3, 4],
        most_items: 4,
        passes: vec![1_000, 30_000, 300_000, 90_000_000, 50_000_000_000, 3_000_000_000_000],
        rewind_us: 0,
    }
}

/// At the edges of what may be asked: the highest limits, the longest and the shortest windows, bursts of as much.
fn edges() -> World {
    World {
        ways: vec![
            Way::Gcra(1),
            Way::Gcra(1_000),
            Way::Gcra(86_400_000),
            Way::Gcra(MAX_WINDOW_MS),
            Way::Fixed(1),
            Way::Fixed(MAX_WINDOW_MS),
            Way::Log(MAX_WINDOW_MS),
        ],
        limits: vec![1, 3, 7, 1_000_000, 16_777_259, 999_999_937, 1_000_000_000],
        costs: vec![1, 1, 999_983, 1_000_000],
        most_items: 2,
        passes: vec![10, 1_000_000, 90_000_000_000, MAX_WINDOW_MS * 1000],
        rewind_us: 0,
    }
}

#[test]
fn scripts_embedded_store_and_plain_model_tell_the_same_six_integers() {
    run(Scripts::on(&RedisServer::start()), &all());
}

#[test]
fn they_tell_the_same_on_a_node_of_a_cluster() {
    run(Scripts::on_node(&Cluster::of_one(), 0), &all());
}

#[test]
fn they_tell_the_same_at_the_edges_of_what_may_be_asked() {
    run(Scripts::on(&RedisServer::start()), &edges());
}

/// Logs are compared with the clock stepping back in model.rs: what is dated far ahead they date anew.
#[test]
fn scripts_and_embedded_store_tell_the_same_when_the_clock_steps_back() {
    let ways = all().ways.into_iter().filter(|way| !matches!(way, Way::Log(_))).collect();
    run(Scripts::on(&RedisServer::start()), &World { ways, rewind_us: 500_000, ..all() });
}

/// Whatever happens between the two runs of a batch: time passes, others are counted. Not more than a state knows by name.
#[test]
fn a_batch_that_runs_twice_admits_what_it_admitted_and_counts_it_once() {
    let redis = RedisServer::start();
    let scripts = RefCell::new(Scripts::on(&redis));
    let start_us = Scripts::start_us();
    let history = limit_of((Way::Fixed(MAX_WINDOW_MS), 1_000_000, 0));
    let limits: Vec<Vec<Limit>> = (4..12)
        .map(|max| {
            let by = |way| limit_of((way, max, max));
            match max % 3 {
                0 => vec![by(Way::Gcra(100)), history],
                1 => vec![history, by(Way::Fixed(400)), by(Way::Gcra(300))],
                _ => vec![by(Way::Log(200)), history, by(Way::Gcra(100))],
            }
        })
        .collect();
    // Of one of two keys, under some limits, of a cost, so often.
    let request = (0..2usize, 0..limits.len(), prop_oneof![3 => Just(1u32), 1 => 2..4u32], 1..8usize);
    let requests = |most| proptest::collection::vec(request.clone(), 0..most);
    let story = (requests(3), requests(4), requests(3), 0..300_000u64, 0..600_000u64);
    let asks_of = |requests: &[(usize, usize, u32, usize)]| -> Vec<Ask<'_>> {
        let ask = |key: usize, place: usize, cost| Ask { key: KEYS[key].as_bytes(), limits: &limits[place], cost };
        requests.iter().flat_map(|(key, limits, cost, count)| vec![ask(*key, *limits, *cost); *count]).collect()
    };
    let cost_of = |asks: &[Ask<'_>], verdicts: &[Verdict]| -> u32 {
        asks.iter().zip(verdicts).filter(|(_, verdict)| verdict.allowed).map(|(ask, _)| ask.cost).sum()
    };
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&story, |(before, batch, between, first_us, then_us)| {
        let mut scripts = scripts.borrow_mut();
        scripts.control.line("FLUSHALL");
        scripts.set_time(start_us);
        let asks = asks_of(&before);
        let mut counted = cost_of(&asks, &scripts.decide(Verb::Check, &asks));
        scripts.set_time(start_us + first_us);
        let asks = asks_of(&batch);
        let (asked, items) = batch_of(&asks);
        let id = scripts.store.next_batch_id();
        let answers = scripts.answers(&asked, &id, false);
        let first = decisions(Verb::Check, &asks, &asked, &items, &answers);
        let others = asks_of(&between);
        counted += cost_of(&others, &scripts.decide(Verb::Check, &others));
        scripts.set_time(start_us + first_us + then_us);
        let answers = scripts.answers(&asked, &id, true);
        let second = decisions(Verb::Check, &asks, &asked, &items, &answers);
        for item in 0..asked.items().len() {
            let of_item = |verdicts: &[Verdict]| -> Vec<bool> {
                verdicts.iter().zip(&items).filter(|(_, of)| **of == item).map(|(verdict, _)| verdict.allowed).collect()
            };
            let (was, is) = (of_item(&first), of_item(&second));
            // What was denied is decided anew.
            prop_assert!(was == is || !was.contains(&true), "item {} of {:?}: {:?}, then {:?}", item, batch, was, is);
        }
        counted += cost_of(&asks, &second);
        let in_redis: u32 = KEYS
            .iter()
            .map(|key| {
                let ask = Ask { key: key.as_bytes(), limits: &[history], cost: 1 };
                history.max - 1 - scripts.decide_one(Verb::Peek, &ask).remaining
            })
            .sum();
        prop_assert_eq!(in_redis, counted);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// What the fallback admitted in place of an answer that came late, or never: of each group what is lacking, once, at the
/// time at which it was admitted.
#[test]
fn what_is_written_back_adds_what_is_lacking_once() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let start_us = Scripts::start_us();
    scripts.set_time(start_us);
    let limits = [limit_of((Way::Gcra(1_000), 10, 20)), limit_of((Way::Calendar("day"), 20, 0))];
    let ask = Ask { key: b"k", limits: &limits, cost: 2 };
    let used = |scripts: &mut Scripts| {
        limits.map(|limit| {
            let ask = Ask { key: b"k", limits: &[limit], cost: 1 };
            19 - scripts.decide_one(Verb::Peek, &ask).remaining
        })
    };
    let (batch, _) = batch_of(&[ask; 3]);
    let id = scripts.store.next_batch_id();
    scripts.answers(&batch, &id, false);
    assert_eq!(used(&mut scripts), [6, 6]);
    let records = |id: Id, cost: u64, admitted: u32, time_us: u64| {
        limits.map(|limit| {
            let (counter, id) = (limit.counter(), id.clone());
            Record { key: b"k"[..].into(), counter, max: limit.max, time_us, id, cost, admitted }
        })
    };
    let asked = |admitted| records(Id::Asked { id: entry_id(&id, 0).into(), asked: 5 }, 2, admitted, start_us);
    let new = records(Id::New(7), 3, 1, start_us - 200_000);
    for (records, said, expected) in [
        // Redis had counted all three.
        (asked(2), [0, 0], [6, 6]),
        (asked(5), [1, 1], [10, 10]),
        (asked(5), [0, 0], [10, 10]),
        (new.clone(), [1, 1], [13, 13]),
        (new, [0, 0], [13, 13]),
        // Of another day; and so long ago that a state which was empty then would be so now.
        (records(Id::New(8), 1, 1, start_us - 86_400_000_000), [1, 0], [14, 13]),
    ] {
        let reply = scripts.run(|store| store.record(&records, 0, Names::Declared));
        assert_eq!((reply, used(&mut scripts)), (Reply::Integers(said.to_vec()), expected));
    }
    scripts.control.line("FLUSHALL");
    scripts.set_time(start_us);
    // Ten a second: of four that were admitted 200 ms ago two are gone.
    let four = records(Id::New(9), 4, 1, start_us - 200_000);
    scripts.run(|store| store.record(&four[..1], 0, Names::Declared));
    assert_eq!(used(&mut scripts), [2, 0]);
    let long_ago = records(Id::New(10), 4, 1, start_us - 600_000);
    scripts.control.line("FLUSHALL");
    scripts.set_time(start_us);
    let reply = scripts.run(|store| store.record(&long_ago[..1], 0, Names::Declared));
    assert_eq!((reply, used(&mut scripts)), (Reply::Integers(vec![0]), [0, 0]));
}

/// An interval of this limit is 86.4 us and a bit more, whose parts come to many whole ones.
#[test]
fn ten_million_admissions_do_not_drift() {
    const BATCHES: u32 = 9_766;
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let start_us = Scripts::start_us();
    let limits = [limit_of((Way::Gcra(86_400_000), 999_999_937, 999_999_937))];
    let ask = Ask { key: b"k", limits: &limits, cost: 1 };
    let (batch, _) = batch_of(&[ask; 1024]);
    scripts.set_time(start_us);
    for _ in 0..BATCHES {
        let id = scripts.store.next_batch_id();
        scripts.answers(&batch, &id, false);
    }
    let counted = BATCHES * 1024;
    assert!(counted > 10_000_000);
    let ahead_us = |counted: u32| (i128::from(counted) * DAY_US + 999_999_936) / 999_999_937;
    let verdict = scripts.decide_one(Verb::Peek, &ask);
    assert_eq!(verdict.remaining, 999_999_937 - counted - 1);
    assert_eq!(i128::from(verdict.reset_after_ms), (ahead_us(counted + 1) + 999) / 1000);
    // A microsecond before it is empty, and then.
    let cost_all = Ask { cost: 1_000_000, ..ask };
    let end_us = start_us + u64::try_from(ahead_us(counted)).unwrap();
    for (now_us, used) in [(end_us - 1, 1), (end_us, 0)] {
        scripts.set_time(now_us);
        assert_eq!(scripts.decide_one(Verb::Peek, &cost_all).remaining, 998_999_937 - used);
    }
}

/// What somebody wrote there that is no state, be it of any type, is an error and stays as it is.
#[test]
fn what_is_no_state_is_left_alone() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    for value in
        ["RPUSH rl:{k}:g1000 x", "SET rl:{k}:g1000 x", "SET rl:{k}:g1000 0123456789abcdef", "ZADD rl:{k}:g1000 1 a"]
    {
        redis.command("DEL rl:{k}:g1000");
        redis.command(value);
        let before = redis.command("DUMP rl:{k}:g1000");
        for line in ["RL.CHECK k 5 1s BY gcra", "RL.PEEK k 5 1s BY gcra", "RL.CHECK k 5 1h 5 1s BY gcra"] {
            let reply = client.line(line);
            assert!(
                matches!(&reply, Answer::Error(text) if text.starts_with("WRONGTYPE")),
                "{value}, {line}: {reply:?}"
            );
        }
        assert_eq!(redis.command("DUMP rl:{k}:g1000"), before, "{value}");
        assert_eq!(redis.command("EXISTS rl:{k}:g3600000").integer(), 0, "nothing of the check is counted");
    }
}

/// A state knows nothing of the limit: whoever raises or lowers it loses nothing and gains nothing.
#[test]
fn bursts_calendars_and_lines_of_any_algorithm_are_answered() {
    on_each_store(|client| {
        let decision = client.decide("RL.CHECK k 10 1h BY gcra BURST 3");
        assert_eq!((decision.allowed, decision.limit, decision.remaining), (true, 3, 2));
        assert_eq!(decision.reset_after_ms, 360_000);
        client.decide("RL.CHECK k 10 1h BY gcra BURST 3 COST 2");
        let denied = client.decide("RL.CHECK k 10 1h BY gcra BURST 3");
        assert!(!denied.allowed && (359_000..=360_000).contains(&denied.retry_after_ms), "{denied:?}");
        assert!(client.decide("RL.CHECK k 10 1h BY gcra BURST 4").allowed, "another burst is the same state");
        assert_eq!(client.decide("RL.CHECK k 10 1h BY gcra BURST 4 COST 5").retry_after_ms, -1);
        let month = client.decide("RL.CHECK k 100 1s 3 month+02:00 COST 3");
        assert_eq!((month.allowed, month.limit, month.remaining), (true, 3, 0));
        assert!(month.reset_after_ms <= 31 * 86_400_000);
        let denied = client.decide("RL.CHECK k 100 1s 3 month+02:00");
        assert!(!denied.allowed && denied.retry_after_ms == denied.reset_after_ms, "{denied:?}");
        assert_eq!(client.decide("RL.PEEK k 100 1s").remaining, 96, "what was denied counts in no window");
        assert!(client.decide("RL.CHECK k 3 month").allowed, "other periods are another state");
        assert_eq!(client.line("RL.RESET k"), Answer::Integer(1));
        assert_eq!(client.decide("RL.PEEK k 3 month+02:00 10 1s BY fixed").remaining, 2);
        assert_eq!(client.line("RL.RESET k"), Answer::Integer(0));
    });
}

/// The denial cache must not outlast the time at which GCRA admits again, nor forget it early.
#[test]
fn who_waits_as_long_as_told_is_admitted_at_once() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    let mut retry_after_ms = 0;
    let mut denials = 0;
    while denials < 8 {
        std::thread::sleep(std::time::Duration::from_millis(retry_after_ms));
        let decision = client.decide("RL.CHECK k 20 1s BY gcra BURST 1");
        assert!(!decision.degraded && (decision.allowed || retry_after_ms == 0), "{decision:?}");
        let denied = client.decide("RL.CHECK k 20 1s BY gcra BURST 1");
        // On a machine that slept for longer than an interval the second is admitted too: then one must wait for that.
        retry_after_ms = if denied.allowed { 50 } else { denied.retry_after_ms.try_into().unwrap() };
        assert!((1..=50).contains(&retry_after_ms), "{denied:?}");
        denials += u32::from(!denied.allowed);
    }
}
