//! The way over Redis: rooms that span machines. Every worker is a server of its own there.

use std::collections::HashMap;
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

/// How often it is tried to connect anew for one command; the next command tries again.
const ATTEMPTS: usize = 3;

/// Publishes and subscribes over Redis. Cheap to clone; all clones share a connection, which is made again when it is lost, with
/// everything that was subscribed.
#[derive(Clone)]
pub struct RedisDriver {
    connection: ConnectionManager,
    channels: Arc<Channels>,
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
