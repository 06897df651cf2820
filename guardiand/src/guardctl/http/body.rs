//! The body of a message: reading one of known length, in chunks or to the end, writing chunks.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::target::Stream;

/// The body of an answer. Reading fails when the connection ends before the body does.
#[derive(Debug)]
pub(crate) struct Body {
    connection: BufReader<Stream>,
    framing: Framing,
}

#[derive(Debug)]
enum Framing {
    /// So many bytes are still to come.
    Sized(u64),
    /// So many bytes of this chunk are still to come; then a line with the next one's size.
    Chunk(u64),
    /// All has been read.
    Done,
    /// The connection's end is the body's.
    UntilEnd,
}

impl Body {
    pub(super) fn sized(connection: BufReader<Stream>, length: u64) -> Self {
        Self { connection, framing: Framing::Sized(length) }
    }

    pub(super) fn chunked(connection: BufReader<Stream>) -> Self {
        Self { connection, framing: Framing::Chunk(0) }
    }

    pub(super) fn until_end(connection: BufReader<Stream>) -> Self {
        Self { connection, framing: Framing::UntilEnd }
    }

    /// Reads at most `left` bytes; the connection must not end before they came.
    fn part(&mut self, buffer: &mut [u8], left: u64) -> io::Result<usize> {
        let size = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match self.connection.read(&mut buffer[..size])? {
            0 if size > 0 => Err(cut_off()),
            count => Ok(count),
        }
    }

    /// Reads the line that opens a chunk, and the trailer behind the last one.
    fn next_chunk(&mut self) -> io::Result<u64> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "chunk size is no number"))?;
        if size == 0 {
            while !self.line()?.is_empty() {}
        }
        Ok(size)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        // A size or trailer line is short; a peer that never ends one must not fill our memory.
        (&mut self.connection).take(8192).read_line(&mut line)?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
            None => Err(cut_off()),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Framing::Chunk(0) = self.framing {
            self.framing = match self.next_chunk()? {
                0 => Framing::Done,
                size => Framing::Chunk(size),
            };
        }
        match self.framing {
            Framing::Done | Framing::Sized(0) => Ok(0),
            Framing::UntilEnd => self.connection.read(buffer),
            Framing::Sized(left) => {
                let count = self.part(buffer, left)?;
                self.framing = Framing::Sized(left - count as u64);
                Ok(count)
            }
            Framing::Chunk(left) => {
                let count = self.part(buffer, left)?;
                let left = left - count as u64;
                if left == 0 && !self.line()?.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "chunk is too long"));
                }
                self.framing = Framing::Chunk(left);
                Ok(count)
            }
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off")
}

/// Writes each piece as a chunk; without [`ChunkWriter::finish`] the peer sees a cut-off body,
/// which is what it should see when making the body failed.
#[derive(Debug)]
pub(crate) struct ChunkWriter<W: Write>(W);

impl<W: Write> ChunkWriter<W> {
    /// Returns a writer of chunks into `inner`.
    pub(crate) fn new(inner: W) -> Self {
        Self(inner)
    }

    /// Writes the last chunk.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.write_all(b"0\r\n\r\n")
    }
}

impl<W: Write> Write for ChunkWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.0.write_all(format!("{:x}\r\n", buffer.len()).as_bytes())?;
        self.0.write_all(buffer)?;
        self.0.write_all(b"\r\n")?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_framed() {
        let mut bytes = Vec::new();
        let mut writer = ChunkWriter::new(&mut bytes);
        writer.write_all(b"hello").unwrap();
        writer.write_all(b"").unwrap();
        writer.finish().unwrap();
        assert_eq!(bytes, b"5\r\nhello\r\n0\r\n\r\n");
    }
}
