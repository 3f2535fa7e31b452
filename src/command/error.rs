//! What is said of a command that is not understood.

use super::{OwnCommand, docs};
use crate::limit::policy_name::{MAX_POLICY_NAME_BYTES, RESERVED};
use crate::limit::{MAX_COST, MAX_KEY_BYTES, MAX_LISTED_ENTRIES};
use crate::quotas::QuotaError;
use crate::shown::quoted;
use crate::top::MAX_COUNT;
use std::fmt;

/// Why a command is not understood. Its Display is the reply.
#[derive(Debug)]
pub enum CommandError {
    /// Too few arguments, or a limit without its window.
    Arity(&'static OwnCommand),
    /// A key of so many bytes: none, or too many.
    Key(usize),
    /// What is wrong with the limits: the text of a [`QuotaError`].
    Quota(String),
    /// A window, and then a limit.
    LimitBehindWindow {
        /// Of which command.
        command: &'static OwnCommand,
        /// What stands where the limit belongs.
        window: String,
        /// What stands where the window belongs.
        limit: String,
    },
    /// A cost that is not an integer from 1 to [`MAX_COST`].
    Cost(String),
    /// A number of entries to list that is not an integer from 1 to [`MAX_LISTED_ENTRIES`].
    Entries(String),
    /// A number of keys to list that is not an integer from 1 to [`MAX_COUNT`].
    Count(String),
    /// What no policy can be called.
    PolicyName(String),
    /// What no policy or override can be, in words.
    Policy(String),
    /// A word where a subcommand belongs.
    Subcommand(String),
    /// A time to live that is none.
    Expire(&'static OwnCommand),
    /// Any number that is none, or out of range.
    Integer,
    /// A rate at which nothing passes, or everything.
    ZeroRate,
    /// The same of CL.THROTTLE, with redis-cell's words.
    CellZeroRate,
    /// A number of CL.THROTTLE's that is none.
    CellInteger(String),
    /// Too few arguments of CL.THROTTLE, or too many.
    CellUsage,
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
    /// What is wrong with the limits in the arguments of `command`.
    pub fn quota(command: &'static OwnCommand, error: QuotaError<'_>) -> Self {
        match error {
            QuotaError::NoWindow | QuotaError::NoAlgorithm => Self::Arity(command),
            QuotaError::LimitBehindWindow { window, limit } => {
                Self::LimitBehindWindow { command, window: quoted(window), limit: quoted(limit) }
            }
            error => Self::Quota(error.to_string()),
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
            Self::Quota(text) => write!(f, "ERR {text}"),
            Self::LimitBehindWindow { command, window, limit } => {
                let (error, name) = (QuotaError::Limit(window.as_bytes()), command.name.to_uppercase());
                write!(f, "ERR {error}: the limit comes before its window, as in '{name} key {limit} {window}'")
            }
            Self::Cost(got) => write!(f, "ERR cost must be an integer between 1 and {MAX_COST}, not '{got}'"),
            Self::Entries(got) => {
                write!(f, "ERR entries must be an integer between 1 and {MAX_LISTED_ENTRIES}, not '{got}'")
            }
            Self::Count(got) => write!(f, "ERR count must be an integer between 1 and {MAX_COUNT}, not '{got}'"),
            Self::PolicyName(got) => write!(
                f,
                "ERR a policy's name must be 1 to {MAX_POLICY_NAME_BYTES} of A-Z a-z 0-9 _ . -, begin with a letter, and \
                 be none of {}, not '{got}'",
                RESERVED.join(", ")
            ),
            Self::Policy(text) => write!(f, "ERR {text}"),
            Self::Subcommand(got) => write!(f, "ERR unknown subcommand '{got}'. Try RL.HELP."),
            Self::Expire(command) => write!(f, "ERR invalid expire time in '{}' command", command.name),
            Self::Integer => f.write_str("ERR value is not an integer or out of range"),
            Self::ZeroRate => f.write_str("ERR zero rates are not supported"),
            Self::CellZeroRate => f.write_str("Cell error: Store error: Zero rates are not supported"),
            Self::CellInteger(got) => write!(f, "Cell error: Store error: Couldn't parse as integer: {got}"),
            Self::CellUsage => f.write_str(
                "Cell error: Store error: Usage: cl.throttle <key> <max_burst> <count per period> <period> [<quantity>]",
            ),
            Self::Option(command, got) => {
                write!(f, "ERR unknown option '{got}' for '{}': {}", command.name, docs::usage(command))
            }
            Self::Capped { what, most, setting } => write!(f, "ERR {what} must be at most {most} here ({setting})"),
        }
    }
}
