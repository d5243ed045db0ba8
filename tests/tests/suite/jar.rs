//! Clients that keep cookies, as browsers do.

use std::io::{Read, Write};

use sticky_tests::{Client, Connection, Request, Response};

/// The name that the sticky cookie has by default.
pub(crate) const STICKY: &str = "sticky";

/// One client's cookies, in the order in which it got them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jar {
    cookies: Vec<(String, String)>,
}

impl Jar {
    /// A client that was given this cookie before.
    pub(crate) fn with(name: &str, value: &str) -> Self {
        let mut jar = Self::default();
        jar.put(name, value);
        jar
    }

    pub(crate) fn put(&mut self, name: &str, value: &str) {
        match self.cookies.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => self.cookies.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The request with these cookies.
    pub(crate) fn on(&self, request: Request) -> Request {
        if self.cookies.is_empty() {
            return request;
        }
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.header("cookie", &pairs.join("; "))
    }

    /// Sends a request with these cookies on a connection, and keeps those of the answer.
    pub(crate) fn exchange<S: Read + Write>(&mut self, connection: &mut Connection<S>, request: Request) -> Response {
        let target = request.target().to_owned();
        let answer = connection.exchange(&self.on(request)).unwrap_or_else(|error| panic!("{target}: {error}"));
        self.keep(&answer);
        answer
    }

    /// The same on a connection of its own.
    pub(crate) fn ask(&mut self, client: &Client, request: Request) -> Response {
        self.exchange(&mut client.connect().expect("a connection"), request)
    }

    /// Keeps the cookies that an answer sets.
    pub(crate) fn keep(&mut self, answer: &Response) {
        for line in answer.header_values("set-cookie") {
            if let Some((name, value)) = line.split(';').next().and_then(|pair| pair.split_once('=')) {
                self.put(name, value);
            }
        }
    }
}

/// The `Set-Cookie` of this name in an answer, which has one at most.
pub(crate) fn set_cookie<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    let is_named = |line: &&str| line.split_once('=').is_some_and(|(found, _)| found == name);
    let mut lines = answer.header_values("set-cookie").filter(is_named);
    let line = lines.next();
    assert_eq!(lines.next(), None, "set twice: {answer:?}");
    line
}

/// The value of the sticky cookie that an answer sets.
pub(crate) fn ticket(answer: &Response) -> Option<String> {
    let (_, value) = set_cookie(answer, STICKY)?.split(';').next()?.split_once('=')?;
    Some(value.to_owned())
}
