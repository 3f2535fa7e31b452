//! A client that sends the bytes it is given and shows replies as they are, in RESP2 and RESP3.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A reply, as exact as the wire: a status is not a bulk string, a map is not an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+`
    Status(String),
    /// `-`
    Error(String),
    /// `:`
    Integer(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`
    Nil,
    /// `*`
    Array(Vec<Reply>),
    /// `%`
    Map(Vec<(Reply, Reply)>),
    /// `~`
    Set(Vec<Reply>),
    /// `>`
    Push(Vec<Reply>),
    /// `=`, with its `txt:`
    Verbatim(Vec<u8>),
    /// `#`
    Boolean(bool),
    /// `,`, as written
    Double(String),
}

/// What RL.CHECK and RL.PEEK say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub limit: i64,
    pub remaining: i64,
    pub retry_after_ms: i64,
    pub reset_after_ms: i64,
    pub degraded: bool,
}

impl Decision {
    /// The answer to an allowed request whose window was empty but for requests just made.
    pub fn allowed(limit: i64, remaining: i64, window_ms: i64) -> Self {
        Self { allowed: true, limit, remaining, retry_after_ms: 0, reset_after_ms: window_ms, degraded: false }
    }

    /// The answer to a cost above the limit.
    pub fn never(limit: i64) -> Self {
        Self { allowed: false, limit, remaining: 0, retry_after_ms: -1, reset_after_ms: 0, degraded: false }
    }
}

impl Reply {
    /// A bulk string of this text.
    pub fn bulk(text: &str) -> Self {
        Self::Bulk(text.as_bytes().to_vec())
    }

    /// The six integers of a decision, by name.
    #[track_caller]
    pub fn decision(&self) -> Decision {
        let integers: Vec<i64> = self.items().iter().map(Self::integer).collect();
        let [allowed, limit, remaining, retry_after_ms, reset_after_ms, degraded] = integers[..] else {
            panic!("not a decision: {self:?}");
        };
        assert!([0, 1].contains(&allowed) && [0, 1].contains(&degraded), "{integers:?}");
        Decision { allowed: allowed == 1, limit, remaining, retry_after_ms, reset_after_ms, degraded: degraded == 1 }
    }

    #[track_caller]
    pub fn integer(&self) -> i64 {
        let Self::Integer(value) = self else { panic!("not an integer: {self:?}") };
        *value
    }

    /// The elements of an array or a set.
    #[track_caller]
    pub fn items(&self) -> &[Self] {
        let (Self::Array(items) | Self::Set(items)) = self else { panic!("not an array: {self:?}") };
        items
    }

    /// The bytes of a bulk string.
    #[track_caller]
    pub fn bytes(&self) -> Vec<u8> {
        let Self::Bulk(bytes) = self else { panic!("not a bulk string: {self:?}") };
        bytes.clone()
    }

    /// The text of a status, an error, a bulk or a verbatim string.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) | Self::Error(text) => text.clone(),
            Self::Bulk(bytes) | Self::Verbatim(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("no text: {self:?}"),
        }
    }

    /// What stands under `name` in a map, or in the array of names and values that is a map in RESP2.
    #[track_caller]
    pub fn field(&self, name: &str) -> &Self {
        let found = match self {
            Self::Map(pairs) => pairs.iter().find(|(key, _)| key.text() == name).map(|(_, value)| value),
            _ => self.items().chunks_exact(2).find(|pair| pair[0].text() == name).map(|pair| &pair[1]),
        };
        found.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    #[track_caller]
    pub fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        let Some((&kind, rest)) = line.split_first() else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let text = String::from_utf8_lossy(rest.strip_suffix(b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?);
        let length = || text.parse::<i64>().map_err(|_| io::Error::other(format!("bad length {text:?}")));
        Ok(match kind {
            b'+' => Self::Status(text.into_owned()),
            b'-' => Self::Error(text.into_owned()),
            b':' => Self::Integer(length()?),
            b',' => Self::Double(text.into_owned()),
            b'#' => Self::Boolean(text == "t"),
            b'_' => Self::Nil,
            b'$' | b'*' if length()? == -1 => Self::Nil,
            b'$' => Self::Bulk(read_bulk(from, length()?)?),
            b'=' => Self::Verbatim(read_bulk(from, length()?)?),
            b'*' => Self::Array(Self::read_many(from, length()?)?),
            b'~' => Self::Set(Self::read_many(from, length()?)?),
            b'>' => Self::Push(Self::read_many(from, length()?)?),
            b'%' => {
                let pairs = (0..length()?).map(|_| Ok((Self::read(from)?, Self::read(from)?)));
                Self::Map(pairs.collect::<io::Result<_>>()?)
            }
            _ => return Err(io::Error::other(format!("not a reply: {:?}", String::from_utf8_lossy(&line)))),
        })
    }

    fn read_many(from: &mut impl BufRead, count: i64) -> io::Result<Vec<Self>> {
        (0..count).map(|_| Self::read(from)).collect()
    }
}

fn read_bulk(from: &mut impl BufRead, length: i64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)? + 2];
    from.read_exact(&mut bytes)?;
    if !bytes.ends_with(b"\r\n") {
        return Err(io::Error::other("a bulk string without its end"));
    }
    bytes.truncate(bytes.len() - 2);
    Ok(bytes)
}

/// A request as clients send it: an array of bulk strings.
pub fn encode(args: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend(format!("${}\r\n", arg.len()).into_bytes());
        bytes.extend(arg);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// A connection. Reading gives up after [`super::PATIENCE`].
pub struct RawClient {
    stream: BufReader<TcpStream>,
}

impl RawClient {
    pub fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(super::PATIENCE))?;
        stream.set_write_timeout(Some(super::PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// From now on a send or a read is given up after that time.
    pub fn give_up_after(&self, time: Duration) {
        self.stream.get_ref().set_read_timeout(Some(time)).unwrap();
        self.stream.get_ref().set_write_timeout(Some(time)).unwrap();
    }

    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    #[track_caller]
    pub fn read(&mut self) -> Reply {
        self.try_read().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    pub fn try_read(&mut self) -> io::Result<Reply> {
        Reply::read(&mut self.stream)
    }

    /// Sends one request and reads its reply.
    #[track_caller]
    pub fn cmd(&mut self, args: &[impl AsRef<[u8]>]) -> Reply {
        self.send(&encode(args));
        self.read()
    }

    /// Sends one request of words without blanks and reads its reply.
    #[track_caller]
    pub fn line(&mut self, line: &str) -> Reply {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.cmd(&words)
    }

    /// The decision that a request of words without blanks gets.
    #[track_caller]
    pub fn decide(&mut self, line: &str) -> Decision {
        self.line(line).decision()
    }

    /// All that comes until the server closes.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            // A server that closes with bytes of ours unread resets the connection: closed all the same.
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("not closed: {error}"),
            _ => bytes,
        }
    }

    /// All that comes, as it stands on the wire, up to a bulk string of `last` or the close.
    #[track_caller]
    pub fn read_raw_until(&mut self, last: &[u8]) -> Vec<u8> {
        let last = [last, b"\r\n"].concat();
        let mut bytes = Vec::new();
        while self.stream.read_until(b'\n', &mut bytes).unwrap() > 0 && !bytes.ends_with(&last) {}
        bytes
    }

    /// All that comes up to where it holds `part`.
    #[track_caller]
    pub fn read_raw_to(&mut self, part: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.windows(part.len()).any(|window| window == part) {
            let more = self.stream.fill_buf().unwrap();
            assert!(!more.is_empty(), "closed after {}", bytes.escape_ascii());
            bytes.extend(more);
            let taken = more.len();
            self.stream.consume(taken);
        }
        bytes
    }

    /// What comes next, at most so many bytes, and at least one.
    #[track_caller]
    pub fn read_at_most(&mut self, length: usize) -> usize {
        let available = self.stream.fill_buf().unwrap().len();
        assert!(available > 0, "closed");
        let taken = available.min(length);
        self.stream.consume(taken);
        taken
    }

    /// Waits until something has come, and leaves it there.
    #[track_caller]
    pub fn wait_for_bytes(&mut self) {
        assert_ne!(self.stream.get_ref().peek(&mut [0]).unwrap(), 0, "closed");
    }

    /// One reply of RESP2, as it stands on the wire.
    pub fn read_raw_reply(&mut self) -> io::Result<Vec<u8>> {
        let (mut bytes, mut left) = (Vec::new(), 1);
        while left > 0 {
            let begin = bytes.len();
            if self.stream.read_until(b'\n', &mut bytes)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let number: Option<usize> =
                str::from_utf8(&bytes[begin + 1..]).ok().and_then(|text| text.trim().parse().ok());
            left -= 1;
            match (bytes[begin], number) {
                (b'*', Some(count)) => left += count,
                (b'$', Some(length)) => {
                    let end = bytes.len();
                    bytes.resize(end + length + 2, 0);
                    self.stream.read_exact(&mut bytes[end..])?;
                }
                _ => {}
            }
        }
        Ok(bytes)
    }

    /// What is left of the connection.
    pub fn into_stream(self) -> BufReader<TcpStream> {
        self.stream
    }

    /// Its own end's address.
    pub fn addr(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().unwrap()
    }

    /// Closes a side, or both.
    pub fn shutdown(&self, side: Shutdown) {
        self.stream.get_ref().shutdown(side).unwrap();
    }

    /// A second handle, to send by while the first reads.
    pub fn try_clone(&self) -> Self {
        Self { stream: BufReader::new(self.stream.get_ref().try_clone().unwrap()) }
    }
}
