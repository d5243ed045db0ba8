//! What a request head says, borrowed from the bytes it came in.

use super::head::MethodClass;

/// A part of a head, by position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u16,
    len: u16,
}

impl Span {
    /// Where `part` is in `whole`, of which it is a slice. Heads are shorter than 64 KiB.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
        // An empty slice may point anywhere.
        let start = if part.is_empty() { 0 } else { part.as_ptr() as usize - whole.as_ptr() as usize };
        Self { start: start as u16, len: part.len() as u16 }
    }

    pub(super) fn start(self) -> usize {
        usize::from(self.start)
    }

    fn bytes(self, whole: &[u8]) -> &[u8] {
        &whole[self.start()..self.start() + usize::from(self.len)]
    }

    fn text(self, whole: &[u8]) -> &str {
        // The parser has made sure that methods, targets and names are text.
        std::str::from_utf8(self.bytes(whole)).unwrap_or_default()
    }
}

/// A header of a head, by position.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderSpan {
    name: Span,
    value: Span,
}

impl HeaderSpan {
    /// Where its line begins.
    pub(super) fn start(self) -> usize {
        self.name.start()
    }

    pub(super) fn of(header: &httparse::Header<'_>, whole: &[u8]) -> Self {
        Self { name: Span::of(header.name.as_bytes(), whole), value: Span::of(header.value, whole) }
    }
}

/// The head of a request, before any framework has seen it: what [`Affinity::custom`](crate::Affinity::custom) gets.
///
/// ```
/// use sticky_core::{Choice, RequestHead};
///
/// fn by_tenant(head: &RequestHead<'_>) -> Choice {
///     match head.host().and_then(|host| host.split_once('.')) {
///         Some((tenant, _)) => Choice::key(tenant.to_ascii_lowercase()),
///         None => Choice::nothing(),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    bytes: &'a [u8],
    method: Span,
    target: Span,
    headers: &'a [HeaderSpan],
}

impl<'a> RequestHead<'a> {
    pub(super) fn new(bytes: &'a [u8], method: Span, target: Span, headers: &'a [HeaderSpan]) -> Self {
        Self { bytes, method, target, headers }
    }

    /// The method, as sent: methods are case-sensitive.
    ///
    /// ```
    /// # use sticky_core::RequestHead;
    /// fn may_change_something(head: &RequestHead<'_>) -> bool {
    ///     !matches!(head.method(), "GET" | "HEAD" | "OPTIONS")
    /// }
    /// ```
    pub fn method(&self) -> &'a str {
        self.method.text(self.bytes)
    }

    /// The path as the application sees it, not decoded. `http://host/path` and `/path` have the same; `*` for
    /// `OPTIONS *`, empty for `CONNECT`.
    ///
    /// ```
    /// # use sticky_core::{Choice, RequestHead};
    /// fn by_first_segment(head: &RequestHead<'_>) -> Choice {
    ///     head.path().split('/').nth(1).map_or(Choice::nothing(), Choice::key)
    /// }
    /// ```
    pub fn path(&self) -> &'a str {
        self.parts().path
    }

    /// What follows the first `?`, not decoded; `Some("")` when nothing does.
    ///
    /// ```
    /// # use sticky_core::{Choice, RequestHead};
    /// fn by_whole_query(head: &RequestHead<'_>) -> Choice {
    ///     head.query().map_or(Choice::nothing(), Choice::key)
    /// }
    /// ```
    pub fn query(&self) -> Option<&'a str> {
        self.parts().query
    }

    /// The host the client asked for, with its port if it named one: from the target where that has one, else from the
    /// first Host header.
    ///
    /// ```
    /// # use sticky_core::{Choice, RequestHead};
    /// fn by_host(head: &RequestHead<'_>) -> Choice {
    ///     head.host().map_or(Choice::nothing(), |host| Choice::key(host.to_ascii_lowercase()))
    /// }
    /// ```
    pub fn host(&self) -> Option<&'a str> {
        let from_header = || std::str::from_utf8(self.header("host")?).ok();
        self.parts().authority.or_else(from_header)
    }

    /// The first header of that name, in any case, without blanks around its value.
    ///
    /// ```
    /// # use sticky_core::{Choice, RequestHead};
    /// fn by_user(head: &RequestHead<'_>) -> Choice {
    ///     head.header("x-user").map_or(Choice::nothing(), Choice::key)
    /// }
    /// ```
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.header_lines(name).next()
    }

    /// Every header of that name, in any case, in order.
    ///
    /// ```
    /// # use sticky_core::{Choice, RequestHead};
    /// fn by_the_last_hop(head: &RequestHead<'_>) -> Choice {
    ///     head.header_lines("via").next_back().map_or(Choice::nothing(), Choice::key)
    /// }
    /// ```
    pub fn header_lines(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let Self { bytes, headers, .. } = *self;
        let is_named = move |header: &&HeaderSpan| header.name.bytes(bytes).eq_ignore_ascii_case(name.as_bytes());
        headers.iter().filter(is_named).map(move |header| header.value.bytes(bytes))
    }

    /// All headers in order, names as sent.
    ///
    /// ```
    /// # use sticky_core::{Choice, RequestHead};
    /// fn by_any_session_header(head: &RequestHead<'_>) -> Choice {
    ///     let is_session = |name: &str| name.to_ascii_lowercase().ends_with("-session");
    ///     let value = head.headers().find(|(name, _)| is_session(name)).map(|(_, value)| value);
    ///     value.map_or(Choice::nothing(), Choice::key)
    /// }
    /// ```
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let Self { bytes, headers, .. } = *self;
        headers.iter().map(move |header| (header.name.text(bytes), header.value.bytes(bytes)))
    }

    fn parts(&self) -> Target<'a> {
        let class = if self.method() == "CONNECT" { MethodClass::Connect } else { MethodClass::Other };
        Target::parse(class, self.target.text(self.bytes)).unwrap_or_default()
    }
}

/// A head put together from its parts, as tests of what reads heads need them; no parser has seen it.
#[cfg(test)]
pub(crate) struct HeadParts {
    bytes: Vec<u8>,
    method: Span,
    target: Span,
    headers: Vec<HeaderSpan>,
}

#[cfg(test)]
impl HeadParts {
    pub(crate) fn new(method: &str, target: &str, headers: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        let mut append = |part: &[u8]| {
            let start = u16::try_from(bytes.len()).unwrap();
            bytes.extend_from_slice(part);
            Span { start, len: u16::try_from(part.len()).unwrap() }
        };
        let (method, target) = (append(method.as_bytes()), append(target.as_bytes()));
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| HeaderSpan { name: append(name.as_bytes()), value: append(value) });
        Self { method, target, headers: headers.collect(), bytes }
    }

    pub(crate) fn head(&self) -> RequestHead<'_> {
        RequestHead::new(&self.bytes, self.method, self.target, &self.headers)
    }
}

/// A request's target in its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Target<'a> {
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Whether it has one of the four forms.
    pub(super) fn is_valid(method: MethodClass, target: &'a str) -> bool {
        // Nearly every target is a path.
        target.starts_with('/') || Self::parse(method, target).is_some()
    }

    /// `None` when the target has none of the four forms.
    pub(super) fn parse(method: MethodClass, target: &'a str) -> Option<Self> {
        if target.starts_with('/') {
            return Some(Self::origin(target));
        }
        if method == MethodClass::Connect {
            let is_authority = !target.contains(['/', '?', '#', '@']);
            return is_authority.then_some(Self { authority: Some(target), path: "", query: None });
        }
        if target == "*" {
            return Some(Self { authority: None, path: target, query: None });
        }
        Self::absolute(target)
    }

    fn origin(target: &'a str) -> Self {
        let without_fragment = target.split('#').next().unwrap_or_default();
        let (path, query) = match without_fragment.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (without_fragment, None),
        };
        Self { authority: None, path, query }
    }

    fn absolute(target: &'a str) -> Option<Self> {
        let (scheme, rest) = target.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let (authority, origin) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.is_empty() {
            return None;
        }
        let parts = Self::origin(origin);
        let path = if parts.path.is_empty() { "/" } else { parts.path };
        Some(Self { authority: Some(host), path, query: parts.query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: MethodClass, target: &str) -> Option<(Option<&str>, &str, Option<&str>)> {
        Target::parse(method, target).map(|target| (target.authority, target.path, target.query))
    }

    #[test]
    fn all_forms_of_a_target_have_the_same_parts() {
        let table = [
            ("/", (None, "/", None)),
            ("/a/b?x=1?y", (None, "/a/b", Some("x=1?y"))),
            ("/a?", (None, "/a", Some(""))),
            ("/a#b?c", (None, "/a", None)),
            ("//a/b", (None, "//a/b", None)),
            ("/http://b/c", (None, "/http://b/c", None)),
            ("*", (None, "*", None)),
            ("http://h/a?b", (Some("h"), "/a", Some("b"))),
            ("HTTPS://u:p@h:1/a", (Some("h:1"), "/a", None)),
            ("http://h", (Some("h"), "/", None)),
            ("http://h?q=/@", (Some("h"), "/", Some("q=/@"))),
            ("http://[::1]:80#f", (Some("[::1]:80"), "/", None)),
        ];
        for (target, expected) in table {
            assert_eq!(parts(MethodClass::Other, target), Some(expected), "{target}");
        }
        assert_eq!(parts(MethodClass::Connect, "h:443"), Some((Some("h:443"), "", None)));
    }

    #[test]
    fn other_targets_are_none() {
        for target in
            ["", "a", "a/b", "?q", "#f", "**", "http:/a", "http:///a", "://h", "ht~tp://h/", "http://@/a", "h:80"]
        {
            assert_eq!(parts(MethodClass::Other, target), None, "{target}");
        }
        for target in ["h/a", "http://h/", "u@h:1"] {
            assert_eq!(parts(MethodClass::Connect, target), None, "{target}");
        }
    }
}
