//! The harness of the behaviour suite, and what the testbeds share.
//!
//! ```text
//!  suite row ──► Launch ──► TestCluster ──► a testbed: supervisor + workers (real processes)
//!     │                        │ EventLog: every line they print, awaitable
//!     └──► Client ─────────────┴──────────► the port (source address, splits, half-close)
//! ```
//!
//! A row never sleeps to wait for something: it awaits a line, an answer, or a change in `/proc`, always with a
//! deadline.

pub mod admin;
pub mod client;
pub mod cluster;
pub mod events;
pub mod front;
pub mod journal;
pub mod launch;
pub mod manager;
pub mod namespace;
pub mod node;
pub mod process;
pub mod pty;
pub mod random;
pub mod redis;
pub mod testbed;

pub use admin::Admin;
pub use client::{Client, Connection, Request, Response};
pub use cluster::TestCluster;
pub use events::EventLog;
pub use front::Front;
pub use launch::Launch;
pub use manager::Manager;
pub use node::Script;
pub use random::Random;
pub use redis::Redis;
