//! The `redis` crate as an app uses it: all that is Redis's own must mean the same through Tollgate as straight to
//! Redis. Each test runs against both, which shows that the test itself is right.

use crate::common::{PATIENCE, RedisServer, Tollgate, wait_until};
use redis::{Client, Connection, Pipeline, PushInfo, PushKind, RedisResult, Script, Value};
use std::thread;
use std::time::Duration;

/// Opens connections to the server under test.
struct Stage {
    client: Client,
}

impl Stage {
    fn connect(&self) -> Connection {
        let connection = self.client.get_connection().unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection
    }

    /// Waits until so many clients of the server are blocked.
    fn wait_until_blocked(&self, clients: usize) {
        let (mut connection, line) = (self.connect(), format!("blocked_clients:{clients}\r\n"));
        wait_until(PATIENCE, || {
            redis::cmd("INFO").arg("clients").query::<String>(&mut connection).unwrap().contains(&line)
        });
    }
}

/// Runs the test straight to a Redis and through Tollgate, in both protocols. `query` ends the URL.
fn on_both(test: fn(&Stage)) {
    for query in ["", "?protocol=resp3"] {
        on_both_with(query, test);
    }
}

fn on_both_with(query: &str, test: fn(&Stage)) {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    for addr in [redis.addr(), tollgate.addr()] {
        test(&Stage { client: Client::open(format!("redis://{addr}/{query}")).unwrap() });
        redis.command("FLUSHALL");
    }
}

fn run<T: redis::FromRedisValue>(connection: &mut Connection, line: &str) -> RedisResult<T> {
    let mut cmd = redis::Cmd::new();
    for word in line.split(' ') {
        cmd.arg(word);
    }
    cmd.query(connection)
}

#[test]
fn values_errors_and_a_long_pipeline() {
    on_both(|stage| {
        let mut connection = stage.connect();
        let bytes: Vec<u8> = (0..2_000_000u32).map(|number| number as u8).collect();
        redis::cmd("SET").arg("bytes").arg(&bytes).exec(&mut connection).unwrap();
        assert!(run::<Vec<u8>>(&mut connection, "GET bytes").unwrap() == bytes);
        assert_eq!(run::<Option<String>>(&mut connection, "GET none").unwrap(), None);
        assert_eq!(run::<Value>(&mut connection, "INCR bytes").unwrap_err().code(), Some("ERR"));
        assert_eq!(run::<Value>(&mut connection, "LPUSH bytes x").unwrap_err().code(), Some("WRONGTYPE"));
        let unknown = run::<Value>(&mut connection, "NO.SUCH a").unwrap_err().to_string();
        assert!(unknown.contains("nknown command 'NO.SUCH', with args beginning with: 'a'"), "{unknown}");
        let mut pipeline = redis::pipe();
        for number in 0..1000 {
            pipeline.cmd("RPUSH").arg("list").arg(number);
        }
        assert_eq!(pipeline.query::<Vec<i64>>(&mut connection).unwrap(), Vec::from_iter(1..=1000));
    });
}

#[test]
fn transactions_that_are_watched() {
    on_both(|stage| {
        let add = |connection: &mut Connection, pipeline: &mut Pipeline| {
            let count: Option<i64> = run(connection, "GET count")?;
            pipeline.cmd("SET").arg("count").arg(count.unwrap_or(0) + 1).ignore().cmd("GET").arg("count");
            pipeline.query::<Option<(i64,)>>(connection)
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut connection = stage.connect();
                    for _ in 0..10 {
                        redis::transaction(&mut connection, &["count"], add).unwrap();
                    }
                });
            }
        });
        let mut connection = stage.connect();
        assert_eq!(run::<i64>(&mut connection, "GET count").unwrap(), 40);
        let aborted = redis::pipe().atomic().cmd("SET").arg("count").arg(0).cmd("GET").query::<Value>(&mut connection);
        assert!(aborted.is_err(), "{aborted:?}");
        assert_eq!(run::<i64>(&mut connection, "GET count").unwrap(), 40);
    });
}

#[test]
fn messages_of_channels_and_patterns() {
    on_both(|stage| {
        let (mut subscriber, mut publisher) = (stage.connect(), stage.connect());
        let mut messages = subscriber.as_pubsub();
        messages.subscribe("news").unwrap();
        messages.psubscribe("news:*").unwrap();
        assert_eq!(run::<i64>(&mut publisher, "PUBLISH news one").unwrap(), 1);
        assert_eq!(run::<i64>(&mut publisher, "PUBLISH news:x two").unwrap(), 1);
        let one = messages.get_message().unwrap();
        assert_eq!((one.get_channel_name(), one.get_payload::<String>().unwrap().as_str()), ("news", "one"));
        let two = messages.get_message().unwrap();
        assert_eq!(two.get_pattern::<String>().unwrap(), "news:*");
        assert_eq!((two.get_channel_name(), two.get_payload::<String>().unwrap().as_str()), ("news:x", "two"));
        // Unsubscribes from all.
        drop(messages);
        assert_eq!(run::<String>(&mut subscriber, "PING").unwrap(), "PONG");
        assert_eq!(run::<i64>(&mut publisher, "PUBLISH news nobody").unwrap(), 0);
    });
}

#[test]
fn blocking_pops() {
    on_both(|stage| {
        let mut connection = stage.connect();
        assert_eq!(run::<Option<(String, String)>>(&mut connection, "BLPOP list 0.01").unwrap(), None);
        thread::scope(|scope| {
            let popped = scope.spawn(|| run::<(String, String)>(&mut stage.connect(), "BLPOP other list 0").unwrap());
            stage.wait_until_blocked(1);
            assert_eq!(run::<i64>(&mut connection, "RPUSH list a b").unwrap(), 2);
            assert_eq!(popped.join().unwrap(), ("list".to_owned(), "a".to_owned()));
        });
        // One that goes away while it is blocked takes nothing with it.
        let mut blocked = stage.connect();
        blocked.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert!(run::<Value>(&mut blocked, "BLPOP empty 0").unwrap_err().is_timeout());
        drop(blocked);
        stage.wait_until_blocked(0);
        assert_eq!(run::<i64>(&mut connection, "RPUSH empty kept").unwrap(), 1);
        assert_eq!(run::<String>(&mut connection, "LPOP empty").unwrap(), "kept");
    });
}

#[test]
fn scripts_are_loaded_again_after_a_flush() {
    on_both(|stage| {
        let mut connection = stage.connect();
        let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
        for expected in [5, 10, 15] {
            assert_eq!(script.key("count").arg(5).invoke::<i64>(&mut connection).unwrap(), expected);
            run::<()>(&mut connection, "SCRIPT FLUSH").unwrap();
        }
    });
}

#[test]
fn the_database_and_the_name_are_the_connections_own() {
    for query in ["3", "3?protocol=resp3"] {
        on_both_with(query, |stage| {
            let mut connection = stage.connect();
            run::<()>(&mut connection, "CLIENT SETNAME tester").unwrap();
            let info: String = run(&mut connection, "CLIENT INFO").unwrap();
            assert!(info.contains(" name=tester ") && info.contains(" db=3 "), "{info}");
            run::<()>(&mut connection, "SET key three").unwrap();
            run::<()>(&mut connection, "SELECT 0").unwrap();
            assert_eq!(run::<Option<String>>(&mut connection, "GET key").unwrap(), None);
            assert_eq!(run::<String>(&mut stage.connect(), "GET key").unwrap(), "three");
        });
    }
}

#[test]
fn tracking_tells_of_what_another_writes() {
    on_both_with("?protocol=resp3", |stage| {
        let (mut reader, mut writer) = (stage.connect(), stage.connect());
        let (pushed, pushes) = std::sync::mpsc::channel();
        reader.set_push_sender(pushed);
        run::<()>(&mut reader, "CLIENT TRACKING ON").unwrap();
        assert_eq!(run::<Option<String>>(&mut reader, "GET key").unwrap(), None);
        run::<()>(&mut writer, "SET key new").unwrap();
        // The push stands before the next reply, or comes when Redis gets to it.
        let told = |push: PushInfo| push.kind == PushKind::Invalidate;
        wait_until(PATIENCE, || {
            run::<()>(&mut reader, "PING").unwrap();
            pushes.try_iter().any(told)
        });
        assert_eq!(run::<String>(&mut reader, "GET key").unwrap(), "new");
    });
}

#[test]
fn limits_stand_between_redis_commands_in_one_pipeline() {
    let redis = RedisServer::start();
    let tollgate = Tollgate::before(&redis);
    for query in ["", "?protocol=resp3"] {
        let client = Client::open(format!("redis://{}/{query}", tollgate.addr())).unwrap();
        let (mut connection, mut pipeline) = (client.get_connection().unwrap(), redis::pipe());
        let key = format!("key{query}");
        for _ in 0..50 {
            pipeline.cmd("RL.CHECK").arg(&key).arg(100).arg("1h").cmd("INCR").arg(&key);
        }
        let replies: Vec<Value> = pipeline.query(&mut connection).unwrap();
        for (number, pair) in (1..).zip(replies.chunks_exact(2)) {
            let decision: Vec<i64> = redis::from_redis_value(pair[0].clone()).unwrap();
            assert_eq!((decision[0], decision[2], decision[5]), (1, 100 - number, 0));
            assert_eq!(pair[1], Value::Int(number));
        }
    }
}
