//! Handles, the paths of a bundle, and what `depot create` reads.
//!
//! The layout is gdn's (one directory per handle, a process directory below it for each process);
//! what we add to it are the files `journal`, `properties.json` and `init.json`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::garden::{BindMount, Limits};
use crate::ids::IdMaps;
use crate::process::ProcessDir;

/// The name of a container or of a process: 1 to 255 bytes of `[A-Za-z0-9._-]`, not `.` or `..`.
///
/// The only way to make one is to parse it, so a handle is always safe as a path component, a
/// cgroup name, an OCI container id and a URL segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Handle(String);

impl Handle {
    /// Returns the handle as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the host name inside the container: the last 49 bytes of the handle, because
    /// gdn's clients rely on that cut (host names end at 64, sethostname(2)).
    pub fn hostname(&self) -> &str {
        &self.0[self.0.len().saturating_sub(49)..]
    }
}

impl FromStr for Handle {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > 255 || text == "." || text == ".." {
            return Err(Fault::invalid(format!("name '{text}' must have 1 to 255 characters")));
        }
        match text.bytes().all(allowed) {
            true => Ok(Self(text.into())),
            false => Err(Fault::invalid(format!(
                "name '{}' contains characters other than letters, digits, '.', '_' and '-'",
                text.escape_debug()
            ))),
        }
    }
}

impl TryFrom<String> for Handle {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl From<Handle> for String {
    fn from(handle: Handle) -> Self {
        handle.0
    }
}

impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory that holds all bundles.
#[derive(Debug, Clone)]
pub struct Depot(PathBuf);

impl Depot {
    /// Returns the depot at `path`; nothing is touched yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the depot's own directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the paths of one handle.
    pub fn bundle(&self, handle: &Handle) -> Bundle {
        Bundle { handle: handle.clone(), path: self.0.join(handle.as_str()) }
    }

    /// Lists the handles, sorted. Names that are no handles (dot-files, foreign things) are
    /// passed over; a missing depot is empty.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn handles(&self) -> std::io::Result<Vec<Handle>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut handles = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let handle = name.to_str().filter(|name| !name.starts_with('.'));
            if let Some(handle) = handle.and_then(|name| name.parse().ok())
                && entry.file_type()?.is_dir()
            {
                handles.push(handle);
            }
        }
        handles.sort();
        Ok(handles)
    }
}

/// The paths of one container in the depot.
#[derive(Debug, Clone)]
pub struct Bundle {
    handle: Handle,
    path: PathBuf,
}

impl Bundle {
    /// Returns the bundle of `handle` in the directory `path`.
    pub fn at(handle: Handle, path: impl Into<PathBuf>) -> Self {
        Self { handle, path: path.into() }
    }

    /// Returns whose bundle this is.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns the bundle directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The OCI runtime configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Bind-mounted on /etc/hosts.
    pub fn hosts(&self) -> PathBuf {
        self.path.join("hosts")
    }

    /// Bind-mounted on /etc/resolv.conf.
    pub fn resolv_conf(&self) -> PathBuf {
        self.path.join("resolv.conf")
    }

    /// The host pid of init, decimal, written by the runtime.
    pub fn pidfile(&self) -> PathBuf {
        self.path.join("pidfile")
    }

    /// The runtime's JSON log of the container's start.
    pub fn create_log(&self) -> PathBuf {
        self.path.join("create.log")
    }

    /// What is being done to this handle ([`crate::journal`]).
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The container's properties: one JSON object of strings.
    pub fn properties(&self) -> PathBuf {
        self.path.join("properties.json")
    }

    /// A change of its limits that was begun, as long as it is not done.
    pub fn limits_change(&self) -> PathBuf {
        self.path.join("limits-change.json")
    }

    /// Who init is, beyond a bare pid ([`Init`]).
    pub fn init(&self) -> PathBuf {
        self.path.join("init.json")
    }

    /// A privileged container's own copy of the init program.
    pub fn init_program(&self) -> PathBuf {
        self.path.join("garden-init")
    }

    /// The directory of process directories.
    pub fn processes(&self) -> PathBuf {
        self.path.join("processes")
    }

    /// The directory of one process.
    pub fn process(&self, process_id: &Handle) -> ProcessDir {
        ProcessDir::at(self.processes().join(process_id.as_str()))
    }
}

/// Which process is meant, beyond a bare pid that the kernel may give away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// The pid on the host.
    pub pid: i32,
    /// Its start time in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
    /// The boot it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

impl Init {
    /// Returns the identity of a living process; `None` when it is gone.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)?, boot_id: boot_id() })
    }

    /// Tells whether that very process still exists (a zombie does not count).
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// Returns this boot's id; empty where the kernel has none. It does not change while we run.
pub fn boot_id() -> String {
    static ID: OnceLock<String> = OnceLock::new();
    let read = || {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        text.map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    ID.get_or_init(read).clone()
}

/// Returns a process's start time; `None` for a process that is gone or a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and brackets; fields are counted after its last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// What `depot create HANDLE` reads from stdin: the image plugin's answer (`root`, `process`,
/// `mounts`), with the parts of a Garden container specification that shape the bundle beside it.
/// `rootfs create … | depot create …` is therefore a whole sentence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BundleSpec {
    /// Where the container's root filesystem is.
    pub root: Root,
    /// The image's part of the environment.
    pub process: ImageProcess,
    /// The image plugin's mounts (OCI `mounts[]`); they come before ours.
    pub mounts: Vec<Value>,
    /// The image plugin's `windows` member, copied whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Value>,
    /// The container's environment, `K=V`; it comes after the image's.
    pub env: Vec<String>,
    /// Bind mounts the client asked for.
    pub bind_mounts: Vec<BindMount>,
    /// Limits the client asked for.
    pub limits: Limits,
    /// Whether the container is privileged: no user namespace, more capabilities.
    pub privileged: bool,
    /// Whether processes can't gain privileges by exec, even where the operator did not say so.
    pub no_new_privileges: bool,
    /// Id maps of an unprivileged container; both empty means gdn's (maximus).
    pub ids: IdMaps,
    /// For a pea: the container whose namespaces it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Annotation of a bundle: the weight of its traffic with block devices, 10 to 1000. No runtime knows
/// all the files that kernels have for it (crun stops at a version 1 host with BFQ), so it is set by
/// whoever started the container.
pub const BLOCK_IO_WEIGHT: &str = "guardian.block-io-weight";

/// Annotation of a bundle: its disk limits as they were asked for, the JSON of
/// [`crate::garden::DiskLimits`]. The image plugin holds them; no runtime knows of them.
pub const DISK_LIMITS: &str = "guardian.disk-limits";

/// Where throttled processor time is on, the group of containers that use no more of it than they
/// were promised, below the installation's own.
pub const GOOD: &str = "good";

/// The group of those that use more.
pub const BAD: &str = "bad";

/// The container that a pea lives in: all namespaces but the mount namespace are shared, and so
/// are /etc/hosts and /etc/resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Host pid of its init.
    pub pid: i32,
    /// Its name.
    pub handle: String,
    /// Its bundle directory.
    pub bundle: PathBuf,
    /// Whether its limits are the pea's too: the pea's cgroup is then below its own.
    pub shares_limits: bool,
}

/// `root` of an OCI runtime configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The directory.
    #[serde(default)]
    pub path: PathBuf,
}

/// `process` of an OCI runtime configuration, as far as an image says anything of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageProcess {
    /// The image's environment, `K=V`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_safe_names() {
        for good in
            ["x", "web-1", "a.b_c", "7132-ec774112a9cd-101f8293-230e-4fa8-4138-e8244e6dcfa1"]
        {
            assert!(good.parse::<Handle>().is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", "$(x)", long.as_str()] {
            assert!(bad.parse::<Handle>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_name_is_the_tail_of_a_long_handle() {
        let handle: Handle =
            "7132-ec774112a9cd-101f8293-230e-4fa8-4138-e8244e6dcfa1".parse().unwrap();
        assert_eq!(handle.hostname(), "ec774112a9cd-101f8293-230e-4fa8-4138-e8244e6dcfa1");
    }

    #[test]
    fn we_are_alive_and_a_recycled_pid_is_not_us() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = Init::of(pid).unwrap();
        assert!(me.is_alive());
        assert!(!Init { start_time: me.start_time + 1, ..me }.is_alive());
    }

    #[test]
    fn a_rootfs_answer_is_a_bundle_specification() {
        let answer = r#"{"ociVersion":"","root":{"path":"/r"},"process":{"user":{"uid":0},"env":["A=1"],"cwd":""}}"#;
        let spec: BundleSpec = serde_json::from_str(answer).unwrap();
        assert_eq!(spec.root.path, Path::new("/r"));
        assert_eq!(spec.process.env, ["A=1"]);
    }
}
