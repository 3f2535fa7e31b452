//! `PREFETCH`: how far ahead units are asked for, that are then admitted without asking: a share.

use std::fmt;

/// Most units of one share.
pub const MAX_PREFETCH_UNITS: u32 = super::MAX_COST;
/// Shortest and longest life of a share, in milliseconds.
pub const MIN_PREFETCH_MS: u16 = 2;
/// See above.
pub const MAX_PREFETCH_MS: u16 = 1000;
/// Life of a share of which only the size is said.
const DEFAULT_MS: u16 = 100;
/// A share lives no longer than this part of a window: for that long, Redis keeps a log longer than its newest entry counts.
const PART_OF_WINDOW: u64 = 8;

/// How far ahead: by a number of units, or for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefetch {
    /// So many units at most, 1 to [`MAX_PREFETCH_UNITS`].
    Units(u32),
    /// What a key takes in so many milliseconds, [`MIN_PREFETCH_MS`] to [`MAX_PREFETCH_MS`].
    Ms(u16),
}

impl Prefetch {
    /// Most units of one share.
    pub fn max_units(self) -> u32 {
        match self {
            Self::Units(units) => units,
            Self::Ms(_) => MAX_PREFETCH_UNITS,
        }
    }

    /// How long a share of a log lives whose window is so long, in microseconds; `None` where the window is too short for
    /// any.
    pub fn life_us(self, window: super::Window) -> Option<u64> {
        let ms = match self {
            Self::Units(_) => DEFAULT_MS,
            Self::Ms(ms) => ms,
        };
        let ms = u64::from(ms).min(window.ms() / PART_OF_WINDOW);
        (ms >= MIN_PREFETCH_MS.into()).then_some(ms * 1000)
    }
}

/// As it is read again.
impl fmt::Display for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Units(units) => write!(f, "{units}"),
            Self::Ms(ms) => write!(f, "{ms}ms"),
        }
    }
}
