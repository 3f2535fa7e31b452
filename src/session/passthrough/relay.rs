//! What Redis sends a client on a connection of its own: replies, passed on as they come and counted off against what
//! was asked, and what comes unasked between them.

use super::state::State;
use crate::command::OwnCommand;
use crate::info;
use crate::resp::scan::Scanner;
use crate::resp::{reply, scan};
use crate::session::caller::{Caller, Polled};
use crate::session::client::After;
use crate::session::expect::merge::Merge;
use crate::session::expect::{Change, ConnectionId, Expect, ids};
use bytes::{Buf, BytesMut};
use std::io;

/// Replies that wait for the client beyond this hold up the reading of more of them from Redis.
const MAX_REPLY_BYTES: usize = 1024 * 1024;
/// Longest reply of INFO, COMMAND or CLIENT that is changed here; a longer one is passed on as it is.
const MAX_COLLECTED_BYTES: usize = 16 * 1024 * 1024;

/// Where in the replies of a connection its client is.
#[derive(Debug, Default)]
pub struct Relay {
    /// Where in a reply the stream is.
    scanner: Scanner,
    /// A reply that is collected instead of being passed on.
    collected: BytesMut,
    /// Bytes that have come for commands behind one that is still being decided here.
    held: BytesMut,
    /// How many bytes have come.
    received: u64,
}

impl Relay {
    /// Whether replies are read: not while the client leaves too many unread.
    pub fn may_read(caller: &Caller) -> bool {
        let bytes = caller.replies.output.len();
        bytes < MAX_REPLY_BYTES && (bytes == 0 || bytes < caller.max_unread_bytes())
    }

    /// How many bytes have come.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether no reply has come in part alone.
    pub fn is_between(&self) -> bool {
        self.scanner.is_between()
    }

    /// Whether something has come that was not next in order then.
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes what was not next in order when it came.
    ///
    /// # Errors
    /// The connection is to be given up.
    pub fn take_held(&mut self, state: &mut State, from: ConnectionId, caller: &mut Caller) -> io::Result<Polled> {
        let mut held = std::mem::take(&mut self.held);
        let (taken, after) = self.relay(&held, state, from, caller)?;
        held.advance(taken);
        if !held.is_empty() {
            self.held = held;
        }
        Ok(match after {
            After::Close => Polled::Close,
            After::Stay if taken == 0 => Polled::Idle,
            After::Stay => Polled::Progress,
        })
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// The connection is to be given up.
    pub fn take(
        &mut self,
        data: &[u8],
        state: &mut State,
        from: ConnectionId,
        caller: &mut Caller,
    ) -> io::Result<Polled> {
        let (taken, after) = self.relay(data, state, from, caller)?;
        self.received += data.len() as u64;
        let rest = data.get(taken..).unwrap_or_default();
        if !rest.is_empty() {
            self.held.extend_from_slice(rest);
        }
        Ok(if after == After::Close { Polled::Close } else { Polled::Progress })
    }

    /// Passes on what Redis sent, up to where something that is decided elsewhere comes first. Says how far it got, and
    /// whether the client's connection ends.
    fn relay(
        &mut self,
        data: &[u8],
        state: &mut State,
        from: ConnectionId,
        caller: &mut Caller,
    ) -> io::Result<(usize, After)> {
        let (mut at, mut after) = (0, After::Stay);
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            let replies = &mut caller.replies;
            if state.is_replicating() && replies.slots.is_empty() {
                replies.output.extend_from_slice(rest);
                return Ok((data.len(), after));
            }
            if let Some(Expect::Replies(left)) = replies.slots.front_of(from)
                && self.scanner.is_between()
                && !state.listens()
            {
                // The last one is left for below: with it the slot ends.
                let (count, taken) = scan::flat_values(rest, *left - 1);
                replies.output.extend_from_slice(rest.get(..taken).unwrap_or_default());
                *left -= count;
                at += taken;
                if count > 0 {
                    continue;
                }
            }
            let is_idle = replies.slots.is_empty();
            let collects = match replies.slots.front_of(from) {
                Some(Expect::Change(change)) => caller.client.was_told_id && matches!(**change, Change::Hello(_)),
                Some(expect) => {
                    matches!(expect, Expect::Merge(_) | Expect::Ids(_) | Expect::RefusedInMulti(_) | Expect::HeldMulti)
                }
                None if is_idle => false,
                None => return Ok((at, after)),
            };
            let (taken, complete) = self.scanner.scan(rest).map_err(|_| io::Error::other("malformed reply"))?;
            let piece = rest.get(..taken).unwrap_or_default();
            at += taken;
            if collects && self.scanner.kind() != b'>' {
                self.collected.extend_from_slice(piece);
            } else {
                replies.output.extend_from_slice(piece);
            }
            if complete {
                if self.take_value(state, from, caller)? == After::Close {
                    after = After::Close;
                }
            } else if is_idle {
                // A reply that is made here must not come in its middle.
                replies.slots.push_upstream(from, Expect::Rest);
            } else if self.collected.len() > MAX_COLLECTED_BYTES {
                replies.output.extend_from_slice(&std::mem::take(&mut self.collected));
                replies.slots.replace_front_of(from, Expect::Replies(1));
            }
        }
        Ok((at, after))
    }

    /// A value from Redis is complete.
    fn take_value(&mut self, state: &mut State, from: ConnectionId, caller: &mut Caller) -> io::Result<After> {
        let (slots, protocol) = (&mut caller.replies.slots, caller.client.protocol);
        let front = slots.front_of(from);
        let confirms = matches!(front, Some(Expect::Confirmations(_) | Expect::ConfirmationsOfAll(_)));
        let in_pubsub = confirms || self.scanner.kind() == b'>' || state.is_subscriber(protocol);
        let all = match front {
            Some(Expect::ConfirmationsOfAll(kind)) => Some(state.subscribed(*kind).max(1).unsigned_abs()),
            _ => None,
        };
        let mut after = After::Stay;
        match slots.front_of(from) {
            Some(Expect::Rest) => drop(slots.pop_of(from)),
            front if in_pubsub && state.take_confirmation(&self.scanner) => {
                match (front, all) {
                    (_, Some(all)) => slots.replace_front_of(from, Expect::Confirmations(all - 1)),
                    (Some(Expect::Confirmations(left)), None) => *left -= 1,
                    _ => {}
                }
                if let Some(Expect::Confirmations(0)) = slots.front_of(from) {
                    slots.pop_of(from);
                }
            }
            _ if state.is_out_of_band(&self.scanner, protocol) => {
                // It came before the reply that is collected, and is no part of it.
                caller.replies.output.extend_from_slice(&std::mem::take(&mut self.collected));
            }
            Some(Expect::Replies(left)) if *left > 1 => *left -= 1,
            _ => after = self.finish_slot(state, from, caller)?,
        }
        caller.replies.drain();
        Ok(after)
    }

    /// The value is the reply that was due next.
    fn finish_slot(&mut self, state: &mut State, from: ConnectionId, caller: &mut Caller) -> io::Result<After> {
        let is_error = self.scanner.kind() == b'-';
        let is_queued = self.scanner.label() == b"QUEUED";
        let Some(due) = caller.replies.slots.pop_of(from) else { return Ok(After::Stay) };
        let collected = std::mem::take(&mut self.collected);
        let Caller { worker, client, replies, .. } = caller;
        let output = &mut replies.output;
        match due {
            Expect::Change(change) => {
                // Only a HELLO's is collected, of a client that was told its id.
                output.extend_from_slice(&ids::of_hello(&collected, client.id));
                self.judge_login(&change, is_error, is_queued, caller);
                match is_queued {
                    true => state.queue(*change),
                    false if is_error => {}
                    false => state.apply(*change, &mut caller.client),
                }
            }
            Expect::Multi if self.scanner.label() == b"OK" => state.begin_multi(),
            Expect::HeldMulti => {
                state.begin_multi();
                if is_error {
                    // The client was told that it is in a transaction: what it sent as part of one must not be taken
                    // for anything else.
                    output.extend_from_slice(&collected);
                    return Err(io::Error::other("a transaction was refused that was told to have begun"));
                }
            }
            Expect::EndMulti => state.end_multi(self.scanner.kind() == b'*', client),
            Expect::RefusedInMulti(name) => reply::error(output, &refused_in_multi(name)),
            Expect::Merge(merge) => {
                let section = match merge {
                    Merge::Info => info::render(&worker.shared, [&b"tollgate"[..]].into_iter()),
                    _ => String::new(),
                };
                merge.write(output, &collected, &section, client.protocol);
            }
            Expect::Ids(ids) => {
                let (told, after) = ids.answer(&collected, client, &worker.shared.client_list);
                output.extend_from_slice(&told);
                if after == After::Close {
                    replies.slots.cut_at(from);
                }
                return Ok(after);
            }
            _ => {}
        }
        Ok(After::Stay)
    }

    /// What Redis has answered to a command that says who the client is.
    fn judge_login(&self, change: &Change, is_error: bool, is_queued: bool, caller: &mut Caller) {
        let Some(login) = change.login() else { return };
        let auth = &caller.worker.shared.auth;
        if self.scanner.label().starts_with(b"WRONGPASS") {
            auth.refused(login.user(), login.password());
            caller.client.fail_login();
        } else if !is_error && !is_queued {
            // In a transaction it is only queued: nobody has looked at the password yet.
            caller.client.permissions = auth.accepted(login.user(), login.password());
        }
    }
}

/// What is said of one of Tollgate's own commands in a transaction that is Redis's.
fn refused_in_multi(command: &OwnCommand) -> String {
    format!(
        "ERR '{}' cannot run inside MULTI with other commands: send it outside of the transaction, or in one that holds \
         RL commands alone",
        command.name
    )
}
