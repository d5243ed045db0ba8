//! What `examples/deploy` says, checked against what there is. The balancers' configurations are run by [`super::machines`].

use std::time::Duration;

use libtest_mimic::Trial;
use serde::Deserialize;
use serde_yaml_ng::{Deserializer, Value};
use sticky_tests::Redis;

use crate::bed::{Framework, case, row};

const KUBERNETES: &str = include_str!("../../../examples/deploy/kubernetes.yaml");
const SETTINGS: &str = include_str!("../../../sticky-core/src/config/settings.md");

pub(crate) fn rows() -> Vec<Trial> {
    vec![
        row("deploy/kubernetes".to_owned(), kubernetes),
        row("deploy/kubernetes_settings_are_taken".to_owned(), settings_are_taken),
    ]
}

fn manifest() -> Vec<Value> {
    Deserializer::from_str(KUBERNETES)
        .map(|document| Value::deserialize(document).expect("a document of YAML"))
        .collect()
}

fn pod(all: &[Value]) -> &Value {
    &object(all, "Deployment", "chat")["spec"]["template"]["spec"]
}

/// A program takes every value as it is there, but for where Redis is.
fn settings_are_taken() {
    let mut launch = Framework::Axum.launch();
    let redis = Redis::start(launch.folder());
    for variable in pod(&manifest())["containers"][0]["env"].as_sequence().expect("variables") {
        let [name, value] = ["name", "value"].map(|part| variable[part].as_str().expect("a text").to_owned());
        launch = launch.env(&name, if name == "STICKY_REDIS_URL" { redis.url() } else { value });
    }
    let cluster = launch.up();
    let workers = cluster.workers().len().try_into().expect("some workers");
    case("clients.js", "broadcast", &cluster, workers).arg(4).run();
    cluster.stop();
}

fn kubernetes() {
    let all = manifest();
    let pod = pod(&all);
    let chat = &pod["containers"][0];
    let port = default_of("STICKY_LISTEN").trim_start_matches(':').split(',').next().expect("a port").to_owned();
    for at in [&chat["ports"][0]["containerPort"], &chat["readinessProbe"]["tcpSocket"]["port"]] {
        assert_eq!(number(at).to_string(), port);
    }
    assert_eq!(number(&object(&all, "Service", "chat")["spec"]["ports"][0]["targetPort"]).to_string(), port);

    let env = |name: &str| -> Option<&str> {
        let variables = chat["env"].as_sequence().expect("variables");
        variables.iter().find(|variable| variable["name"] == name).and_then(|variable| variable["value"].as_str())
    };
    for variable in chat["env"].as_sequence().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        assert!(SETTINGS.contains(&format!("`{name}`")), "{name} is no setting");
        assert!(variable["value"].is_string(), "{name}: Kubernetes wants a text");
    }

    // Whoever is killed in the middle of the drain loses what was executing.
    let shutdown = seconds(env("STICKY_SHUTDOWN_TIMEOUT").unwrap_or(&default_of("STICKY_SHUTDOWN_TIMEOUT")));
    let exit = seconds(env("STICKY_EXIT_TIMEOUT").unwrap_or(&default_of("STICKY_EXIT_TIMEOUT")));
    let grace = Duration::from_secs(number(&pod["terminationGracePeriodSeconds"]));
    assert!(grace >= shutdown + exit, "{grace:?} for {shutdown:?} and {exit:?}");

    let redis = &object(&all, "Service", "redis")["spec"]["ports"][0]["port"];
    assert_eq!(env("STICKY_REDIS_URL"), Some(&*format!("redis://redis:{}", number(redis))));
}

fn object<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = all.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value:?} is no number"))
}

/// A setting's default, from the table.
fn default_of(variable: &str) -> String {
    let row = SETTINGS.lines().find(|line| line.contains(&format!("| `{variable}`")));
    let column = row.and_then(|row| row.split(" | ").nth(2));
    column.unwrap_or_else(|| panic!("{variable} is no setting")).trim_matches('`').to_owned()
}

fn seconds(text: &str) -> Duration {
    let number = text.strip_suffix('s').and_then(|number| number.parse().ok());
    Duration::from_secs(number.unwrap_or_else(|| panic!("{text:?} is no number of seconds")))
}
