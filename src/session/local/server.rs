//! What monitoring tools and GUIs ask of a server. There are no keys of users here, no log of slow commands and no
//! events, so most answers are those of a Redis that is empty and idle.

use crate::info::process;
use crate::resp::request::Args;
use crate::resp::{parse_int, reply};
use crate::session::client::Client;
use crate::worker::Worker;
use bytes::BytesMut;
use std::time::{SystemTime, UNIX_EPOCH};

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";

/// Answers a command of this file.
pub fn run(name: &str, sub: &str, worker: &Worker, client: &Client, args: &Args<'_>, out: &mut BytesMut) {
    match (name, sub) {
        ("time", _) => time(out),
        ("role", _) => role(out),
        ("dbsize", _) => reply::integer(out, logs(worker)),
        ("scan", _) => scan(args, out),
        ("type", _) => reply::status(out, "none"),
        ("acl", _) => reply::bulk(out, client.user().as_bytes()),
        ("slowlog", "get") => slowlog(args, out),
        ("slowlog", "reset") => reply::status(out, "OK"),
        ("slowlog", _) | ("latency", "reset") => reply::integer(out, 0),
        ("latency", "histogram") => reply::map(out, 0, client.protocol),
        ("memory", "stats") => memory_stats(worker, client, out),
        ("memory", _) => memory_usage(client, args, out),
        ("object", _) => reply::null(out, client.protocol),
        // KEYS, LATENCY LATEST and HISTORY, MODULE LIST.
        _ => reply::array(out, 0),
    }
}

fn logs(worker: &Worker) -> i64 {
    i64::try_from(worker.shared.backend.keys_here()).unwrap_or(i64::MAX)
}

fn time(out: &mut BytesMut) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    reply::array(out, 2);
    reply::bulk(out, now.as_secs().to_string().as_bytes());
    reply::bulk(out, now.subsec_micros().to_string().as_bytes());
}

fn role(out: &mut BytesMut) {
    reply::array(out, 3);
    reply::bulk(out, b"master");
    reply::integer(out, 0);
    reply::array(out, 0);
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`: a walk that is at its end.
fn scan(args: &Args<'_>, out: &mut BytesMut) {
    let cursor = std::str::from_utf8(args.get(1).unwrap_or_default()).unwrap_or_default();
    // As strtoul reads it, with a sign or without.
    if cursor.strip_prefix(['-', '+']).unwrap_or(cursor).parse::<u64>().is_err() {
        return reply::error(out, "ERR invalid cursor");
    }
    if let Some(text) = wrong_option(args, 2, (b"count", 1), &[b"match", b"type"]) {
        return reply::error(out, text);
    }
    reply::array(out, 2);
    reply::bulk(out, b"0");
    reply::array(out, 0);
}

/// `SLOWLOG GET [count]`
fn slowlog(args: &Args<'_>, out: &mut BytesMut) {
    match args.get(2) {
        _ if args.len() > 3 => {
            reply::error(out, "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.");
        }
        Some(count) if parse_int(count).is_none_or(|count| count < -1) => {
            reply::error(out, "ERR count should be greater than or equal to -1");
        }
        _ => reply::array(out, 0),
    }
}

/// `MEMORY USAGE key [SAMPLES count]`: of no key, as there is none.
fn memory_usage(client: &Client, args: &Args<'_>, out: &mut BytesMut) {
    match wrong_option(args, 3, (b"samples", 0), &[]) {
        Some(text) => reply::error(out, text),
        None => reply::null(out, client.protocol),
    }
}

/// What is wrong with the options from `first` on, if anything. Each is a name and a value; that of `number` is an
/// integer, no less than given there.
fn wrong_option(args: &Args<'_>, first: usize, number: (&[u8], i64), others: &[&[u8]]) -> Option<&'static str> {
    let mut words = args.from(first);
    while let Some(name) = words.next() {
        let value = words.next();
        match value {
            Some(value) if name.eq_ignore_ascii_case(number.0) => match parse_int(value) {
                None => return Some(NOT_AN_INTEGER),
                Some(value) if value < number.1 => return Some(SYNTAX),
                Some(_) => {}
            },
            Some(_) if others.iter().any(|other| name.eq_ignore_ascii_case(other)) => {}
            _ => return Some(SYNTAX),
        }
    }
    None
}

fn memory_stats(worker: &Worker, client: &Client, out: &mut BytesMut) {
    let usage = process::usage().map(|usage| [usage.peak_bytes, usage.resident_bytes]);
    let [peak, total] = usage.unwrap_or_default().map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let fields = [("peak.allocated", peak), ("total.allocated", total), ("keys.count", logs(worker))];
    reply::map(out, fields.len(), client.protocol);
    for (name, value) in fields {
        reply::bulk(out, name.as_bytes());
        reply::integer(out, value);
    }
}
