//! Redis keeps policies: what was said is one hash there (lua/policy_change.lua), and each change of it is told to all on
//! a channel. Nothing comes into force here but by that channel, in the order of versions, or by reading all of it; so
//! that every Tollgate goes through the same states, and an order is in force when its version has come round.

use super::{Asked, Clock, Keeper, LOOK_EVERY, Line, MAX_ENDED, MAX_TOGETHER, Orders};
use crate::clock;
use crate::limiter::needs;
use crate::limiter::node::Node;
use crate::limiter::probe;
use crate::limiter::redis::Redis;
use crate::policy::{Change, MAX_OVERRIDES, MAX_POLICIES};
use crate::store::connection::{Connection, Error, Reply};
use crate::store::policies::{VERSION, number, read_message};
use crate::store::script::Run;
use crate::topology::redirect::Redirect;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

/// Most fields of the hash: a definition and a mode of each policy, the mode of all, the version, and the overrides.
const MAX_FIELDS: usize = 2 * MAX_POLICIES + MAX_OVERRIDES + 2;
/// Most that is taken of what is told, the file's overrides with it: beyond that, and as a check, all is read.
const MAX_KNOWN: usize = 2 * MAX_FIELDS;
/// About so many fields are read at a time.
const READ_TOGETHER: usize = 256;
/// Who keeps them is found within so long, or nobody waits for that at the start.
const FOUND_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether a node turns out to be down.
const SEEN_EVERY: Duration = Duration::from_millis(20);
/// Wait before Redis is asked again that could not be.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Silence after which the connection that tells of changes is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(1);
/// For so long what is told of may be older than what was read.
const STALE_FOR: Duration = Duration::from_secs(1);

/// Most messages that are taken together.
const MAX_MESSAGES: usize = 256;

const UNAVAILABLE: &str = "Redis cannot be reached, which keeps what is said of policies";
const UNKNOWN: &str = "UNAVAILABLE Redis was lost before it answered: it may hold or not, which RL.POLICY LIST and \
                       RL.OVERRIDE GET tell once Redis answers";

/// Follows what Redis keeps for as long as it is polled.
pub(super) async fn follow(keeper: &Keeper, redis: &Redis, orders: &mut Orders) {
    let mut changes = redis.directory.changes();
    loop {
        let nodes = changes.borrow_and_update().clone();
        let node = nodes.of_slot(redis.store.policies_slot()).filter(|node| !node.is_placeholder);
        let Some(node) = node else {
            tokio::select! {
                _ = changes.changed() => {}
                () = orders.refuse_late(|| keeper.refusal()) => {}
                () = sleep(FOUND_WITHIN) => drop(keeper.has_begun.send_replace(true)),
            }
            continue;
        };
        let outcome = tokio::select! {
            outcome = serve(keeper, redis, node, orders) => outcome,
            () = is_another(redis, node) => Ok(()),
        };
        if let Err(error) = outcome {
            debug!(%error, redis = ?node.dialer, "cannot follow policies");
            keeper.is_lost(node, &error);
            redirected(redis, node, &error);
            keeper.has_begun.send_replace(true);
            tokio::select! {
                () = sleep(RETRY_AFTER) => {}
                () = orders.refuse_late(|| keeper.refusal()) => {}
            }
        }
    }
}

/// Returns once another node than this keeps them.
async fn is_another(redis: &Redis, node: &Arc<Node>) {
    let mut changes = redis.directory.changes();
    loop {
        let nodes = changes.borrow_and_update().clone();
        if !nodes.of_slot(redis.store.policies_slot()).is_some_and(|other| Arc::ptr_eq(other, node)) {
            return;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The node may have said where to ask instead.
fn redirected(redis: &Redis, node: &Node, error: &Error) {
    let Error::Refused(text) = error else { return };
    match Redirect::read(text) {
        Some(Redirect::Moved(slot, Some(target))) => redis.directory.moved(slot, target, node),
        Some(_) => redis.directory.doubt(),
        None => {}
    }
}

impl Keeper {
    /// Why an order cannot be carried out.
    fn refusal(&self) -> String {
        let problem = self.known().problem;
        format!("UNAVAILABLE {}", if problem.is_empty() { UNAVAILABLE } else { &problem })
    }

    /// Redis does not tell of changes, or does not keep any.
    fn is_lost(&self, node: &Node, error: &Error) {
        let problem = problem_of(node, error);
        let is_setup = lacks_rights(error) || error.has_code("WRONGTYPE");
        let is_news = std::mem::replace(&mut self.lock().problem, problem.clone()) != problem;
        // That Redis is away is told already.
        if is_news && is_setup {
            warn!(redis = ?node.dialer, %error, problem, "policies are not followed");
        }
    }
}

/// Why Redis does not keep what is said.
fn problem_of(node: &Node, error: &Error) -> String {
    match error {
        _ if lacks_rights(error) => {
            let about = node.health.about();
            let advice = needs::policy_rights(about);
            format!("the user '{}' lacks rights: policies cannot be changed while it runs ({advice})", about.user)
        }
        Error::Refused(text) => format!("Redis does not keep what is said of policies: {text}"),
        Error::Io(_) | Error::Unexpected => UNAVAILABLE.to_owned(),
    }
}

/// Whether a command, or one that a script ran, is not allowed.
fn lacks_rights(error: &Error) -> bool {
    matches!(error, Error::Refused(text) if text.contains("NOPERM") || text.contains("script can't run this command"))
}

/// Connects, reads all, and goes on to carry out orders and to hear of others' until something is lost.
async fn serve(keeper: &Keeper, redis: &Redis, node: &Arc<Node>, orders: &mut Orders) -> Result<(), Error> {
    let mut follower = tokio::select! {
        follower = connect(keeper, redis, node) => follower?,
        () = orders.refuse_late(|| keeper.refusal()) => return Ok(()),
    };
    keeper.lock().problem.clear();
    keeper.has_begun.send_replace(true);
    let outcome = follower.run(orders).await;
    follower.give_up();
    outcome
}

async fn connect<'a>(keeper: &'a Keeper, redis: &'a Redis, node: &'a Arc<Node>) -> Result<Follower<'a>, Error> {
    // What is there may be no Redis.
    while timeout(SEEN_EVERY, node.health.seen()).await.is_err() {
        if node.health.was_looked_at() {
            keeper.has_begun.send_replace(true);
        }
    }
    let mut feed = Connection::open(&node.dialer, node.connect_timeout).await?;
    let channel = redis.store.policies();
    in_time(node, feed.call(&[&b"SUBSCRIBE"[..], &channel])).await?;
    let mut link = Connection::open(&node.dialer, node.connect_timeout).await?;
    // Whether it may be told is seen before anything is written; nobody minds a message of nothing.
    in_time(node, link.call(&[&b"PUBLISH"[..], &channel, b""])).await?;
    let now = Instant::now();
    let (clock, version) = (Clock::of_system(), keeper.known().version);
    let mut follower = Follower {
        keeper,
        redis,
        node,
        feed,
        link,
        clock,
        version,
        stale_until: now,
        heard_at: now,
        is_pinged: false,
        sent: None,
    };
    follower.read_clock().await?;
    follower.read_all().await?;
    Ok(follower)
}

async fn in_time<T>(node: &Node, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(node.connect_timeout, answer).await.unwrap_or_else(|_| Err(Error::late()))
}

/// What reads and writes the hash of one node.
struct Follower<'a> {
    keeper: &'a Keeper,
    redis: &'a Redis,
    node: &'a Node,
    /// Tells of changes.
    feed: Connection,
    /// Is asked.
    link: Connection,
    clock: Clock,
    /// What holds here.
    version: u64,
    /// Until then older versions may still be told of.
    stale_until: Instant,
    heard_at: Instant,
    is_pinged: bool,
    /// Orders that Redis has, and which are in force here with this version.
    sent: Option<Sent>,
}

/// Whether an order changes anything, and what the log will tell of it; or why it cannot be carried out.
type Planned = Result<(bool, Option<Line>), String>;

struct Sent {
    version: u64,
    at: Instant,
    orders: Vec<(Asked, Planned)>,
}

impl Follower<'_> {
    async fn run(&mut self, orders: &mut Orders) -> Result<(), Error> {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        loop {
            let patience_ends = self.sent.as_ref().map(|sent| sent.at + self.node.connect_timeout);
            tokio::select! {
                message = self.feed.reply() => self.hear(message).await?,
                together = orders.together(), if self.sent.is_none() => self.carry_out(together, orders).await?,
                () = sleep_until(self.heard_at + PING_AFTER) => self.ping()?,
                () = sleep_until(patience_ends.unwrap_or_else(Instant::now)), if patience_ends.is_some() => {
                    return Err(Error::late());
                }
                _ = looks.tick() => self.look().await?,
            }
        }
    }

    /// What Redis has and is not in force yet may come into force, or not.
    fn give_up(&mut self) {
        let sent = self.sent.take();
        sent.into_iter().flat_map(|sent| sent.orders).for_each(|(asked, ..)| asked.fail(UNKNOWN.to_owned()));
    }

    /// A half-open connection never says that it has ended.
    fn ping(&mut self) -> Result<(), Error> {
        if self.is_pinged {
            return Err(Error::late());
        }
        self.is_pinged = true;
        self.heard_at = Instant::now();
        self.feed.write(&[b"PING"]);
        Ok(())
    }

    /// Takes what is told, and all that was told by now.
    async fn hear(&mut self, first: Result<Reply, Error>) -> Result<(), Error> {
        let (mut next, mut changes, mut is_gap) = (Some(first), Vec::new(), false);
        let mut messages = 0;
        while let Some(reply) = next.take() {
            // That a user may not PING is a sign of life too.
            match reply {
                Err(Error::Refused(_)) if self.is_pinged => {}
                reply => is_gap |= !self.take(&reply?, &mut changes),
            }
            (self.heard_at, self.is_pinged) = (Instant::now(), false);
            messages += 1;
            if messages < MAX_MESSAGES && !is_gap {
                next = poll_fn(|cx| match self.feed.poll_reply(cx) {
                    Poll::Ready(reply) => Poll::Ready(Some(reply)),
                    Poll::Pending => Poll::Ready(None),
                })
                .await;
            }
        }
        self.keeper.apply(changes);
        self.keeper.lock().version = self.version;
        if is_gap {
            self.read_all().await?;
        }
        self.settle();
        Ok(())
    }

    /// Adds what a message tells to the changes. Whether it is the next, or none that matters.
    fn take(&mut self, reply: &Reply, changes: &mut Vec<Change>) -> bool {
        let Reply::Texts(words) = reply else { return true };
        let [kind, _, message] = words.as_slice() else { return true };
        let Some((version, fields)) = read_message(message).filter(|_| kind == b"message") else { return true };
        let known = self.keeper.live.get().overrides() + changes.len();
        if version == self.version + 1 && known + fields.len() <= MAX_KNOWN {
            self.version = version;
            let change = |(field, value): &(Vec<u8>, Option<Vec<u8>>)| self.read_field(field, value.as_deref());
            changes.extend(fields.iter().filter_map(change));
            return true;
        }
        version <= self.version && Instant::now() < self.stale_until
    }

    fn read_field(&self, field: &[u8], value: Option<&[u8]>) -> Option<Change> {
        let read = Change::of(field, value, |unix_ms| self.clock.at(unix_ms));
        if read.is_none() {
            self.keeper.lock().unreadable += 1;
        }
        read
    }

    /// Answers those whose orders are in force.
    fn settle(&mut self) {
        if let Some(sent) = self.sent.take_if(|sent| sent.version <= self.version) {
            sent.orders.into_iter().for_each(|(asked, outcome)| match outcome {
                Ok((any, line)) => asked.succeed(any, line),
                Err(why) => asked.fail(why),
            });
        }
    }

    async fn carry_out(&mut self, together: Vec<Asked>, orders: &mut Orders) -> Result<(), Error> {
        let policies = self.keeper.live.get();
        let (mut changes, mut accepted) = (Vec::new(), Vec::new());
        for asked in together {
            match policies.changes(&asked.order, changes.len(), |ms| self.clock.after(ms)) {
                Ok(more) => {
                    accepted.push((asked, Ok((!more.is_empty(), self.keeper.line(&more)))));
                    changes.extend(more);
                }
                // Told in its turn.
                Err(error) => accepted.push((asked, Err(error.to_string()))),
            }
        }
        drop(policies);
        let mut version = self.version;
        for (index, piece) in changes.chunks(MAX_TOGETHER).enumerate() {
            match self.change(piece.iter().map(set_or_drop).collect()).await {
                Ok(Some(changed)) => version = changed,
                Ok(None) => {
                    let why = "ERR Redis keeps as many policies and overrides as may be";
                    accepted.into_iter().for_each(|(asked, ..)| asked.fail(why.to_owned()));
                    return Ok(());
                }
                Err(error) => {
                    let asked = accepted.into_iter().map(|(asked, ..)| asked);
                    match &error {
                        // It was not carried out, and another may do so.
                        Error::Refused(text) if index == 0 && Redirect::read(text).is_some() => {
                            orders.put_back(asked.collect());
                        }
                        Error::Refused(_) if index == 0 => {
                            let why = format!("UNAVAILABLE {}", problem_of(self.node, &error));
                            asked.for_each(|asked| asked.fail(why.clone()));
                        }
                        _ => asked.for_each(|asked| asked.fail(UNKNOWN.to_owned())),
                    }
                    return Err(error);
                }
            }
        }
        self.sent = Some(Sent { version, at: Instant::now(), orders: accepted });
        if version < self.version {
            // It has lost what it had.
            self.read_all().await?;
        }
        self.settle();
        Ok(())
    }

    /// Has Redis change fields. The version after that; `None` if there is no room.
    async fn change(&mut self, fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Option<u64>, Error> {
        let redis = self.redis;
        match self.ask(redis.store.change_policies(&fields, MAX_FIELDS)).await? {
            Reply::Integers(numbers) => match numbers.as_slice() {
                [version, _] => Ok(u64::try_from(*version).ok()),
                _ => Err(Error::Unexpected),
            },
            _ => Err(Error::Unexpected),
        }
    }

    async fn ask(&mut self, run: Run<'_>) -> Result<Reply, Error> {
        probe::run(&mut self.link, run, self.node.connect_timeout).await
    }

    /// Now and then: whether anything was missed, and what is over.
    async fn look(&mut self) -> Result<(), Error> {
        self.read_clock().await?;
        let words = [&b"HGET"[..], &self.redis.store.policies(), VERSION];
        let version = match in_time(self.node, self.link.call(&words)).await? {
            Reply::Text(text) => number(&text).unwrap_or(0),
            _ => return Err(Error::Unexpected),
        };
        if version != self.version {
            self.read_all().await?;
            self.settle();
        }
        let ended = self.keeper.live.get().ended(clock::now_us(), MAX_ENDED);
        if !ended.is_empty() {
            self.change(ended.iter().map(drop_if_same).collect()).await?;
        }
        Ok(())
    }

    async fn read_clock(&mut self) -> Result<(), Error> {
        let sent_us = clock::now_us();
        let Reply::Texts(words) = in_time(self.node, self.link.call(&["TIME"])).await? else {
            return Err(Error::Unexpected);
        };
        let [seconds, micros] = words.as_slice() else { return Err(Error::Unexpected) };
        let (seconds, micros) = number(seconds).zip(number(micros)).ok_or(Error::Unexpected)?;
        self.clock = Clock { unix_us: seconds.saturating_mul(1_000_000).saturating_add(micros), now_us: sent_us };
        Ok(())
    }

    /// Has what Redis keeps hold, and nothing else.
    async fn read_all(&mut self) -> Result<(), Error> {
        let redis = self.redis;
        let (mut cursor, mut version) = (b"0".to_vec(), None);
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let reply = self.ask(redis.store.read_policies(&cursor, READ_TOGETHER)).await?;
            let Reply::Texts(words) = reply else { return Err(Error::Unexpected) };
            let mut words = words.into_iter();
            let (Some(now), Some(next)) = (words.next(), words.next()) else { return Err(Error::Unexpected) };
            // What changes while it is read is told of besides.
            version = version.or(number(&now));
            while let (Some(field), Some(value)) = (words.next(), words.next()) {
                // More than that was put there by somebody else.
                if field != VERSION && fields.len() < MAX_FIELDS {
                    fields.push((field, value));
                }
            }
            cursor = next;
            if cursor == b"0" {
                break;
            }
        }
        self.have_read(version.unwrap_or(0), &fields);
        Ok(())
    }

    fn have_read(&mut self, version: u64, fields: &[(Vec<u8>, Vec<u8>)]) {
        let clock = self.clock;
        let read = |(field, value): &(Vec<u8>, Vec<u8>)| Change::of(field, Some(value), |unix_ms| clock.at(unix_ms));
        let changes: Vec<_> = fields.iter().filter_map(read).collect();
        let unreadable = fields.len() - changes.len();
        self.keeper.live.update(|policies| policies.set_live(changes));
        self.stale_until = Instant::now() + STALE_FOR;
        self.version = version;
        let before = {
            let mut known = self.keeper.lock();
            let before = (known.version, known.unreadable);
            (known.version, known.unreadable, known.read_at) = (version, unreadable, Some(SystemTime::now()));
            before
        };
        let redis = &self.node.dialer;
        match version {
            0 if before.0 > 0 => {
                warn!(?redis, was = before.0, "redis has lost what was said of policies: what the file says holds")
            }
            _ if version < before.0 => {
                warn!(?redis, version, was = before.0, "redis has lost what was said last of policies")
            }
            _ if version > 0 => info!(?redis, version, fields = fields.len(), "policies were read"),
            _ => {}
        }
        if unreadable > before.1 {
            warn!(?redis, unreadable, "redis keeps what cannot be read of policies: it does not hold");
        }
    }
}

fn set_or_drop(change: &Change) -> (Vec<u8>, Vec<u8>) {
    let becomes = change.value().map_or_else(|| b"-".to_vec(), |value| format!("={value}").into_bytes());
    (change.field(), becomes)
}

fn drop_if_same(change: &Change) -> (Vec<u8>, Vec<u8>) {
    (change.field(), format!("?{}", change.value().unwrap_or_default()).into_bytes())
}
