//! The ways to say where Redis is, each as far as an exact answer: a password, a user, a database, a socket, TLS.

use crate::common::{Certificates, RedisServer, Tollgate, free_port};
use std::path::Path;

#[track_caller]
fn assert_exact(tollgate: &Tollgate) {
    let decision = tollgate.client().decide("RL.CHECK k 1000 1h");
    assert!(decision.allowed && !decision.degraded, "{decision:?}");
}

#[test]
fn host_and_port_url_user_and_database() {
    let redis = RedisServer::start();
    let port = redis.port();
    assert_exact(&Tollgate::builder().arg("--redis").arg(&format!("127.0.0.1:{port}")).start());
    assert_exact(&Tollgate::builder().arg("--redis").arg(&format!("localhost:{port}")).start());
    assert_exact(&Tollgate::builder().env("REDIS_ADDR", &redis.url()).start());
    assert_exact(&Tollgate::builder().env("TOLLGATE_REDIS__ADDR", &format!("{}/3", redis.url())).start());
    let mut admin = redis.client();
    admin.line("SELECT 3");
    assert_eq!(admin.line("EXISTS rl:{k}:3600000").integer(), 1);

    admin.line("ACL SETUSER app on >p%40ss ~rl:* &rl:* +@all");
    admin.line("CONFIG SET requirepass s3cret");
    for user in [":s3cret", "default:s3cret", "app:p%2540ss"] {
        let tollgate = Tollgate::builder().arg("--redis").arg(&format!("redis://{user}@127.0.0.1:{port}")).start();
        assert_exact(&tollgate);
        let log = tollgate.log().concat();
        assert!(!log.contains("s3cret") && !log.contains("p%"), "a password in the log: {log}");
    }
}

#[test]
fn a_user_and_a_password_beside_the_address_and_in_files() {
    let redis = RedisServer::start();
    let mut admin = redis.client();
    admin.line("ACL SETUSER app on >p@ss ~rl:* &rl:* +@all");
    admin.line("CONFIG SET requirepass s3cret");
    let folder = tempfile::tempdir().unwrap();
    let in_file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let password = in_file("password", "p@ss\n".to_owned());
    let url = in_file("url", format!("redis://:s3cret@{}\n", redis.addr()));
    assert_exact(&Tollgate::builder().env("REDIS_ADDR_FILE", &url).start());
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_REDIS__USER", "app");
    let tollgate = tollgate.env("REDIS_PASSWORD_FILE", &password).start();
    assert_exact(&tollgate);
    assert!(!tollgate.log().concat().contains("p@ss"), "a password in the log");
}

#[test]
fn a_wrong_password_is_a_redis_that_is_down() {
    let redis = RedisServer::start();
    redis.command("CONFIG SET requirepass s3cret");
    let addr = format!("redis://:wr0ng@127.0.0.1:{}", redis.port());
    let tollgate = Tollgate::builder().arg("--redis").arg(&addr).expect_log("redis").start();
    assert!(tollgate.client().decide("RL.CHECK k 1000 1h").degraded);
    assert!(!tollgate.log().concat().contains("wr0ng"), "a password in the log");
}

#[test]
fn a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let redis = RedisServer::start_with(&["--unixsocket", socket.to_str().unwrap()]);
    let url = format!("unix://{}", socket.display());
    assert_exact(&Tollgate::builder().arg("--redis").arg(&url).start());
    assert_exact(&Tollgate::builder().arg("--redis").arg(&format!("{url}?db=2")).start());
    let mut admin = redis.client();
    admin.line("SELECT 2");
    assert_eq!(admin.line("EXISTS rl:{k}:3600000").integer(), 1);
}

#[test]
fn tls_with_an_authority_and_a_certificate_of_ones_own() {
    let certificates = Certificates::new();
    let path = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let port = free_port().to_string();
    let _redis = RedisServer::start_with(&[
        "--tls-port",
        &port,
        "--tls-ca-cert-file",
        &path("ca.crt"),
        "--tls-cert-file",
        &path("server.crt"),
        "--tls-key-file",
        &path("server.key"),
    ]);
    let before = |host: &str| Tollgate::builder().arg("--redis").arg(&format!("rediss://{host}:{port}"));
    let tollgate = before("localhost")
        .env("TOLLGATE_REDIS__CA_FILE", &path("ca.crt"))
        .env("TOLLGATE_REDIS__CERT_FILE", &path("client.crt"))
        .env("TOLLGATE_REDIS__KEY_FILE", &path("client.key"))
        .start();
    assert_exact(&tollgate);
    // Without a certificate Redis refuses us; without the authority we refuse Redis.
    let nameless = before("127.0.0.1").env("TOLLGATE_REDIS__CA_FILE", &path("ca.crt")).expect_log("redis").start();
    assert!(nameless.client().decide("RL.CHECK k 1000 1h").degraded);
    let stranger = before("127.0.0.1")
        .env("TOLLGATE_REDIS__CERT_FILE", &path("client.crt"))
        .env("TOLLGATE_REDIS__KEY_FILE", &path("client.key"))
        .expect_log("redis")
        .start();
    assert!(stranger.client().decide("RL.CHECK k 1000 1h").degraded);
}

#[test]
fn a_certificate_file_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file: &Path = &folder.path().join("none.crt");
    let output = crate::common::program()
        .args(["--listen", "127.0.0.1:0", "--redis", "rediss://localhost:1"])
        .env("TOLLGATE_REDIS__CA_FILE", file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    assert!(said.contains("none.crt") && !said.contains("panicked"), "{said}");
}
