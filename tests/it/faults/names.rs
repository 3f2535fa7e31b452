//! Redis is known by a name, and the name stops resolving: DNS says at once that there is nobody, or says nothing.

use super::*;
use crate::common::Names;
use std::net::{IpAddr, Ipv4Addr};

const NAME: &str = "redis.test";
/// Where Redis goes in a failover. It has been at 127.0.0.1.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Threads that may wait for names at once. A name is looked for by each worker before the breaker opens, and then by
/// one probe or another and for the news of resets, each a second or more after the one before; what hears nothing
/// gives up after ten seconds.
const MAX_LOOKUPS: usize = 20;

/// A Redis that keeps its log, and a Tollgate that knows it by name.
fn redis_by_name(names: &Names) -> (RedisServer, Tollgate) {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    names.point(NAME, redis.addr().ip());
    let tollgate = builder_before(&format!("{NAME}:{}", redis.port())).names(names).start();
    (redis, tollgate)
}

/// What connections there are stay where they are, so that they have to be killed for the name to matter.
fn lose_connections(redis: &RedisServer) {
    redis.command("CLIENT KILL TYPE normal");
    redis.command("CLIENT KILL TYPE pubsub");
}

/// Lets the fault last, and fails when ever more threads wait for names meanwhile.
#[track_caller]
fn last_with_few_threads(tollgate: &Tollgate, before: usize) {
    let end = Instant::now() + duration();
    while Instant::now() < end {
        let more = tollgate.threads().saturating_sub(before);
        assert!(more <= MAX_LOOKUPS, "{more} threads more than before");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn gone_while_redis_moves_to_another_address() {
    let Some(names) = Names::new() else { return };
    let (mut redis, tollgate) = redis_by_name(&names);
    let seen = under_load(&[tollgate.addr()], false, || {
        names.forget();
        redis.kill();
        redis.start_again_at(ELSEWHERE);
        thread::sleep(duration());
        names.point(NAME, ELSEWHERE);
    });
    Promise { fault: "name gone, Redis moved", over_admission: RATIO, may_degrade: true }.check(&seen);
    seen.assert_fallback_within_bound(tollgate.addr());
    assert_nothing_is_missing(&redis, &seen);
    assert_few_warnings(&tollgate);
}

#[test]
fn gone_while_connections_are_lost() {
    let Some(names) = Names::new() else { return };
    let (redis, tollgate) = redis_by_name(&names);
    outage("name gone, connections killed", &redis, &tollgate, || {
        names.forget();
        lose_connections(&redis);
        thread::sleep(duration());
        names.point(NAME, redis.addr().ip());
    });
}

#[test]
fn not_answered_for_while_redis_moves_to_another_address() {
    let Some(names) = Names::silent() else { return };
    let (mut redis, tollgate) = redis_by_name(&names);
    let threads = tollgate.threads();
    let seen = under_load(&[tollgate.addr()], false, || {
        names.forget();
        redis.kill();
        redis.start_again_at(ELSEWHERE);
        last_with_few_threads(&tollgate, threads);
        names.point(NAME, ELSEWHERE);
    });
    Promise { fault: "DNS silent, Redis moved", over_admission: RATIO, may_degrade: true }.check(&seen);
    seen.assert_fallback_within_bound(tollgate.addr());
    assert_nothing_is_missing(&redis, &seen);
    assert_few_warnings(&tollgate);
}

#[test]
fn not_answered_for_while_connections_are_lost() {
    let Some(names) = Names::silent() else { return };
    let (redis, tollgate) = redis_by_name(&names);
    let threads = tollgate.threads();
    outage("DNS silent, connections killed", &redis, &tollgate, || {
        names.forget();
        lose_connections(&redis);
        last_with_few_threads(&tollgate, threads);
        names.point(NAME, redis.addr().ip());
    });
}

/// A thread that waits for a name cannot be told to stop: the process must not wait for it.
#[test]
fn a_lookup_that_does_not_end_does_not_hold_up_the_exit() {
    const GRACE: Duration = Duration::from_millis(1000);
    let Some(names) = Names::silent() else { return };
    let builder = builder_before(&format!("{NAME}:6379")).names(&names);
    let mut tollgate = builder.env("TOLLGATE_SHUTDOWN__GRACE_MS", &GRACE.as_millis().to_string()).start();
    assert!(tollgate.client().decide("RL.CHECK k 10 1m").degraded);
    tollgate.signal("-TERM");
    let start = Instant::now();
    assert!(tollgate.wait_for_exit().success());
    let took = start.elapsed();
    assert!(took <= GRACE, "{took:?} until the end");
}

/// Each client that forwarded its first command looked for the name itself, in a thread that nothing can stop.
#[test]
fn clients_that_forward_do_not_keep_a_thread_each() {
    let Some(names) = Names::silent() else { return };
    let (_redis, tollgate) = redis_by_name(&names);
    assert!(!tollgate.client().decide("RL.CHECK k 1000 1h").degraded);
    let threads = tollgate.threads();
    names.forget();
    let mut clients: Vec<_> = (0..200).map(|_| tollgate.client()).collect();
    clients.iter_mut().for_each(|client| client.send(b"GET k\r\n"));
    for client in &mut clients {
        assert!(client.read().text().starts_with("LOADING "));
    }
    let more = tollgate.threads().saturating_sub(threads);
    assert!(more <= MAX_LOOKUPS, "{more} threads more than before");
}
