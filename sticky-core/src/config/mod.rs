//! Configuration: what code and environment say in, one typed value or every mistake at once out.
//!
//! ```text
//! ClusterBuilder ─┐
//! Environment ────┼─ resolve() ─► Config | ConfigError
//! Machine ────────┘   (pure)
//! ```
//!
//! Strings end here: whatever is in a [`Config`] has its type and its range.

mod builder;
mod cpus;
mod env;
mod error;
mod failover;
mod parse;
mod resolve;
mod settings;
mod trusted;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::time::Duration;

pub use self::builder::ClusterBuilder;
pub(crate) use self::env::Environment;
pub use self::error::{ConfigError, ConfigProblem, Given};
pub use self::failover::Failover;
#[cfg(test)]
pub(crate) use self::trusted::TrustedProxies;
use crate::affinity::Affinity;
use crate::dispatch::Dispatch;
use crate::listener::address::ListenAddress;

/// What the configuration depends on beside code and environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The CPUs this process may use.
    pub(crate) cpus: NonZeroUsize,
}

impl Machine {
    /// The machine this process runs on, as far as it may use it.
    pub(crate) fn detect() -> Self {
        Self { cpus: cpus::usable() }
    }
}

/// The configuration of a cluster: every setting resolved, checked and typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// 0 serves in this process; at most [`MAX_WORKERS`](crate::id::MAX_WORKERS).
    pub(crate) workers: u16,
    pub(crate) threads_per_worker: NonZeroUsize,
    /// Never empty.
    pub(crate) listen: Vec<ListenAddress>,
    pub(crate) affinity: Affinity,
    /// The dispatch chosen.
    pub(crate) dispatch: Dispatch,
    /// Why that dispatch, in words for the log.
    pub(crate) dispatch_reason: String,
    pub(crate) failover: Failover,
    /// The port of worker 0 behind proxy dispatch.
    #[allow(dead_code, reason = "read by proxy dispatch, which is not in this version")]
    pub(crate) first_port: Option<u16>,
    /// None draws one at start.
    pub(crate) hash_seed: Option<u64>,
    pub(crate) boot_timeout: Duration,
    pub(crate) heartbeat_timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) exit_timeout: Duration,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// Of each worker; none is no limit.
    pub(crate) max_connections: Option<NonZeroUsize>,
    pub(crate) backlog: u32,
    /// None is auto: when standard output is a terminal.
    pub(crate) prefix_output: Option<bool>,
    /// Added to the workers' environment, in order; names are valid and none of ours.
    pub(crate) env: Vec<(OsString, OsString)>,
}

impl Config {
    /// What all processes of a cluster must agree on, as text. A worker with another one is refused: its clients
    /// would change workers.
    pub(crate) fn fingerprint(&self) -> String {
        let Self { affinity, dispatch, .. } = self;
        let seed = self.hash_seed.map_or_else(|| "drawn".to_owned(), |seed| seed.to_string());
        format!("affinity={affinity} dispatch={dispatch} placement=rendezvous hash_seed={seed}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_names_what_must_agree() {
        let environment = Environment::from_iter([("STICKY_HASH_SEED", "7")]);
        let machine = Machine { cpus: NonZeroUsize::MIN };
        let config = ClusterBuilder::default().resolve(&environment, &machine).unwrap();
        let expected = "affinity=client-ip dispatch=kernel placement=rendezvous hash_seed=7";
        assert_eq!(config.fingerprint(), expected);
        let config = ClusterBuilder::default().resolve(&Environment::from_iter([("", ""); 0]), &machine).unwrap();
        assert!(config.fingerprint().ends_with("hash_seed=drawn"));
    }

    #[test]
    fn the_machine_is_as_large_as_this_process_may_use() {
        assert_eq!(Machine::detect().cpus, std::thread::available_parallelism().unwrap());
    }
}
