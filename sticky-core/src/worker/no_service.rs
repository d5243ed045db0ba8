//! There is no service manager on this platform.

use std::future::pending;

use crate::config::Config;
use crate::scoreboard::Row;

/// Nobody hears anything.
#[derive(Clone)]
pub(super) struct Service;

impl Service {
    pub(super) fn of_environment(_: &Config, _: Row) -> Self {
        Self
    }

    pub(super) fn ready(&self) {}

    pub(super) fn stopping(&self) {}

    pub(super) async fn run(self) {
        pending().await
    }
}
