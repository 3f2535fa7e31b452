//! Tollgates before a primary that sentinels watch.

use crate::common::load::{Question, Seen, while_asking};
use crate::common::{Builder, PATIENCE, Reply, Sentinels, Tollgate, info, wait_until};
use std::time::{Duration, Instant};

/// `redis.timeout_ms`. Longer than its default, as a Redis on a busy machine is not one that is lost.
const TIMEOUT: Duration = Duration::from_millis(500);
/// What a client may wait beyond the deadline on a busy machine, besides its own stalls.
const SLACK: Duration = Duration::from_millis(150);
/// Once the sentinels have agreed on a primary, all is exact again within that.
const FOUND_WITHIN: Duration = Duration::from_secs(4);

fn before(addr: &str) -> Builder {
    let builder = Tollgate::builder().arg("--redis").arg(addr).expect_log("redis");
    builder.env("TOLLGATE_REDIS__TIMEOUT_MS", &TIMEOUT.as_millis().to_string())
}

/// One that is denied most of the time, and one whose whole history stays.
fn questions() -> [Question; 2] {
    [Question::new("tight", &[(40, 400)]), Question::new("all", &[(1_000_000, 3_600_000)])]
}

/// What clients see of a switch from one primary to another, which `act` makes.
#[track_caller]
fn switch(what: &str, tollgate: &Tollgate, act: impl FnOnce()) -> Seen {
    let mut switched = Instant::now();
    let seen = while_asking(&[tollgate.addr()], &questions(), |progress| {
        act();
        switched = Instant::now();
        progress.wait_for(100);
    });
    let (waited, longest) = (seen.longest_wait(0).max(seen.longest_wait(1)), TIMEOUT + SLACK + 2 * seen.stall);
    let recovery = seen.degraded_for(0, switched).max(seen.degraded_for(1, switched));
    eprintln!("{what}: longest wait {waited:?}, exact again after {recovery:?}, {} degraded", seen.all_degraded());
    seen.assert_exact_within_limits();
    seen.assert_busy(&[0]);
    assert!(waited <= longest, "{what}: a client waited {waited:?} of at most {longest:?}");
    assert!(recovery <= FOUND_WITHIN, "{what}: exact again only after {recovery:?}");
    seen
}

/// Fails when the primary's log lacks something that was admitted.
#[track_caller]
fn assert_whole(what: &str, group: &Sentinels, tollgate: &Tollgate, seen: &[&Seen]) {
    wait_until(PATIENCE, || info(tollgate, "fallback_unwritten") == "0");
    let log = group.server(group.primary().unwrap()).entries("rl:{all}:3600000");
    let counted: i64 = log.iter().map(|(_, weight)| weight).sum();
    let admitted: usize = seen.iter().map(|seen| seen.to(1).filter(|sample| sample.decision.allowed).count()).sum();
    assert_eq!(admitted as i64 - counted, 0, "{what}: missing");
}

#[test]
fn a_primary_that_is_replaced_is_followed() {
    let mut group = Sentinels::start();
    let tollgate = before(&group.url()).start();
    wait_until(PATIENCE, || tollgate.client().line("SET before 1") == Reply::Status("OK".to_owned()));
    // A sentinel that was away meanwhile names the last one for a while, as that does itself.
    group.stop_sentinel(0);
    let mut second = 0;
    let by_command = switch("failover by command", &tollgate, || {
        second = group.failover();
        group.cont_sentinel(0);
    });
    assert_whole("by command", &group, &tollgate, &[&by_command]);
    let port = format!(":{},", group.server(second).port());
    assert!(info(&tollgate, "node0").contains(&port), "{}", info(&tollgate, "node0"));
    assert_eq!(info(&tollgate, "topology"), "sentinel");
    // Other commands go to the new one too, also those of a client that was connected before.
    wait_until(PATIENCE, || {
        let mut client = tollgate.client();
        client.line("SET after 1") == Reply::Status("OK".to_owned())
    });
    assert_eq!(group.server(second).command("GET after").text(), "1");

    group.wait_until_agreed();
    let by_kill = switch("failover by kill", &tollgate, || {
        group.kill(second);
        group.wait_until_replaced(second);
    });
    assert!(by_kill.all_degraded() > 0);
    assert_whole("by kill", &group, &tollgate, &[&by_command, &by_kill]);
}

/// Whose state was the last primary's is told as Redis tells it: the connection ends. Nobody else need notice.
#[test]
fn clients_that_are_connected_follow() {
    let group = Sentinels::start();
    let tollgate = before(&group.url()).start();
    let (mut idle, mut subscribed, mut watching) = (tollgate.client(), tollgate.client(), tollgate.client());
    wait_until(PATIENCE, || idle.line("SET before 1") == Reply::Status("OK".to_owned()));
    assert_eq!(subscribed.line("SUBSCRIBE news").items().len(), 3);
    assert_eq!(watching.line("WATCH k"), Reply::Status("OK".to_owned()));
    let second = group.failover();
    assert_eq!(subscribed.read_to_end(), b"");
    assert_eq!(watching.read_to_end(), b"");
    // Until the switch is heard of, the last primary says that it takes no writes.
    wait_until(PATIENCE, || idle.line("SET after 1") == Reply::Status("OK".to_owned()));
    assert_eq!(group.server(second).command("GET after").text(), "1");
}

#[test]
fn one_sentinel_is_enough_and_is_taken_for_what_it_is() {
    let mut group = Sentinels::start();
    group.stop_sentinel(0);
    group.stop_sentinel(1);
    let last = group.addrs()[2].to_string();
    for addr in [group.url(), last] {
        let tollgate = before(&addr).start();
        wait_until(PATIENCE, || info(&tollgate, "topology") == "sentinel");
        wait_until(PATIENCE, || !tollgate.client().decide("RL.CHECK k 1000 1h").degraded);
        assert_eq!(tollgate.client().line("GET nothing"), Reply::Nil);
    }
    assert!(group.server(0).keys().contains(&b"rl:{k}:3600000".to_vec()));
    group.cont_sentinel(0);
    group.cont_sentinel(1);
}

#[test]
fn sentinels_and_the_primary_have_passwords_of_their_own() {
    let mut group = Sentinels::start();
    group.set_password("s3cret");
    let tollgate = before(&format!("{}?sentinel_password=s3cret", group.url())).start();
    wait_until(PATIENCE, || !tollgate.client().decide("RL.CHECK k 1000 1h").degraded);
    assert!(!tollgate.log().concat().contains("s3cret"));
    let wrong = before(&format!("{}?sentinel_password=wr0ng", group.url())).start();
    wait_until(PATIENCE, || info(&wrong, "store_up") == "0");
    assert!(wrong.client().decide("RL.CHECK k 1000 1h").degraded);
    assert!(info(&wrong, "store_last_error").contains("WRONGPASS"), "{}", info(&wrong, "store_last_error"));
    assert!(!wrong.log().concat().contains("wr0ng"));
}
