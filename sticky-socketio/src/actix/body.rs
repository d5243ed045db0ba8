//! Bodies on their way in and out. actix's stay on their thread, the engine's need not: a request's body goes piece by
//! piece, the next when the last has been taken.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use bytes::Bytes;
use futures_core::Stream;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

type Piece = Result<Bytes, io::Error>;

/// The body of a request, as the engine gets it.
pub struct RequestBody(Option<mpsc::Receiver<Piece>>);

/// What gives a body its pieces.
pub(super) struct Feed {
    payload: Payload,
    /// None where there is no body.
    pieces: Option<mpsc::Sender<Piece>>,
}

/// A body of what this payload has.
pub(super) fn channel(payload: Payload) -> (Feed, RequestBody) {
    if matches!(payload, Payload::None) {
        return (Feed { payload, pieces: None }, RequestBody::empty());
    }
    let (pieces, body) = mpsc::channel(1);
    (Feed { payload, pieces: Some(pieces) }, RequestBody(Some(body)))
}

/// The next piece of a payload.
pub(super) async fn next(payload: &mut Payload) -> Option<Piece> {
    let piece = poll_fn(|context| Pin::new(&mut *payload).poll_next(context)).await?;
    Some(piece.map_err(|error| io::Error::other(error.to_string())))
}

impl Feed {
    /// Feeds the body while `answering` goes on, whose answer ends it.
    pub(super) async fn during<F: Future>(self, answering: F) -> F::Output {
        let mut answering = pin!(answering);
        tokio::select! {
            biased;
            answer = &mut answering => return answer,
            () = self.run() => {}
        }
        answering.await
    }

    async fn run(self) {
        let Self { mut payload, pieces: Some(pieces) } = self else { return };
        while let Some(piece) = next(&mut payload).await {
            let is_last = piece.is_err();
            if pieces.send(piece).await.is_err() || is_last {
                return;
            }
        }
    }
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self(None)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(pieces) = &mut self.0 else { return Poll::Ready(None) };
        pieces.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

/// The body of an answer, as actix sends it.
pub(super) struct Outgoing<B>(pub(super) Pin<Box<B>>);

impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error>>>> MessageBody for Outgoing<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.0.size_hint().exact().map_or(BodySize::Stream, BodySize::Sized)
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        loop {
            match ready!(self.0.as_mut().poll_frame(context)?) {
                // actix has no trailers.
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                None => return Poll::Ready(None),
            }
        }
    }
}
