//! JavaScript: scripts of `tests/js` in Node, each with a deadline.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How long a script may take on a busy machine; scripts have shorter limits of their own.
const PATIENCE: Duration = Duration::from_secs(300);

/// A script about to be run.
pub struct Script {
    name: String,
    command: Command,
}

impl Script {
    /// `node tests/js/NAME`.
    ///
    /// # Panics
    /// When its modules are not installed.
    pub fn new(name: &str) -> Self {
        let folder = folder();
        assert!(folder.join("node_modules").is_dir(), "no node_modules in {folder:?}: run `tests/run --install`");
        // Ends the script where its own limits do not.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &PATIENCE.as_secs().to_string(), "node", name]);
        command.current_dir(folder).stdin(Stdio::null());
        Self { name: name.to_owned(), command }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl ToString) -> Self {
        self.command.arg(argument.to_string());
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end; answers what it has printed.
    ///
    /// # Panics
    /// With everything it has printed, when it fails.
    pub fn run(mut self) -> String {
        let Output { status, stdout, stderr } =
            self.command.output().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{} ended with {status}:\n{out}{err}", self.name);
        out.into_owned()
    }
}

/// Where the scripts are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("js")
}
