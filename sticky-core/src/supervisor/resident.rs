//! How much of the machine's memory processes use.

use std::fs;

use rustix::process::Pid;

use crate::config::Memory;

/// The deepest that a worker's processes are looked for, their children's children included.
const DEPTH: u32 = 8;

/// What a process uses, with all that it has started if `with_children`; nothing if it is gone.
pub(crate) fn memory(pid: Pid, with_children: bool) -> Memory {
    let depth = if with_children { DEPTH } else { 0 };
    let pages = pages(pid.as_raw_nonzero().get().unsigned_abs(), depth);
    Memory(pages.saturating_mul(rustix::param::page_size() as u64))
}

fn pages(pid: u32, depth: u32) -> u64 {
    // The whole size, and what of it is in memory.
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let own = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    match depth {
        0 => own,
        _ => children(pid).iter().fold(own, |sum, child| sum + pages(*child, depth - 1)),
    }
}

/// The children of all threads of a process; none where the kernel does not tell.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_touched_counts() {
        let me = rustix::process::getpid();
        let before = memory(me, false);
        let touched = std::hint::black_box(vec![1_u8; 256 * MIB]);
        // Other tests of this process give back what they had meanwhile.
        let grown = memory(me, false).0.saturating_sub(before.0);
        assert!(grown >= 128 * MIB as u64, "{grown}");
        drop(touched);
    }

    #[test]
    fn children_count_if_asked_for() {
        // It ends with its standard input, and so with the test, whatever becomes of that.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let me = rustix::process::getpid();
        assert!(children(std::process::id()).contains(&child.id()));
        assert!(memory(me, true) > Memory(0) && memory(Pid::from_child(&child), false) > Memory(0));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(memory(Pid::from_child(&child), true), Memory(0), "it is gone");
    }
}
