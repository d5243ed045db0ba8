//! Where metrics and status are served, if anywhere.

use super::error::Given;
use super::parse::Value;
use super::resolve::Resolver;
use super::settings;
use crate::listener::address::{ListenAddress, ListenAddresses};

/// The addresses of the admin process; empty without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdminAddresses(pub(crate) Vec<ListenAddress>);

impl AdminAddresses {
    pub(super) const ALLOWED: &'static str = "`unix:/run/app.admin.sock`, and addresses like `127.0.0.1:9000` that can only be \
                                              read from, several separated by commas; `none`";
}

impl Value for AdminAddresses {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::default()),
            _ => Vec::parse(text).map(Self),
        }
    }

    fn show(&self) -> String {
        if self.0.is_empty() { "none".to_owned() } else { self.0.show() }
    }
}

impl Resolver<'_> {
    pub(super) fn admin(&mut self, calls: Vec<ListenAddresses>) -> AdminAddresses {
        let code = self.addresses(&settings::ADMIN, calls).map(AdminAddresses);
        let Some(found) = self.pick(&settings::ADMIN, code) else { return AdminAddresses::default() };
        let AdminAddresses(addresses) = &found.value;
        self.refuse_twice(&settings::ADMIN, addresses, &found.given);
        if !addresses.is_empty() && !cfg!(feature = "admin") {
            self.refuse_without_feature(&found.given);
        }
        found.value
    }

    fn refuse_without_feature(&mut self, given: &Given) {
        let reason = "needs the feature `admin` of sticky-core, which this program is built without";
        self.refuse(&settings::ADMIN, given, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_none_or_some() {
        for text in ["none", "unix:/run/a.sock", "unix:/run/a.sock,127.0.0.1:9000"] {
            assert_eq!(AdminAddresses::parse(text).unwrap().show(), text);
        }
        for text in ["", "/run/a.sock", "none,:1", "localhost"] {
            assert!(AdminAddresses::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    #[cfg(not(feature = "admin"))]
    fn it_is_a_feature() {
        let environment = [("STICKY_ADMIN", "unix:/a")].into_iter().collect();
        let machine = super::super::Machine { cpus: std::num::NonZeroUsize::MIN };
        let error = crate::ClusterBuilder::default().resolve(&environment, &machine).unwrap_err().to_string();
        assert!(error.contains("STICKY_ADMIN=\"unix:/a\": needs the feature `admin` of sticky-core"), "{error}");
    }
}
