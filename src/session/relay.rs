//! What Redis sends a client on its own connection: replies, passed on as they come and counted off against what was
//! asked, and what comes unasked between them.

use super::Session;
use super::expect::{Change, Expect};
use super::ids;
use super::link::Link;
use super::merge::Merge;
use super::transaction;
use crate::info;
use crate::resp::{reply, scan};
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// Replies that wait for the client beyond this hold up the reading of more of them from Redis.
const MAX_REPLY_BYTES: usize = 1024 * 1024;
/// Longest reply of INFO, COMMAND or CLIENT that is changed here; a longer one is passed on as it is.
const MAX_COLLECTED_BYTES: usize = 16 * 1024 * 1024;

impl Session {
    /// Takes what Redis has sent, when it is next in order. Whether there was any.
    ///
    /// # Errors
    /// The connection to Redis is lost.
    pub(super) fn poll_replies(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let is_next = self.slots.is_empty() || self.slots.front_upstream().is_some();
        if !is_next || !self.reads_replies() {
            return Ok(false);
        }
        let Link::Open(upstream) = &mut self.link else { return Ok(false) };
        let mut held = std::mem::take(&mut upstream.held);
        if !held.is_empty() {
            let taken = self.relay(&held)?;
            held.advance(taken);
            self.hold_replies(&held);
            return Ok(taken > 0);
        }
        let mut lent = self.worker.read_buffer.take();
        let mut buffer = ReadBuf::new(&mut lent);
        let outcome = match Pin::new(&mut upstream.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(())) => self.relay(buffer.filled()).map(|taken| {
                self.note_received(buffer.filled().len());
                self.hold_replies(buffer.filled().get(taken..).unwrap_or_default());
                true
            }),
        };
        self.worker.read_buffer.replace(lent);
        outcome
    }

    /// Whether replies are read from Redis: not while the client leaves too many unread.
    pub(super) fn reads_replies(&self) -> bool {
        let bytes = self.output.len();
        bytes < MAX_REPLY_BYTES && (bytes == 0 || bytes < self.max_unread_bytes())
    }

    fn note_received(&mut self, bytes: usize) {
        if let Link::Open(upstream) = &mut self.link {
            upstream.received += bytes as u64;
        }
    }

    fn hold_replies(&mut self, rest: &[u8]) {
        if let Link::Open(upstream) = &mut self.link
            && !rest.is_empty()
        {
            upstream.held.extend_from_slice(rest);
        }
    }

    /// Passes on what Redis sent, up to where something that is decided here comes first. Says how far it got.
    fn relay(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            let Link::Open(upstream) = &mut self.link else { return Ok(data.len()) };
            if upstream.replicating && self.slots.is_empty() {
                self.output.extend_from_slice(rest);
                return Ok(data.len());
            }
            if let Some(Expect::Replies(left)) = self.slots.front_upstream()
                && upstream.scanner.is_between()
                && !upstream.listens()
            {
                // The last one is left for below: with it the slot ends.
                let (count, taken) = scan::flat_values(rest, *left - 1);
                self.output.extend_from_slice(rest.get(..taken).unwrap_or_default());
                *left -= count;
                at += taken;
                if count > 0 {
                    continue;
                }
            }
            let is_idle = self.slots.is_empty();
            let collects = match self.slots.front_upstream() {
                Some(Expect::Change(change)) => self.client.was_told_id && matches!(**change, Change::Hello(_)),
                Some(expect) => {
                    matches!(expect, Expect::Merge(_) | Expect::Ids(_) | Expect::RefusedInMulti(_) | Expect::HeldMulti)
                }
                None if is_idle => false,
                None => return Ok(at),
            };
            let (taken, complete) = upstream.scanner.scan(rest).map_err(|_| io::Error::other("malformed reply"))?;
            let piece = rest.get(..taken).unwrap_or_default();
            at += taken;
            if collects && upstream.scanner.kind() != b'>' {
                upstream.collected.extend_from_slice(piece);
            } else {
                self.output.extend_from_slice(piece);
            }
            if complete {
                self.take_reply();
            } else if is_idle {
                // A reply that is made here must not come in its middle.
                self.slots.push_upstream(Expect::Rest);
            } else if upstream.collected.len() > MAX_COLLECTED_BYTES {
                self.stop_collecting();
            }
        }
        Ok(at)
    }

    /// A value from Redis is complete.
    fn take_reply(&mut self) {
        let Link::Open(upstream) = &mut self.link else { return };
        let all = match self.slots.front_upstream() {
            Some(Expect::ConfirmationsOfAll(kind)) => Some(upstream.subscribed(*kind).max(1).unsigned_abs()),
            _ => None,
        };
        let front = self.slots.front_upstream();
        let confirms = matches!(front, Some(Expect::Confirmations(_) | Expect::ConfirmationsOfAll(_)));
        let in_pubsub = confirms || upstream.scanner.kind() == b'>' || upstream.is_subscriber(self.client.protocol);
        if let Some(Expect::Rest) = front {
            self.slots.pop_upstream();
        } else if in_pubsub && upstream.take_confirmation() {
            if let Some(front) = front.filter(|_| confirms) {
                match all {
                    Some(all) => self.slots.replace_front(Expect::Confirmations(all - 1)),
                    None => {
                        if let Expect::Confirmations(left) = front {
                            *left -= 1;
                        }
                    }
                }
                if let Some(Expect::Confirmations(0)) = self.slots.front_upstream() {
                    self.slots.pop_upstream();
                }
            }
        } else if upstream.is_out_of_band(self.client.protocol) {
            // It came before the reply that is collected, and is no part of it.
            self.output.extend_from_slice(&std::mem::take(&mut upstream.collected));
        } else {
            match front {
                Some(Expect::Replies(left)) if *left > 1 => *left -= 1,
                _ => self.finish_slot(),
            }
        }
        self.slots.drain(&mut self.output);
    }

    fn finish_slot(&mut self) {
        let Link::Open(upstream) = &mut self.link else { return };
        let is_error = upstream.scanner.kind() == b'-';
        let done = self.slots.pop_upstream();
        if let Some(Expect::Change(change)) = &done
            && let Some(login) = change.login()
        {
            let auth = &self.worker.shared.auth;
            if upstream.scanner.label().starts_with(b"WRONGPASS") {
                auth.refused(login.user(), login.password());
                self.client.fail_login();
            } else if !is_error && upstream.scanner.label() != b"QUEUED" {
                // In a transaction it is only queued: nobody has looked at the password yet.
                self.client.permissions = auth.accepted(login.user(), login.password());
            }
        }
        if let Some(Expect::Change(_)) = &done {
            // Only a HELLO's is, of a client that was told its id.
            let reply = std::mem::take(&mut upstream.collected);
            self.output.extend_from_slice(&ids::of_hello(&reply, self.client.id));
        }
        match done {
            Some(Expect::Change(change)) if upstream.scanner.label() == b"QUEUED" => upstream.queued.push(*change),
            Some(Expect::Change(change)) if !is_error => {
                if matches!(*change, Change::Reset) {
                    upstream.reset();
                }
                change.apply(&mut self.client);
            }
            Some(Expect::Multi) => upstream.in_multi |= upstream.scanner.label() == b"OK",
            Some(Expect::HeldMulti) => {
                let reply = std::mem::take(&mut upstream.collected);
                upstream.in_multi |= !is_error;
                if is_error {
                    // The client was told that it is in a transaction: what it sent as part of one must not be taken
                    // for anything else.
                    self.output.extend_from_slice(&reply);
                    self.slots.cut_upstream();
                    self.closing = true;
                    self.link = Link::Absent;
                }
            }
            Some(Expect::EndMulti) => {
                upstream.in_multi = false;
                let executed = upstream.scanner.kind() == b'*';
                upstream.queued.drain(..).filter(|_| executed).for_each(|change| change.apply(&mut self.client));
            }
            Some(Expect::RefusedInMulti(name)) => {
                upstream.collected = BytesMut::new();
                reply::error(&mut self.output, &transaction::refused_in_multi(name));
            }
            Some(Expect::Merge(merge)) => {
                let reply = std::mem::take(&mut upstream.collected);
                let section = match merge {
                    Merge::Info => info::render(&self.worker.shared, [&b"tollgate"[..]].into_iter()),
                    _ => String::new(),
                };
                merge.write(&mut self.output, &reply, &section, self.client.protocol);
            }
            Some(Expect::Ids(ids)) => {
                let reply = std::mem::take(&mut upstream.collected);
                self.answer_ids(&ids, &reply);
            }
            _ => {}
        }
    }

    fn stop_collecting(&mut self) {
        let Link::Open(upstream) = &mut self.link else { return };
        self.output.extend_from_slice(&std::mem::take(&mut upstream.collected));
        self.slots.replace_front(Expect::Replies(1));
    }

    /// The connection to Redis is gone. A client that awaits an answer from it, or whose state is gone with it, must
    /// be told in the one way that it understands: its own connection ends, as if Redis had restarted. Any other
    /// stays, and its next command opens another connection.
    pub(super) fn lose_upstream(&mut self) {
        let Link::Open(upstream) = std::mem::take(&mut self.link) else { return };
        self.note_said();
        if let Some(login) = &self.client.login {
            // It was good as long as the connection lasted. Whether it still is, is asked soon.
            self.worker.shared.auth.confirmed(login.user(), login.password());
        }
        let is_bound = self.slots.await_upstream() || !upstream.scanner.is_between() || upstream.has_state();
        if is_bound {
            self.slots.cut_upstream();
            self.closing = true;
        }
    }
}
