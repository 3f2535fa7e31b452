//! Which node of a cluster serves which slot, as `CLUSTER SLOTS` tells it.
//!
//! Every node tells what it knows, which may be old: while a node is cut off, or just after a failover. So more than one
//! is asked, and [`choose`] says whom to believe.

use super::reply::{self, Frame, Wrong};
use super::slot::{SLOTS, Slot};
use crate::config::HostPort;

/// Most primaries, and most replicas, that a cluster may have here. Redis recommends a thousand nodes at most.
const MAX_NODES: usize = 1000;
/// In place of a node's index: nobody serves the slot.
const NOBODY: u16 = u16::MAX;
const _: () = assert!(MAX_NODES < NOBODY as usize);

/// A node that serves slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it is, as the cluster would have clients reach it.
    pub addr: HostPort,
    /// Its name, which its certificate may have where `addr` has an address.
    pub name: Option<String>,
    /// What it is called within the cluster; empty before Redis 4.
    pub id: String,
}

/// The nodes of a cluster and their slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// In the order of their ids, so that the same cluster looks the same whoever describes it.
    nodes: Vec<Node>,
    replicas: Vec<HostPort>,
    /// For each slot the index of its node, or [`NOBODY`].
    owners: Vec<u16>,
}

impl Slots {
    /// One node that serves everything.
    pub fn of_one(addr: HostPort) -> Self {
        let node = Node { addr, name: None, id: String::new() };
        Self { nodes: vec![node], replicas: Vec::new(), owners: vec![0; usize::from(SLOTS)] }
    }

    /// Reads what the node at `answerer` says to `CLUSTER SLOTS`. A node that nobody knows a host of is passed over,
    /// with the slots that it serves.
    ///
    /// # Errors
    /// It is something else, or about more nodes than [`MAX_NODES`].
    pub fn read(frame: Frame, answerer: &HostPort) -> Result<Self, Wrong> {
        let mut slots = Self { nodes: Vec::new(), replicas: Vec::new(), owners: vec![NOBODY; usize::from(SLOTS)] };
        for stretch in reply::items(frame)? {
            slots.add(stretch, answerer)?;
        }
        slots.sort();
        Ok(slots)
    }

    /// Adds `[first slot, last slot, primary, replica ...]`.
    fn add(&mut self, stretch: Frame, answerer: &HostPort) -> Result<(), Wrong> {
        let mut items = reply::items(stretch)?.into_iter();
        let (first, last) = (read_slot(items.next())?, read_slot(items.next())?);
        if first > last {
            return Err(Wrong::Unexpected);
        }
        let primary = read_node(items.next().ok_or(Wrong::Unexpected)?, answerer)?;
        let owner = primary.map(|primary| self.index_of(primary)).transpose()?.unwrap_or(NOBODY);
        let range = usize::from(first.number())..=usize::from(last.number());
        self.owners.get_mut(range).ok_or(Wrong::Unexpected)?.fill(owner);
        for replica in items {
            let replica = read_node(replica, answerer)?.map(|replica| replica.addr);
            // They are only asked where the primaries are, for which these are enough.
            if let Some(replica) =
                replica.filter(|addr| self.replicas.len() < MAX_NODES && !self.replicas.contains(addr))
            {
                self.replicas.push(replica);
            }
        }
        Ok(())
    }

    fn index_of(&mut self, node: Node) -> Result<u16, Wrong> {
        let known = self.nodes.iter().position(|other| other.id == node.id && other.addr == node.addr);
        let index = known.unwrap_or(self.nodes.len());
        if index == MAX_NODES {
            return Err(Wrong::TooMuch);
        }
        if known.is_none() {
            self.nodes.push(node);
        }
        u16::try_from(index).map_err(|_| Wrong::TooMuch)
    }

    fn sort(&mut self) {
        let mut order: Vec<u16> = (0..).take(self.nodes.len()).collect();
        let node_of = |index: &u16| self.nodes.get(usize::from(*index));
        let key_of = |index: &u16| node_of(index).map(|node| (node.id.clone(), node.addr.to_string()));
        order.sort_by_cached_key(key_of);
        let nodes = order.iter().filter_map(node_of).cloned().collect();
        let mut rank_of = vec![NOBODY; order.len()];
        for (rank, index) in (0..).zip(&order) {
            if let Some(place) = rank_of.get_mut(usize::from(*index)) {
                *place = rank;
            }
        }
        for owner in &mut self.owners {
            *owner = rank_of.get(usize::from(*owner)).copied().unwrap_or(NOBODY);
        }
        self.nodes = nodes;
    }

    /// The same, but for a slot that the node at this address serves now; unless that would be one too many.
    pub fn moved(&self, slot: Slot, addr: &HostPort) -> Self {
        let mut slots = self.clone();
        let known = slots.nodes.iter().find(|node| node.addr == *addr).cloned();
        let node = known.unwrap_or_else(|| Node { addr: addr.clone(), name: None, id: String::new() });
        if let (Ok(index), Some(owner)) = (slots.index_of(node), slots.owners.get_mut(usize::from(slot.number()))) {
            *owner = index;
        }
        slots
    }

    /// The stretches of slots that a node serves, by its index: first and last slot of each.
    pub fn stretches(&self, index: u16) -> Vec<(u16, u16)> {
        let mut stretches: Vec<(u16, u16)> = Vec::new();
        for (slot, _) in (0..).zip(&self.owners).filter(|(_, owner)| **owner == index) {
            match stretches.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => stretches.push((slot, slot)),
            }
        }
        stretches
    }

    /// Whether both say that the same nodes serve the same slots. How their addresses are seen may differ.
    fn agree(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Node, &Node)| match one.id.is_empty() {
            true => one.addr == other.addr,
            false => one.id == other.id,
        };
        self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(is_same)
            && self.owners == other.owners
    }

    /// Whether the same nodes serve the same slots at the same addresses. Replicas come and go.
    pub fn serve_alike(&self, other: &Self) -> bool {
        self.nodes == other.nodes && self.owners == other.owners
    }

    /// The nodes that serve slots.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Other nodes, which can be asked about these.
    pub fn replicas(&self) -> &[HostPort] {
        &self.replicas
    }

    /// The index of the node that serves a slot, if any does.
    pub fn owner(&self, slot: Slot) -> Option<u16> {
        self.owners.get(usize::from(slot.number())).copied().filter(|owner| *owner != NOBODY)
    }
}

/// What one node says of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who serves what.
    pub slots: Slots,
    /// The highest epoch that it has heard of: every change of who serves what begins a new one.
    pub epoch: u64,
    /// Whether it finds the cluster in order. A node that is cut off with the minority does not, after a while.
    pub is_ok: bool,
}

impl Answer {
    /// Of what the node at `answerer` says to `CLUSTER SLOTS` and `CLUSTER INFO`; the latter may be refused.
    ///
    /// # Errors
    /// As [`Slots::read`].
    pub fn read(slots: Frame, info: Option<&Frame>, answerer: &HostPort) -> Result<Self, Wrong> {
        let info = info.and_then(reply::text).unwrap_or_default();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(Self {
            slots: Slots::read(slots, answerer)?,
            epoch: field("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
            is_ok: field("cluster_state").is_none_or(|state| state == "ok"),
        })
    }
}

/// The answer to believe: of those from nodes that find the cluster in order, if there are any, what most say; of what
/// as many say, the newest. The epoch alone would not do: a replica that is cut off and wants to be a primary counts it up.
pub fn choose(answers: Vec<Answer>) -> Option<Answer> {
    let votes = |answer: &Answer| answers.iter().filter(|other| other.slots.agree(&answer.slots)).count();
    let ranks: Vec<_> = answers.iter().map(|answer| (answer.is_ok, votes(answer), answer.epoch)).collect();
    // The first of equals is from the node that was asked first.
    let (_, best) = ranks.into_iter().zip(answers).rev().max_by_key(|(rank, _)| *rank)?;
    Some(best)
}

fn read_slot(frame: Option<Frame>) -> Result<Slot, Wrong> {
    match frame {
        Some(Frame::Integer(number)) => u16::try_from(number).ok().and_then(Slot::new).ok_or(Wrong::Unexpected),
        _ => Err(Wrong::Unexpected),
    }
}

/// Reads `[host, port, id, [name, value ...]]`, of which older versions have less. A host that is nil or empty is the
/// one that was asked; `?` is one that nobody knows.
fn read_node(frame: Frame, answerer: &HostPort) -> Result<Option<Node>, Wrong> {
    let items = reply::items(frame)?;
    let (Some(host), Some(port)) = (items.first(), items.get(1).and_then(reply::port)) else {
        return Err(Wrong::Unexpected);
    };
    let host = match host {
        Frame::Null => &answerer.host,
        other => match reply::text(other).ok_or(Wrong::Unexpected)? {
            "" => &answerer.host,
            "?" => return Ok(None),
            host if reply::is_host(host) => host,
            _ => return Err(Wrong::Unexpected),
        },
    };
    let id = items.get(2).and_then(reply::text).unwrap_or_default().to_owned();
    let name = match items.get(3) {
        Some(Frame::Array(more)) => hostname(more),
        _ => None,
    };
    Ok(Some(Node { addr: HostPort { host: host.to_owned(), port }, name, id }))
}

/// What stands behind `hostname` among names and values.
fn hostname(more: &[Frame]) -> Option<String> {
    let (pairs, _) = more.as_chunks::<2>();
    let value = pairs.iter().find_map(|[name, value]| (reply::text(name)? == "hostname").then_some(value));
    value.and_then(reply::text).filter(|name| reply::is_host(name)).map(str::to_owned)
}

#[cfg(test)]
mod tests;
