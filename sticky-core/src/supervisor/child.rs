//! One process of the cluster, seen from the supervisor: starting it, and hearing what becomes of it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;

use super::event::{ChildId, ChildSignal, Ended, Event};
use super::output::{Output, Pump};
use crate::config::Config;
use crate::control::{self, Channel, FromWorker, Hello, ToWorker};
use crate::id::WorkerId;
use crate::role::{CONTROL_VARIABLE, Marker};
use crate::sys::{exec, watch};

/// The supervisor's end of a control socket.
type Control<'a> = Channel<ToWorker, FromWorker, BorrowedFd<'a>>;

/// What comes in from a child.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Something that is decided on.
    Event(Event),
    /// Its greeting, which wants an answer.
    Hello { child: ChildId, hello: Hello },
}

/// Starts processes from the image that is running now, whatever has become of the file since.
#[derive(Debug)]
pub(super) struct Launcher {
    image: OwnedFd,
    called: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Launcher {
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        let image = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mut arguments = std::env::args_os();
        let called = arguments.next().unwrap_or_else(|| "sticky".into());
        let mut environment = config.env.clone();
        const THREADS: &str = "TOKIO_WORKER_THREADS";
        if std::env::var_os(THREADS).is_none() {
            environment.insert(0, (THREADS.into(), config.threads_per_worker.to_string().into()));
        }
        Ok(Self {
            image,
            called,
            arguments: arguments.collect(),
            environment,
        })
    }

    /// Starts the program as a worker in this slot.
    pub(super) fn launch(&self, worker: WorkerId, output: &Output) -> io::Result<Launched> {
        let (ours, theirs) = control::pair()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let (stdout, stderr, pump) = output.stdio(worker)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.image.as_raw_fd()));
        let mut command = Command::new(path);
        command
            .arg0(&self.called)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
            .env(CONTROL_VARIABLE, marker(&theirs, worker)?.to_string())
            .env("STICKY_WORKER_ID", worker.to_string());
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // A group of its own: Ctrl-C in a terminal reaches the supervisor, which drains the workers.
        command.process_group(0);
        exec::inherit(&mut command, theirs.as_fd());
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let (control, pidfd) = (watch::readable(ours)?, watch::readable(pidfd)?);
        Ok(Launched {
            process: Arc::new(Process { pid, pidfd, control }),
            pump,
        })
    }
}

fn marker(socket: &OwnedFd, worker: WorkerId) -> io::Result<Marker> {
    let inode = rustix::fs::fstat(socket)?.st_ino;
    Ok(Marker {
        fd: socket.as_raw_fd(),
        inode,
        parent: std::process::id(),
        worker,
    })
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
}

impl Process {
    fn control(&self) -> Control<'_> {
        Control::new(self.control.get_ref().as_fd())
    }

    /// Sends a message. A process that does not take it is of no use any more and is killed: what becomes of it
    /// then comes in as any other end.
    pub(super) fn send(&self, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) {
        match self.control().send(message, descriptors) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                crate::notice::error(format_args!(
                    "process {} does not take messages: {error}; killing it",
                    self.pid
                ));
                self.signal(ChildSignal::Kill);
            }
        }
    }

    /// Signals the process; nothing happens if it is gone.
    pub(super) fn signal(&self, signal: ChildSignal) {
        let signal = match signal {
            ChildSignal::Terminate => Signal::TERM,
            ChildSignal::Abort => Signal::ABORT,
            ChildSignal::Kill => Signal::KILL,
        };
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// Whether it was suspended or goes on since the last call.
    pub(super) fn suspension(&self, child: ChildId) -> Option<Event> {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options).ok()??;
        let event = if status.stopped() {
            Event::Stopped { child }
        } else {
            Event::Continued { child }
        };
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
        let mut talking = true;
        loop {
            tokio::select! {
                ready = self.control.readable(), if talking => {
                    let Ok(mut ready) = ready else { break };
                    talking = self.read(child, &events);
                    ready.clear_ready();
                }
                _ = self.pidfd.readable() => break,
            }
        }
        // What it said before it ended comes first.
        if talking {
            self.read(child, &events);
        }
        let _ = events.send(Incoming::Event(Event::Exited {
            child,
            how: self.reap(),
        }));
    }

    /// Reads all there is; false when nothing more will come.
    fn read(&self, child: ChildId, events: &UnboundedSender<Incoming>) -> bool {
        loop {
            let incoming = match self.control().receive() {
                Ok(Some(received)) => incoming(child, received.message),
                Ok(None) => return false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    crate::notice::warn(format_args!("process {} talks nonsense: {error}; killing it", self.pid));
                    self.signal(ChildSignal::Kill);
                    return false;
                }
            };
            if let Some(incoming) = incoming {
                let _ = events.send(incoming);
            }
        }
    }

    fn reap(&self) -> Ended {
        let id = WaitId::PidFd(self.pidfd.get_ref().as_fd());
        let status = rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), WaitIdOptions::EXITED));
        let Ok(Some(status)) = status else {
            return Ended::Unknown;
        };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Code(code),
            (None, Some(signal)) => Ended::Signal(signal),
            (None, None) => Ended::Unknown,
        }
    }
}

fn incoming(child: ChildId, message: FromWorker) -> Option<Incoming> {
    let event = match message {
        FromWorker::Hello(hello) => return Some(Incoming::Hello { child, hello }),
        FromWorker::Ready { adopts } => Event::Ready { child, adopts },
        FromWorker::Released { slot } => Event::Released { child, slot },
        FromWorker::Drained(report) => Event::Drained { child, report },
        FromWorker::Words { text } => Event::Words { child, text },
        FromWorker::Unknown => return None,
    };
    Some(Incoming::Event(event))
}
