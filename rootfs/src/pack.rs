//! A directory, or one thing in it → an archive.

mod marks;
mod sizeless;

pub(crate) use marks::Marks;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::archive::{Entry, Kind, write};
use crate::beneath::Beneath;
use crate::unpack::{WHITEOUT_PREFIX, is_marked, is_whiteout};
use crate::xattr;

/// Large enough that system calls don't matter beside copying.
const BUFFER: usize = 256 * 1024;

/// What an archive is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A layer: names have no leading `./`, overlay's whiteouts become OCI's. Overlay keeps what
    /// else it has to say in attributes of this kind.
    Layer(Marks),
    /// What a user of a container streams out.
    User,
}

/// Writes archives. What can't be read is left out and told at the end, as tar does.
#[derive(Debug)]
pub(crate) struct Packer<W> {
    root: Beneath,
    purpose: Purpose,
    output: W,
    /// What every name begins with.
    prefix: &'static [u8],
    /// Where a file with several names stands in the archive.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// What could not be read.
    failed: Vec<String>,
    buffer: Vec<u8>,
    /// The directory used last, because its members come in a row.
    parent: Option<(PathBuf, OwnedFd)>,
}

/// A directory on the way down.
struct Level {
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

impl<W: Write> Packer<W> {
    /// Packs from the directory `root`.
    pub(crate) fn new(root: Beneath, purpose: Purpose, output: W) -> Self {
        let (linked, failed) = (HashMap::new(), Vec::new());
        let (buffer, parent) = (vec![0; BUFFER], None);
        Self { root, purpose, output, prefix: b"", linked, failed, buffer, parent }
    }

    /// Packs `what` of the root with all below it; `.` is the root itself. Returns the output and
    /// what could not be read.
    ///
    /// # Errors
    /// When `what` does not exist, before anything is written, or the output can't be written.
    pub(crate) fn run(mut self, what: &OsStr) -> anyhow::Result<(W, Vec<String>)> {
        let mut path = PathBuf::from(what);
        if what == "." {
            path.clear();
            // As tar has it; layers are usually written without.
            self.prefix = if self.purpose == Purpose::User { b"./" } else { b"" };
        }
        let parent = self.root.dir(Path::new("")).context("open directory")?;
        let stat = rustix::fs::statat(&parent, what, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| what.to_string_lossy().into_owned())?;
        let mut levels = Vec::new();
        // The first one may fail, and then nothing is written at all.
        levels.extend(self.member(&parent, &path, what, &stat)?);
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let path = level.path.join(&name);
            match self.below(&path, &name) {
                Ok(found) => levels.extend(found),
                Err(error) if is_output_lost(&error) => return Err(error),
                Err(error) => self.failed.push(format!("{}: {error:#}", path.display())),
            }
        }
        write::end(&mut self.output).and_then(|()| self.output.flush()).context("write archive")?;
        Ok((self.output, self.failed))
    }

    fn below(&mut self, path: &Path, name: &OsStr) -> anyhow::Result<Option<Level>> {
        let wanted = path.parent().unwrap_or(Path::new(""));
        let parent = match self.parent.take() {
            Some((known, parent)) if known == wanted => parent,
            _ => match self.root.dir(wanted) {
                Err(Errno::NOENT) => return Ok(None),
                parent => parent.context("open directory")?,
            },
        };
        let found = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Removed while we were at it.
            Err(Errno::NOENT) => Ok(None),
            stat => stat
                .context("look at file")
                .and_then(|stat| self.member(&parent, path, name, &stat)),
        };
        self.parent = Some((wanted.into(), parent));
        found
    }

    /// Writes one member; returns the level below it if it is a directory.
    fn member(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        name: &OsStr,
        stat: &Stat,
    ) -> anyhow::Result<Option<Level>> {
        if self.purpose != Purpose::User && is_whiteout(stat) {
            return self.whiteout(path, name).map(|()| None);
        }
        let mut entry = describe(stat, self.name(path, stat));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return self.directory(parent, path, name, entry).map(Some),
            FileType::RegularFile => {
                return self.file(parent, path, name, stat, entry).map(|()| None);
            }
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(parent, name, Vec::new()).context("read link")?;
                entry.kind = Kind::Symlink(target.into_bytes());
            }
            FileType::Fifo => entry.kind = Kind::Fifo,
            FileType::CharacterDevice => entry.kind = Kind::CharDevice(major(stat), minor(stat)),
            FileType::BlockDevice => entry.kind = Kind::BlockDevice(major(stat), minor(stat)),
            // Sockets mean nothing without the process behind them.
            _ => return Ok(None),
        }
        self.header(&entry).map(|()| None)
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        name: &OsStr,
        mut entry: Entry,
    ) -> anyhow::Result<Level> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, rustix::fs::Mode::empty())
            .context("open directory")?;
        let mut names = Vec::new();
        for found in Dir::read_from(&directory).context("read directory")? {
            let found = found.context("read directory")?;
            match found.file_name() {
                name if name == c"." || name == c".." => {}
                name => names.push(OsString::from_vec(name.to_bytes().to_vec())),
            }
        }
        if let Purpose::Layer(marks) = self.purpose {
            marks.check(&directory)?;
        }
        // The same tree gives the same archive.
        names.sort();
        entry.kind = Kind::Directory;
        entry.xattrs = xattr::read(&directory).context("read attributes")?;
        self.header(&entry)?;
        if let Purpose::Layer(marks) = self.purpose
            && is_marked(&directory, &marks.name("opaque"))
        {
            self.empty(path.join(".wh..wh..opq"))?;
        }
        Ok(Level { path: path.into(), names: names.into_iter() })
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        name: &OsStr,
        stat: &Stat,
        mut entry: Entry,
    ) -> anyhow::Result<()> {
        if stat.st_nlink > 1 {
            let first = self.linked.entry((stat.st_dev, stat.st_ino));
            match first {
                std::collections::hash_map::Entry::Occupied(first) => {
                    entry.kind = Kind::HardLink(first.get().clone());
                    return self.header(&entry);
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(entry.path.clone());
                }
            }
        }
        // Should a pipe have taken its place, NONBLOCK keeps us from waiting for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, rustix::fs::Mode::empty());
        let file = file.inspect_err(|_| {
            self.linked.remove(&(stat.st_dev, stat.st_ino));
        });
        let file = File::from(file.context("open file")?);
        if let Purpose::Layer(marks) = self.purpose {
            // Since Linux 6.7 an empty file with this attribute is a whiteout, too.
            if stat.st_size == 0 && marks.is_there(&file, "whiteout") {
                self.linked.remove(&(stat.st_dev, stat.st_ino));
                return self.whiteout(path, name);
            }
            marks.check(&file)?;
        }
        let known = u64::try_from(stat.st_size).unwrap_or_default();
        let made = match self.purpose {
            Purpose::User if known == 0 => sizeless::content(&file)?,
            _ => Vec::new(),
        };
        entry.size = known.max(made.len() as u64);
        entry.xattrs = xattr::read(&file).context("read attributes")?;
        self.header(&entry)?;
        self.output.write_all(&made).context(OutputLost)?;
        self.content(file, known)?;
        write::padding(&mut self.output, entry.size).context(OutputLost)
    }

    /// Writes exactly `size` bytes, whatever the file has become since its header was written.
    fn content(&mut self, mut file: File, size: u64) -> anyhow::Result<()> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let length = match file.read(&mut self.buffer[..most]) {
                Ok(0) | Err(_) => {
                    self.failed.push("a file shrank or could not be read to its end".into());
                    self.buffer[..most].fill(0);
                    most
                }
                Ok(length) => length,
            };
            self.output.write_all(&self.buffer[..length]).context(OutputLost)?;
            left -= length as u64;
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &Path, name: &OsStr) -> anyhow::Result<()> {
        let hidden = [WHITEOUT_PREFIX, name.as_bytes()].concat();
        self.empty(path.with_file_name(OsStr::from_bytes(&hidden)))
    }

    fn empty(&mut self, path: PathBuf) -> anyhow::Result<()> {
        let path = path.into_os_string().into_vec();
        self.header(&Entry { path, mode: 0o600, ..Entry::default() })
    }

    fn header(&mut self, entry: &Entry) -> anyhow::Result<()> {
        write::header(&mut self.output, entry).context(OutputLost)
    }

    /// The name in the archive; directories end with a slash.
    fn name(&self, path: &Path, stat: &Stat) -> Vec<u8> {
        if path.as_os_str().is_empty() {
            return b"./".to_vec();
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        let slash: &[u8] = if is_directory { b"/" } else { b"" };
        [self.prefix, path.as_os_str().as_bytes(), slash].concat()
    }
}

/// The output is gone, so nothing more can be done; as context it tells such errors from those of
/// a single file.
#[derive(Debug)]
struct OutputLost;

impl std::fmt::Display for OutputLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("write archive")
    }
}

fn is_output_lost(error: &anyhow::Error) -> bool {
    error.downcast_ref::<OutputLost>().is_some()
}

fn describe(stat: &Stat, path: Vec<u8>) -> Entry {
    Entry {
        path,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, 0),
        ..Entry::default()
    }
}

fn major(stat: &Stat) -> u32 {
    rustix::fs::major(stat.st_rdev)
}

fn minor(stat: &Stat) -> u32 {
    rustix::fs::minor(stat.st_rdev)
}

#[cfg(test)]
mod tests {
    use rustix::fs::XattrFlags;

    use super::*;
    use crate::archive::read::Reader;

    /// A directory whose files and directories (with a slash) have these attributes.
    fn marked(names: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, attribute, value) in names {
            let path = dir.path().join(name);
            match name.ends_with('/') {
                true => std::fs::create_dir_all(&path).unwrap(),
                false => std::fs::write(&path, "").unwrap(),
            }
            let file = File::open(&path).unwrap();
            rustix::fs::fsetxattr(&file, *attribute, value.as_bytes(), XattrFlags::empty())
                .unwrap();
        }
        dir
    }

    fn pack(dir: &tempfile::TempDir, purpose: Purpose) -> (Vec<String>, Vec<String>) {
        let root = Beneath::without_links(File::open(dir.path()).unwrap().into());
        let (archive, failed) = Packer::new(root, purpose, Vec::new()).run(".".as_ref()).unwrap();
        let mut reader = Reader::new(&archive[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            assert!(entry.xattrs.is_empty());
            names.push(String::from_utf8(entry.path).unwrap());
        }
        (names, failed)
    }

    #[test]
    fn marks_of_overlay_become_whiteouts() {
        let dir = marked(&[
            ("d/", "user.overlay.opaque", "y"),
            ("e/", "user.overlay.opaque", "x"),
            ("e/gone", "user.overlay.whiteout", ""),
        ]);
        std::fs::hard_link(dir.path().join("e/gone"), dir.path().join("e/too")).unwrap();
        let (names, failed) = pack(&dir, Purpose::Layer(Marks::User));
        assert_eq!(names, ["./", "d/", "d/.wh..wh..opq", "e/", "e/.wh.gone", "e/.wh.too"]);
        assert!(failed.is_empty());
        // Where overlay keeps its marks elsewhere, those are a container's own and mean nothing.
        let (names, _) = pack(&dir, Purpose::Layer(Marks::Trusted));
        assert_eq!(names, ["./", "d/", "e/", "e/gone", "e/too"]);
    }

    #[test]
    fn what_is_only_a_reference_is_refused() {
        let dir = marked(&[
            ("moved/", "user.overlay.redirect", "/old"),
            ("thin", "user.overlay.metacopy", ""),
            ("whole", "user.overlay.origin", "x"),
        ]);
        let (names, failed) = pack(&dir, Purpose::Layer(Marks::User));
        assert_eq!(names, ["./", "whole"]);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(failed[0].contains("redirect") && failed[1].contains("metacopy"), "{failed:?}");
    }
}
