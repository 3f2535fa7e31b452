//! CL.THROTTLE and RL.THROTTLE: the module redis-cell's answers, integer by integer, by what a real one answered.

use crate::common::{
    Cluster, PATIENCE, RawClient, RedisServer, Reply, Scripts, Tollgate, info, on_each_store, wait_until,
};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tollgate::store::redis::Names;
use tollgate::store::throttle::{ThrottleBatch, ThrottleReport};
use tollgate::store::throttles::Throttles;
use tollgate::throttle::{Decision, Life, Question};

/// The five integers of a reply.
#[track_caller]
fn five(reply: &Reply) -> [i64; 5] {
    let numbers: Vec<i64> = reply.items().iter().map(Reply::integer).collect();
    numbers.try_into().unwrap()
}

/// What redis-cell 0.5.0 answered in Redis 7.0, whose clock was moved between the calls, and what its key held then.
///
/// `@ <unix time in ns>` begins with a new key, `= <value>` gives it a value that does not expire. Any other line is a call:
/// by how many ns the clock was moved, the arguments behind the key (percent-encoded; `%` is an empty one), `>`, the answer,
/// `|`, and how far TAT was ahead then in ns, and the time to live in ms, `-` for none; `=` if the key was left alone.
const VECTORS: &str = include_str!("../vectors/throttle.txt");

const NO_EXPIRY: &str = "-Cell error: Store error: Error while setting key expire";
/// The slot of all keys with the tag `{m}`.
const SLOT_OF_M: usize = 15_627;

/// A call, and how its key stood before it and after.
struct Call {
    line: &'static str,
    is_first: bool,
    now_ns: i128,
    args: Vec<String>,
    reply: &'static str,
    before: State,
    after: State,
}

/// The value, and the last millisecond in which it is there; if it is.
type State = Option<(String, Option<i128>)>;

fn calls() -> impl Iterator<Item = Call> {
    let (mut now_ns, mut state, mut is_first): (i128, State, bool) = (0, None, true);
    VECTORS.lines().filter_map(move |line| {
        if let Some(start) = line.strip_prefix("@ ") {
            (now_ns, state, is_first) = (start.parse().unwrap(), None, true);
            return None;
        }
        if let Some(value) = line.strip_prefix("= ") {
            state = Some((value.to_owned(), None));
            return None;
        }
        let (asked, answered) = line.split_once(" > ").unwrap();
        let (reply, left) = answered.split_once(" | ").unwrap();
        let mut words = asked.split(' ');
        now_ns += words.next().unwrap().parse::<i128>().unwrap();
        let before = state.take().filter(|(_, last_ms)| last_ms.is_none_or(|last_ms| now_ns / 1_000_000 <= last_ms));
        state = match left.split_once(' ') {
            Some((ahead_ns, life_ms)) => {
                let life_ms = life_ms.parse::<i128>().ok();
                let tat_ns = now_ns + ahead_ns.parse::<i128>().unwrap();
                Some((tat_ns.to_string(), life_ms.map(|life_ms| now_ns / 1_000_000 + life_ms)))
            }
            None => before.clone(),
        };
        let (args, was_first) = (words.map(decoded).collect(), is_first);
        is_first = false;
        Some(Call { line, is_first: was_first, now_ns, args, reply, before, after: state.clone() })
    })
}

/// The calls about one key.
fn sequences() -> impl Iterator<Item = Vec<Call>> {
    let mut all: Vec<Vec<Call>> = Vec::new();
    for call in calls() {
        if call.is_first {
            all.push(Vec::new());
        }
        all.last_mut().unwrap().push(call);
    }
    all.into_iter()
}

fn decoded(word: &str) -> String {
    let mut parts = if word == "%" { "" } else { word }.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

impl Call {
    /// What it asks; `None` if it is not understood.
    fn question(&self) -> Option<Question> {
        let numbers: Option<Vec<i64>> = self.args.iter().map(|arg| arg.parse().ok()).collect();
        match numbers?[..] {
            [max_burst, count, period_s] => Question::new(max_burst, count, period_s, 1),
            [max_burst, count, period_s, quantity] => Question::new(max_burst, count, period_s, quantity),
            _ => None,
        }
    }

    fn ahead_ns(&self) -> i128 {
        self.before.as_ref().map_or(0, |(value, _)| i128::from(value.parse::<u64>().unwrap()) - self.now_ns)
    }

    /// Whether its key had a value before the first call.
    fn is_preset(&self) -> bool {
        self.is_first && self.before.is_some()
    }

    fn is_of_whole_us(&self) -> bool {
        self.now_ns % 1000 == 0
    }
}

/// The reply, and what is left, where TAT was so far ahead.
fn expected(question: &Question, ahead_ns: i128) -> (String, Option<(i128, Life)>) {
    let (decision, after_ns) = question.decide(ahead_ns);
    let life = Life::of(after_ns);
    if !decision.is_limited && life == Life::Refused {
        return (NO_EXPIRY.to_owned(), Some((after_ns, life)));
    }
    (written(&decision), (!decision.is_limited).then_some((after_ns, life)))
}

fn written(decision: &Decision) -> String {
    let Decision { limit, remaining, retry_after_s, reset_after_s, .. } = decision;
    format!("{} {limit} {remaining} {retry_after_s} {reset_after_s}", u8::from(decision.is_limited))
}

#[test]
fn the_formula_is_redis_cells() {
    let mut compared = 0;
    for call in calls() {
        let Some(question) = call.question() else { continue };
        let (reply, left) = expected(&question, call.ahead_ns());
        assert_eq!(reply, call.reply, "{}", call.line);
        if let Some((after_ns, life)) = left {
            let (value, last_ms) = call.after.as_ref().unwrap();
            let tat_ns = (call.now_ns + after_ns).rem_euclid(1 << 64);
            assert_eq!(tat_ns.to_string(), *value, "{}", call.line);
            let life = if let Life::Ms(ms) = life { Some(call.now_ns / 1_000_000 + i128::from(ms)) } else { None };
            assert_eq!(life, *last_ms, "{}", call.line);
        }
        compared += 1;
    }
    assert!(compared > 2000);
}

/// Values that redis-cell wrote are read, and those that are written are its own, so that each goes on where the other
/// stopped. Times are far ahead of the real one, by which Redis expires keys.
#[test]
fn the_script_reads_and_writes_what_redis_cell_does() {
    let redis = RedisServer::start();
    let mut scripts = Scripts::on(&redis);
    let mut compared = 0;
    for call in calls().filter(Call::is_of_whole_us) {
        let Some(question) = call.question() else { continue };
        scripts.set_time(u64::try_from(call.now_ns / 1000).unwrap());
        match &call.before {
            Some((value, Some(last_ms))) => scripts.control.line(&format!("SET k {value} PXAT {last_ms}")),
            Some((value, None)) => scripts.control.line(&format!("SET k {value}")),
            None => scripts.control.line("DEL k"),
        };
        let mut batch = ThrottleBatch::default();
        batch.add(b"k", question);
        let names = if compared % 2 == 0 { Names::Passed } else { Names::Declared };
        let reply = scripts.run(|store| store.throttle(&batch, names));
        assert_eq!(batch.read(reply).unwrap(), [ThrottleReport::Ahead(call.ahead_ns())], "{}", call.line);
        let after = match scripts.control.line("GET k") {
            Reply::Bulk(value) => {
                let last_ms = Some(i128::from(scripts.control.line("PEXPIRETIME k").integer())).filter(|ms| *ms >= 0);
                Some((String::from_utf8(value).unwrap(), last_ms))
            }
            _ => None,
        };
        assert_eq!(after, call.after, "{}", call.line);
        compared += 1;
    }
    assert!(compared > 1000);
}

/// Whole sequences, so that the states also have to end when redis-cell's do. Of those whose clock never steps back, as that
/// of this process does not: what has ended it would not have deleted by then, as Redis has when it was looked at.
#[test]
fn the_embedded_states_are_redis_cells() {
    let is_plain = |calls: &Vec<Call>| {
        let is_in_order = calls.is_sorted_by_key(|call| call.now_ns);
        is_in_order && calls.iter().all(|call| call.is_of_whole_us() && !call.is_preset())
    };
    let mut compared = 0;
    for sequence in sequences().filter(is_plain) {
        let throttles = Throttles::new(1);
        for call in sequence {
            let Some(question) = call.question() else { continue };
            let now_us = u64::try_from(call.now_ns / 1000).unwrap();
            let (decision, life) = throttles.decide(b"k", &question, now_us).unwrap();
            let is_refused = !decision.is_limited && life == Life::Refused;
            let reply = if is_refused { NO_EXPIRY.to_owned() } else { written(&decision) };
            assert_eq!(reply, call.reply, "{}", call.line);
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared}");
}

#[test]
fn what_redis_cell_does_not_understand_it_says_in_its_words() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    let mut compared = 0;
    for call in calls().filter(|call| call.question().is_none()) {
        let words: Vec<&str> = ["CL.THROTTLE", "k"].into_iter().chain(call.args.iter().map(String::as_str)).collect();
        assert_eq!(format!("-{}", client.cmd(&words).text()), call.reply, "{}", call.line);
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
    let usage =
        "Cell error: Store error: Usage: cl.throttle <key> <max_burst> <count per period> <period> [<quantity>]";
    for line in ["CL.THROTTLE", "cl.throttle k", "CL.THROTTLE k 1 1", "CL.THROTTLE k 1 1 1 1 1"] {
        assert_eq!(client.line(line), Reply::Error(usage.to_owned()), "{line}");
    }
    let nul = client.cmd(&[b"CL.THROTTLE".as_slice(), b"k", b"a\0b", b"1", b"1"]);
    assert_eq!(nul.text(), "Cell error: Store error: Couldn't parse as integer: a");
}

#[test]
fn rl_throttle_asks_the_same_with_redis_errors() {
    on_each_store(|client| {
        assert_eq!(five(&client.line("CL.THROTTLE k 15 30 60")), [0, 16, 15, -1, 2]);
        assert_eq!(five(&client.line("RL.THROTTLE k 15 30 60 15")), [0, 16, 0, -1, 32]);
        let [limited, limit, remaining, retry_after, reset_after] = five(&client.line("cl.throttle k 15 30 60"));
        assert_eq!((limited, limit, remaining), (1, 16, 0));
        assert!((1..=2).contains(&retry_after) && (30..=32).contains(&reset_after), "{retry_after} {reset_after}");
        assert_eq!(five(&client.line("RL.THROTTLE k 15 30 60 17"))[..4], [1, 16, 0, -1]);
        assert_eq!(five(&client.line("RL.THROTTLE new 15 30 60 0")), [0, 16, 16, -1, 0]);
        let range = "ERR value is not an integer or out of range";
        for (arguments, error) in [
            ("k", "ERR wrong number of arguments for 'rl.throttle' command"),
            ("k 1 1 1 1 1", "ERR wrong number of arguments for 'rl.throttle' command"),
            ("k a 1 1", range),
            ("k -1 1 1", range),
            ("k 1 0 1", range),
            ("k 1 1 0", range),
            ("k 1 1 1 -1", range),
            ("k 1 1 9223372036854775807", range),
            ("k 9223372036854775807 1 1", range),
            ("k 1000000000 1 60", range),
            ("k 1 1 60 9223372036854775807", range),
            ("k 1 2000000000 1", "ERR zero rates are not supported"),
        ] {
            let reply = client.line(&format!("RL.THROTTLE {arguments}"));
            assert!(matches!(&reply, Reply::Error(text) if text.starts_with(error)), "{arguments}: {reply:?}");
        }
        let empty = client.cmd(&["RL.THROTTLE", "", "1", "1", "1"]);
        assert_eq!(empty.text(), "ERR key must be 1 to 1024 bytes long, not 0");
        assert_eq!(five(&client.cmd(&["CL.THROTTLE", "", "1", "1", "1"])), [0, 2, 1, -1, 1]);
    });
}

/// The module takes the whole server down when it meets these.
#[test]
fn a_key_that_holds_something_else_is_said_to() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    let wrong = Reply::Error("WRONGTYPE Operation against a key holding the wrong kind of value".to_owned());
    redis.command("RPUSH list a");
    for (key, value) in [("word", "abc"), ("less", "-1"), ("part", "1.5"), ("much", "18446744073709551616")] {
        redis.command(&format!("SET {key} {value}"));
    }
    redis.client().cmd(&["SET", "none", ""]);
    for key in ["list", "word", "none", "less", "part", "much"] {
        for command in ["CL.THROTTLE", "RL.THROTTLE"] {
            assert_eq!(client.line(&format!("{command} {key} 4 1 1")), wrong, "{key}");
        }
    }
    assert_eq!(redis.command("LRANGE list 0 -1"), Reply::Array(vec![Reply::bulk("a")]));
    assert_eq!(redis.command("GET word"), Reply::bulk("abc"));
    assert_eq!(five(&client.line("CL.THROTTLE other 4 1 1")), [0, 5, 4, -1, 1]);
}

#[test]
fn keys_are_plain_ones_of_redis_with_the_prefix_that_is_configured() {
    let redis = RedisServer::start();
    let plain = Tollgate::before(&redis);
    let prefixed = Tollgate::builder().redis(&redis).env("TOLLGATE_DIALECTS__CL_PREFIX", "cell:").start();
    let (mut client, mut other) = (plain.client(), prefixed.client());
    assert_eq!(five(&client.line("CL.THROTTLE k 4 1 60 5")), [0, 5, 0, -1, 300]);
    assert_eq!(five(&client.line("CL.THROTTLE k 4 1 60"))[0], 1);
    assert_eq!(five(&other.line("CL.THROTTLE k 4 1 60")), [0, 5, 4, -1, 60]);
    let mut keys = redis.keys();
    keys.sort();
    assert_eq!(keys, [b"cell:k".to_vec(), b"k".to_vec()]);
    let tat: u64 = redis.command("GET k").text().parse().unwrap();
    assert!(tat > 1_700_000_000_000_000_000, "nanoseconds since 1970");
    assert!((290_000..=300_000).contains(&redis.command("PTTL k").integer()));
    // No denial is remembered that DEL could not end.
    assert_eq!(redis.command("DEL k"), Reply::Integer(1));
    assert_eq!(five(&client.line("CL.THROTTLE k 4 1 60")), [0, 5, 4, -1, 60]);
}

/// Some at one moment are one item of a batch, and are answered as one by one all the same.
#[test]
fn requests_that_go_together_are_decided_in_order() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    client.send(b"CL.THROTTLE k 4 1 3600\r\n".repeat(7).as_slice());
    client.send(b"CL.THROTTLE o 4 1 3600 2\r\nCL.THROTTLE k 9 1 3600 2\r\nCL.THROTTLE k 9 1 3600 -3\r\n");
    client.send(b"CL.THROTTLE k 9 1 3600 -3\r\nCL.THROTTLE k 9 1 3600 0\r\n");
    let replies: Vec<_> = (0..12).map(|_| five(&client.read())).collect();
    let decided: Vec<_> =
        replies.iter().map(|[limited, limit, remaining, ..]| [*limited, *limit, *remaining]).collect();
    let denied = [1, 5, 0];
    assert_eq!(decided[..7], [[0, 5, 4], [0, 5, 3], [0, 5, 2], [0, 5, 1], [0, 5, 0], denied, denied]);
    assert_eq!(decided[7..], [[0, 5, 3], [0, 10, 3], [0, 10, 6], [0, 10, 9], [0, 10, 9]]);
    // What is given back beyond now is so each time, and does not add up.
    client.send(b"CL.THROTTLE back 4 1 3600 -1\r\n".repeat(2).as_slice());
    assert_eq!([client.read().text(), client.read().text()], [NO_EXPIRY.trim_start_matches('-'); 2]);
    let tat_s = redis.command("GET back").text().parse::<u64>().unwrap() / 1_000_000_000;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((3600..3700).contains(&(now_s - tat_s)), "{}", now_s - tat_s);
}

/// What items that go together share is not made anew for each: how long each lives is its own.
#[test]
fn keys_of_requests_that_go_together_live_as_long_as_each_counts() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    let asked: Vec<_> = (1..=8).map(|hours| (format!("k{hours}"), hours * 3600)).collect();
    let lines: String = asked.iter().map(|(key, period_s)| format!("CL.THROTTLE {key} 4 1 {period_s}\r\n")).collect();
    client.send(lines.as_bytes());
    for (key, period_s) in asked {
        assert_eq!(five(&client.read()), [0, 5, 4, -1, period_s]);
        let left_ms = redis.command(&format!("PTTL {key}")).integer();
        assert!((period_s * 1000 - 60_000..=period_s * 1000).contains(&left_ms), "{key}: {left_ms}");
    }
}

/// A client's other commands may name the same keys, and keep their order, even behind RL.CHECK, which they may pass.
#[test]
fn a_throttle_and_other_commands_about_its_key_keep_their_order() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    for _ in 0..20 {
        let mut client = tollgate.client();
        client.send(b"RL.CHECK a 1000 1m\r\nSET k abc\r\nCL.THROTTLE k 4 1 60\r\nDEL k\r\nCL.THROTTLE k 4 1 60\r\nTYPE k\r\nDEL k\r\n");
        client.read().decision();
        assert_eq!(client.read(), Reply::Status("OK".into()));
        assert!(client.read().text().starts_with("WRONGTYPE"));
        assert_eq!(client.read(), Reply::Integer(1));
        assert_eq!(five(&client.read()), [0, 5, 4, -1, 60]);
        assert_eq!(client.read(), Reply::Status("string".into()));
        assert_eq!(client.read(), Reply::Integer(1));
    }
    let mut client = tollgate.client();
    client.send(b"MULTI\r\nCL.THROTTLE k 4 1 60\r\nRL.THROTTLE k 4 1 60\r\nCL.THROTTLE k x 1 60\r\nDISCARD\r\n");
    client.send(b"MULTI\r\nCL.THROTTLE k 4 1 60\r\nRL.THROTTLE k 4 1 60\r\nEXEC\r\n");
    let replies: Vec<_> = (0..9).map(|_| client.read()).collect();
    assert!(replies[3].text().ends_with("Couldn't parse as integer: x"));
    assert_eq!(replies[8].items().iter().map(five).collect::<Vec<_>>(), [[0, 5, 4, -1, 60], [0, 5, 3, -1, 120]]);
}

#[test]
fn cl_throttle_can_be_left_to_redis() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_DIALECTS__CL_THROTTLE", "false").start();
    let mut client = tollgate.client();
    let unknown = client.line("CL.THROTTLE k 4 1 1").text();
    assert_eq!(unknown, redis.command("CL.THROTTLE k 4 1 1").text());
    assert!(unknown.starts_with("ERR unknown command"), "{unknown}");
    assert_eq!(five(&client.line("RL.THROTTLE k 4 1 1")), [0, 5, 4, -1, 1]);
    let help =
        |client: &mut RawClient| client.line("RL.HELP").items().iter().any(|line| line.text().starts_with("CL."));
    assert!(!help(&mut client));
    let own = client.line("COMMAND COUNT").integer() - redis.command("COMMAND COUNT").integer();
    let other = Tollgate::before(&redis);
    let mut client = other.client();
    assert!(help(&mut client));
    assert_eq!(client.line("COMMAND COUNT").integer() - redis.command("COMMAND COUNT").integer(), own + 1);
    let docs = client.line("COMMAND DOCS CL.THROTTLE");
    let arguments = docs.field("cl.throttle").field("arguments").clone();
    let names: Vec<_> = arguments.items().iter().map(|argument| argument.field("name").text()).collect();
    assert_eq!(names, ["key", "max_burst", "count", "period", "quantity"]);
}

#[test]
fn an_outage_is_answered_by_the_fallback_in_time() {
    for (mode, expected) in [
        ("local", [Some([0, 10, 4]), Some([0, 10, 3]), Some([1, 10, 3])]),
        ("open", [Some([0, 10, 9]), Some([0, 10, 9]), Some([0, 10, 6])]),
        ("closed", [Some([1, 10, 0]); 3]),
        ("error", [None; 3]),
    ] {
        let mut redis = RedisServer::start();
        redis.kill();
        let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_REDIS__TIMEOUT_MS", "100").expect_log("redis");
        let tollgate = builder.env("TOLLGATE_FALLBACK__MODE", mode).start();
        let mut client = tollgate.client();
        for (quantity, expected) in [1, 1, 4].into_iter().zip(expected) {
            let sent = Instant::now();
            let reply = client.line(&format!("CL.THROTTLE k 9 10 3600 {quantity}"));
            assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
            match expected {
                Some(expected) => assert_eq!(five(&reply)[..3], expected, "{mode}"),
                None => assert_eq!(reply.text(), "UNAVAILABLE Redis cannot be reached"),
            }
        }
        redis.start_again();
        wait_until(PATIENCE, || {
            let reply = client.line("CL.THROTTLE k 9 10 3600 0");
            matches!(reply, Reply::Array(_)) && five(&reply)[2] == 10
        });
    }
}

/// The first answers of an outage begin with what Redis said last.
#[test]
fn an_outage_hands_out_no_fresh_budget() {
    let mut redis = RedisServer::start();
    let builder = Tollgate::builder().redis(&redis).env("TOLLGATE_REDIS__TIMEOUT_MS", "100").expect_log("redis");
    let tollgate = builder.start();
    let mut client = tollgate.client();
    assert_eq!(five(&client.line("CL.THROTTLE k 9 10 3600 9"))[..3], [0, 10, 1]);
    redis.kill();
    wait_until(PATIENCE, || info(&tollgate, "store_up") == "0");
    assert_eq!(five(&client.line("CL.THROTTLE k 9 10 3600"))[..3], [0, 10, 0]);
    assert_eq!(five(&client.line("CL.THROTTLE k 9 10 3600"))[..3], [1, 10, 0]);
}

#[test]
fn a_mode_of_all_policies_is_one_of_throttles_too() {
    let tollgate = Tollgate::builder().arg("--embedded").expect_log("the mode of all policies was changed").start();
    let mut client = tollgate.client();
    assert_eq!(five(&client.line("CL.THROTTLE k 1 1 3600 2"))[..3], [0, 2, 0]);
    for (mode, expected) in [("off", [0, 2, 2, -1]), ("block", [1, 2, 0, -1]), ("shadow", [0, 2, 0, -1])] {
        assert_eq!(client.line(&format!("RL.POLICY MODE * {mode}")), Reply::Status("OK".into()));
        assert_eq!(five(&client.line("CL.THROTTLE k 1 1 3600"))[..4], expected, "{mode}");
    }
    assert_eq!(client.line("RL.POLICY MODE * enforce"), Reply::Status("OK".into()));
    assert_eq!(five(&client.line("CL.THROTTLE k 1 1 3600"))[..3], [1, 2, 0]);
}

/// Of what clients name, Tollgate's user may touch what it may: one that names something else is told so, and nobody
/// else notices.
#[test]
fn a_key_that_tollgate_may_not_touch_is_refused_and_no_other() {
    let redis = RedisServer::start();
    redis.command("ACL SETUSER default resetkeys ~rl:* ~cell:* &*");
    let tollgate = Tollgate::before(&redis);
    let mut client = tollgate.client();
    client.send(
        b"CL.THROTTLE cell:a 4 1 60\r\nCL.THROTTLE other 4 1 60\r\nCL.THROTTLE cell:a 4 1 60\r\nRL.CHECK k 5 1m\r\n",
    );
    assert_eq!(five(&client.read()), [0, 5, 4, -1, 60]);
    assert_eq!(client.read().text(), "NOPERM Tollgate's user may not access the key in Redis");
    assert_eq!(five(&client.read()), [0, 5, 3, -1, 120]);
    assert!(!client.read().decision().degraded);
}

#[test]
fn the_nodes_of_a_cluster_count_for_the_keys_that_they_serve() {
    for declares in ["false", "true"] {
        let cluster = Cluster::start();
        let builder = Tollgate::builder().arg("--redis").arg(&cluster.url());
        let tollgate = builder.env("TOLLGATE_REDIS__DECLARE_KEYS", declares).start();
        let mut client = tollgate.client();
        let mut names: Vec<String> = (0..3).flat_map(|node| cluster.keys_on(node, 3)).collect();
        names.push("{m}old".to_owned());
        let all: String = names.iter().map(|name| format!("CL.THROTTLE {name} 4 1 3600\r\n")).collect();
        client.send(all.as_bytes());
        for name in &names {
            assert_eq!(five(&client.read()), [0, 5, 4, -1, 3600], "{name}");
            let node = cluster.node_of(name);
            assert!(matches!(cluster.command(node, &["GET", name]), Reply::Bulk(_)), "{name}");
        }
        let from = cluster.node_of("m");
        let slot_move = cluster.begin_move(SLOT_OF_M, (from + 1) % 3);
        assert_eq!(five(&client.line("CL.THROTTLE {m}old 4 1 3600"))[..3], [0, 5, 3]);
        assert_eq!(five(&client.line("CL.THROTTLE {m}new 4 1 3600"))[..3], [0, 5, 4]);
        cluster.move_keys(slot_move, &["{m}old"]);
        assert_eq!(five(&client.line("CL.THROTTLE {m}old 4 1 3600"))[..3], [0, 5, 2]);
        cluster.end_move(slot_move);
        assert_eq!(five(&client.line("CL.THROTTLE {m}old 4 1 3600"))[..3], [0, 5, 1]);
        assert_eq!(five(&client.line("CL.THROTTLE {m}new 4 1 3600"))[..3], [0, 5, 3]);
        assert_eq!(cluster.node_of("m"), (from + 1) % 3);
    }
}
