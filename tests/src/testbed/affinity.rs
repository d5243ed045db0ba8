//! Affinities that have no text, and so come from code.

use std::env;

use sticky_core::{Affinity, Choice, Cluster, ConfigError, RequestHead, WorkerId};

/// Names one of them: `tenant` or `worker`.
const AFFINITY: &str = "TESTBED_AFFINITY";

/// A cluster that is configured by the environment, with the affinity and the preparation it names, if it names any.
///
/// # Errors
/// As the builder says.
pub fn build() -> Result<Cluster, ConfigError> {
    let builder = Cluster::builder();
    let builder = match env::var(AFFINITY).as_deref() {
        Ok("tenant") => builder.affinity(Affinity::custom(by_tenant)),
        Ok("worker") => builder.affinity(Affinity::custom(by_worker)),
        _ => builder,
    };
    builder.build().map(super::prepare::prepared)
}

fn by_tenant(head: &RequestHead<'_>) -> Choice {
    head.header("x-tenant").map_or(Choice::nothing(), Choice::key)
}

/// The worker that the client names, whether there is one or not.
fn by_worker(head: &RequestHead<'_>) -> Choice {
    let named = head.header("x-to").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    named.map_or(Choice::nothing(), |number| Choice::worker(WorkerId::new(number)))
}
