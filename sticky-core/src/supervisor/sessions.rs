//! The session table as its owner sees it: made at start, kept free of what has long expired.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::config::Config;
use crate::id::WorkerId;
use crate::placement::SessionTable;
use crate::session::{Sessions, boot_seconds};
use crate::sys::memory::{SharedWords, create_sealed};

/// The memory of the session table.
#[derive(Debug)]
pub(super) struct TableOwner {
    file: OwnedFd,
    memory: SharedWords,
    idle_timeout: Duration,
    /// When it was swept last, on the table's clock.
    swept: u64,
}

impl TableOwner {
    /// A new table, if the configuration needs one.
    pub(super) fn new(config: &Config) -> io::Result<Option<Self>> {
        let Some(capacity) = Sessions::table_capacity(config) else { return Ok(None) };
        let file = create_sealed("sticky-sessions", SessionTable::words_for(capacity.get()))?;
        let memory = SharedWords::map(&file)?;
        let idle_timeout = config.session_idle_timeout;
        Ok(Some(Self { file, memory, idle_timeout, swept: boot_seconds() }))
    }

    /// A table that there was before, if the configuration needs one.
    ///
    /// # Errors
    ///
    /// There is none, or it is no memory of ours.
    pub(super) fn resumed(config: &Config, file: Option<OwnedFd>) -> io::Result<Option<Self>> {
        if Sessions::table_capacity(config).is_none() {
            return Ok(None);
        }
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let memory = SharedWords::map(&file)?;
        Ok(Some(Self { file, memory, idle_timeout: config.session_idle_timeout, swept: boot_seconds() }))
    }

    /// Forgets what the slots from this one on had when they were in use before: their sessions have gone on elsewhere.
    pub(super) fn forget_from(&self, first: WorkerId) {
        SessionTable::new(self.memory.words(), self.idle_timeout).forget_from(first);
    }

    /// Empties what has expired, as seldom as the table needs it.
    pub(super) fn sweep(&mut self) {
        let now = boot_seconds();
        if now.saturating_sub(self.swept) > self.idle_timeout.as_secs().max(1) * 100 {
            self.swept = now;
            SessionTable::new(self.memory.words(), self.idle_timeout).sweep(now);
        }
    }
}

impl AsFd for TableOwner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
