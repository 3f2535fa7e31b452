//! Who may change policies, and what the log tells of it.

use super::{Tollgate, error, ok, order};
use crate::common::{RawClient, RedisServer, Reply, own_address, tell_ignored};
use std::fs;
use std::net::SocketAddr;
use tempfile::TempDir;

const NO_POLICIES: &str = "NOPERM this user may not change policies or see overrides: it takes commands = \"admin\" \
                           (auth.users), or auth.policies = \"all\"";
const NOT_ALL_KEYS: &str = "NOPERM this user has a key prefix, and this tells of all keys";
const RL_ONLY: &str = "NOPERM this user may run Tollgate's own commands only";

/// The SHA-256 of `secret`.
const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

fn start(rights: &str) -> (Tollgate, TempDir) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tollgate.toml");
    let users = [("root", "admin", ""), ("app", "all", ""), ("shop", "all", "shop:"), ("web", "rl-only", "")];
    let users: String = users
        .iter()
        .map(|(name, commands, prefix)| {
            format!(
                "[[auth.users]]\nname = '{name}'\npassword_sha256 = '{SECRET}'\ncommands = '{commands}'\n\
                 key_prefix = '{prefix}'\n"
            )
        })
        .collect();
    fs::write(&file, format!("[auth]\nmode = 'password'\npolicies = '{rights}'\n{users}")).unwrap();
    let builder = Tollgate::builder().arg("--embedded").arg("--config").arg(file.to_str().unwrap());
    (builder.expect_log("the mode of all policies").start(), folder)
}

fn client_of(tollgate: &Tollgate, user: &str) -> RawClient {
    let mut client = tollgate.client();
    assert_eq!(client.cmd(&["AUTH", user, "secret"]), ok());
    client
}

#[test]
fn users_may_change_policies_as_they_are_told_to() {
    for (rights, app) in [("admin", error(NO_POLICIES)), ("all", ok())] {
        let (tollgate, _folder) = start(rights);
        order(&mut client_of(&tollgate, "root"), "RL.POLICY SET api 5 1h");
        let change = "RL.POLICY MODE api off";
        for (user, expected) in
            [("root", ok()), ("app", app.clone()), ("shop", error(NO_POLICIES)), ("web", error(NO_POLICIES))]
        {
            let mut client = client_of(&tollgate, user);
            for line in [change, "RL.POLICY SET api 5 1h", "RL.POLICY MODE * off", "RL.POLICY MODE * default"] {
                assert_eq!(client.line(line), expected, "{user} {line}");
            }
            // Anybody may see what holds for all: an app makes headers of it.
            assert_eq!(client.line("RL.POLICY GET api").field("limits").text(), "5 1h", "{user}");
            assert_eq!(client.line("RL.POLICY LIST").items().len(), 1, "{user}");
            let list = client.line("RL.OVERRIDE LIST api");
            match user {
                "shop" => assert_eq!(list, error(NOT_ALL_KEYS)),
                "web" => assert_eq!(list, error(RL_ONLY)),
                _ if expected == ok() => assert_eq!(list, Reply::Array(vec![])),
                _ => assert_eq!(list, expected),
            }
        }
    }
}

#[test]
fn the_log_tells_once_who_has_changed_what() {
    let (tollgate, _folder) = start("admin");
    let mut client = client_of(&tollgate, "root");
    let peer = client.line("CLIENT INFO").text();
    let peer = peer.split(' ').find_map(|part| part.strip_prefix("addr=")).unwrap().to_owned();
    order(&mut client, "RL.POLICY SET api 5 1h");
    order(&mut client, "RL.POLICY SET api 6 1h");
    order(&mut client, "RL.OVERRIDE SET api k off");
    order(&mut client, "RL.POLICY MODE * off");
    let lines = || tollgate.log().into_iter().filter(|line| line.contains("user=\"root\"")).collect::<Vec<_>>();
    super::wait_until(super::PATIENCE, || lines().len() == 4);
    let lines = lines();
    let says = |line: &str, parts: &[&str]| parts.iter().all(|part| line.contains(part));
    assert!(lines.iter().all(|line| line.contains(&peer)), "{lines:?}");
    assert!(says(&lines[0], &["INFO", "what=\"api\"", "was=\"nothing\"", "is=\"5 1h\""]), "{lines:?}");
    assert!(says(&lines[1], &["INFO", "was=\"5 1h\"", "is=\"6 1h\""]), "{lines:?}");
    assert!(says(&lines[2], &["INFO", "what=\"override:api:k\"", "is=\"off\""]), "{lines:?}");
    assert!(says(&lines[3], &["WARN", "what=\"mode:*\"", "is=\"off\""]), "{lines:?}");
}

#[test]
fn where_nobody_is_asked_who_he_is_this_machine_may_and_others_may_not() {
    let start = |rights: &str| {
        let builder = Tollgate::builder().arg("--embedded").arg("--listen").arg("0.0.0.0:0");
        let builder = builder.env("TOLLGATE_SERVER__PROTECTED_MODE", "false");
        builder.env("TOLLGATE_AUTH__POLICIES", rights).start()
    };
    let tollgate = start("admin");
    let port = tollgate.addr().port();
    order(&mut RawClient::connect(([127, 0, 0, 1], port).into()), "RL.POLICY SET api 5 1h");
    let Some(address) = own_address() else {
        return tell_ignored("this machine has no address but loopback");
    };
    let mut remote = RawClient::connect(SocketAddr::new(address, port));
    assert_eq!(remote.line("RL.POLICY SET api 6 1h"), error(NO_POLICIES));
    assert_eq!(remote.line("RL.POLICY GET api").field("limits").text(), "5 1h");
    let tollgate = start("all");
    order(&mut RawClient::connect(SocketAddr::new(address, tollgate.addr().port())), "RL.POLICY SET api 6 1h");
}

#[test]
fn users_of_redis_may_if_all_may() {
    let redis = RedisServer::start();
    let start = |rights: &str| {
        let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_AUTH__MODE", "redis");
        builder.env("TOLLGATE_AUTH__POLICIES", rights).start()
    };
    redis.command("ACL SETUSER app on >secret ~* &* +@all");
    for (rights, expected) in [("admin", error(NO_POLICIES)), ("all", ok())] {
        let tollgate = start(rights);
        let mut client = client_of(&tollgate, "app");
        assert_eq!(client.line("RL.POLICY SET api 5 1h"), expected);
    }
}
