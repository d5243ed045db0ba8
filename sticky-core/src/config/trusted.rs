//! The proxies whose word about the client's address is taken.

use std::net::IpAddr;

use ipnet::IpNet;

use super::parse::Value;

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
}

fn read_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().map(|network| network.trunc());
    network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| format!("{text:?} is not a network"))
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
}
