//! A client's connection to Redis as the session has it: opened when a command needs it, watched while it stands.

use super::Session;
use super::handshake::{self, Failure, Opened};
use super::upstream::{MAX_REQUEST_BYTES, Upstream};
use crate::auth::Auth;
use crate::clock::now_us;
use crate::limiter::node::Node;
use crate::resp::reply;
use crate::store::connection::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tracing::debug;

/// How long a client that has closed its side may take for requests that wait for another.
const LINGER: Duration = Duration::from_millis(100);
/// Redis is asked anew about a login that no connection carries after this time, and as much again at most, so that not
/// all clients ask at once.
const RECHECK_AFTER_MS: u64 = 500;

/// A client's way to Redis.
#[derive(Default)]
pub enum Link {
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

impl Session {
    /// Whether there is a way to Redis, or there may be.
    pub(super) fn may_forward(&self) -> bool {
        match (&self.link, self.worker.shared.backend.upstream()) {
            (_, None) => false,
            (Link::Absent, Some(node)) => node.health.is_reachable(),
            _ => true,
        }
    }

    /// Sees to it that there is a connection to Redis, as far as it can be had.
    pub(super) fn reach(&mut self) -> Reach {
        match std::mem::take(&mut self.link) {
            link @ Link::Open(_) => {
                self.link = link;
                Reach::Open
            }
            link @ Link::Dialing(_) => {
                self.link = link;
                Reach::Soon
            }
            Link::Absent => {
                let worker = self.worker.clone();
                let Some(node) = worker.shared.backend.upstream().filter(|node| node.health.is_reachable()) else {
                    return Reach::Down;
                };
                self.dial(node);
                Reach::Soon
            }
            Link::Refused(Failure::Redis(_)) => Reach::Down,
            Link::Refused(Failure::Client(text)) => {
                reply::error(self.replies(), &text);
                self.closing = true;
                Reach::Refused
            }
        }
    }

    fn dial(&mut self, node: &Node) {
        // Where Redis says who may come in, nobody comes in by Tollgate's own login.
        let own_login = !matches!(self.worker.shared.auth, Auth::Redis(_));
        let steps = handshake::steps(&self.client, &node.dialer, own_login);
        let timeout = self.worker.shared.config.upstream.connect_timeout;
        self.link = Link::Dialing(Box::pin(handshake::open(node.dialer.clone(), steps, timeout)));
    }

    /// What the client has said of itself to Redis is shown here, now that no connection shows it there.
    pub(super) fn note_said(&self) {
        self.worker.shared.client_list.note(self.client.id, self.client.said());
    }

    /// Whether the client is there to be told things: it is subscribed, or monitors.
    pub(super) fn listens(&self) -> bool {
        matches!(&self.link, Link::Open(upstream) if upstream.listens())
    }

    /// Whether more requests may be read: not while many wait to be sent to Redis.
    pub(super) fn has_room_upstream(&self) -> bool {
        match &self.link {
            Link::Open(upstream) => upstream.requests.len() < MAX_REQUEST_BYTES,
            _ => true,
        }
    }

    /// Makes what progress there is on the way to Redis; whether there was any.
    pub(super) fn poll_link(&mut self, cx: &mut Context<'_>) -> bool {
        if self.poll_stall(cx) {
            return true;
        }
        match &mut self.link {
            Link::Absent => self.poll_recheck(cx),
            Link::Refused(_) => false,
            Link::Dialing(attempt) => match attempt.as_mut().poll(cx) {
                Poll::Pending => false,
                Poll::Ready(outcome) => {
                    self.link = match outcome {
                        Ok(Opened { stream, redis_id }) => {
                            let linked = self.worker.shared.client_list.link(self.client.id, redis_id);
                            Link::Open(Box::new(Upstream::new(stream, linked)))
                        }
                        Err(failure) => self.on_no_link(failure),
                    };
                    true
                }
            },
            Link::Open(_) => match self.poll_upstream(cx) {
                Ok(progress) => progress,
                Err(error) => {
                    debug!(client = self.client.id, %error, "upstream lost");
                    self.lose_upstream();
                    true
                }
            },
        }
    }

    fn on_no_link(&mut self, failure: Failure) -> Link {
        let worker = self.worker.clone();
        match (&failure, &worker.shared.auth, worker.shared.backend.upstream()) {
            (Failure::Redis(error), _, Some(node)) => {
                debug!(client = self.client.id, %error, "no connection to redis");
                // Else every command of every client would wait for a Redis that does not answer.
                node.health.client_failed(error);
            }
            (Failure::Client(text), Auth::Redis(_), _) => {
                debug!(client = self.client.id, text, "redis takes a login back");
                if let Some(login) = self.client.login.take() {
                    worker.shared.auth.refused(login.user(), login.password());
                }
                // It is as before its login.
                self.client.permissions = worker.shared.auth.before_login();
                return Link::Absent;
            }
            _ => {}
        }
        if self.holding { Link::Refused(failure) } else { Link::Absent }
    }

    /// A login that Redis was once asked about, and that no connection carries any more, is shown to Redis again, soon
    /// and as often as it takes: it may have been revoked. Whether there is news.
    fn poll_recheck(&mut self, cx: &mut Context<'_>) -> bool {
        let worker = self.worker.clone();
        let (Auth::Redis(_), Some(node)) = (&worker.shared.auth, worker.shared.backend.upstream()) else {
            return false;
        };
        if self.client.login.is_none() || self.closing {
            return false;
        }
        let after = Duration::from_millis(RECHECK_AFTER_MS + self.client.id % RECHECK_AFTER_MS);
        let due = self.recheck.get_or_insert_with(|| Box::pin(sleep(after)));
        if due.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.recheck = None;
        if node.health.is_reachable() {
            self.dial(node);
        }
        true
    }

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.is_login_late(cx) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to a login"));
        }
        let Link::Open(upstream) = &mut self.link else { return Ok(false) };
        let before = upstream.requests.len();
        if self.gone && !self.has_more && (!self.holding || has_lingered(&mut self.linger, cx)) {
            upstream.finish();
        }
        if let Poll::Ready(Err(_)) = upstream.poll_send(cx) {
            // Reading tells of the end too, but not before what Redis has still answered.
            upstream.requests.clear();
        }
        let sent = upstream.requests.len() < before;
        Ok(self.poll_replies(cx)? || sent)
    }

    /// Whether Redis has not answered a login in time. It is then taken to be down, so that the next login is answered
    /// by what is remembered of earlier ones.
    fn is_login_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) = &mut self.login_due else { return false };
        if !self.slots.await_upstream() {
            self.login_due = None;
            return false;
        }
        let is_late = due.as_mut().poll(cx).is_ready();
        if let (true, Some(node)) = (is_late, self.worker.shared.backend.upstream()) {
            node.health.lost(&Error::late(), now_us());
        }
        is_late
    }
}

/// Whether a client that has closed its side, with requests that wait for an earlier one, has been served long enough:
/// what they wait for may be a command that blocks, and takes from Redis what nobody is there to get.
fn has_lingered(linger: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    linger.get_or_insert_with(|| Box::pin(sleep(LINGER))).as_mut().poll(cx).is_ready()
}
