//! One client: reads its requests, has each answered, and writes the replies in the order of the requests, all that are
//! ready in one write.
//!
//! A session is one future that makes whatever progress it can each time it is polled. It holds no buffer while it is
//! idle, and takes no task or channel for a request.

mod caller;
mod client;
mod deadlines;
mod dispatch;
mod expect;
mod goodbye;
mod hello;
mod intake;
mod local;
mod login;
mod own;
mod passthrough;
mod policies;
mod redis_commands;
mod redis_requests;
mod replies;
mod slots;
mod transaction;
mod unread;

use crate::client_list::KillSwitch;
use crate::clock::now_us;
use crate::net::Stream;
use crate::resp::reply;
use crate::resp::request::Parser;
use crate::worker::Worker;
use bytes::{Buf, BytesMut};
use caller::{Caller, Flow, Polled};
use client::{After, Client};
use deadlines::Deadlines;
use dispatch::{Dispatcher, MAX_OWN_BYTES};
use intake::{Intake, Peer};
use login::Pause;
use passthrough::Demand;
use replies::KEPT_BYTES;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task;
use tracing::{debug, info};

/// Longest request that is kept until it is whole. What is longer passes by as it comes.
const MAX_KEPT_BYTES: usize = 64 * 1024;
/// Most requests that a client has carried out in one turn, and most passes over its connections, each of which reads
/// 64 KiB from either side at most: then the worker's other clients have theirs.
const MAX_TURN_REQUESTS: usize = 256;
const MAX_TURN_PASSES: usize = 4;

/// Serves a client until either side ends it, or it is killed.
pub async fn serve(worker: Rc<Worker>, stream: Stream, id: u64, peer: String, kill: &KillSwitch) {
    let of_this_thread = worker.clone();
    // Polled once, so that they wake this task; from then on flags tell, which costs less.
    let (mut stopped, mut killed) = (pin!(of_this_thread.stop.notified()), pin!(kill.asked()));
    let mut awaits_end = false;
    let mut session = Session::new(worker, stream, id, peer);
    let outcome = std::future::poll_fn(|cx| {
        if !std::mem::replace(&mut awaits_end, true) {
            let _ = stopped.as_mut().poll(cx);
            let _ = killed.as_mut().poll(cx);
        }
        if kill.is_asked() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "killed by CLIENT KILL")));
        }
        match session.poll(cx) {
            Poll::Pending => session.poll_deadlines(cx),
            outcome => outcome,
        }
    })
    .await;
    if let Err(error) = outcome {
        let client = &session.caller.client;
        debug!(client = client.id, peer = client.peer, %error, "connection lost");
    }
    session.caller.leave();
    let is_stopping = session.caller.worker.stopping.get();
    // Boxed, or every client's task would keep room for it for life.
    Box::pin(goodbye::say(&mut session.stream, is_stopping)).await;
}

struct Session {
    stream: Stream,
    caller: Caller,
    dispatcher: Dispatcher,
    /// Requests that were read and are not carried out yet.
    input: BytesMut,
    /// What becomes of them.
    intake: Intake,
    peer: Peer,
    /// While it is on nothing more is carried out.
    pause: Pause,
    /// How many more requests may be carried out in this turn.
    turn_requests: usize,
    deadlines: Deadlines,
}

impl Session {
    fn new(worker: Rc<Worker>, stream: Stream, id: u64, peer: String) -> Self {
        let client = Client::new(id, peer, worker.shared.auth.before_login());
        Self {
            stream,
            deadlines: Deadlines::new(&worker.shared.config.server),
            caller: Caller::new(worker, client),
            dispatcher: Dispatcher::default(),
            input: BytesMut::new(),
            intake: Intake::Open { needed: 0 },
            peer: Peer::Here,
            pause: Pause::default(),
            turn_requests: 0,
        }
    }

    /// Makes what progress there is to make in one turn. Ready when the connection is to be closed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.caller.worker.on_event(self.caller.client.id);
        self.turn_requests = MAX_TURN_REQUESTS;
        let mut outcome = Polled::Progress;
        for _ in 0..MAX_TURN_PASSES {
            outcome = self.pass(cx)?;
            if outcome != Polled::Progress {
                break;
            }
        }
        self.caller.count_unread();
        match outcome {
            Polled::Close => return Poll::Ready(Ok(())),
            Polled::Idle if !self.may_run_more() => {}
            // There is more to do, once the worker has looked what its other clients want. A task that only wakes itself
            // would be run many times before that.
            _ => drop(pin!(task::yield_now()).poll(cx)),
        }
        Poll::Pending
    }

    /// A pass over the session's connections.
    fn pass(&mut self, cx: &mut Context<'_>) -> io::Result<Polled> {
        let Caller { mailbox, replies, .. } = &mut self.caller;
        mailbox.collect(cx, |(ticket, answer)| replies.slots.answer(ticket, answer));
        replies.drain();
        let mut progress = self.poll_passthrough(cx);
        let was_full = self.caller.replies.output.len();
        let flushed = self.poll_flush(cx)?;
        progress |= self.caller.replies.output.len() < was_full;
        self.notice_failed_login();
        self.pause.poll(cx);
        if self.intake == Intake::Held {
            progress |= self.retry_held();
        } else if self.may_run_more() && self.turn_requests > 0 {
            self.run_input();
            progress = true;
        }
        let is_stopping = self.caller.worker.stopping.get();
        if is_stopping && self.caller.replies.slots.is_blocked() {
            // As a Redis that ends does. What it waits for may never come.
            self.caller.replies.slots.clear();
            self.close();
        }
        if self.may_read() {
            match self.poll_read(cx)? {
                Poll::Ready(()) => progress = true,
                Poll::Pending if is_stopping && self.intake != Intake::Held && !self.stream.has_unread() => {
                    self.close()
                }
                Poll::Pending => {}
            }
        }
        Ok(if !self.is_done() {
            if progress { Polled::Progress } else { Polled::Idle }
        } else if flushed.is_ready() {
            Polled::Close
        } else {
            Polled::Idle
        })
    }

    /// Carries out nothing more.
    fn close(&mut self) {
        self.intake = Intake::Closed;
        self.input = BytesMut::new();
    }

    /// Whether requests that were read are to be carried out now.
    fn may_run_more(&self) -> bool {
        self.intake == Intake::Backlog && !self.pause.is_on() && !self.caller.is_full()
    }

    /// Whether all that was to be answered is answered and nothing more will be asked.
    fn is_done(&self) -> bool {
        let ended = match self.intake {
            Intake::Closed => true,
            // What the client sent before it closed its side is still answered; then Redis closes in turn.
            Intake::Open { .. } => !self.peer.is_here() && !self.dispatcher.passthrough.is_open(),
            Intake::Backlog | Intake::Held => false,
        };
        ended && self.caller.replies.is_empty()
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let awaits_nothing = self.caller.replies.slots.is_empty()
            && !matches!(self.intake, Intake::Backlog | Intake::Held)
            && !self.dispatcher.passthrough.listens();
        self.deadlines.poll(cx, self.caller.client.permissions.is_some(), awaits_nothing)
    }

    /// Whether the client's way to Redis has moved.
    fn poll_passthrough(&mut self, cx: &mut Context<'_>) -> bool {
        let passthrough = &mut self.dispatcher.passthrough;
        let demand = match self.intake {
            Intake::Backlog => Demand::MayCome,
            Intake::Held if !passthrough.is_open() || !self.peer.has_lingered(cx) => Demand::Waits,
            Intake::Held => Demand::Ended,
            _ if !self.peer.is_here() => Demand::Ended,
            Intake::Open { .. } => Demand::MayCome,
            Intake::Closed => Demand::Ending,
        };
        let polled = passthrough.poll(cx, &mut self.caller, demand);
        if polled == Polled::Close {
            self.close();
        }
        polled != Polled::Idle
    }

    /// Counts a login that has failed, and has the client wait if it was not the first.
    fn notice_failed_login(&mut self) {
        if !std::mem::take(&mut self.caller.client.has_failed_login) {
            return;
        }
        let Caller { worker, client, .. } = &self.caller;
        worker.stats.failed_logins.add(1);
        if let Some(times) = worker.shared.login_log.due(now_us()) {
            info!(peer = client.peer, times, "logins failed, of which this client's is the last");
        }
        self.pause.begin(client.failed_logins);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let output = &mut self.caller.replies.output;
        while !output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, output)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    output.advance(written);
                    self.caller.worker.stats.bytes_out.add(written as u64);
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        if output.capacity() > KEPT_BYTES {
            *output = BytesMut::new();
        }
        Ok(match Pin::new(&mut self.stream).poll_flush(cx)? {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
    }

    /// Whether more is read from the client. While its requests wait this is only to see whether it is still there.
    fn may_read(&self) -> bool {
        self.peer.is_here()
            && match self.intake {
                Intake::Open { .. } => {
                    !self.pause.is_on() && self.dispatcher.passthrough.has_room() && !self.caller.is_full()
                }
                Intake::Backlog => false,
                Intake::Held => self.input.len() < MAX_KEPT_BYTES,
                Intake::Closed => self.caller.replies.slots.await_upstream(),
            }
    }

    /// Reads once and carries out what has come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut lent = self.caller.worker.read_buffer.take();
        let mut buffer = ReadBuf::new(&mut lent);
        let outcome = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        if let Poll::Ready(Ok(())) = outcome {
            self.take(buffer.filled());
        }
        // Also after an error: without it the other sessions could read nothing.
        self.caller.worker.read_buffer.replace(lent);
        if self.input.len() > self.caller.worker.shared.config.server.query_buffer_bytes {
            return Err(io::Error::other("the request is longer than server.query_buffer_bytes"));
        }
        Ok(outcome?)
    }

    fn take(&mut self, read: &[u8]) {
        self.deadlines.on_read();
        self.caller.worker.stats.bytes_in.add(read.len() as u64);
        if read.is_empty() {
            self.peer = Peer::Gone { linger: None };
            return;
        }
        match self.intake {
            // What comes behind the end is not carried out.
            Intake::Closed => {}
            Intake::Open { .. } if self.input.is_empty() => {
                let taken = self.run_requests(read);
                self.input.extend_from_slice(read.get(taken..).unwrap_or_default());
            }
            Intake::Open { needed } => {
                self.input.extend_from_slice(read);
                if self.input.len() >= needed {
                    self.run_input();
                }
            }
            Intake::Backlog | Intake::Held => self.input.extend_from_slice(read),
        }
    }

    /// Tries again what waited. Whether that got anywhere.
    fn retry_held(&mut self) -> bool {
        let before = self.input.len();
        self.run_input();
        self.input.len() < before || self.intake != Intake::Held
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
        let mut parser = self.caller.worker.parser.take();
        let taken = self.run_requests_with(data, &mut parser);
        self.caller.worker.parser.replace(parser);
        if self.intake == Intake::Closed { data.len() } else { taken }
    }

    fn run_requests_with(&mut self, data: &[u8], parser: &mut Parser) -> usize {
        let now_us = now_us();
        let mut taken = 0;
        self.intake.begin();
        while self.intake.is_open()
            && let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty())
        {
            self.notice_failed_login();
            if self.turn_requests == 0 || self.pause.is_on() || self.caller.is_full() {
                self.intake = Intake::Backlog;
                break;
            }
            self.turn_requests -= 1;
            let Self { dispatcher, caller, .. } = self;
            if dispatcher.has_oversized() {
                let (length, after) = dispatcher.take_oversized(rest);
                taken += length;
                if after == After::Close {
                    self.close();
                }
                continue;
            }
            if caller.client.permissions.is_none() && caller.replies.slots.await_barrier() {
                // What it may send depends on the answer to its login.
                self.intake = Intake::Held;
                break;
            }
            let (length, flow) = match parser.parse(rest, caller.limits()) {
                Ok(Some(length)) if dispatcher.is_plain(caller, &parser.args(rest)) => {
                    taken += dispatcher.forward_plain(caller, rest, length, parser);
                    continue;
                }
                Ok(Some(length)) => {
                    let (raw, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                    (length, dispatcher.run(caller, &parser.args(rest), raw, behind, now_us))
                }
                Ok(None) if rest.len() < MAX_KEPT_BYTES => {
                    self.intake = Intake::Open { needed: parser.needed().min(MAX_KEPT_BYTES) };
                    break;
                }
                Ok(None) => {
                    match dispatcher.begin_oversized(caller, &parser.args(rest), parser.count(), rest.len(), now_us) {
                        Some(flow) => (0, flow),
                        None => {
                            self.intake = Intake::Open { needed: parser.needed().min(MAX_OWN_BYTES) };
                            break;
                        }
                    }
                }
                Err(error) => {
                    reply::error(caller.replies.tail(), &error.to_string());
                    (0, Flow::Close)
                }
            };
            match flow {
                Flow::Done => taken += length,
                Flow::Hold => self.intake = Intake::Held,
                Flow::Close => self.close(),
            }
        }
        taken
    }
}
