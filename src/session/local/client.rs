//! CLIENT: what a client says of itself, and who else there is.

use crate::client_list::Entry;
use crate::command::quoted;
use crate::resp::request::Args;
use crate::resp::{parse_int, reply};
use crate::session::client::Client;
use crate::session::hello::{BAD_NAME, is_client_name};
use crate::worker::Worker;
use bytes::BytesMut;
use std::collections::HashSet;

/// Answers a subcommand of CLIENT.
pub fn run(sub: &str, worker: &Worker, client: &mut Client, args: &Args<'_>, out: &mut BytesMut) {
    let value = args.get(2).unwrap_or_default();
    match sub {
        "setname" if !is_client_name(value) => reply::error(out, BAD_NAME),
        "setname" => {
            client.name = value.to_vec();
            reply::status(out, "OK");
        }
        "getname" if client.name.is_empty() => reply::null(out, client.protocol),
        "getname" => reply::bulk(out, &client.name),
        "setinfo" => set_info(client, value, args.get(3).unwrap_or_default(), out),
        "id" => reply::integer(out, client.tell_id()),
        "info" => {
            let lines: String =
                worker.shared.client_list.get(client.id).iter().map(|own| line(own, client, sub)).collect();
            reply::verbatim(out, lines.as_bytes(), client.protocol);
        }
        "list" => match list(worker, client, args) {
            Ok(lines) => reply::verbatim(out, lines.as_bytes(), client.protocol),
            Err(text) => reply::error(out, &text),
        },
        "getredir" => reply::integer(out, -1),
        // NO-EVICT and NO-TOUCH.
        _ if value.eq_ignore_ascii_case(b"on") || value.eq_ignore_ascii_case(b"off") => reply::status(out, "OK"),
        _ => reply::error(out, "ERR syntax error"),
    }
}

fn set_info(client: &mut Client, option: &[u8], value: &[u8], out: &mut BytesMut) {
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

/// `CLIENT LIST [TYPE type | ID id ...]`. Who may run nothing but Tollgate's own commands sees itself alone.
fn list(worker: &Worker, client: &Client, args: &Args<'_>) -> Result<String, String> {
    let option = args.get(2).map(<[u8]>::to_ascii_lowercase);
    let ids = match (option.as_deref(), args.len()) {
        (None, _) => None,
        (Some(b"type"), 4) => match args.get(3).unwrap_or_default().to_ascii_lowercase().as_slice() {
            b"normal" => None,
            b"master" | b"replica" | b"slave" | b"pubsub" => Some(HashSet::new()),
            other => return Err(format!("ERR Unknown client type '{}'", quoted(other))),
        },
        (Some(b"id"), 4..) => {
            let ids: Option<HashSet<u64>> = args.from(3).map(|id| u64::try_from(parse_int(id)?).ok()).collect();
            Some(ids.ok_or("ERR Invalid client ID")?)
        }
        _ => return Err("ERR syntax error".to_owned()),
    };
    let entries = match client.may_run_all() {
        true => worker.shared.client_list.all(),
        false => worker.shared.client_list.get(client.id).into_iter().collect(),
    };
    let listed = entries.iter().filter(|entry| ids.as_ref().is_none_or(|ids| ids.contains(&entry.id)));
    Ok(listed.map(|entry| line(entry, client, "list")).collect())
}

/// A client's line. Of the one that asks it is also known what it does, and that it is in no transaction, where this
/// could not be asked.
fn line(entry: &Entry, client: &Client, sub: &str) -> String {
    let asks =
        if entry.id == client.id { format!(" idle=0 multi=-1 events=r cmd=client|{sub}") } else { String::new() };
    format!("{entry}{asks}\n")
}
