//! Pseudo terminals, for rows about Ctrl-C and prefixed output.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A new terminal: our side, and the side a program takes for its terminal.
///
/// # Errors
/// When the system has none left.
pub fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let path = ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((ours, theirs))
}

/// A reader of what the program prints on the terminal.
///
/// # Errors
/// When the descriptor cannot be copied.
pub fn reader(ours: &OwnedFd) -> io::Result<File> {
    Ok(File::from(ours.try_clone()?))
}

/// Types `keys` on the terminal; `"\x03"` is Ctrl-C.
///
/// # Errors
/// When the terminal has gone.
pub fn type_keys(ours: &OwnedFd, keys: &str) -> io::Result<()> {
    rustix::io::write(ours, keys.as_bytes())?;
    Ok(())
}
