//! Tollgate's own commands: each option, limit and error, the same before a Redis and embedded.

use crate::common::{Decision, PATIENCE, RawClient, RedisServer, Reply, Tollgate, wait_until};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Runs a test on a fresh embedded Tollgate and on one before a fresh Redis.
fn on_each_store(test: impl Fn(&mut RawClient)) {
    let embedded = Tollgate::embedded();
    test(&mut embedded.client());
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    test(&mut tollgate.client());
}

/// The answer to an allowed request whose window was empty but for requests just made.
fn allowed(limit: i64, remaining: i64, window_ms: i64) -> Decision {
    Decision { allowed: true, limit, remaining, retry_after_ms: 0, reset_after_ms: window_ms, degraded: false }
}

/// The answer to a cost above the limit.
fn never(limit: i64) -> Decision {
    Decision { allowed: false, limit, remaining: 0, retry_after_ms: -1, reset_after_ms: 0, degraded: false }
}

#[test]
fn ten_of_ten_are_allowed_and_the_eleventh_is_denied() {
    on_each_store(|client| {
        for remaining in (0..10).rev() {
            assert_eq!(client.decide("RL.CHECK user:42 10 60"), allowed(10, remaining, 60_000));
        }
        let denied = client.decide("RL.CHECK user:42 10 60");
        assert_eq!((denied.allowed, denied.limit, denied.remaining, denied.degraded), (false, 10, 0, false));
        assert!((1..=60_000).contains(&denied.retry_after_ms), "{denied:?}");
        assert!((denied.retry_after_ms..=60_000).contains(&denied.reset_after_ms), "{denied:?}");
    });
}

#[test]
fn every_unit_and_bound_is_understood() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    on_each_store(|client| {
        for (index, (quota, limit, remaining, window_ms)) in [
            ("1 60", 1, 0, 60_000),
            ("1000000000 60", 1_000_000_000, 999_999_999, 60_000),
            ("5 1ms", 5, 4, 1),
            ("5 1500ms", 5, 4, 1500),
            ("5 1", 5, 4, 1000),
            ("5 1s", 5, 4, 1000),
            ("5 2m", 5, 4, 120_000),
            ("5 3h", 5, 4, 3 * 60 * 60 * 1000),
            ("5 4d", 5, 4, 4 * DAY_MS),
            ("5 31622400000ms", 5, 4, 366 * DAY_MS),
            ("5 31622400", 5, 4, 366 * DAY_MS),
            ("5 31622400s", 5, 4, 366 * DAY_MS),
            ("5 527040m", 5, 4, 366 * DAY_MS),
            ("5 8784h", 5, 4, 366 * DAY_MS),
            ("5 366d", 5, 4, 366 * DAY_MS),
            ("5 60 COST 1", 5, 4, 60_000),
            ("5 60 cost 5", 5, 0, 60_000),
            ("1000000 60 CoSt 1000000", 1_000_000, 0, 60_000),
        ]
        .into_iter()
        .enumerate()
        {
            let line = format!("rl.Check k{index} {quota}");
            assert_eq!(client.decide(&line), allowed(limit, remaining, window_ms), "{line}");
        }
        let eight = "RL.CHECK eight 10 1s 10 2s 10 3s 10 4s 10 5s 10 6s 10 7s 9 8s";
        assert_eq!(client.decide(eight), allowed(9, 8, 8000));
    });
}

#[test]
fn a_window_is_the_same_however_it_is_spelled() {
    on_each_store(|client| {
        for (remaining, window) in (0..4).rev().zip(["60", "60s", "1m", "60000ms"]) {
            let line = format!("RL.CHECK k 4 {window}");
            assert_eq!(client.decide(&line), allowed(4, remaining, 60_000), "{line}");
        }
        assert!(!client.decide("RL.PEEK k 4 60").allowed);
    });
}

#[test]
fn what_is_malformed_is_refused_in_words_and_nothing_is_counted() {
    const LIMIT: &str = "ERR limit must be an integer between 1 and 1000000000";
    const WINDOW: &str = "ERR window must be ";
    const COST: &str = "ERR cost must be an integer between 1 and 1000000";
    let arity = |name: &str| format!("ERR wrong number of arguments for '{name}' command");
    let option = |option: &str, name: &str| format!("ERR unknown option '{option}' for '{name}'");
    let mut table = vec![
        ("RL.RESET".to_owned(), arity("rl.reset")),
        ("rl.Reset".to_owned(), arity("rl.reset")),
        ("RL.HELP me".to_owned(), arity("rl.help")),
    ];
    for (command, name) in [("RL.CHECK", "rl.check"), ("RL.PEEK", "rl.peek")] {
        table.push((command.to_owned(), arity(name)));
        for (rest, error) in [
            ("", arity(name)),
            ("10", arity(name)),
            ("10 60 COST", arity(name)),
            ("10 60 20", arity(name)),
            ("0 60", LIMIT.into()),
            ("-1 60", LIMIT.into()),
            ("1000000001 60", LIMIT.into()),
            ("99999999999999999999 60", LIMIT.into()),
            ("18446744073709551617 60", LIMIT.into()),
            ("1.5 60", LIMIT.into()),
            ("1e3 60", LIMIT.into()),
            ("+5 60", LIMIT.into()),
            ("05 60", LIMIT.into()),
            ("0x10 60", LIMIT.into()),
            ("ten 60", LIMIT.into()),
            ("5 60 0 1h", LIMIT.into()),
            ("5 0", WINDOW.into()),
            ("5 0ms", WINDOW.into()),
            ("5 -1", WINDOW.into()),
            ("5 -1s", WINDOW.into()),
            ("5 +1s", WINDOW.into()),
            ("5 01s", WINDOW.into()),
            ("5 1.5s", WINDOW.into()),
            ("5 s", WINDOW.into()),
            ("5 1w", WINDOW.into()),
            ("5 1us", WINDOW.into()),
            ("5 1sec", WINDOW.into()),
            ("5 1s1", WINDOW.into()),
            ("5 367d", WINDOW.into()),
            ("5 31622401", WINDOW.into()),
            ("5 31622400001ms", WINDOW.into()),
            ("5 99999999999999999999", WINDOW.into()),
            ("5 213503982335d", WINDOW.into()),
            ("5 60 5 0", WINDOW.into()),
            ("5 60 COST 0", COST.into()),
            ("5 60 COST -1", COST.into()),
            ("5 60 COST 1000001", COST.into()),
            ("5 60 COST 1.0", COST.into()),
            ("5 60 COST one", COST.into()),
            ("5 60 FOO", option("FOO", name)),
            ("5 60 FOO 1", option("FOO", name)),
            ("5 60 COST 1 FOO", option("FOO", name)),
            ("5 60 COST 1 COST 2", option("COST", name)),
        ] {
            table.push((format!("{command} k {rest}"), error));
        }
    }
    on_each_store(|client| {
        for (line, error) in &table {
            let reply = client.line(line);
            assert!(matches!(&reply, Reply::Error(text) if text.starts_with(error)), "{line}: {reply:?}");
        }
        // The texts that end where they end.
        assert_eq!(client.line("RL.CHECK k x 60"), Reply::Error(LIMIT.into()));
        assert_eq!(client.line("RL.CHECK k 5 60 FOO"), Reply::Error(option("FOO", "rl.check")));
        assert_eq!(client.decide("RL.PEEK k 5 60").reset_after_ms, 60_000);
        assert_eq!(client.line("RL.RESET k"), Reply::Integer(0));
    });
}

#[test]
fn a_window_named_twice_or_nine_windows_are_refused() {
    on_each_store(|client| {
        for quotas in ["5 60 6 60", "5 60 6 60s", "5 60s 6 1m", "5 1h 6 1m 7 3600000ms", "5 1d 5 24h"] {
            let reply = client.line(&format!("RL.CHECK k {quotas}"));
            assert!(matches!(&reply, Reply::Error(text) if text.starts_with("ERR window")), "{quotas}: {reply:?}");
        }
        let nine: String = (1..=9).map(|window| format!(" 5 {window}s")).collect();
        let reply = client.line(&format!("RL.CHECK k{nine}"));
        assert!(matches!(&reply, Reply::Error(text) if text.starts_with("ERR ") && text.contains('8')), "{reply:?}");
        assert_eq!(client.line("RL.RESET k"), Reply::Integer(0));
    });
}

#[test]
fn keys_are_any_bytes_from_1_to_1024() {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let longest = vec![b'k'; 1024];
    let long_zeros = vec![0; 1024];
    let keys: [&[u8]; 20] = [
        b"k",
        b"\0",
        b"a\0b",
        b"a\0c",
        b"\r\n",
        b"a\r\n:1\r\n",
        b" ",
        b"a{b}c",
        b"{}",
        b"{",
        b"}",
        b"}x",
        b"x}{y",
        b"{a}",
        b"{{a}}",
        b"a{}b",
        "ключ".as_bytes(),
        &all_bytes,
        &longest,
        &long_zeros,
    ];
    on_each_store(|client| {
        for key in keys {
            let check: [&[u8]; 6] = [b"RL.CHECK", key, b"2", b"1h", b"3", b"1d"];
            let answers = [(); 3].map(|()| client.cmd(&check).decision().allowed);
            assert_eq!(answers, [true, true, false], "{key:?} shares its state with another key");
        }
        for key in keys {
            assert_eq!(client.cmd(&[b"RL.RESET", key]), Reply::Integer(1), "{key:?}");
            assert_eq!(client.cmd(&[b"RL.RESET", key]), Reply::Integer(0), "{key:?}");
        }
        for key in [vec![], vec![b'k'; 1025], vec![b'k'; 100_000]] {
            for reply in [
                client.cmd(&[b"RL.CHECK", key.as_slice(), b"5", b"60"]),
                client.cmd(&[b"RL.PEEK", key.as_slice(), b"5", b"60"]),
                client.cmd(&[&b"RL.RESET"[..], b"k", &key]),
            ] {
                assert!(matches!(&reply, Reply::Error(text) if text.starts_with("ERR key must be")), "{reply:?}");
            }
        }
    });
}

#[test]
fn several_windows_are_all_or_nothing() {
    on_each_store(|client| {
        for remaining in (0..3).rev() {
            assert_eq!(client.decide("RL.CHECK k 10 1h 3 1m"), allowed(3, remaining, 60_000));
        }
        let denied = client.decide("RL.CHECK k 10 1h 3 1m");
        assert_eq!((denied.allowed, denied.limit, denied.remaining), (false, 3, 0));
        assert_eq!(client.decide("RL.CHECK k 10 1h").remaining, 6, "the denied request was counted in a window");
        // Denied by both, and by the longer one for longer, in whichever order they are named.
        for line in ["RL.CHECK k 4 1h 3 1m", "RL.CHECK k 3 1m 4 1h"] {
            let denied = client.decide(line);
            assert_eq!((denied.limit, denied.remaining), (4, 0), "{line}");
            assert!(denied.retry_after_ms > 60_000, "{line}: {denied:?}");
        }
    });
}

#[test]
fn the_binding_window_has_least_remaining_and_the_first_wins_a_tie() {
    on_each_store(|client| {
        assert_eq!(client.decide("RL.CHECK a 5 1h 4 1m 6 1s"), allowed(4, 3, 60_000));
        assert_eq!(client.decide("RL.CHECK b 5 1h 5 1m"), allowed(5, 4, 3_600_000));
        assert_eq!(client.decide("RL.CHECK c 5 1m 5 1h"), allowed(5, 4, 60_000));
    });
}

#[test]
fn windows_of_a_key_do_not_disturb_each_other() {
    on_each_store(|client| {
        assert_eq!(client.decide("RL.CHECK k 1 1h"), allowed(1, 0, 3_600_000));
        assert_eq!(client.decide("RL.CHECK k 100 1m"), allowed(100, 99, 60_000));
        assert!(!client.decide("RL.CHECK k 1 1h").allowed);
        assert_eq!(client.decide("RL.CHECK k 100 1m"), allowed(100, 98, 60_000));
    });
}

#[test]
fn a_cost_is_counted_whole_or_not_at_all() {
    on_each_store(|client| {
        assert_eq!(client.decide("RL.CHECK k 10 1h COST 7"), allowed(10, 3, 3_600_000));
        let denied = client.decide("RL.CHECK k 10 1h COST 4");
        assert_eq!((denied.allowed, denied.limit, denied.remaining), (false, 10, 3));
        assert!((1..=3_600_000).contains(&denied.retry_after_ms), "{denied:?}");
        assert_eq!(client.decide("RL.CHECK k 10 1h COST 3"), allowed(10, 0, 3_600_000));
        assert_eq!(client.decide("RL.CHECK k 10 1h").remaining, 0);
        assert_eq!(client.decide("RL.CHECK big 1000000000 1h COST 1000000").remaining, 999_000_000);
    });
}

#[test]
fn a_cost_above_a_limit_is_denied_for_ever() {
    on_each_store(|client| {
        assert_eq!(client.decide("RL.CHECK k 10 60 COST 11"), never(10));
        assert_eq!(client.decide("RL.PEEK k 10 60 COST 1000000"), never(10));
        assert_eq!(client.decide("RL.CHECK k 100 1h 10 60 COST 11"), never(10));
        assert_eq!(client.decide("RL.PEEK k 9 60 10 61 COST 11"), never(9));
        assert_eq!(client.line("RL.RESET k"), Reply::Integer(0), "a denied request was counted");
    });
}

#[test]
fn a_limit_can_change_at_any_call_without_losing_history() {
    on_each_store(|client| {
        for _ in 0..5 {
            assert!(client.decide("RL.CHECK k 5 1h").allowed);
        }
        assert!(!client.decide("RL.CHECK k 5 1h").allowed);
        assert_eq!(client.decide("RL.CHECK k 7 1h"), allowed(7, 1, 3_600_000));
        let lowered = client.decide("RL.CHECK k 2 1h");
        assert_eq!((lowered.allowed, lowered.limit, lowered.remaining), (false, 2, 0));
        assert_eq!(client.decide("RL.CHECK k 7 1h"), allowed(7, 0, 3_600_000));
    });
}

#[test]
fn a_peek_says_what_a_check_would_and_counts_nothing() {
    on_each_store(|client| {
        for _ in 0..3 {
            assert_eq!(client.decide("RL.PEEK k 2 1h 9 1d COST 2"), allowed(2, 0, 3_600_000));
        }
        assert_eq!(client.line("RL.RESET k"), Reply::Integer(0));
        assert_eq!(client.decide("RL.CHECK k 2 1h 9 1d COST 2"), allowed(2, 0, 3_600_000));
        let (peeked, checked) = (client.decide("RL.PEEK k 2 1h 9 1d"), client.decide("RL.CHECK k 2 1h 9 1d"));
        assert_eq!((peeked.allowed, peeked.limit, peeked.remaining), (false, 2, 0));
        assert_eq!((checked.allowed, checked.limit, checked.remaining), (false, 2, 0));
        assert!((0..1000).contains(&(peeked.retry_after_ms - checked.retry_after_ms)), "{peeked:?} {checked:?}");
    });
}

#[test]
fn a_reset_forgets_all_windows_and_counts_the_keys_that_had_any() {
    on_each_store(|client| {
        for line in ["RL.CHECK a 1 1h 5 1d", "RL.CHECK a 9 90s", "RL.CHECK b 1 1h", "RL.CHECK c 1 1h"] {
            assert!(client.decide(line).allowed, "{line}");
        }
        assert!(!client.decide("RL.CHECK a 1 1h 5 1d").allowed);
        assert_eq!(client.line("RL.RESET none"), Reply::Integer(0));
        assert_eq!(client.line("RL.RESET a none b a"), Reply::Integer(2));
        assert_eq!(client.line("rl.reset a b"), Reply::Integer(0));
        assert_eq!(client.decide("RL.CHECK a 1 1h 5 1d"), allowed(1, 0, 3_600_000));
        assert_eq!(client.decide("RL.CHECK a 9 90s"), allowed(9, 8, 90_000));
        assert!(!client.decide("RL.CHECK c 1 1h").allowed, "another key was forgotten");
        assert_eq!(client.line("RL.RESET c"), Reply::Integer(1));
        assert!(client.decide("RL.CHECK c 1 1h").allowed);
    });
}

#[test]
fn a_reset_does_not_count_what_has_expired() {
    on_each_store(|client| {
        let check = client.decide("RL.CHECK k 1 20ms");
        sleep(Duration::from_millis(check.reset_after_ms as u64));
        assert_eq!(client.line("RL.RESET k"), Reply::Integer(0));
    });
}

#[test]
fn a_reset_takes_effect_on_every_proxy() {
    let redis = RedisServer::start();
    let proxies = [Tollgate::before(&redis), Tollgate::before(&redis)];
    let mut clients = proxies.each_ref().map(Tollgate::client);
    assert!(clients[0].decide("RL.CHECK k 1 1h").allowed);
    for client in &mut clients {
        assert!(!client.decide("RL.CHECK k 1 1h").allowed);
    }
    assert_eq!(clients[0].line("RL.RESET k"), Reply::Integer(1));
    let reset = Instant::now();
    wait_until(PATIENCE, || clients[1].decide("RL.CHECK k 1 1h").allowed);
    // A denial held by a proxy that was not told would be held for a second.
    assert!(reset.elapsed() < Duration::from_millis(500), "{:?}", reset.elapsed());
    assert!(!clients[0].decide("RL.CHECK k 1 1h").allowed);
}

#[test]
fn a_request_is_allowed_when_retry_after_said_and_not_before() {
    const WINDOW: Duration = Duration::from_millis(200);
    on_each_store(|client| {
        let sent = Instant::now();
        assert!(client.decide("RL.CHECK k 5 200ms COST 2").allowed);
        assert!(client.decide("RL.CHECK k 5 200ms COST 2").allowed);
        let denied = client.decide("RL.CHECK k 5 200ms COST 3");
        assert_eq!((denied.allowed, denied.limit, denied.remaining), (false, 5, 1));
        assert!((1..=200).contains(&denied.retry_after_ms), "{denied:?}");
        sleep(Duration::from_millis(denied.retry_after_ms as u64));
        assert!(client.decide("RL.CHECK k 5 200ms COST 3").allowed, "denied when it was said to be allowed");
        assert!(sent.elapsed() >= WINDOW, "allowed after {:?}", sent.elapsed());

        let emptied = client.decide("RL.PEEK k 5 200ms COST 5");
        sleep(Duration::from_millis(emptied.reset_after_ms as u64));
        assert_eq!(client.decide("RL.CHECK k 5 200ms COST 5"), allowed(5, 0, 200));
    });
}

#[test]
fn an_asker_that_never_waits_is_allowed_once_in_each_window() {
    const WINDOW: Duration = Duration::from_millis(100);
    on_each_store(|client| {
        let (start, mut admitted) = (Instant::now(), Vec::new());
        while admitted.len() < 6 {
            let sent = Instant::now();
            if client.decide("RL.CHECK k 1 100ms").allowed {
                admitted.push((sent, Instant::now()));
            }
        }
        for pair in admitted.windows(2) {
            assert!(pair[1].1 - pair[0].0 >= WINDOW, "{:?} apart", pair[1].1 - pair[0].0);
        }
        assert!(start.elapsed() < 9 * WINDOW, "denied for longer than a window: {:?}", start.elapsed());
    });
}

#[test]
fn replies_have_the_same_shape_in_resp3_and_inline() {
    on_each_store(|client| {
        client.send(b"rl.check k 3 1h\r\nRL.CHECK \"a \\x00 b\" 3 1h 5 1d COST 2\nRL.PEEK 'k' 3 1h\r\n");
        assert_eq!(client.read().decision(), allowed(3, 2, 3_600_000));
        assert_eq!(client.read().decision(), allowed(3, 1, 3_600_000));
        assert_eq!(client.read().decision(), allowed(3, 1, 3_600_000));
        assert_eq!(client.cmd(&["RL.PEEK", "a \0 b", "3", "1h"]).decision().remaining, 0);

        assert_eq!(client.cmd(&["HELLO", "3"]).field("proto"), &Reply::Integer(3));
        assert_eq!(client.line("RL.CHECK r 3 1h"), Reply::Array([1, 3, 2, 0, 3_600_000, 0].map(Reply::Integer).into()));
        assert_eq!(client.decide("RL.CHECK r 3 1h COST 4"), never(3));
        assert_eq!(client.line("RL.RESET r k"), Reply::Integer(2));
        assert!(matches!(client.line("RL.CHECK r 0 1h"), Reply::Error(_)));
    });
}

#[test]
fn help_names_every_command() {
    on_each_store(|client| {
        for help in [client.line("RL.HELP"), client.line("rl.help")] {
            let text: Vec<String> = help.items().iter().map(Reply::text).collect();
            for command in ["RL.CHECK key limit window", "RL.PEEK key limit window", "RL.RESET key", "RL.HELP"] {
                assert!(text.iter().any(|line| line.contains(command)), "{command}: {text:#?}");
            }
            assert!(help.items().iter().all(|line| matches!(line, Reply::Status(_))), "as Redis's HELP: {help:?}");
        }
    });
}

#[test]
fn command_tells_of_our_commands() {
    const OWN: [&str; 4] = ["rl.check", "rl.peek", "rl.reset", "rl.help"];
    on_each_store(|client| {
        for proto in ["2", "3"] {
            client.cmd(&["HELLO", proto]);
            let count = client.line("COMMAND COUNT").integer();
            let list: Vec<String> = client.line("COMMAND LIST").items().iter().map(Reply::text).collect();
            assert_eq!(list.len() as i64, count);
            assert_eq!(client.line("COMMAND").items().len() as i64, count);
            for name in OWN {
                assert!(list.iter().any(|listed| listed == name), "{name}: {list:?}");
            }

            let info = client.line("COMMAND INFO rl.check RL.RESET no-such-command");
            let [check, reset, Reply::Nil] = info.items() else { panic!("{info:?}") };
            assert_eq!((&check.items()[0], &check.items()[1]), (&Reply::bulk("rl.check"), &Reply::Integer(-4)));
            assert_eq!([3, 4, 5].map(|place| check.items()[place].integer()), [1, 1, 1]);
            assert_eq!((&reset.items()[0], &reset.items()[1]), (&Reply::bulk("rl.reset"), &Reply::Integer(-2)));
            assert_eq!([3, 4, 5].map(|place| reset.items()[place].integer()), [1, -1, 1]);

            let docs = client.line("COMMAND DOCS rl.check");
            assert!(!docs.field("rl.check").field("summary").text().is_empty());
            let arguments: Vec<String> =
                docs.field("rl.check").field("arguments").items().iter().map(|arg| arg.field("name").text()).collect();
            assert_eq!(arguments.first().map(String::as_str), Some("key"), "{arguments:?}");
            let all = client.line("COMMAND DOCS");
            for name in OWN {
                all.field(name).field("summary");
            }
        }
    });
}

#[test]
fn a_full_embedded_store_refuses_new_keys_in_words() {
    let tollgate = Tollgate::builder().arg("--embedded").env("TOLLGATE_EMBEDDED__MAX_KEYS", "64").start();
    let mut client = tollgate.client();
    let mut refused = None;
    for index in 0..1000 {
        let reply = client.line(&format!("RL.CHECK k{index} 2 1h"));
        if let Reply::Error(text) = reply {
            refused = Some((index, text));
            break;
        }
    }
    let (index, text) = refused.expect("more than 64 keys are held");
    assert!(index <= 64 && text.starts_with("ERR "), "{text} at key {index}");
    assert!(client.decide("RL.CHECK k0 2 1h").allowed, "a key that is held goes on");
    assert!(!client.decide("RL.CHECK k0 2 1h").allowed);
    assert_eq!(client.line("RL.RESET k0"), Reply::Integer(1));
}
