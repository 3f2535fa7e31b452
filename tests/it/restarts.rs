//! One Tollgate makes way for the next: what it is started with, how it ends, and that no client is turned away between.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, program, wait_until};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

fn pong() -> Reply {
    Reply::Status("PONG".into())
}

fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn address(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}

/// Clients that have connected and asked, and that nobody has accepted yet.
fn waiting_clients(addr: SocketAddr, count: usize) -> Vec<RawClient> {
    let mut clients: Vec<RawClient> = (0..count).map(|_| RawClient::connect(addr)).collect();
    for client in &mut clients {
        client.send(&encode(&["PING"]));
    }
    clients
}

#[test]
fn who_comes_between_two_processes_waits_for_the_second() {
    let (first, second) = (any_port(), any_port());
    let both = format!("{},{}", address(&first), address(&second));
    let start = || {
        let builder = Tollgate::builder().arg("--embedded").arg("--listen").arg(&both);
        builder.inherits([("one", &first), ("two", &second)]).start()
    };
    let mut tollgate = start();
    wait_until(PATIENCE, || tollgate.log().iter().filter(|line| line.contains("inherited=true")).count() == 2);
    for _ in 0..3 {
        let mut idle = tollgate.client();
        assert_eq!(idle.line("PING"), pong());
        tollgate.signal("-STOP");
        // Not accepted by this process, unless it does so between two signals.
        let mut waiting = waiting_clients(first.local_addr().unwrap(), 20);
        waiting.extend(waiting_clients(second.local_addr().unwrap(), 20));
        tollgate.signal("-TERM");
        tollgate.signal("-CONT");
        assert!(tollgate.wait_for_exit().success());
        assert_eq!(idle.read_to_end(), b"");
        waiting.extend(waiting_clients(first.local_addr().unwrap(), 20));
        tollgate = start();
        for client in &mut waiting {
            assert_eq!(client.read(), pong());
        }
    }
}

#[test]
fn an_inherited_socket_may_be_named_after_the_key_whose_place_it_takes() {
    let (plain, secured) = (any_port(), any_port());
    let builder = Tollgate::builder().arg("--embedded").arg("--listen").arg("192.0.2.1:1");
    let tollgate = builder.inherits([("server.listen", &plain), ("server.listen", &secured)]).start();
    for listener in [&plain, &secured] {
        assert_eq!(RawClient::connect(listener.local_addr().unwrap()).line("PING"), pong());
    }
    drop(tollgate);
}

/// systemd's `ListenStream=6380` is one socket for IPv6 and IPv4, and `:6380` are two of ours.
#[test]
fn one_inherited_socket_may_serve_all_interfaces() {
    let Ok(both) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
        return crate::common::tell_ignored("this machine has no IPv6");
    };
    let (port, other) = (both.local_addr().unwrap().port(), any_port());
    let listen = format!(":{port},{}", address(&other));
    let builder = Tollgate::builder().arg("--embedded").arg("--listen").arg(&listen);
    let tollgate = builder.inherits([("both", &both), ("other", &other)]).start();
    let mut client = RawClient::connect(([127, 0, 0, 1], port).into());
    let info = client.line("CLIENT LIST").text();
    assert!(info.contains(" addr=127.0.0.1:"), "{info}");
    RawClient::connect(other.local_addr().unwrap()).line("PING");
    assert_eq!(tollgate.log().iter().filter(|line| line.contains("listening")).count(), 2);
}

/// How a program ends that is started with one socket, which listens, and these variables.
fn outcome(listen: &str, inherited: &TcpListener, variables: &str) -> Output {
    let program = program();
    let mut shell = Command::new("timeout");
    let script = format!("exec 3<&0 </dev/null; export {variables}; exec \"$0\" --embedded --listen {listen}");
    shell.args(["20", "sh", "-c", &script]).arg(program.get_program()).env_clear();
    shell.stdin(Stdio::from(OwnedFd::from(inherited.try_clone().unwrap())));
    shell.output().unwrap()
}

#[test]
fn an_inherited_socket_that_nobody_would_serve_keeps_it_from_its_start() {
    let inherited = any_port();
    let addr = address(&inherited);
    let here = "LISTEN_FDS=1 LISTEN_PID=$$";
    for (listen, variables, said) in [
        (
            "127.0.0.1:0",
            format!("{here} LISTEN_FDNAMES=web"),
            format!("socket 'web' listens on {addr}, which none of "),
        ),
        // Without the socket's own word, this would be told as an address that somebody else has.
        (&format!(":{}", inherited.local_addr().unwrap().port()), here.to_owned(), format!("listens on {addr}, which")),
        (&addr, "LISTEN_FDS=many LISTEN_PID=$$".to_owned(), "LISTEN_FDS must be a number from 0 to".to_owned()),
        (&addr, "LISTEN_FDS=2 LISTEN_PID=$$".to_owned(), "tells of a socket 4, which is not there".to_owned()),
        // Variables that were meant for a parent mean nothing: the address is taken.
        (&addr, "LISTEN_FDS=1 LISTEN_PID=1".to_owned(), format!("cannot listen on {addr}: Address already in use")),
    ] {
        let output = outcome(listen, &inherited, &variables);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variables}: {log}");
        assert!(log.contains(&said), "{variables}: {log}");
    }
}

#[test]
fn who_has_connected_before_the_end_is_served() {
    for _ in 0..10 {
        let mut tollgate = Tollgate::embedded();
        tollgate.signal("-STOP");
        let mut clients = waiting_clients(tollgate.addr(), 200);
        tollgate.signal("-TERM");
        tollgate.signal("-CONT");
        for client in &mut clients {
            assert_eq!(client.read_to_end(), b"+PONG\r\n");
        }
        assert!(tollgate.wait_for_exit().success());
    }
}

#[test]
fn a_new_program_takes_over_an_address_that_both_let_be_shared() {
    let shared = |addr: &str| {
        let builder = Tollgate::builder().arg("--embedded").arg("--listen").arg(addr);
        builder.env("TOLLGATE_SERVER__REUSE_PORT", "true").start()
    };
    let mut old = shared("127.0.0.1:0");
    let addr = old.addr();
    let new = shared(&addr.to_string());
    old.signal("-TERM");
    assert!(old.wait_for_exit().success());
    for mut client in waiting_clients(new.addr(), 50) {
        assert_eq!(client.read(), pong());
    }
}

#[test]
fn an_end_that_is_delayed_is_told_and_serves_meanwhile() {
    let delayed = |delay_ms| Tollgate::builder().arg("--embedded").env("TOLLGATE_SHUTDOWN__DELAY_MS", delay_ms);
    let phase = |client: &mut RawClient| {
        let info = client.line("INFO tollgate").text();
        info.lines().find_map(|line| line.strip_prefix("phase:")).unwrap().to_owned()
    };

    let mut tollgate = delayed("600000").expect_log("stopped at once").start();
    let mut stays = tollgate.client();
    assert_eq!(phase(&mut stays), "serving");
    tollgate.signal("-TERM");
    wait_until(PATIENCE, || phase(&mut stays) == "draining");
    assert_eq!(tollgate.client().line("PING"), pong());
    tollgate.signal("-TERM");
    assert_eq!(tollgate.wait_for_exit().code(), Some(1));

    let mut tollgate = delayed("1").start();
    tollgate.signal("-TERM");
    assert!(tollgate.wait_for_exit().success());
    assert!(TcpStream::connect(tollgate.addr()).is_err());
}

/// A connection that is closed with a request unread is reset, and what a client library does about a reset is another
/// thing than what it does about an end: some tell their users.
#[test]
fn a_request_that_comes_too_late_sees_an_end_and_no_reset() {
    let redis = RedisServer::start();
    let mut tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    // More than is read behind a command that blocks.
    client.send(&[encode(&["BLPOP", "l", "0"]), encode(&["RL.CHECK", "k", "10", "1m"]).repeat(10_000)].concat());
    wait_until(PATIENCE, || redis.command("INFO clients").text().contains("blocked_clients:1\r\n"));
    tollgate.signal("-TERM");
    assert_eq!(client.try_read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(tollgate.wait_for_exit().success());
    // Nor afterwards: writing would fail.
    client.try_send(b"PING\r\n").unwrap();
}
