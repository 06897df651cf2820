//! Members of an archive → files beneath a directory.
//!
//! The archive is hostile. A name is cut down to what lies inside ([`contained`]), its directory
//! is opened beneath the root by openat2, and the last component is made by a call that follows
//! no link. Nothing is ever opened that the archive made, save directories and the file just
//! created.

mod attributes;
mod filler;
mod place;
mod whiteout;

pub(crate) use whiteout::{PREFIX as WHITEOUT_PREFIX, is_marked, is_one as is_whiteout};

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use guardian_contract::fault::Fault;

use crate::archive::read::Reader;
use crate::archive::{Entry, Kind};
use crate::beneath::{Beneath, contained};
use crate::recipe::Recorder;
use filler::Filler;

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
    /// What all names of the archive are relative to.
    base: PathBuf,
    /// Bytes of content that may still come.
    room: u64,
    /// Directories that may still be made without being told of.
    implied: u64,
    /// The directory used last, because members of one directory come in a row.
    parent: Option<(PathBuf, OwnedFd)>,
    /// What directories are to look like in the end: making their content changes their time, and
    /// their mode may forbid to make it.
    directories: BTreeMap<PathBuf, Entry>,
    /// Bytes that those take in memory.
    remembered: usize,
    /// What writes down the rest of the archive, and where it says whether it could.
    recorder: Option<Recorder>,
    is_recorded: Option<&'a Cell<bool>>,
}

/// More directories that no member tells of are not an image but a few names of a thousand slashes.
const MAX_IMPLIED: u64 = 1_000_000;
/// Most bytes of names and attributes of directories: a hundred times what a large image has.
const MAX_REMEMBERED: usize = 128 << 20;

/// The content does not fit where it may go; as context it tells such errors from others.
#[derive(Debug)]
pub(crate) struct TooLarge;

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("uncompressed layer size exceeds quota")
    }
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
        Self {
            root,
            rules,
            lower,
            base: PathBuf::new(),
            room,
            implied: MAX_IMPLIED,
            parent: None,
            directories: BTreeMap::new(),
            remembered: 0,
            recorder: None,
            is_recorded: None,
        }
    }

    /// Unpacks in a directory of the layers below instead of in the root.
    ///
    /// # Errors
    /// `NotFound`, in grootfs' words, where they have none.
    pub(crate) fn move_to(&mut self, base: &Path) -> anyhow::Result<()> {
        if base.as_os_str().is_empty() {
            return Ok(());
        }
        if !self.lower.iter().any(|layer| layer.dir(base).is_ok()) {
            bail!(Fault::not_found("base directory not found in parent layer"));
        }
        self.open_or_make(base)?;
        self.base = base.to_owned();
        Ok(())
    }

    /// Writes a recipe of the archive; `is_whole` tells in the end whether there is one.
    pub(crate) fn record(&mut self, recorder: Recorder, is_whole: &'a Cell<bool>) {
        (self.recorder, self.is_recorded) = (Some(recorder), Some(is_whole));
    }

    /// Unpacks all members and reads the input to its end.
    ///
    /// # Errors
    /// At the first member that is broken or can't be made; what was made before it stays.
    pub(crate) fn run(mut self, input: impl BufRead) -> anyhow::Result<()> {
        let mut archive = Reader::recorded(input, self.recorder.take());
        std::thread::scope(|scope| {
            let mut filler = Filler::new(scope, self.rules);
            let walked = self.members(&mut archive, &mut filler);
            // Of two failures the filler's is of the earlier member.
            filler.finish().and(walked)
        })?;
        archive.drain()?;
        if let (Some(recorder), Some(is_recorded)) =
            (archive.into_recorder(), self.is_recorded.take())
        {
            is_recorded.set(recorder.finish());
        }
        self.finish_directories()
    }

    fn members<R: BufRead>(
        &mut self,
        archive: &mut Reader<R>,
        filler: &mut Filler<'_, '_>,
    ) -> anyhow::Result<()> {
        while let Some(entry) = archive.next()? {
            self.member(&entry, archive, filler)
                .with_context(|| format!("unpack {}", entry.path.escape_ascii()))?;
        }
        Ok(())
    }

    fn member<R: BufRead>(
        &mut self,
        entry: &Entry,
        data: &mut Reader<R>,
        filler: &mut Filler<'_, '_>,
    ) -> anyhow::Result<()> {
        let path = self.base.join(contained(&entry.path).context("the name is not a path")?);
        if self.rules == Rules::Layer && self.take_whiteout(&path, entry)? {
            return Ok(());
        }
        if path.as_os_str().is_empty() {
            return self.root_member(entry);
        }
        match &entry.kind {
            Kind::Directory => self.directory(&path, entry),
            Kind::File => self.file(&path, entry, data, filler),
            Kind::HardLink(target) => self.hard_link(&path, target),
            Kind::Symlink(target) => self.symlink(&path, target, entry),
            Kind::Fifo => self.fifo(&path, entry),
            Kind::CharDevice(..) | Kind::BlockDevice(..) => self.device(),
            // Passed over, but not for free: it has to be read, and may be packed well.
            Kind::Other(_) => self.charge(entry.size),
        }
    }

    fn charge(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.room = self.room.checked_sub(bytes).context(TooLarge)?;
        Ok(())
    }

    /// Keeps what a directory is to look like in the end; the latest word counts.
    fn remember(&mut self, path: PathBuf, entry: &Entry) -> anyhow::Result<()> {
        let entry = Entry { path: Vec::new(), ..entry.clone() };
        self.remembered += size_in_memory(&path, &entry);
        if let Some(former) = self.directories.insert(path.clone(), entry) {
            self.remembered -= size_in_memory(&path, &former);
        }
        if self.remembered > MAX_REMEMBERED {
            bail!("archive with more than {MAX_REMEMBERED} bytes of names of directories");
        }
        Ok(())
    }

    /// The root exists; a layer may say how it looks, a user's archive may not.
    fn root_member(&mut self, entry: &Entry) -> anyhow::Result<()> {
        match (&entry.kind, self.rules) {
            (Kind::Directory, Rules::Layer) => self.remember(PathBuf::new(), entry),
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

fn size_in_memory(path: &Path, entry: &Entry) -> usize {
    let attributes = entry.xattrs.iter().map(|(name, value)| name.len() + value.len());
    size_of::<(PathBuf, Entry)>() + path.as_os_str().len() + attributes.sum::<usize>()
}

#[cfg(test)]
mod tests;
