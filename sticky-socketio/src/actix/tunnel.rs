//! A WebSocket between actix and the engine, with back-pressure in both directions and an end in each.
//!
//! ```text
//!  client ──► actix's payload ── pump ──► pipe ──► engine
//!  client ◄── actix's body ◄───────────── pipe ◄── engine
//! ```
//!
//! actix's payload stays on its thread, while the engine's task need not; hence the pipe. Whoever goes, the other
//! sees the end: actix drops the body when the client has gone, which takes this end of the pipe with it, and the engine drops
//! its own when the session is over, which ends the body and thereby the connection.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::HttpRequest;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::http::header::UPGRADE;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split};
use tokio::task::{AbortHandle, spawn_local};

use super::body::next;
use crate::layer::TunnelEnd;

/// How much may be on its way in each direction.
const ROOM: usize = 16 * 1024;

/// How much goes into one piece of the body.
const PIECE: usize = 8 * 1024;

/// Whether a request asks for a WebSocket, as far as that is ours to know. The engine judges.
pub(super) fn is_asked_for(request: &HttpRequest) -> bool {
    let upgrade = request.headers().get(UPGRADE);
    *request.method() == Method::GET
        && upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// actix's end: the body of the answer that switches protocols.
pub(super) struct Tunnel {
    from_engine: ReadHalf<DuplexStream>,
    /// What becomes the pump when actix asks for the body first: what follows a request belongs to the WebSocket only once it
    /// is one.
    idle: Option<(Payload, WriteHalf<DuplexStream>)>,
    pump: Option<AbortHandle>,
}

impl Tunnel {
    /// For what follows this request; the second is the engine's end.
    pub(super) fn new(payload: Payload) -> (Self, TunnelEnd) {
        let (ours, engines) = duplex(ROOM);
        let (from_engine, to_engine) = split(ours);
        (Self { from_engine, idle: Some((payload, to_engine)), pump: None }, TunnelEnd::new(engines))
    }
}

/// Passes on what the client says, until its end.
async fn pump(mut payload: Payload, mut to_engine: WriteHalf<DuplexStream>) {
    while let Some(Ok(piece)) = next(&mut payload).await {
        if to_engine.write_all(&piece).await.is_err() {
            return;
        }
    }
    // A pipe's end cannot fail.
    let _ = to_engine.shutdown().await;
}

impl MessageBody for Tunnel {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some((payload, to_engine)) = self.idle.take() {
            // Apart from the body: a client that does not read may still be heard.
            self.pump = Some(spawn_local(pump(payload, to_engine)).abort_handle());
        }
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.from_engine).poll_read(context, &mut piece))?;
        let piece = piece.filled();
        Poll::Ready((!piece.is_empty()).then(|| Ok(Bytes::copy_from_slice(piece))))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(pump) = &self.pump {
            pump.abort();
        }
    }
}
