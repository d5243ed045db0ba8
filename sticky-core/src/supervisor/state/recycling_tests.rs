//! The decisions about workers that have used up their quota.

use super::reload_tests::{exited, hup, keep, retire};
use super::*;
use crate::config::Memory;

const AGE: Duration = Duration::from_secs(1000);

fn limited(workers: u16, quota: Quota) -> Cluster {
    let mut cluster = Cluster::with(Policy { quota, ..policy(workers, Failover::Next { after: AFTER }) });
    cluster.boot();
    cluster
}

fn by_requests(workers: u16) -> Cluster {
    limited(workers, Quota { requests: Some(1000), ..Quota::default() })
}

fn used(id: u64, requests: u64) -> (ChildId, Usage) {
    (child(id), Usage { requests, memory: Memory(0) })
}

fn said(note: &Action) -> String {
    let Action::Note(note) = note else { panic!("{note:?}") };
    note.to_string()
}

#[test]
fn one_that_has_served_enough_is_replaced_by_the_same_program() {
    let mut cluster = by_requests(2);
    assert_eq!(cluster.tell(Event::Used(vec![used(0, 699), used(1, 699)])), []);
    let [note, spawned] = &cluster.tell(Event::Used(vec![used(0, 1), used(1, 1000)]))[..] else { panic!() };
    assert_eq!(said(note), "worker 1 has had 1000 requests (max_requests, STICKY_MAX_REQUESTS): replacing it");
    assert_eq!(*spawned, spawn(2, 1, 1, 2), "no look for another program");
    assert_eq!(cluster.tell(ready(2)), [keep(2), release(1, 1)]);
    let actions = cluster.tell(released(1, 1));
    assert_eq!(actions[..2], [listen(2, 1), retire(1)]);
    assert_eq!(said(&actions[2]), "replaced worker 1");
    // The one that drains has nothing to do with it any more, and the new one has a quota of its own.
    assert_eq!(cluster.tell(Event::Used(vec![used(1, 5000), used(2, 0)])), []);
}

#[test]
fn never_two_at_a_time() {
    let mut cluster = by_requests(3);
    let all = || Event::Used(vec![used(0, 1000), used(1, 1000), used(2, 1000)]);
    assert_eq!(cluster.tell(all())[1..], [spawn(3, 0, 1, 3)]);
    assert_eq!(cluster.tell(all()), []);
    cluster.tell(ready(3));
    let [listens, retires, done, next, spawned] = &cluster.tell(released(0, 0))[..] else { panic!() };
    assert_eq!([listens, retires], [&listen(3, 0), &retire(0)]);
    assert!(said(done).starts_with("replaced worker 0") && said(next).starts_with("worker 1 has had"));
    assert_eq!(*spawned, spawn(4, 1, 1, 4));
}

#[test]
fn age_is_a_deadline_of_its_own_for_each() {
    let mut cluster = limited(2, Quota { age: Some(AGE), ..Quota::default() });
    let first = cluster.deadline().unwrap();
    assert!((AGE.mul_f64(0.7)..=AGE.mul_f64(0.9)).contains(&first), "{first:?}");
    assert_eq!(cluster.wait(first - MOMENT), []);
    let [note, Action::Spawn { slot: replaced, program: Program::Same, .. }] = &cluster.wait(MOMENT)[..] else {
        panic!()
    };
    assert!(said(note).contains(" s (max_age, STICKY_MAX_AGE): replacing it"), "{}", said(note));
    cluster.tell(ready(2));
    let old = u64::from(replaced.get());
    cluster.tell(released(old, replaced.get()));
    cluster.tell(exited(old, 0));
    let second = first + cluster.deadline().unwrap();
    assert!(second > first && second <= AGE.mul_f64(0.9), "the other has another share: {second:?}");
}

#[test]
fn where_the_next_fails_the_old_one_goes_on_and_it_is_tried_again() {
    let mut cluster = by_requests(2);
    cluster.tell(Event::Used(vec![used(0, 1000)]));
    let failure =
        "worker 0 could not be replaced: the new worker 0 exited with status 3 before it was ready; it goes on";
    let [note] = &cluster.tell(exited(2, 3))[..] else { panic!() };
    assert!(said(note).starts_with(failure), "{}", said(note));
    let first = cluster.deadline().unwrap();
    assert!(first <= Duration::from_millis(10), "{first:?}");
    let again = cluster.wait(first);
    assert_eq!(again[1..], [spawn(3, 0, 2, 2)]);
    cluster.tell(exited(3, 3));
    let second = cluster.deadline().unwrap();
    assert!(second > Duration::from_millis(14), "twice as long: {second:?}");
    // Another worker need not wait for that.
    assert_eq!(cluster.tell(Event::Used(vec![used(1, 1000)]))[1..], [spawn(4, 1, 1, 2)]);
    cluster.tell(ready(4));
    cluster.tell(released(1, 1));
    assert_eq!(cluster.wait(second)[1..], [spawn(5, 0, 3, 3)]);
    // It takes over, dies before the old one drains, and that is a failure like the others.
    cluster.tell(ready(5));
    let [kept, note] = &cluster.tell(killed(5))[..] else { panic!() };
    assert_eq!(*kept, keep(0));
    assert!(said(note).contains("was killed by signal 9 (SIGKILL) as it took over; it goes on"), "{}", said(note));
}

#[test]
fn reloads_come_first() {
    let mut cluster = by_requests(2);
    cluster.tell(hup());
    assert_eq!(cluster.tell(Event::Used(vec![used(0, 1000), used(1, 1000)])), []);
    cluster.tell(ready(2));
    cluster.tell(released(0, 0));
    cluster.tell(ready(3));
    // Both are new by now.
    let last = cluster.tell(released(1, 1));
    assert!(matches!(last.last(), Some(Action::Note(Note::Reloaded { .. }))), "{last:?}");
    // One that is asked for meanwhile follows what is under way.
    cluster.tell(Event::Used(vec![used(2, 1000), used(3, 1000)]));
    assert_eq!(cluster.tell(hup()), [Action::Note(Note::ReloadWaits)]);
    cluster.tell(ready(4));
    let follows = cluster.tell(released(2, 0));
    assert!(follows.contains(&Action::FindProgram), "{follows:?}");
}

#[test]
fn who_is_stopped_or_crowded_waits() {
    let mut cluster = by_requests(1);
    cluster.tell(Event::Stopped { child: child(0) });
    assert_eq!(cluster.tell(Event::Used(vec![used(0, 1000)])), []);
    cluster.tell(Event::Continued { child: child(0) });
    for id in 1..=MOST_RETIRED as u64 {
        cluster.tell(Event::Used(vec![used(id - 1, 1000)]));
        cluster.tell(ready(id));
        cluster.tell(released(id - 1, 0));
    }
    let full = || Event::Used(vec![used(MOST_RETIRED as u64, 1000)]);
    let [note] = &cluster.tell(full())[..] else { panic!() };
    assert!(said(note).contains("waits to be replaced: 3 former processes of it have not drained"), "{}", said(note));
    assert_eq!(cluster.tell(full()), [], "said once");
    cluster.tell(drained(0, 0, 0));
    assert!(matches!(cluster.tell(exited(0, 0))[..], [Action::Note(Note::Recycling { .. }), Action::Spawn { .. }]));
}

#[test]
fn the_end_of_everything_has_nothing_to_say_about_it() {
    let mut cluster = by_requests(1);
    cluster.tell(Event::Used(vec![used(0, 1000)]));
    let notes = |action: &&Action| matches!(action, Action::Note(_));
    let actions = cluster.tell(Event::Terminate);
    assert_eq!(actions.iter().filter(notes).count(), 1, "{actions:?}");
    assert_eq!(cluster.tell(Event::Used(vec![used(0, 2000)])), []);
}

#[test]
fn proxies_have_no_quota() {
    let quota = Quota { requests: Some(1), age: Some(AGE), ..Quota::default() };
    let mut cluster = Cluster::with(Policy { quota, proxies: 1, moves: true, ..policy(1, Failover::Wait) });
    cluster.boot();
    assert_eq!(cluster.tell(Event::Used(vec![used(1, 1000)])), []);
    assert!(matches!(cluster.wait(AGE)[..], [Action::Note(_), Action::Spawn { slot, .. }] if slot == self::slot(0)));
}
