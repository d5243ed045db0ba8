//! The decisions, first one by one, then under random orders of events.

use proptest::prelude::*;

use super::super::event::{Ended, Fleet, HowMany, Ticket};
use super::super::recycle::Usage;
use super::readers::RELEASE_TIME;
use super::*;
use crate::admin::Command;
use crate::config::Memory;
use crate::worker::{DrainReason, SAME_SIGNAL};

#[path = "state/attendant_tests.rs"]
mod attendant_tests;
#[path = "state/command_tests.rs"]
mod command_tests;
#[path = "state/leadership_tests.rs"]
mod leadership_tests;
#[path = "state/prepare_tests.rs"]
mod prepare_tests;
#[path = "state/proxy_tests.rs"]
mod proxy_tests;
#[path = "state/recycling_tests.rs"]
mod recycling_tests;
#[path = "state/reexec_tests.rs"]
mod reexec_tests;
#[path = "state/reload_tests.rs"]
mod reload_tests;
#[path = "state/scaling_tests.rs"]
mod scaling_tests;

const LIFE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(2);
const BOOT: Duration = Duration::from_secs(60);
const SHUTDOWN: Duration = Duration::from_secs(25);
const DRAIN: Duration = Duration::from_secs(300);
const EXIT: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(1);

fn policy(workers: u16, failover: Failover) -> Policy {
    Policy {
        workers,
        room: workers,
        proxies: 0,
        boot_timeout: BOOT,
        prepare_timeout: None,
        shutdown_timeout: SHUTDOWN,
        drain_timeout: DRAIN,
        exit_timeout: EXIT,
        reload_parallel: 1,
        reload_soak: Duration::ZERO,
        quota: Quota::default(),
        failover,
        admin: false,
        moves: false,
        seed: 7,
    }
}

/// A state machine with a clock.
struct Cluster {
    state: State,
    now: Instant,
}

impl Cluster {
    fn booting(workers: u16) -> Self {
        Self::with(policy(workers, Failover::Next { after: AFTER }))
    }

    fn with(policy: Policy) -> Self {
        let mut cluster = Self { state: State::new(policy), now: Instant::now() };
        let actions = cluster.tell(Event::Start);
        assert_eq!(actions.len(), cluster.state.in_use().count());
        cluster
    }

    fn running(workers: u16) -> Self {
        let mut cluster = Self::booting(workers);
        cluster.boot();
        cluster
    }

    fn boot(&mut self) {
        for id in 0..self.state.in_use().count() as u64 {
            self.tell(ready(id));
        }
        assert_eq!(self.state.phase, Phase::Running);
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.state.handle(self.now, event)
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.tell(Event::Tick)
    }

    fn deadline(&self) -> Option<Duration> {
        self.state.deadline().map(|at| at.duration_since(self.now))
    }
}

fn child(id: u64) -> ChildId {
    ChildId(id)
}

fn post(id: u16) -> Post {
    Post::Worker(slot(id))
}

fn fleet(workers: usize) -> Fleet {
    Fleet { workers, proxies: 0 }
}

fn slot(id: u16) -> WorkerId {
    WorkerId::new(id)
}

fn ready(id: u64) -> Event {
    Event::Ready { child: child(id), adopts: true }
}

fn killed(id: u64) -> Event {
    Event::Exited { child: child(id), how: Ended::Signal(9) }
}

fn spawn(id: u64, at: u16, generation: u32, seat: usize) -> Action {
    let program = Program::Same;
    Action::Spawn { child: child(id), slot: slot(at), generation: Generation::new(generation), seat, program }
}

fn listen(id: u64, at: u16) -> Action {
    Action::Listen { child: child(id), slot: slot(at), part: Part::Listeners, refuse: false }
}

fn release(id: u64, at: u16) -> Action {
    Action::Release { child: child(id), slot: slot(at), part: Part::Listeners }
}

fn released(id: u64, at: u16) -> Event {
    Event::Released { child: child(id), slot: slot(at), part: Part::Listeners }
}

fn signal(id: u64, signal: ChildSignal) -> Action {
    Action::Signal { child: child(id), signal }
}

fn drained(id: u64, completed: u64, cut: u64) -> Event {
    Event::Drained { child: child(id), report: WorkerReport { completed, cut } }
}

fn report_of(completed: u64, cut: u64, killed: u64) -> Report {
    Report { connections: WorkerReport { completed, cut }, killed }
}

fn drain(id: u64) -> Action {
    Action::Drain { child: child(id), timeout: SHUTDOWN, reason: DrainReason::Shutdown }
}

fn evict(slots: &[u16]) -> Action {
    Action::Evict { slots: slots.iter().copied().map(WorkerId::new).collect() }
}

// === Booting ===

#[test]
fn a_cluster_is_up_when_all_are_ready_and_only_then_serves() {
    let mut cluster = Cluster::booting(2);
    assert_eq!(cluster.deadline(), Some(BOOT));
    assert_eq!(cluster.tell(ready(1)), []);
    assert_eq!(cluster.tell(ready(0)), [Action::Note(Note::Up), listen(0, 0), listen(1, 1)]);
    assert_eq!(cluster.deadline(), None);
    assert_eq!(cluster.tell(ready(0)), []);
}

#[test]
fn first_processes_have_their_slots_and_seats() {
    let mut state = State::new(policy(2, Failover::Wait));
    assert_eq!(State::seats(2), 10);
    assert_eq!(state.handle(Instant::now(), Event::Start), [spawn(0, 0, 0, 0), spawn(1, 1, 0, 1)]);
}

#[test]
fn a_failed_boot_ends_everything_with_the_last_words() {
    let mut cluster = Cluster::booting(2);
    cluster.tell(ready(1));
    cluster.tell(Event::Words { child: child(0), text: "no database".into() });
    let actions = cluster.tell(Event::Exited { child: child(0), how: Ended::Code(3) });
    assert_eq!(actions, [signal(1, ChildSignal::Kill), Action::CloseListeners]);
    assert_eq!(cluster.deadline(), Some(KILL_TIME));
    let [Action::Finish(Outcome::Failed(failure))] = &cluster.tell(killed(1))[..] else { panic!() };
    assert_eq!(failure.to_string(), "worker 0 exited with status 3 before it was ready: no database");
    assert_eq!(cluster.tell(Event::Terminate), []);
}

#[test]
fn a_program_that_cannot_be_started_is_a_failed_boot() {
    let mut cluster = Cluster::booting(1);
    let actions = cluster.tell(Event::SpawnFailed { child: child(0), error: "no memory".into() });
    let [Action::CloseListeners, Action::Finish(Outcome::Failed(failure))] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(failure.to_string(), "worker 0 could not be started: no memory");
}

#[test]
fn a_boot_that_takes_too_long_has_failed() {
    let mut cluster = Cluster::booting(2);
    cluster.tell(ready(0));
    assert_eq!(cluster.wait(BOOT - MOMENT), []);
    let kills = [signal(0, ChildSignal::Kill), signal(1, ChildSignal::Kill), Action::CloseListeners];
    assert_eq!(cluster.wait(MOMENT), kills);
    assert_eq!(cluster.tell(killed(0)), []);
    let [Action::Finish(Outcome::Failed(failure))] = &cluster.tell(killed(1))[..] else { panic!() };
    assert!(failure.to_string().contains("worker 1 was not ready within 60s (boot_timeout"), "{failure}");
}

#[test]
fn who_dies_after_it_was_ready_does_not_fail_the_boot() {
    let mut cluster = Cluster::booting(2);
    cluster.tell(ready(0));
    let [Action::Note(Note::Restarting { .. })] = &cluster.tell(killed(0))[..] else { panic!() };
    assert_eq!(cluster.wait(cluster.deadline().unwrap()), [spawn(2, 0, 1, 0)]);
    cluster.tell(ready(1));
    assert_eq!(cluster.tell(ready(2)), [Action::Note(Note::Up), listen(2, 0), listen(1, 1)]);
}

#[test]
fn a_signal_while_booting_ends_it_cleanly() {
    let mut cluster = Cluster::booting(1);
    let actions = cluster.tell(Event::Terminate);
    assert_eq!(
        actions,
        [
            Action::Note(Note::ShuttingDown { within: SHUTDOWN }),
            Action::Unpublish,
            drain(0),
            signal(0, ChildSignal::Terminate),
            Action::CloseListeners,
        ]
    );
    // It may get ready all the same, and then drains at once.
    assert_eq!(cluster.tell(ready(0)), []);
    assert_eq!(cluster.tell(drained(0, 0, 0)), []);
    let end = cluster.tell(Event::Exited { child: child(0), how: Ended::Code(0) });
    assert_eq!(end, [Action::Finish(Outcome::Clean(Report::default()))]);
}

// === Crashes ===

#[test]
fn a_crash_after_a_long_life_is_repaired_at_once() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    let note = Note::Restarting { who: post(1), why: "was killed by signal 9 (SIGKILL)".into(), after: Duration::ZERO };
    assert_eq!(note.to_string(), "worker 1 was killed by signal 9 (SIGKILL); starting it again");
    assert_eq!(cluster.tell(killed(1)), [Action::Note(note), spawn(2, 1, 1, 1)]);
    assert_eq!(cluster.tell(ready(2)), [listen(2, 1)]);
    assert_eq!(cluster.deadline(), None);
}

#[test]
fn crashes_in_a_row_wait_longer() {
    let mut cluster = Cluster::running(1);
    let mut delays = Vec::new();
    for id in 0..4 {
        let [Action::Note(Note::Restarting { after, .. })] = cluster.tell(killed(id))[..] else { panic!() };
        assert_eq!(cluster.deadline(), Some(after));
        assert_eq!(cluster.wait(after - MOMENT), []);
        assert_eq!(cluster.wait(MOMENT), [spawn(id + 1, 0, id as u32 + 1, 0)]);
        delays.push(after.as_millis());
        cluster.tell(ready(id + 1));
    }
    assert!((7..=10).contains(&delays[0]), "{delays:?}");
    assert!((60..=80).contains(&delays[3]), "{delays:?}");
}

#[test]
fn words_are_told_of_a_process_that_never_was_ready() {
    let mut cluster = Cluster::running(1);
    cluster.now += LIFE;
    cluster.tell(Event::Words { child: child(0), text: "a panic that was caught".into() });
    let [Action::Note(Note::Restarting { why, .. }), _] = &cluster.tell(killed(0))[..] else { panic!() };
    assert_eq!(why, "was killed by signal 9 (SIGKILL)");
    cluster.tell(Event::Words { child: child(1), text: "no database".into() });
    let [Action::Note(Note::Restarting { why, .. })] = &cluster.tell(killed(1))[..] else { panic!() };
    assert_eq!(why, "was killed by signal 9 (SIGKILL) before it was ready: no database");
}

#[test]
fn a_later_generation_that_does_not_boot_is_killed_and_tried_again() {
    let mut cluster = Cluster::running(1);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    let note = Action::Note(Note::BootTimeout { who: post(0), after: BOOT });
    assert_eq!(cluster.wait(BOOT), [note, signal(1, ChildSignal::Kill)]);
    let [Action::Note(Note::Restarting { .. })] = &cluster.tell(killed(1))[..] else { panic!() };
    assert_eq!(cluster.wait(cluster.deadline().unwrap()), [spawn(2, 0, 2, 0)]);
}

#[test]
fn a_spawn_that_fails_later_is_tried_again() {
    let mut cluster = Cluster::running(1);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    let failed = cluster.tell(Event::SpawnFailed { child: child(1), error: "no memory".into() });
    let [Action::Note(Note::Restarting { why, .. })] = &failed[..] else { panic!() };
    assert_eq!(why, "could not be started: no memory");
    assert_eq!(cluster.wait(cluster.deadline().unwrap()), [spawn(2, 0, 2, 0)]);
}

#[test]
fn a_hung_worker_is_dumped_then_killed_then_replaced() {
    let mut cluster = Cluster::running(2);
    let hung = Action::Note(Note::Hung { who: post(0) });
    assert_eq!(cluster.tell(Event::Silent { child: child(0) }), [hung, signal(0, ChildSignal::Abort)]);
    assert_eq!(cluster.tell(Event::Silent { child: child(0) }), []);
    assert!(cluster.wait(AFTER).contains(&release(0, 0)));
    assert_eq!(cluster.wait(RELEASE_TIME), [listen(1, 0)]);
    let overdue = Action::Note(Note::Overdue { who: post(0) });
    assert_eq!(cluster.wait(DUMP_TIME - AFTER - RELEASE_TIME), [overdue, signal(0, ChildSignal::Kill)]);
    let actions = cluster.tell(killed(0));
    assert!(actions.contains(&spawn(2, 0, 1, 0)), "{actions:?}");
}

// === Failover ===

#[test]
fn clients_of_a_slot_that_stays_down_go_to_the_next_and_come_back() {
    let mut cluster = Cluster::running(3);
    cluster.now += LIFE;
    cluster.tell(killed(1));
    assert_eq!(cluster.wait(AFTER - MOMENT), []);
    assert_eq!(cluster.deadline(), Some(MOMENT));
    let evicted = Action::Note(Note::Evicted { who: post(1) });
    assert_eq!(cluster.wait(MOMENT), [evicted, evict(&[1]), listen(2, 1)]);
    assert_eq!(cluster.wait(MOMENT), []);
    let back = Action::Note(Note::Back { who: post(1) });
    assert_eq!(cluster.tell(ready(3)), [back, evict(&[]), release(2, 1)]);
    assert_eq!(cluster.wait(MOMENT), []);
    assert_eq!(cluster.tell(released(2, 1)), [listen(3, 1)]);
}

#[test]
fn who_stands_in_may_die_too() {
    let mut cluster = Cluster::running(3);
    cluster.now += LIFE;
    cluster.tell(killed(1));
    cluster.wait(AFTER);
    let actions = cluster.tell(killed(2));
    assert!(actions.contains(&listen(0, 1)), "{actions:?}");
    // The one that stands in goes on, although a nearer one is back.
    let actions = cluster.tell(ready(4));
    assert_eq!(actions, [listen(4, 2)]);
    // It is asked for the slot and dies before it answers.
    cluster.tell(ready(3));
    let actions = cluster.tell(killed(0));
    assert!(actions.contains(&listen(3, 1)), "{actions:?}");
}

#[test]
fn a_stopped_worker_is_stood_in_for_until_it_goes_on() {
    let mut cluster = Cluster::running(2);
    assert_eq!(cluster.tell(Event::Stopped { child: child(0) }), []);
    assert_eq!(cluster.deadline(), Some(AFTER));
    let evicted = Action::Note(Note::Evicted { who: post(0) });
    assert_eq!(cluster.wait(AFTER), [evicted, evict(&[0]), release(0, 0), listen(1, 0)]);
    let back = Action::Note(Note::Back { who: post(0) });
    assert_eq!(cluster.tell(Event::Continued { child: child(0) }), [back, evict(&[]), release(1, 0)]);
    assert_eq!(cluster.tell(released(1, 0)), [listen(0, 0)]);
    // Its answer to what it was asked while it was stopped comes late and means nothing.
    assert_eq!(cluster.tell(released(0, 0)), []);
    assert_eq!(cluster.state.slots[0].readers[0], Reader::Child(child(0)));
}

#[test]
fn who_is_stopped_while_it_lets_go_is_not_waited_for() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    cluster.wait(AFTER);
    assert!(cluster.tell(ready(2)).contains(&release(1, 0)));
    assert_eq!(cluster.tell(Event::Stopped { child: child(1) }), [listen(2, 0)]);
    assert_eq!(cluster.tell(released(1, 0)), []);
}

#[test]
fn a_short_stop_changes_nothing() {
    let mut cluster = Cluster::running(2);
    cluster.tell(Event::Stopped { child: child(0) });
    assert_eq!(cluster.wait(AFTER - MOMENT), []);
    assert_eq!(cluster.tell(Event::Continued { child: child(0) }), []);
    assert_eq!(cluster.deadline(), None);
    assert_eq!(cluster.wait(AFTER), []);
}

#[test]
fn who_stands_in_and_is_stopped_is_stood_in_for_as_well() {
    let mut cluster = Cluster::running(3);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    cluster.wait(AFTER);
    assert_eq!(cluster.state.slots[0].readers[0], Reader::Child(child(1)));
    assert_eq!(cluster.tell(Event::Stopped { child: child(1) }), [release(1, 0), listen(2, 0)]);
}

#[test]
fn a_stopped_process_that_gets_ready_is_not_up() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    cluster.tell(Event::Stopped { child: child(2) });
    cluster.tell(ready(2));
    cluster.wait(AFTER);
    assert!(cluster.state.slots[0].evicted);
    cluster.tell(Event::Continued { child: child(2) });
    assert!(!cluster.state.slots[0].evicted);
}

#[test]
fn nobody_is_evicted_while_nobody_could_stand_in() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    cluster.tell(killed(1));
    assert_eq!(cluster.wait(AFTER * 2), []);
    let actions = cluster.tell(ready(2));
    let evicted = Action::Note(Note::Evicted { who: post(1) });
    assert_eq!(actions, [evicted, evict(&[1]), listen(2, 0), listen(2, 1)]);
    assert!(!Cluster::running(1).state.slots[0].evicted);
}

#[test]
fn who_cannot_adopt_is_not_asked_to() {
    let mut cluster = Cluster::booting(2);
    cluster.tell(Event::Ready { child: child(0), adopts: true });
    cluster.tell(Event::Ready { child: child(1), adopts: false });
    cluster.now += LIFE;
    cluster.tell(killed(0));
    assert_eq!(cluster.wait(AFTER), []);
    assert_eq!(cluster.tell(ready(2)), [listen(2, 0)]);
}

#[test]
fn waiting_clients_wait_for_ever_if_told_to() {
    let mut cluster = Cluster::with(policy(2, Failover::Wait));
    cluster.boot();
    cluster.now += LIFE;
    cluster.tell(killed(0));
    assert_eq!(cluster.deadline(), Some(BOOT));
    assert_eq!(cluster.wait(BOOT - MOMENT), []);
}

#[test]
fn refused_clients_stay_placed_where_they_belong() {
    let mut cluster = Cluster::with(policy(2, Failover::Refuse { after: AFTER }));
    cluster.boot();
    cluster.now += LIFE;
    cluster.tell(killed(0));
    let evicted = Action::Note(Note::Evicted { who: post(0) });
    let refuse = Action::Listen { child: child(1), slot: slot(0), part: Part::Listeners, refuse: true };
    assert_eq!(cluster.wait(AFTER), [evicted, refuse]);
    let back = Action::Note(Note::Back { who: post(0) });
    assert_eq!(cluster.tell(ready(2)), [back, release(1, 0)]);
    assert_eq!(cluster.tell(released(1, 0)), [listen(2, 0)]);
}

// === The end ===

fn shutting_down(workers: u16) -> Cluster {
    let mut cluster = Cluster::running(workers);
    let actions = cluster.tell(Event::Terminate);
    assert_eq!(actions[..2], [Action::Note(Note::ShuttingDown { within: SHUTDOWN }), Action::Unpublish]);
    cluster
}

#[test]
fn listeners_close_when_all_queues_are_empty_and_the_report_adds_up() {
    let mut cluster = shutting_down(2);
    assert_eq!(cluster.tell(released(0, 0)), []);
    assert_eq!(cluster.tell(released(1, 1)), [Action::CloseListeners]);
    cluster.tell(drained(0, 5, 1));
    assert_eq!(cluster.tell(Event::Exited { child: child(0), how: Ended::Code(0) }), []);
    cluster.tell(drained(1, 2, 0));
    cluster.tell(drained(1, 100, 100));
    let report = report_of(7, 1, 0);
    let end = cluster.tell(Event::Exited { child: child(1), how: Ended::Code(0) });
    assert_eq!(end, [Action::Finish(Outcome::Clean(report))]);
    assert_eq!(report.to_string(), "shut down: 7 connections completed, 1 cut");
}

#[test]
fn a_slot_without_reader_gets_one_that_empties_its_queue() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    let actions = cluster.tell(Event::Terminate);
    let at = |wanted: &Action| actions.iter().position(|action| action == wanted).unwrap();
    assert!(at(&listen(1, 0)) < at(&drain(1)));
    assert!(actions.contains(&signal(2, ChildSignal::Terminate)));
    assert_eq!(cluster.tell(released(1, 1)), []);
    assert_eq!(cluster.tell(released(1, 0)), [Action::CloseListeners]);
}

#[test]
fn a_worker_that_dies_in_a_shutdown_is_not_replaced_but_reported() {
    let mut cluster = shutting_down(2);
    assert_eq!(cluster.tell(released(0, 0)), []);
    assert_eq!(cluster.tell(killed(0)), []);
    assert_eq!(cluster.tell(released(1, 1)), [Action::CloseListeners]);
    cluster.tell(drained(1, 3, 0));
    let report = report_of(3, 0, 1);
    let end = cluster.tell(Event::Exited { child: child(1), how: Ended::Code(0) });
    assert_eq!(end, [Action::Finish(Outcome::Clean(report))]);
    assert_eq!(report.to_string(), "shut down: 3 connections completed, 0 cut, 1 worker killed");
}

#[test]
fn who_does_not_drain_in_time_is_killed() {
    let mut cluster = shutting_down(1);
    assert_eq!(cluster.deadline(), Some(SHUTDOWN + CUT_TIME));
    assert_eq!(cluster.wait(SHUTDOWN + CUT_TIME - MOMENT), []);
    let overdue = Action::Note(Note::Overdue { who: post(0) });
    assert_eq!(cluster.wait(MOMENT), [overdue, signal(0, ChildSignal::Kill)]);
    assert_eq!(cluster.wait(MOMENT), []);
    let report = report_of(0, 0, 1);
    assert_eq!(cluster.tell(killed(0)), [Action::CloseListeners, Action::Finish(Outcome::Clean(report))]);
}

#[test]
fn what_follows_the_drain_has_its_own_time() {
    let mut cluster = shutting_down(1);
    cluster.now += SHUTDOWN;
    cluster.tell(drained(0, 1, 1));
    assert_eq!(cluster.deadline(), Some(EXIT));
    assert_eq!(cluster.wait(EXIT - MOMENT), []);
    let overdue = Action::Note(Note::Overdue { who: post(0) });
    assert_eq!(cluster.wait(MOMENT), [overdue, signal(0, ChildSignal::Kill)]);
    let [Action::CloseListeners, Action::Finish(Outcome::Clean(report))] = cluster.tell(killed(0))[..] else {
        panic!()
    };
    assert_eq!(report, report_of(1, 1, 1));
}

#[test]
fn who_drops_its_own_slot_is_on_its_way_out() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    assert_eq!(cluster.tell(Event::Dropped { child: child(0), slot: slot(0), part: Part::Listeners }), []);
    assert_eq!(cluster.deadline(), Some(AFTER));
    let evicted = Action::Note(Note::Evicted { who: post(0) });
    assert_eq!(cluster.wait(AFTER), [evicted, evict(&[0]), listen(1, 0)]);
    let overdue = Action::Note(Note::Overdue { who: post(0) });
    assert_eq!(cluster.wait(EXIT - AFTER), [overdue, signal(0, ChildSignal::Kill)]);
    assert!(cluster.tell(killed(0)).contains(&spawn(2, 0, 1, 0)));
}

#[test]
fn who_drops_a_neighbours_slot_is_not_asked_again() {
    let mut cluster = Cluster::running(3);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    cluster.wait(AFTER);
    assert_eq!(cluster.tell(Event::Dropped { child: child(1), slot: slot(0), part: Part::Listeners }), [listen(2, 0)]);
    assert_eq!(cluster.state.children[&child(1)].stage, Stage::Ready);
    assert_eq!(cluster.tell(Event::Dropped { child: child(2), slot: slot(0), part: Part::Listeners }), []);
    assert_eq!(cluster.tell(ready(3)), [Action::Note(Note::Back { who: post(0) }), evict(&[]), listen(3, 0)]);
}

#[test]
fn a_neighbour_that_does_not_let_go_is_not_waited_for_long() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    cluster.wait(AFTER);
    assert!(cluster.tell(ready(2)).contains(&release(1, 0)));
    // Nobody else can let go in its place.
    assert_eq!(cluster.tell(released(2, 0)), []);
    assert_eq!(cluster.deadline(), Some(RELEASE_TIME));
    assert_eq!(cluster.wait(RELEASE_TIME - MOMENT), []);
    assert_eq!(cluster.wait(MOMENT), [listen(2, 0)]);
    assert_eq!(cluster.tell(released(1, 0)), []);
    assert_eq!(cluster.deadline(), None);
}

#[test]
fn a_slot_on_its_way_back_is_emptied_by_its_own_process() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    cluster.wait(AFTER);
    cluster.tell(ready(2));
    cluster.tell(Event::Terminate);
    assert_eq!(cluster.tell(released(1, 0)), [listen(2, 0)]);
    assert_eq!(cluster.tell(released(1, 1)), []);
    assert_eq!(cluster.tell(released(2, 0)), [Action::CloseListeners]);
}

#[test]
fn a_queue_whose_reader_dies_in_a_shutdown_is_emptied_by_another() {
    let mut cluster = shutting_down(2);
    assert_eq!(cluster.tell(killed(0)), [listen(1, 0)]);
    assert_eq!(cluster.tell(released(1, 1)), []);
    assert_eq!(cluster.tell(released(1, 0)), [Action::CloseListeners]);
}

#[test]
fn who_stands_in_empties_the_queue_although_the_owner_gets_ready() {
    let mut cluster = Cluster::running(2);
    cluster.now += LIFE;
    cluster.tell(killed(0));
    cluster.wait(AFTER);
    cluster.tell(Event::Terminate);
    assert_eq!(cluster.tell(ready(2)), []);
    assert_eq!(cluster.tell(released(1, 0)), []);
    assert_eq!(cluster.tell(released(1, 1)), [Action::CloseListeners]);
}

#[test]
fn chance_is_spread_from_nothing_to_one() {
    let mut state = State::new(policy(1, Failover::Wait));
    let drawn: Vec<f64> = (0..1000).map(|_| state.draw()).collect();
    assert!(drawn.iter().all(|chance| (0.0..=1.0).contains(chance)));
    let mean = drawn.iter().sum::<f64>() / 1000.0;
    assert!((0.45..0.55).contains(&mean), "{mean}");
    assert!(drawn.iter().any(|chance| *chance < 0.1) && drawn.iter().any(|chance| *chance > 0.9));
}

#[test]
fn a_stopped_worker_goes_on_to_drain() {
    let mut cluster = Cluster::running(1);
    cluster.tell(Event::Stopped { child: child(0) });
    let actions = cluster.tell(Event::Terminate);
    let at = |wanted: &Action| actions.iter().position(|action| action == wanted).unwrap();
    assert!(at(&signal(0, ChildSignal::Continue)) < at(&drain(0)));
}

#[test]
fn a_stopped_worker_is_not_hung() {
    let mut cluster = Cluster::with(policy(2, Failover::Wait));
    cluster.boot();
    cluster.tell(Event::Stopped { child: child(0) });
    assert_eq!(cluster.tell(Event::Silent { child: child(0) }), []);
}

#[test]
fn who_survives_a_kill_is_left_behind() {
    let mut cluster = shutting_down(1);
    cluster.now += SAME_SIGNAL;
    cluster.tell(Event::Terminate);
    assert_eq!(cluster.deadline(), Some(KILL_TIME));
    assert_eq!(cluster.wait(KILL_TIME - MOMENT), []);
    let left = Action::Note(Note::Unkillable { who: post(0) });
    assert_eq!(cluster.wait(MOMENT), [left, Action::Finish(Outcome::Forced)]);
    let mut cluster = shutting_down(1);
    cluster.wait(SHUTDOWN + CUT_TIME);
    assert_eq!(cluster.deadline(), Some(EXIT + KILL_TIME));
    let actions = cluster.wait(EXIT + KILL_TIME);
    assert!(matches!(actions[..], [Action::Note(_), Action::CloseListeners, Action::Finish(Outcome::Clean(_))]));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut cluster = shutting_down(1);
    cluster.now += SAME_SIGNAL - MOMENT;
    assert_eq!(cluster.tell(Event::Terminate), []);
    cluster.now += MOMENT;
    let actions = cluster.tell(Event::Terminate);
    assert_eq!(actions, [Action::Note(Note::StoppingNow), signal(0, ChildSignal::Kill), Action::CloseListeners]);
    assert_eq!(cluster.tell(Event::Terminate), []);
    assert_eq!(cluster.tell(killed(0)), [Action::Finish(Outcome::Forced)]);
}

#[test]
fn a_waiting_restart_is_forgotten_when_all_ends() {
    let mut cluster = Cluster::running(2);
    cluster.tell(killed(0));
    assert!(cluster.deadline().is_some());
    cluster.tell(Event::Terminate);
    assert_eq!(cluster.wait(LIFE), []);
    let mut cluster = Cluster::booting(2);
    cluster.tell(ready(0));
    cluster.tell(killed(0));
    cluster.tell(killed(1));
    assert_eq!(cluster.wait(LIFE), []);
}

// === Where connections move: two parts of a slot ===

fn moving(workers: u16, failover: Failover) -> Cluster {
    let mut cluster = Cluster::with(Policy { moves: true, ..policy(workers, failover) });
    cluster.boot();
    cluster.now += LIFE;
    cluster
}

fn read_channel(id: u64, at: u16) -> Action {
    Action::Listen { child: child(id), slot: slot(at), part: Part::Channel, refuse: false }
}

fn refuse_channel(id: u64, at: u16) -> Action {
    Action::Listen { child: child(id), slot: slot(at), part: Part::Channel, refuse: true }
}

fn release_channel(id: u64, at: u16) -> Action {
    Action::Release { child: child(id), slot: slot(at), part: Part::Channel }
}

fn released_channel(id: u64, at: u16) -> Event {
    Event::Released { child: child(id), slot: slot(at), part: Part::Channel }
}

fn evicted(at: u16) -> Action {
    Action::Note(Note::Evicted { who: post(at) })
}

fn back(at: u16) -> Action {
    Action::Note(Note::Back { who: post(at) })
}

const NEXT: Failover = Failover::Next { after: AFTER };
const REFUSE: Failover = Failover::Refuse { after: AFTER };

#[test]
fn where_connections_move_a_slot_has_a_channel_as_well() {
    let mut cluster = Cluster::with(Policy { moves: true, ..policy(2, NEXT) });
    cluster.tell(ready(0));
    let both = [listen(0, 0), read_channel(0, 0), listen(1, 1), read_channel(1, 1)];
    assert_eq!(cluster.tell(ready(1))[1..], both);
}

#[test]
fn a_dead_slots_listeners_are_read_at_once_and_its_channel_when_it_is_evicted() {
    let mut cluster = moving(3, NEXT);
    assert_eq!(cluster.tell(killed(1))[1..], [spawn(3, 1, 1, 1), listen(2, 1)]);
    assert_eq!(cluster.wait(AFTER - MOMENT), []);
    assert_eq!(cluster.wait(MOMENT), [evicted(1), evict(&[1]), read_channel(2, 1)]);
    assert_eq!(cluster.tell(ready(3)), [back(1), evict(&[]), release(2, 1), release_channel(2, 1)]);
    assert_eq!(cluster.tell(released_channel(2, 1)), [read_channel(3, 1)]);
    assert_eq!(cluster.tell(released(2, 1)), [listen(3, 1)]);
}

#[test]
fn who_is_back_in_time_has_kept_its_channel() {
    let mut cluster = moving(2, NEXT);
    cluster.tell(killed(0));
    assert_eq!(cluster.tell(ready(2)), [release(1, 0), read_channel(2, 0)]);
    assert_eq!(cluster.tell(released(1, 0)), [listen(2, 0)]);
    assert_eq!(cluster.wait(AFTER), []);
}

#[test]
fn a_stopped_workers_listeners_are_read_at_once_and_its_channel_when_it_is_evicted() {
    let mut cluster = moving(2, NEXT);
    assert_eq!(cluster.tell(Event::Stopped { child: child(0) }), [release(0, 0), listen(1, 0)]);
    assert_eq!(cluster.tell(Event::Continued { child: child(0) }), [release(1, 0)]);
    assert_eq!(cluster.tell(released(1, 0)), [listen(0, 0)]);
    cluster.tell(Event::Stopped { child: child(0) });
    assert_eq!(cluster.wait(AFTER), [evicted(0), evict(&[0]), release_channel(0, 0), read_channel(1, 0)]);
}

#[test]
fn who_stands_in_refuses_what_belongs_to_the_slot_and_passes_on_what_comes_in() {
    let mut cluster = moving(3, REFUSE);
    assert_eq!(cluster.tell(killed(0))[2..], [listen(1, 0)]);
    assert_eq!(cluster.wait(AFTER), [evicted(0), refuse_channel(1, 0)]);
    let others = cluster.tell(killed(1));
    let taken = [listen(2, 0), refuse_channel(2, 0), listen(2, 1)];
    assert_eq!(others[2..], taken);
    assert_eq!(cluster.tell(ready(3)), [back(0), release(2, 0), release_channel(2, 0)]);
    // The slot's own process serves it, even while all ends.
    cluster.tell(Event::Terminate);
    assert_eq!(cluster.tell(released_channel(2, 0)), [read_channel(3, 0)]);
}

#[test]
fn what_belongs_to_a_slot_that_is_waited_for_is_not_read_before_the_end() {
    let mut cluster = moving(2, Failover::Wait);
    assert_eq!(cluster.tell(killed(0))[2..], [listen(1, 0)]);
    assert_eq!(cluster.wait(BOOT - MOMENT), []);
}

/// What is lent for the first time when a cluster ends in which slot 0 has just died.
fn lent_at_the_end(policy: Policy) -> Vec<Action> {
    let mut cluster = Cluster::with(policy);
    cluster.boot();
    cluster.now += LIFE;
    cluster.tell(killed(0));
    let actions = cluster.tell(Event::Terminate);
    actions.into_iter().filter(|action| matches!(action, Action::Listen { .. })).collect()
}

#[test]
fn at_the_end_whoever_is_left_serves_what_waits_for_another_slot() {
    for failover in [NEXT, REFUSE, Failover::Wait] {
        assert_eq!(lent_at_the_end(Policy { moves: true, ..policy(2, failover) }), [read_channel(1, 0)]);
        assert_eq!(lent_at_the_end(policy(2, failover)), [listen(1, 0)]);
    }
}

#[test]
fn the_end_waits_for_both_parts_of_every_slot() {
    for last in 0..4 {
        let mut cluster = moving(2, NEXT);
        cluster.tell(Event::Terminate);
        let mut answers = vec![released(0, 0), released_channel(0, 0), released(1, 1), released_channel(1, 1)];
        let last = answers.remove(last);
        for answer in answers {
            assert_eq!(cluster.tell(answer), []);
        }
        assert_eq!(cluster.tell(last), [Action::CloseListeners]);
    }
}

#[test]
fn only_the_part_that_is_not_empty_is_read_by_another_at_the_end() {
    let mut cluster = moving(2, Failover::Wait);
    cluster.tell(Event::Terminate);
    cluster.tell(released(0, 0));
    assert_eq!(cluster.tell(killed(0)), [read_channel(1, 0)]);
    let mut cluster = moving(2, Failover::Wait);
    cluster.tell(Event::Terminate);
    cluster.tell(released_channel(0, 0));
    assert_eq!(cluster.tell(killed(0)), [listen(1, 0)]);
}

#[test]
fn the_end_of_a_boot_waits_for_neither_part() {
    let mut cluster = Cluster::with(Policy { moves: true, ..policy(2, NEXT) });
    let actions = cluster.tell(Event::Terminate);
    assert_eq!(actions.last(), Some(&Action::CloseListeners));
}

#[test]
fn who_drops_its_own_channel_is_asked_for_its_listeners() {
    let mut cluster = moving(2, NEXT);
    let dropped = Event::Dropped { child: child(0), slot: slot(0), part: Part::Channel };
    assert_eq!(cluster.tell(dropped), [release(0, 0)]);
    assert_eq!(cluster.tell(released(0, 0)), [listen(1, 0)]);
    assert_eq!(cluster.wait(AFTER), [evicted(0), evict(&[0]), read_channel(1, 0)]);
}

#[test]
fn who_drops_a_neighbours_channel_is_asked_for_its_listeners() {
    let mut cluster = moving(3, NEXT);
    cluster.tell(killed(0));
    cluster.wait(AFTER);
    let dropped = Event::Dropped { child: child(1), slot: slot(0), part: Part::Channel };
    assert_eq!(cluster.tell(dropped), [release(1, 0), read_channel(2, 0)]);
    assert_eq!(cluster.tell(released(1, 0)), [listen(2, 0)]);
}

// === The bus ===

fn connect(id: u64, other: u64) -> Action {
    Action::Connect { child: child(id), other: child(other) }
}

fn join(id: u64) -> Event {
    Event::BusJoin { child: child(id) }
}

fn joined(id: u64) -> Action {
    Action::BusJoined { child: child(id) }
}

#[test]
fn who_joins_is_connected_with_all_who_have_and_with_each_once() {
    let mut cluster = Cluster::booting(3);
    assert_eq!(cluster.tell(join(1)), [joined(1)]);
    assert_eq!(cluster.tell(join(0)), [connect(0, 1), joined(0)]);
    assert_eq!(cluster.tell(join(0)), [joined(0)], "asked again, answered again");
    cluster.boot();
    cluster.now += LIFE;
    cluster.tell(killed(1));
    assert_eq!(cluster.wait(MOMENT), [], "its next generation has not asked");
    assert_eq!(cluster.tell(join(2)), [connect(2, 0), joined(2)]);
    assert_eq!(cluster.tell(join(3)), [connect(3, 0), connect(3, 2), joined(3)]);
    assert_eq!(cluster.tell(join(1)), [], "it has ended");
}

#[test]
fn the_bus_works_to_the_end() {
    let mut cluster = Cluster::running(2);
    cluster.tell(join(0));
    cluster.tell(Event::Terminate);
    assert_eq!(cluster.tell(join(1)), [connect(1, 0), joined(1)]);
}

// === Any order of events ===

#[derive(Clone, Copy, Debug)]
enum Happening {
    Tick(u32),
    Ready(usize),
    ReadyAlone(usize),
    Answer(usize),
    Join(usize),
    Prepared,
    PreparerEnds,
    Candidate(usize),
    Resign,
    Drained(usize),
    Drop(usize),
    Stop(usize),
    Go(usize),
    Hang(usize),
    Die(usize),
    FailToSpawn(usize),
    Words(usize),
    Used(usize),
    Reload(Option<u16>),
    Ask(Command),
    AttendantGreets,
    AttendantEnds,
    Reexec,
    Proven,
    TrialEnds,
    Scale(HowMany),
    Terminate,
}

fn happening() -> impl Strategy<Value = Happening> {
    let any = 0..16_usize;
    prop_oneof![
        8 => (1..4000_u32).prop_map(Happening::Tick),
        12 => any.clone().prop_map(Happening::Ready),
        1 => any.clone().prop_map(Happening::ReadyAlone),
        8 => any.clone().prop_map(Happening::Answer),
        3 => any.clone().prop_map(Happening::Join),
        3 => any.clone().prop_map(Happening::Candidate),
        3 => Just(Happening::Resign),
        3 => Just(Happening::Prepared),
        3 => Just(Happening::PreparerEnds),
        3 => any.clone().prop_map(Happening::Drained),
        1 => any.clone().prop_map(Happening::Drop),
        2 => any.clone().prop_map(Happening::Stop),
        3 => any.clone().prop_map(Happening::Go),
        1 => any.clone().prop_map(Happening::Hang),
        5 => any.clone().prop_map(Happening::Die),
        1 => any.clone().prop_map(Happening::FailToSpawn),
        1 => any.clone().prop_map(Happening::Words),
        2 => any.prop_map(Happening::Used),
        3 => prop::option::of(0..5_u16).prop_map(Happening::Reload),
        3 => command().prop_map(Happening::Ask),
        1 => Just(Happening::AttendantGreets),
        1 => Just(Happening::AttendantEnds),
        2 => Just(Happening::Reexec),
        5 => Just(Happening::Proven),
        5 => Just(Happening::TrialEnds),
        2 => (0..9_u16).prop_map(|count| Happening::Scale(HowMany::Exactly(count))),
        1 => Just(Happening::Scale(HowMany::OneMore)),
        1 => Just(Happening::Scale(HowMany::OneLess)),
        1 => Just(Happening::Terminate),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let worker = || (0..5_u16).prop_map(WorkerId::new);
    prop_oneof![
        Just(Command::Reload),
        worker().prop_map(|worker| Command::Restart { worker }),
        worker().prop_map(|worker| Command::Drain { worker }),
        (0..9_u16).prop_map(|workers| Command::Scale { workers }),
        Just(Command::Reexec),
    ]
}

/// A part of a slot's sockets.
type Desk = (WorkerId, Part);

/// The world outside, as far as the actions say.
#[derive(Default)]
struct World {
    /// The slots that are no proxies'.
    workers: u16,
    /// Those of them that are placed on.
    count: u16,
    alive: BTreeMap<ChildId, WorkerId>,
    stopped: Vec<ChildId>,
    reads: Vec<(Desk, ChildId)>,
    asked: Vec<(Desk, ChildId, Instant)>,
    /// Asked while they were stopped; they have let go and not said so yet.
    late: Vec<(Desk, ChildId)>,
    evicted: Vec<WorkerId>,
    generations: BTreeMap<WorkerId, Generation>,
    on_bus: Vec<ChildId>,
    connected: Vec<[ChildId; 2]>,
    /// Who prepares what all need.
    preparer: Option<ChildId>,
    /// Who may do what a leader does.
    leader: Option<ChildId>,
    /// Who has been told not to.
    resigning: Option<ChildId>,
    /// Who serves metrics and status.
    attendant: Option<ChildId>,
    /// Who shows whether it could take over.
    trial: Option<ChildId>,
    /// What was asked, and whether that has had its last word.
    tickets: BTreeMap<Ticket, bool>,
    terminated: u32,
    closed: bool,
    finished: bool,
}

impl World {
    fn obey(&mut self, now: Instant, actions: Vec<Action>, slots: u16) {
        for action in actions {
            assert!(!self.finished, "nothing follows the end: {action:?}");
            match action {
                Action::Spawn { child, slot, generation, seat, .. } => {
                    assert!(seat < State::seats(slots), "there is a seat for everybody");
                    self.spawned(child, slot, generation);
                }
                Action::Listen { child, slot, part, refuse } => {
                    self.lent(now, child, (slot, part));
                    assert!(!refuse || self.alive[&child] != slot, "nobody refuses its own clients");
                    let is_worker = |slot: WorkerId| slot.get() < self.workers;
                    assert_eq!(is_worker(slot), is_worker(self.alive[&child]), "proxies and workers have their own");
                }
                Action::Release { child, slot, part } => {
                    let desk = (slot, part);
                    assert!(self.reads.contains(&(desk, child)), "only a reader is asked");
                    self.reads.retain(|read| *read != (desk, child));
                    self.asked.push((desk, child, now));
                }
                Action::Connect { child, other } => {
                    assert!([child, other].iter().all(|id| self.alive.contains_key(id)) && child != other);
                    let pair = [child.min(other), child.max(other)];
                    assert!(!self.connected.contains(&pair), "two processes are connected once");
                    self.connected.push(pair);
                }
                Action::BusJoined { child } => self.joined(child),
                Action::Prepare { child, .. } => {
                    assert_eq!(self.preparer.replace(child), None, "one at a time");
                    assert_eq!(self.terminated, 0, "nothing is prepared after the end has begun");
                }
                Action::Grant { child } => {
                    assert!(self.alive[&child].get() < self.workers && !self.stopped.contains(&child));
                    assert_eq!((self.leader.replace(child), self.resigning), (None, None), "one at a time");
                }
                Action::Revoke { child } => {
                    assert_eq!(self.leader.take(), Some(child));
                    self.resigning = Some(child);
                }
                Action::Attend { child } => {
                    assert_eq!(self.attendant.replace(child), None, "there is one");
                    assert_eq!(self.terminated, 0, "nobody is started after the end has begun");
                }
                Action::Report { ticket, progress } => {
                    let is_over = self.tickets.insert(ticket, progress.is_last()).unwrap_or_default();
                    assert!(!is_over, "nothing follows the last word");
                }
                Action::Try { child } => {
                    assert_eq!(self.trial.replace(child), None, "there is one");
                    assert_eq!(self.terminated, 0, "nobody is started after the end has begun");
                }
                Action::Signal { child, .. } if [self.preparer, self.attendant, self.trial].contains(&Some(child)) => {}
                Action::Signal { child, .. } | Action::Drain { child, .. } => {
                    assert!(self.alive.contains_key(&child), "only the living are told");
                }
                Action::Evict { slots } => {
                    assert!(slots.len() < usize::from(self.workers), "somebody is always placed");
                    assert!(slots.iter().all(|slot| slot.get() < self.count), "the others are out anyway");
                    self.evicted = slots;
                }
                Action::Place { workers } => self.placed_on(workers),
                Action::CloseListeners => self.closed = true,
                Action::Finish(_) => {
                    assert!(self.alive.is_empty() && self.preparer.is_none() && self.closed, "the end comes last");
                    self.finished = true;
                }
                Action::Note(Note::Unkillable { who: Post::Preparation }) => self.preparer = None,
                Action::Note(Note::Unkillable { who: Post::Trial }) => self.trial = None,
                Action::Note(Note::Unkillable { who }) => {
                    let left: Vec<ChildId> = self
                        .alive
                        .iter()
                        .filter(|(_, at)| Post::of(**at, self.workers) == who)
                        .map(|(id, _)| *id)
                        .collect();
                    left.into_iter().for_each(|child| self.bury(child));
                }
                Action::Down { slots } => assert!(slots.iter().all(|slot| slot.get() < self.workers)),
                Action::Forsake { child } => {
                    assert!(self.alive[&child].get() < self.workers, "proxies ask, workers do not")
                }
                Action::Ports { .. } => panic!("nobody listens by itself here"),
                Action::Unpublish | Action::FindProgram | Action::Note(_) => {}
                Action::Keep { child } => assert!(self.alive.contains_key(&child)),
            }
        }
    }

    /// Invariant: nothing is placed on a slot before its own process reads all of its sockets.
    fn placed_on(&mut self, workers: u16) {
        assert!((1..=self.workers).contains(&workers) && workers != self.count);
        assert_eq!(self.terminated, 0, "nothing is placed otherwise after the end has begun");
        for new in (self.count..workers).map(WorkerId::new) {
            let mut readers = self.reads.iter().filter(|((slot, _), _)| *slot == new).peekable();
            assert!(readers.peek().is_some() && readers.all(|(_, reader)| self.alive[reader] == new));
        }
        self.count = workers;
    }

    fn spawned(&mut self, child: ChildId, slot: WorkerId, generation: Generation) {
        assert_eq!(self.terminated, 0, "no process is started after the end has begun");
        let before = self.alive.values().filter(|other| **other == slot).count();
        assert!(before < 2 + MOST_RETIRED, "generations do not pile up");
        let before = self.generations.insert(slot, generation);
        assert_eq!(generation, before.map_or(Generation::FIRST, Generation::next));
        self.alive.insert(child, slot);
    }

    /// Invariant: a slot's sockets have one reader at a time. Who was asked to let go reads until it has answered, but
    /// for one that is stopped, which reads nothing, or one that has not answered for too long.
    fn lent(&mut self, now: Instant, child: ChildId, desk: Desk) {
        assert!(self.alive.contains_key(&child) && !self.closed);
        let asked = self.asked.iter().filter(|(_, _, at)| now < *at + RELEASE_TIME);
        let mut readers = self.reads.iter().copied().chain(asked.map(|(desk, reader, _)| (*desk, *reader)));
        let other = readers.find(|(at, reader)| *at == desk && !self.stopped.contains(reader));
        assert_eq!(other, None, "{desk:?} has a reader");
        self.reads.push((desk, child));
    }

    fn joined(&mut self, child: ChildId) {
        assert!(self.alive.contains_key(&child));
        if !self.on_bus.contains(&child) {
            self.on_bus.push(child);
        }
        for &other in self.on_bus.iter().filter(|other| **other != child) {
            let pair = [child.min(other), child.max(other)];
            assert!(self.connected.contains(&pair), "everybody is connected with everybody");
        }
    }

    fn bury(&mut self, child: ChildId) {
        self.on_bus.retain(|member| *member != child);
        self.leader = self.leader.filter(|leader| *leader != child);
        self.resigning = self.resigning.filter(|leader| *leader != child);
        self.alive.remove(&child);
        self.reads.retain(|(_, reader)| *reader != child);
        self.asked.retain(|(_, reader, _)| *reader != child);
        self.late.retain(|(_, reader)| *reader != child);
        self.stopped.retain(|stopped| *stopped != child);
    }

    fn pick(&self, n: usize) -> Option<ChildId> {
        self.alive.keys().nth(n.checked_rem(self.alive.len())?).copied()
    }

    /// The event, if it can happen in this world.
    fn event(&mut self, happening: Happening) -> Option<Event> {
        Some(match happening {
            Happening::Tick(_) => Event::Tick,
            Happening::Ready(n) => Event::Ready { child: self.pick(n)?, adopts: true },
            Happening::ReadyAlone(n) => Event::Ready { child: self.pick(n)?, adopts: false },
            Happening::Answer(n) => {
                let asked = self.asked.iter().map(|(desk, child, _)| (*desk, *child)).chain(self.late.iter().copied());
                let answers: Vec<_> = asked.filter(|(_, child)| !self.stopped.contains(child)).collect();
                let (desk, child) = *answers.get(n.checked_rem(answers.len())?)?;
                self.asked.retain(|(at, asked, _)| (*at, *asked) != (desk, child));
                self.late.retain(|late| *late != (desk, child));
                let (slot, part) = desk;
                Event::Released { child, slot, part }
            }
            Happening::Join(n) => Event::BusJoin { child: self.pick(n)? },
            Happening::Candidate(n) => {
                let child = self.pick(n)?;
                (self.alive[&child].get() < self.workers).then_some(Event::Candidate { child })?
            }
            Happening::Prepared => Event::Prepared { child: self.preparer? },
            Happening::PreparerEnds => Event::Exited { child: self.preparer.take()?, how: Ended::Code(0) },
            Happening::Resign => Event::Resigned { child: self.resigning.take()? },
            Happening::Drained(n) => Event::Drained { child: self.pick(n)?, report: WorkerReport::default() },
            Happening::Drop(n) => {
                let (desk, child) = *self.reads.get(n.checked_rem(self.reads.len())?)?;
                self.reads.retain(|read| *read != (desk, child));
                let (slot, part) = desk;
                Event::Dropped { child, slot, part }
            }
            Happening::Stop(n) => {
                let child = self.pick(n)?;
                self.stopped.push(child);
                Event::Stopped { child }
            }
            Happening::Go(n) => {
                let child = *self.stopped.get(n.checked_rem(self.stopped.len())?)?;
                self.stopped.retain(|stopped| *stopped != child);
                let (late, asked): (Vec<_>, Vec<_>) = self.asked.iter().partition(|(_, asked, _)| *asked == child);
                self.asked = asked;
                self.late.extend(late.into_iter().map(|(desk, child, _)| (desk, child)));
                Event::Continued { child }
            }
            Happening::Hang(n) => Event::Silent { child: self.pick(n)? },
            Happening::Die(n) => {
                let child = self.pick(n)?;
                self.bury(child);
                Event::Exited { child, how: Ended::Signal(9) }
            }
            Happening::FailToSpawn(n) => {
                let child = self.pick(n)?;
                self.bury(child);
                Event::SpawnFailed { child, error: "no memory".into() }
            }
            Happening::Words(n) => Event::Words { child: self.pick(n)?, text: "words".into() },
            Happening::Used(n) => Event::Used(vec![(self.pick(n)?, Usage { requests: 1000, memory: Memory(0) })]),
            Happening::Reload(slot) => Event::Reload(slot.map_or(Scope::All, |at| Scope::One(WorkerId::new(at)))),
            Happening::Ask(command) => Event::Command { ticket: Ticket(self.tickets.len() as u64), command },
            Happening::AttendantGreets => Event::Ready { child: self.attendant?, adopts: false },
            Happening::AttendantEnds => Event::Exited { child: self.attendant.take()?, how: Ended::Code(1) },
            Happening::Reexec => Event::Reexec,
            Happening::Proven => Event::Proven { child: self.trial? },
            Happening::TrialEnds => Event::Exited { child: self.trial.take()?, how: Ended::Code(0) },
            Happening::Scale(how_many) => Event::Scale(how_many),
            Happening::Terminate => {
                self.terminated += 1;
                Event::Terminate
            }
        })
    }
}

fn failover() -> impl Strategy<Value = Failover> {
    prop_oneof![
        3 => Just(Failover::Next { after: AFTER }),
        1 => Just(Failover::Refuse { after: AFTER }),
        1 => Just(Failover::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_breaks_the_invariants(
        workers in 1..5_u16,
        more in 0..4_u16,
        proxies in 0..3_u16,
        failover in failover(),
        moves in any::<bool>(),
        reload_parallel in 1..3_u16,
        soak in 0..3_u64,
        age in prop::option::of(1..30_u64),
        prepare in prop::option::of(1..30_u64),
        admin in any::<bool>(),
        happenings in prop::collection::vec(happening(), 1..200),
    ) {
        let mut now = Instant::now();
        let reload_soak = Duration::from_secs(soak);
        let moves = moves || proxies > 0;
        let quota = Quota { requests: age.map(|_| 1000), age: age.map(Duration::from_secs), memory: None };
        let prepare_timeout = prepare.map(Duration::from_secs);
        let policy = policy(workers, failover);
        let room = workers + more;
        let policy = Policy { room, proxies, moves, reload_parallel, reload_soak, quota, prepare_timeout, admin, ..policy };
        let mut state = State::new(policy.clone());
        let mut world = World { workers: room, count: workers, ..World::default() };
        let slots = room + proxies;
        world.obey(now, state.handle(now, Event::Start), slots);
        for happening in happenings {
            if let Happening::Tick(ms) = happening {
                now += Duration::from_millis(ms.into());
            }
            let Some(event) = world.event(happening) else { continue };
            let (asked, known) = (matches!(event, Event::Command { .. }), world.tickets.len());
            world.obey(now, state.handle(now, event), slots);
            prop_assert!(!asked || world.tickets.len() == known + 1 || world.finished, "the first word comes at once");
            if state.may_reexec() {
                state = reexec_tests::resumed(&state, policy.clone(), now);
                world.obey(now, state.handle(now, Event::Resumed), slots);
                prop_assert!(!state.may_reexec());
            }
            if state.phase != Phase::Booting && world.terminated == 0 && state.phase == Phase::Running {
                // A slot that nobody is in, and that nobody will be in, would be lost for ever.
                for slot in state.in_use().map(|index| &state.slots[index]) {
                    prop_assert!(slot.current.is_some() || slot.respawn_at.is_some() || slot.drained);
                }
                // And where nothing is placed nobody serves.
                for slot in state.slots.iter().enumerate().filter(|(index, _)| state.is_spare(*index)).map(|(_, slot)| slot) {
                    prop_assert!(slot.current.is_none() && slot.respawn_at.is_none() && !slot.evicted);
                }
                prop_assert_eq!(state.count, world.count);
                // A process that nothing is decided about any more would live for ever.
                for (id, child) in &state.children {
                    let slot = &state.slots[child.slot.index()];
                    let is_former = slot.current != Some(*id) && slot.next != Some(*id);
                    let is_ending = matches!(child.stage, Stage::Superseded | Stage::Parting { .. } | Stage::Retired { .. })
                        || matches!(child.stage, Stage::Leaving { .. } | Stage::Aborting { .. } | Stage::Killed);
                    prop_assert!(!is_former || is_ending, "{child:?}");
                }
            }
            // A deadline that has passed would make the loop spin.
            prop_assert!(state.deadline().is_none_or(|at| at > now), "{state:?}");
        }
        // Whatever has happened, the end can be reached.
        for _ in 0..2 {
            now += SAME_SIGNAL;
            world.terminated += 1;
            world.obey(now, state.handle(now, Event::Terminate), slots);
        }
        if let Some(child) = world.preparer.take() {
            world.obey(now, state.handle(now, Event::Exited { child, how: Ended::Signal(9) }), slots);
        }
        if let Some(child) = world.trial.take() {
            world.obey(now, state.handle(now, Event::Exited { child, how: Ended::Signal(9) }), slots);
        }
        while let Some(child) = world.pick(0) {
            world.bury(child);
            world.obey(now, state.handle(now, Event::Exited { child, how: Ended::Signal(9) }), slots);
        }
        prop_assert!(world.finished);
        prop_assert!(world.tickets.values().all(|is_over| *is_over), "every command has its last word");
    }
}
