//! `[policies]` of the configuration file, while Tollgate runs: the file is read again when somebody says so, and when
//! what it holds has changed. It is taken as a whole or not at all, and what held goes on to hold if not.
//!
//! What it holds is looked at, not when it was changed: that works on every file system, and where a link in front of it
//! is swapped, as for a ConfigMap. What is half written when it is looked at is not taken, for it has to be the same twice.

use crate::config;
use crate::policy::live::LivePolicies;
use ahash::RandomState;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

/// How often the file is looked at. A change is in force after two to three times this.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest file: as many overrides as may be, of the longest keys.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Most that is told of a file at once, in bytes.
const MAX_TOLD_BYTES: usize = 2048;

/// The file, if there is one.
#[derive(Debug)]
pub struct PolicyFile {
    path: Option<PathBuf>,
    live: Arc<LivePolicies>,
    seen: Mutex<Seen>,
    failures: AtomicU64,
    hasher: RandomState,
}

/// What the file held, as hashes.
#[derive(Debug, Default)]
struct Seen {
    /// When it was last read, be it taken or refused.
    read: Option<u64>,
    /// When it was last looked at.
    looked_at: Option<u64>,
    /// When it was last refused.
    refused: Option<u64>,
}

impl PolicyFile {
    /// Of the file at `path`, whose policies come into force in `live`.
    pub fn new(path: Option<PathBuf>, live: Arc<LivePolicies>) -> Self {
        let (seen, failures, hasher) = (Mutex::default(), AtomicU64::new(0), RandomState::new());
        Self { path, live, seen, failures, hasher }
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.path.is_some()
    }

    /// How often it could not be taken.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Looks at it for as long as this is polled.
    pub async fn watch(self: &Arc<Self>) {
        if self.path.is_none() {
            return std::future::pending().await;
        }
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let file = self.clone();
            let _ = tokio::task::spawn_blocking(move || file.look()).await;
        }
    }

    /// Has what it says now come into force. Blocks while it is read.
    ///
    /// # Errors
    /// There is no file, or something is wrong with it, which the log tells too.
    pub fn load(&self) -> Result<(), String> {
        let path = self.path.as_deref().ok_or("there is no configuration file (--config)")?;
        self.take(path, &read(path))
    }

    fn look(&self) {
        let Some(path) = self.path.as_deref() else { return };
        let text = read(path);
        let hash = self.hash(&text);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_settled = seen.looked_at.replace(hash) == Some(hash);
        let is_news = is_settled && seen.read != Some(hash);
        drop(seen);
        if is_news {
            // What is wrong with it was told in the log.
            let _ = self.take(path, &text);
        }
    }

    fn take(&self, path: &Path, text: &Result<String, String>) -> Result<(), String> {
        let hash = self.hash(text);
        let outcome = text.as_deref().map_err(Clone::clone).and_then(|text| config::read_policies(text, path));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.read = Some(hash);
        let outcome = outcome.map_err(|text| shortened(&text.replace('\n', "; ")));
        match outcome {
            Ok(policies) => {
                seen.refused = None;
                let changes = self.live.update(|live| {
                    let changes = live.changes_of_file(&policies);
                    live.set_file(policies);
                    changes
                });
                if !changes.is_empty() {
                    info!(file = %path.display(), changes = shortened(&changes.join("; ")), "the file's policies have changed");
                }
                Ok(())
            }
            Err(text) => {
                self.failures.fetch_add(1, Relaxed);
                if seen.refused.replace(hash) != Some(hash) {
                    error!(file = %path.display(), error = text, "policies cannot be read: keeping the previous ones");
                }
                Err(text)
            }
        }
    }

    fn hash(&self, text: &Result<String, String>) -> u64 {
        self.hasher.hash_one(text)
    }
}

fn read(path: &Path) -> Result<String, String> {
    let attempt = || {
        let mut text = String::new();
        let read = File::open(path)?.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
        if read as u64 == MAX_FILE_BYTES { Err(io::Error::from(io::ErrorKind::FileTooLarge)) } else { Ok(text) }
    };
    attempt().map_err(|error: io::Error| format!("{}: {error}", path.display()))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TOLD_BYTES / 4).filter(|_| text.len() > MAX_TOLD_BYTES) {
        Some((end, _)) => format!("{} ...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
