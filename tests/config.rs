//! The layers of the configuration, through the library, and the command line, through the real binary.

// Clippy's settings allow these in test functions; the helpers beside them are as much of a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "config/readme.rs"]
mod readme;
#[path = "config/secrets.rs"]
mod secrets;
#[path = "config/variables.rs"]
mod variables;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tollgate::config::{
    self, Auth, ClientCerts, ClusterAddr, Commands, Config, FallbackMode, Flag, HostPort, Http, Loaded, LogFormat,
    PasswordHash, ReadyWhen, RedisAddr, RedisMode, SentinelAddr, Tls, Transport, User,
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tollgate.example.toml");

fn load(file: Option<&Path>, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Loaded, String> {
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    config::load(file, environment, flags)
}

fn from_environment(environment: &[(&str, &str)]) -> Result<Config, String> {
    load(None, environment, &[]).map(|loaded| loaded.config)
}

/// A file that lives as long as the directory beside it.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

/// The one mistake of a file, without the file's name.
fn file_mistake(text: &str) -> String {
    let (_dir, path) = file(text);
    let mistake = load(Some(&path), &[], &[]).unwrap_err();
    mistake.strip_prefix(&format!("{}: ", path.display())).expect("the file's name comes first").to_owned()
}

fn redis_addr(text: &str) -> Option<RedisAddr> {
    from_environment(&[("REDIS_ADDR", text)]).ok().map(|config| config.redis.addr)
}

fn host_port(host: &str, port: u16) -> HostPort {
    HostPort { host: host.to_owned(), port }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = from_environment(&[]).unwrap();
    assert_eq!(config.server.listen, [host_port("127.0.0.1", 6380)]);
    assert_eq!(config.server.announce, None);
    assert_eq!(config.server.workers, std::thread::available_parallelism().unwrap());
    assert_eq!(config.server.max_clients, 10_000);
    assert_eq!(config.server.idle_timeout, None);
    assert_eq!(config.server.query_buffer_bytes, 1_073_741_824);
    assert_eq!(config.server.max_bulk_bytes, 536_870_912);
    assert_eq!(config.server.backlog, 511);
    assert_eq!(config.server.tcp_keepalive, Some(Duration::from_secs(300)));
    assert_eq!(config.server.busy_poll_us, 200);
    assert!(config.server.sched_batch);
    assert!(config.server.protected_mode && !config.server.reuse_port);
    assert_eq!((config.http, config.tls, config.auth), (None, None, Auth::None));
    assert_eq!((config.shutdown.delay, config.shutdown.grace), (Duration::ZERO, Duration::from_secs(5)));
    let limits = config.limits;
    assert_eq!((limits.limit, limits.window_ms, limits.cost), (1_000_000_000, 366 * 24 * 3_600_000, 1_000_000));
    assert_eq!((limits.windows, limits.reset_keys, limits.windows_in_use), (8, 1_000_000, 1024));
    assert_eq!((config.dialects.cl_throttle, config.dialects.cl_prefix.as_str()), (true, ""));
    assert_eq!(config.redis.addr.transport, Transport::Tcp(host_port("localhost", 6379)));
    assert_eq!(config.redis.mode, RedisMode::Auto);
    assert_eq!(config.redis.timeout, Duration::from_millis(50));
    assert_eq!(config.redis.connect_timeout, Duration::from_secs(1));
    assert_eq!(config.redis.tcp_keepalive, Some(Duration::from_secs(60)));
    assert_eq!(config.redis.tcp_user_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.redis.prefix, "rl:");
    assert_eq!((config.redis.ca_file, config.redis.client_cert), (None, None));
    assert_eq!(config.upstream.connect_timeout, Duration::from_secs(1));
    assert_eq!(config.breaker.failures, 3);
    assert_eq!(config.breaker.probe_min, Duration::from_millis(100));
    assert_eq!(config.breaker.probe_max, Duration::from_secs(2));
    assert_eq!(config.fallback.mode, FallbackMode::Local);
    assert_eq!(config.fallback.ratio, 0.5);
    assert_eq!(config.fallback.max_keys, 1_000_000);
    assert_eq!(config.deny_cache.max_hold, Some(Duration::from_secs(1)));
    assert_eq!(config.deny_cache.max_keys, 100_000);
    assert!(!config.embedded.enabled);
    assert_eq!(config.embedded.max_keys, 1_000_000);
    assert_eq!(config.embedded.max_entries, 50_000_000);
    assert_eq!(config.log.level.to_string(), "info");
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.denials_per_s, 0);
}

#[test]
fn http_is_served_where_it_is_told_to_be() {
    let (_dir, path) = file(
        "http = { listen = ':9090', tls = true, ready_when = 'exact', token = 't' }\n\
         tls = { cert_file = 'c', key_file = 'k' }\nauth.mode = 'redis'",
    );
    let config = load(Some(&path), &[], &[]).unwrap().config;
    let token = Some(PasswordHash::of(b"t"));
    let http = Http { listen: vec![host_port("", 9090)], tls: true, token, ready_when: ReadyWhen::Exact };
    assert_eq!(config.http, Some(http));
    // There is a certificate, and nobody else speaks TLS.
    assert_eq!(config.tls.unwrap().listen, []);
    assert_eq!(config.server.listen, [host_port("127.0.0.1", 6380)]);
}

/// `section.name = value` of each line of a file or report, comments left out.
fn settings(text: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut settings = BTreeSet::new();
    for line in text.lines().map(|line| line.split(" #").next().unwrap().trim()) {
        match line.strip_prefix('[') {
            Some(rest) => section = rest.trim_end_matches(']'),
            None if line.is_empty() || line.starts_with('#') => {}
            None => drop(settings.insert(format!("{section}.{line}"))),
        }
    }
    settings
}

#[test]
fn the_example_file_sets_every_key_to_its_default() {
    let defaults = load(None, &[], &[]).unwrap().report;
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    assert_eq!(settings(&example), settings(&defaults));
    assert!(load(Some(Path::new(EXAMPLE)), &[], &[]).is_ok());
    let known = defaults.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(" =")).map(|(key, _)| key);
    for key in known.chain(["name", "password_sha256", "commands", "key_prefix"]) {
        assert!(example.contains(&format!("\n# {key} = ")), "{key} is not in the example");
    }
}

#[test]
fn a_report_is_a_file_that_sets_the_same() {
    let given = [
        ("TOLLGATE_REDIS__PREFIX", "a\"b\\c#\t\u{7f}"),
        ("TOLLGATE_SERVER__LISTEN", "[::1]:0,localhost:1"),
        ("TOLLGATE_AUTH__MODE", "redis"),
    ];
    let report = load(None, &given, &[]).unwrap().report;
    let (_dir, path) = file(&report);
    let config = load(Some(&path), &[], &[]).unwrap().config;
    assert_eq!(config.redis.prefix, "a\"b\\c#\t\u{7f}");
    assert_eq!(config.auth, Auth::Redis);
    assert_eq!(config.server.listen, [host_port("::1", 0), host_port("localhost", 1)]);
}

#[test]
fn flags_go_over_environment_over_file_over_defaults() {
    let (_dir, path) = file("[server]\nlisten = 'file:1'\nworkers = 1\nbacklog = 1\n[redis]\naddr = 'file:1'");
    let environment = [("TOLLGATE_SERVER__LISTEN", "env:2"), ("TOLLGATE_SERVER__WORKERS", "2")];
    let flags = [Flag { name: "--listen", key: "server.listen", value: "flag:3".to_owned() }];
    let loaded = load(Some(&path), &environment, &flags).unwrap();
    let server = &loaded.config.server;
    assert_eq!(server.listen, [host_port("flag", 3)]);
    assert_eq!(server.workers.get(), 2);
    assert_eq!(server.backlog, 1);
    assert_eq!(server.max_clients, 10_000);
    let source = |key: &str| {
        let line = loaded.report.lines().find(|line| line.starts_with(key)).unwrap();
        line.rsplit_once("# ").unwrap().1.to_owned()
    };
    assert_eq!(source("listen"), "--listen");
    assert_eq!(source("workers"), "TOLLGATE_SERVER__WORKERS");
    assert_eq!(source("backlog"), path.display().to_string());
    assert_eq!(source("max_clients"), "default");
}

#[test]
fn redis_addr_has_a_variable_of_its_own_below_the_regular_one() {
    let host = |environment: &[(&str, &str)]| from_environment(environment).unwrap().redis.addr.to_string();
    assert_eq!(host(&[("REDIS_ADDR", "a:1")]), "a:1");
    assert_eq!(host(&[("TOLLGATE_REDIS__ADDR", "b:2"), ("REDIS_ADDR", "a:1")]), "b:2");
    assert_eq!(host(&[("REDIS_ADDR", "a:1"), ("TOLLGATE_REDIS__ADDR", "b:2")]), "b:2");
}

#[test]
fn variables_that_are_not_settings_are_left_alone() {
    let others = [("TOLLGATE_PORT", "tcp://10.0.0.1:6380"), ("TOLLGATE_BIN", "x"), ("REDIS_PORT", "1"), ("A__B", "1")];
    assert!(from_environment(&others).is_ok());
}

#[test]
fn a_mistake_names_its_place_its_key_its_value_and_what_is_allowed() {
    let table = [
        ("[redis]\ntimeout_ms = 0", "redis.timeout_ms = '0': must be an integer from 1 to 60000"),
        ("redis.timeout_ms = 60001", "redis.timeout_ms = '60001': must be an integer from 1 to 60000"),
        ("redis.timeout_ms = 1.5", "redis.timeout_ms = '1.5': must be an integer from 1 to 60000"),
        ("redis.timeout_ms = true", "redis.timeout_ms = 'true': must be an integer from 1 to 60000"),
        ("redis.timeout_ms = -1", "redis.timeout_ms = '-1': must be an integer from 1 to 60000"),
        ("redis.prefix = ''", "redis.prefix = '': must be 1 to 64 bytes without braces"),
        ("redis.prefix = 'a{b'", "redis.prefix = 'a{b': must be 1 to 64 bytes without braces"),
        ("redis.ca_file = ''", "redis.ca_file = '': must be the path of a file"),
        ("redis.cert_file = 'c'", "redis.cert_file = 'c': must come with redis.key_file"),
        ("redis.key_file = 'k'", "redis.key_file = 'k': must come with redis.cert_file"),
        ("server.protected_mode = 1", "server.protected_mode = '1': must be true or false"),
        ("server.workers = 1025", "server.workers = '1025': must be an integer from 0 to 1024"),
        ("fallback.mode = 'Local'", "fallback.mode = 'Local': must be local or open or closed or error"),
        ("fallback.ratio = 0", "fallback.ratio = '0': must be a number above 0 and up to 1"),
        ("fallback.ratio = 1.01", "fallback.ratio = '1.01': must be a number above 0 and up to 1"),
        ("fallback.ratio = nan", "fallback.ratio = 'NaN': must be a number above 0 and up to 1"),
        ("log.format = 'xml'", "log.format = 'xml': must be text or json"),
        (
            "breaker.probe_min_ms = 500\nbreaker.probe_max_ms = 499",
            "breaker.probe_max_ms = '499': must be breaker.probe_min_ms or more",
        ),
        (
            "redis.timeout = 1",
            "unknown key 'redis.timeout': [redis] has addr, addr_file, user, password, password_file, mode, timeout_ms, ",
        ),
        (
            "Redis.addr = 'a:1'",
            "unknown key 'Redis.addr': the sections are server, http, tls, auth, shutdown, limits, dialects, redis, ",
        ),
        ("listen = 'a:1'", "unknown key 'listen': the sections are server, "),
        ("auth.mode = 'acl'", "auth.mode = 'acl': must be none or password or redis"),
        ("auth.mode = 'password'", "auth.mode = 'password': needs auth.password or [[auth.users]]"),
        ("auth = { mode = 'password', password = '' }", "auth.password = '': must be 1 to 1024 bytes without "),
        ("auth = { mode = 'password', password = '***' }", "auth.password = '***': must be 1 to 1024 bytes without "),
        ("auth.password = 'hunter2'", "auth.password = '***': needs auth.mode = 'password'"),
        ("auth = { mode = 'redis', password = 'hunter2' }", "auth.password = '***': needs auth.mode = 'password'"),
        (
            "auth.mode = 'redis'\nembedded.enabled = true",
            "auth.mode = 'redis': needs a Redis to ask, and embedded.enabled = true has none behind",
        ),
        ("auth.users = 'a,b'", "auth.users: must be tables in the file, each below a line [[auth.users]]"),
        ("tls.listen = 'a:1'", "tls.listen = 'a:1': needs tls.cert_file and tls.key_file"),
        ("tls = { listen = 'a:1', key_file = 'k' }", "tls.listen = 'a:1': needs tls.cert_file and tls.key_file"),
        ("tls.listen = 'a'", "tls.listen = 'a': must be host:port, "),
        ("tls.cert_file = 'c'", "tls.cert_file = 'c': needs tls.listen, or http.tls = true"),
        ("http.tls = true", "http.tls = 'true': needs http.listen"),
        ("http.token = 'hunter2'", "http.token = '***': needs http.listen"),
        ("http = { listen = 'a:1', token = ' ' }", "http.token = '***': must be 1 to 1024 bytes without "),
        ("http = { listen = 'a:1', tls = true }", "http.tls = 'true': needs tls.cert_file and tls.key_file"),
        ("http.ready_when = 'up'", "http.ready_when = 'up': must be serving or exact"),
        (
            "auth.mode = 'redis'\nhttp.listen = 'a:1'",
            "http.listen = 'a:1': needs http.token or http.token_file with auth.mode = 'redis', whose users ",
        ),
        ("tls.client_auth = 'required'", "tls.client_auth = 'required': needs tls.ca_file"),
        (
            "tls = { listen = 'a:1', cert_file = 'c', key_file = 'k', ca_file = 'a' }",
            "tls.ca_file = 'a': needs tls.client_auth = 'optional' or 'required'",
        ),
        ("redis.addr.host = 'a'", "unknown key 'redis.addr.host': [redis] has addr, "),
        ("redis = 5", "unknown key 'redis': [redis] has addr, "),
    ];
    for (text, expected) in table {
        let mistake = file_mistake(text);
        assert!(mistake.starts_with(expected), "{text}\n  gave {mistake}\n  not  {expected}");
    }
}

#[test]
fn every_mistake_of_every_layer_is_told_at_once() {
    let (_dir, path) = file("server.backlog = 0\nsever.backlog = 1");
    let environment =
        [("TOLLGATE_SERVER__BACKLOG", "5"), ("TOLLGATE_SERVER__BACKLOGS", "5"), ("REDIS_ADDR", "no where")];
    let flags = [Flag { name: "--workers", key: "server.workers", value: "many".to_owned() }];
    let mistakes = load(Some(&path), &environment, &flags).unwrap_err();
    let file = path.display();
    let starts = [
        "--workers: server.workers = 'many': must be an integer".to_owned(),
        format!("{file}: server.backlog = '0': must be an integer"),
        "REDIS_ADDR: redis.addr = 'no where': must be host[:port], ".to_owned(),
        "TOLLGATE_SERVER__BACKLOGS: unknown key 'server.backlogs': [server] has listen, ".to_owned(),
        format!("{file}: unknown key 'sever.backlog': the sections are "),
    ];
    for (line, start) in mistakes.lines().zip(&starts) {
        assert!(line.starts_with(start), "{line}\n  does not start with {start}");
    }
    assert_eq!(mistakes.lines().count(), starts.len(), "{mistakes}");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let missing = load(Some(Path::new("no/such.toml")), &[], &[]).unwrap_err();
    assert!(missing.starts_with("no/such.toml: No such file"), "{missing}");
    let broken = file_mistake("[redis]\naddr = 'redis://:hunter2@host\n");
    assert!(broken.starts_with("TOML parse error at line 2, column "), "{broken}");
    assert!(!broken.contains("hunter2") && !broken.contains('\n'), "{broken}");
}

#[test]
fn numbers_may_be_written_as_toml_allows() {
    let (_dir, path) = file("fallback = { max_keys = 2_000_000, ratio = 1 }\nembedded.max_keys = 0x10");
    let config = load(Some(&path), &[], &[]).unwrap().config;
    assert_eq!((config.fallback.max_keys, config.fallback.ratio, config.embedded.max_keys), (2_000_000, 1.0, 16));
}

#[test]
fn zero_turns_off_what_can_be_off() {
    let config = from_environment(&[("TOLLGATE_DENY_CACHE__MAX_MS", "0"), ("TOLLGATE_SERVER__TCP_KEEPALIVE", "0")]);
    let config = config.unwrap();
    assert_eq!((config.deny_cache.max_hold, config.server.tcp_keepalive), (None, None));
}

#[test]
fn listen_takes_one_address_or_several() {
    let listen = |text: &str| from_environment(&[("TOLLGATE_SERVER__LISTEN", text)]).ok().map(|c| c.server.listen);
    assert_eq!(listen("0.0.0.0:0"), Some(vec![host_port("0.0.0.0", 0)]));
    assert_eq!(
        listen("[::]:1, my-host.local:65535"),
        Some(vec![host_port("::", 1), host_port("my-host.local", 65535)])
    );
    // A port alone, and all interfaces.
    assert_eq!(listen("7000"), Some(vec![host_port("127.0.0.1", 7000)]));
    assert_eq!(listen(":7000, 0"), Some(vec![host_port("", 7000), host_port("127.0.0.1", 0)]));
    let refused = [
        "",
        ":",
        "host",
        "host:",
        "host:65536",
        "host:+1",
        ":+1",
        "+1",
        "65536",
        ":65536",
        "1:1",
        "::1:1",
        "[::1]",
        "[host]:1",
        "a:1,",
        "a b:1",
        "a/b:1",
    ];
    for text in refused.into_iter().chain([vec!["a:1"; 17].join(",").as_str()]) {
        assert_eq!(listen(text), None, "{text}");
    }
    let (_dir, path) = file("server.listen = ['a:1', '[::1]:2']");
    let config = load(Some(&path), &[], &[]).unwrap().config;
    assert_eq!(config.server.listen, [host_port("a", 1), host_port("::1", 2)]);
    assert!(file_mistake("server.listen = []").starts_with("server.listen = '': must be host:port, "));
}

#[test]
fn what_is_announced_is_a_host_and_perhaps_a_port() {
    let announce = |text: &str| from_environment(&[("TOLLGATE_SERVER__ANNOUNCE", text)]).ok()?.server.announce;
    for (text, host, port) in [
        ("tollgate.example.com:6380", "tollgate.example.com", 6380),
        ("10.0.0.7", "10.0.0.7", 0),
        ("[2001:db8::7]", "2001:db8::7", 0),
        ("[2001:db8::7]:1", "2001:db8::7", 1),
    ] {
        assert_eq!(announce(text), Some(host_port(host, port)), "{text}");
    }
    for refused in ["", ":6380", "6380", "2001:db8::7", "a b", "a:65536", "a:1,b:1"] {
        assert_eq!(announce(refused), None, "{refused}");
    }
}

#[test]
fn tls_listens_beside_the_plain_listeners_or_instead() {
    let (_dir, path) = file(
        "server.listen = []\n[tls]\nlisten = ['a:1', '[::1]:2']\ncert_file = 'c'\nkey_file = 'k'\nca_file = 'a'\n\
         client_auth = 'optional'",
    );
    let mut config = load(Some(&path), &[], &[]).unwrap().config;
    let mut expected = Tls {
        listen: vec![host_port("a", 1), host_port("::1", 2)],
        cert_file: "c".into(),
        key_file: "k".into(),
        client_certs: Some(ClientCerts { ca_file: "a".into(), required: false }),
    };
    assert_eq!((&config.server.listen[..], &config.tls), (&[][..], &Some(expected.clone())));
    let required = [("TOLLGATE_TLS__CLIENT_AUTH", "required"), ("TOLLGATE_SERVER__LISTEN", "b:1")];
    config = load(Some(&path), &required, &[]).unwrap().config;
    expected.client_certs = Some(ClientCerts { ca_file: "a".into(), required: true });
    assert_eq!((&config.server.listen[..], config.tls), (&[host_port("b", 1)][..], Some(expected)));
}

const SECRET_SHA256: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// A file of mode `password` with these tables below it.
fn users(tables: &[&str]) -> String {
    let tables = tables.iter().map(|table| format!("[[auth.users]]\n{table}\n"));
    format!("[auth]\nmode = 'password'\n{}", tables.collect::<String>())
}

fn with_secret(table: &str) -> String {
    format!("password_sha256 = '{SECRET_SHA256}'\n{table}")
}

#[test]
fn users_have_names_passwords_and_what_they_may_do() {
    let upper = SECRET_SHA256.to_uppercase();
    let text = users(&[
        &with_secret("name = 'admin'"),
        &format!(
            "name = 'shop'\npassword_sha256 = ['{upper}', '{}']\ncommands = 'rl-only'\nkey_prefix = 'shop:'",
            "0".repeat(64)
        ),
    ]);
    let (_dir, path) = file(&text);
    let loaded = load(Some(&path), &[("TOLLGATE_AUTH__PASSWORD", "hunter2")], &[]).unwrap();
    let user = |name: &str, passwords: Vec<PasswordHash>, commands, key_prefix: &str| User {
        name: name.to_owned(),
        passwords,
        commands,
        key_prefix: key_prefix.to_owned(),
    };
    let secret = PasswordHash::of(b"secret");
    let expected = vec![
        user("default", vec![PasswordHash::of(b"hunter2")], Commands::All, ""),
        user("admin", vec![secret.clone()], Commands::All, ""),
        user("shop", vec![secret, PasswordHash([0; 32])], Commands::RlOnly, "shop:"),
    ];
    assert_eq!(loaded.config.auth, Auth::Password(expected));
    for line in ["[auth]", "password = \"***\"", "[[auth.users]]", "name = \"shop\"", "password_sha256 = \"***\""] {
        assert!(loaded.report.lines().any(|shown| shown.starts_with(line)), "{line} is not in\n{}", loaded.report);
    }
    assert_eq!(loaded.report.matches("[[auth.users]]").count(), 2);
    let shown = format!("{loaded:?}").to_lowercase();
    assert!(!shown.contains("hunter2") && !shown.contains(SECRET_SHA256), "{shown}");
}

#[test]
fn a_mistake_in_a_user_names_which() {
    let hash_of_many = format!("['{}']", [SECRET_SHA256; 17].join("', '"));
    let table = [
        (users(&["name = 'a'"]), "auth.users[1].password_sha256 = '': must be the 64 hexadecimal digits of a "),
        (users(&[&with_secret("")]), "auth.users[1].name = '': must be 1 to 64 bytes without blanks"),
        (users(&[&with_secret("name = 'a b'")]), "auth.users[1].name = 'a b': must be 1 to 64 bytes"),
        (users(&["name = 'a'\npassword_sha256 = 'hunter2'"]), "auth.users[1].password_sha256 = '***': must be the 64"),
        (
            users(&[&format!("name = 'a'\npassword_sha256 = '+{}'", &SECRET_SHA256[1..])]),
            "auth.users[1].password_sha256 = '***': must be the 64",
        ),
        (users(&[&format!("name = 'a'\npassword_sha256 = {hash_of_many}")]), "auth.users[1].password_sha256 = '***': "),
        (
            users(&[&with_secret("name = 'a'\ncommands = 'none'")]),
            "auth.users[1].commands = 'none': must be all or admin or rl-only",
        ),
        (
            users(&[&with_secret("name = 'a'\nkey_prefix = 'ab'"), &with_secret("name = 'b'\nkey_prefix = 'a'")]),
            "auth.users[2].key_prefix = 'a': 'ab' is another user's: neither may begin with the other",
        ),
        (
            users(&[&with_secret("name = 'a'"), &with_secret("name = 'b'"), &with_secret("name = 'a'")]),
            "auth.users[3].name = 'a': is another user's",
        ),
        (
            users(&[&with_secret("name = 'a'"), &with_secret("name = 'b'\npassword = 'hunter2'")]),
            "unknown key 'auth.users[2].password': [[auth.users]] has name, password_sha256, commands, key_prefix",
        ),
        (
            users(&[&with_secret("name = 'a'")]).replace("'password'", "'none'"),
            "auth.users[1].name = 'a': needs auth.mode = 'password'",
        ),
        (users(&vec![with_secret("").as_str(); 1001]), "auth.users: must be at most 1000 tables"),
        (
            "[[users]]\nname = 'a'".to_owned(),
            "unknown key 'users[1].name': the sections are server, http, tls, auth, shutdown, ",
        ),
    ];
    for (text, expected) in table {
        let mistake = file_mistake(&text);
        assert!(mistake.starts_with(expected), "{text}\n  gave {mistake}\n  not  {expected}");
        assert!(!mistake.contains("hunter2"));
    }
    // One prefix for several users, and users without any, are meant.
    let shared = [
        with_secret("name = 'a'\nkey_prefix = 'p'"),
        with_secret("name = 'b'\nkey_prefix = 'p'"),
        with_secret("name = 'c'"),
    ];
    let (_dir, path) = file(&users(&shared.each_ref().map(String::as_str)));
    assert!(load(Some(&path), &[], &[]).is_ok());
}

#[test]
fn each_form_of_a_redis_address_says_where_and_who() {
    let tcp = |host: &str, port| Transport::Tcp(host_port(host, port));
    let tls = |host: &str| Transport::Tls(host_port(host, 6379));
    let unix = |path: &str| Transport::Unix(PathBuf::from(path));
    let table = [
        ("h", tcp("h", 6379), None, None, 0, "h:6379"),
        ("redis.internal", tcp("redis.internal", 6379), None, None, 0, "redis.internal:6379"),
        ("10.0.0.5", tcp("10.0.0.5", 6379), None, None, 0, "10.0.0.5:6379"),
        ("[::1]", tcp("::1", 6379), None, None, 0, "[::1]:6379"),
        ("h:1", tcp("h", 1), None, None, 0, "h:1"),
        ("[::1]:1", tcp("::1", 1), None, None, 0, "[::1]:1"),
        ("redis://h", tcp("h", 6379), None, None, 0, "h:6379"),
        ("redis://[::1]/3", tcp("::1", 6379), None, None, 3, "redis://[::1]:6379/3"),
        ("redis://:p%40ss@h:1/2", tcp("h", 1), None, Some("p@ss"), 2, "redis://:***@h:1/2"),
        ("redis://u:p@h", tcp("h", 6379), Some("u"), Some("p"), 0, "redis://u:***@h:6379/0"),
        ("redis://u:%23%2F%3F%40@h", tcp("h", 6379), Some("u"), Some("#/?@"), 0, "redis://u:***@h:6379/0"),
        ("rediss://u:p@h", tls("h"), Some("u"), Some("p"), 0, "rediss://u:***@h:6379/0"),
        ("valkey://h:1", tcp("h", 1), None, None, 0, "h:1"),
        ("valkeys://u:p@h/1", tls("h"), Some("u"), Some("p"), 1, "rediss://u:***@h:6379/1"),
        ("REDISS://xn--bcher-kva", tls("xn--bcher-kva"), None, None, 0, "rediss://xn--bcher-kva:6379/0"),
        ("unix:///run/r.sock", unix("/run/r.sock"), None, None, 0, "unix:///run/r.sock?db=0"),
        ("unix:///r?db=1&user=u&pass=p", unix("/r"), Some("u"), Some("p"), 1, "unix:///r?db=1&user=u&pass=***"),
    ];
    for (text, transport, user, password, db, shown) in table {
        let addr = redis_addr(text).unwrap_or_else(|| panic!("{text} is refused"));
        assert_eq!(addr.transport, transport, "{text}");
        assert_eq!((addr.user.as_deref(), addr.password.as_deref(), addr.db), (user, password, db), "{text}");
        assert_eq!(addr.to_string(), shown);
        assert_eq!(format!("{addr:?}"), shown);
    }
    let refused = [
        "",
        "6379",
        ":6379",
        "::1",
        "h:0",
        "h:+1",
        "h:x",
        "h:",
        "u:p@h:1",
        "http://h",
        "redis://",
        "redis://h:0",
        "rediss://h:0/1",
        "redis://6379",
        "redis://h:x",
        "redis://h/x",
        "redis://h/-1",
        "redis://secret@h",
        "redis://h?protocol=resp3",
        "redis://h/#insecure",
        "rediss://h/#insecure",
        "unix://h",
        "unix:///r?password=p",
    ];
    for text in refused {
        assert_eq!(redis_addr(text), None, "{text}");
    }
}

fn sentinel(sentinels: &[HostPort], login: Option<(&str, &str)>, has_tls: bool) -> Transport {
    let (user, password) = login.unzip();
    let [user, password] = [user, password].map(|word| word.filter(|word| !word.is_empty()).map(str::to_owned));
    Transport::Sentinel(SentinelAddr {
        sentinels: sentinels.to_vec(),
        name: "main".to_owned(),
        user,
        password,
        has_tls,
    })
}

#[test]
fn an_address_of_sentinels_or_a_cluster_names_some_of_them() {
    let s1 = host_port("s1", 26379);
    let two = [s1.clone(), host_port("::1", 5)];
    let cluster = |nodes: &[HostPort], has_tls| Transport::Cluster(ClusterAddr { nodes: nodes.to_vec(), has_tls });
    let table = [
        ("redis+sentinel://s1/main", sentinel(&two[..1], None, false), None, 0, "redis+sentinel://s1:26379/main/0"),
        (
            "redis+sentinel://u:p%40@s1,[::1]:5/main/3?sentinel_username=su&sentinel_password=s%26+p",
            sentinel(&two, Some(("su", "s&+p")), false),
            Some(("u", "p@")),
            3,
            "redis+sentinel://u:***@s1:26379,[::1]:5/main/3?sentinel_username=su&sentinel_password=***",
        ),
        (
            "Rediss+Sentinel://s1/main?sentinel_password=p",
            sentinel(&two[..1], Some(("", "p")), true),
            None,
            0,
            "rediss+sentinel://s1:26379/main/0?sentinel_password=***",
        ),
        ("redis+cluster://h", cluster(&[host_port("h", 6379)], false), None, 0, "redis+cluster://h:6379"),
        (
            "rediss+cluster://u:p@h,s1:26379/0",
            cluster(&[host_port("h", 6379), s1], true),
            Some(("u", "p")),
            0,
            "rediss+cluster://u:***@h:6379,s1:26379",
        ),
    ];
    for (text, transport, login, db, shown) in table {
        let addr = redis_addr(text).unwrap_or_else(|| panic!("{text} is refused"));
        assert_eq!(addr.transport, transport, "{text}");
        assert_eq!((addr.user.as_deref().zip(addr.password.as_deref()), addr.db), (login, db), "{text}");
        assert_eq!((addr.to_string(), format!("{addr:?}")), (shown.to_owned(), shown.to_owned()));
        assert!(!format!("{:?}", addr.transport).contains("s&"));
    }
    let refused = [
        ("redis+sentinel://s1", "with the name that the sentinels know the primary by"),
        ("redis+sentinel://s1/", "with the name that the sentinels know the primary by"),
        ("redis+sentinel://s1/a%20b", "with the name that the sentinels know the primary by"),
        ("redis+sentinel://s1/main/x", "redis+sentinel://"),
        ("redis+sentinel:///main", "with 1 to 16 hosts"),
        ("redis+sentinel://s1,/main", "with 1 to 16 hosts"),
        ("redis+sentinel://s1, s2/main", "with 1 to 16 hosts"),
        ("redis+sentinel://s1:0/main", "with 1 to 16 hosts"),
        ("redis+sentinel://bücher/main", "ASCII form, xn--"),
        ("redis+sentinel://pass@s1/main", "with a password beside the user"),
        ("redis+sentinel://s1/main?sentinel_username=u", "with sentinel_password beside"),
        ("redis+sentinel://s1/main?sentinel_password=***", "with the password itself"),
        ("redis+sentinel://s1/main?db=1", "with no other parameters"),
        ("redis+sentinel://s1/main?sentinel_password=a@b", "written as %23"),
        ("redis+sentinel://s1/main?sentinel_password=a#b", "written as %23"),
        ("redis+cluster://h/1", "without a database"),
        ("redis+cluster://h?x=1", "redis+cluster://"),
        ("redis+cluster://", "with 1 to 16 hosts"),
        ("http+cluster://h", "redis+cluster://"),
        ("redis+other://h", "redis+cluster://"),
    ];
    for (text, part) in refused {
        let mistake = from_environment(&[("REDIS_ADDR", text)]).unwrap_err();
        assert!(mistake.contains("must be host[:port], ") && mistake.contains(part), "{text} gave {mistake}");
    }
    let of = |count: usize| redis_addr(&format!("redis+cluster://{}", vec!["h"; count].join(",")));
    assert!(of(16).is_some() && of(17).is_none());
}

#[test]
fn a_mode_goes_with_the_address() {
    let load = |addr: &str, mode: &str| from_environment(&[("REDIS_ADDR", addr), ("TOLLGATE_REDIS__MODE", mode)]);
    let of_one = ["auto", "single", "sentinel", "cluster"].map(|mode| load("h", mode).unwrap().redis.mode);
    assert_eq!(of_one, [RedisMode::Auto, RedisMode::Single, RedisMode::Sentinel, RedisMode::Cluster]);
    assert!(load("redis+sentinel://h/main", "sentinel").is_ok() && load("redis+cluster://h", "cluster").is_ok());
    for (addr, mode, rule) in [
        ("redis+sentinel://h/main", "cluster", "redis.mode = 'cluster': redis.addr names sentinels"),
        ("redis+cluster://h", "single", "redis.mode = 'single': redis.addr names a cluster"),
        ("unix:///r", "cluster", "redis.mode = 'cluster': redis.addr names a socket"),
        ("h", "single or so", "redis.mode = 'single or so': must be auto or single or sentinel or cluster"),
    ] {
        let mistake = load(addr, mode).unwrap_err();
        assert!(mistake.contains(rule), "{mistake}");
    }
}

/// What a URL's own grammar makes of these is another address, or one that is refused for no reason that shows.
#[test]
fn an_address_that_needs_encoding_says_so() {
    for password in ["hun#ter2", "hun/ter2", "hun?ter2", "hun@ter2", "12#hunter2", "12/hunter2", "12?hunter2", "#", "@"]
    {
        for login in [format!("u:{password}"), format!(":{password}"), format!("{password}:hunter2")] {
            for address in [format!("redis://{login}@h:1"), format!("valkeys://{login}@h/1")] {
                let mistake = from_environment(&[("REDIS_ADDR", &address)]).unwrap_err();
                assert!(mistake.contains("written as %23, %2F, %3F, %40"), "{address} gave {mistake}");
                assert!(!mistake.contains("ter2"), "{mistake}");
            }
        }
    }
    for address in ["bücher", "bücher:6379", "redis://bücher:6379", "rediss://u:hunter2@bücher/1"] {
        let mistake = from_environment(&[("REDIS_ADDR", address)]).unwrap_err();
        assert!(mistake.contains("ASCII form, xn--") && !mistake.contains("hunter2"), "{address} gave {mistake}");
    }
}

#[test]
fn log_levels_are_not_mistaken_for_targets() {
    let level = |text: &str| from_environment(&[("TOLLGATE_LOG__LEVEL", text)]).map(|config| config.log.level);
    for text in ["off", "error", "trace", "warn,tollgate=debug", "tollgate::session=trace"] {
        assert!(level(text).is_ok(), "{text}");
    }
    for text in ["", "inof", "info,", "tollgate=", "=info", "tollgate=inof", "tollgate"] {
        assert!(level(text).is_err(), "{text}");
    }
}

/// No layer, right or wrong, gets a password printed.
#[test]
fn passwords_are_never_shown() {
    let right = load(None, &[("REDIS_ADDR", "redis://u:hunter2@h:1/2")], &[]).unwrap();
    assert!(right.report.contains("redis://u:***@h:1/2"), "{}", right.report);
    assert!(!format!("{right:?}").contains("hunter2"));
    for wrong in [
        "redis://u:hunter2@h:x",
        "redis://hunter2@h",
        "u:hunter2@h:1",
        "http://u:hunter2@h",
        "u:hunter2@://",
        "unix:///r?pass=hunter2&db=x",
        "redis://u:hunter2@h@h@",
        "redis://u:hunter2",
        "redis://u:hunter2%40h",
        "redis://u:hunter2#h",
        "u:1@hunter2#",
    ] {
        let mistake = from_environment(&[("REDIS_ADDR", wrong)]).unwrap_err();
        assert!(!mistake.contains("hunter2"), "{mistake}");
    }
    for text in ["redis.passwort = 'hunter2'", "auth.password = ['***', 'hunter2']", "auth.password.x = 'hunter2'"] {
        assert!(!file_mistake(text).contains("hunter2"));
    }
}

#[test]
fn a_long_or_multiline_value_is_shown_on_one_short_line() {
    let mistake = file_mistake(&format!("log.format = \"a\\n{}\"", "ü".repeat(1000)));
    assert!(mistake.starts_with("log.format = 'a\\nüü") && mistake.len() < 300, "{mistake}");
}

/// Runs the binary with these variables alone.
fn tollgate(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().envs(environment.iter().copied()).args(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn help_and_version_go_to_stdout_with_exit_0() {
    for flag in ["--help", "-h"] {
        let output = tollgate(&[flag], &[("REDIS_ADDR", "not read")]);
        assert_eq!(output.status.code(), Some(0));
        let flags = ["--config", "--listen", "--redis", "--embedded", "--workers", "--check-config", "--health"];
        for word in flags.into_iter().chain(["REDIS_ADDR", "REDIS_URL", "TOLLGATE_CONFIG", "_FILE"]) {
            assert!(stdout(&output).contains(word), "{word}");
        }
        assert!(stdout(&output).lines().count() <= 40 && stdout(&output).lines().all(|line| line.len() <= 100));
    }
    for flag in ["--version", "-V"] {
        let output = tollgate(&[flag], &[]);
        assert_eq!(output.status.code(), Some(0));
        // A release build knows its commit.
        let version = stdout(&output).strip_prefix(concat!("tollgate ", env!("CARGO_PKG_VERSION"))).unwrap();
        assert!(version == "\n" || version.starts_with(" (") && version.ends_with(")\n"), "{version}");
    }
}

#[test]
fn pages_for_packages_know_every_flag() {
    let help = tollgate(&["--help"], &[]);
    let of_flags = stdout(&help).lines().filter(|line| line.starts_with("  -"));
    let flags: Vec<&str> =
        of_flags.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--"))).collect();
    assert!(flags.len() > 10, "{flags:?}");
    for page in [&["--man"][..], &["--completions", "bash"], &["--completions", "zsh"], &["--completions=fish"]] {
        let output = tollgate(page, &[]);
        assert_eq!(output.status.code(), Some(0), "{page:?}");
        let text = stdout(&output).replace("\\-", "-");
        for flag in &flags {
            let name = if page[0].ends_with("fish") { flag.replace("--", "-l ") } else { flag.to_string() };
            assert!(text.contains(&name), "{flag} is not in {page:?}:\n{text}");
        }
    }
}

#[test]
fn check_config_prints_what_is_in_force() {
    let environment = [("REDIS_ADDR", "redis://:hunter2@h"), ("TOLLGATE_REDIS__TIMEOUT_MS", "20")];
    let args = ["--check-config", "--config", EXAMPLE, "--listen=[::1]:0", "--workers", "2", "--embedded"];
    let output = tollgate(&args, &environment);
    assert_eq!(output.status.code(), Some(0));
    let settings = settings(stdout(&output));
    for expected in [
        "server.listen = \"[::1]:0\"",
        "server.workers = 2",
        "redis.addr = \"redis://:***@h:6379/0\"",
        "redis.timeout_ms = 20",
        "embedded.enabled = true",
    ] {
        assert!(settings.contains(expected), "{expected} is not in {settings:?}");
    }
}

#[test]
fn a_bad_command_line_or_setting_goes_to_stderr_with_exit_2() {
    let table: [(&[&str], &str); 17] = [
        (&["--nope"], "unknown flag '--nope'"),
        (&["-x=1"], "unknown flag '-x'"),
        (&["redis://:hunter2@h"], "unexpected argument"),
        (&["--listen"], "--listen needs a value"),
        (&["--listen", "--embedded"], "--listen needs a value"),
        (&["--config"], "--config needs a value"),
        (&["--embedded=false"], "--embedded takes no value"),
        (&["--help=x"], "--help takes no value"),
        (&["--completions"], "--completions needs a value"),
        (&["--completions", "tcsh"], "--completions must be bash or zsh or fish"),
        (&["--health", "--check-config"], "--health comes without"),
        (&["--listen", "here"], "--listen: server.listen = 'here': must be host:port"),
        (&["--listen="], "--listen: server.listen = '': must be host:port"),
        (&["--workers=-1"], "--workers: server.workers = '-1': must be an integer from 0 to 1024"),
        (&["--redis", "http://h"], "--redis: redis.addr = 'http://h': must be host[:port]"),
        (
            &["--embedded", "--redis", "redis://:hunter2@h"],
            "--redis: redis.addr = 'redis://:***@h:6379/0': embedded.enabled",
        ),
        (&["--check-config", "--config", "no/such.toml"], "no/such.toml: No such file"),
    ];
    for (args, expected) in table {
        let output = tollgate(args, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr.contains(expected) && !stderr.contains("hunter2"), "{args:?} gave {stderr}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
    let output = tollgate(&["--check-config"], &[("TOLLGATE_REDIS__TIMEOUT", "5")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("TOLLGATE_REDIS__TIMEOUT: unknown key 'redis.timeout'"));
}

#[test]
fn a_flag_given_twice_counts_the_last_time() {
    let output = tollgate(&["--workers", "3", "--workers=4", "--check-config"], &[]);
    assert!(settings(stdout(&output)).contains("server.workers = 4"));
}
