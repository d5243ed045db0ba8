//! Hostile bytes over raw sockets: refused, or framed as the framework alone frames them; and nobody else is moved, or waits.

use std::io::{ErrorKind, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sticky_tests::client::send_in_pieces;
use sticky_tests::cluster::PATIENCE;
use sticky_tests::process;
use sticky_tests::{Client, Connection, Launch, Random, Request, Response, TestCluster, journal};

use crate::bed::{Bed, Dispatch, Framework, Row};
use crate::handoff::two;
use crate::keys::{Key, KeyIn, Moves, by_header, fresh};
use crate::shapes::{self, Fate, Shape};

const LIMIT: Duration = Duration::from_millis(400);
const LIMIT_TEXT: &str = "400ms";

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("hostile_shapes_are_refused_or_framed", hostile_shapes_are_refused_or_framed),
        Row::new("random_shapes_are_framed_as_without_handoff", random_shapes_are_framed_as_without_handoff),
        Row::new("http2_after_the_first_message_is_refused", http2_after_the_first_message_is_refused),
        Row::new("hostile_clients_move_nobody", hostile_clients_move_nobody).alone(),
        Row::new("silence_after_a_move_is_timed", silence_after_a_move_is_timed),
        Row::new("slow_heads_are_timed_wherever_they_are", slow_heads_are_timed_wherever_they_are),
    ];
    let counted = Row::new("raw_programs_get_one_request_for_one", raw_programs_get_one_request_for_one);
    let counted = counted.only(Dispatch::Proxy).only_with(Framework::Core);
    rows.map(|row| row.by_request()).into_iter().chain([counted]).collect()
}

/// The request that is hidden in or behind each shape. Nobody must answer it unless the shape before it was served.
const SMUGGLED: &str = "smuggled";

fn smuggled(key: &Key) -> Vec<u8> {
    key.on(Request::get("/whoami")).header(journal::REQUEST_NAME, SMUGGLED).bytes()
}

fn good(key: &Key) -> Request {
    key.on(Request::get("/")).header(journal::REQUEST_NAME, "good")
}

/// A worker that keeps a journal of what it has executed.
fn with_journal(bed: &Bed) -> (TestCluster, Vec<Key>) {
    let launch = by_header(bed, 2);
    let path = launch.folder().join("journal");
    let cluster = launch.env(journal::VARIABLE, path).up();
    let keys = Key::of_each_worker(&cluster.client(), 2);
    (cluster, keys)
}

/// Where on its connection a shape comes.
#[derive(Clone, Copy, Debug)]
enum Position {
    First,
    AfterAnswer,
    Pipelined,
}

fn hostile_shapes_are_refused_or_framed(bed: &Bed) {
    let (cluster, keys) = with_journal(bed);
    let mut refused = 0;
    for (key, other) in [(&keys[0], &keys[1]), (&keys[1], &keys[0])] {
        for shape in shapes::on(bed, key) {
            for position in [Position::First, Position::AfterAnswer, Position::Pipelined] {
                let mut connection = cluster.client().connect().expect("a connection");
                lead_in(&mut connection, position, other);
                let tail = match shape.fate {
                    Fate::Served(_) => good(other).bytes(),
                    Fate::Refused(_) | Fate::RefusedByFramework | Fate::Broken | Fate::ServedLast(_) => smuggled(other),
                };
                send_after(&mut connection, position, other, [shape.bytes.as_slice(), &tail].concat());
                check(&mut connection, &shape, position, key, other);
                // hyper's bound of trailers is a little lower than ours.
                let is_ours = match shape.fate {
                    Fate::Refused(_) => true,
                    Fate::Broken => !shape.name.contains("trailers of"),
                    Fate::RefusedByFramework | Fate::Served(_) | Fate::ServedLast(_) => false,
                };
                refused += u64::from(is_ours);
            }
        }
    }
    let executed = journal::read(&cluster.folder().join("journal")).expect("the journal");
    assert!(!executed.contains_key(SMUGGLED), "a smuggled request was executed");
    let moves = Moves::at_end_of(&cluster);
    assert!(moves.count("refused_heads") >= refused, "{moves:?}, and {refused} were refused");
}

/// Behind a proxy, a program that reads bytes by itself gets what its client was answered, and nothing that could be read
/// in two ways.
fn raw_programs_get_one_request_for_one(bed: &Bed) {
    let launch = Launch::new(env!("CARGO_BIN_EXE_testbed-raw")).workers(2);
    let path = launch.folder().join("journal");
    let cluster = launch.env("STICKY_AFFINITY", KeyIn::Header.affinity()).env(journal::VARIABLE, &path).up();
    let key = |what: &str, number: usize| Key { name: format!("{what}-{number}"), worker: 0 };
    let mut conversations = Vec::new();
    for number in 0..3 * shapes::on(bed, &key("shape", 0)).len() {
        let shape = shapes::on(bed, &key("shape", number)).swap_remove(number / 3);
        let hidden = key("hidden", number).on(Request::get("/hidden").header("connection", "close")).bytes();
        let lead = key("lead", number).on(Request::get("/")).bytes();
        let mut connection = cluster.client().connect().expect("a connection");
        // First on its connection, after an answer, behind another one.
        let bytes = match number % 3 {
            0 => [shape.bytes.as_slice(), &hidden].concat(),
            1 => {
                connection.send(&lead).and_then(|()| connection.response()).expect("an answer");
                [shape.bytes.as_slice(), &hidden].concat()
            }
            _ => [lead.as_slice(), &shape.bytes, &hidden].concat(),
        };
        // A refusal may come before all of it is sent.
        let _ = connection.send(bytes);
        let _ = connection.finish_writing();
        let answers = connection.read_to_end().unwrap_or_else(|error| panic!("{}: {error}", shape.name));
        let answers = String::from_utf8_lossy(&answers).into_owned();
        conversations.push((shape, answers));
    }
    cluster.stop();
    let got = journal::read_all(&path).expect("the journal");
    assert!(!got.contains_key("ambiguous"), "{}", cluster.events());
    for (number, (shape, answers)) in conversations.iter().enumerate() {
        let times = |what: &str| got.get(&key(what, number).name).map_or(0, Vec::len);
        let [lead, once, hidden] = ["lead", "shape", "hidden"].map(times);
        let is_served = matches!(shape.fate, Fate::Served(_) | Fate::ServedLast(_));
        assert!(lead <= 1 && once <= 1 && hidden <= usize::from(is_served), "{}: {lead} {once} {hidden}", shape.name);
        let answered = answers.matches(" 200 OK\r\n").count() + usize::from(number % 3 == 1);
        assert_eq!(lead + once + hidden, answered, "{}: {answers}", shape.name);
    }
}

fn lead_in(connection: &mut Connection, position: Position, other: &Key) {
    if let Position::AfterAnswer = position {
        other.check(&connection.exchange(&good(other)).expect("an answer"));
    }
}

/// Sends the bytes, and where they are to be in a pipeline, a good request in front of them.
fn send_after(connection: &mut Connection, position: Position, other: &Key, bytes: Vec<u8>) {
    let lead = if let Position::Pipelined = position { good(other).bytes() } else { Vec::new() };
    // A refusal may come before all of it is sent.
    let _ = connection.send([lead, bytes].concat());
    if let Position::Pipelined = position {
        let answer = connection.response().expect("an answer to what came first");
        assert_eq!((answer.status, answer.worker()), (200, other.worker));
    }
}

fn check(connection: &mut Connection, shape: &Shape, position: Position, key: &Key, other: &Key) {
    let what = format!("{} ({position:?})", shape.name);
    let answer = connection.response().unwrap_or_else(|error| panic!("{what}: {error}"));
    match shape.fate {
        Fate::Refused(_) | Fate::RefusedByFramework | Fate::Broken => {
            let meant = if let Fate::Refused(status) = shape.fate { vec![status] } else { vec![400, 431] };
            assert!(meant.contains(&answer.status), "{what}: {answer:?}");
            // An application that reads a body which breaks off may answer, not knowing that its framework will close.
            let is_by_application = shape.fate == Fate::Broken && answer.header("x-worker").is_some();
            assert!(answer.announces_close() || is_by_application, "{what}: {answer:?}");
            let rest = connection.read_to_end().unwrap_or_else(|error| panic!("{what}: {error} instead of an end"));
            assert!(rest.is_empty(), "{what}: {}", String::from_utf8_lossy(&rest));
        }
        Fate::Served(status) | Fate::ServedLast(status) => {
            // Testbeds differ in what they say about methods they do not know.
            let is_as_meant = answer.status == status || (status == 404 && answer.status == 405);
            assert!(is_as_meant && answer.worker() == key.worker, "{what}: {answer:?}");
            if let Fate::ServedLast(_) = shape.fate {
                assert!(answer.announces_close(), "{what}: {answer:?}");
                let rest = connection.read_to_end().unwrap_or_else(|error| panic!("{what}: {error} instead of an end"));
                return assert!(rest.is_empty(), "{what}: {}", String::from_utf8_lossy(&rest));
            }
            let next = connection.response().unwrap_or_else(|error| panic!("{what}, what follows: {error}"));
            assert_eq!((next.status, next.worker()), (200, other.worker), "{what}, what follows: {next:?}");
        }
    }
}

// === the same bytes to the framework alone ===

const MIXTURES: usize = 1_500;

const WORDS: &[&str] = &[
    "content-length: 5",
    "content-length: 0",
    "content-length: 40",
    "Content-Length:5",
    "content-length: 5, 5",
    "content-length: +5",
    "transfer-encoding: chunked",
    "Transfer-Encoding:\tchunked ",
    "transfer-encoding: Chunked",
    "transfer-encoding: identity",
    "transfer-encoding : chunked",
    "connection: close",
    "connection: keep-alive",
    "connection: upgrade",
    "connection: keep-alive, Upgrade",
    "upgrade: h2c",
    "upgrade: websocket",
    "expect: 100-continue",
    "te: trailers",
    "x-a: b\r\n c",
    "x-a: \0",
    "x-a: b\nx-c: d",
    "host: again",
    "",
];

/// What ends a connection.
const ENDS: &[&str] = &["connection: close", "connection: upgrade", "Upgrade\r\n", " HTTP/1.0\r\n"];

const BODIES: &[&str] = &[
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;x=y\r\nhello\r\n0\r\nx-t: 1\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n00\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "0\r\n\r\n",
    "\r\n",
    "\r\n\r\n0\r\n\r\n",
];

/// A request put together at random, most of it wrong; and whether its body is surely read by what serves it.
fn mixture(bed: &Bed, key: &str, number: usize, random: &mut Random) -> (String, bool) {
    let method = *random.choose(&["GET", "POST", "POST", "POST", "POST", "NOBODY"]);
    let target = *random.choose(&["/echo", "/echo", "/mirror", "/upload", "http://a/echo", "/whoami", "*"]);
    let version = random.choose(&["1.1", "1.1", "1.1", "1.1", "1.0", "1.2"]);
    let mut lines = vec![format!("{method} {target} HTTP/{version}"), format!("x-request: {number}")];
    lines.push(format!("x-key: {key}"));
    if !bed.serves_any_host() {
        lines.push("host: test".to_owned());
    }
    for _ in 0..random.below(4) {
        lines.push((*random.choose(WORDS)).to_owned());
    }
    let is_read = method == "POST" && target != "/whoami" && target != "*";
    (lines.join("\r\n") + "\r\n\r\n" + *random.choose(BODIES), is_read)
}

/// What the application has answered to all that was sent, up to the end.
fn served(client: &Client, bytes: &[u8], random: &mut Random) -> (Vec<Response>, Option<Response>) {
    let mut connection = client.connect().expect("a connection");
    let mut sender = connection.sender().expect("the same connection");
    let _ = send_in_pieces(&mut sender, bytes, *random.choose(&[7, 100, 10_000]), random);
    let _ = connection.finish_writing();
    let (mut answers, mut refusal) = (Vec::new(), None);
    loop {
        match connection.response() {
            Ok(answer) if answer.header("x-worker").is_some() => answers.push(answer),
            Ok(answer) => refusal = Some(answer),
            Err(error) => {
                let is_wait = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(!is_wait, "no end to {:?}", String::from_utf8_lossy(bytes));
                return (answers, refusal);
            }
        }
    }
}

/// What of an answer must be the same.
type Essence = (u16, Option<String>, String);

fn essence(answers: &[Response]) -> Vec<Essence> {
    let of = |answer: &Response| (answer.status, answer.header("x-request").map(str::to_owned), answer.text());
    answers.iter().map(of).collect()
}

/// What handoff lets through, the framework alone must answer alike: the same requests, as many, with the same bodies. Where
/// handoff refuses, what came before must be the same.
fn random_shapes_are_framed_as_without_handoff(bed: &Bed) {
    let cluster = by_header(bed, 2).up();
    let alone = bed.under_dispatch(Dispatch::Kernel).launch().workers(1).up();
    let keys = Key::of_each_worker(&cluster.client(), 2);
    let mut random = Random::drawn();
    let (mut same, mut refused) = (0, 0);
    for _ in 0..MIXTURES {
        let name = |number: usize| &keys[number % 2].name;
        let parts: Vec<_> = (0..3).map(|number| mixture(bed, name(number), number, &mut random)).collect();
        let text: String = parts.iter().map(|(text, _)| text.as_str()).collect();
        if bed.is_proxied() && text.contains("upgrade: websocket") && !bed.ends_upgrades_at_their_head() {
            // It waits for a body that only its client's end would end, of which a proxy says nothing before a tunnel.
            continue;
        }
        let (ours, refusal) = served(&cluster.client(), text.as_bytes(), &mut random);
        let (theirs, _) = served(&alone.client(), text.as_bytes(), &mut random);
        if text.contains("upgrade: websocket") && !bed.ends_upgrades_at_their_head() {
            // That both have come to an end is all there is to compare.
            continue;
        }
        let (ours, theirs) = (essence(&ours), essence(&theirs));
        let (short, long) = if ours.len() < theirs.len() { (&ours, &theirs) } else { (&theirs, &ours) };
        let what = || format!("{text:?}\nours: {ours:?}\ntheirs: {theirs:?}\nrefusal: {refusal:?}");
        assert!(long.starts_with(short), "{}", what());
        // After a body that nobody reads a framework goes on if it has all of it already, and ends the connection if not.
        // What a body leaves behind can become a part of the next method.
        let is_unread = short.last().is_some_and(|(status, ..)| *status != 200 || !parts[short.len() - 1].1);
        let is_end_mistaken = !bed.knows_ends_in_pipelines() && ENDS.iter().any(|end| text.contains(end));
        // What is refused inside a body whose answer has begun cannot be answered otherwise any more: it is broken off.
        let is_chunked = |text: &str| text.to_ascii_lowercase().contains("chunked");
        let is_begun = |(text, _): &(String, bool)| text.contains(" /mirror ") && is_chunked(text);
        let is_broken_off = ours.len() < theirs.len() && parts.get(ours.len()).is_some_and(is_begun);
        // Chunks for a client of HTTP/1.0, which actix sends, are the last that handoff lets through.
        let is_odd = |(text, _): &(String, bool)| text.contains(" /mirror HTTP/1.0");
        let is_last = ours.len() < theirs.len() && parts[..ours.len()].last().is_some_and(is_odd);
        let is_chance = is_unread || is_end_mistaken || is_broken_off || is_last;
        match &refusal {
            _ if short.len() == long.len() => same += 1,
            Some(refusal) if ours.len() < theirs.len() => {
                assert!([400, 431, 505].contains(&refusal.status), "{}", what());
                refused += 1;
            }
            _ => assert!(is_chance, "{}", what()),
        }
    }
    println!("{same} mixtures were framed alike, {refused} were refused where the framework alone went on");
    assert!(same > MIXTURES / 2 && refused > 0);
    Moves::at_end_of(&cluster);
}

fn http2_after_the_first_message_is_refused(bed: &Bed) {
    let (cluster, keys) = two(bed);
    for (key, position) in keys.iter().cycle().zip([Position::AfterAnswer, Position::Pipelined].repeat(2)) {
        let mut connection = cluster.client().connect().expect("a connection");
        lead_in(&mut connection, position, key);
        send_after(&mut connection, position, key, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec());
        assert_eq!(connection.response().expect("an answer").status, 505, "{position:?}");
        assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
    }
    Moves::at_end_of(&cluster);
}

// === others ===

/// How long answers took, in order.
struct Latencies(Vec<Duration>);

impl Latencies {
    /// The value below which `percent` of them are.
    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent).div_ceil(100).max(1) - 1]
    }
}

/// Clients that behave, each with keys of its own on one connection, for that long.
fn behave(client: &Client, keys: &[Key], time: Duration) -> Latencies {
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for share in keys.chunks(keys.len().div_ceil(8)) {
            let all = &all;
            scope.spawn(move || {
                let mut connection = client.connect().expect("a connection");
                let (mut took, ends) = (Vec::new(), Instant::now() + time);
                for key in share.iter().cycle().take_while(|_| Instant::now() < ends) {
                    let begun = Instant::now();
                    key.check(&connection.exchange(&key.on(Request::get("/"))).expect("an answer"));
                    took.push(begun.elapsed());
                    // So that the latency of answers is measured, and not that of a machine without rest.
                    process::let_pass(Duration::from_millis(2));
                }
                all.lock().expect("no client failed").extend(took);
            });
        }
    });
    let mut all = all.into_inner().expect("no client failed");
    all.sort_unstable();
    Latencies(all)
}

/// Far beyond what any bound could be: debug builds on a shared machine say little about milliseconds.
const FAR_BEYOND: Duration = Duration::from_secs(2);

fn hostile_clients_move_nobody(bed: &Bed) {
    let cluster = by_header(bed, 4).env("STICKY_HEAD_TIMEOUT", LIMIT_TEXT).up();
    let mut random = Random::drawn();
    let keys: Vec<Key> = fresh(&mut random, 64).into_iter().map(|name| Key::learn(&cluster.client(), name)).collect();
    // What is only slow is not harmed.
    let client = cluster.client().timeout(PATIENCE);
    let before = behave(&client, &keys, Duration::from_secs(1));
    let done = AtomicBool::new(false);
    let attacks: [fn(&Client, &[Key]); 5] = [ping_pong, send_shapes, drip_heads, send_huge_heads, vanish];
    let during = thread::scope(|scope| {
        for attack in attacks {
            let (client, done, keys) = (&client, &done, &keys);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    attack(client, keys);
                }
            });
        }
        let during = scope.spawn(|| behave(&client, &keys, Duration::from_secs(3))).join();
        done.store(true, Ordering::Relaxed);
        during.expect("nobody who behaves was harmed")
    });
    for (when, latencies) in [("before", &before), ("during", &during)] {
        let [median, p99] = [50, 99].map(|percent| latencies.percentile(percent));
        println!("{when} the attacks: {} answers, median {median:.1?}, p99 {p99:.1?}", latencies.0.len());
    }
    // A proxy is one process, which they fill with connections as fast as it takes them.
    assert!(bed.is_proxied() || during.percentile(99) < FAR_BEYOND);
    Moves::at_end_of(&cluster);
}

/// Every request moves the connection, sixteen of them at a time.
fn ping_pong(client: &Client, keys: &[Key]) {
    let mut connection = client.connect().expect("a connection");
    for pair in keys.chunks(2).take(20) {
        let pipeline: Vec<u8> = pair.iter().cycle().take(16).flat_map(|key| good(key).bytes()).collect();
        connection.send(pipeline).expect("sent");
        for key in pair.iter().cycle().take(16) {
            key.check(&connection.response().expect("an answer"));
        }
    }
}

fn send_shapes(client: &Client, keys: &[Key]) {
    for (shape, other) in shapes::all(&keys[0]).into_iter().zip(keys.iter().cycle()) {
        let mut connection = client.connect().expect("a connection");
        let _ = connection.send([shape.bytes, smuggled(other)].concat());
        let _ = connection.response();
    }
}

/// Many heads at once, a byte of each at a time, none of which ever ends.
fn drip_heads(client: &Client, keys: &[Key]) {
    let mut slow: Vec<_> = (0..30).map(|_| client.connect().expect("a connection")).collect();
    for byte in good(&keys[1]).bytes().iter().take(40) {
        for connection in &mut slow {
            let _ = connection.send([*byte]);
        }
        // Slowly, because that is the attack.
        process::let_pass(Duration::from_millis(5));
    }
}

fn send_huge_heads(client: &Client, keys: &[Key]) {
    let mut connection = client.connect().expect("a connection");
    for key in keys.iter().take(20) {
        let request = good(key).header("cookie", &"c".repeat(31_000));
        key.check(&connection.exchange(&request).expect("an answer"));
    }
}

/// Gone with a request on its way to another worker, or with half of it read.
fn vanish(client: &Client, keys: &[Key]) {
    for key in keys {
        let bytes = [good(key).bytes(), key.on(Request::get("/bytes/1000000")).bytes()].concat();
        for end in [20, bytes.len() / 2, bytes.len()] {
            let mut connection = client.connect().expect("a connection");
            let _ = connection.send(&bytes[..end]);
        }
    }
}

// === timers ===

/// Reads to the end; it must not come before the limit.
fn ends_after_limit(mut connection: Connection, since: Instant) {
    assert_eq!(connection.read_to_end().expect("an end, not a reset"), b"");
    assert!(since.elapsed() >= LIMIT - Duration::from_millis(50), "closed after {:?}", since.elapsed());
}

fn silence_after_a_move_is_timed(bed: &Bed) {
    let names = ["STICKY_FIRST_BYTE_TIMEOUT", "STICKY_IDLE_TIMEOUT"];
    let launch = by_header(bed, 2);
    let cluster = names.into_iter().fold(launch, |launch, name| launch.env(name, LIMIT_TEXT)).up();
    let keys = Key::of_each_worker(&cluster.client(), 2);
    let begun = Instant::now();
    ends_after_limit(cluster.client().connect().expect("a connection"), begun);
    for moves in [1, 2, 3] {
        let mut connection = cluster.client().connect().expect("a connection");
        for key in keys.iter().cycle().take(moves) {
            key.check(&connection.exchange(&good(key)).expect("an answer"));
        }
        ends_after_limit(connection, Instant::now());
    }
    Moves::at_end_of(&cluster).sent();
}

/// A head that does not end gets 408, however often the connection has moved before, and whether it stands still or
/// goes on byte by byte.
fn slow_heads_are_timed_wherever_they_are(bed: &Bed) {
    let cluster =
        bed.launch().env("STICKY_AFFINITY", KeyIn::Header.affinity()).env("STICKY_HEAD_TIMEOUT", LIMIT_TEXT).up();
    let keys = Key::of_each_worker(&cluster.client(), 2);
    let mut late = 0;
    for (moves, pause) in [(0, None), (1, None), (2, None), (0, Some(20)), (3, Some(20))] {
        let mut connection = cluster.client().connect().expect("a connection");
        for key in keys.iter().cycle().take(moves) {
            key.check(&connection.exchange(&good(key)).expect("an answer"));
        }
        let begun = Instant::now();
        let mut sender = connection.sender().expect("the same connection");
        let dripping = thread::spawn(move || drip(&mut sender, pause.map(Duration::from_millis)));
        assert_eq!(connection.response().expect("an answer").status, 408, "after {moves} moves");
        ends_after_limit(connection, begun);
        dripping.join().expect("no panic");
        late += 1;
    }
    let counts = Moves::at_end_of(&cluster);
    assert!(counts.count("late_heads") >= late, "{counts:?}");
}

/// Half a head at once, or one byte after the other until nobody takes any more.
fn drip(stream: &mut impl Write, pause: Option<Duration>) {
    let ends = Instant::now() + Duration::from_secs(5);
    if stream.write_all(b"GET / HTTP/1.1\r\nhost").is_err() {
        return;
    }
    let Some(pause) = pause else { return };
    while Instant::now() < ends && stream.write_all(b"t").is_ok() {
        process::let_pass(pause);
    }
}
