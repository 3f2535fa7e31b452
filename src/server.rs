//! Listens, hands clients to worker threads, and stops in good order.
//!
//! One thread accepts and each client goes to the worker with the fewest. Listeners of the workers' own, sharing the
//! port (SO_REUSEPORT), would spread few connections unevenly, and would let a second Tollgate be started on the same
//! port by mistake and take half of the clients.

use crate::auth::{self, Auth};
use crate::client_list::{self, AtRedis, ClientList, Entry, KillSwitch, Said};
use crate::clock::now_us;
use crate::command;
use crate::config::Config;
use crate::descriptors;
use crate::http;
use crate::limiter::backend::Backend;
use crate::limiter::policies::Keeper;
use crate::listen::{Listener, Listeners};
use crate::log_limit::LogLimit;
use crate::net::{Stream, set_keepalive};
use crate::phase::{Phase, PhaseCell};
use crate::policy::live::LivePolicies;
use crate::policy_file::PolicyFile;
use crate::resp::reply;
use crate::session;
use crate::stats::Stats;
use crate::tls::{Acceptor, MAX_HANDSHAKE};
use crate::top::TopOfAll;
use crate::worker::{Shared, Worker};
use bytes::BytesMut;
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Clients on their way from the accepting thread to a worker. A worker that is this far behind holds accepting up.
const HANDOVER: usize = 128;
/// How long clients may wait at the start for what Redis keeps of policies: for as many as may be, from a Redis that is busy.
const POLICIES_WAIT: Duration = Duration::from_secs(5);

/// A server that listens, but serves only when [`Server::run`].
pub struct Server {
    /// Each with whether its clients speak TLS.
    listeners: Vec<(Listener, bool)>,
    http_listeners: Vec<Listener>,
    shared: Arc<Shared>,
}

/// A client that was accepted.
struct Arrival {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    speaks_tls: bool,
}

/// The accepting thread's end of a worker.
struct WorkerHandle {
    clients: mpsc::Sender<Arrival>,
    /// Clients handed over and not gone.
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Takes the addresses to listen on, of which some may have been `inherited`, as [`listen::inherited`] has them.
    ///
    /// # Errors
    /// An address that cannot be had, or a limiter that cannot be made as configured; the text names it.
    pub fn bind(config: Config, inherited: Vec<(String, Socket)>) -> Result<Self, String> {
        let mut sockets = Listeners::new(inherited, config.server.backlog, config.server.reuse_port)?;
        let plain = sockets.listen("server.listen", &config.server.listen)?;
        let secured = match &config.tls {
            Some(tls) => sockets.listen("tls.listen", &tls.listen)?,
            None => vec![],
        };
        let http_listeners = match &config.http {
            Some(http) => sockets.listen("http.listen", &http.listen)?,
            None => vec![],
        };
        sockets.finish()?;
        let plain = plain.into_iter().map(|listener| (listener, false));
        let listeners: Vec<_> = plain.chain(secured.into_iter().map(|listener| (listener, true))).collect();
        let workers = config.server.workers.get();
        let max_clients = config.server.max_clients;
        if let Err((needed, allowed)) = descriptors::make_room(max_clients, workers, !config.embedded.enabled) {
            let advice = "raise the limit (ulimit -Hn, LimitNOFILE of systemd), or lower server.max_clients";
            warn!(needed, allowed, max_clients, advice, "too few file descriptors for all clients");
        }
        // The last is for the thread that serves HTTP.
        let stats: Vec<_> = (0..=workers).map(|_| Arc::default()).collect();
        command::set_cl_throttle(config.dialects.cl_throttle);
        let backend = Backend::new(&config, &stats)?;
        let all_listeners = listeners.iter().map(|(listener, _)| listener).chain(&http_listeners);
        backend.set_listeners(all_listeners.filter_map(|listener| listener.socket.local_addr().ok()).collect())?;
        let is_embedded = backend.is_embedded();
        let policies = Arc::new(LivePolicies::default());
        policies.update(|policies| policies.set_file(config.policies.of_file.clone()));
        let shared = Shared {
            auth: Auth::new(&config.auth)?,
            tls: config.tls.as_ref().map(Acceptor::load).transpose()?,
            keeper: Keeper::new(policies.clone()),
            policy_file: Arc::new(PolicyFile::new(config.policies.file.clone(), policies.clone())),
            config,
            policies,
            backend: Arc::new(backend),
            stats,
            top: TopOfAll::default(),
            clients: AtomicUsize::new(0),
            rejected: AtomicU64::new(0),
            client_list: Arc::new(ClientList::default()),
            next_client_id: AtomicU64::new(client_list::first_id(is_embedded)),
            started: Instant::now(),
            phase: PhaseCell::default(),
            stopping: CancellationToken::new(),
            unread: AtomicUsize::new(0),
            login_log: LogLimit::default(),
            http_log: LogLimit::default(),
        };
        Ok(Self { listeners, http_listeners, shared: Arc::new(shared) })
    }

    /// What is listened on. With each, whether its clients speak TLS.
    pub fn listeners(&self) -> &[(Listener, bool)] {
        &self.listeners
    }

    /// The addresses at which HTTP is served.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        self.http_listeners.iter().filter_map(|listener| listener.socket.local_addr().ok()).collect()
    }

    /// A function that has the file's policies read again, and says whether there is a file. What comes of it the log
    /// tells.
    pub fn policy_loader(&self) -> impl Fn() -> bool + Send + 'static {
        let file = self.shared.policy_file.clone();
        move || {
            let file = file.clone();
            let is_there = file.is_there();
            drop(tokio::task::spawn_blocking(move || file.load()));
            is_there
        }
    }

    /// A function that reads the certificates again, and says whether there are any.
    pub fn reloader(&self) -> impl Fn() -> Result<bool, String> + Send + 'static {
        let shared = self.shared.clone();
        move || shared.tls.as_ref().map_or(Ok(false), |acceptor| acceptor.reload().map(|()| true))
    }

    /// Serves until `stop` is cancelled, and as long after that as the configuration delays the end; then takes no more
    /// clients, answers what was received, and closes. Whether all clients were done within the grace that the
    /// configuration gives.
    ///
    /// # Errors
    /// Threads or listeners that cannot be started.
    pub async fn run(self, stop: CancellationToken) -> io::Result<bool> {
        let Self { listeners, http_listeners, shared } = self;
        let mut handles = Vec::new();
        for (index, stats) in shared.stats.iter().take(shared.config.server.workers.get()).enumerate() {
            handles.push(start_worker(index, shared.clone(), stats.clone())?);
        }
        // Until the end, so that a probe is told that this Tollgate drains.
        let ended = CancellationToken::new();
        let _ended = ended.clone().drop_guard();
        if let (Some(config), Some(stats)) = (shared.config.http.clone(), shared.stats.last()) {
            let http_listeners = http_listeners.into_iter().map(|listener| listener.socket).collect();
            http::start(http_listeners, config, shared.clone(), stats.clone(), ended)?;
        }
        let door = Rc::new(Door {
            shared: shared.clone(),
            handles,
            failures: LogLimit::default(),
            closing: CancellationToken::new(),
        });
        let mut accepting = JoinSet::new();
        let local = LocalSet::new();
        for (Listener { socket, is_inherited }, speaks_tls) in listeners {
            let (listener, door) = (TcpListener::from_std(socket)?, door.clone());
            let accept = async move {
                door.wait_for_policies().await;
                door.accept(listener, is_inherited, speaks_tls).await
            };
            accepting.spawn_local_on(accept, &local);
        }
        shared.phase.begin(Phase::Serving);
        local
            .run_until(async {
                let end = async {
                    stop.cancelled().await;
                    shared.phase.begin(Phase::Draining);
                    tokio::time::sleep(shared.config.shutdown.delay).await;
                };
                let tend = async {
                    tokio::join!(
                        shared.backend.tend(),
                        shared.keeper.keep(&shared.backend),
                        shared.policy_file.watch()
                    );
                };
                tokio::select! {
                    () = end => {}
                    () = tend => {}
                }
                door.closing.cancel();
                while accepting.join_next().await.is_some() {}
            })
            .await;
        shared.stopping.cancel();
        // With the senders gone, the workers know that nobody comes any more.
        let handles = Rc::into_inner(door).map(|door| door.handles).unwrap_or_default();
        let threads: Vec<_> = handles.into_iter().map(|handle| handle.thread).collect();
        let deadline = Instant::now() + shared.config.shutdown.grace;
        while Instant::now() < deadline && !threads.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(threads.iter().all(JoinHandle::is_finished))
    }
}

/// What the tasks that accept clients share.
struct Door {
    shared: Arc<Shared>,
    handles: Vec<WorkerHandle>,
    /// Limits the log lines on clients that cannot be accepted.
    failures: LogLimit,
    /// Cancelled when no more are to be.
    closing: CancellationToken,
}

impl Door {
    /// Those who come first are not to be told that there is no policy of which Redis knows.
    async fn wait_for_policies(&self) {
        let _ = tokio::time::timeout(POLICIES_WAIT, self.shared.keeper.begun()).await;
    }

    /// Accepts clients until it closes. Those that have connected by then and are not accepted yet are served too, if
    /// nobody else would; those of a socket that was inherited wait for the next process.
    async fn accept(&self, listener: TcpListener, is_inherited: bool, speaks_tls: bool) -> io::Result<()> {
        while let Some(accepted) = self.closing.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => self.hand_over(stream, peer, speaks_tls).await,
                Err(error) => {
                    // Out of file descriptors, most likely: clients that leave give some back.
                    if let Some(times) = self.failures.due(now_us()) {
                        let advice = "raise the limit of file descriptors (ulimit -n), or lower server.max_clients";
                        warn!(%error, times, advice, "cannot accept clients");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let listener = listener.into_std()?;
        let waiting = if is_inherited { 0 } else { self.shared.config.server.backlog };
        for _ in 0..waiting {
            let Ok((stream, peer)) = listener.accept() else { break };
            stream.set_nonblocking(true)?;
            self.hand_over(TcpStream::from_std(stream)?, peer, speaks_tls).await;
        }
        Ok(())
    }

    /// Gives a client to the worker that has the fewest, unless it is to be refused.
    async fn hand_over(&self, mut stream: TcpStream, peer: SocketAddr, speaks_tls: bool) {
        // One that came by IPv4 to a socket of IPv6 is known by its own address.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if let Some(text) = self.refusal(peer, speaks_tls) {
            debug!(%peer, text, "client refused");
            self.shared.rejected.fetch_add(1, Relaxed);
            let mut line = BytesMut::new();
            reply::error(&mut line, text);
            // Not waited for: a client that does not read must not hold up those behind it. One that speaks TLS would not
            // understand it.
            if !speaks_tls {
                let _ = stream.try_write(&line);
            }
            let _ = stream.shutdown().await;
            return;
        }
        if let Err(error) = set_options(&stream, &self.shared) {
            debug!(%peer, %error, "cannot set socket options");
        }
        let Some(handle) = self.handles.iter().min_by_key(|handle| handle.load.load(Relaxed)) else { return };
        if let Ok(stream) = stream.into_std() {
            self.shared.clients.fetch_add(1, Relaxed);
            handle.load.fetch_add(1, Relaxed);
            // Fails only when the worker has ended, and then the server is stopping.
            let _ = handle.clients.send(Arrival { stream, peer, speaks_tls }).await;
        }
    }

    /// Why a client may not come in, if it may not.
    fn refusal(&self, peer: SocketAddr, speaks_tls: bool) -> Option<&'static str> {
        let Shared { config, auth, clients, .. } = &*self.shared;
        // Who must show a certificate of ours is no stranger.
        let has_required_client_cert =
            speaks_tls && config.tls.iter().flat_map(|tls| &tls.client_certs).any(|certs| certs.required);
        if config.server.protected_mode && !has_required_client_cert && auth.protects_from(peer.ip()) {
            Some(auth::DENIED)
        } else if clients.load(Relaxed) >= config.server.max_clients {
            Some("ERR max number of clients reached")
        } else {
            None
        }
    }
}

fn set_options(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match shared.config.server.tcp_keepalive {
        Some(idle) => set_keepalive(stream, idle),
        None => Ok(()),
    }
}

fn start_worker(index: usize, shared: Arc<Shared>, stats: Arc<Stats>) -> io::Result<WorkerHandle> {
    let (clients, arriving) = mpsc::channel(HANDOVER);
    let load = Arc::new(AtomicUsize::new(0));
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let worker_load = load.clone();
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let worker = Rc::new(Worker::new(shared, stats));
        LocalSet::new().block_on(&runtime, serve_clients(worker, arriving, worker_load));
    })?;
    Ok(WorkerHandle { clients, load, thread })
}

async fn serve_clients(worker: Rc<Worker>, mut arriving: mpsc::Receiver<Arrival>, load: Arc<AtomicUsize>) {
    worker.limiter.start();
    tokio::task::spawn_local({
        let worker = worker.clone();
        async move { worker.busy_poll.run().await }
    });
    let sessions = TaskTracker::new();
    while let Some(arrival) = arriving.recv().await {
        let (worker, load) = (worker.clone(), load.clone());
        sessions.spawn_local(async move {
            let (shared, peer) = (worker.shared.clone(), arrival.peer);
            worker.stats.connections.add(1);
            let (fd, local) = (arrival.stream.as_raw_fd(), arrival.stream.local_addr());
            // Boxed, or every client's task would keep room for a TLS handshake for life.
            match Box::pin(begin(&shared, arrival)).await {
                Ok(stream) => {
                    let id = shared.next_client_id.fetch_add(1, Relaxed);
                    let (local, since) = (local.unwrap_or(peer), Instant::now());
                    let user = shared.auth.before_login().map(|may| may.user.clone()).unwrap_or_default();
                    let said = Said { user, ..Said::default() };
                    let (at_redis, kill) = (AtRedis::Absent, Arc::<KillSwitch>::default());
                    shared.client_list.add(Entry { id, peer, local, fd, since, said, at_redis, kill: kill.clone() });
                    session::serve(worker, stream, id, peer.to_string(), &kill).await;
                    shared.client_list.remove(id);
                }
                Err(error) => debug!(%peer, %error, "client did not begin"),
            }
            shared.clients.fetch_sub(1, Relaxed);
            load.fetch_sub(1, Relaxed);
        });
    }
    worker.stop().await;
    sessions.close();
    sessions.wait().await;
    worker.limiter.end_shares().await;
}

/// The stream that a client speaks RESP on.
async fn begin(shared: &Shared, arrival: Arrival) -> io::Result<Stream> {
    let stream = TcpStream::from_std(arrival.stream)?;
    match &shared.tls {
        Some(acceptor) if arrival.speaks_tls => {
            let handshake = tokio::time::timeout(MAX_HANDSHAKE, acceptor.accept(stream));
            let outcome = shared.stopping.run_until_cancelled(handshake).await;
            let stream = outcome.ok_or(io::ErrorKind::ConnectionAborted)???;
            Ok(Stream::Tls(Box::new(TlsStream::Server(stream))))
        }
        _ => Ok(Stream::Tcp(stream)),
    }
}
