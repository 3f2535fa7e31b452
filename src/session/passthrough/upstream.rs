//! One connection of a client's to Redis, and what is in flight on it.

use super::relay::Relay;
use super::stall::Stall;
use super::state::{ReplyMode, State};
use crate::client_list::Linked;
use crate::clock::now_us;
use crate::command::OwnRequest;
use crate::limiter::node::Node;
use crate::net::Stream;
use crate::resp::reply;
use crate::session::caller::{Caller, Flow, Polled};
use crate::session::expect::{ConnectionId, Effect, Expect, Route};
use crate::session::redis_commands::RedisRequest;
use crate::session::replies::KEPT_BYTES;
use crate::store::connection::Error;
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Requests that wait to be sent beyond this hold up the reading of more.
const MAX_REQUEST_BYTES: usize = 256 * 1024;

/// Why a connection is given up.
#[derive(Debug)]
pub enum Loss {
    /// It is lost.
    Io(io::Error),
    /// Nothing comes on it any more.
    Stalled,
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether one of Tollgate's own commands may run.
pub enum Admission {
    /// It may; if `muted`, without a reply.
    Run {
        /// CLIENT REPLY is off.
        muted: bool,
    },
    /// Not before an earlier reply has come.
    Hold,
    /// It was answered.
    Taken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    Due,
    Done,
}

/// A connection on which the client's handshake was said again.
pub struct Upstream {
    id: ConnectionId,
    stream: Stream,
    /// Requests on their way.
    requests: BytesMut,
    state: State,
    relay: Relay,
    /// The last request sent bears no other behind it until its reply has come.
    exclusive: bool,
    /// When Redis has had long enough to answer that request.
    login_due: Option<Pin<Box<Sleep>>>,
    stall: Stall,
    /// Where it leads.
    node: Arc<Node>,
    /// Nothing more will be sent: the sending side is to be closed, then is.
    finishing: Option<Finish>,
    /// Held for what it does when the connection goes.
    _linked: Linked,
}

impl Upstream {
    /// The connection that a client has by this id, to this node.
    pub fn new(id: ConnectionId, stream: Stream, node: Arc<Node>, linked: Linked) -> Self {
        Self {
            id,
            stream,
            requests: BytesMut::new(),
            state: State::default(),
            relay: Relay::default(),
            exclusive: false,
            login_due: None,
            stall: Stall::default(),
            node,
            finishing: None,
            _linked: linked,
        }
    }

    /// Its id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// What Redis keeps for it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether no reply has come in part alone.
    pub fn is_between_replies(&self) -> bool {
        self.relay.is_between()
    }

    /// Whether more requests may be read: not while many wait to be sent.
    pub fn has_room(&self) -> bool {
        self.requests.len() < MAX_REQUEST_BYTES
    }

    /// Whether plain requests can be sent with no more thought: each has one reply, and so it is with all that is
    /// outstanding.
    pub fn takes_plain(&self) -> bool {
        self.state.answers_each() && !self.exclusive
    }

    /// Whether a command would not simply be carried out and answered, or that is not known yet.
    pub fn is_in_mode(&self, caller: &Caller) -> bool {
        let slots = &caller.replies.slots;
        self.state.is_in_mode(caller.client.protocol)
            || slots.await_barrier()
            || (self.exclusive && slots.await_upstream())
    }

    /// Sends a command, when it can be.
    pub fn forward(&mut self, caller: &mut Caller, request: &RedisRequest<'_>) -> Flow {
        let RedisRequest { command, args, count, raw } = request;
        let Caller { worker, client, replies, .. } = caller;
        let slots = &mut replies.slots;
        if (self.exclusive && slots.await_upstream()) || slots.await_limiter() {
            return Flow::Hold;
        }
        if self.state.is_replicating() {
            self.requests.extend_from_slice(raw);
            return Flow::Done;
        }
        let Route { mut expect, mut effect, exclusive } = Route::of(command, args, *count);
        if exclusive && slots.await_upstream() {
            return Flow::Hold;
        }
        if effect.is_some_and(Effect::is_on_replies) {
            if slots.await_barrier() {
                return Flow::Hold;
            }
            // Redis queues it, or refuses it, and answers.
            effect = effect.filter(|_| !self.state.is_in_multi() && !self.state.is_subscriber(client.protocol));
        }
        self.exclusive = exclusive;
        // Any other command may take as long as it takes. Who only wants to come in is not to wait for a Redis that hangs.
        self.login_due = exclusive.then(|| Box::pin(sleep(worker.shared.config.upstream.connect_timeout)));
        worker.stats.forwarded.add(1);
        let in_redis_ids = match &mut expect {
            Expect::Ids(ids) => ids.translate(args, &worker.shared.client_list),
            _ => None,
        };
        self.requests.extend_from_slice(in_redis_ids.as_deref().unwrap_or(raw));
        if self.note_sent(&expect, effect) {
            self.state.assume_success(expect, client);
        } else {
            slots.push_upstream(self.id, expect);
        }
        Flow::Done
    }

    /// Notes what a command does that is sent. Whether it gets no reply.
    fn note_sent(&mut self, expect: &Expect, effect: Option<Effect>) -> bool {
        let mode = self.state.next_reply_mode();
        if let Some(effect) = effect {
            self.state.note(effect);
        }
        match effect {
            // CLIENT REPLY OFF and SKIP have no reply themselves; ON has one whatever was before.
            Some(Effect::ReplyOn) => false,
            Some(Effect::ReplyOff | Effect::ReplySkip) => true,
            // What comes from here on passes as it comes.
            Some(Effect::Replicate) => true,
            Some(Effect::Reset) => mode == ReplyMode::Skip,
            _ => mode != ReplyMode::On && (self.state.is_in_multi() || !expect.is_confirmation()),
        }
    }

    /// Sends so many plain requests. Whether they are independent of Tollgate's own commands is said by `may_overtake`.
    pub fn forward_plain(&mut self, caller: &mut Caller, raw: &[u8], count: u64, may_overtake: bool) {
        self.requests.extend_from_slice(raw);
        match may_overtake {
            true => caller.replies.slots.push_independent(self.id, Expect::Replies(count)),
            false => caller.replies.slots.push_upstream(self.id, Expect::Replies(count)),
        }
    }

    /// A request without a word has no reply, but it is the one that CLIENT REPLY SKIP silences, and a replica's sign of
    /// life.
    pub fn forward_empty(&mut self, raw: &[u8]) {
        self.state.next_reply_mode();
        self.requests.extend_from_slice(raw);
    }

    /// Sends a MULTI that the client was told has succeeded.
    pub fn forward_held_multi(&mut self, caller: &mut Caller, raw: &[u8]) {
        self.requests.extend_from_slice(raw);
        caller.replies.slots.push_upstream(self.id, Expect::HeldMulti);
    }

    /// Sends a piece of a request whose head was forwarded.
    pub fn forward_piece(&mut self, raw: &[u8]) {
        self.requests.extend_from_slice(raw);
    }

    /// Whether one of Tollgate's own commands can run here and now, on the state of this connection. It takes effect
    /// where it stands among the client's commands, so it waits for those before it that could tell.
    pub fn admit_own(&mut self, caller: &mut Caller, request: &OwnRequest<'_>) -> Admission {
        let Caller { client, replies, .. } = caller;
        let (slots, in_plain_keys) = (&replies.slots, request.command.counts_in_plain_keys());
        if slots.await_ordered() || in_plain_keys && slots.await_upstream() {
            return Admission::Hold;
        }
        let mode = self.state.next_reply_mode();
        let muted = mode != ReplyMode::On;
        if self.state.is_in_multi() {
            // Redis does not know the command, and so marks the transaction as one that must not be executed. It may know
            // CL.THROTTLE; RL.THROTTLE without a key would be wrong in any that comes to know it.
            self.requests.extend_from_slice(if in_plain_keys { b"RL.THROTTLE\r\n" } else { request.raw });
            if !muted {
                replies.slots.push_upstream(self.id, Expect::RefusedInMulti(request.command));
            }
            return Admission::Taken;
        }
        if mode == ReplyMode::Skip {
            // At Redis, too, the command that gets no reply must have been this one.
            self.requests.extend_from_slice(b"PING\r\n");
        }
        if self.state.is_subscriber(client.protocol) {
            let name = request.command.name;
            let text = format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
                 in this context"
            );
            if !muted {
                reply::error(replies.tail(), &text);
            }
            return Admission::Taken;
        }
        Admission::Run { muted }
    }

    /// Makes what progress there is. If the client `is_finished`, the sending side closes once all is sent: Redis answers
    /// what it has received, lets go of what blocks, and closes in turn.
    ///
    /// # Errors
    /// The connection is to be given up.
    pub fn poll(&mut self, cx: &mut Context<'_>, caller: &mut Caller, is_finished: bool) -> Result<Polled, Loss> {
        let watches = caller.replies.slots.await_upstream() && !caller.replies.slots.is_blocked();
        if watches && Relay::may_read(caller) && self.stall.poll(cx, caller, &self.node, self.id, self.relay.received())
        {
            return Err(Loss::Stalled);
        }
        if self.is_login_late(cx, caller) {
            return Err(Loss::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer to a login")));
        }
        let before = self.requests.len();
        if is_finished {
            self.finishing = self.finishing.or(Some(Finish::Due));
        }
        if let Poll::Ready(Err(_)) = self.poll_send(cx) {
            // Reading tells of the end too, but not before what Redis has still answered.
            self.requests.clear();
        }
        let sent = self.requests.len() < before;
        match self.poll_replies(cx, caller)? {
            Polled::Idle if sent => Ok(Polled::Progress),
            polled => Ok(polled),
        }
    }

    /// Whether Redis has not answered a login in time. It is then taken to be down, so that the next login is answered
    /// by what is remembered of earlier ones.
    fn is_login_late(&mut self, cx: &mut Context<'_>, caller: &Caller) -> bool {
        let Some(due) = &mut self.login_due else { return false };
        if !caller.replies.slots.await_upstream() {
            self.login_due = None;
            return false;
        }
        let is_late = due.as_mut().poll(cx).is_ready();
        if is_late {
            self.node.health.lost(&Error::late(), now_us());
        }
        is_late
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.requests.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.requests) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => self.requests.advance(sent),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.requests.capacity() > KEPT_BYTES {
            self.requests = BytesMut::new();
        }
        if self.finishing == Some(Finish::Due) && Pin::new(&mut self.stream).poll_shutdown(cx)?.is_ready() {
            self.finishing = Some(Finish::Done);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Takes what Redis has sent, when it is next in order.
    fn poll_replies(&mut self, cx: &mut Context<'_>, caller: &mut Caller) -> io::Result<Polled> {
        let slots = &mut caller.replies.slots;
        let is_next = slots.is_empty() || slots.front_of(self.id).is_some();
        if !is_next || !Relay::may_read(caller) {
            return Ok(Polled::Idle);
        }
        if self.relay.has_held() {
            return self.relay.take_held(&mut self.state, self.id, caller);
        }
        let mut lent = caller.worker.read_buffer.take();
        let mut buffer = ReadBuf::new(&mut lent);
        let outcome = match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(Polled::Idle),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(())) => self.relay.take(buffer.filled(), &mut self.state, self.id, caller),
        };
        caller.worker.read_buffer.replace(lent);
        outcome
    }
}
