//! The supervisor replaces itself: the program at its path goes on in the same process, with the same sockets and workers.
//!
//! ```text
//! supervisor                                  trial (a child, the program at the path)
//!    │ ── Try: what there is to go on from ──►   │ builds its configuration, reads, compares
//!    │ ◄──────────────────────────── Proven ──   │ exits
//!    │ halts the output, keeps signals
//!    │ sends itself every descriptor ([`parcel`])
//!    └─ exec ─► main … Cluster::enter ─► receives them, goes on ([`Supervisor::resume`])
//! ```
//!
//! It happens on the supervisor's own thread: the kernel takes the one that calls `exec` for the process from then on, and the
//! workers that it has started stay its children. Everything else in the process ends with its program.

mod carried;
mod parcel;
mod shape;
mod trial;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::Socket;

pub use self::carried::ResumeError;
use self::carried::{Carried, CarriedListeners, CarriedMember, CarriedProcess, Lot};
use self::parcel::{Lots, Taken};
use self::shape::Shape;
pub(super) use self::trial::Trial;
pub(crate) use self::trial::try_out;
use super::admin::Desk;
use super::child::Process;
use super::event::{ChildId, Event};
use super::extras::Extras;
use super::heartbeat::Pulse;
use super::output::{HaltedPipe, Output, Pump};
use super::program::{Image, Program};
use super::run::{Assets, Member, Signals, Supervisor};
use super::sessions::TableOwner;
use super::{FLUSH_TIME, StopReceiver, SuperviseError};
use crate::config::Config;
use crate::dispatch::handoff::channel::Pair;
use crate::listener::{ListenerSet, passed};
use crate::notice;
use crate::role::RESUME_VARIABLE;
use crate::scoreboard::Scoreboard;
use crate::sys::exec;
use crate::sys::signals::{self, Held};

/// Why the supervisor stays what it is where its output is stuck: what waits to be written would be lost.
const NOT_TAKEN: &str = "nobody reads what the workers write";

/// How long the runtime has to tell of signals that came in before they were kept.
const HEARING_TIME: Duration = Duration::from_millis(2);

impl Supervisor {
    /// Whether nothing is on its way to or from any process.
    pub(super) fn is_idle(&self) -> bool {
        self.wiring.is_idle()
            && self.manager.is_idle()
            && self.members.values().all(Member::is_idle)
            && self.desk.is_idle()
    }

    /// Replaces this program. If it returns, everything goes on.
    pub(super) async fn reexec(&mut self, signals: &mut Signals) {
        let Some(pipes) = self.output.halt().await else { return self.not_reexecuted(NOT_TAKEN.to_owned()) };
        let why = if self.output.flush_lines(FLUSH_TIME).await {
            self.reexec_unheard(&pipes, signals).await.err().map(|error| error.to_string())
        } else {
            Some(NOT_TAKEN.to_owned())
        };
        self.output.go_on(pipes);
        if let Some(why) = why {
            self.not_reexecuted(why);
        }
    }

    fn not_reexecuted(&mut self, why: String) {
        self.decide(Event::ReexecFailed { why });
    }

    /// The same while nobody's output is read. If it returns without an error, something has come between.
    async fn reexec_unheard(&mut self, pipes: &[HaltedPipe], signals: &mut Signals) -> io::Result<()> {
        let held = signals::hold(&Signals::HEEDED)?;
        tokio::time::sleep(HEARING_TIME).await;
        signals.unheeded().into_iter().for_each(|signal| held.keep(signal));
        // From here on nothing is awaited, so that nothing more is read of what children say: it waits in their sockets.
        self.hear_what_waits();
        if self.state.may_reexec() && self.is_idle() {
            notice::flush(FLUSH_TIME);
            self.manager.work_at_once(Instant::now());
            return self.replace(pipes, &held).map(|never| match never {});
        }
        Ok(())
    }

    fn replace(&self, pipes: &[HaltedPipe], held: &Held) -> io::Result<Infallible> {
        let image = self.candidate()?;
        let mut lots = Lots::default();
        let carried = self.carried(&mut lots, pipes, held.blocked());
        let parcel = lots.send(&carried.write()?)?;
        let variable = (RESUME_VARIABLE.into(), parcel::marker(&parcel)?.to_string().into());
        // What a service manager has passed has other numbers from then on, and comes with the rest.
        let is_past = |name: &OsString| passed::VARIABLES.into_iter().chain([RESUME_VARIABLE]).any(|past| name == past);
        let environment = std::env::vars_os().filter(|(name, _)| !is_past(name)).chain([variable]);
        let program = CString::new(format!("/proc/self/fd/{}", image.as_raw_fd()))?;
        held.silence_others();
        Err(exec::replace(&program, std::env::args_os(), environment, parcel.as_fd()))
    }

    /// All that there is, with the descriptors that it names.
    fn carried<'a>(&'a self, lots: &mut Lots<'a>, pipes: &'a [HaltedPipe], held_signals: &[i32]) -> Carried {
        let images = distinct(self.images.iter().chain(self.members.values().map(|member| &member.image)));
        let image = |wanted: &Image| images.iter().position(|image| Arc::ptr_eq(image, wanted)).unwrap_or_default();
        let image_of = self.images.iter().map(image).collect();
        let members = self.members.iter().map(|(id, member)| CarriedMember {
            process: carried_process(*id, &member.process, member.protocol, lots),
            generation: member.generation,
            image: image(&member.image),
            exports: member.exports,
        });
        let members = members.collect();
        let pump_of = |pipe: &HaltedPipe| {
            let is_its = |member: &Member| member.pump.as_ref().is_some_and(|pump| pump.has(pipe));
            let owner = self.members.iter().find(|(_, member)| is_its(member)).map(|(id, _)| *id);
            owner.or_else(|| self.desk.owner_of(pipe))
        };
        Carried {
            format: Carried::FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: self.config.fingerprint(),
            shape: Shape::of(&self.config),
            reexecs: self.reexecs + 1,
            seed: self.seed,
            secret: self.secret.clone(),
            program: self.program.path().to_owned(),
            images: images.iter().copied().map(|image: &'a Image| lots.add(image.as_fd())).collect(),
            image_of,
            listeners: carried_sets(self.listeners.iter(), lots),
            extras: carried_extras(&self.extras, lots),
            admin_listeners: carried_sets(self.desk.listeners().iter(), lots),
            channels: self
                .channels
                .iter()
                .map(|pair| (lots.add(pair.sender.as_fd()), lots.add(pair.receiver.as_fd())))
                .collect(),
            scoreboard: lots.add(self.scoreboard.as_fd()),
            session_table: self.session_table.as_ref().map(|table| lots.add(table.as_fd())),
            evicted: self.evicted.clone(),
            members,
            attendant: self
                .desk
                .attendant_process()
                .map(|(id, process, protocol)| carried_process(id, process, protocol, lots)),
            pipes: pipes.iter().map(|pipe| (pump_of(pipe), pipe.carried(), lots.add(pipe.as_fd()))).collect(),
            desk: self.desk.carried(),
            ledger: self.ledger.carried(),
            state: self.state.carried(Instant::now()),
            held_signals: held_signals.to_vec(),
            lots: lots.count(),
        }
    }
}

fn distinct<'a>(images: impl Iterator<Item = &'a Image>) -> Vec<&'a Image> {
    let mut found: Vec<&Image> = Vec::new();
    for image in images {
        if !found.iter().any(|known| Arc::ptr_eq(known, image)) {
            found.push(image);
        }
    }
    found
}

fn carried_process<'a>(id: ChildId, process: &'a Process, protocol: u32, lots: &mut Lots<'a>) -> CarriedProcess {
    CarriedProcess { id, pid: process.pid.as_raw_nonzero().get(), control: lots.add(process.control_fd()), protocol }
}

fn carried_set<'a>(set: &'a ListenerSet, lots: &mut Lots<'a>) -> CarriedListeners {
    let sockets = set.kind().sockets().iter();
    (set.carried(), sockets.map(|socket| lots.add(socket.as_fd())).collect())
}

fn carried_sets<'a>(sets: impl Iterator<Item = &'a ListenerSet>, lots: &mut Lots<'a>) -> Vec<CarriedListeners> {
    sets.map(|set| carried_set(set, lots)).collect()
}

fn carried_extras<'a>(extras: &'a Extras, lots: &mut Lots<'a>) -> Vec<(String, CarriedListeners)> {
    extras.sets().iter().map(|(name, set)| (name.clone(), carried_set(set, lots))).collect()
}

/// What this process had before it replaced itself.
#[derive(Debug)]
pub(super) struct Estate {
    carried: Carried,
    taken: Taken,
}

impl Estate {
    /// What has come with this socket, if this program can go on from there.
    ///
    /// # Errors
    ///
    /// [`ResumeError`].
    pub(super) fn receive(parcel: OwnedFd, config: &Config) -> Result<Self, ResumeError> {
        let (text, taken) = parcel::receive(parcel)?;
        let carried = Carried::read(&text)?;
        carried.check(config)?;
        Ok(Self { carried, taken })
    }

    /// Signals that are to be heard again, when somebody does.
    pub(super) fn held_signals(&self) -> &[i32] {
        &self.carried.held_signals
    }

    /// Makes a supervisor of it. In its runtime.
    ///
    /// # Errors
    ///
    /// What cannot be taken over.
    pub(super) fn resume(
        self,
        config: Config,
        prepares: bool,
        output: Output,
        stop: StopReceiver,
    ) -> Result<Supervisor, SuperviseError> {
        let Self { carried, mut taken } = self;
        let images: io::Result<Vec<Image>> = carried.images.iter().map(|lot| taken.take(*lot).map(Arc::new)).collect();
        let images = images.map_err(ResumeError::from)?;
        let mut pumps = pumps(carried.pipes, &mut taken, &output).map_err(ResumeError::from)?;
        let scoreboard = taken.take(carried.scoreboard).map_err(ResumeError::from)?;
        let scoreboard = Scoreboard::from_fd(scoreboard).map_err(ResumeError::from)?;
        let table = carried.session_table.map(|lot| taken.take(lot)).transpose().map_err(ResumeError::from)?;
        let assets = Assets {
            seed: carried.seed,
            program: Program::resumed(carried.program).map_err(ResumeError::from)?,
            listeners: sets(carried.listeners, &mut taken)?,
            extras: extras(carried.extras, &mut taken)?,
            desk: Desk::resumed(sets(carried.admin_listeners, &mut taken)?, carried.desk),
            channels: pairs(&carried.channels, &mut taken).map_err(ResumeError::from)?,
            secret: carried.secret,
            session_table: TableOwner::resumed(&config, table).map_err(ResumeError::from)?,
            scoreboard,
        };
        let images_of_slots = carried.image_of.iter().map(|image| Arc::clone(&images[*image])).collect();
        let mut supervisor = Supervisor::assemble(config, prepares, output, stop, assets);
        supervisor.manager.work_at_once(Instant::now());
        supervisor.resume_state(carried.state)?;
        supervisor.images = images_of_slots;
        supervisor.evicted = carried.evicted;
        supervisor.reexecs = carried.reexecs;
        supervisor.ledger.resume(carried.ledger);
        for member in carried.members {
            let image = Arc::clone(&images[member.image]);
            let pump = pumps.remove(&member.process.id);
            supervisor.adopt(&member, image, pump, &mut taken).map_err(ResumeError::from)?;
        }
        if let Some(process) = carried.attendant {
            let pump = pumps.remove(&process.id);
            let adopted = adopted(&process, &mut taken).map_err(ResumeError::from)?;
            supervisor.adopt_attendant(process.id, adopted, process.protocol, pump);
        }
        Ok(supervisor)
    }
}

impl Supervisor {
    /// Goes on with a process that was started before.
    fn adopt(
        &mut self,
        carried: &CarriedMember,
        image: Image,
        pump: Option<Pump>,
        taken: &mut Taken,
    ) -> io::Result<()> {
        let CarriedMember { process, generation, exports, .. } = carried;
        let place = self.state.place_of(process.id).ok_or(io::ErrorKind::NotFound)?;
        let member = Member {
            process: adopted(process, taken)?,
            pump,
            image,
            slot: place.0,
            generation: *generation,
            seat: place.1,
            pulse: Pulse::new(Instant::now()),
            greeted: true,
            protocol: process.protocol,
            early: None,
            exports: *exports,
            is_ending: false,
        };
        self.watch(process.id, &member.process);
        self.members.insert(process.id, member);
        Ok(())
    }
}

fn adopted(carried: &CarriedProcess, taken: &mut Taken) -> io::Result<Arc<Process>> {
    Process::adopted(carried.pid, taken.take(carried.control)?).map(Arc::new)
}

/// The pipes of each process that still runs; those of others are read, too.
fn pumps(
    pipes: Vec<(Option<ChildId>, super::output::CarriedPipe, Lot)>,
    taken: &mut Taken,
    output: &Output,
) -> io::Result<BTreeMap<ChildId, Pump>> {
    let mut of_processes: BTreeMap<ChildId, Vec<_>> = BTreeMap::new();
    for (owner, pipe, lot) in pipes {
        let source = taken.take(lot)?;
        match owner {
            Some(owner) => of_processes.entry(owner).or_default().push((pipe, source)),
            None => drop(output.adopt(vec![(pipe, source)])?),
        }
    }
    of_processes.into_iter().map(|(owner, pipes)| Ok((owner, output.adopt(pipes)?))).collect()
}

fn set_of((set, lots): CarriedListeners, taken: &mut Taken) -> Result<ListenerSet, ResumeError> {
    let sockets = taken.take_all(&lots)?.into_iter().map(Socket::from).collect();
    set.with(sockets).ok_or(ResumeError::Nonsense("an address has other sockets"))
}

fn sets(carried: Vec<CarriedListeners>, taken: &mut Taken) -> Result<Vec<ListenerSet>, ResumeError> {
    carried.into_iter().map(|set| set_of(set, taken)).collect()
}

fn extras(carried: Vec<(String, CarriedListeners)>, taken: &mut Taken) -> Result<Extras, ResumeError> {
    let sets: Result<Vec<_>, ResumeError> =
        carried.into_iter().map(|(name, set)| Ok((name, set_of(set, taken)?))).collect();
    sets.map(Extras::resumed)
}

fn pairs(carried: &[(Lot, Lot)], taken: &mut Taken) -> io::Result<Vec<Pair>> {
    let pair =
        |(sender, receiver): &(Lot, Lot)| Ok(Pair { sender: taken.take(*sender)?, receiver: taken.take(*receiver)? });
    carried.iter().map(pair).collect()
}
