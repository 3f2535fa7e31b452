//! What tells this process apart from all others, as Redis's `run_id` does.

use ahash::RandomState;
use std::sync::OnceLock;

/// 32 hexadecimal digits, drawn anew for each process from the system's random numbers.
pub fn run_id() -> &'static str {
    static RUN_ID: OnceLock<String> = OnceLock::new();
    RUN_ID.get_or_init(|| format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_the_same() {
        assert_eq!(run_id(), run_id());
        assert_eq!(run_id().len(), 32);
        assert!(run_id().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(run_id()[..16], run_id()[16..]);
    }
}
