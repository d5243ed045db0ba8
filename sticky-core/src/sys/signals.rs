//! Signals that must outlast an `exec`: what comes in from now on is kept for the program that follows.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::Signal;

/// The thread by which signals are kept.
static KEEPER: AtomicI32 = AtomicI32::new(0);

/// Signals that are kept. When this is dropped, those that came in meanwhile are heard as ever.
#[derive(Debug)]
pub(crate) struct Held {
    /// What was done with each of them before.
    actions: Vec<(i32, libc::sigaction)>,
    /// Those that this thread has heard before.
    blocked: Vec<i32>,
}

/// Keeps these signals: blocks them in this thread, which alone survives an `exec` with what is pending for it, and has every
/// other thread pass on to it those that it gets.
///
/// One caller at a time.
///
/// # Errors
///
/// The system's, for a signal that cannot be kept; then none is.
pub(crate) fn hold(signals: &[i32]) -> io::Result<Held> {
    KEEPER.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    let blocked = change_mask(libc::SIG_BLOCK, signals)?;
    let mut held = Held { actions: Vec::new(), blocked };
    for &signal in signals {
        held.actions.push((signal, pass_on(signal)?));
    }
    Ok(held)
}

/// Hears these signals again in this thread.
///
/// # Errors
///
/// The system's, for what is no signal.
pub(crate) fn hear(signals: &[i32]) -> io::Result<()> {
    change_mask(libc::SIG_UNBLOCK, signals).map(drop)
}

/// Has the process hear those of these signals that wait for its first thread, if that is not the one that calls: it may go on
/// blocking them.
pub(crate) fn hear_what_waits_elsewhere(signals: &[i32]) {
    let (first, here) = (rustix::process::getpid(), rustix::thread::gettid());
    if first == here {
        return;
    }
    let status = std::fs::read_to_string(format!("/proc/self/task/{first}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let is_pending = |signal: &&i32| (1..=64).contains(*signal) && mask & (1 << (**signal - 1)) != 0;
    for signal in signals.iter().filter(is_pending).filter_map(|signal| Signal::from_named_raw(*signal)) {
        let _ = rustix::process::kill_process(first, signal);
    }
}

impl Held {
    /// Those that this thread has heard before: whoever comes after the `exec` is to [`hear`] them again.
    pub(crate) fn blocked(&self) -> &[i32] {
        &self.blocked
    }

    /// Keeps one that the program has heard already, but has not heeded.
    pub(crate) fn keep(&self, signal: i32) {
        send_to(KEEPER.load(Ordering::Acquire), signal);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (signal, action) in &self.actions {
            // SAFETY: `action` is what this call has given for the same signal.
            unsafe { libc::sigaction(*signal, action, ptr::null_mut()) };
        }
        let _ = hear(&self.blocked);
    }
}

/// Has threads that get this signal pass it on; what was done with it before.
fn pass_on(signal: i32) -> io::Result<libc::sigaction> {
    let handler: extern "C" fn(libc::c_int) = forward;
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zero is a valid `sigaction`: no flags, an empty mask. The handler does nothing that is not allowed in
    // one. The kernel fills `before` where the call succeeds.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        match libc::sigaction(signal, &action, before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Runs in whatever thread the signal has interrupted, and leaves its `errno` as it was.
extern "C" fn forward(signal: libc::c_int) {
    // SAFETY: the place of this thread's own `errno`.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else uses it before this returns.
    let before = unsafe { *errno };
    send_to(KEEPER.load(Ordering::Acquire), signal);
    // SAFETY: as above.
    unsafe { *errno = before };
}

fn send_to(thread: i32, signal: i32) {
    // SAFETY: two system calls without any pointer, which may be made in a signal handler.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
}

/// Changes which signals this thread hears; answers those among them that it did not block before.
fn change_mask(how: i32, signals: &[i32]) -> io::Result<Vec<i32>> {
    let (mut set, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::<libc::sigset_t>::uninit());
    // SAFETY: `sigemptyset` makes `set` a valid set before anything else is done with it, and `before` is read only when
    // the call that fills it has succeeded.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            if libc::sigaddset(set.as_mut_ptr(), signal) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        match libc::pthread_sigmask(how, set.as_ptr(), before.as_mut_ptr()) {
            0 => {
                let was_heard = |signal: &&i32| libc::sigismember(before.as_ptr(), **signal) == 0;
                Ok(signals.iter().filter(was_heard).copied().collect())
            }
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    /// Whether a signal waits for this thread.
    fn is_pending(signal: i32) -> bool {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set is read only when the call that fills it has succeeded.
        unsafe { libc::sigpending(set.as_mut_ptr()) == 0 && libc::sigismember(set.as_ptr(), signal) == 1 }
    }

    /// Two signals that nobody else in this program uses; the default action of both would end it.
    #[test]
    fn what_comes_in_meanwhile_waits_and_is_heard_in_the_end() {
        let (one, other) = (libc::SIGUSR2, libc::SIGPROF);
        let heard = [one, other].map(|signal| {
            let heard = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, Arc::clone(&heard)).unwrap();
            heard
        });
        let is_heard = || heard.iter().all(|heard| heard.load(Ordering::Acquire));
        let held = hold(&[one, other]).unwrap();
        assert_eq!(held.blocked(), [one, other]);
        // A thread that does not block it gets it first, and passes it on.
        let elsewhere = thread::spawn(move || {
            hear(&[one]).unwrap();
            signal_hook::low_level::raise(one).unwrap();
        });
        elsewhere.join().unwrap();
        held.keep(other);
        assert!(is_pending(one) && is_pending(other) && !is_heard());
        drop(held);
        assert!(is_heard() && !is_pending(one));
        assert!(hear(&[9999]).is_err());
    }
}
