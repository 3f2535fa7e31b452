//! What the sessions of one thread share, and what all threads share.

use crate::auth::Auth;
use crate::busy_poll::BusyPoll;
use crate::client_list::ClientList;
use crate::clock::now_us;
use crate::config::Config;
use crate::limiter::Limiter;
use crate::limiter::backend::Backend;
use crate::limiter::policies::Keeper;
use crate::log_limit::LogLimit;
use crate::phase::PhaseCell;
use crate::policy::live::{LivePolicies, PolicyView};
use crate::policy_file::PolicyFile;
use crate::resp::request::Parser;
use crate::sched_batch::SchedBatch;
use crate::stats::Stats;
use crate::tls::Acceptor;
use crate::top::TopOfAll;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Bytes that one read takes at most.
const READ_BYTES: usize = 64 * 1024;

/// A client that asks nothing for so long, once the server is to stop, is taken to be idle.
const QUIET: Duration = Duration::from_millis(50);

/// What all threads share.
pub struct Shared {
    /// The configuration in force.
    pub config: Config,
    /// Who may come in.
    pub auth: Auth,
    /// Performs the TLS handshake with clients that speak TLS.
    pub tls: Option<Acceptor>,
    /// The limits that have names.
    pub policies: Arc<LivePolicies>,
    /// Changes them while Tollgate runs.
    pub keeper: Keeper,
    /// What the file says of them.
    pub policy_file: Arc<PolicyFile>,
    /// Where limits are counted.
    pub backend: Arc<Backend>,
    /// Each worker's counters, and behind them those of the thread that serves HTTP.
    pub stats: Vec<Arc<Stats>>,
    /// What they have counted of keys, for whoever asks.
    pub top: TopOfAll,
    /// Clients connected now.
    pub clients: AtomicUsize,
    /// Clients that were turned away: too many, or kept out by protected mode.
    pub rejected: AtomicU64,
    /// Who the clients are.
    pub client_list: Arc<ClientList>,
    /// Id of the next client.
    pub next_client_id: AtomicU64,
    /// When the server started.
    pub started: Instant,
    /// Whether the server starts, serves or drains.
    pub phase: PhaseCell,
    /// Cancelled when the server is to stop.
    pub stopping: CancellationToken,
    /// Bytes of replies that clients leave unread, of those that leave many.
    pub unread: AtomicUsize,
    /// Limits the log lines on logins that failed.
    pub login_log: LogLimit,
    /// Limits the log lines on connections that speak HTTP.
    pub http_log: LogLimit,
}

/// What the sessions of one thread share.
pub struct Worker {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// This thread's counters.
    pub stats: Arc<Stats>,
    /// This thread's copy of the limits that have names.
    pub policies: PolicyView,
    /// This thread's way to the limiter.
    pub limiter: Limiter,
    /// Whether the sessions are to come to an end, which [`Worker::stop`] tells them. Not a token that threads share,
    /// because each session asks each time that it runs.
    pub stopping: Cell<bool>,
    /// Wakes them then.
    pub stop: Notify,
    /// Keeps this thread awake while much happens.
    pub busy_poll: BusyPoll,
    /// Lets others finish while even more happens.
    sched_batch: SchedBatch,
    /// Lent to the session that runs. Of one thread's sessions one runs at a time, so one buffer does for all, and an
    /// idle connection holds none.
    pub read_buffer: RefCell<Vec<u8>>,
    /// Lent likewise.
    pub parser: RefCell<Parser>,
}

impl Worker {
    /// The worker of this thread.
    pub fn new(shared: Arc<Shared>, stats: Arc<Stats>) -> Self {
        let limiter = Limiter::new(shared.backend.clone(), stats.clone());
        let policies = PolicyView::new(shared.policies.clone());
        let (stopping, stop) = (Cell::new(false), Notify::new());
        let busy_poll = BusyPoll::new(shared.config.server.busy_poll_us);
        let sched_batch = SchedBatch::of_this_thread(shared.config.server.sched_batch);
        let read_buffer = RefCell::new(vec![0; READ_BYTES]);
        Self {
            shared,
            stats,
            policies,
            limiter,
            busy_poll,
            sched_batch,
            read_buffer,
            stopping,
            stop,
            parser: RefCell::default(),
        }
    }

    /// The session of `client` is about to run.
    pub fn on_event(&self, client: u64) {
        let now_us = now_us();
        self.busy_poll.on_event(now_us);
        self.sched_batch.on_event(client, now_us);
    }

    /// Tells every session that the server stops: first those whose clients ask something, which then end right behind a
    /// reply, when the next request is least likely to be on its way; and then all others.
    pub async fn stop(&self) {
        self.stopping.set(true);
        tokio::time::sleep(QUIET).await;
        self.stop.notify_waiters();
    }
}
