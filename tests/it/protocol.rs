//! RESP as bytes: frames cut anywhere, pipelines, inline requests, malformed frames, the handshake. What Redis would
//! answer too is compared with what a real Redis answers, byte for byte.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, wait_until};
use redis_protocol::resp2::decode::decode as decode_resp2;
use redis_protocol::resp3::decode::complete::decode as decode_resp3;
use std::collections::HashSet;
use std::net::SocketAddr;

/// Marks the end of a pipeline's answers.
const END: &str = "the end of what was sent";

/// What is answered to `requests`, until the connection closes or all is answered.
fn answers(addr: SocketAddr, requests: &[u8]) -> Vec<u8> {
    let mut client = RawClient::connect(addr);
    client.send(&[requests, &encode(&["ECHO", END])].concat());
    client.read_raw_until(END.as_bytes())
}

/// A Redis and a Tollgate before it.
fn pair() -> (RedisServer, Tollgate) {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    (redis, tollgate)
}

#[test]
fn frames_may_come_byte_by_byte() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    let requests = [
        encode(&["PING"]),
        encode(&["RL.CHECK", "a\r\nb", "2", "1h"]),
        b"RL.CHECK \"a\\r\\nb\" 2 1h\r\n".to_vec(),
        encode(&["RL.CHECK", "a\r\nb", "2", "1h", "COST", "3"]),
        encode(&["ECHO", "end"]),
    ];
    for byte in requests.concat() {
        client.send(&[byte]);
    }
    assert_eq!(client.read(), Reply::Status("PONG".into()));
    assert_eq!(client.read().decision().remaining, 1);
    assert_eq!(client.read().decision().remaining, 0);
    assert_eq!(client.read().decision().retry_after_ms, -1);
    assert_eq!(client.read(), Reply::bulk("end"));
}

#[test]
fn a_frame_cut_anywhere_is_answered_once_it_is_whole() {
    let tollgate = Tollgate::embedded();
    let request = encode(&["RL.CHECK", "key", "1000", "1h"]);
    let mut client = tollgate.client();
    for cut in 1..request.len() {
        // The reply in between shows that the server has read the first part alone.
        client.send(&[&encode(&["ECHO", "read"]), &request[..cut]].concat());
        assert_eq!(client.read(), Reply::bulk("read"));
        client.send(&request[cut..]);
        assert_eq!(client.read().decision().remaining, 1000 - cut as i64, "cut at {cut}");
    }
}

#[test]
fn ten_thousand_commands_in_one_write_are_answered_in_order() {
    let (_redis, before_redis) = pair();
    for tollgate in [Tollgate::embedded(), before_redis] {
        let mut client = tollgate.client();
        let mut writer = client.try_clone();
        let requests: Vec<u8> = (0..10_000)
            .flat_map(|index: i64| match index % 4 {
                0 => encode(&["ECHO", &index.to_string()]),
                1 => encode(&["RL.CHECK", "hot", "1000000", "1h"]),
                2 => encode(&["RL.CHECK", &format!("key {index}"), "5", "1h", "COST", "2"]),
                _ => encode(&["RL.CHECK", "bad", "0", "1h"]),
            })
            .collect();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.send(&requests));
            for index in 0..10_000 {
                let reply = client.read();
                match index % 4 {
                    0 => assert_eq!(reply, Reply::bulk(&index.to_string())),
                    1 => assert_eq!(reply.decision().remaining, 1_000_000 - index / 4 - 1),
                    2 => assert_eq!((reply.decision().allowed, reply.decision().remaining), (true, 3)),
                    _ => assert!(matches!(reply, Reply::Error(_)), "{reply:?}"),
                }
            }
        });
    }
}

#[test]
fn many_clients_pipeline_at_the_same_time() {
    let (_redis, before_redis) = pair();
    for tollgate in [Tollgate::embedded(), before_redis] {
        std::thread::scope(|scope| {
            for name in 0..20 {
                let mut client = tollgate.client();
                scope.spawn(move || {
                    for round in 0..10 {
                        let request = encode(&["RL.CHECK", &format!("key {name}"), "1000", "1h"]);
                        client.send(&[request.repeat(50), encode(&["ECHO", &format!("{name} {round}")])].concat());
                        for place in 1..=50 {
                            assert_eq!(client.read().decision().remaining, 1000 - round * 50 - place);
                        }
                        assert_eq!(client.read(), Reply::bulk(&format!("{name} {round}")));
                    }
                });
            }
        });
    }
}

#[test]
fn well_formed_requests_are_answered_as_redis_answers_them() {
    let (redis, tollgate) = pair();
    let long = "x".repeat(100_000);
    let mut differences = Vec::new();
    for requests in [
        &b"PING\r\n"[..],
        b"ping\n",
        b"\r\n\r\n\nPING\r\n",
        b"   \r\n\t\r\nPING\r\n",
        b"*0\r\nPING\r\n",
        b"*-1\r\n*-7\r\n*1\r\n$4\r\nPING\r\n",
        b"PING \"a b\" \r\n",
        b"  PING   'it\\'s'\r\n",
        b"PING \"\\x41\\n\\r\\t\\b\\a\\\\\\\"\\q\"\r\n",
        b"PING \"\"\r\n",
        b"PING a\"b\"\r\n",
        b"ECHO '\\x41\\n'\r\n",
        b"\"PING\"\r\n",
        b"*1\r\n$4\r\npInG\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
        b"PING\r\nPING a b\r\nECHO\r\nECHO a b\r\necho hello\r\n",
        b"SELECT 0\r\nSELECT\r\nSELECT x\r\nSELECT 99999\r\nSELECT 0 1\r\n",
        b"CLIENT GETNAME\r\nCLIENT SETNAME me\r\nCLIENT GETNAME\r\nCLIENT SETNAME \"\"\r\nCLIENT GETNAME\r\n",
        b"CLIENT SETNAME \"a b\"\r\nCLIENT SETNAME \"a\\nb\"\r\nCLIENT SETNAME\r\nCLIENT\r\nCLIENT GETNAME x\r\n",
        b"CLIENT NO-EVICT ON\r\nCLIENT NO-EVICT off\r\nCLIENT NO-EVICT maybe\r\nCLIENT NO-EVICT\r\n",
        b"CLIENT FOO\r\nCLIENT FOO BAR\r\n",
        b"HELLO 4\r\nHELLO 1\r\nHELLO x\r\nHELLO 3 FOO\r\nHELLO 3 SETNAME\r\nHELLO 3 SETNAME \"a b\"\r\nPING\r\n",
        b"AUTH\r\nAUTH pass\r\nAUTH a b c\r\nAUTH default x\r\n",
        b"CONFIG GET save\r\nCONFIG GET appendonly\r\n",
        b"RESET\r\nRESET x\r\n",
        b"foo\r\nFoo a b\r\nfoo 'a b' \"\\x00\\r\\n\\\"\" \"\"\r\n\"\"\r\n\"\" a\r\n\"a\\nb\"\r\n",
        format!("PING {}\r\n", "x".repeat(60_000)).as_bytes(),
        &encode(&["PING", &long]),
        &encode(&["foo", &long, &long]),
        &encode(&[&long, "a", &long]),
        &encode(&["foo"; 1000]),
        &encode(&["PING"]).repeat(1000),
    ] {
        let (expected, got) = (answers(redis.addr(), requests), answers(tollgate.addr(), requests));
        if got != expected {
            let texts = [requests, &got, &expected]
                .map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned());
            differences.push(texts);
        }
    }
    assert!(differences.is_empty(), "requests, answers of Tollgate, answers of Redis: {differences:#?}");
}

#[test]
fn a_malformed_frame_is_refused_as_redis_refuses_it() {
    let (redis, tollgate) = pair();
    let endless = "9".repeat(70_000);
    for frame in [
        &b"*x\r\n"[..],
        b"*1x\r\n",
        b"* 1\r\n",
        b"*\r\n",
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n\r\n",
        b"*2\r\n$4\r\nPING\r\n*1\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$-2\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"PING \"a\r\n",
        b"PING 'a\r\n",
        b"PING \"a\"b\r\n",
        b"PING 'a'b\r\n",
        format!("*{endless}").as_bytes(),
        format!("*1\r\n${endless}").as_bytes(),
        endless.as_bytes(),
    ] {
        // What came before is answered; then the error; then the connection closes.
        let requests = [b"PING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n", frame].concat();
        let read = |addr| {
            let mut client = RawClient::connect(addr);
            client.send(&requests);
            String::from_utf8_lossy(&client.read_to_end()).into_owned()
        };
        let (expected, got) = (read(redis.addr()), read(tollgate.addr()));
        let frame = String::from_utf8_lossy(&frame[..frame.len().min(60)]);
        assert!(expected.starts_with("+PONG\r\n$2\r\nhi\r\n-ERR Protocol error: "), "{frame:?}: {expected:?}");
        assert_eq!(got, expected, "{frame:?}");
    }
}

#[test]
fn a_malformed_command_closes_nothing() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    for line in ["RL.CHECK", "RL.CHECK k", "RL.CHECK k 0 60", "RL.NOPE", "PING a b", "GET k", "HELLO 4", "CLIENT x"] {
        assert!(matches!(client.line(line), Reply::Error(_)), "{line}");
    }
    assert_eq!(client.line("PING"), Reply::Status("PONG".into()));
}

#[test]
fn hello_switches_the_protocol_and_says_seven_things_in_order() {
    const FIELDS: [&str; 7] = ["server", "version", "proto", "id", "mode", "role", "modules"];
    let (_redis, before_redis) = pair();
    for tollgate in [Tollgate::embedded(), before_redis] {
        let mut client = tollgate.client();
        let Reply::Array(hello) = client.line("HELLO") else { panic!("a map in RESP2 is an array") };
        let names: Vec<String> = hello.iter().step_by(2).map(Reply::text).collect();
        assert_eq!(names, FIELDS);
        assert_eq!(hello[5], Reply::Integer(2));

        let hello = client.line("hello 3 SETNAME me");
        let Reply::Map(pairs) = &hello else { panic!("no map in RESP3: {hello:?}") };
        assert_eq!(pairs.iter().map(|(name, _)| name.text()).collect::<Vec<_>>(), FIELDS);
        assert_eq!(hello.field("proto"), &Reply::Integer(3));
        assert!(!hello.field("server").text().is_empty() && !hello.field("version").text().is_empty());
        assert!(hello.field("id").integer() > 0);
        assert_eq!(client.line("CLIENT GETNAME"), Reply::bulk("me"));
        assert_eq!(client.line("PING"), Reply::Status("PONG".into()));
        let unknown = client.line("HELLO 4");
        assert_eq!(unknown, Reply::Error("NOPROTO unsupported protocol version".into()));
        assert!(matches!(client.line("HELLO"), Reply::Map(_)), "HELLO without a version keeps the protocol");
        assert!(matches!(client.line("HELLO 2"), Reply::Array(_)));

        // RESET is back to a fresh connection: RESP2, no name.
        client.line("HELLO 3");
        assert_eq!(client.line("RESET"), Reply::Status("RESET".into()));
        assert_eq!(client.line("CLIENT GETNAME"), Reply::Nil);
        assert!(matches!(client.line("HELLO"), Reply::Array(_)));
    }
}

#[test]
fn what_clients_send_at_connect_is_answered() {
    let (_redis, before_redis) = pair();
    for (tollgate, embedded) in [(Tollgate::embedded(), true), (before_redis, false)] {
        let mut client = tollgate.client();
        let ok = Reply::Status("OK".into());
        for line in [
            "CLIENT SETNAME app",
            "CLIENT SETINFO LIB-NAME tests",
            "client setinfo lib-ver 1.0",
            "CLIENT NO-EVICT on",
            "SELECT 0",
        ] {
            assert_eq!(client.line(line), ok, "{line}");
        }
        let mut other = tollgate.client();
        assert_ne!(client.line("CLIENT ID").integer(), other.line("CLIENT ID").integer());
        assert!(matches!(client.line("CLIENT MAINT_NOTIFICATIONS ON"), Reply::Error(_)));
        assert_eq!(client.line("CONFIG GET save").items().len(), 2, "redis-benchmark asks for it");
        let info = client.line("INFO").text();
        for line in ["redis_version:", "loading:0\r\n", "# Tollgate\r\n", "phase:serving\r\n"] {
            assert!(info.contains(line), "{line} is not in {info}");
        }
        assert!(client.line("INFO tollgate").text().starts_with("# Tollgate\r\n"));
        if embedded {
            // Redis has it since 7.2.
            assert_eq!(client.line("CLIENT NO-TOUCH on"), ok);
            assert_eq!(client.line("SELECT 1"), Reply::Error("ERR DB index is out of range".into()));
        }
        assert_eq!(client.line("QUIT"), ok);
        assert_eq!(client.read_to_end(), b"");
    }
}

#[test]
fn quit_answers_what_came_before_and_nothing_after() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    client.send(b"PING\r\nRL.CHECK k 1 1h\r\nQUIT\r\nPING\r\n");
    let got = client.read_to_end();
    assert_eq!(String::from_utf8_lossy(&got), "+PONG\r\n*6\r\n:1\r\n:1\r\n:0\r\n:0\r\n:3600000\r\n:0\r\n+OK\r\n");
}

/// A client library that falls back when a command is unknown knows it by Redis's words, and a tool that asks an empty
/// server must not see that it is none.
#[test]
fn embedded_answers_as_an_empty_redis_does() {
    let (redis, tollgate) = (RedisServer::start_with(&["--databases", "1"]), Tollgate::embedded());
    let long = "x".repeat(200);
    let mut differences = Vec::new();
    for requests in [
        &b"foo\r\nFoo a b\r\nfoo 'a b' \"\\x00\\r\\n\\\"\" \"\"\r\n\"\"\r\n\"\" a\r\n\"a\\nb\\n\"\r\n\"a\\x00b\" c\r\n"[..],
        b"GETX k\r\nnonsense \xff\xfe\r\nfoo \"a\\r\\n\"\r\n",
        &[encode(&["foo", &long, "b"]), encode(&[&long, "a", &long]), encode(&["foo"; 1000])].concat(),
        &encode(&["foo", &long[..127], "b", "c"]),
        b"CLIENT\r\nCLIENT FOO\r\nCLIENT FOO BAR\r\nCLIENT ID x\r\nCLIENT INFO x\r\nCLIENT GETREDIR\r\n",
        &encode(&["CLIENT", &long, "b"]),
        b"CLIENT LIST TYPE\r\nCLIENT LIST TYPE foo\r\nCLIENT LIST FOO\r\nCLIENT LIST ID\r\nCLIENT LIST ID x\r\n",
        b"CLIENT LIST TYPE pubsub\r\nCLIENT LIST TYPE master\r\nCLIENT LIST TYPE replica\r\nCLIENT LIST ID 99999\r\n",
        b"CLIENT GETNAME x\r\nCLIENT SETNAME\r\nCLIENT NO-EVICT maybe\r\nCLIENT NO-EVICT\r\nCLIENT SETNAME \"a b\"\r\n",
        b"SLOWLOG\r\nSLOWLOG GET\r\nSLOWLOG GET x\r\nSLOWLOG GET -1\r\nSLOWLOG GET -2\r\nSLOWLOG GET 1 2\r\nslowlog get 10\r\n",
        b"SLOWLOG LEN\r\nSLOWLOG LEN x\r\nSLOWLOG RESET\r\nSLOWLOG FOO\r\n",
        b"LATENCY LATEST\r\nLATENCY HISTORY\r\nLATENCY HISTORY x\r\nLATENCY RESET\r\nLATENCY RESET a b\r\nLATENCY FOO\r\n",
        b"ROLE\r\nROLE x\r\nTIME x\r\nDBSIZE\r\nDBSIZE x\r\nMODULE LIST\r\nMODULE\r\nMODULE LIST x\r\nACL WHOAMI\r\n",
        b"ACL\r\nACL FOO\r\nCONFIG\r\nCONFIG GET\r\nCONFIG FOO\r\nCONFIG SET\r\nCONFIG SET a\r\nCONFIG SET a b\r\n",
        b"CONFIG SET databases 3\r\nCONFIG SET databases 3 a\r\nCONFIG SET databases 3 foo 1\r\n",
        b"CONFIG GET save\r\nCONFIG GET appendonly\r\nCONFIG GET maxmemory\r\nCONFIG GET maxmemory-polic?\r\n",
        b"CONFIG GET nothing\r\nCONFIG GET [^a-z]*\r\nconfig get PROTO-max-[b]*\r\nCONFIG GET databa[!s]es\r\n",
        b"MEMORY\r\nMEMORY USAGE\r\nMEMORY USAGE k\r\nMEMORY USAGE k SAMPLES 1\r\nMEMORY USAGE k SAMPLES -1\r\nMEMORY FOO\r\n",
        b"MEMORY USAGE k FOO\r\nMEMORY USAGE k SAMPLES x\r\nMEMORY STATS x\r\n",
        b"KEYS\r\nKEYS *\r\nSCAN\r\nSCAN 0\r\nSCAN x\r\nSCAN -1\r\nSCAN 18446744073709551615\r\nSCAN 18446744073709551616\r\n",
        b"SCAN 0 MATCH\r\nSCAN 0 COUNT x\r\nSCAN 0 COUNT 0\r\nSCAN 0 FOO 1\r\nscan 0 match a* count 10 type string\r\n",
        b"TYPE\r\nTYPE k\r\nOBJECT\r\nOBJECT ENCODING k\r\nOBJECT FREQ k\r\nOBJECT IDLETIME k\r\nOBJECT REFCOUNT k\r\nOBJECT FOO k\r\n",
        b"CLUSTER\r\nCLUSTER INFO\r\nCLUSTER INFO x\r\nCLUSTER SLOTS\r\nCLUSTER FOO\r\nREADONLY\r\nREADWRITE\r\nREADONLY x\r\n",
        b"CLUSTER KEYSLOT k\r\nCLUSTER KEYSLOT\r\nASKING\r\nASKING x\r\n",
        b"COMMAND FOO\r\nCOMMAND COUNT x\r\nCOMMAND LIST x\r\nCOMMAND LIST FILTERBY FOO a\r\nCOMMAND GETKEYS nope k v\r\n",
        b"MULTI x\r\nEXEC\r\nDISCARD\r\nEXEC x\r\nMULTI\r\nDISCARD\r\n",
        b"COMMAND GETKEYS\r\nCOMMAND GETKEYSANDFLAGS\r\nCOMMAND LIST FILTERBY PATTERN\r\n",
        b"PING a b\r\nECHO\r\nECHO a b\r\nSELECT\r\nSELECT x\r\nSELECT 1\r\nRESET x\r\nAUTH\r\nAUTH a b c\r\n",
    ] {
        for hello in [&b""[..], b"HELLO 3 SETNAME me\r\nCLIENT GETNAME\r\n"] {
            let requests = [hello, requests].concat();
            let from = |addr| {
                let text = String::from_utf8_lossy(&answers(addr, &requests)).into_owned();
                // What HELLO says is each server's own.
                text.split_once("modules\r\n*0\r\n").map_or(text.clone(), |(_, rest)| rest.to_owned())
            };
            let (expected, got) = (from(redis.addr()), from(tollgate.addr()));
            if got != expected {
                differences.push([String::from_utf8_lossy(&requests).into_owned(), got, expected]);
            }
        }
    }
    assert!(differences.is_empty(), "requests, answers of Tollgate, answers of Redis: {differences:#?}");
}

#[test]
fn embedded_lists_its_clients() {
    let tollgate = Tollgate::embedded();
    let (mut one, mut other) = (tollgate.client(), tollgate.client());
    one.line("CLIENT SETNAME one");
    one.line("CLIENT SETINFO LIB-NAME tests");
    other.line("HELLO 3 SETNAME other");
    let (one_id, other_id) = (one.line("CLIENT ID").integer(), other.line("CLIENT ID").integer());
    let field = |line: &str, name: &str| {
        let found = line.split_whitespace().find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(str::to_owned));
        found.unwrap_or_else(|| panic!("no {name} in {line}"))
    };

    let info = one.line("CLIENT INFO").text();
    assert_eq!(info.lines().count(), 1, "{info}");
    for (name, value) in [
        ("id", one_id.to_string().as_str()),
        ("laddr", &tollgate.addr().to_string()),
        ("name", "one"),
        ("db", "0"),
        ("flags", "N"),
        ("multi", "-1"),
        ("cmd", "client|info"),
        ("user", "default"),
        ("resp", "2"),
        ("lib-name", "tests"),
        ("lib-ver", ""),
    ] {
        assert_eq!(field(&info, name), value, "{name}");
    }
    assert!(field(&info, "addr").starts_with("127.0.0.1:") && field(&info, "age").parse::<u64>().is_ok(), "{info}");

    let Reply::Verbatim(_) = other.line("CLIENT LIST") else { panic!("a text in RESP3, as in Redis") };
    let list = one.line("CLIENT LIST TYPE normal").text();
    let names: HashSet<_> = list.lines().map(|line| (field(line, "name"), field(line, "resp"))).collect();
    assert_eq!(names, [("one", "2"), ("other", "3")].map(|(name, resp)| (name.to_owned(), resp.to_owned())).into());
    let listed = one.line(&format!("CLIENT LIST ID {other_id} 12345678")).text();
    assert_eq!(listed.lines().map(|line| field(line, "id")).collect::<Vec<_>>(), [other_id.to_string()]);

    // Nobody else's reply is to be long because one client's name is.
    assert_eq!(other.cmd(&["CLIENT", "SETNAME", &"n".repeat(100_000)]), Reply::Status("OK".into()));
    let list = one.line(&format!("CLIENT LIST ID {other_id}")).text();
    assert_eq!(field(&list, "name"), "n".repeat(128), "shown cut");

    other.line("QUIT");
    wait_until(PATIENCE, || one.line("CLIENT LIST").text().lines().count() == 1);
    assert!(one.line("CLIENT LIST").text().starts_with(&format!("id={one_id} ")));
}

/// Whoever shares a Tollgate with others and may do nothing but check is not told who they are.
#[test]
fn a_client_that_may_only_check_sees_itself_alone() {
    let users = "[auth]\nmode = \"password\"\n[[auth.users]]\nname = \"shop\"\ncommands = \"rl-only\"\n\
        password_sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n\
        [[auth.users]]\nname = \"admin\"\ncommands = \"all\"\n\
        password_sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    std::fs::write(&file, users).unwrap();
    let tollgate = Tollgate::builder().arg("--embedded").arg("--config").arg(file.to_str().unwrap()).start();
    let log_in = |user: &str| {
        let mut client = tollgate.client();
        assert_eq!(client.line(&format!("AUTH {user} secret")), Reply::Status("OK".into()));
        client
    };
    let (mut shop, mut admin) = (log_in("shop"), log_in("admin"));
    let list = shop.line("CLIENT LIST").text();
    assert!(list.lines().count() == 1 && list.contains(" user=shop "), "{list}");
    let list = admin.line("CLIENT LIST").text();
    assert!(list.contains(" user=shop ") && list.contains(" user=admin "), "{list}");
    assert_eq!(admin.line("ACL WHOAMI"), Reply::bulk("admin"));
}

/// What agents and GUIs read of these, and fail or show nothing without.
#[test]
fn embedded_tells_monitoring_tools_what_they_ask() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    for key in ["a", "b"] {
        assert!(client.decide(&format!("RL.CHECK {key} 5 1h 10 1d")).allowed);
    }
    assert_eq!(client.line("DBSIZE"), Reply::Integer(4));
    assert_eq!(client.line("SCAN 0"), Reply::Array(vec![Reply::bulk("0"), Reply::Array(vec![])]));

    let info = client.line("INFO").text();
    let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    for name in [
        "redis_version",
        "redis_mode",
        "os",
        "process_id",
        "run_id",
        "uptime_in_seconds",
        "connected_clients",
        "blocked_clients",
        "used_memory",
        "used_memory_human",
        "used_memory_rss",
        "used_memory_peak",
        "maxmemory",
        "loading",
        "total_connections_received",
        "total_commands_processed",
        "rejected_connections",
        "evicted_keys",
        "pubsub_channels",
        "connected_slaves",
        "used_cpu_sys",
        "used_cpu_user",
        "cluster_enabled",
        "store",
    ] {
        assert!(value(name).is_some_and(|value| !value.is_empty()), "{name} is not in {info}");
    }
    assert_eq!((value("role"), value("maxmemory_policy")), (Some("master"), Some("noeviction")));
    assert_eq!(value("db0"), Some("keys=4,expires=4"));
    assert!(value("used_memory").unwrap().parse::<u64>().unwrap() > 1024 * 1024);
    let keyspace = client.line("INFO keyspace").text();
    assert_eq!(keyspace, "# Keyspace\r\ndb0:keys=4,expires=4\r\n");
    client.line("RL.RESET a b");
    assert_eq!(client.line("INFO keyspace").text(), "# Keyspace\r\n", "an agent divides by the number of keys");

    let all = client.line("CONFIG GET *");
    for (name, expected) in [("maxclients", "10000"), ("databases", "1"), ("timeout", "0"), ("maxmemory", "0")] {
        assert_eq!(all.field(name).text(), expected, "{name}");
    }
    assert_eq!(client.line("CONFIG GET slowlog-* TIMEOUT").items().len(), 6);
    let time = client.line("TIME").items().iter().map(|part| part.text().parse().unwrap()).collect::<Vec<u64>>();
    assert!(time.len() == 2 && time[0] > 1_700_000_000 && time[1] < 1_000_000, "{time:?}");
    assert!(client.line("MEMORY STATS").field("total.allocated").integer() > 1024 * 1024);
    for name in ["client", "command", "config", "slowlog", "latency", "memory", "module", "acl", "object", "cluster"] {
        let help = client.line(&format!("{name} HELP"));
        assert!(help.items()[0].text().starts_with(&format!("{} <subcommand>", name.to_uppercase())), "{help:?}");
        assert!(help.items().iter().any(|line| line.text() == "HELP"), "{help:?}");
    }
}

#[test]
fn a_request_without_end_keeps_its_connection_and_no_other_waiting() {
    let tollgate = Tollgate::embedded();
    let mut half = tollgate.client();
    half.send(b"*4\r\n$8\r\nRL.CHECK\r\n$1\r\nk\r\n$1");
    assert_eq!(tollgate.client().line("PING"), Reply::Status("PONG".into()));
    half.send(b"\r\n5\r\n$2\r\n1h\r\n");
    assert_eq!(half.read().decision().remaining, 4);
}

/// An allocation of what a peer announces, rather than of what it sends, would take gigabytes here.
#[test]
fn announced_sizes_cost_no_memory() {
    let tollgate = Tollgate::embedded();
    let before = tollgate.resident_bytes();
    let clients: Vec<RawClient> = (0..50)
        .map(|index| {
            let mut client = tollgate.client();
            client.send(if index % 2 == 0 { b"*2147483647\r\n$4\r\nPING\r\n" } else { b"*2\r\n$536870912\r\nECHO" });
            client
        })
        .collect();
    assert_eq!(tollgate.client().line("PING"), Reply::Status("PONG".into()));
    let grown = tollgate.resident_bytes().saturating_sub(before);
    assert!(grown < 20 * 1024 * 1024, "{grown} bytes for {} half requests", clients.len());
}

/// Another implementation of RESP must read what Tollgate writes, to the last byte.
#[test]
fn an_independent_decoder_reads_every_reply() {
    const REQUESTS: &str = "PING\r\nRL.CHECK k 1 1h\r\nRL.CHECK k 1 1h\r\nRL.CHECK k 0 1\r\nRL.RESET k\r\nRL.HELP\r\nHELLO\r\n\
        CLIENT GETNAME\r\nCLIENT ID\r\nINFO\r\nCOMMAND COUNT\r\nCOMMAND LIST\r\nCOMMAND INFO rl.check none\r\n\
        COMMAND DOCS rl.check\r\nCOMMAND\r\nCONFIG GET save\r\nGET k\r\n";
    let tollgate = Tollgate::embedded();
    let got = answers(tollgate.addr(), REQUESTS.as_bytes());
    let (mut rest, mut replies) = (got.as_slice(), 0);
    while let Some((_, used)) = decode_resp2(rest).unwrap() {
        (rest, replies) = (&rest[used..], replies + 1);
    }
    assert_eq!((replies, rest.len()), (REQUESTS.lines().count() + 1, 0));

    let got = answers(tollgate.addr(), format!("HELLO 3\r\n{REQUESTS}").as_bytes());
    let (mut rest, mut replies) = (got.as_slice(), 0);
    while let Some((_, used)) = decode_resp3(rest).unwrap() {
        (rest, replies) = (&rest[used..], replies + 1);
    }
    assert_eq!((replies, rest.len()), (REQUESTS.lines().count() + 2, 0));
}
