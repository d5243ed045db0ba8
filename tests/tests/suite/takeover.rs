//! Taking the port: from nobody who still holds it, and without waiting for connections long gone.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use sticky_tests::Client;
use sticky_tests::process::Signal;

use crate::bed::{Bed, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("occupied_port_is_an_error", occupied_port_is_an_error),
        Row::new("rival_with_reuseport_is_an_error", rival_with_reuseport_is_an_error),
        Row::new("second_cluster_is_an_error", second_cluster_is_an_error),
        Row::new("occupied_unix_path_is_an_error", occupied_unix_path_is_an_error),
        Row::new("stale_unix_path_is_taken", stale_unix_path_is_taken),
        Row::new("restart_does_not_wait_for_time_wait", restart_does_not_wait_for_time_wait).in_own_network(),
    ]
}

/// Starts on an address that is taken: it must end with an error that names it, and start no worker.
fn refuses(bed: &Bed, address: &str) {
    let cluster = bed.on_paths(bed.launch().listen(address)).start();
    let status = cluster.exit(Duration::from_secs(10));
    assert!(!status.success());
    cluster.gone(Duration::from_secs(2));
    let line = cluster.events().expect("already listening", Duration::from_secs(1));
    assert!(line.contains(address.trim_start_matches("unix:")), "{line}");
}

fn occupied_port_is_an_error(bed: &Bed) {
    let rival = TcpListener::bind("127.0.77.4:0").expect("a port");
    refuses(bed, &rival.local_addr().expect("its address").to_string());
}

fn rival_with_reuseport_is_an_error(bed: &Bed) {
    let rival = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    rival.set_reuse_port(true).expect("the option");
    rival.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 77, 5], 0)))).expect("a port");
    rival.listen(16).expect("listens");
    let address = rival.local_addr().expect("its address").as_socket().expect("an IPv4 address");
    refuses(bed, &address.to_string());
}

/// Neither shares the first one's port nor disturbs it, though its listeners have `SO_REUSEPORT` set.
fn second_cluster_is_an_error(bed: &Bed) {
    let first = bed.launch().up();
    let pids = first.pids(2);
    refuses(bed, &first.address().to_string());
    assert_eq!(first.pids(2), pids);
    first.stop();
}

fn occupied_unix_path_is_an_error(bed: &Bed) {
    let launch = bed.launch();
    let path = launch.folder().join("app.sock");
    let address = format!("unix:{}", path.display());
    let first = bed.on_paths(launch.listen(&address)).up();
    refuses(bed, &address);
    assert!(path.exists(), "the file of a running cluster is left alone");
    first.stop();
}

fn stale_unix_path_is_taken(bed: &Bed) {
    let launch = bed.launch();
    let path = launch.folder().join("app.sock");
    let address = format!("unix:{}", path.display());
    let first = bed.on_paths(launch.listen(&address)).up();
    first.signal(Signal::KILL);
    first.gone(Duration::from_secs(2));
    assert!(path.exists(), "a killed supervisor leaves its file");
    let second = bed.on_paths(bed.launch().listen(&address)).up();
    second.stop();
    assert!(!path.exists());
}

/// In a network of its own, because the kernel keeps only so many remains of connections in each.
fn restart_does_not_wait_for_time_wait(bed: &Bed) {
    let first = bed.launch().listen("127.0.77.6:0").up();
    let address = first.address();
    for source in Client::loopback_addresses(20) {
        // The server closes first, so the connection's remains are on its side.
        let mut connection = first.client().from(source).connect().expect("a connection");
        assert_eq!(connection.request("GET", "/", &["connection: close"], b"").expect("an answer").status, 200);
        assert_eq!(connection.read_to_end().expect("an end"), b"");
    }
    let mut held = first.client().connect().expect("a connection");
    assert_eq!(held.get("/").expect("an answer").status, 200);
    first.stop();
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes([127, 0, 77, 6]), address.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let waits = |line: &&str| line.contains(&format!(" {local} ")) && line.split_whitespace().nth(3) == Some("06");
    assert!(table.lines().any(|line| waits(&line)), "the row needs a connection in TIME_WAIT");
    let second = bed.launch().listen(address.to_string()).start();
    second.events().expect("listening on ", Duration::from_secs(5));
    second.stop();
}
