//! Who has subscribed to what in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::mailbox::{Backlog, Mailbox};
use super::message::{BusMessage, BusPeer};

/// What all handles of a process share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) me: BusPeer,
    pub(super) workers: u16,
    topics: Mutex<HashMap<Arc<str>, Topic>>,
    peers: watch::Sender<Arc<[BusPeer]>>,
}

#[derive(Debug, Default)]
struct Topic {
    mailboxes: Vec<Arc<Mailbox>>,
}

impl Hub {
    pub(super) fn new(me: BusPeer, workers: u16) -> Self {
        let (peers, _) = watch::channel(Arc::from([]));
        Self { me, workers, topics: Mutex::default(), peers }
    }

    /// A new subscription's topic and mailbox. From here on it gets what is published in this process.
    pub(super) fn subscribe(&self, topic: &str, backlog: Backlog) -> (Arc<str>, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::new(backlog));
        let mut topics = self.topics();
        let name = topics.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name));
        topics.entry(Arc::clone(&name)).or_default().mailboxes.push(Arc::clone(&mailbox));
        (name, mailbox)
    }

    pub(super) fn unsubscribe(&self, topic: &str, mailbox: &Arc<Mailbox>) {
        let mut topics = self.topics();
        let Some(entry) = topics.get_mut(topic) else { return };
        entry.mailboxes.retain(|other| !Arc::ptr_eq(other, mailbox));
        if entry.mailboxes.is_empty() {
            topics.remove(topic);
        }
    }

    /// How many subscriptions of this process have the topic.
    pub(super) fn subscriptions(&self, topic: &str) -> usize {
        self.topics().get(topic).map_or(0, |entry| entry.mailboxes.len())
    }

    /// Gives a message to the subscriptions of this process; tells to how many.
    pub(super) fn deliver(&self, from: BusPeer, topic: &str, payload: &Bytes) -> usize {
        let topics = self.topics();
        let Some((name, entry)) = topics.get_key_value(topic) else { return 0 };
        let (name, mailboxes) = (Arc::clone(name), entry.mailboxes.clone());
        drop(topics);
        for mailbox in &mailboxes {
            mailbox.push(BusMessage { from, topic: Arc::clone(&name), payload: payload.clone() });
        }
        mailboxes.len()
    }

    pub(super) fn peers(&self) -> watch::Receiver<Arc<[BusPeer]>> {
        self.peers.subscribe()
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Arc<str>, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
