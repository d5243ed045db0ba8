//! The suite of `sticky-socketio`: the official JavaScript client against real clusters, each row a script's case.
//!
//! Rows are `topic/case/framework/variant`, as in `clients/upgrade/actix/v4`. A further framework is one more testbed in
//! [`bed`], not a copy of rows.

use std::process::ExitCode;

use libtest_mimic::Arguments;

use self::bed::Framework;

mod adapter;
mod bed;
mod clients;
mod deploy;
mod machines;
mod protocol;
mod sessions;

/// Node and a cluster each take a good part of a core.
const AT_ONCE: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let topics = [clients::rows, sessions::rows, adapter::rows, protocol::rows, machines::rows];
    let rows = topics.into_iter().flat_map(|rows| Framework::ALL.into_iter().flat_map(rows));
    libtest_mimic::run(&arguments, rows.chain(deploy::rows()).collect()).exit_code()
}
