//! WebSockets: taken over between the server and the engine, so that each can be closed when its turn has come.
//!
//! ```text
//!  request ──► engine: is it one? ──► 101
//!  the connection that the server lets go of ──► Leaving ──► the engine, with the request once more
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, StatusCode};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::carrier::{Carrier, Coming};
use super::farewell::Turn;

/// A connection as the engine gets it.
pub type Transport = Leaving<Carrier>;

pin_project! {
    /// A connection that ends when its worker drains and its turn has come.
    pub struct Leaving<S> {
        #[pin]
        inner: S,
        // None once it has come.
        turn: Option<Turn>,
    }
}

/// A request that may become a WebSocket, with what it takes to give the connection to the engine.
pub(super) struct Upgrade<S> {
    engine: S,
    request: Request<()>,
    connection: Coming,
}

impl<S> Upgrade<S> {
    /// Takes the connection out of a request, if that is what it asks for. The engine still judges the request.
    pub(super) fn take<B>(engine: &S, request: &mut Request<B>) -> Option<Self>
    where
        S: Clone,
    {
        if *request.method() != Method::GET {
            return None;
        }
        let connection = Coming::take(request.extensions_mut())?;
        let mut copy = Request::new(());
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        *copy.version_mut() = request.version();
        *copy.extensions_mut() = request.extensions().clone();
        Some(Self { engine: engine.clone(), request: copy, connection })
    }

    /// Gives the connection to the engine, if that has agreed to it.
    pub(super) fn finish(self, answered: StatusCode, turn: Turn)
    where
        S: tower::Service<(Transport, Request<()>), Future: Send> + Send + 'static,
    {
        if answered != StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let Self { mut engine, request, connection } = self;
        tokio::spawn(async move {
            // A client that has gone meanwhile is the client's affair.
            if let Some(connection) = connection.carrier().await {
                let transport = Leaving { inner: connection, turn: Some(turn) };
                let _ = engine.call((transport, request)).await;
            }
        });
    }
}

impl<S> Leaving<S> {
    /// Whether its turn has come.
    fn is_over(turn: &mut Option<Turn>, context: &mut Context<'_>) -> bool {
        if turn.as_mut().is_some_and(|turn| turn.poll(context).is_ready()) {
            *turn = None;
        }
        turn.is_none()
    }
}

impl<S: AsyncRead> AsyncRead for Leaving<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        // Its end is what the engine would see if the client had gone.
        if Self::is_over(this.turn, context) { Poll::Ready(Ok(())) } else { this.inner.poll_read(context, buffer) }
    }
}

impl<S: AsyncWrite> AsyncWrite for Leaving<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
