//! The application's service with what every request needs around it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_http::error::PayloadError;
use actix_http::header::UPGRADE;
use actix_http::{ConnectionType, HttpMessage, Method, Payload, Request, Response, StatusCode};
use actix_service::{Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory};
use actix_web::Error;
use bytes::Bytes;
use futures_core::Stream;
use pin_project_lite::pin_project;
use sticky_core::integration::{Attendance, InFlight};

use crate::fields::Headers;
use crate::forwarded;

/// A response, whoever made it: the application, or its error.
type Answer<B> = Response<AnswerBody<EitherBody<B>>>;

/// The response that an error of the application is. None is left when it has been attended to.
type Failure = Response<BoxBody>;

/// Counts requests and knows which are in flight, tells the application the truth about its clients, and keeps sessions
/// where they were made.
pub(crate) fn attended<S, B>(
    app: S,
) -> impl ServiceFactory<Request, Config = S::Config, Response = Answer<B>, Error = Failure, InitError = S::InitError>
where
    S: ServiceFactory<Request>,
    S::Response: Into<Response<B>>,
    S::Error: Into<Error>,
    B: MessageBody,
{
    let app = app.map_err(|error| Failure::from(error.into().error_response()));
    apply_fn_factory(app, |request: Request, app: &_| {
        let asks_for_upgrade = request.head().connection_type() == ConnectionType::Upgrade;
        let (request, in_flight) = begin(request);
        answer(app.call(request), in_flight, asks_for_upgrade)
    })
}

fn begin(mut request: Request) -> (Request, Option<InFlight>) {
    let Some(attendance) = request.conn_data::<Attendance>().cloned() else { return (request, None) };
    let is_connect = *request.method() == Method::CONNECT;
    let in_flight = attendance.begin(is_connect, &mut Headers(request.headers_mut()));
    let attendance = in_flight.attendance();
    let client = attendance.client_addr();
    forwarded::correct(request.headers_mut(), attendance.is_believed(), client);
    request.head_mut().peer_addr = client;
    if !matches!(request.payload(), Payload::None) && request.headers().contains_key(UPGRADE) {
        let payload = Following { payload: request.take_payload(), attendance: attendance.clone() };
        *request.payload() = Payload::Stream { payload: Box::pin(payload) };
    }
    (request, Some(in_flight))
}

async fn answer<R, B>(
    answering: impl Future<Output = Result<R, Failure>>,
    in_flight: Option<InFlight>,
    asks_for_upgrade: bool,
) -> Result<Answer<B>, Failure>
where
    R: Into<Response<B>>,
    B: MessageBody,
{
    match answering.await {
        Ok(response) => Ok(finish(response.into(), in_flight, asks_for_upgrade, EitherBody::left)),
        Err(failure) => Ok(finish(failure, in_flight, asks_for_upgrade, EitherBody::right)),
    }
}

fn finish<B, E>(
    mut response: Response<B>,
    in_flight: Option<InFlight>,
    asks_for_upgrade: bool,
    either: impl FnOnce(B) -> E,
) -> Response<AnswerBody<E>> {
    let status = response.status();
    let fields = &mut Headers(response.headers_mut());
    let is_last = in_flight.as_ref().is_some_and(|in_flight| in_flight.answer(status.as_u16(), fields));
    // actix ends the connection of a request that asks for another protocol, also where it does not get it; whoever is not
    // told loses the next request.
    if is_last || asks_for_upgrade && status != StatusCode::SWITCHING_PROTOCOLS {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response.map_body(|_, body| AnswerBody { body: either(body), in_flight })
}

/// What follows a request that asks for another protocol. actix takes that for its body, and does not see that none comes
/// before there is an answer.
struct Following {
    payload: Payload,
    attendance: Attendance,
}

impl Stream for Following {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match Pin::new(&mut self.payload).poll_next(cx) {
            Poll::Pending if self.attendance.has_said_all() => Poll::Ready(Some(Err(PayloadError::Incomplete(None)))),
            polled => polled,
        }
    }
}

pin_project! {
    /// The body of a response. actix drops it when all of it has been taken, or nobody wants it any more.
    pub(crate) struct AnswerBody<B> {
        #[pin]
        body: B,
        in_flight: Option<InFlight>,
    }
}

impl<B: MessageBody> MessageBody for AnswerBody<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.project().body.poll_next(cx)
    }
}
