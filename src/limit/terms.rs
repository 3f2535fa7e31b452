//! What of a policy goes with a question on its way.

use super::{PolicyName, Prefetch};
use std::fmt;

/// On whose behalf a limit holds, and what becomes of its answer. They go with each question, so that a question that is
/// on its way ends by the terms that it began with, whatever is changed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Of which policy the limit is, if of any: each counts for itself.
    pub policy: Option<PolicyName>,
    /// Whether a denial is only told of, and lets pass.
    pub is_shadow: bool,
    /// The answer while Redis cannot be asked, if it is another than is configured for all.
    pub fallback: Option<FallbackMode>,
    /// How far ahead units are asked for, if they are.
    pub prefetch: Option<Prefetch>,
}

impl Terms {
    /// Those of a limit that stands in a command.
    pub const PLAIN: Self = Self { policy: None, is_shadow: false, fallback: None, prefetch: None };
}

/// What a check is answered while Redis cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FallbackMode {
    /// By a local token bucket.
    Local,
    /// Allowed.
    Open,
    /// Denied.
    Closed,
    /// `-UNAVAILABLE`.
    Error,
}

impl FallbackMode {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Local, Self::Open, Self::Closed, Self::Error];
}

impl fmt::Display for FallbackMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Error => "error",
        })
    }
}
