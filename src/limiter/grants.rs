//! How a worker's shares are asked for, granted, and given back. What they are stands in [`shares`](super::shares).

use super::job::Waiter;
use super::queue::Queue;
use super::redis::Redis;
use super::reset_marks::Moment;
use super::routes::Routes;
use super::shares::{Grant, Share, Told, Wanted, end_us, lowered, raised};
use crate::limit::{Ask, LimitState, Verb, Verdict, decide};
use crate::store::redis::Rest;
use crate::topology::slot::Slot;
use std::rc::Rc;
use std::time::Duration;

/// How often giving something back is tried. What is not counts until its window has passed.
const TRIES: u8 = 3;
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// To whom a worker turns about a key, and in which slot of a cluster its logs are.
pub(super) struct Way<'a> {
    pub routes: &'a Routes,
    pub redis: &'a Redis,
    pub queue: &'a Queue,
    pub slot: Option<Slot>,
}

impl Way<'_> {
    /// What a share admits. Another is asked for in time.
    pub(super) fn admit(&self, verb: Verb, ask: &Ask<'_>, now_us: u64) -> Option<Verdict> {
        let (hash, since) = self.moment(ask)?;
        let (verdict, wanted) = self.routes.shares.borrow_mut().take(verb, (hash, ask), since, now_us)?;
        if let Some(wanted) = wanted {
            self.ask_for(wanted, (hash, ask), now_us);
        }
        Some(verdict)
    }

    /// A check is on its way that no share has admitted: asks for one, if that is worth it.
    pub(super) fn missed(&self, ask: &Ask<'_>, now_us: u64) {
        let Some((hash, since)) = self.moment(ask) else { return };
        let wanted = self.routes.shares.borrow_mut().missed((hash, ask), since, now_us);
        if let Some(wanted) = wanted {
            self.ask_for(wanted, (hash, ask), now_us);
        }
    }

    /// What a key is known by, and the moment as far as resets of it go. Who does not hear of those has no shares.
    fn moment(&self, ask: &Ask<'_>) -> Option<(u64, Moment)> {
        let hash = self.redis.reset_marks.hash(ask.key);
        self.queue.node.reset_feed_live().then(|| (hash, self.redis.reset_marks.now(hash)))
    }

    fn ask_for(&self, Wanted { ticket, units, life_us }: Wanted, (hash, ask): (u64, &Ask<'_>), now_us: u64) {
        let Self { routes, redis, queue, slot } = *self;
        if !queue.takes_more() {
            return routes.shares.borrow_mut().refused((hash, ask), ticket, None, now_us);
        }
        let limits = lowered(ask.limits, units);
        let waiter = Waiter::of_share(ticket, now_us + redis.timeout_us);
        queue.ask_share(&redis.store, &Ask { limits: &limits, cost: units, ..*ask }, life_us, slot, waiter);
    }
}

/// What was asked of Redis to grant a share: the limits are those under which it was.
pub(super) struct Asked<'a> {
    pub ask: Ask<'a>,
    pub ticket: u64,
    /// The id of its entries.
    pub id: String,
    pub life_us: u64,
    pub sent_us: u64,
}

impl Asked<'_> {
    /// Redis has granted it, or refused, where the limits stood so before. Whether it has granted it.
    pub(super) fn answered(self, routes: &Rc<Routes>, redis: &Redis, before: &[LimitState], now_us: u64) -> bool {
        let units = self.ask.cost;
        let limits = raised(self.ask.limits, units);
        let is_granted = decide(self.ask.limits, before, units).allowed;
        let ask = Ask { limits: &limits, ..self.ask };
        let hash = redis.reset_marks.hash(ask.key);
        let verdict = decide(ask.limits, before, units);
        let window_us = ask.limits.get(usize::from(verdict.binding)).map_or(0, |limit| limit.window.us());
        let told = Told {
            binding: verdict.binding,
            remaining: verdict.remaining,
            empty_at_us: self.sent_us + self.life_us + window_us,
        };
        if !is_granted {
            routes.shares.borrow_mut().refused((hash, &ask), self.ticket, Some(told), now_us);
            return false;
        }
        let mut after = before.to_vec();
        after.iter_mut().zip(ask.limits).for_each(|(state, limit)| limit.count(state, units));
        redis.inform_fallback(&ask, &after, now_us);
        let ends_us = end_us(self.sent_us, self.life_us);
        let grant = Grant { ticket: self.ticket, id: self.id.clone(), units, ends_us };
        if !routes.shares.borrow_mut().granted((hash, &ask), grant, told, now_us) {
            give_back(routes, rest(&ask, self.id, units, 0));
            return true;
        }
        routes.stats().shares.add(1);
        let (routes, key, ticket) = (routes.clone(), Box::<[u8]>::from(ask.key), self.ticket);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_micros(ends_us.saturating_sub(now_us))).await;
            let ask = Ask { key: &key, limits: &limits, cost: 1 };
            let over = routes.shares.borrow_mut().end((hash, &ask), ticket);
            if let Some(share) = over {
                give_back(&routes, rest_of(&ask, share));
            }
        });
        true
    }

    /// There is no answer, or none in time: whether it was granted is not known.
    pub(super) fn not_answered(&self, routes: &Routes, redis: &Redis, now_us: u64) {
        let limits = raised(self.ask.limits, self.ask.cost);
        let (hash, ask) = (redis.reset_marks.hash(self.ask.key), Ask { limits: &limits, ..self.ask });
        routes.shares.borrow_mut().refused((hash, &ask), self.ticket, None, now_us);
    }

    /// It was sent, and nobody will say any more whether it was granted: if it was, it is given back.
    pub(super) fn abandoned(self, routes: &Routes) {
        give_back(routes, rest(&self.ask, self.id, self.ask.cost, 0));
    }
}

fn rest_of(ask: &Ask<'_>, Share { id, granted, left, .. }: Share) -> Rest {
    rest(ask, id, granted, granted - left)
}

fn rest(ask: &Ask<'_>, id: String, granted: u32, used: u32) -> Rest {
    Rest { key: ask.key.into(), limits: ask.limits.into(), id, granted, used, tries: TRIES }
}

/// Has whoever counts for the key be told, soon.
pub(super) fn give_back(routes: &Routes, rest: Rest) {
    routes.stats().units_given_back.add(u64::from(rest.granted - rest.used));
    pass_on(routes, rest);
}

/// Gives back all that the worker holds, because it serves nobody any more. Waits until that is done, or is not to be done
/// in time.
pub(super) async fn end_all(routes: &Routes, redis: &Redis) {
    let mut rests = Vec::new();
    routes.shares.borrow_mut().end_all(|ask, share| rests.push(rest_of(ask, share)));
    rests.into_iter().for_each(|rest| give_back(routes, rest));
    let given_back = async {
        while routes.is_giving_back() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_micros(redis.timeout_us), given_back).await;
}

/// Tries again what was tried in vain, a little later.
pub(super) fn try_again(routes: &Rc<Routes>, rests: Vec<Rest>) {
    let routes = routes.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(TRY_AGAIN).await;
        routes.update();
        rests.into_iter().for_each(|rest| pass_on(&routes, rest));
    });
}

fn pass_on(routes: &Routes, mut rest: Rest) {
    let Some(tries) = rest.tries.checked_sub(1) else { return };
    rest.tries = tries;
    if let Some((queue, slot)) = routes.queue_of(&rest.key) {
        queue.give_back(rest, slot);
    }
}
