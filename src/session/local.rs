//! Redis's commands that Tollgate answers itself: a client's handshake, and what can be said without a Redis. The
//! wording is Redis's, because clients match on it.

mod client;
mod cluster;
mod command;
mod config;
mod known;
mod server;

use super::client::{After, Client};
use super::hello::{Hello, Login};
use super::login;
use crate::auth::{ANSWERED_HERE, NO_AUTH_HELLO};
use crate::resp::reply::{self, Protocol};
use crate::resp::request::Args;
use crate::worker::Worker;
use crate::{info, resp};
use bytes::BytesMut;

/// Answers a command that is not Tollgate's own.
pub fn run(worker: &Worker, client: &mut Client, args: &Args<'_>, out: &mut BytesMut) -> After {
    let known = match known::find(args, worker.shared.backend.is_cluster()) {
        Ok(known) => known,
        Err(text) => {
            reply::error_bytes(out, &text);
            return After::Stay;
        }
    };
    let mut after = After::Stay;
    match (known.name, known.sub) {
        ("ping", _) => ping(args, out),
        ("echo", _) => reply::bulk(out, args.get(1).unwrap_or_default()),
        ("hello", _) => hello(worker, client, args, out),
        ("auth", _) => auth(worker, client, args, out),
        ("select", _) => select(worker, client, args, out),
        ("info", _) => reply::verbatim(out, info::render(&worker.shared, args.from(1)).as_bytes(), client.protocol),
        ("reset", _) => {
            client.reset();
            reply::status(out, "RESET");
        }
        ("quit", _) => {
            reply::status(out, "OK");
            after = After::Close;
        }
        // They end a transaction, and there is none. A MULTI that is one does not come here.
        ("multi" | "exec" | "discard", _) => {
            reply::error(out, &format!("ERR {} without MULTI", known.name.to_uppercase()));
        }
        (name, "help") => known::help(name, out),
        ("client", sub) => client::run(sub, worker, client, args, out),
        ("command", sub) => command::run(sub, client.protocol, args, out),
        ("config", sub) => config::run(sub, &worker.shared, client.protocol, args, out),
        ("cluster" | "readonly" | "readwrite" | "asking", sub) => cluster::run(sub, worker, client, args, out),
        (name, sub) => server::run(name, sub, worker, client, args, out),
    }
    if matches!(known.name, "hello" | "auth" | "select" | "reset" | "client") {
        worker.shared.client_list.note(client.id, client.said());
    }
    after
}

/// Whether [`run`] has an answer to a command that does not tell of a missing Redis.
pub fn answers_without_redis(args: &Args<'_>) -> bool {
    ANSWERED_HERE.iter().any(|name| args.name().eq_ignore_ascii_case(name))
}

/// Whether a command asks for nothing that Redis knows.
pub fn is_about_tollgate(args: &Args<'_>) -> bool {
    let mut sections = args.from(1);
    args.len() > 1
        && args.name().eq_ignore_ascii_case(b"info")
        && sections.all(|section| section.eq_ignore_ascii_case(b"tollgate"))
}

fn ping(args: &Args<'_>, out: &mut BytesMut) {
    match args.get(1) {
        _ if args.len() > 2 => reply::error(out, "ERR wrong number of arguments for 'ping' command"),
        Some(message) => reply::bulk(out, message),
        None => reply::status(out, "PONG"),
    }
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`
fn hello(worker: &Worker, client: &mut Client, args: &Args<'_>, out: &mut BytesMut) {
    let mut hello = match Hello::parse(args) {
        Ok(hello) => hello,
        Err(error) => return reply::error(out, &error.to_string()),
    };
    if let Some(Err(text)) = hello.login.take().map(|login| login::log_in(worker, client, login)) {
        return reply::error(out, text);
    }
    if client.permissions.is_none() {
        return reply::error(out, NO_AUTH_HELLO);
    }
    client.said_hello(hello);
    let protocol = client.protocol;
    reply::map(out, 7, protocol);
    reply::bulk(out, b"server");
    reply::bulk(out, b"redis");
    reply::bulk(out, b"version");
    reply::bulk(out, info::redis_version(&worker.shared).as_bytes());
    reply::bulk(out, b"proto");
    reply::integer(out, if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply::bulk(out, b"id");
    reply::integer(out, client.tell_id());
    reply::bulk(out, b"mode");
    reply::bulk(out, info::redis_mode(&worker.shared).as_bytes());
    reply::bulk(out, b"role");
    reply::bulk(out, b"master");
    reply::bulk(out, b"modules");
    reply::array(out, 0);
}

fn auth(worker: &Worker, client: &mut Client, args: &Args<'_>, out: &mut BytesMut) {
    match Login::of_auth(args).map(|login| login::log_in(worker, client, login)) {
        Some(Ok(())) => reply::status(out, "OK"),
        Some(Err(text)) => reply::error(out, text),
        None => reply::error(out, "ERR syntax error"),
    }
}

fn select(worker: &Worker, client: &mut Client, args: &Args<'_>, out: &mut BytesMut) {
    let backend = &worker.shared.backend;
    match args.get(1).and_then(resp::parse_int) {
        None => reply::error(out, "ERR value is not an integer or out of range"),
        Some(number) => match u32::try_from(number) {
            Ok(number) if number == 0 || backend.forwards() => {
                client.database = Some(number);
                reply::status(out, "OK");
            }
            _ if backend.is_cluster() => reply::error(out, "ERR SELECT is not allowed in cluster mode"),
            _ => reply::error(out, "ERR DB index is out of range"),
        },
    }
}
