//! The name of a policy, as a value that costs no more to pass than a pointer.
//!
//! What is counted for a policy is apart from what is counted for others, so the name goes wherever a counter goes: into
//! each question, denial, bucket and record. So each name is kept once, for as long as the process runs. Names come from
//! the configuration, from admins and from the registry in Redis, never from a check: that they are so many at most is
//! no limit that anybody meets by calling.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Longest name, in bytes.
pub const MAX_POLICY_NAME_BYTES: usize = 64;
/// What follows the key in commands and is no policy.
pub const RESERVED: [&str; 8] = ["and", "burst", "by", "conn", "cost", "full", "id", "prefetch"];
/// Most different names in the life of a process.
const MAX_NAMES: usize = 1 << 16;

static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// No policy's name, as it begins with no letter.
static OF_THROTTLES: &str = ".throttles";

/// The name of a policy: a letter, then letters, digits, `_`, `.` and `-`.
#[derive(Clone, Copy)]
pub struct PolicyName(&'static str);

impl PolicyName {
    /// The policy of this name, or `None` if none can have it, or too many names were used already.
    pub fn new(name: &str) -> Option<Self> {
        if !is_valid(name.as_bytes()) {
            return None;
        }
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.get_or_insert_default();
        if let Some(known) = names.get(name) {
            return Some(Self(known));
        }
        if names.len() >= MAX_NAMES {
            return None;
        }
        let kept: &'static str = Box::leak(name.into());
        names.insert(kept);
        Some(Self(kept))
    }

    /// The policy of this name, if any was ever called so here. Whoever asks by a name makes none.
    pub fn known(name: &[u8]) -> Option<Self> {
        let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        names.as_ref()?.get(str::from_utf8(name).ok()?).map(|known| Self(known))
    }

    /// What this process itself counts for throttles, which have no policy, is apart from what it counts for checks.
    pub fn of_throttles() -> Self {
        Self(OF_THROTTLES)
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// Whether a policy can have this name.
pub fn is_valid(name: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=MAX_POLICY_NAME_BYTES).contains(&name.len())
        && name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(is_of_name)
        && !RESERVED.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(name))
}

// Each name is kept once, so that where it stands tells it from all others.
impl PartialEq for PolicyName {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for PolicyName {}

impl Hash for PolicyName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

impl Ord for PolicyName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(other.0)
    }
}

impl PartialOrd for PolicyName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_what_can_be_none_is_none() {
        assert_eq!(PolicyName::new("login"), PolicyName::new(&String::from("login")));
        assert_ne!(PolicyName::new("login"), PolicyName::new("Login"));
        assert!(PolicyName::new("a") < PolicyName::new("b"));
        assert!(PolicyName::new(&"a".repeat(64)).is_some() && PolicyName::new("a_B.9-").is_some());
        for name in ["", "9a", "_a", ".a", "a:b", "a b", "é", "aé", "a\n", "*", "COST", "full", &"a".repeat(65)] {
            assert_eq!(PolicyName::new(name), None, "{name}");
        }
    }
}
