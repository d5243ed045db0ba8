//! Who has subscribed to what, here and elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::link::Link;
use super::mailbox::{BusBacklog, Mailbox};
use super::message::{BusMessage, BusPeer};
use crate::id::WorkerId;
use crate::scoreboard::{Headcount, Row};

/// What all handles of a process share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) me: BusPeer,
    pub(super) workers: Headcount,
    pub(super) row: Row,
    state: Mutex<State>,
    peers: watch::Sender<Arc<[BusPeer]>>,
    /// Something has changed that somebody may wait for.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<Arc<str>, Topic>,
    links: Vec<Arc<Link>>,
    /// Counts what this process has said about its subscriptions.
    serial: u64,
}

#[derive(Debug, Default)]
struct Topic {
    mailboxes: Vec<Arc<Mailbox>>,
    /// The peers with subscriptions, and how many.
    peers: Vec<(Arc<Link>, u32)>,
}

/// Who is to get a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    All,
    Worker(WorkerId),
}

/// Where a message goes.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) topic: Arc<str>,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    pub(super) links: Vec<Arc<Link>>,
}

impl Hub {
    pub(super) fn new(me: BusPeer, workers: impl Into<Headcount>, row: Row) -> Self {
        let workers = workers.into();
        let peers = watch::Sender::new(Arc::from([]));
        Self { me, workers, row, state: Mutex::default(), peers, news: watch::Sender::new(()) }
    }

    // === Subscriptions ===

    /// A new subscription's topic and mailbox, and what to wait for until every peer knows of it. From here on it gets what
    /// is published in this process.
    pub(super) fn subscribe(&self, topic: &str, backlog: BusBacklog) -> (Arc<str>, Arc<Mailbox>, u64) {
        let mailbox = Arc::new(Mailbox::new(backlog));
        let mut state = self.state();
        let name = state.name(topic);
        let entry = state.topics.entry(Arc::clone(&name)).or_default();
        entry.mailboxes.push(Arc::clone(&mailbox));
        let count = entry.count();
        state.serial += 1;
        let serial = state.serial;
        for link in &state.links {
            link.say(|lanes| {
                lanes.interest(&name, count);
                lanes.sync(serial);
            });
        }
        (name, mailbox, serial)
    }

    /// Whether a process of this slot takes part.
    pub(super) fn is_there(&self, worker: WorkerId) -> bool {
        worker == self.me.worker || self.peers.borrow().iter().any(|peer| peer.worker == worker)
    }

    pub(super) fn unsubscribe(&self, topic: &Arc<str>, mailbox: &Arc<Mailbox>) {
        let mut state = self.state();
        let Some(entry) = state.topics.get_mut(topic) else { return };
        entry.mailboxes.retain(|other| !Arc::ptr_eq(other, mailbox));
        let count = entry.count();
        state.forget_if_unused(topic);
        for link in &state.links {
            link.say(|lanes| lanes.interest(topic, count));
        }
    }

    /// Asks every peer for an answer to what it was told; tells what to wait for.
    pub(super) fn ask(&self) -> u64 {
        let mut state = self.state();
        state.serial += 1;
        let serial = state.serial;
        state.links.iter().for_each(|link| link.say(|lanes| lanes.sync(serial)));
        serial
    }

    /// Waits until every peer knows what this process had subscribed to at that time.
    pub(super) async fn settled(&self, serial: u64) {
        self.until(|links| links.iter().all(|link| link.is_settled(serial))).await;
    }

    /// Waits until every peer there is has said what it has subscribed to.
    pub(super) async fn greeted(&self) {
        self.until(|links| links.iter().all(|link| link.is_greeted() || link.is_silent())).await;
    }

    pub(super) async fn until(&self, is_so: impl Fn(&[Arc<Link>]) -> bool) {
        let mut news = self.news.subscribe();
        while !is_so(&self.state().links) {
            // The sender is here, so it cannot fail.
            let _ = news.changed().await;
        }
    }

    /// How many processes have subscribed to the topic, and how many subscriptions they have.
    pub(super) fn count(&self, topic: &str) -> (usize, usize) {
        let state = self.state();
        let Some(entry) = state.topics.get(topic) else { return (0, 0) };
        let here = entry.mailboxes.len();
        let there: usize = entry.peers.iter().map(|(_, count)| *count as usize).sum();
        (usize::from(here > 0) + entry.peers.len(), here + there)
    }

    /// The peers with subscriptions to the topic.
    pub(super) fn subscribed(&self, topic: &str) -> Vec<BusPeer> {
        let state = self.state();
        state.topics.get(topic).map(|entry| entry.peers.iter().map(|(link, _)| link.peer).collect()).unwrap_or_default()
    }

    // === Messages ===

    /// Where a message of this process goes; nowhere if nobody has subscribed.
    pub(super) fn targets(&self, topic: &str, to: To) -> Option<Targets> {
        let state = self.state();
        let (topic, entry) = state.topics.get_key_value(topic)?;
        let (is_for_us, links) = match to {
            To::All => (true, entry.peers.iter().map(|(link, _)| Arc::clone(link)).collect()),
            To::Worker(worker) => {
                let is_there = |link: &&Arc<Link>| link.peer.worker == worker;
                let newest = entry.peers.iter().map(|(link, _)| link).filter(is_there).max_by_key(|link| link.peer);
                let is_us = self.me.worker == worker && !entry.mailboxes.is_empty();
                match newest {
                    Some(link) if !is_us || link.peer > self.me => (false, vec![Arc::clone(link)]),
                    _ => (is_us, Vec::new()),
                }
            }
        };
        let mailboxes = if is_for_us { entry.mailboxes.clone() } else { Vec::new() };
        Some(Targets { topic: Arc::clone(topic), mailboxes, links })
    }

    /// Gives a peer's message to the subscriptions of this process.
    pub(super) fn receive(&self, from: BusPeer, topic: &str, payload: &Bytes) {
        let state = self.state();
        let Some((topic, entry)) = state.topics.get_key_value(topic) else { return };
        let (topic, mailboxes) = (Arc::clone(topic), entry.mailboxes.clone());
        drop(state);
        self.deliver(from, &topic, &mailboxes, payload);
    }

    pub(super) fn deliver(&self, from: BusPeer, topic: &Arc<str>, mailboxes: &[Arc<Mailbox>], payload: &Bytes) {
        for mailbox in mailboxes {
            let message = BusMessage { from, topic: Arc::clone(topic), payload: payload.clone() };
            self.row.bus_delivered();
            self.row.bus_lagged(mailbox.push(message));
        }
    }

    // === Peers ===

    pub(super) fn watch_peers(&self) -> watch::Receiver<Arc<[BusPeer]>> {
        self.peers.subscribe()
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.state().links.clone()
    }

    /// A peer is there: it is told everything this process has subscribed to.
    pub(super) fn connect(&self, link: &Arc<Link>) {
        let mut state = self.state();
        link.say(|lanes| {
            let ours = state.topics.iter().filter(|(_, entry)| !entry.mailboxes.is_empty());
            ours.for_each(|(topic, entry)| lanes.interest(topic, entry.count()));
            lanes.sync(state.serial);
        });
        state.links.push(Arc::clone(link));
    }

    /// A peer is gone, with its subscriptions.
    pub(super) fn disconnect(&self, link: &Arc<Link>) {
        let mut state = self.state();
        state.links.retain(|other| !Arc::ptr_eq(other, link));
        state.topics.retain(|_, entry| {
            entry.peers.retain(|(other, _)| !Arc::ptr_eq(other, link));
            !entry.is_unused()
        });
        link.close();
        self.tell_peers(&state);
        drop(state);
        self.news.send_replace(());
    }

    /// A peer says how many subscriptions to a topic it has.
    pub(super) fn set_interest(&self, link: &Arc<Link>, topic: &str, count: u32) {
        let mut state = self.state();
        let topic = state.name(topic);
        let entry = state.topics.entry(Arc::clone(&topic)).or_default();
        entry.peers.retain(|(other, _)| !Arc::ptr_eq(other, link));
        if count > 0 {
            entry.peers.push((Arc::clone(link), count));
        }
        state.forget_if_unused(&topic);
    }

    /// A peer wants to know when what it has said has taken effect.
    pub(super) fn answer(&self, link: &Arc<Link>, serial: u64) {
        if link.greet() {
            self.tell_peers(&self.state());
            self.news.send_replace(());
        }
        link.say(|lanes| lanes.synced(serial));
    }

    /// A peer answers.
    pub(super) fn answered(&self, link: &Link, serial: u64) {
        link.answer(serial);
        self.news.send_replace(());
    }

    /// A peer has to be waited for, or not.
    pub(super) fn set_silent(&self, link: &Link, silent: bool) {
        if link.set_silent(silent) {
            self.news.send_replace(());
        }
    }

    fn tell_peers(&self, state: &State) {
        let mut peers: Vec<BusPeer> =
            state.links.iter().filter(|link| link.is_greeted()).map(|link| link.peer).collect();
        peers.sort_unstable();
        self.peers.send_if_modified(|known| {
            let is_news = known[..] != peers[..];
            *known = peers.into();
            is_news
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// This topic's name, shared with everybody who has it already.
    fn name(&self, topic: &str) -> Arc<str> {
        self.topics.get_key_value(topic).map_or_else(|| topic.into(), |(name, _)| Arc::clone(name))
    }

    fn forget_if_unused(&mut self, topic: &str) {
        if self.topics.get(topic).is_some_and(Topic::is_unused) {
            self.topics.remove(topic);
        }
    }
}

impl Topic {
    /// How many subscriptions this process has.
    fn count(&self) -> u32 {
        u32::try_from(self.mailboxes.len()).unwrap_or(u32::MAX)
    }

    fn is_unused(&self) -> bool {
        self.mailboxes.is_empty() && self.peers.is_empty()
    }
}
