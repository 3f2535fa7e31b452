//! Sentinels: that those of the tests do what the tests rely on, and that the primary is found by them.

mod through;

use crate::common::{Proxy, RawClient, Reply, Sentinels, Tollgate, Weather, encode, host_port, resolve};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;
use tollgate::topology::conversation::Login;
use tollgate::topology::source::{SentinelSource, Source};

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

/// Asks where the primary is, as a user of the sentinels with this password.
struct Asker {
    source: Source,
}

impl Asker {
    fn new(sentinels: &[SocketAddr], name: &str, password: Option<&str>) -> Self {
        let login = Login { user: None, password: password.map(str::to_owned) };
        let sentinels = sentinels.iter().map(host_port).collect();
        let source = SentinelSource::new(sentinels, name.to_owned(), login, Login::default());
        Self { source: Source::Sentinel(source) }
    }

    /// The primary's port and the epoch, or the error's text.
    fn ask(&mut self) -> Result<(u16, u64), String> {
        let found = resolve(&mut self.source).map_err(|error| error.to_string())?;
        let slots = found.slots.expect("a primary");
        Ok((slots.nodes()[0].addr.port, found.epoch))
    }

    fn known(&self) -> usize {
        let Source::Sentinel(source) = &self.source else { unreachable!() };
        source.sentinels().len()
    }
}

#[test]
fn any_sentinel_leads_to_the_primary_and_to_the_others() {
    let mut group = Sentinels::start();
    let primary = group.server(0).port();
    let mut asker = Asker::new(&group.addrs()[..1], group.name(), None);
    assert_eq!(asker.ask(), Ok((primary, 1)));
    assert_eq!(asker.known(), 3);
    assert_eq!(asker.ask(), Ok((primary, 1)), "nothing has changed");
    // The one that was configured may go.
    group.stop_sentinel(0);
    assert_eq!(asker.ask(), Ok((primary, 1)));
    let second = group.failover();
    assert_eq!(asker.ask(), Ok((group.server(second).port(), 2)));
    let unknown = Asker::new(&group.addrs()[1..], "other", None).ask().unwrap_err();
    assert!(unknown.ends_with(": a sentinel that watches nothing by the name 'other'"), "{unknown}");
}

/// A sentinel that was cut off, and is reachable again, names the primary that it knew: for as long as it takes it to
/// hear of the new one, which may still be written to by those who believe it.
#[test]
fn a_sentinel_that_knows_the_last_primary_only_is_not_believed() {
    let mut group = Sentinels::start();
    let first = group.server(0).port();
    let liar = Liar::start("127.0.0.1", first, 0);
    // The others answer later.
    let proxies: Vec<_> = group.addrs().into_iter().map(Proxy::before).collect();
    proxies.iter().for_each(|proxy| proxy.set_weather(Weather::Slow(Duration::from_millis(20))));
    let addrs: Vec<_> = [liar.addr()].into_iter().chain(proxies.iter().map(Proxy::addr)).collect();
    let second = group.failover();
    let mut asker = Asker::new(&addrs, group.name(), None);
    assert_eq!(asker.ask(), Ok((group.server(second).port(), 1)), "although the first still says that it is a primary");

    // Alone it is believed, but only by who knows no better.
    (0..3).for_each(|sentinel| group.stop_sentinel(sentinel));
    assert_eq!(asker.ask(), Ok((group.server(second).port(), 1)));
    assert_eq!(Asker::new(&addrs[..1], group.name(), None).ask(), Ok((first, 1)));
}

#[test]
fn what_is_named_must_be_a_primary() {
    let group = Sentinels::start();
    let liar = Liar::start("127.0.0.1", group.server(1).port(), 99);
    let refused = Asker::new(&[liar.addr()], group.name(), None).ask().unwrap_err();
    assert_eq!(refused, format!("{}: the sentinels name it, but it is no primary", group.server(1).addr()));
}

#[test]
fn sentinels_with_a_password_of_their_own_are_asked_with_it() {
    let mut group = Sentinels::start();
    group.set_password("s3cret");
    let asked = |password| Asker::new(&group.addrs(), group.name(), password).ask();
    assert_eq!(asked(Some("s3cret")), Ok((group.server(0).port(), 1)));
    assert!(asked(None).unwrap_err().contains(": NOAUTH "));
    let refused = asked(Some("wr0ng")).unwrap_err();
    assert!(refused.contains(": WRONGPASS ") && !refused.contains("wr0ng"), "{refused}");
}

/// Answers as a sentinel that names this as the primary since this epoch, and knows no other sentinels.
struct Liar {
    addr: SocketAddr,
}

impl Liar {
    fn start(host: &'static str, port: u16, epoch: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let port = port.to_string();
        let named = String::from_utf8(encode(&[host, &port])).unwrap();
        let known = String::from_utf8(encode(&["config-epoch", &epoch.to_string()])).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                // Three questions come as one.
                while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line.ends_with("sentinels\r\n") {
                        let _ = stream.get_mut().write_all(format!("{named}{known}*0\r\n").as_bytes());
                    }
                }
            }
        });
        Self { addr }
    }

    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// It went to where the primary was yet to be asked for, and was answered as in an outage after a second.
#[test]
fn a_command_that_comes_before_the_primary_is_found_waits_for_it() {
    let sentinels = Sentinels::start();
    let seeds: Vec<String> = sentinels.addrs().iter().map(SocketAddr::to_string).collect();
    let url = format!("redis+sentinel://{}/{}", seeds.join(","), sentinels.name());
    for _ in 0..5 {
        let tollgate = Tollgate::builder().arg("--redis").arg(&url).start();
        assert_eq!(tollgate.client().line("SET k 1"), Reply::Status("OK".into()));
    }
}
