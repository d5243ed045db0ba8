//! The behaviour suite: rows × frameworks × dispatches, each `row/framework/dispatch`.
//!
//! A row is written once. A later framework or dispatch adds a value to [`bed::Framework`] or [`bed::Dispatch`], not a
//! copy of rows.

use std::process::ExitCode;

use libtest_mimic::Arguments;

mod actix;
mod admin;
mod affinity;
mod bed;
mod boot;
mod bus;
mod chaos;
mod chaos_client;
mod container;
mod crash;
mod departures;
mod drain;
mod environment;
mod extra;
mod failover;
mod failover_handoff;
mod fair;
mod fronts;
mod handoff;
mod hostile;
mod hundred_reloads;
mod inflight;
mod jar;
mod keys;
mod kill_under_load;
mod leadership;
mod limits;
mod listen;
mod messages;
mod output;
mod pipelines;
mod placement;
mod prepare;
mod proxy;
mod recycle;
mod reexec;
mod reload;
mod reload_load;
mod requests;
mod rivals;
mod scale;
mod sessions;
mod shapes;
mod shutdown;
mod sockets;
mod standalone;
mod sticky_cookie;
mod strangers;
mod systemd;
mod takeover;

/// Rows mostly wait for processes, so a few more of them than cores run at once.
const AT_ONCE: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let topics = [
        requests::rows(),
        affinity::rows(),
        handoff::rows(),
        messages::rows(),
        pipelines::rows(),
        rivals::rows(),
        sessions::rows(),
        sticky_cookie::rows(),
        placement::rows(),
        proxy::rows(),
        standalone::rows(),
        fronts::rows(),
        hostile::rows(),
        departures::rows(),
        inflight::rows(),
        chaos::rows(),
        listen::rows(),
        sockets::rows(),
        limits::rows(),
        environment::rows(),
        extra::rows(),
        output::rows(),
        boot::rows(),
        takeover::rows(),
        crash::rows(),
        failover::rows(),
        failover_handoff::rows(),
        kill_under_load::rows(),
        bus::rows(),
        drain::rows(),
        reload::rows(),
        reload_load::rows(),
        reexec::rows(),
        hundred_reloads::rows(),
        recycle::rows(),
        scale::rows(),
        leadership::rows(),
        prepare::rows(),
        shutdown::rows(),
        container::rows(),
        admin::rows(),
        strangers::rows(),
        systemd::rows(),
        actix::rows(),
    ];
    let trials = topics.into_iter().flatten().flat_map(bed::Row::trials).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
