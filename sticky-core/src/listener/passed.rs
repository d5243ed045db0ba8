//! Sockets that a service manager has passed to this process: socket activation, as systemd does it.
//!
//! ```text
//! LISTEN_PID=this process  LISTEN_FDS=2  LISTEN_FDNAMES=web:admin ─► descriptors 3 and 4 ─► `systemd:web`, `systemd:admin`
//! ```
//!
//! They are the manager's, too: it listens on, so what is in their queues at the end waits for the next start, and nothing is
//! done to them that would outlive this process.

use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use socket2::{Domain, SockAddr, Socket, Type};

use super::LocalAddress;
use crate::notice;
use crate::sys::exec;

/// How many are believed.
const MOST: u32 = 1024;

/// The number of the first.
const FIRST: u32 = 3;

/// The variables that say which sockets were passed. Not for programs that this one starts.
pub(crate) const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Why there is no such socket of a service manager.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassedSocketError {
    /// Start the program by a socket unit of systemd, or by systemd-socket-activate.
    #[error("no sockets were passed to this process: LISTEN_FDS is not set")]
    NotPassed,
    /// Something between the service manager and this program has changed the process: execute the program in its place.
    #[error(
        "the sockets were passed to another process: LISTEN_PID is {pid:?}, and this is process {}",
        std::process::id()
    )]
    AnotherProcess {
        /// What the variable says.
        pid: String,
    },
    /// What passes the sockets has made a mistake.
    #[error("LISTEN_FDS is {count:?}, which is not a number of sockets from 1 to {MOST}")]
    Count {
        /// What the variable says.
        count: String,
    },
    /// What passes the sockets has made a mistake.
    #[error("LISTEN_FDNAMES is {names:?}, which are not {count} names")]
    Names {
        /// What the variable says.
        names: String,
        /// How many sockets there are.
        count: u32,
    },
    /// What passes the sockets has made a mistake.
    #[error("descriptor {number} is no socket, although LISTEN_FDS says that it was passed")]
    NotASocket {
        /// The descriptor's number.
        number: u32,
    },
    /// Use `ListenStream=` and `Accept=no` in the socket unit.
    #[error("the socket {name:?} is {what}, and a listening stream socket is needed (ListenStream=, Accept=no)")]
    NotListening {
        /// Its name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// Use one of those names, or name the socket by `FileDescriptorName=`.
    #[error("no socket {name:?} was passed: there {}", Passed(passed))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names of those passed.
        passed: Vec<String>,
    },
    /// Leave the name away, or pass one more.
    #[error("every socket that was passed is asked for by its name: there {}", Passed(passed))]
    NoneLeft {
        /// The names of those passed.
        passed: Vec<String>,
    },
    /// The system refused something.
    #[error("the socket {name:?} cannot be used")]
    System {
        /// Its name.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Names, in words.
struct Passed<'a>(&'a [String]);

impl std::fmt::Display for Passed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.0.iter().map(|name| format!("{name:?}")).collect();
        let verb = if names.len() == 1 { "is" } else { "are" };
        write!(f, "{verb} {}", names.join(", "))
    }
}

/// What the variables say.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// One for each socket.
    names: Vec<String>,
}

/// The sockets, until they are taken.
struct Pool {
    sockets: Vec<(String, Option<Socket>)>,
    /// Names that are asked for: who asks for none gets none of those.
    reserved: Vec<String>,
}

static POOL: OnceLock<Mutex<Pool>> = OnceLock::new();

/// Says which names will be asked for, before anything is; `any` if something is asked for at all. Sockets that were passed and
/// nobody asks for stay open, but not for programs that this one starts.
pub(crate) fn expect(names: Vec<String>, any: bool) -> Result<(), PassedSocketError> {
    if any {
        lock(pool()?).reserved = names;
        return Ok(());
    }
    if let Ok(Said { names }) = said() {
        exec::keep_passed_from_children(FIRST, names.len());
        let count = names.len();
        notice::warn(format_args!(
            "{count} sockets were passed to this program, and nothing listens on them: listen=systemd (STICKY_LISTEN) would"
        ));
    }
    Ok(())
}

/// Takes those with this name, or all that nobody asks for by name, each with its address. At least one.
pub(super) fn take(name: Option<&str>) -> Result<Vec<(Socket, LocalAddress)>, PassedSocketError> {
    let taken = lock(pool()?).take(name)?;
    taken.into_iter().map(|(name, socket)| checked(&name, socket)).collect()
}

fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All of them, from the first call on.
fn pool() -> Result<&'static Mutex<Pool>, PassedSocketError> {
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let Said { names } = said()?;
    let sockets = exec::take_passed(FIRST, names.len()).map_err(|number| PassedSocketError::NotASocket { number })?;
    let sockets = names.into_iter().zip(sockets.into_iter().map(|socket| Some(Socket::from(socket))));
    let pool = Pool { sockets: sockets.collect(), reserved: Vec::new() };
    Ok(POOL.get_or_init(|| Mutex::new(pool)))
}

fn said() -> Result<Said, PassedSocketError> {
    let [pid, count, names] =
        VARIABLES.map(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()));
    read(std::process::id(), pid, count, names)
}

fn read(me: u32, pid: Option<String>, count: Option<String>, names: Option<String>) -> Result<Said, PassedSocketError> {
    let (Some(pid), Some(count)) = (pid, count) else { return Err(PassedSocketError::NotPassed) };
    if pid.parse() != Ok(me) {
        return Err(PassedSocketError::AnotherProcess { pid });
    }
    let Some(number) = count.parse::<u32>().ok().filter(|number| (1..=MOST).contains(number)) else {
        return Err(PassedSocketError::Count { count });
    };
    let Some(names) = names else {
        // What sd_listen_fds(3) calls them.
        return Ok(Said { names: vec!["unknown".to_owned(); number as usize] });
    };
    let split: Vec<String> = names.split(':').map(str::to_owned).collect();
    if split.len() == number as usize {
        Ok(Said { names: split })
    } else {
        Err(PassedSocketError::Names { names, count: number })
    }
}

impl Pool {
    fn take(&mut self, name: Option<&str>) -> Result<Vec<(String, Socket)>, PassedSocketError> {
        let passed = || self.sockets.iter().map(|(name, _)| name.clone()).collect();
        let nothing = match name {
            Some(name) => PassedSocketError::Unknown { name: name.to_owned(), passed: passed() },
            None => PassedSocketError::NoneLeft { passed: passed() },
        };
        let is_meant = |called: &String| match name {
            Some(name) => called == name,
            None => !self.reserved.contains(called),
        };
        let meant = self.sockets.iter_mut().filter(|(called, _)| is_meant(called));
        let taken: Vec<_> = meant.filter_map(|(called, socket)| Some((called.clone(), socket.take()?))).collect();
        if taken.is_empty() { Err(nothing) } else { Ok(taken) }
    }
}

/// Checks that it is a stream socket that listens, and makes it as ours are.
fn checked(name: &str, socket: Socket) -> Result<(Socket, LocalAddress), PassedSocketError> {
    let not_listening = |what| PassedSocketError::NotListening { name: name.to_owned(), what };
    let failed = |source| PassedSocketError::System { name: name.to_owned(), source };
    match socket.r#type().map_err(failed)? {
        Type::STREAM => {}
        Type::DGRAM => return Err(not_listening("a datagram socket")),
        _ => return Err(not_listening("no stream socket")),
    }
    if !socket.is_listener().map_err(failed)? {
        return Err(not_listening("a connection, or does not listen"));
    }
    socket.set_nonblocking(true).map_err(failed)?;
    if socket.domain().map_err(failed)? != Domain::UNIX {
        // As in listener/bind.rs.
        socket.set_tcp_nodelay(true).map_err(failed)?;
    }
    let local = socket.local_addr().map_err(failed)?;
    let address = address(&local).ok_or_else(|| not_listening("neither a TCP nor a unix socket"))?;
    Ok((socket, address))
}

fn address(local: &SockAddr) -> Option<LocalAddress> {
    if let Some(address) = local.as_socket() {
        return Some(LocalAddress::Tcp(address));
    }
    let abstracted = || local.as_abstract_namespace().map(|name| format!("@{}", String::from_utf8_lossy(name)).into());
    local.as_pathname().map(Into::into).or_else(abstracted).map(LocalAddress::Unix)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn said(pid: &str, count: &str, names: Option<&str>) -> Result<Vec<String>, String> {
        let text = |text: &str| Some(text.to_owned()).filter(|text| text != "-");
        let said = read(7, text(pid), text(count), names.map(str::to_owned));
        said.map(|said| said.names).map_err(|error| error.to_string())
    }

    #[test]
    fn the_variables_say_what_there_is() {
        assert_eq!(said("7", "2", None), Ok(vec!["unknown".to_owned(), "unknown".to_owned()]));
        assert_eq!(said("7", "2", Some("web:admin")), Ok(vec!["web".to_owned(), "admin".to_owned()]));
        let not_set = "no sockets were passed to this process: LISTEN_FDS is not set";
        let me = std::process::id();
        for (pid, count, names, error) in [
            ("-", "2", None, not_set.to_owned()),
            ("7", "-", None, not_set.to_owned()),
            (
                "8",
                "2",
                None,
                format!("the sockets were passed to another process: LISTEN_PID is \"8\", and this is process {me}"),
            ),
            ("7", "0", None, "LISTEN_FDS is \"0\", which is not a number of sockets from 1 to 1024".to_owned()),
            ("7", "-1", None, "LISTEN_FDS is \"-1\", which is not a number of sockets from 1 to 1024".to_owned()),
            (
                "7",
                "99999999999",
                None,
                "LISTEN_FDS is \"99999999999\", which is not a number of sockets from 1 to 1024".to_owned(),
            ),
            ("7", "2", Some("web"), "LISTEN_FDNAMES is \"web\", which are not 2 names".to_owned()),
        ] {
            assert_eq!(said(pid, count, names), Err(error));
        }
    }

    fn pool() -> Pool {
        let listener = || Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().into());
        let names = ["web", "admin", "web"].map(|name| (name.to_owned(), listener()));
        Pool { sockets: names.into(), reserved: Vec::new() }
    }

    #[test]
    fn sockets_go_to_those_who_name_them_and_the_rest_to_who_names_none() {
        let mut pool = pool();
        pool.reserved = vec!["admin".to_owned()];
        assert_eq!(pool.take(None).unwrap().len(), 2);
        let left = pool.take(None).unwrap_err().to_string();
        assert_eq!(
            left,
            "every socket that was passed is asked for by its name: there are \"web\", \"admin\", \"web\""
        );
        assert_eq!(pool.take(Some("admin")).unwrap().len(), 1);
        let unknown = pool.take(Some("api")).unwrap_err().to_string();
        assert_eq!(unknown, "no socket \"api\" was passed: there are \"web\", \"admin\", \"web\"");
    }

    fn refused(socket: impl Into<Socket>) -> String {
        checked("web", socket.into()).unwrap_err().to_string()
    }

    #[test]
    fn only_listening_stream_sockets_are_taken() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connection = TcpStream::connect(address).unwrap();
        let needed = "and a listening stream socket is needed (ListenStream=, Accept=no)";
        assert_eq!(refused(connection), format!("the socket \"web\" is a connection, or does not listen, {needed}"));
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(refused(datagrams), format!("the socket \"web\" is a datagram socket, {needed}"));
        let (_, found) = checked("web", listener.into()).unwrap();
        assert_eq!(found, LocalAddress::Tcp(address));
    }

    #[test]
    fn unix_sockets_are_known_by_path_or_abstract_name() {
        let name = format!("sticky-passed-{}", std::process::id());
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
        socket.listen(1).unwrap();
        assert_eq!(checked("web", socket).unwrap().1.to_string(), format!("unix:@{name}"));
    }
}
