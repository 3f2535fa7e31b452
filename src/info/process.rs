//! What this process takes of its machine, as Linux says in /proc. Nothing elsewhere.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a reading is good for. It takes a tenth of a millisecond, and INFO may be asked for thousands of times in
/// one breath.
const GOOD_FOR: Duration = Duration::from_millis(100);
/// The kernel counts processor time in hundredths of a second, whatever its own clock (`USER_HZ`).
const MS_PER_TICK: u64 = 10;

/// What the process takes.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Bytes in memory now.
    pub resident_bytes: u64,
    /// Most bytes that were in memory at once.
    pub peak_bytes: u64,
    /// Processor time that its threads have used.
    pub user: Duration,
    /// Processor time that the kernel has used on its behalf.
    pub system: Duration,
}

/// What the process takes, or took a moment ago.
pub fn usage() -> Option<Usage> {
    static LAST: Mutex<Option<(Instant, Usage)>> = Mutex::new(None);
    // What a panic leaves behind is a reading all the same.
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, usage)) = *last
        && at.elapsed() < GOOD_FOR
    {
        return Some(usage);
    }
    let usage = read()?;
    *last = Some((Instant::now(), usage));
    Some(usage)
}

/// How many file descriptors are in use.
pub fn open_files() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}

fn read() -> Option<Usage> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name in brackets, which may hold anything, the 12th and 13th field are the user's and the system's time.
    let mut times = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut time = || Some(Duration::from_millis(times.next()?.parse::<u64>().ok()? * MS_PER_TICK));
    Some(Usage {
        resident_bytes: bytes_of(&status, "VmRSS:")?,
        peak_bytes: bytes_of(&status, "VmHWM:")?,
        user: time()?,
        system: time()?,
    })
}

fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_takes() {
        let first = usage().unwrap();
        assert!(first.resident_bytes > 1024 * 1024 && first.resident_bytes <= first.peak_bytes, "{first:?}");
        let start = Instant::now();
        while usage().is_none_or(|now| now.user + now.system == first.user + first.system) {
            assert!(start.elapsed() < Duration::from_secs(20), "a loop that takes no time");
        }
    }
}
