//! `[tls]`: the listeners that speak TLS.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::addr::{HostPort, Listen};
use super::layers::Settings;

/// `[tls]`: the listeners that speak TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where to listen, beside the plain listeners: 0 to [`MAX_LISTEN`](super::addr::MAX_LISTEN) addresses, at least one
    /// unless HTTP speaks TLS. Port 0 takes a free port.
    pub listen: Vec<HostPort>,
    /// The certificate to show, PEM, with those between it and its authority behind it.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
    /// The certificates that clients show, if they are asked for any.
    pub client_certs: Option<ClientCerts>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCerts {
    /// The certificates of the authorities to trust, PEM.
    pub ca_file: PathBuf,
    /// Whether a client that shows none is refused.
    pub required: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientAuth {
    No,
    Optional,
    Required,
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

impl Tls {
    /// `None` without an address to listen on, of its own or of HTTP.
    pub(super) fn read(settings: &mut Settings, is_for_http: bool) -> Option<Self> {
        use ClientAuth::{No, Optional, Required};
        let listen = settings.parsed("tls.listen", Listen(vec![]), Listen::from_str).0;
        let cert_file = settings.path("tls.cert_file");
        let key_file = settings.path("tls.key_file");
        let client_auth = settings.one_of("tls.client_auth", No, &[No, Optional, Required]);
        let ca_file = settings.path("tls.ca_file");
        let client_certs = match (client_auth, ca_file) {
            (No, None) => None,
            (Optional | Required, Some(ca_file)) => Some(ClientCerts { ca_file, required: client_auth == Required }),
            (Optional | Required, None) => settings.conflict("tls.client_auth", "needs tls.ca_file"),
            // Whoever names an authority takes clients to be checked.
            (No, Some(_)) => settings.conflict("tls.ca_file", "needs tls.client_auth = 'optional' or 'required'"),
        };
        match (cert_file, key_file) {
            _ if listen.is_empty() && !is_for_http => {
                for key in ["tls.cert_file", "tls.key_file", "tls.ca_file"] {
                    settings.conflict::<()>(key, "needs tls.listen, or http.tls = true");
                }
                None
            }
            (Some(cert_file), Some(key_file)) => Some(Self { listen, cert_file, key_file, client_certs }),
            _ if is_for_http => settings.conflict("http.tls", "needs tls.cert_file and tls.key_file"),
            _ => settings.conflict("tls.listen", "needs tls.cert_file and tls.key_file"),
        }
    }
}
