//! Reads replies to questions that are asked seldom, and which may nest, by the `redis-protocol` crate.
//!
//! That crate recurses for each level that a reply nests, and builds all of it. So what it is given is looked at before:
//! how long, how deep and how much it is.

use redis_protocol::resp2::decode::decode;
pub use redis_protocol::resp2::types::OwnedFrame as Frame;
use std::fmt;

/// Longest reply, in bytes. `CLUSTER SLOTS` takes some 300 bytes for each stretch of slots that a primary with two
/// replicas serves, and there are 16,384 of those at most.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most values in a reply: as many as are in those stretches, and more.
const MAX_VALUES: usize = 500_000;
/// Deepest nesting. `CLUSTER SLOTS` has four levels: the stretches, a stretch, a node, what else is known of that.
const MAX_DEPTH: usize = 8;

/// Why a reply is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is an error, in these words.
    Refused(String),
    /// It is not what was asked for.
    Unexpected,
    /// It says more than makes sense.
    TooMuch,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => f.write_str(text),
            Self::Unexpected => f.write_str("a reply of another kind than expected"),
            Self::TooMuch => f.write_str("a reply that says more than makes sense"),
        }
    }
}

impl std::error::Error for Wrong {}

/// Reads one reply that is whole.
///
/// # Errors
/// It is an error, no RESP2, or too much.
pub fn read(reply: &[u8]) -> Result<Frame, Wrong> {
    if reply.len() > MAX_BYTES || !is_modest(reply) {
        return Err(Wrong::TooMuch);
    }
    match decode(reply) {
        Ok(Some((Frame::Error(text), _))) => Err(Wrong::Refused(text)),
        Ok(Some((frame, _))) => Ok(frame),
        Ok(None) | Err(_) => Err(Wrong::Unexpected),
    }
}

/// Whether a reply neither nests too deep nor has too many values. Lines end, and lengths are written, as the crate has
/// it, whatever RESP says: else a reply could look modest here alone. Of what is no reply, nothing is said.
fn is_modest(reply: &[u8]) -> bool {
    // Of each array that is open, how many values are to come.
    let mut open: Vec<isize> = Vec::with_capacity(MAX_DEPTH);
    let mut rest = reply;
    for _ in 0..MAX_VALUES {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return true };
        let (head, behind) = rest.split_at(end);
        let length = head.get(1..).and_then(|text| std::str::from_utf8(text).ok()?.parse::<isize>().ok()).unwrap_or(0);
        rest = behind.get(2..).unwrap_or_default();
        match head.first() {
            Some(b'*') if length > 0 && open.len() == MAX_DEPTH => return false,
            Some(b'*') if length > 0 => {
                open.push(length);
                continue;
            }
            Some(b'$') => {
                let text = usize::try_from(length).map_or(0, |length| length.saturating_add(2));
                rest = rest.get(text..).unwrap_or_default();
            }
            _ => {}
        }
        while let Some(left) = open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
        if open.is_empty() {
            return true;
        }
    }
    false
}

/// The values of an array.
///
/// # Errors
/// It is none.
pub fn items(frame: Frame) -> Result<Vec<Frame>, Wrong> {
    match frame {
        Frame::Array(items) => Ok(items),
        _ => Err(Wrong::Unexpected),
    }
}

/// The text of a string, if it is one and UTF-8.
pub fn text(frame: &Frame) -> Option<&str> {
    match frame {
        Frame::SimpleString(text) | Frame::BulkString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

/// Whether this can be a host's name or address. It will stand in the log, and be looked up.
pub fn is_host(text: &str) -> bool {
    // Longer than 253 bytes no name is.
    matches!(text.len(), 1..=253) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A port, as a number or as text.
pub fn port(frame: &Frame) -> Option<u16> {
    let port = match frame {
        Frame::Integer(port) => u16::try_from(*port).ok()?,
        other => text(other)?.parse().ok()?,
    };
    Some(port).filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_are_values_or_say_why_not() {
        let bulk = |text: &str| Frame::BulkString(text.as_bytes().to_vec());
        let nested = Frame::Array(vec![Frame::Array(vec![Frame::Integer(1), bulk("a\r\nb")]), Frame::Null]);
        assert_eq!(read(b"*2\r\n*2\r\n:1\r\n$4\r\na\r\nb\r\n$-1\r\n"), Ok(nested));
        assert_eq!(read(b"*0\r\n"), Ok(Frame::Array(vec![])));
        assert_eq!(read(b"-ERR no\r\n"), Err(Wrong::Refused("ERR no".to_owned())));
        for wrong in ["", "*2\r\n:1\r\n", "%1\r\n+a\r\n:1\r\n", "hello\r\n", "*-7\r\n", "$x\r\n", "-\u{fffd}"] {
            assert_eq!(read(wrong.as_bytes()), Err(Wrong::Unexpected), "{wrong}");
        }
        assert!(is_host("10.0.0.1") && is_host("::1%eth0") && is_host("a_b-c.internal"));
        assert!(!is_host("") && !is_host("a b") && !is_host("a\n") && !is_host("ä") && !is_host(&"a".repeat(254)));
        assert_eq!(port(&Frame::Integer(6379)), Some(6379));
        assert_eq!(port(&bulk("26379")), Some(26379));
        assert_eq!((port(&Frame::Integer(65536)), port(&Frame::Integer(0)), port(&bulk("-1"))), (None, None, None));
    }

    /// Each level took a level of the stack, of which there is an end.
    #[test]
    fn what_nests_without_end_is_refused() {
        let nested = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(Wrong::TooMuch));
        assert_eq!(read(&nested(1_000_000)), Err(Wrong::TooMuch));
        let disguised = [b"*2\r\n+a\n+b\n\r\n".to_vec(), nested(1_000_000)].concat();
        assert_eq!(read(&disguised), Err(Wrong::TooMuch));
        assert_eq!(read(&b"*+1\r\n".repeat(1_000_000)), Err(Wrong::TooMuch));
        let wide = |count: usize| [format!("*{count}\r\n").into_bytes(), b":1\r\n".repeat(count)].concat();
        assert!(read(&wide(MAX_VALUES - 1)).is_ok());
        assert_eq!(read(&wide(MAX_VALUES)), Err(Wrong::TooMuch));
        assert_eq!(read(&vec![b'+'; MAX_BYTES + 1]), Err(Wrong::TooMuch));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_surprise(pieces in proptest::collection::vec("[*$:+-]{0,2}-?[0-9]{0,3}(\r\n)?", 0..60)) {
            let _ = read(pieces.concat().as_bytes());
        }
    }
}
