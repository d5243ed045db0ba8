//! Who may ask what. Pure.
//!
//! A socket's mode keeps other users out; this is for those who come in all the same: pages of other sites in the browser
//! of somebody on this machine, which reach loopback addresses (by a name of theirs that leads there, too), and users that
//! somebody has opened the socket for.

use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use http::{Method, StatusCode};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// By a unix socket: this process's user, or root.
    Owner,
    /// By a unix socket: another user.
    Stranger,
    /// By TCP: anybody.
    Remote,
}

/// Why something is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const fn forbidden(why: &'static str) -> Denial {
    Denial { status: StatusCode::FORBIDDEN, why }
}

/// Whether the request is answered at all.
pub(super) fn check(method: &Method, headers: &HeaderMap, caller: Caller, hosts: &[String]) -> Result<(), Denial> {
    check_host(headers, caller, hosts)?;
    check_site(headers)?;
    match (*method == Method::GET || *method == Method::HEAD, caller) {
        (true, _) | (false, Caller::Owner) => Ok(()),
        (false, Caller::Remote) => Err(forbidden("commands are taken on unix sockets only")),
        (false, Caller::Stranger) => Err(forbidden("commands are taken from this program's user and from root only")),
    }
}

/// A page whose own name leads to this machine would name itself. Addresses, `localhost` and what was configured no page
/// can call its own.
fn check_host(headers: &HeaderMap, caller: Caller, hosts: &[String]) -> Result<(), Denial> {
    if caller != Caller::Remote {
        return Ok(());
    }
    let mut values = headers.get_all(HOST).iter();
    match (values.next().and_then(host_name), values.next()) {
        (Some(name), None) if is_known(&name, hosts) => Ok(()),
        (Some(_), None) => Err(Denial {
            status: StatusCode::MISDIRECTED_REQUEST,
            why: "ask by an address, `localhost` or the name configured",
        }),
        _ => Err(Denial { status: StatusCode::BAD_REQUEST, why: "ask with one Host" }),
    }
}

fn is_known(name: &str, hosts: &[String]) -> bool {
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok()
        || name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    is_address || name.eq_ignore_ascii_case("localhost") || hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

/// The name in a Host, without its port.
fn host_name(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let (name, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text, "0"),
    };
    (port.parse::<u16>().is_ok() && !name.is_empty()).then(|| name.to_owned())
}

/// Browsers say of a request that a page of another site makes it.
fn check_site(headers: &HeaderMap) -> Result<(), Denial> {
    let denial = Err(forbidden("pages of other sites are not answered"));
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if sites.any(|site| site != "none" && site != "same-origin") {
        return denial;
    }
    let own = headers.get(HOST).map(|host| [b"http://", host.as_bytes()].concat());
    let mut origins = headers.get_all(ORIGIN).iter();
    if origins.any(|origin| own.as_deref() != Some(origin.as_bytes())) { denial } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Caller = Caller::Owner;
    const REMOTE: Caller = Caller::Remote;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value): (http::HeaderName, _)| {
                map.append(name, value);
                map
            })
    }

    fn status(method: &Method, lines: &[(&'static str, &'static str)], caller: Caller) -> u16 {
        let hosts = ["metrics.internal".to_owned()];
        check(method, &headers(lines), caller, &hosts).map_or_else(|denial| denial.status.as_u16(), |()| 200)
    }

    #[test]
    fn commands_are_the_owners() {
        let host = [("host", "127.0.0.1:9000")];
        for (caller, expected) in [(OWNER, 200), (Caller::Stranger, 403), (REMOTE, 403)] {
            assert_eq!(status(&Method::POST, &host, caller), expected);
            assert_eq!(status(&Method::DELETE, &host, caller), expected);
            assert_eq!(status(&Method::GET, &host, caller), 200);
            assert_eq!(status(&Method::HEAD, &host, caller), 200);
        }
    }

    #[test]
    fn over_tcp_only_names_are_answered_that_no_page_has() {
        for (host, expected) in [
            ("127.0.0.1", 200),
            ("127.0.0.1:9000", 200),
            ("10.1.2.3:9000", 200),
            ("[::1]", 200),
            ("[::1]:9000", 200),
            ("localhost:9000", 200),
            ("LocalHost", 200),
            ("metrics.internal:9000", 200),
            ("evil.example", 421),
            ("evil.example:9000", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("127.1", 421),
            ("[evil]", 421),
            ("", 400),
            (":9000", 400),
            ("localhost:", 400),
            ("localhost:99999", 400),
        ] {
            assert_eq!(status(&Method::GET, &[("host", host)], REMOTE), expected, "{host:?}");
            assert_eq!(status(&Method::GET, &[("host", host)], OWNER), 200);
        }
        assert_eq!(status(&Method::GET, &[], REMOTE), 400);
        assert_eq!(status(&Method::GET, &[("host", "localhost"), ("host", "localhost")], REMOTE), 400);
    }

    #[test]
    fn other_sites_pages_are_not_answered_anywhere() {
        for caller in [OWNER, REMOTE] {
            for (name, value, expected) in [
                ("sec-fetch-site", "cross-site", 403),
                ("sec-fetch-site", "same-site", 403),
                ("sec-fetch-site", "nonsense", 403),
                ("sec-fetch-site", "same-origin", 200),
                ("sec-fetch-site", "none", 200),
                ("origin", "http://evil.example", 403),
                ("origin", "null", 403),
                ("origin", "https://localhost:9000", 403),
                ("origin", "http://localhost:9000", 200),
            ] {
                let lines = [("host", "localhost:9000"), (name, value)];
                assert_eq!(status(&Method::GET, &lines, caller), expected, "{name}: {value}");
            }
        }
        let twice = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://evil.example")];
        assert_eq!(status(&Method::GET, &twice, REMOTE), 403);
    }
}
