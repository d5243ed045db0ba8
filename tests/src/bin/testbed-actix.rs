//! The testbed for `sticky-actix`: an application as a user would write it, configured by `STICKY_*` alone.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{Bytes, Data, Path, Payload, PayloadConfig};
use actix_web::{App, Error, HttpRequest, HttpResponse, Responder, Route, guard, web};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use sticky_tests::testbed::{self, BoxError, Testbed, extra};

/// Of a message on a WebSocket.
const MAX_MESSAGE: usize = 1 << 24;

fn main() -> Result<(), BoxError> {
    let cluster = testbed::build()?;
    let run = sticky_actix::run_with(cluster, |worker| async move {
        testbed::obey_environment(&worker);
        let testbed = Data::new(Testbed::new(&worker)?);
        testbed.subscribe_early().await?;
        serve_beside(&worker).await?;
        Ok(move || {
            App::new()
                .app_data(testbed.clone())
                .app_data(PayloadConfig::new(usize::MAX))
                .wrap(from_fn(sign))
                .configure(routes)
        })
    });
    Ok(run.block()?)
}

/// Another application, beside the public port.
async fn serve_beside(worker: &sticky_core::Worker) -> Result<(), BoxError> {
    let Some(listener) = extra::listener(worker)? else { return Ok(()) };
    let named = worker.clone();
    let factory = move || {
        let named = named.clone();
        App::new()
            .route("/", get().to(move || std::future::ready(extra::name(&named))))
            .route("/sleep", get().to(extra::sleep))
    };
    sticky_actix::serve_extra(listener, factory).await
}

fn routes(app: &mut web::ServiceConfig) {
    app.route("/", get().to(async |worker: sticky_actix::Worker| format!("worker: {}", worker.id())))
        .route("/whoami", get().to(async |request: HttpRequest| testbed::address_text(peer(&request))))
        .route("/peer", get().to(async |request: HttpRequest| testbed::peer_text(peer(&request))))
        .route("/info", get().to(info))
        .route("/thread", get().to(async || format!("{:?}", std::thread::current().id())))
        .route("/sleep/{ms}", get().to(sleep))
        .route("/echo", web::post().to(async |body: Bytes| body))
        .route("/upload", web::post().to(upload))
        .route("/bytes/{n}", get().to(async |length: Path<usize>| vec![b'x'; *length]))
        .route("/mirror", web::post().to(mirror))
        .route("/chunked/{n}", get().to(chunked))
        .route("/status/{code}", get().to(status))
        .route("/count/{name}", web::post().to(count))
        .route("/sse", get().to(sse))
        .route("/ws", get().to(ws))
        .route("/login", web::post().to(async |testbed: Data<Testbed>| logged_in(testbed.login())))
        .route("/own-login", web::post().to(async |testbed: Data<Testbed>| logged_in(testbed.own_login())))
        .route("/me", get().to(me))
        .route("/logout", web::post().to(logout))
        .route("/owner/{key}", get().to(async |testbed: Data<Testbed>, key: Path<String>| testbed.owner(&key)))
        .route("/cookies", get().to(async |request: HttpRequest| testbed::cookies(&headers(&request))))
        .route("/headers", get().to(with_headers))
        .route("/bus/{path:.*}", web::post().to(bus))
        .route("/crash", web::post().to(async || -> HttpResponse { testbed::crash() }))
        .route("/hang", web::post().to(async || -> HttpResponse { testbed::hang() }))
        .route("/leak/{mib}", web::post().to(leak))
        .route("/block/{ms}", get().to(block));
}

/// HEAD is answered like GET, without the body.
fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

async fn sign(
    testbed: Data<Testbed>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let name = testbed.begin(&headers(request.request()));
    let mut response = next.call(request).await?;
    let mut marks = HeaderMap::new();
    testbed.sign(&mut marks, name);
    add(&marks, response.headers_mut());
    Ok(response)
}

/// The request's headers in the types that the testbeds share.
fn headers(request: &HttpRequest) -> HeaderMap {
    let fields = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    fields
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.try_into().ok()?)))
        .collect::<Vec<_>>()
        .into_iter()
        .fold(HeaderMap::new(), |mut headers, (name, value): (http::HeaderName, http::HeaderValue)| {
            headers.append(name, value);
            headers
        })
}

fn add(marks: &HeaderMap, response: &mut actix_web::http::header::HeaderMap) {
    use actix_web::http::header::{HeaderName, HeaderValue};
    for (name, value) in marks {
        let name = name.as_str().parse::<HeaderName>().expect("a name is a name");
        response.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value is a value"));
    }
}

fn peer(request: &HttpRequest) -> Option<SocketAddr> {
    request.head().peer_addr
}

/// What actix believes of the client: its address, the host it asked for, and how it came.
async fn info(request: HttpRequest) -> String {
    let info = request.connection_info();
    format!("{} {} {}", info.realip_remote_addr().unwrap_or("unix"), info.host(), info.scheme())
}

async fn upload(body: Payload) -> Result<String, Error> {
    testbed::digest(StreamBody::new(body.map(|piece| piece.map(Frame::data)))).await.map_err(Error::from)
}

/// Sends the body back in pieces, as it has come, once all of it is here: actix ends the connection of those who begin to
/// answer before.
async fn mirror(mut body: Payload) -> Result<HttpResponse, Error> {
    let mut pieces = Vec::new();
    while let Some(piece) = body.next().await {
        pieces.push(Ok::<_, Error>(piece?));
    }
    Ok(HttpResponse::Ok().streaming(stream::iter(pieces)))
}

/// Without the trailer: actix has none.
async fn chunked(length: Path<usize>) -> HttpResponse {
    let frames = http_body_util::BodyStream::new(testbed::chunked(*length));
    let pieces = frames.filter_map(async |frame| frame.ok()?.into_data().ok().map(Ok::<_, Error>));
    HttpResponse::Ok().streaming(Box::pin(pieces))
}

async fn status(code: Path<u16>) -> HttpResponse {
    HttpResponse::new(StatusCode::from_u16(*code).unwrap_or(StatusCode::BAD_REQUEST))
}

async fn count(testbed: Data<Testbed>, name: Path<String>, request: HttpRequest) -> String {
    testbed.count(&name, &headers(&request))
}

async fn sleep(milliseconds: Path<u64>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
    "slept"
}

async fn leak(testbed: Data<Testbed>, mebibytes: Path<usize>) -> &'static str {
    testbed.leak(*mebibytes);
    ""
}

async fn block(milliseconds: Path<u64>) -> &'static str {
    testbed::block(*milliseconds);
    ""
}

fn logged_in((session, cookie): (String, http::HeaderValue)) -> impl Responder {
    session.customize().insert_header(("set-cookie", cookie.as_bytes()))
}

async fn me(testbed: Data<Testbed>, request: HttpRequest) -> HttpResponse {
    match testbed.session(&headers(&request)) {
        Some(session) => HttpResponse::Ok().body(session),
        None => HttpResponse::Unauthorized().finish(),
    }
}

async fn logout(testbed: Data<Testbed>, request: HttpRequest) -> String {
    testbed.logout(&headers(&request))
}

async fn with_headers(request: HttpRequest) -> HttpResponse {
    let mut response = HttpResponse::Ok().finish();
    let mut asked = HeaderMap::new();
    asked.extend(testbed::headers_asked_for(&headers(&request)));
    add(&asked, response.headers_mut());
    response
}

async fn bus(testbed: Data<Testbed>, path: Path<String>, body: Bytes) -> String {
    testbed.bus(&path, body).await
}

async fn sse(testbed: Data<Testbed>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/event-stream").streaming(testbed.events().map(Ok::<_, Error>))
}

async fn ws(
    testbed: Data<Testbed>,
    drain: sticky_actix::Drain,
    request: HttpRequest,
    body: Payload,
) -> Result<HttpResponse, Error> {
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    let messages = messages.max_frame_size(MAX_MESSAGE).aggregate_continuations().max_continuation_size(MAX_MESSAGE);
    actix_rt::spawn(async move {
        // A client that breaks off is the client's affair.
        let _ = echo(&testbed, &drain, session, messages).await;
    });
    Ok(response)
}

async fn echo(
    testbed: &Testbed,
    drain: &sticky_core::Drain,
    mut session: Session,
    mut messages: AggregatedMessageStream,
) -> Result<(), actix_ws::Closed> {
    session.text(testbed.name()).await?;
    loop {
        tokio::select! {
            () = drain.started() => {
                let reason = CloseReason { code: CloseCode::Restart, description: Some("drain".to_owned()) };
                session.close(Some(reason)).await?;
                // The client's answer to the close ends the connection.
                while messages.recv().await.is_some_and(|message| message.is_ok()) {}
                return Ok(());
            }
            message = messages.recv() => match message {
                Some(Ok(AggregatedMessage::Text(text))) => session.text(text).await?,
                Some(Ok(AggregatedMessage::Binary(bytes))) => session.binary(bytes).await?,
                Some(Ok(AggregatedMessage::Ping(bytes))) => session.pong(&bytes).await?,
                Some(Ok(AggregatedMessage::Pong(_))) => {}
                Some(Ok(AggregatedMessage::Close(reason))) => return session.close(reason).await,
                Some(Err(_)) | None => return Ok(()),
            }
        }
    }
}
