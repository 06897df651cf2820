//! A mount namespace for this process and all it starts, so that whatever is mounted meanwhile is
//! gone with it: overlays, loop devices, cgroup hierarchies.
//!
//! The last are why /sys/fs/cgroup is made anew here. On a hybrid host guardiand mounts the version 1
//! hierarchies that are missing, as gdn does, and makes directories for them in a tmpfs that all
//! namespaces share; those would stay.

use std::path::Path;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Enters the namespace. Must be called before any thread is started.
///
/// # Errors
/// When the kernel refuses a mount namespace or a mount.
pub(crate) fn enter() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    // What the host mounts still arrives here; what is mounted here does not reach the host.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).context("close it to the host")?;
    if statfs(CGROUPS).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC) {
        copy_cgroups().with_context(|| format!("make {CGROUPS} anew"))?;
    }
    Ok(())
}

/// Puts another tmpfs in the place of the host's, with the same hierarchies and links in it.
fn copy_cgroups() -> anyhow::Result<()> {
    let stage = tempfile::tempdir()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), stage.path(), Some("tmpfs"), flags, Some("mode=755"))?;
    for entry in std::fs::read_dir(CGROUPS)? {
        let entry = entry?;
        let place = stage.path().join(entry.file_name());
        if entry.file_type()?.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, place)?;
        } else if entry.file_type()?.is_dir() && is_mount(&entry.path(), Path::new(CGROUPS))? {
            std::fs::create_dir(&place)?;
            mount(Some(&entry.path()), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
    }
    mount(Some(stage.path()), CGROUPS, None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    Ok(())
}

fn is_mount(dir: &Path, parent: &Path) -> anyhow::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(dir)?.dev() != std::fs::metadata(parent)?.dev())
}
