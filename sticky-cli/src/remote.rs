//! What is asked of a running cluster, by its admin socket.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use sticky_core::admin::{Client, ClientError, Command, Progress};
use tokio::time::sleep;

use crate::arguments::{Ask, Remote, StatusOptions};
use crate::table::table;

/// How often `status --watch` looks.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// How it went, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done; without `--wait`, it has begun.
    Done,
    /// It was begun and given up; the cluster goes on as it was.
    Failed,
    /// Nobody can be reached, or the cluster has ended meanwhile.
    Unreachable,
    /// It was not begun.
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // 2 is for mistakes on the command line.
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Unreachable => 3,
            Exit::Refused => 4,
        })
    }
}

/// Why it did not come to its end.
#[derive(Debug)]
enum Trouble {
    Client(ClientError),
    /// Nobody reads what is written: that is how pipes end.
    Output(io::Error),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Asks, and tells how that went.
pub(crate) fn ask(remote: &Remote, path: &str) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Unreachable),
    };
    match runtime.block_on(answer(remote, &Client::new(path))) {
        Ok(exit) => exit.into(),
        Err(Trouble::Client(error @ ClientError::Refused { .. })) => complain(&error, Exit::Refused),
        Err(Trouble::Client(error)) => complain(&error, Exit::Unreachable),
        Err(Trouble::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done.into(),
        Err(Trouble::Output(error)) => complain(&error, Exit::Unreachable),
    }
}

fn complain(error: &dyn std::error::Error, exit: Exit) -> ExitCode {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        text = format!("{text}: {error}");
        below = error.source();
    }
    eprintln!("sticky: {text}");
    exit.into()
}

async fn answer(remote: &Remote, client: &Client) -> Result<Exit, Trouble> {
    match remote {
        Remote::Status(options) => status(client, options).await,
        Remote::Events => events(client).await,
        Remote::Command(Ask { command, wait }) => command_to_its_end(client, *command, *wait).await,
    }
}

async fn status(client: &Client, StatusOptions { watch, json }: &StatusOptions) -> Result<Exit, Trouble> {
    loop {
        let status = client.status().await?;
        match (json, watch) {
            (true, _) => say(serde_json::to_string(&status).unwrap_or_default())?,
            (false, false) => say(table(&status))?,
            // From the top of an empty screen.
            (false, true) => say(format_args!("\x1b[H\x1b[2J{}", table(&status)))?,
        }
        if !watch {
            return Ok(Exit::Done);
        }
        sleep(WATCH_PERIOD).await;
    }
}

async fn events(client: &Client) -> Result<Exit, Trouble> {
    let mut events = client.events().await?;
    while let Some(event) = events.next().await? {
        say(serde_json::to_string(&event).unwrap_or_default())?;
    }
    Ok(Exit::Done)
}

async fn command_to_its_end(client: &Client, command: Command, wait: bool) -> Result<Exit, Trouble> {
    let mut words = client.command(command).await?;
    while let Some(word) = words.next().await? {
        match word {
            Progress::Failed { why } => return Ok(give_up(&why, Exit::Failed)),
            Progress::Refused { why } => return Ok(give_up(&why, Exit::Refused)),
            word => {
                say(&word)?;
                if word.is_last() || !wait {
                    return Ok(Exit::Done);
                }
            }
        }
    }
    Ok(give_up(&format!("the cluster has ended before the {command} was done"), Exit::Unreachable))
}

fn give_up(why: &str, exit: Exit) -> Exit {
    eprintln!("sticky: {why}");
    exit
}

/// One line, at once: what reads it may be a program.
fn say(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
