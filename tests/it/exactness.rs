//! Never more than the limit in any interval of one window's length, and nearly all of what is possible, when many
//! connections ask at once for the same key.
//!
//! What was admitted when is known in two ways. Clients know it within their own round trip: a request was admitted
//! after it was sent and before its answer was received, so the k-th admission happened after the k-th smallest time
//! of sending and before the k-th smallest time of receipt. Redis knows it exactly: where a check also names a
//! window of an hour, that window's log is the whole history, by the one clock that decides.

use crate::common::load::assert_log_within_limit;
use crate::common::{RawClient, RedisServer, Reply, Tollgate};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 64;

/// An admitted request, as its client saw it.
#[derive(Clone, Copy)]
pub struct Admission {
    pub sent: Instant,
    pub received: Instant,
    pub cost: i64,
}

/// Asks from many connections at once, spread over `addrs`, for so long, again as soon as an answer is there. The
/// connections take turns at `requests`, which are pairs of a request and its cost.
pub fn hammer(addrs: &[SocketAddr], requests: &[(&str, i64)], duration: Duration) -> Vec<Admission> {
    let mut clients: Vec<RawClient> =
        addrs.iter().cycle().take(CONNECTIONS).map(|addr| RawClient::connect(*addr)).collect();
    let end = Instant::now() + duration;
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .zip(requests.iter().cycle())
            .map(|(client, (request, cost))| {
                scope.spawn(move || {
                    let mut admitted = Vec::new();
                    while Instant::now() < end {
                        let sent = Instant::now();
                        let decision = client.decide(request);
                        assert!(!decision.degraded, "Redis was not asked");
                        if decision.allowed {
                            admitted.push(Admission { sent, received: Instant::now(), cost: *cost });
                        }
                    }
                    admitted
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Fails when more than `limit` were certainly admitted within one window. `cost` is each admission's.
#[track_caller]
pub fn assert_within_limit(admitted: &[Admission], limit: usize, cost: i64, window: Duration) {
    let per_window = limit / cost as usize;
    let mut sent: Vec<Instant> = admitted.iter().map(|admission| admission.sent).collect();
    let mut received: Vec<Instant> = admitted.iter().map(|admission| admission.received).collect();
    sent.sort();
    received.sort();
    for (first, over) in sent.iter().zip(received.iter().skip(per_window)) {
        assert!(*over - *first >= window, "{} of at most {per_window} within {:?}", per_window + 1, *over - *first);
    }
}

/// Fails when less than 95 % of what `limit` allows was admitted. Windows begun and not ended count whole.
#[track_caller]
pub fn assert_nearly_all(admitted: &[Admission], limit: i64, window: Duration, duration: Duration) {
    let windows = (duration.as_micros() / window.as_micros()) as i64 + 1;
    let cost: i64 = admitted.iter().map(|admission| admission.cost).sum();
    assert!(cost * 100 >= limit * windows * 95, "only {cost} of {limit} in each of {windows} windows");
}

#[test]
fn two_proxies_share_one_exact_window() {
    const WINDOW: Duration = Duration::from_millis(250);
    const DURATION: Duration = Duration::from_millis(1900);
    let redis = RedisServer::start();
    let proxies = [Tollgate::before(&redis), Tollgate::before(&redis)];
    let admitted = hammer(&proxies.each_ref().map(Tollgate::addr), &[("RL.CHECK k 100 250ms", 1)], DURATION);
    assert_within_limit(&admitted, 100, 1, WINDOW);
    assert_nearly_all(&admitted, 100, WINDOW, DURATION);
}

/// In any time t at most burst + rate x t.
#[test]
fn three_proxies_share_one_burst_and_rate() {
    const BURST: usize = 20;
    const PER_SECOND: f64 = 400.0;
    const DURATION: Duration = Duration::from_millis(1900);
    let redis = RedisServer::start();
    let proxies = [(); 3].map(|()| Tollgate::before(&redis));
    let requests = [("RL.CHECK k 100 250ms BY gcra BURST 20", 1)];
    let admitted = hammer(&proxies.each_ref().map(Tollgate::addr), &requests, DURATION);
    let mut sent: Vec<Instant> = admitted.iter().map(|admission| admission.sent).collect();
    let mut received: Vec<Instant> = admitted.iter().map(|admission| admission.received).collect();
    sent.sort();
    received.sort();
    for (first, from) in sent.iter().enumerate() {
        for (last, to) in received.iter().enumerate().skip(first + BURST) {
            let most = BURST as f64 + PER_SECOND * to.saturating_duration_since(*from).as_secs_f64();
            assert!((last - first + 1) as f64 <= most, "{} within {:?}", last - first + 1, *to - *from);
        }
    }
    let due = BURST as f64 + PER_SECOND * DURATION.as_secs_f64();
    assert!(admitted.len() as f64 >= 0.9 * due, "only {} of {due}", admitted.len());
}

#[test]
fn the_history_in_redis_holds_no_interval_above_a_limit() {
    const DURATION: Duration = Duration::from_millis(1900);
    let redis = RedisServer::start();
    let proxies = [Tollgate::before(&redis), Tollgate::before(&redis)];
    let requests = [("RL.CHECK k 40 100ms 100 500ms 1000000 1h", 1)];
    let admitted = hammer(&proxies.each_ref().map(Tollgate::addr), &requests, DURATION);
    assert_nearly_all(&admitted, 100, Duration::from_millis(500), DURATION);
    let log = redis.entries("rl:{k}:3600000");
    assert_log_within_limit(&log, 40, 100);
    assert_log_within_limit(&log, 100, 500);
    let logged: i64 = log.iter().map(|(_, weight)| weight).sum();
    assert_eq!(logged, admitted.len() as i64, "what was admitted is what was counted");
}

#[test]
fn costs_of_any_size_share_one_exact_window() {
    const WINDOW: Duration = Duration::from_millis(250);
    const DURATION: Duration = Duration::from_millis(1900);
    let redis = RedisServer::start();
    let proxies = [Tollgate::before(&redis), Tollgate::before(&redis)];
    let requests = [
        ("RL.CHECK k 300 250ms 1000000 1h", 1),
        ("RL.CHECK k 300 250ms 1000000 1h COST 3", 3),
        ("RL.CHECK k 300 250ms 1000000 1h COST 10", 10),
    ];
    let admitted = hammer(&proxies.each_ref().map(Tollgate::addr), &requests, DURATION);
    assert_nearly_all(&admitted, 300, WINDOW, DURATION);
    let log = redis.entries("rl:{k}:3600000");
    assert_log_within_limit(&log, 300, 250);
    let logged: i64 = log.iter().map(|(_, weight)| weight).sum();
    assert_eq!(logged, admitted.iter().map(|admission| admission.cost).sum::<i64>());
}

#[test]
fn the_embedded_window_is_exact() {
    const WINDOW: Duration = Duration::from_millis(250);
    const DURATION: Duration = Duration::from_millis(1900);
    let tollgate = Tollgate::embedded();
    let admitted = hammer(&[tollgate.addr()], &[("RL.CHECK k 100 250ms", 1)], DURATION);
    assert_within_limit(&admitted, 100, 1, WINDOW);
    assert_nearly_all(&admitted, 100, WINDOW, DURATION);
}

#[test]
fn embedded_costs_and_windows_are_exact() {
    const DURATION: Duration = Duration::from_millis(1900);
    let tollgate = Tollgate::embedded();
    let requests = [("RL.CHECK k 200 100ms 500 500ms COST 5", 5)];
    let admitted = hammer(&[tollgate.addr()], &requests, DURATION);
    assert_within_limit(&admitted, 200, 5, Duration::from_millis(100));
    assert_within_limit(&admitted, 500, 5, Duration::from_millis(500));
    assert_nearly_all(&admitted, 500, Duration::from_millis(500), DURATION);
}

/// A limit that is never reached at the end of a window, but hit by thousands at once at its begin.
#[test]
fn a_burst_of_pipelines_is_admitted_to_the_limit_exactly() {
    let redis = RedisServer::start();
    let before_redis = [Tollgate::before(&redis), Tollgate::before(&redis)];
    let embedded = [Tollgate::embedded()];
    for proxies in [&before_redis[..], &embedded] {
        let allowed: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS)
                .map(|index| {
                    let mut client = proxies[index % proxies.len()].client();
                    scope.spawn(move || {
                        client.send("RL.CHECK k 1000 1h\r\n".repeat(50).as_bytes());
                        (0..50).filter(|_| client.read().decision().allowed).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 1000);
        let left = proxies[0].client().line("RL.PEEK k 1001 1h");
        let limit_of_one_more = [1, 1001, 0, 0].map(Reply::Integer);
        assert_eq!(left.items()[..4], limit_of_one_more);
    }
}

/// A run of the script that knows that the log lives long enough does not look.
#[test]
fn a_log_outlives_every_entry_though_few_runs_look_to_it() {
    // How much longer than its newest entry counts the log lives: ms, rounded down twice.
    const SPARE: &str = "local newest = -redis.call('ZRANGE', KEYS[1], '0', '0', 'WITHSCORES')[2] \
                         local time = redis.call('TIME') \
                         local counts_ms = (newest + 1000000 - time[1] * 1000000 - time[2]) / 1000 \
                         return math.floor(redis.call('PTTL', KEYS[1]) - counts_ms)";
    const WINDOW: Duration = Duration::from_secs(1);
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let (mut client, mut control) = (tollgate.client(), redis.client());
    let (start, mut checks, mut deleted) = (Instant::now(), 0, false);
    while start.elapsed() < WINDOW * 5 / 2 {
        // Behind Tollgate's back, soon after a run has looked: the next log has no end, unless that run looks too.
        if !deleted && start.elapsed() > WINDOW {
            assert_eq!(control.line("DEL rl:{k}:1000"), Reply::Integer(1));
            deleted = true;
        }
        assert!(client.decide("RL.CHECK k 1000000 1s").allowed);
        checks += 1;
        let spare_ms = control.cmd(&["EVAL", SPARE, "1", "rl:{k}:1000"]).integer();
        assert!(spare_ms >= -1, "the log ends {} ms before its newest entry", -spare_ms);
    }
    let stats = control.line("INFO commandstats").text();
    let calls =
        stats.lines().find_map(|line| line.strip_prefix("cmdstat_pttl:calls=")?.split(',').next()?.parse().ok());
    let looks: i64 = calls.unwrap_or(0) - checks;
    assert!((1..=checks * 3 / 4).contains(&looks), "{looks} of {checks} checks looked how long the log lives");
}
