//! Tollgate's own commands, from arguments to checked values. A malformed one is a value too: its error text.
//!
//! [`TABLE`] is all that is known of them. Each has a file of its own here, with its row and its parser, and whoever
//! must know a command's name asks the table.

mod check;
pub(crate) mod docs;
mod error;
mod help;
mod inspect;
mod overrides;
mod peek;
mod policy;
mod reset;
mod stats;
mod throttle;
mod top;

pub(crate) use crate::shown::quoted;
pub use check::CheckArgs;
pub use error::CommandError;
pub use policy::PolicyRequest;
pub use throttle::ThrottleArgs;

use crate::config::Limits;
use crate::limit::MAX_KEY_BYTES;
use crate::resp::request::Args;
use crate::top::Which;
use docs::Docs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// All of Tollgate's own commands, in the order in which RL.HELP has them.
static TABLE: [&OwnCommand; 11] = [
    &check::COMMAND,
    &peek::COMMAND,
    &reset::COMMAND,
    &inspect::COMMAND,
    &throttle::RL,
    &throttle::CL,
    &top::COMMAND,
    &stats::COMMAND,
    &policy::COMMAND,
    &overrides::COMMAND,
    &help::COMMAND,
];

/// Whether CL.THROTTLE is none of them but the business of the Redis behind. Of the process, as the table is.
static PASSES_CL_THROTTLE: AtomicBool = AtomicBool::new(false);

/// Says whether CL.THROTTLE is Tollgate's own or goes to Redis.
pub(crate) fn set_cl_throttle(is_own: bool) {
    PASSES_CL_THROTTLE.store(!is_own, Relaxed);
}

/// The commands that are Tollgate's own here.
pub(crate) fn own_commands() -> impl Iterator<Item = &'static OwnCommand> + Clone {
    TABLE.into_iter().filter(|command| command.is_own())
}

/// One of Tollgate's own commands: its row of the table, in the terms of Redis's COMMAND.
#[derive(Debug)]
pub struct OwnCommand {
    /// In lower case, as Redis writes names in COMMAND and in errors.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least so many.
    arity: i64,
    flags: &'static [&'static str],
    categories: &'static [&'static str],
    keys: Keys,
    /// Whether a user may run it who may run nothing of Redis's (`commands = "rl-only"`). Any other user may.
    pub is_for_rl_only: bool,
    /// Whether it tells of keys that it is not asked about, so that a user who has a key prefix may not run it.
    pub tells_of_all_keys: bool,
    /// Reads its arguments.
    pub parse: Parse,
    docs: Docs,
}

/// Where a command's keys stand, and what is done to each, in the terms of COMMAND GETKEYSANDFLAGS.
#[derive(Debug)]
struct Keys {
    /// The place of the first, 0 if there are none.
    first: i64,
    /// The place of the last; negative: counted from the end.
    last: i64,
    step: i64,
    flags: &'static [&'static str],
}

impl Keys {
    const NONE: Self = Self { first: 0, last: 0, step: 0, flags: &[] };
}

/// Reads the arguments of a request of one command.
///
/// # Errors
/// The first thing that is wrong, from left to right; then what is more than the limits allow.
pub type Parse = for<'a> fn(&Args<'a>, &Limits) -> Result<Request<'a>, CommandError>;

/// What a request asks for, and with that the form of its reply.
#[derive(Debug)]
pub enum Request<'a> {
    /// A decision that counts, in six integers.
    Check(CheckArgs<'a>),
    /// A decision that does not, in the same form.
    Peek(CheckArgs<'a>),
    /// A decision in redis-cell's five integers.
    Throttle(ThrottleArgs<'a>),
    /// That all of these keys be forgotten, and how many had any state.
    Reset(Vec<&'a [u8]>),
    /// How all that is counted for a key stands.
    Inspect {
        /// The key.
        key: &'a [u8],
        /// Most entries of each window to list, if any.
        entries: Option<usize>,
    },
    /// The keys of most answers.
    Top {
        /// Of which answers, and when.
        which: Which,
        /// By which policy, or by none if this is empty; by whichever if nothing is said.
        policy: Option<&'a [u8]>,
        /// How many keys, at most.
        count: usize,
    },
    /// What policies there are, or that they change.
    Policy(PolicyRequest<'a>),
    /// The figures of this Tollgate, as a map.
    Stats,
    /// The lines that [`docs::help`] writes.
    Help,
}

/// A request of one of Tollgate's own commands.
#[derive(Debug, Clone, Copy)]
pub struct OwnRequest<'a> {
    /// Which.
    pub command: &'static OwnCommand,
    /// Its arguments.
    pub args: &'a Args<'a>,
    /// As it came.
    pub raw: &'a [u8],
}

impl<'a> OwnRequest<'a> {
    /// What it asks for.
    ///
    /// # Errors
    /// As [`Parse`] has them.
    pub fn parse(&self, limits: &Limits) -> Result<Request<'a>, CommandError> {
        (self.command.parse)(self.args, limits)
    }
}

impl OwnCommand {
    /// The command of this name in any case, or `None` when it is not Tollgate's own. Every command that a client sends
    /// is asked about, so the first letter and the length exclude nearly all others at once.
    pub fn of(name: &[u8]) -> Option<&'static Self> {
        let first = name.first()?;
        if NAMES.first_letters & letter(*first) == 0 || NAMES.lengths & length(name.len()) == 0 {
            return None;
        }
        TABLE.into_iter().find(|command| command.is_named(name)).filter(|command| command.is_own())
    }

    fn is_own(&self) -> bool {
        self.name != throttle::CL.name || !PASSES_CL_THROTTLE.load(Relaxed)
    }

    /// Whether it may stand in a transaction, which is answered at once however long the answer: not what only looks, and
    /// is answered at length.
    pub fn runs_in_multi(&self) -> bool {
        !self.flags.contains(&"no_multi")
    }

    /// Whether it counts in keys that are not Tollgate's alone, so that it must not pass, or be passed by, what else a
    /// client does with them.
    pub fn counts_in_plain_keys(&self) -> bool {
        self.name == throttle::CL.name || self.name == throttle::RL.name
    }

    /// Whether this is the command's name, in any case.
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name.as_bytes().eq_ignore_ascii_case(name)
    }
}

/// The first letters of the names in the table, and their lengths, a bit each.
const NAMES: Names = {
    let mut names = Names { first_letters: 0, lengths: 0 };
    let mut rows = TABLE.as_slice();
    while let [row, rest @ ..] = rows {
        let [first, ..] = row.name.as_bytes() else { panic!("a command without a name") };
        assert!(length(row.name.len()) != 0, "a name too long for its bit");
        names.first_letters |= letter(*first);
        names.lengths |= length(row.name.len());
        rows = rest;
    }
    names
};

struct Names {
    first_letters: u32,
    lengths: u32,
}

/// The bit of a letter, the same in either case. A sign that is no letter has that of one.
const fn letter(byte: u8) -> u32 {
    1 << (byte & 31)
}

/// The bit of a length, none of what is longer than any name can be.
const fn length(bytes: usize) -> u32 {
    if bytes < 32 { 1 << bytes } else { 0 }
}

fn capped(what: &'static str, got: u64, most: u64, setting: &'static str) -> Result<(), CommandError> {
    if got <= most { Ok(()) } else { Err(CommandError::Capped { what, most, setting }) }
}

fn check_key(key: &[u8]) -> Result<(), CommandError> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) { Ok(()) } else { Err(CommandError::Key(key.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_by_its_name_in_any_case() {
        for command in TABLE {
            for name in [command.name.to_owned(), command.name.to_uppercase()] {
                assert_eq!(OwnCommand::of(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
            assert_eq!(command.name, command.name.to_lowercase());
        }
        for name in ["", "rl", "rl.", "rl.chec", "rl.checks", "rl.what", "rlxcheck", "get", "RESET", "\u{12}l.check"] {
            assert!(OwnCommand::of(name.as_bytes()).is_none(), "{name}");
        }
        assert!(OwnCommand::of(&[b'r'; 1024]).is_none());
    }
}
