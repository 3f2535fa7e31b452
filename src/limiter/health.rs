//! How Redis stands: what is known of it and of what is wrong with it, told in the log when it changes and, while it is
//! wrong, once a minute.

use super::diagnosis::{self, About, Kind, Problem};
use super::mailbox::Refusal;
use super::{Limiter, Remote};
use crate::clock::now_us;
use crate::stats::{Counter, Stats};
use crate::store::connection::Error;
use std::fmt;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often it is said again that Redis is still away, and what it would take.
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// A cause that turns out to be another is told too, but not more often than this: the two may take turns.
const CORRECT_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether that is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of the Redis behind.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The version that it last said it has.
    pub version: Option<String>,
    /// Since when it has not been asked.
    pub down_since: Option<Instant>,
    /// What it last failed with, in the words of whoever said so.
    pub last_error: Option<String>,
    /// Why it is not asked.
    pub problem: Option<Problem>,
    /// What works, but not as well as it could: what the last look at it showed.
    pub warnings: Vec<Problem>,
    /// The same of the subscription that tells of resets.
    pub deafness: Option<Problem>,
    /// The run ids of the Tollgates between this one and its Redis, each with a comma, and `redis`.
    pub chain: Option<String>,
    outage: Option<Outage>,
}

/// What an outage is measured by.
#[derive(Debug, Clone)]
struct Outage {
    /// When the log last spoke of it.
    told: Instant,
    /// How many answers the fallback had given before, and how many records had been written to Redis.
    degraded_before: u64,
    written_before: u64,
}

impl Outage {
    /// Whether the log is to speak of it again: it lasts, or its cause `is_another` than was told.
    fn is_due(&self, now: Instant, is_another: bool) -> bool {
        now.saturating_duration_since(self.told) >= if is_another { CORRECT_EVERY } else { REMIND_EVERY }
    }
}

impl Known {
    /// What is wrong, and what to do about it: what keeps Redis from being asked, or else what is only not as it should
    /// be. Both are empty if nothing is.
    pub fn problem_and_advice(&self) -> (String, String) {
        let problems: Vec<_> = match &self.problem {
            Some(problem) => vec![problem],
            None => self.warnings.iter().chain(&self.deafness).collect(),
        };
        let join = |part: fn(&Problem) -> &str| {
            let parts: Vec<_> = problems.iter().map(|problem| part(problem)).filter(|part| !part.is_empty()).collect();
            parts.join("; ")
        };
        (join(|problem| &problem.what), join(|problem| &problem.advice))
    }
}

impl Remote {
    /// What is known of Redis.
    pub fn known(&self) -> Known {
        self.lock_known().clone()
    }

    pub(super) fn lock_known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection to Redis is worth trying. That it refuses to run scripts says nothing against it.
    pub fn is_reachable(&self) -> bool {
        self.breaker.is_closed() || self.refuses.load(Relaxed)
    }

    /// What who asks for something is told that cannot be had without Redis.
    pub fn refusal(&self) -> Refusal {
        match self.lock_known().problem.as_ref().is_some_and(Problem::is_lasting) {
            true => Refusal::Unusable,
            false => Refusal::Unavailable,
        }
    }

    /// Redis works, or works again: told in the log if that is news.
    pub(super) fn on_up(&self) {
        self.is_up.send_replace(true);
        if !self.breaker.success() {
            return;
        }
        let mut known = self.lock_known();
        let down_ms = known.down_since.take().map_or(0, |since| since.elapsed().as_millis() as u64);
        known.problem = None;
        if let Some(outage) = known.outage.take() {
            let degraded = self.count(|stats| &stats.by_fallback).saturating_sub(outage.degraded_before);
            let written_back = self.count(|stats| &stats.written_back).saturating_sub(outage.written_before);
            let unwritten = self.ledger.len();
            info!(redis = ?self.dialer, down_ms, degraded, written_back, unwritten, "redis answers again");
        }
    }

    /// Redis does not work: told in the log if that is news. It `refuses` if it was reached and said so.
    ///
    /// For those who have only words; who has the error itself calls [`Remote::on_failed`].
    pub fn on_down(&self, is_news: bool, error: &dyn fmt::Display, refuses: bool) {
        let kind = if refuses { Kind::Refusal } else { Kind::Outage };
        self.on_problem(is_news, Problem::new(kind, error.to_string(), "").said(error.to_string()));
    }

    /// The same, of which the cause can be told.
    pub fn on_failed(&self, is_news: bool, error: &Error) {
        self.on_problem(is_news, diagnosis::of(error, self.about()));
    }

    /// A client's own connection could not be had. Whether that says something of Redis: a Tollgate without file
    /// descriptors must not stop asking over the connections that it has.
    pub fn on_client_failed(&self, error: &Error) {
        let problem = diagnosis::of(error, self.about());
        match problem.kind {
            Kind::Own => self.on_own_failure(&problem),
            _ => self.on_problem(self.breaker.failure(now_us()), problem),
        }
    }

    /// It is not Redis that fails but Tollgate.
    pub(super) fn on_own_failure(&self, Problem { what, advice, error, .. }: &Problem) {
        if let Some(times) = self.own_failures.due(now_us()) {
            warn!(problem = what, advice, error, times, "cannot connect to redis");
        }
    }

    /// Redis cannot be used, and why: told in the log if that is news, or another cause than was told.
    pub(super) fn on_problem(&self, is_news: bool, problem: Problem) {
        self.refuses.store(problem.is_answer(), Relaxed);
        let mut known = self.lock_known();
        known.last_error = Some(if problem.error.is_empty() { &problem.what } else { &problem.error }.clone());
        let now = Instant::now();
        if is_news {
            known.chain = None;
            known.down_since = Some(now);
            known.outage = Some(Outage {
                told: now,
                degraded_before: self.count(|stats| &stats.by_fallback),
                written_before: self.count(|stats| &stats.written_back),
            });
            self.is_up.send_replace(false);
        }
        let is_another = problem.is_lasting() && known.problem.as_ref().is_none_or(|known| known.what != problem.what);
        let Some(outage) = &mut known.outage else { return };
        if is_news || (is_another && outage.is_due(now, true)) {
            outage.told = now;
            let Problem { what, advice, error, .. } = &problem;
            let (redis, mode) = (&self.dialer, self.mode);
            match problem.kind {
                Kind::Outage => {
                    warn!(?redis, problem = what, advice, error, %mode, "redis is down: the fallback answers");
                }
                _ => warn!(?redis, problem = what, advice, error, %mode, "redis cannot be used: the fallback answers"),
            }
        }
        known.problem = Some(problem);
    }

    /// A look at Redis has shown this, which is told in the log as far as it is news.
    pub(super) fn on_warnings(&self, warnings: Vec<Problem>) {
        let before = std::mem::replace(&mut self.lock_known().warnings, warnings.clone());
        warnings.iter().filter(|warning| !before.contains(warning)).for_each(|warning| self.warn(warning));
    }

    /// Whether resets on other proxies are heard of, and if not, why.
    pub(super) fn on_deafness(&self, deafness: Option<Problem>) {
        let before = std::mem::replace(&mut self.lock_known().deafness, deafness.clone());
        deafness.iter().filter(|deafness| before.as_ref() != Some(deafness)).for_each(|deafness| self.warn(deafness));
    }

    fn warn(&self, Problem { what, advice, .. }: &Problem) {
        warn!(redis = ?self.dialer, problem = what, advice, "redis works, but not as it should");
    }

    /// Says again, if that is due, that Redis is still away.
    fn remind(&self, now: Instant) {
        let mut known = self.lock_known();
        let down_s = known.down_since.map_or(0, |since| now.saturating_duration_since(since).as_secs());
        let (problem, advice) = known.problem_and_advice();
        let Some(outage) = known.outage.as_mut().filter(|outage| outage.is_due(now, false)) else { return };
        outage.told = now;
        let degraded = self.count(|stats| &stats.by_fallback).saturating_sub(outage.degraded_before);
        let (redis, mode) = (&self.dialer, self.mode);
        warn!(?redis, down_s, degraded, problem, advice, %mode, "redis can still not be used: the fallback answers");
    }

    /// Whom Redis is asked as.
    pub(super) fn about(&self) -> About<'_> {
        About { user: self.dialer.user(), host: self.dialer.host(), prefix: self.store.prefix() }
    }

    fn count(&self, counter: fn(&Stats) -> &Counter) -> u64 {
        self.stats.iter().map(|stats| counter(stats).read()).sum()
    }
}

/// Has the log speak of an outage that lasts, for as long as it is polled.
pub async fn remind(limiter: &Limiter) {
    let Limiter::Redis(remote) = limiter else { return std::future::pending().await };
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        every.tick().await;
        remote.remind(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_of_once_a_minute_and_another_cause_of_it_sooner() {
        let told = Instant::now();
        let outage = Outage { told, degraded_before: 0, written_before: 0 };
        let is_due = |seconds, is_another| outage.is_due(told + Duration::from_secs(seconds), is_another);
        assert!(!is_due(59, false) && is_due(60, false));
        assert!(!is_due(9, true) && is_due(10, true));
    }

    #[test]
    fn what_works_less_well_is_shown_while_nothing_is_worse() {
        let problem = |kind, what: &str, advice: &str| Problem::new(kind, what, advice);
        let mut known = Known { warnings: vec![problem(Kind::Warning, "a", "b")], ..Known::default() };
        assert_eq!(known.problem_and_advice(), ("a".to_owned(), "b".to_owned()));
        known.deafness = Some(problem(Kind::Warning, "c", ""));
        assert_eq!(known.problem_and_advice(), ("a; c".to_owned(), "b".to_owned()));
        known.problem = Some(problem(Kind::Setup, "d", "e"));
        assert_eq!(known.problem_and_advice(), ("d".to_owned(), "e".to_owned()));
    }
}
