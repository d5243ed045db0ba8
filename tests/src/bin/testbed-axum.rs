//! The testbed for `sticky-axum`: a router as a user would write it, configured by `STICKY_*` alone.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_util::StreamExt;
use sticky_tests::testbed::{self, BoxError, Testbed, extra};

fn main() -> Result<(), BoxError> {
    let cluster = testbed::build()?;
    let serve = sticky_axum::serve_with(cluster, |worker: sticky_core::Worker| async move {
        testbed::obey_environment(&worker);
        let testbed = Testbed::new(&worker)?;
        testbed.subscribe_early().await?;
        serve_beside(&worker)?;
        Ok::<_, BoxError>(router(testbed))
    });
    Ok(serve.block()?)
}

/// Another router, beside the public port.
fn serve_beside(worker: &sticky_core::Worker) -> Result<(), BoxError> {
    let Some(listener) = extra::listener(worker)? else { return Ok(()) };
    let named = worker.clone();
    let router = Router::new().route("/", get(async move || extra::name(&named))).route("/sleep", get(extra::sleep));
    if listener.local_addr().is_some() {
        return Ok(sticky_axum::serve_extra(listener, router)?);
    }
    // By axum's own server, as whoever has one would.
    let (listener, drain, stay) = (listener.into_unix()?, worker.drain(), worker.stay());
    tokio::spawn(async move {
        let end = async move { drain.started().await };
        let served = axum::serve(listener, router).with_graceful_shutdown(end).await;
        drop(stay);
        served
    });
    Ok(())
}

fn router(testbed: Testbed) -> Router {
    Router::new()
        .route("/", get(async |worker: sticky_axum::Worker| format!("worker: {}", worker.id())))
        .route("/whoami", get(async |peer: Peer| testbed::address_text(address(peer))))
        .route("/peer", get(async |peer: Peer| testbed::peer_text(address(peer))))
        .route("/sleep/{ms}", get(sleep))
        .route("/echo", post(async |body: Bytes| body))
        .route("/upload", post(async |request: Request| testbed::digest(request.into_body()).await.map_err(failed)))
        .route("/bytes/{n}", get(async |Path(length): Path<usize>| vec![b'x'; length]))
        .route("/mirror", post(mirror))
        .route("/chunked/{n}", get(chunked))
        .route("/status/{code}", get(status))
        .route("/count/{name}", post(count))
        .route("/sse", get(sse))
        .route("/ws", get(ws))
        .route("/deaf", get(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo_deaf)))
        .route("/login", post(login))
        .route("/me", get(me))
        .route("/own-login", post(own_login))
        .route("/logout", post(async |State(testbed): State<Testbed>, request: HeaderMap| testbed.logout(&request)))
        .route("/owner/{key}", get(async |State(testbed): State<Testbed>, Path(key): Path<String>| testbed.owner(&key)))
        .route("/cookies", get(async |request: HeaderMap| testbed::cookies(&request)))
        .route("/headers", get(async |request: HeaderMap| HeaderMap::from_iter(testbed::headers_asked_for(&request))))
        .route("/crash", post(async || -> StatusCode { testbed::crash() }))
        .route("/bus/{*path}", post(bus))
        .route("/hang", post(async || -> StatusCode { testbed::hang() }))
        .route("/leak/{mib}", post(async |State(testbed): State<Testbed>, Path(mib): Path<usize>| testbed.leak(mib)))
        .route("/block/{ms}", get(async |Path(ms): Path<u64>| testbed::block(ms)))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(testbed.clone(), sign))
        .with_state(testbed)
}

async fn sign(State(testbed): State<Testbed>, request: Request, next: Next) -> Response {
    let name = testbed.begin(request.headers());
    let mut response = next.run(request).await;
    testbed.sign(response.headers_mut(), name);
    response
}

type Peer = Option<Extension<ConnectInfo<SocketAddr>>>;

fn address(peer: Peer) -> Option<SocketAddr> {
    peer.map(|Extension(ConnectInfo(peer))| peer)
}

/// Sends the body back while it comes.
async fn mirror(request: Request) -> Response {
    let trailers = testbed::same_trailers(request.headers());
    let mut response = Response::new(request.into_body());
    response.headers_mut().extend(trailers.map(|names| (header::TRAILER, names)));
    response
}

async fn chunked(Path(length): Path<usize>) -> impl IntoResponse {
    ([(header::TRAILER, testbed::LENGTH_TRAILER)], Body::new(testbed::chunked(length)))
}

async fn status(Path(code): Path<u16>) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST)
}

async fn count(State(testbed): State<Testbed>, Path(name): Path<String>, request: HeaderMap) -> String {
    testbed.count(&name, &request)
}

async fn bus(State(testbed): State<Testbed>, Path(path): Path<String>, body: Bytes) -> String {
    testbed.bus(&path, body).await
}

async fn sleep(Path(milliseconds): Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    "slept"
}

fn failed(error: axum::Error) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}

async fn login(State(testbed): State<Testbed>) -> impl IntoResponse {
    let (session, cookie) = testbed.login();
    ([(header::SET_COOKIE, cookie)], session)
}

async fn own_login(State(testbed): State<Testbed>) -> impl IntoResponse {
    let (session, cookie) = testbed.own_login();
    ([(header::SET_COOKIE, cookie)], session)
}

async fn me(State(testbed): State<Testbed>, request: HeaderMap) -> Result<String, StatusCode> {
    testbed.session(&request).ok_or(StatusCode::UNAUTHORIZED)
}

async fn sse(State(testbed): State<Testbed>) -> impl IntoResponse {
    let events = testbed.events().map(Ok::<_, BoxError>);
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events))
}

async fn ws(State(testbed): State<Testbed>, drain: sticky_axum::Drain, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |socket| {
        // A client that breaks off is the client's affair.
        let _ = echo(&testbed, &drain, socket).await;
    })
}

async fn echo(testbed: &Testbed, drain: &sticky_core::Drain, mut socket: WebSocket) -> Result<(), axum::Error> {
    socket.send(Message::text(testbed.name())).await?;
    loop {
        tokio::select! {
            () = drain.started() => {
                let frame = CloseFrame { code: close_code::RESTART, reason: "drain".into() };
                socket.send(Message::Close(Some(frame))).await?;
                // The client's answer to the close ends the connection.
                while socket.recv().await.is_some_and(|message| message.is_ok()) {}
                return Ok(());
            }
            message = socket.recv() => match message.transpose()? {
                Some(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await?,
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}

/// A handler that has never heard of drains.
async fn echo_deaf(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}
