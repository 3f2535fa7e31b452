//! The HTTP listener: metrics, probes, and what the page asks for, over real sockets.

use crate::common::{
    Builder, Certificates, Cluster, HttpClient, HttpReply, PATIENCE, RedisServer, Tollgate, encode, is_thorough,
    own_address, tell_ignored, wait_until,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEFAULT: &str = "Bearer secret";
const SHOP: &str = "Basic c2hvcDpzaG9wLXNlY3JldA==";

fn with_http(builder: Builder) -> Builder {
    builder.env("TOLLGATE_HTTP__LISTEN", "127.0.0.1:0")
}

fn embedded() -> Tollgate {
    with_http(Tollgate::builder().arg("--embedded")).start()
}

fn get(tollgate: &Tollgate, path: &str) -> HttpReply {
    tollgate.http().get(path, &[])
}

/// Status and body of `/readyz`.
fn readiness(tollgate: &Tollgate) -> (u16, String) {
    let HttpReply { status, body, .. } = get(tollgate, "/readyz");
    (status, body.trim_end().to_owned())
}

/// Each sample of a text of metrics, by its name and labels.
#[track_caller]
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn metrics(tollgate: &Tollgate) -> BTreeMap<String, f64> {
    samples(&get(tollgate, "/metrics").body)
}

fn checks(samples: &BTreeMap<String, f64>, result: &str, source: &str) -> f64 {
    samples[&format!("tollgate_checks_total{{policy=\"\",result=\"{result}\",source=\"{source}\"}}")]
}

fn state(tollgate: &Tollgate) -> Value {
    serde_json::from_str(&get(tollgate, "/api/state").body).unwrap()
}

#[test]
fn each_path_has_its_answer() {
    let tollgate = embedded();
    let mut http = tollgate.http();
    for (path, status, content_type, begin) in [
        ("/healthz", 200, "text/plain; charset=utf-8", "ok\n"),
        ("/readyz", 200, "text/plain; charset=utf-8", "ready\n"),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", "# HELP tollgate_checks_total "),
        ("/", 200, "text/html; charset=utf-8", "<!doctype html>"),
        ("/page.css", 200, "text/css; charset=utf-8", "/*"),
        ("/page.js", 200, "text/javascript; charset=utf-8", "//"),
        ("/keys.js", 200, "text/javascript; charset=utf-8", "//"),
        ("/page.js?v=1", 200, "text/javascript; charset=utf-8", "//"),
        ("/api/state", 200, "application/json", "{"),
        ("/page", 404, "text/plain; charset=utf-8", "There is nothing here.\n"),
        ("//", 404, "text/plain; charset=utf-8", ""),
        ("/%2e%2e/etc/passwd", 404, "text/plain; charset=utf-8", ""),
    ] {
        let whole = http.get(path, &[]);
        assert_eq!((whole.status, whole.header("content-type")), (status, content_type), "{path}");
        assert!(whole.body.starts_with(begin), "{path}: {:.80}", whole.body);
        let policy = whole.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; ") && policy.ends_with("frame-ancestors 'none'"), "{policy}");
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("cache-control", "no-store"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(whole.header(name), value, "{path}");
        }
        // A body behind it would be taken for the next answer.
        let head = http.request("HEAD", path, &[]).unwrap();
        assert_eq!((head.status, head.header("content-type")), (status, content_type), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            let other = http.request(method, path, &[]).unwrap();
            assert_eq!((other.status, other.header("allow")), (405, "GET, HEAD"), "{method} {path}");
        }
    }
}

#[test]
fn without_http_listen_nobody_serves_it() {
    let tollgate = Tollgate::embedded();
    assert!(!tollgate.log().iter().any(|line| line.contains("serving http")));
    let with_http = embedded();
    wait_until(PATIENCE, || tollgate.threads() + 1 == with_http.threads());
}

#[test]
fn what_is_no_request_is_refused_and_closed() {
    let tollgate = embedded();
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(100));
    for (bytes, status) in [
        ("\r\n\r\nnonsense\r\n\r\n", 400),
        ("*1\r\n$4\r\nPING\r\n", 400),
        ("GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
        (&long, 431),
        (&many, 431),
    ] {
        let mut http = tollgate.http();
        // It may have closed before it has read all of it.
        let _ = http.send(bytes.as_bytes());
        match http.read(false) {
            Ok(reply) => assert_eq!(reply.status, status, "{bytes:.40}"),
            Err(error) => assert!(status == 431, "{bytes:.40}: {error}"),
        }
        assert!(http.is_closed(), "{bytes:.40}");
    }
    assert_eq!(get(&tollgate, "/healthz").status, 200);
}

#[test]
fn a_body_is_not_taken_for_the_next_request() {
    let tollgate = embedded();
    let mut http = tollgate.http();
    let hidden = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    http.send(
        format!("GET /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len())
            .as_bytes(),
    )
    .unwrap();
    assert!(["ready\n", "starting\n"].contains(&&*http.read(false).unwrap().body));
    // It reads past what it was sent, or closes.
    if let Ok(next) = http.request("GET", "/page.css", &[]) {
        assert_eq!(next.header("content-type"), "text/css; charset=utf-8");
    }
}

/// Whoever holds connections, by slow headers or none, keeps no probe out: the oldest makes room.
#[test]
fn connections_that_are_held_keep_nobody_out() {
    let tollgate = embedded();
    let before = tollgate.open_files();
    let mut held: Vec<HttpClient> = (0..200).map(|_| tollgate.http()).collect();
    for http in &mut held {
        let _ = http.send(b"GET /metrics HTTP/1.1\r\nHost: loc");
    }
    assert_eq!(get(&tollgate, "/healthz").status, 200);
    // Those that made room may be closed a moment later.
    wait_until(PATIENCE, || tollgate.open_files() - before <= 64);
    assert!(held[0].is_closed());
    // The last of them is served once it is done with its headers.
    held[199].send(b"alhost\r\n\r\n").unwrap();
    assert_eq!(held[199].read(false).unwrap().status, 200);
    if is_thorough() {
        assert!(held[198].is_closed(), "its headers take for ever");
    }
}

#[test]
fn users_log_in_and_see_what_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    let hash = sha256("shop-secret");
    let shop = format!("{{ name = 'shop', commands = 'rl-only', key_prefix = 'shop:', password_sha256 = '{hash}' }}");
    std::fs::write(&file, format!("auth = {{ mode = 'password', password = 'secret', users = [{shop}] }}")).unwrap();
    let tollgate = with_http(Tollgate::builder().arg("--embedded").arg("--config").arg(file.to_str().unwrap())).start();
    let mut http = tollgate.http();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http.get(path, &[]).status, 200, "{path}");
    }
    let asked = http.get("/metrics", &[]);
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, "Basic realm=\"tollgate\", charset=\"UTF-8\""));
    let status =
        |http: &mut HttpClient, path: &str, who: &str| http.get(path, &[&format!("Authorization: {who}")]).status;
    for path in ["/metrics", "/", "/page.css", "/page.js", "/api/state"] {
        assert_eq!(http.get(path, &[]).status, 401, "{path}");
        assert_eq!(status(&mut http, path, DEFAULT), 200, "{path}");
    }
    assert_eq!(status(&mut http, "/metrics", SHOP), 200);
    for path in ["/api/state", "/api/key?key=shop:a"] {
        assert_eq!(status(&mut http, path, SHOP), 403, "{path} tells of everybody's keys");
    }

    let start = Instant::now();
    for who in ["Bearer wrong", "Basic c2hvcDp3cm9uZw==", "Digest x"] {
        assert_eq!(status(&mut http, "/metrics", who), 401, "{who}");
    }
    // Two are free, as for clients that speak RESP; so the third waits.
    assert!(start.elapsed() >= Duration::from_millis(100));
    let mut client = tollgate.client();
    client.line("AUTH secret");
    assert!(client.line("INFO tollgate").text().contains("\r\nfailed_logins:3\r\n"));
    wait_until(PATIENCE, || {
        tollgate.log().iter().any(|line| line.contains("logins failed") && line.contains("127.0.0.1"))
    });
    assert_eq!(status(&mut http, "/metrics", DEFAULT), 200);
}

fn sha256(password: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, password.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_token_stands_for_the_users_that_only_redis_knows() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "a long random text\n").unwrap();
    for mode in ["none", "redis"] {
        let builder = with_http(Tollgate::builder().redis(&redis)).env("TOLLGATE_AUTH__MODE", mode);
        let tollgate = builder.env("TOLLGATE_HTTP__TOKEN_FILE", file.to_str().unwrap()).start();
        let mut http = tollgate.http();
        assert_eq!(http.get("/metrics", &[]).status, 401, "{mode}");
        for who in ["Bearer a long random text", "Basic ZGVmYXVsdDphIGxvbmcgcmFuZG9tIHRleHQ="] {
            assert_eq!(http.get("/api/state", &[&format!("Authorization: {who}")]).status, 200, "{mode} {who}");
        }
    }
}

#[test]
fn protected_mode_lets_in_this_machine_alone_but_for_probes() {
    let start = || Tollgate::builder().arg("--embedded").env("TOLLGATE_HTTP__LISTEN", "0.0.0.0:0");
    let at = |tollgate: &Tollgate, ip: std::net::IpAddr| {
        HttpClient::connect(SocketAddr::new(ip, tollgate.http_addr().port()))
    };
    let local = [127, 0, 0, 1].into();
    let tollgate = start().start();
    // A web page elsewhere may have its own name lead here, and read what it gets.
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:9090", 200),
        ("127.0.0.1:9090", 200),
        ("10.0.0.1", 200),
        ("[::1]:9090", 200),
        ("evil.example", 403),
        ("evil.example:9090", 403),
        ("localhost.evil.example", 403),
        ("[evil]", 403),
        ("", 403),
    ] {
        let reply = at(&tollgate, local).get("/api/state", &[&format!("Host: {host}")]);
        assert_eq!(reply.status, status, "{host}");
    }
    let Some(address) = own_address() else {
        return tell_ignored("this machine has no address but loopback");
    };
    let refused = at(&tollgate, address).get("/metrics", &["Host: 10.0.0.1"]);
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("protected mode") && refused.body.contains("http.token_file"), "{}", refused.body);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(at(&tollgate, address).get(path, &[]).status, 200, "{path}");
    }
    let open = start().env("TOLLGATE_SERVER__PROTECTED_MODE", "false").start();
    assert_eq!(at(&open, address).get("/metrics", &["Host: tollgate.example"]).status, 200);
    let asking = start().env("TOLLGATE_HTTP__TOKEN", "t").start();
    let mut http = at(&asking, address);
    assert_eq!(http.get("/metrics", &["Host: tollgate.example"]).status, 401);
    assert_eq!(http.get("/metrics", &["Host: tollgate.example", "Authorization: Bearer t"]).status, 200);
}

#[test]
fn http_speaks_tls_by_the_settings_of_the_others() {
    let certificates = Certificates::new();
    let file = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let start = |client_auth: &str| {
        let builder = with_http(Tollgate::builder().arg("--embedded")).env("TOLLGATE_HTTP__TLS", "true");
        let builder = builder.env("TOLLGATE_TLS__CERT_FILE", &file("server.crt"));
        let builder = builder.env("TOLLGATE_TLS__KEY_FILE", &file("server.key"));
        match client_auth {
            "no" => builder.start(),
            _ => builder
                .env("TOLLGATE_TLS__CLIENT_AUTH", client_auth)
                .env("TOLLGATE_TLS__CA_FILE", &file("ca.crt"))
                .start(),
        }
    };
    let tollgate = start("no");
    let mut http = HttpClient::connect_by_tls(tollgate.http_addr(), &certificates, None);
    assert_eq!(http.get("/readyz", &[]).body, "ready\n");
    assert_eq!(http.get("/metrics", &[]).status, 200);
    assert!(HttpClient::connect(tollgate.http_addr()).request("GET", "/healthz", &[]).is_err(), "without TLS");
    let strict = start("required");
    let shown = &certificates;
    let mut http = HttpClient::connect_by_tls(strict.http_addr(), &certificates, Some(shown));
    // Whoever shows a certificate may come by any name.
    assert_eq!(http.get("/api/state", &["Host: tollgate.example"]).status, 200);
    let mut stranger = HttpClient::connect_by_tls(strict.http_addr(), &certificates, None);
    assert!(stranger.request("GET", "/healthz", &[]).is_err());
}

#[test]
fn readiness_follows_redis() {
    let mut redis = RedisServer::start();
    let builder = || with_http(Tollgate::builder().redis(&redis)).expect_log("redis");
    let serving = builder().start();
    let exact = builder().env("TOLLGATE_HTTP__READY_WHEN", "exact").start();
    for tollgate in [&serving, &exact] {
        wait_until(PATIENCE, || readiness(tollgate) == (200, "ready".to_owned()));
    }
    let is_degraded = |answer: &(u16, String), status, begin: &str| answer.0 == status && answer.1.starts_with(begin);
    redis.kill();
    wait_until(PATIENCE, || is_degraded(&readiness(&serving), 200, "ready, degraded: nobody listens there"));
    wait_until(PATIENCE, || is_degraded(&readiness(&exact), 503, "not ready, degraded: nobody listens there"));
    redis.start_again();
    for tollgate in [&serving, &exact] {
        wait_until(PATIENCE, || readiness(tollgate) == (200, "ready".to_owned()));
    }
}

#[test]
fn nobody_is_ready_before_the_first_look_at_redis() {
    // It takes connections and says nothing, until it does.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let builder = Tollgate::builder().arg("--redis").arg(&mute.local_addr().unwrap().to_string()).expect_log("redis");
    let tollgate = with_http(builder).env("TOLLGATE_REDIS__CONNECT_TIMEOUT_MS", "2000").start();
    assert_eq!(readiness(&tollgate), (503, "starting: redis has yet to be looked at".to_owned()));
    assert_eq!(get(&tollgate, "/healthz").status, 200);
    // Then it is known that it is no use, and the fallback serves.
    wait_until(PATIENCE, || readiness(&tollgate).1.starts_with("ready, degraded: "));
}

#[test]
fn who_drains_is_not_ready() {
    let mut tollgate = embedded();
    let mut client = tollgate.client();
    // Replies that nobody reads are waited for, as long as the grace lasts.
    let request = encode(&["ECHO", &"x".repeat(1 << 20)]);
    client.send(&request.repeat(16));
    client.wait_for_bytes();
    assert_eq!(readiness(&tollgate), (200, "ready".to_owned()));
    tollgate.signal("-TERM");
    wait_until(PATIENCE, || readiness(&tollgate) == (503, "draining".to_owned()));
    assert_eq!(get(&tollgate, "/healthz").status, 200);
    drop(client);
    assert!(tollgate.wait_for_exit().success());
}

#[test]
fn metrics_count_what_came() {
    let mut redis = RedisServer::start();
    let tollgate = with_http(Tollgate::builder().redis(&redis)).expect_log("redis").start();
    let mut client = tollgate.client();
    for _ in 0..12 {
        client.line("RL.CHECK k 10 1h");
    }
    client.line("RL.CHECK other 10 1h COST 11");
    client.line("RL.PEEK k 10 1h");
    client.line("SET a b");
    let node = format!("node=\"{}\"", redis.addr());
    let now = metrics(&tollgate);
    assert_eq!(checks(&now, "allowed", "redis"), 10.0);
    // The second denial is a repetition of the first, as long as resets are heard of.
    assert_eq!(checks(&now, "denied", "redis") + checks(&now, "denied", "deny_cache"), 2.0);
    assert_eq!(checks(&now, "denied", "request"), 1.0);
    // After the ninth and the tenth less than a fifth is left.
    assert_eq!(now["tollgate_near_limit_total{policy=\"\"}"], 2.0);
    assert_eq!(now["tollgate_check_duration_seconds_count"], 13.0);
    assert!(now["tollgate_check_duration_seconds_sum"] > 0.0);
    assert!(now["tollgate_store_duration_seconds_count"] >= now["tollgate_store_batches_total"]);
    assert_eq!(now[&format!("tollgate_node_up{{{node},role=\"primary\"}}")], 1.0);
    assert_eq!(now[&format!("tollgate_breaker_state{{{node},state=\"closed\"}}")], 1.0);
    assert_eq!((now["tollgate_forwarded_commands_total"], now["tollgate_connections"]), (1.0, 1.0));
    assert!(now["tollgate_received_bytes_total"] > 400.0 && now["tollgate_sent_bytes_total"] > 200.0);
    assert!(now["process_resident_memory_bytes"] > 1e6 && now["process_open_fds"] > 5.0);
    redis.kill();
    wait_until(PATIENCE, || client.decide("RL.CHECK k2 100 1h").degraded);
    let then = metrics(&tollgate);
    assert!(checks(&then, "allowed", "fallback") >= 1.0);
    assert_eq!(then[&format!("tollgate_node_up{{{node},role=\"primary\"}}")], 0.0);
    assert!(then[&format!("tollgate_unwritten{{{node}}}")] >= 1.0);
    wait_until(PATIENCE, || metrics(&tollgate)[&format!("tollgate_degraded_seconds_total{{{node}}}")] > 0.1);
    redis.start_again();
    wait_until(PATIENCE, || metrics(&tollgate)[&format!("tollgate_node_up{{{node},role=\"primary\"}}")] == 1.0);
    wait_until(PATIENCE, || metrics(&tollgate)["tollgate_written_back_total"] >= 1.0);
}

#[test]
fn what_a_client_names_is_no_label() {
    let tollgate = embedded();
    let mut client = tollgate.client();
    client.line("RL.CHECK wanderer 10 60");
    client.line("CLIENT SETNAME wanderer");
    let before = get(&tollgate, "/metrics").body;
    (0..1000).for_each(|n| drop(client.line(&format!("RL.CHECK wanderer{n} {} {}", n + 1, n + 1))));
    let after = get(&tollgate, "/metrics").body;
    assert!(!after.contains("wanderer"));
    let names = |text: &str| samples(text).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "as many samples for a thousand keys as for one");
}

#[test]
fn open_metrics_are_for_who_asks() {
    let tollgate = embedded();
    let reply = tollgate.http().get("/metrics", &["Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1"]);
    assert_eq!(reply.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(reply.body.ends_with("\n# EOF\n") && reply.body.contains("# TYPE tollgate_checks counter\n"));
    let plain = samples(&get(&tollgate, "/metrics").body);
    let open: BTreeMap<_, _> = samples(&reply.body);
    assert_eq!(plain.keys().collect::<Vec<_>>(), open.keys().collect::<Vec<_>>());
}

#[test]
fn fifty_connections_check_while_others_scrape_and_every_check_is_counted() {
    const CLIENTS: u64 = 50;
    const CHECKS: u64 = 400;
    let redis = RedisServer::start();
    let tollgate = with_http(Tollgate::builder().redis(&redis)).start();
    let is_done = AtomicBool::new(false);
    let total = |samples: &BTreeMap<String, f64>| {
        let checks = samples.iter().filter(|(name, _)| name.starts_with("tollgate_checks_total"));
        checks.map(|(_, count)| count).sum::<f64>()
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let mut client = tollgate.client();
                scope.spawn(move || {
                    for m in 0..CHECKS {
                        assert!(!client.decide(&format!("RL.CHECK k{} 100 1h", (n * m) % 97)).degraded);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut http = tollgate.http();
            let (mut last, mut scrapes) = (0.0, 0);
            while !is_done.load(Relaxed) {
                let samples = samples(&http.get("/metrics", &[]).body);
                let count = samples["tollgate_check_duration_seconds_count"];
                assert!(total(&samples) >= last && count >= last, "counts do not fall");
                (last, scrapes) = (total(&samples), scrapes + 1);
                assert_eq!(http.get("/api/state", &[]).status, 200);
            }
            assert!(scrapes > 1);
        });
        clients.into_iter().for_each(|client| client.join().unwrap());
        is_done.store(true, Relaxed);
    });
    let now = metrics(&tollgate);
    assert_eq!(total(&now), (CLIENTS * CHECKS) as f64);
    assert_eq!(now["tollgate_check_duration_seconds_count"], (CLIENTS * CHECKS) as f64);
}

#[test]
fn the_state_names_the_keys_of_most_answers_as_text() {
    let tollgate = embedded();
    let mut client = tollgate.client();
    let strange = b"<script>alert(1)</script>\0\xff\"\\\xe2\x80\xae";
    for _ in 0..5 {
        client.cmd(&[&b"RL.CHECK"[..], strange, b"2", b"1h"]);
        client.line("RL.CHECK plain 100 1h");
    }
    let top = &state(&tollgate)["top"];
    let row = |key: &str, count| serde_json::json!({ "key": key, "policy": null, "count": count, "error": 0 });
    let shown = r#"<script>alert(1)</script>\x00\xff\"\\\xe2\x80\xae"#;
    assert_eq!(top["denied"], serde_json::json!([row(shown, 3)]));
    assert_eq!(top["allowed"], serde_json::json!([row("plain", 5), row(shown, 2)]));
}

#[test]
fn before_a_cluster_each_node_is_told_of_with_its_slots() {
    let cluster = Cluster::start();
    let tollgate =
        with_http(Tollgate::builder().arg("--redis").arg(&format!("redis+cluster://{}", cluster.server(0).addr())))
            .start();
    wait_until(PATIENCE, || readiness(&tollgate) == (200, "ready".to_owned()));
    wait_until(PATIENCE, || state(&tollgate)["mode"] == "cluster");
    let mut client = tollgate.client();
    for n in 0..50 {
        client.line(&format!("RL.CHECK k{n} 10 1h"));
    }
    let state = state(&tollgate);
    let nodes = state["nodes"].as_array().unwrap();
    assert!(nodes.iter().all(|node| node["up"] == true && node["slots"].is_string()), "{nodes:#?}");
    assert_eq!(nodes.len(), 3);
    let now = metrics(&tollgate);
    assert_eq!(now.iter().filter(|(name, up)| name.starts_with("tollgate_node_up{") && **up == 1.0).count(), 3);
    assert_eq!(checks(&now, "allowed", "redis"), 50.0);
    for n in 0..5 {
        assert_eq!(get(&tollgate, &format!("/api/key?key=k{n}")).status, 200, "whichever node has it");
    }
}

#[test]
fn a_key_is_looked_up() {
    let mut redis = RedisServer::start();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tollgate.toml");
    let policy = "[policies.login]\nlimits = '5 1m'\n[policies.login.overrides]\nvip = '9 1m'\nbad = 'block'";
    fs::write(&file, policy).unwrap();
    let config = file.to_str().unwrap();
    let started = |builder: Builder| with_http(builder).arg("--config").arg(config).expect_log("redis").start();
    let before_redis = started(Tollgate::builder().redis(&redis));
    let embedded = started(Tollgate::builder().arg("--embedded"));
    for (tollgate, store) in [(&before_redis, "redis"), (&embedded, "embedded")] {
        let mut client = tollgate.client();
        let key = b"a b\0\xff&=+%\xc3\xa9";
        for window in ["1m", "1h"] {
            assert!(client.cmd(&[&b"RL.CHECK"[..], key, b"10", window.as_bytes(), b"COST", b"3"]).decision().allowed);
        }
        // What the page sends for what it was shown.
        let found = get(tollgate, "/api/key?key=a%20b%5Cx00%5Cxff%26%3D%2B%25%5Cxc3%5Cxa9");
        assert_eq!(found.status, 200, "{}", found.body);
        let found: Value = serde_json::from_str(&found.body).unwrap();
        assert_eq!(found["key"], r"a b\x00\xff&=+%\xc3\xa9");
        let windows: Vec<_> = found["limits"].as_array().unwrap().iter().map(|limit| &limit["window_ms"]).collect();
        assert_eq!(windows, [60_000, 3_600_000]);
        for limit in found["limits"].as_array().unwrap() {
            assert_eq!((&limit["used"], &limit["entry_count"], &limit["limit"]), (&3.into(), &1.into(), &Value::Null));
            assert_eq!((&limit["entries"][0][0], &limit["entries"][0][1]), (&limit["newest_ms"], &3.into()));
        }
        assert_eq!(get(tollgate, "/api/key?key=nobody").status, 404);
        let too_long = format!("/api/key?key={}", "x".repeat(1025));
        for path in ["/api/key", "/api/key?key=", "/api/key?kay=a", &too_long] {
            assert_eq!(get(tollgate, path).status, 400, "{path:.20}");
        }
        for (key, limit, overrides) in [("k", 5, Value::Null), ("vip", 9, "login: 9 1m".into())] {
            client.decide(&format!("RL.CHECK {key} login"));
            let found: Value = serde_json::from_str(&get(tollgate, &format!("/api/key?key={key}")).body).unwrap();
            assert_eq!((&found["limits"][0]["policy"], &found["limits"][0]["limit"]), (&"login".into(), &limit.into()));
            assert_eq!(found["override"], overrides);
        }
        let found: Value = serde_json::from_str(&get(tollgate, "/api/key?key=bad").body).unwrap();
        assert_eq!((&found["override"], &found["limits"]), (&"login: block".into(), &Value::Array(vec![])));
        // Looking counts nothing.
        assert_eq!(checks(&metrics(tollgate), "allowed", store), 2.0);
        let by_policy = format!("tollgate_checks_total{{policy=\"login\",result=\"allowed\",source=\"{store}\"}}");
        assert_eq!(metrics(tollgate)[&by_policy], 2.0);
    }
    redis.kill();
    wait_until(PATIENCE, || state(&before_redis)["state"]["exact"] == false);
    let refused = get(&before_redis, "/api/key?key=a");
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("Redis cannot be reached"), "{}", refused.body);
}

#[test]
fn the_state_tells_of_redis_and_its_changes() {
    let mut redis = RedisServer::start();
    let tollgate = with_http(Tollgate::builder().redis(&redis)).expect_log("redis").start();
    let mut client = tollgate.client();
    for _ in 0..12 {
        client.line("RL.CHECK k 10 1h");
    }
    let up = state(&tollgate);
    assert_eq!((&up["mode"], &up["state"]["exact"]), (&"redis".into(), &true.into()));
    assert_eq!(up["answers"]["allowed"], 10);
    assert_eq!((&up["clients"]["connected"], &up["clients"]["max"]), (&1.into(), &10_000.into()));
    let node = &up["nodes"][0];
    assert_eq!((&node["addr"], &node["breaker"]), (&redis.addr().to_string().into(), &"closed".into()));
    assert!(node["round_trip_us"].as_u64().is_some_and(|us| us > 0), "{node}");
    assert_eq!(node["changes"], Value::Array(vec![]));
    // Seconds follow, one of which has them all.
    let sum = |state: &Value, kind: &str| {
        state["history"][kind].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    wait_until(PATIENCE, || sum(&state(&tollgate), "allowed") == 10 && sum(&state(&tollgate), "denied") == 2);
    assert!(state(&tollgate)["latency"]["check"]["p99_us"].as_u64().is_some_and(|us| us > 0));

    redis.kill();
    wait_until(PATIENCE, || client.decide("RL.CHECK k2 100 1h").degraded);
    let down = state(&tollgate);
    assert_eq!(down["state"]["exact"], false);
    assert!(down["state"]["cause"].is_string() && down["nodes"][0]["changes"][0]["cause"].is_string(), "{down}");
    redis.start_again();
    wait_until(PATIENCE, || state(&tollgate)["state"]["exact"] == true);
    let back = state(&tollgate);
    let ups: Vec<_> = back["nodes"][0]["changes"].as_array().unwrap().iter().map(|change| &change["up"]).collect();
    assert_eq!(ups, [&Value::Bool(false), &Value::Bool(true)]);
    assert_eq!(back["state"]["since_ms"], back["nodes"][0]["changes"][1]["at_ms"]);
    wait_until(PATIENCE, || sum(&state(&tollgate), "degraded") >= 1);
    // As many changes as are looked at.
    for _ in 0..6 {
        redis.kill();
        wait_until(PATIENCE, || state(&tollgate)["state"]["exact"] == false);
        redis.start_again();
        wait_until(PATIENCE, || state(&tollgate)["state"]["exact"] == true);
    }
    assert_eq!(state(&tollgate)["nodes"][0]["changes"].as_array().unwrap().len(), 10);
}
