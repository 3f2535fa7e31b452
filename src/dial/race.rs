//! Tries the addresses of one host, each a little after the one before, and takes the first that works, so that one
//! which is silent costs that little and not all the time there is. After "Happy Eyeballs", RFC 8305.
//!
//! ```text
//!   first     ├──────────────────── silent ─ ─ ─
//!   second    .  stagger ├── refused
//!   third     .                     ├────── connected
//! ```

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Most attempts in flight at once. With more silent addresses than these, those behind are not reached.
const MAX_UNDER_WAY: usize = 8;
/// Longest time between the beginnings of two attempts, unless one fails before.
const MAX_STAGGER: Duration = Duration::from_millis(250);

/// What the first `attempt` at an address that works comes to. The others are dropped then.
///
/// # Errors
/// All attempts failed: the error that says most. Or there is no address.
pub async fn race<T>(
    addresses: &[SocketAddr],
    stagger: Duration,
    attempt: impl AsyncFn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut waiting = addresses.iter();
    let mut under_way = Vec::new();
    let mut failure: Option<io::Error> = None;
    let mut next = pin!(sleep(Duration::ZERO));
    std::future::poll_fn(|cx| {
        loop {
            let mut is_due = under_way.is_empty();
            let mut at = 0;
            while let Some(attempt) = under_way.get_mut(at) {
                match Future::poll(Pin::as_mut(attempt), cx) {
                    Poll::Ready(Ok(winner)) => return Poll::Ready(Ok(winner)),
                    Poll::Ready(Err(error)) => {
                        drop(under_way.remove(at));
                        is_due = true;
                        failure = failure.take().filter(|before| !says_little(before)).or(Some(error));
                    }
                    Poll::Pending => at += 1,
                }
            }
            is_due |= next.as_mut().poll(cx).is_ready();
            match waiting.as_slice() {
                [] if under_way.is_empty() => return Poll::Ready(Err(failure.take().unwrap_or_else(no_address))),
                [address, ..] if is_due && under_way.len() < MAX_UNDER_WAY => {
                    under_way.push(Box::pin(attempt(*address)));
                    waiting.next();
                    next.as_mut().reset(Instant::now() + stagger);
                }
                _ => return Poll::Pending,
            }
        }
    })
    .await
}

/// The time between two attempts that leaves each of `count` addresses a share of `timeout`, the last one two.
pub fn stagger(timeout: Duration, count: usize) -> Duration {
    let shares = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    (timeout / shares).min(MAX_STAGGER)
}

/// The order in which to try addresses: that of the system, but one of each family in turn, as a whole family may lead
/// nowhere; before all the one that worked last, behind all the one that did not.
pub fn arrange(addresses: Vec<SocketAddr>, good: Option<SocketAddr>, bad: Option<SocketAddr>) -> Vec<SocketAddr> {
    let is_of_first =
        |address: &SocketAddr| addresses.first().is_some_and(|first| first.is_ipv4() == address.is_ipv4());
    let (ones, others): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_of_first);
    let mut arranged = Vec::with_capacity(addresses.len());
    let (mut ones, mut others) = (ones.into_iter(), others.into_iter());
    while ones.len() + others.len() > 0 {
        arranged.extend(ones.next());
        arranged.extend(others.next());
    }
    arranged.sort_by_key(|address| match Some(*address) {
        address if address == bad => 2,
        address if address == good => 0,
        _ => 1,
    });
    arranged
}

/// Whether another error would say more: nobody at one of the addresses is the usual case.
fn says_little(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | NotFound)
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::future::pending;

    const STAGGER: Duration = Duration::from_millis(20);

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Races addresses of which the port says what they do: 1 is silent, 2 refuses, 3 has a bad certificate, any other
    /// works. Returns the winner, or the error, and which were tried.
    fn run(ports: &[u16]) -> (Result<u16, io::ErrorKind>, Vec<u16>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let tried = RefCell::new(Vec::new());
        let addresses: Vec<_> = ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        let outcome = runtime.block_on(race(&addresses, STAGGER, async |address| {
            tried.borrow_mut().push(address.port());
            match address.port() {
                1 => pending().await,
                2 => Err(io::ErrorKind::ConnectionRefused.into()),
                3 => Err(io::ErrorKind::InvalidData.into()),
                port => Ok(port),
            }
        }));
        (outcome.map_err(|error| error.kind()), tried.into_inner())
    }

    #[test]
    fn the_first_that_works_wins_and_those_behind_are_left_alone() {
        assert_eq!(run(&[7, 8]), (Ok(7), vec![7]));
        assert_eq!(run(&[1, 7, 8]), (Ok(7), vec![1, 7]));
        assert_eq!(run(&[2, 2, 7, 8]), (Ok(7), vec![2, 2, 7]));
        assert_eq!(run(&[1, 2, 1, 7]), (Ok(7), vec![1, 2, 1, 7]));
        assert_eq!(run(&[2, 3, 2]), (Err(io::ErrorKind::InvalidData), vec![2, 3, 2]));
        assert_eq!(run(&[]), (Err(io::ErrorKind::NotFound), vec![]));
    }

    #[test]
    fn a_silent_address_costs_the_stagger_and_a_refusal_nothing() {
        let start = Instant::now();
        assert_eq!(run(&[2, 2, 2, 7]).0, Ok(7));
        assert!(start.elapsed() < STAGGER, "{:?}", start.elapsed());
        assert_eq!(run(&[1, 1, 7]).0, Ok(7));
        assert!(start.elapsed() >= 2 * STAGGER, "{:?}", start.elapsed());
    }

    #[test]
    fn attempts_under_way_are_bounded() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let tried = RefCell::new(0);
        let addresses = vec![addr("127.0.0.1:1"); 3 * MAX_UNDER_WAY];
        let silent = race(&addresses, Duration::ZERO, async |_| {
            *tried.borrow_mut() += 1;
            pending::<io::Result<()>>().await
        });
        let within = Duration::from_millis(50);
        assert!(runtime.block_on(async { tokio::time::timeout(within, silent).await }).is_err());
        assert_eq!(tried.into_inner(), MAX_UNDER_WAY);
    }

    #[test]
    fn each_address_has_its_time() {
        let ms = Duration::from_millis;
        assert_eq!(stagger(ms(1000), 1), ms(250));
        assert_eq!(stagger(ms(1000), 2), ms(250));
        assert_eq!(stagger(ms(1000), 9), ms(100));
        assert_eq!(stagger(ms(30), 2), ms(10));
    }

    #[test]
    fn families_take_turns_and_experience_counts() {
        let arranged = |texts: &[&str], good: Option<&str>, bad: Option<&str>| {
            let addresses = texts.iter().map(|text| addr(text)).collect();
            let arranged = arrange(addresses, good.map(addr), bad.map(addr));
            arranged.iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };
        let all = ["[::1]:1", "[::2]:1", "1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"];
        let in_turn = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "1.1.1.3:1"];
        assert_eq!(arranged(&all, None, None), in_turn);
        assert_eq!(arranged(&all, Some("1.1.1.2:1"), None)[..2], ["1.1.1.2:1", "[::1]:1"]);
        assert_eq!(arranged(&all, Some("[::1]:1"), Some("[::1]:1"))[4], "[::1]:1");
        assert_eq!(arranged(&all, Some("9.9.9.9:1"), Some("9.9.9.8:1")), in_turn);
        assert!(arranged(&[], None, None).is_empty());
    }
}
