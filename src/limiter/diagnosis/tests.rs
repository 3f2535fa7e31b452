use super::*;
use crate::config;
use crate::limiter::redis::Redis;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

const ABOUT: About<'_> = About { user: "app", host: "redis.test", prefix: "rl:" };

fn refused(text: &str) -> Error {
    Error::Refused(text.to_owned())
}

fn os(code: i32) -> Error {
    Error::Io(io::Error::from_raw_os_error(code))
}

fn wrapping(kind: io::ErrorKind, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Io(io::Error::new(kind, error))
}

fn tls(error: rustls::Error) -> Error {
    wrapping(io::ErrorKind::InvalidData, error)
}

fn certificate(error: CertificateError) -> Error {
    tls(rustls::Error::InvalidCertificate(error))
}

fn other_certificate(text: &'static str) -> Error {
    #[derive(Debug)]
    struct Other(#[expect(dead_code, reason = "its text is what Debug shows")] &'static str);
    impl std::fmt::Display for Other {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            Ok(())
        }
    }
    impl std::error::Error for Other {}
    certificate(CertificateError::Other(rustls::OtherError(Arc::new(Other(text)))))
}

/// Errors as they come, what each is to be taken for, and of what is said of it a part.
fn errors() -> Vec<(Error, Kind, &'static str)> {
    use Kind::{Outage, Own, Refusal, Setup, Stranger, Tollgate};
    use io::ErrorKind::{InvalidData, NotFound, TimedOut, UnexpectedEof};
    let eof = || io::Error::from(UnexpectedEof);
    let for_name = |presented: &[&str]| CertificateError::NotValidForNameContext {
        expected: ServerName::try_from("redis.test").unwrap(),
        presented: presented.iter().map(|name| (*name).to_owned()).collect(),
    };
    vec![
        (refused("NOAUTH Authentication required."), Setup, "asks for a password"),
        (refused("WRONGPASS invalid username-password pair or user is disabled."), Setup, "does not take the user"),
        (refused("ERR invalid password"), Setup, "does not take the user"),
        (refused("ERR AUTH <password> called without any password configured for the"), Setup, "Redis has none"),
        (refused("ERR max number of clients reached"), Outage, "as many clients as it takes"),
        (refused("ERR max number of clients + cluster connections reached"), Outage, "as many clients"),
        (refused("DENIED Redis is running in protected mode"), Stranger, "protected mode"),
        (refused("READONLY You can't write against a read only replica."), Setup, "a replica"),
        (refused("ERR Error running script (call to f_1): @user_script:9: -READONLY You"), Setup, "a replica"),
        (refused("MASTERDOWN Link with MASTER is down"), Setup, "lost its primary"),
        (refused("MOVED 3999 127.0.0.1:6381"), Setup, "Cluster"),
        (refused("CROSSSLOT Keys in request don't hash to the same slot"), Setup, "Cluster"),
        (refused("CLUSTERDOWN Hash slot not served"), Refusal, "cluster is down"),
        (refused("ERR SELECT is not allowed in cluster mode"), Setup, "Cluster"),
        (refused("ERR DB index is out of range"), Setup, "no database"),
        (refused("NOPERM this user has no permissions to run the 'zadd' command"), Setup, "'app' lacks a right"),
        (refused("ERR The user executing the script can't run this command"), Setup, "'app' lacks a right"),
        (refused("ERR ACL failure in script: User app has no permissions"), Setup, "'app' lacks a right"),
        (refused("ERR this Tollgate is embedded: there is no Redis"), Setup, "--embedded"),
        (refused("UNAVAILABLE Redis cannot be reached"), Tollgate, "another Tollgate"),
        (refused("ERR unknown command 'EVALSHA'"), Setup, "does not know a command"),
        (refused("WRONGTYPE Operation against a key holding"), Setup, "holds something else"),
        (refused("OOM command not allowed when used memory > 'maxmemory'."), Refusal, "out of memory"),
        (refused("MISCONF Redis is configured to save RDB"), Refusal, "cannot save"),
        (refused("NOREPLICAS Not enough good replicas to write."), Refusal, "too few replicas"),
        (refused("LOADING Redis is loading the dataset in memory"), Refusal, "loading"),
        (refused("BUSY Redis is busy running a script."), Refusal, "holds Redis up"),
        (refused("ERR SOMETHING else, UNBUSY as it is"), Refusal, "Redis refuses: ERR SOMETHING else"),
        (Error::Unexpected, Stranger, "does not answer as Redis does"),
        (os(libc::EMFILE), Own, "no file descriptors"),
        (os(libc::ENFILE), Own, "no file descriptors"),
        (os(libc::ECONNREFUSED), Outage, "nobody listens"),
        (os(libc::ENOENT), Outage, "no such socket"),
        (os(libc::EACCES), Stranger, "may not open the socket"),
        (os(libc::EHOSTUNREACH), Outage, "host"),
        (wrapping(NotFound, eof()), Outage, "'redis.test' leads nowhere"),
        (wrapping(TimedOut, Late::Lookup), Outage, "nobody says where 'redis.test' is"),
        (wrapping(TimedOut, Late::Connect), Outage, "nothing answers there"),
        (wrapping(TimedOut, Late::Handshake), Stranger, "does not begin TLS"),
        (Error::late(), Outage, "no answer"),
        (wrapping(io::ErrorKind::Other, LeadsHere), Tollgate, "leads to this Tollgate itself"),
        (wrapping(UnexpectedEof, Wordless(eof())), Outage, "without a word"),
        (wrapping(InvalidData, NoResp(b"HTTP/1.1 400 Bad Request".to_vec())), Stranger, "web server"),
        (wrapping(InvalidData, NoResp(b"\x15\x03\x01\0\x02\x02\x46".to_vec())), Stranger, "wants TLS"),
        (wrapping(InvalidData, NoResp(b"220 mail".to_vec())), Stranger, "no Redis"),
        (certificate(CertificateError::UnknownIssuer), Stranger, "not trusted"),
        (certificate(CertificateError::NotValidForName), Stranger, "not for 'redis.test'"),
        (certificate(for_name(&["other.test"])), Stranger, "not for 'redis.test' but for other.test"),
        (certificate(for_name(&[])), Stranger, "names no host"),
        (certificate(CertificateError::Expired), Stranger, "expired"),
        (certificate(CertificateError::NotValidYet), Stranger, "not valid yet"),
        (certificate(CertificateError::Revoked), Stranger, "not taken"),
        (other_certificate("UnsupportedCertVersion"), Stranger, "version 1"),
        (other_certificate("CaUsedAsEndEntity"), Stranger, "that of an authority"),
        (tls(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)), Stranger, "speaks no TLS"),
        (tls(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)), Stranger, "asks for a certificate"),
        (tls(rustls::Error::AlertReceived(AlertDescription::UnknownCA)), Stranger, "does not take the certificate"),
        (tls(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)), Stranger, "too old or too new"),
        (tls(PeerIncompatible::NoCipherSuitesInCommon.into()), Stranger, "its TLS is not Tollgate's"),
        (tls(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)), Stranger, "ends TLS"),
        (tls(rustls::Error::HandshakeNotComplete), Stranger, "TLS fails"),
    ]
}

#[test]
fn each_error_is_led_back_to_its_cause() {
    for (error, kind, what) in errors() {
        let problem = of(&error, ABOUT);
        assert_eq!(problem.kind, kind, "{error}");
        assert!(problem.what.contains(what), "{error} is told as {}", problem.what);
        assert_eq!(problem.error, error.to_string());
        let needs_advice = problem.is_lasting() || kind == Kind::Own;
        assert!(!needs_advice || !problem.advice.is_empty() || problem.what.contains("TLS fails"), "{error}");
    }
}

#[test]
fn every_row_of_replies_can_be_reached() {
    let mut seen = BTreeSet::new();
    for (words, _, what, _) in REPLIES {
        let problem = of_reply(&format!("ERR {words} x"), ABOUT);
        assert!(problem.what == what || what == NO_RIGHT, "{words} is told as {}", problem.what);
        assert!(seen.insert(words), "{words} twice");
    }
}

/// A Tollgate without file descriptors took each client that it could not connect for a failure of Redis's, and
/// stopped asking over the connections that it had.
#[test]
fn what_tollgate_lacks_does_not_open_the_breaker() {
    let redis = [(OsString::from("REDIS_ADDR"), OsString::from("127.0.0.1:1"))];
    let redis = Redis::new(&config::load(None, redis, &[]).unwrap().config, &[]).unwrap();
    let health = &redis.upstream().unwrap().health;
    (0..10).for_each(|_| health.client_failed(&os(libc::EMFILE)));
    assert!(health.is_up());
    (0..3).for_each(|_| health.client_failed(&os(libc::ECONNREFUSED)));
    assert!(!health.is_up());
    assert_eq!(health.known().problem.unwrap().what, "nobody listens there");
}

/// The problems that docs/operations.md lists. `...` stands for what differs from one to the next.
fn documented() -> Vec<&'static str> {
    let page = include_str!("../../../docs/operations.md");
    let (_, section) = page.split_once("\n### By `store_problem`\n").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let first_cells = rows.map_while(|row| row.strip_prefix("| ")?.split(" | ").next());
    first_cells.flat_map(|cell| cell.split("; ")).collect()
}

fn is_as_documented(what: &str, documented: &str) -> bool {
    let mut parts = documented.split("...");
    let Some(rest) = what.strip_prefix(parts.next().unwrap()) else { return false };
    let rest = parts.try_fold(rest, |rest, part| rest.split_once(part).map(|(_, rest)| rest));
    rest.is_some_and(|rest| rest.is_empty() || documented.ends_with("..."))
}

#[test]
fn every_problem_is_documented() {
    let documented = documented();
    let of_errors = errors().into_iter().map(|(error, ..)| of(&error, ABOUT));
    // What nothing is known of is told in the words of the system.
    let known = of_errors.filter(|problem| problem.what != problem.error);
    let of_replies = REPLIES.map(|(words, ..)| of_reply(words, ABOUT));
    for Problem { what, .. } in known.chain(of_replies) {
        let is_there = documented.iter().any(|row| is_as_documented(&what, row));
        assert!(is_there, "docs/operations.md does not list: {what}");
    }
}

#[test]
fn every_problem_that_is_documented_can_be_told() {
    let modules = [
        include_str!("../diagnosis.rs"),
        include_str!("../discovery.rs"),
        include_str!("../facts.rs"),
        include_str!("../health.rs"),
        include_str!("../needs.rs"),
        include_str!("../probe.rs"),
        include_str!("tls.rs"),
    ];
    let code = modules.map(|module| module.split("#[cfg(test)]").next().unwrap()).concat();
    let documented = documented();
    assert!(documented.len() > 50, "{documented:#?}");
    for row in documented {
        assert!(row.split("...").all(|words| code.contains(words)), "the code does not say: {row}");
    }
}
