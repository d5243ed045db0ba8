//! Sessions that stay where they were made: what requests say of them, and what responses remember.
//!
//! ```text
//!  request ──► sticky cookie ──► slot            taken out before the application sees it
//!         └──► key ──► session table ──► slot    else the key's hash
//!  response ◄── Set-Cookie: sticky=…             where the request had no valid one for this slot
//!         └──► Set-Cookie: session=… ──► session table, where that is learned
//! ```

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::affinity::ticket::{self, CookieAttributes, Reading, Tickets};
use crate::affinity::{AffinityKey, KeyHasher, cookie_value};
use crate::config::Config;
use crate::dispatch::handoff::RequestHead;
use crate::id::WorkerId;
use crate::placement::SessionTable;
use crate::scoreboard::Headcount;

/// What one worker knows about sessions beyond hashes.
#[derive(Debug)]
pub(crate) struct Sessions {
    own: WorkerId,
    workers: Headcount,
    hasher: KeyHasher,
    cookie: Option<StickyCookie>,
    /// The names of the application's cookies that are learned from responses.
    learned: Vec<String>,
    table: Option<SharedTable>,
    /// The name of this worker, where responses tell it.
    shown: bool,
}

/// The sticky cookie: how it is read, and how it is set.
#[derive(Debug)]
struct StickyCookie {
    tickets: Tickets,
    attributes: CookieAttributes,
    /// None is auto: as secure as the request.
    secure: Option<bool>,
}

/// The session table in memory that all workers share.
#[derive(Debug)]
struct SharedTable {
    memory: Arc<TableMemory>,
    idle_timeout: Duration,
}

#[cfg(cluster)]
pub(crate) type TableMemory = crate::sys::memory::SharedWords;
#[cfg(not(cluster))]
pub(crate) type TableMemory = std::convert::Infallible;

/// What the supervisor gives to all workers alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) secret: Vec<u8>,
    pub(crate) table: Option<Arc<TableMemory>>,
}

/// What a request's sticky cookie was worth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented(Reading);

/// What becomes of a request's cookies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cookies {
    /// They stay as they are: none of them is ours.
    Same,
    /// These are left, in one header's value.
    Others(Vec<u8>),
    /// None is left.
    Gone,
}

impl Sessions {
    pub(crate) fn new(
        own: WorkerId,
        workers: impl Into<Headcount>,
        seed: u64,
        config: &Config,
        shared: Shared,
    ) -> Self {
        let Shared { secret, table } = shared;
        let settings = &config.sticky_cookie;
        let cookie = config.affinity.uses_sticky_cookie().then(|| {
            let previous = settings.previous_secret.as_ref().map(|secret| secret.bytes());
            StickyCookie {
                tickets: Tickets::new(&secret, previous, &settings.name, settings.lifetime),
                attributes: CookieAttributes {
                    name: settings.name.clone(),
                    path: settings.path.clone(),
                    same_site: settings.same_site,
                    secure: false,
                    lifetime: settings.lifetime,
                },
                secure: settings.secure,
            }
        });
        Self {
            own,
            workers: workers.into(),
            hasher: KeyHasher::new(seed),
            cookie,
            learned: config.affinity.learned_cookies().map(str::to_owned).collect(),
            table: table.map(|memory| SharedTable { memory, idle_timeout: config.session_idle_timeout }),
            shown: config.worker_header,
        }
    }

    /// Of a worker without a cluster, in which all sessions are.
    pub(crate) fn none() -> Self {
        Self {
            own: WorkerId::new(0),
            workers: 1.into(),
            hasher: KeyHasher::new(0),
            cookie: None,
            learned: Vec::new(),
            table: None,
            shown: false,
        }
    }

    /// How many entries the table must have; none where nothing is remembered in it.
    pub(crate) fn table_capacity(config: &Config) -> Option<NonZeroUsize> {
        let learns = config.affinity.learned_cookies().next().is_some();
        let capacity = NonZeroUsize::new(config.session_capacity)?;
        (learns || config.placement.remembers()).then_some(capacity)
    }

    /// Whether requests or responses have to be looked at.
    pub(crate) fn are_of_interest(&self) -> bool {
        self.cookie.is_some() || !self.learned.is_empty() || self.shown
    }

    /// Whether a session that is made here will be known as such.
    pub(crate) fn remember_new_ones(&self) -> bool {
        self.cookie.is_some() || !self.learned.is_empty()
    }

    /// Whether clients keep the name of their worker themselves.
    pub(crate) fn use_tickets(&self) -> bool {
        self.cookie.is_some()
    }

    /// Where the sticky cookie of this request says that its client belongs.
    pub(crate) fn ticket(&self, head: &RequestHead<'_>) -> Option<WorkerId> {
        let cookie = self.cookie.as_ref()?;
        let values = ticket::values(&cookie.attributes.name, head.header_lines("cookie"));
        match cookie.tickets.read_first(values, calendar_seconds(), self.workers.now()) {
            Reading::Valid { slot, .. } => Some(slot),
            Reading::Invalid => None,
        }
    }

    // === the table ===

    /// Where this session is, if that is remembered.
    pub(crate) fn find(&self, key: AffinityKey) -> Option<WorkerId> {
        self.with_table(|table, now| table.find(key, now)).flatten()
    }

    /// Remembers that this new session is in `slot`, unless somebody was faster: where it is.
    pub(crate) fn assign(&self, key: AffinityKey, slot: WorkerId) -> WorkerId {
        self.with_table(|table, now| table.assign(key, slot, now)).unwrap_or(slot)
    }

    /// Remembers that this session is in `slot` from now on.
    pub(crate) fn learn(&self, key: AffinityKey, slot: WorkerId) {
        self.with_table(|table, now| table.learn(key, slot, now));
    }

    /// Forgets where this session is.
    pub(crate) fn forget(&self, key: &[u8]) {
        self.with_table(|table, _| table.forget(self.hasher.of_text(key)));
    }

    #[cfg(cluster)]
    fn with_table<T>(&self, use_it: impl FnOnce(&SessionTable<'_>, u64) -> T) -> Option<T> {
        let SharedTable { memory, idle_timeout } = self.table.as_ref()?;
        Some(use_it(&SessionTable::new(memory.words(), *idle_timeout), boot_seconds()))
    }

    #[cfg(not(cluster))]
    fn with_table<T>(&self, _: impl FnOnce(&SessionTable<'_>, u64) -> T) -> Option<T> {
        None
    }

    // === requests and responses ===

    /// Looks at a request's cookies.
    pub(crate) fn request<'a, I>(&self, cookies: impl Fn() -> I) -> (Presented, Cookies)
    where
        I: Iterator<Item = &'a [u8]>,
    {
        let Some(cookie) = &self.cookie else { return (Presented(Reading::Invalid), Cookies::Same) };
        let name = &cookie.attributes.name;
        if ticket::values(name, cookies()).next().is_none() {
            return (Presented(Reading::Invalid), Cookies::Same);
        }
        let stripped = ticket::strip(name, cookies());
        let reading = cookie.tickets.read_first(stripped.values, calendar_seconds(), self.workers.now());
        (Presented(reading), stripped.rest.map_or(Cookies::Gone, Cookies::Others))
    }

    /// The `Set-Cookie` that the response to such a request gets, if it needs one and may have it. `headers` are the
    /// response's own.
    pub(crate) fn set_cookie<'a>(
        &self,
        Presented(reading): Presented,
        is_secure: bool,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Option<String> {
        let cookie = self.cookie.as_ref()?;
        // Whom another worker has made is served here only because that worker is out: it stays here now.
        let is_good = matches!(reading, Reading::Valid { slot, renew: false } if slot == self.own);
        if is_good || ticket::is_publicly_cacheable(headers) {
            return None;
        }
        let attributes = CookieAttributes { secure: cookie.secure.unwrap_or(is_secure), ..cookie.attributes.clone() };
        Some(attributes.set_cookie(&cookie.tickets.issue(self.own, calendar_seconds())))
    }

    /// Learns from the `Set-Cookie` headers of a response which sessions are here.
    pub(crate) fn response<'a>(&self, set_cookies: impl Iterator<Item = &'a [u8]>) {
        if self.learned.is_empty() {
            return;
        }
        for line in set_cookies {
            let pair = line.split(|&byte| byte == b';').next().unwrap_or_default();
            let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { continue };
            let (name, value) = (pair[..equals].trim_ascii(), cookie_value(&pair[equals + 1..]));
            if !value.is_empty() && self.learned.iter().any(|learned| learned.as_bytes() == name) {
                self.learn(self.hasher.of_text(value), self.own);
            }
        }
    }

    /// This worker, where responses tell it.
    pub(crate) fn shown(&self) -> Option<WorkerId> {
        self.shown.then_some(self.own)
    }
}

/// The table's time: the same in every process, never set, and it goes on while the machine sleeps.
#[cfg(cluster)]
pub(crate) fn boot_seconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or_default()
}

/// What the sticky cookie is sealed with: as configured, or drawn.
///
/// # Errors
///
/// When the system has no random numbers to give.
pub(crate) fn secret(config: &Config) -> io::Result<Vec<u8>> {
    match &config.sticky_cookie.secret {
        _ if !config.affinity.uses_sticky_cookie() => Ok(Vec::new()),
        Some(secret) => Ok(secret.bytes().to_vec()),
        None => draw(),
    }
}

#[cfg(unix)]
fn draw() -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut drawn = vec![0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut drawn)?;
    Ok(drawn)
}

/// The standard library draws the keys of its hash tables from the system.
#[cfg(not(unix))]
fn draw() -> io::Result<Vec<u8>> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    Ok((0..4).flat_map(|_| RandomState::new().build_hasher().finish().to_le_bytes()).collect())
}

/// The calendar's time, which tickets carry: they outlive processes.
fn calendar_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{ClusterBuilder, Environment, Machine};
    use crate::dispatch::handoff::HeadParts;

    fn config(settings: &[(&str, &str)]) -> Config {
        let machine = Machine { cpus: NonZeroUsize::MIN };
        let environment = Environment::from_iter(settings.iter().copied());
        ClusterBuilder::default().resolve(&environment, &machine).unwrap()
    }

    /// The sessions of one of four workers under these settings.
    pub(crate) fn sessions(own: u16, settings: &[(&str, &str)]) -> Sessions {
        let shared = Shared { secret: b"a secret of the tests".to_vec(), ..Shared::default() };
        Sessions::new(WorkerId::new(own), 4, 7, &config(settings), shared)
    }

    const STICKY: (&str, &str) = ("STICKY_AFFINITY", "sticky-cookie");

    fn ask(sessions: &Sessions, cookies: &str) -> (Presented, Cookies) {
        sessions.request(|| std::iter::once(cookies.as_bytes()))
    }

    /// The ticket that a first answer brings.
    fn ticket(sessions: &Sessions) -> String {
        let (presented, _) = ask(sessions, "");
        let set = sessions.set_cookie(presented, false, []).expect("a ticket");
        set.split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_new_client_gets_a_ticket_and_an_old_one_does_not() {
        let sessions = sessions(1, &[STICKY]);
        let ticket = ticket(&sessions);
        let (presented, cookies) = ask(&sessions, &format!("a=b; {ticket}; c=d"));
        assert_eq!(cookies, Cookies::Others(b"a=b; c=d".to_vec()));
        assert_eq!(sessions.set_cookie(presented, false, []), None);
        assert_eq!(ask(&sessions, &ticket).1, Cookies::Gone);
        assert_eq!(ask(&sessions, "a=b").1, Cookies::Same);
    }

    #[test]
    fn a_ticket_of_another_worker_or_of_nobody_is_replaced() {
        let (one, other) = (sessions(1, &[STICKY]), sessions(2, &[STICKY]));
        for presented in [ticket(&other), "sticky=forged".to_owned()] {
            let (presented, cookies) = ask(&one, &presented);
            assert_eq!(cookies, Cookies::Gone);
            let set = one.set_cookie(presented, false, []).expect("a new ticket");
            assert!(set.starts_with("sticky=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
        }
    }

    #[test]
    fn cookies_are_as_secure_as_asked_and_kept_out_of_shared_caches() {
        let auto = sessions(0, &[STICKY]);
        let (presented, _) = ask(&auto, "");
        assert!(auto.set_cookie(presented, true, []).unwrap().ends_with("; Secure"));
        assert_eq!(auto.set_cookie(presented, false, [("cache-control", &b"public"[..])]), None);
        let never = sessions(0, &[STICKY, ("STICKY_COOKIE_SECURE", "false")]);
        assert!(!never.set_cookie(presented, true, []).unwrap().contains("Secure"));
        let always = sessions(0, &[STICKY, ("STICKY_COOKIE_SECURE", "true")]);
        assert!(always.set_cookie(presented, false, []).unwrap().contains("Secure"));
    }

    #[test]
    fn without_a_sticky_cookie_cookies_are_left_alone() {
        let sessions = sessions(1, &[]);
        let (presented, cookies) = ask(&sessions, "sticky=x");
        assert_eq!(cookies, Cookies::Same);
        assert_eq!(sessions.set_cookie(presented, false, []), None);
        assert!(!sessions.are_of_interest());
        assert_eq!(sessions.shown(), None);
    }

    #[test]
    fn the_debug_header_is_asked_for() {
        let sessions = sessions(1, &[("STICKY_WORKER_HEADER", "on")]);
        assert!(sessions.are_of_interest());
        assert_eq!(sessions.shown(), Some(WorkerId::new(1)));
    }

    #[test]
    fn every_worker_reads_where_a_ticket_says_that_its_client_belongs() {
        let (one, other) = (sessions(1, &[STICKY]), sessions(2, &[STICKY]));
        let says = |cookie: &str| {
            let parts = HeadParts::new("GET", "/", &[("cookie", cookie.as_bytes())]);
            other.ticket(&parts.head())
        };
        assert_eq!(says(&ticket(&one)), Some(WorkerId::new(1)));
        assert_eq!(says("sticky=forged"), None);
    }

    #[test]
    fn heads_are_looked_at_only_where_something_is_made_of_them() {
        let learned = ("STICKY_AFFINITY", "cookie:session+learn");
        for (setting, uses_tickets) in [(STICKY, true), (learned, false)] {
            let sessions = sessions(1, &[setting]);
            assert!(sessions.are_of_interest() && sessions.remember_new_ones());
            assert_eq!(sessions.use_tickets(), uses_tickets);
        }
        assert!(!sessions(1, &[("STICKY_AFFINITY", "cookie:session")]).remember_new_ones());
    }

    #[test]
    fn there_is_a_table_where_something_is_remembered() {
        let capacity = |settings: &[_]| Sessions::table_capacity(&config(settings)).map(NonZeroUsize::get);
        let (learned, size) = (("STICKY_AFFINITY", "cookie:session+learn"), ("STICKY_SESSION_CAPACITY", "1024"));
        let (handoff, placed) = (("STICKY_DISPATCH", "handoff"), ("STICKY_PLACEMENT", "round-robin"));
        assert_eq!(capacity(&[handoff]), None);
        assert_eq!(capacity(&[handoff, learned, size]), Some(1024));
        assert_eq!(capacity(&[handoff, placed, size]), Some(1024));
    }

    #[test]
    fn a_secret_is_the_one_configured_or_drawn_and_only_where_it_is_used() {
        let text = "0123456789abcdef0123456789abcdef";
        assert!(secret(&config(&[])).unwrap().is_empty());
        assert_eq!(secret(&config(&[STICKY, ("STICKY_COOKIE_SECRET", text)])).unwrap(), text.as_bytes());
        let [one, other] = [(); 2].map(|()| secret(&config(&[STICKY])).unwrap());
        assert!(one.len() == 32 && one != other);
    }

    /// Any machine has been up for longer than two seconds when its tests run.
    #[test]
    fn clocks_go() {
        #[cfg(cluster)]
        assert!(boot_seconds() > 1);
        assert!(calendar_seconds() > 1_700_000_000);
    }

    #[cfg(cluster)]
    #[test]
    fn what_a_response_sets_is_learned() {
        let mut sessions = sessions(3, &[("STICKY_AFFINITY", "cookie:session+learn")]);
        let file = crate::sys::memory::create_sealed("test", SessionTable::words_for(1024)).unwrap();
        let memory = Arc::new(TableMemory::map(&file).unwrap());
        sessions.table = Some(SharedTable { memory, idle_timeout: Duration::from_secs(60) });
        let key = |text: &str| sessions.hasher.of_text(text);
        let lines = ["other=1", "session=a%20b; Path=/", "session=; Max-Age=0", "xsession=c", "session"];
        sessions.response(lines.iter().map(|line| line.as_bytes()));
        assert_eq!(sessions.find(key("a b")), Some(WorkerId::new(3)));
        for unknown in ["1", "", "c", "session"] {
            assert_eq!(sessions.find(key(unknown)), None, "{unknown}");
        }
        sessions.forget(b"a b");
        assert_eq!(sessions.find(key("a b")), None);
    }
}
