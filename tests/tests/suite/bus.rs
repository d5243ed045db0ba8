//! Messages between workers: exact counts, order, sizes, and what is left of it all when one of them stops or dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::{Client, Launch, TestCluster};

use crate::bed::{Bed, Dispatch, Row};
use crate::crash::address_of;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("bus_counts_exactly", bus_counts_exactly),
        Row::new("bus_subscription_is_in_force_at_once", bus_subscription_is_in_force_at_once),
        Row::new("bus_is_there_before_anybody_is_ready", bus_is_there_before_anybody_is_ready),
        // The system counts what a user has on its way, in whatever cluster: so this runs alone, and without the channels of
        // handoff, of which there would be more than of these.
        Row::new("bus_connects_many_with_few_descriptors", bus_connects_many_with_few_descriptors)
            .only(Dispatch::Kernel)
            .alone(),
        Row::new("bus_keeps_order", bus_keeps_order),
        Row::new("bus_carries_messages_of_many_mebibytes", bus_carries_messages_of_many_mebibytes),
        Row::new("bus_reaches_one_worker_alone", bus_reaches_one_worker_alone),
        Row::new("bus_notices_a_death_at_once", bus_notices_a_death_at_once),
        Row::new("bus_has_the_next_generation", bus_has_the_next_generation),
        Row::new("bus_is_not_held_up_by_a_stopped_worker", bus_is_not_held_up_by_a_stopped_worker),
        Row::new("bus_is_read_while_an_event_loop_hangs", bus_is_read_while_an_event_loop_hangs),
        Row::new("bus_tells_slow_subscribers_what_they_lost", bus_tells_slow_subscribers_what_they_lost),
        Row::new("bus_costs_nothing_until_it_is_used", bus_costs_nothing_until_it_is_used),
        Row::new("bus_works_within_one_process", bus_works_within_one_process),
    ]
}

/// A cluster each of whose workers can be asked by an address of its own.
struct Cluster {
    inner: TestCluster,
    workers: Workers,
}

/// A client of each worker.
struct Workers(Vec<Client>);

impl Workers {
    /// Asks a worker's bus.
    fn ask(&self, slot: u16, what: &str, body: &[u8]) -> String {
        let answer = self.client(slot).post(&format!("/bus/{what}"), body).expect("an answer");
        assert_eq!(answer.status, 200, "{what}");
        assert_eq!(answer.worker(), slot, "{what}");
        answer.text()
    }

    fn client(&self, slot: u16) -> &Client {
        &self.0[usize::from(slot)]
    }
}

impl Cluster {
    fn up(launch: Launch, workers: u16) -> Self {
        let inner = launch.workers(workers).up();
        let client = |slot| inner.client().from(address_of(&inner, slot)).timeout(PATIENCE);
        let workers = Workers((0..workers).map(client).collect());
        Self { inner, workers }
    }

    fn ask(&self, slot: u16, what: &str, body: &[u8]) -> String {
        self.workers.ask(slot, what, body)
    }

    fn pid(&self, slot: u16) -> u32 {
        self.workers.client(slot).get("/").expect("an answer").pid()
    }

    /// Every worker takes part and knows every other.
    fn all_join(&self) {
        let others = self.workers.0.len() - 1;
        for slot in self.slots() {
            self.ask(slot, "peers", b"");
        }
        for slot in self.slots() {
            let peers = self.ask(slot, &format!("await-peers/-/{others}"), b"");
            assert_eq!(peers.split(' ').filter(|peer| !peer.is_empty()).count(), others, "{peers}");
        }
    }

    fn slots(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.workers.0.len()).expect("few")
    }

    /// Ends it; what the supervisor says of the bus.
    fn stop(&self) -> String {
        self.inner.stop();
        self.inner.events().expect("bus: ", PATIENCE)
    }
}

fn bus_counts_exactly(bed: &Bed) {
    let cluster = Cluster::up(bed.launch(), 4);
    cluster.all_join();
    assert_eq!(cluster.ask(3, "publish/news", b"nobody"), "0 0");
    for (slot, expected) in [(0, "1 1"), (1, "2 2"), (1, "2 3"), (3, "3 4")] {
        cluster.ask(slot, "subscribe/news", b"");
        for asked in cluster.slots() {
            assert_eq!(cluster.ask(asked, "count/news", b""), expected, "as worker {asked} sees it");
        }
    }
    for publisher in cluster.slots() {
        assert_eq!(cluster.ask(publisher, "publish/news", b"hello"), "3 0");
    }
    for subscriber in [0, 1, 3] {
        let heard = cluster.ask(subscriber, "heard/news/4", b"");
        let heard: BTreeSet<&str> = heard.lines().collect();
        assert_eq!(heard, BTreeSet::from(["0.0 5 hello", "1.0 5 hello", "2.0 5 hello", "3.0 5 hello"]));
    }
    cluster.ask(1, "unsubscribe/news", b"");
    for asked in cluster.slots() {
        eventually("all know that it has unsubscribed", PATIENCE, || cluster.ask(asked, "count/news", b"") == "2 2");
    }
    let last = cluster.stop();
    assert!(last.contains("bus: published 5, delivered 16"), "{last}");
}

/// Somebody hears of the subscription by another way and publishes at once.
fn bus_subscription_is_in_force_at_once(bed: &Bed) {
    let cluster = Cluster::up(bed.launch(), 3);
    for round in 0..60 {
        let (subscriber, publisher) = (round % 3, (round + 1) % 3);
        cluster.ask(subscriber, &format!("subscribe/topic-{round}"), b"");
        assert_eq!(cluster.ask(publisher, &format!("publish/topic-{round}"), b"now"), "1 0", "round {round}");
        let heard = cluster.ask(subscriber, &format!("heard/topic-{round}/1"), b"");
        assert_eq!(heard, format!("{publisher}.0 3 now"));
    }
    cluster.stop();
}

/// Who has subscribed before it was ready is heard by the first request, of every generation.
fn bus_is_there_before_anybody_is_ready(bed: &Bed) {
    let cluster = Cluster::up(bed.launch().env("TESTBED_BUS_TOPIC", "early"), 4);
    for slot in cluster.slots() {
        assert_eq!(cluster.ask(slot, "publish/early", b"all"), "4 0");
    }
    process::signal(cluster.pid(2), Signal::KILL);
    let client = cluster.workers.client(2);
    eventually("its next generation answers", PATIENCE, || {
        client.get("/").is_ok_and(|answer| (answer.worker(), answer.generation()) == (2, 1))
    });
    assert_eq!(cluster.ask(0, "count/early", b""), "4 4");
    assert_eq!(cluster.ask(2, "publish/early", b"new"), "4 0");
    cluster.stop();
}

/// All at once and unprivileged, so that the descriptors on their way count: sixteen workers are 120 pairs of sockets.
fn bus_connects_many_with_few_descriptors(bed: &Bed) {
    const WORKERS: u16 = 16;
    let launch = bed.launch().unprivileged().with_descriptors(128).env("TESTBED_BUS_TOPIC", "early");
    let cluster = launch.workers(WORKERS).up();
    let count = || cluster.client().post("/bus/count/early", b"").expect("an answer").text();
    assert_eq!(count(), "16 16");
    let published = cluster.client().post("/bus/publish/early", b"all").expect("an answer").text();
    assert_eq!(published, "16 0");
    assert_eq!(cluster.events().count("no bus"), 0);
    cluster.stop();
}

/// Of each publisher, under load from all of them at once, messages of all sizes and their own included.
fn bus_keeps_order(bed: &Bed) {
    const EACH: usize = 300;
    const LENGTHS: [usize; 3] = [0, 5_000, 100_000];
    let cluster = Cluster::up(bed.launch(), 3);
    cluster.all_join();
    cluster.slots().for_each(|slot| drop(cluster.ask(slot, "subscribe/order", b"")));
    for length in LENGTHS {
        thread::scope(|scope| {
            for slot in cluster.slots() {
                let workers = &cluster.workers;
                scope.spawn(move || {
                    let sum = workers.ask(slot, &format!("flood/order/{EACH}/{length}"), b"");
                    assert_eq!(sum, format!("{} 0", EACH * 3));
                });
            }
        });
    }
    let all = 3 * LENGTHS.len() * EACH;
    for slot in cluster.slots() {
        let heard = cluster.ask(slot, &format!("heard/order/{all}"), b"");
        let mut of_each: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for line in heard.lines() {
            let [from, _, number] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            of_each.entry(from).or_default().push(number.parse().expect("a number"));
        }
        let expected: Vec<usize> = LENGTHS.iter().flat_map(|_| 0..EACH).collect();
        assert_eq!(of_each.len(), 3);
        of_each.iter().for_each(|(from, numbers)| assert_eq!(*numbers, expected, "of {from} at {slot}"));
    }
    cluster.stop();
}

/// Three at a time, each as large as all the room there is to one peer, with small ones beside them.
fn bus_carries_messages_of_many_mebibytes(bed: &Bed) {
    const LARGE: usize = 64 << 20;
    let cluster = Cluster::up(bed.launch(), 2);
    cluster.all_join();
    cluster.ask(1, "subscribe/large", b"");
    cluster.ask(1, "subscribe/small", b"");
    let workers = &cluster.workers;
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(workers.ask(0, &format!("flood/large/3/{LARGE}"), b""), "3 0"));
        scope.spawn(|| assert_eq!(workers.ask(0, "flood/small/500/100", b""), "500 0"));
    });
    let large: Vec<String> = (0..3).map(|number| format!("0.0 {LARGE} {number}")).collect();
    assert_eq!(cluster.ask(1, "heard/large/3", b""), large.join("\n"));
    let small: Vec<String> = (0..500).map(|number| format!("0.0 100 {number}")).collect();
    assert_eq!(cluster.ask(1, "heard/small/500", b""), small.join("\n"));
    let too_large = cluster.ask(0, &format!("flood/large/1/{}", LARGE + 1), b"");
    assert!(too_large.contains("67108865 bytes is too large: at most 67108864"), "{too_large}");
    cluster.stop();
}

fn bus_reaches_one_worker_alone(bed: &Bed) {
    let cluster = Cluster::up(bed.launch(), 3);
    cluster.all_join();
    for slot in [0, 1] {
        cluster.ask(slot, "subscribe/to", b"");
    }
    for (from, to, expected) in [(0, 1, "1 0"), (1, 1, "1 0"), (2, 1, "1 0"), (0, 2, "0 0")] {
        assert_eq!(cluster.ask(from, &format!("send-to/to/{to}"), b"you"), expected);
    }
    assert!(cluster.ask(0, "send-to/to/3", b"you").contains("no worker 3"));
    assert_eq!(cluster.ask(1, "heard/to/3", b"").lines().count(), 3);
    assert_eq!(cluster.ask(0, "heard/to/0", b""), "");
    // The owner of a key is the same for everybody.
    cluster.ask(2, "subscribe/to", b"");
    for number in 0..20 {
        let key = format!("session-{number}");
        let owner = cluster.inner.client().get(&format!("/owner/{key}")).expect("an answer").text();
        assert_eq!(cluster.ask(2, "send-to-owner/to", key.as_bytes()), "1 0");
        let line = format!("2.0 {} {key}", key.len());
        let owner = owner.parse().expect("a slot");
        eventually("the owner has it", PATIENCE, || cluster.ask(owner, "heard/to/0", b"").contains(&line));
    }
    cluster.stop();
}

/// Who waits for peers hears of an end although nobody says goodbye, after the last message of the dead.
fn bus_notices_a_death_at_once(bed: &Bed) {
    let cluster = Cluster::up(bed.launch(), 3);
    cluster.all_join();
    for slot in cluster.slots() {
        cluster.ask(slot, "subscribe/topic", b"");
    }
    let victim = cluster.pid(2);
    thread::scope(|scope| {
        let workers = &cluster.workers;
        let waiting = [0, 1].map(|slot| scope.spawn(move || workers.ask(slot, "await-peers/-/1", b"")));
        cluster.ask(2, "publish/topic", b"last");
        cluster.ask(2, "flush", b"");
        process::signal(victim, Signal::KILL);
        for (slot, waiting) in [0, 1].into_iter().zip(waiting) {
            assert_eq!(waiting.join().expect("an answer"), format!("{}.0", 1 - slot));
        }
    });
    for slot in [0, 1] {
        assert_eq!(cluster.ask(slot, "count/topic", b""), "2 2");
        assert_eq!(cluster.ask(slot, "heard/topic/1", b"").lines().next(), Some("2.0 4 last"));
        assert_eq!(cluster.ask(slot, "publish/topic", b"us"), "2 0");
    }
    cluster.stop();
}

fn bus_has_the_next_generation(bed: &Bed) {
    let cluster = Cluster::up(bed.launch(), 3);
    cluster.all_join();
    cluster.ask(0, "subscribe/topic", b"");
    for generation in 1..=3 {
        process::signal(cluster.pid(1), Signal::KILL);
        // Whoever stands in for it answers with another slot.
        let client = cluster.workers.client(1);
        eventually("its next generation answers", PATIENCE, || {
            client.get("/").is_ok_and(|answer| (answer.worker(), answer.generation()) == (1, generation))
        });
        cluster.ask(1, "subscribe/topic", b"");
        for slot in cluster.slots() {
            assert_eq!(cluster.ask(slot, "count/topic", b""), "2 2", "as worker {slot} sees it");
        }
        assert_eq!(cluster.ask(1, "publish/topic", b"back"), "2 0");
        // What is published is on its way; only what is flushed is out of the process that is killed next.
        assert_eq!(cluster.ask(1, "flush/topic", b""), "");
        assert_eq!(cluster.ask(0, "peers", b""), format!("1.{generation} 2.0"));
    }
    let heard = cluster.ask(0, "heard/topic/3", b"");
    assert_eq!(heard, "1.1 4 back\n1.2 4 back\n1.3 4 back");
    cluster.stop();
}

/// It costs nobody more than a moment, misses what there is no room for, and hears the rest when it goes on.
fn bus_is_not_held_up_by_a_stopped_worker(bed: &Bed) {
    const MIB: usize = 1 << 20;
    // Its clients stay its clients however long it takes.
    let cluster = Cluster::up(bed.launch().env("STICKY_FAILOVER", "wait"), 3);
    cluster.all_join();
    for slot in [1, 2] {
        cluster.ask(slot, "subscribe/topic", b"");
    }
    let stopped = cluster.pid(1);
    process::stop(stopped);
    cluster.ask(0, "subscribe/other", b"");
    let sum = cluster.ask(0, &format!("flood/topic/100/{MIB}"), b"");
    let [reached, missed] =
        sum.split(' ').map(|count| count.parse::<usize>().expect("a number")).collect::<Vec<_>>()[..]
    else {
        panic!("{sum}")
    };
    assert_eq!(reached + missed, 200);
    assert!((30..40).contains(&missed), "it has room for 64 MiB: {sum}");
    assert_eq!(cluster.ask(2, "heard/topic/100", b"").lines().count(), 100);
    process::signal(stopped, Signal::CONT);
    let heard = cluster.ask(1, &format!("heard/topic/{}", 100 - missed), b"");
    let first: Vec<String> = (0..100 - missed).map(|number| format!("0.0 {MIB} {number}")).collect();
    assert_eq!(heard, first.join("\n"));
    assert_eq!(cluster.ask(1, "count/other", b""), "1 1");
    assert_eq!(cluster.ask(0, "publish/topic", b"again"), "2 0");
    let last = cluster.stop();
    assert!(last.contains(&format!("missed {missed}")), "{last}");
}

/// What comes in is not read by the application's event loop, so that nobody else has to wait for it.
fn bus_is_read_while_an_event_loop_hangs(bed: &Bed) {
    let cluster = Cluster::up(bed.launch(), 2);
    cluster.all_join();
    cluster.ask(1, "subscribe-unread/topic", b"");
    let hanging = cluster.pid(1);
    let client = cluster.workers.client(1);
    let mut hung = client.connect().expect("a connection");
    hung.send("POST /hang HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").expect("sent");
    assert_eq!(cluster.ask(0, &format!("flood/topic/200/{}", 1 << 20), b""), "200 0");
    for round in 0..20 {
        cluster.ask(0, &format!("subscribe/topic-{round}"), b"");
    }
    assert_eq!(cluster.ask(0, "peers", b""), "1.0");
    // Its event loop would not hear of the end.
    process::signal(hanging, Signal::KILL);
    cluster.stop();
}

fn bus_tells_slow_subscribers_what_they_lost(bed: &Bed) {
    let cluster = Cluster::up(bed.launch(), 2);
    cluster.all_join();
    cluster.ask(1, "subscribe-unread/topic", b"");
    cluster.ask(1, "subscribe/topic", b"");
    assert_eq!(cluster.ask(0, "flood/topic/100/0", b""), "100 0");
    // What the other subscription has heard, this one has heard or lost.
    assert_eq!(cluster.ask(1, "heard/topic/100", b"").lines().count(), 100);
    let read = cluster.ask(1, "read/topic/11", b"");
    let newest = (90..100).map(|number| format!("0.0 3 {number}"));
    let expected: Vec<String> = std::iter::once("lagged 90".to_owned()).chain(newest).collect();
    assert_eq!(read, expected.join("\n"));
    let last = cluster.stop();
    assert!(last.contains("published 100, delivered 200, lagged 90"), "{last}");
}

fn bus_costs_nothing_until_it_is_used(bed: &Bed) {
    let cluster = Cluster::up(bed.launch(), 2);
    let supervisor = cluster.inner.supervisor();
    let open = || process::descriptors(supervisor).len();
    let before = open();
    for slot in cluster.slots() {
        assert!(!has_bus_thread(cluster.pid(slot)));
    }
    cluster.all_join();
    for slot in cluster.slots() {
        assert!(has_bus_thread(cluster.pid(slot)));
    }
    eventually("the supervisor keeps none of it", PATIENCE, || open() == before);
    cluster.inner.stop();
}

fn has_bus_thread(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let mut names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.any(|name| name.trim() == "sticky-bus")
}

fn bus_works_within_one_process(bed: &Bed) {
    let cluster = bed.launch().workers(0).up();
    let ask = |what: &str, body: &[u8]| cluster.client().post(&format!("/bus/{what}"), body).expect("an answer").text();
    ask("subscribe/topic", b"");
    assert_eq!(ask("count/topic", b""), "1 1");
    assert_eq!(ask("publish/topic", b"all"), "1 0");
    assert_eq!(ask("send-to/topic/0", b"one"), "1 0");
    assert!(ask("send-to/topic/1", b"one").contains("no worker 1"));
    assert_eq!(ask("heard/topic/2", b""), "0.0 3 all\n0.0 3 one");
    assert_eq!(ask("peers", b""), "");
    ask("flush", b"");
    cluster.stop();
}
