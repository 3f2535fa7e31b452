//! The sliding-window log in Redis: one sorted set per key and window, read and written by the scripts in lua/.
//!
//! The layout of the sets and what each script costs stand at the head of the scripts. What is asked leaves here as a
//! [`Run`] of a script; who sends it, and when, is not decided here.

mod scripts;

use super::batch::{Batch, Item};
use super::connection::{Error, Reply};
use super::inspect::Glance;
use super::ledger::{Id, Record};
use super::registry;
use super::reset::Piece;
use super::script::{Run, Script};
use super::throttle::ThrottleBatch;
use crate::limit::{Algorithm, Counter, Form, Limit, LimitState, MAX_LIMIT, Rule, us_to_ms_ceil};
use crate::topology::slot::Slot;
use ahash::RandomState;
use scripts::Scripts;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Most windows that one run writes records to, and most names that it looks for among their entries: they bound the time
/// that it holds Redis up.
const MAX_RECORD_WINDOWS: usize = 128;
const MAX_RECORD_NAMES: usize = 1024;

/// What the name of the registry ends in.
const REGISTRY: &str = "windows";
/// What the names of the hash of policies, and of its channel, end in.
const POLICIES: &str = "policies";

/// What a script replies in place of a number of an item, record or key, when the node does not serve all its logs: they
/// are another's, or on their way there.
pub const ELSEWHERE: i64 = -2;

/// How a script is told of the logs that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// As its keys: before one Redis. A node of a cluster takes those of one slot only.
    Declared,
    /// As arguments, of any slots: the script finds by itself which logs the node does not serve.
    Passed,
}

/// What the script said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The time it decided at, by Redis's clock: microseconds since 1970.
    pub redis_now_us: i64,
    /// Of each item in order, each of its limits in order.
    pub limits: Vec<LimitReport>,
}

/// What the script said of one limit of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReport {
    /// Its state before the item; the times are those after its admissions.
    State {
        /// Used cost and times.
        state: LimitState,
        /// Cost that will have expired once the window fits another such check: 0 when nothing is denied.
        covered: u64,
    },
    /// A key of that name holds something other than a log. All limits of an item say so, of which nothing is written.
    WrongType,
    /// The node does not serve all logs of the item: they are another's, or on their way there. All limits of the item
    /// say so, of which nothing is written.
    Elsewhere,
}

impl LimitReport {
    /// The window's state; of a window that has none, an empty one's.
    pub fn state(&self) -> LimitState {
        match self {
            Self::State { state, .. } => *state,
            Self::WrongType | Self::Elsewhere => LimitState::default(),
        }
    }
}

/// A share that is over, of which something was not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The key.
    pub key: Box<[u8]>,
    /// Its limits, all of them logs.
    pub limits: Box<[Limit]>,
    /// The id of its entries.
    pub id: String,
    /// What they weigh.
    pub granted: u32,
    /// What of that was used; less.
    pub used: u32,
    /// How often it may be tried yet to give it back.
    pub tries: u8,
}

/// What to ask Redis, in its own terms. Shared by the workers, which send it on connections of their own.
#[derive(Debug)]
pub struct RedisStore {
    prefix: String,
    registry_slot: Slot,
    scripts: Scripts,
    /// Begins every entry id of this process: 47 random bits, so that proxies and restarts do not meet.
    process_id: String,
    batches: AtomicU64,
}

impl RedisStore {
    /// A store whose keys begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self::with_clock(prefix, include_str!("../../lua/clock.lua"))
    }

    /// A store whose scripts begin with other code than lua/clock.lua, which defines what time it is. For tests that
    /// move time; a server has no way to get here.
    pub fn with_clock(prefix: &str, clock: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            registry_slot: Slot::of(format!("{prefix}{REGISTRY}").as_bytes()),
            scripts: Scripts::new(clock),
            process_id: random_id(),
            batches: AtomicU64::new(0),
        }
    }

    /// The scripts of checks and throttles, for Redis to be given in advance, so that no job has to ask twice.
    pub fn scripts(&self) -> [&Script; 8] {
        self.scripts.of_checks()
    }

    /// Decides the items in order and counts what is admitted. [`Report::read`] reads the reply: they stand in the
    /// order of the items and, in each, of its windows.
    ///
    /// A batch that is `resent` after its answer was lost is answered as it was then: `batch_id` makes the ids of its
    /// entries, by which they are found.
    pub fn check(&self, batch: &Batch, batch_id: &str, resent: bool, names: Names) -> Run<'_> {
        self.ask(&self.scripts.check, batch, (batch_id, resent), names)
    }

    /// As [`RedisStore::check`], but nothing is counted or written.
    pub fn peek(&self, batch: &Batch, names: Names) -> Run<'_> {
        self.ask(&self.scripts.peek, batch, ("", false), names)
    }

    /// Decides throttles in order and counts what is admitted. [`ThrottleBatch::read`] reads the reply.
    pub fn throttle(&self, batch: &ThrottleBatch, names: Names) -> Run<'_> {
        let add_names = |run: &mut Run<'_>| batch.names().for_each(|name| run.word(name));
        let add_args = |run: &mut Run<'_>| {
            for (items, question) in batch.questions() {
                run.number(items as u64);
                run.word(&question);
            }
        };
        run_about(&self.scripts.throttle, names, batch.len(), add_names, add_args)
    }

    /// How many of the records, from the first on, one run may write; at least one, if there is any.
    pub fn records_in_one_run(records: &[Record]) -> usize {
        let (mut windows, mut names) = (0, 0);
        let fits = records.iter().take_while(|record| {
            windows += 1;
            names += record.id.asked() as usize;
            windows <= MAX_RECORD_WINDOWS && names <= MAX_RECORD_NAMES
        });
        fits.count().max(1).min(records.len())
    }

    /// Counts what was admitted without Redis, under its own times. `offset_us` leads from the records' clock to
    /// Redis's. A record that is written twice counts once. The reply says of each, in order, 1 if it was written, 0 if
    /// there was nothing to write, and [`ELSEWHERE`].
    pub fn record(&self, records: &[Record], offset_us: i64, names: Names) -> Run<'_> {
        let add_names = |run: &mut Run<'_>| {
            let mut name = Vec::new();
            for record in records {
                self.add_names(run, &mut name, &record.key, [record.counter].into_iter());
            }
        };
        let add_args = |run: &mut Run<'_>| records.iter().for_each(|record| self.add_record(run, record, offset_us));
        run_about(&self.scripts.record, names, records.len(), add_names, add_args)
    }

    /// Gives back what was not used of shares. The reply says of each of their logs, in order, 1 if its entry was made
    /// lighter, 0 if it was not there, and [`ELSEWHERE`]. Done twice it changes nothing more.
    pub fn give_back(&self, rests: &[Rest], names: Names) -> Run<'_> {
        let add_names = |run: &mut Run<'_>| {
            let mut name = Vec::new();
            for rest in rests {
                self.add_names(run, &mut name, &rest.key, rest.limits.iter().map(Limit::counter));
            }
        };
        let add_args = |run: &mut Run<'_>| {
            for rest in rests {
                for _ in &rest.limits {
                    run.word(rest.id.as_bytes());
                    run.number(rest.granted.into());
                    run.number(rest.used.into());
                }
            }
        };
        let logs = rests.iter().map(|rest| rest.limits.len()).sum();
        run_about(&self.scripts.give_back, names, logs, add_names, add_args)
    }

    /// Forgets what a piece of a reset names, and tells every proxy of the keys that this completes. The reply says of
    /// each of the piece's keys, in order, 1 or 0: whether it had an entry that still counted; and [`ELSEWHERE`] of one
    /// of which nothing was forgotten or told.
    pub fn reset(&self, piece: &Piece<'_>, names: Names) -> Run<'_> {
        let add_names = |run: &mut Run<'_>| {
            let mut name = Vec::new();
            for key in piece.keys {
                self.add_names(run, &mut name, key, piece.counters.iter().copied());
            }
        };
        let add_args = |run: &mut Run<'_>| {
            run.word(&self.reset_channel());
            run.number(piece.counters.len() as u64);
            add_counters(run, piece.counters, |_, _| {});
            if piece.completes_its_keys {
                piece.keys.iter().for_each(|key| run.word(key));
            }
        };
        run_about(&self.scripts.reset, names, piece.keys.len() * piece.counters.len(), add_names, add_args)
    }

    /// Tells how the logs stand that a glance names. [`super::inspect::Inspect`] reads the reply.
    pub fn inspect(&self, glance: &Glance<'_>) -> Run<'_> {
        let add_names = |run: &mut Run<'_>| {
            self.add_names(run, &mut Vec::new(), glance.key, glance.counters.iter().copied());
        };
        let add_args = |run: &mut Run<'_>| {
            run.number(glance.most_entries as u64);
            run.number(glance.entries_left as u64);
            add_counters(run, glance.counters, |counter, packed| {
                if !matches!(counter.rule, Rule::Log(_)) {
                    // Far below 2^53, so that a double holds it exactly.
                    packed.extend_from_slice(&(counter.rule.window().us() as f64).to_le_bytes());
                }
            });
        };
        run_about(&self.scripts.inspect, Names::Declared, glance.counters.len(), add_names, add_args)
    }

    /// Registers counters, as far as no more than `max` are registered then. Asks which are registered if there are none
    /// to be registered. [`registry::Registry`] reads the reply.
    pub fn register(&self, counters: &[Counter], max: usize) -> Run<'_> {
        let mut run = Run::new(&self.scripts.windows, 1, 1);
        run.word(&self.registry());
        run.number(max as u64);
        run.number(registry::SPARE_MS);
        let mut name = Vec::new();
        for counter in counters {
            name.clear();
            counter.write_name(&mut name);
            run.word(&name);
            run.number(us_to_ms_ceil(counter.rule.max_life_us()));
        }
        run
    }

    /// Changes so many fields of what was said of policies, a field and what becomes of it each, as lua/policy_change.lua
    /// has them.
    pub fn change_policies(&self, fields: &[(Vec<u8>, Vec<u8>)], max_fields: usize) -> Run<'_> {
        let mut run = Run::new(&self.scripts.policy_change, 1, fields.len());
        run.word(&self.policies());
        run.word(&self.policies());
        run.number(max_fields as u64);
        for (field, becomes) in fields {
            run.word(field);
            run.word(becomes);
        }
        run
    }

    /// Reads about so many fields of what was said of policies, from a cursor on, as lua/policy_read.lua has it.
    pub fn read_policies(&self, cursor: &[u8], count: usize) -> Run<'_> {
        let mut run = Run::new(&self.scripts.policy_read, 1, 1);
        run.word(&self.policies());
        run.word(cursor);
        run.number(count as u64);
        run
    }

    /// The hash of what was said of policies, and the channel that its changes are told on.
    pub fn policies(&self) -> Vec<u8> {
        self.name(POLICIES)
    }

    /// The slot that it is in.
    pub fn policies_slot(&self) -> Slot {
        Slot::of(&self.policies())
    }

    /// What its keys begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A name of its own that is never given to a key.
    pub fn unused_key(&self) -> Vec<u8> {
        self.name("probe")
    }

    /// The channel that a reset is told on; its messages are keys.
    pub fn reset_channel(&self) -> Vec<u8> {
        self.name("reset")
    }

    /// An id for a batch's entries: short, because it stands in Redis once for each of them.
    pub fn next_batch_id(&self) -> String {
        format!("{}{}", self.process_id, base62(self.batches.fetch_add(1, Relaxed)))
    }

    fn ask<'a>(&self, script: &'a Script, batch: &Batch, (batch_id, resent): (&str, bool), names: Names) -> Run<'a> {
        let add_names = |run: &mut Run<'a>| {
            let mut name = Vec::new();
            for item in batch.items() {
                let ask = batch.ask_of(item);
                self.add_names(run, &mut name, ask.key, ask.limits.iter().map(Limit::counter));
            }
        };
        let add_args = |run: &mut Run<'a>| {
            run.word(batch_id.as_bytes());
            run.number(u64::try_from(batch.ttls_fresh_until_us()).unwrap_or(0));
            let mut question = Vec::new();
            for alike in batch.items().chunk_by(|one, other| asks_the_same(batch, one, other)) {
                let Some(first) = alike.first() else { continue };
                let ask = batch.ask_of(first);
                let is_of_logs = ask.limits.iter().all(|limit| limit.algorithm == Algorithm::Log);
                let is_full = first.form == Form::Full;
                let is_share = first.share_us > 0;
                let flags = [first.has_fresh_ttl, resent, is_full, !is_of_logs, is_share];
                let flags = flags.iter().rev().fold(0, |bits, flag| 2 * bits + u8::from(*flag));
                question.clear();
                question.push(flags);
                question.extend_from_slice(&first.count.to_le_bytes());
                question.extend_from_slice(&ask.cost.to_le_bytes());
                if !is_of_logs {
                    question.extend_from_slice(&item_number(batch_id).to_le_bytes());
                }
                if is_share {
                    // A second at most, which a double holds exactly.
                    question.extend_from_slice(&(first.share_us as f64).to_le_bytes());
                }
                ask.limits.iter().for_each(|limit| limit.pack(ask.cost, is_of_logs, &mut question));
                run.number(alike.len() as u64);
                run.word(&question);
            }
        };
        run_about(script, names, batch.states(), add_names, add_args)
    }

    fn add_record(&self, run: &mut Run<'_>, record: &Record, offset_us: i64) {
        let id = match &record.id {
            // The dash is no digit of a batch's number, so this is no batch's id.
            Id::New(number) => format!("{}-{}", self.process_id, base62(*number)),
            Id::Asked { id, .. } => id.to_string(),
        };
        run.word(id.as_bytes());
        run.number(record.time_us.saturating_add_signed(offset_us));
        // What is as heavy as the highest limit denies everything, as would what is heavier.
        run.number(record.cost.min(MAX_LIMIT.into()));
        run.number(record.admitted.into());
        run.number(record.id.asked().into());
        let mut counter = Vec::new();
        let cost = u32::try_from(record.cost).unwrap_or(MAX_LIMIT).min(MAX_LIMIT);
        record.counter.rule.pack_record(item_number(&id), record.max, cost, &mut counter);
        run.word(&counter);
    }

    fn add_names(&self, run: &mut Run<'_>, name: &mut Vec<u8>, key: &[u8], counters: impl Iterator<Item = Counter>) {
        name.clear();
        self.write_base(name, key);
        name.push(b':');
        let base_len = name.len();
        for counter in counters {
            name.truncate(base_len);
            counter.write_name(name);
            run.word(name);
        }
    }

    fn name(&self, suffix: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), suffix.as_bytes()].concat()
    }

    /// The name of a key's logs up to the window.
    fn write_base(&self, out: &mut Vec<u8>, key: &[u8]) {
        let (open, close): (&[u8], &[u8]) = if begins_with_brace(key) { (b"{:}", b"|") } else { (b"{", b"}") };
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(open);
        out.extend_from_slice(key);
        out.extend_from_slice(close);
    }

    /// The slot of a cluster that all of a key's logs are in: that of what stands between the first `{` of their names,
    /// which is none of the prefix, and the next `}`.
    pub fn slot_of(&self, key: &[u8]) -> Slot {
        let tag = if begins_with_brace(key) { Some(&b":"[..]) } else { key.split(|byte| *byte == b'}').next() };
        Slot::of_tag(tag.unwrap_or_default())
    }

    /// The slot that the registry is in.
    pub fn registry_slot(&self) -> Slot {
        self.registry_slot
    }

    fn registry(&self) -> Vec<u8> {
        self.name(REGISTRY)
    }
}

/// Whether a key begins with `}`. In the names of such a key's logs nothing would stand between the braces, and nothing
/// does not count as what the slot is chosen by: they have a tag of their own, and an ending that no other name has.
fn begins_with_brace(key: &[u8]) -> bool {
    key.first() == Some(&b'}')
}

/// A run of a script that is about so many logs, as lua/keys.lua has it.
fn run_about<'a>(
    script: &'a Script,
    names: Names,
    logs: usize,
    add_names: impl FnOnce(&mut Run<'a>),
    add_args: impl FnOnce(&mut Run<'a>),
) -> Run<'a> {
    // A run without keys is one that passes its names, though they be none.
    if names == Names::Declared && logs > 0 {
        let mut run = Run::new(script, logs, logs);
        add_names(&mut run);
        add_args(&mut run);
        return run;
    }
    let mut run = Run::new(script, 0, logs);
    add_args(&mut run);
    add_names(&mut run);
    run.number(logs as u64);
    run
}

/// Whether two items are as many checks of the same cost and windows, of whatever keys whose logs live as long.
fn asks_the_same(batch: &Batch, one: &Item, other: &Item) -> bool {
    let (ask, another) = (batch.ask_of(one), batch.ask_of(other));
    one.count == other.count
        && one.has_fresh_ttl == other.has_fresh_ttl
        && one.form == other.form
        && one.share_us == other.share_us
        && ask.cost == another.cost
        && ask.limits == another.limits
}

/// The id of the entry that the `index`th item of a batch makes, as check.lua has it.
pub fn entry_id(batch_id: &str, index: usize) -> String {
    if index == 0 { batch_id.to_owned() } else { format!("{batch_id}.{}", base62(index as u64)) }
}

/// The same if the item asks for a share.
pub fn share_id(batch_id: &str, index: usize) -> String {
    entry_id(batch_id, index) + "~"
}

/// The number of the item that made the entry of this id, in the batch that it was asked in first.
fn item_number(id: &str) -> u16 {
    let digits = id.split_once('.').map_or("", |(_, digits)| digits);
    let value = |digit: u8| DIGITS.iter().position(|other| *other == digit).unwrap_or(0);
    // A batch has far fewer items than 2^16.
    let number = digits.bytes().fold(0, |number: usize, digit| number.wrapping_mul(62).wrapping_add(value(digit)));
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Adds what counters they are to a run's arguments, and of each what `more` appends.
fn add_counters(run: &mut Run<'_>, counters: &[Counter], more: impl Fn(&Counter, &mut Vec<u8>)) {
    let mut packed = Vec::new();
    for counter in counters {
        packed.clear();
        counter.rule.pack(&mut packed);
        more(counter, &mut packed);
        run.word(&packed);
    }
}

/// Above any weight or time there is, in microseconds; where a script's numbers end, whose sums must not overflow.
const MAX_AMOUNT: i64 = 1 << 53;

/// Integers that the scripts reply for each limit of an item of which a check is denied, and for each limit of one that is
/// asked in full.
const RECORD_FIELDS: usize = 4;

impl Report {
    /// Reads the reply to a batch with these limits. Whatever the numbers are, sums of some of them are far from overflow.
    ///
    /// # Errors
    /// It is the reply to something else.
    pub fn read(reply: Reply, batch: &[Limit]) -> Result<Self, Error> {
        let Reply::Integers(numbers) = reply else { return Err(Error::Unexpected) };
        let Some((redis_now_us, numbers)) = numbers.split_first() else { return Err(Error::Unexpected) };
        let Some((used, records)) = numbers.split_at_checked(batch.len()) else { return Err(Error::Unexpected) };
        let redis_now_us = (*redis_now_us).clamp(0, MAX_AMOUNT);
        let read = |(used, limit): (&i64, &Limit)| read_used(*used, limit, amount(redis_now_us));
        let mut limits: Vec<LimitReport> = used.iter().zip(batch).map(read).collect();
        let (records, rest) = records.as_chunks::<RECORD_FIELDS>();
        if !rest.is_empty() {
            return Err(Error::Unexpected);
        }
        for [place, first, second, third] in records {
            // A negative place says that it is told when more is free, and is otherwise as far from -1 as another from 0.
            let (place, is_next) = if *place < 0 { (-1 - *place, true) } else { (*place, false) };
            let Ok(place) = usize::try_from(place) else { return Err(Error::Unexpected) };
            let (Some(LimitReport::State { state, covered }), Some(limit)) = (limits.get_mut(place), batch.get(place))
            else {
                return Err(Error::Unexpected);
            };
            if is_next {
                state.next_in_us = amount(*first);
            } else {
                *covered = limit.add_report(state, [first, second, third].map(|number| amount(*number)));
            }
        }
        Ok(Self { redis_now_us, limits })
    }
}

fn read_used(used: i64, limit: &Limit, redis_now_us: u64) -> LimitReport {
    match used {
        ELSEWHERE => LimitReport::Elsewhere,
        ..0 => LimitReport::WrongType,
        _ => LimitReport::State { state: limit.reported(amount(used), redis_now_us), covered: 0 },
    }
}

fn amount(number: i64) -> u64 {
    number.clamp(0, MAX_AMOUNT).unsigned_abs()
}

/// Eight digits of base 62, from a key that the system's random numbers make.
fn random_id() -> String {
    const SHORTEST: u64 = 62u64.pow(7);
    base62(SHORTEST + RandomState::new().hash_one(std::process::id()) % (61 * SHORTEST))
}

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn base62(mut number: u64) -> String {
    let mut text = Vec::new();
    loop {
        text.extend(DIGITS.get((number % 62) as usize).copied().map(char::from));
        number /= 62;
        if number == 0 {
            return text.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Window;
    use proptest::prelude::*;

    /// Bytes, many of which are such as slots and names are told by.
    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(b'{'), Just(b'}'), Just(b'|'), Just(b':'), any::<u8>()];
        proptest::collection::vec(byte, 1..most)
    }

    proptest! {
        /// Whatever a key is, and whatever the prefix that may be configured.
        #[test]
        fn all_logs_of_a_key_share_a_slot(
            prefix in "[^{}]{1,16}",
            key in bytes(12),
            windows in proptest::collection::vec(1..100_000u64, 1..5),
        ) {
            let store = RedisStore::new(&prefix);
            let mut name = Vec::new();
            store.write_base(&mut name, &key);
            name.push(b':');
            let base_len = name.len();
            for window in windows {
                name.truncate(base_len);
                Counter::of_name(&window.to_string()).unwrap().write_name(&mut name);
                prop_assert_eq!(Slot::of(&name), store.slot_of(&key), "{}", name.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_said_of_an_item_is_told_apart() {
        let limits = [Limit::log(1, Window::MIN); 3];
        let report = Report::read(Reply::Integers(vec![7, 3, -1, -2]), &limits).unwrap();
        assert_eq!(report.limits[0].state().used, 3);
        assert_eq!(report.limits[1..], [LimitReport::WrongType, LimitReport::Elsewhere]);
    }

    #[test]
    fn records_say_of_which_limit_they_are_and_what_they_tell() {
        let limits = [Limit::log(1, Window::MIN); 2];
        let read = |records: &[i64]| Report::read(Reply::Integers([&[7, 3, 4], records].concat()), &limits);
        let report = read(&[1, 30, 40, 2, -1, 50, 0, 0, -2, 60, 0, 0]).unwrap();
        let state = |used, fits_in_us, empty_in_us, next_in_us| LimitState {
            used,
            fits_in_us,
            empty_in_us,
            next_in_us,
            part: 0,
        };
        assert_eq!(report.limits[0], LimitReport::State { state: state(3, 0, 0, 50), covered: 0 });
        assert_eq!(report.limits[1], LimitReport::State { state: state(4, 30, 40, 60), covered: 2 });
        for wrong in [&[2, 0, 0, 0][..], &[-3, 0, 0, 0], &[i64::MIN, 0, 0, 0], &[i64::MAX, 0, 0, 0], &[0, 0, 0]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
