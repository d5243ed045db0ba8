//! The program to compare with: `axum::serve` on one tokio runtime of `BENCH_THREADS` threads.

use std::net::Ipv4Addr;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads: usize = std::env::var("BENCH_THREADS")?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        eprintln!("listening on http://{}", listener.local_addr()?);
        // Spawned, because `block_on` would run the accept loop on a thread that is not one of the `threads`.
        tokio::spawn(async move { axum::serve(listener, sticky_benches::program::router()).await }).await??;
        Ok(())
    })
}
