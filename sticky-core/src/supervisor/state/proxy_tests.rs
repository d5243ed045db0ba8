//! Decisions where proxies stand in front of the workers: slots 0 and 1 are workers', 2 and 3 proxies'.

use super::*;

fn behind_proxies(failover: Failover) -> Cluster {
    let mut cluster = Cluster::with(Policy { moves: true, proxies: 2, ..policy(2, failover) });
    cluster.boot();
    cluster.now += LIFE;
    cluster
}

fn down(slots: &[u16]) -> Action {
    Action::Down { slots: slots.iter().copied().map(WorkerId::new).collect() }
}

const NEXT: Failover = Failover::Next { after: AFTER };

#[test]
fn clients_come_in_by_proxies_and_workers_have_channels() {
    let mut cluster = Cluster::with(Policy { moves: true, proxies: 2, ..policy(2, NEXT) });
    for id in [2, 0, 3] {
        cluster.tell(ready(id));
    }
    let lent =
        [read_channel(0, 0), read_channel(1, 1), listen(2, 2), read_channel(2, 2), listen(3, 3), read_channel(3, 3)];
    assert_eq!(cluster.tell(ready(1))[1..], lent);
}

#[test]
fn nobody_stands_in_for_the_other_kind() {
    let mut cluster = behind_proxies(NEXT);
    let died = cluster.tell(killed(2));
    let who = Post::Proxy(0);
    assert!(matches!(&died[0], Action::Note(Note::Restarting { who: named, .. }) if *named == who));
    assert_eq!(died[1..], [spawn(4, 2, 1, 2), listen(3, 2)]);
    cluster.tell(killed(3));
    assert_eq!(cluster.wait(AFTER), [], "with no proxy left nobody can stand in");
    assert_eq!(cluster.tell(killed(0))[1..], [spawn(6, 0, 1, 0), down(&[0])]);
    assert_eq!(cluster.wait(AFTER)[2..], [read_channel(1, 0)]);
}

#[test]
fn proxies_know_at_once_who_does_not_run() {
    let mut cluster = behind_proxies(NEXT);
    assert_eq!(cluster.tell(Event::Stopped { child: child(1) }).last(), Some(&down(&[1])));
    assert_eq!(cluster.wait(AFTER - MOMENT), []);
    let actions = cluster.wait(MOMENT);
    assert!(actions.contains(&evict(&[1])) && !actions.contains(&down(&[1])), "{actions:?}");
    let back = cluster.tell(Event::Continued { child: child(1) });
    assert_eq!(back.last(), Some(&Action::Release { child: child(0), slot: slot(1), part: Part::Channel }));
    let released = cluster.tell(Event::Released { child: child(0), slot: slot(1), part: Part::Channel });
    assert_eq!(released.last(), Some(&down(&[])));
}

#[test]
fn a_slot_is_down_until_its_stand_in_has_let_go() {
    let mut cluster = behind_proxies(NEXT);
    cluster.tell(killed(0));
    assert!(cluster.wait(AFTER).contains(&read_channel(1, 0)));
    let back = cluster.tell(ready(4));
    assert!(back.contains(&Action::Release { child: child(1), slot: slot(0), part: Part::Channel }), "{back:?}");
    assert!(!back.contains(&down(&[])), "what is sent there goes to another worker: {back:?}");
    let released = cluster.tell(Event::Released { child: child(1), slot: slot(0), part: Part::Channel });
    assert_eq!(released, [read_channel(4, 0), down(&[])]);
}

#[test]
fn what_proxies_forward_is_counted_once() {
    let mut cluster = behind_proxies(NEXT);
    cluster.tell(Event::Terminate);
    for id in 0..4 {
        cluster.tell(drained(id, 10, 1));
    }
    let mut actions = Vec::new();
    for id in 0..4 {
        actions = cluster.tell(killed_or_exited(id));
    }
    assert_eq!(actions.last(), Some(&Action::Finish(Outcome::Clean(report_of(20, 2, 0)))));
}

fn forsake(id: u64) -> Action {
    Action::Forsake { child: child(id) }
}

#[test]
fn workers_cut_nothing_before_proxies_have() {
    let mut cluster = behind_proxies(NEXT);
    cluster.tell(Event::Terminate);
    assert!(!cluster.tell(drained(2, 1, 0)).contains(&forsake(0)));
    assert_eq!(cluster.tell(drained(3, 0, 1)), [forsake(0), forsake(1)]);
    assert_eq!(cluster.tell(killed_or_exited(3)), [], "once");
}

#[test]
fn workers_do_not_wait_for_a_proxy_that_is_dead() {
    let mut cluster = behind_proxies(NEXT);
    cluster.tell(Event::Terminate);
    cluster.tell(drained(2, 1, 0));
    cluster.tell(killed_or_exited(2));
    assert_eq!(cluster.wait(SHUTDOWN + CUT_TIME)[1..], [signal(3, ChildSignal::Kill)], "workers have time after it");
    assert_eq!(cluster.tell(killed(3))[..], [forsake(0), forsake(1)]);
    let late = cluster.wait(CUT_TIME);
    assert!([0, 1].iter().all(|id| late.contains(&signal(*id, ChildSignal::Kill))), "{late:?}");
}

#[test]
fn a_reload_replaces_workers_before_proxies() {
    let mut cluster = behind_proxies(NEXT);
    let begun = cluster.tell(Event::Reload(Scope::All));
    let slots = Fleet { workers: 2, proxies: 2 };
    assert_eq!(begun[1], Action::Note(Note::Reloading { slots }));
    assert_eq!(slots.to_string(), "2 workers and 2 proxies");
    assert!(matches!(begun[2], Action::Spawn { slot, .. } if slot == WorkerId::new(0)));
    assert_eq!(cluster.tell(ready(4))[1..], [Action::Release { child: child(0), slot: slot(0), part: Part::Channel }]);
}

fn killed_or_exited(id: u64) -> Event {
    Event::Exited { child: child(id), how: Ended::Code(0) }
}

fn listens(id: u64, port: u16) -> Event {
    Event::Listens { child: child(id), port }
}

fn ports(ports: &[(u16, usize, u16)]) -> Action {
    let port = |&(at, seat, port)| Port { slot: slot(at), seat, port };
    Action::Ports { ports: ports.iter().map(port).collect() }
}

#[test]
fn proxies_know_where_workers_listen_that_do_so_themselves() {
    let mut cluster = Cluster::with(Policy { moves: true, proxies: 1, ..policy(2, NEXT) });
    for id in 0..3 {
        if id < 2 {
            cluster.tell(listens(id, 8000 + id as u16));
        }
        let actions = cluster.tell(Event::Ready { child: child(id), adopts: id == 2 });
        assert_eq!(actions.contains(&ports(&[(0, 0, 8000), (1, 1, 8001)])), id == 2, "{actions:?}");
    }
    cluster.now += LIFE;
    let died = cluster.tell(killed(0));
    assert_eq!(died[1..], [spawn(3, 0, 1, 0), down(&[0]), ports(&[(1, 1, 8001)])]);
    let actions = cluster.wait(AFTER);
    assert!(actions.contains(&evict(&[0])), "its neighbour serves, though it reads nobody's sockets: {actions:?}");
    cluster.tell(listens(3, 9000));
    let back = cluster.tell(Event::Ready { child: child(3), adopts: false });
    assert_eq!(back.last(), Some(&ports(&[(0, 0, 9000), (1, 1, 8001)])));
}
