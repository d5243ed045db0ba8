//! Lines of JSON that are written as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;

use super::mirror::Seat;
use crate::admin::{Happening, Progress, now_ms};

/// How many lines wait for a reader before what it is told has gaps.
const WAITING: usize = 64;

/// Lines that a task writes; it ends when they are dropped.
pub(super) struct Lines {
    lines: mpsc::Receiver<Bytes>,
    task: tokio::task::AbortHandle,
}

impl Lines {
    /// The words about a command, from the first to the last.
    pub(super) fn of_command(first: Progress, mut words: mpsc::UnboundedReceiver<Progress>) -> Self {
        Self::written_by(async move |lines| {
            let mut word = Some(first);
            while let Some(progress) = word {
                if lines.send(line(&progress)).await.is_err() || progress.is_last() {
                    return;
                }
                word = words.recv().await;
            }
        })
    }

    /// What happens, until the cluster has ended.
    pub(super) fn of_events(mut events: broadcast::Receiver<Happening>, seat: Seat) -> Self {
        Self::written_by(async move |lines| {
            let _seat = seat;
            loop {
                let happening = match events.recv().await {
                    Ok(happening) => happening,
                    Err(RecvError::Lagged(lost)) => lost_lines(lost),
                    Err(RecvError::Closed) => return,
                };
                if lines.send(line(&happening)).await.is_err() {
                    return;
                }
            }
        })
    }

    fn written_by<F>(write: impl FnOnce(mpsc::Sender<Bytes>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, lines) = mpsc::channel(WAITING);
        Self { lines, task: tokio::spawn(write(sender)).abort_handle() }
    }

    pub(super) fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.lines.poll_recv(cx)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lost_lines(lost: u64) -> Happening {
    Happening::new(now_ms(), "lost", None, format!("{lost} events are missing: they were not read in time"))
}

fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
