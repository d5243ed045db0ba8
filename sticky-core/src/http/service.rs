//! The application's service with what every request needs around it.

use std::cell::{RefCell, RefMut};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::Service;
use pin_project_lite::pin_project;

use super::activity::{Activity, InFlight};
use super::berth::Berth;
use super::body::{RequestBody, ResponseBody};
use super::keeper::{Keeper, Visit};
use crate::integration::forwarded;
use crate::worker::Home;

/// Counts requests, and knows which are in flight.
pub(crate) struct Tracked<S> {
    guest: RefCell<Guest<S>>,
    activity: Arc<Activity>,
    berth: Option<Arc<Berth<S>>>,
}

/// What serves one client's connection, and what is to be known of that.
pub(crate) struct Guest<S> {
    pub(crate) service: S,
    /// Keeps sessions where they are, where that takes more than their keys' hashes.
    pub(crate) keeper: Option<Keeper>,
    /// Who is there, where it matters whether that is a proxy. Once it is known that is not looked at again.
    pub(crate) suspect: Option<SocketAddr>,
    /// Where the client is at home, where its connection cannot follow it there.
    pub(crate) home: Option<Home>,
}

impl<S> Tracked<S> {
    /// With a `berth` other guests come after this one.
    pub(crate) fn new(guest: Guest<S>, activity: Arc<Activity>, berth: Option<Arc<Berth<S>>>) -> Self {
        Self { guest: RefCell::new(guest), activity, berth }
    }

    /// Whose request begins.
    fn guest(&self) -> RefMut<'_, Guest<S>> {
        let mut guest = self.guest.borrow_mut();
        if let Some(next) = self.berth.as_ref().and_then(|berth| berth.take_guest()) {
            *guest = next;
        }
        guest
    }
}

impl<S, B> Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = Tracking<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let mut guest = self.guest();
        let visit = guest.keeper.as_ref().map(|keeper| keeper.request(request.headers_mut()));
        if let Some(peer) = guest.suspect.take() {
            forwarded::warn_once(request.headers(), peer);
        }
        let in_flight = self.activity.begin();
        let kind = Kind { is_connect: request.method() == Method::CONNECT, version: request.version() };
        let request = request.map(|incoming| RequestBody::new(incoming, &self.activity));
        Tracking { response: guest.service.call(request), in_flight: Some(in_flight), kind, visit }
    }
}

/// What must be known of a request to judge its response.
#[derive(Clone, Copy)]
struct Kind {
    is_connect: bool,
    version: Version,
}

pin_project! {
    /// A response in the making.
    pub(crate) struct Tracking<F> {
        #[pin]
        response: F,
        in_flight: Option<InFlight>,
        kind: Kind,
        visit: Option<Visit>,
    }
}

impl<F, B, E> Future for Tracking<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.response.poll(cx))?;
        let in_flight = this.in_flight.take().expect("a future is not polled after its end");
        this.kind.settle(&mut response, in_flight.activity());
        if let Some(visit) = this.visit {
            visit.response(response.headers_mut());
        }
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, in_flight))))
    }
}

impl Kind {
    /// Notices the way out of HTTP, and announces the end of a connection that drains.
    fn settle<B>(self, response: &mut Response<B>, activity: &Activity) {
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (self.is_connect && status.is_success()) {
            activity.tunnel();
        } else if self.version < Version::HTTP_2 && activity.is_last() {
            // hyper closes after a response that says so. A client that is told does not lose its next request.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}
