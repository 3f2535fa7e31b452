//! What Tollgate says of its own commands: one table for RL.HELP and for COMMAND's INFO, DOCS, LIST and COUNT.

use super::Name;
use crate::glob;
use crate::resp::reply::{self, Protocol};
use crate::resp::request::Args;
use bytes::BytesMut;

/// One of Tollgate's own commands, in the terms of Redis's COMMAND.
#[derive(Debug)]
pub struct Doc {
    /// In lower case, as COMMAND has it.
    pub name: &'static str,
    /// Arguments as RL.HELP shows them.
    usage: &'static str,
    summary: &'static str,
    /// More lines for RL.HELP.
    help: &'static [&'static str],
    /// Number of arguments with the name; negative: at least so many.
    arity: i64,
    flags: &'static [&'static str],
    /// First key, last key, step.
    keys: (i64, i64, i64),
    /// What is done to each of the keys, in the terms of COMMAND GETKEYSANDFLAGS.
    key_flags: &'static [&'static str],
    categories: &'static [&'static str],
    complexity: &'static str,
    arguments: &'static [Argument],
}

#[derive(Debug)]
struct Argument {
    name: &'static str,
    kind: Kind,
    token: Option<&'static str>,
    flags: &'static [&'static str],
}

#[derive(Debug)]
enum Kind {
    Key,
    Text,
    Integer,
    Block(&'static [Argument]),
}

const KEY: Argument = Argument { name: "key", kind: Kind::Key, token: None, flags: &[] };
const CHECK_ARGUMENTS: &[Argument] = &[
    KEY,
    Argument {
        name: "quota",
        kind: Kind::Block(&[
            Argument { name: "limit", kind: Kind::Integer, token: None, flags: &[] },
            Argument { name: "window", kind: Kind::Text, token: None, flags: &[] },
        ]),
        token: None,
        flags: &["multiple"],
    },
    Argument { name: "cost", kind: Kind::Integer, token: Some("COST"), flags: &["optional"] },
];

/// Tollgate's own commands.
pub const DOCS: [Doc; 4] = [
    Doc {
        name: "rl.check",
        usage: "key limit window [limit window ...] [COST n]",
        summary: "May this request go ahead? Counts it if so.",
        help: &[
            "At most <limit> may pass in any <window>: seconds, or a number with ms, s, m, h or d.",
            "Several windows are checked together, all or nothing. COST is what the request weighs (1).",
            "Reply: allowed, limit, remaining, retry_after_ms, reset_after_ms, degraded.",
        ],
        arity: -4,
        flags: &["write", "fast"],
        keys: (1, 1, 1),
        key_flags: &["RW", "access", "update"],
        categories: &["@write", "@fast"],
        complexity: "O(log(N)) for each window, N being the requests counted in it",
        arguments: CHECK_ARGUMENTS,
    },
    Doc {
        name: "rl.peek",
        usage: "key limit window [limit window ...] [COST n]",
        summary: "The reply that RL.CHECK would give now. Counts nothing.",
        help: &[],
        arity: -4,
        flags: &["readonly", "fast"],
        keys: (1, 1, 1),
        key_flags: &["RO", "access"],
        categories: &["@read", "@fast"],
        complexity: "O(log(N)) for each window, N being the requests counted in it",
        arguments: CHECK_ARGUMENTS,
    },
    Doc {
        name: "rl.reset",
        usage: "key [key ...]",
        summary: "Forgets all that was counted for the keys, in all windows. Reply: how many had any.",
        help: &[],
        arity: -2,
        flags: &["write"],
        keys: (1, -1, 1),
        key_flags: &["RM", "delete"],
        categories: &["@write", "@slow"],
        complexity: "O(K*W), K being the keys and W the different windows in use",
        arguments: &[Argument { name: "key", kind: Kind::Key, token: None, flags: &["multiple"] }],
    },
    Doc {
        name: "rl.help",
        usage: "",
        summary: "This text.",
        help: &[],
        arity: 1,
        flags: &["loading", "stale", "fast"],
        keys: (0, 0, 0),
        key_flags: &[],
        categories: &["@fast"],
        complexity: "O(1)",
        arguments: &[],
    },
];

impl Doc {
    /// Whether this is the command's name, in any case.
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name.as_bytes().eq_ignore_ascii_case(name)
    }

    /// The keys of a request of this command.
    ///
    /// # Errors
    /// It has none, or is none of this command; the text is the reply to a COMMAND GETKEYS of it.
    fn keys<'a, W>(&self, request: &'a [W]) -> Result<Vec<&'a W>, &'static str> {
        let (first, last, step) = self.keys;
        if first == 0 {
            return Err("ERR The command has no key arguments");
        }
        if !fits_arity(self.arity, request.len()) {
            return Err("ERR Invalid number of arguments specified for command");
        }
        let last = if last < 0 { last.saturating_add_unsigned(request.len() as u64) } else { last };
        let is_key = |place: i64| (first..=last).contains(&place) && (place - first) % step == 0;
        Ok((0..).zip(request).filter(|(place, _)| is_key(*place)).map(|(_, word)| word).collect())
    }

    /// The command and its arguments, as a reader would type them.
    fn usage(&self) -> String {
        format!("{} {}", self.name.to_uppercase(), self.usage).trim_end().to_owned()
    }
}

/// A command and its arguments, for an error that says what would have been right.
pub fn usage(name: Name) -> String {
    find(name.lower_case().as_bytes()).map(Doc::usage).unwrap_or_default()
}

/// Whether a request of so many words, its name included, is one of a command of this arity. A negative one means: at
/// least so many.
pub fn fits_arity(arity: i64, count: usize) -> bool {
    match usize::try_from(arity) {
        Ok(exactly) => count == exactly,
        Err(_) => count as u64 >= arity.unsigned_abs(),
    }
}

/// The command of this name, in any case.
pub fn find(name: &[u8]) -> Option<&'static Doc> {
    DOCS.iter().find(|doc| doc.is_named(name))
}

/// The reply to RL.HELP.
pub fn help(out: &mut BytesMut) {
    let lines: usize = DOCS.iter().map(|doc| 2 + doc.help.len()).sum();
    reply::array(out, 2 + lines);
    reply::status(
        out,
        "Tollgate's own commands, beside all of the Redis behind it. (With --embedded there is none, and of",
    );
    reply::status(out, "Redis's commands only those answer that clients and monitoring tools begin with.) They are:");
    for doc in &DOCS {
        reply::status(out, &doc.usage());
        for line in [&[doc.summary], doc.help].concat() {
            reply::status(out, &format!("    {line}"));
        }
    }
}

/// A command's entry in the reply to COMMAND and COMMAND INFO.
pub fn info(out: &mut BytesMut, doc: &Doc, protocol: Protocol) {
    let (first, last, step) = doc.keys;
    reply::array(out, 10);
    reply::bulk(out, doc.name.as_bytes());
    reply::integer(out, doc.arity);
    statuses(out, doc.flags, protocol);
    reply::integer(out, first);
    reply::integer(out, last);
    reply::integer(out, step);
    statuses(out, doc.categories, protocol);
    // No tips, no key specifications beyond first, last and step, no subcommands.
    reply::array(out, 0);
    reply::array(out, 0);
    reply::array(out, 0);
}

/// What a COMMAND LIST lists of these: all, or those that it filters by. `None` if it is not understood.
pub fn list(args: &Args<'_>) -> Option<Vec<&'static Doc>> {
    if args.len() == 2 {
        return Some(DOCS.iter().collect());
    }
    let (filter, by) = (args.get(2)?.to_ascii_lowercase(), args.get(3)?.to_ascii_lowercase());
    let value = args.get(4).filter(|_| args.len() == 5)?;
    let is_listed = |doc: &&Doc| match by.as_slice() {
        b"pattern" => glob::matches(value, doc.name.as_bytes()),
        b"aclcat" => doc.categories.iter().any(|category| category.as_bytes().split_first() == Some((&b'@', value))),
        _ => false,
    };
    let is_known = filter == b"filterby" && [&b"pattern"[..], b"aclcat", b"module"].contains(&by.as_slice());
    is_known.then(|| DOCS.iter().filter(is_listed).collect())
}

/// The reply to a COMMAND GETKEYS of a request of this command, or, `with_flags`, to a COMMAND GETKEYSANDFLAGS.
pub fn keys(out: &mut BytesMut, doc: &Doc, request: &[impl AsRef<[u8]>], with_flags: bool, protocol: Protocol) {
    let keys = match doc.keys(request) {
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
            statuses(out, doc.key_flags, protocol);
        }
    }
}

/// A command's name and entry in the reply to COMMAND DOCS.
pub fn docs(out: &mut BytesMut, doc: &Doc, protocol: Protocol) {
    reply::bulk(out, doc.name.as_bytes());
    reply::map(out, if doc.arguments.is_empty() { 4 } else { 5 }, protocol);
    for (field, text) in
        [("summary", doc.summary), ("since", "0.1.0"), ("group", "generic"), ("complexity", doc.complexity)]
    {
        reply::bulk(out, field.as_bytes());
        reply::bulk(out, text.as_bytes());
    }
    if !doc.arguments.is_empty() {
        reply::bulk(out, b"arguments");
        arguments(out, doc.arguments, protocol);
    }
}

fn arguments(out: &mut BytesMut, list: &[Argument], protocol: Protocol) {
    reply::array(out, list.len());
    for argument in list {
        let (kind, children) = match argument.kind {
            Kind::Key => ("key", None),
            Kind::Text => ("string", None),
            Kind::Integer => ("integer", None),
            Kind::Block(children) => ("block", Some(children)),
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
            arguments(out, children, protocol);
        }
    }
}

fn statuses(out: &mut BytesMut, list: &[&str], protocol: Protocol) {
    reply::set(out, list.len(), protocol);
    for text in list {
        reply::status(out, text);
    }
}
