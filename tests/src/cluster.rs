//! A testbed that runs as a real cluster: one supervisor and its workers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use crate::process::{self, Signal, eventually, holds_within};
use crate::{Client, EventLog, launch};

/// How long a debug build on a busy machine may take to start or to end before a row fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running testbed. Dropping it kills what is left of it and removes its folder.
pub struct TestCluster {
    child: RefCell<Child>,
    pid_one: bool,
    events: EventLog,
    marker: String,
    folder: PathBuf,
}

impl TestCluster {
    pub(crate) fn spawn(mut command: Command, marker: String, folder: PathBuf, pid_one: bool) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let events = EventLog::default();
        if let Some(stream) = child.stdout.take() {
            events.follow(stream);
        }
        if let Some(stream) = child.stderr.take() {
            events.follow(stream);
        }
        Self { child: RefCell::new(child), pid_one, events, marker, folder }
    }

    /// What its processes print.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// This cluster's private folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for the line that says where it listens.
    ///
    /// # Panics
    /// With everything it printed, when it ended or did not say so in time.
    pub fn wait_until_up(&self) {
        let up = || self.events.count("listening on ") > 0;
        holds_within(PATIENCE, || up() || self.has_exited());
        // The process may have ended with the line still in its pipe; expect() waits for it and reports.
        self.events.expect("listening on ", Duration::from_secs(1));
    }

    /// The address it listens on, from its line `listening on http://ADDR (…`; the first of several.
    ///
    /// # Panics
    /// When it has not said so yet.
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// All TCP addresses it says it listens on.
    ///
    /// # Panics
    /// When it has named none.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let lines = self.events.all();
        let up = lines.iter().filter(|line| line.contains("listening on "));
        let found: Vec<SocketAddr> = up
            .flat_map(|line| line.split("http://").skip(1))
            .filter_map(|rest| rest.split([' ', ',']).next()?.parse().ok())
            .collect();
        assert!(!found.is_empty(), "it named no address:\n{}", self.events);
        found
    }

    /// A client of its (first) address.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// The supervisor's pid.
    ///
    /// # Panics
    /// When the testbed runs inside a pid namespace and is not there (yet).
    pub fn supervisor(&self) -> u32 {
        let started = self.child.borrow().id();
        if !self.pid_one {
            return started;
        }
        *process::children(started).first().expect("a process 1 in the namespace")
    }

    /// The running workers.
    pub fn workers(&self) -> Vec<u32> {
        let mut workers = process::children(self.supervisor());
        workers.retain(|&pid| process::is_alive(pid) && !process::is_proxy(pid) && !process::is_admin(pid));
        workers
    }

    /// The running admin process, if there is one.
    pub fn admin(&self) -> Option<u32> {
        process::children(self.supervisor()).into_iter().find(|&pid| process::is_alive(pid) && process::is_admin(pid))
    }

    /// The running proxies.
    pub fn proxies(&self) -> Vec<u32> {
        let mut proxies = process::children(self.supervisor());
        proxies.retain(|&pid| process::is_alive(pid) && process::is_proxy(pid));
        proxies
    }

    /// Every process of this cluster that still runs.
    pub fn family(&self) -> Vec<u32> {
        process::with_environment(&self.marker)
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.supervisor(), signal);
    }

    /// Puts another program where this one was started from, as deploys do it: there is always one of the two. For one
    /// that runs from [its private folder](crate::Launch::copied).
    ///
    /// # Panics
    /// When it cannot be put there.
    pub fn deploy(&self, program: impl AsRef<Path>) {
        let new = self.folder.join("program.new");
        launch::copy_program(program.as_ref(), &new);
        fs::rename(new, self.folder.join(launch::PROGRAM)).expect("the program replaced");
    }

    /// HUP, and waits until every worker has been replaced.
    ///
    /// # Panics
    /// With everything it printed, when that does not happen.
    pub fn reload(&self) {
        let before = self.events.count("sticky: reloaded ");
        self.signal(Signal::HUP);
        self.events.expect_nth(before + 1, "sticky: reloaded ", PATIENCE);
    }

    /// USR2, and waits until the supervisor has replaced itself.
    ///
    /// # Panics
    /// With everything it printed, when that does not happen.
    pub fn reexec(&self) {
        let before = self.events.count("sticky: reexecuted");
        self.signal(Signal::USR2);
        self.events.expect_nth(before + 1, "sticky: reexecuted", PATIENCE);
    }

    /// TTIN or TTOU so many times, and waits until there are that many workers.
    ///
    /// # Panics
    /// With everything it printed, when that does not happen.
    pub fn scale(&self, signal: Signal, times: usize, workers: u16) {
        let done = format!("sticky: scaled to {workers} worker");
        let before = self.events.count(&done);
        for _ in 0..times {
            // Two that come at once are one.
            let heard = self.events.count("sticky: scaling ");
            self.signal(signal);
            self.events.expect_nth(heard + 1, "sticky: scaling ", PATIENCE);
        }
        self.events.expect_nth(before + 1, &done, PATIENCE);
    }

    fn has_exited(&self) -> bool {
        matches!(self.child.borrow_mut().try_wait(), Ok(Some(_)))
    }

    /// Waits for the supervisor's end.
    ///
    /// # Panics
    /// When it has not ended within that time.
    pub fn exit(&self, within: Duration) -> ExitStatus {
        let ended = holds_within(within, || self.has_exited());
        assert!(ended, "the supervisor did not end within {within:?}:\n{}", self.events);
        self.child.borrow_mut().wait().expect("its status")
    }

    /// Waits until no process of this cluster is left, and all that they printed has been read.
    ///
    /// # Panics
    /// When one still runs after that time.
    pub fn gone(&self, within: Duration) {
        eventually("no process of the cluster is left", within, || self.has_exited() && self.family().is_empty());
        // A reader may be behind. What the application started may hold the output open for ever, so no longer than this.
        holds_within(Duration::from_secs(2), || self.events.has_ended());
    }

    /// TERM, then a clean end: status 0, no process left, nothing left in its temporary folder.
    ///
    /// # Panics
    /// When any of it does not hold.
    pub fn stop(&self) {
        self.signal(Signal::TERM);
        let status = self.exit(PATIENCE);
        assert!(status.success(), "ended with {status}:\n{}", self.events);
        self.gone(Duration::from_secs(2));
        let left = fs::read_dir(self.folder.join("tmp")).expect("its folder").count();
        assert_eq!(left, 0, "files left in the temporary folder");
    }

    /// The pid in each slot, asked from many addresses of 127/8 until all `workers` have answered.
    ///
    /// # Panics
    /// When a slot answers nobody.
    pub fn pids(&self, workers: u16) -> BTreeMap<u16, u32> {
        let mut found = BTreeMap::new();
        for address in Client::loopback_addresses(2_000) {
            let answer = self.client().from(address).get("/").expect("an answer");
            found.insert(answer.worker(), answer.pid());
            if found.len() == usize::from(workers) {
                return found;
            }
        }
        panic!("only these slots answer: {found:?}");
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what the cluster printed:\n{}", self.events);
        }
        // A supervisor that is killed between two looks may have started one more, so look until none is found.
        holds_within(Duration::from_secs(5), || {
            let family = self.family();
            family.iter().for_each(|&pid| process::signal(pid, Signal::KILL));
            family.is_empty()
        });
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
