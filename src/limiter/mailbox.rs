//! How answers that take time reach the session that asked.

use crate::limit::{Ask, Breakdown, Standing, Verdict};
use crate::log;
use crate::stats::{Outcome, Source, Stats};
use crate::store::embedded::Full;
use crate::throttle::Decision;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Waker};

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Of a check or a peek.
    Verdict(Verdict),
    /// The same, in full.
    Breakdown(Box<Breakdown>),
    /// Of a throttle.
    Throttle(Decision),
    /// Of a reset: how many of the keys had any state.
    Reset(u64),
    /// Of a look at a key: how its counters stand, and whether their entries are to be told of.
    Standings(Rc<[Standing]>, bool),
    /// Of a change of policies: it is in force.
    Done,
    /// Of one that takes something back: it is in force, and there was something, or not.
    Removed(bool),
    /// It is not; the reply says why.
    Failed(Rc<str>),
    /// There is none.
    Refused(Refusal),
}

impl Answer {
    /// One in full.
    pub fn in_full(breakdown: Breakdown) -> Self {
        Self::Breakdown(Box::new(breakdown))
    }

    /// Whether it lets a request through.
    pub fn is_admission(&self) -> bool {
        self.verdict().is_some_and(|verdict| verdict.allowed)
    }

    /// How many bytes of memory it takes beside its own.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Verdict(_)
            | Self::Throttle(_)
            | Self::Reset(_)
            | Self::Done
            | Self::Removed(_)
            | Self::Refused(_) => 0,
            Self::Failed(why) => why.len(),
            Self::Breakdown(breakdown) => size_of::<Breakdown>() + size_of_val(&*breakdown.limits),
            Self::Standings(standings, _) => {
                standings.iter().map(|standing| size_of_val(standing) + size_of_val(&*standing.newest)).sum()
            }
        }
    }

    /// The verdict, if it is one.
    fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Verdict(verdict) => Some(verdict),
            Self::Breakdown(breakdown) => Some(&breakdown.verdict),
            _ => None,
        }
    }

    /// Counts what a check came to that `source` has answered.
    pub(super) fn count(&self, source: Source, ask: &Ask<'_>, stats: &Stats, now_us: u64) {
        let policy = ask.terms().policy;
        let (mut outcome, mut is_near) = (Outcome::Refused, false);
        if let Some(verdict) = self.verdict() {
            outcome = match verdict {
                Verdict { allowed: true, .. } => Outcome::Allowed,
                Verdict { is_shadow: true, .. } => Outcome::ShadowDenied,
                _ => Outcome::Denied,
            };
            if verdict.allowed {
                is_near = u64::from(verdict.remaining) * 5 < u64::from(verdict.limit);
                stats.top.allowed.add(ask.key, policy, now_us);
            } else {
                log::denials::note(ask, verdict, source.name(), now_us);
                stats.top.denied.add(ask.key, policy, now_us);
            }
        }
        stats.checks.add(source, outcome);
        if is_near {
            stats.near_limit.add(1);
        }
        if let Some(policy) = policy {
            stats.by_policy.add(policy, source, outcome, is_near);
        }
    }
}

/// Why there is no answer. Its Display is the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Redis is down, and this cannot be answered without it.
    Unavailable,
    /// The same of a Redis that will not serve as all is set up.
    Unusable,
    /// A key of the log's name, or of the registry's, holds something else.
    WrongType,
    /// A throttle's key is one that Tollgate's user may not touch.
    Forbidden,
    /// A refund that moves a throttle's TAT to before now: it is written, and does not expire.
    NoExpiry,
    /// The embedded log has no room to count it.
    Full(Full),
    /// So many different windows are in use, which is as many as may be.
    Windows(usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("UNAVAILABLE Redis cannot be reached"),
            Self::Unusable => {
                f.write_str("UNAVAILABLE Redis cannot be used as it is set up: INFO tollgate says why (store_problem)")
            }
            Self::WrongType => f.write_str("WRONGTYPE Operation against a key holding the wrong kind of value"),
            Self::Forbidden => f.write_str("NOPERM Tollgate's user may not access the key in Redis"),
            Self::NoExpiry => f.write_str("Cell error: Store error: Error while setting key expire"),
            Self::Full(full) => write!(f, "ERR {full}"),
            Self::Windows(max) => write!(f, "ERR too many different windows in use ({max}: limits.max_windows_in_use)"),
        }
    }
}

/// A session's completion queue. The tickets are the session's own: it gives one with each question and finds it beside the
/// answer. Holds at most one answer for each question asked, so the session's bound on those bounds it.
#[derive(Debug, Default)]
pub struct Mailbox {
    answers: RefCell<Vec<(u64, Answer)>>,
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

impl Mailbox {
    /// Leaves an answer and wakes the session. Of several answers before it runs only the first wakes.
    pub fn deliver(&self, ticket: u64, answer: Answer) {
        if self.closed.get() {
            return;
        }
        self.answers.borrow_mut().push((ticket, answer));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Passes every answer that has come to `each`; the next one wakes the task of `cx`.
    pub fn collect(&self, cx: &Context<'_>, each: impl FnMut((u64, Answer))) {
        self.answers.borrow_mut().drain(..).for_each(each);
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The session is gone: what still comes for it is dropped.
    pub fn close(&self) {
        self.closed.set(true);
        self.answers.take();
    }
}
