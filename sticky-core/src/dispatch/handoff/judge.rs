//! Whose a message is: the affinity asked, its answer placed. Pure but for the set of slots that are out.

use std::net::{IpAddr, SocketAddr};
use std::ops::BitOr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::exchange::Opening;
use super::placer::{Placer, UnderWay};
use super::request_head::RequestHead;
use crate::affinity::{Affinity, AffinityKey, Destination, KeyHasher, Known, Peer, ProxyTrust, client_address};
use crate::config::{Config, Failover};
use crate::id::{MAX_WORKERS, WorkerId};
use crate::placement::{KernelHash, Placement, Rendezvous};
use crate::scoreboard::{Headcount, Row};
use crate::session::Sessions;

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is this worker's, or nobody's in particular.
    Serve,
    /// It is this other worker's.
    Send(WorkerId),
    /// Its owner does not exist, and nobody may stand in.
    Refuse,
}

/// What follows from whose a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Its connection goes there.
    #[default]
    Moves,
    /// It is forwarded: this is a proxy, whose connections stay.
    Forwards,
    /// Nothing: a proxy has judged, and what it says of the client is true.
    Serves,
}

/// Everything a verdict rests on.
#[derive(Debug)]
pub(crate) struct Judge {
    own: WorkerId,
    duty: Duty,
    workers: Headcount,
    rules: Rules,
    hasher: KeyHasher,
    keys: Rendezvous,
    addresses: KernelHash,
    sessions: Arc<Sessions>,
    placer: Placer,
    out: SlotSet,
    /// The slots whose processes do not run, as far as this is known: to proxies.
    down: SlotSet,
    eras: Vec<AtomicU32>,
    /// The slots whose channels are read here.
    standing_in: SlotSet,
    /// Where this process counts.
    row: Row,
}

impl Judge {
    /// The judge of one worker; `rows` are those of every process of the cluster.
    pub(crate) fn new(
        own: WorkerId,
        workers: impl Into<Headcount>,
        seed: u64,
        rules: Rules,
        sessions: Arc<Sessions>,
        rows: Vec<Row>,
    ) -> Self {
        let workers = workers.into();
        let room = workers.room();
        Self {
            own,
            duty: Duty::Moves,
            hasher: KeyHasher::new(seed),
            keys: Rendezvous::of_all(room),
            addresses: KernelHash::of_all(seed, room),
            sessions,
            placer: Placer::new(own, workers.clone(), rules.placement, rows),
            workers,
            rules,
            out: SlotSet::default(),
            down: SlotSet::default(),
            eras: (0..room).map(|_| AtomicU32::new(0)).collect(),
            standing_in: SlotSet::default(),
            row: Row::detached(),
        }
    }

    /// The same judge, which counts in this row.
    pub(crate) fn counting(mut self, row: Row) -> Self {
        self.row = row;
        self
    }

    /// The same judge with this duty.
    pub(crate) fn with_duty(mut self, duty: Duty) -> Self {
        self.duty = duty;
        if duty == Duty::Forwards {
            self.placer = self.placer.forwarding();
        }
        self
    }

    /// Whether a message stays here whoever's it is, and is forwarded.
    pub(crate) fn forwards(&self) -> bool {
        self.duty == Duty::Forwards
    }

    /// Whether everything comes from proxies.
    pub(crate) fn serves_proxies(&self) -> bool {
        self.duty == Duty::Serves
    }

    /// Says which slots' processes do not run just now, whatever becomes of their clients.
    pub(crate) fn note_down(&self, slots: &[WorkerId]) {
        for (slot, era) in WorkerId::all(self.workers.room()).zip(&self.eras) {
            if slots.contains(&slot) != self.down.contains(slot) {
                era.fetch_add(1, Relaxed);
            }
        }
        self.down.set(slots);
    }

    /// How often a slot's process has ceased to run or begun again; none while it does not run.
    pub(crate) fn era(&self, slot: WorkerId) -> Option<u32> {
        let era = self.eras.get(slot.index()).map(|era| era.load(Relaxed));
        era.filter(|_| !self.down.contains(slot))
    }

    /// This worker's slot.
    pub(crate) fn own(&self) -> WorkerId {
        self.own
    }

    /// Whose this is.
    pub(crate) fn verdict(&self, opening: &Opening<'_>, client: Option<IpAddr>) -> Verdict {
        self.verdict_again(opening, client, &mut None)
    }

    /// Whose this is, which may have been asked before: `key` is what came of it, for the same head.
    pub(crate) fn verdict_again(
        &self,
        opening: &Opening<'_>,
        client: Option<IpAddr>,
        key: &mut Option<AffinityKey>,
    ) -> Verdict {
        if self.is_alone() {
            return Verdict::Serve;
        }
        let destination = match opening {
            Opening::Request(head) => self.destination(head, client, key),
            // Its requests come one beside the other, so that only what they have in common can be the key.
            Opening::Http2 => client.map(Destination::Address),
        };
        let owner = match destination {
            // Nobody reads tickets in there.
            Some(Destination::Address(address)) if self.rules.placement.remembers() && !self.reads_tickets(opening) => {
                self.remembered(self.hasher.of_text(network(address)))
            }
            Some(destination) => self.owner(destination),
            // A session that is made for it will stay where it is made, so it may be made anywhere.
            None if self.sessions.remember_new_ones() => self.place().or_else(|| self.here()),
            None => self.here(),
        };
        match owner {
            Some(owner) if owner == self.own => Verdict::Serve,
            // Who reads its channel instead has been told to refuse.
            Some(owner) if self.standing_in.contains(owner) => Verdict::Refuse,
            Some(owner) => Verdict::Send(owner),
            None => Verdict::Refuse,
        }
    }

    fn destination(
        &self,
        head: &RequestHead<'_>,
        client: Option<IpAddr>,
        key: &mut Option<AffinityKey>,
    ) -> Option<Destination> {
        let affinity = &self.rules.affinity;
        *key = key.or_else(|| affinity.key_in_head(head, &self.hasher));
        key.map(Destination::Key).or_else(|| {
            let known = Known { ticket: &|head| self.sessions.ticket(head), is_live: &|slot| self.is_live(slot) };
            affinity.key_beyond_head(head, client, &self.hasher, known)
        })
    }

    fn owner(&self, destination: Destination) -> Option<WorkerId> {
        let is_in = |slot: WorkerId| !self.is_out(slot);
        let hashed = |key| self.keys.first_among(self.workers.now(), key, |slot| !self.is_down(slot));
        let placed = |address| self.addresses.first_among(self.workers.now(), address, |slot| !self.is_down(slot));
        match destination {
            Destination::Key(key) => {
                let found = self.sessions.find(key).filter(|slot| is_in(*slot));
                found.or_else(|| hashed(key))
            }
            Destination::Chosen(key) if !self.rules.placement.remembers() => hashed(key),
            Destination::Chosen(key) => self.remembered(key),
            Destination::Address(address) if !self.rules.placement.remembers() => placed(address),
            // Its next request brings a ticket.
            Destination::Address(_) => self.place(),
            Destination::Home(address) => placed(address),
            Destination::New(address) => self.place().or_else(|| placed(address)),
            Destination::Worker(slot) if self.exists(slot) && is_in(slot) => Some(slot),
            Destination::Worker(slot) => self.another_than(slot),
        }
    }

    /// Who is asked in place of a worker that is named and out, or does not exist.
    fn another_than(&self, slot: WorkerId) -> Option<WorkerId> {
        self.row.affinity_stale();
        match self.rules.failover {
            // Everyone who names that slot goes to the same other one.
            Failover::Next { .. } => {
                let key = self.hasher.of_text(slot.to_string());
                self.keys.first_among(self.workers.now(), key, |slot: WorkerId| !self.is_out(slot))
            }
            Failover::Wait | Failover::Refuse { .. } => None,
        }
    }

    /// Whether there is no other worker to judge for. Where there was one, it still has connections.
    fn is_alone(&self) -> bool {
        self.workers.now() <= 1 && !self.is_out(self.own)
    }

    /// Where what is nobody's in particular is served: in this worker, unless it has been taken out.
    fn here(&self) -> Option<WorkerId> {
        if self.is_out(self.own) { self.anyone() } else { Some(self.own) }
    }

    fn exists(&self, slot: WorkerId) -> bool {
        self.workers.includes(slot)
    }

    /// Whether what is said to be in a slot can be asked for there.
    fn is_live(&self, slot: WorkerId) -> bool {
        self.exists(slot) && !self.is_out(slot) && !self.standing_in.contains(slot)
    }

    fn reads_tickets(&self, opening: &Opening<'_>) -> bool {
        self.sessions.use_tickets() && matches!(opening, Opening::Request(_))
    }

    /// Where this session is; one that is new, or whose worker is out, is placed and stays there.
    fn remembered(&self, key: AffinityKey) -> Option<WorkerId> {
        match self.sessions.find(key) {
            Some(slot) if !self.is_out(slot) => Some(slot),
            Some(_) => {
                self.row.affinity_stale();
                let slot = self.placer.place(|slot| !self.is_out(slot));
                slot.inspect(|slot| self.sessions.learn(key, *slot))
            }
            None => self.place().map(|slot| self.sessions.assign(key, slot)),
        }
    }

    /// Where a session goes that is seen for the first time.
    fn place(&self) -> Option<WorkerId> {
        self.row.affinity_new();
        self.placer.place(|slot| !self.is_out(slot))
    }

    /// A connection does not arrive at `slot`, to which it was to be sent.
    pub(crate) fn give_up(&self, slot: WorkerId) {
        self.placer.give_up(slot);
    }

    /// Whose a key is as long as everybody is there.
    pub(crate) fn owner_of(&self, key: &[u8]) -> Option<WorkerId> {
        self.keys.first_among(self.workers.now(), self.hasher.of_text(key), |_| true)
    }

    /// Whether ids of Engine.IO sessions have to name their worker.
    pub(crate) fn reads_session_tags(&self) -> bool {
        self.workers.room() > 1 && self.rules.affinity.reads_session_tags()
    }

    /// The address of the client that sent this head, for the application; with port 0 where nobody names one.
    #[inline]
    pub(crate) fn client(&self, opening: &Opening<'_>, peer: Option<SocketAddr>) -> Option<SocketAddr> {
        let from = |address: IpAddr| {
            let peer = peer.filter(|peer| peer.ip().to_canonical() == address);
            SocketAddr::new(address, peer.map_or(0, |peer| peer.port()))
        };
        match opening {
            Opening::Request(head) if self.duty == Duty::Serves => client_address::forwarded_by_us(head),
            Opening::Request(head) if self.trusts_anybody() => {
                self.rules.trust.client(Peer::from(peer), head).map(from)
            }
            _ => peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())),
        }
    }

    /// Notes that something is under way to `slot`, where that is forwarded.
    pub(crate) fn note_under_way(&self, slot: WorkerId) -> Option<UnderWay> {
        self.placer.forwarded().map(|loads| UnderWay::to(slot, loads))
    }

    /// The same as soon as it is known whose a message is: those of a burst are judged one after the other before the first of
    /// them is forwarded, and all would go where least was under way before.
    pub(crate) fn note_verdict(&self, verdict: Verdict) -> Option<UnderWay> {
        if let Verdict::Send(slot) = verdict { self.note_under_way(slot) } else { None }
    }

    /// The worker of a message that is nobody's in particular: each that is in, in turn.
    pub(crate) fn anyone(&self) -> Option<WorkerId> {
        self.placer.next(&|slot| !self.is_out(slot))
    }

    /// Whether clients may be somebody else than the peers of their connections.
    fn trusts_anybody(&self) -> bool {
        !self.rules.trust.proxies.is_empty()
    }

    /// Whether there is something to note of each message: who sends it, or whose it is.
    pub(crate) fn notes_messages(&self) -> bool {
        self.duty != Duty::Moves || self.trusts_anybody()
    }

    /// Whether this peer's word about its clients is taken.
    pub(crate) fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        if self.duty == Duty::Serves {
            return peer.is_none();
        }
        self.rules.trust.proxies.trusts(Peer::from(peer))
    }

    /// Leaves these slots out from now on, and no others.
    pub(crate) fn leave_out(&self, slots: &[WorkerId]) {
        self.out.set(slots);
    }

    /// Leaves these slots out as well, in this worker: what would be sent to them would come back here.
    pub(crate) fn stand_in_for(&self, slots: &[WorkerId]) {
        self.standing_in.set(slots);
    }

    /// Whether a slot is left out: it is not in use, or its process does not run. That this worker does not run is no news to
    /// it: what it can judge it can serve. One that was stopped is told that it was out when it goes on, and has its
    /// sessions all the same.
    pub(crate) fn is_out(&self, slot: WorkerId) -> bool {
        self.workers.lacks(slot) || self.is_down(slot)
    }

    /// Whether the process of a slot that is in use does not run, as far as that matters.
    fn is_down(&self, slot: WorkerId) -> bool {
        let may_be_replaced = !matches!(self.rules.failover, Failover::Refuse { .. });
        slot != self.own && (self.out.contains(slot) || (may_be_replaced && self.standing_in.contains(slot)))
    }
}

/// The part of the configuration that verdicts rest on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) affinity: Affinity,
    pub(crate) trust: ProxyTrust,
    pub(crate) failover: Failover,
    pub(crate) placement: Placement,
}

impl Rules {
    pub(crate) fn of(config: &Config) -> Self {
        let Config { affinity, trust, failover, placement, .. } = config;
        Self { affinity: affinity.clone(), trust: trust.clone(), failover: *failover, placement: *placement }
    }
}

/// The part of an address that one customer has.
fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets()[..8].to_vec(),
    }
}

/// A set of slots that is read for every message and seldom changes. While it changes a reader may see a part of it.
#[derive(Debug, Default)]
struct SlotSet([AtomicU64; MAX_WORKERS as usize / 64]);

impl SlotSet {
    fn set(&self, slots: &[WorkerId]) {
        for (index, word) in self.0.iter().enumerate() {
            let bits = slots.iter().filter(|slot| slot.index() / 64 == index).map(|slot| 1 << (slot.index() % 64));
            word.store(bits.fold(0, u64::bitor), Relaxed);
        }
    }

    fn contains(&self, slot: WorkerId) -> bool {
        let word = self.0.get(slot.index() / 64);
        word.is_some_and(|word| word.load(Relaxed) >> (slot.index() % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::HeadParts;
    use super::*;
    use crate::affinity::Choice;
    use crate::config::TrustedProxies;
    #[cfg(cluster)]
    use crate::config::{ClusterBuilder, Environment, Machine};
    #[cfg(cluster)]
    use crate::session::Shared;

    const OWN: WorkerId = WorkerId::new(1);

    fn judge(affinity: Affinity, failover: Failover) -> Judge {
        let rules = Rules { affinity, failover, ..Rules::default() };
        Judge::new(OWN, 4, 7, rules, Arc::new(Sessions::none()), Vec::new())
    }

    fn keyed(judge: &Judge, key: &str) -> Verdict {
        let parts = HeadParts::new("GET", "/", &[("x-key", key.as_bytes())]);
        judge.verdict(&Opening::Request(parts.head()), Some("192.0.2.1".parse().unwrap()))
    }

    #[test]
    fn a_key_has_one_owner_and_another_only_while_that_is_out() {
        let judge = judge(Affinity::header("x-key"), Failover::default());
        let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
        let before: Vec<Verdict> = keys.iter().map(|key| keyed(&judge, key)).collect();
        for slot in [0, 2, 3] {
            assert!(before.contains(&Verdict::Send(WorkerId::new(slot))));
        }
        assert!(before.contains(&Verdict::Serve));
        let out = WorkerId::new(3);
        judge.leave_out(&[out]);
        for (key, before) in keys.iter().zip(&before) {
            let now = keyed(&judge, key);
            assert_ne!(now, Verdict::Send(out));
            assert!(now == *before || *before == Verdict::Send(out));
        }
        judge.leave_out(&[]);
        assert_eq!(keys.iter().map(|key| keyed(&judge, key)).collect::<Vec<_>>(), before);
    }

    #[test]
    fn a_key_is_found_once_and_its_owner_asked_for_each_time() {
        let judge = judge(Affinity::header("x-key").or(Affinity::client_ip()), Failover::default());
        let verdict = |headers: &[(&str, &[u8])], key: &mut Option<AffinityKey>| {
            let parts = HeadParts::new("GET", "/", headers);
            judge.verdict_again(&Opening::Request(parts.head()), Some("192.0.2.1".parse().unwrap()), key)
        };
        let away = (0..100).map(|key| key.to_string()).find(|key| keyed(&judge, key) != Verdict::Serve).unwrap();
        let mut key = None;
        let first = verdict(&[("x-key", away.as_bytes())], &mut key);
        assert_eq!((first, key), (keyed(&judge, &away), Some(judge.hasher.of_text(&away))));
        assert_eq!(verdict(&[], &mut key), first, "the head is not read again");
        let Verdict::Send(owner) = first else { panic!("{first:?}") };
        judge.leave_out(&[owner]);
        assert_ne!(verdict(&[], &mut key), first);
        judge.leave_out(&[]);
        let mut none = None;
        verdict(&[], &mut none);
        assert_eq!(none, None, "an address is not in the head");
    }

    /// The judge of slot 1, with room for four.
    fn judge_among(count: &Headcount, placement: Placement) -> Judge {
        let rules = Rules { affinity: Affinity::header("x-key"), placement, ..Rules::default() };
        Judge::new(OWN, count.clone(), 7, rules, Arc::new(Sessions::none()), Vec::new())
    }

    #[test]
    fn only_keys_of_slots_that_come_or_go_move() {
        let count = Headcount::from(4);
        let judge = judge_among(&count, Placement::Rendezvous);
        let last = Verdict::Send(WorkerId::new(3));
        let verdicts = || (0..200).map(|key| keyed(&judge, &key.to_string())).collect::<Vec<_>>();
        let four = verdicts();
        count.set(3);
        let three = verdicts();
        assert!(four.iter().zip(&three).all(|(was, is)| (was == is) == (*was != last) && *is != last));
        count.set(4);
        assert_eq!(verdicts(), four);
        assert_eq!(judge.owner_of(b"a"), Rendezvous::of_all(4).owner(judge.hasher.of_text("a")));
        count.set(2);
        assert_eq!(judge.owner_of(b"a"), Rendezvous::of_all(2).owner(judge.hasher.of_text("a")));
    }

    #[test]
    fn a_worker_that_is_taken_out_begins_nothing_more() {
        let count = Headcount::from(4);
        for placement in [Placement::Rendezvous, Placement::Local, Placement::RoundRobin, Placement::FewestConnections]
        {
            count.set(1);
            let judge = judge_among(&count, placement);
            let first = Verdict::Send(WorkerId::new(0));
            // With a key, and without one.
            assert!((0..100).map(|key| key.to_string()).all(|key| keyed(&judge, &key) == first), "{placement}");
            assert_eq!(keyed(&judge, ""), first);
            assert_eq!(judge.place().unwrap_or(WorkerId::new(0)), WorkerId::new(0), "{placement}");
            count.set(2);
            assert_eq!(keyed(&judge, ""), Verdict::Serve, "it is there again");
        }
    }

    #[test]
    fn a_worker_is_never_out_for_itself() {
        let judge = judge(Affinity::header("x-key"), Failover::default());
        let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
        let ours = keys.iter().filter(|key| keyed(&judge, key) == Verdict::Serve).count();
        judge.leave_out(&[WorkerId::new(1)]);
        assert_eq!(keys.iter().filter(|key| keyed(&judge, key) == Verdict::Serve).count(), ours);
    }

    #[test]
    fn nothing_goes_to_a_slot_that_is_stood_in_for() {
        let judge = judge(Affinity::header("x-key"), Failover::Wait);
        let (slot, keys) = (WorkerId::new(2), 0..100);
        judge.stand_in_for(&[slot]);
        assert!(keys.clone().all(|key| keyed(&judge, &key.to_string()) != Verdict::Send(slot)));
        judge.stand_in_for(&[]);
        assert!(keys.clone().any(|key| keyed(&judge, &key.to_string()) == Verdict::Send(slot)));
    }

    #[test]
    fn who_stands_in_where_nobody_may_refuses() {
        let judge = judge(Affinity::header("x-key"), Failover::Refuse { after: Failover::DEFAULT_AFTER });
        let slot = WorkerId::new(2);
        let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
        let before: Vec<Verdict> = keys.iter().map(|key| keyed(&judge, key)).collect();
        judge.stand_in_for(&[slot]);
        for (key, before) in keys.iter().zip(before) {
            let expected = if before == Verdict::Send(slot) { Verdict::Refuse } else { before };
            assert_eq!(keyed(&judge, key), expected);
        }
    }

    #[test]
    fn what_is_judged_is_under_way_before_it_is_forwarded() {
        let rules = Rules { placement: Placement::FewestConnections, ..Rules::default() };
        let judge = Judge::new(WorkerId::new(4), 4, 7, rules, Arc::new(Sessions::none()), Vec::new());
        let judge = judge.with_duty(Duty::Forwards);
        let mut under_way: Vec<_> = [0, 1].map(|slot| judge.note_verdict(Verdict::Send(WorkerId::new(slot)))).into();
        let mut counts = [0; 4];
        for _ in 0..6 {
            let slot = judge.place().unwrap();
            counts[slot.index()] += 1;
            under_way.push(judge.note_verdict(Verdict::Send(slot)));
        }
        assert_eq!(counts, [1, 1, 2, 2]);
        assert!(judge.note_verdict(Verdict::Serve).is_none());
    }

    #[test]
    fn without_a_key_it_is_served_where_it_is() {
        let judge = judge(Affinity::header("x-key"), Failover::default());
        assert_eq!(keyed(&judge, ""), Verdict::Serve);
    }

    #[test]
    fn addresses_are_placed_as_the_kernel_does() {
        let judge = judge(Affinity::client_ip(), Failover::default());
        let kernel = KernelHash::of_all(7, 4);
        for last in 0..=255 {
            let client = IpAddr::from([192, 0, 2, last]);
            let expected = match kernel.owner(client).unwrap() {
                owner if owner.get() == 1 => Verdict::Serve,
                owner => Verdict::Send(owner),
            };
            let parts = HeadParts::new("GET", "/", &[]);
            assert_eq!(judge.verdict(&Opening::Request(parts.head()), Some(client)), expected);
            assert_eq!(judge.verdict(&Opening::Http2, Some(client)), expected);
        }
    }

    #[test]
    fn a_worker_that_does_not_exist_is_one_that_is_not_running() {
        let named = || Affinity::custom(|_| Choice::worker(WorkerId::new(9)));
        assert_eq!(keyed(&judge(named(), Failover::Wait), ""), Verdict::Refuse);
        let refuse = Failover::Refuse { after: Failover::DEFAULT_AFTER };
        assert_eq!(keyed(&judge(named(), refuse), ""), Verdict::Refuse);
        assert_ne!(keyed(&judge(named(), Failover::default()), ""), Verdict::Refuse);
    }

    /// The judge of slot 1 of four, with a table of sessions.
    #[cfg(cluster)]
    fn remembering(affinity: Affinity, placement: Placement) -> Judge {
        let builder = ClusterBuilder::default().affinity(affinity).placement(placement);
        let environment = Environment::from_iter([("STICKY_DISPATCH", "handoff")]);
        let machine = Machine { cpus: std::num::NonZeroUsize::MIN };
        let config = builder.resolve(&environment, &machine).unwrap();
        let words = crate::placement::SessionTable::words_for(1024);
        let file = crate::sys::memory::create_sealed("test", words).unwrap();
        let table = crate::session::TableMemory::map(&file).unwrap();
        let shared = Shared { secret: b"a secret of the tests".to_vec(), table: Some(Arc::new(table)) };
        let sessions = Sessions::new(OWN, 4, 7, &config, shared);
        Judge::new(OWN, 4, 7, Rules::of(&config), Arc::new(sessions), Vec::new())
    }

    /// The slot of a request, whoever serves it.
    #[cfg(cluster)]
    fn slot_of(judge: &Judge, opening: &Opening<'_>, client: Option<&str>) -> u16 {
        match judge.verdict(opening, client.map(|client| client.parse().unwrap())) {
            Verdict::Serve => judge.own.get(),
            Verdict::Send(slot) => slot.get(),
            Verdict::Refuse => panic!("refused"),
        }
    }

    #[cfg(cluster)]
    #[test]
    fn a_chosen_key_stays_where_its_turn_has_placed_it_until_that_is_out() {
        let choose = || Affinity::custom(|head| head.header("x-key").map_or(Choice::nothing(), Choice::key));
        let judge = remembering(choose(), Placement::RoundRobin);
        let (own, next) = (Verdict::Serve, Verdict::Send(WorkerId::new(2)));
        assert_eq!(["a", "b", "a", "b"].map(|key| keyed(&judge, key)), [own, next, own, next]);
        judge.leave_out(&[WorkerId::new(2)]);
        let other = keyed(&judge, "b");
        assert_ne!(other, next);
        judge.leave_out(&[]);
        assert_eq!(["a", "b"].map(|key| keyed(&judge, key)), [own, other]);
        // A key from a client is not worth an entry, and has its hash.
        let hashed = self::judge(Affinity::header("x-key"), Failover::default());
        let judge = remembering(Affinity::header("x-key"), Placement::RoundRobin);
        assert!((0..100).map(|key| key.to_string()).all(|key| keyed(&judge, &key) == keyed(&hashed, &key)));
        // One that was learned is where it was made, unless that is out.
        let key = (0..).map(|key| key.to_string()).find(|key| keyed(&judge, key) == own).unwrap();
        judge.sessions.learn(judge.hasher.of_text(&key), WorkerId::new(2));
        assert_eq!(keyed(&judge, &key), next);
        judge.leave_out(&[WorkerId::new(2)]);
        assert_eq!(keyed(&judge, &key), own);
    }

    #[test]
    fn a_key_that_code_has_chosen_has_its_hash_by_default() {
        let chosen = Affinity::custom(|head| head.header("x-key").map_or(Choice::nothing(), Choice::key));
        let (chosen, sent) = (judge(chosen, Failover::Wait), judge(Affinity::header("x-key"), Failover::Wait));
        assert!((0..100).map(|key| key.to_string()).all(|key| keyed(&chosen, &key) == keyed(&sent, &key)));
    }

    #[cfg(cluster)]
    #[test]
    fn a_network_stays_where_its_turn_has_placed_it() {
        let judge = remembering(Affinity::client_ip(), Placement::RoundRobin);
        let parts = HeadParts::new("GET", "/", &[]);
        let slot = |client| slot_of(&judge, &Opening::Request(parts.head()), Some(client));
        let clients = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"];
        assert_eq!(clients.map(slot), [1, 2, 3, 0]);
        let same = ["2001:db8:0:1:8000::1", "2001:db8::2", "192.0.2.2", "::ffff:192.0.2.1"];
        assert_eq!(same.map(slot), [0, 3, 2, 1]);
    }

    #[cfg(cluster)]
    #[test]
    fn an_address_is_remembered_only_where_no_ticket_can_be() {
        let judge = remembering(Affinity::sticky_cookie().or(Affinity::client_ip()), Placement::RoundRobin);
        let parts = HeadParts::new("GET", "/", &[]);
        let slot = |opening: &Opening<'_>| slot_of(&judge, opening, Some("192.0.2.1"));
        assert_eq!([(); 3].map(|()| slot(&Opening::Request(parts.head()))), [1, 2, 3]);
        assert_eq!([(); 3].map(|()| slot(&Opening::Http2)), [0; 3]);
    }

    #[cfg(cluster)]
    #[test]
    fn a_session_without_a_key_is_placed_where_it_will_be_known() {
        let slots = |affinity, placement| {
            let judge = remembering(affinity, placement);
            let parts = HeadParts::new("GET", "/", &[]);
            [(); 5].map(|()| slot_of(&judge, &Opening::Request(parts.head()), None))
        };
        assert_eq!(slots(Affinity::sticky_cookie(), Placement::RoundRobin), [1, 2, 3, 0, 1]);
        assert_eq!(slots(Affinity::cookie("session").learn(), Placement::RoundRobin), [1, 2, 3, 0, 1]);
        assert_eq!(slots(Affinity::sticky_cookie(), Placement::Rendezvous), [1; 5]);
        assert_eq!(slots(Affinity::header("x-key"), Placement::RoundRobin), [1; 5]);
    }

    /// What becomes of a request with this query, which comes from an address of its own.
    fn engine_io(judge: &Judge, client: u8, query: &str) -> Verdict {
        let parts = HeadParts::new("GET", &format!("/socket.io/?transport=polling&{query}"), &[]);
        judge.verdict(&Opening::Request(parts.head()), Some(IpAddr::from([192, 0, 2, client])))
    }

    #[test]
    fn an_engine_io_session_is_asked_for_where_its_tag_says_unless_that_cannot_answer() {
        for failover in [Failover::default(), Failover::Wait, Failover::Refuse { after: Failover::DEFAULT_AFTER }] {
            let judge = judge(Affinity::engine_io(), failover);
            let tagged = |slot: u16| engine_io(&judge, 1, &format!("EIO=4&sid=AbCdEfGhIjKl_-09.{slot}"));
            let [zero, two, three] = [0, 2, 3].map(|slot| Verdict::Send(WorkerId::new(slot)));
            assert_eq!([0, 1, 2, 3].map(tagged), [zero, Verdict::Serve, two, three]);
            let untagged = engine_io(&judge, 1, "EIO=4&sid=AbCdEfGhIjKl_-09");
            assert_eq!([4, 255].map(tagged), [untagged; 2]);
            judge.leave_out(&[WorkerId::new(3)]);
            assert!(tagged(3) != three && tagged(3) != Verdict::Refuse, "{failover:?}");
            judge.leave_out(&[]);
            judge.stand_in_for(&[WorkerId::new(2)]);
            assert!(tagged(2) != two && (tagged(2) != Verdict::Refuse || untagged == two), "{failover:?}");
        }
    }

    #[cfg(cluster)]
    #[test]
    fn an_engine_io_session_begins_anywhere_if_its_id_can_tell_where() {
        let judge = remembering(Affinity::engine_io(), Placement::RoundRobin);
        let slot = |query| match engine_io(&judge, 1, query) {
            Verdict::Serve => OWN,
            Verdict::Send(slot) => slot,
            Verdict::Refuse => panic!("refused"),
        };
        assert_eq!([(); 5].map(|()| slot("EIO=4").get()), [1, 2, 3, 0, 1]);
        let home = KernelHash::of_all(7, 4).owner(IpAddr::from([192, 0, 2, 1])).unwrap();
        assert_eq!([(); 5].map(|()| slot("EIO=3")), [home; 5]);
        let other = slot("x=y");
        assert_eq!([(); 5].map(|()| slot("x=y")), [other; 5], "an address stays where its turn was");
        let hashed = self::judge(Affinity::engine_io(), Failover::default());
        let expected = if home == OWN { Verdict::Serve } else { Verdict::Send(home) };
        assert_eq!(engine_io(&hashed, 1, "EIO=4"), expected);
    }

    #[test]
    fn who_names_a_worker_that_is_out_goes_where_all_who_name_it_go() {
        let named = |slot| Affinity::custom(move |_| Choice::worker(WorkerId::new(slot)));
        let judges = [Failover::default(), Failover::Wait].map(|failover| judge(named(3), failover));
        let out = WorkerId::new(3);
        assert!(judges.iter().all(|judge| keyed(judge, "") == Verdict::Send(out)));
        judges.iter().for_each(|judge| judge.leave_out(&[out]));
        let [other, refused] = judges.map(|judge| ["a", "b"].map(|key| keyed(&judge, key)));
        assert!(other[0] == other[1] && other[0] != Verdict::Send(out) && other[0] != Verdict::Refuse);
        assert_eq!(refused, [Verdict::Refuse; 2]);
        assert_eq!(keyed(&judge(named(4), Failover::Wait), ""), Verdict::Refuse, "the first that does not exist");
    }

    #[test]
    fn a_worker_without_others_serves_everything() {
        let named = Affinity::custom(|_| Choice::worker(WorkerId::new(9)));
        let rules = Rules { affinity: named, failover: Failover::Wait, ..Rules::default() };
        let judge = Judge::new(WorkerId::new(0), 1, 7, rules, Arc::new(Sessions::none()), Vec::new());
        assert_eq!(keyed(&judge, ""), Verdict::Serve);
    }

    #[test]
    fn an_owner_is_whose_a_key_is_as_long_as_everybody_is_there() {
        let judge = judge(Affinity::header("x-key"), Failover::default());
        let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
        let verdicts: Vec<Verdict> = keys.iter().map(|key| keyed(&judge, key)).collect();
        judge.leave_out(&[WorkerId::new(2)]);
        for (key, verdict) in keys.iter().zip(verdicts) {
            let owner = judge.owner_of(key.as_bytes()).unwrap();
            assert_eq!(if owner == OWN { Verdict::Serve } else { Verdict::Send(owner) }, verdict);
        }
    }

    #[test]
    fn only_trusted_peers_speak_for_others() {
        let proxies = TrustedProxies::of("192.0.2.1");
        let rules = Rules { trust: ProxyTrust { proxies, ..ProxyTrust::default() }, ..Rules::default() };
        let sessions = Arc::new(Sessions::none());
        let judge = Judge::new(OWN, 4, 7, rules, sessions, Vec::new());
        let parts = HeadParts::new("GET", "/", &[("x-forwarded-for", b"198.51.100.7")]);
        let [proxy, other] = ["192.0.2.1:80", "192.0.2.2:80"].map(|peer| Some(peer.parse().unwrap()));
        let client = |peer| judge.client(&Opening::Request(parts.head()), peer).unwrap().to_string();
        assert_eq!([client(proxy), client(other)], ["198.51.100.7:0", "192.0.2.2:80"]);
        assert_eq!(judge.client(&Opening::Http2, proxy), proxy);
        assert_eq!([proxy, other, None].map(|peer| judge.trusts(peer)), [true, false, false]);
        assert!(judge.notes_messages());
        assert!(!self::judge(Affinity::default(), Failover::default()).notes_messages());
    }

    #[test]
    fn what_does_not_arrive_is_not_waited_for() {
        let rows: Vec<Row> = WorkerId::all(4).map(|_| Row::detached()).collect();
        rows.iter().zip(WorkerId::all(4)).for_each(|(row, slot)| row.sit(slot));
        let rules = Rules { placement: Placement::FewestConnections, ..Rules::default() };
        let judge = Judge::new(OWN, 4, 7, rules, Arc::new(Sessions::none()), rows.clone());
        rows[2].reserve();
        judge.give_up(WorkerId::new(2));
        assert_eq!(rows[2].load(), 0);
    }

    #[test]
    fn a_set_of_slots_holds_what_was_put_in_last() {
        let set = SlotSet::default();
        let slots = [0, 63, 64, 255].map(WorkerId::new);
        set.set(&slots);
        let held = |set: &SlotSet| WorkerId::all(256).filter(|slot| set.contains(*slot)).collect::<Vec<_>>();
        assert_eq!(held(&set), slots);
        assert!(!set.contains(WorkerId::new(u16::MAX)));
        set.set(&slots[..1]);
        assert_eq!(held(&set), slots[..1]);
    }
}
