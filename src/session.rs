//! One client: reads its requests, finds who answers each, and writes the replies in the order of the requests, all
//! that are ready in one write.
//!
//! A session is one future that makes whatever progress it can each time it is polled. It holds no buffer while it is
//! idle, and takes no task or channel for a request.

mod client;
mod expect;
mod forward;
mod handshake;
mod hello;
mod ids;
mod link;
mod local;
mod login;
mod merge;
mod passing;
mod redis_commands;
mod relay;
mod slots;
mod stall;
mod transaction;
mod unread;
mod upstream;

use crate::auth;
use crate::client_list::KillSwitch;
use crate::clock::now_us;
use crate::command::{CheckArgs, OwnCommand, Request, docs};
use crate::limit::Verb;
use crate::limiter::mailbox::{Answer, Mailbox};
use crate::net::Stream;
use crate::resp::reply;
use crate::resp::request::{Args, Limits, Parser};
use crate::worker::Worker;
use bytes::{Buf, BytesMut};
use client::Client;
use forward::Admission;
use link::Link;
use passing::Passing;
use redis_commands::{Does, RedisCommand};
use slots::Slots;
use stall::Stall;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task;
use tokio::time::Sleep;
use tracing::{debug, info, warn};
use transaction::Transaction;
use unread::Unread;

/// Longest request that is kept until it is whole. What is longer passes by as it comes.
const MAX_KEPT_BYTES: usize = 64 * 1024;
/// Most requests that a client has carried out in one turn, and most passes over its connections, each of which reads
/// 64 KiB from either side at most: then the worker's other clients have theirs.
const MAX_TURN_REQUESTS: usize = 256;
const MAX_TURN_PASSES: usize = 4;
/// Longest that the end of TLS may take to be said.
const MAX_GOODBYE: Duration = Duration::from_secs(1);
/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BYTES: usize = 16 * 1024;

/// Serves a client until either side ends it, or it is killed.
pub async fn serve(worker: Rc<Worker>, stream: Stream, id: u64, peer: String, kill: &KillSwitch) {
    let of_this_thread = worker.clone();
    // Polled once, so that they wake this task; from then on flags tell, which costs less.
    let (mut stopped, mut killed) = (pin!(of_this_thread.stop.notified()), pin!(kill.asked()));
    let mut awaits_end = false;
    // A timer only where one is asked for: ten thousand idle clients would have ten thousand.
    let idle_timeout = worker.shared.config.server.idle_timeout;
    let mut idle = idle_timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    let before_login = worker.shared.auth.before_login();
    let login_timeout = worker.shared.config.server.login_timeout;
    let mut login = None;
    let mut session = Session {
        worker,
        stream,
        client: Client::new(id, peer, before_login),
        input: BytesMut::new(),
        output: BytesMut::new(),
        slots: Slots::default(),
        mailbox: Rc::default(),
        link: Link::Absent,
        passing: None,
        holding: false,
        alone: false,
        sends_own: false,
        reset: None,
        login_due: None,
        recheck: None,
        transaction: None,
        stall: None,
        pause: None,
        turn_requests: 0,
        has_more: false,
        needed: 0,
        unread: Unread::default(),
        active: false,
        gone: false,
        linger: None,
        closing: false,
    };
    let outcome = std::future::poll_fn(|cx| {
        if !std::mem::replace(&mut awaits_end, true) {
            let _ = stopped.as_mut().poll(cx);
            let _ = killed.as_mut().poll(cx);
        }
        if kill.is_asked() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "killed by CLIENT KILL")));
        }
        let outcome = session.poll(cx);
        if session.client.permissions.is_some() {
            login = None;
        } else if let (Poll::Pending, Some(timeout)) = (&outcome, login_timeout) {
            let login = login.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
            if login.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not log in")));
            }
        }
        match (&mut idle, idle_timeout) {
            (Some(idle), Some(timeout)) if outcome.is_pending() => {
                if std::mem::take(&mut session.active) || !session.may_time_out() {
                    idle.as_mut().reset(tokio::time::Instant::now() + timeout);
                }
                idle.as_mut().poll(cx).map(|()| Ok(()))
            }
            _ => outcome,
        }
    })
    .await;
    if let Err(error) = outcome {
        debug!(client = session.client.id, peer = session.client.peer, %error, "connection lost");
    }
    session.mailbox.close();
    session.unread.set(0, &session.worker.shared);
    if let Stream::Tls(stream) = &mut session.stream {
        // Says that this is the end: without it a client cannot tell whether a stranger has cut the connection.
        let _ = tokio::time::timeout(MAX_GOODBYE, stream.shutdown()).await;
    }
}

struct Session {
    worker: Rc<Worker>,
    stream: Stream,
    client: Client,
    /// Requests that wait for an earlier one, or the beginning of one whose end has not come.
    input: BytesMut,
    /// Replies that are next in order and ready.
    output: BytesMut,
    /// Replies behind one that is not.
    slots: Slots,
    /// Where the limiter's answers come.
    mailbox: Rc<Mailbox>,
    /// The client's own connection to Redis.
    link: Link,
    /// A request too long to be kept.
    passing: Option<Passing>,
    /// The request that `input` begins with waits for an earlier one. Nothing more is read meanwhile.
    holding: bool,
    /// The last request forwarded bears no other behind it until its reply has come.
    alone: bool,
    /// It has sent a command of Tollgate's own.
    sends_own: bool,
    /// The ticket of the last reset that was not answered at once.
    reset: Option<u64>,
    /// When Redis has had long enough to answer that request.
    login_due: Option<Pin<Box<Sleep>>>,
    /// When Redis is asked anew about a login that no connection carries.
    recheck: Option<Pin<Box<Sleep>>>,
    /// A transaction that Redis was not told of.
    transaction: Option<Transaction>,
    /// Watches for a connection to Redis on which nothing comes any more.
    stall: Option<Stall>,
    /// Until then nothing more is carried out, after logins that failed.
    pause: Option<Pin<Box<Sleep>>>,
    /// How many more requests may be carried out in this turn.
    turn_requests: usize,
    /// `input` holds requests for which there was no room, or no time, in the last turn.
    has_more: bool,
    /// How long `input` must be before it can hold a whole request.
    needed: usize,
    /// What of the bound for all clients together this one takes.
    unread: Unread,
    /// Something was read since this was last looked at.
    active: bool,
    /// The client has closed its side.
    gone: bool,
    /// Since then, when requests still wait for another.
    linger: Option<Pin<Box<Sleep>>>,
    /// Nothing more is read; the connection closes once all is answered and written.
    closing: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// It was carried out or passed on.
    Done,
    /// It waits for an earlier one, and all behind it wait too.
    Hold,
}

/// What came of a pass over a session's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Something moved.
    Progress,
    /// Nothing did; something will wake the session.
    Idle,
    /// The connection is to be closed.
    Done,
}

impl Session {
    /// Makes what progress there is to make in one turn. Ready when the connection is to be closed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.worker.on_event(self.client.id);
        self.turn_requests = MAX_TURN_REQUESTS;
        let mut outcome = Pass::Progress;
        for _ in 0..MAX_TURN_PASSES {
            outcome = self.pass(cx)?;
            if outcome != Pass::Progress {
                break;
            }
        }
        self.unread.set(self.unread_bytes(), &self.worker.shared);
        match outcome {
            Pass::Done => return Poll::Ready(Ok(())),
            Pass::Idle if !self.may_run_more() => {}
            // There is more to do, once the worker has looked what its other clients want. A task that only wakes itself
            // would be run many times before that.
            _ => drop(pin!(task::yield_now()).poll(cx)),
        }
        Poll::Pending
    }

    fn pass(&mut self, cx: &mut Context<'_>) -> io::Result<Pass> {
        let Self { mailbox, slots, output, .. } = self;
        mailbox.collect(cx, |(ticket, answer)| slots.answer(ticket, answer));
        slots.drain(output);
        let mut progress = self.poll_link(cx);
        let was_full = self.output.len();
        let flushed = self.poll_flush(cx)?;
        progress |= self.output.len() < was_full;
        self.notice_failed_login();
        self.poll_pause(cx);
        if self.holding {
            progress |= self.retry_held();
        } else if self.may_run_more() && self.turn_requests > 0 {
            self.run_input();
            progress = true;
        }
        if self.worker.stopping.get() && self.slots.is_blocked() {
            // As a Redis that ends does. What it waits for may never come.
            self.slots.cut_upstream();
            self.closing = true;
        }
        if self.may_read() {
            match self.poll_read(cx)? {
                Poll::Ready(()) => progress = true,
                Poll::Pending if self.worker.stopping.get() && !self.holding => self.closing = true,
                Poll::Pending => {}
            }
        }
        Ok(if !self.is_done() {
            if progress { Pass::Progress } else { Pass::Idle }
        } else if flushed.is_ready() {
            Pass::Done
        } else {
            Pass::Idle
        })
    }

    /// Whether requests that were read are to be carried out now.
    fn may_run_more(&self) -> bool {
        self.has_more && !self.closing && self.pause.is_none() && !self.is_full()
    }

    /// Whether all that was to be answered is answered and nothing more will be asked.
    fn is_done(&self) -> bool {
        let ended = match self.link {
            // What the client sent before it closed its side is still answered; then Redis closes in turn.
            Link::Open(_) if !self.closing => false,
            _ => self.closing || (self.gone && !self.holding && !self.has_more),
        };
        ended && self.slots.is_empty() && self.output.is_empty()
    }

    /// Whether silence means that nobody is there: not while the client waits for an answer or listens.
    fn may_time_out(&self) -> bool {
        self.slots.is_empty() && !self.holding && !self.has_more && !self.listens()
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) {
        if self.pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_ready()) {
            self.pause = None;
        }
    }

    /// Counts a login that has failed, and has the client wait if it was not the first.
    fn notice_failed_login(&mut self) {
        if !std::mem::take(&mut self.client.has_failed_login) {
            return;
        }
        self.worker.stats.failed_logins.add(1);
        if let Some(times) = self.worker.shared.login_log.due(now_us()) {
            info!(peer = self.client.peer, times, "logins failed, of which this client's is the last");
        }
        self.pause = login::pause_after(self.client.failed_logins).map(|pause| Box::pin(tokio::time::sleep(pause)));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.output.advance(written),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        if self.output.capacity() > KEPT_BYTES {
            self.output = BytesMut::new();
        }
        Ok(match Pin::new(&mut self.stream).poll_flush(cx)? {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
    }

    /// Whether more is read from the client. While its requests wait this is only to see whether it is still there.
    fn may_read(&self) -> bool {
        if self.closing {
            self.slots.await_upstream() && !self.gone
        } else if self.holding {
            self.input.len() < MAX_KEPT_BYTES && !self.gone
        } else {
            !self.has_more && self.pause.is_none() && self.has_room_upstream() && !self.is_full() && !self.gone
        }
    }

    /// Reads once and carries out what has come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut lent = self.worker.read_buffer.take();
        let mut buffer = ReadBuf::new(&mut lent);
        let outcome = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        if let Poll::Ready(Ok(())) = outcome {
            self.take(buffer.filled());
        }
        // Also after an error: without it the other sessions could read nothing.
        self.worker.read_buffer.replace(lent);
        if self.input.len() > self.worker.shared.config.server.query_buffer_bytes {
            return Err(io::Error::other("the request is longer than server.query_buffer_bytes"));
        }
        Ok(outcome?)
    }

    fn take(&mut self, read: &[u8]) {
        self.active = true;
        if read.is_empty() {
            self.gone = true;
        } else if self.closing {
            // What comes behind the end is not carried out.
        } else if self.holding {
            self.input.extend_from_slice(read);
        } else if self.input.is_empty() {
            let taken = self.run_requests(read);
            self.input.extend_from_slice(read.get(taken..).unwrap_or_default());
        } else {
            self.input.extend_from_slice(read);
            if self.input.len() >= self.needed {
                self.run_input();
            }
        }
    }

    /// Tries again what waited. Whether that got anywhere.
    fn retry_held(&mut self) -> bool {
        let before = self.input.len();
        self.holding = false;
        self.run_input();
        self.input.len() < before || !self.holding
    }

    fn run_input(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        input.advance(self.run_requests(&input));
        if !input.is_empty() {
            self.input = input;
        }
    }

    /// Carries out the requests that `data` begins with and says how many bytes they took.
    fn run_requests(&mut self, data: &[u8]) -> usize {
        let mut parser = self.worker.parser.take();
        let taken = self.run_requests_with(data, &mut parser);
        self.worker.parser.replace(parser);
        if self.closing { data.len() } else { taken }
    }

    fn run_requests_with(&mut self, data: &[u8], parser: &mut Parser) -> usize {
        let now_us = now_us();
        let mut taken = 0;
        (self.has_more, self.needed) = (false, 0);
        while !self.closing && !self.holding {
            let rest = data.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            self.notice_failed_login();
            if self.turn_requests == 0 || self.pause.is_some() || self.is_full() {
                self.has_more = true;
                break;
            }
            self.turn_requests -= 1;
            if self.passing.is_some() {
                taken += self.take_passing(rest);
                continue;
            }
            if self.client.permissions.is_none() && self.slots.await_turning_point() {
                // What it may send depends on the answer to its login.
                self.holding = true;
                break;
            }
            match parser.parse(rest, self.limits()) {
                Ok(Some(length)) if self.is_plain(&parser.args(rest)) => {
                    taken += self.forward_plain(rest, length, parser);
                }
                Ok(Some(length)) => {
                    let (raw, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                    match self.run_request(&parser.args(rest), parser.count(), raw, behind, now_us) {
                        Flow::Done => taken += length,
                        Flow::Hold => self.holding = true,
                    }
                }
                Ok(None) if rest.len() < MAX_KEPT_BYTES => {
                    self.needed = parser.needed().min(MAX_KEPT_BYTES);
                    break;
                }
                Ok(None) => {
                    if !self.begin_passing(&parser.args(rest), parser.count(), rest.len()) {
                        self.needed = parser.needed().min(passing::MAX_OWN_BYTES);
                        break;
                    }
                }
                Err(error) => {
                    reply::error(self.replies(), &error.to_string());
                    self.closing = true;
                }
            }
        }
        taken
    }

    fn limits(&self) -> Limits {
        match self.client.permissions {
            Some(_) => Limits::of_bulk(self.worker.shared.config.server.max_bulk_bytes),
            None => Limits::BEFORE_LOGIN,
        }
    }

    fn run_request(&mut self, args: &Args<'_>, count: usize, raw: &[u8], behind: &[u8], now_us: u64) -> Flow {
        if args.is_empty() {
            self.forward_empty(raw);
            return Flow::Done;
        }
        if self.refuses(args.name(), now_us) {
            return Flow::Done;
        }
        let taken = self.run_in_transaction(args, raw, now_us).or_else(|| self.begin_transaction(args, raw, behind));
        let flow = match (taken, OwnCommand::of(args.name())) {
            (Some(flow), _) => flow,
            (None, Some(_)) if self.awaits_reset() => Flow::Hold,
            (None, Some(command)) => self.run_own(command, args, raw, now_us),
            (None, None) => self.run_other(args, count, raw, true),
        };
        self.worker.stats.commands.add(u64::from(flow == Flow::Done));
        flow
    }

    /// Whether a command is not carried out, whatever else it is: it is an HTTP request's, and the connection ends, or the
    /// client may not run it, and is told so.
    fn refuses(&mut self, name: &[u8], now_us: u64) -> bool {
        if RedisCommand::of(name).does == Does::Http {
            if let Some(times) = self.worker.shared.http_log.due(now_us) {
                let peer = &self.client.peer;
                warn!(peer, times, "possible attack: a client speaks HTTP, as a web page that posts here; closed");
            }
            self.closing = true;
            return true;
        }
        let Some(text) = auth::refusal(self.client.permissions.as_deref(), name) else { return false };
        self.break_transaction();
        reply::error(self.replies(), text);
        true
    }

    fn run_own(&mut self, command: &'static OwnCommand, args: &Args<'_>, raw: &[u8], now_us: u64) -> Flow {
        let muted = match self.admit_own(command, raw) {
            Admission::Run { muted } => muted,
            Admission::Hold => return Flow::Hold,
            Admission::Taken => return Flow::Done,
        };
        match &(command.parse)(args, &self.worker.shared.config.limits) {
            Ok(Request::Check(check)) => self.ask(Verb::Check, check, now_us, muted),
            Ok(Request::Peek(check)) => self.ask(Verb::Peek, check, now_us, muted),
            Ok(Request::Reset(keys)) => self.reset(keys, now_us, muted),
            _ if muted => {}
            Ok(Request::Help) => docs::help(self.replies()),
            Err(error) => reply::error(self.replies(), &error.to_string()),
        }
        Flow::Done
    }

    fn ask(&mut self, kind: Verb, parsed: &CheckArgs<'_>, now_us: u64, muted: bool) {
        let ticket = self.slots.next_ticket();
        let mut check = parsed.check();
        let prefixed = self.prefixed(check.key);
        check.key = prefixed.as_deref().unwrap_or(check.key);
        let answer = self.worker.limiter.ask(kind, &check, now_us, &self.mailbox, ticket);
        self.place(answer, muted);
    }

    fn reset(&mut self, keys: &[&[u8]], now_us: u64, muted: bool) {
        let prefixed: Vec<_> = keys.iter().filter_map(|key| self.prefixed(key)).collect();
        let prefixed: Vec<&[u8]> = prefixed.iter().map(Vec::as_slice).collect();
        let keys = if prefixed.is_empty() { keys } else { &prefixed };
        let ticket = self.slots.next_ticket();
        let answer = self.worker.limiter.reset(keys, now_us, &self.mailbox, ticket);
        if answer.is_none() {
            self.reset = Some(ticket);
        }
        self.place(answer, muted);
    }

    /// A long reset goes in pieces, between which requests of other clients are answered, but none that stand behind it
    /// here.
    fn awaits_reset(&self) -> bool {
        self.reset.is_some_and(|ticket| self.slots.await_answer(ticket))
    }

    /// The key as the client's user has it, if that is another.
    fn prefixed(&self, key: &[u8]) -> Option<Vec<u8>> {
        let prefix = &self.client.permissions.as_ref()?.key_prefix;
        (!prefix.is_empty()).then(|| [prefix.as_bytes(), key].concat())
    }

    fn place(&mut self, answer: Option<Answer>, muted: bool) {
        match answer {
            Some(_) if muted => {}
            Some(answer) => slots::write_answer(self.replies(), &answer),
            None => self.slots.push_deciding(muted),
        }
    }

    /// Where the reply to the request at hand is written: to the output if none before it is outstanding.
    fn replies(&mut self) -> &mut BytesMut {
        if self.slots.is_empty() { &mut self.output } else { self.slots.ready() }
    }
}
