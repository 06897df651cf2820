//! Private messages between our own programs on a local socket: a little-endian u32 length, then
//! a bincode body. The only file that names bincode.
//!
//! Same-build peers only: the bytes mean nothing without the types, so nothing on disk and no
//! plugin ever sees them. Framed types must not use serde's `flatten`, `untagged` or
//! `skip_serializing_if`, which need a self-describing format.

use std::io::{Read, Write};

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest body accepted, in bytes: far above any message we send, far below what hurts.
pub const LIMIT_BYTES: usize = 1 << 20;

/// Writes one message.
///
/// # Errors
/// When the message is over [`LIMIT_BYTES`] or the socket fails.
pub fn send(socket: &mut impl Write, message: &impl Serialize) -> anyhow::Result<()> {
    let body = bincode::serde::encode_to_vec(message, config()).context("encode message")?;
    let length = u32::try_from(body.len()).context("message too large")?;
    if body.len() > LIMIT_BYTES {
        bail!("message of {length} bytes is over the limit of {LIMIT_BYTES}");
    }
    socket.write_all(&length.to_le_bytes()).context("send message")?;
    socket.write_all(&body).context("send message")
}

/// Reads one message; `None` when the peer closed the socket between messages.
///
/// # Errors
/// When the length is over [`LIMIT_BYTES`], the body is not a `T`, or the socket fails.
pub fn receive<T: DeserializeOwned>(socket: &mut impl Read) -> anyhow::Result<Option<T>> {
    let mut head = [0; 4];
    match socket.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error).context("receive message"),
    }
    let length = u32::from_le_bytes(head) as usize;
    if length > LIMIT_BYTES {
        bail!("message of {length} bytes is over the limit of {LIMIT_BYTES}");
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).context("receive message")?;
    let (message, used) =
        bincode::serde::decode_from_slice(&body, config()).context("decode message")?;
    if used != length {
        bail!("message has {} stray bytes", length - used);
    }
    Ok(Some(message))
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<LIMIT_BYTES>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Message {
        Hello { name: String },
        Numbers(Vec<u32>),
    }

    #[test]
    fn messages_round_trip_and_the_end_is_none() {
        let mut wire = Vec::new();
        send(&mut wire, &Message::Hello { name: "x".into() }).unwrap();
        send(&mut wire, &Message::Numbers(vec![1, 300])).unwrap();
        // The bytes are pinned: both ends must be one build, and a change must be seen.
        assert_eq!(wire, [3, 0, 0, 0, 0, 1, b'x', 6, 0, 0, 0, 1, 2, 1, 251, 44, 1]);
        let mut wire = wire.as_slice();
        assert_eq!(receive(&mut wire).unwrap(), Some(Message::Hello { name: "x".into() }));
        assert_eq!(receive(&mut wire).unwrap(), Some(Message::Numbers(vec![1, 300])));
        assert_eq!(receive::<Message>(&mut wire).unwrap(), None);
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_it_is_allocated() {
        let wire = u32::MAX.to_le_bytes();
        assert!(receive::<Message>(&mut wire.as_slice()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_error_or_a_message(bytes: Vec<u8>) {
            let _ = receive::<Message>(&mut bytes.as_slice());
        }
    }
}
