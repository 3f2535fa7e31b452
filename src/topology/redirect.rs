//! What a node of a cluster says of a request that it has not run: where to ask, or when.
//!
//! The texts are Redis's own, as they stand behind the `-` of an error. A script's error is followed there by where in
//! the script it came up, and before Redis 7.0 it stands inside another text.

use super::reply;
use super::slot::Slot;
use crate::config::HostPort;

/// Why a node has not run a request, or a part of a script, of which nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// Another node serves the slot from now on. Without a target that is a node whose host nobody knows.
    Moved(Slot, Option<Target>),
    /// The slot is on its way to another node, and the keys are there or are to be made there. That node is asked this
    /// once, after ASKING.
    Ask(Slot, Option<Target>),
    /// The slot is on its way, and some of the keys are not where they would have to be for one node to serve them all.
    TryAgain,
    /// Nobody serves the slot, or the cluster as a whole is down.
    ClusterDown,
    /// The node is a replica.
    ReadOnly,
    /// A key that a script did not declare is elsewhere: it never was here, it is on its way, or the node is a replica.
    NotLocal,
    /// Declared keys of one request are of several slots.
    CrossSlot,
}

/// Where a node sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host, or `None` for that of the node which says so.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
}

impl Target {
    /// The address, if the node at `answerer` names this.
    pub fn seen_from(self, answerer: &HostPort) -> HostPort {
        HostPort { host: self.host.unwrap_or_else(|| answerer.host.clone()), port: self.port }
    }
}

/// Parts of the errors that a script meets when it runs a command.
const IN_SCRIPTS: [(&str, Redirect); 4] = [
    ("to access a non local key in a cluster node", Redirect::NotLocal),
    ("while the cluster is down", Redirect::ClusterDown),
    ("You can't write against a read only", Redirect::ReadOnly),
    ("access keys that do not hash to the same slot", Redirect::CrossSlot),
];

impl Redirect {
    /// What an error of these words means; `None` if it is about something else.
    pub fn read(error: &str) -> Option<Self> {
        let (code, rest) = error.split_once(' ').unwrap_or((error, ""));
        match code {
            "MOVED" => read_place(rest).map(|(slot, target)| Self::Moved(slot, target)),
            "ASK" => read_place(rest).map(|(slot, target)| Self::Ask(slot, target)),
            "TRYAGAIN" => Some(Self::TryAgain),
            "CLUSTERDOWN" => Some(Self::ClusterDown),
            "READONLY" => Some(Self::ReadOnly),
            "CROSSSLOT" => Some(Self::CrossSlot),
            _ => IN_SCRIPTS.into_iter().find(|(part, _)| error.contains(part)).map(|(_, redirect)| redirect),
        }
    }
}

/// `<slot> <host>:<port>`. The host may be an IPv6 address without brackets, nothing, or `?` where it is not known.
fn read_place(text: &str) -> Option<(Slot, Option<Target>)> {
    let (slot, target) = text.trim_end().split_once(' ')?;
    let (host, port) = target.rsplit_once(':')?;
    let slot = Slot::new(slot.parse().ok()?)?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let target = match host {
        "?" => None,
        "" => Some(Target { host: None, port }),
        _ if reply::is_host(host) => Some(Target { host: Some(host.to_owned()), port }),
        _ => return None,
    };
    Some((slot, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_slot_and_an_address() {
        let moved = |host: Option<&str>, port| {
            let target = Target { host: host.map(str::to_owned), port };
            Some(Redirect::Moved(Slot::new(12182).unwrap(), Some(target)))
        };
        assert_eq!(Redirect::read("MOVED 12182 127.0.0.1:21103"), moved(Some("127.0.0.1"), 21103));
        assert_eq!(Redirect::read("MOVED 12182 ::1:6379"), moved(Some("::1"), 6379));
        assert_eq!(Redirect::read("MOVED 12182 a.redis.internal:6379"), moved(Some("a.redis.internal"), 6379));
        assert_eq!(Redirect::read("MOVED 12182 :6379"), moved(None, 6379));
        assert_eq!(Redirect::read("ASK 0 ?:6379"), Some(Redirect::Ask(Slot::new(0).unwrap(), None)));
        for wrong in [
            "MOVED",
            "MOVED 1",
            "MOVED 16384 h:1",
            "MOVED 1 h",
            "MOVED 1 h:0",
            "MOVED -1 h:1",
            "MOVED 1 a b:1",
            "ASKED 1 h:1",
        ] {
            assert_eq!(Redirect::read(wrong), None, "{wrong}");
        }
        let answerer = HostPort { host: "seed".to_owned(), port: 1 };
        let seen =
            |host: Option<&str>| Target { host: host.map(str::to_owned), port: 2 }.seen_from(&answerer).to_string();
        assert_eq!((seen(None), seen(Some("::1"))), ("seed:2".to_owned(), "[::1]:2".to_owned()));
    }

    /// As Redis 7.0.15 words them, and 6.2 and Valkey 9 where that differs.
    #[test]
    fn errors_are_told_apart_by_their_words() {
        let sha = "b4b66c20ea866f472341f7ab02f588f03771bc1e";
        let at = format!(" script: {sha}, on @user_script:1.");
        let old =
            |text: &str| format!("ERR Error running script (call to f_{sha}): @user_script:1: @user_script: 1: {text}");
        let table = [
            ("TRYAGAIN Multiple keys request during rehashing of slot".to_owned(), Redirect::TryAgain),
            ("CLUSTERDOWN Hash slot not served".to_owned(), Redirect::ClusterDown),
            ("CROSSSLOT Keys in request don't hash to the same slot".to_owned(), Redirect::CrossSlot),
            (format!("ERR Script attempted to access a non local key in a cluster node{at}"), Redirect::NotLocal),
            (format!("ERR Script attempted to execute a command while the cluster is down{at}"), Redirect::ClusterDown),
            (
                format!("ERR Script attempted to execute a write command while the cluster is down and readonly{at}"),
                Redirect::ClusterDown,
            ),
            (format!("READONLY You can't write against a read only replica.{at}"), Redirect::ReadOnly),
            (old("Lua script attempted to access a non local key in a cluster node"), Redirect::NotLocal),
            (format!("ERR Attempted to access a non local key in a cluster node{at}"), Redirect::NotLocal),
            (format!("ERR Can not execute a command 'zcard' while the cluster is down{at}"), Redirect::ClusterDown),
            (old("-READONLY You can't write against a read only replica."), Redirect::ReadOnly),
        ];
        for (error, redirect) in table {
            assert_eq!(Redirect::read(&error), Some(redirect), "{error}");
        }
        for other in
            ["", "ERR unknown command 'MOVED'", "WRONGTYPE Operation against a key", "NOSCRIPT No matching script."]
        {
            assert_eq!(Redirect::read(other), None, "{other}");
        }
    }
}
