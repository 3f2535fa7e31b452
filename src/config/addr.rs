//! Addresses as they are configured: parsed once, names not yet looked up, passwords never shown.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::auth::parse_name;
use super::layers::Settings;
use super::secret::{self, MASK};

/// Most addresses to listen on.
pub const MAX_LISTEN: usize = 16;
/// What may be listened on.
pub(super) const ALLOWED_LISTEN: &str = "host:port, [IPv6]:port, :port for all interfaces, or port for 127.0.0.1, or \
                                         1 to 16 of those separated by commas";
/// Where a Redis may be.
const ALLOWED_REDIS: &str = "host[:port], [IPv6][:port], redis://[user:pass@]host[:port][/db], rediss://... with TLS, \
                             unix:///path[?db=n&user=name&pass=word], \
                             redis+sentinel://[user:pass@]sentinel[:port],.../name[/db] or \
                             redis+cluster://[user:pass@]node[:port],...; the last two as rediss+... with TLS";
/// What to mind of a login in a URL.
const ENCODED: &str = "with each #, /, ?, @, & and % in a user or password written as %23, %2F, %3F, %40, %26 and %25";
/// What to mind of a host.
const IN_ASCII: &str = "with a name in its ASCII form, xn--..., if it has other letters";
/// Longest password for Redis that stands beside its address: what clouds give out as one can be long.
const MAX_PASSWORD_BYTES: usize = 16 * 1024;
/// Most sentinels or nodes of a cluster that an address names.
pub const MAX_SEEDS: usize = 16;
/// Redis's own port, and a sentinel's.
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

/// A host name or IP address, and a port: `localhost:6380`, `0.0.0.0:6380`, `[::1]:6380`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; one of IPv6 stands without its brackets. Empty, where one may listen: all interfaces.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// `host:port` or `[IPv6]:port`, and without a port if there is one by `default`.
    fn parse(text: &str, default: Option<u16>) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, parse_port(port)?),
            _ => (text, default?),
        };
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().ok()?.to_string(),
            None if is_host(host) => host.to_owned(),
            None => return None,
        };
        Some(Self { host, port })
    }

    /// An address to announce: `host` stands for the port at which a client has come.
    pub(super) fn parse_announce(text: &str) -> Result<Self, String> {
        Self::parse(text, Some(0)).ok_or_else(|| "host, [IPv6], host:port or [IPv6]:port".to_owned())
    }

    /// An address to listen on: `:port` stands for all interfaces, `port` for one that other machines do not reach.
    fn parse_listen(text: &str) -> Option<Self> {
        let of = |host: &str, port| Some(Self { host: host.to_owned(), port });
        match (parse_port(text), text.strip_prefix(':').and_then(parse_port)) {
            (Some(port), _) => of("127.0.0.1", port),
            (_, Some(port)) => of("", port),
            _ => Self::parse(text, None),
        }
    }
}

/// Digits alone: the standard library would take a sign too.
fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

/// Whether this can be a name or an IPv4 address. A number alone is neither, and most likely a port.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_host_char) && !text.chars().all(|c| c.is_ascii_digit())
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
        let addresses: Option<Vec<_>> = text.split(',').map(|item| HostPort::parse_listen(item.trim())).collect();
        addresses.filter(|list| list.len() <= MAX_LISTEN).map(Self).ok_or_else(|| ALLOWED_LISTEN.to_owned())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.0))
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
    /// The primary of this name, which sentinels watch.
    Sentinel(SentinelAddr),
    /// A cluster.
    Cluster(ClusterAddr),
}

/// A primary that sentinels watch. They are asked in plain TCP or in TLS, as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct SentinelAddr {
    /// Some of the sentinels, 1 to [`MAX_SEEDS`].
    pub sentinels: Vec<HostPort>,
    /// What they call it.
    pub name: String,
    /// Who to be there: an ACL user; only with a password.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Whether all of them speak TLS.
    pub has_tls: bool,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAddr {
    /// Some of its nodes, 1 to [`MAX_SEEDS`].
    pub nodes: Vec<HostPort>,
    /// Whether they speak TLS.
    pub has_tls: bool,
}

impl Transport {
    /// The servers that it names, if it is not the path of a socket: at least one.
    pub fn seeds(&self) -> &[HostPort] {
        match self {
            Self::Tcp(addr) | Self::Tls(addr) => std::slice::from_ref(addr),
            Self::Sentinel(SentinelAddr { sentinels: seeds, .. }) | Self::Cluster(ClusterAddr { nodes: seeds, .. }) => {
                seeds
            }
            Self::Unix(_) => &[],
        }
    }

    /// Whether they are reached by TLS.
    pub fn has_tls(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Sentinel(SentinelAddr { has_tls, .. }) | Self::Cluster(ClusterAddr { has_tls, .. }) => *has_tls,
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }
}

impl fmt::Debug for SentinelAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, joined(&self.sentinels))
    }
}

fn joined(addresses: &[HostPort]) -> String {
    addresses.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",")
}

impl Default for RedisAddr {
    fn default() -> Self {
        Self::plain(HostPort { host: "localhost".to_owned(), port: 6379 })
    }
}

impl RedisAddr {
    /// The address, with the login that stands in it or beside it.
    pub(super) fn read(settings: &mut Settings) -> Self {
        let mut addr = settings.parsed("redis.addr", Self::default(), Self::from_str);
        let user = settings.optional("redis.user", parse_name, String::clone);
        let parse_password = |text: &str| secret::parse_password(text, MAX_PASSWORD_BYTES);
        let password = settings.optional("redis.password", parse_password, |_| MASK.to_owned());
        if addr.password.is_some() {
            for key in ["redis.user", "redis.password"] {
                settings.conflict::<()>(key, "redis.addr has a password in it, and only one of the two may be given");
            }
        } else if password.is_none() {
            settings.conflict::<()>("redis.user", "needs redis.password");
        } else {
            (addr.user, addr.password) = (user, password);
        }
        addr
    }

    fn plain(addr: HostPort) -> Self {
        Self { transport: Transport::Tcp(addr), user: None, password: None, db: 0 }
    }

    /// The `Err` is what to mind beside the forms that there are, if anything is known.
    fn parse(text: &str) -> Result<Self, Option<&'static str>> {
        if text.trim() != text || text.contains(char::is_control) {
            return Err(Some("without line breaks and without blanks at its ends"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let addr = HostPort::parse(text, Some(REDIS_PORT)).filter(|addr| addr.port > 0);
            return addr.map(Self::plain).ok_or((!text.is_ascii()).then_some(IN_ASCII));
        };
        // A login ends with the last @. A URL's own grammar would cut the address off at the first of the others, and
        // take what comes before for a host and port.
        let login = rest.rsplit_once('@').map_or("", |(login, _)| login);
        let is_unix = scheme.ends_with("unix");
        if !is_unix && login.contains(['#', '/', '?', '@']) {
            return Err(Some(ENCODED));
        }
        if let Some((scheme, kind)) = scheme.split_once('+') {
            return Self::parse_group(scheme, kind, rest);
        }
        let url = redis::parse_redis_url(text).ok_or(None)?;
        // The redis crate passes over parameters that it does not know, and over ones like `protocol` that are not
        // for an operator to choose here. `#insecure` would have it take any certificate; a private authority goes
        // into redis.ca_file.
        let is_known = |name: &str| is_unix && matches!(name, "db" | "user" | "pass");
        if url.fragment().is_some() || !url.query_pairs().all(|(name, _)| is_known(&name)) {
            return Err(is_unix.then_some(ENCODED));
        }
        Self::of(&url.into_connection_info().map_err(|_| None)?)
    }

    /// `[login@]host[:port],...[/path][?parameters]` of sentinels or of a cluster. What is the same in the address of one
    /// Redis is read as that.
    fn parse_group(scheme: &str, kind: &str, text: &str) -> Result<Self, Option<&'static str>> {
        let (login, rest) = text.rsplit_once('@').map_or(("", text), |(login, rest)| (login, rest));
        let (rest, parameters) = rest.split_once('?').map_or((rest, None), |(rest, more)| (rest, Some(more)));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let has_tls = match scheme.to_ascii_lowercase().as_str() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(None),
        };
        let of_one = |path: &str| match login {
            "" => Self::parse(&format!("redis://host/{path}")),
            _ => Self::parse(&format!("redis://{login}@host/{path}")),
        };
        match (kind.to_ascii_lowercase().as_str(), parameters) {
            ("sentinel", parameters) => {
                let (name, db) = path.split_once('/').unwrap_or((path, ""));
                let is_name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                if name.is_empty() || !name.chars().all(is_name_char) {
                    return Err(Some("with the name that the sentinels know the primary by"));
                }
                let sentinels = parse_seeds(hosts, SENTINEL_PORT)?;
                let (user, password) = parse_sentinel_login(parameters.unwrap_or_default())?;
                let sentinel = SentinelAddr { sentinels, name: name.to_owned(), user, password, has_tls };
                Ok(Self { transport: Transport::Sentinel(sentinel), ..of_one(db)? })
            }
            ("cluster", None) if matches!(path, "" | "0") => {
                let nodes = parse_seeds(hosts, REDIS_PORT)?;
                Ok(Self { transport: Transport::Cluster(ClusterAddr { nodes, has_tls }), ..of_one("")? })
            }
            ("cluster", None) => Err(Some("without a database, of which a cluster has one")),
            _ => Err(None),
        }
    }

    fn of(info: &ConnectionInfo) -> Result<Self, Option<&'static str>> {
        let host_port = |host: &str, port| match (host.parse::<Ipv6Addr>().is_ok() || is_host(host), port) {
            (true, 1..) => Ok(HostPort { host: host.to_owned(), port }),
            _ => Err(host.contains('%').then_some(IN_ASCII)),
        };
        let transport = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Transport::Tcp(host_port(host, *port)?),
            ConnectionAddr::TcpTls { host, port, .. } => Transport::Tls(host_port(host, *port)?),
            ConnectionAddr::Unix(path) => Transport::Unix(path.clone()),
            _ => return Err(None),
        };
        let settings = info.redis_settings();
        let addr = Self {
            transport,
            user: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            db: u32::try_from(settings.db()).map_err(|_| None)?,
        };
        match (&addr.user, &addr.password) {
            // AUTH has no form with a user alone, and `redis://secret@host` is a password that would be shown as a user.
            (Some(_), None) => Err(Some("with a password beside the user")),
            // A report of settings is used as a file.
            (_, Some(password)) if password == MASK => Err(Some("with the password itself")),
            _ => Ok(addr),
        }
    }
}

/// 1 to [`MAX_SEEDS`] addresses, separated by commas.
fn parse_seeds(text: &str, port: u16) -> Result<Vec<HostPort>, Option<&'static str>> {
    let seeds: Option<Vec<_>> = text.split(',').map(|seed| HostPort::parse(seed, Some(port))).collect();
    let is_fine = |seeds: &Vec<HostPort>| seeds.len() <= MAX_SEEDS && seeds.iter().all(|seed| seed.port > 0);
    let hint = if text.is_ascii() { "with 1 to 16 hosts separated by commas, without blanks" } else { IN_ASCII };
    seeds.filter(is_fine).ok_or(Some(hint))
}

/// Who to be at the sentinels: a user and a password, as parameters of a URL have them.
fn parse_sentinel_login(parameters: &str) -> Result<(Option<String>, Option<String>), Option<&'static str>> {
    // A plus sign is itself, as it is in front of the @; the grammar of forms would make it a blank.
    let url = format!("redis://host/?{}", parameters.replace('+', "%2B"));
    let url = redis::parse_redis_url(&url).filter(|url| url.fragment().is_none()).ok_or(Some(ENCODED))?;
    let (mut user, mut password) = (None, None);
    for (name, value) in url.query_pairs() {
        match &*name {
            "sentinel_username" => user = Some(value.into_owned()),
            "sentinel_password" => password = Some(value.into_owned()),
            _ => return Err(Some("with no other parameters than sentinel_username and sentinel_password")),
        }
    }
    let (user, password) = (user.filter(|user| !user.is_empty()), password.filter(|password| !password.is_empty()));
    match (&user, &password) {
        (Some(_), None) => Err(Some("with sentinel_password beside sentinel_username")),
        (_, Some(password)) if password == MASK => Err(Some("with the password itself")),
        _ => Ok((user, password)),
    }
}

impl FromStr for RedisAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|hint| match hint {
            Some(hint) => format!("{ALLOWED_REDIS}, {hint}"),
            None => ALLOWED_REDIS.to_owned(),
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
            Transport::Sentinel(SentinelAddr { sentinels, name, user, password, has_tls }) => {
                let (scheme, sentinels) = (if *has_tls { "rediss" } else { "redis" }, joined(sentinels));
                write!(f, "{scheme}+sentinel://{login}{sentinels}/{name}/{}", self.db)?;
                let user = user.iter().map(|user| format!("sentinel_username={user}"));
                let parameters: Vec<_> =
                    user.chain(password.iter().map(|_| "sentinel_password=***".to_owned())).collect();
                if parameters.is_empty() { Ok(()) } else { write!(f, "?{}", parameters.join("&")) }
            }
            Transport::Cluster(ClusterAddr { nodes, has_tls }) => {
                write!(f, "{}+cluster://{login}{}", if *has_tls { "rediss" } else { "redis" }, joined(nodes))
            }
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
