//! The notice that an HTTP/2 connection is about to end, put between the frames of a server that gives none itself.

/// GOAWAY: no new streams, please; all that have begun are served. (Stream 0, the highest last stream, no error.)
pub(super) const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

const HEADER: usize = 9;

/// Follows what a server writes, to know where its frames end.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// So much of a header has been written.
    filled: usize,
    /// So much of a frame's payload is still to be written.
    left: usize,
    has_begun: bool,
}

impl Frames {
    /// The socket has accepted these bytes.
    pub(super) fn wrote(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = if self.left > 0 { self.pass(bytes) } else { self.read_header(bytes) };
        }
    }

    /// Whether a frame may stand here. The first one is the server's own.
    pub(super) fn is_between(&self) -> bool {
        self.has_begun && self.filled == 0 && self.left == 0
    }

    fn pass<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let length = self.left.min(bytes.len());
        self.left -= length;
        &bytes[length..]
    }

    fn read_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let length = (HEADER - self.filled).min(bytes.len());
        self.header[self.filled..self.filled + length].copy_from_slice(&bytes[..length]);
        self.filled += length;
        if self.filled == HEADER {
            self.filled = 0;
            self.has_begun = true;
            let [high, middle, low, ..] = self.header;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        }
        &bytes[length..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let [.., high, middle, low] = length.to_be_bytes();
        let mut frame = vec![high, middle, low, 0, 0, 0, 0, 0, 1];
        frame.resize(HEADER + length, 0xff);
        frame
    }

    #[test]
    fn knows_where_frames_end_however_they_are_cut() {
        let bytes = [frame(0), frame(1), frame(300), frame(70_000), frame(0)].concat();
        let ends = [9, 19, 328, 70_337, 70_346];
        for piece in [1, 2, 8, 9, 10, 11, 4096, bytes.len()] {
            let (mut frames, mut at) = (Frames::default(), 0);
            assert!(!frames.is_between());
            for bytes in bytes.chunks(piece) {
                frames.wrote(bytes);
                at += bytes.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "{at} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_notice_is_one_frame() {
        let mut frames = Frames::default();
        frames.wrote(GOAWAY);
        assert!(frames.is_between());
    }
}
