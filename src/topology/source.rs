//! Where the Redis behind is: what is configured, what sentinels say, or what the nodes of a cluster say.
//!
//! All three are asked the same way, and what they say has an epoch: while it stays, so does all that was learnt from
//! the servers that it names. Whoever dials gives the means to reach an address, so that this knows nothing of TLS.
//! One task asks, whenever there is a reason to; the others see what was found last.

use super::conversation::{Conversation, Login};
use super::gather::gather;
use super::reply::{self, Wrong};
use super::sentinel::{self, Role, View};
use super::slots::{Answer, Slots, choose};
use crate::config::HostPort;
use crate::net::Stream;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long one sentinel or node may take for all that it is asked at once, the way to it included.
pub const ASK_TIMEOUT: Duration = Duration::from_millis(300);
/// Most sentinels that are asked.
const MAX_SENTINELS: usize = 16;
/// Nodes of a cluster that are asked at once, and answers that are compared.
const ASKED_NODES: usize = 3;
/// Most nodes that are tried beside those that are configured. With this many silent ones it takes three seconds.
const MAX_TRIED_NODES: usize = 16;

/// Where the Redis behind is, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Who serves what. `None`: what is configured serves everything, wherever that leads.
    pub slots: Option<Arc<Slots>>,
    /// Counts up whenever a server was replaced or a slot has moved; 0 before anything was found.
    pub epoch: u64,
}

/// What knows where the Redis behind is.
pub enum Source {
    /// The configuration.
    Fixed,
    /// A group of sentinels.
    Sentinel(SentinelSource),
    /// The nodes of a cluster.
    Cluster(ClusterSource),
}

impl Source {
    /// Asks where the Redis behind is now. `reach` opens a connection to an address.
    ///
    /// # Errors
    /// Nobody who knows can be reached, or what they name is not, or not yet, a primary.
    pub async fn resolve(&mut self, reach: &impl AsyncFn(&HostPort) -> io::Result<Stream>) -> io::Result<Found> {
        match self {
            Self::Fixed => Ok(Found { slots: None, epoch: 1 }),
            Self::Sentinel(source) => source.resolve(reach).await,
            Self::Cluster(source) => source.resolve(reach).await,
        }
    }
}

/// A primary that sentinels watch by name.
pub struct SentinelSource {
    name: String,
    configured: Vec<HostPort>,
    /// All that are known, those first that have answered last, the quickest first of all.
    sentinels: Vec<HostPort>,
    /// Who to be at the sentinels, and at what they watch.
    sentinel_login: Login,
    redis_login: Login,
    /// The primary, and the sentinels' epoch that made it one.
    known: Option<(HostPort, u64)>,
    found: Found,
}

impl SentinelSource {
    /// The primary called `name`, which these sentinels watch; they tell of others.
    pub fn new(sentinels: Vec<HostPort>, name: String, sentinel_login: Login, redis_login: Login) -> Self {
        let found = Found { slots: None, epoch: 0 };
        Self { name, configured: sentinels.clone(), sentinels, sentinel_login, redis_login, known: None, found }
    }

    /// What they call the primary.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who to be at the sentinels.
    pub fn sentinel_login(&self) -> &Login {
        &self.sentinel_login
    }

    /// The sentinels that are known, those first that have answered last.
    pub fn sentinels(&self) -> &[HostPort] {
        &self.sentinels
    }

    /// All sentinels are asked at once. More than half are waited for, as one alone may be cut off and know of the last
    /// primary only: of those the one with the highest epoch is believed. But not before the server that it names says
    /// that it is a primary: a sentinel may name one before it knows of it.
    async fn resolve(&mut self, reach: &impl AsyncFn(&HostPort) -> io::Result<Stream>) -> io::Result<Found> {
        let enough = self.sentinels.len() / 2 + 1;
        let view_of = async |sentinel: &HostPort| self.view_of(reach(sentinel).await?).await;
        let ask = async |sentinel: &HostPort| in_time(sentinel, view_of(sentinel)).await;
        let (views, error) = gather(&self.sentinels, MAX_SENTINELS, enough, ask).await;
        self.learn(&views);
        let best = views.into_iter().map(|(_, view)| view).rev().max_by_key(|view| view.epoch);
        let Some(View { primary, epoch, .. }) = best else {
            return Err(error.unwrap_or_else(|| io::ErrorKind::NotFound.into()));
        };
        // Sentinels that all know less than was known before are cut off; unless they were set up anew.
        let newer = self.known.clone().filter(|(_, known)| *known > epoch);
        if let Some(known) = newer
            && self.is_primary(&known.0, reach).await.is_ok()
        {
            return Ok(self.found.clone());
        }
        self.is_primary(&primary, reach).await?;
        if self.known.as_ref() != Some(&(primary.clone(), epoch)) {
            let slots = Some(Arc::new(Slots::of_one(primary.clone())));
            self.found = Found { slots, epoch: self.found.epoch + 1 };
            self.known = Some((primary, epoch));
        }
        Ok(self.found.clone())
    }

    async fn view_of(&self, stream: Stream) -> io::Result<View> {
        let mut conversation = Conversation::begin(stream, &self.sentinel_login).await?;
        let questions = sentinel::questions(&self.name);
        conversation.send(&questions.each_ref().map(|words| &words[..])).await?;
        let answers = [conversation.answer().await?, conversation.answer().await?, conversation.answer().await?];
        let unknown = || io::Error::other(format!("a sentinel that watches nothing by the name '{}'", self.name));
        View::read(answers).map_err(io::Error::other)?.ok_or_else(unknown)
    }

    /// Whether this is a primary.
    async fn is_primary(
        &self,
        addr: &HostPort,
        reach: &impl AsyncFn(&HostPort) -> io::Result<Stream>,
    ) -> io::Result<()> {
        let attempt = async {
            let mut conversation = Conversation::begin(reach(addr).await?, &self.redis_login).await?;
            conversation.send(&[&["ROLE"], &["INFO", "replication"]]).await?;
            let (role, info) = (conversation.answer().await?, conversation.answer().await?);
            match role {
                // Who may not ask for the role may be told it all the same.
                Err(Wrong::Refused(_)) => {
                    let info = info.map_err(io::Error::other)?;
                    Ok(reply::text(&info).is_some_and(|info| info.lines().any(|line| line == "role:master")))
                }
                role => Ok(role.and_then(Role::read).map_err(io::Error::other)? == Role::Primary),
            }
        };
        match in_time(addr, attempt).await? {
            true => Ok(()),
            false => Err(io::Error::other(format!("{addr}: the sentinels name it, but it is no primary"))),
        }
    }

    fn learn(&mut self, views: &[(usize, View)]) {
        let answered = views.iter().filter_map(|(who, _)| self.sentinels.get(*who));
        let learnt = views.iter().flat_map(|(_, view)| &view.sentinels);
        let all = answered.chain(&self.configured).chain(&self.sentinels).chain(learnt);
        self.sentinels = distinct(all, MAX_SENTINELS);
    }
}

/// A cluster that some of its nodes are known of.
pub struct ClusterSource {
    configured: Vec<HostPort>,
    login: Login,
    found: Found,
}

impl ClusterSource {
    /// The cluster that these nodes are in.
    pub fn new(nodes: Vec<HostPort>, login: Login) -> Self {
        Self { configured: nodes, login, found: Found { slots: None, epoch: 0 } }
    }

    /// Some nodes are asked, those that serve slots first, so that nobody depends on those that were configured.
    async fn resolve(&mut self, reach: &impl AsyncFn(&HostPort) -> io::Result<Stream>) -> io::Result<Found> {
        let known = self.found.slots.iter().flat_map(|slots| {
            let primaries = slots.nodes().iter().map(|node| &node.addr);
            primaries.chain(slots.replicas())
        });
        let asked = distinct(known.take(MAX_TRIED_NODES).chain(&self.configured), usize::MAX);
        let answer_of = async |node: &HostPort| self.answer_of(node, reach(node).await?).await;
        let ask = async |node: &HostPort| in_time(node, answer_of(node)).await;
        let (answers, error) = gather(&asked, ASKED_NODES, ASKED_NODES, ask).await;
        let Some(Answer { slots, .. }) = choose(answers.into_iter().map(|(_, answer)| answer).collect()) else {
            return Err(error.unwrap_or_else(|| io::ErrorKind::NotFound.into()));
        };
        let is_same = self.found.slots.as_ref().is_some_and(|known| known.serve_alike(&slots));
        let epoch = self.found.epoch + u64::from(!is_same);
        self.found = Found { slots: Some(Arc::new(slots)), epoch };
        Ok(self.found.clone())
    }

    async fn answer_of(&self, node: &HostPort, stream: Stream) -> io::Result<Answer> {
        let mut conversation = Conversation::begin(stream, &self.login).await?;
        conversation.send(&[&["CLUSTER", "SLOTS"], &["CLUSTER", "INFO"]]).await?;
        let slots = conversation.answer().await?.map_err(io::Error::other)?;
        let info = conversation.answer().await?.ok();
        let answer = Answer::read(slots, info.as_ref(), node).map_err(io::Error::other)?;
        // One that was made to forget the cluster, or has yet to join it.
        let serves_nothing = answer.slots.nodes().is_empty();
        if serves_nothing { Err(io::Error::other("a node that knows of no slots")) } else { Ok(answer) }
    }
}

/// What the attempt at an address comes to within [`ASK_TIMEOUT`].
///
/// # Errors
/// As the attempt, or it took too long. The error names the address.
pub async fn in_time<T>(addr: &HostPort, attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let outcome = timeout(ASK_TIMEOUT, attempt).await;
    let outcome = outcome.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")));
    outcome.map_err(|error| io::Error::new(error.kind(), format!("{addr}: {error}")))
}

/// The first `most` different ones.
fn distinct<'a>(all: impl Iterator<Item = &'a HostPort>, most: usize) -> Vec<HostPort> {
    let mut distinct = Vec::new();
    for addr in all {
        if distinct.len() < most && !distinct.contains(addr) {
            distinct.push(addr.clone());
        }
    }
    distinct
}
