//! The command line.

use std::ffi::OsString;

use clap::{Args, Parser};
use sticky_core::{Affinity, ClusterBuilder, Dispatch, Placement};

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

    #[test]
    fn builds_with_what_was_given() {
        let run = parse("sticky run -n 2 -l 127.0.0.1:0 --placement round-robin --no-sockets --proxy-workers 2 -- x")
            .unwrap();
        assert!(run.settings(sticky_core::Cluster::builder()).build().is_ok());
    }
}
