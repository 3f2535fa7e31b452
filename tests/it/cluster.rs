//! A Redis Cluster: that the one of the tests does what the tests rely on.

use crate::common::{Cluster, Reply};

/// The slot of all keys with the tag `{m}`, and of `m`.
const SLOT_OF_M: usize = 15_627;

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
