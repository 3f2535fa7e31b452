//! The program under test.

use super::{HttpClient, Names, PATIENCE, RawClient, RedisServer, send_signal, wait_until};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{env, mem};

/// A running Tollgate, killed on drop. Its log is shown when the test fails, and fails the test when it holds a
/// warning or an error, or a line that is no log line at all (a panic), that the test did not expect.
pub struct Tollgate {
    process: Child,
    addr: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    log_reader: Option<JoinHandle<()>>,
    expected: Vec<String>,
}

/// How to start a Tollgate.
pub struct Builder {
    command: Command,
    stdin: Stdio,
    stdout: Stdio,
    expected: Vec<String>,
}

impl Tollgate {
    /// One without a Redis.
    pub fn embedded() -> Self {
        Self::builder().arg("--embedded").start()
    }

    /// One before `redis`.
    pub fn before(redis: &RedisServer) -> Self {
        Self::builder().redis(redis).start()
    }

    /// One on a free port. The deadline for Redis is far longer than its default, because Redis on a busy machine is
    /// not Redis that is down.
    pub fn builder() -> Builder {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0"]);
        let (stdin, stdout) = (Stdio::null(), Stdio::null());
        Builder { command, stdin, stdout, expected: Vec::new() }.env("TOLLGATE_REDIS__TIMEOUT_MS", "10000")
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn client(&self) -> RawClient {
        RawClient::connect(self.addr)
    }

    /// Where it serves HTTP.
    pub fn http_addr(&self) -> SocketAddr {
        let mut addr = None;
        wait_until(PATIENCE, || {
            addr = self.log.lock().unwrap().iter().find_map(|line| address_in(line, "serving http"));
            addr.is_some()
        });
        addr.unwrap()
    }

    /// A connection to that.
    pub fn http(&self) -> HttpClient {
        HttpClient::connect(self.http_addr())
    }

    /// The log so far, line by line.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Threads that there are.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap().count()
    }

    /// File descriptors that it may have as it is.
    pub fn soft_descriptors(&self) -> u64 {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.process.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().parse().unwrap()
    }

    /// File descriptors in use.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Processor time used so far, by all its threads.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // Behind the name in brackets, which may hold anything: the 12th and 13th field are the user's and the system's
        // time, in hundredths of a second.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
    }

    /// Sends a signal: `-TERM`, `-INT`.
    pub fn signal(&self, signal: &str) {
        send_signal(&self.process, signal);
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(PATIENCE, || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Builder {
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn redis(self, redis: &RedisServer) -> Self {
        self.arg("--redis").arg(&redis.addr().to_string())
    }

    /// It may have so many file descriptors, and may not have more.
    pub fn descriptors(self, most: u32) -> Self {
        self.under(&format!("ulimit -n {most}"))
    }

    /// It has so many file descriptors, unless it asks for more.
    pub fn soft_descriptors(self, most: u32) -> Self {
        self.under(&format!("ulimit -Sn {most}"))
    }

    /// It finds these two sockets, by these names, as systemd would pass them: from descriptor 3 on.
    pub fn inherits(mut self, sockets: [(&str, &TcpListener); 2]) -> Self {
        let [(first, stdin), (second, stdout)] = sockets;
        let passed = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
        (self.stdin, self.stdout) = (passed(stdin), passed(stdout));
        let names = format!("LISTEN_FDNAMES={first}:{second}");
        self.under(&format!("exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$ {names}"))
    }

    /// The same process, which the shell has done this to.
    fn under(mut self, change: &str) -> Self {
        let mut outer = Command::new("sh");
        outer.args(["-c", &format!("{change}; exec \"$0\" \"$@\"")]);
        outer.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        self.command = outer;
        self
    }

    /// It sees these names and no others.
    pub fn names(mut self, names: &Names) -> Self {
        self.command = names.seen_by(&self.command);
        self
    }

    /// Log lines that hold this text may be warnings or errors.
    pub fn expect_log(mut self, text: &str) -> Self {
        self.expected.push(text.to_owned());
        self
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(mut self) -> Tollgate {
        let mut process = self.command.stdin(self.stdin).stdout(self.stdout).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::default();
        let log_reader = Some(keep_log(process.stderr.take().unwrap(), Arc::clone(&log)));
        // Made before it listens, so that a program that ends instead is cleaned up and shows its log.
        let addr = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut tollgate = Tollgate { process, addr, log, log_reader, expected: self.expected };
        wait_until(PATIENCE, || {
            assert!(tollgate.process.try_wait().unwrap().is_none(), "tollgate ended");
            tollgate.log.lock().unwrap().iter().find_map(|line| address_in(line, "listening")).is_some_and(|addr| {
                tollgate.addr = addr;
                true
            })
        });
        tollgate
    }
}

impl Drop for Tollgate {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.log_reader.take().map(JoinHandle::join);
        let log = mem::take(&mut *self.log.lock().unwrap());
        let unexpected: Vec<&String> = log.iter().filter(|line| !self.is_expected(line)).collect();
        if thread::panicking() {
            eprintln!("--- log of tollgate, {}\n{}\n---", self.addr, log.join("\n"));
        } else {
            assert!(unexpected.is_empty(), "unexpected in the log of tollgate: {unexpected:#?}");
        }
    }
}

impl Tollgate {
    fn is_expected(&self, line: &str) -> bool {
        // A line is `<time> <level> <target>: <message> <fields>`.
        let level = line.split_whitespace().nth(1).unwrap_or_default();
        // How many file descriptors there may be is the machine's business.
        let is_of_machine = line.contains("too few file descriptors");
        ["INFO", "DEBUG", "TRACE"].contains(&level)
            || is_of_machine
            || self.expected.iter().any(|text| line.contains(text))
    }
}

/// The program, with nothing of this environment's configuration in force.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for (name, _) in env::vars_os() {
        if ["REDIS_", "TOLLGATE_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

fn keep_log(from: ChildStderr, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line);
        }
    })
}

/// The address in the line that says this of it.
fn address_in(line: &str, says: &str) -> Option<SocketAddr> {
    let addr = line.split_once("addr=").filter(|_| line.contains(says))?.1;
    addr.split_whitespace().next()?.parse().ok()
}
