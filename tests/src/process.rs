//! Processes as `/proc` shows them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// How often `/proc` is looked at while waiting for it to change.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; false when it did not within that time.
pub fn holds_within(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it did not within that time, naming `what`.
pub fn eventually(what: &str, within: Duration, condition: impl FnMut() -> bool) {
    assert!(holds_within(within, condition), "not within {within:?}: {what}");
}

/// Lets time pass, for rows in which the time itself is the point: never to wait for something.
pub fn let_pass(time: Duration) {
    thread::sleep(time);
}

/// Sends a signal to one process; one that has gone already is no error.
///
/// # Panics
/// When the signal is not allowed, or the pid is 0.
pub fn signal(pid: u32, signal: Signal) {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid above 0");
    match kill_process(raw, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("signal {signal:?} to {pid}: {error}"),
    }
}

/// Stops a process, and waits until it has stopped. Before one of its threads has taken the signal, the others go on.
///
/// # Panics
/// When it has not within half a minute.
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    let is_stopped = || state_and_parent(pid).is_some_and(|(state, _)| state == 'T');
    eventually("it is stopped", Duration::from_secs(30), is_stopped);
}

/// The one-letter state and the parent of a process; `None` once it is gone.
pub fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, so read from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether the process runs (a zombie does not).
pub fn is_alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// Every process there is.
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The direct children of a process, zombies included, in the order of their pids.
pub fn children(parent: u32) -> Vec<u32> {
    let mut found = all();
    found.retain(|&pid| state_and_parent(pid).is_some_and(|(_, of)| of == parent));
    found.sort_unstable();
    found
}

/// The processes whose environment at start held exactly `NAME=value`. Zombies have none and are left out.
pub fn with_environment(entry: &str) -> Vec<u32> {
    let holds = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&byte| byte == 0).any(|found| found == entry.as_bytes())
    };
    all().into_iter().filter(holds).collect()
}

/// The open descriptors of a process and what each one is, as `/proc` names it (`socket:[123]`, `/dev/null`).
pub fn descriptors(pid: u32) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The value of a variable in the environment that a process was started with.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let entries = environ.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    entries.into_iter().find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Whether a process of a cluster is one of its proxies.
pub fn is_proxy(pid: u32) -> bool {
    variable(pid, "STICKY_CONTROL").is_some_and(|marker| marker.contains(" proxy="))
}

/// Whether a process of a cluster is its admin process.
pub fn is_admin(pid: u32) -> bool {
    variable(pid, "STICKY_CONTROL").is_some_and(|marker| marker.contains(" admin="))
}

/// Lets a process open descriptors with numbers below this only, as its own user. One that has gone already is no error.
///
/// # Panics
/// When there is no `prlimit` or `setpriv`, or it is not allowed.
pub fn limit_descriptors(pid: u32, below: u64) {
    let Some(user) = status(pid, "Uid").and_then(|ids| ids.split_whitespace().next()?.parse::<u32>().ok()) else {
        return;
    };
    let limit = format!("prlimit --pid={pid} --nofile={below}:");
    // Root without all of its capabilities may not do it to others.
    let command = format!("setpriv --reuid={user} --regid={user} --clear-groups -- {limit}");
    let command = if user == rustix::process::geteuid().as_raw() { limit } else { command };
    let mut words = command.split(' ');
    let output = Command::new(words.next().expect("a program")).args(words).output().expect("util-linux");
    assert!(output.status.success() || !is_alive(pid), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// How many descriptors a process may have: the limit it can raise no further.
pub fn descriptor_limit(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A value from `/proc/<pid>/status`, such as `VmRSS`.
pub fn status(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The process group of a process.
pub fn group(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// How much processor time a process has used, in ticks of 10 ms.
///
/// # Panics
/// When the process is gone.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let fields = stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace();
    // User and system time are the 14th and 15th field; the name is the second.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}
