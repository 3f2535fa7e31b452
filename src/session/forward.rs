//! The session's other half: what is not Tollgate's own goes to Redis and comes back, bytes as they are.

use super::expect::{self, Change, Effect, Expect, Route, is_handshake};
use super::upstream::{MAX_REQUEST_BYTES, Replies, Upstream};
use super::{Flow, Session, local, login};
use crate::auth::Auth;
use crate::clock::now_us;
use crate::command::Name;
use crate::config::Commands;
use crate::limiter::Limiter;
use crate::limiter::mailbox::Refusal;
use crate::net::Stream;
use crate::resp::reply;
use crate::resp::request::{Args, Limits, Parser};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tracing::debug;

/// How long a client that has closed its side may take for requests that wait for another.
const LINGER: Duration = Duration::from_millis(100);

/// A client's way to Redis.
#[derive(Default)]
pub enum Link {
    /// There is none: nothing was forwarded yet, or the connection was lost.
    #[default]
    Absent,
    /// It is being opened; the command that asked for it is held.
    Dialing(Pin<Box<dyn Future<Output = io::Result<Stream>>>>),
    /// It could not be opened: the command that asked for it is answered without.
    Refused,
    /// It is open.
    Open(Box<Upstream>),
}

impl Session {
    /// Whether there is a way to Redis, or there may be.
    pub(super) fn may_forward(&self) -> bool {
        match (&self.link, &*self.worker.shared.limiter) {
            (_, Limiter::Embedded(_)) => false,
            (Link::Absent, Limiter::Redis(remote)) => remote.is_reachable(),
            _ => true,
        }
    }

    /// Carries out a command that is not Tollgate's own. `raw` is the request as it came, and `count` the number of its
    /// arguments, which have not all come yet unless it `is_whole`.
    pub(super) fn run_other(&mut self, args: &Args<'_>, count: usize, raw: &[u8], is_whole: bool) -> Flow {
        if args.name().eq_ignore_ascii_case(b"quit") {
            return self.run_local(args);
        }
        // Not a clone of what threads share, whose count they would contend for at every command.
        let worker = self.worker.clone();
        let shared = &worker.shared;
        let Limiter::Redis(remote) = &*shared.limiter else { return self.run_local(args) };
        if self.is_answered_here(args) && args.name().eq_ignore_ascii_case(b"reset") {
            if self.slots.await_upstream() {
                return Flow::Hold;
            }
            // Redis would take Tollgate's own login from the connection. Another one begins with it.
            self.link = Link::Absent;
            return self.run_local(args);
        }
        let is_auth = args.name().eq_ignore_ascii_case(b"auth");
        match &shared.auth {
            // Logins are this process's business. Of a HELLO with one Redis is told the rest, now or once it is asked
            // anything.
            Auth::Password(_) if is_auth || login::credentials(args).is_some() => {
                let is_told = !is_auth && matches!(self.link, Link::Open(_));
                return if is_told { self.run_hello(args) } else { self.run_local(args) };
            }
            _ if self.client.permissions.as_ref().is_some_and(|may| may.commands == Commands::RlOnly) => {
                return self.run_local(args);
            }
            _ if self.client.permissions.is_none() && login::credentials(args).is_none() => {
                return self.run_local(args);
            }
            _ => {}
        }
        if is_whole && local::is_about_tollgate(args) && !self.is_in_mode() {
            return self.run_local(args);
        }
        match self.link {
            Link::Open(_) => self.forward(args, count, raw),
            Link::Dialing(_) => Flow::Hold,
            Link::Absent if is_whole && is_handshake(args) => self.run_local(args),
            Link::Absent if remote.is_reachable() => {
                let (dialer, timeout) = (remote.dialer.clone(), self.worker.shared.config.upstream.connect_timeout);
                self.link = Link::Dialing(Box::pin(async move { dialer.dial(timeout).await }));
                Flow::Hold
            }
            Link::Absent | Link::Refused => {
                self.link = Link::Absent;
                if is_whole && local::answers_without_redis(args) {
                    self.run_local(args)
                } else {
                    reply::error(self.replies(), &Refusal::Unavailable.to_string());
                    Flow::Done
                }
            }
        }
    }

    /// Whether a command is not for Redis, because of who its client is or because it says so.
    pub(super) fn is_answered_here(&self, args: &Args<'_>) -> bool {
        let is = |name: &[u8]| args.name().eq_ignore_ascii_case(name);
        let only_rl = self.client.permissions.as_ref().is_some_and(|may| may.commands == Commands::RlOnly);
        let checks_logins = matches!(self.worker.shared.auth, Auth::Password(_));
        only_rl || (checks_logins && (is(b"auth") || is(b"hello") || is(b"reset")))
    }

    /// Whether, at Redis, a command would not simply be carried out and answered, or that is not known yet.
    fn is_in_mode(&self) -> bool {
        let Link::Open(upstream) = &self.link else { return false };
        upstream.in_multi
            || upstream.replicating
            || upstream.replies != Replies::On
            || upstream.is_subscriber(self.client.protocol)
            || self.slots.await_turning_point()
            || (self.alone && self.slots.await_upstream())
    }

    /// HELLO with a login that is checked here: Redis is told the rest of it.
    fn run_hello(&mut self, args: &Args<'_>) -> Flow {
        let worker = self.worker.clone();
        let credentials = login::credentials(args).unwrap_or_default();
        if let Err(text) = login::log_in(&worker, &mut self.client, credentials) {
            reply::error(self.replies(), text);
            return Flow::Done;
        }
        let raw = login::without_credentials(args);
        let mut parser = Parser::default();
        match parser.parse(&raw, Limits::of_bulk(usize::MAX)) {
            Ok(Some(_)) => self.forward(&parser.args(&raw), parser.count(), &raw),
            _ => Flow::Done,
        }
    }

    fn run_local(&mut self, args: &Args<'_>) -> Flow {
        let worker = self.worker.clone();
        let output = if self.slots.is_empty() { &mut self.output } else { self.slots.ready() };
        self.closing |= local::run(&worker, &mut self.client, args, output) == local::After::Close;
        Flow::Done
    }

    fn forward(&mut self, args: &Args<'_>, count: usize, raw: &[u8]) -> Flow {
        let Link::Open(upstream) = &mut self.link else { return Flow::Hold };
        if self.alone && self.slots.await_upstream() {
            return Flow::Hold;
        }
        if upstream.replicating {
            upstream.requests.extend_from_slice(raw);
            return Flow::Done;
        }
        let Route { expect, mut effect, alone } = Route::of(args, count);
        if alone && self.slots.await_upstream() {
            return Flow::Hold;
        }
        if effect.is_some_and(Effect::is_on_replies) {
            if self.slots.await_turning_point() {
                return Flow::Hold;
            }
            // Redis queues it, or refuses it, and answers.
            effect = effect.filter(|_| !upstream.in_multi && !upstream.is_subscriber(self.client.protocol));
        }
        self.alone = alone;
        // Any other command may take as long as it takes. Who only wants to come in is not to wait for a Redis that hangs.
        self.login_due = alone.then(|| Box::pin(sleep(self.worker.shared.config.upstream.connect_timeout)));
        self.worker.stats.forwarded.add(1);
        upstream.requests.extend_from_slice(raw);
        let replies = upstream.next_replies();
        if let Some(effect) = effect {
            upstream.note(effect);
        }
        let muted = match effect {
            // CLIENT REPLY OFF and SKIP have no reply themselves; ON has one whatever was before.
            Some(Effect::ReplyOn) => false,
            Some(Effect::ReplyOff | Effect::ReplySkip) => true,
            // What comes from here on passes as it comes.
            Some(Effect::Replicate) => true,
            Some(Effect::Reset) => replies == Replies::Skip,
            _ => replies != Replies::On && (upstream.in_multi || !expect.is_confirmation()),
        };
        if muted {
            self.take_for_granted(expect);
        } else {
            self.slots.push_upstream(expect);
        }
        Flow::Done
    }

    /// Whether a request can be passed on with no more thought: it has one reply and changes nothing, and so it is with
    /// all that is outstanding.
    pub(super) fn is_plain(&self, args: &Args<'_>) -> bool {
        let Link::Open(upstream) = &self.link else { return false };
        upstream.replies == Replies::On
            && !upstream.replicating
            && !self.alone
            && self.client.permissions.as_ref().is_some_and(|may| may.commands == Commands::All)
            && expect::is_plain(args)
    }

    /// Passes on the plain requests that `data` begins with, of which the first takes `length` bytes. Says how many bytes
    /// they take together.
    pub(super) fn forward_plain(&mut self, data: &[u8], length: usize, parser: &mut Parser) -> usize {
        let (mut taken, mut count) = (length, 1);
        while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty())
            && let Ok(Some(length)) = parser.parse(rest, self.limits())
            && expect::is_plain(&parser.args(rest))
        {
            taken += length;
            count += 1;
        }
        if let Link::Open(upstream) = &mut self.link {
            upstream.requests.extend_from_slice(data.get(..taken).unwrap_or_default());
            self.slots.push_upstream(Expect::Replies(count));
            self.worker.stats.commands.add(count);
            self.worker.stats.forwarded.add(count);
        }
        taken
    }

    /// A request without a word has no reply, but it is the one that CLIENT REPLY SKIP silences, and a replica's sign of
    /// life.
    pub(super) fn forward_empty(&mut self, raw: &[u8]) {
        if let Link::Open(upstream) = &mut self.link {
            upstream.next_replies();
            upstream.requests.extend_from_slice(raw);
        }
    }

    /// No reply will tell, so the command is taken to succeed.
    fn take_for_granted(&mut self, expect: Expect) {
        let Link::Open(upstream) = &mut self.link else { return };
        match expect {
            Expect::Change(change)
                if !matches!(*change, Change::Reset) && upstream.is_subscriber(self.client.protocol) => {}
            Expect::Multi => upstream.in_multi = true,
            Expect::EndMulti => upstream.in_multi = false,
            Expect::Change(change) => {
                if matches!(*change, Change::Reset) {
                    upstream.reset();
                }
                change.apply(&mut self.client);
            }
            _ => {}
        }
    }

    /// Whether one of Tollgate's own commands can run here and now, on the state of the connection to Redis.
    pub(super) fn admit_own(&mut self, name: Name, raw: &[u8]) -> Admission {
        let Link::Open(upstream) = &mut self.link else { return Admission::Run { muted: false } };
        if self.slots.await_turning_point() {
            return Admission::Hold;
        }
        let replies = upstream.next_replies();
        let muted = replies != Replies::On;
        if upstream.in_multi {
            // Redis does not know the command, and so marks the transaction as one that must not be executed.
            upstream.requests.extend_from_slice(raw);
            if !muted {
                self.slots.push_upstream(Expect::RefusedInMulti(name));
            }
            return Admission::Taken;
        }
        if replies == Replies::Skip {
            // At Redis, too, the command that gets no reply must have been this one.
            upstream.requests.extend_from_slice(b"PING\r\n");
        }
        if upstream.is_subscriber(self.client.protocol) {
            let name = name.lower_case();
            let text = format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
                 in this context"
            );
            if !muted {
                reply::error(self.replies(), &text);
            }
            return Admission::Taken;
        }
        Admission::Run { muted }
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
        match &mut self.link {
            Link::Absent | Link::Refused => false,
            Link::Dialing(attempt) => match attempt.as_mut().poll(cx) {
                Poll::Pending => false,
                Poll::Ready(outcome) => {
                    self.link = match (outcome, &*self.worker.shared.limiter) {
                        (Ok(stream), Limiter::Redis(remote)) => {
                            // Where Redis says who may come in, nobody comes in by Tollgate's own login.
                            let own_login = !matches!(self.worker.shared.auth, Auth::Redis(_));
                            Link::Open(Box::new(Upstream::new(stream, own_login, &remote.dialer, &self.client)))
                        }
                        (Err(error), Limiter::Redis(remote)) => {
                            // Else every command of every client would wait for a Redis that does not answer.
                            remote.on_down(remote.breaker.failure(now_us()), &error, false);
                            Link::Refused
                        }
                        _ => Link::Refused,
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

    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.is_login_late(cx) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to a login"));
        }
        let Link::Open(upstream) = &mut self.link else { return Ok(false) };
        let before = upstream.requests.len();
        if self.gone && (!self.holding || has_lingered(&mut self.linger, cx)) {
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
        if let (true, Limiter::Redis(remote)) = (is_late, &*self.worker.shared.limiter) {
            remote.on_down(remote.breaker.lost(now_us()), &"no answer to a login", false);
        }
        is_late
    }
}

/// Whether a client that has closed its side, with requests that wait for an earlier one, has been served long enough:
/// what they wait for may be a command that blocks, and takes from Redis what nobody is there to get.
fn has_lingered(linger: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    linger.get_or_insert_with(|| Box::pin(sleep(LINGER))).as_mut().poll(cx).is_ready()
}

/// Whether a command of Tollgate's own may run.
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
