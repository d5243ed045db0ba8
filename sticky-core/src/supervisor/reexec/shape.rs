//! The settings that take effect only when a cluster starts: sockets, slots and memory are made after them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// Their values, as texts, by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Shape(BTreeMap<String, String>);

impl Shape {
    pub(super) fn of(config: &Config) -> Self {
        let addresses = |all: &[crate::listener::ListenAddress]| {
            all.iter().map(ToString::to_string).collect::<Vec<String>>().join(",")
        };
        let extras = config.extra_listeners.0.iter();
        let extras: Vec<String> = extras.map(|extra| format!("{}={}", extra.name, extra.address)).collect();
        let settings = [
            ("workers", config.workers.to_string()),
            ("max_workers", config.max_workers.to_string()),
            ("proxy_workers", config.proxies().to_string()),
            ("listen", addresses(&config.listen)),
            ("backlog", config.backlog.to_string()),
            ("extra_listener", extras.join(",")),
            ("admin", addresses(&config.admin.0)),
            ("session_capacity", config.session_capacity.to_string()),
            ("run_on_port", config.own_ports.to_string()),
        ];
        Self(settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Whether what is `here` is the same. Of a name that one of both does not know there is nothing to say.
    ///
    /// # Errors
    ///
    /// What is not, in words.
    pub(super) fn check(&self, here: &Self) -> Result<(), String> {
        let both = self.0.iter().filter_map(|(name, there)| Some((name, there, here.0.get(name)?)));
        let differs = both.filter(|(_, there, here)| there != here);
        let differs: Vec<String> =
            differs.map(|(name, there, here)| format!("{name} is \"{here}\" and was \"{there}\"")).collect();
        if differs.is_empty() { Ok(()) } else { Err(differs.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClusterBuilder;
    use crate::config::{Environment, Machine};

    fn shape(variables: &[(&str, &str)]) -> Shape {
        let environment: Environment = variables.iter().copied().collect();
        let machine = Machine { cpus: std::num::NonZeroUsize::MIN };
        Shape::of(&ClusterBuilder::default().resolve(&environment, &machine).unwrap())
    }

    #[test]
    fn what_differs_is_named() {
        let was = shape(&[("STICKY_WORKERS", "2"), ("STICKY_LISTEN", "127.0.0.1:1,localhost:2")]);
        assert_eq!(was.check(&was), Ok(()));
        let is = shape(&[("STICKY_WORKERS", "3"), ("STICKY_LISTEN", "127.0.0.1:1")]);
        let expected =
            "listen is \"127.0.0.1:1\" and was \"127.0.0.1:1,localhost:2\", workers is \"3\" and was \"2\"".to_owned();
        assert_eq!(was.check(&is), Err(expected));
        let timeouts = shape(&[("STICKY_WORKERS", "2"), ("STICKY_DRAIN_TIMEOUT", "7s")]);
        assert_eq!(timeouts.check(&shape(&[("STICKY_WORKERS", "2")])), Ok(()));
    }

    #[test]
    fn what_only_one_of_both_knows_is_no_difference() {
        let mut older = shape(&[]);
        older.0.remove("backlog");
        older.0.insert("colour".to_owned(), "blue".to_owned());
        assert_eq!(older.check(&shape(&[])), Ok(()));
    }
}
