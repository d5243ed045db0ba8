//! What a row runs on: a framework's testbed under a dispatch.

use std::fmt;
use std::io;
use std::sync::{PoisonError, RwLock};

use libtest_mimic::Trial;
use sticky_tests::{Launch, Response, namespace};

/// The testbeds there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framework {
    Core,
    Axum,
    Actix,
}

impl Framework {
    const ALL: [Self; 3] = [Self::Core, Self::Axum, Self::Actix];

    const fn program(self) -> &'static str {
        match self {
            Self::Core => env!("CARGO_BIN_EXE_testbed-core"),
            Self::Axum => env!("CARGO_BIN_EXE_testbed-axum"),
            Self::Actix => env!("CARGO_BIN_EXE_testbed-actix"),
        }
    }
}

impl fmt::Display for Framework {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "core",
            Self::Axum => "axum",
            Self::Actix => "actix",
        })
    }
}

/// The dispatches a row runs under.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dispatch {
    Kernel,
    Handoff,
    Proxy,
}

impl Dispatch {
    const ALL: [Self; 3] = [Self::Kernel, Self::Handoff, Self::Proxy];
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Handoff => "handoff",
            Self::Proxy => "proxy",
        })
    }
}

/// A testbed under a dispatch.
#[derive(Clone, Copy)]
pub(crate) struct Bed {
    framework: Framework,
    dispatch: Dispatch,
}

impl Bed {
    /// This framework's testbed under this dispatch.
    ///
    /// One thread per worker, so that `/hang` and `/block` stop the whole event loop on any machine.
    pub(crate) fn launch(&self) -> Launch {
        self.under(Launch::new(self.framework.program()))
    }

    /// This framework's testbed, to be deployed.
    pub(crate) const fn program(&self) -> &'static str {
        self.framework.program()
    }

    /// This framework's testbed in a place of its own, where others can be deployed.
    pub(crate) fn deployed(&self) -> Launch {
        self.launch().copied().env("TESTBED_FRAMEWORK", self.framework.to_string())
    }

    /// The program of many faults, with the one named, served by this framework.
    pub(crate) fn fault(&self, fault: &str) -> Launch {
        let launch = Launch::new(env!("CARGO_BIN_EXE_testbed-fault"));
        self.under(launch).env("TESTBED_FAULT", fault).env("TESTBED_FRAMEWORK", self.framework.to_string())
    }

    /// The dispatch alone, where a row's expectations differ in its details.
    pub(crate) const fn dispatch(&self) -> Dispatch {
        self.dispatch
    }

    /// The same framework under another dispatch, to compare with.
    pub(crate) const fn under_dispatch(mut self, dispatch: Dispatch) -> Self {
        self.dispatch = dispatch;
        self
    }

    /// `launch`, to listen on unix paths too: clients there have no address that the kernel could place them by, so its
    /// dispatch cannot be forced.
    pub(crate) fn on_paths(&self, launch: Launch) -> Launch {
        match self.dispatch {
            Dispatch::Kernel => launch.without("STICKY_DISPATCH"),
            Dispatch::Handoff | Dispatch::Proxy => launch,
        }
    }

    // === what a proxy does otherwise, by its nature: it answers in the worker's place, and it is one process more ===

    /// Checks that a request has got no answer of its worker. A proxy says so.
    pub(crate) fn expect_lost(&self, answer: io::Result<Response>) {
        match answer {
            Ok(answer) if self.is_proxied() && answer.status == 502 => {
                assert_eq!(answer.text(), r#"{"error":"proxy_error","reason":"worker_broke_off"}"#);
            }
            Ok(answer) => panic!("no answer expected: {answer:?}"),
            Err(_) => {}
        }
    }

    /// How many processes a cluster with so many workers has beside its supervisor.
    pub(crate) fn children(&self, workers: usize) -> usize {
        workers + usize::from(self.is_proxied())
    }

    /// Whether requests reach their worker by a proxy.
    pub(crate) fn is_proxied(&self) -> bool {
        self.dispatch == Dispatch::Proxy
    }

    /// Whether a connection is a worker's, who also serves what on it is nobody's, and is counted for it. A proxy gives
    /// such requests to all in turn, and places new sessions by what is executing.
    pub(crate) fn connections_are_a_workers(&self) -> bool {
        !self.is_proxied()
    }

    /// Whether clients keep their connection when their worker's generation changes: theirs moves, or it is another's.
    pub(crate) fn keeps_connections(&self) -> bool {
        self.dispatch != Dispatch::Kernel
    }

    // === what actix does otherwise, by its nature; the documentation of sticky-actix says so ===

    /// Whether responses can have trailers.
    pub(crate) fn has_trailers(&self) -> bool {
        !self.is_actix()
    }

    /// Whether a connection goes on after a request that asks for another protocol and gets an ordinary answer. Where it
    /// does not, the answer says so.
    pub(crate) fn goes_on_after_refused_upgrade(&self) -> bool {
        // What ends then behind a proxy is its own connection.
        !self.is_actix() || self.is_proxied()
    }

    /// Whether requests are served that name no host, or several, or have more than 96 headers. Where they are not, they are
    /// refused as what handoff refuses.
    pub(crate) fn serves_any_host(&self) -> bool {
        !self.is_actix() && !self.is_proxied()
    }

    /// As [`Self::serves_any_host`].
    pub(crate) fn max_headers(&self) -> usize {
        match (self.dispatch, self.framework) {
            // A proxy adds three that say who the client is.
            (Dispatch::Proxy, _) => 97,
            (_, Framework::Actix) => 96,
            _ => 100,
        }
    }

    /// Whether a request for a WebSocket has no body. Where it has one, that is all that follows.
    pub(crate) fn ends_upgrades_at_their_head(&self) -> bool {
        !self.is_actix()
    }

    /// Whether the framework alone ends a connection after the message that says so, in a pipeline too. Where it does not, it
    /// goes by the message that it has read last.
    pub(crate) fn knows_ends_in_pipelines(&self) -> bool {
        !self.is_actix()
    }

    /// Whether the client of a WebSocket that has ended its half gets all that is still to come. Where it may not, that depends
    /// on whether the end is read before the answer is written.
    pub(crate) fn answers_half_closed_sockets(&self) -> bool {
        !self.is_actix()
    }

    fn is_actix(&self) -> bool {
        self.framework == Framework::Actix
    }

    fn under(&self, launch: Launch) -> Launch {
        launch.env("STICKY_THREADS_PER_WORKER", "1").env("STICKY_DISPATCH", self.dispatch.to_string())
    }
}

/// One behaviour, to hold on every bed.
pub(crate) struct Row {
    name: &'static str,
    check: fn(&Bed),
    place: Place,
    company: Company,
    only: &'static [Dispatch],
    only_with: Option<Framework>,
}

#[derive(Clone, Copy)]
enum Place {
    Here,
    OwnNetwork,
}

#[derive(Clone, Copy)]
enum Company {
    Welcome,
    Alone,
}

/// Shared by rows that run together, exclusive for those that must not be disturbed.
static MACHINE: RwLock<()> = RwLock::new(());

impl Row {
    pub(crate) const fn new(name: &'static str, check: fn(&Bed)) -> Self {
        Self { name, check, place: Place::Here, company: Company::Welcome, only: &Dispatch::ALL, only_with: None }
    }

    /// Runs it under this dispatch and no other: it is about something that only this one has.
    pub(crate) const fn only(mut self, dispatch: Dispatch) -> Self {
        self.only = match dispatch {
            Dispatch::Kernel => &[Dispatch::Kernel],
            Dispatch::Handoff => &[Dispatch::Handoff],
            Dispatch::Proxy => &[Dispatch::Proxy],
        };
        self
    }

    /// Runs it where every request is read before it is known whose it is.
    pub(crate) const fn by_request(mut self) -> Self {
        self.only = &[Dispatch::Handoff, Dispatch::Proxy];
        self
    }

    /// Runs it where workers have their clients' connections: it is about what they do with those.
    pub(crate) const fn by_connection(mut self) -> Self {
        self.only = &[Dispatch::Kernel, Dispatch::Handoff];
        self
    }

    /// Runs it with this framework and no other: it is about something that only this one has.
    pub(crate) const fn only_with(mut self, framework: Framework) -> Self {
        self.only_with = Some(framework);
        self
    }

    /// Runs it in a network namespace in which all of `fd00::/16` is local.
    pub(crate) const fn in_own_network(mut self) -> Self {
        self.place = Place::OwnNetwork;
        self
    }

    /// Runs it while no other row does, because it measures time.
    pub(crate) const fn alone(mut self) -> Self {
        self.company = Company::Alone;
        self
    }

    /// This row on every bed.
    pub(crate) fn trials(self) -> Vec<Trial> {
        let beds =
            Framework::ALL.into_iter().flat_map(|framework| Dispatch::ALL.map(|dispatch| Bed { framework, dispatch }));
        let is_meant =
            |bed: &Bed| self.only.contains(&bed.dispatch) && self.only_with.is_none_or(|only| only == bed.framework);
        beds.filter(is_meant).map(|bed| self.trial(bed)).collect()
    }

    fn trial(&self, bed: Bed) -> Trial {
        let name = format!("{}/{}/{}", self.name, bed.framework, bed.dispatch);
        let (check, place, company, row) = (self.check, self.place, self.company, name.clone());
        Trial::test(name, move || {
            let guards = match company {
                Company::Welcome => (Some(MACHINE.read().unwrap_or_else(PoisonError::into_inner)), None),
                Company::Alone => (None, Some(MACHINE.write().unwrap_or_else(PoisonError::into_inner))),
            };
            match place {
                Place::OwnNetwork if !namespace::is_inside() => namespace::run_inside(&row),
                _ => check(&bed),
            }
            drop(guards);
            Ok(())
        })
    }
}
