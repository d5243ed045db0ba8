//! What the environment says of Socket.IO.

use std::env;
use std::time::Duration;

use engineioxide::config::EngineIoConfig;
use sticky_socketio::{ParserConfig, SocketIoBuilder};

use crate::testbed::BoxError;

const MAX_PAYLOAD: u64 = 1_000_000;

/// What is set by default is socketioxide's default.
pub(super) fn socket_io() -> Result<SocketIoBuilder, BoxError> {
    let mut builder = SocketIoBuilder::new().max_payload(MAX_PAYLOAD);
    if let Some((interval, timeout)) = ping()? {
        builder = builder.ping_interval(interval).ping_timeout(timeout);
    }
    if let Some(timeout) = text("TESTBED_CONNECT_TIMEOUT")? {
        builder = builder.connect_timeout(milliseconds(&timeout)?);
    }
    Ok(match text("TESTBED_PARSER")?.as_deref() {
        None | Some("common") => builder,
        Some("msgpack") => builder.with_parser(ParserConfig::msgpack()),
        Some(other) => return Err(format!("{other:?} is not a parser: common or msgpack").into()),
    })
}

pub(super) fn engine() -> Result<EngineIoConfig, BoxError> {
    let mut builder = EngineIoConfig::builder().max_payload(MAX_PAYLOAD);
    if let Some((interval, timeout)) = ping()? {
        builder = builder.ping_interval(interval).ping_timeout(timeout);
    }
    Ok(builder.build())
}

/// The interval and the timeout.
fn ping() -> Result<Option<(Duration, Duration)>, BoxError> {
    let Some(text) = text("TESTBED_PING")? else { return Ok(None) };
    let (interval, timeout) = text.split_once('/').ok_or_else(|| format!("{text:?} is not two times like 300/200"))?;
    Ok(Some((milliseconds(interval)?, milliseconds(timeout)?)))
}

fn milliseconds(text: &str) -> Result<Duration, BoxError> {
    let milliseconds = text.parse().map_err(|_| format!("{text:?} is not a number of milliseconds"))?;
    Ok(Duration::from_millis(milliseconds))
}

fn text(name: &str) -> Result<Option<String>, BoxError> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{name}: {error}").into()),
    }
}
