//! A tree, entry by entry, as its owner can't trick us: every name is opened beneath the directory
//! it was read from, no link is followed and no mount entered (openat2(2)), and nothing but
//! directories is opened for more than its name.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One entry of the tree.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Its name there; empty for the top.
    pub(crate) name: &'a CStr,
    /// The entry, opened with `O_PATH`.
    pub(crate) file: BorrowedFd<'a>,
    /// What it is.
    pub(crate) stat: Stat,
    /// Where it is, from the top on.
    pub(crate) path: &'a Path,
}

impl Entry<'_> {
    /// Returns its type.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// What is done to a tree.
pub(crate) trait Visitor {
    /// Meets an entry, a directory before all that is in it.
    fn enter(&mut self, entry: &Entry<'_>) -> anyhow::Result<()>;

    /// Leaves a directory.
    fn leave(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Meets a mount, which is not entered.
    fn mount(&mut self, _path: &Path) {}
}

/// A directory whose entries are being met.
struct Level {
    directory: OwnedFd,
    names: std::vec::IntoIter<CString>,
}

/// Opens the top of a tree.
///
/// # Errors
/// With the path and the reason.
pub(crate) fn open_top(path: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .with_context(|| format!("open {}", path.display()))
}

/// Walks the tree at `top`, which may be a single file. What vanishes meanwhile is passed over.
///
/// # Errors
/// The first of the visitor's or the kernel's, with the path from the top on.
pub(crate) fn walk(top: &OwnedFd, visitor: &mut impl Visitor) -> anyhow::Result<()> {
    allow_depth();
    let mut path = PathBuf::new();
    let mut levels = Vec::new();
    meet(c"", top.as_fd(), &path, visitor)?;
    levels.extend(level(top)?);
    while let Some(current) = levels.last_mut() {
        let Some(name) = current.names.next() else {
            levels.pop();
            visitor.leave().with_context(|| path.display().to_string())?;
            path.pop();
            continue;
        };
        path.push(OsStr::from_bytes(name.to_bytes()));
        let inner = descend(current.directory.as_fd(), &name, &path, visitor)
            .with_context(|| path.display().to_string())?;
        match inner {
            Some(level) => levels.push(level),
            None => drop(path.pop()),
        }
    }
    Ok(())
}

/// A descriptor is held for each level: as many as we may have.
fn allow_depth() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn descend(
    directory: BorrowedFd<'_>,
    name: &CStr,
    path: &Path,
    visitor: &mut impl Visitor,
) -> anyhow::Result<Option<Level>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::XDEV) => {
            visitor.mount(path);
            return Ok(None);
        }
        Err(error) => return Err(error).context("open"),
    };
    meet(name, file.as_fd(), path, visitor)?;
    level(&file)
}

fn meet(
    name: &CStr,
    file: BorrowedFd<'_>,
    path: &Path,
    visitor: &mut impl Visitor,
) -> anyhow::Result<()> {
    let stat = rustix::fs::fstat(file).context("look at")?;
    visitor.enter(&Entry { name, file, stat, path })
}

/// Reads a directory; other files have nothing in them.
fn level(file: &OwnedFd) -> anyhow::Result<Option<Level>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(file, ".", flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOTDIR) => return Ok(None),
        // Removed while it was looked at.
        Err(Errno::NOENT) => {
            let directory = file.try_clone().context("open directory")?;
            return Ok(Some(Level { directory, names: Vec::new().into_iter() }));
        }
        Err(error) => return Err(error).context("open directory"),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory).context("read directory")? {
        let entry = entry.context("read directory")?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(Some(Level { directory, names: names.into_iter() }))
}
