//! Policies that are changed while Tollgate runs: one task of the process takes the orders of all who give any, and says
//! when each is in force.
//!
//! ```text
//! RL.POLICY ──► orders ──► the hash in Redis ──► told to every Tollgate ──► in force here ──► the reply
//!                  └─ embedded ─────────────────────────────────────────────────┘
//! ```
//! Whatever comes of Redis, what holds goes on to hold.

mod follow;

use super::backend::Backend;
use crate::clock;
use crate::policy::live::LivePolicies;
use crate::policy::{Change, Mode, Order, Target, Until};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

/// Most orders that wait.
const MAX_ORDERS: usize = 1024;
/// Most overrides that are set together, which bounds the time that a script holds Redis up.
const MAX_TOGETHER: usize = 256;
/// How long an order waits for Redis to be there.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether something is over.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Most that is given up at a time of what is over.
const MAX_ENDED: usize = 100;

/// What became of an order.
#[derive(Debug)]
pub enum Outcome {
    /// It is in force.
    Done,
    /// It is in force, and there was something to be taken back, or not.
    Removed(bool),
    /// It is not, for this reason, which is the reply.
    Refused(String),
}

/// Who gives an order, for the log.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The user.
    pub user: String,
    /// The address.
    pub peer: String,
}

/// Keeps policies as they were said to running Tollgates.
pub struct Keeper {
    live: Arc<LivePolicies>,
    sender: mpsc::Sender<Asked>,
    /// Taken by the task.
    orders: Mutex<Option<Orders>>,
    known: Mutex<Known>,
    /// Whether the policies were read, or could not be.
    has_begun: watch::Sender<bool>,
}

/// What is known of what Redis keeps.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The version that holds here, 0 if nothing was ever said.
    pub version: u64,
    /// When all of it was read last.
    pub read_at: Option<SystemTime>,
    /// Fields that cannot be read, and so do not hold.
    pub unreadable: usize,
    /// Why it is not heard of changes, in words. Empty as long as it is.
    pub problem: String,
}

impl Known {
    /// When all of it was read last, in unix time; 0 if it never was.
    pub fn read_unix_ms(&self) -> u64 {
        let since_1970 = self.read_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        since_1970.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

struct Asked {
    order: Order,
    by: Operator,
    since: Instant,
    reply: oneshot::Sender<Outcome>,
}

impl Keeper {
    /// One that keeps nothing yet.
    pub fn new(live: Arc<LivePolicies>) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_ORDERS);
        let orders = Mutex::new(Some(Orders { receiver, next: VecDeque::new() }));
        Self { live, sender, orders, known: Mutex::default(), has_begun: watch::Sender::new(false) }
    }

    /// Gives an order. What became of it comes later; `None` if there are too many already.
    pub fn order(&self, order: Order, by: Operator) -> Option<oneshot::Receiver<Outcome>> {
        let (reply, outcome) = oneshot::channel();
        self.sender.try_send(Asked { order, by, since: Instant::now(), reply }).ok()?;
        Some(outcome)
    }

    /// What is known of what Redis keeps.
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    /// Returns once what Redis keeps was read for the first time, or could not be.
    pub async fn begun(&self) {
        let _ = self.has_begun.subscribe().wait_for(|has_begun| *has_begun).await;
    }

    /// Carries out orders, and hears of those of others, for as long as it is polled.
    pub async fn keep(&self, backend: &Backend) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut orders) = orders else { return };
        match backend.redis() {
            Some(redis) => follow::follow(self, redis, &mut orders).await,
            None => self.keep_here(&mut orders).await,
        }
    }

    /// Keeps them in memory, for as long as the process lives.
    async fn keep_here(&self, orders: &mut Orders) {
        self.has_begun.send_replace(true);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                asked = orders.together() => asked.into_iter().for_each(|asked| self.carry_out_here(asked)),
                _ = looks.tick() => {
                    let ended = self.live.get().ended(clock::now_us(), MAX_ENDED);
                    self.apply(ended.into_iter().map(Change::undone));
                }
            }
        }
    }

    fn carry_out_here(&self, asked: Asked) {
        let clock = Clock::of_system();
        match self.live.get().changes(&asked.order, 0, |ms| clock.after(ms)) {
            Ok(changes) => {
                let line = self.line(&changes);
                let any = !changes.is_empty();
                self.apply(changes);
                self.lock().version += u64::from(any);
                asked.succeed(any, line);
            }
            Err(error) => asked.fail(error.to_string()),
        }
    }

    fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_some() {
            self.live.update(|policies| changes.for_each(|change| policies.apply(change)));
        }
    }

    /// What the log will tell of changes that are yet to be made: the first, and how many.
    fn line(&self, changes: &[Change]) -> Option<Line> {
        let first = changes.first()?;
        let or_nothing = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
        Some(Line {
            what: String::from_utf8_lossy(&first.field()).into_owned(),
            was: or_nothing(self.live.get().standing(first)),
            is: or_nothing(first.value()),
            changes: changes.len(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the log tells of an order.
struct Line {
    what: String,
    was: String,
    is: String,
    changes: usize,
}

impl Asked {
    /// It is in force, and has changed something, or nothing.
    fn succeed(self, any: bool, line: Option<Line>) {
        let Operator { user, peer } = &self.by;
        if let Some(Line { what, was, is, changes }) = line {
            let ends_all = match &self.order {
                Order::Switch(Target::All, Some((mode, _))) => matches!(mode, Mode::Off | Mode::Block),
                _ => false,
            };
            match ends_all {
                true => warn!(user, peer, what, was, is, "the mode of all policies was changed"),
                false => info!(user, peer, what, was, is, changes, "policies were changed"),
            }
        }
        let outcome = if self.order.is_deletion() { Outcome::Removed(any) } else { Outcome::Done };
        let _ = self.reply.send(outcome);
    }

    fn fail(self, why: String) {
        let _ = self.reply.send(Outcome::Refused(why));
    }
}

/// Orders, in the order in which they were given.
struct Orders {
    receiver: mpsc::Receiver<Asked>,
    /// Those that come first.
    next: VecDeque<Asked>,
}

impl Orders {
    /// The next one; or several, if all of them set overrides: none of these can matter to another. Dropped before there
    /// is one, nothing is lost.
    async fn together(&mut self) -> Vec<Asked> {
        let is_override = |asked: &Asked| matches!(asked.order, Order::Override(..));
        if self.next.is_empty() {
            match self.receiver.recv().await {
                Some(asked) => self.next.push_back(asked),
                // Nobody can give any more.
                None => std::future::pending().await,
            }
        }
        let mut together: Vec<_> = self.next.pop_front().into_iter().collect();
        while together.first().is_some_and(is_override) && together.len() < MAX_TOGETHER {
            let Some(asked) = self.next.pop_front().or_else(|| self.receiver.try_recv().ok()) else { break };
            if !is_override(&asked) {
                self.next.push_front(asked);
                break;
            }
            together.push(asked);
        }
        together
    }

    /// They are to be carried out again, as they were not.
    fn put_back(&mut self, orders: Vec<Asked>) {
        orders.into_iter().rev().for_each(|asked| self.next.push_front(asked));
    }

    /// Refuses those that have waited for too long, in the words of `why`, for as long as it is polled.
    async fn refuse_late(&mut self, why: impl Fn() -> String) {
        loop {
            let Some(first) = self.next.front() else {
                match self.receiver.recv().await {
                    Some(asked) => self.next.push_back(asked),
                    None => std::future::pending().await,
                }
                continue;
            };
            sleep_until(first.since + PATIENCE).await;
            if let Some(asked) = self.next.pop_front() {
                asked.fail(why());
            }
        }
    }
}

/// How a clock that tells unix time stands to this process's.
#[derive(Debug, Clone, Copy)]
struct Clock {
    unix_us: u64,
    now_us: u64,
}

impl Clock {
    fn of_system() -> Self {
        Self { unix_us: clock::unix_us(), now_us: clock::now_us() }
    }

    /// The moment of this unix time.
    fn at(&self, unix_ms: u64) -> Until {
        let left_us = unix_ms.saturating_mul(1000).saturating_sub(self.unix_us);
        let past_us = self.unix_us.saturating_sub(unix_ms.saturating_mul(1000));
        Until { unix_ms, us: self.now_us.saturating_add(left_us).saturating_sub(past_us) }
    }

    /// The moment in so many milliseconds.
    fn after(&self, ms: u64) -> Until {
        let since_us = clock::now_us().saturating_sub(self.now_us);
        self.at((self.unix_us.saturating_add(since_us) / 1000).saturating_add(ms))
    }
}
