//! Request bodies: by length or in chunks, read whole or piece by piece.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::head::Framing;

/// The largest body read whole, in bytes. Streams of files are not read whole.
pub(crate) const LIMIT_BYTES: usize = 64 << 20;

/// The longest line between chunks: a size, extensions, a trailer field.
const LIMIT_LINE: u64 = 4096;

/// What of a body is still to be read.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes.
    Length(u64),
    /// So many bytes of this chunk, then further chunks.
    Chunk(u64),
    /// Nothing.
    End,
}

impl Body {
    /// Returns the unread body of a request.
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::End,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunk(0),
        }
    }

    /// Returns the next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the client goes away in the middle or breaks the framing.
    pub(crate) async fn next<R>(&mut self, reader: &mut R) -> io::Result<Option<Bytes>>
    where
        R: AsyncBufRead + Unpin,
    {
        if matches!(self, Self::Chunk(0)) {
            *self = match chunk_size(reader).await? {
                0 => Self::trailer(reader).await?,
                size => Self::Chunk(size),
            };
        }
        let left = match self {
            Self::End => return Ok(None),
            Self::Length(left) | Self::Chunk(left) => left,
        };
        let fresh = reader.fill_buf().await?;
        if fresh.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let take = usize::try_from(*left).unwrap_or(usize::MAX).min(fresh.len());
        let piece = Bytes::copy_from_slice(&fresh[..take]);
        reader.consume(take);
        *left -= take as u64;
        match self {
            Self::Length(0) => *self = Self::End,
            Self::Chunk(0) => expect_empty_line(reader).await?,
            _ => {}
        }
        Ok(Some(piece))
    }

    /// Reads all that is left.
    ///
    /// # Errors
    /// As [`Body::next`]; and when it is over [`LIMIT_BYTES`].
    pub(crate) async fn whole<R>(&mut self, reader: &mut R) -> io::Result<Vec<u8>>
    where
        R: AsyncBufRead + Unpin,
    {
        let mut whole = Vec::new();
        while let Some(piece) = self.next(reader).await? {
            if whole.len() + piece.len() > LIMIT_BYTES {
                let text = format!("request body is over the limit of {LIMIT_BYTES} bytes");
                return Err(io::Error::other(text));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// Tells whether everything was read.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self, Self::End)
    }

    async fn trailer<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<Self> {
        while !line(reader).await?.is_empty() {}
        Ok(Self::End)
    }
}

async fn chunk_size<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<u64> {
    let line = line(reader).await?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u64::from_str_radix(digits, 16) {
        Ok(size) if valid => Ok(size),
        _ => Err(io::Error::other(format!("bad chunk size '{}'", line.escape_debug()))),
    }
}

async fn expect_empty_line<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<()> {
    match line(reader).await?.as_str() {
        "" => Ok(()),
        _ => Err(io::Error::other("chunk is longer than its size")),
    }
}

async fn line<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<String> {
    let mut line = String::new();
    reader.take(LIMIT_LINE).read_line(&mut line).await?;
    match line.strip_suffix('\n') {
        Some(text) => Ok(text.trim_end_matches('\r').to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(framing: Framing, wire: &str) -> io::Result<(String, String)> {
        let mut reader = wire.as_bytes();
        let body = Body::new(framing).whole(&mut reader).await?;
        Ok((String::from_utf8(body).unwrap(), String::from_utf8(reader.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn bodies_end_where_their_framing_says() {
        for (framing, wire, body, rest) in [
            (Framing::Length(0), "rest", "", "rest"),
            (Framing::Length(3), "abcrest", "abc", "rest"),
            (Framing::Chunked, "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nrest", "abcde", "rest"),
            (Framing::Chunked, "0\r\nTrailer: x\r\n\r\n", "", ""),
        ] {
            assert_eq!(read(framing, wire).await.unwrap(), (body.into(), rest.into()), "{wire}");
        }
    }

    #[tokio::test]
    async fn broken_bodies_are_errors() {
        for (framing, wire) in [
            (Framing::Length(4), "abc"),
            (Framing::Chunked, "3\r\nab"),
            (Framing::Chunked, "3\r\nabcd\r\n"),
            (Framing::Chunked, "x\r\n"),
            (Framing::Chunked, "+3\r\nabc\r\n0\r\n\r\n"),
            (Framing::Chunked, "ffffffffffffffffff\r\n"),
        ] {
            assert!(read(framing, wire).await.is_err(), "{wire}");
        }
    }
}
