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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_as_redis_cli_shows_them() {
        let shown = Shown(b"a \"b\" c'\\\0\n\r\t\x07\x08\x1b\xff\xc3\xa9~").to_string();
        assert_eq!(shown, "a \\\"b\\\" c'\\\\\\x00\\n\\r\\t\\a\\b\\x1b\\xff\\xc3\\xa9~");
    }
}
