//! How resets on every proxy that shares a node are heard of, so that no denial cached here outlives one.

use super::diagnosis::Problem;
use super::needs;
use super::node::Node;
use super::redis::Redis;
use crate::clock::now_us;
use crate::store::connection::{Connection, Error, Reply};
use std::time::Duration;
use tokio::time::timeout;
use tracing::debug;

/// Wait before subscribing again. Meanwhile denials are not cached, which costs speed only.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Silence after which the connection is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(1);

/// Listens for as long as it is polled.
pub(super) async fn listen(redis: &Redis, node: &Node) {
    loop {
        // While Redis is not asked no denial is kept that a reset could end; and what is there may be no Redis.
        node.health.seen().await;
        if let Err(error) = hear(redis, node).await {
            debug!(%error, "cannot hear of resets");
            node.health.set_deafness(deafness(node, &error));
        }
        node.set_reset_feed_live(false);
        redis.forget_denials(now_us());
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Asks to hear of resets on this connection, and returns once that is granted.
pub(super) async fn subscribe(redis: &Redis, node: &Node, link: &mut Connection) -> Result<(), Error> {
    let words = [&b"SUBSCRIBE"[..], &redis.store.reset_channel()];
    let subscribed = timeout(node.connect_timeout, link.call(&words)).await;
    subscribed.unwrap_or_else(|_| Err(Error::late())).map(drop)
}

/// What is told of it if a right is missing.
pub(super) fn deafness(node: &Node, error: &Error) -> Option<Problem> {
    let lacks = || needs::lacks("+subscribe", &error.to_string(), needs::DEAFNESS, node.health.about());
    error.has_code("NOPERM").then(lacks)
}

/// Returns once the subscription is lost.
async fn hear(redis: &Redis, node: &Node) -> Result<(), Error> {
    let mut link = Connection::open(&node.dialer, node.connect_timeout).await?;
    subscribe(redis, node, &mut link).await?;
    node.health.set_deafness(None);
    node.set_reset_feed_live(true);
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
                    redis.forget(node, key, now_us());
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
