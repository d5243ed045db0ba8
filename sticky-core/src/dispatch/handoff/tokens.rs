//! Header values that are lists of tokens, and those that are lengths.

/// The elements of a comma-separated list, without the blanks around them; empty ones are left out.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// What the Connection headers of a message say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
}

impl ConnectionOptions {
    /// Nothing is said.
    pub(crate) const NONE: Self = Self { close: false, keep_alive: false, upgrade: false };

    /// Adds what one Connection header says.
    pub(crate) fn add(&mut self, value: &[u8]) {
        for token in list(value) {
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        }
    }

    /// Whether this message is the last one its sender wants on the connection.
    pub(crate) fn wants_close(self, version: Version) -> bool {
        self.close || (version == Version::Http10 && !self.keep_alive)
    }
}

/// The versions that can be framed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

impl Version {
    /// From the minor version that `httparse` reports; it accepts no other than 0 and 1.
    pub(crate) fn from_minor(minor: Option<u8>) -> Self {
        if minor == Some(0) { Self::Http10 } else { Self::Http11 }
    }
}

/// A length in digits and nothing else. Half of the range of `u64` is enough for everyone and cannot overflow later.
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        let sum = sum.checked_mul(10)?.checked_add(digit)?;
        (sum <= i64::MAX as u64).then_some(sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_only() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"007"), Some(7));
        assert_eq!(length(b"9223372036854775807"), Some(i64::MAX as u64));
        let wrong: [&[u8]; 10] = [
            b"",
            b"+1",
            b"-1",
            b" 1",
            b"1 ",
            b"0x1",
            b"1,1",
            b"1.0",
            b"9223372036854775808",
            b"99999999999999999999999",
        ];
        for value in wrong {
            assert_eq!(length(value), None, "{value:?}");
        }
    }

    #[test]
    fn connection_options_are_found_in_any_header_of_the_message() {
        let mut options = ConnectionOptions::default();
        options.add(b"Keep-Alive ,\tUPGRADE,,");
        assert_eq!(options, ConnectionOptions { close: false, keep_alive: true, upgrade: true });
        assert!(!options.wants_close(Version::Http10));
        options.add(b"closed, not-close");
        assert!(!options.wants_close(Version::Http11));
        options.add(b"close");
        assert!(options.wants_close(Version::Http11));
        assert!(ConnectionOptions::default().wants_close(Version::Http10));
    }
}
