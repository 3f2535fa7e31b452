//! Throttles, which are redis-cell's, on their way: a state that is nobody's counter and has no window, asked by a script
//! of its own. What they have in common with checks is the way itself, its deadlines, and the fallback.
//!
//! There is no denial cache for them: whoever deletes the key, with whatever client, has it begin anew at once. And the
//! state holds no ids: a batch whose answer was lost with the connection is asked again, and what it counted then counts
//! twice. What the fallback admits is not written back.

use super::mailbox::{Answer, Refusal};
use super::redis::Redis;
use crate::limit::{Ask, Form, Limit, MAX_LIMIT, PolicyName, RetryAfter, Terms, Verb, Verdict, Window};
use crate::stats::{Source, Stats};
use crate::store::throttle::ThrottleReport;
use crate::throttle::{Decision, Life, Question};

/// The next answer to an item, where its TAT stands so; it stands elsewhere afterwards.
pub(super) fn answer_next(question: &Question, report: &mut ThrottleReport) -> Answer {
    match report {
        ThrottleReport::WrongType => Answer::Refused(Refusal::WrongType),
        ThrottleReport::Elsewhere => Answer::Refused(Refusal::Unavailable),
        ThrottleReport::Forbidden => Answer::Refused(Refusal::Forbidden),
        ThrottleReport::Ahead(ahead_ns) => {
            let (decision, after_ns) = question.decide(*ahead_ns);
            *ahead_ns = after_ns;
            if !decision.is_limited && Life::of(after_ns) == Life::Refused {
                return Answer::Refused(Refusal::NoExpiry);
            }
            Answer::Throttle(decision)
        }
    }
}

/// Counts in `stats` what a throttle of a key came to.
pub(super) fn count(question: &Question, key: &[u8], answer: &Answer, source: Source, stats: &Stats, now_us: u64) {
    let limits = [limit_of(question, Terms { is_shadow: question.is_shadow, ..Terms::PLAIN })];
    let ask = Ask { key, limits: &limits, cost: cost_of(question) };
    match answer {
        Answer::Throttle(decision) => Answer::Verdict(verdict_of(decision)).count(source, &ask, stats, now_us),
        other => other.count(source, &ask, stats, now_us),
    }
}

/// The fallback's answer.
pub(super) fn fall_back(redis: &Redis, question: &Question, key: &[u8], now_us: u64) -> Answer {
    let limits = [limit_of(question, local_terms(question))];
    let ask = Ask { key, limits: &limits, cost: cost_of(question) };
    // Nothing is counted of what weighs nothing, and nothing is given back.
    let verb = if question.quantity() > 0 { Verb::Check } else { Verb::Peek };
    match redis.fall_back(verb, &ask, Form::Short, now_us) {
        Answer::Verdict(verdict) => Answer::Throttle(decision_of(question, &verdict)),
        other => other,
    }
}

/// Redis has said what is left of a key: so much is what an outage begins with.
pub(super) fn learn(redis: &Redis, question: &Question, key: &[u8], ahead_ns: i128, now_us: u64) {
    let (standing, _) = Question { increment_ns: 0, ..*question }.decide(ahead_ns);
    let remaining = u32::try_from(standing.remaining.max(0)).unwrap_or(MAX_LIMIT);
    redis.fallback.learn(key, limit_of(question, local_terms(question)), remaining, now_us);
}

/// The buckets of throttles are apart from those of checks.
fn local_terms(question: &Question) -> Terms {
    Terms { policy: Some(PolicyName::of_throttles()), is_shadow: question.is_shadow, ..Terms::PLAIN }
}

/// The limit that is nearest: so much in the time in which it drains.
fn limit_of(question: &Question, terms: Terms) -> Limit {
    let max = question.limit.clamp(1, MAX_LIMIT.into());
    let window = u64::try_from(question.tolerance_ns / 1_000_000).unwrap_or(1).max(1);
    let window = Window::from_ms(window).unwrap_or(Window::MAX);
    Limit { terms, ..Limit::log(u32::try_from(max).unwrap_or(MAX_LIMIT), window) }
}

fn cost_of(question: &Question) -> u32 {
    u32::try_from(question.quantity().max(0)).unwrap_or(u32::MAX)
}

fn verdict_of(decision: &Decision) -> Verdict {
    let small = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    let ms = |seconds: i64| u64::try_from(seconds).map_or(0, |seconds| seconds.saturating_mul(1000));
    Verdict {
        allowed: !decision.is_limited,
        is_shadow: decision.is_shadow,
        limit: small(decision.limit),
        remaining: small(decision.remaining),
        retry_after: match decision.retry_after_s {
            _ if !decision.is_limited => RetryAfter::Now,
            ..0 => RetryAfter::Never,
            seconds => RetryAfter::Ms(ms(seconds).max(1)),
        },
        reset_after_ms: ms(decision.reset_after_s),
        ..Verdict::NOTHING_ASKED
    }
}

fn decision_of(question: &Question, verdict: &Verdict) -> Decision {
    let seconds = |ms: u64| i64::try_from(ms.div_ceil(1000)).unwrap_or(i64::MAX);
    Decision {
        is_limited: !verdict.allowed,
        is_shadow: verdict.is_shadow,
        limit: question.limit,
        remaining: verdict.remaining.into(),
        retry_after_s: match verdict.retry_after {
            RetryAfter::Ms(ms) => seconds(ms),
            RetryAfter::Now | RetryAfter::Never => -1,
        },
        reset_after_s: seconds(verdict.reset_after_ms),
    }
}
