//! What servers tell each other, beside what they tell their clients: Socket.IO's `serverSideEmit`, which socketioxide lacks.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::OnceLock;

use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socketioxide_core::{Sid, Uid};
use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};
use sticky_core::Worker;

use crate::adapter::{AdapterState, Way};
use crate::error::Error;

/// How many messages of one event may wait for its handler, beside those that wait on the bus.
const WAITING: usize = 1024;

/// Events between the servers of an application: its other workers, those of other machines included where Redis is set.
/// Nobody hears what they have emitted themselves. Cheap to clone.
///
/// Messages of one server to one event arrive in order. A server that does not keep up loses some, with a warning.
///
/// ```no_run
/// # async fn on_connect(_: sticky_socketio::extract::SocketRef) {}
/// # async fn example() -> Result<(), sticky_socketio::ServeError> {
/// use sticky_socketio::ServerSide;
///
/// let cluster = sticky_socketio::cluster_builder().build()?;
/// sticky_socketio::serve_with(cluster, |worker, io| async move {
///     let servers = ServerSide::new(&worker)?;
///     servers.on("prices", async |price: u64| println!("it costs {price} now")).await?;
///     servers.emit("prices", &42).await?;
///     io.ns("/", on_connect).await?;
///     Ok(axum::Router::new())
/// })
/// .await
/// # }
/// ```
#[derive(Clone)]
pub struct ServerSide {
    way: Way,
    prefix: String,
}

impl ServerSide {
    /// By the same way as the adapter of this worker: the bus, or Redis.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside of a tokio runtime; what is wrong with `redis_url`.
    pub fn new(worker: &Worker) -> Result<Self, Error> {
        tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let state = AdapterState::new(worker)?;
        Ok(Self { way: state.way(), prefix: state.prefix().to_owned() })
    }

    /// Emits an event to all other servers that listen for it.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] when the value cannot be written; else when the others cannot be reached.
    pub async fn emit<T: Serialize + ?Sized>(&self, event: &str, value: &T) -> Result<(), Error> {
        let message = rmp_serde::to_vec_named(&(me(), value))?;
        self.way.publish(self.channel(event), message).await
    }

    /// Has `handler` called for every such event, one after the other; the next waits until its future is done. In force once
    /// this has been awaited. A second handler of the same event takes the place of the first.
    ///
    /// A value that is not of the handler's type is left out, with a warning; a panic of the handler ends that call alone.
    ///
    /// # Errors
    ///
    /// When the others cannot be reached.
    pub async fn on<T, F, Fut>(&self, event: &str, handler: F) -> Result<(), Error>
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let messages = self.way.subscribe(self.channel(event), WAITING).await?;
        // The way ends the stream when another handler takes its place.
        tokio::spawn(hear(messages, event.to_owned(), handler));
        Ok(())
    }

    fn channel(&self, event: &str) -> String {
        format!("{}-server#{event}", self.prefix)
    }
}

/// This server, as it is named in its messages.
fn me() -> Uid {
    static ME: OnceLock<Uid> = OnceLock::new();
    *ME.get_or_init(Uid::new)
}

async fn hear<T, F, Fut>(messages: MessageStream<ChanItem>, event: String, handler: F)
where
    T: DeserializeOwned,
    F: Fn(T) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut messages = pin!(messages);
    while let Some((_, message)) = next(messages.as_mut()).await {
        match of_another(&message) {
            // In a task of its own: the events after one that makes it panic are heard all the same.
            Ok(Some(value)) => drop(tokio::spawn(handler(value)).await),
            Ok(None) => {}
            Err(error) => tracing::warn!(target: "sticky", %error, event, "another server's event cannot be read"),
        }
    }
}

async fn next<S: Stream>(mut messages: Pin<&mut S>) -> Option<S::Item> {
    poll_fn(|context| messages.as_mut().poll_next(context)).await
}

/// The value of a message, if it is another server's.
fn of_another<T: DeserializeOwned>(message: &[u8]) -> Result<Option<T>, rmp_serde::decode::Error> {
    let mut rest = message;
    let mut text = [0; Sid::ZERO.as_str().len()];
    let sender = rmp::decode::read_array_len(&mut rest)
        .ok()
        .and_then(|_| rmp::decode::read_str(&mut rest, &mut text).ok()?.parse::<Uid>().ok());
    match sender {
        Some(sender) if sender == me() => Ok(None),
        Some(_) => rmp_serde::from_slice(rest).map(Some),
        None => Err(rmp_serde::decode::Error::Uncategorized("no server's message".to_owned())),
    }
}

impl fmt::Debug for ServerSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSide").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_one_call_alone() {
        let (others, messages) = tokio::sync::mpsc::channel(4);
        let (heard, mut values) = tokio::sync::mpsc::channel(4);
        let hearing = tokio::spawn(hear(MessageStream::new(messages), "prices".to_owned(), move |price: u8| {
            let heard = heard.clone();
            async move {
                assert_ne!(price, 1, "the handler has a bug");
                heard.send(price).await.unwrap();
            }
        }));
        for price in 0..3_u8 {
            let message = rmp_serde::to_vec_named(&(Uid::new(), price)).unwrap();
            others.send(("prices".to_owned(), message)).await.unwrap();
        }
        drop(others);
        hearing.await.unwrap();
        assert_eq!((values.recv().await, values.recv().await, values.recv().await), (Some(0), Some(2), None));
    }

    #[test]
    fn what_others_say_is_read_and_nothing_else() {
        let message = |from: Uid| rmp_serde::to_vec_named(&(from, ("a", 1))).unwrap();
        assert_eq!(of_another::<(String, u8)>(&message(me())).unwrap(), None);
        assert_eq!(of_another(&message(Uid::new())).unwrap(), Some(("a".to_owned(), 1)));
        assert!(of_another::<u8>(&message(Uid::new())).is_err(), "of another type");
        for rubbish in [&b""[..], b"\x92", b"\x92\xa1x", &[0xc1; 40]] {
            assert!(of_another::<u8>(rubbish).is_err(), "{rubbish:?}");
        }
    }
}
