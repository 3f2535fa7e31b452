//! What holds now, for all threads: whoever changes it puts another in its place, and each worker looks at a number to
//! know whether it has the last.

use super::Policies;
use std::cell::{Cell, Ref, RefCell};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, Mutex, PoisonError};

/// What holds now.
#[derive(Debug, Default)]
pub struct LivePolicies {
    version: AtomicU64,
    policies: Mutex<Arc<Policies>>,
}

impl LivePolicies {
    /// What holds at this moment.
    pub fn get(&self) -> Arc<Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it. Returns what it was changed to.
    pub fn update<T>(&self, change: impl FnOnce(&mut Policies) -> T) -> T {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(Arc::make_mut(&mut policies));
        self.version.fetch_add(1, Release);
        changed
    }
}

/// One worker's copy.
#[derive(Debug)]
pub struct PolicyView {
    live: Arc<LivePolicies>,
    version: Cell<u64>,
    policies: RefCell<Arc<Policies>>,
}

impl PolicyView {
    /// A copy of what holds.
    pub fn new(live: Arc<LivePolicies>) -> Self {
        let version = live.version.load(Acquire);
        let policies = RefCell::new(live.get());
        Self { live, version: Cell::new(version), policies }
    }

    /// What holds now. To be let go of before it is asked for again.
    pub fn get(&self) -> Ref<'_, Policies> {
        let version = self.live.version.load(Acquire);
        if self.version.get() != version {
            // Whoever changes it again meanwhile raises the number after this one was read.
            self.version.set(version);
            self.policies.replace(self.live.get());
        }
        Ref::map(self.policies.borrow(), |policies| &**policies)
    }
}
