//! Members of an archive → files beneath a directory.
//!
//! The archive is hostile. A name is cut down to what lies inside ([`contained`]), its directory
//! is opened beneath the root by openat2, and the last component is made by a call that follows
//! no link. Nothing is ever opened that the archive made, save directories and the file just
//! created.

mod attributes;
mod place;
mod whiteout;

pub(crate) use whiteout::{PREFIX as WHITEOUT_PREFIX, is_one as is_whiteout, is_opaque};

use std::collections::BTreeMap;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::archive::read::Reader;
use crate::archive::{Entry, Kind};
use crate::beneath::{Beneath, contained};

/// Whose archive it is and how far it is obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// A layer of an image: owners, set-id bits and attributes are kept, whiteouts are obeyed.
    Layer,
    /// What a user of a container streams in: files belong to the user, this umask applies.
    User {
        /// Bits that no new file gets.
        umask: u32,
    },
}

/// Unpacks one archive.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    root: Beneath,
    rules: Rules,
    /// The layers beneath this one, topmost first; a directory that the archive leaves out looks
    /// as it does there.
    lower: &'a [Beneath],
    /// Bytes of files that may still be written.
    room: u64,
    /// The directory used last, because members of one directory come in a row.
    parent: Option<(PathBuf, OwnedFd)>,
    /// What directories are to look like in the end: making their content changes their time, and
    /// their mode may forbid to make it.
    directories: BTreeMap<PathBuf, Entry>,
}

impl<'a> Unpacker<'a> {
    /// Unpacks a layer beneath `root`, which lies over `lower`, with at most `room` bytes of files.
    pub(crate) fn layer(root: OwnedFd, lower: &'a [Beneath], room: u64) -> Self {
        Self::new(Beneath::in_root(root), Rules::Layer, lower, room)
    }

    /// Unpacks what a user streams in; we act as that user already, so links lead nowhere that
    /// the user could not go.
    pub(crate) fn user(root: OwnedFd, umask: u32) -> Self {
        Self::new(Beneath::confined(root), Rules::User { umask }, &[], u64::MAX)
    }

    fn new(root: Beneath, rules: Rules, lower: &'a [Beneath], room: u64) -> Self {
        Self { root, rules, lower, room, parent: None, directories: BTreeMap::new() }
    }

    /// Unpacks all members and reads the input to its end.
    ///
    /// # Errors
    /// At the first member that is broken or can't be made; what was made before it stays.
    pub(crate) fn run(mut self, input: impl BufRead) -> anyhow::Result<()> {
        let mut archive = Reader::new(input);
        while let Some(entry) = archive.next()? {
            self.member(&entry, &mut archive)
                .with_context(|| format!("unpack {}", entry.path.escape_ascii()))?;
        }
        archive.drain().context("read archive")?;
        self.finish_directories()
    }

    fn member<R: BufRead>(&mut self, entry: &Entry, data: &mut Reader<R>) -> anyhow::Result<()> {
        let path = contained(&entry.path).context("the name is not a path")?;
        if self.rules == Rules::Layer && self.take_whiteout(&path, entry)? {
            return Ok(());
        }
        if path.as_os_str().is_empty() {
            return self.root_member(entry);
        }
        match &entry.kind {
            Kind::Directory => self.directory(&path, entry),
            Kind::File => {
                self.room = self
                    .room
                    .checked_sub(entry.extents.as_ref().map_or(entry.size, |_| 0))
                    .context("uncompressed layer size exceeds quota")?;
                let file = self.new_file(&path, entry)?;
                self.fill(file, entry, data)
            }
            Kind::HardLink(target) => self.hard_link(&path, target),
            Kind::Symlink(target) => self.symlink(&path, target, entry),
            Kind::Fifo => self.fifo(&path, entry),
            Kind::CharDevice(..) | Kind::BlockDevice(..) => self.device(),
            Kind::Other(_) => Ok(()),
        }
    }

    /// The root exists; a layer may say how it looks, a user's archive may not.
    fn root_member(&mut self, entry: &Entry) -> anyhow::Result<()> {
        match (&entry.kind, self.rules) {
            (Kind::Directory, Rules::Layer) => {
                self.directories.insert(PathBuf::new(), entry.clone());
                Ok(())
            }
            (Kind::Directory, Rules::User { .. }) => Ok(()),
            _ => bail!("the root of the archive is not a directory"),
        }
    }

    /// A layer's devices would be the host's, so they are left out; the container has its own
    /// /dev. A user can't make one, and should hear of it.
    fn device(&self) -> anyhow::Result<()> {
        match self.rules {
            Rules::Layer => Ok(()),
            Rules::User { .. } => bail!("Cannot mknod: Operation not permitted"),
        }
    }

    /// Children come after their parents in the map, so it is walked backwards.
    fn finish_directories(mut self) -> anyhow::Result<()> {
        for (path, entry) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.finish_directory(&path, &entry)
                .with_context(|| format!("unpack directory {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns the directory that holds `path`, made if it is missing.
    fn parent(&mut self, path: &Path) -> anyhow::Result<&OwnedFd> {
        let wanted = path.parent().unwrap_or(Path::new(""));
        let fd = match self.parent.take() {
            Some((known, fd)) if known == wanted => fd,
            _ => self.open_or_make(wanted)?,
        };
        let (_, fd) = self.parent.insert((wanted.into(), fd));
        Ok(fd)
    }
}

#[cfg(test)]
mod tests;
