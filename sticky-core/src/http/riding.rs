//! Serves a connection by its lane alone. What it costs to have hyper serve it, and to keep hyper for it while nothing comes,
//! is spent only on who sends what the lane does not take.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::task::unconstrained;

use crate::connection::Connection;
use crate::worker::{Drain, DrainReason, News};

/// Serves `connection` until there is something for its framework to read, or nothing will come any more: `false`. To be
/// spawned as a task of its own.
pub(crate) async fn ride(connection: &mut Connection, drain: &Drain) -> bool {
    let reached = |least| unconstrained(drain.reached(least));
    let replaced = pin!(reached(DrainReason::Replaced));
    let mut news = News::new(drain, replaced, reached);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(goes_on) = poll(connection, cx) {
                return Poll::Ready(goes_on);
            }
            if !news.poll(cx) {
                // Who has said nothing yet will, and learns of the end by its answer, as who is being answered does.
                let is_over =
                    drain.ends_connections(true) && connection.has_ridden() && !connection.is_within_message();
                return if is_over { Poll::Ready(false) } else { Poll::Pending };
            }
        }
    })
    .await
}

fn poll(connection: &mut Connection, cx: &mut Context<'_>) -> Poll<bool> {
    connection.poll_beyond_lane(cx).map(|read| {
        read.unwrap_or_else(|error| {
            tracing::debug!(target: "sticky", %error, "a connection ended early");
            false
        })
    })
}
