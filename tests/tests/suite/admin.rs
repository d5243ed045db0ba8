//! The admin process: what it shows, what it does, whom it answers, and that nobody's clients notice it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command as Program;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use sticky_core::WorkerId;
use sticky_core::admin::{ClusterState, Command, ProcessState, Progress, SlotState};
use sticky_tests::admin::{Admin, check_metrics};
use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::{self, Signal, eventually};
use sticky_tests::testbed::metrics;
use sticky_tests::testbed::prepare::{VARIABLE, WAIT};
use sticky_tests::{Client, Connection, Launch, Random, Request, TestCluster};

use crate::bed::{Bed, Dispatch, Framework, Row};
use crate::drain::executing;
use crate::reload_load::SetOnDrop;

pub(crate) fn rows() -> Vec<Row> {
    let once = |row: Row| row.only(Dispatch::Handoff).only_with(Framework::Core);
    vec![
        Row::new("admin_shows_what_happens", admin_shows_what_happens),
        Row::new("admin_drains_one_worker", admin_drains_one_worker).only_with(Framework::Core),
        once(Row::new("admin_reload_says_why_it_stops", admin_reload_says_why_it_stops)),
        once(Row::new("admin_shows_the_applications_metrics", admin_shows_the_applications_metrics)),
        once(Row::new("admin_tells_events", admin_tells_events)),
        once(Row::new("admin_readiness_follows_the_cluster", admin_readiness_follows_the_cluster)),
        once(Row::new("admin_obeys_its_owner_alone", admin_obeys_its_owner_alone)),
        once(Row::new("admin_answers_no_foreign_pages", admin_answers_no_foreign_pages)),
        once(Row::new("admin_stands_garbage_and_floods", admin_stands_garbage_and_floods)),
        once(Row::new("admin_process_may_die_or_stop", admin_process_may_die_or_stop)),
    ]
}

fn up(launch: Launch) -> (TestCluster, Admin) {
    let cluster = launch.with_admin().up();
    let admin = Admin::of(&cluster);
    (cluster, admin)
}

/// What of these may only rise has not fallen.
pub(crate) fn have_not_fallen(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
    for (name, value) in
        before.iter().filter(|(name, _)| name.split('{').next().is_some_and(|name| name.ends_with("_total")))
    {
        assert!(after.get(name).is_some_and(|now| now >= value), "{name} was {value} and is {:?}", after.get(name));
    }
}

fn sum(metrics: &BTreeMap<String, f64>, name: &str) -> f64 {
    metrics.iter().filter(|(key, _)| key.starts_with(&format!("{name}{{worker="))).map(|(_, value)| value).sum()
}

/// While clients come and go, a worker is killed and all are replaced: every request is counted, no count falls, and the
/// metrics are well-formed.
fn admin_shows_what_happens(bed: &Bed) {
    let (cluster, admin) = up(bed.launch());
    let before = admin.metrics();
    assert_eq!(sum(&before, "sticky_requests_total"), 0.0);
    let done = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let clients: Vec<_> = Client::loopback_addresses(4)
            .map(|address| {
                let (client, done) = (cluster.client().from(address).timeout(PATIENCE), &done);
                scope.spawn(move || {
                    let mut answers = 0.0;
                    while !done.load(Ordering::Relaxed) {
                        // What a killed worker was executing is lost.
                        answers += if client.get("/").is_ok() { 1.0 } else { 0.0 };
                    }
                    answers
                })
            })
            .collect();
        let _ends_the_clients = SetOnDrop(&done);
        let mut last = before.clone();
        let mut look = || {
            let text = admin.metrics_text();
            check_metrics(&text);
            let now = admin.metrics();
            have_not_fallen(&last, &now);
            last = now;
        };
        look();
        let victim = admin.worker(1).processes[0].pid;
        process::signal(victim, Signal::KILL);
        eventually("it is back", PATIENCE, || {
            look();
            let slot = admin.worker(1);
            slot.state == SlotState::Ready && slot.processes[0].pid != victim
        });
        assert_eq!(admin.worker(1).restarts, 1);
        let said = admin.command(Command::Reload);
        assert!(matches!(&said[..], [Progress::Begun, Progress::Step { .. }, .., Progress::Done { .. }]), "{said:?}");
        look();
        done.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("a client")).sum::<f64>()
    });
    eventually("the former workers are gone", PATIENCE, || {
        admin.status().slots.iter().all(|slot| slot.processes.len() == 1)
    });
    let after = admin.metrics();
    let counted = sum(&after, "sticky_requests_total");
    assert!(counted >= asked && asked > 0.0, "{counted} of {asked}");
    assert_eq!(after["sticky_restarts_total{worker=\"1\"}"], 1.0);
    for (number, slot) in admin.status().slots.iter().enumerate().take(2) {
        let process = &slot.processes[0];
        assert_eq!((process.state, u32::from(process.memory_bytes > 1 << 20)), (ProcessState::Ready, 1));
        assert_eq!(after[&format!("sticky_generation{{worker=\"{number}\"}}")], f64::from(process.generation.get()));
        assert_eq!(after[&format!("sticky_state{{worker=\"{number}\",state=\"ready\"}}")], 1.0);
    }
    cluster.stop();
    assert!(admin.try_status().is_err() && !admin.path().exists());
}

/// Of every worker that serves, with its number; whoever tells nothing in time is not waited for, and what is wrong is left out.
fn admin_shows_the_applications_metrics(bed: &Bed) {
    let name = |worker: u16| format!("testbed_asked_total{{worker=\"{worker}\",exported_worker=\"me\"}}");
    let (cluster, admin) = up(bed.launch().env(metrics::VARIABLE, metrics::GOOD));
    for asked in 1..=3 {
        let text = admin.metrics_text();
        check_metrics(&text);
        assert!((0..2).all(|worker| text.contains(&format!("{} {asked}\n", name(worker)))), "{text}");
    }
    cluster.reload();
    let metrics = admin.metrics();
    assert_eq!((metrics[&name(0)], metrics[&name(1)]), (1.0, 1.0), "the new ones");
    // A new admin process is told them, too, and does not wait for one that is stopped.
    process::stop(admin.worker(0).processes[0].pid);
    process::signal(cluster.admin().expect("an admin process"), Signal::KILL);
    eventually("another tells them", PATIENCE, || {
        admin.try_status().is_ok() && admin.metrics().contains_key("sticky_exported_lines_dropped{worker=\"1\"}")
    });
    let metrics = admin.metrics();
    assert!(!metrics.contains_key(&name(0)) && metrics.contains_key(&name(1)), "one that is stopped tells nothing");
    cluster.workers().into_iter().for_each(|pid| process::signal(pid, Signal::CONT));
    eventually("it goes on", PATIENCE, || admin.metrics().contains_key(&name(0)));
    cluster.stop();

    let (cluster, admin) = up(bed.launch().env(metrics::VARIABLE, metrics::BAD));
    let text = admin.metrics_text();
    assert!(
        text.contains("fine{worker=\"1\"} 1\n") && text.contains("sticky_exported_lines_dropped{worker=\"1\"} 2\n")
    );
    assert_eq!(sum(&admin.metrics(), "sticky_requests_total"), 0.0);
    cluster.stop();

    let (cluster, admin) = up(bed.launch().env(metrics::VARIABLE, metrics::LATE));
    assert!(admin.metrics().contains_key("sticky_requests_total{worker=\"0\"}"));
    cluster.stop();
}

/// Its clients go to the next, nothing is lost, and with a restart they are back.
fn admin_drains_one_worker(bed: &Bed) {
    let (cluster, admin) = up(bed.launch());
    let owner = |client: &Client| client.get("/").expect("an answer").worker();
    let mut of_zero = Client::loopback_addresses(200).map(|address| cluster.client().from(address));
    let client = of_zero.find(|client| owner(client) == 0).expect("a client of worker 0");
    let worker = WorkerId::new(0);
    let mut busy = executing(&client, "/sleep/700");
    let said = admin.command(Command::Drain { worker });
    let [Progress::Begun, Progress::Done { text }] = &said[..] else { panic!("{said:?}") };
    assert!(text.starts_with("worker 0 has drained: ") && text.ends_with(" 0 cut"), "{text}");
    let answer = busy.response().expect("a whole answer");
    assert_eq!((answer.text().as_str(), answer.worker()), ("slept", 0));
    eventually("its process is gone", PATIENCE, || cluster.workers().len() == 1);
    assert_eq!(owner(&client), 1);
    assert_eq!((admin.worker(0).state, admin.worker(0).is_evicted), (SlotState::Drained, true));
    let refused = admin.command(Command::Drain { worker: WorkerId::new(1) });
    assert!(matches!(&refused[..], [Progress::Refused { why }] if why.contains("no other worker")), "{refused:?}");
    let said = admin.command(Command::Restart { worker });
    assert!(matches!(&said[..], [.., Progress::Done { text }] if text == "reloaded 1 worker"), "{said:?}");
    eventually("its clients are back", PATIENCE, || owner(&client) == 0);
    assert_eq!(client.get("/").expect("an answer").generation(), 1);
    cluster.stop();
}

/// What is wrong with a new program is the command's last word; the old ones serve on.
fn admin_reload_says_why_it_stops(bed: &Bed) {
    let faults: [(&str, &[&str]); 5] = [
        ("exit-before-sticky", &["the new worker 0 exited with status 0 before it was ready"]),
        ("error-from-factory", &["the new worker 0 ", "before it was ready", "the factory found no database"]),
        ("never-ready", &["the new worker 0 was not ready within 3s"]),
        ("short-life", &["the new worker 0 exited with status 4 within reload_soak"]),
        ("other-affinity", &["the new worker 0 ", "a reload can't change affinity: restart"]),
    ];
    for (fault, words) in faults {
        // The old program has to be ready within it, too, however busy the machine is.
        let boot_timeout = if fault == "never-ready" { "3s" } else { "1m" };
        let launch = bed.deployed().env("TESTBED_FAULT", fault).env("STICKY_BOOT_TIMEOUT", boot_timeout);
        let (cluster, admin) = up(launch.env("STICKY_RELOAD_SOAK", "20s"));
        let before = cluster.pids(2);
        cluster.deploy(env!("CARGO_BIN_EXE_testbed-fault"));
        let said = while_served(&cluster, || admin.command(Command::Reload));
        let [Progress::Begun, Progress::Failed { why }] = &said[..] else { panic!("{said:?}") };
        for word in words.iter().chain(&["every worker goes on as it was"]) {
            assert!(why.contains(word), "{word:?} is not in {why:?}");
        }
        assert_eq!(cluster.pids(2), before);
        cluster.stop();
    }
}

/// Does something while clients ask, each of whom gets every answer, from who served before.
fn while_served<T>(cluster: &TestCluster, act: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = Client::loopback_addresses(2)
            .map(|address| {
                let (client, done) = (cluster.client().from(address).timeout(PATIENCE), &done);
                scope.spawn(move || {
                    let mut kept = client.connect().expect("a connection");
                    let mut asked = 0;
                    while asked == 0 || !done.load(Ordering::Relaxed) {
                        for answer in [client.get("/"), kept.get("/")] {
                            assert_eq!(answer.expect("an answer").generation(), 0);
                        }
                        asked += 1;
                    }
                })
            })
            .collect();
        let ends_the_clients = SetOnDrop(&done);
        let outcome = act();
        drop(ends_the_clients);
        clients.into_iter().for_each(|client| client.join().expect("every answer"));
        outcome
    })
}

fn admin_tells_events(bed: &Bed) {
    let (cluster, admin) = up(bed.launch());
    let mut events = admin.events();
    process::signal(admin.worker(1).processes[0].pid, Signal::KILL);
    let event = events.expect("restarting");
    assert_eq!(event.who.as_deref(), Some("worker 1"));
    assert!(event.text.contains("was killed by signal 9") && event.time_ms > 0, "{event:?}");
    cluster.signal(Signal::HUP);
    assert_eq!(events.expect("reloading").text, "reloading 2 workers");
    events.expect("reloaded");
    cluster.signal(Signal::TERM);
    events.expect("shutting_down");
    assert!(events.end(), "and then no more");
    assert!(cluster.exit(PATIENCE).success());
}

/// 503 while nothing is accepted: before the first generation is ready, and from the moment at which the end begins.
fn admin_readiness_follows_the_cluster(bed: &Bed) {
    let launch = bed.launch().with_admin();
    let file = launch.folder().join("prepare");
    fs::write(&file, WAIT).expect("a file");
    let cluster = launch.env(VARIABLE, &file).start();
    let admin = Admin::of(&cluster);
    let ready = || {
        let answer = admin.raw(&Request::get("/readyz")).ok()?;
        Some((answer.status, answer.text().trim().to_owned()))
    };
    let is = |status, text: &str| ready() == Some((status, text.to_owned()));
    eventually("it answers", PATIENCE, || is(503, "starting"));
    assert_eq!(admin.raw(&Request::get("/healthz")).expect("an answer").status, 200);
    fs::write(&file, "").expect("written");
    cluster.wait_until_up();
    eventually("it is ready", PATIENCE, || is(200, "ready"));
    let mut busy = executing(&cluster.client(), "/sleep/700");
    cluster.signal(Signal::TERM);
    eventually("it says that it ends", PATIENCE, || is(503, "shutting_down"));
    assert_eq!(admin.status().state, ClusterState::ShuttingDown);
    assert_eq!(busy.response().expect("a whole answer").text(), "slept");
    assert!(cluster.exit(PATIENCE).success());
    cluster.gone(Duration::from_secs(2));
}

/// What curl says to a request at this socket as another user: the status, or 0 without a connection.
fn as_nobody(admin: &Admin, arguments: &[&str]) -> u16 {
    let mut curl = Program::new("setpriv");
    curl.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "curl", "--silent", "--max-time", "20"]);
    curl.args(["--output", "/dev/null", "--write-out", "%{http_code}", "--unix-socket"])
        .arg(admin.path())
        .args(arguments);
    let output = curl.output().expect("util-linux and curl");
    String::from_utf8_lossy(&output.stdout).parse().expect("a status")
}

fn admin_obeys_its_owner_alone(bed: &Bed) {
    let (cluster, admin) = up(bed.launch());
    let mode = |path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(admin.path()), 0o600);
    assert_eq!(admin.raw(&Request::get("/reload")).expect("an answer").status, 405);
    if rustix::process::geteuid().is_root() {
        let (status, reload) = (["http://sticky/status"], ["--request", "POST", "http://sticky/reload"]);
        assert_eq!((as_nobody(&admin, &status), as_nobody(&admin, &reload)), (0, 0), "nobody else gets in");
        // Opened by whoever may do that, it can be looked at.
        fs::set_permissions(admin.path(), Permissions::from_mode(0o666)).expect("opened");
        assert_eq!((as_nobody(&admin, &status), as_nobody(&admin, &reload)), (200, 403), "but nothing can be asked");
        assert_eq!(cluster.events().count("reloading"), 0);
    }
    // Its owner, and root in his place.
    let said = admin.command(Command::Reload);
    assert!(matches!(&said[..], [.., Progress::Done { .. }]), "{said:?}");
    cluster.stop();
    let (cluster, admin) = up(bed.launch().unprivileged());
    let said = admin.command(Command::Restart { worker: WorkerId::new(1) });
    assert!(matches!(&said[..], [.., Progress::Done { .. }]), "{said:?}");
    cluster.stop();
}

/// Over TCP, where pages in a browser come, too.
fn admin_answers_no_foreign_pages(bed: &Bed) {
    let cluster = bed.launch().env("STICKY_ADMIN", "127.0.0.1:0").up();
    let line = cluster.events().expect("metrics and status are at http://", PATIENCE);
    let address = line.rsplit("http://").next().expect("an address").trim().parse::<SocketAddr>().expect("an address");
    let status = |method: &str, path: &str, host: &str, more: &str| {
        let mut connection = Client::new(address).connect().expect("a connection");
        connection.send(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n")).expect("sent");
        connection.response().expect("an answer").status
    };
    let own = address.to_string();
    for path in ["/metrics", "/status", "/readyz"] {
        assert_eq!(status("GET", path, &own, ""), 200, "{path}");
        assert_eq!(status("GET", path, "rebound.example", ""), 421, "{path}");
        for foreign in ["sec-fetch-site: cross-site\r\n", "origin: http://evil.example\r\n", "origin: null\r\n"] {
            assert_eq!(status("GET", path, &own, foreign), 403, "{path} {foreign}");
        }
    }
    assert_eq!(status("GET", "/events", "localhost", ""), 403);
    for path in ["/reload", "/workers/0/drain"] {
        assert_eq!(status("POST", path, &own, "content-length: 0\r\n"), 403, "{path}");
    }
    assert_eq!(cluster.events().count("reloading"), 0);
    cluster.stop();
}

/// A connection that says nothing, unless there is no room for it.
fn connect_at_once(admin: &Admin) -> Option<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("set");
    socket.connect(&SockAddr::unix(admin.path()).expect("a path")).ok().map(|()| socket)
}

/// Whatever is written to it, however many come and say nothing: it answers the next, and no client of the cluster notices.
fn admin_stands_garbage_and_floods(bed: &Bed) {
    let (cluster, admin) = up(bed.launch());
    let mut random = Random::drawn();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(admin.path()).expect("a connection");
        let bytes: Vec<u8> = (0..1 + random.below(4096)).map(|_| random.draw().to_le_bytes()[0]).collect();
        // It may have hung up already.
        let _ = stream.write_all(&bytes);
    }
    for head in
        ["GET", "POST /reload HTTP/1.1\r\ncontent-length: 9999999999\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = UnixStream::connect(admin.path()).expect("a connection");
        let _ = stream.write_all(head.as_bytes());
    }
    assert_eq!(admin.status().state, ClusterState::Running);
    // Over one connection after the other, as a scraper that keeps its own.
    let mut kept = Connection::over(UnixStream::connect(admin.path()).expect("a connection"));
    for _ in 0..20 {
        assert_eq!(kept.get("/metrics").expect("an answer").status, 200);
    }
    let flood: Vec<_> = (0..300).map_while(|_| connect_at_once(&admin)).collect();
    assert!((32..300).contains(&flood.len()), "as many as are served and wait: {}", flood.len());
    assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
    cluster.reload();
    drop(flood);
    assert_eq!(admin.status().slots.len(), 2);
    cluster.stop();
}

/// The process that serves it belongs to nobody's clients: killed, it is back with everything that was counted; stopped, it
/// holds up nothing.
fn admin_process_may_die_or_stop(bed: &Bed) {
    let (cluster, admin) = up(bed.launch());
    let addresses = Client::loopback_addresses(20);
    addresses.for_each(|address| drop(cluster.client().from(address).get("/").expect("an answer")));
    let workers = cluster.pids(2);
    cluster.reload();
    let before = admin.metrics();
    let first = cluster.admin().expect("an admin process");
    process::signal(first, Signal::KILL);
    eventually("another has come", PATIENCE, || cluster.admin().is_some_and(|pid| pid != first));
    eventually("it answers", PATIENCE, || admin.try_status().is_ok());
    have_not_fallen(&before, &admin.metrics());
    assert!(admin.status().slots.iter().all(|slot| slot.state == SlotState::Ready));
    process::stop(cluster.admin().expect("an admin process"));
    cluster.reload();
    assert!(cluster.pids(2).iter().all(|(slot, pid)| workers[slot] != *pid));
    // A client that connects and hears nothing is no worse off than that.
    let waiting = TcpStream::connect(cluster.address()).expect("a connection");
    drop(waiting);
    cluster.stop();
}
