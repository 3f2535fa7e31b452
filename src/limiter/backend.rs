//! Where limits are counted: in this process, or in Redis. Who need not know which asks the [`Backend`].

use super::diagnosis::{self, Problem};
use super::mailbox::{Answer, Refusal};
use super::node::Node;
use super::redis::Redis;
use super::resets;
use crate::clock::now_us;
use crate::config::Config;
use crate::limit::{Ask, Verb};
use crate::stats::Stats;
use crate::store::embedded::Embedded;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often the embedded log looks for keys that have expired, and how many places it looks at each time: all of a
/// million keys within ten seconds.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
const SWEEP_PLACES: usize = 10_000;

/// Where all workers' limits are counted.
pub enum Backend {
    /// In this process.
    Embedded(Embedded),
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
            true => Ok(Self::Embedded(Embedded::new(config.embedded.max_keys, config.embedded.max_entries))),
            false => Ok(Self::Redis(Box::new(Redis::new(config, stats)?))),
        }
    }

    /// Whether there is no Redis.
    pub fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// Whether there is a Redis Cluster. That may become known after the start, and stays so.
    pub fn is_cluster(&self) -> bool {
        self.redis().is_some_and(|redis| redis.is_cluster)
    }

    /// Whether clients' commands other than Tollgate's own go to Redis: there is one, and no cluster, in which each key
    /// would have a node of its own.
    pub fn forwards(&self) -> bool {
        !self.is_embedded() && !self.is_cluster()
    }

    /// The upstream Redis, if there is one.
    pub fn redis(&self) -> Option<&Redis> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(redis) => Some(redis),
        }
    }

    /// The node that clients' own connections lead to, if there is one: of a cluster any, which is asked about logins alone.
    pub fn upstream(&self) -> Option<&Node> {
        self.redis().map(Redis::upstream)
    }

    /// The version that Redis says it has, once that is known.
    pub fn redis_version(&self) -> Option<String> {
        self.upstream()?.health.known().version
    }

    /// How many logs this process itself keeps.
    pub fn keys_here(&self) -> usize {
        match self {
            Self::Embedded(embedded) => embedded.keys(),
            Self::Redis(_) => 0,
        }
    }

    /// This process listens on these addresses, so that none of them is Redis's.
    ///
    /// # Errors
    /// The address of Redis is one of them; the text says so.
    pub fn set_listeners(&self, listeners: Vec<SocketAddr>) -> Result<(), String> {
        let Some(node) = self.upstream() else { return Ok(()) };
        node.dialer.set_listeners(listeners);
        if node.dialer.leads_here() {
            let Problem { what, advice, .. } = diagnosis::leads_here();
            return Err(format!("{what} ({:?}): {advice}", node.dialer));
        }
        Ok(())
    }

    /// Does what is to be done apart from any request, for as long as it is polled: hears of resets and tells of outages,
    /// or removes what has expired.
    pub async fn tend(&self) {
        match self {
            Self::Redis(redis) => {
                let node = redis.upstream();
                tokio::join!(resets::listen(redis, node), node.health.remind());
            }
            Self::Embedded(embedded) => {
                let mut every = tokio::time::interval(SWEEP_EVERY);
                loop {
                    every.tick().await;
                    embedded.sweep(now_us(), SWEEP_PLACES);
                }
            }
        }
    }

    /// Passes what INFO says of it to `line`, a name and a value each.
    pub fn describe(&self, line: &mut dyn FnMut(&str, &dyn Display)) {
        match self {
            Self::Embedded(embedded) => {
                line("store", &"embedded");
                line("embedded_keys", &embedded.keys());
                line("embedded_entries", &embedded.entries());
            }
            Self::Redis(redis) => redis.describe(line),
        }
    }
}

/// What the embedded log answers.
pub(super) fn ask_embedded(embedded: &Embedded, verb: Verb, ask: &Ask<'_>, now_us: u64) -> Answer {
    match verb {
        Verb::Check => match embedded.check(ask, now_us) {
            Ok(verdict) => Answer::Verdict(verdict),
            Err(full) => Answer::Refused(Refusal::Full(full)),
        },
        Verb::Peek => Answer::Verdict(embedded.peek(ask, now_us)),
    }
}
