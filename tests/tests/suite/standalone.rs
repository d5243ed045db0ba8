//! Ways in that have no address of their own: unix paths, which all workers share, and proxies in front of a program
//! that serves without workers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use sticky_tests::{Client, Connection, Launch, Random, Request, Response, TestCluster};

use crate::bed::{Bed, Row};
use crate::jar::{Jar, STICKY, ticket};
use crate::keys::{Key, Moves, by_header, fresh};

const WORKERS: u16 = 4;
const SECRET: &str = "a secret of the rows, long enough";

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("keys_on_a_unix_path_keep_their_workers", keys_on_a_unix_path_keep_their_workers),
        Row::new("sessions_on_a_unix_path_stay", sessions_on_a_unix_path_stay),
        Row::new("clients_behind_a_unix_path_keep_their_workers", clients_behind_a_unix_path_keep_their_workers),
        Row::new("alone_it_believes_trusted_proxies", alone_it_believes_trusted_proxies),
        Row::new("alone_it_reads_the_header_it_is_told", alone_it_reads_the_header_it_is_told),
        Row::new("alone_it_reads_the_proxy_protocol", alone_it_reads_the_proxy_protocol),
        Row::new("alone_it_hides_the_sticky_cookie", alone_it_hides_the_sticky_cookie),
        Row::new("alone_it_shares_sticky_cookies", alone_it_shares_sticky_cookies),
    ];
    rows.map(|row| row.by_request()).into()
}

fn exchange<S: Read + Write>(connection: &mut Connection<S>, request: &Request) -> Response {
    connection.exchange(request).expect("an answer")
}

// === unix paths ===

/// On a unix path, and where that is.
fn on_path(launch: Launch) -> (TestCluster, PathBuf) {
    let path = launch.folder().join("app.sock");
    (launch.listen(format!("unix:{},127.0.0.1:0", path.display())).up(), path)
}

fn by_path(path: &PathBuf) -> Connection<UnixStream> {
    Connection::over(UnixStream::connect(path).expect("a connection"))
}

/// Whoever accepts there, and the same as by TCP.
fn keys_on_a_unix_path_keep_their_workers(bed: &Bed) {
    let (cluster, path) = on_path(by_header(bed, WORKERS));
    let keys = fresh(&mut Random::drawn(), 40).into_iter().map(|key| Key::learn(&cluster.client(), key));
    let keys: Vec<_> = keys.collect();
    let mut shared = by_path(&path);
    for key in keys.iter().cycle().take(200) {
        key.check(&exchange(&mut shared, &key.on(Request::get("/"))));
        key.check(&exchange(&mut by_path(&path), &key.on(Request::post("/echo", b"body"))));
    }
    Moves::at_end_of(&cluster).sent();
}

/// With each of the ways to keep a session that is made inside a request.
fn sessions_on_a_unix_path_stay(bed: &Bed) {
    for (affinity, login) in
        [("sticky-cookie", "/login"), ("cookie:session+learn", "/login"), ("cookie:session", "/own-login")]
    {
        let launch = bed.launch().workers(WORKERS).env("STICKY_AFFINITY", affinity);
        let (cluster, path) = on_path(launch.env("STICKY_PLACEMENT", "round-robin"));
        let (mut workers, mut shared) = (BTreeSet::new(), by_path(&path));
        for _ in 0..40 {
            let mut jar = Jar::default();
            let logged_in = jar.exchange(&mut by_path(&path), Request::post(login, b""));
            workers.insert(logged_in.worker());
            for _ in 0..5 {
                for connection in [&mut shared, &mut by_path(&path)] {
                    let answer = jar.exchange(connection, Request::get("/me"));
                    assert_eq!((answer.status, answer.text()), (200, logged_in.text()), "{affinity}");
                }
            }
        }
        assert!(workers.len() > 1, "{affinity}: {workers:?}");
        Moves::at_end_of(&cluster).sent();
    }
}

/// A proxy that is reached by a path is trusted by the preset for it, and names clients as any other.
fn clients_behind_a_unix_path_keep_their_workers(bed: &Bed) {
    let launch = bed.launch().workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "unix,loopback");
    let (cluster, path) = on_path(launch);
    let mut shared = by_path(&path);
    let mut workers = BTreeSet::new();
    for number in 1..=60 {
        let client = Ipv4Addr::new(203, 0, 113, number).to_string();
        let request = Request::get("/whoami").header("x-forwarded-for", &client);
        let mut by_tcp = cluster.client().connect().expect("a connection");
        let answers =
            [exchange(&mut shared, &request), exchange(&mut by_path(&path), &request), exchange(&mut by_tcp, &request)];
        assert!(answers.iter().all(|answer| answer.text() == client), "{answers:?}");
        let found: BTreeSet<u16> = answers.iter().map(Response::worker).collect();
        assert_eq!(found.len(), 1, "{client}: {found:?}");
        workers.extend(found);
    }
    assert_eq!(workers.len(), usize::from(WORKERS));
    Moves::at_end_of(&cluster).sent();
}

// === without workers ===

/// Serves in one process.
fn alone(bed: &Bed) -> Launch {
    bed.launch().workers(0)
}

fn whoami(client: &Client, headers: &[&str]) -> String {
    let request = headers.iter().fold(Request::get("/whoami"), |request, header| request.line(*header));
    exchange(&mut client.connect().expect("a connection"), &request).text()
}

fn alone_it_believes_trusted_proxies(bed: &Bed) {
    let cluster = alone(bed).env("STICKY_TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8").up();
    let trusted = cluster.client();
    for (headers, expected) in [
        (&[][..], "127.0.0.1"),
        (&["x-forwarded-for: 203.0.113.7"], "203.0.113.7"),
        (&["x-forwarded-for: 192.0.2.1, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (&["x-forwarded-for: 192.0.2.1", "x-forwarded-for: 203.0.113.7"], "203.0.113.7"),
        (&["x-forwarded-for: 2001:db8::7"], "2001:db8::7"),
        (&["x-forwarded-for: ::ffff:203.0.113.7"], "203.0.113.7"),
        (&["x-forwarded-for: 10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (&["forwarded: for=203.0.113.7", "x-real-ip: 203.0.113.8"], "127.0.0.1"),
    ] {
        assert_eq!(whoami(&trusted, headers), expected, "{headers:?}");
        let stranger = Ipv4Addr::new(127, 0, 0, 2);
        assert_eq!(whoami(&cluster.client().from(stranger), headers), stranger.to_string(), "{headers:?}");
    }
    // One connection of a proxy, one client after the other.
    let mut shared = trusted.connect().expect("a connection");
    for number in 1..=20 {
        let client = format!("203.0.113.{number}");
        let request = Request::get("/whoami").header("x-forwarded-for", &client);
        assert_eq!(exchange(&mut shared, &request).text(), client);
    }
    cluster.stop();
}

fn alone_it_reads_the_header_it_is_told(bed: &Bed) {
    for (name, value) in [("forwarded", "for=\"[2001:db8::7]:4711\";proto=http"), ("x-real-ip", "2001:db8::7")] {
        let launch = alone(bed).env("STICKY_TRUSTED_PROXIES", "loopback").env("STICKY_CLIENT_ADDRESS_HEADER", name);
        let cluster = launch.up();
        let header = format!("{name}: {value}");
        assert_eq!(whoami(&cluster.client(), &[header.as_str(), "x-forwarded-for: 192.0.2.1"]), "2001:db8::7");
        cluster.stop();
    }
}

/// Version 2 for a connection from this address.
fn version_2(address: Ipv4Addr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C".to_vec();
    header.extend(address.octets());
    header.extend([192, 0, 2, 1]);
    header.extend(4711_u16.to_be_bytes());
    header.extend(80_u16.to_be_bytes());
    header
}

/// From trusted peers, in both versions and in any pieces; from others it is no HTTP.
fn alone_it_reads_the_proxy_protocol(bed: &Bed) {
    let launch = alone(bed).env("STICKY_TRUSTED_PROXIES", "127.0.0.1").env("STICKY_PROXY_PROTOCOL", "on");
    let cluster = launch.up();
    let client = Ipv4Addr::new(203, 0, 113, 7);
    let version_1 = format!("PROXY TCP4 {client} 192.0.2.1 4711 80\r\n").into_bytes();
    for header in [version_1, version_2(client)] {
        let bytes = [header.clone(), Request::get("/peer").bytes()].concat();
        for split in 0..bytes.len() {
            let mut connection = cluster.client().connect().expect("a connection");
            connection.send(&bytes[..split]).and_then(|()| connection.send(&bytes[split..])).expect("sent");
            for _ in 0..2 {
                let answer = connection.response().expect("an answer");
                assert_eq!(answer.text(), format!("{client}:4711"), "split at {split}");
                connection.send(Request::get("/peer").bytes()).expect("sent");
            }
        }
        let stranger = cluster.client().from([127, 0, 0, 2]);
        let mut connection = stranger.connect().expect("a connection");
        connection.send(&bytes).expect("sent");
        let answer = connection.response();
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 400), "{answer:?}");
        assert_eq!(whoami(&stranger, &[]), "127.0.0.2", "without it a stranger is served");
    }
    cluster.stop();
}

/// The application sees what it would see with workers.
fn alone_it_hides_the_sticky_cookie(bed: &Bed) {
    let cluster = alone(bed).env("STICKY_AFFINITY", "sticky-cookie").up();
    let mut jar = Jar::with("a", "1");
    let answer = jar.ask(&cluster.client(), Request::get("/cookies"));
    assert_eq!(answer.text(), "a=1");
    assert!(ticket(&answer).is_some(), "{answer:?}");
    let answer = jar.ask(&cluster.client().from([127, 0, 0, 3]), Request::get("/cookies"));
    assert_eq!((answer.text().as_str(), ticket(&answer)), ("a=1", None));
    cluster.stop();
}

/// The cookies of a machine that serves alone are good on one with workers and the same secret, and the other way.
fn alone_it_shares_sticky_cookies(bed: &Bed) {
    let sealed = |launch: Launch| launch.env("STICKY_AFFINITY", "sticky-cookie").env("STICKY_COOKIE_SECRET", SECRET);
    let (alone, cluster) = (sealed(alone(bed)).up(), sealed(bed.launch().workers(WORKERS)).up());
    let cookie = ticket(&alone.client().get("/").expect("an answer")).expect("a ticket");
    for address in Client::loopback_addresses(12) {
        let mut jar = Jar::with(STICKY, &cookie);
        let answer = jar.ask(&cluster.client().from(address), Request::get("/"));
        assert_eq!((answer.worker(), ticket(&answer)), (0, None), "{address}");
    }
    let of_zero = Client::loopback_addresses(500).find_map(|address| {
        let answer = cluster.client().from(address).get("/").expect("an answer");
        (answer.worker() == 0).then(|| ticket(&answer).expect("a ticket"))
    });
    let mut jar = Jar::with(STICKY, &of_zero.expect("worker 0 has clients"));
    assert_eq!(ticket(&jar.ask(&alone.client(), Request::get("/"))), None);
    alone.stop();
    Moves::at_end_of(&cluster).sent();
}
