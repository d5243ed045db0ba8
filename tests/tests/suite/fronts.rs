//! Real balancers in front, with their default way of working: many clients on few connections, in any order.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sticky_tests::{Client, Connection, Front, Random, Request, TestCluster};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::bed::{Bed, Row};
use crate::keys::Moves;

const WORKERS: u16 = 4;
const CLIENTS: usize = 100;
/// How many of them ask at the same moment, and so how many connections the balancer needs.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 12;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("clients_behind_nginx_keep_their_workers", clients_behind_nginx_keep_their_workers),
        Row::new("clients_behind_nginx_on_a_unix_path_keep_their_workers", clients_behind_nginx_on_a_unix_path),
        Row::new("hostile_client_behind_nginx_moves_nobody", hostile_client_behind_nginx_moves_nobody),
        Row::new("everything_passes_through_nginx", everything_passes_through_nginx),
        Row::new("clients_behind_haproxy_keep_their_workers", clients_behind_haproxy_keep_their_workers),
        Row::new("clients_behind_haproxy_and_proxy_protocol", clients_behind_haproxy_and_proxy_protocol),
        Row::new("hostile_client_behind_haproxy_moves_nobody", hostile_client_behind_haproxy_moves_nobody),
        Row::new("everything_passes_through_haproxy", everything_passes_through_haproxy),
        Row::new("proxy_protocol_is_believed_of_trusted_peers", proxy_protocol_is_believed_of_trusted_peers),
    ];
    rows.map(|row| row.by_request()).into()
}

// === the balancers ===

fn nginx(cluster: &TestCluster, upstream: &str) -> Front {
    let http = format!(
        "upstream app {{ server {upstream}; keepalive 4; }}\n\
         map $http_upgrade $option {{ default upgrade; '' ''; }}\n\
         server {{ listen LISTEN; client_max_body_size 0; large_client_header_buffers 8 64k;\n\
         location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_next_upstream off;\n\
         proxy_set_header Connection $option; proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
    );
    Front::nginx(cluster.folder(), &http)
}

fn haproxy(cluster: &TestCluster, mode: &str, server: &str) -> Front {
    let config = format!(
        "global\n  maxconn 1000\n  nbthread 1\n\
         defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  timeout http-request 10s\n  {mode}\n\
         frontend in\n  bind fd@3\n  default_backend app\n\
         backend app\n  server app {} {server}\n",
        cluster.address()
    );
    Front::haproxy(cluster.folder(), &config)
}

/// Connections shared by all clients, whose addresses it adds at the right of X-Forwarded-For.
const SHARED: &str = "mode http\n  option forwardfor\n  http-reuse always";

// === clients ===

/// One client's address and its connections to the balancer, as a browser would keep one.
struct Browser {
    address: Ipv4Addr,
    connection: Connection,
    worker: Option<u16>,
}

impl Browser {
    fn of(client: &Client, address: Ipv4Addr) -> Self {
        let connection = client.clone().from(address).connect().expect("a connection to the balancer");
        Self { address, connection, worker: None }
    }

    /// The application sees this client's address, always in the same worker.
    fn ask(&mut self) {
        let address = self.address;
        let answer = self.connection.exchange(&Request::get("/whoami"));
        let answer = answer.unwrap_or_else(|error| panic!("{address}: {error}"));
        assert_eq!((answer.status, answer.text()), (200, address.to_string()), "{answer:?}");
        let worker = *self.worker.get_or_insert(answer.worker());
        assert_eq!(answer.worker(), worker, "{address} was answered by another worker");
    }
}

/// A hundred clients behind one balancer, a few of them at each moment. Answers the worker of each.
fn hundred_clients(front: &Front) -> BTreeMap<Ipv4Addr, u16> {
    let addresses: Vec<Ipv4Addr> = Client::loopback_addresses(u32::try_from(CLIENTS).expect("a hundred")).collect();
    let run = |addresses: Vec<Ipv4Addr>, mut random: Random| {
        let client = front.client();
        move || {
            let mut browsers: Vec<_> = addresses.iter().map(|address| Browser::of(&client, *address)).collect();
            for _ in 0..ROUNDS * browsers.len() {
                let chosen = random.below(browsers.len());
                browsers[chosen].ask();
            }
            browsers.iter_mut().for_each(Browser::ask);
            browsers
                .into_iter()
                .map(|browser| (browser.address, browser.worker.expect("an answer")))
                .collect::<Vec<_>>()
        }
    };
    let random = Random::drawn();
    thread::scope(|scope| {
        let shares = addresses.chunks(CLIENTS.div_ceil(AT_ONCE)).enumerate();
        let clients: Vec<_> =
            shares.map(|(number, share)| scope.spawn(run(share.to_vec(), random.fork(number)))).collect();
        clients.into_iter().flat_map(|client| client.join().expect("no client failed")).collect()
    })
}

fn are_all_workers(places: &BTreeMap<Ipv4Addr, u16>) {
    let mut found: Vec<u16> = places.values().copied().collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, (0..WORKERS).collect::<Vec<_>>(), "every worker has clients");
}

/// As each would be placed without a balancer in front.
fn are_placed_as_without_balancer(cluster: &TestCluster, places: &BTreeMap<Ipv4Addr, u16>) {
    for (address, worker) in places {
        let answer = cluster.client().from(*address).get("/").expect("an answer");
        assert_eq!(answer.worker(), *worker, "{address} without a balancer");
    }
}

/// Connections were shared, or they would not have moved so often.
fn were_shared(bed: &Bed, cluster: &TestCluster) {
    Moves::at_end_of(cluster).are_at_least(bed, (CLIENTS * ROUNDS / 3) as u64);
}

// === rows ===

fn clients_behind_nginx_keep_their_workers(bed: &Bed) {
    let cluster = bed.launch().workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "loopback").up();
    let front = nginx(&cluster, &cluster.address().to_string());
    let places = hundred_clients(&front);
    are_all_workers(&places);
    are_placed_as_without_balancer(&cluster, &places);
    drop(front);
    were_shared(bed, &cluster);
}

fn clients_behind_nginx_on_a_unix_path(bed: &Bed) {
    // Both sides of a unix path must be the same user, or one of them root.
    let launch = bed.launch().unprivileged().workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "unix");
    let path = launch.folder().join("tmp/app.sock");
    let cluster = launch.listen(format!("127.0.0.1:0,unix:{}", path.display())).up();
    let front = nginx(&cluster, &format!("unix:{}", path.display()));
    let places = hundred_clients(&front);
    are_all_workers(&places);
    are_placed_as_without_balancer(&cluster, &places);
    drop(front);
    were_shared(bed, &cluster);
}

fn clients_behind_haproxy_keep_their_workers(bed: &Bed) {
    let cluster = bed.launch().workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "loopback").up();
    let front = haproxy(&cluster, SHARED, "");
    let places = hundred_clients(&front);
    are_all_workers(&places);
    are_placed_as_without_balancer(&cluster, &places);
    drop(front);
    were_shared(bed, &cluster);
}

/// One connection for each client, which begins with the client's address.
fn clients_behind_haproxy_and_proxy_protocol(bed: &Bed) {
    for version in ["send-proxy", "send-proxy-v2"] {
        let launch = bed.launch().workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "loopback");
        let cluster = launch.env("STICKY_PROXY_PROTOCOL", "on").up();
        let front = haproxy(&cluster, "mode tcp", version);
        are_all_workers(&hundred_clients(&front));
        drop(front);
        Moves::at_end_of(&cluster).sent();
    }
}

/// A cluster that believes 127.0.0.1 alone: clients, with their other addresses, must not be.
fn behind_one_address(bed: &Bed) -> TestCluster {
    bed.launch().workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "127.0.0.1").up()
}

fn hostile_client_behind_nginx_moves_nobody(bed: &Bed) {
    let cluster = behind_one_address(bed);
    let front = nginx(&cluster, &cluster.address().to_string());
    hostile_client_moves_nobody(&front);
    drop(front);
    were_shared(bed, &cluster);
}

fn hostile_client_behind_haproxy_moves_nobody(bed: &Bed) {
    let cluster = behind_one_address(bed);
    let front = haproxy(&cluster, SHARED, "");
    hostile_client_moves_nobody(&front);
    drop(front);
    were_shared(bed, &cluster);
}

fn hostile_client_moves_nobody(front: &Front) {
    let done = AtomicBool::new(false);
    let (places, attacks) = thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut attacks = 0;
            while !done.load(Ordering::Relaxed) {
                attack(&front.client().from(ATTACKER));
                attacks += 1;
            }
            attacks
        });
        let places = thread::scope(|scope| scope.spawn(|| hundred_clients(front)).join());
        done.store(true, Ordering::Relaxed);
        (places.expect("no client was harmed"), attacker.join().expect("the attacker failed"))
    });
    assert!(attacks > 0);
    are_all_workers(&places);
}

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 66, 66, 66);

/// One of each kind that gets, whole or in parts, through a balancer. Where there is an answer of the application it
/// must be about the attacker.
fn attack(client: &Client) {
    let victim = Client::loopback_addresses(1).next().expect("an address").to_string();
    let whoami = || Request::get("/whoami");
    let smuggled = String::from_utf8(whoami().header("x-forwarded-for", &victim).bytes()).expect("text");
    let requests = [
        whoami().header("x-forwarded-for", &victim),
        whoami()
            .header("x-forwarded-for", &format!("{victim}, {victim}"))
            .header("forwarded", &format!("for={victim}")),
        whoami().header("x-forwarded-for", "\u{1f600}").header("x-real-ip", &victim),
        whoami().header("connection", "x-forwarded-for, close"),
        whoami().header("connection", "keep-alive, x-forwarded-for"),
        whoami().header("x_forwarded_for", &victim).header("X-FORWARDED-FOR", &victim),
        whoami().header("upgrade", "h2c").header("connection", "upgrade, http2-settings").header("http2-settings", ""),
        whoami().header("upgrade", "websocket").header("connection", "upgrade"),
        whoami().header("cookie", &"c".repeat(30_000)),
        whoami().header("expect", "100-continue"),
        whoami().header("content-length", "0").header("content-length", "0"),
        whoami().line(format!("content-length: {}", smuggled.len())).line("transfer-encoding: chunked"),
        Request::post("/whoami", smuggled.clone()),
        Request::post_chunked("/nowhere", smuggled.clone(), 7, &["x-forwarded-for: 1.2.3.4"]),
        Request::new("HEAD", "/bytes/1000000"),
        Request::get("http://other/whoami").header("x-forwarded-for", &victim),
        Request::get("/bytes/3000000"),
    ];
    for request in requests {
        let Ok(mut connection) = client.connect() else { continue };
        let _ = connection.send(request.bytes());
        let _ = connection.send(&smuggled);
        // The first answer and, where it did not end the connection, the second. Whoever only reads a bit of a large
        // one leaves the balancer with the rest.
        for method in [request.method(), "GET"] {
            match connection.response_to(method) {
                Ok(answer)
                    if answer.status == 200 && answer.header("x-worker").is_some() && answer.body.len() < 100 =>
                {
                    assert!(answer.text() != victim, "{request:?}: {answer:?}");
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    leave_early(client);
}

/// Half a request, half a body, and half an answer.
fn leave_early(client: &Client) {
    let parts = [
        b"GET /whoami HTTP/1.1\r\nhost: te".to_vec(),
        b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nhalf".to_vec(),
        b"POST /upload HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal".to_vec(),
        Request::get("/bytes/5000000").bytes(),
        Request::get("/sleep/50").bytes(),
    ];
    for part in parts {
        if let Ok(mut connection) = client.connect() {
            let _ = connection.send(part);
        }
    }
}

fn everything_passes_through_nginx(bed: &Bed) {
    let cluster = behind_one_address(bed);
    let front = nginx(&cluster, &cluster.address().to_string());
    everything_passes(&front, &cluster);
}

fn everything_passes_through_haproxy(bed: &Bed) {
    let cluster = behind_one_address(bed);
    let front = haproxy(&cluster, SHARED, "");
    everything_passes(&front, &cluster);
}

fn everything_passes(front: &Front, cluster: &TestCluster) {
    let mut random = Random::drawn();
    for address in Client::loopback_addresses(12) {
        let client = front.client().from(address);
        let mut connection = client.connect().expect("a connection");
        let worker = connection.get("/").expect("an answer").worker();
        for size in [0, 10, 3_000_000] {
            let body = random.bytes(size);
            for request in
                [Request::post("/echo", body.clone()), Request::post_chunked("/echo", body.clone(), 70_000, &[])]
            {
                let answer = connection.exchange_at_once(&request).expect("an answer");
                assert_eq!((answer.status, answer.worker()), (200, worker));
                assert!(answer.body == body, "other bytes came back");
            }
        }
        let answer = connection.exchange(&Request::new("HEAD", "/bytes/10")).expect("an answer");
        assert_eq!((answer.status, answer.worker()), (200, worker));
        for status in [204, 304] {
            let answer = connection.get(&format!("/status/{status}")).expect("an answer");
            assert_eq!((answer.status, answer.worker()), (status, worker));
        }
        websocket_passes(connection, worker);
    }
    Moves::at_end_of(cluster).sent();
}

fn websocket_passes(connection: Connection, worker: u16) {
    let (mut socket, _) = tungstenite::client("ws://test/ws", connection.into_stream()).expect("an upgrade");
    assert_eq!(socket.read().expect("a first message"), Message::text(format!("worker: {worker}")));
    for size in [0, 100, 200_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).expect("sent");
        assert_eq!(socket.read().expect("an echo"), message);
    }
}

/// The line in front of a connection, from a trusted peer and from another.
fn proxy_protocol_is_believed_of_trusted_peers(bed: &Bed) {
    let launch = bed.launch().workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "127.0.0.1");
    let cluster = launch.env("STICKY_PROXY_PROTOCOL", "on").up();
    let line = |address: &str| format!("PROXY TCP4 {address} 192.0.2.1 4711 80\r\n");
    let mut workers = BTreeMap::new();
    for number in 1..=50 {
        let address = format!("203.0.113.{number}");
        // Twice, and once in two segments: the same worker each time.
        for split in [0, 0, 12] {
            let mut connection = cluster.client().connect().expect("a connection");
            let bytes = [line(&address).into_bytes(), Request::get("/peer").bytes()].concat();
            connection.send(&bytes[..split]).and_then(|()| connection.send(&bytes[split..])).expect("sent");
            for _ in 0..3 {
                let answer = connection.response().expect("an answer");
                assert_eq!(answer.text().parse(), Ok(SocketAddr::new(address.parse().expect("an address"), 4711)));
                assert_eq!(*workers.entry(address.clone()).or_insert(answer.worker()), answer.worker(), "{address}");
                connection.send(Request::get("/peer").bytes()).expect("sent");
            }
        }
    }
    let forger = cluster.client().from(Ipv4Addr::new(127, 0, 0, 9));
    let mut connection = forger.connect().expect("a connection");
    connection.send(line("203.0.113.1")).and_then(|()| connection.send(Request::get("/peer").bytes())).expect("sent");
    let answer = connection.response();
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 400), "{answer:?}");
    assert!(forger.get("/whoami").is_ok_and(|answer| answer.text() == "127.0.0.9"), "without the line it is served");
    Moves::at_end_of(&cluster).sent();
}
