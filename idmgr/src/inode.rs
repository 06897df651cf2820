//! What of one file has to do with ids, read and written by its descriptor, whatever it is: a
//! FIFO is not opened, a link not followed.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::Context;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;

/// Where a file's capabilities are (capabilities(7)).
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// Where a file's ACLs are (acl(5)).
pub(crate) const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Names and values.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns the path that leads to a descriptor, for calls that take no `O_PATH` descriptor.
pub(crate) fn path_of(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Reads the extended attributes that `is_wanted`. Links have none of those.
///
/// # Errors
/// The kernel's.
pub(crate) fn attributes(
    file: BorrowedFd<'_>,
    kind: FileType,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> anyhow::Result<Attributes> {
    if kind == FileType::Symlink {
        return Ok(Vec::new());
    }
    let path = path_of(file);
    let names = match sized(|buffer| rustix::fs::listxattr(&path, buffer)) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names.context("list attributes")?,
    };
    let mut attributes = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && is_wanted(name)) {
        match sized(|buffer| rustix::fs::getxattr(&path, name, buffer)) {
            Ok(value) => attributes.push((name.to_vec(), value)),
            Err(Errno::NODATA) => {}
            Err(error) => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(error).with_context(|| format!("read attribute {name}"));
            }
        }
    }
    Ok(attributes)
}

/// Calls again with a larger buffer until the answer fits.
fn sized(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // The kernel's own limit (XATTR_LIST_MAX, XATTR_SIZE_MAX).
            Err(Errno::RANGE) if buffer.len() < 65_536 => buffer.resize(65_536, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Writes an attribute.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_attribute(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    rustix::fs::setxattr(path_of(file), name, value, XattrFlags::empty())
}

/// Gives a file away. The kernel takes its set-id bits and capabilities for that.
///
/// # Errors
/// The kernel's.
pub(crate) fn chown(file: BorrowedFd<'_>, uid: u32, gid: u32) -> anyhow::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(file, "", uid, gid, AtFlags::EMPTY_PATH).context("chown")
}

/// Sets a file's mode bits.
///
/// # Errors
/// The kernel's.
pub(crate) fn chmod(file: BorrowedFd<'_>, mode: u32) -> anyhow::Result<()> {
    rustix::fs::chmod(path_of(file), Mode::from_raw_mode(mode & 0o7777)).context("chmod")
}

/// Tells whether a change of owner would take a set-id bit.
pub(crate) fn has_set_id(stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    stat.st_mode & 0o6000 != 0 && kind != FileType::Directory && kind != FileType::Symlink
}
