//! The addresses a cluster listens on: reading and writing their text form. Nothing is resolved or bound here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest path a unix socket can have on Linux, in bytes: `sun_path` less its final NUL.
const LONGEST_UNIX_PATH: usize = 107;

/// The longest name of a socket that systemd passes, in bytes.
const LONGEST_NAME: usize = 255;

/// The longest host name that DNS knows, in bytes.
const LONGEST_HOST: usize = 253;

/// One address to listen on. Its text form reads back as the same address.
///
/// ```
/// # use sticky_core::ListenAddress;
/// for text in [":3000", "0.0.0.0:80", "[::1]:5000", "localhost:0", "unix:/run/app.sock", "systemd", "systemd:web"] {
///     assert_eq!(text.parse::<ListenAddress>()?.to_string(), text);
/// }
/// # Ok::<(), sticky_core::error::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddress {
    /// `:3000`, or `3000`: every address of the machine. `[::]` for IPv6 and IPv4 at once, and `0.0.0.0` where the
    /// machine has no IPv6.
    Any {
        /// The port; 0 lets the system choose one.
        port: u16,
    },
    /// `0.0.0.0:80`, `[::]:5000`: exactly this address; there is nothing to fall back to. `[::]` takes IPv4 too.
    Socket(SocketAddr),
    /// `localhost:3000`: a host name, resolved when the listener is made and not before.
    Host {
        /// The name as it was written.
        host: String,
        /// The port; 0 lets the system choose one.
        port: u16,
    },
    /// `unix:/run/app.sock`: a unix socket at this absolute path.
    Unix(PathBuf),
    /// `systemd`, `systemd:web`: sockets that a service manager has passed to this program (socket activation): all with this name
    /// (`FileDescriptorName=`), or all that nobody asks for by name.
    Systemd(Option<String>),
}

impl ListenAddress {
    /// The forms there are, for error messages and documentation.
    pub(crate) const ALLOWED: &'static str = "`:3000`, `0.0.0.0:80`, `[::1]:5000`, `localhost:0`, `unix:/path`, `systemd` or `systemd:name`, several \
         separated by commas; ports are 0 to 65535";

    /// The address, where it is one that needs no look-up.
    pub(crate) fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Any { port } => Some(SocketAddr::from(([0, 0, 0, 0], *port))),
            Self::Socket(address) => Some(*address),
            Self::Host { .. } | Self::Unix(_) | Self::Systemd(_) => None,
        }
    }

    /// Its host name, where it has one.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Host { host, .. } => Some(host),
            Self::Any { .. } | Self::Socket(_) | Self::Unix(_) | Self::Systemd(_) => None,
        }
    }

    /// Its port, where it has one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Any { port } | Self::Host { port, .. } => Some(*port),
            Self::Socket(address) => Some(address.port()),
            Self::Unix(_) | Self::Systemd(_) => None,
        }
    }

    fn from_path(path: &Path) -> Result<Self, AddressError> {
        let bytes = path.as_os_str().as_encoded_bytes();
        if !path.has_root() || bytes.contains(&0) || bytes.len() > LONGEST_UNIX_PATH {
            return Err(AddressError::Path { path: path.display().to_string() });
        }
        Ok(Self::Unix(path.to_owned()))
    }

    /// Names as systemd allows them, but for commas.
    fn from_name(name: &str) -> Result<Self, AddressError> {
        let is_letter = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b':' | b',');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_letter) {
            return Err(AddressError::SocketName { name: name.to_owned() });
        }
        Ok(Self::Systemd(Some(name.to_owned())))
    }

    fn from_host(host: &str, port: u16) -> Result<Self, AddressError> {
        if host.is_empty() {
            return Ok(Self::Any { port });
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Socket(SocketAddr::new(ip, port)));
        }
        if !is_host_name(host) {
            return Err(AddressError::Host { host: host.to_owned() });
        }
        Ok(Self::Host { host: host.to_owned(), port })
    }
}

/// Whether this can be a host name. A last label of digits alone is a mistyped IPv4 address (`256.0.0.1`), which
/// some resolvers would read in surprising ways.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= LONGEST_HOST && host.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// A port in digits alone: what `u16::from_str` takes, less its leading `+`.
fn parse_port(text: &str) -> Result<u16, AddressError> {
    let error = || AddressError::Port { port: text.to_owned() };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error());
    }
    text.parse().map_err(|_| error())
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, ":{port}"),
            Self::Socket(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::from_path(Path::new(path));
        }
        if text == "systemd" {
            return Ok(Self::Systemd(None));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            return Self::from_name(name);
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(AddressError::Brackets { text: text.to_owned() });
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Any { port: parse_port(text)? });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort { text: text.to_owned() })?;
        let port = parse_port(port)?;
        match host.starts_with('[') {
            // The standard parser knows brackets and scopes (`[fe80::1%2]:80`).
            true => text.parse().map(Self::Socket).map_err(|_| AddressError::Host { host: host.to_owned() }),
            false => Self::from_host(host, port),
        }
    }
}

/// Why a text is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing between two commas, or nothing at all: leave it out.
    #[error("an address is empty")]
    Empty,
    /// Add a port: `localhost:3000`.
    #[error("{text:?} has no port")]
    NoPort {
        /// The whole address.
        text: String,
    },
    /// Give a port from 0 to 65535.
    #[error("{port:?} is not a port from 0 to 65535")]
    Port {
        /// What stands where the port should.
        port: String,
    },
    /// Give an IP address or a host name.
    #[error("{host:?} is neither an address nor a host name")]
    Host {
        /// What stands where the host should.
        host: String,
    },
    /// Write an IPv6 address with brackets and a port: `[::1]:3000`.
    #[error("{text:?} is an IPv6 address without brackets and a port: write `[::1]:3000`")]
    Brackets {
        /// The whole address.
        text: String,
    },
    /// Give what `FileDescriptorName=` says in the socket's unit.
    #[error("{name:?} is not the name of a socket: 1 to {LONGEST_NAME} visible letters without `:` and `,`")]
    SocketName {
        /// The name as given.
        name: String,
    },
    /// Give an absolute path of at most 107 bytes.
    #[error("{path:?} is not an absolute path of at most {LONGEST_UNIX_PATH} bytes")]
    Path {
        /// The path as given.
        path: String,
    },
}

/// One or more addresses as a program gives them to [`ClusterBuilder::listen`](crate::ClusterBuilder::listen).
///
/// Made by `.into()` from a port, a text (the form of [`ListenAddress`], several separated by commas), a
/// [`SocketAddr`], a pair of host and port, or a path. Mistakes are kept, and reported when the cluster is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddresses {
    /// As it was given, for messages about it.
    given: String,
    addresses: Result<Vec<ListenAddress>, Vec<AddressError>>,
}

impl ListenAddresses {
    /// Reads a list of addresses separated by commas, with blanks around them or not.
    pub(crate) fn parse(text: &str) -> Self {
        let (mut addresses, mut errors) = (Vec::new(), Vec::new());
        for part in text.split(',') {
            match part.trim().parse() {
                Ok(address) => addresses.push(address),
                Err(error) => errors.push(error),
            }
        }
        let addresses = if errors.is_empty() { Ok(addresses) } else { Err(errors) };
        Self { given: format!("{text:?}"), addresses }
    }

    /// As it was given, for messages about it.
    pub(crate) fn given(&self) -> &str {
        &self.given
    }

    /// The addresses, or everything that is wrong with them.
    pub(crate) fn into_result(self) -> Result<Vec<ListenAddress>, Vec<AddressError>> {
        self.addresses
    }

    fn one(given: String, address: Result<ListenAddress, AddressError>) -> Self {
        Self { given, addresses: address.map(|address| vec![address]).map_err(|error| vec![error]) }
    }
}

impl From<u16> for ListenAddresses {
    fn from(port: u16) -> Self {
        Self::one(port.to_string(), Ok(ListenAddress::Any { port }))
    }
}

impl From<&str> for ListenAddresses {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}

impl From<String> for ListenAddresses {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

impl From<&String> for ListenAddresses {
    fn from(text: &String) -> Self {
        Self::parse(text)
    }
}

impl From<ListenAddress> for ListenAddresses {
    /// The variants are public, so what is in them is checked as well.
    fn from(address: ListenAddress) -> Self {
        let given = address.to_string();
        let checked = match address {
            ListenAddress::Host { host, port } => from_named_host(&host, port),
            ListenAddress::Unix(path) => ListenAddress::from_path(&path),
            ListenAddress::Systemd(Some(name)) => ListenAddress::from_name(&name),
            address => Ok(address),
        };
        Self::one(given, checked)
    }
}

impl From<SocketAddr> for ListenAddresses {
    fn from(address: SocketAddr) -> Self {
        Self::one(address.to_string(), Ok(ListenAddress::Socket(address)))
    }
}

impl From<SocketAddrV4> for ListenAddresses {
    fn from(address: SocketAddrV4) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<SocketAddrV6> for ListenAddresses {
    fn from(address: SocketAddrV6) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<(IpAddr, u16)> for ListenAddresses {
    fn from(pair: (IpAddr, u16)) -> Self {
        SocketAddr::from(pair).into()
    }
}

impl From<(Ipv4Addr, u16)> for ListenAddresses {
    fn from(pair: (Ipv4Addr, u16)) -> Self {
        SocketAddr::from(pair).into()
    }
}

impl From<(Ipv6Addr, u16)> for ListenAddresses {
    fn from(pair: (Ipv6Addr, u16)) -> Self {
        SocketAddr::from(pair).into()
    }
}

impl From<(&str, u16)> for ListenAddresses {
    fn from((host, port): (&str, u16)) -> Self {
        Self::one(format!("({host:?}, {port})"), from_named_host(host, port))
    }
}

impl From<(String, u16)> for ListenAddresses {
    fn from((host, port): (String, u16)) -> Self {
        (host.as_str(), port).into()
    }
}

impl From<&Path> for ListenAddresses {
    fn from(path: &Path) -> Self {
        Self::one(format!("{path:?}"), ListenAddress::from_path(path))
    }
}

impl From<PathBuf> for ListenAddresses {
    fn from(path: PathBuf) -> Self {
        path.as_path().into()
    }
}

/// A host that stands by itself is written on purpose: an empty one is a mistake, not "every address".
fn from_named_host(host: &str, port: u16) -> Result<ListenAddress, AddressError> {
    match host.is_empty() {
        true => Err(AddressError::Host { host: String::new() }),
        false => ListenAddress::from_host(host, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, port: u16) -> ListenAddress {
        ListenAddress::Host { host: host.to_owned(), port }
    }

    fn socket(text: &str) -> ListenAddress {
        ListenAddress::Socket(text.parse().unwrap())
    }

    fn unix(path: &str) -> ListenAddress {
        ListenAddress::Unix(path.into())
    }

    fn name_of_length(length: usize) -> String {
        "a.".repeat(length / 2) + if length % 2 == 1 { "a" } else { "" }
    }

    #[test]
    fn texts_are_read_and_written_back() {
        let long_path = format!("/{}", "p".repeat(LONGEST_UNIX_PATH - 1));
        let long_name = name_of_length(LONGEST_HOST);
        assert_eq!((long_path.len(), long_name.len()), (107, 253));
        for (text, expected) in [
            (":3000", ListenAddress::Any { port: 3000 }),
            (":0", ListenAddress::Any { port: 0 }),
            (":65535", ListenAddress::Any { port: 65535 }),
            ("0.0.0.0:80", socket("0.0.0.0:80")),
            ("[::]:5000", socket("[::]:5000")),
            ("[fe80::1%2]:80", socket("[fe80::1%2]:80")),
            ("localhost:0", host("localhost", 0)),
            ("my_host-1.example.:8080", host("my_host-1.example.", 8080)),
            ("1st.2nd:1", host("1st.2nd", 1)),
            (&format!("{long_name}:1"), host(&long_name, 1)),
            ("unix:/run/app.sock", unix("/run/app.sock")),
            ("unix:/with space:80", unix("/with space:80")),
            (&format!("unix:{long_path}"), unix(&long_path)),
        ] {
            let read: ListenAddress = text.parse().unwrap();
            assert_eq!(read, expected);
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn a_bare_number_is_a_port() {
        assert_eq!("3000".parse(), Ok(ListenAddress::Any { port: 3000 }));
        assert_eq!("0".parse(), Ok(ListenAddress::Any { port: 0 }));
    }

    #[test]
    fn mistakes_are_named() {
        let no_port = |text: &str| format!("{text:?} has no port");
        let port = |port: &str| format!("{port:?} is not a port from 0 to 65535");
        let no_host = |host: &str| format!("{host:?} is neither an address nor a host name");
        let socket_name =
            |name: &str| format!("{name:?} is not the name of a socket: 1 to 255 visible letters without `:` and `,`");
        let path = |path: &str| format!("{path:?} is not an absolute path of at most 107 bytes");
        let brackets =
            |text: &str| format!("{text:?} is an IPv6 address without brackets and a port: write `[::1]:3000`");
        let long_path = format!("/{}", "p".repeat(LONGEST_UNIX_PATH));
        let long_name = name_of_length(LONGEST_HOST + 2);
        for (text, expected) in [
            ("", "an address is empty".to_owned()),
            ("localhost", no_port("localhost")),
            ("127.0.0.1", no_port("127.0.0.1")),
            (":", port("")),
            ("65536", port("65536")),
            (":65536", port("65536")),
            ("localhost:+80", port("+80")),
            ("localhost:-1", port("-1")),
            ("localhost:http", port("http")),
            ("[::1]", port("1]")),
            ("[::1]:65536", port("65536")),
            ("[::g]:80", no_host("[::g]")),
            ("[1.2.3.4]:80", no_host("[1.2.3.4]")),
            ("256.1.1.1:80", no_host("256.1.1.1")),
            ("1.2.3:80", no_host("1.2.3")),
            ("http://localhost:80", no_host("http://localhost")),
            ("a..b:80", no_host("a..b")),
            (".:80", no_host(".")),
            ("a b:80", no_host("a b")),
            ("*:80", no_host("*")),
            (&format!("{long_name}:1"), no_host(&long_name)),
            ("::1", brackets("::1")),
            ("::1:3000", brackets("::1:3000")),
            ("systemd:", socket_name("")),
            ("systemd:a:b", socket_name("a:b")),
            ("systemd:a\n", socket_name("a\n")),
            ("unix:", path("")),
            ("unix:run/app.sock", path("run/app.sock")),
            ("unix:/a\0b", path("/a\0b")),
            (&format!("unix:{long_path}"), path(&long_path)),
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn lists_keep_their_order_and_all_their_mistakes() {
        let good = ListenAddresses::parse(" :1 ,localhost:2,unix:/s");
        assert_eq!(good.given(), "\" :1 ,localhost:2,unix:/s\"");
        assert_eq!(good.into_result(), Ok(vec![":1".parse().unwrap(), host("localhost", 2), unix("/s")]));
        let errors = vec![AddressError::Empty, AddressError::Port { port: "x".to_owned() }];
        assert_eq!(ListenAddresses::parse(":1,,:x").into_result(), Err(errors));
    }

    #[test]
    fn everything_convertible_converts() {
        let v4 = || Ipv4Addr::new(1, 2, 3, 4);
        let v6 = || Ipv6Addr::LOCALHOST;
        let cases: [(ListenAddresses, &str, ListenAddress); 15] = [
            (3000.into(), "3000", ListenAddress::Any { port: 3000 }),
            (":3000".into(), "\":3000\"", ListenAddress::Any { port: 3000 }),
            ("a:1".to_owned().into(), "\"a:1\"", host("a", 1)),
            ((&"a:1".to_owned()).into(), "\"a:1\"", host("a", 1)),
            (host("a", 1).into(), "a:1", host("a", 1)),
            (unix("/s").into(), "unix:/s", unix("/s")),
            (ListenAddress::Any { port: 1 }.into(), ":1", ListenAddress::Any { port: 1 }),
            (SocketAddr::new(v4().into(), 5).into(), "1.2.3.4:5", socket("1.2.3.4:5")),
            (SocketAddrV4::new(v4(), 5).into(), "1.2.3.4:5", socket("1.2.3.4:5")),
            (SocketAddrV6::new(v6(), 5, 0, 0).into(), "[::1]:5", socket("[::1]:5")),
            ((IpAddr::from(v4()), 5).into(), "1.2.3.4:5", socket("1.2.3.4:5")),
            ((v4(), 5).into(), "1.2.3.4:5", socket("1.2.3.4:5")),
            ((v6(), 5).into(), "[::1]:5", socket("[::1]:5")),
            (("::1", 5).into(), "(\"::1\", 5)", socket("[::1]:5")),
            (PathBuf::from("/s").into(), "\"/s\"", unix("/s")),
        ];
        for (addresses, given, expected) in cases {
            assert_eq!(addresses.given(), given);
            assert_eq!(addresses.into_result(), Ok(vec![expected]));
        }
    }

    #[test]
    fn what_a_program_gives_is_checked_too() {
        let bad_host = |host: &str| Err(vec![AddressError::Host { host: host.to_owned() }]);
        let bad_path = |path: &str| Err(vec![AddressError::Path { path: path.to_owned() }]);
        let cases: [(ListenAddresses, &str, _); 6] = [
            (("", 80).into(), "(\"\", 80)", bad_host("")),
            (("a/b".to_owned(), 80).into(), "(\"a/b\", 80)", bad_host("a/b")),
            (host("", 80).into(), ":80", bad_host("")),
            (host("a b", 80).into(), "a b:80", bad_host("a b")),
            (unix("s").into(), "unix:s", bad_path("s")),
            (Path::new("s").into(), "\"s\"", bad_path("s")),
        ];
        for (addresses, given, expected) in cases {
            assert_eq!(addresses.given(), given);
            assert_eq!(addresses.into_result(), expected);
        }
    }
}
