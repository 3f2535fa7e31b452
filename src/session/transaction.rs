//! Transactions of Tollgate's own commands. Client libraries wrap pipelines in MULTI and EXEC of their own accord, and
//! Redis knows none of the commands in there: so MULTI is held back until it is known what follows.
//!
//! ```text
//! MULTI ──► +OK, held ──► RL.CHECK ──► +QUEUED ──► EXEC ──► an array, decided here
//!                    └──► any other: MULTI goes to Redis before it, and the transaction is Redis's
//! ```

use super::link::Reach;
use super::{Flow, Session};
use crate::command::{OwnCommand, quoted};
use crate::resp::reply;
use crate::resp::request::{Args, Limits, Parser};
use bytes::BytesMut;

/// Longest transaction that is held, in bytes of its commands.
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// A transaction that Redis has not been told of.
#[derive(Debug, Default)]
pub struct Transaction {
    /// MULTI, as it came.
    multi: BytesMut,
    /// The commands in it, as they came.
    queued: BytesMut,
    /// How many.
    count: usize,
    /// One of them was refused, so that none will be carried out.
    broken: bool,
}

/// What is said of one of Tollgate's own commands in a transaction that is Redis's.
pub fn refused_in_multi(command: &OwnCommand) -> String {
    format!(
        "ERR '{}' cannot run inside MULTI with other commands: send it outside of the transaction, or in one that holds \
         RL commands alone",
        command.name
    )
}

impl Session {
    /// If the request begins a transaction that may turn out to be Tollgate's, holds it back. `behind` is what came
    /// behind it.
    pub(super) fn begin_transaction(&mut self, args: &Args<'_>, raw: &[u8], behind: &[u8]) -> Option<Flow> {
        if args.len() != 1 || !args.name().eq_ignore_ascii_case(b"multi") || self.transaction.is_some() {
            return None;
        }
        match self.may_hold_multi() {
            None => return Some(Flow::Hold),
            Some(false) => return None,
            Some(true) => {}
        }
        if self.may_run_others() && begins_with_other(behind, self.limits()) {
            return None;
        }
        self.transaction = Some(Transaction { multi: raw.into(), ..Transaction::default() });
        reply::status(self.replies(), "OK");
        Some(Flow::Done)
    }

    /// Whether commands other than Tollgate's own can be in a transaction of this client's.
    fn may_run_others(&self) -> bool {
        !self.worker.shared.backend.is_embedded() && self.client.may_run_all()
    }

    /// Carries out a request that stands in a transaction which is held back. `None` when it is to be carried out as any
    /// other: it ends the transaction, or Redis was told of that.
    pub(super) fn run_in_transaction(&mut self, args: &Args<'_>, raw: &[u8], now_us: u64) -> Option<Flow> {
        self.transaction.as_ref()?;
        let name = args.name().to_ascii_lowercase();
        match (name.as_slice(), args.len(), OwnCommand::of(&name)) {
            (_, _, Some(command)) => self.queue(command, args, raw),
            (b"exec", 1, _) if self.slots.await_upstream() || self.awaits_reset() => return Some(Flow::Hold),
            (b"exec", 1, _) => self.execute(now_us),
            (b"discard", 1, _) => {
                self.transaction = None;
                reply::status(self.replies(), "OK");
            }
            (b"multi", 1, _) => reply::error(self.replies(), "ERR MULTI calls can not be nested"),
            (b"watch", 2.., _) => reply::error(self.replies(), "ERR WATCH inside MULTI is not allowed"),
            (b"quit", ..) => return None,
            (b"reset", 1, _) => {
                self.transaction = None;
                return None;
            }
            _ => return self.leave_transaction(&name),
        }
        Some(Flow::Done)
    }

    /// A request that is not Tollgate's own stands in a transaction that is held back. `None` once Redis was told of it,
    /// so that the request can follow.
    pub(super) fn leave_transaction(&mut self, name: &[u8]) -> Option<Flow> {
        let transaction = self.transaction.as_ref()?;
        if transaction.broken {
            // As in Redis, where EXEC tells.
            reply::status(self.replies(), "QUEUED");
            return Some(Flow::Done);
        }
        if transaction.count > 0 || !self.may_run_others() {
            let name = quoted(name);
            let text = format!("ERR '{name}' cannot run in a transaction of RL commands: send it outside of that");
            self.refuse_queued(&text);
            return Some(Flow::Done);
        }
        match self.reach() {
            // It must not overtake what was decided here.
            Reach::Open if self.slots.await_limiter() => Some(Flow::Hold),
            Reach::Open => {
                let transaction = self.transaction.take()?;
                self.forward_held_multi(&transaction.multi);
                None
            }
            Reach::Soon => Some(Flow::Hold),
            Reach::Down => {
                self.tell_outage();
                self.break_transaction();
                Some(Flow::Done)
            }
            Reach::Refused => Some(Flow::Done),
        }
    }

    /// A command of the transaction was refused: EXEC will fail.
    pub(super) fn break_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.broken = true;
            transaction.queued = BytesMut::new();
        }
    }

    fn refuse_queued(&mut self, text: &str) {
        self.break_transaction();
        reply::error(self.replies(), text);
    }

    fn queue(&mut self, command: &OwnCommand, args: &Args<'_>, raw: &[u8]) {
        // What is wrong is said when the command is queued, as Redis does.
        if let Err(error) = (command.parse)(args, &self.worker.shared.config.limits) {
            return self.refuse_queued(&error.to_string());
        }
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.queued.len() + raw.len() > MAX_HELD_BYTES {
            return self.refuse_queued("ERR the transaction is too long");
        }
        if !transaction.broken {
            transaction.queued.extend_from_slice(raw);
        }
        transaction.count += 1;
        reply::status(self.replies(), "QUEUED");
    }

    /// Asks all at once: they go to Redis in one batch, as far as one may hold them.
    fn execute(&mut self, now_us: u64) {
        let Some(Transaction { queued, count, broken, .. }) = self.transaction.take() else { return };
        if broken {
            return reply::error(self.replies(), "EXECABORT Transaction discarded because of previous errors.");
        }
        reply::array(self.replies(), count);
        let mut parser = Parser::default();
        let mut rest = &*queued;
        while let Ok(Some(length)) = parser.parse(rest, self.limits())
            && let Some((raw, behind)) = rest.split_at_checked(length)
        {
            let args = parser.args(raw);
            if let Some(command) = OwnCommand::of(args.name()) {
                self.run_own(command, &args, raw, now_us);
            }
            rest = behind;
        }
    }
}

/// Whether `data` begins with a whole request that is none of Tollgate's own.
fn begins_with_other(data: &[u8], limits: Limits) -> bool {
    let mut parser = Parser::default();
    matches!(parser.parse(data, limits), Ok(Some(_))) && OwnCommand::of(parser.args(data).name()).is_none()
}
