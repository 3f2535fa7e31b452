//! Writes what RL.CHECK and RL.PEEK answer to FULL: a map, in RESP2 the flat array of its names and values.

use super::reply::{self, Protocol, retry_after_ms, verdict_retry_after_ms};
use crate::limit::{Breakdown, LimitFigures, PolicyName};
use bytes::BytesMut;

/// Writes the verdict, with the figures of the limit that binds, and those of each limit.
pub fn write(out: &mut BytesMut, breakdown: &Breakdown, protocol: Protocol) {
    let verdict = &breakdown.verdict;
    let binding = breakdown.binding();
    reply::map(out, 11, protocol);
    integer(out, "allowed", verdict.lets_pass().into());
    text(out, "reason", breakdown.reason.name());
    // Limits that stand in the request have none.
    text(out, "policy", breakdown.policy.map_or("", PolicyName::as_str));
    integer(out, "limit", verdict.limit.into());
    integer(out, "window_ms", binding.map_or(0, |figures| signed(figures.window.ms())));
    integer(out, "remaining", verdict.remaining.into());
    integer(out, "retry_after_ms", verdict_retry_after_ms(verdict));
    integer(out, "next_ms", binding.map_or(0, |figures| signed(figures.next_ms)));
    integer(out, "reset_after_ms", signed(verdict.reset_after_ms));
    integer(out, "degraded", verdict.degraded.into());
    reply::bulk(out, b"limits");
    reply::array(out, breakdown.limits.len());
    breakdown.limits.iter().for_each(|figures| write_limit(out, figures, protocol));
}

fn write_limit(out: &mut BytesMut, figures: &LimitFigures, protocol: Protocol) {
    reply::map(out, 6, protocol);
    integer(out, "limit", figures.limit.into());
    integer(out, "window_ms", signed(figures.window.ms()));
    integer(out, "remaining", figures.remaining.into());
    integer(out, "retry_after_ms", retry_after_ms(figures.retry_after));
    integer(out, "next_ms", signed(figures.next_ms));
    integer(out, "reset_after_ms", signed(figures.reset_after_ms));
}

fn text(out: &mut BytesMut, name: &str, value: &str) {
    reply::bulk(out, name.as_bytes());
    reply::bulk(out, value.as_bytes());
}

fn integer(out: &mut BytesMut, name: &str, value: i64) {
    reply::bulk(out, name.as_bytes());
    reply::integer(out, value);
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
