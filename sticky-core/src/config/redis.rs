//! Redis, for integrations that reach other machines by it: where it is, and what is ours in it.

use std::fmt;

use super::cookie::Secret;
use super::parse::Value;

/// What is said of Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Redis {
    pub(crate) url: RedisUrl,
    pub(crate) prefix: RedisPrefix,
}

/// What the names of channels begin with, so that several applications can share a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisPrefix(String);

impl RedisPrefix {
    pub(super) const ALLOWED: &'static str = "1 to 64 letters, digits, `-`, `_`, `.` and `:`, like `chat`";

    const LONGEST: usize = 64;

    pub(crate) fn get(&self) -> &str {
        &self.0
    }
}

impl Default for RedisPrefix {
    fn default() -> Self {
        Self("socket.io".to_owned())
    }
}

impl Value for RedisPrefix {
    fn parse(text: &str) -> Result<Self, String> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        match text.len() {
            1..=Self::LONGEST if is_plain => Ok(Self(text.to_owned())),
            _ => Err("not the beginning of a channel's name".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

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
    fn prefixes_are_plain() {
        for text in ["a", "chat-1:live_2.x", &"x".repeat(64)] {
            assert_eq!(RedisPrefix::parse(text).unwrap().get(), text);
        }
        for text in ["", "a b", "a#", "a*", "ä", "a\n", &"x".repeat(65)] {
            assert!(RedisPrefix::parse(text).is_err(), "{text:?}");
        }
    }

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
