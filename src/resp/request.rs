//! Finds the next request in a buffer: where it ends and where its arguments stand. And writes requests.
//!
//! The wording of the errors is Redis's own, because clients and people match on it.

use super::{parse_int, reply};
use bytes::BytesMut;
use std::fmt;
use std::ops::Range;

/// Longest inline request and longest length line, in bytes, as in Redis (`PROTO_INLINE_MAX_SIZE`).
const MAX_LINE_BYTES: usize = 64 * 1024;
/// The shortest argument: `$0` and two line ends.
const MIN_ARG_BYTES: usize = 6;
/// Most arguments of one request, as in Redis.
const MAX_ARGS: i64 = i32::MAX as i64;

/// Writes a request onto the end of a buffer.
pub fn write(out: &mut BytesMut, words: &[impl AsRef<[u8]>]) {
    // Requests and replies are arrays and bulk strings alike.
    reply::array(out, words.len());
    words.iter().for_each(|word| reply::bulk(out, word.as_ref()));
}

/// What a client may not send. The connection closes after it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// `*` without a number, or with one beyond 2^31 - 1.
    MultibulkLength,
    /// A multibulk length line without an end.
    MultibulkLine,
    /// Something other than `$` where an argument begins.
    ExpectedDollar(u8),
    /// `$` without a number, with a negative one, or with one above `max_bulk_bytes`.
    BulkLength,
    /// A bulk length line without an end.
    BulkLine,
    /// More than a few arguments from a client that has not logged in.
    MultibulkBeforeLogin,
    /// A long argument from such a client.
    BulkBeforeLogin,
    /// An inline request without an end.
    InlineTooBig,
    /// An inline request whose quotes do not match.
    UnbalancedQuotes,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Protocol error: ")?;
        match self {
            Self::MultibulkLength => f.write_str("invalid multibulk length"),
            Self::MultibulkLine => f.write_str("too big mbulk count string"),
            Self::ExpectedDollar(got) => write!(f, "expected '$', got '{}'", char::from(*got)),
            Self::BulkLength => f.write_str("invalid bulk length"),
            Self::BulkLine => f.write_str("too big bulk count string"),
            Self::MultibulkBeforeLogin => f.write_str("unauthenticated multibulk length"),
            Self::BulkBeforeLogin => f.write_str("unauthenticated bulk length"),
            Self::InlineTooBig => f.write_str("too big inline request"),
            Self::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
        }
    }
}

/// How much a request may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    args: i64,
    bulk_bytes: usize,
    /// What more is called.
    args_error: ProtocolError,
    bulk_error: ProtocolError,
}

impl Limits {
    /// Those of a client that may not do much yet, as in Redis.
    pub const BEFORE_LOGIN: Self = Self {
        args: 10,
        bulk_bytes: 16 * 1024,
        args_error: ProtocolError::MultibulkBeforeLogin,
        bulk_error: ProtocolError::BulkBeforeLogin,
    };

    /// Any other client's, whose arguments may have so many bytes.
    pub const fn of_bulk(bulk_bytes: usize) -> Self {
        let (args_error, bulk_error) = (ProtocolError::MultibulkLength, ProtocolError::BulkLength);
        Self { args: MAX_ARGS, bulk_bytes, args_error, bulk_error }
    }
}

/// The arguments of one request, the command's name first.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    data: &'a [u8],
    places: &'a [Range<usize>],
}

impl<'a> Args<'a> {
    /// How many there are, the name included.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none: an empty line, `*0`.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The argument at `index`, or nothing beyond the last.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.data.get(self.places.get(index)?.clone())
    }

    /// The command's name as sent, empty where there is none.
    pub fn name(&self) -> &'a [u8] {
        self.get(0).unwrap_or_default()
    }

    /// The arguments from `index` on.
    pub fn from(&self, index: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let data = self.data;
        self.places.get(index..).unwrap_or_default().iter().filter_map(move |place| data.get(place.clone()))
    }
}

/// Reads requests. Kept by a worker for all its clients, so that no request allocates.
#[derive(Debug, Default)]
pub struct Parser {
    places: Vec<Range<usize>>,
    /// Whether the request is an inline one: its arguments then stand in `unquoted`.
    inline: bool,
    /// How many arguments the request announces.
    count: usize,
    /// Of a request that is not whole: how many bytes it takes at least.
    needed: usize,
    /// The arguments of an inline request with their quotes and escapes undone.
    unquoted: Vec<u8>,
}

impl Parser {
    /// Reads the request that `buffer` begins with and says how many bytes it takes, or `None` when it is not whole
    /// yet. Its arguments are then to be had from [`Parser::args`] with the same buffer.
    ///
    /// # Errors
    /// A malformed frame, in Redis's words.
    pub fn parse(&mut self, buffer: &[u8], limits: Limits) -> Result<Option<usize>, ProtocolError> {
        self.places.clear();
        self.inline = buffer.first().is_some_and(|first| *first != b'*');
        if self.inline { self.parse_inline(buffer) } else { self.parse_multibulk(buffer, limits) }
    }

    /// The arguments of the request last read from `buffer`. Of a request that is not whole, those read so far.
    pub fn args<'a>(&'a self, buffer: &'a [u8]) -> Args<'a> {
        let data = if self.inline { &self.unquoted } else { buffer };
        Args { data, places: &self.places }
    }

    /// How many arguments the request last read has, those included that have not come yet.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes the request last read takes at least, if it was not whole; 0 where that is not known. Before so many
    /// have come, reading it again from its start finds no end, and is work that a client could ask for with each byte.
    pub fn needed(&self) -> usize {
        self.needed
    }

    fn parse_multibulk(&mut self, buffer: &[u8], limits: Limits) -> Result<Option<usize>, ProtocolError> {
        self.needed = 0;
        let Some((count, mut at)) = read_length(buffer, 1, ProtocolError::MultibulkLine)? else { return Ok(None) };
        let count = count.ok_or(ProtocolError::MultibulkLength)?;
        if count > limits.args {
            return Err(limits.args_error);
        }
        self.count = usize::try_from(count).unwrap_or(0);
        for _ in 0..count {
            match buffer.get(at) {
                None => return Ok(self.not_whole(at)),
                Some(b'$') => {}
                Some(other) => return Err(ProtocolError::ExpectedDollar(*other)),
            }
            let Some((length, start)) = read_length(buffer, at + 1, ProtocolError::BulkLine)? else {
                return Ok(self.not_whole(at));
            };
            let length = length.and_then(|length| usize::try_from(length).ok()).ok_or(ProtocolError::BulkLength)?;
            if length > limits.bulk_bytes {
                return Err(limits.bulk_error);
            }
            let end = start.saturating_add(length);
            at = end.saturating_add(2);
            if at > buffer.len() {
                return Ok(self.not_whole(at.saturating_sub(MIN_ARG_BYTES)));
            }
            self.places.push(start..end);
        }
        Ok(Some(at))
    }

    /// The argument that begins at `at` has yet to come whole, and none behind it has.
    #[cold]
    fn not_whole(&mut self, at: usize) -> Option<usize> {
        let left = self.count - self.places.len();
        self.needed = at.saturating_add(left.saturating_mul(MIN_ARG_BYTES));
        None
    }

    fn parse_inline(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        self.needed = 0;
        let Some(newline) = buffer.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n') else {
            return if buffer.len() >= MAX_LINE_BYTES { Err(ProtocolError::InlineTooBig) } else { Ok(None) };
        };
        let line = buffer.get(..newline).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.unquoted.clear();
        self.split_line(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        self.count = self.places.len();
        Ok(Some(newline + 1))
    }

    /// Splits a line into arguments by the rules of `redis-cli` and of Redis's inline requests (`sdssplitargs`).
    fn split_line(&mut self, line: &[u8]) -> Option<()> {
        let mut rest = line;
        loop {
            while let [blank, tail @ ..] = rest
                && blank.is_ascii_whitespace()
            {
                rest = tail;
            }
            if rest.is_empty() {
                return Some(());
            }
            let start = self.unquoted.len();
            rest = match rest {
                [b'"', tail @ ..] => self.unquote_double(tail)?,
                [b'\'', tail @ ..] => self.unquote_single(tail)?,
                _ => self.take_word(rest)?,
            };
            self.places.push(start..self.unquoted.len());
        }
    }

    /// An unquoted word. A quote in its middle begins a quoted part that must also end it.
    fn take_word<'l>(&mut self, mut rest: &'l [u8]) -> Option<&'l [u8]> {
        loop {
            match rest {
                [] => return Some(rest),
                [byte, ..] if byte.is_ascii_whitespace() => return Some(rest),
                [b'"', tail @ ..] => return self.unquote_double(tail),
                [b'\'', tail @ ..] => return self.unquote_single(tail),
                [byte, tail @ ..] => {
                    self.unquoted.push(*byte);
                    rest = tail;
                }
            }
        }
    }

    fn unquote_double<'l>(&mut self, mut rest: &'l [u8]) -> Option<&'l [u8]> {
        loop {
            let (byte, tail) = match rest {
                [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    (hex_digit(*high) * 16 + hex_digit(*low), tail)
                }
                [b'\\', escaped, tail @ ..] => (unescape(*escaped), tail),
                [b'"', tail @ ..] => return at_word_end(tail),
                [byte, tail @ ..] => (*byte, tail),
                [] => return None,
            };
            self.unquoted.push(byte);
            rest = tail;
        }
    }

    fn unquote_single<'l>(&mut self, mut rest: &'l [u8]) -> Option<&'l [u8]> {
        loop {
            let (byte, tail) = match rest {
                [b'\\', b'\'', tail @ ..] => (b'\'', tail),
                [b'\'', tail @ ..] => return at_word_end(tail),
                [byte, tail @ ..] => (*byte, tail),
                [] => return None,
            };
            self.unquoted.push(byte);
            rest = tail;
        }
    }
}

/// A closing quote must end its word.
fn at_word_end(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(u8::is_ascii_whitespace).then_some(rest)
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte - b'A' + 10,
    }
}

/// Reads the number from `start` to the line's end: the number, or `None` for what is not one, and where the next
/// line begins. Nothing when the line has no end yet, which is `too_long` once it passes the limit.
#[inline]
fn read_length(
    buffer: &[u8],
    start: usize,
    too_long: ProtocolError,
) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    let line = buffer.get(start..).unwrap_or_default();
    // Nearly all are of one or two digits.
    match *line {
        [a @ b'1'..=b'9', b'\r', _, ..] => return Ok(Some((Some(i64::from(a - b'0')), start + 3))),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => {
            return Ok(Some((Some(i64::from(a - b'0') * 10 + i64::from(b - b'0')), start + 4)));
        }
        _ => {}
    }
    let Some(end) = line.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\r') else {
        return if line.len() >= MAX_LINE_BYTES { Err(too_long) } else { Ok(None) };
    };
    // The line feed that follows is taken unseen, as Redis does.
    if line.len() < end + 2 {
        return Ok(None);
    }
    Ok(Some((parse_int(line.get(..end).unwrap_or_default()), start + end + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BULK: usize = 512 * 1024 * 1024;

    type Read = Option<(usize, Vec<Vec<u8>>)>;

    fn read(buffer: &[u8]) -> Result<Read, ProtocolError> {
        let mut parser = Parser::default();
        let end = parser.parse(buffer, Limits::of_bulk(MAX_BULK))?;
        Ok(end.map(|end| (end, parser.args(buffer).from(0).map(<[u8]>::to_vec).collect())))
    }

    fn words(list: &[&str]) -> Vec<Vec<u8>> {
        list.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_request_is_found_only_once_it_is_whole() {
        let request = b"*2\r\n$3\r\nGET\r\n$3\r\na\0b\r\n";
        for end in 0..request.len() {
            assert_eq!(read(&request[..end]), Ok(None), "{end} bytes");
        }
        assert_eq!(read(request), Ok(Some((request.len(), words(&["GET", "a\0b"])))));
    }

    #[test]
    fn a_request_is_not_read_again_before_it_can_be_whole() {
        let words = vec!["a"; 1000];
        let mut request = BytesMut::new();
        write(&mut request, &words);
        let mut parser = Parser::default();
        let (mut end, mut readings) = (1, 0);
        while parser.parse(&request[..end], Limits::of_bulk(MAX_BULK)).unwrap().is_none() {
            assert!(parser.needed() <= request.len());
            end = parser.needed().max(end + 1);
            readings += 1;
        }
        assert!(end <= request.len() && readings < 20, "{readings}");
        assert_eq!(parser.parse(b"*2\r\n$3\r\nGET\r\n$10\r\nabc", Limits::of_bulk(MAX_BULK)), Ok(None));
        assert_eq!(parser.needed(), 30);
    }

    #[test]
    fn inline_requests_follow_the_rules_of_quoting() {
        for (line, args) in [
            ("PING\r\n", vec!["PING"]),
            ("PING\n", vec!["PING"]),
            ("\r\n", vec![]),
            ("  GET   a \r\n", vec!["GET", "a"]),
            ("GET \"a b\" 'c d'\r\n", vec!["GET", "a b", "c d"]),
            ("GET \"\\x41\\n\\\"\" 'it\\'s'\r\n", vec!["GET", "A\n\"", "it's"]),
            ("\"\" x\r\n", vec!["", "x"]),
            ("GET \"\"\r\n", vec!["GET", ""]),
        ] {
            assert_eq!(read(line.as_bytes()), Ok(Some((line.len(), words(&args)))), "{line:?}");
        }
        for line in ["GET \"a\r\n", "GET 'a\r\n", "GET \"a\"b\r\n"] {
            assert_eq!(read(line.as_bytes()), Err(ProtocolError::UnbalancedQuotes), "{line:?}");
        }
    }

    #[test]
    fn malformed_frames_are_named_as_redis_names_them() {
        for (frame, error) in [
            ("*x\r\n", "invalid multibulk length"),
            ("*2147483648\r\n", "invalid multibulk length"),
            ("*1\r\n:1\r\n", "expected '$', got ':'"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
            ("*1\r\n$x\r\n", "invalid bulk length"),
        ] {
            let error = format!("ERR Protocol error: {error}");
            assert_eq!(read(frame.as_bytes()).unwrap_err().to_string(), error, "{frame:?}");
        }
        let endless = vec![b'a'; MAX_LINE_BYTES];
        assert_eq!(read(&endless), Err(ProtocolError::InlineTooBig));
        assert_eq!(read(&[b"*", endless.as_slice()].concat()), Err(ProtocolError::MultibulkLine));
        assert_eq!(read(&[b"*1\r\n$", endless.as_slice()].concat()), Err(ProtocolError::BulkLine));
    }

    #[test]
    fn requests_without_arguments_are_skipped() {
        assert_eq!(read(b"*0\r\nPING"), Ok(Some((4, vec![]))));
        assert_eq!(read(b"*-1\r\nPING"), Ok(Some((5, vec![]))));
    }
}
