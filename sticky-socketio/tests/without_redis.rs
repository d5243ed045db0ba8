//! A program that was built without the feature `redis` says so where `STICKY_REDIS_URL` is set, rather than leave the rooms
//! of other machines out. A program of its own, since it becomes a cluster. `cargo test -p sticky-socketio`: with all
//! features there is nothing to be said.

/// In the cluster's processes there is a URL.
#[cfg(not(feature = "redis"))]
fn main() {
    if std::env::var_os(URL).is_some() {
        let served = sticky_socketio::serve(|_| async { Ok(()) }).block();
        eprintln!("{served:?}");
        return;
    }
    for (name, value) in [(URL, "redis://nowhere"), (URL, "none")] {
        let said = run(name, value);
        assert_eq!(said.contains("without the feature `redis` of sticky-socketio"), value != "none", "{value}: {said}");
    }
    println!("test without_redis ... ok");
}

#[cfg(not(feature = "redis"))]
const URL: &str = "STICKY_REDIS_URL";

/// What this program says when it is a cluster with this variable. It listens nowhere where it does not fail.
#[cfg(not(feature = "redis"))]
fn run(name: &str, value: &str) -> String {
    let listen = if value == "none" { "unix:/dev/null/nowhere" } else { "127.0.0.1:0" };
    let mut command = std::process::Command::new("timeout");
    command.arg("30").arg(std::env::current_exe().expect("this program"));
    command.env(name, value).env("STICKY_LISTEN", listen).env("STICKY_WORKERS", "1");
    let output = command.output().expect("it runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[cfg(feature = "redis")]
fn main() {}
