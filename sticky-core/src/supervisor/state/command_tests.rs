//! The decisions about what is asked from outside.

use super::reload_tests::{exited, hup, spawn_new};
use super::*;

fn ask(number: u64, command: Command) -> Event {
    Event::Command { ticket: Ticket(number), command }
}

fn drain_of(at: u16) -> Command {
    Command::Drain { worker: slot(at) }
}

fn restart_of(at: u16) -> Command {
    Command::Restart { worker: slot(at) }
}

/// What is said about a command.
fn words(actions: &[Action], number: u64) -> Vec<String> {
    let words = actions.iter().filter_map(|action| match action {
        Action::Report { ticket: Ticket(of), progress } if *of == number => Some(progress.to_string()),
        _ => None,
    });
    words.collect()
}

/// Whatever an old process is asked, it answers and leaves.
fn oblige(cluster: &mut Cluster, old: u64, at: u16) -> Vec<Action> {
    let mut actions = cluster.tell(released(old, at));
    actions.extend(cluster.tell(drained(old, 3, 0)));
    actions.extend(cluster.tell(exited(old, 0)));
    actions
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end() {
    let mut cluster = Cluster::running(2);
    let actions = cluster.tell(ask(1, Command::Reload));
    assert_eq!(words(&actions, 1), ["begun"]);
    assert!(actions.contains(&spawn_new(2, 0, 1, 2)));
    let mut said = words(&cluster.tell(ready(2)), 1);
    said.extend(words(&oblige(&mut cluster, 0, 0), 1));
    said.extend(words(&cluster.tell(ready(3)), 1));
    said.extend(words(&oblige(&mut cluster, 1, 1), 1));
    said.extend(words(&cluster.tell(Event::Tick), 1));
    assert_eq!(said, ["worker 0 is new (1 of 2)", "worker 1 is new (2 of 2)", "reloaded 2 workers"]);
}

#[test]
fn a_reload_that_stops_says_why() {
    let mut cluster = Cluster::running(2);
    cluster.tell(ask(1, Command::Reload));
    let said = words(&cluster.tell(killed(2)), 1);
    let [why] = &said[..] else { panic!("{said:?}") };
    assert!(why.contains("the new worker 0 was killed by signal 9") && why.contains("goes on as it was"), "{why}");
    assert_eq!(words(&cluster.tell(ask(2, Command::Reload)), 2), ["begun"], "another may follow");
}

#[test]
fn what_is_asked_during_a_reload_waits_for_the_next_and_shares_it() {
    let mut cluster = Cluster::running(1);
    cluster.tell(hup());
    for number in [1, 2] {
        let waits = cluster.tell(ask(number, Command::Reload));
        assert_eq!(words(&waits, number), ["waits for what is under way"]);
    }
    cluster.tell(ready(1));
    let next = oblige(&mut cluster, 0, 0);
    assert_eq!((words(&next, 1), words(&next, 2)), (vec!["begun".to_owned()], vec!["begun".to_owned()]));
    cluster.tell(ready(2));
    let done = oblige(&mut cluster, 1, 0);
    assert_eq!(words(&done, 1).last().map(String::as_str), Some("reloaded 1 worker"));
    assert_eq!(words(&done, 1), words(&done, 2));
}

#[test]
fn one_slot_is_restarted_alone_and_not_with_others() {
    let mut cluster = Cluster::running(2);
    let actions = cluster.tell(ask(1, restart_of(1)));
    assert!(actions.contains(&spawn_new(2, 1, 1, 2)) && words(&actions, 1) == ["begun"]);
    let refused = words(&cluster.tell(ask(2, restart_of(0))), 2);
    assert_eq!(refused, ["something else is under way: ask again after it"]);
    cluster.tell(ready(2));
    assert_eq!(words(&oblige(&mut cluster, 1, 1), 1), ["reloaded 1 worker"]);
    assert_eq!(words(&cluster.tell(ask(3, restart_of(2))), 3), ["there is no worker 2"]);
}

/// Its sockets are the next one's before it drains; it stays away until it is restarted.
#[test]
fn a_slot_drains_when_another_reads_its_sockets() {
    let mut cluster = Cluster::running(3);
    let actions = cluster.tell(ask(1, drain_of(1)));
    assert_eq!(words(&actions, 1), ["begun"]);
    assert!(actions.contains(&evict(&[1])) && actions.contains(&release(1, 1)), "{actions:?}");
    let actions = cluster.tell(released(1, 1));
    let order = Action::Drain { child: child(1), timeout: DRAIN, reason: DrainReason::Replaced };
    assert!(actions.contains(&listen(2, 1)) && actions.contains(&order), "{actions:?}");
    let said = words(&cluster.tell(drained(1, 3, 1)), 1);
    assert_eq!(said, ["worker 1 has drained: 3 connections completed, 1 cut"]);
    assert_eq!(cluster.tell(exited(1, 0)), []);
    assert_eq!((cluster.deadline(), cluster.wait(LIFE)), (None, vec![]), "nothing is started");
    let actions = cluster.tell(ask(2, restart_of(1)));
    assert!(actions.contains(&spawn_new(3, 1, 1, 1)), "{actions:?}");
    let actions = cluster.tell(ready(3));
    assert!(actions.contains(&evict(&[])) && actions.contains(&release(2, 1)), "{actions:?}");
    assert_eq!(words(&cluster.tell(released(2, 1)), 2), [""; 0]);
    assert!(!cluster.state.slots[1].drained);
}

/// The others must be there, must be allowed to serve its clients, and it must be there itself.
#[test]
fn a_slot_that_nobody_can_stand_in_for_does_not_drain() {
    let refusal = |cluster: &mut Cluster, at| words(&cluster.tell(ask(9, drain_of(at))), 9).concat();
    let mut alone = Cluster::running(1);
    assert_eq!(refusal(&mut alone, 0), "no other worker could serve the clients of worker 0");
    let mut waits = Cluster::with(policy(2, Failover::Wait));
    waits.boot();
    assert_eq!(refusal(&mut waits, 0), "with failover \"wait\" nobody would serve the clients of worker 0");
    let mut cluster = Cluster::running(3);
    cluster.tell(killed(0));
    assert_eq!(refusal(&mut cluster, 0), "worker 0 is not running");
    assert_eq!(refusal(&mut cluster, 3), "there is no worker 3");
    cluster.tell(ask(1, drain_of(1)));
    cluster.tell(released(1, 1));
    assert_eq!(refusal(&mut cluster, 2), "no other worker could serve the clients of worker 2");
    assert_eq!(refusal(&mut Cluster::booting(2), 0), "the cluster is starting: ask again when it is up");
}

#[test]
fn a_drain_that_is_cut_short_says_so() {
    let mut cluster = Cluster::running(2);
    cluster.tell(ask(1, drain_of(0)));
    let said = words(&cluster.tell(killed(0)), 1);
    assert_eq!(said, ["worker 0 was killed by signal 9 (SIGKILL) before it had drained"]);
    assert!(cluster.state.slots[0].drained);
}

#[test]
fn the_end_ends_everything_that_was_asked() {
    let mut cluster = Cluster::running(3);
    cluster.tell(ask(1, drain_of(2)));
    cluster.tell(released(2, 2));
    cluster.tell(ask(2, Command::Reload));
    cluster.tell(ask(3, Command::Reload));
    let actions = cluster.tell(Event::Terminate);
    for number in 1..=3 {
        assert_eq!(words(&actions, number), ["the cluster is shutting down"]);
    }
    assert_eq!(words(&cluster.tell(ask(4, Command::Reload)), 4), ["the cluster is shutting down"]);
}

/// Although nobody can stand in for it just now: the reload may be what brings the others back.
#[test]
fn a_drain_that_cannot_go_on_holds_up_no_reload() {
    let mut cluster = Cluster::running(2);
    cluster.tell(ask(1, drain_of(1)));
    cluster.tell(killed(0));
    let actions = cluster.tell(hup());
    assert!(actions.iter().any(|action| matches!(action, Action::Spawn { program: Program::New, .. })), "{actions:?}");
}

/// A reload brings drained slots back, with the program that the others have.
#[test]
fn a_reload_ends_a_drain() {
    let mut cluster = Cluster::running(2);
    cluster.tell(ask(1, drain_of(1)));
    oblige(&mut cluster, 1, 1);
    cluster.tell(hup());
    cluster.tell(ready(2));
    oblige(&mut cluster, 0, 0);
    let actions = cluster.tell(ready(3));
    assert!(actions.contains(&Action::Note(Note::Back { who: post(1) })), "{actions:?}");
    assert!(cluster.state.slots.iter().all(|slot| slot.current.is_some() && !slot.drained));
}
