//! What clients see of a Tollgate before a Redis Cluster: a cluster of one node, which runs Tollgate's own commands for
//! all slots, and nothing else.

use crate::common::{Builder, Cluster, PATIENCE, RawClient, Reply, Tollgate, encode, wait_until};
use std::fs;
use std::net::SocketAddr;
use tollgate::topology::slot::Slot;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const END: &str = "the end of what was sent";

fn before(cluster: &Cluster) -> Builder {
    let addr = cluster.server(0).addr();
    Tollgate::builder().arg("--redis").arg(&format!("redis+cluster://{addr}"))
}

fn ok() -> Reply {
    Reply::Status("OK".into())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.into())
}

fn refusal(name: &str) -> Reply {
    error(&format!("ERR this Tollgate is before a Redis Cluster and runs RL.* only: send '{name}' to the cluster"))
}

/// What is answered to `requests`, as it stands on the wire.
fn answers(addr: SocketAddr, requests: &str) -> String {
    let mut client = RawClient::connect(addr);
    client.send(&[requests.as_bytes(), &encode(&["ECHO", END])].concat());
    String::from_utf8_lossy(&client.read_raw_until(END.as_bytes())).into_owned()
}

#[test]
fn what_clients_of_clusters_ask_is_answered_as_by_a_node() {
    let cluster = Cluster::of_one();
    let tollgate = before(&cluster).start();
    for requests in [
        "SELECT 0\r\nSELECT 1\r\nSELECT -1\r\nSELECT x\r\nSELECT\r\n",
        "READONLY\r\nREADWRITE\r\nASKING\r\nREADONLY x\r\nREADWRITE x\r\nASKING x\r\n",
        "CLUSTER\r\nCLUSTER FOO\r\nCLUSTER SLOTS x\r\nCLUSTER KEYSLOT\r\nCLUSTER NODES x\r\nCLUSTER MYID x\r\n",
        "CLUSTER KEYSLOT foo\r\nCLUSTER KEYSLOT {foo}bar\r\nCLUSTER KEYSLOT {}\r\nCLUSTER KEYSLOT \"\"\r\nCLUSTER LINKS\r\n",
        "CONFIG GET cluster-enabled\r\nINFO cluster\r\n",
        "HELLO 3\r\nINFO cluster\r\nCLUSTER LINKS\r\nSELECT 1\r\n",
    ] {
        // Ids of clients differ.
        let without_id = |text: String| {
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            let id = lines.iter().position(|line| line == "id").map(|at| at + 1);
            lines.into_iter().enumerate().filter(|(at, _)| Some(*at) != id).map(|(_, line)| line).collect::<Vec<_>>()
        };
        let expected = without_id(answers(cluster.server(0).addr(), requests));
        assert_eq!(without_id(answers(tollgate.addr(), requests)), expected, "{requests}");
    }
    let mut client = tollgate.client();
    assert!(client.line("INFO server").text().contains("\r\nredis_mode:cluster\r\n"));
    assert!(client.line("INFO clients").text().contains("\r\nblocked_clients:0\r\n"));
    assert!(client.line("INFO").text().contains("\r\n# Tollgate\r\n"));
    assert!(client.line("CLUSTER INFO").text().starts_with("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"));
    // Where a library looks for the key by which it chooses a node.
    let [first, last, step] = [3, 4, 5].map(|at| client.line("COMMAND INFO rl.check").items()[0].items()[at].integer());
    assert_eq!([first, last, step], [1, 1, 1]);
    for key in ["a", "{b}c", "{", "}{x}"] {
        let slot = Slot::of(key.as_bytes()).number();
        assert_eq!(client.cmd(&["CLUSTER", "KEYSLOT", key]), Reply::Integer(slot.into()));
    }
}

/// Whoever came before Tollgate knew would have been told of the nodes, and have gone there from then on.
#[test]
fn nobody_is_answered_by_a_node_before_it_is_known_to_be_one_of_a_cluster() {
    let cluster = Cluster::of_one();
    for _ in 0..5 {
        let tollgate = Tollgate::builder().redis(cluster.server(0)).start();
        let mut client = tollgate.client();
        client.send(&[encode(&["CLUSTER", "MYID"]), encode(&["GET", "k"]), encode(&["INFO", "server"])].concat());
        let id = client.read().text();
        assert!(id.len() == cluster.id(0).len() && id != cluster.id(0), "{id}");
        assert_eq!(client.read(), refusal("GET"));
        assert!(client.read().text().contains("\r\nredis_mode:cluster\r\n"));
        wait_until(PATIENCE, || !client.decide("RL.CHECK k 1000 1h").degraded);
    }
}

#[test]
fn all_slots_are_served_where_the_client_has_come() {
    let cluster = Cluster::of_one();
    let local = before(&cluster).start();
    let port = local.addr().port();
    let by_name = before(&cluster).env("TOLLGATE_SERVER__ANNOUNCE", "tollgate.example.com").start();
    let nat = before(&cluster).env("TOLLGATE_SERVER__ANNOUNCE", "[2001:db8::7]:7000").start();
    for (tollgate, host, port) in [
        (&local, "127.0.0.1", port),
        (&by_name, "tollgate.example.com", by_name.addr().port()),
        (&nat, "2001:db8::7", 7000),
    ] {
        let mut client = tollgate.client();
        let id = client.line("CLUSTER MYID");
        assert!(id.text().len() == 40 && id.text().bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?}");
        let host_port = [Reply::bulk(host), Reply::Integer(port.into())];
        for hello in ["HELLO 2", "HELLO 3"] {
            client.line(hello);
            let slots = client.line("CLUSTER SLOTS");
            let [stretch] = slots.items() else { panic!("one stretch: {slots:?}") };
            assert_eq!(stretch.items()[..2], [0, 16_383].map(Reply::Integer));
            let node = stretch.items()[2].items();
            assert_eq!((&node[..2], &node[2]), (&host_port[..], &id));

            let shards = client.line("CLUSTER SHARDS");
            let [shard] = shards.items() else { panic!("one shard: {shards:?}") };
            assert_eq!(shard.field("slots").items(), [0, 16_383].map(Reply::Integer));
            let node = &shard.field("nodes").items()[0];
            assert_eq!([node.field("endpoint"), node.field("port")], [&host_port[0], &host_port[1]]);
            assert_eq!((node.field("id"), node.field("role").text()), (&id, "master".to_owned()));

            let nodes = client.line("CLUSTER NODES").text();
            let line = format!("{} {host}:{port}@0 myself,master - 0 0 1 connected 0-16383\n", id.text());
            assert_eq!(nodes.strip_prefix("txt:").unwrap_or(&nodes), line);
        }
    }
}

#[test]
fn other_commands_are_for_the_cluster_and_tollgates_own_go_on() {
    let cluster = Cluster::of_one();
    let tollgate = before(&cluster).start();
    let mut client = tollgate.client();
    assert_eq!(client.line("RL.CHECK k 10 1h").decision().remaining, 9);
    for name in ["GET", "set", "FooBar", "SUBSCRIBE", "BLPOP", "MONITOR", "EVAL", "WATCH", "KEYS", "Type", "OBJECT"] {
        assert_eq!(client.cmd(&[name, "x"]), refusal(name), "{name}");
    }
    assert_eq!(client.line("DBSIZE"), refusal("DBSIZE"));
    assert_eq!(client.line("MEMORY USAGE k"), refusal("MEMORY"));
    assert_eq!(client.line("SCAN 0"), refusal("SCAN"));
    assert_eq!(client.cmd(&[&b"a\r\nb"[..], b"c"]), refusal("a  b"));
    assert_eq!(client.cmd(&["x".repeat(1000)]), refusal(&"x".repeat(64)));
    // It is like Tollgate's own, and the cluster would not know it either.
    assert_eq!(client.line("RL.WHAT x"), error("ERR unknown command 'RL.WHAT', with args beginning with: 'x' "));

    // In order, and whole, however long they are.
    let long = |length| encode(&[b"SET".as_slice(), b"k", &vec![b'v'; length]]);
    let check = encode(&["RL.CHECK", "k", "10", "1h"]);
    client.send(&[encode(&["GET", "k"]).repeat(300), check.clone(), long(300_000), long(3_000_000), check].concat());
    for _ in 0..300 {
        assert_eq!(client.read(), refusal("GET"));
    }
    assert_eq!(client.read().decision().remaining, 8);
    assert_eq!(client.read(), refusal("SET"));
    assert_eq!(client.read(), error("ERR the command is too long"));
    assert_eq!(client.read().decision().remaining, 7);

    assert_eq!(client.line("MULTI"), ok());
    assert_eq!(client.line("RL.CHECK k 10 1h"), Reply::Status("QUEUED".into()));
    assert_eq!(client.line("EXEC").items()[0].decision().remaining, 6);
    assert_eq!(client.line("MULTI"), ok());
    assert!(client.line("GET k").text().starts_with("ERR 'get' cannot run in a transaction of RL commands"));
    assert!(client.line("EXEC").text().starts_with("EXECABORT "));
    assert_eq!(cluster.command(0, &["EXISTS", "k"]), Reply::Integer(0));
    // Nothing of it has opened a connection of the client's.
    assert_eq!(
        client.line("INFO tollgate").text().lines().find(|line| line.starts_with("commands_forwarded:")),
        Some("commands_forwarded:0")
    );
}

/// As it does before one Redis. At first there is no node to be shown anything, and the login waits until one is found.
#[test]
fn a_login_is_shown_to_a_node_and_nothing_else_is() {
    for mode in ["none", "redis"] {
        let cluster = Cluster::of_one();
        cluster.command(0, &["ACL", "SETUSER", "low", "on", ">word", "+ping"]);
        let tollgate = before(&cluster).env("TOLLGATE_AUTH__MODE", mode).start();
        let mut client = tollgate.client();
        assert_eq!(client.line("AUTH low wrong"), error(WRONG_PASSWORD));
        // What stands behind a HELLO that chooses the protocol is answered in that.
        let hello = ["HELLO", "3", "AUTH", "low", "word"];
        client.send(&[encode(&hello), encode(&["INFO", "tollgate"]), encode(&["GET", "k"])].concat());
        let hello = client.read();
        assert_eq!((hello.field("mode"), hello.field("proto")), (&Reply::bulk("cluster"), &Reply::Integer(3)));
        assert!(matches!(client.read(), Reply::Verbatim(_)));
        assert_eq!(client.read(), refusal("GET"));
        assert_eq!(&client.line("CLIENT ID"), hello.field("id"));
        // Its connection to the node is open, and idle.
        client.send(&encode(&["GET", "k"]).repeat(2));
        assert_eq!([client.read(), client.read()], ["GET", "GET"].map(refusal));
        assert_eq!(client.decide("RL.CHECK k 10 1h").remaining, 9);
        assert!(client.line("CLIENT LIST").text().contains(" user=low "));

        assert_eq!(client.line("RESET"), Reply::Status("RESET".into()));
        if mode == "redis" {
            assert_eq!(client.line("CLUSTER SLOTS"), error("NOAUTH Authentication required."));
            assert_eq!(client.line("AUTH low word"), ok());
            // One that was opened to ask about the login anew would take commands.
            cluster.command(0, &["CLIENT", "KILL", "USER", "low"]);
            wait_until(PATIENCE, || cluster.command(0, &["CLIENT", "LIST"]).text().contains("user=low"));
            assert_eq!(client.line("GET k"), refusal("GET"));
            cluster.command(0, &["ACL", "DELUSER", "low"]);
            wait_until(PATIENCE, || client.line("CLUSTER MYID") == error("NOAUTH Authentication required."));
        }
    }
}

#[test]
fn a_user_for_checks_alone_may_ask_where_keys_are() {
    let cluster = Cluster::of_one();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    let text = "[auth]\nmode = 'password'\n[[auth.users]]\nname = 'shop'\ncommands = 'rl-only'\n\
                password_sha256 = '8d9001d32c6a703d95921a77115050f33dd823d3f1730bd35215dcbecad6dc20'\n";
    fs::write(&file, text).unwrap();
    let tollgate = before(&cluster).arg("--config").arg(file.to_str().unwrap()).start();
    let mut client = tollgate.client();
    assert_eq!(client.line("CLUSTER SLOTS"), error("NOAUTH Authentication required."));
    assert_eq!(client.line("HELLO 3 AUTH shop shop").field("mode"), &Reply::bulk("cluster"));
    assert_eq!(client.line("CLUSTER SLOTS").items().len(), 1);
    assert_eq!(client.line("READONLY"), ok());
    assert_eq!(client.line("RL.CHECK k 10 1h").decision().remaining, 9);
    assert!(client.line("GET k").text().starts_with("NOPERM "));
}
