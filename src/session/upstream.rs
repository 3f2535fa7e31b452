//! A client's own connection to Redis: opened at its first command that is not Tollgate's, kept for life, so that
//! whatever state Redis keeps for a connection is the client's own.

use super::expect::{Change, Effect};
use super::redis_commands::Subscribed;
use crate::client_list::Linked;
use crate::net::Stream;
use crate::resp::reply::Protocol;
use crate::resp::scan::Scanner;
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Requests that wait to be sent beyond this hold up the reading of more.
pub const MAX_REQUEST_BYTES: usize = 256 * 1024;

/// Whether the client gets replies: CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replies {
    /// To every command.
    #[default]
    On,
    /// To none.
    Off,
    /// To none but this many: not to the next command.
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    Due,
    Done,
}

/// The connection and the state that Redis keeps for it.
#[derive(Debug)]
pub struct Upstream {
    /// The connection.
    pub stream: Stream,
    /// Requests on their way.
    pub requests: BytesMut,
    /// Bytes that have come for commands behind one that is still being decided here.
    pub held: BytesMut,
    /// How many bytes have come.
    pub received: u64,
    /// Where in a reply the stream is.
    pub scanner: Scanner,
    /// A reply that is collected instead of being passed on.
    pub collected: BytesMut,
    /// Whether a transaction is open.
    pub in_multi: bool,
    /// Changes to the client that happen when the transaction is executed.
    pub queued: Vec<Change>,
    /// CLIENT REPLY.
    pub replies: Replies,
    /// SYNC: bytes pass both ways unread.
    pub replicating: bool,
    /// Nothing more will be sent: the sending side is to be closed, then is.
    finishing: Option<Finish>,
    monitoring: bool,
    watching: bool,
    settled: bool,
    channels: i64,
    patterns: i64,
    shards: i64,
    /// Held for what it does when the connection goes.
    _linked: Linked,
}

impl Upstream {
    /// A connection on which the client's handshake was said again.
    pub fn new(stream: Stream, linked: Linked) -> Self {
        Self {
            stream,
            requests: BytesMut::new(),
            held: BytesMut::new(),
            received: 0,
            scanner: Scanner::default(),
            collected: BytesMut::new(),
            in_multi: false,
            queued: Vec::new(),
            replies: Replies::On,
            replicating: false,
            finishing: None,
            monitoring: false,
            watching: false,
            settled: false,
            channels: 0,
            patterns: 0,
            shards: 0,
            _linked: linked,
        }
    }

    /// Whether Redis holds state for this connection that another would lack.
    pub fn has_state(&self) -> bool {
        self.in_multi
            || self.watching
            || self.settled
            || self.monitoring
            || self.replicating
            || self.replies != Replies::On
            || self.is_subscribed()
    }

    /// Whether commands are simply carried out and answered, one after another, as far as is known.
    pub fn is_plain(&self, protocol: Protocol) -> bool {
        !self.in_multi
            && !self.watching
            && !self.replicating
            && self.replies == Replies::On
            && !self.is_subscriber(protocol)
    }

    /// Whether Redis sends what was not asked for.
    pub fn listens(&self) -> bool {
        self.monitoring || self.replicating || self.is_subscribed()
    }

    /// Whether anything is subscribed to.
    pub fn is_subscribed(&self) -> bool {
        self.channels + self.patterns + self.shards > 0
    }

    /// Whether anything is subscribed to in RESP2, where that excludes almost all commands.
    pub fn is_subscriber(&self, protocol: Protocol) -> bool {
        protocol == Protocol::Resp2 && self.is_subscribed()
    }

    /// Whether the next command gets replies. [`Replies::Skip`] is so said of one command only.
    pub fn next_replies(&mut self) -> Replies {
        let replies = self.replies;
        if replies == Replies::Skip {
            self.replies = Replies::On;
        }
        replies
    }

    /// Notes what a command does, as it is sent.
    pub fn note(&mut self, effect: Effect) {
        match effect {
            Effect::ReplyOn | Effect::Reset => self.replies = Replies::On,
            Effect::ReplyOff => self.replies = Replies::Off,
            Effect::ReplySkip if self.replies == Replies::On => self.replies = Replies::Skip,
            Effect::ReplySkip => {}
            Effect::Watch => self.watching = true,
            Effect::Unwatch => self.watching = false,
            Effect::Monitor => self.monitoring = true,
            Effect::Settle => self.settled = true,
            Effect::Replicate => self.replicating = true,
        }
    }

    /// What RESET leaves.
    pub fn reset(&mut self) {
        self.in_multi = false;
        self.queued.clear();
        self.monitoring = false;
        self.watching = false;
        self.settled = false;
        self.replies = Replies::On;
        (self.channels, self.patterns, self.shards) = (0, 0, 0);
    }

    /// How many there are of what is subscribed to.
    pub fn subscribed(&self, kind: Subscribed) -> i64 {
        match kind {
            Subscribed::Channels => self.channels,
            Subscribed::Patterns => self.patterns,
            Subscribed::Shards => self.shards,
        }
    }

    /// Whether the value just scanned is none of the replies: a message, an invalidation, a line of MONITOR.
    pub fn is_out_of_band(&self, protocol: Protocol) -> bool {
        match self.scanner.kind() {
            b'>' => true,
            b'*' if self.is_subscriber(protocol) => {
                matches!(self.scanner.label(), b"message" | b"pmessage" | b"smessage")
            }
            b'+' => self.monitoring && self.scanner.label().first().is_some_and(u8::is_ascii_digit),
            _ => false,
        }
    }

    /// If the value just scanned confirms a subscription or its end, notes how many there are now.
    pub fn take_confirmation(&mut self) -> bool {
        if !matches!(self.scanner.kind(), b'>' | b'*') {
            return false;
        }
        // The count is of channels and patterns together.
        let count = self.scanner.last_integer();
        match self.scanner.label() {
            b"subscribe" | b"unsubscribe" => self.channels = count - self.patterns,
            b"psubscribe" | b"punsubscribe" => self.patterns = count - self.channels,
            b"ssubscribe" | b"sunsubscribe" => self.shards = count,
            _ => return false,
        }
        true
    }

    /// Closes the sending side once all is sent. Redis answers what it has received, lets go of what blocks, and
    /// closes in turn.
    pub fn finish(&mut self) {
        self.finishing = self.finishing.or(Some(Finish::Due));
    }

    /// Sends what waits to be sent.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.requests.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.requests) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => self.requests.advance(sent),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.requests.capacity() > super::KEPT_BYTES {
            self.requests = BytesMut::new();
        }
        if self.finishing == Some(Finish::Due) && Pin::new(&mut self.stream).poll_shutdown(cx)?.is_ready() {
            self.finishing = Some(Finish::Done);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}
