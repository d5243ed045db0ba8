//! The same application under sticky, configured by `STICKY_*` alone.

use actix_web::App;
use sticky_benches::program_actix::routes;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(sticky_actix::run(|| App::new().configure(routes)).block()?)
}
