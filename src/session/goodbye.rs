//! The end of a connection, as its client sees it.

use crate::net::Stream;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longest that the end may take to be said: TLS has words for it.
const MAX_GOODBYE: Duration = Duration::from_secs(1);
/// Longest that a client may take to notice it, when it does not expect it.
const MAX_LINGER: Duration = Duration::from_millis(100);

/// Says that this is the end. Without it a client that speaks TLS cannot tell whether a stranger has cut the connection.
///
/// A client that may have a request on its way is waited for (`lingers`). A socket that is closed answers such a request
/// by a reset, on which libraries drop the replies that they have not read yet, and tell their users of an error; after
/// an end they ask again elsewhere.
pub async fn say(stream: &mut Stream, lingers: bool) {
    let _ = timeout(MAX_GOODBYE, stream.shutdown()).await;
    if lingers {
        let _ = timeout(MAX_LINGER, discard(stream)).await;
    }
}

/// Reads until the client has ended too, to no avail.
async fn discard(stream: &mut Stream) {
    let mut discarded = [0; 4096];
    while stream.read(&mut discarded).await.is_ok_and(|length| length > 0) {}
}
