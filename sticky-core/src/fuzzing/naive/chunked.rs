//! Chunked bodies, by recursive descent.

const MAX_SIZE_LINE: usize = 4096;
const MAX_TRAILERS: usize = 16 * 1024;

/// How the reading of a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuzzing) enum Stop {
    /// The body is complete.
    Complete,
    /// The input ended first, with so many bytes of a chunk's data still to come.
    Open { data_ahead: u64 },
    /// The next byte is wrong.
    Broken,
}

/// A body as far as it goes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::fuzzing) struct Chunks {
    /// How many bytes belong to it.
    pub(in crate::fuzzing) used: usize,
    pub(in crate::fuzzing) stop: Stop,
    /// What is in the chunks.
    pub(in crate::fuzzing) data: Vec<u8>,
}

/// Reads a body.
pub(in crate::fuzzing) fn chunked(bytes: &[u8]) -> Chunks {
    let mut reader = Reader { bytes, at: 0, data: Vec::new() };
    let stop = reader.body().err().unwrap_or(Stop::Complete);
    Chunks { used: reader.at, stop, data: reader.data }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    data: Vec<u8>,
}

type Read<T> = Result<T, Stop>;

impl Reader<'_> {
    fn body(&mut self) -> Read<()> {
        loop {
            match self.size_line()? {
                0 => return self.trailers(),
                size => self.chunk(size)?,
            }
            self.literal(b"\r\n")?;
        }
    }

    fn peek(&self) -> Read<u8> {
        self.bytes.get(self.at).copied().ok_or(Stop::Open { data_ahead: 0 })
    }

    fn literal(&mut self, expected: &[u8]) -> Read<()> {
        for byte in expected {
            if self.peek()? != *byte {
                return Err(Stop::Broken);
            }
            self.at += 1;
        }
        Ok(())
    }

    fn size_line(&mut self) -> Read<u64> {
        let start = self.at;
        let mut size = 0u128;
        while self.peek()?.is_ascii_hexdigit() {
            let digit = (self.bytes[self.at] as char).to_digit(16).unwrap();
            size = size * 16 + u128::from(digit);
            if size >= 1 << 63 || self.at - start >= MAX_SIZE_LINE {
                return Err(Stop::Broken);
            }
            self.at += 1;
        }
        if self.at == start || ![b';', b'\r'].contains(&self.peek()?) {
            return Err(Stop::Broken);
        }
        while self.peek()? != b'\r' {
            self.text(start, MAX_SIZE_LINE)?;
        }
        self.room(start, MAX_SIZE_LINE)?;
        self.literal(b"\r\n")?;
        Ok(size as u64)
    }

    fn chunk(&mut self, size: u64) -> Read<()> {
        let there = &self.bytes[self.at..];
        let taken = there.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        self.data.extend_from_slice(&there[..taken]);
        self.at += taken;
        match size - taken as u64 {
            0 => Ok(()),
            data_ahead => Err(Stop::Open { data_ahead }),
        }
    }

    fn trailers(&mut self) -> Read<()> {
        let mut length = 0;
        while self.peek()? != b'\r' {
            if b" \t".contains(&self.peek()?) {
                return Err(Stop::Broken);
            }
            // As if all trailers were one line of their bytes without the line feeds.
            let start = self.at;
            while self.peek()? != b'\r' {
                self.text(start, MAX_TRAILERS - length)?;
            }
            self.room(start, MAX_TRAILERS - length)?;
            length += self.at + 1 - start;
            self.literal(b"\r\n")?;
        }
        self.literal(b"\r\n")
    }

    /// One byte of a text that began at `start`.
    fn text(&mut self, start: usize, most: usize) -> Read<()> {
        self.room(start, most)?;
        match self.peek()? {
            b'\t' | b' '..=b'~' | 0x80.. => {
                self.at += 1;
                Ok(())
            }
            _ => Err(Stop::Broken),
        }
    }

    fn room(&self, start: usize, most: usize) -> Read<()> {
        if self.at - start >= most { Err(Stop::Broken) } else { Ok(()) }
    }
}
