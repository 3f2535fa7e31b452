//! CLUSTER: before a Redis Cluster, Tollgate shows itself as a cluster of one node, which serves all slots. So clients
//! that know of clusters send it Tollgate's own commands, whatever their keys. To them the nodes behind do not exist.

use crate::config::HostPort;
use crate::resp::reply::{self, Protocol};
use crate::resp::request::Args;
use crate::run_id::run_id;
use crate::session::client::Client;
use crate::topology::slot::{SLOTS, Slot};
use crate::worker::{Shared, Worker};
use bytes::BytesMut;
use std::net::Ipv4Addr;

/// How long a node's id is, in hexadecimal digits.
const ID_DIGITS: usize = 40;

/// Answers a subcommand of CLUSTER, or READONLY, READWRITE and ASKING, which change nothing here.
pub fn run(sub: &str, worker: &Worker, client: &Client, args: &Args<'_>, out: &mut BytesMut) {
    if !worker.shared.backend.is_cluster() {
        return reply::error(out, "ERR This instance has cluster support disabled");
    }
    match sub {
        "info" => reply::verbatim(out, info().as_bytes(), client.protocol),
        "keyslot" => reply::integer(out, Slot::of(args.get(2).unwrap_or_default()).number().into()),
        "links" => reply::array(out, 0),
        "myid" => reply::bulk(out, node_id().as_bytes()),
        "nodes" => reply::verbatim(out, nodes(&announced(worker, client)).as_bytes(), client.protocol),
        "shards" => shards(&announced(worker, client), client.protocol, out),
        "slots" => slots(&announced(worker, client), client.protocol, out),
        _ => reply::status(out, "OK"),
    }
}

/// Where a client is to connect to: where it has, unless something else is configured.
fn announced(worker: &Worker, client: &Client) -> HostPort {
    let Shared { client_list, config, .. } = &*worker.shared;
    // Only one that has just been killed is not in the list, and it reads nothing.
    let local = client_list.get(client.id).map_or((Ipv4Addr::UNSPECIFIED, 0).into(), |entry| entry.local);
    match &config.server.announce {
        None => HostPort { host: local.ip().to_string(), port: local.port() },
        Some(HostPort { host, port: 0 }) => HostPort { host: host.clone(), port: local.port() },
        Some(announced) => announced.clone(),
    }
}

/// The id of the one node, the same for as long as this process lives.
fn node_id() -> String {
    run_id().chars().cycle().take(ID_DIGITS).collect()
}

fn info() -> String {
    let fields = [
        ("cluster_state", "ok".to_owned()),
        ("cluster_slots_assigned", SLOTS.to_string()),
        ("cluster_slots_ok", SLOTS.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", "0".to_owned()),
        ("cluster_known_nodes", "1".to_owned()),
        ("cluster_size", "1".to_owned()),
        ("cluster_current_epoch", "1".to_owned()),
        ("cluster_my_epoch", "1".to_owned()),
    ];
    fields.into_iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect()
}

/// `<id> <host>:<port>@<port of the bus> <flags> <primary> <ping> <pong> <epoch> <link> <slots>`. An IPv6 address has no
/// brackets here, and there is no bus.
fn nodes(HostPort { host, port }: &HostPort) -> String {
    format!("{} {host}:{port}@0 myself,master - 0 0 1 connected 0-{}\n", node_id(), SLOTS - 1)
}

fn slots(HostPort { host, port }: &HostPort, protocol: Protocol, out: &mut BytesMut) {
    reply::array(out, 1);
    reply::array(out, 3);
    reply::integer(out, 0);
    reply::integer(out, (SLOTS - 1).into());
    reply::array(out, 4);
    reply::bulk(out, host.as_bytes());
    reply::integer(out, (*port).into());
    reply::bulk(out, node_id().as_bytes());
    // Nothing more is known of it.
    reply::map(out, 0, protocol);
}

fn shards(HostPort { host, port }: &HostPort, protocol: Protocol, out: &mut BytesMut) {
    reply::array(out, 1);
    reply::map(out, 2, protocol);
    reply::bulk(out, b"slots");
    reply::array(out, 2);
    reply::integer(out, 0);
    reply::integer(out, (SLOTS - 1).into());
    reply::bulk(out, b"nodes");
    reply::array(out, 1);
    reply::map(out, 8, protocol);
    let texts = [("id", &*node_id()), ("ip", host), ("endpoint", host), ("role", "master"), ("health", "online")];
    for (name, text) in texts {
        reply::bulk(out, name.as_bytes());
        reply::bulk(out, text.as_bytes());
    }
    // A client takes the one or the other, by whether it speaks TLS, and has come by the right one.
    for (name, number) in [("port", *port), ("tls-port", *port), ("replication-offset", 0)] {
        reply::bulk(out, name.as_bytes());
        reply::integer(out, number.into());
    }
}
