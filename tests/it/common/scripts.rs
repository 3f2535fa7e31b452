//! The scripts, run one by one on a Redis of the test's own, at whatever time it says.

use super::{Cluster, RawClient, RedisServer};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};
use tollgate::config;
use tollgate::dial::Dialer;
use tollgate::limit::{Ask, Breakdown, Counter, Form, LimitState, Standing, Verb, Verdict, decide_in_full};
use tollgate::store::batch::Batch;
use tollgate::store::connection::{Connection, Error, Reply};
use tollgate::store::inspect::Inspect;
use tollgate::store::redis::{LimitReport, Names, RedisStore, Report};
use tollgate::store::reset::Reset;
use tollgate::store::script::Run;

/// What asks Redis as a worker does. Its logs begin with `m:`.
pub struct Scripts {
    pub store: RedisStore,
    pub control: RawClient,
    /// How the scripts are told of their logs.
    pub names: Names,
    /// Time is read from this key, which a server has no way to have the scripts do.
    clock: String,
    link: Connection,
    runtime: Runtime,
}

impl Scripts {
    /// Whose clock stands still wherever it is set.
    pub fn on(redis: &RedisServer) -> Self {
        Self::with_clock(redis, "model:now".to_owned())
    }

    /// The same on a node of a cluster, which is told of logs of any slots.
    pub fn on_node(cluster: &Cluster, node: usize) -> Self {
        let clock = (0..).map(|number| format!("model:now:{number}")).find(|key| cluster.node_of(key) == node);
        Self::with_clock(cluster.server(node), clock.unwrap()).passing_names()
    }

    /// Whose scripts are told of their logs as arguments.
    pub fn passing_names(self) -> Self {
        Self { names: Names::Passed, ..self }
    }

    fn with_clock(redis: &RedisServer, clock: String) -> Self {
        let source = format!("local now_us = tonumber(redis.call('GET', '{clock}'))\n");
        Self { clock, ..Self::with_store(redis, RedisStore::with_clock("m:", &source)) }
    }

    /// Whose clock is Redis's.
    pub fn in_real_time(redis: &RedisServer) -> Self {
        Self::with_store(redis, RedisStore::new("m:"))
    }

    fn with_store(redis: &RedisServer, store: RedisStore) -> Self {
        let loaded = config::load(None, [("REDIS_ADDR".into(), redis.addr().to_string().into())], &[]).unwrap();
        let dialer = Dialer::new(&loaded.config.redis).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let link = runtime.block_on(Connection::open(&dialer, Duration::from_secs(10))).unwrap();
        Self { store, control: redis.client(), names: Names::Declared, clock: String::new(), link, runtime }
    }

    /// A time that logs can be written at: ahead of the real clock, by which Redis expires keys.
    pub fn start_us() -> u64 {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
        u64::try_from(start.as_micros()).unwrap()
    }

    /// From now on it is this time.
    pub fn set_time(&mut self, now_us: u64) {
        self.control.line(&format!("SET {} {now_us}", self.clock));
    }

    /// Runs a script.
    #[track_caller]
    pub fn run(&mut self, run: impl FnOnce(&RedisStore) -> Run<'_>) -> Reply {
        self.try_run(true, run).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a script, whose source goes along or is known to Redis.
    ///
    /// # Errors
    /// What Redis says of it.
    pub fn try_run(&mut self, with_source: bool, run: impl FnOnce(&RedisStore) -> Run<'_>) -> Result<Reply, Error> {
        let run = run(&self.store);
        run.write(self.link.output(), with_source);
        self.runtime.block_on(self.link.reply())
    }

    /// Says that what is run next may ask for a slot that is on its way here.
    #[track_caller]
    pub fn ask(&mut self) {
        let asking = self.runtime.block_on(self.link.call(&["ASKING"])).unwrap();
        assert_eq!(asking, Reply::Text(b"OK".to_vec()));
    }

    /// What the script says of a batch.
    #[track_caller]
    pub fn answers(&mut self, batch: &Batch, id: &str, resent: bool) -> Report {
        let names = self.names;
        let reply = self.run(|store| store.check(batch, id, resent, names));
        Report::read(reply, batch.limits()).unwrap()
    }

    /// The decisions on checks or peeks of one batch.
    #[track_caller]
    pub fn decide(&mut self, verb: Verb, checks: &[Ask<'_>]) -> Vec<Verdict> {
        let asked: Vec<_> = checks.iter().map(|check| (*check, Form::Short)).collect();
        self.decide_in_forms(verb, &asked).into_iter().map(|breakdown| breakdown.verdict).collect()
    }

    /// The same; of what is asked in full all figures are true.
    #[track_caller]
    pub fn decide_in_forms(&mut self, verb: Verb, asked: &[(Ask<'_>, Form)]) -> Vec<Breakdown> {
        let checks: Vec<_> = asked.iter().map(|(check, _)| *check).collect();
        let (mut batch, items) = batch_of(&checks);
        for ((_, form), item) in asked.iter().zip(&items) {
            if *form == Form::Full {
                batch.ask_in_full(*item);
            }
        }
        let (id, names) = (self.store.next_batch_id(), self.names);
        let answers = match verb {
            Verb::Check => self.answers(&batch, &id, false),
            Verb::Peek => {
                let reply = self.run(|store| store.peek(&batch, names));
                Report::read(reply, batch.limits()).unwrap()
            }
        };
        breakdowns(verb, &checks, &batch, &items, &answers)
    }

    /// The same on one.
    #[track_caller]
    pub fn decide_one(&mut self, verb: Verb, check: &Ask<'_>) -> Verdict {
        self.decide(verb, std::slice::from_ref(check))[0]
    }

    /// Looks at a key that has states of these counters only.
    #[track_caller]
    pub fn inspect(&mut self, key: &[u8], most_entries: usize, counters: Vec<Counter>) -> Vec<Standing> {
        let mut inspect = Inspect::new(key.to_vec(), most_entries);
        inspect.set_counters(counters);
        while let Some(glance) = inspect.glance().filter(|_| !inspect.is_done()) {
            let Reply::Integers(numbers) = self.run(|store| store.inspect(&glance)) else { panic!("no numbers") };
            inspect.glanced(&numbers).unwrap();
        }
        inspect.take_found()
    }

    /// Resets keys that have states of these counters only. How many had any state.
    #[track_caller]
    pub fn reset(&mut self, keys: &[&[u8]], counters: Vec<Counter>) -> u64 {
        let (mut reset, names) = (Reset::new(keys.iter().map(|key| key.to_vec()).collect()), self.names);
        reset.set_counters(counters);
        while let Some(piece) = reset.piece().filter(|_| !reset.is_done()) {
            let Reply::Integers(live) = self.run(|store| store.reset(&piece, names)) else { panic!("no flags") };
            reset.piece_done(&live);
        }
        reset.had_state()
    }
}

/// A batch of checks, and the item of each.
pub fn batch_of(checks: &[Ask<'_>]) -> (Batch, Vec<usize>) {
    let mut batch = Batch::default();
    let items = checks.iter().map(|check| batch.add(check)).collect();
    (batch, items)
}

/// The decisions on checks or peeks by what the script said of their batch.
pub fn decisions(verb: Verb, checks: &[Ask<'_>], batch: &Batch, items: &[usize], answers: &Report) -> Vec<Verdict> {
    breakdowns(verb, checks, batch, items, answers).into_iter().map(|breakdown| breakdown.verdict).collect()
}

fn breakdowns(verb: Verb, checks: &[Ask<'_>], batch: &Batch, items: &[usize], answers: &Report) -> Vec<Breakdown> {
    let mut windows = answers.limits.iter();
    let mut states: Vec<Vec<LimitState>> = Vec::new();
    for item in batch.items() {
        let count = batch.ask_of(item).limits.len();
        states.push(windows.by_ref().take(count).map(state_of).collect());
    }
    let decide_one = |(check, item): (&Ask<'_>, &usize)| {
        let states = &mut states[*item];
        let decision = decide_in_full(check.limits, states, check.cost);
        if decision.verdict.allowed && verb == Verb::Check {
            states.iter_mut().zip(check.limits).for_each(|(state, limit)| limit.count(state, check.cost));
        }
        decision
    };
    checks.iter().zip(items).map(decide_one).collect()
}

fn state_of(answer: &LimitReport) -> LimitState {
    match answer {
        LimitReport::State { state, .. } => *state,
        refused => panic!("nothing but logs was written, and nothing is elsewhere: {refused:?}"),
    }
}
