//! The program to compare with: actix's own `HttpServer` with `BENCH_THREADS` workers, on a loopback port.

use std::net::Ipv4Addr;

use actix_web::{App, HttpServer};
use sticky_benches::program_actix::routes;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads: usize = std::env::var("BENCH_THREADS")?.parse()?;
    actix_rt::System::new().block_on(async {
        let server =
            HttpServer::new(|| App::new().configure(routes)).workers(threads).bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = server.addrs()[0];
        let server = server.run();
        eprintln!("listening on http://{address}");
        Ok(server.await?)
    })
}
