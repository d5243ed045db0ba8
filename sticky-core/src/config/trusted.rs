//! The proxies whose word about the client's address is taken, and the header in which they give it.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::parse::Value;
use crate::affinity::{AddressHeader, Peer};

/// Networks that a preset stands for.
const PRESETS: [(&str, &[&str]); 2] = [
    ("loopback", &["127.0.0.0/8", "::1/128"]),
    ("private", &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
];

/// Peers that are trusted to name the client they speak for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrustedProxies {
    networks: Vec<IpNet>,
    /// Whether every peer on a unix socket is trusted.
    unix: bool,
    /// The entries as written, for messages.
    written: Vec<String>,
}

impl TrustedProxies {
    pub(super) const ALLOWED: &'static str = "addresses (`10.0.0.1`), networks (`10.0.0.0/8`) and the presets `loopback`, `private` and `unix`, separated by \
         commas; `none`";

    /// Whether nobody is trusted.
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether this peer is trusted. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Unix => self.unix,
            Peer::Ip(address) => {
                let address = address.to_canonical();
                self.networks.iter().any(|network| network.contains(&address))
            }
        }
    }

    fn add(&mut self, entry: &str) -> Result<(), String> {
        let networks = match PRESETS.iter().find(|(name, _)| *name == entry) {
            Some((_, networks)) => networks.iter().map(|network| read_network(network)).collect::<Result<_, _>>()?,
            None if entry == "unix" => Vec::new(),
            None => vec![read_network(entry)?],
        };
        self.networks.extend(networks);
        self.unix |= entry == "unix";
        self.written.push(entry.to_owned());
        Ok(())
    }

    /// The proxies of a text that is right, for tests elsewhere.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of(text: &str) -> Self {
        Self::parse(text).unwrap()
    }
}

fn read_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().map(|network| canonical(network.trunc()));
    network
        .or_else(|_| text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical())))
        .map_err(|_| format!("{text:?} is not a network"))
}

/// A network of IPv4-mapped addresses as the IPv4 network; addresses are compared in that form.
fn canonical(network: IpNet) -> IpNet {
    let (IpAddr::V4(address), IpNet::V6(mapped)) = (network.addr().to_canonical(), network) else {
        return network;
    };
    // A shorter prefix has more in it than the mapped addresses.
    let prefix = mapped.prefix_len().checked_sub(96);
    let mapped = prefix.and_then(|prefix| Ipv4Net::new(address, prefix).ok());
    mapped.map_or(network, IpNet::V4)
}

impl Value for TrustedProxies {
    fn parse(text: &str) -> Result<Self, String> {
        let mut proxies = Self::default();
        if text == "none" {
            return Ok(proxies);
        }
        let errors: Vec<_> = text.split(',').filter_map(|entry| proxies.add(entry.trim()).err()).collect();
        if errors.is_empty() { Ok(proxies) } else { Err(errors.join(", ")) }
    }

    fn show(&self) -> String {
        if self.is_empty() { "none".to_owned() } else { self.written.join(",") }
    }
}

impl Value for AddressHeader {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Vec<String> {
        TrustedProxies::parse(text).unwrap().networks.iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn addresses_networks_and_presets() {
        assert_eq!(networks("10.1.2.3/8, 1.2.3.4 ,::1"), ["10.0.0.0/8", "1.2.3.4/32", "::1/128"]);
        assert_eq!(networks("loopback"), ["127.0.0.0/8", "::1/128"]);
        assert_eq!(networks("private"), ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]);
        assert_eq!(networks("fd00::1/64"), ["fd00::/64"]);
        for (text, unix) in [("unix", true), ("unix,::1", true), ("::1", false)] {
            let proxies = TrustedProxies::parse(text).unwrap();
            assert_eq!(proxies.unix, unix);
            assert!(!proxies.is_empty());
            assert_eq!(proxies.show(), text);
        }
    }

    #[test]
    fn nobody() {
        let nobody = TrustedProxies::parse("none").unwrap();
        assert!(nobody.is_empty());
        assert_eq!(nobody, TrustedProxies::default());
        assert_eq!(nobody.show(), "none");
    }

    #[test]
    fn every_mistake_is_named() {
        let error = TrustedProxies::parse("10.0.0.0/33,loopback,,localhost,1.2.3.4:80").unwrap_err();
        let expected = r#""10.0.0.0/33" is not a network, "" is not a network, "localhost" is not a network, "1.2.3.4:80" is not a network"#;
        assert_eq!(error, expected);
    }

    fn trusts(proxies: &str, address: &str) -> bool {
        let proxies = TrustedProxies::of(proxies);
        proxies.trusts(Peer::Ip(address.parse().unwrap()))
    }

    #[test]
    fn networks_have_edges() {
        for (proxies, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("fd00::/64", "fd00::ffff", "fd00:0:0:1::"),
            ("::1", "::1", "::2"),
            ("loopback", "127.3.2.1", "128.0.0.1"),
            ("loopback", "::1", "::"),
            ("private", "172.31.255.255", "172.32.0.0"),
            ("private", "192.168.7.7", "192.169.0.0"),
            ("private", "fd12::1", "fe80::1"),
            ("private", "10.0.0.1", "127.0.0.1"),
            ("1.2.3.4,::1", "::1", "1.2.3.5"),
        ] {
            assert!(trusts(proxies, inside), "{proxies} {inside}");
            assert!(!trusts(proxies, outside), "{proxies} {outside}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4_addresses() {
        assert!(trusts("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(trusts("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(!trusts("::ffff:10.0.0.0/104", "11.1.2.3"));
        assert!(trusts("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(trusts("::ffff:0.0.0.0/96", "203.0.113.1"));
        assert!(!trusts("::/0", "10.0.0.1"));
        assert!(trusts("::/0", "2001:db8::1"));
        assert!(!trusts("0.0.0.0/0", "2001:db8::1"));
    }

    #[test]
    fn unix_peers_are_trusted_by_name() {
        for (text, trusted) in [("unix", true), ("unix,::1", true), ("loopback", false), ("none", false)] {
            assert_eq!(TrustedProxies::of(text).trusts(Peer::Unix), trusted);
        }
        assert!(!trusts("unix", "127.0.0.1"));
        assert!(!trusts("none", "127.0.0.1"));
    }
}
