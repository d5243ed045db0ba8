//! Precedence, ranges and error texts of every setting.

use super::super::settings::SETTINGS;
use super::*;
use crate::affinity::AddressHeader;
use crate::config::{Failover, TrustedProxies};

const MACHINE: Machine = Machine { cpus: NonZeroUsize::new(8).unwrap() };

pub(super) type Variables<'a> = [(&'a str, &'a str)];

pub(super) fn resolve(builder: ClusterBuilder, variables: &Variables<'_>) -> Result<Config, Vec<String>> {
    let environment = variables.iter().copied().collect();
    builder.resolve(&environment, &MACHINE).map_err(|error| error.problems().iter().map(ToString::to_string).collect())
}

pub(super) fn config(builder: ClusterBuilder, variables: &Variables<'_>) -> Config {
    resolve(builder, variables).unwrap()
}

pub(super) fn problems(builder: ClusterBuilder, variables: &Variables<'_>) -> Vec<String> {
    resolve(builder, variables).unwrap_err()
}

pub(super) fn builder() -> ClusterBuilder {
    ClusterBuilder::default()
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn nonzero(size: usize) -> NonZeroUsize {
    NonZeroUsize::new(size).unwrap()
}

fn secret(secret: &Secret) -> String {
    str::from_utf8(secret.bytes()).unwrap().to_owned()
}

/// A setting's value in a configuration, in the words of the table.
pub(super) fn shown(config: &Config, name: &str) -> String {
    let or = |value: Option<String>, none: &str| value.unwrap_or_else(|| none.to_owned());
    match name {
        "listen" => config.listen.show(),
        "workers" => config.workers.to_string(),
        "max_workers" => config.max_workers.to_string(),
        "threads_per_worker" => config.threads_per_worker.to_string(),
        "affinity" => config.affinity.to_string(),
        "placement" => config.placement.to_string(),
        "dispatch" => config.dispatch.to_string(),
        "trusted_proxies" => config.trust.proxies.show(),
        "client_address_header" => config.trust.header.to_string(),
        "proxy_protocol" => if config.proxy_protocol { "on" } else { "off" }.to_owned(),
        "cookie_name" => config.sticky_cookie.name.clone(),
        "cookie_path" => config.sticky_cookie.path.clone(),
        "cookie_same_site" => config.sticky_cookie.same_site.to_string(),
        "cookie_secure" => config.sticky_cookie.secure.show(),
        "cookie_lifetime" => config.sticky_cookie.lifetime.show(),
        "cookie_secret" => or(config.sticky_cookie.secret.as_ref().map(secret), "drawn at start"),
        "cookie_previous_secret" => or(config.sticky_cookie.previous_secret.as_ref().map(secret), "none"),
        "worker_header" => if config.worker_header { "on" } else { "off" }.to_owned(),
        "session_capacity" => config.session_capacity.to_string(),
        "session_idle_timeout" => config.session_idle_timeout.show(),
        "failover" => config.failover.to_string(),
        "proxy_workers" => config.proxy_workers.to_string(),
        "no_sockets" => if config.no_sockets { "on" } else { "off" }.to_owned(),
        "response_timeout" => config.response_timeout.show(),
        "tunnel_idle_timeout" => config.tunnel_idle_timeout.show(),
        "first_port" => config.first_port.map(u64::from).show(),
        "hash_seed" => or(config.hash_seed.map(|seed| seed.to_string()), "drawn at start"),
        "boot_timeout" => config.boot_timeout.show(),
        "prepare_timeout" => config.prepare_timeout.show(),
        "heartbeat_timeout" => config.heartbeat_timeout.show(),
        "shutdown_timeout" => config.shutdown_timeout.show(),
        "drain_timeout" => config.drain_timeout.show(),
        "reload_parallel" => config.reload_parallel.to_string(),
        "reload_soak" => config.reload_soak.show(),
        "max_requests" => config.max_requests.show(),
        "max_age" => config.max_age.show(),
        "max_rss" => config.max_rss.show(),
        "exit_timeout" => config.exit_timeout.show(),
        "first_byte_timeout" => config.first_byte_timeout.show(),
        "head_timeout" => config.head_timeout.show(),
        "idle_timeout" => config.idle_timeout.show(),
        "max_connections" => config.max_connections.map(|size| size.get() as u64).show(),
        "backlog" => config.backlog.to_string(),
        "admin" => config.admin.show(),
        "extra_listener" => config.extra_listeners.show(),
        "redis_url" => config.redis.url.get().unwrap_or("none").to_owned(),
        "redis_prefix" => config.redis.prefix.get().to_owned(),
        "prefix_output" => config.prefix_output.show(),
        "env" if config.env.is_empty() => "nothing".to_owned(),
        _ => panic!("{name} is in no configuration"),
    }
}

#[test]
fn the_defaults_are_the_table_s() {
    let config = config(builder(), &[]);
    for setting in SETTINGS {
        let expected = match setting.name {
            "workers" => "8",
            "max_workers" => "16",
            "threads_per_worker" => "1",
            "dispatch" => "kernel",
            // Not in the configuration: consumed while it is resolved.
            "prefer_env" => continue,
            _ => setting.default,
        };
        assert_eq!(shown(&config, setting.name), expected, "{}", setting.name);
    }
    assert_eq!(config.dispatch_reason, "affinity is the client address");
    assert_eq!(config.listen, [ListenAddress::Any { port: 5000 }]);
    assert_eq!(config.failover, Failover::Next { after: secs(2) });
}

#[test]
fn workers_and_threads_follow_the_cpus() {
    for (cpus, workers, expected_workers, expected_threads) in [
        (1, None, 1, 1),
        (8, None, 8, 1),
        (256, None, 256, 1),
        (257, None, 256, 1),
        (100_000, None, 256, 390),
        (8, Some("3"), 3, 2),
        (8, Some("16"), 16, 1),
        (8, Some("1"), 1, 8),
        (8, Some("0"), 0, 8),
    ] {
        let environment = workers.map(|workers| ("STICKY_WORKERS", workers)).into_iter().collect();
        let config = builder().resolve(&environment, &Machine { cpus: nonzero(cpus) }).unwrap();
        assert_eq!((config.workers, config.threads_per_worker.get()), (expected_workers, expected_threads), "{cpus}");
    }
}

/// A setting with a value in code, another in the environment, and both as text.
type Case = (&'static str, fn(ClusterBuilder) -> ClusterBuilder, &'static str, &'static str);

const CASES: [Case; 34] = [
    ("listen", |b| b.listen(":1").listen(("localhost", 2)), ":1,localhost:2", "[::1]:3,unix:/s"),
    ("workers", |b| b.workers(3), "3", "4"),
    ("max_workers", |b| b.max_workers(9), "9", "10"),
    ("threads_per_worker", |b| b.threads_per_worker(3), "3", "4"),
    ("affinity", |b| b.affinity(Affinity::client_ip()), "client-ip", "cookie:session|client-ip"),
    ("placement", |b| b.placement(Placement::RoundRobin), "round-robin", "local"),
    ("dispatch", |b| b.dispatch(Dispatch::Kernel), "kernel", "handoff"),
    ("worker_header", |b| b.worker_header(true), "on", "off"),
    ("session_capacity", |b| b.session_capacity(2048), "2048", "4096"),
    ("session_idle_timeout", |b| b.session_idle_timeout(secs(1)), "1s", "2s"),
    ("failover", |b| b.failover(Failover::Wait), "wait", "refuse:3s"),
    ("proxy_workers", |b| b.proxy_workers(3), "3", "4"),
    ("response_timeout", |b| b.response_timeout(secs(1)), "1s", "none"),
    ("tunnel_idle_timeout", |b| b.tunnel_idle_timeout(secs(1)), "1s", "2s"),
    ("first_port", |b| b.first_port(8000), "8000", "8100"),
    ("hash_seed", |b| b.hash_seed(u64::MAX), "18446744073709551615", "0"),
    ("boot_timeout", |b| b.boot_timeout(secs(1)), "1s", "2s"),
    ("heartbeat_timeout", |b| b.heartbeat_timeout(secs(1)), "1s", "2s"),
    ("shutdown_timeout", |b| b.shutdown_timeout(secs(1)), "1s", "2s"),
    ("drain_timeout", |b| b.drain_timeout(secs(1)), "1s", "2s"),
    ("reload_parallel", |b| b.reload_parallel(3), "3", "4"),
    ("prepare_timeout", |b| b.prepare_timeout(secs(1)), "1s", "2s"),
    ("reload_soak", |b| b.reload_soak(secs(1)), "1s", "2s"),
    ("max_requests", |b| b.max_requests(7), "7", "none"),
    ("max_age", |b| b.max_age(secs(1)), "1s", "none"),
    ("max_rss", |b| b.max_rss(1 << 30), "1GiB", "512MiB"),
    ("exit_timeout", |b| b.exit_timeout(secs(1)), "1s", "2s"),
    ("first_byte_timeout", |b| b.first_byte_timeout(secs(1)), "1s", "2s"),
    ("head_timeout", |b| b.head_timeout(secs(1)), "1s", "2s"),
    ("idle_timeout", |b| b.idle_timeout(secs(1)), "1s", "2s"),
    ("max_connections", |b| b.max_connections(7), "7", "none"),
    ("backlog", |b| b.backlog(7), "7", "8"),
    ("redis_url", |b| b.redis_url("redis://a"), "redis://a", "unix:///b"),
    ("redis_prefix", |b| b.redis_prefix("a"), "a", "b"),
];

#[test]
fn code_wins_over_the_environment_unless_that_is_preferred() {
    for (name, set, code, text) in CASES {
        let variable = format!("STICKY_{}", name.to_ascii_uppercase());
        let variables = [(variable.as_str(), text)];
        assert_eq!(shown(&config(set(builder()), &[]), name), code);
        assert_eq!(shown(&config(builder(), &variables), name), text);
        assert_eq!(shown(&config(set(builder()), &variables), name), code);
        assert_eq!(shown(&config(set(builder()).prefer_env(), &variables), name), text);
        assert_eq!(shown(&config(set(builder()).prefer_env(), &[]), name), code);
    }
}

#[test]
#[cfg(feature = "admin")]
fn the_admin_process_has_addresses_or_there_is_none() {
    let shown = |builder, variables: &Variables<'_>| shown(&config(builder, variables), "admin");
    let (path, both) = ("unix:/run/a.sock", "unix:/run/a.sock,127.0.0.1:9000");
    assert_eq!(shown(builder().admin(path).admin(("127.0.0.1".parse::<std::net::IpAddr>().unwrap(), 9000)), &[]), both);
    assert_eq!(shown(builder(), &[("STICKY_ADMIN", both)]), both);
    assert_eq!(shown(builder().admin(path), &[("STICKY_ADMIN", "none")]), path);
    assert_eq!(shown(builder().admin(path).prefer_env(), &[("STICKY_ADMIN", "none")]), "none");
    let twice = problems(builder().admin(path).admin(path), &[]);
    assert_eq!(twice.len(), 1);
    assert!(
        twice[0].starts_with(".admin(unix:/run/a.sock,unix:/run/a.sock): unix:/run/a.sock is there twice"),
        "{twice:?}"
    );
    assert_eq!(problems(builder().admin("localhost"), &[("STICKY_ADMIN", "/run/a.sock")]).len(), 2);
}

#[test]
fn output_can_be_prefixed_or_not() {
    for (set, text, expected) in [
        (None, None, None),
        (Some(true), None, Some(true)),
        (Some(false), Some("on"), Some(false)),
        (None, Some("off"), Some(false)),
        (None, Some("auto"), None),
    ] {
        let builder = set.map_or(builder(), |prefix| builder().prefix_output(prefix));
        let variables: Vec<_> = text.map(|text| ("STICKY_PREFIX_OUTPUT", text)).into_iter().collect();
        assert_eq!(config(builder, &variables).prefix_output, expected);
    }
    assert_eq!(config(builder().max_connections(None), &[("STICKY_MAX_CONNECTIONS", "7")]).max_connections, None);
}

#[test]
fn no_workers_in_the_environment_always_wins() {
    for zero in ["0", "00", " 0 "] {
        assert_eq!(config(builder().workers(4), &[("STICKY_WORKERS", zero)]).workers, 0);
    }
    assert_eq!(config(builder().workers(4), &[("WORKERS", "0")]).workers, 4);
    assert_eq!(config(builder(), &[("WORKERS", "0")]).workers, 0);
}

#[test]
fn fallbacks_count_where_nothing_else_is_said() {
    let listen = |builder, variables: &Variables<'_>| shown(&config(builder, variables), "listen");
    assert_eq!(listen(builder(), &[("PORT", "1"), ("PROXY_PORT", "2")]), ":1");
    assert_eq!(listen(builder(), &[("PORT", ""), ("PROXY_PORT", "2")]), ":2");
    assert_eq!(listen(builder(), &[("PORT", "0")]), ":0");
    assert_eq!(listen(builder(), &[("PORT", "65535"), ("STICKY_LISTEN", "")]), ":65535");
    assert_eq!(listen(builder(), &[("PORT", "1"), ("STICKY_LISTEN", ":3")]), ":3");
    assert_eq!(listen(builder().listen(3), &[("PORT", "1")]), ":3");
    assert_eq!(listen(builder().listen(3).prefer_env(), &[("PORT", "1")]), ":3");
    let workers = |variables: &Variables<'_>| config(builder(), variables).workers;
    assert_eq!(workers(&[("WORKERS", "1"), ("WEB_CONCURRENCY", "2")]), 2);
    assert_eq!(workers(&[("WORKERS", "1")]), 1);
    assert_eq!(workers(&[("WORKERS", "1"), ("STICKY_WORKERS", "3")]), 3);
}

#[test]
fn fallbacks_are_other_programs_until_they_count() {
    let rubbish = [("PORT", "x"), ("PROXY_PORT", "x"), ("WEB_CONCURRENCY", "x"), ("WORKERS", "x"), ("FIRST_PORT", "x")];
    config(builder().listen(1).workers(1).first_port(1), &rubbish);
    let counts = [("STICKY_LISTEN", "1"), ("STICKY_WORKERS", "1"), ("STICKY_FIRST_PORT", "1")];
    config(builder(), &[rubbish.as_slice(), &counts].concat());
    let listen = ListenAddress::ALLOWED;
    assert_eq!(
        problems(builder(), &rubbish),
        [
            format!("PORT=\"x\": not a port from 0 to 65535 (allowed: {listen})"),
            "WEB_CONCURRENCY=\"x\": not a whole number (allowed: a whole number from 0 to 256; 0 serves in this process)"
                .to_owned(),
            "FIRST_PORT=\"x\": not a whole number (allowed: a whole number from 1 to 65535, with room for a port for \
             each worker; `none`)"
                .to_owned(),
        ]
    );
    for port in ["65536", "-1", ":80", "localhost:80"] {
        let expected = format!("PORT={port:?}: not a port from 0 to 65535 (allowed: {listen})");
        assert_eq!(problems(builder(), &[("PORT", port)]), [expected]);
    }
}

#[test]
fn a_broken_variable_is_not_replaced_by_its_fallback() {
    let found = problems(builder(), &[("STICKY_WORKERS", "x"), ("WORKERS", "y")]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("STICKY_WORKERS=\"x\": not a whole number (allowed: "), "{found:?}");
}

#[test]
fn the_first_port_is_a_number_with_room_for_the_workers() {
    // The seed appended the slot to the variable's text: 8100 became 81000.
    assert_eq!(config(builder(), &[("FIRST_PORT", "8100")]).first_port, Some(8100));
    for (first, workers, fits) in
        [("65528", "8", true), ("65529", "8", false), ("65535", "1", true), ("65535", "0", true), ("65535", "2", false)]
    {
        let result = resolve(builder(), &[("FIRST_PORT", first), ("STICKY_WORKERS", workers)]);
        let expected = format!(
            "FIRST_PORT=\"{first}\": the ports for {workers} workers end above 65535 (allowed: a whole number from 1 \
             to 65535, with room for a port for each worker; `none`)"
        );
        assert_eq!(result.err(), (!fits).then(|| vec![expected]), "{first} {workers}");
    }
    // With the number of workers unknown there is nothing to say about room.
    assert_eq!(problems(builder(), &[("FIRST_PORT", "65535"), ("STICKY_WORKERS", "x")]).len(), 1);
    assert_eq!(problems(builder().first_port(0), &[]).len(), 1);
}

#[test]
fn there_is_room_for_twice_the_workers() {
    let room = |variables: &[(&'static str, &'static str)]| config(builder().listen(1), variables).max_workers;
    for (workers, most) in [("1", 8), ("4", 8), ("5", 10), ("128", 256), ("129", 256), ("256", 256)] {
        assert_eq!(room(&[("STICKY_WORKERS", workers)]), most);
    }
    // Nobody has asked for the ports of those that may come.
    for (first, most) in [("65530", 6), ("65532", 4), ("8000", 8)] {
        assert_eq!(room(&[("STICKY_WORKERS", "4"), ("FIRST_PORT", first)]), most, "{first}");
    }
    let near = config(builder().listen(8006), &[("STICKY_WORKERS", "4"), ("FIRST_PORT", "8000")]);
    assert_eq!(near.max_workers, 6, "clients come in at the next port");
    assert_eq!(room(&[("STICKY_WORKERS", "4"), ("STICKY_MAX_WORKERS", "4")]), 4);
    let few = problems(builder(), &[("STICKY_WORKERS", "4"), ("STICKY_MAX_WORKERS", "3")]);
    let expected = "STICKY_MAX_WORKERS=\"3\": there are 4 workers to begin with (allowed: a whole number from 1 to 256, and \
                    no fewer than `workers`)";
    assert_eq!(few, [expected]);
    let ports = problems(builder().max_workers(9).first_port(65528), &[("STICKY_WORKERS", "4")]);
    assert!(ports[0].contains("the ports for 9 workers end above 65535"), "{ports:?}");
}

#[test]
fn requests_are_limited_where_they_are_counted() {
    let limited = [("STICKY_MAX_REQUESTS", "7")];
    assert_eq!(config(builder(), &limited).max_requests, Some(7));
    let found = problems(builder().with_own_ports(), &limited);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("STICKY_MAX_REQUESTS=\"7\": programs that listen by themselves"), "{found:?}");
    let others = [("STICKY_MAX_REQUESTS", "none"), ("STICKY_MAX_AGE", "1h"), ("STICKY_MAX_RSS", "1GiB")];
    config(builder().with_own_ports(), &others);
}

/// The least and the most that each setting allows, with what lies just outside.
#[test]
fn ranges_have_their_ends() {
    for (variable, good, bad) in [
        ("WORKERS", ["0", "256"], &["257"][..]),
        ("THREADS_PER_WORKER", ["1", "1024"], &["0", "1025"]),
        ("FAILOVER", ["0s", "1h"], &["3600001ms", "refuse:61m"]),
        ("FIRST_PORT", ["1", "65528"], &["0", "65536"]),
        ("HASH_SEED", ["0", "18446744073709551615"], &["18446744073709551616"]),
        ("BOOT_TIMEOUT", ["10ms", "1h"], &["9ms", "0s", "3600001ms"]),
        ("PREPARE_TIMEOUT", ["10ms", "24h"], &["9ms", "0s", "86400001ms"]),
        ("HEARTBEAT_TIMEOUT", ["100ms", "1h"], &["99ms", "0s", "3600001ms"]),
        ("SHUTDOWN_TIMEOUT", ["0s", "24h"], &["86400001ms"]),
        ("DRAIN_TIMEOUT", ["0s", "24h"], &["86400001ms"]),
        ("EXIT_TIMEOUT", ["0s", "1h"], &["3600001ms"]),
        ("FIRST_BYTE_TIMEOUT", ["10ms", "24h"], &["9ms", "0s", "86400001ms"]),
        ("HEAD_TIMEOUT", ["10ms", "1h"], &["9ms", "0s", "3600001ms"]),
        ("IDLE_TIMEOUT", ["10ms", "24h"], &["9ms", "0s", "86400001ms"]),
        ("MAX_CONNECTIONS", ["1", "10000000"], &["0", "10000001"]),
        ("SESSION_CAPACITY", ["1024", "16777216"], &["1023", "16777217"]),
        ("SESSION_IDLE_TIMEOUT", ["1s", "720h"], &["999ms", "2592000001ms"]),
        ("MAX_REQUESTS", ["1", "9007199254740992"], &["0", "9007199254740993"]),
        ("MAX_AGE", ["1s", "8760h"], &["999ms", "0s", "31536000001ms"]),
        ("MAX_RSS", ["16MiB", "1024TiB"], &["16383KiB", "1025TiB", "512"]),
        ("BACKLOG", ["1", "2147483647"], &["0", "2147483648"]),
    ] {
        let name = format!("STICKY_{variable}");
        for text in good {
            assert!(resolve(builder(), &[(&name, text)]).is_ok(), "{name}={text}");
        }
        for text in bad {
            let found = problems(builder(), &[(&name, text)]);
            assert_eq!(found.len(), 1);
            assert!(found[0].starts_with(&format!("{name}={text:?}: ")), "{found:?}");
        }
    }
}

#[test]
fn everything_wrong_is_said_at_once_and_in_order() {
    let builder = builder()
        .listen("localhost")
        .listen(":1,:x")
        .workers(300)
        .boot_timeout(Duration::from_micros(1))
        .env("STICKY_WORKERS", "1")
        .env("A=B", "secret")
        .env("", "1")
        .env("N\0", "1")
        .env("V", "\0")
        .env("fine", "=");
    let variables = [
        ("STICKY_LISTEN", "a,b"),
        ("STICKY_AFFINITY", "cookie:|session"),
        ("STICKY_DISPATCH", "fast"),
        ("STICKY_DRAIN_TIMEOUT", "30"),
        ("STICKY_PREFIX_OUTPUT", "maybe"),
        ("STICKY_WROKERS", "1"),
    ];
    let listen = format!("(allowed: {})", ListenAddress::ALLOWED);
    let env = "(allowed: names without `=` and NUL that do not begin with `STICKY_`, values without NUL)";
    let found = problems(builder, &variables);
    let expected = [
        format!(".listen(\"localhost\"): \"localhost\" has no port {listen}"),
        format!(".listen(\":1,:x\"): \"x\" is not a port from 0 to 65535 {listen}"),
        format!("STICKY_LISTEN=\"a,b\": \"a\" has no port, \"b\" has no port {listen}"),
        ".workers(300): out of range (allowed: a whole number from 0 to 256; 0 serves in this process)".to_owned(),
        format!(
            "STICKY_AFFINITY=\"cookie:|session\": \"session\" is no affinity; \"cookie:\" lacks a name (allowed: {})",
            Affinity::ALLOWED
        ),
        "STICKY_DISPATCH=\"fast\": not a dispatch (allowed: `kernel`, `handoff` or `proxy`)"
            .to_owned(),
        ".boot_timeout(1µs): out of range (allowed: a duration like `500ms`, `30s`, `5m` or `1h`, from 10ms to 1h)"
            .to_owned(),
        "STICKY_DRAIN_TIMEOUT=\"30\": not a duration (allowed: a duration like `500ms`, `30s`, `5m` or `1h`, from 0s \
         to 24h)"
            .to_owned(),
        "STICKY_PREFIX_OUTPUT=\"maybe\": not a switch (allowed: `auto`, `true`, `yes`, `on`, `1`, `false`, `no`, `off` \
         or `0`)"
            .to_owned(),
        format!(".env(\"STICKY_WORKERS\", ..): the name is reserved {env}"),
        format!(".env(\"A=B\", ..): not a name {env}"),
        format!(".env(\"\", ..): not a name {env}"),
        format!(".env(\"N\\0\", ..): not a name {env}"),
        format!(".env(\"V\", ..): the value has a NUL {env}"),
    ];
    assert_eq!(found[..expected.len()], expected);
    assert!(
        found[expected.len()].starts_with("STICKY_WROKERS: there is no such setting; did you mean STICKY_WORKERS?")
    );
    assert_eq!(found.len(), expected.len() + 1);
}

#[test]
fn our_variables_are_checked_even_where_code_wins() {
    assert_eq!(problems(builder().workers(1), &[("STICKY_WORKERS", "x")]).len(), 1);
    assert_eq!(problems(builder().workers(300).prefer_env(), &[("STICKY_WORKERS", "1")]).len(), 1);
}

#[test]
#[cfg(unix)]
fn what_is_not_utf8_is_a_problem() {
    use std::os::unix::ffi::OsStringExt;
    let rubbish = || OsString::from_vec(b"1\xff".to_vec());
    let environment: Environment = [("STICKY_BACKLOG", rubbish()), ("PORT", rubbish())].into_iter().collect();
    let error = builder().resolve(&environment, &MACHINE).unwrap_err();
    let expected = format!(
        "the cluster's configuration is not valid\n  PORT=\"1\\xFF\": not UTF-8 (allowed: {})\n  \
         STICKY_BACKLOG=\"1\\xFF\": not UTF-8 (allowed: a whole number from 1 to 2147483647)",
        ListenAddress::ALLOWED
    );
    assert_eq!(error.to_string(), expected);
    // A fallback that does not count may be anything.
    let environment: Environment = [("PORT", rubbish())].into_iter().collect();
    assert!(builder().listen(1).resolve(&environment, &MACHINE).is_ok());
}

#[test]
fn an_address_is_listened_on_once() {
    let listen = format!("(allowed: {})", ListenAddress::ALLOWED);
    let twice = ":1,:2,:1,a:1,a:1,[::1]:1,[::1]:1,unix:/s,unix:/s";
    let expected = [":1", "a:1", "[::1]:1", "unix:/s"].map(|address| format!("{address} is there twice {listen}"));
    let found = problems(builder(), &[("STICKY_LISTEN", twice)]);
    assert_eq!(found, expected.clone().map(|problem| format!("STICKY_LISTEN={twice:?}: {problem}")));
    let found = problems(builder().listen(twice), &[]);
    assert_eq!(found, expected.map(|problem| format!(".listen({twice}): {problem}")));
    assert_eq!(config(builder().listen(":0,:0,a:0,a:0,[::1]:0,[::1]:0"), &[]).listen.len(), 6);
}

/// The dispatch and why, of a configuration that is right.
fn chosen(builder: ClusterBuilder, variables: &Variables<'_>) -> (Dispatch, String) {
    let config = config(builder, variables);
    (config.dispatch, config.dispatch_reason)
}

#[test]
fn trusted_proxies_take_handoff() {
    let reason = "the client address comes through trusted proxies".to_owned();
    let proxies = ["loopback", "10.0.0.0/8"];
    let two_calls = builder().trusted_proxies([proxies[0]]).trusted_proxies([proxies[1]]);
    for builder in [builder().trusted_proxies(proxies), two_calls] {
        let config = config(builder, &[]);
        assert_eq!((config.dispatch, &config.dispatch_reason), (Dispatch::Handoff, &reason));
        assert_eq!(config.trust.proxies, TrustedProxies::of("loopback,10.0.0.0/8"));
    }
    let variable = ("STICKY_TRUSTED_PROXIES", "unix");
    assert_eq!(chosen(builder(), &[variable]), (Dispatch::Handoff, reason));
    let contradiction = "needs what is inside the request, and STICKY_DISPATCH=\"kernel\" places by the connection's \
                         address alone: change one of the two";
    assert_eq!(
        problems(builder(), &[variable, ("STICKY_DISPATCH", "kernel")]),
        [format!("STICKY_TRUSTED_PROXIES=\"unix\" {contradiction}")]
    );
    let nobody = || builder().trusted_proxies([""; 0]);
    assert_eq!(chosen(nobody(), &[variable]).0, Dispatch::Kernel);
    assert_eq!(chosen(nobody().prefer_env(), &[variable]).0, Dispatch::Handoff);
    assert_eq!(chosen(builder(), &[("STICKY_TRUSTED_PROXIES", "none")]).0, Dispatch::Kernel);
    let found = problems(builder().trusted_proxies(["x"]), &[]);
    let allowed = TrustedProxies::ALLOWED;
    assert_eq!(found, [format!(".trusted_proxies(x): \"x\" is not a network (allowed: {allowed})")]);
}

#[test]
fn proxies_name_the_client_in_one_header_or_by_the_protocol() {
    let trusting = || builder().trusted_proxies(["loopback"]);
    let header = |builder, variables: &Variables<'_>| shown(&config(builder, variables), "client_address_header");
    let variable = ("STICKY_CLIENT_ADDRESS_HEADER", "X-Real-IP");
    assert_eq!(header(trusting(), &[]), "x-forwarded-for");
    assert_eq!(header(trusting(), &[variable]), "x-real-ip");
    assert_eq!(header(trusting().client_address_header("Forwarded"), &[variable]), "forwarded");
    assert_eq!(header(trusting().client_address_header("Forwarded").prefer_env(), &[variable]), "x-real-ip");
    let found = problems(trusting().client_address_header("a b"), &[]);
    let allowed = AddressHeader::ALLOWED;
    assert_eq!(found, [format!(".client_address_header(a b): \"a b\" is not a header name (allowed: {allowed})")]);

    let protocol = |builder, variables: &Variables<'_>| config(builder, variables).proxy_protocol;
    let variable = ("STICKY_PROXY_PROTOCOL", "on");
    assert!(protocol(trusting(), &[variable]));
    assert!(protocol(trusting().proxy_protocol(true), &[("STICKY_PROXY_PROTOCOL", "off")]));
    assert!(!protocol(trusting().proxy_protocol(false), &[variable]));
    assert!(!protocol(builder(), &[("STICKY_PROXY_PROTOCOL", "off")]));
    let found = problems(trusting(), &[variable, ("STICKY_DISPATCH", "kernel")]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with(".trusted_proxies(loopback) needs what"), "{found:?}");
    assert!(found[1].starts_with("STICKY_PROXY_PROTOCOL=\"on\" needs what"), "{found:?}");
}

#[test]
fn what_only_trusted_proxies_can_do_needs_some() {
    let variables = [("STICKY_CLIENT_ADDRESS_HEADER", "forwarded"), ("STICKY_PROXY_PROTOCOL", "on")];
    let expected = [
        "STICKY_CLIENT_ADDRESS_HEADER=\"forwarded\" needs trusted_proxies (STICKY_TRUSTED_PROXIES): nobody else is \
         believed",
        "STICKY_PROXY_PROTOCOL=\"on\" needs trusted_proxies (STICKY_TRUSTED_PROXIES): nobody else may begin with it",
    ];
    assert_eq!(problems(builder(), &variables), expected);
    assert_eq!(problems(builder().trusted_proxies([""; 0]), &variables), expected);
    let found = problems(builder().client_address_header("x-real-ip").proxy_protocol(true), &[]);
    assert!(found[0].starts_with(".client_address_header(x-real-ip) needs trusted_proxies"), "{found:?}");
    assert!(found[1].starts_with(".proxy_protocol(true) needs trusted_proxies"), "{found:?}");
    // Proxies that are misspelt are a mistake of their own.
    assert_eq!(problems(builder(), &[variables[0], variables[1], ("STICKY_TRUSTED_PROXIES", "x")]).len(), 1);
}

#[test]
fn affinities_inside_the_request_take_handoff() {
    let reason = "affinity is the cookie `session`, else the client address".to_owned();
    let affinity = || Affinity::cookie("session").or(Affinity::client_ip());
    let text = ("STICKY_AFFINITY", "cookie:session|client-ip");
    assert_eq!(chosen(builder().affinity(affinity()), &[]), (Dispatch::Handoff, reason.clone()));
    assert_eq!(chosen(builder(), &[text]), (Dispatch::Handoff, reason));
    let custom = Affinity::custom(|_| crate::Choice::nothing());
    assert_eq!(chosen(builder().affinity(custom), &[]).1, "affinity is a function of the request");
    assert_eq!(chosen(builder(), &[("STICKY_PLACEMENT", "local")]).1, "placement is local");
    let contradiction = "needs what is inside the request, and .dispatch(kernel) places by the connection's address \
                         alone: change one of the two";
    let forced = builder().dispatch(Dispatch::Kernel).affinity(affinity()).placement(Placement::Local);
    assert_eq!(
        problems(forced, &[]),
        [".affinity(cookie:session|client-ip)", ".placement(local)"].map(|given| format!("{given} {contradiction}"))
    );
}

#[test]
fn affinities_of_code_are_checked_like_texts() {
    let allowed = Affinity::ALLOWED;
    let affinity = Affinity::client_ip().or(Affinity::cookie("a b"));
    let expected = "\"cookie:a b\" has a name with ' ' in it; names are visible ASCII without delimiters, as in \
                    `x-user`; \"cookie:a b\" is never asked, because every client has an address: put `client-ip` last";
    assert_eq!(
        problems(builder().affinity(affinity), &[]),
        [format!(".affinity(client-ip|cookie:a b): {expected} (allowed: {allowed})")]
    );
    assert_eq!(
        problems(builder(), &[("STICKY_AFFINITY", "client-ip|cookie:a b")]),
        [format!("STICKY_AFFINITY=\"client-ip|cookie:a b\": {expected} (allowed: {allowed})")]
    );
}

#[test]
fn dispatch_can_be_forced_as_far_as_it_is_there() {
    let reason = "affinity is the client address".to_owned();
    assert_eq!(chosen(builder(), &[("STICKY_DISPATCH", "handoff")]), (Dispatch::Handoff, reason));
    assert_eq!(chosen(builder(), &[("STICKY_DISPATCH", "proxy")]).0, Dispatch::Proxy);
    let config = config(builder().dispatch(Dispatch::Proxy).no_sockets(true), &[("STICKY_PROXY_WORKERS", "2")]);
    assert_eq!((config.proxies(), config.no_sockets), (2, true));
}

#[test]
fn only_a_proxy_can_refuse_upgrades() {
    let problems = problems(builder(), &[("STICKY_NO_SOCKETS", "on"), ("STICKY_PROXY_WORKERS", "65")]);
    let expected = "STICKY_PROXY_WORKERS=\"65\": out of range (allowed: a whole number from 1 to 64)";
    assert_eq!(problems[0], expected);
    let expected = "STICKY_NO_SOCKETS=\"on\" needs dispatch (STICKY_DISPATCH): only proxy dispatch can refuse upgrades";
    assert_eq!(problems[1..], [expected.to_owned()]);
    assert!(!config(builder(), &[("STICKY_NO_SOCKETS", "off")]).no_sockets);
}

#[test]
fn extra_environment_keeps_its_order() {
    let config = config(builder().env("B", "1").env("A", "2").env("B", "3"), &[]);
    let expected = [("B", "1"), ("A", "2"), ("B", "3")].map(|(name, value)| (name.into(), value.into()));
    assert_eq!(config.env, expected);
}

#[test]
fn a_setter_leaves_the_others_alone() {
    for (name, set, ..) in CASES {
        let config = config(set(builder().exit_timeout(secs(9)).hash_seed(9)), &[]);
        let kept = if name == "exit_timeout" { config.hash_seed == Some(9) } else { config.exit_timeout == secs(9) };
        assert!(kept, "{name}");
    }
}

#[test]
fn affinity_is_shown_as_it_is_written() {
    assert_eq!(Affinity::client_ip().show(), "client-ip");
}

#[test]
fn what_is_usual_is_taken_where_nobody_says_an_affinity() {
    let usual = || {
        let affinity = Affinity::engine_io().or(Affinity::sticky_cookie());
        builder().usually(affinity, Placement::FewestConnections)
    };
    let resolved = |builder, variables: &Variables<'_>| {
        let config = config(builder, variables);
        format!("{} {} {}", config.affinity, config.placement, config.dispatch)
    };
    assert_eq!(resolved(usual(), &[]), "engine-io|sticky-cookie fewest-connections handoff");
    let cookie = [("STICKY_COOKIE_NAME", "node"), ("STICKY_PLACEMENT", "local")];
    assert_eq!(resolved(usual(), &cookie), "engine-io|sticky-cookie local handoff");
    for affinity in [("STICKY_AFFINITY", "client-ip"), ("STICKY_DISPATCH", "kernel")] {
        assert_eq!(resolved(usual(), &[affinity]), "client-ip rendezvous kernel");
    }
    assert_eq!(resolved(usual().affinity(Affinity::query("k")), &[]), "query:k rendezvous handoff");
    assert_eq!(resolved(usual().placement(Placement::Rendezvous), &[]), "engine-io|sticky-cookie rendezvous handoff");
    assert_eq!(problems(usual(), &[("STICKY_AFFINITY", "x")]).len(), 1);
}
