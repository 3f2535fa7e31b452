//! Where limits are counted: in this process, or in Redis. Who need not know which asks the [`Backend`].

use super::diagnosis::{self, Problem};
use super::discovery;
use super::mailbox::{Answer, Refusal};
use super::node::Node;
use super::redis::Redis;
use super::resets;
use crate::clock::{now_us, unix_us};
use crate::config::{self, Config};
use crate::limit::{Ask, Form, Verb};
use crate::stats::Stats;
use crate::store::embedded::Embedded;
use crate::store::throttles::Throttles;
use crate::throttle::{Life, Question};
use std::fmt::Display;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How often the embedded log looks for keys that have expired, and how many places it looks at each time: all of a
/// million keys within ten seconds.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
const SWEEP_PLACES: usize = 10_000;
/// How many shards of throttles, of about a thousand each.
const SWEEP_SHARDS: usize = 10;

/// Where all workers' limits are counted.
pub enum Backend {
    /// In this process.
    Embedded(Embedded, Throttles),
    /// In Redis, as long as it answers.
    Redis(Box<Redis>),
}

impl Backend {
    /// The backend that is configured, which counts what it does in `stats`, one for each worker. Asks nothing yet.
    ///
    /// # Errors
    /// Certificates for Redis that cannot be used.
    pub fn new(config: &Config, stats: &[Arc<Stats>]) -> Result<Self, String> {
        match config.embedded.enabled {
            true => {
                let config::Embedded { max_keys, max_entries, .. } = config.embedded;
                let embedded = Embedded::new(max_keys, max_entries);
                embedded.set_calendar(now_us(), unix_us());
                Ok(Self::Embedded(embedded, Throttles::new(max_keys)))
            }
            false => Ok(Self::Redis(Box::new(Redis::new(config, stats)?))),
        }
    }

    /// Whether there is no Redis.
    pub fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded(..))
    }

    /// Whether there is a Redis Cluster. That may become known after the start, and stays so.
    pub fn is_cluster(&self) -> bool {
        self.redis().is_some_and(|redis| redis.directory.is_cluster())
    }

    /// Whether clients' commands other than Tollgate's own go to Redis: there is one, and no cluster, in which each key
    /// would have a node of its own.
    pub fn forwards(&self) -> bool {
        !self.is_embedded() && !self.is_cluster()
    }

    /// The upstream Redis, if there is one.
    pub fn redis(&self) -> Option<&Redis> {
        match self {
            Self::Embedded(..) => None,
            Self::Redis(redis) => Some(redis),
        }
    }

    /// The node that clients' own connections lead to, if there is one: of a cluster any, which is asked about logins alone.
    pub fn upstream(&self) -> Option<Arc<Node>> {
        self.redis()?.upstream()
    }

    /// The version that Redis says it has, once that is known.
    pub fn redis_version(&self) -> Option<String> {
        self.upstream()?.health.known().version
    }

    /// How many logs this process itself keeps.
    pub fn keys_here(&self) -> usize {
        match self {
            Self::Embedded(embedded, throttles) => embedded.keys() + throttles.keys(),
            Self::Redis(_) => 0,
        }
    }

    /// This process listens on these addresses, so that none of them is Redis's.
    ///
    /// # Errors
    /// The address of Redis is one of them; the text says so.
    pub fn set_listeners(&self, listeners: Vec<SocketAddr>) -> Result<(), String> {
        let Some(redis) = self.redis() else { return Ok(()) };
        let seed = redis.directory.seed();
        seed.set_listeners(listeners);
        if seed.leads_here() {
            let Problem { what, advice, .. } = diagnosis::leads_here();
            return Err(format!("{what} ({seed:?}): {advice}"));
        }
        Ok(())
    }

    /// Does what is to be done apart from any request, for as long as it is polled: finds the nodes, hears of resets and
    /// tells of outages, or removes what has expired.
    pub async fn tend(&self) {
        match self {
            Self::Redis(redis) => {
                tokio::join!(discovery::follow(redis), tend_nodes(redis));
            }
            Self::Embedded(embedded, throttles) => {
                let mut every = tokio::time::interval(SWEEP_EVERY);
                loop {
                    every.tick().await;
                    embedded.set_calendar(now_us(), unix_us());
                    embedded.sweep(now_us(), SWEEP_PLACES);
                    throttles.sweep(now_us(), SWEEP_SHARDS);
                }
            }
        }
    }

    /// Passes what INFO says of it to `line`, a name and a value each.
    pub fn describe(&self, line: &mut dyn FnMut(&str, &dyn Display)) {
        match self {
            Self::Embedded(embedded, throttles) => {
                line("store", &"embedded");
                line("embedded_keys", &embedded.keys());
                line("embedded_throttles", &throttles.keys());
                line("embedded_entries", &embedded.entries());
            }
            Self::Redis(redis) => redis.describe(line),
        }
    }
}

/// Hears of resets and tells of outages, of whatever nodes there are.
async fn tend_nodes(redis: &Redis) {
    let mut changes = redis.directory.changes();
    let mut tended: Vec<(Arc<Node>, Tending<'_>)> = Vec::new();
    loop {
        let nodes = changes.borrow_and_update().clone();
        tended.retain(|(node, _)| nodes.all().iter().any(|other| Arc::ptr_eq(other, node)));
        for node in nodes.all().iter().filter(|node| !node.is_placeholder) {
            if !tended.iter().any(|(other, _)| Arc::ptr_eq(other, node)) {
                tended.push((node.clone(), Box::pin(tend_node(redis, node.clone()))));
            }
        }
        let all = poll_fn(|cx| {
            for (_, tending) in &mut tended {
                // None of them ends.
                let _ = tending.as_mut().poll(cx);
            }
            Poll::<()>::Pending
        });
        tokio::select! {
            () = all => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

type Tending<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

async fn tend_node(redis: &Redis, node: Arc<Node>) {
    tokio::join!(resets::listen(redis, &node), node.health.remind());
}

/// What the embedded log answers.
pub(super) fn ask_embedded(embedded: &Embedded, verb: Verb, ask: &Ask<'_>, form: Form, now_us: u64) -> Answer {
    let answer = match (verb, form) {
        (Verb::Check, Form::Short) => embedded.check(ask, now_us).map(Answer::Verdict),
        (Verb::Check, Form::Full) => embedded.check_in_full(ask, now_us).map(Answer::in_full),
        (Verb::Peek, Form::Short) => Ok(Answer::Verdict(embedded.peek(ask, now_us))),
        (Verb::Peek, Form::Full) => Ok(Answer::in_full(embedded.peek_in_full(ask, now_us))),
    };
    answer.unwrap_or_else(|full| Answer::Refused(Refusal::Full(full)))
}

/// What the embedded states answer to a throttle.
pub(super) fn throttle_embedded(throttles: &Throttles, name: &[u8], question: &Question, now_us: u64) -> Answer {
    match throttles.decide(name, question, now_us) {
        Ok((decision, Life::Refused)) if !decision.is_limited => Answer::Refused(Refusal::NoExpiry),
        Ok((decision, _)) => Answer::Throttle(decision),
        Err(full) => Answer::Refused(Refusal::Full(full)),
    }
}
