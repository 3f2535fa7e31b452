//! Whatever counts, one node or several, and however scripts are told of their logs: the same is answered.

use super::before;
use crate::common::{
    Builder, Cluster, Keyless, Random, RawClient, RedisServer, Reply, Tollgate, info, is_thorough, program,
};

/// Requests in all, and at most in one go.
const REQUESTS: usize = 1_500;
const MOST_AT_ONCE: usize = 40;
/// Those who are asked are asked one after another, and none of the windows ends meanwhile.
const MOST_APART_MS: i64 = 30_000;

/// A request about some of a few keys, whose slots are anywhere.
fn request(random: &mut Random) -> String {
    let key = |random: &mut Random| format!("same{}", random.below(12));
    if random.below(12) == 0 {
        let keys: Vec<_> = (0..=random.below(5)).map(|_| key(random)).collect();
        return format!("RL.RESET {}", keys.join(" "));
    }
    let verb = random.pick(&["RL.CHECK", "RL.CHECK", "RL.CHECK", "RL.PEEK"]);
    let limits = random.pick(&["5 1h", "20 2h", "5 1h 20 2h", "20 2h 5 1h 50 1d", "3 30m"]);
    let cost = random.pick(&["", "", "", "COST 2", "COST 4", "COST 30"]);
    format!("{verb} {} {limits} {cost}", key(random))
}

/// Whether two say the same, but for when they were asked.
fn agree(one: &Reply, other: &Reply) -> bool {
    if let (Reply::Integer(_), Reply::Integer(_)) = (one, other) {
        return one == other;
    }
    let (one, other) = (one.decision(), other.decision());
    let is_close = |one: i64, other: i64| (one - other).abs() <= MOST_APART_MS && (one <= 0) == (other <= 0);
    let untimed =
        |decision: &crate::common::Decision| (decision.allowed, decision.limit, decision.remaining, decision.degraded);
    untimed(&one) == untimed(&other)
        && is_close(one.retry_after_ms, other.retry_after_ms)
        && is_close(one.reset_after_ms, other.reset_after_ms)
}

#[test]
fn one_redis_and_clusters_and_none_answer_the_same() {
    let redis = RedisServer::start();
    let three = [(); 3].map(|()| Cluster::of_three());
    let keyless: Vec<_> = (0..3).map(|node| Keyless::before(three[2].server(node).addr())).collect();
    (0..3).for_each(|node| three[2].announce(node, keyless[node].addr().port()));
    let with_keys = |builder: Builder| builder.env("TOLLGATE_REDIS__DECLARE_KEYS", "true").start();
    let tollgates = [
        Tollgate::embedded(),
        Tollgate::before(&redis),
        before(&three[0]).start(),
        with_keys(before(&three[1])),
        Tollgate::builder().arg("--redis").arg(&keyless[0].addr().to_string()).start(),
    ];
    let mut clients: Vec<RawClient> = tollgates.iter().map(Tollgate::client).collect();
    let mut random = Random(7);
    let mut asked = 0;
    while asked < REQUESTS * if is_thorough() { 20 } else { 1 } {
        let requests: Vec<String> = (0..=random.below(MOST_AT_ONCE)).map(|_| request(&mut random)).collect();
        asked += requests.len();
        let lines = requests.iter().map(|request| format!("{request}\r\n")).collect::<String>();
        clients.iter_mut().for_each(|client| client.send(lines.as_bytes()));
        for request in &requests {
            let answers: Vec<Reply> = clients.iter_mut().map(RawClient::read).collect();
            assert!(answers.iter().all(|answer| agree(answer, &answers[0])), "{request}: {answers:#?}");
        }
    }
    let tried = program().args(["--check-config", "--connect", "--redis", &keyless[1].addr().to_string()]).output();
    assert!(tried.unwrap().status.success(), "what is tried beforehand is what is needed");
    for (tollgate, keys) in tollgates[2..].iter().zip(["node", "slot", "slot"]) {
        let node = info(tollgate, "node0");
        assert!(node.contains(&format!("runs_by={keys},")), "{node}");
        assert_eq!(info(tollgate, "answers_by_fallback"), "0");
    }
}
