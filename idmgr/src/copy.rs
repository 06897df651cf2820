//! Copying a tree with all it has, its ids translated on the way: into a volume from an image, and
//! out of it. Beside a descriptor of the place nothing of the target is trusted: names are made
//! anew in it, never followed.
//!
//! A whole copy is made beside the target and takes its place in the end, so a copy that was cut
//! off leaves no mix.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::Context;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use serde::Serialize;

use crate::inode::{self, ACLS, Attributes, CAPABILITY};
use crate::translate::Translation;
use crate::walk::{self, Entry, Visitor};

mod content;

/// What was copied.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Entries copied, without the top.
    pub(crate) copied: u64,
    /// Bytes of content, without holes.
    pub(crate) bytes: u64,
    /// Devices, mounts, and attributes that the target can't have.
    pub(crate) skipped: u64,
}

/// Copies all that is in the directory `from` into the empty directory `to`, and what is said of
/// `from` itself to `to`.
///
/// # Errors
/// The kernel's, with the path.
pub(crate) fn copy(
    from: &OwnedFd,
    to: &OwnedFd,
    translation: &Translation,
) -> anyhow::Result<Report> {
    let mut copy = Copy {
        to: to.as_fd(),
        translation,
        directories: Vec::new(),
        names: HashMap::new(),
        report: Report::default(),
    };
    walk::walk(from, &mut copy)?;
    Ok(copy.report)
}

struct Copy<'a> {
    to: BorrowedFd<'a>,
    translation: &'a Translation,
    /// Those being filled, and what they are to be like: a directory gets its times in the end.
    directories: Vec<(OwnedFd, Stat)>,
    /// The first name of files that have more.
    names: HashMap<(u64, u64), PathBuf>,
    report: Report,
}

impl Visitor for Copy<'_> {
    fn enter(&mut self, entry: &Entry<'_>) -> anyhow::Result<()> {
        let attributes = inode::attributes(entry.file, entry.kind(), is_copied)?;
        let Some((parent, _)) = self.directories.last() else {
            let top = self.to.try_clone_to_owned().context("open the target")?;
            self.dress(top.as_fd(), &entry.stat, &attributes)?;
            self.directories.push((top, entry.stat));
            return Ok(());
        };
        let place = Place { parent: parent.as_fd(), name: entry.name };
        if entry.kind() != FileType::Directory && entry.stat.st_nlink > 1 {
            let inode = (entry.stat.st_dev, entry.stat.st_ino);
            if let Some(first) = self.names.get(&inode) {
                self.report.copied += 1;
                return rustix::fs::linkat(
                    self.to,
                    first,
                    place.parent,
                    place.name,
                    AtFlags::empty(),
                )
                .context("link");
            }
            self.names.insert(inode, entry.path.to_owned());
        }
        let Some(made) = make(entry, &place, &mut self.report)? else {
            self.report.skipped += 1;
            return Ok(());
        };
        self.report.copied += 1;
        self.dress(made.as_fd(), &entry.stat, &attributes)?;
        match entry.kind() {
            FileType::Directory => self.directories.push((made, entry.stat)),
            _ => set_times(made.as_fd(), &entry.stat)?,
        }
        Ok(())
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        match self.directories.pop() {
            Some((directory, stat)) => set_times(directory.as_fd(), &stat),
            None => Ok(()),
        }
    }

    fn mount(&mut self, _path: &std::path::Path) {
        self.report.skipped += 1;
    }
}

impl Copy<'_> {
    /// Owner, mode and attributes, in the order in which the kernel does not take them back.
    fn dress(
        &mut self,
        file: BorrowedFd<'_>,
        stat: &Stat,
        attributes: &Attributes,
    ) -> anyhow::Result<()> {
        inode::chown(file, self.translation.uid(stat.st_uid), self.translation.gid(stat.st_gid))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Ok(());
        }
        for (name, value) in attributes {
            let value = match name {
                name if name == CAPABILITY => self.translation.capability(value),
                name if ACLS.contains(&&name[..]) => self.translation.acl(value),
                _ => value.clone(),
            };
            match inode::set_attribute(file, name, &value) {
                Ok(()) => {}
                Err(Errno::NOTSUP | Errno::PERM) => self.report.skipped += 1,
                Err(error) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(error).with_context(|| format!("write attribute {name}"));
                }
            }
        }
        inode::chmod(file, stat.st_mode)?;
        // Last, because a change of mode may take what was set before.
        match attributes.iter().find(|one| one.0 == CAPABILITY) {
            Some((name, value)) => {
                let value = self.translation.capability(value);
                inode::set_attribute(file, name, &value).context("write capabilities")
            }
            None => Ok(()),
        }
    }
}

/// A name to be made.
struct Place<'a> {
    parent: BorrowedFd<'a>,
    name: &'a CStr,
}

impl Place<'_> {
    fn open(&self) -> anyhow::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.parent, self.name, flags, Mode::empty()).context("open the copy")
    }
}

/// Makes the entry with its content, for us alone; `None` for devices. Overlay's whiteouts, which
/// are devices of number 0, are copied: an inner engine's layers have them.
fn make(
    entry: &Entry<'_>,
    place: &Place<'_>,
    report: &mut Report,
) -> anyhow::Result<Option<OwnedFd>> {
    let (parent, name) = (place.parent, place.name);
    let private = Mode::RUSR | Mode::WUSR;
    match entry.kind() {
        FileType::Directory => {
            rustix::fs::mkdirat(parent, name, Mode::RWXU).context("make directory")?;
        }
        FileType::RegularFile => {
            report.bytes += content::copy(entry.file, parent, name)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(entry.file, "", Vec::new()).context("read link")?;
            rustix::fs::symlinkat(&target, parent, name).context("make link")?;
        }
        FileType::Fifo | FileType::Socket => {
            rustix::fs::mknodat(parent, name, entry.kind(), private, 0).context("make node")?;
        }
        FileType::CharacterDevice if entry.stat.st_rdev == 0 => {
            rustix::fs::mknodat(parent, name, FileType::CharacterDevice, private, 0)
                .context("make whiteout")?;
        }
        _ => return Ok(None),
    }
    place.open().map(Some)
}

fn set_times(file: BorrowedFd<'_>, stat: &Stat) -> anyhow::Result<()> {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    match rustix::fs::utimensat(file, "", &times, AtFlags::EMPTY_PATH) {
        Ok(()) => Ok(()),
        // Before Linux 5.8 only through a path, which leads through links.
        Err(Errno::INVAL | Errno::NOENT)
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink =>
        {
            rustix::fs::utimensat(CWD, inode::path_of(file), &times, AtFlags::empty())
                .context("set times")
        }
        Err(error) => Err(error).context("set times"),
    }
}

/// All but the labels of security modules, which are the host's to give.
fn is_copied(name: &[u8]) -> bool {
    name == CAPABILITY
        || ACLS.contains(&name)
        || name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
}

/// Makes a directory for us alone and opens it.
///
/// # Errors
/// The kernel's.
pub(crate) fn make_directory(parent: BorrowedFd<'_>, name: &CStr) -> anyhow::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU).context("make directory")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).context("open directory")
}

/// Returns text as a name; one with a zero byte is none.
///
/// # Errors
/// When it has one.
pub(crate) fn c_name(name: &std::ffi::OsStr) -> anyhow::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(name.as_bytes()).context("a name has a zero byte")
}
