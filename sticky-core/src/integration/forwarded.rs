//! Notices a proxy in front that nobody told us about: all of its clients have one address, so they are one client to
//! the kernel's placement.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::fields::{Field, Fields};
use crate::notice;

const FIELDS: [Field; 4] = [Field::XForwardedFor, Field::Forwarded, Field::XRealIp, Field::CfConnectingIp];

static HAS_WARNED: AtomicBool = AtomicBool::new(false);

/// Whether that has been noticed.
#[cfg(feature = "proxy")]
pub(crate) fn has_warned() -> bool {
    HAS_WARNED.load(Relaxed)
}

/// Warns, once per process, when `peer` speaks for other clients.
pub(crate) fn warn_once(fields: &impl Fields, peer: SocketAddr) {
    if HAS_WARNED.load(Relaxed) {
        return;
    }
    let Some(field) = forwarding_field(fields) else {
        return;
    };
    if !HAS_WARNED.swap(true, Relaxed) {
        notice::warn(warning(field, peer));
    }
}

fn forwarding_field(fields: &impl Fields) -> Option<Field> {
    FIELDS.into_iter().find(|field| fields.values(*field).next().is_some())
}

fn warning(field: Field, peer: SocketAddr) -> String {
    let (peer, header) = (peer.ip(), field.name());
    format!(
        "{peer} sends {header}, so it is a proxy, and not a trusted one: all clients behind it have its address \
         here. STICKY_TRUSTED_PROXIES={peer} with \
         STICKY_CLIENT_ADDRESS_HEADER={header} tells them apart"
    )
}

#[cfg(test)]
mod tests {
    use super::super::fields::tests::Plain;
    use super::*;

    #[test]
    fn finds_what_proxies_add() {
        for field in FIELDS {
            let fields = Plain::from_iter([(field.name(), "192.0.2.1")]);
            assert_eq!(forwarding_field(&fields), Some(field));
        }
        assert_eq!(forwarding_field(&Plain::from_iter([("host", "forwarded")])), None);
    }

    #[test]
    fn the_warning_has_the_line_to_paste() {
        let warning = warning(Field::Forwarded, "192.0.2.7:4711".parse().unwrap());
        let line = "STICKY_TRUSTED_PROXIES=192.0.2.7 with STICKY_CLIENT_ADDRESS_HEADER=forwarded tells them apart";
        assert!(warning.ends_with(line), "{warning}");
    }
}
