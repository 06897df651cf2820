//! A limit on what a container writes: its own filesystem in a sparse file.
//!
//! The loop device frees itself with the last mount (`LO_FLAGS_AUTOCLEAR`, set by mount(8)), and
//! the last mount is the overlay's, which is invisible; so nothing is left that could leak.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use guardian_contract::file::private_dir;
use rustix::fs::{FileType, Mode};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::Room;
use crate::image::Image;
use crate::layer;
use crate::store::Store;

const BLOCK: u64 = 4096;
/// Blocks that one group's bitmap can tell of.
const GROUP: u64 = 8 * BLOCK;
/// The smallest journal that ext4 takes. Not for the sake of crashes: without a journal ext4 gives no inode
/// away again for five seconds, and looks at each of those for every new file, so that removing and
/// making some thousand files takes ten times as long.
const JOURNAL: u64 = 1024 * BLOCK;
/// statfs(2)'s number for overlays.
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;
const INODE: u64 = 256;
/// One inode for so many bytes, as mke2fs.conf(5) has it.
const BYTES_PER_INODE: u64 = 16384;
/// Inodes that ext4 keeps, and those of our own directories; too many are taken away by [`seal`].
const OWN_INODES: u64 = 24;
/// Most files that are made to take inodes away: as many as a filesystem of 512 GiB has at the least,
/// because tables of inodes are whole blocks. In a larger one a limit may be a bit higher than asked for.
const MAX_FILLERS: u64 = 65536;
/// Bytes of a directory for the name of one such file.
const FILLER: u64 = 16;
/// grootfs raises smaller limits to this; a filesystem needs some room to be one.
const MINIMUM: u64 = 256 * 1024;

/// Makes the filesystem and mounts it where the container's writes go.
///
/// # Errors
/// When a tool is missing or fails, with what it said.
pub(super) fn create(store: &Store, image: &Image, room: Room) -> anyhow::Result<()> {
    let disk = image.disk();
    let bytes = match room.bytes {
        // Only inodes are limited; the file is sparse.
        0 => {
            let whole = rustix::fs::statvfs(store.root()).context("look at the store")?;
            whole.f_blocks * whole.f_frsize
        }
        bytes => bytes.max(MINIMUM),
    };
    let (size, inodes) = geometry(bytes, room.inodes);
    let file = File::create(&disk).context("make disk file")?;
    file.set_len(size).context("set size of disk file")?;
    let mount_point = image.writes();
    private_dir(&mount_point)?;
    let mut mkfs = Command::new("mkfs.ext4");
    // No reserve: root in the container is no host's root.
    mkfs.args(["-q", "-F", "-m", "0", "-b", "4096", "-I", "256", "-N", &inodes.to_string()]);
    let options = match journal(bytes) {
        0 => {
            mkfs.args(["-O", "^resize_inode,^has_journal"]);
            "loop,noatime"
        }
        bytes => {
            mkfs.args(["-O", "^resize_inode", "-J", &format!("size={}", bytes >> 20)]);
            // A crash ends the container, so the journal need not be in order on the disk.
            "loop,noatime,barrier=0,data=writeback"
        }
    };
    mkfs.args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]);
    run(mkfs.arg(&disk))?;
    let mut mount = Command::new("mount");
    mount.args(["-n", "-t", "ext4", "-o", options]).arg(&disk).arg(&mount_point);
    run(&mut mount)
}

/// Takes away the inodes that the filesystem has beyond the limit, and returns how many bytes are in
/// use before the container has written any.
///
/// # Errors
/// When the filesystem can't be written.
pub(super) fn seal(image: &Image, room: Room) -> anyhow::Result<u64> {
    let filesystem = layer::open_directory(&image.writes())?;
    let stat = || rustix::fs::fstatvfs(&filesystem).context("look at the image's filesystem");
    if room.inodes > 0 {
        rustix::fs::mkdirat(&filesystem, "taken", Mode::RWXU).context("take inodes away")?;
        let taken = layer::open_directory(&image.writes().join("taken"))?;
        let too_many = stat()?.f_ffree.saturating_sub(room.inodes).min(MAX_FILLERS);
        for number in 0..too_many {
            let name = number.to_string();
            rustix::fs::mknodat(&taken, name, FileType::RegularFile, Mode::empty(), 0)
                .context("take inodes away")?;
        }
    }
    let stat = stat()?;
    Ok(stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize)
}

/// Returns a mount of its own of an image's filesystem, which is in use: the same filesystem by the
/// same device, because a second device would see another state of the file.
///
/// # Errors
/// When nothing uses it, or the kernel refuses.
pub(super) fn reopen(image: &Image) -> anyhow::Result<OwnedFd> {
    let disk = image.disk();
    let device = device_of(&disk)?.with_context(|| format!("{} is not mounted", disk.display()))?;
    let filesystem = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&filesystem, "source", &device)?;
    rustix::mount::fsconfig_create(&filesystem).with_context(|| format!("mount {device}"))?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(&filesystem, flags, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .with_context(|| format!("mount {device}"))
}

/// Finds the loop device behind which a file is.
fn device_of(disk: &Path) -> anyhow::Result<Option<String>> {
    for entry in std::fs::read_dir("/sys/block").context("look for loop devices")? {
        let name = entry.context("look for loop devices")?.file_name();
        let file = Path::new("/sys/block").join(&name).join("loop/backing_file");
        // Not a loop device, or one that has no file just now.
        let Ok(file) = std::fs::read_to_string(file) else { continue };
        if Path::new(file.trim_end_matches('\n')) == disk {
            return Ok(Some(format!("/dev/{}", name.to_string_lossy())));
        }
    }
    Ok(None)
}

/// Returns how many bytes the content of a limited filesystem takes beyond those of an empty one:
/// overlay answers statfs(2) for its upper directory.
///
/// # Errors
/// When it can't be looked at, or is not mounted here: after a restart of the host, or of a daemon
/// that has a mount namespace of its own. The host's filesystem would answer then.
pub(super) fn used(merged: &Path, empty: u64) -> anyhow::Result<u64> {
    let kind = rustix::fs::statfs(merged).context("look at the image's filesystem")?.f_type;
    if kind != OVERLAY {
        bail!("{} is not mounted here", merged.display());
    }
    let filesystem = rustix::fs::statvfs(merged).context("look at the image's filesystem")?;
    let used = filesystem.f_blocks.saturating_sub(filesystem.f_bfree) * filesystem.f_frsize;
    Ok(used.saturating_sub(empty))
}

/// Returns size and number of inodes of a filesystem that has `room` bytes left for content, and at
/// least `inodes` inodes; 0 is as many as usual.
fn geometry(room: u64, inodes: u64) -> (u64, u64) {
    // Tables round up to whole blocks in each group, so inodes are counted per group.
    let groups = room.div_ceil(GROUP * BLOCK).max(1);
    let wanted = match inodes {
        0 => (room / BYTES_PER_INODE / groups).max(512),
        // A group can't have more, as each has one block of bits for them.
        inodes => (inodes + OWN_INODES).div_ceil(groups).min(GROUP),
    };
    let per_group = wanted.next_multiple_of(16);
    let table = (per_group * INODE).div_ceil(BLOCK);
    // Superblock, descriptors and two bitmaps for each group; the root and lost+found.
    let descriptors = (groups * 64).div_ceil(BLOCK);
    let fillers = if inodes == 0 { 0 } else { (groups * 16).min(MAX_FILLERS) * FILLER };
    let overhead = groups * (table + 2 + 1 + descriptors) + 8 + fillers.div_ceil(BLOCK);
    // ext4 keeps a fiftieth of all blocks for itself, also of those.
    let journal = (journal(room) * 51 / 50).next_multiple_of(BLOCK);
    (room.next_multiple_of(BLOCK) + overhead * BLOCK + journal, groups * per_group)
}

/// Returns the size of the journal: mke2fs makes none that takes half of what is free, and a
/// small filesystem has few inodes to look at.
fn journal(room: u64) -> u64 {
    if room >= 4 * JOURNAL { JOURNAL } else { 0 }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("disk limits need {name}, which can't be started"))?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
