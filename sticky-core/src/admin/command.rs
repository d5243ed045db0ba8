//! What a supervisor can be asked to do, and what it says about that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::WorkerId;

/// What a supervisor can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Command {
    /// Replace every process by a new generation of the program that is at its path now, as SIGHUP does.
    Reload,
    /// The same for one worker alone.
    Restart {
        /// Its slot.
        worker: WorkerId,
    },
    /// Let one worker finish what it executes and end, and start no other in its slot until a restart or a reload. Its
    /// clients go to the next worker.
    Drain {
        /// Its slot.
        worker: WorkerId,
    },
    /// Add slots, or take the last ones out, until there are so many, as SIGTTIN and SIGTTOU do by one.
    Scale {
        /// How many: at least 1, at most `max_workers`.
        workers: u16,
    },
    /// Have the supervisor replace itself by the program that is at its path now, as SIGUSR2 does. Workers, sockets and
    /// connections stay as they are.
    Reexec,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload => f.write_str("reload"),
            Self::Restart { worker } => write!(f, "restart {worker}"),
            Self::Drain { worker } => write!(f, "drain {worker}"),
            Self::Scale { workers } => write!(f, "scale {workers}"),
            Self::Reexec => f.write_str("reexec"),
        }
    }
}

/// What becomes of a command, said as it happens. The first word comes at once; one that [is the last](Self::is_last)
/// ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Progress {
    /// Something else is under way; it begins after that.
    Waits,
    /// It has begun.
    Begun,
    /// One process more has been replaced.
    Step {
        /// Which, as `worker 2`.
        who: String,
        /// How many have been so far.
        done: usize,
        /// How many there will be.
        of: usize,
    },
    /// It is done. The last word.
    Done {
        /// What was done, in words.
        text: String,
    },
    /// It was begun and given up, and the cluster goes on as it was. The last word.
    Failed {
        /// Why, in words.
        why: String,
    },
    /// It was not begun. The last word.
    Refused {
        /// Why, in words.
        why: String,
    },
}

impl Progress {
    /// Whether nothing more will be said.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. } | Self::Refused { .. })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits => f.write_str("waits for what is under way"),
            Self::Begun => f.write_str("begun"),
            Self::Step { who, done, of } => write!(f, "{who} is new ({done} of {of})"),
            Self::Done { text } => f.write_str(text),
            Self::Failed { why } | Self::Refused { why } => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden<T: Serialize + for<'de> Deserialize<'de> + PartialEq + fmt::Debug>(value: T, text: &str) {
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
        assert_eq!(serde_json::from_str::<T>(text).unwrap(), value);
    }

    /// Scripts read these.
    #[test]
    fn the_texts_do_not_change() {
        let worker = WorkerId::new(2);
        golden(Command::Reload, r#"{"command":"reload"}"#);
        golden(Command::Restart { worker }, r#"{"command":"restart","worker":2}"#);
        golden(Command::Drain { worker }, r#"{"command":"drain","worker":2}"#);
        golden(Command::Scale { workers: 2 }, r#"{"command":"scale","workers":2}"#);
        golden(Command::Reexec, r#"{"command":"reexec"}"#);
        golden(Progress::Waits, r#"{"progress":"waits"}"#);
        golden(Progress::Begun, r#"{"progress":"begun"}"#);
        let step = Progress::Step { who: "worker 2".into(), done: 1, of: 4 };
        golden(step, r#"{"progress":"step","who":"worker 2","done":1,"of":4}"#);
        golden(Progress::Done { text: "reloaded".into() }, r#"{"progress":"done","text":"reloaded"}"#);
        golden(Progress::Failed { why: "no".into() }, r#"{"progress":"failed","why":"no"}"#);
        golden(Progress::Refused { why: "no".into() }, r#"{"progress":"refused","why":"no"}"#);
    }
}
