//! The way to other servers, chosen when the program runs: the types are the same.

use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};

use super::bus::BusDriver;
#[cfg(feature = "redis")]
use super::redis::RedisDriver;
use crate::error::Error;

/// How servers reach each other.
#[derive(Clone, Debug)]
pub enum Way {
    /// The workers of this cluster, over its bus.
    Bus(BusDriver),
    /// The workers of all machines, over Redis.
    #[cfg(feature = "redis")]
    Redis(RedisDriver),
}

impl Driver for Way {
    type Error = Error;

    async fn publish(&self, channel: String, message: Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Bus(bus) => Ok(bus.publish(channel, message).await?),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => Ok(redis.publish(channel, message).await?),
        }
    }

    async fn subscribe(&self, channel: String, size: usize) -> Result<MessageStream<ChanItem>, Error> {
        match self {
            Self::Bus(bus) => Ok(bus.subscribe(channel, size).await?),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => Ok(redis.subscribe(channel, size).await?),
        }
    }

    async fn unsubscribe(&self, channel: String) -> Result<(), Error> {
        match self {
            Self::Bus(bus) => bus.unsubscribe(&channel),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => redis.unsubscribe(channel).await?,
        }
        Ok(())
    }

    async fn num_serv(&self, channel: &str) -> Result<u16, Error> {
        match self {
            Self::Bus(bus) => Ok(bus.subscribers(channel).await?),
            #[cfg(feature = "redis")]
            Self::Redis(redis) => Ok(redis.subscribers(channel).await?),
        }
    }
}
