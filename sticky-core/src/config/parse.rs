//! Reading and writing the text form of single values. Every function here is pure.

use std::time::Duration;

use super::settings::Allowed;

/// A value that a setting can have: how it is read, written and checked.
pub(super) trait Value: Sized {
    /// Whether messages must not show it.
    const IS_SECRET: bool = false;

    /// Reads the text form.
    ///
    /// # Errors
    /// What is wrong with the text, in words that can follow the text and a colon.
    fn parse(text: &str) -> Result<Self, String>;

    /// Reads the text of a fallback variable, which other programs may have given another form.
    ///
    /// # Errors
    /// As [`Value::parse`].
    fn parse_fallback(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    /// The text form: `parse` reads it back.
    fn show(&self) -> String;

    /// Whether the value lies where the setting allows it; types that cannot be wrong have nothing to check.
    fn is_allowed(&self, _allowed: &Allowed) -> bool {
        true
    }
}

impl Value for u64 {
    fn parse(text: &str) -> Result<Self, String> {
        let error = || "not a whole number".to_owned();
        // `u64::from_str` would take `+5` as well.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        text.parse().map_err(|_| error())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn is_allowed(&self, allowed: &Allowed) -> bool {
        allowed.has_count(*self)
    }
}

/// A count that can be absent: `none`.
impl Value for Option<u64> {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(None),
            _ => u64::parse(text).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "none".to_owned(), |count| count.show())
    }

    fn is_allowed(&self, allowed: &Allowed) -> bool {
        self.is_none_or(|count| count.is_allowed(allowed))
    }
}

/// A switch.
impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("not a switch".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A switch that can be left to the program: `auto`.
impl Value for Option<bool> {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(None),
            _ => bool::parse(text).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "auto".to_owned(), |on| on.to_string())
    }
}

/// The units of a duration with their length in milliseconds, longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let split = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(split);
        let unit = unit.trim_start();
        let millis = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, millis)| millis);
        let duration = number.parse::<u64>().ok().zip(millis).and_then(|(number, millis)| number.checked_mul(*millis));
        duration.map(Duration::from_millis).ok_or_else(|| "not a duration".to_owned())
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        if Duration::from_millis(millis as u64) != *self {
            // Finer than a millisecond, which only code can ask for, and only errors show.
            return format!("{self:?}");
        }
        let fits = |(_, length): &&(&str, u64)| millis != 0 && millis.is_multiple_of(u128::from(*length));
        let (unit, length) = UNITS.iter().find(fits).unwrap_or(&("s", 1_000));
        format!("{}{unit}", millis / u128::from(*length))
    }

    fn is_allowed(&self, allowed: &Allowed) -> bool {
        allowed.has_duration(*self)
    }
}

/// A duration that can be absent: `none`.
impl Value for Option<Duration> {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(None),
            _ => Duration::parse(text).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "none".to_owned(), |duration| duration.show())
    }

    fn is_allowed(&self, allowed: &Allowed) -> bool {
        self.is_none_or(|duration| duration.is_allowed(allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Value + PartialEq + std::fmt::Debug>(cases: &[(&str, T)]) {
        for (text, value) in cases {
            assert_eq!(T::parse(text).as_ref(), Ok(value), "{text}");
            assert_eq!(&value.show(), text);
        }
    }

    #[test]
    fn counts() {
        round_trip(&[("0", 0u64), ("42", 42), ("18446744073709551615", u64::MAX)]);
        for text in ["", "+5", "-1", "1.5", "0x10", "five", "18446744073709551616"] {
            assert_eq!(u64::parse(text), Err("not a whole number".to_owned()), "{text}");
        }
        let allowed = Allowed::Count { least: 2, most: 4, note: "" };
        assert_eq!([1u64, 2, 4, 5].map(|count| count.is_allowed(&allowed)), [false, true, true, false]);
    }

    #[test]
    fn counts_that_can_be_absent() {
        round_trip(&[("none", None), ("7", Some(7u64))]);
        assert_eq!(Option::<u64>::parse("None"), Err("not a whole number".to_owned()));
        let allowed = Allowed::Count { least: 2, most: 4, note: "" };
        assert_eq!([None, Some(1u64), Some(2)].map(|count| count.is_allowed(&allowed)), [true, false, true]);
    }

    #[test]
    fn switches() {
        round_trip(&[("auto", None), ("true", Some(true)), ("false", Some(false))]);
        round_trip(&[("true", true), ("false", false)]);
        for (text, value) in [("yes", true), ("on", true), ("1", true), ("no", false), ("off", false), ("0", false)] {
            assert_eq!(Option::<bool>::parse(text), Ok(Some(value)));
            assert_eq!(bool::parse(text), Ok(value));
        }
        for text in ["", "True", "2"] {
            assert_eq!(Option::<bool>::parse(text), Err("not a switch".to_owned()));
        }
        assert_eq!(bool::parse("auto"), Err("not a switch".to_owned()));
        assert!(Some(true).is_allowed(&Allowed::Text("")));
    }

    #[test]
    fn durations() {
        round_trip(&[
            ("0s", Duration::ZERO),
            ("1ms", Duration::from_millis(1)),
            ("500ms", Duration::from_millis(500)),
            ("30s", Duration::from_secs(30)),
            ("90s", Duration::from_secs(90)),
            ("5m", Duration::from_secs(300)),
            ("61m", Duration::from_secs(3660)),
            ("1h", Duration::from_secs(3600)),
            ("18446744073709551615ms", Duration::from_millis(u64::MAX)),
        ]);
        for (text, millis) in [("0ms", 0), ("0h", 0), ("1000ms", 1000), ("60s", 60_000), ("2 s", 2000), ("007s", 7000)]
        {
            assert_eq!(Duration::parse(text), Ok(Duration::from_millis(millis)));
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "s",
            "5",
            "0",
            "-5s",
            "+5s",
            "1.5s",
            "5S",
            "5 sec",
            "5s ",
            "1m30s",
            "5d",
            "5é",
            "18446744073709551616ms",
            "18446744073709551615s",
            "18446744073709551615h",
        ] {
            assert_eq!(Duration::parse(text), Err("not a duration".to_owned()), "{text}");
        }
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(2));
        let allowed = Allowed::Duration { least, most, note: "" };
        let around = [999, 1000, 2000, 2001].map(|millis| Duration::from_millis(millis).is_allowed(&allowed));
        assert_eq!(around, [false, true, true, false]);
    }

    #[test]
    fn durations_that_can_be_absent() {
        round_trip(&[("none", None), ("2h", Some(Duration::from_hours(2)))]);
        assert_eq!(Option::<Duration>::parse("None"), Err("not a duration".to_owned()));
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(2));
        let allowed = Allowed::Duration { least, most, note: "" };
        let values = [None, Some(Duration::ZERO), Some(least)];
        assert_eq!(values.map(|duration| duration.is_allowed(&allowed)), [true, false, true]);
    }

    #[test]
    fn durations_that_only_code_can_give_are_shown_whole() {
        assert_eq!(Duration::from_micros(1500).show(), "1.5ms");
        assert_eq!(Duration::MAX.show(), format!("{:?}", Duration::MAX));
    }
}
