//! `sticky run` in front of real programs: Node's own express and socket.io with the official client, as
//! sticky-socket-cluster's demonstration has it, and what that package got wrong.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::{Client, Launch, Request, Response, Script, TestCluster, node};

/// The demonstration under `sticky run`, with these options and two workers.
fn demonstration(options: &[&str]) -> Launch {
    let server = node::folder().join("seed/server.js");
    assert!(node::folder().join("seed/node_modules").is_dir(), "run `tests/run --install`");
    let arguments = ["run"].iter().chain(options).chain(&["--", "node"]).map(ToString::to_string);
    arguments.fold(Launch::new(env!("CARGO_BIN_EXE_sticky")), Launch::arg).arg(server)
}

fn by_cookie(options: &[&str]) -> TestCluster {
    demonstration(&[&["--affinity", "cookie:sid"], options].concat()).up()
}

fn json(answer: &Response) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Asks with this session.
fn ask(cluster: &TestCluster, session: &str) -> Value {
    let request = Request::get("/").header("cookie", &format!("sid={session}"));
    json(&cluster.client().connect().and_then(|mut connection| connection.exchange(&request)).expect("an answer"))
}

/// Sessions of either worker, in the order of the workers.
fn sessions(cluster: &TestCluster) -> [String; 2] {
    ["0", "1"].map(|worker| {
        let mut names = (0..200).map(|number| format!("session-{number}"));
        names.find(|name| ask(cluster, name)["worker"] == worker).expect("every worker has sessions")
    })
}

fn clients(case: &str, cluster: &TestCluster) {
    Script::new("seed/clients.js").arg(case).arg(format!("http://{}", cluster.address())).arg(2).run();
}

#[test]
fn official_clients_keep_their_worker_by_every_transport() {
    let cluster = by_cookie(&[]);
    clients("sessions", &cluster);
    cluster.stop();
    assert_eq!(cluster.events().count("says goodbye"), 2, "they are asked to end:\n{}", cluster.events());
}

/// A respawned worker of sticky-socket-cluster lost its port, and its slot answered 500 for ever.
#[test]
fn a_program_that_crashes_is_back_and_nobody_elses_clients_notice() {
    let cluster = by_cookie(&[]);
    clients("crash", &cluster);
    cluster.events().expect("starting it again", PATIENCE);
    cluster.stop();
}

/// With `no_sockets`, its requests for upgrades hung.
#[test]
fn sockets_can_be_refused_in_words() {
    let cluster = by_cookie(&["--no-sockets"]);
    let upgrade = Request::get("/socket.io/?EIO=4&transport=websocket").header("connection", "upgrade");
    let upgrade = upgrade.header("upgrade", "websocket").header("sec-websocket-version", "13");
    let answer =
        cluster.client().connect().and_then(|mut connection| connection.exchange(&upgrade)).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (501, r#"{"error":"proxy_error","reason":"no_sockets"}"#));
    clients("no_sockets", &cluster);
    cluster.stop();
}

/// FIRST_PORT from the environment was text: worker 1 of 8100 had 81001.
#[test]
fn ports_are_counted_up_from_the_environment() {
    // Two that are free, and lie one behind the other.
    let first = (0..100).find_map(|_| {
        let one = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        std::net::TcpListener::bind(("127.0.0.1", one.checked_add(1)?)).ok().map(|_| one)
    });
    let first = first.expect("two free ports");
    let cluster = demonstration(&["--affinity", "cookie:sid"]).env("FIRST_PORT", first.to_string()).up();
    for (number, session) in sessions(&cluster).iter().enumerate() {
        assert_eq!(ask(&cluster, session)["port"], (usize::from(first) + number).to_string());
    }
    cluster.stop();
}

/// A hash value named `constructor` crashed it.
#[test]
fn session_names_mean_nothing_to_the_balancer() {
    let cluster = by_cookie(&["--placement", "round-robin"]);
    for name in ["constructor", "__proto__", "toString", "hasOwnProperty", "%00", "a=b"] {
        let first = ask(&cluster, name);
        assert!((0..3).all(|_| ask(&cluster, name)["pid"] == first["pid"]), "{name}");
    }
    cluster.stop();
}

/// As `session_hash` that answers undefined: each request in turn.
#[test]
fn requests_without_a_session_take_turns() {
    let cluster = by_cookie(&[]);
    let answers = (0..10).map(|_| json(&cluster.client().get("/").expect("an answer"))["worker"].to_string());
    assert_eq!(answers.collect::<BTreeSet<_>>().len(), 2);
    cluster.stop();
}

#[test]
fn the_sticky_cookie_works_for_programs_that_know_nothing_of_it() {
    let cluster = demonstration(&["--affinity", "sticky-cookie"]).up();
    let answer = cluster.client().get("/login").expect("an answer");
    let cookies: Vec<_> =
        answer.header_values("set-cookie").map(|line| line.split(';').next().unwrap().to_owned()).collect();
    assert!(cookies.iter().any(|cookie| cookie.starts_with("sticky=")), "{answer:?}");
    let request = || Request::get("/").header("cookie", &cookies.join("; "));
    for address in Client::loopback_addresses(20) {
        let mut connection = cluster.client().from(address).connect().expect("a connection");
        let again = connection.exchange(&request()).expect("an answer");
        assert_eq!(json(&again)["worker"], json(&answer)["worker"]);
        assert_eq!(again.header("set-cookie"), None, "it has one that is good");
    }
    cluster.stop();
}

/// By default one address has one worker; behind a proxy that is trusted, that is the client's.
#[test]
fn clients_are_known_by_their_address() {
    let cluster = demonstration(&[]).env("STICKY_TRUSTED_PROXIES", "127.0.0.1").up();
    let through = |client: &str| {
        let request = Request::get("/").header("x-forwarded-for", client);
        json(&cluster.client().connect().and_then(|mut connection| connection.exchange(&request)).expect("an answer"))
    };
    let workers: BTreeSet<_> = (1..40)
        .map(|last| {
            let client = format!("192.0.2.{last}");
            let answer = through(&client);
            assert_eq!(answer["ip"], client, "express knows, too");
            assert_eq!(through(&client)["pid"], answer["pid"]);
            answer["worker"].to_string()
        })
        .collect();
    assert_eq!(workers.len(), 2);
    let from_another = cluster.client().from(Ipv4Addr::new(127, 0, 0, 9));
    let request = Request::get("/").header("x-forwarded-for", "6.6.6.6");
    let answer = from_another.connect().and_then(|mut connection| connection.exchange(&request)).expect("an answer");
    assert_eq!(json(&answer)["ip"], "127.0.0.9", "who is not trusted speaks for himself");
    cluster.stop();
}

/// Clients of a program that does not come back go to the next one, where they then stay.
#[test]
fn clients_of_a_dead_program_are_served_by_the_next() {
    let cluster = by_cookie(&[]);
    let [lost, other] = sessions(&cluster);
    let (before, beside) = (ask(&cluster, &lost), ask(&cluster, &other));
    let worker =
        cluster.workers().into_iter().find(|pid| process::children(*pid).iter().any(|child| before["pid"] == *child));
    let worker = worker.expect("the worker that has started it");
    // Stopped, it does not notice that its program has ended.
    process::stop(worker);
    let program = u32::try_from(before["pid"].as_u64().expect("a pid")).expect("a pid");
    process::signal(program, Signal::KILL);
    // Before that it may still take a request, which would be lost: its threads end one after the other, and with the last one
    // the socket closes.
    let port: u16 = before["port"].as_str().and_then(|port| port.parse().ok()).expect("a port");
    eventually("it is dead", PATIENCE, || {
        !process::is_alive(program) && std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
    });
    let answer = ask(&cluster, &lost);
    assert_eq!(answer["pid"], beside["pid"]);
    process::signal(worker, Signal::CONT);
    eventually("it is back", PATIENCE, || ask(&cluster, &lost)["worker"] == before["worker"]);
    cluster.stop();
}

#[test]
fn a_reload_replaces_programs_and_loses_nothing() {
    let cluster = by_cookie(&[]);
    let sessions = sessions(&cluster);
    let before: Vec<_> = sessions.iter().map(|session| ask(&cluster, session)["pid"].clone()).collect();
    // What is executing is finished where it is.
    let mut slow: Vec<_> = sessions
        .iter()
        .map(|session| {
            let mut connection = cluster.client().connect().expect("a connection");
            let request = Request::get("/slow").header("cookie", &format!("sid={session}"));
            connection.send(request.bytes()).expect("sent");
            connection
        })
        .collect();
    cluster.reload();
    for (connection, pid) in slow.iter_mut().zip(&before) {
        assert_eq!(json(&connection.response().expect("an answer"))["pid"], *pid);
    }
    for (session, pid) in sessions.iter().zip(&before) {
        assert_ne!(ask(&cluster, session)["pid"], *pid);
    }
    eventually("the former programs are gone", PATIENCE, || {
        cluster.workers().len() == 2 && before.iter().all(|pid| !process::is_alive(pid.as_u64().unwrap() as u32))
    });
    cluster.stop();
}

#[test]
fn programs_are_added_and_taken_out_and_nothing_is_lost() {
    let cluster = by_cookie(&[]);
    let names: Vec<String> = (0..60).map(|number| format!("session-{number}")).collect();
    let owners = || names.iter().map(|name| ask(&cluster, name)["worker"].clone()).collect::<Vec<_>>();
    let two = owners();
    cluster.scale(Signal::TTIN, 1, 3);
    let three = owners();
    assert!(two.iter().zip(&three).all(|(was, is)| was == is || is == "2"), "{two:?} and {three:?}");
    let moved = three.iter().position(|owner| owner == "2").expect("it has sessions");
    let pid = ask(&cluster, &names[moved])["pid"].clone();
    let mut slow = cluster.client().connect().expect("a connection");
    let request = Request::get("/slow").header("cookie", &format!("sid={}", names[moved]));
    slow.send(request.bytes()).expect("sent");
    // It is executing when another of the same program has been answered.
    assert_eq!(ask(&cluster, &names[moved])["pid"], pid);
    cluster.scale(Signal::TTOU, 1, 2);
    assert_eq!(owners(), two);
    assert_eq!(json(&slow.response().expect("an answer"))["pid"], pid);
    let pid = u32::try_from(pid.as_u64().expect("a pid")).expect("a pid");
    eventually("it has ended", PATIENCE, || !process::is_alive(pid) && cluster.workers().len() == 2);
    cluster.stop();
}

/// Nobody is left when the supervisor is killed, or a worker.
#[test]
fn programs_end_with_their_workers() {
    let cluster = by_cookie(&[]);
    let [session, _] = sessions(&cluster);
    let first = ask(&cluster, &session);
    let program = u32::try_from(first["pid"].as_u64().expect("a pid")).expect("a pid");
    let worker = cluster.workers().into_iter().find(|pid| process::children(*pid).contains(&program));
    process::signal(worker.expect("its worker"), Signal::KILL);
    eventually("it has ended with its worker", PATIENCE, || !process::is_alive(program));
    assert_eq!(ask(&cluster, &session)["worker"], first["worker"], "and another has come");
    cluster.signal(Signal::KILL);
    cluster.gone(PATIENCE);
}

/// What comes back for a request with this head, until it ends so.
fn raw(connection: &mut TcpStream, head: &str, end: &str) -> String {
    connection.write_all(format!("{head}\r\n\r\n").as_bytes()).expect("a request");
    read_until(connection, end)
}

fn read_until(connection: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut piece = [0; 1024];
        match connection.read(&mut piece).expect("an answer in time") {
            0 => break,
            length => read.extend_from_slice(&piece[..length]),
        }
    }
    String::from_utf8(read).expect("text")
}

/// Interim answers reach the client; what programs say of their own connections, and in whichever version, does not.
#[test]
fn answers_of_raw_programs_are_told_in_proper_form() {
    let program = node::folder().join("raw.js");
    let launch = Launch::new(env!("CARGO_BIN_EXE_sticky")).arg("run").arg("--workers").arg("1").arg("--").arg("node");
    let cluster = launch.arg(program).up();
    let mut connection = TcpStream::connect(cluster.address()).expect("a connection");
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut ask = |line: &str, end: &str| raw(&mut connection, &format!("{line} HTTP/1.1\r\nhost: a"), end);
    for _ in 0..3 {
        assert!(ask("GET /", "request 1").starts_with("HTTP/1.1 200 OK\r\n"), "one that was closed is not used again");
        let hinted = ask("GET /early", "hinted");
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n";
        assert!(hinted.starts_with(interim), "{hinted}");
        for (path, body) in [("/feeds", "feeds"), ("/old", "old")] {
            let answer = ask(&format!("GET {path}"), body);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len());
            assert!(answer.starts_with(&head), "{answer}");
        }
        let unframed = ask("GET /unframed", "0\r\n\r\n");
        let head = "HTTP/1.1 200 OK\r\nserver: raw\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(unframed.starts_with(head) && unframed.contains("until the end\r\n"), "{unframed}");
        assert!(ask("GET /extra", "extra").ends_with("\r\nextra"), "what nobody asked for goes nowhere");
    }
    // What comes while a body is on its way comes at once.
    let head = "POST /hinting HTTP/1.1\r\nhost: a\r\ncontent-length: 13";
    let hinted = raw(&mut connection, head, "</b.css>\r\n\r\n");
    assert_eq!(hinted, "HTTP/1.1 103 Early Hints\r\nlink: </b.css>\r\n\r\n");
    connection.write_all(b"the end of it").expect("a body");
    let answer = read_until(&mut connection, "all of it");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let mut ask = |line: &str, end: &str| raw(&mut connection, &format!("{line} HTTP/1.1\r\nhost: a"), end);
    // Nobody knows what a request without an answer has done: one that may be done only once is not sent again.
    for round in 1..=3 {
        ask("GET /seen/nothing", "0");
        let silent = ask("POST /silent", "}");
        assert!(silent.starts_with("HTTP/1.1 502 ") && silent.contains("proxy_error"), "{silent}");
        assert!(ask("GET /seen/silent", &round.to_string()).contains("200 OK"));
    }
    cluster.stop();
}

#[test]
fn what_cannot_be_run_is_an_error() {
    for (words, said) in [(&["no-such-program-anywhere"][..], "cannot start"), (&["true"], "has ended")] {
        let launch = Launch::new(env!("CARGO_BIN_EXE_sticky")).arg("run").arg("--");
        let cluster = words.iter().fold(launch, Launch::arg).start();
        assert!(!cluster.exit(PATIENCE).success());
        cluster.gone(Duration::from_secs(2));
        assert!(cluster.events().count(said) > 0, "{}", cluster.events());
    }
}
