//! Listening on a unix path: what to do with a file that is already there, and removing our own at the end.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::ListenError;

/// The file of a listening unix socket. Removed when dropped, unless another program has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device and inode: the same path with another identity is somebody else's file.
type Identity = (u64, u64);

/// What the next program has to know of the file: to have this does not remove it.
#[cfg(cluster)]
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct CarriedFile {
    path: PathBuf,
    identity: Identity,
}

#[cfg(cluster)]
impl From<CarriedFile> for SocketFile {
    fn from(CarriedFile { path, identity }: CarriedFile) -> Self {
        Self { path, identity }
    }
}

impl SocketFile {
    #[cfg(cluster)]
    pub(super) fn carried(&self) -> CarriedFile {
        CarriedFile { path: self.path.clone(), identity: self.identity }
    }

    /// Removes the file if it is still the one this process made. New connections fail from then on.
    pub(super) fn remove(&self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// One non-blocking listener at `path`, with this mode or the usual one.
///
/// # Errors
///
/// See [`ListenError`].
pub(super) fn listen(path: &Path, mode: Option<u32>, backlog: u32) -> Result<(Socket, SocketFile), ListenError> {
    let failed = |attempt| move |source| system(path, attempt, source);
    let address = SockAddr::unix(path).map_err(failed("reading the path"))?;
    clear_the_way(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("making a socket"))?;
    socket.set_nonblocking(true).map_err(failed("making it non-blocking"))?;
    if let Some(mode) = mode {
        limit(&socket, mode).map_err(failed("limiting who may connect"))?;
    }
    socket.bind(&address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::PathInUse { path: path.to_owned() },
        _ => system(path, "binding", source),
    })?;
    let identity = identity(path).map_err(failed("looking at the new file"))?;
    let file = SocketFile { path: path.to_owned(), identity };
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(failed("listening"))?;
    Ok((socket, file))
}

/// Has the file that the socket is bound to next have this mode. Changed after that it would be open for a moment.
#[cfg(target_os = "linux")]
fn limit(socket: &Socket, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(socket, rustix::fs::Mode::from_raw_mode(mode))?)
}

/// Elsewhere a socket has no mode before it is bound, and nothing is served at private ones.
#[cfg(not(target_os = "linux"))]
fn limit(_: &Socket, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Removes the socket of a program that has ended without doing so itself.
fn clear_the_way(path: &Path, address: &SockAddr) -> Result<(), ListenError> {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_owned() });
    }
    if is_answered(address).map_err(|source| system(path, "trying who is there", source))? {
        return Err(ListenError::PathInUse { path: path.to_owned() });
    }
    // Another program may have cleared the way a moment ago and listen there by now.
    if identity(path).is_ok_and(|now| now == (found.dev(), found.ino())) {
        std::fs::remove_file(path).map_err(|source| system(path, "removing the file of an ended program", source))?;
    }
    Ok(())
}

/// Whether a program has the socket open. One whose queue is full (`WouldBlock`) does.
fn is_answered(address: &SockAddr) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(true),
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn system(path: &Path, attempt: &'static str, source: io::Error) -> ListenError {
    ListenError::System { address: format!("unix:{}", path.display()), attempt, source }
}
