//! What Tollgate says of its own commands: RL.HELP, and its part of COMMAND's INFO, DOCS, LIST and GETKEYS.

use super::{Keys, OwnCommand, own_commands};
use crate::glob;
use crate::resp::reply::{self, Protocol};
use crate::resp::request::Args;
use bytes::BytesMut;

/// What a reader is told of a command.
#[derive(Debug)]
pub(super) struct Docs {
    /// Arguments as RL.HELP shows them.
    pub usage: &'static str,
    pub summary: &'static str,
    /// More lines for RL.HELP.
    pub help: &'static [&'static str],
    pub complexity: &'static str,
    pub arguments: &'static [Argument],
}

#[derive(Debug)]
pub(super) struct Argument {
    pub name: &'static str,
    pub kind: Kind,
    pub token: Option<&'static str>,
    pub flags: &'static [&'static str],
}

#[derive(Debug)]
pub(super) enum Kind {
    Key,
    Text,
    Integer,
    /// No value: the token alone.
    PureToken,
    Block(&'static [Argument]),
    /// One of these.
    OneOf(&'static [Argument]),
}

/// Limits, each with its window.
pub(super) const QUOTA: Argument = Argument {
    name: "quota",
    kind: Kind::Block(&[
        Argument { name: "limit", kind: Kind::Integer, token: None, flags: &[] },
        Argument { name: "window", kind: Kind::Text, token: None, flags: &[] },
    ]),
    token: None,
    flags: &["multiple"],
};

pub(super) const KEY: Argument = Argument { name: "key", kind: Kind::Key, token: None, flags: &[] };

/// The command and its arguments, as a reader would type them.
pub fn usage(command: &OwnCommand) -> String {
    format!("{} {}", command.name.to_uppercase(), command.docs.usage).trim_end().to_owned()
}

/// Whether a request of so many words, its name included, is one of a command of this arity. A negative one means: at
/// least so many.
pub fn fits_arity(arity: i64, count: usize) -> bool {
    match usize::try_from(arity) {
        Ok(exactly) => count == exactly,
        Err(_) => count as u64 >= arity.unsigned_abs(),
    }
}

/// The reply to RL.HELP.
pub fn help(out: &mut BytesMut) {
    let lines: usize = own_commands().map(|command| 2 + command.docs.help.len()).sum();
    reply::array(out, 2 + lines);
    reply::status(
        out,
        "Tollgate's own commands, beside all of the Redis behind it. (With --embedded and before a Redis Cluster, of",
    );
    reply::status(out, "Redis's commands only those answer that clients and monitoring tools begin with.) They are:");
    for command in own_commands() {
        reply::status(out, &usage(command));
        for line in [&[command.docs.summary], command.docs.help].concat() {
            reply::status(out, &format!("    {line}"));
        }
    }
}

/// A command's entry in the reply to COMMAND and COMMAND INFO.
pub fn info(out: &mut BytesMut, command: &OwnCommand, protocol: Protocol) {
    let Keys { first, last, step, .. } = command.keys;
    reply::array(out, 10);
    reply::bulk(out, command.name.as_bytes());
    reply::integer(out, command.arity);
    statuses(out, command.flags, protocol);
    reply::integer(out, first);
    reply::integer(out, last);
    reply::integer(out, step);
    statuses(out, command.categories, protocol);
    // No tips, no key specifications beyond first, last and step, no subcommands.
    reply::array(out, 0);
    reply::array(out, 0);
    reply::array(out, 0);
}

/// What a COMMAND LIST lists of these: all, or those that it filters by. `None` if it is not understood.
pub fn list(args: &Args<'_>) -> Option<Vec<&'static OwnCommand>> {
    if args.len() == 2 {
        return Some(own_commands().collect());
    }
    let (filter, by) = (args.get(2)?.to_ascii_lowercase(), args.get(3)?.to_ascii_lowercase());
    let value = args.get(4).filter(|_| args.len() == 5)?;
    let is_in = |category: &&str| category.as_bytes().split_first() == Some((&b'@', value));
    let is_listed = |command: &&OwnCommand| match by.as_slice() {
        b"pattern" => glob::matches(value, command.name.as_bytes()),
        b"aclcat" => command.categories.iter().any(is_in),
        _ => false,
    };
    let is_known = filter == b"filterby" && [&b"pattern"[..], b"aclcat", b"module"].contains(&by.as_slice());
    is_known.then(|| own_commands().filter(is_listed).collect())
}

/// The reply to a COMMAND GETKEYS of a request of this command, or, `with_flags`, to a COMMAND GETKEYSANDFLAGS.
pub fn keys(
    out: &mut BytesMut,
    command: &OwnCommand,
    request: &[impl AsRef<[u8]>],
    with_flags: bool,
    protocol: Protocol,
) {
    let keys = match keys_of(command, request) {
        Ok(keys) => keys,
        Err(text) => return reply::error(out, text),
    };
    reply::array(out, keys.len());
    for key in keys {
        if with_flags {
            reply::array(out, 2);
        }
        reply::bulk(out, key.as_ref());
        if with_flags {
            statuses(out, command.keys.flags, protocol);
        }
    }
}

/// The keys of a request of this command.
///
/// # Errors
/// It has none, or is none of this command; the text is the reply to a COMMAND GETKEYS of it.
fn keys_of<'a, W>(command: &OwnCommand, request: &'a [W]) -> Result<Vec<&'a W>, &'static str> {
    let Keys { first, last, step, .. } = command.keys;
    if first == 0 {
        return Err("ERR The command has no key arguments");
    }
    if !fits_arity(command.arity, request.len()) {
        return Err("ERR Invalid number of arguments specified for command");
    }
    let last = if last < 0 { last.saturating_add_unsigned(request.len() as u64) } else { last };
    let is_key = |place: i64| (first..=last).contains(&place) && (place - first) % step == 0;
    Ok((0..).zip(request).filter(|(place, _)| is_key(*place)).map(|(_, word)| word).collect())
}

/// A command's name and entry in the reply to COMMAND DOCS.
pub fn docs(out: &mut BytesMut, command: &OwnCommand, protocol: Protocol) {
    let Docs { summary, complexity, arguments, .. } = command.docs;
    reply::bulk(out, command.name.as_bytes());
    reply::map(out, if arguments.is_empty() { 4 } else { 5 }, protocol);
    for (field, text) in [("summary", summary), ("since", "0.1.0"), ("group", "generic"), ("complexity", complexity)] {
        reply::bulk(out, field.as_bytes());
        reply::bulk(out, text.as_bytes());
    }
    if !arguments.is_empty() {
        reply::bulk(out, b"arguments");
        write_arguments(out, arguments, protocol);
    }
}

fn write_arguments(out: &mut BytesMut, list: &[Argument], protocol: Protocol) {
    reply::array(out, list.len());
    for argument in list {
        let (kind, children) = match argument.kind {
            Kind::Key => ("key", None),
            Kind::Text => ("string", None),
            Kind::Integer => ("integer", None),
            Kind::PureToken => ("pure-token", None),
            Kind::Block(children) => ("block", Some(children)),
            Kind::OneOf(children) => ("oneof", Some(children)),
        };
        let is_key = matches!(argument.kind, Kind::Key);
        let optional = [is_key, argument.token.is_some(), !argument.flags.is_empty(), children.is_some()];
        reply::map(out, 3 + optional.iter().filter(|present| **present).count(), protocol);
        for (field, text) in [("name", argument.name), ("type", kind), ("display_text", argument.name)] {
            reply::bulk(out, field.as_bytes());
            reply::bulk(out, text.as_bytes());
        }
        if is_key {
            reply::bulk(out, b"key_spec_index");
            reply::integer(out, 0);
        }
        if let Some(token) = argument.token {
            reply::bulk(out, b"token");
            reply::bulk(out, token.as_bytes());
        }
        if !argument.flags.is_empty() {
            reply::bulk(out, b"flags");
            statuses(out, argument.flags, protocol);
        }
        if let Some(children) = children {
            reply::bulk(out, b"arguments");
            write_arguments(out, children, protocol);
        }
    }
}

fn statuses(out: &mut BytesMut, list: &[&str], protocol: Protocol) {
    reply::set(out, list.len(), protocol);
    for text in list {
        reply::status(out, text);
    }
}
