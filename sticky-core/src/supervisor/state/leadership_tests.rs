//! The decisions about who leads.

use super::reload_tests::{exited, hup};
use super::*;

fn candidate(id: u64) -> Event {
    Event::Candidate { child: child(id) }
}

fn resigned(id: u64) -> Event {
    Event::Resigned { child: child(id) }
}

fn grant(id: u64) -> Action {
    Action::Grant { child: child(id) }
}

fn revoke(id: u64) -> Action {
    Action::Revoke { child: child(id) }
}

#[test]
fn one_of_those_that_want_to_leads_and_nobody_before_all_are_ready() {
    let mut cluster = Cluster::booting(2);
    assert_eq!(cluster.tell(candidate(1)), []);
    assert_eq!(cluster.tell(ready(1)), []);
    assert!(cluster.tell(ready(0)).contains(&grant(1)), "nobody else wants to");
    assert_eq!(cluster.tell(candidate(0)), [], "who leads goes on");
}

#[test]
fn the_next_one_leads_when_the_former_is_dead() {
    let mut cluster = Cluster::running(3);
    for id in 0..3 {
        cluster.tell(candidate(id));
    }
    cluster.now += LIFE;
    assert!(cluster.tell(killed(0)).contains(&grant(1)));
    // Who is stopped may go on at any moment, in the middle of whatever it did.
    assert!(!cluster.tell(Event::Stopped { child: child(1) }).contains(&revoke(1)));
    let hung = [Event::Continued { child: child(1) }, Event::Silent { child: child(1) }];
    let told: Vec<Action> = hung.into_iter().flat_map(|event| cluster.tell(event)).collect();
    assert!(told.contains(&revoke(1)) && !told.contains(&grant(2)), "{told:?}");
    assert!(cluster.tell(killed(1)).contains(&grant(2)));
}

#[test]
fn a_stopped_worker_does_not_begin_to_lead() {
    let mut cluster = Cluster::running(2);
    cluster.tell(Event::Stopped { child: child(0) });
    assert_eq!(cluster.tell(candidate(0)), []);
    assert_eq!(cluster.tell(candidate(1)), [grant(1)]);
}

#[test]
fn who_is_replaced_must_resign_first() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.tell(candidate(0)), [grant(0)]);
    cluster.tell(hup());
    cluster.tell(candidate(1));
    let taken_over = cluster.tell(ready(1));
    assert!(taken_over.contains(&revoke(0)) && !taken_over.contains(&grant(1)), "{taken_over:?}");
    assert!(!cluster.tell(released(0, 0)).contains(&grant(1)));
    assert_eq!(cluster.tell(Event::Tick), [], "however long that takes");
    assert_eq!(cluster.tell(resigned(0)), [grant(1)]);
    assert_eq!(cluster.tell(resigned(0)), [], "said twice");
    assert!(!cluster.tell(exited(0, 0)).contains(&revoke(1)));
}

#[test]
fn who_takes_its_slot_back_leads_again_when_it_has_let_go() {
    let mut cluster = Cluster::running(1);
    cluster.tell(candidate(0));
    cluster.tell(hup());
    cluster.tell(ready(1));
    assert!(!cluster.tell(killed(1)).contains(&grant(0)), "it is about to resign");
    assert_eq!(cluster.tell(resigned(0)), [grant(0)]);
}

#[test]
fn at_the_end_nobody_leads() {
    let mut cluster = Cluster::running(2);
    cluster.tell(candidate(0));
    cluster.tell(candidate(1));
    assert!(cluster.tell(Event::Terminate).contains(&revoke(0)));
    assert!(!cluster.tell(resigned(0)).contains(&grant(1)));
}
