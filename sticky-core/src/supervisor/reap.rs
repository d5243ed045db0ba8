//! As process 1 of a container the supervisor inherits every orphan, and must reap them.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions};

/// How long a zombie is left to whoever started it.
const FIRST_CHANCE: Duration = Duration::from_secs(1);

/// Reaps strangers that have ended. Children that the application itself has started in this process look the same:
/// they have a second to be waited for by whoever started them.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    seen: BTreeMap<i32, Instant>,
}

impl Reaper {
    /// One, if this process is the first of its namespace.
    pub(super) fn if_needed() -> Option<Self> {
        (std::process::id() == 1).then(Self::default)
    }

    /// Looks at the zombies among this process's children and reaps those that had their chance. `ours` are waited for
    /// elsewhere. Tells when to look again.
    pub(super) fn look(&mut self, now: Instant, ours: impl Iterator<Item = Pid>) -> Option<Instant> {
        let ours: Vec<i32> = ours.map(|pid| pid.as_raw_nonzero().get()).collect();
        let zombies = zombies().filter(|pid| !ours.contains(pid));
        let seen: BTreeMap<i32, Instant> = zombies.map(|pid| (pid, *self.seen.get(&pid).unwrap_or(&now))).collect();
        let (old, new) = seen.into_iter().partition(|(_, since)| *since + FIRST_CHANCE <= now);
        for pid in BTreeMap::into_keys(old).filter_map(Pid::from_raw) {
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        self.seen = new;
        self.seen.values().min().map(|since| *since + FIRST_CHANCE)
    }
}

/// The children of this process that have ended and were not waited for.
fn zombies() -> impl Iterator<Item = i32> {
    let me = std::process::id();
    fs::read_dir("/proc").into_iter().flatten().filter_map(move |entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        is_zombie_of(&stat, me).then_some(pid)
    })
}

/// Reads a line of `/proc/<pid>/stat` (proc(5)): the name is in parentheses and may itself have some, the state and
/// the parent follow.
fn is_zombie_of(stat: &str, parent: u32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut fields = rest.split(' ');
    fields.next() == Some("Z") && fields.next().and_then(|field| field.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zombies_are_told_by_state_and_parent() {
        assert!(is_zombie_of("7 (a) b) Z 1 7 7 0 -1", 1));
        assert!(!is_zombie_of("7 (a) b) Z 2 7 7 0 -1", 1));
        assert!(!is_zombie_of("7 (a) Z) S 1 7 7 0 -1", 1));
        assert!(!is_zombie_of("", 1));
    }

    #[test]
    fn a_stranger_is_reaped_when_it_had_its_chance() {
        #[expect(clippy::zombie_processes, reason = "that is what is tested")]
        let child = std::process::Command::new("true").spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        while !zombies().any(|pid| pid == id) {
            std::thread::yield_now();
        }
        let none = std::iter::empty::<Pid>;
        let start = Instant::now();
        let mut reaper = Reaper::default();
        let again = reaper.look(start, none());
        assert_eq!(again, Some(start + FIRST_CHANCE));
        // Other tests of this process may have zombies too, so only this one is asked for.
        reaper.seen.retain(|pid, _| *pid == id);
        reaper.look(start + FIRST_CHANCE - Duration::from_millis(1), none());
        assert!(zombies().any(|pid| pid == id));
        reaper.seen.retain(|pid, _| *pid == id);
        reaper.look(start + FIRST_CHANCE, none());
        assert!(zombies().all(|pid| pid != id));
    }

    #[test]
    fn our_own_are_left_alone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        while !zombies().any(|zombie| zombie == pid.as_raw_nonzero().get()) {
            std::thread::yield_now();
        }
        let mut reaper = Reaper::default();
        reaper.look(Instant::now(), [pid].into_iter());
        assert!(!reaper.seen.contains_key(&pid.as_raw_nonzero().get()));
        assert!(child.wait().unwrap().success());
    }
}
