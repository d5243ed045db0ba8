//! What the workers print, and in which dress it comes out.

use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::process::Signal;
use sticky_tests::{Client, TestCluster, pty};

use crate::bed::{Bed, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("output_is_inherited_untouched", output_is_inherited_untouched),
        Row::new("output_is_prefixed_when_asked", output_is_prefixed_when_asked),
        Row::new("output_is_prefixed_on_a_terminal", output_is_prefixed_on_a_terminal),
        Row::new("last_words_come_out", last_words_come_out),
        Row::new("untrusted_forwarded_header_is_warned_of", untrusted_forwarded_header_is_warned_of),
        Row::new("stopped_terminal_stops_no_worker", stopped_terminal_stops_no_worker),
        Row::new("one_address_for_all_is_warned_of", one_address_for_all_is_warned_of),
        Row::new("many_addresses_are_not_warned_of", many_addresses_are_not_warned_of),
    ]
}

/// How long the testbed's longest line is.
const LONG: usize = 100_000;

fn long_lines(cluster: &TestCluster, start: &str) -> usize {
    let expected = format!("{start}{}", "l".repeat(LONG));
    cluster.events().all().iter().filter(|line| **line == expected).count()
}

fn output_is_inherited_untouched(bed: &Bed) {
    let cluster = bed.fault("prints").workers(1).up();
    cluster.events().expect("last printed line", PATIENCE);
    cluster.stop();
    let lines = cluster.events().all();
    for line in ["out of worker 0", "err of worker 0"] {
        assert_eq!(lines.iter().filter(|found| *found == line).count(), 1, "{}", cluster.events());
    }
    assert_eq!(long_lines(&cluster, ""), 1);
}

fn output_is_prefixed_when_asked(bed: &Bed) {
    let cluster = bed.fault("prints").env("STICKY_PREFIX_OUTPUT", "true").up();
    cluster.events().expect_nth(2, "last printed line", PATIENCE);
    cluster.stop();
    let lines = cluster.events().all();
    for slot in [0, 1] {
        for line in [format!("[{slot}] out of worker {slot}"), format!("[{slot}] err of worker {slot}")] {
            assert_eq!(lines.iter().filter(|found| **found == line).count(), 1, "{line}");
        }
        assert_eq!(long_lines(&cluster, &format!("[{slot}] ")), 1, "a long line survives");
        assert_eq!(cluster.events().count(&format!("[{slot}] binary \u{FFFD}\u{FFFD}")), 1, "bytes survive");
    }
    assert!(lines.iter().any(|line| line.starts_with("listening on ")), "the supervisor's lines have no prefix");
    assert_eq!(cluster.events().count("\u{1b}["), 0, "colour only on a terminal");
}

fn output_is_prefixed_on_a_terminal(bed: &Bed) {
    for (plain, colour) in [("1", false), ("", true)] {
        let (cluster, _terminal) = bed.fault("prints").env("NO_COLOR", plain).workers(1).on_terminal();
        cluster.wait_until_up();
        let line = cluster.events().expect("out of worker 0", PATIENCE);
        assert!(line.contains("[0]"), "{line}");
        assert_eq!(line.contains('\u{1b}'), colour, "{line:?} with NO_COLOR={plain:?}");
        cluster.signal(Signal::TERM);
        cluster.exit(PATIENCE);
    }
}

/// Ctrl-S on the terminal: workers that print far more than any buffer holds still serve, and the end still comes.
fn stopped_terminal_stops_no_worker(bed: &Bed) {
    let (cluster, terminal) = bed.fault("chatty").workers(1).on_terminal();
    cluster.wait_until_up();
    pty::type_keys(&terminal, "\x13").expect("Ctrl-S");
    for _ in 0..300 {
        assert_eq!(cluster.client().get("/").expect("an answer").status, 200);
    }
    cluster.signal(Signal::TERM);
    cluster.exit(PATIENCE);
    cluster.gone(Duration::from_secs(2));
}

/// What a worker says just before it dies is not lost, prefixed or not.
fn last_words_come_out(bed: &Bed) {
    for prefixed in ["true", "false"] {
        let cluster = bed.launch().env("STICKY_PREFIX_OUTPUT", prefixed).up();
        bed.expect_lost(cluster.client().post("/crash", b""));
        cluster.events().expect("crash: as asked", PATIENCE);
        cluster.events().expect("exited with status 3", PATIENCE);
        cluster.stop();
    }
}

fn untrusted_forwarded_header_is_warned_of(bed: &Bed) {
    let cluster = bed.launch().up();
    for _ in 0..3 {
        let mut connection = cluster.client().connect().expect("a connection");
        let headers = ["x-forwarded-for: 203.0.113.9"];
        assert_eq!(connection.request("GET", "/", &headers, b"").expect("an answer").status, 200);
    }
    let line = cluster.events().expect("x-forwarded-for", PATIENCE);
    assert!(line.contains("127.0.0.1"), "it says from whom: {line}");
    cluster.stop();
    assert_eq!(cluster.events().count("x-forwarded-for"), 1, "said once");
}

const ALL_FROM_ONE: &str = "all of the first 100 ";

fn one_address_for_all_is_warned_of(bed: &Bed) {
    let cluster = bed.launch().up();
    for _ in 0..100 {
        cluster.client().get("/").expect("an answer");
    }
    cluster.events().expect(ALL_FROM_ONE, PATIENCE);
    cluster.stop();
    assert_eq!(cluster.events().count(ALL_FROM_ONE), 1, "said once");
}

fn many_addresses_are_not_warned_of(bed: &Bed) {
    let cluster = bed.launch().up();
    for address in Client::loopback_addresses(150) {
        cluster.client().from(address).get("/").expect("an answer");
    }
    cluster.stop();
    assert_eq!(cluster.events().count(ALL_FROM_ONE), 0);
}
