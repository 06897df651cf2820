//! Marks: places below the run directory where a source shows its owners through an id map, so
//! that any runtime can bind-mount it. They take the place of shiftfs marks; whoever needs the same
//! source with the same map gets the same mark.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use guardian_contract::fault::Fault;
use guardian_contract::file;
use guardian_contract::ids::IdMaps;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree};
use serde::{Deserialize, Serialize};

use crate::{sys, userns};

/// A detached mount.
#[derive(Debug)]
pub(crate) struct Clone {
    /// What it is.
    pub(crate) shown: Shown,
    /// The mount itself; closing it takes it away, unless it was attached.
    pub(crate) mount: OwnedFd,
}

/// What a detached mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Where it belongs, from the first one on, which has an empty path.
    pub(crate) path: PathBuf,
    /// Whether its owners are mapped.
    pub(crate) mapped: bool,
}

/// Clones the mount that shows `source`, its owners mapped. With `recursive`, the mounts below it
/// follow one by one; those whose filesystem can't be mapped (procfs) come as they are.
///
/// # Errors
/// `Unsupported` when the source's own filesystem can't be mapped (`EINVAL`) or the source is
/// mapped already (`EPERM`).
pub(crate) fn clone(source: &Path, maps: &IdMaps, recursive: bool) -> anyhow::Result<Vec<Clone>> {
    let userns = userns::with_maps(maps)?;
    let mount = detached(source)?;
    sys::set_id_map(mount.as_fd(), userns.as_fd())
        .with_context(|| Fault::unsupported(format!("{} can't be id-mapped", source.display())))?;
    let mut clones = vec![Clone { shown: Shown { path: PathBuf::new(), mapped: true }, mount }];
    if recursive {
        for below in mounts_below(source)? {
            clones.push(clone_below(source, &below, &userns)?);
        }
    }
    Ok(clones)
}

fn clone_below(source: &Path, below: &Path, userns: &File) -> anyhow::Result<Clone> {
    let mount = detached(below)?;
    let mapped = sys::set_id_map(mount.as_fd(), userns.as_fd()).is_ok();
    let path = below.strip_prefix(source).unwrap_or(below).to_owned();
    Ok(Clone { shown: Shown { path, mapped }, mount })
}

fn detached(path: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, path, flags)
        .with_context(|| format!("clone the mount of {}", path.display()))?;
    // What is mounted in the source later must not come along, nor the other way round.
    sys::make_private(mount.as_fd()).context("make a mount private")?;
    Ok(mount)
}

/// Returns the mounts below a path in the order in which they have to be attached.
fn mounts_below(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("read own mounts")?;
    let mut below: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescaped)
        .filter(|mount| mount != path && mount.starts_with(path))
        .collect();
    below.sort();
    below.dedup();
    Ok(below)
}

/// Blanks and their like are octal in /proc/PID/mountinfo (proc_pid_mounts(5)).
fn unescaped(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut made = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                made.push(byte);
                at += 4;
            }
            None => {
                made.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&made))
}

/// Attaches clones at a path of the caller's mount namespace.
///
/// # Errors
/// The kernel's; nothing stays attached then.
pub(crate) fn attach(clones: &[Clone], at: &Path) -> anyhow::Result<()> {
    for clone in clones {
        let place = match clone.shown.path.as_os_str().is_empty() {
            true => at.to_owned(),
            false => at.join(&clone.shown.path),
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let moved = move_mount(&clone.mount, "", CWD, &place, flags)
            .with_context(|| format!("attach mount at {}", place.display()));
        if moved.is_err() && !clone.shown.path.as_os_str().is_empty() {
            let _ = unmount(at);
        }
        moved?;
    }
    Ok(())
}

/// Makes the mark of `source` at `place`, unless it is there.
///
/// # Errors
/// As [`clone`] and [`attach`]; nothing stays behind.
pub(crate) fn ensure(
    place: &Path,
    source: &Path,
    maps: &IdMaps,
    recursive: bool,
) -> anyhow::Result<()> {
    if is_mount(place) {
        return Ok(());
    }
    let clones = clone(source, maps, recursive)?;
    let context = || format!("make {}", place.display());
    file::private_dir(place.parent().unwrap_or(place))?;
    match std::fs::metadata(source).with_context(context)?.is_dir() {
        true => file::private_dir(place)?,
        false => drop(File::create(place).with_context(context)?),
    }
    let attached = attach(&clones, place);
    if attached.is_err() {
        let _ = remove(place);
    }
    attached
}

/// Takes a mark away. One that is not there is no error.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn remove(place: &Path) -> anyhow::Result<()> {
    unmount(place)?;
    let removed = match std::fs::symlink_metadata(place) {
        Ok(stat) if stat.is_dir() => std::fs::remove_dir(place),
        Ok(_) => std::fs::remove_file(place),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", place.display()))
        }
        _ => Ok(()),
    }
}

/// Unmounts all that is mounted at a path, and below it.
///
/// # Errors
/// When the kernel refuses; nothing mounted or no such path is fine.
pub(crate) fn unmount(place: &Path) -> anyhow::Result<()> {
    loop {
        match rustix::mount::unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("unmount {}", place.display()));
            }
        }
    }
}

/// Tells whether something is mounted at a path.
pub(crate) fn is_mount(place: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(CWD, place, flags, StatxFlags::empty())
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        for (text, want) in [
            ("/a", "/a"),
            ("/a\\040b", "/a b"),
            ("/a\\134040", "/a\\040"),
            ("/a\\", "/a\\"),
            ("/a\\0", "/a\\0"),
        ] {
            assert_eq!(unescaped(text), Path::new(want));
        }
    }
}
