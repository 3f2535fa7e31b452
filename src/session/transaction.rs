//! Transactions of Tollgate's own commands. Client libraries wrap pipelines in MULTI and EXEC of their own accord, and
//! Redis knows none of the commands in there: so MULTI is held back until it is known what follows.
//!
//! ```text
//! MULTI ──► +OK, held ──► RL.CHECK ──► +QUEUED ──► EXEC ──► an array, decided here
//!                    └──► any other: MULTI goes to Redis before it, and the transaction is Redis's
//! ```

use crate::command::{OwnRequest, quoted};
use crate::config;
use crate::resp::reply;
use bytes::BytesMut;

/// Longest transaction that is held, in bytes of its commands.
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// A transaction that Redis has not been told of.
#[derive(Debug)]
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

impl Transaction {
    /// One that begins with this MULTI.
    pub fn new(multi: &[u8]) -> Self {
        Self { multi: multi.into(), queued: BytesMut::new(), count: 0, broken: false }
    }

    /// MULTI, as it came.
    pub fn multi(&self) -> &[u8] {
        &self.multi
    }

    /// Whether it holds nothing yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether none of its commands will be carried out.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Queues a command, or refuses it, and replies so.
    pub fn queue(&mut self, request: &OwnRequest<'_>, limits: &config::Limits, output: &mut BytesMut) {
        if !request.command.runs_in_multi() {
            return self.refuse(&format!("ERR '{}' cannot run inside MULTI", request.command.name), output);
        }
        // What is wrong is said when the command is queued, as Redis does.
        if let Err(error) = request.parse(limits) {
            return self.refuse(&error.to_string(), output);
        }
        if self.queued.len() + request.raw.len() > MAX_HELD_BYTES {
            return self.refuse("ERR the transaction is too long", output);
        }
        if !self.broken {
            self.queued.extend_from_slice(request.raw);
        }
        self.count += 1;
        reply::status(output, "QUEUED");
    }

    /// Refuses a command that is not Tollgate's own.
    pub fn refuse_other(&mut self, name: &[u8], output: &mut BytesMut) {
        let name = quoted(name);
        let text = format!("ERR '{name}' cannot run in a transaction of RL commands: send it outside of that");
        self.refuse(&text, output);
    }

    /// A command was refused: EXEC will fail.
    pub fn break_up(&mut self) {
        self.broken = true;
        self.queued = BytesMut::new();
    }

    fn refuse(&mut self, text: &str, output: &mut BytesMut) {
        self.break_up();
        reply::error(output, text);
    }

    /// Begins the reply to EXEC. The commands to carry out, as they came.
    pub fn execute(self, output: &mut BytesMut) -> BytesMut {
        match self.broken {
            true => reply::error(output, "EXECABORT Transaction discarded because of previous errors."),
            false => reply::array(output, self.count),
        }
        self.queued
    }
}
