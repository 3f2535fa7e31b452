//! `[http]`: the listener for metrics, probes and the page.

use std::fmt;
use std::str::FromStr;

use super::addr::{HostPort, Listen};
use super::auth::{self, Auth, PasswordHash};
use super::layers::Settings;
use super::secret::MASK;

/// `[http]`: the listener for metrics, probes and the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where to listen: 1 to [`MAX_LISTEN`](super::addr::MAX_LISTEN) addresses. Port 0 takes a free port.
    pub listen: Vec<HostPort>,
    /// Whether it speaks TLS, by what [`Tls`](super::Tls) says.
    pub tls: bool,
    /// What lets in whoever shows it, beside the users of [`Auth`]. Never `None` where Redis knows the users.
    pub token: Option<PasswordHash>,
    /// What `/readyz` takes for ready.
    pub ready_when: ReadyWhen,
}

/// What `/readyz` takes for ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyWhen {
    /// Clients are served, by the fallback too.
    Serving,
    /// Answers are exact.
    Exact,
}

impl fmt::Display for ReadyWhen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serving => "serving",
            Self::Exact => "exact",
        })
    }
}

impl Http {
    /// `None` without an address to listen on.
    pub(super) fn read(settings: &mut Settings) -> Option<Self> {
        use ReadyWhen::{Exact, Serving};
        const NEEDS_LISTEN: &str = "needs http.listen";
        let listen = settings.parsed("http.listen", Listen(vec![]), Listen::from_str).0;
        let tls = settings.bool("http.tls", false);
        let token = settings.optional("http.token", auth::parse_password, |_| MASK.to_owned());
        let ready_when = settings.one_of("http.ready_when", Serving, &[Serving, Exact]);
        if listen.is_empty() {
            settings.conflict::<()>("http.token", NEEDS_LISTEN);
            return if tls { settings.conflict("http.tls", NEEDS_LISTEN) } else { None };
        }
        Some(Self { listen, tls, token, ready_when })
    }

    /// Whether nobody could come in: Tollgate does not know the users whom Redis lets in, and there is no token.
    pub(super) fn lets_nobody_in(&self, auth: &Auth) -> bool {
        *auth == Auth::Redis && self.token.is_none()
    }
}
