//! The bus, by requests: `POST /bus/<what>/<topic>[/<number>…]`, so that rows can use it in every worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sticky_core::{Bus, BusBacklog, BusError, BusMessage, BusPeer, Lagged, Published, Subscription, WorkerId};
use tokio::sync::watch;

use super::Testbed;

/// How long a request waits for what it is to wait for; then it answers what there is.
const PATIENCE: Duration = Duration::from_secs(30);

/// The topic to subscribe to before a worker is ready.
const EARLY: &str = "TESTBED_BUS_TOPIC";

/// Room for everything that a row may send: what is read at once must not lag on a busy machine.
const ROOMY: BusBacklog = BusBacklog { messages: 1 << 20, bytes: 1 << 30 };

/// Room for the ten newest.
const TIGHT: BusBacklog = BusBacklog { messages: 10, bytes: 1 << 30 };

/// What this worker has subscribed to.
#[derive(Default)]
pub(super) struct Subscribed {
    /// Read all the time.
    read: Mutex<HashMap<String, Vec<Reader>>>,
    /// Read when a request says so.
    unread: Mutex<HashMap<String, Subscription>>,
}

/// A task that reads a subscription, and the lines it has made of it. Dropping it unsubscribes.
struct Reader {
    lines: watch::Receiver<Vec<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Testbed {
    /// What a request to `/bus/<path>` is answered.
    pub async fn bus(&self, path: &str, body: Bytes) -> String {
        let mut words = path.split('/');
        let (what, topic) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let numbers: Vec<usize> = words.map_while(|word| word.parse().ok()).collect();
        let answer = self.on_bus(what, topic, &numbers, body).await;
        answer.unwrap_or_else(|error| format!("error: {error}"))
    }

    /// Subscribes to what the environment says before this worker is ready, as applications do.
    ///
    /// # Errors
    /// As of [`Bus::subscribe`].
    pub async fn subscribe_early(&self) -> Result<(), BusError> {
        if let Ok(topic) = std::env::var(EARLY) {
            self.on_bus("subscribe", &topic, &[], Bytes::new()).await?;
        }
        Ok(())
    }

    async fn on_bus(&self, what: &str, topic: &str, numbers: &[usize], body: Bytes) -> Result<String, BusError> {
        let bus = self.worker.bus();
        let number = |at: usize| numbers.get(at).copied().unwrap_or_default();
        Ok(match what {
            "subscribe" => {
                let reader = read(bus.subscribe_with(topic, ROOMY).await?);
                lock(&self.shared.subscribed.read).entry(topic.to_owned()).or_default().push(reader);
                String::new()
            }
            "subscribe-unread" => {
                let subscription = bus.subscribe_with(topic, TIGHT).await?;
                lock(&self.shared.subscribed.unread).insert(topic.to_owned(), subscription);
                String::new()
            }
            "unsubscribe" => {
                lock(&self.shared.subscribed.read).remove(topic);
                String::new()
            }
            "publish" => published(bus.publish(topic, body).await?),
            "send-to" => {
                let worker = WorkerId::new(u16::try_from(number(0)).unwrap_or(u16::MAX));
                published(bus.send_to(worker, topic, body).await?)
            }
            "send-to-owner" => {
                let worker = self.worker.owner_of(&body);
                published(bus.send_to(worker, topic, body).await?)
            }
            "flood" => published(flood(&bus, topic, number(0), number(1)).await?),
            "count" => format!("{} {}", bus.subscribers(topic).await?, bus.subscriptions(topic).await?),
            "heard" => self.heard(topic, number(0)).await,
            "read" => self.read_on(topic, number(0)).await,
            "peers" => peers(&bus.peers().await?),
            "await-peers" => await_peers(&bus, number(0)).await?,
            "flush" => {
                bus.flush().await?;
                String::new()
            }
            _ => "error: no such thing".to_owned(),
        })
    }

    /// The lines of the first subscription to a topic, once there are so many.
    async fn heard(&self, topic: &str, count: usize) -> String {
        let lines =
            lock(&self.shared.subscribed.read).get(topic).and_then(|all| all.first().map(|one| one.lines.clone()));
        let Some(mut lines) = lines else { return String::new() };
        let _ = tokio::time::timeout(PATIENCE, lines.wait_for(|lines| lines.len() >= count)).await;
        let lines = lines.borrow();
        lines.join("\n")
    }

    /// So many more lines of a subscription that is not read otherwise.
    async fn read_on(&self, topic: &str, count: usize) -> String {
        let subscription = lock(&self.shared.subscribed.unread).remove(topic);
        let Some(mut subscription) = subscription else { return String::new() };
        let mut lines = Vec::new();
        while lines.len() < count
            && let Ok(next) = tokio::time::timeout(PATIENCE, subscription.next()).await
        {
            lines.push(line(next));
        }
        lock(&self.shared.subscribed.unread).insert(topic.to_owned(), subscription);
        lines.join("\n")
    }
}

fn read(mut subscription: Subscription) -> Reader {
    let (sender, lines) = watch::channel(Vec::new());
    let task = tokio::spawn(async move {
        loop {
            let line = line(subscription.next().await);
            sender.send_modify(|lines| lines.push(line));
        }
    });
    Reader { lines, task }
}

/// `<worker>.<generation> <length> <first word>` of a message whose other bytes are as [`flood`] makes them.
fn line(next: Result<BusMessage, Lagged>) -> String {
    let message = match next {
        Ok(message) => message,
        Err(Lagged(count)) => return format!("lagged {count}"),
    };
    let BusPeer { worker, generation, .. } = message.from;
    let end = message.payload.iter().position(|byte| *byte == b' ').unwrap_or(message.payload.len());
    let (word, filling) = message.payload.split_at(end);
    let spoiled = if filling.iter().skip(1).all(|byte| *byte == b'x') { "" } else { " spoiled" };
    format!("{worker}.{generation} {} {}{spoiled}", message.payload.len(), String::from_utf8_lossy(word))
}

/// Publishes so many messages, numbered, each of so many bytes at least.
async fn flood(bus: &Bus, topic: &str, count: usize, length: usize) -> Result<Published, BusError> {
    let mut sum = Published::default();
    for number in 0..count {
        let mut payload = format!("{number} ").into_bytes();
        payload.resize(payload.len().max(length), b'x');
        let Published { subscribers, missed, .. } = bus.publish(topic, payload).await?;
        sum.subscribers += subscribers;
        sum.missed += missed;
    }
    Ok(sum)
}

fn published(published: Published) -> String {
    format!("{} {}", published.subscribers, published.missed)
}

fn peers(peers: &[BusPeer]) -> String {
    let names: Vec<String> = peers.iter().map(|peer| format!("{}.{}", peer.worker, peer.generation)).collect();
    names.join(" ")
}

/// Waits until there are so many others.
async fn await_peers(bus: &Bus, count: usize) -> Result<String, BusError> {
    let mut watch = bus.watch_peers().await?;
    let waiting = async {
        let mut now = watch.peers();
        while now.len() != count {
            now = watch.changed().await;
        }
        now
    };
    let now: Arc<[BusPeer]> = tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_default();
    Ok(peers(&now))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
