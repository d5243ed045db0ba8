//! A side: the processes of one program under measurement, from start to stop.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::cpus;
use crate::processes::{descendants, is_front};

/// A start that takes longer has failed.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A stop that takes longer ends with SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// What a program says on standard error when it is ready, in front of its address.
const READY: &str = "listening on http://";
/// Lines of standard error kept for the error message.
const LAST_WORDS: usize = 10;

/// A program and how to configure it.
#[derive(Debug)]
pub struct Side {
    /// As the table names it.
    pub name: &'static str,
    /// The program's file, beside the running one.
    pub program: &'static str,
    /// Its whole environment, from the number of workers (or threads, where it has none).
    pub env: fn(workers: u16) -> Vec<(&'static str, String)>,
}

/// Why a side did not start or could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SideError {
    /// The program did not run: build it first.
    #[error("failed to start {program:?}")]
    Spawn {
        /// The file.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ran but did not say that it listens.
    #[error("{name} did not become ready; its last words:\n{last_words}")]
    NotReady {
        /// The side.
        name: &'static str,
        /// The end of its standard error.
        last_words: String,
    },
    /// One of its processes is gone.
    #[error("cannot measure process {pid}")]
    Gone {
        /// The process.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
}

/// A side that is ready. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pids: Vec<Pid>,
    /// Those of them that forward to the others.
    fronts: Vec<Pid>,
    address: SocketAddr,
    ready_after: Duration,
}

/// CPU time so far, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Of the first process alone: the supervisor's, where there is one.
    pub first: u64,
    /// Of those that forward to the others.
    pub front: u64,
    /// Of all processes together.
    pub all: u64,
}

impl Cpu {
    /// What was used after `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self { first: self.first - earlier.first, front: self.front - earlier.front, all: self.all - earlier.all }
    }
}

impl Side {
    /// Starts the program and waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// When it cannot be executed, ends, or is not ready within 10 s.
    pub fn start(&self, workers: u16) -> Result<Running, SideError> {
        let program = std::env::current_exe().unwrap_or_default().with_file_name(self.program);
        let mut command = cpus::on_program_cpus(&program);
        command.env_clear().envs((self.env)(workers));
        // Its standard input ends with this process: a program that others run behind ends them then.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());

        let started = Instant::now();
        let mut child = command.spawn().map_err(|source| SideError::Spawn { program, source })?;
        let output = child.stderr.take().expect("standard error is piped");
        let said = listen_to(output).recv_timeout(START_TIMEOUT);
        // From here on dropping it stops the process.
        let address = ([0, 0, 0, 0], 0).into();
        let mut running = Running { child, pids: Vec::new(), fronts: Vec::new(), address, ready_after: Duration::ZERO };
        let (address, ready_at) = said
            .unwrap_or_else(|_| Err("(it said nothing)".to_owned()))
            .map_err(|last_words| SideError::NotReady { name: self.name, last_words })?;
        running.address = address;
        running.ready_after = ready_at - started;
        running.pids = descendants(running.child.id());
        running.fronts = running.pids.iter().copied().filter(|&pid| is_front(pid)).collect();
        Ok(running)
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From before its execution to its saying that it is ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// The CPU time of its processes, threads that have ended included.
    ///
    /// # Errors
    ///
    /// When one of the processes that ran at the start is gone.
    pub fn cpu(&self) -> Result<Cpu, SideError> {
        let times = self.pids.iter().map(|&pid| cpu_nanos(pid)).collect::<Result<Vec<_>, _>>()?;
        let of_fronts = self.pids.iter().zip(&times).filter(|(pid, _)| self.fronts.contains(pid));
        Ok(Cpu { first: times[0], front: of_fronts.map(|(_, time)| time).sum(), all: times.iter().sum() })
    }

    /// Resident memory in KiB: the first process's, and that of all (shared pages count in each).
    ///
    /// # Errors
    ///
    /// When one of the processes that ran at the start is gone.
    pub fn rss_kib(&self) -> Result<(u64, u64), SideError> {
        let sizes = self.pids.iter().map(|&pid| rss_kib(pid)).collect::<Result<Vec<_>, _>>()?;
        Ok((sizes[0], sizes.iter().sum()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Said = Result<(SocketAddr, Instant), String>;

/// Reads a program's standard error to its end on an own thread; reports the ready line, or what came instead of it.
fn listen_to(output: ChildStderr) -> mpsc::Receiver<Said> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut last_words = VecDeque::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(address) = ready_address(&line) {
                // Nobody listens for a second one.
                let _ = sender.send(Ok((address, Instant::now())));
            }
            last_words.truncate(LAST_WORDS - 1);
            last_words.push_front(line);
        }
        let text: Vec<String> = last_words.into_iter().rev().collect();
        let _ = sender.send(Err(text.join("\n")));
    });
    receiver
}

fn ready_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(READY)?;
    rest.split([' ', '/', ',']).next()?.parse().ok()
}

/// Read from the process's own CPU clock: unlike `/proc` it knows what a running thread has used up to now.
fn cpu_nanos(pid: Pid) -> Result<u64, SideError> {
    let gone = |error: nix::Error| SideError::Gone { pid: pid.as_raw(), source: error.into() };
    let time = clock_getcpuclockid(pid).map_err(gone)?.now().map_err(gone)?;
    Ok(Duration::from(time).as_nanos() as u64)
}

fn rss_kib(pid: Pid) -> Result<u64, SideError> {
    let gone = |source| SideError::Gone { pid: pid.as_raw(), source };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(gone)?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    size.ok_or_else(|| gone(io::Error::other("it has ended")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_the_address() {
        let line = "listening on http://127.0.0.1:5000 (4 workers, kernel dispatch: affinity is the client address)";
        assert_eq!(ready_address(line), Some(([127, 0, 0, 1], 5000).into()));
        assert_eq!(ready_address("listening on http://[::1]:80/"), Some(([0, 0, 0, 0, 0, 0, 0, 1], 80).into()));
        assert_eq!(ready_address("listening on unix:/tmp/x"), None);
    }

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let me = Pid::this();
        assert!(cpu_nanos(me).unwrap() > 0);
        assert!(rss_kib(me).unwrap() > 100);
    }
}
