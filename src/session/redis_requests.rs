//! Redis's commands: says who answers each, and has it answered.

use super::caller::{Caller, Flow};
use super::client::After;
use super::expect::says_login;
use super::hello::Hello;
use super::passthrough::{Passthrough, Reach};
use super::redis_commands::{Does, RedisCommand, RedisRequest};
use super::{local, login};
use crate::auth::Auth;
use crate::config::WhenDown;
use crate::limiter::mailbox::Refusal;
use crate::resp::reply;
use crate::resp::request::{Args, Limits, Parser};

/// What a command is answered that needs Redis, while it cannot be had. Client libraries take the code for that of a
/// server which will be there soon: they try again, or let their own callers do so as after a lost connection.
const OUTAGE: &str = "LOADING Redis cannot be reached: only RL commands are answered until it is back";
/// The same of a Redis that will not serve as all is set up.
const UNUSABLE: &str = "LOADING Redis cannot be used as it is set up: INFO tollgate says why (store_problem)";

/// Who answers a request.
enum Answerer {
    /// Tollgate.
    Here,
    /// Tollgate; and the client's connection to Redis is let go, so that what the client had there ends.
    HereAnew,
    /// Tollgate, as for who the client is; the rest of a HELLO is for Redis.
    HereFirst,
    /// Redis.
    Redis,
}

/// Carries out a request.
pub fn run(request: &RedisRequest<'_>, caller: &mut Caller, passthrough: &mut Passthrough) -> Flow {
    let answerer = who_answers(request, caller, passthrough);
    let awaits_redis = caller.replies.slots.await_upstream();
    match answerer {
        // A login before it, which only Redis knows, may choose the protocol.
        Answerer::Here if !caller.forwards() && caller.replies.slots.await_barrier() => Flow::Hold,
        Answerer::Here => run_here(request.args, caller, passthrough),
        Answerer::HereAnew | Answerer::HereFirst if awaits_redis => Flow::Hold,
        Answerer::HereAnew => {
            passthrough.leave();
            run_here(request.args, caller, passthrough)
        }
        Answerer::HereFirst if request.command.does == Does::Hello && passthrough.is_open() => {
            run_hello(request.args, caller, passthrough)
        }
        Answerer::HereFirst => run_here(request.args, caller, passthrough),
        Answerer::Redis => match passthrough.reach(caller) {
            Reach::Open => {
                // Where all that asks for ids is answered here, HELLO tells the one that is known here.
                caller.client.was_told_id |= !caller.forwards();
                passthrough.forward(caller, request)
            }
            Reach::Soon => Flow::Hold,
            Reach::Down if request.is_whole() && local::answers_without_redis(request.args) => {
                run_here(request.args, caller, passthrough)
            }
            Reach::Down => tell_outage(caller),
            Reach::Refused => Flow::Close,
        },
    }
}

/// Who answers a request. The first of these that is so decides.
fn who_answers(request: &RedisRequest<'_>, caller: &Caller, passthrough: &Passthrough) -> Answerer {
    let RedisRequest { command, args, .. } = request;
    let is_whole = request.is_whole();
    let says_login = || says_login(args);
    let is_kept_from_redis = || caller.client.is_confined() || (caller.client.permissions.is_none() && !says_login());
    let is_bad_hello = || command.does == Does::Hello && Hello::parse(args).is_err();
    let asks_nothing =
        || is_whole && (local::is_about_tollgate(args) || is_bad_hello()) && !passthrough.is_in_mode(caller);
    let is_handshake = || {
        let may_be = is_whole && passthrough.is_absent() && command.is_handshake(args.get(1).unwrap_or_default());
        may_be && !says_login()
    };

    if command.does == Does::Quit || caller.upstream().is_none() {
        Answerer::Here
    } else if command.does == Does::Reset && (is_for_tollgate(command, caller) || !caller.forwards()) {
        // Redis would take Tollgate's own login from the connection. Another one begins with it.
        Answerer::HereAnew
    } else if checks_logins(caller) && (command.does == Does::LogIn || says_login()) {
        // Logins are this process's business. Of a HELLO with one Redis is told the rest, now or once it is asked
        // anything.
        Answerer::HereFirst
    } else if !caller.forwards() {
        if says_login() { Answerer::Redis } else { Answerer::Here }
    } else if is_kept_from_redis() || asks_nothing() || is_handshake() {
        Answerer::Here
    } else {
        Answerer::Redis
    }
}

/// Whether a command is never for Redis, because of who its client is or because it says so.
pub fn is_for_tollgate(command: &RedisCommand, caller: &Caller) -> bool {
    let is_on_logins = matches!(command.does, Does::LogIn | Does::Hello | Does::Reset);
    caller.client.is_confined() || (checks_logins(caller) && is_on_logins)
}

/// Whether it is Tollgate, and not Redis, that says who may come in.
fn checks_logins(caller: &Caller) -> bool {
    matches!(caller.worker.shared.auth, Auth::Password(_))
}

/// Answers a command that needs Redis, which cannot be had.
pub fn tell_outage(caller: &mut Caller) -> Flow {
    let is_unusable = caller.upstream().is_some_and(|node| node.health.refusal() == Refusal::Unusable);
    match caller.worker.shared.config.upstream.when_down {
        WhenDown::Loading => {
            reply::error(caller.replies.tail(), if is_unusable { UNUSABLE } else { OUTAGE });
            Flow::Done
        }
        WhenDown::Close => Flow::Close,
    }
}

fn run_here(args: &Args<'_>, caller: &mut Caller, passthrough: &mut Passthrough) -> Flow {
    let Caller { worker, client, replies, .. } = caller;
    let after = local::run(worker, client, args, replies.tail());
    leave_what_is_not_allowed(caller, passthrough);
    match after {
        After::Stay => Flow::Done,
        After::Close => Flow::Close,
    }
}

/// HELLO with a login that is checked here, of which Redis is told the rest.
fn run_hello(args: &Args<'_>, caller: &mut Caller, passthrough: &mut Passthrough) -> Flow {
    let mut hello = match Hello::parse(args) {
        Ok(hello) => hello,
        Err(error) => {
            reply::error(caller.replies.tail(), &error.to_string());
            return Flow::Done;
        }
    };
    let login = hello.login.take().map(|login| login::log_in(&caller.worker, &mut caller.client, login));
    if let Some(Err(text)) = login {
        reply::error(caller.replies.tail(), text);
        return Flow::Done;
    }
    leave_what_is_not_allowed(caller, passthrough);
    let raw = hello.write_without_login();
    let mut parser = Parser::default();
    let Ok(Some(_)) = parser.parse(&raw, Limits::of_bulk(usize::MAX)) else { return Flow::Done };
    let args = parser.args(&raw);
    match passthrough.is_open() {
        true => {
            let request =
                RedisRequest { command: RedisCommand::of(args.name()), args: &args, count: parser.count(), raw: &raw };
            passthrough.forward(caller, &request)
        }
        false => run_here(&args, caller, passthrough),
    }
}

/// Lets go of a connection on which somebody who may has begun what the client, as who it is now, may not: MONITOR, a
/// subscription.
fn leave_what_is_not_allowed(caller: &Caller, passthrough: &mut Passthrough) {
    if caller.client.is_confined() {
        passthrough.leave();
    }
}
