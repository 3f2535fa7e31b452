//! `tollgate --health`, as a container runs it beside the Tollgate that it asks.

use crate::common::{Certificates, PATIENCE, Tollgate, free_port, program, wait_until};
use std::process::Output;

/// What it says, and whether that is well: by its exit status, too.
fn asked(settings: &[(&str, &str)]) -> (bool, String) {
    let Output { status, stdout, stderr } = program().arg("--health").envs(settings.iter().copied()).output().unwrap();
    let (line, complaint) = (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr));
    assert_eq!((line.matches('\n').count(), &*complaint), (1, ""), "{line}");
    assert_eq!(status.code(), Some(if line.starts_with("healthy: ") { 0 } else { 1 }), "{line}");
    (status.success(), line.trim_end().to_owned())
}

#[test]
fn it_says_whether_the_tollgate_of_these_settings_answers() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let settings = [("TOLLGATE_SERVER__LISTEN", &*listen)];
    assert_eq!(asked(&settings), (false, format!("unhealthy: {listen}: Connection refused (os error 111)")));

    let password = [("TOLLGATE_AUTH__MODE", "password"), ("TOLLGATE_AUTH__PASSWORD", "long enough")];
    for (auth, says) in [(&[][..], "+PONG"), (&password[..], "-NOAUTH Authentication required.")] {
        // All interfaces are asked by one of them.
        let mut builder = Tollgate::builder().arg("--embedded").arg("--listen").arg(&format!(":{port}"));
        for (name, value) in auth {
            builder = builder.env(name, value);
        }
        let tollgate = builder.start();
        assert_eq!(asked(&settings), (true, format!("healthy: {listen} answers {says}")));
        assert!(asked(&[("TOLLGATE_SERVER__LISTEN", &format!(":{port}"))]).0);
        drop(tollgate);
    }

    let tollgate = Tollgate::builder().arg("--embedded").env("TOLLGATE_SERVER__MAX_CLIENTS", "1").start();
    let listen = tollgate.addr().to_string();
    let settings = [("TOLLGATE_SERVER__LISTEN", &*listen)];
    let client = tollgate.client();
    let full = (false, format!("unhealthy: {listen}: -ERR max number of clients reached"));
    wait_until(PATIENCE, || asked(&settings) == full);
    drop(client);
    wait_until(PATIENCE, || asked(&settings).0);
    tollgate.signal("-STOP");
    assert_eq!(asked(&settings), (false, format!("unhealthy: {listen}: no answer within 2 s")));
}

#[test]
fn where_only_tls_is_spoken_it_speaks_tls() {
    let certificates = Certificates::new();
    let path = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    for (client_auth, says) in [("no", "+PONG"), ("required", "TLS, and wants a certificate to say more")] {
        let port = free_port();
        let mut settings = vec![
            ("TOLLGATE_TLS__LISTEN", format!("127.0.0.1:{port}")),
            ("TOLLGATE_TLS__CERT_FILE", path("server.crt")),
            ("TOLLGATE_TLS__KEY_FILE", path("server.key")),
            ("TOLLGATE_TLS__CLIENT_AUTH", client_auth.to_owned()),
        ];
        if client_auth != "no" {
            settings.push(("TOLLGATE_TLS__CA_FILE", path("ca.crt")));
        }
        let mut builder = Tollgate::builder().arg("--embedded");
        for (name, value) in &settings {
            builder = builder.env(name, value);
        }
        let _tollgate = builder.start();
        settings.push(("TOLLGATE_SERVER__LISTEN", String::new()));
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, &**value)).collect();
        assert_eq!(asked(&settings), (true, format!("healthy: 127.0.0.1:{port} answers {says}")));
    }
}
