//! Hears of resets on every proxy that shares the Redis, so that no denial cached here outlives one.

use super::{Remote, needs};
use crate::clock::now_us;
use crate::store::connection::{Connection, Error, Reply};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::timeout;
use tracing::debug;

/// Wait before subscribing again. Meanwhile denials are not cached, which costs speed only.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Silence after which the connection is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(1);

/// Listens for as long as it is polled.
pub async fn listen(remote: &Remote) {
    let mut is_up = remote.is_up.subscribe();
    loop {
        // While Redis is not asked no denial is kept that a reset could end; and what is there may be no Redis.
        let _ = is_up.wait_for(|is_up| *is_up).await;
        if let Err(error) = subscribe(remote).await {
            debug!(%error, "cannot hear of resets");
            let is_right = error.has_code("NOPERM");
            let lacks = || needs::lacks("+subscribe", &error.to_string(), needs::DEAFNESS, remote.about());
            remote.on_deafness(is_right.then(lacks));
        }
        remote.hears_resets.store(false, Relaxed);
        remote.deny_cache.clear(now_us());
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Returns once the subscription is lost.
async fn subscribe(remote: &Remote) -> Result<(), Error> {
    let mut link = Connection::open(&remote.dialer, remote.connect_timeout).await?;
    let channel = remote.store.reset_channel();
    let words = [&b"SUBSCRIBE"[..], &channel];
    let subscribed = timeout(remote.connect_timeout, link.call(&words)).await;
    subscribed.unwrap_or_else(|_| Err(Error::late()))?;
    remote.on_deafness(None);
    remote.hears_resets.store(true, Relaxed);
    let mut is_pinged = false;
    loop {
        match timeout(PING_AFTER, link.reply()).await {
            // That a user may not ask is a sign of life too.
            Ok(Err(Error::Refused(_))) if is_pinged => is_pinged = false,
            Ok(reply) => {
                is_pinged = false;
                if let Reply::Texts(words) = reply?
                    && let [kind, _, key] = words.as_slice()
                    && kind == b"message"
                {
                    remote.forget(key, now_us());
                }
            }
            // A half-open connection never says that it has ended.
            Err(_) if is_pinged => return Err(Error::late()),
            Err(_) => {
                is_pinged = true;
                link.write(&[b"PING"]);
            }
        }
    }
}
