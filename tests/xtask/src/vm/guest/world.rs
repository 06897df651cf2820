//! Mounts, modules and directories of the virtual machine.

use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_tests::host;
use nix::mount::{MsFlags, mount};

/// Where the disk is mounted: an XFS file system with project quotas.
pub(crate) const DISK: &str = "/run/vm";

/// What nothing asks the kernel for by itself.
const MODULES: [&str; 6] = ["virtio_blk", "xfs", "overlay", "loop", "fuse", "br_netfilter"];

/// Prepares everything and returns the directory with our executables, copied to the disk: what is
/// executed from the host's tree is read anew each time.
///
/// # Errors
/// With the step that fails.
pub(crate) fn prepare(bin_dir: &Path) -> anyhow::Result<PathBuf> {
    for module in MODULES {
        // One that is built in is no module; what is really missing shows below.
        let _ = host::run(&["modprobe", module]);
    }
    std::fs::create_dir_all(DISK)?;
    mount(Some("/dev/vda"), DISK, Some("xfs"), MsFlags::empty(), Some("prjquota"))
        .context("mount the disk, /dev/vda")?;
    for (name, mode) in [("tmp", 0o1777), ("cache", 0o755), ("bin", 0o755), ("tests", 0o755)] {
        let directory = Path::new(DISK).join(name);
        std::fs::create_dir(&directory)?;
        std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    host::run(&["ip", "link", "set", "lo", "up"])?;
    let copies = Path::new(DISK).join("bin");
    for entry in std::fs::read_dir(bin_dir)? {
        let entry = entry?;
        if entry.path().is_file() && entry.path().extension().is_none() {
            std::fs::copy(entry.path(), copies.join(entry.file_name()))?;
        }
    }
    Ok(copies)
}
