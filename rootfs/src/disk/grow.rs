//! Making a filesystem in a file larger while it is in use: first the file, then the device, then what
//! is on it. Each step changes nothing for who sees only the next one, so it can be cut off anywhere.
//!
//! Not by resize2fs(8): no mount is to be seen, so it would take the filesystem for one that is not
//! in use, and write to it from beside.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use guardian_contract::fault::Fault;
use rustix::fs::{Mode, OFlags};
use rustix::thread::CapabilitySet;

use super::BLOCK;
use super::filler::stat;
use super::loop_device::{GROUP, INODE, descriptors};
use crate::sys;
use crate::usage::Usage;

/// Tells whether the kernel will let us (ext4_resize_begin()).
///
/// # Errors
/// When it does not say.
pub(super) fn is_allowed() -> anyhow::Result<bool> {
    let own = rustix::thread::capabilities(None).context("look at our capabilities")?;
    Ok(own.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Adds so much, or more, to a filesystem.
///
/// # Errors
/// `Unsupported` when we may not; otherwise the kernel's.
pub(super) fn grow(
    disk: &Path,
    device: &str,
    filesystem: &OwnedFd,
    more: Usage,
) -> anyhow::Result<()> {
    if !is_allowed()? {
        return Err(Fault::unsupported(format!(
            "a filesystem in a file grows in use only by CAP_SYS_RESOURCE, which rootfs does not \
             have here; {} bytes and {} inodes are missing",
            more.bytes, more.inodes
        ))
        .into());
    }
    let file = OpenOptions::new().write(true).open(disk).context("open disk file")?;
    let size = file.metadata().context("look at disk file")?.len();
    let new = larger(size, stat(filesystem)?.f_files, more);
    file.set_len(new).with_context(|| format!("make {} a file of {new} bytes", disk.display()))?;
    let device = File::options().read(true).write(true).open(device).context("open loop device")?;
    sys::loop_has_grown(&device).context("set size of loop device")?;
    // The root of a mount that is nowhere takes no ioctl (O_PATH).
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(filesystem, ".", flags, Mode::empty()).context("open root")?;
    sys::resize_ext4(&root, new / BLOCK).context("make the image's filesystem larger")
}

/// Returns a size with room for so much more, beside the tables of each group that comes with it.
fn larger(size: u64, inodes: u64, more: Usage) -> u64 {
    let groups = size.div_ceil(GROUP * BLOCK).max(1);
    let per_group = (inodes / groups).max(16);
    let for_inodes = more.inodes.div_ceil(per_group) * GROUP * BLOCK;
    let content = more.bytes.next_multiple_of(BLOCK).max(for_inodes);
    // The last group of before may be filled up, and the last one of now is not used if it is small.
    let added = content.div_ceil(GROUP * BLOCK) + 2;
    let table = (per_group * INODE).div_ceil(BLOCK);
    size + content + added * (table + 3 + descriptors(groups + added)) * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_has_room_for_its_tables_too() {
        let (gib, mib) = (1 << 30, 1 << 20);
        for (size, more) in [(10 * mib, gib), (gib, mib), (20 * gib, 100 * gib)] {
            let inodes = size / 16384;
            let new = larger(size, inodes, Usage { bytes: more, inodes: 0 });
            let (over, group) = (new - size - more, GROUP * BLOCK);
            let tables = more / group * (inodes / size.div_ceil(group)) * INODE;
            assert!(over > tables && over < tables + 96 * mib, "{over}, {tables}");
            assert_eq!(new % BLOCK, 0);
        }
        // 8 groups of 16 inodes each.
        let new = larger(gib, 128, Usage { bytes: 0, inodes: 33 });
        assert!(new > gib + 3 * GROUP * BLOCK);
    }
}
