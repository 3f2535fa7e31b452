//! A private Redis Cluster.

use super::{PATIENCE, RedisServer, Reply, installed, wait_until};
use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tollgate::topology::slot::Slot;

/// How many slots a cluster has.
const SLOTS: usize = 16_384;
/// How long a node is silent before the others take it to be down. Less, and a busy machine is taken for that.
const NODE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Longer than the cluster takes to agree on anything, a failover of a node that is gone included.
const AGREEMENT: Duration = Duration::from_secs(40);

/// A cluster of nodes on free ports. They are numbered: first the primaries, then the replicas, and keep their numbers
/// whatever becomes of them.
pub struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    server: RedisServer,
    id: String,
    /// Neither killed nor stopped.
    is_up: bool,
    /// Serves nothing when the cluster begins, and is nobody's replica.
    is_spare: bool,
}

/// A slot that is on its way from one node to another: what is asked of it meets ASK and TRYAGAIN.
#[derive(Debug, Clone, Copy)]
pub struct SlotMove {
    pub slot: usize,
    pub from: usize,
    pub to: usize,
}

/// A word whose slot as a key of Tollgate's is this, by its logs' names.
pub fn key_in(slot: usize) -> String {
    let mut keys = (0..).map(|number| format!("k{number}"));
    keys.find(|key| usize::from(Slot::of(key.as_bytes()).number()) == slot).unwrap()
}

/// Who serves some slots: the first and last, the primary's id and those of its replicas.
type Stretch = (i64, i64, String, BTreeSet<String>);

impl Cluster {
    /// Three primaries, 0 to 2, and a replica of each, 3 to 5.
    pub fn start() -> Self {
        Self::of(3, true, &[])
    }

    /// Three primaries without replicas: what one of them serves nobody serves while it is away.
    pub fn of_three() -> Self {
        Self::of(3, false, &[])
    }

    /// One node that serves all slots.
    pub fn of_one() -> Self {
        Self::of_one_with(&[])
    }

    /// The same with more options of redis-server.
    pub fn of_one_with(options: &[&str]) -> Self {
        Self::of(1, false, options)
    }

    fn of(primaries: usize, has_replicas: bool, options: &[&str]) -> Self {
        let count = if has_replicas { 2 * primaries } else { primaries };
        let nodes = thread::scope(|scope| {
            let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| Node::start(options))).collect();
            starting.into_iter().map(|node| node.join().unwrap()).collect()
        });
        let cluster = Self { nodes };
        cluster.share_slots(primaries);
        cluster.meet();
        for replica in primaries..count {
            let primary = cluster.id(replica - primaries);
            // It has to have heard of its primary.
            wait_until(PATIENCE, || cluster.command(replica, &["CLUSTER", "REPLICATE", primary]) == ok());
        }
        cluster.wait_until_agreed();
        cluster
    }

    /// Adds a node that serves nothing yet. Its number.
    pub fn add_spare(&mut self) -> usize {
        self.nodes.push(Node { is_spare: true, ..Node::start(&[]) });
        let spare = self.nodes.len() - 1;
        self.meet();
        let knows_all = |node| {
            let info = self.command(node, &["CLUSTER", "INFO"]).text();
            info.contains(&format!("cluster_known_nodes:{}\r", self.nodes.len()))
        };
        wait_until(AGREEMENT, || self.up().all(knows_all));
        self.wait_until_agreed();
        spare
    }

    fn share_slots(&self, primaries: usize) {
        for node in 0..primaries {
            let slots = node * SLOTS / primaries..(node + 1) * SLOTS / primaries;
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            let words: Vec<&str> =
                ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
            assert_eq!(self.command(node, &words), ok());
            // Without an epoch of its own each would first have to win one from the others.
            let epoch = (node + 1).to_string();
            assert_eq!(self.command(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), ok());
        }
    }

    /// Has all nodes know each other. On a busy machine a handshake may take longer than it may, and is begun anew.
    fn meet(&self) {
        let mut first = self.server(0).client();
        let mut all_met = |patience: Duration| {
            let begun = Instant::now();
            loop {
                let nodes = first.line("CLUSTER NODES").text();
                if nodes.lines().count() == self.nodes.len() && !nodes.contains("handshake") {
                    return true;
                }
                if begun.elapsed() > patience {
                    return false;
                }
                thread::sleep(Duration::from_millis(5));
            }
        };
        let mut other = self.server(0).client();
        wait_until(AGREEMENT, || {
            for node in &self.nodes[1..] {
                let addr = node.server.addr();
                other.line(&format!("CLUSTER MEET {} {}", addr.ip(), addr.port()));
            }
            all_met(2 * NODE_TIMEOUT)
        });
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Its address, by some of the nodes that it began with.
    pub fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().take(3).map(|node| node.server.addr().to_string()).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    pub fn server(&self, node: usize) -> &RedisServer {
        &self.nodes[node].server
    }

    pub fn id(&self, node: usize) -> &str {
        &self.nodes[node].id
    }

    /// Runs one command on a node.
    #[track_caller]
    pub fn command(&self, node: usize, words: &[&str]) -> Reply {
        self.server(node).client().cmd(words)
    }

    /// The node that serves a key's slot, as those that are up see it.
    #[track_caller]
    pub fn node_of(&self, key: &str) -> usize {
        let asked = self.up().next().unwrap();
        let slot = self.command(asked, &["CLUSTER", "KEYSLOT", key]).integer();
        let layout = self.layout(asked);
        let stretch = layout.iter().find(|(first, last, ..)| (*first..=*last).contains(&slot));
        self.number(&stretch.expect("somebody serves it").2)
    }

    /// The replicas of a primary.
    pub fn replicas_of(&self, primary: usize) -> Vec<usize> {
        let layout = self.layout(self.up().next().unwrap());
        let stretch = layout.iter().find(|(_, _, id, _)| id == self.id(primary));
        stretch.map(|(.., replicas)| replicas.iter().map(|id| self.number(id)).collect()).unwrap_or_default()
    }

    /// Ends a node at once, as a crash would.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].is_up = false;
        self.nodes[node].server.kill();
    }

    /// Starts a node again that was killed: it has nothing but what it knew of the cluster.
    pub fn start_again(&mut self, node: usize) {
        self.nodes[node].server.start_again();
        self.nodes[node].is_up = true;
    }

    /// Has the cluster tell clients another port of a node: that of a proxy before it.
    pub fn announce(&self, node: usize, port: u16) {
        self.command(node, &["CONFIG", "SET", "cluster-announce-port", &port.to_string()]);
        let is_told = |asked: usize| {
            let slots = self.command(asked, &["CLUSTER", "SLOTS"]);
            let ports = slots.items().iter().map(|stretch| stretch.items()[2].items()[1].integer());
            ports.into_iter().any(|told| told == i64::from(port))
        };
        wait_until(AGREEMENT, || self.up().all(is_told));
    }

    /// A key that a node serves.
    pub fn key_on(&self, node: usize) -> String {
        self.keys_on(node, 1).remove(0)
    }

    /// So many of them.
    pub fn keys_on(&self, node: usize, count: usize) -> Vec<String> {
        let layout = self.layout(self.up().next().unwrap());
        let serves = |key: &String| {
            let slot = i64::from(Slot::of(key.as_bytes()).number());
            layout.iter().any(|(first, last, id, _)| (*first..=*last).contains(&slot) && id == self.id(node))
        };
        (0..).map(|number| format!("on{number}")).filter(serves).take(count).collect()
    }

    /// Ends the connections on which a primary's replicas follow it.
    pub fn lose_replicas(&self, primary: usize) {
        self.command(primary, &["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// Makes a node hang, as one that is cut off.
    pub fn stop(&mut self, node: usize) {
        self.nodes[node].is_up = false;
        self.server(node).stop();
    }

    /// Ends a [`Cluster::stop`].
    pub fn cont(&mut self, node: usize) {
        self.server(node).cont();
        self.nodes[node].is_up = true;
    }

    /// Has a replica take its primary's place, with all that the primary has.
    pub fn failover(&self, replica: usize) {
        assert_eq!(self.command(replica, &["CLUSTER", "FAILOVER"]), ok());
        self.wait_until_primary(replica);
    }

    /// Waits until a node serves slots, and everybody who is up knows.
    pub fn wait_until_primary(&self, node: usize) {
        wait_until(AGREEMENT, || self.layout(node).iter().any(|(_, _, id, _)| id == self.id(node)));
        self.wait_until_agreed();
    }

    /// Begins to move a slot: keys that are there are answered where it comes from, others where it goes to.
    #[track_caller]
    pub fn begin_move(&self, slot: usize, to: usize) -> SlotMove {
        let number = slot.to_string();
        let layout = self.layout(to);
        let stretch = layout.iter().find(|(first, last, ..)| (*first..=*last).contains(&(slot as i64))).unwrap();
        let from = self.number(&stretch.2);
        assert_eq!(self.command(to, &["CLUSTER", "SETSLOT", &number, "IMPORTING", self.id(from)]), ok());
        assert_eq!(self.command(from, &["CLUSTER", "SETSLOT", &number, "MIGRATING", self.id(to)]), ok());
        SlotMove { slot, from, to }
    }

    /// Moves those of some keys of a slot that is on its way that are there.
    #[track_caller]
    pub fn move_keys(&self, SlotMove { from, to, .. }: SlotMove, keys: &[&str]) {
        let (addr, patience_ms) = (self.server(to).addr(), PATIENCE.as_millis().to_string());
        let (host, port) = (addr.ip().to_string(), addr.port().to_string());
        let words = ["MIGRATE", &host, &port, "", "0", &patience_ms, "KEYS"];
        let outcome = self.command(from, &[&words, keys].concat()).text();
        assert!(["OK", "NOKEY"].contains(&outcome.as_str()), "{outcome}");
    }

    /// Moves what is left of a slot, and tells its nodes who serves it from now on.
    #[track_caller]
    pub fn end_move(&self, slot_move: SlotMove) {
        let SlotMove { slot, from, to } = slot_move;
        let number = slot.to_string();
        loop {
            let keys = self.command(from, &["CLUSTER", "GETKEYSINSLOT", &number, "100"]);
            let keys: Vec<String> = keys.items().iter().map(Reply::text).collect();
            if keys.is_empty() {
                break;
            }
            self.move_keys(slot_move, &keys.iter().map(String::as_str).collect::<Vec<_>>());
        }
        // First where it goes to: else nobody would serve it for a moment.
        for node in [to, from] {
            assert_eq!(self.command(node, &["CLUSTER", "SETSLOT", &number, "NODE", self.id(to)]), ok());
        }
        self.wait_until_agreed();
    }

    /// Moves so many slots from one node to another by redis-cli, as operators do, and returns when it is done.
    pub fn reshard(&self, slots: usize, from: usize, to: usize) {
        let cli = installed(&["redis-cli", "valkey-cli"]).expect("redis-cli or valkey-cli is to be installed");
        let output = Command::new(cli)
            .args(["--cluster", "reshard", &self.server(0).addr().to_string(), "--cluster-yes"])
            .args(["--cluster-from", self.id(from), "--cluster-to", self.id(to)])
            .args(["--cluster-slots", &slots.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "reshard: {}", String::from_utf8_lossy(&output.stdout));
        self.wait_until_agreed();
    }

    /// Waits until all nodes that are up find the cluster in order, and agree on who serves what, all of them included.
    #[track_caller]
    pub fn wait_until_agreed(&self) {
        let is_ok = |node| self.command(node, &["CLUSTER", "INFO"]).text().contains("cluster_state:ok");
        let has = |(_, _, primary, replicas): &Stretch, id: &str| primary == id || replicas.contains(id);
        wait_until(AGREEMENT, || {
            let layout = self.layout(self.up().next().unwrap());
            // A replica is not among them before it has something from its primary.
            let is_among = |node| layout.iter().any(|stretch| has(stretch, self.id(node)));
            let has_all = self.up().all(|node| self.nodes[node].is_spare || is_among(node));
            has_all && self.up().all(is_ok) && self.up().all(|node| self.layout(node) == layout)
        });
    }

    fn up(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].is_up)
    }

    /// Who serves what, as a node sees it.
    fn layout(&self, node: usize) -> Vec<Stretch> {
        let slots = self.command(node, &["CLUSTER", "SLOTS"]);
        let id_of = |node: &Reply| node.items()[2].text();
        let stretch_of = |stretch: &Reply| {
            let [first, last, primary, replicas @ ..] = stretch.items() else { panic!("no stretch: {stretch:?}") };
            (first.integer(), last.integer(), id_of(primary), replicas.iter().map(id_of).collect())
        };
        slots.items().iter().map(stretch_of).collect()
    }

    fn number(&self, id: &str) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("a node of this cluster")
    }
}

impl Node {
    fn start(options: &[&str]) -> Self {
        let timeout_ms = NODE_TIMEOUT.as_millis().to_string();
        let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", &timeout_ms];
        // A replica is told of, and its primary takes it, as soon as it can be.
        let soon = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        // However long it was away from its primary, a replica may follow it; and none moves to another primary.
        let steady = ["--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"];
        // A node that is lost is no reason for the others to serve nothing.
        let apart = ["--cluster-require-full-coverage", "no"];
        let server = RedisServer::start_with(&[&own[..], &soon, &steady, &apart, options].concat());
        let id = server.command("CLUSTER MYID").text();
        Self { server, id, is_up: true, is_spare: false }
    }
}

fn ok() -> Reply {
    Reply::Status("OK".to_owned())
}
