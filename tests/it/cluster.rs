//! A Redis Cluster: that the one of the tests does what the tests rely on, and that its nodes are found.

mod failover;
mod forms;
mod moves;
mod resets;
mod same;

use crate::common::{Builder, Cluster, RedisServer, Reply, Tollgate, host_port, resolve};
use std::sync::Arc;
use tollgate::topology::conversation::Login;
use tollgate::topology::slot::Slot;
use tollgate::topology::slots::Slots;
use tollgate::topology::source::{ClusterSource, Source};

/// The slot of all keys with the tag `{m}`, and of `m`.
const SLOT_OF_M: usize = 15_627;

/// A Tollgate before a cluster.
fn before(cluster: &Cluster) -> Builder {
    Tollgate::builder().arg("--redis").arg(&cluster.url())
}

/// What the log of an hour holds of a key, wherever it is now.
fn counted(cluster: &Cluster, key: &str) -> i64 {
    let log = cluster.server(cluster.node_of(key)).entries(&format!("rl:{{{key}}}:3600000"));
    log.iter().map(|(_, weight)| weight).sum()
}

fn error_code(reply: &Reply) -> String {
    let Reply::Error(text) = reply else { panic!("no error: {reply:?}") };
    text.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_cluster_of_one_node_serves_all() {
    let cluster = Cluster::of_one();
    assert_eq!(cluster.len(), 1);
    for key in ["foo", "bar", "m"] {
        assert_eq!(cluster.node_of(key), 0);
        assert_eq!(cluster.command(0, &["SET", key, "1"]), Reply::Status("OK".to_owned()));
    }
}

#[test]
fn keys_of_a_slot_that_moves_are_where_they_were_or_where_it_goes() {
    let cluster = Cluster::start();
    let from = cluster.node_of("m");
    let to = (from + 1) % 3;
    cluster.command(from, &["SET", "{m}old", "1"]);
    let slot_move = cluster.begin_move(SLOT_OF_M, to);
    assert_eq!((slot_move.slot, slot_move.from, slot_move.to), (SLOT_OF_M, from, to));
    assert_eq!(cluster.command(from, &["GET", "{m}old"]).text(), "1");
    assert_eq!(error_code(&cluster.command(from, &["GET", "{m}new"])), "ASK");
    assert_eq!(error_code(&cluster.command(from, &["MGET", "{m}old", "{m}new"])), "TRYAGAIN");
    assert_eq!(error_code(&cluster.command(to, &["GET", "{m}new"])), "MOVED");
    cluster.move_keys(slot_move, &["{m}old"]);
    assert_eq!(error_code(&cluster.command(from, &["GET", "{m}old"])), "ASK");
    cluster.end_move(slot_move);
    assert_eq!(cluster.node_of("m"), to);
    assert_eq!(cluster.command(to, &["GET", "{m}old"]).text(), "1");
    cluster.reshard(10, to, from);
    assert_eq!(cluster.node_of("m"), to, "it takes the lowest");
}

#[test]
fn a_replica_takes_its_primarys_place() {
    let mut cluster = Cluster::start();
    let before = cluster.node_of("m");
    let [replica] = cluster.replicas_of(before)[..] else { panic!("one replica") };
    cluster.failover(replica);
    assert_eq!(cluster.node_of("m"), replica);
    cluster.kill(replica);
    cluster.wait_until_primary(before);
    cluster.start_again(replica);
    cluster.wait_until_agreed();
    assert_eq!((cluster.node_of("m"), cluster.replicas_of(before)), (before, vec![replica]));
    cluster.stop(before);
    cluster.wait_until_primary(replica);
    cluster.cont(before);
    cluster.wait_until_agreed();
    assert_eq!(cluster.node_of("m"), replica);
}

fn ask(source: &mut Source) -> (Arc<Slots>, u64) {
    let found = resolve(source).unwrap();
    (found.slots.expect("a cluster's"), found.epoch)
}

/// The port of the node that serves a key.
fn port_of(slots: &Slots, key: &str) -> u16 {
    slots.nodes()[usize::from(slots.owner(Slot::of(key.as_bytes())).unwrap())].addr.port
}

#[test]
fn any_node_of_a_cluster_tells_who_serves_what() {
    let mut cluster = Cluster::start();
    let seed = host_port(&cluster.server(4).addr());
    let mut source = Source::Cluster(ClusterSource::new(vec![seed], Login::default()));
    let (slots, epoch) = ask(&mut source);
    assert_eq!((slots.nodes().len(), slots.replicas().len(), epoch), (3, 3, 1));
    for key in ["foo", "bar", "m"] {
        assert_eq!(port_of(&slots, key), cluster.server(cluster.node_of(key)).port());
    }
    assert_eq!(ask(&mut source).1, 1, "nothing has changed");

    // The node that was configured may go, and a slot may move.
    cluster.kill(4);
    let from = cluster.node_of("m");
    let to = (from + 1) % 3;
    let slot_move = cluster.begin_move(SLOT_OF_M, to);
    assert_eq!(ask(&mut source).1, 1, "it is still on its way");
    cluster.end_move(slot_move);
    let (slots, epoch) = ask(&mut source);
    assert_eq!(port_of(&slots, "m"), cluster.server(to).port());
    assert!(epoch > 1);
}

#[test]
fn a_cluster_is_found_while_a_primary_hangs_and_once_it_is_replaced() {
    let mut cluster = Cluster::start();
    let seeds = (0..3).map(|node| host_port(&cluster.server(node).addr())).collect();
    let mut source = Source::Cluster(ClusterSource::new(seeds, Login::default()));
    let (before, epoch) = ask(&mut source);
    let [replica] = cluster.replicas_of(0)[..] else { panic!("one replica") };
    cluster.stop(0);
    let (while_it_hangs, same_epoch) = ask(&mut source);
    assert!(while_it_hangs.serve_alike(&before) && same_epoch == epoch, "nobody knows yet");
    cluster.wait_until_primary(replica);
    let (after, later) = ask(&mut source);
    assert!(later > epoch);
    assert!(after.nodes().iter().any(|node| node.addr.port == cluster.server(replica).port()));
    cluster.cont(0);
    cluster.wait_until_agreed();
}

#[test]
fn who_is_no_cluster_says_so() {
    let redis = RedisServer::start();
    let mut source = Source::Cluster(ClusterSource::new(vec![host_port(&redis.addr())], Login::default()));
    let error = resolve(&mut source).unwrap_err().to_string();
    assert_eq!(error, format!("{}: ERR This instance has cluster support disabled", redis.addr()));
}
