//! The system calls that neither nix nor rustix has a safe wrapper for: `mount_setattr(2)`,
//! `quotactl_fd(2)`, the ioctls that say which project a directory is charged to, and those that make
//! a filesystem in a file larger or give back what is free in it.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc::{self, c_int};

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

/// `PRJQUOTA` of linux/quota.h.
const PROJECT: c_int = 2;
/// `FS_XFLAG_PROJINHERIT` of linux/fs.h: what is made in a directory has its project.
const INHERIT: u32 = 0x200;

/// What is charged to a project, or may be; a limit of 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Returns what is charged to a project of the filesystem of `directory`.
///
/// # Errors
/// The kernel's: `ESRCH` or `EINVAL` where there are no project quotas, `ENOSYS` before 5.14 and in
/// kernels without quotas.
pub(crate) fn quota(directory: &impl AsFd, project: u32) -> io::Result<Quota> {
    let mut answer = no_quota();
    match quotactl(directory, libc::Q_GETQUOTA, project, &mut answer) {
        Ok(()) => Ok(Quota { bytes: answer.dqb_curspace, inodes: answer.dqb_curinodes }),
        // XFS keeps no record of a project that nothing was ever charged to (quotactl(2)).
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Quota::default()),
        Err(error) => Err(error),
    }
}

/// Limits what may be charged to a project of the filesystem of `directory`.
///
/// # Errors
/// The kernel's, as [`quota`].
pub(crate) fn set_quota(directory: &impl AsFd, project: u32, most: Quota) -> io::Result<()> {
    let mut limits = no_quota();
    // In units of 1 KiB (`QIF_DQBLKSIZE`).
    limits.dqb_bhardlimit = most.bytes.div_ceil(1024);
    limits.dqb_ihardlimit = most.inodes;
    limits.dqb_valid = QUOTA_LIMITS;
    quotactl(directory, libc::Q_SETQUOTA, project, &mut limits)
}

/// `QIF_LIMITS` of linux/quota.h.
const QUOTA_LIMITS: u32 = 1 | 4;

fn no_quota() -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: 0,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: 0,
    }
}

#[expect(unsafe_code, reason = "neither nix nor rustix wraps quotactl_fd(2)")]
fn quotactl(
    directory: &impl AsFd,
    command: c_int,
    project: u32,
    data: &mut libc::dqblk,
) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, so it is open. `data` is exclusively ours and has the layout
    // of the kernel's `struct if_dqblk`, which is all that the two commands we pass read or write.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            directory.as_fd().as_raw_fd(),
            libc::QCMD(command, PROJECT),
            project,
            std::ptr::from_mut(data),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    reserved: [u8; 8],
}

/// Charges a directory, and all that will be made in it, to a project.
///
/// # Errors
/// The kernel's: `ENOTTY` or `EOPNOTSUPP` where the filesystem knows no projects.
#[expect(unsafe_code, reason = "neither nix nor rustix wraps FS_IOC_FSSETXATTR")]
pub(crate) fn charge_to(directory: &impl AsFd, project: u32) -> io::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    match project {
        0 => attributes.flags &= !INHERIT,
        _ => attributes.flags |= INHERIT,
    }
    // SAFETY: the descriptor is borrowed, so it is open; the kernel reads `attributes`, which have the
    // layout and size that the number of the ioctl tells it.
    unsafe { ioctls::set_attributes(directory.as_fd().as_raw_fd(), &raw const attributes) }?;
    Ok(())
}

/// Returns the project that a directory is charged to; 0 is none.
///
/// # Errors
/// As [`charge_to`].
pub(crate) fn project_of(directory: &impl AsFd) -> io::Result<u32> {
    attributes(directory).map(|attributes| attributes.project)
}

#[expect(unsafe_code, reason = "neither nix nor rustix wraps FS_IOC_FSGETXATTR")]
fn attributes(directory: &impl AsFd) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the descriptor is borrowed, so it is open; `attributes` are ours and have the layout and
    // size that the number of the ioctl tells the kernel.
    unsafe { ioctls::get_attributes(directory.as_fd().as_raw_fd(), &raw mut attributes) }?;
    Ok(attributes)
}

/// Makes a loop device as large as its file has become (`LOOP_SET_CAPACITY`, loop(4)).
///
/// # Errors
/// The kernel's.
#[expect(unsafe_code, reason = "neither nix nor rustix wraps LOOP_SET_CAPACITY")]
pub(crate) fn loop_has_grown(device: &impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, so it is open; the ioctl takes no argument.
    unsafe { ioctls::set_capacity(device.as_fd().as_raw_fd()) }?;
    Ok(())
}

/// Makes the ext4 that `root` is on so many blocks large (`EXT4_IOC_RESIZE_FS`, ext4(5)).
///
/// # Errors
/// The kernel's: `EPERM` without CAP_SYS_RESOURCE.
#[expect(unsafe_code, reason = "neither nix nor rustix wraps EXT4_IOC_RESIZE_FS")]
pub(crate) fn resize_ext4(root: &impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, so it is open; the kernel reads `blocks`, which has the size
    // that the number of the ioctl tells it, during the call only.
    unsafe { ioctls::resize(root.as_fd().as_raw_fd(), &raw const blocks) }?;
    Ok(())
}

/// `struct fstrim_range` of linux/fs.h, in bytes.
#[repr(C)]
#[derive(Debug)]
struct Range {
    start: u64,
    length: u64,
    shortest: u64,
}

/// Gives what is free in the filesystem of `directory` back to whatever it lies on (`FITRIM`,
/// fstrim(8)).
///
/// # Errors
/// The kernel's: `EOPNOTSUPP` where that takes nothing back.
#[expect(unsafe_code, reason = "neither nix nor rustix wraps FITRIM")]
pub(crate) fn trim(directory: &impl AsFd) -> io::Result<()> {
    let mut all = Range { start: 0, length: u64::MAX, shortest: 0 };
    // SAFETY: the descriptor is borrowed, so it is open; `all` is ours and has the layout and size that
    // the number of the ioctl tells the kernel, which reads it and writes how much that was.
    unsafe { ioctls::trim(directory.as_fd().as_raw_fd(), &raw mut all) }?;
    Ok(())
}

mod ioctls {
    use super::{Attributes, Range};

    // `LOOP_SET_CAPACITY` of linux/loop.h.
    nix::ioctl_none_bad!(set_capacity, 0x4c07);
    // `EXT4_IOC_RESIZE_FS` of the kernel's fs/ext4/ext4.h.
    nix::ioctl_write_ptr!(resize, b'f', 16, u64);
    nix::ioctl_readwrite!(trim, b'X', 121, Range);

    nix::ioctl_read!(get_attributes, b'X', 31, Attributes);
    nix::ioctl_write_ptr!(set_attributes, b'X', 32, Attributes);
}
