//! The testbed for `sticky-core`: plain hyper over `sticky_core::http`, configured by `STICKY_*` alone.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use sticky_core::http::PeerAddr;
use sticky_tests::testbed::{self, BoxError, Testbed, websocket};

type Body = UnsyncBoxBody<Bytes, BoxError>;
type Answer = Response<Body>;

fn main() -> Result<(), BoxError> {
    let cluster = testbed::build()?;
    cluster.run(|worker| async {
        testbed::obey_environment(&worker);
        let testbed = Testbed::new(&worker)?;
        testbed.subscribe_early().await?;
        testbed::extra::serve(&worker)?;
        let service = service_fn(move |request| respond(testbed.clone(), request));
        sticky_core::http::serve(worker, service).await;
        Ok(())
    })?;
    Ok(())
}

async fn respond(testbed: Testbed, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let name = testbed.begin(request.headers());
    let mut answer = route(&testbed, request).await;
    testbed.sign(answer.headers_mut(), name);
    Ok(answer)
}

async fn route(testbed: &Testbed, request: Request<Incoming>) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // The target of CONNECT has no path.
    let path = path.strip_prefix('/').unwrap_or(&path);
    let (route, argument) = path.split_once('/').unwrap_or((path, ""));
    let number = argument.parse::<u64>();
    // hyper leaves the body out of an answer to HEAD.
    let method = if method == Method::HEAD { Method::GET } else { method };
    let peer = request.extensions().get::<PeerAddr>().map(|PeerAddr(peer)| *peer);
    match (&method, route, number) {
        (&Method::GET, "", _) => text(testbed.name()),
        (&Method::GET, "whoami", _) => text(testbed::address_text(peer)),
        (&Method::GET, "peer", _) => text(testbed::peer_text(peer)),
        (&Method::GET, "sleep", Ok(milliseconds)) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            text("slept")
        }
        (&Method::GET, "block", Ok(milliseconds)) => {
            testbed::block(milliseconds);
            text("")
        }
        (&Method::GET, "bytes", Ok(length)) => text(vec![b'x'; usize::try_from(length).expect("64 bits")]),
        (&Method::GET, "chunked", Ok(length)) => chunked(usize::try_from(length).expect("64 bits")),
        (&Method::GET, "status", Ok(code)) => status(status_code(code)),
        (&Method::GET, "sse", _) => sse(testbed),
        (&Method::GET, "ws", _) => websocket::accept(testbed, request).map(boxed),
        (&Method::GET, "me", _) => testbed.session(request.headers()).map_or_else(unauthorized, text),
        (&Method::POST, "login", _) => logged_in(testbed.login()),
        (&Method::POST, "own-login", _) => logged_in(testbed.own_login()),
        (&Method::POST, "logout", _) => text(testbed.logout(request.headers())),
        (&Method::GET, "owner", _) => text(testbed.owner(argument)),
        (&Method::GET, "cookies", _) => text(testbed::cookies(request.headers())),
        (&Method::GET, "headers", _) => with_headers(testbed::headers_asked_for(request.headers())),
        (&Method::POST, "echo", _) => received(request.into_body().collect().await.map(|body| body.to_bytes())),
        (&Method::POST, "mirror", _) => mirror(request),
        (&Method::POST, "count", _) => text(testbed.count(argument, request.headers())),
        (&Method::POST, "upload", _) => received(testbed::digest(request.into_body()).await),
        (&Method::POST, "leak", Ok(mebibytes)) => {
            testbed.leak(usize::try_from(mebibytes).expect("64 bits"));
            text("")
        }
        (&Method::POST, "bus", _) => match request.into_body().collect().await {
            Ok(body) => text(testbed.bus(argument, body.to_bytes()).await),
            Err(_) => status(StatusCode::BAD_REQUEST),
        },
        (&Method::POST, "crash", _) => testbed::crash(),
        (&Method::POST, "hang", _) => testbed::hang(),
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn text(body: impl Into<Bytes>) -> Answer {
    Response::new(boxed(Full::new(body.into())))
}

fn boxed(body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

fn status_code(code: u64) -> StatusCode {
    u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::BAD_REQUEST)
}

fn chunked(length: usize) -> Answer {
    let mut answer = Response::new(boxed(testbed::chunked(length)));
    answer.headers_mut().insert(header::TRAILER, HeaderValue::from_static(testbed::LENGTH_TRAILER));
    answer
}

/// Sends the body back while it comes.
fn mirror(request: Request<Incoming>) -> Answer {
    let trailers = testbed::same_trailers(request.headers());
    let mut answer = Response::new(request.into_body().map_err(BoxError::from).boxed_unsync());
    answer.headers_mut().extend(trailers.map(|names| (header::TRAILER, names)));
    answer
}

fn status(status: StatusCode) -> Answer {
    let mut answer = text("");
    *answer.status_mut() = status;
    answer
}

fn unauthorized() -> Answer {
    status(StatusCode::UNAUTHORIZED)
}

fn received(body: Result<impl Into<Bytes>, hyper::Error>) -> Answer {
    body.map_or_else(|_| status(StatusCode::BAD_REQUEST), text)
}

fn with_headers(headers: Vec<(HeaderName, HeaderValue)>) -> Answer {
    let mut answer = text("");
    answer.headers_mut().extend(headers);
    answer
}

fn logged_in((session, cookie): (String, HeaderValue)) -> Answer {
    let mut answer = text(session);
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    answer
}

fn sse(testbed: &Testbed) -> Answer {
    let events = testbed.events().map(|event| Ok(Frame::data(event)));
    let mut answer = Response::new(boxed(StreamBody::new(events)));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}
