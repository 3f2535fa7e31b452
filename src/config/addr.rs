//! Addresses as they are configured: parsed once, names not yet looked up, passwords never shown.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use redis::{ConnectionAddr, IntoConnectionInfo};

/// Most addresses to listen on.
pub const MAX_LISTEN: usize = 16;
/// What may be listened on.
pub(super) const ALLOWED_LISTEN: &str = "host:port or [IPv6]:port, or 1 to 16 of them separated by commas";

/// A host name or IP address, and a port: `localhost:6380`, `0.0.0.0:6380`, `[::1]:6380`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; one of IPv6 stands without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().ok()?.to_string(),
            None if host.is_empty() || !host.chars().all(is_host_char) => return None,
            None => host.to_owned(),
        };
        Some(Self { host, port: port.parse().ok()? })
    }
}

/// A second colon would be an IPv6 address without brackets, of which nobody can say where its port begins.
fn is_host_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `server.listen` and `tls.listen`: 0 to [`MAX_LISTEN`] addresses, separated by commas.
pub(super) struct Listen(pub(super) Vec<HostPort>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(vec![]));
        }
        let addresses: Option<Vec<_>> = text.split(',').map(|item| HostPort::parse(item.trim())).collect();
        addresses.filter(|list| list.len() <= MAX_LISTEN).map(Self).ok_or_else(|| ALLOWED_LISTEN.to_owned())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.0.iter().map(HostPort::to_string).collect();
        f.write_str(&addresses.join(","))
    }
}

/// Where Redis is, and who to be there. Shows its password to nobody who prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddr {
    /// How to get there.
    pub transport: Transport,
    /// The ACL user; without one, Redis's `default`. Only with a password.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// The number of the database.
    pub db: u32,
}

/// A way to a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP.
    Tcp(HostPort),
    /// TLS over TCP; the certificate must name the host.
    Tls(HostPort),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Default for RedisAddr {
    fn default() -> Self {
        Self::plain(HostPort { host: "localhost".to_owned(), port: 6379 })
    }
}

impl RedisAddr {
    fn plain(addr: HostPort) -> Self {
        Self { transport: Transport::Tcp(addr), user: None, password: None, db: 0 }
    }

    fn parse(text: &str) -> Option<Self> {
        if !text.contains("://") {
            return HostPort::parse(text).filter(|addr| addr.port > 0).map(Self::plain);
        }
        let url = redis::parse_redis_url(text)?;
        // The redis crate passes over parameters that it does not know, and over ones like `protocol` that are not
        // for an operator to choose here.
        let is_unix = url.scheme().ends_with("unix");
        if !url.query_pairs().all(|(name, _)| is_unix && matches!(&*name, "db" | "user" | "pass")) {
            return None;
        }
        // `#insecure` would have the redis crate take any certificate; a private authority goes into redis.ca_file.
        if url.fragment().is_some() {
            return None;
        }
        let info = url.into_connection_info().ok()?;
        let transport = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Transport::Tcp(HostPort { host: host.clone(), port: *port }),
            ConnectionAddr::TcpTls { host, port, .. } => Transport::Tls(HostPort { host: host.clone(), port: *port }),
            ConnectionAddr::Unix(path) => Transport::Unix(path.clone()),
            _ => return None,
        };
        let settings = info.redis_settings();
        let addr = Self {
            transport,
            user: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            db: u32::try_from(settings.db()).ok()?,
        };
        // AUTH has no form with a user alone, and `redis://secret@host` is a password that would be shown as a user.
        (addr.user.is_none() || addr.password.is_some()).then_some(addr)
    }
}

impl FromStr for RedisAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| {
            "host:port, redis://[user:pass@]host[:port][/db], rediss://... with TLS, \
             or unix:///path[?db=n&user=name&pass=word]"
                .to_owned()
        })
    }
}

impl fmt::Display for RedisAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or_default();
        let login = self.password.as_ref().map(|_| format!("{user}:***@")).unwrap_or_default();
        match &self.transport {
            Transport::Tcp(addr) if login.is_empty() && self.db == 0 => addr.fmt(f),
            Transport::Tcp(addr) => write!(f, "redis://{login}{addr}/{}", self.db),
            Transport::Tls(addr) => write!(f, "rediss://{login}{addr}/{}", self.db),
            Transport::Unix(path) => {
                write!(f, "unix://{}?db={}", path.display(), self.db)?;
                self.user.iter().try_for_each(|user| write!(f, "&user={user}"))?;
                self.password.iter().try_for_each(|_| f.write_str("&pass=***"))
            }
        }
    }
}

impl fmt::Debug for RedisAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
