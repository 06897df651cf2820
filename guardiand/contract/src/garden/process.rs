//! What a process is asked to be, and the messages of a run or attach connection.

use serde::{Deserialize, Serialize};

use super::{BindMount, CpuLimits, ImageRef, MemoryLimits, is_zero};
use crate::process::WindowSize;

/// [`ProcessPayload::signal`]: SIGTERM.
pub const SIGNAL_TERMINATE: i64 = 0;
/// [`ProcessPayload::signal`]: SIGKILL.
pub const SIGNAL_KILL: i64 = 1;
/// [`ProcessPayload::source`] of standard input.
pub const SOURCE_STDIN: i64 = 0;

/// The body of a run request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessSpec {
    /// The name; empty lets the server choose a UUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The program; without a slash it is looked for in the process's own PATH.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Arguments after the program's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `K=V`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory; empty is the user's home.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty is root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Resource limits (setrlimit(2)).
    pub rlimits: ResourceLimits,
    /// A pea's own limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ProcessLimits>,
    /// Present, even empty: the process gets a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<Tty>,
    /// Not empty: the process is a pea, with its own root filesystem.
    pub image: ImageRef,
    /// A pea's bind mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bind_mounts: Vec<BindMount>,
    /// What must end before the process has ended. Not in gdn.
    #[serde(skip_serializing_if = "is_zero")]
    pub wait_for: WaitFor,
    /// Whether the latest output is kept for whoever attaches, now or after the end. Not in gdn.
    #[serde(skip_serializing_if = "is_zero")]
    pub keep_output: bool,
}

/// What must end before a process has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// The process itself.
    #[default]
    Process,
    /// The process and all its descendants, daemons among them.
    Tree,
}

/// A pea's own limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessLimits {
    /// Processor time.
    #[serde(rename = "cpu_limits")]
    pub cpu: CpuLimits,
    /// Memory.
    #[serde(rename = "memory_limits")]
    pub memory: MemoryLimits,
}

/// A terminal wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tty {
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_size: Option<TtyWindow>,
}

/// A terminal's size on the wire: zeros are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TtyWindow {
    /// Width in characters.
    #[serde(skip_serializing_if = "is_zero")]
    pub columns: u16,
    /// Height in characters.
    #[serde(skip_serializing_if = "is_zero")]
    pub rows: u16,
}

impl From<TtyWindow> for WindowSize {
    fn from(size: TtyWindow) -> Self {
        Self { columns: size.columns, rows: size.rows }
    }
}

/// Resource limits; each sets soft and hard alike, and 0 is a real value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimits {
    /// RLIMIT_AS
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub address_space: Option<u64>,
    /// RLIMIT_CORE
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<u64>,
    /// RLIMIT_CPU
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// RLIMIT_DATA
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<u64>,
    /// RLIMIT_FSIZE
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsize: Option<u64>,
    /// RLIMIT_LOCKS
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<u64>,
    /// RLIMIT_MEMLOCK
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memlock: Option<u64>,
    /// RLIMIT_MSGQUEUE
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msgqueue: Option<u64>,
    /// RLIMIT_NICE
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<u64>,
    /// RLIMIT_NOFILE
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nofile: Option<u64>,
    /// RLIMIT_NPROC
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nproc: Option<u64>,
    /// RLIMIT_RSS
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// RLIMIT_RTPRIO
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtprio: Option<u64>,
    /// RLIMIT_SIGPENDING
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigpending: Option<u64>,
    /// RLIMIT_STACK
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<u64>,
}

/// One message on a run or attach connection, in either direction. What is not there is not said:
/// `"source":0` without `data` closes standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessPayload {
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_id: Option<String>,
    /// Where its output can be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Client to server: input follows, or ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<i64>,
    /// Input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Server to client: how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i64>,
    /// Server to client: why nobody knows how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Client to server: the terminal's new size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<Tty>,
    /// Client to server: [`SIGNAL_TERMINATE`] or [`SIGNAL_KILL`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::garden::{decode, encode};

    #[test]
    fn a_specification_is_what_the_go_client_sends() {
        let spec = ProcessSpec {
            path: "sh".into(),
            rlimits: ResourceLimits { nofile: Some(0), ..ResourceLimits::default() },
            limits: Some(ProcessLimits::default()),
            tty: Some(Tty::default()),
            ..ProcessSpec::default()
        };
        assert_eq!(
            String::from_utf8(encode(&spec).unwrap()).unwrap(),
            r#"{"path":"sh","rlimits":{"nofile":0},"limits":{"cpu_limits":{},"memory_limits":{}},"tty":{},"image":{}}"#
        );
    }

    #[test]
    fn messages_are_what_the_go_client_sends() {
        let id = Some("p1".to_owned());
        let resize = Tty { window_size: Some(TtyWindow { columns: 80, rows: 24 }) };
        let of = |payload: ProcessPayload| String::from_utf8(encode(&payload).unwrap()).unwrap();
        let empty = ProcessPayload { process_id: id, ..ProcessPayload::default() };
        for (payload, want) in [
            (
                ProcessPayload { source: Some(0), data: Some("text".into()), ..empty.clone() },
                r#"{"process_id":"p1","source":0,"data":"text"}"#,
            ),
            (
                ProcessPayload { source: Some(0), ..empty.clone() },
                r#"{"process_id":"p1","source":0}"#,
            ),
            (
                ProcessPayload { signal: Some(1), ..empty.clone() },
                r#"{"process_id":"p1","signal":1}"#,
            ),
            (
                ProcessPayload { tty: Some(resize), ..empty },
                r#"{"process_id":"p1","tty":{"window_size":{"columns":80,"rows":24}}}"#,
            ),
        ] {
            assert_eq!(of(payload.clone()), want);
            assert_eq!(decode::<ProcessPayload>(want.as_bytes()).unwrap(), payload);
        }
        assert!(decode::<ProcessPayload>(br#"{"tty":{"window_size":{"columns":70000}}}"#).is_err());
    }
}
