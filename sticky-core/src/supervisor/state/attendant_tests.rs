//! The decisions about the admin process.

use super::*;

fn attended() -> Cluster {
    let policy = Policy { admin: true, ..policy(1, Failover::Next { after: AFTER }) };
    let mut cluster = Cluster { state: State::new(policy), now: Instant::now() };
    assert_eq!(cluster.tell(Event::Start), [attend(0), spawn(1, 0, 0, 0)]);
    cluster
}

fn attend(id: u64) -> Action {
    Action::Attend { child: child(id) }
}

fn greets(id: u64) -> Event {
    Event::Ready { child: child(id), adopts: false }
}

#[test]
fn it_is_started_first_and_started_again_whenever_it_ends() {
    let mut cluster = attended();
    cluster.tell(greets(0));
    cluster.tell(ready(1));
    assert_eq!(cluster.deadline(), None);
    cluster.now += LIFE;
    let actions = cluster.tell(killed(0));
    assert!(
        matches!(&actions[..], [Action::Note(Note::Restarting { who: Post::Admin, after, .. }), Action::Attend { .. }] if after.is_zero()),
        "{actions:?}"
    );
    // One that cannot begin is tried ever more seldom.
    let mut delays = Vec::new();
    for id in 2..6 {
        let actions = cluster.tell(Event::SpawnFailed { child: child(id), error: "no memory".into() });
        let [Action::Note(Note::Restarting { after, why, .. })] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(why, "could not be started: no memory");
        delays.push(*after);
        assert_eq!(cluster.deadline(), Some(*after));
        assert_eq!(cluster.wait(*after), [attend(id + 1)]);
    }
    assert!(delays.is_sorted() && delays[0] < delays[3]);
}

#[test]
fn one_that_does_not_greet_is_killed() {
    let mut cluster = attended();
    cluster.tell(ready(1));
    assert_eq!(cluster.deadline(), Some(BOOT));
    let kill = signal(0, ChildSignal::Kill);
    let note = Action::Note(Note::BootTimeout { who: Post::Admin, after: BOOT });
    assert_eq!(cluster.wait(BOOT), [note, kill]);
    assert_eq!(cluster.deadline(), None);
}

/// Nothing waits for it, and it sees the end of all others.
#[test]
fn it_is_there_until_everything_is_over_and_not_started_again() {
    let mut cluster = attended();
    cluster.tell(greets(0));
    cluster.tell(ready(1));
    let actions = cluster.tell(Event::Terminate);
    assert!(!actions.iter().any(|action| matches!(action, Action::Drain { child: ChildId(0), .. })));
    assert_eq!(cluster.tell(killed(0)), []);
    cluster.tell(released(1, 0));
    cluster.tell(drained(1, 0, 0));
    let actions = cluster.tell(killed(1));
    assert!(matches!(actions[..], [.., Action::Finish(_)]), "{actions:?}");
}
