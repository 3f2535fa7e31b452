//! A reset of keys that several nodes count for. It is not one step: each node forgets what is its own, and the sum is
//! told once all have answered.

use super::job::{Waiter, Work};
use super::mailbox::{Answer, Mailbox, Refusal};
use super::queue::Queue;
use super::routes::Routes;
use crate::clock::now_us;
use crate::limit::{Counter, Window};
use crate::store::inspect::Inspect;
use crate::store::reset::Reset;
use crate::topology::slot::Slot;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// Keys that are asked about at once. It bounds what waits, of all that one command may name.
const AT_ONCE: usize = 256;

/// Forgets the keys, and tells `waiter` how many had state, or why not all could be asked about. The others are forgotten
/// all the same.
pub(super) async fn reset(routes: Rc<Routes>, keys: Vec<Vec<u8>>, waiter: Waiter) {
    let answer = match list(&routes).await {
        Ok(()) => reset_listed(&routes, &keys).await,
        Err(refusal) => Answer::Refused(refusal),
    };
    waiter.deliver(answer);
}

/// Looks at a key, whose node need not be the one that keeps the registry.
pub(super) async fn inspect(routes: Rc<Routes>, mut inspect: Inspect, waiter: Waiter) {
    let refusal = match (list(&routes).await, routes.redis(), routes.queue_of(inspect.key())) {
        (Err(refusal), ..) => refusal,
        (Ok(()), Some(redis), Some((queue, slot))) if queue.node.health.is_up() => {
            inspect.set_counters(redis.registry.counters());
            let waiter = Waiter { due_us: now_us() + redis.timeout_us, ..waiter };
            return queue.push(Work::Inspect(inspect), slot, waiter);
        }
        (Ok(()), _, Some((queue, _))) => queue.node.health.refusal(),
        (Ok(()), ..) => Refusal::Unavailable,
    };
    waiter.deliver(Answer::Refused(refusal));
}

/// Has the registry's node say which counters are in use.
async fn list(routes: &Routes) -> Result<(), Refusal> {
    let queue = routes.registry_queue().ok_or(Refusal::Unavailable)?;
    let answers = Rc::<Mailbox>::default();
    ask(routes, &queue, Reset::new(Vec::new()), None, &answers)?;
    match all(&answers, 1).await {
        (_, Some(refusal)) => Err(refusal),
        _ => Ok(()),
    }
}

/// Each key is a question of its own, which is redirected alone if its slot has moved.
async fn reset_listed(routes: &Routes, keys: &[Vec<u8>]) -> Answer {
    let Some(redis) = routes.redis() else { return Answer::Refused(Refusal::Unavailable) };
    let mut counters = redis.registry.counters();
    if counters.is_empty() {
        // Others are told of the keys all the same, by a script that may have to declare a log.
        counters.push(Counter::log(Window::MIN));
    }
    let (mut had_state, mut refusal) = (0, None);
    for keys in keys.chunks(AT_ONCE) {
        let answers = Rc::<Mailbox>::default();
        let mut asked = 0;
        for key in keys {
            let mut reset = Reset::new(vec![key.clone()]);
            reset.set_counters(counters.clone());
            let outcome = match routes.queue_of(key) {
                Some((queue, slot)) => ask(routes, &queue, reset, slot, &answers),
                None => Err(Refusal::Unavailable),
            };
            match outcome {
                Ok(()) => asked += 1,
                Err(why) => refusal = Some(why),
            }
        }
        let (sum, why) = all(&answers, asked).await;
        had_state += sum;
        refusal = refusal.or(why);
    }
    refusal.map_or(Answer::Reset(had_state), Answer::Refused)
}

fn ask(routes: &Routes, queue: &Queue, reset: Reset, slot: Option<Slot>, answers: &Rc<Mailbox>) -> Result<(), Refusal> {
    if !queue.node.health.is_up() {
        return Err(queue.node.health.refusal());
    }
    let timeout_us = routes.redis().map_or(0, |redis| redis.timeout_us);
    queue.push(Work::Reset(reset), slot, Waiter::new(answers, 0, now_us() + timeout_us));
    Ok(())
}

/// The sum of so many answers, and why there is none to some of them.
async fn all(answers: &Mailbox, count: usize) -> (u64, Option<Refusal>) {
    let (mut left, mut sum, mut refusal) = (count, 0, None);
    poll_fn(|cx| {
        answers.collect(cx, |(_, answer)| {
            left -= 1;
            match answer {
                Answer::Reset(had_state) => sum += had_state,
                Answer::Refused(why) => refusal = Some(why),
                _ => {}
            }
        });
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (sum, refusal)
}
