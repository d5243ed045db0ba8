//! Which worker a session gets that is seen for the first time, and whom code may choose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::process::Command;
use std::time::Instant;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::{Client, Connection, Launch, Random, Request, Response, TestCluster};

use crate::bed::{Bed, Dispatch, Row};
use crate::jar::{Jar, STICKY, ticket};
use crate::keys::{Moves, fresh};

const WORKERS: u16 = 4;
/// New clients at once.
const BURST: u32 = 60;
const FAIR: usize = 15;

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("burst_is_placed_in_turn", burst_is_placed_in_turn),
        Row::new("burst_of_one_address_is_placed_in_turn", burst_of_one_address_is_placed_in_turn),
        Row::new("burst_goes_to_the_fewest_connections", burst_goes_to_the_fewest_connections),
        Row::new("http2_sessions_stay_however_placed", http2_sessions_stay_however_placed),
        Row::new("tenants_belong_to_workers", tenants_belong_to_workers),
        Row::new("tenants_placed_in_turn_stay", tenants_placed_in_turn_stay),
        Row::new("addresses_placed_in_turn_stay", addresses_placed_in_turn_stay),
        Row::new("code_chooses_a_worker", code_chooses_a_worker),
        Row::new("worker_that_does_not_exist_has_a_stand_in", worker_that_does_not_exist_has_a_stand_in),
        Row::new("worker_that_does_not_exist_is_refused", worker_that_does_not_exist_is_refused),
    ];
    let of_connections = [
        Row::new("new_clients_avoid_a_busy_worker", new_clients_avoid_a_busy_worker),
        Row::new("local_sessions_stay_where_they_arrive", local_sessions_stay_where_they_arrive),
    ];
    // Where connections are the proxy's, as [`Bed::connections_are_a_workers`] says, neither means anything.
    let of_connections = of_connections.map(|row| row.only(Dispatch::Handoff));
    rows.map(|row| row.by_request()).into_iter().chain(of_connections).collect()
}

fn sticky(bed: &Bed, placement: &str) -> Launch {
    let launch = bed.launch().workers(WORKERS).env("STICKY_AFFINITY", "sticky-cookie");
    launch.env("STICKY_PLACEMENT", placement)
}

fn ask(client: &Client, request: &Request) -> Response {
    client.connect().and_then(|mut connection| connection.exchange(request)).expect("an answer")
}

/// Asks on all of these connections before it reads any answer, and lets no connection go.
fn at_once(connections: &mut [Connection], request: impl Fn(usize) -> Request) -> Vec<Response> {
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.send(request(number).bytes()).expect("sent");
    }
    connections.iter_mut().map(|connection| connection.response().expect("an answer")).collect()
}

fn connect(clients: impl Iterator<Item = Client>) -> Vec<Connection> {
    clients.map(|client| client.connect().expect("a connection")).collect()
}

fn counts(answers: &[Response]) -> BTreeMap<u16, usize> {
    let mut counts: BTreeMap<u16, usize> = (0..WORKERS).map(|worker| (worker, 0)).collect();
    for answer in answers {
        *counts.get_mut(&answer.worker()).expect("one of the workers") += 1;
    }
    counts
}

fn are_within(counts: &BTreeMap<u16, usize>, bounds: &RangeInclusive<usize>) {
    assert!(counts.values().all(|count| bounds.contains(count)), "{counts:?} are not within {bounds:?}");
}

/// Everyone's next request, from somewhere else, is answered where the first one was.
fn stay(cluster: &TestCluster, answers: &[Response]) {
    for answer in answers {
        let mut jar = Jar::with(STICKY, &ticket(answer).expect("a ticket"));
        for address in Client::loopback_addresses(3) {
            let again = jar.ask(&cluster.client().from(address), Request::get("/"));
            assert_eq!((again.worker(), ticket(&again)), (answer.worker(), None));
        }
    }
}

// === burst of new clients ===

/// The kernel gives each worker some of the clients, and each worker deals out its own in turn: of those, no worker
/// gets more than 3/4 of a client above the mean of the four, nor below it. So of all sixty none gets more than 3.
fn burst_is_placed_in_turn(bed: &Bed) {
    let cluster = sticky(bed, "round-robin").up();
    for _ in 0..3 {
        let mut clients = connect(Client::loopback_addresses(BURST).map(|from| cluster.client().from(from)));
        let answers = at_once(&mut clients, |_| Request::get("/"));
        are_within(&counts(&answers), &(FAIR - 3..=FAIR + 3));
        stay(&cluster, &answers[..20]);
    }
    Moves::at_end_of(&cluster).sent();
}

/// One worker places them all, so that the turns are exact.
fn burst_of_one_address_is_placed_in_turn(bed: &Bed) {
    let cluster = sticky(bed, "round-robin").up();
    let mut clients = connect((0..BURST).map(|_| cluster.client()));
    let answers = at_once(&mut clients, |_| Request::get("/"));
    are_within(&counts(&answers), &(FAIR..=FAIR));
    stay(&cluster, &answers[..20]);
    Moves::at_end_of(&cluster).sent();
}

/// A client is sent to the worker with the fewest connections, those on their way to it among them. At the same moment
/// each of the three other workers may do that by the same numbers: the counts differ by at most one for each worker from
/// the fair ones. By numbers that know nothing of those on their way, all sixty would be sent to one worker; by numbers
/// that count them where they wait, too, those who have sent away more than a channel takes would seem full.
fn burst_goes_to_the_fewest_connections(bed: &Bed) {
    let bounds = FAIR - usize::from(WORKERS)..=FAIR + usize::from(WORKERS);
    for one_address in [false, true] {
        // Another cluster each time: connections that have just ended would count for a moment.
        let cluster = sticky(bed, "fewest-connections").up();
        let from = |address: Ipv4Addr| if one_address { Ipv4Addr::LOCALHOST } else { address };
        wait_for_everybody(&cluster);
        let mut clients =
            connect(Client::loopback_addresses(BURST).map(|address| cluster.client().from(from(address))));
        // Behind a proxy those count whose request is executing, so all of them are at the same time.
        let path = if bed.is_proxied() { "/sleep/4000" } else { "/" };
        let answers = at_once(&mut clients, |_| Request::get(path));
        are_within(&counts(&answers), &bounds);
        stay(&cluster, &answers[..20]);
        Moves::at_end_of(&cluster).sent();
    }
}

/// Waits until each worker has been given a new session: none is sent to a worker that has not begun.
fn wait_for_everybody(cluster: &TestCluster) {
    let mut client = cluster.client().connect().expect("a connection");
    let (mut seen, deadline) = (BTreeSet::new(), Instant::now() + PATIENCE);
    while seen.len() < usize::from(WORKERS) {
        assert!(Instant::now() < deadline, "new sessions are given to {seen:?} only");
        seen.insert(client.exchange(&Request::get("/")).expect("an answer").worker());
    }
}

/// Twenty connections that worker 0 has already; then thirty new clients, one after the other, which the three others
/// share.
fn new_clients_avoid_a_busy_worker(bed: &Bed) {
    let cluster = sticky(bed, "fewest-connections").up();
    wait_for_everybody(&cluster);
    let tickets = Client::loopback_addresses(2_000).map(|from| ask(&cluster.client().from(from), &Request::get("/")));
    let of_zero = tickets.filter(|answer| answer.worker() == 0).find_map(|answer| ticket(&answer));
    let jar = Jar::with(STICKY, &of_zero.expect("worker 0 has clients"));
    let mut busy = connect((0..20).map(|_| cluster.client()));
    let answers = at_once(&mut busy, |_| jar.on(Request::get("/")));
    assert!(answers.iter().all(|answer| answer.worker() == 0));
    let (mut clients, mut answers) = (Vec::new(), Vec::new());
    for address in Client::loopback_addresses(30) {
        let mut connection = cluster.client().from(address).connect().expect("a connection");
        answers.push(connection.exchange(&Request::get("/")).expect("an answer"));
        clients.push(connection);
    }
    let mut counts = counts(&answers);
    assert_eq!(counts.remove(&0), Some(0), "{counts:?}");
    // One may count on both sides for a moment after it has moved.
    are_within(&counts, &(9..=11));
    Moves::at_end_of(&cluster).sent();
}

// === local ===

/// A new client is served by whoever has the connection it comes by, and stays there. Nothing moves for it.
fn local_sessions_stay_where_they_arrive(bed: &Bed) {
    let cluster = sticky(bed, "local").up();
    let mut clients = connect(Client::loopback_addresses(40).map(|from| cluster.client().from(from)));
    let answers = at_once(&mut clients, |_| Request::get("/"));
    assert_eq!(counts(&answers).values().filter(|count| **count > 0).count(), usize::from(WORKERS));
    assert_eq!(Moves::at_end_of(&cluster).sent(), 0);
    let cluster = sticky(bed, "local").up();
    let mut shared = cluster.client().connect().expect("a connection");
    let answers: Vec<_> =
        Client::loopback_addresses(40).map(|from| ask(&cluster.client().from(from), &Request::get("/"))).collect();
    for known in &answers {
        let jar = Jar::with(STICKY, &ticket(known).expect("a ticket"));
        assert_eq!(shared.exchange(&jar.on(Request::get("/"))).expect("an answer").worker(), known.worker());
        let new = shared.exchange(&Request::get("/")).expect("an answer");
        assert_eq!(new.worker(), known.worker(), "where the connection is");
        stay(&cluster, &[new]);
    }
    Moves::at_end_of(&cluster).sent();
}

// === HTTP/2 ===

/// What curl says of one request by HTTP/2, on a connection of its own, with the cookies it has kept.
fn curl(cluster: &TestCluster, method: &str, path: &str) -> String {
    let jar = cluster.folder().join("jar").display().to_string();
    let url = format!("http://{}{path}", cluster.address());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "10", "--http2-prior-knowledge", "-X", method, "-o", "/dev/null"]);
    curl.args(["-w", "%{http_version} %{http_code}", "-b", &jar, "-c", &jar, &url]);
    let output = curl.output().expect("curl");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Nobody looks for a cookie in the first request of an HTTP/2 connection: its client must be found by its address, how
/// ever it was placed at first.
fn http2_sessions_stay_however_placed(bed: &Bed) {
    for placement in ["rendezvous", "round-robin", "fewest-connections"] {
        for affinity in ["sticky-cookie", "cookie:session+learn"] {
            let cluster = sticky(bed, placement).env("STICKY_AFFINITY", affinity).up();
            assert_eq!(curl(&cluster, "POST", "/login"), "2 200");
            let answers: Vec<_> = (0..8).map(|_| curl(&cluster, "GET", "/me")).collect();
            assert_eq!(answers, vec!["2 200"; 8], "{affinity}, {placement}");
            Moves::at_end_of(&cluster).sent();
        }
    }
}

// === code ===

/// Names that are something else in the language of those who know this option from sticky-session.
const ODD: [&str; 6] = ["constructor", "__proto__", "toString", "0", "-1", "a tenant; with=signs, ä"];

fn by_tenant(bed: &Bed) -> Launch {
    bed.launch().workers(WORKERS).env("TESTBED_AFFINITY", "tenant")
}

fn of_tenant(tenant: &str) -> Request {
    Request::get("/").header("x-tenant", tenant)
}

fn tenants(random: &mut Random, count: usize) -> Vec<String> {
    fresh(random, count).into_iter().chain(ODD.map(str::to_owned)).collect()
}

/// Each tenant's requests reach one worker by any connection, and those of nobody stay where they are.
fn tenants_stay(bed: &Bed, cluster: &TestCluster, tenants: &[String]) -> BTreeMap<String, u16> {
    let mut random = Random::drawn();
    let (mut owners, mut shared) = (BTreeMap::new(), cluster.client().connect().expect("a connection"));
    for _ in 0..10 * tenants.len() {
        let tenant = random.choose(tenants);
        let own = random.below(2) == 0;
        let answer = if own {
            let from = Ipv4Addr::new(127, 3, 0, u8::try_from(random.between(1, 200)).expect("a byte"));
            ask(&cluster.client().from(from), &of_tenant(tenant))
        } else {
            shared.exchange(&of_tenant(tenant)).expect("an answer")
        };
        let owner = *owners.entry(tenant.clone()).or_insert(answer.worker());
        assert_eq!(answer.worker(), owner, "{tenant:?}");
        if !own && bed.connections_are_a_workers() {
            for nobody in [Request::get("/"), of_tenant("")] {
                assert_eq!(shared.exchange(&nobody).expect("an answer").worker(), owner, "where the connection is");
            }
        }
    }
    owners
}

fn tenants_belong_to_workers(bed: &Bed) {
    let cluster = by_tenant(bed).up();
    let owners = tenants_stay(bed, &cluster, &tenants(&mut Random::drawn(), 40));
    assert_eq!(owners.values().collect::<BTreeSet<_>>().len(), usize::from(WORKERS), "{owners:?}");
    for (tenant, owner) in owners.iter().filter(|(tenant, _)| tenant.starts_with('k')) {
        let said = cluster.client().get(&format!("/owner/{tenant}")).expect("an answer").text();
        assert_eq!(said, owner.to_string(), "{tenant}");
    }
    Moves::at_end_of(&cluster).sent();
}

/// As sticky-session places its `session_hash`. Sixty new tenants at once are shared as clients without a key are.
fn tenants_placed_in_turn_stay(bed: &Bed) {
    let cluster = by_tenant(bed).env("STICKY_PLACEMENT", "round-robin").up();
    let mut random = Random::drawn();
    let new = fresh(&mut random, BURST as usize);
    let mut clients = connect(Client::loopback_addresses(BURST).map(|from| cluster.client().from(from)));
    let answers = at_once(&mut clients, |number| of_tenant(&new[number]));
    are_within(&counts(&answers), &(FAIR - 3..=FAIR + 3));
    for (tenant, answer) in new.iter().zip(&answers) {
        assert_eq!(ask(&cluster.client(), &of_tenant(tenant)).worker(), answer.worker(), "{tenant}");
    }
    // One tenant whose first requests come all at once has one worker as well.
    for tenant in ODD {
        let answers = at_once(&mut clients, |_| of_tenant(tenant));
        let workers: BTreeSet<u16> = answers.iter().map(Response::worker).collect();
        assert_eq!(workers.len(), 1, "{tenant}: {workers:?}");
    }
    tenants_stay(bed, &cluster, &new);
    Moves::at_end_of(&cluster).sent();
}

fn addresses_placed_in_turn_stay(bed: &Bed) {
    let cluster = bed.launch().workers(WORKERS).env("STICKY_PLACEMENT", "round-robin").up();
    let from = |address: Ipv4Addr| cluster.client().from(address);
    let mut clients = connect(Client::loopback_addresses(BURST).map(from));
    let answers = at_once(&mut clients, |_| Request::get("/"));
    are_within(&counts(&answers), &(FAIR - 3..=FAIR + 3));
    for (address, answer) in Client::loopback_addresses(BURST).zip(&answers) {
        for _ in 0..3 {
            assert_eq!(ask(&from(address), &Request::get("/")).worker(), answer.worker(), "{address}");
        }
    }
    Moves::at_end_of(&cluster).sent();
}

fn by_choice(bed: &Bed) -> Launch {
    bed.launch().workers(WORKERS).env("TESTBED_AFFINITY", "worker")
}

fn to(worker: u16) -> Request {
    Request::get("/").header("x-to", &worker.to_string())
}

fn code_chooses_a_worker(bed: &Bed) {
    let cluster = by_choice(bed).up();
    let mut random = Random::drawn();
    let mut shared = cluster.client().connect().expect("a connection");
    for _ in 0..300 {
        let worker = u16::try_from(random.below(usize::from(WORKERS))).expect("a worker");
        assert_eq!(shared.exchange(&to(worker)).expect("an answer").worker(), worker);
        let nobody = Request::get("/").header("x-to", "nobody");
        let answer = shared.exchange(&nobody).expect("an answer");
        assert!(answer.worker() == worker || !bed.connections_are_a_workers(), "where the connection is");
    }
    Moves::at_end_of(&cluster).sent();
}

const NOWHERE: [u16; 4] = [WORKERS, 9, 256, u16::MAX];

/// Always the same one, whoever asks.
fn worker_that_does_not_exist_has_a_stand_in(bed: &Bed) {
    let cluster = by_choice(bed).up();
    for worker in NOWHERE {
        let stand_ins: BTreeSet<u16> = Client::loopback_addresses(20)
            .map(|address| ask(&cluster.client().from(address), &to(worker)).worker())
            .collect();
        assert_eq!(stand_ins.len(), 1, "{worker}: {stand_ins:?}");
    }
    Moves::at_end_of(&cluster).sent();
}

fn worker_that_does_not_exist_is_refused(bed: &Bed) {
    for failover in ["wait", "refuse"] {
        let cluster = by_choice(bed).env("STICKY_FAILOVER", failover).up();
        for worker in NOWHERE {
            for address in Client::loopback_addresses(8) {
                let answer = ask(&cluster.client().from(address), &to(worker));
                assert_eq!(answer.status, 503, "{answer:?}");
            }
        }
        for worker in 0..WORKERS {
            assert_eq!(ask(&cluster.client(), &to(worker)).worker(), worker, "the others are as ever");
        }
        Moves::at_end_of(&cluster).sent();
    }
}
