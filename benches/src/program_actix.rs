//! What every measured program of actix serves: the same as [`program`](crate::program), whoever runs it.

use std::time::Duration;

use actix_web::web::{Path, Payload, ServiceConfig};
use actix_web::{Error, HttpRequest, Responder, web};
use actix_ws::{Message, MessageStream, Session};

use crate::program::{WORKER_HEADER, worker};

/// `GET /` answers a short text, `GET /block/{ms}` blocks its thread for that long (at most a second) first, `/ws` sends
/// each message of a WebSocket back.
///
/// All carry the `x-worker` header: the worker's number, or `-` in a program without workers.
pub fn routes(app: &mut ServiceConfig) {
    let worker = worker();
    app.route("/", web::get().to(move || async move { "hello\n".customize().append_header((WORKER_HEADER, worker)) }))
        .route(
            "/block/{ms}",
            web::get().to(move |ms: Path<u64>| async move {
                std::thread::sleep(Duration::from_millis((*ms).min(1_000)));
                "blocked\n".customize().append_header((WORKER_HEADER, worker))
            }),
        )
        .route(
            "/ws",
            web::get().to(move |request: HttpRequest, body: Payload| async move {
                let (response, session, messages) = actix_ws::handle(&request, body)?;
                actix_rt::spawn(echo(session, messages));
                Ok::<_, Error>(response.customize().append_header((WORKER_HEADER, worker)))
            }),
        );
}

/// Until the client closes it, or is gone.
async fn echo(mut session: Session, mut messages: MessageStream) {
    while let Some(Ok(message)) = messages.recv().await {
        let sent = match message {
            Message::Text(text) => session.text(text).await,
            Message::Binary(bytes) => session.binary(bytes).await,
            Message::Ping(bytes) => session.pong(&bytes).await,
            Message::Close(reason) => return drop(session.close(reason).await),
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}
