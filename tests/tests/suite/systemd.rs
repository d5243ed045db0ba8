//! As a service of systemd: sockets that it passes, and what it is told.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::testbed::extra;
use sticky_tests::{Client, Connection, Launch, Manager, TestCluster, manager};

use crate::bed::{Bed, Dispatch, Framework, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("systemd_starts_it_at_the_first_connection", systemd_starts_it_at_the_first_connection),
        Row::new("systemd_passes_sockets_by_name", systemd_passes_sockets_by_name),
        Row::new("systemd_keeps_what_waits_for_the_next_start", systemd_keeps_what_waits_for_the_next_start),
        Row::new("systemd_is_not_there_or_passes_something_else", systemd_is_not_there_or_passes_something_else),
        Row::new("systemd_sockets_are_not_split", systemd_sockets_are_not_split).only(Dispatch::Kernel),
        Row::new("systemd_hears_of_start_reload_and_end", systemd_hears_of_start_reload_and_end),
        Row::new("systemd_hears_that_a_reload_has_stopped", systemd_hears_that_a_reload_has_stopped),
        Row::new("systemd_feels_the_supervisor_s_pulse", systemd_feels_the_supervisor_s_pulse),
        Row::new("systemd_hears_of_one_process", systemd_hears_of_one_process),
        Row::new("systemd_takes_the_example_units", systemd_takes_the_example_units)
            .only(Dispatch::Kernel)
            .only_with(Framework::Core),
    ]
}

/// What a service manager says to the program alone.
const VARIABLES: [&str; 6] =
    ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Sockets cannot be split among workers, so that the dispatch is left to the cluster where it would be the kernel's.
fn launch(bed: &Bed) -> Launch {
    bed.on_paths(bed.launch())
}

/// An address for systemd-socket-activate, which takes no port 0: on an interface of this row's own, so that whoever looks for a
/// free port meanwhile looks elsewhere.
fn free_address() -> SocketAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(1);
    let own = [127, 77, std::process::id().to_le_bytes()[0], TAKEN.fetch_add(1, Ordering::Relaxed)];
    TcpListener::bind(SocketAddr::from((own, 0))).and_then(|listener| listener.local_addr()).expect("an address")
}

/// A client of this address that waits until somebody has been started there, and answers.
fn client(address: SocketAddr) -> Client {
    eventually("it listens", PATIENCE, || listens(address.port()));
    Client::new(address).timeout(PATIENCE)
}

/// Whether anybody listens on this port, which is not to be found out by a connection here.
fn listens(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    // proc(5): the local address, and a state of 0A for those that listen.
    table.lines().any(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A")))
}

fn knows_nothing_of_systemd(pid: u32) {
    for name in VARIABLES {
        assert_eq!(process::variable(pid, name), None, "{name}");
    }
}

fn systemd_starts_it_at_the_first_connection(bed: &Bed) {
    let address = free_address();
    let cluster = launch(bed).listen("systemd").activated("web", address.to_string()).start();
    let client = client(address);
    assert_eq!(cluster.events().count("listening on "), 0, "nobody has come");
    assert_eq!(client.get("/").expect("an answer").status, 200);
    cluster.wait_until_up();
    let mut workers = std::collections::BTreeSet::new();
    for address in Client::loopback_addresses(40) {
        let ask = || client.clone().from(address).get("/").expect("an answer").worker();
        let worker = ask();
        assert_eq!(worker, ask(), "{address} has one worker, whichever accepts");
        workers.insert(worker);
    }
    assert_eq!(workers.len(), 2);
    cluster.workers().into_iter().for_each(knows_nothing_of_systemd);
    cluster.reload();
    assert_eq!(client.get("/").expect("an answer").generation(), 1);
    cluster.stop();
}

fn systemd_passes_sockets_by_name(bed: &Bed) {
    let (launch, address) = (launch(bed), free_address());
    let [beside, admin] = ["beside.sock", "other-admin.sock"].map(|name| launch.folder().join(name));
    let launch = launch
        .listen("systemd")
        .env("STICKY_EXTRA_LISTENER", "beside=systemd:beside")
        .env("STICKY_ADMIN", "systemd:admin")
        .env(extra::VARIABLE, "beside")
        .activated("admin", admin.display().to_string())
        .activated("web", address.to_string())
        .activated("beside", beside.display().to_string());
    let cluster = launch.start();
    assert_eq!(client(address).get("/").expect("an answer").status, 200);
    let get = |path, what| {
        let stream = UnixStream::connect(path).expect("a connection");
        Connection::over(stream).request_last("GET", what, b"").expect("an answer").text()
    };
    assert!(get(&beside, "/").starts_with("extra: "));
    cluster.events().expect("metrics and status are at ", PATIENCE);
    assert!(get(&admin, "/metrics").contains("sticky_"));
    cluster.stop();
    assert!(beside.exists() && admin.exists(), "they are systemd's");
}

/// What comes in while the service is restarted is answered by its next start, on the same connection.
fn systemd_keeps_what_waits_for_the_next_start(bed: &Bed) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = client(socket.local_addr().expect("its address"));
    let again = || socket.try_clone().expect("a copy");
    let cluster = launch(bed).listen("systemd").passed(again()).up();
    let mut busy = crate::drain::executing(&client, "/sleep/1500");
    cluster.signal(Signal::TERM);
    cluster.events().expect("shutting down within", PATIENCE);
    let mut early = Vec::new();
    for _ in 0..20 {
        let mut connection = client.connect().expect("nobody is refused");
        connection.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").expect("sent");
        early.push(connection);
    }
    assert_eq!(busy.response().expect("a whole answer").text(), "slept");
    assert!(cluster.exit(PATIENCE).success());
    cluster.gone(PATIENCE);
    let mut late = client.connect().expect("nobody is refused");
    late.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").expect("sent");
    let next = launch(bed).listen("systemd").passed(again()).up();
    let workers = next.workers();
    let answer = late.response().expect("an answer");
    assert!(workers.contains(&answer.pid()));
    // The former workers may have taken some before they had heard of the end, and have answered those.
    for connection in &mut early {
        assert_eq!(connection.response().expect("an answer").status, 200);
    }
    next.stop();
}

/// How it ends when it cannot start: with an error that has all these words.
fn fails(launch: Launch, words: &[&str]) {
    let cluster = launch.start();
    assert!(!cluster.exit(PATIENCE).success());
    cluster.gone(PATIENCE);
    let printed = cluster.events().all().join("\n");
    for word in words {
        assert!(printed.contains(word), "{word:?} is not in {printed:?}");
    }
}

fn systemd_is_not_there_or_passes_something_else(bed: &Bed) {
    let listener = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let passed = |launch: Launch| launch.listen("systemd").passed(listener());
    let none = "no sockets were passed to this process: LISTEN_FDS is not set";
    fails(launch(bed).listen("systemd"), &["cannot listen on systemd", none]);
    let another = "the sockets were passed to another process: LISTEN_PID is \"1\"";
    fails(passed(launch(bed).env("LISTEN_PID", "1")), &[another]);
    fails(passed(launch(bed).env("LISTEN_FDS", "many")), &["LISTEN_FDS is \"many\""]);
    fails(passed(launch(bed).env("LISTEN_FDS", "900")), &["is no socket, although LISTEN_FDS says that it was passed"]);
    fails(passed(launch(bed).env("LISTEN_FDNAMES", "a:b")), &["LISTEN_FDNAMES is \"a:b\", which are not 1 names"]);
    let named = launch(bed).listen("systemd:api").env("LISTEN_FDNAMES", "web").passed(listener());
    fails(named, &["cannot listen on systemd:api", "no socket \"api\" was passed: there is \"web\""]);
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a port");
    fails(launch(bed).listen("systemd").passed(datagrams), &["the socket \"unknown\" is a datagram socket"]);
    // Alone, too.
    fails(launch(bed).workers(0).listen("systemd"), &["cannot listen on systemd", none]);
    // What nobody asks for is said, and passed on to nobody.
    let cluster = launch(bed).passed(listener()).up();
    cluster.events().expect("1 sockets were passed to this program, and nothing listens on them", PATIENCE);
    cluster.stop();
}

fn systemd_sockets_are_not_split(bed: &Bed) {
    let words = "STICKY_LISTEN=\"systemd\" is one socket, which all workers share, and with STICKY_DISPATCH=\"kernel\" each needs its own";
    fails(bed.launch().listen("systemd"), &[words]);
}

fn systemd_hears_of_start_reload_and_end(bed: &Bed) {
    let launch = bed.launch();
    let mut manager = Manager::in_folder(launch.folder());
    let cluster = launch.env(manager::VARIABLE, manager.name()).start();
    manager.expect("READY=1");
    cluster.wait_until_up();
    manager.expect("STATUS=2 of 2 workers are up");
    cluster.workers().into_iter().for_each(knows_nothing_of_systemd);
    cluster.signal(Signal::HUP);
    manager.expect("RELOADING=1");
    assert!(manager.expect("MONOTONIC_USEC=").parse::<u64>().is_ok());
    manager.expect("READY=1");
    cluster.signal(Signal::HUP);
    manager.expect("READY=1");
    cluster.stop();
    manager.catch_up();
    let course = manager.told(&["READY", "RELOADING", "STOPPING"]);
    assert_eq!(course, ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]);
    let statuses = manager.told(&["STATUS"]);
    assert_eq!(statuses[0], "STATUS=starting: 0 of 2 workers are up");
    let half = format!("STATUS=reloading: 1 of {} are replaced; 2 of 2 workers are up", bed.children(2));
    assert!(statuses.contains(&half.as_str()), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&"STATUS=shutting down"));
    // The start, two reloads, and the end: 25 s, 5 s, and 5 s more.
    assert_eq!(manager.told(&["EXTEND_TIMEOUT_USEC"]).len(), 4);
    assert_eq!(manager.told(&["EXTEND_TIMEOUT_USEC"])[3], "EXTEND_TIMEOUT_USEC=35000000");
}

fn systemd_hears_that_a_reload_has_stopped(bed: &Bed) {
    let launch = bed.deployed().env("TESTBED_FAULT", "exit-before-sticky");
    let mut manager = Manager::abstracted(&format!("sticky-test-{}", launch.folder().display()));
    let cluster = launch.env(manager::VARIABLE, manager.name()).start();
    manager.expect("READY=1");
    cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
    cluster.signal(Signal::HUP);
    manager.expect("RELOADING=1");
    manager.expect("READY=1");
    let why = manager.expect("STATUS=2 of 2 workers are up; the latest reload has stopped: ");
    assert!(why.contains("worker 0 exited with status 0 before it was ready"), "{why}");
    cluster.deploy(bed.program());
    cluster.reload();
    manager.expect("STATUS=2 of 2 workers are up");
    cluster.stop();
}

/// How long a watchdog would wait, and a time in which it would hear several times.
const WATCHDOG: Duration = Duration::from_millis(200);

fn watched(launch: Launch, manager: &Manager) -> TestCluster {
    let microseconds = WATCHDOG.as_micros().to_string();
    launch.env(manager::VARIABLE, manager.name()).env("WATCHDOG_USEC", microseconds).start()
}

fn systemd_feels_the_supervisor_s_pulse(bed: &Bed) {
    let launch = bed.launch();
    let mut manager = Manager::in_folder(launch.folder());
    let cluster = watched(launch, &manager);
    manager.expect("READY=1");
    cluster.wait_until_up();
    // A worker that hangs is the supervisor's business.
    let mut hanging = cluster.client().connect().expect("a connection");
    hanging.send("POST /hang HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").expect("sent");
    for _ in 0..5 {
        manager.expect("WATCHDOG=1");
    }
    process::stop(cluster.supervisor());
    manager.catch_up();
    assert!(manager.is_silent_for(5 * WATCHDOG), "it is stopped");
    process::signal(cluster.supervisor(), Signal::CONT);
    manager.expect("WATCHDOG=1");
    cluster.workers().iter().for_each(|&pid| process::signal(pid, Signal::KILL));
    cluster.signal(Signal::TERM);
    cluster.exit(PATIENCE);
}

fn systemd_hears_of_one_process(bed: &Bed) {
    let launch = bed.launch().workers(0).env("STICKY_HEARTBEAT_TIMEOUT", "500ms");
    let mut manager = Manager::in_folder(launch.folder());
    let cluster = watched(launch, &manager);
    manager.expect("READY=1");
    for _ in 0..5 {
        manager.expect("WATCHDOG=1");
    }
    cluster.wait_until_up();
    let mut blocking = cluster.client().connect().expect("a connection");
    blocking.send("GET /block/4000 HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
    eventually("it is not fed", PATIENCE, || manager.is_silent_for(5 * WATCHDOG));
    assert_eq!(blocking.response().expect("an answer").status, 200);
    manager.expect("WATCHDOG=1");
    cluster.stop();
    manager.catch_up();
    assert_eq!(manager.told(&["READY", "STOPPING"]), ["READY=1", "STOPPING=1"]);
}

const SERVICE: &str = include_str!("../../../examples/deploy/systemd/app.service");
const SOCKET: &str = include_str!("../../../examples/deploy/systemd/app.socket");

/// What systemd has to say about these units; nothing if it takes them.
fn complaints(folder: &std::path::Path, service: &str, socket: &str) -> String {
    let files = [("app.service", service), ("app.socket", socket)].map(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a unit");
        path
    });
    let output = Command::new("systemd-analyze").arg("verify").args(files).output().expect("systemd-analyze");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn systemd_takes_the_example_units(bed: &Bed) {
    let launch = bed.launch();
    let program = format!("ExecStart={}", bed.program());
    let service = SERVICE.replace("ExecStart=/usr/local/bin/app", &program);
    assert_ne!(service, SERVICE);
    assert_eq!(complaints(launch.folder(), &service, SOCKET), "");
    let wrong = complaints(launch.folder(), &service.replace("KillMode=mixed", "KillMode=gently"), SOCKET);
    assert!(wrong.contains("KillMode") || wrong.contains("gently"), "a mistake is noticed: {wrong:?}");
    // What the units say to the program is what it takes.
    let named = SOCKET.lines().find_map(|line| line.strip_prefix("FileDescriptorName=")).expect("a name");
    assert!(SOCKET.contains(&format!("STICKY_LISTEN=systemd:{named}")));
    let said = service.lines().find_map(|line| line.strip_prefix("Environment=")).expect("variables");
    let settings = said.split(' ').map(|pair| pair.split_once('=').expect("a variable"));
    let folder = launch.folder().join("app.admin.sock");
    let launch = settings.fold(launch, |launch, (name, value)| match name {
        "STICKY_ADMIN" => launch.env(name, format!("unix:{}", folder.display())),
        _ => launch.env(name, value),
    });
    launch.up().stop();
}
