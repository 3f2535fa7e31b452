//! File descriptors: each client takes one, and another for its own connection to Redis.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process needs besides: listeners, the log, what waits for events; and for each worker a connection to Redis
/// and what wakes it.
const OTHERS: u64 = 64;
const PER_WORKER: u64 = 8;

/// How many are needed for so many clients, each with so many.
fn needed(clients: usize, per_client: u64, workers: usize) -> u64 {
    (clients as u64).saturating_mul(per_client).saturating_add(OTHERS).saturating_add(PER_WORKER * workers as u64)
}

/// Sees to it that this process may have one for each client and, before a Redis, one for a connection of each client's
/// own, as far as it may allow itself more.
///
/// # Errors
/// Not even one for each client: how many are needed, and how many it may have.
pub fn make_room(clients: usize, workers: usize, has_redis: bool) -> Result<(), (u64, u64)> {
    let least = needed(clients, 1, workers);
    let wanted = if has_redis { needed(clients, 2, workers) } else { least };
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None stands for no limit.
    let Some(current) = current.filter(|current| *current < wanted) else { return Ok(()) };
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let limit = Rlimit { current: Some(raised), maximum };
    let had = if raised > current && setrlimit(Resource::Nofile, limit).is_ok() { raised } else { current };
    if had >= least { Ok(()) } else { Err((least, had)) }
}

/// How many this process may have; `None` if there is no limit.
pub fn most() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_needed() {
        assert_eq!(needed(1000, 2, 2), 2080);
        assert_eq!(needed(1000, 1, 2), 1080);
        assert_eq!(needed(usize::MAX, 2, 2), u64::MAX);
    }
}
