//! Most checks are decided by code of their own, which is fast because it knows nothing else (lua/plain.lua). Whatever it
//! decides, it must decide and write as the rest of the script does: a batch that may have run before has it do nothing.

use crate::common::{RawClient, RedisServer, Scripts, batch_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use tollgate::limit::{Algorithm, Ask, Limit, Period, Window};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const WINDOWS_MS: [u64; 2] = [100, 60_000];

/// What a check may ask for: its key, and one limit.
#[derive(Debug, Clone)]
struct Question {
    key: usize,
    limit: Limit,
    cost: u32,
}

#[derive(Debug, Clone)]
enum Step {
    /// In one batch, of which the script is told that the logs live long enough, or not.
    Check(Vec<Question>, bool),
    /// Microseconds, forwards.
    Pass(u64),
    /// Microseconds, as when a replica whose clock is behind takes over.
    Rewind(u64),
    /// The name of a key's log or state comes to hold this.
    Forge(usize, String),
}

fn questions() -> impl Strategy<Value = Question> {
    let window = prop_oneof![Just(WINDOWS_MS[0]), Just(WINDOWS_MS[1])].prop_map(|ms| Window::from_ms(ms).unwrap());
    // Of 7, a step of GCRA is no whole number of microseconds.
    let max = prop_oneof![Just(3u32), Just(7), Just(1000)];
    let cost = prop_oneof![6 => Just(1u32), 1 => Just(2)];
    (0..KEYS.len(), window, max, 0..5, cost).prop_map(|(key, window, max, algorithm, cost)| {
        let log = Limit::log(max, window);
        let limit = match algorithm {
            0..2 => log,
            2..4 => Limit { algorithm: Algorithm::Gcra { burst: max }, ..log },
            _ => Limit { algorithm: Algorithm::Fixed(Period::of_window(window)), ..log },
        };
        Question { key, limit, cost }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let forged = prop_oneof![
        Just("SET {name} x".to_owned()),
        Just("DEL {name}".to_owned()),
        Just("SETRANGE {name} 0 zzzzzzzz".to_owned()),
        // Ends in 1995.
        Just("SETRANGE {name} 0 0000".to_owned()),
        Just("SETRANGE {name} 4 zzzz".to_owned()),
        Just("SETRANGE {name} 8 zzzzzzzz".to_owned()),
        Just("SETRANGE {name} 16 zzzz".to_owned()),
        Just("ZADD {name} 5 t".to_owned()),
    ];
    let step = prop_oneof![
        12 => (proptest::collection::vec(questions(), 1..6), any::<bool>()).prop_map(|(asked, lasts)| Step::Check(asked, lasts)),
        4 => prop_oneof![1..20_000u64, 90_000..110_000u64].prop_map(Step::Pass),
        1 => (1..500_000u64).prop_map(Step::Rewind),
        3 => (0..KEYS.len() * 6, forged).prop_map(|(name, command)| Step::Forge(name, command)),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The names of all logs and states.
fn names() -> Vec<String> {
    let of_key =
        |key: &&str| WINDOWS_MS.map(|ms| ["", "g", "f"].map(|kind| format!("m:{{{key}}}:{kind}{ms}"))).concat();
    KEYS.iter().flat_map(of_key).collect()
}

/// What stands in Redis, and which of it lives for good.
fn held(control: &mut RawClient) -> Vec<String> {
    let mut keys: Vec<_> = control.line("KEYS m:*").items().iter().map(|key| key.text()).collect();
    keys.sort();
    keys.into_iter()
        .map(|key| {
            let reads = [format!("ZRANGE {key} 0 -1 WITHSCORES"), format!("GET {key}"), format!("PERSIST {key}")];
            format!("{key} {:?}", reads.map(|read| format!("{:?}", control.line(&read))))
        })
        .collect()
}

#[test]
fn what_is_plain_is_decided_as_all_else_is() {
    let servers = [RedisServer::start(), RedisServer::start()];
    let both = RefCell::new(servers.each_ref().map(Scripts::on));
    let names = names();
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        let mut both = both.borrow_mut();
        both.iter_mut().for_each(|scripts| drop(scripts.control.line("FLUSHALL")));
        let mut now_us = Scripts::start_us();
        for step in steps {
            match step {
                Step::Check(asked, lasts) => {
                    let checks: Vec<_> = asked
                        .iter()
                        .map(|one| Ask {
                            key: KEYS[one.key].as_bytes(),
                            limits: std::slice::from_ref(&one.limit),
                            cost: one.cost,
                        })
                        .collect();
                    let (mut batch, _) = batch_of(&checks);
                    batch.mark_fresh_ttls(|_| lasts.then_some(i64::MAX));
                    let id = both[0].store.next_batch_id();
                    let [plain, general] = both.each_mut().map(|scripts| {
                        scripts.set_time(now_us);
                        scripts
                    });
                    prop_assert_eq!(plain.answers(&batch, &id, false), general.answers(&batch, &id, true));
                }
                Step::Pass(us) => now_us += us,
                Step::Rewind(us) => now_us -= us,
                Step::Forge(name, command) => {
                    let line = command.replace("{name}", &names[name % names.len()]);
                    both.iter_mut().for_each(|scripts| drop(scripts.control.line(&line)));
                }
            }
        }
        let [plain, general] = both.each_mut().map(|scripts| held(&mut scripts.control));
        prop_assert_eq!(plain, general);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
