//! The admin process as the supervisor keeps it: started, greeted and buried like a worker, but in no slot; told what has
//! changed, and asked for nothing.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::child::{Incoming, Launched, Process};
use super::event::{ChildId, ChildSignal, Ended, Event, Note, Ticket};
use super::happening::happening;
use super::output::{HaltedPipe, Pump};
use super::run::{Supervisor, judge};
use crate::admin::{ClusterView, Command, ProcessView, Progress, SlotView, View, now_ms};
use crate::control::{Admission, DrainOrder, Hello, SocketKind, ToWorker};
use crate::id::{Post, WorkerId};
use crate::listener::{ListenerSet, LocalAddress};
use crate::scoreboard::Totals;
use crate::worker::DrainReason;

/// How many commands may be under way; nobody asks that much who waits for answers.
const MOST_TICKETS: usize = 64;

/// How long the admin process has to end when everything else has: it passes on what was said last.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// What the supervisor keeps about its admin process, and for it.
#[derive(Default)]
pub(super) struct Desk {
    listeners: Vec<ListenerSet>,
    attendant: Option<Attendant>,
    /// When each of the processes there are was started, in milliseconds since 1970.
    started: BTreeMap<ChildId, u64>,
    restarts: BTreeMap<Restarts, u64>,
    tickets: BTreeMap<Ticket, u64>,
    next_ticket: u64,
    started_ms: u64,
}

/// A running admin process.
struct Attendant {
    child: ChildId,
    process: Arc<Process>,
    pump: Option<Pump>,
    /// What it has been told; nothing before it has greeted.
    told: Option<View>,
    /// The version of the protocol that is spoken with it.
    protocol: u32,
    /// It has ended, and its last words are waited for.
    is_ending: bool,
}

/// What of it the next program has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedDesk {
    started: Vec<(ChildId, u64)>,
    restarts: Vec<(Restarts, u64)>,
    tickets: Vec<(Ticket, u64)>,
    next_ticket: u64,
    started_ms: u64,
}

/// What is started again: a worker or a proxy, by its number.
type Restarts = (bool, u16);

impl Desk {
    pub(super) fn new(listeners: Vec<ListenerSet>) -> Self {
        Self { listeners, started_ms: now_ms(), ..Self::default() }
    }

    /// What there was before this program took over.
    pub(super) fn resumed(listeners: Vec<ListenerSet>, carried: CarriedDesk) -> Self {
        let CarriedDesk { started, restarts, tickets, next_ticket, started_ms } = carried;
        Self {
            listeners,
            attendant: None,
            started: started.into_iter().collect(),
            restarts: restarts.into_iter().collect(),
            tickets: tickets.into_iter().collect(),
            next_ticket,
            started_ms,
        }
    }

    /// What the next program has to know.
    pub(super) fn carried(&self) -> CarriedDesk {
        CarriedDesk {
            started: self.started.iter().map(|(child, started)| (*child, *started)).collect(),
            restarts: self.restarts.iter().map(|(who, count)| (*who, *count)).collect(),
            tickets: self.tickets.iter().map(|(ticket, number)| (*ticket, *number)).collect(),
            next_ticket: self.next_ticket,
            started_ms: self.started_ms,
        }
    }

    pub(super) fn listeners(&self) -> &[ListenerSet] {
        &self.listeners
    }

    /// The admin process, and the version of the protocol that is spoken with it.
    pub(super) fn attendant_process(&self) -> Option<(ChildId, &Process, u32)> {
        self.attendant.as_ref().map(|attendant| (attendant.child, attendant.process.as_ref(), attendant.protocol))
    }

    /// Whether nothing is on its way to it.
    pub(super) fn is_idle(&self) -> bool {
        let is_idle = |attendant: &Attendant| {
            attendant.told.is_some() && !attendant.is_ending && attendant.process.has_been_told()
        };
        self.attendant.as_ref().is_none_or(is_idle)
    }

    /// Which process this pipe is the admin process's.
    pub(super) fn owner_of(&self, pipe: &HaltedPipe) -> Option<ChildId> {
        let is_its = |attendant: &&Attendant| attendant.pump.as_ref().is_some_and(|pump| pump.has(pipe));
        self.attendant.as_ref().filter(is_its).map(|attendant| attendant.child)
    }

    /// One line for each address.
    pub(super) fn announce(&self) {
        for set in &self.listeners {
            let (scheme, address) = (set.address().scheme(), set.address());
            crate::notice::info(format_args!("metrics and status are at {scheme}{address}"));
        }
    }

    fn is(&self, child: ChildId) -> bool {
        self.attendant.as_ref().is_some_and(|attendant| attendant.child == child)
    }

    pub(super) fn process(&self, child: ChildId) -> Option<&Arc<Process>> {
        self.attendant.as_ref().filter(|attendant| attendant.child == child).map(|attendant| &attendant.process)
    }

    pub(super) fn pid(&self) -> Option<rustix::process::Pid> {
        self.attendant.as_ref().map(|attendant| attendant.process.pid)
    }

    fn tell(&self, message: &ToWorker) {
        if let Some(Attendant { process, told: Some(_), .. }) = &self.attendant {
            process.send(message, &[]);
        }
    }

    pub(super) fn born(&mut self, child: ChildId) {
        self.started.insert(child, now_ms());
    }

    pub(super) fn buried(&mut self, child: ChildId) {
        self.started.remove(&child);
    }

    /// Passes on what the user is told, and counts what is counted of it.
    pub(super) fn heard(&mut self, note: &Note) {
        if let Note::Restarting { who, .. } = note
            && let Some(who) = of(*who)
        {
            *self.restarts.entry(who).or_default() += 1;
        }
        self.tell(&ToWorker::Happened(happening(note, now_ms())));
    }

    fn issue(&mut self, number: u64) -> Option<Ticket> {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let has_room = self.tickets.len() < MOST_TICKETS;
        has_room.then(|| {
            self.tickets.insert(ticket, number);
            ticket
        })
    }

    pub(super) fn report(&mut self, ticket: Ticket, progress: Progress) {
        let number = if progress.is_last() { self.tickets.remove(&ticket) } else { self.tickets.get(&ticket).copied() };
        if let Some(number) = number {
            self.tell(&ToWorker::Progress { number, progress });
        }
    }

    /// Tells what has changed.
    fn update(&mut self, view: View) {
        let Some(Attendant { process, told: Some(told), .. }) = &mut self.attendant else { return };
        for news in told.changes_to(&view) {
            process.send(&ToWorker::News(news), &[]);
        }
        *told = view;
    }
}

impl Supervisor {
    // === Its life ===

    /// Starts it, from what runs here: it belongs to the supervisor, whatever workers have been reloaded to.
    pub(super) fn attend(&mut self, child: ChildId) {
        match self.launcher.launch(self.program.running(), Post::Admin, &self.output) {
            Ok(Launched { process, pump }) => {
                self.watch(child, &process);
                self.desk.attendant =
                    Some(Attendant { child, process, pump, told: None, protocol: 0, is_ending: false });
            }
            // Through the queue, not at once: this is called while the state machine is being asked.
            Err(error) => {
                let error = error.to_string();
                let _ = self.incoming.0.send(Incoming::Event(Event::SpawnFailed { child, error }));
            }
        }
    }

    /// Goes on with one that was started before this program took over. It is told everything anew.
    pub(super) fn adopt_attendant(&mut self, child: ChildId, process: Arc<Process>, protocol: u32, pump: Option<Pump>) {
        self.watch(child, &process);
        let told = Some(View::default());
        self.desk.attendant = Some(Attendant { child, process, pump, told, protocol, is_ending: false });
    }

    /// Answers its greeting; tells whether it is its greeting.
    pub(super) fn greet_attendant(&mut self, child: ChildId, hello: &Hello) -> bool {
        let Some(process) = self.desk.process(child).map(Arc::clone) else { return false };
        match judge(hello, &self.config.fingerprint()) {
            Ok(protocol) => {
                self.admit(&process, protocol);
                self.decide(Event::Ready { child, adopts: false });
            }
            Err(reason) => self.refuse(child, Post::Admin, &process, reason),
        }
        true
    }

    fn admit(&mut self, process: &Arc<Process>, protocol: u32) {
        let listeners = self.desk.listeners.iter().map(|set| match set.address() {
            LocalAddress::Unix(_) => SocketKind::SharedUnix,
            LocalAddress::Tcp(_) => SocketKind::SharedTcp,
        });
        let admission = Admission { protocol, started_ms: self.desk.started_ms, listeners: listeners.collect() };
        let sockets = self.desk.listeners.iter().flat_map(|set| set.kind().sockets());
        let descriptors: Vec<_> = std::iter::once(self.scoreboard.as_fd()).chain(sockets.map(AsFd::as_fd)).collect();
        process.send(&ToWorker::Admit(admission), &descriptors);
        if let Some(attendant) = &mut self.desk.attendant {
            attendant.told = Some(View::default());
            attendant.protocol = protocol;
        }
        let exporters = self.members.iter().filter(|(_, member)| member.exports);
        exporters.for_each(|(child, _)| self.connect_exporter(*child));
    }

    /// A worker has metrics of its own.
    pub(super) fn exports(&mut self, child: ChildId) {
        if let Some(member) = self.members.get_mut(&child) {
            member.exports = true;
            self.connect_exporter(child);
        }
    }

    /// Gives the admin process, if there is one, a way to a worker.
    fn connect_exporter(&self, child: ChildId) {
        let (Some(member), Some(attendant)) = (self.members.get(&child), &self.desk.attendant) else { return };
        // Without descriptors its metrics are missing, which is better than anything else that could be.
        if let (Some(_), Ok((ours, theirs))) = (&attendant.told, super::sockets::bus_pair()) {
            let message = ToWorker::Exporter { process: child.0 };
            member.process.send(&message, &[theirs.as_fd()]);
            attendant.process.send(&message, &[ours.as_fd()]);
        }
    }

    /// Forgets it, after its last words; tells whether it was that.
    pub(super) fn attendant_exited(&mut self, child: ChildId, how: Ended) -> bool {
        if !self.desk.is(child) {
            return false;
        }
        let pump = self.desk.attendant.as_mut().and_then(|attendant| {
            attendant.is_ending = true;
            attendant.pump.take()
        });
        match pump {
            Some(pump) => self.hear_last_words(child, how, pump),
            None => {
                self.desk.attendant = None;
                // Nobody is left who could be told.
                self.desk.tickets.clear();
                self.decide(Event::Exited { child, how });
            }
        }
        true
    }

    /// Has it end when everything else has, and waits for that, but not for long.
    pub(super) async fn dismiss_attendant(&mut self) {
        let Some(Attendant { process, .. }) = &self.desk.attendant else { return };
        process.send(&ToWorker::Drain(DrainOrder { reason: DrainReason::Shutdown, timeout_ms: 0 }), &[]);
        if timeout(FAREWELL_TIME, self.attendant_end()).await.is_err() {
            if let Some(Attendant { process, .. }) = &self.desk.attendant {
                process.signal(ChildSignal::Kill);
            }
            let _ = timeout(FAREWELL_TIME, self.attendant_end()).await;
        }
    }

    async fn attendant_end(&mut self) {
        while self.desk.attendant.is_some() {
            match self.incoming.1.recv().await {
                Some(Incoming::Event(Event::Exited { child, how })) => drop(self.attendant_exited(child, how)),
                Some(_) => {}
                None => return,
            }
        }
    }

    // === What it asks and is told ===

    /// Takes a command. Workers have nothing to ask.
    pub(super) fn commanded(&mut self, child: ChildId, number: u64, command: Command) {
        if !self.desk.is(child) {
            return;
        }
        match self.desk.issue(number) {
            Some(ticket) => self.decide(Event::Command { ticket, command }),
            None => {
                let why = format!("{MOST_TICKETS} commands are under way");
                self.desk.tell(&ToWorker::Progress { number, progress: Progress::Refused { why } });
            }
        }
    }

    /// Tells what has changed, if there is somebody to be told.
    pub(super) fn update_attendant(&mut self) {
        if self.desk.attendant.as_ref().is_some_and(|attendant| attendant.told.is_some()) {
            let view = self.view();
            self.desk.update(view);
        }
    }

    fn view(&self) -> View {
        let slots = self.state.slot_sights().map(|sight| {
            let restarts =
                of(Post::of(sight.slot, self.config.max_workers)).and_then(|who| self.desk.restarts.get(&who));
            let view = SlotView {
                kind: sight.kind,
                number: sight.number,
                state: sight.state,
                is_evicted: sight.is_evicted,
                restarts: restarts.copied().unwrap_or_default(),
                ended: self.ended(sight.slot),
            };
            (sight.slot, view)
        });
        let processes = self.state.process_sights().filter_map(|sight| {
            let member = self.members.get(&sight.child)?;
            let view = ProcessView {
                slot: member.slot,
                generation: member.generation,
                seat: member.seat,
                pid: member.process.pid.as_raw_nonzero().get().unsigned_abs(),
                state: sight.state,
                is_current: sight.is_current,
                started_ms: self.desk.started.get(&sight.child).copied().unwrap_or_default(),
            };
            Some((sight.child.0, view))
        });
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let cluster = ClusterView { version, reexecs: self.reexecs, ..self.state.cluster_view() };
        View { cluster, slots: slots.collect(), processes: processes.collect() }
    }

    fn ended(&self, slot: WorkerId) -> Totals {
        self.ledger.ended(slot)
    }
}

fn of(who: Post) -> Option<Restarts> {
    match who {
        Post::Worker(slot) => Some((false, slot.get())),
        Post::Proxy(number) => Some((true, number)),
        Post::Preparation | Post::Admin | Post::Trial => None,
    }
}
