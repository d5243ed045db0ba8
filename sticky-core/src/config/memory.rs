//! Amounts of memory.

use super::parse::Value;
use super::settings::Allowed;

/// An amount of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Memory(pub(crate) u64);

/// The units with the length of their amount in bits, largest first.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// One that can be absent: `none`.
impl Value for Option<Memory> {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(None);
        }
        let split = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(split);
        let bits = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, bits)| *bits);
        let bytes = number.parse::<u64>().ok().zip(bits).and_then(|(number, bits)| number.checked_mul(1 << bits));
        bytes.map(|bytes| Some(Memory(bytes))).ok_or_else(|| "not an amount of memory".to_owned())
    }

    fn show(&self) -> String {
        let Some(Memory(bytes)) = *self else { return "none".to_owned() };
        let whole = UNITS.iter().find(|(_, bits)| bytes != 0 && bytes.is_multiple_of(1 << bits));
        // Finer than that only code can ask for, and only errors show.
        whole.map_or_else(|| format!("{bytes} bytes"), |(name, bits)| format!("{}{name}", bytes >> bits))
    }

    fn is_allowed(&self, allowed: &Allowed) -> bool {
        self.is_none_or(|Memory(bytes)| allowed.has_memory(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_amounts() {
        for (text, amount) in [
            ("none", None),
            ("1KiB", Some(1 << 10)),
            ("512MiB", Some(512 << 20)),
            ("1025MiB", Some(1025 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1TiB", Some(1 << 40)),
        ] {
            let amount = amount.map(Memory);
            assert_eq!(Value::parse(text), Ok(amount), "{text}");
            assert_eq!(amount.show(), text);
        }
        assert_eq!(Value::parse("2048 KiB"), Ok(Some(Memory(2 << 20))));
        assert_eq!(Some(Memory(1025)).show(), "1025 bytes");
        assert_eq!(Some(Memory(0)).show(), "0 bytes");
    }

    #[test]
    fn what_is_no_amount() {
        for text in ["", "512", "512M", "512MB", "512mib", "-1MiB", "+1MiB", "0.5GiB", "MiB", "16777216TiB", "None"] {
            let parsed: Result<Option<Memory>, String> = Value::parse(text);
            assert_eq!(parsed, Err("not an amount of memory".to_owned()), "{text}");
        }
    }
}
