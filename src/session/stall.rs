//! Notices a connection to Redis on which nothing comes any more: what it owes is then answered without, so that what
//! stands behind is answered too.
//!
//! Only with the breaker open, which tells a Redis that hangs from one that takes its time; and not while the client
//! waits for what takes its time by nature (BLPOP).

use super::Session;
use super::link::Link;
use crate::clock::now_us;
use crate::config::WhenDown;
use crate::limit::{Ask, Limit, Verb, Window};
use std::pin::Pin;
use std::task::Context;
use tokio::time::{Instant, Sleep, sleep};
use tracing::debug;

/// Looks in the time after which a connection counts as stalled.
const LOOKS: u32 = 4;

/// What a command is answered that Redis has not answered for too long. It is not known what became of it.
const STALLED: &str = "LOADING Redis does not answer: it is not known whether this was carried out";

/// One connection's watch. Set while something is due from Redis, and then not touched by each reply.
#[derive(Debug)]
pub struct Stall {
    alarm: Pin<Box<Sleep>>,
    /// How many bytes had come at the last look.
    seen: u64,
    /// Since how many looks nothing has.
    looks: u32,
}

impl Session {
    /// Whether Redis has stopped answering on the client's connection, which was dealt with.
    pub(super) fn poll_stall(&mut self, cx: &mut Context<'_>) -> bool {
        let Link::Open(upstream) = &self.link else { return false };
        if !self.slots.await_upstream() || self.slots.is_blocked() || !self.reads_replies() {
            return false;
        }
        let look = self.worker.shared.config.upstream.stall / LOOKS;
        let seen = upstream.received;
        let stall = self.stall.get_or_insert_with(|| Stall { alarm: Box::pin(sleep(look)), seen, looks: 0 });
        if stall.alarm.as_mut().poll(cx).is_pending() {
            return false;
        }
        stall.looks = if stall.seen == seen { stall.looks + 1 } else { 0 };
        stall.seen = seen;
        stall.alarm.as_mut().reset(Instant::now() + look);
        // Registers the alarm.
        let _ = stall.alarm.as_mut().poll(cx);
        let is_late = stall.looks >= LOOKS;
        let worker = self.worker.clone();
        let Some(node) = worker.shared.backend.upstream() else { return false };
        if self.stall.as_ref().is_some_and(|stall| stall.looks > 0) && node.health.is_up() {
            self.ask_whether_redis_answers();
        }
        if !is_late || node.health.is_up() {
            return false;
        }
        debug!(client = self.client.id, "redis has stopped answering");
        self.give_up_upstream();
        true
    }

    /// Where nobody asks for checks, nobody learns that Redis does not answer.
    fn ask_whether_redis_answers(&self) {
        let limits = [Limit::log(1, Window::MIN)];
        let check = Ask { key: b"", limits: &limits, cost: 1 };
        // No slot has this ticket: only whether there is an answer counts.
        self.worker.limiter.ask(Verb::Peek, &check, now_us(), &self.mailbox, u64::MAX);
    }

    fn give_up_upstream(&mut self) {
        let Link::Open(upstream) = &self.link else { return };
        let can_go_on = upstream.scanner.is_between() && !upstream.has_state() && !self.slots.await_turning_point();
        if can_go_on && self.worker.shared.config.upstream.when_down == WhenDown::Loading {
            self.link = Link::Absent;
            self.note_said();
            self.slots.fail_upstream(STALLED);
        } else {
            self.lose_upstream();
        }
    }
}
