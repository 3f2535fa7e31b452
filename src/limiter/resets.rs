//! Hears of resets on every proxy that shares the Redis, so that no denial cached here outlives one.

use super::Remote;
use crate::clock::now_us;
use redis::RedisError;
use redis::aio::PubSub;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio_stream::StreamExt;
use tracing::debug;

/// Wait before subscribing again. Meanwhile denials are not cached, which costs speed only.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Listens for as long as it is polled.
pub async fn listen(remote: &Remote) {
    loop {
        if let Err(error) = subscribe(remote).await {
            debug!(%error, "cannot hear of resets");
        }
        remote.hears_resets.store(false, Relaxed);
        remote.deny_cache.clear(now_us());
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Returns once the subscription is lost.
async fn subscribe(remote: &Remote) -> Result<(), RedisError> {
    let stream = remote.dialer.dial(remote.connect_timeout).await?;
    let mut subscription = PubSub::new(remote.dialer.settings(), stream).await?;
    subscription.subscribe(remote.store.reset_channel()).await?;
    remote.hears_resets.store(true, Relaxed);
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        remote.forget(message.get_payload_bytes(), now_us());
    }
    Ok(())
}
