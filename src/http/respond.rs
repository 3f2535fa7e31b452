//! What is answered to a request, and to whom.

use super::exposition::Format;
use super::nodes::nodes;
use super::readiness::readiness;
use super::{Http, metrics, page, state};
use crate::auth::{NOT_ALL_KEYS, Permissions, pause_after};
use crate::clock::now_us;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use tracing::info;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// For every answer. A page may run what came with it, and talk to where it came from; nobody may frame it.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
const PROTECTED: &str = "Tollgate is running in protected mode: nobody is asked who they are, and so only this machine \
     is let in, by an address or as localhost. To let in others, set http.token_file, or auth.mode = \"password\"; or, \
     if nobody but your own can reach this address, server.protected_mode = false.";
const WHO_ARE_YOU: &str = "Log in as a user of [[auth.users]], or show http.token: Authorization: Basic or Bearer.";

type Answer = Response<Full<Bytes>>;

/// Who is at the other end of a connection.
pub struct Visitor {
    /// Its address.
    pub peer: IpAddr,
    /// How many of its logins have failed.
    pub failed_logins: Cell<u32>,
}

impl Http {
    /// The answer to a request.
    pub async fn respond(&self, request: &Request<Incoming>, visitor: &Visitor) -> Answer {
        let mut answer = match *request.method() {
            Method::GET | Method::HEAD => self.answer(request, visitor).await,
            _ => {
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are all that there is.");
                answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                answer
            }
        };
        for (name, value) in HEADERS {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    async fn answer(&self, request: &Request<Incoming>, visitor: &Visitor) -> Answer {
        match request.uri().path() {
            // Who probes knows no password, and is told little.
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" => {
                let nodes = nodes(&self.shared);
                self.has_looked.set(self.has_looked.get() || nodes.iter().all(|node| node.was_looked_at));
                let phase = self.shared.phase.now();
                let (status, body) = readiness(phase, self.has_looked.get(), &nodes, self.config.ready_when);
                text(status, &body)
            }
            path => match self.admit_visitor(request, visitor).await {
                Ok(permissions) => self.show(path, request, &permissions).await,
                Err(refusal) => refusal,
            },
        }
    }

    async fn show(&self, path: &str, request: &Request<Incoming>, permissions: &Permissions) -> Answer {
        match path {
            "/metrics" => {
                let format = Format::accepted(request.headers().get(header::ACCEPT).map(HeaderValue::as_bytes));
                answer(StatusCode::OK, format.content_type(), metrics::render(&self.shared, format))
            }
            "/api/state" | "/api/key" if !permissions.may_see_all_keys() => text(StatusCode::FORBIDDEN, NOT_ALL_KEYS),
            "/api/state" => {
                let state = state::render(&self.shared, &self.history.borrow());
                answer(StatusCode::OK, JSON, state.to_string())
            }
            "/api/key" => {
                let query = request.uri().query().unwrap_or_default();
                let (status, body) = self.look_up.answer(query, &self.shared, &self.stats).await;
                answer(status, JSON, body.to_string())
            }
            path => match page::file(path) {
                Some((content_type, contents)) => answer(StatusCode::OK, content_type, contents),
                None => text(StatusCode::NOT_FOUND, "There is nothing here."),
            },
        }
    }

    /// What a visitor may see.
    ///
    /// # Errors
    /// It may see nothing; the answer says why.
    async fn admit_visitor(&self, request: &Request<Incoming>, visitor: &Visitor) -> Result<Arc<Permissions>, Answer> {
        if !self.logins.ask() {
            let is_protected = self.shared.config.server.protected_mode && !self.requires_certificates();
            if is_protected && !(visitor.peer.to_canonical().is_loopback() && names_this_machine(request)) {
                return Err(text(StatusCode::FORBIDDEN, PROTECTED));
            }
            return Ok(Arc::new(Permissions::unrestricted()));
        }
        let Some(header) = request.headers().get(header::AUTHORIZATION) else { return Err(who_are_you()) };
        if let Some(permissions) = self.logins.check(header.as_bytes()) {
            return Ok(permissions);
        }
        self.stats.failed_logins.add(1);
        visitor.failed_logins.set(visitor.failed_logins.get().saturating_add(1));
        if let Some(times) = self.shared.login_log.due(now_us()) {
            info!(peer = %visitor.peer, times, "logins failed, of which this client's is the last");
        }
        if let Some(pause) = pause_after(visitor.failed_logins.get()) {
            tokio::time::sleep(pause).await;
        }
        Err(who_are_you())
    }

    /// Who must show a certificate of ours is no stranger.
    fn requires_certificates(&self) -> bool {
        let tls = self.shared.config.tls.as_ref().filter(|_| self.config.tls);
        tls.and_then(|tls| tls.client_certs.as_ref()).is_some_and(|certs| certs.required)
    }
}

/// Whether the name by which the visitor has come is one that no stranger can have lead here. A web page elsewhere may
/// have a name of its own resolve to this machine, and its script would then be of the same origin as what it reads here.
fn names_this_machine(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest.split(']').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

fn who_are_you() -> Answer {
    let mut answer = text(StatusCode::UNAUTHORIZED, WHO_ARE_YOU);
    let challenge = HeaderValue::from_static("Basic realm=\"tollgate\", charset=\"UTF-8\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

fn text(status: StatusCode, line: &str) -> Answer {
    answer(status, TEXT, format!("{line}\n"))
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
