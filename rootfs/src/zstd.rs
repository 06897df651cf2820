//! Unpacks zstd (RFC 8878): frames one after the other, and between them frames to be skipped, in
//! which image builders keep what is of no use to us.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// How a zstd file begins (RFC 8878, 3.1.1).
pub(crate) const MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";

/// Reads what is packed in a stream of frames. The decoder refuses windows above 128 MiB.
pub(crate) struct Frames<R> {
    packed: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> Frames<R> {
    pub(crate) fn new(packed: R) -> Self {
        Self { packed, decoder: FrameDecoder::new(), is_in_frame: false }
    }

    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.packed) {
                Ok(()) => {
                    self.is_in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => self.skip(length.into())?,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        match io::copy(&mut (&mut self.packed).take(length), &mut io::sink())? == length {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame && !self.begin()? {
                return Ok(0);
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                self.is_in_frame = false;
                continue;
            }
            self.decoder
                .decode_blocks(&mut self.packed, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(io::Error::other)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Frames::new(packed).read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn frames_follow_each_other_and_some_are_skipped() {
        let skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc";
        let large = "two".repeat(1 << 20);
        let frame = |text: &str| compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
        let (one, two) = (frame("one"), frame(&large));
        assert!(one.starts_with(MAGIC));
        let packed = [skipped, &one[..], skipped, &two, &frame(""), skipped].concat();
        assert_eq!(unpack(&packed).unwrap(), [b"one", large.as_bytes()].concat());
        assert_eq!(unpack(b"").unwrap(), b"");
        for broken in [&packed[..packed.len() - 1], &two[..two.len() - 5], b"hello", &one[..3]] {
            assert!(unpack(broken).is_err());
        }
    }
}
