//! What carries a WebSocket, depending on the server that has accepted it.

use std::io;
use std::pin::Pin;
#[cfg(feature = "actix")]
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Extensions;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
#[cfg(feature = "actix")]
use tokio::io::DuplexStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What carries a WebSocket.
#[derive(Debug)]
pub struct Carrier(Kind);

#[derive(Debug)]
enum Kind {
    /// A connection that hyper has let go of.
    Hyper(TokioIo<Upgraded>),
    /// The engine's end of a [tunnel](crate::actix).
    #[cfg(feature = "actix")]
    Tunnel(DuplexStream),
}

/// A carrier that will be there once the request is answered.
pub(super) enum Coming {
    Hyper(OnUpgrade),
    #[cfg(feature = "actix")]
    Tunnel(DuplexStream),
}

impl Coming {
    /// Takes it out of a request that asks for another protocol.
    pub(super) fn take(extensions: &mut Extensions) -> Option<Self> {
        #[cfg(feature = "actix")]
        if let Some(end) = extensions.remove::<TunnelEnd>() {
            return end.take().map(Self::Tunnel);
        }
        extensions.remove::<OnUpgrade>().map(Self::Hyper)
    }

    /// Waits for it; none if the client has gone meanwhile.
    pub(super) async fn carrier(self) -> Option<Carrier> {
        match self {
            Self::Hyper(upgrade) => Some(Carrier(Kind::Hyper(TokioIo::new(upgrade.await.ok()?)))),
            #[cfg(feature = "actix")]
            Self::Tunnel(end) => Some(Carrier(Kind::Tunnel(end))),
        }
    }
}

/// The engine's end of a tunnel, in the extensions of a request that asks for one.
#[cfg(feature = "actix")]
#[derive(Clone, Debug)]
pub(crate) struct TunnelEnd(Arc<Mutex<Option<DuplexStream>>>);

#[cfg(feature = "actix")]
impl TunnelEnd {
    pub(crate) fn new(end: DuplexStream) -> Self {
        Self(Arc::new(Mutex::new(Some(end))))
    }

    pub(crate) fn take(&self) -> Option<DuplexStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Calls the same of whatever carries.
macro_rules! carried {
    ($carrier:expr, $inner:ident => $call:expr) => {
        match &mut $carrier.get_mut().0 {
            Kind::Hyper($inner) => $call,
            #[cfg(feature = "actix")]
            Kind::Tunnel($inner) => $call,
        }
    };
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        carried!(self, inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        carried!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, inner => Pin::new(inner).poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        carried!(self, inner => Pin::new(inner).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Hyper(inner) => inner.is_write_vectored(),
            #[cfg(feature = "actix")]
            Kind::Tunnel(inner) => inner.is_write_vectored(),
        }
    }
}
