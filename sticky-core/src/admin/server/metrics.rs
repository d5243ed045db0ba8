//! The numbers as OpenMetrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::snapshot::{SlotSnapshot, Snapshot};
use crate::admin::{ClusterState, SlotKind, SlotState};
use crate::dispatch::handoff::outcome::Outcome;
use crate::scoreboard::Totals;

/// A snapshot to be encoded, and for how long the supervisor has run, in seconds.
#[derive(Debug)]
struct Shown {
    snapshot: Snapshot,
    uptime: f64,
}

/// The snapshot in the OpenMetrics text format, up to where more could follow: without its end.
pub(super) fn encode(snapshot: Snapshot, uptime: f64) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Shown { snapshot, uptime }));
    let mut text = String::new();
    // Writing into a text does not fail.
    let _ = prometheus_client::encoding::text::encode_registry(&mut text, &registry);
    text
}

type Labels = Vec<(&'static str, String)>;

/// A count of each slot.
type Count = (&'static str, &'static str, fn(&Totals) -> u64);

const COUNTS: [Count; 13] = [
    ("sticky_accepted_connections", "Connections taken from listeners", |t| t.accepted),
    ("sticky_requests", "Requests begun", |t| t.requests),
    ("sticky_adopted_connections", "Connections taken from the listener of a worker that was not running", |t| {
        t.adopted
    }),
    ("sticky_misplaced_connections", "Connections that the kernel gave to another worker than it should: a bug", |t| {
        t.mismatches
    }),
    ("sticky_handoffs_sent", "Connections sent to the worker that owns them", |t| t.handoffs.sent),
    ("sticky_handoffs_received", "Connections received as their owner", |t| t.handoffs.received),
    ("sticky_affinity_hits", "Requests served where their session is", |t| t.affinity.hits(t.requests)),
    ("sticky_affinity_new", "Sessions seen for the first time", |t| t.affinity.new),
    ("sticky_affinity_stale", "Requests whose session had to leave its worker", |t| t.affinity.stale),
    ("sticky_bus_published_messages", "Messages published on the bus", |t| t.bus.published),
    ("sticky_bus_delivered_messages", "Messages given to subscriptions", |t| t.bus.delivered),
    ("sticky_bus_lagged_messages", "Messages that subscriptions dropped because they were not read", |t| t.bus.lagged),
    ("sticky_bus_missed_messages", "Messages that were not sent to a process because it does not read", |t| {
        t.bus.missed
    }),
];

/// A number of each slot that rises and falls.
type Level = (&'static str, &'static str, fn(&SlotSnapshot) -> f64);

const LEVELS: [Level; 7] = [
    ("sticky_open_connections", "Connections open now", |slot| slot.totals.connections_open as f64),
    ("sticky_upgraded_connections", "Open connections that were upgraded, as WebSockets are", |slot| {
        slot.totals.upgraded_open as f64
    }),
    ("sticky_generation", "Which start of the slot its process is", |slot| {
        slot.generation().unwrap_or_default().into()
    }),
    ("sticky_processes", "Processes in the slot, with those that finish old work", |slot| slot.processes.len() as f64),
    ("sticky_evicted", "Whether the slot's clients go to other workers meanwhile", |slot| {
        f64::from(u8::from(slot.view.is_evicted))
    }),
    ("sticky_resident_memory_bytes", "Memory of the slot's processes", |slot| slot.memory() as f64),
    (
        "sticky_event_loop_lag_seconds",
        "By how much the event loop was late when it last looked",
        SlotSnapshot::loop_lag,
    ),
];

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.cluster(&mut encoder)?;
        self.slots(&mut encoder)?;
        for count in &COUNTS {
            self.count(&mut encoder, count)?;
        }
        for level in &LEVELS {
            self.level(&mut encoder, level)?;
        }
        self.outcomes(&mut encoder)
    }
}

impl Shown {
    fn cluster(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let help = "The version of sticky in the supervisor";
        encoder.encode_descriptor("sticky_build", help, None, MetricType::Info)?.encode_info(&version)?;
        let help = "For how long the supervisor has run";
        encoder
            .encode_descriptor("sticky_uptime_seconds", help, None, MetricType::Gauge)?
            .encode_gauge(&self.uptime)?;
        let help = "What the cluster is doing: 1 for that and 0 for everything else";
        let mut states = encoder.encode_descriptor("sticky_cluster_state", help, None, MetricType::Gauge)?;
        for state in ClusterState::ALL {
            let labels = vec![("state", state.to_string())];
            gauge(&mut states, &labels, f64::from(u8::from(self.snapshot.cluster.state == state)))?;
        }
        let (done, of) = self.snapshot.cluster.reload.map_or((0, 0), |reload| (reload.done, reload.of));
        let help = "Slots that the reload under way has still to replace";
        encoder
            .encode_descriptor("sticky_reload_remaining_slots", help, None, MetricType::Gauge)?
            .encode_gauge(&((of - done.min(of)) as f64))
    }

    fn slots(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What the slot is doing: 1 for that and 0 for everything else";
        let mut states = encoder.encode_descriptor("sticky_state", help, None, MetricType::Gauge)?;
        for slot in &self.snapshot.slots {
            for state in SlotState::ALL {
                let labels = with(labels(slot), "state", state.to_string());
                gauge(&mut states, &labels, f64::from(u8::from(slot.view.state == state)))?;
            }
        }
        let help = "How often the slot's process has ended and was started again";
        let mut restarts = encoder.encode_descriptor("sticky_restarts", help, None, MetricType::Counter)?;
        for slot in &self.snapshot.slots {
            counter(&mut restarts, &labels(slot), slot.view.restarts)?;
        }
        Ok(())
    }

    fn count(&self, encoder: &mut DescriptorEncoder<'_>, (name, help, of): &Count) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        self.snapshot.slots.iter().try_for_each(|slot| counter(&mut metric, &labels(slot), of(&slot.totals)))
    }

    fn level(&self, encoder: &mut DescriptorEncoder<'_>, (name, help, of): &Level) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        self.snapshot.slots.iter().try_for_each(|slot| gauge(&mut metric, &labels(slot), of(slot)))
    }

    /// What became of connections that did not simply move, of heads that were refused, and of those that took too long.
    fn outcomes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections and heads of which something else became than an answer where they belong, by what";
        let mut metric = encoder.encode_descriptor("sticky_handoff_outcomes", help, None, MetricType::Counter)?;
        for slot in &self.snapshot.slots {
            for (outcome, name) in Outcome::ALL {
                let labels = with(labels(slot), "outcome", name.to_owned());
                counter(&mut metric, &labels, slot.totals.handoffs.outcomes[outcome.index()])?;
            }
        }
        Ok(())
    }
}

/// `worker="2"` or `proxy="0"`.
fn labels(slot: &SlotSnapshot) -> Labels {
    let kind = match slot.view.kind {
        SlotKind::Worker => "worker",
        SlotKind::Proxy => "proxy",
    };
    vec![(kind, slot.view.number.to_string())]
}

fn with(mut labels: Labels, name: &'static str, value: String) -> Labels {
    labels.push((name, value));
    labels
}

fn counter(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    metric.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn gauge(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: f64) -> fmt::Result {
    metric.encode_family(labels)?.encode_gauge(&value)
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;
    use crate::admin::{SlotView, View};
    use crate::id::WorkerId;
    use crate::scoreboard::AffinityTotals;

    fn encoded() -> String {
        let affinity = AffinityTotals { new: 2, stale: 1 };
        let ended = Totals { requests: 10, affinity, ..Totals::default() };
        let slot = |kind, number| {
            let state = SlotState::Ready;
            SlotView { kind, number, state, is_evicted: false, restarts: 3, ended }
        };
        let slots = [(WorkerId::new(0), slot(SlotKind::Worker, 0)), (WorkerId::new(1), slot(SlotKind::Proxy, 0))];
        let view = View { slots: slots.into_iter().collect(), ..View::default() };
        encode(Snapshot::take(view, |_| None, |_| 0), 1.5)
    }

    /// The table as the documentation shows it.
    fn rendered() -> String {
        let mut table = String::from("| metric | kind | what |\n|---|---|---|\n");
        let text = text::classic(&encoded());
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("# "));
        while let (Some(help), Some(kind)) = (lines.next(), lines.next()) {
            let (name, help) = help.strip_prefix("HELP ").and_then(|line| line.split_once(' ')).unwrap();
            let kind = kind.strip_prefix(&format!("TYPE {name} ")).unwrap();
            table += &format!("| `{name}` | {kind} | {help} |\n");
        }
        table
    }

    /// Dashboards and alerts are made of these names.
    #[test]
    fn the_documentation_shows_every_metric() {
        let shown = include_str!("../metrics.md");
        assert_eq!(shown, format!("\n{}", rendered()), "metrics.md must read:\n\n{}", rendered());
    }

    #[test]
    fn numbers_are_by_worker_and_by_proxy() {
        let text = encoded();
        for line in [
            "sticky_requests_total{worker=\"0\"} 10",
            "sticky_requests_total{proxy=\"0\"} 10",
            "sticky_affinity_hits_total{worker=\"0\"} 7",
            "sticky_restarts_total{worker=\"0\"} 3",
            "sticky_state{worker=\"0\",state=\"ready\"} 1.0",
            "sticky_state{worker=\"0\",state=\"drained\"} 0.0",
            "sticky_cluster_state{state=\"starting\"} 1.0",
            "sticky_handoff_outcomes_total{worker=\"0\",outcome=\"late_heads\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }
}
