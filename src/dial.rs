//! Opens connections to the upstream Redis, over TCP, TLS or a Unix socket.

mod race;

use crate::config::{self, HostPort, RedisAddr, Transport};
use crate::net::{self, Stream};
use crate::resolve::Resolver;
use crate::tls::{read_certificates, read_key};
use race::{arrange, race, stagger};
use rustls_pki_types::ServerName;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, TlsStream};
use tracing::debug;

/// Where a server of Redis is and how to get there.
pub struct Dialer {
    target: Target,
    manner: Arc<Manner>,
    experience: Mutex<Experience>,
    /// Whether clients are kept from connecting, because what is there is a Tollgate that would connect to this one in
    /// turn. Nothing before somebody has looked.
    is_barred: watch::Sender<Option<bool>>,
}

/// How to get to any of the servers, and who to be there.
struct Manner {
    addr: RedisAddr,
    tls: Option<TlsConnector>,
    tcp_keepalive: Option<Duration>,
    tcp_user_timeout: Option<Duration>,
    /// What this process listens on.
    listeners: OnceLock<Vec<SocketAddr>>,
}

/// Of the addresses of a name, the one that worked last, and the one that was reached last and did not.
#[derive(Debug, Clone, Copy, Default)]
struct Experience {
    good: Option<SocketAddr>,
    bad: Option<SocketAddr>,
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Nobody says what address the name has.
    Lookup,
    /// No address answers.
    Connect,
    /// An address answers, but not in TLS.
    Handshake,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "looking its name up took too long",
            Self::Connect => "connecting took too long",
            Self::Handshake => "the TLS handshake took too long",
        })
    }
}

impl std::error::Error for Late {}

/// Redis's address is one that this process listens on.
#[derive(Debug)]
pub struct LeadsHere;

impl fmt::Display for LeadsHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis.addr leads to this Tollgate itself")
    }
}

impl std::error::Error for LeadsHere {}

const NO_NAME: &str = "is no name that a certificate could be for";

enum Target {
    Tcp(Resolver),
    /// Without a name, no certificate could be for the host.
    Tls {
        host: Resolver,
        name: Option<ServerName<'static>>,
        connector: TlsConnector,
    },
    Unix(PathBuf),
}

impl Dialer {
    /// The way to what `config` names first. Reads the certificates that it names, but reaches out to nothing.
    ///
    /// # Errors
    /// A certificate or key that cannot be read; the text names it.
    pub fn new(config: &config::Redis) -> Result<Self, String> {
        let transport = &config.addr.transport;
        let tls = match transport.has_tls() {
            true => Some(TlsConnector::from(Arc::new(tls_config(config)?))),
            false => None,
        };
        let manner = Manner {
            addr: config.addr.clone(),
            tls,
            tcp_keepalive: config.tcp_keepalive,
            tcp_user_timeout: config.tcp_user_timeout,
            listeners: OnceLock::new(),
        };
        let target = match transport {
            Transport::Unix(path) => Target::Unix(path.clone()),
            _ => {
                let addr = transport.seeds().first().ok_or("redis.addr names no server")?;
                let target = manner.target(addr, None);
                if let Target::Tls { name: None, .. } = &target {
                    return Err(format!("redis.addr: {}: {NO_NAME}", addr.host));
                }
                target
            }
        };
        Ok(Self::to(target, Arc::new(manner)))
    }

    /// The way to another server that is reached as this one, whose certificate may be for `name` in place of its host.
    pub fn toward(&self, addr: &HostPort, name: Option<&str>) -> Self {
        Self::to(self.manner.target(addr, name), self.manner.clone())
    }

    fn to(target: Target, manner: Arc<Manner>) -> Self {
        Self { target, manner, experience: Mutex::default(), is_barred: watch::Sender::new(None) }
    }

    /// The AUTH command that a connection begins with, if any.
    pub fn auth(&self) -> Option<Vec<&[u8]>> {
        let RedisAddr { user, password, .. } = &self.manner.addr;
        let words = [Some("AUTH"), user.as_deref(), Some(password.as_deref()?)];
        Some(words.into_iter().flatten().map(str::as_bytes).collect())
    }

    /// The database that a connection begins with.
    pub fn db(&self) -> u32 {
        self.manner.addr.db
    }

    /// Who AUTH logs in.
    pub fn user(&self) -> &str {
        self.manner.addr.user.as_deref().unwrap_or("default")
    }

    /// The host, or the path of the socket.
    pub fn host(&self) -> &str {
        match &self.target {
            Target::Tcp(host) | Target::Tls { host, .. } => &host.addr().host,
            Target::Unix(path) => path.to_str().unwrap_or_default(),
        }
    }

    /// The address, unless it is the path of a socket.
    pub fn addr(&self) -> Option<&HostPort> {
        match &self.target {
            Target::Tcp(host) | Target::Tls { host, .. } => Some(host.addr()),
            Target::Unix(_) => None,
        }
    }

    /// This process listens on these: what is dialled must be none of them.
    pub fn set_listeners(&self, listeners: Vec<SocketAddr>) {
        // Told once, at the start.
        let _ = self.manner.listeners.set(listeners);
    }

    /// Whether it can be told without a lookup that Redis's address is one that this process listens on.
    pub fn leads_here(&self) -> bool {
        let Some(HostPort { host, port }) = self.addr() else { return false };
        let ip = if host == "localhost" { Ok(Ipv4Addr::LOCALHOST.into()) } else { host.parse::<IpAddr>() };
        ip.is_ok_and(|ip| self.is_listener((ip, *port).into(), None))
    }

    /// What [`Dialer::dial`] leads to was looked at: whether it `is_barred`, because it leads back.
    pub fn bar(&self, is_barred: bool) {
        self.is_barred.send_replace(Some(is_barred));
    }

    /// Opens a connection for a client, as [`Dialer::dial_store`], but not before the store's own connection has shown
    /// what is there: one that leads back here would be opened again and again, by each connection anew.
    ///
    /// # Errors
    /// As [`Dialer::dial_store`]; and what is there leads back.
    pub async fn dial(&self, timeout: Duration) -> io::Result<Stream> {
        let begun = Instant::now();
        let mut is_barred = self.is_barred.subscribe();
        match tokio::time::timeout(timeout, is_barred.wait_for(Option::is_some)).await {
            Ok(Ok(is_barred)) if *is_barred == Some(true) => return Err(io::Error::other(LeadsHere)),
            _ => {}
        }
        self.dial_store(timeout.saturating_sub(begun.elapsed())).await
    }

    /// Opens a connection, without a word of RESP spoken on it. Of several addresses that the name has, one that is
    /// silent does not take the time of the others.
    ///
    /// # Errors
    /// Redis cannot be reached within `timeout`, or TLS cannot be agreed on. One that came too late holds a [`Late`], one
    /// that leads to this process itself [`LeadsHere`].
    pub async fn dial_store(&self, timeout: Duration) -> io::Result<Stream> {
        let stage = Cell::new(Late::Lookup);
        let attempt = async {
            match &self.target {
                Target::Tcp(host) => {
                    let connect = async |address| self.connect(address).await.map(Stream::Tcp);
                    self.reach(host, timeout, &stage, connect).await
                }
                Target::Tls { host, name, connector } => {
                    let connect = async |address| {
                        let stream = self.connect(address).await?;
                        stage.set(Late::Handshake);
                        let name = name.clone().ok_or_else(|| io::Error::other(NO_NAME))?;
                        let stream = connector.connect(name, stream).await?;
                        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
                    };
                    self.reach(host, timeout, &stage, connect).await
                }
                Target::Unix(path) => {
                    stage.set(Late::Connect);
                    UnixStream::connect(path).await.map(Stream::Unix)
                }
            }
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, stage.get())),
        }
    }

    /// What was reached at `address` works, or does not. Then, if its name has other addresses, they are tried first.
    pub fn note(&self, address: Option<SocketAddr>, works: bool) {
        *self.experience() = match works {
            true => Experience { good: address, bad: None },
            false => Experience { good: None, bad: address },
        };
    }

    /// `connect` at the address of `host` that is first to work.
    async fn reach(
        &self,
        host: &Resolver,
        timeout: Duration,
        stage: &Cell<Late>,
        connect: impl AsyncFn(SocketAddr) -> io::Result<Stream>,
    ) -> io::Result<Stream> {
        let addresses = host.addresses().await?;
        stage.set(Late::Connect);
        let Experience { good, bad } = *self.experience();
        let addresses = arrange(addresses, good, bad);
        let stream = race(&addresses, stagger(timeout, addresses.len()), connect).await?;
        self.experience().good = stream.peer_addr();
        Ok(stream)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        if self.is_listener(address, Some(stream.local_addr()?.ip())) {
            return Err(io::Error::other(LeadsHere));
        }
        stream.set_nodelay(true)?;
        let outcomes = [
            self.manner.tcp_keepalive.map(|idle| net::set_keepalive(&stream, idle)),
            self.manner.tcp_user_timeout.map(|timeout| net::set_user_timeout(&stream, timeout)),
        ];
        // A system that lacks one of them is no reason to do without Redis.
        for error in outcomes.into_iter().flatten().filter_map(Result::err) {
            debug!(%address, %error, "cannot set socket options");
        }
        Ok(stream)
    }

    /// Whether a connection to `peer` leads to this process, from `local` if that is known. Who listens on all addresses
    /// listens on those of its own machine.
    fn is_listener(&self, peer: SocketAddr, local: Option<IpAddr>) -> bool {
        // Elsewhere somebody else may listen on one address of a port of which all are listened on.
        let is_all_ours = cfg!(target_os = "linux") && (peer.ip().is_loopback() || local == Some(peer.ip()));
        self.manner.listeners.get().into_iter().flatten().any(|listener| {
            let is_wide = listener.ip().is_unspecified() && listener.is_ipv4() == peer.is_ipv4();
            listener.port() == peer.port() && (listener.ip() == peer.ip() || (is_wide && is_all_ours))
        })
    }

    fn experience(&self) -> MutexGuard<'_, Experience> {
        self.experience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Manner {
    fn target(&self, addr: &HostPort, name: Option<&str>) -> Target {
        let host = Resolver::new(addr.clone());
        let Some(connector) = self.tls.clone() else { return Target::Tcp(host) };
        let name = ServerName::try_from(name.unwrap_or(&addr.host).to_owned()).ok();
        Target::Tls { host, name, connector }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.target {
            Target::Tcp(host) => host.addr().to_string(),
            Target::Tls { host, .. } => format!("{} by TLS", host.addr()),
            Target::Unix(path) => path.display().to_string(),
        };
        f.write_str(&place)
    }
}

fn tls_config(config: &config::Redis) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            for certificate in read_certificates("redis.ca_file", path)? {
                roots.add(certificate).map_err(|error| format!("redis.ca_file: {}: {error}", path.display()))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let Some(client) = &config.client_cert else { return Ok(builder.with_no_client_auth()) };
    let chain = read_certificates("redis.cert_file", &client.cert_file)?;
    let key = read_key("redis.key_file", &client.key_file)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| format!("redis.cert_file: {error}"))
}
