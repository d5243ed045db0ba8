//! What a service manager (systemd) is told of the cluster, as sd_notify(3) describes it: that it is up, that it reloads and when that
//! is over, that it ends, a line about how it is, and that the supervisor is alive.
//!
//! ```text
//! notes, counts ─► Manager: words ─► queue ─► datagram socket that NOTIFY_SOCKET names
//! clock ─────────►    └ WATCHDOG=1 twice in WATCHDOG_USEC
//! ```
//!
//! The watchdog is fed as long as the supervisor's loop turns: workers that hang are the supervisor's business, which replaces them one by
//! one, while the service manager would end all of them.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use super::event::Note;
use super::state::State;
use crate::admin::{ClusterState, ClusterView, ReloadStatus, SlotKind, SlotState};
use crate::notice;

/// The variables by which a service manager says that it wants to be told something. Not for programs that this one starts.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// How long until what the manager did not take is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// How many messages wait for it.
const MOST: usize = 64;

/// How much longer than what is waited for the manager should wait.
const MARGIN: Duration = Duration::from_secs(5);

/// Who is told, if anybody.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<UnixDatagram>,
    queue: VecDeque<String>,
    retry_at: Option<Instant>,
    watchdog: Option<Watchdog>,
    status: String,
    /// Why the latest reload has stopped.
    failure: Option<String>,
    is_stopping: bool,
    bounds: Bounds,
}

/// How long things may take, at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) start: Duration,
    pub(crate) reload: Duration,
    pub(crate) end: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Watchdog {
    period: Duration,
    due: Instant,
}

impl Manager {
    /// The one that the environment names; nobody without one.
    pub(crate) fn of_environment(bounds: Bounds, now: Instant) -> Self {
        let [socket, period, pid] = VARIABLES.map(std::env::var_os);
        let socket = socket.and_then(|name| {
            let opened = open(&name);
            opened
                .inspect_err(|error| notice::warn(format_args!("NOTIFY_SOCKET={name:?} cannot be used: {error}")))
                .ok()
        });
        let period = socket.as_ref().and_then(|_| watchdog(std::process::id(), period, pid));
        let mut manager = Self::new(socket, period.map(|period| Watchdog { period, due: now + period }), bounds);
        manager.extend(bounds.start);
        manager
    }

    fn new(socket: Option<UnixDatagram>, watchdog: Option<Watchdog>, bounds: Bounds) -> Self {
        let queue = VecDeque::new();
        let (status, failure) = (String::new(), None);
        Self { socket, queue, retry_at: None, watchdog, status, failure, is_stopping: false, bounds }
    }

    /// When to call [`work`](Self::work) although nothing has happened.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.retry_at.into_iter().chain(self.watchdog.map(|watchdog| watchdog.due)).min()
    }

    /// Shows that this process is alive, and says what the manager has not taken before.
    pub(crate) fn work(&mut self, now: Instant) {
        if let Some(watchdog) = &mut self.watchdog
            && watchdog.due <= now
        {
            watchdog.due = now + watchdog.period;
            self.say("WATCHDOG=1".to_owned());
        }
        self.send(now);
    }

    /// Passes on what concerns it of what the user is told.
    pub(super) fn heard(&mut self, note: &Note) {
        match note {
            Note::Up => self.ready(),
            Note::Reloading { .. } => {
                self.failure = None;
                self.say(format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
                self.extend(self.bounds.reload);
            }
            Note::ReloadStopped { why, .. } => {
                self.failure = Some(why.clone());
                self.ready();
            }
            Note::Reloaded { .. } => self.ready(),
            Note::ShuttingDown { .. } | Note::StoppingNow => self.stopping(),
            _ => {}
        }
    }

    /// Says that it is up.
    pub(crate) fn ready(&mut self) {
        self.say("READY=1".to_owned());
    }

    /// Says that it ends.
    pub(crate) fn stopping(&mut self) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            self.say("STOPPING=1".to_owned());
            self.extend(self.bounds.end);
        }
    }

    /// Says how the cluster is, where that has changed.
    pub(super) fn look(&mut self, state: &State, now: Instant) {
        if self.socket.is_none() {
            return;
        }
        let ClusterView { state: cluster, reload, .. } = state.cluster_view();
        let status = self.words(cluster, reload, &workers(state));
        if status != self.status {
            self.say(format!("STATUS={status}"));
            self.status = status;
        }
        self.send(now);
    }

    fn words(&self, state: ClusterState, reload: Option<ReloadStatus>, workers: &Workers) -> String {
        let Workers { ready, all } = workers;
        let up = format!("{ready} of {all} workers are up");
        match (state, reload) {
            (ClusterState::Starting, _) => format!("starting: {up}"),
            (ClusterState::ShuttingDown | ClusterState::Stopping, _) => "shutting down".to_owned(),
            (_, Some(ReloadStatus { done, of })) => format!("reloading: {done} of {of} are replaced; {up}"),
            (_, None) => match &self.failure {
                Some(why) => format!("{up}; the latest reload has stopped: {}", why.replace('\n', " ")),
                None => up,
            },
        }
    }

    /// Has the manager wait for so long at least.
    fn extend(&mut self, time: Duration) {
        self.say(format!("EXTEND_TIMEOUT_USEC={}", (time + MARGIN).as_micros()));
    }

    /// In the order in which it is said.
    fn say(&mut self, message: String) {
        if self.socket.is_some() && self.queue.len() < MOST {
            self.queue.push_back(message);
        }
    }

    /// Sends what the manager takes now.
    fn send(&mut self, now: Instant) {
        let Some(socket) = &self.socket else { return };
        self.retry_at = None;
        while let Some(message) = self.queue.front() {
            match socket.send(message.as_bytes()) {
                Ok(_) => drop(self.queue.pop_front()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    self.retry_at = Some(now + PAUSE);
                    return;
                }
                Err(error) => {
                    notice::warn(format_args!("the service manager does not hear what it is told: {error}"));
                    self.socket = None;
                    return;
                }
            }
        }
    }

    /// Has what was said last come out.
    pub(super) fn finish(&mut self) {
        self.stopping();
        self.send(Instant::now());
    }
}

/// How many workers are ready, of how many.
struct Workers {
    ready: usize,
    all: usize,
}

fn workers(state: &State) -> Workers {
    let sights = state.slot_sights().filter(|sight| sight.kind == SlotKind::Worker);
    let (ready, all) =
        sights.fold((0, 0), |(ready, all), sight| (ready + usize::from(sight.state == SlotState::Ready), all + 1));
    Workers { ready, all }
}

/// A socket that is connected to this name: a path, or an abstract one after `@`.
fn open(name: &OsStr) -> io::Result<UnixDatagram> {
    let bytes = name.as_bytes();
    let address = match bytes.split_first() {
        Some((b'@', abstracted)) => SocketAddr::from_abstract_name(abstracted)?,
        Some((b'/', _)) => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name after `@`")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How often the manager wants to hear of us: twice in its own time. None if it wants another process to.
fn watchdog(me: u32, microseconds: Option<OsString>, pid: Option<OsString>) -> Option<Duration> {
    let read = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let is_meant = pid.is_none_or(|pid| read(pid) == Some(u64::from(me)));
    let microseconds = microseconds.and_then(read).filter(|time| *time > 1 && is_meant)?;
    Some(Duration::from_micros(microseconds / 2))
}

/// The time of the system's monotonic clock, as the manager reads it.
fn monotonic_us() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or_default());
    (seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or_default())).as_micros()
}

#[cfg(test)]
mod tests {
    use super::super::event::Fleet;
    use super::*;

    fn pair() -> (UnixDatagram, Manager) {
        let (theirs, ours) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        ours.set_nonblocking(true).unwrap();
        let bounds = Bounds { start: Duration::ZERO, reload: Duration::from_secs(60), end: Duration::from_secs(30) };
        (theirs, Manager::new(Some(ours), None, bounds))
    }

    fn said(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        let next =
            || socket.recv(&mut buffer).ok().map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn it_hears_of_the_start_of_reloads_and_of_the_end() {
        let (theirs, mut manager) = pair();
        let slots = Fleet { workers: 2, proxies: 0 };
        for note in
            [Note::Up, Note::Reloading { slots }, Note::Reloaded { slots }, Note::StoppingNow, Note::StoppingNow]
        {
            manager.heard(&note);
        }
        manager.send(Instant::now());
        let said = said(&theirs);
        assert_eq!(said[0], "READY=1");
        let clock = said[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse::<u128>().unwrap();
        assert!(clock <= monotonic_us());
        assert_eq!(
            said[2..],
            ["EXTEND_TIMEOUT_USEC=65000000", "READY=1", "STOPPING=1", "EXTEND_TIMEOUT_USEC=35000000"]
        );
    }

    #[test]
    fn what_it_does_not_take_comes_later_and_in_order() {
        let (theirs, mut manager) = pair();
        let now = Instant::now();
        let mut kept = 0;
        // The kernel queues a few datagrams.
        while manager.retry_at.is_none() {
            manager.say(format!("STATUS={kept}"));
            manager.send(now);
            kept += 1;
        }
        assert_eq!(manager.due(), Some(now + PAUSE));
        let first = said(&theirs);
        manager.work(now + PAUSE);
        let all: Vec<String> = first.into_iter().chain(said(&theirs)).collect();
        assert_eq!(all, (0..kept).map(|nth| format!("STATUS={nth}")).collect::<Vec<_>>());
        assert_eq!(manager.due(), None);
    }

    #[test]
    fn who_hears_nothing_any_more_is_left_alone() {
        let (theirs, mut manager) = pair();
        drop(theirs);
        manager.say("READY=1".to_owned());
        manager.send(Instant::now());
        assert!(manager.socket.is_none() && manager.due().is_none());
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time() {
        let text = |text: &str| Some(OsString::from(text));
        let half = Some(Duration::from_secs(5));
        assert_eq!(watchdog(7, text("10000000"), None), half);
        assert_eq!(watchdog(7, text("10000000"), text("7")), half);
        for (period, pid) in [(text("10000000"), text("8")), (text("ten"), None), (text("0"), None), (None, None)] {
            assert_eq!(watchdog(7, period, pid), None);
        }
        let (theirs, mut manager) = pair();
        let now = Instant::now();
        manager.watchdog = Some(Watchdog { period: Duration::from_secs(5), due: now });
        manager.work(now);
        manager.work(now + Duration::from_secs(4));
        manager.work(now + Duration::from_secs(5));
        assert_eq!(said(&theirs), ["WATCHDOG=1", "WATCHDOG=1"]);
    }

    #[test]
    fn words_say_how_it_is() {
        let (_theirs, mut manager) = pair();
        let workers = Workers { ready: 3, all: 4 };
        let words = |manager: &Manager, state, reload| manager.words(state, reload, &workers);
        assert_eq!(words(&manager, ClusterState::Starting, None), "starting: 3 of 4 workers are up");
        assert_eq!(words(&manager, ClusterState::Running, None), "3 of 4 workers are up");
        let reloading = words(&manager, ClusterState::Running, Some(ReloadStatus { done: 1, of: 4 }));
        assert_eq!(reloading, "reloading: 1 of 4 are replaced; 3 of 4 workers are up");
        manager.heard(&Note::ReloadStopped { why: "no\nsuch file".to_owned(), done: Vec::new() });
        let failed = words(&manager, ClusterState::Running, None);
        assert_eq!(failed, "3 of 4 workers are up; the latest reload has stopped: no such file");
        assert_eq!(words(&manager, ClusterState::ShuttingDown, None), "shutting down");
    }

    #[test]
    fn it_is_a_path_or_an_abstract_name() {
        let name = format!("sticky-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _theirs = UnixDatagram::bind_addr(&address).unwrap();
        assert!(open(OsStr::new(&format!("@{name}"))).is_ok());
        assert!(open(OsStr::new("/nowhere/at/all")).is_err());
        let error = open(OsStr::new("vsock:2:1")).unwrap_err().to_string();
        assert_eq!(error, "neither a path nor an abstract name after `@`");
    }
}
