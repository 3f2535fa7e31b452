//! A Tollgate that is its own Redis, or one of several that are each other's: a mistake of configuration that was a storm
//! of connections, each of which opened another. And one that stands before another and a Redis, which works.

use crate::common::{Names, PATIENCE, RawClient, RedisServer, Reply, Tollgate, free_port, program, wait_until};
use std::time::{Duration, Instant};

/// How long connections are counted, and how many each Tollgate may get meanwhile. It is asked anew after 100 ms, and then
/// ever more seldom; each is asked by one other, which has two workers.
const WATCHED: Duration = Duration::from_secs(2);
const MAX_CONNECTIONS: u64 = 60;

/// One of a ring, which listens on a port of these and has the next one as its Redis.
fn member(ports: &[u16], at: usize) -> Tollgate {
    let next = ports[(at + 1) % ports.len()];
    Tollgate::builder()
        .arg("--listen")
        .arg(&format!("127.0.0.1:{}", ports[at]))
        .arg("--redis")
        .arg(&format!("127.0.0.1:{next}"))
        .env("TOLLGATE_SERVER__WORKERS", "2")
        .expect_log("redis")
        .start()
}

#[track_caller]
fn told(client: &mut RawClient, name: &str) -> String {
    let info = client.line("INFO tollgate").text();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {info}")).to_owned()
}

/// Clients ask again and again, on connections that they have: no Tollgate gets more than a few connections from it.
#[track_caller]
fn assert_calm(tollgates: &[Tollgate]) {
    let mut clients: Vec<_> = tollgates.iter().map(Tollgate::client).collect();
    let connections = |client: &mut RawClient| told(client, "total_connections").parse::<u64>().unwrap();
    let until = Instant::now() + WATCHED;
    wait_until(PATIENCE, || {
        for client in &mut clients {
            assert!(matches!(client.line("GET k"), Reply::Error(_)));
            assert!(client.decide("RL.CHECK k 1000 1h").degraded);
        }
        Instant::now() > until
    });
    for client in &mut clients {
        let connections = connections(client);
        assert!(connections < MAX_CONNECTIONS, "{connections} connections");
    }
}

#[test]
fn its_own_address_is_refused_at_the_start() {
    for (listen, redis) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("0.0.0.0", "127.0.0.1")] {
        let port = free_port();
        let (listen, redis) = (format!("{listen}:{port}"), format!("{redis}:{port}"));
        let output = program().args(["--listen", &listen, "--redis", &redis]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("redis.addr leads to this Tollgate itself"), "{said}");
    }
}

#[test]
fn a_name_that_leads_to_itself_is_no_storm() {
    let Some(names) = Names::new() else { return };
    let port = free_port();
    names.point("redis.test", [127, 0, 0, 1].into());
    let tollgate = Tollgate::builder()
        .arg("--listen")
        .arg(&format!("127.0.0.1:{port}"))
        .arg("--redis")
        .arg(&format!("redis.test:{port}"))
        .names(&names)
        .expect_log("redis")
        .start();
    assert_calm(&[tollgate]);
}

/// The address is not one that it listens on, so only the answer shows who is there.
#[test]
fn a_way_around_that_leads_to_itself_is_no_storm() {
    let port = free_port();
    let around = crate::common::Proxy::before(([127, 0, 0, 1], port).into());
    let builder = Tollgate::builder().arg("--listen").arg(&format!("127.0.0.1:{port}"));
    let tollgate = builder.arg("--redis").arg(&around.addr().to_string()).expect_log("redis").start();
    let mut client = tollgate.client();
    wait_until(PATIENCE, || told(&mut client, "store_problem") == "redis.addr leads to this Tollgate itself");
    assert_calm(&[tollgate]);
}

#[test]
fn rings_of_two_and_three_are_no_storm() {
    for size in [2, 3] {
        let ports: Vec<u16> = (0..size).map(|_| free_port()).collect();
        let ring: Vec<Tollgate> = (0..size).map(|at| member(&ports, at)).collect();
        assert_calm(&ring);
        for tollgate in &ring {
            let problem = told(&mut tollgate.client(), "store_problem");
            assert_eq!(problem, "it is another Tollgate, which has no Redis itself");
        }
    }
}

#[test]
fn a_tollgate_before_another_works_with_a_warning() {
    let mut redis = RedisServer::start();
    let inner = Tollgate::builder().redis(&redis).expect_log("redis").start();
    assert!(!inner.client().decide("RL.CHECK k 1000 1h").degraded);
    let outer = Tollgate::builder().arg("--redis").arg(&inner.addr().to_string()).expect_log("redis").start();
    let mut client = outer.client();
    wait_until(PATIENCE, || !client.decide("RL.CHECK k 1000 1h").degraded);
    assert_eq!(client.line("SET a b"), Reply::Status("OK".into()));
    let run_id = told(&mut inner.client(), "tollgate_run_id");
    assert_eq!(told(&mut client, "store_chain"), format!("{run_id},redis"));
    assert_eq!(told(&mut inner.client(), "store_chain"), "redis");
    assert_eq!(told(&mut client, "store_problem"), "redis.addr leads to another Tollgate, and only by it to Redis");
    redis.kill();
    wait_until(PATIENCE, || client.decide("RL.CHECK k 1000 1h").degraded);
    redis.start_again();
    wait_until(PATIENCE, || !client.decide("RL.CHECK k 1000 1h").degraded);
}

#[test]
fn an_embedded_tollgate_is_no_redis() {
    let embedded = Tollgate::embedded();
    let tollgate = Tollgate::builder().arg("--redis").arg(&embedded.addr().to_string()).expect_log("redis").start();
    let mut client = tollgate.client();
    wait_until(PATIENCE, || told(&mut client, "store_problem").contains("--embedded"));
    assert!(client.decide("RL.CHECK k 1000 1h").degraded);
}
