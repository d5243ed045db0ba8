//! The way over Redis: rooms that span machines. Every worker is a server of its own there.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, FromRedisValue, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError};
use socketioxide_redis::drivers::{ChanItem, MessageStream};
use tokio::sync::mpsc;

/// How long an attempt to connect may take, and an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether a server has gone, while its answer is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often it is tried to connect anew for one command; the next command tries again.
const ATTEMPTS: usize = 3;

/// Publishes and subscribes over Redis. Cheap to clone; all clones share a connection, which is made again when it is lost, with
/// everything that was subscribed.
#[derive(Clone)]
pub struct RedisDriver {
    connection: ConnectionManager,
    channels: Arc<Channels>,
}

/// Tells when a server of a namespace goes: nobody says so by Redis, so it is looked.
pub(super) struct Watch {
    connection: ConnectionManager,
    /// What the names of the servers' own channels begin with.
    prefix: String,
}

#[derive(Default)]
struct Channels(Mutex<HashMap<String, mpsc::Sender<ChanItem>>>);

impl RedisDriver {
    /// Connects when it is used first.
    ///
    /// # Errors
    ///
    /// When the URL is none.
    pub(super) fn new(url: &str) -> Result<Self, RedisError> {
        let info = url.into_connection_info()?;
        // Messages come unasked for only in this version.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(settings))?;
        let channels = Arc::<Channels>::default();
        let receiver = Arc::clone(&channels);
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(ATTEMPTS)
            .set_max_delay(PATIENCE)
            .set_push_sender(move |info| {
                receiver.receive(info);
                Ok::<(), Infallible>(())
            })
            .set_automatic_resubscription();
        Ok(Self { connection: ConnectionManager::new_lazy_with_config(client, config)?, channels })
    }

    pub(super) async fn publish(&self, channel: String, message: Vec<u8>) -> Result<(), RedisError> {
        self.connection.clone().publish::<_, _, ()>(channel, message).await
    }

    pub(super) async fn subscribe(&self, channel: String, size: usize) -> Result<MessageStream<ChanItem>, RedisError> {
        let (sender, receiver) = mpsc::channel(size);
        // Before it is in force: what comes at once must find its place.
        self.channels.lock().insert(channel.clone(), sender);
        self.connection.clone().subscribe(channel).await?;
        Ok(MessageStream::new(receiver))
    }

    pub(super) async fn unsubscribe(&self, channel: String) -> Result<(), RedisError> {
        self.channels.lock().remove(&channel);
        self.connection.clone().unsubscribe(channel).await
    }

    /// How many servers have subscribed to a channel, this one included.
    pub(super) async fn subscribers(&self, channel: &str) -> Result<u16, RedisError> {
        let mut command = redis::cmd("PUBSUB");
        let (_, count): (String, u16) =
            command.arg("NUMSUB").arg(channel).query_async(&mut self.connection.clone()).await?;
        Ok(count)
    }

    /// Watches the servers whose own channels begin like this.
    pub(super) fn watch(&self, prefix: String) -> Watch {
        Watch { connection: self.connection.clone(), prefix }
    }
}

impl Watch {
    /// The channels of all servers that are there.
    pub(super) async fn servers(&self) -> Result<HashSet<String>, RedisError> {
        let mut command = redis::cmd("PUBSUB");
        command.arg("CHANNELS").arg(format!("{}*", literal(&self.prefix)));
        command.query_async(&mut self.connection.clone()).await
    }

    /// Waits until one of these servers is gone.
    pub(super) async fn loss(&self, servers: &HashSet<String>) -> Result<(), RedisError> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !servers.is_subset(&self.servers().await?) {
                return Ok(());
            }
        }
    }
}

/// A text as a pattern that nothing else matches.
fn literal(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| ['\\'; 1].into_iter().filter(move |_| "*?[]\\".contains(c)).chain([c]));
    escaped.collect()
}

impl Channels {
    fn receive(&self, info: PushInfo) {
        let PushInfo { kind: PushKind::Message, data } = info else { return };
        let mut parts = data.into_iter();
        let (Some(channel), Some(message)) = (parts.next(), parts.next()) else { return };
        let (Ok(channel), Ok(message)) = (String::from_redis_value(channel), Vec::from_redis_value(message)) else {
            return;
        };
        let sender = self.lock().get(&channel).cloned();
        // Called on the connection's own task, which must not wait.
        if let Some(sender) = sender
            && let Err(error) = sender.try_send((channel.clone(), message))
        {
            tracing::warn!(target: "sticky", %error, channel, "this worker is too slow for what others emit");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, mpsc::Sender<ChanItem>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RedisDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisDriver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_patterns() {
        assert_eq!(literal("socket.io-request#/a*[b]?\\#"), "socket.io-request#/a\\*\\[b\\]\\?\\\\#");
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_an_error() {
        assert!(RedisDriver::new("redis://").is_err() || RedisDriver::new("http://h").is_err());
        assert!(RedisDriver::new("redis://127.0.0.1:1").is_ok(), "it connects when it is used");
    }
}
