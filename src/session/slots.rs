//! Replies that are not next in order, or not ready: what keeps a client's replies in the order of its requests.

use super::expect::{ConnectionId, Expect};
use crate::limit::{PolicyName, Standing};
use crate::limiter::mailbox::Answer;
use crate::resp::breakdown;
use crate::resp::reply::{self, Protocol};
use bytes::{BufMut, BytesMut};
use std::collections::VecDeque;

/// A queue that has grown beyond this is given back once it is empty.
const KEPT_SLOTS: usize = 256;

/// One reply, or several of a kind in a row.
#[derive(Debug)]
enum Slot {
    /// Replies as bytes.
    Ready(BytesMut),
    /// The limiter has been asked, by a client of this protocol then.
    Deciding(Protocol),
    /// The limiter has been asked, but the client wants no reply.
    Muted,
    /// The limiter has answered, but something before is outstanding.
    Answered(Answer, Protocol),
    /// Due from a connection of the client's to Redis.
    Upstream(ConnectionId, Expect),
}

impl Slot {
    fn ready_bytes(&self) -> usize {
        match self {
            Self::Ready(bytes) => bytes.len(),
            Self::Answered(answer, _) => answer.heap_bytes(),
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
    barriers: usize,
    /// The ticket behind the last that is due from Redis for a command that the limiter must not overtake.
    behind_ordered: u64,
    /// How many the limiter has yet to answer.
    deciding: usize,
    /// Bytes that are ready in all slots but the last, which may still grow: replies, and answers yet to be written.
    ready_bytes: usize,
}

impl Slots {
    /// Whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether anything is due from Redis.
    pub fn await_upstream(&self) -> bool {
        self.upstream > 0
    }

    /// Whether anything is due from this connection. Unlike the others of its kind, it looks through the queue.
    pub fn await_from(&self, connection: ConnectionId) -> bool {
        self.upstream > 0
            && self.queue.iter().any(|slot| matches!(slot, Slot::Upstream(from, _) if *from == connection))
    }

    /// Whether anything is due from there that the limiter must not be asked before.
    pub fn await_ordered(&self) -> bool {
        self.upstream > 0 && self.behind_ordered > self.first
    }

    /// Whether a reply is due that decides how the commands behind it are to be taken.
    pub fn await_barrier(&self) -> bool {
        self.barriers > 0
    }

    /// Whether the limiter has yet to answer something.
    pub fn await_limiter(&self) -> bool {
        self.deciding > 0
    }

    /// Whether the limiter has yet to answer this.
    pub fn await_answer(&self, ticket: u64) -> bool {
        let index = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        matches!(index.and_then(|index| self.queue.get(index)), Some(Slot::Deciding(_) | Slot::Muted))
    }

    /// Whether all wait for a command that takes its time by nature: BLPOP and its like.
    pub fn is_blocked(&self) -> bool {
        matches!(self.queue.front(), Some(Slot::Upstream(_, Expect::Blocking)))
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
    pub fn push_deciding(&mut self, muted: bool, protocol: Protocol) {
        self.deciding += 1;
        self.push(if muted { Slot::Muted } else { Slot::Deciding(protocol) });
    }

    /// Adds what is due from a connection to Redis.
    pub fn push_upstream(&mut self, from: ConnectionId, expect: Expect) {
        self.push_independent(from, expect);
        self.behind_ordered = self.next_ticket();
    }

    /// The same, for what the limiter may overtake.
    pub fn push_independent(&mut self, from: ConnectionId, expect: Expect) {
        if let Some(Slot::Upstream(last, Expect::Replies(count))) = self.queue.back_mut()
            && let Expect::Replies(more) = expect
            && *last == from
        {
            *count += more;
            return;
        }
        self.upstream += 1;
        self.barriers += usize::from(expect.is_barrier());
        self.push(Slot::Upstream(from, expect));
    }

    /// What is due next, if that is due from this connection.
    pub fn front_of(&mut self, connection: ConnectionId) -> Option<&mut Expect> {
        match self.queue.front_mut() {
            Some(Slot::Upstream(from, expect)) if *from == connection => Some(expect),
            _ => None,
        }
    }

    /// Takes what [`Slots::front_of`] showed: it has come.
    pub fn pop_of(&mut self, connection: ConnectionId) -> Option<Expect> {
        self.front_of(connection)?;
        let Some(Slot::Upstream(_, expect)) = self.pop() else { return None };
        self.upstream -= 1;
        self.barriers -= usize::from(expect.is_barrier());
        Some(expect)
    }

    /// Puts something else in the place of what [`Slots::front_of`] showed.
    pub fn replace_front_of(&mut self, connection: ConnectionId, expect: Expect) {
        if let Some(front) = self.front_of(connection) {
            let (was, is) = (front.is_barrier(), expect.is_barrier());
            *front = expect;
            self.barriers = self.barriers + usize::from(is) - usize::from(was);
        }
    }

    /// Drops what is due from this connection, and all behind it, which would be out of order.
    pub fn cut_at(&mut self, connection: ConnectionId) {
        let first = self.queue.iter().position(|slot| matches!(slot, Slot::Upstream(from, _) if *from == connection));
        self.queue.truncate(first.unwrap_or(self.queue.len()));
        self.count();
    }

    /// Drops all that is due, and what is ready behind it.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.count();
    }

    /// Answers what is due from this connection with an error.
    pub fn fail(&mut self, connection: ConnectionId, text: &str) {
        for slot in &mut self.queue {
            if let Slot::Upstream(from, expect) = slot
                && *from == connection
            {
                let mut replies = BytesMut::new();
                let count = if let Expect::Replies(count) = expect { *count } else { 1 };
                (0..count).for_each(|_| reply::error(&mut replies, text));
                *slot = Slot::Ready(replies);
            }
        }
        self.count();
    }

    /// Counts anew what the queue holds.
    fn count(&mut self) {
        let queue = &self.queue;
        let due = || queue.iter().filter_map(|slot| if let Slot::Upstream(_, due) = slot { Some(due) } else { None });
        self.upstream = due().count();
        self.barriers = due().filter(|expect| expect.is_barrier()).count();
        self.deciding = self.queue.iter().filter(|slot| matches!(slot, Slot::Deciding(_) | Slot::Muted)).count();
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
        let Some(slot) = index.and_then(|index| self.queue.get_mut(index)) else { return };
        *slot = match slot {
            Slot::Deciding(protocol) => Slot::Answered(answer, *protocol),
            Slot::Muted => Slot::Ready(BytesMut::new()),
            _ => return,
        };
        let bytes = slot.ready_bytes();
        self.deciding -= 1;
        if ticket + 1 < self.next_ticket() {
            self.ready_bytes += bytes;
        }
    }

    /// Moves what is ready and next in order to `output`.
    pub fn drain(&mut self, output: &mut BytesMut) {
        while let Some(slot) = self.queue.front() {
            match slot {
                Slot::Ready(bytes) => output.put_slice(bytes),
                Slot::Answered(answer, protocol) => write_answer(output, answer, *protocol),
                Slot::Deciding(_) | Slot::Muted | Slot::Upstream(..) => return,
            }
            self.pop();
        }
        if self.queue.capacity() > KEPT_SLOTS {
            self.queue = VecDeque::new();
        }
    }
}

/// Writes the limiter's answer as a reply.
pub fn write_answer(output: &mut BytesMut, answer: &Answer, protocol: Protocol) {
    match answer {
        Answer::Verdict(verdict) => reply::verdict(output, verdict),
        Answer::Breakdown(breakdown) => breakdown::write(output, breakdown, protocol),
        Answer::Throttle(decision) => reply::throttle(output, decision),
        Answer::Reset(count) => reply::integer(output, i64::try_from(*count).unwrap_or(i64::MAX)),
        Answer::Standings(standings, lists_entries) => write_standings(output, standings, *lists_entries, protocol),
        Answer::Done => reply::status(output, "OK"),
        Answer::Removed(any) => reply::integer(output, i64::from(*any)),
        Answer::Failed(why) => reply::error(output, why),
        Answer::Refused(refusal) => reply::error(output, &refusal.to_string()),
    }
}

/// A map for each of a key's counters in which something counts.
fn write_standings(output: &mut BytesMut, standings: &[Standing], lists_entries: bool, protocol: Protocol) {
    let integer = |output: &mut BytesMut, value: u64| reply::integer(output, i64::try_from(value).unwrap_or(i64::MAX));
    reply::array(output, standings.len());
    for standing in standings {
        reply::map(output, if lists_entries { 10 } else { 9 }, protocol);
        reply::bulk(output, b"policy");
        reply::bulk(output, standing.counter.policy.map_or("", PolicyName::as_str).as_bytes());
        reply::bulk(output, b"algorithm");
        reply::bulk(output, standing.counter.rule.algorithm().as_bytes());
        for (name, value) in [
            ("window_ms", standing.counter.rule.window().ms()),
            ("used", standing.used),
            ("entries", standing.entries),
            ("oldest_ms", standing.oldest_us / 1000),
            ("newest_ms", standing.newest_us / 1000),
            ("next_ms", standing.next_ms()),
            ("free_ms", standing.free_ms()),
        ] {
            reply::bulk(output, name.as_bytes());
            integer(output, value);
        }
        if lists_entries {
            reply::bulk(output, b"newest");
            reply::array(output, standing.newest.len());
            for (made_us, weight) in &standing.newest {
                reply::array(output, 2);
                integer(output, made_us / 1000);
                integer(output, *weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Counter, Rule, Window};

    /// Looks at keys, each of a thousand entries, whose answers wait for one before them, were taken for nothing.
    #[test]
    fn answers_that_wait_are_counted() {
        const ENTRIES: usize = 1000;
        let counter = Counter { policy: None, rule: Rule::Log(Window::MIN) };
        let newest = vec![(0, 1); ENTRIES];
        let (used, entries) = (ENTRIES as u64, ENTRIES as u64);
        let standing = Standing { counter, now_us: 0, used, entries, oldest_us: 0, newest_us: 0, newest };
        let answer = Answer::Standings([standing].into(), true);
        let mut slots = Slots::default();
        (0..4).for_each(|_| slots.push_deciding(false, Protocol::Resp2));
        let before = slots.waiting_bytes();
        for (count, ticket) in (1..).zip([3, 1, 2]) {
            slots.answer(ticket, answer.clone());
            assert!(slots.waiting_bytes() >= before + count * 16 * ENTRIES, "{count}");
        }
        slots.answer(0, Answer::Reset(1));
        slots.drain(&mut BytesMut::new());
        assert_eq!((slots.is_empty(), slots.ready_bytes), (true, 0));
    }
}
