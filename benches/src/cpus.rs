//! Who runs where: the load on the last CPU, the programs on all others.
//!
//! On the same CPUs the load and the programs take turns as the scheduler likes, and a program that is not kept busy pays
//! for more wake-ups per request: the ratio of one pair spreads twice as far, and says as much about the load as about
//! the programs.

use std::io;
use std::process::Command;
use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// How the system calls name the thread that calls.
const THIS: Pid = Pid::from_raw(0);

/// The CPUs this process had when it was started, in order.
fn all() -> &'static [usize] {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    ALL.get_or_init(|| {
        let set = sched_getaffinity(THIS).unwrap_or_default();
        (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu) == Ok(true)).collect()
    })
}

/// How many CPUs this process had when it was started: how many workers a program gets, 64 at most.
pub fn count() -> u16 {
    all().len().clamp(1, 64) as u16
}

/// Keeps this process, which makes the load, on the last CPU. Does nothing where there is only one.
///
/// # Errors
///
/// The system's.
pub fn pin_load() -> io::Result<()> {
    if let [_, .., last] = all() {
        let mut set = CpuSet::new();
        set.set(*last)?;
        sched_setaffinity(THIS, &set)?;
    }
    Ok(())
}

/// A command that runs `program` on the CPUs of the programs.
pub fn on_program_cpus(program: &std::path::Path) -> Command {
    let [programs @ .., _] = all() else { return Command::new(program) };
    if programs.is_empty() {
        return Command::new(program);
    }
    let list: Vec<String> = programs.iter().map(usize::to_string).collect();
    // It becomes the program: same process, same environment.
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &list.join(",")]).arg(program);
    command
}
