//! A forwarder to compare with, on one thread: `bench-forward floor|hyper FOLDER`, with `BENCH_WORKERS` programs' sockets in
//! the folder, and the socket to accept from as standard input.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::path::PathBuf;

    use sticky_benches::front::forward::{How, run};

    let mut arguments = std::env::args_os().skip(1);
    let how = match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("floor") => How::Floor,
        Some("hyper") => How::Hyper,
        _ => return Err("the first argument is floor or hyper".into()),
    };
    let folder = PathBuf::from(arguments.next().ok_or("the second argument is a folder")?);
    let workers = std::env::var("BENCH_WORKERS")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(run(how, &folder, workers))?)
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("bench-forward: it runs for measurements, which only Linux has");
}
