//! socketioxide's names, with our adapter in place of its own: an import changes, handlers do not.

#[cfg(feature = "extensions")]
pub use socketioxide::extensions;
pub use socketioxide::{
    AckError, BroadcastError, EmitWithAckError, NsInsertError, ParserConfig, ParserError, ProtocolVersion, SendError,
    SocketError, SocketIoBuilder, SocketIoConfig, TransportType, handler,
};

use crate::adapter::Adapter;

pub use self::extract::{AckSender, SocketRef};

/// The server: see [`socketioxide::SocketIo`]. Its builder is [`SocketIoBuilder`].
pub type SocketIo<A = Adapter> = socketioxide::SocketIo<A>;

/// See [`socketioxide::extract`].
pub mod extract {
    pub use socketioxide::extract::*;

    use crate::adapter::Adapter;

    /// The socket that an event is for: see [`socketioxide::extract::SocketRef`].
    pub type SocketRef<A = Adapter> = socketioxide::extract::SocketRef<A>;

    /// Acknowledges an event: see [`socketioxide::extract::AckSender`].
    pub type AckSender<A = Adapter> = socketioxide::extract::AckSender<A>;
}

/// See [`socketioxide::socket`].
pub mod socket {
    pub use socketioxide::socket::*;

    use crate::adapter::Adapter;

    /// A socket: see [`socketioxide::socket::Socket`].
    pub type Socket<A = Adapter> = socketioxide::socket::Socket<A>;

    /// A socket in any worker: see [`socketioxide::socket::RemoteSocket`].
    pub type RemoteSocket<A = Adapter> = socketioxide::socket::RemoteSocket<A>;
}

/// See [`socketioxide::operators`].
pub mod operators {
    use crate::adapter::Adapter;

    /// Whom to emit to: see [`socketioxide::operators::BroadcastOperators`].
    pub type BroadcastOperators<A = Adapter> = socketioxide::operators::BroadcastOperators<A>;

    /// How to emit: see [`socketioxide::operators::ConfOperators`].
    pub type ConfOperators<'a, A = Adapter> = socketioxide::operators::ConfOperators<'a, A>;
}

/// See [`socketioxide::ack`].
pub mod ack {
    pub use socketioxide::ack::*;

    use crate::adapter::Adapter;

    /// The acknowledgements of a broadcast: see [`socketioxide::ack::AckStream`].
    pub type AckStream<T, A = Adapter> = socketioxide::ack::AckStream<T, A>;
}
