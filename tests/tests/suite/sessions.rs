//! Sessions that the application makes inside a request, in its worker's memory: the next request must find them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use sticky_tests::process::let_pass;
use sticky_tests::testbed::SET;
use sticky_tests::{Client, Connection, Launch, Random, Request, TestCluster};

use crate::bed::{Bed, Row};
use crate::jar::{Jar, STICKY, ticket};
use crate::keys::{KeyIn, Moves, fresh};

const WORKERS: u16 = 4;
const CLIENTS: usize = 200;
/// Requests of each client after its login.
const REQUESTS: usize = 20;
const THREADS: usize = 4;
/// Connections of each thread that all its clients share, as behind a balancer.
const SHARED: usize = 4;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("sticky_cookie_keeps_sessions", sticky_cookie_keeps_sessions),
        Row::new("sticky_cookie_keeps_sessions_placed_in_turn", sticky_cookie_keeps_sessions_placed_in_turn),
        Row::new("learned_cookie_keeps_sessions", learned_cookie_keeps_sessions),
        Row::new("learned_cookie_keeps_sessions_placed_in_turn", learned_cookie_keeps_sessions_placed_in_turn),
        Row::new("own_keys_keep_sessions", own_keys_keep_sessions),
        Row::new("cookie_alone_loses_sessions", cookie_alone_loses_sessions),
        Row::new("parallel_first_requests_make_one_session", parallel_first_requests_make_one_session),
        Row::new("cookies_are_learned_as_they_are_sent", cookies_are_learned_as_they_are_sent),
        Row::new("forgotten_session_goes_by_its_hash", forgotten_session_goes_by_its_hash),
        Row::new("unused_sessions_are_forgotten", unused_sessions_are_forgotten),
        Row::new("owner_of_a_key_serves_it", owner_of_a_key_serves_it),
    ];
    rows.map(|row| row.by_request()).into()
}

/// A cluster with this affinity.
fn by(bed: &Bed, affinity: &str) -> Launch {
    bed.launch().workers(WORKERS).env("STICKY_AFFINITY", affinity)
}

// === the loop ===

/// One client with its session.
struct Visitor {
    jar: Jar,
    session: String,
    worker: u16,
}

impl Visitor {
    fn log_in(client: &Client, path: &str) -> Self {
        let mut jar = Jar::default();
        let answer = jar.ask(client, Request::post(path, b""));
        assert_eq!(answer.status, 200);
        assert_eq!(jar.get("session"), Some(answer.text().as_str()));
        Self { jar, session: answer.text(), worker: answer.worker() }
    }

    /// Whether the worker that made the session serves this request. Nothing that it holds is replaced.
    fn is_known(&mut self, connection: &mut Connection) -> bool {
        let answer = self.jar.exchange(connection, Request::get("/me"));
        assert_eq!(answer.header_values("set-cookie").count(), 0, "{answer:?}");
        match answer.status {
            200 => assert_eq!((answer.text(), answer.worker()), (self.session.clone(), self.worker)),
            401 => assert_ne!(answer.worker(), self.worker),
            other => panic!("{other}: {answer:?}"),
        }
        answer.status == 200
    }
}

/// Connections as clients come by them: their own, from anywhere, or those of a balancer.
struct Roads {
    client: Client,
    addresses: Vec<Ipv4Addr>,
    shared: Vec<Connection>,
    random: Random,
}

impl Roads {
    fn new(client: Client, random: Random) -> Self {
        let addresses: Vec<Ipv4Addr> = Client::loopback_addresses(500).collect();
        let mut roads = Self { client, addresses, shared: Vec::new(), random };
        roads.shared = (0..SHARED).map(|_| roads.own()).collect();
        roads
    }

    fn anywhere(&mut self) -> Client {
        let address = *self.random.choose(&self.addresses);
        self.client.clone().from(address)
    }

    fn own(&mut self) -> Connection {
        self.anywhere().connect().expect("a connection")
    }

    fn asks(&mut self, visitor: &mut Visitor) -> bool {
        if self.random.below(2) == 0 {
            return visitor.is_known(&mut self.own());
        }
        let chosen = self.random.below(SHARED);
        visitor.is_known(&mut self.shared[chosen])
    }
}

/// Two hundred clients log in and ask who they are, each time by another connection. Answers how many requests found
/// their session, and how many sessions each worker has.
fn visits(cluster: &TestCluster, login: &str) -> (usize, BTreeMap<u16, usize>) {
    let random = Random::drawn();
    let run = |random: Random| {
        let client = cluster.client();
        move || {
            let mut roads = Roads::new(client, random);
            let mut visitors: Vec<_> =
                (0..CLIENTS / THREADS).map(|_| Visitor::log_in(&roads.anywhere(), login)).collect();
            let mut known = 0;
            for _ in 0..REQUESTS {
                known += visitors.iter_mut().map(|visitor| usize::from(roads.asks(visitor))).sum::<usize>();
            }
            (known, visitors.into_iter().map(|visitor| visitor.worker).collect::<Vec<_>>())
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(run(random.fork(number)))).collect();
        let (mut known, mut places) = (0, BTreeMap::new());
        for thread in threads {
            let (found, workers) = thread.join().expect("no client failed");
            known += found;
            workers.into_iter().for_each(|worker| *places.entry(worker).or_default() += 1);
        }
        (known, places)
    })
}

/// All of them are known always, and there are sessions in every worker.
fn everybody_is_known(cluster: &TestCluster, login: &str) -> BTreeMap<u16, usize> {
    let (known, places) = visits(cluster, login);
    assert_eq!(known, CLIENTS * REQUESTS, "requests that found their session");
    assert_eq!(places.len(), usize::from(WORKERS), "{places:?}");
    Moves::at_end_of(cluster).sent();
    places
}

fn sticky_cookie_keeps_sessions(bed: &Bed) {
    everybody_is_known(&by(bed, "sticky-cookie").up(), "/login");
}

/// Each worker takes turns for those that it places, so no worker has more than one session too many or too few of
/// each.
fn is_fair(places: &BTreeMap<u16, usize>) {
    let fair = CLIENTS / usize::from(WORKERS);
    let bounds = fair - usize::from(WORKERS)..=fair + usize::from(WORKERS);
    assert!(places.values().all(|count| bounds.contains(count)), "{places:?}");
}

fn sticky_cookie_keeps_sessions_placed_in_turn(bed: &Bed) {
    let cluster = by(bed, "sticky-cookie").env("STICKY_PLACEMENT", "round-robin").up();
    is_fair(&everybody_is_known(&cluster, "/login"));
}

fn learned_cookie_keeps_sessions(bed: &Bed) {
    everybody_is_known(&by(bed, "cookie:session+learn").up(), "/login");
}

fn learned_cookie_keeps_sessions_placed_in_turn(bed: &Bed) {
    let cluster = by(bed, "cookie:session+learn").env("STICKY_PLACEMENT", "round-robin").up();
    is_fair(&everybody_is_known(&cluster, "/login"));
}

fn own_keys_keep_sessions(bed: &Bed) {
    everybody_is_known(&by(bed, "cookie:session").up(), "/own-login");
}

/// What the three ways are for: an id that is drawn anywhere belongs to one worker in four by chance. And that this
/// suite would see it.
fn cookie_alone_loses_sessions(bed: &Bed) {
    let cluster = by(bed, "cookie:session").up();
    let (known, _) = visits(&cluster, "/login");
    assert!(known < CLIENTS * REQUESTS / 2, "{known} of {} requests found their session", CLIENTS * REQUESTS);
}

/// A browser's first six requests, none of which has a cookie yet.
fn parallel_first_requests_make_one_session(bed: &Bed) {
    let cluster = by(bed, "sticky-cookie").up();
    let mut workers = BTreeSet::new();
    for address in Client::loopback_addresses(30) {
        let client = cluster.client().from(address);
        let mut connections: Vec<_> = (0..6).map(|_| client.connect().expect("a connection")).collect();
        for connection in &mut connections {
            connection.send(Request::post("/login", b"").bytes()).expect("sent");
        }
        let answers: Vec<_> = connections.iter_mut().map(|each| each.response().expect("an answer")).collect();
        let mine = answers[0].worker();
        assert!(answers.iter().all(|answer| answer.worker() == mine), "{address} has sessions here and there");
        workers.insert(mine);
        // The last one of a kind counts, and whichever that is all are good.
        for ticketed in &answers {
            for logged_in in &answers {
                let mut jar = Jar::with(STICKY, &ticket(ticketed).expect("a ticket"));
                jar.put("session", &logged_in.text());
                assert_eq!(jar.ask(&client, Request::get("/me")).status, 200, "{address}");
            }
        }
    }
    assert_eq!(workers.len(), usize::from(WORKERS));
    Moves::at_end_of(&cluster).sent();
}

// === learning ===

/// Makes a worker's answer set cookies; answers the worker.
fn set(client: &Client, lines: &[&str]) -> u16 {
    let request = lines.iter().fold(Request::get("/headers"), |request, line| request.header(SET, line));
    let answer = client.connect().and_then(|mut connection| connection.exchange(&request)).expect("an answer");
    assert_eq!(answer.header_values("set-cookie").count(), lines.len(), "{answer:?}");
    answer.worker()
}

/// The worker that serves a request with this cookie header.
fn with_cookies(client: &Client, cookies: &str) -> u16 {
    let request = Request::get("/").header("cookie", cookies);
    client.connect().and_then(|mut connection| connection.exchange(&request)).expect("an answer").worker()
}

/// Quotes, escapes and attributes as applications write them, several cookies in one answer; and nothing is learned
/// from other cookies.
fn cookies_are_learned_as_they_are_sent(bed: &Bed) {
    let cluster = by(bed, "cookie:session+learn").up();
    let mut random = Random::drawn();
    let mut others = 0;
    for address in Client::loopback_addresses(40) {
        let client = cluster.client().from(address);
        let [plain, quoted, escaped, last, other] = fresh(&mut random, 5).try_into().expect("five");
        let set_one = |line: String| set(&client, &[&format!("set-cookie: {line}")]);
        let worker = set_one(format!("session={plain}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"));
        assert_eq!(with_cookies(&client, &format!("a=b; session={plain}")), worker);
        assert_eq!(with_cookies(&client, &format!("session=\"{plain}\"")), worker);
        let worker = set_one(format!("session=\"{quoted}\"; secure"));
        assert_eq!(with_cookies(&client, &format!("session=\"{quoted}\"")), worker);
        let worker = set_one(format!("session={escaped}%3A%2F+x"));
        assert_eq!(with_cookies(&client, &format!("session={escaped}:/+x")), worker);
        let lines = [format!("set-cookie: other={other}"), format!("set-cookie:session = {last} ;path=/")];
        let worker = set(&client, &lines.each_ref().map(String::as_str));
        assert_eq!(with_cookies(&client, &format!("session={last}")), worker);
        others += u32::from(with_cookies(&client, &format!("session={other}")) != worker);
    }
    assert!(others > 10, "{others} of 40 keys that were never learned are elsewhere; by their hashes 30 would be");
    Moves::at_end_of(&cluster).sent();
}

/// Whom a session id belongs to by its hash.
fn owner(cluster: &TestCluster, key: &str) -> u16 {
    let answer = cluster.client().get(&format!("/owner/{key}")).expect("an answer");
    answer.text().parse().expect("a worker")
}

/// New sessions that are not where their ids' hashes say.
fn strangers(cluster: &TestCluster, count: usize) -> Vec<Visitor> {
    let logins = Client::loopback_addresses(2_000).map(|from| Visitor::log_in(&cluster.client().from(from), "/login"));
    logins.filter(|visitor| owner(cluster, &visitor.session) != visitor.worker).take(count).collect()
}

fn forgotten_session_goes_by_its_hash(bed: &Bed) {
    let cluster = by(bed, "cookie:session+learn").up();
    for mut visitor in strangers(&cluster, 20) {
        let client = cluster.client();
        assert!(visitor.is_known(&mut client.connect().expect("a connection")));
        let answer = visitor.jar.ask(&client, Request::post("/logout", b""));
        assert_eq!((answer.text(), answer.worker()), (visitor.session.clone(), visitor.worker));
        let answer = visitor.jar.ask(&client, Request::get("/me"));
        assert_eq!((answer.status, answer.worker()), (401, owner(&cluster, &visitor.session)));
    }
    Moves::at_end_of(&cluster).sent();
}

/// After the idle timeout, with the grace that the table's clock has. One that is used meanwhile stays.
fn unused_sessions_are_forgotten(bed: &Bed) {
    let cluster = by(bed, "cookie:session+learn").env("STICKY_SESSION_IDLE_TIMEOUT", "1s").up();
    let client = cluster.client();
    let mut visitors = strangers(&cluster, 20);
    let mut used = visitors.split_off(10);
    for _ in 0..16 {
        // The time is the point: asking whether they are still known would keep them.
        let_pass(Duration::from_millis(250));
        for visitor in &mut used {
            assert!(visitor.is_known(&mut client.connect().expect("a connection")), "in use");
        }
    }
    for visitor in &mut visitors {
        let answer = visitor.jar.ask(&client, Request::get("/me"));
        assert_eq!((answer.status, answer.worker()), (401, owner(&cluster, &visitor.session)));
    }
    Moves::at_end_of(&cluster).sent();
}

// === own keys ===

/// Every worker says the same of every key, and that is who serves it, wherever a request carries it.
fn owner_of_a_key_serves_it(bed: &Bed) {
    let seed = |launch: Launch| launch.env("STICKY_HASH_SEED", "11").up();
    let clusters = [KeyIn::Header, KeyIn::Cookie, KeyIn::Query, KeyIn::Path]
        .map(|key_in| (key_in, seed(by(bed, key_in.affinity()))));
    let mut random = Random::drawn();
    let mut owners = BTreeSet::new();
    for key in fresh(&mut random, 40) {
        let mut said = BTreeSet::new();
        for (key_in, cluster) in &clusters {
            for from in Client::loopback_addresses(4) {
                let answer = cluster.client().from(from).get(&format!("/owner/{key}")).expect("an answer");
                said.insert(answer.text());
            }
            let answer = cluster.client().connect().and_then(|mut road| road.exchange(&key_in.count(&key)));
            said.insert(answer.expect("an answer").worker().to_string());
        }
        assert_eq!(said.len(), 1, "{key}: {said:?}");
        owners.extend(said);
    }
    assert_eq!(owners.len(), usize::from(WORKERS));
    for (_, cluster) in &clusters {
        Moves::at_end_of(cluster).sent();
    }
}
