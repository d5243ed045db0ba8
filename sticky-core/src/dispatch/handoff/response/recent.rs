//! Heads of responses that this thread has read lately: within a second, for as long goes a Date, an application mostly
//! answers with the same few, whoever has asked. To compare one costs a tenth of reading it.

use std::cell::RefCell;

use super::Head;
use super::lines::{self, Parsed};

/// How many are kept by each thread.
const ENTRIES: usize = 8;

/// Longer ones are not kept.
const LONGEST: usize = 512;

thread_local! {
    static RECENT: RefCell<[Entry; ENTRIES]> = const { RefCell::new([const { Entry::EMPTY }; ENTRIES]) };
}

/// A whole head. Whatever begins with its bytes begins with the same head: it ends where they end.
struct Entry {
    bytes: [u8; LONGEST],
    len: usize,
    head: Head,
}

impl Entry {
    const EMPTY: Self = Self { bytes: [0; LONGEST], len: 0, head: Head::EMPTY };

    fn begins(&self, bytes: &[u8]) -> bool {
        self.len > 0 && bytes.starts_with(&self.bytes[..self.len])
    }

    fn keep(&mut self, head: &Head, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            (self.len, self.head) = (bytes.len(), *head);
        }
    }
}

/// Reads the head at the start of these bytes, as [`lines::parse`] does.
#[inline]
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    RECENT.with_borrow_mut(|recent| {
        // A head that comes again mostly comes with a body as long as before.
        let entry = &mut recent[bytes.len() % ENTRIES];
        if entry.begins(bytes) {
            return Parsed::Head(entry.len, entry.head);
        }
        let parsed = lines::parse(bytes);
        if let Parsed::Head(len, head) = &parsed {
            entry.keep(head, &bytes[..*len]);
        }
        parsed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many heads as there are, and more, of which some share an entry; each again and again.
    #[test]
    fn what_was_read_before_is_read_again_as_if_it_were_new() {
        let field = |name: &str, value: String| format!("HTTP/1.1 200 OK\r\n{name}: {value}\r\n\r\n");
        let mut texts: Vec<String> = (0..40).map(|length| field("content-length", length.to_string())).collect();
        texts.extend((0..40).map(|length| field("x-padding", "x".repeat(length * 20))));
        texts.push("HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\n".to_owned());
        texts.push("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n".to_owned());
        for text in texts.iter().flat_map(|text| [text; 3]).chain(&texts) {
            for body in ["", "HTTP/1.1 500 NO\r\ncontent-length: 3\r\n\r\n"] {
                let bytes = format!("{text}{body}").into_bytes();
                assert_eq!(parse(&bytes), lines::parse(&bytes), "{text}");
            }
        }
    }

    #[test]
    fn a_head_is_kept_whole_or_not_at_all() {
        let head = |padding: usize| format!("HTTP/1.1 204 x\r\nx: {}\r\n\r\n", "y".repeat(padding)).into_bytes();
        let shortest = head(0).len();
        for (padding, is_kept) in [(LONGEST - shortest, true), (LONGEST - shortest + 1, false)] {
            let bytes = head(padding);
            assert!(matches!(parse(&bytes), Parsed::Head(len, _) if len == bytes.len()));
            let entry = |recent: &[Entry; ENTRIES]| recent[bytes.len() % ENTRIES].begins(&bytes);
            assert_eq!(RECENT.with_borrow(entry), is_kept, "{padding}");
        }
    }
}
