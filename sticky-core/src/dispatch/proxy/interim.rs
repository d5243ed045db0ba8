//! Interim responses (RFC 9110, 15.2) of workers on their way to the client past hyper, whose server has no way to send them.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, StatusCode};
use tokio::sync::Notify;

use super::headers;
use crate::connection::Stream;
use crate::dispatch::handoff::guard::Guard;

/// What is to be told to one client before his response.
#[derive(Debug, Default)]
pub(super) struct Interim {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    turn: Turn,
    heads: Vec<u8>,
}

/// Which request something belongs to: what comes for one that has been answered is too late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn(u64);

impl Interim {
    /// Another request begins, or one ends.
    pub(super) fn turn(&self) -> Turn {
        let mut state = self.state();
        state.turn = Turn(state.turn.0.wrapping_add(1));
        state.turn
    }

    /// An interim response to this request has come.
    pub(super) fn add(&self, turn: Turn, status: StatusCode, mut fields: HeaderMap) {
        headers::end_connection(&mut fields);
        let mut state = self.state();
        if state.turn != turn {
            return;
        }
        let reason = status.canonical_reason().unwrap_or_default();
        state.heads.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
        for (name, value) in &fields {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                state.heads.extend_from_slice(part);
            }
        }
        state.heads.extend_from_slice(b"\r\n");
        drop(state);
        self.arrived.notify_one();
    }

    /// Waits for the response, and sees to it that the connection's task looks for what is to be told meanwhile.
    pub(super) async fn before<F: Future>(&self, response: F) -> F::Output {
        let mut response = pin!(response);
        loop {
            tokio::select! {
                biased;
                response = &mut response => return response,
                () = self.arrived.notified() => {}
            }
        }
    }

    /// Writes what there is.
    pub(super) fn poll_tell(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        guard: &mut Guard,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        while !state.heads.is_empty() {
            let written = ready!(guard.poll_write(stream, cx, &[IoSlice::new(&state.heads)]))?.length;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            state.heads.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_comes_too_late_is_not_told() {
        let interim = Interim::default();
        let turn = interim.turn();
        let mut fields = HeaderMap::new();
        fields.append("link", HeaderValue::from_static("</a>"));
        fields.append("link", HeaderValue::from_static("</b>"));
        fields.append("keep-alive", HeaderValue::from_static("5"));
        interim.add(turn, StatusCode::EARLY_HINTS, fields.clone());
        interim.turn();
        interim.add(turn, StatusCode::PROCESSING, fields);
        assert_eq!(interim.state().heads, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n");
    }
}
