//! The testbed for `sticky-socketio` inside actix: what `testbed-socketio` is, mounted in an actix application. With
//! `TESTBED_ONE_CALL` it is served by the one call that does so.

use actix_cors::Cors;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpResponse, web};
use sticky_socketio::Cluster;
use sticky_tests::testbed::socketio::{actix_engine, actix_server, builder, namespaces};
use sticky_tests::testbed::{self, BoxError};

fn main() -> Result<(), BoxError> {
    if std::env::var_os("TESTBED_ONE_CALL").is_some() {
        return one_call();
    }
    let cluster = sticky_socketio::cluster_builder().build()?;
    let is_engine = std::env::var_os("TESTBED_ENGINE").is_some();
    let run = sticky_actix::run_with(cluster, move |worker| async move {
        testbed::obey_environment(&worker);
        let engine = is_engine.then(|| actix_engine(&worker)).transpose()?;
        let server = if is_engine { None } else { Some(actix_server(&worker).await?) };
        Ok(move || {
            let mount = |app: &mut ServiceConfig| {
                engine.clone().map(|engine| app.service(engine));
                server.clone().map(|server| app.service(server));
            };
            App::new().wrap(Cors::permissive()).configure(mount).configure(routes)
        })
    });
    Ok(run.block()?)
}

/// As somebody writes it who needs no middleware.
fn one_call() -> Result<(), BoxError> {
    let cluster = Cluster::builder().build()?;
    let run = sticky_socketio::actix::run_with(cluster, |worker, io| async move {
        testbed::obey_environment(&worker);
        namespaces(&worker, &io).await?;
        Ok(routes)
    });
    Ok(run.socket_io(builder()?).block()?)
}

fn routes(app: &mut ServiceConfig) {
    app.route("/", web::get().to(async |worker: sticky_actix::Worker| format!("worker: {}", worker.id())))
        .route("/crash", web::post().to(async || -> HttpResponse { testbed::crash() }));
}
