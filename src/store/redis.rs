//! The sliding-window log in Redis: one sorted set per key and window, read and written by the scripts in lua/.
//!
//! The layout of the sets and what each script costs stand at the head of the scripts. This is the one module that
//! names the `redis` crate's connection.

use crate::dial::Dialer;
use crate::quota::{Window, WindowState};
use crate::store::batch::{Batch, Item};
use crate::store::ledger::{Id, Record};
use ahash::RandomState;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisError, ServerErrorKind, Value};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the script said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The time it decided at, by Redis's clock: microseconds since 1970.
    pub redis_now_us: i64,
    /// Of each item in order, each of its windows in order.
    pub windows: Vec<WindowAnswer>,
}

/// What the script said of one window of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowAnswer {
    /// The window's state before the item, see [`WindowState`]; the times are those after its admissions.
    State {
        /// Used cost and times.
        state: WindowState,
        /// Cost that will have expired once the window fits another such check: 0 when nothing is denied.
        covered: u64,
    },
    /// A key of that name holds something other than a sorted set.
    WrongType,
}

impl WindowAnswer {
    /// The window's state; of a window that has none, an empty one's.
    pub fn state(&self) -> WindowState {
        match self {
            Self::State { state, .. } => *state,
            Self::WrongType => WindowState::default(),
        }
    }
}

/// A script and the hash that Redis knows it by.
#[derive(Debug)]
struct Script {
    source: String,
    sha: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let source = parts.concat();
        let sha = redis::Script::new(&source).get_hash().to_owned();
        Self { source, sha }
    }
}

/// Asks Redis. Shared by the workers; each brings its own [`Connection`].
#[derive(Debug)]
pub struct RedisStore {
    prefix: Vec<u8>,
    check: Script,
    peek: Script,
    reset: Script,
    record: Script,
    /// Begins every entry id of this process: 47 random bits, so that proxies and restarts do not meet.
    process_id: String,
    batches: AtomicU64,
}

/// A multiplexed connection to Redis and the news of its end.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: MultiplexedConnection,
    /// Cancelled when the connection is lost.
    pub lost: CancellationToken,
}

impl Connection {
    /// Connects and says hello, on the current thread's local task set.
    ///
    /// # Errors
    /// Whatever keeps Redis from being reached or from letting us in.
    pub async fn open(dialer: &Dialer, timeout: Duration) -> Result<Self, RedisError> {
        let stream = dialer.dial(timeout).await?;
        // No response time-out here: the limiter has a deadline for each check, and an answer that comes late is
        // still worth having.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (inner, driver) = MultiplexedConnection::new_with_config(dialer.settings(), stream, config).await?;
        let lost = CancellationToken::new();
        let on_end = lost.clone();
        tokio::task::spawn_local(async move {
            driver.await;
            on_end.cancel();
        });
        Ok(Self { inner, lost })
    }

    /// The version that Redis says it has.
    ///
    /// # Errors
    /// Redis could not be asked, or does not say.
    pub async fn version(&mut self) -> Result<String, RedisError> {
        let mut cmd = Cmd::new();
        cmd.arg("INFO").arg("server");
        let text: String = redis::from_redis_value(self.inner.send_packed_command(&cmd).await?)?;
        let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.ok_or_else(unexpected)?.trim().to_owned())
    }

    async fn run(&mut self, script: &Script, args: impl Fn(&mut Cmd)) -> Result<Value, RedisError> {
        let mut by_hash = Cmd::new();
        by_hash.arg("EVALSHA").arg(&script.sha);
        args(&mut by_hash);
        match self.inner.send_packed_command(&by_hash).await.and_then(Value::extract_error) {
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut by_source = Cmd::new();
                by_source.arg("EVAL").arg(&script.source);
                args(&mut by_source);
                self.inner.send_packed_command(&by_source).await.and_then(Value::extract_error)
            }
            outcome => outcome,
        }
    }
}

impl RedisStore {
    /// A store whose keys begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self::with_clock(prefix, include_str!("../../lua/clock.lua"))
    }

    /// A store whose scripts begin with other code than lua/clock.lua, which defines what time it is. For tests that
    /// move time; a server has no way to get here.
    pub fn with_clock(prefix: &str, clock: &str) -> Self {
        let log = include_str!("../../lua/log.lua");
        let decide = include_str!("../../lua/decide.lua");
        Self {
            prefix: prefix.as_bytes().to_vec(),
            check: Script::new(&[clock, log, decide, include_str!("../../lua/check.lua")]),
            peek: Script::new(&[clock, log, decide, include_str!("../../lua/peek.lua")]),
            reset: Script::new(&[clock, include_str!("../../lua/reset.lua")]),
            record: Script::new(&[clock, log, include_str!("../../lua/record.lua")]),
            process_id: random_id(),
            batches: AtomicU64::new(0),
        }
    }

    /// Gives Redis the scripts, so that no job has to ask twice. Where that is not allowed, each is given with the
    /// first job that needs it.
    pub async fn load(&self, connection: &mut Connection) {
        for script in [&self.check, &self.peek, &self.reset, &self.record] {
            let mut cmd = Cmd::new();
            cmd.arg("SCRIPT").arg("LOAD").arg(&script.source);
            // A connection that is lost shows at its next use.
            let _ = connection.inner.send_packed_command(&cmd).await;
        }
    }

    /// Decides the items in order and counts what is admitted. The answers stand in the order of the items and, in
    /// each, of its windows.
    ///
    /// A batch that is sent again after its answer was lost counts once: `batch_id` makes the ids of its entries.
    ///
    /// # Errors
    /// Redis could not be asked, or answered with an error.
    pub async fn check(
        &self,
        connection: &mut Connection,
        batch: &Batch,
        batch_id: &str,
    ) -> Result<Answers, RedisError> {
        let reply = connection.run(&self.check, |cmd| self.write_batch(cmd, batch, batch_id)).await?;
        read_answers(reply, batch.windows())
    }

    /// As [`RedisStore::check`], but nothing is counted or written.
    ///
    /// # Errors
    /// Redis could not be asked, or answered with an error.
    pub async fn peek(&self, connection: &mut Connection, batch: &Batch) -> Result<Answers, RedisError> {
        let reply = connection.run(&self.peek, |cmd| self.write_batch(cmd, batch, "")).await?;
        read_answers(reply, batch.windows())
    }

    /// Counts what was admitted without Redis, under its own times. `offset_us` leads from the records' clock to
    /// Redis's. A record that is written twice counts once.
    ///
    /// # Errors
    /// Redis could not be asked, or answered with an error.
    pub async fn record(
        &self,
        connection: &mut Connection,
        records: &[Record],
        offset_us: i64,
    ) -> Result<(), RedisError> {
        let windows: usize = records.iter().map(|record| record.windows.len()).sum();
        let write = |cmd: &mut Cmd| {
            cmd.arg(1 + windows).arg(self.name("windows"));
            let mut name = Vec::new();
            for record in records {
                self.write_names(cmd, &mut name, &record.key, record.windows.iter().copied());
            }
            cmd.arg("");
            for record in records {
                let (id, asked) = match &record.id {
                    // The dash is no digit of a batch's number, so this is no batch's id.
                    Id::New(number) => (format!("{}-{}", self.process_id, base62(*number)), 1),
                    Id::Asked { id, asked } => (id.clone(), *asked),
                };
                let time_us = record.time_us.saturating_add_signed(offset_us);
                cmd.arg(id).arg(time_us).arg(record.cost).arg(record.admitted).arg(asked).arg(record.windows.len());
                for window in &record.windows {
                    cmd.arg(window.ms());
                }
            }
        };
        connection.run(&self.record, write).await.map(drop)
    }

    /// Forgets the keys and tells every proxy so. Says how many had any state.
    ///
    /// # Errors
    /// Redis could not be asked, or answered with an error.
    pub async fn reset(&self, connection: &mut Connection, keys: &[Vec<u8>]) -> Result<u64, RedisError> {
        let reply = connection
            .run(&self.reset, |cmd| {
                cmd.arg(1).arg(self.name("windows")).arg(self.reset_channel());
                for key in keys {
                    let mut base = Vec::new();
                    self.write_base(&mut base, key);
                    cmd.arg(base).arg(key);
                }
            })
            .await?;
        Ok(redis::from_redis_value(reply)?)
    }

    /// The channel that a reset is told on; its messages are keys.
    pub fn reset_channel(&self) -> Vec<u8> {
        self.name("reset")
    }

    /// An id for a batch's entries: short, because it stands in Redis once for each of them.
    pub fn next_batch_id(&self) -> String {
        format!("{}{}", self.process_id, base62(self.batches.fetch_add(1, Relaxed)))
    }

    fn write_batch(&self, cmd: &mut Cmd, batch: &Batch, batch_id: &str) {
        cmd.arg(1 + batch.windows()).arg(self.name("windows"));
        let mut name = Vec::new();
        for item in batch.items() {
            let check = batch.check_of(item);
            self.write_names(cmd, &mut name, check.key, check.quotas.iter().map(|quota| quota.window));
        }
        cmd.arg(batch_id);
        let mut question = Vec::new();
        for run in batch.items().chunk_by(|one, other| asks_the_same(batch, one, other)) {
            let Some(first) = run.first() else { continue };
            let check = batch.check_of(first);
            question.clear();
            question.extend_from_slice(&first.count.to_le_bytes());
            question.extend_from_slice(&check.cost.to_le_bytes());
            for quota in check.quotas {
                question.extend_from_slice(&quota.limit.to_le_bytes());
                // No window is as long as 2^53 ms, so that a double holds it exactly.
                question.extend_from_slice(&(quota.window.ms() as f64).to_le_bytes());
            }
            cmd.arg(run.len()).arg(&*question);
        }
    }

    fn write_names(&self, cmd: &mut Cmd, name: &mut Vec<u8>, key: &[u8], windows: impl Iterator<Item = Window>) {
        name.clear();
        self.write_base(name, key);
        name.push(b':');
        let base_len = name.len();
        for window in windows {
            name.truncate(base_len);
            name.extend_from_slice(window.ms().to_string().as_bytes());
            cmd.arg(&*name);
        }
    }

    fn name(&self, suffix: &str) -> Vec<u8> {
        [&self.prefix, suffix.as_bytes()].concat()
    }

    /// The name of a key's logs up to the window. All of a key's logs share a cluster slot, which is chosen by what
    /// stands between the first `{` and the next `}`. Of a key that begins with `}` that would be nothing, and nothing
    /// does not count: such keys get a tag of their own, and an ending that no other name has.
    fn write_base(&self, out: &mut Vec<u8>, key: &[u8]) {
        let (open, close): (&[u8], &[u8]) = if key.first() == Some(&b'}') { (b"{:}", b"|") } else { (b"{", b"}") };
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(open);
        out.extend_from_slice(key);
        out.extend_from_slice(close);
    }
}

/// Whether two items are as many checks of the same cost and windows, of whatever keys.
fn asks_the_same(batch: &Batch, one: &Item, other: &Item) -> bool {
    let (check, another) = (batch.check_of(one), batch.check_of(other));
    one.count == other.count && check.cost == another.cost && check.quotas == another.quotas
}

/// The id of the entry that the `index`th item of a batch makes, as check.lua has it.
pub fn entry_id(batch_id: &str, index: usize) -> String {
    if index == 0 { batch_id.to_owned() } else { format!("{batch_id}.{}", base62(index as u64)) }
}

/// Integers that the scripts reply for each window of an item of which a check is denied.
const DENIAL_FIELDS: usize = 4;

fn read_answers(reply: Value, windows: usize) -> Result<Answers, RedisError> {
    let numbers: Vec<i64> = redis::from_redis_value(reply)?;
    let Some((redis_now_us, numbers)) = numbers.split_first() else { return Err(unexpected()) };
    let Some((used, denials)) = numbers.split_at_checked(windows) else { return Err(unexpected()) };
    let mut windows: Vec<WindowAnswer> = used.iter().map(|used| read_used(*used)).collect();
    let (denials, rest) = denials.as_chunks::<DENIAL_FIELDS>();
    if !rest.is_empty() {
        return Err(unexpected());
    }
    for [place, fits_in_us, empty_in_us, covered] in denials {
        let answer = usize::try_from(*place).ok().and_then(|place| windows.get_mut(place));
        let Some(WindowAnswer::State { state, covered: known }) = answer else { return Err(unexpected()) };
        let amount = |number: &i64| u64::try_from(*number).unwrap_or(0);
        (state.fits_in_us, state.empty_in_us, *known) = (amount(fits_in_us), amount(empty_in_us), amount(covered));
    }
    Ok(Answers { redis_now_us: *redis_now_us, windows })
}

fn read_used(used: i64) -> WindowAnswer {
    match u64::try_from(used) {
        Ok(used) => WindowAnswer::State { state: WindowState { used, ..WindowState::default() }, covered: 0 },
        Err(_) => WindowAnswer::WrongType,
    }
}

fn unexpected() -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, "the script's reply has another shape than expected"))
}

/// Eight digits of base 62, from a key that the system's random numbers make.
fn random_id() -> String {
    const SHORTEST: u64 = 62u64.pow(7);
    base62(SHORTEST + RandomState::new().hash_one(std::process::id()) % (61 * SHORTEST))
}

fn base62(mut number: u64) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::new();
    loop {
        text.extend(DIGITS.get((number % 62) as usize).copied().map(char::from));
        number /= 62;
        if number == 0 {
            return text.iter().rev().collect();
        }
    }
}
