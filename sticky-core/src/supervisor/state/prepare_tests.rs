//! The decisions about what is done once before a set of generations.

use super::reload_tests::{exited, hup, spawn_new};
use super::*;

const PREPARE: Duration = Duration::from_secs(600);

/// A cluster that is about to prepare: its first process is child 0.
fn preparing(workers: u16) -> Cluster {
    let prepare_timeout = Some(PREPARE);
    let policy = Policy { prepare_timeout, ..policy(workers, Failover::Next { after: AFTER }) };
    let mut cluster = Cluster { state: State::new(policy), now: Instant::now() };
    assert_eq!(cluster.tell(Event::Start), [prepare(0, Program::Same)]);
    cluster
}

fn prepared_and_up(workers: u16) -> Cluster {
    let mut cluster = preparing(workers);
    cluster.tell(prepared(0));
    cluster.tell(exited(0, 0));
    for id in 1..=u64::from(workers) {
        cluster.tell(ready(id));
    }
    assert_eq!(cluster.state.phase, Phase::Running);
    cluster
}

fn prepare(id: u64, program: Program) -> Action {
    Action::Prepare { child: child(id), program }
}

fn prepared(id: u64) -> Event {
    Event::Prepared { child: child(id) }
}

fn failure(actions: &[Action]) -> String {
    let [.., Action::Finish(Outcome::Failed(failure))] = actions else { panic!("{actions:?}") };
    failure.to_string()
}

fn stopped(actions: &[Action]) -> String {
    let note = actions.iter().find_map(|action| match action {
        Action::Note(note @ Note::ReloadStopped { .. }) => Some(note.to_string()),
        _ => None,
    });
    note.unwrap_or_else(|| panic!("{actions:?}"))
}

#[test]
fn the_first_generation_starts_when_that_is_done_and_its_process_is_gone() {
    let mut cluster = preparing(2);
    assert_eq!(cluster.deadline(), Some(PREPARE));
    assert_eq!(cluster.tell(prepared(0)), []);
    assert_eq!(cluster.tell(exited(0, 0)), [spawn(1, 0, 0, 0), spawn(2, 1, 0, 1)]);
}

#[test]
fn a_boot_that_is_not_prepared_fails() {
    let mut cluster = preparing(1);
    cluster.tell(Event::Words { child: child(0), text: "no database".into() });
    assert_eq!(failure(&cluster.tell(exited(0, 1))), "the preparation exited with status 1: no database");

    let mut cluster = preparing(1);
    let expected = "the preparation exited with status 0 before it was done: does the program reach sticky?";
    assert_eq!(failure(&cluster.tell(exited(0, 0))), expected);

    let mut cluster = preparing(1);
    let gone = Event::SpawnFailed { child: child(0), error: "no memory".into() };
    assert_eq!(failure(&cluster.tell(gone)), "the preparation could not be started: no memory");

    let mut cluster = preparing(1);
    assert_eq!(cluster.wait(PREPARE - MOMENT), []);
    assert_eq!(cluster.wait(MOMENT), [signal(0, ChildSignal::Kill), Action::CloseListeners]);
    let expected = "the preparation was not done within 600s (prepare_timeout, STICKY_PREPARE_TIMEOUT)";
    assert_eq!(failure(&cluster.tell(killed(0))), expected);
}

#[test]
fn each_reload_is_prepared_once_before_its_first_slot() {
    let mut cluster = prepared_and_up(2);
    let actions = cluster.tell(hup());
    assert_eq!(actions.last(), Some(&prepare(3, Program::New)), "{actions:?}");
    assert_eq!(cluster.tell(Event::Tick), []);
    cluster.tell(prepared(3));
    assert_eq!(cluster.tell(exited(3, 0)), [spawn_new(4, 0, 1, 2)]);
    cluster.tell(ready(4));
    assert!(cluster.tell(released(1, 0)).contains(&spawn_new(5, 1, 1, 3)), "nothing more to prepare");
}

#[test]
fn a_reload_that_is_not_prepared_stops() {
    let mut cluster = prepared_and_up(1);
    cluster.tell(hup());
    cluster.tell(Event::Words { child: child(2), text: "no column\nof that name".into() });
    let words = "the preparation exited with status 1: no column of that name; every worker goes on as it was";
    assert_eq!(stopped(&cluster.tell(exited(2, 1))), format!("reload stopped: {words}"));

    cluster.tell(hup());
    let actions = cluster.wait(PREPARE);
    assert!(stopped(&actions).contains("the preparation was not done within 600s (prepare_timeout"));
    assert!(actions.contains(&signal(3, ChildSignal::Kill)));
    // The next one waits until it is gone.
    assert_eq!(cluster.tell(hup()), [Action::Note(Note::ReloadWaits)]);
    assert_eq!(cluster.tell(killed(3)).last(), Some(&prepare(4, Program::New)));
}

#[test]
fn a_crash_is_no_new_set() {
    let mut cluster = prepared_and_up(1);
    cluster.now += LIFE;
    let [Action::Note(Note::Restarting { .. }), again] = &cluster.tell(killed(1))[..] else { panic!() };
    assert_eq!(*again, spawn(2, 0, 1, 0));
}

#[test]
fn the_end_of_everything_ends_it_too() {
    let mut cluster = preparing(1);
    let actions = cluster.tell(Event::Terminate);
    assert!(actions.contains(&signal(0, ChildSignal::Terminate)), "{actions:?}");
    let late = cluster.wait(SHUTDOWN);
    assert_eq!(late, [Action::Note(Note::Overdue { who: Post::Preparation }), signal(0, ChildSignal::Kill)]);
    assert_eq!(cluster.tell(killed(0)), [Action::Finish(Outcome::Clean(report_of(0, 0, 0)))]);
}
