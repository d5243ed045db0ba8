//! Another server, with the programs behind it, as one program: `BENCH_FRONT`, `BENCH_KEY` and `BENCH_WORKERS` say which.
//!
//! It ends with SIGTERM or SIGINT, or with its standard input, and takes the others with it.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match linux::main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |&error| error.source());
            let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            eprintln!("bench-front: {text}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::io;

    use sticky_benches::front::{Group, Settings};
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::sync::oneshot;

    pub(super) fn main() -> Result<(), Box<dyn Error>> {
        let settings = Settings::read(|name| std::env::var(name).ok())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            // Before the first process, so that none of them is left behind.
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let input_ended = input_ended();
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

    /// Resolves at the end of standard input: whoever started this is gone.
    fn input_ended() -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        std::thread::spawn(move || {
            // An error is an end, too; and nobody may be waiting any more.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            let _ = sender.send(());
        });
        receiver
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("bench-front: it runs for measurements, which only Linux has");
}
