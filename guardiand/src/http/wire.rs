//! One connection: bytes in, bytes out, whatever kind of socket it is.

use std::io;

use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf,
    WriteHalf,
};

use super::head::{self, Head};

/// A socket of any kind.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// What the client says. Keeps what was read too far, so that nothing is lost at a takeover.
pub(crate) type Reader = BufReader<ReadHalf<Box<dyn Socket>>>;

/// What the client hears.
pub(crate) type Writer = WriteHalf<Box<dyn Socket>>;

/// Both directions of one connection.
pub(crate) struct Wire {
    /// From the client.
    pub(crate) reader: Reader,
    /// To the client.
    pub(crate) writer: Writer,
}

impl Wire {
    /// Returns the connection over `socket`.
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        Self { reader: BufReader::with_capacity(16 * 1024, reader), writer }
    }

    /// Reads the next request head; `None` when the client is done.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut bytes = Vec::new();
        loop {
            let fresh = self.reader.fill_buf().await?;
            if fresh.is_empty() {
                return match bytes.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            let before = bytes.len();
            bytes.extend_from_slice(fresh);
            let taken = fresh.len();
            let parsed = head::parse(&bytes).map_err(io::Error::other)?;
            // Only the head is consumed; what follows belongs to whoever reads next.
            self.reader.consume(parsed.as_ref().map_or(taken, |(_, length)| length - before));
            if let Some((head, _)) = parsed {
                return Ok(Some(head));
            }
        }
    }

    /// Closes without losing what was written: a socket closed with unread bytes sends a reset,
    /// which may overtake the answer. So: end our side, then read to the client's end, for a
    /// second at most.
    pub(crate) async fn linger(mut self) {
        if self.writer.shutdown().await.is_err() {
            return;
        }
        let mut waste = [0; 4096];
        let drain = async { while matches!(self.reader.read(&mut waste).await, Ok(n) if n > 0) {} };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), drain).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_behind_a_head_are_kept_even_when_it_comes_in_pieces() {
        let (client, server) = tokio::io::duplex(1024);
        let mut wire = Wire::new(Box::new(server));
        let (_reader, mut writer) = tokio::io::split(client);
        tokio::spawn(async move {
            for piece in ["GET /ping HT", "TP/1.1\r\nHost: a", "pi\r\n\r\n{\"source\":0}"] {
                writer.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            writer.shutdown().await.unwrap();
        });
        let head = wire.head().await.unwrap().unwrap();
        assert_eq!(head.path, "/ping");
        let mut rest = String::new();
        wire.reader.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "{\"source\":0}");
        assert!(wire.head().await.unwrap().is_none());
    }
}
