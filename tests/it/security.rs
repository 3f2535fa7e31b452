//! Who may come in, what they may do there, and what nobody gets to see.

use crate::common::{
    Certificates, PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, own_address, program, tell_ignored,
    tls_to, wait_until,
};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

const NO_AUTH: &str = "NOAUTH Authentication required.";
const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const UNKNOWN_LOGIN: &str = "UNAVAILABLE Redis cannot be reached, and it has not let this login in before";
const NO_PERMISSION: &str = "NOPERM this user may run Tollgate's own commands only";

fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

fn status(text: &str) -> Reply {
    Reply::Status(text.to_owned())
}

/// A Tollgate whose clients say `secret`, in each of the two modes. The first stands before a Redis of its own that
/// asks for nothing, the second before one that asks for `secret` too.
fn on_each_mode(test: impl Fn(&Tollgate)) {
    let redis = RedisServer::start();
    let password = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", "password");
    test(&password.env("TOLLGATE_AUTH__PASSWORD", "secret").start());
    redis.command("CONFIG SET requirepass secret");
    let addr = format!("redis://:secret@{}", redis.addr());
    test(&Tollgate::builder().arg("--redis").arg(&addr).env("TOLLGATE_AUTH__MODE", "redis").start());
}

#[test]
fn protected_mode_explains_itself_to_other_machines_and_closes() {
    let Some(address) = own_address() else {
        return tell_ignored("this machine has no address but loopback");
    };
    let start = || Tollgate::builder().arg("--embedded").arg("--listen").arg("0.0.0.0:0");
    let remote = |tollgate: &Tollgate| RawClient::connect(SocketAddr::new(address, tollgate.addr().port()));
    let local = |tollgate: &Tollgate| RawClient::connect(([127, 0, 0, 1], tollgate.addr().port()).into());

    let tollgate = start().start();
    let mut refused = remote(&tollgate);
    let Reply::Error(text) = refused.read() else { panic!("no explanation") };
    assert!(text.starts_with("DENIED Tollgate is running in protected mode"), "{text}");
    assert!(text.contains("auth.mode") && text.contains("server.protected_mode = false"), "{text}");
    assert_eq!(refused.read_to_end(), b"");
    assert_eq!(local(&tollgate).line("PING"), status("PONG"));
    wait_until(PATIENCE, || local(&tollgate).line("INFO clients").text().contains("connected_clients:1\r\n"));

    let open = start().env("TOLLGATE_SERVER__PROTECTED_MODE", "false").start();
    assert_eq!(remote(&open).line("PING"), status("PONG"));
    let asking = start().env("TOLLGATE_AUTH__MODE", "password").env("TOLLGATE_AUTH__PASSWORD", "secret").start();
    assert_eq!(remote(&asking).line("PING"), error(NO_AUTH));
}

#[test]
fn who_has_not_logged_in_may_do_so_and_leave() {
    on_each_mode(|tollgate| {
        let mut client = tollgate.client();
        for line in
            ["PING", "GET k", "RL.CHECK k 5 1h", "rl.help", "RL.RESET k", "INFO", "COMMAND", "CLIENT ID", "NOPE"]
        {
            assert_eq!(client.line(line), error(NO_AUTH), "{line}");
        }
        for line in ["AUTH wrong", "AUTH default wrong", "AUTH nobody secret", "HELLO 3 AUTH default wrong"] {
            assert_eq!(client.line(line), error(WRONG_PASSWORD), "{line}");
        }
        assert_eq!(client.line("RESET"), status("RESET"));
        assert_eq!(client.line("PING"), error(NO_AUTH));
        assert_eq!(client.line("AUTH secret"), status("OK"));
        assert_eq!(client.line("PING"), status("PONG"));
        assert!(client.decide("RL.CHECK k 5 1h").allowed);
        assert_eq!(client.line("AUTH wrong"), error(WRONG_PASSWORD));
        assert_eq!(client.line("PING"), status("PONG"), "a login that fails leaves the one before");
        assert_eq!(client.line("RESET"), status("RESET"));
        assert_eq!(client.line("RL.CHECK k 5 1h"), error(NO_AUTH));
        assert_eq!(client.line("QUIT"), status("OK"));
        assert_eq!(client.read_to_end(), b"");
    });
}

#[test]
fn hello_logs_in_and_chooses_the_protocol_at_once() {
    const HELLO_FIRST: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
         <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version \
         at the same time";
    on_each_mode(|tollgate| {
        let mut client = tollgate.client();
        for line in ["HELLO", "HELLO 2", "HELLO 3", "HELLO 3 SETNAME me"] {
            assert_eq!(client.line(line), error(HELLO_FIRST), "{line}");
        }
        let Reply::Map(fields) = client.line("HELLO 3 AUTH default secret SETNAME me") else { panic!("no map") };
        assert_eq!(Reply::Map(fields).field("proto").integer(), 3);
        assert_eq!(client.line("CLIENT GETNAME").text(), "me");
        assert!(client.decide("RL.CHECK k 5 1h").allowed);
        assert_eq!(client.line("GET nothing"), Reply::Nil);
        assert!(matches!(client.line("HELLO 2 AUTH default secret"), Reply::Array(_)));
        assert!(matches!(client.line("HELLO 3"), Reply::Map(_)));
    });
}

#[test]
fn refusals_before_the_login_are_those_of_redis() {
    let redis = RedisServer::start();
    redis.command("CONFIG SET requirepass secret");
    let requests = [
        &b"PING\r\n"[..],
        b"AUTH wrong\r\n",
        b"AUTH nobody secret\r\n",
        b"AUTH\r\n",
        b"AUTH a b c\r\n",
        b"HELLO 4\r\n",
        b"HELLO x\r\n",
        b"HELLO 3 AUTH default\r\n",
        b"HELLO 3 AUTH default wrong\r\n",
        b"RESET\r\n",
        b"SELECT 0\r\n",
        b"*10\r\n$4\r\nPING\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$1\r\n6\r\n$1\r\n7\r\n$1\r\n8\r\n$1\r\n9\r\n",
    ];
    let closing = [&b"QUIT\r\n"[..], b"*11\r\n", b"*2\r\n$4\r\nAUTH\r\n$16385\r\n"];
    let answers = |addr: SocketAddr, request: &[u8]| {
        let mut client = RawClient::connect(addr);
        let bytes = if closing.contains(&request) {
            client.send(request);
            client.read_to_end()
        } else {
            client.send(&[request, &encode(&["AUTH", "secret"]), &encode(&["ECHO", "end"])].concat());
            client.read_raw_until(b"end")
        };
        String::from_utf8(bytes).unwrap()
    };
    on_each_mode(|tollgate| {
        for request in requests.into_iter().chain(closing) {
            let shown = String::from_utf8_lossy(request);
            assert_eq!(answers(tollgate.addr(), request), answers(redis.addr(), request), "{shown}");
        }
    });
}

#[test]
fn what_comes_in_one_write_with_the_login_waits_for_it() {
    on_each_mode(|tollgate| {
        let mut client = tollgate.client();
        // Longer than a client may send before it is let in.
        let key = vec![b'k'; 20_000];
        let behind =
            [encode(&["RL.CHECK", "k", "5", "1h"]), encode(&[&b"STRLEN"[..], &key]), encode(&["PING"])].concat();
        client.send(&[encode(&["AUTH", "wrong"]), encode(&["RL.CHECK", "k", "5", "1h"])].concat());
        assert_eq!(client.read(), error(WRONG_PASSWORD));
        assert_eq!(client.read(), error(NO_AUTH));
        client.send(&[encode(&["AUTH", "secret"]), behind].concat());
        assert_eq!(client.read(), status("OK"));
        assert!(client.read().decision().allowed);
        assert_eq!(client.read(), Reply::Integer(0));
        assert_eq!(client.read(), status("PONG"));
    });
}

/// A Tollgate before `redis` with three users, whose passwords are their names.
fn with_users(redis: &RedisServer) -> (Tollgate, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    let text = r#"
        [auth]
        mode = "password"
        [[auth.users]]
        name = "admin"
        password_sha256 = "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"
        [[auth.users]]
        name = "shop"
        password_sha256 = "8d9001d32c6a703d95921a77115050f33dd823d3f1730bd35215dcbecad6dc20"
        commands = "rl-only"
        key_prefix = "shop:"
        [[auth.users]]
        name = "blog"
        password_sha256 = ["0000000000000000000000000000000000000000000000000000000000000000", "def53e95f1fc7a2aa7dbc4685f282f1e3e4ea3b364b07622e58edb15d239b252"]
        commands = "rl-only"
        key_prefix = "blog:"
    "#;
    fs::write(&file, text).unwrap();
    (Tollgate::builder().redis(redis).arg("--config").arg(file.to_str().unwrap()).start(), folder)
}

fn log_in(tollgate: &Tollgate, user: &str) -> RawClient {
    let mut client = tollgate.client();
    assert_eq!(client.line(&format!("AUTH {user} {user}")), status("OK"));
    client
}

#[test]
fn a_user_for_checks_alone_gets_to_nothing_else() {
    let redis = RedisServer::start();
    let (tollgate, _folder) = with_users(&redis);
    let mut client = log_in(&tollgate, "shop");
    for line in
        ["GET k", "set k v", "WATCH k", "EVAL return(1) 0", "SUBSCRIBE c", "CONFIG GET *", "MONITOR", "RL.NOPE", "NOPE"]
    {
        assert_eq!(client.line(line), error(NO_PERMISSION), "{line}");
    }
    // Too long to be kept until it is whole, and so another way through Tollgate.
    let long = encode(&["SET".as_bytes(), b"k", &vec![b'v'; 300_000]]);
    client.send(&[long, encode(&["ECHO", "behind"])].concat());
    assert_eq!(client.read(), error(NO_PERMISSION));
    assert_eq!(client.read(), Reply::bulk("behind"));
    let long = encode(&["ECHO".as_bytes(), &vec![b'v'; 300_000]]);
    assert_eq!(client.cmd(&["RL.CHECK", "k", "5", "1h"]).decision().remaining, 4);
    client.send(&long);
    assert_eq!(client.read(), Reply::Bulk(vec![b'v'; 300_000]));

    assert!(matches!(client.line("HELLO 3"), Reply::Map(_)));
    assert_eq!(client.line("PING"), status("PONG"));
    assert_eq!(client.line("CLIENT SETNAME me"), status("OK"));
    assert_eq!(client.line("CLIENT GETNAME"), Reply::bulk("me"));
    assert_eq!(client.line("CLIENT SETINFO LIB-NAME lib"), status("OK"));
    assert!(client.line("CLIENT ID").integer() > 0);
    assert!(client.line("COMMAND COUNT").integer() >= 4);
    assert_eq!(client.line("SELECT 0"), status("OK"));
    let info = client.line("INFO").text();
    assert!(info.contains("tollgate_version:") && !info.contains("mem_allocator"), "{info}");
    assert_eq!(redis.command("EXISTS rl:{k}:3600000 rl:{blog:k}:3600000 rl:{shop:k}:3600000"), Reply::Integer(1));

    // The same connection as somebody else, and back.
    assert_eq!(client.line("AUTH admin admin"), status("OK"));
    assert_eq!(client.line("SET k v"), status("OK"));
    assert_eq!(client.line("AUTH shop shop"), status("OK"));
    assert_eq!(client.line("GET k"), error(NO_PERMISSION));
    assert!(matches!(client.line("HELLO 2 AUTH admin admin"), Reply::Array(_)));
    assert_eq!(client.line("GET k"), Reply::bulk("v"));
}

#[test]
fn a_login_that_is_checked_here_costs_redis_no_connection() {
    let redis = RedisServer::start();
    let (tollgate, _folder) = with_users(&redis);
    assert!(!log_in(&tollgate, "shop").decide("RL.CHECK k 1000 1h").degraded);
    let mut clients: Vec<RawClient> = (0..50).map(|_| tollgate.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let user = if index % 2 == 0 { "shop" } else { "admin" };
        assert!(matches!(client.line(&format!("HELLO 3 AUTH {user} {user} SETNAME {user}")), Reply::Map(_)));
        assert!(!client.decide("RL.CHECK k 1000 1h").degraded);
    }
    let in_redis = redis.command("CLIENT LIST").text();
    assert!(in_redis.lines().count() < 25, "{in_redis}");
    // What it said is repeated when it needs one.
    assert_eq!(clients[1].line("CLIENT GETNAME"), Reply::bulk("admin"));
    assert!(matches!(clients[1].line("HGETALL none"), Reply::Map(_)));
    assert!(redis.command("CLIENT LIST").text().contains("name=admin"));
}

#[test]
fn users_with_prefixes_do_not_meet() {
    let redis = RedisServer::start();
    let (tollgate, _folder) = with_users(&redis);
    let [mut shop, mut blog, mut admin] = ["shop", "blog", "admin"].map(|user| log_in(&tollgate, user));
    for remaining in [4, 3] {
        assert_eq!(shop.decide("RL.CHECK k 5 1h").remaining, remaining);
    }
    assert_eq!(blog.decide("RL.CHECK k 5 1h").remaining, 4);
    assert_eq!(blog.decide("RL.PEEK k 5 1h").remaining, 3);
    assert_eq!(admin.decide("RL.PEEK k 5 1h").remaining, 4);
    assert_eq!(admin.decide("RL.PEEK shop:k 5 1h").remaining, 2);
    assert_eq!(blog.line("RL.RESET k shop:k"), Reply::Integer(1));
    assert_eq!(shop.decide("RL.PEEK k 5 1h").remaining, 2);
    assert_eq!(redis.command("EXISTS rl:{k}:3600000 rl:{blog:k}:3600000 rl:{shop:k}:3600000"), Reply::Integer(1));
    let longest = "k".repeat(1024);
    assert!(shop.decide(&format!("RL.CHECK {longest} 5 1h")).allowed);
    assert_eq!(shop.line(&format!("RL.RESET {longest}")), Reply::Integer(1));
}

#[test]
fn whom_redis_has_let_in_comes_in_while_it_is_down() {
    let mut redis = RedisServer::start_with(&["--user", "low", "on", ">word", "~low:*", "&*", "+@all"]);
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", "redis").expect_log("redis").start();
    let mut client = tollgate.client();
    assert_eq!(client.line("AUTH low word"), status("OK"));
    assert_eq!(client.line("SET low:k v"), status("OK"));
    assert!(client.line("SET other v").text().starts_with("NOPERM"));
    // What is only queued is not yet right.
    assert_eq!(client.line("MULTI"), status("OK"));
    client.line("AUTH low guess");
    client.line("DISCARD");
    redis.kill();
    let mut client = tollgate.client();
    assert_eq!(client.line("RL.CHECK k 5 1h"), error(NO_AUTH));
    for line in ["AUTH low guess", "AUTH word", "AUTH default word", "HELLO 3 AUTH low words"] {
        assert_eq!(client.line(line), error(UNKNOWN_LOGIN), "{line}");
    }
    assert!(matches!(client.line("HELLO 3 AUTH low word"), Reply::Map(_)));
    assert!(client.decide("RL.CHECK k 5 1h").degraded);
    redis.start_again();
    wait_until(PATIENCE, || !client.decide("RL.PEEK other 5 1h").degraded);
    // Still as that user, not as Tollgate's own.
    assert!(client.line("SET other v").text().starts_with("NOPERM"));
    assert_eq!(client.line("SET low:k v"), status("OK"));
}

#[test]
fn a_login_does_not_wait_for_a_redis_that_hangs() {
    let redis = RedisServer::start_with(&["--user", "low", "on", ">word", "~low:*", "&*", "+@all"]);
    let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", "redis").expect_log("redis");
    let tollgate = builder.env("TOLLGATE_UPSTREAM__CONNECT_TIMEOUT_MS", "300").start();
    assert_eq!(tollgate.client().line("AUTH low word"), status("OK"));
    redis.stop();
    // Nobody asks for a check, so nothing has told yet that Redis hangs.
    let mut first = tollgate.client();
    first.send(b"AUTH low word\r\n");
    assert_eq!(first.read_to_end(), b"", "as by a Redis that ends");
    let mut second = tollgate.client();
    assert_eq!(second.line("AUTH low word"), status("OK"));
    assert!(second.decide("RL.CHECK k 5 1h").degraded);
    redis.cont();
    wait_until(PATIENCE, || !second.decide("RL.PEEK other 5 1h").degraded);
    assert_eq!(second.line("SET low:k v"), status("OK"));
}

#[test]
fn a_password_that_redis_no_longer_takes_is_forgotten() {
    let mut redis = RedisServer::start();
    let mut admin = redis.client();
    admin.line("ACL SETUSER user on >old ~* &* +@all");
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", "redis").expect_log("redis").start();
    assert_eq!(tollgate.client().line("AUTH user old"), status("OK"));
    admin.line("ACL SETUSER user <old >new");
    assert_eq!(tollgate.client().line("AUTH user old"), error(WRONG_PASSWORD));
    assert_eq!(tollgate.client().line("AUTH user new"), status("OK"));
    redis.kill();
    assert_eq!(tollgate.client().line("AUTH user old"), error(UNKNOWN_LOGIN));
    assert_eq!(tollgate.client().line("AUTH user new"), status("OK"));
}

/// Tollgate's own user of Redis may do more than its clients, and must not do it for them.
#[test]
fn clients_never_act_as_tollgates_own_user() {
    let own = ["--user", "own", "on", ">word", "~*", "&*", "+@all"];
    let default = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-set"];
    let mut redis = RedisServer::start_with(&[&own[..], &default].concat());
    redis.command("ACL SETUSER user on >word ~user:* &* +@all");
    let addr = format!("redis://own:word@{}", redis.addr());
    let tollgate =
        Tollgate::builder().arg("--redis").arg(&addr).env("TOLLGATE_AUTH__MODE", "redis").expect_log("redis").start();
    let mut client = tollgate.client();
    // There is a connection to Redis from here on, and nobody has logged in by it.
    assert_eq!(client.line("AUTH user wrong"), error(WRONG_PASSWORD));
    assert!(client.line("HELLO 3").text().starts_with("NOAUTH HELLO must be called"));
    assert_eq!(client.line("SET user:k v"), error(NO_AUTH));
    // Too long to be kept until it is whole, and so another way through Tollgate.
    let long = "v".repeat(16_384);
    assert_eq!(client.line(&format!("MSET a {long} b {long} c {long} d {long}")), error(NO_AUTH));
    assert_eq!(redis.command("EXISTS a"), Reply::Integer(0));
    assert_eq!(client.line("AUTH user word"), status("OK"));
    assert_eq!(client.line("SET user:k v"), status("OK"));
    assert!(client.line("SET k v").text().starts_with("NOPERM"));
    redis.kill();
    let mut client = tollgate.client();
    assert_eq!(client.line("AUTH user word"), status("OK"));
    // Without the user, who was not in the file.
    redis.start_again();
    wait_until(PATIENCE, || !client.decide("RL.PEEK k 5 1h").degraded);
    for line in ["SET k v", "SET user:k v"] {
        assert!(matches!(client.line(line), Reply::Error(_)), "{line}");
    }
}

/// RESET ends the login at a Redis too, where it would have been Tollgate's own.
#[test]
fn after_a_reset_a_client_begins_anew() {
    let redis = RedisServer::start();
    redis.command("CONFIG SET requirepass own");
    let addr = format!("redis://:own@{}", redis.addr());
    let tollgate = Tollgate::builder().arg("--redis").arg(&addr).env("TOLLGATE_AUTH__MODE", "password");
    let tollgate = tollgate.env("TOLLGATE_AUTH__PASSWORD", "secret").start();
    let mut client = tollgate.client();
    let long = "v".repeat(16_384);
    for _ in 0..2 {
        assert_eq!(client.line("AUTH secret"), status("OK"));
        assert_eq!(client.line("EXISTS a"), Reply::Integer(0));
        assert_eq!(client.line("RESET"), status("RESET"));
        assert_eq!(client.line("EXISTS a"), error(NO_AUTH));
        assert_eq!(client.line(&format!("MSET a {long} b {long} c {long} d {long}")), error(NO_AUTH));
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    const SHA256: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let redis = RedisServer::start();
    redis.command("CONFIG SET requirepass secret");
    let start = || {
        let addr = format!("redis://:secret@{}", redis.addr());
        Tollgate::builder().arg("--redis").arg(&addr).env("TOLLGATE_LOG__LEVEL", "trace")
    };
    let password = start().env("TOLLGATE_AUTH__MODE", "password").env("TOLLGATE_AUTH__PASSWORD", "secret");
    for tollgate in [password.start(), start().env("TOLLGATE_AUTH__MODE", "redis").start()] {
        let mut client = tollgate.client();
        let mut shown = String::new();
        for line in ["AUTH secret2", "HELLO 3 AUTH default secret2", "HELLO 3 AUTH secret", "AUTH secret a b"] {
            shown += &client.line(line).text();
        }
        assert_eq!(client.line("AUTH secret"), status("OK"));
        for line in ["RL.CHECK k 5 1h", "GET k", "INFO", "INFO tollgate", "CLIENT INFO", "CLIENT LIST"] {
            shown += &format!("{:?}", client.line(line));
        }
        shown += &tollgate.log().join("\n");
        assert!(!shown.contains("secret") && !shown.contains(SHA256), "{shown}");
    }
}

/// A client that speaks TLS and reads line by line.
struct TlsClient(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl TlsClient {
    /// One that trusts the authority of `trusted` and shows the certificate `client` of `shown`.
    fn connect(addr: SocketAddr, trusted: &Certificates, shown: Option<&Certificates>) -> Self {
        Self(BufReader::new(tls_to(addr, trusted, shown)))
    }

    fn lines(&mut self, request: &[&str], count: usize) -> io::Result<String> {
        self.0.get_mut().write_all(&encode(request))?;
        let mut text = String::new();
        for _ in 0..count {
            if self.0.read_line(&mut text)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(text)
    }

    /// Whether it is let in. The handshake ends with what the server says first: in TLS 1.3 a client does not learn
    /// before that whether its certificate is taken.
    fn is_let_in(&mut self) -> bool {
        self.lines(&["PING"], 1).is_ok_and(|reply| reply == "+PONG\r\n")
    }
}

/// An embedded Tollgate that listens with and without TLS, the certificate `server` of `certificates`, and where.
fn speaking_tls(certificates: &Certificates, client_auth: &str) -> (Tollgate, SocketAddr) {
    let path = |name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let mut builder = Tollgate::builder()
        .arg("--embedded")
        .env("TOLLGATE_TLS__LISTEN", "127.0.0.1:0")
        .env("TOLLGATE_TLS__CERT_FILE", &path("server.crt"))
        .env("TOLLGATE_TLS__KEY_FILE", &path("server.key"))
        .expect_log("tls.cert_file");
    if client_auth != "no" {
        builder = builder.env("TOLLGATE_TLS__CLIENT_AUTH", client_auth).env("TOLLGATE_TLS__CA_FILE", &path("ca.crt"));
    }
    let tollgate = builder.start();
    let mut addr = None;
    wait_until(PATIENCE, || {
        let log = tollgate.log();
        let line = log.iter().find(|line| line.contains("listening") && line.contains("tls=true"));
        addr = line.and_then(|line| line.split_once("addr=")?.1.split_whitespace().next()?.parse().ok());
        addr.is_some()
    });
    (tollgate, addr.unwrap())
}

#[test]
fn tls_and_plain_clients_share_their_limits() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let (tollgate, addr) = speaking_tls(&ours, "no");
    let mut client = TlsClient::connect(addr, &ours, None);
    let check = ["RL.CHECK", "k", "5", "1h"];
    assert_eq!(client.lines(&check, 7).unwrap(), "*6\r\n:1\r\n:5\r\n:4\r\n:0\r\n:3600000\r\n:0\r\n");
    assert_eq!(tollgate.client().decide("RL.CHECK k 5 1h").remaining, 3);
    // More than one record of TLS, both ways.
    let long = "x".repeat(1_000_000);
    assert_eq!(client.lines(&["ECHO", &long], 2).unwrap(), format!("$1000000\r\n{long}\r\n"));
    assert!(!TlsClient::connect(addr, &others, None).is_let_in());
    // Who does not speak TLS is told nothing, and the others go on.
    let mut plain = TcpStream::connect(addr).unwrap();
    plain.write_all(&encode(&["PING"])).unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"+PONG"));
    assert!(client.is_let_in());
    assert_eq!(client.lines(&["QUIT"], 1).unwrap(), "+OK\r\n");
    assert_eq!(client.0.read_line(&mut String::new()).unwrap(), 0, "the end is not announced");
}

#[test]
fn clients_show_certificates_where_they_are_asked_for() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    for (client_auth, without, with, with_anothers) in
        [("no", true, true, true), ("optional", true, true, false), ("required", false, true, false)]
    {
        let (_tollgate, addr) = speaking_tls(&ours, client_auth);
        for (shown, expected) in [(None, without), (Some(&ours), with), (Some(&others), with_anothers)] {
            let is_let_in = TlsClient::connect(addr, &ours, shown).is_let_in();
            let which = shown.map(|shown| std::ptr::eq(shown, &raw const ours));
            assert_eq!(is_let_in, expected, "{client_auth}, shows one of ours: {which:?}");
        }
    }
}

#[test]
fn sighup_exchanges_certificates_and_a_bad_one_changes_nothing() {
    let (first, second) = (Certificates::new(), Certificates::new());
    let (tollgate, addr) = speaking_tls(&first, "required");
    let mut before = TlsClient::connect(addr, &first, Some(&first));
    assert!(before.is_let_in());
    let logged = |text: &str| wait_until(PATIENCE, || tollgate.log().iter().any(|line| line.contains(text)));

    fs::write(first.file("server.crt"), "none").unwrap();
    tollgate.signal("-HUP");
    logged("tls.cert_file");
    assert!(tollgate.log().iter().any(|line| line.contains(first.file("server.crt").to_str().unwrap())));
    assert!(TlsClient::connect(addr, &first, Some(&first)).is_let_in());

    fs::copy(first.file("ca.crt"), first.file("old-ca.crt")).unwrap();
    for name in ["server.crt", "server.key", "ca.crt"] {
        fs::copy(second.file(name), first.file(name)).unwrap();
    }
    tollgate.signal("-HUP");
    wait_until(PATIENCE, || TlsClient::connect(addr, &second, Some(&second)).is_let_in());
    assert!(!TlsClient::connect(addr, &second, Some(&first)).is_let_in());
    assert!(before.is_let_in(), "a client of before is cut off");
}

#[test]
fn a_handshake_that_does_not_come_holds_nobody_up() {
    let certificates = Certificates::new();
    let (mut tollgate, addr) = speaking_tls(&certificates, "no");
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(addr).unwrap()).collect();
    assert!(TlsClient::connect(addr, &certificates, None).is_let_in());
    silent[0].shutdown(Shutdown::Write).unwrap();
    let start = Instant::now();
    tollgate.signal("-TERM");
    assert!(tollgate.wait_for_exit().success());
    assert!(start.elapsed() < Duration::from_secs(2), "silent clients held it for {:?}", start.elapsed());
}

#[test]
fn certificates_that_cannot_be_used_are_named_at_the_start() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let path = |certificates: &Certificates, name: &str| certificates.file(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (path(&ours, "server.crt"), path(&ours, "server.key"), path(&ours, "ca.crt"));
    let (missing, other_key) = (path(&ours, "missing.pem"), path(&others, "server.key"));
    for (cert, key, ca, named) in [
        (&missing, &key, &ca, format!("tls.cert_file: {missing}")),
        (&cert, &missing, &ca, format!("tls.key_file: {missing}")),
        (&cert, &key, &missing, format!("tls.ca_file: {missing}")),
        (&key, &key, &ca, format!("tls.cert_file: {key}")),
        (&cert, &cert, &ca, format!("tls.key_file: {cert}")),
        (&cert, &other_key, &ca, format!("tls.key_file: {other_key}")),
    ] {
        let output = program()
            .args(["--embedded", "--listen", "127.0.0.1:0"])
            .env("TOLLGATE_TLS__LISTEN", "127.0.0.1:0")
            .env("TOLLGATE_TLS__CERT_FILE", cert)
            .env("TOLLGATE_TLS__KEY_FILE", key)
            .env("TOLLGATE_TLS__CA_FILE", ca)
            .env("TOLLGATE_TLS__CLIENT_AUTH", "required")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&named) && !said.contains("PRIVATE KEY") && !said.contains("panicked"), "{said}");
    }
}
