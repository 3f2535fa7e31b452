//! One worker's queues before the nodes, and which of them a question goes to.

use super::backend::Backend;
use super::job::{Job, Work};
use super::node::Node;
use super::nodes::{Kind, Nodes};
use super::queue::Queue;
use super::redis::Redis;
use super::shares::Shares;
use crate::stats::Stats;
use crate::store::redis::RedisStore;
use crate::topology::slot::Slot;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// A worker's queues.
pub struct Routes {
    backend: Arc<Backend>,
    stats: Arc<Stats>,
    /// What this worker may admit without asking.
    pub shares: RefCell<Shares>,
    table: RefCell<Table>,
    /// Queues that nobody serves yet.
    unserved: RefCell<Vec<Rc<Queue>>>,
    is_unserved: Notify,
    /// How often the first node was another than before, and who waits for that.
    first_changes: Cell<u64>,
    first_changed: Arc<Notify>,
}

struct Table {
    nodes: Arc<Nodes>,
    /// One for each node, in their order.
    queues: Vec<Rc<Queue>>,
}

impl Routes {
    /// The queues before the nodes of a backend that has some.
    pub fn new(backend: Arc<Backend>, stats: Arc<Stats>) -> Option<Self> {
        let nodes = backend.redis()?.directory.nodes();
        let queues: Vec<_> = nodes.all().iter().map(|node| Rc::new(Queue::new(node.clone(), stats.clone()))).collect();
        let unserved = RefCell::new(queues.clone());
        let is_unserved = Notify::new();
        is_unserved.notify_one();
        let table = RefCell::new(Table { nodes, queues });
        let (first_changes, first_changed) = (Cell::new(0), Arc::default());
        let shares = RefCell::default();
        Some(Self { backend, stats, shares, table, unserved, is_unserved, first_changes, first_changed })
    }

    /// What the workers share.
    pub fn redis(&self) -> Option<&Redis> {
        self.backend.redis()
    }

    /// The worker's counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the nodes are.
    pub fn kind(&self) -> Kind {
        self.table.borrow().nodes.kind
    }

    /// The queue before the node that counts for a key, and, in a cluster, the slot of its logs. `None` where no node
    /// serves that.
    pub fn queue_of(&self, key: &[u8]) -> Option<(Rc<Queue>, Option<Slot>)> {
        self.queue_by(|store| store.slot_of(key))
    }

    /// The same of a throttle's key, by its name in Redis.
    pub fn queue_of_name(&self, name: &[u8]) -> Option<(Rc<Queue>, Option<Slot>)> {
        self.queue_by(|_| Slot::of(name))
    }

    fn queue_by(&self, slot: impl FnOnce(&RedisStore) -> Slot) -> Option<(Rc<Queue>, Option<Slot>)> {
        let Table { nodes, queues } = &*self.table.borrow();
        if nodes.slots.is_none() {
            return queues.first().map(|queue| (queue.clone(), None));
        }
        let slot = slot(&self.redis()?.store);
        queues.get(nodes.owner(slot)?).map(|queue| (queue.clone(), Some(slot)))
    }

    /// The queue before the node that keeps the registry.
    pub fn registry_queue(&self) -> Option<Rc<Queue>> {
        let Table { nodes, queues } = &*self.table.borrow();
        queues.get(nodes.owner(self.redis()?.store.registry_slot())?).cloned()
    }

    /// The queue before a node.
    pub fn queue_before(&self, node: &Arc<Node>) -> Option<Rc<Queue>> {
        self.table.borrow().queues.iter().find(|queue| Arc::ptr_eq(&queue.node, node)).cloned()
    }

    /// The first queue, whatever its node serves.
    pub fn first(&self) -> Option<Rc<Queue>> {
        self.table.borrow().queues.first().cloned()
    }

    /// How often that was before another node than the time before.
    pub fn first_changes(&self) -> u64 {
        self.first_changes.get()
    }

    /// Tells of the next time.
    pub fn first_changed(&self) -> Arc<Notify> {
        self.first_changed.clone()
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.table.borrow().queues.len()
    }

    /// Takes note of where the nodes are now. Queues before nodes that are none any more are closed.
    pub fn update(&self) {
        let Some(redis) = self.redis() else { return };
        let nodes = redis.directory.nodes();
        let mut table = self.table.borrow_mut();
        if nodes.epoch == table.nodes.epoch {
            return;
        }
        let mut before = std::mem::take(&mut table.queues);
        for node in nodes.all() {
            let known = before.iter().position(|queue| Arc::ptr_eq(&queue.node, node));
            let known = known.map(|place| before.swap_remove(place));
            // Slots may have come with logs of which another clock has told.
            known.iter().for_each(|queue| queue.forget_ttls());
            let queue = known.unwrap_or_else(|| {
                let queue = Rc::new(Queue::new(node.clone(), self.stats.clone()));
                self.unserved.borrow_mut().push(queue.clone());
                self.is_unserved.notify_one();
                queue
            });
            table.queues.push(queue);
        }
        if nodes.all().first().map(Arc::as_ptr) != table.nodes.all().first().map(Arc::as_ptr) {
            self.first_changes.set(self.first_changes.get() + 1);
            self.first_changed.notify_waiters();
        }
        table.nodes = nodes;
        before.iter().for_each(|queue| queue.close());
    }

    /// Follows the nodes, and passes each queue that nobody serves to `serve`, until dropped.
    pub async fn follow(&self, serve: impl Fn(Rc<Queue>)) {
        let Some(redis) = self.redis() else { return };
        let mut changes = redis.directory.changes();
        loop {
            self.update();
            self.unserved.take().into_iter().for_each(&serve);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.is_unserved.notified() => {}
            }
        }
    }

    /// Passes a job on that the node of `from` has not run, to whoever counts for its keys now; those of several nodes in
    /// parts. Gives back what nobody counts for.
    pub fn pass_on(&self, job: Job, from: &Queue) -> Vec<Job> {
        let parts = match &job.work {
            Work::Ask { batch, .. } if batch.items().len() > 1 => self.parts(job),
            Work::Throttle(batch) if batch.len() > 1 => self.parts(job),
            _ => vec![job],
        };
        parts.into_iter().filter_map(|job| self.pass_whole(job, from)).collect()
    }

    /// In one piece, if a single node counts for it all.
    fn parts(&self, mut job: Job) -> Vec<Job> {
        match self.kind() {
            Kind::Cluster => job.split_off(|_| true),
            Kind::Single | Kind::Sentinel => vec![job],
        }
    }

    fn pass_whole(&self, mut job: Job, from: &Queue) -> Option<Job> {
        let found = match self.redis().and_then(|redis| job.work.slot(&redis.store)) {
            Some(slot) => self.queue_by(|_| slot),
            None => self.registry_queue().map(|queue| (queue, None)),
        };
        let Some((queue, slot)) = found else { return Some(job) };
        (job.slot, job.is_asking) = (slot, false);
        queue.adopt(job, from);
        None
    }

    /// Whether something of shares is on its way back, or waits for that.
    pub fn is_giving_back(&self) -> bool {
        self.table.borrow().queues.iter().any(|queue| queue.is_giving_back())
    }

    /// Wakes all who send, because what some of them wait for may be there.
    pub fn wake(&self) {
        self.table.borrow().queues.iter().for_each(|queue| queue.wake());
    }
}
