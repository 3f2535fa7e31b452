//! Tollgate's own log, which holds nobody up.
//!
//! Whoever reads standard error may have stopped reading, as a container's log driver does at times; the pipe is then
//! full, and writing to it does not return. So one thread does nothing but write, and all others hand it their lines.
//! Lines beyond [`MAX_QUEUED_BYTES`] are dropped and counted, and the log says how many once it can be written again.

pub mod denials;

use crate::config::{self, LogFormat};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::thread;
use std::time::Duration;
use tracing::warn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Most bytes of lines that wait to be written: some ten thousand lines.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// Longest that the end of the program waits for lines to be written.
const MAX_FLUSH: Duration = Duration::from_secs(1);

/// Bytes of the lines that wait to be written.
static QUEUED_BYTES: AtomicUsize = AtomicUsize::new(0);
static DROPPED_LINES: AtomicU64 = AtomicU64::new(0);

/// How many lines of log were dropped since the start, because standard error did not take them.
pub fn dropped_lines() -> u64 {
    DROPPED_LINES.load(Relaxed)
}

/// The log, which writes what it still can when it is dropped, within [`MAX_FLUSH`].
pub struct Log {
    queue: Queue,
}

/// Starts the log of the whole process, on standard error. A panic is written by the same way and ends the process, for
/// whoever supervises it to start another: a worker whose task is gone would serve its clients by halves, and nothing
/// would say so.
///
/// # Errors
/// No thread can be had.
pub fn start(config: &config::Log) -> io::Result<Log> {
    denials::allow(config.denials_per_s);
    let (sender, entries) = mpsc::channel();
    let queue = Queue(sender);
    thread::Builder::new().name("log".to_owned()).spawn(move || write_entries(&entries))?;
    let for_panics = queue.clone();
    panic::set_hook(Box::new(move |panic| {
        for_panics.push(describe(panic).as_bytes());
        for_panics.flush();
        std::process::abort();
    }));
    let for_lines = queue.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || for_lines.clone());
    let registry = tracing_subscriber::registry().with(config.level.clone());
    match config.format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).init(),
        LogFormat::Json => registry.with(layer.json()).init(),
    }
    Ok(Log { queue })
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush();
    }
}

enum Entry {
    Line(Vec<u8>),
    /// Answered once all lines before it are written.
    Flush(SyncSender<()>),
}

/// Takes lines for the thread that writes them. Bounded by [`MAX_QUEUED_BYTES`], not by the channel.
#[derive(Clone)]
struct Queue(Sender<Entry>);

impl Queue {
    fn push(&self, line: &[u8]) {
        let queued = QUEUED_BYTES.fetch_add(line.len(), Relaxed);
        if queued.saturating_add(line.len()) <= MAX_QUEUED_BYTES && self.0.send(Entry::Line(line.to_vec())).is_ok() {
            return;
        }
        QUEUED_BYTES.fetch_sub(line.len(), Relaxed);
        DROPPED_LINES.fetch_add(1, Relaxed);
    }

    /// Waits until the lines so far are written, for [`MAX_FLUSH`] at most.
    fn flush(&self) {
        let (sender, written) = mpsc::sync_channel(1);
        if self.0.send(Entry::Flush(sender)).is_ok() {
            let _ = written.recv_timeout(MAX_FLUSH);
        }
    }
}

impl Write for Queue {
    /// Takes one line whole, as `tracing_subscriber` gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_entries(entries: &Receiver<Entry>) {
    let (mut is_written, mut told) = (false, 0);
    loop {
        let entry = match entries.try_recv() {
            Ok(entry) => entry,
            Err(TryRecvError::Empty) => {
                // Said with an empty queue, which takes it, and after a line that went out: the next may as well.
                let dropped = dropped_lines();
                if is_written && dropped > told {
                    warn!(lines = dropped - told, "lines of log were dropped: standard error did not take them");
                    told = dropped;
                }
                match entries.recv() {
                    Ok(entry) => entry,
                    Err(_) => return,
                }
            }
            Err(TryRecvError::Disconnected) => return,
        };
        match entry {
            Entry::Line(line) => {
                is_written = io::stderr().write_all(&line).is_ok();
                DROPPED_LINES.fetch_add(u64::from(!is_written), Relaxed);
                QUEUED_BYTES.fetch_sub(line.len(), Relaxed);
            }
            // Fails when nobody waits any more.
            Entry::Flush(written) => drop(written.try_send(())),
        }
    }
}

/// What the standard library would write of a panic.
fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = if backtrace.status() == BacktraceStatus::Captured { backtrace.to_string() } else { String::new() };
    format!("thread '{}' {panic}\n{backtrace}", thread.name().unwrap_or_default())
}
