//! What an operator may set: one struct a section of the file, each field of a type that cannot be wrong.
//!
//! The `read` functions below are the one place where a key, its default and its range stand. Where values come from,
//! and how a mistake is worded, is in `layers`. Sections know nothing of the modules that they configure.

mod addr;
mod auth;
mod dialects;
mod environment;
mod http;
mod layers;
mod limits;
mod log;
mod mode;
mod policies;
mod report;
mod secret;
mod tls;

use std::ffi::OsString;
use std::fmt;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::available_parallelism;
use std::time::Duration;

pub use crate::limit::FallbackMode;
use crate::limit::PolicyName;
use crate::policy::Layer;
use addr::{ALLOWED_LISTEN, Listen};
pub use addr::{ClusterAddr, HostPort, RedisAddr, SentinelAddr, Transport};
pub use auth::{Auth, Commands, MAX_PASSWORDS, PasswordHash, PolicyRights, User};
pub use dialects::Dialects;
use environment::Variables;
pub use http::{Http, ReadyWhen};
pub use layers::Flag;
use layers::{Layer as SettingsLayer, Settings};
pub use limits::Limits;
pub use log::{Log, LogFormat};
pub use mode::RedisMode;
pub use policies::read_policies;
pub use tls::{ClientCerts, Tls};

/// Everything that is configured. Only `main` sees it whole.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`: the listeners and what one client may use.
    pub server: Server,
    /// `[http]`: the listener for metrics, probes and the page, if there is one.
    pub http: Option<Http>,
    /// `[tls]`: the listeners that speak TLS, if there are any.
    pub tls: Option<Tls>,
    /// `[auth]`: who may come in.
    pub auth: Auth,
    /// `[shutdown]`: the way out.
    pub shutdown: Shutdown,
    /// `[limits]`: what clients may ask.
    pub limits: Limits,
    /// `[dialects]`: the commands of other limiters that Tollgate answers.
    pub dialects: Dialects,
    /// `[redis]`: the upstream Redis.
    pub redis: Redis,
    /// `[upstream]`: the connections that clients get of their own.
    pub upstream: Upstream,
    /// `[breaker]`: when checks stop asking Redis.
    pub breaker: Breaker,
    /// `[fallback]`: the answers while Redis cannot be asked.
    pub fallback: Fallback,
    /// `[deny_cache]`: denials that hold without asking Redis.
    pub deny_cache: DenyCache,
    /// `[embedded]`: the log without a Redis.
    pub embedded: Embedded,
    /// `[log]`: Tollgate's own log.
    pub log: Log,
    /// `[policies]`: limits with names, and the file that they stand in, if there is one.
    pub policies: Policies,
}

/// A valid configuration, and where each value of it came from.
#[derive(Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// Each key with its value and its source, in the file's form, passwords masked; then the warnings, as comments.
    /// Ends in a line break.
    pub report: String,
    /// What was given and has no effect, a line each.
    pub warnings: Vec<String>,
}

/// Puts defaults < `file` < `environment` < `flags` together. Without a `file`, `TOLLGATE_CONFIG` may name one.
///
/// # Errors
/// Every mistake of every layer, a line each, naming where it stands, the key, the value and what is allowed. A value
/// that a higher layer replaces must be valid too: the day that layer goes is a bad one to learn of it.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[Flag],
) -> Result<Loaded, String> {
    let mut settings = Settings::default();
    let variables = Variables::of(environment);
    match (file, &variables.config) {
        (Some(path), _) => settings.add_file(path)?,
        (None, Some(path)) => {
            let in_variable = |error| format!("{}: {error}", environment::CONFIG);
            settings.add_file(Path::new(path)).map_err(in_variable)?;
        }
        (None, None) => {}
    }
    settings.add_environment(variables);
    settings.add_flags(flags);
    let server = Server::read(&mut settings);
    let http = Http::read(&mut settings);
    let tls = Tls::read(&mut settings, http.as_ref().is_some_and(|http| http.tls));
    let (auth, rights) = Auth::read(&mut settings);
    let config = Config {
        server,
        tls,
        http,
        auth,
        shutdown: Shutdown::read(&mut settings),
        limits: Limits::read(&mut settings),
        dialects: Dialects::read(&mut settings),
        redis: Redis::read(&mut settings),
        upstream: Upstream::read(&mut settings),
        breaker: Breaker::read(&mut settings),
        fallback: Fallback::read(&mut settings),
        deny_cache: DenyCache::read(&mut settings),
        embedded: Embedded::read(&mut settings),
        log: Log::read(&mut settings),
        policies: Policies { file: settings.file_path(), of_file: settings.take_policies(), rights },
    };
    if config.server.listen.is_empty() && config.tls.iter().all(|tls| tls.listen.is_empty()) {
        settings
            .conflict::<()>("server.listen", &format!("must be {ALLOWED_LISTEN}, while tls.listen has none either"));
    }
    if config.auth == Auth::Redis && config.embedded.enabled {
        settings.conflict::<()>("auth.mode", "needs a Redis to ask, and embedded.enabled = true has none behind");
    }
    if config.http.iter().any(|http| http.lets_nobody_in(&config.auth)) {
        let rule = "needs http.token or http.token_file with auth.mode = 'redis', whose users only Redis knows";
        settings.conflict::<()>("http.listen", rule);
    }
    if config.embedded.enabled {
        check_embedded(&mut settings);
    }
    let (report, warnings) = settings.finish()?;
    Ok(Loaded { config, report, warnings })
}

/// Whoever names a Redis beside embedded.enabled = true would find nothing in it. To set that over what names one is a
/// way to try something out, which is said and no more; and the file may name one, as the example does.
fn check_embedded(settings: &mut Settings) {
    let (Some(embedded), Some(addr)) = (settings.origin("embedded.enabled"), settings.origin("redis.addr")) else {
        return;
    };
    let rule = format!("embedded.enabled = true ({embedded}) leaves no Redis behind");
    match addr.layer {
        SettingsLayer::File => {}
        layer if layer < embedded.layer => settings.warn("redis.addr", &format!("has no effect: {rule}")),
        _ => drop(settings.conflict::<()>("redis.addr", &rule)),
    }
}

/// `[policies]`: limits with names.
#[derive(Debug, Clone)]
pub struct Policies {
    /// The file of the configuration, if there is one.
    pub file: Option<PathBuf>,
    /// What it says of policies.
    pub of_file: Vec<(PolicyName, Layer)>,
    /// `auth.policies`: who may change them while Tollgate runs.
    pub rights: PolicyRights,
}

/// `[server]`: the listeners and what one client may use.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where to listen without TLS: 0 to [`MAX_LISTEN`] addresses, at least one unless [`Tls`] has some. Port 0 takes a
    /// free port.
    pub listen: Vec<HostPort>,
    /// Where clients of clusters are told that Tollgate is, if not where they have connected to. Port 0 is that to which
    /// they have.
    pub announce: Option<HostPort>,
    /// Worker threads, 1 to 1,024. A configured 0 has become one per core here.
    pub workers: NonZero<usize>,
    /// Maximum concurrent clients, 1 to 1,000,000.
    pub max_clients: usize,
    /// A client that is silent for so long is closed: 1 s to a year, or never.
    pub idle_timeout: Option<Duration>,
    /// How long a client may take to log in, where it must: 1 s to an hour, or for ever.
    pub login_timeout: Option<Duration>,
    /// Most unanswered bytes of one client's requests: 1 MiB to 1 TiB.
    pub query_buffer_bytes: usize,
    /// Longest single argument: 1 MiB to 1 TiB, as Redis's `proto-max-bulk-len`.
    pub max_bulk_bytes: usize,
    /// Connections that the kernel holds until they are accepted, 1 to 65,535 (it may allow fewer).
    pub backlog: u32,
    /// Whether other processes may listen on the same addresses, if they say so too.
    pub reuse_port: bool,
    /// Silence before the kernel asks whether a client is still there: 1 to 32,767 s, or never.
    pub tcp_keepalive: Option<Duration>,
    /// Longest time that a worker looks for its next event before it sleeps: 0 to 10,000 us, 0 for never.
    pub busy_poll_us: u64,
    /// Whether a worker that is busy with many clients interrupts nobody else on its core.
    pub sched_batch: bool,
    /// Whether remote clients are refused while nothing asks them for a password.
    pub protected_mode: bool,
}

impl Server {
    fn read(settings: &mut Settings) -> Self {
        const BYTES: RangeInclusive<usize> = 1 << 20..=1 << 40;
        let local = HostPort { host: "127.0.0.1".to_owned(), port: 6380 };
        Self {
            listen: settings.parsed("server.listen", Listen(vec![local]), Listen::from_str).0,
            announce: settings.optional("server.announce", HostPort::parse_announce, HostPort::to_string),
            workers: workers(settings.int("server.workers", 0, 0..=1024)),
            max_clients: settings.int("server.max_clients", 10_000, 1..=1_000_000),
            idle_timeout: some_seconds(settings.int("server.idle_timeout", 0, 0..=31_536_000)),
            login_timeout: some_seconds(settings.int("server.login_timeout", 60, 0..=3600)),
            query_buffer_bytes: settings.int("server.query_buffer_bytes", 1 << 30, BYTES),
            max_bulk_bytes: settings.int("server.max_bulk_bytes", 512 << 20, BYTES),
            backlog: settings.int("server.backlog", 511, 1..=65_535),
            reuse_port: settings.bool("server.reuse_port", false),
            busy_poll_us: settings.int("server.busy_poll_us", 200, 0..=10_000),
            sched_batch: settings.bool("server.sched_batch", true),
            // Linux takes no more than 32,767 s for TCP_KEEPIDLE.
            tcp_keepalive: some_seconds(settings.int("server.tcp_keepalive", 300, 0..=32_767)),
            protected_mode: settings.bool("server.protected_mode", true),
        }
    }
}

/// `[shutdown]`: the way out.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// How long clients are still taken and served, so that load balancers see that they should send no more: 0 to
    /// 10 min.
    pub delay: Duration,
    /// Longest wait, after that, for what was received to be answered, 0 to 10 min.
    pub grace: Duration,
}

impl Shutdown {
    fn read(settings: &mut Settings) -> Self {
        Self {
            delay: settings.millis("shutdown.delay_ms", 0, 0..=600_000),
            grace: settings.millis("shutdown.grace_ms", 5000, 0..=600_000),
        }
    }
}

/// `[redis]`: the upstream Redis.
#[derive(Debug, Clone)]
pub struct Redis {
    /// Where it is, and who to be there.
    pub addr: RedisAddr,
    /// What it is.
    pub mode: RedisMode,
    /// Longest that a check waits for it, 1 ms to 1 min.
    pub timeout: Duration,
    /// Longest that dialling it for the shared connections may take, 1 ms to 1 min.
    pub connect_timeout: Duration,
    /// Silence before the kernel asks whether it is still there: 1 to 32,767 s, or never.
    pub tcp_keepalive: Option<Duration>,
    /// A connection that does not take what is sent for so long is given up: 1 ms to 1 h, or not for that.
    pub tcp_user_timeout: Option<Duration>,
    /// Before a cluster, each run of a script declares its keys, and so is of one slot, even where nodes take more.
    pub declare_keys: bool,
    /// What a primary has admitted in its last so long is written to the one that takes its place: 0 to 1 min.
    pub replay: Duration,
    /// What each of Tollgate's keys in Redis begins with: 1 to 64 bytes without braces, which would move the part of
    /// the name that decides the cluster slot.
    pub prefix: String,
    /// Certificates to trust in place of the system's, PEM. For `rediss://` only.
    pub ca_file: Option<PathBuf>,
    /// The certificate and key to show to Redis. For `rediss://` only.
    pub client_cert: Option<ClientCert>,
}

/// A certificate chain and its private key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// `redis.cert_file`.
    pub cert_file: PathBuf,
    /// `redis.key_file`.
    pub key_file: PathBuf,
}

impl Redis {
    /// Whether it is a cluster, as far as that is configured.
    pub fn is_cluster(&self) -> bool {
        self.mode == RedisMode::Cluster || matches!(self.addr.transport, Transport::Cluster(_))
    }

    fn read(settings: &mut Settings) -> Self {
        let addr = RedisAddr::read(settings);
        Self {
            mode: RedisMode::read(settings, &addr),
            addr,
            timeout: settings.millis("redis.timeout_ms", 50, 1..=60_000),
            connect_timeout: settings.millis("redis.connect_timeout_ms", 1000, 1..=60_000),
            tcp_keepalive: some_seconds(settings.int("redis.tcp_keepalive", 60, 0..=32_767)),
            tcp_user_timeout: some(settings.millis("redis.tcp_user_timeout_ms", 30_000, 0..=3_600_000)),
            declare_keys: settings.bool("redis.declare_keys", false),
            replay: settings.millis("redis.replay_ms", 2_000, 0..=60_000),
            prefix: settings.parsed("redis.prefix", "rl:".to_owned(), parse_prefix),
            ca_file: settings.path("redis.ca_file"),
            client_cert: match (settings.path("redis.cert_file"), settings.path("redis.key_file")) {
                (Some(cert_file), Some(key_file)) => Some(ClientCert { cert_file, key_file }),
                (None, None) => None,
                (Some(_), None) => settings.conflict("redis.cert_file", "must come with redis.key_file"),
                (None, Some(_)) => settings.conflict("redis.key_file", "must come with redis.cert_file"),
            },
        }
    }
}

/// `[upstream]`: the connections that clients get of their own.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Longest that dialling Redis for a client may take, 1 ms to 1 min.
    pub connect_timeout: Duration,
    /// How long nothing may come on such a connection, while Redis answers no checks either, before what it owes is
    /// answered without: 100 ms to an hour.
    pub stall: Duration,
    /// How a command ends that needs Redis while it is down.
    pub when_down: WhenDown,
}

/// How a command ends that needs Redis while it is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDown {
    /// By an error that client libraries take for that of a server which will be there soon.
    Loading,
    /// With the connection, once what was asked before is answered.
    Close,
}

impl fmt::Display for WhenDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loading => "loading",
            Self::Close => "close",
        })
    }
}

impl Upstream {
    fn read(settings: &mut Settings) -> Self {
        Self {
            connect_timeout: settings.millis("upstream.connect_timeout_ms", 1000, 1..=60_000),
            stall: settings.millis("upstream.stall_ms", 10_000, 100..=3_600_000),
            when_down: settings.one_of("upstream.when_down", WhenDown::Loading, &[WhenDown::Loading, WhenDown::Close]),
        }
    }
}

/// `[breaker]`: when checks stop asking Redis.
#[derive(Debug, Clone)]
pub struct Breaker {
    /// Failures in a row that open it, 1 to 1,000,000.
    pub failures: u32,
    /// Wait before the first probe, 1 ms to 1 min; each that fails doubles it.
    pub probe_min: Duration,
    /// Longest wait between probes, `probe_min` to 10 min.
    pub probe_max: Duration,
}

impl Breaker {
    fn read(settings: &mut Settings) -> Self {
        let breaker = Self {
            failures: settings.int("breaker.failures", 3, 1..=1_000_000),
            probe_min: settings.millis("breaker.probe_min_ms", 100, 1..=60_000),
            probe_max: settings.millis("breaker.probe_max_ms", 2000, 1..=600_000),
        };
        if breaker.probe_min > breaker.probe_max {
            settings.conflict::<()>("breaker.probe_max_ms", "must be breaker.probe_min_ms or more");
        }
        breaker
    }
}

/// `[fallback]`: the answers while Redis cannot be asked.
#[derive(Debug, Clone)]
pub struct Fallback {
    /// What kind of answer.
    pub mode: FallbackMode,
    /// The share of each limit that one Tollgate hands out locally: 0 < ratio <= 1.
    pub ratio: f64,
    /// Most local buckets, 1 to 1,000,000,000.
    pub max_keys: usize,
}

impl Fallback {
    fn read(settings: &mut Settings) -> Self {
        Self {
            mode: settings.one_of("fallback.mode", FallbackMode::Local, &FallbackMode::ALL),
            ratio: settings.parsed("fallback.ratio", 0.5, parse_ratio),
            max_keys: settings.int("fallback.max_keys", 1_000_000, 1..=1_000_000_000),
        }
    }
}

/// `[deny_cache]`: denials that hold without asking Redis.
#[derive(Debug, Clone)]
pub struct DenyCache {
    /// Longest that a denial is repeated without asking: 1 ms to 1 h, or the cache is off.
    pub max_hold: Option<Duration>,
    /// Most denials held, 1 to 1,000,000,000.
    pub max_keys: usize,
}

impl DenyCache {
    fn read(settings: &mut Settings) -> Self {
        let max_hold = settings.millis("deny_cache.max_ms", 1000, 0..=3_600_000);
        Self { max_hold: some(max_hold), max_keys: settings.int("deny_cache.max_keys", 100_000, 1..=1_000_000_000) }
    }
}

/// `[embedded]`: the log without a Redis.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Whether there is no upstream Redis.
    pub enabled: bool,
    /// Most logs (one per key and window), 1 to 1,000,000,000.
    pub max_keys: usize,
    /// Most entries of all logs together, 1 to 1,000,000,000.
    pub max_entries: usize,
}

impl Embedded {
    fn read(settings: &mut Settings) -> Self {
        Self {
            enabled: settings.bool("embedded.enabled", false),
            max_keys: settings.int("embedded.max_keys", 1_000_000, 1..=1_000_000_000),
            max_entries: settings.int("embedded.max_entries", 50_000_000, 1..=1_000_000_000),
        }
    }
}

/// 0 stands for one per core.
fn workers(configured: usize) -> NonZero<usize> {
    NonZero::new(configured).unwrap_or_else(|| available_parallelism().unwrap_or(NonZero::<usize>::MIN))
}

fn some_seconds(seconds: u64) -> Option<Duration> {
    some(Duration::from_secs(seconds))
}

/// 0 stands for never.
fn some(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

fn parse_prefix(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 if !text.contains(['{', '}']) => Ok(text.to_owned()),
        _ => Err("1 to 64 bytes without braces".to_owned()),
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| *ratio > 0.0 && *ratio <= 1.0);
    ratio.ok_or_else(|| "a number above 0 and up to 1".to_owned())
}
