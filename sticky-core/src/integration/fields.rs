//! Header fields, whoever's type they are in.

/// A header field that is looked at, or changed, for every application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// `Cookie`.
    Cookie,
    /// `Set-Cookie`.
    SetCookie,
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-Real-IP`.
    XRealIp,
    /// `CF-Connecting-IP`.
    CfConnectingIp,
    /// `x-sticky-worker`, in which responses tell who gave them.
    XStickyWorker,
}

impl Field {
    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::SetCookie => "set-cookie",
            Self::Forwarded => "forwarded",
            Self::XForwardedFor => "x-forwarded-for",
            Self::XForwardedProto => "x-forwarded-proto",
            Self::XRealIp => "x-real-ip",
            Self::CfConnectingIp => "cf-connecting-ip",
            Self::XStickyWorker => "x-sticky-worker",
        }
    }
}

/// The header fields of a message, as a framework keeps them.
pub trait Fields {
    /// The values of this field, in their order.
    fn values(&self, field: Field) -> impl DoubleEndedIterator<Item = &[u8]>;

    /// Every field: its name in lower case, and a value.
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])>;

    /// Makes this the only value of the field. One that may not stand in a header leaves the field without a value.
    fn set(&mut self, field: Field, value: &[u8]);

    /// Adds a value, where it may stand in a header.
    fn add(&mut self, field: Field, value: &[u8]);

    /// Removes the field.
    fn remove(&mut self, field: Field);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The plainest of header maps.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Plain(pub(crate) Vec<(String, Vec<u8>)>);

    impl<'a> FromIterator<(&'a str, &'a str)> for Plain {
        fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Self {
            Self(fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
        }
    }

    impl Fields for Plain {
        fn values(&self, field: Field) -> impl DoubleEndedIterator<Item = &[u8]> {
            self.0.iter().filter(move |(name, _)| name == field.name()).map(|(_, value)| value.as_slice())
        }

        fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
            self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
        }

        fn set(&mut self, field: Field, value: &[u8]) {
            self.remove(field);
            self.add(field, value);
        }

        fn add(&mut self, field: Field, value: &[u8]) {
            self.0.push((field.name().to_owned(), value.to_vec()));
        }

        fn remove(&mut self, field: Field) {
            self.0.retain(|(name, _)| name != field.name());
        }
    }
}
