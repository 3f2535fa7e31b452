//! A private Redis or Valkey.

use super::{PATIENCE, RawClient, Reply, free_port, installed, send_signal, wait_until};
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::{env, thread};
use tempfile::TempDir;

/// The name of its file of settings, if it has one.
const CONFIG: &str = "redis.conf";

/// A Redis of the test's own: a free port, nothing saved, killed on drop, its log shown when the test fails.
///
/// `TOLLGATE_TEST_REDIS_SERVER` names the program; without it, `redis-server` or else `valkey-server` is taken.
pub struct RedisServer {
    process: Child,
    addr: SocketAddr,
    options: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more options of redis-server.
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_by(None, || options.iter().map(ToString::to_string).collect())
    }

    /// The same with a file of settings, and with options that are chosen anew when a port was taken meanwhile.
    pub fn start_by(config: Option<&str>, options: impl Fn() -> Vec<String>) -> Self {
        loop {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let folder = tempfile::tempdir().unwrap();
            if let Some(text) = config {
                fs::write(folder.path().join(CONFIG), text).unwrap();
            }
            let options = options();
            let mut server = Self { process: spawn(addr, &options, &folder), addr, options, folder };
            if server.wait_until_ready() {
                return server;
            }
            // Somebody took the port between its choice and its use.
            assert!(server.log().contains("Address already in use"), "redis-server ended: {}", server.log());
        }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    pub fn client(&self) -> RawClient {
        RawClient::connect(self.addr())
    }

    /// Runs one command of words without blanks.
    #[track_caller]
    pub fn command(&self, line: &str) -> Reply {
        self.client().line(line)
    }

    /// The names of all keys, sorted.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.command("KEYS *").items().iter().map(Reply::bytes).collect();
        keys.sort();
        keys
    }

    /// The entries of a log: times in microseconds and weights, oldest first.
    #[track_caller]
    pub fn entries(&self, log: &str) -> Vec<(i64, i64)> {
        let reply = self.client().cmd(&["ZRANGE", log, "0", "-1", "REV", "WITHSCORES"]);
        let entries: Vec<(i64, i64)> = reply
            .items()
            .chunks_exact(2)
            .map(|pair| (pair[0].text(), -pair[1].text().parse::<f64>().unwrap() as i64))
            // What is not an entry is bookkeeping, at scores above minus any time in microseconds of this century.
            .filter(|(_, time_us)| *time_us > 1_000_000_000_000_000)
            .map(|(member, time_us)| (time_us, member.split_once(':').map_or(1, |(_, weight)| weight.parse().unwrap())))
            .collect();
        assert!(entries.is_sorted_by_key(|(time_us, _)| *time_us));
        entries
    }

    /// The address by which it knows one of a Tollgate's workers.
    pub fn first_peer_that_runs_scripts(&self) -> SocketAddr {
        let connections = self.command("CLIENT LIST").text();
        let worker = connections.lines().find(|connection| connection.contains(" cmd=evalsha ")).unwrap();
        worker.split(' ').find_map(|field| field.strip_prefix("addr=")).unwrap().parse().unwrap()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, with the log that it was told to keep or else empty, at the same address.
    pub fn start_again(&mut self) {
        self.process = spawn(self.addr, &self.options, &self.folder);
        assert!(self.wait_until_ready(), "redis-server does not start again: {}", self.log());
    }

    /// The same with more options.
    pub fn start_again_with(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(ToString::to_string));
        self.start_again();
    }

    /// The same at another address, on the same port.
    pub fn start_again_at(&mut self, ip: IpAddr) {
        self.addr.set_ip(ip);
        self.start_again();
    }

    /// Makes it hang: connections stand, the kernel still accepts more, nothing is answered.
    pub fn stop(&self) {
        send_signal(&self.process, "-STOP");
    }

    /// Ends a [`RedisServer::stop`].
    pub fn cont(&self) {
        send_signal(&self.process, "-CONT");
    }

    /// Whether it answers at last. False when it ended instead.
    fn wait_until_ready(&mut self) -> bool {
        let mut ended = false;
        wait_until(PATIENCE, || {
            ended = self.process.try_wait().unwrap().is_some();
            ended || self.is_ready()
        });
        !ended
    }

    /// While it loads it answers `-LOADING`; another process at this port would have another id.
    fn is_ready(&self) -> bool {
        let Ok(mut client) = RawClient::try_connect(self.addr()) else { return false };
        if client.try_send(b"INFO server\r\n").is_err() {
            return false;
        }
        match client.try_read() {
            Ok(info @ Reply::Bulk(_)) => info.text().contains(&format!("process_id:{}\r\n", self.process.id())),
            _ => false,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- log of redis-server, {}\n{}---", self.addr, self.log());
        }
    }
}

fn spawn(addr: SocketAddr, options: &[String], folder: &TempDir) -> Child {
    let log = File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
    let (ip, port) = (addr.ip().to_string(), addr.port().to_string());
    Command::new(program())
        .args(folder.path().join(CONFIG).exists().then_some(CONFIG))
        .args(["--port", &port, "--bind", &ip, "--save", "", "--appendonly", "no"])
        .args(options)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(log.try_clone().unwrap())
        .stdout(log)
        .spawn()
        .unwrap()
}

fn program() -> String {
    env::var("TOLLGATE_TEST_REDIS_SERVER")
        .ok()
        .or_else(|| installed(&["redis-server", "valkey-server"]))
        .expect("redis-server or valkey-server is to be installed, or named by TOLLGATE_TEST_REDIS_SERVER")
}
