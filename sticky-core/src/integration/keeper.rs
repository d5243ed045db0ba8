//! Sessions that stay where they were made, on anybody's header fields: see [`Sessions`].

use std::sync::Arc;

use super::fields::{Field, Fields};
use crate::session::{Cookies, Presented, Sessions};

/// Keeps the sessions of one connection.
pub(crate) struct Keeper {
    sessions: Arc<Sessions>,
    /// Whether the other side is trusted to say how its clients came.
    is_believed: bool,
}

impl Keeper {
    pub(crate) fn new(sessions: Arc<Sessions>, is_believed: bool) -> Self {
        Self { sessions, is_believed }
    }

    /// Takes the sticky cookie out of a request, and notes what its response needs.
    pub(crate) fn request(&self, fields: &mut impl Fields) -> Visit {
        let (presented, cookies) = self.sessions.request(|| fields.values(Field::Cookie));
        match cookies {
            Cookies::Same => {}
            Cookies::Gone => fields.remove(Field::Cookie),
            // Parts of values, put together with blanks and semicolons, are a value.
            Cookies::Others(others) => fields.set(Field::Cookie, &others),
        }
        let is_secure = self.is_believed && came_by_https(fields);
        Visit { sessions: Arc::clone(&self.sessions), presented, is_secure }
    }
}

/// A request whose response is to come.
pub(crate) struct Visit {
    sessions: Arc<Sessions>,
    presented: Presented,
    is_secure: bool,
}

impl Visit {
    /// The same, of a request that another worker has answered.
    #[cfg(feature = "proxy")]
    pub(crate) fn at(mut self, sessions: &Arc<Sessions>) -> Self {
        self.sessions = Arc::clone(sessions);
        self
    }

    /// Adds what the response needs, and learns from what it has.
    pub(crate) fn response(&self, fields: &mut impl Fields) {
        self.sessions.response(fields.values(Field::SetCookie));
        if let Some(cookie) = self.sessions.set_cookie(self.presented, self.is_secure, fields.iter()) {
            fields.add(Field::SetCookie, cookie.as_bytes());
        }
        if let Some(worker) = self.sessions.shown() {
            fields.set(Field::XStickyWorker, worker.to_string().as_bytes());
        }
    }
}

/// Whether the last proxy says that its client came by https.
pub(crate) fn came_by_https(fields: &impl Fields) -> bool {
    let last = |field| fields.values(field).next_back().and_then(|value| std::str::from_utf8(value).ok());
    let entry = |text: &str| text.rsplit(',').next().unwrap_or_default().trim().to_ascii_lowercase();
    let by_proto = last(Field::XForwardedProto).is_some_and(|text| entry(text) == "https");
    let is_https = |pair: &str| matches!(pair.trim(), "proto=https" | "proto=\"https\"");
    by_proto || last(Field::Forwarded).is_some_and(|text| entry(text).split(';').any(is_https))
}
