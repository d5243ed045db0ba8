//! The decisions of a reload, one by one.

use super::*;

const SOAK: Duration = Duration::from_secs(7);

fn replaced(workers: u16, change: impl FnOnce(&mut Policy)) -> Cluster {
    let mut policy = policy(workers, Failover::Next { after: AFTER });
    change(&mut policy);
    let mut cluster = Cluster::with(policy);
    cluster.boot();
    cluster
}

pub(super) fn hup() -> Event {
    Event::Reload(Scope::All)
}

pub(super) fn spawn_new(id: u64, at: u16, generation: u32, seat: usize) -> Action {
    let (generation, program) = (Generation::new(generation), Program::New);
    Action::Spawn { child: child(id), slot: slot(at), generation, seat, program }
}

pub(super) fn keep(id: u64) -> Action {
    Action::Keep { child: child(id) }
}

pub(super) fn retire(id: u64) -> Action {
    Action::Drain { child: child(id), timeout: DRAIN, reason: DrainReason::Replaced }
}

fn reloading(slots: usize) -> [Action; 2] {
    [Action::FindProgram, Action::Note(Note::Reloading { slots: fleet(slots) })]
}

fn reloaded(slots: usize) -> Action {
    Action::Note(Note::Reloaded { slots: fleet(slots) })
}

/// That the reload has stopped with these words, and what else is done about it.
fn stopped(actions: &[Action], words: &str) -> Vec<Action> {
    let is_report = |action: &&Action| matches!(action, Action::Note(Note::ReloadStopped { .. }));
    let reports: Vec<&Action> = actions.iter().filter(is_report).collect();
    let [Action::Note(note)] = reports[..] else { panic!("{actions:?}") };
    assert_eq!(note.to_string(), format!("reload stopped: {words}"));
    actions.iter().filter(|action| !is_report(action)).cloned().collect()
}

pub(super) fn exited(id: u64, code: i32) -> Event {
    Event::Exited { child: child(id), how: Ended::Code(code) }
}

#[test]
fn slots_are_replaced_one_after_the_other() {
    let mut cluster = Cluster::running(2);
    let [find, note] = reloading(2);
    assert_eq!(cluster.tell(hup()), [find, note, spawn_new(2, 0, 1, 2)]);
    assert_eq!(cluster.tell(ready(2)), [keep(2), release(0, 0)]);
    assert_eq!(cluster.tell(released(0, 0)), [listen(2, 0), retire(0), spawn_new(3, 1, 1, 3)]);
    assert_eq!(cluster.tell(ready(3)), [keep(3), release(1, 1)]);
    assert_eq!(cluster.tell(released(1, 1)), [listen(3, 1), retire(1), reloaded(2)]);
    let report = WorkerReport { completed: 3, cut: 1 };
    let note = Note::Replaced { who: post(0), report };
    assert_eq!(note.to_string(), "the former worker 0 has drained: 3 connections completed, 1 cut");
    assert_eq!(cluster.tell(drained(0, 3, 1)), [Action::Note(note)]);
    assert_eq!(cluster.tell(exited(0, 0)), []);
    assert_eq!(cluster.deadline(), Some(DRAIN + CUT_TIME));
    let killed_late = [Action::Note(Note::Overdue { who: post(1) }), signal(1, ChildSignal::Kill)];
    assert_eq!(cluster.wait(DRAIN + CUT_TIME), killed_late);
    assert_eq!(cluster.tell(killed(1)), []);
    assert_eq!(cluster.deadline(), None);
    // What it completed is no part of what the end will report.
    assert_eq!(cluster.state.report, Report::default());
}

#[test]
fn where_connections_move_nobody_drains_before_the_next_reads_everything() {
    let mut cluster = replaced(1, |policy| policy.moves = true);
    cluster.tell(hup());
    assert_eq!(cluster.tell(ready(1)), [keep(1), release(0, 0), release_channel(0, 0)]);
    assert_eq!(cluster.tell(released_channel(0, 0)), [read_channel(1, 0)]);
    assert_eq!(cluster.tell(released(0, 0)), [listen(1, 0), retire(0), reloaded(1)]);
}

#[test]
fn who_does_not_let_go_is_not_waited_for_long() {
    let mut cluster = replaced(1, |_| {});
    cluster.tell(hup());
    cluster.tell(ready(1));
    assert_eq!(cluster.wait(RELEASE_TIME - MOMENT), []);
    assert_eq!(cluster.wait(MOMENT), [listen(1, 0), retire(0), reloaded(1)]);
    assert_eq!(cluster.tell(released(0, 0)), [], "too late to mean anything");
}

#[test]
fn one_slot_can_be_replaced_alone() {
    let mut cluster = Cluster::running(3);
    let [find, note] = reloading(1);
    assert_eq!(cluster.tell(Event::Reload(Scope::One(slot(1)))), [find, note, spawn_new(3, 1, 1, 3)]);
    cluster.tell(ready(3));
    assert_eq!(cluster.tell(released(1, 1)), [listen(3, 1), retire(1), reloaded(1)]);
    assert_eq!(cluster.tell(Event::Reload(Scope::One(slot(3)))), [], "there is no such slot");
}

#[test]
fn as_many_are_replaced_at_once_as_may_be() {
    let mut cluster = replaced(3, |policy| policy.reload_parallel = 2);
    let [find, note] = reloading(3);
    assert_eq!(cluster.tell(hup()), [find, note, spawn_new(3, 0, 1, 3), spawn_new(4, 1, 1, 4)]);
    cluster.tell(ready(4));
    assert_eq!(cluster.tell(released(1, 1)), [listen(4, 1), retire(1), spawn_new(5, 2, 1, 5)]);
    // One fails: the others that have not taken over go with it.
    let actions = cluster.tell(exited(3, 1));
    let words =
        "the new worker 0 exited with status 1 before it was ready; new: worker 1; the others go on as they were";
    assert_eq!(stopped(&actions, words), [signal(5, ChildSignal::Kill)]);
    assert_eq!(cluster.tell(killed(5)), [], "said already");
}

#[test]
fn a_new_program_that_fails_is_thrown_away() {
    let unchanged = "every worker goes on as it was";
    let mut cluster = Cluster::running(2);
    cluster.tell(hup());
    cluster.tell(Event::Words { child: child(2), text: "no database\nnowhere".into() });
    let words = format!("the new worker 0 exited with status 3 before it was ready: no database nowhere; {unchanged}");
    assert_eq!(stopped(&cluster.tell(exited(2, 3)), &words), []);

    cluster.tell(hup());
    let actions = cluster.tell(Event::SpawnFailed { child: child(3), error: "not found".into() });
    let words = format!("the new worker 0 could not be started: not found; {unchanged}");
    assert_eq!(stopped(&actions, &words), []);

    cluster.tell(hup());
    let words = format!(
        "the new worker 0 was not ready within 60s (boot_timeout, STICKY_BOOT_TIMEOUT): does the program reach sticky \
         in every process?; {unchanged}"
    );
    assert_eq!(stopped(&cluster.wait(BOOT), &words), [signal(4, ChildSignal::Kill)]);
    // It is not gone yet, and the next try waits for that.
    let [find, note] = reloading(2);
    assert_eq!(cluster.tell(hup()), [find, note]);
    assert_eq!(cluster.tell(killed(4)), [spawn_new(5, 0, 4, 2)]);
}

#[test]
fn a_new_generation_must_outlive_its_soak() {
    let unchanged = "every worker goes on as it was";
    let mut cluster = replaced(1, |policy| policy.reload_soak = SOAK);
    cluster.tell(hup());
    assert_eq!(cluster.tell(ready(1)), []);
    assert_eq!(cluster.wait(SOAK - MOMENT), []);
    let words = format!("the new worker 0 exited with status 4 within reload_soak; {unchanged}");
    assert_eq!(stopped(&cluster.tell(exited(1, 4)), &words), []);

    cluster.tell(hup());
    cluster.tell(ready(2));
    let words = format!("the new worker 0 has hung within reload_soak; {unchanged}");
    let actions = cluster.tell(Event::Silent { child: child(2) });
    assert_eq!(stopped(&actions, &words), [signal(2, ChildSignal::Kill)]);
    cluster.tell(killed(2));

    cluster.tell(hup());
    cluster.tell(ready(3));
    cluster.tell(Event::Stopped { child: child(3) });
    assert_eq!(cluster.wait(SOAK), [], "a stopped process is not trusted");
    assert_eq!(cluster.tell(Event::Continued { child: child(3) }), [keep(3), release(0, 0)]);
}

#[test]
fn who_fails_while_it_takes_over_gives_back() {
    let mut cluster = Cluster::running(2);
    cluster.tell(hup());
    cluster.tell(ready(2));
    let words = "the new worker 0 was killed by signal 9 (SIGKILL) as it took over; every worker goes on as it was";
    assert_eq!(stopped(&cluster.tell(killed(2)), words), [keep(0)]);
    // It had been asked to let go, and reads again once it has.
    assert_eq!(cluster.tell(released(0, 0)), [listen(0, 0)]);
    assert_eq!(cluster.deadline(), None);
}

#[test]
fn a_crash_while_the_next_starts_is_repaired_and_the_faster_one_serves() {
    let mut cluster = Cluster::running(1);
    cluster.now += LIFE;
    cluster.tell(hup());
    let [Action::Note(Note::Restarting { .. }), again] = &cluster.tell(killed(0))[..] else { panic!() };
    assert_eq!(*again, spawn(2, 0, 2, 0));
    assert_eq!(cluster.tell(ready(1)), [keep(1), signal(2, ChildSignal::Kill), listen(1, 0), reloaded(1)]);
    assert_eq!(cluster.tell(killed(2)), []);
}

#[test]
fn a_crash_after_the_reload_brings_back_the_new_program() {
    let mut cluster = Cluster::running(1);
    cluster.tell(hup());
    cluster.tell(ready(1));
    cluster.tell(released(0, 0));
    cluster.now += LIFE;
    let [Action::Note(Note::Restarting { .. }), again] = &cluster.tell(killed(1))[..] else { panic!() };
    assert_eq!(*again, spawn(2, 0, 2, 1), "the same as in `keep`");
}

#[test]
fn reloads_that_wait_are_one() {
    let mut cluster = Cluster::running(2);
    let waits = Action::Note(Note::ReloadWaits);
    cluster.tell(hup());
    assert_eq!(cluster.tell(Event::Reload(Scope::One(slot(1)))), std::slice::from_ref(&waits));
    assert_eq!(cluster.tell(hup()), [waits]);
    cluster.tell(ready(2));
    cluster.tell(released(0, 0));
    cluster.tell(ready(3));
    let [find, note] = reloading(2);
    let actions = [listen(3, 1), retire(1), reloaded(2), find, note, spawn_new(4, 0, 2, 4)];
    assert_eq!(cluster.tell(released(1, 1)), actions);
}

#[test]
fn a_reload_while_booting_waits_for_the_cluster() {
    let mut cluster = Cluster::booting(1);
    assert_eq!(cluster.tell(hup()), [Action::Note(Note::ReloadWaits)]);
    let [find, note] = reloading(1);
    assert_eq!(cluster.tell(ready(0)), [Action::Note(Note::Up), listen(0, 0), find, note, spawn_new(1, 0, 1, 1)]);
}

#[test]
fn generations_do_not_pile_up() {
    let mut cluster = Cluster::running(1);
    for id in 1..=MOST_RETIRED as u64 {
        cluster.tell(hup());
        cluster.tell(ready(id));
        assert_eq!(cluster.tell(released(id - 1, 0)), [listen(id, 0), retire(id - 1), reloaded(1)]);
    }
    let [find, note] = reloading(1);
    let crowded = Action::Note(Note::ReloadCrowded { who: post(0), former: MOST_RETIRED });
    assert_eq!(cluster.tell(hup()), [find, note, crowded]);
    assert_eq!(cluster.tell(Event::Tick), [], "said once");
    cluster.tell(drained(1, 0, 0));
    assert_eq!(cluster.tell(exited(1, 0)), [spawn_new(4, 0, 4, 1)]);
}

#[test]
fn the_end_of_everything_wins() {
    let mut cluster = Cluster::running(2);
    cluster.tell(hup());
    cluster.tell(ready(2));
    cluster.tell(released(0, 0));
    cluster.tell(Event::Reload(Scope::All));
    let actions = cluster.tell(Event::Terminate);
    let note = "the reload is given up; new: worker 0; the others go on as they were";
    assert!(actions.iter().any(|action| matches!(action, Action::Note(said) if said.to_string() == note)));
    let drains: Vec<_> = actions.iter().filter(|action| matches!(action, Action::Drain { .. })).collect();
    assert_eq!(drains, [&drain(0), &drain(1), &drain(2), &drain(3)]);
    assert!(actions.contains(&signal(3, ChildSignal::Terminate)), "it may not have reached sticky yet");
    cluster.tell(released(1, 1));
    assert_eq!(cluster.tell(released(2, 0)), [Action::CloseListeners]);
    for id in 0..3 {
        cluster.tell(drained(id, 1, 0));
    }
    let ends: Vec<Action> = (0..4).flat_map(|id| cluster.tell(exited(id, 0))).collect();
    assert_eq!(ends, [Action::Finish(Outcome::Clean(report_of(3, 0, 0)))]);
}

#[test]
fn a_former_process_that_is_lost_is_told_of() {
    let mut cluster = Cluster::running(1);
    cluster.tell(hup());
    cluster.tell(ready(1));
    cluster.tell(released(0, 0));
    let [Action::Note(note)] = &cluster.tell(killed(0))[..] else { panic!() };
    assert_eq!(note.to_string(), "the former worker 0 was killed by signal 9 (SIGKILL) before it had drained");
}
