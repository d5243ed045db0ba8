//! The program of many faults: `TESTBED_FAULT` names one, `TESTBED_FRAMEWORK` says how it serves.

use std::env;
use std::fs;
use std::future::{IntoFuture, pending};
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use actix_web::{App, HttpRequest, web};
use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use sticky_core::{Affinity, Cluster, ClusterBuilder, Role, Worker, role};
use sticky_tests::testbed::BoxError;

fn main() -> Result<(), BoxError> {
    let fault: &'static str = env::var("TESTBED_FAULT").unwrap_or_default().leak();
    in_main(fault, role())?;
    let cluster = sticky_tests::testbed::prepare::prepared(build(fault, Cluster::builder())?);
    match env::var("TESTBED_FRAMEWORK").as_deref() {
        _ if fault == "std-listener" => serve_std_listener(cluster)?,
        Ok("axum") => serve_with_axum(cluster, fault)?,
        Ok("actix") => serve_with_actix(cluster, fault)?,
        _ => serve_with_core(cluster, fault)?,
    }
    after_serve(fault);
    Ok(())
}

/// Faults before the call.
fn in_main(fault: &str, role: Role) -> Result<(), BoxError> {
    let in_worker = matches!(role, Role::Worker(_));
    match fault {
        "roles" => println!("role: {role}"),
        "descriptors" if in_worker => println!("inherited descriptors: {}", own_descriptors()?),
        "trial-exits" if role == Role::Trial => std::process::exit(3),
        "trial-hangs" if role == Role::Trial => loop {
            thread::park();
        },
        "broken-main" if in_worker => return Err("the database is not there".into()),
        "panic-in-main" if in_worker => panic!("main has a bug"),
        "exit-before-sticky" if in_worker => std::process::exit(0),
        "hang-before-sticky" if in_worker => loop {
            thread::park();
        },
        _ => {}
    }
    Ok(())
}

fn build(fault: &str, builder: ClusterBuilder) -> Result<Cluster, sticky_core::ConfigError> {
    match fault {
        "environment" => builder.env("TESTBED_CHOSEN", "by the builder"),
        "other-address" => builder.listen("127.0.0.1:1"),
        "three-workers" => builder.workers(3),
        "other-affinity" if is_handoff() => builder.affinity(Affinity::header("x-other")),
        "other-affinity" => builder.hash_seed(7),
        "three-workers-unless-said" => builder.workers(3).prefer_env(),
        _ => builder,
    }
    .build()
}

/// Under the other dispatch another affinity would be another mistake.
fn is_handoff() -> bool {
    env::var("STICKY_DISPATCH").is_ok_and(|dispatch| dispatch == "handoff")
}

fn serve_with_axum(cluster: Cluster, fault: &'static str) -> Result<(), BoxError> {
    let factory = async |worker: Worker| -> Result<Router, BoxError> {
        in_factory(fault, &worker).await?;
        Ok(router())
    };
    let serve = sticky_axum::serve_with(cluster, factory);
    match fault {
        "awaited" => runtime()?.block_on(serve.into_future())?,
        _ => serve.block()?,
    }
    Ok(())
}

fn serve_with_actix(cluster: Cluster, fault: &'static str) -> Result<(), BoxError> {
    let run = sticky_actix::run_with(cluster, async move |worker: Worker| {
        in_factory(fault, &worker).await?;
        Ok(|| App::new().default_service(web::to(async |request: HttpRequest| handle(request.path().to_owned()).await)))
    });
    match fault {
        "awaited" => actix_rt::System::new().block_on(run.into_future())?,
        "awaited-by-one-thread" => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run.into_future())?;
        }
        "awaited-by-threads" => runtime()?.block_on(run.into_future())?,
        _ => run.block()?,
    }
    Ok(())
}

fn serve_with_core(cluster: Cluster, fault: &'static str) -> Result<(), BoxError> {
    let serve = async |worker: Worker| {
        in_factory(fault, &worker).await?;
        sticky_core::http::serve(worker, service_fn(answer)).await;
        Ok::<_, BoxError>(())
    };
    match fault {
        "awaited" => runtime()?.block_on(async {
            match cluster.enter_async().await? {
                Some(worker) => serve(worker).await,
                None => Ok(()),
            }
        })?,
        "called-from-a-thread" => {
            let called = thread::spawn(move || cluster.run(serve).map_err(|error| error.to_string()));
            called.join().map_err(|_| "it panicked")??;
        }
        _ => cluster.run(serve)?,
    }
    Ok(())
}

/// `enter` before any runtime, then axum's own accept loop on the worker's listener.
fn serve_std_listener(cluster: Cluster) -> Result<(), BoxError> {
    let worker = cluster.enter()?;
    let drain = worker.drain();
    let listener = worker.into_std_listener()?;
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let drained = async move { drain.started().await };
        axum::serve(listener, router()).with_graceful_shutdown(drained).await
    })?;
    Ok(())
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

fn router() -> Router {
    Router::new().fallback(|request: axum::extract::Request| handle(request.uri().path().to_owned()))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, BoxError> {
    Ok(Response::new(Full::from(handle(request.uri().path().to_owned()).await)))
}

/// What this program serves.
async fn handle(path: String) -> &'static str {
    if env::var("TESTBED_FAULT").is_ok_and(|fault| fault == "chatty") {
        println!("{}", "chatter ".repeat(1_000));
    }
    match path.as_str() {
        "/exit" => std::process::exit(0),
        "/panic" => panic!("the handler has a bug"),
        "/sleep/500" => {
            tokio::time::sleep(Duration::from_millis(500)).await;
            "slept"
        }
        _ => "hello",
    }
}

/// Faults after the worker has entered the cluster and before it is ready.
async fn in_factory(fault: &str, worker: &Worker) -> Result<(), BoxError> {
    match fault {
        "panic-in-factory" => panic!("the factory has a bug"),
        "error-from-factory" => return Err("the factory found no database".into()),
        "never-ready" => pending().await,
        "blocked-factory" => loop {
            thread::park();
        },
        "short-life" => {
            // Ready, and gone.
            let _connections = worker.clone().ready();
            std::process::exit(4);
        }
        "heeds-sigterm" => {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::spawn(async move {
                terminate.recv().await;
                std::process::exit(9);
            });
        }
        "two-clusters" => try_second_cluster()?,
        "nested" => start_nested()?,
        "orphans" => leave_orphan()?,
        "prints" => print_everything(worker)?,
        "descriptors" => list_what_is_passed_on()?,
        "environment" => {
            println!("inherited: {}", env::var("TESTBED_INHERITED")?);
            println!("chosen: {}", env::var("TESTBED_CHOSEN")?);
            println!("worker id: {}", env::var("STICKY_WORKER_ID")?);
        }
        _ => {}
    }
    Ok(())
}

/// The kinds of this process's descriptors, without the one that lists them.
fn own_descriptors() -> io::Result<String> {
    let mut kinds = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        if let Ok(kind) = fs::read_link(entry.path())
            && !kind.ends_with("fd")
        {
            kinds.push((entry.file_name().to_string_lossy().parse::<u32>(), kind.display().to_string()));
        }
    }
    kinds.sort_by_key(|(number, _)| number.clone().unwrap_or_default());
    Ok(kinds.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>().join(" "))
}

fn list_what_is_passed_on() -> Result<(), BoxError> {
    let output = Command::new("ls").arg("/proc/self/fd").output()?;
    let numbers: Vec<String> = String::from_utf8(output.stdout)?.split_whitespace().map(str::to_owned).collect();
    println!("passed on: {}", numbers.join(" "));
    Ok(())
}

fn try_second_cluster() -> Result<(), BoxError> {
    let told = match Cluster::builder().build()?.enter() {
        Ok(_) => "entered".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("second cluster: {told}");
    Ok(())
}

/// Starts another program that uses sticky, with this worker's whole environment.
fn start_nested() -> Result<(), BoxError> {
    Command::new(env::var("TESTBED_NESTED")?).stdin(Stdio::null()).spawn()?;
    Ok(())
}

/// Leaves a process without a parent: its own has ended by the time the shell returns.
fn leave_orphan() -> Result<(), BoxError> {
    Command::new("sh").args(["-c", "sleep 0.1 & sleep 0.2 &"]).status()?;
    println!("orphan left");
    Ok(())
}

fn print_everything(worker: &Worker) -> io::Result<()> {
    println!("out of worker {}", worker.id());
    eprintln!("err of worker {}", worker.id());
    let mut out = io::stdout().lock();
    out.write_all(b"binary \xff\xfe\n")?;
    writeln!(out, "{}", "l".repeat(100_000))?;
    writeln!(out, "last printed line")
}

fn after_serve(fault: &str) {
    let here = match role() {
        Role::Worker(_) => "worker",
        _ => "supervisor",
    };
    let asked = env::var("TESTBED_FAREWELL_IN").map_or(true, |place| place == here);
    let time = env::var("TESTBED_FAREWELL").ok().and_then(|time| time.parse().ok());
    if fault == "slow-farewell" {
        if let Some(time) = time.filter(|_| asked) {
            thread::sleep(Duration::from_millis(time));
        }
        println!("farewell ended");
    }
}
