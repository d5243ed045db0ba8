//! A rival's processes, from the first one's start to the last one's end.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::FrontError;
use super::config::{Settings, socket};
use crate::processes::descendants;

/// Everything has to be ready by then; less than what a side waits for its program.
const START_TIMEOUT: Duration = Duration::from_secs(8);
/// After it they are killed; less than what a side waits before it kills the one who would.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How often something is looked at that nobody reports.
const POLL: Duration = Duration::from_millis(5);

/// The scripts of the rivals that run in Node, with their packages.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/node");

/// A front and its programs. Dropping it ends them, and removes their files.
#[derive(Debug)]
pub struct Group {
    /// The front last.
    children: Vec<Running>,
    folder: PathBuf,
    address: SocketAddr,
}

#[derive(Debug)]
struct Running {
    program: PathBuf,
    child: Child,
}

impl Group {
    /// Starts all of them, and returns when the front has answered a request.
    ///
    /// # Errors
    ///
    /// What could not be made or executed, has ended, or was not ready within 8 s.
    pub fn start(settings: &Settings) -> Result<Self, FrontError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let folder = std::env::temp_dir().join(format!("bench-front-{}", std::process::id()));
        prepared(&folder, fs::create_dir(&folder))?;
        // From here on dropping it ends what has been started.
        let mut group = Self { children: Vec::new(), folder, address: ([0, 0, 0, 0], 0).into() };
        if settings.front.has_programs() {
            group.start_programs(settings.workers, deadline)?;
        }
        group.start_front(settings)?;
        group.wait_for_processes(settings.processes(), deadline)?;
        group.wait_for_answer(deadline)?;
        Ok(group)
    }

    /// Where the front listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One plain program with one thread for each worker, each on a unix socket.
    fn start_programs(&mut self, workers: u16, deadline: Instant) -> Result<(), FrontError> {
        let program = own_folder().join("bench-plain");
        for worker in 0..workers {
            let mut command = Command::new(&program);
            command.env_clear().env("BENCH_THREADS", "1").env("BENCH_SOCKET", self.folder.join(socket(worker)));
            command.env("STICKY_WORKER_ID", worker.to_string()).stdin(Stdio::null());
            self.spawn(&program, command)?;
        }
        for worker in 0..workers {
            let path = self.folder.join(socket(worker));
            self.wait(deadline, &format!("a program on {}", path.display()), || UnixStream::connect(&path).is_ok())?;
        }
        Ok(())
    }

    /// The front inherits the public socket, so that no port has to be guessed and nothing is refused before it is ready.
    fn start_front(&mut self, settings: &Settings) -> Result<(), FrontError> {
        let public = PathBuf::from("127.0.0.1:0");
        let listener = prepared(&public, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        self.address = prepared(&public, listener.local_addr())?;
        prepared(&public, fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from))?;
        let descriptor = listener.as_raw_fd();

        if let Some(text) = settings.config(&self.folder, descriptor, self.address.port()) {
            let file = settings.front.config_file(&self.folder);
            prepared(&file, fs::write(&file, text))?;
        }
        let line = settings.front.command(&self.folder, Path::new(SCRIPTS), &own_folder());
        let mut command = Command::new(&line.program);
        command.stdin(match settings.front.is_ours() {
            true => Stdio::from(OwnedFd::from(prepared(&public, listener.try_clone())?)),
            false => Stdio::null(),
        });
        command.args(line.arguments).env_clear().env("PATH", search_path());
        command.env("BENCH_WORKERS", settings.workers.to_string()).env("BENCH_LISTENER", descriptor.to_string());
        // How nginx is told about a socket that it inherits; it finds out which address that is.
        command.env("NGINX", format!("{descriptor};"));
        self.spawn(&line.program, command)
    }

    fn spawn(&mut self, program: &Path, mut command: Command) -> Result<(), FrontError> {
        let program = program.to_owned();
        match command.stdout(Stdio::null()).spawn() {
            Ok(child) => self.children.push(Running { program, child }),
            Err(source) => return Err(FrontError::Spawn { program, source }),
        }
        Ok(())
    }

    /// The measurement takes the processes that are there when the group is ready: none may come later.
    fn wait_for_processes(&mut self, count: usize, deadline: Instant) -> Result<(), FrontError> {
        let front = self.children.last().map_or(0, |front| front.child.id());
        self.wait(deadline, &format!("{count} processes of the front"), || descendants(front).len() == count)
    }

    fn wait_for_answer(&mut self, deadline: Instant) -> Result<(), FrontError> {
        let address = self.address;
        self.wait(deadline, "an answer from the front", || answers(address, deadline).unwrap_or(false))
    }

    fn wait(&mut self, deadline: Instant, what: &str, is_so: impl Fn() -> bool) -> Result<(), FrontError> {
        loop {
            for running in &mut self.children {
                if !matches!(running.child.try_wait(), Ok(None)) {
                    return Err(FrontError::Ended { program: running.program.clone() });
                }
            }
            if is_so() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(FrontError::NotReady { what: what.to_owned() });
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The front first: its programs should not seem to fail.
        for running in self.children.iter_mut().rev() {
            end(&mut running.child);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Ends a process and those that it has started.
fn end(child: &mut Child) {
    let all = descendants(child.id());
    let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(POLL);
    }
    for pid in all {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let _ = child.wait();
}

fn answers(address: SocketAddr, deadline: Instant) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    // Zero would mean for ever.
    stream.set_read_timeout(Some(deadline.saturating_duration_since(Instant::now()).max(POLL)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(&status == b"HTTP/1.1 200")
}

fn prepared<T>(path: &Path, result: io::Result<T>) -> Result<T, FrontError> {
    result.map_err(|source| FrontError::Prepare { path: path.to_owned(), source })
}

/// Where our own programs are.
fn own_folder() -> PathBuf {
    let mut program = std::env::current_exe().unwrap_or_default();
    program.pop();
    program
}

/// Servers are installed where an ordinary user's `PATH` does not look.
fn search_path() -> String {
    let given = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    format!("{given}:/usr/local/sbin:/usr/sbin:/sbin")
}
