//! What can go wrong on the way to a worker, and what the client is told of it. Nothing of the inside is in there.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::Answer;

/// Why a request was not forwarded, or got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It could mean two things, or is no HTTP/1.1: hosts other than one.
    BadRequest,
    /// With the headers that say who the client is there would be more than workers accept.
    TooManyHeaders,
    /// It asks for another protocol, and those are switched off.
    NoSockets,
    /// It asks for what this proxy does not do.
    NotImplemented,
    /// The worker is not there, and nobody stands in for it.
    Unavailable,
    /// The worker broke off before it had answered.
    BrokenOff,
    /// The worker takes too long.
    TimedOut,
}

impl Fault {
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoSockets | Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::BrokenOff => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn body(self) -> &'static str {
        match self {
            Self::BadRequest => r#"{"error":"proxy_error","reason":"ambiguous_request"}"#,
            Self::TooManyHeaders => r#"{"error":"proxy_error","reason":"too_many_headers"}"#,
            Self::NoSockets => r#"{"error":"proxy_error","reason":"no_sockets"}"#,
            Self::NotImplemented => r#"{"error":"proxy_error","reason":"not_implemented"}"#,
            Self::Unavailable => r#"{"error":"proxy_error","reason":"worker_unavailable"}"#,
            Self::BrokenOff => r#"{"error":"proxy_error","reason":"worker_broke_off"}"#,
            Self::TimedOut => r#"{"error":"proxy_error","reason":"worker_timed_out"}"#,
        }
    }

    /// The answer to the client.
    pub(super) fn response(self) -> Response<Answer> {
        let mut response = Response::new(Answer::whole(Bytes::from_static(self.body().as_bytes())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(self, Self::BadRequest | Self::TooManyHeaders) {
            // Nobody knows what follows.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self == Self::Unavailable {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_json_with_a_reason() {
        use Fault::*;
        for fault in [BadRequest, TooManyHeaders, NoSockets, NotImplemented, Unavailable, BrokenOff, TimedOut] {
            let body: serde_json::Value = serde_json::from_str(fault.body()).unwrap();
            assert_eq!(body["error"], "proxy_error");
            assert!(body["reason"].is_string(), "{fault:?}");
            assert_eq!(fault.response().headers()[CONTENT_TYPE], "application/json");
        }
        assert_eq!(Unavailable.response().headers()[RETRY_AFTER], "1");
    }
}
