//! How a node of Redis does: whether it is asked at all ([`breaker`](super::breaker)), what is known of it, and what is
//! wrong with it, told in the log when it changes and, while it is wrong, once a minute.
//!
//! Whoever has asked a node tells its [`Health`] how that went; what follows from it is decided here.

use super::breaker::Breaker;
use super::diagnosis::{self, About, Kind, Problem};
use super::mailbox::Refusal;
use crate::clock::now_us;
use crate::dial::Dialer;
use crate::limit::FallbackMode;
use crate::log_limit::LogLimit;
use crate::stats::{Counter, Stats};
use crate::store::connection::Error;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tracing::{info, warn};

/// How often it is said again that Redis is still away, and what it would take.
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// A cause that turns out to be another is told too, but not more often than this: the two may take turns.
const CORRECT_EVERY: Duration = Duration::from_secs(10);
/// Most changes of a node that are remembered.
const MAX_CHANGES: usize = 10;
/// How often it is looked whether that is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of a node.
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
    /// When it was last asked again, or no more: at most [`MAX_CHANGES`], the oldest first.
    pub changes: VecDeque<Change>,
    /// How long it was not asked, in all outages that are over.
    down_before: Duration,
    outage: Option<Outage>,
    /// What an outage has left is not all written yet: how many records had been written before it.
    written_before: Option<u64>,
}

/// A node is asked again, or no more.
#[derive(Debug, Clone)]
pub struct Change {
    /// When.
    pub at: SystemTime,
    /// Whether it is asked from then on.
    pub is_up: bool,
    /// Why not, if it is not.
    pub cause: String,
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
    /// How long it was not asked since the start.
    pub fn down_for(&self) -> Duration {
        self.down_before + self.down_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    fn note_change(&mut self, is_up: bool, cause: &str) {
        if self.changes.len() >= MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { at: SystemTime::now(), is_up, cause: cause.to_owned() });
    }

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

/// How a node does, as all workers see it.
pub struct Health {
    breaker: Breaker,
    known: Mutex<Known>,
    /// Whether a look at the node has shown that it can be used, and it was not lost since.
    was_seen: watch::Sender<bool>,
    /// It was reached when it last failed, and answered with an error.
    answers_errors: AtomicBool,
    /// Connections that were not made for a lack of Tollgate's own.
    own_failures: LogLimit,
    /// When a deadline last passed that counted as a failure.
    last_timeout_us: AtomicU64,
    timeout_us: u64,
    /// The rest is what the log tells besides.
    dialer: Arc<Dialer>,
    prefix: String,
    mode: FallbackMode,
    stats: Vec<Arc<Stats>>,
}

/// What a node's health says of it besides how it does.
pub struct Subject {
    /// The way to it.
    pub dialer: Arc<Dialer>,
    /// What its keys begin with.
    pub prefix: String,
    /// What is answered in its place.
    pub mode: FallbackMode,
    /// Each worker's counters.
    pub stats: Vec<Arc<Stats>>,
}

impl Health {
    /// Of a node that is taken to be up, and whose answers count as late after `timeout_us`.
    pub fn new(breaker: Breaker, timeout_us: u64, subject: Subject) -> Self {
        let Subject { dialer, prefix, mode, stats } = subject;
        Self {
            breaker,
            known: Mutex::default(),
            was_seen: watch::Sender::new(false),
            answers_errors: AtomicBool::new(false),
            own_failures: LogLimit::default(),
            last_timeout_us: AtomicU64::new(0),
            timeout_us,
            dialer,
            prefix,
            mode,
            stats,
        }
    }

    /// It takes the place of another, and if that is down, its outage: which lasts until this one answers.
    pub(super) fn inherit(&self, other: &Self) {
        if !other.is_up() {
            let other = other.lock().clone();
            *self.lock() = Known { version: None, chain: None, warnings: Vec::new(), deafness: None, ..other };
            self.breaker.begin_open();
        }
    }

    /// There is a reason to think that it works again: it is probed at once.
    pub(super) fn hurry(&self) {
        self.breaker.hurry();
    }

    /// Whether it is asked. One atomic load.
    pub fn is_up(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Whether a first look at it has ended, well or not.
    pub fn was_looked_at(&self) -> bool {
        *self.was_seen.borrow() || !self.is_up()
    }

    /// The breaker's word for it: `closed`, `open` or `half-open`.
    pub fn breaker_state(&self) -> &'static str {
        self.breaker.name()
    }

    /// Whether a connection to it is worth trying. That it refuses to run scripts says nothing against it.
    pub fn is_reachable(&self) -> bool {
        self.is_up() || self.answers_errors.load(Relaxed)
    }

    /// Returns once a look at it has shown that it can be used.
    pub(super) async fn seen(&self) {
        let _ = self.was_seen.subscribe().wait_for(|was_seen| *was_seen).await;
    }

    /// What is known of it.
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    /// What who asks for something is told that cannot be had without it.
    pub fn refusal(&self) -> Refusal {
        match self.lock().problem.as_ref().is_some_and(Problem::is_lasting) {
            true => Refusal::Unusable,
            false => Refusal::Unavailable,
        }
    }

    /// Whether to probe it now. Who is told so tells the outcome, by [`Health::probed`] or [`Health::probe_failed`].
    pub(super) fn probe_due(&self, now_us: u64) -> bool {
        self.breaker.probe_due(now_us)
    }

    /// From when on it is to be probed; `None` while it is up.
    pub(super) fn next_probe_us(&self) -> Option<u64> {
        self.breaker.next_probe_us()
    }

    /// It has answered in time.
    pub(super) fn succeeded(&self) {
        self.breaker.success();
    }

    /// A look at it has shown that it works, or works again: told in the log if that is news. So many records are yet to
    /// be written to it.
    pub(super) fn probed(&self, unwritten: usize) {
        self.was_seen.send_replace(true);
        if !self.breaker.success() {
            return;
        }
        let (down_since, outage) = {
            let mut known = self.lock();
            known.problem = None;
            known.down_before = known.down_for();
            known.note_change(true, "");
            (known.down_since.take(), known.outage.take())
        };
        if let (Some(down_since), Some(outage)) = (down_since, outage) {
            let down_ms = down_since.elapsed().as_millis() as u64;
            let degraded = self.count(|stats| &stats.by_fallback).saturating_sub(outage.degraded_before);
            let written_back = self.count(|stats| &stats.written_back).saturating_sub(outage.written_before);
            self.lock().written_before = (unwritten > 0).then_some(outage.written_before);
            info!(redis = ?self.dialer, down_ms, degraded, written_back, unwritten, "circuit closed: redis answers again");
        }
    }

    /// The look has not: it found this, after more than a deadline if it `was_slow`.
    pub(super) fn probe_failed(&self, problem: Problem, was_slow: bool, now_us: u64) {
        // What took long this time may be in time the next time, for another worker too.
        let is_news = if was_slow { self.breaker.failure(now_us) } else { self.breaker.lost(now_us) };
        self.note(is_news, problem);
    }

    /// It has not answered in time. All that waits when it stalls is due at about the same time, which is one failure and
    /// not several: `None` for the others. Else whether it is asked no more because of this.
    pub(super) fn timed_out(&self, now_us: u64) -> Option<bool> {
        let is_another = |last_us| (now_us.saturating_sub(last_us) >= self.timeout_us).then_some(now_us);
        self.last_timeout_us.fetch_update(Relaxed, Relaxed, is_another).ok()?;
        let is_news = self.breaker.failure(now_us);
        let what = format!("no answer within {} ms", self.timeout_us / 1000);
        self.note(is_news, Problem::new(Kind::Outage, what.clone(), "").said(what));
        Some(is_news)
    }

    /// Something that was asked of it has failed, which may be chance.
    pub(super) fn failed(&self, error: &Error, now_us: u64) {
        self.note(self.breaker.failure(now_us), self.diagnose(error));
    }

    /// The same, where once is enough. Whether it is asked no more because of this.
    pub fn lost(&self, error: &Error, now_us: u64) -> bool {
        let is_news = self.breaker.lost(now_us);
        self.note(is_news, self.diagnose(error));
        is_news
    }

    /// The same of what somebody else has found.
    pub(super) fn is_lost(&self, problem: Problem, now_us: u64) {
        self.note(self.breaker.lost(now_us), problem);
    }

    /// A client's own connection could not be had. Whether that says something of Redis: a Tollgate without file
    /// descriptors must not stop asking over the connections that it has.
    pub fn client_failed(&self, error: &Error) {
        let problem = self.diagnose(error);
        match problem.kind {
            Kind::Own => self.starved(&problem),
            _ => self.note(self.breaker.failure(now_us()), problem),
        }
    }

    /// It is not Redis that fails but Tollgate.
    pub(super) fn starved(&self, Problem { what, advice, error, .. }: &Problem) {
        if let Some(times) = self.own_failures.due(now_us()) {
            warn!(problem = what, advice, error, times, "cannot connect to redis");
        }
    }

    /// All that was admitted in its place is written to it. Told in the log if an outage had left any.
    pub(super) fn all_written(&self) {
        let Some(before) = self.lock().written_before.take() else { return };
        let written_back = self.count(|stats| &stats.written_back).saturating_sub(before);
        info!(redis = ?self.dialer, written_back, "all that the fallback admitted is written to redis");
    }

    /// It says that it has this version.
    pub(super) fn has_version(&self, version: Option<String>) {
        self.lock().version = version;
    }

    /// A look at it has shown the Tollgates on the way, and what is not as it should be, which is told in the log as far as
    /// it is news.
    pub(super) fn looked_at(&self, chain: String, warnings: Vec<Problem>) {
        let before = std::mem::replace(&mut self.lock().warnings, warnings.clone());
        warnings.iter().filter(|warning| !before.contains(warning)).for_each(|warning| self.warn(warning));
        self.lock().chain = Some(chain);
    }

    /// Whether resets on other proxies are heard of, and if not, why.
    pub(super) fn set_deafness(&self, deafness: Option<Problem>) {
        let before = std::mem::replace(&mut self.lock().deafness, deafness.clone());
        deafness.iter().filter(|deafness| before.as_ref() != Some(deafness)).for_each(|deafness| self.warn(deafness));
    }

    /// What an error of its says.
    pub(super) fn diagnose(&self, error: &Error) -> Problem {
        diagnosis::of(error, self.about())
    }

    /// Whom it is asked as.
    pub(super) fn about(&self) -> About<'_> {
        About { user: self.dialer.user(), host: self.dialer.host(), prefix: &self.prefix }
    }

    /// It cannot be used, and why: told in the log if that is news, or another cause than was told.
    fn note(&self, is_news: bool, problem: Problem) {
        self.answers_errors.store(problem.is_answer(), Relaxed);
        if is_news {
            self.was_seen.send_replace(false);
        }
        // The log is not written under the lock, which INFO waits for.
        if self.must_tell(is_news, &problem) {
            let Problem { what, advice, error, .. } = &problem;
            let (redis, mode) = (&self.dialer, self.mode);
            match problem.kind {
                Kind::Outage => {
                    warn!(?redis, problem = what, advice, error, %mode, "circuit opened, redis is down: the fallback answers");
                }
                _ => {
                    warn!(?redis, problem = what, advice, error, %mode, "circuit opened, redis cannot be used: the fallback answers")
                }
            }
        }
    }

    /// Keeps what is wrong. Whether the log is to tell of it.
    fn must_tell(&self, is_news: bool, problem: &Problem) -> bool {
        let mut known = self.lock();
        known.last_error = Some(if problem.error.is_empty() { &problem.what } else { &problem.error }.clone());
        let now = Instant::now();
        if is_news {
            known.chain = None;
            known.down_since = Some(now);
            known.note_change(false, &problem.what);
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

    fn warn(&self, Problem { what, advice, .. }: &Problem) {
        warn!(redis = ?self.dialer, problem = what, advice, "redis works, but not as it should");
    }

    /// Has the log speak of an outage that lasts, for as long as it is polled.
    pub(super) async fn remind(&self) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        loop {
            every.tick().await;
            self.remind_if_due(Instant::now());
        }
    }

    fn remind_if_due(&self, now: Instant) {
        let known = {
            let mut known = self.lock();
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

    fn count(&self, counter: fn(&Stats) -> &Counter) -> u64 {
        self.stats.iter().map(|stats| counter(stats).read()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
