//! The testbed for `sticky-socketio` inside actix: what `testbed-socketio` is, mounted in an actix application.

use actix_cors::Cors;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpResponse, web};
use sticky_tests::testbed::socketio::{actix_engine, actix_server};
use sticky_tests::testbed::{self, BoxError};

fn main() -> Result<(), BoxError> {
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

fn routes(app: &mut ServiceConfig) {
    app.route("/", web::get().to(async |worker: sticky_actix::Worker| format!("worker: {}", worker.id())))
        .route("/crash", web::post().to(async || -> HttpResponse { testbed::crash() }));
}
