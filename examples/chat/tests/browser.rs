//! The chat in headless Chromium: two browsers on different workers talk, a worker dies, they keep talking.

use sticky_tests::{Launch, Script, TestCluster};

const WORKERS: u16 = 4;

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_chat")).workers(WORKERS).env("CHAT_KILL", "on")
}

fn case(name: &str, cluster: &TestCluster) {
    Script::new("chat.js").arg(name).arg(format!("http://{}", cluster.address())).arg(WORKERS).run();
}

#[test]
fn chat_two_browsers_keep_talking_while_a_worker_dies() {
    case("two_browsers", &launch().up());
}

#[test]
fn chat_by_polling_only() {
    case("by_polling_only", &launch().up());
}

#[test]
fn chat_by_websocket_only() {
    case("by_websocket_only", &launch().up());
}

#[test]
fn chat_rooms_are_the_same_on_every_worker() {
    case("rooms", &launch().up());
}

#[test]
fn chat_fits_a_phone_and_a_desk() {
    case("layout", &launch().up());
}

#[test]
fn chat_three_tabs_share_connections() {
    // Without a cookie: it would keep all tabs on one worker.
    case("three_tabs", &launch().env("STICKY_AFFINITY", "engine-io").env("STICKY_PLACEMENT", "round-robin").up());
}
