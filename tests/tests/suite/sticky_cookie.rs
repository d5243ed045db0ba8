//! The sticky cookie itself: whom it is believed of, how it is set, and that the application never sees it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::eventually;
use sticky_tests::testbed::SET;
use sticky_tests::{Client, Launch, Request, Response, TestCluster};

use crate::bed::{Bed, Row};
use crate::jar::{Jar, STICKY, set_cookie, ticket};
use crate::keys::Moves;

const WORKERS: u16 = 4;
const SECRET: &str = "a secret of the rows, long enough";
const NEXT_SECRET: &str = "the secret that comes after that";

pub(crate) fn rows() -> Vec<Row> {
    let rows = [
        Row::new("sticky_cookie_is_hidden_from_the_application", sticky_cookie_is_hidden_from_the_application),
        Row::new("forged_sticky_cookie_is_never_believed", forged_sticky_cookie_is_never_believed),
        Row::new("sticky_cookie_of_another_cluster_is_never_believed", sticky_cookie_of_another_cluster),
        Row::new("first_good_sticky_cookie_counts", first_good_sticky_cookie_counts),
        Row::new("sticky_cookie_expires", sticky_cookie_expires),
        Row::new("old_sticky_cookie_is_renewed", old_sticky_cookie_is_renewed),
        Row::new("sticky_cookie_is_set_as_configured", sticky_cookie_is_set_as_configured),
        Row::new("sticky_cookie_is_as_secure_as_its_client", sticky_cookie_is_as_secure_as_its_client),
        Row::new("sticky_cookie_stays_out_of_shared_caches", sticky_cookie_stays_out_of_shared_caches),
        Row::new("sticky_cookie_comes_with_every_kind_of_answer", sticky_cookie_comes_with_every_kind_of_answer),
        Row::new("sticky_cookie_outlives_its_secret_once", sticky_cookie_outlives_its_secret_once),
        Row::new("clusters_with_one_secret_share_sticky_cookies", clusters_with_one_secret_share_sticky_cookies),
        Row::new("worker_header_is_added_when_asked_for", worker_header_is_added_when_asked_for),
    ];
    rows.map(|row| row.by_request()).into()
}

fn sticky(bed: &Bed) -> Launch {
    bed.launch().workers(WORKERS).env("STICKY_AFFINITY", "sticky-cookie")
}

fn ask(client: &Client, request: &Request) -> Response {
    client.connect().and_then(|mut connection| connection.exchange(request)).expect("an answer")
}

fn with_cookie(client: &Client, cookie: &str) -> Response {
    ask(client, &Request::get("/").header("cookie", cookie))
}

/// A ticket of each worker, and an address whose first contact is with it.
fn tickets(cluster: &TestCluster) -> BTreeMap<u16, (String, Ipv4Addr)> {
    let mut found = BTreeMap::new();
    for address in Client::loopback_addresses(2_000) {
        let answer = ask(&cluster.client().from(address), &Request::get("/"));
        found.insert(answer.worker(), (ticket(&answer).expect("a ticket for a new client"), address));
        if found.len() == usize::from(WORKERS) {
            return found;
        }
    }
    panic!("only these workers answer: {found:?}");
}

/// Wherever its client comes from, this cookie takes it to that worker, and is good as it is.
fn is_believed(cluster: &TestCluster, cookie: &str, worker: u16) {
    for address in Client::loopback_addresses(12) {
        let answer = with_cookie(&cluster.client().from(address), cookie);
        assert_eq!((answer.worker(), ticket(&answer)), (worker, None), "{cookie} from {address}");
    }
}

/// A client with this cookie is a new one: it goes where its address says, and gets a ticket of that worker.
fn is_replaced(cluster: &TestCluster, cookie: &str) {
    for (worker, (_, address)) in tickets(cluster) {
        let client = cluster.client().from(address);
        let answer = with_cookie(&client, cookie);
        assert_eq!(answer.worker(), worker, "{cookie} from {address}");
        let replaced = ticket(&answer).unwrap_or_else(|| panic!("{cookie} is not replaced: {answer:?}"));
        assert_eq!(with_cookie(&client, &format!("{STICKY}={replaced}")).worker(), worker);
    }
}

/// All others reach it byte by byte, in order.
fn sticky_cookie_is_hidden_from_the_application(bed: &Bed) {
    let cluster = sticky(bed).up();
    let seen = |lines: &[String]| {
        let request =
            lines.iter().fold(Request::get("/cookies"), |request, line| request.line(format!("cookie: {line}")));
        ask(&cluster.client(), &request).text()
    };
    let tickets = tickets(&cluster).into_values().map(|(ticket, _)| format!("sticky={ticket}"));
    for ours in tickets.chain(["sticky=forged", "sticky=", "sticky=a=b"].map(str::to_owned)) {
        for (sent, expected) in [
            (ours.clone(), ""),
            (format!("{ours}; a=1; b=2"), "a=1; b=2"),
            (format!("a=1; {ours}; b=2"), "a=1; b=2"),
            (format!("a=1; b=2; {ours}"), "a=1; b=2"),
            (format!("{ours}; a=1; {ours}"), "a=1"),
            (format!("a=1;{ours};b=2"), "a=1;b=2"),
            (format!("mysticky=1; {ours}; stickyx=2; Sticky=3"), "mysticky=1; stickyx=2; Sticky=3"),
            (format!("a=\"x y\"; {ours}; b=ä%20+,c; d; =e"), "a=\"x y\"; b=ä%20+,c; d; =e"),
            (format!("a=sticky=1; {ours}"), "a=sticky=1"),
        ] {
            assert_eq!(seen(std::slice::from_ref(&sent)), expected, "{sent}");
        }
        assert_eq!(seen(&["a=1".to_owned(), ours.clone()]), "a=1");
        assert_eq!(seen(&[format!("{ours}; a=1"), format!("b=2; {ours}")]), "a=1; b=2");
    }
    for untouched in ["", "a=1;;b=2 ;", "a=1; mysticky=2"] {
        assert_eq!(seen(&[untouched.to_owned()]), untouched.trim_ascii_end());
    }
    assert_eq!(seen(&["a=1".to_owned(), "b=2".to_owned()]), "a=1\nb=2", "as it was where there is none of ours");
    Moves::at_end_of(&cluster).sent();
}

fn forged_sticky_cookie_is_never_believed(bed: &Bed) {
    let cluster = sticky(bed).up();
    let tickets = tickets(&cluster);
    let (good, _) = &tickets[&1];
    is_believed(&cluster, &format!("sticky={good}"), 1);
    let changed = (0..good.len()).map(|index| {
        let mut forged = good.clone().into_bytes();
        forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
        String::from_utf8(forged).expect("ASCII")
    });
    let cut = (0..good.len()).step_by(5).map(|length| good[..length].to_owned());
    let worse = [format!("{good}="), format!("{good}A"), format!("\"{good}\""), good.repeat(2), "1".to_owned()];
    let (_, elsewhere) = &tickets[&0];
    let client = cluster.client().from(*elsewhere);
    for forged in changed.chain(cut).chain(worse) {
        let answer = with_cookie(&client, &format!("sticky={forged}"));
        assert_eq!(answer.worker(), 0, "{forged} made of {good}");
        assert!(ticket(&answer).is_some(), "{forged} is replaced");
    }
    is_replaced(&cluster, &format!("Sticky={good}; mysticky={good}"));
    is_replaced(&cluster, "sticky=1; sticky=2; sticky=3");
    Moves::at_end_of(&cluster).sent();
}

/// Another secret, another name with the same secret, and a worker that this cluster does not have.
fn sticky_cookie_of_another_cluster(bed: &Bed) {
    let cluster = sticky(bed).env("STICKY_COOKIE_SECRET", SECRET).up();
    let other_secret = sticky(bed).env("STICKY_COOKIE_SECRET", NEXT_SECRET).up();
    let other_name = sticky(bed).env("STICKY_COOKIE_SECRET", SECRET).env("STICKY_COOKIE_NAME", "node").up();
    for (foreign, _) in tickets(&other_secret).values() {
        is_replaced(&cluster, &format!("sticky={foreign}"));
    }
    for address in Client::loopback_addresses(8) {
        let answer = ask(&other_name.client().from(address), &Request::get("/"));
        let set = set_cookie(&answer, "node").expect("a cookie of that name");
        let value = set.split(['=', ';']).nth(1).expect("a value");
        is_replaced(&cluster, &format!("sticky={value}"));
    }
    let larger = sticky(bed).env("STICKY_COOKIE_SECRET", SECRET).workers(8).up();
    let beyond = Client::loopback_addresses(500).find_map(|address| {
        let answer = ask(&larger.client().from(address), &Request::get("/"));
        (answer.worker() >= WORKERS).then(|| ticket(&answer).expect("a ticket"))
    });
    is_replaced(&cluster, &format!("sticky={}", beyond.expect("workers 4 to 7 have clients")));
    for cluster in [cluster, other_secret, other_name, larger] {
        Moves::at_end_of(&cluster).sent();
    }
}

/// Browsers send one for each path and domain that a cookie of this name was ever set for.
fn first_good_sticky_cookie_counts(bed: &Bed) {
    let cluster = sticky(bed).up();
    let tickets = tickets(&cluster);
    for (worker, (good, _)) in &tickets {
        let (other, _) = &tickets[&((worker + 1) % WORKERS)];
        is_believed(&cluster, &format!("sticky=forged; a=1; sticky={good}; sticky={other}"), *worker);
    }
    Moves::at_end_of(&cluster).sent();
}

fn sticky_cookie_expires(bed: &Bed) {
    let cluster = sticky(bed).env("STICKY_COOKIE_LIFETIME", "1s").up();
    let tickets = tickets(&cluster);
    let (old, _) = &tickets[&1];
    let (_, elsewhere) = &tickets[&0];
    let client = cluster.client().from(*elsewhere);
    eventually("the cookie is worth nothing", PATIENCE, || {
        with_cookie(&client, &format!("sticky={old}")).worker() == 0
    });
    is_replaced(&cluster, &format!("sticky={old}"));
    Moves::at_end_of(&cluster).sent();
}

/// In the second half of its life, for the same worker.
fn old_sticky_cookie_is_renewed(bed: &Bed) {
    let cluster = sticky(bed).env("STICKY_COOKIE_LIFETIME", "60s").up();
    let (fresh, _) = &tickets(&cluster)[&1];
    is_believed(&cluster, &format!("sticky={fresh}"), 1);
    // Long enough that a slow machine finds the cookie in its second half, not after its end.
    let cluster = sticky(bed).env("STICKY_COOKIE_LIFETIME", "8s").up();
    let tickets = tickets(&cluster);
    let (old, _) = &tickets[&1];
    let (_, elsewhere) = &tickets[&0];
    let client = cluster.client().from(*elsewhere);
    let mut renewed = None;
    eventually("the cookie is renewed", PATIENCE, || {
        let answer = with_cookie(&client, &format!("sticky={old}"));
        assert_eq!(answer.worker(), 1, "{answer:?}");
        renewed = ticket(&answer);
        renewed.is_some()
    });
    let renewed = renewed.expect("a new one");
    assert_ne!(renewed, *old);
    is_believed(&cluster, &format!("sticky={renewed}"), 1);
    Moves::at_end_of(&cluster).sent();
}

/// What a first answer sets, without the value.
fn attributes(answer: &Response, name: &str) -> String {
    let line = set_cookie(answer, name).unwrap_or_else(|| panic!("no {name} in {answer:?}"));
    line.split_once("; ").expect("attributes").1.to_owned()
}

fn sticky_cookie_is_set_as_configured(bed: &Bed) {
    const DEFAULT: &str = "Path=/; HttpOnly; SameSite=Lax";
    for (settings, name, expected) in [
        (&[][..], "sticky", DEFAULT),
        (&[("NAME", "__Host-node")], "__Host-node", "Path=/; HttpOnly; SameSite=Lax"),
        (&[("PATH", "/app")], "sticky", "Path=/app; HttpOnly; SameSite=Lax"),
        (&[("SAME_SITE", "strict")], "sticky", "Path=/; HttpOnly; SameSite=Strict"),
        (&[("SAME_SITE", "none"), ("SECURE", "true")], "sticky", "Path=/; HttpOnly; SameSite=None; Secure"),
        (&[("SECURE", "true")], "sticky", "Path=/; HttpOnly; SameSite=Lax; Secure"),
        (&[("SECURE", "false")], "sticky", DEFAULT),
        (&[("LIFETIME", "90s")], "sticky", "Path=/; HttpOnly; SameSite=Lax; Max-Age=90"),
    ] {
        let launch = settings.iter().fold(sticky(bed).workers(2), |launch, (setting, value)| {
            launch.env(format!("STICKY_COOKIE_{setting}"), value)
        });
        let cluster = launch.up();
        let answer = ask(&cluster.client(), &Request::get("/"));
        assert_eq!(attributes(&answer, name), expected, "{settings:?}");
        let mut jar = Jar::default();
        jar.keep(&answer);
        let answer = jar.ask(&cluster.client().from([127, 0, 9, 9]), Request::get("/cookies"));
        assert_eq!((answer.text().as_str(), set_cookie(&answer, name)), ("", None), "{settings:?}");
        Moves::at_end_of(&cluster).sent();
    }
}

/// As a trusted proxy says, and nobody else.
fn sticky_cookie_is_as_secure_as_its_client(bed: &Bed) {
    let behind_proxy = sticky(bed).env("STICKY_TRUSTED_PROXIES", "127.0.0.1");
    for (launch, is_believed) in [(sticky(bed), false), (behind_proxy, true)] {
        let cluster = launch.up();
        for (header, is_https) in [
            ("x-forwarded-proto: https", true),
            ("x-forwarded-proto: http", false),
            ("forwarded: for=192.0.2.1;proto=https", true),
            ("forwarded: for=192.0.2.1", false),
        ] {
            let is_secure = |client: Client| {
                let answer = ask(&client, &Request::get("/").line(header));
                attributes(&answer, STICKY).split("; ").any(|attribute| attribute == "Secure")
            };
            assert_eq!(is_secure(cluster.client()), is_believed && is_https, "{header}");
            assert!(!is_secure(cluster.client().from([127, 0, 0, 2])), "{header} from somebody else");
        }
        Moves::at_end_of(&cluster).sent();
    }
}

/// A cache would give one client's worker to all others.
fn sticky_cookie_stays_out_of_shared_caches(bed: &Bed) {
    let cluster = sticky(bed).up();
    for (headers, is_shared) in [
        (&["cache-control: public, max-age=60"][..], true),
        (&["cache-control: s-maxage=60"], true),
        (&["cache-control: max-age=60"], true),
        (&["expires: Thu, 31 Dec 2099 23:59:59 GMT"], true),
        (&["cache-control: private", "cache-control: public"], true),
        (&["cache-control: no-store", "cdn-cache-control: public"], true),
        (&["cache-control: private, max-age=60"], false),
        (&["cache-control: no-store"], false),
        (&["etag: \"public\""], false),
        (&[], false),
    ] {
        let request = headers.iter().fold(Request::get("/headers"), |request, header| request.header(SET, header));
        let answer = ask(&cluster.client(), &request);
        assert_eq!(set_cookie(&answer, STICKY).is_none(), is_shared, "{headers:?}: {answer:?}");
        for header in headers {
            let (name, value) = header.split_once(": ").expect("a header");
            assert!(answer.header_values(name).any(|found| found == value), "{header} is as it was: {answer:?}");
        }
        // The application's own are its own affair.
        let answer = ask(&cluster.client(), &request.header(SET, "set-cookie: theirs=1"));
        assert_eq!(set_cookie(&answer, "theirs"), Some("theirs=1"));
    }
    Moves::at_end_of(&cluster).sent();
}

fn sticky_cookie_comes_with_every_kind_of_answer(bed: &Bed) {
    let cluster = sticky(bed).up();
    let upgrade = Request::get("/ws").header("connection", "upgrade").header("upgrade", "websocket");
    let upgrade = upgrade.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (request, status) in [
        (Request::new("HEAD", "/bytes/10"), 200),
        (Request::get("/status/204"), 204),
        (Request::get("/status/404"), 404),
        (Request::get("/status/500"), 500),
        (Request::get("/chunked/20000"), 200),
        (Request::post_chunked("/mirror", vec![b'x'; 20_000], 3_000, &["x-trailer: 1"]), 200),
        (upgrade, 101),
    ] {
        let answer = ask(&cluster.client(), &request);
        assert_eq!(answer.status, status, "{request:?}");
        let mut jar = Jar::with(STICKY, &ticket(&answer).unwrap_or_else(|| panic!("none with {answer:?}")));
        let again = jar.ask(&cluster.client().from([127, 0, 8, 7]), request);
        assert_eq!((again.worker(), ticket(&again)), (answer.worker(), None));
    }
    Moves::at_end_of(&cluster).sent();
}

/// A cluster with the next secret takes the cookies of before to their workers, and replaces them.
fn sticky_cookie_outlives_its_secret_once(bed: &Bed) {
    let before = sticky(bed).env("STICKY_COOKIE_SECRET", SECRET).up();
    let old = tickets(&before);
    Moves::at_end_of(&before).sent();
    let launch = sticky(bed).env("STICKY_COOKIE_SECRET", NEXT_SECRET);
    let between = launch.env("STICKY_COOKIE_PREVIOUS_SECRET", SECRET).up();
    let mut new = BTreeMap::new();
    for (worker, (ticket_before, _)) in &old {
        for address in Client::loopback_addresses(6) {
            let answer = with_cookie(&between.client().from(address), &format!("sticky={ticket_before}"));
            assert_eq!(answer.worker(), *worker, "{address}");
            new.insert(*worker, ticket(&answer).expect("sealed with the new secret"));
        }
        is_believed(&between, &format!("sticky={}", new[worker]), *worker);
    }
    Moves::at_end_of(&between).sent();
    let after = sticky(bed).env("STICKY_COOKIE_SECRET", NEXT_SECRET).up();
    for worker in 0..WORKERS {
        is_believed(&after, &format!("sticky={}", new[&worker]), worker);
        is_replaced(&after, &format!("sticky={}", old[&worker].0));
    }
    Moves::at_end_of(&after).sent();
}

/// Also after a restart, and on another machine.
fn clusters_with_one_secret_share_sticky_cookies(bed: &Bed) {
    let clusters = [(); 2].map(|()| sticky(bed).env("STICKY_COOKIE_SECRET", SECRET).up());
    for (of, other) in [(0, 1), (1, 0)] {
        for (worker, (ticket, _)) in tickets(&clusters[of]) {
            is_believed(&clusters[other], &format!("sticky={ticket}"), worker);
        }
    }
    for cluster in clusters {
        Moves::at_end_of(&cluster).sent();
    }
    let drawn = [(); 2].map(|()| sticky(bed).up());
    is_replaced(&drawn[0], &format!("sticky={}", tickets(&drawn[1])[&2].0));
}

fn worker_header_is_added_when_asked_for(bed: &Bed) {
    for affinity in ["sticky-cookie", "header:x-key", "client-ip"] {
        let launch = || bed.launch().workers(WORKERS).env("STICKY_AFFINITY", affinity);
        let (silent, telling) = (launch().up(), launch().env("STICKY_WORKER_HEADER", "on").up());
        for number in 0..10 {
            let request = Request::get("/headers").header("x-key", &number.to_string());
            let request = request.header(SET, "x-sticky-worker: 77");
            let source = Ipv4Addr::new(127, 0, 5, number + 1);
            let answer = ask(&telling.client().from(source), &request);
            assert_eq!(answer.header_values("x-sticky-worker").collect::<Vec<_>>(), [answer.worker().to_string()]);
            let answer = ask(&silent.client().from(source), &request);
            assert_eq!(answer.header_values("x-sticky-worker").collect::<Vec<_>>(), ["77"], "the application's own");
            let answer = ask(&silent.client().from(source), &Request::get("/"));
            assert_eq!(answer.header("x-sticky-worker"), None);
        }
        Moves::at_end_of(&silent).sent();
        Moves::at_end_of(&telling).sent();
    }
}
