//! Names the one condition under which a cluster of processes can be had: `cfg(cluster)`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(cluster)");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    // Only our own tests set `--cfg sticky_portable`, to take the path of platforms without kernel placement.
    let portable = std::env::var("CARGO_CFG_STICKY_PORTABLE").is_ok();
    if linux && !portable {
        println!("cargo::rustc-cfg=cluster");
    }
}
