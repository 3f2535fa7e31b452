//! Finds the nodes: asks sentinels, or nodes of a cluster, whenever there is a reason to, and now and then. One task does
//! that; what it finds is in the [`Directory`](super::nodes::Directory).
//!
//! What a node that is gone had admitted last, and what the fallback admitted in its place, is in the ledger of the one
//! that counts instead before anybody asks that.

use super::diagnosis::{Kind as ProblemKind, Problem};
use super::node::Node;
use super::nodes::{Kind, Nodes};
use super::redis::Redis;
use crate::clock::now_us;
use crate::config::{ClusterAddr, HostPort, RedisMode, SentinelAddr, Transport};
use crate::dial::Dialer;
use crate::log_limit::LogLimit;
use crate::store::ledger::Ledger;
use crate::topology::conversation::{Conversation, Login};
use crate::topology::reply::{Frame, text};
use crate::topology::sentinel::{Role, SWITCH_CHANNEL, Switch};
use crate::topology::source::{ASK_TIMEOUT, ClusterSource, SentinelSource, Source, in_time};
use ahash::RandomState;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// Shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);
/// How often sentinels are asked: a primary that they have replaced may not know for ten seconds. And nodes of a cluster
/// while one is down.
const OFTEN: Duration = Duration::from_secs(1);
/// How often nodes of a cluster are asked, give or take a fifth.
const SELDOM: Duration = Duration::from_secs(10);
/// For so long it is looked after what a node that is gone still admits.
const GONE_FOR: Duration = Duration::from_secs(10);

/// Follows the nodes for as long as it is polled.
pub(super) async fn follow(redis: &Redis) {
    let mut discovery = Discovery::new(redis);
    loop {
        let looked = Instant::now();
        discovery.look().await;
        let _ = timeout(discovery.pause(), discovery.reason()).await;
        sleep(SHORTEST.saturating_sub(looked.elapsed())).await;
    }
}

/// Looks once, for a first look at what is there.
///
/// # Errors
/// The nodes cannot be found.
pub(super) async fn find(redis: &Redis) -> Result<(), Problem> {
    Discovery::new(redis).try_look().await.map_err(|error| problem(redis, &error))
}

struct Discovery<'a> {
    redis: &'a Redis,
    source: Source,
    /// A sentinel that tells of switches.
    told_by: Option<Conversation>,
    /// Nodes that are gone, and since when.
    gone: Vec<(Arc<Node>, Instant)>,
    failures: LogLimit,
}

impl<'a> Discovery<'a> {
    fn new(redis: &'a Redis) -> Self {
        let login = login(redis);
        let config = &redis.configured;
        let source = match (&config.addr.transport, config.mode) {
            (Transport::Sentinel(SentinelAddr { sentinels, name, user, password, .. }), _) => {
                let sentinel_login = Login { user: user.clone(), password: password.clone() };
                Source::Sentinel(SentinelSource::new(sentinels.clone(), name.clone(), sentinel_login, login))
            }
            (Transport::Cluster(ClusterAddr { nodes, .. }), _) => {
                Source::Cluster(ClusterSource::new(nodes.clone(), login))
            }
            (transport, RedisMode::Cluster) => Source::Cluster(ClusterSource::new(transport.seeds().to_vec(), login)),
            _ => Source::Fixed,
        };
        Self { redis, source, told_by: None, gone: Vec::new(), failures: LogLimit::default() }
    }

    async fn look(&mut self) {
        if let Err(error) = self.try_look().await {
            self.complain(&error);
        }
        self.gone.retain(|(_, since)| since.elapsed() < GONE_FOR);
        // What they have admitted meanwhile.
        settle(self.redis, &self.redis.directory.nodes(), self.gone.iter().map(|(node, _)| node));
    }

    async fn try_look(&mut self) -> io::Result<()> {
        self.learn_kind().await?;
        let kind = match &self.source {
            Source::Fixed => return Ok(()),
            Source::Sentinel(_) => Kind::Sentinel,
            Source::Cluster(_) => Kind::Cluster,
        };
        let seed = self.redis.directory.seed();
        let reach = async |addr: &HostPort| seed.toward(addr, None).dial_store(ASK_TIMEOUT).await;
        let found = self.source.resolve(&reach).await?;
        let Some(slots) = &found.slots else { return Ok(()) };
        let gone = self.redis.directory.found(slots, kind, |next, gone| settle(self.redis, next, gone.iter()));
        if !gone.is_empty() {
            self.redis.deny_cache.clear(now_us());
            self.gone.extend(gone.into_iter().map(|node| (node, Instant::now())));
        }
        if let (Kind::Sentinel, Some(node)) = (kind, self.redis.upstream()) {
            // It has just said that it is a primary.
            node.health.hurry();
        }
        Ok(())
    }

    /// Takes the server at the address that is configured for what it has turned out to be.
    async fn learn_kind(&mut self) -> io::Result<()> {
        let is_pinned = self.redis.configured.mode == RedisMode::Sentinel;
        let turned_out = self.redis.directory.turned_out().or(is_pinned.then_some(Kind::Sentinel));
        let (Source::Fixed, Some(kind)) = (&self.source, turned_out) else { return Ok(()) };
        let seed = self.redis.directory.seed();
        let seeds = self.redis.configured.addr.transport.seeds().to_vec();
        self.source = match kind {
            Kind::Single => return Ok(()),
            Kind::Cluster => {
                info!(redis = ?seed, "what is there is a node of a cluster, and is taken as that");
                Source::Cluster(ClusterSource::new(seeds, login(self.redis)))
            }
            Kind::Sentinel => {
                let name = watched(seed, &login(self.redis)).await?;
                info!(redis = ?seed, name, "what is there is a sentinel, and is taken as that");
                Source::Sentinel(SentinelSource::new(seeds, name, login(self.redis), login(self.redis)))
            }
        };
        Ok(())
    }

    /// How long to wait for a reason to look again.
    fn pause(&self) -> Duration {
        let all_up = self.redis.directory.nodes().all().iter().all(|node| node.health.is_up());
        match &self.source {
            Source::Fixed => Duration::MAX,
            Source::Cluster(_) if all_up => {
                // So that not all Tollgates ask at once.
                let share = RandomState::new().hash_one(0) % 400;
                SELDOM * 4 / 5 + Duration::from_millis(10 * share)
            }
            Source::Sentinel(_) | Source::Cluster(_) => OFTEN,
        }
    }

    /// Returns once there is a reason to look again: a doubt, or a sentinel tells of another primary.
    async fn reason(&mut self) {
        let doubts = &self.redis.directory.doubts;
        let Source::Sentinel(source) = &self.source else { return doubts.notified().await };
        if self.told_by.is_none() {
            let seed = self.redis.directory.seed();
            self.told_by = match source.sentinels().first() {
                Some(sentinel) => in_time(sentinel, subscribe(seed, sentinel, source)).await.ok(),
                None => None,
            };
        }
        let Some(told_by) = &mut self.told_by else { return doubts.notified().await };
        let is_told = async {
            loop {
                match told_by.answer().await {
                    Ok(Ok(message)) if is_switch(&message, source.name()) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        let lives = tokio::select! {
            () = doubts.notified() => true,
            lives = is_told => lives,
        };
        if !lives {
            self.told_by = None;
        }
    }

    fn complain(&self, error: &io::Error) {
        let problem = problem(self.redis, error);
        if let Some(times) = self.failures.due(now_us()) {
            warn!(problem = problem.what, error = problem.error, times, "cannot find out where redis is");
        }
        let nodes = self.redis.directory.nodes();
        // As long as none was found it is not known what to ask.
        if let (Kind::Single, Some(node)) = (nodes.kind, nodes.all().first()) {
            node.health.is_lost(problem, now_us());
        }
    }
}

/// Has the nodes' ledgers hold what is owed to each: what nodes that are gone leave, and what was owed to one of them and
/// is to another now.
fn settle<'a>(redis: &Redis, nodes: &Nodes, gone: impl Iterator<Item = &'a Arc<Node>>) {
    gone.for_each(|node| hand_over(redis, nodes, node));
    // What is owed to the one node that serves everything is where it belongs.
    for node in nodes.all().iter().filter(|node| nodes.slots.is_some() && !node.ledger.is_empty()) {
        node.ledger.hand_over(|key| ledger_of(redis, nodes, key));
    }
}

/// Has whoever counts for its keys now be owed what a node that is gone is owed, and what it has admitted lately.
pub(super) fn hand_over(redis: &Redis, nodes: &Nodes, gone: &Node) {
    gone.replay.hand_over(|key| ledger_of(redis, nodes, key));
    gone.ledger.hand_over(|key| ledger_of(redis, nodes, key));
}

fn ledger_of<'a>(redis: &Redis, nodes: &'a Nodes, key: &[u8]) -> Option<&'a Ledger> {
    nodes.of_slot(redis.store.slot_of(key)).map(|node| &node.ledger)
}

fn login(redis: &Redis) -> Login {
    let addr = &redis.configured.addr;
    Login { user: addr.user.clone(), password: addr.password.clone() }
}

fn problem(redis: &Redis, error: &io::Error) -> Problem {
    let what = format!("nobody says where the nodes of {} are", redis.configured.addr);
    let advice = "see whether the servers that redis.addr names run, know each other and let this user ask";
    Problem::new(ProblemKind::Outage, what, advice).said(error.to_string())
}

/// The name of the one primary that a sentinel watches.
async fn watched(seed: &Dialer, login: &Login) -> io::Result<String> {
    let addr = seed.addr().ok_or(io::ErrorKind::NotFound)?;
    let attempt = async {
        let stream = seed.dial_store(ASK_TIMEOUT).await?;
        Conversation::begin(stream, login).await?.ask(&["ROLE"]).await
    };
    match Role::read(in_time(addr, attempt).await?) {
        Ok(Role::Sentinel(names)) => match names.as_slice() {
            [name] => Ok(name.clone()),
            _ => Err(io::Error::other(format!(
                "a sentinel that watches {} primaries: name one, redis+sentinel://{seed:?}/<name>",
                names.len()
            ))),
        },
        _ => Err(io::Error::other("redis.mode says that it is a sentinel, and it is none")),
    }
}

async fn subscribe(seed: &Dialer, sentinel: &HostPort, source: &SentinelSource) -> io::Result<Conversation> {
    let stream = seed.toward(sentinel, None).dial_store(ASK_TIMEOUT).await?;
    let mut conversation = Conversation::begin(stream, source.sentinel_login()).await?;
    conversation.ask(&["SUBSCRIBE", SWITCH_CHANNEL]).await?;
    Ok(conversation)
}

/// Whether a message tells that the primary of this name is another.
fn is_switch(message: &Frame, name: &str) -> bool {
    let Frame::Array(words) = message else { return false };
    words.get(2).and_then(text).and_then(Switch::read).is_some_and(|switch| switch.name == name)
}
