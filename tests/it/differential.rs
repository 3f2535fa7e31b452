//! The same bytes to a Redis and, through Tollgate, to another: the same bytes come back. And with connections cut at
//! any moment: a reply is never another request's.

use crate::common::{PATIENCE, Random, RawClient, RedisServer, Reply, Tollgate, encode};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How long each of the tests here goes on with another pipeline.
const TIME: Duration = Duration::from_secs(5);
/// The limit by which RL.CHECK's replies are known.
const LIMIT: &str = "987654321";
const END: &str = "that was all";

/// What may stand in a pipeline, words apart. `K` becomes one of a few keys, `C` a channel, `N` a number.
const ORDINARY: &[&str] = &[
    "SET K N",
    "GET K",
    "GET K",
    "INCR K",
    "APPEND K xyz",
    "DEL K K",
    "STRLEN K",
    "MGET K K K",
    "TYPE K",
    "EXISTS K",
    "RPUSH list:C N N N",
    "LRANGE list:C 0 -1",
    "LPOP list:C",
    "LPOP list:C 2",
    "BLPOP list:C list:K 0.01",
    "HSET hash:C a N b N",
    "HGETALL hash:C",
    "HINCRBYFLOAT hash:C a 1.5",
    "HGET hash:C nothing",
    "SADD set:C N",
    "SMEMBERS set:C",
    "SISMEMBER set:C N",
    "ZADD zset:C N x 1.5 y inf z",
    "ZRANGE zset:C 0 -1 WITHSCORES",
    "ZSCORE zset:C x",
    "XADD stream:C N-N f v",
    "XRANGE stream:C - +",
    "XREAD COUNT 2 STREAMS stream:C 0",
    "SELECT 0",
    "SELECT 1",
    "SELECT 99",
    "PING",
    "PING N",
    "ECHO N",
    "CLIENT SETNAME n-N",
    "CLIENT GETNAME",
    "CLIENT SETNAME",
    "CLIENT NO-EVICT ON",
    "CLIENT NOTHING",
    "GET",
    "NOTHING N N",
    "INCR list:C",
    "AUTH N",
    "AUTH a N",
    "OBJECT ENCODING K",
    "WAIT 0 1",
    "COMMAND GETKEYS SET K N",
    "INFO nothing",
    "CONFIG GET maxmemory",
    "SLOWLOG GET 0",
    "SCAN 0 COUNT 0",
    "CLUSTER INFO",
    "PUBLISH C N",
    "SPUBLISH C N",
    "PUBSUB CHANNELS C",
    "MEMORY DOCTOR N",
];
const SCRIPTS: &[&str] = &[
    "return {1, {2, {3, {'four', {}}}}, false, 'six'}",
    "return redis.status_reply('FINE')",
    "return redis.error_reply('ERR own words')",
    "return redis.call('get', KEYS[1])",
    "return redis.call('nothing')",
    "redis.setresp(3); return {double = 3.5}",
    "redis.setresp(3); return {map = {a = 1}}",
    "redis.setresp(3); return redis.call('hgetall', 'hash:a')",
    "redis.setresp(3); return {true, false, {set = {x = true}}}",
    "return {'subscribe', 'a', 1}",
    "return {'message', 'a', 'b'}",
    "return string.rep('long ', 30000)",
    "local t = {} for i = 1, 3000 do t[i] = {i, 'x'} end return t",
];
const TURNS: &[&str] = &[
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH K",
    "UNWATCH",
    "RESET",
    "HELLO 2",
    "HELLO 3",
    "HELLO 3",
    "HELLO 4",
    "HELLO 3 SETNAME x",
    "HELLO x",
    "SUBSCRIBE C",
    "SUBSCRIBE C C",
    "PSUBSCRIBE C*",
    "SSUBSCRIBE C",
    "UNSUBSCRIBE",
    "UNSUBSCRIBE C",
    "PUNSUBSCRIBE",
    "PUNSUBSCRIBE C* x",
    "SUNSUBSCRIBE",
    "UNSUBSCRIBE C C N",
    "SUBSCRIBE",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY OFF",
    "CLIENT REPLY ON",
    "CLIENT REPLY ON",
    "CLIENT REPLY N",
    "CLIENT TRACKING ON",
    "CLIENT TRACKING OFF",
    "CLIENT CACHING YES",
];
const DEBUGS: &[&str] = &[
    "string", "integer", "double", "null", "array", "set", "map", "attrib", "push", "verbatim", "true", "false",
    "bignum",
];

/// A request. What confuses the replies of a transaction, for every client, does not stand in one.
fn request(random: &mut Random, in_multi: &mut bool) -> Vec<u8> {
    let line = match random.below(100) {
        0..50 => random.pick(ORDINARY).to_owned(),
        50..72 => random.pick(TURNS).to_owned(),
        72..76 => format!("DEBUG PROTOCOL {}", random.pick(DEBUGS)),
        76..80 => return encode(&["EVAL", random.pick(SCRIPTS), "1", "k1"]),
        80..82 => return big(random),
        82..85 => {
            return random
                .pick(&[&b"PING\r\n"[..], b"SET k1 'a b'\r\n", b"\r\n", b"*0\r\n", b"ECHO \"\\x41\"\n"])
                .to_vec();
        }
        _ => random.pick(&["RL.CHECK C L 1h", "RL.PEEK C L 1h", "rl.check K L 1h COST 5", "RL.CHECK K L"]).to_owned(),
    };
    match line.split(' ').next() {
        Some("MULTI") => {
            *in_multi = true;
            // One that began with RL commands alone would be Tollgate's to answer, which Redis cannot.
            return [encode(&["MULTI"]), encode(&["ECHO", "in"])].concat();
        }
        Some("EXEC" | "DISCARD" | "RESET") => *in_multi = false,
        Some(word) if *in_multi && (word.ends_with("SUBSCRIBE") || line.starts_with("CLIENT REPLY")) => return vec![],
        _ => {}
    }
    let words: Vec<String> = line.split(' ').map(|word| fill(random, word)).collect();
    encode(&words)
}

fn fill(random: &mut Random, word: &str) -> String {
    match word {
        "K" => format!("k{}", random.below(4)),
        "L" => LIMIT.to_owned(),
        // In words made of several too: `list:C`, `N-N`.
        word if word.chars().any(char::is_lowercase) || word == "C" || word == "C*" || word == "N" || word == "N-N" => {
            word.replace('C', random.pick(&["a", "b"])).replace('N', &(1 + random.below(20)).to_string())
        }
        word => word.to_owned(),
    }
}

fn big(random: &mut Random) -> Vec<u8> {
    let length = if random.below(10) == 0 { 5_000_000 } else { 200_000 };
    let value = vec![random.pick(b"\r\n*$x"); length];
    match random.below(4) {
        0 => encode(&[&b"ECHO"[..], &value]),
        1 => encode(&[&b"GET"[..], &value]),
        _ => [encode(&[&b"SET"[..], b"k0", &value]), encode(&["GET", "k0"])].concat(),
    }
}

/// Sends the pipeline in pieces, while reading what comes back, up to the end or to where nothing comes any more.
fn exchange(addr: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut client = RawClient::connect(addr);
    let mut sender = client.try_clone();
    thread::scope(|scope| {
        scope.spawn(move || pieces.iter().all(|piece| sender.try_send(piece).is_ok()));
        client.read_raw_until(END.as_bytes())
    })
}

/// The values on the wire, RL's decisions and refusals as `rl`, and HELLO's, which holds the connection's id, as `hello`.
fn values(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    while let Some(length) = value_length(wire) {
        let (value, rest) = wire.split_at(length);
        wire = rest;
        // None of what is looked for is long.
        let start = &value[..value.len().min(1000)];
        let holds = |part: &str| start.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()));
        let is_decision = value.starts_with(b"*6\r\n:") && holds(LIMIT);
        let is_refusal = value.starts_with(b"-") && holds("'rl.");
        if is_decision || is_refusal {
            values.push(b"rl".to_vec());
        } else if holds("\r\nproto\r\n") {
            values.push(b"hello".to_vec());
        } else if value.len() < 100 && holds("unsubscribe\r\n") {
            // In which order an UNSUBSCRIBE of all takes its channels is no more than chance.
            values.push(value.iter().map(|&byte| if byte == b'b' { b'a' } else { byte }).collect());
        } else if value.starts_with(b">") && !holds("subscribe\r\n") {
            // What is pushed, and when, Redis decides, and a reply made by Tollgate may be written first.
            let replies = values.iter().rev().take_while(|value| *value == b"rl").count();
            values.insert(values.len() - replies, value.to_vec());
        } else {
            values.push(value.to_vec());
        }
    }
    values.extend((!wire.is_empty()).then(|| wire.to_vec()));
    values
}

/// How long the value is that `wire` begins with.
fn value_length(wire: &[u8]) -> Option<usize> {
    let line = wire.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || String::from_utf8_lossy(&wire[1..line - 2]).parse::<i64>().ok();
    let children = match wire[0] {
        b'$' | b'=' => {
            let length = usize::try_from(number()?).map_or(line, |length| line + length + 2);
            return (length <= wire.len()).then_some(length);
        }
        b'*' | b'~' | b'>' => number()?.max(0),
        b'%' => 2 * number()?,
        b'|' => 2 * number()? + 1,
        _ => 0,
    };
    (0..children).try_fold(line, |at, _| Some(at + value_length(&wire[at..])?))
}

fn show(bytes: &[u8]) -> String {
    format!("{} ({} bytes)", bytes[..bytes.len().min(120)].escape_ascii(), bytes.len())
}

#[test]
fn what_comes_back_is_what_redis_itself_answers() {
    let options = ["--enable-debug-command", "yes"];
    let (plain, behind) = (RedisServer::start_with(&options), RedisServer::start_with(&options));
    let tollgate = Tollgate::before(&behind);
    let first: u64 = std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap());
    let start = Instant::now();
    for seed in first.. {
        if start.elapsed() > TIME {
            println!("{seed} pipelines");
            return;
        }
        let (mut random, mut in_multi) = (Random(seed), false);
        let mut requests: Vec<Vec<u8>> =
            (0..1 + random.below(60)).map(|_| request(&mut random, &mut in_multi)).collect();
        // Out of all modes, with replies on: RESET may be skipped itself.
        requests.extend([encode(&["RESET"]), encode(&["RESET"]), encode(&["FLUSHALL"]), encode(&["ECHO", END])]);
        let pipeline = requests.concat();
        let mut cuts: Vec<usize> = (0..random.below(40)).map(|_| random.below(pipeline.len())).collect();
        cuts.extend([0, pipeline.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &pipeline[cut[0]..cut[1]]).collect();
        let (expected, got) = (exchange(plain.addr(), &[&pipeline]), exchange(tollgate.addr(), &pieces));
        let (expected, got) = (values(&expected), values(&got));
        if expected != got {
            let mut story = String::new();
            requests.iter().for_each(|request| writeln!(story, "  {}", show(request)).unwrap());
            let at = expected.iter().zip(&got).take_while(|(expected, got)| expected == got).count();
            let around =
                |list: &[Vec<u8>]| list.iter().skip(at.saturating_sub(2)).take(5).map(|value| show(value)).collect();
            let (expected, got): (Vec<String>, Vec<String>) = (around(&expected), around(&got));
            panic!("seed {seed}, value {at}, with two before\n{story}expected {expected:#?}\ngot {got:#?}");
        }
    }
}

/// Request `number` of the second test, whose reply tells that number.
fn numbered(number: i64) -> Vec<u8> {
    match number % 4 {
        0 => encode(&["ECHO", &number.to_string()]),
        1 => encode(&["RL.CHECK", "key", &number.to_string(), "1h"]),
        2 => encode(&["EVAL", "return {ARGV[1], {1, 2}}", "0", &number.to_string()]),
        // Long enough to be cut by the end of the connection.
        _ => encode(&["ECHO", &format!("{number:0>20000}")]),
    }
}

/// Whether this is the answer to request `number`, or says that Redis cannot be reached.
fn answers(reply: &Reply, number: i64) -> bool {
    let is_number =
        |reply: &Reply| matches!(reply, Reply::Bulk(text) if String::from_utf8_lossy(text).parse() == Ok(number));
    match reply {
        Reply::Error(text) => number % 4 != 1 && text.starts_with("LOADING "),
        Reply::Array(items) if number % 4 == 1 => items[1] == Reply::Integer(number),
        Reply::Array(items) => is_number(&items[0]),
        reply => is_number(reply),
    }
}

/// Sends pipelines until told to stop, on a new connection after each close. How many replies came, and how many closes.
fn check_replies(addr: SocketAddr, seed: u64, stop: &AtomicBool) -> (usize, usize) {
    let (mut random, mut replies, mut closes) = (Random(seed), 0, 0);
    while !stop.load(Relaxed) {
        let mut client = RawClient::connect(addr);
        let mut next = 1000;
        let end: io::Error = loop {
            let count = 1 + random.below(40) as i64;
            let pipeline: Vec<u8> = (next..next + count).flat_map(numbered).collect();
            if let Err(error) = client.try_send(&pipeline) {
                break error;
            }
            let outcome = (next..next + count).try_for_each(|number| {
                let reply = client.try_read()?;
                assert!(answers(&reply, number), "request {number} was answered {reply:?}");
                replies += 1;
                Ok(())
            });
            next += count;
            match outcome {
                Err(error) => break error,
                Ok(()) if stop.load(Relaxed) => return (replies, closes),
                Ok(()) => {}
            }
        };
        assert!(![io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&end.kind()), "no reply, no close");
        closes += 1;
    }
    (replies, closes)
}

#[test]
fn a_connection_that_is_cut_never_mixes_up_replies() {
    let mut redis = RedisServer::start();
    // Back at Redis at once, so that there is a connection to be cut again.
    let tollgate = [("MIN", "2"), ("MAX", "10")]
        .iter()
        .fold(Tollgate::builder(), |builder, (end, ms)| builder.env(&format!("TOLLGATE_BREAKER__PROBE_{end}_MS"), ms))
        .redis(&redis)
        .expect_log("redis")
        .start();
    let stop = AtomicBool::new(false);
    let addr = tollgate.addr();
    let mut random = Random(7);
    thread::scope(|scope| {
        let stop = &stop;
        let clients: Vec<_> = (0..6).map(|seed| scope.spawn(move || check_replies(addr, seed, stop))).collect();
        let start = Instant::now();
        while start.elapsed() < TIME {
            thread::sleep(Duration::from_millis(10 + random.next() % 60));
            if random.below(20) == 0 {
                redis.kill();
                thread::sleep(Duration::from_millis(random.next() % 50));
                redis.start_again();
            } else {
                redis.command("CLIENT KILL TYPE normal");
            }
        }
        stop.store(true, Relaxed);
        for client in clients {
            let (replies, closes) = client.join().unwrap();
            println!("{replies} replies, {closes} closes");
            assert!(replies > 100 && closes > 1, "{replies} replies, {closes} closes");
        }
        assert!(start.elapsed() < TIME + PATIENCE);
    });
}
