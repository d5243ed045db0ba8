//! What one worker does for all: which of them that is just now.
//!
//! ```text
//! candidate ── Grant ──► leads ── Revoke ──► lets go of what it holds ── Resigned ──► candidate
//! ```
//!
//! The supervisor grants the leadership again only when who had it has said that it does nothing in its name any more, or
//! is dead.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::control::FromWorker;

/// The leadership of the cluster, for what must be done by one worker at a time: a scheduled job, a queue's consumer.
///
/// Whoever has called [`Worker::leadership`](crate::Worker::leadership) is a candidate. One of them leads: a worker that is ready
/// and does not drain. It leads until it drains or has ended. In a reload the next leader is granted it when the former one has
/// dropped its [`Tenure`]s, or has ended; until then nobody leads.
///
/// ```
/// # async fn lead(worker: sticky_core::Worker) {
/// let leadership = worker.leadership();
/// loop {
///     let tenure = leadership.granted().await;
///     tokio::select! {
///         () = tenure.revoked() => {} // another worker goes on, as soon as this tenure has been dropped
///         () = do_what_one_worker_does() => {}
///     }
/// #   break;
/// }
/// # }
/// # async fn do_what_one_worker_does() {}
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(lead(sticky_core::Worker::detached()));
/// ```
///
/// A worker that is stopped (SIGSTOP) goes on leading: nobody can tell what it was about to do. One that hangs leads until
/// `heartbeat_timeout` has ended it. Without a cluster this process leads until it drains.
#[derive(Clone)]
pub struct Leadership {
    office: Arc<Office>,
}

impl Leadership {
    /// Waits until this worker leads; at once if it does. As long as the answer is held, no other worker leads.
    pub async fn granted(&self) -> Tenure {
        let mut holding = self.office.holding.subscribe();
        loop {
            holding.borrow_and_update();
            if let Some(tenure) = self.try_granted() {
                return tenure;
            }
            if holding.changed().await.is_err() {
                // Unreachable: the office lives as long as this handle.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The same for who does not want to wait: nothing while another worker leads, or nobody.
    pub fn try_granted(&self) -> Option<Tenure> {
        let mut leads = false;
        self.office.holding.send_if_modified(|holding| {
            leads = holding.leads;
            holding.tenures += usize::from(leads);
            // Nobody waits for that.
            false
        });
        leads.then(|| Tenure { office: Arc::clone(&self.office) })
    }

    /// Whether this worker leads. By the time this is known that may be over: what must not be done by two needs
    /// [`granted`](Self::granted).
    pub fn is_leader(&self) -> bool {
        self.office.holding.borrow().leads
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("is_leader", &self.is_leader()).finish()
    }
}

/// That this worker leads: no other one does before this has been dropped. Drop it soon when it is
/// [revoked](Self::revoked), for nobody leads meanwhile.
#[must_use = "no other worker leads before this is dropped"]
pub struct Tenure {
    office: Arc<Office>,
}

impl Tenure {
    /// Waits until another worker is to lead; at once if that is so.
    pub async fn revoked(&self) {
        let mut holding = self.office.holding.subscribe();
        if holding.wait_for(|holding| !holding.leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether another worker is to lead.
    pub fn is_revoked(&self) -> bool {
        !self.office.holding.borrow().leads
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        let mut is_last = false;
        self.office.holding.send_if_modified(|holding| {
            holding.tenures -= 1;
            is_last = holding.is_over();
            false
        });
        if is_last {
            self.office.resign();
        }
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenure").field("is_revoked", &self.is_revoked()).finish()
    }
}

/// What this process has of the leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holding {
    leads: bool,
    /// How many in this process hold on to it.
    tenures: usize,
}

impl Holding {
    fn is_over(self) -> bool {
        !self.leads && self.tenures == 0
    }
}

type Say = Box<dyn Fn(FromWorker) + Send + Sync>;

/// Where the supervisor's word about it arrives.
pub(crate) struct Office {
    holding: watch::Sender<Holding>,
    say: Say,
    candidacy: std::sync::Once,
}

impl Office {
    pub(crate) fn new(say: Say) -> Arc<Self> {
        Arc::new(Self { holding: watch::Sender::default(), say, candidacy: std::sync::Once::new() })
    }

    /// The only process there is, which leads.
    pub(crate) fn alone() -> Arc<Self> {
        let office = Self::new(Box::new(drop));
        office.grant();
        office
    }

    /// Makes this process a candidate, if it is not one already.
    pub(super) fn stand(self: &Arc<Self>) -> Leadership {
        self.candidacy.call_once(|| (self.say)(FromWorker::Candidate));
        Leadership { office: Arc::clone(self) }
    }

    /// This process leads.
    pub(crate) fn grant(&self) {
        self.holding.send_modify(|holding| holding.leads = true);
    }

    /// It does so no more, and says so as soon as nobody in it holds on to that.
    pub(crate) fn revoke(&self) {
        let mut is_over = false;
        self.holding.send_modify(|holding| {
            holding.leads = false;
            is_over = holding.is_over();
        });
        if is_over {
            self.resign();
        }
    }

    fn resign(&self) {
        (self.say)(FromWorker::Resigned);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// An office, and what it has said.
    fn office() -> (Arc<Office>, Arc<Mutex<Vec<FromWorker>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&said);
        (Office::new(Box::new(move |message| hears.lock().unwrap().push(message))), said)
    }

    #[tokio::test]
    async fn candidates_say_so_once_and_lead_when_they_are_told() {
        let (office, said) = office();
        let leadership = office.stand();
        assert!(!office.stand().is_leader() && leadership.try_granted().is_none());
        assert_eq!(*said.lock().unwrap(), [FromWorker::Candidate]);
        let waiting = tokio::spawn({
            let leadership = leadership.clone();
            async move { leadership.granted().await }
        });
        office.grant();
        assert!(!waiting.await.unwrap().is_revoked());
        assert!(leadership.is_leader());
    }

    #[tokio::test]
    async fn who_holds_on_has_not_resigned() {
        let (office, said) = office();
        let leadership = office.stand();
        office.grant();
        let (first, second) = (leadership.granted().await, leadership.granted().await);
        drop(leadership.granted().await);
        office.revoke();
        first.revoked().await;
        assert!(second.is_revoked() && !leadership.is_leader() && leadership.try_granted().is_none());
        drop(first);
        assert_eq!(*said.lock().unwrap(), [FromWorker::Candidate]);
        drop(second);
        assert_eq!(*said.lock().unwrap(), [FromWorker::Candidate, FromWorker::Resigned]);
        // It can come back.
        office.grant();
        drop(leadership.granted().await);
        assert_eq!(said.lock().unwrap().len(), 2, "what is dropped while it leads says nothing");
    }

    #[test]
    fn who_holds_nothing_resigns_at_once() {
        let (office, said) = office();
        let _leadership = office.stand();
        office.grant();
        office.revoke();
        assert_eq!(*said.lock().unwrap(), [FromWorker::Candidate, FromWorker::Resigned]);
    }

    #[tokio::test]
    async fn alone_it_leads() {
        let office = Office::alone();
        let tenure = office.stand().granted().await;
        office.revoke();
        tenure.revoked().await;
    }
}
