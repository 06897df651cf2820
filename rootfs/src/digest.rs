//! SHA-256 over a stream while it is read or written by someone else.

use std::io::{self, Read, Write};

use anyhow::bail;
use guardian_contract::fault::Fault;
use sha2::{Digest, Sha256};

/// Passes bytes on and hashes them.
#[derive(Debug)]
pub(crate) struct Hashed<T> {
    inner: T,
    hash: Sha256,
    size: u64,
}

impl<T> Hashed<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    /// Returns the hash so far in hexadecimal, and the number of bytes.
    pub(crate) fn finish(self) -> (String, u64) {
        (hex(&self.hash.finalize()), self.size)
    }

    /// Returns what was wrapped, with the hash so far and the number of bytes.
    pub(crate) fn into_parts(self) -> (T, String, u64) {
        (self.inner, hex(&self.hash.finalize()), self.size)
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count(&buffer[..length]);
        Ok(length)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(buffer)?;
        self.count(&buffer[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Returns the SHA-256 of `bytes` in hexadecimal.
pub(crate) fn of(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

/// Returns the digits of `sha256:…`; the text becomes a file name and part of a URL, so it is
/// checked here.
///
/// # Errors
/// When it is anything else.
pub(crate) fn parse(digest: &str) -> anyhow::Result<String> {
    let digits = digest.strip_prefix("sha256:").unwrap_or_default();
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 64 || !digits.bytes().all(is_digit) {
        bail!(Fault::invalid(format!("'{}' is not a sha256 digest", digest.escape_debug())));
    }
    Ok(digits.to_owned())
}

/// Returns the digest with the name of its algorithm.
pub(crate) fn named(digits: &str) -> String {
    format!("sha256:{digits}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_hash_is_the_known_one() {
        let (hash, size) = Hashed::new(io::empty()).finish();
        assert_eq!(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(size, 0);
    }

    #[test]
    fn a_digest_is_no_path() {
        for bad in ["sha256:../../etc/passwd", "sha256:", "md5:x", "sha256:ABC"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
