//! A connection to Redis is made: it is one only once a script has run on it and nothing is owed to Redis.

use super::Remote;
use super::batcher::Batcher;
use super::diagnosis::{self, Kind, Problem};
use super::pipeline::MAX_RECORDS;
use super::probe;
use crate::clock::now_us;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::script::Run;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::warn;

/// A connection on which the scripts run and to which nothing is owed.
pub(super) async fn open_and_probe(batcher: &Batcher, remote: &Remote) -> Result<Connection, Problem> {
    let diagnose = |error: Error| diagnosis::of(&error, remote.about());
    let mut link = probe(remote).await.inspect_err(|problem| remote.dialer.bar(problem.kind == Kind::Tollgate))?;
    remote.dialer.bar(false);
    write_back(batcher, remote, &mut link).await.map_err(diagnose)?;
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

async fn write_back(batcher: &Batcher, remote: &Remote, link: &mut Connection) -> Result<(), Error> {
    loop {
        let records = remote.ledger.take(MAX_RECORDS, now_us());
        if records.is_empty() {
            return Ok(());
        }
        let write = remote.store.record(&records, remote.clock_offset_us());
        match run(link, write, remote.connect_timeout).await {
            Ok(_) => batcher.stats.written_back.add(records.len() as u64),
            Err(error) if error.has_code("ERR") => warn_of_loss(&error, records.len()),
            Err(error) => {
                remote.ledger.give_back(records);
                return Err(error);
            }
        }
    }
}

/// Redis does not take some records, by no state of its own but because of what they are: offered again they would keep
/// it away for ever.
pub(super) fn warn_of_loss(error: &Error, records: usize) {
    warn!(%error, records, "what the fallback admitted cannot be written to redis");
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
