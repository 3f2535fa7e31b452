//! The HTTP listener: metrics, probes, and the page with what it asks for.
//!
//! On a thread of its own, so that whoever looks delays no check: it reads what the workers count for themselves, and
//! takes no lock that a check waits for. Everything is bounded: connections, headers, and how long one may take over
//! them. It changes nothing, whoever asks.

mod exposition;
mod history;
mod login;
mod look_up;
mod metrics;
mod nodes;
mod page;
mod policies;
mod readiness;
mod respond;
mod state;

use crate::clock::now_us;
use crate::config;
use crate::log_limit::LogLimit;
use crate::stats::Stats;
use crate::tls::MAX_HANDSHAKE;
use crate::worker::Shared;
use history::History;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use login::Logins;
use look_up::LookUp;
use respond::Visitor;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Most connections at once. The oldest makes room for another, so that a probe gets in whoever holds the others.
const MAX_CONNECTIONS: usize = 64;
/// Longest time that the headers of a request may take, and that a connection may stay without one.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Most bytes and lines of a request's headers.
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Wait before the next connection is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections share.
struct Http {
    shared: Arc<Shared>,
    config: config::Http,
    /// This thread's counters.
    stats: Arc<Stats>,
    logins: Logins,
    history: RefCell<History>,
    look_up: LookUp,
    /// Whether a first look at Redis has ended.
    has_looked: Cell<bool>,
    /// Those that are open, the oldest first, and some that have ended.
    connections: RefCell<VecDeque<AbortHandle>>,
    accept_log: LogLimit,
}

/// Serves HTTP on a thread of its own until `stop` is cancelled, counting in `stats`.
///
/// # Errors
/// The thread, or what it waits by, cannot be had.
pub fn start(
    listeners: Vec<std::net::TcpListener>,
    config: config::Http,
    shared: Arc<Shared>,
    stats: Arc<Stats>,
    stop: CancellationToken,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let logins = Logins::new(&shared.config.auth, config.token.as_ref()).map_err(io::Error::other)?;
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        let http = Http {
            shared,
            config,
            stats,
            logins,
            history: RefCell::default(),
            look_up: LookUp::default(),
            has_looked: Cell::new(false),
            connections: RefCell::default(),
            accept_log: LogLimit::default(),
        };
        LocalSet::new().block_on(&runtime, stop.run_until_cancelled(serve(Rc::new(http), listeners)));
    })?;
    Ok(())
}

async fn serve(http: Rc<Http>, listeners: Vec<std::net::TcpListener>) {
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => drop(spawn_local(accept(http.clone(), listener))),
            Err(error) => warn!(%error, "cannot serve http"),
        }
    }
    let mut every = tokio::time::interval(history::STEP);
    loop {
        every.tick().await;
        http.history.borrow_mut().sample(&http.shared.stats);
    }
}

async fn accept(http: Rc<Http>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => http.admit(stream, peer.ip()),
            Err(error) => {
                if let Some(times) = http.accept_log.due(now_us()) {
                    warn!(%error, times, "cannot accept http connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Http {
    fn admit(self: &Rc<Self>, stream: TcpStream, peer: IpAddr) {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let http = self.clone();
        let task = spawn_local(async move {
            if let Err(error) = http.connect(stream, peer).await {
                debug!(%peer, %error, "http connection ended");
            }
        });
        connections.push_back(task.abort_handle());
    }

    async fn connect(self: Rc<Self>, stream: TcpStream, peer: IpAddr) -> Result<(), Box<dyn std::error::Error>> {
        stream.set_nodelay(true)?;
        match &self.shared.tls {
            Some(acceptor) if self.config.tls => {
                let stream = tokio::time::timeout(MAX_HANDSHAKE, acceptor.accept(stream)).await??;
                self.converse(TokioIo::new(stream), peer).await?;
            }
            _ => self.converse(TokioIo::new(stream), peer).await?,
        }
        Ok(())
    }

    async fn converse(&self, stream: impl Read + Write + Unpin, peer: IpAddr) -> hyper::Result<()> {
        let visitor = Visitor { peer, failed_logins: Cell::new(0) };
        let service = service_fn(async |request| Ok::<_, Infallible>(self.respond(&request, &visitor).await));
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(MAX_WAIT)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(stream, service)
            .await
    }
}
