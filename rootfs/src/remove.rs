//! Removes a tree that its owner may have made hard to remove: too deep for a path or for a
//! descriptor per level, immutable, append-only.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, Dir, IFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Below this depth, directories are moved up to the top instead of being descended into.
const MAX_DEPTH: u32 = 100;

/// Removes `name` of `parent` with all below it; a missing one is fine.
///
/// # Errors
/// When something can't be removed.
pub(crate) fn tree(parent: &OwnedFd, name: &OsStr) -> anyhow::Result<()> {
    let top = match open(parent.as_fd(), name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return unlink(parent.as_fd(), name, AtFlags::empty()),
        Err(error) => return Err(error).context("open directory to remove"),
    };
    // Every round empties the top but for directories that were moved up to it.
    while empty(&top, &top, 0)? {}
    unlink(parent.as_fd(), name, AtFlags::REMOVEDIR)
}

/// Empties a directory; tells whether something was moved to `top`.
fn empty(top: &OwnedFd, directory: &OwnedFd, depth: u32) -> anyhow::Result<bool> {
    let mut has_moved = false;
    for entry in Dir::read_from(directory).context("read directory to remove")? {
        let entry = entry.context("read directory to remove")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if !entry.file_type().is_dir() {
            unlink(directory.as_fd(), name, AtFlags::empty())?;
        } else if depth >= MAX_DEPTH {
            move_up(top, directory, name)?;
            has_moved = true;
        } else if unlinkat(directory.as_fd(), name, AtFlags::REMOVEDIR).is_err() {
            let child = open(directory.as_fd(), name).context("open directory to remove")?;
            has_moved |= empty(top, &child, depth + 1)?;
            unlink(directory.as_fd(), name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(has_moved)
}

fn move_up(top: &OwnedFd, directory: &OwnedFd, name: &CStr) -> anyhow::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..1000 {
        let new = format!(".moved-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(directory, name, top, &new, flags) {
            Err(Errno::EXIST) => {}
            Err(Errno::PERM) => thaw(directory.as_fd(), name)?,
            answer => return answer.context("move deep directory up"),
        }
    }
    bail!("a deep directory can't be moved up")
}

fn unlink(directory: BorrowedFd<'_>, name: impl Arg + Copy, flags: AtFlags) -> anyhow::Result<()> {
    match unlinkat(directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::PERM) => thaw(directory, name)?,
        Err(error) => return Err(error).with_context(|| told(name)),
    }
    unlinkat(directory, name, flags).with_context(|| told(name))
}

fn unlinkat(directory: BorrowedFd<'_>, name: impl Arg, flags: AtFlags) -> Result<(), Errno> {
    rustix::fs::unlinkat(directory, name, flags)
}

/// Takes the immutable and append-only marks (chattr(1)) from a file and the directory it is in.
fn thaw(directory: BorrowedFd<'_>, name: impl Arg + Copy) -> anyhow::Result<()> {
    // The directory may be open as a path only, which takes no ioctl.
    if let Ok(directory) = open(directory, ".") {
        unmark(&directory)?;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let is_plain =
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            kind.is_dir() || kind.is_file()
        });
    // Opening a device or a pipe could do more than we want; those have no marks anyway.
    if is_plain && let Ok(file) = rustix::fs::openat(directory, name, flags, Mode::empty()) {
        unmark(&file)?;
    }
    Ok(())
}

fn unmark(file: &OwnedFd) -> anyhow::Result<()> {
    let marks = IFlags::IMMUTABLE | IFlags::APPEND;
    let Ok(flags) = rustix::fs::ioctl_getflags(file) else { return Ok(()) };
    match flags.intersects(marks) {
        true => rustix::fs::ioctl_setflags(file, flags - marks).context("take immutable mark"),
        false => Ok(()),
    }
}

/// Opens a directory, but none that something is mounted on: that would not be ours to empty.
fn open(directory: BorrowedFd<'_>, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
}

fn told(name: impl Arg) -> String {
    format!("remove {}", name.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn top() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, fd)
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let (dir, fd) = top();
        rustix::fs::mkdirat(&fd, "x", Mode::RWXU).unwrap();
        let mut at = open(fd.as_fd(), "x").unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            at = open(at.as_fd(), "deep").unwrap();
        }
        tree(&fd, "x".as_ref()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_links_and_absent_things_are_removed() {
        let (dir, fd) = top();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        for name in ["link", "absent"] {
            tree(&fd, name.as_ref()).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(std::path::Path::new("/etc").exists());
    }
}
