//! The denial cache: what it says must be as true as what Redis says, whoever was slow: Redis, or its answer on the way.

use crate::common::{PATIENCE, Proxy, RawClient, RedisServer, Reply, Tollgate, Weather, info, wait_until};
use std::thread;
use std::time::{Duration, Instant};

/// One a second by each of the algorithms, and by two of them at once, told in short and in full.
const WAYS: [&str; 6] =
    ["1 1s", "1 1s FULL", "1 1s BY gcra", "1 1s BY gcra FULL", "1 1s BY fixed", "9 year+02:00 1 1s"];

/// How often that was answered from the cache.
fn by_cache(tollgate: &Tollgate) -> u64 {
    info(tollgate, "answers_by_deny_cache").parse().unwrap()
}

/// Denials are kept once it is known that resets are heard of.
fn wait_until_kept(tollgate: &Tollgate, client: &mut RawClient) {
    wait_until(PATIENCE, || {
        let before = by_cache(tollgate);
        client.line("RL.CHECK warm 1 1d");
        by_cache(tollgate) > before
    });
}

fn is_allowed(reply: &Reply, line: &str) -> bool {
    if line.ends_with("FULL") { reply.field("allowed").integer() == 1 } else { reply.decision().allowed }
}

fn retry_after_ms(reply: &Reply, line: &str) -> i64 {
    match line.ends_with("FULL") {
        true => reply.field("retry_after_ms").integer(),
        false => reply.decision().retry_after_ms,
    }
}

/// All of the lines at once.
fn ask(client: &mut RawClient, lines: &[String]) -> Vec<Reply> {
    client.send(lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().as_bytes());
    lines.iter().map(|_| client.read()).collect()
}

/// Who came after the first was told too little, by as much as Redis had been slow: what it had said was taken to count
/// from when it was asked.
#[test]
fn who_waits_as_long_as_told_is_admitted_though_redis_was_slow() {
    const PAUSE: Duration = Duration::from_millis(300);
    let redis = RedisServer::start();
    let tollgate = Tollgate::builder().redis(&redis).arg("--workers=1").start();
    let (mut client, mut control) = (tollgate.client(), redis.client());
    wait_until_kept(&tollgate, &mut client);
    for attempt in 1.. {
        let lines: Vec<_> =
            WAYS.iter().enumerate().map(|(way, what)| format!("RL.CHECK k{attempt}.{way} {what}")).collect();
        ask(&mut client, &lines);
        control.line(&format!("CLIENT PAUSE {}", PAUSE.as_millis()));
        let asked = Instant::now();
        let first = ask(&mut client, &lines);
        let was_slow = asked.elapsed() > PAUSE / 2;
        let cached_before = by_cache(&tollgate);
        let told = ask(&mut client, &lines);
        let told_at = Instant::now();
        let all_cached = by_cache(&tollgate) - cached_before == lines.len() as u64;
        let mut waits: Vec<_> = lines
            .iter()
            .zip(&told)
            .zip(&first)
            .map(|((line, told), first)| {
                let is_slow_denial = was_slow && all_cached && !is_allowed(first, line);
                (retry_after_ms(told, line), line, is_slow_denial)
            })
            .collect();
        waits.sort();
        // A period of the clock may have ended meanwhile, and this machine may have slept.
        if waits.iter().any(|(.., is_slow_denial)| !is_slow_denial) {
            assert!(attempt < 20, "{first:?}");
            continue;
        }
        for (wait_ms, line, _) in waits {
            let wait = Duration::from_millis(wait_ms.unsigned_abs());
            thread::sleep((told_at + wait).saturating_duration_since(Instant::now()));
            let then = client.line(line);
            assert!(is_allowed(&then, line), "{line}: told to wait {wait:?}, and then {then:?}");
        }
        break;
    }
}

/// What Redis says counts from when it said so, however long that was on its way.
#[test]
fn nobody_is_told_to_wait_longer_because_an_answer_was_late() {
    const DELAY: Duration = Duration::from_millis(400);
    /// Of a busy machine.
    const SLACK_MS: i64 = 150;
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.addr());
    let tollgate = Tollgate::builder().arg("--redis").arg(&proxy.addr().to_string()).arg("--workers=1").start();
    let (mut client, mut control) = (tollgate.client(), redis.client());
    wait_until_kept(&tollgate, &mut client);
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap();
    let runs = |control: &mut RawClient| {
        let stats = control.line("INFO commandstats").text();
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next());
        calls.and_then(|calls| calls.parse::<u64>().ok()).unwrap_or(0)
    };
    let (mut ways, mut number) = (WAYS.iter().peekable(), 0);
    while let Some(way) = ways.peek() {
        number += 1;
        assert!(number < 50, "denials are never kept");
        wait_until_kept(&tollgate, &mut client);
        // So long that no period ends meanwhile, but once in decades.
        let line = format!("RL.CHECK k{number} {}", way.replace("1s", "366d"));
        client.line(&line);
        let before = runs(&mut control);
        proxy.set_weather(Weather::NoReplies);
        let asked = Instant::now();
        client.send(format!("{line}\r\n").as_bytes());
        wait_until(PATIENCE, || runs(&mut control) > before);
        let decided = Instant::now();
        thread::sleep(DELAY);
        proxy.set_weather(Weather::Fair);
        let first = client.read();
        let (cached_before, again) = (by_cache(&tollgate), Instant::now());
        let told = client.line(&line);
        assert!(!is_allowed(&first, &line) && !is_allowed(&told, &line));
        if by_cache(&tollgate) == cached_before {
            // On a busy machine it may have been silent for so long that no resets are heard of.
            continue;
        }
        let passed_ms = retry_after_ms(&first, &line) - retry_after_ms(&told, &line);
        assert!(passed_ms >= ms(again - decided) - SLACK_MS, "{line}: {passed_ms} ms have passed at least");
        assert!(passed_ms <= ms(asked.elapsed()) + 1, "{line}: no more than {passed_ms} ms have passed");
        ways.next();
    }
}
