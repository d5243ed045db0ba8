//! The settings of the sticky cookie, which are nothing without it.

use super::super::cookie::{CookieName, CookiePath, CookieSettings, GivenCookie, GivenSecret, SameSite, Secret};
use super::super::error::{ConfigProblem, Given};
use super::super::parse::Value;
use super::super::settings::{self, Setting};
use super::{Found, Resolver};

impl Resolver<'_> {
    /// `is_used` says whether there is a sticky cookie at all.
    pub(super) fn sticky_cookie(&mut self, code: GivenCookie, is_used: bool) -> CookieSettings {
        let name = code.name.and_then(|text| self.code_text(&settings::COOKIE_NAME, text));
        let name: Option<Found<CookieName>> = self.pick(&settings::COOKIE_NAME, name);
        let path = code.path.and_then(|text| self.code_text(&settings::COOKIE_PATH, text));
        let path: Option<Found<CookiePath>> = self.pick(&settings::COOKIE_PATH, path);
        let same_site = self.pick(&settings::COOKIE_SAME_SITE, code.same_site);
        let secure = self.pick(&settings::COOKIE_SECURE, code.secure);
        let lifetime = self.pick(&settings::COOKIE_LIFETIME, code.lifetime);
        let (secret, previous_secret) = self.secrets(code.secret, code.previous_secret);
        if !is_used {
            let said = [given(&name), given(&path), given(&same_site), given(&secure), given(&lifetime)];
            let said = said.into_iter().chain([given(&secret), given(&previous_secret)]);
            said.flatten().for_each(|given| self.require_sticky_cookie(given));
        }
        self.check_attributes(&name, path.as_ref(), same_site.as_ref(), secure.as_ref());
        let default = CookieSettings::default();
        CookieSettings {
            name: name.map_or(default.name, |found| found.value.0),
            path: path.map_or(default.path, |found| found.value.0),
            same_site: same_site.map_or(default.same_site, |found| found.value),
            secure: secure.and_then(|found| found.value),
            lifetime: lifetime.and_then(|found| found.value),
            secret: secret.map(|found| found.value),
            previous_secret: previous_secret.map(|found| found.value),
        }
    }

    fn secrets(
        &mut self,
        code: Option<GivenSecret>,
        previous: Option<GivenSecret>,
    ) -> (Option<Found<Secret>>, Option<Found<Secret>>) {
        let before = self.problems.len();
        let secret = self.secret(&settings::COOKIE_SECRET, code);
        let is_missing = secret.is_none() && self.problems.len() == before;
        let previous = self.secret(&settings::COOKIE_PREVIOUS_SECRET, previous);
        if let Some(found) = previous.as_ref().filter(|_| is_missing) {
            self.require(&found.given, &settings::COOKIE_SECRET, "one that is drawn at start follows no other");
        }
        (secret, previous)
    }

    fn secret(&mut self, setting: &Setting, code: Option<GivenSecret>) -> Option<Found<Secret>> {
        let code = code.and_then(|GivenSecret(bytes)| {
            let checked = Secret::new(&bytes);
            self.code(setting, Secret::HIDDEN.to_owned(), checked)
        });
        self.pick(setting, code)
    }

    fn require_sticky_cookie(&mut self, given: Given) {
        let missing = "the source `sticky-cookie` in affinity (STICKY_AFFINITY)".to_owned();
        self.problems.push(ConfigProblem::Incomplete { given, missing, why: "no other cookie is set" });
    }

    /// Refuses what browsers would drop without a word.
    fn check_attributes(
        &mut self,
        name: &Option<Found<CookieName>>,
        path: Option<&Found<CookiePath>>,
        same_site: Option<&Found<SameSite>>,
        secure: Option<&Found<Option<bool>>>,
    ) {
        let is_never_secure = secure.is_some_and(|found| found.value == Some(false));
        let is_at_root = path.is_none_or(|found| found.value.0 == "/");
        if let Some(name) = name {
            let promise = name.value.promise();
            if promise.is_secure && is_never_secure {
                self.refuse(&settings::COOKIE_NAME, &name.given, "a cookie with this prefix has to be secure");
            }
            if promise.is_at_root && !is_at_root {
                self.refuse(&settings::COOKIE_NAME, &name.given, "a cookie with this prefix has to have the path `/`");
            }
        }
        if let Some(same_site) = same_site.filter(|found| found.value == SameSite::None && is_never_secure) {
            self.refuse(&settings::COOKIE_SAME_SITE, &same_site.given, "such a cookie has to be secure");
        }
    }
}

fn given<T: Value>(found: &Option<Found<T>>) -> Option<Given> {
    found.as_ref().map(|found| found.given.clone())
}
