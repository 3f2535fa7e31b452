//! The session's other half: what is not Tollgate's own goes to Redis and comes back, bytes as they are.

use super::expect::{self, Change, Effect, Expect, Route, says_login};
use super::hello::Hello;
use super::link::{Link, Reach};
use super::redis_commands::{Does, RedisCommand};
use super::upstream::Replies;
use super::{Flow, Session, local, login};
use crate::auth::Auth;
use crate::command::OwnCommand;
use crate::config::{Commands, WhenDown};
use crate::limiter::mailbox::Refusal;
use crate::limiter::node::Node;
use crate::resp::reply;
use crate::resp::request::{Args, Limits, Parser};
use tokio::time::sleep;

/// What a command is answered that needs Redis, while it cannot be had. Client libraries take the code for that of a
/// server which will be there soon: they try again, or let their own callers do so as after a lost connection.
const OUTAGE: &str = "LOADING Redis cannot be reached: only RL commands are answered until it is back";
/// The same of a Redis that will not serve as all is set up.
const UNUSABLE: &str = "LOADING Redis cannot be used as it is set up: INFO tollgate says why (store_problem)";

impl Session {
    /// Carries out a command that is not Tollgate's own. `raw` is the request as it came, and `count` the number of its
    /// arguments, which have not all come yet unless it `is_whole`.
    pub(super) fn run_other(&mut self, args: &Args<'_>, count: usize, raw: &[u8], is_whole: bool) -> Flow {
        let command = RedisCommand::of(args.name());
        if command.does == Does::Quit {
            return self.run_local(args);
        }
        // Not a clone of what threads share, whose count they would contend for at every command.
        let worker = self.worker.clone();
        let shared = &worker.shared;
        if shared.backend.is_embedded() {
            return self.run_local(args);
        }
        if self.is_answered_here(command) && command.does == Does::Reset {
            if self.slots.await_upstream() {
                return Flow::Hold;
            }
            // Redis would take Tollgate's own login from the connection. Another one begins with it.
            self.link = Link::Absent;
            return self.run_local(args);
        }
        let is_auth = command.does == Does::LogIn;
        match &shared.auth {
            // Logins are this process's business. Of a HELLO with one Redis is told the rest, now or once it is asked
            // anything.
            Auth::Password(_) if is_auth || says_login(args) => {
                if self.slots.await_upstream() {
                    return Flow::Hold;
                }
                let is_told = !is_auth && matches!(self.link, Link::Open(_));
                return if is_told { self.run_hello(args) } else { self.run_local(args) };
            }
            _ if self.client.permissions.as_ref().is_some_and(|may| may.commands == Commands::RlOnly) => {
                return self.run_local(args);
            }
            _ if self.client.permissions.is_none() && !says_login(args) => {
                return self.run_local(args);
            }
            _ => {}
        }
        let is_bad_hello = || command.does == Does::Hello && Hello::parse(args).is_err();
        if is_whole && (local::is_about_tollgate(args) || is_bad_hello()) && !self.is_in_mode() {
            return self.run_local(args);
        }
        if matches!(self.link, Link::Absent) && is_whole && is_handshake(command, args) {
            return self.run_local(args);
        }
        match self.reach() {
            Reach::Open => self.forward(command, args, count, raw),
            Reach::Soon => Flow::Hold,
            Reach::Down if is_whole && local::answers_without_redis(args) => self.run_local(args),
            Reach::Down => {
                self.tell_outage();
                Flow::Done
            }
            Reach::Refused => Flow::Done,
        }
    }

    /// Answers a command that needs Redis, which cannot be had.
    pub(super) fn tell_outage(&mut self) {
        let is_unusable = |node: &Node| node.health.refusal() == Refusal::Unusable;
        let text = if self.worker.shared.backend.upstream().is_some_and(is_unusable) { UNUSABLE } else { OUTAGE };
        match self.worker.shared.config.upstream.when_down {
            WhenDown::Loading => reply::error(self.replies(), text),
            WhenDown::Close => self.closing = true,
        }
    }

    /// Whether a command is not for Redis, because of who its client is or because it says so.
    pub(super) fn is_answered_here(&self, command: &RedisCommand) -> bool {
        let only_rl = self.client.permissions.as_ref().is_some_and(|may| may.commands == Commands::RlOnly);
        let checks_logins = matches!(self.worker.shared.auth, Auth::Password(_));
        only_rl || (checks_logins && matches!(command.does, Does::LogIn | Does::Hello | Does::Reset))
    }

    /// Whether, at Redis, a command would not simply be carried out and answered, or that is not known yet.
    fn is_in_mode(&self) -> bool {
        let Link::Open(upstream) = &self.link else { return false };
        upstream.in_multi
            || upstream.replicating
            || upstream.replies != Replies::On
            || upstream.is_subscriber(self.client.protocol)
            || self.slots.await_turning_point()
            || (self.alone && self.slots.await_upstream())
    }

    /// Whether a transaction that begins now may be held back until it is known what it holds. `None` if an earlier
    /// reply decides that.
    pub(super) fn may_hold_multi(&self) -> Option<bool> {
        let Link::Open(upstream) = &self.link else { return Some(true) };
        (!self.slots.await_turning_point()).then(|| upstream.is_plain(self.client.protocol))
    }

    /// Tells Redis of a transaction that was held back.
    pub(super) fn forward_held_multi(&mut self, raw: &[u8]) {
        if let Link::Open(upstream) = &mut self.link {
            upstream.requests.extend_from_slice(raw);
            self.slots.push_upstream(Expect::HeldMulti);
        }
    }

    /// HELLO with a login that is checked here: Redis is told the rest of it.
    fn run_hello(&mut self, args: &Args<'_>) -> Flow {
        let worker = self.worker.clone();
        let mut hello = match Hello::parse(args) {
            Ok(hello) => hello,
            Err(error) => {
                reply::error(self.replies(), &error.to_string());
                return Flow::Done;
            }
        };
        let login = hello.login.take().map(|login| login::log_in(&worker, &mut self.client, login));
        if let Some(Err(text)) = login {
            reply::error(self.replies(), text);
            return Flow::Done;
        }
        self.leave_what_is_not_allowed();
        let raw = hello.write_without_login();
        let mut parser = Parser::default();
        match (parser.parse(&raw, Limits::of_bulk(usize::MAX)), &self.link) {
            (Ok(Some(_)), Link::Open(_)) => {
                let args = parser.args(&raw);
                self.forward(RedisCommand::of(args.name()), &args, parser.count(), &raw)
            }
            (Ok(Some(_)), _) => self.run_local(&parser.args(&raw)),
            _ => Flow::Done,
        }
    }

    /// Lets go of a connection on which somebody who may has begun what the client, as who it is now, may not: MONITOR, a
    /// subscription.
    fn leave_what_is_not_allowed(&mut self) {
        if self.client.permissions.is_some() && !self.client.may_run_all() {
            self.link = Link::Absent;
        }
    }

    fn run_local(&mut self, args: &Args<'_>) -> Flow {
        let worker = self.worker.clone();
        let output = if self.slots.is_empty() { &mut self.output } else { self.slots.ready() };
        self.closing |= local::run(&worker, &mut self.client, args, output) == local::After::Close;
        self.leave_what_is_not_allowed();
        Flow::Done
    }

    fn forward(&mut self, command: &RedisCommand, args: &Args<'_>, count: usize, raw: &[u8]) -> Flow {
        let Link::Open(upstream) = &mut self.link else { return Flow::Hold };
        if (self.alone && self.slots.await_upstream()) || self.slots.await_limiter() {
            return Flow::Hold;
        }
        if upstream.replicating {
            upstream.requests.extend_from_slice(raw);
            return Flow::Done;
        }
        let Route { mut expect, mut effect, alone } = Route::of(command, args, count);
        if alone && self.slots.await_upstream() {
            return Flow::Hold;
        }
        if effect.is_some_and(Effect::is_on_replies) {
            if self.slots.await_turning_point() {
                return Flow::Hold;
            }
            // Redis queues it, or refuses it, and answers.
            effect = effect.filter(|_| !upstream.in_multi && !upstream.is_subscriber(self.client.protocol));
        }
        self.alone = alone;
        // Any other command may take as long as it takes. Who only wants to come in is not to wait for a Redis that hangs.
        self.login_due = alone.then(|| Box::pin(sleep(self.worker.shared.config.upstream.connect_timeout)));
        self.worker.stats.forwarded.add(1);
        let in_redis_ids = match &mut expect {
            Expect::Ids(ids) => ids.translate(args, &self.worker.shared.client_list),
            _ => None,
        };
        upstream.requests.extend_from_slice(in_redis_ids.as_deref().unwrap_or(raw));
        let replies = upstream.next_replies();
        if let Some(effect) = effect {
            upstream.note(effect);
        }
        let muted = match effect {
            // CLIENT REPLY OFF and SKIP have no reply themselves; ON has one whatever was before.
            Some(Effect::ReplyOn) => false,
            Some(Effect::ReplyOff | Effect::ReplySkip) => true,
            // What comes from here on passes as it comes.
            Some(Effect::Replicate) => true,
            Some(Effect::Reset) => replies == Replies::Skip,
            _ => replies != Replies::On && (upstream.in_multi || !expect.is_confirmation()),
        };
        if muted {
            self.take_for_granted(expect);
        } else {
            self.slots.push_upstream(expect);
        }
        Flow::Done
    }

    /// Whether a request can be passed on with no more thought: it has one reply and changes nothing, and so it is with
    /// all that is outstanding.
    pub(super) fn is_plain(&self, args: &Args<'_>) -> bool {
        let Link::Open(upstream) = &self.link else { return false };
        upstream.replies == Replies::On
            && !upstream.replicating
            && !self.alone
            && self.transaction.is_none()
            && self.client.permissions.as_ref().is_some_and(|may| may.commands == Commands::All)
            && expect::is_plain(args)
            && (!self.slots.await_limiter() || self.is_independent(args))
    }

    /// Whether a plain command need not wait for Tollgate's own before it, nor those behind it for this one.
    fn is_independent(&self, args: &Args<'_>) -> bool {
        let redis = self.worker.shared.backend.redis();
        redis.is_some_and(|redis| expect::is_independent(args, redis.store.prefix()))
    }

    /// Passes on the plain requests that `data` begins with, of which the first takes `length` bytes. Says how many bytes
    /// they take together.
    pub(super) fn forward_plain(&mut self, data: &[u8], length: usize, parser: &mut Parser) -> usize {
        // Who never sends any of Tollgate's own is not to pay for whether it might overtake.
        let may_overtake = self.sends_own && self.is_independent(&parser.args(data));
        let (mut taken, mut count) = (length, 1);
        while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty())
            && let Ok(Some(length)) = parser.parse(rest, self.limits())
            && expect::is_plain(&parser.args(rest))
            && (!self.sends_own || self.is_independent(&parser.args(rest)) == may_overtake)
        {
            taken += length;
            count += 1;
        }
        if let Link::Open(upstream) = &mut self.link {
            upstream.requests.extend_from_slice(data.get(..taken).unwrap_or_default());
            match may_overtake {
                true => self.slots.push_independent(Expect::Replies(count)),
                false => self.slots.push_upstream(Expect::Replies(count)),
            }
            self.worker.stats.commands.add(count);
            self.worker.stats.forwarded.add(count);
        }
        taken
    }

    /// A request without a word has no reply, but it is the one that CLIENT REPLY SKIP silences, and a replica's sign of
    /// life.
    pub(super) fn forward_empty(&mut self, raw: &[u8]) {
        if let Link::Open(upstream) = &mut self.link {
            upstream.next_replies();
            upstream.requests.extend_from_slice(raw);
        }
    }

    /// No reply will tell, so the command is taken to succeed.
    fn take_for_granted(&mut self, expect: Expect) {
        let Link::Open(upstream) = &mut self.link else { return };
        match expect {
            Expect::Change(change)
                if !matches!(*change, Change::Reset) && upstream.is_subscriber(self.client.protocol) => {}
            Expect::Multi => upstream.in_multi = true,
            Expect::EndMulti => upstream.in_multi = false,
            Expect::Change(change) => {
                if matches!(*change, Change::Reset) {
                    upstream.reset();
                }
                change.apply(&mut self.client);
            }
            _ => {}
        }
    }

    /// Whether one of Tollgate's own commands can run here and now, on the state of the connection to Redis. It takes
    /// effect where it stands among the client's commands, so it waits for those before it that could tell.
    pub(super) fn admit_own(&mut self, command: &'static OwnCommand, raw: &[u8]) -> Admission {
        self.sends_own = true;
        let Link::Open(upstream) = &mut self.link else { return Admission::Run { muted: false } };
        if self.slots.await_ordered() {
            return Admission::Hold;
        }
        let replies = upstream.next_replies();
        let muted = replies != Replies::On;
        if upstream.in_multi {
            // Redis does not know the command, and so marks the transaction as one that must not be executed.
            upstream.requests.extend_from_slice(raw);
            if !muted {
                self.slots.push_upstream(Expect::RefusedInMulti(command));
            }
            return Admission::Taken;
        }
        if replies == Replies::Skip {
            // At Redis, too, the command that gets no reply must have been this one.
            upstream.requests.extend_from_slice(b"PING\r\n");
        }
        if upstream.is_subscriber(self.client.protocol) {
            let name = command.name;
            let text = format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
                 in this context"
            );
            if !muted {
                reply::error(self.replies(), &text);
            }
            return Admission::Taken;
        }
        Admission::Run { muted }
    }
}

/// Whether a client may say this before it has a connection to Redis, and Tollgate answers.
fn is_handshake(command: &RedisCommand, args: &Args<'_>) -> bool {
    let says_login = command.does == Does::Hello && says_login(args);
    command.is_handshake(args.get(1).unwrap_or_default()) && !says_login
}

/// Whether a command of Tollgate's own may run.
pub enum Admission {
    /// It may; if `muted`, without a reply.
    Run {
        /// CLIENT REPLY is off.
        muted: bool,
    },
    /// Not before an earlier reply has come.
    Hold,
    /// It was answered.
    Taken,
}
