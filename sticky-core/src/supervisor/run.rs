//! The supervisor's loop: hears signals, children and the clock, asks [`State`] what to do, and does it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::admin::Desk;
use super::child::{Incoming, Launched, Launcher, Process};
use super::event::{Action, ChildId, Ended, Event, Fleet, HowMany, Note, Outcome, Program as Source, Scope};
use super::extras::Extras;
use super::heartbeat::{self, Pulse};
use super::ledger::{Ledger, Remark};
use super::output::{Output, Pump};
use super::preparer::Preparer;
use super::program::{Image, Program};
use super::reap::Reaper;
use super::recycle::{Quota, Usage};
use super::resident;
use super::service::{Bounds, Manager};
use super::sessions::TableOwner;
use super::state::{Policy, State};
use super::wiring::{Sent, Wiring, Word};
use super::{FLUSH_TIME, StopReceiver, SuperviseError};
use crate::config::Config;
use crate::control::{
    BusPeerOrder, DrainOrder, Hello, ListenOrder, MAX_DESCRIPTORS, PROTOCOL, Part, ReleaseOrder, ToWorker, Welcome,
};
use crate::dispatch::Dispatch;
use crate::dispatch::handoff::channel::Pair;
use crate::id::{Generation, Post, WorkerId};
use crate::listener::{ListenerKind, ListenerSet};
use crate::notice;
use crate::scoreboard::{Headcount, Scoreboard};
use crate::session;

/// Takes the port, starts the workers, and keeps them running until asked to end.
pub(super) async fn supervise(config: Config, prepares: bool, stop: StopReceiver) -> Result<(), SuperviseError> {
    raise_descriptor_limit();
    let output = Output::choose(config.prefix_output);
    output.carry_notices();
    // Handlers come first: a signal that arrives from here on ends what has been started.
    let signals = Signals::new().map_err(SuperviseError::system("watch signals"))?;
    let mut supervisor = Supervisor::new(config, prepares, output, stop)?;
    let outcome = supervisor.run(signals).await;
    supervisor.manager.finish();
    supervisor.dismiss_attendant().await;
    supervisor.output.flush(FLUSH_TIME).await;
    outcome
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Fewer descriptors than there might be is no reason not to start.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// How often it is looked up what workers have used.
const MEASURE_PERIOD: Duration = Duration::from_secs(1);

/// How long the last output of a process that has ended may take to be read.
const LAST_WORDS_TIME: Duration = Duration::from_millis(200);

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    child: Signal,
    /// One worker more.
    more: Signal,
    /// One worker less.
    fewer: Signal,
    /// What other servers reopen logs and replace themselves by. Left alone, these would end us.
    unused: [Signal; 2],
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
            more: signal(SignalKind::from_raw(libc::SIGTTIN))?,
            fewer: signal(SignalKind::from_raw(libc::SIGTTOU))?,
            unused: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    async fn unused(signals: &mut [Signal; 2]) {
        let [first, second] = signals;
        tokio::select! {
            _ = first.recv() => {}
            _ = second.recv() => {}
        }
    }
}

/// A process and what the loop keeps about it.
pub(super) struct Member {
    pub(super) process: Arc<Process>,
    pump: Option<Pump>,
    image: Image,
    pub(super) slot: WorkerId,
    pub(super) generation: Generation,
    pub(super) seat: usize,
    pulse: Pulse,
    greeted: bool,
    /// What was said to it before it could listen; it comes after the welcome.
    early: Option<ToWorker>,
    /// It has metrics of its own.
    pub(super) exports: bool,
}

/// Where a process is: its slot, which start of that, its row.
struct Seat {
    slot: WorkerId,
    generation: Generation,
    number: usize,
}

pub(super) struct Supervisor {
    pub(super) config: Config,
    pub(super) state: State,
    seed: u64,
    listeners: Vec<ListenerSet>,
    channels: Vec<Pair>,
    /// Where the application listens beside that.
    extras: Extras,
    /// What the sticky cookie is sealed with.
    secret: Vec<u8>,
    session_table: Option<TableOwner>,
    pub(super) scoreboard: Scoreboard,
    /// How many workers are placed on.
    headcount: Headcount,
    pub(super) launcher: Launcher,
    pub(super) program: Program,
    /// What each slot's process is started from when it has ended.
    images: Vec<Image>,
    /// What the latest reload has found.
    found: std::io::Result<Image>,
    pub(super) output: Output,
    pub(super) members: BTreeMap<ChildId, Member>,
    /// The process that prepares, while there is one.
    pub(super) preparer: Option<Preparer>,
    /// The admin process, and what there is for it.
    pub(super) desk: Desk,
    pub(super) incoming: (UnboundedSender<Incoming>, UnboundedReceiver<Incoming>),
    reaper: Option<Reaper>,
    /// Who has started this program as a service, if somebody has.
    manager: Manager,
    pub(super) ledger: Ledger,
    wiring: Wiring,
    /// The slots that the placement leaves out.
    evicted: Vec<WorkerId>,
    /// Asks for the end from inside the program.
    stop: StopReceiver,
    /// Whether somebody sits at the terminal this was started from: then it ends with the terminal.
    in_terminal: bool,
    outcome: Option<Result<(), SuperviseError>>,
}

impl Supervisor {
    fn new(config: Config, prepares: bool, output: Output, stop: StopReceiver) -> Result<Self, SuperviseError> {
        let seed = config.hash_seed.unwrap_or_else(random);
        let program = Program::of_this_process().map_err(SuperviseError::system("find the program it runs"))?;
        super::sockets::expect_passed(&config)?;
        let listeners = super::sockets::take(&config, seed)?;
        let extras = Extras::take(&config)?;
        let desk = Desk::new(super::sockets::take_admin(&config)?);
        let channels =
            super::sockets::channels(&config).map_err(SuperviseError::system("make its workers' channels"))?;
        let secret = session::secret(&config).map_err(SuperviseError::system("draw a secret"))?;
        let session_table = TableOwner::new(&config).map_err(SuperviseError::system("make the session table"))?;
        let slots = config.slots();
        let scoreboard = Scoreboard::create(State::seats(slots))?;
        let headcount = scoreboard.headcount(config.max_workers);
        headcount.set(config.workers);
        let is_by_address = !config.affinity.reads_requests() && config.trust.proxies.is_empty();
        let ledger = Ledger::new(slots);
        let ledger = if config.proxies() > 0 { ledger.behind_proxies(config.max_workers) } else { ledger };
        let ledger = if is_by_address && config.workers > 1 { ledger } else { ledger.without_spread() };
        let policy = Policy {
            workers: config.workers,
            room: config.max_workers,
            proxies: config.proxies(),
            boot_timeout: config.boot_timeout,
            prepare_timeout: prepares.then_some(config.prepare_timeout),
            shutdown_timeout: config.shutdown_timeout,
            drain_timeout: config.drain_timeout,
            exit_timeout: config.exit_timeout,
            reload_parallel: config.reload_parallel,
            reload_soak: config.reload_soak,
            quota: Quota { requests: config.max_requests, age: config.max_age, memory: config.max_rss },
            failover: config.failover,
            admin: !config.admin.0.is_empty(),
            moves: config.dispatch != Dispatch::Kernel,
            seed: random(),
        };
        Ok(Self {
            state: State::new(policy),
            seed,
            listeners,
            channels,
            extras,
            secret,
            session_table,
            scoreboard,
            headcount,
            launcher: Launcher::new(&config),
            images: vec![program.running().clone(); usize::from(slots)],
            found: Ok(program.running().clone()),
            program,
            output,
            members: BTreeMap::new(),
            preparer: None,
            desk,
            incoming: unbounded_channel(),
            reaper: Reaper::if_needed(),
            manager: Manager::of_environment(bounds(&config, prepares), Instant::now()),
            ledger,
            wiring: Wiring::default(),
            evicted: Vec::new(),
            stop,
            in_terminal: std::io::stderr().is_terminal(),
            outcome: None,
            config,
        })
    }

    async fn run(&mut self, mut signals: Signals) -> Result<(), SuperviseError> {
        let mut looks = interval(heartbeat::period(self.config.heartbeat_timeout));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_look = Instant::now();
        let mut measures = interval(MEASURE_PERIOD);
        measures.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let is_measured = self.state.is_recycled_by_usage();
        let mut strangers = None;
        self.decide(Event::Start);
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            let deadline = self.state.deadline();
            tokio::select! {
                Some(incoming) = self.incoming.1.recv() => self.hear(incoming),
                _ = signals.terminate.recv() => self.decide(Event::Terminate),
                _ = signals.interrupt.recv() => self.decide(Event::Terminate),
                _ = signals.hangup.recv() => self.hung_up(),
                _ = signals.more.recv() => self.decide(Event::Scale(HowMany::OneMore)),
                _ = signals.fewer.recv() => self.decide(Event::Scale(HowMany::OneLess)),
                () = Signals::unused(&mut signals.unused) => notice::warn("SIGUSR1 and SIGUSR2 do nothing in this version"),
                Some(()) = self.stop.recv() => self.decide(Event::Terminate),
                _ = signals.child.recv() => strangers = self.children_changed(),
                () = wait_until(strangers) => strangers = self.children_changed(),
                now = looks.tick() => self.look(now.into(), &mut last_look),
                _ = measures.tick(), if is_measured => self.decide(Event::Used(self.measure())),
                () = wait_until(self.wiring.retry_at()) => self.wire(),
                () = wait_until(self.manager.due()) => self.manager.work(Instant::now()),
                () = wait_until(deadline) => self.decide(Event::Tick),
            }
        }
    }

    fn hung_up(&mut self) {
        if self.in_terminal {
            self.decide(Event::Terminate);
        } else {
            self.decide(Event::Reload(Scope::All));
        }
    }

    pub(super) fn decide(&mut self, event: Event) {
        let is_about_bus = matches!(event, Event::BusJoin { .. });
        for action in self.state.handle(Instant::now(), event) {
            self.act(action);
        }
        if is_about_bus {
            self.wire();
        }
        self.update_attendant();
        self.manager.look(&self.state, Instant::now());
    }

    fn hear(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Hello { child, hello } => self.greet(child, &hello),
            Incoming::Exports { child } => self.exports(child),
            Incoming::Command { child, number, command } => self.commanded(child, number, command),
            Incoming::Event(Event::Exited { child, how }) => self.exited(child, how),
            Incoming::Event(event) => self.decide(event),
        }
    }

    /// Answers a greeting: a worker that does not agree with its cluster must not serve in it.
    fn greet(&mut self, child: ChildId, hello: &Hello) {
        if self.preparer.as_ref().is_some_and(|preparer| preparer.child == child) {
            return self.greet_preparer(child, hello);
        }
        if self.greet_attendant(child, hello) {
            return;
        }
        let Some(member) = self.members.get_mut(&child) else { return };
        match judge(hello, &self.config.fingerprint()) {
            Ok(protocol) => {
                let welcome = Welcome {
                    protocol,
                    worker: member.slot,
                    generation: member.generation,
                    workers: self.config.max_workers,
                    seat: member.seat,
                    seed: self.seed,
                    placed: self.config.dispatch != Dispatch::Proxy,
                    addresses: self.listeners.len(),
                    evicted: self.evicted.clone(),
                    channels: u16::try_from(self.channels.len()).unwrap_or_default(),
                    secret: self.secret.clone(),
                    extras: !self.extras.is_empty(),
                };
                let table = self.session_table.as_ref().map(AsFd::as_fd);
                let descriptors: Vec<_> = std::iter::once(self.scoreboard.as_fd()).chain(table).collect();
                member.process.send(&ToWorker::Welcome(welcome), &descriptors);
                let senders: Vec<_> = self.channels.iter().map(|pair| pair.sender.as_fd()).collect();
                for some in senders.chunks(MAX_DESCRIPTORS) {
                    member.process.send(&ToWorker::Channels, some);
                }
                if !self.extras.is_empty() {
                    let (extras, descriptors) = self.extras.lend();
                    member.process.send(&extras, &descriptors);
                }
                if member.slot.get() >= self.config.max_workers {
                    let (slots, ports) = self.state.told_proxies();
                    member.process.send(&ToWorker::Down { slots: slots.to_vec() }, &[]);
                    member.process.send(&ToWorker::Ports { ports: ports.to_vec() }, &[]);
                }
                member.greeted = true;
                if let Some(early) = member.early.take() {
                    member.process.send(&early, &[]);
                }
            }
            Err(reason) => {
                let who = Post::of(member.slot, self.config.max_workers);
                let process = Arc::clone(&member.process);
                self.refuse(child, who, &process, reason);
            }
        }
    }

    /// Forgets a process that has ended and folds its row away. If its output is read here, its last words come first.
    fn exited(&mut self, child: ChildId, how: Ended) {
        if self.preparer.as_ref().is_some_and(|preparer| preparer.child == child) {
            return self.preparer_exited(child, how);
        }
        if self.attendant_exited(child, how) {
            return;
        }
        let Some(member) = self.members.get_mut(&child) else {
            return;
        };
        if let Some(pump) = member.pump.take() {
            return self.hear_last_words(child, how, pump);
        }
        let row = self.scoreboard.row(member.seat);
        self.ledger.fold(member.slot, row.totals());
        row.clear();
        self.desk.buried(child);
        self.members.remove(&child);
        self.decide(Event::Exited { child, how });
    }

    /// Reads what a process that has ended had still to say, and reports its end after that.
    pub(super) fn hear_last_words(&self, child: ChildId, how: Ended, pump: Pump) {
        let events = self.incoming.0.clone();
        tokio::spawn(async move {
            let text = pump.finish(LAST_WORDS_TIME).await.join("\n");
            if !text.is_empty() {
                let _ = events.send(Incoming::Event(Event::Words { child, text }));
            }
            let _ = events.send(Incoming::Event(Event::Exited { child, how }));
        });
    }

    /// Tells a process that it cannot be one of ours, and why.
    pub(super) fn refuse(&mut self, child: ChildId, who: Post, process: &Arc<Process>, reason: String) {
        notice::error(format_args!("{who} is refused: {reason}"));
        process.send(&ToWorker::Refused { reason: reason.clone() }, &[]);
        self.decide(Event::Words { child, text: reason });
    }

    /// Tells the user what the numbers show.
    fn read_scoreboard(&mut self) {
        let live = self.members.values().map(|member| (member.slot, self.scoreboard.row(member.seat).totals()));
        for remark in self.ledger.remarks(live) {
            match remark {
                Remark::Misplaced | Remark::Looped => notice::error(remark),
                Remark::Lopsided { .. } => notice::warn(remark),
            }
        }
    }

    /// Hears of processes that were suspended or go on, and reaps strangers; tells when to look at those again.
    fn children_changed(&mut self) -> Option<Instant> {
        let changes: Vec<Event> =
            self.members.iter().filter_map(|(id, member)| member.process.suspension(*id)).collect();
        let now = Instant::now();
        for event in changes {
            if let Event::Continued { child } = event
                && let Some(member) = self.members.get_mut(&child)
            {
                member.pulse.excuse(now);
            }
            self.decide(event);
        }
        let preparer = self.preparer.iter().map(|preparer| preparer.process.pid);
        let attendant = self.desk.pid();
        let ours = self.members.values().map(|member| member.process.pid).chain(preparer).chain(attendant);
        self.reaper.as_mut().and_then(|reaper| reaper.look(now, ours))
    }

    /// Looks for event loops that have stopped turning.
    fn look(&mut self, now: Instant, last: &mut Instant) {
        let timeout = self.config.heartbeat_timeout;
        let slept = heartbeat::slept(now.duration_since(*last), heartbeat::period(timeout));
        *last = now;
        let mut silent = Vec::new();
        for (id, member) in &mut self.members {
            let beats = self.scoreboard.row(member.seat).last_heartbeat();
            if slept {
                member.pulse.excuse(now);
            } else if member.pulse.silent(beats, now, timeout) {
                if member.process.is_traced() {
                    member.pulse.excuse(now);
                } else {
                    silent.push(*id);
                }
            }
        }
        for child in silent {
            self.decide(Event::Silent { child });
        }
        self.read_scoreboard();
        if let Some(table) = &mut self.session_table {
            table.sweep();
        }
    }

    /// Looks up what workers have used.
    fn measure(&self) -> Vec<(ChildId, Usage)> {
        let workers = self.members.iter().filter(|(_, member)| member.slot.get() < self.config.max_workers);
        let usage = |member: &Member| Usage {
            requests: self.scoreboard.row(member.seat).requests(),
            memory: resident::memory(member.process.pid, self.config.own_ports),
        };
        workers.map(|(id, member)| (*id, usage(member))).collect()
    }

    // === Actions ===

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn { child, slot, generation, seat, program } => {
                self.spawn(child, Seat { slot, generation, number: seat }, program);
            }
            Action::Prepare { child, program } => self.prepare(child, program),
            Action::Attend { child } => self.attend(child),
            Action::Report { ticket, progress } => self.desk.report(ticket, progress),
            Action::FindProgram => self.found = self.program.look(),
            Action::Keep { child } => {
                if let Some(member) = self.members.get(&child) {
                    self.images[member.slot.index()] = member.image.clone();
                }
            }
            Action::Listen { child, slot, part, refuse } => self.lend(child, slot, part, refuse),
            Action::Release { child, slot, part } => self.send(child, ToWorker::Release(ReleaseOrder { slot, part })),
            Action::Drain { child, timeout, reason } => {
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                self.send(child, ToWorker::Drain(DrainOrder { reason, timeout_ms }));
            }
            Action::Connect { child, other } => self.wiring.connect(child, other),
            Action::BusJoined { child } => self.wiring.joined(child),
            Action::Grant { child } => self.send(child, ToWorker::Grant),
            Action::Revoke { child } => self.send(child, ToWorker::Revoke),
            Action::Signal { child, signal } => {
                if let Some(process) = self.process(child) {
                    process.signal(signal);
                }
            }
            Action::Evict { slots } => self.evict(slots),
            Action::Place { workers } => self.scale(workers),
            Action::Down { slots } => self.tell_proxies(&ToWorker::Down { slots }),
            Action::Ports { ports } => self.tell_proxies(&ToWorker::Ports { ports }),
            Action::Forsake { child } => self.send(child, ToWorker::Forsaken),
            Action::Unpublish => {
                self.listeners.iter().for_each(ListenerSet::unpublish);
                self.extras.unpublish();
            }
            Action::CloseListeners => {
                self.listeners.clear();
                self.extras.close();
            }
            Action::Note(note) => self.note(&note),
            Action::Finish(outcome) => self.finish(outcome),
        }
    }

    fn process(&self, child: ChildId) -> Option<&Process> {
        let preparer = self.preparer.as_ref().filter(|preparer| preparer.child == child);
        let process = self.members.get(&child).map(|member| &member.process);
        let process = process.or(preparer.map(|preparer| &preparer.process)).or(self.desk.process(child));
        process.map(AsRef::as_ref)
    }

    fn send(&mut self, child: ChildId, message: ToWorker) {
        match self.members.get_mut(&child) {
            Some(member) if member.greeted => member.process.send(&message, &[]),
            // Only a drain can be ordered of a process that has not said hello.
            Some(member) => member.early = Some(message),
            None => {}
        }
    }

    fn tell_proxies(&self, message: &ToWorker) {
        let is_proxy = |member: &&Member| member.slot.get() >= self.config.max_workers && member.greeted;
        self.members.values().filter(is_proxy).for_each(|member| member.process.send(message, &[]));
    }

    fn spawn(&mut self, child: ChildId, seat: Seat, source: Source) {
        let events = self.incoming.0.clone();
        match self.launch(seat.slot, source) {
            Ok((launched, image)) => {
                tokio::spawn(Arc::clone(&launched.process).watch(child, events));
                let (process, pump) = (launched.process, launched.pump);
                let pulse = Pulse::new(Instant::now());
                let Seat { slot, generation, number: seat } = seat;
                let member = Member {
                    process,
                    pump,
                    image,
                    slot,
                    generation,
                    seat,
                    pulse,
                    greeted: false,
                    early: None,
                    exports: false,
                };
                self.desk.born(child);
                self.members.insert(child, member);
            }
            // Through the queue, not at once: this is called while the state machine is being asked.
            Err(error) => {
                let error = error.to_string();
                let _ = events.send(Incoming::Event(Event::SpawnFailed { child, error }));
            }
        }
    }

    fn launch(&self, slot: WorkerId, source: Source) -> std::io::Result<(Launched, Image)> {
        let image = match source {
            Source::Same => &self.images[slot.index()],
            Source::New => self.found()?,
            Source::OfTheFirst => &self.images[0],
        };
        let post = Post::of(slot, self.config.max_workers);
        Ok((self.launcher.launch(image, post, &self.output)?, image.clone()))
    }

    /// What the latest reload has found.
    pub(super) fn found(&self) -> std::io::Result<&Image> {
        self.found.as_ref().map_err(|error| std::io::Error::new(error.kind(), error.to_string()))
    }

    fn lend(&self, child: ChildId, slot: WorkerId, part: Part, refuse: bool) {
        let Some(member) = self.members.get(&child) else { return };
        let own = member.slot == slot;
        let (sockets, descriptors) = match part {
            Part::Listeners => super::sockets::listeners(&self.listeners, slot, own),
            Part::Channel => super::sockets::channel(&self.channels, slot),
        };
        member.process.send(&ToWorker::Listen(ListenOrder { slot, part, sockets, refuse }), &descriptors);
    }

    /// Goes on connecting processes by the bus. What they say there is between them.
    fn wire(&mut self) {
        let members = &self.members;
        self.wiring.work(Instant::now(), super::sockets::bus_pair, |child, word| {
            let Some(member) = members.get(&child) else { return Sent::Gone };
            match word {
                Word::Joined => member.process.try_send(&ToWorker::BusJoined, &[]),
                Word::Peer { peer, end } => {
                    let Some(peer) = members.get(&peer) else { return Sent::Gone };
                    let order = BusPeerOrder { worker: peer.slot, generation: peer.generation };
                    member.process.try_send(&ToWorker::BusPeer(order), &[end.as_fd()])
                }
            }
        });
    }

    fn evict(&mut self, slots: Vec<WorkerId>) {
        // The workers are told first: what reaches them through the new placement is then no surprise.
        let evicted = ToWorker::Evicted { slots: slots.clone() };
        let greeted = self.members.values().filter(|member| member.greeted);
        greeted.for_each(|member| member.process.send(&evicted, &[]));
        self.evicted = slots;
        self.place();
    }

    fn scale(&mut self, workers: u16) {
        if let Some(table) = &self.session_table {
            table.forget_from(WorkerId::new(workers.min(self.headcount.now())));
        }
        // The workers see it first, for the same reason.
        self.headcount.set(workers);
        self.place();
    }

    /// Has the kernel place connections on all slots that are in use, but for those that are out.
    fn place(&self) {
        let slots = WorkerId::all(self.headcount.now()).filter(|slot| !self.evicted.contains(slot));
        if let Err(error) = super::sockets::place(&self.listeners, self.seed, &slots.collect::<Vec<_>>()) {
            notice::error(format_args!("the kernel's placement could not be changed: {error}"));
        }
    }

    fn note(&mut self, note: &Note) {
        self.desk.heard(note);
        self.manager.heard(note);
        match note {
            Note::Up => {
                self.announce();
                self.extras.announce();
                self.desk.announce();
            }
            Note::Restarting { .. } | Note::Hung { .. } | Note::Evicted { .. } | Note::BootTimeout { .. } => {
                notice::warn(note);
            }
            Note::RecyclingFailed { .. } | Note::RecyclingCrowded { .. } => notice::warn(note),
            Note::Overdue { .. } | Note::Unkillable { .. } | Note::FormerLost { .. } => notice::warn(note),
            Note::ScalingRefused { .. } => notice::warn(note),
            Note::ReloadStopped { .. } | Note::ScalingStopped { .. } => notice::error(note),
            Note::Back { .. } | Note::Draining { .. } | Note::ShuttingDown { .. } | Note::StoppingNow => {
                notice::info(note)
            }
            Note::Reloading { .. } | Note::ReloadWaits | Note::ReloadCrowded { .. } | Note::Reloaded { .. } => {
                notice::info(note)
            }
            Note::ReloadGivenUp { .. } | Note::Replaced { .. } => notice::info(note),
            Note::Recycling { .. } | Note::Recycled { .. } => notice::info(note),
            Note::Scaling { .. } | Note::Scaled { .. } | Note::ScalingWaits { .. } => notice::info(note),
            Note::ScalingNeedless { .. } | Note::ScalingCrowded { .. } => notice::info(note),
        }
    }

    /// One line for each address, with the real port.
    fn announce(&self) {
        let Config { workers, dispatch, dispatch_reason, .. } = &self.config;
        let fleet = Fleet { workers: usize::from(*workers), proxies: usize::from(self.config.proxies()) };
        for set in &self.listeners {
            let (scheme, address) = (set.address().scheme(), set.address());
            let how = match set.kind() {
                ListenerKind::PerSlot(_) => format!("{dispatch} dispatch: {dispatch_reason}"),
                // Who comes in there has no address of its own to be placed by.
                ListenerKind::Shared(_) if *dispatch == Dispatch::Kernel => {
                    "shared: no affinity, any worker takes any connection".to_owned()
                }
                ListenerKind::Shared(_) if *dispatch == Dispatch::Proxy => {
                    format!("{dispatch} dispatch: {dispatch_reason}")
                }
                ListenerKind::Shared(_) => format!("shared, {dispatch} dispatch: {dispatch_reason}"),
            };
            notice::announce(format_args!("listening on {scheme}{address} ({fleet}, {how})"));
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        self.read_scoreboard();
        if let Some(handoffs) = self.ledger.handoffs() {
            notice::info(format_args!("{}: {handoffs}", self.config.dispatch));
        }
        if let Some(bus) = self.ledger.bus() {
            notice::info(format_args!("bus: {bus}"));
        }
        self.outcome = Some(match outcome {
            Outcome::Clean(report) => {
                notice::info(report);
                Ok(())
            }
            Outcome::Forced => Err(SuperviseError::Forced),
            Outcome::Failed(failure) => Err(SuperviseError::Boot(failure.to_string())),
        });
    }
}

/// How long a service manager should wait, at least.
fn bounds(config: &Config, prepares: bool) -> Bounds {
    let prepare = if prepares { config.prepare_timeout } else { Duration::ZERO };
    let turns = u32::from(config.max_workers.div_ceil(config.reload_parallel)) + u32::from(config.proxies());
    Bounds {
        start: prepare + config.boot_timeout,
        // It may have to wait for room, which is there when a former process has drained.
        reload: prepare + (config.boot_timeout + config.reload_soak) * turns + config.drain_timeout,
        end: config.shutdown_timeout + config.exit_timeout,
    }
}

/// The protocol to speak with this worker, or why it cannot be one of ours.
pub(super) fn judge(hello: &Hello, fingerprint: &str) -> Result<u32, String> {
    let (oldest, newest) = hello.protocol;
    let protocol = newest.min(*PROTOCOL.end());
    if protocol < oldest.max(*PROTOCOL.start()) {
        let Hello { version, .. } = hello;
        return Err(format!(
            "its sticky {version} speaks control protocols {oldest} to {newest}, this one {PROTOCOL:?}"
        ));
    }
    if hello.fingerprint != fingerprint {
        let theirs = &hello.fingerprint;
        return Err(format!(
            "its configuration is \"{theirs}\" and the cluster's is \"{fingerprint}\": a reload can't change affinity: restart"
        ));
    }
    Ok(protocol)
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// A number nobody outside can guess: the standard library draws the keys of its hash tables from the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(oldest: u32, newest: u32) -> Hello {
        Hello { protocol: (oldest, newest), version: "9.9.9".into(), fingerprint: "affinity=client-ip".into() }
    }

    #[test]
    fn the_newest_common_protocol_is_spoken() {
        let newest = *PROTOCOL.end();
        assert_eq!(judge(&hello(1, newest), "affinity=client-ip"), Ok(newest));
        assert_eq!(judge(&hello(1, newest + 5), "affinity=client-ip"), Ok(newest));
        assert_eq!(judge(&hello(newest, newest), "affinity=client-ip"), Ok(newest));
    }

    #[test]
    fn without_a_common_protocol_a_worker_is_refused() {
        let refused = judge(&hello(PROTOCOL.end() + 1, PROTOCOL.end() + 2), "affinity=client-ip").unwrap_err();
        assert!(refused.contains("9.9.9") && refused.contains("protocols 2 to 3"), "{refused}");
        assert!(judge(&hello(0, 0), "affinity=client-ip").is_err());
    }

    #[test]
    fn another_affinity_is_refused_by_name() {
        let refused = judge(&hello(1, 1), "affinity=cookie:session").unwrap_err();
        assert!(refused.contains("affinity=client-ip") && refused.contains("cookie:session"), "{refused}");
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(random(), random());
    }
}
