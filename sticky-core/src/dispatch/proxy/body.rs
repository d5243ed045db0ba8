//! Bodies on their way through the proxy: a piece at a time, as fast as the other side takes them.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::direct::DirectBody;
use super::pool::Lease;
use crate::cluster::BoxError;
use crate::http::RequestBody;

type BodyResult = Option<Result<Frame<Bytes>, BoxError>>;

/// How long a client that waits for 100 is left waiting by a worker that says nothing: not every server says it.
const CONTINUE_TIME: Duration = Duration::from_secs(1);

/// A request's body on its way to a worker.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// There is none, which can be sent as often as one likes.
    Empty,
    Stream(Streaming),
}

#[derive(Debug)]
pub(super) struct Streaming {
    body: RequestBody,
    progress: Arc<Progress>,
    /// Nothing is asked of the client before the worker wants it.
    gate: Option<Gated>,
}

#[derive(Debug)]
struct Gated {
    gate: Arc<Gate>,
    patience: Pin<Box<Sleep>>,
}

impl Outgoing {
    /// The body as it came; of a client that waits for 100, behind a gate.
    pub(super) fn new(body: RequestBody, gate: Option<Arc<Gate>>) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        if body.is_end_stream() {
            progress.end();
            return (Self::Empty, progress);
        }
        let gate = gate.map(|gate| Gated { gate, patience: Box::pin(sleep(CONTINUE_TIME)) });
        (Self::Stream(Streaming { body, progress: Arc::clone(&progress), gate }), progress)
    }

    /// Whether it can be sent again.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Streaming {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(Gated { gate, patience }) = &mut self.gate {
            if gate.poll_open(cx).is_pending() {
                ready!(patience.as_mut().poll(cx));
            }
            self.gate = None;
        }
        Poll::Ready(())
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self::Stream(stream) = &mut *self else { return Poll::Ready(None) };
        ready!(stream.poll_open(cx));
        let frame = ready!(Pin::new(&mut stream.body).poll_frame(cx));
        if stream.progress.is_abandoned.load(Relaxed) {
            return Poll::Ready(Some(Err(Abandoned.into())));
        }
        if let Some(Err(_)) = frame {
            stream.progress.is_broken.store(true, Relaxed);
        } else if frame.is_none() || stream.body.is_end_stream() {
            stream.progress.end();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.body.size_hint(),
        }
    }
}

/// How far a request's body has come, for whoever has the response.
#[derive(Debug, Default)]
pub(super) struct Progress {
    is_sent: AtomicBool,
    is_abandoned: AtomicBool,
    is_broken: AtomicBool,
}

impl Progress {
    /// Whether the client has broken it off, or framed it wrongly.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Relaxed)
    }

    fn end(&self) {
        self.is_sent.store(true, Relaxed);
    }

    /// Whether all of it has been given to the connection.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent.load(Relaxed)
    }

    /// The worker has answered: nobody needs the rest.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Relaxed);
    }
}

/// The worker has answered before all of the request had come.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the request is not needed")]
struct Abandoned;

/// Holds a body back until the worker has said that it wants it.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<(bool, Option<Waker>)>);

impl Gate {
    /// The worker has said 100.
    pub(super) fn open(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub(super) enum Answer {
    /// Words of our own, or none.
    Whole(Option<Bytes>),
    /// What a worker sends, over a connection that can be used again after the end of it.
    Stream { body: Incoming, lease: Option<Lease> },
    /// The same, read here.
    Direct(Box<DirectBody>),
}

impl Answer {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// What a worker sends. Without a body its connection is free at once.
    pub(super) fn stream(body: Incoming, lease: Lease) -> Self {
        if body.is_end_stream() {
            lease.end();
            return Self::Stream { body, lease: None };
        }
        Self::Stream { body, lease: Some(lease) }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyResult> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream { body, lease } => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                if (frame.is_none() || body.is_end_stream())
                    && let Some(lease) = lease.take()
                {
                    lease.end();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
            }
            Self::Direct(body) => body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BoxError::from))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream { body, .. } => body.is_end_stream(),
            Self::Direct(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream { body, .. } => body.size_hint(),
            Self::Direct(body) => body.size_hint(),
        }
    }
}
