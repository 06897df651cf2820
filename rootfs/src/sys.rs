//! The one system call that neither nix nor rustix has a safe wrapper for: `mount_setattr(2)`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;

/// Makes the detached mount `mount` show its owners through the map of the user namespace
/// `userns` (`MOUNT_ATTR_IDMAP`).
///
/// # Errors
/// The kernel's: `ENOSYS` before 5.12, `EINVAL` for a filesystem that can't be mapped, `EPERM`
/// for a mount that is mapped already.
#[expect(unsafe_code, reason = "neither nix nor rustix wraps mount_setattr(2)")]
pub(crate) fn map_owners(mount: &impl AsFd, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd().unsigned_abs().into(),
    };
    // SAFETY: the path is a NUL-terminated literal and `attributes` lives on this stack with the
    // size we pass; the kernel reads both during the call only. The descriptors are borrowed, so
    // they are open.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
