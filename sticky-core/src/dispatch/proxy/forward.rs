//! One request, from the client to its worker and back.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::{interval, timeout};

use super::body::{Answer, Gate, Outgoing, Progress};
use super::direct::{self, Direct, DirectBody, Framing, Head, Loan, Lost};
use super::fault::Fault;
use super::headers::{self, Words};
use super::interim::Interim;
use super::pool::{Era, Lease, Pool, Sender};
use super::tunnel;
use super::upstream::{Announced, Upstreams};
use crate::config::Config;
use crate::connection::ClientAddr;
use crate::dispatch::handoff::exchange::Opening;
use crate::dispatch::handoff::head::{HeadReader, MAX_HEAD, Outcome, PrefaceRule};
use crate::dispatch::handoff::judge::{Judge, Verdict};
use crate::dispatch::handoff::placer::UnderWay;
use crate::http::RequestBody;
use crate::id::WorkerId;
use crate::integration::{Keeper, came_by_https};
use crate::scoreboard::Row;
use crate::session::Sessions;
use crate::worker::Road;

/// How often a request is begun that no worker has seen.
const ATTEMPTS: usize = 3;

/// How long a connection to a program that listens by itself may have been idle to be used again. Some close theirs after
/// two seconds.
const PORT_IDLE_TIME: Duration = Duration::from_secs(1);

/// How often idle connections are looked through.
const TIDY_PERIOD: Duration = Duration::from_secs(5);

/// The settings that forwarding depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    patience: Option<Duration>,
    response_timeout: Option<Duration>,
    tunnel_idle_timeout: Option<Duration>,
    no_sockets: bool,
}

impl Settings {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            patience: config.failover.after(),
            response_timeout: config.response_timeout,
            tunnel_idle_timeout: config.tunnel_idle_timeout,
            no_sockets: config.no_sockets,
        }
    }
}

/// Forwards requests to the workers that they belong to.
#[derive(Debug)]
pub(super) struct Forwarder {
    judge: Arc<Judge>,
    upstreams: Upstreams,
    /// What is known of sessions in each slot, where workers do not know it themselves.
    sessions: Vec<Arc<Sessions>>,
    pool: Arc<Pool<Sender>>,
    /// Those that are not handed to anybody.
    direct: Arc<Pool<Direct>>,
    settings: Settings,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(super) struct Visitor {
    client: ClientAddr,
    /// What was said of him last.
    words: Mutex<Option<Words>>,
    /// What has already gone wrong with the present request.
    fault: Mutex<Option<Fault>>,
    interim: Interim,
}

impl Visitor {
    pub(super) fn new(client: ClientAddr) -> Self {
        Self { client, words: Mutex::new(None), fault: Mutex::new(None), interim: Interim::default() }
    }

    /// Whom his requests come from, and whose they are.
    pub(super) fn client(&self) -> &ClientAddr {
        &self.client
    }

    /// What he is told before his response.
    pub(super) fn interim(&self) -> &Interim {
        &self.interim
    }

    /// His present request is not to be forwarded: this has happened to it.
    pub(super) fn set_fault(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    fn take_fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is to be said of who sends the present request, mostly the same as before.
    fn words(&self, by_https: bool) -> Words {
        let client = self.client.get();
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if !words.as_ref().is_some_and(|words| words.are_of(client, by_https)) {
            *words = None;
        }
        words.get_or_insert_with(|| Words::of(client, by_https)).clone()
    }
}

/// A request as it goes to its worker.
struct Outbound {
    slot: WorkerId,
    request: Request<Outgoing>,
    sent: Arc<Progress>,
    origin: Origin,
    /// What has been noted of it when it was judged.
    under_way: Option<UnderWay>,
}

/// What a request was judged by, should that have to be done again.
struct Origin {
    client: Option<SocketAddr>,
    /// As they came: workers do not see all of them.
    cookies: Vec<HeaderValue>,
}

/// What came of it.
struct Inbound {
    response: Response<Incoming>,
    lease: Lease,
}

impl Forwarder {
    pub(super) fn new(judge: Arc<Judge>, mut road: Road, row: Row, settings: Settings) -> Self {
        let sessions = std::mem::take(&mut road.sessions);
        let slots = road.channels.len();
        let (pool, direct) = (Arc::new(Pool::new(slots)), Arc::new(Pool::new(slots)));
        Self { judge, upstreams: Upstreams::new(road, settings.patience, row), sessions, pool, direct, settings }
    }

    /// Closes connections that nobody needs, until it is dropped.
    pub(super) async fn tidy(self: Arc<Self>) {
        let mut ticks = interval(TIDY_PERIOD);
        loop {
            ticks.tick().await;
            self.pool.tidy();
            self.direct.tidy();
        }
    }

    /// Forwards a request of this client. What goes wrong is an answer, too.
    pub(super) async fn forward(
        self: Arc<Self>,
        request: Request<RequestBody>,
        visitor: Arc<Visitor>,
    ) -> Result<Response<Answer>, Infallible> {
        let response = self.try_forward(request, &visitor).await;
        visitor.interim.turn();
        Ok(response.unwrap_or_else(Fault::response))
    }

    async fn try_forward(
        &self,
        mut request: Request<RequestBody>,
        visitor: &Arc<Visitor>,
    ) -> Result<Response<Answer>, Fault> {
        if let Some(fault) = visitor.take_fault() {
            return Err(fault);
        }
        let client = &visitor.client;
        let (peer, verdict, under_way) = client.forwarding();
        let slot = self.slot(verdict)?;
        let protocol = self.protocol(&request)?;
        let is_connect = request.method() == Method::CONNECT;
        let downstream = (protocol.is_some() || is_connect).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        let (version, expects) = (parts.version, prepare(&mut parts, protocol)?);
        let is_trusted = self.judge.trusts(peer);
        let by_https = is_trusted && came_by_https(&parts.headers);
        headers::speak_for(&mut parts.headers, visitor.words(by_https), is_trusted);
        if downstream.is_none() && body.is_end_stream() {
            return self.in_time(self.ask(slot, &mut parts, client.get(), under_way)).await;
        }
        let origin = self.origin(&parts.headers, client.get());
        let visit = self.keeper(slot).map(|keeper| keeper.request(&mut parts.headers));
        let gate = expects.then(|| Arc::new(Gate::default()));
        listen(&mut parts, gate.clone(), (version == Version::HTTP_11).then(|| Arc::clone(visitor)));
        let (body, sent) = Outgoing::new(body, gate);
        let outbound = Outbound { slot, request: Request::from_parts(parts, body), sent, origin, under_way };
        let mut inbound = visitor.interim.before(self.in_time(self.send(outbound))).await?;
        if let (Some(visit), Some(sessions)) = (visit, self.sessions.get(inbound.lease.slot.index())) {
            visit.at(sessions).response(inbound.response.headers_mut());
        }
        Ok(self.answer(inbound, downstream, is_connect))
    }

    pub(super) fn judge(&self) -> &Judge {
        &self.judge
    }

    pub(super) fn response_timeout(&self) -> Option<Duration> {
        self.settings.response_timeout
    }

    /// A connection to this slot that is idle.
    pub(super) fn take_idle(&self, slot: WorkerId, era: Era) -> Option<Direct> {
        era.and_then(|_| self.direct.take(slot, era, self.idle_time()))
    }

    /// As [`Upstreams::connect_at_once`].
    pub(super) fn connect_at_once(&self, slot: WorkerId) -> Option<Direct> {
        self.upstreams.connect_at_once(slot)
    }

    /// As [`Upstreams::connect_directly`].
    ///
    /// # Errors
    ///
    /// As that.
    pub(super) async fn connect_directly(&self, slot: WorkerId) -> Result<Direct, Fault> {
        self.upstreams.connect_directly(slot, || self.judge.is_out(slot)).await
    }

    /// As [`Upstreams::announce`].
    pub(super) fn announce(&self, slot: WorkerId) -> Option<Announced> {
        self.upstreams.announce(slot)
    }

    /// For how long a connection may have been idle to be used again.
    fn idle_time(&self) -> Option<Duration> {
        self.upstreams.are_ports().then_some(PORT_IDLE_TIME)
    }

    /// Whether the sessions of this slot are kept here, by what its requests and their answers say.
    pub(super) fn keeps_sessions(&self, slot: WorkerId) -> bool {
        self.sessions.get(slot.index()).is_some_and(|sessions| sessions.are_of_interest())
    }

    /// Whether a request that was lost, and could be sent whole again, may be: perhaps to another worker. What a worker of ours
    /// has not read it has not seen; of others nobody knows, but that they close idle connections as they like: there only
    /// what may be done twice is.
    pub(super) fn may_ask_again(&self, slot: WorkerId, lost: &Lost, method: &Method, is_used: bool) -> bool {
        match lost {
            Lost::Unreached(_) => self.judge.is_out(slot),
            Lost::Unseen | Lost::Silent(_) if self.upstreams.are_ports() => is_used && method.is_idempotent(),
            Lost::Unseen => true,
            Lost::Silent(_) | Lost::Broken(_) => false,
        }
    }

    /// Puts such a connection back.
    pub(super) fn put_idle(&self, slot: WorkerId, era: Era, connection: Direct) {
        self.direct.put(slot, era, connection);
    }

    /// What is kept of a request, where its worker may turn out not to be there before it is sent.
    fn origin(&self, headers: &HeaderMap, client: Option<SocketAddr>) -> Origin {
        let cookies = self.upstreams.are_ports().then(|| headers.get_all(COOKIE).iter().cloned().collect());
        Origin { client, cookies: cookies.unwrap_or_default() }
    }

    /// Who keeps the sessions of a slot whose worker does not.
    fn keeper(&self, slot: WorkerId) -> Option<Keeper> {
        let sessions = self.sessions.get(slot.index()).filter(|_| self.keeps_sessions(slot))?;
        // What the headers say by now is our own word.
        Some(Keeper::new(Arc::clone(sessions), true))
    }

    /// Whose a request is.
    pub(super) fn slot(&self, verdict: Verdict) -> Result<WorkerId, Fault> {
        match verdict {
            Verdict::Send(slot) => Ok(slot),
            Verdict::Serve => self.judge.anyone().ok_or(Fault::Unavailable),
            Verdict::Refuse => Err(Fault::Unavailable),
        }
    }

    /// The protocol that a request asks for in place of HTTP.
    fn protocol(&self, request: &Request<RequestBody>) -> Result<Option<HeaderValue>, Fault> {
        // Over HTTP/2 only a stream of it can become something else.
        if request.method() == Method::CONNECT && request.version() == Version::HTTP_2 {
            return Err(Fault::NotImplemented);
        }
        let protocol = headers::upgrade(request.headers(), request.version());
        match protocol {
            Some(protocol) if self.settings.no_sockets && headers::is_web_socket(&protocol) => Err(Fault::NoSockets),
            // Whoever offers something else goes on without it.
            Some(_) if self.settings.no_sockets => Ok(None),
            protocol => Ok(protocol),
        }
    }

    /// Waits for the head of a response, as long as that may take.
    async fn in_time<T>(&self, response: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        match self.settings.response_timeout {
            Some(limit) => timeout(limit, response).await.unwrap_or(Err(Fault::TimedOut)),
            None => response.await,
        }
    }

    /// Sends a request without a body, and again as long as it is certain that no worker has seen it.
    async fn ask(
        &self,
        mut slot: WorkerId,
        parts: &mut Parts,
        client: Option<SocketAddr>,
        mut noted: Option<UnderWay>,
    ) -> Result<Response<Answer>, Fault> {
        let as_it_came = self.keeps_sessions(slot).then(|| direct::written(parts));
        let visit = self.keeper(slot).map(|keeper| keeper.request(&mut parts.headers));
        let request = direct::written(parts);
        for attempt in 1..=ATTEMPTS {
            let noted = noted.take().or_else(|| self.judge.note_under_way(slot));
            let under_way = (noted, self.upstreams.announce(slot));
            let era = self.era(slot);
            // What was idle may be dead, all of it at once; and a worker that stands still would not answer there.
            let used = era.filter(|_| attempt == 1).and_then(|_| self.take_idle(slot, era));
            let is_used = used.is_some();
            let mut connection = match used {
                Some(connection) => connection,
                None => match self.connect_directly(slot).await {
                    Ok(connection) => connection,
                    Err(fault) => {
                        slot = self.another(slot, as_it_came.as_ref().unwrap_or(&request), client).ok_or(fault)?;
                        continue;
                    }
                },
            };
            match connection.ask(&request, &parts.method).await {
                Ok(mut head) => {
                    if let (Some(visit), Some(sessions)) = (visit, self.sessions.get(slot.index())) {
                        visit.at(sessions).response(head.response.headers_mut());
                    }
                    let pool = Arc::clone(&self.direct);
                    let loan = Loan { pool, slot, era, goes_on: head.goes_on, _under_way: under_way };
                    return answer_directly(head, connection, loan);
                }
                Err(lost) if self.may_ask_again(slot, &lost, &parts.method, is_used) => {}
                Err(lost) => return Err(fault(slot, lost)),
            }
        }
        Err(Fault::BrokenOff)
    }

    /// Sends the request, and again as long as it is certain that no worker has seen it.
    async fn send(&self, outbound: Outbound) -> Result<Inbound, Fault> {
        let Outbound { mut slot, mut request, sent, origin, under_way: mut noted } = outbound;
        for attempt in 1..=ATTEMPTS {
            let noted = noted.take().or_else(|| self.judge.note_under_way(slot));
            let under_way = (noted, self.upstreams.announce(slot));
            let era = self.era(slot);
            // What was idle may be dead, all of it at once.
            let (mut sender, is_used) = match self.sender(slot, era, attempt == 1).await {
                Ok(found) => found,
                Err(fault) => {
                    let head = head_of(&request, &origin.cookies);
                    slot = self.another(slot, &head, origin.client).ok_or(fault)?;
                    continue;
                }
            };
            let copy = copy_of(&request);
            let mut error = match sender.send(request).await {
                Ok(response) => {
                    let pool = Arc::clone(&self.pool);
                    let lease = Lease { pool, slot, era, sender, sent, _under_way: under_way };
                    return Ok(Inbound { response, lease });
                }
                Err(error) => error,
            };
            request = match (error.take_message(), copy) {
                (Some(request), _) => request,
                _ if sent.is_broken() => return Err(Fault::BadRequest),
                (None, Some(copy)) if self.may_ask_again(slot, &lost(error.error()), copy.method(), is_used) => copy,
                _ => {
                    tracing::debug!(target: "sticky", error = %error.error(), %slot, "a worker has broken off");
                    return Err(Fault::BrokenOff);
                }
            };
        }
        Err(Fault::BrokenOff)
    }

    pub(super) fn era(&self, slot: WorkerId) -> Era {
        self.judge.era(slot).map(|era| (era, self.upstreams.port(slot)))
    }

    /// A connection to a slot, and whether it has been used before.
    async fn sender(&self, slot: WorkerId, era: Era, may_be_used: bool) -> Result<(Sender, bool), Fault> {
        // A worker that stands still would not answer; who takes up a new connection does.
        while let Some(mut sender) =
            era.filter(|_| may_be_used).and_then(|_| self.pool.take(slot, era, self.idle_time()))
        {
            if sender.is_ready().await {
                return Ok((sender, true));
            }
        }
        Ok((self.upstreams.connect(slot, || self.judge.is_out(slot)).await?, false))
    }

    /// The worker of a request whose own is out by now, as its next requests will find it.
    fn another(&self, slot: WorkerId, request: &[u8], client: Option<SocketAddr>) -> Option<WorkerId> {
        if !self.judge.is_out(slot) {
            return None;
        }
        let Outcome::Request(head) = HeadReader::new(MAX_HEAD, PrefaceRule::Refused).poll(request) else { return None };
        let client = client.map(|client| client.ip());
        self.slot(self.judge.verdict(&Opening::Request(head.view(request)), client)).ok().filter(|other| *other != slot)
    }

    /// The response to the client. Only the worker's own word makes a tunnel of the connection.
    fn answer(&self, inbound: Inbound, downstream: Option<OnUpgrade>, is_connect: bool) -> Response<Answer> {
        let Inbound { mut response, lease } = inbound;
        let status = response.status();
        let is_tunnel = status == StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success());
        end_connection(status, response.headers_mut());
        match downstream {
            Some(downstream) if is_tunnel => {
                // It has no body, whatever they say (RFC 9110, 9.3.6); with them it would not be sent.
                response.headers_mut().remove(CONTENT_LENGTH);
                response.headers_mut().remove(TRANSFER_ENCODING);
                let upstream = hyper::upgrade::on(&mut response);
                tokio::spawn(tunnel::run(downstream, upstream, self.settings.tunnel_idle_timeout, lease));
                response.map(|_| Answer::Whole(None))
            }
            // Nobody has asked for another protocol.
            None if status == StatusCode::SWITCHING_PROTOCOLS => Fault::BrokenOff.response(),
            _ => response.map(|body| Answer::stream(body, lease)),
        }
    }
}

/// What the client is told of a request that was lost.
pub(super) fn fault(slot: WorkerId, lost: Lost) -> Fault {
    tracing::debug!(target: "sticky", ?lost, %slot, "a request was lost");
    match lost {
        Lost::Unreached(fault) => fault,
        _ => Fault::BrokenOff,
    }
}

/// The response to the client, of which nearly always all is here by now.
fn answer_directly(head: Head, mut connection: Direct, loan: Loan) -> Result<Response<Answer>, Fault> {
    let Head { mut response, framing, .. } = head;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody has asked for another protocol.
        return Err(Fault::BrokenOff);
    }
    end_connection(status, response.headers_mut());
    if let Framing::Length(length) = framing
        && let Some(body) = connection.take_whole(length)
    {
        loan.give_back(connection);
        return Ok(response.map(|()| Answer::whole(body)));
    }
    Ok(response.map(|()| Answer::Direct(Box::new(DirectBody::new(connection, framing, loan)))))
}

/// Takes off a response's headers what concerned the worker's connection, but for the protocols that are offered to the client.
fn end_connection(status: StatusCode, fields: &mut HeaderMap) {
    let protocol = headers::upgrade(fields, Version::HTTP_11);
    headers::end_connection(fields);
    if let Some(protocol) = protocol.filter(|_| headers::keeps_upgrade(status)) {
        headers::set_upgrade(fields, protocol);
    }
}

/// Makes the head what the worker gets: whether the client waits for 100 before it sends the body.
fn prepare(parts: &mut Parts, protocol: Option<HeaderValue>) -> Result<bool, Fault> {
    if !headers::names_host(&parts.headers, parts.version) {
        return Err(Fault::BadRequest);
    }
    if parts.headers.len() > headers::MAX_HEADERS {
        return Err(Fault::TooManyHeaders);
    }
    if parts.method != Method::CONNECT {
        headers::origin_form(&mut parts.uri, &mut parts.headers);
    }
    let expects = parts.version == Version::HTTP_11 && expects_continue(&parts.headers);
    headers::end_connection(&mut parts.headers);
    if let Some(protocol) = protocol {
        headers::set_upgrade(&mut parts.headers, protocol);
    }
    // What the front connection knows of its request is none of the back one's business.
    parts.extensions.clear();
    parts.version = Version::HTTP_11;
    Ok(expects)
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Has the gate opened when the worker says that it wants the body, and whoever may be told the worker's other interim
/// responses.
fn listen(parts: &mut Parts, gate: Option<Arc<Gate>>, visitor: Option<Arc<Visitor>>) {
    let told = visitor.map(|visitor| (visitor.interim.turn(), visitor));
    if gate.is_none() && told.is_none() {
        return;
    }
    let mut request = Request::new(());
    hyper::ext::on_informational(&mut request, move |interim| match (interim.status(), &gate, &told) {
        // The client gets its own from hyper, when its body is read.
        (StatusCode::CONTINUE, Some(gate), _) => gate.open(),
        (StatusCode::CONTINUE, None, _) => {}
        (status, _, Some((turn, visitor))) => visitor.interim.add(*turn, status, interim.headers().clone()),
        (_, _, None) => {}
    });
    parts.extensions = std::mem::take(request.extensions_mut());
}

/// The head of a request as its judge reads it.
fn head_of(request: &Request<Outgoing>, cookies: &[HeaderValue]) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    let others = request.headers().iter().filter(|(name, _)| *name != COOKIE && *name != UPGRADE);
    let cookies = cookies.iter().map(|value| (&COOKIE, value));
    for (name, value) in others.chain(cookies) {
        head.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The same request, where nothing of it can be sent only once.
fn copy_of(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    if !request.body().is_empty() {
        return None;
    }
    let mut copy = Request::new(Outgoing::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// What has become of a request to which hyper has this instead of a response.
fn lost(error: &hyper::Error) -> Lost {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Lost::without_answer(error.kind().into());
        }
        cause = error.source();
    }
    Lost::Silent(io::ErrorKind::Other.into())
}
