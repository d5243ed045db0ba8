//! The rivals: other people's servers, which put each client's requests on the same one of several programs.
//!
//! ```text
//! client ─► front (nginx, HAProxy), inherits the public socket ─► unix sockets ─► bench-plain × workers
//! client ─► primary (Node), inherits the public socket ─► its own workers
//! ```
//!
//! `bench-front` runs one such group of processes as if it were one program: it says where the front listens, and ends
//! them all when it is told to end.

mod config;
pub mod forward;
mod group;

use std::io;
use std::path::PathBuf;

pub use self::config::{Front, Key, Settings};
pub use self::group::Group;

/// Why a rival did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// `BENCH_FRONT`, `BENCH_KEY` or `BENCH_WORKERS` is missing or says something else.
    #[error("{name} must be {allowed}")]
    Setting {
        /// The variable.
        name: &'static str,
        /// What it may be.
        allowed: &'static str,
    },
    /// A file or a socket of the group could not be made.
    #[error("failed to prepare {path:?}")]
    Prepare {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program of the group could not be executed.
    #[error("failed to start {program:?}, which `benches/run --install` installs")]
    Spawn {
        /// Which.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended before it was ready. What it said stands above; most often a part of it is not installed.
    #[error("{program:?} has ended; `benches/run --install` installs what it needs")]
    Ended {
        /// Which.
        program: PathBuf,
    },
    /// The group runs but is not what it should be.
    #[error("not ready in time: {what}")]
    NotReady {
        /// What was waited for.
        what: String,
    },
}
