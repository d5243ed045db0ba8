//! The arguments of an event, however many and of whatever kind.

use std::fmt;

use rmpv::Value;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeTuple, Serializer};

/// As a tuple, the only kind of value that stands for several arguments.
#[derive(Debug)]
pub(super) struct Arguments(Vec<Value>);

impl Serialize for Arguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|argument| tuple.serialize_element(argument))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(usize::MAX, All)
    }
}

struct All;

impl<'de> Visitor<'de> for All {
    type Value = Arguments;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the arguments of an event")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Arguments, A::Error> {
        let mut all = Vec::new();
        while let Some(argument) = sequence.next_element()? {
            all.push(argument);
        }
        Ok(Arguments(all))
    }
}
