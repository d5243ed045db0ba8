//! Cuts what a process writes into lines. Pure: bytes in, lines out.

/// The longest line that comes out unbroken, in bytes without its line feed: 1 MiB.
pub(crate) const LONGEST_LINE: usize = 1 << 20;

/// A line without its line feed, or a part of one longer than the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// What was written, byte for byte: carriage returns and binary data included.
    pub(crate) bytes: Vec<u8>,
    /// Whether this goes on where the `Line` before it was cut off at the limit.
    pub(crate) continues: bool,
}

/// Cuts a stream of bytes at its line feeds, however the reads happened to split it.
pub(crate) struct LineSplitter {
    begun: Vec<u8>,
    continues: bool,
    limit: usize,
}

impl LineSplitter {
    /// A splitter that cuts lines longer than [`LONGEST_LINE`] into parts.
    pub(crate) fn new() -> Self {
        Self::with_limit(LONGEST_LINE)
    }

    /// A splitter that goes on in the middle of a line, or of one that was cut.
    pub(crate) fn within(begun: Vec<u8>, continues: bool) -> Self {
        Self { begun, continues, ..Self::new() }
    }

    /// What has come of a line that is not complete, and whether that goes on where one was cut off.
    pub(crate) fn begun(&self) -> (&[u8], bool) {
        (&self.begun, self.continues)
    }

    /// A splitter for lines of at most `limit` bytes, at least 1.
    fn with_limit(limit: usize) -> Self {
        Self { begun: Vec::new(), continues: false, limit }
    }

    /// Takes bytes off the front of `input` and gives the line they complete. `None` means that all of `input`
    /// was taken and the line is not complete yet.
    pub(crate) fn next_line(&mut self, input: &mut &[u8]) -> Option<Line> {
        let room = self.limit - self.begun.len();
        let within = &input[..input.len().min(room + 1)];
        if let Some(end) = within.iter().position(|byte| *byte == b'\n') {
            self.take(input, end);
            *input = &input[1..];
            return Some(self.cut(false));
        }
        let overlong = input.len() > room;
        self.take(input, input.len().min(room));
        overlong.then(|| self.cut(true))
    }

    /// The last line, where the stream ended without a line feed.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        (!self.begun.is_empty()).then(|| self.cut(false))
    }

    fn take(&mut self, input: &mut &[u8], count: usize) {
        let (taken, rest) = input.split_at(count);
        self.begun.extend_from_slice(taken);
        *input = rest;
    }

    fn cut(&mut self, more_follows: bool) -> Line {
        let continues = std::mem::replace(&mut self.continues, more_follows);
        Line { bytes: std::mem::take(&mut self.begun), continues }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(splitter: &mut LineSplitter, reads: &[Vec<u8>]) -> Vec<Line> {
        let mut lines = Vec::new();
        for read in reads {
            let mut input = read.as_slice();
            lines.extend(std::iter::from_fn(|| splitter.next_line(&mut input)));
            assert!(input.is_empty());
        }
        lines.extend(splitter.finish());
        lines
    }

    fn whole(bytes: &[u8]) -> Line {
        Line { bytes: bytes.to_vec(), continues: false }
    }

    #[test]
    fn lines_are_cut_at_line_feeds_only() {
        let reads = [b"a\r\n\nb\rc".to_vec(), b"\xff\0\nlast".to_vec()];
        let lines = split(&mut LineSplitter::new(), &reads);
        assert_eq!(lines, [whole(b"a\r"), whole(b""), whole(b"b\rc\xff\0"), whole(b"last")]);
    }

    #[test]
    fn a_line_of_the_limit_stays_whole_and_one_byte_more_continues() {
        let mut splitter = LineSplitter::with_limit(4);
        assert_eq!(split(&mut splitter, &[b"1234\n".to_vec()]), [whole(b"1234")]);
        let lines = split(&mut splitter, &[b"1234".to_vec(), b"5\n6".to_vec()]);
        let rest = Line { bytes: b"5".to_vec(), continues: true };
        assert_eq!(lines, [whole(b"1234"), rest, whole(b"6")]);
    }

    #[test]
    fn the_limit_is_one_mebibyte() {
        let mut read = vec![b'x'; 1024 * 1024];
        read.push(b'\n');
        assert_eq!(split(&mut LineSplitter::new(), &[read]).len(), 1);
    }

    #[test]
    fn another_splitter_goes_on_in_the_middle_of_a_line() {
        for (read, next, rest) in [("be", "gun\n", "begun"), ("", "whole\n", "whole")] {
            let mut splitter = LineSplitter::new();
            assert_eq!(splitter.next_line(&mut read.as_bytes()), None);
            let (begun, continues) = splitter.begun();
            let mut other = LineSplitter::within(begun.to_vec(), continues);
            assert_eq!(other.next_line(&mut next.as_bytes()), Some(whole(rest.as_bytes())));
        }
    }

    proptest! {
        #[test]
        fn joined_lines_are_the_input_however_it_was_read(
            reads in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..40), 0..12),
            limit in 1_usize..20,
        ) {
            let lines = split(&mut LineSplitter::with_limit(limit), &reads);
            let mut joined: Vec<u8> = Vec::new();
            for (index, line) in lines.iter().enumerate() {
                prop_assert!(line.bytes.len() <= limit);
                prop_assert!(!line.bytes.contains(&b'\n'));
                if index > 0 && !line.continues {
                    joined.push(b'\n');
                }
                joined.extend(&line.bytes);
            }
            let input = reads.concat();
            if input.ends_with(b"\n") {
                joined.push(b'\n');
            }
            prop_assert_eq!(joined, input);
        }
    }
}
