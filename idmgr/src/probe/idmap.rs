//! Whether a mount of a directory can be id-mapped: a detached clone of it is, and is dropped.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::sys::statfs::{self, FsType, statfs};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::Serialize;

use super::Outcome;
use crate::sys::set_id_map;

/// What is found of one directory.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The filesystem's name.
    pub(super) fs: String,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// Probes one directory. `userns` is the namespace to map by, or why there is none.
pub(super) fn probe(path: &Path, userns: Result<&File, &String>) -> Report {
    let outcome = match userns {
        Ok(userns) => clone_mapped(path, userns).map(drop).into(),
        Err(error) => Outcome { ok: false, error: Some(error.clone()) },
    };
    Report { fs: filesystem(path), outcome }
}

/// Returns a detached mount of `path` alone (not of mounts beneath it), seen through the map of
/// `userns`.
pub(crate) fn clone_mapped(path: &Path, userns: &impl AsFd) -> anyhow::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let name = path.display();
    let mount =
        open_tree(CWD, path, flags).with_context(|| format!("clone the mount of {name}"))?;
    set_id_map(mount.as_fd(), userns.as_fd()).with_context(|| format!("id-map {name}"))?;
    Ok(mount)
}

fn filesystem(path: &Path) -> String {
    const BTRFS: FsType = statfs::BTRFS_SUPER_MAGIC;
    const XFS: FsType = statfs::XFS_SUPER_MAGIC;
    match statfs(path).map(|fs| fs.filesystem_type()) {
        Ok(statfs::EXT4_SUPER_MAGIC) => "ext4".into(),
        Ok(XFS) => "xfs".into(),
        Ok(BTRFS) => "btrfs".into(),
        Ok(statfs::TMPFS_MAGIC) => "tmpfs".into(),
        Ok(statfs::OVERLAYFS_SUPER_MAGIC) => "overlay".into(),
        Ok(statfs::NFS_SUPER_MAGIC) => "nfs".into(),
        Ok(statfs::FUSE_SUPER_MAGIC) => "fuse".into(),
        Ok(statfs::PROC_SUPER_MAGIC) => "proc".into(),
        Ok(other) => format!("{:#x}", other.0),
        Err(errno) => errno.to_string(),
    }
}
