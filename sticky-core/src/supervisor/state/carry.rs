//! What the decisions depend on, as one program leaves it to the next when the supervisor replaces itself. Points in time travel as
//! how long ago they were.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::event::{ChildId, Scope};
use super::super::restart::Backoff;
use super::attendant::Attendant;
use super::command::Asked;
use super::leadership::Leader;
use super::{Child, Phase, Policy, Reader, Slot, Stage, State};
use crate::control::{Part, Port};
use crate::id::{Generation, WorkerId};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CarriedState {
    count: u16,
    next_child: u64,
    slots: Vec<CarriedSlot>,
    children: Vec<CarriedChild>,
    leader: Option<ChildId>,
    /// The admin process, and its age.
    attendant: Option<(ChildId, Duration)>,
    next_reload: Option<Scope>,
    next_count: Option<u16>,
    asked: Asked,
    known_down: Vec<WorkerId>,
    known_ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CarriedSlot {
    current: Option<ChildId>,
    /// The next one.
    generation: Generation,
    readers: [Option<ChildId>; Part::ALL.len()],
    short_lives: u32,
    down_for: Option<Duration>,
    evicted: bool,
    drained: bool,
    is_known: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CarriedChild {
    id: ChildId,
    slot: WorkerId,
    seat: usize,
    age: Duration,
    adopts: bool,
    port: Option<u16>,
    on_bus: bool,
    is_candidate: bool,
}

impl CarriedState {
    /// The processes in slots: which, where, and in which row.
    pub(crate) fn children(&self) -> impl Iterator<Item = (ChildId, WorkerId, usize)> {
        self.children.iter().map(|child| (child.id, child.slot, child.seat))
    }

    /// The admin process.
    pub(crate) fn attendant(&self) -> Option<ChildId> {
        self.attendant.map(|(id, _)| id)
    }

    /// Whether it makes sense where there are so many slots, of which so many can be workers'.
    ///
    /// # Errors
    ///
    /// What does not.
    pub(crate) fn check(&self, slots: usize, room: u16) -> Result<(), &'static str> {
        let ids: Vec<ChildId> = self.children.iter().map(|child| child.id).collect();
        let is_known = |id: &ChildId| ids.contains(id);
        let is_one_of = |wanted: Option<ChildId>| wanted.as_ref().is_none_or(is_known);
        let slot_of = |id: ChildId| self.children.iter().find(|child| child.id == id).map(|child| child.slot.index());
        let is_in_place =
            |(index, slot): (usize, &CarriedSlot)| slot.current.is_none_or(|id| slot_of(id) == Some(index));
        let has_place = |child: &CarriedChild| {
            let place = self.slots.get(child.slot.index());
            place.is_some_and(|slot| slot.current == Some(child.id)) && child.seat < State::seats(slots as u16)
        };
        let all_ids = ids.iter().copied().chain(self.attendant());
        let is_true = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
        is_true(self.slots.len() == slots, "it has another number of slots")?;
        is_true((1..=room).contains(&self.count), "it has an impossible number of workers")?;
        is_true(self.children.iter().all(has_place), "a process has no place")?;
        is_true(self.slots.iter().enumerate().all(is_in_place), "a slot has a process that is not there")?;
        is_true(self.slots.iter().flat_map(|slot| slot.readers).all(is_one_of), "sockets are read by nobody known")?;
        is_true(is_one_of(self.leader), "the leader is nobody known")?;
        is_true(all_ids.into_iter().all(|id| id.0 < self.next_child), "a process is to come")
    }
}

impl State {
    /// What the next program has to know. Only while all is [quiet](Self::may_reexec), or for a trial.
    pub(crate) fn carried(&self, now: Instant) -> CarriedState {
        let slots = self.slots.iter().map(|slot| CarriedSlot {
            current: slot.current,
            generation: slot.generation,
            readers: slot.readers.map(|reader| match reader {
                Reader::Child(id) => Some(id),
                Reader::Nobody | Reader::Releasing(..) => None,
            }),
            short_lives: slot.backoff.short_lives(),
            down_for: slot.down_since.map(|since| now.duration_since(since)),
            evicted: slot.evicted,
            drained: slot.drained,
            is_known: slot.is_known,
        });
        let children = self.children.iter().map(|(&id, child)| CarriedChild {
            id,
            slot: child.slot,
            seat: child.seat,
            age: now.duration_since(child.born),
            adopts: child.adopts,
            port: child.port,
            on_bus: child.on_bus,
            is_candidate: child.is_candidate,
        });
        let leader = match self.leader {
            Leader::Child(id) | Leader::Resigning(id) => Some(id),
            Leader::Nobody => None,
        };
        CarriedState {
            count: self.count,
            next_child: self.next_child,
            slots: slots.collect(),
            children: children.collect(),
            leader,
            attendant: self.attendant.carried().map(|(id, born)| (id, now.duration_since(born))),
            next_reload: self.next_reload,
            next_count: self.next_count,
            asked: self.commands.asked(),
            known_down: self.known_down.clone(),
            known_ports: self.known_ports.clone(),
        }
    }

    /// The slot and the row of a process.
    pub(crate) fn place_of(&self, id: ChildId) -> Option<(WorkerId, usize)> {
        self.children.get(&id).map(|child| (child.slot, child.seat))
    }

    /// Goes on from there.
    ///
    /// # Errors
    ///
    /// What makes no sense; see [`CarriedState::check`].
    pub(crate) fn resumed(policy: Policy, carried: CarriedState, now: Instant) -> Result<Self, &'static str> {
        let mut state = Self::new(policy);
        carried.check(state.slots.len(), state.policy.room)?;
        let before = |age: Duration| now.checked_sub(age).unwrap_or(now);
        let children = carried.children.iter().map(|child| (child.id, state.adopt(child, before(child.age))));
        let children: BTreeMap<ChildId, Child> = children.collect::<Vec<_>>().into_iter().collect();
        for (slot, carried) in state.slots.iter_mut().zip(carried.slots) {
            carried.fill(slot, before);
        }
        Ok(Self {
            phase: Phase::Running,
            count: carried.count,
            children,
            next_count: carried.next_count,
            next_reload: carried.next_reload,
            commands: carried.asked.into(),
            attendant: carried.attendant.map_or_else(Attendant::default, |(id, age)| Attendant::up(id, before(age))),
            leader: carried.leader.map_or(Leader::Nobody, Leader::Child),
            next_child: carried.next_child,
            known_down: carried.known_down,
            known_ports: carried.known_ports,
            ..state
        })
    }

    /// A process that is ready, with what it may use by the settings of now.
    fn adopt(&mut self, carried: &CarriedChild, born: Instant) -> Child {
        Child {
            slot: carried.slot,
            seat: carried.seat,
            born,
            stage: Stage::Ready,
            was_ready: true,
            adopts: carried.adopts,
            stopped: false,
            port: carried.port,
            on_bus: carried.on_bus,
            is_candidate: carried.is_candidate,
            forsaken: false,
            words: None,
            quota: self.quota_for(carried.slot),
            reached: None,
            is_known_to_wait: false,
        }
    }
}

impl CarriedSlot {
    fn fill(self, slot: &mut Slot, before: impl Fn(Duration) -> Instant) {
        slot.current = self.current;
        slot.generation = self.generation;
        slot.readers = self.readers.map(|reader| reader.map_or(Reader::Nobody, Reader::Child));
        slot.backoff = Backoff::after_short_lives(self.short_lives);
        slot.down_since = self.down_for.map(before);
        slot.evicted = self.evicted;
        slot.drained = self.drained;
        slot.is_known = self.is_known;
    }
}
