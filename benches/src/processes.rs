//! Which processes there are, and who started them.

use std::fs;

use nix::unistd::Pid;

/// `root` and every process below it, parents first.
pub fn descendants(root: u32) -> Vec<Pid> {
    let parents = parents();
    let mut found = vec![root as i32];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().map(Pid::from_raw).collect()
}

/// What those call themselves, or a thread of theirs, that stand in front of other processes and forward to them.
const FRONTS: [&str; 4] = ["nginx", "haproxy", "bench-forward", "sticky-proxy"];

/// Whether a process forwards to others.
pub fn is_front(pid: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let names = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.into_iter().any(|name| FRONTS.contains(&name.trim_end()))
}

/// Every process of the machine with its parent.
fn parents() -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything: what follows its last parenthesis is state and parent.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_forwards_has_a_name_for_it() {
        assert!(!is_front(Pid::this()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let (named, is_named) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("sticky-proxy".to_owned());
        // It gives itself its name before it does anything else.
        let thread = thread.spawn(move || (named.send(()), receiver.recv())).unwrap();
        is_named.recv().unwrap();
        assert!(is_front(Pid::this()));
        sender.send(()).unwrap();
        thread.join().unwrap().1.unwrap();
    }

    #[test]
    fn a_child_is_found_below_its_parent() {
        // It waits for its standard input, which is closed at the test's end.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let found = descendants(std::process::id());
        assert_eq!(found[0], Pid::this());
        assert!(found.contains(&Pid::from_raw(child.id() as i32)), "{found:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
