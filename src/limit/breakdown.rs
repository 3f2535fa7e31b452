//! What is said of a decision in full: beside the verdict, how each limit stands.

use super::{Ask, Limit, LimitState, PolicyName, RetryAfter, Terms, Verdict, Window, decide, us_to_ms_ceil};

/// How much an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The verdict alone.
    #[default]
    Short,
    /// A [`Breakdown`].
    Full,
}

/// Why a verdict is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was allowed.
    Ok,
    /// A limit has no room for it now.
    Limit,
    /// Its cost is above a limit.
    Cost,
    /// Its policy denies all.
    Blocked,
    /// Its policy lets all pass.
    Off,
    /// A limit denies it, of a policy that is only tried out, so that it may pass.
    ShadowDenied,
}

impl Reason {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limit => "limit",
            Self::Cost => "cost",
            Self::Blocked => "blocked",
            Self::Off => "off",
            Self::ShadowDenied => "shadow_denied",
        }
    }
}

/// How one limit stands after a request. Times are in milliseconds, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitFigures {
    /// Its capacity.
    pub limit: u32,
    /// In which time.
    pub window: Window,
    /// Cost still available.
    pub remaining: u32,
    /// When it would have room for the same request: at once where it had.
    pub retry_after: RetryAfter,
    /// Until more is available than now; 0 when nothing is used.
    pub next_ms: u64,
    /// Until nothing is used.
    pub reset_after_ms: u64,
}

/// A verdict, and how each limit stands after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakdown {
    /// On whose behalf the limits hold, if it is a policy's.
    pub policy: Option<PolicyName>,
    /// Why the verdict is what it is.
    pub reason: Reason,
    /// The verdict.
    pub verdict: Verdict,
    /// In the order in which the limits were asked about.
    pub limits: Vec<LimitFigures>,
}

impl Breakdown {
    /// That of a refusal for which no state was looked at ([`Ask::never_fits`]): of none is known what is used.
    pub fn of_unasked(ask: &Ask<'_>, verdict: Verdict) -> Self {
        let figures = |limit: &Limit| LimitFigures {
            limit: limit.capacity(),
            window: limit.window,
            remaining: 0,
            retry_after: if ask.cost > limit.capacity() { RetryAfter::Never } else { RetryAfter::Now },
            next_ms: 0,
            reset_after_ms: 0,
        };
        let (policy, reason) = (ask.terms().policy, reason_of(&verdict));
        Self { policy, reason, verdict, limits: ask.limits.iter().map(figures).collect() }
    }

    /// That of an answer that the policy gives, whatever is counted: of all limits it is the same.
    pub fn by_policy(ask: &Ask<'_>, verdict: Verdict) -> Self {
        let figures = |limit: &Limit| LimitFigures {
            limit: limit.capacity(),
            window: limit.window,
            remaining: if verdict.allowed { limit.capacity() } else { 0 },
            retry_after: verdict.retry_after,
            next_ms: 0,
            reset_after_ms: 0,
        };
        let reason = if verdict.allowed { Reason::Off } else { Reason::Blocked };
        Self { policy: ask.terms().policy, reason, verdict, limits: ask.limits.iter().map(figures).collect() }
    }

    /// The figures of the limit that binds.
    pub fn binding(&self) -> Option<&LimitFigures> {
        self.limits.get(usize::from(self.verdict.binding))
    }
}

/// Why limits decided so.
fn reason_of(verdict: &Verdict) -> Reason {
    match verdict {
        Verdict { allowed: true, .. } => Reason::Ok,
        Verdict { is_shadow: true, .. } => Reason::ShadowDenied,
        Verdict { retry_after: RetryAfter::Never, .. } => Reason::Cost,
        _ => Reason::Limit,
    }
}

/// As [`decide`], by states of which [`next_in_us`](LimitState::next_in_us) is known. A denied request counts in no limit.
pub fn decide_in_full(limits: &[Limit], states: &[LimitState], cost: u32) -> Breakdown {
    let verdict = decide(limits, states, cost);
    let figures = |(limit, state): (&Limit, &LimitState)| figures(limit, *state, cost, verdict.allowed);
    let terms = limits.first().map_or(Terms::PLAIN, |limit| limit.terms);
    let limits = limits.iter().zip(states).map(figures).collect();
    Breakdown { policy: terms.policy, reason: reason_of(&verdict), verdict, limits }
}

fn figures(limit: &Limit, mut state: LimitState, cost: u32, is_counted: bool) -> LimitFigures {
    let retry_after = limit.retry_after(&state, cost);
    if is_counted {
        limit.count(&mut state, cost);
    }
    LimitFigures {
        limit: limit.capacity(),
        window: limit.window,
        remaining: limit.remaining(&state),
        retry_after,
        next_ms: us_to_ms_ceil(limit.next_in_us(&state)),
        reset_after_ms: us_to_ms_ceil(state.empty_in_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERDICT: Verdict = Verdict { limit: 5, ..Verdict::NOTHING_ASKED };

    fn limits(is_shadow: bool) -> [Limit; 2] {
        let terms = Terms { policy: PolicyName::new("login"), is_shadow, ..Terms::PLAIN };
        [(5, 1_000), (20, 60_000)].map(|(max, ms)| Limit { terms, ..Limit::log(max, Window::from_ms(ms).unwrap()) })
    }

    #[test]
    fn the_reason_is_that_of_the_verdict_or_of_the_policy() {
        let state = |used| LimitState { used, fits_in_us: 500, empty_in_us: 900, next_in_us: 500, part: 0 };
        for (is_shadow, used, cost, reason) in [
            (false, 3, 2, Reason::Ok),
            (true, 3, 2, Reason::Ok),
            (false, 3, 3, Reason::Limit),
            (false, 3, 6, Reason::Cost),
            (true, 3, 3, Reason::ShadowDenied),
            (true, 3, 6, Reason::ShadowDenied),
        ] {
            let told = decide_in_full(&limits(is_shadow), &[state(used), state(used)], cost);
            assert_eq!((told.reason, told.policy), (reason, PolicyName::new("login")), "{is_shadow} {used} {cost}");
        }
        let limits = limits(false);
        let ask = Ask { key: b"k", limits: &limits, cost: 1 };
        let blocked = Breakdown::by_policy(&ask, VERDICT);
        let off = Breakdown::by_policy(&ask, Verdict { allowed: true, retry_after: RetryAfter::Now, ..VERDICT });
        assert_eq!((blocked.reason, off.reason), (Reason::Blocked, Reason::Off));
        let remaining =
            |told: &Breakdown| told.limits.iter().map(|of| (of.remaining, of.retry_after)).collect::<Vec<_>>();
        assert_eq!(remaining(&blocked), [(0, RetryAfter::Never); 2]);
        assert_eq!(remaining(&off), [(5, RetryAfter::Now), (20, RetryAfter::Now)]);
    }

    /// What one limit had room for another denied: it is counted in none.
    #[test]
    fn each_limit_tells_of_itself() {
        let state =
            |used, next_in_us| LimitState { used, fits_in_us: 300_000, empty_in_us: 700_000, next_in_us, part: 0 };
        let figures = |told: &Breakdown| {
            told.limits
                .iter()
                .map(|of| (of.remaining, of.retry_after, of.next_ms, of.reset_after_ms))
                .collect::<Vec<_>>()
        };
        let denied = decide_in_full(&limits(false), &[state(5, 200_001), LimitState::default()], 1);
        assert_eq!(figures(&denied), [(0, RetryAfter::Ms(300), 201, 700), (20, RetryAfter::Now, 0, 0)]);
        let allowed = decide_in_full(&limits(false), &[state(4, 200_000), LimitState::default()], 1);
        assert_eq!(figures(&allowed), [(0, RetryAfter::Now, 200, 1_000), (19, RetryAfter::Now, 60_000, 60_000)]);
        assert_eq!(allowed.binding().map(|of| of.remaining), Some(allowed.verdict.remaining));
    }
}
