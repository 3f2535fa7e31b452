//! File descriptors: each client takes one, and another for its own connection to Redis.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process needs besides: listeners, the log, what waits for events; and for each worker a connection to Redis
/// and what wakes it.
const OTHERS: u64 = 64;
const PER_WORKER: u64 = 8;

/// How many are needed for so many clients, which have a Redis behind or not.
fn needed(clients: usize, workers: usize, has_redis: bool) -> u64 {
    let per_client = if has_redis { 2 } else { 1 };
    (clients as u64).saturating_mul(per_client).saturating_add(OTHERS).saturating_add(PER_WORKER * workers as u64)
}

/// Sees to it that this process may have as many as are needed, as far as it may allow itself more.
///
/// # Errors
/// It may not: how many are needed, and how many it may have.
pub fn make_room(clients: usize, workers: usize, has_redis: bool) -> Result<(), (u64, u64)> {
    let needed = needed(clients, workers, has_redis);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None stands for no limit.
    let Some(current) = current.filter(|current| *current < needed) else { return Ok(()) };
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = Rlimit { current: Some(raised), maximum };
    let had = if setrlimit(Resource::Nofile, limit).is_ok() { raised } else { current };
    if had >= needed { Ok(()) } else { Err((needed, had)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_needs_two_with_a_redis_behind_and_one_without() {
        assert_eq!(needed(1000, 2, true), 2080);
        assert_eq!(needed(1000, 2, false), 1080);
        assert_eq!(needed(usize::MAX, 2, true), u64::MAX);
    }
}
