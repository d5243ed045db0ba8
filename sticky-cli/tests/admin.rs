//! The commands that ask a running cluster, as scripts use them: what they print, and with which status they end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use sticky_tests::process::eventually;
use sticky_tests::{Admin, Launch, TestCluster, cluster::PATIENCE};

const SERVER: &str = r#"
require("node:http").createServer((_, response) => response.end(String(process.pid)))
  .listen(Number(process.env.PORT), "127.0.0.1");
"#;

/// A program in two workers, with an admin process.
fn up() -> TestCluster {
    let launch = Launch::new(env!("CARGO_BIN_EXE_sticky")).with_admin();
    let server = launch.folder().join("server.js");
    fs::write(&server, SERVER).expect("written");
    launch.arg("run").arg("--").arg("node").arg(server).up()
}

fn command(path: Option<&str>, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sticky"));
    command.args(words.split(' ')).stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
    match path {
        Some(path) => command.env("STICKY_ADMIN", format!("127.0.0.1:1,unix:{path}")),
        None => command.env_remove("STICKY_ADMIN"),
    };
    command
}

/// What a command prints on standard output and standard error, and its status.
fn sticky(cluster: &TestCluster, words: &str) -> (String, String, i32) {
    let admin = Admin::of(cluster);
    said(command(admin.path().to_str(), words).output().expect("it runs"))
}

fn said(Output { status, stdout, stderr }: Output) -> (String, String, i32) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(stdout), text(stderr), status.code().expect("no signal"))
}

#[test]
fn commands_print_what_they_do_and_end_with_how_it_went() {
    let cluster = up();
    let (table, _, status) = sticky(&cluster, "status");
    assert!(status == 0 && table.starts_with("running, up ") && table.contains("\nworker 1  ready "), "{table}");
    let (json, _, status) = sticky(&cluster, "status --json");
    let shown: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((status, &shown["slots"][1]["state"], &shown["dispatch"]), (0, &"ready".into(), &"proxy".into()));

    let (told, _, status) = sticky(&cluster, "reload --wait");
    let lines: Vec<_> = told.lines().collect();
    assert_eq!((lines[0], lines[1], status), ("begun", "worker 0 is new (1 of 3)", 0), "{told}");
    assert_eq!(lines.last(), Some(&"reloaded 2 workers and 1 proxy"));

    let (told, _, status) = sticky(&cluster, "drain 1 --wait");
    assert!(status == 0 && told.contains("worker 1 has "), "{told}");
    let (_, why, status) = sticky(&cluster, "drain 0 --wait");
    assert_eq!((why.as_str(), status), ("sticky: no other worker could serve the clients of worker 0\n", 4));
    let (told, _, status) = sticky(&cluster, "restart 1 --wait");
    assert_eq!((told.as_str(), status), ("begun\nworker 1 is new (1 of 1)\nreloaded 1 worker\n", 0));
    let (_, why, status) = sticky(&cluster, "restart 2");
    assert_eq!((why.as_str(), status), ("sticky: there is no worker 2\n", 4));

    let (told, _, status) = sticky(&cluster, "scale 3 --wait");
    assert!(status == 0 && told.starts_with("begun\n") && told.contains("3 workers"), "{told}");
    let (told, _, status) = sticky(&cluster, "scale 3 --wait");
    assert!(status == 0 && told.contains("3 workers"), "{told}");
    let (_, why, status) = sticky(&cluster, "scale 0");
    assert!(status == 4 && why.contains("one worker has to be left"), "{why}");
    let (told, _, status) = sticky(&cluster, "scale 2 --wait");
    assert!(status == 0 && told.contains("2 workers"), "{told}");

    let (told, _, status) = sticky(&cluster, "reexec --wait");
    assert!(status == 0 && told.contains("begun\nreexecuted: the supervisor is sticky "), "{told}");

    fs::write(cluster.folder().join("server.js"), "process.exit(5)").expect("written");
    let (_, why, status) = sticky(&cluster, "reload --wait");
    assert!(why.contains("reload stopped: the new worker 0 ") && why.contains("exit status: 5"), "{why}");
    assert!(status == 1 && why.ends_with("every worker goes on as it was\n"), "{why}");
    let (told, _, status) = sticky(&cluster, "reload");
    assert_eq!((told.as_str(), status), ("begun\n", 0), "who does not wait hears no more");
    assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
    cluster.stop();
    let (_, why, status) = sticky(&cluster, "status");
    assert!(status == 3 && why.starts_with("sticky: cannot reach a cluster at /"), "{why}");
}

/// Nothing is at the program's path: what is there already goes on, and one that is put there later can take over.
#[test]
fn a_reexec_that_is_refused_says_why() {
    let launch = Launch::new(env!("CARGO_BIN_EXE_sticky")).with_admin();
    let (server, program) = (launch.folder().join("server.js"), launch.folder().join("program"));
    fs::write(&server, SERVER).expect("written");
    let cluster = launch.arg("run").arg("--").arg("node").arg(server).copied().up();
    let worker = cluster.client().get("/").expect("an answer").text();
    fs::remove_file(&program).expect("removed");
    let (_, why, status) = sticky(&cluster, "reexec --wait");
    assert_eq!(status, 1, "{why}");
    assert!(
        why.contains("reexec refused: the next supervisor could not be started: ") && why.contains("No such file"),
        "{why}"
    );
    cluster.deploy(env!("CARGO_BIN_EXE_sticky"));
    assert_eq!(sticky(&cluster, "reexec --wait").2, 0);
    assert_eq!(cluster.client().get("/").expect("an answer").text(), worker, "the same one");
    cluster.stop();
}

#[test]
fn mistakes_are_told_apart() {
    for (words, word) in [
        ("status", "STICKY_ADMIN"),
        ("status --admin 127.0.0.1:9000", "names no unix socket"),
        ("drain", "<SLOT>"),
        ("drain minus-one", "minus-one"),
        ("reload now", "now"),
    ] {
        let (_, why, status) = said(command(None, words).output().expect("it runs"));
        assert!(status == 2 && why.contains(word), "{words}: {status}, {why}");
    }
    let (_, why, status) = said(command(None, "events --admin /nowhere").output().expect("it runs"));
    assert!(status == 3 && why.contains("/nowhere"), "{why}");
}

#[test]
fn events_are_lines_of_json_until_the_cluster_ends() {
    let cluster = up();
    let mut events = Lines::of(&cluster, "events");
    let mut first = None;
    // Until it listens, nothing is told to it.
    eventually("it hears something", PATIENCE, || {
        assert_eq!(sticky(&cluster, "restart 0 --wait").2, 0);
        first = events.lines.recv_timeout(Duration::from_millis(50)).ok();
        first.is_some()
    });
    let first: Value = serde_json::from_str(&first.expect("a line")).expect("JSON");
    assert!(first["event"].is_string() && first["text"].is_string() && first["time_ms"].as_u64() > Some(0), "{first}");
    cluster.stop();
    let rest: Vec<String> = events.lines.iter().collect();
    assert!(rest.iter().any(|line| line.contains(r#""event":"shutting_down""#)), "{rest:?}");
    assert!(events.program.wait().expect("its end").success());
}

#[test]
fn a_status_that_is_watched_is_shown_again_until_the_cluster_ends() {
    let cluster = up();
    let mut watch = Lines::of(&cluster, "status --watch --json");
    for _ in 0..2 {
        let line = watch.lines.recv_timeout(PATIENCE).expect("a line");
        assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["state"], "running");
    }
    cluster.stop();
    assert_eq!(watch.program.wait().expect("its end").code(), Some(3));
}

/// A command that goes on, and the lines it prints.
struct Lines {
    program: Child,
    lines: mpsc::Receiver<String>,
}

impl Lines {
    fn of(cluster: &TestCluster, words: &str) -> Self {
        let mut program = command(Admin::of(cluster).path().to_str(), words).spawn().expect("it runs");
        let output = BufReader::new(program.stdout.take().expect("its output"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { program, lines }
    }
}
