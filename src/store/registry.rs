//! Which counters are in use: a registry in Redis that the proxies keep between them, so
//! that a reset finds a key's logs without a scan.
//!
//! A log is made only after its window was registered, on the same connection. What a process has registered it
//! remembers, and registers again when it makes a log of that window much later; so a registry that was deleted is
//! whole again soon.
//!
//! ```text
//!   registered              again, if used                 until: no log that was made meanwhile lives longer
//! ------|------ REFRESH_US -------|------ ... -------------------|------->
//! ```
//!
//! There is room for so many windows. Where it is taken, checks of others are refused before anything is counted.

use super::connection::Error;
use crate::limit::{Ask, Counter};
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// After so long a counter that is used is registered again.
const REFRESH_US: u64 = 60_000_000;
/// For so long a counter is registered beyond the life of a log that is made now: until it is registered again, and
/// as long again in case Redis's clock steps.
pub const SPARE_MS: u64 = 2 * REFRESH_US / 1000;
/// While there is no room, what other processes have registered or given up is asked for this often at most.
const LIST_EVERY_US: u64 = 1_000_000;

/// What this process knows of the registry. Shared by its workers.
#[derive(Debug)]
pub struct Registry {
    max: usize,
    /// Whether there was no room when Redis was last asked. Read without the lock: for nearly every check it is all that
    /// matters.
    is_full: AtomicBool,
    /// Whether anything is used and not registered. Likewise.
    has_forgotten: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Windows that are registered, and when this process last did that; `None` if another did. At most twice as many
    /// as there is room for.
    registered_us: HashMap<Counter, Option<u64>, RandomState>,
    /// What is used and was not registered when it was to be; at most as many as there is room for.
    forgotten: Vec<Counter>,
    /// When the registry is to be read again, at the earliest.
    next_list_us: u64,
    /// Somebody asked for a counter that is not known.
    is_asked_for_more: bool,
}

impl Registry {
    /// Of a registry that has room for so many.
    pub fn new(max: usize) -> Self {
        Self { max, is_full: AtomicBool::new(false), has_forgotten: AtomicBool::new(false), known: Mutex::default() }
    }

    /// Most counters that may be in use at once.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Whether a check is refused because it names a counter that there is no room for.
    pub fn refuses(&self, ask: &Ask<'_>) -> bool {
        if !self.is_full.load(Relaxed) {
            return false;
        }
        let mut known = self.lock();
        let is_known = ask.limits.iter().all(|limit| known.registered_us.contains_key(&limit.counter()));
        known.is_asked_for_more |= !is_known;
        !is_known
    }

    /// Those of some counters that are to be registered before a log of theirs is made.
    pub fn due(&self, counters: impl Iterator<Item = Counter>, now_us: u64) -> Vec<Counter> {
        let mut distinct = Vec::new();
        counters.for_each(|counter| {
            if !distinct.contains(&counter) {
                distinct.push(counter);
            }
        });
        let known = self.lock();
        distinct.retain(|counter| known.is_due(*counter, now_us));
        distinct
    }

    /// Redis was asked at `sent_us` to register these, and answered.
    ///
    /// # Errors
    /// It is the answer to something else.
    pub fn registered(&self, counters: &[Counter], reply: &[i64], sent_us: u64) -> Result<(), Error> {
        let Some((count, flags)) = reply.split_first().filter(|(_, flags)| flags.len() == counters.len()) else {
            return Err(Error::Unexpected);
        };
        self.set_full(*count);
        let mut known = self.lock();
        known.make_room(self.max, sent_us);
        for (counter, flag) in counters.iter().zip(flags) {
            match flag {
                1 => known.registered_us.insert(*counter, Some(sent_us)),
                _ => known.registered_us.remove(counter),
            };
        }
        Ok(())
    }

    /// These cannot be registered: not tried again soon.
    pub fn pass_over(&self, counters: &[Counter], now_us: u64) {
        let mut known = self.lock();
        known.make_room(self.max, now_us);
        known.registered_us.extend(counters.iter().map(|counter| (*counter, Some(now_us))));
    }

    /// Whether the registry is to be read, because somebody is refused a counter that may have room by now.
    pub fn take_list_due(&self, now_us: u64) -> bool {
        if !self.is_full.load(Relaxed) {
            return false;
        }
        let mut known = self.lock();
        let is_due = known.is_asked_for_more && known.next_list_us <= now_us;
        if is_due {
            (known.is_asked_for_more, known.next_list_us) = (false, now_us + LIST_EVERY_US);
        }
        is_due
    }

    /// Redis has said which counters are registered. Returns these and those that this process has registered, as the
    /// registry may have been deleted since; or `None` if more are registered than there is room for.
    ///
    /// # Errors
    /// It is the answer to something else.
    pub fn listed(&self, reply: &[Vec<u8>], now_us: u64) -> Result<Option<Vec<Counter>>, Error> {
        let (count, listed) = reply.split_first().ok_or(Error::Unexpected)?;
        let count = str::from_utf8(count).ok().and_then(|count| count.parse().ok()).ok_or(Error::Unexpected)?;
        self.set_full(count);
        let mut known = self.lock();
        known.registered_us.retain(|_, at_us| at_us.is_some());
        known.make_room(self.max, now_us);
        for counter in listed.iter().filter_map(|name| Counter::of_name(str::from_utf8(name).ok()?)) {
            known.registered_us.entry(counter).or_insert(None);
        }
        let is_whole = usize::try_from(count).is_ok_and(|count| count <= listed.len());
        Ok(is_whole.then(|| known.registered_us.keys().copied().collect()))
    }

    /// The registry may be another, or none: what this process has used lately is to be registered again.
    pub fn begin_anew(&self) {
        self.is_full.store(false, Relaxed);
        let mut known = self.lock();
        let Known { registered_us, forgotten, .. } = &mut *known;
        forgotten.extend(registered_us.drain().filter(|(_, at_us)| at_us.is_some()).map(|(counter, _)| counter));
        forgotten.truncate(self.max);
        self.has_forgotten.store(true, Relaxed);
    }

    /// These are used, and cannot be registered now.
    pub fn forgotten(&self, counters: &[Counter]) {
        let mut known = self.lock();
        let new = counters.iter().filter(|counter| !known.forgotten.contains(counter)).copied().collect::<Vec<_>>();
        known.forgotten.extend(new);
        known.forgotten.truncate(self.max);
        self.has_forgotten.store(true, Relaxed);
    }

    /// Takes what is used and not registered.
    pub fn take_forgotten(&self) -> Vec<Counter> {
        match self.has_forgotten.swap(false, Relaxed) {
            true => std::mem::take(&mut self.lock().forgotten),
            false => Vec::new(),
        }
    }

    /// Those of some counters that this process has not registered, nor will without being asked.
    pub fn unknown(&self, counters: impl Iterator<Item = Counter>) -> Vec<Counter> {
        let known = self.lock();
        let is_unknown = |counter: &Counter| !known.is_registered(*counter) && !known.forgotten.contains(counter);
        let mut unknown: Vec<_> = counters.filter(is_unknown).collect();
        unknown.sort();
        unknown.dedup();
        unknown
    }

    /// Those that are known to be in use.
    pub fn counters(&self) -> Vec<Counter> {
        let known = self.lock();
        let mut counters: Vec<_> = known.registered_us.keys().chain(&known.forgotten).copied().collect();
        counters.sort();
        counters.dedup();
        counters
    }

    fn set_full(&self, count: i64) {
        self.is_full.store(usize::try_from(count).is_ok_and(|count| count >= self.max), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_registered(&self, counter: Counter) -> bool {
        self.registered_us.get(&counter).is_some_and(Option::is_some)
    }

    fn is_due(&self, counter: Counter, now_us: u64) -> bool {
        let at_us = self.registered_us.get(&counter).copied().flatten();
        at_us.is_none_or(|at_us| now_us.saturating_sub(at_us) >= REFRESH_US)
    }

    /// Forgets what is no longer registered, once there may be as much of it as there is room for; or else all, for a
    /// registry that is deleted again and again lets more counters in than it has room for.
    fn make_room(&mut self, max: usize, now_us: u64) {
        if self.registered_us.len() >= max {
            self.registered_us.retain(|counter, at_us| at_us.is_none_or(|at_us| !has_lapsed(*counter, at_us, now_us)));
        }
        if self.registered_us.len() >= 2 * max {
            self.registered_us.clear();
        }
    }
}

/// Whether a counter that was registered then is no longer.
fn has_lapsed(counter: Counter, at_us: u64, now_us: u64) -> bool {
    at_us.saturating_add(counter.rule.max_life_us() + SPARE_MS * 1000) < now_us
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Limit, Window};

    fn window(ms: u64) -> Counter {
        Counter::of_name(&ms.to_string()).unwrap()
    }

    fn due(registry: &Registry, ms: &[u64], now_us: u64) -> Vec<u64> {
        registry.due(ms.iter().map(|ms| window(*ms)), now_us).iter().map(|counter| counter.rule.window().ms()).collect()
    }

    fn listed(registry: &Registry, names: &[&str], now_us: u64) -> Option<Vec<Counter>> {
        let reply: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut listed = registry.listed(&reply, now_us).unwrap()?;
        listed.sort();
        Some(listed)
    }

    fn refuses(registry: &Registry, ms: u64) -> bool {
        let limits = [Limit::log(1, Window::from_ms(ms).unwrap())];
        registry.refuses(&Ask { key: b"k", limits: &limits, cost: 1 })
    }

    #[test]
    fn a_window_is_registered_once_and_again_when_it_is_used_much_later() {
        let registry = Registry::new(10);
        assert_eq!(due(&registry, &[1000, 60_000, 1000], 5), [1000, 60_000]);
        registry.registered(&[window(1000), window(60_000)], &[2, 1, 1], 5).unwrap();
        assert_eq!(due(&registry, &[1000, 60_000, 7], REFRESH_US), [7]);
        assert_eq!(due(&registry, &[1000, 60_000], REFRESH_US + 5), [1000, 60_000]);
        registry.begin_anew();
        assert_eq!(due(&registry, &[1000], 6), [1000], "it may be another registry");
        assert!(registry.registered(&[window(1000)], &[1], 5).is_err());
    }

    /// Checks of all nodes but the registry's waited for it to be told again of what it had been told before.
    #[test]
    fn what_was_registered_is_not_unknown_to_a_registry_that_begins_anew() {
        let registry = Registry::new(10);
        let unknown = |ms: &[u64]| registry.unknown(ms.iter().map(|ms| window(*ms)));
        assert_eq!(unknown(&[1000]), [window(1000)]);
        registry.registered(&[window(1000)], &[1, 1], 5).unwrap();
        registry.begin_anew();
        assert_eq!(unknown(&[1000, 2000]), [window(2000)]);
        registry.forgotten(&[window(2000)]);
        assert_eq!((unknown(&[2000]), registry.counters()), (vec![], vec![window(1000), window(2000)]));
        assert_eq!(registry.take_forgotten().len(), 2, "it is told of both");
    }

    #[test]
    fn where_there_is_no_room_only_what_is_registered_is_taken() {
        let registry = Registry::new(2);
        assert!(!refuses(&registry, 1) && !registry.take_list_due(0));
        registry.registered(&[window(1), window(2)], &[2, 1, 0], 5).unwrap();
        assert!(!refuses(&registry, 1) && !registry.take_list_due(5), "nobody is refused");
        assert!(refuses(&registry, 2) && refuses(&registry, 3));
        assert!(registry.take_list_due(5) && !registry.take_list_due(5), "it is asked once");
        assert_eq!(listed(&registry, &["2", "1", "3"], 6).unwrap().len(), 2);
        assert!(!refuses(&registry, 3), "another process has registered it");
        assert_eq!(due(&registry, &[3], 6), [3], "and this one does so too");
        assert!(refuses(&registry, 2) && !registry.take_list_due(LIST_EVERY_US), "not so soon again");
        assert!(registry.take_list_due(LIST_EVERY_US + 5));
        listed(&registry, &["1", "1"], LIST_EVERY_US + 5);
        assert!(!refuses(&registry, 2), "there is room again");
    }

    #[test]
    fn a_list_is_what_is_registered_and_what_this_process_knows_of() {
        let registry = Registry::new(10);
        registry.registered(&[window(1000), window(2000)], &[2, 1, 1], 5).unwrap();
        let of = |ms: &[u64]| Some(ms.iter().map(|ms| window(*ms)).collect());
        assert_eq!(listed(&registry, &["2", "2000", "3000"], 6), of(&[1000, 2000, 3000]), "the registry has lost one");
        assert_eq!(listed(&registry, &["11", "1", "2"], 6), None, "there are more than it says");
        let strange = ["8", "-1", "0", "+7", "08", "9223372036854775807", "a:b:1", ":1", "4000"];
        assert_eq!(listed(&registry, &strange, 6), of(&[1000, 2000, 4000]), "what is no counter is none");
        assert!(registry.listed(&[], 6).is_err() && registry.listed(&[b"x".to_vec()], 6).is_err());
    }

    #[test]
    fn a_policy_s_counter_is_another_than_that_of_the_same_window() {
        let registry = Registry::new(10);
        registry.registered(&[window(1000)], &[1, 1], 5).unwrap();
        let login = Counter::of_name("login:1000").unwrap();
        assert_eq!(registry.due([window(1000), login].into_iter(), 6), [login]);
        assert_eq!(listed(&registry, &["2", "1000", "login:1000"], 6), Some(vec![window(1000), login]));
        let mut name = Vec::new();
        login.write_name(&mut name);
        assert_eq!(name, b"login:1000");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let registry = Registry::new(10);
        for ms in 1..1000 {
            // As if the registry were deleted each time.
            registry.registered(&[window(ms)], &[1, 1], 5).unwrap();
            assert!(registry.lock().registered_us.len() <= 20);
        }
        let later_us = 5 + (SPARE_MS + 2000) * 1000;
        registry.registered(&[window(1)], &[1, 1], later_us).unwrap();
        assert_eq!(registry.lock().registered_us.len(), 1, "the others have lapsed");
    }
}
