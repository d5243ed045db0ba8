//! How many descriptors this process, and the programs that it starts, may have.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Kept for everything that is not a load's connection.
const RESERVE: u64 = 500;

/// Raises the limit as far as it goes without privileges, and returns it. Programs inherit it.
///
/// # Errors
///
/// The system's.
pub fn raise_descriptors() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// How many of `wanted` connections one process can hold under a limit of that many descriptors, in whole thousands.
pub fn connections_within(descriptors: u64, wanted: usize) -> usize {
    let allowed = usize::try_from(descriptors.saturating_sub(RESERVE)).unwrap_or(usize::MAX);
    if allowed >= wanted { wanted } else { allowed / 1_000 * 1_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_allows_fewer_connections() {
        assert_eq!(connections_within(20_000, 10_000), 10_000);
        assert_eq!(connections_within(10_500, 10_000), 10_000);
        assert_eq!(connections_within(10_499, 10_000), 9_000);
        assert_eq!(connections_within(4_096, 10_000), 3_000);
        assert_eq!(connections_within(1_024, 10_000), 0);
        assert_eq!(connections_within(100, 10_000), 0);
    }
}
