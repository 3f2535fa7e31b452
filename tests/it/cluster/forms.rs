//! The ways in which one comes to be before a cluster.

use super::before;
use crate::common::{Certificates, Cluster, PATIENCE, Tollgate, free_port, info, program, wait_until};

#[track_caller]
fn assert_exact(tollgate: &Tollgate, cluster: &Cluster) {
    let mut client = tollgate.client();
    for key in ["foo", "bar", "m"] {
        let decision = client.decide(&format!("RL.CHECK {key} 5 1h"));
        assert_eq!((decision.remaining, decision.degraded), (4, false), "{:?}", tollgate.log());
        let logs = cluster.server(cluster.node_of(key)).keys();
        assert!(logs.contains(&format!("rl:{{{key}}}:3600000").into_bytes()));
        client.line(&format!("RL.RESET {key}"));
    }
    assert_eq!(info(tollgate, "topology"), "cluster");
}

#[test]
fn a_node_at_a_plain_address_is_taken_for_what_it_is() {
    let cluster = Cluster::of_three();
    for node in 0..3 {
        let tollgate = Tollgate::builder().redis(cluster.server(node)).start();
        assert_exact(&tollgate, &cluster);
        let told = || tollgate.log().iter().filter(|line| line.contains("is a node of a cluster")).count();
        wait_until(PATIENCE, || told() == 1);
    }
    let pinned = Tollgate::builder().redis(cluster.server(1)).env("TOLLGATE_REDIS__MODE", "cluster").start();
    assert_exact(&pinned, &cluster);
    let tried =
        program().args(["--check-config", "--connect", "--redis", &cluster.server(2).addr().to_string()]).output();
    let tried = tried.unwrap();
    let said = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success() && said.contains("topology: cluster"), "{said}");
}

#[test]
fn a_node_that_is_said_to_be_alone_is_refused_and_named() {
    let cluster = Cluster::of_one();
    let single = Tollgate::builder().redis(cluster.server(0)).env("TOLLGATE_REDIS__MODE", "single");
    let single = single.expect_log("circuit opened, redis cannot be used").start();
    assert!(single.client().decide("RL.CHECK k 5 1h").degraded);
    let problem = info(&single, "store_problem");
    assert!(problem.contains("Redis Cluster"), "{problem}");
    assert!(info(&single, "store_advice").contains("redis.mode"), "{}", info(&single, "store_advice"));
}

#[test]
fn a_cluster_of_one_node_is_one_too() {
    let cluster = Cluster::of_one();
    assert_exact(&before(&cluster).start(), &cluster);
}

/// The address that the cluster tells clients leads nowhere, and its name does.
#[test]
fn nodes_are_called_by_the_names_that_the_cluster_prefers() {
    let cluster = Cluster::of_one_with(&["--cluster-announce-hostname", "localhost"]);
    cluster.command(0, &["CONFIG", "SET", "cluster-announce-ip", "127.0.0.99"]);
    cluster.command(0, &["CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname"]);
    let tollgate = before(&cluster).start();
    assert_exact(&tollgate, &cluster);
    let node = info(&tollgate, "node0");
    assert!(node.starts_with(&format!("addr=localhost:{},", cluster.server(0).port())), "{node}");
    // Where it says that it does not know its host, that is the one that was asked.
    cluster.command(0, &["CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint"]);
    assert_exact(&before(&cluster).start(), &cluster);
}

#[test]
fn nodes_are_reached_by_tls() {
    let certificates = Certificates::new();
    let path = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let files = [path("ca.crt"), path("server.crt"), path("server.key")];
    let port = free_port().to_string();
    let cluster = Cluster::of_one_with(&[
        "--tls-port",
        &port,
        "--tls-ca-cert-file",
        &files[0],
        "--tls-cert-file",
        &files[1],
        "--tls-key-file",
        &files[2],
        "--tls-cluster",
        "yes",
    ]);
    let secure = |addr: &str| {
        let builder = Tollgate::builder().arg("--redis").arg(addr).env("TOLLGATE_REDIS__CA_FILE", &path("ca.crt"));
        let builder = builder.env("TOLLGATE_REDIS__CERT_FILE", &path("client.crt"));
        builder.env("TOLLGATE_REDIS__KEY_FILE", &path("client.key")).expect_log("redis").start()
    };
    for addr in [format!("rediss+cluster://localhost:{port}"), format!("rediss://127.0.0.1:{port}")] {
        let tollgate = secure(&addr);
        // A machine that is busy may take its time to agree on keys.
        wait_until(PATIENCE, || info(&tollgate, "topology") == "cluster" && info(&tollgate, "store_up") == "1");
        assert_exact(&tollgate, &cluster);
    }
}
