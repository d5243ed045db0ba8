//! Sessions in a worker's memory, as the plainest of stores keeps them, and what requests and responses say of them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Testbed;

/// The request header that names one header of the response: `x-set: cache-control: public`.
pub const SET: &str = "x-set";

impl Testbed {
    /// A new session in this worker's memory, with an id that is drawn: the id and the header that sets its cookie.
    ///
    /// # Panics
    /// Never: the cookie is plain text.
    pub fn login(&self) -> (String, HeaderValue) {
        self.remember(random_id())
    }

    /// A new session whose id belongs to this worker.
    ///
    /// # Panics
    /// Never: the cookie is plain text.
    pub fn own_login(&self) -> (String, HeaderValue) {
        self.remember(self.worker.own_key(random_id))
    }

    /// Ends the request's session; the cluster forgets it too.
    pub fn logout(&self, request: &HeaderMap) -> String {
        let session = self.session(request).unwrap_or_default();
        self.sessions().remove(&session);
        self.worker.forget_session(&session);
        session
    }

    /// The request's session, if it names one that this worker made.
    pub fn session(&self, request: &HeaderMap) -> Option<String> {
        let cookies = request.get(header::COOKIE)?.to_str().ok()?;
        let named = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("session="))?;
        self.sessions().get(named).cloned()
    }

    /// Which worker this key belongs to, as this one sees it.
    pub fn owner(&self, key: &str) -> String {
        self.worker.owner_of(key).to_string()
    }

    fn remember(&self, session: String) -> (String, HeaderValue) {
        let cookie = HeaderValue::from_str(&format!("session={session}; Path=/; HttpOnly")).expect("plain text");
        self.sessions().insert(session.clone());
        (session, cookie)
    }

    fn sessions(&self) -> MutexGuard<'_, std::collections::HashSet<String>> {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Other ids in every process and every time, also where the suite's own choices are repeated.
fn random_id() -> String {
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

/// The request's cookies as the application sees them, one line for each header.
pub fn cookies(request: &HeaderMap) -> Bytes {
    let lines: Vec<&[u8]> = request.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    Bytes::from(lines.join(&b'\n'))
}

/// The headers that a request wants its response to have; what is none is left out.
pub fn headers_asked_for(request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let asked = request.get_all(SET).iter().filter_map(|asked| asked.to_str().ok()?.split_once(':'));
    asked.filter_map(|(name, value)| Some((name.trim().parse().ok()?, value.trim().parse().ok()?))).collect()
}
