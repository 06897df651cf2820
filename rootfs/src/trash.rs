//! The trash: what has lost its name and is being removed, or what dead processes left of it.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::store::Store;
use crate::{held, layer, remove};

/// A directory in the trash that is ours while we live: what is moved there is out of everybody's
/// way at once, and can be removed at leisure.
#[derive(Debug)]
pub(crate) struct Bin {
    trash: PathBuf,
    name: OsString,
    _held: File,
}

impl Bin {
    /// Makes an empty one.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn new(store: &Store) -> anyhow::Result<Self> {
        let trash = store.trash();
        for count in 0u64.. {
            let name = OsString::from(format!("bin.{}.{count}", std::process::id()));
            let path = trash.join(&name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made.with_context(|| format!("make {}", path.display()))?,
            }
            // Someone who sweeps the trash may have been faster.
            let Some(held) = held::open(&path)? else { continue };
            if held.try_lock().is_ok() && held::is_still(&held, &path) {
                return Ok(Self { trash, name, _held: held });
            }
        }
        anyhow::bail!("no name is free in {}", trash.display())
    }

    /// Moves `path` here; tells whether there was such a thing.
    ///
    /// # Errors
    /// When it can't be moved.
    pub(crate) fn take(&self, path: &Path) -> anyhow::Result<bool> {
        let name = path.file_name().context("path without a name")?;
        match std::fs::rename(path, self.trash.join(&self.name).join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("move {} away", path.display())),
        }
    }

    /// Removes it with all that it holds.
    ///
    /// # Errors
    /// When something can't be removed; it stays in the trash then.
    pub(crate) fn empty(self) -> anyhow::Result<()> {
        remove::tree(&layer::open_directory(&self.trash)?, &self.name)
    }
}

/// Removes what dead processes left in the trash, and returns how many things that were; what a
/// living one is removing is its own.
///
/// # Errors
/// When something can't be removed.
pub(crate) fn sweep(store: &Store) -> anyhow::Result<usize> {
    let path = store.trash();
    let trash: OwnedFd = match held::open(&path)? {
        Some(trash) => trash.into(),
        None => return Ok(0),
    };
    let mut count = 0;
    for entry in std::fs::read_dir(&path).context("read the trash")? {
        let name = entry.context("read the trash")?.file_name();
        let Some(held) = held::open(&path.join(&name))? else { continue };
        if held.try_lock().is_ok() {
            remove::tree(&trash, &name)?;
            count += 1;
        }
    }
    Ok(count)
}
