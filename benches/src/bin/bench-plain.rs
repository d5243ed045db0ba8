//! The program to compare with: `axum::serve` on one tokio runtime of `BENCH_THREADS` threads, on a loopback port, or on
//! the unix socket `BENCH_SOCKET`.

use std::net::Ipv4Addr;

use axum::serve;
use sticky_benches::program::router;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads: usize = std::env::var("BENCH_THREADS")?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    // Both are spawned, because `block_on` would run the accept loop on a thread that is not one of the `threads`.
    runtime.block_on(async {
        #[cfg(unix)]
        if let Some(path) = std::env::var_os("BENCH_SOCKET") {
            let listener = tokio::net::UnixListener::bind(path)?;
            return Ok(tokio::spawn(async move { serve(listener, router()).await }).await??);
        }
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        eprintln!("listening on http://{}", listener.local_addr()?);
        Ok(tokio::spawn(async move { serve(listener, router()).await }).await??)
    })
}
