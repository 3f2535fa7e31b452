//! The scripts on the nodes of a Redis Cluster: told of logs of many slots, they decide those that the node serves, and
//! say of the others that they are elsewhere, with nothing written of them anywhere.

use crate::common::{Cluster, PATIENCE, Scripts, SlotMove, batch_of, wait_until};
use std::cell::Cell;
use tollgate::limit::{Ask, Counter, Limit, Window};
use tollgate::store::batch::Batch;
use tollgate::store::connection::{Error, Reply};
use tollgate::store::ledger::{Id, Record};
use tollgate::store::redis::{ELSEWHERE, LimitReport, Names, Report};
use tollgate::store::reset::Piece;
use tollgate::topology::redirect::Redirect;
use tollgate::topology::slot::Slot;

const HOUR: Limit = Limit::log(1_000, Window::from_ms(3_600_000).unwrap());
const SECOND: Limit = Limit::log(1_000, Window::from_ms(1_000).unwrap());
/// What a script wrote of an item half would be seen in the log of the hour, which comes first.
const BOTH: [Limit; 2] = [HOUR, SECOND];
/// A tag of keys that share a slot: `s}one` and `s}two`.
const TAG: &str = "s";

/// What a script says of an item: how much its windows hold, or `None` if it is elsewhere.
type Said = Option<Vec<u64>>;

fn batch(keys: &[&str], limits: &[Limit]) -> Batch {
    let asks: Vec<_> = keys.iter().map(|key| Ask { key: key.as_bytes(), limits, cost: 1 }).collect();
    batch_of(&asks).0
}

fn said(report: &Report, batch: &Batch) -> Vec<Said> {
    let of_item = |reports: &[LimitReport]| {
        let is_elsewhere = |report: &LimitReport| *report == LimitReport::Elsewhere;
        assert!(reports.iter().all(is_elsewhere) || !reports.iter().any(is_elsewhere), "{reports:?}");
        assert!(!reports.contains(&LimitReport::WrongType));
        (!reports.iter().all(is_elsewhere)).then(|| reports.iter().map(|report| report.state().used).collect())
    };
    batch.items().iter().map(|item| of_item(&report.limits[item.places()])).collect()
}

impl Scripts {
    fn check(&mut self, keys: &[&str]) -> Vec<Said> {
        let batch = batch(keys, &BOTH);
        let id = self.store.next_batch_id();
        said(&self.answers(&batch, &id, false), &batch)
    }

    fn peek(&mut self, keys: &[&str]) -> Vec<Said> {
        let (batch, names) = (batch(keys, &BOTH), self.names);
        let reply = self.run(|store| store.peek(&batch, names));
        said(&Report::read(reply, batch.limits()).unwrap(), &batch)
    }

    fn record(&mut self, records: &[Record]) -> Vec<i64> {
        let names = self.names;
        integers(self.run(|store| store.record(records, 0, names)))
    }

    fn forget(&mut self, keys: &[&str]) -> Vec<i64> {
        let (keys, counters): (Vec<_>, _) =
            (keys.iter().map(|key| key.as_bytes().to_vec()).collect(), BOTH.map(|limit| limit.counter()));
        let (piece, names) = (Piece { keys: &keys, counters: &counters, completes_its_keys: true }, self.names);
        integers(self.run(|store| store.reset(&piece, names)))
    }

    /// What Redis says of a check of one key whose logs are declared.
    fn declared(&mut self, key: &str) -> Result<Said, Option<Redirect>> {
        let batch = batch(&[key], &BOTH);
        let id = self.store.next_batch_id();
        match self.try_run(true, |store| store.check(&batch, &id, false, Names::Declared)) {
            Ok(reply) => Ok(said(&Report::read(reply, batch.limits()).unwrap(), &batch).remove(0)),
            Err(Error::Refused(text)) => Err(Redirect::read(&text)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn integers(reply: Reply) -> Vec<i64> {
    let Reply::Integers(integers) = reply else { panic!("no integers: {reply:?}") };
    integers
}

fn record(key: &str, counter: Counter, time_us: u64) -> Record {
    thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
    let id = Id::New(NEXT.replace(NEXT.get() + 1));
    Record { key: key.as_bytes().into(), counter, max: 1, time_us, id, cost: 1, admitted: 1 }
}

fn log(key: &str, limit: Limit) -> String {
    format!("m:{{{key}}}:{}", limit.window.ms())
}

/// Keys whose logs a node serves.
fn keys_of(cluster: &Cluster, node: usize, count: usize) -> Vec<String> {
    let keys = (0..).map(|number| format!("k{number}"));
    keys.filter(|key| cluster.node_of(key) == node).take(count).collect()
}

#[test]
fn items_of_other_nodes_are_elsewhere_and_nothing_is_written_of_them() {
    let cluster = Cluster::start();
    let mut scripts = Scripts::on_node(&cluster, 0);
    let start_us = Scripts::start_us();
    scripts.set_time(start_us);
    let [own, second, third] = [0, 1, 2].map(|node| keys_of(&cluster, node, 4));
    let keys = [&own[0], &second[0], &own[1], &third[0], &own[2], &third[1]].map(String::as_str);
    let here = [true, false, true, false, true, false];
    let size = |node| cluster.command(node, &["DBSIZE"]).integer();

    let empty = |here: bool| here.then(|| vec![0, 0]);
    assert_eq!(scripts.peek(&keys), here.map(empty));
    assert_eq!(scripts.check(&keys), here.map(empty));
    let records = keys.map(|key| record(key, HOUR.counter(), start_us));
    assert_eq!(scripts.record(&records), here.map(|here| if here { 1 } else { ELSEWHERE }));
    assert_eq!((1..3).map(size).collect::<Vec<_>>(), [0, 0], "on the other nodes");
    // With the key that has the time.
    assert_eq!(size(0), 3 * 2 + 1);
    for key in &own[..3] {
        assert_eq!(cluster.server(0).entries(&log(key, HOUR)).len(), 2);
    }

    // A key that is named twice has no state the second time.
    let reset = [1, ELSEWHERE, 1, ELSEWHERE, 1, ELSEWHERE, 0];
    assert_eq!(scripts.forget(&[&keys[..], &keys[..1]].concat()), reset);
    assert_eq!(size(0), 1);
}

#[test]
fn a_replica_has_nothing_here() {
    let cluster = Cluster::start();
    let [replica] = cluster.replicas_of(0)[..] else { panic!("one replica") };
    let key = keys_of(&cluster, 0, 1).remove(0);
    let mut scripts = Scripts::in_real_time(cluster.server(replica)).passing_names();
    assert_eq!(scripts.peek(&[&key]), [None]);
    assert_eq!(scripts.check(&[&key]), [None]);
    assert_eq!(scripts.record(&[record(&key, HOUR.counter(), Scripts::start_us())]), [ELSEWHERE]);
    assert_eq!(scripts.forget(&[&key]), [ELSEWHERE]);
}

/// Other errors than of a log's place are those of the whole run, as before.
#[test]
fn a_cluster_that_is_down_and_a_script_that_is_not_known_are_said_to_be_so() {
    let cluster = Cluster::of_one();
    let mut scripts = Scripts::in_real_time(cluster.server(0)).passing_names();
    let unknown = batch(&["a", "b"], &BOTH);
    let unknown =
        |scripts: &mut Scripts| scripts.try_run(false, |store| store.check(&unknown, "id", false, Names::Passed));
    assert!(unknown(&mut scripts).unwrap_err().has_code("NOSCRIPT"));
    assert_eq!(scripts.check(&["a", "b"]), [Some(vec![0, 0]), Some(vec![0, 0])]);
    unknown(&mut scripts).unwrap();

    cluster.command(0, &["CONFIG", "SET", "cluster-require-full-coverage", "yes"]);
    cluster.command(0, &["CLUSTER", "DELSLOTS", "0"]);
    wait_until(PATIENCE, || cluster.command(0, &["CLUSTER", "INFO"]).text().contains("cluster_state:fail"));
    let runs = [
        scripts.try_run(true, |store| store.check(&batch(&["a"], &BOTH), "id", false, Names::Passed)),
        scripts.try_run(true, |store| store.peek(&batch(&["a"], &BOTH), Names::Passed)),
        scripts
            .try_run(true, |store| store.record(&[record("a", HOUR.counter(), Scripts::start_us())], 0, Names::Passed)),
        scripts.try_run(true, |store| {
            let piece = Piece { keys: &[b"a".to_vec()], counters: &[HOUR.counter()], completes_its_keys: true };
            store.reset(&piece, Names::Passed)
        }),
    ];
    for run in runs {
        assert_eq!(Redirect::read(&run.unwrap_err().to_string()), Some(Redirect::ClusterDown));
    }
}

/// A slot on its way. Of its keys, which were checked at the start and, but for `s}old`, `s}older` and `s}oldest`, half a
/// second later:
///
/// | key         | log of the hour | log of the second                 |
/// |-------------|-----------------|-----------------------------------|
/// | `s}here`    | here            | here                              |
/// | `s}half`    | here            | moved                             |
/// | `s}gone`    | moved           | moved                             |
/// | `s}old`     | here            | here, all of it has expired       |
/// | `s}older`   | here            | here, all of it has expired       |
/// | `s}oldest`  | moved           | moved, all of it has expired      |
/// | `s}new`     | nowhere yet     | nowhere yet                       |
struct Moving {
    cluster: Cluster,
    slot_move: SlotMove,
    /// On the node that it comes from.
    scripts: Scripts,
    now_us: u64,
    /// A key of another slot of that node.
    other: String,
}

impl Moving {
    fn start() -> Self {
        let cluster = Cluster::start();
        let slot = Slot::of_tag(TAG.as_bytes()).number().into();
        let from = cluster.node_of(TAG);
        let mut scripts = Scripts::on_node(&cluster, from);
        let other = keys_of(&cluster, from, 1).remove(0);
        let start_us = Scripts::start_us();
        let young = ["s}here", "s}half", "s}gone", &other];
        scripts.set_time(start_us);
        scripts.check(&[&young[..], &["s}old", "s}older", "s}oldest"]].concat());
        scripts.set_time(start_us + 500_000);
        scripts.check(&young);
        let now_us = start_us + 1_000_000;
        scripts.set_time(now_us);

        let slot_move = cluster.begin_move(slot, (from + 1) % 3);
        let moved =
            [("s}half", SECOND), ("s}gone", HOUR), ("s}gone", SECOND), ("s}oldest", HOUR), ("s}oldest", SECOND)];
        let moved = moved.map(|(key, limit)| log(key, limit));
        cluster.move_keys(slot_move, &moved.each_ref().map(String::as_str));
        Self { cluster, slot_move, scripts, now_us, other }
    }

    /// How many entries a log has that has not moved.
    fn entries(&self, key: &str, limit: Limit) -> usize {
        self.cluster.server(self.slot_move.from).entries(&log(key, limit)).len()
    }

    /// Ends the move. Asks the node that the slot went to from then on.
    fn end(self) -> Self {
        let Self { cluster, slot_move, now_us, other, .. } = self;
        cluster.end_move(slot_move);
        let mut scripts = Scripts::on_node(&cluster, slot_move.to);
        scripts.set_time(now_us);
        Self { cluster, slot_move: SlotMove { from: slot_move.to, ..slot_move }, scripts, now_us, other }
    }
}

/// A log that had expired as a whole was forgotten, and could then not be made anew where it had been: the script failed
/// when the item's first window had been written.
#[test]
fn of_a_slot_that_moves_only_what_is_here_is_decided() {
    let mut moving = Moving::start();
    let other = moving.other.clone();
    let keys = ["s}here", "s}half", &other, "s}gone", "s}old", "s}new"];
    let two_and_one = Some(vec![2, 1]);
    let peeked = [two_and_one.clone(), None, two_and_one.clone(), None, Some(vec![1, 0]), None];
    assert_eq!(moving.scripts.peek(&keys), peeked);
    let checked = [two_and_one.clone(), None, two_and_one, None, None, None];
    assert_eq!(moving.scripts.check(&keys), checked);
    assert_eq!((moving.entries("s}here", HOUR), moving.entries("s}here", SECOND)), (3, 2));
    assert_eq!((moving.entries("s}half", HOUR), moving.entries("s}old", HOUR)), (2, 1), "nothing is written by half");

    // The same when its logs are declared, where what is elsewhere is said before the script runs.
    assert!(matches!(moving.scripts.declared("s}gone"), Err(Some(Redirect::Ask(..)))));
    assert!(matches!(moving.scripts.declared("s}new"), Err(Some(Redirect::Ask(..)))));
    assert_eq!(moving.scripts.declared("s}half"), Err(Some(Redirect::TryAgain)));
    assert_eq!(moving.scripts.declared("s}here"), Ok(Some(vec![3, 2])));
    assert_eq!(moving.scripts.declared("s}older"), Ok(None));
    assert_eq!(moving.entries("s}older", HOUR), 1);
    assert_eq!(moving.scripts.declared("s}older"), Err(Some(Redirect::TryAgain)));

    // Where it goes to nothing is here before ASKING, and then what is declared, if all of it has come or there is but one.
    let to = moving.slot_move.to;
    let mut there = Scripts::on_node(&moving.cluster, to);
    there.set_time(moving.now_us);
    assert_eq!(there.check(&["s}gone", "s}new", "s}here"]), [None, None, None]);
    for (key, used) in [("s}gone", [2, 1]), ("s}oldest", [1, 0])] {
        there.ask();
        assert_eq!(there.declared(key), Ok(Some(used.to_vec())), "{key}");
    }
    there.ask();
    assert_eq!(there.declared("s}new"), Err(Some(Redirect::TryAgain)));
    // What is not declared is made though, whatever there may still be of it where it comes from: nobody may say ASKING
    // who does not declare what he is about.
    there.ask();
    assert_eq!(there.check(&["s}new", "s}oldest"]), [Some(vec![0, 0]), Some(vec![2, 1])]);

    let mut moving = moving.end();
    let keys = ["s}here", "s}half", "s}gone", "s}old", "s}older", "s}oldest", "s}new"];
    let used = [[4, 3], [2, 1], [3, 2], [1, 0], [1, 0], [3, 2], [1, 1]];
    assert_eq!(moving.scripts.check(&keys), used.map(|used| Some(used.to_vec())));
    assert_eq!((moving.entries("s}old", HOUR), moving.entries("s}old", SECOND)), (2, 1));
}

/// A batch that is sent again finds what it made, though the log is gone that it would be found in.
#[test]
fn what_was_counted_before_is_answered_in_a_slot_that_moves() {
    let mut moving = Moving::start();
    let limits = [Limit { max: 2, ..HOUR }, Limit { max: 2, ..SECOND }];
    let asks = [Ask { key: b"s}here", limits: &limits, cost: 1 }; 3];
    let (batch, _) = batch_of(&asks);
    // Nothing fits, so that it makes nothing; then one entry is put there as if it had.
    let first = moving.scripts.answers(&batch, "first", false);
    assert_eq!(said(&first, &batch), [Some(vec![2, 1])]);
    for limit in [HOUR, SECOND] {
        let score = format!("-{}", moving.now_us - 2_000_000);
        moving.cluster.command(moving.slot_move.from, &["ZADD", &log("s}old", limit), &score, "lost"]);
    }
    let asks = [Ask { key: b"s}old", limits: &limits, cost: 1 }; 3];
    let (batch, _) = batch_of(&asks);
    let again = moving.scripts.answers(&batch, "lost", true);
    assert_eq!(said(&again, &batch).len(), 1);
    assert!(said(&again, &batch)[0].is_some(), "{again:?}");
}

#[test]
fn of_a_slot_that_moves_only_what_is_here_is_recorded_and_reset() {
    let mut moving = Moving::start();
    let (now_us, other) = (moving.now_us, moving.other.clone());
    let long_ago_us = now_us - 2 * HOUR.window.us();
    let (hour, second) = (HOUR.counter(), SECOND.counter());
    let records = [
        (record("s}here", second, now_us), 1),
        (record("s}half", hour, now_us), 1),
        (record("s}half", second, now_us), ELSEWHERE),
        (record("s}gone", hour, now_us), ELSEWHERE),
        (record("s}gone", hour, long_ago_us), 0),
        (record("s}old", second, now_us), 1),
        (record("s}new", second, now_us), ELSEWHERE),
        (record(&other, hour, now_us), 1),
    ];
    let (records, written): (Vec<_>, Vec<_>) = records.into_iter().unzip();
    assert_eq!(moving.scripts.record(&records), written);
    let again = written.iter().map(|written| (*written).min(0)).collect::<Vec<_>>();
    assert_eq!(moving.scripts.record(&records), again, "they are there");
    assert_eq!((moving.entries("s}here", SECOND), moving.entries("s}half", HOUR)), (3, 3));

    let mut told = moving.cluster.server(moving.slot_move.from).client();
    told.line("SUBSCRIBE m:reset");
    let keys = ["s}half", "s}here", "s}gone", &other, "s}older", "s}new"];
    assert_eq!(moving.scripts.forget(&keys), [ELSEWHERE, 1, ELSEWHERE, 1, 1, ELSEWHERE]);
    for key in ["s}here", &other, "s}older"] {
        assert_eq!(told.read().items()[2].text(), key);
    }
    assert_eq!(moving.entries("s}half", HOUR), 3);

    let mut moving = moving.end();
    let keys = ["s}here", "s}half", "s}gone", "s}older", "s}new"];
    let used = [[0, 0], [3, 1], [2, 1], [0, 0], [0, 0]];
    assert_eq!(moving.scripts.peek(&keys), used.map(|used| Some(used.to_vec())));
}
