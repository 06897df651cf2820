//! Removing a tree that a container may have made hard to remove: deeper than there are
//! descriptors, or immutable.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use rustix::fs::{AtFlags, Dir, IFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories deeper than this are moved up to the top instead of being descended into.
const DEEPEST: u32 = 100;

/// Removes a tree below an open directory; a name that is not there is no error.
///
/// # Errors
/// The kernel's, with the name.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<()> {
    let top = match open(parent, name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return unlink(parent, name, AtFlags::empty()),
        Err(error) => return Err(error).with_context(|| format!("open {}", told(name))),
    };
    let mut moved = 0;
    // Each round empties the top of all but what was moved up to it.
    while empty(&top, &top, 0, &mut moved)? {}
    unlink(parent, name, AtFlags::REMOVEDIR)
}

/// Empties a directory; tells whether something was moved up.
fn empty(top: &OwnedFd, directory: &OwnedFd, depth: u32, moved: &mut u64) -> anyhow::Result<bool> {
    let mut has_moved = false;
    for entry in Dir::read_from(directory).context("read directory")? {
        let entry = entry.context("read directory")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        // The type in a directory entry is unknown on some filesystems; opening tells.
        match open(directory.as_fd(), name) {
            Ok(child) if depth < DEEPEST => {
                has_moved |= empty(top, &child, depth + 1, moved)?;
                unlink(directory.as_fd(), name, AtFlags::REMOVEDIR)?;
            }
            Ok(_) => {
                move_up(top, directory, name, moved)?;
                has_moved = true;
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                unlink(directory.as_fd(), name, AtFlags::empty())?;
            }
            Err(error) => return Err(error).with_context(|| format!("open {}", told(name))),
        }
    }
    Ok(has_moved)
}

fn move_up(top: &OwnedFd, directory: &OwnedFd, name: &CStr, moved: &mut u64) -> anyhow::Result<()> {
    loop {
        *moved += 1;
        let new = format!(".idmgr-moved-{moved}");
        match rustix::fs::renameat_with(directory, name, top, &new, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            answer => return answer.with_context(|| format!("move {} up", told(name))),
        }
    }
}

fn unlink(directory: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> anyhow::Result<()> {
    match rustix::fs::unlinkat(directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::PERM) => thaw(directory, name),
        Err(error) => return Err(error).with_context(|| format!("remove {}", told(name))),
    }
    rustix::fs::unlinkat(directory, name, flags).with_context(|| format!("remove {}", told(name)))
}

/// Takes the immutable mark (chattr(1)) from a file and from the directory it is in. Where that
/// fails, so does what is tried next.
fn thaw(directory: BorrowedFd<'_>, name: &CStr) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let is_plain = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| matches!(stat.st_mode & 0o170_000, 0o040_000 | 0o100_000));
    let file = is_plain.then(|| rustix::fs::openat(directory, name, flags, Mode::empty()).ok());
    for file in [open(directory, c".").ok(), file.flatten()].into_iter().flatten() {
        if let Ok(marks) = rustix::fs::ioctl_getflags(&file) {
            let _ = rustix::fs::ioctl_setflags(&file, marks - IFlags::IMMUTABLE - IFlags::APPEND);
        }
    }
}

/// Opens a directory, but none that something is mounted on: that is not ours to empty.
fn open(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
}

fn told(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}
