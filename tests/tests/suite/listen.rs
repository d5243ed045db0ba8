//! Where a cluster listens, and serving without workers.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::{Client, Connection, TestCluster};

use crate::bed::{Bed, Dispatch, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("unix_path_is_served", unix_path_is_served),
        Row::new("several_addresses_are_served", several_addresses_are_served),
        Row::new("host_name_is_served", host_name_is_served),
        Row::new("port_variable_is_the_fallback", port_variable_is_the_fallback),
        Row::new("worker_counts_from_other_variables", worker_counts_from_other_variables),
        Row::new("announces_itself_in_one_line", announces_itself_in_one_line),
        Row::new("zero_workers_serve_in_this_process", zero_workers_serve_in_this_process),
        Row::new("zero_workers_drain", zero_workers_drain),
        // A listener that the application accepts from itself can be placed by the kernel alone.
        Row::new("std_listener_serves_and_drains", std_listener_serves_and_drains).only(Dispatch::Kernel),
        Row::new("serve_can_be_awaited", serve_can_be_awaited),
        Row::new("unprivileged_user_serves", unprivileged_user_serves),
    ]
}

fn unix_path_is_served(bed: &Bed) {
    let launch = bed.launch();
    let path = launch.folder().join("app.sock");
    let cluster = bed.on_paths(launch.listen(format!("unix:{}", path.display()))).up();
    for _ in 0..20 {
        let mut connection = Connection::over(UnixStream::connect(&path).expect("a connection"));
        let answer = connection.get("/").expect("an answer");
        assert!(cluster.workers().contains(&answer.pid()));
        assert_eq!(connection.get("/whoami").expect("an answer").text(), "unix");
    }
    cluster.stop();
    assert!(!path.exists(), "the socket file is removed");
}

fn several_addresses_are_served(bed: &Bed) {
    let cluster = bed.launch().workers(4).listen("127.0.0.1:0,127.0.0.2:0").up();
    let addresses = cluster.addresses();
    assert_eq!(addresses.len(), 2, "{}", cluster.events());
    for source in Client::loopback_addresses(30) {
        let ask = |&address: &SocketAddr| Client::new(address).from(source).get("/").expect("an answer").worker();
        let workers: Vec<u16> = addresses.iter().map(ask).collect();
        assert_eq!(workers[0], workers[1], "{source} has one worker on every address");
    }
    cluster.stop();
}

fn host_name_is_served(bed: &Bed) {
    let cluster = bed.launch().listen("localhost:0").up();
    for address in cluster.addresses() {
        assert!(address.ip().is_loopback());
        assert_eq!(Client::new(address).get("/").expect("an answer").status, 200);
    }
    cluster.stop();
}

/// A free port, for the settings that cannot name an address: the listener that found it is closed again.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("[::]:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

fn port_variable_is_the_fallback(bed: &Bed) {
    for variable in ["PORT", "PROXY_PORT"] {
        let port = free_port();
        let cluster = bed.launch().without("STICKY_LISTEN").env(variable, port.to_string()).up();
        assert_eq!(cluster.address().port(), port, "{variable}");
        // Every address of the machine, both families.
        for address in [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([127, 1, 2, 3], port))] {
            assert_eq!(Client::new(address).get("/").expect("an answer").status, 200, "{variable}");
        }
        cluster.stop();
    }
    let cluster = bed.launch().env("PORT", "1").up();
    assert_ne!(cluster.address().port(), 1, "STICKY_LISTEN counts more than PORT");
}

fn worker_counts_from_other_variables(bed: &Bed) {
    for (variable, count) in [("WEB_CONCURRENCY", 3), ("WORKERS", 1)] {
        let cluster = bed.launch().without("STICKY_WORKERS").env(variable, count.to_string()).up();
        assert_eq!(cluster.workers().len(), count, "{variable}");
    }
    let cluster = bed.launch().workers(1).env("WEB_CONCURRENCY", "3").up();
    assert_eq!(cluster.workers().len(), 1, "STICKY_WORKERS counts more");
}

fn announces_itself_in_one_line(bed: &Bed) {
    let cluster = bed.launch().up();
    let line = cluster.events().expect("listening on", PATIENCE);
    let fleet = if bed.is_proxied() { "2 workers and 1 proxy" } else { "2 workers" };
    let begin = format!("listening on http://{} ({fleet}, {} dispatch: ", cluster.address(), bed.dispatch());
    let reason = line.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(')')).unwrap_or_else(|| panic!("{line}"));
    match bed.dispatch() {
        Dispatch::Kernel => assert_eq!(reason, "affinity is the client address"),
        Dispatch::Handoff | Dispatch::Proxy => assert!(reason.contains("affinity is the client address"), "{line}"),
    }
    // Whoever waits for the line may connect from any address at once.
    cluster.pids(2);
    cluster.stop();
    assert_eq!(cluster.events().count("listening on"), 1);
}

fn zero_workers_serve_in_this_process(bed: &Bed) {
    let cluster = bed.launch().workers(0).up();
    assert!(cluster.workers().is_empty(), "no children");
    for source in Client::loopback_addresses(10) {
        let answer = cluster.client().from(source).get("/").expect("an answer");
        assert_eq!((answer.text().as_str(), answer.pid()), ("worker: 0", cluster.supervisor()));
    }
    cluster.stop();
}

fn zero_workers_drain(bed: &Bed) {
    drains_one_request(&bed.launch().workers(0).up());
}

pub(crate) fn drains_one_request(cluster: &TestCluster) {
    let mut busy = crate::drain::executing(&cluster.client(), "/sleep/500");
    cluster.stop();
    assert_eq!(busy.response().expect("a whole answer").text(), "slept");
}

/// `enter` and `into_std_listener`: a framework that wants a listener of its own.
fn std_listener_serves_and_drains(bed: &Bed) {
    let cluster = bed.fault("std-listener").workers(4).up();
    for source in Client::loopback_addresses(50) {
        assert_eq!(cluster.client().from(source).get("/").expect("an answer").text(), "hello");
    }
    drains_one_request(&cluster);
}

/// Called inside a runtime that `main` made in every process.
fn serve_can_be_awaited(bed: &Bed) {
    drains_one_request(&bed.fault("awaited").up());
}

fn unprivileged_user_serves(bed: &Bed) {
    let cluster = bed.launch().unprivileged().up();
    cluster.pids(2);
    let ids = sticky_tests::process::status(cluster.supervisor(), "Uid").expect("its user");
    assert!(!ids.split_whitespace().any(|id| id == "0"), "{ids}");
    cluster.stop();
}
