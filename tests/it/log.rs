//! The log, when those who read it do not.
//!
//! Standard error is a pipe in most places, and whoever holds its other end may hang or be gone. Once the pipe was full,
//! writing a line did not return, in the middle of what the thread was doing: clients hung and SIGTERM did nothing.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, free_port, program, send_signal, wait_until};
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Write, pipe};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A Tollgate whose log the test reads itself, or does not. Killed on drop.
struct Unheard {
    process: Child,
    addr: SocketAddr,
}

impl Unheard {
    fn start(command: &mut Command) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        command.args(["--listen", &addr.to_string()]).env("TOLLGATE_LOG__LEVEL", "debug");
        let started = Self { process: command.spawn().unwrap(), addr };
        wait_until(PATIENCE, || TcpStream::connect(addr).is_ok());
        started
    }

    fn client(&self) -> RawClient {
        RawClient::connect(self.addr)
    }

    /// It ends well when told to, and soon.
    fn ends(mut self) {
        let start = Instant::now();
        send_signal(&self.process, "-TERM");
        let mut status = None;
        wait_until(PATIENCE, || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A pipe that takes not a byte more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let full = loop {
        if let Err(error) = writer.write(b"\n") {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Runs some commands, none of which may take long.
fn soon<T>(run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = run();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    outcome
}

/// A client too many: a line of log.
fn be_refused(addr: SocketAddr) {
    // Left with the refusal unread, its port is free at once.
    assert_eq!(TcpStream::connect(addr).unwrap().peek(&mut [0]).unwrap(), 1);
}

fn pong() -> Reply {
    Reply::Status("PONG".into())
}

fn dropped_lines(client: &mut RawClient) -> u64 {
    let info = client.line("INFO tollgate").text();
    info.lines().find_map(|line| line.strip_prefix("log_lines_dropped:")).unwrap().parse().unwrap()
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let mut redis = RedisServer::start();
    let (reader, writer) = full_pipe();
    let tollgate = Unheard::start(
        program()
            .args(["--redis", &redis.addr().to_string()])
            .env("TOLLGATE_REDIS__TIMEOUT_MS", "10000")
            .env("TOLLGATE_SERVER__MAX_CLIENTS", "1")
            .stderr(writer),
    );
    let mut client = tollgate.client();
    // The one place may not be free yet.
    wait_until(PATIENCE, || {
        client = tollgate.client();
        client.line("PING") == pong()
    });
    assert!(!soon(|| client.decide("RL.CHECK k 1000 60")).degraded);
    assert_eq!(dropped_lines(&mut client), 0);
    wait_until(PATIENCE, || {
        (0..1000).for_each(|_| be_refused(tollgate.addr));
        dropped_lines(&mut client) > 0
    });
    assert_eq!(soon(|| client.line("PING")), pong());
    // That Redis is away is said by the worker itself.
    redis.kill();
    wait_until(PATIENCE, || soon(|| client.decide("RL.CHECK k 1000 60")).degraded);
    soon(|| client.line("INFO tollgate"));
    // Somebody reads again, and learns how much is missing, of which more may have been dropped meanwhile.
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    let mut said = 0;
    wait_until(PATIENCE, || {
        let line = lines.find(|line| line.contains("lines of log were dropped")).unwrap();
        said += line.rsplit_once("lines=").unwrap().1.parse::<u64>().unwrap();
        said == dropped_lines(&mut client)
    });
    tollgate.ends();
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_it_from_its_end() {
    let (_reader, writer) = full_pipe();
    let tollgate = Unheard::start(program().arg("--embedded").stderr(writer));
    assert!(tollgate.client().decide("RL.CHECK k 10 60").allowed);
    tollgate.ends();
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let (_, writer) = pipe().unwrap();
    let tollgate = Unheard::start(program().arg("--embedded").stderr(writer));
    assert!(tollgate.client().decide("RL.CHECK k 10 60").allowed);
    wait_until(PATIENCE, || dropped_lines(&mut tollgate.client()) > 0);
    tollgate.ends();

    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$@\" >&- 2>&-", "sh"]).arg(program().get_program()).arg("--embedded");
    let tollgate = Unheard::start(closed.env_clear());
    assert!(tollgate.client().decide("RL.CHECK k 10 60").allowed);
    tollgate.ends();
}

/// `eprintln!` panics when it cannot write, which made it the status 101.
#[test]
fn a_mistake_that_nobody_reads_is_still_exit_2() {
    let (_, writer) = pipe().unwrap();
    let status = program().arg("--nonsense").stdout(Stdio::null()).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
