//! Why a client's bytes are refused, and with what status.

use super::chunked::ChunkFault;

/// What a client sent that cannot be framed beyond doubt. The connection is answered, once, and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request line is not `method SP target SP version CRLF`.
    RequestLine,
    /// The target is neither origin, absolute, authority (`CONNECT` only) nor asterisk form.
    Target,
    /// A version other than HTTP/1.0 and HTTP/1.1, or an HTTP/2 preface after the first message.
    Version,
    /// A header name with a wrong byte: space before the colon, a folded line, no colon.
    HeaderName,
    /// A header value with a control character.
    HeaderValue,
    /// A line that does not end with CRLF where it must: a bare carriage return, a blank at the end of the request line.
    LineEnding,
    /// A line feed without its carriage return.
    BareLineFeed,
    /// No end of the head within the bound.
    HeadTooLarge,
    /// More headers than the frameworks accept.
    TooManyHeaders,
    /// Transfer-Encoding that is not exactly one `chunked`.
    TransferEncoding,
    /// Transfer-Encoding in HTTP/1.0.
    TransferEncodingInHttp10,
    /// Transfer-Encoding and Content-Length together.
    TransferEncodingWithLength,
    /// More than one Content-Length, equal or not.
    RepeatedLength,
    /// A Content-Length that is not a number of digits only, or one too large.
    InvalidLength,
    /// Upgrade without `Connection: upgrade`.
    UpgradeUnannounced,
    /// `Upgrade: websocket` in HTTP/1.0.
    UpgradeInHttp10,
    /// `Upgrade: websocket` with a body.
    UpgradeWithBody,
    /// `CONNECT` with a body.
    ConnectWithBody,
    /// A chunked body that is not framed well.
    Chunk(ChunkFault),
}

impl Refusal {
    /// The status to answer with.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::Chunk(ChunkFault::TrailersTooLarge) => 431,
            _ => 400,
        }
    }

    /// A short constant name, for counters and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Target => "target",
            Self::Version => "version",
            Self::HeaderName => "header_name",
            Self::HeaderValue => "header_value",
            Self::LineEnding => "line_ending",
            Self::BareLineFeed => "bare_line_feed",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::TransferEncoding => "transfer_encoding",
            Self::TransferEncodingInHttp10 => "transfer_encoding_in_http10",
            Self::TransferEncodingWithLength => "transfer_encoding_with_length",
            Self::RepeatedLength => "repeated_length",
            Self::InvalidLength => "invalid_length",
            Self::UpgradeUnannounced => "upgrade_unannounced",
            Self::UpgradeInHttp10 => "upgrade_in_http10",
            Self::UpgradeWithBody => "upgrade_with_body",
            Self::ConnectWithBody => "connect_with_body",
            Self::Chunk(_) => "chunk",
        }
    }
}
