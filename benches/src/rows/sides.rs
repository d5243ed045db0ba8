//! The programs that are compared, with their environments.

use crate::side::Side;

type Environment = Vec<(&'static str, String)>;

pub(super) const PLAIN: Side =
    Side { name: "plain", program: "bench-plain", env: |threads| vec![("BENCH_THREADS", threads.to_string())] };

pub(super) const KERNEL: Side =
    Side { name: "kernel", program: "bench-sticky", env: |workers| sticky(workers, "kernel", None) };

/// The key in the header `x-key`.
pub(super) const HANDOFF: Side =
    Side { name: "handoff", program: "bench-sticky", env: |workers| sticky(workers, "handoff", Some("header:x-key")) };

/// The key in the cookie `session`.
pub(super) const HANDOFF_COOKIE: Side = Side {
    name: "handoff",
    program: "bench-sticky",
    env: |workers| sticky(workers, "handoff", Some("cookie:session")),
};

/// The same program behind a proxy of ours.
pub(super) const PROXY: Side =
    Side { name: "proxy", program: "bench-sticky", env: |workers| sticky(workers, "proxy", Some("header:x-key")) };
pub(super) const PROXY_COOKIE: Side =
    Side { name: "proxy", program: "bench-sticky", env: |workers| sticky(workers, "proxy", Some("cookie:session")) };

pub(super) const PLAIN_ACTIX: Side = Side { name: "plain actix", program: "bench-plain-actix", ..PLAIN };
pub(super) const KERNEL_ACTIX: Side = Side { program: "bench-sticky-actix", ..KERNEL };
pub(super) const HANDOFF_ACTIX: Side = Side { program: "bench-sticky-actix", ..HANDOFF };
pub(super) const HANDOFF_COOKIE_ACTIX: Side = Side { program: "bench-sticky-actix", ..HANDOFF_COOKIE };

pub(super) const NGINX: Side =
    Side { name: "nginx", program: "bench-front", env: |workers| front(workers, "nginx", "header") };
pub(super) const NGINX_COOKIE: Side =
    Side { name: "nginx", program: "bench-front", env: |workers| front(workers, "nginx", "cookie") };

pub(super) const HAPROXY: Side =
    Side { name: "haproxy", program: "bench-front", env: |workers| front(workers, "haproxy", "header") };
pub(super) const HAPROXY_COOKIE: Side =
    Side { name: "haproxy", program: "bench-front", env: |workers| front(workers, "haproxy", "cookie") };

/// A forwarder that parses nothing, and goes by the client's address.
pub(super) const FLOOR: Side =
    Side { name: "floor", program: "bench-front", env: |workers| front(workers, "floor", "header") };
/// What the manual of hyper would have one write, with kept connections.
pub(super) const HYPER: Side =
    Side { name: "hyper", program: "bench-front", env: |workers| front(workers, "hyper", "header") };

/// It goes by the client's address.
pub(super) const STICKY_SESSION: Side =
    Side { name: "sticky-session", program: "bench-front", env: |workers| front(workers, "sticky-session", "header") };

/// It goes by the query's `sid`.
pub(super) const SOCKETIO_STICKY: Side = Side {
    name: "socketio-sticky",
    program: "bench-front",
    env: |workers| front(workers, "socketio-sticky", "header"),
};

fn sticky(workers: u16, dispatch: &str, affinity: Option<&str>) -> Environment {
    let mut environment = vec![
        ("STICKY_WORKERS", workers.to_string()),
        ("STICKY_LISTEN", "127.0.0.1:0".to_owned()),
        ("STICKY_DISPATCH", dispatch.to_owned()),
        ("STICKY_THREADS_PER_WORKER", "1".to_owned()),
    ];
    environment.extend(affinity.map(|affinity| ("STICKY_AFFINITY", affinity.to_owned())));
    environment
}

fn front(workers: u16, name: &str, key: &str) -> Environment {
    let settings = [("BENCH_FRONT", name), ("BENCH_KEY", key)].map(|(name, value)| (name, value.to_owned()));
    let search_path = std::env::var("PATH").ok().map(|path| ("PATH", path));
    [("BENCH_WORKERS", workers.to_string())].into_iter().chain(settings).chain(search_path).collect()
}
