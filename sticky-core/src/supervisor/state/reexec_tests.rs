//! The decisions of a reexec, one by one, and what is left to the next program.

use super::reload_tests::{exited, hup, keep, retire, spawn_new};
use super::*;
use crate::admin::Progress;

/// What the next program makes of what this one leaves to it, by way of its text.
pub(super) fn resumed(state: &State, policy: Policy, now: Instant) -> State {
    let carried = state.carried(now);
    let text = serde_json::to_string(&carried).unwrap();
    let read: CarriedState = serde_json::from_str(&text).unwrap();
    assert_eq!(read, carried);
    let next = State::resumed(policy, read, now).unwrap();
    assert_eq!(next.carried(now), carried, "it would leave the same");
    next
}

fn next(cluster: &Cluster) -> Cluster {
    let state = resumed(&cluster.state, cluster.state.policy.clone(), cluster.now);
    Cluster { state, now: cluster.now }
}

fn try_out(id: u64) -> [Action; 2] {
    [Action::Note(Note::Reexecuting), Action::Try { child: child(id) }]
}

fn proven(id: u64) -> Event {
    Event::Proven { child: child(id) }
}

fn refused(why: &str) -> Action {
    Action::Note(Note::ReexecRefused { why: why.to_owned() })
}

fn said(ticket: u64, progress: Progress) -> Action {
    Action::Report { ticket: Ticket(ticket), progress }
}

fn ask(ticket: u64) -> Event {
    Event::Command { ticket: Ticket(ticket), command: Command::Reexec }
}

/// A cluster whose next supervisor, child 2, has shown that it can.
fn proven_cluster() -> Cluster {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    assert_eq!(cluster.tell(Event::Reexec), try_out(2));
    assert_eq!(cluster.tell(proven(2)), []);
    assert!(!cluster.state.may_reexec(), "it has not ended");
    assert_eq!(cluster.tell(exited(2, 0)), []);
    assert!(cluster.state.may_reexec());
    cluster
}

#[test]
fn whoever_has_proven_itself_takes_over_and_everything_goes_on() {
    let mut cluster = next(&proven_cluster());
    assert!(!cluster.state.may_reexec());
    assert_eq!(cluster.tell(Event::Resumed), [Action::Note(Note::Reexecuted)]);
    // A death is repaired in the same slot, by a process that was never there.
    let actions = cluster.tell(killed(1));
    assert_eq!(actions[1..], [spawn(3, 1, 1, 1)]);
    assert_eq!(cluster.tell(ready(3)), [listen(3, 1)]);
    // The readers are known.
    let [_, _, start] = &cluster.tell(hup())[..] else { panic!() };
    assert_eq!(*start, spawn_new(4, 0, 1, 2));
    assert_eq!(cluster.tell(ready(4)), [keep(4), release(0, 0)]);
    assert_eq!(cluster.tell(released(0, 0))[..2], [listen(4, 0), retire(0)]);
}

#[test]
fn what_has_not_proven_itself_changes_nothing() {
    for (event, why) in [
        (exited(2, 0), "the next supervisor exited with status 0 before it was ready"),
        (exited(2, 3), "the next supervisor exited with status 3 before it was ready"),
        (
            Event::SpawnFailed { child: child(2), error: "not there".into() },
            "the next supervisor could not be started: not there",
        ),
    ] {
        let mut cluster = Cluster::running(2);
        cluster.tell(Event::Reexec);
        assert_eq!(cluster.tell(event), [refused(why)]);
        assert!(!cluster.state.may_reexec() && cluster.deadline().is_none());
        assert_eq!(cluster.tell(Event::Reexec), try_out(3), "another may");
    }
    let mut cluster = Cluster::running(2);
    cluster.tell(Event::Reexec);
    cluster.tell(Event::Words { child: child(2), text: "no\ngood".into() });
    let why = "the next supervisor exited with status 1 before it was ready: no good";
    assert_eq!(cluster.tell(exited(2, 1)), [refused(why)]);
}

#[test]
fn what_takes_too_long_is_killed_and_gone_before_another_begins() {
    let mut cluster = Cluster::running(2);
    cluster.tell(Event::Reexec);
    assert_eq!(cluster.deadline(), Some(BOOT));
    let actions = cluster.wait(BOOT);
    assert_eq!(actions[0], signal(2, ChildSignal::Kill));
    assert!(matches!(&actions[1..], [Action::Note(Note::ReexecRefused { .. })]), "{actions:?}");
    assert_eq!(cluster.tell(Event::Reexec), [Action::Note(Note::ReexecWaits)]);
    // It had, but too late.
    assert_eq!(cluster.tell(proven(2)), []);
    assert_eq!(cluster.tell(Event::Exited { child: child(2), how: Ended::Signal(9) }), try_out(3));
    assert!(!cluster.state.may_reexec());
}

#[test]
fn it_waits_until_nothing_is_under_way() {
    let waits = [Action::Note(Note::ReexecWaits)];
    let mut cluster = Cluster::booting(2);
    assert_eq!(cluster.tell(Event::Reexec), waits);
    assert_eq!(cluster.tell(Event::Reexec), [], "the same once more");
    cluster.boot();
    assert!(cluster.state.reexec.has_begun());

    let mut cluster = Cluster::running(1);
    cluster.tell(hup());
    assert_eq!(cluster.tell(Event::Reexec), waits);
    cluster.tell(ready(1));
    cluster.tell(released(0, 0));
    cluster.tell(drained(0, 0, 0));
    assert!(!cluster.state.reexec.has_begun(), "the former one is there");
    assert_eq!(cluster.tell(exited(0, 0)), try_out(2));

    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    assert_eq!(cluster.tell(Event::Reexec), waits);
    let actions = cluster.tell(ready(2));
    assert_eq!(actions[actions.len() - 2..], try_out(3));

    let mut cluster = Cluster::running(2);
    cluster.tell(Event::Stopped { child: child(1) });
    assert_eq!(cluster.tell(Event::Reexec), waits);
    assert_eq!(cluster.tell(Event::Continued { child: child(1) })[..], try_out(2));
}

#[test]
fn who_dies_during_the_trial_is_waited_for() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(Event::Reexec);
    cluster.tell(killed(0));
    cluster.tell(proven(2));
    cluster.tell(exited(2, 0));
    assert!(!cluster.state.may_reexec());
    cluster.tell(ready(3));
    assert!(cluster.state.may_reexec());
}

#[test]
fn what_is_asked_for_from_the_trial_on_the_next_program_does() {
    let mut cluster = proven_cluster();
    assert_eq!(cluster.tell(hup()), [Action::Note(Note::ReloadWaits)]);
    let asked = Event::Command { ticket: Ticket(7), command: Command::Reload };
    assert_eq!(cluster.tell(asked), [Action::Note(Note::ReloadWaits), said(7, Progress::Waits)]);
    assert!(cluster.state.may_reexec());
    let mut cluster = next(&cluster);
    let actions = cluster.tell(Event::Resumed);
    assert_eq!(actions[..2], [Action::Note(Note::Reexecuted), said(7, Progress::Begun)]);
    assert_eq!(actions.last(), Some(&spawn_new(3, 0, 1, 2)));
}

#[test]
fn who_asks_hears_how_it_went() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.tell(ask(1)), [try_out(1)[0].clone(), said(1, Progress::Begun), try_out(1)[1].clone()]);
    assert_eq!(cluster.tell(ask(2)), [said(2, Progress::Begun)]);
    let why = Note::ReexecRefused { why: "the next supervisor exited with status 0 before it was ready".into() };
    let failed = Progress::Failed { why: why.to_string() };
    assert_eq!(cluster.tell(exited(1, 0)), [said(1, failed.clone()), said(2, failed), Action::Note(why)]);

    cluster.tell(hup());
    assert_eq!(cluster.tell(ask(3)), [Action::Note(Note::ReexecWaits), said(3, Progress::Waits)]);
    for event in [ready(2), released(0, 0), drained(0, 0, 0), exited(0, 0), proven(3), exited(3, 0)] {
        cluster.tell(event);
    }
    assert!(cluster.state.may_reexec());
    let mut other = next(&cluster);
    let done = Progress::Done { text: Note::Reexecuted.to_string() };
    assert_eq!(other.tell(Event::Resumed), [said(3, done), Action::Note(Note::Reexecuted)]);
    // Where the kernel refuses after all, everything goes on here.
    let note = Note::ReexecRefused { why: "no memory".into() };
    let actions = cluster.tell(Event::ReexecFailed { why: "no memory".into() });
    assert_eq!(actions, [said(3, Progress::Failed { why: note.to_string() }), Action::Note(note)]);
    assert!(!cluster.state.may_reexec() && cluster.state.may_begin());
}

#[test]
fn a_shutdown_comes_first() {
    let given_up = Action::Note(Note::ReexecGivenUp);
    let mut cluster = Cluster::running(1);
    cluster.tell(hup());
    cluster.tell(Event::Reexec);
    assert!(cluster.tell(Event::Terminate).contains(&given_up));

    let mut cluster = Cluster::running(1);
    cluster.tell(Event::Reexec);
    let actions = cluster.tell(Event::Terminate);
    assert!(actions.contains(&given_up) && actions.contains(&signal(1, ChildSignal::Kill)));
    cluster.tell(released(0, 0));
    cluster.tell(drained(0, 0, 0));
    assert_eq!(cluster.tell(exited(0, 0)), [], "it is waited for");
    let actions = cluster.tell(Event::Exited { child: child(1), how: Ended::Signal(9) });
    assert!(matches!(actions[..], [Action::Finish(Outcome::Clean(_))]));

    let mut cluster = proven_cluster();
    cluster.tell(Event::Terminate);
    assert!(!cluster.state.may_reexec());
    let mut cluster = Cluster::booting(1);
    cluster.tell(Event::Reexec);
    cluster.now += SAME_SIGNAL;
    cluster.tell(Event::Terminate);
    assert_eq!(cluster.tell(ask(1)), [said(1, Progress::Refused { why: "the cluster is shutting down".into() })]);
}

#[test]
fn slots_and_settings_of_all_kinds_are_carried_over() {
    let policy = Policy { room: 4, moves: true, admin: true, ..policy(3, Failover::Next { after: AFTER }) };
    let mut cluster = Cluster { state: State::new(policy), now: Instant::now() };
    // The first is the admin process.
    cluster.tell(Event::Start);
    cluster.tell(ready(0));
    cluster.now += LIFE;
    for id in 1..=3 {
        cluster.tell(ready(id));
    }
    cluster.tell(Event::Candidate { child: child(2) });
    cluster.tell(Event::BusJoin { child: child(1) });
    cluster.tell(Event::Scale(HowMany::OneLess));
    cluster.wait(super::super::scaling::PARTING_TIME);
    for event in [released(3, 2), released_channel(3, 2), drained(3, 0, 0), exited(3, 0)] {
        cluster.tell(event);
    }
    let drain_one = Event::Command { ticket: Ticket(1), command: Command::Drain { worker: slot(0) } };
    cluster.tell(drain_one);
    for event in [released(1, 0), released_channel(1, 0), drained(1, 0, 0), exited(1, 0)] {
        cluster.tell(event);
    }
    cluster.tell(Event::Reexec);
    for event in [proven(4), exited(4, 0)] {
        cluster.tell(event);
    }
    assert!(cluster.state.may_reexec());
    let mut next = next(&cluster);
    assert_eq!(next.tell(Event::Resumed), [Action::Note(Note::Reexecuted)]);
    assert_eq!((next.state.count, next.state.slots[0].drained, next.state.slots[0].evicted), (2, true, true));
    assert_eq!(next.state.leader, Leader::Child(child(2)));
    assert_eq!(next.tell(Event::BusJoin { child: child(2) }), [joined(2)], "who had joined has ended");
    // The settings of the next program count.
    let policy = Policy { drain_timeout: EXIT, ..cluster.state.policy.clone() };
    assert_eq!(resumed(&cluster.state, policy, cluster.now).policy.drain_timeout, EXIT);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let carried = serde_json::to_value(proven_cluster().state.carried(Instant::now())).unwrap();
    let refused = |path: &str, value: serde_json::Value| {
        let mut wrong = carried.clone();
        *wrong.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        let carried = serde_json::from_value::<CarriedState>(wrong).map_err(|_| "not understood");
        let outcome = carried.and_then(|carried| State::resumed(policy(2, NEXT), carried, Instant::now()));
        outcome.err().unwrap_or_else(|| panic!("{path}"))
    };
    for (path, value, why) in [
        ("/count", 0.into(), "an impossible number of workers"),
        ("/count", 3.into(), "an impossible number of workers"),
        ("/slots", serde_json::json!([]), "another number of slots"),
        ("/slots/0/current", 7.into(), "a process has no place"),
        ("/slots/0/current", 1.into(), "a process has no place"),
        ("/slots/1/readers/0", 7.into(), "read by nobody known"),
        ("/children/0/slot", 9.into(), "a process has no place"),
        ("/children/0/seat", 4096.into(), "a process has no place"),
        ("/children", serde_json::json!([]), "a slot has a process that is not there"),
        ("/leader", 7.into(), "the leader is nobody known"),
        ("/next_child", 0.into(), "a process is to come"),
        ("/slots/0/generation", "new".into(), "not understood"),
    ] {
        let refused = refused(path, value);
        assert!(refused.contains(why), "{path}: {refused}");
    }
}
