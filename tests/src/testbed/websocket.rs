//! The WebSocket echo of `testbed-core`, over an upgraded connection.

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Testbed;

/// Answers 101 and echoes until the client closes or the worker drains; 400 when it is no WebSocket request.
pub fn accept(testbed: &Testbed, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let Some(key) = key_of(request.headers()) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    tokio::spawn(serve(testbed.clone(), hyper::upgrade::on(&mut request)));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend([
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, key),
    ] as [(HeaderName, HeaderValue); 3]);
    response
}

fn key_of(request: &HeaderMap) -> Option<HeaderValue> {
    let key = request.get(header::SEC_WEBSOCKET_KEY)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

async fn serve(testbed: Testbed, upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    // A client that breaks off is the client's affair.
    let _ = echo(&testbed, socket).await;
}

async fn echo<S>(testbed: &Testbed, mut socket: S) -> Result<(), Error>
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    socket.send(Message::text(testbed.name())).await?;
    let drain = testbed.drain();
    loop {
        tokio::select! {
            () = drain.started() => {
                let frame = CloseFrame { code: CloseCode::Restart, reason: "drain".into() };
                socket.send(Message::Close(Some(frame))).await?;
                // The client's answer to the close ends the connection.
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
                return Ok(());
            }
            message = socket.next() => match message.transpose()? {
                Some(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await?,
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}
