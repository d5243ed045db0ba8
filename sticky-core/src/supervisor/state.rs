//! The supervisor's decisions: a pure state machine. It is told what happened and when, and answers with what to
//! do; it has no clock, no process and no socket.
//!
//! ```text
//! Booting ── all ready ──► Running ── Terminate ──► ShuttingDown ── all gone ──► Finish(Clean)
//!    │                                                   │
//!    └── one fails ──► Stopping ── all gone ──► Finish   └── Terminate ──► Stopping
//! ```
//!
//! Who should read a slot's sockets is worked out anew after every event ([`State::wanted_reader`]) and approached one
//! step at a time ([`State::settle_reader`]), so that no order of events can leave a slot without a way back.

mod attendant;
mod carry;
mod command;
mod leadership;
mod prepare;
mod readers;
mod recycling;
mod reexec;
mod reload;
mod scaling;
mod shutdown;
mod view;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use self::attendant::Attendant;
pub(crate) use self::carry::CarriedState;
use self::command::Commands;
use self::leadership::Leader;
use self::prepare::Preparer;
use self::reexec::Reexec;
use self::reload::{MOST_RETIRED, Reload};
use self::scaling::Scaling;
use super::event::{
    Action, BootFailure, BootFailureKind, ChildId, ChildSignal, Ended, Event, Note, Outcome, Program, Report, Scope,
};
use super::recycle::{Quota, Reached};
use super::restart::Backoff;
use crate::config::Failover;
use crate::control::{Part, Port, WorkerReport};
use crate::id::{Generation, Post, WorkerId};

/// How long a process that was told to dump core has for it.
const DUMP_TIME: Duration = Duration::from_secs(5);

/// How long the kernel has to end a process that was killed, before everything ends without it.
const KILL_TIME: Duration = Duration::from_secs(5);

/// What a worker may take to notice that its drain's deadline has passed, to cut, and to say so.
const CUT_TIME: Duration = Duration::from_secs(1);

/// The settings that decisions depend on.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The slots that run the application to begin with.
    pub(crate) workers: u16,
    /// The slots that can.
    pub(crate) room: u16,
    /// The slots that forward to them, which follow.
    pub(crate) proxies: u16,
    pub(crate) boot_timeout: Duration,
    /// How long it may take to prepare a set of generations; none if there is nothing to prepare.
    pub(crate) prepare_timeout: Option<Duration>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) exit_timeout: Duration,
    pub(crate) reload_parallel: u16,
    pub(crate) reload_soak: Duration,
    /// How much each worker may use before it is replaced.
    pub(crate) quota: Quota,
    pub(crate) failover: Failover,
    /// Whether there is an admin process.
    pub(crate) admin: bool,
    /// Whether connections move between workers: then whoever accepts one passes it on to whom it belongs.
    pub(crate) moves: bool,
    /// Seeds the jitter of restarts.
    pub(crate) seed: u64,
}

impl Policy {
    /// Whether what this slot's process serves is forwarded to it.
    fn is_behind_proxies(&self, slot: WorkerId) -> bool {
        self.proxies > 0 && slot.get() < self.room
    }

    /// What this slot's process may take after a shutdown's deadline. Workers behind proxies begin when those have done.
    fn cut_time(&self, slot: WorkerId) -> Duration {
        if self.is_behind_proxies(slot) { 2 * CUT_TIME } else { CUT_TIME }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Booting,
    Running,
    ShuttingDown { since: Instant, deadline: Instant, listening: bool },
    Stopping { until: Instant, outcome: Outcome },
    Finished,
}

/// Who reads a slot's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Nobody,
    Child(ChildId),
    /// Asked to let go; it has not answered yet, and is waited for until this time.
    Releasing(ChildId, Instant),
}

impl Reader {
    /// Whether this process reads, and nobody has asked it to stop.
    fn is_held_by(self, child: ChildId) -> bool {
        self == Self::Child(child)
    }

    fn is(self, child: ChildId) -> bool {
        matches!(self, Self::Child(reader) | Self::Releasing(reader, _) if reader == child)
    }

    fn is_held_by_another_than(self, child: ChildId) -> bool {
        matches!(self, Self::Child(reader) if reader != child)
    }
}

#[derive(Debug)]
struct Slot {
    /// The process in the slot, until it has ended or another has taken its place.
    current: Option<ChildId>,
    /// The process that is to take its place, until it has or has ended.
    next: Option<ChildId>,
    generation: Generation,
    /// Who reads each part of its sockets.
    readers: [Reader; Part::ALL.len()],
    backoff: Backoff,
    respawn_at: Option<Instant>,
    /// The delays of a worker that cannot be replaced.
    recycle_backoff: Backoff,
    recycle_at: Option<Instant>,
    /// Since when nobody in the slot can serve.
    down_since: Option<Instant>,
    /// Its clients do not wait any longer.
    evicted: bool,
    /// It was told to drain: nobody is started in it until it is reloaded.
    drained: bool,
    /// Its sockets have been, or are, in use: something may come in there.
    is_known: bool,
    /// In a shutdown: nothing waits in this part of its sockets any more.
    emptied: [bool; Part::ALL.len()],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not ready; killed at this time.
    Booting {
        until: Instant,
    },
    /// Ready to take a slot over, at this time.
    Soaking {
        until: Instant,
    },
    /// Ready to serve in a slot that is added: it reads, and waits for the others that are.
    Poised,
    Ready,
    /// Another has been trusted with its slot; it reads until that does.
    Superseded,
    /// Its slot is taken out: new clients go elsewhere, and what is still on its way here comes in until this time.
    Parting {
        until: Instant,
    },
    /// Drains because another has taken over; killed at this time.
    Retired {
        until: Instant,
    },
    Draining,
    /// Has drained; killed at this time.
    Leaving {
        until: Instant,
    },
    /// Told to dump core; killed at this time.
    Aborting {
        until: Instant,
    },
    Killed,
}

#[derive(Clone, Debug)]
struct Child {
    slot: WorkerId,
    seat: usize,
    born: Instant,
    stage: Stage,
    was_ready: bool,
    adopts: bool,
    stopped: bool,
    /// Where it listens by itself, if it does.
    port: Option<u16>,
    /// It takes part in the bus.
    on_bus: bool,
    /// It wants to lead.
    is_candidate: bool,
    /// It has been told that no proxy asks it anything any more.
    forsaken: bool,
    words: Option<String>,
    /// What it may use.
    quota: Quota,
    /// What of that it has used up.
    reached: Option<Reached>,
    /// It has been said that its replacement must wait.
    is_known_to_wait: bool,
}

/// The whole of what the supervisor knows.
#[derive(Debug)]
pub(crate) struct State {
    policy: Policy,
    phase: Phase,
    slots: Vec<Slot>,
    /// How many of the workers' slots are in use: those from the first on.
    count: u16,
    children: BTreeMap<ChildId, Child>,
    scaling: Option<Scaling>,
    /// How many workers have been asked for while something else was under way.
    next_count: Option<u16>,
    reload: Option<Reload>,
    /// Asked for while another was under way.
    next_reload: Option<Scope>,
    /// Who is to hear what becomes of what was asked.
    commands: Commands,
    attendant: Attendant,
    reexec: Reexec,
    leader: Leader,
    /// The process that prepares the next set of generations.
    preparer: Option<Preparer>,
    next_child: u64,
    draws: u64,
    report: Report,
    /// The slots that the proxies know to be down.
    known_down: Vec<WorkerId>,
    /// Where the proxies know workers to listen.
    known_ports: Vec<Port>,
    out: Vec<Action>,
}

impl State {
    pub(crate) fn new(policy: Policy) -> Self {
        let slot = |is_known| Slot {
            current: None,
            next: None,
            generation: Generation::FIRST,
            readers: [Reader::Nobody; Part::ALL.len()],
            backoff: Backoff::default(),
            respawn_at: None,
            recycle_backoff: Backoff::default(),
            recycle_at: None,
            down_since: None,
            evicted: false,
            drained: false,
            is_known,
            emptied: [false; Part::ALL.len()],
        };
        let is_known = |index: u16| index < policy.workers || index >= policy.room;
        Self {
            slots: (0..policy.room + policy.proxies).map(|index| slot(is_known(index))).collect(),
            count: policy.workers,
            phase: Phase::Booting,
            children: BTreeMap::new(),
            scaling: None,
            next_count: None,
            reload: None,
            next_reload: None,
            commands: Commands::default(),
            attendant: Attendant::default(),
            reexec: Reexec::default(),
            leader: Leader::Nobody,
            preparer: None,
            next_child: 0,
            draws: 0,
            report: Report::default(),
            known_down: Vec::new(),
            known_ports: Vec::new(),
            out: Vec::new(),
            policy,
        }
    }

    /// The most processes there can be at once: what the scoreboard must have seats for.
    pub(crate) fn seats(slots: u16) -> usize {
        // In each slot one that serves, one that is to follow it, and those that finish old work.
        usize::from(slots) * (2 + MOST_RETIRED)
    }

    /// Decides what to do about `event`, which happened at `now`.
    pub(crate) fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        if self.phase == Phase::Finished {
            return Vec::new();
        }
        let event = self.of_attendant(now, event);
        let event = self.of_trial(event);
        match self.of_slots(now, event) {
            Event::Start => self.begin(now),
            Event::Tick => {}
            Event::SpawnFailed { child, error } => self.gone(now, child, &BootFailureKind::Spawn(error)),
            Event::Exited { child, how } => self.gone(now, child, &BootFailureKind::Ended(how)),
            Event::Listens { child, port } => self.with(child, |child| child.port = Some(port)),
            Event::Ready { child, adopts } => self.ready(now, child, adopts),
            Event::Released { child, slot, part } => self.released(child, slot, part),
            Event::Dropped { child, slot, part } => self.dropped(now, child, slot, part),
            Event::BusJoin { child } => self.join_bus(child),
            Event::Candidate { child } => self.stand_for_leader(child),
            Event::Resigned { child } => self.resigned(child),
            Event::Drained { child, report } => self.drained(now, child, report),
            Event::Words { child, text } => {
                self.with(child, |child| child.words = Some(text));
            }
            Event::Stopped { child } => self.set_stopped(now, child, true),
            Event::Continued { child } => self.set_stopped(now, child, false),
            Event::Silent { child } => self.silent(now, child),
            Event::Used(usage) => self.used(&usage),
            Event::Prepared { .. } | Event::Proven { .. } => {}
            Event::Reload(scope) => self.reload(now, scope),
            Event::Command { ticket, command } => self.command(now, ticket, command),
            Event::Scale(how_many) => self.scale(now, how_many),
            Event::Reexec => self.reexec(now),
            Event::ReexecFailed { why } => self.refuse_reexec(why),
            Event::Resumed => self.resume(now),
            Event::Terminate => self.terminate(now),
        }
        self.come_up(now);
        self.pass_time(now);
        self.settle(now);
        self.settle_leader();
        self.tell_proxies();
        self.forsake();
        self.advance_reexec(now);
        std::mem::take(&mut self.out)
    }

    /// What proxies have been told: the workers' slots that do not run, and where those listen that do so themselves.
    pub(crate) fn told_proxies(&self) -> (&[WorkerId], &[Port]) {
        (&self.known_down, &self.known_ports)
    }

    /// When [`Event::Tick`] is due, if nothing else happens first.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let children = self.children.values().filter_map(Child::due);
        let slots = self.slots.iter().enumerate();
        let slots = slots
            .flat_map(|(index, slot)| [slot.respawn_at, self.eviction_due(index), self.recycling_due(index)])
            .flatten();
        let releases = self.slots.iter().flat_map(|slot| slot.readers).filter_map(|reader| match reader {
            Reader::Releasing(_, until) => Some(until),
            _ => None,
        });
        children
            .chain(slots)
            .chain(releases)
            .chain(self.kill_due())
            .chain(self.give_up_due())
            .chain(self.preparer_due())
            .chain(self.attendant_due())
            .chain(self.trial_due())
            .min()
    }

    /// When whoever has not drained is killed.
    fn kill_due(&self) -> Option<Instant> {
        let Phase::ShuttingDown { deadline, .. } = self.phase else { return None };
        let outstaying = self.children.values().filter(|child| child.outstays());
        outstaying.map(|child| deadline + self.policy.cut_time(child.slot)).min()
    }

    /// When everything ends, although a process that was killed does not.
    fn give_up_due(&self) -> Option<Instant> {
        match self.phase {
            Phase::ShuttingDown { deadline, .. } => {
                Some(deadline + self.policy.cut_time(worker(0)) + self.policy.exit_timeout + KILL_TIME)
            }
            Phase::Stopping { until, .. } => Some(until),
            _ => None,
        }
    }

    // === What happened ===

    /// Starts the first generation, after what must come before that.
    fn begin(&mut self, now: Instant) {
        self.start_attendant(now);
        if !self.begin_to_prepare(now, Program::Same) {
            self.spawn_all(now);
        }
    }

    fn spawn_all(&mut self, now: Instant) {
        self.in_use().for_each(|slot| self.spawn(now, slot));
    }

    /// Starts a slot's process anew, after it has ended.
    fn spawn(&mut self, now: Instant, index: usize) {
        self.slots[index].respawn_at = None;
        self.slots[index].current = Some(self.start(now, index, Program::Same));
    }

    fn start(&mut self, now: Instant, index: usize, program: Program) -> ChildId {
        let child = self.new_child();
        let taken = |seat: &usize| self.children.values().any(|child| child.seat == *seat);
        let seat = (0..).find(|seat| !taken(seat)).unwrap_or_default();
        let slot = worker(index);
        let generation = self.slots[index].generation;
        self.slots[index].generation = generation.next();
        let stage = Stage::Booting { until: now + self.policy.boot_timeout };
        let born = Child {
            slot,
            seat,
            born: now,
            stage,
            was_ready: false,
            adopts: false,
            stopped: false,
            port: None,
            on_bus: false,
            is_candidate: false,
            forsaken: false,
            words: None,
            quota: self.quota_for(slot),
            reached: None,
            is_known_to_wait: false,
        };
        self.children.insert(child, born);
        self.out.push(Action::Spawn { child, slot, generation, seat, program });
        child
    }

    fn new_child(&mut self) -> ChildId {
        self.next_child += 1;
        ChildId(self.next_child - 1)
    }

    fn ready(&mut self, now: Instant, id: ChildId, adopts: bool) {
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        if !matches!(child.stage, Stage::Booting { .. }) {
            return;
        }
        child.adopts = adopts;
        child.was_ready = true;
        if matches!(self.phase, Phase::ShuttingDown { .. }) {
            child.stage = Stage::Draining;
            return;
        }
        let slot = child.slot;
        if self.slots[slot.index()].next == Some(id) {
            return self.soak(now, id);
        }
        child.stage = Stage::Ready;
        if !child.stopped {
            self.up(slot);
        }
    }

    /// In a drain workers let go unasked. At other times an answer without a question is late: the worker was
    /// stopped when it was asked, and has been lent the slot again since.
    fn released(&mut self, child: ChildId, slot: WorkerId, part: Part) {
        let emptying = matches!(self.phase, Phase::ShuttingDown { .. });
        let Some(slot) = self.slots.get_mut(slot.index()) else { return };
        let reader = &mut slot.readers[part.index()];
        match *reader {
            Reader::Releasing(asked, _) if asked == child => *reader = Reader::Nobody,
            Reader::Child(current) if current == child && emptying => {
                *reader = Reader::Nobody;
                slot.emptied[part.index()] = true;
            }
            _ => {}
        }
    }

    /// A worker does not read a slot that was lent to it: its application has let go of its connections, or the system
    /// has refused. Without its own slot it is of no use any more, and its process is about to end.
    fn dropped(&mut self, now: Instant, id: ChildId, at: WorkerId, part: Part) {
        let until = now + self.policy.exit_timeout;
        let Some(child) = self.children.get_mut(&id) else { return };
        child.adopts = false;
        let is_own = child.slot == at && self.slots[at.index()].current == Some(id);
        let is_parting = child.slot == at && matches!(child.stage, Stage::Parting { .. });
        let is_poised = child.slot == at && child.stage == Stage::Poised;
        if is_parting || (is_own && child.stage == Stage::Ready) {
            child.stage = Stage::Leaving { until };
        }
        let Some(slot) = self.slots.get_mut(at.index()) else { return };
        let reader = &mut slot.readers[part.index()];
        if reader.is(id) {
            *reader = Reader::Nobody;
        }
        if is_own {
            slot.down_since.get_or_insert(now);
        }
        if is_poised {
            self.unpoise(id);
        }
    }

    /// Connects a process with all that take part in the bus already; later ones are connected with it when they come. One
    /// that asks again has not heard the answer in time.
    fn join_bus(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if !std::mem::replace(&mut child.on_bus, true) {
            let others = self.children.iter().filter(|(other, child)| **other != id && child.on_bus);
            let connect = others.map(|(&other, _)| Action::Connect { child: id, other });
            self.out.extend(connect);
        }
        self.out.push(Action::BusJoined { child: id });
    }

    fn drained(&mut self, now: Instant, id: ChildId, report: WorkerReport) {
        let until = now + self.policy.exit_timeout;
        let Some(child) = self.children.get_mut(&id) else { return };
        let before = std::mem::replace(&mut child.stage, Stage::Leaving { until });
        match before {
            // What proxies forward would be counted twice.
            Stage::Draining if self.policy.is_behind_proxies(child.slot) => {}
            Stage::Draining => {
                self.report.connections.completed += report.completed;
                self.report.connections.cut += report.cut;
            }
            Stage::Retired { .. } => {
                let who = Post::of(child.slot, self.policy.room);
                self.out.push(Action::Note(Note::Replaced { who, report }));
                self.asked_has_drained(id, report);
            }
            _ => child.stage = before,
        }
    }

    fn set_stopped(&mut self, now: Instant, id: ChildId, stopped: bool) {
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        child.stopped = stopped;
        if child.stage != Stage::Ready {
            return;
        }
        let slot = child.slot;
        if stopped {
            self.slots[slot.index()].down_since.get_or_insert(now);
        } else {
            self.up(slot);
        }
    }

    fn silent(&mut self, now: Instant, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        // A stopped process cannot beat, and whoever stopped it may want to go on with it.
        if child.stopped {
            return;
        }
        let at = child.slot;
        match child.stage {
            Stage::Ready | Stage::Superseded | Stage::Parting { .. } | Stage::Retired { .. } => {
                child.stage = Stage::Aborting { until: now + DUMP_TIME };
                let slot = &mut self.slots[at.index()];
                if slot.current == Some(id) {
                    slot.down_since.get_or_insert(now);
                }
                self.out.push(Action::Note(Note::Hung { who: self.post(at) }));
                self.out.push(Action::Signal { child: id, signal: ChildSignal::Abort });
            }
            Stage::Soaking { .. } | Stage::Poised => self.discard(now, id, &BootFailureKind::Hung),
            _ => {}
        }
    }

    /// Ends the process that was to take a slot over, and the reload with it.
    fn discard(&mut self, now: Instant, id: ChildId, what: &BootFailureKind) {
        let before = self.children.get(&id).cloned();
        self.kill(id);
        if let Some(child) = before {
            self.refuse_next(now, &child, what);
        }
    }

    /// A process is gone, or never came to be.
    fn gone(&mut self, now: Instant, id: ChildId, what: &BootFailureKind) {
        let Some(child) = self.children.remove(&id) else { return };
        self.bury_leader(id);
        self.asked_is_gone(id, &child, what);
        for reader in self.slots.iter_mut().flat_map(|slot| &mut slot.readers).filter(|reader| reader.is(id)) {
            *reader = Reader::Nobody;
        }
        let index = child.slot.index();
        let slot = &mut self.slots[index];
        if slot.current == Some(id) {
            slot.current = None;
            self.current_gone(now, &child, what);
        } else if slot.next == Some(id) {
            self.next_gone(now, &child, what);
        } else {
            self.former_gone(&child, what);
        }
        let was_killed = child.was_ready && !matches!(what, BootFailureKind::Ended(Ended::Code(_)));
        if was_killed && matches!(self.phase, Phase::ShuttingDown { .. }) {
            self.report.killed += 1;
        }
    }

    fn current_gone(&mut self, now: Instant, child: &Child, what: &BootFailureKind) {
        let index = child.slot.index();
        let is_running = self.phase == Phase::Running;
        if is_running && self.take_back(now, index, what) {
            return;
        }
        self.slots[index].down_since.get_or_insert(now);
        match self.phase {
            Phase::Booting if !child.was_ready => {
                let who = self.post(child.slot);
                let failure = BootFailure { who, what: what.clone(), words: child.words.clone() };
                self.stop(now, Outcome::Failed(failure));
            }
            Phase::Booting | Phase::Running => self.schedule_respawn(now, child, what),
            Phase::ShuttingDown { .. } | Phase::Stopping { .. } | Phase::Finished => {}
        }
    }

    fn schedule_respawn(&mut self, now: Instant, child: &Child, what: &BootFailureKind) {
        let chance = self.draw();
        let slot = &mut self.slots[child.slot.index()];
        let after = slot.backoff.after(now.duration_since(child.born), child.was_ready, chance);
        slot.respawn_at = Some(now + after);
        let mut why = what.verb();
        if let Some(words) = child.words.as_ref().filter(|_| !child.was_ready) {
            why = format!("{why} before it was ready: {words}");
        }
        self.out.push(Action::Note(Note::Restarting { who: self.post(child.slot), why, after }));
    }

    // === What time brings ===

    fn pass_time(&mut self, now: Instant) {
        let due: Vec<ChildId> = self.children.iter().filter(|(_, c)| c.is_due(now)).map(|(id, _)| *id).collect();
        for id in due {
            self.overdue(now, id);
        }
        self.kill_late(now);
        self.kill_late_preparer(now);
        self.mind_attendant(now);
        self.kill_late_trial(now);
        if self.give_up_due().is_some_and(|at| at <= now) {
            self.give_up();
        }
        for index in 0..self.slots.len() {
            for reader in &mut self.slots[index].readers {
                if matches!(reader, Reader::Releasing(_, until) if *until <= now) {
                    *reader = Reader::Nobody;
                }
            }
            if self.slots[index].respawn_at.is_some_and(|at| at <= now) {
                self.spawn(now, index);
            }
        }
        self.evict_late(now);
    }

    /// Evicts the slots whose clients have waited long enough.
    fn evict_late(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if self.eviction_due(index).is_some_and(|at| at <= now) {
                self.evict(index);
            }
        }
    }

    /// Kills those whose time in a shutdown is over.
    fn kill_late(&mut self, now: Instant) {
        let Phase::ShuttingDown { deadline, .. } = self.phase else { return };
        let is_late = |child: &Child| child.outstays() && deadline + self.policy.cut_time(child.slot) <= now;
        let late = self.children.iter().filter(|(_, child)| is_late(child));
        let late: Vec<ChildId> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.kill_overdue(id);
        }
    }

    /// Forgets processes that do not even end when they are killed.
    fn give_up(&mut self) {
        for child in std::mem::take(&mut self.children).into_values() {
            self.out.push(Action::Note(Note::Unkillable { who: self.post(child.slot) }));
        }
        if self.preparer.take().is_some() {
            self.out.push(Action::Note(Note::Unkillable { who: Post::Preparation }));
        }
        if self.reexec.forget_trial() {
            self.out.push(Action::Note(Note::Unkillable { who: Post::Trial }));
        }
        for slot in &mut self.slots {
            slot.readers = [Reader::Nobody; Part::ALL.len()];
            slot.emptied = [true; Part::ALL.len()];
        }
    }

    fn overdue(&mut self, now: Instant, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        let (at, words) = (child.slot, child.words.clone());
        let who = Post::of(at, self.policy.room);
        let after = self.policy.boot_timeout;
        match (child.stage, &self.phase) {
            (Stage::Soaking { .. }, _) if self.is_spare(at.index()) => self.poise(id),
            (Stage::Soaking { .. }, _) => self.promote(id),
            (Stage::Parting { .. }, _) => self.with(id, |child| child.stage = Stage::Superseded),
            (Stage::Booting { .. }, Phase::Booting) => {
                let failure = BootFailure { who, what: BootFailureKind::Timeout(after), words };
                self.stop(now, Outcome::Failed(failure));
            }
            (Stage::Booting { .. }, _) if self.slots[at.index()].next == Some(id) => {
                self.discard(now, id, &BootFailureKind::Timeout(after));
            }
            (Stage::Booting { .. }, _) => {
                self.out.push(Action::Note(Note::BootTimeout { who, after }));
                self.kill(id);
            }
            _ => self.kill_overdue(id),
        }
    }

    fn kill_overdue(&mut self, id: ChildId) {
        if let Some(who) = self.children.get(&id).map(|child| self.post(child.slot)) {
            self.out.push(Action::Note(Note::Overdue { who }));
            self.kill(id);
        }
    }

    fn kill(&mut self, id: ChildId) {
        self.with(id, |child| child.stage = Stage::Killed);
        self.out.push(Action::Signal { child: id, signal: ChildSignal::Kill });
    }

    /// When the clients of this slot stop waiting for it: `None` while it runs, or while nobody could take over.
    fn eviction_due(&self, index: usize) -> Option<Instant> {
        let slot = &self.slots[index];
        let after = match self.policy.failover {
            Failover::Next { after } | Failover::Refuse { after } => after,
            Failover::Wait => return None,
        };
        let possible = self.phase == Phase::Running && !slot.evicted && self.has_stand_in(index);
        slot.down_since.filter(|_| possible).map(|since| since + after)
    }

    fn evict(&mut self, index: usize) {
        self.slots[index].evicted = true;
        self.out.push(Action::Note(Note::Evicted { who: self.post(worker(index)) }));
        self.place();
    }

    // === What follows ===

    fn up(&mut self, id: WorkerId) {
        let slot = &mut self.slots[id.index()];
        slot.down_since = None;
        if std::mem::take(&mut slot.evicted) {
            self.out.push(Action::Note(Note::Back { who: self.post(id) }));
            self.place();
        }
    }

    /// Has the kernel place connections where they are served. Clients that are refused stay where they belong.
    fn place(&mut self) {
        if let Failover::Next { .. } = self.policy.failover {
            let workers = self.slots.iter().take(usize::from(self.policy.room)).enumerate();
            let evicted = workers.filter(|(_, slot)| slot.evicted);
            let slots = evicted.map(|(index, _)| worker(index)).collect();
            self.out.push(Action::Evict { slots });
        }
    }

    /// Has the proxies know at once which processes do not run, and where the others listen. What is forwarded over a
    /// connection to one that does not run would wait there until it goes on, whatever becomes of the slot.
    fn tell_proxies(&mut self) {
        if self.policy.proxies == 0 || !matches!(self.phase, Phase::Running | Phase::ShuttingDown { .. }) {
            return;
        }
        let workers = self.slots.iter().take(usize::from(self.policy.room)).enumerate();
        let is_down = |index: usize, slot: &Slot| {
            self.is_spare(index) || slot.down_since.is_some() || self.has_stand_in_still(index)
        };
        let down = workers.filter(|(index, slot)| is_down(*index, slot)).map(|(index, _)| worker(index));
        let down: Vec<WorkerId> = down.collect();
        if down != self.known_down {
            self.known_down.clone_from(&down);
            self.out.push(Action::Down { slots: down });
        }
        let currents = self.slots.iter().take(usize::from(self.policy.room)).filter_map(|slot| slot.current);
        let serving = currents.filter_map(|id| self.children.get(&id)).filter(|child| child.was_ready);
        let ports = serving.filter_map(|child| Some(Port { slot: child.slot, seat: child.seat, port: child.port? }));
        let ports: Vec<Port> = ports.collect();
        if ports != self.known_ports {
            self.known_ports.clone_from(&ports);
            self.out.push(Action::Ports { ports });
        }
    }

    /// Whether another slot's process still reads this one's channel: it takes up what is sent there, whoever runs by now,
    /// so that a connection that is made meanwhile does not lead to the slot.
    fn has_stand_in_still(&self, index: usize) -> bool {
        match self.slots[index].readers[Part::Channel.index()] {
            Reader::Nobody => false,
            Reader::Child(id) | Reader::Releasing(id, _) => {
                self.children.get(&id).is_some_and(|reader| reader.slot != worker(index))
            }
        }
    }

    /// Tells workers in a shutdown when all proxies have done: before that they cut nothing, for it would be the proxies'
    /// clients that are cut.
    fn forsake(&mut self) {
        if self.policy.proxies == 0 || !matches!(self.phase, Phase::ShuttingDown { .. }) {
            return;
        }
        let Policy { room, .. } = self.policy;
        if self.children.values().any(|child| child.slot.get() >= room && child.has_clients()) {
            return;
        }
        for (&id, child) in &mut self.children {
            if child.slot.get() < room
                && child.stage == Stage::Draining
                && !std::mem::replace(&mut child.forsaken, true)
            {
                self.out.push(Action::Forsake { child: id });
            }
        }
    }

    fn come_up(&mut self, now: Instant) {
        if self.phase == Phase::Booting && self.all_ready() {
            self.phase = Phase::Running;
            self.out.push(Action::Note(Note::Up));
            self.settle_readers(now);
        }
    }

    fn settle(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Running | Phase::ShuttingDown { listening: true, .. }) {
            self.settle_readers(now);
        }
        self.advance_reload(now);
        if let Phase::ShuttingDown { since, deadline, listening: true } = self.phase
            && self.slots.iter().flat_map(|slot| &slot.readers).all(|reader| *reader == Reader::Nobody)
        {
            self.phase = Phase::ShuttingDown { since, deadline, listening: false };
            self.out.push(Action::CloseListeners);
        }
        self.finish_if_over();
    }

    fn finish_if_over(&mut self) {
        if !self.children.is_empty() || self.preparer.is_some() || self.reexec.has_trial() {
            return;
        }
        let outcome = match &self.phase {
            Phase::ShuttingDown { listening: false, .. } => Outcome::Clean(self.report),
            Phase::Stopping { outcome, .. } => outcome.clone(),
            _ => return,
        };
        self.phase = Phase::Finished;
        self.out.push(Action::Finish(outcome));
    }

    fn all_ready(&self) -> bool {
        let is_ready =
            |index: usize| self.slots[index].current.is_some_and(|id| self.children[&id].stage == Stage::Ready);
        self.in_use().all(is_ready)
    }

    /// What a slot is for.
    fn post(&self, slot: WorkerId) -> Post {
        Post::of(slot, self.policy.room)
    }

    /// The slots that are for the same as this one.
    fn peers(&self, index: usize) -> std::ops::Range<usize> {
        let room = usize::from(self.policy.room);
        if index < room { 0..room } else { room..self.slots.len() }
    }

    /// The next slot's process that can stand in for this slot.
    fn adopter(&self, index: usize) -> Option<ChildId> {
        let peers = self.peers(index);
        let others = (1..peers.len()).map(|step| peers.start + (index - peers.start + step) % peers.len());
        others.filter_map(|other| self.slots[other].current).find(|id| self.can_adopt(*id))
    }

    /// Whether anybody can serve this slot's clients. Who listens by itself reads nobody's sockets; proxies ask it instead.
    fn has_stand_in(&self, index: usize) -> bool {
        let others = self.peers(index).filter(|other| *other != index);
        let mut others = others.filter_map(|other| self.slots[other].current);
        self.adopter(index).is_some() || others.any(|id| self.serves(id) && self.children[&id].port.is_some())
    }

    fn can_adopt(&self, id: ChildId) -> bool {
        self.serves(id) && self.children[&id].adopts
    }

    /// Whether a process accepts connections: in a drain, those that wait in the queues.
    fn serves(&self, id: ChildId) -> bool {
        let child = self.children.get(&id);
        child.is_some_and(|child| matches!(child.stage, Stage::Ready | Stage::Draining) && !child.stopped)
    }

    fn with(&mut self, id: ChildId, change: impl FnOnce(&mut Child)) {
        if let Some(child) = self.children.get_mut(&id) {
            change(child);
        }
    }

    /// A number from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.draws += 1;
        let drawn = SipHasher13::new_with_keys(self.policy.seed, self.draws).finish();
        drawn as f64 / u64::MAX as f64
    }
}

impl Child {
    fn due(&self) -> Option<Instant> {
        match self.stage {
            // A stopped process is not trusted with a slot.
            Stage::Soaking { .. } if self.stopped => None,
            Stage::Booting { until }
            | Stage::Soaking { until }
            | Stage::Parting { until }
            | Stage::Retired { until }
            | Stage::Leaving { until }
            | Stage::Aborting { until } => Some(until),
            Stage::Ready | Stage::Poised | Stage::Superseded | Stage::Draining | Stage::Killed => None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Whether it may have connections of clients that it has not said what became of.
    fn has_clients(&self) -> bool {
        !matches!(self.stage, Stage::Booting { .. } | Stage::Soaking { .. } | Stage::Poised | Stage::Leaving { .. })
    }

    /// Whether it is killed when a shutdown's time is over.
    fn outstays(&self) -> bool {
        matches!(self.stage, Stage::Booting { .. } | Stage::Draining | Stage::Ready)
    }
}

fn worker(index: usize) -> WorkerId {
    WorkerId::new(u16::try_from(index).expect("there are at most 256 slots"))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
