//! A cluster's admin process as its clients see it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use sticky_core::admin::{Client, ClientError, Command, Happening, Lines, Progress, SlotStatus, Status};
use tokio::runtime::{Builder, Runtime};

use crate::cluster::PATIENCE;
use crate::{Connection, Request, Response, TestCluster};

/// Asks the admin process of a cluster that was [launched with one](crate::Launch::with_admin).
pub struct Admin {
    client: Client,
    runtime: Runtime,
}

/// What happens, as it happens.
pub struct Events<'a> {
    lines: Lines<Happening>,
    runtime: &'a Runtime,
}

impl Admin {
    /// That of this cluster.
    ///
    /// # Panics
    /// When there is no runtime to be had.
    pub fn of(cluster: &TestCluster) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { client: Client::new(path_in(cluster.folder())), runtime }
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        self.client.path()
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time") })
    }

    /// The status.
    ///
    /// # Panics
    /// When it is not told.
    pub fn status(&self) -> Status {
        self.try_status().expect("a status")
    }

    /// The status, if it is told.
    ///
    /// # Errors
    /// The client's.
    pub fn try_status(&self) -> Result<Status, ClientError> {
        self.wait(self.client.status())
    }

    /// The status of a worker.
    ///
    /// # Panics
    /// When there is none.
    pub fn worker(&self, number: usize) -> SlotStatus {
        self.status().slots.swap_remove(number)
    }

    /// All metrics, by their names with their labels.
    ///
    /// # Panics
    /// When they are not told, or a line is no metric.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let text = self.metrics_text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let metric = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        };
        lines.map(metric).collect()
    }

    /// The metrics as they are told.
    ///
    /// # Panics
    /// When they are not.
    pub fn metrics_text(&self) -> String {
        self.wait(self.client.metrics()).expect("metrics")
    }

    /// Gives a command; answers everything that is said about it.
    ///
    /// # Panics
    /// When it has no end.
    pub fn command(&self, command: Command) -> Vec<Progress> {
        let said = self.wait(async {
            let (mut lines, mut said) = (self.client.command(command).await?, Vec::new());
            while let Some(word) = lines.next().await? {
                said.push(word);
            }
            Ok(said)
        });
        let said = said.expect("words about it");
        assert!(said.last().is_some_and(Progress::is_last), "{said:?}");
        said
    }

    /// What happens from now on.
    ///
    /// # Panics
    /// When it is not told.
    pub fn events(&self) -> Events<'_> {
        Events { lines: self.wait(self.client.events()).expect("events"), runtime: &self.runtime }
    }

    /// Asks whatever is asked.
    ///
    /// # Errors
    /// When there is no connection, or no answer.
    pub fn raw(&self, request: &Request) -> io::Result<Response> {
        let stream = UnixStream::connect(self.path())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Connection::over(stream).exchange(request)
    }
}

impl Events<'_> {
    /// The next of this name.
    ///
    /// # Panics
    /// When it does not happen.
    pub fn expect(&mut self, name: &str) -> Happening {
        let next = async {
            loop {
                match self.lines.next().await.expect("an event") {
                    Some(event) if event.event == name => return event,
                    Some(_) => {}
                    None => panic!("no {name} has happened"),
                }
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, next).await.expect("it happens in time") })
    }

    /// Whether they come to an end, which is that of the cluster.
    pub fn end(mut self) -> bool {
        let end = async { while let Ok(Some(_)) = self.lines.next().await {} };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, end).await.is_ok() })
    }
}

/// Where the admin socket is in a cluster's private folder: where nothing may be left at the end.
pub(crate) fn path_in(folder: &Path) -> PathBuf {
    folder.join("tmp/admin.sock")
}

/// Has Prometheus' own tool check metrics.
///
/// # Panics
/// With what it says, when it does not like them.
pub fn check_metrics(text: &str) {
    let mut tool = Program::new("promtool");
    tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = tool.spawn().expect("promtool, of Debian's prometheus");
    io::Write::write_all(&mut running.stdin.take().expect("its input"), text.as_bytes()).expect("written");
    let output = running.wait_with_output().expect("its end");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}
