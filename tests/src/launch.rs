//! How a testbed is started: its settings, its private folder, its marker in the environment.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{TestCluster, admin, journal, process, pty};

/// Variables that would reach into a testbed from outside; each row sets its own.
const SETTINGS: [&str; 6] = ["PORT", "PROXY_PORT", "FIRST_PORT", "WORKERS", "WEB_CONCURRENCY", "NO_COLOR"];

/// The user and group without privileges, as Debian numbers them.
pub(crate) const NOBODY: u32 = 65_534;

/// The variable by which every process of a cluster is found again, however it lost its parents.
const MARKER: &str = "TESTBED_CLUSTER";

/// The name of the program in its private folder.
pub(crate) const PROGRAM: &str = "program";

/// Copies a program so that it can be executed.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    // By a process of its own: a descriptor of ours that writes it could be in what another thread starts just now, and
    // then the copy could not be executed.
    let status = Command::new("cp").arg(from).arg(to).status().expect("coreutils");
    assert!(status.success(), "no copy of the program");
}

/// A testbed about to be started, by default on a free port of 127.0.0.1 with 2 workers.
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    settings: Vec<(OsString, OsString)>,
    wrapper: Vec<String>,
    pid_one: bool,
    /// Passed to the program as a service manager would.
    passed: Option<OwnedFd>,
    /// By systemd-socket-activate: where it listens, and how it calls that.
    activated: Vec<(String, String)>,
    marker: String,
    folder: PathBuf,
}

impl Launch {
    /// The given program with the default settings.
    ///
    /// # Panics
    /// When its private folder cannot be made.
    pub fn new(program: impl AsRef<Path>) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(format!("sticky-test-{name}"));
        fs::create_dir_all(folder.join("tmp")).expect("a folder for this cluster");
        let launch = Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            settings: Vec::new(),
            wrapper: Vec::new(),
            pid_one: false,
            passed: None,
            activated: Vec::new(),
            marker: format!("{MARKER}={name}"),
            folder,
        };
        launch.env(MARKER, name).listen("127.0.0.1:0").workers(2)
    }

    /// One more argument of the program.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Sets an environment variable; the last value counts.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self = self.without(name.as_ref());
        self.settings.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Takes a variable away again, also one of the defaults.
    #[must_use]
    pub fn without(mut self, name: impl AsRef<OsStr>) -> Self {
        self.settings.retain(|(known, _)| known != name.as_ref());
        self
    }

    /// `STICKY_WORKERS`.
    #[must_use]
    pub fn workers(self, count: u16) -> Self {
        self.env("STICKY_WORKERS", count.to_string())
    }

    /// `STICKY_LISTEN`.
    #[must_use]
    pub fn listen(self, address: impl AsRef<OsStr>) -> Self {
        self.env("STICKY_LISTEN", address)
    }

    /// Has an admin process, on a socket of its own.
    #[must_use]
    pub fn with_admin(self) -> Self {
        let path = admin::path_in(&self.folder);
        self.env("STICKY_ADMIN", format!("unix:{}", path.display()))
    }

    /// Runs the testbed as process 1 of a pid namespace of its own.
    #[must_use]
    pub fn as_process_one(mut self) -> Self {
        self.pid_one = true;
        self.through("unshare --pid --fork --mount-proc --kill-child --")
    }

    /// Passes this socket to the testbed, as a service manager does.
    #[must_use]
    pub fn passed(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.passed = Some(socket.into());
        let protocol =
            "exec 3<&0 0</dev/null; export LISTEN_PID=${LISTEN_PID-$$} LISTEN_FDS=${LISTEN_FDS-1}; exec \"$@\"";
        self.wrapper.extend(["bash", "-c", protocol, "bash"].map(str::to_owned));
        self
    }

    /// Has systemd-socket-activate start the testbed at the first connection to one of its sockets, each of which has a name.
    #[must_use]
    pub fn activated(mut self, name: &str, address: impl Into<String>) -> Self {
        self.activated.push((name.to_owned(), address.into()));
        self
    }

    /// Runs the testbed on this CPU alone.
    #[must_use]
    pub fn on_cpu(self, cpu: usize) -> Self {
        self.through(&format!("taskset --cpu-list {cpu}"))
    }

    /// Runs the testbed in the cgroup whose folder this is.
    #[must_use]
    pub fn in_cgroup(mut self, folder: &Path) -> Self {
        let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", folder.display());
        self.wrapper.extend(["bash", "-c", &enter, "bash"].map(str::to_owned));
        self
    }

    /// Runs the testbed with at most that many descriptors in each process.
    #[must_use]
    pub fn with_descriptors(self, most: u32) -> Self {
        self.through(&format!("prlimit --nofile={most}:{most}"))
    }

    /// Runs the testbed with the three standard descriptors alone, whatever this process was given.
    #[must_use]
    pub fn with_standard_descriptors_only(mut self) -> Self {
        let more = process::descriptors(std::process::id()).into_iter().filter(|(number, _)| *number > 2);
        let close: String = more.map(|(number, _)| format!(" {number}>&-")).collect();
        self.wrapper = ["bash", "-c", &format!("exec{close}; exec \"$@\""), "bash"].map(str::to_owned).to_vec();
        self
    }

    /// Runs the testbed as a user without privileges, where this one has any.
    ///
    /// # Panics
    /// When the program cannot be copied to where that user may execute it.
    #[must_use]
    pub fn unprivileged(self) -> Self {
        if !rustix::process::geteuid().is_root() {
            return self;
        }
        let (user, group) = (Some(NOBODY), Some(NOBODY));
        std::os::unix::fs::chown(self.folder.join("tmp"), user, group).expect("a folder of its own");
        self.copied().through(&format!("setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --"))
    }

    /// Keeps a journal of the requests that are begun, in this file of its private folder.
    ///
    /// # Panics
    /// When the file cannot be made.
    #[must_use]
    pub fn with_journal(self) -> (Self, PathBuf) {
        let path = self.folder.join("journal");
        fs::write(&path, "").expect("an empty journal");
        // For workers without privileges too.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("writable by all");
        (self.env(journal::VARIABLE, &path), path)
    }

    /// Runs a copy of the program in its private folder.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn copied(mut self) -> Self {
        let copy = self.folder.join(PROGRAM);
        copy_program(&self.program, &copy);
        self.program = copy;
        self
    }

    /// Runs the testbed by another command that executes it in its own place, inside those named before.
    fn through(mut self, command: &str) -> Self {
        self.wrapper.extend(command.split(' ').map(str::to_owned));
        self
    }

    /// This launch's private folder, removed at its end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the testbed; does not wait for anything.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(mut self) -> TestCluster {
        let stdin = self.passed.take().map_or_else(Stdio::null, Stdio::from);
        let mut command = self.command();
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        TestCluster::spawn(command, self.marker, self.folder, self.pid_one)
    }

    /// Starts the testbed and waits until it says that it listens.
    ///
    /// # Panics
    /// With everything it printed, when it does not.
    pub fn up(self) -> TestCluster {
        let cluster = self.start();
        cluster.wait_until_up();
        cluster
    }

    /// Starts the testbed on a new terminal, as the leader of its session; answers the cluster and the terminal's
    /// other side. Waits for nothing.
    ///
    /// # Panics
    /// When no terminal can be had.
    pub fn on_terminal(self) -> (TestCluster, OwnedFd) {
        let (ours, theirs) = pty::open().expect("a pseudo terminal");
        // setsid keeps the pid here: it forks only when it already leads a group.
        let launch = self.through("setsid --ctty");
        let mut command = launch.command();
        let again = || theirs.try_clone().expect("a copy of the terminal");
        command.stdin(again()).stdout(again()).stderr(again());
        let cluster = TestCluster::spawn(command, launch.marker, launch.folder, false);
        cluster.events().follow(pty::reader(&ours).expect("a copy of the terminal"));
        (cluster, ours)
    }

    /// The command that waits for the first connection. It keeps the environment to itself but for what it is told to pass on.
    fn activation(&self) -> Vec<String> {
        if self.activated.is_empty() {
            return Vec::new();
        }
        let (names, addresses): (Vec<_>, Vec<_>) = self.activated.iter().cloned().unzip();
        let mut words = vec!["systemd-socket-activate".to_owned(), format!("--fdname={}", names.join(":"))];
        words.extend(addresses.into_iter().map(|address| format!("--listen={address}")));
        let settings = self.settings.iter().map(|(name, _)| name.to_string_lossy().into_owned());
        let all = settings.chain(["TMPDIR", "RUST_BACKTRACE"].map(str::to_owned));
        words.extend(all.map(|name| format!("--setenv={name}")));
        words
    }

    fn command(&self) -> Command {
        let wrapper = self.wrapper.iter().cloned().chain(self.activation()).map(OsString::from);
        let mut words = wrapper.chain([self.program.clone().into_os_string()]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words).args(&self.arguments);
        let inherited = env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_str().is_some_and(|name| name.starts_with("STICKY_"))) {
            command.env_remove(name);
        }
        for name in SETTINGS {
            command.env_remove(name);
        }
        command.env("TMPDIR", self.folder.join("tmp")).env("RUST_BACKTRACE", "0");
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }
}
