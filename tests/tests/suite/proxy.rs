//! What only proxies have to do: pass everything on as it is, in little memory, and lose nothing when they are killed.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::{Client, Request, Response, TestCluster};

use crate::bed::{Bed, Dispatch, Row};
use crate::drain::websocket;
use crate::kill_under_load::SetOnDrop;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("killed_proxies_lose_only_what_they_carried", killed_proxies_lose_only_what_they_carried).alone(),
        Row::new("several_proxies_share_the_port", several_proxies_share_the_port),
        Row::new("a_gibibyte_passes_both_ways_in_little_memory", a_gibibyte_passes_both_ways).alone(),
        Row::new("websockets_are_the_same_as_without_a_proxy", websockets_are_the_same),
        Row::new("sockets_can_be_refused", sockets_can_be_refused),
        Row::new("slow_workers_are_timed", slow_workers_are_timed),
        Row::new("silent_tunnels_are_timed", silent_tunnels_are_timed),
        Row::new("connection_headers_end_at_the_proxy", connection_headers_end_at_the_proxy),
        Row::new("bodies_wait_until_they_are_wanted", bodies_wait_until_they_are_wanted),
    ];
    rows.map(|row| row.only(Dispatch::Proxy)).into()
}

// === kill -9 ===

const REQUESTS: usize = 10_000;
const KILLS: usize = 6;
const CLIENTS: u32 = 8;

/// A process that lived longer than a second is replaced at once.
const LIFE: Duration = Duration::from_millis(1_200);

/// From just before a signal until everything that its victim carried is certain to have been told.
struct Kill {
    from: Instant,
    until: Instant,
}

/// A request that got no answer of its worker, from when to when.
struct Loss {
    from: Instant,
    until: Instant,
    what: String,
}

fn killed_proxies_lose_only_what_they_carried(bed: &Bed) {
    let cluster = bed.launch().workers(3).env("STICKY_FAILOVER", "20s").up();
    let (asked, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (kills, losses) = thread::scope(|scope| {
        let ask = |address| {
            let (client, asked, done) = (cluster.client().from(address).timeout(PATIENCE), &asked, &done);
            scope.spawn(move || insist(&client, asked, done))
        };
        let clients: Vec<_> = Client::loopback_addresses(CLIENTS).map(ask).collect();
        let kills = {
            let _ends_the_clients = SetOnDrop(&done);
            kill_in_turn(&cluster, &asked)
        };
        let losses: Vec<Loss> =
            clients.into_iter().flat_map(|client| client.join().expect("no client failed")).collect();
        (kills, losses)
    });
    let has_reason = |loss: &Loss| kills.iter().any(|kill| loss.from < kill.until && kill.from < loss.until);
    for loss in &losses {
        assert!(has_reason(loss), "lost without a reason: {}", loss.what);
    }
    println!("{} kills, {} requests, {} lost", kills.len(), asked.load(Ordering::Relaxed), losses.len());
    cluster.stop();
}

/// Kills a proxy, then a worker, and so on, until enough has been asked.
fn kill_in_turn(cluster: &TestCluster, asked: &AtomicUsize) -> Vec<Kill> {
    let mut kills = Vec::new();
    let mut born = Instant::now();
    while asked.load(Ordering::Relaxed) < REQUESTS || kills.len() < KILLS {
        if born.elapsed() < LIFE {
            process::let_pass(Duration::from_millis(20));
            continue;
        }
        let (proxies, workers) = (cluster.proxies(), cluster.workers());
        let victim = if kills.len() % 2 == 0 { proxies[0] } else { workers[kills.len() / 2 % workers.len()] };
        let from = Instant::now();
        process::signal(victim, Signal::KILL);
        eventually("another has come", PATIENCE, || {
            (cluster.proxies().len(), cluster.workers().len()) == (proxies.len(), workers.len())
                && !process::is_alive(victim)
        });
        // Its successor answers, so everything before has been told.
        assert_eq!(cluster.client().timeout(PATIENCE).get("/").expect("an answer").status, 200);
        kills.push(Kill { from, until: Instant::now() });
        born = Instant::now();
    }
    kills
}

/// Asks until it is done, a few times on each connection; tells what it has lost.
fn insist(client: &Client, asked: &AtomicUsize, done: &AtomicBool) -> Vec<Loss> {
    let owner = client.get("/").expect("an answer").worker();
    let mut losses = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let mut connection = client.connect().expect("somebody always listens");
        // Who was killed since the last answer has taken the connection along, however late that is noticed.
        let mut from = Instant::now();
        for number in 0..20 {
            asked.fetch_add(1, Ordering::Relaxed);
            let request = if number % 2 == 0 { Request::get("/") } else { Request::post("/echo", "body") };
            match connection.exchange(&request).and_then(Response::or_lost) {
                Ok(answer) => {
                    assert_eq!((answer.status, answer.worker()), (200, owner));
                    from = Instant::now();
                }
                Err(error) => {
                    losses.push(Loss { from, until: Instant::now(), what: format!("{} {error}", request.target()) });
                    break;
                }
            }
        }
    }
    losses
}

fn several_proxies_share_the_port(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_PROXY_WORKERS", "2").up();
    let before = cluster.proxies();
    assert_eq!(before.len(), 2);
    let pids = cluster.pids(2);
    process::stop(before[0]);
    // The other one takes what comes, though this one stands still.
    for address in Client::loopback_addresses(20) {
        let answer = cluster.client().from(address).get("/").expect("an answer");
        assert_eq!(pids[&answer.worker()], answer.pid());
    }
    process::signal(before[0], Signal::KILL);
    eventually("there are two again", PATIENCE, || {
        let proxies = cluster.proxies();
        proxies.len() == 2 && !proxies.contains(&before[0])
    });
    cluster.stop();
}

// === bodies ===

const GIBIBYTE: usize = 1 << 30;

fn peak(pid: u32) -> u64 {
    let text = process::status(pid, "VmHWM").expect("its memory");
    text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).expect("kilobytes") * 1024
}

/// At once, and at the pace of a client that sometimes does not read.
fn a_gibibyte_passes_both_ways(bed: &Bed) {
    let cluster = bed.launch().workers(1).up();
    let proxy = cluster.proxies()[0];
    assert_eq!(cluster.client().post("/mirror", b"hello").expect("an answer").text(), "hello");
    let before = peak(proxy);
    let stream = cluster.client().timeout(PATIENCE).connect().expect("a connection").into_stream();
    let mut sender = stream.try_clone().expect("the same connection");
    let sending = thread::spawn(move || {
        let head =
            format!("POST /mirror HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {GIBIBYTE}\r\n\r\n");
        sender.write_all(head.as_bytes()).expect("sent");
        let piece = vec![b'x'; 1 << 20];
        (0..GIBIBYTE >> 20).for_each(|_| sender.write_all(&piece).expect("sent"));
    });
    let (mut stream, mut received, mut piece) = (stream, 0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut piece).expect("no reset") {
            0 => break,
            length => received += length,
        }
        if received >> 28 != (received - 1) >> 28 {
            // Long enough for all buffers to be full.
            process::let_pass(Duration::from_millis(100));
        }
    }
    sending.join().expect("all was sent");
    assert!(received > GIBIBYTE, "only {received} bytes came back");
    let grown = peak(proxy) - before;
    println!("the proxy has grown by {} KiB", grown >> 10);
    assert!(grown < 32 << 20, "{grown} bytes more");
    cluster.stop();
}

fn bodies_wait_until_they_are_wanted(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut connection = cluster.client().connect().expect("a connection");
    let head = "POST /echo HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    connection.send(head).expect("sent");
    connection.read_until("100 Continue\r\n\r\n").expect("it is wanted");
    connection.send("hello").expect("sent");
    assert_eq!(connection.response().expect("an answer").text(), "hello");
    // An answer that needs no body comes without it; actix asks for it all the same.
    let mut connection = cluster.client().connect().expect("a connection");
    connection.send(head.replace("/echo", "/nowhere")).expect("sent");
    assert_eq!(connection.response().expect("an answer").status, 404);
    cluster.stop();
}

// === upgrades ===

/// A frame as clients send it, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).expect("short")),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).expect("a short length").to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Everything that comes back for a conversation with fragments, control frames between them, 16 MiB in one frame, and a
/// close with a code, after which only the writing half is closed where all is answered then.
fn conversation(bed: &Bed, cluster: &TestCluster) -> Vec<u8> {
    let half_closes = bed.answers_half_closed_sockets();
    let mut connection = cluster.client().timeout(PATIENCE).connect().expect("a connection");
    let upgrade = "GET /ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    connection.send(upgrade).expect("sent");
    connection.read_until("\r\n\r\n").expect("an upgrade");
    let (mut stream, ahead) = connection.into_parts();
    // The answer names its process.
    let begins = ahead.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    let mut sender = stream.try_clone().expect("the same connection");
    let sending = thread::spawn(move || {
        let large = vec![7; (16 << 20) - 100];
        let frames = [
            frame(0x01, b"frag"),
            frame(0x89, b"between"),
            frame(0x00, b"men"),
            frame(0x80, b"ts"),
            frame(0x82, &large),
            frame(0x8a, b"unasked"),
            frame(0x81, &[b'x'; 300]),
            frame(0x88, &[&4_000_u16.to_be_bytes()[..], b"bye"].concat()),
        ];
        frames.iter().for_each(|frame| sender.write_all(frame).expect("sent"));
        if half_closes {
            sender.shutdown(std::net::Shutdown::Write).expect("half closed");
        }
    });
    let mut all = ahead[begins..].to_vec();
    stream.read_to_end(&mut all).expect("a clean end");
    sending.join().expect("all was sent");
    all
}

fn websockets_are_the_same(bed: &Bed) {
    let (proxied, direct) =
        (bed.launch().workers(1).up(), bed.under_dispatch(Dispatch::Handoff).launch().workers(1).up());
    let (through, without) = (conversation(bed, &proxied), conversation(bed, &direct));
    // actix closes where a frame is too large for it.
    assert!(without.len() > 16);
    assert!(through == without, "{} bytes, and {} without a proxy", through.len(), without.len());
    proxied.stop();
    direct.stop();
}

const NO_SOCKETS: &str = r#"{"error":"proxy_error","reason":"no_sockets"}"#;

fn sockets_can_be_refused(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_NO_SOCKETS", "on").up();
    let mut connection = cluster.client().connect().expect("a connection");
    let upgrade = |protocol| Request::get("/").header("connection", "upgrade").header("upgrade", protocol);
    for _ in 0..3 {
        let answer = connection.exchange(&upgrade("websocket")).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (501, NO_SOCKETS));
        assert_eq!(connection.exchange(&upgrade("h2c")).expect("an answer").status, 200, "it goes on without");
    }
    cluster.stop();
}

fn slow_workers_are_timed(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_RESPONSE_TIMEOUT", "300ms").up();
    let mut connection = cluster.client().connect().expect("a connection");
    let answer = connection.get("/sleep/60000").expect("an answer");
    let expected = r#"{"error":"proxy_error","reason":"worker_timed_out"}"#;
    assert_eq!((answer.status, answer.text().as_str()), (504, expected));
    assert_eq!(connection.get("/sleep/1").expect("an answer").text(), "slept");
    // Only its beginning is timed.
    assert_eq!(connection.get("/chunked/100000").expect("an answer").body.len(), 100_000);
    cluster.stop();
}

fn silent_tunnels_are_timed(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_TUNNEL_IDLE_TIMEOUT", "400ms").up();
    let mut socket = websocket(&cluster);
    let begun = Instant::now();
    for _ in 0..3 {
        process::let_pass(Duration::from_millis(200));
        socket.send(tokio_tungstenite::tungstenite::Message::text("still here")).expect("sent");
        assert!(socket.read().expect("an echo").is_text());
    }
    assert!(socket.read().is_err(), "it is closed");
    assert!(begun.elapsed() >= Duration::from_millis(1_000));
    cluster.stop();
}

// === headers ===

/// What a worker says of its own connection is not said to the client, and the other way round.
fn connection_headers_end_at_the_proxy(bed: &Bed) {
    let cluster = bed.launch().up();
    let mut connection = cluster.client().connect().expect("a connection");
    let request = Request::post("/echo", "hello").header("connection", "keep-alive, x-hop, host, content-length");
    let request = request.header("keep-alive", "timeout=1").header("x-hop", "1").header("proxy-connection", "close");
    for _ in 0..3 {
        let answer = connection.exchange(&request).expect("an answer");
        assert_eq!((answer.status, answer.text().as_str(), answer.announces_close()), (200, "hello", false));
    }
    // Whoever says that nothing follows gets his answer, and an end.
    let last = connection.exchange(&Request::get("/").header("connection", "close")).expect("an answer");
    assert!(last.announces_close() && connection.read_to_end().expect("an end").is_empty());
    cluster.stop();
}
