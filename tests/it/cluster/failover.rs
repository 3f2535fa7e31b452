//! Nodes that are lost, and those that take their place.

use super::{before, counted};
use crate::common::load::{Progress, Question, Seen, while_asking};
use crate::common::{Builder, Cluster, PATIENCE, Proxy, Tollgate, Weather, info, is_thorough, wait_until};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// `redis.timeout_ms`. Longer than its default, as a Redis on a busy machine is not one that is lost.
const TIMEOUT: Duration = Duration::from_millis(500);
/// What a client may wait beyond the deadline on a busy machine, besides its own stalls.
const SLACK: Duration = Duration::from_millis(150);
/// Once the cluster has agreed on who takes a place, or a node is there again, all is exact again within that:
/// `breaker.probe_max_ms` with its jitter, `redis.connect_timeout_ms` and some.
const FOUND_WITHIN: Duration = Duration::from_millis(2400 + 1000 + 1000);

fn impatient(cluster: &Cluster) -> Builder {
    before(cluster).env("TOLLGATE_REDIS__TIMEOUT_MS", &TIMEOUT.as_millis().to_string()).expect_log("redis")
}

/// About two keys of each of the three primaries at the beginning: one that is denied most of the time, and one whose
/// whole history stays. The second three questions are about the latter.
fn questions(cluster: &Cluster) -> Vec<Question> {
    let keys: Vec<Vec<String>> = (0..3).map(|node| cluster.keys_on(node, 2)).collect();
    let tight = keys.iter().map(|keys| Question::new(&keys[0], &[(40, 400)]));
    let all = keys.iter().map(|keys| Question::new(&keys[1], &[(1_000_000, 3_600_000)]));
    tight.chain(all).collect()
}

/// What became of a fault of one node. `act` makes it, and returns when it is mended.
#[track_caller]
fn lose(what: &str, tollgates: &[Tollgate], questions: &[Question], lost: usize, act: impl FnOnce(&Progress)) -> Seen {
    let addrs: Vec<_> = tollgates.iter().map(Tollgate::addr).collect();
    let mut mended = Instant::now();
    let seen = while_asking(&addrs, questions, |progress| {
        act(progress);
        mended = Instant::now();
    });
    let longest = TIMEOUT + SLACK + 2 * seen.stall;
    for question in 0..questions.len() {
        let waited = seen.longest_wait(question);
        assert!(waited <= longest, "{what}: a client waited {waited:?} of at most {longest:?}");
        let is_lost = question % 3 == lost;
        assert!(
            is_lost || seen.degraded(question) == 0,
            "{what}: another node's key: {}",
            seen.tell_degraded(question)
        );
    }
    let recovery = seen.degraded_for(lost, mended).max(seen.degraded_for(lost + 3, mended));
    let waited = [lost, lost + 3, (lost + 1) % 3, (lost + 2) % 3].map(|question| seen.longest_wait(question));
    eprintln!(
        "{what}: exact again after {recovery:?}, {} answers degraded; longest waits {:?}, of other nodes' keys {:?}; stall {:?}",
        seen.degraded(lost) + seen.degraded(lost + 3),
        &waited[..2],
        &waited[2..],
        seen.stall
    );
    assert!(recovery <= FOUND_WITHIN, "{what}: exact again only after {recovery:?}");
    let exact: Vec<usize> = (0..3).filter(|question| *question != lost).collect();
    seen.assert_exact_within_limits();
    seen.assert_busy(&exact);
    seen
}

/// Admissions of this key that its log does not hold.
#[track_caller]
fn missing(cluster: &Cluster, tollgates: &[&Tollgate], seen: &[&Seen], question: usize, key: &str) -> i64 {
    // What the fallback admitted is written back without being asked for.
    wait_until(PATIENCE, || tollgates.iter().all(|tollgate| info(tollgate, "fallback_unwritten") == "0"));
    let admitted: usize =
        seen.iter().map(|seen| seen.to(question).filter(|sample| sample.decision.allowed).count()).sum();
    admitted as i64 - counted(cluster, key)
}

#[test]
fn a_primary_that_is_gone_or_hangs_costs_its_own_keys_only() {
    let mut cluster = Cluster::start();
    let tollgates = [impatient(&cluster).start(), impatient(&cluster).start()];
    let questions = questions(&cluster);
    let [first, second] = [0, 1].map(|node| cluster.replicas_of(node)[0]);
    let gone = lose("killed", &tollgates, &questions, 0, |progress| {
        cluster.kill(0);
        cluster.wait_until_primary(first);
        progress.wait_for(100);
    });
    cluster.start_again(0);
    cluster.wait_until_agreed();
    let hung = lose("stopped", &tollgates, &questions, 1, |progress| {
        cluster.stop(1);
        cluster.wait_until_primary(second);
        progress.wait_for(100);
        cluster.cont(1);
        cluster.wait_until_agreed();
    });
    assert!(gone.degraded(0) > 0 && hung.degraded(1) > 0);
    for (number, Question { key, .. }) in questions.iter().enumerate().skip(3) {
        assert_eq!(missing(&cluster, &tollgates.each_ref(), &[&gone, &hung], number, key), 0, "{key}");
    }
}

/// The cluster finds a node in order that a Tollgate cannot reach.
#[test]
fn a_primary_that_is_cut_off_costs_its_own_keys_only() {
    let cluster = Cluster::of_three();
    let proxy = Proxy::before(cluster.server(2).addr());
    cluster.announce(2, proxy.addr().port());
    let tollgates = [impatient(&cluster).start()];
    let questions = questions(&cluster);
    let seen = lose("cut off", &tollgates, &questions, 2, |progress| {
        proxy.set_weather(Weather::BlackHole);
        wait_until(PATIENCE, || info(&tollgates[0], "store_up") == "0");
        progress.wait_for(300);
        proxy.set_weather(Weather::Fair);
    });
    assert!(seen.degraded(2) > 0);
    assert_eq!(missing(&cluster, &tollgates.each_ref(), &[&seen], 5, &questions[5].key), 0);
}

/// As clusters are by default: while nobody serves some slots, the others are not served either.
#[test]
fn a_cluster_that_is_down_as_a_whole_is_told_of() {
    let mut cluster = Cluster::of_three();
    for node in 0..3 {
        cluster.command(node, &["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
    }
    let tollgate = impatient(&cluster).start();
    let (mut client, key) = (tollgate.client(), cluster.key_on(1));
    let mut is_degraded = || client.decide(&format!("RL.CHECK {key} 1000000 1h")).degraded;
    wait_until(PATIENCE, || !is_degraded());
    cluster.kill(0);
    wait_until(PATIENCE, || {
        let nodes = [0, 1, 2].map(|node| info(&tollgate, &format!("node{node}"))).concat();
        is_degraded() && nodes.contains("cluster is down")
    });
    cluster.start_again(0);
    wait_until(PATIENCE, || !is_degraded());
}

#[test]
fn a_replica_that_is_told_to_take_over_is_followed() {
    let cluster = Cluster::start();
    let tollgates = [impatient(&cluster).start(), impatient(&cluster).start()];
    let questions = questions(&cluster);
    let replica = cluster.replicas_of(0)[0];
    let seen = lose("told to fail over", &tollgates, &questions, 0, |progress| {
        for _ in 0..if is_thorough() { 10 } else { 1 } {
            cluster.failover(replica);
            progress.wait_for(100);
            cluster.failover(0);
            progress.wait_for(100);
        }
    });
    assert_eq!(missing(&cluster, &tollgates.each_ref(), &[&seen], 3, &questions[3].key), 0);
}

/// What is asked of a key in each of the ways of counting, of which all stays for as long as the test lasts; and whether a
/// state knows all that it has counted by name.
const WAYS: [(&str, bool); 4] = [
    ("1000000 1h", true),
    ("1000000 1h 1000000 year", false),
    ("100000 366d BY gcra", false),
    ("1000000 366d BY fixed", false),
];

/// How much the last of the limits has counted.
fn used(tollgate: &Tollgate, key: &str, way: &str) -> i64 {
    let told = tollgate.client().line(&format!("RL.PEEK {key} {way} FULL"));
    let last = told.field("limits").items().last().unwrap();
    last.field("limit").integer() - last.field("remaining").integer() - told.field("allowed").integer()
}

/// What a primary had admitted last its replica may not have heard of when it takes its place. Nothing of it is lost. What
/// the replica had heard of counts once in a log; other states know the last few by name only, and count the rest again.
#[test]
fn what_a_replica_had_not_heard_of_is_written_to_it() {
    /// For how long admissions are kept, in parts that are forgotten as a whole, and some for a busy machine.
    const KEPT: Duration = Duration::from_millis(2_000 + 250 + 250);
    let mut cluster = Cluster::start();
    let replaying = impatient(&cluster).start();
    let not_replaying = impatient(&cluster).env("TOLLGATE_REDIS__REPLAY_MS", "0").start();
    let keys = cluster.keys_on(0, 2 * WAYS.len());
    let replica = cluster.replicas_of(0)[0];
    let question =
        |(key, (way, _)): (&String, &(&str, bool))| Question::new(key, &[(1_000_000, 3_600_000)]).asking(way);
    let questions: Vec<_> = keys.iter().zip(WAYS.iter().cycle()).map(question).collect();
    let (done, both) = (Barrier::new(3), [&replaying, &not_replaying]);
    let (mut cut, mut killed) = (Instant::now(), Instant::now());
    let seen: Vec<_> = thread::scope(|scope| {
        let (done, questions) = (&done, &questions);
        let asking = [0, 1].map(|number| {
            let addr = both[number].addr();
            scope.spawn(move || {
                while_asking(&[addr], &questions[number * WAYS.len()..][..WAYS.len()], |progress| {
                    progress.wait_for(100);
                    done.wait();
                    done.wait();
                    progress.wait_for(20 * WAYS.len());
                })
            })
        });
        done.wait();
        cluster.stop(replica);
        cluster.lose_replicas(0);
        cut = Instant::now();
        thread::sleep(Duration::from_millis(500));
        killed = Instant::now();
        cluster.kill(0);
        cluster.cont(replica);
        cluster.wait_until_primary(replica);
        done.wait();
        asking.map(|seen| seen.join().unwrap()).into()
    });
    // What the fallback admitted is written back without being asked for.
    wait_until(PATIENCE, || both.iter().all(|tollgate| info(tollgate, "fallback_unwritten") == "0"));
    let allowed = |number: usize, way: usize| seen[number].to(way).filter(|sample| sample.decision.allowed);
    for (place, (way, knows_all)) in WAYS.iter().enumerate() {
        let missing = [0, 1].map(|number| {
            let key = &keys[number * WAYS.len() + place];
            allowed(number, place).count() as i64 - used(both[number], key, way)
        });
        // Kept, and known to the replica.
        let is_both = |sent: Instant| sent <= cut && sent + KEPT >= killed;
        let both = allowed(0, place).filter(|sample| is_both(sample.sent)).count() as i64;
        eprintln!("{way}: missing with replay: {}, of {both} kept and known; without: {}", missing[0], missing[1]);
        let least = if *knows_all { 0 } else { -both };
        assert!((least..=0).contains(&missing[0]), "{way}: {} are missing, of {both} kept and known", missing[0]);
        assert!(missing[1] > 0, "{way}: the replica had heard of everything: this says nothing");
    }
}
