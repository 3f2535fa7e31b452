//! Writes replies, each function one RESP value onto the end of a buffer.

use crate::limit::{RetryAfter, Verdict};
use crate::throttle::Decision;
use bytes::{BufMut, BytesMut};

/// The protocol that a client chose by HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2, until HELLO says otherwise.
    #[default]
    Resp2,
    /// RESP3.
    Resp3,
}

/// `+text`. The text holds no line end.
pub fn status(out: &mut BytesMut, text: &str) {
    line(out, b'+', text.as_bytes());
}

/// `-text`, on one line whatever the text holds, as Redis does it.
pub fn error(out: &mut BytesMut, text: &str) {
    error_bytes(out, text.as_bytes());
}

/// The same of a text that repeats what a peer sent, which may be no text.
pub fn error_bytes(out: &mut BytesMut, text: &[u8]) {
    out.put_u8(b'-');
    out.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    out.put_slice(b"\r\n");
}

/// `:value`.
pub fn integer(out: &mut BytesMut, value: i64) {
    number(out, b':', value);
}

/// `$length` and the bytes.
pub fn bulk(out: &mut BytesMut, bytes: &[u8]) {
    length(out, b'$', bytes.len());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// The null of either protocol.
pub fn null(out: &mut BytesMut, protocol: Protocol) {
    out.put_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The null array of RESP2, or RESP3's one null.
pub fn null_array(out: &mut BytesMut, protocol: Protocol) {
    out.put_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// The head of an array: its items follow.
pub fn array(out: &mut BytesMut, items: usize) {
    length(out, b'*', items);
}

/// The head of a set, in RESP2 an array.
pub fn set(out: &mut BytesMut, items: usize, protocol: Protocol) {
    length(out, if protocol == Protocol::Resp3 { b'~' } else { b'*' }, items);
}

/// The head of a map, in RESP2 a flat array: `pairs` keys and values follow in turn.
pub fn map(out: &mut BytesMut, pairs: usize, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => length(out, b'*', pairs * 2),
        Protocol::Resp3 => length(out, b'%', pairs),
    }
}

/// A text for people: a verbatim string in RESP3, a bulk string in RESP2.
pub fn verbatim(out: &mut BytesMut, text: &[u8], protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => {
            length(out, b'=', text.len() + 4);
            out.put_slice(b"txt:");
            out.put_slice(text);
            out.put_slice(b"\r\n");
        }
    }
}

/// The six integers that answer RL.CHECK and RL.PEEK.
pub fn verdict(out: &mut BytesMut, verdict: &Verdict) {
    out.reserve(96);
    out.put_slice(if verdict.lets_pass() { b"*6\r\n:1\r\n" } else { b"*6\r\n:0\r\n" });
    integer(out, i64::from(verdict.limit));
    integer(out, i64::from(verdict.remaining));
    integer(out, verdict_retry_after_ms(verdict));
    integer(out, i64::try_from(verdict.reset_after_ms).unwrap_or(i64::MAX));
    out.put_slice(if verdict.degraded { b":1\r\n" } else { b":0\r\n" });
}

/// What of a verdict is told about when to try again: at once where it only would have been denied.
pub fn verdict_retry_after_ms(verdict: &Verdict) -> i64 {
    if verdict.is_shadow { 0 } else { retry_after_ms(verdict.retry_after) }
}

/// When to try again as the replies have it: -1 stands for never.
pub fn retry_after_ms(retry_after: RetryAfter) -> i64 {
    match retry_after {
        RetryAfter::Now => 0,
        RetryAfter::Ms(ms) => i64::try_from(ms).unwrap_or(i64::MAX),
        RetryAfter::Never => -1,
    }
}

/// The five integers that answer a throttle.
pub fn throttle(out: &mut BytesMut, decision: &Decision) {
    let is_denied = decision.is_limited && !decision.is_shadow;
    out.reserve(96);
    out.put_slice(if is_denied { b"*5\r\n:1\r\n" } else { b"*5\r\n:0\r\n" });
    integer(out, decision.limit);
    integer(out, decision.remaining);
    integer(out, if is_denied { decision.retry_after_s } else { -1 });
    integer(out, decision.reset_after_s);
}

fn line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.put_u8(kind);
    out.put_slice(text);
    out.put_slice(b"\r\n");
}

fn length(out: &mut BytesMut, kind: u8, length: usize) {
    number(out, kind, i64::try_from(length).unwrap_or(i64::MAX));
}

/// Longest i64 in decimal: `-9223372036854775808`.
const MAX_DIGITS: usize = 20;

fn number(out: &mut BytesMut, kind: u8, value: i64) {
    let mut digits = [0u8; MAX_DIGITS];
    let mut left = value.unsigned_abs();
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
        used += 1;
        if left == 0 {
            break;
        }
    }
    out.put_u8(kind);
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(digits.get(MAX_DIGITS - used..).unwrap_or_default());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_length_are_written() {
        for value in [0, 1, -1, 10, 1_000_000_000, i64::MAX, i64::MIN] {
            let mut out = BytesMut::new();
            integer(&mut out, value);
            assert_eq!(out, format!(":{value}\r\n"));
        }
    }

    #[test]
    fn an_error_stays_on_one_line() {
        let mut out = BytesMut::new();
        error(&mut out, "ERR a\r\nb");
        assert_eq!(out, "-ERR a  b\r\n");
    }
}
