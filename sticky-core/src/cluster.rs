//! The front door: from a builder to a running cluster. Wires the rest together and decides nothing.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{ClusterBuilder, Config, ConfigError, Environment, Machine};
use crate::listener::ListenAddress;
use crate::role;
use crate::worker::{Preparation, StandaloneError, Worker, standalone};

/// Any error, so that `?` works on all of them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A program that is about to become a supervisor and its workers.
///
/// ```no_run
/// use sticky_core::Cluster;
///
/// fn main() -> Result<(), sticky_core::RunError> {
///     let cluster = Cluster::builder().workers(4).listen("127.0.0.1:3000").build()?;
///     cluster.run(|worker| async {
///         println!("worker {} of {}", worker.id(), worker.workers());
///         let mut connections = worker.ready();
///         while let Some(connection) = connections.accept().await {
///             drop(connection); // serve it
///         }
///         connections.finish().await;
///         Ok(())
///     })
/// }
/// ```
#[derive(Debug)]
#[must_use = "a cluster does nothing until it is entered or run"]
pub struct Cluster {
    config: Config,
    /// What the configuration was made of.
    builder: ClusterBuilder,
    /// What comes before the workers.
    preparation: Option<Preparation>,
}

impl ClusterBuilder {
    /// Resolves every setting and chooses the dispatch.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with everything that is wrong, at once.
    pub fn build(self) -> Result<Cluster, ConfigError> {
        let config = self.clone().resolve(&Environment::of_process(), &Machine::detect())?;
        if config.workers == 0 {
            role::set_standalone();
        }
        Ok(Cluster { config, builder: self, preparation: None })
    }
}

/// What entering the cluster has made of this process.
enum Entered {
    Worker(Worker),
    #[cfg(cluster)]
    Supervisor(crate::supervisor::Running),
}

impl Cluster {
    /// The settings of a cluster; see [`ClusterBuilder`].
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// The same cluster with what an integration takes by default: see `ClusterBuilder::usually`.
    #[doc(hidden)]
    pub fn usually(self, affinity: crate::Affinity, placement: crate::Placement) -> Result<Self, ConfigError> {
        Ok(Self { preparation: self.preparation, ..self.builder.usually(affinity, placement).build()? })
    }

    /// Has this done once before the workers start, and once before each reload starts the first new one, from the new
    /// program: migrations, for example. It runs in a process of its own, on a runtime of one thread; not in a worker that is
    /// started again, nor in one that is recycled. What is left of it when it is done ends with its process.
    ///
    /// If it fails, or takes longer than [`prepare_timeout`](ClusterBuilder::prepare_timeout), the program ends with the error,
    /// and a reload stops: the old workers go on. A second call replaces the first.
    ///
    /// ```no_run
    /// use sticky_core::{BoxError, Cluster};
    ///
    /// fn main() -> Result<(), sticky_core::RunError> {
    ///     let cluster = Cluster::builder().build()?.prepare(|| async {
    ///         // migrate(connect().await?).await?;
    ///         Ok::<_, BoxError>(())
    ///     });
    ///     cluster.run(|worker| async move { Ok(worker.ready().finish().await) })
    /// }
    /// ```
    ///
    /// Old workers serve while it runs before a reload, so what it changes must suit both. A program that had nothing to prepare
    /// when it was started needs a restart to begin with that. Without a cluster it runs in this process, before anything else.
    pub fn prepare<F, Fut, E>(mut self, prepare: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: Into<BoxError>,
    {
        self.preparation = Some(Preparation::new(prepare));
        self
    }

    /// Makes this process what it is in the cluster. Blocking, and best called before there is any runtime: only
    /// workers return, and a process that serves without a cluster.
    ///
    /// The supervisor ends the process with status 0 when everything has ended as asked, and so does a proxy.
    ///
    /// ```no_run
    /// let worker = sticky_core::Cluster::builder().build()?.enter()?;
    /// // Only workers come here.
    /// # Ok::<(), sticky_core::RunError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`], in the supervisor when the cluster did not start, in a worker when it could not join.
    pub fn enter(self) -> Result<Worker, StartError> {
        match self.become_something()? {
            Entered::Worker(worker) => Ok(worker),
            #[cfg(cluster)]
            Entered::Supervisor(running) => {
                supervised(crate::worker::block_on(running.outcome()))?;
                std::process::exit(0);
            }
        }
    }

    /// As [`enter`](Self::enter), inside a runtime: `None` in the supervisor, once everything has ended as asked.
    ///
    /// The supervisor has a thread and a runtime of its own; this only waits for it. When it replaces itself (SIGUSR2), everything
    /// else in its process ends without notice, this future and other tasks included, and `main` begins anew. Dropping the future there, as
    /// `select!` does, ends the cluster as SIGTERM would, and waits for that, blocking.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub async fn enter_async(self) -> Result<Option<Worker>, StartError> {
        match self.become_something()? {
            Entered::Worker(worker) => Ok(Some(worker)),
            #[cfg(cluster)]
            Entered::Supervisor(running) => supervised(running.outcome().await).map(|()| None),
        }
    }

    /// Runs `application` in every worker, on a runtime made for it: of one thread, or of `threads_per_worker`.
    ///
    /// When the supervisor replaces itself (SIGUSR2), everything else in its process ends without notice, and `main` begins anew.
    ///
    /// Returns in a worker when the application does, and in the supervisor after the last worker. What follows has
    /// `exit_timeout` (5 s). The future need be neither `Send` nor `'static`.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the cluster did not start, or the application failed. A worker that fails before it is ready
    /// ends the whole cluster at its start; later it is started again.
    pub fn run<F, Fut>(self, application: F) -> Result<(), RunError>
    where
        F: FnOnce(Worker) -> Fut,
        Fut: Future<Output = Result<(), BoxError>>,
    {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(RunError::InsideRuntime);
        }
        let threads = self.config.threads_per_worker.get();
        let worker = match self.become_something()? {
            Entered::Worker(worker) => worker,
            #[cfg(cluster)]
            Entered::Supervisor(running) => return Ok(supervised(crate::worker::block_on(running.outcome()))?),
        };
        let runtime = runtime(threads).map_err(RunError::Runtime)?;
        let outcome = runtime.block_on(application(worker.clone()));
        // Blocking tasks that the application left behind must not hold up the end.
        runtime.shutdown_background();
        outcome.map_err(|error| {
            worker.fail(error.as_ref());
            RunError::Application(error)
        })
    }

    /// Runs an application that listens by itself: in every worker with another port, on which proxies ask it. For any
    /// framework that can do no more than listen.
    ///
    /// ```no_run
    /// use std::net::Ipv4Addr;
    /// use sticky_core::Cluster;
    ///
    /// fn main() -> Result<(), sticky_core::RunError> {
    ///     Cluster::builder().workers(4).build()?.run_on_port(|port| async move {
    ///         let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    ///         loop {
    ///             let (connection, _) = listener.accept().await?;
    ///             drop(connection); // serve it
    ///         }
    ///     })
    /// }
    /// ```
    ///
    /// The worker is ready when somebody accepts connections there. Whoever listens must read whose a request is from
    /// `X-Forwarded-For` or `Forwarded`, which nobody else can set; a listener on the loopback interface is open to every
    /// user of the machine. It is asked until the last proxy has let go of it, drain or not, and then dropped:
    /// [`Worker::current`] has the [`Drain`](crate::Drain) for those who want to say goodbye before that.
    ///
    /// Ports are [`first_port`](ClusterBuilder::first_port) and those that follow, or free ones. With a fixed port a reload
    /// needs an application that sets SO_REUSEPORT: for a moment two generations listen.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run); and a setting that proxy dispatch cannot do justice to.
    ///
    /// With `workers(0)`, and where there are no clusters, the application gets the public port itself.
    #[cfg(feature = "proxy")]
    pub fn run_on_port<F, Fut>(self, application: F) -> Result<(), RunError>
    where
        F: FnOnce(u16) -> Fut,
        Fut: Future<Output = Result<(), BoxError>>,
    {
        let cluster = Self { preparation: self.preparation, ..self.builder.with_own_ports().build()? };
        let first_port = cluster.config.first_port;
        if cluster.config.workers == 0 || cfg!(not(cluster)) {
            return cluster.run_on_public_port(application);
        }
        cluster.run(move |worker| async move {
            let port = crate::worker::choose_port(first_port, worker.id())?;
            worker.clone().run_on_port(port, application(port)).await
        })
    }

    /// Runs the application alone: nobody stands in front of it.
    #[cfg(feature = "proxy")]
    fn run_on_public_port<F, Fut>(self, application: F) -> Result<(), RunError>
    where
        F: FnOnce(u16) -> Fut,
        Fut: Future<Output = Result<(), BoxError>>,
    {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(RunError::InsideRuntime);
        }
        prepare_here(self.preparation, &self.config)?;
        let public = self.config.listen.iter().find_map(ListenAddress::port).filter(|port| *port != 0);
        let port = public.map_or_else(|| crate::worker::choose_port(None, crate::WorkerId::new(0)), Ok);
        let runtime = runtime(self.config.threads_per_worker.get()).map_err(RunError::Runtime)?;
        let outcome = runtime.block_on(application(port.map_err(RunError::Runtime)?));
        runtime.shutdown_background();
        outcome.map_err(RunError::Application)
    }

    /// How many threads a worker's runtime should have.
    #[doc(hidden)]
    pub fn threads_per_worker(&self) -> std::num::NonZeroUsize {
        self.config.threads_per_worker
    }

    /// The first TCP address to listen on, as it is configured: its port may be 0, and a host name gives none.
    #[doc(hidden)]
    pub fn listen_addr(&self) -> Option<std::net::SocketAddr> {
        self.config.listen.iter().find_map(ListenAddress::socket_addr)
    }

    fn become_something(self) -> Result<Entered, StartError> {
        static ENTERED: AtomicBool = AtomicBool::new(false);
        if ENTERED.swap(true, Ordering::AcqRel) {
            return Err(StartError::AlreadyEntered);
        }
        self.take_role()
    }

    #[cfg(cluster)]
    fn take_role(self) -> Result<Entered, StartError> {
        use crate::worker::enter::enter;
        let Self { config, preparation, .. } = self;
        if role::role() == role::Role::Preparation
            && let Some(socket) = role::control_socket()
        {
            crate::worker::enter::prepare(socket, &config, preparation)?.map_err(StartError::Prepare)?;
            std::process::exit(0);
        }
        if role::role() == role::Role::Trial
            && let Some(socket) = role::control_socket()
        {
            crate::worker::enter::try_out(socket, &config)?;
            std::process::exit(0);
        }
        #[cfg(feature = "proxy")]
        if role::role() == role::Role::Proxy
            && let Some(socket) = role::control_socket()
        {
            let proxy = crate::worker::enter::enter_as_proxy(socket, &config)?;
            crate::dispatch::proxy::run(proxy, &config).map_err(StartError::Thread)?;
            std::process::exit(0);
        }
        #[cfg(feature = "admin")]
        if role::role() == role::Role::Admin
            && let Some(socket) = role::control_socket()
        {
            crate::admin::run(socket, &config).map_err(StartError::Admin)?;
            std::process::exit(0);
        }
        if let Some(socket) = role::control_socket() {
            return Ok(Entered::Worker(enter(socket, &config)?.install()));
        }
        if config.workers == 0 {
            say_without_admin(&config);
            prepare_here(preparation, &config)?;
            return Ok(Entered::Worker(standalone(&config)?.install()));
        }
        let running = crate::supervisor::start(config, preparation.is_some(), role::parcel());
        running.map(Entered::Supervisor).map_err(StartError::Thread)
    }

    #[cfg(not(cluster))]
    fn take_role(self) -> Result<Entered, StartError> {
        if self.config.workers > 1 {
            crate::notice::warn(format_args!(
                "no cluster on this platform: serving in this process instead of {} workers",
                self.config.workers
            ));
        }
        say_without_admin(&self.config);
        prepare_here(self.preparation, &self.config)?;
        Ok(Entered::Worker(standalone(&self.config)?.install()))
    }
}

/// Does what comes before the workers in this process, where there is no cluster.
fn prepare_here(preparation: Option<Preparation>, config: &Config) -> Result<(), StartError> {
    preparation.map_or(Ok(()), |preparation| preparation.run(config.prepare_timeout)).map_err(StartError::Prepare)
}

fn say_without_admin(config: &Config) {
    if !config.admin.0.is_empty() {
        crate::notice::warn(
            "no admin process without a cluster: metrics and status are not served (admin, STICKY_ADMIN)",
        );
    }
}

/// A runtime of so many threads.
fn runtime(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()
}

#[cfg(cluster)]
fn supervised(outcome: Option<Result<(), crate::supervisor::SuperviseError>>) -> Result<(), StartError> {
    outcome.ok_or(StartError::Panicked)?.map_err(StartError::Supervisor)
}

/// Why this process did not become part of a cluster.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A process can be in one cluster only.
    #[error("this process has entered a cluster already: there can be only one")]
    AlreadyEntered,
    /// The cluster did not start, or did not end as asked.
    #[cfg(cluster)]
    #[error(transparent)]
    Supervisor(#[from] crate::supervisor::SuperviseError),
    /// The worker could not join its supervisor.
    #[cfg(cluster)]
    #[error("this worker cannot join its cluster")]
    Join(#[from] crate::worker::enter::JoinError),
    /// What [`Cluster::prepare`] was given has failed, in this process.
    #[error("the preparation failed")]
    Prepare(#[source] BoxError),
    /// This process was to serve metrics and status.
    #[cfg(all(cluster, feature = "admin"))]
    #[error(transparent)]
    Admin(#[from] crate::admin::ServeError),
    /// The process cannot serve by itself.
    #[error(transparent)]
    Standalone(#[from] StandaloneError),
    /// The supervisor's thread cannot be started.
    #[error("cannot start the supervisor's thread")]
    Thread(#[source] io::Error),
    /// A bug in sticky: the supervisor's thread panicked. Its workers end by themselves.
    #[error("the supervisor panicked")]
    Panicked,
}

/// Why a program did not run to its end.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster did not start, or did not end as asked.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The call blocks, and this thread is inside a runtime already.
    #[error("this call makes its own runtime and cannot be made inside one: make it in a plain `fn main`")]
    InsideRuntime,
    /// The call cannot serve in the runtime it was made in; the text says in which it can.
    #[error("{0}")]
    WrongRuntime(&'static str),
    /// The runtime cannot be made.
    #[error("cannot make the runtime")]
    Runtime(#[source] io::Error),
    /// The application failed.
    #[error(transparent)]
    Application(BoxError),
}

/// An error and everything below it, on one line. `main` prints errors with `Debug`, so this is what users read.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut below = self.0.source();
        while let Some(error) = below {
            write!(f, ": {error}")?;
            below = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain(self), f)
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain(self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_well_when_main_returns_them() {
        let error = RunError::Start(StartError::Thread(io::Error::other("no more threads")));
        assert_eq!(format!("{error:?}"), "cannot start the supervisor's thread: no more threads");
        let error = RunError::Application("the database is down".into());
        assert_eq!(format!("{error:?}"), "the database is down");
    }

    #[tokio::test]
    async fn run_inside_a_runtime_is_an_error() {
        let cluster = Cluster::builder().workers(0).listen("127.0.0.1:0").build().unwrap();
        let error = cluster.run(|_| async { Ok(()) }).unwrap_err();
        assert!(error.to_string().contains("plain `fn main`"), "{error}");
    }
}
