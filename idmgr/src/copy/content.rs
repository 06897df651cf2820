//! The content of one file: what is there, not the holes, and by the filesystem itself where it
//! can (copy_file_range(2)).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::inode::path_of;

/// Bytes asked for at once.
const CHUNK: usize = 1 << 30;

/// Makes the file `name` with the content of `from`, and returns how many bytes that was.
pub(super) fn copy(
    from: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &CStr,
) -> anyhow::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = rustix::fs::openat(CWD, path_of(from), flags, Mode::empty()).context("open")?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to =
        rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).context("make file")?;
    let size = rustix::fs::fstat(&from).context("look at")?.st_size;
    let size = u64::try_from(size).context("a negative size")?;
    let mut copied = 0;
    let mut at = 0;
    while let Some((start, end)) = data(&from, at, size)? {
        copied += range(&from, &to, start, end)?;
        at = end;
    }
    rustix::fs::ftruncate(&to, size).context("set size")?;
    Ok(copied)
}

/// Returns where content begins and ends, from `at` on; `None` behind the last.
fn data(file: &OwnedFd, at: u64, size: u64) -> anyhow::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // No holes here.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(error) => return Err(error).context("look for content"),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start)).context("look for a hole")?;
    Ok(Some((start, end.min(size).max(start))).filter(|(start, end)| start < end))
}

fn range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> anyhow::Result<u64> {
    let (mut read, mut written) = (start, start);
    while read < end {
        let length = usize::try_from(end - read).unwrap_or(CHUNK).min(CHUNK);
        let moved =
            rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), length);
        match moved {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return by_hand(from.as_fd(), to.as_fd(), read, end)
                    .map(|rest| read - start + rest);
            }
            Err(error) => return Err(error).context("copy content"),
        }
    }
    Ok(read - start)
}

fn by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> anyhow::Result<u64> {
    let mut buffer = vec![0; 1 << 17];
    let mut at = start;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
        let length = rustix::io::pread(from, &mut buffer[..most], at).context("read content")?;
        if length == 0 {
            break;
        }
        let mut done = 0;
        while done < length {
            done += rustix::io::pwrite(to, &buffer[done..length], at + done as u64)
                .context("write content")?;
        }
        at += length as u64;
    }
    Ok(at - start)
}
