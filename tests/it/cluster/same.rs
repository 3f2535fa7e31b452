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
    let logs = ["5 1h", "20 2h", "5 1h 20 2h", "20 2h 5 1h 50 1d", "3 30m"];
    // So long that none of them refills or ends meanwhile, but once in weeks.
    let others = [
        "5 366d BY gcra",
        "4 300d BY gcra BURST 2",
        "7 366d BY fixed",
        "9 year",
        "6 year+02:00 5 1h",
        "5 300d 9 366d BY gcra",
        "20 2h 9 year 12 366d BY fixed",
        "mixed",
        "other",
    ];
    let limits = if random.below(2) == 0 { random.pick(&logs) } else { random.pick(&others) };
    let form = random.pick(&["", "", "FULL"]);
    let cost = random.pick(&["", "", "", "COST 2", "COST 4", "COST 30"]);
    format!("{verb} {} {limits} {cost} {form}", key(random))
}

/// Policies of several algorithms: the windows of an override are counted as the policy's, but those of the calendar.
const POLICIES: &str = r#"
[policies]
other = "8 1h 9 year+02:00"
[policies.mixed]
limits = "5 300d"
by = "gcra"
overrides = { "same*" = "5 300d 7 year 9 366d" }
"#;

/// Whether two say the same, but for when they were asked.
fn agree(one: &Reply, other: &Reply) -> bool {
    let (one, other) = (integers(one), integers(other));
    let is_close = |((name, one), (other_name, other)): (&(String, i64), &(String, i64))| {
        // A time, or none.
        let is_alike = match name.ends_with("_after_ms") || name == "next_ms" {
            true => (one - other).abs() <= MOST_APART_MS && (*one <= 0) == (*other <= 0),
            false => one == other,
        };
        name == other_name && is_alike
    };
    one.len() == other.len() && one.iter().zip(&other).all(is_close)
}

/// All numbers of an answer, and what they are called; of a text, each with the text.
fn integers(reply: &Reply) -> Vec<(String, i64)> {
    const SIX: [&str; 6] = ["allowed", "limit", "remaining", "retry_after_ms", "reset_after_ms", "degraded"];
    match reply {
        Reply::Integer(number) => vec![(String::new(), *number)],
        Reply::Array(items) if items.iter().all(|item| matches!(item, Reply::Integer(_))) => {
            assert_eq!(items.len(), SIX.len(), "{reply:?}");
            SIX.iter().zip(items).map(|(name, item)| ((*name).to_owned(), item.integer())).collect()
        }
        Reply::Array(items) if items.iter().all(|item| matches!(item, Reply::Array(_))) => {
            items.iter().flat_map(integers).collect()
        }
        Reply::Array(items) => {
            let field = |pair: &[Reply]| match &pair[1] {
                Reply::Integer(number) => vec![(pair[0].text(), *number)],
                Reply::Bulk(_) => vec![(format!("{} {}", pair[0].text(), pair[1].text()), 0)],
                limits => integers(limits),
            };
            items.chunks_exact(2).flat_map(field).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_redis_and_clusters_and_none_answer_the_same() {
    let redis = RedisServer::start();
    let three = [(); 3].map(|()| Cluster::of_three());
    let keyless: Vec<_> = (0..3).map(|node| Keyless::before(three[2].server(node).addr())).collect();
    (0..3).for_each(|node| three[2].announce(node, keyless[node].addr().port()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.toml");
    std::fs::write(&file, POLICIES).unwrap();
    let start = |builder: Builder| builder.arg("--config").arg(file.to_str().unwrap()).start();
    let tollgates = [
        start(Tollgate::builder().arg("--embedded")),
        start(Tollgate::builder().redis(&redis)),
        start(before(&three[0])),
        start(before(&three[1]).env("TOLLGATE_REDIS__DECLARE_KEYS", "true")),
        start(Tollgate::builder().arg("--redis").arg(&keyless[0].addr().to_string())),
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
