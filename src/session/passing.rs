//! Requests too long to be kept until they are whole.

use super::link::Link;
use super::redis_commands::{Does, RedisCommand};
use super::{Flow, Session};
use crate::clock::now_us;
use crate::command::OwnCommand;
use crate::resp::reply;
use crate::resp::request::Args;
use crate::resp::scan::Scanner;

/// Longest of Tollgate's own: a reset of many keys.
pub const MAX_OWN_BYTES: usize = 1024 * 1024;

/// A request too long to be kept until it is whole: it is passed on, or passed over, as it comes.
#[derive(Debug, Default)]
pub struct Passing {
    scanner: Scanner,
    /// Whether it is passed on. Otherwise it was answered already.
    forwarded: bool,
}

impl Passing {
    /// A request of which nothing was passed yet.
    pub fn new(forwarded: bool) -> Self {
        Self { scanner: Scanner::default(), forwarded }
    }
}

impl Session {
    /// A request that is too long to be kept: from here on it is passed on, or passed over. Whether it is so long.
    pub(super) fn begin_passing(&mut self, args: &Args<'_>, count: usize, length: usize) -> bool {
        if self.refuses(args.name(), now_us()) {
            self.passing = Some(Passing::new(false));
            return true;
        }
        // What may say who its client is is read whole, or not at all.
        let may_log_in = matches!(RedisCommand::of(args.name()).does, Does::LogIn | Does::Hello);
        let is_ours = OwnCommand::of(args.name()).is_some() || may_log_in;
        if !is_ours && self.may_forward() && !self.is_answered_here(RedisCommand::of(args.name())) {
            if let Some(flow) = self.leave_transaction(args.name()) {
                match flow {
                    Flow::Done => self.passing = Some(Passing::new(false)),
                    Flow::Hold => self.holding = true,
                }
                return true;
            }
            match self.run_other(args, count, b"", false) {
                Flow::Done => self.passing = Some(Passing::new(matches!(self.link, Link::Open(_)))),
                Flow::Hold => self.holding = true,
            }
            return true;
        }
        if length < MAX_OWN_BYTES {
            return false;
        }
        reply::error(self.replies(), "ERR the command is too long");
        self.passing = Some(Passing::new(false));
        true
    }

    /// Takes what of `data` belongs to the request that is passing. Says how much that was.
    pub(super) fn take_passing(&mut self, data: &[u8]) -> usize {
        let Some(passing) = &mut self.passing else { return 0 };
        let (taken, complete) = match passing.scanner.scan(data) {
            Ok(outcome) => outcome,
            Err(_) => {
                // Redis says what is wrong with a frame that is passed on, and closes.
                if !passing.forwarded {
                    self.closing = true;
                }
                (data.len(), false)
            }
        };
        if passing.forwarded
            && let Link::Open(upstream) = &mut self.link
        {
            upstream.requests.extend_from_slice(data.get(..taken).unwrap_or_default());
        }
        if complete {
            self.passing = None;
        }
        taken
    }
}
