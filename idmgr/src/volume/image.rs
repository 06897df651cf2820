//! Places in a root filesystem, which whoever made the image filled with links: all is resolved as
//! if that directory were the root (openat2(2)).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use anyhow::{Context, ensure};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::{copy, removal, walk};

/// The name under which a copy is made, before it takes its place.
const NEW: &std::ffi::CStr = c".idmgr-new";

/// Finds a directory; `None` where there is none.
pub(super) fn find(rootfs: &Path, place: &Path) -> anyhow::Result<Option<OwnedFd>> {
    let root = walk::open_top(rootfs)?;
    match open(&root, place) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open {} of the image", place.display())),
    }
}

/// Makes a directory anew, in the place of what is there: `fill` fills it under another name first.
pub(super) fn replace<T>(
    rootfs: &Path,
    place: &Path,
    fill: impl FnOnce(&OwnedFd) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let root = walk::open_top(rootfs)?;
    let name = copy::c_name(place.file_name().context("the root can't be replaced")?)?;
    let parent = open_or_make(&root, place.parent().unwrap_or(place))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(present) = rustix::fs::openat(&parent, &name, flags, Mode::empty()) {
        let stat = rustix::fs::fstat(&present).context("look at the target")?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        ensure!(kind == FileType::Directory, "{} of the image is no directory", place.display());
    }
    removal::remove(parent.as_fd(), NEW)?;
    let new = copy::make_directory(parent.as_fd(), NEW)?;
    let filled = fill(&new)?;
    // Not an exchange: an overlay can't move a directory that its lower layers have.
    removal::remove(parent.as_fd(), &name)?;
    rustix::fs::renameat(&parent, NEW, &parent, &name).context("name the copy")?;
    Ok(filled)
}

fn open(root: &OwnedFd, place: &Path) -> rustix::io::Result<OwnedFd> {
    let place = place.strip_prefix("/").unwrap_or(place);
    let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, place, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

fn open_or_make(root: &OwnedFd, place: &Path) -> anyhow::Result<OwnedFd> {
    let mut whole = std::path::PathBuf::from("/");
    let mut current = open(root, &whole).context("open the root filesystem")?;
    for part in place.components() {
        let Component::Normal(part) = part else { continue };
        whole.push(part);
        current = match open(root, &whole) {
            Err(Errno::NOENT) => {
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::mkdirat(&current, part, mode)
                    .with_context(|| format!("make {}", whole.display()))?;
                open(root, &whole)
            }
            opened => opened,
        }
        .with_context(|| format!("open {} of the image", whole.display()))?;
    }
    Ok(current)
}
