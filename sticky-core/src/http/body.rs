//! Bodies that keep their request in flight until they are done.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::activity::{Activity, InFlight};

/// The body of a request, as the client sends it.
///
/// While the application holds it the connection counts as busy, also after the response: no timer takes what comes
/// for the head of a next request.
pub struct RequestBody {
    incoming: Incoming,
    _in_flight: Option<InFlight>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, activity: &Arc<Activity>) -> Self {
        let in_flight = (!incoming.is_end_stream()).then(|| activity.hold());
        Self { incoming, _in_flight: in_flight }
    }

    /// hyper's own type. The connection no longer counts as busy on account of this body: a handler that has answered
    /// and still reads it has `head_timeout` (10 s) from the next bytes on.
    pub fn into_incoming(self) -> Incoming {
        self.incoming
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.incoming.fmt(f)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

pin_project! {
    /// The body of a response. hyper drops it when all of it has been taken, or nobody wants it any more.
    pub(crate) struct ResponseBody<B> {
        #[pin]
        body: B,
        in_flight: InFlight,
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn new(body: B, in_flight: InFlight) -> Self {
        Self { body, in_flight }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
