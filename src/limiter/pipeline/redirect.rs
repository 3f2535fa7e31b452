//! What a node of a cluster has not run because its slot is elsewhere, or on its way: it is asked of the node that is
//! named, or again a little later.

use super::Pipeline;
use crate::clock::now_us;
use crate::limiter::grants;
use crate::limiter::job::{Job, Work};
use crate::limiter::nodes::Kind;
use crate::limiter::scatter;
use crate::store::connection::Error;
use crate::topology::redirect::Redirect;
use std::time::Duration;

/// Most nodes that pass a question on. A slot that moves does so once; nodes that disagree may pass it to and fro.
pub(super) const MAX_HOPS: u8 = 5;
/// Wait before a question is asked again whose logs are partly here and partly there.
const TRY_AGAIN: Duration = Duration::from_millis(5);

impl Pipeline<'_> {
    /// The node has not run a job, and says why.
    pub(super) fn on_redirected(&mut self, mut job: Job, redirect: Redirect, error: &Error) {
        let directory = &self.redis.directory;
        job.hops += 1;
        if job.hops > MAX_HOPS || job.work.lane().is_none() {
            directory.doubt();
            if let Work::GiveBack { rests, .. } = job.work {
                return grants::try_again(self.routes, rests);
            }
            return self.completion().give_up(job, now_us());
        }
        match redirect {
            Redirect::Moved(slot, target) => {
                self.queue.stats.redirects.add(1);
                if let Some(target) = target {
                    directory.moved(slot, target, self.node);
                }
                self.pass_on(job);
            }
            Redirect::Ask(_, target) => {
                self.queue.stats.redirects.add(1);
                let node = target.and_then(|target| directory.named(target, self.node));
                self.routes.update();
                match node.and_then(|node| self.routes.queue_before(&node)) {
                    Some(queue) => {
                        // With its keys declared, a node that a slot is on its way to runs nothing before all of them
                        // are there, and new ones never are. But the slot has none of them where it comes from, or this
                        // would not have been said; so those that are not there are nowhere, and can be made.
                        let may_make = self.node.asks_for_all() && !queue.node.declares_keys();
                        let slot = job.slot.filter(|_| !may_make);
                        queue.adopt(Job { slot, is_asking: true, ..job }, self.queue);
                    }
                    None => self.completion().give_up(job, now_us()),
                }
            }
            Redirect::TryAgain => {
                self.queue.stats.try_agains.add(1);
                if let Work::Reset(reset) = &mut job.work {
                    // Each log by itself is somewhere.
                    reset.take_one_log_at_a_time();
                    return self.pass_on(job);
                }
                // What is asked anew is not what is passed to and fro.
                job.hops = 0;
                self.ask_later(job);
            }
            // What it does not serve it is not to be asked for, but there is nothing wrong with it.
            Redirect::NotLocal | Redirect::ReadOnly => {
                directory.doubt();
                self.ask_later(job);
            }
            Redirect::ClusterDown | Redirect::CrossSlot => {
                directory.doubt();
                let now_us = now_us();
                self.completion().give_up(job, now_us);
                if self.node.health.lost(error, now_us) {
                    self.disconnect(error);
                }
            }
        }
    }

    /// Has whoever counts for the keys of a job be asked. The fallback answers if nobody does.
    pub(super) fn pass_on(&self, job: Job) {
        self.routes.update();
        let is_undivided = self.routes.kind() == Kind::Cluster && job.slot.is_none();
        match &job.work {
            // Asked of what has since turned out to be a cluster.
            Work::Reset(reset) if is_undivided && !reset.keys_left().is_empty() => {
                let keys = reset.keys_left().to_vec();
                for waiter in self.queue.let_go(job) {
                    tokio::task::spawn_local(scatter::reset(self.routes.clone(), keys.clone(), waiter));
                }
                return;
            }
            Work::Record { records, writer, .. } => return self.node.ledger.not_written(records, *writer),
            Work::GiveBack { rests, .. } => return grants::try_again(self.routes, rests.clone()),
            Work::Register { .. } | Work::Asking => return,
            Work::Ask { .. } | Work::Throttle(_) | Work::Reset(_) | Work::Inspect(_) => {}
        }
        for job in self.routes.pass_on(job, self.queue) {
            self.completion().give_up(job, now_us());
        }
    }

    /// Has a job be asked a little later, of whoever counts for it then.
    pub(super) fn ask_later(&self, job: Job) {
        if job.work.lane().is_none() {
            // Nobody waits for it: it comes up again by itself.
            return self.pass_on(job);
        }
        let (routes, queue) = (self.routes.clone(), self.queue.clone());
        let left_us = job.next_due_us().map_or(0, |due_us| due_us.saturating_sub(now_us()));
        let pause = TRY_AGAIN.min(Duration::from_micros(left_us));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            routes.update();
            for job in routes.pass_on(job, &queue) {
                // What nobody counts for waits for that until it is due, where somebody looks.
                if let Some(first) = routes.first() {
                    first.adopt(job, &queue);
                }
            }
        });
    }
}
