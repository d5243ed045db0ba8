//! The decisions of scaling, one by one.

use super::super::scaling::PARTING_TIME;
use super::reload_tests::{exited, hup, keep, retire};
use super::*;

/// With room for five workers.
fn roomy(workers: u16, change: impl FnOnce(&mut Policy)) -> Cluster {
    let mut policy = Policy { room: 5, ..policy(workers, Failover::Next { after: AFTER }) };
    change(&mut policy);
    let mut cluster = Cluster::with(policy);
    cluster.boot();
    cluster.now += LIFE;
    cluster
}

fn to(count: u16) -> Event {
    Event::Scale(HowMany::Exactly(count))
}

fn spawn_more(id: u64, at: u16, generation: u32, seat: usize) -> Action {
    let (generation, program) = (Generation::new(generation), Program::OfTheFirst);
    Action::Spawn { child: child(id), slot: slot(at), generation, seat, program }
}

fn scaling(from: u16, to: u16) -> Action {
    Action::Note(Note::Scaling { from, to })
}

fn scaled(workers: u16) -> Action {
    Action::Note(Note::Scaled { workers })
}

fn place(workers: u16) -> Action {
    Action::Place { workers }
}

fn part(id: u64) -> Action {
    Action::Drain { child: child(id), timeout: DRAIN, reason: DrainReason::ScaledIn }
}

/// The words of the only note among these.
fn said(actions: &[Action]) -> String {
    let notes = actions.iter().filter_map(|action| if let Action::Note(note) = action { Some(note) } else { None });
    let notes: Vec<String> = notes.map(Note::to_string).collect();
    let [note] = &notes[..] else { panic!("{notes:?}") };
    note.clone()
}

#[test]
fn keys_move_once_when_all_that_are_added_read() {
    let mut cluster = roomy(2, |_| {});
    assert_eq!(cluster.tell(to(4)), [scaling(2, 4), spawn_more(2, 2, 0, 2), spawn_more(3, 3, 0, 3)]);
    assert_eq!(cluster.tell(ready(3)), [listen(3, 3)]);
    assert_eq!(cluster.tell(ready(2)), [listen(2, 2), keep(2), keep(3), place(4), scaled(4)]);
    assert_eq!(cluster.deadline(), None);
    cluster.now += LIFE;
    assert_eq!(cluster.tell(killed(3))[1..], [spawn(4, 3, 1, 3)], "it is a worker like any other");
}

#[test]
fn who_is_taken_out_gets_nothing_new_reads_on_for_a_moment_and_drains() {
    let mut cluster = roomy(3, |_| {});
    assert_eq!(cluster.tell(to(1)), [scaling(3, 1), place(1)]);
    assert_eq!(cluster.wait(PARTING_TIME - MOMENT), []);
    assert_eq!(cluster.wait(MOMENT), [release(1, 1), release(2, 2)]);
    assert_eq!(cluster.tell(released(2, 2)), [listen(0, 2), part(2)]);
    assert_eq!(cluster.tell(released(1, 1)), [listen(0, 1), part(1), scaled(1)]);
    assert_eq!(
        said(&cluster.tell(drained(1, 3, 0))),
        "the former worker 1 has drained: 3 connections completed, 0 cut"
    );
    assert_eq!(cluster.tell(exited(1, 0)), []);
    assert_eq!(cluster.deadline(), Some(DRAIN + CUT_TIME));
    let overdue = Action::Note(Note::Overdue { who: post(2) });
    assert_eq!(cluster.wait(DRAIN + CUT_TIME), [overdue, signal(2, ChildSignal::Kill)]);
    assert_eq!(cluster.tell(killed(2)), [], "nobody follows");
}

#[test]
fn where_connections_move_both_parts_are_handed_over() {
    let mut cluster = roomy(2, |policy| policy.moves = true);
    assert_eq!(cluster.tell(to(1)), [scaling(2, 1), place(1)]);
    assert_eq!(cluster.wait(PARTING_TIME), [release(1, 1), release_channel(1, 1)]);
    assert_eq!(cluster.tell(released(1, 1)), [listen(0, 1)]);
    assert_eq!(cluster.tell(released_channel(1, 1)), [read_channel(0, 1), part(1), scaled(1)]);
    // Added again, it is placed on when nobody else reads what is sent there.
    cluster.tell(to(2));
    assert_eq!(cluster.tell(ready(2)), [release(0, 1), release_channel(0, 1)]);
    assert_eq!(cluster.tell(released_channel(0, 1)), [read_channel(2, 1)]);
    assert_eq!(cluster.tell(released(0, 1)), [listen(2, 1), keep(2), place(2), scaled(2)]);
}

#[test]
fn signals_count_from_what_was_asked_for_last() {
    let mut cluster = roomy(2, |_| {});
    cluster.tell(Event::Scale(HowMany::OneMore));
    assert_eq!(cluster.tell(Event::Scale(HowMany::OneMore)), [Action::Note(Note::ScalingWaits { to: 4 })]);
    assert_eq!(cluster.tell(Event::Scale(HowMany::OneMore)), [Action::Note(Note::ScalingWaits { to: 5 })]);
    let refused = said(&cluster.tell(Event::Scale(HowMany::OneMore)));
    assert_eq!(refused, "not scaled to 6: this cluster has room for 5 workers (max_workers, STICKY_MAX_WORKERS)");
    assert_eq!(cluster.tell(Event::Scale(HowMany::OneLess)), [Action::Note(Note::ScalingWaits { to: 4 })]);
    let actions = cluster.tell(ready(2));
    assert_eq!(actions, [listen(2, 2), keep(2), place(3), scaled(3), scaling(3, 4), spawn_more(3, 3, 0, 3)]);
    let note = Note::ScalingWaits { to: 4 };
    assert_eq!(note.to_string(), "scaling to 4 workers waits for what is under way, and begins after that");
}

#[test]
fn somebody_is_always_left() {
    let mut cluster = roomy(1, |_| {});
    assert_eq!(said(&cluster.tell(Event::Scale(HowMany::OneLess))), "not scaled: one worker has to be left");
    assert_eq!(said(&cluster.tell(to(1))), "not scaled: there is 1 worker already");
    assert_eq!(said(&cluster.tell(to(0))), "not scaled: one worker has to be left");
}

#[test]
fn if_one_fails_none_is_added() {
    let mut cluster = roomy(2, |_| {});
    cluster.tell(to(4));
    cluster.tell(ready(2));
    let actions = cluster.tell(exited(3, 1));
    assert_eq!(actions[0], signal(2, ChildSignal::Kill));
    let stopped =
        "scaling stopped: the new worker 3 exited with status 1 before it was ready; there are 2 workers as before";
    assert_eq!(said(&actions), stopped);
    // Asked again, it waits for the end of who has been killed.
    assert_eq!(cluster.tell(to(3)), [scaling(2, 3)]);
    assert_eq!(cluster.tell(killed(2)), [spawn_more(4, 2, 1, 2)]);
    cluster.tell(Event::Words { child: child(4), text: "no memory".into() });
    let actions = cluster.wait(BOOT);
    assert_eq!(actions[0], signal(4, ChildSignal::Kill));
    assert!(said(&actions).contains("the new worker 2 was not ready within 60s"), "{actions:?}");
}

#[test]
fn who_is_lost_while_the_others_start_ends_it() {
    let mut cluster = roomy(2, |_| {});
    cluster.tell(to(4));
    cluster.tell(ready(2));
    let actions = cluster.tell(killed(2));
    let stopped = "scaling stopped: the new worker 2 was killed by signal 9 (SIGKILL); there are 2 workers as before";
    assert_eq!(said(&actions), stopped);
    let mut cluster = roomy(2, |_| {});
    cluster.tell(to(4));
    cluster.tell(ready(2));
    let actions = cluster.tell(Event::Dropped { child: child(2), slot: slot(2), part: Part::Listeners });
    assert!(
        said(&actions).starts_with("scaling stopped: the new worker 2 has let go of its connections;"),
        "{actions:?}"
    );
}

#[test]
fn scaling_and_reloads_wait_for_each_other() {
    let mut cluster = roomy(1, |_| {});
    cluster.tell(hup());
    assert_eq!(cluster.tell(to(2)), [Action::Note(Note::ScalingWaits { to: 2 })]);
    cluster.tell(ready(1));
    let actions = cluster.tell(released(0, 0));
    assert_eq!(actions[..2], [listen(1, 0), retire(0)]);
    assert_eq!(actions[3..], [scaling(1, 2), spawn_more(2, 1, 0, 2)]);
    assert_eq!(cluster.tell(hup()), [Action::Note(Note::ReloadWaits)]);
    let actions = cluster.tell(ready(2));
    assert_eq!(actions[..4], [listen(2, 1), keep(2), place(2), scaled(2)]);
    let slots = Fleet { workers: 2, proxies: 0 };
    assert_eq!(actions[5], Action::Note(Note::Reloading { slots }), "the added one, too");
}

#[test]
fn scaling_waits_for_the_cluster_to_be_up() {
    let mut cluster = Cluster::with(Policy { room: 2, ..policy(1, Failover::Wait) });
    assert_eq!(cluster.tell(to(2)), [Action::Note(Note::ScalingWaits { to: 2 })]);
    let up = [Action::Note(Note::Up), listen(0, 0), scaling(1, 2), spawn_more(1, 1, 0, 1)];
    assert_eq!(cluster.tell(ready(0)), up);
}

#[test]
fn a_slot_that_is_taken_out_while_it_is_down_is_down_no_more() {
    let mut cluster = roomy(3, |_| {});
    cluster.tell(killed(2));
    cluster.wait(AFTER);
    assert!(cluster.state.slots[2].evicted);
    let actions = cluster.tell(to(2));
    assert_eq!(actions, [scaling(3, 2), place(2), signal(3, ChildSignal::Kill), evict(&[]), scaled(2)]);
    assert_eq!(cluster.tell(killed(3)), []);
    assert_eq!(cluster.deadline(), None);
    // Who stands in goes on.
    assert_eq!(cluster.state.slots[2].readers[0], Reader::Child(child(0)));
}

#[test]
fn who_does_not_let_go_or_is_stopped_is_not_waited_for_long() {
    let mut cluster = roomy(2, |_| {});
    cluster.tell(to(1));
    cluster.wait(PARTING_TIME);
    assert_eq!(cluster.wait(RELEASE_TIME), [listen(0, 1), part(1), scaled(1)]);
    let mut cluster = roomy(2, |_| {});
    cluster.tell(Event::Stopped { child: child(1) });
    assert_eq!(cluster.tell(to(1)), [scaling(2, 1), place(1), release(1, 1), listen(0, 1)]);
    assert_eq!(cluster.wait(PARTING_TIME), [part(1), scaled(1)]);
}

#[test]
fn where_nobody_can_read_in_its_place_it_drains_all_the_same() {
    let mut cluster = Cluster::with(policy(2, Failover::Wait));
    for id in 0..2 {
        cluster.tell(Event::Ready { child: child(id), adopts: false });
    }
    cluster.tell(to(1));
    assert_eq!(cluster.wait(PARTING_TIME), [part(1), scaled(1)]);
    cluster.tell(drained(1, 0, 0));
    assert_eq!(cluster.tell(exited(1, 0)), []);
}

#[test]
fn a_leader_that_is_taken_out_leads_no_more() {
    let mut cluster = roomy(2, |_| {});
    cluster.tell(Event::Candidate { child: child(1) });
    assert!(cluster.tell(to(1)).contains(&Action::Revoke { child: child(1) }));
    cluster.tell(Event::Candidate { child: child(0) });
    assert_eq!(cluster.tell(Event::Resigned { child: child(1) }), [Action::Grant { child: child(0) }]);
}

#[test]
fn proxies_keep_their_place_and_know_which_slots_are_not_in_use() {
    let mut cluster = roomy(2, |policy| (policy.moves, policy.proxies) = (true, 1));
    let down = |slots: &[u16]| Action::Down { slots: slots.iter().copied().map(WorkerId::new).collect() };
    assert_eq!(cluster.state.told_proxies().0, [2, 3, 4].map(WorkerId::new));
    let proxy = cluster.state.slots[5].current;
    assert_eq!(proxy, Some(child(2)));
    assert_eq!(cluster.tell(to(3)), [scaling(2, 3), spawn_more(3, 2, 0, 3)]);
    assert_eq!(cluster.tell(ready(3)), [read_channel(3, 2), keep(3), place(3), scaled(3), down(&[3, 4])]);
    assert_eq!(cluster.tell(to(1)), [scaling(3, 1), place(1), down(&[1, 2, 3, 4])]);
    assert_eq!(cluster.wait(PARTING_TIME), [release_channel(1, 1), release_channel(3, 2)]);
    assert_eq!(
        cluster.tell(released_channel(1, 1)),
        [read_channel(0, 1), part(1)],
        "no proxy reads what is a worker's"
    );
}

#[test]
fn a_slot_with_many_former_processes_waits() {
    let mut cluster = roomy(2, |_| {});
    let mut newest = 1;
    for _ in 1..MOST_RETIRED {
        cluster.tell(to(1));
        cluster.wait(PARTING_TIME);
        cluster.tell(released(newest, 1));
        cluster.tell(to(2));
        newest = cluster.state.next_child - 1;
        cluster.tell(ready(newest));
        cluster.tell(released(0, 1));
    }
    let crowded =
        "scaling waits: 3 former processes of worker 1 have not drained yet (drain_timeout, STICKY_DRAIN_TIMEOUT)";
    cluster.tell(to(1));
    cluster.wait(PARTING_TIME);
    cluster.tell(released(newest, 1));
    assert_eq!(said(&cluster.tell(to(2))[1..]), crowded);
    assert_eq!(cluster.tell(Event::Tick), [], "said once");
    let oldest = cluster.state.former(1).next().unwrap();
    let actions = cluster.tell(exited(oldest.0, 0));
    assert!(matches!(actions.last(), Some(Action::Spawn { slot: at, .. }) if *at == slot(1)), "{actions:?}");
}

#[test]
fn the_end_of_everything_wins() {
    let mut cluster = roomy(2, |_| {});
    cluster.tell(to(4));
    cluster.tell(ready(2));
    let actions = cluster.tell(Event::Terminate);
    let drains = actions.iter().filter(|action| matches!(action, Action::Drain { .. })).count();
    assert_eq!(drains, 4);
    assert!(actions.contains(&signal(3, ChildSignal::Terminate)), "it may not have reached sticky yet");
    cluster.tell(released(0, 0));
    cluster.tell(released(1, 1));
    assert_eq!(cluster.tell(released(2, 2)), [Action::CloseListeners], "nothing came to the others");
    let ends: Vec<Action> = (0..4).flat_map(|id| cluster.tell(exited(id, 0))).collect();
    assert_eq!(ends, [Action::Finish(Outcome::Clean(Report::default()))]);

    let mut cluster = roomy(2, |_| {});
    cluster.tell(to(1));
    cluster.tell(Event::Terminate);
    cluster.tell(released(0, 0));
    assert_eq!(cluster.tell(released(1, 1)), [Action::CloseListeners], "it empties its own queue");
    assert_eq!(cluster.tell(to(2)), []);
}

#[test]
fn soaking_is_for_those_that_are_added_too() {
    let soak = Duration::from_secs(7);
    let mut cluster = roomy(1, |policy| policy.reload_soak = soak);
    cluster.tell(to(2));
    assert_eq!(cluster.tell(ready(1)), []);
    assert_eq!(cluster.wait(soak), [listen(1, 1), keep(1), place(2), scaled(2)]);
}
