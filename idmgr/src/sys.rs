//! The two system calls that neither nix nor rustix has: mount_setattr(2), and any call at all to
//! learn whether it exists. The only file here with unsafe code.
#![expect(unsafe_code, reason = "neither nix nor rustix wraps mount_setattr(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
/// The same number on every architecture, as all since Linux 5.1.
const MOUNT_SETATTR: libc::c_long = 442;

/// Shows the owners in a detached mount through the id map of a user namespace.
///
/// # Errors
/// The kernel's: EINVAL where the filesystem can't, EPERM where it was done already.
pub(crate) fn set_id_map(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd = u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?;
    set(mount, &MountAttr { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns_fd })
}

/// Cuts a detached mount off from the mount it is a clone of.
///
/// # Errors
/// The kernel's.
pub(crate) fn make_private(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, &MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 })
}

fn set(mount: BorrowedFd<'_>, attr: &MountAttr) -> io::Result<()> {
    // SAFETY: the path is a constant empty C string, `attr` lives through the call and its size is
    // passed beside it; the descriptors are borrowed and so stay open.
    let result = unsafe {
        libc::syscall(
            MOUNT_SETATTR,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A call of the mount API, by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// Its name.
    pub(crate) name: &'static str,
    number: libc::c_long,
}

/// Calls that take a descriptor or a pointer first, and so refuse the arguments of [`exists`].
pub(crate) const CALLS: [Call; 7] = [
    Call { name: "open_tree", number: 428 },
    Call { name: "move_mount", number: 429 },
    Call { name: "fsopen", number: 430 },
    Call { name: "mount_setattr", number: MOUNT_SETATTR },
    Call { name: "fchmodat2", number: 452 },
    Call { name: "listmount", number: 458 },
    Call { name: "open_tree_attr", number: 467 },
];

/// Tells whether the kernel, and whatever filter stands before it, has a call.
pub(crate) fn exists(call: Call) -> bool {
    // SAFETY: only numbers of `CALLS` get here (the field is private). Each of them gets no valid
    // descriptor, null pointers and zero lengths, so that it fails before it reads or changes
    // anything.
    let result = unsafe { libc::syscall(call.number, -1, 0, 0, 0, 0, 0) };
    result != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}
