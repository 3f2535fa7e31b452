//! Looks up where a host is, again for each connection, so that a failover behind a name is followed.
//!
//! The system looks names up in a thread that nothing can stop, and which takes ten seconds and more when DNS is
//! silent. However many wait for a name, one lookup serves them all, until it has taken so long that the next who asks
//! begins another. The threads are not the runtime's, which would wait for them when it ends.

use crate::config::HostPort;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};
use tokio::sync::watch;

/// The age of a lookup at which it is left behind.
const MAX_AGE: Duration = Duration::from_millis(500);

/// Addresses, or why there are none; nothing before that is known.
type Outcome = Option<Result<Vec<SocketAddr>, Failure>>;

#[derive(Debug, Clone)]
enum Failure {
    /// The name leads nowhere, in the system's words.
    NoAddress(String),
    /// The system has not looked.
    System(i32),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoAddress(text) => Self::new(io::ErrorKind::NotFound, text),
            Failure::System(code) => Self::from_raw_os_error(code),
        }
    }
}

/// Where a host is.
#[derive(Debug)]
pub struct Resolver {
    addr: HostPort,
    latest: Mutex<Option<Lookup>>,
}

#[derive(Debug)]
struct Lookup {
    began: Instant,
    outcome: watch::Receiver<Outcome>,
}

impl Resolver {
    /// Looks nothing up yet.
    pub fn new(addr: HostPort) -> Self {
        Self { addr, latest: Mutex::default() }
    }

    /// The host, as it was configured.
    pub fn addr(&self) -> &HostPort {
        &self.addr
    }

    /// Where the host is now, in the order in which the system would have the addresses tried.
    ///
    /// # Errors
    /// The name leads nowhere, or no thread or file descriptor can be had.
    pub async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = self.addr.host.parse::<IpAddr>() {
            return Ok(vec![(ip, self.addr.port).into()]);
        }
        let mut lookup = self.lookup()?;
        let outcome = lookup.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        Ok(outcome.unwrap_or(Ok(Vec::new()))?)
    }

    /// The lookup in flight, or else a new one.
    fn lookup(&self) -> io::Result<watch::Receiver<Outcome>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_under_way = |lookup: &&Lookup| lookup.outcome.borrow().is_none() && lookup.began.elapsed() < MAX_AGE;
        if let Some(lookup) = latest.as_ref().filter(is_under_way) {
            return Ok(lookup.outcome.clone());
        }
        let (sender, outcome) = watch::channel(None);
        let HostPort { host, port } = self.addr.clone();
        thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let found = (host, port).to_socket_addrs().map(Iterator::collect);
            sender.send_replace(Some(found.map_err(|error| failure(&error))));
        })?;
        *latest = Some(Lookup { began: Instant::now(), outcome: outcome.clone() });
        Ok(outcome)
    }
}

/// Why there is no address. Without a file descriptor to look with, the system says that the name does not exist.
fn failure(error: &io::Error) -> Failure {
    let missing = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).err();
    match missing.and_then(|error| error.raw_os_error()) {
        Some(code) => Failure::System(code),
        None => Failure::NoAddress(error.to_string()),
    }
}
