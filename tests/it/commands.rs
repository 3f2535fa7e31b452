//! What Tollgate's own commands decide: limits, windows, costs, peeks and resets, the same before a Redis and embedded.

use crate::common::{Builder, Decision, PATIENCE, RedisServer, Reply, Tollgate, on_each_store, wait_until};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn ten_of_ten_are_allowed_and_the_eleventh_is_denied() {
    on_each_store(|client| {
        for remaining in (0..10).rev() {
            assert_eq!(client.decide("RL.CHECK user:42 10 60"), Decision::allowed(10, remaining, 60_000));
        }
        let denied = client.decide("RL.CHECK user:42 10 60");
        assert_eq!((denied.allowed, denied.limit, denied.remaining, denied.degraded), (false, 10, 0, false));
        assert!((1..=60_000).contains(&denied.retry_after_ms), "{denied:?}");
        assert!((denied.retry_after_ms..=60_000).contains(&denied.reset_after_ms), "{denied:?}");
    });
}

#[test]
fn several_windows_are_all_or_nothing() {
    on_each_store(|client| {
        for remaining in (0..3).rev() {
            assert_eq!(client.decide("RL.CHECK k 10 1h 3 1m"), Decision::allowed(3, remaining, 60_000));
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
        assert_eq!(client.decide("RL.CHECK a 5 1h 4 1m 6 1s"), Decision::allowed(4, 3, 60_000));
        assert_eq!(client.decide("RL.CHECK b 5 1h 5 1m"), Decision::allowed(5, 4, 3_600_000));
        assert_eq!(client.decide("RL.CHECK c 5 1m 5 1h"), Decision::allowed(5, 4, 60_000));
    });
}

#[test]
fn windows_of_a_key_do_not_disturb_each_other() {
    on_each_store(|client| {
        assert_eq!(client.decide("RL.CHECK k 1 1h"), Decision::allowed(1, 0, 3_600_000));
        assert_eq!(client.decide("RL.CHECK k 100 1m"), Decision::allowed(100, 99, 60_000));
        assert!(!client.decide("RL.CHECK k 1 1h").allowed);
        assert_eq!(client.decide("RL.CHECK k 100 1m"), Decision::allowed(100, 98, 60_000));
    });
}

#[test]
fn a_cost_is_counted_whole_or_not_at_all() {
    on_each_store(|client| {
        assert_eq!(client.decide("RL.CHECK k 10 1h COST 7"), Decision::allowed(10, 3, 3_600_000));
        let denied = client.decide("RL.CHECK k 10 1h COST 4");
        assert_eq!((denied.allowed, denied.limit, denied.remaining), (false, 10, 3));
        assert!((1..=3_600_000).contains(&denied.retry_after_ms), "{denied:?}");
        assert_eq!(client.decide("RL.CHECK k 10 1h COST 3"), Decision::allowed(10, 0, 3_600_000));
        assert_eq!(client.decide("RL.CHECK k 10 1h").remaining, 0);
        assert_eq!(client.decide("RL.CHECK big 1000000000 1h COST 1000000").remaining, 999_000_000);
    });
}

#[test]
fn a_cost_above_a_limit_is_denied_for_ever() {
    on_each_store(|client| {
        assert_eq!(client.decide("RL.CHECK k 10 60 COST 11"), Decision::never(10));
        assert_eq!(client.decide("RL.PEEK k 10 60 COST 1000000"), Decision::never(10));
        assert_eq!(client.decide("RL.CHECK k 100 1h 10 60 COST 11"), Decision::never(10));
        assert_eq!(client.decide("RL.PEEK k 9 60 10 61 COST 11"), Decision::never(9));
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
        assert_eq!(client.decide("RL.CHECK k 7 1h"), Decision::allowed(7, 1, 3_600_000));
        let lowered = client.decide("RL.CHECK k 2 1h");
        assert_eq!((lowered.allowed, lowered.limit, lowered.remaining), (false, 2, 0));
        assert_eq!(client.decide("RL.CHECK k 7 1h"), Decision::allowed(7, 0, 3_600_000));
    });
}

#[test]
fn a_peek_says_what_a_check_would_and_counts_nothing() {
    on_each_store(|client| {
        for _ in 0..3 {
            assert_eq!(client.decide("RL.PEEK k 2 1h 9 1d COST 2"), Decision::allowed(2, 0, 3_600_000));
        }
        assert_eq!(client.line("RL.RESET k"), Reply::Integer(0));
        assert_eq!(client.decide("RL.CHECK k 2 1h 9 1d COST 2"), Decision::allowed(2, 0, 3_600_000));
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
        assert_eq!(client.decide("RL.CHECK a 1 1h 5 1d"), Decision::allowed(1, 0, 3_600_000));
        assert_eq!(client.decide("RL.CHECK a 9 90s"), Decision::allowed(9, 8, 90_000));
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
        assert_eq!(client.decide("RL.CHECK k 5 200ms COST 5"), Decision::allowed(5, 0, 200));
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

/// A key that somebody else made, at the name of a log.
#[test]
fn a_log_that_is_none_is_an_error_of_its_own_key_only() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    redis.command("SET rl:{k}:60000 text");
    for line in ["RL.CHECK k 5 1m", "RL.PEEK k 5 1m", "RL.CHECK k 5 1h 5 1m"] {
        let reply = client.line(line);
        assert!(matches!(&reply, Reply::Error(text) if text.starts_with("WRONGTYPE ")), "{line}: {reply:?}");
    }
    client.send(b"RL.CHECK a 5 1m\r\nRL.CHECK k 5 1m\r\nRL.CHECK b 5 1m\r\n");
    assert_eq!(client.read().decision(), Decision::allowed(5, 4, 60_000));
    assert!(matches!(client.read(), Reply::Error(_)));
    assert_eq!(client.read().decision(), Decision::allowed(5, 4, 60_000));
    assert_eq!(
        client.decide("RL.CHECK k 5 1h"),
        Decision::allowed(5, 4, 3_600_000),
        "counted although its other window failed"
    );
    assert_eq!(redis.command("GET rl:{k}:60000"), Reply::bulk("text"));
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
    assert!(index <= 64 && text.contains("raise embedded.max_keys"), "{text} at key {index}");
    assert!(client.decide("RL.CHECK k0 2 1h").allowed, "a key that is held goes on");
    assert!(!client.decide("RL.CHECK k0 2 1h").allowed);
    assert_eq!(client.line("RL.RESET k0"), Reply::Integer(1));
}

/// Whoever met these bounds was told to raise settings that had nothing to do with them.
#[test]
fn a_refusal_of_the_embedded_store_names_the_bound_that_was_met() {
    let tollgate = Tollgate::builder().arg("--embedded").env("TOLLGATE_EMBEDDED__MAX_ENTRIES", "64").start();
    let mut client = tollgate.client();
    let refusal = |reply: Reply| matches!(reply, Reply::Error(_)).then(|| reply.text());
    let refused = (0..1000).find_map(|_| refusal(client.line("RL.CHECK k 1000 1h")));
    let text = refused.expect("more than 64 entries are held");
    assert!(text.contains("raise embedded.max_entries") && !text.contains("max_keys"), "{text}");

    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    for window in 1..=64 {
        assert!(client.decide(&format!("RL.CHECK k 5 {window}h")).allowed, "window {window}");
    }
    let text = client.line("RL.CHECK k 5 65h").text();
    assert!(text.starts_with("ERR a key has at most 64 windows in the embedded log"), "{text}");
    assert!(!text.contains("raise"), "{text}");
    assert!(client.decide("RL.CHECK other 5 65h").allowed);
    assert_eq!(client.line("RL.RESET k"), Reply::Integer(1), "as the error advises");
    assert!(client.decide("RL.CHECK k 5 65h").allowed);
}

#[test]
fn what_is_more_than_the_operator_allows_is_refused_by_the_name_of_the_setting() {
    let limits = [("LIMIT", "100"), ("WINDOW_MS", "60000"), ("COST", "10"), ("WINDOWS", "2"), ("RESET_KEYS", "3")];
    let redis = RedisServer::start();
    for builder in [Tollgate::builder().redis(&redis), Tollgate::builder().arg("--embedded")] {
        let with = |builder: Builder, (name, most): (_, _)| builder.env(&format!("TOLLGATE_LIMITS__MAX_{name}"), most);
        let tollgate = limits.into_iter().fold(builder, with).start();
        let mut client = tollgate.client();
        assert!(client.decide("RL.CHECK k 100 60 99 10 COST 10").allowed, "as much as may be");
        for (line, error) in [
            ("RL.CHECK k 101 60", "ERR limit must be at most 100 here (limits.max_limit)"),
            ("RL.PEEK k 100 1 5 61", "ERR window in milliseconds must be at most 60000 here (limits.max_window_ms)"),
            ("RL.CHECK k 100 60 COST 11", "ERR cost must be at most 10 here (limits.max_cost)"),
            ("RL.CHECK k 1 1 2 2 3 3", "ERR number of windows must be at most 2 here (limits.max_windows)"),
            ("RL.RESET a b c d", "ERR number of keys must be at most 3 here (limits.max_reset_keys)"),
        ] {
            assert_eq!(client.line(line), Reply::Error(error.to_owned()), "{line}");
            assert_eq!(client.line("MULTI").text(), "OK");
            assert_eq!(client.line(line), Reply::Error(error.to_owned()), "{line} in a transaction");
            assert!(client.line("EXEC").text().starts_with("EXECABORT"));
        }
        assert_eq!(client.line("RL.RESET k b c"), Reply::Integer(1));
    }
}

#[test]
fn the_windows_in_use_are_as_many_as_the_operator_allows() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_LIMITS__MAX_WINDOWS_IN_USE", "8").start();
    let mut client = tollgate.client();
    for window in 1..=8 {
        assert!(client.decide(&format!("RL.CHECK k{window} 5 {window}h")).allowed);
    }
    let refused = "ERR too many different windows in use (8: limits.max_windows_in_use)";
    assert_eq!(client.line("RL.CHECK k 5 9h"), Reply::Error(refused.to_owned()));
    assert!(client.decide("RL.CHECK k 5 8h").allowed);
}
