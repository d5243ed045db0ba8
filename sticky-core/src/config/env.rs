//! The environment as a value: taken once, asked by name, and searched for names that nobody knows.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::settings::{INTERNAL_VARIABLES, PREFIX, SETTINGS};

/// A snapshot of environment variables. Everything that reads the environment reads one of these, so that tests need
/// no real one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The environment of this process, as it is now.
    pub(crate) fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The variable's value without the blanks around it; none if it is unset or empty. Empty counts as unset
    /// because compose files and unit files often have no other way to say it.
    ///
    /// # Errors
    /// The value, escaped, if it is not UTF-8.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, String> {
        let Some(value) = self.variables.get(OsStr::new(name)) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or_else(|| format!("{value:?}"))?.trim();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// The variables that begin like a setting and are none, each with the nearest name that is one.
    pub(super) fn unknown(&self) -> impl Iterator<Item = (String, &'static str)> {
        let names = self.variables.keys().map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(PREFIX) && !is_known(name)).map(|name| {
            let nearest = nearest(&name);
            (name, nearest)
        })
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: variables.filter(|(name, value)| !is_service_link(name, value)).collect() }
    }
}

/// Whether Kubernetes or Docker put this variable here to say where a service is: beside a service called `sticky`
/// every pod has `STICKY_SERVICE_HOST` and `STICKY_PORT=tcp://10.0.0.1:80`, beside one called `proxy` it has
/// `PROXY_PORT=tcp://..`. Nobody wrote those for us, so they are neither settings nor mistakes.
fn is_service_link(name: &OsStr, value: &OsStr) -> bool {
    let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
    let is_of = |protocol: &str| {
        let is_url = value.strip_prefix(protocol).is_some_and(|rest| rest.starts_with("://"));
        (name.ends_with("PORT") && is_url) || name.contains(&format!("_{}", protocol.to_ascii_uppercase()))
    };
    let is_port = name.ends_with("PORT") || name.contains("_PORT_");
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (is_port && ["tcp", "udp", "sctp"].into_iter().any(is_of))
}

/// The variables of all settings.
fn variables() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(|setting| setting.variable)
}

fn is_known(name: &str) -> bool {
    variables().chain(INTERNAL_VARIABLES).any(|known| known == name)
}

/// The setting whose variable has the fewest edits to this name; of several, the first in the table.
fn nearest(name: &str) -> &'static str {
    variables().min_by_key(|known| edit_distance(known, name)).unwrap_or(PREFIX)
}

/// How many letters must be put in, taken out or replaced to make one text of the other (Levenshtein).
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // One row of the table at a time: `row[j]` is the distance of what was read of `from` to the first j of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (read, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = read + 1;
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().copied().collect()
    }

    #[test]
    fn values_are_trimmed_and_empty_is_unset() {
        let environment = environment(&[("A", " 1 "), ("B", ""), ("C", "  ")]);
        assert_eq!(environment.text("A"), Ok(Some("1")));
        for unset in ["B", "C", "D"] {
            assert_eq!(environment.text(unset), Ok(None));
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_is_not_utf8_is_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let rubbish = || OsString::from_vec(b"a\xff".to_vec());
        let environment: Environment = [("STICKY_A".into(), rubbish()), (rubbish(), "1".into())].into_iter().collect();
        assert_eq!(environment.text("STICKY_A"), Err("\"a\\xFF\"".to_owned()));
        let name = [OsString::from_vec(b"STICKY_WORKERS\xff".to_vec())];
        let environment: Environment = name.into_iter().map(|name| (name, "1")).collect();
        let unknown: Vec<_> = environment.unknown().collect();
        assert_eq!(unknown, [("STICKY_WORKERS\u{fffd}".to_owned(), "STICKY_WORKERS")]);
    }

    #[test]
    fn the_environment_of_this_process_is_taken() {
        let environment = Environment::of_process();
        let path = std::env::var("PATH").unwrap();
        assert_eq!(environment.text("PATH"), Ok(Some(path.trim())));
    }

    #[test]
    fn unknown_names_are_found_with_their_neighbours() {
        let environment = environment(&[
            ("STICKY_WROKERS", "1"),
            ("STICKY_WORKERS", "1"),
            ("STICKY_WORKER_ID", "1"),
            ("STICKY_CONTROL", "1"),
            ("STICKYX", "1"),
            ("MY_STICKY_A", "1"),
            ("STICKY_", ""),
            ("STICKY_DRAIN_TIME", "1"),
            ("STICKY_PORT", "3000"),
        ]);
        let unknown: Vec<_> = environment.unknown().collect();
        let expected = [
            ("STICKY_", "STICKY_ADMIN"),
            ("STICKY_DRAIN_TIME", "STICKY_DRAIN_TIMEOUT"),
            ("STICKY_PORT", "STICKY_LISTEN"),
            ("STICKY_WROKERS", "STICKY_WORKERS"),
        ];
        assert_eq!(unknown, expected.map(|(name, nearest)| (name.to_owned(), nearest)));
    }

    #[test]
    fn distances() {
        for (from, to, distance) in [
            ("", "", 0),
            ("a", "a", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abd", 1),
            ("abc", "ac", 1),
            ("ac", "abc", 1),
            ("kitten", "sitting", 3),
            ("saturday", "sunday", 3),
            ("ab", "ba", 2),
            ("é", "e", 1),
        ] {
            assert_eq!(edit_distance(from, to), distance, "{from} {to}");
        }
    }

    #[test]
    fn service_links_are_nobodys_settings() {
        let links = [
            ("STICKY_SERVICE_HOST", "10.0.0.1"),
            ("STICKY_SERVICE_PORT", "80"),
            ("STICKY_SERVICE_PORT_HTTP", "80"),
            ("STICKY_PORT", "tcp://10.0.0.1:80"),
            ("STICKY_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("STICKY_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("STICKY_PORT_53_UDP_PROTO", "udp"),
            ("STICKY_PORT_53_SCTP_PORT", "53"),
            ("STICKY_DNS_PORT", "udp://10.0.0.1:53"),
            ("STICKY_X_PORT", "sctp://10.0.0.1:53"),
            ("PROXY_PORT", "tcp://10.0.0.1:80"),
            ("PORT", "tcp://10.0.0.1:80"),
        ];
        for (name, value) in links {
            assert!(is_service_link(name.as_ref(), value.as_ref()), "{name}");
        }
        assert!(environment(&links).variables.is_empty());
        let ours = [
            ("STICKY_PORT", "3000"),
            ("STICKY_PORT", "http://10.0.0.1"),
            ("STICKY_PORT", "tcp"),
            ("STICKY_PORT_X", "tcp://10.0.0.1"),
            ("STICKY_LISTEN", "tcp://10.0.0.1:80"),
            ("STICKY_TCP_BACKLOG", "1"),
            ("STICKY_SERVICE", "1"),
        ];
        for (name, value) in ours {
            assert!(!is_service_link(name.as_ref(), value.as_ref()), "{name}");
        }
    }

    #[test]
    fn no_setting_looks_like_a_service_link() {
        for name in variables() {
            assert!(!is_service_link(name.as_ref(), "80".as_ref()), "{name}");
        }
    }
}
