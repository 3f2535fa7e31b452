//! What is said of a command that is not understood.

use super::{OwnCommand, docs};
use crate::limit::{MAX_COST, MAX_KEY_BYTES, MAX_LIMIT, MAX_LIMITS_PER_ASK, MAX_LISTED_ENTRIES};
use crate::quotas::{ALLOWED_WINDOW, QuotaError};
use crate::top::MAX_COUNT;
use std::fmt;

/// Most bytes of a peer's that an error repeats, as in Redis.
const MAX_QUOTED_BYTES: usize = 128;

/// Why a command is not understood. Its Display is the reply.
#[derive(Debug)]
pub enum CommandError {
    /// Too few arguments, or a limit without its window.
    Arity(&'static OwnCommand),
    /// A key of so many bytes: none, or too many.
    Key(usize),
    /// A limit that is not an integer from 1 to [`MAX_LIMIT`].
    Limit(String),
    /// A window, and then a limit.
    LimitBehindWindow {
        /// Of which command.
        command: &'static OwnCommand,
        /// What stands where the limit belongs.
        window: String,
        /// What stands where the window belongs.
        limit: String,
    },
    /// A window that is none, or is out of range.
    Window(String),
    /// One window twice.
    WindowTwice(String),
    /// More than [`MAX_LIMITS_PER_ASK`].
    TooManyWindows,
    /// A cost that is not an integer from 1 to [`MAX_COST`].
    Cost(String),
    /// A number of entries to list that is not an integer from 1 to [`MAX_LISTED_ENTRIES`].
    Entries(String),
    /// A number of keys to list that is not an integer from 1 to [`MAX_COUNT`].
    Count(String),
    /// A word where a limit or an option belongs.
    Option(&'static OwnCommand, String),
    /// More of something than the operator allows.
    Capped {
        /// Of what.
        what: &'static str,
        /// The most that is allowed.
        most: u64,
        /// The setting that says so.
        setting: &'static str,
    },
}

impl CommandError {
    /// What is wrong with a limit and its window in the arguments of `command`.
    pub fn quota(command: &'static OwnCommand, error: QuotaError<'_>) -> Self {
        match error {
            QuotaError::NoWindow => Self::Arity(command),
            QuotaError::Limit(got) => Self::Limit(quoted(got)),
            QuotaError::LimitBehindWindow { window, limit } => {
                Self::LimitBehindWindow { command, window: quoted(window), limit: quoted(limit) }
            }
            QuotaError::Window(got) => Self::Window(quoted(got)),
            QuotaError::WindowTwice(got) => Self::WindowTwice(quoted(got)),
            QuotaError::TooMany => Self::TooManyWindows,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arity(command) => {
                write!(f, "ERR wrong number of arguments for '{}' command: {}", command.name, docs::usage(command))
            }
            Self::Key(length) => write!(f, "ERR key must be 1 to {MAX_KEY_BYTES} bytes long, not {length}"),
            Self::Limit(got) => write!(f, "ERR limit must be an integer between 1 and {MAX_LIMIT}, not '{got}'"),
            Self::LimitBehindWindow { command, window, limit } => {
                let (error, name) = (Self::Limit(window.clone()), command.name.to_uppercase());
                write!(f, "{error}: the limit comes before its window, as in '{name} key {limit} {window}'")
            }
            Self::Window(got) => write!(f, "ERR window must be {ALLOWED_WINDOW}, not '{got}'"),
            Self::WindowTwice(got) => write!(f, "ERR window '{got}' is named twice"),
            Self::TooManyWindows => write!(f, "ERR at most {MAX_LIMITS_PER_ASK} windows can be checked together"),
            Self::Cost(got) => write!(f, "ERR cost must be an integer between 1 and {MAX_COST}, not '{got}'"),
            Self::Entries(got) => {
                write!(f, "ERR entries must be an integer between 1 and {MAX_LISTED_ENTRIES}, not '{got}'")
            }
            Self::Count(got) => write!(f, "ERR count must be an integer between 1 and {MAX_COUNT}, not '{got}'"),
            Self::Option(command, got) => {
                write!(f, "ERR unknown option '{got}' for '{}': {}", command.name, docs::usage(command))
            }
            Self::Capped { what, most, setting } => write!(f, "ERR {what} must be at most {most} here ({setting})"),
        }
    }
}

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
    fn what_an_error_repeats_is_printable_and_has_an_end() {
        assert_eq!(quoted(b"a\r\nb\0"), "a  b ");
        assert_eq!(quoted(&[b'a'; 129]), "a".repeat(128));
        assert_eq!(quoted(&[0xff; 200]), "\u{fffd}".repeat(42));
        assert_eq!(quoted("ю".repeat(100).as_bytes()), "ю".repeat(64));
    }
}
