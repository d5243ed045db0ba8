//! Where Redis is, for integrations that reach other machines by it.

use std::fmt;

use super::cookie::Secret;
use super::parse::Value;

/// Where Redis is. Shown to nobody: there may be a password in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct RedisUrl(Option<String>);

impl RedisUrl {
    pub(super) const ALLOWED: &'static str = "a URL like `redis://localhost:6379` or `unix:///run/redis.sock`; `none`";

    /// The URL, if there is one.
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl Value for RedisUrl {
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let known = ["redis://", "unix://", "redis+unix://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        match known {
            _ if text == "none" => Ok(Self(None)),
            Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => Ok(Self(Some(text.to_owned()))),
            _ => Err("not where a Redis is".to_owned()),
        }
    }

    /// Does not show it: the other text form that cannot be read back.
    fn show(&self) -> String {
        self.0.as_ref().map_or("none", |_| Secret::HIDDEN).to_owned()
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({})", self.show())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_not_shown() {
        for text in ["redis://h", "redis://:hunter2@h:6379/1", "unix:///run/r.sock", "redis+unix:///r?db=1"] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(url.get(), Some(text));
            assert_eq!((url.show(), format!("{url:?}")), ("..".to_owned(), "RedisUrl(..)".to_owned()));
        }
        let builder = crate::ClusterBuilder::default().redis_url("redis://:hunter2@h");
        assert!(!format!("{builder:?}").contains("hunter2"));
        assert_eq!(RedisUrl::parse("none"), Ok(RedisUrl::default()));
        assert_eq!(RedisUrl::default().show(), "none");
        for text in ["", "h:6379", "http://h", "redis://", "rediss://h", "redis://a b"] {
            assert!(RedisUrl::parse(text).is_err(), "{text}");
        }
    }
}
