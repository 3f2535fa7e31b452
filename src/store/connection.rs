//! A connection of Tollgate's own to Redis: any number of commands may be in flight, and they are answered in order.
//!
//! Its owner writes and reads it himself. The `redis` crate's multiplexed connection has a task and two channels for
//! that, which cost Tollgate a sixth of its time for a batch.

use crate::dial::Dialer;
use crate::net::Stream;
use crate::resp::parse_int;
use crate::resp::request::{self, Limits, Parser};
use crate::resp::scan::Scanner;
use bytes::{Buf, BytesMut};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest reply, in bytes. The scripts' are a few kilobytes.
const MAX_REPLY_BYTES: usize = 1024 * 1024;
/// As much is shown of an answer that is none of Redis's.
const SHOWN_BYTES: usize = 60;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// The connection cannot be made, is lost, or does not speak RESP.
    Io(io::Error),
    /// Redis says so, in these words.
    Refused(String),
    /// The answer is of another kind than was asked for.
    Unexpected,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(text) => f.write_str(text),
            Self::Unexpected => f.write_str("a reply of another kind than expected"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What answers in something other than RESP: how it begins, at most [`SHOWN_BYTES`] of it.
#[derive(Debug)]
pub struct NoResp(pub Vec<u8>);

impl fmt::Display for NoResp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what is there does not answer in RESP: '{}'", self.0.escape_ascii())
    }
}

impl std::error::Error for NoResp {}

/// The connection was closed before a word was said on it.
#[derive(Debug)]
pub struct Wordless(pub io::Error);

impl fmt::Display for Wordless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} before the first answer", self.0)
    }
}

impl std::error::Error for Wordless {}

impl Error {
    /// No answer came in time.
    pub fn late() -> Self {
        Self::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
    }

    /// Whether Redis says that it serves nobody at the moment: it is loading, busy, full, or about to end.
    pub fn is_about_redis(&self) -> bool {
        const CODES: [&str; 4] = ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN"];
        let is_full = matches!(self, Self::Refused(text) if text.starts_with("ERR max number of clients"));
        is_full || CODES.iter().any(|code| self.has_code(code))
    }

    /// Without what a server that does not know a command repeats of its arguments, which may be a password.
    fn without_args(self) -> Self {
        match self {
            Self::Refused(text) => Self::Refused(text.split(", with args").next().unwrap_or_default().to_owned()),
            other => other,
        }
    }

    /// Whether Redis does not know the command.
    pub fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Refused(text) if text.to_ascii_lowercase().starts_with("err unknown"))
    }

    /// Whether Redis knows the command, and has too few or too many arguments of it.
    pub fn is_about_arguments(&self) -> bool {
        matches!(self, Self::Refused(text) if text.starts_with("ERR wrong number of arguments"))
    }

    /// Whether Redis answered with an error that begins with this code.
    pub fn has_code(&self, code: &str) -> bool {
        matches!(self, Self::Refused(text) if text.split(' ').next() == Some(code))
    }
}

/// What Redis answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// A number, or an array of numbers only.
    Integers(Vec<i64>),
    /// A string.
    Text(Vec<u8>),
    /// An array of strings only.
    Texts(Vec<Vec<u8>>),
    /// Anything else.
    Other,
}

/// A connection on which all that is sent is answered in order.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    output: BytesMut,
    input: BytesMut,
    /// Where in `input` the reply that is being read ends, as far as `scanned`.
    scanner: Scanner,
    scanned: usize,
    /// Something was answered.
    has_answered: bool,
}

impl Connection {
    /// A connection on which nothing was said yet.
    pub fn new(stream: Stream) -> Self {
        let (output, input) = (BytesMut::new(), BytesMut::new());
        Self { stream, output, input, scanner: Scanner::default(), scanned: 0, has_answered: false }
    }

    /// The stream, for others to speak on. All that was asked must have been answered.
    pub fn into_stream(self) -> Stream {
        debug_assert!(self.input.is_empty() && self.output.is_empty(), "something is in flight");
        self.stream
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// Whatever keeps Redis from being reached or from letting us in, within `timeout`.
    pub async fn open(dialer: &Dialer, timeout: Duration) -> Result<Self, Error> {
        let attempt = async {
            let mut connection = Self::dial(dialer, timeout).await?;
            connection.log_in(dialer).await?;
            Ok(connection)
        };
        tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| Err(Error::late()))
    }

    /// Connects, without a word spoken.
    ///
    /// # Errors
    /// As [`Dialer::dial_store`].
    pub async fn dial(dialer: &Dialer, timeout: Duration) -> Result<Self, Error> {
        Ok(Self::new(dialer.dial_store(timeout).await?))
    }

    /// Says who we are and which database we want.
    ///
    /// # Errors
    /// As [`Connection::reply`].
    pub async fn log_in(&mut self, dialer: &Dialer) -> Result<(), Error> {
        if let Some(words) = dialer.auth() {
            self.call(&words).await.map_err(Error::without_args)?;
        }
        if dialer.db() != 0 {
            self.call(&[&b"SELECT"[..], dialer.db().to_string().as_bytes()]).await?;
        }
        // For whoever reads CLIENT LIST; a user who may not say so is let in all the same. But it may be the first that is
        // said, and Redis's answer to it about something else.
        match self.call(&[&b"CLIENT"[..], b"SETNAME", b"tollgate"]).await {
            Err(error) if !error.has_code("NOPERM") && !error.is_unknown_command() => Err(error),
            _ => Ok(()),
        }
    }

    /// The address of what answers.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Where commands are written, as by [`Connection::write`].
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Sends one command and awaits its reply. Nothing else may be in flight.
    ///
    /// # Errors
    /// As [`Connection::reply`].
    pub async fn call(&mut self, words: &[impl AsRef<[u8]>]) -> Result<Reply, Error> {
        self.write(words);
        self.reply().await
    }

    /// Writes a command, to be sent when replies are next asked for.
    pub fn write(&mut self, words: &[impl AsRef<[u8]>]) {
        request::write(&mut self.output, words);
    }

    /// The next reply. Dropped before it is there, nothing is lost.
    ///
    /// # Errors
    /// The connection is lost, or the reply is an error.
    pub async fn reply(&mut self) -> Result<Reply, Error> {
        std::future::poll_fn(|cx| self.poll_reply(cx)).await
    }

    /// As [`Connection::reply`].
    pub fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, Error>> {
        // A Redis that closes says why before it does. That is still there to be read when nothing can be sent any more.
        let unsent = match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        loop {
            if let Some(reply) = self.take_reply() {
                self.has_answered = true;
                return Poll::Ready(reply);
            }
            let unread = match self.poll_read(cx) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(error)) => Some(error),
                Poll::Pending => None,
            };
            return match unsent.or(unread) {
                Some(error) => Poll::Ready(Err(self.ended_by(error))),
                None => Poll::Pending,
            };
        }
    }

    fn ended_by(&self, error: io::Error) -> Error {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let is_end = matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof);
        Error::Io(match is_end && !self.has_answered && self.input.is_empty() {
            true => io::Error::new(error.kind(), Wordless(error)),
            false => error,
        })
    }

    /// Sends what is written, as far as the connection takes it.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.output.advance(sent),
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [std::mem::MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "redis closed the connection")));
        }
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    fn take_reply(&mut self) -> Option<Result<Reply, Error>> {
        // Somebody else may say something that has no end as RESP has it.
        if !self.has_answered && self.input.first().is_some_and(|kind| !b"+-:$*_#,(!=%~>|".contains(kind)) {
            return Some(Err(no_resp(&self.input)));
        }
        let unread = self.input.get(self.scanned..).unwrap_or_default();
        match self.scanner.scan(unread) {
            Ok((taken, true)) => {
                let frame = self.input.split_to(self.scanned + taken);
                self.scanned = 0;
                Some(read(&frame))
            }
            Ok((taken, false)) => {
                self.scanned += taken;
                (self.scanned > MAX_REPLY_BYTES).then(|| Err(no_resp(&self.input)))
            }
            Err(_) => Some(Err(no_resp(&self.input))),
        }
    }
}

fn no_resp(input: &[u8]) -> Error {
    let shown = input.get(..SHOWN_BYTES).unwrap_or(input).to_vec();
    Error::Io(io::Error::new(io::ErrorKind::InvalidData, NoResp(shown)))
}

/// Reads a value that is whole.
fn read(frame: &[u8]) -> Result<Reply, Error> {
    let (kind, rest) = frame.split_first().ok_or(Error::Unexpected)?;
    let mut lines = rest.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    match kind {
        b'-' => Err(Error::Refused(String::from_utf8_lossy(first).into_owned())),
        b'+' => Ok(Reply::Text(first.to_vec())),
        b'$' => Ok(Reply::Text(rest.get(first.len() + 2..rest.len().saturating_sub(2)).unwrap_or_default().to_vec())),
        b':' => Ok(Reply::Integers(parse_int(first).into_iter().collect())),
        b'*' => {
            let count = parse_int(first).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            let integers = lines.take(count).map(|line| parse_int(line.strip_prefix(b":")?));
            Ok(integers.collect::<Option<_>>().map_or_else(|| read_texts(frame), Reply::Integers))
        }
        _ => Ok(Reply::Other),
    }
}

/// An array of strings looks as a request does.
fn read_texts(frame: &[u8]) -> Reply {
    let mut parser = Parser::default();
    match parser.parse(frame, Limits::of_bulk(MAX_REPLY_BYTES)) {
        Ok(Some(_)) => Reply::Texts(parser.args(frame).from(0).map(<[u8]>::to_vec).collect()),
        _ => Reply::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_apart() {
        for (frame, reply) in [
            ("*3\r\n:1\r\n:-20\r\n:9223372036854775807\r\n", Reply::Integers(vec![1, -20, i64::MAX])),
            ("*0\r\n", Reply::Integers(vec![])),
            (":7\r\n", Reply::Integers(vec![7])),
            ("+OK\r\n", Reply::Text(b"OK".to_vec())),
            ("$4\r\na\r\nb\r\n", Reply::Text(b"a\r\nb".to_vec())),
            ("$-1\r\n", Reply::Text(vec![])),
            ("*2\r\n$1\r\na\r\n$0\r\n\r\n", Reply::Texts(vec![b"a".to_vec(), vec![]])),
            ("*2\r\n$1\r\na\r\n:1\r\n", Reply::Other),
            ("*2\r\n:1\r\n*1\r\n:1\r\n", Reply::Other),
            ("*-1\r\n", Reply::Integers(vec![])),
            ("%1\r\n+a\r\n:1\r\n", Reply::Other),
        ] {
            assert_eq!(read(frame.as_bytes()).unwrap(), reply, "{frame:?}");
        }
        let error = read(b"-NOSCRIPT No matching script.\r\n").unwrap_err();
        assert!(error.has_code("NOSCRIPT") && !error.has_code("NO"));
        assert_eq!(error.to_string(), "NOSCRIPT No matching script.");
    }

    /// A Redis that has as many clients as it takes says so and closes. What was then sent failed, with `Broken pipe`, and
    /// that was all that anybody learnt.
    #[test]
    fn what_redis_said_before_it_closed_is_heard_when_nothing_can_be_sent() {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        server.write_all(b"-ERR max number of clients reached\r\n").unwrap();
        drop(server);
        while client.write_all(b"PING\r\n").is_ok() {}
        client.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(client).unwrap();
            Connection::new(Stream::Tcp(stream)).call(&["PING"]).await.unwrap_err()
        });
        assert_eq!(error.to_string(), "ERR max number of clients reached");
    }
}
