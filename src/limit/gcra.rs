//! GCRA, the generic cell rate algorithm: a state is one time, at which it will be empty (the TAT, theoretical arrival time).
//!
//! ```text
//!          now        empty                 now + burst intervals
//! time ----|============)----------------------|------->       an interval is window / limit
//!            used             remaining
//! ```
//!
//! A request moves the time one interval for each unit of its cost, from now on if it is past, and is allowed if it is not
//! further ahead then than `burst` intervals. So in any time t at most burst + limit x t / window passes: the same as
//! a token bucket of `burst` that refills at that rate.
//!
//! An interval is seldom whole microseconds. A time is therefore whole microseconds and a number of parts, of which a
//! microsecond has as many as the limit is high: then every interval is whole, and nothing is ever rounded, however many
//! are admitted. Where a state was written under another limit its parts are rounded up, which delays by less than two of
//! the new limit's. lua/counters.lua does the same.

use super::{Counter, Limit, LimitState, MAX_WINDOW_MS, Standing, Window};

/// A full state is empty after so many windows at the latest: what bounds the burst of a limit, and so how long a state
/// lives, which must be known of a counter.
pub const MAX_WINDOWS_TO_EMPTY: u64 = 100;
/// And after so long.
const MAX_US_TO_EMPTY: u64 = MAX_WINDOW_MS * 1000;
/// The part of that time that a state in Redis outlives its use at most, and the second that its life is rounded up to, as
/// lua/counters.lua has it.
const MAX_SPARE_PART: u64 = 4;
const ROUNDING_US: u64 = 1_000_000;

/// The parts that a limit's numbers are counted in.
type Parts = u128;

/// Whether a limit may have this burst.
pub fn allows_burst(max: u32, window: Window, burst: u32) -> bool {
    let full = Parts::from(burst) * Parts::from(window.us());
    full <= Parts::from(max) * Parts::from(longest_us(window))
}

/// The furthest that a state may be ahead, whatever the limit.
pub(super) const fn longest_us(window: Window) -> u64 {
    let by_windows = window.us() * MAX_WINDOWS_TO_EMPTY;
    if by_windows < MAX_US_TO_EMPTY { by_windows } else { MAX_US_TO_EMPTY }
}

/// The longest that a state lives after its last request.
pub(super) const fn max_life_us(window: Window) -> u64 {
    longest_us(window) + longest_us(window) / MAX_SPARE_PART + ROUNDING_US
}

fn level(limit: &Limit, state: &LimitState) -> Parts {
    Parts::from(state.used) * Parts::from(limit.max) + Parts::from(state.part)
}

fn intervals(limit: &Limit, number: u32) -> Parts {
    Parts::from(number) * Parts::from(limit.window.us())
}

/// Whole microseconds, and the parts beyond.
fn split(limit: &Limit, parts: Parts) -> (u64, u32) {
    let max = Parts::from(limit.max);
    // No time is as far ahead as 2^64 us, and a remainder is below the limit, a u32.
    (u64::try_from(parts / max).unwrap_or(u64::MAX), u32::try_from(parts % max).unwrap_or(0))
}

fn us_ceil(limit: &Limit, parts: Parts) -> u64 {
    u64::try_from(parts.div_ceil(limit.max.into())).unwrap_or(u64::MAX)
}

pub(super) fn fits(limit: &Limit, burst: u32, state: &LimitState, cost: u32) -> bool {
    level(limit, state) + intervals(limit, cost) <= intervals(limit, burst)
}

pub(super) fn remaining(limit: &Limit, burst: u32, state: &LimitState) -> u32 {
    let free = intervals(limit, burst).saturating_sub(level(limit, state));
    u32::try_from(free / Parts::from(limit.window.us())).unwrap_or(burst)
}

/// The state after a request was counted at the same moment.
pub(super) fn count(limit: &Limit, state: &mut LimitState, cost: u32) {
    let parts = level(limit, state) + intervals(limit, cost);
    (state.used, state.part) = split(limit, parts);
    state.empty_in_us = us_ceil(limit, parts);
}

/// Until a request fits that costs no more than the burst.
pub(super) fn fits_in_us(limit: &Limit, burst: u32, state: &LimitState, cost: u32) -> u64 {
    let lacking = (level(limit, state) + intervals(limit, cost)).saturating_sub(intervals(limit, burst));
    us_ceil(limit, lacking)
}

/// Until one more fits than now; 0 if nothing is used.
pub(super) fn next_in_us(limit: &Limit, burst: u32, state: &LimitState) -> u64 {
    match level(limit, state) {
        0 => 0,
        _ => fits_in_us(limit, burst, state, remaining(limit, burst, state).saturating_add(1)),
    }
}

/// The state so much later.
pub(super) fn later(state: &LimitState, elapsed_us: u64) -> LimitState {
    match state.used.checked_sub(elapsed_us) {
        Some(used) => LimitState { used, ..*state },
        None => LimitState { used: 0, part: 0, ..*state },
    }
}

/// The state that is so far ahead.
pub(super) fn state(ahead_us: u64, part: u32) -> LimitState {
    LimitState { used: ahead_us, part, empty_in_us: ahead_us + u64::from(part > 0), ..LimitState::default() }
}

/// Appends what lua/items.lua is told of the limit and a request of this cost.
pub(super) fn pack(limit: &Limit, burst: u32, cost: u32, out: &mut Vec<u8>) {
    write_counter(limit.window, out);
    for parts in [intervals(limit, burst), intervals(limit, cost)] {
        let (us, part) = split(limit, parts);
        out.extend_from_slice(&(us as f64).to_le_bytes());
        out.extend_from_slice(&part.to_le_bytes());
    }
    out.extend_from_slice(&limit.max.to_le_bytes());
}

/// Appends what lua/record.lua is told of one check of this cost, which may be above any burst.
pub(super) fn pack_step(max: u32, window: Window, cost: u32, out: &mut Vec<u8>) {
    let limit = Limit::log(max, window);
    let (us, part) = split(&limit, intervals(&limit, cost));
    out.extend_from_slice(&(us as f64).to_le_bytes());
    out.extend_from_slice(&part.to_le_bytes());
    out.extend_from_slice(&max.to_le_bytes());
}

/// Appends the counter as lua/counters.lua reads it.
pub(super) fn write_counter(window: Window, out: &mut Vec<u8>) {
    const KIND: u8 = 1;
    out.push(KIND);
    // Far below 2^53, so that a double holds it exactly.
    out.extend_from_slice(&(longest_us(window) as f64).to_le_bytes());
}

/// A state in this process.
pub struct Gcra {
    window: Window,
    /// Whole microseconds, and parts of one in `parts`.
    tat_us: u64,
    part: u32,
    parts: u32,
}

impl Gcra {
    /// An empty state.
    pub(super) fn new(window: Window) -> Self {
        Self { window, tat_us: 0, part: 0, parts: 1 }
    }

    /// Its window.
    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// The state as this limit sees it.
    pub(super) fn state(&self, limit: &Limit, burst: u32, now_us: u64) -> LimitState {
        let Some(ahead_us) = self.tat_us.checked_sub(now_us) else { return LimitState::default() };
        if ahead_us > longest_us(self.window) {
            // The clock stepped back, by more than any state can be ahead: as one that is full.
            let (us, part) = split(limit, intervals(limit, burst));
            return state(us, part);
        }
        if self.part == 0 || self.parts == limit.max {
            return state(ahead_us, self.part);
        }
        // As lua/counters.lua has it, in doubles.
        let part = (f64::from(self.part) * f64::from(limit.max) / f64::from(self.parts)).floor() + 2.0;
        if part < f64::from(limit.max) { state(ahead_us, part as u32) } else { state(ahead_us + 1, 0) }
    }

    /// Counts a request, of cost 0 if all that is to be done is to keep a state that is taken for a full one.
    pub(super) fn count(&mut self, limit: &Limit, burst: u32, cost: u32, now_us: u64) {
        let mut state = self.state(limit, burst, now_us);
        count(limit, &mut state, cost);
        (self.tat_us, self.part, self.parts) = (now_us + state.used, state.part, limit.max);
    }

    /// Whether it is taken for a full one.
    pub(super) fn is_ahead(&self, now_us: u64) -> bool {
        self.tat_us.saturating_sub(now_us) > longest_us(self.window)
    }

    /// Whether anything still counts.
    pub(super) fn is_live(&self, now_us: u64) -> bool {
        self.empty_at_us() > now_us
    }

    fn empty_at_us(&self) -> u64 {
        self.tat_us + u64::from(self.part > 0)
    }

    /// How it stands, in milliseconds until it is empty, as it knows no limit; `None` if it is.
    pub(super) fn standing(&self, counter: Counter, now_us: u64) -> Option<Standing> {
        let ahead_us = self.empty_at_us().checked_sub(now_us).filter(|ahead_us| *ahead_us > 0)?;
        Some(Standing::of_counter(counter, ahead_us.div_ceil(1000), self.empty_at_us(), now_us))
    }
}

/// Appends what the name of a state ends in.
pub(super) fn write_name(window: Window, out: &mut Vec<u8>) {
    out.push(b'g');
    super::log::write_name(window, out);
}

/// The window of the state whose name ends so.
pub(super) fn of_name(name: &str) -> Option<Window> {
    name.strip_prefix('g').and_then(super::log::of_name)
}
