//! The settings of the sticky cookie: with it, without it, and against what browsers take.

use super::super::cookie::{CookieName, CookiePath};
use super::super::settings::COOKIE_LIFETIME;
use super::tests::{Variables, builder, config, problems, resolve, secs, shown};
use super::*;
use crate::config::SameSite;

const SECRET: &str = "the secret of code";
const OTHER: &str = "the secret of the environment";

fn sticky() -> ClusterBuilder {
    builder().affinity(Affinity::sticky_cookie())
}

/// A setting with a value in code, another in the environment, and both as text.
type Case = (&'static str, fn(ClusterBuilder) -> ClusterBuilder, &'static str, &'static str);

const CASES: [Case; 7] = [
    ("cookie_name", |b| b.cookie_name("a"), "a", "b"),
    ("cookie_path", |b| b.cookie_path("/a"), "/a", "/b"),
    ("cookie_same_site", |b| b.cookie_same_site(SameSite::None), "none", "strict"),
    ("cookie_secure", |b| b.cookie_secure(true), "true", "false"),
    ("cookie_lifetime", |b| b.cookie_lifetime(secs(1)), "1s", "none"),
    ("cookie_secret", |b| b.cookie_secret(SECRET), SECRET, OTHER),
    ("cookie_previous_secret", |b| b.cookie_previous_secret(SECRET), SECRET, OTHER),
];

/// What a setting needs beside the sticky cookie.
fn with_needs(name: &str) -> ClusterBuilder {
    if name == "cookie_previous_secret" { sticky().cookie_secret("the secret after it") } else { sticky() }
}

#[test]
fn code_wins_over_the_environment_unless_that_is_preferred() {
    for (name, set, code, text) in CASES {
        let variable = format!("STICKY_{}", name.to_ascii_uppercase());
        let variables = [(variable.as_str(), text)];
        let base = || with_needs(name);
        assert_eq!(shown(&config(set(base()), &[]), name), code);
        assert_eq!(shown(&config(base(), &variables), name), text);
        assert_eq!(shown(&config(set(base()), &variables), name), code);
        assert_eq!(shown(&config(set(base()).prefer_env(), &variables), name), text);
    }
    assert_eq!(config(sticky().cookie_lifetime(None), &[]).sticky_cookie.lifetime, None);
    assert_eq!(config(sticky(), &[("STICKY_COOKIE_SECURE", "auto")]).sticky_cookie.secure, None);
    assert_eq!(config(sticky().cookie_secret([0xff; 16]), &[]).sticky_cookie.secret.unwrap().bytes(), [0xff; 16]);
}

#[test]
fn a_cookie_that_is_not_set_has_no_settings() {
    for (name, set, ..) in CASES {
        let needs = "needs the source `sticky-cookie` in affinity (STICKY_AFFINITY): no other cookie is set";
        let base = || if name == "cookie_previous_secret" { builder().cookie_secret(SECRET) } else { builder() };
        let found = problems(set(base()), &[("STICKY_AFFINITY", "cookie:sticky")]);
        let given = found.last().unwrap().strip_suffix(needs).expect("the problem");
        assert!(given.starts_with(&format!(".{name}(")), "{given}");
        // What is meant to be an affinity may be meant to be that one.
        assert_eq!(problems(set(base()), &[("STICKY_AFFINITY", "sticky_cookie")]).len(), 1);
        assert!(resolve(set(base()), &[("STICKY_AFFINITY", "query:a|sticky-cookie")]).is_ok());
    }
}

fn refused(builder: ClusterBuilder, variables: &Variables<'_>, expected: &str) {
    assert_eq!(problems(builder, variables), [expected]);
}

#[test]
fn mistakes_are_named() {
    let (name, path) = (CookieName::ALLOWED, CookiePath::ALLOWED);
    refused(sticky().cookie_name("a b"), &[], &format!(".cookie_name(a b): not a cookie's name (allowed: {name})"));
    let variables = [("STICKY_COOKIE_PATH", "app")];
    refused(sticky(), &variables, &format!("STICKY_COOKIE_PATH=\"app\": not a cookie's path (allowed: {path})"));
    let variables = [("STICKY_COOKIE_SAME_SITE", "Lax")];
    let expected = "STICKY_COOKIE_SAME_SITE=\"Lax\": not a SameSite value (allowed: `strict`, `lax` or `none`)";
    refused(sticky(), &variables, expected);
    let days = |days: u64| sticky().cookie_lifetime(Duration::from_hours(days * 24));
    assert_eq!(config(days(400), &[]).sticky_cookie.lifetime, Some(Duration::from_hours(9600)));
    let allowed = &COOKIE_LIFETIME.allowed;
    refused(days(401), &[], &format!(".cookie_lifetime(9624h): out of range (allowed: {allowed})"));
    refused(days(0), &[], &format!(".cookie_lifetime(0s): out of range (allowed: {allowed})"));
    assert!(allowed.to_string().ends_with("from 1s to 9600h; `none`"));
}

#[test]
fn what_browsers_would_drop_is_refused() {
    let insecure = || sticky().cookie_secure(false);
    let name = CookieName::ALLOWED;
    for prefixed in ["__Secure-a", "__Host-a"] {
        let expected =
            format!(".cookie_name({prefixed}): a cookie with this prefix has to be secure (allowed: {name})");
        refused(insecure().cookie_name(prefixed), &[], &expected);
        config(sticky().cookie_name(prefixed), &[]);
    }
    let expected =
        format!(".cookie_name(__Host-a): a cookie with this prefix has to have the path `/` (allowed: {name})");
    refused(sticky().cookie_name("__Host-a"), &[("STICKY_COOKIE_PATH", "/app")], &expected);
    config(sticky().cookie_name("__Secure-a").cookie_path("/app"), &[]);
    config(sticky().cookie_name("__Host-a").cookie_path("/"), &[]);
    let expected = ".cookie_same_site(none): such a cookie has to be secure (allowed: `strict`, `lax` or `none`)";
    refused(insecure().cookie_same_site(SameSite::None), &[], expected);
    config(insecure().cookie_same_site(SameSite::Strict), &[]);
}

#[test]
fn secrets_are_long_enough_and_shown_to_nobody() {
    let allowed = "(allowed: at least 16 bytes that nobody can guess)";
    let expected = format!(".cookie_secret(..): shorter than 16 bytes {allowed}");
    refused(sticky().cookie_secret("short secret"), &[], &expected);
    let expected = format!("STICKY_COOKIE_SECRET=\"..\": shorter than 16 bytes {allowed}");
    refused(sticky(), &[("STICKY_COOKIE_SECRET", "short secret")], &expected);
    let needs = "needs cookie_secret (STICKY_COOKIE_SECRET): one that is drawn at start follows no other";
    refused(sticky().cookie_previous_secret(SECRET), &[], &format!(".cookie_previous_secret(..) {needs}"));
    // A secret that is too short is still one.
    assert_eq!(problems(sticky().cookie_previous_secret(SECRET).cookie_secret("short"), &[]).len(), 1);
    let builder = sticky().cookie_secret(SECRET).cookie_previous_secret(OTHER);
    let config = config(builder.clone(), &[]);
    for text in [format!("{builder:?}"), format!("{config:?}"), config.fingerprint()] {
        assert!(!text.contains("the secret of"), "{text}");
        assert!(!text.contains("116, 104, 101"), "{text}");
    }
}

#[test]
#[cfg(unix)]
fn a_secret_that_is_no_text_is_not_shown_either() {
    use std::os::unix::ffi::OsStringExt;
    let rubbish = OsString::from_vec(b"the secret of nobody\xff".to_vec());
    let environment: Environment = [("STICKY_COOKIE_SECRET", rubbish)].into_iter().collect();
    let error = sticky().resolve(&environment, &Machine { cpus: NonZeroUsize::MIN }).unwrap_err();
    let expected = "STICKY_COOKIE_SECRET=..: not UTF-8 (allowed: at least 16 bytes that nobody can guess)";
    assert_eq!(error.problems()[0].to_string(), expected);
}

#[test]
fn the_session_table_has_a_size_that_a_mask_can_address() {
    for (said, capacity) in [(1024, 1024), (1025, 2048), (65_536, 65_536), (16_777_215, 16_777_216)] {
        assert_eq!(config(builder().session_capacity(said), &[]).session_capacity, capacity);
    }
}
