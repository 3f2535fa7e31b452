//! Adds Tollgate's own to what Redis says of itself: its section to INFO, its commands to COMMAND.

use crate::command::{OwnCommand, docs, own_commands};
use crate::resp::parse_int;
use crate::resp::reply::{self, Protocol};
use crate::resp::request::Args;
use crate::resp::scan::Scanner;
use bytes::{BufMut, BytesMut};

/// Redis's reply to a COMMAND GETKEYS of a command that it does not know.
const UNKNOWN_TO_REDIS: &[u8] = b"-ERR Invalid command specified\r\n";

/// Which reply is added to, and what.
#[derive(Debug)]
pub enum Merge {
    /// INFO: a section.
    Info,
    /// COMMAND COUNT: how many.
    Count,
    /// COMMAND LIST: the names of these.
    List(Vec<&'static OwnCommand>),
    /// COMMAND, or COMMAND INFO without names: an entry each.
    Infos,
    /// COMMAND INFO: the entries named, by their place in the reply.
    InfosNamed(Vec<(usize, &'static OwnCommand)>),
    /// COMMAND DOCS: the documents of these.
    Documents(Vec<&'static OwnCommand>),
    /// COMMAND GETKEYS, or GETKEYSANDFLAGS, of this request of a command of Tollgate's own, in place of Redis's error.
    Keys { doc: &'static OwnCommand, request: Vec<Vec<u8>>, with_flags: bool },
}

impl Merge {
    /// What to add to the reply to a command, if anything. `count` is how many arguments it has, of which the last may
    /// not have come yet.
    pub fn of(args: &Args<'_>, count: usize) -> Option<Self> {
        if args.name().eq_ignore_ascii_case(b"info") {
            let wanted = |name: &[u8]| {
                [&b"all"[..], b"default", b"everything", b"tollgate"].iter().any(|all| name.eq_ignore_ascii_case(all))
            };
            return (args.len() == 1 || args.from(1).any(wanted)).then_some(Self::Info);
        }
        let sub = args.get(1).unwrap_or_default().to_ascii_lowercase();
        match (sub.as_slice(), args.len()) {
            (_, 1) | (b"info", 2) => Some(Self::Infos),
            (b"count", 2) => Some(Self::Count),
            (b"list", _) => docs::list(args).filter(|listed| !listed.is_empty()).map(Self::List),
            // Of one that has not come whole, not all keys are known.
            (b"getkeys" | b"getkeysandflags", _) if args.len() == count => {
                let doc = OwnCommand::of(args.get(2)?)?;
                let request = args.from(2).map(<[u8]>::to_vec).collect();
                Some(Self::Keys { doc, request, with_flags: sub == b"getkeysandflags" })
            }
            (b"docs", 2) => Some(Self::Documents(own_commands().collect())),
            (b"docs", _) => {
                let named: Vec<_> = args.from(2).filter_map(OwnCommand::of).collect();
                (!named.is_empty()).then_some(Self::Documents(named))
            }
            (b"info", _) => {
                let places = args.from(2).enumerate();
                let named: Vec<_> = places.filter_map(|(place, name)| Some((place, OwnCommand::of(name)?))).collect();
                (!named.is_empty()).then_some(Self::InfosNamed(named))
            }
            _ => None,
        }
    }

    /// Writes Redis's `reply` with Tollgate's part in it. A reply of another form, such as an error, stays as it is.
    pub fn write(&self, output: &mut BytesMut, reply: &[u8], section: &str, protocol: Protocol) {
        let start = output.len();
        if self.try_write(output, reply, section, protocol).is_none() {
            output.truncate(start);
            output.put_slice(reply);
        }
    }

    fn try_write(&self, output: &mut BytesMut, reply: &[u8], section: &str, protocol: Protocol) -> Option<()> {
        if let Self::Keys { doc, request, with_flags } = self {
            docs::keys(output, doc, request, *with_flags, protocol);
            return (reply == UNKNOWN_TO_REDIS).then_some(());
        }
        let (kind, length, body) = split_head(reply)?;
        match (self, kind) {
            (Self::Info, b'$' | b'=') => {
                let (text, protocol) = text_of(reply)?;
                let gap: &[u8] = if text.is_empty() || section.is_empty() { b"" } else { b"\r\n" };
                reply::verbatim(output, &[text, gap, section.as_bytes()].concat(), protocol);
            }
            (Self::Count, b':') => reply::integer(output, length.saturating_add(own_commands().count() as i64)),
            (Self::List(listed), b'*') => {
                self.begin(output, kind, length, body, listed.len());
                listed.iter().for_each(|doc| reply::bulk(output, doc.name.as_bytes()));
            }
            (Self::Infos, b'*') => {
                self.begin(output, kind, length, body, own_commands().count());
                own_commands().for_each(|doc| docs::info(output, doc, protocol));
            }
            (Self::Documents(list), b'*' | b'%') => {
                self.begin(output, kind, length, body, if kind == b'*' { 2 * list.len() } else { list.len() });
                list.iter().for_each(|doc| docs::docs(output, doc, protocol));
            }
            (Self::InfosNamed(named), b'*') => {
                self.begin(output, kind, length, b"", 0);
                let mut rest = body;
                for place in 0..usize::try_from(length).ok()? {
                    let (end, true) = Scanner::default().scan(rest).ok()? else { return None };
                    let (entry, behind) = rest.split_at_checked(end)?;
                    rest = behind;
                    match named.iter().find(|(own, _)| *own == place) {
                        Some((_, doc)) => docs::info(output, doc, protocol),
                        None => output.put_slice(entry),
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Writes the head of an aggregate that has `more` items than it had, and what it had.
    fn begin(&self, output: &mut BytesMut, kind: u8, length: i64, body: &[u8], more: usize) {
        output.put_u8(kind);
        output.put_slice(length.saturating_add(more as i64).to_string().as_bytes());
        output.put_slice(b"\r\n");
        output.put_slice(body);
    }
}

/// The text for people that a reply is, and the protocol in which it is written.
pub fn text_of(reply: &[u8]) -> Option<(&[u8], Protocol)> {
    let (kind, _, body) = split_head(reply)?;
    let text = body.strip_suffix(b"\r\n")?;
    match kind {
        b'$' => Some((text, Protocol::Resp2)),
        b'=' => Some((text.strip_prefix(b"txt:")?, Protocol::Resp3)),
        _ => None,
    }
}

/// A value's kind, the number of its first line, and what follows.
fn split_head(reply: &[u8]) -> Option<(u8, i64, &[u8])> {
    let end = reply.windows(2).position(|pair| pair == b"\r\n")?;
    let (kind, number) = reply.get(..end)?.split_first()?;
    Some((*kind, parse_int(number)?, reply.get(end + 2..)?))
}
