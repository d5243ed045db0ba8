//! The testbed for `sticky-socketio`: a Socket.IO server as a user would write it, configured by `STICKY_*` alone.
//!
//! `TESTBED_PING=300/200` sets the ping interval and timeout in milliseconds, `TESTBED_CONNECT_TIMEOUT` how long a client
//! has for its first namespace, `TESTBED_PARSER=msgpack` the parser. With `TESTBED_ENGINE=1` it is a plain Engine.IO echo;
//! with `TESTBED_ONE_CALL` it is served by the one call that does so.

use axum::Router;
use axum::routing::{get, post};
use sticky_socketio::{Cluster, Worker};
use sticky_tests::testbed::socketio::{builder, engine, namespaces, server};
use sticky_tests::testbed::{self, BoxError};
use tower_http::cors::CorsLayer;

fn main() -> Result<(), BoxError> {
    if std::env::var_os("TESTBED_ONE_CALL").is_some() {
        return one_call();
    }
    let cluster = sticky_socketio::cluster_builder().build()?;
    let serve = sticky_axum::serve_with(cluster, |worker: Worker| async move {
        testbed::obey_environment(&worker);
        let router = Router::new()
            .route("/", get(async |worker: sticky_axum::Worker| format!("worker: {}", worker.id())))
            .route("/crash", post(async || -> axum::http::StatusCode { testbed::crash() }));
        let router = if std::env::var_os("TESTBED_ENGINE").is_some() {
            engine(&worker, router)?
        } else {
            server(&worker, router).await?
        };
        Ok(router.layer(CorsLayer::very_permissive()))
    });
    Ok(serve.block()?)
}

/// As somebody writes it who needs no middleware.
fn one_call() -> Result<(), BoxError> {
    let cluster = Cluster::builder().build()?;
    let serve = sticky_socketio::serve_with(cluster, |worker, io| async move {
        testbed::obey_environment(&worker);
        namespaces(&worker, &io).await?;
        Ok(Router::new())
    });
    Ok(serve.socket_io(builder()?).block()?)
}
