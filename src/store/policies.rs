//! How Redis tells of changes of policies, as lua/policy_change.lua writes it.

use crate::resp::request::{Limits, Parser};

/// The field of the hash that says how often it was changed. No policy can have it for a name.
pub const VERSION: &[u8] = b":version";

/// Fields, each with its value, or that it is gone.
pub type Fields = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What a message tells: the version, and what has changed with it. `None` if it is none of that.
pub fn read_message(message: &[u8]) -> Option<(u64, Fields)> {
    let mut parser = Parser::default();
    parser.parse(message, Limits::of_bulk(message.len())).ok()??;
    let args = parser.args(message);
    let version = number(args.get(0)?)?;
    let mut words = args.from(1);
    let mut fields = Vec::new();
    while let (Some(field), Some(becomes)) = (words.next(), words.next()) {
        let value = match becomes.split_first()? {
            (b'=', value) => Some(value.to_vec()),
            _ => None,
        };
        fields.push((field.to_vec(), value));
    }
    Some((version, fields))
}

/// A number in decimal.
pub fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_whatever_bytes_a_field_has_and_what_is_none_is_none() {
        let message = b"*5\r\n$1\r\n7\r\n$3\r\na\r\n\r\n$2\r\n=1\r\n$1\r\nb\r\n$1\r\n-\r\n";
        let fields = vec![(b"a\r\n".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)];
        assert_eq!(read_message(message), Some((7, fields)));
        for other in
            [&b""[..], b"*", b"*1\r\n$1\r\nx\r\n", b"hello", b"*3\r\n$1\r\n7\r\n$1\r\na\r\n$0\r\n\r\n", b"\0\xff"]
        {
            assert_eq!(read_message(other), None, "{}", other.escape_ascii());
        }
    }
}
