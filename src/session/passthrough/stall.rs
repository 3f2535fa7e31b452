//! Notices a connection to Redis on which nothing comes any more: what it owes is then answered without, so that what
//! stands behind is answered too.
//!
//! Only with the breaker open, which tells a Redis that hangs from one that takes its time; and not while the client
//! waits for what takes its time by nature (BLPOP).

use crate::clock::now_us;
use crate::limit::{Ask, Form, Limit, Verb, Window};
use crate::limiter::node::Node;
use crate::session::caller::Caller;
use crate::session::expect::ConnectionId;
use std::pin::Pin;
use std::task::Context;
use tokio::time::{Instant, Sleep, sleep};
use tracing::debug;

/// Looks in the time after which a connection counts as stalled.
const LOOKS: u32 = 4;

/// One connection's watch. Looks while something is due from Redis, and is then not touched by each reply.
#[derive(Debug, Default)]
pub struct Stall {
    alarm: Option<Pin<Box<Sleep>>>,
    /// How many bytes had come at the last look.
    seen: u64,
    /// Since how many looks nothing has.
    looks: u32,
}

impl Stall {
    /// Whether a node has stopped answering on a connection to it on which so many bytes have come. To be asked while
    /// something is due from there.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        caller: &Caller,
        node: &Node,
        connection: ConnectionId,
        received: u64,
    ) -> bool {
        let look = caller.worker.shared.config.upstream.stall / LOOKS;
        let alarm = self.alarm.get_or_insert_with(|| {
            self.seen = received;
            Box::pin(sleep(look))
        });
        if alarm.as_mut().poll(cx).is_pending() {
            return false;
        }
        alarm.as_mut().reset(Instant::now() + look);
        // Registers the alarm.
        let _ = alarm.as_mut().poll(cx);
        let is_silent = self.seen == received && caller.replies.slots.await_from(connection);
        self.looks = if is_silent { self.looks + 1 } else { 0 };
        self.seen = received;
        if self.looks > 0 && node.health.is_up() {
            ask_whether_redis_answers(caller);
        }
        if self.looks < LOOKS || node.health.is_up() {
            return false;
        }
        debug!(client = caller.client.id, "redis has stopped answering");
        true
    }
}

/// Where nobody asks for checks, nobody learns that Redis does not answer.
fn ask_whether_redis_answers(caller: &Caller) {
    let limits = [Limit::log(1, Window::MIN)];
    let ask = Ask { key: b"", limits: &limits, cost: 1 };
    // No slot has this ticket: only whether there is an answer counts.
    caller.worker.limiter.ask(Verb::Peek, (&ask, Form::Short), now_us(), &caller.mailbox, u64::MAX);
}
