//! Measures sticky side by side with other servers, in interleaved pairs.
//!
//! ```text
//! row (rows/) ─► pair runner (pairs.rs) ─► side: processes under measurement (side.rs)
//!                        │                        ▲ connections
//!                        ├─► load (load/) ───────┘
//!                        └─► statistics (stats.rs) ─► table (report.rs)
//! ```
//!
//! A *side* is a program with its environment (other people's servers run as one program behind `bench-front`, see
//! `front/`), a *load* is what clients do to it, a *row* compares two sides under one load. This machine's noise is larger
//! than what is measured (the same binary against itself gives ratios of 0.8-1.2), so a row never compares two long runs: it
//! takes the ratio of many short neighbouring ones.

#[cfg(target_os = "linux")]
pub mod broadcast;
#[cfg(target_os = "linux")]
pub mod cpus;
#[cfg(target_os = "linux")]
pub mod front;
#[cfg(target_os = "linux")]
pub mod limits;
#[cfg(target_os = "linux")]
pub mod load;
#[cfg(target_os = "linux")]
pub mod pairs;
#[cfg(target_os = "linux")]
pub mod processes;
pub mod program;
pub mod program_actix;
pub mod random;
pub mod report;
#[cfg(target_os = "linux")]
pub mod rows;
#[cfg(target_os = "linux")]
pub mod side;
pub mod stats;
#[cfg(target_os = "linux")]
pub mod tagging;
