//! Listeners beside the public ones, each with a name by which workers ask for it.

use std::collections::HashSet;

use super::error::Given;
use super::parse::Value;
use super::resolve::Resolver;
use super::settings;
use crate::listener::address::{ListenAddress, ListenAddresses};

/// How many there may be: they travel to a worker in one message.
const MOST: usize = 64;

/// How long a name may be, in bytes.
const LONGEST_NAME: usize = 64;

/// One of them, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtraAddress {
    /// Lowercase letters, digits and `-`.
    pub(crate) name: String,
    pub(crate) address: ListenAddress,
}

/// All of them. Names differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtraAddresses(pub(crate) Vec<ExtraAddress>);

impl ExtraAddresses {
    pub(super) const ALLOWED: &'static str = "a name of lowercase letters, digits and `-`, and one address, like `metrics=127.0.0.1:9000` or \
                                              `debug=unix:/run/debug.sock`, several separated by commas; `none`";
}

impl ExtraAddress {
    fn new(name: &str, address: Result<Vec<ListenAddress>, String>) -> Result<Self, String> {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_letter) {
            let reason = format!("{name:?} is not a name of 1 to {LONGEST_NAME} lowercase letters, digits and `-`");
            return Err(reason);
        }
        let addresses = address?;
        match <[ListenAddress; 1]>::try_from(addresses) {
            Ok([address]) => Ok(Self { name: name.to_owned(), address }),
            Err(addresses) => Err(format!("{name:?} has {} addresses, and can have one", addresses.len())),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (name, address) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not a name with `=` behind it"))?;
        Self::new(name.trim(), read(ListenAddresses::parse(address)))
    }
}

/// The addresses, or everything that is wrong with them, in words.
fn read(addresses: ListenAddresses) -> Result<Vec<ListenAddress>, String> {
    addresses.into_result().map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        errors.join(", ")
    })
}

impl Value for ExtraAddresses {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        text.split(',').map(|part| ExtraAddress::parse(part.trim())).collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let texts: Vec<_> = self.0.iter().map(|extra| format!("{}={}", extra.name, extra.address)).collect();
        texts.join(",")
    }
}

impl Resolver<'_> {
    /// `public` is where clients come in.
    pub(super) fn extra_listeners(
        &mut self,
        calls: Vec<(String, ListenAddresses)>,
        public: &[ListenAddress],
    ) -> ExtraAddresses {
        let code = self.extras_of_code(calls);
        let Some(found) = self.pick(&settings::EXTRA_LISTENER, code) else { return ExtraAddresses::default() };
        let ExtraAddresses(extras) = &found.value;
        let addresses: Vec<ListenAddress> = extras.iter().map(|extra| extra.address.clone()).collect();
        self.refuse_twice(&settings::EXTRA_LISTENER, &addresses, &found.given);
        self.refuse_known_names(extras, &found.given);
        let is_public = |address: &&ListenAddress| address.port() != Some(0) && public.contains(address);
        for address in addresses.iter().filter(is_public) {
            let reason = format_args!("{address} is a public address of this cluster");
            self.refuse(&settings::EXTRA_LISTENER, &found.given, reason);
        }
        found.value
    }

    fn extras_of_code(&mut self, calls: Vec<(String, ListenAddresses)>) -> Option<ExtraAddresses> {
        let mut code = (!calls.is_empty()).then(ExtraAddresses::default);
        for (name, addresses) in calls {
            let value = format!("{name:?}, {}", addresses.given());
            let given = Given::Builder { method: settings::EXTRA_LISTENER.name, value };
            match ExtraAddress::new(&name, read(addresses)) {
                Ok(extra) => code.get_or_insert_default().0.push(extra),
                Err(reason) => self.refuse(&settings::EXTRA_LISTENER, &given, reason),
            }
        }
        code
    }

    fn refuse_known_names(&mut self, extras: &[ExtraAddress], given: &Given) {
        let mut seen = HashSet::new();
        for ExtraAddress { name, .. } in extras.iter().filter(|extra| !seen.insert(&extra.name)) {
            self.refuse(&settings::EXTRA_LISTENER, given, format_args!("the name {name:?} is there twice"));
        }
        if extras.len() > MOST {
            let reason = format_args!("there are {} of them, and can be {MOST}", extras.len());
            self.refuse(&settings::EXTRA_LISTENER, given, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        let environment = [("STICKY_EXTRA_LISTENER", text)].into_iter().collect();
        let machine = super::super::Machine { cpus: std::num::NonZeroUsize::MIN };
        let resolved = crate::ClusterBuilder::default().resolve(&environment, &machine);
        resolved.map_or_else(|error| error.to_string(), |config| config.extra_listeners.show())
    }

    #[test]
    fn there_are_none_or_some() {
        for text in ["none", "a=:9000", "admin-2=127.0.0.1:0,b=unix:/run/b.sock,c=localhost:0"] {
            assert_eq!(problems(text), text);
        }
        assert_eq!(problems(" a = :9000 , b=:9001"), "a=:9000,b=:9001");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            (":9000", "\":9000\" is not a name with `=` behind it"),
            ("a=:1,", "\"\" is not a name with `=` behind it"),
            ("=:9000", "\"\" is not a name of 1 to 64 lowercase letters"),
            ("Admin=:9000", "\"Admin\" is not a name of 1 to 64 lowercase letters"),
            ("a=localhost", "\"localhost\" has no port"),
            ("a=", "an address is empty"),
            ("a=:9000,a=:9001", "the name \"a\" is there twice"),
            ("a=:9000,b=:9000", ":9000 is there twice"),
            ("a=:5000", ":5000 is a public address of this cluster"),
        ] {
            let problems = problems(text);
            assert!(problems.contains(words), "{text}: {problems}");
            assert!(problems.contains("STICKY_EXTRA_LISTENER="), "{problems}");
        }
    }

    #[test]
    fn code_gives_one_at_a_time() {
        let machine = super::super::Machine { cpus: std::num::NonZeroUsize::MIN };
        let builder = || crate::ClusterBuilder::default().extra_listener("a", 9000);
        let resolve = |builder: crate::ClusterBuilder| {
            let resolved = builder.resolve(&Default::default(), &machine);
            resolved.map_or_else(|error| error.to_string(), |config| config.extra_listeners.show())
        };
        assert_eq!(resolve(builder().extra_listener("b", "unix:/b")), "a=:9000,b=unix:/b");
        let twice = resolve(builder().extra_listener("b", ":1,:2"));
        assert!(
            twice.contains(".extra_listener(\"b\", \":1,:2\"): \"b\" has 2 addresses, and can have one"),
            "{twice}"
        );
        let many =
            (0..65).fold(crate::ClusterBuilder::default(), |builder, nth| builder.extra_listener(format!("a{nth}"), 0));
        let many = resolve(many);
        assert!(many.contains("there are 65 of them, and can be 64"), "{many}");
    }
}
