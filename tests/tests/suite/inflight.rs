//! Descriptors in flight: how many a user may have there is limited, and a worker that does not read must not use up
//! what the others need to take over for it.

use std::net::Ipv4Addr;
use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::{Client, Request};

use crate::bed::{Bed, Dispatch, Row};
use crate::crash::address_of;
use crate::keys::{Key, by_header};

pub(crate) fn rows() -> Vec<Row> {
    // Alone, because what other clusters of the same user have in flight counts too.
    let row = Row::new("stopped_worker_leaves_room_in_flight", stopped_worker_leaves_room_in_flight);
    vec![row.alone().only(Dispatch::Handoff)]
}

/// Three times as many clients for a stopped worker as descriptors may be open or in flight. The other worker takes over
/// for it, which needs descriptors to be sent to it. Who waits in the stopped one's queues is served by either.
fn stopped_worker_leaves_room_in_flight(bed: &Bed) {
    const DESCRIPTORS: u32 = 300;
    let launch = by_header(bed, 2).unprivileged().with_descriptors(DESCRIPTORS);
    let cluster = launch.env("STICKY_FAILOVER", "1s").up();
    let keys = Key::of_each_worker(&cluster.client(), 2);
    let (pids, address) = (cluster.pids(2), address_of(&cluster, 0));
    process::stop(pids[&1]);
    let request = keys[1].on(Request::get("/")).header("connection", "close").bytes();
    let send = |address: Ipv4Addr| {
        let client = cluster.client().from(address).timeout(Duration::from_secs(30));
        let mut connection = client.connect().expect("a connection");
        connection.send(&request).expect("sent");
        connection
    };
    let clients: Vec<_> = Client::loopback_addresses(3 * DESCRIPTORS).map(send).collect();
    // Who comes last to the other worker is served by it after all that came before.
    let answer = send(address).response().expect("an answer");
    assert_eq!((answer.status, answer.pid()), (200, pids[&0]), "{answer:?}");
    process::signal(pids[&1], Signal::CONT);
    let mut served = 0;
    for (number, mut client) in clients.into_iter().enumerate() {
        let answer = client.response().unwrap_or_else(|error| panic!("client {number}: {error}"));
        if answer.status == 200 {
            assert_eq!(answer.pid(), pids[&answer.worker()], "client {number}: {answer:?}");
            served += 1;
        } else {
            // It had waited as long as it may when nobody stood in yet.
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "client {number}: {answer:?}");
        }
    }
    assert!(served > DESCRIPTORS, "only {served} clients were served");
    eventually("its clients are back", PATIENCE, || {
        send(Ipv4Addr::LOCALHOST).response().expect("an answer").worker() == 1
    });
    assert_eq!(cluster.pids(2), pids, "nobody was killed");
    assert_eq!(cluster.events().count("killing it"), 0);
    cluster.stop();
}
