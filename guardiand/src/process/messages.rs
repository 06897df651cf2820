//! JSON values one after another on a stream, with or without white space between them, of any
//! size, in pieces of any size.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The largest value accepted, in bytes: clients send a whole standard input as one string.
const LIMIT_BYTES: usize = 256 << 20;

/// Finds the ends of JSON values without parsing them: brackets and strings are all it knows.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    value: Vec<u8>,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Splitter {
    /// Reads the next value; `None` when the client is done or has gone.
    ///
    /// # Errors
    /// When what comes is no object, or larger than is sensible.
    pub(crate) async fn next<R>(&mut self, reader: &mut R) -> io::Result<Option<Vec<u8>>>
    where
        R: AsyncBufRead + Unpin,
    {
        loop {
            let fresh = reader.fill_buf().await?;
            if fresh.is_empty() {
                return Ok(None);
            }
            let (taken, is_complete) = self.feed(fresh)?;
            reader.consume(taken);
            if is_complete {
                return Ok(Some(std::mem::take(&mut self.value)));
            }
            if self.value.len() > LIMIT_BYTES {
                return Err(io::Error::other("message is too large"));
            }
        }
    }

    /// Takes bytes up to the end of the value; returns how many, and whether it is complete.
    fn feed(&mut self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        let blank = match self.value.is_empty() {
            true => bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count(),
            false => 0,
        };
        for (at, byte) in bytes.iter().enumerate().skip(blank) {
            if self.ends_with(*byte)? {
                self.value.extend_from_slice(&bytes[blank..=at]);
                return Ok((at + 1, true));
            }
        }
        self.value.extend_from_slice(&bytes[blank..]);
        Ok((bytes.len(), false))
    }

    fn ends_with(&mut self, byte: u8) -> io::Result<bool> {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(false);
        }
        match byte {
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth == 1 => {
                self.depth = 0;
                return Ok(true);
            }
            b'}' | b']' if self.depth > 1 => self.depth -= 1,
            _ if self.depth == 0 => return Err(io::Error::other("message is no JSON object")),
            b'"' => self.in_string = true,
            _ => {}
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn split(bytes: &[u8], piece: usize) -> io::Result<Vec<String>> {
        let mut reader = tokio::io::BufReader::with_capacity(piece, bytes);
        let mut splitter = Splitter::default();
        let mut values = Vec::new();
        while let Some(value) = splitter.next(&mut reader).await? {
            values.push(String::from_utf8(value).unwrap());
        }
        Ok(values)
    }

    #[tokio::test]
    async fn values_are_found_whatever_the_pieces() {
        let text = "\n {\"a\":\"}\\\"{\"}{\"b\":[{}]}\n[1]";
        for piece in 1..text.len() {
            let values = split(text.as_bytes(), piece).await.unwrap();
            assert_eq!(values, [r#"{"a":"}\"{"}"#, r#"{"b":[{}]}"#, "[1]"]);
        }
    }

    #[tokio::test]
    async fn what_is_no_object_is_an_error_and_a_cut_one_the_end() {
        assert!(split(b"nonsense", 8).await.is_err());
        assert!(split(b"}", 8).await.is_err());
        assert_eq!(split(b"{\"a\":", 8).await.unwrap(), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
            let mut splitter = Splitter::default();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let Ok((taken, _)) = splitter.feed(rest) else { break };
                proptest::prop_assert!(taken > 0);
                rest = &rest[taken..];
            }
        }
    }
}
