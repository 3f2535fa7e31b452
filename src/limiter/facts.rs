//! What INFO tells of the server at Redis's address: whether it can hold the logs, and whether it is a Tollgate.

use super::diagnosis::{AUTO, CLUSTER, Kind, Problem, leads_here};
use super::nodes;

/// The oldest Redis with all the commands that are needed.
const OLDEST_VERSION: (u32, u32) = (6, 2);
/// Most Tollgates between this one and a Redis.
const MAX_CHAIN: usize = 4;
/// What a chain of Tollgates ends in.
const REDIS: &str = "redis";

/// A field of INFO.
pub fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// What a server is, if it is none that stands alone.
pub fn kind(info: &str) -> Option<nodes::Kind> {
    let is = |name, value| field(info, name) == Some(value);
    match field(info, "redis_mode") {
        Some("sentinel") => Some(nodes::Kind::Sentinel),
        Some("cluster") => Some(nodes::Kind::Cluster),
        _ => is("cluster_enabled", "1").then_some(nodes::Kind::Cluster),
    }
}

/// What such a server is called.
pub fn name_of(kind: nodes::Kind) -> &'static str {
    match kind {
        nodes::Kind::Single => "a Redis",
        nodes::Kind::Sentinel => "a sentinel",
        nodes::Kind::Cluster => "a node of a cluster",
    }
}

/// What is wrong with the server of which this is the INFO, if it serves all the same.
///
/// # Errors
/// What makes it no Redis for Tollgate.
pub fn judge(info: &str, taken_for: nodes::Kind) -> Result<Vec<Problem>, Problem> {
    let is = |name, value| field(info, name) == Some(value);
    let setup = |what: &str, advice: &str| Err(Problem::new(Kind::Setup, what, advice));
    match kind(info) {
        Some(nodes::Kind::Sentinel) => return setup("it is a Sentinel, which keeps no data", AUTO),
        Some(nodes::Kind::Cluster) if taken_for != nodes::Kind::Cluster => return setup(CLUSTER, AUTO),
        _ => {}
    }
    if let Some(version) = field(info, "redis_version").filter(|version| is_too_old(version)) {
        return setup(&format!("Redis {version} is too old"), "Redis 6.2 or later is needed");
    }
    let mut warnings = Vec::new();
    if is("role", "slave") {
        let (host, port) =
            (field(info, "master_host").unwrap_or_default(), field(info, "master_port").unwrap_or_default());
        let primary = format!("have redis.addr lead to the primary, {host}:{port}");
        if taken_for != nodes::Kind::Single {
            return Err(Problem::new(Kind::Outage, "it is a replica, and another may be the primary now", ""));
        }
        if is("slave_read_only", "1") {
            return setup("it is a replica, which takes no writes", &primary);
        }
        let what = "it is a replica that takes writes: the primary overwrites them";
        warnings.push(Problem::new(Kind::Warning, what, primary));
    }
    if let Some(policy) = field(info, "maxmemory_policy").filter(|policy| *policy != "noeviction")
        && !is("maxmemory", "0")
    {
        warnings.push(Problem::new(
            Kind::Warning,
            format!("Redis may forget what was counted: its maxmemory-policy is {policy}"),
            "set maxmemory-policy to noeviction",
        ));
    }
    Ok(warnings)
}

fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse().ok());
    matches!((parts.next(), parts.next()), (Some(major), Some(minor)) if (major, minor) < OLDEST_VERSION)
}

/// The run ids of the Tollgates from this one, `own_id`, to a Redis, by what the next of them says of itself, and then
/// `redis`: `redis` alone if the next is no Tollgate.
///
/// A Tollgate counts only once its own chain is known. So in a ring, however long, none is the first to count.
///
/// # Errors
/// There is no Redis at the end, or there is no end.
pub fn chain(info: &str, own_id: &str) -> Result<String, Problem> {
    let to_redis = "have redis.addr lead to the Redis, not to a Tollgate";
    let refused = |what: &str| Err(Problem::new(Kind::Tollgate, what, to_redis));
    if field(info, "tollgate_version").is_none() {
        return Ok(REDIS.to_owned());
    }
    let id = field(info, "tollgate_run_id").unwrap_or_default();
    if id == own_id {
        return Err(leads_here());
    }
    if field(info, "store") == Some("embedded") {
        return refused("it is another Tollgate with --embedded, which has no Redis for others");
    }
    let behind = field(info, "store_chain").unwrap_or_default();
    let ids: Vec<&str> = [id].into_iter().chain(behind.split(',')).collect();
    if ids.contains(&own_id) {
        return refused("it is another Tollgate, whose Redis in turn is this one");
    }
    let is_id = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if ids.last() != Some(&REDIS) || !ids.iter().all(is_id) {
        return refused("it is another Tollgate, which has no Redis itself");
    }
    if ids.len() > MAX_CHAIN + 1 {
        return refused("it is another Tollgate, with too many of them before Redis");
    }
    Ok(ids.join(","))
}

/// What is to be said of such a chain.
pub fn warning_of(chain: &str) -> Option<Problem> {
    (chain != REDIS).then(|| {
        Problem::new(
            Kind::Warning,
            "redis.addr leads to another Tollgate, and only by it to Redis",
            "have it lead to the Redis: Tollgates that share a Redis share its limits",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "redis_version:7.0.15\r\nredis_mode:standalone\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n\
         role:master\r\ncluster_enabled:0\r\n";

    #[test]
    fn a_server_is_judged_by_what_it_says_of_itself() {
        let table = [
            ("", "", Ok(0)),
            ("redis_mode:standalone", "redis_mode:sentinel", Err("it is a Sentinel, which keeps no data")),
            ("redis_mode:standalone", "redis_mode:cluster", Err(CLUSTER)),
            ("cluster_enabled:0", "cluster_enabled:1", Err(CLUSTER)),
            ("7.0.15", "6.0.16", Err("Redis 6.0.16 is too old")),
            ("7.0.15", "6.2.0", Ok(0)),
            ("7.0.15", "10.1", Ok(0)),
            ("7.0.15", "v=unknown", Ok(0)),
            ("role:master", "role:slave\r\nslave_read_only:1", Err("it is a replica, which takes no writes")),
            ("role:master", "role:slave\r\nslave_read_only:0", Ok(1)),
            ("noeviction", "allkeys-lru", Ok(0)),
            ("maxmemory:0\r\nmaxmemory_policy:noeviction", "maxmemory:1\r\nmaxmemory_policy:volatile-ttl", Ok(1)),
        ];
        for (from, to, expected) in table {
            let outcome = judge(&FINE.replace(from, to), nodes::Kind::Single);
            let outcome = outcome.map(|warnings| warnings.len()).map_err(|problem| problem.what);
            assert_eq!(outcome, expected.map_err(str::to_owned), "{to}");
        }
        assert_eq!(judge("", nodes::Kind::Single).unwrap(), []);
    }

    #[test]
    fn a_replica_is_told_with_its_primary() {
        let info = "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nslave_read_only:1\r\n";
        assert_eq!(
            judge(info, nodes::Kind::Single).unwrap_err().advice,
            "have redis.addr lead to the primary, 10.0.0.1:6379"
        );
    }

    #[test]
    fn a_chain_ends_in_a_redis_or_does_not_count() {
        let info =
            |id: &str, chain: &str| format!("tollgate_version:1\r\ntollgate_run_id:{id}\r\nstore_chain:{chain}\r\n");
        assert_eq!(chain("redis_version:7.0.15\r\n", "a").unwrap(), "redis");
        assert_eq!(chain("", "a").unwrap(), "redis");
        assert_eq!(chain(&info("b", "redis"), "a").unwrap(), "b,redis");
        assert_eq!(chain(&info("b", "c,redis"), "a").unwrap(), "b,c,redis");
        let leads_here = "redis.addr leads to this Tollgate itself";
        let ring = "it is another Tollgate, whose Redis in turn is this one";
        let nothing = "it is another Tollgate, which has no Redis itself";
        for (id, behind, what) in [
            ("a", "", leads_here),
            ("a", "redis", leads_here),
            ("b", "", nothing),
            ("b", "c", nothing),
            ("b", "c,", nothing),
            ("b", "<c>,redis", nothing),
            ("", "redis", nothing),
            ("b", "c,a,redis", ring),
            ("b", "c,d,e,f,redis", "it is another Tollgate, with too many of them before Redis"),
        ] {
            assert_eq!(chain(&info(id, behind), "a").unwrap_err().what, what, "{id} {behind}");
        }
        let embedded = "tollgate_version:1\r\ntollgate_run_id:b\r\nstore:embedded\r\n";
        assert!(chain(embedded, "a").unwrap_err().what.contains("--embedded"));
        assert!(warning_of("redis").is_none() && warning_of("b,redis").is_some());
    }
}
