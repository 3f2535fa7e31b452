//! What becomes of a process in which a task has panicked: it ends, and whoever supervises it starts another.
//!
//! Going on would be worse. A worker whose task is gone serves its clients by halves: no check of theirs reaches Redis,
//! or none of their requests is read, and nothing says so.

use std::io::Write;
use std::panic;

/// From now on a panic on any thread is told on stderr and aborts the process.
pub fn abort_process() {
    panic::set_hook(Box::new(|panic| {
        // Not by way of the log, whose locks the thread may hold.
        let _ = writeln!(std::io::stderr(), "tollgate panicked, which is a bug, and ends: {panic}");
        std::process::abort();
    }));
}
