//! The same router under sticky, configured by `STICKY_*` alone.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(sticky_axum::serve(sticky_benches::program::router()).block()?)
}
