//! A cluster's status for people.

use std::time::Duration;

use sticky_core::admin::{ProcessStatus, SlotStatus, Status};

const HEADS: [&str; 9] = ["SLOT", "STATE", "GENERATION", "PID", "UP", "CONNECTIONS", "REQUESTS", "MEMORY", "RESTARTS"];

/// The status as a line about all and a table with a line for each process.
pub(crate) fn table(status: &Status) -> String {
    let Status { pid, state, dispatch, affinity, reload, leader, .. } = status;
    let up = time(status.uptime_seconds);
    let mut text = format!("{state}, up {up}, pid {pid}, {dispatch} dispatch, affinity {affinity}");
    if let Some(reload) = reload {
        text += &format!(", reloading: {} of {} done", reload.done, reload.of);
    }
    if let Some(leader) = leader {
        text += &format!(", worker {leader} leads");
    }
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(status.slots.iter().flat_map(slot));
    let widths: Vec<usize> =
        (0..HEADS.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default()).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += "\n";
        text += cells.join("  ").trim_end();
    }
    text
}

/// The lines of a slot: one for each process, and one at least.
fn slot(slot: &SlotStatus) -> Vec<[String; HEADS.len()]> {
    let name = format!("{} {}", slot.kind, slot.number);
    let mut state = slot.state.to_string();
    if slot.is_evicted {
        state += ", evicted";
    }
    let Some((first, others)) = slot.processes.split_first() else {
        let nothing = || "-".to_owned();
        let restarts = slot.restarts.to_string();
        return vec![[
            name,
            state,
            nothing(),
            nothing(),
            nothing(),
            nothing(),
            slot.requests.to_string(),
            nothing(),
            restarts,
        ]];
    };
    let mut rows = vec![process(name, state, first, slot.requests, slot.restarts.to_string())];
    rows.extend(
        others
            .iter()
            .map(|other| process(String::new(), other.state.to_string(), other, other.requests, String::new())),
    );
    rows
}

fn process(
    name: String,
    state: String,
    process: &ProcessStatus,
    requests: u64,
    restarts: String,
) -> [String; HEADS.len()] {
    let connections = match process.upgraded {
        0 => process.connections.to_string(),
        upgraded => format!("{} ({upgraded} upgraded)", process.connections),
    };
    [
        name,
        state,
        process.generation.to_string(),
        process.pid.to_string(),
        time(process.uptime_seconds),
        connections,
        requests.to_string(),
        format!("{} MiB", process.memory_bytes >> 20),
        restarts,
    ]
}

/// `3d 4h`, `2m 5s`: the two largest units.
fn time(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units() {
        for (seconds, text) in [
            (0.0, "0s"),
            (59.9, "59s"),
            (125.0, "2m 5s"),
            (7_265.0, "2h 1m"),
            (273_600.0, "3d 4h"),
            (f64::NAN, "0s"),
            (-1.0, "0s"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }

    #[test]
    fn a_status_is_a_line_for_each_process() {
        let text = r#"{"version":"0.1.0","pid":7,"uptime_seconds":125.5,"state":"running","reload":{"done":1,"of":2},
            "dispatch":"handoff","affinity":"client-ip","leader":1,"slots":[
            {"kind":"worker","number":0,"state":"ready","is_evicted":false,"restarts":3,"accepted":9,"requests":1234,"processes":[
              {"pid":31,"generation":2,"state":"ready","uptime_seconds":5.0,"connections":12,"upgraded":3,"requests":9,"memory_bytes":12582912,"loop_lag_seconds":0.001},
              {"pid":30,"generation":1,"state":"draining","uptime_seconds":65.0,"connections":1,"upgraded":0,"requests":1225,"memory_bytes":12582912,"loop_lag_seconds":0.0}]},
            {"kind":"worker","number":1,"state":"drained","is_evicted":true,"restarts":0,"accepted":1,"requests":5,"processes":[]}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        let expected = "\
running, up 2m 5s, pid 7, handoff dispatch, affinity client-ip, reloading: 1 of 2 done, worker 1 leads
SLOT      STATE             GENERATION  PID  UP     CONNECTIONS      REQUESTS  MEMORY  RESTARTS
worker 0  ready             2           31   5s     12 (3 upgraded)  1234      12 MiB  3
          draining          1           30   1m 5s  1                1225      12 MiB
worker 1  drained, evicted  -           -    -      -                5         -       0";
        assert_eq!(table(&status), expected);
    }
}
