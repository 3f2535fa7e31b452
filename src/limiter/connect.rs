//! A connection to Redis is made: it is one only once a script has run on it and nothing is owed to Redis.

use super::Remote;
use super::batcher::Batcher;
use super::pipeline::MAX_RECORDS;
use crate::clock::now_us;
use crate::store::batch::Batch;
use crate::store::connection::{Connection, Error, Reply};
use crate::store::redis::Answers;
use crate::store::script::Run;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::warn;

/// A connection on which the scripts run and to which nothing is owed.
pub(super) async fn open_and_probe(batcher: &Batcher, remote: &Remote) -> Result<Connection, Error> {
    let begun = Instant::now();
    let mut link = Connection::dial(&remote.dialer, remote.connect_timeout).await?;
    let left = remote.connect_timeout.saturating_sub(begun.elapsed());
    let outcome = timeout(left, probe(remote, &mut link)).await.unwrap_or_else(|_| Err(Error::late()));
    remote.dialer.note(link.peer_addr(), outcome.is_ok());
    outcome?;
    write_back(batcher, remote, &mut link).await?;
    Ok(link)
}

async fn probe(remote: &Remote, link: &mut Connection) -> Result<(), Error> {
    link.log_in(&remote.dialer).await?;
    for script in remote.store.scripts() {
        // Where that is not allowed, each is sent with the first job that needs it.
        let _ = link.call(&[&b"SCRIPT"[..], b"LOAD", script.source.as_bytes()]).await;
    }
    // A script is what has to work: a Redis that is loading or busy, or asks for a password, says so here. And in time:
    // a Redis that answers only after the deadline would close the breaker for nothing.
    let (nothing, sent_us) = (Batch::default(), now_us());
    let reply = run(link, remote.store.check(&nothing, ""), Duration::from_micros(remote.timeout_us)).await?;
    remote.note_clock(Answers::read(reply, 0)?.redis_now_us, sent_us);
    if let Ok(Reply::Text(text)) = link.call(&[&b"INFO"[..], b"server"]).await {
        let text = String::from_utf8_lossy(&text);
        let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"));
        remote.lock_known().version = version.map(|version| version.trim().to_owned());
    }
    Ok(())
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

async fn run(link: &mut Connection, run: Run<'_>, within: Duration) -> Result<Reply, Error> {
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
