//! How many CPUs this process may use.

use std::num::NonZeroUsize;
use std::thread;

/// The CPUs this process may use, at least 1.
///
/// On Linux this is the smaller of the affinity mask (`taskset`, cpusets) and the cgroup's CPU quota rounded down,
/// v2 and v1, parents included. Counting the machine's CPUs would start dozens of workers in a container of two.
pub(super) fn usable() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_affinity_mask_and_the_quota_count() {
        assert_eq!(usable(), thread::available_parallelism().unwrap());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_bound_to_one_cpu_has_one() {
        let bound = thread::spawn(|| {
            let mut first = rustix::thread::CpuSet::new();
            let all = rustix::thread::sched_getaffinity(None).unwrap();
            first.set((0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).unwrap());
            rustix::thread::sched_setaffinity(None, &first).unwrap();
            usable()
        });
        assert_eq!(bound.join().unwrap(), NonZeroUsize::MIN);
    }
}
