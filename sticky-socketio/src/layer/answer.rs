//! The answer on its way out: that to a handshake gets its tag, every other passes.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use sticky_core::SessionTag;

use super::tagged::with_tag;

pin_project! {
    /// The answer of a [`Tagging`](super::Tagging) service.
    pub struct AnswerFuture<F, B> {
        #[pin]
        inner: F,
        // What the id in the answer needs after it, as long as that is to be read.
        tag: Option<SessionTag>,
        handshake: Option<Handshake<B>>,
    }
}

/// The answer to a handshake, whose body is about to come.
struct Handshake<B> {
    head: Parts,
    body: Pin<Box<B>>,
}

impl<F, B> AnswerFuture<F, B> {
    pub(super) fn new(inner: F, tag: Option<SessionTag>) -> Self {
        Self { inner, tag, handshake: None }
    }
}

impl<F, B, E> Future for AnswerFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<AnswerBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.handshake.is_none() {
            let answer = ready!(this.inner.poll(context))?;
            if this.tag.is_none() || !answer.status().is_success() {
                return Poll::Ready(Ok(answer.map(AnswerBody::plain)));
            }
            let (head, body) = answer.into_parts();
            *this.handshake = Some(Handshake { head, body: Box::pin(body) });
        }
        let Some(Handshake { body, .. }) = this.handshake else { unreachable!("there is one by now") };
        // The whole body is one frame, and there already.
        let frame = ready!(body.as_mut().poll_frame(context));
        let (Some(handshake), Some(tag)) = (this.handshake.take(), *this.tag) else { unreachable!("taken only here") };
        Poll::Ready(Ok(handshake.tagged(frame, tag)))
    }
}

impl<B: Body<Data = Bytes>> Handshake<B> {
    fn tagged(self, frame: Option<Result<Frame<Bytes>, B::Error>>, tag: SessionTag) -> Response<AnswerBody<B>> {
        let Self { mut head, body: rest } = self;
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Plain { inner } => inner.is_end_stream(),
            Kind::Read { first, rest } => matches!(first, First::Gone) && rest.is_end_stream(),
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
        }
    }
}
