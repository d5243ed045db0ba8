//! Chaos: clients with many keys on few connections, while workers are killed, stopped, starved of descriptors and
//! replaced, and the supervisor is.
//!
//! ```text
//!  64 clients ── count, echo, WebSocket, each request named and keyed ──► 4 workers ◄── kill, stop, starve, reload, reexec
//!      │ every answer: the key's worker, this request's name, exact bytes, the next count
//!      └ every loss: held against the journal and the kills, see `account`
//! ```
//!
//! A worker's count of a key lives in its memory: a request that is executed twice, or elsewhere, shows in the next
//! count. A reload drains every worker and is no reason to lose anything but a WebSocket that was told so.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually, is_alive};
use sticky_tests::{Client, Random, TestCluster, journal};

use crate::bed::{Bed, Row};
use crate::chaos_client::{ChaosClient, Loss, Seen};
use crate::keys::{Moves, by_header};

pub(crate) const WORKERS: u16 = 4;
const CLIENTS: usize = 64;

/// How long, in seconds; the suite takes less time for it than a minute.
const VARIABLE: &str = "TESTBED_CHAOS_SECONDS";
const SECONDS: u64 = 15;

/// A worker that lived longer than a second is started again without back-off.
const LIFE: Duration = Duration::from_millis(1_200);

pub(crate) fn rows() -> Vec<Row> {
    vec![Row::new("chaos_loses_only_what_was_executing", chaos_loses_only_what_was_executing).alone().by_request()]
}

/// What was done to a worker, and while it did it no good.
#[derive(Debug)]
struct Harm {
    kind: Kind,
    slot: u16,
    pid: u32,
    from: Instant,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Killed,
    Stopped,
    Starved,
    /// Every worker, one after the other; sometimes one is killed meanwhile.
    Replaced,
    /// The supervisor is asked to replace itself, when all else is over: no harm to anybody.
    Reexecuted,
}

fn chaos_loses_only_what_was_executing(bed: &Bed) {
    // Time enough for the next generation on any machine, so that nobody else ever stands in.
    let launch = by_header(bed, WORKERS).env("STICKY_FAILOVER", "20s");
    let (launch, journal) = launch.with_journal();
    let cluster = launch.unprivileged().up();
    let (done, random) = (AtomicBool::new(false), Random::drawn());
    let addresses = Client::loopback_addresses(u32::try_from(CLIENTS).expect("a few"));
    let client = |(number, address)| {
        ChaosClient::new(cluster.client().from(address).timeout(PATIENCE), number, random.fork(number))
    };
    let clients: Vec<_> = addresses.enumerate().map(client).collect();
    let (harms, seen) = thread::scope(|scope| {
        let done = &done;
        let clients: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || client.run(done))).collect();
        let harms = {
            let _ends_the_clients = SetOnDrop(done);
            do_harm(&cluster, random.fork(CLIENTS))
        };
        let seen: Vec<Seen> = clients.into_iter().map(|client| client.join().expect("no client failed")).collect();
        (harms, seen)
    });
    account(&seen, &harms, &journal);
    nothing_is_left_behind(&cluster);
    println!("{:?}", Moves::at_end_of(&cluster));
}

/// Sets a flag at its end, also when that is a panic: the scope waits for the threads that watch it.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// === harm ===

/// The running process of each slot, found without asking any of them.
fn pids(cluster: &TestCluster) -> BTreeMap<u16, u32> {
    let slot = |pid| Some((process::variable(pid, "STICKY_WORKER_ID")?.parse().ok()?, pid));
    cluster.workers().into_iter().filter_map(slot).collect()
}

/// One thing after the other, and sometimes two at once, until the time is over.
fn do_harm(cluster: &TestCluster, mut random: Random) -> Vec<Harm> {
    let seconds = std::env::var(VARIABLE).ok().map_or(SECONDS, |text| text.parse().expect("TESTBED_CHAOS_SECONDS"));
    let ends = Instant::now() + Duration::from_secs(seconds);
    let (mut born, mut harms) = (HashMap::new(), Vec::new());
    // Each once, however few there are.
    let mut first = vec![Kind::Killed, Kind::Replaced, Kind::Reexecuted, Kind::Starved, Kind::Stopped];
    while Instant::now() < ends || !first.is_empty() {
        process::let_pass(Duration::from_millis(random.between(20, 300) as u64));
        let pids = pids(cluster);
        for pid in pids.values() {
            born.entry(*pid).or_insert_with(Instant::now);
        }
        let old: Vec<_> = pids.into_iter().filter(|(_, pid)| born[pid].elapsed() > LIFE).collect();
        let Some((slot, pid)) = old.get(random.below(WORKERS.into())).copied() else { continue };
        let time = Duration::from_millis(random.between(50, 1_200) as u64);
        let from = Instant::now();
        let kinds = [Kind::Killed, Kind::Killed, Kind::Stopped, Kind::Starved, Kind::Replaced, Kind::Reexecuted];
        let any = *random.choose(&kinds);
        let kind = first.pop().unwrap_or(any);
        match kind {
            Kind::Killed => kill(pid),
            Kind::Stopped => stop(pid, time),
            Kind::Starved => starve(pid, time),
            Kind::Reexecuted => cluster.signal(Signal::USR2),
            Kind::Replaced => {
                let victim = (random.below(2) == 0).then_some(pid);
                replace(cluster, victim, time / 4);
                let until = Instant::now();
                harms.extend(victim.map(|pid| Harm { kind: Kind::Killed, slot, pid, from, until }));
            }
        }
        harms.push(Harm { kind, slot, pid, from, until: Instant::now() });
    }
    let is_calm = || cluster.workers().len() == usize::from(WORKERS) && pids(cluster).len() == usize::from(WORKERS);
    eventually("every slot runs once", PATIENCE, is_calm);
    eventually("a reexec is done", PATIENCE, || cluster.events().count("sticky: reexecuted") > 0);
    assert_eq!(cluster.events().count("reexec refused"), 0, "{}", cluster.events());
    println!("{} reexecs", cluster.events().count("sticky: reexecuted"));
    harms
}

/// Reloads, and perhaps kills this worker in the middle of it: then the reload may well be given up.
fn replace(cluster: &TestCluster, victim: Option<u32>, time: Duration) {
    let ends = || ["sticky: reloaded ", "sticky: reload stopped: "].map(|line| cluster.events().count(line));
    let before = ends();
    cluster.signal(Signal::HUP);
    if let Some(victim) = victim {
        process::let_pass(time);
        kill(victim);
    }
    eventually("the reload ends", PATIENCE, || ends() != before);
}

fn kill(pid: u32) {
    process::signal(pid, Signal::KILL);
    eventually("it is dead", PATIENCE, || !is_alive(pid));
}

fn stop(pid: u32, time: Duration) {
    process::signal(pid, Signal::STOP);
    process::let_pass(time);
    process::signal(pid, Signal::CONT);
}

/// Not one descriptor more: nothing can be accepted or received until one of the first is closed.
fn starve(pid: u32, time: Duration) {
    let Some(before) = process::descriptor_limit(pid) else { return };
    let held = process::descriptors(pid);
    let lowest_free = held.iter().zip(0_u64..).take_while(|((number, _), expected)| u64::from(*number) == *expected);
    process::limit_descriptors(pid, lowest_free.count() as u64);
    process::let_pass(time);
    process::limit_descriptors(pid, before);
}

// === the oracle ===

/// Nothing was begun twice, what was answered was begun once by the process that answered, and every loss has a reason.
fn account(seen: &[Seen], harms: &[Harm], journal: &Path) {
    let begun = journal::read_all(journal).expect("the journal");
    let doubled: Vec<_> = begun.iter().filter(|(_, pids)| pids.len() > 1).collect();
    assert!(doubled.is_empty(), "executed twice: {doubled:?}");
    for (name, pid) in seen.iter().flat_map(|seen| &seen.answers) {
        assert_eq!(begun.get(name), Some(&vec![*pid]), "{name} was answered by {pid}");
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for loss in seen.iter().flat_map(|seen| &seen.losses) {
        let begun = begun.get(&loss.name).map(|pids| pids[0]);
        let reason = reason(loss, begun, harms);
        let reason = reason.unwrap_or_else(|| {
            panic!("no reason for {loss:?}; begun by {begun:?}; before: {:#?}", before(loss, harms))
        });
        *reasons.entry(reason).or_default() += 1;
    }
    for told in seen.iter().flat_map(|seen| &seen.told) {
        let is_true = harms.iter().any(|harm| harm.kind == Kind::Replaced && harm.from <= *told);
        assert!(is_true, "a WebSocket was told of a drain that never was");
    }
    let answers: usize = seen.iter().map(|seen| seen.answers.len()).sum();
    let told: usize = seen.iter().map(|seen| seen.told.len()).sum();
    let messages: usize = seen.iter().map(|seen| seen.messages).sum();
    let count = |kind| harms.iter().filter(|harm| harm.kind == kind).count();
    let [killed, stopped, starved, replaced] = [Kind::Killed, Kind::Stopped, Kind::Starved, Kind::Replaced].map(count);
    println!(
        "{killed} killed, {stopped} stopped, {starved} starved, {replaced} reloads: {answers} requests answered, \
         {messages} WebSocket messages echoed, {told} WebSockets told to come again; lost: {reasons:?}"
    );
    assert!(killed > 0 && stopped > 0 && starved > 0 && replaced > 0 && answers > 1_000 && messages > 100);
}

/// The last things that happened before a loss, with their distance from it.
fn before<'a>(loss: &Loss, harms: &'a [Harm]) -> Vec<(Duration, &'a Harm)> {
    let earlier = harms.iter().filter(|harm| harm.from <= loss.until);
    let mut all: Vec<_> = earlier.map(|harm| (loss.until.saturating_duration_since(harm.until), harm)).collect();
    all.split_off(all.len().saturating_sub(4))
}

/// What happened between the last sign of life on the connection and the loss.
fn near<'a>(loss: &Loss, harms: &'a [Harm]) -> Vec<&'a Harm> {
    harms.iter().filter(|harm| harm.from <= loss.until && harm.until >= loss.from).collect()
}

/// Why this loss is none of ours: a process that was killed in between executed the request, or held the connection.
///
/// That can be the one that answered on it last, or accepted it, or the key's owner; or another, if one of these was not
/// there at the time and somebody had to look after its connections.
fn reason(loss: &Loss, begun: Option<u32>, harms: &[Harm]) -> Option<&'static str> {
    let near = near(loss, harms);
    let was_killed =
        |pid| harms.iter().any(|harm| harm.kind == Kind::Killed && harm.pid == pid && harm.from <= loss.until);
    let killed = || near.iter().filter(|harm| harm.kind == Kind::Killed);
    if let Some(pid) = begun {
        return was_killed(pid).then_some("executing");
    }
    if loss.held_by.is_some_and(was_killed) || killed().any(|harm| loss.holders.contains(&harm.slot)) {
        return Some("on a connection the victim held");
    }
    let is_away = |kind| matches!(kind, Kind::Killed | Kind::Stopped);
    let was_away = near.iter().any(|harm| is_away(harm.kind) && loss.holders.contains(&harm.slot));
    (was_away && killed().next().is_some()).then_some("held by a victim that stood in")
}

/// Once the clients have gone, no worker has descriptors of theirs left.
fn nothing_is_left_behind(cluster: &TestCluster) {
    for (slot, pid) in pids(cluster) {
        let mut held = Vec::new();
        let is_little = process::holds_within(PATIENCE, || {
            held = process::descriptors(pid);
            held.len() < 40
        });
        assert!(is_little, "worker {slot} holds {} descriptors", held.len());
    }
}
