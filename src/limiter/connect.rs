//! A connection to Redis is made: it is one only once a script has run on it.

use super::Remote;
use super::diagnosis::{self, Kind, Problem};
use super::probe;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::script::Run;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A connection on which the scripts run.
pub(super) async fn open_and_probe(remote: &Remote) -> Result<Connection, Problem> {
    let link = probe(remote).await.inspect_err(|problem| remote.dialer.bar(problem.kind == Kind::Tollgate))?;
    remote.dialer.bar(false);
    Ok(link)
}

async fn probe(remote: &Remote) -> Result<Connection, Problem> {
    let late = |_| Err(diagnosis::of(&Error::late(), remote.about()));
    let begun = Instant::now();
    let link = Connection::dial(&remote.dialer, remote.connect_timeout).await;
    let mut link = link.map_err(|error| diagnosis::of(&error, remote.about()))?;
    let left = remote.connect_timeout.saturating_sub(begun.elapsed());
    let outcome = timeout(left, probe::examine(remote, &mut link, &mut |_, _| {})).await.unwrap_or_else(late);
    remote.dialer.note(link.peer_addr(), outcome.is_ok());
    outcome.map(|()| link)
}

pub(super) async fn run(link: &mut Connection, run: Run<'_>, within: Duration) -> Result<Reply, Error> {
    let attempt = async {
        run.write(link.output(), false);
        match link.reply().await {
            Err(error) if error.has_code("NOSCRIPT") => {
                run.write(link.output(), true);
                link.reply().await
            }
            outcome => outcome,
        }
    };
    timeout(within, attempt).await.unwrap_or_else(|_| Err(Error::late()))
}
