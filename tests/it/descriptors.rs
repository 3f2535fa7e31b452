//! File descriptors: there are enough where the system allows it, and running out of them is no failure of Redis's.

use crate::common::{PATIENCE, RawClient, RedisServer, Tollgate, wait_until};
use std::time::{Duration, Instant};

fn lines<'a>(log: &'a [String], text: &str) -> Vec<&'a String> {
    log.iter().filter(|line| line.contains(text)).collect()
}

#[test]
fn as_many_are_had_as_clients_need() {
    let redis = RedisServer::start();
    let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_SERVER__WORKERS", "1");
    let tollgate = builder.env("TOLLGATE_SERVER__MAX_CLIENTS", "900").soft_descriptors(200).start();
    assert_eq!(tollgate.soft_descriptors(), 2 * 900 + 64 + 8);
    assert!(lines(&tollgate.log(), "too few file descriptors").is_empty());
}

#[test]
fn too_few_are_told_at_the_start() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_SERVER__WORKERS", "1").descriptors(100).start();
    let log = tollgate.log();
    let [line] = lines(&log, "too few file descriptors")[..] else { panic!("{log:#?}") };
    assert!(line.contains("needed=10072 allowed=100 max_clients=10000"), "{line}");
    let embedded = Tollgate::builder().arg("--embedded").env("TOLLGATE_SERVER__MAX_CLIENTS", "10").descriptors(100);
    assert!(lines(&embedded.start().log(), "too few file descriptors").is_empty());
}

/// Each client that could not be accepted was a line of log, ten times a second.
#[test]
fn running_out_is_told_once_and_leaves_the_store_alone() {
    let redis = RedisServer::start();
    let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_SERVER__WORKERS", "1").descriptors(60);
    let tollgate = builder.expect_log("cannot accept clients").start();
    let mut first = tollgate.client();
    assert!(!first.decide("RL.CHECK k 1000 1h").degraded);
    // The kernel takes them all; Tollgate does not.
    let crowd: Vec<RawClient> = (0..100).map(|_| tollgate.client()).collect();
    wait_until(PATIENCE, || !lines(&tollgate.log(), "cannot accept clients").is_empty());
    let until = Instant::now() + Duration::from_millis(500);
    wait_until(PATIENCE, || {
        assert!(!first.decide("RL.CHECK k 1000 1h").degraded);
        Instant::now() > until
    });
    let log = tollgate.log();
    let [line] = lines(&log, "cannot accept clients")[..] else { panic!("{log:#?}") };
    assert!(line.contains("times=1") && line.contains("Too many open files"), "{line}");
    drop(crowd);
    wait_until(PATIENCE, || !tollgate.client().decide("RL.CHECK k 1000 1h").degraded);
}
