//! Rows that need a network of their own run a second time, alone, inside one.

use std::env;
use std::process::{Command, Output};

const INSIDE: &str = "TESTBED_INSIDE";

/// The network set up inside: loopback up, all of `fd00::/16` local, so that clients may use any address of it, and
/// `fe80::1`, which needs a scope.
const NETWORK: &str = "ip link set lo up && ip -6 route add local fd00::/16 dev lo && \
    ip -6 addr add fe80::1/64 dev lo nodad && exec \"$@\"";

/// The scope of `fe80::1` inside: the loopback's index, the same in every namespace.
pub const LOOPBACK_SCOPE: u32 = 1;

/// Whether this process was started by [`run_inside`].
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs the row of that name in this same program inside a new network namespace.
///
/// # Panics
/// When the row fails there, with what it printed, or when there is no namespace to be had.
pub fn run_inside(row: &str) {
    let program = env::current_exe().expect("the path of this program");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "sh", "-c", NETWORK, "sh"]).arg(program);
    command.args(["--exact", row, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let Output { status, stdout, stderr } = command.output().expect("unshare, from util-linux");
    let printed = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "in a network namespace (needs root or user namespaces): {status}\n{printed}");
    assert!(printed.contains("1 passed"), "the row did not run inside the namespace:\n{printed}");
}
