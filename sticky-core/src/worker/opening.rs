//! A connection before its first message is known to be this worker's: no framework has to do with it yet.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use super::Drain;
use crate::connection::Connection;

/// A connection that is this young may still send its first request when the drain has started: its client connected
/// to a server that was up, and the request is right behind.
pub(crate) const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(250);

/// Waits for the first message; none if that is another worker's, or never comes. In a drain a client that is silent
/// has little time left.
pub(super) async fn open(mut connection: Connection, drain: Drain) -> Option<Connection> {
    let mut draining = pin!(drain.started());
    let is_ours: io::Result<bool> = tokio::select! {
        biased;
        is_ours = poll_fn(|cx| connection.poll_opened(cx)) => is_ours,
        () = &mut draining => {
            let grace = sleep(FIRST_REQUEST_GRACE);
            tokio::select! {
                biased;
                is_ours = poll_fn(|cx| connection.poll_opened(cx)) => is_ours,
                () = grace => if connection.is_within_head() {
                    poll_fn(|cx| connection.poll_opened(cx)).await
                } else {
                    Ok(false)
                },
            }
        }
    };
    is_ours.unwrap_or(false).then_some(connection)
}
