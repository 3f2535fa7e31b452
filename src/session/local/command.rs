//! COMMAND: Tollgate's own commands, where there is no Redis to tell of others.

use crate::command::{OwnCommand, docs, own_commands};
use crate::resp::reply::{self, Protocol};
use crate::resp::request::Args;
use bytes::BytesMut;

/// Answers COMMAND or a subcommand of it.
pub fn run(sub: &str, protocol: Protocol, args: &Args<'_>, out: &mut BytesMut) {
    match sub {
        "count" => reply::integer(out, own_commands().count() as i64),
        "list" => match docs::list(args) {
            Some(listed) => {
                reply::array(out, listed.len());
                listed.iter().for_each(|doc| reply::bulk(out, doc.name.as_bytes()));
            }
            None => reply::error(out, "ERR syntax error"),
        },
        "info" if args.len() > 2 => {
            reply::array(out, args.len() - 2);
            for name in args.from(2) {
                match OwnCommand::of(name) {
                    Some(doc) => docs::info(out, doc, protocol),
                    None => reply::null_array(out, protocol),
                }
            }
        }
        "docs" => {
            let all = args.len() == 2;
            let named = |command: &&OwnCommand| all || args.from(2).any(|name| command.is_named(name));
            let found: Vec<_> = own_commands().filter(named).collect();
            reply::map(out, found.len(), protocol);
            found.iter().for_each(|doc| docs::docs(out, doc, protocol));
        }
        "getkeys" | "getkeysandflags" => match args.get(2).and_then(OwnCommand::of) {
            Some(doc) => {
                let request: Vec<&[u8]> = args.from(2).collect();
                docs::keys(out, doc, &request, sub == "getkeysandflags", protocol);
            }
            None => reply::error(out, "ERR Invalid command specified"),
        },
        // COMMAND itself, and INFO of no name.
        _ => {
            reply::array(out, own_commands().count());
            own_commands().for_each(|doc| docs::info(out, doc, protocol));
        }
    }
}
