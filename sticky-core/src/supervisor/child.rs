//! One process of the cluster, seen from the supervisor: starting it, and hearing what becomes of it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

use super::backlog::{self, Backlog};
use super::event::{ChildId, ChildSignal, Ended, Event};
use super::output::{Output, Pump};
use super::service;
use super::wiring::Sent;
use crate::admin::Command as Request;
use crate::config::Config;
use crate::control::{self, Channel, FromWorker, Hello, ToWorker};
use crate::id::Post;
use crate::listener::passed;
use crate::role::{CONTROL_VARIABLE, Marker};
use crate::sys::{exec, watch};

/// The supervisor's end of a control socket.
type Control<'a> = Channel<ToWorker, FromWorker, BorrowedFd<'a>>;

/// How long to leave a process that has ended to the debugger that holds it.
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// How long until a message is tried again that the kernel did not take.
const SEND_PAUSE: Duration = Duration::from_millis(10);

/// How long a process may take no message at all while some wait for it. Long enough for whoever takes over a slot to
/// empty its channel, which is what makes room; much shorter than a user waits for a cluster that does not come back.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// What comes in from a child.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Something that is decided on.
    Event(Event),
    /// Its greeting, which wants an answer.
    Hello { child: ChildId, hello: Hello },
    /// It has metrics of its own.
    Exports { child: ChildId },
    /// What somebody has asked of the admin process.
    Command { child: ChildId, number: u64, command: Request },
}

/// Starts processes.
#[derive(Debug)]
pub(super) struct Launcher {
    called: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Launcher {
    pub(super) fn new(config: &Config) -> Self {
        let mut arguments = std::env::args_os();
        let called = arguments.next().unwrap_or_else(|| "sticky".into());
        let mut environment = config.env.clone();
        const THREADS: &str = "TOKIO_WORKER_THREADS";
        if std::env::var_os(THREADS).is_none() {
            environment.insert(0, (THREADS.into(), config.threads_per_worker.to_string().into()));
        }
        Self { called, arguments: arguments.collect(), environment }
    }

    /// Starts a program at this post.
    pub(super) fn launch(&self, image: &OwnedFd, post: Post, output: &Output) -> io::Result<Launched> {
        let (ours, theirs) = control::pair()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let (stdout, stderr, pump) = output.stdio(post)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", image.as_raw_fd()));
        let mut command = Command::new(path);
        command.arg0(&self.called).args(&self.arguments);
        // What a service manager has told this process is not for others; what the program sets by itself is.
        for name in service::VARIABLES.into_iter().chain(passed::VARIABLES) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.env(CONTROL_VARIABLE, marker(&theirs, post)?.to_string());
        if let Post::Worker(slot) = post {
            command.env("STICKY_WORKER_ID", slot.to_string());
        }
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // A group of its own: Ctrl-C in a terminal reaches the supervisor, which drains the workers.
        command.process_group(0);
        exec::inherit(&mut command, theirs.as_fd());
        let mut child = command.spawn()?;
        let process = Process::watching(&child, ours).inspect_err(|_| {
            // Nobody would hear of its end.
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(Launched { process: Arc::new(process), pump })
    }
}

fn marker(socket: &OwnedFd, post: Post) -> io::Result<Marker> {
    let inode = rustix::fs::fstat(socket)?.st_ino;
    Ok(Marker { fd: socket.as_raw_fd(), inode, parent: std::process::id(), post })
}

/// A process that was started, and the pipes of its output if they are not inherited.
pub(super) struct Launched {
    pub(super) process: Arc<Process>,
    pub(super) pump: Option<Pump>,
}

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    control: AsyncFd<OwnedFd>,
    backlog: Mutex<Backlog<ToWorker>>,
}

impl Process {
    fn watching(child: &std::process::Child, control: OwnedFd) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let (pidfd, control) = (watch::readable(pidfd)?, watch::readable(control)?);
        Ok(Self { pid, pidfd, control, backlog: Mutex::default() })
    }

    fn control(&self) -> Control<'_> {
        Control::new(self.control.get_ref().as_fd())
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog<ToWorker>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message, after those that wait; where the kernel does not take it now, it waits itself. A process that
    /// takes none for [`SEND_PATIENCE`] is of no use any more and is killed: what becomes of it then comes in as any
    /// other end.
    pub(super) fn send(self: &Arc<Self>, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) {
        let mut backlog = self.backlog();
        let is_first = backlog.is_empty();
        if is_first {
            match self.control().send(message, descriptors) {
                Err(error) if backlog::passes(&error) => {}
                Err(error) => return self.give_up(&error),
                Ok(()) => return,
            }
        }
        if let Err(error) = backlog.keep(message, descriptors) {
            backlog.clear();
            return self.give_up(&error);
        }
        if is_first {
            tokio::spawn(Arc::clone(self).send_backlog());
        }
    }

    /// Sends a message if it goes now; nothing is kept for later.
    pub(super) fn try_send(&self, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) -> Sent {
        let backlog = self.backlog();
        if !backlog.is_empty() {
            return Sent::Later;
        }
        match self.control().send(message, descriptors) {
            Ok(()) => Sent::Done,
            Err(error) if backlog::passes(&error) => Sent::Later,
            // Its end is on its way to us.
            Err(_) => Sent::Gone,
        }
    }

    /// Sends what waits until nothing does any more, or the process has ended.
    async fn send_backlog(self: Arc<Self>) {
        let mut last_sent = Instant::now();
        loop {
            tokio::select! {
                () = sleep(SEND_PAUSE) => {}
                _ = self.pidfd.readable() => return,
            }
            let mut backlog = self.backlog();
            let (sent, end) = backlog.send(|message, descriptors| self.control().send(message, descriptors));
            if sent > 0 {
                last_sent = Instant::now();
            }
            match end {
                // With the backlog empty, whoever comes next begins another run.
                Ok(()) => return,
                Err(error) if backlog::passes(&error) && last_sent.elapsed() < SEND_PATIENCE => {}
                Err(error) => {
                    backlog.clear();
                    return self.give_up(&error);
                }
            }
        }
    }

    fn give_up(&self, error: &io::Error) {
        // Nobody is there any more: its end is on its way to us.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return;
        }
        crate::notice::error(format_args!("process {} does not take messages: {error}; killing it", self.pid));
        self.signal(ChildSignal::Kill);
    }

    /// Signals the process; nothing happens if it is gone.
    pub(super) fn signal(&self, signal: ChildSignal) {
        let signal = match signal {
            ChildSignal::Terminate => Signal::TERM,
            ChildSignal::Abort => Signal::ABORT,
            ChildSignal::Kill => Signal::KILL,
            ChildSignal::Continue => Signal::CONT,
        };
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// Whether it was suspended or goes on since the last call.
    pub(super) fn suspension(&self, child: ChildId) -> Option<Event> {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options).ok()??;
        let event = if status.stopped() { Event::Stopped { child } } else { Event::Continued { child } };
        Some(event)
    }

    /// Whether a debugger holds it: then it is not hung.
    pub(super) fn is_traced(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|pid| pid.trim() != "0")
    }

    /// Reports everything this process says, and its end after that.
    pub(super) async fn watch(self: Arc<Self>, child: ChildId, events: UnboundedSender<Incoming>) {
        let mut said = Said::More;
        while said != Said::All {
            tokio::select! {
                ready = self.control.readable() => {
                    let Ok(mut ready) = ready else { break };
                    // One at a time: a worker that says much must not keep the supervisor from its other work.
                    said = self.read(child, &events);
                    if said == Said::Nothing {
                        ready.clear_ready();
                    }
                }
                _ = self.pidfd.readable() => break,
            }
        }
        let _ = self.pidfd.readable().await;
        // What it said before it ended comes first.
        while said != Said::All && self.read(child, &events) == Said::More {}
        let _ = events.send(Incoming::Event(Event::Exited { child, how: self.reap().await }));
    }

    fn read(&self, child: ChildId, events: &UnboundedSender<Incoming>) -> Said {
        match self.control().receive() {
            Ok(Some(received)) => {
                if let Some(incoming) = incoming(child, received.message) {
                    let _ = events.send(incoming);
                }
                Said::More
            }
            Ok(None) => Said::All,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Said::Nothing,
            Err(error) => {
                crate::notice::warn(format_args!("process {} talks nonsense: {error}; killing it", self.pid));
                self.signal(ChildSignal::Kill);
                Said::All
            }
        }
    }

    /// The exit status. A debugger that holds the process has the first right to it, and must not hold us up.
    async fn reap(&self) -> Ended {
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options) {
                Ok(Some(status)) => return ended(&status),
                Ok(None) => tokio::time::sleep(REAP_PAUSE).await,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Ended::Unknown,
            }
        }
    }
}

/// What there was to read from a control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// A message; there may be more.
    More,
    /// Nothing for now.
    Nothing,
    /// Nothing will come any more.
    All,
}

fn ended(status: &WaitIdStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Code(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Unknown,
    }
}

fn incoming(child: ChildId, message: FromWorker) -> Option<Incoming> {
    let event = match message {
        FromWorker::Hello(hello) => return Some(Incoming::Hello { child, hello }),
        FromWorker::Exports => return Some(Incoming::Exports { child }),
        FromWorker::Command { number, command } => return Some(Incoming::Command { child, number, command }),
        FromWorker::Listens { port } => Event::Listens { child, port },
        FromWorker::Ready { adopts } => Event::Ready { child, adopts },
        FromWorker::Released { slot, part } => Event::Released { child, slot, part },
        FromWorker::Dropped { slot, part } => Event::Dropped { child, slot, part },
        FromWorker::BusJoin => Event::BusJoin { child },
        FromWorker::Candidate => Event::Candidate { child },
        FromWorker::Resigned => Event::Resigned { child },
        FromWorker::Prepared => Event::Prepared { child },
        FromWorker::Drained(report) => Event::Drained { child, report },
        FromWorker::Words { text } => Event::Words { child, text },
        FromWorker::Unknown => return None,
    };
    Some(Incoming::Event(event))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Child;

    use super::*;
    use crate::control::{DrainOrder, Received};
    use crate::id::WorkerId;
    use crate::worker::DrainReason;

    type WorkerEnd = Channel<FromWorker, ToWorker>;

    /// A process that does not read what it is told, and what it does not read.
    fn deaf() -> (Child, Arc<Process>, WorkerEnd) {
        let (ours, theirs) = control::pair().unwrap();
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::watching(&child, ours).unwrap();
        (child, Arc::new(process), WorkerEnd::new(theirs))
    }

    /// Fills its control socket; tells by how many messages.
    fn fill(process: &Process) -> usize {
        let filler = ToWorker::Drain(DrainOrder { reason: DrainReason::Shutdown, timeout_ms: 1 });
        let full = (0..).map(|_| process.control().send(&filler, &[])).take_while(Result::is_ok);
        full.count()
    }

    fn evicted(slot: u16) -> ToWorker {
        ToWorker::Evicted { slots: vec![WorkerId::new(slot)] }
    }

    async fn next(end: &WorkerEnd) -> Received<ToWorker> {
        loop {
            match end.receive() {
                Ok(received) => return received.unwrap(),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            sleep(SEND_PAUSE).await;
        }
    }

    #[tokio::test]
    async fn what_does_not_go_at_once_goes_later_and_in_order() {
        let (mut child, process, end) = deaf();
        rustix::io::ioctl_fionbio(&end, true).unwrap();
        let filled = fill(&process);
        let (_reader, writer) = io::pipe().unwrap();
        process.send(&evicted(1), &[writer.as_fd()]);
        process.send(&evicted(2), &[]);
        assert!(matches!(next(&end).await.message, ToWorker::Drain(_)));
        // There is room for one now, which is not for the latest.
        process.send(&evicted(3), &[]);
        for _ in 1..filled {
            assert!(matches!(next(&end).await.message, ToWorker::Drain(_)));
        }
        for slot in 1..=3 {
            let received = next(&end).await;
            assert_eq!((received.message, received.descriptors.len()), (evicted(slot), usize::from(slot == 1)));
        }
        assert!(process.backlog().is_empty());
        process.signal(ChildSignal::Kill);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_nothing_for_too_long_is_killed() {
        let (mut child, process, end) = deaf();
        fill(&process);
        process.send(&evicted(1), &[]);
        sleep(SEND_PATIENCE - 2 * SEND_PAUSE).await;
        assert!(!process.backlog().is_empty());
        // One message that goes is a sign of life.
        end.receive().unwrap();
        process.send(&evicted(2), &[]);
        sleep(SEND_PATIENCE - 2 * SEND_PAUSE).await;
        assert!(!process.backlog().is_empty());
        sleep(4 * SEND_PAUSE).await;
        assert!(process.backlog().is_empty());
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}
