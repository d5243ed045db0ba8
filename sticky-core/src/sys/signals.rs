//! Signals that must outlast an `exec`: what comes in from now on is kept for the program that follows.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

/// The thread by which signals are kept.
static KEEPER: AtomicI32 = AtomicI32::new(0);

/// Which signals are kept, as the kernel writes sets: the first bit is signal 1.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// How long other threads have to block what is kept. One that the kernel holds up cannot take a signal, either.
const SILENCE_TIME: Duration = Duration::from_secs(1);

/// How long until it is looked again whether they do.
const LOOK_PAUSE: Duration = Duration::from_micros(200);

/// Signals that are kept. When this is dropped, those that came in meanwhile are heard as ever.
#[derive(Debug)]
pub(crate) struct Held {
    /// What was done with each of them before.
    actions: Vec<(i32, libc::sigaction)>,
    /// Those that this thread has heard before.
    blocked: Vec<i32>,
    /// By which other threads are asked to block them; 0 where there is none to spare.
    silencer: i32,
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
    KEPT.store(signals.iter().fold(0, |set, signal| set | bit(*signal)), Ordering::Release);
    let blocked = change_mask(libc::SIG_BLOCK, signals)?;
    let mut held = Held { actions: Vec::new(), blocked, silencer: silencer()? };
    for &signal in signals {
        held.actions.push((signal, act(signal, forward as *const () as libc::sighandler_t, 0, held.silencer)?));
    }
    Ok(held)
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
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
    let [pending, _] = sets_of(first.as_raw_nonzero().get()).unwrap_or_default();
    let is_pending = |signal: &&i32| (1..=64).contains(*signal) && pending & bit(**signal) != 0;
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

impl Held {
    /// Has all other threads block what is kept, so that none of them has taken a signal, and not passed it on, when the `exec`
    /// ends it: from then on everything waits for the process. It cannot be undone: should there be no `exec`, this thread
    /// hears for all of them.
    pub(crate) fn silence_others(&self) {
        let until = Instant::now() + SILENCE_TIME;
        // A thread that is within another handler goes back to the mask that it had before that: so twice.
        let mut silent = 0;
        while silent < 2 && Instant::now() < until && self.silencer != 0 {
            silent = if self.ask_others() { silent + 1 } else { 0 };
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// Asks each thread that does not block what is kept; tells whether there was none.
    fn ask_others(&self) -> bool {
        let kept = KEPT.load(Ordering::Acquire);
        let mut are_silent = true;
        for thread in threads().filter(|thread| *thread != KEEPER.load(Ordering::Acquire)) {
            // One that has ended meanwhile has no status.
            let Some([pending, blocked]) = sets_of(thread) else { continue };
            if blocked & kept != kept {
                are_silent = false;
                if pending & bit(self.silencer) == 0 {
                    send_to(thread, self.silencer);
                }
            }
        }
        are_silent
    }
}

/// A signal that nobody has a use for, to which threads block what is kept; 0 if there is none.
fn silencer() -> io::Result<i32> {
    let handler = block_kept as *const () as libc::sighandler_t;
    for signal in (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev() {
        let before = action_of(signal)?;
        if before.sa_sigaction == libc::SIG_DFL || before.sa_sigaction == handler {
            // It stays: a thread may come to it late.
            act(signal, handler, KEPT.load(Ordering::Acquire), 0)?;
            return Ok(signal);
        }
    }
    Ok(0)
}

/// The threads of this process.
fn threads() -> impl Iterator<Item = i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok())
}

/// The signals that wait for a thread, and those that it blocks (proc_pid_status(5)).
fn sets_of(thread: i32) -> Option<[u64; 2]> {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    let set = |name| {
        let text = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(text.trim(), 16).ok()
    };
    Some([set("SigPnd:")?, set("SigBlk:")?])
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

/// What is done with a signal.
fn action_of(signal: i32) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed, and the kernel fills `action` where the call succeeds.
    unsafe {
        match libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) {
            0 => Ok(action.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Has threads that get this signal run one of the handlers below, during which they block these and `another`; what was done
/// with it before.
fn act(signal: i32, handler: libc::sighandler_t, blocked: u64, another: i32) -> io::Result<libc::sigaction> {
    let before = action_of(signal)?;
    // SAFETY: all zero is a valid `sigaction`: no flags, an empty mask. Either handler does nothing that is not allowed in one,
    // and takes what SA_SIGINFO has it given.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
        for one in (1..=64).filter(|one| blocked & bit(*one) != 0 || *one == another) {
            libc::sigaddset(&mut action.sa_mask, one);
        }
        match libc::sigaction(signal, &action, ptr::null_mut()) {
            0 => Ok(before),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Runs in a thread that is to block what is kept from now on: what this changes is the mask to which it goes back.
extern "C" fn block_kept(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let kept = KEPT.load(Ordering::Acquire);
    // SAFETY: with SA_SIGINFO the kernel gives the context of the interrupted thread, nobody else's until this returns.
    let mask = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_sigmask };
    for signal in (1..=64).filter(|signal| kept & bit(*signal) != 0) {
        // SAFETY: a valid set, and a call that may be made in a signal handler.
        unsafe { libc::sigaddset(mask, signal) };
    }
}

/// Runs in whatever thread the signal has interrupted, and leaves its `errno` as it was.
extern "C" fn forward(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
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
        // From here on no thread takes any, not even one that does nothing else.
        let (started, starts) = std::sync::mpsc::channel();
        let idle = thread::spawn(move || {
            hear(&[one, other]).unwrap();
            started.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            thread::park();
        });
        let its = starts.recv().unwrap();
        let blocks_both = || sets_of(its).unwrap()[1] & KEPT.load(Ordering::Acquire) == KEPT.load(Ordering::Acquire);
        assert!(!blocks_both());
        held.silence_others();
        assert!(blocks_both());
        idle.thread().unpark();
        idle.join().unwrap();
        drop(held);
        assert!(is_heard() && !is_pending(one));
        assert!(hear(&[9999]).is_err());
    }
}
