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
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::filler::{self, Content, Filler, MAX_FILES};
use super::{BLOCK, Overhead, Room, grow};
use crate::image::{Image, Info};
use crate::layer;
use crate::store::Store;
use crate::usage::Usage;

/// Blocks that one group's bitmap can tell of.
pub(super) const GROUP: u64 = 8 * BLOCK;
/// The smallest journal that ext4 takes. Not for the sake of crashes: without a journal ext4 gives no inode
/// away again for five seconds, and looks at each of those for every new file, so that removing and
/// making some thousand files takes ten times as long.
const JOURNAL: u64 = 1024 * BLOCK;
/// What ext4 keeps for itself at the most.
const MOST_KEPT: u64 = 4096 * BLOCK;
/// Blocks for directories of ours and of ext4; those too many are taken by the filler.
const SPARE: u64 = 32;
/// statfs(2)'s number for overlays.
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;
pub(super) const INODE: u64 = 256;
/// One inode for so many bytes, as mke2fs.conf(5) has it.
const BYTES_PER_INODE: u64 = 16384;
/// Inodes that ext4 keeps, and those of our own directories; too many are taken away by the filler.
const OWN_INODES: u64 = 24;
/// Bytes of a directory for the name of one such file.
const FILLER: u64 = 16;
/// grootfs raises smaller limits to this; a filesystem needs some room to be one.
const MINIMUM: u64 = 256 * 1024;
/// How much larger than its limit a filesystem is made that could not grow later. What is too much
/// is taken by the filler, so df(1) in the container tells of it as used: not where it can grow.
const HEADROOM: u64 = 8;
/// The least it may grow to.
const GROWN: u64 = 1 << 30;
/// Most inodes beyond a limit, as each takes a file to take it away.
const MORE_INODES: u64 = 4096;

/// Makes the filesystem and mounts it where the container's writes go.
///
/// # Errors
/// When a tool is missing or fails, with what it said.
pub(super) fn create(store: &Store, image: &Image, room: Room) -> anyhow::Result<()> {
    let disk = image.disk();
    let can_grow = grow::is_allowed()?;
    let whole = whole(store)?;
    // The store's filesystem is full before a larger limit is reached.
    let bytes = match room.bytes.min(whole) {
        0 => whole,
        bytes if can_grow => bytes.max(MINIMUM),
        bytes => bytes.saturating_mul(HEADROOM).max(GROWN).min(whole).max(bytes),
    };
    let inodes = match room.inodes {
        inodes if can_grow => inodes,
        inodes => inodes.saturating_mul(HEADROOM).min(inodes.saturating_add(MORE_INODES)),
    };
    let (size, inodes) = geometry(bytes, inodes);
    let file = File::create(&disk).context("make disk file")?;
    file.set_len(size).with_context(|| {
        let limit = room.bytes;
        format!("make a file of {size} bytes in the store, which holds a disk limit of {limit}")
    })?;
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

/// Returns the size of the store's filesystem, which holds where only inodes are limited: the file is
/// sparse.
fn whole(store: &Store) -> anyhow::Result<u64> {
    let whole = rustix::fs::statvfs(store.root()).context("look at the store")?;
    Ok(whole.f_blocks * whole.f_frsize)
}

/// Takes away what the filesystem has beyond the limit, and returns what is in use before the container
/// has written anything.
///
/// # Errors
/// When the filesystem can't be written.
pub(super) fn seal(image: &Image, room: Room) -> anyhow::Result<Overhead> {
    let filesystem = layer::open_directory(&image.writes())?;
    let stat = filler::stat(&filesystem)?;
    let mut overhead = Overhead {
        empty_bytes: stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize,
        empty_inodes: stat.f_files.saturating_sub(stat.f_ffree),
        taken_bytes: 0,
    };
    overhead.taken_bytes = Filler::open(&filesystem)?.hold(overhead, raised(room))?;
    Ok(overhead)
}

/// Changes the limit of a filesystem that is in use, which grows if it must.
///
/// # Errors
/// When more is used, or it can't grow.
pub(super) fn change(
    store: &Store,
    image: &Image,
    info: &Info,
    room: Room,
) -> anyhow::Result<Overhead> {
    let overhead = info.overhead;
    let filesystem = reopen(image, MountAttrFlags::empty())?;
    let filler = Filler::open(&filesystem)?;
    let (room, whole) = (raised(room), whole(store)?);
    let wanted = Usage {
        bytes: match room.bytes {
            0 if info.limit_bytes > 0 => whole,
            bytes => bytes.min(whole),
        },
        inodes: match room.inodes {
            0 if info.limit_inodes > 0 => usual_inodes(size(&filesystem)?),
            // ext4 has no more of them than blocks.
            inodes => inodes.min(whole / BLOCK),
        },
    };
    let missing = || {
        let has = filler.capacity(overhead)?;
        anyhow::Ok(Usage {
            bytes: wanted.bytes.saturating_sub(has.bytes),
            inodes: wanted.inodes.saturating_sub(has.inodes),
        })
    };
    let more = missing()?;
    if more != Usage::default() {
        let device = device_of(&image.disk())?.context("the image is not mounted")?;
        grow::grow(&image.disk(), &device, &filesystem, more)?;
        let Usage { bytes, inodes } = missing()?;
        if bytes + inodes > 0 {
            bail!("the container's filesystem has grown, but lacks {bytes} bytes, {inodes} inodes");
        }
    }
    if room.bytes > 0 && (info.limit_bytes == 0 || room.bytes < info.limit_bytes) {
        filler.give_up_free();
    }
    Ok(Overhead { taken_bytes: filler.hold(overhead, room)?, ..overhead })
}

fn size(filesystem: &OwnedFd) -> anyhow::Result<u64> {
    let stat = filler::stat(filesystem)?;
    Ok(stat.f_blocks * stat.f_frsize)
}

fn raised(room: Room) -> Room {
    let bytes = if room.bytes == 0 { 0 } else { room.bytes.max(MINIMUM) };
    Room { bytes, ..room }
}

/// Returns a mount of its own of an image's filesystem, which is in use: the same filesystem by the
/// same device, because a second device would see another state of the file.
///
/// # Errors
/// When nothing uses it, or the kernel refuses.
pub(super) fn reopen(image: &Image, attributes: MountAttrFlags) -> anyhow::Result<OwnedFd> {
    let disk = image.disk();
    let device = device_of(&disk)?.with_context(|| format!("{} is not mounted", disk.display()))?;
    let filesystem = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&filesystem, "source", &device)?;
    rustix::mount::fsconfig_create(&filesystem).with_context(|| format!("mount {device}"))?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(&filesystem, flags, attributes)
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

/// Returns what a container uses of its filesystem, looked at from within.
///
/// # Errors
/// When nothing uses the filesystem, or it can't be looked at.
pub(super) fn content(image: &Image, overhead: Overhead) -> anyhow::Result<Usage> {
    let filesystem = reopen(image, MountAttrFlags::empty())?;
    let Content { used, .. } = Filler::open(&filesystem)?.content(overhead)?;
    Ok(used)
}

/// Returns how many bytes a container has written: overlay answers statfs(2) for its upper directory.
///
/// # Errors
/// When it can't be looked at, or is not mounted here: after a restart of the host, or of a daemon
/// that has a mount namespace of its own. The host's filesystem would answer then.
pub(super) fn used(image: &Image, info: &Info) -> anyhow::Result<u64> {
    let merged = image.merged();
    let kind = rustix::fs::statfs(&merged).context("look at the image's filesystem")?.f_type;
    if kind != OVERLAY {
        bail!("{} is not mounted here", merged.display());
    }
    let overhead = info.overhead;
    if info.is_changing {
        // What is taken is not known from outside.
        return Ok(content(image, overhead)?.bytes);
    }
    let filesystem = rustix::fs::statvfs(&merged).context("look at the image's filesystem")?;
    let used = filesystem.f_blocks.saturating_sub(filesystem.f_bfree) * filesystem.f_frsize;
    Ok(used.saturating_sub(overhead.empty_bytes + overhead.taken_bytes))
}

/// Returns size and number of inodes of a filesystem that has `room` bytes left for content, and at
/// least `inodes` inodes; 0 is as many as usual.
fn geometry(room: u64, inodes: u64) -> (u64, u64) {
    // Tables round up to whole blocks in each group, so inodes are counted per group.
    let groups = room.div_ceil(GROUP * BLOCK).max(1);
    let wanted = match inodes {
        0 => usual_inodes(room) / groups,
        // A group can't have more, as each has one block of bits for them.
        inodes => inodes.saturating_add(OWN_INODES).div_ceil(groups).min(GROUP),
    };
    let per_group = wanted.next_multiple_of(16);
    let table = (per_group * INODE).div_ceil(BLOCK);
    // Superblock, descriptors and two bitmaps for each group; the root and lost+found.
    let fillers = if inodes == 0 { 0 } else { (groups * 16).min(MAX_FILES) * FILLER };
    let overhead = groups * (table + 2 + 1 + descriptors(groups)) + SPARE + fillers.div_ceil(BLOCK);
    let sum = room.next_multiple_of(BLOCK) + overhead * BLOCK + journal(room);
    // ext4 keeps a fiftieth of all blocks for itself (ext4_set_resv_clusters()).
    let kept = (sum / 49).min(MOST_KEPT).next_multiple_of(BLOCK);
    (sum + kept, groups * per_group)
}

/// Returns how many inodes a filesystem of this size has that nothing is said of.
fn usual_inodes(bytes: u64) -> u64 {
    (bytes / BYTES_PER_INODE).max(512 * bytes.div_ceil(GROUP * BLOCK).max(1))
}

/// Returns how many blocks the descriptors of so many groups take.
pub(super) fn descriptors(groups: u64) -> u64 {
    (groups * 64).div_ceil(BLOCK)
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
