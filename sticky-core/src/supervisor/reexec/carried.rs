//! All that a supervisor knows and has, as one program leaves it to the next: a text in a sealed memory file, and the
//! descriptors that it names by their numbers.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::admin::CarriedDesk;
use super::super::event::ChildId;
use super::super::ledger::CarriedLedger;
use super::super::output::CarriedPipe;
use super::super::state::{CarriedState, State};
use super::shape::Shape;
use crate::config::Config;
use crate::control::PROTOCOL;
use crate::dispatch::Dispatch;
use crate::id::{Generation, WorkerId};
use crate::listener::CarriedSet;
use crate::sys::memory::{create_text, read_text};

/// The forms of this text that this build reads; it writes the last. What is added later is ignored by those that do not know
/// it, so that this changes only where that would be wrong.
const FORMATS: RangeInclusive<u32> = 1..=1;

/// The longest text that is read, in bytes: of all processes' output a line each may be in it.
const LONGEST: u64 = 1 << 30;

/// The number of a descriptor among those that come with the text.
pub(super) type Lot = usize;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Carried {
    pub(super) format: u32,
    /// The version of sticky that has written it.
    pub(super) version: String,
    pub(super) fingerprint: String,
    pub(super) shape: Shape,
    /// How many descriptors come with it.
    pub(super) lots: usize,
    /// How often the supervisor has replaced itself, this time included.
    pub(super) reexecs: u64,
    pub(super) seed: u64,
    pub(super) secret: Vec<u8>,
    /// Where the program is looked for.
    pub(super) program: PathBuf,
    /// What slots are started from; of each slot, which of these.
    pub(super) images: Vec<Lot>,
    pub(super) image_of: Vec<usize>,
    pub(super) listeners: Vec<CarriedListeners>,
    /// The application's own.
    #[serde(default)]
    pub(super) extras: Vec<(String, CarriedListeners)>,
    pub(super) admin_listeners: Vec<CarriedListeners>,
    /// The sending and the receiving end of each slot's channel.
    pub(super) channels: Vec<(Lot, Lot)>,
    pub(super) scoreboard: Lot,
    pub(super) session_table: Option<Lot>,
    pub(super) evicted: Vec<WorkerId>,
    pub(super) members: Vec<CarriedMember>,
    pub(super) attendant: Option<CarriedProcess>,
    /// What processes write, and whose that is, if that still runs.
    pub(super) pipes: Vec<(Option<ChildId>, CarriedPipe, Lot)>,
    pub(super) desk: CarriedDesk,
    pub(super) ledger: CarriedLedger,
    pub(super) state: CarriedState,
    /// Signals that are kept until somebody hears them.
    pub(super) held_signals: Vec<i32>,
}

/// The listeners of an address.
pub(super) type CarriedListeners = (CarriedSet, Vec<Lot>);

/// A process in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedMember {
    pub(super) process: CarriedProcess,
    pub(super) generation: Generation,
    pub(super) image: usize,
    pub(super) exports: bool,
}

/// A process, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CarriedProcess {
    pub(super) id: ChildId,
    pub(super) pid: i32,
    pub(super) control: Lot,
    /// The version of the protocol that is spoken with it.
    pub(super) protocol: u32,
}

/// Why a program cannot go on from where the supervisor is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// What there is cannot be read or taken.
    #[error("what the supervisor has cannot be taken over")]
    System(#[from] io::Error),
    /// What there is was written by a version of sticky that is too far from this one.
    #[error("what the supervisor has is in format {found}, and this program reads {FORMATS:?}: restart")]
    Format {
        /// The format's version.
        found: u32,
    },
    /// What there is is not understood.
    #[error("what the supervisor has is not understood: restart")]
    Text(#[source] serde_json::Error),
    /// The workers that run are too old for this program, or too new.
    #[error("it speaks control protocols {PROTOCOL:?} and a worker that runs speaks {found}: reload, then reexec")]
    Protocol {
        /// The protocol's version.
        found: u32,
    },
    /// Settings differ that all processes must share.
    #[error(
        "its configuration is \"{here}\" and the cluster's is \"{there}\": a reexec can't change affinity: restart"
    )]
    Fingerprint {
        /// This program's.
        here: String,
        /// The cluster's.
        there: String,
    },
    /// Settings differ that take effect only when a cluster starts.
    #[error("{0}: a reexec can't change that: restart")]
    Shape(String),
    /// What there is contradicts itself.
    #[error("what the supervisor has makes no sense: {0}")]
    Nonsense(&'static str),
    /// The memory that all processes share has another form.
    #[error(transparent)]
    Scoreboard(#[from] crate::scoreboard::ScoreboardError),
}

impl Carried {
    /// The version that is written.
    pub(super) const FORMAT: u32 = *FORMATS.end();

    /// Writes it to a file in memory.
    pub(super) fn write(&self) -> io::Result<OwnedFd> {
        create_text("sticky-supervisor", &serde_json::to_vec(self)?)
    }

    /// Reads such a file.
    ///
    /// # Errors
    ///
    /// [`ResumeError`], for one that this program cannot go on from in any case.
    pub(super) fn read(file: &OwnedFd) -> Result<Self, ResumeError> {
        Self::parse(&read_text(file, LONGEST)?)
    }

    fn parse(text: &[u8]) -> Result<Self, ResumeError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_slice(text).map_err(ResumeError::Text)?;
        if !FORMATS.contains(&format) {
            return Err(ResumeError::Format { found: format });
        }
        serde_json::from_slice(text).map_err(ResumeError::Text)
    }

    /// Whether this program can go on from there with this configuration.
    ///
    /// # Errors
    ///
    /// [`ResumeError`].
    pub(super) fn check(&self, config: &Config) -> Result<(), ResumeError> {
        let here = config.fingerprint();
        if here != self.fingerprint {
            return Err(ResumeError::Fingerprint { here, there: self.fingerprint.clone() });
        }
        self.shape.check(&Shape::of(config)).map_err(ResumeError::Shape)?;
        let is_other = |secret: &[u8]| config.affinity.uses_sticky_cookie() && secret != self.secret;
        if config.sticky_cookie.secret.as_ref().is_some_and(|secret| is_other(secret.bytes())) {
            return Err(ResumeError::Shape("cookie_secret (STICKY_COOKIE_SECRET) is another one".to_owned()));
        }
        let processes = self.members.iter().map(|member| member.process).chain(self.attendant);
        if let Some(process) = processes.into_iter().find(|process| !PROTOCOL.contains(&process.protocol)) {
            return Err(ResumeError::Protocol { found: process.protocol });
        }
        self.check_sense(config).map_err(ResumeError::Nonsense)
    }

    /// Whether its parts fit each other, so that nothing that is done with them later can be wrong.
    fn check_sense(&self, config: &Config) -> Result<(), &'static str> {
        let slots = usize::from(config.slots());
        self.state.check(slots, config.max_workers)?;
        let is_true = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
        let known: BTreeMap<ChildId, WorkerId> = self.state.children().map(|(id, slot, _)| (id, slot)).collect();
        let members: BTreeMap<ChildId, &CarriedMember> =
            self.members.iter().map(|member| (member.process.id, member)).collect();
        is_true(known.keys().eq(members.keys()) && members.len() == self.members.len(), "processes are missing")?;
        is_true(self.attendant.map(|process| process.id) == self.state.attendant(), "the admin process is missing")?;
        is_true(self.image_of.len() == slots, "programs are missing")?;
        let images = self.image_of.iter().chain(self.members.iter().map(|member| &member.image));
        is_true(images.into_iter().all(|image| *image < self.images.len()), "a program is missing")?;
        let channels = if config.dispatch == Dispatch::Kernel { 0 } else { slots };
        is_true(self.channels.len() == channels, "channels are missing")?;
        is_true(self.evicted.iter().all(|slot| slot.index() < slots), "a slot that is out is none")?;
        let mut lots = self.lots();
        lots.sort_unstable();
        is_true(lots.into_iter().eq(0..self.lots), "its descriptors do not add up")
    }

    /// The number of every descriptor that is named.
    fn lots(&self) -> Vec<Lot> {
        let extras = self.extras.iter().map(|(_, set)| set);
        let sets = self.listeners.iter().chain(extras).chain(&self.admin_listeners);
        let sets = sets.flat_map(|(_, lots)| lots).copied();
        let channels = self.channels.iter().flat_map(|(sender, receiver)| [*sender, *receiver]);
        let processes = self.members.iter().map(|member| member.process).chain(self.attendant);
        let processes = processes.map(|process| process.control);
        let pipes = self.pipes.iter().map(|(_, _, lot)| *lot);
        let memory = std::iter::once(self.scoreboard).chain(self.session_table);
        let images = self.images.iter().copied();
        images.chain(sets).chain(channels).chain(memory).chain(processes).chain(pipes).collect()
    }

    /// How many seats the scoreboard must have.
    pub(super) fn seats(&self) -> usize {
        State::seats(u16::try_from(self.image_of.len()).unwrap_or(u16::MAX))
    }
}

#[cfg(test)]
#[path = "carried_tests.rs"]
mod tests;
