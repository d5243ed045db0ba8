//! The journal: which process began to execute which request, written so that it outlives a `kill -9`.
//!
//! A client names each request in `x-request`; the testbed appends `<name> <pid>` before it does anything for it. So
//! after a failure the client can tell a request that the victim was executing from one that was never begun.

use std::collections::HashMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process;

/// Names the journal's file; without it a testbed keeps none.
pub const VARIABLE: &str = "TESTBED_JOURNAL";

/// The header in which a client names its request.
pub const REQUEST_NAME: &str = "x-request";

/// A testbed's side of the journal.
pub struct Journal {
    file: Option<File>,
}

impl Journal {
    /// The journal named by the environment, or none.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn from_env() -> io::Result<Self> {
        let path = env::var_os(VARIABLE);
        let open = |path| OpenOptions::new().append(true).create(true).open(path);
        Ok(Self { file: path.map(open).transpose()? })
    }

    /// Notes that this process begins to execute the named request.
    ///
    /// # Panics
    /// When the note cannot be written: the row's proof would be worth nothing.
    pub fn begin(&self, request: &str) {
        if let Some(mut file) = self.file.as_ref() {
            // One write to a file opened for appending is not mixed with those of other processes.
            let line = format!("{request} {}\n", process::id());
            file.write_all(line.as_bytes()).expect("a line of the journal");
        }
    }
}

/// What was begun, by the request's name: the process that did.
///
/// # Errors
/// When the journal cannot be read.
pub fn read(path: &Path) -> io::Result<HashMap<String, u32>> {
    Ok(entries(&fs::read_to_string(path)?).collect())
}

/// What was begun, by the request's name: every process that did, which should be one.
///
/// # Errors
/// When the journal cannot be read.
pub fn read_all(path: &Path) -> io::Result<HashMap<String, Vec<u32>>> {
    let mut all: HashMap<String, Vec<u32>> = HashMap::new();
    for (request, pid) in entries(&fs::read_to_string(path)?) {
        all.entry(request).or_default().push(pid);
    }
    Ok(all)
}

fn entries(text: &str) -> impl Iterator<Item = (String, u32)> {
    text.lines().filter_map(|line| line.split_once(' ')).filter_map(entry)
}

fn entry((request, pid): (&str, &str)) -> Option<(String, u32)> {
    Some((request.to_owned(), pid.parse().ok()?))
}
