//! What supervisor and worker say to each other.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::admin::{Command, Happening, News, Progress};
use crate::id::{Generation, WorkerId};
use crate::worker::DrainReason;

/// The versions of this protocol that this build speaks.
pub(crate) const PROTOCOL: RangeInclusive<u32> = 1..=1;

/// From the supervisor to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToWorker {
    /// The answer to [`Hello`]; carries the scoreboard's descriptor, and the session table's where there is one.
    Welcome(Welcome),
    /// Follows the welcome until all of its channels have come; carries some of them, in the order of their slots.
    Channels,
    /// Follows the welcome and its channels where there are listeners of the application's own; carries one descriptor for each.
    Extras { listeners: Vec<ExtraSocket> },
    /// The hello was not accepted: end with this error.
    Refused { reason: String },
    /// Read this slot's sockets; carries one descriptor for each.
    Listen(ListenOrder),
    /// Stop reading this slot's sockets, then answer [`FromWorker::Released`].
    Release(ReleaseOrder),
    /// These slots are out of the placement now: their clients go to the others.
    Evicted { slots: Vec<WorkerId> },
    /// These slots' processes do not run just now; for proxies, which then use no connection to one of them that they have.
    Down { slots: Vec<WorkerId> },
    /// Where the workers listen that do so themselves, each that serves; for proxies.
    Ports { ports: Vec<Port> },
    /// Take no new work, finish the old.
    Drain(DrainOrder),
    /// In a shutdown: no proxy asks anything any more, so whatever is left at the deadline can be cut. For workers behind
    /// proxies, which cut nothing before.
    Forsaken,
    /// Another process that takes part in the bus; carries a socket to it.
    BusPeer(BusPeerOrder),
    /// The answer to [`FromWorker::BusJoin`], after a [`ToWorker::BusPeer`] for every process that had joined before.
    BusJoined,
    /// The answer to the hello of a process that prepares: do it, then say [`FromWorker::Prepared`] and end.
    Prepare,
    /// The answer to the hello of the admin process; carries the scoreboard's descriptor and those of its listeners.
    Admit(Admission),
    /// What has changed; for the admin process.
    News(News),
    /// Carries one end of a way between the admin process, which is told the same, and this process, which has metrics of
    /// its own.
    Exporter {
        /// The number under which the admin process knows the other.
        process: u64,
    },
    /// Something that the user is told; for the admin process.
    Happened(Happening),
    /// What becomes of the [command](FromWorker::Command) with this number; for the admin process.
    Progress {
        number: u64,
        #[serde(flatten)]
        progress: Progress,
    },
    /// It leads.
    Grant,
    /// Lead no more, then answer [`FromWorker::Resigned`].
    Revoke,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// Who the worker is, and what it must share with the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) protocol: u32,
    pub(crate) worker: WorkerId,
    pub(crate) generation: Generation,
    /// The workers' slots there is room for; how many are in use, the scoreboard says. Those of proxies follow.
    pub(crate) workers: u16,
    /// The row of the scoreboard that this process writes.
    pub(crate) seat: usize,
    /// The seed of the placement.
    pub(crate) seed: u64,
    /// Whether the kernel places connections, so that each can be checked on accept.
    pub(crate) placed: bool,
    /// How many sockets each slot has.
    pub(crate) addresses: usize,
    /// The slots that are out of the placement now.
    #[serde(default)]
    pub(crate) evicted: Vec<WorkerId>,
    /// How many channels follow: one into each slot, or none where connections do not move.
    #[serde(default)]
    pub(crate) channels: u16,
    /// What the sticky cookie is sealed with, where there is one.
    #[serde(default)]
    pub(crate) secret: Vec<u8>,
    /// Whether [`ToWorker::Extras`] follows.
    #[serde(default)]
    pub(crate) extras: bool,
}

/// See [`ToWorker::Extras`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExtraSocket {
    pub(crate) name: String,
    pub(crate) kind: SocketKind,
}

/// See [`ToWorker::Admit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Admission {
    pub(crate) protocol: u32,
    /// When the supervisor was started, in milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// What each of the descriptors after the first is, in their order.
    pub(crate) listeners: Vec<SocketKind>,
}

/// See [`ToWorker::Listen`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenOrder {
    pub(crate) slot: WorkerId,
    #[serde(default)]
    pub(crate) part: Part,
    /// What each of the descriptors is, in their order.
    pub(crate) sockets: Vec<SocketKind>,
    /// Answer 503 to what comes in there, rather than serve it.
    #[serde(default)]
    pub(crate) refuse: bool,
}

/// The sockets of a slot that are lent together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Where clients come in.
    #[default]
    Listeners,
    /// Where other workers send what belongs to the slot.
    Channel,
}

impl Part {
    pub(crate) const ALL: [Self; 2] = [Self::Listeners, Self::Channel];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// What kind of listener a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SocketKind {
    /// A TCP listener of one slot.
    Tcp,
    /// A TCP listener that all slots accept from.
    SharedTcp,
    /// A unix listener that all slots accept from.
    SharedUnix,
    /// A TCP listener that all slots accept from, and that others keep when the cluster ends.
    KeptTcp,
    /// The same, of unix.
    KeptUnix,
    /// The receiving end of the slot's channel.
    Channel,
}

/// Where a worker listens by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) slot: WorkerId,
    /// The row of the scoreboard that its process writes.
    pub(crate) seat: usize,
    /// On the loopback interface.
    pub(crate) port: u16,
}

/// See [`ToWorker::Release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReleaseOrder {
    pub(crate) slot: WorkerId,
    #[serde(default)]
    pub(crate) part: Part,
}

/// See [`ToWorker::Drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainOrder {
    pub(crate) reason: DrainReason,
    /// Milliseconds from now until what is left is cut.
    pub(crate) timeout_ms: u64,
}

/// See [`ToWorker::BusPeer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BusPeerOrder {
    pub(crate) worker: WorkerId,
    pub(crate) generation: Generation,
}

/// From a worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum FromWorker {
    /// The first message.
    Hello(Hello),
    /// The application listens by itself, on this port of the loopback interface. Said before it is ready.
    Listens { port: u16 },
    /// The application can serve.
    Ready {
        /// Whether this worker can read the sockets of a slot that is not running.
        adopts: bool,
    },
    /// The answer to [`ToWorker::Release`], and said of every slot once a drain has emptied its queue.
    Released {
        slot: WorkerId,
        #[serde(default)]
        part: Part,
    },
    /// This slot's sockets were lent to it and it does not read them: nobody asked for them back.
    Dropped {
        slot: WorkerId,
        #[serde(default)]
        part: Part,
    },
    /// It wants to take part in the bus.
    BusJoin,
    /// It wants to lead when it is its turn.
    Candidate,
    /// The answer to [`ToWorker::Revoke`]: nobody in this process does anything as the leader any more.
    Resigned,
    /// It has metrics of its own.
    Exports,
    /// The answer to [`ToWorker::Prepare`].
    Prepared,
    /// Somebody who may do so has asked this of the admin process. Answered by [`ToWorker::Progress`] with its number.
    Command {
        number: u64,
        #[serde(flatten)]
        command: Command,
    },
    /// The drain is over; the process ends soon.
    Drained(WorkerReport),
    /// Why this process is about to fail.
    Words { text: String },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// See [`FromWorker::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The oldest and the newest protocol this worker speaks.
    pub(crate) protocol: (u32, u32),
    /// The version of sticky in the worker.
    pub(crate) version: String,
    /// What all processes of a cluster must agree on, as text.
    pub(crate) fingerprint: String,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerReport {
    /// Connections that ended by themselves.
    pub(crate) completed: u64,
    /// Connections that were open at the deadline and were cut.
    pub(crate) cut: u64,
}

impl fmt::Display for WorkerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { completed, cut } = self;
        let s = if *completed == 1 { "" } else { "s" };
        write!(f, "{completed} connection{s} completed, {cut} cut")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden<T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug>(message: T, text: &str) {
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!(serde_json::from_str::<T>(text).unwrap(), message);
    }

    /// Two versions of a program talk to each other during a deploy: a change here breaks them.
    #[test]
    fn the_texts_to_workers_do_not_change() {
        let slot = WorkerId::new(3);
        let welcome = Welcome {
            protocol: 1,
            worker: slot,
            generation: Generation::new(7),
            workers: 4,
            seat: 5,
            seed: u64::MAX,
            placed: true,
            addresses: 2,
            evicted: vec![slot],
            channels: 4,
            secret: vec![7, 255],
            extras: true,
        };
        golden(
            ToWorker::Welcome(welcome),
            r#"{"type":"welcome","protocol":1,"worker":3,"generation":7,"workers":4,"seat":5,"seed":18446744073709551615,"placed":true,"addresses":2,"evicted":[3],"channels":4,"secret":[7,255],"extras":true}"#,
        );
        let listeners = vec![ExtraSocket { name: "admin".into(), kind: SocketKind::SharedTcp }];
        golden(
            ToWorker::Extras { listeners },
            r#"{"type":"extras","listeners":[{"name":"admin","kind":"shared_tcp"}]}"#,
        );
        golden(ToWorker::Channels, r#"{"type":"channels"}"#);
        golden(ToWorker::Refused { reason: "no".into() }, r#"{"type":"refused","reason":"no"}"#);
        let sockets = vec![SocketKind::Tcp, SocketKind::SharedTcp, SocketKind::SharedUnix, SocketKind::Channel];
        let kept = serde_json::to_string(&[SocketKind::KeptTcp, SocketKind::KeptUnix]).unwrap();
        assert_eq!(kept, r#"["kept_tcp","kept_unix"]"#);
        golden(
            ToWorker::Listen(ListenOrder { slot, part: Part::Channel, sockets, refuse: true }),
            r#"{"type":"listen","slot":3,"part":"channel","sockets":["tcp","shared_tcp","shared_unix","channel"],"refuse":true}"#,
        );
        let part = Part::Listeners;
        golden(ToWorker::Release(ReleaseOrder { slot, part }), r#"{"type":"release","slot":3,"part":"listeners"}"#);
        let ports = vec![Port { slot, seat: 5, port: 8003 }];
        golden(ToWorker::Ports { ports }, r#"{"type":"ports","ports":[{"slot":3,"seat":5,"port":8003}]}"#);
        golden(ToWorker::Down { slots: vec![slot] }, r#"{"type":"down","slots":[3]}"#);
        golden(ToWorker::Forsaken, r#"{"type":"forsaken"}"#);
        golden(ToWorker::Evicted { slots: vec![slot] }, r#"{"type":"evicted","slots":[3]}"#);
        golden(
            ToWorker::Drain(DrainOrder { reason: DrainReason::Shutdown, timeout_ms: 25_000 }),
            r#"{"type":"drain","reason":"shutdown","timeout_ms":25000}"#,
        );
        golden(
            ToWorker::BusPeer(BusPeerOrder { worker: slot, generation: Generation::new(7) }),
            r#"{"type":"bus_peer","worker":3,"generation":7}"#,
        );
        golden(ToWorker::BusJoined, r#"{"type":"bus_joined"}"#);
        golden(ToWorker::Prepare, r#"{"type":"prepare"}"#);
        let listeners = vec![SocketKind::SharedUnix, SocketKind::SharedTcp];
        golden(
            ToWorker::Admit(Admission { protocol: 1, started_ms: 7, listeners }),
            r#"{"type":"admit","protocol":1,"started_ms":7,"listeners":["shared_unix","shared_tcp"]}"#,
        );
        golden(
            ToWorker::Progress { number: 4, progress: Progress::Begun },
            r#"{"type":"progress","number":4,"progress":"begun"}"#,
        );
        golden(ToWorker::Exporter { process: 9 }, r#"{"type":"exporter","process":9}"#);
        golden(ToWorker::Grant, r#"{"type":"grant"}"#);
        golden(ToWorker::Revoke, r#"{"type":"revoke"}"#);
    }

    #[test]
    fn the_texts_from_workers_do_not_change() {
        let hello = Hello { protocol: (1, 2), version: "0.1.0".into(), fingerprint: "affinity=client-ip".into() };
        golden(
            FromWorker::Hello(hello),
            r#"{"type":"hello","protocol":[1,2],"version":"0.1.0","fingerprint":"affinity=client-ip"}"#,
        );
        golden(FromWorker::Listens { port: 8000 }, r#"{"type":"listens","port":8000}"#);
        golden(FromWorker::Ready { adopts: true }, r#"{"type":"ready","adopts":true}"#);
        let (slot, part) = (WorkerId::new(1), Part::Channel);
        golden(FromWorker::Released { slot, part }, r#"{"type":"released","slot":1,"part":"channel"}"#);
        golden(FromWorker::Dropped { slot, part }, r#"{"type":"dropped","slot":1,"part":"channel"}"#);
        golden(
            FromWorker::Drained(WorkerReport { completed: 9, cut: 1 }),
            r#"{"type":"drained","completed":9,"cut":1}"#,
        );
        golden(FromWorker::BusJoin, r#"{"type":"bus_join"}"#);
        golden(FromWorker::Exports, r#"{"type":"exports"}"#);
        golden(FromWorker::Prepared, r#"{"type":"prepared"}"#);
        golden(
            FromWorker::Command { number: 4, command: Command::Restart { worker: slot } },
            r#"{"type":"command","number":4,"command":"restart","worker":1}"#,
        );
        golden(FromWorker::Candidate, r#"{"type":"candidate"}"#);
        golden(FromWorker::Resigned, r#"{"type":"resigned"}"#);
        golden(FromWorker::Words { text: "oh".into() }, r#"{"type":"words","text":"oh"}"#);
    }

    #[test]
    fn later_versions_may_add_messages_and_fields() {
        assert_eq!(serde_json::from_str::<ToWorker>(r#"{"type":"dance","tempo":120}"#).unwrap(), ToWorker::Unknown);
        let more = r#"{"type":"released","slot":1,"colour":"blue"}"#;
        assert_eq!(
            serde_json::from_str::<FromWorker>(more).unwrap(),
            FromWorker::Released { slot: WorkerId::new(1), part: Part::Listeners }
        );
    }
}
