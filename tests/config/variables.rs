//! Which variables count, which are other people's, and which look like a mistake.

use super::{file, from_environment, load, tollgate};
use tollgate::config::Flag;

/// The warnings of a configuration that is valid.
fn warnings(environment: &[(&str, &str)]) -> Vec<String> {
    load(None, environment, &[]).unwrap().warnings
}

/// Kubernetes makes these for each pod beside a service, here `tollgate` and `tollgate-eu--west`. With two underscores
/// in a row they looked like settings, and Tollgate did not start.
#[test]
fn what_kubernetes_makes_is_left_alone() {
    for service in ["TOLLGATE", "TOLLGATE_EU__WEST", "TOLLGATE_REDIS", "TOLLGATE_REDIS__B", "TOLLGATE_A__B__C"] {
        let links = [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "6380"),
            ("SERVICE_PORT_RESP", "6380"),
            ("SERVICE_PORT_MY_SERVICE_X", "6380"),
            ("PORT", "tcp://10.0.0.1:6380"),
            ("PORT_6380_TCP", "tcp://10.0.0.1:6380"),
            ("PORT_6380_TCP_PROTO", "tcp"),
            ("PORT_6380_TCP_PORT", "6380"),
            ("PORT_6380_TCP_ADDR", "10.0.0.1"),
            ("PORT_53_UDP", "udp://10.0.0.1:53"),
            ("PORT_53_UDP_ADDR", "10.0.0.1"),
            ("PORT_9_SCTP_PORT", "9"),
        ];
        for (name, value) in links {
            let name = format!("{service}_{name}");
            let loaded = load(None, &[(&name, value)], &[]).unwrap_or_else(|mistake| panic!("{mistake}"));
            assert_eq!(loaded.warnings, [""; 0], "{name}");
        }
    }
}

#[test]
fn what_only_looks_like_a_service_is_a_mistake() {
    for (name, value) in [
        ("TOLLGATE_REDIS__TIMOUT_MS", "20"),
        ("TOLLGATE_AUHT__MODE", "password"),
        ("TOLLGATE_SERVER__PORT", "6381"),
        ("TOLLGATE_SERVER__LISTEN_PORT", "6381"),
        ("TOLLGATE_REDIS__SERVICE_HOST", "h"),
        ("TOLLGATE_REDIS__PORT_X_TCP", "1"),
        ("TOLLGATE_EU__WEST_SERVICE_PORTS", "1"),
        ("TOLLGATE__LISTEN__ADDR", "1"),
    ] {
        let mistake = from_environment(&[(name, value)]).unwrap_err();
        assert!(mistake.starts_with(&format!("{name}: unknown key '")), "{mistake}");
    }
}

#[test]
fn redis_url_says_where_redis_is_unless_another_variable_does() {
    let host = |environment: &[(&str, &str)]| from_environment(environment).unwrap().redis.addr.to_string();
    assert_eq!(host(&[("REDIS_URL", "redis://c:3")]), "c:3");
    assert_eq!(host(&[("REDIS_URL", "c:3"), ("REDIS_ADDR", "a:1")]), "a:1");
    assert_eq!(host(&[("REDIS_URL", "c:3"), ("TOLLGATE_REDIS__ADDR", "b:2")]), "b:2");
    // Another program's may be of a form that Tollgate does not take.
    assert_eq!(host(&[("REDIS_URL", "redis://h?ssl_cert_reqs=none"), ("REDIS_ADDR", "a:1")]), "a:1");
    assert!(from_environment(&[("REDIS_URL", "http://h")]).unwrap_err().starts_with("REDIS_URL: redis.addr = "));
}

#[test]
fn a_variable_names_the_file_and_a_flag_another() {
    let (_dir, path) = file("redis.timeout_ms = 7");
    let environment = [("TOLLGATE_CONFIG", path.to_str().unwrap())];
    assert_eq!(load(None, &environment, &[]).unwrap().config.redis.timeout.as_millis(), 7);
    let (_other_dir, other) = file("redis.timeout_ms = 8");
    assert_eq!(load(Some(&other), &environment, &[]).unwrap().config.redis.timeout.as_millis(), 8);
    for path in ["no/such.toml", ""] {
        let mistake = from_environment(&[("TOLLGATE_CONFIG", path)]).unwrap_err();
        assert!(mistake.starts_with(&format!("TOLLGATE_CONFIG: {path}: No such file")), "{mistake}");
    }
}

#[test]
fn a_near_miss_is_said() {
    for (name, meant) in [
        ("TOLLGATE_REDIS_ADDR", "TOLLGATE_REDIS__ADDR"),
        ("TOLLGATE_REDIS_TIMEOUT_MS", "TOLLGATE_REDIS__TIMEOUT_MS"),
        ("TOLLGATE_SERVER_LISTEN", "TOLLGATE_SERVER__LISTEN"),
        ("TOLLGATE_DENY_CACHE_MAX_MS", "TOLLGATE_DENY_CACHE__MAX_MS"),
        ("TOLLGATE_DENYCACHE_MAXMS", "TOLLGATE_DENY_CACHE__MAX_MS"),
        ("TOLLGATE_AUTH_PASSWORD_FILE", "TOLLGATE_AUTH__PASSWORD_FILE"),
        ("TOLLGATE_LISTEN", "TOLLGATE_SERVER__LISTEN or TOLLGATE_HTTP__LISTEN or TOLLGATE_TLS__LISTEN"),
        ("TOLLGATE__WORKERS", "TOLLGATE_SERVER__WORKERS"),
        ("TOLLGATE_PASSWORD", "TOLLGATE_AUTH__PASSWORD or TOLLGATE_REDIS__PASSWORD"),
        ("tollgate_redis__addr", "TOLLGATE_REDIS__ADDR"),
        ("TOLLGATE_REDIS", "TOLLGATE_REDIS__<NAME>"),
        ("TOLLGATE_EMBEDDED", "TOLLGATE_EMBEDDED__<NAME>"),
        ("TOLLGATE_REDIS_URL", "REDIS_URL"),
        ("TOLLGATE_CONFIG_FILE", "TOLLGATE_CONFIG"),
    ] {
        assert_eq!(warnings(&[(name, "hunter2")]), [format!("{name} is not read: did you mean {meant}?")]);
    }
    for name in ["TOLLGATE_BIN", "TOLLGATE_VERSION", "TOLLGATE_IMAGE_TAG", "TOLLGATE_", "TOLLGATE"] {
        assert_eq!(warnings(&[(name, "x")]), [""; 0]);
    }
}

#[test]
fn warnings_stand_in_the_report_and_behind_mistakes() {
    let output = tollgate(&["--check-config"], &[("TOLLGATE_LISTEN", "x"), ("TOLLGATE_REDIS_ADDR", "x")]);
    assert_eq!(output.status.code(), Some(0));
    let report = String::from_utf8(output.stdout).unwrap();
    for name in ["TOLLGATE_LISTEN", "TOLLGATE_REDIS_ADDR"] {
        assert!(report.contains(&format!("\n# warning: {name} is not read: did you mean ")), "{report}");
    }
    let (_dir, path) = file(&report);
    assert!(load(Some(&path), &[], &[]).is_ok());
    // The one is most likely why the other is.
    let mistakes = [("TOLLGATE_AUTH__MODE", "password"), ("TOLLGATE_AUTH_PASSWORD", "hunter2")];
    let mistakes = from_environment(&mistakes).unwrap_err();
    assert!(mistakes.contains("\nwarning: TOLLGATE_AUTH_PASSWORD is not read: "), "{mistakes}");
}

#[test]
fn no_redis_that_is_named_goes_unasked_in_silence() {
    let (_none, embedded_by_file) = file("[embedded]\nenabled = true\n[redis]\naddr = 'file:1'");
    let flag = |name, key, value: &str| Flag { name, key, value: value.to_owned() };
    let (by_flag, redis_flag) =
        (flag("--embedded", "embedded.enabled", "true"), flag("--redis", "redis.addr", "redis://u:hunter2@h"));
    let (by_variable, redis_variable) = (("TOLLGATE_EMBEDDED__ENABLED", "true"), ("REDIS_ADDR", "v:1"));
    // A Redis named by the same layer or one above, and it does not start.
    let file_name = embedded_by_file.display().to_string();
    for (file, environment, flags, expected) in [
        (
            None,
            &[][..],
            &[by_flag.clone(), redis_flag.clone()][..],
            "--redis: redis.addr = 'redis://u:***@h:6379/0': embedded.enabled = true (--embedded) leaves no Redis behind",
        ),
        (
            None,
            &[by_variable, redis_variable],
            &[],
            "REDIS_ADDR: redis.addr = 'v:1': embedded.enabled = true (TOLLGATE_",
        ),
        (None, &[by_variable], &[redis_flag], "--redis: redis.addr = "),
        (
            Some(&*embedded_by_file),
            &[redis_variable],
            &[],
            &*format!("REDIS_ADDR: redis.addr = 'v:1': embedded.enabled = true ({file_name})"),
        ),
    ] {
        let mistake = load(file, environment, flags).unwrap_err();
        assert!(mistake.starts_with(expected) && !mistake.contains("hunter2"), "{mistake}");
    }
    // By one below, and it says that it does not ask it. The file may name one, as the example does.
    let loaded = load(None, &[redis_variable], &[by_flag]).unwrap();
    assert_eq!(
        loaded.warnings,
        ["REDIS_ADDR: redis.addr = 'v:1': has no effect: embedded.enabled = true (--embedded) leaves no Redis behind"]
    );
    assert_eq!(load(Some(&embedded_by_file), &[], &[]).unwrap().warnings, [""; 0]);
}
