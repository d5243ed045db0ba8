//! What happens in a cluster, one line for each thing.

use serde::{Deserialize, Serialize};

/// Something that has happened: what the supervisor also says on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Happening {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What, in one word: `reload_stopped`, for example.
    pub event: String,
    /// Which process it is about, as `worker 2`, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The same as a sentence.
    pub text: String,
}

impl Happening {
    pub(crate) fn new(time_ms: u64, event: &str, who: Option<String>, text: String) -> Self {
        Self { time_ms, event: event.to_owned(), who, text }
    }
}
