//! A connection before its first message is known to be this worker's: no framework has to do with it yet.

use std::future::{Future, pending, poll_fn};
use std::time::Duration;

use tokio::time::sleep;

use super::{Drain, DrainReason};
use crate::connection::Connection;

/// A connection that is this young may still send its first request when the drain has started: its client connected
/// to a server that was up, and the request is right behind.
pub(crate) const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(250);

/// Waits for the first message; none if that is another worker's, or never comes. At the end of everything a client that
/// is silent has little time left.
pub(super) async fn open(mut connection: Connection, drain: Drain) -> Option<Connection> {
    // Looked at once more when the drain starts: there may be a next generation to go to.
    for least in [DrainReason::Replaced, DrainReason::Shutdown] {
        if let Some(is_ours) = opened_before(&mut connection, drain.reached(least)).await {
            return is_ours.then_some(connection);
        }
    }
    let in_time = opened_before(&mut connection, sleep(FIRST_REQUEST_GRACE)).await;
    let is_ours = match in_time {
        None if connection.is_within_head() => opened_before(&mut connection, pending()).await,
        in_time => in_time,
    };
    is_ours.unwrap_or(false).then_some(connection)
}

/// Whether the first message is this worker's; none if that is not known before `event`.
async fn opened_before(connection: &mut Connection, event: impl Future<Output = ()>) -> Option<bool> {
    tokio::select! {
        biased;
        is_ours = poll_fn(|cx| connection.poll_opened(cx)) => Some(is_ours.unwrap_or(false)),
        () = event => None,
    }
}
