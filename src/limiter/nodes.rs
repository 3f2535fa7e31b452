//! The nodes of Redis, and which of them counts for a key: one for all, or, in a cluster, the one that serves its slot.
//!
//! What was found is a value that stays as it is. Who wants to know of changes compares epochs, or waits for the next.

use super::node::{Node, Settings};
use crate::config::HostPort;
use crate::dial::Dialer;
use crate::topology::redirect::Target;
use crate::topology::slot::Slot;
use crate::topology::slots::Slots;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, watch};
use tracing::info;

/// Most nodes that are known of for no other reason than that a node has named them.
const MAX_STRANGERS: usize = 16;

/// What the nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One server, wherever its address leads.
    Single,
    /// One primary, which sentinels name.
    Sentinel,
    /// Each serves some of a cluster's slots.
    Cluster,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        })
    }
}

/// The nodes, as they were found last.
pub struct Nodes {
    /// What they are.
    pub kind: Kind,
    /// Another for each change.
    pub epoch: u64,
    /// Who serves what. `None`: the first node serves everything.
    pub slots: Option<Arc<Slots>>,
    /// Those that serve slots, in the order that `slots` has them in; then those that others have named.
    list: Vec<Arc<Node>>,
}

impl Nodes {
    /// All of them.
    pub fn all(&self) -> &[Arc<Node>] {
        &self.list
    }

    /// The index of the one that serves a slot, if there is any.
    pub fn owner(&self, slot: Slot) -> Option<usize> {
        match &self.slots {
            None => Some(0),
            Some(slots) => slots.owner(slot).map(usize::from),
        }
    }

    /// The one that serves a slot.
    pub fn of_slot(&self, slot: Slot) -> Option<&Arc<Node>> {
        self.list.get(self.owner(slot)?)
    }

    /// A slot that a node serves.
    pub fn a_slot_of(&self, node: &Node) -> Option<Slot> {
        let index = self.list.iter().position(|other| std::ptr::eq(&**other, node))?;
        let stretches = self.slots.as_ref()?.stretches(u16::try_from(index).ok()?);
        Slot::new(stretches.first()?.0)
    }

    /// Passes what INFO says of them to `line`, a name and a value each.
    pub(super) fn describe(&self, line: &mut dyn FnMut(&str, &dyn Display)) {
        line("topology", &self.kind);
        line("topology_epoch", &self.epoch);
        line("nodes", &self.list.len());
        for (index, node) in self.list.iter().enumerate() {
            let known = node.health.known();
            let down_seconds = known.down_since.map_or(0, |since| since.elapsed().as_secs());
            let keys = if self.slots.is_some() && node.declares_keys() { "slot" } else { "node" };
            let error = known.last_error.unwrap_or_default().replace([',', '\r', '\n'], " ");
            line(
                &format!("node{index}"),
                &format_args!(
                    "addr={:?},role=primary,slots={},up={},breaker={},down_seconds={down_seconds},unwritten={},runs_by={keys},\
                     last_error={error}",
                    node.dialer,
                    self.stretches_of(index),
                    u8::from(node.health.is_up()),
                    node.health.breaker_state(),
                    node.ledger.len(),
                ),
            );
        }
    }

    /// The first few stretches of slots that a node serves, as `CLUSTER NODES` writes them.
    pub fn stretches_of(&self, index: usize) -> String {
        const SHOWN: usize = 8;
        let Some(slots) = &self.slots else { return "all".to_owned() };
        let stretches = u16::try_from(index).map(|index| slots.stretches(index)).unwrap_or_default();
        let mut shown: Vec<_> = stretches.iter().take(SHOWN).map(|(first, last)| format!("{first}-{last}")).collect();
        if stretches.len() > SHOWN {
            shown.push("...".to_owned());
        }
        shown.join(" ")
    }

    fn contains(&self, node: &Arc<Node>) -> bool {
        self.list.iter().any(|other| Arc::ptr_eq(other, node))
    }
}

/// Where the nodes that were found last are to be had from, and where reasons to look again are told.
pub struct Directory {
    nodes: watch::Sender<Arc<Nodes>>,
    settings: Settings,
    /// Where all begins: any other way is like this one.
    seed: Arc<Dialer>,
    /// What the server at the seed's address has turned out to be.
    turned_out: Mutex<Option<Kind>>,
    /// Whether what is there is a cluster. It stays one.
    is_cluster: AtomicBool,
    /// Told of reasons to look again.
    pub(super) doubts: Notify,
}

impl Directory {
    /// Of the one node that the seed leads to; or, if it only knows where the nodes are, of a placeholder for these.
    pub fn new(seed: Arc<Dialer>, only_knows: bool, is_cluster: bool, settings: Settings) -> Self {
        let node = Node::configured(seed.clone(), only_knows, &settings);
        let nodes = Nodes { kind: Kind::Single, epoch: 0, slots: None, list: vec![Arc::new(node)] };
        let nodes = watch::Sender::new(Arc::new(nodes));
        let (turned_out, is_cluster, doubts) = (Mutex::default(), AtomicBool::new(is_cluster), Notify::new());
        Self { nodes, settings, seed, turned_out, is_cluster, doubts }
    }

    /// The nodes that were found last.
    pub fn nodes(&self) -> Arc<Nodes> {
        self.nodes.borrow().clone()
    }

    /// Tells of the next ones.
    pub fn changes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.nodes.subscribe()
    }

    /// The way to what is configured.
    pub fn seed(&self) -> &Arc<Dialer> {
        &self.seed
    }

    /// Whether what is there is a cluster, as far as that is known. One atomic load.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster.load(Relaxed)
    }

    /// Something went as it would if the nodes were no longer where they were found.
    pub fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// The server at the seed's address is no Redis that stands alone.
    pub fn turns_out(&self, kind: Kind) {
        self.is_cluster.fetch_or(kind == Kind::Cluster, Relaxed);
        *self.turned_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
        self.doubt();
    }

    /// What it has turned out to be.
    pub fn turned_out(&self) -> Option<Kind> {
        *self.turned_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has said that another serves a slot now. Whoever knows better will say so later.
    pub fn moved(&self, slot: Slot, target: Target, said_by: &Node) {
        let Some(answerer) = said_by.dialer.addr() else { return };
        let addr = target.seen_from(answerer);
        self.nodes.send_if_modified(|nodes| {
            let Some(slots) = &nodes.slots else { return false };
            if nodes.of_slot(slot).is_some_and(|node| node.dialer.addr() == Some(&addr)) {
                return false;
            }
            *nodes = Arc::new(self.next_of(nodes, &Arc::new(slots.moved(slot, &addr)), Kind::Cluster));
            true
        });
        self.doubt();
    }

    /// The node at an address that another node has named, and which may serve nothing yet.
    pub fn named(&self, target: Target, said_by: &Node) -> Option<Arc<Node>> {
        let addr = target.seen_from(said_by.dialer.addr()?);
        let is_there = |node: &&Arc<Node>| node.dialer.addr() == Some(&addr);
        let mut found = None;
        self.nodes.send_if_modified(|nodes| {
            found = nodes.list.iter().find(is_there).cloned();
            let strangers = nodes.list.len() - nodes.slots.as_ref().map_or(1, |slots| slots.nodes().len());
            if found.is_some() || strangers >= MAX_STRANGERS {
                return false;
            }
            let made = self.make(&addr, None, String::new(), nodes.list.len());
            let list = nodes.list.iter().chain([&made]).cloned().collect();
            let Nodes { kind, epoch, slots, .. } = &**nodes;
            *nodes = Arc::new(Nodes { kind: *kind, epoch: epoch + 1, slots: slots.clone(), list });
            found = Some(made);
            true
        });
        found
    }

    /// The nodes were found here; `slots` says who serves what, if they are a cluster's. `settle` is passed the next nodes and
    /// those that are no longer among them, before anybody sees that. Returns the latter.
    pub fn found(&self, slots: &Arc<Slots>, kind: Kind, settle: impl FnOnce(&Nodes, &[Arc<Node>])) -> Vec<Arc<Node>> {
        let mut gone = Vec::new();
        self.nodes.send_if_modified(|nodes| {
            let is_same = |known: &Arc<Slots>| known.serve_alike(slots);
            let is_news = match kind {
                Kind::Cluster => !nodes.slots.as_ref().is_some_and(is_same),
                Kind::Single | Kind::Sentinel => {
                    let addr = slots.nodes().first().map(|node| &node.addr);
                    nodes.list.first().is_none_or(|node| node.is_placeholder || node.dialer.addr() != addr)
                }
            };
            if !is_news {
                return false;
            }
            let next = self.next_of(nodes, slots, kind);
            gone = nodes.list.iter().filter(|node| !next.contains(node)).cloned().collect();
            // Where a slot alone has moved, nobody need know.
            if next.list.iter().any(|node| !nodes.contains(node)) || !gone.is_empty() {
                info!(redis = addresses(&next), was = addresses(nodes), epoch = next.epoch, "redis was found");
            }
            settle(&next, &gone);
            *nodes = Arc::new(next);
            true
        });
        gone
    }

    /// The nodes that serve these slots. Those that are known stay what they are.
    fn next_of(&self, nodes: &Nodes, slots: &Arc<Slots>, kind: Kind) -> Nodes {
        // What was one server for itself is made anew as one of several: more is kept of it then.
        let is_of_kind = nodes.kind == kind;
        let known = |addr: &HostPort, id: &str| {
            let is_it = |node: &&Arc<Node>| {
                let is_same = node.id == id || node.id.is_empty() || id.is_empty();
                is_of_kind && is_same && node.dialer.addr() == Some(addr)
            };
            nodes.list.iter().find(is_it).cloned()
        };
        let count = slots.nodes().len();
        let found = slots.nodes().iter().enumerate().map(|(index, node)| {
            known(&node.addr, &node.id).unwrap_or_else(|| {
                let made = self.make(&node.addr, node.name.as_deref(), node.id.clone(), count);
                if let Some(before) = predecessor(nodes, slots, index) {
                    made.health.inherit(&before.health);
                }
                made
            })
        });
        let list = found.collect();
        Nodes { kind, epoch: nodes.epoch + 1, slots: (kind == Kind::Cluster).then(|| slots.clone()), list }
    }

    fn make(&self, addr: &HostPort, name: Option<&str>, id: String, of: usize) -> Arc<Node> {
        Arc::new(Node::new(Arc::new(self.seed.toward(addr, name)), id, of, &self.settings))
    }
}

/// The node that served before what another serves now, if it serves nothing any more.
fn predecessor<'a>(nodes: &'a Nodes, slots: &Slots, index: usize) -> Option<&'a Arc<Node>> {
    let (first, _) = slots.stretches(u16::try_from(index).ok()?).first().copied()?;
    let before = nodes.of_slot(Slot::new(first)?)?;
    let serves = slots.nodes().iter().any(|node| before.dialer.addr() == Some(&node.addr));
    (!serves || before.is_placeholder).then_some(before)
}

fn addresses(nodes: &Nodes) -> String {
    let addresses: Vec<_> = nodes.list.iter().map(|node| format!("{:?}", node.dialer)).collect();
    addresses.join(", ")
}
