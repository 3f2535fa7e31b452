//! How Tollgate's own commands are written and what they say of themselves: each option, unit, bound and error, the
//! same before a Redis and embedded.

use crate::common::{Decision, Reply, on_each_store};

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
            // As languages with floating-point numbers write whole ones.
            ("5.0 60.0 COST 5.0", 5, 0, 60_000),
            ("100.00 60.00", 100, 99, 60_000),
            ("1e3 1.5E1", 1000, 999, 15_000),
            ("1.0E9 6e+01", 1_000_000_000, 999_999_999, 60_000),
            ("5 1.0m", 5, 4, 60_000),
        ]
        .into_iter()
        .enumerate()
        {
            let line = format!("rl.Check k{index} {quota}");
            assert_eq!(client.decide(&line), Decision::allowed(limit, remaining, window_ms), "{line}");
        }
        let eight = "RL.CHECK eight 10 1s 10 2s 10 3s 10 4s 10 5s 10 6s 10 7s 9 8s";
        assert_eq!(client.decide(eight), Decision::allowed(9, 8, 8000));
    });
}

#[test]
fn a_window_is_the_same_however_it_is_spelled() {
    on_each_store(|client| {
        for (remaining, window) in (0..4).rev().zip(["60", "60s", "1m", "60000ms"]) {
            let line = format!("RL.CHECK k 4 {window}");
            assert_eq!(client.decide(&line), Decision::allowed(4, remaining, 60_000), "{line}");
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
        ("RL.STATS me".to_owned(), arity("rl.stats")),
        ("RL.INSPECT".to_owned(), arity("rl.inspect")),
        ("RL.TOP COUNT".to_owned(), arity("rl.top")),
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
            ("1. 60", LIMIT.into()),
            ("1e-1 60", LIMIT.into()),
            ("1e10 60", LIMIT.into()),
            ("-5.0 60", LIMIT.into()),
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
            ("5 60.5", WINDOW.into()),
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
            ("5 60 COST 1.5", COST.into()),
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
        assert_eq!(client.decide("RL.PEEK k 5 60").reset_after_ms, 60_000);
        assert_eq!(client.line("RL.RESET k"), Reply::Integer(0));
    });
}

/// Each said no more than what is wanted, and left the reader to find what was sent in its place.
#[test]
fn an_error_shows_what_was_sent_and_what_would_be_right() {
    const USAGE: &str =
        "key limit window [limit window ...]|policy [BY log|gcra [BURST n]|fixed] [PREFETCH n|time] [COST n] [FULL]";
    const LIMIT: &str = "ERR limit must be an integer between 1 and 1000000000, not";
    let long = "9".repeat(1000);
    let key = "k".repeat(2000);
    let table = [
        ("RL.CHECK k 0 60".to_owned(), format!("{LIMIT} '0'")),
        (format!("RL.CHECK k {long} 60"), format!("{LIMIT} '{}'", &long[..128])),
        (
            "RL.CHECK k 60s 10".to_owned(),
            format!("{LIMIT} '60s': the limit comes before its window, as in 'RL.CHECK key 10 60s'"),
        ),
        ("RL.CHECK k 60s 1m".to_owned(), format!("{LIMIT} '60s'")),
        ("RL.CHECK k 5 60 COST ten".to_owned(), "ERR cost must be an integer between 1 and 1000000, not 'ten'".into()),
        (format!("RL.CHECK {key} 5 60"), "ERR key must be 1 to 1024 bytes long, not 2000".into()),
        (format!("RL.RESET k {key}"), "ERR key must be 1 to 1024 bytes long, not 2000".into()),
        ("RL.CHECK k 5 60 FOO".to_owned(), format!("ERR unknown option 'FOO' for 'rl.check': RL.CHECK {USAGE}")),
        ("RL.CHECK k".to_owned(), format!("ERR wrong number of arguments for 'rl.check' command: RL.CHECK {USAGE}")),
        ("rl.peek".to_owned(), format!("ERR wrong number of arguments for 'rl.peek' command: RL.PEEK {USAGE}")),
        ("RL.RESET".to_owned(), "ERR wrong number of arguments for 'rl.reset' command: RL.RESET key [key ...]".into()),
        ("RL.HELP me".to_owned(), "ERR wrong number of arguments for 'rl.help' command: RL.HELP".into()),
    ];
    on_each_store(|client| {
        for (line, error) in &table {
            assert_eq!(client.line(line), Reply::Error(error.clone()), "{line}");
        }
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
fn replies_have_the_same_shape_in_resp3_and_inline() {
    on_each_store(|client| {
        client.send(b"rl.check k 3 1h\r\nRL.CHECK \"a \\x00 b\" 3 1h 5 1d COST 2\nRL.PEEK 'k' 3 1h\r\n");
        assert_eq!(client.read().decision(), Decision::allowed(3, 2, 3_600_000));
        assert_eq!(client.read().decision(), Decision::allowed(3, 1, 3_600_000));
        assert_eq!(client.read().decision(), Decision::allowed(3, 1, 3_600_000));
        assert_eq!(client.cmd(&["RL.PEEK", "a \0 b", "3", "1h"]).decision().remaining, 0);

        assert_eq!(client.cmd(&["HELLO", "3"]).field("proto"), &Reply::Integer(3));
        assert_eq!(client.line("RL.CHECK r 3 1h"), Reply::Array([1, 3, 2, 0, 3_600_000, 0].map(Reply::Integer).into()));
        assert_eq!(client.decide("RL.CHECK r 3 1h COST 4"), Decision::never(3));
        assert_eq!(client.line("RL.RESET r k"), Reply::Integer(2));
        assert!(matches!(client.line("RL.CHECK r 0 1h"), Reply::Error(_)));
    });
}

#[test]
fn help_names_every_command() {
    on_each_store(|client| {
        for help in [client.line("RL.HELP"), client.line("rl.help")] {
            let text: Vec<String> = help.items().iter().map(Reply::text).collect();
            for command in [
                "RL.CHECK key limit window",
                "RL.PEEK key limit window",
                "RL.RESET key",
                "RL.INSPECT key",
                "RL.TOP [",
                "RL.STATS",
                "RL.HELP",
            ] {
                assert!(text.iter().any(|line| line.contains(command)), "{command}: {text:#?}");
            }
            assert!(help.items().iter().all(|line| matches!(line, Reply::Status(_))), "as Redis's HELP: {help:?}");
        }
    });
}

#[test]
fn command_tells_of_our_commands() {
    const OWN: [&str; 7] = ["rl.check", "rl.peek", "rl.reset", "rl.inspect", "rl.top", "rl.stats", "rl.help"];
    on_each_store(|client| {
        for proto in ["2", "3"] {
            client.cmd(&["HELLO", proto]);
            let list: Vec<String> = client.line("COMMAND LIST").items().iter().map(Reply::text).collect();
            assert_eq!(client.line("COMMAND COUNT").integer(), client.line("COMMAND").items().len() as i64);
            for name in OWN {
                assert!(list.iter().any(|listed| listed == name), "{name}: {list:?}");
            }

            let info = client.line("COMMAND INFO rl.check RL.RESET no-such-command");
            let [check, reset, Reply::Nil] = info.items() else { panic!("{info:?}") };
            assert_eq!((&check.items()[0], &check.items()[1]), (&Reply::bulk("rl.check"), &Reply::Integer(-3)));
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

/// Redis does not know these commands, and used to say so.
#[test]
fn command_getkeys_knows_our_commands() {
    let words = |list: &[&str]| Reply::Array(list.iter().map(|word| Reply::bulk(word)).collect());
    let error = |text: &str| Reply::Error(text.to_owned());
    on_each_store(|client| {
        assert_eq!(client.line("COMMAND GETKEYS rl.check k 10 60"), words(&["k"]));
        assert_eq!(client.line("command getkeys RL.PEEK k 10 60 COST 5"), words(&["k"]));
        assert_eq!(client.line("COMMAND GETKEYS RL.RESET a b c"), words(&["a", "b", "c"]));
        let arity = error("ERR Invalid number of arguments specified for command");
        assert_eq!(client.line("COMMAND GETKEYS rl.check k"), arity);
        assert_eq!(client.line("COMMAND GETKEYS rl.help x"), error("ERR The command has no key arguments"));
        assert_eq!(client.line("COMMAND GETKEYS rl.nope k 10"), error("ERR Invalid command specified"));

        let with_flags = |flags: &[&str]| {
            let flags: Vec<Reply> = flags.iter().map(|flag| Reply::Status((*flag).to_owned())).collect();
            move |key: &str, is_resp3: bool| {
                let flags = if is_resp3 { Reply::Set(flags.clone()) } else { Reply::Array(flags.clone()) };
                Reply::Array(vec![Reply::bulk(key), flags])
            }
        };
        let (check, reset) = (with_flags(&["RW", "access", "update"]), with_flags(&["RM", "delete"]));
        for is_resp3 in [false, true] {
            let got = client.line("COMMAND GETKEYSANDFLAGS rl.check k 10 60");
            assert_eq!(got, Reply::Array(vec![check("k", is_resp3)]));
            let got = client.line("COMMAND GETKEYSANDFLAGS rl.reset a b");
            assert_eq!(got, Reply::Array(vec![reset("a", is_resp3), reset("b", is_resp3)]));
            client.cmd(&["HELLO", "3"]);
        }

        let names =
            |reply: Reply| reply.items().iter().map(Reply::text).filter(|name| name.starts_with("rl.")).collect();
        let listed: Vec<String> = names(client.line("COMMAND LIST FILTERBY PATTERN RL.*E*"));
        assert_eq!(listed, ["rl.check", "rl.peek", "rl.reset", "rl.inspect", "rl.throttle", "rl.override", "rl.help"]);
        let listed: Vec<String> = names(client.line("COMMAND LIST FILTERBY ACLCAT read"));
        assert_eq!(listed, ["rl.peek", "rl.inspect"]);
        let listed: Vec<String> = names(client.line("COMMAND LIST FILTERBY MODULE none"));
        assert!(listed.is_empty());
    });
}
