//! Who is connected, and what each has said of itself, where every worker can see it: for CLIENT LIST, for CLIENT KILL,
//! and for commands that name clients by their ids.

use crate::clock::now_us;
use crate::shards::Shards;
use ahash::RandomState;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Parts of the list, each with a lock of its own: clients come and go on all workers.
const SHARDS: usize = 16;
/// Most bytes that are kept of each thing that a client says of itself. What is longer is shown cut.
const MAX_SAID_BYTES: usize = 128;
/// The least id of a client before a Redis. No Redis comes so far in giving its own, and the numbers of JavaScript and
/// Lua, which are double-precision, hold all ids from here to [`END_ID`].
const LEAST_ID: u64 = 1 << 52;
const END_ID: u64 = 1 << 53;
/// The ids of one process differ in so many low bits alone. Those above are random, so that another Tollgate before the
/// same Redis gives others.
const ID_BITS: u32 = 31;

/// The id of the first client of a process. Before a Redis it is one that no Redis gives.
pub fn first_id(is_embedded: bool) -> u64 {
    let random = RandomState::new().hash_one(0) % (LEAST_ID >> (ID_BITS + 1));
    if is_embedded { 1 } else { LEAST_ID + (random << ID_BITS) + 1 }
}

/// Whether an id can be that of a client of a Tollgate before a Redis.
pub fn is_own(id: u64) -> bool {
    (LEAST_ID..END_ID).contains(&id)
}

/// How long after a CLIENT KILL a connection that Redis ends is taken for one that this has ended.
const KILLS_FOR_US: u64 = 1_000_000;

/// The clients of a process, by their ids. As many as there are connections, which `server.max_clients` bounds.
#[derive(Debug)]
pub struct ClientList {
    entries: Shards<HashMap<u64, Entry>>,
    /// When Redis was last asked to end some: microseconds.
    kill_us: AtomicU64,
}

/// A client as CLIENT LIST shows it. Its Display is the line, without what only its own worker knows.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// Its address.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// The file descriptor of its socket.
    pub fd: i32,
    /// When it came.
    pub since: Instant,
    /// What it has said of itself.
    pub said: Said,
    /// Its own connection to Redis.
    pub at_redis: AtRedis,
    /// Ends its session.
    pub kill: Arc<KillSwitch>,
}

/// What is known of a client's own connection to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtRedis {
    /// There is none.
    #[default]
    Absent,
    /// Redis has ended it because it was asked to, and the client, which was meant, has not opened another.
    Ended,
    /// There is one. What Redis calls it nobody has asked, as the client was told no other id.
    Unasked,
    /// Redis gave it this id.
    Id(u64),
}

/// A client has a connection to Redis of its own: the list says so for as long as this lives.
#[derive(Debug)]
pub struct Linked {
    list: Arc<ClientList>,
    id: u64,
}

impl Drop for Linked {
    fn drop(&mut self) {
        let is_meant = now_us().saturating_sub(self.list.kill_us.load(Relaxed)) < KILLS_FOR_US;
        self.list.note_at_redis(self.id, if is_meant { AtRedis::Ended } else { AtRedis::Absent });
    }
}

/// Ends a client's session, from any thread.
#[derive(Debug, Default)]
pub struct KillSwitch {
    is_asked: AtomicBool,
    session: Notify,
}

impl KillSwitch {
    fn ask(&self) {
        self.is_asked.store(true, Relaxed);
        self.session.notify_one();
    }

    /// Whether the session is to end.
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Relaxed)
    }

    /// Wakes whoever polls it when the session is to end.
    pub fn asked(&self) -> Notified<'_> {
        self.session.notified()
    }
}

/// What a client has said of itself.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_ver: Vec<u8>,
    /// Who it is. Empty as long as it has yet to say so.
    pub user: String,
    /// The database it selected.
    pub database: u32,
    /// Whether it speaks RESP3.
    pub is_resp3: bool,
}

/// So much of what a client says of itself as is kept.
pub fn kept(said: &[u8]) -> Vec<u8> {
    said.get(..MAX_SAID_BYTES).unwrap_or(said).to_vec()
}

impl Default for ClientList {
    fn default() -> Self {
        Self { entries: Shards::new(SHARDS), kill_us: AtomicU64::new(0) }
    }
}

impl ClientList {
    /// A client has come.
    pub fn add(&self, entry: Entry) {
        self.entries.of(hash(entry.id)).insert(entry.id, entry);
    }

    /// A client has said something of itself.
    pub fn note(&self, id: u64, said: Said) {
        if let Some(entry) = self.entries.of(hash(id)).get_mut(&id) {
            entry.said = said;
        }
    }

    /// A client has gone.
    pub fn remove(&self, id: u64) {
        let mut shard = self.entries.of(hash(id));
        shard.remove(&id);
        if shard.len() < shard.capacity() / 8 {
            // Gives memory back after a crowd of clients has gone.
            let kept = shard.len() * 2;
            shard.shrink_to(kept);
        }
    }

    /// A client has got a connection to Redis of its own, which has this id there if that is known.
    pub fn link(self: &Arc<Self>, id: u64, redis_id: Option<u64>) -> Linked {
        self.note_at_redis(id, redis_id.map_or(AtRedis::Unasked, AtRedis::Id));
        Linked { list: self.clone(), id }
    }

    fn note_at_redis(&self, id: u64, at_redis: AtRedis) {
        if let Some(entry) = self.entries.of(hash(id)).get_mut(&id) {
            entry.at_redis = at_redis;
        }
    }

    /// Redis's id of the connection of the client of this number.
    pub fn redis_id(&self, id: u64) -> Option<u64> {
        match self.entries.of(hash(id)).get(&id)?.at_redis {
            AtRedis::Id(redis_id) => Some(redis_id),
            AtRedis::Absent | AtRedis::Ended | AtRedis::Unasked => None,
        }
    }

    /// The numbers of the clients of which Redis's id is known, by that.
    pub fn by_redis_id(&self) -> HashMap<u64, u64> {
        let mut ids = HashMap::new();
        for shard in self.entries.iter() {
            ids.extend(shard.values().filter_map(|entry| match entry.at_redis {
                AtRedis::Id(redis_id) => Some((redis_id, entry.id)),
                AtRedis::Absent | AtRedis::Ended | AtRedis::Unasked => None,
            }));
        }
        ids
    }

    /// The number of the client at this address.
    pub fn id_at(&self, peer: SocketAddr) -> Option<u64> {
        self.entries.iter().find_map(|shard| shard.values().find(|entry| entry.peer == peer).map(|entry| entry.id))
    }

    /// Ends a client's session: soon, but from here on it is not in the list. Whether it was.
    pub fn kill(&self, id: u64) -> bool {
        let entry = self.entries.of(hash(id)).remove(&id);
        entry.inspect(|entry| entry.kill.ask()).is_some()
    }

    /// Redis is about to be asked to end clients, some of which it knows by what only it can tell.
    pub fn note_kill(&self) {
        self.kill_us.store(now_us(), Relaxed);
    }

    /// The client of this number.
    pub fn get(&self, id: u64) -> Option<Entry> {
        self.entries.of(hash(id)).get(&id).cloned()
    }

    /// All clients, oldest first.
    pub fn all(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            self.entries.iter().flat_map(|shard| shard.values().cloned().collect::<Vec<_>>()).collect();
        entries.sort_unstable_by_key(|entry| entry.id);
        entries
    }
}

/// Ids are given in turn, so they spread evenly by themselves; shards are chosen by these bits.
fn hash(id: u64) -> u64 {
    id << 32
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, peer, local, fd, since, said, .. } = self;
        let text = String::from_utf8_lossy;
        write!(
            f,
            "id={id} addr={peer} laddr={local} fd={fd} name={} age={}",
            text(&said.name),
            since.elapsed().as_secs()
        )?;
        // Where these lines are shown the client has no connection to Redis, on which it could be subscribed.
        write!(f, " flags=N db={} sub=0 psub=0 ssub=0 user={} redir=-1", said.database, said.user)?;
        let resp = if said.is_resp3 { 3 } else { 2 };
        write!(f, " resp={resp} lib-name={} lib-ver={}", text(&said.lib_name), text(&said.lib_ver))
    }
}
