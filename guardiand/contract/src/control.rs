//! The control socket: run and attach for a client on the same host, which hands its own standard
//! streams over as descriptors (`SCM_RIGHTS`, unix(7)) instead of sending what goes through them.
//!
//! It lies beside the API's socket ([`path`]), is of type `SOCK_SEQPACKET`, and is for root alone. A
//! message is one packet of JSON. A connection carries one [`Request::Run`] or [`Request::Attach`],
//! with three descriptors: stdin, stdout, stderr. The answer is [`Reply::Started`], and later
//! [`Reply::Exited`]; or [`Reply::Failed`]. Meanwhile the client may send [`Request::Signal`].
//! Closing the connection leaves the process alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::garden::{ApiError, ProcessSpec};

/// The longest message, in bytes. A longer one is refused; HTTP takes it.
pub const MAX_MESSAGE_BYTES: usize = 128 << 10;

/// How many descriptors come with a request.
pub const DESCRIPTORS: usize = 3;

/// Returns where the control socket of the server is that listens at `api`.
pub fn path(api: &Path) -> PathBuf {
    let mut path = OsString::from(api);
    path.push(".control");
    path.into()
}

/// Client to server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Start a process; the descriptors become its standard streams.
    Run {
        /// In which container.
        handle: String,
        /// What it is to be. A terminal is not to be had here.
        process: Box<ProcessSpec>,
    },
    /// Join a process; its output is copied to the descriptors.
    Attach {
        /// In which container.
        handle: String,
        /// Its name.
        process_id: String,
        /// Whether the first descriptor is copied to its standard input, to its end.
        forwards_stdin: bool,
    },
    /// Send the process [`SIGNAL_TERMINATE`](crate::garden::SIGNAL_TERMINATE) or
    /// [`SIGNAL_KILL`](crate::garden::SIGNAL_KILL). Comes without descriptors.
    Signal(i64),
}

/// Server to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The process runs, or ran.
    Started {
        /// Its name.
        process_id: String,
    },
    /// It has ended, and all its output has been written.
    Exited(i64),
    /// What was asked can't be done, or nobody knows how the process ended.
    Failed(ApiError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_plain_json() {
        let of = |value: &Reply| serde_json::to_string(value).unwrap();
        assert_eq!(of(&Reply::Exited(3)), r#"{"exited":3}"#);
        let started = Reply::Started { process_id: "p".into() };
        assert_eq!(of(&started), r#"{"started":{"process_id":"p"}}"#);
        let text = r#"{"run":{"handle":"h","process":{"path":"sh"}}}"#;
        let process = ProcessSpec { path: "sh".into(), ..ProcessSpec::default() };
        let run = Request::Run { handle: "h".into(), process: process.into() };
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), run);
        assert_eq!(path(Path::new("/run/g.sock")), Path::new("/run/g.sock.control"));
    }
}
