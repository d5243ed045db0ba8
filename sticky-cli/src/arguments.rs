//! The command line.

use std::ffi::OsString;
use std::path::Path;

use clap::{Args, Parser};
#[cfg(unix)]
use sticky_core::admin::Command;
use sticky_core::{Affinity, ClusterBuilder, Dispatch, ListenAddresses, Placement};
#[cfg(unix)]
use sticky_core::{ListenAddress, WorkerId};

/// Runs any program that listens on a port on every core, each client always on the same one.
#[derive(Debug, Parser)]
#[command(name = "sticky", version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Subcommand,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Starts a program several times, and stands in front of it.
    ///
    /// The program finds the port to listen on (on the loopback interface) in PORT, and its number in STICKY_WORKER_ID.
    /// Settings that have no option here are environment variables: STICKY_FAILOVER=5s, STICKY_TRUSTED_PROXIES=10.0.0.0/8.
    Run(Run),
    /// Shows how a cluster is.
    #[cfg(unix)]
    Status(Status),
    /// Has every worker replaced by a new one, from the program as it is now, without losing a request.
    #[cfg(unix)]
    Reload(Reload),
    /// Does the same for one worker.
    #[cfg(unix)]
    Restart(OneWorker),
    /// Lets one worker finish what it executes and end. Its clients go to the next one, until a restart or a reload.
    #[cfg(unix)]
    Drain(OneWorker),
    /// Adds workers, or takes the last ones out, until there are so many. Only the clients that must change worker do.
    #[cfg(unix)]
    Scale(Scale),
    /// Has the supervisor replace itself by the program as it is now. Workers and connections stay as they are.
    #[cfg(unix)]
    Reexec(Reload),
    /// Prints what happens in a cluster, as it happens: a line of JSON for each thing.
    #[cfg(unix)]
    Events(Where),
}

/// How it went, for scripts.
#[cfg(unix)]
const EXIT_CODES: &str = "Exit status: 0 it is done, or has begun without --wait; 1 it was given up, and the cluster goes on \
                          as it was; 2 a mistake on the command line; 3 the cluster cannot be reached, or has ended \
                          meanwhile; 4 it was refused.";

/// Which cluster.
#[cfg(unix)]
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The unix socket of the cluster's admin process [default: what STICKY_ADMIN says]
    #[arg(long, value_name = "PATH")]
    admin: Option<String>,
}

#[cfg(unix)]
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 it is shown; 2 a mistake on the command line; 3 the cluster cannot be reached.")]
pub(crate) struct Status {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    options: StatusOptions,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// Look every second
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// As a line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(unix)]
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Reload {
    #[command(flatten)]
    at: Where,
    /// Wait until it is done, and show how far it is
    #[arg(long)]
    wait: bool,
}

#[cfg(unix)]
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct OneWorker {
    #[command(flatten)]
    at: Where,
    /// Wait until it is done, and show how far it is
    #[arg(long)]
    wait: bool,
    /// The worker's number
    #[arg(value_name = "SLOT")]
    worker: u16,
}

#[cfg(unix)]
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Scale {
    #[command(flatten)]
    at: Where,
    /// Wait until it is done
    #[arg(long)]
    wait: bool,
    /// How many workers there are to be: at most STICKY_MAX_WORKERS
    #[arg(value_name = "WORKERS")]
    workers: u16,
}

/// What is asked of a running cluster.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) enum Remote {
    Status(StatusOptions),
    Events,
    Command(Ask),
}

/// A command, and whether its end is waited for.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) command: Command,
    pub(crate) wait: bool,
}

/// What to do: here, or to which running cluster.
#[derive(Debug)]
pub(crate) enum Task {
    Run(Run),
    #[cfg(unix)]
    Ask(Remote, Where),
}

impl Subcommand {
    pub(crate) fn task(self) -> Task {
        #[cfg(unix)]
        let ask = |at, command, wait| Task::Ask(Remote::Command(Ask { command, wait }), at);
        match self {
            Self::Run(run) => Task::Run(run),
            #[cfg(unix)]
            Self::Status(Status { at, options }) => Task::Ask(Remote::Status(options), at),
            #[cfg(unix)]
            Self::Reload(Reload { at, wait }) => ask(at, Command::Reload, wait),
            #[cfg(unix)]
            Self::Restart(OneWorker { at, wait, worker }) => {
                ask(at, Command::Restart { worker: WorkerId::new(worker) }, wait)
            }
            #[cfg(unix)]
            Self::Drain(OneWorker { at, wait, worker }) => {
                ask(at, Command::Drain { worker: WorkerId::new(worker) }, wait)
            }
            #[cfg(unix)]
            Self::Scale(Scale { at, wait, workers }) => ask(at, Command::Scale { workers }, wait),
            #[cfg(unix)]
            Self::Reexec(Reload { at, wait }) => ask(at, Command::Reexec, wait),
            #[cfg(unix)]
            Self::Events(at) => Task::Ask(Remote::Events, at),
        }
    }
}

#[cfg(unix)]
impl Where {
    /// The path of the socket: of several addresses the first that is one.
    ///
    /// # Errors
    ///
    /// What is missing or wrong.
    pub(crate) fn path(&self, variable: Option<String>) -> Result<String, String> {
        let (name, text) = match (&self.admin, variable.filter(|text| !text.is_empty())) {
            (Some(text), _) => ("--admin", text.clone()),
            (None, Some(text)) => ("STICKY_ADMIN", text),
            (None, None) => return Err("which cluster? Say --admin PATH, or set STICKY_ADMIN".to_owned()),
        };
        if Path::new(&text).is_absolute() {
            return Ok(text);
        }
        let mut paths = text.split(',').filter_map(|address| match address.trim().parse() {
            Ok(ListenAddress::Unix(path)) => Some(path.to_string_lossy().into_owned()),
            _ => None,
        });
        paths.next().ok_or(format!("{name} {text:?} names no unix socket like `unix:/run/app.admin.sock`"))
    }
}

/// See [`Subcommand::Run`].
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How many times the program runs [default: the CPUs there are]
    #[arg(short = 'n', long, value_name = "N")]
    workers: Option<usize>,
    /// Where clients come in, like `:3000`, `127.0.0.1:3000` or `unix:/run/app.sock` [default: :5000]
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// What of a client decides who serves it, like `client-ip`, `cookie:sid`, `cookie:sid+learn` or `sticky-cookie`
    #[arg(short, long, value_name = "KEY")]
    affinity: Option<Affinity>,
    /// Where new sessions go: `rendezvous`, `round-robin` or `fewest-connections`
    #[arg(long, value_name = "KIND")]
    placement: Option<Placement>,
    /// The port of the first; the others have those that follow [default: free ones]
    #[arg(long, value_name = "PORT")]
    first_port: Option<u16>,
    /// How many proxies stand in front
    #[arg(long, value_name = "N")]
    proxy_workers: Option<u16>,
    /// Refuse WebSockets
    #[arg(long)]
    no_sockets: bool,
    /// Where metrics and status are served and commands are taken, like `unix:/run/app.admin.sock`
    #[arg(long, value_name = "ADDRESS")]
    admin: Vec<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

impl Run {
    /// The settings that were given.
    pub(crate) fn settings(&self, builder: ClusterBuilder) -> ClusterBuilder {
        // Programs can do no more than listen on a port.
        let mut builder = builder.dispatch(Dispatch::Proxy);
        for address in &self.listen {
            builder = builder.listen(address.as_str());
        }
        for address in &self.admin {
            // As the commands that ask there take it, too.
            let is_path = Path::new(address).is_absolute();
            builder = builder.admin(if is_path { Path::new(address).into() } else { ListenAddresses::from(address) });
        }
        if let Some(workers) = self.workers {
            builder = builder.workers(workers);
        }
        if let Some(affinity) = &self.affinity {
            builder = builder.affinity(affinity.clone());
        }
        if let Some(placement) = self.placement {
            builder = builder.placement(placement);
        }
        if let Some(port) = self.first_port {
            builder = builder.first_port(port);
        }
        if let Some(processes) = self.proxy_workers {
            builder = builder.proxy_workers(processes);
        }
        if self.no_sockets {
            builder = builder.no_sockets(true);
        }
        builder
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Run, String> {
        match Arguments::try_parse_from(line.split(' ')) {
            Ok(Arguments { command: Subcommand::Run(run) }) => Ok(run),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_program_has_its_own_options() {
        let run =
            parse("sticky run --workers 4 --listen :3000 --affinity cookie:sid -- node --inspect server.js").unwrap();
        assert_eq!(run.program, ["node", "--inspect", "server.js"]);
        assert_eq!((run.workers, run.listen), (Some(4), vec![":3000".to_owned()]));
        assert_eq!(run.affinity, Some("cookie:sid".parse().unwrap()));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, words) in [
            ("sticky run", "<PROGRAM>"),
            ("sticky run --affinity moon -- node", "moon"),
            ("sticky run --placement moon -- node", "moon"),
            ("sticky run --first-port 70000 -- node", "70000"),
            ("sticky run --workers many -- node", "many"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn clusters_are_found_by_option_or_variable() {
        let at = |admin: Option<&str>, variable: Option<&str>| {
            Where { admin: admin.map(str::to_owned) }.path(variable.map(str::to_owned))
        };
        let path = || Ok("/run/a.sock".to_owned());
        assert_eq!(at(Some("/run/a.sock"), Some("unix:/b")), path());
        assert_eq!(at(Some("unix:/run/a.sock"), None), path());
        assert_eq!(at(None, Some("127.0.0.1:9000, unix:/run/a.sock")), path());
        assert!(at(None, None).unwrap_err().contains("STICKY_ADMIN"));
        assert!(at(None, Some("")).unwrap_err().contains("--admin"));
        assert!(at(None, Some("127.0.0.1:9000")).unwrap_err().contains("names no unix socket"));
    }

    #[test]
    fn builds_with_what_was_given() {
        let run = parse(
            "sticky run -n 2 -l 127.0.0.1:0 --placement round-robin --no-sockets --proxy-workers 2 --admin /a -- x",
        )
        .unwrap();
        assert!(run.settings(sticky_core::Cluster::builder()).build().is_ok());
    }
}
