//! The sticky cookie, as it is set: its name, its attributes and the secrets that seal it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::parse::Value;
use crate::affinity::is_token;

/// How the sticky cookie is set and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CookieSettings {
    /// A token, so it needs no quotes.
    pub(crate) name: String,
    /// Begins with a slash and needs no quotes.
    pub(crate) path: String,
    pub(crate) same_site: SameSite,
    /// None is auto: where the client comes by TLS, or by a trusted proxy that says so.
    pub(crate) secure: Option<bool>,
    /// None ends with the browser's session.
    pub(crate) lifetime: Option<Duration>,
    /// None draws one at start.
    pub(crate) secret: Option<Secret>,
    /// What cookies may still be sealed with. Never without `secret`.
    pub(crate) previous_secret: Option<Secret>,
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self {
            name: "sticky".to_owned(),
            path: "/".to_owned(),
            same_site: SameSite::default(),
            secure: None,
            lifetime: None,
            secret: None,
            previous_secret: None,
        }
    }
}

/// With which requests from other sites' pages browsers send the sticky cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SameSite {
    /// With none. As text: `strict`.
    Strict,
    /// Only when somebody follows a link. The default. As text: `lax`.
    #[default]
    Lax,
    /// With all of them, for applications inside other sites' pages. Browsers take such a cookie only if it is secure.
    /// As text: `none`.
    None,
}

impl SameSite {
    pub(super) const ALLOWED: &'static str = "`strict`, `lax` or `none`";
}

impl fmt::Display for SameSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Lax => "lax",
            Self::None => "none",
        })
    }
}

impl Value for SameSite {
    fn parse(text: &str) -> Result<Self, String> {
        let all = [Self::Strict, Self::Lax, Self::None];
        let found = all.into_iter().find(|same_site| same_site.show() == text);
        found.ok_or_else(|| "not a SameSite value".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A cookie's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CookieName(pub(super) String);

impl CookieName {
    pub(super) const ALLOWED: &'static str = "visible ASCII without delimiters, like `sticky`";

    /// What browsers ask of cookies with this name: they drop those that are otherwise (RFC 6265bis, 4.1.3).
    pub(super) fn promise(&self) -> Promise {
        let begins_with =
            |prefix: &str| self.0.get(..prefix.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(prefix));
        Promise { is_secure: begins_with("__Secure-") || begins_with("__Host-"), is_at_root: begins_with("__Host-") }
    }
}

/// What the prefix of a cookie's name promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) is_secure: bool,
    pub(super) is_at_root: bool,
}

impl Value for CookieName {
    fn parse(text: &str) -> Result<Self, String> {
        if is_token(text) { Ok(Self(text.to_owned())) } else { Err("not a cookie's name".to_owned()) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The path below which browsers send a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CookiePath(pub(super) String);

impl CookiePath {
    pub(super) const ALLOWED: &'static str = "a path like `/` or `/app`, visible ASCII without `;`";
}

impl Value for CookiePath {
    fn parse(text: &str) -> Result<Self, String> {
        let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
        if is_path { Ok(Self(text.to_owned())) } else { Err("not a cookie's path".to_owned()) }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A secret: too long to be guessed, and shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Arc<[u8]>);

impl Secret {
    pub(super) const ALLOWED: &'static str = "at least 16 bytes that nobody can guess";

    /// What stands in messages in place of a secret.
    pub(super) const HIDDEN: &'static str = "..";

    /// Below this a secret can be found by trying.
    const LEAST_LENGTH: usize = 16;

    /// # Errors
    /// A secret that is too short, in words.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < Self::LEAST_LENGTH {
            return Err(format!("shorter than {} bytes", Self::LEAST_LENGTH));
        }
        Ok(Self(bytes.into()))
    }

    #[allow(dead_code, reason = "read by the codec of the sticky cookie")]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Value for Secret {
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        Self::new(text.as_bytes())
    }

    /// Does not show it: the one text form that cannot be read back.
    fn show(&self) -> String {
        Self::HIDDEN.to_owned()
    }
}

/// A secret as code gives it, unchecked.
#[derive(Clone)]
pub(super) struct GivenSecret(pub(super) Vec<u8>);

impl fmt::Debug for GivenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenSecret(..)")
    }
}

/// What code says about the sticky cookie.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenCookie {
    pub(super) name: Option<String>,
    pub(super) path: Option<String>,
    pub(super) same_site: Option<SameSite>,
    pub(super) secure: Option<Option<bool>>,
    pub(super) lifetime: Option<Option<Duration>>,
    pub(super) secret: Option<GivenSecret>,
    pub(super) previous_secret: Option<GivenSecret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_site_texts_round_trip() {
        for (text, same_site) in [("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)] {
            assert_eq!(SameSite::parse(text), Ok(same_site));
            assert_eq!(same_site.to_string(), text);
            assert!(SameSite::ALLOWED.contains(&format!("`{text}`")));
        }
        assert_eq!(SameSite::default(), SameSite::Lax);
        for text in ["", "Lax", "auto"] {
            assert_eq!(SameSite::parse(text), Err("not a SameSite value".to_owned()));
        }
    }

    #[test]
    fn names() {
        for text in ["sticky", "__Host-sticky", "a.b_c-d!"] {
            assert_eq!(CookieName::parse(text).map(|name| name.show()), Ok(text.to_owned()));
        }
        for text in ["", "a b", "a=b", "a;b", "a,b", "\"a\"", "a/b", "\u{e9}"] {
            assert_eq!(CookieName::parse(text), Err("not a cookie's name".to_owned()), "{text}");
        }
    }

    #[test]
    fn some_names_promise() {
        let promise = |name: &str| {
            let Promise { is_secure, is_at_root } = CookieName(name.to_owned()).promise();
            (is_secure, is_at_root)
        };
        for (name, promised) in [
            ("__Host-a", (true, true)),
            ("__hOST-", (true, true)),
            ("__Secure-a", (true, false)),
            ("__SECURE-a", (true, false)),
            ("__Host", (false, false)),
            ("_Host-a", (false, false)),
            ("a__Host-", (false, false)),
        ] {
            assert_eq!(promise(name), promised, "{name}");
        }
    }

    #[test]
    fn paths() {
        for text in ["/", "/app", "/a/b=c,d"] {
            assert_eq!(CookiePath::parse(text).map(|path| path.show()), Ok(text.to_owned()));
        }
        for text in ["", "app", "/a;b", "/a b", "/a\tb", "/\u{e9}", "*"] {
            assert_eq!(CookiePath::parse(text), Err("not a cookie's path".to_owned()), "{text}");
        }
    }

    #[test]
    fn secrets_are_long_and_not_shown() {
        let secret = Secret::parse("0123456789abcdef").unwrap();
        assert_eq!(secret.bytes(), b"0123456789abcdef");
        assert_eq!(Secret::new(&[0xff; 16]).unwrap().bytes(), [0xff; 16]);
        assert_eq!(Secret::parse("0123456789abcde"), Err("shorter than 16 bytes".to_owned()));
        assert_eq!(secret.show(), "..");
        let given = GivenCookie { secret: Some(GivenSecret(b"0123456789abcdef".to_vec())), ..GivenCookie::default() };
        let settings = CookieSettings { previous_secret: Some(secret), ..CookieSettings::default() };
        for text in [format!("{given:?}"), format!("{settings:?}")] {
            assert!(text.contains("Secret(..)") && !text.contains("0123") && !text.contains("48, 49"), "{text}");
        }
    }
}
