//! Patterns of paths: `/room/{id}`, `/files/{*path}` or just a prefix.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;

/// A pattern that is compared with the beginning of a path, segment by segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathPattern {
    /// As written.
    text: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// This text, decoded.
    Literal(Vec<u8>),
    /// One segment, which is the key.
    Capture,
    /// This segment and all that follow, which are the key.
    Rest,
}

/// What is wrong with a pattern: write it as the message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// Put the slash in front.
    #[error("a path begins with `/`")]
    NoSlash,
    /// A pattern that matches every request the same would put them all on one worker.
    #[error("every path begins like that; `/{{*path}}` takes the whole path as key")]
    MatchesAll,
    /// Take the superfluous slash out: requests with such a path would not match.
    #[error("there is an empty segment")]
    EmptySegment,
    /// One part of the path is the key.
    #[error("more than one part is in braces")]
    SeveralCaptures,
    /// `{*path}` is all that follows, so it comes last.
    #[error("something follows `{{*..}}`, which stands for all that follows")]
    AfterRest,
    /// Braces go around a whole segment: `/{id}`.
    #[error("braces go around a whole segment with a name in it, as in `/room/{{id}}` or `/files/{{*path}}`")]
    Braces,
    /// Leave it out: queries and fragments are no part of a path, and `|` separates fallbacks.
    #[error("a path can't hold {0:?}")]
    BadCharacter(char),
}

impl PathPattern {
    /// The pattern that is written like this. One with a [`problem`](Self::problem) matches what it happens to match.
    pub(super) fn new(text: String) -> Self {
        let segments = segments(&text).map(Segment::new).collect();
        Self { text, segments }
    }

    /// The key of a path, which may be empty. `None` if the path does not match.
    pub(super) fn find<'a>(&'a self, path: &'a str) -> Option<Cow<'a, [u8]>> {
        let mut left = path;
        let mut key = None;
        for segment in &self.segments {
            let (found, after) = split_segment(left)?;
            match segment {
                Segment::Literal(text) => percent_decode(found).eq(text.iter().copied()).then_some(())?,
                Segment::Capture => key = Some(found),
                Segment::Rest => return Some(percent_decode(&left.as_bytes()[1..]).into()),
            }
            left = after;
        }
        let whole = || self.text.trim_end_matches('/').as_bytes().into();
        Some(key.map_or_else(whole, |key| percent_decode(key).into()))
    }

    /// Why nobody should use this pattern, if there is a reason.
    pub(super) fn problem(&self) -> Option<PathProblem> {
        if !self.text.starts_with('/') {
            return Some(PathProblem::NoSlash);
        }
        let is_bad = |c: &char| "?#|".contains(*c) || c.is_whitespace() || c.is_control();
        if let Some(character) = self.text.chars().find(is_bad) {
            return Some(PathProblem::BadCharacter(character));
        }
        segments(&self.text).find_map(segment_problem).or_else(|| self.shape_problem())
    }

    /// What is wrong with the segments together, each being good by itself.
    fn shape_problem(&self) -> Option<PathProblem> {
        let rest = self.segments.iter().position(|segment| *segment == Segment::Rest);
        let is_capture = |segment: &&Segment| !matches!(segment, Segment::Literal(_));
        if self.segments.is_empty() {
            Some(PathProblem::MatchesAll)
        } else if self.segments.iter().filter(is_capture).count() > 1 {
            Some(PathProblem::SeveralCaptures)
        } else {
            rest.filter(|&rest| rest + 1 < self.segments.len()).map(|_| PathProblem::AfterRest)
        }
    }
}

impl Segment {
    fn new(text: &str) -> Self {
        match text {
            _ if text.starts_with("{*") => Self::Rest,
            _ if text.starts_with('{') => Self::Capture,
            _ => Self::Literal(percent_decode(text.as_bytes()).collect()),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The segments of a pattern; a slash at its end opens none.
fn segments(pattern: &str) -> impl Iterator<Item = &str> {
    let inner = pattern.strip_prefix('/').unwrap_or(pattern);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    inner.split('/').filter(move |_| !inner.is_empty())
}

fn segment_problem(segment: &str) -> Option<PathProblem> {
    if segment.is_empty() {
        return Some(PathProblem::EmptySegment);
    }
    let capture = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
    let name = capture.map(|name| name.strip_prefix('*').unwrap_or(name));
    let is_good = name != Some("") && !name.unwrap_or(segment).contains(['{', '}']);
    (!is_good).then_some(PathProblem::Braces)
}

/// The first segment of a path, and what follows it, beginning with the next slash.
fn split_segment(path: &str) -> Option<(&[u8], &str)> {
    let inner = path.strip_prefix('/')?;
    let (segment, after) = inner.split_at(inner.find('/').unwrap_or(inner.len()));
    Some((segment.as_bytes(), after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(pattern: &str, path: &str) -> Option<String> {
        let pattern = PathPattern::new(pattern.to_owned());
        assert_eq!(pattern.problem(), None, "{pattern}");
        let found = pattern.find(path);
        found.map(|value| String::from_utf8(value.into_owned()).unwrap())
    }

    #[test]
    fn keys_of_paths() {
        for (pattern, path, key) in [
            ("/room/{id}", "/room/7", Some("7")),
            ("/room/{id}", "/room/7/", Some("7")),
            ("/room/{id}", "/room/7/messages", Some("7")),
            ("/room/{id}", "/room/a%2Fb", Some("a/b")),
            ("/room/{id}", "/r%6fom/%37", Some("7")),
            ("/room/{id}", "/room/a+b", Some("a+b")),
            ("/room/{id}", "/room/", Some("")),
            ("/room/{id}", "/room//7", Some("")),
            ("/room/{id}", "/room", None),
            ("/room/{id}", "/roomy/7", None),
            ("/room/{id}", "/Room/7", None),
            ("/room/{id}", "//room/7", None),
            ("/room/{id}", "/x/room/7", None),
            ("/room/{id}", "/%2Froom/7", None),
            ("/room/{id}", "", None),
            ("/room/{id}/", "/room/7", Some("7")),
            ("/caf%C3%A9/{id}", "/caf%c3%a9/7", Some("7")),
            ("/{tenant}", "/acme/x", Some("acme")),
            ("/{tenant}", "/", Some("")),
            ("/room/{id}/ws", "/room/7/ws/x", Some("7")),
            ("/room/{id}/ws", "/room/7/w", None),
            ("/room/{id}/ws", "/room/7", None),
            ("/files/{*path}", "/files/a/b%20c/", Some("a/b c/")),
            ("/files/{*path}", "/files/", Some("")),
            ("/files/{*path}", "/files", None),
            ("/{*path}", "/a/b", Some("a/b")),
            ("/admin", "/admin", Some("/admin")),
            ("/admin", "/admin/", Some("/admin")),
            ("/admin/", "/admin/users", Some("/admin")),
            ("/admin", "/administrator", None),
            ("/a/b", "/a/b/c", Some("/a/b")),
            ("/a/b", "/a", None),
        ] {
            assert_eq!(find(pattern, path).as_deref(), key, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_with_problems() {
        for (text, problem) in [
            ("", PathProblem::NoSlash),
            ("room/{id}", PathProblem::NoSlash),
            ("/", PathProblem::MatchesAll),
            ("//", PathProblem::MatchesAll),
            ("/a//b", PathProblem::EmptySegment),
            ("//a", PathProblem::EmptySegment),
            ("/a//", PathProblem::EmptySegment),
            ("/{a}/{b}", PathProblem::SeveralCaptures),
            ("/{a}/x/{b}", PathProblem::SeveralCaptures),
            ("/{*a}/{*b}", PathProblem::SeveralCaptures),
            ("/{*a}/b", PathProblem::AfterRest),
            ("/x/{*a}/b", PathProblem::AfterRest),
            ("/{}", PathProblem::Braces),
            ("/{*}", PathProblem::Braces),
            ("/{a", PathProblem::Braces),
            ("/a}", PathProblem::Braces),
            ("/x{a}", PathProblem::Braces),
            ("/{a}x", PathProblem::Braces),
            ("/{{a}}", PathProblem::Braces),
            ("/a?b", PathProblem::BadCharacter('?')),
            ("/a#b", PathProblem::BadCharacter('#')),
            ("/a|b", PathProblem::BadCharacter('|')),
            ("/a b", PathProblem::BadCharacter(' ')),
            ("/a\0", PathProblem::BadCharacter('\0')),
        ] {
            assert_eq!(PathPattern::new(text.to_owned()).problem(), Some(problem), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_it_is_filled_with(
            prefix in proptest::collection::vec("[a-z]{1,3}", 0..3),
            value in "[a-z0-9._~-]{1,5}",
            rest in "(/[a-z]{0,3}){0,2}",
        ) {
            let prefix: String = prefix.iter().map(|segment| format!("/{segment}")).collect();
            let path = format!("{prefix}/{value}{rest}");
            prop_assert_eq!(find(&format!("{prefix}/{{x}}"), &path), Some(value.clone()));
            prop_assert_eq!(find(&format!("{prefix}/{{*x}}"), &path), Some(format!("{value}{rest}")));
            prop_assert_eq!(find(&format!("{prefix}/{value}"), &path), Some(format!("{prefix}/{value}")));
        }

        #[test]
        fn any_pattern_meets_any_path(text in "[/{}*a%2]{0,8}", path in "[/a%2F]{0,8}") {
            let pattern = PathPattern::new(text);
            pattern.problem();
            pattern.find(&path);
        }
    }
}
