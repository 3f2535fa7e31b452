//! The one monotonic clock of this process. Pure modules take its readings as arguments; only the edges read it. And the
//! clock of everybody, for what is shown.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

/// Microseconds since the first reading. Never steps back, and begins at one hour, so that subtracting a delay cannot
/// pass below zero.
pub fn now_us() -> u64 {
    const HEAD_START: Duration = Duration::from_secs(3600);
    let since_start = START.get_or_init(Instant::now).elapsed() + HEAD_START;
    u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970, by the system's clock, which may be set anew at any time.
pub fn unix_us() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}
