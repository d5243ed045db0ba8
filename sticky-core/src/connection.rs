//! A worker's connections: each is counted from its arrival until its last owner has dropped it, whatever protocol it
//! speaks by then.

mod client;
#[cfg(feature = "http")]
pub(crate) mod lane;
#[cfg(cluster)]
mod quiet;
mod stream;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

pub use self::client::ClientAddr;
#[cfg(feature = "http")]
use self::lane::{Lane, Traffic};
#[cfg(cluster)]
pub(crate) use self::quiet::QuietStream;
pub(crate) use self::stream::Stream;
use crate::dispatch::handoff::exchange::Shutdown;
use crate::dispatch::handoff::guard::{Guard, Step};
use crate::scoreboard::Row;
use crate::sys::socket::{Listed, OpenSockets};

/// The open connections of this process. A clone is the same registry.
#[derive(Clone)]
pub(crate) struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    row: Row,
    open: AtomicUsize,
    sockets: OpenSockets,
    /// Told after each close that left nothing open.
    emptied: Notify,
    /// Who waits for room.
    acceptor: Mutex<Option<Waker>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("open", &self.open()).finish_non_exhaustive()
    }
}

impl Registry {
    /// Nothing is open yet; `row` will show what is.
    pub(crate) fn new(row: Row) -> Self {
        let inner = Inner {
            row,
            open: AtomicUsize::new(0),
            sockets: OpenSockets::default(),
            emptied: Notify::new(),
            acceptor: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Counts this connection until it is dropped.
    pub(crate) fn register(&self, stream: Stream) -> Connection {
        self.inner.open.fetch_add(1, Ordering::Relaxed);
        self.inner.row.connection_opened();
        let counted = Counted { registry: self.inner.clone(), is_upgraded: false, is_leaving: false };
        self.recount(stream, counted)
    }

    /// A connection that is counted already.
    pub(crate) fn recount(&self, stream: Stream, counted: Counted) -> Connection {
        Connection::new(self.inner.sockets.list(stream), counted)
    }

    /// The row that shows what is open.
    pub(crate) fn row(&self) -> &Row {
        &self.inner.row
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.inner.open.load(Ordering::Acquire)
    }

    /// Ready while fewer than `limit` connections are open. Else the next close wakes the task, the last that asked.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>, limit: NonZeroUsize) -> Poll<()> {
        if self.open() < limit.get() {
            return Poll::Ready(());
        }
        *self.inner.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        // A close between the two has found nobody to wake.
        if self.open() < limit.get() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until no connection is open; returns at once when none is.
    pub(crate) async fn idle(&self) {
        loop {
            // Made before the count is looked at: a close between the two is not missed.
            let emptied = self.inner.emptied.notified();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Closes the write side of up to `batch` open connections that have not been cut before, so that their clients
    /// read a clean end. Returns how many those were.
    pub(crate) fn cut(&self, batch: usize) -> usize {
        self.inner.sockets.close_writes(batch)
    }
}

/// A client's connection: a stream of bytes, counted as open until it is dropped.
///
/// Comes from [`Connections::accept`](crate::Connections::accept). Give it to whatever speaks the protocol; when that
/// lets go of it, the drain of this worker has one connection less to wait for.
///
/// Under handoff dispatch it belongs to this worker for one message at a time: where the next one is another worker's,
/// it reads as ended, and dropping it sends the client's socket there. Whoever speaks HTTP/1.1 on it therefore needs
/// nothing but to close on end-of-stream without a word, as HTTP servers do. When the [drain](crate::Drain) starts because
/// another generation has taken over ([`DrainReason::Replaced`](crate::DrainReason::Replaced)), an idle one reads as ended in
/// the same way and moves there: read from it once more then, as the accept loop of the feature `http` does.
#[derive(Debug)]
pub struct Connection {
    /// None only while this is dropped.
    open: Option<Open>,
    guard: Option<Box<Guard>>,
    #[cfg(feature = "http")]
    traffic: Option<Box<Traffic>>,
}

#[derive(Debug)]
struct Open {
    // Fields drop in this order: a connection counts as open until its socket is closed.
    stream: Listed<Stream>,
    counted: Counted,
}

impl Connection {
    fn new(stream: Listed<Stream>, counted: Counted) -> Self {
        Self {
            open: Some(Open { stream, counted }),
            guard: None,
            #[cfg(feature = "http")]
            traffic: None,
        }
    }

    /// Has each of its messages judged before anybody sees it.
    pub(crate) fn guarded(mut self, guard: Guard) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// Has messages taken this lane that may.
    #[cfg(feature = "http")]
    pub(crate) fn set_lane(&mut self, lane: Box<dyn Lane>) {
        self.traffic = Some(Box::new(Traffic::new(lane)));
    }

    /// Whether messages may take a lane.
    #[cfg(feature = "http")]
    pub(crate) fn has_lane(&self) -> bool {
        self.traffic.is_some()
    }

    /// Whether a message is on its lane.
    #[cfg(feature = "http")]
    pub(crate) fn is_busy(&self) -> bool {
        self.traffic.as_ref().is_some_and(|traffic| traffic.is_busy())
    }

    /// Whether a message has taken its lane.
    #[cfg(feature = "http")]
    pub(crate) fn has_ridden(&self) -> bool {
        self.traffic.as_ref().is_some_and(|traffic| traffic.has_carried())
    }

    /// Whether a message is on its lane, or has begun to arrive.
    #[cfg(feature = "http")]
    pub(crate) fn is_within_message(&self) -> bool {
        self.is_busy() || self.is_within_head()
    }

    /// Has its messages take the lane until there is something else to read, or nothing more: `false`.
    #[cfg(feature = "http")]
    pub(crate) fn poll_beyond_lane(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Self { open: Some(open), guard: Some(guard), traffic: Some(traffic) } = self else {
            return Poll::Ready(Ok(true));
        };
        let read = traffic.poll_beyond(open.stream.get_mut(), guard, cx);
        Pin::new(self).unguard_if_over();
        read
    }

    /// The other side's address: the client's, or that of a proxy in front. An IPv4-mapped one is shown as IPv4; `None`
    /// on a unix socket. What the PROXY protocol says counts as the other side's.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.stream().peer_addr()
    }

    /// The address the client connected to, an IPv4-mapped one as IPv4; `None` on a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.stream().local_addr()
    }

    /// Whom the requests on this connection come from, as far as trusted proxies say. Integrations ask it when a request
    /// arrives: behind a proxy each may be somebody else's.
    pub fn client_addr(&self) -> ClientAddr {
        self.guard.as_ref().map_or_else(|| ClientAddr::of(self.peer_addr()), |guard| guard.client().clone())
    }

    /// Moves it to the runtime that this is called in, which then tells when it can be read and written. For integrations
    /// whose threads have a runtime each.
    ///
    /// # Errors
    ///
    /// When that runtime cannot take it; it is closed.
    pub fn into_this_runtime(mut self) -> io::Result<Self> {
        let Open { stream, counted } = self.open.take().expect("it is there until the drop");
        let mut guard = self.guard.take();
        if let Some(guard) = &mut guard {
            guard.change_runtime();
        }
        let registry = Registry { inner: Arc::clone(&counted.registry) };
        let mut moved = registry.recount(stream.unlist().into_this_runtime()?, counted);
        moved.guard = guard;
        Ok(moved)
    }

    /// Counts this connection among those that have left HTTP: WebSockets and other tunnels.
    pub fn mark_upgraded(&mut self) {
        if let Some(open) = &mut self.open {
            open.counted.mark_upgraded();
        }
    }

    /// Whether each message on it is looked at before it is read here, which includes that its time is minded.
    pub(crate) fn minds_messages(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.minds_messages())
    }

    /// Whether its first message has been looked at.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// Whether a request has begun to arrive of which nothing can be read yet.
    pub(crate) fn is_within_head(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_within_head())
    }

    /// Whether the client can say nothing more before its request for another protocol has been answered.
    pub(crate) fn has_said_all(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.has_said_all())
    }

    /// Whether it reads as ended and is between two messages: nobody here owes its client anything.
    #[cfg(feature = "http")]
    pub(crate) fn has_left_off(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.has_left_off())
    }

    /// Ready when something can be read here, or the connection is not for this worker: `false`.
    pub(crate) fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let (Some(open), Some(guard)) = (&mut self.open, &mut self.guard) else { return Poll::Ready(Ok(true)) };
        let step = ready!(guard.poll_step(open.stream.get_mut(), cx))?;
        Poll::Ready(Ok(step != Step::End))
    }

    /// Tells the client that who serves it is not there.
    #[cfg(cluster)]
    pub(crate) fn refuse(mut self) {
        if let Some(guard) = &mut self.guard {
            guard.refuse();
        }
    }

    /// Where this worker counts.
    #[cfg(feature = "http")]
    pub(crate) fn row(&self) -> &Row {
        &self.opened().counted.registry.row
    }

    fn stream(&self) -> &Stream {
        self.opened().stream.get()
    }

    fn opened(&self) -> &Open {
        self.open.as_ref().expect("it is there until the drop")
    }

    /// What reads and writes: the socket, and the guard where there is one.
    fn parts(self: Pin<&mut Self>) -> (&mut Stream, &mut Option<Box<Guard>>) {
        let Self { open, guard, .. } = self.get_mut();
        let open = open.as_mut().expect("it is there until the drop");
        (open.stream.get_mut(), guard)
    }

    fn unguard_if_over(mut self: Pin<&mut Self>) {
        if self.guard.as_ref().is_some_and(|guard| guard.is_over()) {
            self.guard = None;
        }
    }

    /// Reads what does not take the lane.
    #[cfg(feature = "http")]
    fn poll_read_beside(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { open: Some(open), guard, traffic } = &mut *self else { return Poll::Ready(Ok(())) };
        let stream = open.stream.get_mut();
        let read = match (guard, traffic) {
            // What has been read before comes first, also what has shown that no guard is needed.
            (_, Some(traffic)) if traffic.has_returned() => {
                traffic.give(buf);
                Poll::Ready(Ok(()))
            }
            (Some(guard), Some(traffic)) => traffic.poll_read(stream, guard, cx, buf),
            _ => Pin::new(stream).poll_read(cx, buf),
        };
        self.unguard_if_over();
        read
    }

    /// Writes what its lane has for the client.
    #[cfg(feature = "http")]
    fn poll_tell(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self { open: Some(open), guard: Some(guard), traffic: Some(traffic) } => {
                traffic.poll_tell(open.stream.get_mut(), guard, cx)
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_guarded(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        #[cfg(feature = "http")]
        ready!(self.as_mut().poll_tell(cx))?;
        let (stream, guard) = self.as_mut().parts();
        let Some(guard) = guard else { return Pin::new(stream).poll_write_vectored(cx, bufs) };
        let written = ready!(guard.poll_write(stream, cx, bufs))?;
        if written.is_upgraded {
            self.mark_upgraded();
            self.unguard_if_over();
        }
        Poll::Ready(Ok(written.length))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let (Some(open), Some(guard)) = (self.open.take(), self.guard.take()) {
            guard.let_go().carry_out(open.stream.unlist(), open.counted);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        #[cfg(feature = "http")]
        if self.traffic.is_some() {
            return self.poll_read_beside(cx, buf);
        }
        let (stream, guard) = self.as_mut().parts();
        let Some(guard) = guard else { return Pin::new(stream).poll_read(cx, buf) };
        let read = guard.poll_read(stream, cx, buf);
        self.unguard_if_over();
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.as_mut().parts() {
            (stream, None) => Pin::new(stream).poll_write(cx, buf),
            (_, Some(_)) => self.poll_write_guarded(cx, &[IoSlice::new(buf)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_guarded(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        #[cfg(feature = "http")]
        ready!(self.as_mut().poll_tell(cx))?;
        Pin::new(self.as_mut().parts().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (stream, guard) = self.parts();
        match guard.as_mut().map(|guard| guard.shutdown()) {
            Some(Shutdown::Swallow) => Poll::Ready(Ok(())),
            Some(Shutdown::Pass) | None => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// One connection's share of the counts, given back when this is dropped.
pub(crate) struct Counted {
    registry: Arc<Inner>,
    is_upgraded: bool,
    is_leaving: bool,
}

impl Counted {
    /// It is open here, but another worker's already: who looks for the least loaded worker counts it there.
    #[cfg(cluster)]
    pub(crate) fn set_leaving(&mut self, is_leaving: bool) {
        match (self.is_leaving, is_leaving) {
            (false, true) => self.registry.row.connection_leaves(),
            (true, false) => self.registry.row.connection_has_left(),
            _ => {}
        }
        self.is_leaving = is_leaving;
    }

    fn mark_upgraded(&mut self) {
        if !self.is_upgraded {
            self.is_upgraded = true;
            self.registry.row.connection_upgraded();
        }
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counted").field("is_upgraded", &self.is_upgraded).finish_non_exhaustive()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.registry.row.connection_closed(self.is_upgraded);
        if self.is_leaving {
            self.registry.row.connection_has_left();
        }
        // Acquire and release: who reads zero has seen every close.
        if self.registry.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.registry.emptied.notify_waiters();
        }
        let acceptor = self.registry.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    fn unix(registry: &Registry) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (registry.register(Stream::unix(ours)), theirs)
    }

    #[tokio::test]
    async fn counts_until_dropped() {
        let row = Row::detached();
        let registry = Registry::new(row.clone());
        let (mut first, _peer) = unix(&registry);
        let (second, _peer) = unix(&registry);
        first.mark_upgraded();
        first.mark_upgraded();
        assert_eq!((registry.open(), row.connections_open(), row.upgraded_open()), (2, 2, 1));
        drop(first);
        assert_eq!((registry.open(), row.connections_open(), row.upgraded_open()), (1, 1, 0));
        drop(second);
        assert_eq!((registry.open(), row.connections_open(), row.upgraded_open()), (0, 0, 0));
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_connection() {
        let registry = Registry::new(Row::detached());
        registry.idle().await;
        let (connection, _peer) = unix(&registry);
        let idle = tokio::spawn({
            let registry = registry.clone();
            async move { registry.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!idle.is_finished());
        drop(connection);
        idle.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_at_zero() {
        for _ in 0..2000 {
            let registry = Registry::new(Row::detached());
            let (connection, _peer) = unix(&registry);
            let dropper = tokio::spawn(async move { drop(connection) });
            tokio::time::timeout(Duration::from_secs(10), registry.idle()).await.expect("a lost wake-up");
            dropper.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_close_makes_room() {
        let registry = Registry::new(Row::detached());
        let (first, _peer) = unix(&registry);
        let limit = NonZeroUsize::MIN;
        let room = tokio::spawn({
            let registry = registry.clone();
            async move { std::future::poll_fn(|cx| registry.poll_room(cx, limit)).await }
        });
        tokio::task::yield_now().await;
        assert!(!room.is_finished());
        drop(first);
        room.await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_client_reads_a_clean_end() {
        let registry = Registry::new(Row::detached());
        let (mut connection, mut peer) = unix(&registry);
        connection.write_all(b"last words").await.unwrap();
        assert_eq!(registry.cut(10), 1);
        assert_eq!(registry.cut(10), 0);
        let mut read = String::new();
        peer.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "last words");
        assert!(connection.write_all(b"more").await.is_err());
        assert_eq!(registry.open(), 1);
    }

    #[tokio::test]
    async fn an_ipv4_client_of_a_dual_stack_listener_has_an_ipv4_address() {
        let listener = match TcpListener::bind("[::]:0").await {
            Ok(listener) => listener,
            // No IPv6 here.
            Err(_) => TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let registry = Registry::new(Row::detached());
        let (stream, peer) = listener.accept().await.unwrap();
        let connection = registry.register(Stream::tcp(stream, peer));
        assert_eq!(connection.peer_addr(), Some(client.local_addr().unwrap()));
        assert_eq!(connection.local_addr(), Some(client.peer_addr().unwrap()));
    }
}
