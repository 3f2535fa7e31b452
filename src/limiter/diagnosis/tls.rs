//! What is wrong when TLS with Redis fails.

use super::{About, Kind, Problem};
use std::fmt::Debug;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, InvalidMessage};

/// The problem that an error of TLS shows.
pub fn of(error: &rustls::Error, about: About<'_>) -> Problem {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage as Invalid, PeerIncompatible};
    let (what, advice) = match error {
        InvalidCertificate(error) => of_certificate(error, about),
        Invalid(InvalidMessage::InvalidContentType) => (
            "it speaks no TLS".to_owned(),
            "a Redis without TLS is reached by redis:// in place of rediss://".to_owned(),
        ),
        AlertReceived(alert) => of_alert(*alert),
        PeerIncompatible(_) => (
            format!("its TLS is not Tollgate's: {error}"),
            "Redis must offer TLS 1.2 or 1.3 (tls-protocols) with a current cipher".to_owned(),
        ),
        _ => (format!("TLS fails: {error}"), String::new()),
    };
    Problem::new(Kind::Stranger, what, advice)
}

fn of_certificate(error: &CertificateError, about: About<'_>) -> (String, String) {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    let host = about.host;
    let (what, advice) = match error {
        UnknownIssuer | BadSignature => (
            "its certificate comes from an authority that is not trusted here".to_owned(),
            "set redis.ca_file to the PEM file of that authority",
        ),
        NotValidForName => (format!("its certificate is not for '{host}'"), NAME_OF_CERTIFICATE),
        NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            (format!("its certificate is not for '{host}' but for {}", presented.join(", ")), NAME_OF_CERTIFICATE)
        }
        NotValidForNameContext { .. } => {
            (format!("its certificate names no host, not '{host}' either"), NAME_OF_CERTIFICATE)
        }
        Expired | ExpiredContext { .. } => (
            "its certificate has expired".to_owned(),
            "renew Redis's certificate (tls-cert-file), or set the clock right",
        ),
        NotValidYet | NotValidYetContext { .. } => {
            ("its certificate is not valid yet".to_owned(), "set the clocks right, here and where it was made")
        }
        _ if names(error, "UnsupportedCertVersion") => (
            "its certificate is of X.509 version 1, which nobody takes any more".to_owned(),
            "make Redis's certificate one of version 3, which names its host: `openssl x509 -extfile` with a subjectAltName",
        ),
        _ if names(error, "CaUsedAsEndEntity") => (
            "its certificate is that of an authority".to_owned(),
            "give Redis (tls-cert-file) a certificate of its own, signed by the authority that redis.ca_file holds",
        ),
        _ => (format!("its certificate is not taken: {error}"), "see to Redis's tls-cert-file and to redis.ca_file"),
    };
    (what, advice.to_owned())
}

const NAME_OF_CERTIFICATE: &str =
    "write in redis.addr the name that is in the certificate, or put this one into it (subjectAltName)";

/// Whether an error of the library below says so, which has no name of its own here.
fn names(error: &dyn Debug, what: &str) -> bool {
    format!("{error:?}").contains(what)
}

fn of_alert(alert: AlertDescription) -> (String, String) {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown,
        ProtocolVersion, UnknownCA, UnsupportedCertificate,
    };
    let (what, advice) = match alert {
        CertificateRequired => (
            "Redis asks for a certificate, and none is configured",
            "set redis.cert_file and redis.key_file, or tls-auth-clients of Redis to no",
        ),
        UnknownCA
        | BadCertificate
        | CertificateExpired
        | CertificateRevoked
        | CertificateUnknown
        | UnsupportedCertificate => (
            "Redis does not take the certificate of redis.cert_file",
            "it must be valid and signed by an authority that Redis trusts (tls-ca-cert-file)",
        ),
        ProtocolVersion => ("its TLS is too old or too new", "Redis must offer TLS 1.2 or 1.3 (tls-protocols)"),
        _ => return (format!("Redis ends TLS: {alert:?}"), "see Redis's log for the reason".to_owned()),
    };
    (what.to_owned(), advice.to_owned())
}
