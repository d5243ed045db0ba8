//! Real balancers in front of a cluster: nginx and HAProxy, from the system's packages.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::launch::NOBODY;
use crate::process::{self, Signal};
use crate::{Client, EventLog};

/// A running balancer. Dropping it ends it.
pub struct Front {
    child: Child,
    address: SocketAddr,
    events: EventLog,
}

impl Front {
    /// nginx with this in its `http` section, which says `listen LISTEN;` where it is to listen.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn nginx(folder: &Path, http: &str) -> Self {
        let (listener, address) = listen();
        let folder = private(folder, "nginx");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
            .concat();
        let http = http.replace("LISTEN", &address.to_string());
        let config = format!(
            "daemon off; worker_processes 1; pid {}/pid; error_log stderr warn;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; {temporary} {http} }}\n",
            folder.display()
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, config).expect("its configuration");
        // It takes the listener for one that its predecessor has left it.
        let mut command = on_descriptor_three("NGINX='3;' exec nginx -e stderr -c \"$1\" 3<&0 0</dev/null", &path);
        command.stdin(Stdio::from(listener));
        Self::start(command, address)
    }

    /// HAProxy with this configuration, which says `bind fd@3` where it is to listen.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn haproxy(folder: &Path, config: &str) -> Self {
        let (listener, address) = listen();
        let path = private(folder, "haproxy").join("haproxy.cfg");
        fs::write(&path, config).expect("its configuration");
        let mut command = on_descriptor_three("exec haproxy -q -db -f \"$1\" 3<&0 0</dev/null", &path);
        command.stdin(Stdio::from(listener));
        Self::start(command, address)
    }

    fn start(mut command: Command, address: SocketAddr) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let events = EventLog::default();
        events.follow(child.stdout.take().expect("its output"));
        events.follow(child.stderr.take().expect("its output"));
        Self { child, address, events }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of this balancer. It may connect at once: the balancer's listener exists before the balancer runs.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// What it prints.
    pub fn events(&self) -> &EventLog {
        &self.events
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what the balancer printed:\n{}", self.events);
        }
        // Killed at once, nginx would leave its worker behind.
        process::signal(self.child.id(), Signal::TERM);
        if !process::holds_within(Duration::from_secs(5), || matches!(self.child.try_wait(), Ok(Some(_)))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A listener on a free port, for a program that could not find one by itself.
fn listen() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener.into(), address)
}

/// A folder in which the balancer may write.
fn private(folder: &Path, name: &str) -> PathBuf {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).expect("a folder for the balancer");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("readable");
    if rustix::process::geteuid().is_root() {
        chown(&folder, Some(NOBODY), Some(NOBODY)).expect("a folder of its own");
    }
    folder
}

/// A shell that executes `script` with the configuration's path, without privileges.
fn on_descriptor_three(script: &str, config: &Path) -> Command {
    let mut words = Vec::new();
    if rustix::process::geteuid().is_root() {
        words.extend(["setpriv".to_owned(), format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
        words.extend(["--clear-groups".to_owned(), "--".to_owned()]);
    }
    words.extend(["bash", "-c", script, "bash"].map(str::to_owned));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(config);
    // Where Debian puts programs like these is not on every user's path.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    command
}
