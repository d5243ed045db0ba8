//! Programs that do not come up: each ends soon, says why, and leaves nothing.

use std::time::Duration;

use sticky_tests::cluster::PATIENCE;
use sticky_tests::{Launch, TestCluster};

use crate::bed::{Bed, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("broken_main_is_an_error", broken_main_is_an_error),
        Row::new("panic_in_main_is_an_error", panic_in_main_is_an_error),
        Row::new("never_reaching_sticky_is_an_error", never_reaching_sticky_is_an_error),
        Row::new("hang_before_sticky_is_an_error", hang_before_sticky_is_an_error),
        Row::new("panic_in_factory_is_an_error", panic_in_factory_is_an_error),
        Row::new("error_from_factory_is_an_error", error_from_factory_is_an_error),
        Row::new("never_ready_is_an_error", never_ready_is_an_error),
        Row::new("blocked_factory_is_an_error", blocked_factory_is_an_error),
        Row::new("second_cluster_in_one_process_is_an_error", second_cluster_in_one_process_is_an_error),
        Row::new("nested_program_is_a_cluster_of_its_own", nested_program_is_a_cluster_of_its_own),
        Row::new("role_is_right_on_the_first_line", role_is_right_on_the_first_line),
        Row::new("code_after_serve_has_its_time", code_after_serve_has_its_time),
        Row::new("code_after_serve_is_bounded", code_after_serve_is_bounded),
    ]
}

/// Starts it; it must fail by itself within that time, leave nothing, and say all of `words`.
pub(crate) fn fails(launch: Launch, within: Duration, words: &[&str]) -> TestCluster {
    let cluster = launch.start();
    let status = cluster.exit(within);
    assert!(!status.success(), "{status}");
    cluster.gone(Duration::from_secs(2));
    for word in words {
        cluster.events().expect(word, Duration::from_secs(1));
    }
    assert_eq!(cluster.events().count("listening on"), 0);
    cluster
}

pub(crate) const SOON: Duration = Duration::from_secs(10);

fn broken_main_is_an_error(bed: &Bed) {
    fails(bed.fault("broken-main"), SOON, &["the database is not there", "worker"]);
}

fn panic_in_main_is_an_error(bed: &Bed) {
    fails(bed.fault("panic-in-main"), SOON, &["main has a bug", "worker"]);
}

/// A test binary that is executed again behaves like this: the worker ends with success and never calls sticky.
fn never_reaching_sticky_is_an_error(bed: &Bed) {
    fails(bed.fault("exit-before-sticky"), SOON, &["worker"]);
}

fn hang_before_sticky_is_an_error(bed: &Bed) {
    fails(bed.fault("hang-before-sticky").env("STICKY_BOOT_TIMEOUT", "500ms"), SOON, &["500ms"]);
}

fn panic_in_factory_is_an_error(bed: &Bed) {
    fails(bed.fault("panic-in-factory"), SOON, &["the factory has a bug", "worker"]);
}

fn error_from_factory_is_an_error(bed: &Bed) {
    fails(bed.fault("error-from-factory"), SOON, &["the factory found no database", "worker"]);
}

fn never_ready_is_an_error(bed: &Bed) {
    fails(bed.fault("never-ready").env("STICKY_BOOT_TIMEOUT", "500ms"), SOON, &["500ms", "ready"]);
}

fn blocked_factory_is_an_error(bed: &Bed) {
    fails(bed.fault("blocked-factory").env("STICKY_BOOT_TIMEOUT", "500ms"), SOON, &["500ms"]);
}

fn second_cluster_in_one_process_is_an_error(bed: &Bed) {
    let cluster = bed.fault("two-clusters").up();
    let told = cluster.events().expect("second cluster: ", PATIENCE);
    assert!(told.contains("already"), "{told}");
    assert_eq!(cluster.client().get("/").expect("an answer").status, 200, "the first one serves on");
    cluster.stop();
}

/// The variable that tells a worker its control socket is inherited by what the application starts; the socket is
/// not.
fn nested_program_is_a_cluster_of_its_own(bed: &Bed) {
    let cluster = bed.fault("nested").env("TESTBED_NESTED", env!("CARGO_BIN_EXE_testbed-core")).workers(1).up();
    cluster.events().expect_nth(2, "listening on ", PATIENCE);
    let (outer, inner) = (cluster.addresses()[0], cluster.addresses()[1]);
    assert_ne!(outer, inner);
    for address in [outer, inner] {
        assert_eq!(sticky_tests::Client::new(address).get("/").expect("an answer").status, 200);
    }
    assert_eq!(cluster.family().len(), 2 * (1 + bed.children(1)), "two supervisors with a worker each");
}

fn role_is_right_on_the_first_line(bed: &Bed) {
    let cluster = bed.fault("roles").up();
    cluster.stop();
    let mut roles: Vec<String> = cluster.events().all().into_iter().filter(|line| line.starts_with("role: ")).collect();
    roles.sort();
    let proxy = bed.is_proxied().then_some("role: proxy");
    let others = ["role: supervisor", "role: worker 0", "role: worker 1"];
    assert_eq!(roles, proxy.into_iter().chain(others).collect::<Vec<_>>());
    let alone = bed.fault("roles").workers(0).up();
    alone.stop();
    assert_eq!(alone.events().count("role: standalone"), 1);
}

fn code_after_serve_has_its_time(bed: &Bed) {
    let cluster = bed.fault("slow-farewell").env("TESTBED_FAREWELL", "700").up();
    cluster.stop();
    assert_eq!(cluster.events().count("farewell ended"), 3, "both workers and the supervisor:\n{}", cluster.events());
}

fn code_after_serve_is_bounded(bed: &Bed) {
    let launch = bed.fault("slow-farewell").env("TESTBED_FAREWELL", "60000").env("STICKY_EXIT_TIMEOUT", "300ms");
    let cluster = launch.env("TESTBED_FAREWELL_IN", "worker").up();
    cluster.signal(sticky_tests::process::Signal::TERM);
    cluster.exit(SOON);
    cluster.gone(Duration::from_secs(2));
    assert_eq!(cluster.events().count("farewell ended"), 1, "only the supervisor's:\n{}", cluster.events());
}
