//! What clients name, as text that prints.

use std::fmt::{self, Display, Write};

/// Bytes, which print as redis-cli shows them, without its quotes.
pub struct Shown<'a>(pub &'a [u8]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'"' | b'\\' => write!(f, "\\{}", char::from(*byte)),
            b'\n' => f.write_str("\\n"),
            b'\r' => f.write_str("\\r"),
            b'\t' => f.write_str("\\t"),
            7 => f.write_str("\\a"),
            8 => f.write_str("\\b"),
            b' '..=b'~' => f.write_char(char::from(*byte)),
            _ => write!(f, "\\x{byte:02x}"),
        })
    }
}

/// The bytes that are shown so. What is no escape stands for itself.
pub fn parse(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let (byte, behind) = if *first == b'\\' { escaped(behind) } else { None }.unwrap_or((*first, behind));
        bytes.push(byte);
        rest = behind;
    }
    bytes
}

/// The byte that what follows a backslash stands for, and what is behind.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (first, behind) = text.split_first()?;
    let byte = match first {
        b'"' | b'\\' => *first,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        b'x' => {
            let (digits, behind) = behind.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            return Some((u8::from_str_radix(digits, 16).ok()?, behind));
        }
        _ => return None,
    };
    Some((byte, behind))
}

/// Most bytes of a peer's that an error repeats, as in Redis.
const MAX_QUOTED_BYTES: usize = 128;

/// A peer's bytes as they stand in an error: at most [`MAX_QUOTED_BYTES`], and nothing unprintable.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::new();
    for letter in String::from_utf8_lossy(bytes.get(..MAX_QUOTED_BYTES).unwrap_or(bytes)).chars() {
        // What is no text grows: each such byte becomes a sign of three.
        if text.len() + letter.len_utf8() > MAX_QUOTED_BYTES {
            break;
        }
        text.push(if letter.is_control() { ' ' } else { letter });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_as_redis_cli_shows_them() {
        let shown = Shown(b"a \"b\" c'\\\0\n\r\t\x07\x08\x1b\xff\xc3\xa9~").to_string();
        assert_eq!(parse(&shown), b"a \"b\" c'\\\0\n\r\t\x07\x08\x1b\xff\xc3\xa9~");
        assert_eq!(shown, "a \\\"b\\\" c'\\\\\\x00\\n\\r\\t\\a\\b\\x1b\\xff\\xc3\\xa9~");
    }

    #[test]
    fn every_byte_comes_back_and_what_is_no_escape_stays() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(parse(&Shown(&all).to_string()), all);
        for text in ["\\", "\\x", "\\x4", "\\xzz", "\\x+1", "\\q", "é"] {
            assert_eq!(parse(text), text.as_bytes(), "{text}");
        }
        assert_eq!(parse("\\x41\\\\x41"), b"A\\x41");
    }

    #[test]
    fn what_an_error_repeats_is_printable_and_has_an_end() {
        assert_eq!(quoted(b"a\r\nb\0"), "a  b ");
        assert_eq!(quoted(&[b'a'; 129]), "a".repeat(128));
        assert_eq!(quoted(&[0xff; 200]), "\u{fffd}".repeat(42));
        assert_eq!(quoted("ю".repeat(100).as_bytes()), "ю".repeat(64));
    }
}
