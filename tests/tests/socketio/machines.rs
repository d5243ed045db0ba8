//! Two clusters behind a balancer, with Redis between them: by the files in `examples/deploy`.

use libtest_mimic::Trial;
use sticky_tests::{Front, Launch, Redis, Script, TestCluster};

use crate::bed::{Framework, row};

const WORKERS: u16 = 2;

const HAPROXY: &str = include_str!("../../../examples/deploy/haproxy.cfg");
const NGINX: &str = include_str!("../../../examples/deploy/nginx.conf");

pub(crate) fn rows(on: Framework) -> Vec<Trial> {
    let behind = |name: &'static str, front: fn(&TestCluster, &TestCluster) -> Front| {
        row(format!("machines/{name}/{}", on.name()), move || span(on, front))
    };
    vec![behind("haproxy", haproxy), behind("nginx", nginx)]
}

/// A room spans both clusters, by every transport.
fn span(on: Framework, front: fn(&TestCluster, &TestCluster) -> Front) {
    let first = machine(on.launch());
    let redis = Redis::start(first.folder());
    let (first, second) = (first.env("STICKY_REDIS_URL", redis.url()), machine(on.launch()));
    let (first, second) = (first.up(), second.env("STICKY_REDIS_URL", redis.url()).up());
    let front = front(&first, &second);
    let url = format!("http://{}", front.address());
    let mut script = Script::new("machines.js").arg("rooms_span_machines").arg(url).arg(WORKERS);
    for cluster in [&first, &second] {
        let workers: Vec<_> = cluster.workers().iter().map(ToString::to_string).collect();
        script = script.arg(workers.join(","));
    }
    script.run();
}

fn machine(launch: Launch) -> Launch {
    launch.workers(WORKERS).env("STICKY_TRUSTED_PROXIES", "loopback")
}

fn haproxy(first: &TestCluster, second: &TestCluster) -> Front {
    let config = with_addresses(HAPROXY, first, second).replace("bind :80", "bind fd@3");
    Front::haproxy(first.folder(), &config)
}

fn nginx(first: &TestCluster, second: &TestCluster) -> Front {
    let config = with_addresses(NGINX, first, second).replace("listen 80", "listen LISTEN");
    Front::nginx(first.folder(), &config)
}

fn with_addresses(config: &str, first: &TestCluster, second: &TestCluster) -> String {
    let address = |cluster: &TestCluster| cluster.address().to_string();
    config.replace("app-1:5000", &address(first)).replace("app-2:5000", &address(second))
}
