//! Makes one file, directory, link or pipe beneath the root, in place of what was there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::dress;
use super::filler::{self, Filler, Fresh};
use super::{Rules, Unpacker, whiteout};
use crate::archive::read::Reader;
use crate::archive::{Entry, Extent};
use crate::beneath::contained;
use crate::remove;

/// How often something may come back while we put something else in its place.
const ATTEMPTS: u32 = 8;

impl Unpacker<'_> {
    /// Opens a directory, making what is missing on the way to it.
    pub(super) fn open_or_make(&mut self, path: &Path) -> anyhow::Result<OwnedFd> {
        match self.root.dir(path) {
            Err(Errno::NOENT | Errno::NOTDIR) if !path.as_os_str().is_empty() => {}
            answer => return answer.with_context(|| format!("open {}", path.display())),
        }
        let up = path.parent().unwrap_or(Path::new(""));
        let parent = self.open_or_make(up)?;
        let name = path.file_name().context("path without a name")?;
        if self.make_directory(parent, name)? {
            self.implied =
                self.implied.checked_sub(1).context("too many directories are implied")?;
            self.adopt(path)?;
        }
        self.root.dir(path).with_context(|| format!("open {}", path.display()))
    }

    /// Makes a directory; tells whether it is new. A whiteout in its place means that nothing of
    /// the lower layers is to show through it.
    fn make_directory(&self, parent: impl AsFd, name: &OsStr) -> anyhow::Result<bool> {
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context("make directory"),
        }
        if self.rules != Rules::Layer || !whiteout::is_at(&parent, name) {
            return Ok(false);
        }
        rustix::fs::unlinkat(&parent, name, AtFlags::empty()).context("remove whiteout")?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)).context("make directory")?;
        whiteout::make_opaque(&open_directory(&parent, name)?)?;
        Ok(true)
    }

    /// Makes the directory of a member, or takes the one that is there.
    pub(super) fn directory(&mut self, path: &Path, entry: &Entry) -> anyhow::Result<()> {
        let rules = self.rules;
        let name = path.file_name().context("path without a name")?.to_owned();
        let parent = self.parent(path)?.try_clone()?;
        if !self.make_directory(&parent, &name)? {
            let flags = match rules {
                Rules::Layer => AtFlags::SYMLINK_NOFOLLOW,
                // An archive with `lib/` must not take a container's link to usr/lib away.
                Rules::User { .. } => AtFlags::empty(),
            };
            let is_directory = rustix::fs::statat(&parent, &name, flags)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
            if !is_directory {
                self.clear(&parent, &name)?;
                self.make_directory(&parent, &name)?;
            } else if matches!(rules, Rules::User { .. }) {
                // An existing directory of a user keeps what it looks like.
                return Ok(());
            }
        }
        self.remember(path.into(), entry)
    }

    /// Creates a regular file that did not exist before.
    fn new_file(&mut self, path: &Path, entry: &Entry) -> anyhow::Result<File> {
        let name = path.file_name().context("path without a name")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        // A layer's file gets its mode after its owner.
        let mode = match self.rules {
            Rules::Layer => 0o600,
            Rules::User { umask } => entry.mode & 0o777 & !umask,
        };
        let mode = Mode::from_raw_mode(mode);
        let fd = self.replacing(path, |parent| {
            rustix::fs::openat(parent, name, flags | OFlags::CLOEXEC, mode)
        })?;
        Ok(fd.into())
    }

    /// Makes a file, fills it and makes it look as its member says; small ones later, by `filler`.
    pub(super) fn file<R: BufRead>(
        &mut self,
        path: &Path,
        entry: &Entry,
        data: &mut Reader<R>,
        filler: &mut Filler<'_, '_>,
    ) -> anyhow::Result<()> {
        // A sparse file's pieces are charged one by one.
        self.charge(entry.extents.as_ref().map_or(entry.size, |_| 0))?;
        let mut file = self.new_file(path, entry)?;
        if entry.extents.is_none() {
            data.becomes(path);
            if entry.size <= filler::SMALL {
                let mut content = Vec::new();
                data.data(entry.size, &mut |piece| {
                    content.extend_from_slice(piece);
                    Ok(())
                })?;
                return filler.take(Fresh { file, entry: entry.clone(), content });
            }
        }
        let whole = [Extent { offset: 0, length: entry.size }];
        for extent in entry.extents.as_deref().unwrap_or(&whole) {
            if entry.extents.is_some() {
                self.charge(extent.length)?;
                file.seek(SeekFrom::Start(extent.offset)).context("seek in sparse file")?;
            }
            data.data(extent.length, &mut |piece| file.write_all(piece))?;
        }
        if entry.extents.is_some() {
            file.set_len(entry.size).context("set size of sparse file")?;
        }
        dress(self.rules, &file, entry, false)
    }

    /// Gives a file another name. Its first name must lie beneath the root, too.
    pub(super) fn hard_link(&mut self, path: &Path, target: &[u8]) -> anyhow::Result<()> {
        let target = contained(target).context("the link's target is not a path")?;
        let target = self.base.join(target);
        if target == path {
            return Ok(());
        }
        let name = target.file_name().context("hard link to the root")?.to_owned();
        let directory = self
            .root
            .dir(target.parent().unwrap_or(Path::new("")))
            .with_context(|| format!("find link target {}", target.display()))?;
        let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("find link target {}", target.display()))?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            bail!("hard link to the directory {}", target.display());
        }
        let new = path.file_name().context("path without a name")?;
        self.replacing(path, |parent| {
            rustix::fs::linkat(&directory, &name, parent, new, AtFlags::empty())
        })
    }

    /// Makes a symbolic link; where it leads is nobody's business but the container's.
    pub(super) fn symlink(
        &mut self,
        path: &Path,
        target: &[u8],
        entry: &Entry,
    ) -> anyhow::Result<()> {
        let name = path.file_name().context("path without a name")?;
        self.replacing(path, |parent| {
            rustix::fs::symlinkat(OsStr::from_bytes(target), parent, name)
        })?;
        self.dress_name(path, entry)
    }

    /// Makes a named pipe.
    pub(super) fn fifo(&mut self, path: &Path, entry: &Entry) -> anyhow::Result<()> {
        let name = path.file_name().context("path without a name")?;
        self.replacing(path, |parent| {
            rustix::fs::mkfifoat(parent, name, Mode::from_raw_mode(0o600))
        })?;
        self.dress_name(path, entry)
    }

    /// Runs `make` in the directory of `path`; what stands in its way is removed.
    pub(super) fn replacing<T>(
        &mut self,
        path: &Path,
        mut make: impl FnMut(&OwnedFd) -> Result<T, Errno>,
    ) -> anyhow::Result<T> {
        let name = path.file_name().context("path without a name")?.to_owned();
        for _ in 0..ATTEMPTS {
            match make(self.parent(path)?) {
                Err(Errno::EXIST) => {
                    let parent = self.parent(path)?.try_clone()?;
                    self.clear(&parent, &name)?;
                }
                answer => return answer.context("make it"),
            }
        }
        bail!("something else keeps appearing in its place")
    }

    /// Removes what has a name. A user's archive takes no directory away that holds something.
    fn clear(&mut self, parent: &OwnedFd, name: &OsStr) -> anyhow::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error).context("replace what is there"),
        }
        // A descriptor kept for a directory that is gone would swallow what follows.
        self.parent = None;
        match self.rules {
            Rules::Layer => remove::tree(parent, name),
            Rules::User { .. } => {
                rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).context("replace directory")
            }
        }
    }
}

pub(super) fn open_directory(parent: impl AsFd, name: &OsStr) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).context("open directory")
}
