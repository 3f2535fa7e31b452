//! A client's own way to Redis: a connection that is opened at its first command that is not Tollgate's and kept for
//! life, so that whatever state Redis keeps for a connection is the client's own. It knows the client and where its
//! replies go, and nothing of how requests come or who else answers them.

mod handshake;
mod oversized;
mod relay;
mod stall;
mod state;
mod upstream;

use super::caller::{Caller, Flow, Polled};
use super::client::After;
use super::expect::ConnectionId;
use super::redis_commands::RedisRequest;
use crate::auth::Auth;
use crate::command::OwnRequest;
use crate::config::WhenDown;
use crate::limiter::node::Node;
use crate::resp::reply;
use handshake::{Failure, Opened};
use oversized::Oversized;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Sleep, sleep};
use tracing::debug;
pub use upstream::Admission;
use upstream::{Loss, Upstream};

/// Redis is asked anew about a login that no connection carries after this time, and as much again at most, so that not
/// all clients ask at once.
const RECHECK_AFTER_MS: u64 = 500;

/// What a command is answered that Redis has not answered for too long. It is not known what became of it.
const STALLED: &str = "LOADING Redis does not answer: it is not known whether this was carried out";

/// A client's way to Redis.
#[derive(Default)]
pub struct Passthrough {
    link: Link,
    /// Where it leads, or last led.
    way: Option<Way>,
    /// When Redis is asked anew about a login that no connection carries.
    recheck: Option<Pin<Box<Sleep>>>,
    /// A request too long to be kept.
    oversized: Option<Oversized>,
}

/// Where a connection leads.
struct Way {
    node: Arc<Node>,
    /// How often the place of Redis had changed when it was dialled.
    changes: u64,
    /// Wakes the client's task when it changes again. Polled once; from then on the number of changes tells.
    changed: Pin<Box<OwnedNotified>>,
    is_awaited: bool,
}

/// How a connection stands.
#[derive(Default)]
enum Link {
    /// There is none: nothing was forwarded yet, or the connection was lost.
    #[default]
    Absent,
    /// It is being opened; the command that asked for it is held.
    Dialing(Pin<Box<dyn Future<Output = Result<Opened, Failure>>>>),
    /// It could not be opened: the command that asked for it is answered without.
    Refused(Failure),
    /// It is open.
    Open(Box<Upstream>),
}

/// Whether a command can go to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// There is a connection.
    Open,
    /// One is being opened.
    Soon,
    /// Redis cannot be had.
    Down,
    /// Redis does not take the client for who it says it is. It was told so, and its connection ends.
    Refused,
}

/// What a client still wants of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// A request waits, for this or for an earlier one.
    Waits,
    /// More may come.
    MayCome,
    /// Nothing more, but it reads what it is still to be answered.
    Ending,
    /// Nothing more, and it has closed its side.
    Ended,
}

impl Passthrough {
    /// Makes what progress there is.
    pub fn poll(&mut self, cx: &mut Context<'_>, caller: &mut Caller, demand: Demand) -> Polled {
        match &mut self.link {
            Link::Absent => self.poll_recheck(cx, caller, demand),
            Link::Refused(_) => Polled::Idle,
            Link::Dialing(attempt) => match attempt.as_mut().poll(cx) {
                Poll::Pending if self.leads_elsewhere(cx, caller) => {
                    // Whoever still wants it has it dialled where Redis is now; or for the first time, as what was
                    // dialled only stood for what was yet to be found.
                    self.link = Link::Absent;
                    Polled::Progress
                }
                Poll::Pending => Polled::Idle,
                Poll::Ready(outcome) => {
                    self.link = self.on_dialed(outcome, caller, demand);
                    Polled::Progress
                }
            },
            Link::Open(upstream) => match upstream.poll(cx, caller, demand == Demand::Ended) {
                Ok(Polled::Idle) => self.follow(cx, caller),
                Ok(polled) => polled,
                Err(loss) => self.lose(&loss, caller),
            },
        }
    }

    /// Lets go of a connection to what is Redis no longer, once it owes nothing.
    fn follow(&mut self, cx: &mut Context<'_>, caller: &mut Caller) -> Polled {
        if !self.leads_elsewhere(cx, caller) {
            return Polled::Idle;
        }
        let Link::Open(upstream) = &self.link else { return Polled::Idle };
        if caller.replies.slots.await_from(upstream.id()) && !upstream.state().is_pinned() {
            return Polled::Idle;
        }
        self.lose(&Loss::Io(io::Error::other("redis is elsewhere now")), caller)
    }

    /// Whether Redis is no longer where the connection leads. The client's task is woken when it is so.
    fn leads_elsewhere(&mut self, cx: &mut Context<'_>, caller: &Caller) -> bool {
        let Some(way) = &mut self.way else { return false };
        if !std::mem::replace(&mut way.is_awaited, true) {
            let _ = way.changed.as_mut().poll(cx);
        }
        way.changes != caller.worker.limiter.upstream_changes()
    }

    /// Sees to it that there is a connection, as far as it can be had.
    pub fn reach(&mut self, caller: &mut Caller) -> Reach {
        match std::mem::take(&mut self.link) {
            link @ Link::Open(_) if self.leads_there(caller) => {
                self.link = link;
                Reach::Open
            }
            link @ Link::Open(_) => {
                // It is let go of as soon as it owes nothing, and another opened.
                self.link = link;
                Reach::Soon
            }
            link @ Link::Dialing(_) => {
                self.link = link;
                Reach::Soon
            }
            Link::Absent if self.dial(caller) => Reach::Soon,
            Link::Absent | Link::Refused(Failure::Redis(_)) => Reach::Down,
            Link::Refused(Failure::Client(text)) => {
                reply::error(caller.replies.tail(), &text);
                Reach::Refused
            }
        }
    }

    /// Lets go of the connection. The next command that needs one opens another.
    pub fn leave(&mut self) {
        self.link = Link::Absent;
    }

    /// Whether there is a connection.
    pub fn is_open(&self) -> bool {
        matches!(self.link, Link::Open(_))
    }

    /// Whether there is none, nor one on the way.
    pub fn is_absent(&self) -> bool {
        matches!(self.link, Link::Absent)
    }

    /// Whether there is a way to Redis for all commands, or there may be.
    pub fn may_reach(&self, caller: &Caller) -> bool {
        caller.forwards() && caller.upstream().is_some_and(|node| !self.is_absent() || node.health.is_reachable())
    }

    /// The connection that a request goes to. There is one for all.
    fn chosen(&self) -> Option<&Upstream> {
        match &self.link {
            Link::Open(upstream) => Some(upstream),
            _ => None,
        }
    }

    fn chosen_mut(&mut self) -> Option<&mut Upstream> {
        match &mut self.link {
            Link::Open(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// Whether plain requests can be sent with no more thought.
    pub fn takes_plain(&self, caller: &Caller) -> bool {
        self.chosen().is_some_and(Upstream::takes_plain) && self.leads_there(caller)
    }

    /// Whether the connection leads to where Redis is now.
    fn leads_there(&self, caller: &Caller) -> bool {
        self.way.as_ref().is_none_or(|way| way.changes == caller.worker.limiter.upstream_changes())
    }

    /// Whether a command would not simply be carried out and answered, or that is not known yet.
    pub fn is_in_mode(&self, caller: &Caller) -> bool {
        self.chosen().is_some_and(|upstream| upstream.is_in_mode(caller))
    }

    /// Whether a transaction that begins now may be held back until it is known what it holds. `None` if an earlier
    /// reply decides that.
    pub fn may_hold_multi(&self, caller: &Caller) -> Option<bool> {
        let Some(upstream) = self.chosen() else { return Some(true) };
        (!caller.replies.slots.await_barrier()).then(|| upstream.state().is_plain(caller.client.protocol))
    }

    /// Whether the client is there to be told things: it is subscribed, or monitors.
    pub fn listens(&self) -> bool {
        self.chosen().is_some_and(|upstream| upstream.state().listens())
    }

    /// Whether more requests may be read: not while many wait to be sent.
    pub fn has_room(&self) -> bool {
        self.chosen().is_none_or(Upstream::has_room)
    }

    /// Sends a command, when it can be and there is a connection.
    pub fn forward(&mut self, caller: &mut Caller, request: &RedisRequest<'_>) -> Flow {
        self.chosen_mut().map_or(Flow::Hold, |upstream| upstream.forward(caller, request))
    }

    /// Sends so many plain requests, with which Tollgate's own need not keep their order if they `may_overtake`.
    pub fn forward_plain(&mut self, caller: &mut Caller, raw: &[u8], count: u64, may_overtake: bool) {
        if let Some(upstream) = self.chosen_mut() {
            upstream.forward_plain(caller, raw, count, may_overtake);
        }
    }

    /// Sends a request without a word.
    pub fn forward_empty(&mut self, raw: &[u8]) {
        if let Some(upstream) = self.chosen_mut() {
            upstream.forward_empty(raw);
        }
    }

    /// Sends a MULTI that was held back.
    pub fn forward_held_multi(&mut self, caller: &mut Caller, raw: &[u8]) {
        if let Some(upstream) = self.chosen_mut() {
            upstream.forward_held_multi(caller, raw);
        }
    }

    /// Whether one of Tollgate's own commands can run here and now, on the state of the connection.
    pub fn admit_own(&mut self, caller: &mut Caller, request: &OwnRequest<'_>) -> Admission {
        match self.chosen_mut() {
            Some(upstream) => upstream.admit_own(caller, request),
            None => Admission::Run { muted: false },
        }
    }

    /// A request too long to be kept is streamed from here on to where its head has gone, or discarded.
    pub fn begin_oversized(&mut self, is_forwarded: bool) {
        self.oversized = Some(Oversized::new(is_forwarded));
    }

    /// Whether the next bytes are those of such a request.
    pub fn has_oversized(&self) -> bool {
        self.oversized.is_some()
    }

    /// Takes what of `data` belongs to it. Says how much that was, and whether the client's connection ends.
    pub fn take_oversized(&mut self, data: &[u8]) -> (usize, After) {
        let Some(oversized) = &mut self.oversized else { return (0, After::Stay) };
        let Ok((taken, is_complete)) = oversized.take(data) else { return (data.len(), After::Close) };
        let is_forwarded = oversized.is_forwarded();
        if is_complete {
            self.oversized = None;
        }
        if let Some(upstream) = self.chosen_mut().filter(|_| is_forwarded) {
            upstream.forward_piece(data.get(..taken).unwrap_or_default());
        }
        (taken, After::Stay)
    }

    /// Begins to open a connection, if Redis can be had.
    fn dial(&mut self, caller: &Caller) -> bool {
        let Some(node) = caller.upstream().filter(|node| node.health.is_reachable()) else { return false };
        let shared = &caller.worker.shared;
        // Where Redis says who may come in, nobody comes in by Tollgate's own login.
        let own_login = !matches!(shared.auth, Auth::Redis(_));
        let steps = handshake::steps(&caller.client, &node.dialer, own_login);
        let timeout = shared.config.upstream.connect_timeout;
        self.link = Link::Dialing(Box::pin(handshake::open(node.dialer.clone(), steps, timeout)));
        let (changes, changed) = caller.worker.limiter.upstream_changed();
        self.way = Some(Way { node, changes, changed: Box::pin(changed), is_awaited: false });
        true
    }

    fn on_dialed(&self, outcome: Result<Opened, Failure>, caller: &mut Caller, demand: Demand) -> Link {
        let Some(Way { node, .. }) = &self.way else { return Link::Absent };
        let Caller { worker, client, .. } = caller;
        let shared = &worker.shared;
        let failure = match outcome {
            Ok(Opened { stream, redis_id }) => {
                let linked = shared.client_list.link(client.id, redis_id);
                return Link::Open(Box::new(Upstream::new(ConnectionId::ONLY, stream, node.clone(), linked)));
            }
            Err(failure) => failure,
        };
        match (&failure, &shared.auth) {
            (Failure::Redis(error), _) => {
                debug!(client = client.id, %error, "no connection to redis");
                // Else every command of every client would wait for a Redis that does not answer.
                node.health.client_failed(error);
            }
            (Failure::Client(text), Auth::Redis(_)) => {
                debug!(client = client.id, text, "redis takes a login back");
                if let Some(login) = client.login.take() {
                    shared.auth.refused(login.user(), login.password());
                }
                // It is as before its login.
                client.permissions = shared.auth.before_login();
                return Link::Absent;
            }
            _ => {}
        }
        if demand == Demand::Waits { Link::Refused(failure) } else { Link::Absent }
    }

    /// A login that Redis was once asked about, and that no connection carries any more, is shown to Redis again, soon
    /// and as often as it takes: it may have been revoked. Whether there is news.
    fn poll_recheck(&mut self, cx: &mut Context<'_>, caller: &Caller, demand: Demand) -> Polled {
        let is_redis_s = matches!(caller.worker.shared.auth, Auth::Redis(_)) && caller.upstream().is_some();
        if !is_redis_s || caller.client.login.is_none() || matches!(demand, Demand::Ending | Demand::Ended) {
            return Polled::Idle;
        }
        let after = Duration::from_millis(RECHECK_AFTER_MS + caller.client.id % RECHECK_AFTER_MS);
        let due = self.recheck.get_or_insert_with(|| Box::pin(sleep(after)));
        if due.as_mut().poll(cx).is_pending() {
            return Polled::Idle;
        }
        self.recheck = None;
        self.dial(caller);
        Polled::Progress
    }

    /// The connection is gone. A client that awaits an answer from it, or whose state is gone with it, must be told in
    /// the one way that it understands: its own connection ends, as if Redis had restarted. Any other stays, and its
    /// next command opens another connection. What a connection owes that has stalled can be answered without it.
    fn lose(&mut self, loss: &Loss, caller: &mut Caller) -> Polled {
        let Link::Open(upstream) = std::mem::take(&mut self.link) else { return Polled::Idle };
        caller.note_said();
        let Caller { worker, client, replies, .. } = caller;
        let is_bound = !upstream.is_between_replies() || upstream.state().is_pinned();
        if let Loss::Io(error) = loss {
            debug!(client = client.id, %error, "upstream lost");
        } else if !is_bound
            && !replies.slots.await_barrier()
            && worker.shared.config.upstream.when_down == WhenDown::Loading
        {
            replies.slots.fail(upstream.id(), STALLED);
            return Polled::Progress;
        }
        if let Some(login) = &client.login {
            // It was good as long as the connection lasted. Whether it still is, is asked soon.
            worker.shared.auth.confirmed(login.user(), login.password());
        }
        if !is_bound && !replies.slots.await_from(upstream.id()) {
            return Polled::Progress;
        }
        replies.slots.cut_at(upstream.id());
        Polled::Close
    }
}
