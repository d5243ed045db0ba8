//! How long a guarded connection may stay as it is.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::exchange::Phase;
use crate::deadline::{Timeouts, later};

/// How long a phase may last.
fn timeout(timeouts: Timeouts, phase: Phase) -> Option<Duration> {
    match phase {
        Phase::Fresh => Some(timeouts.first_byte),
        Phase::Head => Some(timeouts.head),
        // What cannot be framed may have come to its end. What is written to it begins this anew.
        Phase::Idle | Phase::Lost => Some(timeouts.idle),
        Phase::Message | Phase::Tunnel | Phase::Over => None,
    }
}

/// How much later than it should a connection may be found to have been idle for too long: this part of the time it has. To
/// look at the clock for every message would cost more than to parse it.
const SLACK: u32 = 8;

/// Since when a connection waits for its client. It looks at the clock only when something begins, and for messages that
/// follow each other closely not every time.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Since when nothing is under way. What is no message, such as empty lines, does not begin it anew.
    waiting: Option<Instant>,
    /// Since when there is a part of a head, even if that turned out to be none.
    head: Option<Instant>,
    /// Fires no later than there is something to decide. It is set again when it has fired, not for every message.
    sleep: Option<Pin<Box<Sleep>>>,
    /// It fires within that time of when it was set: soon enough, for whom that is little, to look at the clock only then.
    soon: Option<Duration>,
    /// Whom it wakes.
    waker: Option<Waker>,
}

impl Watch {
    /// A message begins: the next wait is another one.
    pub(crate) fn restart(&mut self) {
        self.waiting = None;
        self.head = None;
    }

    /// Ready when `phase` has lasted too long. To be called whenever the connection waits for its client.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, phase: Phase, timeouts: Timeouts) -> Poll<()> {
        let Some(timeout) = timeout(timeouts, phase) else { return Poll::Pending };
        let is_soon = self.soon.is_some_and(|soon| soon <= timeout / SLACK);
        if is_soon && phase != Phase::Head && self.waiting.is_none() {
            if self.is_set_for(cx.waker()) {
                return Poll::Pending;
            }
            self.soon = None;
        }
        let deadline = self.set(phase, timeout);
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        loop {
            let is_over = sleep.as_mut().poll(cx).is_ready();
            self.waker = Some(cx.waker().clone());
            if !is_over {
                return Poll::Pending;
            }
            self.soon = None;
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// Whether the sleep goes on and will wake this one: to poll it again for each message would change nothing.
    fn is_set_for(&self, waker: &Waker) -> bool {
        let is_on = self.sleep.as_ref().is_some_and(|sleep| !sleep.is_elapsed());
        is_on && self.waker.as_ref().is_some_and(|set| set.will_wake(waker))
    }

    /// Sees to it that the sleep ends in time; says until when this phase may last.
    fn set(&mut self, phase: Phase, timeout: Duration) -> Instant {
        let is_head = phase == Phase::Head;
        let since = if is_head { &mut self.head } else { &mut self.waiting };
        let is_new = since.is_none();
        let since = *since.get_or_insert_with(Instant::now);
        let deadline = later(since, timeout);
        let is_soon = is_new && !is_head;
        let wake = if is_soon { later(since, timeout / SLACK) } else { deadline };
        if is_soon {
            self.soon = Some(timeout / SLACK);
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wake)));
        if sleep.deadline() > wake {
            sleep.as_mut().reset(wake);
        }
        deadline
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const TIMEOUTS: Timeouts =
        Timeouts { first_byte: Duration::from_secs(60), head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    async fn waits(watch: &mut Watch, phase: Phase) -> u64 {
        let start = Instant::now();
        poll_fn(|cx| watch.poll(cx, phase, TIMEOUTS)).await;
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_time_and_begins_with_itself() {
        let mut watch = Watch::default();
        assert_eq!(waits(&mut watch, Phase::Fresh).await, 60);
        assert_eq!(waits(&mut watch, Phase::Head).await, 10);
        watch.restart();
        assert_eq!(waits(&mut watch, Phase::Idle).await, 75);
        assert_eq!(waits(&mut watch, Phase::Idle).await, 0);
        watch.restart();
        assert_eq!(waits(&mut watch, Phase::Idle).await, 75);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_message_does_not_begin_the_wait_anew() {
        let mut watch = Watch::default();
        let start = Instant::now();
        loop {
            let phases = [Phase::Idle, Phase::Head];
            let mut late = phases.map(|phase| (phase, false));
            for (phase, late) in &mut late {
                let turn = Duration::from_secs(3);
                *late = tokio::time::timeout(turn, poll_fn(|cx| watch.poll(cx, *phase, TIMEOUTS))).await.is_ok();
            }
            if late.iter().any(|(_, late)| *late) {
                break;
            }
        }
        assert!(start.elapsed() <= Duration::from_secs(20), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_phase_that_is_left_in_time_costs_nothing() {
        let mut watch = Watch::default();
        for _ in 0..100 {
            watch.restart();
            let some =
                tokio::time::timeout(Duration::from_secs(9), poll_fn(|cx| watch.poll(cx, Phase::Head, TIMEOUTS)));
            assert!(some.await.is_err());
        }
        assert_eq!(waits(&mut watch, Phase::Head).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_messages_that_follow_closely_the_wait_is_little_longer() {
        for pause in [0, 1, 5, 9, 10, 30, 74] {
            let mut watch = Watch::default();
            for _ in 0..100 {
                watch.restart();
                let wait = poll_fn(|cx| watch.poll(cx, Phase::Idle, TIMEOUTS));
                assert!(tokio::time::timeout(Duration::from_secs(pause), wait).await.is_err(), "{pause}");
            }
            watch.restart();
            let waited = waits(&mut watch, Phase::Idle).await;
            assert!((75..=75 + 75 / u64::from(SLACK)).contains(&waited), "{waited} after {pause}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn between_messages_that_follow_closely_the_clock_is_not_looked_at() {
        let mut watch = Watch::default();
        for message in 0..10 {
            watch.restart();
            let wait = poll_fn(|cx| watch.poll(cx, Phase::Idle, TIMEOUTS));
            assert!(tokio::time::timeout(Duration::from_millis(500), wait).await.is_err());
            assert_eq!(watch.waiting.is_some(), message == 0, "{message}");
        }
        watch.restart();
        assert_eq!(waits(&mut watch, Phase::Head).await, 10, "a head has its time from its first byte on");
        let mut watch = Watch::default();
        assert_eq!(waits(&mut watch, Phase::Head).await, 10);
        assert_eq!(watch.soon, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_less_time_from_now_on_has_no_more_than_that() {
        let mut watch = Watch::default();
        let wait = poll_fn(|cx| watch.poll(cx, Phase::Idle, TIMEOUTS));
        assert!(tokio::time::timeout(Duration::from_secs(1), wait).await.is_err());
        watch.restart();
        let start = Instant::now();
        let short = Timeouts { idle: Duration::from_secs(2), ..TIMEOUTS };
        poll_fn(|cx| watch.poll(cx, Phase::Idle, short)).await;
        assert_eq!(start.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn another_task_that_waits_is_woken() {
        let mut watch = Watch::default();
        assert!(
            tokio::time::timeout(Duration::from_secs(1), poll_fn(|cx| watch.poll(cx, Phase::Idle, TIMEOUTS)))
                .await
                .is_err()
        );
        watch.restart();
        let other = tokio::spawn(async move { waits(&mut watch, Phase::Idle).await });
        assert!((75..=84).contains(&other.await.unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_executing_takes_as_long_as_it_takes() {
        let mut watch = Watch::default();
        for phase in [Phase::Message, Phase::Tunnel, Phase::Over] {
            let endless =
                tokio::time::timeout(Duration::from_secs(86400), poll_fn(|cx| watch.poll(cx, phase, TIMEOUTS)));
            assert!(endless.await.is_err());
        }
    }
}
