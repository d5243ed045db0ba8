//! `sticky`: any program that listens on a port, on every core, each client always on the same one.
//!
//! ```text
//! sticky run --workers 4 --listen :3000 --affinity cookie:sid -- node server.js
//!
//!   client ─► proxy ─► 127.0.0.1:PORT ◄─ node server.js ◄─ worker 0
//!                  └─► 127.0.0.1:PORT ◄─ node server.js ◄─ worker 1 …
//! ```
//!
//! Each worker starts the program with a port of its own in `PORT` and its number in `STICKY_WORKER_ID`, and is ready when
//! somebody accepts connections there. A program that ends is started again; one that is to end gets SIGTERM when nobody
//! asks it any more.
//!
//! `sticky status`, `reload`, `restart`, `drain` and `events` ask a running cluster, this one or any other, by the unix
//! socket of its admin process.

mod arguments;
mod program;
#[cfg(unix)]
mod remote;
#[cfg(unix)]
mod table;

use std::process::ExitCode;

use clap::Parser as _;
use sticky_core::{Cluster, RunError};

use self::arguments::{Arguments, Run, Task};

fn main() -> ExitCode {
    match Arguments::parse().command.task() {
        Task::Run(run) => run_it(run),
        #[cfg(unix)]
        Task::Ask(remote, at) => match at.path(std::env::var("STICKY_ADMIN").ok()) {
            Ok(path) => remote::ask(&remote, &path),
            Err(mistake) => {
                eprintln!("sticky: {mistake}");
                ExitCode::from(2)
            }
        },
    }
}

fn run_it(run: Run) -> ExitCode {
    match serve(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sticky: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn serve(run: Run) -> Result<(), RunError> {
    let builder = run.settings(Cluster::builder());
    builder.build()?.run_on_port(|port| program::run(run.program, port))
}
