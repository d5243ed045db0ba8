//! What is hidden from actix's documentation and may change with any version: it is used here and nowhere else, and the
//! minor versions of actix-web and actix-http are pinned.

use std::net::SocketAddr;

use actix_web::dev::AppConfig;

/// What an application is told of where it is served, as `HttpServer` tells it.
pub(crate) fn app_config(address: SocketAddr) -> AppConfig {
    AppConfig::__priv_test_new(false, address.to_string(), address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_told_where_it_is_served() {
        let address = SocketAddr::from(([192, 0, 2, 1], 5000));
        let config = app_config(address);
        assert_eq!((config.host(), config.local_addr(), config.secure()), ("192.0.2.1:5000", address, false));
    }
}
