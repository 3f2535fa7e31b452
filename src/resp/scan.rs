//! Finds where RESP values end in a stream that comes in pieces, without keeping or building any of them: a value of
//! 512 MB passes in the buffers of one read.
//!
//! Nesting needs no stack: a value is complete when as many values have come as its heads announced.

/// Longest head of a value that has a length, and longest label, that is kept when it comes in pieces.
const KEPT_BYTES: usize = 32;

/// Not RESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Where in a value the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// A head line begins, or has begun.
    #[default]
    Head,
    /// So many bytes of a string are to come, its line end included.
    Text(u64),
}

/// How many values that nest nothing `data` begins with, `most` at most, and how many bytes they take. A value that is
/// not whole ends them, and so does one of any other kind.
pub fn flat_values(data: &[u8], most: u64) -> (u64, usize) {
    let (mut count, mut at) = (0, 0);
    while count < most
        && let Some(length) = data.get(at..).and_then(flat_value)
    {
        count += 1;
        at += length;
    }
    (count, at)
}

/// How many bytes the value takes that `data` begins with, if it nests nothing and is whole.
fn flat_value(data: &[u8]) -> Option<usize> {
    let (kind, rest) = data.split_first()?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let head = end + 2;
    match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Some(head),
        b'$' => {
            let length = super::parse_int(rest.get(..end)?.strip_suffix(b"\r")?)?;
            let text = usize::try_from(length).map_or(0, |length| length.saturating_add(2));
            Some(head.saturating_add(text)).filter(|whole| *whole <= data.len())
        }
        _ => None,
    }
}

/// Scans one value after another.
#[derive(Debug, Default)]
pub struct Scanner {
    place: Place,
    /// Values still to come before the outermost one is complete; 0 between values.
    left: u64,
    /// The beginning of the line that the stream is in, when that came in an earlier piece.
    line: Kept,
    kind: u8,
    /// How many values have begun within the outermost one.
    begun: u64,
    label: Kept,
    last_integer: i64,
}

/// The first bytes of something longer.
#[derive(Debug, Default)]
struct Kept {
    bytes: [u8; KEPT_BYTES],
    len: usize,
}

impl Kept {
    fn extend(&mut self, more: &[u8]) {
        let Some(room) = self.bytes.get_mut(self.len..) else { return };
        let taken = room.len().min(more.len());
        if let (Some(to), Some(from)) = (room.get_mut(..taken), more.get(..taken)) {
            to.copy_from_slice(from);
        }
        self.len += taken;
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Scanner {
    /// Whether the stream is between values.
    pub fn is_between(&self) -> bool {
        self.left == 0
    }

    /// The first byte of the outermost value: what it is.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// The beginning of the outermost value when that is a line (without its first byte), or of the first string in it.
    pub fn label(&self) -> &[u8] {
        self.label.as_slice()
    }

    /// The last integer in the outermost value.
    pub fn last_integer(&self) -> i64 {
        self.last_integer
    }

    /// Takes bytes up to the end of the outermost value. Says how many it took, and whether that end is reached.
    ///
    /// # Errors
    /// What comes is not RESP; the scanner is of no use afterwards.
    pub fn scan(&mut self, data: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            if self.left == 0 {
                *self = Self { left: 1, kind: rest.first().copied().unwrap_or(0), ..Self::default() };
            }
            match self.place {
                Place::Text(text) => {
                    let taken = usize::try_from(text).map_or(rest.len(), |text| text.min(rest.len()));
                    if self.begun == 2 {
                        self.label.extend(rest.get(..taken).unwrap_or_default());
                    }
                    at += taken;
                    // Taken bytes fit in both.
                    let text = text - taken as u64;
                    self.place = if text == 0 { Place::Head } else { Place::Text(text) };
                    self.left -= u64::from(text == 0);
                }
                Place::Head => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.line.extend(rest);
                        return Ok((data.len(), false));
                    };
                    at += end + 1;
                    self.take_line(rest.get(..end).unwrap_or_default())?;
                }
            }
            if self.left == 0 {
                self.trim_label();
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Takes a line that ends in `tail`.
    fn take_line(&mut self, tail: &[u8]) -> Result<(), Malformed> {
        let mut kept = std::mem::take(&mut self.line);
        let line = if kept.len == 0 {
            tail
        } else {
            kept.extend(tail);
            kept.as_slice()
        };
        let (kind, text) = line.split_first().ok_or(Malformed)?;
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        self.begun += 1;
        match kind {
            b'+' | b'-' | b'_' | b'#' | b',' | b'(' => {
                if self.begun == 1 {
                    self.label.extend(text);
                }
                self.left -= 1;
            }
            b':' => {
                self.last_integer = super::parse_int(text).unwrap_or(0);
                self.left -= 1;
            }
            b'$' | b'=' | b'!' => match super::parse_int(text).ok_or(Malformed)? {
                length if length < 0 => self.left -= 1,
                length => self.place = Place::Text(length.unsigned_abs() + 2),
            },
            b'*' | b'~' | b'>' => self.take_children(text, 1, false)?,
            b'%' => self.take_children(text, 2, false)?,
            // Attributes stand before the value that they belong to, which is still to come.
            b'|' => self.take_children(text, 2, true)?,
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn take_children(&mut self, text: &[u8], each: u64, is_attribute: bool) -> Result<(), Malformed> {
        // -1 is RESP2's null array.
        let count = super::parse_int(text).ok_or(Malformed)?.max(0).unsigned_abs();
        let children = count.checked_mul(each).ok_or(Malformed)?;
        self.left = (self.left - u64::from(!is_attribute)).checked_add(children).ok_or(Malformed)?;
        Ok(())
    }

    fn trim_label(&mut self) {
        while let Some(b'\r' | b'\n') = self.label.as_slice().last() {
            self.label.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [&str; 16] = [
        "+OK\r\n",
        "-ERR something rather long that is not kept whole\r\n",
        ":-12\r\n",
        "$5\r\nhello\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n~2\r\n:1\r\n_\r\n",
        ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
        "|1\r\n+ttl\r\n:3600\r\n*1\r\n#t\r\n",
        "=8\r\ntxt:text\r\n",
        ",1.5\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "$12\r\n\r\n$3\r\nno\r\n\r\n\r\n",
    ];

    #[test]
    fn values_end_where_they_end_however_they_are_cut() {
        let stream: Vec<u8> = VALUES.concat().into_bytes();
        let mut ends = Vec::new();
        VALUES.iter().fold(0, |start, value| {
            ends.push(start + value.len());
            start + value.len()
        });
        for piece in 1..=stream.len() {
            let (mut scanner, mut at, mut found) = (Scanner::default(), 0, Vec::new());
            for cut in stream.chunks(piece) {
                let mut rest = cut;
                while !rest.is_empty() {
                    let (taken, done) = scanner.scan(rest).unwrap();
                    rest = &rest[taken..];
                    at += taken;
                    if done {
                        found.push(at);
                    }
                }
            }
            assert_eq!(found, ends, "in pieces of {piece}");
            assert!(scanner.is_between());
        }
    }

    #[test]
    fn flat_values_are_those_that_nest_nothing_and_are_whole() {
        for value in VALUES.map(str::as_bytes) {
            let is_flat = !b"*%>|=".contains(&value[0]);
            let behind = [value, b":1\r\n"].concat();
            let all = if is_flat { (2, behind.len()) } else { (0, 0) };
            assert_eq!(flat_values(&behind, 9), all, "{behind:?}");
            assert_eq!(flat_values(&behind, 1), if is_flat { (1, value.len()) } else { (0, 0) }, "{behind:?}");
            for end in 0..value.len() {
                assert_eq!(flat_values(&value[..end], 9), (0, 0), "{end} bytes of {value:?}");
            }
        }
        for text in ["$x\r\n", "$9223372036854775807\r\n", "$1\n1\n", "\r\n", "x\r\n"] {
            assert_eq!(flat_values(text.as_bytes(), 9), (0, 0), "{text:?}");
        }
    }

    #[test]
    fn what_tells_values_apart_is_kept() {
        for piece in 1..50 {
            let mut scanner = Scanner::default();
            for cut in b">3\r\n$9\r\nsubscribe\r\n$3\r\nx:1\r\n:7\r\n".chunks(piece) {
                scanner.scan(cut).unwrap();
            }
            assert_eq!((scanner.kind(), scanner.label(), scanner.last_integer()), (b'>', &b"subscribe"[..], 7));
            for cut in b"+1700000000.123456 [0 127.0.0.1:1] \"PING\"\r\n".chunks(piece) {
                scanner.scan(cut).unwrap();
            }
            assert_eq!((scanner.kind(), scanner.label().first()), (b'+', Some(&b'1')));
        }
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for text in [
            "x\r\n",
            "\r\n",
            "$x\r\n",
            "*9223372036854775807\r\n%9223372036854775807\r\n",
            "*1\r\n%99999999999999999999\r\n",
        ] {
            assert!(Scanner::default().scan(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
