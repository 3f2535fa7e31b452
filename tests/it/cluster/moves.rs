//! Slots on their way from node to node.

use super::before;
use crate::common::load::{Question, StopOnDrop, assert_log_within_limit, while_asking};
use crate::common::{Cluster, PATIENCE, Tollgate, info, is_thorough, key_in, wait_until};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The sum of what all Tollgates say under this name.
fn sum(tollgates: &[Tollgate], name: &str) -> u64 {
    tollgates.iter().map(|tollgate| info(tollgate, name).parse::<u64>().unwrap()).sum()
}

/// One question of each kind, about keys of the first slots, which redis-cli moves first.
fn questions() -> Vec<Question> {
    let about = |slot, limits: &[(i64, u64)]| Question::new(&key_in(slot), limits);
    vec![
        about(0, &[(50, 200)]),
        about(1, &[(40, 150), (100, 600)]),
        about(2, &[(90, 300)]).of_cost(3),
        about(3, &[(30, 100), (1_000_000, 3_600_000)]),
        about(4, &[(60, 250), (1_000_000, 3_600_000)]).of_cost(2),
        about(5, &[(100, 2_000)]),
    ]
}

/// Of those of the questions that are denied again and again.
const LONGEST_WINDOW: Duration = Duration::from_millis(2_000);

/// Runs `act` while a node forgets its scripts again and again.
fn while_scripts_go(cluster: &Cluster, node: usize, act: impl FnOnce()) {
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stopped);
        scope.spawn(|| {
            let mut client = cluster.server(node).client();
            while !stopped.load(Relaxed) {
                client.line("SCRIPT FLUSH");
                thread::sleep(Duration::from_millis(100));
            }
        });
        act();
    });
}

#[test]
fn no_window_holds_more_than_its_limit_while_slots_move() {
    let cluster = Cluster::start();
    let tollgates: Vec<_> = (0..3).map(|_| before(&cluster).start()).collect();
    let addrs: Vec<_> = tollgates.iter().map(Tollgate::addr).collect();
    let seen = while_asking(&addrs, &questions(), |progress| {
        let begun = Instant::now();
        while_scripts_go(&cluster, 1, || {
            // As operators do it.
            for _ in 0..if is_thorough() { 20 } else { 1 } {
                cluster.reshard(6, 0, 1);
                progress.wait_for(200);
                cluster.reshard(6, 1, 0);
                progress.wait_for(200);
            }
            // Slowly: some logs are here, some there, and some nowhere yet.
            let moves: Vec<_> = (0..6).map(|slot| cluster.begin_move(slot, 1)).collect();
            let move_log = |slot: usize, window_ms| {
                cluster.move_keys(moves[slot], &[&format!("rl:{{{}}}:{window_ms}", key_in(slot))]);
            };
            let asks = sum(&tollgates, "store_redirects");
            [(0, 200), (2, 300), (5, 2_000)].into_iter().for_each(|(slot, window_ms)| move_log(slot, window_ms));
            wait_until(PATIENCE, || sum(&tollgates, "store_redirects") > asks + 20);
            let try_agains = sum(&tollgates, "store_try_agains");
            [(1, 600), (3, 3_600_000), (4, 250)].into_iter().for_each(|(slot, window_ms)| move_log(slot, window_ms));
            wait_until(PATIENCE, || sum(&tollgates, "store_try_agains") > try_agains + 20);
            moves.into_iter().for_each(|slot_move| cluster.end_move(slot_move));
            progress.wait_for(200);
            // However quick all that was, the longest of the windows ends and another one fills.
            wait_until(PATIENCE, || begun.elapsed() > LONGEST_WINDOW + LONGEST_WINDOW / 4);
        });
    });
    seen.assert_exact_within_limits();
    seen.assert_busy(&[0, 1, 2, 3, 4, 5]);
    assert_eq!(seen.all_degraded(), 0, "Redis was not down");
    for (slot, limit, window_ms) in [(3, 30, 100), (4, 60, 250)] {
        let key = key_in(slot);
        let log = cluster.server(cluster.node_of(&key)).entries(&format!("rl:{{{key}}}:3600000"));
        assert_log_within_limit(&log, limit, window_ms);
        let admitted = seen.to(slot).filter(|sample| sample.decision.allowed).count();
        let cost = questions()[slot].cost;
        assert_eq!(
            log.iter().map(|(_, weight)| weight).sum::<i64>(),
            admitted as i64 * cost,
            "{key}: each counts once"
        );
    }
}

/// The policy of a key that begins with k counts two windows by two algorithms, and so does the other policy.
const POLICIES: &str = r#"
[policies]
both = "8 250ms 1000000 month+02:00"
[policies.mixed]
limits = "6 200ms"
by = "gcra"
overrides = { "k*" = "6 200ms 1000000 year" }
"#;

/// What is asked of the first slots, and the names of the states behind the key's.
fn questions_of_algorithms() -> Vec<(Question, &'static [&'static str])> {
    let about = |slot, asked: &str, limits: &[(i64, u64)]| Question::new(&key_in(slot), limits).asking(asked);
    // GCRA lets a burst and what its rate allows pass in any time, a fixed window what each of the periods allows which
    // the time is in.
    vec![
        (about(0, "10 150ms 1000000 year", &[(10, 150)]), &["150", "fyear"]),
        (about(1, "mixed", &[(12, 200), (36, 1_000)]), &["mixed:g200", "mixed:fyear"]),
        (about(2, "8 100ms 1000000 year BY fixed", &[(16, 100), (88, 1_000)]), &["f100", "fyear"]),
        (about(3, "12 200ms BY gcra", &[(24, 200), (72, 1_000)]).of_cost(2), &["g200"]),
        (about(4, "both", &[(8, 250)]), &["both:250", "both:fmonth+120"]),
    ]
}

#[test]
fn limits_of_all_algorithms_are_kept_together_while_slots_move() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    std::fs::write(&file, POLICIES).unwrap();
    let start = || before(&cluster).arg("--config").arg(file.to_str().unwrap()).start();
    let tollgates = [start(), start()];
    let addrs: Vec<_> = tollgates.iter().map(Tollgate::addr).collect();
    let (questions, states): (Vec<_>, Vec<_>) = questions_of_algorithms().into_iter().unzip();
    let slots = questions.len();
    let seen = while_asking(&addrs, &questions, |progress| {
        while_scripts_go(&cluster, 1, || {
            for _ in 0..if is_thorough() { 20 } else { 1 } {
                cluster.reshard(slots, 0, 1);
                progress.wait_for(200);
                cluster.reshard(slots, 1, 0);
                progress.wait_for(200);
            }
            // Slowly: of each key one state is here, and the other there.
            let moves: Vec<_> = (0..slots).map(|slot| cluster.begin_move(slot, 1)).collect();
            let move_states = |place: usize| {
                for (slot, states) in states.iter().enumerate() {
                    let name = states.get(place).map(|state| format!("rl:{{{}}}:{state}", key_in(slot)));
                    name.iter().for_each(|name| cluster.move_keys(moves[slot], &[name]));
                }
            };
            let (redirects, try_agains) = (sum(&tollgates, "store_redirects"), sum(&tollgates, "store_try_agains"));
            move_states(0);
            wait_until(PATIENCE, || sum(&tollgates, "store_redirects") > redirects + 20);
            wait_until(PATIENCE, || sum(&tollgates, "store_try_agains") > try_agains + 20);
            move_states(1);
            progress.wait_for(200);
            moves.into_iter().for_each(|slot_move| cluster.end_move(slot_move));
            progress.wait_for(400);
        });
    });
    seen.assert_exact_within_limits();
    seen.assert_busy(&[0, 1, 2, 3, 4]);
    assert_eq!(seen.all_degraded(), 0, "Redis was not down");
    // What one limit denied counts in none, and what both let pass counts once.
    let mut client = tollgates[0].client();
    for (slot, asked) in [(0, "1000000 year"), (1, "mixed"), (2, "1000000 year"), (4, "both")] {
        let told = client.line(&format!("RL.PEEK {} {asked} FULL", key_in(slot)));
        let year_or_month = told.field("limits").items().last().unwrap();
        let remaining = year_or_month.field("remaining").integer() + told.field("allowed").integer();
        let admitted = seen.to(slot).filter(|sample| sample.decision.allowed).count() as i64;
        eprintln!("{asked}: {admitted} admitted of {}", seen.to(slot).count());
        assert_eq!(1_000_000 - remaining, admitted, "{asked}: each counts once");
    }
}

#[test]
fn a_slot_moves_to_a_node_that_served_nothing() {
    let mut cluster = Cluster::of_one();
    let spare = cluster.add_spare();
    let tollgate = before(&cluster).start();
    let (key, mut client) = (key_in(0), tollgate.client());
    let mut remaining = 20;
    let mut check = |at: &str| {
        remaining -= 1;
        let decision = client.decide(&format!("RL.CHECK {key} 20 1h"));
        assert_eq!((decision.remaining, decision.degraded), (remaining, false), "{at}");
    };
    check("before");
    let slot_move = cluster.begin_move(0, spare);
    check("where it was");
    cluster.move_keys(slot_move, &[&format!("rl:{{{key}}}:3600000")]);
    check("where it goes to");
    assert_eq!(info(&tollgate, "store_redirects"), "1");
    cluster.end_move(slot_move);
    check("where it is");
    wait_until(PATIENCE, || info(&tollgate, "nodes") == "2");
    check("where it is known to be");
    assert!(cluster.server(spare).keys().contains(&format!("rl:{{{key}}}:3600000").into_bytes()));
}

/// Where a slot comes from nothing is made anew, and where it goes to only one key at a time may be missing: what is asked
/// about several new logs was told to try again until the slot had moved.
#[test]
fn a_key_of_several_windows_begins_while_its_slot_moves() {
    let mut cluster = Cluster::of_one();
    let spare = cluster.add_spare();
    let tollgate = before(&cluster).env("TOLLGATE_REDIS__TIMEOUT_MS", "2000").start();
    let (key, mut client) = (key_in(0), tollgate.client());
    let slot_move = cluster.begin_move(0, spare);
    for remaining in [4, 3] {
        let decision = client.decide(&format!("RL.CHECK {key} 5 1h 50 2h 500 1d"));
        assert_eq!((decision.remaining, decision.degraded), (remaining, false));
    }
    assert_eq!(client.line(&format!("RL.RESET {key}")).integer(), 1);
    assert_eq!(client.decide(&format!("RL.CHECK {key} 5 1h 50 2h")).remaining, 4);
    cluster.end_move(slot_move);
    assert_eq!(client.decide(&format!("RL.CHECK {key} 5 1h 50 2h")).remaining, 3);
}

/// All that a log holds has expired, and it has not: a check makes it anew. Where its slot is on its way, a log that is
/// not there is made where the slot goes to.
#[test]
fn a_log_that_has_expired_is_made_anew_where_its_slot_goes_to() {
    let mut cluster = Cluster::of_one();
    let spare = cluster.add_spare();
    let tollgate = before(&cluster).start();
    let (key, mut client) = (key_in(0), tollgate.client());
    for _ in 0..3 {
        client.decide(&format!("RL.CHECK {key} 5 3s"));
    }
    let slot_move = cluster.begin_move(0, spare);
    wait_until(PATIENCE, || client.decide(&format!("RL.PEEK {key} 5 3s")).remaining == 4);
    let decision = client.decide(&format!("RL.CHECK {key} 5 3s"));
    assert_eq!((decision.remaining, decision.degraded), (4, false));
    assert_eq!(client.decide(&format!("RL.CHECK {key} 5 3s")).remaining, 3);
    cluster.end_move(slot_move);
    assert_eq!(client.decide(&format!("RL.CHECK {key} 5 3s")).remaining, 2);
}

/// A check of a window that the registry has no room for is refused at once, and the others go on.
#[test]
fn a_full_registry_refuses_what_is_new_to_it() {
    let cluster = Cluster::of_three();
    let tollgate = before(&cluster).env("TOLLGATE_LIMITS__MAX_WINDOWS_IN_USE", "8").start();
    let mut client = tollgate.client();
    for node in 0..3 {
        let key = cluster.key_on(node);
        for hours in 1..=8 {
            assert!(!client.decide(&format!("RL.CHECK {key} 9 {hours}h")).degraded);
        }
        let begun = Instant::now();
        let refused = client.line(&format!("RL.CHECK {key} 9 {}h", 9 + node)).text();
        assert!(refused.starts_with("ERR too many different windows in use"), "{refused}");
        assert!(begun.elapsed() < PATIENCE / 10, "{:?}", begun.elapsed());
        assert_eq!(client.decide(&format!("RL.CHECK {key} 9 1h")).remaining, 7);
    }
}
