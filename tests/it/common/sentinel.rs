//! A private primary with replicas, and the sentinels that watch it.

use super::{RawClient, RedisServer, Reply, wait_until};
use std::net::SocketAddr;
use std::time::Duration;

/// What the sentinels know the primary by.
const NAME: &str = "main";
/// Sentinels, of which [`QUORUM`] have to find the primary down.
const SENTINELS: usize = 3;
const QUORUM: usize = 2;
const REPLICAS: usize = 2;
/// How long the primary is silent before a sentinel takes it to be down.
const DOWN_AFTER_MS: u32 = 500;
/// After so long a failover that came to nothing is tried again.
const FAILOVER_TIMEOUT_MS: u32 = 3000;
/// Longer than the group takes to agree on anything.
const AGREEMENT: Duration = Duration::from_secs(40);

/// A primary, two replicas and three sentinels on free ports. The servers keep their numbers, whoever is the primary:
/// at first that is 0.
pub struct Sentinels {
    servers: Vec<Member>,
    sentinels: Vec<Member>,
}

struct Member {
    server: RedisServer,
    /// Neither killed nor stopped.
    is_up: bool,
    /// Asked for by a sentinel since [`Sentinels::set_password`].
    password: Option<String>,
}

impl Sentinels {
    pub fn start() -> Self {
        let primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
        let port = primary.port().to_string();
        let start_replica = |_| {
            let options = ["--replicaof", "127.0.0.1", &port, "--repl-ping-replica-period", "1"];
            RedisServer::start_with(&[&options[..], &["--repl-diskless-sync-delay", "0"]].concat())
        };
        let replicas: Vec<_> = (0..REPLICAS).map(start_replica).collect();
        // A sentinel asks for them when it begins, and then not for ten seconds.
        wait_until(AGREEMENT, || primary.command("ROLE").items()[2].items().len() == REPLICAS);
        let config = format!(
            "sentinel monitor {NAME} 127.0.0.1 {port} {QUORUM}\n\
             sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}\n\
             sentinel parallel-syncs {NAME} {REPLICAS}\n"
        );
        let start_sentinel = |_| RedisServer::start_by(Some(&config), || vec!["--sentinel".to_owned()]);
        let sentinels = (0..SENTINELS).map(start_sentinel).map(Member::new).collect();
        let servers = [primary].into_iter().chain(replicas).map(Member::new).collect();
        let group = Self { servers, sentinels };
        group.wait_until_agreed();
        group
    }

    /// The name of the primary.
    pub fn name(&self) -> &'static str {
        NAME
    }

    pub fn server(&self, number: usize) -> &RedisServer {
        &self.servers[number].server
    }

    /// Where the sentinels are.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(|sentinel| sentinel.server.addr()).collect()
    }

    /// The address of the primary, by all sentinels.
    pub fn url(&self) -> String {
        let sentinels: Vec<_> = self.addrs().iter().map(ToString::to_string).collect();
        format!("redis+sentinel://{}/{NAME}", sentinels.join(","))
    }

    /// A connection to a sentinel, logged in if need be.
    pub fn sentinel(&self, number: usize) -> RawClient {
        let sentinel = &self.sentinels[number];
        let mut client = sentinel.server.client();
        if let Some(password) = &sentinel.password {
            assert_eq!(client.cmd(&["AUTH", password]), ok());
        }
        client
    }

    /// Ends a server at once, as a crash would.
    pub fn kill(&mut self, number: usize) {
        self.servers[number].is_up = false;
        self.servers[number].server.kill();
    }

    /// Starts a server again that was killed, empty.
    pub fn start_again(&mut self, number: usize) {
        self.servers[number].server.start_again();
        self.servers[number].is_up = true;
    }

    /// Has a sentinel replace the primary, and waits until all sentinels know by whom. Its number. The old one, which
    /// nobody tells, goes on as a primary for ten seconds.
    pub fn failover(&self) -> usize {
        let before = self.primary().expect("the sentinels agree");
        let asked = self.up().next().unwrap();
        assert_eq!(self.sentinel(asked).line(&format!("SENTINEL failover {NAME}")), ok());
        self.wait_until_replaced(before)
    }

    /// Waits until another server than `before` is the primary, and all sentinels know. Its number.
    pub fn wait_until_replaced(&self, before: usize) -> usize {
        let mut primary = None;
        wait_until(AGREEMENT, || {
            primary = self.primary().filter(|primary| *primary != before);
            primary.is_some()
        });
        primary.expect("one was found")
    }

    /// Makes a sentinel hang: it hears of nothing, and answers nobody.
    pub fn stop_sentinel(&mut self, number: usize) {
        self.sentinels[number].is_up = false;
        self.sentinels[number].server.stop();
    }

    /// Ends a [`Sentinels::stop_sentinel`].
    pub fn cont_sentinel(&mut self, number: usize) {
        self.sentinels[number].server.cont();
        self.sentinels[number].is_up = true;
    }

    /// From now on all sentinels ask for a password, and give it to each other.
    pub fn set_password(&mut self, password: &str) {
        for number in 0..SENTINELS {
            let mut client = self.sentinel(number);
            client.line(&format!("SENTINEL CONFIG SET sentinel-pass {password}"));
            assert_eq!(client.line(&format!("ACL SETUSER default resetpass >{password}")), ok());
            self.sentinels[number].password = Some(password.to_owned());
        }
        self.wait_until_agreed();
    }

    /// The number of the primary, if the sentinels that are up name the same one and are done with replacing the one
    /// before, and it agrees.
    pub fn primary(&self) -> Option<usize> {
        let named = |sentinel| {
            let answer = self.view(sentinel);
            let port: u16 = answer.field("port").text().parse().unwrap();
            let number = self.servers.iter().position(|server| server.server.port() == port);
            // Else it is down, or being replaced.
            let is_settled = answer.field("flags").text() == "master";
            number.filter(|_| is_settled)
        };
        let mut all_named = self.up().map(named);
        let first = all_named.next()??;
        let is_primary = |number: usize| self.server(number).command("ROLE").items()[0].text() == "master";
        let is_agreed = all_named.all(|other| other == Some(first));
        (is_agreed && self.servers[first].is_up && is_primary(first)).then_some(first)
    }

    fn view(&self, sentinel: usize) -> Reply {
        self.sentinel(sentinel).line(&format!("SENTINEL master {NAME}"))
    }

    /// Waits until all sentinels that are up name the same primary and are in touch with each other and know of the
    /// replicas, and all servers that are up follow that primary.
    #[track_caller]
    pub fn wait_until_agreed(&self) {
        let usable = format!("OK {} usable Sentinels", self.up().count());
        let know_all = |sentinel| {
            let quorum = self.sentinel(sentinel).line(&format!("SENTINEL ckquorum {NAME}")).text();
            quorum.starts_with(&usable) && self.view(sentinel).field("num-slaves").text() == REPLICAS.to_string()
        };
        wait_until(AGREEMENT, || {
            let Some(primary) = self.primary() else { return false };
            let followers = self.server(primary).command("ROLE").items()[2].items().len();
            followers + 1 == self.servers.iter().filter(|server| server.is_up).count() && self.up().all(know_all)
        });
    }

    fn up(&self) -> impl Iterator<Item = usize> {
        (0..SENTINELS).filter(|number| self.sentinels[*number].is_up)
    }
}

impl Member {
    fn new(server: RedisServer) -> Self {
        Self { server, is_up: true, password: None }
    }
}

fn ok() -> Reply {
    Reply::Status("OK".to_owned())
}
