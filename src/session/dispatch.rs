//! Finds who answers each request of a client: the limiter Tollgate's own, the client's connection to Redis the others,
//! and this process what needs neither.

use super::caller::{Caller, Flow};
use super::client::After;
use super::expect;
use super::own::OwnCommands;
use super::passthrough::{Admission, Passthrough, Reach};
use super::redis_commands::{Does, OTHER, RedisCommand, RedisRequest};
use super::redis_requests;
use super::transaction::Transaction;
use crate::auth;
use crate::command::{OwnCommand, OwnRequest};
use crate::resp::reply;
use crate::resp::request::{Args, Limits, Parser};
use tracing::warn;

/// Longest of Tollgate's own: a reset of many keys.
pub const MAX_OWN_BYTES: usize = 1024 * 1024;

/// What one client's requests are answered by.
#[derive(Default)]
pub struct Dispatcher {
    /// The client's own way to Redis.
    pub passthrough: Passthrough,
    own: OwnCommands,
    /// It has sent a command of Tollgate's own.
    sends_own: bool,
    /// It has sent one that counts in keys which its other commands may name.
    sends_throttles: bool,
    /// A transaction that Redis was not told of.
    transaction: Option<Transaction>,
}

impl Dispatcher {
    /// Whether a request can be passed on with no more thought: it has one reply and changes nothing, and so it is with
    /// all that is outstanding.
    pub fn is_plain(&self, caller: &Caller, args: &Args<'_>) -> bool {
        self.passthrough.takes_plain(caller)
            && self.transaction.is_none()
            && may_run_others(caller)
            && expect::is_plain(args)
            && (!caller.replies.slots.await_limiter() || self.may_pass(caller, args))
    }

    /// Passes on the plain requests that `data` begins with, of which the first takes `length` bytes. Says how many bytes
    /// they take together.
    pub fn forward_plain(&mut self, caller: &mut Caller, data: &[u8], length: usize, parser: &mut Parser) -> usize {
        // Who never sends any of Tollgate's own is not to pay for whether it might overtake.
        let may_overtake = self.sends_own && self.may_pass(caller, &parser.args(data));
        let limits = caller.limits();
        let (mut taken, mut count) = (length, 1);
        while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty())
            && let Ok(Some(length)) = parser.parse(rest, limits)
            && expect::is_plain(&parser.args(rest))
            && (!self.sends_own || self.may_pass(caller, &parser.args(rest)) == may_overtake)
        {
            taken += length;
            count += 1;
        }
        self.passthrough.forward_plain(caller, data.get(..taken).unwrap_or_default(), count, may_overtake);
        caller.worker.stats.commands.add(count);
        caller.worker.stats.forwarded.add(count);
        taken
    }

    /// Whether a plain command need not wait for Tollgate's own before it, nor those behind it for this one.
    fn may_pass(&self, caller: &Caller, args: &Args<'_>) -> bool {
        let redis = caller.worker.shared.backend.redis().filter(|_| !self.sends_throttles);
        redis.is_some_and(|redis| expect::is_independent(args, redis.store.prefix()))
    }

    /// Carries out a request that is whole. `raw` is the request as it came, and `behind` what came behind it.
    pub fn run(&mut self, caller: &mut Caller, args: &Args<'_>, raw: &[u8], behind: &[u8], now_us: u64) -> Flow {
        if args.is_empty() {
            self.passthrough.forward_empty(raw);
            return Flow::Done;
        }
        let own = OwnCommand::of(args.name());
        let command = if own.is_some() { &OTHER } else { RedisCommand::of(args.name()) };
        let request = RedisRequest { command, args, count: args.len(), raw };
        if let Some(flow) = self.refuse(caller, &request, now_us) {
            return flow;
        }
        let flow = match own {
            Some(command) => self.run_own(caller, &OwnRequest { command, args, raw }, now_us),
            None => self.run_other(caller, &request, behind, now_us),
        };
        caller.worker.stats.commands.add(u64::from(flow != Flow::Hold));
        flow
    }

    /// Refuses a command, whatever else it is: it is an HTTP request's, and the connection ends, or the client may not run
    /// it, and is told so.
    fn refuse(&mut self, caller: &mut Caller, request: &RedisRequest<'_>, now_us: u64) -> Option<Flow> {
        if request.command.does == Does::Http {
            if let Some(times) = caller.worker.shared.http_log.due(now_us) {
                let peer = &caller.client.peer;
                warn!(peer, times, "possible attack: a client speaks HTTP, as a web page that posts here; closed");
            }
            return Some(Flow::Close);
        }
        let text = auth::refusal(caller.client.permissions.as_deref(), request.args.name())?;
        self.break_transaction();
        reply::error(caller.replies.tail(), text);
        Some(Flow::Done)
    }

    fn run_own(&mut self, caller: &mut Caller, request: &OwnRequest<'_>, now_us: u64) -> Flow {
        if let Some(transaction) = &mut self.transaction {
            transaction.queue(request, &caller.worker.shared.config.limits, caller.replies.tail());
            return Flow::Done;
        }
        if self.own.must_wait(caller, request) {
            return Flow::Hold;
        }
        self.ask(caller, request, now_us)
    }

    fn ask(&mut self, caller: &mut Caller, request: &OwnRequest<'_>, now_us: u64) -> Flow {
        self.sends_own = true;
        self.sends_throttles |= request.command.counts_in_plain_keys();
        match self.passthrough.admit_own(caller, request) {
            Admission::Run { muted } => {
                self.own.run(caller, request, now_us, muted);
                Flow::Done
            }
            Admission::Hold => Flow::Hold,
            Admission::Taken => Flow::Done,
        }
    }

    fn run_other(&mut self, caller: &mut Caller, request: &RedisRequest<'_>, behind: &[u8], now_us: u64) -> Flow {
        let taken = match self.transaction {
            Some(_) => self.run_in_transaction(caller, request, now_us),
            None => self.begin_transaction(caller, request, behind),
        };
        taken.unwrap_or_else(|| redis_requests::run(request, caller, &mut self.passthrough))
    }

    /// If the request begins a transaction that may turn out to be Tollgate's, holds it back.
    fn begin_transaction(&mut self, caller: &mut Caller, request: &RedisRequest<'_>, behind: &[u8]) -> Option<Flow> {
        if request.command.does != Does::Multi || request.args.len() != 1 {
            return None;
        }
        match self.passthrough.may_hold_multi(caller) {
            None => return Some(Flow::Hold),
            Some(false) => return None,
            Some(true) => {}
        }
        if may_run_others(caller) && begins_with_other(behind, caller.limits()) {
            return None;
        }
        self.transaction = Some(Transaction::new(request.raw));
        reply::status(caller.replies.tail(), "OK");
        Some(Flow::Done)
    }

    /// Carries out a request that stands in a transaction which is held back. `None` when it is to be carried out as any
    /// other: it ends the transaction, or Redis was told of that.
    fn run_in_transaction(&mut self, caller: &mut Caller, request: &RedisRequest<'_>, now_us: u64) -> Option<Flow> {
        match (request.command.does, request.args.len()) {
            (Does::Exec, 1) if caller.replies.slots.await_upstream() || self.own.await_long(caller) => {
                return Some(Flow::Hold);
            }
            (Does::Exec, 1) => self.execute(caller, now_us),
            (Does::Discard, 1) => {
                self.transaction = None;
                reply::status(caller.replies.tail(), "OK");
            }
            (Does::Multi, 1) => reply::error(caller.replies.tail(), "ERR MULTI calls can not be nested"),
            (Does::Watch, 2..) => reply::error(caller.replies.tail(), "ERR WATCH inside MULTI is not allowed"),
            (Does::Quit, _) => return None,
            (Does::Reset, 1) => {
                self.transaction = None;
                return None;
            }
            _ => return self.leave_transaction(caller, &request.args.name().to_ascii_lowercase()),
        }
        Some(Flow::Done)
    }

    /// A request that is not Tollgate's own stands in a transaction that is held back. `None` once Redis was told of it,
    /// so that the request can follow.
    fn leave_transaction(&mut self, caller: &mut Caller, name: &[u8]) -> Option<Flow> {
        let transaction = self.transaction.as_mut()?;
        if transaction.is_broken() {
            // As in Redis, where EXEC tells.
            reply::status(caller.replies.tail(), "QUEUED");
            return Some(Flow::Done);
        }
        if !transaction.is_empty() || !may_run_others(caller) {
            transaction.refuse_other(name, caller.replies.tail());
            return Some(Flow::Done);
        }
        match self.passthrough.reach(caller) {
            // It must not overtake what was decided here.
            Reach::Open if caller.replies.slots.await_limiter() => Some(Flow::Hold),
            Reach::Open => {
                let transaction = self.transaction.take()?;
                self.passthrough.forward_held_multi(caller, transaction.multi());
                None
            }
            Reach::Soon => Some(Flow::Hold),
            Reach::Down => {
                transaction.break_up();
                Some(redis_requests::tell_outage(caller))
            }
            Reach::Refused => Some(Flow::Close),
        }
    }

    fn break_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.break_up();
        }
    }

    /// Asks all at once: they go to Redis in one batch, as far as one may hold them.
    fn execute(&mut self, caller: &mut Caller, now_us: u64) {
        let Some(transaction) = self.transaction.take() else { return };
        let queued = transaction.execute(caller.replies.tail());
        let mut parser = Parser::default();
        let mut rest = &*queued;
        while let Ok(Some(length)) = parser.parse(rest, caller.limits())
            && let Some((raw, behind)) = rest.split_at_checked(length)
        {
            let args = parser.args(raw);
            if let Some(command) = OwnCommand::of(args.name()) {
                self.ask(caller, &OwnRequest { command, args: &args, raw }, now_us);
            }
            rest = behind;
        }
    }

    /// A request of which so many bytes have come, and which is too long to be kept until it is whole: from here on it is
    /// streamed to Redis, or discarded. `None` if it is to be kept all the same, because it may not go to Redis.
    pub fn begin_oversized(
        &mut self,
        caller: &mut Caller,
        args: &Args<'_>,
        count: usize,
        length: usize,
        now_us: u64,
    ) -> Option<Flow> {
        let request = RedisRequest { command: RedisCommand::of(args.name()), args, count, raw: b"" };
        let flow = match self.refuse(caller, &request, now_us) {
            Some(flow) => flow,
            None if self.may_stream(caller, &request) => match self.leave_transaction(caller, args.name()) {
                Some(flow) => flow,
                None => {
                    let flow = redis_requests::run(&request, caller, &mut self.passthrough);
                    if flow == Flow::Done {
                        self.passthrough.begin_oversized(self.passthrough.is_open());
                    }
                    return Some(flow);
                }
            },
            None if length < MAX_OWN_BYTES => return None,
            None => {
                reply::error(caller.replies.tail(), "ERR the command is too long");
                Flow::Done
            }
        };
        if flow == Flow::Done {
            self.passthrough.begin_oversized(false);
        }
        Some(flow)
    }

    /// Whether a request can go to Redis as it comes. What may say who its client is is read whole, or not at all.
    fn may_stream(&self, caller: &Caller, request: &RedisRequest<'_>) -> bool {
        let is_ours =
            OwnCommand::of(request.args.name()).is_some() || matches!(request.command.does, Does::LogIn | Does::Hello);
        !is_ours && self.passthrough.may_reach(caller) && !redis_requests::is_for_tollgate(request.command, caller)
    }

    /// Whether the next bytes are those of such a request.
    pub fn has_oversized(&self) -> bool {
        self.passthrough.has_oversized()
    }

    /// Takes what of `data` belongs to a request that is too long to be kept. Says how much that was, and whether the
    /// connection ends.
    pub fn take_oversized(&mut self, data: &[u8]) -> (usize, After) {
        self.passthrough.take_oversized(data)
    }
}

/// Whether commands of this client's other than Tollgate's own go to Redis.
fn may_run_others(caller: &Caller) -> bool {
    caller.forwards() && caller.client.may_run_all()
}

/// Whether `data` begins with a whole request that is none of Tollgate's own.
fn begins_with_other(data: &[u8], limits: Limits) -> bool {
    let mut parser = Parser::default();
    matches!(parser.parse(data, limits), Ok(Some(_))) && OwnCommand::of(parser.args(data).name()).is_none()
}
