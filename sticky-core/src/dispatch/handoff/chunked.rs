//! Finds the end of a chunked body, byte-exact at any split; shared by requests and responses. Pure.
//!
//! Stricter than hyper and actix: whatever both accept here, both frame alike. No blanks around the size, no control
//! characters in extensions and trailers, no folded trailer.

/// The longest line with a chunk's size, extensions included.
const MAX_SIZE_LINE: u32 = 4 * 1024;

/// All trailers of a body together; hyper's own bound.
const MAX_TRAILERS: u32 = 16 * 1024;

/// What is wrong with a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkFault {
    /// The size is not hexadecimal digits: a sign, `0x`, blanks, nothing.
    Size,
    /// The size is beyond what a length can be.
    SizeTooLarge,
    /// The size with its extensions is too long a line.
    LineTooLong,
    /// A control character in an extension or trailer, or a folded trailer.
    Character,
    /// A line or a chunk that does not end with CRLF.
    LineEnding,
    /// The trailers together are beyond their bound.
    TrailersTooLarge,
}

/// Where a chunked body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More of it must come.
    Open,
    /// Its last byte has been consumed.
    Complete,
    /// It cannot be framed. Nothing is consumed any more.
    Broken(ChunkFault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer, or of the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
    Broken(ChunkFault),
}

/// Counts the bytes of one chunked body.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    /// Of the current chunk.
    size: u64,
    /// Bytes of the current size line, then of all trailers.
    line: u32,
}

impl Chunked {
    /// A body of which nothing has been consumed.
    pub(crate) fn new() -> Self {
        Self { state: State::SizeStart, size: 0, line: 0 }
    }

    /// Consumes the bytes that belong to the body, and returns how many of `bytes` those are. Fewer than all: the body
    /// is complete, or the byte after them breaks it.
    pub(crate) fn consume(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            match self.state {
                State::End | State::Broken(_) => break,
                State::Data => used += self.consume_data(bytes.len() - used),
                _ => match self.step(bytes[used]) {
                    Ok(next) => {
                        self.state = next;
                        used += 1;
                    }
                    Err(fault) => self.state = State::Broken(fault),
                },
            }
        }
        used
    }

    /// Counts up to `available` bytes of the current chunk's data.
    pub(crate) fn consume_data(&mut self, available: usize) -> usize {
        let taken = self.data_ahead().min(available as u64);
        self.size -= taken;
        if self.state == State::Data && self.size == 0 {
            self.state = State::DataCr;
        }
        taken as usize
    }

    /// How many of the bytes to come are certain to be data of this body.
    pub(crate) fn data_ahead(&self) -> u64 {
        if self.state == State::Data { self.size } else { 0 }
    }

    /// Where the body stands.
    pub(crate) fn progress(&self) -> Progress {
        match self.state {
            State::End => Progress::Complete,
            State::Broken(fault) => Progress::Broken(fault),
            _ => Progress::Open,
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkFault> {
        match self.state {
            State::SizeStart => self.begin_size(byte),
            State::Size => self.size_line(byte),
            State::Extension => self.extension(byte),
            State::SizeLf => expect(byte, b'\n', if self.size == 0 { self.begin_trailers() } else { State::Data }),
            State::DataCr => expect(byte, b'\r', State::DataLf),
            State::DataLf => expect(byte, b'\n', State::SizeStart),
            State::TrailerStart => self.trailer_start(byte),
            State::Trailer => self.trailer(byte),
            State::TrailerLf => expect(byte, b'\n', State::TrailerStart),
            State::EndLf => expect(byte, b'\n', State::End),
            State::Data | State::End | State::Broken(_) => Ok(self.state),
        }
    }

    fn begin_size(&mut self, byte: u8) -> Result<State, ChunkFault> {
        self.size = 0;
        self.line = 0;
        if byte.is_ascii_hexdigit() { self.size_line(byte) } else { Err(ChunkFault::Size) }
    }

    fn size_line(&mut self, byte: u8) -> Result<State, ChunkFault> {
        self.lengthen_size_line()?;
        match byte {
            b'\r' => Ok(State::SizeLf),
            b';' => Ok(State::Extension),
            _ => {
                let digit = (byte as char).to_digit(16).ok_or(ChunkFault::Size)?;
                // A length that fits 63 bits leaves room for sums.
                if self.size >> 59 != 0 {
                    return Err(ChunkFault::SizeTooLarge);
                }
                self.size = self.size << 4 | u64::from(digit);
                Ok(State::Size)
            }
        }
    }

    fn extension(&mut self, byte: u8) -> Result<State, ChunkFault> {
        self.lengthen_size_line()?;
        match byte {
            b'\r' => Ok(State::SizeLf),
            _ => text(byte, State::Extension),
        }
    }

    fn lengthen_size_line(&mut self) -> Result<(), ChunkFault> {
        self.line += 1;
        if self.line > MAX_SIZE_LINE { Err(ChunkFault::LineTooLong) } else { Ok(()) }
    }

    fn begin_trailers(&mut self) -> State {
        self.line = 0;
        State::TrailerStart
    }

    fn trailer_start(&mut self, byte: u8) -> Result<State, ChunkFault> {
        match byte {
            b'\r' => Ok(State::EndLf),
            // A folded line.
            b' ' | b'\t' => Err(ChunkFault::Character),
            _ => self.trailer(byte),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, ChunkFault> {
        self.line += 1;
        if self.line > MAX_TRAILERS {
            return Err(ChunkFault::TrailersTooLarge);
        }
        match byte {
            b'\r' => Ok(State::TrailerLf),
            _ => text(byte, State::Trailer),
        }
    }
}

fn expect(byte: u8, wanted: u8, next: State) -> Result<State, ChunkFault> {
    if byte == wanted { Ok(next) } else { Err(ChunkFault::LineEnding) }
}

/// Blanks and everything visible may stand in an extension or a trailer.
fn text(byte: u8, next: State) -> Result<State, ChunkFault> {
    match byte {
        b'\n' => Err(ChunkFault::LineEnding),
        b'\t' => Ok(next),
        _ if byte.is_ascii_control() => Err(ChunkFault::Character),
        _ => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn consume_all(bytes: &[u8]) -> (usize, Progress) {
        let mut body = Chunked::new();
        let used = body.consume(bytes);
        (used, body.progress())
    }

    #[test]
    fn the_next_message_is_left_alone() {
        let bodies: [&[u8]; 5] = [
            b"0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"000005;a=b;c=\"d \xe9\"\r\nhello\r\nA\r\n0123456789\r\n00\r\n\r\n",
            b"1\r\n\r\r\n0\r\nx-sum: 1\r\ny:\r\n\r\n",
            b"2\r\n\r\n\r\n0;last\r\n\r\n",
        ];
        for body in bodies {
            let message = [body, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(consume_all(&message), (body.len(), Progress::Complete), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn what_could_be_framed_in_two_ways_is_refused_at_the_byte_that_breaks_it() {
        let table: [(&[u8], usize, ChunkFault); 21] = [
            (b"\r\n", 0, ChunkFault::Size),
            (b"+5\r\n", 0, ChunkFault::Size),
            (b"-5\r\n", 0, ChunkFault::Size),
            (b" 5\r\n", 0, ChunkFault::Size),
            (b"0x5\r\n", 1, ChunkFault::Size),
            (b"5 \r\n", 1, ChunkFault::Size),
            (b"5\t;a\r\n", 1, ChunkFault::Size),
            (b"5_0\r\n", 1, ChunkFault::Size),
            (b"5\n", 1, ChunkFault::Size),
            (b"5\rX", 2, ChunkFault::LineEnding),
            (b"5;a\nb\r\n", 3, ChunkFault::LineEnding),
            (b"5;a\0b\r\n", 3, ChunkFault::Character),
            (b"10000000000000000\r\n", 16, ChunkFault::SizeTooLarge),
            (b"8000000000000000\r\n", 15, ChunkFault::SizeTooLarge),
            (b"1\r\nabc", 4, ChunkFault::LineEnding),
            (b"1\r\na\n0", 4, ChunkFault::LineEnding),
            (b"0\r\n x: folded\r\n\r\n", 3, ChunkFault::Character),
            (b"0\r\nx: 1\r\n\tfolded\r\n\r\n", 9, ChunkFault::Character),
            (b"0\r\nx: 1\n\r\n", 7, ChunkFault::LineEnding),
            (b"0\r\nx: \x7f\r\n", 6, ChunkFault::Character),
            (b"0\r\n\rX", 4, ChunkFault::LineEnding),
        ];
        for (bytes, good, fault) in table {
            assert_eq!(consume_all(bytes), (good, Progress::Broken(fault)), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_largest_size_is_accepted() {
        let mut body = Chunked::new();
        assert_eq!(body.consume(b"7fffffffffffffff\r\n"), 18);
        assert_eq!(body.data_ahead(), i64::MAX as u64);
        assert_eq!(body.consume_data(10), 10);
        assert_eq!(body.data_ahead(), i64::MAX as u64 - 10);
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let fits = [b"0;".to_vec(), vec![b'a'; MAX_SIZE_LINE as usize - 3], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(consume_all(&fits), (fits.len(), Progress::Complete));
        let long = [b"0;".to_vec(), vec![b'a'; MAX_SIZE_LINE as usize - 2], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(consume_all(&long), (MAX_SIZE_LINE as usize, Progress::Broken(ChunkFault::LineTooLong)));
        let zeros = vec![b'0'; 5000];
        assert_eq!(consume_all(&zeros), (MAX_SIZE_LINE as usize, Progress::Broken(ChunkFault::LineTooLong)));

        // Each trailer counts with its carriage return.
        let trailer = [vec![b'x'; 1023], b"\r\n".to_vec()].concat();
        let fits = [b"0\r\n".to_vec(), trailer.repeat(16), b"\r\n".to_vec()].concat();
        assert_eq!(consume_all(&fits), (fits.len(), Progress::Complete));
        let large = [b"0\r\n".to_vec(), trailer.repeat(16), b"y\r\n\r\n".to_vec()].concat();
        let good = 3 + trailer.len() * 16;
        assert_eq!(consume_all(&large), (good, Progress::Broken(ChunkFault::TrailersTooLarge)));
    }

    #[test]
    fn only_data_is_promised_to_be_data() {
        let mut body = Chunked::new();
        assert_eq!(body.data_ahead(), 0);
        body.consume(b"a\r");
        assert_eq!((body.data_ahead(), body.consume_data(5)), (0, 0));
        body.consume(b"\n");
        assert_eq!(body.data_ahead(), 10);
        assert_eq!(body.consume_data(100), 10);
        assert_eq!((body.data_ahead(), body.progress()), (0, Progress::Open));
        assert_eq!(body.consume(b"\r\n0\r\n\r\n"), 7);
        assert_eq!(body.progress(), Progress::Complete);
        assert_eq!(body.consume(b"more"), 0);
    }

    /// Near-valid bodies: valid pieces and wrong ones in any order.
    fn rough_body() -> impl Strategy<Value = Vec<u8>> {
        let pieces: Vec<&[u8]> = vec![
            b"0",
            b"5",
            b"a",
            b"\r\n",
            b"\r",
            b"\n",
            b";x",
            b"hello",
            b" ",
            b"x: y",
            b"0\r\n\r\n",
            b"5\r\nhello\r\n",
            b"\0",
        ];
        proptest::collection::vec(proptest::sample::select(pieces), 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn splits_change_nothing(bytes in rough_body(), cuts in proptest::collection::vec(1usize..5, 1..8)) {
            let whole = consume_all(&bytes);
            let mut body = Chunked::new();
            let mut used = 0;
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                let taken = body.consume(piece);
                used += taken;
                rest = later;
                if taken < piece.len() || rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((used, body.progress()), whole);
        }
    }
}
