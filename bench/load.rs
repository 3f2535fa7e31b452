//! A load generator for whatever speaks RESP: one thread, one command with random keys, many connections.
//!
//! **Closed loop** (default), as redis-benchmark: each connection sends `--pipeline` requests in one write, waits for
//! all their replies, and sends the next. It measures throughput, and latency without a queue of the client's own.
//!
//! **Open loop** (`--rate`): requests are due at fixed times, whether or not earlier ones were answered, and a
//! request's latency counts from when it was due. So a stall shows in all requests that it held up, instead of in the
//! one that happened to wait for it ("coordinated omission", Gil Tene).
//!
//! ```text
//! due       |   |   |   |   |          a stall from the second to the fourth costs
//! answered   |       .......|||   |    the second most, the third less, the fourth little
//! ```
//!
//! It differs from redis-benchmark in that it only looks for where replies end, so that replies of several integers
//! cost it hardly more than short ones, and in that it checks each: one that is not as `--begins` and `--ends` say
//! counts as wrong. Prints one line of JSON.
#![expect(clippy::indexing_slicing, reason = "a tool that stops at the first surprise is what is wanted here")]

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Stands in the command for a random number below `--keys`, of as many digits as it has letters.
const RANDOM: &[u8] = b"__rand_int__";
/// How long replies are waited for after the last request.
const DRAIN: Duration = Duration::from_secs(2);
/// Ready connections that are told of at once.
const EVENTS: usize = 256;
/// Bytes that one read takes at most.
const READ_BYTES: usize = 256 * 1024;

const USAGE: &str = "\
usage: load [--addr HOST:PORT] [--connections N] [--pipeline N] [--rate REQUESTS_PER_SECOND]
            [--warm-up SECONDS] [--seconds SECONDS] [--keys N] [--seed N]
            [--begins TEXT] [--ends TEXT] -- COMMAND [ARG ...]";

struct Options {
    addr: String,
    connections: usize,
    /// Requests in one write, in the closed loop.
    pipeline: usize,
    /// Requests a second over all connections, in the open loop.
    rate: Option<f64>,
    /// What is asked in this time is answered but not counted.
    warm_up: Duration,
    measured: Duration,
    keys: u64,
    /// Where the random numbers begin. The same each time unless told otherwise: both sides of a comparison are asked
    /// for the same keys in the same order.
    seed: NonZeroU64,
    begins: Vec<u8>,
    ends: Vec<u8>,
    command: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = parse(std::env::args().skip(1)).map_err(|text| format!("{text}\n{USAGE}"))?;
    let mut load = Load::connect(options)?;
    load.run()?;
    println!("{}", load.report());
    Ok(())
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        addr: "127.0.0.1:6380".to_owned(),
        connections: 50,
        pipeline: 1,
        rate: None,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(1),
        keys: 10_000,
        seed: NonZeroU64::MIN,
        begins: Vec::new(),
        ends: Vec::new(),
        command: Vec::new(),
    };
    while let Some(flag) = args.next() {
        if flag == "--" {
            options.command = args.by_ref().collect();
            break;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let line_ends = |text: String| text.replace("\\r\\n", "\r\n").into_bytes();
        match flag.as_str() {
            "--addr" => options.addr = value,
            "--connections" => options.connections = value.parse()?,
            "--pipeline" => options.pipeline = value.parse()?,
            "--rate" => options.rate = Some(value.parse()?),
            "--warm-up" => options.warm_up = Duration::try_from_secs_f64(value.parse()?)?,
            "--seconds" => options.measured = Duration::try_from_secs_f64(value.parse()?)?,
            "--keys" => options.keys = value.parse()?,
            "--seed" => options.seed = value.parse()?,
            "--begins" => options.begins = line_ends(value),
            "--ends" => options.ends = line_ends(value),
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    let positive = options.connections > 0 && options.pipeline > 0 && options.keys > 0 && !options.measured.is_zero();
    if options.command.is_empty() || !positive || options.rate.is_some_and(|rate| rate <= 0.0) {
        return Err("a command is needed, and numbers above 0".into());
    }
    Ok(options)
}

/// The command as a request, and where its random numbers stand.
struct Template {
    request: Vec<u8>,
    holes: Vec<usize>,
    keys: u64,
    random: u64,
}

impl Template {
    fn new(Options { command, keys, seed, .. }: &Options) -> Self {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for arg in command {
            request.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
        }
        let holes = request.windows(RANDOM.len()).enumerate().filter(|(_, text)| *text == RANDOM);
        let holes = holes.map(|(at, _)| at).collect();
        // Multiplied, as xorshift begins poorly from small numbers.
        Self { request, holes, keys: *keys, random: seed.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    fn write(&mut self, output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(&self.request);
        for hole in &self.holes {
            // Marsaglia's xorshift64.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let mut number = self.random % self.keys;
            for digit in output[start + hole..][..RANDOM.len()].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// When each unanswered request was sent or, in the open loop, due. In nanoseconds from the start.
    asked_ns: VecDeque<u64>,
    /// Whether the kernel's buffer is full, and it is to tell when it no longer is.
    blocked: bool,
}

struct Load {
    options: Options,
    template: Template,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    read_buffer: Vec<u8>,
    start: Instant,
    /// When the counted time begins and ends, in nanoseconds from the start.
    counted_ns: std::ops::Range<u64>,
    /// Requests issued so far, in the open loop.
    issued: u64,
    unanswered: usize,
    latency: Histogram,
    /// Replies that came within the counted time.
    replies: u64,
    wrong: u64,
    first_wrong: Option<String>,
}

impl Load {
    fn connect(options: Options) -> Result<Self, Box<dyn Error>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for index in 0..options.connections {
            let stream = TcpStream::connect(&options.addr).map_err(|error| format!("{}: {error}", options.addr))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            let (input, output) = (Vec::new(), Vec::new());
            connections.push(Connection { stream, input, output, asked_ns: VecDeque::new(), blocked: false });
        }
        let begin_ns = options.warm_up.as_nanos() as u64;
        Ok(Self {
            template: Template::new(&options),
            epoll,
            connections,
            read_buffer: vec![0; READ_BYTES],
            start: Instant::now(),
            counted_ns: begin_ns..begin_ns + options.measured.as_nanos() as u64,
            issued: 0,
            unanswered: 0,
            latency: Histogram::new(),
            replies: 0,
            wrong: 0,
            first_wrong: None,
            options,
        })
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn run(&mut self) -> Result<(), Box<dyn Error>> {
        // By default the kernel may wake a sleeper 50 us late, to wake several at once.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        self.start = Instant::now();
        if self.options.rate.is_none() {
            for index in 0..self.connections.len() {
                self.send_batch(index, 0)?;
            }
        }
        let end_ns = self.counted_ns.end;
        let give_up_ns = end_ns + DRAIN.as_nanos() as u64;
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let now_ns = self.now_ns();
            let next_ns = match self.options.rate {
                Some(rate) => self.issue_due(rate, now_ns.min(end_ns))?,
                None => give_up_ns,
            };
            if now_ns >= give_up_ns || (now_ns >= end_ns && self.unanswered == 0) {
                return Ok(());
            }
            let wake_ns = if next_ns < end_ns { next_ns } else { give_up_ns };
            let wait_ns = wake_ns.saturating_sub(self.now_ns());
            let wait = Timespec { tv_sec: (wait_ns / 1_000_000_000) as i64, tv_nsec: (wait_ns % 1_000_000_000) as i64 };
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait))?;
            for event in events.drain(..) {
                let (flags, data) = (event.flags, event.data);
                let index = data.u64() as usize;
                if flags.contains(epoll::EventFlags::OUT) {
                    self.flush(index)?;
                }
                if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    self.receive(index)?;
                }
            }
        }
    }

    /// Sends what is due by `now_ns` and says when the next request is.
    fn issue_due(&mut self, rate: f64, now_ns: u64) -> io::Result<u64> {
        let due_ns = |request: u64| (request as f64 * 1e9 / rate) as u64;
        let first = self.issued;
        while due_ns(self.issued) < now_ns {
            let index = (self.issued % self.connections.len() as u64) as usize;
            self.queue(index, due_ns(self.issued));
            self.issued += 1;
        }
        // Each connection that was given some, once.
        for request in first..self.issued.min(first + self.connections.len() as u64) {
            self.flush((request % self.connections.len() as u64) as usize)?;
        }
        Ok(due_ns(self.issued))
    }

    fn send_batch(&mut self, index: usize, now_ns: u64) -> io::Result<()> {
        for _ in 0..self.options.pipeline {
            self.queue(index, now_ns);
        }
        self.flush(index)
    }

    fn queue(&mut self, index: usize, asked_ns: u64) {
        let connection = &mut self.connections[index];
        self.template.write(&mut connection.output);
        connection.asked_ns.push_back(asked_ns);
        self.unanswered += 1;
    }

    fn flush(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let mut written = 0;
        while written < connection.output.len() {
            match connection.stream.write(&connection.output[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        connection.output.drain(..written);
        let blocked = !connection.output.is_empty();
        if blocked != connection.blocked {
            connection.blocked = blocked;
            let out = if blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.stream, data, epoll::EventFlags::IN | out)?;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        let connection = &mut self.connections[index];
        let read = match connection.stream.read(&mut self.read_buffer) {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(read) => &self.read_buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let now_ns = self.start.elapsed().as_nanos() as u64;
        let mut kept = std::mem::take(&mut connection.input);
        let data = if kept.is_empty() {
            read
        } else {
            kept.extend_from_slice(read);
            &kept
        };
        let mut at = 0;
        while let Some(length) = reply_length(&data[at..]) {
            let reply = &data[at..at + length];
            at += length;
            let asked_ns = connection.asked_ns.pop_front().ok_or("more replies than requests")?;
            self.unanswered -= 1;
            if !(reply.starts_with(&self.options.begins) && reply.ends_with(&self.options.ends)) {
                self.wrong += 1;
                self.first_wrong.get_or_insert_with(|| String::from_utf8_lossy(reply).into_owned());
            }
            self.replies += u64::from(self.counted_ns.contains(&now_ns));
            if self.counted_ns.contains(&asked_ns) {
                self.latency.record(now_ns - asked_ns);
            }
        }
        self.connections[index].input = data[at..].to_vec();
        let idle = self.connections[index].asked_ns.is_empty();
        if idle && self.options.rate.is_none() && now_ns < self.counted_ns.end {
            self.send_batch(index, now_ns)?;
        }
        Ok(())
    }

    fn report(&mut self) -> String {
        let end_ns = self.now_ns();
        let unanswered = self.unanswered;
        // What was never answered took at least until now.
        for connection in &self.connections {
            for asked_ns in connection.asked_ns.iter().filter(|asked_ns| self.counted_ns.contains(asked_ns)) {
                self.latency.record(end_ns - asked_ns);
            }
        }
        let rps = self.replies as f64 / self.options.measured.as_secs_f64();
        let us = |part: f64| self.latency.quantile_ns(part) as f64 / 1000.0;
        format!(
            "{{\"rps\": {rps:.1}, \"replies\": {}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"p999_us\": {:.1}, \
             \"max_us\": {:.1}, \"unanswered\": {unanswered}, \"wrong\": {}, \"first_wrong\": \"{}\"}}",
            self.replies,
            us(0.5),
            us(0.99),
            us(0.999),
            us(1.0),
            self.wrong,
            self.first_wrong.as_deref().unwrap_or_default().escape_default(),
        )
    }
}

/// How long the reply is that `data` begins with, if it is whole. Aggregates count as their items do.
fn reply_length(data: &[u8]) -> Option<usize> {
    let (mut at, mut left) = (0, 1);
    while left > 0 {
        let line = &data[at..];
        let end = line.iter().position(|byte| *byte == b'\n')? + 1;
        let number = || line[1..end].iter().take_while(|byte| byte.is_ascii_digit()).fold(0, decimal);
        at += end;
        left -= 1;
        match line[0] {
            b'*' | b'~' | b'>' => left += number(),
            b'%' => left += 2 * number(),
            b'$' | b'=' if line[1] != b'-' => at += number() + 2,
            _ => {}
        }
        if at > data.len() {
            return None;
        }
    }
    Some(at)
}

fn decimal(number: usize, digit: &u8) -> usize {
    number * 10 + usize::from(digit - b'0')
}

/// Counts of latencies, each known to one part in 128, as HdrHistogram keeps them.
struct Histogram {
    counts: Vec<u64>,
}

const SUB_BITS: u32 = 7;

impl Histogram {
    fn new() -> Self {
        Self { counts: vec![0; (65 - SUB_BITS as usize) << SUB_BITS] }
    }

    /// Below 2^SUB_BITS each value has a place; above, each power of two has 2^SUB_BITS of them.
    fn record(&mut self, ns: u64) {
        let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(SUB_BITS + 1);
        let place = ((u64::from(shift)) << SUB_BITS) + (ns >> shift);
        self.counts[place as usize] += 1;
    }

    /// The value that `part` of all are at most, or 0 when there are none.
    fn quantile_ns(&self, part: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let rank = ((total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let place = place.unwrap_or(0) as u64;
        let shift = (place >> SUB_BITS).saturating_sub(1);
        let low = place - (shift << SUB_BITS);
        ((low + 1) << shift) - 1
    }
}
