//! Sentinels: that those of the tests do what the tests rely on.

use crate::common::{RawClient, Sentinels};

#[test]
fn a_primary_that_is_gone_is_replaced_and_follows_when_it_is_back() {
    let mut group = Sentinels::start();
    assert_eq!(group.primary(), Some(0));
    group.stop_sentinel(1);
    group.kill(0);
    let second = group.wait_until_replaced(0);
    group.cont_sentinel(1);
    group.start_again(0);
    group.wait_until_agreed();
    assert_eq!(group.primary(), Some(second));
}

#[test]
fn a_primary_that_was_replaced_by_command_goes_on_for_a_while() {
    let group = Sentinels::start();
    assert_ne!(group.failover(), 0);
    assert_eq!(group.server(0).command("ROLE").items()[0].text(), "master", "nobody has told it yet");
}

#[test]
fn sentinels_may_ask_for_a_password() {
    let mut group = Sentinels::start();
    group.set_password("s3cret");
    let refused = RawClient::connect(group.addrs()[0]).line("SENTINEL get-master-addr-by-name main");
    assert!(refused.text().starts_with("NOAUTH"), "{refused:?}");
    let reachable = group.sentinel(0).line(&format!("SENTINEL ckquorum {}", group.name()));
    assert!(reachable.text().starts_with("OK 3 usable Sentinels"), "{reachable:?}");
}
