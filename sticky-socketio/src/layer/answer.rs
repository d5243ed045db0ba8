//! The answer on its way out: that to a handshake gets its tag, every other passes.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use sticky_core::SessionTag;

use super::farewell::{Farewell, Turn};
use super::tagged::{Version, with_tag};
use super::websocket::{Transport, Upgrade};

pin_project! {
    /// The answer of a [`Tagging`](super::Tagging) service.
    pub struct AnswerFuture<F, B, S> {
        #[pin]
        inner: F,
        then: Then<B, S>,
    }
}

/// What is done when the answer comes, or before.
enum Then<B, S> {
    Nothing,
    /// The id in the answer gets this after it.
    Tag(SessionTag),
    /// The answer to a handshake, whose body is about to come.
    Read(Box<Handshake<B>>),
    /// A poll. One that has its answer at once needs no turn.
    Poll(Arc<Farewell>, Version),
    /// A poll that waits, and is answered in the engine's place when its turn has come.
    Close(Turn, Version),
    /// The connection goes to the engine.
    Upgrade(Option<Box<(Upgrade<S>, Turn)>>),
}

/// The answer to a handshake, whose body is about to come.
struct Handshake<B> {
    head: Parts,
    body: Pin<Box<B>>,
    tag: SessionTag,
}

impl<F, B, S> AnswerFuture<F, B, S> {
    pub(super) fn plain(inner: F) -> Self {
        Self { inner, then: Then::Nothing }
    }

    pub(super) fn handshake(inner: F, tag: Option<SessionTag>) -> Self {
        Self { inner, then: tag.map_or(Then::Nothing, Then::Tag) }
    }

    pub(super) fn poll(inner: F, farewell: Arc<Farewell>, version: Version) -> Self {
        Self { inner, then: Then::Poll(farewell, version) }
    }

    pub(super) fn websocket(inner: F, upgrade: Option<(Upgrade<S>, Turn)>) -> Self {
        Self { inner, then: Then::Upgrade(upgrade.map(Box::new)) }
    }
}

impl<F, B, E, S> Future for AnswerFuture<F, B, S>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
    S: tower::Service<(Transport, Request<()>), Future: Send> + Send + 'static,
{
    type Output = Result<Response<AnswerBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Then::Read(_) = this.then {
            return this.then.read(context).map(Ok);
        }
        let answer = match this.inner.poll(context)? {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                if let Then::Poll(farewell, version) = this.then {
                    *this.then = Then::Close(farewell.turn(), *version);
                }
                return match this.then {
                    Then::Close(turn, version) => turn.poll(context).map(|()| Ok(close(*version))),
                    _ => Poll::Pending,
                };
            }
        };
        match mem::replace(this.then, Then::Nothing) {
            Then::Tag(tag) if answer.status().is_success() => {
                let (head, body) = answer.into_parts();
                *this.then = Then::Read(Box::new(Handshake { head, body: Box::pin(body), tag }));
                return this.then.read(context).map(Ok);
            }
            Then::Upgrade(Some(taken)) => {
                let (upgrade, turn) = *taken;
                upgrade.finish(answer.status(), turn);
            }
            _ => {}
        }
        Poll::Ready(Ok(answer.map(AnswerBody::plain)))
    }
}

/// The answer to a poll by which the server closes the transport: the client connects anew.
fn close<B: Body>(version: Version) -> Response<AnswerBody<B>> {
    let text = version.close();
    let mut response =
        Response::new(AnswerBody { kind: Kind::Own { text: Some(Bytes::from_static(text.as_bytes())) } });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    response
}

impl<B: Body<Data = Bytes>, S> Then<B, S> {
    /// Reads the answer to a handshake: the whole body is one frame, and there already.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<Response<AnswerBody<B>>> {
        let Self::Read(handshake) = self else { unreachable!("there is none to be read") };
        let frame = ready!(handshake.body.as_mut().poll_frame(context));
        let Self::Read(handshake) = mem::replace(self, Self::Nothing) else { unreachable!("it was there just now") };
        Poll::Ready(handshake.tagged(frame))
    }
}

impl<B: Body<Data = Bytes>> Handshake<B> {
    fn tagged(self, frame: Option<Result<Frame<Bytes>, B::Error>>) -> Response<AnswerBody<B>> {
        let Self { mut head, body: rest, tag } = self;
        let frame = frame.map(|frame| {
            frame.map(|frame| match frame.data_ref().and_then(|data| with_tag(data, tag)) {
                Some(tagged) => {
                    let added = tagged.len() - frame.data_ref().map_or(0, Bytes::len);
                    lengthen(&mut head, added);
                    Frame::data(tagged)
                }
                None => frame,
            })
        });
        Response::from_parts(head, AnswerBody { kind: Kind::Read { first: First::of(frame), rest } })
    }
}

fn lengthen(head: &mut Parts, added: usize) {
    if let Some(length) = head.headers.get_mut(header::CONTENT_LENGTH)
        && let Some(old) = length.to_str().ok().and_then(|text| text.parse::<usize>().ok())
    {
        *length = HeaderValue::from(old + added);
    }
}

/// What was read of a body, which comes first.
enum First<E> {
    Frame(Result<Frame<Bytes>, E>),
    Gone,
}

impl<E> First<E> {
    fn of(frame: Option<Result<Frame<Bytes>, E>>) -> Self {
        frame.map_or(Self::Gone, Self::Frame)
    }

    fn take(&mut self) -> Option<Result<Frame<Bytes>, E>> {
        match mem::replace(self, Self::Gone) {
            Self::Frame(frame) => Some(frame),
            Self::Gone => None,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Frame(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Self::Frame(Err(_)) | Self::Gone => 0,
        }
    }
}

pin_project! {
    /// The body of an answer of a [`Tagging`](super::Tagging) service.
    pub struct AnswerBody<B: Body> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B: Body> {
        // Nobody has looked at it.
        Plain { #[pin] inner: B },
        // Its beginning has been read.
        Read { first: First<B::Error>, rest: Pin<Box<B>> },
        // Ours.
        Own { text: Option<Bytes> },
    }
}

impl<B: Body> AnswerBody<B> {
    fn plain(inner: B) -> Self {
        Self { kind: Kind::Plain { inner } }
    }
}

impl<B: Body<Data = Bytes>> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project().kind.project() {
            KindProjection::Plain { inner } => inner.poll_frame(context),
            KindProjection::Read { first, rest } => match first.take() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => rest.as_mut().poll_frame(context),
            },
            KindProjection::Own { text } => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Plain { inner } => inner.is_end_stream(),
            Kind::Read { first, rest } => matches!(first, First::Gone) && rest.is_end_stream(),
            Kind::Own { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Plain { inner } => inner.size_hint(),
            Kind::Read { first, rest } => {
                let (read, hint) = (first.len(), rest.size_hint());
                let mut whole = SizeHint::new();
                // The upper bound first: the lower one may not exceed it.
                if let Some(upper) = hint.upper() {
                    whole.set_upper(upper + read);
                }
                whole.set_lower(hint.lower() + read);
                whole
            }
            Kind::Own { text } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}
