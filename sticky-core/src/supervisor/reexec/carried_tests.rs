//! The text: what it says comes back, and anything else is refused without harm.

use std::num::NonZeroUsize;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Environment, Machine};

fn config(variables: &[(&str, &str)]) -> Config {
    let given = [("STICKY_WORKERS", "2"), ("STICKY_MAX_WORKERS", "2"), ("STICKY_HASH_SEED", "7")];
    let environment: Environment = given.into_iter().chain(variables.iter().copied()).collect();
    crate::ClusterBuilder::default().resolve(&environment, &Machine { cpus: NonZeroUsize::MIN }).unwrap()
}

/// What a supervisor of two workers under kernel dispatch would write, of which one runs.
fn text() -> Value {
    let here = config(&[]);
    let slot = |current: Option<u64>| {
        json!({ "current": current, "generation": 1, "readers": [current, null], "short_lives": 0, "down_for": null,
                "evicted": false, "drained": current.is_none(), "is_known": true })
    };
    let state = json!({
        "count": 2, "next_child": 3, "slots": [slot(Some(0)), slot(None)],
        "children": [{ "id": 0, "slot": 0, "seat": 0, "age": { "secs": 1, "nanos": 0 }, "adopts": true, "port": null,
                       "on_bus": false, "is_candidate": false }],
        "leader": null, "attendant": [2, { "secs": 1, "nanos": 0 }], "next_reload": "all", "next_count": null,
        "asked": { "reload": [], "scale": [], "reexec": [4] }, "known_down": [], "known_ports": [],
    });
    let process = |id: u64, control: usize| json!({ "id": id, "pid": 4000 + id, "control": control, "protocol": 1 });
    let shared = json!({ "address": { "unix": "/run/a" }, "is_shared": true, "file": { "path": "/run/a", "identity": [1, 2] },
                         "is_kept": false });
    let set = json!({ "address": { "tcp": "127.0.0.1:5000" }, "is_shared": false, "file": null, "is_kept": false });
    json!({
        "format": 1, "version": "0.1.0", "fingerprint": here.fingerprint(), "shape": Shape::of(&here), "lots": 8,
        "reexecs": 1, "seed": 7, "secret": [], "program": "/srv/app", "images": [0], "image_of": [0, 0],
        "listeners": [[set, [1, 2]]], "extras": [["admin", [shared, [7]]]], "admin_listeners": [], "channels": [], "scoreboard": 3, "session_table": null,
        "evicted": [1], "members": [{ "process": process(0, 4), "generation": 0, "image": 0, "exports": false }],
        "attendant": process(2, 5),
        "pipes": [[0, { "post": { "worker": 0 }, "is_stderr": true, "begun": "", "continues": false, "last_words": ["oh"],
                        "has_ended": false }, 6]],
        "desk": { "started": [[0, 1]], "restarts": [[[false, 0], 2]], "tickets": [[4, 1]], "next_ticket": 5,
                  "started_ms": 1 },
        "ledger": { "ended": [], "misplaced": false, "looped": false, "lopsided": true },
        "state": state, "held_signals": [15],
    })
}

fn parse(text: &Value) -> Result<Carried, ResumeError> {
    Carried::parse(&serde_json::to_vec(text).unwrap())
}

/// Why this is refused here, with all below it.
fn refusal(text: &Value) -> String {
    let error = parse(text).and_then(|carried| carried.check(&config(&[]))).unwrap_err();
    format!("{error} {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default())
}

/// Another version reads this, too: a change here breaks it.
#[test]
fn the_text_does_not_change() {
    let carried = parse(&text()).unwrap();
    assert_eq!(serde_json::to_value(&carried).unwrap(), text());
    carried.check(&config(&[])).unwrap();
    let file = carried.write().unwrap();
    assert_eq!(Carried::read(&file).unwrap(), carried);
    let mut more = text();
    more["colour"] = json!("blue");
    assert_eq!(parse(&more).unwrap(), carried, "what a later version adds is ignored");
}

#[test]
fn what_differs_is_refused_by_name() {
    let carried = parse(&text()).unwrap();
    let refused = |variables: &[(&str, &str)]| carried.check(&config(variables)).unwrap_err().to_string();
    let expected = "listen is \":1\" and was \":5000\": a reexec can't change that: restart";
    assert_eq!(refused(&[("STICKY_LISTEN", ":1")]), expected);
    assert!(refused(&[("STICKY_AFFINITY", "cookie:a")]).contains("a reexec can't change affinity: restart"));
    carried.check(&config(&[("STICKY_DRAIN_TIMEOUT", "7s"), ("STICKY_FAILOVER", "refuse")])).unwrap();
}

#[test]
fn another_secret_is_refused() {
    let cookies = [("STICKY_AFFINITY", "sticky-cookie"), ("STICKY_COOKIE_SECRET", "0123456789abcdef0123456789abcdef")];
    let here = config(&cookies);
    let mut with_cookies = text();
    with_cookies["fingerprint"] = json!(here.fingerprint());
    with_cookies["shape"] = json!(Shape::of(&here));
    let error = parse(&with_cookies).unwrap().check(&here).unwrap_err().to_string();
    assert_eq!(error, "cookie_secret (STICKY_COOKIE_SECRET) is another one: a reexec can't change that: restart");
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (path, value, why) in [
        ("/format", json!(2), "is in format 2, and this program reads 1..=1: restart"),
        ("/members/0/process/protocol", json!(2), "a worker that runs speaks 2: reload, then reexec"),
        ("/members", json!([]), "processes are missing"),
        ("/attendant", json!(null), "the admin process is missing"),
        ("/image_of", json!([0]), "programs are missing"),
        ("/image_of", json!([0, 1]), "a program is missing"),
        ("/channels", json!([[8, 9]]), "channels are missing"),
        ("/evicted", json!([2]), "a slot that is out is none"),
        ("/scoreboard", json!(2), "its descriptors do not add up"),
        ("/lots", json!(9), "its descriptors do not add up"),
        ("/state/count", json!(3), "an impossible number of workers"),
        ("/seed", json!("seven"), "is not understood: restart"),
    ] {
        let mut wrong = text();
        *wrong.pointer_mut(path).unwrap() = value;
        let refusal = refusal(&wrong);
        assert!(refusal.contains(why), "{path}: {refusal}");
    }
}

proptest! {
    /// Whatever is there, nothing but an error comes of it: cut off, changed in one place, or anything at all.
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..4096_usize, flip in any::<u8>()) {
        let here = config(&[]);
        let check = |bytes: &[u8]| Carried::parse(bytes).and_then(|carried| carried.check(&here));
        prop_assert!(check(&bytes).is_err());
        let mut whole = serde_json::to_vec(&text()).unwrap();
        let cut = cut % whole.len();
        prop_assert!(check(&whole[..cut]).is_err());
        whole[cut] = flip;
        let _ = check(&whole);
    }
}
