//! Bytes on their way from one descriptor to another, never more than one buffer of them.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{read, write};

/// A buffer that is filled when it is empty, and then flushed until it is empty again. Its memory
/// is taken at the first use.
#[derive(Debug)]
pub(crate) struct Flow {
    bytes: Vec<u8>,
    pending: std::ops::Range<usize>,
    capacity: usize,
}

impl Flow {
    /// Returns an empty buffer for at most `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: Vec::new(), pending: 0..0, capacity }
    }

    /// Tells whether nothing waits to be flushed.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Reads once into the empty buffer; 0 is the end of the file.
    ///
    /// # Errors
    /// read(2)'s; a full buffer is not read into, and says "try again".
    pub(crate) fn fill(&mut self, from: impl AsFd) -> Result<usize, Errno> {
        if !self.is_empty() {
            return Err(Errno::EAGAIN);
        }
        self.bytes.resize(self.capacity, 0);
        let length = read(from, &mut self.bytes)?;
        self.pending = 0..length;
        Ok(length)
    }

    /// Writes once from the buffer; an empty one writes nothing.
    ///
    /// # Errors
    /// write(2)'s.
    pub(crate) fn flush(&mut self, to: impl AsFd) -> Result<usize, Errno> {
        if self.is_empty() {
            return Ok(0);
        }
        let length = write(to, &self.bytes[self.pending.clone()])?;
        self.pending.start += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_arrive_in_order_and_an_end_is_zero() {
        let (source, mut source_end) = std::io::pipe().unwrap();
        let (mut sink_end, sink) = std::io::pipe().unwrap();
        source_end.write_all(b"hello, world").unwrap();
        drop(source_end);
        let mut flow = Flow::new(5);
        while flow.fill(&source).unwrap() > 0 {
            assert_eq!(flow.fill(&source), Err(Errno::EAGAIN));
            while !flow.is_empty() {
                flow.flush(&sink).unwrap();
            }
        }
        drop(sink);
        let mut text = String::new();
        sink_end.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello, world");
    }
}
