//! What this process is, known on the first line of `main`.

use std::fmt;
use std::sync::OnceLock;

use crate::id::{Post, WorkerId};

/// The variable that tells a child which descriptor is its control socket. Not a setting.
pub(crate) const CONTROL_VARIABLE: &str = "STICKY_CONTROL";

/// The variable by which a supervisor that replaces itself tells the program that follows where to find what it has.
pub(crate) const RESUME_VARIABLE: &str = "STICKY_RESUME";

/// What this process is in its cluster.
///
/// The application's `main` runs in every role up to the call that enters the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The process that was started by the user: it will own the sockets and start the others, or goes on doing so as another
    /// program.
    Supervisor,
    /// Runs the application in this slot.
    Worker(WorkerId),
    /// Terminates client connections and forwards them.
    Proxy,
    /// Runs what [`Cluster::prepare`](crate::Cluster::prepare) was given, and ends.
    Preparation,
    /// Serves metrics and status.
    Admin,
    /// Shows that this program can take the supervisor's place, as SIGUSR2 asks for, and ends. What the supervisor alone does in
    /// `main` it need not do.
    Trial,
    /// Serves in this process, without a cluster: `STICKY_WORKERS=0`, or a platform where there is none.
    ///
    /// Before the cluster is built only the environment is known: a `workers(0)` in code is a [`Role::Supervisor`]
    /// until then.
    Standalone,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Supervisor => f.write_str("supervisor"),
            Role::Worker(id) => write!(f, "worker {id}"),
            Role::Proxy => f.write_str("proxy"),
            Role::Preparation => f.write_str("preparation"),
            Role::Admin => f.write_str("admin"),
            Role::Trial => f.write_str("trial"),
            Role::Standalone => f.write_str("standalone"),
        }
    }
}

static STANDALONE: OnceLock<()> = OnceLock::new();

/// Notes that this process serves without a cluster.
pub(crate) fn set_standalone() {
    let _ = STANDALONE.set(());
}

/// What this process is.
///
/// Right from `main`'s first line, so that what must run only once (or only in workers) can ask:
///
/// ```
/// if let sticky_core::Role::Worker(id) = sticky_core::role() {
///     println!("worker {id} opens its own database pool");
/// }
/// ```
///
/// A process that the supervisor started, but whose supervisor is gone, ends here.
pub fn role() -> Role {
    #[cfg(cluster)]
    if let Some(role) = inherited::role() {
        return role;
    }
    let zero = std::env::var_os("STICKY_WORKERS").is_some_and(|workers| workers == "0");
    if cfg!(not(cluster)) || zero || STANDALONE.get().is_some() {
        return Role::Standalone;
    }
    Role::Supervisor
}

#[cfg(cluster)]
pub(crate) use inherited::{Marker, ResumeMarker, control_socket, parcel};

#[cfg(cluster)]
mod inherited {
    use std::os::fd::{OwnedFd, RawFd};
    use std::str::FromStr;

    use super::*;
    use crate::sys::exec;

    /// The value of [`CONTROL_VARIABLE`]: which descriptor, and how to tell that it is really ours.
    ///
    /// The variable is also inherited by programs the application starts. They do not have the descriptor, or
    /// have another socket under its number: the inode differs, and they are not our children.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Marker {
        pub(crate) fd: RawFd,
        pub(crate) inode: u64,
        pub(crate) parent: u32,
        pub(crate) post: Post,
    }

    impl fmt::Display for Marker {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self { fd, inode, parent, post } = self;
            write!(f, "fd={fd} inode={inode} parent={parent} ")?;
            match post {
                Post::Worker(worker) => write!(f, "worker={worker}"),
                Post::Proxy(number) => write!(f, "proxy={number}"),
                Post::Preparation => f.write_str("preparation=0"),
                Post::Admin => f.write_str("admin=0"),
                Post::Trial => f.write_str("trial=0"),
            }
        }
    }

    impl FromStr for Marker {
        type Err = ();

        fn from_str(text: &str) -> Result<Self, ()> {
            let mut fields = text.split(' ').map_while(|field| field.split_once('='));
            let mut field = |name: &str| fields.next().filter(|field| field.0 == name).map(|field| field.1);
            let mut parse = || {
                let fd = field("fd")?.parse().ok()?;
                let inode = field("inode")?.parse().ok()?;
                let parent = field("parent")?.parse().ok()?;
                Some((fd, inode, parent))
            };
            let (fd, inode, parent) = parse().ok_or(())?;
            let post = match fields.next().ok_or(())? {
                ("worker", slot) => Post::Worker(WorkerId::new(slot.parse().map_err(drop)?)),
                ("proxy", number) => Post::Proxy(number.parse().map_err(drop)?),
                ("preparation", "0") => Post::Preparation,
                ("admin", "0") => Post::Admin,
                ("trial", "0") => Post::Trial,
                _ => return Err(()),
            };
            if fields.next().is_some() { Err(()) } else { Ok(Self { fd, inode, parent, post }) }
        }
    }

    /// The value of [`RESUME_VARIABLE`]: which descriptor, and how to tell that it is this process's own.
    ///
    /// The variable is also inherited by whatever this process starts: that has another process id.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct ResumeMarker {
        pub(crate) fd: RawFd,
        pub(crate) inode: u64,
        pub(crate) pid: u32,
    }

    impl fmt::Display for ResumeMarker {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self { fd, inode, pid } = self;
            write!(f, "fd={fd} inode={inode} pid={pid}")
        }
    }

    impl FromStr for ResumeMarker {
        type Err = ();

        fn from_str(text: &str) -> Result<Self, ()> {
            let fields: Vec<(&str, &str)> = text.split(' ').filter_map(|field| field.split_once('=')).collect();
            let [("fd", fd), ("inode", inode), ("pid", pid)] = fields[..] else { return Err(()) };
            Ok(Self {
                fd: fd.parse().map_err(drop)?,
                inode: inode.parse().map_err(drop)?,
                pid: pid.parse().map_err(drop)?,
            })
        }
    }

    /// What was left open for this process.
    type Left = std::sync::Mutex<Option<OwnedFd>>;

    enum State {
        NotOurs,
        Child {
            role: Role,
            socket: Left,
        },
        /// This process has been the supervisor before.
        Supervisor {
            parcel: Left,
        },
    }

    fn state() -> &'static State {
        static STATE: OnceLock<State> = OnceLock::new();
        STATE.get_or_init(detect)
    }

    fn detect() -> State {
        let resumed = std::env::var(RESUME_VARIABLE).ok().and_then(|text| text.parse::<ResumeMarker>().ok());
        let is_own = |marker: &ResumeMarker| {
            marker.pid == std::process::id() && exec::socket_inode(marker.fd) == Some(marker.inode)
        };
        resumed.filter(is_own).map_or_else(detect_child, resume)
    }

    fn resume(marker: ResumeMarker) -> State {
        match exec::take_inherited(marker.fd) {
            Ok(parcel) => {
                say_name();
                State::Supervisor { parcel: std::sync::Mutex::new(Some(parcel)) }
            }
            Err(error) => {
                eprintln!("sticky: the supervisor cannot go on: what it had cannot be used: {error}");
                std::process::exit(1);
            }
        }
    }

    fn detect_child() -> State {
        let marker = std::env::var(CONTROL_VARIABLE).ok().and_then(|text| text.parse::<Marker>().ok());
        let Some(marker) = marker.filter(|marker| exec::socket_inode(marker.fd) == Some(marker.inode)) else {
            return State::NotOurs;
        };
        // Not yet closed on exec, the descriptor may have reached a program that our child has started: that is not
        // our child. A child of ours has another parent only when its own is gone.
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        let hung_up = exec::has_hung_up(marker.fd);
        if parent != Some(marker.parent) && !hung_up {
            return State::NotOurs;
        }
        let socket = match exec::take_inherited(marker.fd) {
            Ok(socket) => socket,
            Err(error) => orphaned(&marker, &format!("its control socket cannot be used: {error}")),
        };
        if hung_up {
            orphaned(&marker, "its supervisor is gone");
        }
        say_name();
        let role = match marker.post {
            Post::Worker(slot) => Role::Worker(slot),
            Post::Proxy(_) => Role::Proxy,
            Post::Preparation => Role::Preparation,
            Post::Admin => Role::Admin,
            Post::Trial => Role::Trial,
        };
        State::Child { role, socket: std::sync::Mutex::new(Some(socket)) }
    }

    /// A program started through /proc/self/fd/N is called "N" by ps and top until it says otherwise.
    fn say_name() {
        let called = std::env::args_os().next();
        let name = called.as_deref().map(std::path::Path::new).and_then(std::path::Path::file_name);
        if let Some(name) = name {
            let _ = std::fs::write("/proc/self/comm", name.to_string_lossy().as_bytes());
        }
    }

    fn orphaned(marker: &Marker, why: &str) -> ! {
        eprintln!("sticky: {} of supervisor {} ends: {why}", marker.post, marker.parent);
        std::process::exit(1);
    }

    pub(super) fn role() -> Option<Role> {
        match state() {
            State::NotOurs => None,
            State::Child { role, .. } => Some(*role),
            State::Supervisor { .. } => Some(Role::Supervisor),
        }
    }

    /// The control socket of this process, once, if our supervisor started it.
    pub(crate) fn control_socket() -> Option<OwnedFd> {
        match state() {
            State::NotOurs | State::Supervisor { .. } => None,
            State::Child { socket, .. } => socket.lock().unwrap_or_else(|e| e.into_inner()).take(),
        }
    }

    /// What this process had as the supervisor before it replaced itself, once, if it did.
    pub(crate) fn parcel() -> Option<OwnedFd> {
        match state() {
            State::NotOurs | State::Child { .. } => None,
            State::Supervisor { parcel } => parcel.lock().unwrap_or_else(|e| e.into_inner()).take(),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_marker_survives_its_text() {
            let worker = Post::Worker(WorkerId::new(2));
            let posts = [(worker, "worker=2"), (Post::Proxy(1), "proxy=1"), (Post::Preparation, "preparation=0")];
            for (post, text) in posts.into_iter().chain([(Post::Admin, "admin=0"), (Post::Trial, "trial=0")]) {
                let marker = Marker { fd: 7, inode: 81234, parent: 4000, post };
                assert_eq!(marker.to_string(), format!("fd=7 inode=81234 parent=4000 {text}"));
                assert_eq!(marker.to_string().parse(), Ok(marker));
            }
        }

        #[test]
        fn a_supervisor_s_marker_survives_its_text() {
            let marker = ResumeMarker { fd: 7, inode: 81234, pid: 4000 };
            assert_eq!(marker.to_string(), "fd=7 inode=81234 pid=4000");
            assert_eq!(marker.to_string().parse(), Ok(marker));
            for text in ["", "fd=7 inode=1", "fd=7 inode=1 parent=1", "fd=x inode=1 pid=1", "fd=7 inode=1 pid=1 more=1"]
            {
                assert_eq!(text.parse::<ResumeMarker>(), Err(()), "{text:?}");
            }
        }

        #[test]
        fn anything_else_is_not_a_marker() {
            for text in ["", "fd=7", "fd=x inode=1 parent=1 worker=0", "fd=7 inode=1 parent=1 worker=0 more=1"] {
                assert_eq!(text.parse::<Marker>(), Err(()), "{text:?}");
            }
        }

        #[test]
        fn another_descriptor_under_the_number_is_not_ours() {
            let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(&a);
            assert!(exec::socket_inode(number).is_some());
            assert_eq!(exec::socket_inode(-1), None);
            assert_ne!(exec::socket_inode(number), Some(0));
        }

        #[test]
        fn a_closed_peer_is_noticed() {
            let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(&a);
            assert!(!exec::has_hung_up(number));
            drop(b);
            assert!(exec::has_hung_up(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_well() {
        assert_eq!(Role::Supervisor.to_string(), "supervisor");
        assert_eq!(Role::Worker(WorkerId::new(2)).to_string(), "worker 2");
        assert_eq!(Role::Standalone.to_string(), "standalone");
    }
}
