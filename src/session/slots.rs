//! Replies that are not next in order, or not ready: what keeps a client's replies in the order of its requests.

use super::expect::Expect;
use crate::limiter::mailbox::Answer;
use crate::resp::reply;
use bytes::{BufMut, BytesMut};
use std::collections::VecDeque;

/// A queue that has grown beyond this is given back once it is empty.
const KEPT_SLOTS: usize = 256;

/// One reply, or several of a kind in a row.
#[derive(Debug)]
enum Slot {
    /// Replies as bytes.
    Ready(BytesMut),
    /// The limiter has been asked.
    Deciding,
    /// The limiter has been asked, but the client wants no reply.
    Muted,
    /// The limiter has answered, but something before is outstanding.
    Answered(Answer),
    /// Due from the client's connection to Redis.
    Upstream(Expect),
}

impl Slot {
    fn ready_bytes(&self) -> usize {
        match self {
            Self::Ready(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// The replies behind the first that is outstanding, in order.
#[derive(Debug, Default)]
pub struct Slots {
    queue: VecDeque<Slot>,
    /// Ticket of the front slot. Tickets count all slots that there ever were.
    first: u64,
    /// How many are due from Redis, and how many of these decide how later commands are taken.
    upstream: usize,
    turning_points: usize,
    /// The ticket behind the last that is due from Redis for a command that the limiter must not overtake.
    behind_ordered: u64,
    /// How many the limiter has yet to answer.
    deciding: usize,
    /// Bytes that are ready in all slots but the last, which may still grow.
    ready_bytes: usize,
}

impl Slots {
    /// Whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether anything is due from the client's connection to Redis.
    pub fn await_upstream(&self) -> bool {
        self.upstream > 0
    }

    /// Whether anything is due from there that the limiter must not be asked before.
    pub fn await_ordered(&self) -> bool {
        self.upstream > 0 && self.behind_ordered > self.first
    }

    /// Whether a reply is due that decides how the commands behind it are to be taken.
    pub fn await_turning_point(&self) -> bool {
        self.turning_points > 0
    }

    /// Whether the limiter has yet to answer something.
    pub fn await_limiter(&self) -> bool {
        self.deciding > 0
    }

    /// Whether the limiter has yet to answer this.
    pub fn await_answer(&self, ticket: u64) -> bool {
        let index = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        matches!(index.and_then(|index| self.queue.get(index)), Some(Slot::Deciding | Slot::Muted))
    }

    /// Whether all wait for a command that takes its time by nature: BLPOP and its like.
    pub fn is_blocked(&self) -> bool {
        matches!(self.queue.front(), Some(Slot::Upstream(Expect::Blocking)))
    }

    /// How many the limiter has yet to answer.
    pub fn undecided(&self) -> usize {
        self.deciding
    }

    /// How many bytes of memory the replies take that wait for one before them.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Slot>() + self.ready_bytes + self.queue.back().map_or(0, Slot::ready_bytes)
    }

    fn push(&mut self, slot: Slot) {
        self.ready_bytes += self.queue.back().map_or(0, Slot::ready_bytes);
        self.queue.push_back(slot);
    }

    fn pop(&mut self) -> Option<Slot> {
        let slot = self.queue.pop_front()?;
        self.first += 1;
        if !self.queue.is_empty() {
            self.ready_bytes -= slot.ready_bytes();
        }
        Some(slot)
    }

    /// The ticket of the slot that is pushed next.
    pub fn next_ticket(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    /// Adds a reply that the limiter will give; if `muted` it is not passed on.
    pub fn push_deciding(&mut self, muted: bool) {
        self.deciding += 1;
        self.push(if muted { Slot::Muted } else { Slot::Deciding });
    }

    /// Adds what is due from the client's connection to Redis.
    pub fn push_upstream(&mut self, expect: Expect) {
        self.push_independent(expect);
        self.behind_ordered = self.next_ticket();
    }

    /// The same, for what the limiter may overtake.
    pub fn push_independent(&mut self, expect: Expect) {
        if let (Some(Slot::Upstream(Expect::Replies(count))), Expect::Replies(more)) = (self.queue.back_mut(), &expect)
        {
            *count += more;
            return;
        }
        self.upstream += 1;
        self.turning_points += usize::from(expect.is_turning_point());
        self.push(Slot::Upstream(expect));
    }

    /// What is due next, if that is due from the client's connection to Redis.
    pub fn front_upstream(&mut self) -> Option<&mut Expect> {
        match self.queue.front_mut() {
            Some(Slot::Upstream(expect)) => Some(expect),
            _ => None,
        }
    }

    /// Takes what [`Slots::front_upstream`] showed: it has come.
    pub fn pop_upstream(&mut self) -> Option<Expect> {
        self.front_upstream()?;
        let Some(Slot::Upstream(expect)) = self.pop() else { return None };
        self.upstream -= 1;
        self.turning_points -= usize::from(expect.is_turning_point());
        Some(expect)
    }

    /// Puts something else in the place of what [`Slots::front_upstream`] showed.
    pub fn replace_front(&mut self, expect: Expect) {
        if let Some(front) = self.front_upstream() {
            let (was, is) = (front.is_turning_point(), expect.is_turning_point());
            *front = expect;
            self.turning_points = self.turning_points + usize::from(is) - usize::from(was);
        }
    }

    /// Drops what is due from the client's connection to Redis, and all behind it, which would be out of order.
    pub fn cut_upstream(&mut self) {
        let first = self.queue.iter().position(|slot| matches!(slot, Slot::Upstream(_)));
        self.queue.truncate(first.unwrap_or(self.queue.len()));
        self.count();
    }

    /// Answers what is due from the client's connection to Redis with an error.
    pub fn fail_upstream(&mut self, text: &str) {
        for slot in &mut self.queue {
            if let Slot::Upstream(expect) = slot {
                let mut replies = BytesMut::new();
                let count = if let Expect::Replies(count) = expect { *count } else { 1 };
                (0..count).for_each(|_| reply::error(&mut replies, text));
                *slot = Slot::Ready(replies);
            }
        }
        self.count();
    }

    /// Counts anew what the queue holds, none of which is due from Redis.
    fn count(&mut self) {
        (self.upstream, self.turning_points) = (0, 0);
        self.deciding = self.queue.iter().filter(|slot| matches!(slot, Slot::Deciding | Slot::Muted)).count();
        self.ready_bytes = self.queue.iter().rev().skip(1).map(Slot::ready_bytes).sum();
    }

    /// The buffer at the end, for a reply that is ready behind those that are not.
    pub fn ready(&mut self) -> &mut BytesMut {
        if !matches!(self.queue.back(), Some(Slot::Ready(_))) {
            self.push(Slot::Ready(BytesMut::new()));
        }
        match self.queue.back_mut() {
            Some(Slot::Ready(bytes)) => bytes,
            _ => unreachable!("it was just made sure of"),
        }
    }

    /// The limiter's answer for `ticket` has come. It may be one that nobody waits for any more.
    pub fn answer(&mut self, ticket: u64, answer: Answer) {
        let index = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.queue.get_mut(index)) {
            Some(slot @ Slot::Deciding) => *slot = Slot::Answered(answer),
            Some(slot @ Slot::Muted) => *slot = Slot::Ready(BytesMut::new()),
            _ => return,
        }
        self.deciding -= 1;
    }

    /// Moves what is ready and next in order to `output`.
    pub fn drain(&mut self, output: &mut BytesMut) {
        while let Some(slot) = self.queue.front() {
            match slot {
                Slot::Ready(bytes) => output.put_slice(bytes),
                Slot::Answered(answer) => write_answer(output, answer),
                Slot::Deciding | Slot::Muted | Slot::Upstream(_) => return,
            }
            self.pop();
        }
        if self.queue.capacity() > KEPT_SLOTS {
            self.queue = VecDeque::new();
        }
    }
}

/// Writes the limiter's answer as a reply.
pub fn write_answer(output: &mut BytesMut, answer: &Answer) {
    match answer {
        Answer::Verdict(verdict) => reply::verdict(output, verdict),
        Answer::Reset(count) => reply::integer(output, i64::try_from(*count).unwrap_or(i64::MAX)),
        Answer::Refused(refusal) => reply::error(output, &refusal.to_string()),
    }
}
