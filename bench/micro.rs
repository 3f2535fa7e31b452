//! What the steps of a check cost, each alone and in one thread. `cargo bench --bench micro` prints it.
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use redis_protocol::resp2;
use std::hint::black_box;
use tollgate::command::OwnCommand;
use tollgate::config;
use tollgate::limit::{Ask, Limit, Window};
use tollgate::limiter::deny_cache::{Denial, DenyCache};
use tollgate::limiter::fallback::Fallback;
use tollgate::resp::request::{Limits, Parser};
use tollgate::store::embedded::Embedded;

/// Keys that the stateful benchmarks go round: more than the processor's caches hold at once.
const KEYS: u64 = 100_000;
/// Requests of a pipeline that are parsed together.
const PIPELINE: u64 = 16;
const LIMITS: Limits = Limits::of_bulk(512 * 1024 * 1024);
const WINDOW_US: u64 = 60_000_000;

/// RL.CHECK of one window and of three, as clients send them.
const REQUESTS: [(&str, &[u8]); 2] = [
    ("one window", b"*4\r\n$8\r\nRL.CHECK\r\n$16\r\nkey:000000004711\r\n$3\r\n100\r\n$2\r\n60\r\n"),
    (
        "three windows and a cost",
        b"*10\r\n$8\r\nRL.CHECK\r\n$16\r\nkey:000000004711\r\n$2\r\n10\r\n$2\r\n1s\r\n$3\r\n100\r\n$2\r\n1m\r\n\
          $4\r\n1000\r\n$2\r\n1h\r\n$4\r\nCOST\r\n$1\r\n5\r\n",
    ),
];

criterion_main!(benches);
criterion_group!(benches, frames, commands, deny_cache, fallback, embedded);

/// Requests of a pipeline found and split into arguments, by Tollgate and by redis-protocol, which builds a value of
/// each: owned by reference counts, or borrowed.
fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(PIPELINE));
    for (name, request) in REQUESTS {
        let pipeline = Bytes::from(request.repeat(PIPELINE.try_into().unwrap()));
        let mut parser = Parser::default();
        group.bench_function(format!("tollgate, {name}"), |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(&*pipeline);
                while !rest.is_empty() {
                    let length = parser.parse(rest, LIMITS).unwrap().unwrap();
                    black_box(parser.args(rest));
                    rest = rest.get(length..).unwrap();
                }
            });
        });
        group.bench_function(format!("redis-protocol, shared, {name}"), |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(pipeline.clone());
                while !rest.is_empty() {
                    let (frame, length) = resp2::decode::decode_bytes(&rest).unwrap().unwrap();
                    black_box(frame);
                    rest = rest.slice(length..);
                }
            });
        });
        group.bench_function(format!("redis-protocol, borrowed, {name}"), |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(&*pipeline);
                while !rest.is_empty() {
                    let (frame, length) = resp2::decode::decode_range(rest).unwrap().unwrap();
                    black_box(frame);
                    rest = rest.get(length..).unwrap();
                }
            });
        });
    }
}

/// A request's arguments read as a check.
fn commands(criterion: &mut Criterion) {
    let (mut group, limits) = (criterion.benchmark_group("command"), config::Limits::default());
    for (name, request) in REQUESTS {
        let mut parser = Parser::default();
        parser.parse(request, LIMITS).unwrap().unwrap();
        let args = parser.args(request);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let command = OwnCommand::of(black_box(args.name())).unwrap();
                (command.parse)(black_box(&args), &limits).unwrap()
            });
        });
    }
}

fn deny_cache(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("denial cache");
    let limits = limits(100);
    let denial = Denial {
        binding: 0,
        limit: 100,
        remaining: 0,
        certain_until_us: WINDOW_US,
        until_us: WINDOW_US,
        empty_at_us: WINDOW_US,
        max_cost: 1,
    };
    let cache = DenyCache::new(1 << 20, WINDOW_US);
    let mut names = Names::new();
    for _ in 0..KEYS {
        cache.insert(&Ask { key: names.next(), limits: &limits, cost: 1 }, denial, 0, 1);
    }
    group.bench_function("hit, one key", |bencher| {
        let check = Ask { key: b"key:000000004711", limits: &limits, cost: 1 };
        bencher.iter(|| cache.lookup(black_box(&check), 2).unwrap());
    });
    group.bench_function("hit, 100,000 keys", |bencher| {
        bencher.iter(|| black_box(cache.lookup(&Ask { key: names.next(), limits: &limits, cost: 1 }, 2)));
    });
    group.bench_function("miss, 100,000 keys", |bencher| {
        let mut others = Names { prefix: *b"not:", ..Names::new() };
        bencher.iter(|| black_box(cache.lookup(&Ask { key: others.next(), limits: &limits, cost: 1 }, 2)));
    });
    group.bench_function("insert over an older one", |bencher| {
        bencher.iter(|| cache.insert(&Ask { key: names.next(), limits: &limits, cost: 1 }, denial, 0, 1));
    });
}

fn fallback(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fallback");
    let mut now_us = 0;
    for (name, limit) in [("allowed", 1_000_000_000), ("denied", 1)] {
        let limits = limits(limit);
        let fallback = Fallback::new(0.5, 1_000_000);
        let mut names = Names::new();
        for _ in 0..KEYS {
            fallback.check(&Ask { key: names.next(), limits: &limits, cost: 1 }, now_us);
        }
        group.bench_function(format!("{name}, one key"), |bencher| {
            let check = Ask { key: b"key:000000004711", limits: &limits, cost: 1 };
            bencher.iter(|| fallback.check(black_box(&check), now_us));
        });
        group.bench_function(format!("{name}, 100,000 keys"), |bencher| {
            bencher.iter(|| fallback.check(&Ask { key: names.next(), limits: &limits, cost: 1 }, now_us));
        });
        group.bench_function(format!("learn, {name}, 100,000 keys"), |bencher| {
            bencher.iter(|| fallback.learn(names.next(), *limits.first().unwrap(), 1, now_us));
        });
        now_us += 1;
    }
    group.bench_function("a new key in the place of another", |bencher| {
        let limits = limits(100);
        let fallback = Fallback::new(0.5, 10_000);
        let mut names = Names { keys: u64::MAX, ..Names::new() };
        bencher.iter(|| fallback.check(&Ask { key: names.next(), limits: &limits, cost: 1 }, now_us));
    });
}

fn embedded(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("embedded log");
    // A millisecond between checks: each finds expired entries of its key to drop, as in a steady state.
    group.bench_function("allowed, one key, steady", |bencher| {
        let store = Embedded::new(1_000_000, 50_000_000);
        let limits = limits(1_000_000_000);
        let mut now_us = 0;
        bencher.iter(|| {
            now_us += 1_000;
            store.check(&Ask { key: b"key:000000004711", limits: &limits, cost: 1 }, now_us).unwrap()
        });
    });
    group.bench_function("allowed, 100,000 keys, steady", |bencher| {
        let store = Embedded::new(1_000_000, 50_000_000);
        let limits = limits(1_000_000_000);
        let mut names = Names::new();
        let mut now_us = 0;
        bencher.iter(|| {
            now_us += 100;
            store.check(&Ask { key: names.next(), limits: &limits, cost: 1 }, now_us).unwrap()
        });
    });
    group.bench_function("denied, 100,000 keys", |bencher| {
        let store = Embedded::new(1_000_000, 50_000_000);
        let limits = limits(1);
        let mut names = Names::new();
        for _ in 0..KEYS {
            store.check(&Ask { key: names.next(), limits: &limits, cost: 1 }, 0).unwrap();
        }
        bencher.iter(|| store.check(&Ask { key: names.next(), limits: &limits, cost: 1 }, 1).unwrap());
    });
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("allowed, 100,000 new keys", |bencher| {
        let limits = limits(100);
        let mut names = Names { keys: u64::MAX, ..Names::new() };
        let fresh = || Embedded::new(1_000_000, 50_000_000);
        let ask = |store: Embedded| {
            for _ in 0..KEYS {
                store.check(&Ask { key: names.next(), limits: &limits, cost: 1 }, 0).unwrap();
            }
            store
        };
        bencher.iter_batched(fresh, ask, BatchSize::PerIteration);
    });
}

fn limits(limit: u32) -> [Limit; 1] {
    [Limit::log(limit, Window::from_ms(WINDOW_US / 1000).unwrap())]
}

/// Keys in an order that a processor cannot foresee. Made in place, so that a benchmark measures little else.
struct Names {
    prefix: [u8; 4],
    name: [u8; 16],
    keys: u64,
    next: u64,
}

impl Names {
    fn new() -> Self {
        Self { prefix: *b"key:", name: *b"key:000000000000", keys: KEYS, next: 0 }
    }

    fn next(&mut self) -> &[u8] {
        // A step that shares no factor with the number of keys reaches all of them.
        self.next = self.next.wrapping_add(61_803_399) % self.keys;
        let mut number = self.next;
        for digit in self.name.iter_mut().rev().take(12) {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        for (letter, prefix) in self.name.iter_mut().zip(self.prefix) {
            *letter = prefix;
        }
        &self.name
    }
}
