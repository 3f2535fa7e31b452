//! What clients may ask.

use super::layers::Settings;

/// `[limits]`: what clients may ask, where the operator wants less than what Tollgate can do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Highest limit of a window, 1 to 1,000,000,000.
    pub limit: u32,
    /// Longest window, 1 to 31,622,400,000 ms (366 days).
    pub window_ms: u64,
    /// Highest cost of a request, 1 to 1,000,000.
    pub cost: u32,
    /// Most windows of a check, 1 to 8.
    pub windows: usize,
    /// Most keys of a reset, 1 to 1,000,000.
    pub reset_keys: usize,
    /// Most different windows in use over all keys, 8 to 4,096: a reset looks for as many logs of each key.
    pub windows_in_use: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            limit: 1_000_000_000,
            window_ms: 31_622_400_000,
            cost: 1_000_000,
            windows: 8,
            reset_keys: 1_000_000,
            windows_in_use: 1024,
        }
    }
}

impl Limits {
    pub(super) fn read(settings: &mut Settings) -> Self {
        let most = Self::default();
        Self {
            limit: settings.int("limits.max_limit", most.limit, 1..=most.limit),
            window_ms: settings.int("limits.max_window_ms", most.window_ms, 1..=most.window_ms),
            cost: settings.int("limits.max_cost", most.cost, 1..=most.cost),
            windows: settings.int("limits.max_windows", most.windows, 1..=most.windows),
            reset_keys: settings.int("limits.max_reset_keys", most.reset_keys, 1..=most.reset_keys),
            windows_in_use: settings.int("limits.max_windows_in_use", most.windows_in_use, 8..=4096),
        }
    }
}
