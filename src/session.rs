//! One client: reads its requests, finds who answers each, and writes the replies in the order of the requests, all
//! that are ready in one write.
//!
//! A session is one future that makes whatever progress it can each time it is polled. It holds no buffer while it is
//! idle, and takes no task or channel for a request.

mod client;
mod local;
mod slots;

use crate::clock::now_us;
use crate::command::{self, CheckArgs, CommandError, Name, docs};
use crate::limiter::Kind;
use crate::limiter::mailbox::{Answer, Mailbox};
use crate::net::Stream;
use crate::resp::reply;
use crate::resp::request::{Args, Parser};
use crate::worker::Worker;
use bytes::{Buf, BytesMut};
use client::Client;
use slots::Slots;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

/// Most bytes of replies that wait for a client which does not read them. Redis bounds a normal client's by nothing;
/// a client that is this far behind is not coming back.
const MAX_OUTPUT_BYTES: usize = 256 * 1024 * 1024;
/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BYTES: usize = 16 * 1024;

/// Serves a client until either side ends it.
pub async fn serve(worker: Rc<Worker>, stream: Stream, id: u64, peer: String) {
    let stopping = worker.shared.stopping.clone();
    let mut stopped = pin!(stopping.cancelled());
    let mut session = Session {
        worker,
        stream,
        client: Client::new(id, peer),
        input: BytesMut::new(),
        output: BytesMut::new(),
        slots: Slots::default(),
        mailbox: Rc::default(),
        closing: false,
    };
    let outcome = std::future::poll_fn(|cx| {
        let stop = !session.closing && stopped.as_mut().poll(cx).is_ready();
        session.poll(cx, stop)
    })
    .await;
    if let Err(error) = outcome {
        debug!(client = session.client.id, %error, "connection lost");
    }
    session.mailbox.close();
}

struct Session {
    worker: Rc<Worker>,
    stream: Stream,
    client: Client,
    /// The beginning of a request whose end has not come.
    input: BytesMut,
    /// Replies that are next in order and ready.
    output: BytesMut,
    /// Replies behind one that is not.
    slots: Slots,
    /// Where the limiter's answers come.
    mailbox: Rc<Mailbox>,
    /// Nothing more is read; the connection closes once all is answered and written.
    closing: bool,
}

impl Session {
    /// Makes what progress there is to make. Ready when the connection is to be closed.
    fn poll(&mut self, cx: &mut Context<'_>, stop: bool) -> Poll<io::Result<()>> {
        loop {
            let Self { mailbox, slots, output, .. } = self;
            mailbox.collect(cx, |(ticket, answer)| slots.answer(ticket, answer));
            slots.drain(output);
            let flushed = self.poll_flush(cx)?;
            if self.closing {
                return if self.slots.is_empty() { flushed.map(Ok) } else { Poll::Pending };
            }
            if self.output.len() > MAX_OUTPUT_BYTES {
                return Poll::Ready(Err(io::Error::other("the client does not read its replies")));
            }
            if self.poll_read(cx)?.is_pending() {
                if !stop {
                    return Poll::Pending;
                }
                self.closing = true;
            }
        }
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

    /// Reads once and carries out what has come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut lent = self.worker.read_buffer.take();
        let mut parser = self.worker.parser.take();
        let outcome = self.read_into(cx, &mut lent, &mut parser);
        self.worker.parser.replace(parser);
        self.worker.read_buffer.replace(lent);
        outcome
    }

    fn read_into(&mut self, cx: &mut Context<'_>, lent: &mut [u8], parser: &mut Parser) -> io::Result<Poll<()>> {
        let mut buffer = ReadBuf::new(lent);
        if Pin::new(&mut self.stream).poll_read(cx, &mut buffer)?.is_pending() {
            return Ok(Poll::Pending);
        }
        let read = buffer.filled();
        if read.is_empty() {
            self.closing = true;
            return Ok(Poll::Ready(()));
        }
        if self.input.is_empty() {
            let taken = self.run_requests(read, parser);
            self.input.extend_from_slice(read.get(taken..).unwrap_or_default());
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(read);
            input.advance(self.run_requests(&input, parser));
            // What is left is kept in a buffer of its own size: a slice would keep all of the old one alive.
            self.input = if input.is_empty() { BytesMut::new() } else { input };
        }
        Ok(Poll::Ready(()))
    }

    /// Carries out the requests that `data` begins with and says how many bytes they took.
    fn run_requests(&mut self, data: &[u8], parser: &mut Parser) -> usize {
        let now_us = now_us();
        let max_bulk_bytes = self.worker.shared.config.server.max_bulk_bytes;
        let mut taken = 0;
        while !self.closing {
            let rest = data.get(taken..).unwrap_or_default();
            match parser.parse(rest, max_bulk_bytes) {
                Ok(None) => break,
                Ok(Some(length)) => {
                    self.run_request(&parser.args(rest), now_us);
                    taken += length;
                }
                Err(error) => {
                    reply::error(self.replies(), &error.to_string());
                    self.closing = true;
                }
            }
        }
        if self.closing { data.len() } else { taken }
    }

    fn run_request(&mut self, args: &Args<'_>, now_us: u64) {
        if args.is_empty() {
            return;
        }
        self.worker.stats.commands.add(1);
        let outcome = match Name::of(args.name()) {
            Some(Name::Check) => self.ask(Kind::Check, args, now_us),
            Some(Name::Peek) => self.ask(Kind::Peek, args, now_us),
            Some(Name::Reset) => self.reset(args, now_us),
            Some(Name::Help) if args.len() > 1 => Err(CommandError::Arity(Name::Help)),
            Some(Name::Help) => {
                docs::help(self.replies());
                Ok(())
            }
            None => {
                let output = if self.slots.is_empty() { &mut self.output } else { self.slots.ready() };
                self.closing = local::run(&self.worker, &mut self.client, args, output) == local::After::Close;
                Ok(())
            }
        };
        if let Err(error) = outcome {
            reply::error(self.replies(), &error.to_string());
        }
    }

    fn ask(&mut self, kind: Kind, args: &Args<'_>, now_us: u64) -> Result<(), CommandError> {
        let name = if kind == Kind::Check { Name::Check } else { Name::Peek };
        let parsed = CheckArgs::parse(name, args)?;
        let ticket = self.slots.next_ticket();
        let answer = self.worker.batcher.ask(kind, &parsed.check(), now_us, &self.mailbox, ticket);
        self.place(answer);
        Ok(())
    }

    fn reset(&mut self, args: &Args<'_>, now_us: u64) -> Result<(), CommandError> {
        let keys = command::parse_reset(args)?;
        let ticket = self.slots.next_ticket();
        let answer = self.worker.batcher.reset(&keys, now_us, &self.mailbox, ticket);
        self.place(answer);
        Ok(())
    }

    fn place(&mut self, answer: Option<Answer>) {
        match answer {
            Some(answer) => slots::write_answer(self.replies(), &answer),
            None => self.slots.push_deciding(),
        }
    }

    /// Where the reply to the request at hand is written: to the output if none before it is outstanding.
    fn replies(&mut self) -> &mut BytesMut {
        if self.slots.is_empty() { &mut self.output } else { self.slots.ready() }
    }
}
