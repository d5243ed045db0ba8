//! Drives one connection to its end: hyper does the work, this minds the timers and the drain.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use hyper_util::server::graceful::GracefulConnection;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::Activity;
use super::timers::{Clock, Phase, Stage};
use crate::deadline::Timeouts;
use crate::worker::{DrainReason, News};

/// Serves `connection` until it has ended. To be spawned as a task of its own.
pub(crate) async fn drive<C: GracefulConnection>(
    connection: Pin<Box<C>>,
    activity: &Activity,
    timeouts: Timeouts,
) -> Result<(), C::Error> {
    let now = Instant::now();
    let reached = |least| unconstrained(activity.drain().reached(least));
    let replaced = pin!(reached(DrainReason::Replaced));
    let clock = Clock::new(timeouts, now);
    let mut driver = Driver {
        connection,
        activity,
        news: News::new(activity.drain(), replaced, reached),
        stage: Stage::Open,
        sleep: pin!(sleep_until(clock.next_look(Stage::Open, now).unwrap_or(now))),
        clock,
    };
    poll_fn(|cx| driver.poll(cx)).await
}

struct Driver<'a, C, D, R> {
    connection: Pin<Box<C>>,
    activity: &'a Activity,
    news: News<'a, D, R>,
    stage: Stage,
    /// Fires no later than there is something to decide. It is set again when it has fired, not on every request.
    sleep: Pin<&'a mut Sleep>,
    clock: Clock,
}

impl<C: GracefulConnection, D: Future<Output = ()>, R: Fn(DrainReason) -> D> Driver<'_, C, D, R> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        loop {
            // First: what has already come in decides what the timers and the drain find.
            if let Poll::Ready(result) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            self.clock.observe(self.activity.sight(), Instant::now);
            if self.news.poll(cx) {
                continue;
            }
            if self.must_close() {
                self.close();
                continue;
            }
            ready!(self.poll_late(cx));
            if self.end().is_break() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether the drain asks this connection to close now. One whose request is still coming is left alone: its
    /// response will announce the end.
    fn must_close(&mut self) -> bool {
        if self.stage == Stage::Open && self.activity.drain().is_started() {
            if self.activity.drain().is_inherited() {
                return self.must_part();
            }
            self.stage = Stage::Draining;
        }
        if self.stage == Stage::Open && self.activity.is_elsewhere() {
            return self.must_part();
        }
        self.stage == Stage::Draining
            && matches!(self.clock.phase(), Phase::Idle | Phase::Executing)
            && !self.activity.is_passing()
    }

    /// Another process goes on with this client. If the connection cannot go there by itself, the client is to make
    /// another. Over HTTP/1.1 only a response can say so, and until the next one there is no hurry: to close before could
    /// lose a request. HTTP/2 can say so at any time.
    fn must_part(&self) -> bool {
        let is_served = matches!(self.clock.phase(), Phase::Idle | Phase::Executing);
        self.activity.is_last() && self.activity.is_http2() && is_served
    }

    /// Lets hyper finish what is executing, announce the end of it, and close.
    fn close(&mut self) {
        self.connection.as_mut().graceful_shutdown();
        self.stage = Stage::Closing;
        self.clock.restart(Instant::now());
    }

    /// Ready when the present phase has lasted too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.clock.deadline(self.stage);
        if deadline.is_none() && self.clock.next_look(self.stage, self.sleep.deadline()).is_none() {
            // Nobody looks: not even a timer is set.
            return Poll::Pending;
        }
        if let Some(deadline) = deadline.filter(|deadline| *deadline < self.sleep.deadline()) {
            self.sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(());
            }
            let Some(next) = self.clock.next_look(self.stage, now) else { return Poll::Pending };
            self.sleep.as_mut().reset(next);
        }
    }

    /// The time is up: asks hyper to end the connection, or breaks off where that has been tried.
    fn end(&mut self) -> ControlFlow<()> {
        match self.clock.phase() {
            Phase::Head if !self.activity.is_late() => self.activity.be_late(),
            Phase::Idle if self.stage == Stage::Open => self.close(),
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}
