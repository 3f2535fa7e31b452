//! Redis's commands that Tollgate answers itself: a client's handshake, and what can be said without a Redis. The
//! wording is Redis's, because clients match on it.

use super::client::Client;
use super::hello::{BAD_NAME, Hello, Login, is_client_name};
use super::login;
use crate::auth::{ANSWERED_HERE, NO_AUTH_HELLO};
use crate::command::docs::{self, DOCS};
use crate::command::quoted;
use crate::limiter::Limiter;
use crate::resp::reply::{self, Protocol};
use crate::resp::request::Args;
use crate::worker::Worker;
use crate::{info, resp};
use bytes::BytesMut;

/// What becomes of the connection after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Stay,
    /// It closes once its replies are written.
    Close,
}

/// Answers a command that is not Tollgate's own.
pub fn run(worker: &Worker, client: &mut Client, args: &Args<'_>, out: &mut BytesMut) -> After {
    let mut after = After::Stay;
    let name = args.name().to_ascii_lowercase();
    let count = args.len();
    match name.as_slice() {
        b"ping" if count <= 2 => ping(args, out),
        b"echo" if count == 2 => reply::bulk(out, args.get(1).unwrap_or_default()),
        b"hello" => hello(worker, client, args, out),
        b"auth" if count > 1 => auth(worker, client, args, out),
        b"select" if count == 2 => select(worker, client, args, out),
        b"client" if count >= 2 => run_client(client, args, out),
        b"command" => run_command(client.protocol, args, out),
        b"config" if count >= 2 => run_config(worker, client.protocol, args, out),
        b"info" => reply::verbatim(out, info::render(&worker.shared, args.from(1)).as_bytes(), client.protocol),
        b"reset" if count == 1 => {
            client.reset();
            reply::status(out, "RESET");
        }
        b"quit" => {
            reply::status(out, "OK");
            after = After::Close;
        }
        // They end a transaction, and there is none.
        b"exec" if count == 1 => reply::error(out, "ERR EXEC without MULTI"),
        b"discard" if count == 1 => reply::error(out, "ERR DISCARD without MULTI"),
        b"multi" | b"exec" | b"discard" => wrong_arity(&name, out),
        b"ping" | b"echo" | b"auth" | b"select" | b"client" | b"config" | b"reset" => wrong_arity(&name, out),
        _ => {
            let name = quoted(&name);
            reply::error(out, &format!("ERR this Tollgate is embedded: there is no Redis behind it to run '{name}'"));
        }
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
    hello.apply(client);
    let protocol = client.protocol;
    reply::map(out, 7, protocol);
    reply::bulk(out, b"server");
    reply::bulk(out, b"redis");
    reply::bulk(out, b"version");
    reply::bulk(out, info::redis_version(&worker.shared).as_bytes());
    reply::bulk(out, b"proto");
    reply::integer(out, if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply::bulk(out, b"id");
    reply::integer(out, i64::try_from(client.id).unwrap_or(i64::MAX));
    reply::bulk(out, b"mode");
    reply::bulk(out, b"standalone");
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
    let is_embedded = matches!(*worker.shared.limiter, Limiter::Embedded(_));
    match args.get(1).and_then(resp::parse_int) {
        None => reply::error(out, "ERR value is not an integer or out of range"),
        Some(number) => match u32::try_from(number) {
            Ok(number) if number == 0 || !is_embedded => {
                client.database = Some(number);
                reply::status(out, "OK");
            }
            _ => reply::error(out, "ERR DB index is out of range"),
        },
    }
}

fn run_client(client: &mut Client, args: &Args<'_>, out: &mut BytesMut) {
    let sub = args.get(1).unwrap_or_default().to_ascii_lowercase();
    let value = args.get(2).unwrap_or_default();
    match (sub.as_slice(), args.len()) {
        (b"setname", 3) if !is_client_name(value) => reply::error(out, BAD_NAME),
        (b"setname", 3) => {
            client.name = value.to_vec();
            reply::status(out, "OK");
        }
        (b"getname", 2) if client.name.is_empty() => reply::null(out, client.protocol),
        (b"getname", 2) => reply::bulk(out, &client.name),
        (b"setinfo", 4) => client_setinfo(client, value, args.get(3).unwrap_or_default(), out),
        (b"id", 2) => reply::integer(out, i64::try_from(client.id).unwrap_or(i64::MAX)),
        (b"no-evict" | b"no-touch", 3) => {
            if value.eq_ignore_ascii_case(b"on") || value.eq_ignore_ascii_case(b"off") {
                reply::status(out, "OK");
            } else {
                reply::error(out, "ERR syntax error");
            }
        }
        (b"setname" | b"getname" | b"setinfo" | b"id" | b"no-evict" | b"no-touch", _) => {
            wrong_arity(&[b"client|", sub.as_slice()].concat(), out);
        }
        _ => unknown_subcommand(args, out),
    }
}

fn client_setinfo(client: &mut Client, option: &[u8], value: &[u8], out: &mut BytesMut) {
    let (field, label) = if option.eq_ignore_ascii_case(b"lib-name") {
        (&mut client.lib_name, "lib-name")
    } else if option.eq_ignore_ascii_case(b"lib-ver") {
        (&mut client.lib_ver, "lib-ver")
    } else {
        return reply::error(out, &format!("ERR Unrecognized option '{}'", quoted(option)));
    };
    if !is_client_name(value) {
        return reply::error(out, &format!("ERR {label} cannot contain spaces, newlines or special characters."));
    }
    *field = value.to_vec();
    reply::status(out, "OK");
}

/// `COMMAND [COUNT | INFO [name ...] | DOCS [name ...] | LIST]`
fn run_command(protocol: Protocol, args: &Args<'_>, out: &mut BytesMut) {
    let sub = args.get(1).unwrap_or_default().to_ascii_lowercase();
    match (sub.as_slice(), args.len()) {
        (_, 1) | (b"info", 2) => {
            reply::array(out, DOCS.len());
            DOCS.iter().for_each(|doc| docs::info(out, doc, protocol));
        }
        (b"count", 2) => reply::integer(out, DOCS.len() as i64),
        (b"list", 2) => {
            reply::array(out, DOCS.len());
            DOCS.iter().for_each(|doc| reply::bulk(out, doc.name.as_bytes()));
        }
        (b"info", names) => {
            reply::array(out, names - 2);
            for name in args.from(2) {
                match docs::find(name) {
                    Some(doc) => docs::info(out, doc, protocol),
                    None => reply::null_array(out, protocol),
                }
            }
        }
        (b"docs", _) => {
            let all = args.len() == 2;
            let named = |doc: &&docs::Doc| all || args.from(2).any(|name| doc.is_named(name));
            let found: Vec<_> = DOCS.iter().filter(named).collect();
            reply::map(out, found.len(), protocol);
            found.iter().for_each(|doc| docs::docs(out, doc, protocol));
        }
        _ => unknown_subcommand(args, out),
    }
}

/// `CONFIG GET pattern ...`: enough for redis-benchmark and clients that look before they start.
fn run_config(worker: &Worker, protocol: Protocol, args: &Args<'_>, out: &mut BytesMut) {
    if !args.get(1).unwrap_or_default().eq_ignore_ascii_case(b"get") {
        return unknown_subcommand(args, out);
    }
    if args.len() < 3 {
        return wrong_arity(b"config|get", out);
    }
    let server = &worker.shared.config.server;
    let settings = [
        ("appendonly", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", server.max_clients.to_string()),
        ("proto-max-bulk-len", server.max_bulk_bytes.to_string()),
        ("save", String::new()),
        ("timeout", server.idle_timeout.map_or(0, |timeout| timeout.as_secs()).to_string()),
    ];
    let asked =
        |name: &str| args.from(2).any(|pattern| pattern == b"*" || pattern.eq_ignore_ascii_case(name.as_bytes()));
    let found: Vec<_> = settings.iter().filter(|(name, _)| asked(name)).collect();
    reply::map(out, found.len(), protocol);
    for (name, value) in found {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, value.as_bytes());
    }
}

fn wrong_arity(name: &[u8], out: &mut BytesMut) {
    reply::error(out, &format!("ERR wrong number of arguments for '{}' command", quoted(name)));
}

fn unknown_subcommand(args: &Args<'_>, out: &mut BytesMut) {
    let sub = quoted(args.get(1).unwrap_or_default());
    let name = quoted(args.name()).to_uppercase();
    reply::error(out, &format!("ERR unknown subcommand '{sub}'. Try {name} HELP."));
}
