//! What a child process is given across `exec`, and how it takes it.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::FdFlags;
use rustix::process::Signal;

/// Lets `fd`, and nothing else of ours, stay open across the `exec` of `command`.
///
/// The caller keeps `fd` open until the command has been spawned. The child is also told to expect SIGTERM when
/// the thread that spawned it ends: only a second belt, the end-of-file of the control socket is the lifeline.
pub(crate) fn inherit(command: &mut Command, fd: BorrowedFd<'_>) {
    let number = fd.as_raw_fd();
    let parent = rustix::process::getpid();
    let prepare = move || {
        // SAFETY: the descriptor table is a copy of the parent's, in which the caller keeps `number` open.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        // It may have died before the call, and then the signal never comes.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes a few system calls and neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

/// Has `command` killed when the thread that spawns it ends, as it does when this process is killed.
pub(crate) fn end_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before the call, and then the signal never comes.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

/// Takes ownership of the sockets that a service manager has passed to this process, `count` from `first` on, and closes them for
/// programs that this process starts; or says which number is no socket.
///
/// # Panics
///
/// When called a second time: a descriptor has one owner.
pub(crate) fn take_passed(first: u32, count: usize) -> Result<Vec<OwnedFd>, u32> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let numbers = (first..).take(count);
    if let Some(number) = numbers.clone().find(|number| socket_inode(raw(*number)).is_none()) {
        return Err(number);
    }
    assert!(!TAKEN.swap(true, std::sync::atomic::Ordering::AcqRel), "passed sockets are taken only once");
    keep_passed_from_children(first, count);
    // SAFETY: they are open, as has been looked at, and by the protocol of socket activation (the caller has checked that it is
    // this process that they are for) they are this program's; the flag above makes this the only owner within this library.
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(raw(number)) }).collect())
}

/// Closes the sockets that a service manager has passed for programs that this process starts.
pub(crate) fn keep_passed_from_children(first: u32, count: usize) {
    for number in (first..).take(count) {
        // SAFETY: the borrow lasts for one fcntl, which answers EBADF for a number that is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(raw(number)) };
        let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
}

fn raw(number: u32) -> RawFd {
    RawFd::try_from(number).unwrap_or(RawFd::MAX)
}

/// The inode of the socket behind descriptor `number` of this process, if there is one.
pub(crate) fn socket_inode(number: RawFd) -> Option<u64> {
    if number < 0 {
        return None;
    }
    // SAFETY: the borrow lasts for one fstat, which answers EBADF for a number that is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let stat = rustix::fs::fstat(fd).ok()?;
    FileType::from_raw_mode(stat.st_mode).is_socket().then_some(stat.st_ino)
}

/// Whether the other side of the socket with this number is gone.
pub(crate) fn has_hung_up(number: RawFd) -> bool {
    // SAFETY: the borrow lasts for one poll, which answers NVAL for a number that is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::HUP)
}

/// Takes ownership of the inherited descriptor `number`, and closes it for programs that this process starts.
///
/// # Panics
///
/// When called a second time: a descriptor has one owner.
pub(crate) fn take_inherited(number: RawFd) -> std::io::Result<OwnedFd> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    assert!(!TAKEN.swap(true, std::sync::atomic::Ordering::AcqRel), "the inherited descriptor is taken only once");
    // SAFETY: the caller has checked by its inode that `number` is the socket our supervisor left open for this
    // process, nothing else in the program knows of it, and the flag above makes this the only owner.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}
