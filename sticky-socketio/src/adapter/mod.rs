//! The adapter: rooms, emits and acknowledgements across workers.
//!
//! ```text
//!  SocketIo ─► Adapter ─► socketioxide's adapter for publish and subscribe ─► Way ─► the bus, or Redis
//! ```
//!
//! The protocol between servers is socketioxide's own; what is ours is the way, and who counts as a server.

mod acks;
mod bus;
mod ledger;
#[cfg(feature = "redis")]
mod redis;
mod way;
mod wire;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socketioxide::adapter::Emitter;
use socketioxide_core::adapter::errors::BroadcastError;
use socketioxide_core::adapter::{
    BroadcastOptions, CoreAdapter, CoreLocalAdapter, DefinedAdapter, RemoteSocketData, Room, RoomParam, SocketEmitter,
    Spawnable,
};
use socketioxide_core::packet::Packet;
use socketioxide_redis::{CustomRedisAdapter, InitError, RedisAdapterConfig, RedisAdapterCtr};
use sticky_core::{Bus, Worker};

pub use self::acks::Acks;
pub use self::bus::BusDriver;
use self::bus::Kind;
#[cfg(feature = "redis")]
pub use self::redis::RedisDriver;
pub use self::way::Way;
use crate::error::Error;

/// The beginning of every topic's name on the bus.
const ON_THE_BUS: &str = "socket.io";

/// What follows it in the names of all channels: the version that the messages are of. Generations of a worker that speak
/// differently do not hear each other.
const VERSION: &str = "-0.20";

/// How long an answer of another worker may take that is there and does not answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How many acknowledgements may wait until they are read; what does not fit is lost, so that is many.
const ACK_BUFFER: usize = 64 * 1024;

/// How many messages of one topic may wait until they are taken care of, beside those that wait on the bus.
const STREAM_BUFFER: usize = 1024;

type Inner<E> = CustomRedisAdapter<E, Way>;

/// The adapter behind every [`SocketIo`](crate::SocketIo) here.
pub struct Adapter<E: SocketEmitter = Emitter> {
    inner: Arc<Inner<E>>,
    /// Who tells when other servers go, where that has to be asked for.
    #[cfg(feature = "redis")]
    watch: Option<redis::Watch>,
}

impl<E: SocketEmitter> Adapter<E> {
    /// Asks all servers something that does not change anything, and once more if one of them goes meanwhile.
    async fn ask<T, F>(&self, kind: Kind, ask: impl Fn() -> F) -> Result<T, AdapterError>
    where
        F: Future<Output = Result<T, socketioxide_redis::Error<Way>>>,
    {
        #[cfg(feature = "redis")]
        if let Some(watch) = &self.watch {
            let servers = watch.servers().await.map_err(driver)?;
            tokio::select! {
                biased;
                answers = ask() => return Ok(answers?),
                gone = watch.loss(&servers) => gone.map_err(driver)?,
            }
        }
        // Over Redis for the second time: who answers nothing now is waited for.
        Ok(BusDriver::asking(kind, REQUEST_TIMEOUT, ask()).await?)
    }
}

#[cfg(feature = "redis")]
fn driver(error: ::redis::RedisError) -> socketioxide_redis::Error<Way> {
    socketioxide_redis::Error::Driver(error.into())
}

/// What adapters are made from.
#[derive(Debug)]
pub struct AdapterState {
    bus: Bus,
    /// In place of the bus.
    #[cfg(feature = "redis")]
    redis: Option<RedisDriver>,
    /// The beginning of every channel's name.
    prefix: String,
}

impl AdapterState {
    #[cfg(feature = "redis")]
    pub(crate) fn new(worker: &Worker) -> Result<Self, Error> {
        let redis = worker.redis_url().map(RedisDriver::new).transpose()?;
        let prefix = if redis.is_some() { worker.redis_prefix() } else { ON_THE_BUS };
        Ok(Self { bus: worker.bus(), redis, prefix: format!("{prefix}{VERSION}") })
    }

    #[cfg(not(feature = "redis"))]
    pub(crate) fn new(worker: &Worker) -> Result<Self, Error> {
        if worker.redis_url().is_some() {
            return Err(Error::WithoutRedis);
        }
        Ok(Self { bus: worker.bus(), prefix: format!("{ON_THE_BUS}{VERSION}") })
    }

    /// What the adapter of one namespace is made from.
    fn constructor(&self) -> RedisAdapterCtr<Way> {
        let config = RedisAdapterConfig::new()
            .with_prefix(self.prefix.clone())
            .with_request_timeout(REQUEST_TIMEOUT)
            .with_ack_response_buffer(ACK_BUFFER)
            .with_stream_buffer(STREAM_BUFFER);
        RedisAdapterCtr::new_with_driver(self.way(), config)
    }

    /// The beginning of every channel's name.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn way(&self) -> Way {
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.redis {
            return Way::Redis(redis.clone());
        }
        Way::Bus(BusDriver::new(self.bus.clone()))
    }
}

impl<E: SocketEmitter> DefinedAdapter for Adapter<E> {}

impl<E: SocketEmitter> CoreAdapter<E> for Adapter<E> {
    type Error = AdapterError;
    type State = AdapterState;
    type AckStream = Acks<<Inner<E> as CoreAdapter<E>>::AckStream>;
    type InitRes = InitFuture;

    fn new(state: &AdapterState, local: CoreLocalAdapter<E>) -> Self {
        #[cfg(feature = "redis")]
        let watch =
            state.redis.as_ref().map(|redis| redis.watch(format!("{}-request#{}#", state.prefix, local.path())));
        Self {
            inner: Arc::new(Inner::new(&state.constructor(), local)),
            #[cfg(feature = "redis")]
            watch,
        }
    }

    fn init(self: Arc<Self>, on_success: impl FnOnce() + Send + 'static) -> InitFuture {
        let init = Arc::clone(&self.inner).init(on_success);
        InitFuture(Box::pin(async move {
            init.await.map_err(|error| match error {
                InitError::Driver(error) => error,
                InitError::MalformedNamespace => Error::MalformedNamespace,
            })
        }))
    }

    async fn close(&self) -> Result<(), AdapterError> {
        Ok(self.inner.close().await?)
    }

    async fn server_count(&self) -> Result<u16, AdapterError> {
        Ok(self.inner.server_count().await?)
    }

    fn broadcast(
        &self,
        packet: Packet,
        options: BroadcastOptions,
    ) -> impl Future<Output = Result<(), BroadcastError>> + Send {
        self.inner.broadcast(packet, options)
    }

    async fn broadcast_with_ack(
        &self,
        packet: Packet,
        options: BroadcastOptions,
        timeout: Option<Duration>,
    ) -> Result<Self::AckStream, AdapterError> {
        let patience = timeout.unwrap_or_else(|| self.get_local().ack_timeout()).saturating_add(REQUEST_TIMEOUT);
        let ask = self.inner.broadcast_with_ack(packet, options, timeout);
        Ok(Acks::new(BusDriver::asking(Kind::Acks, patience, ask).await?))
    }

    async fn add_sockets(&self, options: BroadcastOptions, rooms: impl RoomParam) -> Result<(), AdapterError> {
        Ok(self.inner.add_sockets(options, rooms).await?)
    }

    async fn del_sockets(&self, options: BroadcastOptions, rooms: impl RoomParam) -> Result<(), AdapterError> {
        Ok(self.inner.del_sockets(options, rooms).await?)
    }

    fn disconnect_socket(&self, options: BroadcastOptions) -> impl Future<Output = Result<(), BroadcastError>> + Send {
        self.inner.disconnect_socket(options)
    }

    async fn rooms(&self, options: BroadcastOptions) -> Result<Vec<Room>, AdapterError> {
        self.ask(Kind::Rooms, || self.inner.rooms(options.clone())).await
    }

    async fn fetch_sockets(&self, options: BroadcastOptions) -> Result<Vec<RemoteSocketData>, AdapterError> {
        self.ask(Kind::Sockets, || self.inner.fetch_sockets(options.clone())).await
    }

    fn get_local(&self) -> &CoreLocalAdapter<E> {
        self.inner.get_local()
    }
}

/// Why other workers could not be asked, or told.
#[derive(Debug, thiserror::Error)]
#[error("the other workers cannot be reached")]
pub struct AdapterError(#[from] socketioxide_redis::Error<Way>);

impl From<AdapterError> for socketioxide_core::adapter::errors::AdapterError {
    fn from(error: AdapterError) -> Self {
        Self::from(Box::new(error) as Box<dyn std::error::Error + Send>)
    }
}

/// A namespace that is being set up, from [`SocketIo::ns`](crate::SocketIo::ns): once this is done, what other workers
/// emit reaches it. Await it before the worker is ready.
#[must_use = "a namespace is there once this has been awaited"]
pub struct InitFuture(Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>);

impl Future for InitFuture {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// For namespaces that are made when their first client comes.
impl Spawnable for InitFuture {
    fn spawn(self) {
        tokio::spawn(async move {
            if let Err(error) = self.await {
                tracing::error!(target: "sticky", %error, "a namespace could not be set up");
            }
        });
    }
}

impl fmt::Debug for InitFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitFuture").finish_non_exhaustive()
    }
}

impl<E: SocketEmitter> fmt::Debug for Adapter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter").finish_non_exhaustive()
    }
}
