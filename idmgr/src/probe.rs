//! `idmgr probe`: what this host can do, found out by doing it.
//!
//! Kernel versions lie (backports, seccomp filters, odd filesystems), so nothing is concluded from
//! them. Each probe that fails says so in the answer, and none stops the others.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::Overrides;
use crate::store::Store;
use crate::{maximus, sys, userns};

mod idmap;
mod overlay;

pub(crate) use idmap::clone_mapped;

/// The answer.
#[derive(Debug, Serialize)]
struct Report {
    /// For people; nothing is concluded from it.
    kernel: String,
    /// Which calls exist.
    syscalls: BTreeMap<&'static str, bool>,
    /// Whether user namespaces can be made and mapped.
    userns: Outcome,
    /// Whether mounts of these directories can be id-mapped.
    idmap: BTreeMap<PathBuf, idmap::Report>,
    /// Whether overlays work on the filesystem of the first directory.
    overlay: overlay::Report,
    /// `v1`, `hybrid` or `v2`.
    cgroup: &'static str,
    /// What a person should know.
    warnings: Vec<String>,
}

/// How one probe ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Whether it works.
    pub(crate) ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl From<anyhow::Result<()>> for Outcome {
    fn from(result: anyhow::Result<()>) -> Self {
        Self { ok: result.is_ok(), error: result.err().map(|error| format!("{error:#}")) }
    }
}

/// Probes everything.
pub(crate) fn probe(store: &Store, directories: &[PathBuf]) -> anyhow::Result<Value> {
    let mut directories = directories.to_vec();
    if directories.is_empty() {
        // A state directory that can't be made shows as a failed probe of it.
        let _ = guardian_contract::file::private_dir(&store.state_dir);
        directories.push(store.state_dir.clone());
    }
    // gdn's map is the one that most containers get.
    let maps = maximus::maps(&Overrides::gdn())?;
    let userns = userns::with_maps(&maps);
    let shown = userns.as_ref().map_err(|error| format!("{error:#}"));
    let idmap: BTreeMap<_, _> = directories
        .iter()
        .map(|path| (path.clone(), idmap::probe(path, shown.as_ref().copied())))
        .collect();
    let overlay = overlay::probe(&directories[0], userns.as_ref().ok(), &maps);
    let report = Report {
        kernel: nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
        syscalls: sys::CALLS.iter().map(|call| (call.name, sys::exists(*call))).collect(),
        userns: userns.map(drop).into(),
        warnings: warnings(&idmap, &overlay),
        idmap,
        overlay,
        cgroup: cgroup(),
    };
    serde_json::to_value(&report).context("encode the report")
}

fn warnings(idmap: &BTreeMap<PathBuf, idmap::Report>, overlay: &overlay::Report) -> Vec<String> {
    let unmapped = idmap.iter().filter(|(_, report)| !report.outcome.ok).map(|(path, report)| {
        format!("{} ({}) can't be id-mapped: files there need a chown", path.display(), report.fs)
    });
    let no_overlay = (!overlay.plain.ok).then(|| "no overlay: images can't be shared".to_owned());
    unmapped.chain(no_overlay).collect()
}

fn cgroup() -> &'static str {
    let is_v2 =
        |path: &str| statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    match (is_v2("/sys/fs/cgroup"), is_v2("/sys/fs/cgroup/unified")) {
        (true, _) => "v2",
        (false, true) => "hybrid",
        (false, false) => "v1",
    }
}
