//! One request, from the client to its worker and back.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::{interval, timeout};

use super::body::{Answer, Gate, Outgoing, Progress};
use super::fault::Fault;
use super::headers;
use super::pool::{Era, Lease, Pool, Sender};
use super::tunnel;
use super::upstream::Upstreams;
use crate::config::Config;
use crate::connection::ClientAddr;
use crate::dispatch::handoff::judge::{Judge, Verdict};
use crate::dispatch::handoff::placer::UnderWay;
use crate::http::RequestBody;
use crate::id::WorkerId;
use crate::integration::came_by_https;
use crate::scoreboard::Row;

/// How often a request is begun that no worker has seen.
const ATTEMPTS: usize = 3;

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
    pool: Arc<Pool>,
    settings: Settings,
}

/// A request as it goes to its worker.
struct Outbound {
    slot: WorkerId,
    request: Request<Outgoing>,
    sent: Arc<Progress>,
    under_way: Option<UnderWay>,
}

/// What came of it.
struct Inbound {
    response: Response<Incoming>,
    lease: Lease,
}

impl Forwarder {
    pub(super) fn new(judge: Arc<Judge>, channels: Vec<OwnedFd>, row: Row, settings: Settings) -> Self {
        let pool = Arc::new(Pool::new(channels.len()));
        Self { judge, upstreams: Upstreams::new(channels, settings.patience, row), pool, settings }
    }

    /// Closes connections that nobody needs, until it is dropped.
    pub(super) async fn tidy(self: Arc<Self>) {
        let mut ticks = interval(TIDY_PERIOD);
        loop {
            ticks.tick().await;
            self.pool.tidy();
        }
    }

    /// Forwards a request of this client. What goes wrong is an answer, too.
    pub(super) async fn forward(
        self: Arc<Self>,
        request: Request<RequestBody>,
        client: ClientAddr,
    ) -> Result<Response<Answer>, Infallible> {
        Ok(self.try_forward(request, &client).await.unwrap_or_else(Fault::response))
    }

    async fn try_forward(
        &self,
        mut request: Request<RequestBody>,
        client: &ClientAddr,
    ) -> Result<Response<Answer>, Fault> {
        let (peer, verdict) = client.forwarding();
        let slot = self.slot(verdict)?;
        let protocol = self.protocol(&request)?;
        let is_connect = request.method() == Method::CONNECT;
        let downstream = (protocol.is_some() || is_connect).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        let gate = prepare(&mut parts, protocol)?;
        let is_trusted = self.judge.trusts(peer);
        let by_https = is_trusted && came_by_https(&parts.headers);
        headers::speak_for(&mut parts.headers, client.get(), is_trusted, by_https);
        let (body, sent) = Outgoing::new(body, gate);
        let under_way = self.judge.note_under_way(slot);
        let outbound = Outbound { slot, request: Request::from_parts(parts, body), sent, under_way };
        let inbound = self.exchange(outbound).await?;
        Ok(self.answer(inbound, downstream, is_connect))
    }

    /// Whose a request is.
    fn slot(&self, verdict: Verdict) -> Result<WorkerId, Fault> {
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

    /// Sends the request and waits for the head of its response.
    async fn exchange(&self, outbound: Outbound) -> Result<Inbound, Fault> {
        match self.settings.response_timeout {
            Some(limit) => timeout(limit, self.send(outbound)).await.unwrap_or(Err(Fault::TimedOut)),
            None => self.send(outbound).await,
        }
    }

    /// Sends the request, and again as long as it is certain that no worker has seen it.
    async fn send(&self, outbound: Outbound) -> Result<Inbound, Fault> {
        let Outbound { slot, mut request, sent, under_way } = outbound;
        for attempt in 1..=ATTEMPTS {
            // What was idle may be dead, all of it at once.
            let era = self.judge.era(slot);
            let mut sender = self.sender(slot, era, attempt == 1).await?;
            let copy = copy_of(&request);
            let error = match sender.send(request).await {
                Ok(response) => {
                    let pool = Arc::clone(&self.pool);
                    let lease = Lease { pool, slot, era, sender, sent, _under_way: under_way };
                    return Ok(Inbound { response, lease });
                }
                Err(error) => error,
            };
            let mut error = error;
            request = match (error.take_message(), copy) {
                (Some(request), _) => request,
                (None, Some(copy)) if is_unseen(error.error()) => copy,
                _ => {
                    eprintln!("DBG {slot} attempt {attempt} {:?} {:?}", error.error(), error.error().source());
                    tracing::debug!(target: "sticky", error = %error.error(), %slot, "a worker has broken off");
                    return Err(Fault::BrokenOff);
                }
            };
        }
        Err(Fault::BrokenOff)
    }

    async fn sender(&self, slot: WorkerId, era: Era, may_be_used: bool) -> Result<Sender, Fault> {
        // A worker that stands still would not answer; who takes up a new connection does.
        let used = match era {
            Some(_) if may_be_used => self.pool.take(slot, era, Duration::MAX).await,
            _ => None,
        };
        match used {
            Some(sender) => Ok(sender),
            None => self.upstreams.connect(slot).await,
        }
    }

    /// The response to the client. Only the worker's own word makes a tunnel of the connection.
    fn answer(&self, inbound: Inbound, downstream: Option<OnUpgrade>, is_connect: bool) -> Response<Answer> {
        let Inbound { mut response, lease } = inbound;
        let status = response.status();
        let is_tunnel = status == StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success());
        let protocol = headers::upgrade(response.headers(), Version::HTTP_11);
        headers::end_connection(response.headers_mut());
        if let Some(protocol) = protocol.filter(|_| headers::keeps_upgrade(status)) {
            headers::set_upgrade(response.headers_mut(), protocol);
        }
        match downstream {
            Some(downstream) if is_tunnel => {
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

/// Makes the head what the worker gets; a gate where the client waits for 100 before it sends the body.
fn prepare(parts: &mut Parts, protocol: Option<HeaderValue>) -> Result<Option<Arc<Gate>>, Fault> {
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
    Ok(expects.then(|| gate(parts)))
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Opened when the worker says that it wants the body.
fn gate(parts: &mut Parts) -> Arc<Gate> {
    let gate = Arc::new(Gate::default());
    let mut request = Request::new(());
    let opened = Arc::clone(&gate);
    hyper::ext::on_informational(&mut request, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            opened.open();
        }
    });
    parts.extensions = std::mem::take(request.extensions_mut());
    gate
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

/// Whether a worker has certainly not seen a request that has failed with this error: where one end of a socket pair is
/// closed with something unread in it, the other is told so, and what comes later is not taken (unix(7)).
fn is_unseen(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        }
        cause = error.source();
    }
    false
}
