//! Whether a request may pass, and who says so: the order in which an answer is looked for stands in [`Limiter::ask`].
//!
//! ```text
//! ask ──► never fits? ──► embedded? ──► too many windows? ──► a share? ──► node down? ──► denial known? ──► the node's queue
//!            denied        answered         refused          admitted       fallback         denied
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
pub mod decided;
pub mod deny_cache;
pub(crate) mod diagnosis;
mod discovery;
mod facts;
pub mod fallback;
mod grants;
pub(crate) mod health;
mod in_flight;
mod job;
pub(crate) mod mailbox;
mod needs;
pub(crate) mod node;
pub(crate) mod nodes;
mod pipeline;
pub(crate) mod policies;
pub mod preflight;
mod probe;
mod queue;
pub(crate) mod redis;
mod replay;
mod reset_marks;
mod resets;
mod routes;
mod scatter;
mod shares;
mod throttle;
mod write_back;

use crate::clock;
use crate::limit::{Ask, Breakdown, Form, Verb, Verdict};
use crate::stats::{Source, Stats};
use crate::store::inspect::Inspect;
use crate::store::reset::Reset;
use crate::throttle::{Decision, Question};
use backend::{Backend, ask_embedded, throttle_embedded};
use grants::Way;
use job::{Waiter, Work};
use mailbox::{Answer, Mailbox, Refusal};
use node::Node;
use nodes::Kind;
use redis::Redis;
use routes::Routes;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::futures::OwnedNotified;

/// One worker's way to where limits are counted.
pub(crate) struct Limiter {
    backend: Arc<Backend>,
    stats: Arc<Stats>,
    /// To the nodes, if there are any.
    routes: Option<Rc<Routes>>,
}

impl Limiter {
    /// A limiter for the current thread. It has Redis asked once it is started.
    pub fn new(backend: Arc<Backend>, stats: Arc<Stats>) -> Self {
        let routes = Routes::new(backend.clone(), stats.clone()).map(Rc::new);
        Self { backend, stats, routes }
    }

    /// Sends what is asked and keeps a connection to each node, in tasks of the current thread.
    pub fn start(&self) {
        let Some(routes) = self.routes.clone() else { return };
        tokio::task::spawn_local(async move {
            let serve = |queue| drop(tokio::task::spawn_local(pipeline::run(routes.clone(), queue)));
            routes.follow(serve).await;
        });
    }

    /// Gives back what was asked for ahead, as nobody is served here any more.
    pub async fn end_shares(&self) {
        if let (Some(routes), Some(redis)) = (&self.routes, self.backend.redis()) {
            grants::end_all(routes, redis).await;
        }
    }

    /// The node that clients' own connections lead to, if there is one.
    pub fn upstream(&self) -> Option<Arc<Node>> {
        self.routes.as_ref()?.first().map(|queue| queue.node.clone())
    }

    /// How often that was another node than before.
    pub fn upstream_changes(&self) -> u64 {
        self.routes.as_ref().map_or(0, |routes| routes.first_changes())
    }

    /// The same, and what wakes who waits for the next time.
    pub fn upstream_changed(&self) -> (u64, OwnedNotified) {
        let changed = self.routes.as_ref().map_or_else(Arc::default, |routes| routes.first_changed());
        (self.upstream_changes(), changed.notified_owned())
    }

    /// Asks whether what is asked may pass. What can be known here is answered at once; else the answer comes into the
    /// mailbox, under `ticket`, within the deadline.
    pub fn ask(
        &self,
        verb: Verb,
        (ask, form): (&Ask<'_>, Form),
        now_us: u64,
        mailbox: &Rc<Mailbox>,
        ticket: u64,
    ) -> Option<Answer> {
        let (source, answer) = match (ask.never_fits(), form, &*self.backend) {
            (Some(verdict), Form::Short, _) => (Source::Request, Answer::Verdict(verdict)),
            (Some(verdict), Form::Full, _) => (Source::Request, Answer::in_full(Breakdown::of_unasked(ask, verdict))),
            (None, _, Backend::Embedded(embedded, _)) => {
                (Source::Store, ask_embedded(embedded, verb, ask, form, now_us))
            }
            (None, _, Backend::Redis(redis)) => self.ask_redis(redis, verb, (ask, form), now_us, mailbox, ticket)?,
        };
        if verb == Verb::Check {
            answer.count(source, ask, &self.stats, now_us);
        }
        Some(answer)
    }

    /// Notes that a check is answered by its policy, whatever is counted.
    pub fn answer_by_policy(&self, verb: Verb, (ask, form): (&Ask<'_>, Form), verdict: Verdict, now_us: u64) -> Answer {
        let answer = match form {
            Form::Short => Answer::Verdict(verdict),
            Form::Full => Answer::in_full(Breakdown::by_policy(ask, verdict)),
        };
        if verb == Verb::Check {
            answer.count(Source::Policy, ask, &self.stats, now_us);
        }
        answer
    }

    /// Asks whether what is asked of a throttle's key, by its name in Redis, may pass. The answer comes as that of
    /// [`Limiter::ask`].
    pub fn throttle(
        &self,
        name: &[u8],
        question: Question,
        now_us: u64,
        mailbox: &Rc<Mailbox>,
        ticket: u64,
    ) -> Option<Answer> {
        let (source, answer) = match &*self.backend {
            Backend::Embedded(_, throttles) => (Source::Store, throttle_embedded(throttles, name, &question, now_us)),
            Backend::Redis(redis) => {
                let route = self.routes.as_ref()?.queue_of_name(name);
                if let Some((queue, slot)) = route.filter(|(queue, _)| queue.takes_more()) {
                    let waiter = Waiter::new(mailbox, ticket, now_us + redis.timeout_us);
                    queue.throttle(name, question, slot, waiter);
                    return None;
                }
                self.stats.by_fallback.add(1);
                (Source::Fallback, throttle::fall_back(redis, &question, name, now_us))
            }
        };
        throttle::count(&question, name, &answer, source, &self.stats, now_us);
        Some(answer)
    }

    /// Notes that a throttle is answered by the mode of all limits, whatever is counted.
    pub fn throttle_by_policy(&self, name: &[u8], question: &Question, decision: Decision, now_us: u64) -> Answer {
        let answer = Answer::Throttle(decision);
        throttle::count(question, name, &answer, Source::Policy, &self.stats, now_us);
        answer
    }

    fn ask_redis(
        &self,
        redis: &Redis,
        verb: Verb,
        (ask, form): (&Ask<'_>, Form),
        now_us: u64,
        mailbox: &Rc<Mailbox>,
        ticket: u64,
    ) -> Option<(Source, Answer)> {
        if verb == Verb::Check && redis.registry.refuses(ask) {
            return Some((Source::Request, Answer::Refused(Refusal::Windows(redis.registry.max()))));
        }
        let routes = self.routes.as_ref()?;
        let route = routes.queue_of(ask.key);
        // In full is told what Redis says.
        let has_shares = form == Form::Short && ask.terms().prefetch.is_some();
        let way = route.as_ref().filter(|_| has_shares).map(|(queue, slot)| Way { routes, redis, queue, slot: *slot });
        if let Some(verdict) = way.as_ref().and_then(|way| way.admit(verb, ask, now_us)) {
            self.stats.by_share.add(1);
            return Some((Source::Share, Answer::Verdict(verdict)));
        }
        let Some((queue, slot)) = route.as_ref().filter(|(queue, _)| queue.takes_more()) else {
            self.stats.by_fallback.add(1);
            let answer = redis.fall_back(verb, ask, form, now_us);
            if verb == Verb::Check && answer.is_admission() {
                // Of a slot that nobody serves, any node's will do: whoever serves it later is handed what it holds.
                let queue = route.map(|(queue, _)| queue).or_else(|| routes.first());
                queue.iter().for_each(|queue| queue.node.ledger.admitted(ask, 1, now_us));
            }
            return Some((Source::Fallback, answer));
        };
        let denial = match form {
            Form::Short => redis.deny_cache.lookup(ask, now_us).map(Answer::Verdict),
            Form::Full => redis.deny_cache.lookup_in_full(ask, now_us).map(Answer::in_full),
        };
        if let Some(denial) = denial {
            self.stats.by_deny_cache.add(1);
            return Some((Source::DenyCache, denial));
        }
        let waiter = Waiter { form, ..Waiter::new(mailbox, ticket, now_us + redis.timeout_us) };
        queue.ask(&redis.store, verb, ask, *slot, waiter);
        if let (Some(way), Verb::Check) = (way, verb) {
            way.missed(ask, now_us);
        }
        None
    }

    /// Looks how all that is counted for a key stands, and lists so many entries of each window. The answer comes as that
    /// of [`Limiter::ask`].
    pub fn inspect(
        &self,
        key: &[u8],
        most_entries: usize,
        now_us: u64,
        mailbox: &Rc<Mailbox>,
        ticket: u64,
    ) -> Option<Answer> {
        let redis = match &*self.backend {
            Backend::Embedded(embedded, _) => {
                let unix_us = clock::unix_us();
                let standings = embedded.inspect(key, most_entries, now_us).into_iter();
                let standings = standings.map(|standing| standing.at(unix_us)).collect();
                return Some(Answer::Standings(standings, most_entries > 0));
            }
            Backend::Redis(redis) => redis,
        };
        let inspect = Inspect::new(key.to_vec(), most_entries);
        let waiter = Waiter::new(mailbox, ticket, now_us + redis.timeout_us);
        let routes = self.routes.clone()?;
        if routes.kind() == Kind::Cluster {
            tokio::task::spawn_local(scatter::inspect(routes, inspect, waiter));
            return None;
        }
        push(&routes, Work::Inspect(inspect), waiter)
    }

    /// Forgets the keys, of which there is one at least. The answer comes as that of [`Limiter::ask`].
    pub fn reset(&self, keys: &[&[u8]], now_us: u64, mailbox: &Rc<Mailbox>, ticket: u64) -> Option<Answer> {
        let redis = match &*self.backend {
            Backend::Embedded(embedded, _) => {
                let had_state = keys.iter().filter(|key| embedded.reset(key, now_us)).count();
                return Some(Answer::Reset(had_state as u64));
            }
            Backend::Redis(redis) => redis,
        };
        let keys: Vec<_> = keys.iter().map(|key| key.to_vec()).collect();
        let waiter = Waiter::new(mailbox, ticket, now_us + redis.timeout_us);
        let routes = self.routes.clone()?;
        if routes.kind() == Kind::Cluster {
            tokio::task::spawn_local(scatter::reset(routes, keys, waiter));
            return None;
        }
        push(&routes, Work::Reset(Reset::new(keys)), waiter)
    }
}

/// Has the one node asked that serves everything, if it answers.
fn push(routes: &Routes, work: Work, waiter: Waiter) -> Option<Answer> {
    let Some(queue) = routes.first() else { return Some(Answer::Refused(Refusal::Unavailable)) };
    if !queue.node.health.is_up() {
        return Some(Answer::Refused(queue.node.health.refusal()));
    }
    queue.push(work, None, waiter);
    None
}
