//! Another server, with the programs behind it, as one program: `BENCH_FRONT`, `BENCH_KEY` and `BENCH_WORKERS` say which.
//!
//! It ends with SIGTERM or SIGINT, or with its standard input, and takes the others with it.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::io;

    use sticky_benches::front::{Group, Settings};
    use tokio::signal::unix::{SignalKind, signal};

    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (input, input_ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end, too.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = input.send(());
    });
    runtime.block_on(async {
        // Before the first process, so that none of them is left behind.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let group = Group::start(&settings)?;
        eprintln!("listening on http://{}", group.address());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = input_ended => {}
        }
        Ok(())
    })
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("bench-front: it runs for measurements, which only Linux has");
}
