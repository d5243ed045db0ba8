//! The application, fed with one connection at a time.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::{Extensions, HttpService, KeepAlive, Protocol, Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, map_config};
use actix_web::Error;
use actix_web::dev::AppConfig;
use sticky_core::integration::{self, Attended};
use sticky_core::{BoxError, Connection, Worker};
use tokio::task::spawn_local;

use crate::hidden::app_config;
use crate::service::attended;

/// How long actix reads on after it has announced the end with part of a request unread, so that its client gets the
/// response: `HttpServer`'s default.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A future that stays on its thread.
pub(crate) type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Makes instances of the application, one for each thread.
pub(crate) trait Factory: Send {
    /// An instance, told that it is served at this address.
    fn make(&self, address: SocketAddr) -> LocalFuture<Result<Box<dyn Feed>, BoxError>>;

    /// The same for another thread.
    fn another(&self) -> Box<dyn Factory>;
}

/// An instance of the application.
pub(crate) trait Feed {
    /// Serves this connection in a task of its own, and drops `held` with it.
    fn serve(&self, connection: Connection, worker: &Worker, held: Box<dyn std::any::Any>);
}

/// The user's factory.
pub(crate) struct AppFactory<F, I, S, B> {
    make: F,
    makes: PhantomData<Makes<I, S, B>>,
}

/// What comes of it: an application, its services, the bodies of its responses.
type Makes<I, S, B> = fn() -> (I, S, B);

impl<F, I, S, B> AppFactory<F, I, S, B> {
    pub(crate) fn new(make: F) -> Self {
        Self { make, makes: PhantomData }
    }
}

impl<F, I, S, B> Factory for AppFactory<F, I, S, B>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request> + 'static,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    fn make(&self, address: SocketAddr) -> LocalFuture<Result<Box<dyn Feed>, BoxError>> {
        let app = map_config((self.make)().into_factory(), move |()| app_config(address));
        // The guard or the attendance minds the time, and the attendance the drain.
        let service = HttpService::build()
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .local_addr(address)
            .on_connect_ext(|socket: &Attended, extensions: &mut Extensions| {
                extensions.insert(socket.attendance().clone());
            })
            .finish(attended(app))
            .new_service(());
        Box::pin(async move {
            // actix has said why, by its logger.
            let service = service.await.map_err(|()| "the application's services cannot be made")?;
            Ok(Box::new(Instance(Rc::new(service))) as Box<dyn Feed>)
        })
    }

    fn another(&self) -> Box<dyn Factory> {
        Box::new(Self::new(self.make.clone()))
    }
}

/// An instance of the application, as actix serves it.
struct Instance<S>(Rc<S>);

impl<S> Feed for Instance<S>
where
    S: Service<(Attended, Protocol, Option<SocketAddr>), Response = (), Error: fmt::Display> + 'static,
{
    fn serve(&self, connection: Connection, worker: &Worker, held: Box<dyn std::any::Any>) {
        let service = Rc::clone(&self.0);
        let socket = Attended::new(connection, worker);
        let attendance = socket.attendance().clone();
        spawn_local(async move {
            attendance.look_after(serve(service, socket)).await;
            drop(held);
        });
    }
}

async fn serve<S>(service: Rc<S>, mut socket: Attended)
where
    S: Service<(Attended, Protocol, Option<SocketAddr>), Response = (), Error: fmt::Display>,
{
    let protocol = match socket.protocol().await {
        Ok(Some(integration::Protocol::Http2)) => Protocol::Http2,
        Ok(Some(_)) => Protocol::Http1,
        Ok(None) | Err(_) => return,
    };
    let client = socket.attendance().client_addr();
    let serving = async {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call((socket, protocol, client)).await
    };
    if let Err(error) = serving.await {
        tracing::debug!(target: "sticky", %error, "a connection ended early");
    }
}
