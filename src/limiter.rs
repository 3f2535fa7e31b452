//! Whether a request may pass, and who says so: the order in which an answer is looked for stands in [`Limiter::ask`].
//!
//! ```text
//! ask ──► never fits? ──► embedded? ──► too many windows? ──► node down? ──► denial known? ──► the node's queue
//!            denied        answered         refused            fallback         denied
//! ```
//! What has to be asked goes out together, as batches: whatever a worker's clients ask of a node while there is no room on
//! the way, or in one turn of the event loop. Jobs leave in the order in which they were asked, all of a node's on one
//! connection, so a client's pipelined questions are answered as if they had been asked one by one.
//!
//! ```text
//! Limiter ──► queue ──► pipeline ──► completion ──► mailbox      a worker's own; one for each node from the queue on
//!    │          │           │             │
//!    └──────────┴─ backend ─┴─ redis ─ node ─ health             what workers share
//! ```
//! Knows verdicts but no protocol.

pub(crate) mod backend;
pub(crate) mod breaker;
mod completion;
pub mod deny_cache;
pub(crate) mod diagnosis;
mod facts;
pub mod fallback;
pub(crate) mod health;
mod in_flight;
mod job;
pub(crate) mod mailbox;
mod needs;
pub(crate) mod node;
mod pipeline;
pub mod preflight;
mod probe;
mod queue;
pub(crate) mod redis;
mod resets;
mod write_back;

use crate::limit::{Ask, Verb};
use crate::stats::Stats;
use crate::store::reset::Reset;
use backend::{Backend, ask_embedded};
use job::Waiter;
use mailbox::{Answer, Mailbox, Refusal};
use queue::Queue;
use redis::Redis;
use std::rc::Rc;
use std::sync::Arc;

/// One worker's way to where limits are counted.
pub(crate) struct Limiter {
    backend: Arc<Backend>,
    stats: Arc<Stats>,
    /// One for each node, in their order.
    queues: Vec<Rc<Queue>>,
}

impl Limiter {
    /// A limiter for the current thread. It has Redis asked once it is started.
    pub fn new(backend: Arc<Backend>, stats: Arc<Stats>) -> Self {
        let nodes = backend.redis().map(Redis::nodes).unwrap_or_default();
        let queues = nodes.iter().map(|node| Rc::new(Queue::new(node.clone(), stats.clone()))).collect();
        Self { backend, stats, queues }
    }

    /// Sends what is asked and keeps a connection to each node, in tasks of the current thread.
    pub fn start(&self) {
        for queue in &self.queues {
            tokio::task::spawn_local(pipeline::run(self.backend.clone(), queue.clone()));
        }
    }

    /// Asks whether what is asked may pass. What can be known here is answered at once; else the answer comes into the
    /// mailbox, under `ticket`, within the deadline.
    pub fn ask(&self, verb: Verb, ask: &Ask<'_>, now_us: u64, mailbox: &Rc<Mailbox>, ticket: u64) -> Option<Answer> {
        let answer = match (ask.never_fits(), &*self.backend) {
            (Some(verdict), _) => Answer::Verdict(verdict),
            (None, Backend::Embedded(embedded)) => ask_embedded(embedded, verb, ask, now_us),
            (None, Backend::Redis(redis)) => self.ask_redis(redis, verb, ask, now_us, mailbox, ticket)?,
        };
        if verb == Verb::Check {
            answer.count(&self.stats);
        }
        Some(answer)
    }

    fn ask_redis(
        &self,
        redis: &Redis,
        verb: Verb,
        ask: &Ask<'_>,
        now_us: u64,
        mailbox: &Rc<Mailbox>,
        ticket: u64,
    ) -> Option<Answer> {
        let Some(queue) = self.node_of(ask.key) else { return Some(Answer::Refused(Refusal::Unavailable)) };
        let node = &*queue.node;
        if verb == Verb::Check && node.registry.refuses(ask) {
            return Some(Answer::Refused(Refusal::Windows(node.registry.max())));
        }
        if !node.health.is_up() || queue.is_full() {
            self.stats.by_fallback.add(1);
            let answer = redis.fall_back(verb, ask, now_us);
            if verb == Verb::Check && answer.is_admission() {
                node.ledger.admitted(ask, 1, now_us);
            }
            return Some(answer);
        }
        if let Some(verdict) = redis.deny_cache.lookup(ask, now_us) {
            self.stats.by_deny_cache.add(1);
            return Some(Answer::Verdict(verdict));
        }
        queue.ask(&redis.store, verb, ask, Waiter::new(mailbox, ticket, now_us + redis.timeout_us));
        None
    }

    /// Forgets the keys, of which there is one at least, and which are of one node. The answer comes as that of [`Limiter::ask`].
    pub fn reset(&self, keys: &[&[u8]], now_us: u64, mailbox: &Rc<Mailbox>, ticket: u64) -> Option<Answer> {
        match &*self.backend {
            Backend::Embedded(embedded) => {
                let had_state = keys.iter().filter(|key| embedded.reset(key, now_us)).count();
                Some(Answer::Reset(had_state as u64))
            }
            Backend::Redis(redis) => {
                let Some(queue) = keys.first().and_then(|key| self.node_of(key)) else {
                    return Some(Answer::Refused(Refusal::Unavailable));
                };
                if !queue.node.health.is_up() {
                    return Some(Answer::Refused(queue.node.health.refusal()));
                }
                let reset = Reset::new(keys.iter().map(|key| key.to_vec()).collect());
                queue.reset(reset, Waiter::new(mailbox, ticket, now_us + redis.timeout_us));
                None
            }
        }
    }

    /// The queue before the node that counts for a key. All keys are on one node today, which is assumed here alone, and by
    /// a reset of several keys.
    fn node_of(&self, _key: &[u8]) -> Option<&Queue> {
        self.queues.first().map(Rc::as_ref)
    }
}
