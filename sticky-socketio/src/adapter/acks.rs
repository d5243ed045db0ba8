//! The acknowledgements of a broadcast, which end when the last one has come.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;

pin_project! {
    /// The acknowledgements of sockets in all workers.
    ///
    /// socketioxide's own stream looks whether it is complete before it reads, and not after: where the last server to
    /// answer has nothing to acknowledge, it would wait for its timeout.
    #[derive(Debug)]
    pub struct Acks<S> {
        #[pin]
        inner: S,
    }
}

impl<S> Acks<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: FusedStream> Stream for Acks<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut this = self.project();
        match this.inner.as_mut().poll_next(context) {
            Poll::Pending if this.inner.is_terminated() => Poll::Ready(None),
            polled => polled,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl<S: FusedStream> FusedStream for Acks<S> {
    fn is_terminated(&self) -> bool {
        self.inner.is_terminated()
    }
}
