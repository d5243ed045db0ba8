//! What reaches whom across workers.

use libtest_mimic::Trial;
use sticky_tests::Redis;

use crate::bed::{Framework, case, row};

const WORKERS: u16 = 3;

const CASES: [&str; 19] = [
    "emit_to_all",
    "emit_to_a_namespace",
    "emit_to_rooms",
    "emit_except_rooms",
    "emit_locally",
    "emit_volatile",
    "emit_binary",
    "order",
    "acks_of_many",
    "acks_of_none",
    "acks_of_some",
    "fetch",
    "join_and_leave",
    "disconnect",
    "remote_socket",
    "fetch_after_a_death",
    "death_while_others_wait",
    "silence",
    "server_side",
];

/// Over Redis nobody is told that a server has died: its answers are waited for, if not for long.
const ON_THE_BUS_ONLY: [&str; 1] = ["death_while_others_wait"];

const PARSERS: [&str; 2] = ["common", "msgpack"];

pub(crate) fn rows(on: Framework) -> Vec<Trial> {
    let bus = PARSERS.into_iter().flat_map(|parser| CASES.map(|name| adapter(on, name, parser)));
    let redis = CASES.into_iter().filter(|name| !ON_THE_BUS_ONLY.contains(name)).map(|name| over_redis(on, name));
    bus.chain(redis).chain([redis_comes_back(on), applications_apart(on)]).collect()
}

/// Redis ends, and another takes its place: what was subscribed is subscribed again.
fn redis_comes_back(on: Framework) -> Trial {
    row(format!("adapter/redis_comes_back/{}", on.name()), move || {
        let launch = on.launch().workers(WORKERS);
        let redis = Redis::start(launch.folder());
        let cluster = launch.env("STICKY_REDIS_URL", redis.url()).up();
        case("adapter.js", "emit_to_all", &cluster, WORKERS).run();
        drop(redis);
        let _redis = Redis::start(cluster.folder());
        case("adapter.js", "heard_again", &cluster, WORKERS).run();
    })
}

/// Two applications on one Redis, told apart by their prefixes.
fn applications_apart(on: Framework) -> Trial {
    row(format!("adapter/applications_apart/{}/redis", on.name()), move || {
        let launch = on.launch().workers(WORKERS);
        let redis = Redis::start(launch.folder());
        let one = launch.env("STICKY_REDIS_URL", redis.url()).up();
        let launch = on.launch().workers(WORKERS).env("STICKY_REDIS_PREFIX", "another");
        let another = launch.env("STICKY_REDIS_URL", redis.url()).up();
        case("adapter.js", "apart", &one, WORKERS).arg(format!("http://{}", another.address())).run();
    })
}

fn over_redis(on: Framework, name: &'static str) -> Trial {
    row(format!("adapter/{name}/{}/redis/common", on.name()), move || {
        let launch = on.launch().workers(WORKERS);
        let redis = Redis::start(launch.folder());
        let cluster = launch.env("STICKY_REDIS_URL", redis.url()).up();
        case("adapter.js", name, &cluster, WORKERS).run();
    })
}

fn adapter(on: Framework, name: &'static str, parser: &'static str) -> Trial {
    row(format!("adapter/{name}/{}/bus/{parser}", on.name()), move || {
        let cluster = on.launch().workers(WORKERS).env("TESTBED_PARSER", parser).up();
        case("adapter.js", name, &cluster, WORKERS).env("PARSER", parser).run();
    })
}
