//! Steady questions to several Tollgates while something happens behind them, and what their clients were answered.
//!
//! A client knows when it was admitted within its own round trip only: after it sent and before it received. So the
//! k-th admission was made after the k-th smallest time of sending and before the k-th smallest time of receipt, and
//! what is counted here as admitted within a window certainly was.

use super::{PATIENCE, RawClient, wait_until};
use crate::common::Decision;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// A client's pause between an answer and its next question.
const PAUSE: Duration = Duration::from_millis(3);
/// All answers of so long a time are exact before one speaks of exact answers.
const SETTLED: Duration = Duration::from_millis(400);

/// What is asked again and again.
#[derive(Debug, Clone)]
pub struct Question {
    pub key: String,
    /// What is admitted at most in any time of this length in milliseconds: limits and windows.
    pub limits: Vec<(i64, u64)>,
    pub cost: i64,
    /// What stands behind the key.
    asked: String,
}

impl Question {
    pub fn new(key: &str, limits: &[(i64, u64)]) -> Self {
        let asked: Vec<_> = limits.iter().map(|(limit, window_ms)| format!("{limit} {window_ms}ms")).collect();
        Self { key: key.to_owned(), limits: limits.to_vec(), cost: 1, asked: asked.join(" ") }
    }

    /// Asked in these words, of which the limits are what holds.
    pub fn asking(self, words: &str) -> Self {
        Self { asked: words.to_owned(), ..self }
    }

    pub fn of_cost(self, cost: i64) -> Self {
        Self { cost, ..self }
    }

    /// As it is sent.
    pub fn line(&self) -> String {
        format!("RL.CHECK {} {} COST {}", self.key, self.asked, self.cost)
    }
}

/// One answer.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Index of the question, and of the Tollgate.
    pub question: usize,
    pub tollgate: usize,
    pub sent: Instant,
    pub received: Instant,
    pub decision: Decision,
}

/// How the questions fare, for who does something meanwhile.
pub struct Progress {
    clients: usize,
    answers: AtomicUsize,
    last_degraded: Mutex<Instant>,
}

impl Progress {
    /// Waits until all answers have been exact for a while.
    #[track_caller]
    pub fn settle(&self) {
        let since = Instant::now();
        self.wait_for(2 * self.clients);
        wait_until(PATIENCE, || self.last_degraded.lock().unwrap().max(since).elapsed() > SETTLED);
    }

    /// Waits until so many more questions were answered.
    #[track_caller]
    pub fn wait_for(&self, answers: usize) {
        let before = self.answers.load(Relaxed);
        wait_until(PATIENCE, || self.answers.load(Relaxed) >= before + answers);
    }
}

/// What the clients were answered.
#[derive(Debug)]
pub struct Seen {
    questions: Vec<Question>,
    /// When all answers had been exact for a while, and something was done.
    begun: Instant,
    /// In the order of receipt.
    pub samples: Vec<Sample>,
    /// How much later than it asked for a thread was woken at worst: what the machine, not Tollgate, kept waiting.
    pub stall: Duration,
}

/// Has each question asked of each Tollgate by a client of its own, before, during and after `act`, until all answers
/// are exact again.
pub fn while_asking(tollgates: &[SocketAddr], questions: &[Question], act: impl FnOnce(&Progress)) -> Seen {
    let stopped = AtomicBool::new(false);
    let clients = tollgates.len() * questions.len();
    let progress = Progress { clients, answers: AtomicUsize::new(0), last_degraded: Mutex::new(Instant::now()) };
    thread::scope(|scope| {
        let _stop_on_panic = StopOnDrop(&stopped);
        let mut clients = Vec::new();
        for (tollgate, addr) in tollgates.iter().enumerate() {
            for (question, asked) in questions.iter().enumerate() {
                let (stopped, progress, line) = (&stopped, &progress, asked.line());
                clients.push(scope.spawn(move || {
                    let mut samples = Vec::new();
                    ask_until(stopped, progress, *addr, &line, |sent, received, decision| {
                        samples.push(Sample { question, tollgate, sent, received, decision });
                    });
                    samples
                }));
            }
        }
        let stall = scope.spawn(|| longest_stall(&stopped));
        progress.settle();
        let begun = Instant::now();
        act(&progress);
        progress.settle();
        stopped.store(true, Relaxed);
        let mut samples: Vec<Sample> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        samples.sort_by_key(|sample| sample.received);
        Seen { questions: questions.to_vec(), begun, samples, stall: stall.join().unwrap() }
    })
}

fn ask_until(
    stopped: &AtomicBool,
    progress: &Progress,
    tollgate: SocketAddr,
    line: &str,
    mut told: impl FnMut(Instant, Instant, Decision),
) {
    let mut client = RawClient::connect(tollgate);
    while !stopped.load(Relaxed) {
        let sent = Instant::now();
        let (decision, received) = (client.decide(line), Instant::now());
        progress.answers.fetch_add(1, Relaxed);
        if decision.degraded {
            let mut last = progress.last_degraded.lock().unwrap();
            *last = received.max(*last);
        }
        told(sent, received, decision);
        thread::sleep(PAUSE);
    }
}

/// Ends the threads of a scope, also when the test fails: the scope waits for them.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The longest that this process was kept from running until `stopped`, beyond what it slept.
pub fn longest_stall(stopped: &AtomicBool) -> Duration {
    const NAP: Duration = Duration::from_millis(1);
    let mut longest = Duration::ZERO;
    while !stopped.load(Relaxed) {
        let start = Instant::now();
        thread::sleep(NAP);
        longest = longest.max(start.elapsed() - NAP);
    }
    longest
}

impl Seen {
    /// The answers to one question.
    pub fn to(&self, question: usize) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.question == question)
    }

    /// How many of them were degraded that were asked for since something was done.
    pub fn degraded(&self, question: usize) -> usize {
        self.to(question).filter(|sample| sample.decision.degraded && sample.sent > self.begun).count()
    }

    /// When they were, and how long they took.
    pub fn tell_degraded(&self, question: usize) -> String {
        let degraded = self.to(question).filter(|sample| sample.decision.degraded && sample.sent > self.begun);
        let tell = |sample: &Sample| {
            let (at, took) = (sample.received - self.begun, sample.received - sample.sent);
            format!("tollgate {} after {at:?}, which took {took:?}", sample.tollgate)
        };
        degraded.map(tell).collect::<Vec<_>>().join("; ")
    }

    /// The same of all questions.
    pub fn all_degraded(&self) -> usize {
        (0..self.questions.len()).map(|question| self.degraded(question)).sum()
    }

    /// The longest wait for an answer to one question.
    pub fn longest_wait(&self, question: usize) -> Duration {
        self.to(question).map(|sample| sample.received - sample.sent).max().unwrap()
    }

    /// From `since` until the last answer to a question that was degraded.
    pub fn degraded_for(&self, question: usize, since: Instant) -> Duration {
        let degraded = self.to(question).filter(|sample| sample.decision.degraded);
        degraded.last().map_or(Duration::ZERO, |last| last.received.saturating_duration_since(since))
    }

    /// Fails when more than a limit of a question was certainly admitted by exact answers within one of its windows.
    #[track_caller]
    pub fn assert_exact_within_limits(&self) {
        for (number, question) in self.questions.iter().enumerate() {
            let mut sent: Vec<Instant> = self.exactly_admitted(number).map(|sample| sample.sent).collect();
            sent.sort();
            let received: Vec<Instant> = self.exactly_admitted(number).map(|sample| sample.received).collect();
            for (limit, window_ms) in &question.limits {
                let per_window = usize::try_from(limit / question.cost).unwrap();
                let window = Duration::from_millis(*window_ms);
                for (first, over) in sent.iter().zip(received.iter().skip(per_window)) {
                    let time = *over - *first;
                    assert!(time >= window, "{question:?}: {} of at most {per_window} within {time:?}", per_window + 1);
                }
            }
        }
    }

    /// Fails when so little was asked or admitted that it says nothing of a question's limits.
    #[track_caller]
    pub fn assert_busy(&self, questions: &[usize]) {
        for number in questions {
            let question = &self.questions[*number];
            let is_denied = self.to(*number).any(|sample| !sample.decision.allowed);
            let cost = self.exactly_admitted(*number).count() as i64 * question.cost;
            assert!(is_denied && cost > question.limits[0].0, "{question:?}: too little");
        }
    }

    fn exactly_admitted(&self, question: usize) -> impl Iterator<Item = &Sample> {
        self.to(question).filter(|sample| sample.decision.allowed && !sample.decision.degraded)
    }
}

/// Fails when any interval `[t, t + window)` of a log holds more than `limit`. Only those that begin at an entry can be
/// first to hold too much.
#[track_caller]
pub fn assert_log_within_limit(log: &[(i64, i64)], limit: i64, window_ms: i64) {
    let (mut used, mut end) = (0, 0);
    for (begin, (time_us, weight)) in log.iter().enumerate() {
        while end < log.len() && log[end].0 < time_us + window_ms * 1000 {
            used += log[end].1;
            end += 1;
        }
        assert!(used <= limit, "{used} of at most {limit} from entry {begin} on, within {window_ms} ms");
        used -= weight;
    }
}
