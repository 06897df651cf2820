//! Owners, modes, extended attributes and times of what was unpacked.
//!
//! The order matters: a change of owner clears set-id bits and file capabilities, and whatever
//! else we do changes the time.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Rules, Unpacker};
use crate::archive::{Entry, Kind};
use crate::beneath::Beneath;
use crate::xattr;

/// Makes an open file or directory look as its member says. A user's files are created with
/// their mode, directories get it in the end.
pub(super) fn dress(
    rules: Rules,
    file: &impl AsFd,
    entry: &Entry,
    is_directory: bool,
) -> anyhow::Result<()> {
    match rules {
        Rules::Layer => {
            rustix::fs::fchown(file, Some(owner(entry)?), Some(group(entry)?))
                .context("set owner")?;
            rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).context("set mode")?;
        }
        Rules::User { umask } if is_directory => {
            // As `tar --no-same-permissions`: no set-id bits, and the umask applies.
            let mode = entry.mode & 0o777 & !umask;
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).context("set mode")?;
        }
        Rules::User { .. } => {}
    }
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| xattr::is_kept(name)) {
        match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            // A user may lack the right to set one; tar warns of it and goes on.
            Err(Errno::PERM) if rules != Rules::Layer => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("set attribute {}", name.escape_ascii()));
            }
        }
    }
    rustix::fs::futimens(file, &times(entry)).context("set time")
}

impl Unpacker<'_> {
    /// Makes a symbolic link or pipe, which can't be opened, look as its member says.
    pub(super) fn dress_name(&mut self, path: &Path, entry: &Entry) -> anyhow::Result<()> {
        let rules = self.rules;
        let name = path.file_name().context("path without a name")?.to_owned();
        let parent = self.parent(path)?;
        let mode = match rules {
            Rules::Layer => {
                let (uid, gid) = (Some(owner(entry)?), Some(group(entry)?));
                rustix::fs::chownat(parent, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    .context("set owner")?;
                entry.mode
            }
            Rules::User { umask } => entry.mode & 0o777 & !umask,
        };
        if entry.kind == Kind::Fifo {
            // We made it a moment ago in a directory nobody else writes to, or act as a user who
            // could follow the link as well.
            rustix::fs::chmodat(parent, &name, Mode::from_raw_mode(mode), AtFlags::empty())
                .context("set mode")?;
        }
        rustix::fs::utimensat(parent, &name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .context("set time")
    }

    /// Makes a directory look as its member says, unless a later member has put something else
    /// in its place.
    pub(super) fn finish_directory(&self, path: &Path, entry: &Entry) -> anyhow::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match self.root.open(path, flags) {
            Ok(directory) => dress(self.rules, &directory, entry, true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error).context("open it"),
        }
    }

    /// Lets a directory that the archive does not tell of look as it does in the layers below.
    pub(super) fn adopt(&mut self, path: &Path) -> anyhow::Result<()> {
        let found = self.lower.iter().find_map(|layer| look(layer, path));
        match found {
            Some(entry) if !self.directories.contains_key(path) => {
                self.remember(path.into(), &entry)
            }
            _ => Ok(()),
        }
    }
}

impl Unpacker<'_> {
    /// Lets the root look as it does in the layers below, until the archive says otherwise.
    pub(crate) fn adopt_root(&mut self) -> anyhow::Result<()> {
        self.adopt(Path::new(""))
    }
}

/// Returns how a directory of a layer looks.
pub(crate) fn look(layer: &Beneath, path: &Path) -> Option<Entry> {
    let directory = layer.open(path, OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
    of_directory(&directory).ok()
}

fn of_directory(directory: &OwnedFd) -> anyhow::Result<Entry> {
    let stat = rustix::fs::fstat(directory)?;
    Ok(Entry {
        kind: Kind::Directory,
        mode: Mode::from_raw_mode(stat.st_mode).bits() & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default()),
        xattrs: xattr::read(directory)?,
        ..Entry::default()
    })
}

/// `-1` would mean "leave it" to chown(2).
fn owner(entry: &Entry) -> anyhow::Result<Uid> {
    let uid = Some(entry.uid).filter(|uid| *uid != u32::MAX);
    uid.map(Uid::from_raw).context("owner 4294967295 is no user")
}

fn group(entry: &Entry) -> anyhow::Result<Gid> {
    let gid = Some(entry.gid).filter(|gid| *gid != u32::MAX);
    gid.map(Gid::from_raw).context("group 4294967295 is no group")
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}
