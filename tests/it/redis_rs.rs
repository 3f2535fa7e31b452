//! The `redis` crate as a client, with its defaults and in RESP3: alone, in its pipelines, from many connections, and
//! async.

use crate::common::{PATIENCE, RedisServer, Tollgate, free_port, wait_until};
use redis::{Client, Cmd, Connection, RedisResult, Value};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 20;
/// No wait may come near this: the deadline for Redis is 50 ms, the rest is for a busy machine.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What a test is to expect of the Tollgate that it is given.
struct Stage {
    client: Client,
    degraded: bool,
}

impl Stage {
    fn connect(&self) -> Connection {
        self.client.get_connection().unwrap()
    }

    /// How many of `limit` a new key is granted: the fallback's buckets hold half, by default.
    fn admits(&self, limit: i64) -> i64 {
        if self.degraded { limit / 2 } else { limit }
    }

    #[track_caller]
    fn assert_allowed(&self, reply: &[i64], limit: i64, remaining: i64) {
        let &[allowed, of, left, retry_after_ms, reset_after_ms, degraded] = reply else { panic!("{reply:?}") };
        assert_eq!([allowed, of, left, retry_after_ms], [1, limit, remaining, 0]);
        assert!((1..=3_600_000).contains(&reset_after_ms), "{reply:?}");
        assert_eq!(degraded == 1, self.degraded);
    }
}

/// Runs the test in both protocols, without a Redis, with one, and with one that is down.
fn on_every_stage(test: fn(&Stage)) {
    let redis = RedisServer::start();
    let away = format!("127.0.0.1:{}", free_port());
    let down = Tollgate::builder().arg("--redis").arg(&away).expect_log("the fallback answers").start();
    for (tollgate, degraded) in [(Tollgate::embedded(), false), (Tollgate::before(&redis), false), (down, true)] {
        for query in ["", "?protocol=resp3"] {
            test(&Stage { client: client_of(&tollgate, query), degraded });
        }
    }
}

fn client_of(tollgate: &Tollgate, query: &str) -> Client {
    Client::open(format!("redis://{}/{query}", tollgate.addr())).unwrap()
}

/// A key that was not used before.
fn fresh() -> String {
    static KEYS: AtomicU32 = AtomicU32::new(0);
    format!("key:{}", KEYS.fetch_add(1, Relaxed))
}

fn check(key: &[u8], limit: i64) -> Cmd {
    let mut cmd = redis::cmd("RL.CHECK");
    cmd.arg(key).arg(limit).arg("1h");
    cmd
}

#[test]
fn it_counts_down_and_denies() {
    on_every_stage(|stage| {
        let (mut connection, key) = (stage.connect(), fresh());
        for remaining in (0..stage.admits(4)).rev() {
            let reply: Vec<i64> = check(key.as_bytes(), 4).query(&mut connection).unwrap();
            stage.assert_allowed(&reply, 4, remaining);
        }
        let reply: Vec<i64> = check(key.as_bytes(), 4).query(&mut connection).unwrap();
        assert_eq!(reply[..3], [0, 4, 0]);
        assert!(0 < reply[3] && reply[3] <= reply[4] && reply[4] <= 3_600_000, "{reply:?}");
    });
}

#[test]
fn a_pipeline_keeps_order_and_gives_each_command_its_reply_or_error() {
    on_every_stage(|stage| {
        let key = fresh();
        let mut pipeline = redis::pipe();
        for number in 0..20 {
            pipeline.add_command(check(key.as_bytes(), 1000)).cmd("ECHO").arg(number);
            pipeline.cmd("RL.CHECK").arg(&key).arg("many").arg("1h").cmd("PING");
            pipeline.cmd("RL.PEEK").arg(&key).arg(1000).arg("1h");
        }
        let replies: Vec<RedisResult<Value>> = pipeline.ignore_errors().query(&mut stage.connect()).unwrap();
        assert_eq!(replies.len(), 100);
        for (number, chunk) in (0..).zip(replies.chunks_exact(5)) {
            let [check, echo, malformed, pong, peek] = chunk else { panic!("{chunk:?}") };
            let decision =
                |reply: &RedisResult<Value>| -> Vec<i64> { redis::from_redis_value(reply.clone().unwrap()).unwrap() };
            stage.assert_allowed(&decision(check), 1000, stage.admits(1000) - number - 1);
            assert_eq!(*echo, Ok(Value::BulkString(number.to_string().into_bytes())));
            assert!(malformed.as_ref().unwrap_err().to_string().contains("limit must be an integer"));
            assert_eq!(*pong, Ok(Value::SimpleString("PONG".into())));
            stage.assert_allowed(&decision(peek), 1000, stage.admits(1000) - number - 2);
        }
    });
}

#[test]
fn keys_are_bytes() {
    on_every_stage(|stage| {
        let (mut connection, stem) = (stage.connect(), fresh());
        let tails: [&[u8]; 7] = [b"\0", b"\x01", b"\r\n", b"{}", b"}{", b"\xff\xfe", &[b'x'; 900]];
        for remaining in (0..stage.admits(4)).rev() {
            for tail in tails {
                let key = [stem.as_bytes(), tail].concat();
                let reply: Vec<i64> = check(&key, 4).query(&mut connection).unwrap();
                stage.assert_allowed(&reply, 4, remaining);
            }
        }
    });
}

#[test]
fn an_error_leaves_the_connection_usable() {
    on_every_stage(|stage| {
        let mut connection = stage.connect();
        for (line, text) in [
            ("RL.CHECK", "wrong number of arguments for 'rl.check' command"),
            ("RL.CHECK k 0 60", "limit must be an integer between 1 and 1000000000"),
            ("RL.CHECK k 10 1y", "window must be "),
            ("RL.CHECK k 10 60 FOO 1", "unknown option 'FOO' for 'rl.check'"),
        ] {
            let mut cmd = Cmd::new();
            line.split(' ').for_each(|word| {
                cmd.arg(word);
            });
            let error = cmd.query::<Value>(&mut connection).unwrap_err();
            assert_eq!(error.code(), Some("ERR"));
            assert!(error.to_string().contains(text), "{error}");
        }
        assert_eq!(redis::cmd("PING").query::<String>(&mut connection).unwrap(), "PONG");
    });
}

#[test]
fn many_connections_share_a_limit() {
    on_every_stage(|stage| {
        let (key, begin) = (fresh(), Barrier::new(CONNECTIONS));
        let work = || {
            let mut connection = stage.connect();
            begin.wait();
            let replies = (0..10).map(|_| check(key.as_bytes(), 100).query::<Vec<i64>>(&mut connection).unwrap()[0]);
            replies.sum::<i64>()
        };
        let allowed: i64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, stage.admits(100));
    });
}

#[test]
fn one_multiplexed_connection_serves_many_tasks() {
    on_every_stage(|stage| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (connection, key) = (stage.client.get_multiplexed_async_connection().await.unwrap(), fresh());
            let tasks: Vec<_> = (0..200)
                .map(|_| (connection.clone(), check(key.as_bytes(), 100)))
                .map(|(mut connection, cmd)| {
                    tokio::spawn(async move { cmd.query_async::<Vec<i64>>(&mut connection).await.unwrap()[0] })
                })
                .collect();
            let mut allowed = 0;
            for task in tasks {
                allowed += task.await.unwrap();
            }
            assert_eq!(allowed, stage.admits(100));
        });
    });
}

#[test]
fn it_is_answered_on_one_connection_while_redis_comes_and_goes() {
    let mut redis = RedisServer::start();
    let tollgate = Tollgate::builder()
        .redis(&redis)
        .env("TOLLGATE_REDIS__TIMEOUT_MS", "50")
        .expect_log("the fallback answers")
        .start();
    let done = AtomicBool::new(false);
    // Replies so far, and what the last one said of `degraded`, of each client.
    let seen = [(AtomicU32::new(0), AtomicBool::new(false)), (AtomicU32::new(0), AtomicBool::new(false))];
    let ask = |query: &str, (replies, degraded): &(AtomicU32, AtomicBool)| {
        let (mut connection, key) = (client_of(&tollgate, query).get_connection().unwrap(), fresh());
        while !done.load(Relaxed) {
            let asked = Instant::now();
            let reply: Vec<i64> = check(key.as_bytes(), 1_000_000_000).query(&mut connection).unwrap();
            assert!(asked.elapsed() < LONGEST_WAIT, "waited {:?}", asked.elapsed());
            assert_eq!((reply[0], reply.len()), (1, 6));
            degraded.store(reply[5] == 1, Relaxed);
            replies.fetch_add(1, Relaxed);
        }
    };
    thread::scope(|scope| {
        let clients = [scope.spawn(|| ask("", &seen[0])), scope.spawn(|| ask("?protocol=resp3", &seen[1]))];
        let wait_for = |wanted: bool| {
            wait_until(PATIENCE, || {
                let failed = clients.iter().any(|client| client.is_finished());
                let is_seen = |(replies, degraded): &(AtomicU32, AtomicBool)| {
                    replies.load(Relaxed) > 0 && degraded.load(Relaxed) == wanted
                };
                failed || seen.iter().all(is_seen)
            });
        };
        for _ in 0..3 {
            wait_for(false);
            redis.kill();
            wait_for(true);
            redis.start_again();
        }
        wait_for(false);
        done.store(true, Relaxed);
    });
}
