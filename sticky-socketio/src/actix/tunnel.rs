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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use actix_web::error::PayloadError;
    use actix_web::web::Bytes;
    use futures_core::Stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;

    /// What a client says; counts what has been taken.
    struct Said {
        pieces: mpsc::UnboundedReceiver<Bytes>,
        taken: Rc<Cell<usize>>,
    }

    impl Stream for Said {
        type Item = Result<Bytes, PayloadError>;

        fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let piece = ready!(self.pieces.poll_recv(context));
            self.taken.set(self.taken.get() + piece.as_ref().map_or(0, Bytes::len));
            Poll::Ready(piece.map(Ok))
        }
    }

    /// A tunnel, the engine's end, and the client's: what it says, and how much of that was taken.
    fn open() -> (Tunnel, DuplexStream, mpsc::UnboundedSender<Bytes>, Rc<Cell<usize>>) {
        let (client, pieces) = mpsc::unbounded_channel();
        let taken = Rc::new(Cell::new(0));
        let said = Said { pieces, taken: Rc::clone(&taken) };
        let (tunnel, end) = Tunnel::new(Payload::Stream { payload: Box::pin(said) });
        (tunnel, end.take().expect("nobody has taken it"), client, taken)
    }

    async fn piece(tunnel: &mut Tunnel) -> Option<Bytes> {
        poll_fn(|context| Pin::new(&mut *tunnel).poll_next(context)).await.map(Result::unwrap)
    }

    /// What there is at once; none if it would have to be waited for.
    async fn piece_now(tunnel: &mut Tunnel) -> Option<Option<Bytes>> {
        poll_fn(|context| {
            Poll::Ready(match Pin::new(&mut *tunnel).poll_next(context) {
                Poll::Ready(piece) => Some(piece.map(Result::unwrap)),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Lets all tasks of this thread do what they can.
    async fn idle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[actix_web::test]
    async fn either_side_hears_the_other() {
        let (mut tunnel, mut engine, client, _) = open();
        client.send(Bytes::from_static(b"hello")).unwrap();
        engine.write_all(b"welcome").await.unwrap();
        assert_eq!(piece(&mut tunnel).await.unwrap(), "welcome");
        let mut heard = [0; 5];
        engine.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[actix_web::test]
    async fn nothing_is_taken_from_the_client_before_the_answer_is_sent() {
        let (mut tunnel, _engine, client, taken) = open();
        client.send(Bytes::from_static(b"early")).unwrap();
        idle().await;
        assert_eq!(taken.get(), 0);
        assert_eq!(piece_now(&mut tunnel).await, None);
        idle().await;
        assert_eq!(taken.get(), 5);
    }

    #[actix_web::test]
    async fn a_client_waits_for_the_engine_and_is_not_held_in_memory() {
        const EACH: usize = 1024;
        let (mut tunnel, mut engine, client, taken) = open();
        for _ in 0..200 {
            client.send(Bytes::from_static(&[7; EACH])).unwrap();
        }
        assert_eq!(piece_now(&mut tunnel).await, None);
        idle().await;
        assert!(taken.get() <= ROOM + EACH, "{} bytes", taken.get());
        let mut all = vec![0; 200 * EACH];
        engine.read_exact(&mut all).await.unwrap();
        assert!(all.iter().all(|&byte| byte == 7));
    }

    #[actix_web::test]
    async fn the_engine_waits_for_the_client() {
        let (mut tunnel, mut engine, _client, _) = open();
        let writing = spawn_local(async move {
            engine.write_all(&[7; 10 * ROOM]).await.unwrap();
            engine
        });
        idle().await;
        assert!(!writing.is_finished());
        let mut read = 0;
        while read < 10 * ROOM {
            read += piece(&mut tunnel).await.unwrap().len();
        }
        writing.await.unwrap();
    }

    #[actix_web::test]
    async fn a_client_that_says_no_more_still_hears() {
        let (mut tunnel, mut engine, client, _) = open();
        client.send(Bytes::from_static(b"last")).unwrap();
        drop(client);
        assert_eq!(piece_now(&mut tunnel).await, None);
        let mut all = Vec::new();
        engine.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last");
        engine.write_all(b"goodbye").await.unwrap();
        assert_eq!(piece(&mut tunnel).await.unwrap(), "goodbye");
        drop(engine);
        assert_eq!(piece(&mut tunnel).await, None);
    }

    #[actix_web::test]
    async fn who_has_gone_is_noticed_while_the_other_waits() {
        let (mut tunnel, mut engine, client, _) = open();
        client.send(Bytes::from_static(&[7; 2 * ROOM])).unwrap();
        assert_eq!(piece_now(&mut tunnel).await, None);
        // The pump waits for room.
        idle().await;
        drop(tunnel);
        let mut all = Vec::new();
        engine.read_to_end(&mut all).await.unwrap();
        assert!(all.len() <= ROOM, "{}", all.len());
        assert!(engine.write_all(b"x").await.is_err());
        // The payload went with the tunnel.
        assert!(client.is_closed());
    }
}
