//! A connection on which something is asked that no check waits for: where the nodes are.
//!
//! The connections of the checks are `store::connection`'s. Those stand above what this serves: whoever dials them has
//! asked here where to.

use super::reply::{self, Frame, MAX_BYTES, Wrong};
use crate::net::Stream;
use crate::resp::request;
use crate::resp::scan::Scanner;
use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Who to be.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; without one, the default one.
    pub user: Option<String>,
    /// Its password. Without one there is no login.
    pub password: Option<String>,
}

/// A connection, and what has come on it and was not read yet.
#[derive(Debug)]
pub struct Conversation {
    stream: Stream,
    input: BytesMut,
}

impl Conversation {
    /// Begins with a login, if there is one.
    ///
    /// # Errors
    /// The connection is lost, or the login refused.
    pub async fn begin(stream: Stream, login: &Login) -> io::Result<Self> {
        let mut conversation = Self { stream, input: BytesMut::new() };
        if let Some(password) = &login.password {
            let words: Vec<&str> =
                [Some("AUTH"), login.user.as_deref(), Some(password)].into_iter().flatten().collect();
            conversation.send(&[&words]).await?;
            conversation.answer().await?.map_err(without_args).map_err(io::Error::other)?;
        }
        Ok(conversation)
    }

    /// Sends questions; [`Conversation::answer`] reads an answer to each, in order.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn send(&mut self, questions: &[&[&str]]) -> io::Result<()> {
        let mut output = BytesMut::new();
        questions.iter().for_each(|words| request::write(&mut output, words));
        self.stream.write_all(&output).await?;
        self.stream.flush().await
    }

    /// The next answer, or message of a subscription. Dropped before it is there, nothing is lost.
    ///
    /// # Errors
    /// The connection is lost, or what comes is no RESP or too long. The inner error is what is wrong with this answer.
    pub async fn answer(&mut self) -> io::Result<Result<Frame, Wrong>> {
        let (mut scanner, mut scanned) = (Scanner::default(), 0);
        loop {
            let unread = self.input.get(scanned..).unwrap_or_default();
            let (taken, is_whole) = scanner.scan(unread).map_err(|_| io::Error::other(Wrong::Unexpected))?;
            scanned += taken;
            if is_whole {
                return Ok(reply::read(&self.input.split_to(scanned)));
            }
            if scanned > MAX_BYTES {
                return Err(io::Error::other(Wrong::TooMuch));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Asks one question.
    ///
    /// # Errors
    /// As [`Conversation::answer`], or the answer is an error.
    pub async fn ask(&mut self, words: &[&str]) -> io::Result<Frame> {
        self.send(&[words]).await?;
        self.answer().await?.map_err(io::Error::other)
    }
}

/// Without what a server that does not know AUTH repeats of its arguments.
fn without_args(wrong: Wrong) -> Wrong {
    match wrong {
        Wrong::Refused(text) => Wrong::Refused(text.split(", with args").next().unwrap_or_default().to_owned()),
        other => other,
    }
}
