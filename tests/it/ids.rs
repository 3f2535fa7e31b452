//! The id that a client is told when it says HELLO is its own wherever ids are named, though Redis has another.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, wait_until};

const PROTOCOLS: [&str; 2] = ["HELLO 2", "HELLO 3"];

fn ok() -> Reply {
    Reply::Status("OK".into())
}

/// A client that has said HELLO, and the id that it was told.
fn greeted(tollgate: &Tollgate, hello: &str) -> (RawClient, i64) {
    let mut client = tollgate.client();
    let id = client.line(hello).field("id").integer();
    (client, id)
}

/// The lines of CLIENT LIST or CLIENT INFO.
fn lines(reply: &Reply) -> Vec<String> {
    reply.text().trim_start_matches("txt:").lines().map(str::to_owned).collect()
}

/// Those in which the field stands.
fn lines_with(reply: &Reply, field: &str) -> Vec<String> {
    lines(reply).into_iter().filter(|line| line.split(' ').any(|one| one == field)).collect()
}

/// The one line of CLIENT LIST in which the field stands.
#[track_caller]
fn line_with(client: &mut RawClient, field: &str) -> String {
    let lines = lines_with(&client.line("CLIENT LIST"), field);
    let [line] = &lines[..] else { panic!("{field} is in {lines:?}") };
    line.clone()
}

fn field(line: &str, name: &str) -> String {
    line.split(' ').find_map(|one| one.strip_prefix(&format!("{name}="))).unwrap().to_owned()
}

/// Whether a client is still served.
fn is_served(client: &mut RawClient) -> bool {
    client.try_send(b"PING\r\n").is_ok() && client.try_read().is_ok()
}

/// HELLO's id was never CLIENT ID's.
#[test]
fn the_id_of_hello_is_the_clients_for_life() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    let mut other = tollgate.client();
    for hello in PROTOCOLS {
        let (mut client, id) = greeted(&tollgate, &format!("{hello} SETNAME app"));
        let own = format!("id={id}");
        // Without a connection to Redis.
        assert_eq!(field(&line_with(&mut other, &own), "name"), "app");
        assert_eq!(client.line("CLIENT ID"), Reply::Integer(id));
        for name in ["one", "two"] {
            assert_eq!(client.line("CLIENT ID"), Reply::Integer(id));
            assert_eq!(client.line(&format!("CLIENT SETNAME {name}")), ok());
            assert_eq!(lines_with(&client.line("CLIENT INFO"), &own).len(), 1);
            for by in [&mut other, &mut client] {
                let line = line_with(by, &own);
                assert_eq!((field(&line, "name").as_str(), field(&line, "cmd").is_empty()), (name, false), "{line}");
            }
            assert_eq!(client.line(hello).field("id"), &Reply::Integer(id));
            // The same once the connection to Redis is another.
            let at_redis = lines_with(&redis.command("CLIENT LIST"), &format!("name={name}"));
            assert_eq!(at_redis.len(), 1, "{at_redis:?}");
            let redis_id = field(&at_redis[0], "id");
            assert_ne!(redis_id, id.to_string());
            assert_eq!(redis.command(&format!("CLIENT KILL ID {redis_id}")), Reply::Integer(1));
            wait_until(PATIENCE, || !lines_with(&other.line("CLIENT LIST"), &own).is_empty());
            assert_eq!(field(&line_with(&mut other, &own), "name"), name);
        }
        assert_eq!(client.line("RESET"), Reply::Status("RESET".into()));
        assert_eq!(client.line("CLIENT ID"), Reply::Integer(id));
    }
}

#[test]
fn an_id_that_is_told_while_redis_is_down_holds_when_it_is_back() {
    let mut redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log("redis").start();
    redis.kill();
    let mut client = tollgate.client();
    wait_until(PATIENCE, || client.line("GET k").text().starts_with("LOADING "));
    let id = client.line("CLIENT ID");
    redis.start_again();
    wait_until(PATIENCE, || client.line("GET k") == Reply::Nil);
    assert_eq!(client.line("CLIENT ID"), id);
}

#[test]
fn the_clients_listed_are_those_asked_for() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut direct = redis.client();
    let redis_id = direct.line("CLIENT ID").integer();
    for hello in PROTOCOLS {
        let (mut linked, linked_id) = greeted(&tollgate, hello);
        let (mut unlinked, unlinked_id) = greeted(&tollgate, hello);
        assert_eq!(linked.line("GET k"), Reply::Nil);
        let mut listed = |options: &str| {
            let list = linked.line(&format!("CLIENT LIST {options}"));
            assert!(
                matches!((&list, hello), (Reply::Bulk(_), "HELLO 2") | (Reply::Verbatim(_), "HELLO 3")),
                "{list:?}"
            );
            let ids: Vec<i64> = lines(&list).iter().map(|line| field(line, "id").parse().unwrap()).collect();
            [redis_id, linked_id, unlinked_id].map(|id| ids.iter().filter(|listed| **listed == id).count())
        };
        assert_eq!(listed(""), [1, 1, 1]);
        assert_eq!(listed("TYPE normal"), [1, 1, 1]);
        assert_eq!(listed("TYPE pubsub"), [0, 0, 0]);
        assert_eq!(listed(&format!("ID {unlinked_id} {redis_id} {linked_id}")), [1, 1, 1]);
        assert_eq!(listed(&format!("ID {linked_id}")), [0, 1, 0]);
        assert_eq!(listed(&format!("id {unlinked_id}")), [0, 0, 1]);
        assert_eq!(listed(&format!("ID {redis_id}")), [1, 0, 0]);
        assert!(linked.line("CLIENT LIST ID x").text().starts_with("ERR "));
        assert!(is_served(&mut unlinked));
    }
}

/// Tracking that was redirected to HELLO's id told nobody, or somebody else.
#[test]
fn tracking_is_redirected_to_the_id_of_hello() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    for hello in PROTOCOLS {
        redis.command("SET k 1");
        let (mut hears, id) = greeted(&tollgate, "HELLO 2");
        assert_eq!(hears.line("SUBSCRIBE __redis__:invalidate").items()[2], Reply::Integer(1));
        let (mut reads, reads_id) = greeted(&tollgate, hello);
        assert_eq!(reads.line(&format!("CLIENT TRACKING ON redirect {id}")), ok());
        assert_eq!(reads.line("GET k"), Reply::bulk("1"));
        redis.command("SET k 2");
        let message = hears.read();
        assert_eq!(message.items()[0], Reply::bulk("message"));
        assert_eq!(message.items()[2], Reply::Array(vec![Reply::bulk("k")]));
        // Whom it is redirected to is said in the same ids.
        assert_eq!(reads.line("CLIENT GETREDIR"), Reply::Integer(id));
        assert_eq!(reads.line("CLIENT TRACKINGINFO").field("redirect"), &Reply::Integer(id));
        assert_eq!(field(&line_with(&mut reads, &format!("id={reads_id}")), "redir"), id.to_string());
        assert_eq!(reads.line("CLIENT TRACKING OFF"), ok());
        assert_eq!(reads.line("CLIENT GETREDIR"), Reply::Integer(-1));
    }
}

#[test]
fn a_client_is_unblocked_by_the_id_of_hello() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let (mut other, other_id) = greeted(&tollgate, "HELLO 2");
    for hello in PROTOCOLS {
        let (mut client, id) = greeted(&tollgate, hello);
        client.send(&encode(&["BLPOP", "l", "0"]));
        wait_until(PATIENCE, || other.line(&format!("CLIENT UNBLOCK {id} ERROR")) == Reply::Integer(1));
        assert_eq!(client.read(), Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into()));
        assert_eq!(other.line(&format!("CLIENT UNBLOCK {id}")), Reply::Integer(0));
    }
    assert_eq!(other.line(&format!("CLIENT UNBLOCK {other_id}")), Reply::Integer(0));
    assert!(other.line(&format!("CLIENT UNBLOCK {other_id} x")).text().starts_with("ERR "));
}

/// A client that was killed by HELLO's id lived on.
#[test]
fn a_client_is_killed_by_the_id_of_hello() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let (mut kills, own_id) = greeted(&tollgate, "HELLO 3");
    let (mut stays, _) = greeted(&tollgate, "HELLO 3");
    let kill = |client: &mut RawClient, options: &str| client.line(&format!("CLIENT KILL {options}"));
    for hello in PROTOCOLS {
        for is_linked in [true, false] {
            for options in ["", " SKIPME yes", " SKIPME no"] {
                let (mut client, id) = greeted(&tollgate, hello);
                if is_linked {
                    assert_eq!(client.line("SET k 1"), ok());
                }
                // Not while another filter stands in the way.
                let addr = stays.addr();
                assert_eq!(kill(&mut kills, &format!("ID {id} TYPE pubsub")), Reply::Integer(0));
                assert_eq!(kill(&mut kills, &format!("ID {id} ADDR {addr}")), Reply::Integer(0));
                assert!(kill(&mut kills, &format!("ID {id} SKIPME maybe")).text().starts_with("ERR "));
                assert!(is_served(&mut client));
                assert_eq!(kill(&mut kills, &format!("ID {id}{options}")), Reply::Integer(1), "{hello} {is_linked}");
                assert_eq!(client.read_to_end(), b"");
                assert_eq!(kill(&mut kills, &format!("ID {id}")), Reply::Integer(0));
                assert!(lines_with(&kills.line("CLIENT LIST"), &format!("id={id}")).is_empty());
                assert!(is_served(&mut stays));
            }
        }
    }
    let (mut client, id) = greeted(&tollgate, "HELLO 3");
    client.line("GET k");
    assert_eq!(kill(&mut kills, &format!("ID {id} USER default TYPE normal")), Reply::Integer(1));
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(kill(&mut kills, &format!("ID {own_id}")), Reply::Integer(0));
    // One of Redis's own is its.
    let mut direct = redis.client();
    let redis_id = direct.line("CLIENT ID").integer();
    assert_eq!(kill(&mut kills, &format!("ID {redis_id}")), Reply::Integer(1));
    assert_eq!(direct.read_to_end(), b"");
    assert_eq!(kill(&mut kills, &format!("ID {redis_id}")), Reply::Integer(0));
    assert_eq!(kill(&mut kills, &format!("ID {own_id} SKIPME no")), Reply::Integer(1));
    assert_eq!(kills.read_to_end(), b"");
    assert!(is_served(&mut stays));
}

#[test]
fn a_client_is_killed_by_its_address() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut kills = tollgate.client();
    let no_such = Reply::Error("ERR No such client".into());
    for (command, killed, nobody) in
        [("CLIENT KILL", ok(), no_such), ("CLIENT KILL ADDR", Reply::Integer(1), Reply::Integer(0))]
    {
        for first in ["HELLO 3", "PING", "GET k", "SUBSCRIBE c"] {
            let mut client = tollgate.client();
            client.line(first);
            let addr = client.addr();
            assert_eq!(kills.line(&format!("{command} {addr}")), killed, "{first}");
            assert_eq!(client.read_to_end(), b"");
            assert_eq!(kills.line(&format!("{command} {addr}")), nobody, "{first}");
        }
        let mut direct = redis.client();
        assert_eq!(kills.line(&format!("{command} {}", direct.addr())), killed);
        assert_eq!(direct.read_to_end(), b"");
    }
    let addr = kills.addr();
    assert_eq!(kills.line(&format!("CLIENT KILL ADDR {addr}")), Reply::Integer(0));
    assert_eq!(kills.line(&format!("CLIENT KILL {addr}")), ok());
    assert_eq!(kills.read_to_end(), b"");
}

/// Redis lists the connection that a client has there, under an id and an address of its own. Once that was ended the
/// client was listed by Tollgate instead.
#[test]
fn what_was_killed_by_what_redis_alone_lists_of_it_is_listed_no_more() {
    let redis = RedisServer::start_with(&["--user", "doomed", "on", ">word", "~*", "&*", "+@all"]);
    let tollgate = Tollgate::before(&redis);
    let mut kills = tollgate.client();
    for (attribute, command) in
        [("addr", "CLIENT KILL"), ("addr", "CLIENT KILL ADDR"), ("id", "CLIENT KILL ID"), ("user", "CLIENT KILL USER")]
    {
        let mut doomed = tollgate.client();
        for line in ["AUTH doomed word", "CLIENT SETNAME doomed", "SET a b"] {
            assert_eq!(doomed.line(line), ok());
        }
        let value = field(&line_with(&mut kills, "name=doomed"), attribute);
        let killed = kills.line(&format!("{command} {value}"));
        assert!([ok(), Reply::Integer(1)].contains(&killed), "{command}: {killed:?}");
        assert_eq!(lines_with(&kills.line("CLIENT LIST"), "name=doomed"), Vec::<String>::new(), "{command}");
        // It stays, as at a restart, and is listed once it has another.
        assert_eq!(doomed.line("GET a"), Reply::bulk("b"), "{command}");
        assert_eq!(lines_with(&kills.line("CLIENT LIST"), "name=doomed").len(), 1, "{command}");
        assert_eq!(doomed.line("CLIENT SETNAME alive"), ok());
    }
}

#[test]
fn who_may_not_kill_at_redis_kills_nobody() {
    let redis = RedisServer::start_with(&["--user", "low", "on", ">word", "~*", "&*", "+@all", "-client|kill"]);
    for mode in ["none", "redis"] {
        let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", mode).start();
        let mut low = tollgate.client();
        assert_eq!(low.line("AUTH low word"), ok());
        let mut client = tollgate.client();
        let id = client.line("HELLO 3 AUTH low word").field("id").integer();
        for who in [format!("ID {id}"), client.addr().to_string(), format!("ADDR {}", client.addr())] {
            assert!(low.line(&format!("CLIENT KILL {who}")).text().starts_with("NOPERM "), "{who}");
        }
        assert!(is_served(&mut client));
    }
}

#[test]
fn two_tollgates_before_one_redis_give_different_ids() {
    let redis = RedisServer::start();
    let (one, two) = (Tollgate::before(&redis), Tollgate::before(&redis));
    let (mut of_one, id_of_one) = greeted(&one, "HELLO 3");
    let (mut of_two, id_of_two) = greeted(&two, "HELLO 3");
    assert_ne!(id_of_one, id_of_two);
    assert!([id_of_one, id_of_two].iter().all(|id| (1 << 52..1 << 53).contains(id)), "{id_of_one} {id_of_two}");
    for (client, id) in [(&mut of_one, id_of_one), (&mut of_two, id_of_two)] {
        assert_eq!(client.line("CLIENT ID"), Reply::Integer(id));
    }
    // Neither knows the other's.
    assert_eq!(of_one.line(&format!("CLIENT KILL ID {id_of_two}")), Reply::Integer(0));
    assert!(is_served(&mut of_two));
}
