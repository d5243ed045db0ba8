//! The answer to a client whose worker is not there, where the configuration says to refuse it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::connection::Stream;

const RESPONSE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How long, and for how many bytes, the request of a refused client is read. Closing with unread bytes would reset
/// the connection and could take the answer with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// How many clients are answered at once. They are not this worker's own, and must not take its descriptors.
const MOST: usize = 256;

static PLACES: Semaphore = Semaphore::const_new(MOST);

/// Answers 503 and closes, in a task of its own; where too many are being answered, closes.
pub(super) fn refuse(mut stream: Stream) {
    let Ok(place) = PLACES.try_acquire() else { return };
    tokio::spawn(async move {
        let _place = place;
        let farewell = async {
            stream.write_all(RESPONSE).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
        };
        // The client may be gone; then there is nobody to tell.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    });
}
