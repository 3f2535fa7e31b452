//! What the tests are made of: servers, a client that shows bytes as they are, and a way to wait.

mod certificates;
mod client;
mod cluster;
mod http;
mod keyless;
pub mod load;
mod names;
mod proxy;
mod random;
mod redis_server;
mod scripts;
mod sentinel;
mod tollgate;

pub use certificates::Certificates;
pub use client::{Decision, RawClient, Reply, encode};
pub use cluster::{Cluster, SlotMove, key_in};
pub use http::{HttpClient, HttpReply, tls_to};
pub use keyless::Keyless;
pub use names::Names;
pub use proxy::{Proxy, Weather};
pub use random::Random;
pub use redis_server::RedisServer;
pub use scripts::{Scripts, batch_of, decisions};
pub use sentinel::Sentinels;
pub use tollgate::{Builder, Tollgate, program};

use ::tollgate::config::HostPort;
use ::tollgate::net::Stream;
use ::tollgate::topology::source::{Found, Source};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, thread};
use tokio::net::TcpStream;

/// Longer than anything here takes, so that it passes only when something hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Whether tests are to last as long as they need to be sure (`tests/faults/run`), or only as long as one waits for.
pub fn is_thorough() -> bool {
    env::var_os("TOLLGATE_TEST_THOROUGH").is_some()
}

/// Says that the test at hand, or a part of it, cannot run on this machine, and why. Past the harness, which keeps back
/// what tests that pass print; and into the file that `tests/run` repeats at its end.
pub fn tell_ignored(reason: &str) {
    let line = format!("ignored: {}: {}\n", thread::current().name().unwrap_or_default(), reason.trim());
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("TOLLGATE_TEST_IGNORED") {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// What `INFO tollgate` says under this name.
#[track_caller]
pub fn info(tollgate: &Tollgate, name: &str) -> String {
    let text = tollgate.client().line("INFO tollgate").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `deadline`.
#[track_caller]
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "still waiting after {deadline:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a test on a fresh embedded Tollgate and on one before a fresh Redis: what they answer is the same.
pub fn on_each_store(test: impl Fn(&mut RawClient)) {
    let embedded = Tollgate::embedded();
    test(&mut embedded.client());
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    test(&mut tollgate.client());
}

/// A port that nobody listens on.
///
/// It lies below the range from which the kernel takes the ports of outgoing connections: a port within that range
/// may be taken while its server is down, and a connection to it may even reach itself. So does the port 10,000 above it,
/// by which the nodes of a cluster talk to each other: Redis 6.2 takes no other.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 12_000..22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time begin at different places.
    let first = std::process::id().wrapping_mul(7919) as u16;
    loop {
        let port = PORTS.start + first.wrapping_add(NEXT.fetch_add(1, Relaxed)) % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// An address of this machine that is not its loopback's, if it has one.
pub fn own_address() -> Option<IpAddr> {
    // Connecting a UDP socket sends nothing; it only chooses the address to send from.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

/// Signals a process (`-TERM`, `-STOP`) by the `kill` command, because the standard library only knows SIGKILL.
pub fn send_signal(process: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal}: {status}");
}

/// The first of some programs that is there.
pub fn installed(programs: &[&str]) -> Option<String> {
    let is_there = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    programs.iter().find(|program| is_there(program)).map(ToString::to_string)
}

pub fn host_port(addr: &SocketAddr) -> HostPort {
    HostPort { host: addr.ip().to_string(), port: addr.port() }
}

/// Asks where the Redis is that a source keeps track of.
pub fn resolve(source: &mut Source) -> io::Result<Found> {
    let reach = async |addr: &HostPort| TcpStream::connect((addr.host.as_str(), addr.port)).await.map(Stream::Tcp);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(source.resolve(&reach))
}
