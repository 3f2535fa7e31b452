//! What Redis keeps for a connection, as far as a client's commands and the replies to them show it. Nothing here reads
//! or writes.

use crate::resp::reply::Protocol;
use crate::resp::scan::Scanner;
use crate::session::client::Client;
use crate::session::expect::{Change, Effect, Expect};
use crate::session::redis_commands::Subscribed;

/// Whether the client gets replies: CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// To every command.
    #[default]
    On,
    /// To none.
    Off,
    /// To none but this many: not to the next command.
    Skip,
}

/// The state of a connection.
#[derive(Debug, Default)]
pub struct State {
    /// Whether a transaction is open.
    in_multi: bool,
    /// Changes to the client that happen when the transaction is executed.
    queued: Vec<Change>,
    reply_mode: ReplyMode,
    /// SYNC: bytes pass both ways unread.
    replicating: bool,
    monitoring: bool,
    watching: bool,
    pinned: bool,
    channels: i64,
    patterns: i64,
    shards: i64,
}

impl State {
    /// Whether another connection would lack something of it.
    pub fn is_pinned(&self) -> bool {
        self.in_multi
            || self.watching
            || self.pinned
            || self.monitoring
            || self.replicating
            || self.reply_mode != ReplyMode::On
            || self.is_subscribed()
    }

    /// Whether commands are simply carried out and answered, one after another, as far as is known.
    pub fn is_plain(&self, protocol: Protocol) -> bool {
        !self.watching && !self.is_in_mode(protocol)
    }

    /// Whether a command would not be carried out and answered as it otherwise is.
    pub fn is_in_mode(&self, protocol: Protocol) -> bool {
        self.in_multi || self.replicating || self.reply_mode != ReplyMode::On || self.is_subscriber(protocol)
    }

    /// Whether each command has its reply.
    pub fn answers_each(&self) -> bool {
        self.reply_mode == ReplyMode::On && !self.replicating
    }

    /// Whether a transaction is open.
    pub fn is_in_multi(&self) -> bool {
        self.in_multi
    }

    /// Whether bytes pass both ways unread.
    pub fn is_replicating(&self) -> bool {
        self.replicating
    }

    /// Whether Redis sends what was not asked for.
    pub fn listens(&self) -> bool {
        self.monitoring || self.replicating || self.is_subscribed()
    }

    fn is_subscribed(&self) -> bool {
        self.channels + self.patterns + self.shards > 0
    }

    /// Whether anything is subscribed to in RESP2, where that excludes almost all commands.
    pub fn is_subscriber(&self, protocol: Protocol) -> bool {
        protocol == Protocol::Resp2 && self.is_subscribed()
    }

    /// How many there are of what is subscribed to.
    pub fn subscribed(&self, kind: Subscribed) -> i64 {
        match kind {
            Subscribed::Channels => self.channels,
            Subscribed::Patterns => self.patterns,
            Subscribed::Shards => self.shards,
        }
    }

    /// Whether the next command gets replies. [`ReplyMode::Skip`] is so said of one command only.
    pub fn next_reply_mode(&mut self) -> ReplyMode {
        let mode = self.reply_mode;
        if mode == ReplyMode::Skip {
            self.reply_mode = ReplyMode::On;
        }
        mode
    }

    /// Notes what a command does, as it is sent.
    pub fn note(&mut self, effect: Effect) {
        match effect {
            Effect::ReplyOn | Effect::Reset => self.reply_mode = ReplyMode::On,
            Effect::ReplyOff => self.reply_mode = ReplyMode::Off,
            Effect::ReplySkip if self.reply_mode == ReplyMode::On => self.reply_mode = ReplyMode::Skip,
            Effect::ReplySkip => {}
            Effect::Watch => self.watching = true,
            Effect::Unwatch => self.watching = false,
            Effect::Monitor => self.monitoring = true,
            Effect::Pin => self.pinned = true,
            Effect::Replicate => self.replicating = true,
        }
    }

    /// A transaction is open.
    pub fn begin_multi(&mut self) {
        self.in_multi = true;
    }

    /// A change was queued in the transaction.
    pub fn queue(&mut self, change: Change) {
        self.queued.push(change);
    }

    /// The transaction is over; what it has changed if it was executed is so now.
    pub fn end_multi(&mut self, was_executed: bool, client: &mut Client) {
        self.in_multi = false;
        self.queued.drain(..).filter(|_| was_executed).for_each(|change| change.apply(client));
    }

    /// What a client has said is so now.
    pub fn apply(&mut self, change: Change, client: &mut Client) {
        if matches!(change, Change::Reset) {
            self.reset();
        }
        change.apply(client);
    }

    /// No reply will tell, so the command is taken to succeed.
    pub fn assume_success(&mut self, expect: Expect, client: &mut Client) {
        match expect {
            Expect::Change(change) if !matches!(*change, Change::Reset) && self.is_subscriber(client.protocol) => {}
            Expect::Change(change) => self.apply(*change, client),
            Expect::Multi => self.in_multi = true,
            Expect::EndMulti => self.in_multi = false,
            _ => {}
        }
    }

    /// What RESET leaves.
    fn reset(&mut self) {
        let replicating = self.replicating;
        *self = Self { replicating, ..Self::default() };
    }

    /// Whether the value just scanned is none of the replies: a message, an invalidation, a line of MONITOR.
    pub fn is_out_of_band(&self, scanner: &Scanner, protocol: Protocol) -> bool {
        match scanner.kind() {
            b'>' => true,
            b'*' if self.is_subscriber(protocol) => matches!(scanner.label(), b"message" | b"pmessage" | b"smessage"),
            b'+' => self.monitoring && scanner.label().first().is_some_and(u8::is_ascii_digit),
            _ => false,
        }
    }

    /// If the value just scanned confirms a subscription or its end, notes how many there are now.
    pub fn take_confirmation(&mut self, scanner: &Scanner) -> bool {
        if !matches!(scanner.kind(), b'>' | b'*') {
            return false;
        }
        // The count is of channels and patterns together.
        let count = scanner.last_integer();
        match scanner.label() {
            b"subscribe" | b"unsubscribe" => self.channels = count - self.patterns,
            b"psubscribe" | b"punsubscribe" => self.patterns = count - self.channels,
            b"ssubscribe" | b"sunsubscribe" => self.shards = count,
            _ => return false,
        }
        true
    }
}
