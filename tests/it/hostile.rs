//! Clients that mean no good, or whose authors did not read the manual: whatever they send, however slowly they send
//! or read it, everybody else is served, memory stays bounded, and replies stay in the order of requests.

use crate::common::{PATIENCE, RawClient, RedisServer, Reply, Tollgate, encode, is_thorough, wait_until};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
/// Longest that a server takes to close a connection whose client has closed its side.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// `pieces` of `bytes`, cut at `cuts` (taken modulo the length), each in a packet of its own.
fn send_in_pieces(stream: &mut TcpStream, bytes: &[u8], cuts: &[usize]) -> io::Result<()> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
    places.sort();
    for pair in places.windows(2).filter(|pair| pair[0] < pair[1]) {
        stream.write_all(&bytes[pair[0]..pair[1]])?;
        // Sent before the next piece is: TCP_NODELAY alone lets the receiver read two at once.
        thread::yield_now();
    }
    stream.shutdown(Shutdown::Write)
}

/// All that is answered to `bytes` before the connection closes.
fn answers(addr: SocketAddr, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(CLOSES_WITHIN)).unwrap();
    let mut reader = stream.try_clone().unwrap();
    thread::scope(|scope| {
        // The server may close, with an error, before it has read all.
        scope.spawn(|| drop(send_in_pieces(&mut stream, bytes, cuts)));
        let mut answered = Vec::new();
        match reader.read_to_end(&mut answered) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("not closed: {error}"),
            _ => answered,
        }
    })
}

/// The answer to RL.PEEK of an empty window of an hour.
fn peeked(limit: u32) -> String {
    format!("*6\r\n:1\r\n:{limit}\r\n:{}\r\n:0\r\n:3600000\r\n:0\r\n", limit - 1)
}

/// Requests whose answers depend on nothing that other requests do, and the answer of each.
fn requests() -> impl Strategy<Value = Vec<(Vec<u8>, String)>> {
    let word = proptest::collection::vec(any::<u8>(), 0..40);
    let request = prop_oneof![
        (1..9999u32).prop_map(|limit| {
            let reply = peeked(limit);
            (encode(&["RL.PEEK", "nobody's", &limit.to_string(), "1h"]), reply)
        }),
        (1..9999u32).prop_map(|limit| {
            let reply = peeked(limit);
            (format!("rl.peek  'nobody\\'s' {limit} 60m \n").into_bytes(), reply)
        }),
        word.clone().prop_map(|word| {
            let reply = [format!("${}\r\n", word.len()).as_bytes(), &word, b"\r\n"].concat();
            // As text for the eye of whoever reads a failure; the comparison is of the same mapping on both sides.
            (encode(&[b"PING".as_slice(), &word]), reply.iter().map(|byte| char::from(*byte)).collect())
        }),
        Just((b"\r\n".to_vec(), String::new())),
        Just((b"*0\r\n".to_vec(), String::new())),
        Just((
            encode(&["RL.CHECK", "k", "0", "1s"]),
            "-ERR limit must be an integer between 1 and 1000000000, not '0'\r\n".to_owned()
        )),
        Just((
            encode(&["rl.reset"]),
            "-ERR wrong number of arguments for 'rl.reset' command: RL.RESET key [key ...]\r\n".to_owned()
        )),
    ];
    proptest::collection::vec(request, 1..40)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, max_shrink_iters: 40, failure_persistence: None, ..Config::default() })
}

#[test]
fn requests_in_any_fragments_are_answered_in_order() {
    let redis = RedisServer::start();
    for tollgate in [Tollgate::embedded(), Tollgate::before(&redis)] {
        let cuts = proptest::collection::vec(any::<usize>(), 0..30);
        let outcome = runner(60).run(&(requests(), cuts), |(requests, cuts)| {
            let sent: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
            let expected: String = requests.iter().map(|(_, reply)| reply.as_str()).collect();
            let got: String = answers(tollgate.addr(), &sent, &cuts).into_iter().map(char::from).collect();
            prop_assert_eq!(got, expected);
            Ok(())
        });
        outcome.unwrap();
    }
}

/// Bytes that are nearly requests reach further than noise.
fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    let tokens: [&[u8]; 24] = [
        b"*1\r\n",
        b"*3\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*9223372036854775807\r\n",
        b"$9223372036854775808\r\n",
        b"$-9223372036854775808\r\n",
        b"*4\r\n$8\r\nRL.CHECK\r\n$1\r\nk\r\n$1\r\n5\r\n",
        b"$2\r\n1h\r\n",
        b"$4\r\nPING\r\n",
        b"$0\r\n\r\n",
        b"$5\r\nMULTI\r\n",
        b"$4\r\nEXEC\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\"",
        b"'\\x",
        b"RL.CHECK k 5 1h COST ",
        b"RL.RESET k\r\n",
        b"SUBSCRIBE c\r\n",
        b"HELLO 3\r\n",
        b"CLIENT REPLY OFF\r\n",
        b"\0\xff\x80",
    ];
    let token = proptest::sample::select(tokens.to_vec()).prop_map(<[u8]>::to_vec);
    let piece = prop_oneof![3 => token, 1 => proptest::collection::vec(any::<u8>(), 0..20)];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

#[test]
fn arbitrary_bytes_harm_nobody() {
    let redis = RedisServer::start();
    for tollgate in [Tollgate::embedded(), Tollgate::before(&redis)] {
        let bystander = RefCell::new(tollgate.client());
        bystander.borrow_mut().decide("RL.PEEK k 5 1h");
        let files = tollgate.open_files();
        let cuts = proptest::collection::vec(any::<usize>(), 0..10);
        let outcome = runner(150).run(&(hostile_bytes(), cuts), |(bytes, cuts)| {
            let in_pieces = answers(tollgate.addr(), &bytes, &cuts);
            // A protocol error is the last thing that is said.
            let text = String::from_utf8_lossy(&in_pieces).into_owned();
            if let Some((_, rest)) = text.split_once("-ERR Protocol error") {
                prop_assert_eq!(rest.matches("\r\n").count(), 1, "{}", text);
            }
            prop_assert_eq!(bystander.borrow_mut().line("PING"), Reply::Status("PONG".into()));
            Ok(())
        });
        outcome.unwrap();
        wait_until(PATIENCE, || tollgate.open_files() < files + FEW_FILES);
        assert!(tollgate.resident_bytes() < 100 * MIB, "{} bytes", tollgate.resident_bytes());
    }
}

/// File descriptors more than there were that are no leak: connections of the workers' own, made when first needed.
const FEW_FILES: usize = 20;

#[test]
fn nesting_bombs_are_refused_at_their_first_level() {
    let tollgate = Tollgate::embedded();
    for opening in [&b"*1\r\n"[..], b"*2\r\n$4\r\nPING\r\n*1\r\n"] {
        let got = answers(tollgate.addr(), &opening.repeat(100_000), &[]);
        assert!(got.ends_with(b"-ERR Protocol error: expected '$', got '*'\r\n"), "{}", got.escape_ascii());
    }
}

/// A thousand requests that come byte by byte and never end.
#[test]
fn slow_lorises_keep_nobody_waiting() {
    let tollgate = Tollgate::embedded();
    let before = tollgate.resident_bytes();
    let mut lorises: Vec<RawClient> = (0..1000).map(|_| tollgate.client()).collect();
    let mut bystander = tollgate.client();
    let mut longest = Duration::ZERO;
    for byte in b"*4\r\n$8\r\nRL.CHECK\r\n$1000\r\n" {
        for loris in &mut lorises {
            loris.send(&[*byte]);
        }
        let sent = Instant::now();
        assert!(bystander.decide("RL.CHECK k 1000 1h").allowed);
        longest = longest.max(sent.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let grown = tollgate.resident_bytes().saturating_sub(before);
    assert!(grown < 30 * MIB, "{grown} bytes for a thousand half requests");
}

/// The longest request that is kept whole, a byte at a time at its end: each must cost what one byte costs.
#[test]
fn a_long_request_that_drips_costs_no_more_than_its_bytes() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    let key = b"$1\r\nk\r\n";
    // Just short of what is kept: more would be passed over.
    let keys = (1024 * 1024 - 8_192) / key.len();
    client.send(&[b"*200000\r\n$8\r\nRL.RESET\r\n", key.repeat(keys).as_slice()].concat());
    let mut bystander = tollgate.client();
    bystander.line("PING");
    let before = tollgate.cpu_time();
    for _ in 0..200 {
        client.send(b"$");
        client.send(b"1\r\n");
        client.send(b"k\r\n");
        // What has been sent has been read by now, in a packet of its own: one worker serves its clients in turn.
        bystander.line("PING");
    }
    let spent = tollgate.cpu_time() - before;
    assert!(spent < Duration::from_secs(1), "600 packets took {spent:?} of processor time");
}

#[test]
fn a_pipeline_that_is_sent_whole_before_it_is_read_is_answered_whole() {
    let count: usize = if is_thorough() { 1_000_000 } else { 100_000 };
    let redis = RedisServer::start();
    for tollgate in [Tollgate::embedded(), Tollgate::before(&redis)] {
        let mut client = tollgate.client();
        let mut writer = client.try_clone();
        let sender = thread::spawn(move || {
            for _ in 0..count / 1000 {
                writer.try_send(&encode(&["RL.CHECK", "k", "1000000000", "1h"]).repeat(1000)).unwrap();
            }
        });
        // Sent to the last byte before the first reply is read.
        sender.join().unwrap();
        let peak = tollgate.resident_bytes();
        // In order, and none twice: until the fallback answers those who wait too long, each takes one more.
        let mut last = i64::MAX;
        for _ in 0..count {
            let decision = client.read().decision();
            assert!(decision.allowed && (decision.degraded || decision.remaining < last), "{decision:?} after {last}");
            last = if decision.degraded { last } else { decision.remaining };
        }
        assert!(peak < 400 * MIB, "{peak} bytes for {count} requests");
        assert_eq!(client.line("PING"), Reply::Status("PONG".into()));
    }
}

/// What Redis answers to a client that does not read stays in Redis, whose limits are made for that.
#[test]
fn a_client_that_does_not_read_large_replies_costs_no_memory() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).env("TOLLGATE_REDIS__CONNECT_TIMEOUT_MS", "10000").start();
    tollgate.client().cmd(&[b"SET".as_slice(), b"large", &vec![b'x'; 1024 * 1024]]);
    let before = tollgate.resident_bytes();
    let mut clients: Vec<RawClient> = (0..5).map(|_| tollgate.client()).collect();
    for client in &mut clients {
        client.send(&encode(&["GET", "large"]).repeat(200));
    }
    let mut bystander = tollgate.client();
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        let sent = Instant::now();
        assert!(bystander.decide("RL.CHECK k 1000000 1h").allowed);
        // Redis is busy with the large replies, and has ten seconds here: only being stuck behind them is a failure.
        assert!(sent.elapsed() < Duration::from_secs(8), "{:?}", sent.elapsed());
    }
    let grown = tollgate.resident_bytes().saturating_sub(before);
    assert!(grown < 50 * MIB, "{grown} bytes of 1 GiB of replies that nobody reads");
    // Late, but whole.
    for _ in 0..200 {
        assert!(matches!(clients[0].read(), Reply::Bulk(bytes) if bytes.len() == 1024 * 1024));
    }
}

/// Comes and goes in one of the ways that clients do.
fn come_and_go(addr: SocketAddr, manner: usize) {
    let Ok(mut stream) = TcpStream::connect(addr) else { panic!("refused") };
    match manner % 5 {
        0 => {}
        1 => drop(stream.write_all(b"*4\r\n$8\r\nRL.CH")),
        2 => drop(stream.write_all(b"RL.CHECK storm 1000000 1h\r\n")),
        3 => {
            stream.write_all(b"RL.CHECK storm 1000000 1h\r\n").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answered = String::new();
            stream.read_to_string(&mut answered).unwrap();
            assert!(answered.starts_with("*6\r\n:1\r\n"), "{answered:?}");
        }
        // The rest takes a connection to Redis.
        _ => {
            stream.write_all(b"GET storm\r\n").unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 1);
        }
    }
}

#[test]
fn storms_of_connections_leave_nothing_behind() {
    const THREADS: usize = 8;
    let count: usize = if is_thorough() { 100_000 } else { 2_000 };
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    // Everything that is made once is made before it is counted.
    (0..100).for_each(|manner| come_and_go(tollgate.addr(), manner));
    let (files, bytes) = (tollgate.open_files(), tollgate.resident_bytes());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..count / THREADS).for_each(|manner| come_and_go(tollgate.addr(), manner)));
        }
    });
    wait_until(PATIENCE, || tollgate.open_files() < files + FEW_FILES);
    let grown = tollgate.resident_bytes().saturating_sub(bytes);
    assert!(grown < 20 * MIB, "{grown} bytes left by {count} connections");
    let in_redis = || redis.command("CLIENT LIST").text().lines().count();
    wait_until(PATIENCE, || in_redis() < 20);
}
