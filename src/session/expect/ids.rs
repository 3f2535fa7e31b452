//! Ids of clients. A HELLO that is answered here tells a client its number, before it has a connection to Redis, which
//! then gives that another. The client keeps what it was told:
//!
//! ```text
//!   client ──── request, number ──► here ──── request, Redis's id ──► Redis
//!          ◄──── reply, number ────      ◄──── reply, Redis's id ────
//! ```
//!
//! Redis decides whether a command may be run, so it is asked also where it knows nobody of that number.

use super::merge::text_of;
use crate::client_list::{AtRedis, ClientList, is_own};
use crate::resp::request::{self, Args};
use crate::resp::{parse_int, reply};
use crate::session::client::{After, Client};
use bytes::BytesMut;
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;

/// What stands before an id in the reply to HELLO, and in that to CLIENT TRACKINGINFO.
const ID_LABEL: &[u8] = b"$2\r\nid\r\n:";
const REDIRECT_LABEL: &[u8] = b"$8\r\nredirect\r\n:";

/// What of a subcommand of CLIENT, or of its reply, are ids.
#[derive(Debug)]
pub enum Ids {
    /// Arguments alone: UNBLOCK.
    Unblock,
    /// Likewise: TRACKING, behind REDIRECT.
    Tracking,
    /// The reply, which is the client's own: ID.
    Own,
    /// One in the reply: GETREDIR, TRACKINGINFO.
    Redirection,
    /// Those in lines: INFO, LIST.
    Lines(Unlinked),
    /// Arguments, of clients to be ended: KILL.
    Kill(Box<Kill>),
}

/// Which clients are listed beside those that have a connection to Redis of their own.
#[derive(Debug)]
pub enum Unlinked {
    /// None.
    None,
    /// Those of these numbers.
    Named(Vec<u64>),
    /// All.
    All,
}

/// Whom to end. What else there is to choose them by, Redis alone knows.
#[derive(Debug, Default)]
pub struct Kill {
    named: Vec<Named>,
    addr: Option<SocketAddr>,
    /// Only those may be ended whom Redis finds.
    is_left_to_redis: bool,
    skips_own: bool,
    /// `CLIENT KILL ip:port`, whose replies are others.
    is_old: bool,
}

/// A client of this process, by its number.
#[derive(Debug, Clone, Copy)]
struct Named {
    id: u64,
    /// Redis was told its own id.
    is_translated: bool,
}

impl Ids {
    /// Of a request that is whole; `sub` is its subcommand in lower case.
    pub fn of(sub: &[u8], args: &Args<'_>) -> Option<Self> {
        Some(match sub {
            b"unblock" => Self::Unblock,
            b"tracking" => Self::Tracking,
            b"id" => Self::Own,
            b"getredir" | b"trackinginfo" => Self::Redirection,
            b"info" => Self::Lines(Unlinked::None),
            b"list" => Self::Lines(Unlinked::of(args)),
            b"kill" => Self::Kill(Box::new(Kill::of(args))),
            _ => return None,
        })
    }

    /// A request is passed on: what it is in Redis's ids, if it names any client of which Redis has one.
    pub fn translate(&mut self, args: &Args<'_>, list: &ClientList) -> Option<BytesMut> {
        if let Self::Kill(_) = self {
            list.note_kill();
        }
        let mut is_translated = false;
        let words: Vec<Cow<'_, [u8]>> = (0..args.len())
            .map(|place| {
                let word = args.get(place).unwrap_or_default();
                let id = own_id(word).filter(|_| self.may_stand_at(place, args));
                let Some((id, redis_id)) = id.and_then(|id| Some((id, list.redis_id(id)?))) else { return word.into() };
                is_translated = true;
                if let Self::Kill(kill) = self {
                    kill.note_translated(id);
                }
                redis_id.to_string().into_bytes().into()
            })
            .collect();
        is_translated.then(|| {
            let mut raw = BytesMut::new();
            request::write(&mut raw, &words);
            raw
        })
    }

    /// The reply to `client`, made of Redis's. A KILL ends whom it names of this process; whether that is the client
    /// itself is said beside the reply.
    pub fn answer<'r>(&self, reply: &'r [u8], client: &Client, list: &ClientList) -> (Cow<'r, [u8]>, After) {
        let is_integer = reply.starts_with(b":");
        let told = match self {
            Self::Unblock | Self::Tracking => None,
            Self::Own if !is_integer || !client.was_told_id => None,
            Self::Own => replace_id(reply, b":", |_| Some(client.id)),
            Self::Redirection => {
                let told = list.by_redis_id();
                replace_id(reply, if is_integer { b":" } else { REDIRECT_LABEL }, |id| told.get(&id).copied())
            }
            Self::Lines(unlinked) => lines(reply, unlinked, list),
            Self::Kill(kill) => {
                let (told, after) = kill.carry_out(reply, client.id, list);
                return (told.map_or(reply.into(), Cow::Owned), after);
            }
        };
        (told.map_or(reply.into(), Cow::Owned), After::Stay)
    }

    /// Whether an argument can be a client's id. Other arguments of these commands are no such numbers.
    fn may_stand_at(&self, place: usize, args: &Args<'_>) -> bool {
        let is_behind = |word: &[u8]| args.get(place.wrapping_sub(1)).is_some_and(|it| it.eq_ignore_ascii_case(word));
        match self {
            Self::Unblock | Self::Lines(_) | Self::Kill(_) => true,
            Self::Tracking => is_behind(b"redirect"),
            Self::Own | Self::Redirection => false,
        }
    }
}

impl Unlinked {
    fn of(args: &Args<'_>) -> Self {
        let is = |place, word: &[u8]| args.get(place).is_some_and(|it: &[u8]| it.eq_ignore_ascii_case(word));
        match args.len() {
            2 => Self::All,
            4 if is(2, b"type") && is(3, b"normal") => Self::All,
            4.. if is(2, b"id") => Self::Named(args.from(3).filter_map(own_id).collect()),
            _ => Self::None,
        }
    }

    /// Writes their lines.
    fn write(&self, text: &mut Vec<u8>, list: &ClientList) {
        let entries = match self {
            Self::None => return,
            Self::Named(ids) => ids.iter().filter_map(|id| list.get(*id)).collect(),
            Self::All => list.all(),
        };
        for entry in entries.iter().filter(|entry| entry.at_redis == AtRedis::Absent) {
            text.extend(format!("{entry}\n").bytes());
        }
    }
}

impl Kill {
    fn of(args: &Args<'_>) -> Self {
        let parse_addr = |word: &[u8]| str::from_utf8(word).ok()?.parse().ok();
        let mut kill = Self { skips_own: true, ..Self::default() };
        if args.len() == 3 {
            let addr = args.get(2).and_then(parse_addr);
            return Self { addr, is_old: true, skips_own: false, ..kill };
        }
        let mut words = args.from(2);
        while let Some(word) = words.next() {
            match word.to_ascii_lowercase().as_slice() {
                // Some servers take several behind one ID.
                b"id" => {}
                b"addr" => {
                    kill.addr = words.next().and_then(parse_addr);
                    kill.is_left_to_redis |= kill.addr.is_none();
                }
                b"skipme" => kill.skips_own = words.next().is_none_or(|value| !value.eq_ignore_ascii_case(b"no")),
                word => match own_id(word) {
                    Some(id) => kill.named.push(Named { id, is_translated: false }),
                    None => kill.is_left_to_redis = true,
                },
            }
        }
        kill
    }

    fn note_translated(&mut self, id: u64) {
        self.named.iter_mut().filter(|named| named.id == id).for_each(|named| named.is_translated = true);
    }

    /// How many clients Redis has ended, by its reply. `None` if it has refused, or has yet to look.
    fn count_at_redis(&self, reply: &[u8]) -> Option<i64> {
        match reply {
            b"+OK\r\n" if self.is_old => Some(1),
            b"-ERR No such client\r\n" if self.is_old => Some(0),
            _ => parse_int(reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?),
        }
    }

    /// Ends the clients of this process that it names, and says what the reply is instead of Redis's, if it is another.
    fn carry_out(&self, reply: &[u8], own_id: u64, list: &ClientList) -> (Option<Vec<u8>>, After) {
        let mut after = After::Stay;
        let Some(at_redis) = self.count_at_redis(reply) else { return (None, after) };
        let mut count = at_redis;
        for (id, is_counted) in self.targets(at_redis, list) {
            let is_own = id == own_id;
            if is_own && self.skips_own {
                continue;
            }
            if is_own {
                // It is still answered.
                after = After::Close;
            }
            count = count.saturating_add(i64::from((is_own || list.kill(id)) && !is_counted));
        }
        let mut told = BytesMut::new();
        match self.is_old {
            true if count > 0 => reply::status(&mut told, "OK"),
            true => return (None, after),
            false => reply::integer(&mut told, count),
        }
        (Some(told.to_vec()), after)
    }

    /// Whom to end here, each with whether Redis has counted it, when Redis has ended `count`.
    fn targets(&self, count: i64, list: &ClientList) -> Vec<(u64, bool)> {
        if self.named.is_empty() {
            // Redis is asked first: its list shows addresses as it sees them, and here the same may be another's.
            let addr = self.addr.filter(|_| count == 0 && !self.is_left_to_redis);
            return addr.and_then(|addr| list.id_at(addr)).map(|id| (id, false)).into_iter().collect();
        }
        let is_at_addr = |id| self.addr.is_none_or(|addr| list.get(id).is_some_and(|entry| entry.peer == addr));
        let named = self.named.iter().map(|named| (named.id, named.is_translated && count > 0));
        named.filter(|(id, is_counted)| *is_counted || (!self.is_left_to_redis && is_at_addr(*id))).collect()
    }
}

/// The reply to a HELLO that Redis has answered, of a client that was told its number before.
pub fn of_hello(reply: &[u8], id: u64) -> Cow<'_, [u8]> {
    replace_id(reply, ID_LABEL, |_| Some(id)).map_or(reply.into(), Cow::Owned)
}

/// The number of a client of a Tollgate before a Redis, if the word can be one.
fn own_id(word: &[u8]) -> Option<u64> {
    u64::try_from(parse_int(word)?).ok().filter(|id| is_own(*id))
}

/// The reply with another id in the place of that behind `label`, if there is one.
fn replace_id(reply: &[u8], label: &[u8], with: impl Fn(u64) -> Option<u64>) -> Option<Vec<u8>> {
    let start = reply.windows(label.len()).position(|bytes| bytes == label)? + label.len();
    let (before, rest) = reply.split_at_checked(start)?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let (id, behind) = rest.split_at_checked(end)?;
    let id = with(u64::try_from(parse_int(id)?).ok()?)?;
    Some([before, id.to_string().as_bytes(), behind].concat())
}

/// CLIENT LIST or CLIENT INFO, in the ids that clients were told, and with those whom Redis does not know.
fn lines(reply: &[u8], unlinked: &Unlinked, list: &ClientList) -> Option<Vec<u8>> {
    let (listed, protocol) = text_of(reply)?;
    let told = list.by_redis_id();
    let mut text = Vec::with_capacity(listed.len());
    for line in listed.split_inclusive(|byte| *byte == b'\n') {
        for field in line.split_inclusive(|byte| *byte == b' ') {
            write_field(&mut text, field, &told);
        }
    }
    unlinked.write(&mut text, list);
    let mut changed = BytesMut::new();
    reply::verbatim(&mut changed, &text, protocol);
    Some(changed.to_vec())
}

fn write_field(text: &mut Vec<u8>, field: &[u8], told: &HashMap<u64, u64>) {
    let (name, value) = field.split_at(field.iter().position(|byte| *byte == b'=').map_or(0, |at| at + 1));
    let (value, end) = value.split_at(value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len()));
    let id = parse_int(value).and_then(|id| u64::try_from(id).ok()).filter(|_| matches!(name, b"id=" | b"redir="));
    match id.and_then(|id| told.get(&id)) {
        Some(id) => text.extend([name, id.to_string().as_bytes(), end].concat()),
        None => text.extend_from_slice(field),
    }
}
