//! Policies that are changed while Tollgate runs: by commands, by its file, on one Tollgate or many.

mod file;
mod many;
mod redis;
mod rights;

use crate::common::{Decision, PATIENCE, RawClient, RedisServer, Reply, Tollgate, info, wait_until};
use std::time::Duration;

/// A change holds on every Tollgate within so long.
const SOON: Duration = Duration::from_secs(1);

/// Runs a test on a fresh embedded Tollgate and on one before a fresh Redis, which may both warn that all is off.
fn on_each_store(test: impl Fn(&mut RawClient)) {
    let log = "the mode of all policies was changed";
    let embedded = Tollgate::builder().arg("--embedded").expect_log(log).start();
    test(&mut embedded.client());
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).expect_log(log).start();
    test(&mut tollgate.client());
}

fn ok() -> Reply {
    Reply::Status("OK".to_owned())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

/// Has a line that is an order be carried out.
#[track_caller]
fn order(client: &mut RawClient, line: &str) {
    assert_eq!(client.line(line), ok(), "{line}");
}

/// The text of a field of RL.POLICY GET.
fn field(client: &mut RawClient, policy: &str, name: &str) -> String {
    match client.line(&format!("RL.POLICY GET {policy}")).field(name) {
        Reply::Integer(number) => number.to_string(),
        other => other.text(),
    }
}

const FREE: (bool, i64, i64) = (true, 1_000_000_000, 1_000_000_000);

/// Whether a check is allowed, its limit and what remains.
fn brief(client: &mut RawClient, line: &str) -> (bool, i64, i64) {
    let Decision { allowed, limit, remaining, .. } = client.decide(line);
    (allowed, limit, remaining)
}

/// All or nothing, each window by its own: the day denies, and nothing is taken of the others.
#[test]
fn a_policy_has_windows_of_different_algorithms() {
    on_each_store(|client| {
        let limits = "10 1h BY gcra BURST 5 4 1d BY log 3 2d BY fixed 1000 month";
        order(client, &format!("RL.POLICY SET mixed {limits}"));
        assert_eq!(field(client, "mixed", "limits"), limits);
        let told: Vec<_> = (0..5).map(|_| brief(client, "RL.CHECK k mixed")).collect();
        assert_eq!(told[..3], [(true, 3, 2), (true, 3, 1), (true, 3, 0)]);
        assert_eq!(told[3..], [(false, 3, 0); 2]);
        // Of each were taken three.
        for (limits, remaining) in
            [("10 1h BY gcra BURST 5", 1), ("4 1d", 0), ("100 2d BY fixed", 96), ("1000 month", 996)]
        {
            order(client, &format!("RL.POLICY SET mixed {limits}"));
            assert_eq!(brief(client, "RL.PEEK k mixed").2, remaining, "{limits}");
        }
        // An override that says nothing of that is counted as the window of the same length, or else as the first.
        order(client, &format!("RL.POLICY SET mixed {limits}"));
        order(client, "RL.OVERRIDE SET mixed k 10 1h 100 1d 100 2d");
        assert_eq!(brief(client, "RL.PEEK k mixed"), (true, 5, 1), "by GCRA as before");
        order(client, "RL.OVERRIDE SET mixed k 100 1d 200 2d");
        assert_eq!(brief(client, "RL.PEEK k mixed"), (true, 100, 96), "in the log as before");
    });
}

#[test]
fn a_policy_is_made_changed_and_taken_back() {
    on_each_store(|client| {
        assert_eq!(client.line("RL.POLICY LIST"), Reply::Array(vec![]));
        assert_eq!(client.line("RL.POLICY GET login"), error("ERR no such policy 'login'"));
        order(client, "RL.POLICY SET login 2 1h 20 1d MODE enforce FALLBACK closed");
        assert_eq!(brief(client, "RL.CHECK k login"), (true, 2, 1));
        assert_eq!(brief(client, "RL.CHECK k login"), (true, 2, 0));
        assert_eq!(brief(client, "RL.CHECK k login"), (false, 2, 0));
        // What is counted stays counted; a denial that was kept holds no longer.
        order(client, "RL.POLICY SET login 3 1h");
        assert_eq!(brief(client, "RL.CHECK k login"), (true, 3, 0));
        assert_eq!(client.line("RL.POLICY DEL login"), Reply::Integer(1));
        assert_eq!(client.line("RL.POLICY DEL login"), Reply::Integer(0));
        assert_eq!(client.line("RL.CHECK k login"), error("ERR no such policy 'login'"));
    });
}

#[test]
fn what_holds_is_told_in_both_protocols() {
    on_each_store(|client| {
        order(client, "RL.POLICY SET login 5 1m 20 1h MODE shadow FALLBACK closed");
        order(client, "RL.OVERRIDE SET login vip off");
        for protocol in ["2", "3"] {
            client.cmd(&["HELLO", protocol]);
            let got = client.line("RL.POLICY GET login");
            assert_eq!(got.field("limits").text(), "5 1m 20 1h");
            assert_eq!(got.field("mode").text(), "shadow");
            assert_eq!(got.field("fallback").text(), "closed");
            assert_eq!((got.field("until_ms"), got.field("overrides")), (&Reply::Integer(-1), &Reply::Integer(1)));
            let quota = |max, seconds| Reply::Array(vec![Reply::Integer(max), Reply::Integer(seconds)]);
            assert_eq!(got.field("quotas"), &Reply::Array(vec![quota(5, 60), quota(20, 3600)]));
            assert_eq!(got.field("policy_header").text(), "\"login-1\";q=5;w=60, \"login-2\";q=20;w=3600");
            // A window that is not of whole seconds cannot be told there.
            order(client, "RL.POLICY SET quick 20 500ms 600 1m");
            let header = client.line("RL.POLICY GET quick").field("policy_header").text();
            assert_eq!(header, "\"quick-1\";q=20, \"quick-2\";q=600;w=60");
            client.line("RL.POLICY DEL quick");
            let source = got.field("source").text();
            assert!(source == "memory" || source == "redis", "{source}");
            let list = client.line("RL.POLICY LIST");
            assert_eq!(list.items().len(), 1);
            assert_eq!(list.items()[0].field("name").text(), "login");
            order(client, "RL.POLICY MODE login off EX 100");
            let got = client.line("RL.POLICY GET login");
            assert_eq!(
                (got.field("mode").text(), got.field("own_mode").text()),
                ("off".to_owned(), "shadow".to_owned())
            );
            assert!(got.field("until_ms").integer() > 1_700_000_000_000);
            order(client, "RL.POLICY MODE login default");
        }
    });
}

#[test]
fn modes_hold_for_one_and_for_all_and_end() {
    on_each_store(|client| {
        order(client, "RL.POLICY SET login 1 1h");
        client.decide("RL.CHECK k login");
        assert_eq!(brief(client, "RL.CHECK k login"), (false, 1, 0));
        order(client, "RL.POLICY MODE login shadow");
        assert!(brief(client, "RL.CHECK k login").0);
        order(client, "RL.POLICY MODE login off");
        assert_eq!(brief(client, "RL.CHECK k login"), FREE);
        order(client, "RL.POLICY MODE login block");
        assert_eq!(client.decide("RL.CHECK other login"), Decision::never(1));
        order(client, "RL.POLICY MODE login default");
        assert_eq!(brief(client, "RL.CHECK k login"), (false, 1, 0));

        // For all, limits without a policy too.
        client.decide("RL.CHECK k 1 1h");
        assert!(!brief(client, "RL.CHECK k 1 1h").0);
        order(client, "RL.POLICY MODE * off EX 1");
        assert_eq!((brief(client, "RL.CHECK k 1 1h"), brief(client, "RL.CHECK k login")), (FREE, FREE));
        wait_until(PATIENCE, || !brief(client, "RL.CHECK k 1 1h").0);
        assert!(!brief(client, "RL.CHECK k login").0, "it is over for all");
        order(client, "RL.POLICY MODE * block");
        assert!(!brief(client, "RL.CHECK new 5 1h").0);
        order(client, "RL.POLICY MODE * default");
        assert!(brief(client, "RL.CHECK new 5 1h").0);
    });
}

#[test]
fn overrides_are_made_listed_and_taken_back_and_end() {
    on_each_store(|client| {
        assert_eq!(client.line("RL.OVERRIDE SET api k off"), error("ERR no such policy 'api'"));
        order(client, "RL.POLICY SET api 1 1h");
        let words = ["RL.OVERRIDE", "SET", "api", "user:*", "7", "1h", "REASON", "a launch, until July"];
        assert_eq!(client.cmd(&words), ok());
        order(client, "RL.OVERRIDE SET api user:1 block");
        order(client, "RL.OVERRIDE SET api user:2 off EX 1");
        assert_eq!(brief(client, "RL.CHECK user:9 api"), (true, 7, 6));
        assert_eq!(client.decide("RL.CHECK user:1 api"), Decision::never(1));
        assert_eq!(brief(client, "RL.CHECK user:2 api"), FREE);
        wait_until(PATIENCE, || brief(client, "RL.PEEK user:2 api").1 == 7);
        assert_eq!(client.line("RL.OVERRIDE GET api user:2"), Reply::Nil);
        let got = client.line("RL.OVERRIDE GET api user:*");
        assert_eq!(got.field("rule").text(), "7 1h");
        assert_eq!(got.field("reason").text(), "a launch, until July");
        let keys = |list: &Reply| list.items().iter().map(|found| found.field("key").text()).collect::<Vec<_>>();
        assert_eq!(keys(&client.line("RL.OVERRIDE LIST api")), ["user:*", "user:1"]);
        assert_eq!(keys(&client.line("RL.OVERRIDE LIST api COUNT 1")), ["user:*"]);
        assert_eq!(keys(&client.line("RL.OVERRIDE LIST api MATCH *1")), ["user:1"]);
        assert_eq!(client.line("RL.OVERRIDE DEL api user:1"), Reply::Integer(1));
        assert_eq!(client.line("RL.OVERRIDE DEL api user:1"), Reply::Integer(0));
        assert_eq!(brief(client, "RL.CHECK user:1 api"), (true, 7, 6));
        // With a policy its overrides go.
        assert_eq!(client.line("RL.POLICY DEL api"), Reply::Integer(1));
        order(client, "RL.POLICY SET api 1 1h");
        assert_eq!(client.line("RL.OVERRIDE LIST api"), Reply::Array(vec![]));
    });
}

#[test]
fn pipelined_orders_hold_for_what_stands_behind_them() {
    on_each_store(|client| {
        client.send(
            b"RL.POLICY SET api 5 1h\r\nRL.OVERRIDE SET api k 9 1h\r\nRL.OVERRIDE SET nobody k 9 1h\r\n\
              RL.OVERRIDE SET api l off\r\nRL.CHECK k api\r\nRL.POLICY MODE api off\r\nRL.CHECK x api\r\nRL.POLICY DEL api\r\n\
              RL.CHECK k api\r\n",
        );
        assert_eq!([client.read(), client.read()], [ok(), ok()]);
        assert_eq!(client.read(), error("ERR no such policy 'nobody'"));
        assert_eq!(client.read(), ok());
        assert_eq!(client.read().decision().limit, 9);
        assert_eq!(client.read(), ok());
        assert_eq!(client.read().decision().limit, FREE.1);
        assert_eq!(client.read(), Reply::Integer(1));
        assert_eq!(client.read(), error("ERR no such policy 'api'"));
    });
}

#[test]
fn they_cannot_stand_in_a_transaction() {
    on_each_store(|client| {
        order(client, "MULTI");
        let refused = client.line("RL.POLICY SET api 1 1h");
        assert_eq!(refused, error("ERR 'rl.policy' cannot run inside MULTI"));
        assert!(matches!(client.line("EXEC"), Reply::Error(_)));
    });
}

#[test]
fn shadow_would_deny_what_enforce_denies() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    order(&mut client, "RL.POLICY SET real 3 1h 5 1d");
    order(&mut client, "RL.POLICY SET tried 3 1h 5 1d MODE shadow");
    for number in 0..50 {
        let (key, cost) = (number % 5, 1 + number % 3);
        let real = brief(&mut client, &format!("RL.CHECK k{key} real COST {cost}"));
        let tried = brief(&mut client, &format!("RL.CHECK k{key} tried COST {cost}"));
        assert_eq!((real.1, real.2), (tried.1, tried.2), "{number}");
        assert!(tried.0);
    }
    let denied = info(&tollgate, "checks_denied");
    assert_eq!(info(&tollgate, "checks_shadow_denied"), denied);
    assert_ne!(denied, "0");
}
