//! Who is connected, and what each has said of itself, where every worker can see it: for CLIENT LIST.

use crate::shards::Shards;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

/// Parts of the list, each with a lock of its own: clients come and go on all workers.
const SHARDS: usize = 16;
/// Most bytes that are kept of each thing that a client says of itself. What is longer is shown cut.
const MAX_SAID_BYTES: usize = 128;

/// The clients of a process, by their ids. As many as there are connections, which `server.max_clients` bounds.
pub struct ClientList(Shards<HashMap<u64, Entry>>);

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
        Self(Shards::new(SHARDS))
    }
}

impl ClientList {
    /// A client has come.
    pub fn add(&self, entry: Entry) {
        self.0.of(hash(entry.id)).insert(entry.id, entry);
    }

    /// A client has said something of itself.
    pub fn note(&self, id: u64, said: Said) {
        if let Some(entry) = self.0.of(hash(id)).get_mut(&id) {
            entry.said = said;
        }
    }

    /// A client has gone.
    pub fn remove(&self, id: u64) {
        let mut shard = self.0.of(hash(id));
        shard.remove(&id);
        if shard.len() < shard.capacity() / 8 {
            // Gives memory back after a crowd of clients has gone.
            let kept = shard.len() * 2;
            shard.shrink_to(kept);
        }
    }

    /// The client of this number.
    pub fn get(&self, id: u64) -> Option<Entry> {
        self.0.of(hash(id)).get(&id).cloned()
    }

    /// All clients, oldest first.
    pub fn all(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            self.0.iter().flat_map(|shard| shard.values().cloned().collect::<Vec<_>>()).collect();
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
        let Self { id, peer, local, fd, since, said } = self;
        let text = String::from_utf8_lossy;
        write!(
            f,
            "id={id} addr={peer} laddr={local} fd={fd} name={} age={}",
            text(&said.name),
            since.elapsed().as_secs()
        )?;
        // Where these lines are shown there is no Redis to subscribe at.
        write!(f, " flags=N db={} sub=0 psub=0 ssub=0 user={} redir=-1", said.database, said.user)?;
        let resp = if said.is_resp3 { 3 } else { 2 };
        write!(f, " resp={resp} lib-name={} lib-ver={}", text(&said.lib_name), text(&said.lib_ver))
    }
}
