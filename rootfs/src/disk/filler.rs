//! What a filesystem in a file has beyond a container's limit, and nobody may use: blocks of one file
//! that nothing is ever written to, so that they take no room on the host, and inodes of empty files.
//!
//! ext4 can't be made smaller while it is in use, and larger only with a capability that not every
//! host has. A filler can, both ways, one transaction of ext4's after the other: whoever is killed in
//! between leaves a sound filesystem, and another limit than is told until it is set again.
//!
//! It lies beside overlay's directories, where no container gets. To df(1) it is in use.

use std::os::fd::OwnedFd;

use anyhow::Context;
use guardian_contract::fault::Fault;
use guardian_contract::log;
use rustix::fs::{AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde_json::json;

use super::{Overhead, Room};
use crate::sys;
use crate::usage::Usage;

const DIRECTORY: &str = "taken";
const BLOCKS: &str = "blocks";
/// The directory and the file of blocks.
const OWN_INODES: u64 = 2;
/// Most files that are made to take inodes away: as many as a filesystem of 512 GiB has at the least,
/// because tables of inodes are whole blocks. In a larger one a limit may be a bit higher than asked for.
pub(super) const MAX_FILES: u64 = 65536;
/// Taking blocks takes some more to say where they are, which are then given back.
const ATTEMPTS: usize = 4;

/// The filler of one filesystem.
#[derive(Debug)]
pub(super) struct Filler<'a> {
    filesystem: &'a OwnedFd,
    directory: OwnedFd,
    blocks: OwnedFd,
}

/// What a container uses of its filesystem, and what it could still use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub(super) used: Usage,
    pub(super) free: Usage,
}

impl<'a> Filler<'a> {
    /// Opens the filler of the filesystem with this root, made when it is missing.
    ///
    /// # Errors
    /// When it can't be made.
    pub(super) fn open(filesystem: &'a OwnedFd) -> anyhow::Result<Self> {
        match rustix::fs::mkdirat(filesystem, DIRECTORY, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made.context("make the filler")?,
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(filesystem, DIRECTORY, flags, Mode::empty())
            .context("open the filler")?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let blocks =
            rustix::fs::openat(&directory, BLOCKS, flags, Mode::RUSR).context("open the filler")?;
        Ok(Self { filesystem, directory, blocks })
    }

    /// Returns the bytes it takes.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub(super) fn bytes(&self) -> anyhow::Result<u64> {
        let of = |file: &OwnedFd| {
            let stat = rustix::fs::fstat(file).context("look at the filler")?;
            anyhow::Ok(u64::try_from(stat.st_blocks).unwrap_or_default() * 512)
        };
        Ok(of(&self.directory)? + of(&self.blocks)?)
    }

    /// Returns what the filesystem holds beside the filler and what it held when it was new.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub(super) fn content(&self, overhead: Overhead) -> anyhow::Result<Content> {
        let stat = stat(self.filesystem)?;
        let used = Usage {
            bytes: (stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize)
                .saturating_sub(self.bytes()? + overhead.empty_bytes),
            inodes: stat
                .f_files
                .saturating_sub(stat.f_ffree)
                .saturating_sub(self.files()? + OWN_INODES + overhead.empty_inodes),
        };
        // Less what ext4 keeps for itself, which is not to be had.
        let free = Usage { bytes: stat.f_bavail * stat.f_frsize, inodes: stat.f_ffree };
        Ok(Content { used, free })
    }

    /// Returns what a container could have if the filler took nothing.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub(super) fn capacity(&self, overhead: Overhead) -> anyhow::Result<Usage> {
        let Content { used, free } = self.content(overhead)?;
        Ok(Usage {
            bytes: used.bytes + free.bytes + self.bytes()?,
            inodes: used.inodes + free.inodes + self.files()?,
        })
    }

    /// Takes as much as leaves `room` to the container, what it uses already included; 0 takes
    /// nothing. Returns the bytes that it then takes.
    ///
    /// # Errors
    /// When the container uses more. That the filesystem has less is none.
    pub(super) fn hold(&self, overhead: Overhead, room: Room) -> anyhow::Result<u64> {
        self.hold_inodes(overhead, room.inodes)?;
        for _ in 0..ATTEMPTS {
            let Content { used, free } = self.content(overhead)?;
            let wanted = match room.bytes {
                0 => free.bytes + self.length()?,
                room => room
                    .checked_sub(used.bytes)
                    .ok_or_else(|| below("disk limit", room, &format!("{} bytes", used.bytes)))?,
            };
            let wanted = wanted / super::BLOCK * super::BLOCK;
            if free.bytes > wanted {
                self.take(free.bytes - wanted)?;
            } else if free.bytes < wanted {
                self.give_back(wanted - free.bytes)?;
            } else {
                break;
            }
        }
        self.bytes()
    }

    fn hold_inodes(&self, overhead: Overhead, limit: u64) -> anyhow::Result<()> {
        let (Content { used, free }, files) = (self.content(overhead)?, self.files()?);
        let wanted = match limit {
            0 => free.inodes + files,
            limit => limit
                .checked_sub(used.inodes)
                .ok_or_else(|| below("inode limit", limit, &format!("{} inodes", used.inodes)))?,
        };
        let more = (files + free.inodes.saturating_sub(wanted)).min(MAX_FILES);
        for number in files..more {
            let name = number.to_string();
            rustix::fs::mknodat(&self.directory, name, FileType::RegularFile, Mode::empty(), 0)
                .context("take inodes away")?;
        }
        let less = files.saturating_sub(wanted.saturating_sub(free.inodes));
        for number in (less..files).rev() {
            rustix::fs::unlinkat(&self.directory, number.to_string(), AtFlags::empty())
                .context("give inodes back")?;
        }
        Ok(())
    }

    /// Gives the host back what the container has written and removed, which would be taken as it is.
    pub(super) fn give_up_free(&self) {
        if let Err(error) = sys::trim(&self.directory) {
            log::info("not-trimmed", &json!({"error": error.to_string()}));
        }
    }

    /// They have the numbers from 0 on as their names.
    fn files(&self) -> anyhow::Result<u64> {
        let entries = Dir::read_from(&self.directory).context("count the filler")?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_owned()));
        let numbers = names.filter(|name| {
            name.as_ref().is_ok_and(|name| name.to_bytes().iter().all(u8::is_ascii_digit))
        });
        Ok(numbers.count() as u64)
    }

    fn length(&self) -> anyhow::Result<u64> {
        let stat = rustix::fs::fstat(&self.blocks).context("look at the filler")?;
        Ok(u64::try_from(stat.st_size).unwrap_or_default())
    }

    fn take(&self, bytes: u64) -> anyhow::Result<()> {
        let length = self.length()?;
        let taken = rustix::fs::fallocate(&self.blocks, FallocateFlags::empty(), length, bytes);
        if taken.is_err() {
            rustix::fs::ftruncate(&self.blocks, length).context("give blocks back")?;
        }
        taken.context("take blocks away")
    }

    fn give_back(&self, bytes: u64) -> anyhow::Result<()> {
        let length = self.length()?.saturating_sub(bytes);
        rustix::fs::ftruncate(&self.blocks, length).context("give blocks back")
    }
}

/// Looks at a filesystem.
///
/// # Errors
/// The kernel's.
pub(super) fn stat(filesystem: &OwnedFd) -> anyhow::Result<rustix::fs::StatVfs> {
    rustix::fs::fstatvfs(filesystem).context("look at the image's filesystem")
}

fn below(what: &str, limit: u64, used: &str) -> Fault {
    Fault::invalid(format!("{what} of {limit} is below the {used} in use"))
}
