//! The session's other half: what is not Tollgate's own goes to Redis and comes back, bytes as they are.

use super::expect::{self, Change, Effect, Expect, Route, is_handshake, says_login};
use super::handshake::{self, Failure};
use super::hello::Hello;
use super::upstream::{MAX_REQUEST_BYTES, Replies, Upstream};
use super::{Flow, Session, local, login};
use crate::auth::Auth;
use crate::clock::now_us;
use crate::command::Name;
use crate::config::{Commands, WhenDown};
use crate::limiter::{Limiter, Remote};
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
    Dialing(Pin<Box<dyn Future<Output = Result<Stream, Failure>>>>),
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

/// What a command is answered that needs Redis, while it cannot be had. Client libraries take the code for that of a
/// server which will be there soon: they try again, or let their own callers do so as after a lost connection.
const OUTAGE: &str = "LOADING Redis cannot be reached: only RL commands are answered until it is back";

impl Session {
    /// Whether there is a way to Redis, or there may be.
    pub(super) fn may_forward(&self) -> bool {
        match (&self.link, &*self.worker.shared.limiter) {
            (_, Limiter::Embedded(_)) => false,
            (Link::Absent, Limiter::Redis(remote)) => remote.is_reachable(),
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
                let Limiter::Redis(remote) = &*worker.shared.limiter else { return Reach::Down };
                if !remote.is_reachable() {
                    return Reach::Down;
                }
                self.dial(remote);
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

    fn dial(&mut self, remote: &Remote) {
        // Where Redis says who may come in, nobody comes in by Tollgate's own login.
        let own_login = !matches!(self.worker.shared.auth, Auth::Redis(_));
        let steps = handshake::steps(&self.client, &remote.dialer, own_login);
        let timeout = self.worker.shared.config.upstream.connect_timeout;
        self.link = Link::Dialing(Box::pin(handshake::open(remote.dialer.clone(), steps, timeout)));
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
        if matches!(&*shared.limiter, Limiter::Embedded(_)) {
            return self.run_local(args);
        }
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
            Auth::Password(_) if is_auth || says_login(args) => {
                if self.slots.await_upstream() {
                    return Flow::Hold;
                }
                let is_told = !is_auth && matches!(self.link, Link::Open(_));
                return if is_told { self.run_hello(args) } else { self.run_local(args) };
            }
            _ if self.client.permissions.as_ref().is_some_and(|may| may.commands == Commands::RlOnly) => {
                return self.run_local(args);
            }
            _ if self.client.permissions.is_none() && !says_login(args) => {
                return self.run_local(args);
            }
            _ => {}
        }
        let is_bad_hello = || args.name().eq_ignore_ascii_case(b"hello") && Hello::parse(args).is_err();
        if is_whole && (local::is_about_tollgate(args) || is_bad_hello()) && !self.is_in_mode() {
            return self.run_local(args);
        }
        if matches!(self.link, Link::Absent) && is_whole && is_handshake(args) {
            return self.run_local(args);
        }
        match self.reach() {
            Reach::Open => self.forward(args, count, raw),
            Reach::Soon => Flow::Hold,
            Reach::Down if is_whole && local::answers_without_redis(args) => self.run_local(args),
            Reach::Down => {
                self.tell_outage();
                Flow::Done
            }
            Reach::Refused => Flow::Done,
        }
    }

    /// Answers a command that needs Redis, which cannot be had.
    pub(super) fn tell_outage(&mut self) {
        match self.worker.shared.config.upstream.when_down {
            WhenDown::Loading => reply::error(self.replies(), OUTAGE),
            WhenDown::Close => self.closing = true,
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

    /// Whether a transaction that begins now may be held back until it is known what it holds. `None` if an earlier
    /// reply decides that.
    pub(super) fn may_hold_multi(&self) -> Option<bool> {
        let Link::Open(upstream) = &self.link else { return Some(true) };
        (!self.slots.await_turning_point()).then(|| upstream.is_plain(self.client.protocol))
    }

    /// Tells Redis of a transaction that was held back.
    pub(super) fn forward_held_multi(&mut self) {
        if let Link::Open(upstream) = &mut self.link {
            upstream.requests.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
            self.slots.push_upstream(Expect::HeldMulti);
        }
    }

    /// HELLO with a login that is checked here: Redis is told the rest of it.
    fn run_hello(&mut self, args: &Args<'_>) -> Flow {
        let worker = self.worker.clone();
        let mut hello = match Hello::parse(args) {
            Ok(hello) => hello,
            Err(error) => {
                reply::error(self.replies(), &error.to_string());
                return Flow::Done;
            }
        };
        let login = hello.login.take().map(|login| login::log_in(&worker, &mut self.client, login));
        if let Some(Err(text)) = login {
            reply::error(self.replies(), text);
            return Flow::Done;
        }
        self.leave_what_is_not_allowed();
        let raw = hello.write_without_login();
        let mut parser = Parser::default();
        match (parser.parse(&raw, Limits::of_bulk(usize::MAX)), &self.link) {
            (Ok(Some(_)), Link::Open(_)) => self.forward(&parser.args(&raw), parser.count(), &raw),
            (Ok(Some(_)), _) => self.run_local(&parser.args(&raw)),
            _ => Flow::Done,
        }
    }

    /// Lets go of a connection on which somebody who may has begun what the client, as who it is now, may not: MONITOR, a
    /// subscription.
    fn leave_what_is_not_allowed(&mut self) {
        if self.client.permissions.is_some() && !self.client.may_run_all() {
            self.link = Link::Absent;
        }
    }

    fn run_local(&mut self, args: &Args<'_>) -> Flow {
        let worker = self.worker.clone();
        let output = if self.slots.is_empty() { &mut self.output } else { self.slots.ready() };
        self.closing |= local::run(&worker, &mut self.client, args, output) == local::After::Close;
        self.leave_what_is_not_allowed();
        Flow::Done
    }

    fn forward(&mut self, args: &Args<'_>, count: usize, raw: &[u8]) -> Flow {
        let Link::Open(upstream) = &mut self.link else { return Flow::Hold };
        if (self.alone && self.slots.await_upstream()) || self.slots.await_limiter() {
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
            && self.transaction.is_none()
            && !self.slots.await_limiter()
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

    /// Whether one of Tollgate's own commands can run here and now, on the state of the connection to Redis. It takes
    /// effect where it stands among the client's commands, so it waits for those before it.
    pub(super) fn admit_own(&mut self, name: Name, raw: &[u8]) -> Admission {
        let Link::Open(upstream) = &mut self.link else { return Admission::Run { muted: false } };
        if self.slots.await_upstream() {
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
                        Ok(stream) => Link::Open(Box::new(Upstream::new(stream))),
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
        match (&failure, &worker.shared.auth, &*worker.shared.limiter) {
            (Failure::Redis(error), _, Limiter::Redis(remote)) => {
                debug!(client = self.client.id, %error, "no connection to redis");
                // Else every command of every client would wait for a Redis that does not answer.
                remote.on_down(remote.breaker.failure(now_us()), error, error.is_answer());
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
        let (Auth::Redis(_), Limiter::Redis(remote)) = (&worker.shared.auth, &*worker.shared.limiter) else {
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
        if remote.is_reachable() {
            self.dial(remote);
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
