//! The text form of an affinity, and what can be wrong with it.

use std::fmt;
use std::str::FromStr;

use super::Affinity;
use super::path::{PathPattern, PathProblem};
use super::source::Source;

/// Separates the fallbacks.
const OR: char = '|';

/// What follows a cookie whose values are learned.
const LEARN: &str = "+learn";

impl Affinity {
    /// Every text form there is, for error messages and documentation.
    pub(crate) const ALLOWED: &'static str = "`client-ip`, `cookie:session`, `cookie:session+learn`, `header:x-user`, `query:k`, \
         `path:/room/{id}`, `sticky-cookie` or `engine-io`, with fallbacks after `|`";

    /// What the key is, in words that complete "affinity is ..".
    pub(crate) fn describe(&self) -> String {
        let sources: Vec<_> = self.sources().map(Source::describe).collect();
        sources.join(", else ")
    }

    /// Checks what code and text can say but nobody can mean.
    ///
    /// # Errors
    ///
    /// Every mistake there is.
    pub(crate) fn check(&self) -> Result<(), ParseAffinityError> {
        let mut problems: Vec<_> = self.sources().filter_map(Source::problem).collect();
        let mut after_address = self.sources().skip_while(|source| **source != Source::ClientAddress).skip(1);
        problems.extend(after_address.next().map(|source| AffinityProblem::NeverAsked { part: source.to_string() }));
        problems.extend(self.learns_nothing.then(|| AffinityProblem::NothingToLearn { part: self.to_string() }));
        ParseAffinityError::of(problems)
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.fallbacks.iter().try_for_each(|source| write!(f, "{OR}{source}"))
    }
}

impl FromStr for Affinity {
    type Err = ParseAffinityError;

    /// Reads the text form. White space around a part does not matter.
    ///
    /// # Errors
    ///
    /// Every part that is no affinity, and what is allowed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut problems = Vec::new();
        let read = text.split(OR).filter_map(|part| {
            let source = Source::read(part.trim());
            source.map_err(|problem| problems.push(problem)).ok()
        });
        let affinity = read.map(Self::of).reduce(Self::or);
        if let Some(Err(error)) = affinity.as_ref().map(Self::check) {
            problems.extend(error.problems);
        }
        ParseAffinityError::of(problems)?;
        Ok(affinity.unwrap_or_default())
    }
}

impl Source {
    fn read(part: &str) -> Result<Self, AffinityProblem> {
        match part.strip_suffix(LEARN).map(Self::read_plain) {
            Some(Ok(Self::Cookie { name, .. })) => Ok(Self::Cookie { name, is_learned: true }),
            // In a path the text is a part like any other.
            Some(Ok(Self::Path(_)) | Err(_)) | None => Self::read_plain(part),
            Some(Ok(_)) => Err(AffinityProblem::NothingToLearn { part: part.to_owned() }),
        }
    }

    fn read_plain(part: &str) -> Result<Self, AffinityProblem> {
        match part.split_once(':') {
            None if part == "client-ip" => Ok(Self::ClientAddress),
            None if part == "sticky-cookie" => Ok(Self::StickyCookie),
            None if part == "engine-io" => Ok(Self::EngineIo),
            Some(("cookie", name)) => Ok(Self::Cookie { name: name.to_owned(), is_learned: false }),
            Some(("header", name)) => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("query", name)) => Ok(Self::Query(name.to_owned())),
            Some(("path", pattern)) => Ok(Self::Path(PathPattern::new(pattern.to_owned()))),
            _ => Err(AffinityProblem::UnknownSource { part: part.to_owned() }),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::ClientAddress => "the client address".to_owned(),
            Self::StickyCookie => "the sticky cookie".to_owned(),
            Self::EngineIo => "the tag of an Engine.IO session".to_owned(),
            Self::Cookie { name, is_learned: false } => format!("the cookie `{name}`"),
            Self::Cookie { name, is_learned: true } => format!("the learned cookie `{name}`"),
            Self::Header(name) => format!("the header `{name}`"),
            Self::Query(name) => format!("the query parameter `{name}`"),
            Self::Path(pattern) => format!("the path `{pattern}`"),
            Self::Custom(_) => "a function of the request".to_owned(),
        }
    }

    fn problem(&self) -> Option<AffinityProblem> {
        let part = || self.to_string();
        let (name, forbidden) = match self {
            Self::ClientAddress | Self::StickyCookie | Self::EngineIo | Self::Custom(_) => return None,
            Self::Path(pattern) => {
                let problem = pattern.problem()?;
                return Some(AffinityProblem::BadPath { part: part(), problem });
            }
            Self::Cookie { name, .. } => (name, COOKIE_FORBIDDEN),
            Self::Header(name) => (name, HEADER_FORBIDDEN),
            Self::Query(name) => (name, QUERY_FORBIDDEN),
        };
        if name.is_empty() {
            return Some(AffinityProblem::NoName { part: part() });
        }
        // A name that ends like this would not be a name as text.
        let plus = || name.ends_with(LEARN).then_some('+');
        let character = bad_character(name, forbidden).or_else(plus)?;
        Some(AffinityProblem::BadName { part: part(), character })
    }
}

/// Whether this is a token (RFC 9110, 5.6.2), as the names of headers are, and those of cookies that we set.
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty() && bad_character(name, HEADER_FORBIDDEN).is_none()
}

fn bad_character(name: &str, forbidden: &str) -> Option<char> {
    name.chars().find(|&c| !c.is_ascii_graphic() || forbidden.contains(c))
}

/// What cannot be in a cookie's name: the delimiters of cookies, and ours.
const COOKIE_FORBIDDEN: &str = "=;,\"|";
/// What cannot be in a header's name (RFC 9110, 5.6.2), and our delimiter.
const HEADER_FORBIDDEN: &str = "\"(),/:;<=>?@[\\]{}|";
/// What is not itself in a query, and our delimiter. Names are compared decoded, so an escape would never match.
const QUERY_FORBIDDEN: &str = "&=#+%|";

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client-ip"),
            Self::StickyCookie => f.write_str("sticky-cookie"),
            Self::EngineIo => f.write_str("engine-io"),
            Self::Cookie { name, is_learned } => {
                write!(f, "cookie:{name}{}", if *is_learned { LEARN } else { "" })
            }
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path(pattern) => write!(f, "path:{pattern}"),
            Self::Custom(_) => f.write_str("custom"),
        }
    }
}

/// An affinity that cannot be: every mistake that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAffinityError {
    /// Never empty.
    problems: Vec<AffinityProblem>,
}

impl ParseAffinityError {
    /// Every mistake, in no particular order.
    pub fn problems(&self) -> &[AffinityProblem] {
        &self.problems
    }

    /// Every mistake, without what would be allowed.
    pub(crate) fn mistakes(&self) -> String {
        let texts: Vec<_> = self.problems.iter().map(ToString::to_string).collect();
        texts.join("; ")
    }

    /// No error if there are no problems.
    fn of(problems: Vec<AffinityProblem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }
}

impl fmt::Display for ParseAffinityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (allowed: {})", self.mistakes(), Affinity::ALLOWED)
    }
}

impl std::error::Error for ParseAffinityError {}

/// What is wrong with one part of an affinity: write the part as the message says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AffinityProblem {
    /// Use one of the sources in the message.
    #[error("{part:?} is no affinity")]
    UnknownSource {
        /// The part as written.
        part: String,
    },
    /// Say which cookie, header or parameter.
    #[error("{part:?} lacks a name")]
    NoName {
        /// The part as written.
        part: String,
    },
    /// Use another name: no request can have this one, or it could not be written as text.
    #[error("{part:?} has a name with {character:?} in it; names are visible ASCII without delimiters, as in `x-user`")]
    BadName {
        /// The part as written.
        part: String,
        /// The first character that cannot be there.
        character: char,
    },
    /// Write the pattern as the problem says.
    #[error("{part:?} is no path pattern like `/room/{{id}}`, `/files/{{*path}}` or `/admin`: {problem}")]
    BadPath {
        /// The part as written.
        part: String,
        /// What is wrong with the pattern.
        problem: PathProblem,
    },
    /// Learn cookies only: other keys are no response's to give.
    #[error("{part:?} has no cookie to learn: `+learn` follows a cookie, as in `cookie:session+learn`")]
    NothingToLearn {
        /// The part as written.
        part: String,
    },
    /// Put `client-ip` last.
    #[error("{part:?} is never asked, because every client has an address: put `client-ip` last")]
    NeverAsked {
        /// The part as written.
        part: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::affinity::Choice;

    fn errors(text: &str) -> String {
        text.parse::<Affinity>().unwrap_err().mistakes()
    }

    #[test]
    fn texts_round_trip() {
        for (text, affinity, words) in [
            ("client-ip", Affinity::client_ip(), "the client address"),
            ("cookie:Session", Affinity::cookie("Session"), "the cookie `Session`"),
            ("header:x-user", Affinity::header("X-User"), "the header `x-user`"),
            ("sticky-cookie", Affinity::sticky_cookie(), "the sticky cookie, else the client address"),
            ("engine-io", Affinity::engine_io(), "the tag of an Engine.IO session, else the client address"),
            (
                "engine-io|sticky-cookie",
                Affinity::engine_io().or(Affinity::sticky_cookie()),
                "the tag of an Engine.IO session, else the sticky cookie, else the client address",
            ),
            (
                "sticky-cookie|query:k",
                Affinity::sticky_cookie().or(Affinity::query("k")),
                "the sticky cookie, else the query parameter `k`",
            ),
            ("cookie:a+learn", Affinity::cookie("a").learn(), "the learned cookie `a`"),
            ("cookie:a+b", Affinity::cookie("a+b"), "the cookie `a+b`"),
            ("path:/a+learn", Affinity::path("/a+learn"), "the path `/a+learn`"),
            ("query:k", Affinity::query("k"), "the query parameter `k`"),
            ("query:a:b[]", Affinity::query("a:b[]"), "the query parameter `a:b[]`"),
            ("path:/room/{id}", Affinity::path("/room/{id}"), "the path `/room/{id}`"),
            (
                "cookie:a|query:b|client-ip",
                Affinity::cookie("a").or(Affinity::query("b").or(Affinity::client_ip())),
                "the cookie `a`, else the query parameter `b`, else the client address",
            ),
        ] {
            assert_eq!(text.parse(), Ok(affinity.clone()));
            assert_eq!(affinity.to_string(), text);
            assert_eq!(affinity.describe(), words);
            assert_eq!(affinity.check(), Ok(()));
        }
        assert_eq!(Affinity::default(), Affinity::client_ip());
    }

    #[test]
    fn case_and_space_that_do_not_matter() {
        let affinity: Affinity = " header:X-User |\tclient-ip ".parse().unwrap();
        assert_eq!(affinity.to_string(), "header:x-user|client-ip");
    }

    #[test]
    fn functions_have_no_text() {
        let custom = Affinity::cookie("a").or(Affinity::custom(|_| Choice::nothing()));
        assert_eq!(custom.to_string(), "cookie:a|custom");
        assert_eq!(custom.describe(), "the cookie `a`, else a function of the request");
        assert_eq!(custom.check(), Ok(()));
        assert_eq!(errors("custom"), "\"custom\" is no affinity");
    }

    #[test]
    fn parts_that_are_no_affinity() {
        for text in
            ["", "client_ip", "Client-IP", "cookie", "Cookie:a", "sticky-cookie:", "x+learn", "client-ip:", ":", "path"]
        {
            assert_eq!(errors(text), format!("{text:?} is no affinity"));
        }
        assert_eq!(
            "x".parse::<Affinity>().unwrap_err().to_string(),
            "\"x\" is no affinity (allowed: `client-ip`, `cookie:session`, `cookie:session+learn`, `header:x-user`, `query:k`, \
             `path:/room/{id}`, `sticky-cookie` or `engine-io`, with fallbacks after `|`)"
        );
    }

    #[test]
    fn names_that_cannot_be() {
        for text in ["cookie:", "header: ", "query:|client-ip"] {
            let part = text.trim_end_matches("|client-ip").trim();
            assert_eq!(errors(text), format!("{part:?} lacks a name"));
        }
        for (text, character) in [
            ("cookie:a b", ' '),
            ("cookie:a=b", '='),
            ("cookie:a;b", ';'),
            ("header:x:y", ':'),
            ("header:x/y", '/'),
            ("header:\u{e9}", '\u{e9}'),
            ("query:a%20b", '%'),
            ("query:a&b", '&'),
            ("query:a\tb", '\t'),
            ("cookie:a+learn+learn", '+'),
        ] {
            let rule = "names are visible ASCII without delimiters, as in `x-user`";
            assert_eq!(errors(text), format!("{text:?} has a name with {character:?} in it; {rule}"));
        }
        for affinity in [
            Affinity::cookie("a+learn"),
            Affinity::header("a+learn"),
            Affinity::cookie("a|b"),
            Affinity::header("a|b"),
            Affinity::query("a|b"),
            Affinity::path("/a|b"),
        ] {
            assert!(affinity.check().is_err(), "{affinity}");
        }
    }

    #[test]
    fn paths_that_cannot_be() {
        assert_eq!(
            errors("path:room"),
            "\"path:room\" is no path pattern like `/room/{id}`, `/files/{*path}` or `/admin`: a path begins with `/`"
        );
        for (text, problem) in [
            ("path:/", "every path begins like that; `/{*path}` takes the whole path as key"),
            ("path:/{*a}/b", "something follows `{*..}`, which stands for all that follows"),
            ("path:/{a", "braces go around a whole segment with a name in it, as in `/room/{id}` or `/files/{*path}`"),
            ("path:/a b", "a path can't hold ' '"),
        ] {
            assert!(errors(text).ends_with(&format!("`/admin`: {problem}")), "{}", errors(text));
        }
    }

    #[test]
    fn what_is_never_asked() {
        let never =
            |part: &str| format!("{part:?} is never asked, because every client has an address: put `client-ip` last");
        assert_eq!(errors("client-ip|cookie:a|query:b"), never("cookie:a"));
        assert_eq!(errors("cookie:a|client-ip|client-ip"), never("client-ip"));
        assert_eq!(errors("client-ip|sticky-cookie"), never("sticky-cookie"));
    }

    #[test]
    fn only_cookies_can_be_learned() {
        let nothing = |part: &str| {
            format!("{part:?} has no cookie to learn: `+learn` follows a cookie, as in `cookie:session+learn`")
        };
        for text in ["client-ip+learn", "sticky-cookie+learn", "engine-io+learn", "header:x+learn", "query:k+learn"] {
            assert_eq!(errors(text), nothing(text));
        }
        let learned = Affinity::header("x").learn().or(Affinity::cookie("a").or(Affinity::query("k").learn()));
        assert_eq!(learned.check().unwrap_err().mistakes(), nothing("header:x|cookie:a|query:k"));
        assert!(Affinity::cookie("a").or(Affinity::query("k").learn()).check().is_err());
        assert!(Affinity::header("x").or(Affinity::cookie("a")).learn().check().is_ok());
    }

    #[test]
    fn every_mistake_is_named() {
        let error = "cookie:|x|client-ip|path:y|query:z".parse::<Affinity>().unwrap_err();
        let parts: Vec<_> = error.problems().iter().map(|problem| problem.to_string()).collect();
        assert_eq!(parts.len(), 4, "{parts:?}");
        for part in ["\"x\" is no", "\"cookie:\" lacks", "\"path:y\" is no path", "\"path:y\" is never asked"] {
            assert!(parts.iter().any(|text| text.starts_with(part)), "{part} in {parts:?}");
        }
        assert_eq!(error.mistakes(), parts.join("; "));
    }

    proptest! {
        #[test]
        fn what_can_be_read_is_written_alike(
            text in "(cookie:|header:|query:|path:/|client-ip|sticky-cookie|engine-io|[|])[a-z{}*/]{0,4}([+]learn)?([|]client-ip)?",
        ) {
            if let Ok(affinity) = text.parse::<Affinity>() {
                prop_assert_eq!(affinity.to_string(), text);
            }
        }

        #[test]
        fn what_passes_the_check_has_a_text(name: String) {
            let sources: [fn(String) -> Affinity; 4] = [Affinity::cookie, Affinity::header, Affinity::query, Affinity::path];
            for source in sources {
                let affinity = source(name.clone()).or(Affinity::client_ip());
                if affinity.check().is_ok() {
                    prop_assert_eq!(affinity.to_string().parse(), Ok(affinity));
                }
            }
        }
    }
}
