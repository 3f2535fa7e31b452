//! The way to Redis: names with several addresses, of which some lead nowhere, and connections that end without a word.

use crate::common::{Certificates, Names, PATIENCE, RedisServer, Reply, Tollgate, encode, free_port, wait_until};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const NAME: &str = "redis.test";
/// Where the system looks first.
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Less than a connection may take to be made, by default.
const SOON: Duration = Duration::from_millis(700);

/// An address that leaves whoever connects waiting: its queue of connections to accept is full.
struct SilentAddress {
    _listener: Socket,
    _waiting: TcpStream,
}

impl SilentAddress {
    fn at(addr: SocketAddr) -> Self {
        let listener = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&addr.into()).unwrap();
        listener.listen(0).unwrap();
        let waiting = TcpStream::connect(addr).unwrap();
        let another = TcpStream::connect_timeout(&addr, Duration::from_millis(100));
        assert!(another.is_err(), "{addr} is not silent");
        Self { _listener: listener, _waiting: waiting }
    }
}

/// Clients' own connections and those that checks share are there soon, and stay.
#[track_caller]
fn assert_reached_soon(tollgate: &Tollgate) {
    wait_until(PATIENCE, || !tollgate.client().decide("RL.PEEK k 10 1h").degraded);
    for _ in 0..10 {
        let start = Instant::now();
        let mut client = tollgate.client();
        assert_eq!(client.line("GET k"), Reply::Nil);
        assert!(start.elapsed() < SOON, "{:?} for a new client's command", start.elapsed());
        assert!(!client.decide("RL.CHECK k 1000 1h").degraded);
    }
    assert!(!tollgate.log().concat().contains("down"), "{:#?}", tollgate.log());
}

/// The whole time for connecting went to the first address: every new client's command failed, and with three of them
/// the store was taken to be down.
#[test]
fn a_silent_address_does_not_take_the_time_of_the_others() {
    let Some(names) = Names::new() else { return };
    let mut redis = RedisServer::start();
    redis.kill();
    redis.start_again_at(SECOND);
    let _silent = SilentAddress::at((FIRST, redis.port()).into());
    names.point_to_all(NAME, &[FIRST, SECOND]);
    let tollgate = Tollgate::builder().arg("--redis").arg(&format!("{NAME}:{}", redis.port())).names(&names).start();
    assert_reached_soon(&tollgate);
    // The address that worked is now tried first.
    let start = Instant::now();
    assert_eq!(tollgate.client().line("GET k"), Reply::Nil);
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
}

/// The same, where somebody accepts and then says nothing: the TLS handshake is part of the attempt.
#[test]
fn an_address_that_is_silent_in_tls_does_not_take_the_time_of_the_others() {
    let Some(names) = Names::new() else { return };
    let certificates = Certificates::new();
    let path = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let port = free_port();
    let options = format!(
        "--tls-port {port} --tls-auth-clients no --tls-ca-cert-file {} --tls-cert-file {} --tls-key-file {}",
        path("ca.crt"),
        path("server.crt"),
        path("server.key")
    );
    let options: Vec<_> = options.split(' ').collect();
    let mut redis = RedisServer::start_with(&options);
    redis.kill();
    redis.start_again_at(SECOND);
    let _mute = std::net::TcpListener::bind((FIRST, port)).unwrap();
    names.point_to_all("localhost", &[FIRST, SECOND]);
    let tollgate = Tollgate::builder()
        .arg("--redis")
        .arg(&format!("rediss://localhost:{port}"))
        .env("TOLLGATE_REDIS__CA_FILE", &path("ca.crt"))
        .names(&names)
        .start();
    assert_reached_soon(&tollgate);
}

/// An address that accepts and never answers was connected to again and again, while another would have served.
#[test]
fn an_address_that_accepts_and_never_answers_is_tried_last() {
    let Some(names) = Names::new() else { return };
    let mut redis = RedisServer::start();
    redis.kill();
    redis.start_again_at(SECOND);
    let _mute = std::net::TcpListener::bind((FIRST, redis.port())).unwrap();
    names.point_to_all(NAME, &[FIRST, SECOND]);
    let tollgate = Tollgate::builder()
        .arg("--redis")
        .arg(&format!("{NAME}:{}", redis.port()))
        .names(&names)
        .env("TOLLGATE_REDIS__CONNECT_TIMEOUT_MS", "200")
        .expect_log("redis")
        .start();
    wait_until(PATIENCE, || !tollgate.client().decide("RL.PEEK k 10 1h").degraded);
    assert_eq!(tollgate.client().line("GET k"), Reply::Nil);
}

/// Of each connection to `port` that the kernel knows in the network of the process: whether its timer is that of
/// keepalive, and when it rings, in hundredths of a second.
fn timers(port: u16) -> Vec<(bool, u64)> {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let to_port = rows.filter(|row| row[2].ends_with(&format!(":{port:04X}")) && row[3] == "01");
    to_port
        .map(|row| {
            let (kind, when) = row[5].split_once(':').unwrap();
            (kind == "02", u64::from_str_radix(when, 16).unwrap())
        })
        .collect()
}

/// Clients were guarded by keepalive and Redis was not: a subscriber whose packets to Redis were dropped silently waited
/// for ever.
#[test]
fn every_connection_to_redis_is_asked_for_a_sign_of_life() {
    let redis = RedisServer::start_with(&["--tcp-keepalive", "0"]);
    let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_SERVER__WORKERS", "1");
    let tollgate = builder.env("TOLLGATE_REDIS__TCP_KEEPALIVE", "100").start();
    let mut client = tollgate.client();
    assert_eq!(client.line("GET k"), Reply::Nil);
    // The one that checks share, the one for the news of resets, two for policies, and the client's own.
    wait_until(PATIENCE, || {
        let timers = timers(redis.port());
        let is_guarded = |(is_keepalive, when): &(bool, u64)| *is_keepalive && (5_000..=10_100).contains(when);
        timers.len() == 5 && timers.iter().all(is_guarded)
    });
}

/// What is sent and not taken is noticed too, and keepalive does not ask while something is on its way.
#[cfg(target_os = "linux")]
#[test]
fn a_redis_that_takes_nothing_any_more_is_given_up() {
    let redis = RedisServer::start();
    let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_REDIS__TCP_USER_TIMEOUT_MS", "500");
    let tollgate = builder.expect_log("redis").start();
    let mut client = tollgate.client();
    assert_eq!(client.line("GET k"), Reply::Nil);
    redis.stop();
    let mut writer = client.try_clone();
    let sender = std::thread::spawn(move || {
        let value = vec![b'x'; 64 * 1024];
        while writer.try_send(&encode(&[&b"SET"[..], b"k", &value])).is_ok() {}
    });
    client.read_to_end();
    sender.join().unwrap();
    redis.cont();
}
