//! Replies that are not next in order, or not ready: what keeps a client's replies in the order of its requests.

use crate::limiter::mailbox::Answer;
use crate::resp::reply;
use bytes::{BufMut, BytesMut};
use std::collections::VecDeque;

/// A queue that has grown beyond this is given back once it is empty.
const KEPT_SLOTS: usize = 256;

/// One reply, or several ready ones in a row.
#[derive(Debug)]
enum Slot {
    /// Replies as bytes.
    Ready(BytesMut),
    /// The limiter has been asked.
    Deciding,
    /// The limiter has answered, but something before is outstanding.
    Answered(Answer),
}

/// The replies behind the first that is outstanding, in order.
#[derive(Debug, Default)]
pub struct Slots {
    queue: VecDeque<Slot>,
    /// Ticket of the front slot. Tickets count all slots that there ever were.
    first: u64,
}

impl Slots {
    /// Whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The ticket of the slot that is pushed next.
    pub fn next_ticket(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    /// Adds a reply that the limiter will give.
    pub fn push_deciding(&mut self) {
        self.queue.push_back(Slot::Deciding);
    }

    /// The buffer at the end, for a reply that is ready behind those that are not.
    pub fn ready(&mut self) -> &mut BytesMut {
        if !matches!(self.queue.back(), Some(Slot::Ready(_))) {
            self.queue.push_back(Slot::Ready(BytesMut::new()));
        }
        match self.queue.back_mut() {
            Some(Slot::Ready(bytes)) => bytes,
            _ => unreachable!("it was just made sure of"),
        }
    }

    /// The limiter's answer for `ticket` has come.
    pub fn answer(&mut self, ticket: u64, answer: Answer) {
        let slot = usize::try_from(ticket - self.first).ok().and_then(|index| self.queue.get_mut(index));
        debug_assert!(matches!(slot, Some(Slot::Deciding)), "an answer that nobody waits for");
        if let Some(slot) = slot {
            *slot = Slot::Answered(answer);
        }
    }

    /// Moves what is ready and next in order to `output`.
    pub fn drain(&mut self, output: &mut BytesMut) {
        while let Some(slot) = self.queue.front() {
            match slot {
                Slot::Ready(bytes) => output.put_slice(bytes),
                Slot::Answered(answer) => write_answer(output, answer),
                Slot::Deciding => return,
            }
            self.queue.pop_front();
            self.first += 1;
        }
        if self.queue.capacity() > KEPT_SLOTS {
            self.queue = VecDeque::new();
        }
    }
}

/// Writes the limiter's answer as a reply.
pub fn write_answer(output: &mut BytesMut, answer: &Answer) {
    match answer {
        Answer::Decision(decision) => reply::decision(output, decision),
        Answer::Reset(count) => reply::integer(output, i64::try_from(*count).unwrap_or(i64::MAX)),
        Answer::Refused(refusal) => reply::error(output, &refusal.to_string()),
    }
}
