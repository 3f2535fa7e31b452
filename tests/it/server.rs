//! The process: its start, what it says of itself, and its end.

use crate::common::{
    PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, free_port, program, tell_ignored, wait_until,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn the_start_line_says_what_it_listens_on_and_what_is_behind() {
    let redis = RedisServer::start();
    for (tollgate, behind) in [
        (Tollgate::embedded(), "embedded".to_owned()),
        (Tollgate::before(&redis), format!("127.0.0.1:{}", redis.port())),
    ] {
        let log = tollgate.log();
        let lines: Vec<&String> = log.iter().filter(|line| line.contains("listening")).collect();
        let [line] = lines[..] else { panic!("{log:#?}") };
        assert!(line.contains(&format!("addr={}", tollgate.addr())) && line.contains(&behind), "{line}");
        assert!(!line.contains('\u{1b}'), "colours in a log that no terminal shows: {line}");
    }
}

#[test]
fn a_variable_that_looks_like_a_setting_is_a_line_of_the_log() {
    let tollgate = Tollgate::builder().arg("--embedded").env("TOLLGATE_WORKERS", "3").expect_log("is not read").start();
    let log = tollgate.log();
    let said = "TOLLGATE_WORKERS is not read: did you mean TOLLGATE_SERVER__WORKERS?";
    assert!(log.iter().any(|line| line.contains(" WARN ") && line.contains(said)), "{log:#?}");
}

#[test]
fn a_port_alone_may_be_of_one_interface_or_of_all() {
    let port = free_port();
    let tollgate = Tollgate::builder().arg("--embedded").arg("--listen").arg(&port.to_string()).start();
    assert_eq!(tollgate.addr(), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    drop(tollgate);

    let port = free_port();
    let tollgate = Tollgate::builder().arg("--embedded").arg("--listen").arg(&format!(":{port}")).start();
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has_ipv6 {
        tell_ignored("all interfaces, IPv6: this machine has none");
    }
    let ips: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for ip in ips.into_iter().take(if has_ipv6 { 2 } else { 1 }) {
        assert_eq!(RawClient::connect((ip, port).into()).line("PING"), Reply::Status("PONG".into()), "{ip}");
    }
    drop(tollgate);
}

#[test]
fn an_address_in_use_is_said_and_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = program().args(["--embedded", "--listen", &addr]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&addr) && said.to_lowercase().contains("in use"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn two_programs_cannot_share_an_address() {
    let first = Tollgate::embedded();
    let addr = first.addr().to_string();
    let mut second = program().args(["--embedded", "--listen", &addr]).spawn().unwrap();
    let mut status = None;
    wait_until(PATIENCE, || {
        status = second.try_wait().unwrap();
        status.is_some() || RawClient::connect(first.addr()).line("PING") != Reply::Status("PONG".into())
    });
    assert_eq!(status.and_then(|status| status.code()), Some(1));
}

#[test]
fn a_signal_ends_it_well_with_idle_clients_connected() {
    for signal in ["-TERM", "-INT"] {
        let mut tollgate = Tollgate::embedded();
        let mut clients: Vec<RawClient> = (0..100).map(|_| tollgate.client()).collect();
        for client in &mut clients {
            assert_eq!(client.line("PING"), Reply::Status("PONG".into()));
        }
        // Half a request is not a request.
        clients[0].send(b"*1\r\n$4\r\nPI");
        let start = Instant::now();
        tollgate.signal(signal);
        assert!(tollgate.wait_for_exit().success());
        assert!(start.elapsed() < Duration::from_secs(2), "idle clients held it for {:?}", start.elapsed());
        for client in &mut clients {
            assert_eq!(client.read_to_end(), b"");
        }
        assert!(TcpStream::connect(tollgate.addr()).is_err(), "it still accepts");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for [first, second] in [["-TERM", "-INT"], ["-INT", "-INT"], ["-TERM", "-TERM"]] {
        let redis = RedisServer::start();
        let mut tollgate = Tollgate::builder()
            .redis(&redis)
            .env("TOLLGATE_REDIS__TIMEOUT_MS", "60000")
            .env("TOLLGATE_SHUTDOWN__GRACE_MS", "600000")
            .expect_log("stopped at once")
            .start();
        let mut client = tollgate.client();
        assert!(client.decide("RL.CHECK k 10 1h").allowed);
        redis.stop();
        client.send(&[encode(&["RL.CHECK"]), encode(&["RL.CHECK", "k", "10", "1h"])].concat());
        assert!(matches!(client.read(), Reply::Error(_)));
        let start = Instant::now();
        tollgate.signal(first);
        wait_until(PATIENCE, || tollgate.log().iter().any(|line| line.contains("stopping")));
        tollgate.signal(second);
        assert_eq!(tollgate.wait_for_exit().code(), Some(1));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        wait_until(PATIENCE, || tollgate.log().iter().any(|line| line.contains("stopped at once")));
    }
}

/// SIGUSR1 and SIGUSR2 used to end it, as they end whoever does not listen for them.
#[test]
fn signals_that_mean_nothing_to_it_do_no_harm() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    tollgate.signal("-PIPE");
    for (signal, said) in [("-HUP", "nothing to reload"), ("-USR1", "nothing is bound"), ("-USR2", "nothing is bound")]
    {
        tollgate.signal(signal);
        let name = format!("SIG{}", &signal[1..]);
        wait_until(PATIENCE, || tollgate.log().iter().any(|line| line.contains(said) && line.contains(&name)));
        assert_eq!(client.line("PING"), Reply::Status("PONG".into()));
    }
}

#[test]
fn what_was_received_is_answered_before_the_end() {
    let redis = RedisServer::start();
    let mut tollgate = Tollgate::builder().redis(&redis).start();
    let mut client = tollgate.client();
    assert!(client.decide("RL.CHECK k 1000 1h").allowed);
    // Redis hangs, so the checks stay unanswered. The error in front, which needs no Redis, shows that they were read.
    redis.stop();
    client.send(&[encode(&["RL.CHECK"]), encode(&["RL.CHECK", "k", "1000", "1h"]).repeat(100)].concat());
    assert!(matches!(client.read(), Reply::Error(_)));
    tollgate.signal("-TERM");
    wait_until(PATIENCE, || TcpStream::connect(tollgate.addr()).is_err());
    redis.cont();
    for remaining in (899..999).rev() {
        assert_eq!(client.read().decision().remaining, remaining);
    }
    assert_eq!(client.read_to_end(), b"");
    assert!(tollgate.wait_for_exit().success());
}

#[test]
fn a_client_that_does_not_read_holds_the_end_no_longer_than_the_grace() {
    let mut tollgate =
        Tollgate::builder().arg("--embedded").env("TOLLGATE_SHUTDOWN__GRACE_MS", "300").expect_log("grace").start();
    let mut client = tollgate.client();
    let mut writer = client.try_clone();
    let sender = std::thread::spawn(move || while writer.try_send(&encode(&["RL.HELP"]).repeat(1000)).is_ok() {});
    assert!(matches!(client.read(), Reply::Array(_)));
    let start = Instant::now();
    tollgate.signal("-TERM");
    assert!(tollgate.wait_for_exit().success());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    drop(client);
    sender.join().unwrap();
}

#[test]
fn a_client_that_never_reads_is_held_up_before_it_takes_all_memory() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    client.give_up_after(Duration::from_secs(1));
    let requests = encode(&["RL.HELP"]).repeat(1000);
    let mut sent = 0;
    while client.try_send(&requests).is_ok() {
        sent += requests.len();
        assert!(sent < 1 << 30, "{sent} bytes of requests were taken, and no reply was read");
    }
    assert_eq!(tollgate.client().line("PING"), Reply::Status("PONG".into()));
    wait_until(PATIENCE, || tollgate.resident_bytes() < 100 * 1024 * 1024);
}

#[test]
fn a_thousand_clients_come_and_go() {
    let tollgate = Tollgate::embedded();
    for _ in 0..10 {
        let mut clients: Vec<RawClient> = (0..100).map(|_| tollgate.client()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            assert!(client.decide(&format!("RL.CHECK key{index} 100 1h")).allowed);
        }
    }
    let info = tollgate.client().line("INFO").text();
    assert!(info.contains("connected_clients:"), "{info}");
    wait_until(PATIENCE, || tollgate.client().line("INFO").text().contains("connected_clients:1\r\n"));
}
