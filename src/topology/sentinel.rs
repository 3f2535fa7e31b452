//! What is asked of a sentinel, and how its answers read.
//!
//! A group of sentinels watches a primary by name, and agrees on which of its replicas follows it. Each such change has
//! an epoch of its own, so of two sentinels that name different primaries, the one with the higher epoch knows better.
//! What it names may not be a primary yet, nor any more: `ROLE` there has the last word.

use super::reply::{self, Frame, Wrong};
use crate::config::HostPort;

/// Most sentinels, and most replicas, that are learnt of: a group has five or so.
pub const MAX_PEERS: usize = 16;
/// The channel on which a sentinel tells that a primary was replaced; [`Switch`] reads its messages.
pub const SWITCH_CHANNEL: &str = "+switch-master";

/// What a sentinel knows of a primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Where the primary is.
    pub primary: HostPort,
    /// When that was decided: the higher, the later. 0 where the sentinel does not say.
    pub epoch: u64,
    /// The other sentinels of the group, at most [`MAX_PEERS`]; none where it does not say.
    pub sentinels: Vec<HostPort>,
}

/// The questions that [`View::read`] reads the answers to.
pub fn questions(name: &str) -> [[&str; 3]; 3] {
    [["SENTINEL", "get-master-addr-by-name", name], ["SENTINEL", "master", name], ["SENTINEL", "sentinels", name]]
}

/// The question that [`peers`] reads the answer to, as that to the last of [`questions`].
pub fn replicas_question(name: &str) -> [&str; 3] {
    ["SENTINEL", "replicas", name]
}

impl View {
    /// Reads the answers to [`questions`]. `None`: the sentinel watches nothing by this name. A user may be allowed to
    /// ask the first alone.
    ///
    /// # Errors
    /// The first is no answer.
    pub fn read(answers: [Result<Frame, Wrong>; 3]) -> Result<Option<Self>, Wrong> {
        let [addr, master, sentinels] = answers;
        let primary = match addr? {
            Frame::Null => return Ok(None),
            addr => read_addr(&reply::items(addr)?).ok_or(Wrong::Unexpected)?,
        };
        let master = master.and_then(reply::items).unwrap_or_default();
        let epoch = field(&master, "config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok(Some(Self { primary, epoch, sentinels: sentinels.map_or_else(|_| Vec::new(), peers) }))
    }
}

/// The addresses of sentinels or replicas that a sentinel lists, at most [`MAX_PEERS`]. What is no address is left out.
pub fn peers(answer: Frame) -> Vec<HostPort> {
    let peers = reply::items(answer).unwrap_or_default().into_iter().filter_map(|peer| {
        let fields = reply::items(peer).ok()?;
        host_port(field(&fields, "ip")?, field(&fields, "port")?)
    });
    peers.take(MAX_PEERS).collect()
}

/// What a server says that it is, by `ROLE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// What is written there counts.
    Primary,
    /// It follows another.
    Replica {
        /// The address of what it follows.
        of: HostPort,
        /// Whether it is in touch with that, and knows all that it has.
        is_connected: bool,
    },
    /// A sentinel, and the names that it watches.
    Sentinel(Vec<String>),
}

impl Role {
    /// Reads the answer to `ROLE`.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(answer: Frame) -> Result<Self, Wrong> {
        let items = reply::items(answer)?;
        match items.first().and_then(reply::text) {
            Some("master") => Ok(Self::Primary),
            Some("slave") => {
                let of = items.get(1..).and_then(read_addr).ok_or(Wrong::Unexpected)?;
                Ok(Self::Replica { of, is_connected: items.get(3).and_then(reply::text) == Some("connected") })
            }
            Some("sentinel") => match items.get(1) {
                Some(Frame::Array(names)) => {
                    Ok(Self::Sentinel(names.iter().filter_map(reply::text).map(str::to_owned).collect()))
                }
                _ => Err(Wrong::Unexpected),
            },
            _ => Err(Wrong::Unexpected),
        }
    }
}

/// What a message of [`SWITCH_CHANNEL`] says: of what name, and where its primary is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The name.
    pub name: String,
    /// The new primary.
    pub to: HostPort,
}

impl Switch {
    /// Reads `<name> <old host> <old port> <new host> <new port>`.
    pub fn read(message: &str) -> Option<Self> {
        let mut words = message.rsplitn(5, ' ');
        let (port, host) = (words.next()?, words.next()?);
        let name = words.nth(2)?.to_owned();
        Some(Self { name, to: host_port(host, port)? })
    }
}

/// The address that some values begin with.
fn read_addr(items: &[Frame]) -> Option<HostPort> {
    let host = items.first().and_then(reply::text).filter(|host| reply::is_host(host))?;
    Some(HostPort { host: host.to_owned(), port: items.get(1).and_then(reply::port)? })
}

fn host_port(host: &str, port: &str) -> Option<HostPort> {
    let port = port.parse().ok().filter(|port| *port > 0)?;
    reply::is_host(host).then(|| HostPort { host: host.to_owned(), port })
}

/// What stands behind a name among names and values.
fn field<'a>(fields: &'a [Frame], name: &str) -> Option<&'a str> {
    let (pairs, _) = fields.as_chunks::<2>();
    pairs.iter().find_map(|[key, value]| (reply::text(key)? == name).then(|| reply::text(value))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply of the wire, written with blanks in place of line ends.
    fn reply(text: &str) -> Result<Frame, Wrong> {
        reply::read(format!("{text} ").replace(' ', "\r\n").as_bytes())
    }

    fn addr(host: &str, port: u16) -> HostPort {
        HostPort { host: host.to_owned(), port }
    }

    #[test]
    fn a_view_is_an_address_with_what_else_is_told() {
        let primary = || reply("*2 $8 10.0.0.1 $4 6379");
        let master = reply("*6 $4 name $1 m $12 config-epoch $2 17 $5 flags $6 master");
        let peer = "*4 $2 ip $8 10.0.0.7 $4 port $5 26379";
        let sentinels = reply(&format!("*3 {peer} *2 $2 ip $1 x {peer}"));
        let view = View::read([primary(), master, sentinels]).unwrap().unwrap();
        let other = addr("10.0.0.7", 26379);
        assert_eq!(view, View { primary: addr("10.0.0.1", 6379), epoch: 17, sentinels: vec![other.clone(), other] });

        let refused = || Err(Wrong::Refused("NOPERM".to_owned()));
        let view = View::read([primary(), refused(), refused()]).unwrap().unwrap();
        assert_eq!((view.epoch, view.sentinels), (0, vec![]), "who may ask for the address alone");
        assert_eq!(View::read([reply("*-1"), refused(), refused()]), Ok(None));
        assert_eq!(View::read([refused(), refused(), refused()]), Err(Wrong::Refused("NOPERM".to_owned())));
        for wrong in ["*1 $1 h", "*2 $1 h $1 0", "*2 $0  $1 1", ":1", "*2 $1 h $5 65536"] {
            assert_eq!(View::read([reply(wrong), refused(), refused()]), Err(Wrong::Unexpected), "{wrong}");
        }
    }

    #[test]
    fn peers_are_bounded() {
        let many = format!("*100{}", " *4 $2 ip $1 h $4 port $1 1".repeat(100));
        assert_eq!(peers(reply(&many).unwrap()).len(), MAX_PEERS);
        assert_eq!(peers(Frame::Integer(1)), []);
    }

    #[test]
    fn roles_are_told_apart() {
        let role = |text: &str| Role::read(reply(text)?);
        assert_eq!(role("*3 $6 master :0 *0"), Ok(Role::Primary));
        let of = |is_connected| Ok(Role::Replica { of: addr("h", 1), is_connected });
        assert_eq!(role("*5 $5 slave $1 h :1 $9 connected :9"), of(true));
        assert_eq!(role("*5 $5 slave $1 h :1 $4 sync :9"), of(false));
        assert_eq!(role("*2 $8 sentinel *2 $1 a $1 b"), Ok(Role::Sentinel(vec!["a".to_owned(), "b".to_owned()])));
        for wrong in ["*0", "$6 master", "*1 $5 slave", "*1 $8 sentinel", "*1 $5 other"] {
            assert_eq!(role(wrong), Err(Wrong::Unexpected), "{wrong}");
        }
    }

    #[test]
    fn a_switch_names_the_new_primary() {
        let switch = Switch::read("my master 10.0.0.1 6379 10.0.0.2 6380");
        assert_eq!(switch, Some(Switch { name: "my master".to_owned(), to: addr("10.0.0.2", 6380) }));
        for wrong in ["", "m h 1", "m h 1 h 0", "m h 1 h x", "h 1 h 1"] {
            assert_eq!(Switch::read(wrong), None, "{wrong}");
        }
    }
}
