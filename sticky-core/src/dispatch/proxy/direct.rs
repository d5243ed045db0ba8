//! A request without a body, and its answer, over a connection to a worker that whoever asks reads and writes by himself.
//!
//! Most requests are such, and to hand each to another task and its answer back costs more than all else that is done
//! here.

use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::fault::Fault;
use super::pool::{Era, Kept, Pool};
use super::upstream::Announced;
use crate::connection::QuietStream;
use crate::dispatch::handoff::chunked::{Chunked, Progress};
use crate::dispatch::handoff::placer::UnderWay;
use crate::dispatch::handoff::tokens::ConnectionOptions;
use crate::id::WorkerId;

/// The longest head of a response: as much as a worker's guard can frame.
const MAX_HEAD: usize = 64 * 1024;

/// The most headers of a response.
const MAX_HEADERS: usize = 100;

/// How much is read at once, at least: most answers are shorter.
const PIECE: usize = 4 * 1024;

/// A connection to a worker.
#[derive(Debug)]
pub(super) struct Direct {
    stream: QuietStream,
    /// What has come and is not used.
    buffer: BytesMut,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// There is no connection to it.
    Unreached(Fault),
    /// A worker of ours has certainly not seen the request: where one end of a socket pair is closed with something unread in
    /// it, the other is told so, and what comes later is not taken (unix(7)). Of a port that says nothing.
    Unseen,
    /// Nothing has come of an answer. Whether the worker has seen the request is not certain.
    Silent(io::Error),
    /// The worker has seen it.
    Broken(io::Error),
}

/// How far a request and its response are.
#[derive(Debug, Default)]
pub(super) struct Asking {
    written: usize,
    /// The worker takes nothing any more.
    is_deaf: bool,
    /// Something of the response has come.
    has_heard: bool,
}

/// How far the body of a response reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The head of a response.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// Another request can follow on the connection.
    pub(super) goes_on: bool,
}

impl Lost {
    /// Nothing of an answer has come but this error.
    pub(super) fn without_answer(error: io::Error) -> Self {
        if is_closed(&error) { Self::Unseen } else { Self::Silent(error) }
    }
}

impl Direct {
    pub(super) fn new(stream: QuietStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Whether the worker has closed it, or has said what nobody has asked for.
    pub(super) fn is_closed(&self) -> bool {
        !self.buffer.is_empty() || self.stream.has_something()
    }

    /// Sends the head of a request, and waits for that of its response.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) async fn ask(&mut self, request: &[u8], method: &Method) -> Result<Head, Lost> {
        let mut asking = Asking::default();
        loop {
            if let Some(head) = self.take_head(method).map_err(Lost::Broken)? {
                return Ok(head);
            }
            poll_fn(|cx| self.poll_ask(cx, &mut asking, request)).await?;
        }
    }

    /// Writes what is left of a request, and waits for more of its response.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn poll_ask(
        &mut self,
        cx: &mut Context<'_>,
        asking: &mut Asking,
        request: &[u8],
    ) -> Poll<Result<(), Lost>> {
        while asking.written < request.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &request[asking.written..])) {
                Ok(written) => asking.written += written,
                // A worker may have answered and closed before it had read all: what it has said counts.
                Err(error) if is_closed(&error) => {
                    (asking.written, asking.is_deaf) = (request.len(), true);
                }
                Err(error) => return Poll::Ready(Err(Lost::Broken(error))),
            }
        }
        let filled = ready!(self.poll_fill(cx));
        let has_heard = std::mem::replace(&mut asking.has_heard, true);
        Poll::Ready(match filled {
            Ok(0) if asking.is_deaf && !has_heard => Err(Lost::Unseen),
            Ok(0) if !has_heard => Err(Lost::Silent(io::ErrorKind::UnexpectedEof.into())),
            Ok(0) => Err(Lost::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) if !has_heard => Err(Lost::without_answer(error)),
            Err(error) => Err(Lost::Broken(error)),
        })
    }

    /// The head that the buffer begins with, behind those of interim responses.
    fn take_head(&mut self, method: &Method) -> io::Result<Option<Head>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut parsed = httparse::Response::new(&mut headers);
            let length = match parsed.parse(&self.buffer) {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) if self.buffer.len() <= MAX_HEAD => return Ok(None),
                Ok(httparse::Status::Partial) => return Err(invalid("a head without end")),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            };
            let status = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| invalid("no status"))?;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.buffer.advance(length);
                continue;
            }
            let is_http11 = parsed.version == Some(1);
            let fields = Fields::of(&self.buffer, parsed.headers);
            let headers = fields.into_map(&self.buffer.split_to(length).freeze())?;
            return head(status, is_http11, headers, method).map(Some);
        }
    }

    /// What has come and is not used.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The whole of a body so long, if it is here.
    pub(super) fn take_whole(&mut self, length: u64) -> Option<Bytes> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.buffer.len())?;
        Some(self.buffer.split_to(length).freeze())
    }

    /// Reads more into the buffer; 0 is the end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(PIECE);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// As [`Self::fill`].
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        pin!(self.fill()).poll(cx)
    }
}

/// Where the fields of a head are, which can be cut from it then.
struct Fields(Vec<[Range<usize>; 2]>);

impl Fields {
    fn of(bytes: &[u8], headers: &[httparse::Header<'_>]) -> Self {
        let range = |part: &[u8]| {
            let start = part.as_ptr() as usize - bytes.as_ptr() as usize;
            start..start + part.len()
        };
        Self(headers.iter().map(|header| [range(header.name.as_bytes()), range(header.value)]).collect())
    }

    fn into_map(self, head: &Bytes) -> io::Result<HeaderMap> {
        let mut map = HeaderMap::with_capacity(self.0.len());
        for [name, value] in self.0 {
            let name = HeaderName::from_bytes(&head[name]).map_err(|_| invalid("a header's name"))?;
            let value = HeaderValue::from_maybe_shared(head.slice(value)).map_err(|_| invalid("a header's value"))?;
            map.append(name, value);
        }
        Ok(map)
    }
}

fn head(status: StatusCode, is_http11: bool, headers: HeaderMap, method: &Method) -> io::Result<Head> {
    let is_empty = *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = if is_empty { Framing::Length(0) } else { framing(&headers)? };
    let mut options = ConnectionOptions::default();
    headers.get_all(CONNECTION).into_iter().for_each(|value| options.add(value.as_bytes()));
    let goes_on = is_http11 && !options.close && framing != Framing::UntilClose;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Head { response, framing, goes_on })
}

/// What could be framed in two ways is not framed at all.
fn framing(headers: &HeaderMap) -> io::Result<Framing> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::UntilClose),
        (None, Some(length)) if lengths.all(|other| other == length) => {
            let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            length.map(Framing::Length).ok_or(invalid("a length"))
        }
        (Some(coding), None) if codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked)
        }
        _ => Err(invalid("no certain length")),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// A request without a body as it is sent.
pub(super) fn written(parts: &Parts) -> Vec<u8> {
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut head = Vec::with_capacity(512);
    for part in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &parts.headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The body of a response, as it comes.
#[derive(Debug)]
pub(super) struct DirectBody {
    /// Gone when nothing more is read.
    from: Option<(Direct, Loan)>,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    /// With what of the present line, or of the trailers, has come.
    Chunked(Chunked, Vec<u8>),
    UntilClose,
}

impl DirectBody {
    pub(super) fn new(direct: Direct, framing: Framing, loan: Loan) -> Self {
        let rest = match framing {
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Chunked::new(), Vec::new()),
            Framing::UntilClose => Rest::UntilClose,
        };
        Self { from: Some((direct, loan)), rest }
    }

    pub(super) fn is_over(&self) -> bool {
        self.from.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Length(length) => SizeHint::with_exact(length),
            Rest::Chunked(..) | Rest::UntilClose => SizeHint::default(),
        }
    }

    /// The next piece, as soon as there is one.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let Some((direct, _)) = &mut self.from else { return Poll::Ready(None) };
            match self.rest.take(&mut direct.buffer) {
                Ok(Taken::Frame(frame)) => {
                    if matches!(self.rest, Rest::Length(0)) || frame.is_trailers() {
                        self.end();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(Taken::End) => {
                    self.end();
                    return Poll::Ready(None);
                }
                Ok(Taken::Nothing) => {}
                Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
            }
            match ready!(direct.poll_fill(cx)) {
                Ok(0) if matches!(self.rest, Rest::UntilClose) => self.from = None,
                Ok(0) => return Poll::Ready(Some(Err(self.broken(io::ErrorKind::UnexpectedEof.into())))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
            }
        }
    }

    fn end(&mut self) {
        if let Some((direct, loan)) = self.from.take() {
            loan.give_back(direct);
        }
    }

    fn broken(&mut self, error: io::Error) -> io::Error {
        self.from = None;
        error
    }
}

/// What of a body is there.
enum Taken {
    Frame(Frame<Bytes>),
    /// More must be read.
    Nothing,
    End,
}

impl Rest {
    fn take(&mut self, buffer: &mut BytesMut) -> io::Result<Taken> {
        let data = |buffer: &mut BytesMut, length| Taken::Frame(Frame::data(buffer.split_to(length).freeze()));
        match self {
            Self::Length(0) => Ok(Taken::End),
            Self::Length(_) | Self::UntilClose if buffer.is_empty() => Ok(Taken::Nothing),
            Self::Length(rest) => {
                let length = usize::try_from(*rest).unwrap_or(usize::MAX).min(buffer.len());
                *rest -= length as u64;
                Ok(data(buffer, length))
            }
            Self::UntilClose => Ok(data(buffer, buffer.len())),
            Self::Chunked(chunked, line) => {
                take_line(chunked, line, buffer);
                match chunked.progress() {
                    Progress::Broken(_) => Err(invalid("a chunk")),
                    Progress::Complete => trailers(line),
                    Progress::Open if buffer.is_empty() => Ok(Taken::Nothing),
                    Progress::Open => {
                        line.clear();
                        let length = chunked.consume_data(buffer.len());
                        Ok(data(buffer, length))
                    }
                }
            }
        }
    }
}

/// Takes what is not data off the buffer.
fn take_line(chunked: &mut Chunked, line: &mut Vec<u8>, buffer: &mut BytesMut) {
    while chunked.progress() == Progress::Open && chunked.data_ahead() == 0 && !buffer.is_empty() {
        if chunked.consume(&buffer[..1]) == 1 {
            line.push(buffer.get_u8());
        }
    }
}

/// The trailers in what follows the last data.
fn trailers(line: &[u8]) -> io::Result<Taken> {
    // Behind the end of the chunk before, the last chunk's size has a line of its own.
    let line = line.strip_prefix(b"\r\n").unwrap_or(line);
    let start = line.iter().position(|&byte| byte == b'\n').map_or(line.len(), |end| end + 1);
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let parsed = httparse::parse_headers(&line[start..], &mut headers);
    let Ok(httparse::Status::Complete((_, headers))) = parsed else { return Err(invalid("trailers")) };
    if headers.is_empty() {
        return Ok(Taken::End);
    }
    let bytes = Bytes::copy_from_slice(line);
    Fields::of(line, headers).into_map(&bytes).map(|map| Taken::Frame(Frame::trailers(map)))
}

/// Where a connection goes after its response, if that ends as it should.
#[derive(Debug)]
pub(super) struct Loan {
    pub(super) pool: Arc<Pool<Direct>>,
    pub(super) slot: WorkerId,
    pub(super) era: Era,
    pub(super) goes_on: bool,
    pub(super) _under_way: (Option<UnderWay>, Option<Announced>),
}

impl Loan {
    pub(super) fn give_back(self, direct: Direct) {
        if self.goes_on {
            self.pool.put(self.slot, self.era, direct);
        }
    }
}

impl Kept for Direct {
    fn is_closed(&self) -> bool {
        self.is_closed()
    }
}

#[cfg(test)]
mod tests {

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    fn pair() -> (Direct, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Direct::new(QuietStream::new(ours.into_std().unwrap().into()).unwrap()), theirs)
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    fn loan(pool: &Arc<Pool<Direct>>, goes_on: bool) -> Loan {
        Loan { pool: Arc::clone(pool), slot: WorkerId::new(0), era: Some((0, None)), goes_on, _under_way: (None, None) }
    }

    async fn collect(mut body: DirectBody) -> io::Result<(Vec<u8>, Option<HeaderMap>)> {
        let (mut data, mut trailers) = (Vec::new(), None);
        while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok((data, trailers))
    }

    /// What comes of an answer in pieces of this size: its body and trailers, and whether the connection is kept.
    async fn answered(answer: &[u8], piece: usize, method: Method) -> io::Result<(Vec<u8>, Option<HeaderMap>, bool)> {
        let (mut direct, mut worker) = pair();
        let answer = answer.to_vec();
        let worker = tokio::spawn(async move {
            worker.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
            for piece in answer.chunks(piece) {
                worker.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            worker
        });
        let head = direct.ask(REQUEST, &method).await.map_err(|lost| match lost {
            Lost::Silent(error) | Lost::Broken(error) => error,
            Lost::Unreached(_) | Lost::Unseen => panic!("it was seen"),
        })?;
        let pool = Arc::new(Pool::new(1));
        let open = (head.framing != Framing::UntilClose).then(|| tokio::spawn(async { worker.await.unwrap() }));
        let collected = collect(DirectBody::new(direct, head.framing, loan(&pool, head.goes_on))).await;
        drop(open);
        let is_kept = pool.take(WorkerId::new(0), Some((0, None)), None).is_some();
        collected.map(|(data, trailers)| (data, trailers, is_kept))
    }

    #[tokio::test]
    async fn bodies_of_every_kind_are_read_to_their_end_at_any_split() {
        let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 300\r\n\r\n{}", "x".repeat(300));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n3\r\n, w\r\n0\r\n\r\n";
        let interim = "HTTP/1.1 103 Early\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        for piece in [1, 2, 7, 1000] {
            for (answer, body) in [(long.as_str(), "x".repeat(300).as_str()), (chunked, "hello, w"), (interim, "ok")] {
                let (data, trailers, is_kept) = answered(answer.as_bytes(), piece, Method::GET).await.unwrap();
                assert_eq!((String::from_utf8(data).unwrap().as_str(), trailers), (body, None));
                assert!(is_kept, "{answer:?} in pieces of {piece}");
            }
        }
    }

    #[tokio::test]
    async fn trailers_are_read() {
        for before in ["", "2\r\nab\r\n"] {
            let answer =
                format!("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n{before}0\r\nx-sum: 7\r\nx-b: c\r\n\r\n");
            let (_, trailers, is_kept) = answered(answer.as_bytes(), 3, Method::GET).await.unwrap();
            let trailers = trailers.unwrap();
            assert_eq!((trailers["x-sum"].to_str().unwrap(), trailers["x-b"].to_str().unwrap()), ("7", "c"));
            assert!(is_kept);
        }
    }

    #[tokio::test]
    async fn what_has_no_body_has_none() {
        let with_length = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        for (answer, method) in [
            (&with_length[..], Method::HEAD),
            (b"HTTP/1.1 204 No Content\r\n\r\n", Method::GET),
            (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", Method::GET),
        ] {
            assert_eq!(answered(answer, 100, method).await.unwrap(), (Vec::new(), None, true));
        }
    }

    #[tokio::test]
    async fn what_ends_the_connection_is_not_kept() {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        ] {
            let (data, _, is_kept) = answered(answer.as_bytes(), 1000, Method::GET).await.unwrap();
            assert_eq!((&data[..], is_kept), (&b"ok"[..], false), "{answer:?}");
        }
        let answer = b"HTTP/1.1 200 OK\r\n\r\nto the end";
        let (mut direct, mut worker) = pair();
        worker.write_all(answer).await.unwrap();
        worker.shutdown().await.unwrap();
        let head = direct.ask(REQUEST, &Method::GET).await.unwrap();
        assert!(head.framing == Framing::UntilClose && !head.goes_on);
        let pool = Arc::new(Pool::new(1));
        assert_eq!(collect(DirectBody::new(direct, head.framing, loan(&pool, true))).await.unwrap().0, b"to the end");
    }

    #[tokio::test]
    async fn what_has_no_certain_end_is_no_answer() {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
            "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
        ] {
            let error = answered(answer.as_bytes(), 1000, Method::GET).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn only_what_has_not_been_read_is_unseen() {
        let (mut direct, worker) = pair();
        drop(worker);
        // The end is an event that the runtime has to hear of.
        while !direct.is_closed() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(direct.ask(REQUEST, &Method::GET).await, Err(Lost::Unseen)));
        let (mut direct, worker) = pair();
        let asking = tokio::spawn(async move { direct.ask(REQUEST, &Method::GET).await });
        tokio::task::yield_now().await;
        drop(worker);
        assert!(matches!(asking.await.unwrap(), Err(Lost::Unseen)));
        let (mut direct, mut worker) = pair();
        let asking = tokio::spawn(async move { direct.ask(REQUEST, &Method::GET).await });
        worker.read_exact(&mut [0; REQUEST.len()]).await.unwrap();
        drop(worker);
        assert!(matches!(asking.await.unwrap(), Err(Lost::Silent(_))));
    }

    #[tokio::test]
    async fn an_answer_counts_although_the_request_is_not_read() {
        let (mut direct, mut worker) = pair();
        worker.write_all(b"HTTP/1.1 431 Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        drop(worker);
        let head = direct.ask(REQUEST, &Method::GET).await.unwrap();
        assert_eq!(head.response.status(), 431);
    }

    #[test]
    fn requests_are_written_anew() {
        let request =
            http::Request::builder().method("DELETE").uri("http://a/b?c").header("Host", "a").header("x-y", "");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(written(&parts), b"DELETE /b?c HTTP/1.1\r\nhost: a\r\nx-y: \r\n\r\n");
        parts.uri = "*".parse().unwrap();
        assert!(written(&parts).starts_with(b"DELETE * HTTP/1.1\r\n"));
    }
}
