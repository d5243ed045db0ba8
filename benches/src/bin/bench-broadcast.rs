//! The command behind `benches/broadcast`: one client's message to all clients of a Socket.IO server, over and over.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    sticky_benches::broadcast::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("benches/broadcast: it measures processes through interfaces that only Linux has");
}
