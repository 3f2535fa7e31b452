//! How Redis stands: what is known of it and of what is wrong with it, told in the log when it changes and, while it is
//! wrong, once a minute.

use super::diagnosis::{self, About, Kind, Problem};
use super::mailbox::Refusal;
use super::{Limiter, Remote};
use crate::clock::now_us;
use crate::stats::{Counter, Stats};
use crate::store::connection::Error;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};
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
    /// What an outage has left is not all written yet: how many records had been written before it.
    written_before: Option<u64>,
}

/// What an outage is measured by.
#[derive(Debug, Clone)]
struct Outage {
    /// When the log last spoke of it, and of what cause.
    told: Instant,
    told_what: String,
    /// When the cause that it had told was last found to be another.
    corrected: Option<Instant>,
    /// How many answers the fallback had given before, and how many records had been written to Redis.
    degraded_before: u64,
    written_before: u64,
}

impl Outage {
    /// Whether the log is to speak of it again, because it lasts.
    fn is_reminder_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.told) >= REMIND_EVERY
    }

    /// Whether the log is to speak of it again, because of this cause.
    fn is_correction_due(&self, now: Instant, problem: &Problem) -> bool {
        let is_time = |corrected| now.saturating_duration_since(corrected) >= CORRECT_EVERY;
        problem.is_lasting() && self.told_what != problem.what && self.corrected.is_none_or(is_time)
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
        let (down_since, outage) = {
            let mut known = self.lock_known();
            known.problem = None;
            (known.down_since.take(), known.outage.take())
        };
        if let (Some(down_since), Some(outage)) = (down_since, outage) {
            let down_ms = down_since.elapsed().as_millis() as u64;
            let degraded = self.count(|stats| &stats.by_fallback).saturating_sub(outage.degraded_before);
            let written_back = self.count(|stats| &stats.written_back).saturating_sub(outage.written_before);
            let unwritten = self.ledger.len();
            self.lock_known().written_before = (unwritten > 0).then_some(outage.written_before);
            info!(redis = ?self.dialer, down_ms, degraded, written_back, unwritten, "redis answers again");
        }
    }

    /// Records were written. Told in the log when they are all that an outage has left.
    pub(super) fn on_written(&self) {
        if !self.ledger.is_empty() {
            return;
        }
        let Some(before) = self.lock_known().written_before.take() else { return };
        let written_back = self.count(|stats| &stats.written_back).saturating_sub(before);
        info!(redis = ?self.dialer, written_back, "all that the fallback admitted is written to redis");
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
        if is_news {
            self.is_up.send_replace(false);
        }
        // The log is not written under the lock, which INFO waits for.
        if self.note_problem(is_news, &problem) {
            let Problem { what, advice, error, .. } = &problem;
            let (redis, mode) = (&self.dialer, self.mode);
            match problem.kind {
                Kind::Outage => {
                    warn!(?redis, problem = what, advice, error, %mode, "redis is down: the fallback answers");
                }
                _ => warn!(?redis, problem = what, advice, error, %mode, "redis cannot be used: the fallback answers"),
            }
        }
    }

    /// Whether the log is to tell of it.
    fn note_problem(&self, is_news: bool, problem: &Problem) -> bool {
        let mut known = self.lock_known();
        known.last_error = Some(if problem.error.is_empty() { &problem.what } else { &problem.error }.clone());
        let now = Instant::now();
        if is_news {
            known.chain = None;
            known.down_since = Some(now);
            known.outage = Some(Outage {
                told: now,
                told_what: String::new(),
                corrected: None,
                degraded_before: self.count(|stats| &stats.by_fallback),
                written_before: self.count(|stats| &stats.written_back),
            });
        }
        let Some(outage) = &mut known.outage else { return false };
        let is_correction = !is_news && outage.is_correction_due(now, problem);
        if is_news || is_correction {
            outage.told = now;
            outage.told_what.clone_from(&problem.what);
            outage.corrected = is_correction.then_some(now);
        }
        known.problem = Some(problem.clone());
        is_news || is_correction
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
        let known = {
            let mut known = self.lock_known();
            let Some(outage) = known.outage.as_mut().filter(|outage| outage.is_reminder_due(now)) else { return };
            outage.told = now;
            known.clone()
        };
        let down_s = known.down_since.map_or(0, |since| now.saturating_duration_since(since).as_secs());
        let degraded_before = known.outage.as_ref().map_or(0, |outage| outage.degraded_before);
        let degraded = self.count(|stats| &stats.by_fallback).saturating_sub(degraded_before);
        let (problem, advice) = known.problem_and_advice();
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
        let after = |seconds| told + Duration::from_secs(seconds);
        let problem = |kind, what: &str| Problem::new(kind, what, "");
        let told_what = "gone".to_owned();
        let mut outage = Outage { told, told_what, corrected: None, degraded_before: 0, written_before: 0 };
        assert!(!outage.is_reminder_due(after(59)) && outage.is_reminder_due(after(60)));
        assert!(outage.is_correction_due(told, &problem(Kind::Setup, "no password")));
        assert!(
            !outage.is_correction_due(told, &problem(Kind::Outage, "too slow")),
            "it may take turns with the other"
        );
        outage.corrected = Some(told);
        outage.told_what = "no password".to_owned();
        assert!(!outage.is_correction_due(after(60), &problem(Kind::Setup, "no password")));
        assert!(!outage.is_correction_due(after(9), &problem(Kind::Setup, "a replica")));
        assert!(outage.is_correction_due(after(10), &problem(Kind::Setup, "a replica")));
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
