//! Several buses in one process, each with its thread, connected as a supervisor would; and peers of which the test
//! writes every byte.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::frame::{CHUNK, Frame, MAX_FRAME, VERSION};
use super::lanes::ROOM;
use super::*;
use crate::worker::Worker;

/// Nothing here takes long; this is for what never happens.
const LONG: Duration = Duration::from_secs(20);

struct Member {
    bus: Bus,
    wiring: UnboundedSender<Wiring>,
}

fn member(worker: u16, generation: u32) -> Member {
    let me = BusPeer { worker: WorkerId::new(worker), generation: Generation::new(generation) };
    let (bus, wiring) = Bus::among(me, 8, Row::detached(), || {});
    Member { bus: bus.join(), wiring }
}

impl Member {
    fn connect(&self, peer: BusPeer, socket: UnixStream) {
        socket.set_nonblocking(true).unwrap();
        let BusPeer { worker, generation } = peer;
        self.wiring.send(Wiring::Peer { socket: socket.into(), worker, generation }).unwrap();
    }

    fn joined(&self) {
        self.wiring.send(Wiring::Joined).unwrap();
    }
}

/// So many workers, all connected.
async fn cluster(workers: u16) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for number in 0..workers {
        let new = member(number, 0);
        join(&new, &members);
        members.push(new);
    }
    for member in &members {
        let mut peers = within(member.bus.watch_peers()).await.unwrap();
        while peers.peers().len() + 1 < members.len() {
            within(peers.changed()).await;
        }
    }
    members
}

/// As a supervisor connects one that comes later.
fn join(new: &Member, members: &[Member]) {
    for other in members {
        let (one, two) = UnixStream::pair().unwrap();
        new.connect(other.bus.me(), one);
        other.connect(new.bus.me(), two);
    }
    new.joined();
}

/// A peer that says what the test says.
struct Raw {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Raw {
    /// Connected with a bus that has no other peers, and greeted by it.
    fn connect(member: &Member, worker: u16) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        Self::over(ours, theirs, member, worker)
    }

    fn over(ours: UnixStream, theirs: UnixStream, member: &Member, worker: u16) -> Self {
        ours.set_read_timeout(Some(LONG)).unwrap();
        let peer = BusPeer { worker: WorkerId::new(worker), generation: Generation::FIRST };
        member.connect(peer, theirs);
        Self { stream: ours, read: Vec::new() }
    }

    fn say(&mut self, frames: &[Frame<'_>]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        self.stream.write_all(&bytes).unwrap();
    }

    /// Greets, with these subscriptions.
    fn greet(&mut self, topics: &[&str]) {
        self.say(&[Frame::Hello { version: VERSION }]);
        topics.iter().for_each(|topic| self.say(&[Frame::Interest { topic, count: 1 }]));
        self.say(&[Frame::Sync { serial: 1 }]);
    }

    /// The next frame, as the closure sees it.
    fn next<T>(&mut self, see: impl FnOnce(Frame<'_>) -> T) -> T {
        while Frame::read(&self.read).unwrap().is_none() {
            let mut more = vec![0; MAX_FRAME];
            let count = self.stream.read(&mut more).unwrap();
            assert!(count > 0, "the bus has closed the connection");
            self.read.extend_from_slice(&more[..count]);
        }
        let (frame, length) = Frame::read(&self.read).unwrap().unwrap();
        let seen = see(frame);
        self.read.drain(..length);
        seen
    }

    /// Reads until there is a frame of which the closure makes something.
    fn find<T>(&mut self, mut see: impl FnMut(Frame<'_>) -> Option<T>) -> T {
        loop {
            if let Some(found) = self.next(&mut see) {
                return found;
            }
        }
    }

    fn answer_sync(&mut self) {
        let serial = self.find(|frame| if let Frame::Sync { serial } = frame { Some(serial) } else { None });
        self.say(&[Frame::Synced { serial }]);
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("this happens at once")
}

fn is_pending(future: std::pin::Pin<&mut impl Future>) -> bool {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
}

async fn text(subscription: &mut Subscription) -> String {
    let message = within(subscription.next()).await.unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn everybody_hears_and_counts_are_exact() {
    let members = cluster(3).await;
    let [zero, one, two] = [0, 1, 2].map(|index| &members[index].bus);
    assert_eq!(within(zero.subscribers("news")).await, Ok(0));
    let mut first = within(one.subscribe("news")).await.unwrap();
    let mut second = within(one.subscribe("news")).await.unwrap();
    let mut third = within(two.subscribe("news")).await.unwrap();
    for member in &members {
        assert_eq!(within(member.bus.subscribers("news")).await, Ok(2), "{:?}", member.bus);
        assert_eq!(within(member.bus.subscriptions("news")).await, Ok(3));
        assert_eq!(within(member.bus.subscribers("olds")).await, Ok(0));
    }
    let published = within(zero.publish("news", "hello")).await.unwrap();
    assert_eq!(published, Published { subscribers: 2, missed: 0 });
    for subscription in [&mut first, &mut second, &mut third] {
        let message = within(subscription.next()).await.unwrap();
        assert_eq!((message.from, &*message.topic, &message.payload[..]), (zero.me(), "news", &b"hello"[..]));
    }
    assert_eq!(within(one.publish("news", "again")).await.unwrap().subscribers, 2);
    assert_eq!(text(&mut first).await, "again");
    assert_eq!(text(&mut third).await, "again");
    assert_eq!(within(one.publish("olds", "nobody")).await.unwrap(), Published::default());
}

#[tokio::test]
async fn a_subscription_is_in_force_when_it_is_there() {
    let members = cluster(2).await;
    for number in 0..500 {
        let (here, there) = (&members[number % 2].bus, &members[1 - number % 2].bus);
        let topic = format!("topic {number}");
        let mut subscription = within(here.subscribe(&topic)).await.unwrap();
        assert_eq!(there.hub.count(&topic), (1, 1), "{number}");
        assert_eq!(within(there.publish(&topic, "now")).await.unwrap().subscribers, 1);
        assert_eq!(text(&mut subscription).await, "now");
        within(subscription.unsubscribe()).await;
        assert_eq!(there.hub.count(&topic), (0, 0), "{number}");
    }
}

#[tokio::test]
async fn messages_of_every_size_stay_in_order() {
    let members = cluster(3).await;
    let mut subscription = within(members[0].bus.subscribe("topic")).await.unwrap();
    let publishers: Vec<_> = members[1..]
        .iter()
        .map(|member| {
            let bus = member.bus.clone();
            tokio::spawn(async move {
                for number in 0..200_usize {
                    let size = [1, 100, CHUNK, CHUNK + 1, 5 * CHUNK][number % 5];
                    bus.publish("topic", vec![u8::try_from(number).unwrap(); size]).await.unwrap();
                }
            })
        })
        .collect();
    let mut next = [0_u8; 3];
    for _ in 0..400 {
        let message = within(subscription.next()).await.unwrap();
        let expected = &mut next[message.from.worker.index()];
        assert!(message.payload.iter().all(|byte| byte == expected), "{expected}");
        assert_eq!(message.payload.len(), [1, 100, CHUNK, CHUNK + 1, 5 * CHUNK][usize::from(*expected) % 5]);
        *expected += 1;
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
}

#[tokio::test]
async fn a_large_message_does_not_hold_up_a_small_one() {
    let member = member(0, 0);
    let mut raw = Raw::connect(&member, 1);
    member.joined();
    raw.greet(&["large", "small"]);
    raw.answer_sync();
    within(member.bus.publish("large", vec![7; MAX_PAYLOAD / 2])).await.unwrap();
    within(member.bus.publish("small", "small")).await.unwrap();
    let mut received = 0;
    raw.find(|frame| match frame {
        Frame::Chunk { payload, .. } => {
            received += payload.len();
            None
        }
        Frame::Message { topic: "small", .. } => Some(()),
        _ => None,
    });
    // No more than the kernel had taken before it was published.
    assert!(received < MAX_PAYLOAD / 8, "{received}");
    while received < MAX_PAYLOAD / 2 {
        received += raw.next(|frame| if let Frame::Chunk { payload, .. } = frame { payload.len() } else { 0 });
    }
}

#[tokio::test]
async fn a_message_reaches_one_worker_and_there_the_newest_generation() {
    let members = cluster(2).await;
    let newer = member(1, 1);
    join(&newer, &members);
    let [zero, one] = [0, 1].map(|index| &members[index].bus);
    let slot = WorkerId::new(1);
    assert_eq!(within(zero.send_to(slot, "to", "nobody")).await.unwrap(), Published::default());
    let mut old = within(one.subscribe("to")).await.unwrap();
    assert_eq!(within(zero.send_to(slot, "to", "old")).await.unwrap().subscribers, 1);
    assert_eq!(text(&mut old).await, "old");
    let mut new = within(newer.bus.subscribe("to")).await.unwrap();
    for from in [zero, one, &newer.bus] {
        assert_eq!(within(from.subscribers("to")).await, Ok(2));
        assert_eq!(within(from.send_to(slot, "to", "new")).await.unwrap().subscribers, 1);
        assert_eq!(text(&mut new).await, "new");
    }
    let mut here = within(zero.subscribe("to")).await.unwrap();
    assert_eq!(within(zero.send_to(WorkerId::new(0), "to", "here")).await.unwrap().subscribers, 1);
    assert_eq!(text(&mut here).await, "here");
    within(one.publish("to", "all")).await.unwrap();
    assert_eq!(text(&mut old).await, "all", "and nothing in between");
    let none = within(zero.send_to(WorkerId::new(8), "to", "")).await;
    assert_eq!(none, Err(BusError::NoSuchWorker { worker: 8, workers: 8 }));
}

#[tokio::test]
async fn the_end_of_a_peer_is_told_after_its_last_message() {
    let members = cluster(2).await;
    let bus = &members[0].bus;
    let mut subscription = within(bus.subscribe("last")).await.unwrap();
    let mut peers = within(bus.watch_peers()).await.unwrap();
    let mut raw = Raw::connect(&members[0], 5);
    raw.greet(&["theirs"]);
    let with = within(peers.changed()).await;
    assert_eq!(with.iter().map(|peer| peer.worker.get()).collect::<Vec<_>>(), [1, 5]);
    assert_eq!(within(bus.subscribers("theirs")).await, Ok(1));
    raw.say(&[Frame::Message { topic: "last", payload: b"words" }]);
    drop(raw);
    let without = within(peers.changed()).await;
    assert_eq!(without.iter().map(|peer| peer.worker.get()).collect::<Vec<_>>(), [1]);
    assert_eq!(within(bus.subscribers("theirs")).await, Ok(0));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let said = futures_core::Stream::poll_next(std::pin::Pin::new(&mut subscription), &mut context);
    assert!(matches!(&said, std::task::Poll::Ready(Some(Ok(message))) if message.payload == "words"), "{said:?}");
}

#[tokio::test]
async fn who_does_not_read_is_waited_for_until_it_is_silent() {
    let member = member(0, 0);
    let mut raw = Raw::connect(&member, 1);
    member.joined();
    raw.greet(&["topic"]);
    raw.answer_sync();
    let payload = Bytes::from(vec![0; ROOM / 16]);
    let (mut queued, mut missed) = (0, 0);
    while missed < 2 && queued < 64 {
        let published = within(member.bus.publish("topic", payload.clone())).await.unwrap();
        queued += published.subscribers;
        missed += published.missed;
    }
    assert!((15..=17).contains(&queued), "{queued}");
    assert_eq!(member.bus.hub.row.totals().bus.missed, 2);
    // It reads on, and has missed what it has missed but nothing else.
    let mut received = 0;
    while received < queued * payload.len() {
        received += raw.next(|frame| if let Frame::Chunk { payload, .. } = frame { payload.len() } else { 0 });
    }
    within(member.bus.flush()).await.unwrap();
    let published = within(member.bus.publish("topic", "heard")).await.unwrap();
    assert_eq!(published, Published { subscribers: 1, missed: 0 });
    raw.find(|frame| matches!(frame, Frame::Message { payload: b"heard", .. }).then_some(()));
}

#[tokio::test]
async fn who_does_not_answer_holds_up_no_subscription_for_long() {
    let member = member(0, 0);
    let mut raw = Raw::connect(&member, 1);
    member.joined();
    let _one = within(member.bus.subscribe("one")).await.unwrap();
    assert_eq!(&*within(member.bus.peers()).await.unwrap(), []);
    assert!(member.bus.hub.links()[0].is_silent());
    // It comes to its senses, and is waited for again.
    let mut peers = within(member.bus.watch_peers()).await.unwrap();
    raw.greet(&[]);
    raw.find(|frame| matches!(frame, Frame::Interest { topic: "one", count: 1 }).then_some(()));
    raw.answer_sync();
    assert_eq!(within(peers.changed()).await.len(), 1);
    within(member.bus.hub.until(|links| !links[0].is_silent())).await;
    let mut subscribing = std::pin::pin!(member.bus.subscribe("two"));
    assert!(is_pending(subscribing.as_mut()));
    raw.find(|frame| matches!(frame, Frame::Interest { topic: "two", count: 1 }).then_some(()));
    assert!(is_pending(subscribing.as_mut()));
    raw.answer_sync();
    let _two = within(subscribing).await.unwrap();
}

#[tokio::test]
async fn who_talks_nonsense_is_left_and_nobody_else_notices() {
    let members = cluster(2).await;
    let bus = &members[0].bus;
    let mut subscription = within(bus.subscribe("topic")).await.unwrap();
    let mut peers = within(bus.watch_peers()).await.unwrap();
    let ungreeted = [Frame::Interest { topic: "topic", count: 1 }];
    let unbegun = [Frame::Chunk { stream: 4, payload: b"x" }];
    for number in 0..4 {
        let mut raw = Raw::connect(&members[0], 7);
        match number {
            0 => raw.stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap(),
            1 => raw.say(&ungreeted),
            _ => {
                raw.greet(&["topic"]);
                assert_eq!(within(peers.changed()).await.len(), 2);
                if number == 2 {
                    raw.say(&unbegun)
                } else {
                    raw.stream.write_all(&[0; 8]).unwrap()
                }
                assert_eq!(within(peers.changed()).await.len(), 1);
            }
        }
        // It is closed, whether or not something was unread.
        let mut left = Vec::new();
        let _ = raw.stream.read_to_end(&mut left);
        assert_eq!(within(bus.subscribers("topic")).await, Ok(1));
    }
    within(members[1].bus.publish("topic", "fine")).await.unwrap();
    assert_eq!(text(&mut subscription).await, "fine");
}

#[tokio::test]
async fn a_later_version_is_understood_as_far_as_it_goes() {
    let member = member(0, 0);
    let mut raw = Raw::connect(&member, 1);
    member.joined();
    raw.stream.write_all(b"\x05\0\0\0\x01\x09\0++").unwrap();
    raw.stream.write_all(b"\x06\0\0\0\xc8later").unwrap();
    raw.say(&[Frame::Interest { topic: "topic", count: 2 }, Frame::Sync { serial: 3 }]);
    assert_eq!(within(member.bus.subscriptions("topic")).await, Ok(2));
    raw.find(|frame| matches!(frame, Frame::Synced { serial: 3 }).then_some(()));
}

#[tokio::test]
async fn a_process_that_comes_later_is_told_everything() {
    let mut members = cluster(2).await;
    let mut old = within(members[0].bus.subscribe("topic")).await.unwrap();
    let late = member(2, 0);
    join(&late, &members);
    assert_eq!(within(late.bus.publish("topic", "first word")).await.unwrap().subscribers, 1);
    assert_eq!(text(&mut old).await, "first word");
    let mut new = within(late.bus.subscribe("topic")).await.unwrap();
    members.push(late);
    for member in &members {
        assert_eq!(within(member.bus.subscribers("topic")).await, Ok(2));
        assert_eq!(within(member.bus.peers()).await.unwrap().len(), 2);
    }
    assert_eq!(within(members[1].bus.publish("topic", "both")).await.unwrap().subscribers, 2);
    assert_eq!((text(&mut old).await, text(&mut new).await), ("both".into(), "both".into()));
}

#[tokio::test]
async fn a_slow_subscription_loses_the_oldest_and_only_its_own() {
    let members = cluster(2).await;
    let bus = &members[0].bus;
    let mut slow = within(bus.subscribe_with("topic", BusBacklog { messages: 3, bytes: 1000 })).await.unwrap();
    let mut fast = within(bus.subscribe("topic")).await.unwrap();
    for number in 0..10 {
        within(members[1].bus.publish("topic", number.to_string())).await.unwrap();
    }
    for number in 0..10 {
        assert_eq!(text(&mut fast).await, number.to_string());
    }
    assert_eq!(within(slow.next()).await, Err(Lagged(7)));
    for number in 7..10 {
        assert_eq!(text(&mut slow).await, number.to_string());
    }
    let totals = bus.hub.row.totals().bus;
    assert_eq!((totals.published, totals.delivered, totals.lagged), (0, 20, 7));
    assert_eq!(members[1].bus.hub.row.totals().bus.published, 10);
}

#[tokio::test]
async fn what_is_flushed_arrives_though_its_process_ends() {
    let member = member(0, 0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    // Much less than what is published, which is less than what is written at once.
    socket2::SockRef::from(&theirs).set_send_buffer_size(8 * 1024).unwrap();
    let mut raw = Raw::over(ours, theirs, &member, 1);
    member.joined();
    raw.greet(&["topic"]);
    raw.answer_sync();
    let payload = Bytes::from(vec![7; CHUNK + CHUNK / 2]);
    within(member.bus.publish("topic", payload.clone())).await.unwrap();
    let mut first = [0];
    raw.stream.read_exact(&mut first).unwrap();
    raw.read.extend(first);
    let bus = member.bus.clone();
    let mut flushing = std::pin::pin!(bus.flush());
    assert!(is_pending(flushing.as_mut()), "it is taken out of its queue, but not written");
    let mut received = 0;
    while received < payload.len() {
        received += raw.next(|frame| if let Frame::Chunk { payload, .. } = frame { payload.len() } else { 0 });
    }
    within(flushing).await.unwrap();
}

#[tokio::test]
async fn who_publishes_or_reads_in_a_loop_lets_others_work() {
    const MANY: usize = 100_000;
    let bus = Worker::detached().bus();
    let mut subscription = bus.subscribe("topic").await.unwrap();
    let publishing = tokio::spawn({
        let bus = bus.clone();
        async move {
            for _ in 0..MANY {
                bus.publish("topic", "more").await.unwrap();
            }
        }
    });
    let first = within(subscription.next()).await;
    assert!(first.is_ok() && !publishing.is_finished());
    publishing.abort();
    let mut full = bus.subscribe("full").await.unwrap();
    for _ in 0..4000 {
        bus.publish("full", "").await.unwrap();
    }
    let mut read = 0;
    let reading = async {
        while full.next().await.is_ok() {
            read += 1;
        }
    };
    tokio::select! {
        biased;
        () = reading => unreachable!("it never ends"),
        () = tokio::task::yield_now() => {}
    }
    assert!(read < 4000);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let bus = Worker::detached().bus();
    let topic = "x".repeat(MAX_TOPIC + 1);
    let too_long = Err(BusError::TopicTooLong { len: MAX_TOPIC + 1 });
    assert_eq!(bus.subscribe(&topic).await.map(drop), too_long.clone());
    assert_eq!(bus.publish(&topic, "").await.map(drop), too_long);
    let too_large = bus.publish("topic", vec![0; MAX_PAYLOAD + 1]).await;
    assert_eq!(too_large, Err(BusError::PayloadTooLarge { len: MAX_PAYLOAD + 1 }));
    let mut subscription = bus.subscribe(&topic[1..]).await.unwrap();
    assert_eq!(bus.publish(&topic[1..], vec![0; MAX_PAYLOAD]).await.unwrap().subscribers, 1);
    assert_eq!(within(subscription.next()).await.unwrap().payload.len(), MAX_PAYLOAD);
}
