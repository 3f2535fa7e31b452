//! As many overrides as may be.

use super::{PATIENCE, SOON, brief, error, info, ok, order, wait_until};
use crate::common::{RedisServer, Reply, Tollgate};
use std::fmt::Write;
use std::time::Instant;

const OVERRIDES: usize = 100_000;

#[test]
fn a_hundred_thousand_overrides_are_set_read_and_changed() {
    let redis = RedisServer::start();
    let tollgates: [_; 2] = std::array::from_fn(|_| Tollgate::before(&redis));
    let mut client = tollgates[0].client();
    order(&mut client, "RL.POLICY SET api 5 1h");
    let before = tollgates[0].resident_bytes();
    let begun = Instant::now();
    for first in (0..OVERRIDES).step_by(1000) {
        let mut lines = String::new();
        for number in first..first + 1000 {
            write!(lines, "RL.OVERRIDE SET api user:{number} 1000 1s\r\n").unwrap();
        }
        client.send(lines.as_bytes());
        (0..1000).for_each(|_| assert_eq!(client.read(), ok()));
    }
    eprintln!("set in {:?}", begun.elapsed());
    let Reply::Error(text) = client.line("RL.OVERRIDE SET api one:more off") else { panic!("there was room") };
    assert_eq!(text, "ERR there are 100000 overrides, which is as many as may be");
    order(&mut client, "RL.OVERRIDE SET api user:7 6 1h");
    let grown = tollgates[0].resident_bytes().saturating_sub(before);
    eprintln!("{} bytes each", grown / OVERRIDES as u64);
    assert!(grown < 100 << 20, "{grown}");

    // One is changed in far less than a second, on both.
    wait_until(PATIENCE, || info(&tollgates[1], "policy_overrides") == "100000");
    let mut other = tollgates[1].client();
    let begun = Instant::now();
    order(&mut client, "RL.OVERRIDE SET api user:99999 7 1h");
    wait_until(SOON, || brief(&mut other, "RL.PEEK user:99999 api").1 == 7);
    eprintln!("changed in {:?}", begun.elapsed());

    // Who starts now reads all of them before he answers.
    let begun = Instant::now();
    let third = Tollgate::before(&redis);
    assert_eq!(brief(&mut third.client(), "RL.PEEK user:99999 api").1, 7);
    eprintln!("read in {:?}", begun.elapsed());
    assert_eq!(info(&third, "policy_overrides"), "100000");

    // They go with their policy.
    assert_eq!(client.line("RL.POLICY DEL api"), Reply::Integer(1));
    assert_eq!(redis.command("HLEN rl:policies"), Reply::Integer(1));
    assert_eq!(other.line("RL.POLICY GET api"), error("ERR no such policy 'api'"));
}
