//! What a chown takes from files, written down before: one JSON line for each, on disk before its
//! file is touched.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::inode::{self, CAPABILITY};
use crate::translate::Translation;
use crate::walk::Entry;

/// A file with something to lose, as it was.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Special {
    /// Bytes, because names need not be text.
    path: Vec<u8>,
    inode: u64,
    uid: u32,
    gid: u32,
    mode: u32,
    capability: Option<Vec<u8>>,
}

impl Special {
    pub(super) fn of(entry: &Entry<'_>, capability: Option<&Vec<u8>>) -> Self {
        use std::os::unix::ffi::OsStrExt;
        Self {
            path: entry.path.as_os_str().as_bytes().to_vec(),
            inode: entry.stat.st_ino,
            uid: entry.stat.st_uid,
            gid: entry.stat.st_gid,
            mode: entry.stat.st_mode,
            capability: capability.cloned(),
        }
    }

    /// Gives the file back what it may have lost, if it was given away.
    fn restore(&self, root: &OwnedFd, done: &Translation) -> anyhow::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let path = if self.path.is_empty() { &b"."[..] } else { &self.path };
        let opened = match self.path.is_empty() {
            true => root.try_clone().map_err(|_| Errno::MFILE),
            false => rustix::fs::openat2(root, path, flags, Mode::empty(), resolve),
        };
        let Ok(file) = opened else { return Ok(()) };
        let stat = rustix::fs::fstat(&file).context("look at")?;
        let given = (done.uid(self.uid), done.gid(self.gid));
        if stat.st_ino != self.inode || (stat.st_uid, stat.st_gid) != given {
            return Ok(());
        }
        use std::os::fd::AsFd;
        inode::chmod(file.as_fd(), self.mode)?;
        if let Some(value) = &self.capability {
            let value = done.capability(value);
            inode::set_attribute(file.as_fd(), CAPABILITY, &value).context("write capabilities")?;
        }
        Ok(())
    }
}

/// The journal of one run. There is no file before something is written.
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
}

impl Journal {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.into(), file: None }
    }

    /// Writes a line, and waits until it is on disk.
    pub(super) fn write(&mut self, special: &Special) -> anyhow::Result<()> {
        let context = || format!("write {}", self.path.display());
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o600);
            self.file = Some(options.open(&self.path).with_context(context)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(special)?;
        line.push(b'\n');
        file.write_all(&line).and_then(|()| file.sync_data()).with_context(context)
    }

    pub(super) fn remove(&self) -> anyhow::Result<()> {
        remove(&self.path)
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Restores what a run in the direction `done` may have lost, and removes its journal.
pub(super) fn replay(root: &OwnedFd, path: &Path, done: &Translation) -> anyhow::Result<()> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    // A line that is not whole was never acted on.
    let specials =
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    for special in specials {
        let special: Special = special;
        special
            .restore(root, done)
            .with_context(|| String::from_utf8_lossy(&special.path).into_owned())?;
    }
    remove(path)
}
