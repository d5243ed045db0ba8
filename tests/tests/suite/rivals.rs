//! What breaks the other sticky balancers, as plain requests: follow-ups that race, bursts, split request lines,
//! parameters that look alike, large heads, pipelines of two sessions, and forged forwarding headers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::thread;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::{Client, Random, Request, Response, TestCluster};

use crate::bed::{Bed, Row};
use crate::fair::Fair;
use crate::keys::{Key, KeyIn, Moves, Owners, by_header, fresh};

const WORKERS: u16 = 3;
const SESSIONS: usize = 10_000;
const CLIENTS: usize = 8;
const BURST: usize = 60;
const BURSTS: usize = 5;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("follow_ups_find_their_session", follow_ups_find_their_session),
        Row::new("follow_ups_find_what_login_made", follow_ups_find_what_login_made),
        Row::new("bursts_of_keys_spread_fairly", bursts_of_keys_spread_fairly),
        Row::new("bursts_of_addresses_spread_fairly", bursts_of_addresses_spread_fairly),
        Row::new("request_line_split_inside_the_key", request_line_split_inside_the_key),
        Row::new("names_that_look_alike_are_others", names_that_look_alike_are_others),
        Row::new("odd_keys_are_keys", odd_keys_are_keys),
        Row::new("large_heads_are_served", large_heads_are_served),
        Row::new("two_pipelined_sessions_are_both_answered", two_pipelined_sessions_are_both_answered),
        Row::new("forwarded_addresses_reach_their_workers", forwarded_addresses_reach_their_workers),
        Row::new("forged_forwarded_addresses_move_nobody", forged_forwarded_addresses_move_nobody),
        Row::new("untrusted_forwarded_addresses_move_nobody", untrusted_forwarded_addresses_move_nobody),
    ];
    rows.map(|row| row.by_request()).into()
}

/// That many clients at once, each with its number.
fn at_once<T: Send>(clients: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let run = &run;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|number| scope.spawn(move || run(number))).collect();
        clients.into_iter().map(|client| client.join().expect("no client failed")).collect()
    })
}

fn status_and_text(answer: &Response) -> (u16, String) {
    (answer.status, answer.text())
}

/// A session's second request comes as early as it can: on another connection right after the first answer, or on the
/// same connection before it. @socket.io/sticky sent up to 19 % of them elsewhere.
fn follow_ups_find_their_session(bed: &Bed) {
    let cluster = bed.launch().workers(WORKERS).env("STICKY_AFFINITY", "cookie:session|query:sid").up();
    let (client, random) = (cluster.client(), Random::drawn());
    let misrouted = at_once(CLIENTS, |number| {
        let mut random = random.fork(number);
        let sessions = fresh(&mut random, SESSIONS / CLIENTS);
        let make = |session: &str| {
            let key_in = *random.choose(&[KeyIn::Cookie, KeyIn::Query]);
            (key_in.count(session).header("x-key", session), random.below(2) == 0)
        };
        sessions
            .iter()
            .map(String::as_str)
            .map(make)
            .filter(|(request, alone)| is_misrouted(&client, request, *alone))
            .count()
    });
    assert_eq!(misrouted.iter().sum::<usize>(), 0, "of {SESSIONS}");
    Moves::at_end_of(&cluster).sent();
}

/// Whether the second of two requests of a new session has not found what the first left in its worker's memory.
fn is_misrouted(client: &Client, request: &Request, on_new_connection: bool) -> bool {
    let mut connection = client.connect().expect("a connection");
    let answers = if on_new_connection {
        let first = connection.exchange(request).expect("an answer");
        [first, client.connect().and_then(|mut next| next.exchange(request)).expect("an answer")]
    } else {
        connection.send(request.bytes().repeat(2)).expect("sent");
        [(); 2].map(|()| connection.response().expect("an answer"))
    };
    answers.each_ref().map(status_and_text) != [(200, "1".to_owned()), (200, "2".to_owned())]
}

/// The session is made by the application inside the first request, in the memory of whoever served it; the cluster's
/// own cookie, set with the same answer, brings the client back from wherever it comes.
fn follow_ups_find_what_login_made(bed: &Bed) {
    let cluster = bed.launch().workers(WORKERS).env("STICKY_AFFINITY", "sticky-cookie").up();
    let (client, addresses): (_, Vec<Ipv4Addr>) = (cluster.client(), Client::loopback_addresses(200).collect());
    let lost = at_once(CLIENTS, |number| {
        let mut lost = 0;
        for at in 0..100 {
            let from = |offset: usize| client.clone().from(addresses[(number * 25 + at + offset) % addresses.len()]);
            let login = from(0).post("/login", b"").expect("an answer");
            let set: Vec<&str> =
                login.header_values("set-cookie").filter_map(|cookie| cookie.split(';').next()).collect();
            assert_eq!(set.len(), 2, "the application's cookie and the cluster's: {login:?}");
            let request = Request::get("/me").header("cookie", &set.join("; "));
            let me = from(7).connect().and_then(|mut next| next.exchange(&request)).expect("an answer");
            lost += usize::from(status_and_text(&me) != (200, login.text()) || me.pid() != login.pid());
        }
        lost
    });
    assert_eq!(lost.iter().sum::<usize>(), 0, "of {}", CLIENTS * 100);
    Moves::at_end_of(&cluster).sent();
}

/// How many clients each worker got.
fn spread(answers: impl IntoIterator<Item = u16>) -> BTreeMap<u16, usize> {
    let mut counts: BTreeMap<u16, usize> = (0..WORKERS).map(|worker| (worker, 0)).collect();
    for worker in answers {
        *counts.get_mut(&worker).expect("a worker") += 1;
    }
    counts
}

/// Sixty new clients at the same moment, several times: @socket.io/sticky gave all to one worker.
fn bursts_spread_fairly(cluster: &TestCluster, get: impl Fn(usize) -> u16 + Sync) {
    let mut total: BTreeMap<u16, usize> = spread([]);
    for burst in 0..BURSTS {
        let start = Barrier::new(BURST);
        let workers = at_once(BURST, |number| {
            start.wait();
            get(burst * BURST + number)
        });
        let counts = spread(workers);
        Fair::choice(BURST, WORKERS).check(counts.values());
        counts.into_iter().for_each(|(worker, count)| *total.get_mut(&worker).expect("a worker") += count);
    }
    Fair::choice(BURST * BURSTS, WORKERS).check(total.values());
    Moves::at_end_of(cluster).sent();
}

fn bursts_of_keys_spread_fairly(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).up();
    let (client, keys) = (cluster.client(), fresh(&mut Random::drawn(), BURST * BURSTS));
    bursts_spread_fairly(&cluster, |number| Key::learn(&client, keys[number].clone()).worker);
}

fn bursts_of_addresses_spread_fairly(bed: &Bed) {
    let cluster = bed.launch().workers(WORKERS).up();
    let (client, mut random) = (cluster.client(), Random::drawn());
    // Whole addresses drawn, since a pattern in them is not what is tested here.
    let addresses: Vec<Ipv4Addr> = (0..BURST * BURSTS)
        .map(|_| Ipv4Addr::from(0x7F00_0000 | u32::try_from(random.between(2, 0xFF_FFF0)).expect("32 bits")))
        .collect();
    bursts_spread_fairly(&cluster, |number| {
        client.clone().from(addresses[number]).get("/").expect("an answer").worker()
    });
}

/// 12 of 12 failed elsewhere.
fn request_line_split_inside_the_key(bed: &Bed) {
    let cluster = bed.launch().workers(WORKERS).env("STICKY_AFFINITY", KeyIn::Query.affinity()).up();
    let mut random = Random::drawn();
    let mut owners = Owners::default();
    for key in fresh(&mut random, 12) {
        let bytes = Request::get(format!("/?EIO=4&sid={key}&t=1")).bytes();
        owners.check(
            &key,
            &cluster
                .client()
                .connect()
                .and_then(|mut it| {
                    it.send(&bytes)?;
                    it.response()
                })
                .expect("an answer"),
        );
        let line = bytes.iter().position(|&byte| byte == b'\r').expect("a line");
        for at in 1..line {
            let mut connection = cluster.client().connect().expect("a connection");
            connection.send(&bytes[..at]).expect("sent");
            // A whole exchange, so that the first part has surely been read alone.
            assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
            connection.send(&bytes[at..]).expect("sent");
            owners.check(&key, &connection.response().expect("an answer"));
        }
    }
    Moves::at_end_of(&cluster).sent();
}

fn names_that_look_alike_are_others(bed: &Bed) {
    let cluster = bed.launch().workers(WORKERS).env("STICKY_AFFINITY", "query:sid|cookie:session|header:x-key").up();
    let keys = Key::of_each_worker(&cluster.client(), WORKERS);
    for (key, other) in keys.iter().zip(keys.iter().cycle().skip(1)) {
        let (mine, theirs) = (&key.name, &other.name);
        let by_query = [
            format!("/?mysid={theirs}&sid={mine}"),
            format!("/?sid{theirs}&sid={mine}"),
            format!("/?SID={theirs}&sid={mine}"),
            format!("/?sid%5B%5D={theirs}&sid={mine}"),
            format!("/?q=?sid={theirs}&sid={mine}"),
            format!("/?q=%26sid={theirs}&sid={mine}"),
            format!("/?a;sid={theirs}&sid={mine}"),
            format!("/sid={theirs}/?sid={mine}&x=sid={theirs}"),
            format!("/?sid={mine}&sid={theirs}"),
            format!("/?s%69d={mine}&sid={theirs}"),
            format!("http://sid={theirs}/?sid={mine}"),
        ];
        for target in by_query {
            key.check_alone(&cluster, &Request::get(&target).header("x-key", theirs), &target);
        }
        let by_cookie = [
            format!("mysession={theirs}; session={mine}"),
            format!("session_id={theirs}; Session={theirs}; session={mine}"),
            format!("a=session={theirs}; session={mine}"),
            format!("session=\"{mine}\"; session={theirs}"),
        ];
        for cookie in by_cookie {
            let request = Request::get("/?mysid=1").header("cookie", &cookie).header("x-key", theirs);
            key.check_alone(&cluster, &request, &cookie);
        }
        let request = Request::get("/").header("x-keys", theirs).header("x_key", theirs).header("X-KEY", mine);
        key.check_alone(&cluster, &request, "header names");
    }
    Moves::at_end_of(&cluster).sent();
}

impl Key {
    /// That this request on a connection of its own is answered by the key's worker.
    fn check_alone(&self, cluster: &TestCluster, request: &Request, what: &str) {
        let answer = cluster.client().connect().and_then(|mut connection| connection.exchange(request));
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.worker(), self.worker, "{what}");
    }
}

/// `constructor` crashed sticky-socket-cluster.
fn odd_keys_are_keys(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).up();
    let long = "k".repeat(8_000);
    let mut owners = Owners::default();
    for key in ["constructor", "__proto__", "toString", "0", "-1", "NaN", "null", "a b", "\u{e9}\u{1f600}", &long] {
        let mut connection = cluster.client().connect().expect("a connection");
        for _ in 0..3 {
            owners.check(key, &connection.exchange(&Request::get("/").header("x-key", key)).expect("an answer"));
            owners.check(
                key,
                &connection.exchange(&Request::get("/").header("x-key", &format!("  {key}\t"))).expect("an answer"),
            );
        }
    }
    Moves::at_end_of(&cluster).sent();
}

/// @socket.io/sticky answers 431. The key comes last, so that all of the head has to be read for it.
fn large_heads_are_served(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).up();
    let keys = Key::of_each_worker(&cluster.client(), WORKERS);
    let mut kept = cluster.client().connect().expect("a connection");
    for size in [20_000, 30_000] {
        for key in keys.iter().chain(&keys) {
            let one = Request::get("/").header("cookie", &format!("a={}", "c".repeat(size)));
            let many = (0..80).fold(Request::get("/"), |request, number| {
                request.header(&format!("x-filler-{number}"), &"f".repeat(size / 80 - 20))
            });
            for request in [one, many, Request::get(format!("/?q={}", "q".repeat(size)))] {
                key.check_alone(&cluster, &key.on(request.clone()), "a large head");
                key.check(&kept.exchange(&key.on(request)).expect("an answer"));
            }
        }
    }
    Moves::at_end_of(&cluster).sent();
}

/// Elsewhere only the first is answered.
fn two_pipelined_sessions_are_both_answered(bed: &Bed) {
    let cluster = by_header(bed, WORKERS).up();
    let keys = Key::of_each_worker(&cluster.client(), WORKERS);
    for first in &keys {
        for second in &keys {
            let mut connection = cluster.client().connect().expect("a connection");
            let request = |key: &Key| key.on(Request::get("/")).bytes();
            connection.send([request(first), request(second)].concat()).expect("sent");
            for key in [first, second] {
                key.check(&connection.response().expect("an answer"));
            }
        }
    }
    Moves::at_end_of(&cluster).sent();
}

/// A cluster that believes 127.0.0.1 and nobody else.
fn behind_a_proxy(bed: &Bed) -> TestCluster {
    bed.launch().workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "127.0.0.1").up()
}

fn forwarded(addresses: &str) -> Request {
    Request::get("/whoami").header("x-forwarded-for", addresses)
}

/// Two addresses that reach different workers, and the worker of each.
fn two_addresses(cluster: &TestCluster) -> [(String, u16); 2] {
    let owner = |number: u8| {
        let address = format!("203.0.113.{number}");
        let answer = cluster.client().connect().and_then(|mut proxy| proxy.exchange(&forwarded(&address)));
        let answer = answer.expect("an answer");
        assert_eq!(answer.text(), address);
        (address, answer.worker())
    };
    let first = owner(1);
    let other = (2..100).map(owner).find(|(_, worker)| *worker != first.1).expect("another worker");
    [first, other]
}

/// All clients of a proxy on a few connections of its: each on its own worker.
fn forwarded_addresses_reach_their_workers(bed: &Bed) {
    let cluster = behind_a_proxy(bed);
    two_addresses(&cluster);
    let mut owners = Owners::default();
    let mut upstream: Vec<_> = (0..3).map(|_| cluster.client().connect().expect("a connection")).collect();
    for number in 0..600 {
        let address = format!("198.51.100.{}", number % 100);
        let answer = upstream[number * 7 % 3].exchange(&forwarded(&address)).expect("an answer");
        assert_eq!(answer.text(), address);
        owners.check(&address, &answer);
    }
    owners.are_all(WORKERS);
    Moves::at_end_of(&cluster).sent();
}

/// What a client wrote is to the left of what the proxy added. sticky-session believed the left end.
fn forged_forwarded_addresses_move_nobody(bed: &Bed) {
    let cluster = behind_a_proxy(bed);
    let [(mine, worker), (theirs, _)] = two_addresses(&cluster);
    let mut upstream = cluster.client().connect().expect("a connection");
    let forged = [
        format!("{theirs}, {mine}"),
        format!("{theirs},{theirs},{theirs} ,{mine}"),
        format!("127.0.0.1, {theirs}, {mine}"),
        format!("{theirs}, unknown, {mine}, 127.0.0.1"),
        format!("{theirs}:80, [{mine}]:0, {mine}:4711"),
        format!(", , {theirs}, {mine}"),
        format!("{theirs}, ::ffff:{mine}"),
    ];
    let lines = [forwarded(&theirs).header("X-Forwarded-For", &mine)];
    let requests = forged.iter().map(|value| forwarded(value)).chain(lines);
    for request in requests {
        for other in [Request::get("/"), request.clone()] {
            let others = ["forwarded", "x-real-ip", "cf-connecting-ip", "x-client-ip", "true-client-ip"];
            let request = others.iter().fold(request.clone(), |request, name| request.header(name, &theirs));
            let _ = upstream.exchange(&other).expect("an answer");
            let answer = upstream.exchange(&request).expect("an answer");
            assert_eq!((answer.text(), answer.worker()), (mine.clone(), worker), "{request:?}");
        }
    }
    Moves::at_end_of(&cluster).sent();
}

/// A peer that is no trusted proxy is itself, whatever it says.
fn untrusted_forwarded_addresses_move_nobody(bed: &Bed) {
    let cluster = behind_a_proxy(bed);
    let [_, (theirs, _)] = two_addresses(&cluster);
    for address in Client::loopback_addresses(20) {
        let client = cluster.client().from(address);
        let worker = client.get("/").expect("an answer").worker();
        let mut connection = client.connect().expect("a connection");
        for _ in 0..3 {
            let answer = connection.exchange(&forwarded(&theirs)).expect("an answer");
            assert_eq!((answer.text(), answer.worker()), (address.to_string(), worker));
        }
    }
    cluster.events().expect("x-forwarded-for", PATIENCE);
    Moves::at_end_of(&cluster).sent();
    let warned = cluster.events().count("x-forwarded-for");
    assert!(warned <= usize::from(WORKERS), "each worker says it once at most:\n{}", cluster.events());
}
