//! RL.RESET where several nodes count.

use super::before;
use crate::common::{Cluster, PATIENCE, RawClient, Reply, info, key_in, wait_until};
use std::time::Duration;

/// A key on each of the three primaries.
fn keys(cluster: &Cluster) -> Vec<String> {
    (0..3).map(|node| cluster.key_on(node)).collect()
}

/// The primary that keeps the registry.
fn registrar(cluster: &Cluster) -> usize {
    cluster.node_of("rl:windows")
}

/// Whether nothing is counted of a key for the window of an hour.
fn is_free(client: &mut RawClient, key: &str) -> bool {
    let decision = client.decide(&format!("RL.PEEK {key} 5 1h"));
    assert!(!decision.degraded);
    decision.remaining == 4
}

#[test]
fn a_reset_of_keys_of_all_nodes_says_how_many_had_state() {
    let cluster = Cluster::of_three();
    let tollgate = before(&cluster).start();
    let (keys, mut client) = (keys(&cluster), tollgate.client());
    for key in &keys {
        client.decide(&format!("RL.CHECK {key} 5 1h 50 2h"));
    }
    let all = keys.join(" ");
    assert_eq!(client.line(&format!("RL.RESET {all} nobody")).integer(), 3);
    assert_eq!(client.line(&format!("RL.RESET {all}")).integer(), 0);
    assert!(keys.iter().all(|key| is_free(&mut client, key)));

    // More than are asked about at once, and one of them twice.
    let many: Vec<String> = (0..600).map(|number| format!("many{number}")).collect();
    for key in &many {
        client.decide(&format!("RL.CHECK {key} 5 1h"));
    }
    assert_eq!(client.line(&format!("RL.RESET {} many0", many.join(" "))).integer(), 600);
}

#[test]
fn a_reset_goes_as_far_as_it_can_while_a_node_is_away() {
    let mut cluster = Cluster::of_three();
    let (keys, registrar) = (keys(&cluster), registrar(&cluster));
    let (away, there) = ((registrar + 1) % 3, (registrar + 2) % 3);
    let tollgate = before(&cluster).env("TOLLGATE_REDIS__TIMEOUT_MS", "1000").expect_log("redis").start();
    let mut client = tollgate.client();
    for key in &keys {
        client.decide(&format!("RL.CHECK {key} 5 1h"));
    }
    cluster.kill(away);
    let refused = client.line(&format!("RL.RESET {}", keys.join(" ")));
    assert_eq!(refused, Reply::Error("UNAVAILABLE Redis cannot be reached".to_owned()));
    assert!(is_free(&mut client, &keys[there]));
    assert!(is_free(&mut client, &keys[registrar]));
}

/// Only a reset needs the registry. What was first used while its node was away is found by a reset later.
#[test]
fn checks_go_on_while_the_registry_is_away() {
    let mut cluster = Cluster::of_three();
    let (keys, registrar) = (keys(&cluster), registrar(&cluster));
    let there = (registrar + 1) % 3;
    let tollgate = before(&cluster).env("TOLLGATE_REDIS__TIMEOUT_MS", "1000").expect_log("redis").start();
    let mut client = tollgate.client();
    client.decide(&format!("RL.CHECK {} 5 1h", keys[there]));
    cluster.stop(registrar);
    wait_until(PATIENCE, || client.decide(&format!("RL.CHECK {} 5 1h", keys[registrar])).degraded);
    let new = client.decide(&format!("RL.CHECK {} 5 7h", keys[there]));
    assert_eq!((new.remaining, new.degraded), (4, false), "a window that is new");
    assert_eq!(client.decide(&format!("RL.CHECK {} 5 1h", keys[there])).remaining, 3);
    let refused = client.line(&format!("RL.RESET {}", keys[there]));
    assert_eq!(refused, Reply::Error("UNAVAILABLE Redis cannot be reached".to_owned()));
    cluster.cont(registrar);
    wait_until(PATIENCE, || client.line(&format!("RL.RESET {}", keys[there])) == Reply::Integer(1));
    assert_eq!(client.decide(&format!("RL.PEEK {} 5 7h", keys[there])).remaining, 4);
    // One that another Tollgate has used, which alone knows of it.
    let other = before(&cluster).start();
    wait_until(PATIENCE, || other.client().line(&format!("RL.RESET {}", keys[there])) == Reply::Integer(0));
    assert_eq!(client.decide(&format!("RL.CHECK {} 5 7h", keys[there])).remaining, 4);
    assert_eq!(other.client().line(&format!("RL.RESET {}", keys[there])), Reply::Integer(1));
}

#[test]
fn logs_are_reset_wherever_a_moving_slot_has_them() {
    let mut cluster = Cluster::of_one();
    let spare = cluster.add_spare();
    let tollgate = before(&cluster).start();
    let (key, mut client) = (key_in(0), tollgate.client());
    client.decide(&format!("RL.CHECK {key} 5 1h 5 2h"));
    let slot_move = cluster.begin_move(0, spare);
    cluster.move_keys(slot_move, &[&format!("rl:{{{key}}}:7200000")]);
    assert_eq!(client.line(&format!("RL.RESET {key} nobody")).integer(), 1);
    for node in [0, spare] {
        let is_log = |name: &Vec<u8>| name.starts_with(b"rl:{");
        assert!(!cluster.server(node).keys().iter().any(is_log), "node {node}");
    }
    cluster.end_move(slot_move);
    assert_eq!(client.decide(&format!("RL.CHECK {key} 5 1h 5 2h")).remaining, 4);
}

/// Denials are repeated without asking until the key is reset, by whichever Tollgate: of a key of any node.
#[test]
fn resets_are_heard_of_keys_of_any_node() {
    let cluster = Cluster::of_three();
    let keys = keys(&cluster);
    let [one, other] = [(); 2].map(|()| before(&cluster).env("TOLLGATE_DENY_CACHE__MAX_MS", "3600000").start());
    let mut client = other.client();
    for key in &keys {
        let question = format!("RL.CHECK {key} 1 1h");
        assert!(client.decide(&question).allowed);
        let cached = || info(&other, "answers_by_deny_cache").parse::<u64>().unwrap();
        let before = cached();
        wait_until(PATIENCE, || {
            assert!(!client.decide(&question).allowed);
            cached() > before
        });
    }
    assert_eq!(one.client().line(&format!("RL.RESET {}", keys.join(" "))).integer(), 3);
    for key in &keys {
        wait_until(Duration::from_secs(5), || client.decide(&format!("RL.CHECK {key} 1 1h")).allowed);
    }
}
