//! Requests and responses from actix's types to those of `http`, and back.

use actix_web::error::{ErrorBadRequest, ErrorInternalServerError};
use actix_web::http::StatusCode as ActixStatus;
use actix_web::http::header::{HeaderName as ActixName, HeaderValue as ActixValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, Uri, Version};
use http_body::Body;
use sticky_core::http::PeerAddr;

use super::body::{Outgoing, RequestBody};
use super::tunnel::Tunnel;

/// The same request in the types of `http`.
pub(super) fn request(from: &HttpRequest, body: RequestBody) -> Result<Request<RequestBody>, actix_web::Error> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(from.method().as_str().as_bytes()).map_err(ErrorBadRequest)?;
    *request.uri_mut() = Uri::try_from(from.uri().to_string()).map_err(ErrorBadRequest)?;
    *request.version_mut() = version(from.version());
    *request.headers_mut() = headers(from);
    if let Some(client) = from.peer_addr() {
        // As on axum, so that handlers find it where it is there.
        request.extensions_mut().insert(ConnectInfo(client));
        request.extensions_mut().insert(PeerAddr(client));
    }
    Ok(request)
}

fn version(version: actix_web::http::Version) -> Version {
    match version {
        actix_web::http::Version::HTTP_10 => Version::HTTP_10,
        actix_web::http::Version::HTTP_2 => Version::HTTP_2,
        _ => Version::HTTP_11,
    }
}

fn headers(from: &HttpRequest) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(from.headers().len());
    for (name, value) in from.headers() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    headers
}

/// An answer in actix's types.
pub(super) fn response<B>(answer: Response<B>) -> HttpResponse
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error>>> + 'static,
{
    let mut response = head(&answer);
    response.body(Outgoing(Box::pin(answer.into_body())))
}

/// The answer that makes a WebSocket of the connection.
pub(super) fn switch<B>(answer: Response<B>, tunnel: Tunnel) -> HttpResponse {
    head(&answer).upgrade("websocket").body(tunnel)
}

fn head<B>(answer: &Response<B>) -> HttpResponseBuilder {
    let status = ActixStatus::from_u16(answer.status().as_u16()).unwrap_or(ActixStatus::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponseBuilder::new(status);
    for (name, value) in answer.headers() {
        // actix says these itself: the body's length, and what becomes of the connection.
        if [CONNECTION, CONTENT_LENGTH, UPGRADE].contains(name) {
            continue;
        }
        let name = ActixName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, ActixValue::from_bytes(value.as_bytes())) {
            response.append_header((name, value));
        }
    }
    response
}

/// What actix answers where the engine has nothing.
pub(super) fn failure(error: impl std::fmt::Display) -> actix_web::Error {
    ErrorInternalServerError(error.to_string())
}
